"""The definition of every operator: slow, plain NumPy, one formula per function.

The functions have the names and arguments of :mod:`pyconv.functional` and share no code with it, so
that each can be checked against the other. A convolution is written as a loop over the *taps* of
its window: tap ``(i, j)`` of every window at once is a strided slice of the padded image,

    x[:, :, i*dh : i*dh + sh*(oh - 1) + 1 : sh, j*dw : j*dw + sw*(ow - 1) + 1 : sw]

and the whole operator is a sum of such slices, each times its weight. Forward reads the slices, the
input gradient adds into them, the weight gradient multiplies them by the output's gradient.

Letters, the same in every function:

    n            samples of a batch               g          groups
    ic, oc       input and output channels        kh, kw     size of the window
    ih, iw       input height and width           sh, sw     stride of the window
    oh, ow       output height and width          dh, dw     dilation: distance of neighbouring taps
    ph, pw       padding on both sides            u, v       which window: its row and column

Everything is computed in ``np.result_type(input, weight, np.float32)``, so ``np.longdouble`` works
as well. Images are ``(n, ic, ih, iw)``, or ``(ic, ih, iw)``. Arguments are hardly checked here.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from pyconv._reference_layers import (
    adaptive_avg_pool2d,
    adaptive_avg_pool2d_backward,
    batch_norm,
    batch_norm_backward,
    relu,
    relu_backward,
)
from pyconv._reference_windows import (
    Array,
    Padding,
    Pair,
    average_windows,
    full_size,
    images,
    like,
    padding_sources,
    pair,
    pooled_size,
    sides_of,
    split,
    taps_of,
)

__all__ = [
    "avg_pool2d",
    "avg_pool2d_backward",
    "conv2d",
    "conv2d_backward",
    "conv_transpose2d",
    "conv_transpose2d_backward",
    "max_pool2d",
    "max_pool2d_backward",
    "padded",
    "padded_backward",
]
__all__ += ["adaptive_avg_pool2d", "adaptive_avg_pool2d_backward"]
__all__ += ["batch_norm", "batch_norm_backward", "relu", "relu_backward"]

_Gradients = tuple[Array | None, Array | None, Array | None]


# ---- padding ----


def padded(input: ArrayLike, padding: Padding, mode: str = "zeros") -> Array:
    """Return the image with a border around its last two axes.

    Cell ``i`` of a padded axis, counted from the first cell of the image, reads

    ========= ==================================================== ================
    mode      reads                                                padding at most
    ========= ==================================================== ================
    zeros     0 outside the image                                  any
    reflect   the mirror image; the edge itself is not repeated    size - 1
    replicate the nearest cell of the edge                         any
    circular  cell ``i mod size``                                  size
    ========= ==================================================== ================

    Negative padding crops.

    Parameters
    ----------
    input : array_like, shape (..., ih, iw)
    padding : int, (ph, pw) or ((top, bottom), (left, right))
    mode : {'zeros', 'reflect', 'replicate', 'circular'}

    Returns
    -------
    ndarray, shape (..., top + ih + bottom, left + iw + right)
        A new array of the input's dtype.

    Examples
    --------
    >>> row = [[1, 2, 3, 4]]
    >>> for mode in ("zeros", "replicate", "circular"):
    ...     print(padded(row, ((0, 0), (2, 3)), mode)[0])
    [0 0 1 2 3 4 0 0 0]
    [1 1 1 2 3 4 4 4 4]
    [3 4 1 2 3 4 1 2 3]
    >>> padded(row, ((0, 0), (2, 3)), "reflect")[0]
    array([3, 2, 1, 2, 3, 4, 3, 2, 1])
    """
    x = np.asarray(input)
    rows, columns = padding_sources(x.shape, padding, mode)
    result = x[..., rows[:, None], columns]
    result[..., rows < 0, :] = 0
    result[..., columns < 0] = 0
    return result


def padded_backward(
    grad_output: ArrayLike, input_shape: Sequence[int], padding: Padding, mode: str = "zeros"
) -> Array:
    """Return the gradient of :func:`padded`: each border cell's gradient goes to what it read.

    Parameters
    ----------
    grad_output : array_like
        Gradient with respect to the padded image.
    input_shape : sequence of int
        Shape of the image before padding.
    padding, mode
        As in :func:`padded`.

    Returns
    -------
    ndarray of shape `input_shape`

    Examples
    --------
    >>> padded_backward([[1, 10, 100, 1000]], (1, 2), ((0, 0), (1, 1)), "replicate")
    array([[  11, 1100]])
    """
    grad = np.asarray(grad_output)
    rows, columns = padding_sources(input_shape, padding, mode)
    result = np.zeros(tuple(input_shape), grad.dtype)
    inside = grad[..., rows >= 0, :][..., columns >= 0]
    cells: Any = (..., rows[rows >= 0][:, None], columns[columns >= 0])
    np.add.at(result, cells, inside)
    return result


# ---- convolution ----


def conv2d(
    input: ArrayLike,
    weight: ArrayLike,
    bias: ArrayLike | None = None,
    stride: Pair = 1,
    padding: Padding = 0,
    dilation: Pair = 1,
    groups: int = 1,
) -> Array:
    """Return the convolution (the cross-correlation, as deep learning means it).

    With ``x`` the zero-padded input and, for output channel ``o``, ``c`` over the input channels of
    its group::

        y[n, o, u, v] = bias[o] + sum over c, i, j of
                        weight[o, c, i, j] * x[n, c, u*sh + i*dh, v*sw + j*dw]

        oh = (ih + top + bottom - dh*(kh - 1) - 1) // sh + 1        and ow alike

    Parameters
    ----------
    input : array_like, shape (n, ic, ih, iw) or (ic, ih, iw)
    weight : array_like, shape (oc, ic // groups, kh, kw)
    bias : array_like, shape (oc,), optional
    stride, dilation : int or (int, int)
    padding : int, (ph, pw), ((top, bottom), (left, right)), 'valid' or 'same'
        'same' needs stride 1 and keeps the size; the odd cell goes below and to the right.
    groups : int
        Group ``k`` of the output channels sees group ``k`` of the input channels alone.

    Returns
    -------
    ndarray, shape (n, oc, oh, ow) or (oc, oh, ow)

    Raises
    ------
    ValueError
        If the window is larger than the padded image, or 'same' meets a stride.

    Examples
    --------
    >>> x = np.arange(1, 17).reshape(1, 4, 4)
    >>> conv2d(x, [[[[1, 2], [3, 4]]]], padding="same")[0].astype(int)
    array([[ 44,  54,  64,  28],
           [ 84,  94, 104,  44],
           [124, 134, 144,  60],
           [ 41,  44,  47,  16]])
    """
    x, w, batched = images(input, weight)
    sides = sides_of(padding, w.shape[2:], pair(stride), pair(dilation))
    x = padded(x, sides)
    taps, size = taps_of(x.shape[2:], w.shape[2:], pair(stride), pair(dilation))
    x = split(x, groups, axis=1)
    w = split(w, groups, axis=0)
    n, g, oc_g = len(x), groups, w.shape[1]
    y = np.zeros((n, g, oc_g, *size), x.dtype)
    if bias is not None:
        y += np.asarray(bias, x.dtype).reshape(g, oc_g, 1, 1)
    for (i, j), tap in taps:
        y += np.einsum("ngcuv, goc -> ngouv", x[..., *tap], w[..., i, j])
    result = y.reshape(n, g * oc_g, *size)
    return result if batched else result[0]


def conv2d_backward(
    grad_output: ArrayLike,
    input: ArrayLike,
    weight: ArrayLike,
    *,
    stride: Pair = 1,
    padding: Padding = 0,
    dilation: Pair = 1,
    groups: int = 1,
    output_mask: Sequence[bool] = (True, True, True),
) -> _Gradients:
    """Return the gradients of :func:`conv2d` with respect to input, weight and bias.

    With ``gy`` the output's gradient and ``x`` the padded input::

        grad_input[n, c, u*sh + i*dh, v*sw + j*dw] += weight[o, c, i, j] * gy[n, o, u, v]
        grad_weight[o, c, i, j] = sum over n, u, v of
                                  gy[n, o, u, v] * x[n, c, u*sh + i*dh, v*sw + j*dw]
        grad_bias[o] = sum of gy[:, o]

    and the border is cut off grad_input.

    Parameters
    ----------
    grad_output : array_like, the shape that conv2d returns
    input, weight, stride, padding, dilation, groups
        As in :func:`conv2d`.
    output_mask : three bools
        Which of the three gradients to compute; the others are None.

    Returns
    -------
    grad_input, grad_weight, grad_bias : ndarray or None

    Examples
    --------
    >>> x = [[[1., 2., 3.]]]
    >>> gx, gw, gb = conv2d_backward([[[1., 10.]]], x, [[[[4., 5.]]]])
    >>> gx.tolist(), gw.tolist(), gb.tolist()
    ([[[4.0, 45.0, 50.0]]], [[[[21.0, 32.0]]]], [11.0])
    """
    x, w, batched = images(input, weight)
    gy = like(grad_output, x.dtype)
    sides = sides_of(padding, w.shape[2:], pair(stride), pair(dilation))
    image_shape, weight_shape = x.shape, w.shape
    x = padded(x, sides)
    padded_shape = x.shape
    taps, size = taps_of(x.shape[2:], w.shape[2:], pair(stride), pair(dilation))
    if gy.shape != (len(x), len(w), *size):
        raise ValueError(f"expected grad_output {(len(x), len(w), *size)}, got {gy.shape}")
    x, gy = split(x, groups, axis=1), split(gy, groups, axis=1)
    w = split(w, groups, axis=0)
    gx, gw = np.zeros_like(x), np.zeros_like(w)
    for (i, j), tap in taps:
        if output_mask[0]:
            gx[..., *tap] += np.einsum("ngouv, goc -> ngcuv", gy, w[..., i, j])
        if output_mask[1]:
            gw[..., i, j] = np.einsum("ngouv, ngcuv -> goc", gy, x[..., *tap])
    grad_input = padded_backward(gx.reshape(padded_shape), image_shape, sides)
    return (
        (grad_input if batched else grad_input[0]) if output_mask[0] else None,
        gw.reshape(weight_shape) if output_mask[1] else None,
        gy.sum(axis=(0, 3, 4)).reshape(-1) if output_mask[2] else None,
    )


# ---- transposed convolution ----


def conv_transpose2d(
    input: ArrayLike,
    weight: ArrayLike,
    bias: ArrayLike | None = None,
    stride: Pair = 1,
    padding: Pair = 0,
    output_padding: Pair = 0,
    groups: int = 1,
    dilation: Pair = 1,
) -> Array:
    """Return the transposed convolution: every input cell stamps the window, scaled, on the output.

    It is the input gradient of the :func:`conv2d` with the same weight. On an output that is larger
    by the padding on every side::

        y[n, o, u*sh + i*dh, v*sw + j*dw] += weight[c, o, i, j] * input[n, c, u, v]

        oh = (ih - 1)*sh - 2*ph + dh*(kh - 1) + output_padding + 1        and ow alike

    then the padding is cut off and the bias added.

    Parameters
    ----------
    input : array_like, shape (n, ic, ih, iw) or (ic, ih, iw)
    weight : array_like, shape (ic, oc // groups, kh, kw)
    bias : array_like, shape (oc,), optional
    stride, padding, dilation : int or (int, int)
    output_padding : int or (int, int)
        Rows and columns that the output has more, below and to the right. They are computed like
        all others. Less than the stride or less than the dilation.
    groups : int

    Returns
    -------
    ndarray, shape (n, oc, oh, ow) or (oc, oh, ow)

    Raises
    ------
    ValueError
        If nothing would be left of the output.

    Examples
    --------
    >>> conv_transpose2d([[[1, 2]]], [[[[1, 10, 100]]]], stride=2)
    array([[[  1.,  10., 102.,  20., 200.]]])
    """
    x, w, batched = images(input, weight)
    crop, size = full_size(x.shape[2:], w.shape[2:], stride, padding, output_padding, dilation)
    taps, _ = taps_of(size, w.shape[2:], pair(stride), pair(dilation), x.shape[2:])
    x, w = split(x, groups, axis=1), split(w, groups, axis=0)
    n, g, oc_g = len(x), groups, w.shape[2]
    y = np.zeros((n, g, oc_g, *size), x.dtype)
    for (i, j), tap in taps:
        y[..., *tap] += np.einsum("ngcuv, gco -> ngouv", x, w[..., i, j])
    y = y.reshape(n, g * oc_g, *size)[..., *crop].copy()
    if bias is not None:
        y += np.asarray(bias, x.dtype).reshape(-1, 1, 1)
    return y if batched else y[0]


def conv_transpose2d_backward(
    grad_output: ArrayLike,
    input: ArrayLike,
    weight: ArrayLike,
    *,
    stride: Pair = 1,
    padding: Pair = 0,
    output_padding: Pair = 0,
    groups: int = 1,
    dilation: Pair = 1,
    output_mask: Sequence[bool] = (True, True, True),
) -> _Gradients:
    """Return the gradients of :func:`conv_transpose2d` with respect to input, weight and bias.

    With ``gy`` the output's gradient, inside a border of zeros where forward cut the padding off::

        grad_input[n, c, u, v] = sum over o, i, j of
                                 weight[c, o, i, j] * gy[n, o, u*sh + i*dh, v*sw + j*dw]
        grad_weight[c, o, i, j] = sum over n, u, v of
                                  input[n, c, u, v] * gy[n, o, u*sh + i*dh, v*sw + j*dw]
        grad_bias[o] = sum of gy[:, o]

    Parameters
    ----------
    grad_output : array_like, the shape that conv_transpose2d returns
    input, weight, stride, padding, output_padding, groups, dilation
        As in :func:`conv_transpose2d`.
    output_mask : three bools
        Which of the three gradients to compute; the others are None.

    Returns
    -------
    grad_input, grad_weight, grad_bias : ndarray or None

    Examples
    --------
    >>> gy = [[[1., 2., 3., 4., 5.]]]
    >>> gx, gw, gb = conv_transpose2d_backward(gy, [[[1., 10.]]], [[[[1., 1., 2.]]]], stride=2)
    >>> gx.tolist(), gw.tolist(), gb.tolist()
    ([[[9.0, 17.0]]], [[[[31.0, 42.0, 53.0]]]], [15.0])
    """
    x, w, batched = images(input, weight)
    gy = like(grad_output, x.dtype)
    crop, size = full_size(x.shape[2:], w.shape[2:], stride, padding, output_padding, dilation)
    taps, _ = taps_of(size, w.shape[2:], pair(stride), pair(dilation), x.shape[2:])
    full = np.zeros((len(x), w.shape[1] * groups, *size), x.dtype)
    if gy.shape != full[..., *crop].shape:
        raise ValueError(f"expected grad_output {full[..., *crop].shape}, got {gy.shape}")
    full[..., *crop] = gy
    image_shape, weight_shape = x.shape, w.shape
    x, full = split(x, groups, axis=1), split(full, groups, axis=1)
    w = split(w, groups, axis=0)
    gx, gw = np.zeros_like(x), np.zeros_like(w)
    for (i, j), tap in taps:
        if output_mask[0]:
            gx += np.einsum("ngouv, gco -> ngcuv", full[..., *tap], w[..., i, j])
        if output_mask[1]:
            gw[..., i, j] = np.einsum("ngouv, ngcuv -> gco", full[..., *tap], x)
    gx = gx.reshape(image_shape)
    return (
        (gx if batched else gx[0]) if output_mask[0] else None,
        gw.reshape(weight_shape) if output_mask[1] else None,
        gy.sum(axis=(0, 2, 3)) if output_mask[2] else None,
    )


# ---- pools ----


def max_pool2d(
    input: ArrayLike,
    kernel_size: Pair,
    stride: Pair | None = None,
    padding: Pair = 0,
    dilation: Pair = 1,
    ceil_mode: bool = False,
    return_indices: bool = False,
) -> Any:
    """Return the largest value of each window, and where it stands.

    Only taps inside the image count, in the order rows, then columns. A tap wins if it is the
    first, if it is larger than the best so far, or if it is NaN. So the first of equals wins, and
    the last NaN. ::

        oh = (ih + 2*ph - dh*(kh - 1) - 1 [+ sh - 1 in ceil mode]) // sh + 1     and ow alike

    where ceil mode drops a last window that would start below or to the right of the image.

    Parameters
    ----------
    input : array_like, shape (n, c, ih, iw) or (c, ih, iw)
    kernel_size, padding, dilation : int or (int, int)
    stride : int or (int, int), optional
        The kernel size if not given.
    ceil_mode : bool
        Let the last window hang over the image.
    return_indices : bool
        Return the indices as well.

    Returns
    -------
    values : ndarray, shape (n, c, oh, ow) or (c, oh, ow)
    indices : ndarray of int64, the same shape, only with `return_indices`
        ``row*iw + column`` in the image's own plane. A window without any tap inside the image has
        the value -inf and the index -1.

    Examples
    --------
    >>> values, indices = max_pool2d([[[1., 3., 3., 2.]]], (1, 2), 1, return_indices=True)
    >>> values.tolist(), indices.tolist()
    ([[[3.0, 3.0, 3.0]]], [[[1, 1, 2]]])
    """
    x = np.asarray(input, np.result_type(np.asarray(input), np.float32))
    kernel, pad, dil = pair(kernel_size), pair(padding), pair(dilation)
    step = kernel if stride is None else pair(stride)
    ih, iw = x.shape[-2:]
    oh, ow = pooled_size((ih, iw), kernel, step, pad, dil, ceil_mode)
    values = np.full((*x.shape[:-2], oh, ow), -np.inf, x.dtype)
    indices = np.full(values.shape, -1, np.int64)
    for i, j in np.ndindex(kernel):
        row = np.arange(oh)[:, None] * step[0] - pad[0] + i * dil[0]
        column = np.arange(ow) * step[1] - pad[1] + j * dil[1]
        inside = (row >= 0) & (row < ih) & (column >= 0) & (column < iw)
        tap = x[..., row.clip(0, ih - 1), column.clip(0, iw - 1)]
        wins = inside & ((indices < 0) | (tap > values) | np.isnan(tap))
        values = np.where(wins, tap, values)
        indices = np.where(wins, row * iw + column, indices)
    return (values, indices) if return_indices else values


def max_pool2d_backward(
    grad_output: ArrayLike, indices: ArrayLike, input_shape: Sequence[int]
) -> Array:
    """Return the input gradient of :func:`max_pool2d`: each window's goes to the cell that won.

    Parameters
    ----------
    grad_output, indices : array_like, shape (n, c, oh, ow) or (c, oh, ow)
        `indices` as max_pool2d returns them; a window with index -1 adds nothing.
    input_shape : (n, c, ih, iw) or (c, ih, iw)

    Returns
    -------
    ndarray of shape `input_shape`

    Raises
    ------
    ValueError
        If an index lies outside the plane.

    Examples
    --------
    >>> max_pool2d_backward([[[5., 7., 9.]]], [[[1, 1, -1]]], (1, 1, 4)).tolist()
    [[[0.0, 12.0, 0.0, 0.0]]]
    """
    gy = like(grad_output, np.result_type(np.asarray(grad_output), np.float32), batch=False)
    index = np.asarray(indices)
    *planes, ih, iw = input_shape
    if gy.shape != index.shape or list(gy.shape[:-2]) != planes:
        raise ValueError(f"shapes disagree: {gy.shape}, {index.shape}, {tuple(input_shape)}")
    if index.size and not (index.min() >= -1 and index.max() < ih * iw):
        raise ValueError(f"an index lies outside the plane of {ih} x {iw} cells")
    gx = np.zeros((*planes, ih * iw), gy.dtype)
    for place in np.ndindex(*planes):
        counted = index[place] >= 0
        np.add.at(gx[place], index[place][counted], gy[place][counted])
    return gx.reshape(tuple(input_shape))


def avg_pool2d(
    input: ArrayLike,
    kernel_size: Pair,
    stride: Pair | None = None,
    padding: Pair = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    divisor_override: int | None = None,
) -> Array:
    """Return the mean of each window.

    The sum is over the cells inside the image. The divisor is `divisor_override` if given; else the
    number of the window's cells inside the *padded* image; without `count_include_pad` the number
    inside the image. What ceil mode lets hang over the padded image is never counted. Sizes as in
    :func:`max_pool2d`, without dilation.

    Parameters
    ----------
    input : array_like, shape (n, c, ih, iw) or (c, ih, iw)
    kernel_size, padding : int or (int, int)
    stride : int or (int, int), optional
        The kernel size if not given.
    ceil_mode, count_include_pad : bool
    divisor_override : int, optional
        Not zero; may be negative.

    Returns
    -------
    ndarray, shape (n, c, oh, ow) or (c, oh, ow)

    Examples
    --------
    >>> avg_pool2d([[[1., 2., 3.]]], (1, 2), ceil_mode=True).tolist()
    [[[1.5, 3.0]]]
    """
    x = np.asarray(input, np.result_type(np.asarray(input), np.float32))
    size, windows = average_windows(
        x.shape, kernel_size, stride, padding, ceil_mode, count_include_pad, divisor_override
    )
    y = np.zeros((*x.shape[:-2], *size), x.dtype)
    for (row, column), (rows, columns), divisor in windows:
        y[..., row, column] = x[..., rows, columns].sum(axis=(-2, -1)) / x.dtype.type(divisor)
    return y


def avg_pool2d_backward(
    grad_output: ArrayLike,
    input_shape: Sequence[int],
    kernel_size: Pair,
    stride: Pair | None = None,
    padding: Pair = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    divisor_override: int | None = None,
) -> Array:
    """Return the input gradient of :func:`avg_pool2d`: each window's share, to all of its cells.

    Parameters
    ----------
    grad_output : array_like, shape (n, c, oh, ow) or (c, oh, ow)
    input_shape : (n, c, ih, iw) or (c, ih, iw)
    kernel_size, stride, padding, ceil_mode, count_include_pad, divisor_override
        As in :func:`avg_pool2d`.

    Returns
    -------
    ndarray of shape `input_shape`

    Examples
    --------
    >>> avg_pool2d_backward([[[2., 4.]]], (1, 1, 3), (1, 2), stride=1).tolist()
    [[[1.0, 3.0, 2.0]]]
    """
    gy = like(grad_output, np.result_type(np.asarray(grad_output), np.float32), batch=False)
    size, windows = average_windows(
        input_shape, kernel_size, stride, padding, ceil_mode, count_include_pad, divisor_override
    )
    if gy.shape != (*input_shape[:-2], *size):
        raise ValueError(f"expected grad_output {(*input_shape[:-2], *size)}, got {gy.shape}")
    gx = np.zeros(tuple(input_shape), gy.dtype)
    for (row, column), (rows, columns), divisor in windows:
        gx[..., rows, columns] += gy[..., row, column, None, None] / gy.dtype.type(divisor)
    return gx
