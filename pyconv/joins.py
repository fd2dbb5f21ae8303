"""Containers in which paths meet: Residual adds them, Concat lays them side by side.

With Sequential they are enough for ResNet-, Inception-, DenseNet- and U-Net-like networks, and each
has its backward, so nobody has to write a gradient by hand.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from pyconv._arrays import as_array, as_float, as_grad, as_int, cast, quiet
from pyconv._vjp import VjpModule, call_vjp
from pyconv.module import Module, typename
from pyconv.sequential import ModuleLine

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

    from pyconv._arrays import Array

__all__ = ["Concat", "Residual"]


class Residual(VjpModule):
    r"""``body(x) + shortcut(x)``, and ``body(x) + x`` without a shortcut.

    Parameters
    ----------
    body : Module
    shortcut : Module, optional
        For instance a 1x1 convolution, where ``body`` changes the shape.

    Shape
    -----
    Any; both paths must give one shape. They are not broadcast.

    Attributes
    ----------
    body : Module
    shortcut : Module or None

    Raises
    ------
    TypeError
        If something other than modules is given.
    ValueError
        If the two shapes differ.
    RuntimeError
        If ``backward`` has no forward in training mode before it.

    Examples
    --------
    >>> import numpy as np, pyconv
    >>> block = pyconv.Sequential(
    ...     pyconv.Residual(
    ...         pyconv.Sequential(
    ...             pyconv.Conv2d(8, 16, 3, stride=2, padding=1),
    ...             pyconv.ReLU(),
    ...             pyconv.Conv2d(16, 16, 3, padding=1),
    ...         ),
    ...         shortcut=pyconv.Conv2d(8, 16, 1, stride=2),
    ...     ),
    ...     pyconv.ReLU(),
    ... )
    >>> block(np.ones((4, 8, 32, 32))).shape
    (4, 16, 16, 16)
    >>> block.backward(np.ones((4, 16, 16, 16))).shape
    (4, 8, 32, 32)
    """

    def __init__(self, body: Module, shortcut: Module | None = None) -> None:
        super().__init__()
        for module in (body,) if shortcut is None else (body, shortcut):
            if not isinstance(module, Module):
                raise TypeError(f"{typename(module)} is not a Module subclass")
        self.body = body
        self.shortcut = shortcut

    def _eval(self, input: Any) -> Array:
        return self._joined(
            input, self.body(input), None if self.shortcut is None else self.shortcut(input)
        )

    def _vjp(self, input: Any) -> tuple[Array, Callable[..., Any]]:
        through, pull_body = call_vjp(self.body, input)
        beside, pull_shortcut = (
            (None, None) if self.shortcut is None else call_vjp(self.shortcut, input)
        )
        output = self._joined(input, through, beside)
        shape, dtype = output.shape, output.dtype

        def pullback(grad_output: ArrayLike, input_grad: bool = True) -> Any:
            grad = as_grad("Residual", grad_output, shape, dtype)
            parts = [pull_body(grad, input_grad)]
            parts.append(grad if pull_shortcut is None else pull_shortcut(grad, input_grad))
            return _sum(parts) if input_grad else None

        return output, pullback

    def _joined(self, input: Any, through: Any, beside: Any) -> Array:
        a = _output("Residual", through)
        # An image in float64 does not make the network one in float64.
        b = as_float("Residual", input, a.dtype) if beside is None else _output("Residual", beside)
        if a.shape != b.shape:
            raise ValueError(
                f"Residual: body gives shape {a.shape} and the shortcut {b.shape}; "
                f"{_mismatch(a.shape, b.shape)}"
            )
        with quiet():
            return np.asarray(a + b)


class Concat(ModuleLine, VjpModule):
    """The outputs of several branches of one input, side by side along an axis.

    ``Concat(a, b)(x)`` is ``np.concatenate([a(x), b(x)], axis=1)``. With :class:`Identity` as a
    branch it keeps the input beside what is made of it, as U-Nets do.

    Parameters
    ----------
    *branches : Module, or one OrderedDict of Modules
    dim : int, default: 1
        The axis; 1 are the channels of a batch. Without a batch axis say ``dim=0``.

    Shape
    -----
    Any; the branches' outputs may differ along ``dim`` alone.

    Attributes
    ----------
    dim : int

    Raises
    ------
    TypeError
        If something other than modules is given.
    ValueError
        If there are no branches, or shapes disagree.
    RuntimeError
        If ``backward`` has no forward in training mode before it.

    Examples
    --------
    >>> import numpy as np, pyconv
    >>> net = pyconv.Concat(
    ...     pyconv.Conv2d(3, 8, 1),
    ...     pyconv.Sequential(pyconv.Conv2d(3, 4, 1), pyconv.Conv2d(4, 8, 3, padding=1)),
    ...     pyconv.MaxPool2d(3, stride=1, padding=1),
    ... )
    >>> net(np.ones((2, 3, 8, 8))).shape
    (2, 19, 8, 8)
    >>> net.backward(np.ones((2, 19, 8, 8))).shape
    (2, 3, 8, 8)
    """

    def __init__(self, *branches: Module | OrderedDict[str, Module], dim: int = 1) -> None:
        super().__init__()
        self.dim = as_int("Concat", "dim", dim)
        self._add_all(branches)

    def _slice(self, children: OrderedDict[str, Module]) -> Concat:
        return type(self)(children, dim=self.dim)

    def _eval(self, input: Any) -> Array:
        return self._joined([branch(input) for branch in self])[0]

    def _vjp(self, input: Any) -> tuple[Array, Callable[..., Any]]:
        outputs, pullbacks = [], []
        for branch in self:
            output, pullback = call_vjp(branch, input)
            outputs.append(output)
            pullbacks.append(pullback)
        joined, axis, ends = self._joined(outputs)
        shape, dtype = joined.shape, joined.dtype

        def pull_all(grad_output: ArrayLike, input_grad: bool = True) -> Any:
            grad = as_grad("Concat", grad_output, shape, dtype)
            pieces = np.split(grad, ends, axis)
            parts = [
                pullback(piece, input_grad)
                for pullback, piece in zip(pullbacks, pieces, strict=True)
            ]
            return _sum(parts) if input_grad else None

        return joined, pull_all

    def _joined(self, outputs: Sequence[Any]) -> tuple[Array, int, list[int]]:
        """The outputs side by side, the axis, and where one ends and the next begins."""
        if not outputs:
            raise ValueError("Concat: expected a non-empty list of branches")
        arrays = [_output("Concat", output) for output in outputs]
        first = arrays[0].shape
        if not -len(first) <= self.dim < len(first):
            raise ValueError(
                f"Concat: Dimension out of range (expected to be in range of "
                f"[{-len(first)}, {len(first) - 1}], but got {self.dim})"
            )
        axis = self.dim % len(first)
        for i, array in enumerate(arrays):
            rest, expected = list(array.shape), list(first)
            if len(rest) == len(first):
                rest[axis] = expected[axis] = 0
            if rest != expected:
                raise ValueError(
                    f"Concat: Sizes of tensors must match except in dimension {axis}. Branch 0 "
                    f"gives shape {first}, branch {i} gives {array.shape}"
                )
        ends = np.cumsum([array.shape[axis] for array in arrays[:-1]])
        return np.concatenate(arrays, axis), axis, [int(end) for end in ends]

    def extra_repr(self) -> str:
        """Return the axis if it is not the default."""
        return "" if self.dim == 1 else f"dim={self.dim}"


def _output(who: str, output: Any) -> Array:
    if isinstance(output, tuple):  # of a pool with indices; NumPy would stack the two
        raise TypeError(f"{who}: expected each path to give one array, got a tuple")
    return as_float(who, output)


def _sum(parts: Sequence[Any]) -> Array:
    """The sum of gradients, a new array."""
    arrays = [as_array(part) for part in parts]
    if len(arrays) == 1:
        return arrays[0]
    with quiet():
        total: Array = np.asarray(arrays[0] + arrays[1])
        for array in arrays[2:]:
            total += cast(array, total.dtype)
    return total


def _mismatch(a: tuple[int, ...], b: tuple[int, ...]) -> str:
    """Torch's words for shapes that cannot be added."""
    if len(a) != len(b):
        return "they must have the same number of dimensions"
    axis = next(i for i, (m, n) in enumerate(zip(a, b, strict=True)) if m != n)
    return (
        f"The size of tensor a ({a[axis]}) must match the size of tensor b ({b[axis]}) at "
        f"non-singleton dimension {axis}"
    )
