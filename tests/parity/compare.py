"""Run a case through pyconv, and compare arrays within the error bound of their sums.

A float32 sum of n products, each rounded, whatever its order, is off by at most
gamma(n) * sum of |products|, where gamma(n) = n*u / (1 - n*u) and u = 2**-24. The magnitudes come
from the reference, run in float64 on the absolute values. In float64 the tolerance is 1e-12 of the
largest element; integers must agree exactly.
"""

from typing import Any

import numpy as np
from parity.calls import Call
from parity.cases import Case

import pyconv
import pyconv.functional as F
from pyconv import reference
from pyconv._reference_windows import sides_of

Arrays = dict[str, np.ndarray]


# ---- running pyconv ----


def make_layer(case: Case) -> Any:
    """The case's layer, with the case's weight and bias."""
    _, weight, bias = case.arrays()
    arguments = dict(case.arguments)
    if weight is not None:
        arguments["dtype"] = case.dtype
    layer = getattr(pyconv, case.layer)(**arguments)
    if weight is not None:
        layer.weight = weight
    if bias is not None:
        layer.bias = bias
    return layer


def run_layer(case: Case) -> Arrays:
    """Forward and backward through the layer object."""
    layer = make_layer(case)
    result = {}
    y = layer(case.arrays()[0], **case.call)
    if case.arguments.get("return_indices"):
        y, result["indices"] = y
    result["output"] = y
    result["grad_input"] = layer.backward(case.numbers("grad_output", y.shape))
    if case.weight_shape is not None:
        result["grad_weight"] = layer.weight_grad
        if case.arguments.get("bias", True):
            result["grad_bias"] = layer.bias_grad
    return result


def run_functions(case: Case, functions: Any = F) -> Arrays | None:
    """Forward and backward through the functions; None for what they have no argument for."""
    x, weight, bias = case.arrays()
    a = dict(case.arguments)
    if a.pop("padding_mode", "zeros") != "zeros":
        return None
    if case.layer in ("MaxPool2d", "AvgPool2d"):
        a.pop("return_indices", None)
        if case.layer == "MaxPool2d":
            y, indices = functions.max_pool2d(x, return_indices=True, **a)
            gy = case.numbers("grad_output", y.shape)
            gx = functions.max_pool2d_backward(gy, indices, x.shape)
            return {"output": y, "indices": indices, "grad_input": gx}
        y = functions.avg_pool2d(x, **a)
        gy = case.numbers("grad_output", y.shape)
        return {"output": y, "grad_input": functions.avg_pool2d_backward(gy, x.shape, **a)}
    for name in ("in_channels", "out_channels", "kernel_size", "bias"):
        a.pop(name, None)
    if "output_size" in case.call:
        a["output_padding"] = output_padding(case, case.call["output_size"])
    name = {"Conv2d": "conv2d", "ConvTranspose2d": "conv_transpose2d"}[case.layer]
    y = getattr(functions, name)(x, weight, bias, **a)
    gy = case.numbers("grad_output", y.shape)
    mask = (True, True, bias is not None)
    gradients = getattr(functions, f"{name}_backward")(gy, x, weight, output_mask=mask, **a)
    result = dict(zip(("grad_input", "grad_weight", "grad_bias"), gradients, strict=True))
    if bias is None:
        assert result.pop("grad_bias") is None
    return {"output": y, **result}


def pair(value: Any) -> tuple[int, int]:
    return (value, value) if isinstance(value, int) else tuple(value)


def output_padding(case: Case, output_shape: tuple[int, ...]) -> tuple[int, int]:
    """What a transposed layer must add to reach an output of this height and width."""
    a = case.arguments
    k, s, p, d = (
        pair(a.get(name, default))
        for name, default in (("kernel_size", 1), ("stride", 1), ("padding", 0), ("dilation", 1))
    )
    least = [
        (case.shape[axis - 2] - 1) * s[axis] - 2 * p[axis] + d[axis] * (k[axis] - 1) + 1
        for axis in (0, 1)
    ]
    return output_shape[-2] - least[0], output_shape[-1] - least[1]


# ---- tolerances ----


def gamma(n: float) -> float:
    return n * 2.0**-24 / (1 - n * 2.0**-24)


