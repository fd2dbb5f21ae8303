"""Padding and its gradient, part of :mod:`pyconv.functional`, which tells the conventions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from pyconv._arrays import as_float, as_grad, as_int, as_size, quiet
from pyconv._followed import followed

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

    from pyconv._arrays import Array


@followed
def pad(
    input: ArrayLike, pad: Sequence[int], mode: str = "constant", value: float | None = None
) -> Array:
    """Add elements before and behind the axes, or with negative numbers take them away.

    Parameters
    ----------
    input : array_like
    pad : sequence of int
        Pairs (before, behind), of the last axis first: ``(left, right, top, bottom)``.
    mode : {'constant', 'reflect', 'replicate', 'circular'}, default: 'constant'
        All but 'constant' pad one axis of 2 or 3, two of 3 or 4, or three of 4 or 5.
    value : float, optional
        What 'constant' fills in; 0 if not given.

    Returns
    -------
    numpy.ndarray

    Raises
    ------
    TypeError
        If a number is no int.
    ValueError
        If the numbers do not fit the input or the mode.

    Examples
    --------
    >>> from pyconv import functional as F
    >>> F.pad([[1, 2, 3]], (1, 2))
    array([[0., 1., 2., 3., 0., 0.]])
    >>> F.pad([[1, 2, 3]], (2, 1), mode="circular")
    array([[2., 3., 1., 2., 3., 1.]])
    """
    x = as_float("pad", input)
    pairs = _pad_pairs("pad", x.shape, pad, mode)
    if mode != "constant":
        if value:
            raise ValueError(f'pad: Padding mode "{mode}" doesn\'t take in value argument')
        for axis, pair in pairs.items():
            x = np.take(x, _pad_source(x.shape[axis], pair, mode), axis)
        return np.array(x, order="C")
    shape = [n + sum(pairs.get(axis, (0, 0))) for axis, n in enumerate(x.shape)]
    out = np.full(shape, 0 if value is None else value, x.dtype)
    source, target = _pad_slices(x.shape, pairs)
    out[target] = x[source]
    return out


def pad_backward(
    grad_output: ArrayLike, input_shape: Sequence[int], pad: Sequence[int], mode: str = "constant"
) -> Array:
    """Return the input gradient of :func:`pad`: each element gets back what went to its copies.

    Parameters
    ----------
    grad_output : array_like, of the output's shape
    input_shape : sequence of int
    pad, mode
        As in the forward.

    Returns
    -------
    numpy.ndarray, shape ``input_shape``

    Raises
    ------
    TypeError, ValueError
        As in the forward, and if ``grad_output`` has another shape than the output.

    Examples
    --------
    >>> from pyconv import functional as F
    >>> F.pad_backward([[1, 2, 3, 4, 5, 6]], (1, 3), (2, 1), mode="circular")
    array([[9., 5., 7.]])
    """
    who = "pad_backward"
    shape = tuple(as_size(who, "input_shape", size) for size in input_shape)
    pairs = _pad_pairs(who, shape, pad, mode)
    grad = as_float(who, grad_output)
    expected = tuple(n + sum(pairs.get(axis, (0, 0))) for axis, n in enumerate(shape))
    grad = as_grad(who, grad, expected, grad.dtype)
    if mode == "constant":
        out = np.zeros(shape, grad.dtype)
        source, target = _pad_slices(shape, pairs)
        out[source] = grad[target]
        return out
    with quiet():
        for axis, pair in pairs.items():
            rows = np.moveaxis(grad, axis, 0)
            out = np.zeros((shape[axis], *rows.shape[1:]), grad.dtype)
            np.add.at(out, _pad_source(shape[axis], pair, mode), rows)
            grad = np.moveaxis(out, 0, axis)
    return np.array(grad, order="C")


def _pad_pairs(
    who: str, shape: tuple[int, ...], pad: Sequence[int], mode: str
) -> dict[int, tuple[int, int]]:
    """For each axis that is padded: how much before and behind."""
    numbers = [as_int(who, "pad", n) for n in pad]
    if len(numbers) % 2:
        raise ValueError(f"{who}: Padding length must be divisible by 2, got {len(numbers)}")
    axes, ndim = len(numbers) // 2, len(shape)
    if axes > ndim:
        raise ValueError(
            f"{who}: Padding length should be less than or equal to two times the input dimension "
            f"but got padding length {len(numbers)} and input of dimension {ndim}"
        )
    if mode not in ("constant", "reflect", "replicate", "circular"):
        raise ValueError(f"{who}: Unrecognised padding mode {mode}")
    if mode != "constant" and not (1 <= axes <= 3 and axes + 1 <= ndim <= axes + 2):
        raise ValueError(
            f"{who}: Padding size {len(numbers)} is not supported for {ndim}D input tensor. "
            "Supported combinations for non-constant padding: 2 for 2D or 3D input, 4 for 3D or "
            "4D, 6 for 4D or 5D"
        )
    pairs = {ndim - 1 - i: (numbers[2 * i], numbers[2 * i + 1]) for i in range(axes)}
    for axis, (before, behind) in pairs.items():
        n = shape[axis]
        rest = n + min(before, 0) + min(behind, 0)
        if rest < 0:
            raise ValueError(
                f"{who}: The input size {n}, plus negative padding {before} and {behind}, resulted "
                f"in a negative output size, which is invalid. Check dimension {axis} of your input"
            )
        most = max(before, behind)
        if mode == "reflect" and most >= max(rest, 1):
            raise ValueError(
                f"{who}: Padding size should be less than the corresponding input dimension, but "
                f"got: padding ({before}, {behind}) at dimension {axis} of input {list(shape)}"
            )
        if mode == "circular" and most > rest:
            raise ValueError(
                f"{who}: Padding value causes wrapping around more than once: padding "
                f"({before}, {behind}) at dimension {axis} of input {list(shape)}"
            )
        if mode == "replicate" and most > 0 and rest == 0:
            raise ValueError(f"{who}: there is nothing to replicate in an input {list(shape)}")
    return pairs


def _pad_source(n: int, pair: tuple[int, int], mode: str) -> Array:
    """The index of the input element that each output element along an axis copies."""
    before, behind = pair
    own = np.arange(n)[max(-before, 0) : n - max(-behind, 0)]
    sides = (max(before, 0), max(behind, 0))
    if mode == "reflect":
        return np.pad(own, sides, mode="reflect")
    return np.pad(own, sides, mode="edge" if mode == "replicate" else "wrap")


def _pad_slices(
    shape: tuple[int, ...], pairs: dict[int, tuple[int, int]]
) -> tuple[tuple[slice, ...], tuple[slice, ...]]:
    """What of the input is kept, and where in the output it goes."""
    source, target = [], []
    for axis, n in enumerate(shape):
        before, behind = pairs.get(axis, (0, 0))
        source.append(slice(max(-before, 0), n - max(-behind, 0)))
        target.append(slice(max(before, 0), n + before + min(behind, 0)))
    return tuple(source), tuple(target)
