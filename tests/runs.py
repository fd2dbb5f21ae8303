"""Convolutions and pools, each with its inputs and everything that can be computed from them."""

import functools
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
import pytest
from kernels.library import numbers

import pyconv.functional as F

Array = np.ndarray[Any, np.dtype[Any]]
Results = dict[str, Array]

DTYPES = ["float32", "float64"]


class Case(NamedTuple):
    """A convolution, and by exchange of its two tensors a transposed one."""

    n: int
    groups: int
    ic: int
    oc: int
    size: tuple[int, int]
    kernel: tuple[int, int]
    stride: tuple[int, int] = (1, 1)
    padding: Any = (0, 0)
    dilation: tuple[int, int] = (1, 1)

    @property
    def options(self) -> dict[str, Any]:
        """The keywords of pyconv.functional."""
        return {
            "stride": self.stride,
            "padding": self.padding,
            "dilation": self.dilation,
            "groups": self.groups,
        }

    @property
    def sides(self) -> tuple[tuple[int, int], tuple[int, int]]:
        """The padding as ((top, bottom), (left, right))."""
        if self.padding == "same":
            rows, columns = (d * (k - 1) for k, d in zip(self.kernel, self.dilation, strict=True))
            return (rows // 2, rows - rows // 2), (columns // 2, columns - columns // 2)
        first, second = self.padding
        return (first, second) if isinstance(first, tuple) else ((first, first), (second, second))

    @property
    def out(self) -> tuple[int, int]:
        """The size of the output."""
        found = []
        for axis in (0, 1):
            reach = self.dilation[axis] * (self.kernel[axis] - 1) + 1
            found.append((self.size[axis] + sum(self.sides[axis]) - reach) // self.stride[axis] + 1)
        return found[0], found[1]


CASES = {
    "dense": Case(2, 1, 9, 20, (17, 41), (3, 3), padding=(1, 1)),
    "pointwise": Case(3, 1, 33, 19, (9, 11), (1, 1)),
    "first": Case(2, 1, 3, 16, (40, 39), (7, 7), (2, 2), (3, 3)),
    "strided": Case(2, 1, 8, 12, (21, 35), (3, 3), (2, 2), (1, 1)),
    "strided rows": Case(2, 1, 8, 12, (21, 13), (3, 3), (2, 1), (1, 1)),
    "strided-pointwise": Case(2, 1, 12, 10, (15, 20), (1, 1), (2, 2)),
    "dilated": Case(2, 1, 6, 9, (25, 33), (3, 3), (1, 1), (2, 2), (2, 2)),
    "aspp": Case(2, 1, 33, 34, (31, 29), (3, 3), padding=(10, 12), dilation=(10, 12)),
    "far": Case(2, 1, 4, 7, (9, 14), (3, 4), (1, 1), (7, 11), (6, 5)),
    "sides": Case(2, 1, 5, 7, (12, 31), (4, 2), (3, 1), ((2, 0), (0, 3)), (1, 2)),
    "same": Case(2, 1, 5, 7, (12, 31), (4, 2), padding="same"),
    "grouped": Case(2, 3, 12, 15, (13, 29), (3, 3), padding=(1, 1)),
    "depthwise": Case(2, 24, 24, 24, (14, 37), (3, 3), padding=(1, 1)),
    "depthwise-strided": Case(2, 10, 10, 20, (15, 30), (5, 5), (2, 2), (2, 2)),
    "depthwise-five": Case(2, 5, 5, 5, (13, 40), (5, 5), padding=(2, 2)),
    "depthwise-seven": Case(2, 3, 3, 6, (12, 35), (7, 7), padding=(3, 3)),
    "depthwise-odd": Case(2, 3, 3, 3, (17, 67), (3, 3), (2, 2), (1, 1)),
    "depthwise-small": Case(5, 12, 12, 12, (7, 7), (3, 3), padding=(1, 1)),
    "depthwise-bands": Case(1, 3, 3, 3, (75, 141), (3, 3), (2, 2), (1, 1)),
    "depthwise-window": Case(2, 4, 4, 8, (13, 20), (7, 5), padding=(3, 2)),
    "depthwise-dilated": Case(2, 6, 6, 12, (13, 21), (3, 3), (1, 2), (2, 3), (2, 2)),
    "depthwise-planes": Case(3, 7, 7, 7, (7, 7), (3, 3), padding=(1, 1)),
    "depthwise-planes-dilated": Case(2, 5, 5, 5, (6, 9), (3, 5), padding=(2, 2), dilation=(2, 1)),
    "depthwise-signal": Case(3, 5, 5, 5, (1, 130), (1, 5), padding=(0, 2)),
    "few-channels": Case(2, 3, 12, 9, (19, 17), (3, 3), (2, 1), (1, 1)),
    "channels": Case(4, 1, 70, 65, (5, 5), (3, 3), padding=(1, 1)),
    "several-channels": Case(9, 2, 16, 16, (7, 7), (3, 3), padding=(1, 1)),  # one sample: by rows
    # one output pixel a sample
    "pixel": Case(3, 1, 70, 37, (1, 1), (1, 1)),
    "pixel-window": Case(2, 1, 9, 41, (4, 5), (4, 5)),
    "pixel-corner": Case(1, 1, 5, 33, (6, 9), (2, 3), (5, 7), dilation=(3, 2)),
    "pixel-column": Case(2, 1, 3, 18, (5, 1), (3, 1), (4, 1), dilation=(2, 1)),
    "pixel-grouped": Case(5, 2, 24, 22, (3, 3), (3, 3)),
    "pixel-samples": Case(35, 1, 17, 12, (2, 2), (2, 2)),
    "pixel-single": Case(70, 1, 21, 1, (3, 3), (3, 3)),
    "pixel-chunks": Case(1030, 1, 5, 7, (3, 3), (3, 3)),  # more than one, in the weight gradient
    "pixel-long": Case(1, 1, 150, 530, (4, 4), (4, 4)),
    # more than a slab of scratch holds: cut into bands, columns, blocks of channels
    "bands": Case(1, 1, 16, 7, (75, 110), (3, 3), padding=(1, 1)),
    "columns": Case(1, 1, 19, 3, (5, 2100), (3, 5), padding=(1, 2)),
    "blocks": Case(1, 1, 150, 9, (13, 90), (3, 3), padding=(1, 1)),
    "blocks of outputs": Case(1, 1, 9, 150, (13, 90), (3, 3), (2, 2), (1, 1)),
    "window": Case(2, 1, 3, 5, (40, 44), (31, 33), padding=(15, 16)),
}


def fresh(shape: Any, dtype: str, seed: int) -> Array:
    """Return arbitrary numbers."""
    rng = np.random.default_rng(seed)
    return numbers(rng, int(np.prod(shape)), dtype).reshape(shape)


def plain(array: Array) -> bytes:
    """Return the bytes of an array, with one zero and one NaN."""
    if array.dtype.kind == "f":
        array = array + array.dtype.type(0)  # -0 + 0 is +0
        array[np.isnan(array)] = np.nan
    return array.tobytes()


def check_same(got: Results, expected: Results, what: str) -> None:
    """Demand the same bits in all results."""
    assert got.keys() == expected.keys()
    for name, array in expected.items():
        assert got[name].dtype == array.dtype, (what, name)
        assert got[name].shape == array.shape, (what, name)
        if plain(got[name]) != plain(array):
            far = np.nanmax(np.abs(got[name] - array))
            pytest.fail(f"{name} differs ({what}), at most by {far}")


def inputs(case: Case, dtype: str) -> Results:
    """Return the tensors of a convolution and of the transposed one with the same weight."""
    return {
        "x": fresh((case.n, case.ic, *case.size), dtype, 1),
        "w": fresh((case.oc, case.ic // case.groups, *case.kernel), dtype, 2),
        "b": fresh(case.oc, dtype, 3),
        "gy": fresh((case.n, case.oc, *case.out), dtype, 4),
    }


def more(case: Case) -> tuple[int, int]:
    """Return the output padding with which the transposed convolution's output has case.size."""
    return tuple(  # type: ignore[return-value]
        (
            case.size[axis]
            + sum(case.sides[axis])
            - 1
            - case.dilation[axis] * (case.kernel[axis] - 1)
        )
        % case.stride[axis]
        for axis in (0, 1)
    )


def convolve(case: Case, x: Array, w: Array, b: Array, gy: Array) -> Results:
    """Return forward and gradients, plain and transposed where the padding allows it."""
    options = case.options
    gx, gw, gb = F.conv2d_backward(gy, x, w, **options)
    found = {"forward": F.conv2d(x, w, b, **options), "gx": gx, "gw": gw, "gb": gb}
    if all(before == after for before, after in case.sides):
        options["padding"] = tuple(before for before, _ in case.sides)
        options["output_padding"] = more(case)
        found["transposed"] = F.conv_transpose2d(gy, w, None, **options)
        gx, gw, gb = F.conv_transpose2d_backward(x, gy, w, **options)
        found.update({"transposed gx": gx, "transposed gw": gw, "transposed gb": gb})
    return found


class Pool(NamedTuple):
    """A pool of either kind."""

    shape: tuple[int, int, int, int]
    kernel: int
    stride: int
    padding: int
    ceil_mode: bool


POOLS = {
    "halves": Pool((3, 5, 40, 38), 2, 2, 0, False),
    "resnet": Pool((2, 6, 35, 33), 3, 2, 1, False),
    "overlapping": Pool((2, 4, 19, 50), 5, 1, 2, False),
    "gaps": Pool((2, 3, 31, 29), 2, 5, 1, True),
    "global": Pool((2, 9, 7, 7), 7, 7, 0, False),
    # enough for several threads: many planes, one plane in bands, wide windows of odd planes
    "planes": Pool((2, 24, 150, 150), 3, 2, 1, False),
    "pairs": Pool((2, 40, 101, 99), 2, 2, 0, False),
    "one plane": Pool((1, 1, 700, 900), 3, 1, 1, False),
}


def pool_inputs(pool: Pool, dtype: str) -> Results:
    """Return an image and gradients."""
    x = fresh(pool.shape, dtype, 5)
    return {"x": x, "gy": fresh(F.max_pool2d(x, *pool[1:4], 1, pool.ceil_mode).shape, dtype, 6)}


def pooled(pool: Pool, x: Array, gy: Array) -> Results:
    """Return forward and gradients of both pools."""
    _, k, s, p, ceil = pool
    values, indices = F.max_pool2d(x, k, s, p, 1, ceil, True)
    return {
        "max": values,
        "indices": indices,
        "max gx": F.max_pool2d_backward(gy, indices, x.shape),
        "avg": F.avg_pool2d(x, k, s, p, ceil, False),
        "avg gx": F.avg_pool2d_backward(gy, x.shape, k, s, p, ceil),
    }


def all_runs(dtype: str) -> Iterator[tuple[str, Results, Callable[..., Results]]]:
    """Yield name, inputs and function of every case."""
    for name, case in CASES.items():
        yield name, inputs(case, dtype), functools.partial(convolve, case)
    for name, pool in POOLS.items():
        yield name, pool_inputs(pool, dtype), functools.partial(pooled, pool)


RUNS = [*CASES, *POOLS]
parametrised = pytest.mark.parametrize("dtype", DTYPES)


def run_of(name: str, dtype: str) -> tuple[Results, Callable[..., Results]]:
    """Return the inputs and the function of one case."""
    return next((given, run) for found, given, run in all_runs(dtype) if found == name)
