"""Depthwise convolutions in place against their scalar definitions, to the bit.

Planes whose border is not there, of every remainder of columns, between guard pages.
"""

import ctypes
import itertools

import numpy as np
import pytest
from guarded import FLUSH
from kernels.canaries import Memory
from kernels.library import Table, WalkArgs, address, covers, same_bits

# size, stride, whether rows are counted from the last
FORWARD = [(3, 1, False), (3, 1, True), (3, 2, False), (5, 1, False), (5, 2, False), (7, 1, False)]


def check(
    table: Table, oracle: ctypes.CDLL, memory: Memory, args: WalkArgs, turned: bool, back: bool
) -> None:
    """Run a call whose memory is filled, from the first row or from the last."""
    name = "conv_walk_back" if back else "conv_walk"
    out = memory.pages["out"].bytes
    if turned:
        size = table.dtype.itemsize
        args.out += (args.rows - 1) * args.out_step * size
        args.vec += (args.vec_rows - 1) * args.vec_step * size
        args.out_step, args.vec_step = -args.out_step, -args.vec_step
    before = memory.snapshot()
    getattr(oracle, f"oracle_{table.name}_conv_walk")(ctypes.byref(args), back, int(table.fma))
    expected, out[:] = out.copy(), before["out"]
    table.call(name, args)
    of_numbers = [array.view(table.dtype) for array in (out, expected)]
    assert same_bits(*of_numbers), [(f, getattr(args, f)) for f, *_ in WalkArgs._fields_]
    for page in ("vec", "weight"):
        assert np.array_equal(memory.pages[page].bytes, before[page]), f"wrote to {page}"


def walk_case(
    table: Table,
    memory: Memory,
    rng: np.random.Generator,
    size: int,
    sizes: tuple[int, int, int, int],
    column: np.ndarray,
) -> WalkArgs:
    """Return a call on new numbers, without its window's place."""
    rows, columns, vec_rows, vec_columns = sizes
    flush = FLUSH[int(rng.integers(2))]
    out_step, vec_step = (width + int(rng.integers(0, 3)) for width in (columns, vec_columns))
    memory.fill("out", (rows - 1) * out_step + columns, table.dtype, flush, rng)
    source = (vec_rows - 1) * vec_step + vec_columns
    weight = memory.fill("weight", size * size + 1, table.dtype, flush, rng)
    vec = memory.fill("vec", source, table.dtype, flush, rng)
    args = WalkArgs(
        out=address(memory.arrays["out"]),
        out_step=out_step,
        out_ahead=int(rng.integers(-(2**40), 2**40)),
        rows=rows,
        columns=columns,
        init=address(weight, size * size) if rng.integers(2) else None,
        weight=address(weight),
        vec=address(vec),
        vec_step=vec_step,
        vec_ahead=int(rng.integers(-(2**40), 2**40)),
        vec_rows=vec_rows,
        size=size,
        column=address(column),
    )
    args.kept = column  # it lives as long as the call
    return args


def there(offsets: list[int], stride: int, columns: int, vec_columns: int) -> np.ndarray:
    """Return offset, low and high of each tap across."""
    found = np.empty((len(offsets), 3), np.int64)
    for t, offset in enumerate(offsets):
        inside = [q for q in range(columns) if 0 <= q * stride + offset < vec_columns]
        found[t] = offset, inside[0] if inside else 0, inside[-1] + 1 if inside else 0
    return found


@covers("conv_walk")
@pytest.mark.parametrize(("size", "stride", "up"), FORWARD)
def test_walks_are_the_scalar_chain(
    table: Table, oracle: ctypes.CDLL, size: int, stride: int, up: bool
) -> None:
    """Windows that begin and end anywhere; rows from the last to the first too."""
    rng = np.random.default_rng(1)
    memory = Memory()
    columns = range(1, 5 * table.lanes + 3)
    for count, turned in itertools.product(columns, (False, True)):
        top, left, below, right = (int(rng.integers(0, size + 1)) for _ in range(4))
        rows = int(rng.integers(1, 9))
        vec_rows = max(1, (rows - 1) * stride + size - top - below)
        vec_columns = max(1, (count - 1) * stride + size - left - right)
        offsets = [t - left for t in range(size)]
        if turned and stride == 1:
            offsets.reverse()
        column = there(offsets, stride, count, vec_columns)
        args = walk_case(table, memory, rng, size, (rows, count, vec_rows, vec_columns), column)
        args.first, args.stride, args.up = -top, stride, up
        check(table, oracle, memory, args, turned, False)


@covers("conv_walk_back")
@pytest.mark.parametrize("size", [3, 5])
def test_walks_back_are_the_scalar_chain(table: Table, oracle: ctypes.CDLL, size: int) -> None:
    """Every remainder of columns and either parity of the padding, along both axes."""
    rng = np.random.default_rng(2)
    memory = Memory()
    for count, left in itertools.product(range(1, 7 * table.lanes + 3), (0, 1, 2, 3)):
        rows, top = int(rng.integers(1, 14)), int(rng.integers(0, 2 * size))
        vec_rows = max(1, (rows + top) // 2 - int(rng.integers(0, 3)))
        vec_columns = max(1, (count + left) // 2 - int(rng.integers(0, 3)))
        offsets = [(left - t + (left - t) % 2) // 2 for t in range(size)]
        column = there(offsets, 1, (count + 1) // 2, vec_columns)
        args = walk_case(table, memory, rng, size, (rows, count, vec_rows, vec_columns), column)
        args.first, args.stride, args.odd = top, 2, left % 2 == 1
        check(table, oracle, memory, args, False, True)
