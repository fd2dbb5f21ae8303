"""Layers without parameters that NumPy computes: activations, Softmax, Dropout and Identity."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from pyconv import _maps
from pyconv._arrays import as_float, as_grad, as_int, quiet
from pyconv._random import generator
from pyconv._vjp import VjpModule

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

    from pyconv._arrays import Array

__all__ = ["Dropout", "Identity", "LeakyReLU", "Sigmoid", "Softmax", "Tanh"]


class _Map(VjpModule):
    """A function of the input that keeps its shape, and its backward."""

    _knows_its_shape = True

    def output_shape(self, input_shape: Sequence[int], /) -> tuple[int, ...]:
        """Return the shape that an input of ``input_shape`` would give: the same."""
        return tuple(input_shape)

    def _function(self, x: Array) -> Array:
        raise NotImplementedError

    def _gradient(self, grad: Array, x: Array) -> Array:
        raise NotImplementedError

    def _eval(self, input: Any) -> Array:
        return self._function(as_float(self._label(), input))

    def _vjp(self, input: Any) -> tuple[Array, Callable[..., Any]]:
        label = self._label()
        x = as_float(label, input)

        def pullback(grad_output: ArrayLike, input_grad: bool = True) -> Array | None:
            grad = as_grad(label, grad_output, x.shape, x.dtype)
            return self._gradient(grad, x) if input_grad else None

        return self._function(x), pullback


class Identity(_Map):
    """The input itself, for a place where a layer is expected.

    Parameters
    ----------
    *args, **kwargs
        Anything; it is not looked at.

    Shape
    -----
    Any; the output has the input's.

    Raises
    ------
    TypeError
        If the input is not real.
    RuntimeError
        If ``backward`` has no forward in training mode before it.

    Examples
    --------
    >>> import pyconv
    >>> pyconv.Identity(54, unused=True)([1.0, 2.0])
    array([1., 2.])

    Notes
    -----
    The output is the input, not a copy of it.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__()

    def _function(self, x: Array) -> Array:
        return x

    def _gradient(self, grad: Array, x: Array) -> Array:
        return grad


class Sigmoid(_Map):
    """``1 / (1 + exp(-input))``, elementwise; see :func:`pyconv.functional.sigmoid`.

    Shape
    -----
    Any; the output has the input's.

    Raises
    ------
    TypeError
        If the input is not real.
    RuntimeError
        If ``backward`` has no forward in training mode before it.

    Examples
    --------
    >>> import pyconv
    >>> sigmoid = pyconv.Sigmoid()
    >>> sigmoid([0.0])
    array([0.5])
    >>> sigmoid.backward([1.0])
    array([0.25])

    Notes
    -----
    What is kept for ``backward`` is the input, not a copy of it; the same for the layers below.
    """

    def _function(self, x: Array) -> Array:
        return _maps.sigmoid(x)

    def _gradient(self, grad: Array, x: Array) -> Array:
        return _maps.sigmoid_backward(grad, x)


class Tanh(_Map):
    """The hyperbolic tangent, elementwise; see :func:`pyconv.functional.tanh`.

    Shape
    -----
    Any; the output has the input's.

    Raises
    ------
    TypeError
        If the input is not real.
    RuntimeError
        If ``backward`` has no forward in training mode before it.

    Examples
    --------
    >>> import pyconv
    >>> pyconv.Tanh()([0.0, 1000.0])
    array([0., 1.])
    """

    def _function(self, x: Array) -> Array:
        return _maps.tanh(x)

    def _gradient(self, grad: Array, x: Array) -> Array:
        return _maps.tanh_backward(grad, x)


class LeakyReLU(_Map):
    """The input where it is positive, ``negative_slope * input`` elsewhere.

    Parameters
    ----------
    negative_slope : float, default: 0.01
    inplace : bool, default: False
        Accepted and printed for torch's sake; the output is a new array in any case.

    Shape
    -----
    Any; the output has the input's.

    Attributes
    ----------
    negative_slope : float
    inplace : bool

    Raises
    ------
    TypeError
        If the input is not real.
    RuntimeError
        If ``backward`` has no forward in training mode before it.

    Examples
    --------
    >>> import pyconv
    >>> pyconv.LeakyReLU(0.5)([-10.0, 2.0])
    array([-5.,  2.])
    """

    def __init__(self, negative_slope: float = 0.01, inplace: bool = False) -> None:
        super().__init__()
        self.negative_slope = float(negative_slope)
        self.inplace = bool(inplace)

    def _function(self, x: Array) -> Array:
        return _maps.leaky_relu(x, self.negative_slope)

    def _gradient(self, grad: Array, x: Array) -> Array:
        return _maps.leaky_relu_backward(grad, x, self.negative_slope)

    def extra_repr(self) -> str:
        """Return the arguments."""
        return f"negative_slope={self.negative_slope}" + (", inplace=True" if self.inplace else "")


