"""The operators that NumPy computes: linear, batch_norm.

They are part of :mod:`pyconv.functional`, which tells the conventions. Floating-point warnings of
NumPy are off in here: infinities and NaNs pass through as the arithmetic says.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from pyconv._arrays import as_array, as_float, as_grad, cast, quiet, working_dtype

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

    from pyconv._arrays import Array

    _Gradients = tuple[Array | None, Array | None, Array | None]


def linear(input: ArrayLike, weight: ArrayLike, bias: ArrayLike | None = None) -> Array:
    """Return ``input @ weight.T + bias``.

    Parameters
    ----------
    input : array_like, shape (..., in_features)
    weight : array_like, shape (out_features, in_features)
    bias : array_like, shape (out_features,), optional

    Returns
    -------
    numpy.ndarray, shape (..., out_features)

    Raises
    ------
    ValueError
        If the shapes disagree.

    Examples
    --------
    >>> from pyconv import functional as F
    >>> F.linear([1, 2], [[3, 4], [5, 6]], [0.5, 0])
    array([11.5, 17. ])
    """
    x, w = _linear_arrays("linear", input, weight)
    with quiet():
        out: Array = np.matmul(x.reshape(-1, w.shape[1]) if w.shape[1] else _no_features(x), w.T)
        if bias is not None:
            b = as_float("linear", bias, x.dtype)
            if b.shape != w.shape[:1]:
                raise ValueError(f"linear: expected bias of shape {w.shape[:1]}, got {b.shape}")
            out += b
    return out.reshape(*x.shape[:-1], w.shape[0])


def linear_backward(
    grad_output: ArrayLike,
    input: ArrayLike,
    weight: ArrayLike,
    *,
    output_mask: Sequence[bool] = (True, True, True),
) -> _Gradients:
    """Return the gradients of :func:`linear`.

    ``grad_input = grad_output @ weight``, ``grad_weight = grad_output.T @ input``, ``grad_bias`` is
    the sum of ``grad_output`` over all but its last axis.

    Parameters
    ----------
    grad_output : array_like, shape (..., out_features)
    input : array_like, shape (..., in_features)
    weight : array_like, shape (out_features, in_features)
    output_mask : three bools, default: (True, True, True)
        Which of the three gradients to compute.

    Returns
    -------
    (grad_input, grad_weight, grad_bias)
        None where ``output_mask`` says False.

    Raises
    ------
    ValueError
        If the shapes disagree.

    Examples
    --------
    >>> from pyconv import functional as F
    >>> F.linear_backward([1, 1], [1, 2], [[3, 4], [5, 6]])
    (array([ 8., 10.]), array([[1., 2.],
           [1., 2.]]), array([1., 1.]))
    """
    who = "linear_backward"
    want_input, want_weight, want_bias = output_mask
    x, w = _linear_arrays(who, input, weight)
    grad = as_grad(who, grad_output, (*x.shape[:-1], w.shape[0]), x.dtype)
    rows = grad.reshape(-1, w.shape[0]) if w.shape[0] else _no_features(grad)
    with quiet():
        grad_input = np.matmul(rows, w).reshape(x.shape) if want_input else None
        grad_weight = grad_bias = None
        if want_weight:
            columns = x.reshape(-1, w.shape[1]) if w.shape[1] else _no_features(x)
            grad_weight = np.matmul(rows.T, columns)
        if want_bias:
            grad_bias = rows.sum(0)
    return grad_input, grad_weight, grad_bias


def _no_features(array: Array) -> Array:
    """All rows of an array whose last axis is empty; ``reshape(-1, 0)`` cannot count them."""
    return np.empty((int(np.prod(array.shape[:-1])), 0), array.dtype)


def _linear_arrays(who: str, input: ArrayLike, weight: ArrayLike) -> tuple[Array, Array]:
    x, w = as_array(input), as_array(weight)
    dtype = working_dtype(who, x, w)
    if w.ndim != 2:
        raise ValueError(f"{who}: expected weight (out_features, in_features), got {w.shape}")
    if x.ndim == 0 or x.shape[-1] != w.shape[1]:
        rows = "x".join(map(str, (int(np.prod(x.shape[:-1])), *x.shape[-1:])))
        raise ValueError(
            f"{who}: mat1 and mat2 shapes cannot be multiplied ({rows} and "
            f"{w.shape[1]}x{w.shape[0]}): expected input (..., {w.shape[1]}), got {x.shape}"
        )
    return cast(x, dtype), cast(w, dtype)


def batch_norm(
    input: ArrayLike,
    running_mean: Array | None,
    running_var: Array | None,
    weight: ArrayLike | None = None,
    bias: ArrayLike | None = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Array:
    """Normalise each channel: ``(input - mean) / sqrt(var + eps) * weight + bias``.

    In training the mean and the biased variance are those of the batch, and the running ones are
    moved towards them in place, ``running = (1 - momentum) * running + momentum * batch``, with the
    unbiased variance. Otherwise the running ones are used.

    Parameters
    ----------
    input : array_like, shape (N, C, ...)
    running_mean, running_var : numpy.ndarray, shape (C,), or None
        None is for training only. To be updated they must have the dtype of the result.
    weight, bias : array_like, shape (C,), optional
    training : bool, default: False
    momentum : float, default: 0.1
    eps : float, default: 1e-05

    Returns
    -------
    numpy.ndarray, of the input's shape

    Raises
    ------
    TypeError
        If a running array is to be updated and is no writable array of the right dtype.
    ValueError
        If shapes disagree, or in training there is one value per channel, or ``eps <= 0``.

    Examples
    --------
    >>> import numpy as np
    >>> from pyconv import functional as F
    >>> mean, var = np.zeros(1), np.ones(1)
    >>> F.batch_norm([[1], [3]], mean, var, training=True, eps=1e-12)
    array([[-1.],
           [ 1.]])
    >>> mean, var
    (array([0.2]), array([1.1]))
    """
    who = "batch_norm"
    x, per_channel = _norm_input(who, input)
    w, b = per_channel("weight", weight), per_channel("bias", bias)
    mean, var = per_channel("running_mean", running_mean), per_channel("running_var", running_var)
    axes, wide = _norm_axes(x)
    count = x.size // x.shape[1] if x.size else 0
    with quiet():
        if training:
            _check_training(who, x, count, eps)
            for name, running in (("running_mean", running_mean), ("running_var", running_var)):
                _check_running(who, name, running, x.dtype)
            mean, var = _moments(x, axes, count)
            if count > 1:
                _move(running_mean, mean, momentum)
                _move(running_var, var * (count / (count - 1)), momentum)
        elif mean is None or var is None:
            raise ValueError(
                f"{who}: expected running_mean and running_var to be arrays when training=False"
            )
        scale = 1 / np.sqrt(var + eps)
        if w is not None:
            scale = scale * w
        out: Array = x - mean.astype(x.dtype).reshape(wide)
        out *= scale.astype(x.dtype).reshape(wide)
        if b is not None:
            out += b.reshape(wide)
    return np.asarray(out, order="C")


def batch_norm_backward(
    grad_output: ArrayLike,
    input: ArrayLike,
    running_mean: ArrayLike | None,
    running_var: ArrayLike | None,
    weight: ArrayLike | None = None,
    training: bool = False,
    eps: float = 1e-5,
    *,
    output_mask: Sequence[bool] = (True, True, True),
) -> _Gradients:
    """Return the gradients of :func:`batch_norm`.

    With ``g = grad_output`` and ``xhat = (input - mean) / sqrt(var + eps)``: ``grad_bias`` is
    ``sum(g)``, ``grad_weight`` is ``sum(g * xhat)``, and ``grad_input`` is ``weight / sqrt(var +
    eps) * g``, in training with ``g - mean(g) - xhat * mean(g * xhat)`` in place of ``g``, since
    mean and variance depend on the input.

    Parameters
    ----------
    grad_output : array_like, of the input's shape
    input, running_mean, running_var, weight, training, eps
        As in the forward. The running arrays are not changed; in training they are not used.
    output_mask : three bools, default: (True, True, True)
        Which of the three gradients to compute.

    Returns
    -------
    (grad_input, grad_weight, grad_bias)
        None where ``output_mask`` says False.

    Raises
    ------
    ValueError
        As in the forward.

    Examples
    --------
    >>> import numpy as np
    >>> from pyconv import functional as F
    >>> x, mean, var = [[1.0], [3.0]], np.zeros(1), np.ones(1)
    >>> grad_x, grad_w, grad_b = F.batch_norm_backward([[1], [1]], x, mean, var, eps=0.0)
    >>> grad_x, grad_w, grad_b
    (array([[1.],
           [1.]]), array([4.]), array([2.]))
    """
    who = "batch_norm_backward"
    want_input, want_weight, want_bias = output_mask
    x, per_channel = _norm_input(who, input)
    grad = as_grad(who, grad_output, x.shape, x.dtype)
    w = per_channel("weight", weight)
    mean, var = per_channel("running_mean", running_mean), per_channel("running_var", running_var)
    axes, wide = _norm_axes(x)
    count = x.size // x.shape[1] if x.size else 0
    with quiet():
        if training:
            _check_training(who, x, count, eps)
            mean, var = _moments(x, axes, count)
        elif mean is None or var is None:
            raise ValueError(
                f"{who}: expected running_mean and running_var to be arrays when training=False"
            )
        inverse = (1 / np.sqrt(var + eps)).astype(x.dtype)
        grad_bias = grad.sum(axes)
        normal = (x - mean.astype(x.dtype).reshape(wide)) * inverse.reshape(wide)
        grad_weight = (grad * normal).sum(axes)
        grad_input: Array | None = None
        if want_input:
            grad_input = np.array(grad, order="C")
            if training and count:
                grad_input -= (grad_bias / count).reshape(wide)
                grad_input -= normal * (grad_weight / count).reshape(wide)
            grad_input *= (inverse if w is None else inverse * w).reshape(wide)
    return grad_input, grad_weight if want_weight else None, grad_bias if want_bias else None


def _norm_input(who: str, input: ArrayLike) -> tuple[Array, Any]:
    """The input, and a converter of arrays with one value per channel."""
    x = as_float(who, input)
    if x.ndim < 2:
        raise ValueError(f"{who}: expected input (N, C, ...), got {x.shape}")

    def per_channel(name: str, value: ArrayLike | None) -> Array | None:
        if value is None:
            return None
        array = as_float(f"{who}: {name}", value, x.dtype)
        if array.shape != (x.shape[1],):
            raise ValueError(
                f"{who}: {name} should contain {x.shape[1]} elements, got shape {array.shape}"
            )
        return array

    return x, per_channel


def _norm_axes(x: Array) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """All axes but the channels', and the shape that spreads one value per channel."""
    return (0, *range(2, x.ndim)), (-1, *(1,) * (x.ndim - 2))


