"""The pools' row kernels against their scalar definition, to the bit, for every remainder."""

import ctypes
import itertools

import numpy as np
import pytest
from guarded import FLUSH, Flush, Pages
from kernels.library import Array, PoolArgs, Table, address, covers, numbers, same_bits

WINDOWS = [(1, 1), (1, 4), (3, 1), (2, 2), (3, 3), (4, 5)]
EMPTY_WINDOWS = [(0, 2), (2, 0), (0, 0)]
CANARY = 0xA5


class Memory:
    """Guarded memory for the arrays of one call, used again for the next."""

    def __init__(self) -> None:
        self.out, self.src, self.taps, self.divisor = (Pages(1 << 15) for _ in range(4))

    def snapshot(self) -> list[Array]:
        """Return a copy of all of it."""
        pages = (self.out, self.src, self.taps, self.divisor)
        return [page.bytes.copy() for page in pages]


class Row:
    """One call: random offsets, of either sign, into arrays as large as the contract allows.

    What a kernel touches in whole vectors is rounded up to them, everything else ends with the
    last column. Each array touches a guard page.
    """

    def __init__(
        self,
        rng: np.random.Generator,
        memory: Memory,
        table: Table,
        window: tuple[int, int],
        columns: int,
        flush: Flush,
        *,
        backward: bool = False,
    ) -> None:
        rows, cols = window
        whole = table.whole(columns)
        self.row = rng.integers(-25, 26, rows).astype(np.int64)
        self.col = rng.integers(-6, 7, cols).astype(np.int64)
        self.tap_row = rng.integers(0, 1000, rows).astype(np.int64)
        for page in (memory.out, memory.src, memory.taps, memory.divisor):
            page.bytes[:] = CANARY

        low, high = 0, -1
        if rows and cols:
            low = int(self.row.min() + self.col.min())
            high = int(self.row.max() + self.col.max()) + (columns if backward else whole) - 1
        self.src = memory.src.array(high - low + 1, table.dtype, flush)
        self.out = memory.out.array(whole if backward else columns, table.dtype, flush)
        self.taps = memory.taps.array(whole, table.tap_dtype, flush)
        self.divisor = memory.divisor.array(columns, table.dtype, flush)
        self.args = PoolArgs(
            out=address(self.out),
            src=address(self.src, -low),
            taps=address(self.taps),
            divisor=address(self.divisor),
            columns=columns,
            row_count=rows,
            col_count=cols,
            row=address(self.row),
            col=address(self.col),
            tap_row=address(self.tap_row),
        )


def lengths(table: Table) -> range:
    """Return numbers of columns: none to two whole vectors, and all that lies between."""
    return range(1, 2 * table.lanes + 2)


def ties(rng: np.random.Generator, count: int, dtype: np.dtype) -> Array:
    """Return values among which many are equal, with zeros of both signs, infinities and NaNs."""
    values = rng.integers(-2, 3, count).astype(dtype)
    rare = np.array([np.nan, -np.nan, -np.inf, np.inf, -0.0, 0.0], dtype)
    chosen = rng.random(count) < rng.choice([0.0, 0.2, 0.9])
    values[chosen] = rng.choice(rare, int(chosen.sum()))
    return values


def check_max(
    rng: np.random.Generator,
    memory: Memory,
    table: Table,
    oracle: ctypes.CDLL,
    row: Row,
    taps: bool,
) -> None:
    """Compare one max_pool_forward, with or without tap numbers, with the scalar loop."""
    row.src[:] = ties(rng, row.src.size, table.dtype)
    row.taps[:] = rng.integers(-5, 0, row.taps.size)
    columns = row.args.columns
    out, tap = row.out.copy(), row.taps.copy()
    scalar = PoolArgs.from_buffer_copy(row.args)
    scalar.out, scalar.taps = address(out), address(tap)
    getattr(oracle, f"oracle_{table.name}_max_pool")(ctypes.byref(scalar), int(taps))

    before = memory.snapshot()
    was = row.out.copy(), row.taps.copy()
    table.call("max_pool_forward_taps" if taps else "max_pool_forward", row.args)
    assert same_bits(row.out, out), f"{row.out}\nis not\n{out}"
    if taps:
        assert np.array_equal(row.taps[:columns], tap[:columns])
        row.taps[:] = was[1]  # behind the columns it may hold anything
    row.out[:] = was[0]
    for now, then in zip(memory.snapshot(), before, strict=True):
        assert np.array_equal(now, then), "wrote outside its columns"


@covers("max_pool_forward")
@pytest.mark.parametrize("window", WINDOWS + EMPTY_WINDOWS, ids=str)
def test_max_is_the_scalar_maximum(
    table: Table, oracle: ctypes.CDLL, window: tuple[int, int]
) -> None:
    """NaN wins; otherwise the largest; minus infinity without taps."""
    rng, memory = np.random.default_rng(1), Memory()
    for columns, flush, _ in itertools.product(lengths(table), FLUSH, range(3)):
        row = Row(rng, memory, table, window, columns, flush)
        check_max(rng, memory, table, oracle, row, taps=False)


