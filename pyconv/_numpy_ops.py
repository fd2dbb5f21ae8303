"""The operator linear: products of matrices, by the convolution's kernels.

It is part of :mod:`pyconv.functional`, which tells the conventions. Floating-point warnings of
NumPy are off in here: infinities and NaNs pass through as the arithmetic says.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from pyconv import _core
from pyconv._arrays import as_array, as_float, as_grad, cast, quiet, working_dtype
from pyconv._followed import followed

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

    from pyconv._arrays import Array

    _Gradients = tuple[Array | None, Array | None, Array | None]


@followed
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
    columns = x.reshape(-1, w.shape[1]) if w.shape[1] else _no_features(x)
    with quiet():
        out = _product(w, columns.T).T if len(columns) >= _MANY else np.matmul(columns, w.T)
        out = np.ascontiguousarray(out)
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
    product = _product if len(rows) >= _MANY else np.matmul
    with quiet():
        grad_input = product(rows, w).reshape(x.shape) if want_input else None
        grad_weight = grad_bias = None
        if want_weight:
            columns = x.reshape(-1, w.shape[1]) if w.shape[1] else _no_features(x)
            grad_weight = product(rows.T, columns)
        if want_bias:
            grad_bias = rows.sum(0)
    return grad_input, grad_weight, grad_bias


# Of rows. Fewer cost what reading the weights costs, and a BLAS, a row at a time, reads them best.
# With more, its threads work, and then wait for more, awake, for as long as a convolution takes: a
# quarter of a training step's time, on the cores that the convolutions need.
_MANY = 8


def _product(a: Array, b: Array) -> Array:
    """Return ``a @ b``: a 1x1 convolution, kernels ``a``, of an image whose pixels are columns."""
    if 0 in a.shape or 0 in b.shape:
        nothing: Array = np.matmul(a, b)
        return nothing
    kernels = np.ascontiguousarray(a)[:, :, None, None]
    return _core.conv2d(b[None, :, None, :], kernels)[0, :, 0, :]


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
