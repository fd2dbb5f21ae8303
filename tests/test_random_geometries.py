"""Random geometries of all operators and passes, against the NumPy definition, with tolerance 0.

The data are small integers, so float32 holds every sum exactly, in any order, and a lost or
doubled tap shows as a whole number. Sizes are drawn around the edges of the kernels' tiles, where
the mistakes live: one less, as many, one more, and one more than twice as many as a vector, a
tile's columns or its rows hold.

Hypothesis draws the same geometries in every run. How many different ones there were, and that
their expected results are not mostly zeros, is part of each test. They run in children, so that a
crash fails one of them.
"""

import math
from typing import Any, NamedTuple

import numpy as np
import pytest
from guarded import in_child
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import pyconv
import pyconv.functional as F
from pyconv import reference

Array = np.ndarray[Any, np.dtype[Any]]
Pair = tuple[int, int]

AT_LEAST = {"conv2d": 1000, "layer": 400, "conv_transpose2d": 700, "max": 450, "avg": 450}
MORE = 1.5  # some draws repeat a geometry
NONZERO_SHARE = 0.3

LANES = (2, 4, 8, 16)
TILE_COLUMNS = (16, 24, 32, 48)
TILE_ROWS = (6, 8)


def around(sizes: tuple[int, ...]) -> list[int]:
    """Return t-1, t, t+1 and 2t+1 for each size, without zero."""
    return sorted({edge for t in sizes for edge in (t - 1, t, t + 1, 2 * t + 1)} - {0})


COLUMN_EDGES = around(LANES + TILE_COLUMNS)
ROW_EDGES = around(TILE_ROWS)


class Tally:
    """What a test has seen: different geometries, and how much of each expected result is not 0."""

    def __init__(self) -> None:
        self.seen: set[Any] = set()
        self.shares: list[float] = []

    def compare(self, got: Any, expected: Array) -> None:
        """Demand the same dtype, shape and values, NaNs in the same places."""
        assert type(got) is np.ndarray
        assert got.dtype == expected.dtype
        assert got.shape == expected.shape
        assert np.array_equal(got, expected, equal_nan=True), f"{got}\nis not\n{expected}"
        if expected.size:
            self.shares.append(np.count_nonzero(expected) / expected.size)

    def finish(self, at_least: int) -> None:
        """Demand that enough was seen for the result to mean something."""
        assert len(self.seen) >= at_least
        assert np.mean(self.shares) >= NONZERO_SHARE


def examples(name: str) -> settings:
    """Return Hypothesis' settings for one of the tests."""
    return settings(
        max_examples=int(AT_LEAST[name] * MORE),
        derandomize=True,
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
    )


def integers(rng: np.random.Generator, shape: Any, dtype: str, most: int = 4) -> Array:
    """Return integers from -most to most, few of them 0."""
    values = rng.integers(1, most + 1, shape) * rng.choice([-1, 1, 1], shape)
    values[rng.random(values.shape) < 0.05] = 0
    return values.astype(dtype)


# ---- what is drawn ----

few = st.integers(1, 3)
small = st.integers(1, 7)
column_edge = st.sampled_from(COLUMN_EDGES)
row_edge = st.sampled_from(ROW_EDGES)
dtypes = st.sampled_from(["float32", "float32", "float64"])
threads = st.sampled_from([1, 2, 3])
seeds = st.integers(0, 2**32 - 1)
batches = st.sampled_from([None, 1, 1, 2, 2, 3, 3, 5, 5, 0])
strides = st.sampled_from([1, 1, 1, 2, 2, 3, 4, 7])
dilations = st.sampled_from([1, 1, 1, 1, 2, 3, 5, 13])
kernels = st.sampled_from([1, 2, 3, 3, 3, 4, 5])


