"""The kernels that copy for dense_tile: each number at its place, nothing beyond what is allowed.

Each contract is a list of places: to[there] = from[here]. The test writes that list down with
NumPy, and gives the kernel arrays from the first place to the last one that it may touch, between
guard pages.
"""

import ctypes
import itertools

import numpy as np
import pytest
from guarded import FLUSH, Flush, Pages
from kernels.library import (
    Array,
    CopyArgs,
    PackArgs,
    Table,
    address,
    covers,
    numbers,
    same_bits,
)

# outer, count, rest
DEPTHS = [(1, 1, 0), (0, 1, 1), (2, 3, 1), (0, 7, 7), (3, 2, 2), (0, 0, 0), (2, 0, 0), (0, 4, 0)]
CANARY = 0xA5


class Memory:
    """Guarded memory for the two arrays of a call, used again for the next."""

    def __init__(self, rng: np.random.Generator, table: Table) -> None:
        self.rng, self.table = rng, table
        self.to, self.source = Pages(1 << 15), Pages(1 << 15)

    def check(
        self,
        kernel: str,
        args: ctypes.Structure,
        there: Array,
        here: Array,
        flush: Flush,
        *,
        read_to: int | None = None,
        write_to: int | None = None,
    ) -> None:
        """Run a kernel that shall do to[there] = from[here].

        It may read and write up to the ends that are given; without them exactly those places.
        """
        self.to.bytes[:] = CANARY
        self.source.bytes[:] = CANARY
        low, to_low = int(here.min(initial=0)), int(there.min(initial=0))
        high = int(here.max(initial=low - 1)) + 1 if read_to is None else read_to
        to_high = int(there.max(initial=to_low - 1)) + 1 if write_to is None else write_to
        source = self.source.array(high - low, self.table.dtype, flush)
        source[:] = numbers(self.rng, source.size, source.dtype, special=True)
        to = self.to.array(to_high - to_low, self.table.dtype, flush)
        args.source, args.to = address(source, -low), address(to, -to_low)

        before = self.to.bytes.copy(), self.source.bytes.copy()
        self.table.call(kernel, args)
        got = to.copy()
        assert same_bits(got[there - to_low], source[here - low])
        if write_to is None:
            to[there - to_low] = np.frombuffer(bytes([CANARY] * to.itemsize), to.dtype)[0]
        else:
            to.view(np.uint8)[:] = CANARY
        assert np.array_equal(self.to.bytes, before[0]), "wrote what it must not"
        assert np.array_equal(self.source.bytes, before[1]), "wrote to its source"


@covers("pack_scalars")
@pytest.mark.parametrize("flush", FLUSH)
def test_scalars_lie_as_the_tile_reads_them(table: Table, flush: Flush) -> None:
    """All rows with all remainders of the steps; rows side by side, apart and backwards."""
    rng = np.random.default_rng(1)
    memory = Memory(rng, table)
    channels = itertools.cycle((1, 3, 2, 0, 4))
    for rows, steps in itertools.product(
        range(1, table.dense_rows + 1), range(1, 2 * table.lanes + 2)
    ):
        for row_step in (1, steps, -int(rng.integers(1, 50))):
            args = PackArgs(
                channels=next(channels),
                steps=steps,
                rows=rows,
                channel_step=int(rng.integers(-60, 61)),
                row_step=row_step,
            )
            c, k, p = np.ogrid[: args.channels, :steps, :rows]
            memory.check(
                "pack_scalars",
                args,
                ((c * steps + k) * table.dense_rows + p).ravel(),
                (c * args.channel_step + p * row_step + k).ravel(),
                flush,
                write_to=args.channels * steps * table.dense_rows + table.lanes,
            )


@covers("pack_scalars")
@pytest.mark.parametrize("flush", FLUSH)
@pytest.mark.parametrize("sets", [1, 2, 3])
def test_scalars_go_to_their_places(table: Table, sets: int, flush: Flush) -> None:
    """Sets of steps behind each other: a step may be in several, or in none, but is read."""
    rng = np.random.default_rng(7)
    memory = Memory(rng, table)
    tall = table.dense_rows
    for rows, steps in itertools.product(range(1, tall + 1), range(1, 2 * table.lanes + 2)):
        channels, before = (int(i) for i in rng.integers(0, 4, 2))
        members = [np.flatnonzero(rng.random(steps) < 0.5) for _ in range(sets)]
        members[0] = np.union1d(members[0], [0, steps - 1])  # so that all of them are readable
        places, start = [], 0
        for member in members:
            step = len(member) * tall
            places += [(k, start + i * tall, step) for i, k in enumerate(member)]
            start += (before + channels) * step + table.lanes
        k, at, step = place = np.array(sorted(places), np.int64).T
        flat = np.ascontiguousarray(place.T)
        args = PackArgs(
            channels=channels,
            steps=steps,
            rows=rows,
            channel_step=int(rng.integers(-60, 61)),
            row_step=int(rng.integers(-40, 41)),
            ahead=int(rng.integers(-(10**6), 10**6)),
            place=address(flat),
            places=len(flat),
            channel=before,
        )
        c, i, p = np.ogrid[:channels, : k.size, :rows]
        memory.check(
            "pack_scalars",
            args,
            (at[i] + (before + c) * step[i] + p).ravel(),
            (c * args.channel_step + p * args.row_step + k[i]).ravel(),
            flush,
            write_to=start,
        )


@covers("copy_rows")
@pytest.mark.parametrize("from_column", [1, 2, 3, -1])
def test_rows_are_copied_exactly(table: Table, from_column: int) -> None:
    """All remainders of the columns; rows apart in either direction, or the same one again."""
    rng = np.random.default_rng(3)
    memory = Memory(rng, table)
    for columns, rows, flush in itertools.product(range(3 * table.lanes + 2), (0, 1, 2, 5), FLUSH):
        args = CopyArgs(
            rows=rows,
            columns=columns,
            to_step=int(rng.choice([-1, 1])) * (columns + int(rng.integers(0, 4))),
            from_step=int(rng.integers(-150, 151)) * int(rng.integers(0, 2)),
            from_column=from_column,
            ahead=int(rng.integers(-(10**6), 10**6)),
        )
        j, i = np.ogrid[:rows, :columns]
        memory.check(
            "copy_rows",
            args,
            (j * args.to_step + i).ravel(),
            (j * args.from_step + i * from_column).ravel(),
            flush,
        )
