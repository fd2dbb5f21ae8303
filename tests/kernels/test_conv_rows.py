"""The row kernels of depthwise convolution against their scalar definitions, to the bit.

Every remainder of rows and columns, every shape of windows, lists of any taps, memory that ends at
a guard page on the side where a step too far would go.
"""

import ctypes
import itertools
from typing import NamedTuple

import numpy as np
import pytest
from guarded import FLUSH, Flush
from kernels.canaries import Memory
from kernels.library import (
    Array,
    Library,
    PlanesArgs,
    RowsArgs,
    RowsCopyArgs,
    RowsWeightArgs,
    Table,
    address,
    covers,
    same_bits,
)

SUMS = 64  # PC_ROWS_SUMS, bytes


class Taps(NamedTuple):
    """A list of taps: any offsets, or windows that slide."""

    count: int
    slide: int = 0
    height: int = 0
    width: int = 0
    neighbours: bool = True  # columns of the window lie 1 apart

    def offsets(self, rng: np.random.Generator, vec_step: int) -> Array:
        """Return an offset for each tap."""
        if not self.slide:
            return rng.integers(-50, 51, self.count).astype(np.int64)
        windows = []
        for _ in range(self.count // (self.height * self.width)):
            first = rng.integers(-50, 51, self.width)
            if self.neighbours:
                first = first[0] + self.slide * np.arange(self.width)
            rows = self.slide * vec_step * np.arange(self.height)
            windows.append((first + rows[:, None]).ravel())
        return np.concatenate(windows).astype(np.int64)


LISTS = [Taps(0), Taps(1), Taps(2), Taps(9), Taps(13)]
WINDOWS = [
    Taps(9, 1, 3, 3),
    Taps(9, -1, 3, 3),
    Taps(9, 1, 3, 3, False),
    Taps(18, -1, 3, 3),
    Taps(6, 1, 3, 2),
    Taps(5, 1, 5, 1),
    Taps(50, -1, 5, 5),
    Taps(49, 1, 7, 7),
    Taps(14, -1, 7, 2, False),
    Taps(4, 1, 2, 2),
]


def check_rows(
    table: Table,
    oracle: ctypes.CDLL,
    memory: Memory,
    rng: np.random.Generator,
    taps: Taps,
    rows: int,
    columns: int,
    flush: Flush,
) -> None:
    """Run conv_rows once; compare its output, and everything around it."""
    vec_step = int(rng.integers(1, 90))
    offset = taps.offsets(rng, vec_step)
    # behind the output: nothing, or what may be overwritten; rows apart, or one behind the other
    room = int(rng.choice([0, 3, 2 * table.lanes]))
    gap = int(rng.choice([0, 0, 2]))
    limit = int(rng.choice([0, (rows - 1) * (columns + gap) + columns + room]))
    out = memory.fill("out", (rows - 1) * (columns + gap) + columns + room, table.dtype, flush, rng)
    low = int(offset.min(initial=0))
    reach = (rows - 1) * vec_step + max(columns, table.lanes)
    vec = memory.fill("vec", int(offset.max(initial=0)) - low + reach, table.dtype, flush, rng)
    weight = memory.fill("weight", taps.count + 1, table.dtype, flush, rng)
    args = RowsArgs(
        out=address(out),
        out_step=columns + gap,
        limit=limit,
        rows=rows,
        columns=columns,
        init=address(weight, taps.count) if rng.random() < 0.7 else None,
        vec=address(vec, -low),
        vec_step=vec_step,
        taps=taps.count,
        offset=address(offset),
        weight=address(weight),
        slide=taps.slide,
        height=taps.height,
        width=taps.width,
    )
    expected = out.copy()
    wanted = RowsArgs.from_buffer_copy(args)
    wanted.out = address(expected)
    getattr(oracle, f"oracle_{table.name}_conv_rows")(ctypes.byref(wanted), int(table.fma))
    before = memory.snapshot()
    table.call("conv_rows", args)
    mine = np.zeros(out.size, bool)
    for j in range(rows):
        mine[j * (columns + gap) :][:columns] = True
    kept = mine.copy()
    kept[limit:] = True
    assert same_bits(out[kept], expected[kept]), (taps, rows, columns, limit)
    out[:] = (
        before["out"]
        .view(np.uint8)[  # the rest of the page
            out.ctypes.data - memory.pages["out"].bytes.ctypes.data :
        ][: out.nbytes]
        .view(table.dtype)
    )
    for name, array in memory.snapshot().items():
        assert np.array_equal(array, before[name]), f"wrote beside {name}"


@covers("conv_rows")
@pytest.mark.parametrize("taps", LISTS + WINDOWS, ids=str)
def test_rows_are_the_scalar_chain(table: Table, oracle: ctypes.CDLL, taps: Taps) -> None:
    """All remainders of columns, with rows below, at and above a tile's."""
    rng = np.random.default_rng(1)
    memory = Memory()
    most = table.tile_columns + table.lanes + 3
    flush = itertools.cycle(FLUSH)
    for columns in range(1, most):
        for rows in (int(rng.integers(1, 5)), int(rng.integers(5, 20))):
            check_rows(table, oracle, memory, rng, taps, rows, columns, next(flush))


@covers("conv_rows")
def test_all_rows_are_the_scalar_chain(table: Table, oracle: ctypes.CDLL) -> None:
    """Every number of rows, in maps narrower and wider than a vector, and one long row."""
    rng = np.random.default_rng(2)
    memory = Memory()
    widths = (1, table.lanes - 1, table.lanes, table.lanes + 1, table.tile_columns)
    flush = itertools.cycle(FLUSH)
    for rows, columns in itertools.product(range(1, 18), widths):
        for taps in (LISTS[2], WINDOWS[0], WINDOWS[1]):
            check_rows(table, oracle, memory, rng, taps, rows, columns, next(flush))
    for columns in (99, 200, 201, 333):
        check_rows(table, oracle, memory, rng, LISTS[3], 1, columns, next(flush))


@covers("conv_planes")
def test_planes_are_the_scalar_chain(table: Table, oracle: ctypes.CDLL) -> None:
    """Every remainder of a plane's elements, any taps, read where they may be and nowhere else."""
    rng = np.random.default_rng(5)
    memory = Memory()
    flush = itertools.cycle(FLUSH)
    function = getattr(oracle, f"oracle_{table.name}_conv_planes")
    for count in range(table.lanes, 6 * table.lanes + 2):
        taps, planes = int(rng.choice([0, 1, 5, 9])), int(rng.integers(0, 4))
        in_step = count + int(rng.choice([0, 0, 7]))
        out = memory.fill("out", planes * count, table.dtype, next(flush), rng)
        size = max(0, planes - 1) * in_step + count
        source = memory.fill("vec", size, table.dtype, next(flush), rng)
        weight = memory.fill("weight", planes * (taps + 1), table.dtype, next(flush), rng)
        offset = rng.integers(-count // 2, count // 2 + 1, taps).astype(np.int64)
        place = np.arange(count)[:, None] + offset
        reads = (place >= 0) & (place < count) & (rng.random(place.shape) < 0.8)
        vectors = np.arange(-(-count // table.lanes))
        first = np.minimum(vectors * table.lanes, count - table.lanes)
        lanes = np.arange(table.lanes)
        bits = reads[first[:, None] + lanes].astype(np.uint64) << lanes.astype(np.uint64)[:, None]
        inside = np.ascontiguousarray(bits.sum(1, dtype=np.uint64))
        args = PlanesArgs(
            out=address(out),
            in_=address(source),
            weight=address(weight),
            init=address(weight, planes * taps) if count % 3 else None,
            planes=planes,
            count=count,
            in_step=in_step,
            taps=taps,
            offset=address(offset),
            inside=address(inside),
        )
        expected = out.copy()
        wanted = PlanesArgs.from_buffer_copy(args)
        wanted.out = address(expected)
        function(ctypes.byref(wanted), table.lanes, int(table.fma))
        before = memory.snapshot()
        was = out.copy()
        table.call("conv_planes", args)
        assert same_bits(out, expected), (count, taps, planes)
        out[:] = was
        for name, array in memory.snapshot().items():
            assert np.array_equal(array, before[name]), f"wrote beside {name}"


def weight_case(
    table: Table,
    memory: Memory,
    rng: np.random.Generator,
    window: tuple[int, int],
    steps: tuple[int, int, int],
    rows: int,
    columns: int,
) -> RowsWeightArgs:
    """Return a call of conv_rows_weight on new numbers: a plane whose border is not there."""
    flush = FLUSH[int(rng.integers(2))]
    lanes = SUMS // table.dtype.itemsize
    (height, width), (stride, dilation, across) = window, steps
    top, left = (int(rng.integers(0, size + 1)) for size in window)
    reach = (rows - 1) * stride + (height - 1) * dilation + 1
    vec_rows = max(0, reach - top - int(rng.integers(0, height + 1)))
    vec_columns = max(1, (columns - 1) * across + width - left - int(rng.integers(0, width + 1)))
    vec_step, grad_step = vec_columns + int(rng.integers(0, 3)), columns + int(rng.integers(0, 3))
    column = np.empty((width, 3), np.int64)
    for t in range(width):
        there = [q for q in range(columns) if 0 <= q * across + t - left < vec_columns]
        column[t] = t - left, there[0] if there else 0, there[-1] + 1 if there else 0
    sums = memory.fill("out", height * width * lanes, table.dtype, flush, rng)
    sums[:] = rng.standard_normal(sums.size)
    size = (vec_rows - 1) * vec_step + vec_columns if vec_rows else 0
    vec = memory.fill("vec", size, table.dtype, flush, rng)
    grad = memory.fill("weight", (rows - 1) * grad_step + columns, table.dtype, flush, rng)
    args = RowsWeightArgs(
        sums=address(sums),
        grad=address(grad),
        grad_step=grad_step,
        grad_ahead=int(rng.integers(-(2**40), 2**40)),
        rows=rows,
        columns=columns,
        vec=address(vec),
        vec_step=vec_step,
        vec_ahead=int(rng.integers(-(2**40), 2**40)),
        vec_rows=vec_rows,
        first=-top,
        stride=stride,
        dilation=dilation,
        across=across,
        height=height,
        width=width,
        column=address(column),
    )
    args.kept = (sums, column)  # they live as long as the call
    return args


# (height, width), (stride, dilation, across): every kernel that slides, and lists of each length
WEIGHT_CASES = [
    *[((size, size), (1, 1, 1)) for size in (1, 2, 3, 4, 5, 7, 9)],
    *[((height, width), (2, 1, 2)) for height, width in ((3, 3), (5, 5), (4, 4), (2, 3))],
    *[((3, 3), (1, 2, 1)), ((5, 5), (3, 1, 1)), ((7, 7), (2, 3, 1)), ((3, 5), (1, 1, 1))],
    *[((5, 3), (2, 1, 1)), ((2, 6), (1, 1, 1)), ((1, 7), (1, 1, 1))],
]


@covers("conv_rows_weight")
def test_weight_sums_are_the_scalar_sums(table: Table, oracle: ctypes.CDLL) -> None:
    """Every remainder of columns, every kernel, windows that begin and end anywhere."""
    rng = np.random.default_rng(3)
    memory = Memory()
    function = getattr(oracle, f"oracle_{table.name}_conv_rows_weight")
    columns = range(1, 2 * SUMS // table.dtype.itemsize + 3)
    for count, (window, steps) in itertools.product(columns, WEIGHT_CASES):
        rows = int(rng.integers(1, 9))
        args = weight_case(table, memory, rng, window, steps, rows, count)
        sums = args.kept[0]
        expected = sums.copy()
        wanted = RowsWeightArgs.from_buffer_copy(args)
        wanted.sums = address(expected)
        function(ctypes.byref(wanted), int(table.fma))
        before = memory.snapshot()
        was = sums.copy()
        table.call("conv_rows_weight", args)
        assert same_bits(sums + 0, expected + 0), (count, window, steps)  # -0 + 0 is +0
        sums[:] = was
        for name, array in memory.snapshot().items():
            assert np.array_equal(array, before[name]), f"wrote beside {name}"


@pytest.mark.parametrize("dtype", ["f32", "f64"])
def test_isas_with_fma_have_the_same_sums(library: Library, dtype: str) -> None:
    """Vectors of every length: the same bytes."""
    tables = [table for table in library.tables(dtype) if table.fma]
    if len(tables) < 2:
        pytest.skip("this machine has no second instruction set with fused multiply-add")
    widest = max(tables, key=lambda table: table.lanes)
    rng = np.random.default_rng(4)
    memory = Memory()
    for columns, (window, steps) in itertools.product(range(1, 40), WEIGHT_CASES):
        args = weight_case(widest, memory, rng, window, steps, 3, columns)
        was = args.kept[0].copy()
        results = []
        for table in tables:
            args.kept[0][:] = was
            table.call("conv_rows_weight", args)
            results.append(args.kept[0] + 0)
        assert all(same_bits(result, results[0]) for result in results), (columns, window, steps)


@covers("split_rows")
def test_split_takes_the_stride_out(table: Table) -> None:
    """Every phase is a row of its own; behind it are zeros or what was there."""
    rng = np.random.default_rng(5)
    memory = Memory()
    lanes = table.lanes
    columns = range(1, 4 * lanes + 3)
    flushes = itertools.cycle(FLUSH)
    for count, stride, step in itertools.product(columns, (1, 2, 3), (1, -2)):
        flush = next(flushes)
        rows, row_step = int(rng.integers(1, 5)), count * abs(step) + int(rng.integers(0, 3))
        source = memory.fill(
            "vec", (rows - 1) * row_step + (count - 1) * abs(step) + 1, table.dtype, flush, rng
        )
        first = (count - 1) * 2 if step < 0 else 0
        size = table.dtype.itemsize
        wide = np.lib.stride_tricks.as_strided(
            source[first:], (rows, count), (row_step * size, step * size)
        )
        narrow_step = -(-count // stride) + int(rng.integers(0, 3))
        phase_step = rows * narrow_step + lanes
        narrow = memory.fill("out", stride * phase_step + lanes, table.dtype, flush, rng)
        before = memory.snapshot()
        args = RowsCopyArgs(
            wide=address(source, first),
            narrow=address(narrow),
            rows=rows,
            columns=count,
            stride=stride,
            wide_step=row_step,
            wide_column=step,
            narrow_step=narrow_step,
            phase_step=phase_step,
        )
        was = narrow.copy()
        table.call("split_rows", args)
        mine = np.zeros(narrow.size, bool)
        for phase in range(stride):
            length = len(range(phase, count, stride))
            for j in range(rows):
                at = phase * phase_step + j * narrow_step
                assert same_bits(narrow[at : at + length], wide[j, phase::stride].copy())
                mine[at : at + length] = True
        same = narrow.view(f"u{size}") == was.view(f"u{size}")
        assert np.all((narrow == 0) | same | mine)
        narrow[:] = was
        for name, array in memory.snapshot().items():
            assert np.array_equal(array, before[name]), f"wrote beside {name}"


@covers("join_rows")
def test_join_puts_the_stride_in(table: Table) -> None:
    """The inverse; written exactly, or up to the limit."""
    rng = np.random.default_rng(6)
    memory = Memory()
    lanes, size = table.lanes, table.dtype.itemsize
    columns = range(1, 4 * lanes + 3)
    flushes = itertools.cycle(FLUSH)
    for count, stride in itertools.product(columns, (2, 3)):
        flush = next(flushes)
        rows = int(rng.integers(1, 5))
        narrow_step = count // stride + lanes + int(rng.integers(0, 3))
        phase_step = rows * narrow_step
        narrow = memory.fill("vec", stride * phase_step + lanes, table.dtype, flush, rng)
        room, gap = int(rng.choice([0, lanes])), int(rng.choice([0, 0, 2]))
        length = (rows - 1) * (count + gap) + count + room
        limit = int(rng.choice([0, length]))
        wide = memory.fill("out", length, table.dtype, flush, rng)
        args = RowsCopyArgs(
            wide=address(wide),
            narrow=address(narrow),
            rows=rows,
            columns=count,
            stride=stride,
            wide_step=count + gap,
            wide_column=1,
            narrow_step=narrow_step,
            phase_step=phase_step,
            limit=limit,
        )
        before = memory.snapshot()
        was = wide.copy()
        table.call("join_rows", args)
        others = np.ones(wide.size, bool)
        others[:limit] = False
        for j in range(rows):
            row = slice(j * (count + gap), j * (count + gap) + count)
            others[row] = False
            for phase in range(stride):
                at = phase * phase_step + j * narrow_step
                expected = narrow[at : at + len(range(phase, count, stride))]
                assert same_bits(wide[row][phase::stride].copy(), expected)
        assert np.array_equal(wide.view(f"u{size}")[others], was.view(f"u{size}")[others])
        wide[:] = was
        for name, array in memory.snapshot().items():
            assert np.array_equal(array, before[name]), f"wrote beside {name}"