class Conv(NamedTuple):
    """A convolution; `size` is the size of the input image."""

    n: int | None
    groups: int
    ic: int
    oc: int
    size: Pair
    kernel: Pair
    stride: Pair
    dilation: Pair
    padding: Any
    output_padding: Pair
    bias: bool
    dtype: str

    def sides(self) -> tuple[Pair, Pair]:
        """Return the padding as ((top, bottom), (left, right))."""
        if self.padding == "same":
            rows, columns = (d * (k - 1) for k, d in zip(self.kernel, self.dilation, strict=True))
            return (rows // 2, rows - rows // 2), (columns // 2, columns - columns // 2)
        first, second = self.padding
        return (first, second) if isinstance(first, tuple) else ((first, first), (second, second))

    def image(self, channels: int, size: Pair) -> tuple[int, ...]:
        """Return the shape of a batch, or of one image without."""
        return (channels, *size) if self.n is None else (self.n, channels, *size)


KINDS = ["row", "channels", "both", "map", "grouped", "depthwise", "deep"]


@st.composite
def channels_and_size(draw: st.DrawFn) -> tuple[int, int, int, Pair]:
    """Draw groups, input and output channels of a group, and the size that the tiles run over.

    Each kind stretches what one family of kernels vectorises, and keeps the rest small.
    """
    kind = draw(st.sampled_from(KINDS))
    if kind == "row":
        return 1, draw(few), draw(few), (draw(few), draw(column_edge))
    if kind == "channels":
        return 1, draw(row_edge), draw(column_edge), (draw(few), draw(few))
    if kind == "both":
        return 1, draw(few), draw(row_edge), (draw(few), draw(column_edge))
    if kind == "map":
        return 1, draw(st.integers(1, 9)), draw(row_edge), (draw(small), draw(small))
    if kind == "deep":  # more than one block of channels
        return 1, draw(st.sampled_from([65, 130])), draw(few), (draw(few), draw(column_edge))
    if kind == "grouped":
        return draw(st.integers(2, 4)), draw(small), draw(row_edge), (draw(small), draw(small))
    return draw(row_edge), 1, draw(st.integers(1, 2)), (draw(few), draw(column_edge))


def window(draw: st.DrawFn) -> tuple[Pair, Pair, Pair]:
    """Draw kernel, stride and dilation."""
    return (
        (draw(kernels), draw(kernels)),
        (draw(strides), draw(strides)),
        (draw(dilations), draw(dilations)),
    )


@st.composite
def convolutions(draw: st.DrawFn) -> Conv:
    """Draw a convolution by the size of its output; padding up to whole taps outside the image."""
    groups, icg, ocg, out = draw(channels_and_size())
    kernel, stride, dilation = window(draw)
    sides, size = [], []
    per_side = draw(st.booleans())
    for o, k, s, d in zip(out, kernel, stride, dilation, strict=True):
        reach = d * (k - 1)
        most = st.sampled_from([0, 0, reach // 2, (reach + 1) // 2, reach, reach + 2])
        before = draw(most)
        after = draw(most) if per_side else before
        rest = draw(st.integers(0, s - 1))  # columns that no window reaches
        size.append(max((o - 1) * s + reach + 1 + rest - before - after, 1))
        if size[-1] + before + after < reach + 1:
            size[-1] = reach + 1 - before - after
        sides.append((before, after))
    padding: Any = tuple(sides) if per_side else (sides[0][0], sides[1][0])
    if stride == (1, 1) and draw(st.booleans()):
        padding = draw(st.sampled_from(["same", padding]))
        if padding == "same":
            size = list(out)
    return Conv(
        draw(batches),
        groups,
        groups * icg,
        groups * ocg,
        (size[0], size[1]),
        kernel,
        stride,
        dilation,
        padding,
        (0, 0),
        draw(st.booleans()),
        draw(dtypes),
    )


@st.composite
def transposed_convolutions(draw: st.DrawFn) -> Conv:
    """Draw a transposed convolution by the size of its input; padding may leave one cell of it."""
    groups, icg, ocg, size = draw(channels_and_size())
    kernel, stride, dilation = window(draw)
    padding, more = [], []
    for n, k, s, d in zip(size, kernel, stride, dilation, strict=True):
        more.append(draw(st.integers(0, max(s, d) - 1)))
        full = (n - 1) * s + d * (k - 1) + 1 + more[-1]
        likely = [0, 0, d * (k - 1) // 2, d * (k - 1), d * (k - 1) + 2, (full - 1) // 2]
        padding.append(min(draw(st.sampled_from(likely)), (full - 1) // 2))
    return Conv(
        draw(batches),
        groups,
        groups * icg,
        groups * ocg,
        size,
        kernel,
        stride,
        dilation,
        (padding[0], padding[1]),
        (more[0], more[1]),
        draw(st.booleans()),
        draw(dtypes),
    )


class Pool(NamedTuple):
    """A pool; `planes` are the leading axes."""

    planes: tuple[int, ...]
    size: Pair
    kernel: Pair
    stride: Pair | None
    padding: Pair
    dilation: Pair
    ceil_mode: bool
    dtype: str


@st.composite
def pools(draw: st.DrawFn, dilated: bool) -> Pool:
    """Draw a pool with at least one output."""
    kernel = (draw(kernels), draw(kernels))
    stride = draw(st.sampled_from([None, (draw(strides), draw(strides))]))
    dilation = (draw(dilations), draw(dilations)) if dilated else (1, 1)
    out = draw(st.sampled_from([(draw(few), draw(column_edge)), (draw(small), draw(small))]))
    padding, size = [], []
    for o, k, s, d in zip(out, kernel, stride or kernel, dilation, strict=True):
        padding.append(draw(st.integers(0, k // 2)))
        rest = draw(st.integers(0, s - 1))
        size.append(max((o - 1) * s + d * (k - 1) + 1 + rest - 2 * padding[-1], 1))
    n, c = draw(batches), draw(st.sampled_from([1, 2, 3, 5]))
    return Pool(
        (c,) if n is None else (n, c),
        (size[0], size[1]),
        kernel,
        stride,
        (padding[0], padding[1]),
        dilation,
        draw(st.booleans()),
        draw(dtypes),
    )


# ---- the tests ----


def test_enough_geometries_in_all() -> None:
    """The tests of this file together."""
    assert sum(AT_LEAST.values()) >= 2000


def inner(a: Array, b: Array) -> float:
    """Return <a, b>, exactly."""
    return float(np.sum(a.astype(np.float64) * b.astype(np.float64)))


@in_child
def test_conv2d() -> None:
    """Forward, all gradients, and <conv(x, w), g> = <x, convT(g, w)> = <w, gradient of w>."""
    tally = Tally()

    @examples("conv2d")
    @given(convolutions(), threads, seeds)
    def check(c: Conv, count: int, seed: int) -> None:
        tally.seen.add(c)
        rng = np.random.default_rng(seed)
        x = integers(rng, c.image(c.ic, c.size), c.dtype)
        w = integers(rng, (c.oc, c.ic // c.groups, *c.kernel), c.dtype)
        bias = integers(rng, c.oc, c.dtype) if c.bias else None
        options: dict[str, Any] = {
            "stride": c.stride,
            "padding": c.padding,
            "dilation": c.dilation,
            "groups": c.groups,
        }
        with pyconv.num_threads(count):
            expected = reference.conv2d(x, w, bias, **options)
            tally.compare(F.conv2d(x, w, bias, **options), expected)
            gy = integers(rng, expected.shape, c.dtype)
            got = F.conv2d_backward(gy, x, w, **options)
            for gradient, by_hand in zip(
                got, reference.conv2d_backward(gy, x, w, **options), strict=True
            ):
                tally.compare(gradient, by_hand)
            if not c.bias:
                assert inner(expected, gy) == inner(x, got[0]) == inner(w, got[1])

    check()
    tally.finish(AT_LEAST["conv2d"])


@in_child
def test_conv2d_layer_with_padding_modes() -> None:
    """The layer's padding is np.pad and then no padding; its gradient folds the border back."""
    tally = Tally()
    modes = st.sampled_from(["zeros", "reflect", "replicate", "circular"])

    @examples("layer")
    @given(convolutions(), modes, threads, seeds)
    def check(c: Conv, mode: str, count: int, seed: int) -> None:
        rng = np.random.default_rng(seed)
        sides = c.sides()
        largest = [max(side) for side in sides]
        if mode == "reflect" and any(p >= n for p, n in zip(largest, c.size, strict=True)):
            mode = "replicate"
        if mode == "circular" and any(p > n for p, n in zip(largest, c.size, strict=True)):
            mode = "replicate"
        tally.seen.add((c, mode))
        layer = pyconv.Conv2d(
            c.ic,
            c.oc,
            c.kernel,
            stride=c.stride,
            padding=c.padding,
            dilation=c.dilation,
            groups=c.groups,
            bias=c.bias,
            padding_mode=mode,
            dtype=c.dtype,
        )
        layer.weight = integers(rng, layer.weight.shape, c.dtype)
        if c.bias:
            layer.bias = integers(rng, c.oc, c.dtype)
        x = integers(rng, c.image(c.ic, c.size), c.dtype)
        options = {"stride": c.stride, "dilation": c.dilation, "groups": c.groups}
        bordered = reference.padded(x, sides, mode)
        with pyconv.num_threads(count):
            expected = reference.conv2d(bordered, layer.weight, layer.bias, **options)
            tally.compare(layer(x), expected)
            gy = integers(rng, expected.shape, c.dtype)
            gx, gw, gb = reference.conv2d_backward(gy, bordered, layer.weight, **options)
            tally.compare(layer.backward(gy), reference.padded_backward(gx, x.shape, sides, mode))
            tally.compare(layer.weight_grad, gw)
            if c.bias:
                tally.compare(layer.bias_grad, gb)

    check()
    tally.finish(AT_LEAST["layer"])


@in_child
def test_conv_transpose2d() -> None:
    """Forward, all gradients, and the same identity the other way round."""
    tally = Tally()

    @examples("conv_transpose2d")
    @given(transposed_convolutions(), threads, seeds)
    def check(c: Conv, count: int, seed: int) -> None:
        tally.seen.add(c)
        rng = np.random.default_rng(seed)
        x = integers(rng, c.image(c.ic, c.size), c.dtype)
        w = integers(rng, (c.ic, c.oc // c.groups, *c.kernel), c.dtype)
        bias = integers(rng, c.oc, c.dtype) if c.bias else None
        options: dict[str, Any] = {
            "stride": c.stride,
            "padding": c.padding,
            "output_padding": c.output_padding,
            "dilation": c.dilation,
            "groups": c.groups,
        }
        with pyconv.num_threads(count):
            expected = reference.conv_transpose2d(x, w, bias, **options)
            tally.compare(F.conv_transpose2d(x, w, bias, **options), expected)
            gy = integers(rng, expected.shape, c.dtype)
            got = F.conv_transpose2d_backward(gy, x, w, **options)
            for gradient, by_hand in zip(
                got, reference.conv_transpose2d_backward(gy, x, w, **options), strict=True
            ):
                tally.compare(gradient, by_hand)
            if not c.bias:
                assert inner(expected, gy) == inner(x, got[0]) == inner(w, got[1])

    check()
    tally.finish(AT_LEAST["conv_transpose2d"])


@in_child
def test_max_pool2d() -> None:
    """Values, indices and gradient, among many ties, with NaNs and minus infinities."""
    tally = Tally()

    @examples("max")
    @given(pools(dilated=True), st.sampled_from([0.0, 0.0, 0.1, 0.9]), threads, seeds)
    def check(p: Pool, rare: float, count: int, seed: int) -> None:
        tally.seen.add(p)
        rng = np.random.default_rng(seed)
        x = integers(rng, (*p.planes, *p.size), p.dtype)
        chosen = rng.random(x.shape) < rare
        x[chosen] = rng.choice([np.nan, -np.inf, np.inf], int(chosen.sum()))
        options: dict[str, Any] = {
            "stride": p.stride,
            "padding": p.padding,
            "dilation": p.dilation,
            "ceil_mode": p.ceil_mode,
        }
        with pyconv.num_threads(count):
            values, indices = reference.max_pool2d(x, p.kernel, return_indices=True, **options)
            tally.compare(F.max_pool2d(x, p.kernel, **options), values)
            got = F.max_pool2d(x, p.kernel, return_indices=True, **options)
            tally.compare(got[0], values)
            tally.compare(got[1], indices)
            gy = integers(rng, values.shape, p.dtype)
            gx = reference.max_pool2d_backward(gy, indices, x.shape)
            tally.compare(F.max_pool2d_backward(gy, indices, x.shape), gx)

    check()
    tally.finish(AT_LEAST["max"])


@in_child
def test_avg_pool2d() -> None:
    """The mean by every rule for the divisor, and its gradient.

    The gradients are multiples of every divisor that can occur, so their shares are whole numbers.
    """
    tally = Tally()

    @examples("avg")
    @given(
        pools(dilated=False),
        st.booleans(),
        st.sampled_from([None, None, 1, 3, -2, 7]),
        threads,
        seeds,
    )
    def check(p: Pool, include: bool, divisor: int | None, count: int, seed: int) -> None:
        tally.seen.add((p, include, divisor))
        rng = np.random.default_rng(seed)
        x = integers(rng, (*p.planes, *p.size), p.dtype)
        options: dict[str, Any] = {
            "stride": p.stride,
            "padding": p.padding,
            "ceil_mode": p.ceil_mode,
            "count_include_pad": include,
            "divisor_override": divisor,
        }
        with pyconv.num_threads(count):
            expected = reference.avg_pool2d(x, p.kernel, **options)
            tally.compare(F.avg_pool2d(x, p.kernel, **options), expected)
            multiple = math.prod(math.lcm(*range(1, k + 1)) for k in p.kernel)
            gy = integers(rng, expected.shape, p.dtype) * (divisor or multiple)
            gx = reference.avg_pool2d_backward(gy, x.shape, p.kernel, **options)
            tally.compare(F.avg_pool2d_backward(gy, x.shape, p.kernel, **options), gx)

    check()
    tally.finish(AT_LEAST["avg"])


# ---- gradients, from forward alone ----


def slopes(function: Any, at: Array, gy: Array, step: float) -> Array:
    """Return the gradient of <function(at), gy> by central differences, element by element."""
    result = np.zeros_like(at)
    for index in np.ndindex(at.shape):
        ahead, behind = at.copy(), at.copy()
        ahead[index] += step
        behind[index] -= step
        result[index] = np.sum((function(ahead) - function(behind)) * gy) / (2 * step)
    return result


GRADIENTS = [
    {"stride": 1, "padding": 1, "dilation": 1, "groups": 1},
    {"stride": 2, "padding": 0, "dilation": 1, "groups": 2},
    {"stride": (1, 2), "padding": (2, 1), "dilation": (1, 2), "groups": 1},
    {"stride": 3, "padding": 2, "dilation": 2, "groups": 2},
]


@pytest.mark.parametrize("options", GRADIENTS, ids=str)
@pytest.mark.parametrize("transposed", [False, True], ids=["conv2d", "conv_transpose2d"])
def test_convolution_gradients_by_central_differences(
    options: dict[str, Any], transposed: bool
) -> None:
    """Each gradient is the slope of the forward pass. No oracle but the forward itself."""
    forward = F.conv_transpose2d if transposed else F.conv2d
    backward = F.conv_transpose2d_backward if transposed else F.conv2d_backward
    rng = np.random.default_rng(7)
    x = rng.standard_normal((2, 4, 5, 6))
    w = rng.standard_normal((4, 4 // options["groups"], 3, 2))
    bias = rng.standard_normal(4 if not transposed else 4 // options["groups"] * options["groups"])
    gy = rng.standard_normal(forward(x, w, bias, **options).shape)
    gx, gw, gb = backward(gy, x, w, **options)
    step = 1e-4  # the functions are linear in each argument, so the step only rounds
    np.testing.assert_allclose(
        gx, slopes(lambda v: forward(v, w, bias, **options), x, gy, step), rtol=0, atol=1e-9
    )
    np.testing.assert_allclose(
        gw, slopes(lambda v: forward(x, v, bias, **options), w, gy, step), rtol=0, atol=1e-9
    )
    np.testing.assert_allclose(
        gb, slopes(lambda v: forward(x, w, v, **options), bias, gy, step), rtol=0, atol=1e-9
    )


@pytest.mark.parametrize("ceil_mode", [False, True])
@pytest.mark.parametrize("padding", [0, 1])
def test_pool_gradients_by_central_differences(padding: int, ceil_mode: bool) -> None:
    """The same for the pools. The maxima are far enough apart for the step."""
    rng = np.random.default_rng(8)
    x = rng.permutation(2 * 3 * 7 * 6).reshape(2, 3, 7, 6).astype(np.float64)
    gy = rng.standard_normal(F.max_pool2d(x, 3, 2, padding, 1, ceil_mode).shape)
    _, indices = F.max_pool2d(x, 3, 2, padding, 1, ceil_mode, True)
    np.testing.assert_allclose(
        F.max_pool2d_backward(gy, indices, x.shape),
        slopes(lambda v: F.max_pool2d(v, 3, 2, padding, 1, ceil_mode), x, gy, 0.25),
        rtol=0,
        atol=1e-9,
    )
    for include in (False, True):
        np.testing.assert_allclose(
            F.avg_pool2d_backward(gy, x.shape, 3, 2, padding, ceil_mode, include),
            slopes(lambda v: F.avg_pool2d(v, 3, 2, padding, ceil_mode, include), x, gy, 0.25),  # noqa: B023
            rtol=0,
            atol=1e-9,
        )
