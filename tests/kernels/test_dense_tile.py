"""dense_tile against a scalar chain of fmas, to the bit, in every shape of the tile.

Forward and input gradient are this one inner loop, so everything about it is tested to the last
corner: every number of rows with every number of columns (all remainders of the vector length, and
runs of more than a tile), every way to start, every shape of the list, memory that ends at a guard
page on the side where a step too far would go.
"""

import ctypes
import itertools

import numpy as np
import pytest
from guarded import FLUSH, Flush, Pages
from kernels.library import (
    Array,
    DenseArgs,
    Library,
    Table,
    address,
    covers,
    numbers,
    same_bits,
)

STARTS = ("zero", "init", "accumulate")
# outer, count, rest
DEPTHS = [(1, 1, 0), (0, 1, 1), (2, 3, 1), (0, 7, 7), (5, 1, 0), (1, 9, 4), (3, 2, 2), (4, 6, 5)]
EMPTY_DEPTHS = [(0, 0, 0), (3, 0, 0), (0, 5, 0)]
CANARY = 0xA5


class Memory:
    """Guarded memory for the arrays of one call, used again for the next."""

    def __init__(self) -> None:
        self.out, self.init, self.vec, self.scal = (Pages(1 << 14) for _ in range(4))


class Tile:
    """One call: a list of random offsets, arrays exactly as large as the contract allows.

    The offsets may lead to either side of the pointer, as a negative step does. The array begins at
    the smallest and ends behind the largest, so a wrong offset leaves it.
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
        outer, count, rest = depth
        self.memory, self.rows, self.columns = memory, rows, columns
        self.list = rng.integers(-40, 41, count).astype(np.int64)
        self.args = DenseArgs(
            out_step=columns + int(rng.integers(0, 4)),
            rows=rows,
            columns=columns,
            init_step=int(rng.integers(0, 3)),
            accumulate=start == "accumulate",
            outer=outer,
            count=count,
            rest=rest,
            vec_outer=int(rng.integers(-30, 31)),
            list=address(self.list),
            ahead=int(rng.integers(-(10**6), 10**6)),
        )

        def place(pages: Pages, size: int) -> Array:
            pages.bytes[:] = CANARY
            array = pages.array(size, table.dtype, flush)
            array[:] = numbers(rng, size, table.dtype, special=special)
            return array

        steps = outer * count + rest
        offsets = [s // count * self.args.vec_outer + self.list[s % count] for s in range(steps)]
        low = int(min(offsets, default=0))
        reach = int(max(offsets)) - low + table.whole(columns) if offsets else 0
        self.vec = place(memory.vec, reach)
        self.args.vec = address(self.vec, -low)
        self.scal = place(memory.scal, (steps - 1) * table.dense_rows + rows if steps else 0)
        self.args.scal = address(self.scal)
        if start != "zero":  # accumulate leaves it alone
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

    def expected(self, oracle: ctypes.CDLL, table: Table) -> Array:
        """Return what the scalar loop makes of the same memory."""
        result = self.out.copy()
        args = DenseArgs.from_buffer_copy(self.args)
        args.out, args.out_step = address(result), self.columns
        function = getattr(oracle, f"oracle_{table.name}_dense_tile")
        function(ctypes.addressof(args), table.dense_rows, int(table.fma))
        return result

    def check(self, oracle: ctypes.CDLL, table: Table) -> None:
        """Run the kernel; compare its output with the oracle's and all other memory with before."""
        expected = self.expected(oracle, table)
        pages = (self.memory.out, self.memory.vec, self.memory.scal, self.memory.init)
        before = [page.bytes.copy() for page in pages]
        was = self.out.copy()
        table.call("dense_tile", self.args)
        got = self.out.copy()
        self.out[:] = was
        for page, bytes_before in zip(pages, before, strict=True):
            assert np.array_equal(page.bytes, bytes_before), "wrote outside its rows and columns"
        assert same_bits(got, expected), f"{got}\nis not\n{expected}"


def edges(table: Table, last: int) -> set[int]:
    """Return the numbers of columns up to `last` that are whole vectors, one less or one more."""
    whole = range(0, last + 1, table.lanes)
    return {columns + more for columns in whole for more in (-1, 0, 1)} & set(range(1, last + 1))


