"""Parameter: an array that is trained, and its gradient, wherever the two live."""

from __future__ import annotations

from _thread import allocate_lock
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any
from weakref import WeakValueDictionary

import numpy as np

from pyconv._arrays import as_float, cast

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, DTypeLike

    from pyconv._arrays import Array

__all__ = ["Parameter"]

_handles_lock = allocate_lock()


class Parameter:
    """An array that is trained, and its gradient.

    A layer has one handle per parameter for life, which :meth:`Module.parameters` gives and an
    optimizer holds. In a layer of your own, assign one as an attribute.

    Parameters
    ----------
    data : array_like
        The first values. They are copied; the dtype is ``np.result_type(data, np.float32)``.
    requires_grad : bool, default: True
        Whether ``backward`` computes a gradient and an optimizer changes the values.

    Attributes
    ----------
    data : numpy.ndarray
        The array itself. Assigning copies the values into it, after a check of the shape.
    grad : numpy.ndarray or None
        None until the first backward. Assigning takes None or an array of the right shape.
    requires_grad : bool

    Raises
    ------
    TypeError
        If ``data`` does not fit float32 or float64.
    ValueError
        If an array of another shape is assigned.

    Examples
    --------
    >>> import numpy as np, pyconv
    >>> scale = pyconv.Parameter(np.ones(3, np.float32))
    >>> scale.accumulate_grad([1, 2, 3])
    >>> scale.accumulate_grad([1, 1, 1])
    >>> scale.grad
    array([2., 3., 4.], dtype=float32)
    """

    __slots__ = ("__weakref__", "_data", "_grad", "_requires_grad")

    def __init__(self, data: ArrayLike, requires_grad: bool = True) -> None:
        self._data: Array = np.array(as_float("Parameter", data), order="C")
        self._grad: Array | None = None
        self._requires_grad = bool(requires_grad)

    @property
    def data(self) -> Array:
        return self._data

    @data.setter
    def data(self, value: ArrayLike) -> None:
        np.copyto(self._data, self._checked(value, "data"))

    @property
    def grad(self) -> Array | None:
        return self._grad

    @grad.setter
    def grad(self, value: ArrayLike | None) -> None:
        self._grad = None if value is None else np.array(self._checked(value, "grad"), order="C")

    @property
    def requires_grad(self) -> bool:
        return self._requires_grad

    @requires_grad.setter
    def requires_grad(self, value: bool) -> None:
        self._requires_grad = bool(value)

    @property
    def shape(self) -> tuple[int, ...]:
        return self.data.shape

    @property
    def dtype(self) -> np.dtype[Any]:
        return self.data.dtype

    @property
    def ndim(self) -> int:
        return self.data.ndim

    def numel(self) -> int:
        """Return the number of elements."""
        return self.data.size

    def accumulate_grad(self, grad: ArrayLike) -> None:
        """Add ``grad`` to the gradient, in place once there is one; nothing if not required."""
        if not self.requires_grad:
            return
        value = self._checked(grad, "grad")
        held = self.grad
        if held is None:
            self.grad = value
        else:
            held += value

    def _checked(self, value: ArrayLike, what: str) -> Array:
        array = as_float(f"Parameter: {what}", value, self.dtype)
        if array.shape != self.shape:
            raise ValueError(
                f"Parameter: expected {what} of shape {self.shape}, got shape {array.shape}"
            )
        return array

    def _set_dtype(self, dtype: np.dtype[Any]) -> None:
        self._data = cast(self._data, dtype)
        self._grad = None if self._grad is None else cast(self._grad, dtype)

    def __array__(self, dtype: DTypeLike | None = None, copy: bool | None = None) -> Array:
        return np.array(self.data, dtype=dtype, copy=copy)

    def __repr__(self) -> str:
        frozen = "" if self.requires_grad else ", requires_grad=False"
        return f"Parameter(shape={self.shape}, dtype={self.dtype}{frozen})"

    # A pickle holds no gradients, a deepcopy does.
    def __reduce__(self) -> tuple[Any, ...]:
        return Parameter, (self._data, self._requires_grad)

    def __deepcopy__(self, memo: dict[int, Any]) -> Parameter:
        new = Parameter(self._data, self._requires_grad)
        new.grad = self._grad
        return new


class _LayerParameter(Parameter):
    """The handle of a parameter that lives in a layer of the C extension."""

    __slots__ = ("_layer", "_name")

    def __init__(self, layer: Any, name: str) -> None:
        self._layer = layer
        self._name = name

    @property
    def data(self) -> Array:
        array: Array = getattr(self._layer, self._name)
        return array

    @data.setter
    def data(self, value: ArrayLike) -> None:
        setattr(self._layer, self._name, value)

    @property
    def grad(self) -> Array | None:
        grad: Array | None = getattr(self._layer, self._name + "_grad")
        return grad

    @grad.setter
    def grad(self, value: ArrayLike | None) -> None:
        object.__setattr__(self._layer, self._name + "_grad", value)  # past Module's register

    @property
    def requires_grad(self) -> bool:
        return bool(getattr(self._layer, f"_{self._name}_requires_grad"))

    @requires_grad.setter
    def requires_grad(self, value: bool) -> None:
        setattr(self._layer, f"_{self._name}_requires_grad", bool(value))

    def _set_dtype(self, dtype: np.dtype[Any]) -> None:
        self._layer._set_dtype(dtype)

    def __reduce__(self) -> tuple[Any, ...]:
        return layer_parameter, (self._layer, self._name)

    def __deepcopy__(self, memo: dict[int, Any]) -> Parameter:
        from copy import deepcopy

        return layer_parameter(deepcopy(self._layer, memo), self._name)


def layer_parameter(layer: Any, name: str) -> Parameter:
    """Return the one handle of ``layer``'s parameter ``name``.

    The handle holds the layer and the layer holds the handle weakly: so there is no cycle, and
    nobody can see a second handle while the first is alive.
    """
    with _handles_lock:
        handles = layer.__dict__.setdefault("_handles", WeakValueDictionary())
        handle = handles.get(name)
        if handle is None:
            handle = handles[name] = _LayerParameter(layer, name)
    assert isinstance(handle, Parameter)
    return handle


def zero_grad(parameters: Iterable[Parameter], set_to_none: bool) -> None:
    for parameter in parameters:
        grad = parameter.grad
        if grad is None:
            continue
        if set_to_none:
            parameter.grad = None
        else:
            grad[...] = 0
