"""The weight gradient's kernels against scalar loops, to the bit."""

import ctypes
import itertools
from typing import Any

import numpy as np
import pytest
from guarded import FLUSH, Flush, Pages
from kernels.library import (
    Array,
    Library,
    StripsArgs,
    Table,
    TransposeArgs,
    WeightArgs,
    address,
    covers,
    numbers,
    same_bits,
)

# lists of rows, and pixels in each
PIXELS = [(1, 1), (1, 8), (1, 33), (7, 7), (3, 2), (5, 1)]
NO_PIXELS = [(0, 3), (3, 0), (0, 0)]
CANARY = 0xA5


class Memory:
    """Guarded memory for the arrays of one call, used again for the next."""

    def __init__(self) -> None:
        self.out, self.vec, self.scal = (Pages(1 << 16) for _ in range(3))

    def place(
        self, pages: Pages, rng: np.random.Generator, count: int, dtype: Any, flush: Flush
    ) -> Array:
        """Return arbitrary numbers that touch a guard page, canaries around them."""
        pages.bytes[:] = CANARY
        array = pages.array(count, dtype, flush)
        array[:] = numbers(rng, count, dtype, special=True)
        return array


class Tile:
    """One call of weight_tile: offsets of either sign, arrays as large as the contract says."""

    def __init__(
        self,
        rng: np.random.Generator,
        memory: Memory,
        table: Table,
        rows: int,
        vectors: int,
        pixels: tuple[int, int],
        flush: Flush,
        *,
        accumulate: bool,
    ) -> None:
        row_count, columns = pixels
        width = vectors * table.lanes
        self.memory = memory
        self.offset = rng.integers(-40, 41, rows).astype(np.int64)
        self.row = rng.integers(-40, 41, row_count).astype(np.int64)
        step = int(rng.integers(-3, 4))
        reached = [self.offset, self.row, np.arange(columns) * step]
        low, high = 0, -1
        if rows and row_count and columns:
            low, high = (int(sum(end(part) for part in reached)) for end in (np.min, np.max))
        self.scal = memory.place(memory.scal, rng, high - low + 1, table.dtype, flush)
        self.vec = memory.place(memory.vec, rng, row_count * columns * width, table.dtype, flush)
        self.out = memory.place(memory.out, rng, rows * width, table.dtype, flush)
        self.args = WeightArgs(
            out=address(self.out),
            rows=rows,
            vectors=vectors,
            accumulate=accumulate,
            vec=address(self.vec),
            scal=address(self.scal, -low),
            offset=address(self.offset),
            row_count=row_count,
            columns=columns,
            pixel_step=step,
            row=address(self.row),
        )

    def check(self, oracle: ctypes.CDLL, table: Table) -> None:
        """Run the kernel; compare its output with the oracle's and all other memory with before."""
        expected = self.out.copy()
        args = WeightArgs.from_buffer_copy(self.args)
        args.out = address(expected)
        function = getattr(oracle, f"oracle_{table.name}_weight_tile")
        function(ctypes.addressof(args), table.lanes, int(table.fma))
        pages = (self.memory.out, self.memory.vec, self.memory.scal)
        before = [page.bytes.copy() for page in pages]
        was = self.out.copy()
        table.call("weight_tile", self.args)
        got = self.out.copy()
        self.out[:] = was
        for page, bytes_before in zip(pages, before, strict=True):
            assert np.array_equal(page.bytes, bytes_before), "wrote outside its rows"
        assert same_bits(got, expected), f"{got}\nis not\n{expected}"


@covers("weight_tile")
@pytest.mark.parametrize("accumulate", [False, True], ids=["zero", "accumulate"])
def test_every_tile_is_the_scalar_chain(
    table: Table, oracle: ctypes.CDLL, accumulate: bool
) -> None:
    """All rows with all vectors, every shape of the pixels, none of them too."""
    rng = np.random.default_rng(5)
    memory = Memory()
    most = table.tile_columns // table.lanes
    for rows, vectors in itertools.product(range(2 * table.tile_rows + 2), range(1, most + 1)):
        for pixels, flush in itertools.product(PIXELS + NO_PIXELS, FLUSH):
            tile = Tile(rng, memory, table, rows, vectors, pixels, flush, accumulate=accumulate)
            tile.check(oracle, table)


