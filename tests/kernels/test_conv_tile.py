"""conv_tile against a scalar chain of fmas, to the bit, in every shape of the tile.

The inner loop of all convolution passes is this one kernel, so everything about it is tested to
the last corner: every number of rows with every number of columns (all remainders of the vector
length), every way to start, every shape of the three nested lists, memory that ends at a guard
page on the side where a step too far would go.
"""

import ctypes
import itertools
from typing import Any

import numpy as np
import pytest
from guarded import FLUSH, Flush, Pages
from kernels.library import (
    Array,
    Library,
    Table,
    TileArgs,
    address,
    covers,
    numbers,
    same_bits,
)

STARTS = ("zero", "init", "accumulate")
# outer, rows, columns of the lists; none of them may be needed for the result to be stored
DEPTHS = [(1, 1, 1), (2, 3, 2), (1, 1, 7), (5, 1, 1), (1, 4, 1), (3, 2, 3), (1, 9, 2), (4, 3, 5)]
EMPTY_DEPTHS = [(0, 1, 1), (2, 0, 3), (3, 2, 0), (0, 0, 0)]
CANARY = 0xA5


class Memory:
    """Guarded memory for the arrays of one call, used again for the next."""

    def __init__(self) -> None:
        self.out, self.init, self.vec, self.scal = (Pages(1 << 16) for _ in range(4))


class Tile:
    """One call: lists of random offsets, arrays exactly as large as the contract allows.

    The lists may lead to either side of the pointers, as a negative step does. The arrays begin at
    the smallest offset and end behind the largest, so a wrong offset leaves them.
    """

    def __init__(
        self,
        rng: np.random.Generator,
        memory: Memory,
        table: Table,
        rows: int,
        columns: int,
        *,
        start: str,
        depth: tuple[int, int, int],
        flush: Flush,
        special: bool = False,
    ) -> None:
        outer, row_count, col_count = depth
        self.memory, self.rows, self.columns = memory, rows, columns
        self.lists = [
            rng.integers(-40, 41, size).astype(np.int64)
            for size in (row_count, col_count, row_count, col_count)
        ]
        vec_row, vec_col, scal_row, scal_col = self.lists
        vec_outer, scal_outer, scal_step = (int(rng.integers(-30, 31)) for _ in range(3))
        self.args = TileArgs(
            out_step=columns + int(rng.integers(0, 4)),
            rows=rows,
            columns=columns,
            init_step=int(rng.integers(0, 3)),
            accumulate=start == "accumulate",
            outer=outer,
            vec_outer=vec_outer,
            scal_outer=scal_outer,
            row_count=row_count,
            col_count=col_count,
            vec_row=address(vec_row),
            vec_col=address(vec_col),
            scal_row=address(scal_row),
            scal_col=address(scal_col),
            scal_step=scal_step,
        )

        def place(pages: Pages, count: int) -> Array:
            pages.bytes[:] = CANARY
            array = pages.array(count, table.dtype, flush)
            array[:] = numbers(rng, count, table.dtype, special=special)
            return array

        self.vec, self.args.vec = self.spread(
            (outer, vec_outer), vec_row, vec_col, (table.whole(columns), 1), place, memory.vec
        )
        self.scal, self.args.scal = self.spread(
            (outer, scal_outer), scal_row, scal_col, (rows, scal_step), place, memory.scal
        )
        if start == "init":
            self.args.init = address(place(memory.init, (rows - 1) * self.args.init_step + 1))
        out = place(memory.out, (rows - 1) * self.args.out_step + columns)
        self.args.out = address(out)
        size = out.itemsize
        self.out = np.lib.stride_tricks.as_strided(
            out, (rows, columns), (self.args.out_step * size, size)
        )
        # what lies between the rows belongs to somebody else
        gaps = np.ones(out.size, bool)
        np.lib.stride_tricks.as_strided(gaps, (rows, columns), (self.args.out_step, 1))[:] = False
        out.view(np.uint8).reshape(out.size, size)[gaps] = CANARY

    @staticmethod
    def spread(
        outer: tuple[int, int],
        rows: Array,
        columns: Array,
        last: tuple[int, int],
        place: Any,
        pages: Pages,
    ) -> tuple[Array, int | None]:
        """Return an array of all that is read, and the address from which the offsets count."""
        steps = [np.arange(count) * step for count, step in (outer, last)]
        reached = [steps[0], rows, columns, steps[1]]
        if any(len(part) == 0 for part in reached):
            array = place(pages, 0)
            return array, address(array)  # nothing may be read
        low = sum(int(part.min()) for part in reached)
        high = sum(int(part.max()) for part in reached)
        array = place(pages, high - low + 1)
        return array, address(array, -low)

    def expected(self, oracle: ctypes.CDLL, table: Table) -> Array:
        """Return what the scalar loop makes of the same memory."""
        result = self.out.copy()
        args = TileArgs.from_buffer_copy(self.args)
        args.out, args.out_step = address(result), self.columns
        getattr(oracle, f"oracle_{table.name}_conv_tile")(ctypes.byref(args), int(table.fma))
        return result

    def check(self, oracle: ctypes.CDLL, table: Table) -> None:
        """Run the kernel; compare its output with the oracle's and all other memory with before."""
        expected = self.expected(oracle, table)
        pages = (self.memory.out, self.memory.vec, self.memory.scal, self.memory.init)
        before = [page.bytes.copy() for page in pages]
        was = self.out.copy()
        table.call("conv_tile", self.args)
        got = self.out.copy()
        self.out[:] = was
        for page, bytes_before in zip(pages, before, strict=True):
            assert np.array_equal(page.bytes, bytes_before), "wrote outside its rows and columns"
        assert same_bits(got, expected), f"{got}\nis not\n{expected}"


