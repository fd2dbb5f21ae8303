"""The definitions of what stands around convolutions and pools. Part of :mod:`pyconv.reference`."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from pyconv._reference_windows import Array

_Gradients = tuple[Array | None, Array | None, Array | None]


def _floats(*values: ArrayLike) -> tuple[Array, ...]:
    """The arrays in ``np.result_type(first, np.float32)``."""
    first = np.asarray(values[0])
    return tuple(np.asarray(value, np.result_type(first, np.float32)) for value in values)


def relu(input: ArrayLike, inplace: bool = False) -> Array:
    """Return ``max(0, input)``; NaN and -0.0 stay. ``inplace`` means nothing."""
    (x,) = _floats(input)
    return np.where(x < 0, x.dtype.type(0), x)


def relu_backward(grad_output: ArrayLike, input: ArrayLike) -> Array:
    """Return ``grad_output`` where not ``input <= 0``, else 0."""
    x, grad = _floats(input, grad_output)
    return np.where(x <= 0, x.dtype.type(0), grad)


def _adaptive_windows(size: int, count: int) -> list[slice]:
    """``floor(i * size / count) .. ceil((i + 1) * size / count)`` for each i."""
    return [slice(i * size // count, -(-(i + 1) * size // count)) for i in range(count)]


def adaptive_avg_pool2d(input: ArrayLike, output_size: Any) -> Array:
    """Return the mean of each window; see :func:`pyconv.functional.adaptive_avg_pool2d`."""
    (x,) = _floats(input)
    pair = output_size if isinstance(output_size, Sequence) else (output_size, output_size)
    oh, ow = (own if n is None else n for n, own in zip(pair, x.shape[-2:], strict=True))
    out = np.empty((*x.shape[:-2], oh, ow), x.dtype)
    for i, rows in enumerate(_adaptive_windows(x.shape[-2], oh)):
        for j, columns in enumerate(_adaptive_windows(x.shape[-1], ow)):
            window = x[..., rows, columns]
            height, width = window.shape[-2:]
            total = window.sum((-2, -1))
            if (oh, ow) == (1, 1):
                out[..., i, j] = total / x.dtype.type(height * width)
            else:
                out[..., i, j] = total / x.dtype.type(height) / x.dtype.type(width)
    return out


def adaptive_avg_pool2d_backward(grad_output: ArrayLike, input_shape: Sequence[int]) -> Array:
    """Add ``grad_output / area`` to every element of each window."""
    (grad,) = _floats(grad_output)
    out = np.zeros(tuple(input_shape), grad.dtype)
    oh, ow = grad.shape[-2:]
    for i, rows in enumerate(_adaptive_windows(out.shape[-2], oh)):
        for j, columns in enumerate(_adaptive_windows(out.shape[-1], ow)):
            window = out[..., rows, columns]
            height, width = window.shape[-2:]
            share = grad[..., i, j, None, None]
            if (oh, ow) == (1, 1):
                window += share / grad.dtype.type(height * width)
            else:
                window += share / grad.dtype.type(height) / grad.dtype.type(width)
    return out


def _statistics(x: Array, mean: Any, var: Any, training: bool) -> tuple[Array, Array]:
    """Mean and biased variance of each channel: of the batch, or those given."""
    if not training:
        return np.asarray(mean, np.float64), np.asarray(var, np.float64)
    axes = (0, *range(2, x.ndim))
    if x.size == 0:
        return np.zeros(x.shape[1]), np.ones(x.shape[1])
    wide = x.astype(np.result_type(x, np.float64))
    return wide.mean(axes), wide.var(axes)


def _spread(vector: Any, x: Array) -> Array:
    """One value per channel, so that it can be multiplied with ``x``."""
    return np.asarray(vector).reshape(-1, *(1,) * (x.ndim - 2))


def batch_norm(
    input: ArrayLike,
    running_mean: Any,
    running_var: Any,
    weight: ArrayLike | None = None,
    bias: ArrayLike | None = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Array:
    """Normalise each channel: ``(input - mean) / sqrt(var + eps) * weight + bias``.

    In training the running arrays are moved towards the batch's mean and unbiased variance.
    """
    (x,) = _floats(input)
    mean, var = _statistics(x, running_mean, running_var, training)
    out = (x - _spread(mean, x)) / np.sqrt(_spread(var, x) + eps)
    out = out * _spread(1.0 if weight is None else weight, x)
    out = out + _spread(0.0 if bias is None else bias, x)
    count = x.size // max(x.shape[1], 1)
    if training and running_mean is not None and count > 1:
        running_mean[...] = (1 - momentum) * running_mean + momentum * mean
        running_var[...] = (1 - momentum) * running_var + momentum * var * count / (count - 1)
    return out.astype(x.dtype)


def batch_norm_backward(
    grad_output: ArrayLike,
    input: ArrayLike,
    running_mean: Any,
    running_var: Any,
    weight: ArrayLike | None = None,
    training: bool = False,
    eps: float = 1e-5,
    *,
    output_mask: Sequence[bool] = (True, True, True),
) -> _Gradients:
    """Return the gradients of :func:`batch_norm`: input, weight, bias."""
    x, grad = _floats(input, grad_output)
    mean, var = _statistics(x, running_mean, running_var, training)
    axes = (0, *range(2, x.ndim))
    inverse = _spread(1 / np.sqrt(var + eps), x)
    normal = (x - _spread(mean, x)) * inverse
    wide = grad.astype(normal.dtype)
    flowing = wide
    if training and x.size:
        flowing = wide - wide.mean(axes, keepdims=True)
        flowing = flowing - normal * (wide * normal).mean(axes, keepdims=True)
    grads = (
        flowing * inverse * _spread(1.0 if weight is None else weight, x),
        (wide * normal).sum(axes),
        wide.sum(axes),
    )
    result = [g.astype(x.dtype) if m else None for g, m in zip(grads, output_mask, strict=True)]
    return result[0], result[1], result[2]
