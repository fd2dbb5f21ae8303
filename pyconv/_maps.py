"""Elementwise functions and softmax, with their gradients, in NumPy.

They are part of :mod:`pyconv.functional`, which tells the conventions. Floating-point warnings of
NumPy are off in here: infinities and NaNs pass through as the arithmetic says.
"""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

import numpy as np

from pyconv._arrays import as_float, as_grad, as_int, layer_dtype, quiet
from pyconv._followed import followed
from pyconv._random import generator

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, DTypeLike

    from pyconv._arrays import Array


@followed
def sigmoid(input: ArrayLike) -> Array:
    """Return ``1 / (1 + exp(-input))``, elementwise.

    Parameters
    ----------
    input : array_like, any shape

    Returns
    -------
    numpy.ndarray, of the input's shape

    Raises
    ------
    TypeError
        If ``input`` is not real.

    Examples
    --------
    >>> from pyconv import functional as F
    >>> F.sigmoid([-1000, 0, 1000])
    array([0. , 0.5, 1. ])
    """
    x = as_float("sigmoid", input)
    with quiet():
        out: Array = np.asarray(np.negative(x), order="C")
        np.exp(out, out=out)
        out += 1
        np.reciprocal(out, out=out)
    return out


def sigmoid_backward(grad_output: ArrayLike, input: ArrayLike) -> Array:
    """Return the input gradient of :func:`sigmoid`: ``grad_output * (1 - s) * s``, ``s`` its value.

    Parameters
    ----------
    grad_output : array_like, of the input's shape
    input : array_like, any shape

    Returns
    -------
    numpy.ndarray, of the input's shape

    Raises
    ------
    ValueError
        If the shapes differ.

    Examples
    --------
    >>> from pyconv import functional as F
    >>> F.sigmoid_backward([4, 4], [0, 1000])
    array([1., 0.])
    """
    x = as_float("sigmoid_backward", input)
    grad = as_grad("sigmoid_backward", grad_output, x.shape, x.dtype)
    with quiet():
        s = sigmoid(x)
        out: Array = np.subtract(1, s, dtype=x.dtype, order="C")
        out *= grad
        out *= s
    return np.asarray(out)


@followed
def tanh(input: ArrayLike) -> Array:
    """Return the hyperbolic tangent, elementwise.

    Parameters
    ----------
    input : array_like, any shape

    Returns
    -------
    numpy.ndarray, of the input's shape

    Raises
    ------
    TypeError
        If ``input`` is not real.

    Examples
    --------
    >>> from pyconv import functional as F
    >>> F.tanh([-1000, 0, 1000])
    array([-1.,  0.,  1.])
    """
    x = as_float("tanh", input)
    with quiet():
        return np.asarray(np.tanh(x), order="C")


def tanh_backward(grad_output: ArrayLike, input: ArrayLike) -> Array:
    """Return the input gradient of :func:`tanh`: ``grad_output * (1 - tanh(input)**2)``.

    Parameters
    ----------
    grad_output : array_like, of the input's shape
    input : array_like, any shape

    Returns
    -------
    numpy.ndarray, of the input's shape

    Raises
    ------
    ValueError
        If the shapes differ.

    Examples
    --------
    >>> from pyconv import functional as F
    >>> F.tanh_backward([4, 4], [0, 1000])
    array([4., 0.])
    """
    x = as_float("tanh_backward", input)
    grad = as_grad("tanh_backward", grad_output, x.shape, x.dtype)
    with quiet():
        out = tanh(x)
        np.square(out, out=out)
        np.subtract(1, out, out=out)
        out *= grad
    return out


@followed
def leaky_relu(input: ArrayLike, negative_slope: float = 0.01, inplace: bool = False) -> Array:
    """Return ``input`` where it is positive and ``negative_slope * input`` elsewhere.

    Parameters
    ----------
    input : array_like, any shape
    negative_slope : float, default: 0.01
    inplace : bool, default: False
        Accepted for torch's sake; the result is a new array in any case.

    Returns
    -------
    numpy.ndarray, of the input's shape

    Raises
    ------
    TypeError
        If ``input`` is not real.

    Examples
    --------
    >>> from pyconv import functional as F
    >>> F.leaky_relu([-10, 0, 2], 0.5)
    array([-5.,  0.,  2.])
    """
    x = as_float("leaky_relu", input)
    with quiet():
        return np.asarray(np.where(x > 0, x, x * x.dtype.type(negative_slope)), order="C")


