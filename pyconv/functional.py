"""The operators as functions, with torch.nn.functional's names, argument orders and defaults.

Each function has a twin ``<name>_backward``, which takes the gradient of the output and what the
forward took, and returns the gradients of the inputs. Nothing here holds state: everything an
engine for automatic differentiation needs is a function of arrays.

Letters: ``N`` samples, ``C`` channels, ``H, W`` height and width, ``k`` window, ``s`` stride, ``p``
padding, ``d`` dilation. Sizes are ints, or tuples with one entry per axis; a tuple of one entry
stands for all axes. Arguments are anything that NumPy can read as an array; the computation is in
``np.result_type(input, weight, np.float32)``, and the result is a new C-contiguous array of that
dtype. What is neither float32 nor float64 then is a TypeError. All ``*_backward`` convert
``grad_output`` to the dtype in which the forward computed.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from pyconv import _core
from pyconv._followed import followed
from pyconv._layer_ops import (
    adaptive_avg_pool2d,
    adaptive_avg_pool2d_backward,
    batch_norm,
    batch_norm_backward,
    relu,
    relu_backward,
)
from pyconv._losses import (
    binary_cross_entropy_with_logits,
    binary_cross_entropy_with_logits_backward,
    cross_entropy,
    cross_entropy_backward,
    mse_loss,
    mse_loss_backward,
)
from pyconv._maps import (
    dropout,
    leaky_relu,
    leaky_relu_backward,
    log_softmax,
    log_softmax_backward,
    sigmoid,
    sigmoid_backward,
    softmax,
    softmax_backward,
    tanh,
    tanh_backward,
)
from pyconv._numpy_ops import linear, linear_backward
from pyconv._pad import pad, pad_backward
from pyconv.conv1d import conv1d, conv1d_backward

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

    from pyconv._arrays import Array

    _Pair = int | Sequence[int]
    _Padding = int | Sequence[int] | Sequence[Sequence[int]] | str
    _Mask = Sequence[bool]
    _Gradients = tuple[Array | None, Array | None, Array | None]

__all__ = [
    "adaptive_avg_pool2d",
    "adaptive_avg_pool2d_backward",
    "avg_pool2d",
    "avg_pool2d_backward",
    "batch_norm",
    "batch_norm_backward",
    "binary_cross_entropy_with_logits",
    "binary_cross_entropy_with_logits_backward",
    "conv1d",
    "conv1d_backward",
    "conv2d",
    "conv2d_backward",
    "conv_transpose2d",
    "conv_transpose2d_backward",
    "cross_entropy",
    "cross_entropy_backward",
    "dropout",
    "leaky_relu",
    "leaky_relu_backward",
    "linear",
    "linear_backward",
    "log_softmax",
    "log_softmax_backward",
    "max_pool2d",
    "max_pool2d_backward",
    "mse_loss",
    "mse_loss_backward",
    "pad",
    "pad_backward",
    "relu",
    "relu_backward",
    "sigmoid",
    "sigmoid_backward",
    "softmax",
    "softmax_backward",
    "tanh",
    "tanh_backward",
]


# ---- convolution ----


@followed
def conv2d(
    input: ArrayLike,
    weight: ArrayLike,
    bias: ArrayLike | None = None,
    stride: _Pair = 1,
    padding: _Padding = 0,
    dilation: _Pair = 1,
    groups: int = 1,
) -> Array:
    r"""Slide filters over images; each output is a window's sum of products with one filter.

    ``out[n, o, y, x] = bias[o] + sum over c, i, j of
    weight[o, c, i, j] * input[n, c, y*s - p + i*d, x*s - p + j*d]``, with zeros outside the image.

    Parameters
    ----------
    input : array_like, shape (N, C, H, W) or (C, H, W)
    weight : array_like, shape (out_channels, C / groups, kH, kW)
    bias : array_like, shape (out_channels,), optional
    stride : int or (sH, sW), default: 1
    padding : int, (pH, pW), ((top, bottom), (left, right)), 'same' or 'valid', default: 0
    dilation : int or (dH, dW), default: 1
        Distance of neighbouring taps.
    groups : int, default: 1
        Each group of output channels sees its own group of input channels.

    Returns
    -------
    numpy.ndarray, shape (N, out_channels, Hout, Wout) or without N
        ``Hout = floor((H + 2*pH - dH*(kH - 1) - 1) / sH) + 1``, and ``Wout`` alike.

    Raises
    ------
    TypeError
        If a size is no int, or an array is not real.
    ValueError
        If shapes disagree, a size is out of range, or the window does not fit.

    Examples
    --------
    >>> import numpy as np
    >>> from pyconv import functional as F
    >>> x = np.arange(16).reshape(1, 1, 4, 4)
    >>> F.conv2d(x, [[[[0, 1], [-1, 0]]]], stride=2)[0, 0]
    array([[-3., -3.],
           [-3., -3.]])
    """
    return _core.conv2d(input, weight, bias, stride, padding, dilation, groups)


def conv2d_backward(
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
    """Return the gradients of :func:`conv2d`.

    ``grad_weight[o, c, i, j] = sum over n, y, x of
    grad_output[n, o, y, x] * input[n, c, y*s - p + i*d, x*s - p + j*d]``; ``grad_input`` collects
    ``grad_output * weight`` at the places that each window saw.

    Parameters
    ----------
    grad_output : array_like, of the output's shape
    input, weight, stride, padding, dilation, groups
        As in the forward.
    output_mask : three bools, default: (True, True, True)
        Which of the three gradients to compute.

    Returns
    -------
    (grad_input, grad_weight, grad_bias)
        None where ``output_mask`` says False. ``grad_bias`` does not ask for a bias.

    Raises
    ------
    TypeError, ValueError
        As in the forward, and if ``grad_output`` has another shape than the output.

    Examples
    --------
    >>> import numpy as np
    >>> from pyconv import functional as F
    >>> x, w = np.ones((1, 1, 3, 3)), np.ones((1, 1, 2, 2))
    >>> grad_x, grad_w, grad_b = F.conv2d_backward(np.ones((1, 1, 2, 2)), x, w)
    >>> grad_x[0, 0]
    array([[1., 2., 1.],
           [2., 4., 2.],
           [1., 2., 1.]])
    >>> float(grad_b[0])
    4.0
    """
    return _core.conv2d_backward(
        grad_output,
        input,
        weight,
        stride=stride,
        padding=padding,
        dilation=dilation,
        groups=groups,
        output_mask=output_mask,
    )


@followed
def conv_transpose2d(
    input: ArrayLike,
    weight: ArrayLike,
    bias: ArrayLike | None = None,
    stride: _Pair = 1,
    padding: _Pair = 0,
    output_padding: _Pair = 0,
    groups: int = 1,
    dilation: _Pair = 1,
) -> Array:
    """Let each input element add its multiple of the filters to a larger image.

    It is the input gradient of :func:`conv2d` with the same arguments: ``input[n, c, y, x] *
    weight[c, o, i, j]`` is added at ``out[n, o, y*s - p + i*d, x*s - p + j*d]``, and what falls
    outside is dropped.

    Parameters
    ----------
    input : array_like, shape (N, C, H, W) or (C, H, W)
    weight : array_like, shape (C, out_channels / groups, kH, kW)
    bias : array_like, shape (out_channels,), optional
    stride : int or (sH, sW), default: 1
    padding : int or (pH, pW), default: 0
        How much is cut off on each side.
    output_padding : int or (int, int), default: 0
        How much is computed beyond the lower right end; less than stride or dilation.
    groups : int, default: 1
    dilation : int or (dH, dW), default: 1

    Returns
    -------
    numpy.ndarray, shape (N, out_channels, Hout, Wout) or without N
        ``Hout = (H - 1)*sH - 2*pH + dH*(kH - 1) + output_padding + 1``, and ``Wout`` alike.

    Raises
    ------
    TypeError, ValueError
        As :func:`conv2d`, and if the output would be empty.

    Examples
    --------
    >>> import numpy as np
    >>> from pyconv import functional as F
    >>> F.conv_transpose2d([[[1, 2], [3, 4]]], np.ones((1, 1, 2, 2)), stride=2)[0]
    array([[1., 1., 2., 2.],
           [1., 1., 2., 2.],
           [3., 3., 4., 4.],
           [3., 3., 4., 4.]])
    """
    return _core.conv_transpose2d(
        input, weight, bias, stride, padding, output_padding, groups, dilation
    )


def conv_transpose2d_backward(
    grad_output: ArrayLike,
    input: ArrayLike,
    weight: ArrayLike,
    *,
    stride: _Pair = 1,
    padding: _Pair = 0,
    output_padding: _Pair = 0,
    groups: int = 1,
    dilation: _Pair = 1,
    output_mask: _Mask = (True, True, True),
) -> _Gradients:
    """Return the gradients of :func:`conv_transpose2d`.

    ``grad_input`` is :func:`conv2d` of ``grad_output`` with the same weight.

    Parameters
    ----------
    grad_output : array_like, of the output's shape
    input, weight, stride, padding, output_padding, groups, dilation
        As in the forward.
    output_mask : three bools, default: (True, True, True)

    Returns
    -------
    (grad_input, grad_weight, grad_bias)
        None where ``output_mask`` says False.

    Raises
    ------
    TypeError, ValueError
        As :func:`conv2d_backward`.

    Examples
    --------
    >>> import numpy as np
    >>> from pyconv import functional as F
    >>> x, w = np.ones((1, 1, 2, 2)), np.ones((1, 1, 2, 2))
    >>> grad_x, _, _ = F.conv_transpose2d_backward(np.ones((1, 1, 3, 3)), x, w)
    >>> grad_x[0, 0]
    array([[4., 4.],
           [4., 4.]])
    """
    return _core.conv_transpose2d_backward(
        grad_output,
        input,
        weight,
        stride=stride,
        padding=padding,
        output_padding=output_padding,
        groups=groups,
        dilation=dilation,
        output_mask=output_mask,
    )


# ---- pooling ----


@followed
def max_pool2d(
    input: ArrayLike,
    kernel_size: _Pair,
    stride: _Pair | None = None,
    padding: _Pair = 0,
    dilation: _Pair = 1,
    ceil_mode: bool = False,
    return_indices: bool = False,
) -> Any:
    """Return the largest element of each window.

    ``out[n, c, y, x] = max over i, j of input[n, c, y*s - p + i*d, x*s - p + j*d]``; only elements
    of the image count. The first of equal elements wins, and the last NaN of a window beats all.

    Parameters
    ----------
    input : array_like, shape (N, C, H, W) or (C, H, W)
    kernel_size : int or (kH, kW)
    stride : int or (sH, sW), optional
        ``kernel_size`` if not given.
    padding : int or (pH, pW), default: 0
        At most half of ``kernel_size``.
    dilation : int or (dH, dW), default: 1
    ceil_mode : bool, default: False
        Round the output size up, but never start a window in the padding behind the image.
    return_indices : bool, default: False

    Returns
    -------
    numpy.ndarray, or a tuple (values, indices)
        Shape (N, C, Hout, Wout) or without N, ``Hout = floor((H + 2*pH - dH*(kH - 1) - 1) / sH)
        + 1``. ``indices`` is int64: ``h*W + w`` of the winner within its plane, -1 for a dilated
        window without an element of the image (its value is -inf).

    Raises
    ------
    TypeError, ValueError
        If a size is no int or out of range, or no window fits.

    Examples
    --------
    >>> from pyconv import functional as F
    >>> x = [[[1, 2, 3], [4, 9, 6], [7, 8, 5]]]
    >>> F.max_pool2d(x, 2, stride=1)[0]
    array([[9., 9.],
           [9., 9.]])
    >>> values, indices = F.max_pool2d(x, 3, return_indices=True)
    >>> int(indices[0, 0, 0])
    4
    """
    return _core.max_pool2d(
        input, kernel_size, stride, padding, dilation, ceil_mode, return_indices
    )


def max_pool2d_backward(
    grad_output: ArrayLike, indices: ArrayLike, input_shape: Sequence[int]
) -> Array:
    """Return the input gradient of :func:`max_pool2d`: each gradient goes to its window's winner.

    Parameters
    ----------
    grad_output : array_like, of the output's shape
    indices : array_like of int, of the output's shape
        As :func:`max_pool2d` returned them. -1 adds nothing.
    input_shape : sequence of int

    Returns
    -------
    numpy.ndarray, shape ``input_shape``

    Raises
    ------
    ValueError
        If an index is below -1 or not within a plane, or shapes disagree.

    Examples
    --------
    >>> from pyconv import functional as F
    >>> F.max_pool2d_backward([[[1, 10]]], [[[3, 3]]], (1, 2, 2))[0]
    array([[ 0.,  0.],
           [ 0., 11.]])
    """
    return _core.max_pool2d_backward(grad_output, indices, input_shape)


@followed
def avg_pool2d(
    input: ArrayLike,
    kernel_size: _Pair,
    stride: _Pair | None = None,
    padding: _Pair = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    divisor_override: int | None = None,
) -> Array:
    """Return the mean of each window.

    ``out[n, c, y, x] = sum over i, j of input[n, c, y*s - p + i, x*s - p + j] / divisor``, with
    zeros outside the image. The divisor is the window's area within the padded image; or within the
    image; or ``divisor_override``.

    Parameters
    ----------
    input : array_like, shape (N, C, H, W) or (C, H, W)
    kernel_size : int or (kH, kW)
    stride : int or (sH, sW), optional
        ``kernel_size`` if not given.
    padding : int or (pH, pW), default: 0
        At most half of ``kernel_size``.
    ceil_mode : bool, default: False
        Round the output size up, but never start a window in the padding behind the image.
    count_include_pad : bool, default: True
        Whether the divisor counts padding.
    divisor_override : int, optional
        Not zero.

    Returns
    -------
    numpy.ndarray, shape (N, C, Hout, Wout) or without N
        ``Hout = floor((H + 2*pH - kH) / sH) + 1``, and ``Wout`` alike.

    Raises
    ------
    TypeError, ValueError
        If a size is no int or out of range, or no window fits.

    Examples
    --------
    >>> from pyconv import functional as F
    >>> F.avg_pool2d([[[1, 2, 3], [4, 5, 6], [7, 8, 9]]], 2, stride=1)[0]
    array([[3., 4.],
           [6., 7.]])
    """
    return _core.avg_pool2d(
        input, kernel_size, stride, padding, ceil_mode, count_include_pad, divisor_override
    )


def avg_pool2d_backward(
    grad_output: ArrayLike,
    input_shape: Sequence[int],
    kernel_size: _Pair,
    stride: _Pair | None = None,
    padding: _Pair = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    divisor_override: int | None = None,
) -> Array:
    """Return the input gradient of :func:`avg_pool2d`: ``grad_output / divisor`` to each element.

    Parameters
    ----------
    grad_output : array_like, of the output's shape
    input_shape : sequence of int
    kernel_size, stride, padding, ceil_mode, count_include_pad, divisor_override
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
    >>> F.avg_pool2d_backward([[[4, 8]]], (1, 2, 4), 2)[0]
    array([[1., 1., 2., 2.],
           [1., 1., 2., 2.]])
    """
    return _core.avg_pool2d_backward(
        grad_output,
        input_shape,
        kernel_size,
        stride,
        padding,
        ceil_mode,
        count_include_pad,
        divisor_override,
    )