@pytest.mark.parametrize("dtype", ["f32", "f64"])
def test_chains_may_be_cut(library: Library, dtype: str) -> None:
    """Pixels in two calls, the second of which goes on: the bits of one call, on every ISA."""
    rng = np.random.default_rng(6)
    memory = Memory()
    for table in library.tables(dtype):
        tile = Tile(rng, memory, table, 3, 1, (1, 29), "back", accumulate=False)
        table.call("weight_tile", tile.args)
        whole = tile.out.copy()
        tile.args.columns = 12
        table.call("weight_tile", tile.args)
        tile.args.accumulate = True
        tile.args.columns = 29 - 12
        tile.args.vec = address(tile.vec, 12 * table.lanes)
        tile.args.scal += 12 * tile.args.pixel_step * tile.out.itemsize
        table.call("weight_tile", tile.args)
        assert same_bits(tile.out, whole)


@covers("transpose")
@pytest.mark.parametrize("add", [False, True], ids=["store", "add"])
def test_every_remainder_is_transposed(table: Table, oracle: ctypes.CDLL, add: bool) -> None:
    """All remainders of both sides, with gaps between the rows, between guard pages."""
    rng = np.random.default_rng(7)
    memory = Memory()
    lengths = sorted({*range(table.lanes + 2), 2 * table.lanes, 2 * table.lanes + 1})
    for rows, columns in itertools.product(lengths, lengths):
        for gap, flush in zip((0, 3), FLUSH, strict=True):
            in_step, out_step = columns + gap, rows + gap
            source = memory.place(
                memory.vec, rng, max(0, (rows - 1) * in_step + columns), table.dtype, flush
            )
            out = memory.place(
                memory.out, rng, max(0, (columns - 1) * out_step + rows), table.dtype, flush
            )
            expected = out.copy()
            args = TransposeArgs(
                out=address(expected),
                out_step=out_step,
                input=address(source),
                in_step=in_step,
                rows=rows,
                columns=columns,
                add=add,
            )
            getattr(oracle, f"oracle_{table.name}_transpose")(ctypes.byref(args))
            args.out = address(out)
            before = memory.out.bytes.copy()
            table.call("transpose", args)
            assert same_bits(out, expected), (rows, columns)
            memory.out.cut(out.nbytes, flush)[:] = 0
            (before[: out.nbytes] if flush == "front" else before[before.size - out.nbytes :])[
                :
            ] = 0
            assert np.array_equal(memory.out.bytes, before), "wrote beside the matrix"


@covers("strip_sums")
def test_strips_are_summed_in_order(table: Table, oracle: ctypes.CDLL) -> None:
    """Every remainder, to the bit, between guard pages."""
    rng = np.random.default_rng(8)
    memory = Memory()
    for count, flush in itertools.product([*range(50), 1000], FLUSH):
        source = memory.place(memory.vec, rng, count, table.dtype, flush)
        sums = memory.place(memory.out, rng, 16, table.dtype, flush)
        expected = sums.copy()
        args = StripsArgs(sums=address(expected), input=address(source), count=count)
        getattr(oracle, f"oracle_{table.name}_strip_sums")(ctypes.byref(args))
        args.sums = address(sums)
        table.call("strip_sums", args)
        assert same_bits(sums, expected), count


@covers("add_pairs")
def test_neighbours_are_added(table: Table, oracle: ctypes.CDLL) -> None:
    """Every remainder, beside and in place, to the bit, between guard pages."""
    rng = np.random.default_rng(9)
    memory = Memory()
    for count, flush, in_place in itertools.product([*range(40), 1000], FLUSH, (False, True)):
        source = memory.place(memory.vec, rng, 2 * count, table.dtype, flush)
        sums = memory.place(memory.out, rng, count, table.dtype, flush)
        expected = np.empty_like(sums)
        args = StripsArgs(sums=address(expected), input=address(source), count=count)
        getattr(oracle, f"oracle_{table.name}_add_pairs")(ctypes.byref(args))
        result = source[:count] if in_place else sums
        args.sums = address(result)
        table.call("add_pairs", args)
        assert same_bits(result, expected), count