def sizes(table: Table) -> list[tuple[int, int]]:
    """Return all rows with all columns of a tile, and the ends of vectors in the next two."""
    found = []
    for rows in range(1, table.dense_rows + 1):
        wide = table.dense_vectors[rows - 1] * table.lanes
        columns = set(range(1, wide + 1)) | edges(table, 2 * wide + table.lanes)
        found += [(rows, each) for each in sorted(columns)]
    return found


@covers("dense_tile")
@pytest.mark.parametrize("start", STARTS)
def test_every_size_is_the_scalar_chain(table: Table, oracle: ctypes.CDLL, start: str) -> None:
    """Every tile, at both guard pages, with the list's shapes in turn."""
    rng = np.random.default_rng(1)
    memory = Memory()
    depths = itertools.cycle([*DEPTHS, (2, 2, 1)])  # nine: both guard pages meet each of them
    for rows, columns in sizes(table):
        for flush in FLUSH:
            tile = Tile(
                rng, memory, table, rows, columns, start=start, depth=next(depths), flush=flush
            )
            tile.check(oracle, table)


@covers("dense_tile")
@pytest.mark.parametrize(
    "depth", DEPTHS + EMPTY_DEPTHS, ids=lambda depth: "x".join(map(str, depth))
)
def test_every_depth_is_the_scalar_chain(
    table: Table, oracle: ctypes.CDLL, depth: tuple[int, int, int]
) -> None:
    """Every shape of the list, with infinities and NaNs, in tiles of every number of vectors."""
    rng = np.random.default_rng(2)
    memory = Memory()
    for rows in range(1, table.dense_rows + 1):
        wide = table.dense_vectors[rows - 1] * table.lanes
        for columns in sorted(edges(table, wide + 1)):
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


@covers("dense_tile")
def test_nothing_is_read_when_a_count_is_zero(table: Table) -> None:
    """Without steps the pointers may lead anywhere; the start value is the result."""
    for rows in range(1, table.dense_rows + 1):
        init = np.arange(1, rows + 1, dtype=table.dtype)
        columns = 2 * table.dense_vectors[rows - 1] * table.lanes
        for outer, count, rest in EMPTY_DEPTHS:
            out = np.full((rows, columns), 7, table.dtype)
            args = DenseArgs(
                out=address(out),
                out_step=columns,
                rows=rows,
                columns=columns,
                init=address(init),
                init_step=1,
                outer=outer,
                count=count,
                rest=rest,
                vec_outer=1000,
            )
            table.call("dense_tile", args)
            assert np.array_equal(out, np.repeat(init[:, None], columns, 1))


@pytest.mark.parametrize("dtype", ["f32", "f64"])
def test_isas_with_fma_agree(library: Library, dtype: str) -> None:
    """One call, all ISAs that fuse: the same bytes. Cut into single rows or columns as well."""
    tables = [table for table in library.tables(dtype) if table.fma]
    if len(tables) < 2:
        pytest.skip("this machine has no second instruction set with fused multiply-add")
    widest = max(tables, key=lambda table: table.lanes)
    rows = min(table.dense_rows for table in tables)
    rng = np.random.default_rng(3)
    memory = Memory()
    for columns in sorted(edges(widest, 2 * widest.lanes * widest.dense_vectors[rows - 1])):
        tile = Tile(
            rng,
            memory,
            widest,  # its vectors are the longest, so what it may read the others may
            rows,
            columns,
            start="accumulate",
            depth=(3, 4, 2),
            flush="front",
        )
        was = tile.out.copy()
        scalars = numbers(rng, 14 * rows, tile.out.dtype).reshape(14, rows)
        results = []
        for table, cut in itertools.product(tables, ("", "rows", "columns")):
            tile.out[:] = was
            packed = np.zeros((14, table.dense_rows), table.dtype)
            packed[:, :rows] = scalars
            args = DenseArgs.from_buffer_copy(tile.args)
            if cut:
                setattr(args, cut, 1)
            for p, q in np.ndindex(
                rows if cut == "rows" else 1, columns if cut == "columns" else 1
            ):
                args.out = tile.args.out + p * tile.out.strides[0] + q * tile.out.itemsize
                args.vec = tile.args.vec + q * tile.out.itemsize
                args.scal = address(packed, p)
                table.call("dense_tile", args)
            results.append(tile.out.copy())
        assert all(same_bits(result, results[0]) for result in results)