def _moments(x: Array, axes: tuple[int, ...], count: int) -> tuple[Array, Array]:
    """Mean and biased variance of each channel in float64, by the corrected two-pass formula."""
    if not count:
        return np.zeros(x.shape[1]), np.ones(x.shape[1])
    mean = x.mean(axes, dtype=np.float64)
    rest = x - mean.astype(x.dtype).reshape(_norm_axes(x)[1])
    offset = rest.mean(axes, dtype=np.float64)
    return mean, np.square(rest).mean(axes, dtype=np.float64) - np.square(offset)


def _move(running: Array | None, batch: Array, momentum: float) -> None:
    if running is not None:
        running *= 1 - momentum
        running += momentum * batch


def _check_training(who: str, x: Array, count: int, eps: float) -> None:
    if count == 1:
        raise ValueError(
            f"{who}: Expected more than 1 value per channel when training, "
            f"got input size {list(x.shape)}"
        )
    if not eps > 0:
        raise ValueError(f"{who}: batch_norm eps must be positive during training, but got {eps}")


def _check_running(who: str, name: str, running: Any, dtype: np.dtype[Any]) -> None:
    if running is None:
        return
    if not isinstance(running, np.ndarray) or running.dtype != dtype:
        got = getattr(running, "dtype", type(running).__name__)
        raise TypeError(f"{who}: {name} is updated and must be an array of {dtype}, got {got}")
    if not running.flags.writeable:
        raise ValueError(f"{who}: {name} is updated and must not be read-only")