class Softmax(_Map):
    """Positive numbers with the sum 1 along an axis: ``exp(input) / sum(exp(input))``.

    A network that is trained with :class:`CrossEntropyLoss` does not end in one: the loss has it.

    Parameters
    ----------
    dim : int, optional
        The axis; say it, see :func:`pyconv.functional.softmax`.

    Shape
    -----
    Any; the output has the input's.

    Attributes
    ----------
    dim : int or None

    Raises
    ------
    TypeError
        If the input is not real, or ``dim`` no int.
    ValueError
        If the input does not have the axis.
    RuntimeError
        If ``backward`` has no forward in training mode before it.

    Examples
    --------
    >>> import numpy as np, pyconv
    >>> pyconv.Softmax(dim=1)(np.log([[1, 2, 5]]))
    array([[0.125, 0.25 , 0.625]])
    """

    def __init__(self, dim: int | None = None) -> None:
        super().__init__()
        self.dim = None if dim is None else as_int("Softmax", "dim", dim)

    def _function(self, x: Array) -> Array:
        return _maps.softmax(x, self.dim, _stacklevel=5)

    def _gradient(self, grad: Array, x: Array) -> Array:
        axis = (0 if x.ndim in (0, 1, 3) else 1) if self.dim is None else self.dim
        return _maps.softmax_backward(grad, x, axis)

    def extra_repr(self) -> str:
        """Return the argument."""
        return f"dim={self.dim}"


class Dropout(VjpModule):
    """In training, each element is 0 with probability ``p``, the others are divided by ``1 - p``.

    In eval mode the output is the input.

    Parameters
    ----------
    p : float from 0 to 1, default: 0.5
    inplace : bool, default: False
        Accepted and printed for torch's sake; the output is a new array in any case.
    rng : optional, keyword only
        What ``numpy.random.default_rng`` takes, for the choices of this layer. By default they come
        from the generator that :func:`pyconv.manual_seed` sets.

    Shape
    -----
    Any; the output has the input's.

    Attributes
    ----------
    p : float
    inplace : bool

    Raises
    ------
    TypeError
        If the input is not real.
    ValueError
        If ``p`` is not from 0 to 1.
    RuntimeError
        If ``backward`` has no forward in training mode before it.

    Examples
    --------
    >>> import numpy as np, pyconv
    >>> dropout = pyconv.Dropout(0.5, rng=0)
    >>> dropout(np.ones(6))
    array([2., 2., 2., 0., 0., 0.])
    >>> dropout.backward(np.ones(6))
    array([2., 2., 2., 0., 0., 0.])
    >>> dropout.eval()(np.ones(6))
    array([1., 1., 1., 1., 1., 1.])

    Notes
    -----
    The numbers are not torch's, whose random stream is another one.
    """

    def __init__(self, p: float = 0.5, inplace: bool = False, *, rng: Any = None) -> None:
        super().__init__()
        self.p = _maps.checked_probability("Dropout", p)
        self.inplace = bool(inplace)
        self._rng = None if rng is None else np.random.default_rng(rng)

    _knows_its_shape = True

    def output_shape(self, input_shape: Sequence[int], /) -> tuple[int, ...]:
        """Return the shape that an input of ``input_shape`` would give: the same."""
        return tuple(input_shape)

    def _vjp(self, input: Any) -> tuple[Array, Callable[..., Any]]:
        x = as_float("Dropout", input)
        factors = _maps.dropout_factors(x, self.p, generator(self._rng), self.training)
        shape, dtype = x.shape, x.dtype

        def pullback(grad_output: ArrayLike, input_grad: bool = True) -> Array | None:
            grad = as_grad("Dropout", grad_output, shape, dtype)
            return _times(grad, factors) if input_grad else None

        return _times(x, factors), pullback

    def extra_repr(self) -> str:
        """Return the arguments."""
        return f"p={self.p}, inplace={self.inplace}"


def _times(array: Array, factors: Array | None) -> Array:
    if factors is None:
        return array
    with quiet():
        return np.asarray(array * factors, order="C")
