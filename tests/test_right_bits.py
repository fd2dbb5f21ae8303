"""The right bits: one scalar chain of fused multiply-adds per output, in the definition's order.

Also where infinities and NaNs go, which the same chain says.
"""

import ctypes

import numpy as np
import pytest
from kernels.library import load_oracle
from runs import (
    CASES,
    POOLS,
    Array,
    Case,
    check_same,
    convolve,
    fresh,
    inputs,
    more,
    parametrised,
    pool_inputs,
    pooled,
)

import pyconv.functional as F
from pyconv import _core, reference


def chain(case: Case, dtype: str, which: str, *tensors: Array | None) -> Array:
    """Return the oracle's forward ("forward") or input gradient ("backward_input")."""
    (top, _), (left, _) = case.sides
    oh, ow = case.out
    sizes = (ctypes.c_int64 * 16)(
        *(case.n, case.groups, case.ic, case.oc, *case.size, oh, ow),
        *(*case.kernel, *case.stride, *case.dilation, top, left),
    )
    channels, size = (case.oc, case.out) if which == "forward" else (case.ic, case.size)
    result = np.full((case.n, channels, *size), np.nan, dtype)
    contiguous = [None if each is None else np.ascontiguousarray(each) for each in tensors]
    pointers = [None if each is None else each.ctypes.data for each in (result, *contiguous)]
    word = "f32" if dtype == "float32" else "f64"
    function = getattr(load_oracle(), f"oracle_{word}_conv_{which}")
    fused = _core.build_info()["isa"] != "baseline"
    function(ctypes.byref(sizes), *map(ctypes.c_void_p, pointers), int(fused))
    return result


@parametrised
@pytest.mark.parametrize("name", CASES)
def test_convolution_is_the_scalar_chain(name: str, dtype: str) -> None:
    """Bias first, then taps in the order channel, kernel row, kernel column, one fma each."""
    case = CASES[name]
    t = inputs(case, dtype)
    found = convolve(case, **t)
    expected = {
        "forward": chain(case, dtype, "forward", t["x"], t["w"], t["b"]),
        "gx": chain(case, dtype, "backward_input", t["gy"], t["w"], None),
    }
    if "transposed" in found:
        expected["transposed"] = expected["gx"]
        expected["transposed gx"] = chain(case, dtype, "forward", t["x"], t["w"], None)
    check_same({key: found[key] for key in expected}, expected, "scalar chain")


@parametrised
def test_transposed_bias_comes_first(dtype: str) -> None:
    """The transposed convolution's chain starts at its bias as well."""
    case = CASES["strided"]
    t = inputs(case, dtype)
    bias = fresh(case.ic, dtype, 11)
    got = F.conv_transpose2d(
        t["gy"], t["w"], bias, case.stride, case.padding, more(case), case.groups, case.dilation
    )
    expected = chain(case, dtype, "backward_input", t["gy"], t["w"], bias)
    check_same({"transposed": got}, {"transposed": expected}, "scalar chain")


# ---- infinities and NaNs ----

FOOTPRINTS = [
    Case(1, 1, 2, 3, (5, 6), (3, 3), padding=(1, 1)),
    Case(1, 1, 2, 3, (5, 6), (3, 2), (2, 2), (1, 1)),
    Case(2, 2, 2, 4, (4, 5), (2, 3), (1, 1), ((0, 2), (3, 1)), (2, 2)),
    Case(1, 3, 3, 3, (5, 5), (3, 3), (2, 1), (1, 2)),
    Case(1, 1, 1, 2, (3, 2), (3, 3), (1, 1), (9, 9), (8, 9)),  # whole taps in the padding
    Case(3, 1, 2, 2, (1, 2), (4, 4), (1, 1), (2, 3)),  # more padding than image
]


def special_at(array: Array, position: int, value: float) -> Array:
    """Return a copy with one element replaced."""
    copy = array.copy()
    copy.flat[position] = value
    return copy


@parametrised
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf], ids=str)
@pytest.mark.parametrize("case", FOOTPRINTS, ids=str)
def test_footprint_of_infinity_and_nan(case: Case, value: float, dtype: str) -> None:
    """Each position of each tensor in turn: the chain's own infinities and NaNs, and no others.

    In forward the padding's zeros are multiplied, so an infinite weight over padding gives NaN. In
    the input gradient no tap lies outside the gradient, so there it gives nothing.
    """
    t = {key: np.abs(array) + array.dtype.type(1) for key, array in inputs(case, dtype).items()}
    for key in ("x", "w", "gy"):
        for position in range(t[key].size):
            u = {**t, key: special_at(t[key], position, value)}
            found = convolve(case, **u)
            expected = {
                "forward": chain(case, dtype, "forward", u["x"], u["w"], u["b"]),
                "gx": chain(case, dtype, "backward_input", u["gy"], u["w"], None),
            }
            if "transposed" in found:
                expected["transposed"] = expected["gx"]
                expected["transposed gx"] = chain(case, dtype, "forward", u["x"], u["w"], None)
            check_same({k: found[k] for k in expected}, expected, f"{value} in {key}[{position}]")


