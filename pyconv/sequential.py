"""Modules in a line: Sequential, a chain that computes, and ModuleList, a list that does not."""

from __future__ import annotations

import operator
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from pyconv._arrays import as_int
from pyconv._vjp import VjpModule, call_vjp
from pyconv.module import Module, tree, typename

if TYPE_CHECKING:
    from typing import Self

    from numpy.typing import ArrayLike

__all__ = ["ModuleList", "Sequential"]


class ModuleLine(Module):
    """A module whose children stand in a line: what Sequential, ModuleList and Concat share."""

    def add_module(self, name: str, module: Module | None) -> None:
        """Put a module at the end, or in place of the one with that name."""
        if module is None:
            raise TypeError(f"{typename(module)} is not a Module subclass")
        super().add_module(name, module)

    def _add_all(self, modules: Sequence[Module | OrderedDict[str, Module]]) -> None:
        """Fill an empty line with modules, or with those of one OrderedDict."""
        if len(modules) == 1 and isinstance(modules[0], OrderedDict):
            named = list(modules[0].items())
        else:
            named = [(str(i), m) for i, m in enumerate(modules)]  # type: ignore[misc]
        for name, module in named:
            self.add_module(name, module)

    def _set_children(self, children: Iterable[tuple[str, Module]]) -> None:
        children = list(children)
        for name in self._children():
            delattr(self, name)
        for name, module in children:
            self.add_module(name, module)

    def _name_at(self, index: Any) -> str:
        names = list(self._children())
        i = as_int(type(self).__name__, "index", index)
        if not -len(names) <= i < len(names):
            raise IndexError(f"index {i} is out of range")
        return names[i]

    def __len__(self) -> int:
        return len(self._children())

    def __iter__(self) -> Iterator[Module]:
        return iter(self._children().values())

    def __getitem__(self, index: int | slice) -> Any:
        if isinstance(index, slice):
            return self._slice(OrderedDict(list(self._children().items())[index]))
        return getattr(self, self._name_at(index))

    def _slice(self, children: OrderedDict[str, Module]) -> Any:
        """A new one of this kind, of some of the children."""
        raise NotImplementedError

    def __setitem__(self, index: int, module: Module) -> None:
        self.add_module(self._name_at(index), module)

    def __delitem__(self, index: int | slice) -> None:
        names = list(self._children())
        gone = names[index] if isinstance(index, slice) else [self._name_at(index)]
        left = [child for name, child in self._children().items() if name not in gone]
        self._set_children((str(i), child) for i, child in enumerate(left))

    def append(self, module: Module) -> Self:
        """Add a module at the end, under the number of its place."""
        self.add_module(str(len(self)), module)
        return self

    def insert(self, index: int, module: Module) -> Self:
        """Put a module before the one at ``index``; the numbers of the later ones move up."""
        if not isinstance(module, Module):
            raise TypeError(f"{typename(module)} is not a Module subclass")
        n = len(self)
        i = as_int(type(self).__name__, "index", index)
        if not -n <= i <= n:
            raise IndexError(f"Index out of range: {i}")
        children = list(self._children().values())
        children.insert(i, module)
        names = list(self._children())
        if names != [str(k) for k in range(n)]:
            raise ValueError(f"{type(self).__name__}: insert needs children without names, {names}")
        self._set_children((str(k), child) for k, child in enumerate(children))
        return self

    def extend(self, modules: Iterable[Module]) -> Self:
        """Append all modules of an iterable."""
        if not isinstance(modules, Iterable):
            raise TypeError(
                f"{type(self).__name__}.extend should be called with an iterable, "
                f"but got {typename(modules)}"
            )
        for module in list(modules):
            self.append(module)
        return self

    def pop(self, key: int | slice) -> Any:
        """Remove the module, or the slice, and return it."""
        found = self[key]
        del self[key]
        return found


