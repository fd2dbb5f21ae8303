"""conv1d: conv2d on images of height 1, with errors that speak of one dimension.

The functions are part of :mod:`pyconv.functional`, which tells the conventions.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from pyconv import _core
from pyconv._arrays import as_array, as_size

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

    from pyconv._arrays import Array

    _Pair = int | Sequence[int]
    _Padding = int | Sequence[int] | Sequence[Sequence[int]] | str
    _Mask = Sequence[bool]
    _Gradients = tuple[Array | None, Array | None, Array | None]


def conv1d(
    input: ArrayLike,
    weight: ArrayLike,
    bias: ArrayLike | None = None,
    stride: _Pair = 1,
    padding: _Padding = 0,
    dilation: _Pair = 1,
    groups: int = 1,
) -> Array:
    """Slide filters along sequences: :func:`pyconv.functional.conv2d` on images of height 1.

    Parameters
    ----------
    input : array_like, shape (N, C, L) or (C, L)
    weight : array_like, shape (out_channels, C / groups, k)
    bias : array_like, shape (out_channels,), optional
    stride : int or (s,), default: 1
    padding : int, (p,), ((left, right),), 'same' or 'valid', default: 0
    dilation : int or (d,), default: 1
    groups : int, default: 1

    Returns
    -------
    numpy.ndarray, shape (N, out_channels, Lout) or (out_channels, Lout)
        ``Lout = floor((L + 2*p - d*(k - 1) - 1) / s) + 1``.

    Raises
    ------
    TypeError, ValueError
        As :func:`pyconv.functional.conv2d`.

    Examples
    --------
    >>> from pyconv import functional as F
    >>> F.conv1d([[1, 2, 3, 4]], [[[1, 0, -1]]], padding=1)
    array([[-2., -2., -2.,  3.]])
    """
    sizes = _line_sizes("conv1d", input, weight, stride, padding, dilation, groups)
    x, w, stride, padding, dilation = sizes
    out: Array = _as_1d(lambda: _core.conv2d(x, w, bias, stride, padding, dilation, groups))
    return out[..., 0, :]


def conv1d_backward(
    grad_output: ArrayLike,
    input: ArrayLike,
    weight: ArrayLike,
    *,
    stride: _Pair = 1,
    padding: _Padding = 0,
    dilation: _Pair = 1,
    groups: int = 1,
    output_mask: _Mask = (True, True, True),
) -> _Gradients:
    """Return the gradients of conv1d; see :func:`pyconv.functional.conv2d_backward`.

    Parameters
    ----------
    grad_output : array_like, of the output's shape
    input, weight, stride, padding, dilation, groups
        As in the forward.
    output_mask : three bools, default: (True, True, True)

    Returns
    -------
    (grad_input, grad_weight, grad_bias)
        None where ``output_mask`` says False.

    Raises
    ------
    TypeError, ValueError
        As :func:`pyconv.functional.conv2d_backward`.

    Examples
    --------
    >>> from pyconv import functional as F
    >>> grad_x, grad_w, grad_b = F.conv1d_backward([[1, 1]], [[1, 2, 3]], [[[5, 7]]])
    >>> grad_x, grad_w, grad_b
    (array([[ 5., 12.,  7.]]), array([[[3., 5.]]]), array([2.]))
    """
    who = "conv1d_backward"
    x, w, stride, padding, dilation = _line_sizes(
        who, input, weight, stride, padding, dilation, groups
    )
    grad = as_array(grad_output)
    if grad.ndim != x.ndim - 1:
        raise ValueError(
            f"{who}: expected a grad_output of {x.ndim - 1} dimensions, got shape {grad.shape}"
        )
    grad_input, grad_weight, grad_bias = _as_1d(
        lambda: _core.conv2d_backward(
            grad[..., None, :],
            x,
            w,
            stride=stride,
            padding=padding,
            dilation=dilation,
            groups=groups,
            output_mask=output_mask,
        )
    )
    return (
        None if grad_input is None else grad_input[..., 0, :],
        None if grad_weight is None else grad_weight[..., 0, :],
        grad_bias,
    )


def _line_sizes(
    who: str,
    input: ArrayLike,
    weight: ArrayLike,
    stride: Any,
    padding: Any,
    dilation: Any,
    groups: Any,
) -> tuple[Array, Array, Any, Any, Any]:
    """What conv2d gets for a 1-D convolution: everything with a height of 1 in front."""
    x, w = as_array(input), as_array(weight)
    if x.ndim not in (2, 3):
        raise ValueError(
            f"{who}: Expected 2D (unbatched) or 3D (batched) input to conv1d, "
            f"but got input of size: {list(x.shape)}"
        )
    if w.ndim != 3:
        raise ValueError(f"{who}: expected weight (out, in/groups, k), got shape {w.shape}")
    channels = w.shape[1] * as_size(who, "groups", groups, 1)
    if x.shape[-2] != channels:
        raise ValueError(
            f"{who}: Given groups={groups}, weight of size {list(w.shape)}, expected "
            f"input{list(x.shape)} to have {channels} channels, but got {x.shape[-2]} channels"
        )
    if not isinstance(padding, str):
        sides = _one(who, "padding", padding)
        if isinstance(sides, (tuple, list)):
            if len(sides) != 2:
                raise ValueError(f"{who}: expected padding ((left, right),), got {padding!r}")
            padding = ((0, 0), tuple(as_size(who, "padding", side) for side in sides))
        else:
            padding = (0, as_size(who, "padding", sides))
    return (
        x[..., None, :],
        w[..., None, :],
        (1, as_size(who, "stride", _one(who, "stride", stride), 1)),
        padding,
        (1, as_size(who, "dilation", _one(who, "dilation", dilation), 1)),
    )


def _one(who: str, name: str, value: Any) -> Any:
    """The only entry of a sequence; anything else as it is."""
    if not isinstance(value, (tuple, list, np.ndarray)):
        return value
    if len(value) != 1:
        raise ValueError(f"{who}: expected {name} to be an int or 1 int, got {value!r}")
    return value[0]


def _as_1d(call: Callable[[], Any]) -> Any:
    """The result of ``call``; its errors speak of conv1d."""
    try:
        return call()
    except (TypeError, ValueError) as error:
        raise type(error)(str(error).replace("conv2d", "conv1d")) from None
