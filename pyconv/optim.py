"""Optimizers: they change parameters along their gradients.

Each holds the handles that :meth:`pyconv.Module.parameters` gives, in groups with options of their
own, as in torch.optim: ``optimizer.param_groups[0]["lr"] = 0.01`` changes the learning rate.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from pyconv._arrays import quiet
from pyconv.parameter import Parameter, zero_grad

if TYPE_CHECKING:
    from pyconv._arrays import Array

__all__ = ["SGD"]


class SGD:
    r"""Stochastic gradient descent, with momentum.

    For a parameter ``p`` with gradient ``g``, in each step::

        g = g + weight_decay * p
        v = momentum * v + (1 - dampening) * g      (v = g in the first step)
        g = g + momentum * v if nesterov else v     (only with momentum)
        p = p - lr * g

    Parameters
    ----------
    params : iterable of Parameter, or of dicts
        What ``model.parameters()`` gives. A dict is a group: ``{"params": ..., "lr": ...}``.
    lr : float, default: 1e-3
    momentum : float, default: 0
    dampening : float, default: 0
    weight_decay : float, default: 0
    nesterov : bool, default: False
        Needs momentum and no dampening.
    maximize : bool, default: False
        Go along the gradient instead of against it.

    Attributes
    ----------
    param_groups : list of dict
        The groups with their options; ``"params"`` is the list of handles.
    state : dict
        ``{parameter: {"momentum_buffer": array}}``.

    Raises
    ------
    TypeError
        If something other than parameters is given.
    ValueError
        If there are none, one comes twice, or an option is out of range.

    Examples
    --------
    >>> import numpy as np, pyconv
    >>> p = pyconv.Parameter(np.array([1.0]))
    >>> optimizer = pyconv.optim.SGD([p], lr=0.5)
    >>> p.grad = [1.0]
    >>> optimizer.step()
    >>> p.data
    array([0.5])
    """

    def __init__(
        self,
        params: Iterable[Parameter] | Iterable[dict[str, Any]],
        lr: float = 1e-3,
        momentum: float = 0,
        dampening: float = 0,
        weight_decay: float = 0,
        nesterov: bool = False,
        *,
        maximize: bool = False,
    ) -> None:
        self.defaults: dict[str, Any] = {
            "lr": lr,
            "momentum": momentum,
            "dampening": dampening,
            "weight_decay": weight_decay,
            "nesterov": nesterov,
            "maximize": maximize,
        }
        self.state: dict[Parameter, dict[str, Any]] = {}
        self.param_groups: list[dict[str, Any]] = []
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

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add a group ``{"params": ..., option: value, ...}``; options not given are the defaults.

        Raises
        ------
        TypeError, ValueError
            As the constructor. The optimizer is then as before.
        """
        if not isinstance(param_group, dict):
            raise TypeError(f"param_group must be a dict, but got {type(param_group).__name__}")
        unknown = set(param_group) - {"params", *self.defaults}
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
        known = [p for group in self.param_groups for p in group["params"]] + parameters
        if len(set(known)) < len(known):
            raise ValueError("some parameters appear more than once")
        group = {**self.defaults, **param_group, "params": parameters}
        _check_options(group)
        self.param_groups.append(group)

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Forget all gradients, or fill them with zeros."""
        for group in self.param_groups:
            zero_grad(group["params"], set_to_none)

    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Change all parameters that have a gradient, in place.

        ``closure``, if given, is called first and its result returned, as in torch.
        """
        loss = None if closure is None else closure()
        with quiet():
            for group in self.param_groups:
                for parameter in group["params"]:
                    if parameter.requires_grad and parameter.grad is not None:
                        self._update(parameter, parameter.grad, group)
        return loss

    def _update(self, parameter: Parameter, grad: Array, group: dict[str, Any]) -> None:
        # Python floats do not change the dtype of an array, NumPy's float64 scalars would.
        lr, momentum, dampening, weight_decay = (
            float(group[name]) for name in ("lr", "momentum", "dampening", "weight_decay")
        )
        data = parameter.data
        if group["maximize"]:
            grad = -grad
        if weight_decay:
            grad = grad + weight_decay * data
        if momentum:
            state = self.state.setdefault(parameter, {})
            buffer = state.get("momentum_buffer")
            if buffer is None:
                buffer = state["momentum_buffer"] = np.array(grad)
            else:
                if buffer.dtype != data.dtype:  # the model was converted in between
                    buffer = state["momentum_buffer"] = buffer.astype(data.dtype)
                buffer *= momentum
                buffer += (1 - dampening) * grad
            grad = grad + momentum * buffer if group["nesterov"] else buffer
        data -= lr * grad

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

        Raises
        ------
        ValueError
            If the groups or the shapes differ. The optimizer is then as before.
        """
        groups = state_dict["param_groups"]
        sizes = [len(group["params"]) for group in groups]
        if sizes != [len(group["params"]) for group in self.param_groups]:
            raise ValueError(
                "loaded state dict has a different number of parameter groups, or a group of "
                "another size"
            )
        parameters = self._parameters()
        numbers = [number for group in groups for number in group["params"]]
        by_number = dict(zip(numbers, parameters, strict=True))
        state: dict[Parameter, dict[str, Any]] = {}
        for number, entry in state_dict["state"].items():
            parameter = by_number[number]
            buffer = entry.get("momentum_buffer")
            if buffer is None:
                continue
            copy = np.array(buffer, dtype=parameter.dtype)
            if copy.shape != parameter.shape:
                raise ValueError(
                    f"loaded state of parameter {number}: expected shape {parameter.shape}, "
                    f"got {copy.shape}"
                )
            state[parameter] = {"momentum_buffer": copy}
        merged = [
            {**own, **group, "params": own["params"]}
            for own, group in zip(self.param_groups, groups, strict=True)
        ]
        for group in merged:
            _check_options(group)
        self.param_groups = merged
        self.state = state

    def _parameters(self) -> list[Parameter]:
        return [p for group in self.param_groups for p in group["params"]]

    def __repr__(self) -> str:
        lines = [f"{type(self).__name__} ("]
        for i, group in enumerate(self.param_groups):
            lines.append(f"Parameter Group {i}")
            lines += [f"    {name}: {group[name]}" for name in sorted(group) if name != "params"]
        return "\n".join([*lines, ")"])


def _check_options(group: Mapping[str, Any]) -> None:
    if not group["lr"] >= 0:
        raise ValueError(f"Invalid learning rate: {group['lr']}")
    if not group["momentum"] >= 0:
        raise ValueError(f"Invalid momentum value: {group['momentum']}")
    if not group["weight_decay"] >= 0:
        raise ValueError(f"Invalid weight_decay value: {group['weight_decay']}")
    if group["nesterov"] and (group["momentum"] <= 0 or group["dampening"] != 0):
        raise ValueError("Nesterov momentum requires a momentum and zero dampening")