def leaky_relu_backward(
    grad_output: ArrayLike, input: ArrayLike, negative_slope: float = 0.01
) -> Array:
    """Return the input gradient of :func:`leaky_relu`.

    ``grad_output`` where ``input`` is positive, ``negative_slope * grad_output`` elsewhere.

    Parameters
    ----------
    grad_output : array_like, of the input's shape
    input : array_like, any shape
    negative_slope : float, default: 0.01

    Returns
    -------
    numpy.ndarray, of the input's shape

    Raises
    ------
    ValueError
        If the shapes differ.

    Examples
    --------
    >>> from pyconv import functional as F
    >>> F.leaky_relu_backward([1, 1, 1], [-10, 0, 2], 0.5)
    array([0.5, 0.5, 1. ])
    """
    x = as_float("leaky_relu_backward", input)
    grad = as_grad("leaky_relu_backward", grad_output, x.shape, x.dtype)
    with quiet():
        return np.asarray(np.where(x > 0, grad, grad * x.dtype.type(negative_slope)), order="C")


@followed
def softmax(
    input: ArrayLike, dim: int | None = None, _stacklevel: int = 3, dtype: DTypeLike | None = None
) -> Array:
    """Return ``exp(input) / sum(exp(input))`` along an axis: positive numbers with the sum 1.

    The largest element is taken out first, so that nothing overflows.

    Parameters
    ----------
    input : array_like, any shape
    dim : int, optional
        The axis. None chooses as torch does, with a warning: 0 for 0, 1 or 3 axes, else 1.
    dtype : float32 or float64, optional
        To which the input is converted first.

    Returns
    -------
    numpy.ndarray, of the input's shape

    Raises
    ------
    TypeError
        If ``input`` is not real.
    ValueError
        If the input does not have the axis.

    Examples
    --------
    >>> import numpy as np
    >>> from pyconv import functional as F
    >>> F.softmax(np.log([[1, 2, 5]]), dim=1)
    array([[0.125, 0.25 , 0.625]])
    """
    x, axis = _softmax_arguments(
        "softmax", input, dim, _stacklevel + 1, dtype
    )  # followed() is a frame
    with quiet():
        out = _shifted(x, axis)
        np.exp(out, out=out)
        out /= out.sum(axis, keepdims=True)
    return out.reshape(np.shape(input))


def softmax_backward(
    grad_output: ArrayLike,
    input: ArrayLike,
    dim: int | None = None,
    _stacklevel: int = 3,
    dtype: DTypeLike | None = None,
) -> Array:
    """Return the input gradient of :func:`softmax`: ``s * (grad_output - sum(s * grad_output))``.

    Parameters
    ----------
    grad_output : array_like, of the input's shape
    input, dim, dtype
        As in the forward.

    Returns
    -------
    numpy.ndarray, of the input's shape

    Raises
    ------
    ValueError
        As in the forward, and if the shapes differ.

    Examples
    --------
    >>> import numpy as np
    >>> from pyconv import functional as F
    >>> F.softmax_backward([[1, 0]], np.zeros((1, 2)), dim=1)
    array([[ 0.25, -0.25]])
    """
    who = "softmax_backward"
    x, axis = _softmax_arguments(who, input, dim, _stacklevel, dtype)
    grad = as_grad(who, grad_output, np.shape(input), x.dtype).reshape(x.shape)
    with quiet():
        s = softmax(x, axis)
        out = s * grad
        out -= s * out.sum(axis, keepdims=True)
    return np.asarray(out, order="C").reshape(np.shape(input))


@followed
def log_softmax(
    input: ArrayLike, dim: int | None = None, _stacklevel: int = 3, dtype: DTypeLike | None = None
) -> Array:
    """Return ``input - log(sum(exp(input)))`` along an axis, the logarithm of :func:`softmax`.

    Parameters
    ----------
    input, dim, dtype
        As for :func:`softmax`.

    Returns
    -------
    numpy.ndarray, of the input's shape

    Raises
    ------
    TypeError, ValueError
        As :func:`softmax`.

    Examples
    --------
    >>> import numpy as np
    >>> from pyconv import functional as F
    >>> np.exp(F.log_softmax(np.log([[1, 2, 5]]), dim=1)).round(12)
    array([[0.125, 0.25 , 0.625]])
    """
    x, axis = _softmax_arguments(
        "log_softmax", input, dim, _stacklevel + 1, dtype
    )  # followed() is a frame
    with quiet():
        return log_probabilities(x, axis).reshape(np.shape(input))