@covers("max_pool_forward_taps")
@pytest.mark.parametrize("window", WINDOWS + EMPTY_WINDOWS, ids=str)
def test_max_finds_the_first_largest_and_the_last_nan(
    table: Table, oracle: ctypes.CDLL, window: tuple[int, int]
) -> None:
    """The same, with the number of the winning tap, or the start where none is above -inf."""
    rng, memory = np.random.default_rng(2), Memory()
    for columns, flush, _ in itertools.product(lengths(table), FLUSH, range(3)):
        row = Row(rng, memory, table, window, columns, flush)
        check_max(rng, memory, table, oracle, row, taps=True)


@covers("max_pool_forward_taps")
def test_max_rules_by_hand(table: Table) -> None:
    """The rules once more, with the answers written down rather than computed."""
    nan, inf = np.nan, np.inf
    cases = [  # the taps of one window, the value, the tap's number (7 is the start)
        ([3, 3, 1], 3, 0),
        ([1, 3, 3], 3, 1),
        ([nan, 5, 1], nan, 0),
        ([nan, 5, nan], nan, 2),
        ([inf, nan, inf], nan, 1),
        ([-inf, -inf, -inf], -inf, 7),
        ([-inf, -5, -inf], -5, 1),
        ([-0.0, 0.0, -1], -0.0, 0),
        ([0.0, -0.0, -1], 0.0, 0),
    ]
    for taps, value, number in cases:
        for columns in lengths(table):
            lanes = table.whole(columns)
            src = np.repeat(np.array(taps, table.dtype)[:, None], lanes, 1).copy()
            out = np.full(lanes, 9, table.dtype)
            numbers_found = np.full(lanes, 7, table.tap_dtype)
            row, tap_row = np.zeros(1, np.int64), np.zeros(1, np.int64)
            col = np.arange(3, dtype=np.int64) * lanes
            args = PoolArgs(
                out=address(out),
                src=address(src),
                taps=address(numbers_found),
                columns=columns,
                row_count=1,
                col_count=3,
                row=address(row),
                col=address(col),
                tap_row=address(tap_row),
            )
            table.call("max_pool_forward_taps", args)
            assert same_bits(out[:columns], np.full(columns, value, table.dtype))
            assert (out[columns:] == 9).all()
            assert (numbers_found[:columns] == number).all()


@covers("avg_pool_forward")
@pytest.mark.parametrize("window", WINDOWS + EMPTY_WINDOWS, ids=str)
def test_average_is_the_scalar_sum_divided(
    table: Table, oracle: ctypes.CDLL, window: tuple[int, int]
) -> None:
    """One sum in the order of the taps, one division, for all values."""
    rng, memory = np.random.default_rng(3), Memory()
    for columns, flush, special in itertools.product(lengths(table), FLUSH, (False, True)):
        row = Row(rng, memory, table, window, columns, flush)
        row.src[:] = numbers(rng, row.src.size, table.dtype, special=special)
        row.divisor[:] = rng.integers(1, 50, columns) * rng.choice([1, -1])
        row.out[:] = 9
        expected = row.out.copy()
        scalar = PoolArgs.from_buffer_copy(row.args)
        scalar.out = address(expected)
        getattr(oracle, f"oracle_{table.name}_avg_pool_forward")(ctypes.byref(scalar))
        before = memory.snapshot()
        table.call("avg_pool_forward", row.args)
        assert same_bits(row.out, expected), f"{row.out}\nis not\n{expected}"
        row.out[:] = 9
        for now, then in zip(memory.snapshot(), before, strict=True):
            assert np.array_equal(now, then), "wrote outside its columns"


@covers("avg_pool_backward_input")
@pytest.mark.parametrize("window", WINDOWS + EMPTY_WINDOWS, ids=str)
def test_average_backward_adds_in_order(
    table: Table, oracle: ctypes.CDLL, window: tuple[int, int]
) -> None:
    """Each tap adds to its cell, in the order of the taps; no other cell changes."""
    rng, memory = np.random.default_rng(4), Memory()
    for columns, flush, special in itertools.product(lengths(table), FLUSH, (False, True)):
        row = Row(rng, memory, table, window, columns, flush, backward=True)
        row.src[:] = numbers(rng, row.src.size, table.dtype, special=special)
        row.out[:] = numbers(rng, row.out.size, table.dtype, special=special)
        expected = row.src.copy()
        offset = (row.args.src or 0) - row.src.ctypes.data  # negative offsets lead back into it
        scalar = PoolArgs.from_buffer_copy(row.args)
        scalar.src = expected.ctypes.data + offset
        getattr(oracle, f"oracle_{table.name}_avg_pool_backward_input")(ctypes.byref(scalar))
        was, before = row.src.copy(), memory.snapshot()
        table.call("avg_pool_backward_input", row.args)
        assert same_bits(row.src, expected), f"{row.src}\nis not\n{expected}"
        row.src[:] = was
        for now, then in zip(memory.snapshot(), before, strict=True):
            assert np.array_equal(now, then), "wrote outside the plane"
