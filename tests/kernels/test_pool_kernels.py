"""The pools' kernels against their scalar definition, to the bit, for every remainder."""

import ctypes
import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from guarded import FLUSH, Flush, Pages
from kernels.library import (
    POOL_ROWS,
    Array,
    PairsArgs,
    PoolArgs,
    Table,
    address,
    covers,
    numbers,
    same_bits,
)

WINDOWS = [(1, 1), (1, 4), (3, 1), (2, 2), (3, 3), (4, 5)]
STRIDES = [(1, 1), (2, 2), (3, 1), (1, 3), (2, 5)]
CANARY = 0xA5


class Memory:
    """Guarded memory for the arrays of one call, used again for the next."""

    NAMES = ("out", "indices", "src", "cells", "row_cells", "start", "place", "work")

    def __init__(self) -> None:
        self.pages = {name: Pages(1 << 17) for name in self.NAMES}

    def clear(self) -> None:
        """Fill all of it with canaries."""
        for page in self.pages.values():
            page.bytes[:] = CANARY

    def snapshot(self, *without: str) -> dict[str, Array]:
        """Return a copy of all but the scratch and what is named."""
        return {
            name: page.bytes.copy()
            for name, page in self.pages.items()
            if name != "work" and name not in without
        }


class Call:
    """One call of random sizes. Each array is as large as the contract allows, at a guard page."""

    def __init__(
        self,
        rng: np.random.Generator,
        memory: Memory,
        table: Table,
        window: tuple[int, int],
        stride: tuple[int, int],
        columns: int,
        flush: Flush,
        *,
        backward: bool = False,
        rows: int = 0,
        tiled: bool = False,
    ) -> None:
        (kh, kw), (sh, sw) = window, stride
        dense = backward or rows > 0
        dh, dw = (1, 1) if dense else (int(each) for each in rng.integers(1, 3, 2))
        self.memory, self.columns = memory, columns
        self.planes = int(rng.integers(1, 4))
        self.rows = rows or int(rng.choice([1, 2, 5, POOL_ROWS + 1]))
        top, left = (int(rng.integers(0 if backward else -k, k + 1)) for k in window)
        if backward:
            height, width = self.rows // sh, columns // sw
        else:
            height, width = (self.rows - 1) * sh + (kh - 1) * dh, (columns - 1) * sw + (kw - 1) * dw
        # With a large plane no window hangs over.
        large = rng.random() < 0.5
        if large and not backward:
            top, left = max(0, top), max(0, left)
        more = rng.integers(1, 4) + max(top, left, 0) if large else rng.integers(-2, 3)
        src_rows, src_columns = max(1, height + int(more)), max(1, width + int(more))
        if tiled:  # windows side by side that have all of the columns
            top, left = int(rng.integers(kh)), 0
            src_rows, src_columns = -(-(top + self.rows) // sh), columns // sw
        gap = int(rng.choice([0, 0, 1, 5]))
        src_row, out_row = src_columns + gap, columns + int(rng.choice([0, 0, 3]))
        src_plane = src_rows * src_row + int(rng.choice([0, 7]))
        touched = (self.planes - 1) * src_plane + (src_rows - 1) * src_row + src_columns

        memory.clear()
        whole, counted = table.whole(columns), src_columns if backward else columns
        span = (columns - 1) // sw + 2 + -(-kw // sw) if backward else (columns - 1) * sw
        span += 0 if backward else (kw - 1) * dw + 1
        scratch = max(src_rows, POOL_ROWS) * span + (POOL_ROWS + 4) * table.lanes
        pages, dtype = memory.pages, table.dtype
        outputs = self.planes * self.rows * out_row
        self.out = pages["out"].array(outputs, dtype, flush)
        self.indices = pages["indices"].array(outputs, np.int64, flush)
        self.src = pages["src"].array(touched, dtype, flush)
        self.cells = pages["cells"].array(counted + table.lanes, dtype, flush)
        self.row_cells = pages["row_cells"].array(src_rows if backward else self.rows, dtype, flush)
        self.start = pages["start"].array(whole, table.tap_dtype, flush)
        self.place = pages["place"].array(whole, table.tap_dtype, flush)
        self.work = pages["work"].array(scratch, dtype, flush)
        self.cells[:] = rng.integers(1, 9, self.cells.size)
        self.cells[counted:] = 1
        self.row_cells[:] = rng.integers(1, 9, self.row_cells.size) * rng.choice([1, -1])
        self.start[:] = rng.integers(0, 50, whole)
        self.place[:] = rng.integers(0, 1000, whole)
        self.work[:] = np.nan
        # Rows in which some window row lies inside: the others' indices may be anything.
        at = top + np.arange(self.rows)[:, None] * sh + np.arange(kh) * dh
        self.counts = ((at >= 0) & (at < src_rows)).any(axis=1)
        self.args = PoolArgs(
            out=address(self.out),
            indices=address(self.indices),
            src=address(self.src),
            planes=self.planes,
            src_plane=src_plane,
            rows=self.rows,
            columns=columns,
            out_row=out_row,
            src_rows=src_rows,
            src_columns=src_columns,
            src_row=src_row,
            readable=int(rng.choice([0, touched - (self.planes - 1) * src_plane])),
            kh=kh,
            kw=kw,
            sh=sh,
            sw=sw,
            dh=dh,
            dw=dw,
            top=top,
            left=left,
            cells=address(self.cells),
            row_cells=address(self.row_cells),
            start=address(self.start),
            place=address(self.place),
            base=int(rng.integers(-5000, 1 << 40)),
            base_row=int(rng.integers(0, 5000)),
            row_number=int(rng.integers(kw, 500)),
            column_number=int(rng.integers(1, 9)),
            work=address(self.work),
        )

    def part(self, array: Array) -> Array:
        """Return the outputs within an array of them, without the gaps."""
        rows = array.reshape(self.planes, self.rows, self.args.out_row)
        return rows[..., : self.columns]

    def check(self, table: Table, oracle: ctypes.CDLL, kernel: str) -> None:
        """Run the kernel and the scalar loop, and compare all memory."""
        taps = kernel == "max_pool_forward_taps"
        out, indices = self.out.copy(), self.indices.copy()
        scalar = PoolArgs.from_buffer_copy(self.args)
        scalar.out, scalar.indices = address(out), address(indices)
        getattr(oracle, f"oracle_{table.name}_{kernel}")(ctypes.byref(scalar))
        before = self.memory.snapshot("out", "indices")
        table.call(kernel, self.args)
        got, expected = self.part(self.out), self.part(out)
        assert same_bits(got, expected), f"{got}\nis not\n{expected}\n{self.described()}"
        if taps:
            found, wanted = self.part(self.indices), self.part(indices)
            same = np.array_equal(found[:, self.counts], wanted[:, self.counts])
            assert same, f"{found}\nis not\n{wanted}\n{self.described()}"
            found[...] = 0
            wanted[...] = 0
        got[...] = 0
        expected[...] = 0
        # What is left are the gaps, and the memory around.
        assert self.out.tobytes() == out.tobytes(), self.described()
        assert self.indices.tobytes() == indices.tobytes(), self.described()
        for name, now in self.memory.snapshot("out", "indices").items():
            assert np.array_equal(now, before[name]), f"wrote to {name}"
        for page, array in (("out", self.out), ("indices", self.indices)):
            inside = self.memory.pages[page].bytes
            first = array.ctypes.data - inside.ctypes.data
            around = np.concatenate([inside[:first], inside[first + array.nbytes :]])
            assert (around == CANARY).all(), f"wrote beside {page}"

    def described(self) -> str:
        """Return the arguments that are numbers."""
        fields = (name for name, _ in PoolArgs._fields_)
        return " ".join(f"{name}={getattr(self.args, name)}" for name in fields)


def ties(rng: np.random.Generator, count: int, dtype: np.dtype) -> Array:
    """Return values among which many are equal, with zeros of both signs, infinities and NaNs."""
    values = rng.integers(-2, 3, count).astype(dtype)
    rare = np.array([np.nan, -np.nan, -np.inf, np.inf, -0.0, 0.0], dtype)
    chosen = rng.random(count) < rng.choice([0.0, 0.2, 0.9])
    values[chosen] = rng.choice(rare, int(chosen.sum()))
    return values


def rarely_special(rng: np.random.Generator, count: int, dtype: np.dtype) -> Array:
    """Return values among which many are equal, sometimes with a few infinities or NaNs."""
    values = rng.integers(-1, 2, count).astype(dtype)
    zeros = values == 0
    values[zeros] = rng.choice(np.array([-0.0, 0.0], dtype), int(zeros.sum()))
    few = rng.random(count) < rng.choice([0.0, 0.01])
    values[few] = rng.choice([[np.nan], [-np.inf, np.inf], [-np.inf]][rng.integers(3)])
    values[rng.random(count) < rng.choice([0.0, 0.8])] = -np.inf
    return values


def arbitrary(rng: np.random.Generator, count: int, dtype: np.dtype) -> Array:
    """Return numbers of many sizes, sometimes with infinities and NaNs."""
    return numbers(rng, count, dtype, special=bool(rng.random() < 0.3))


def check_all(
    table: Table,
    oracle: ctypes.CDLL,
    kernel: str,
    window: tuple[int, int],
    data: Callable[[np.random.Generator, int, np.dtype], Array],
) -> None:
    """Compare calls of every stride; of the common ones all lengths up to two vectors and one."""
    rng, memory = np.random.default_rng(sum(window)), Memory()
    lengths = range(1, 2 * table.lanes + 2)
    ends = sorted({1, table.lanes - 1, table.lanes, table.lanes + 1, 2 * table.lanes + 1})
    cases = [(s, n) for s in STRIDES for n in (lengths if s in STRIDES[:2] else ends)]
    for (stride, columns), flush in zip(cases, itertools.cycle(FLUSH), strict=False):
        backward = kernel == "avg_pool_backward_input"
        call = Call(rng, memory, table, window, stride, columns, flush, backward=backward)
        call.src[:] = data(rng, call.src.size, table.dtype)
        call.check(table, oracle, kernel)


@covers("max_pool_forward")
@pytest.mark.parametrize("window", WINDOWS, ids=str)
def test_max_is_the_scalar_maximum(
    table: Table, oracle: ctypes.CDLL, window: tuple[int, int]
) -> None:
    """NaN wins; otherwise the largest; minus infinity without taps."""
    check_all(table, oracle, "max_pool_forward", window, ties)


@covers("max_pool_forward_taps")
@pytest.mark.parametrize("window", WINDOWS, ids=str)
def test_max_finds_the_first_largest_and_the_last_nan(
    table: Table, oracle: ctypes.CDLL, window: tuple[int, int]
) -> None:
    """The same, with the place of the winning tap, or of the first where none is above -inf."""
    check_all(table, oracle, "max_pool_forward_taps", window, ties)


@covers("max_pool_forward_taps")
@pytest.mark.parametrize("window", [(2, 2), (3, 3)], ids=str)
@pytest.mark.parametrize("stride", [(1, 1), (2, 2)], ids=str)
def test_max_finds_the_first_largest_in_planes_small_and_large(
    table: Table, oracle: ctypes.CDLL, window: tuple[int, int], stride: tuple[int, int]
) -> None:
    """The usual windows of mostly plain numbers: NaNs are rare enough to leave other rows alone."""
    rng, memory = np.random.default_rng(7), Memory()
    lanes = table.lanes
    lengths = [*range(1, lanes + 2), 2 * lanes, 3 * lanes + 1]
    for columns, rows, flush in itertools.product(lengths, (1, 3, 6, 40), FLUSH):
        call = Call(rng, memory, table, window, stride, columns, flush, rows=rows)
        call.src[:] = rarely_special(rng, call.src.size, table.dtype)
        call.check(table, oracle, "max_pool_forward_taps")


@covers("avg_pool_forward")
@pytest.mark.parametrize("window", WINDOWS, ids=str)
def test_average_is_the_scalar_sum_divided(
    table: Table, oracle: ctypes.CDLL, window: tuple[int, int]
) -> None:
    """One sum in the order of the taps, one division, for all values."""
    check_all(table, oracle, "avg_pool_forward", window, arbitrary)


@covers("avg_pool_backward_input")
@pytest.mark.parametrize("window", WINDOWS, ids=str)
def test_average_backward_is_the_scalar_sum(
    table: Table, oracle: ctypes.CDLL, window: tuple[int, int]
) -> None:
    """Each cell is the sum over its windows in their order; zero where there is none."""
    check_all(table, oracle, "avg_pool_backward_input", window, arbitrary)


@covers("avg_pool_forward")
def test_average_of_rows_of_half_a_vector(table: Table, oracle: ctypes.CDLL) -> None:
    """Windows of 2 x 2 side by side, whose rows are done in twos where they touch."""
    rng, memory = np.random.default_rng(0), Memory()
    size = ((2, 2), (2, 2), table.lanes // 2)
    for _, flush in zip(range(40), itertools.cycle(FLUSH), strict=False):
        call = Call(rng, memory, table, *size, flush, rows=int(rng.choice([1, 2, 4])))
        call.src[:] = arbitrary(rng, call.src.size, table.dtype)
        call.check(table, oracle, "avg_pool_forward")


def check_side_by_side(
    table: Table, oracle: ctypes.CDLL, memory: Memory, rng: np.random.Generator, **sizes: Any
) -> None:
    """Compare a call of windows two wide that lie side by side."""
    call = Call(rng, memory, table, **sizes, stride=sizes["window"], backward=True, tiled=True)
    call.src[:] = arbitrary(rng, call.src.size, table.dtype)
    call.check(table, oracle, "avg_pool_backward_input")


@covers("avg_pool_backward_input")
@pytest.mark.parametrize("height", [2, 3])
def test_average_backward_of_rows_of_half_a_vector(
    table: Table, oracle: ctypes.CDLL, height: int
) -> None:
    """The same backward."""
    rng, memory, window = np.random.default_rng(height), Memory(), (height, 2)
    for _, flush in zip(range(40), itertools.cycle(FLUSH), strict=False):
        sizes = {"window": window, "columns": table.lanes, "flush": flush}
        rows = height * int(rng.choice([1, 2, 4]))
        check_side_by_side(table, oracle, memory, rng, rows=rows, **sizes)


@covers("avg_pool_backward_input")
@pytest.mark.parametrize("height", [1, 2, 3])
def test_average_backward_of_windows_side_by_side(
    table: Table, oracle: ctypes.CDLL, height: int
) -> None:
    """Two wide, and each cell in one window: rows shorter than a vector and longer, and bands."""
    rng, memory = np.random.default_rng(height), Memory()
    lengths, window = range(1, 2 * table.lanes + 2), (height, 2)
    for windows, flush in zip(lengths, itertools.cycle(FLUSH), strict=False):
        sizes = {"window": window, "columns": 2 * windows, "flush": flush}
        rows = int(rng.choice([1, 2, 7]))
        check_side_by_side(table, oracle, memory, rng, rows=rows, **sizes)


@covers("max_pool_forward_taps")
def test_max_rules_by_hand(table: Table) -> None:
    """The rules once more, with the answers written down rather than computed."""
    nan, inf = np.nan, np.inf
    cases = [  # the taps of one window, the value, the tap's number
        ([3, 3, 1], 3, 0),
        ([1, 3, 3], 3, 1),
        ([nan, 5, 1], nan, 0),
        ([nan, 5, nan], nan, 2),
        ([inf, nan, inf], nan, 1),
        ([-inf, -inf, -inf], -inf, 0),
        ([-inf, -5, -inf], -5, 1),
        ([-0.0, 0.0, -1], -0.0, 0),
        ([0.0, -0.0, -1], 0.0, 0),
    ]
    for (taps, value, number), stride in itertools.product(cases, (1, 2)):
        for columns in range(1, 2 * table.lanes + 2):
            # Three rows that hold one tap each, or (stride 2) one row that holds all.
            src = np.full((3, columns), 0, table.dtype)
            src[:] = np.array(taps, table.dtype)[:, None]
            rows, width = (3, columns) if stride == 1 else (1, 4 * columns)
            if stride == 2:
                src = np.full((1, 4 * columns), -inf, table.dtype)
                src[0, 0:3] = taps
            out = np.full(columns, 9, table.dtype)
            indices = np.full(columns, 9, np.int64)
            cells = np.zeros(table.whole(columns), table.tap_dtype)
            work = np.zeros(4096, table.dtype)
            args = PoolArgs(
                out=address(out),
                indices=address(indices),
                src=address(src),
                planes=1,
                rows=1,
                columns=columns,
                out_row=columns,
                src_rows=rows,
                src_columns=width,
                src_row=width,
                kh=rows,
                kw=1 if stride == 1 else 3,
                sh=1,
                sw=stride,
                dh=1,
                dw=1,
                start=address(cells),
                place=address(cells),
                row_number=1,
                column_number=1,
                work=address(work),
            )
            table.call("max_pool_forward_taps", args)
            count = columns if stride == 1 else 1
            assert same_bits(out[:count], np.full(count, value, table.dtype))
            assert (indices[:count] == number).all()


@covers("avg_pool_planes")
def test_average_of_planes_is_sixteen_scalar_sums(table: Table, oracle: ctypes.CDLL) -> None:
    """The same partial sums whatever the vectors' length, for every remainder."""
    rng, memory = np.random.default_rng(5), Memory()
    for count, flush in itertools.product([*range(1, 36), 49, 64, 169, 1000], FLUSH):
        planes, gap = int(rng.integers(1, 5)), int(rng.integers(0, 3))
        memory.clear()
        out = memory.pages["out"].array(planes, table.dtype, flush)
        src = memory.pages["src"].array((planes - 1) * (count + gap) + count, table.dtype, flush)
        src[:] = arbitrary(rng, src.size, table.dtype)
        cells = np.array([rng.integers(1, 9), rng.integers(1, 9)], table.dtype)
        args = PoolArgs(
            out=address(out),
            src=address(src),
            planes=planes,
            src_plane=count + gap,
            src_columns=count,
            cells=address(cells),
            row_cells=address(cells, 1),
        )
        expected = out.copy()
        scalar = PoolArgs.from_buffer_copy(args)
        scalar.out = address(expected)
        getattr(oracle, f"oracle_{table.name}_avg_pool_planes")(ctypes.byref(scalar))
        before = memory.snapshot("out")
        table.call("avg_pool_planes", args)
        assert same_bits(out, expected), f"{count}: {out} is not {expected}"
        out.view(np.uint8)[...] = CANARY
        assert (memory.pages["out"].bytes == CANARY).all(), "wrote beside its outputs"
        for name, now in memory.snapshot("out").items():
            assert np.array_equal(now, before[name]), f"wrote to {name}"


@covers("max_pool_backward_pairs")
def test_pairs_write_each_cell_once(table: Table, oracle: ctypes.CDLL) -> None:
    """The winner gets the gradient, whatever it is, and all other cells zero; odd widths as well.

    An index that is not in its window is found: outside the plane, in a neighbour's window, or one
    whose lower half alone would be right.
    """
    rng, memory = np.random.default_rng(6), Memory()
    lengths = range(table.lanes, 3 * table.lanes + 1)
    for columns, flush, odd in itertools.product(lengths, FLUSH, (0, 1)):
        rows, width = int(rng.integers(1, 4)), 2 * columns + odd
        grad_row, index_row = (columns + int(rng.integers(0, 3)) for _ in range(2))
        memory.clear()
        out = memory.pages["out"].array(2 * rows * width, table.dtype, flush)
        grad = memory.pages["src"].array((rows - 1) * grad_row + columns, table.dtype, flush)
        indices = memory.pages["indices"].array((rows - 1) * index_row + columns, np.int64, flush)
        grad[:] = arbitrary(rng, grad.size, table.dtype)
        y, q = np.ogrid[:rows, :columns]
        corner = 2 * y * width + 2 * q
        winner = corner + rng.choice([0, 1, width, width + 1], (rows, columns))
        at = (y * index_row + q).ravel()
        indices[at] = winner.ravel()
        strange = np.zeros(1, np.bool_)
        args = PairsArgs(
            grad_in=address(out),
            grad_out=address(grad),
            indices=address(indices),
            grad_row=grad_row,
            index_row=index_row,
            rows=rows,
            columns=columns,
            width=width,
            strange=address(strange),
        )
        expected = out.copy()
        scalar = PairsArgs.from_buffer_copy(args)
        scalar.grad_in = address(expected)
        getattr(oracle, f"oracle_{table.name}_max_pool_backward_pairs")(ctypes.byref(scalar))
        before = memory.snapshot("out")
        table.call("max_pool_backward_pairs", args)
        assert same_bits(out, expected), f"{out} is not {expected}"
        assert not strange[0]

        where = int(rng.choice(at))
        right = int(indices[where])
        for wrong in (-1, right + 2, right - 2 * width, right + (1 << 32), right - (1 << 40)):
            indices[where], strange[0] = wrong, False
            table.call("max_pool_backward_pairs", args)
            assert strange[0], f"{wrong} for {right}"
        indices[where] = right
        out.view(np.uint8)[...] = CANARY
        assert (memory.pages["out"].bytes == CANARY).all(), "wrote beside the plane"
        for name, now in memory.snapshot("out").items():
            assert np.array_equal(now, before[name]), f"wrote to {name}"
