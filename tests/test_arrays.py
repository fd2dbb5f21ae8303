"""Arrays at the edge of memory: nothing beside an argument is read, and no argument is written.

Every argument of every public function lies flush against a page that nobody may touch, once with
its first byte and once with its last, on pages that refuse writes. The results are compared with
those for ordinary arrays, and the data are integers, so the NumPy definition has to agree to the
bit as well. All of it runs in children: a fault fails a test.
"""

import itertools
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from guarded import Flush, Pages, guarded, in_child

import pyconv
import pyconv.functional as F
from pyconv import reference

Array = np.ndarray[Any, np.dtype[Any]]
Layout = Callable[[Array], Array]

FLUSH: list[Flush] = ["front", "back"]
DTYPES = ["float32", "float64"]


def integers(shape: tuple[int, ...], dtype: str, seed: int) -> Array:
    """Return small integers."""
    return np.random.default_rng(seed).integers(-4, 5, shape).astype(dtype)


def strided(step: int, axis: int) -> Layout:
    """Return a layout that takes every step-th element of an axis, backward if it is negative.

    Nothing of the larger array remains in front of the view's first element or behind its last, so
    the guard pages stand where a walk in whole rows would go.
    """

    def store(array: Array) -> Array:
        axis_here = axis % array.ndim
        shape = list(array.shape)
        shape[axis_here] = (shape[axis_here] - 1) * abs(step) + 1
        view = np.full(shape, np.nan, array.dtype)[
            tuple(slice(None, None, step if a == axis_here else 1) for a in range(array.ndim))
        ]
        view[...] = array
        return view

    return store


def transposed(array: Array) -> Array:
    """Return the same values with the axes stored in the opposite order."""
    return array.T.copy().T


def channels_last(array: Array) -> Array:
    """Return the same values with the channels stored last."""
    return np.moveaxis(np.moveaxis(array, -3, -1).copy(), -1, -3) if array.ndim > 2 else array


LAYOUTS: dict[str, Layout] = {
    "contiguous": np.ascontiguousarray,
    "channels last": channels_last,
    "axes reversed": transposed,
    "every third column": strided(3, -1),
    "columns backward": strided(-1, -1),
    "rows backward, with gaps": strided(-2, -2),
    "samples backward": strided(-1, 0),
}

# n, groups, ic, oc, image, kernel, stride, padding, dilation: odd everywhere, around whole vectors
CONVOLUTIONS: list[tuple[Any, ...]] = [
    (1, 1, 1, 1, (1, 1), (1, 1), 1, 0, 1),
    (1, 1, 1, 1, (3, 3), (3, 3), 1, 0, 1),
    (2, 1, 3, 5, (5, 7), (3, 3), 1, 1, 1),
    (3, 1, 2, 7, (4, 17), (1, 1), 1, 0, 1),
    (2, 1, 5, 9, (9, 33), (3, 3), 2, 1, 1),
    (1, 1, 3, 17, (7, 49), (3, 5), (1, 2), (1, 2), 1),
    (2, 2, 4, 6, (6, 15), (2, 3), 1, ((0, 1), (2, 0)), 1),
    (1, 7, 7, 7, (5, 31), (3, 3), 1, 1, 1),
    (2, 5, 5, 10, (11, 9), (5, 5), 2, 2, 1),
    (1, 1, 2, 3, (13, 19), (3, 3), 1, 2, (2, 3)),
    (1, 1, 2, 2, (3, 8), (3, 3), 1, 5, 4),
    (2, 1, 33, 13, (3, 3), (3, 3), 1, 1, 1),
    (1, 1, 1, 2, (2, 65), (1, 7), (1, 3), (0, 6), 1),
    # one output pixel a sample
    (2, 1, 37, 19, (1, 1), (1, 1), 1, 0, 1),
    (3, 2, 6, 22, (2, 3), (2, 3), 1, 0, 1),
    (18, 1, 3, 9, (5, 6), (2, 3), 4, 0, (3, 2)),
    (1, 1, 5, 20, (3, 4), (3, 1), 7, 0, 1),
]
# planes, image, kernel, stride, padding, dilation (max only), ceil mode
POOLS: list[tuple[Any, ...]] = [
    ((1, 1), (1, 1), 1, 1, 0, 1, False),
    ((2, 3), (5, 7), 2, 2, 0, 1, True),
    ((1, 5), (9, 33), 3, 2, 1, 1, False),
    ((3, 1), (4, 17), (1, 2), (1, 1), (0, 1), 1, False),
    ((2, 2), (7, 49), 3, 1, 1, 2, True),
    ((1, 3), (6, 65), (2, 5), (3, 4), (1, 2), 1, True),
    ((1, 2), (2, 3), 2, 1, 1, 3, False),
]