class Sequential(ModuleLine, VjpModule):
    """A chain of modules: each gets the output of the one before.

    ``Sequential(a, b)`` names its children ``'0'``, ``'1'``; an ``OrderedDict`` of modules brings
    names of its own. In training mode the children are called through ``vjp``, so one layer may
    stand in the chain twice, and a layer in eval mode may stand in a model that is trained.

    Parameters
    ----------
    *args : Module, or one OrderedDict of Modules

    Raises
    ------
    TypeError
        If something other than a module is given; for a list, write ``Sequential(*layers)``.
    IndexError
        If an index is out of range.

    Examples
    --------
    >>> import numpy as np, pyconv
    >>> net = pyconv.Sequential(pyconv.Conv2d(1, 2, 3), pyconv.ReLU(), pyconv.Flatten())
    >>> net
    Sequential(
      (0): Conv2d(1, 2, kernel_size=(3, 3), stride=(1, 1))
      (1): ReLU()
      (2): Flatten(start_dim=1, end_dim=-1)
    )
    >>> net(np.ones((4, 1, 5, 5))).shape
    (4, 18)
    >>> net.backward(np.ones((4, 18)), input_grad=False)
    >>> net[0].weight_grad.shape
    (2, 1, 3, 3)
    >>> list(net[:2].state_dict())
    ['0.weight', '0.bias']
    """

    def __init__(self, *args: Module | OrderedDict[str, Module]) -> None:
        super().__init__()
        self._add_all(args)

    def _eval(self, input: Any) -> Any:
        output = input
        for child in self._children().values():
            output = child(output)
        return output

    def _vjp(self, input: Any) -> tuple[Any, Callable[..., Any]]:
        output = input
        pullbacks = []
        for child in self._children().values():
            output, pullback = call_vjp(child, output)
            pullbacks.append(pullback)

        def pull_all(grad_output: ArrayLike, input_grad: bool = True) -> Any:
            grad: Any = grad_output
            for pullback in reversed(pullbacks[1:]):
                grad = pullback(grad)
            if pullbacks:
                grad = pullbacks[0](grad, input_grad)
            return grad if input_grad else None

        return output, pull_all

    def _slice(self, children: OrderedDict[str, Module]) -> Sequential:
        return type(self)(children)

    def __add__(self, other: Sequential) -> Sequential:
        if not isinstance(other, Sequential):
            raise TypeError(
                "add operator supports only objects of Sequential class, "
                f"but {type(other)} is given."
            )
        return Sequential(*self, *other)

    def __iadd__(self, other: Sequential) -> Self:
        if not isinstance(other, Sequential):
            raise TypeError(
                "add operator supports only objects of Sequential class, "
                f"but {type(other)} is given."
            )
        return self.extend(other)

    def __mul__(self, times: int) -> Sequential:
        return Sequential(*(list(self) * self._factor(times)))

    def __rmul__(self, times: int) -> Sequential:
        return self * times

    def __imul__(self, times: int) -> Self:
        return self.extend(list(self) * (self._factor(times) - 1))

    def _factor(self, times: Any) -> int:
        try:
            n = operator.index(times)
        except TypeError:
            raise TypeError(
                f"unsupported operand type(s) for *: {type(self)} and {type(times)}"
            ) from None
        if n <= 0:
            raise ValueError(f"Non-positive multiplication factor {n} for {type(self)}")
        return n


class ModuleList(ModuleLine):
    """A list of modules whose parameters are seen; it computes nothing.

    Parameters
    ----------
    modules : iterable of Module, optional

    Raises
    ------
    TypeError
        If something other than a module is given.
    IndexError
        If an index is out of range.
    NotImplementedError
        If it is called: call its modules.

    Examples
    --------
    >>> import pyconv
    >>> layers = pyconv.ModuleList([pyconv.ReLU(), pyconv.ReLU(), pyconv.Flatten()])
    >>> layers
    ModuleList(
      (0-1): 2 x ReLU()
      (2): Flatten(start_dim=1, end_dim=-1)
    )
    >>> len(layers[1:])
    2
    """

    def __init__(self, modules: Iterable[Module] | None = None) -> None:
        super().__init__()
        if modules is not None:
            self.extend(modules)

    def _slice(self, children: OrderedDict[str, Module]) -> ModuleList:
        return type(self)(children.values())

    def __add__(self, other: Iterable[Module]) -> ModuleList:
        return ModuleList([*self, *other])

    def __iadd__(self, other: Iterable[Module]) -> Self:
        return self.extend(other)

    def __repr__(self) -> str:
        blocks: list[list[Any]] = []  # text, first and last index of equal modules in a row
        for i, child in enumerate(self):
            text = repr(child)
            if blocks and blocks[-1][0] == text:
                blocks[-1][2] = i
            else:
                blocks.append([text, i, i])
        lines = [
            f"({i}): {text}" if i == last else f"({i}-{last}): {last - i + 1} x {text}"
            for text, i, last in blocks
        ]
        return tree(type(self).__name__, "", lines)
