"""Weight gradients are the chunks' chains of fused multiply-adds, whatever cuts and packs them.

The pixels are cut by the shape alone: a row longer than 1024 into even parts; else whole rows, as
many as make 1024 pixels but at least four; else, where a sample is one chunk, whole samples up to
1024 pixels. Each chunk is one chain from zero in the order (sample, row, column), and the chunks
are added in that order. This is written here a second time, from the rule, not from the code.
"""

import ctypes

import numpy as np
import pytest
from kernels.library import load_oracle
from runs import Array, Case, check_same, fresh, inputs, parametrised

import pyconv
import pyconv.functional as F
from pyconv import _core

CASES = {
    "wide": Case(1, 1, 3, 5, (2, 2100), (2, 3), padding=(1, 1)),
    "rows of four": Case(1, 1, 2, 9, (11, 400), (3, 3), padding=(1, 1)),
    "rows": Case(2, 1, 5, 20, (45, 47), (3, 3), padding=(1, 1)),
    "samples": Case(40, 1, 7, 18, (7, 7), (3, 3), padding=(1, 1)),
    "one pixel": Case(30, 1, 11, 17, (4, 4), (4, 4)),
    "one pixel, padded": Case(2, 1, 24, 11, (2, 3), (2, 3), (3, 4), padding=(1, 1)),
    "one pixel, one side": Case(2, 1, 24, 11, (2, 3), (2, 3), (3, 4), ((0, 1), (0, 2))),
    "one pixel, one line": Case(3, 1, 40, 30, (1, 1), (1, 1)),
    "pointwise": Case(3, 1, 33, 19, (9, 11), (1, 1)),
    "pointwise, many rows": Case(1, 1, 17, 33, (50, 60), (1, 1)),
    "strided": Case(2, 1, 8, 12, (61, 75), (3, 3), (2, 2), (1, 1)),
    "strided pointwise": Case(2, 1, 12, 10, (35, 60), (1, 1), (2, 2)),
    "first layer": Case(1, 1, 3, 33, (80, 79), (7, 7), (2, 2), (3, 3)),
    "dilated": Case(2, 1, 6, 9, (25, 33), (3, 3), (1, 1), (2, 2), (2, 2)),
    "far": Case(2, 1, 4, 7, (9, 14), (3, 4), (1, 1), (7, 11), (6, 5)),
    "sides": Case(2, 1, 5, 7, (12, 31), (4, 2), (3, 1), ((2, 0), (0, 3)), (1, 2)),
    "two groups": Case(2, 2, 36, 38, (13, 29), (3, 3), padding=(1, 1)),
    "many channels": Case(1, 1, 300, 35, (13, 13), (3, 3), padding=(1, 1)),
    # a slab of scratch holds neither all channels nor all kernel rows
    "window": Case(1, 1, 2, 5, (300, 300), (240, 3)),
}


