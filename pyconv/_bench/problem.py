"""The data of a layer, and what the results must be.

The right results are computed here, in float64, from the definition and with nothing but NumPy: at
places of which half are on an edge, where kernels end, or wholly where that is cheap. A forward
convolution, an average pool and the input gradient of a transposed convolution are the same sum
over a window; their transposes are the same sum over the windows that saw a pixel. So each layer is
looked at as a *big* image, a *small* one, and a weight (small channels, big channels / groups, kh,
kw) between them.
"""

from __future__ import annotations

import functools
import math
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from pyconv._arrays import Array
    from pyconv._bench.layers import Layer

PLACES = 160  # results looked at
PRODUCTS = 4_000_000  # about so many terms are summed up for them at most
PLANES = 24  # of a max pool's gradient


class Expected(NamedTuple):
    """An array's shape and dtype, what it holds at some places, and how far off a result may be."""

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    where: Any
    values: Array
    bound: float

    def agrees(self, result: Array) -> bool:
        """Tell whether a result is right; NaN is not."""
        if (result.shape, result.dtype) != (self.shape, self.dtype):
            return False
        got = result[self.where]
        if self.bound == 0:
            return np.array_equal(got, self.values)
        return bool(np.all(np.abs(got.astype(np.float64) - self.values) <= self.bound))