def bounds(case: Case, output_shape: tuple[int, ...]) -> Arrays:
    """For every array of a float32 case, how far any order of its sums may lead, per element."""
    x, weight, bias = (None if v is None else np.abs(v).astype(float) for v in case.arrays())
    gy = np.abs(case.numbers("grad_output", output_shape)).astype(float)
    outputs = gy.size // gy.shape[-3] if gy.size else 0
    a = dict(case.arguments)
    window = int(np.prod(pair(a["kernel_size"])))
    if case.layer == "MaxPool2d":
        a["return_indices"] = True
        _, indices = reference.max_pool2d(case.arrays()[0], **a)
        total = reference.max_pool2d_backward(gy, indices, x.shape)
        return {"grad_input": gamma(window + 1) * total}
    if case.layer == "AvgPool2d":
        total = {
            "output": reference.avg_pool2d(x, **a),
            "grad_input": reference.avg_pool2d_backward(gy, x.shape, **a),
        }
        # One more rounding is the division's; a negative divisor only turns the sign.
        return {name: gamma(window + 2) * np.abs(value) for name, value in total.items()}

    for name in ("in_channels", "out_channels", "kernel_size", "bias"):
        a.pop(name, None)
    if case.layer == "Conv2d":
        mode = a.pop("padding_mode", "zeros")
        padding = a.pop("padding", 0)
        sides = sides_of(
            padding, weight.shape[2:], pair(a.get("stride", 1)), pair(a.get("dilation", 1))
        )
        image = reference.padded(x, sides, mode)
        forward, backward = reference.conv2d, reference.conv2d_backward
        per_output, per_input = weight[0].size, window * len(weight) // a.get("groups", 1)
        # Folding a border back adds more terms to a cell.
        folded = reference.padded_backward(np.ones_like(image), x.shape, sides, mode)
        per_input += int(folded.max(initial=1)) - 1
        positions = outputs
    else:
        a["output_padding"] = output_padding(case, output_shape)
        image = x
        forward, backward = reference.conv_transpose2d, reference.conv_transpose2d_backward
        per_output, per_input = window * len(weight) // a.get("groups", 1), weight[0].size
        positions = x.size // x.shape[-3] if x.size else 0
    gx, gw, gb = backward(gy, image, weight, **a)
    if case.layer == "Conv2d":
        gx = reference.padded_backward(gx, x.shape, sides, mode)
    return {
        "output": gamma(per_output + 1) * forward(image, weight, bias, **a),
        "grad_input": gamma(per_input + 1) * gx,
        "grad_weight": gamma(positions + 1) * gw,
        "grad_bias": gamma(outputs + 1) * gb,
    }


def check(case: Case, actual: Arrays, expected: Arrays) -> None:
    """Assert that every array is the expected one; `expected` holds what case.kept keeps."""
    limits = None
    for name, wanted in expected.items():
        if name not in actual:
            assert name == "indices", f"{case.name}: no {name}"
            continue
        got = actual[name]
        assert isinstance(got, np.ndarray), (case.name, name)
        assert got.dtype == (np.int64 if name == "indices" else case.dtype), (case.name, name)
        kept = case.kept(got, name)
        assert kept.shape == wanted.shape, (case.name, name)
        if case.exact(name):
            np.testing.assert_array_equal(kept, wanted, f"{name} of {case.name}")
            continue
        if case.dtype == "float64":
            limit = np.full(got.shape, 1e-12 * np.abs(got).max(initial=0))
        else:
            limits = bounds(case, actual["output"].shape) if limits is None else limits
            limit = limits[name]
        error = np.abs(kept.astype(float) - wanted)
        assert (error <= case.kept(limit, name)).all(), (
            f"{name} of {case.name}: largest error {error.max()}, "
            f"{(error / np.maximum(case.kept(limit, name), 1e-300)).max():.3g} of what is allowed"
        )


# ---- verdicts ----


def build(call: Call) -> Any:
    return getattr(pyconv, call.layer)(*call.args, **call.kwargs)


def refusal(call: Call) -> Exception | None:
    """The error that pyconv raises; any other class than these three is a failure."""
    try:
        layer = build(call)
        if call.shape is not None:
            layer(np.zeros(call.shape, call.dtype), **call.call)
    except (TypeError, ValueError, MemoryError) as error:
        return error
    return None


# ---- tables in tests ----


def table(text: str) -> np.ndarray:
    """Rows separated by slashes: "1 2 / 3 4"."""
    return np.array([[float(v) for v in row.split()] for row in text.split("/")])


def assert_table(actual: np.ndarray, text: str, decimals: int | None = None) -> None:
    """The one plane of `actual` is the table, to so many decimals; exactly if not given."""
    plane = actual.reshape(actual.shape[-2:])
    expected = table(text)
    assert plane.shape == expected.shape
    if decimals is None:
        np.testing.assert_array_equal(plane, expected)
    else:
        np.testing.assert_allclose(plane, expected, rtol=0, atol=0.51 * 10.0**-decimals)


def ones(*shape: int) -> np.ndarray:
    return np.ones(shape, "f4")