def even(count: int, most: int) -> int:
    """Return the size of the parts when `count` is cut evenly into parts of at most `most`."""
    parts = -(-count // max(1, most))
    return -(-count // parts)


def chunk(case: Case) -> tuple[int, int, int]:
    """Return samples, rows and columns of a chunk."""
    height, width = case.out
    columns = even(width, 1024)
    rows = 1 if columns < width else even(height, max(4, 1024 // width))
    samples = 1 if rows < height else even(case.n, 1024 // (height * width))
    return samples, rows, columns


def chain(case: Case, dtype: str, x: Array, gy: Array) -> Array:
    """Return the oracle's weight gradient."""
    (top, _), (left, _) = case.sides
    sizes = (ctypes.c_int64 * 16)(
        *(case.n, case.groups, case.ic, case.oc, *case.size, *case.out),
        *(*case.kernel, *case.stride, *case.dilation, top, left),
    )
    found = np.full((case.oc, case.ic // case.groups, *case.kernel), np.nan, dtype)
    word = "f32" if dtype == "float32" else "f64"
    function = getattr(load_oracle(), f"oracle_{word}_conv_backward_weight")
    tensors = (found, np.ascontiguousarray(gy), np.ascontiguousarray(x))
    fused = _core.build_info()["isa"] != "baseline"
    function(
        ctypes.byref(sizes),
        *(ctypes.c_void_p(each.ctypes.data) for each in tensors),
        (ctypes.c_int64 * 3)(*chunk(case)),
        int(fused),
    )
    return found


def gradient(case: Case, x: Array, gy: Array) -> Array:
    """Return the weight gradient of pyconv."""
    w = np.zeros((case.oc, case.ic // case.groups, *case.kernel), x.dtype)
    mask = (False, True, False)
    found = F.conv2d_backward(gy, x, w, output_mask=mask, **case.options)[1]
    assert found is not None
    return found


@parametrised
@pytest.mark.parametrize("name", CASES)
def test_weight_gradient_is_the_chunks_chains(name: str, dtype: str) -> None:
    """To the bit, for one thread and for several, and from channels-last memory."""
    case = CASES[name]
    t = inputs(case, dtype)
    x, gy = t["x"], t["gy"]
    expected = {"gw": chain(case, dtype, x, gy)}
    for threads in (1, 2, 3):
        with pyconv.num_threads(threads):
            check_same({"gw": gradient(case, x, gy)}, expected, f"{threads} threads")
    last = [np.ascontiguousarray(a.transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2) for a in (x, gy)]
    check_same({"gw": gradient(case, *last)}, expected, "channels last")
    apart = [np.repeat(np.repeat(a, 2, 2), 2, 3)[:, :, ::2, ::2] for a in (x, gy)]
    check_same({"gw": gradient(case, *apart)}, expected, "steps of two")


@parametrised
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf], ids=str)
def test_footprint_of_infinity_and_nan(value: float, dtype: str) -> None:
    """Padding is multiplied: what is not finite in the gradient over padding gives NaN."""
    for case in (
        Case(1, 1, 2, 3, (5, 6), (3, 2), (2, 2), (1, 1)),
        Case(3, 1, 3, 3, (1, 2), (4, 4), (1, 1), (2, 3)),
        Case(2, 1, 3, 2, (3, 4), (1, 1)),
    ):
        x, gy = (np.abs(inputs(case, dtype)[key]) + 1 for key in ("x", "gy"))
        for array in (x, gy):
            for position in range(array.size):
                kept = array.flat[position]
                array.flat[position] = value
                expected = chain(case, dtype, x, gy)
                check_same({"gw": gradient(case, x, gy)}, {"gw": expected}, f"{case} {position}")
                array.flat[position] = kept


@parametrised
@pytest.mark.parametrize("value", [None, np.nan, np.inf], ids=str)
@pytest.mark.parametrize(
    "case",
    [
        Case(3, 1, 2, 2, (1, 2), (4, 4), (1, 1), (2, 3)),
        Case(2, 4, 4, 4, (9, 37), (3, 3), (2, 2), (1, 1)),
        Case(1, 2, 12, 10, (7, 7), (3, 3), padding=(1, 1)),
        Case(2, 3, 3, 3, (14, 19), (3, 3), padding=(1, 1)),
        Case(1, 3, 3, 3, (9, 20), (5, 5), padding=(2, 2)),
        Case(1, 2, 2, 2, (11, 37), (5, 5), (2, 2), (2, 2)),
        Case(1, 2, 2, 2, (8, 18), (7, 7), padding=(3, 3)),
        Case(2, 2, 2, 4, (6, 9), (3, 3), (1, 1), (2, 2), (2, 2)),
        Case(1, 2, 2, 2, (9, 40), (4, 4), (3, 3), (1, 1)),
    ],
    ids=["one group", "strided", "grouped", "3x3", "5x5", "5x5/2", "7x7", "dilated", "phases"],
)
def test_few_channels_are_right(case: Case, value: float | None, dtype: str) -> None:
    """Their sums have an order of their own, which whole numbers do not show; padding counts."""
    rng = np.random.default_rng(7)
    shapes = ((case.n, case.ic, *case.size), (case.n, case.oc, *case.out))
    x, gy = (rng.integers(-8, 9, shape).astype(dtype) for shape in shapes)
    arrays = (x, gy) if value is not None else (x,)
    for array in arrays:
        for position in range(0, array.size, 1 + array.size // 30):
            kept = array.flat[position]
            array.flat[position] = kept if value is None else value
            expected = chain(case, dtype, x, gy)
            check_same({"gw": gradient(case, x, gy)}, {"gw": expected}, f"{position}")
            array.flat[position] = kept


def test_empty_batch_gives_zeros() -> None:
    """A sum of nothing."""
    case = Case(0, 1, 3, 4, (5, 5), (3, 3))
    assert not gradient(
        case, fresh((0, 3, 5, 5), "float32", 1), fresh((0, 4, 3, 3), "float32", 2)
    ).any()


@parametrised
@pytest.mark.parametrize(
    "shape", [(1, 3, 5, 7), (90, 18, 7, 7), (3, 17, 40, 60), (2, 1, 1, 1)], ids=str
)
def test_bias_gradient_is_sixteen_sums(shape: tuple[int, ...], dtype: str) -> None:
    """Pixels of a sample dealt to sixteen sums, folded by halves after 4096 pixels or a sample."""
    n, channels, height, width = shape
    gy = fresh(shape, dtype, 9)
    flat = gy.reshape(n, channels, -1)
    expected, strips = np.zeros(channels, dtype), np.zeros((16, channels), dtype)
    together = max(1, 4096 // (height * width))
    for sample in range(n):
        for pixel in range(height * width):
            strips[pixel % 16] += flat[sample, :, pixel]
        if (sample + 1) % together == 0 or sample + 1 == n:
            half = strips
            while len(half) > 1:
                half = half[: len(half) // 2] + half[len(half) // 2 :]
            expected += half[0]
            strips[:] = 0
    x, w = np.zeros((n, 1, height, width), dtype), np.zeros((channels, 1, 1, 1), dtype)
    last = np.ascontiguousarray(gy.transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2)
    apart = np.repeat(gy, 2, 3)[..., ::2]
    for each, threads in ((gy, 1), (gy, 2), (last, 1), (apart, 2)):
        with pyconv.num_threads(threads):
            found = F.conv2d_backward(each, x, w, output_mask=(False, False, True))[2]
        assert found is not None
        check_same({"gb": found}, {"gb": expected}, f"{threads} threads")