def sizes(table: Table) -> list[tuple[int, int]]:
    """Return all rows with all columns."""
    return list(itertools.product(range(1, table.tile_rows + 1), range(1, table.tile_columns + 1)))


@covers("conv_tile")
@pytest.mark.parametrize("start", STARTS)
def test_every_size_is_the_scalar_chain(table: Table, oracle: ctypes.CDLL, start: str) -> None:
    """Every tile, at both guard pages, with the lists' shapes in turn."""
    rng = np.random.default_rng(1)
    memory = Memory()
    depths = itertools.cycle(DEPTHS)
    for rows, columns in sizes(table):
        for flush in FLUSH:
            tile = Tile(
                rng, memory, table, rows, columns, start=start, depth=next(depths), flush=flush
            )
            tile.check(oracle, table)


@covers("conv_tile")
@pytest.mark.parametrize(
    "depth", DEPTHS + EMPTY_DEPTHS, ids=lambda depth: "x".join(map(str, depth))
)
def test_every_depth_is_the_scalar_chain(
    table: Table, oracle: ctypes.CDLL, depth: tuple[int, int, int]
) -> None:
    """Every shape of the lists, with infinities and NaNs, in tiles of every number of vectors."""
    rng = np.random.default_rng(2)
    memory = Memory()
    edges = {1, table.tile_columns}
    for whole in range(table.lanes, table.tile_columns + 1, table.lanes):
        edges |= {whole - 1, whole, min(whole + 1, table.tile_columns)}
    for columns in sorted(edges - {0}):
        for rows in {1, table.tile_rows // 2, table.tile_rows - 1, table.tile_rows}:
            for start, flush in itertools.product(STARTS, FLUSH):
                tile = Tile(
                    rng,
                    memory,
                    table,
                    rows,
                    columns,
                    start=start,
                    depth=depth,
                    flush=flush,
                    special=True,
                )
                tile.check(oracle, table)


@covers("conv_tile")
def test_nothing_is_read_when_a_count_is_zero(table: Table) -> None:
    """With an empty list the pointers may lead anywhere; the start value is the result."""
    init = np.arange(1, table.tile_rows + 1, dtype=table.dtype)
    for outer, rows, columns in EMPTY_DEPTHS:
        out = np.full((table.tile_rows, table.tile_columns), 7, table.dtype)
        args = TileArgs(
            out=address(out),
            out_step=table.tile_columns,
            rows=table.tile_rows,
            columns=table.tile_columns,
            init=address(init),
            init_step=1,
            outer=outer,
            row_count=rows,
            col_count=columns,
            **dict.fromkeys(("vec_row", "vec_col", "scal_row", "scal_col"), address(np.zeros(9))),
        )
        table.call("conv_tile", args)
        assert np.array_equal(out, np.repeat(init[:, None], table.tile_columns, 1))


@pytest.mark.parametrize("dtype", ["f32", "f64"])
def test_isas_with_fma_agree(library: Library, dtype: str) -> None:
    """One call, all ISAs that fuse: the same bytes. Cut into single rows as well."""
    tables = [table for table in library.tables(dtype) if table.fma]
    if len(tables) < 2:
        pytest.skip("this machine has no second instruction set with fused multiply-add")
    smallest = min(tables, key=lambda table: table.tile_columns)
    widest = max(tables, key=lambda table: table.lanes)
    rng = np.random.default_rng(3)
    memory = Memory()
    for columns in range(1, smallest.tile_columns + 1):
        tile = Tile(
            rng,
            memory,
            widest,  # its vectors are the longest, so what it may read the others may
            smallest.tile_rows,
            columns,
            start="accumulate",
            depth=(3, 2, 4),
            flush="back",
        )
        was = tile.out.copy()
        results = []
        for table, one_by_one in itertools.product(tables, (False, True)):
            tile.out[:] = was
            args = TileArgs.from_buffer_copy(tile.args)
            if one_by_one:
                args.rows = 1
            for row in range(tile.rows if one_by_one else 1):
                args.out = address(tile.out) + row * tile.out.strides[0]
                args.scal = tile.args.scal + row * args.scal_step * tile.out.itemsize
                table.call("conv_tile", args)
            results.append(tile.out.copy())
        assert all(same_bits(result, results[0]) for result in results)
