"""Checking gradients."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from pyconv import functional
from pyconv._arrays import as_array
from pyconv._vjp import call_vjp
from pyconv.module import Module

if TYPE_CHECKING:
    from pyconv._arrays import Array

__all__ = ["gradcheck"]


def gradcheck(
    layer_or_function: Any,
    *inputs: Any,
    eps: float = 1e-6,
    atol: float = 1e-5,
    rtol: float = 1e-3,
    **options: Any,
) -> bool:
    r"""Compare gradients with central differences in float64.

    The output ``y`` is weighted with fixed random numbers ``r``, and each element ``x`` of each
    input and each parameter is checked:

    ``pulled back r  ==  (sum(r * y(x + eps)) - sum(r * y(x - eps))) / (2 * eps)``

    up to ``atol + rtol * |difference quotient|``.

    Parameters
    ----------
    layer_or_function : Module, function, or pair (forward, backward)
        A module is copied and converted to float64; it itself stays as it is. A function must be
        one of :mod:`pyconv.functional` that has a backward. In a pair, ``backward(grad_output,
        *inputs)`` returns the gradient of the only input, or a tuple with one for each input; None
        where there is none.
    *inputs : array_like
        Floating-point arrays are copied to float64; anything else, such as the labels of a loss, is
        passed on. Keep away from kinks: a maximum should win by more than ``eps``.
    eps, atol, rtol : float
    **options
        Passed on to function and backward.

    Returns
    -------
    bool
        True.

    Raises
    ------
    AssertionError
        If a gradient is wrong. It shows the worst element.
    TypeError
        If a function without a backward is given.

    Examples
    --------
    >>> import numpy as np, pyconv
    >>> rng = np.random.default_rng(0)
    >>> x = rng.standard_normal((2, 3, 5, 5))
    >>> pyconv.testing.gradcheck(pyconv.Conv2d(3, 4, 3), x)
    True
    >>> pyconv.testing.gradcheck(pyconv.functional.avg_pool2d, x, kernel_size=2)
    True
    """
    arrays = [_as_input(value) for value in inputs]
    if isinstance(layer_or_function, Module):
        _check_module(layer_or_function, arrays, (eps, atol, rtol), options)
        return True
    if isinstance(layer_or_function, tuple):
        forward, backward = layer_or_function
    else:
        forward, backward = layer_or_function, _backward_of(layer_or_function)

    def function() -> Array:
        return _first(forward(*arrays, **options))

    weights = _weights(function())
    grads = backward(weights, *arrays, **options)
    if not isinstance(grads, tuple):
        grads = (grads,)
    name = getattr(forward, "__name__", "function")
    for i, (array, grad) in enumerate(zip(arrays, grads, strict=False)):
        if grad is not None:
            _compare(f"{name}: input {i}", array, grad, function, weights, (eps, atol, rtol))
    return True


def _check_module(
    module: Module, arrays: list[Array], bounds: tuple[float, float, float], options: dict[str, Any]
) -> None:
    if options:
        raise TypeError(f"a module takes no options, got {sorted(options)}")
    name = type(module).__name__
    module = copy.deepcopy(module).double()
    module.zero_grad()
    output, pullback = call_vjp(module, *arrays)
    weights = _weights(_first(output))
    grads = pullback(weights)
    if not isinstance(grads, tuple):
        grads = (grads,)

    def function() -> Array:
        return _first(module(*arrays))

    for i, (array, grad) in enumerate(zip(arrays, grads, strict=False)):
        if grad is not None:
            _compare(f"{name}: input {i}", array, grad, function, weights, bounds)
    for key, parameter in module.named_parameters():
        if parameter.requires_grad:
            grad = parameter.grad
            if grad is None:
                raise AssertionError(f"{name}: parameter {key} got no gradient")
            _compare(f"{name}: {key}", parameter.data, grad, function, weights, bounds)


def _compare(
    what: str,
    array: Array,
    grad: Any,
    function: Callable[[], Array],
    weights: Array,
    bounds: tuple[float, float, float],
) -> None:
    """AssertionError with the worst element, unless ``grad`` fits the difference quotients."""
    eps, atol, rtol = bounds
    if not isinstance(array, np.ndarray) or array.dtype != np.float64:
        raise TypeError(f"{what}: must be floating-point to have its gradient checked")
    analytic = np.asarray(grad)
    if analytic.shape != array.shape:
        raise AssertionError(f"{what}: gradient of shape {analytic.shape} for {array.shape}")
    numeric = np.empty_like(array)
    for index in np.ndindex(array.shape):
        value = array[index]
        array[index] = value + eps
        above = (function() * weights).sum()
        array[index] = value - eps
        below = (function() * weights).sum()
        array[index] = value
        numeric[index] = (above - below) / (2 * eps)
    excess = np.abs(analytic - numeric) - (atol + rtol * np.abs(numeric))
    wrong = ~(excess <= 0)  # NaN is wrong as well
    if wrong.any():
        worst = np.unravel_index(np.argmax(np.where(np.isnan(excess), np.inf, excess)), array.shape)
        at = tuple(int(i) for i in worst)
        raise AssertionError(
            f"{what}: wrong gradient in {wrong.sum()} of {wrong.size} elements; worst at {at}: "
            f"gradient {analytic[at]:.9g}, difference quotient {numeric[at]:.9g}"
        )


def _as_input(value: Any) -> Any:
    """A float64 copy of what is floating-point; labels and sizes as they are."""
    if value is None or as_array(value).dtype.kind != "f":
        return value
    return np.array(as_array(value), dtype=np.float64, order="C")


def _first(output: Any) -> Array:
    """The output itself, or the values of a pool with indices."""
    return np.asarray(output[0] if isinstance(output, tuple) else output)


def _weights(output: Array) -> Array:
    return np.asarray(np.random.default_rng(0).standard_normal(output.shape))


# ---- the backwards of pyconv.functional, all as backward(grad_output, *inputs, **options) ----


def _backward_of(function: Any) -> Callable[..., Any]:
    name = getattr(function, "__name__", "")
    backward = getattr(functional, f"{name}_backward", None)
    if backward is None or getattr(functional, name) is not function:
        raise TypeError(
            f"gradcheck: {function!r} is no function of pyconv.functional with a backward; "
            "give a pair (forward, backward)"
        )
    if name in ("max_pool2d", "avg_pool2d", "adaptive_avg_pool2d", "batch_norm", "pad"):
        adapted: Callable[..., Any] = globals()[f"_{name}"]
        return adapted
    if name in ("cross_entropy", "mse_loss", "binary_cross_entropy_with_logits"):
        return lambda grad, x, t, **options: (backward(grad, x, t, **options), None)
    if name in ("relu", "leaky_relu", "sigmoid", "tanh", "softmax", "log_softmax"):
        return lambda grad, x, *args, **options: backward(grad, x, *args, **options)

    def weighted(grad: Array, x: Any, w: Any, b: Any = None, **options: Any) -> tuple[Any, ...]:
        grads: tuple[Any, ...] = backward(grad, x, w, **options)
        return grads if b is not None else grads[:2]

    return weighted


def _max_pool2d(grad: Array, x: Array, *args: Any, **options: Any) -> Array:
    options = {**options, "return_indices": True}
    _, indices = functional.max_pool2d(x, *args, **options)
    return functional.max_pool2d_backward(grad, indices, x.shape)


def _avg_pool2d(grad: Array, x: Array, *args: Any, **options: Any) -> Array:
    return functional.avg_pool2d_backward(grad, x.shape, *args, **options)


def _adaptive_avg_pool2d(grad: Array, x: Array, output_size: Any) -> Array:
    return functional.adaptive_avg_pool2d_backward(grad, x.shape)


def _pad(grad: Array, x: Array, pad: Any, mode: str = "constant", value: Any = None) -> Array:
    return functional.pad_backward(grad, x.shape, pad, mode)


def _batch_norm(
    grad: Array,
    x: Array,
    mean: Array,
    var: Array,
    weight: Array | None = None,
    bias: Array | None = None,
    **options: Any,
) -> tuple[Any, ...]:
    options.pop("momentum", None)
    grads = functional.batch_norm_backward(grad, x, mean, var, weight, **options)
    with_weight, with_bias = weight is not None, bias is not None
    return grads[0], None, None, grads[1] if with_weight else None, grads[2] if with_bias else None