def guard_all(tensors: dict[str, Array], flush: Flush, layout: Layout) -> dict[str, Array]:
    """Return all arrays in a layout, between guard pages, on pages that refuse writes."""
    return {key: guarded(layout(each), flush, readonly=True) for key, each in tensors.items()}


def agree(got: Any, *expected: Any) -> None:
    """Demand equal values, of tuples as well."""
    for other in expected:
        if isinstance(other, tuple):
            for one, two in zip(got, other, strict=True):
                agree(one, two)
        elif other is not None:
            assert got.dtype == other.dtype
            assert np.array_equal(got, other, equal_nan=True)


def convolutions(case: tuple[Any, ...], dtype: str, flush: Flush, layout: Layout) -> None:
    """Run one convolution, and the transposed one with the tensors exchanged, on guarded arrays."""
    n, groups, ic, oc, size, kernel, stride, padding, dilation = case
    options = {"stride": stride, "padding": padding, "dilation": dilation, "groups": groups}
    t = {
        "x": integers((n, ic, *size), dtype, 1),
        "w": integers((oc, ic // groups, *kernel), dtype, 2),
        "b": integers((oc,), dtype, 3),
    }
    y = reference.conv2d(t["x"], t["w"], t["b"], **options)
    t["gy"] = integers(y.shape, dtype, 4)
    g = guard_all(t, flush, layout)
    agree(F.conv2d(g["x"], g["w"], g["b"], **options), y)
    agree(
        F.conv2d_backward(g["gy"], g["x"], g["w"], **options),
        reference.conv2d_backward(t["gy"], t["x"], t["w"], **options),
    )
    if isinstance(padding, tuple) and isinstance(padding[0], tuple):
        return
    y = reference.conv_transpose2d(t["gy"], t["w"], None, **options)
    agree(F.conv_transpose2d(g["gy"], g["w"], None, **options), y)
    gy = integers(y.shape, dtype, 5)
    agree(
        F.conv_transpose2d_backward(
            guarded(layout(gy), flush, readonly=True), g["gy"], g["w"], **options
        ),
        reference.conv_transpose2d_backward(gy, t["gy"], t["w"], **options),
    )


def pools(case: tuple[Any, ...], dtype: str, flush: Flush, layout: Layout) -> None:
    """Run both pools on guarded arrays."""
    planes, size, kernel, stride, padding, dilation, ceil_mode = case
    x = integers((*planes, *size), dtype, 1)
    values, indices = reference.max_pool2d(
        x, kernel, stride, padding, dilation, ceil_mode, return_indices=True
    )
    g = guard_all({"x": x, "indices": indices}, flush, layout)
    agree(F.max_pool2d(g["x"], kernel, stride, padding, dilation, ceil_mode), values)
    agree(
        F.max_pool2d(g["x"], kernel, stride, padding, dilation, ceil_mode, True), (values, indices)
    )
    gy = integers(values.shape, dtype, 2)
    agree(
        F.max_pool2d_backward(
            guarded(layout(gy), flush, readonly=True), g["indices"], (*planes, *size)
        ),
        reference.max_pool2d_backward(gy, indices, x.shape),
    )
    if dilation == 1:
        y = reference.avg_pool2d(x, kernel, stride, padding, ceil_mode)
        agree(F.avg_pool2d(g["x"], kernel, stride, padding, ceil_mode), y)
        gy = integers(y.shape, dtype, 3) * 3600
        agree(
            F.avg_pool2d_backward(
                guarded(layout(gy), flush, readonly=True),
                x.shape,
                kernel,
                stride,
                padding,
                ceil_mode,
            ),
            reference.avg_pool2d_backward(gy, x.shape, kernel, stride, padding, ceil_mode),
        )


@pytest.mark.parametrize("layout", LAYOUTS)
@in_child
def test_convolutions_between_guard_pages(layout: str) -> None:
    """Both convolutions, forward and backward, in every odd shape, at both ends of a page."""
    for case, dtype, flush in itertools.product(CONVOLUTIONS, DTYPES, FLUSH):
        for threads in (1, 3):
            with pyconv.num_threads(threads):
                convolutions(case, dtype, flush, LAYOUTS[layout])


@pytest.mark.parametrize("layout", LAYOUTS)
@in_child
def test_pools_between_guard_pages(layout: str) -> None:
    """Both pools, forward and backward."""
    for case, dtype, flush in itertools.product(POOLS, DTYPES, FLUSH):
        for threads in (1, 3):
            with pyconv.num_threads(threads):
                pools(case, dtype, flush, LAYOUTS[layout])


@in_child
def test_every_width_between_guard_pages() -> None:
    """Widths from 1 to more than two whole tiles of the widest vectors: every tail there is."""
    for width, flush in itertools.product(range(1, 100), FLUSH):
        convolutions((1, 1, 1, 2, (2, width), (1, 1), 1, 0, 1), "float32", flush, np.array)
        convolutions((1, 2, 2, 2, (1, width), (1, 3), 1, (0, 1), 1), "float32", flush, np.array)
        convolutions((1, 1, width, 3, (1, 2), (1, 1), 1, 0, 1), "float32", flush, np.array)
        convolutions((1, 1, 3, width, (2, 1), (1, 1), 1, 0, 1), "float64", flush, np.array)
        convolutions((2, 1, width, 3, (1, 1), (1, 1), 1, 0, 1), "float32", flush, np.array)
        pools(((1, 1), (2, width), (2, 1), 1, 0, 1, False), "float32", flush, np.array)


@in_child
def test_layers_between_guard_pages() -> None:
    """The layers read no more than the functions do, and write to their own arrays alone."""
    for flush, dtype in itertools.product(FLUSH, DTYPES):
        x = guarded(integers((2, 3, 9, 17), dtype, 1), flush, readonly=True)
        layers: list[Any] = [
            pyconv.Conv2d(3, 5, 3, padding=1, dtype=dtype),
            pyconv.Conv2d(3, 4, (2, 3), 2, 3, padding_mode="reflect", dtype=dtype),
            pyconv.Conv2d(3, 3, 3, padding="same", groups=3, padding_mode="circular", dtype=dtype),
            pyconv.ConvTranspose2d(3, 5, 3, stride=2, padding=1, output_padding=1, dtype=dtype),
            pyconv.MaxPool2d(3, 2, 1),
            pyconv.AvgPool2d(3, 2, 1, ceil_mode=True),
        ]
        for layer in layers:
            y = layer(x)
            gy = guarded(integers(y.shape, dtype, 2), flush, readonly=True)
            gx = layer.backward(gy)
            y2, pullback = layer.vjp(x)
            assert np.array_equal(y2, y)
            assert np.array_equal(pullback(gy), gx)


@in_child
def test_setting_parameters_from_guarded_arrays() -> None:
    """Weights, biases, gradients and states are copied in from the bytes of the array alone."""
    for flush in FLUSH:
        layer = pyconv.Conv2d(3, 5, 3)
        w, b = integers((5, 3, 3, 3), "float32", 1), integers((5,), "float32", 2)
        layer.weight = guarded(w, flush, readonly=True)
        layer.bias = guarded(b, flush, readonly=True)
        layer.weight_grad = guarded(strided(-2, 1)(w), flush, readonly=True)
        assert np.array_equal(layer.weight, w)
        assert np.array_equal(layer.bias, b)
        assert np.array_equal(layer.weight_grad, w)
        layer.load_state_dict({"weight": guarded(-w, flush), "bias": guarded(-b, flush)})
        assert np.array_equal(layer.weight, -w)
        assert np.array_equal(layer.bias, -b)


@in_child
def test_step_zero_between_guard_pages() -> None:
    """Broadcast arrays: one element, one row, one channel in all of memory."""
    for flush in FLUSH:
        for axes in ((0,), (1,), (2,), (3,), (0, 1), (2, 3), (0, 1, 2, 3)):
            shape = [1 if axis in axes else n for axis, n in enumerate((2, 3, 9, 17))]
            one = integers(tuple(shape), "float32", 1)
            x = np.broadcast_to(guarded(one, flush, readonly=True), (2, 3, 9, 17))
            w = np.broadcast_to(
                guarded(integers((1,), "float32", 2), flush, readonly=True), (4, 3, 3, 3)
            )
            agree(F.conv2d(x, w, padding=1), reference.conv2d(x, w, padding=1))
            gy = np.broadcast_to(
                guarded(integers((1,), "float32", 3), flush, readonly=True), (2, 4, 9, 17)
            )
            agree(
                F.conv2d_backward(gy, x, w, padding=1),
                reference.conv2d_backward(gy, x, w, padding=1),
            )
            agree(F.max_pool2d(x, 2), reference.max_pool2d(x, 2))
            agree(F.avg_pool2d(x, 2), reference.avg_pool2d(x, 2))


def odd_steps(dtype: str) -> Iterator[tuple[str, Array]]:
    """Yield arrays whose elements lie at no multiple of their size, or at no distance at all."""
    rng = np.random.default_rng(4)
    values = rng.integers(-4, 5, (2, 3, 6, 9)).astype(dtype)
    records = np.zeros(values.shape, np.dtype([("tag", "u1"), ("value", dtype), ("end", "u2")]))
    records["value"] = values
    yield "packed", records["value"]
    yield "packed backward", records["value"][..., ::-1, ::-1]
    raw = np.zeros(values.nbytes + 3, np.uint8)
    misaligned = raw[3:].view(dtype).reshape(values.shape)
    misaligned[...] = values
    yield "misaligned", misaligned
    line = rng.integers(-4, 5, 60).astype(dtype)
    item = line.itemsize
    yield (
        "overlapping",
        np.lib.stride_tricks.as_strided(line, values.shape, (5 * item, 2 * item, 3 * item, item)),
    )
    yield (
        "overlapping backward",
        np.lib.stride_tricks.as_strided(
            line[-1:], values.shape, (-5 * item, -2 * item, -3 * item, -item)
        ),
    )
    yield "swapped", values.astype(values.dtype.newbyteorder())


@in_child
def test_odd_steps_between_guard_pages() -> None:
    """Packed, misaligned, overlapping and byte-swapped arrays give the values that NumPy sees."""
    for dtype, flush in itertools.product(DTYPES, FLUSH):
        for name, array in odd_steps(dtype):
            x = guarded(array, flush, readonly=True)
            assert x.strides == array.strides, name
            plain = np.array(x, dtype)
            w, b = integers((4, 3, 3, 3), dtype, 1), integers((4,), dtype, 2)
            agree(F.conv2d(x, w, b, padding=1), reference.conv2d(plain, w, b, padding=1))
            gy = integers((2, 4, 6, 9), dtype, 3)
            agree(
                F.conv2d_backward(gy, x, w, padding=1),
                reference.conv2d_backward(gy, plain, w, padding=1),
            )
            wt = integers((3, 4, 3, 3), dtype, 1)
            agree(F.conv_transpose2d(x, wt, b, 2), reference.conv_transpose2d(plain, wt, b, 2))
            agree(F.max_pool2d(x, 3, 2, 1), reference.max_pool2d(plain, 3, 2, 1))
            agree(F.avg_pool2d(x, 2), reference.avg_pool2d(plain, 2))
            agree(
                F.avg_pool2d_backward(x, (2, 3, 12, 18), 2),
                reference.avg_pool2d_backward(plain, (2, 3, 12, 18), 2),
            )


@in_child
def test_the_guard_pages_work() -> None:
    """The harness itself: the bytes on both sides of a guarded array cannot be touched."""
    import ctypes
    import os

    pages = Pages(100)
    front, back = pages.cut(100, "front"), pages.cut(100, "back")
    x = guarded(np.arange(6.0), "back", readonly=True)
    for address, write in (
        (front.ctypes.data - 1, False),
        (back.ctypes.data + 100, False),
        (x.ctypes.data, True),
    ):
        child = os.fork()
        if child == 0:
            devnull = os.open(os.devnull, os.O_WRONLY)
            os.dup2(devnull, 2)  # the fault is wanted, its report is not
            if write:
                ctypes.memset(address, 0, 1)
            else:
                ctypes.string_at(address, 1)
            os._exit(0)
        _, status = os.waitpid(child, 0)
        assert os.waitstatus_to_exitcode(status) < 0


NOT_CHANGED = {
    "conv2d": lambda x: F.conv2d(x, np.ones((2, 3, 3, 3)), padding=1),
    "conv_transpose2d": lambda x: F.conv_transpose2d(x, np.ones((3, 2, 3, 3)), stride=2),
    "max_pool2d": lambda x: F.max_pool2d(x, 2, return_indices=True),
    "avg_pool2d": lambda x: F.avg_pool2d(x, 3, 2, 1),
    "conv2d_backward": lambda x: F.conv2d_backward(
        np.ones((2, 2, 7, 9)), x, np.ones((2, 3, 3, 3)), padding=1
    ),
    "avg_pool2d_backward": lambda x: F.avg_pool2d_backward(x, (2, 3, 14, 18), 2),
}


@pytest.mark.parametrize("name", NOT_CHANGED)
@pytest.mark.parametrize("dtype", ["float32", "float64", "uint8", "int64", "float16", ">f4"])
def test_results_share_no_memory_with_arguments(name: str, dtype: str) -> None:
    """An argument is not changed by the call, nor by writing into its result."""
    x = np.random.default_rng(5).integers(0, 9, (2, 3, 7, 9)).astype(dtype)
    before = x.copy()
    results = NOT_CHANGED[name](x)
    for result in results if isinstance(results, tuple) else [results]:
        assert result.flags.c_contiguous
        assert result.flags.writeable
        assert result.flags.owndata
        assert not np.shares_memory(result, x)
        result[...] = 77
    assert np.array_equal(x, before)
