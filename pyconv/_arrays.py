"""What the NumPy parts of pyconv share: turning arguments into arrays and sizes, or a clear error.

The rule for dtypes is one for the whole package: pyconv computes in float32 or float64. A function
without parameters of its own works in ``np.result_type(inputs, np.float32)``; a layer with
parameters converts its input to their dtype. What is neither float32 nor float64 then is refused.
"""

from __future__ import annotations

import operator
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, DTypeLike, NDArray

    Array = NDArray[Any]

_FLOATS = (np.dtype(np.float32), np.dtype(np.float64))


def quiet() -> np.errstate:
    """Return a context without NumPy's floating-point warnings, whatever the caller has set."""
    return np.errstate(all="ignore")


def as_array(value: Any) -> Array:
    """Return ``value`` as a plain ndarray, without a copy where none is needed."""
    if type(value) is np.ndarray:
        return value
    if not hasattr(value, "__array__") and hasattr(value, "__dlpack__"):
        return np.asarray(np.from_dlpack(value))
    return np.asarray(value)


def working_dtype(who: str, *arrays: Array) -> np.dtype[Any]:
    """Return float32 or float64, in which an operation on ``arrays`` computes; else TypeError."""
    dtypes = [array.dtype for array in arrays]
    if dtypes[0] in _FLOATS and dtypes.count(dtypes[0]) == len(dtypes):
        return _FLOATS[_FLOATS.index(dtypes[0])]
    try:
        dtype = np.result_type(*dtypes, np.float32)
    except TypeError:
        dtype = None
    if dtype not in _FLOATS:
        got = " and ".join(str(d) for d in dtypes)
        raise TypeError(f"{who}: expected real numbers that fit float32 or float64, got {got}")
    return np.dtype(dtype)


def cast(array: Array, dtype: np.dtype[Any]) -> Array:
    """Return ``array`` in ``dtype``; a float64 too large for float32 becomes inf, silently."""
    if array.dtype == dtype:
        return array
    with quiet():
        return array.astype(dtype)


def as_float(who: str, value: ArrayLike, dtype: np.dtype[Any] | None = None) -> Array:
    """Return ``value`` in its working dtype, or in ``dtype`` once it has been found acceptable."""
    array = as_array(value)
    own = working_dtype(who, array)
    return cast(array, own if dtype is None else dtype)


def as_grad(
    who: str, grad_output: ArrayLike, shape: tuple[int, ...], dtype: np.dtype[Any]
) -> Array:
    """Return ``grad_output`` in the forward's dtype, once it has the output's shape."""
    grad = as_float(who, grad_output, dtype)
    if grad.shape != shape:
        raise ValueError(f"{who}: expected grad_output of shape {shape}, got {grad.shape}")
    return grad


def layer_dtype(who: str, dtype: DTypeLike | None, device: str | None = None) -> np.dtype[Any]:
    """Return the dtype of a new layer's parameters; ``device`` may only be None or 'cpu'."""
    if device is not None and str(device) != "cpu":
        raise ValueError(f"{who}: device must be None or 'cpu', got {device!r}")
    found = np.dtype(np.float32 if dtype is None else dtype)
    if found not in _FLOATS:
        raise TypeError(f"{who}: dtype must be float32 or float64, got {found}")
    return found


def as_int(who: str, name: str, value: Any) -> int:
    """Return ``value`` as an int; anything with ``__index__`` will do, except a bool."""
    if isinstance(value, (bool, np.bool_)):
        raise TypeError(f"{who}: {name} must be an int, got {type(value).__name__}")
    try:
        return operator.index(value)
    except TypeError:
        raise TypeError(f"{who}: {name} must be an int, got {type(value).__name__}") from None


def as_size(who: str, name: str, value: Any, smallest: int = 0) -> int:
    """Return ``value`` as an int of at least ``smallest`` that fits 64 bits."""
    number = as_int(who, name, value)
    if number < smallest:
        raise ValueError(f"{who}: {name} must be at least {smallest}, got {number}")
    if number > np.iinfo(np.int64).max:
        raise ValueError(f"{who}: {name} is too large: {number}")
    return number
