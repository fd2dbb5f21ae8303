"""Batch normalisation's kernels against their scalar definition, to the bit, beside guard pages."""

import ctypes
import itertools

import numpy as np
import pytest
from guarded import FLUSH, Pages
from kernels.library import (
    Array,
    NormMapArgs,
    NormSumsArgs,
    Table,
    address,
    covers,
    numbers,
    same_bits,
)

CANARY = 0xA5


def lengths(table: Table) -> list[int]:
    """Return numbers of elements around a vector, a step of all lanes and a block of 16 steps."""
    step = 128 // table.dtype.itemsize
    edges = (0, table.lanes, step, 2 * step, 16 * step, 32 * step)
    near = {edge + off for edge in edges for off in (-1, 0, 1, 3)}
    return sorted(count for count in near | set(range(step)) if count > 0)


@covers("norm_sums")
@pytest.mark.parametrize("kind", ["square", "product", "twins", "same array", "same row"])
@pytest.mark.parametrize("special", [False, True])
def test_norm_sums(table: Table, oracle: ctypes.CDLL, kind: str, special: bool) -> None:
    """Chains of 16 in each of the virtual lanes, then doubles, whatever the vector's length."""
    rng, u_page, v_page = np.random.default_rng(1), Pages(1 << 14), Pages(1 << 14)
    sums_page = Pages(1 << 12)
    lanes = 128 // table.dtype.itemsize
    for count, flush, rows in itertools.product(lengths(table), FLUSH, (1, 2, 5)):
        gap_u, gap_v = (int(gap) for gap in rng.integers(0, 4, 2))
        if kind == "twins":  # all is alike but the place
            gap_v = gap_u
        if rows > 1 and rows * (count + 3) * table.dtype.itemsize > 1 << 14:
            continue
        for page in (u_page, v_page, sums_page):
            page.bytes[:] = CANARY
        u_step, v_step = count + gap_u, count + gap_v
        u = u_page.array((rows - 1) * u_step + count, table.dtype, flush)
        v = v_page.array((rows - 1) * v_step + count, table.dtype, flush)
        sums = sums_page.array(2 * lanes, np.float64, flush)
        u[:] = numbers(rng, u.size, table.dtype, special=special)
        v[:] = numbers(rng, v.size, table.dtype, special=special)
        sums[:] = rng.standard_normal(2 * lanes)
        u0, v0 = (float(x) for x in numbers(rng, 2, table.dtype, special=special))
        if kind not in ("product", "twins"):
            v, v_step = u, u_step
        if kind == "same row":  # each of u meets it: no squares but those of the first row
            v_step = 0
        if kind in ("twins", "square", "same row"):
            v0 = u0
        expected = sums.copy()
        args = NormSumsArgs(
            address(sums), address(u), address(v), u0, v0, rows, u_step, v_step, count
        )
        scalar = NormSumsArgs.from_buffer_copy(args)
        scalar.sums = address(expected)
        getattr(oracle, f"oracle_{table.name}_norm_sums")(ctypes.byref(scalar), int(table.fma))
        before = u_page.bytes.copy(), v_page.bytes.copy()
        table.call("norm_sums", args)
        assert same_bits(sums, expected), f"{sums}\nis not\n{expected}"
        assert np.array_equal(u_page.bytes, before[0])
        assert np.array_equal(v_page.bytes, before[1])
        sums.view(np.uint8)[:] = CANARY
        assert (sums_page.bytes == CANARY).all()


@covers("norm_map")
@pytest.mark.parametrize("more", [False, True])
@pytest.mark.parametrize("in_place", [False, True])
def test_norm_map(table: Table, oracle: ctypes.CDLL, more: bool, in_place: bool) -> None:
    """One difference and one or two fused multiply-adds for each element."""
    rng = np.random.default_rng(2)
    pages = [Pages(1 << 13) for _ in range(3)]
    for count, flush, special, rows in itertools.product(
        range(1, 4 * table.lanes + 2), FLUSH, (False, True), (1, 3)
    ):
        gaps = [int(gap) for gap in rng.integers(0, 4, 3)]
        arrays: list[Array] = []
        for page, gap in zip(pages, gaps, strict=True):
            page.bytes[:] = CANARY
            values = page.array((rows - 1) * (count + gap) + count, table.dtype, flush)
            values[:] = numbers(rng, values.size, table.dtype, special=special)
            arrays.append(values)
        out, x, other = arrays
        if in_place:
            x, gaps[1] = out, gaps[0]
        else:
            out.view(np.uint8)[:] = CANARY
        scalars = rng.standard_normal((rows, 4)).astype(table.dtype).astype(np.float64)
        args = NormMapArgs(
            address(out),
            address(x),
            address(other) if more else None,
            address(scalars),
            rows,
            *(count + gap for gap in gaps),
            count,
        )
        expected = out.copy()
        scalar = NormMapArgs.from_buffer_copy(args)
        scalar.out = address(expected)
        getattr(oracle, f"oracle_{table.name}_norm_map")(ctypes.byref(scalar), int(table.fma))
        table.call("norm_map", args)
        assert same_bits(out, expected)
        out.view(np.uint8)[:] = CANARY
        assert (pages[0].bytes == CANARY).all()
