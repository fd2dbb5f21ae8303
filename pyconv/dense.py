"""The layers that NumPy computes: Flatten and Linear."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from pyconv._arrays import as_float, as_grad, as_int, as_size, layer_dtype
from pyconv._numpy_ops import linear, linear_backward
from pyconv._random import fill_uniform, generator
from pyconv._vjp import VjpModule
from pyconv.parameter import Parameter

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, DTypeLike

    from pyconv._arrays import Array

__all__ = ["Flatten", "Linear"]


class Flatten(VjpModule):
    """Join the axes ``start_dim`` to ``end_dim`` into one.

    ``(N, C, H, W) -> (N, C*H*W)`` with the defaults. Without a batch axis say ``start_dim=0``.

    Parameters
    ----------
    start_dim : int, default: 1
    end_dim : int, default: -1

    Shape
    -----
    Input any, output with the joined axes as one.

    Attributes
    ----------
    start_dim, end_dim : int

    Raises
    ------
    TypeError
        If an axis is no int, or the input is not real.
    ValueError
        If the input does not have the axes.
    RuntimeError
        If ``backward`` has no forward in training mode before it.

    Examples
    --------
    >>> import numpy as np, pyconv
    >>> pyconv.Flatten()(np.zeros((2, 3, 4, 5))).shape
    (2, 60)

    Notes
    -----
    The output is a view of a contiguous input.
    """

    def __init__(self, start_dim: int = 1, end_dim: int = -1) -> None:
        super().__init__()
        self.start_dim = as_int("Flatten", "start_dim", start_dim)
        self.end_dim = as_int("Flatten", "end_dim", end_dim)

    _knows_its_shape = True

    def output_shape(self, input_shape: Sequence[int], /) -> tuple[int, ...]:
        """Return the shape that an input of ``input_shape`` would give."""
        shape = tuple(input_shape)
        start, end = (self._axis(axis, len(shape)) for axis in (self.start_dim, self.end_dim))
        if start > end:
            raise ValueError("Flatten: start_dim cannot come after end_dim")
        return (*shape[:start], math.prod(shape[start : end + 1]), *shape[end + 1 :])

    def _vjp(self, input: Any) -> tuple[Array, Callable[..., Any]]:
        x = as_float("Flatten", input)
        output = x.reshape(self.output_shape(x.shape))
        shape, dtype, flat = x.shape, x.dtype, output.shape

        def pullback(grad_output: ArrayLike, input_grad: bool = True) -> Array | None:
            grad = as_grad("Flatten", grad_output, flat, dtype)
            return grad.reshape(shape) if input_grad else None

        return output, pullback

    def _axis(self, axis: int, ndim: int) -> int:
        n = max(ndim, 1)
        if not -n <= axis < n:
            raise ValueError(
                f"Flatten: Dimension out of range (expected to be in range of [{-n}, {n - 1}], "
                f"but got {axis})"
            )
        return axis % n

    def extra_repr(self) -> str:
        """Return the arguments."""
        return f"start_dim={self.start_dim}, end_dim={self.end_dim}"


class Linear(VjpModule):
    """``input @ weight.T + bias``, over the last axis.

    Parameters
    ----------
    in_features, out_features : int
    bias : bool, default: True
    device : None or 'cpu', optional
    dtype : float32 or float64, default: float32
    rng : optional, keyword only
        As for :class:`Conv2d`.

    Shape
    -----
    Input (..., in_features), output (..., out_features).

    Attributes
    ----------
    weight : numpy.ndarray, shape (out_features, in_features)
        From U(-b, b), ``b = 1 / sqrt(in_features)``. Assigning copies.
    bias : numpy.ndarray of shape (out_features,), or None
        From the same distribution; zeros if there are no input features.
    weight_grad, bias_grad : numpy.ndarray or None
        What backward has added up since ``zero_grad``.

    Raises
    ------
    TypeError
        If a size is no int, or an array is not real.
    ValueError
        If a size is negative, or shapes disagree.
    RuntimeError
        If ``backward`` has no forward in training mode before it.

    Examples
    --------
    >>> import numpy as np, pyconv
    >>> linear = pyconv.Linear(20, 5)
    >>> linear
    Linear(in_features=20, out_features=5, bias=True)
    >>> linear(np.zeros((7, 20))).shape
    (7, 5)
    >>> linear.backward(np.ones((7, 5))).shape
    (7, 20)
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        bias: bool = True,
        device: str | None = None,
        dtype: DTypeLike | None = None,
        *,
        rng: Any = None,
    ) -> None:
        super().__init__()
        self.in_features = as_size("Linear", "in_features", in_features)
        self.out_features = as_size("Linear", "out_features", out_features)
        found = layer_dtype("Linear", dtype, device)
        shapes = {"weight": (self.out_features, self.in_features), "bias": (self.out_features,)}
        self._parameters = {
            name: Parameter(np.zeros(shape, found))
            for name, shape in shapes.items()
            if bias or name == "weight"
        }
        self.reset_parameters(rng)

    def reset_parameters(self, rng: Any = None) -> None:
        """Fill weight, then bias, from U(-b, b), ``b = 1/sqrt(in_features)``; see Conv2d."""
        source = generator(rng)
        bound = 1 / math.sqrt(self.in_features) if self.in_features else 0.0
        for parameter in self._named().values():
            fill_uniform(source, parameter.data, bound)

    _knows_its_shape = True

    def output_shape(self, input_shape: Sequence[int], /) -> tuple[int, ...]:
        """Return the shape that an input of ``input_shape`` would give."""
        shape = tuple(input_shape)
        if not shape or shape[-1] != self.in_features:
            rows = math.prod(shape[:-1])
            raise ValueError(
                f"{self._label()}: mat1 and mat2 shapes cannot be multiplied ({rows}x"
                f"{shape[-1] if shape else ''} and {self.in_features}x{self.out_features}): "
                f"expected input (..., {self.in_features}), got {shape}"
            )
        return (*shape[:-1], self.out_features)

    def _vjp(self, input: Any) -> tuple[Array, Callable[..., Any]]:
        # The pullback may be kept by the layer: it holds what it needs, and not the layer.
        parameters, label = self._named(), self._label()
        weight, bias = self.weight, self.bias
        x = as_float(label, input, weight.dtype)
        shape = self.output_shape(x.shape)

        def pullback(grad_output: ArrayLike, input_grad: bool = True) -> Array | None:
            grad = as_grad(label, grad_output, shape, x.dtype)
            bias = parameters.get("bias")
            mask = (
                input_grad,
                parameters["weight"].requires_grad,
                bias is not None and bias.requires_grad,
            )
            grads = linear_backward(grad, x, parameters["weight"].data, output_mask=mask)
            for name, value in zip(("weight", "bias"), grads[1:], strict=True):
                if value is not None:
                    parameters[name].accumulate_grad(value)
            return grads[0]

        return linear(x, weight, bias), pullback

    def _own_parameters(self) -> dict[str, Parameter]:
        return {**self._named(), **super()._own_parameters()}

    def _named(self) -> dict[str, Parameter]:
        """The weight, and the bias if there is one."""
        found: dict[str, Parameter] | None = self.__dict__.get("_parameters")
        if found is None:
            raise RuntimeError("Linear: its __init__ was not called, or did not succeed")
        return found

    @property
    def weight(self) -> Array:
        return self._named()["weight"].data

    @weight.setter
    def weight(self, value: ArrayLike) -> None:
        self._named()["weight"].data = value

    @property
    def weight_grad(self) -> Array | None:
        return self._named()["weight"].grad

    @weight_grad.setter
    def weight_grad(self, value: ArrayLike | None) -> None:
        self._named()["weight"].grad = value

    @property
    def bias(self) -> Array | None:
        bias = self._named().get("bias")
        return None if bias is None else bias.data

    @bias.setter
    def bias(self, value: ArrayLike | None) -> None:
        bias = self._named().get("bias")
        if bias is not None and value is not None:
            bias.data = value
        elif bias is not None or value is not None:
            has = "no bias" if bias is None else "a bias"
            raise ValueError(f"{self._label()}: it was made with {has}, which stays so")

    @property
    def bias_grad(self) -> Array | None:
        bias = self._named().get("bias")
        return None if bias is None else bias.grad

    @bias_grad.setter
    def bias_grad(self, value: ArrayLike | None) -> None:
        bias = self._named().get("bias")
        if bias is not None:
            bias.grad = value
        elif value is not None:
            raise ValueError(f"{self._label()}: there is no bias to have a gradient")

    @property
    def dtype(self) -> np.dtype[Any]:
        return self.weight.dtype

    def _label(self) -> str:
        return f"Linear({self.in_features}, {self.out_features})"

    def extra_repr(self) -> str:
        """Return the arguments."""
        biased = "bias" in self._named()
        return f"in_features={self.in_features}, out_features={self.out_features}, bias={biased}"