class Problem:
    """One layer with a batch and a dtype: its arrays, made when they are first asked for."""

    def __init__(self, layer: Layer, n: int, dtype: str) -> None:
        self.layer, self.n, self.dtype = layer, n, np.dtype(dtype)
        self.rng = np.random.default_rng((layer.id, n))
        self.kept: dict[Any, Any] = {}  # what an engine made of the arrays

    def _random(self, *shape: int) -> Array:
        return self.rng.standard_normal(shape, self.dtype.type)

    @functools.cached_property
    def x(self) -> Array:
        """The input."""
        return self._random(self.n, self.layer.C, self.layer.H, self.layer.W)

    @functools.cached_property
    def w(self) -> Array:
        """The weight, as torch has it."""
        v = self.layer
        first, second = (v.C, v.K) if v.op == "deconv" else (v.K, v.C)
        return self._random(first, second // v.groups, v.kh, v.kw)

    @functools.cached_property
    def g(self) -> Array:
        """The gradient of the output."""
        return self._random(self.n, self.layer.K, self.layer.OH, self.layer.OW)

    @functools.cached_property
    def largest(self) -> tuple[Array, Array]:
        """Values and indices of a max pool."""
        return largest(self.x, self.layer)

    @property
    def indices(self) -> Array:
        """Indices of a max pool."""
        return self.largest[1]

    def expected(self, pass_: str) -> tuple[Expected, ...]:
        """Return what the arrays of a pass must hold."""
        v = self.layer
        if v.op == "maxpool":
            if pass_ == "bwd":
                return (largest_gradient(self),)
            parts = self.largest if pass_ == "fwd_indices" else self.largest[:1]
            return tuple(Expected(a.shape, a.dtype, ..., a, 0.0) for a in parts)
        if v.op == "avgpool":
            weight = np.full((v.C, 1, v.kh, v.kw), 1 / (v.kh * v.kw))
            groups = v.C
        else:
            weight, groups = self.w, v.groups
        big, small = (self.g, self.x) if v.op == "deconv" else (self.x, self.g)
        shape: tuple[int, ...]
        if pass_ == "bwd_weights":
            shape = weight.shape
            depth, places, values = weight_sums(self.rng, big, small, v, groups, shape)
        elif (pass_ == "fwd") == (v.op != "deconv"):
            shape = small.shape
            depth, places, values = window_sums(self.rng, big, weight, v, groups, shape)
        else:
            shape = big.shape
            depth, places, values = spread_sums(self.rng, small, weight, v, groups, shape)
        scale = float(np.abs(values).max())
        # A sum of d products is off by about sqrt(d) units of its size; a product that is missing
        # or taken twice shows far above four times that.
        bound = 4 * math.sqrt(depth) * unit(self.dtype) * scale
        return (Expected(shape, self.dtype, tuple(places.T), values, bound),)


def unit(dtype: np.dtype[Any]) -> float:
    """Return the rounding error of one operation."""
    return float(np.finfo(dtype).eps) / 2


def choose(rng: np.random.Generator, shape: tuple[int, ...], count: int) -> Array:
    """Return places of an array; on each axis half of them are among the first and last two."""
    edge = np.stack(
        [rng.choice([0, min(1, size - 1), max(0, size - 2), size - 1], count) for size in shape]
    )
    inside = np.stack([rng.integers(0, size, count) for size in shape])
    return np.where(rng.random(edge.shape) < 0.5, edge, inside).T


def how_many(depth: int) -> int:
    """Return at how many places to look."""
    return max(16, min(PLACES, PRODUCTS // max(1, depth)))


def reach(size: int, out: int, offset: int, stride: int) -> tuple[slice, slice]:
    """Return which outputs see the image through a tap at `offset`, and what they see."""
    first = max(0, -(offset // stride))
    last = min(out - 1, (size - 1 - offset) // stride)
    if last < first:
        return slice(0, 0), slice(0, 0)
    start = first * stride + offset
    return slice(first, last + 1), slice(start, start + (last - first) * stride + 1, stride)


def _axes(v: Layer) -> tuple[tuple[int, int, int, int], tuple[int, int, int, int]]:
    return (v.kh, v.sh, v.ph, v.dh), (v.kw, v.sw, v.pw, v.dw)


def window_sums(
    rng: np.random.Generator,
    big: Array,
    weight: Array,
    v: Layer,
    groups: int,
    shape: tuple[int, ...],
) -> tuple[int, Array, Array]:
    """Return depth, places and values of small = sum over the window of big * weight."""
    channels = weight.shape[1]
    depth = channels * v.kh * v.kw
    places = choose(rng, shape, how_many(depth))
    values = np.empty(len(places))
    for index, (n, k, *at) in enumerate(places):
        taps, pixels = [], []
        for (kernel, stride, padding, dilation), size, o in zip(
            _axes(v), big.shape[2:], at, strict=True
        ):
            seen = o * stride - padding + dilation * np.arange(kernel)
            inside = (seen >= 0) & (seen < size)
            taps.append(np.flatnonzero(inside))
            pixels.append(seen[inside])
        first = k // (weight.shape[0] // groups) * channels
        patch = big[n, first : first + channels][:, pixels[0][:, None], pixels[1]]
        factors = weight[k][:, taps[0][:, None], taps[1]]
        values[index] = np.sum(patch.astype(np.float64) * factors)
    return depth, places, values


def spread_sums(
    rng: np.random.Generator,
    small: Array,
    weight: Array,
    v: Layer,
    groups: int,
    shape: tuple[int, ...],
) -> tuple[int, Array, Array]:
    """Return depth, places and values of big = sum over windows that see it of small * weight."""
    filters = weight.shape[0] // groups
    depth = filters * math.ceil(v.kh / v.sh) * math.ceil(v.kw / v.sw)
    places = choose(rng, shape, how_many(depth))
    values = np.empty(len(places))
    for index, (n, c, *at) in enumerate(places):
        taps, pixels = [], []
        for (kernel, stride, padding, dilation), size, h in zip(
            _axes(v), small.shape[2:], at, strict=True
        ):
            start = h + padding - dilation * np.arange(kernel)
            inside = (start % stride == 0) & (start >= 0) & (start // stride < size)
            taps.append(np.flatnonzero(inside))
            pixels.append(start[inside] // stride)
        group, channel = divmod(c, weight.shape[1])
        own = slice(group * filters, (group + 1) * filters)
        patch = small[n, own][:, pixels[0][:, None], pixels[1]]
        factors = weight[own, channel][:, taps[0][:, None], taps[1]]
        values[index] = np.sum(patch.astype(np.float64) * factors)
    return depth, places, values


def weight_sums(
    rng: np.random.Generator,
    big: Array,
    small: Array,
    v: Layer,
    groups: int,
    shape: tuple[int, ...],
) -> tuple[int, Array, Array]:
    """Return depth, places and values of weight = sum over the pixels of small * big."""
    depth = small.shape[0] * small.shape[2] * small.shape[3]
    places = choose(rng, shape, how_many(depth))
    values = np.empty(len(places))
    for index, (k, c, *taps) in enumerate(places):
        (rows, seen_rows), (cols, seen_cols) = (
            reach(size, out, int(tap) * dilation - padding, stride)
            for (_, stride, padding, dilation), size, out, tap in zip(
                _axes(v), big.shape[2:], small.shape[2:], taps, strict=True
            )
        )
        channel = k // (shape[0] // groups) * shape[1] + c
        seen = big[:, channel, seen_rows, seen_cols].astype(np.float64)
        values[index] = np.sum(seen * small[:, k, rows, cols])
    return depth, places, values


def largest(x: Array, v: Layer) -> tuple[Array, Array]:
    """Return values and indices of a max pool over an array without NaN, tap by tap."""
    values = np.full((*x.shape[:2], v.OH, v.OW), -np.inf, x.dtype)
    indices = np.full(values.shape, -1, np.int64)
    pixels = np.arange(v.H * v.W).reshape(v.H, v.W)
    for i in range(v.kh):
        rows, seen_rows = reach(v.H, v.OH, i * v.dh - v.ph, v.sh)
        for j in range(v.kw):
            cols, seen_cols = reach(v.W, v.OW, j * v.dw - v.pw, v.sw)
            seen = x[:, :, seen_rows, seen_cols]
            better = seen > values[:, :, rows, cols]
            np.copyto(values[:, :, rows, cols], seen, where=better)
            np.copyto(indices[:, :, rows, cols], pixels[seen_rows, seen_cols], where=better)
    return values, indices


def largest_gradient(problem: Problem) -> Expected:
    """Return some planes of a max pool's input gradient."""
    v, g, indices = problem.layer, problem.g, problem.indices
    n, c = choose(problem.rng, g.shape[:2], PLANES).T
    values = [
        np.bincount(indices[place].ravel(), g[place].ravel(), v.H * v.W).reshape(v.H, v.W)
        for place in zip(n, c, strict=True)
    ]
    bound = (v.kh * v.kw) ** 2 * unit(g.dtype) * float(np.abs(g).max())
    return Expected(problem.x.shape, g.dtype, (n, c), np.stack(values), bound)