def log_softmax_backward(
    grad_output: ArrayLike,
    input: ArrayLike,
    dim: int | None = None,
    _stacklevel: int = 3,
    dtype: DTypeLike | None = None,
) -> Array:
    """Return the input gradient of :func:`log_softmax`.

    ``grad_output - softmax(input) * sum(grad_output)`` along the axis.

    Parameters
    ----------
    grad_output : array_like, of the input's shape
    input, dim, dtype
        As in the forward.

    Returns
    -------
    numpy.ndarray, of the input's shape

    Raises
    ------
    ValueError
        As in the forward, and if the shapes differ.

    Examples
    --------
    >>> import numpy as np
    >>> from pyconv import functional as F
    >>> F.log_softmax_backward([[1, 0]], np.zeros((1, 2)), dim=1)
    array([[ 0.5, -0.5]])
    """
    who = "log_softmax_backward"
    x, axis = _softmax_arguments(who, input, dim, _stacklevel, dtype)
    grad = as_grad(who, grad_output, np.shape(input), x.dtype).reshape(x.shape)
    with quiet():
        out = grad - softmax(x, axis) * grad.sum(axis, keepdims=True)
    return np.asarray(out, order="C").reshape(np.shape(input))


def _softmax_arguments(
    who: str, input: ArrayLike, dim: int | None, stacklevel: int, dtype: DTypeLike | None
) -> tuple[Array, int]:
    """The input, with at least one axis, and which axis is meant."""
    x = as_float(who, input, None if dtype is None else layer_dtype(who, dtype))
    if dim is None:
        warnings.warn(
            f"Implicit dimension choice for {who.removesuffix('_backward')} has been deprecated. "
            "Change the call to include dim=X as an argument.",
            stacklevel=stacklevel,
        )
        dim = 0 if x.ndim in (0, 1, 3) else 1
    x = x if x.ndim else x.reshape(1)
    axis = as_int(who, "dim", dim)
    if not -x.ndim <= axis < x.ndim:
        raise ValueError(
            f"{who}: Dimension out of range (expected to be in range of [{-x.ndim}, {x.ndim - 1}], "
            f"but got {axis})"
        )
    return x, axis % x.ndim


def log_probabilities(x: Array, axis: int) -> Array:
    """``log_softmax`` of a checked array, C-contiguous."""
    out = _shifted(x, axis)
    out -= np.log(np.exp(out).sum(axis, keepdims=True))
    return out


def _shifted(x: Array, axis: int) -> Array:
    """A C-contiguous copy of ``x`` without its largest element along the axis."""
    largest = x.max(axis, keepdims=True, initial=-np.inf)
    out: Array = np.subtract(x, largest, order="C")
    return out


@followed
def dropout(
    input: ArrayLike,
    p: float = 0.5,
    training: bool = True,
    inplace: bool = False,
    *,
    rng: Any = None,
) -> Array:
    """Set each element to zero with probability ``p``, and multiply the others by ``1 / (1 - p)``.

    It has no backward, because it does not tell what it has chosen; :class:`pyconv.Dropout` has.

    Parameters
    ----------
    input : array_like, any shape
    p : float from 0 to 1, default: 0.5
    training : bool, default: True
        Otherwise the input is returned as it is.
    inplace : bool, default: False
        Accepted for torch's sake; the result is a new array in any case.
    rng : optional, keyword only
        What ``numpy.random.default_rng`` takes. By default the choice comes from the generator that
        :func:`pyconv.manual_seed` sets.

    Returns
    -------
    numpy.ndarray, of the input's shape

    Raises
    ------
    ValueError
        If ``p`` is not from 0 to 1.

    Examples
    --------
    >>> import numpy as np
    >>> from pyconv import functional as F
    >>> F.dropout(np.ones(6), 0.5, rng=0)
    array([2., 2., 2., 0., 0., 0.])
    """
    x = as_float("dropout", input)
    factors = dropout_factors(x, checked_probability("dropout", p), generator(rng), training)
    with quiet():
        return np.array(x, order="C") if factors is None else np.asarray(x * factors, order="C")


def checked_probability(who: str, p: float) -> float:
    """Return ``p`` as a float from 0 to 1."""
    if not 0 <= p <= 1:
        raise ValueError(f"{who}: dropout probability has to be between 0 and 1, but got {p}")
    return float(p)


def dropout_factors(
    x: Array, p: float, rng: np.random.Generator, training: bool = True
) -> Array | None:
    """What dropout multiplies each element by, 0 or ``1 / (1 - p)``; None for nothing."""
    if not training or p == 0:
        return None
    kept = rng.random(x.shape, np.float32) >= p
    factors: Array = kept * x.dtype.type(1 / (1 - p) if p < 1 else 0)
    return factors
