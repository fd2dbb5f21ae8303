"""What a tracer (_trace.py) is told of a function: its shapes and costs, a :class:`Found`."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, NamedTuple

import numpy as np

from pyconv._fields import Field, field_of, shifted


class Found(NamedTuple):
    """What one call of a function would do."""

    input: Any
    output_shape: tuple[int, ...]
    dtype: np.dtype[Any]
    field: Field | str  # that of the function alone; "same" for a map
    macs: int
    indices: bool  # beside its output it gives their places


# The layers that have the same windows, or see the same. All others are maps.
_LAYERS = {
    "adaptive_avg_pool2d": "AdaptiveAvgPool2d",
    "avg_pool2d": "AvgPool2d",
    "conv1d": "Conv1d",
    "conv2d": "Conv2d",
    "conv_transpose2d": "ConvTranspose2d",
    "linear": "Linear",
    "log_softmax": "Softmax",
    "max_pool2d": "MaxPool2d",
    "softmax": "Softmax",
}


def find(function: Callable[..., Any], args: Any, kwargs: Any) -> Found | None:
    """What ``function(*args, **kwargs)`` would do; None if it would not take them."""
    try:
        bound = inspect.signature(function).bind(*args, **kwargs)
    except TypeError:
        return None
    bound.apply_defaults()
    given, name = bound.arguments, function.__name__
    x = np.asanyarray(given["input"])
    try:
        shape, dtype = _shape_of(function, name, x, given)
    except (TypeError, ValueError):
        return None
    layer = SimpleNamespace(**given)
    if "weight" in given and given["weight"] is not None:
        layer.weight = np.asarray(given["weight"])
        layer.kernel_size = layer.weight.shape[2:]
    layer.transposed = name == "conv_transpose2d"
    if getattr(layer, "stride", 0) is None:
        layer.stride = layer.kernel_size
    own = (
        shifted(given["pad"], x.ndim)
        if name == "pad"
        else field_of(_LAYERS.get(name, ""), layer, x.shape, shape)
    )
    macs = multiplications(layer, x.shape, shape)
    return Found(x, shape, dtype, own, macs, bool(given.get("return_indices")))


def _shape_of(
    function: Callable[..., Any], name: str, x: Any, given: dict[str, Any]
) -> tuple[tuple[int, ...], np.dtype[Any]]:
    """Shape and dtype of the result: it is asked about no samples at all, or about one element."""
    given = dict(given, input=x)
    if name in ("dropout", "batch_norm"):  # which would change something
        return x.shape, np.result_type(x, np.float32)
    if name in _LAYERS and "Softmax" not in _LAYERS[name] and name != "linear":
        axes = 2 if name == "conv1d" else 3
        given["input"] = x[:0] if x.ndim > axes else x[None][:0]
        out = function(**given)
        out = out[0] if isinstance(out, tuple) else out
        return x.shape[: x.ndim - axes] + out.shape[1:], out.dtype
    if name == "linear":
        given["input"] = np.empty((0, *x.shape[-1:]), x.dtype)
        out = function(**given)
        return (*x.shape[:-1], *out.shape[1:]), out.dtype
    if name == "pad":
        samples = x.ndim > 1 and len(given["pad"]) < 2 * x.ndim
        given["input"] = x[:0] if samples else x
        out = function(**given)
        return (x.shape[:1] + out.shape[1:] if samples else out.shape), out.dtype
    given["input"] = np.empty((1,) * x.ndim, x.dtype)
    return x.shape, function(**given).dtype


def multiplications(layer: Any, shape: tuple[int, ...], out_shape: tuple[int, ...]) -> int:
    """Of a layer with a matrix of weights: each output meets one row of it.

    In a transposed convolution each input does.
    """
    weight = getattr(layer, "weight", None)
    if weight is None or weight.ndim < 2:
        return 0
    met = shape if getattr(layer, "transposed", False) else out_shape
    rows: int = math.prod(weight.shape[1:])
    return math.prod(met) * rows