@parametrised
def test_infinite_weight_over_padding(dtype: str) -> None:
    """The rule by hand: NaN where the weight meets padding, infinity where it meets the image."""
    x = np.ones((1, 1, 1, 3), dtype)
    w = np.array([[[[np.inf, 1, 1]]]], dtype)
    y = F.conv2d(x, w, padding=(0, 1))
    assert np.isnan(y[0, 0, 0, 0])
    assert np.isposinf(y[0, 0, 0, 1:]).all()
    gx = F.conv2d_backward(x, x, w, padding=(0, 1))[0]
    assert np.isposinf(gx[0, 0, 0, :2]).all()
    assert gx[0, 0, 0, 2] == 2  # the infinite tap of this cell lies behind the gradient


@parametrised
def test_infinite_weight_over_wide_padding(dtype: str) -> None:
    """Taps that read only padding are left out where all weights are finite, and only there."""
    x, w = np.ones((1, 40, 1, 1), dtype), np.ones((40, 20, 3, 3), dtype)
    options = {"padding": 4, "dilation": 4, "groups": 2}
    assert (F.conv2d(x, w, **options) == 20).all()
    w[-1, -1, -1, -1] = np.inf
    y = F.conv2d(x, w, **options)[0, :, 0, 0]
    assert np.isnan(y[-1])
    assert (y[:-1] == 20).all()


@parametrised
@pytest.mark.parametrize("channels", [1, 20], ids="{} channels".format)
@pytest.mark.parametrize("width", [3, 90], ids="{} wide".format)
def test_infinite_weight_behind_the_gradient(channels: int, width: int, dtype: str) -> None:
    """Whether there are more weights or more pixels: only cells that a gradient reaches."""
    gy = np.ones((1, channels, 1, width), dtype)
    w = np.ones((channels, 1, 1, 3), dtype)
    w[-1, 0, 0, 0] = np.inf
    gx = F.conv2d_backward(gy, np.ones((1, 1, 1, width), dtype), w, padding=(0, 1))[0][0, 0, 0]
    assert np.isposinf(gx[:-1]).all()
    assert gx[-1] == 2 * channels
    # With stride 2 odd cells meet the taps 0 and 2, and the last of them only tap 2.
    x = np.ones((1, 1, 1, 2 * width), dtype)
    gx = F.conv2d_backward(gy, x, w, stride=2, padding=(0, 1))[0][0, 0, 0]
    assert np.isposinf(gx[1:-1:2]).all()
    assert (gx[::2] == channels).all() and gx[-1] == channels


@parametrised
@pytest.mark.parametrize("vertical", [False, True])
@pytest.mark.parametrize("before", [False, True])
def test_infinite_weight_behind_one_edge(before: bool, vertical: bool, dtype: str) -> None:
    """A window of two taps leaves the gradient at one end alone, and only one cell is spared."""
    gy, x = np.ones((1, 20, 1, 90), dtype), np.ones((1, 1, 1, 90), dtype)
    w, padding = np.ones((20, 1, 1, 2), dtype), ((0, 0), (0, 1) if before else (1, 0))
    w[-1, 0, 0, int(before)] = np.inf
    if vertical:
        gy, x, w = (array.swapaxes(2, 3) for array in (gy, x, w))
        padding = padding[::-1]
    gx = F.conv2d_backward(gy, x, w, padding=padding)[0].ravel()
    edge = 0 if before else -1
    assert gx[edge] == 20
    assert np.isposinf(np.delete(gx, edge)).all()


@parametrised
@pytest.mark.parametrize("name", ["resnet", "gaps", "overlapping"])
def test_pool_footprint_of_infinity_and_nan(name: str, dtype: str) -> None:
    """NaNs and infinities reach the windows that hold them, in both pools."""
    pool = POOLS[name]
    given = pool_inputs(pool, dtype)
    rng = np.random.default_rng(12)
    for key in given:
        chosen = rng.random(given[key].shape) < 0.02
        given[key][chosen] = rng.choice([np.nan, np.inf, -np.inf], int(chosen.sum()))
    _, k, s, p, ceil = pool
    x, gy = given["x"], given["gy"]
    found = pooled(pool, **given)
    values, indices = reference.max_pool2d(x, k, s, p, 1, ceil, True)
    check_same({"max": found["max"]}, {"max": values}, "reference")
    assert np.array_equal(found["indices"], indices)
    with np.errstate(invalid="ignore"):
        average = reference.avg_pool2d(x, k, s, p, ceil, False)
        gradient = reference.avg_pool2d_backward(gy, x.shape, k, s, p, ceil)
    for got, expected in ((found["avg"], average), (found["avg gx"], gradient)):
        assert np.array_equal(np.isnan(got), np.isnan(expected))
        assert np.array_equal(np.isinf(got), np.isinf(expected))
