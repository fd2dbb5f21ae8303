"""What all optimizers share: groups, state, and the walk over the parameters.

A rule is written for arrays without looking at their shape: parameters are walked over in blocks
that stay in the cache, so that the temporary arrays of a rule are two small ones for good, and each
element of the large ones is read and written once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from pyconv._arrays import as_array, quiet
from pyconv.parameter import Parameter, zero_grad

if TYPE_CHECKING:
    from pyconv._arrays import Array

BLOCK = 1 << 14


class Optimizer:
    """Base class of the optimizers; what it has is theirs.

    Attributes
    ----------
    param_groups : list of dict
        The groups with their options; ``"params"`` is the list of handles.
    state : dict
        What an optimizer remembers of each parameter: ``{parameter: {name: array}}``.
    """

    def __init__(
        self, params: Iterable[Parameter] | Iterable[dict[str, Any]], defaults: dict[str, Any]
    ) -> None:
        self.defaults = defaults
        self.state: dict[Parameter, dict[str, Any]] = {}
        self.param_groups: list[dict[str, Any]] = []
        self._steps = 0  # for the warning of a scheduler that was stepped first
        self._scratch: dict[np.dtype[Any], Array] = {}
        if isinstance(params, (Parameter, np.ndarray, str)):
            raise TypeError(
                "params argument given to the optimizer should be an iterable of Parameters or "
                f"dicts, but got {type(params).__name__}"
            )
        groups: list[Any] = list(params)
        if not groups:
            raise ValueError("optimizer got an empty parameter list")
        if not isinstance(groups[0], dict):
            groups = [{"params": groups}]
        for group in groups:
            self.add_param_group(group)

    # ---- what each optimizer defines ----

    _arrays: tuple[str, ...]  # all names of arrays in its state

    def _check_options(self, group: Mapping[str, Any]) -> None:
        """ValueError for an option that is out of range."""
        raise NotImplementedError

    def _prepare(
        self, group: Mapping[str, Any], state: dict[str, Any]
    ) -> tuple[tuple[str, ...], Callable[..., None]]:
        """Count the step in ``state``; return names of arrays of the state, and the rule.

        ``rule(data, grad, arrays, fresh, one, two)`` changes a block of a parameter and of those
        arrays; ``fresh`` says that the arrays are new and zero. ``one`` and ``two`` are for
        anything; the rule makes no other arrays.
        """
        raise NotImplementedError

    # ---- groups ----

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add a group ``{"params": ..., option: value, ...}``; options not given are the defaults.

        Raises
        ------
        TypeError, ValueError
            As the constructor. The optimizer is then as before.
        """
        if not isinstance(param_group, dict):
            raise TypeError(f"param_group must be a dict, but got {type(param_group).__name__}")
        unknown = set(param_group) - {"params", "initial_lr", *self.defaults}
        if unknown:
            raise ValueError(f"unknown options in parameter group: {sorted(unknown)}")
        given = param_group["params"]
        parameters = [given] if isinstance(given, Parameter) else list(given)
        for parameter in parameters:
            if not isinstance(parameter, Parameter):
                raise TypeError(
                    "optimizer can only optimize Parameters, as model.parameters() gives them, "
                    f"but one of the params is {type(parameter).__name__}"
                )
        if len(set(parameters)) < len(parameters):
            raise ValueError("some parameters appear more than once")
        if not set(parameters).isdisjoint(self._parameters()):
            raise ValueError("some parameters appear in more than one parameter group")
        group = {**self.defaults, **param_group, "params": parameters}
        self._check_options(group)
        self.param_groups.append(group)

    def _parameters(self) -> list[Parameter]:
        return [p for group in self.param_groups for p in group["params"]]

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Forget all gradients, or fill them with zeros."""
        for group in self.param_groups:
            zero_grad(group["params"], set_to_none)

    # ---- steps ----

    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Change all parameters that have a gradient, in place; nothing before the first backward.

        Arrays are made in the first step alone. ``closure``, if given, is called first and its
        result returned, as in torch.

        Raises
        ------
        ValueError
            If an option was set to something out of range, or a parameter is read-only. Nothing has
            changed then.
        """
        loss = None if closure is None else closure()
        updates = []
        for group in self.param_groups:
            self._check_options(group)
            for parameter in group["params"]:
                grad = parameter.grad
                if grad is None:
                    continue
                data = parameter.data
                if not data.flags.writeable:
                    raise ValueError(f"{type(self).__name__}: {parameter!r} is read-only")
                if parameter.requires_grad:
                    updates.append((parameter, data, grad, group))
        with quiet():
            for update in updates:
                self._update(*update)
        self._steps += 1
        return loss

    def _update(
        self, parameter: Parameter, data: Array, grad: Array, group: dict[str, Any]
    ) -> None:
        state = self.state.get(parameter, {})
        names, rule = self._prepare(group, state)
        fresh = False
        for name in names:
            held = state.get(name)
            if held is None:
                state[name] = np.zeros(data.shape, data.dtype)
                fresh = True
            elif held.dtype != data.dtype:  # the model was converted in between
                state[name] = held.astype(data.dtype)
        if state:
            self.state[parameter] = state
        scratch = self._scratch.get(data.dtype)
        if scratch is None:
            scratch = self._scratch[data.dtype] = np.empty((2, BLOCK), data.dtype)
        size = data.size
        flat = [array.reshape(-1) for array in (data, grad, *(state[name] for name in names))]
        for first in range(0, size, BLOCK):
            blocks = flat if size <= BLOCK else [array[first : first + BLOCK] for array in flat]
            values, gradient, *arrays = blocks
            one, two = scratch[:, : values.size]
            rule(values, gradient, arrays, fresh, one, two)

    # ---- state ----

    def state_dict(self) -> dict[str, Any]:
        """Return the state and the options; parameters are told by their number.

        The arrays are the live ones.
        """
        numbers = {p: i for i, p in enumerate(self._parameters())}
        groups = [
            {**group, "params": [numbers[p] for p in group["params"]]}
            for group in self.param_groups
        ]
        state = {numbers[p]: dict(entry) for p, entry in self.state.items()}
        return {"state": state, "param_groups": groups}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Take over what another optimizer's :meth:`state_dict` returned; arrays are copied.

        It may be that of torch's optimizer of the same name.

        Raises
        ------
        ValueError
            If the groups, the shapes or the kind of state differ. The optimizer is then as before.
        """
        groups = state_dict["param_groups"]
        sizes = [len(group["params"]) for group in groups]
        if sizes != [len(group["params"]) for group in self.param_groups]:
            raise ValueError(
                "loaded state dict has a different number of parameter groups, or a group of "
                "another size"
            )
        numbers = [number for group in groups for number in group["params"]]
        by_number = dict(zip(numbers, self._parameters(), strict=True))
        state: dict[Parameter, dict[str, Any]] = {}
        for number, entry in state_dict["state"].items():
            parameter = by_number[number]
            loaded = {
                name: self._loaded(number, name, value, parameter)
                for name, value in entry.items()
                if value is not None
            }
            if loaded:
                state[parameter] = loaded
        merged = [
            {**own, **group, "params": own["params"]}
            for own, group in zip(self.param_groups, groups, strict=True)
        ]
        for group in merged:
            self._check_options(group)
        self.param_groups = merged
        self.state = state

    def _loaded(self, number: Any, name: str, value: Any, parameter: Parameter) -> Any:
        if name == "step":
            return int(value)
        if name not in self._arrays:
            raise ValueError(
                f"loaded state of parameter {number}: {type(self).__name__} has no {name!r}"
            )
        copy = np.array(as_array(value), dtype=parameter.dtype, order="C")
        if copy.shape != parameter.shape:
            raise ValueError(
                f"loaded state of parameter {number}: expected shape {parameter.shape}, "
                f"got {copy.shape}"
            )
        return copy

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_scratch": {}}

    def __repr__(self) -> str:
        lines = [f"{type(self).__name__} ("]
        for i, group in enumerate(self.param_groups):
            lines.append(f"Parameter Group {i}")
            lines += [f"    {name}: {group[name]}" for name in sorted(group) if name != "params"]
        return "\n".join([*lines, ")"])


def check_not_negative(group: Mapping[str, Any], name: str, what: str) -> None:
    """ValueError unless ``group[name]`` is a number of at least 0."""
    if not group[name] >= 0:
        raise ValueError(f"Invalid {what}: {group[name]}")
