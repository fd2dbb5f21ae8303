"""The maps against their scalar definition, to the bit, for every remainder, beside guard pages."""

import ctypes
import itertools

import numpy as np
import pytest
from guarded import FLUSH, Flush, Pages
from kernels.library import Array, MapArgs, SpanArgs, Table, address, covers, numbers, same_bits

CANARY = 0xA5
COUNTS = (*range(70), 127, 128, 129, 191, 200, 256, 257)


class Memory:
    """Guarded memory for the arrays of one call."""

    def __init__(self) -> None:
        self.out, self.first, self.second, self.bits = (Pages(1 << 12) for _ in range(4))

    def arrays(self, table: Table, count: int, flush: Flush) -> tuple[Array, Array, Array, Array]:
        """Return out, in, grad and bits, each beside a guard page, with canaries all around."""
        for page in (self.out, self.first, self.second, self.bits):
            page.bytes[:] = CANARY
        words = -(-count // 64)
        return (
            self.out.array(count, table.dtype, flush),
            self.first.array(count, table.dtype, flush),
            self.second.array(count, table.dtype, flush),
            self.bits.array(words, np.uint64, flush),
        )

    def stray(self, page: Pages, array: Array) -> bool:
        """Tell whether anything of a page but the array has changed."""
        inside = array.ctypes.data - page.bytes.ctypes.data
        around = np.delete(page.bytes, np.arange(inside, inside + array.nbytes))
        return bool((around != CANARY).any())


def mixed(rng: np.random.Generator, count: int, table: Table) -> Array:
    """Return numbers of either sign, zeros, infinities and NaNs."""
    return numbers(rng, count, table.dtype, special=True)


@covers("relu_forward")
@pytest.mark.parametrize("remember", [False, True])
def test_relu_forward(table: Table, oracle: ctypes.CDLL, remember: bool) -> None:
    """Negative numbers become 0, all else stays as it is; a bit says where the gradient passes."""
    rng, memory = np.random.default_rng(1), Memory()
    for count, flush, inplace in itertools.product(COUNTS, FLUSH, (False, True)):
        out, x, _, bits = memory.arrays(table, count, flush)
        x[:] = mixed(rng, count, table)
        expected, wanted = np.empty_like(x), np.zeros_like(bits)
        args = MapArgs(address(out), address(x), None, address(bits) if remember else None, count)
        scalar = MapArgs.from_buffer_copy(args)
        scalar.out, scalar.bits = address(expected), address(wanted) if remember else None
        getattr(oracle, f"oracle_{table.name}_relu_forward")(ctypes.byref(scalar))
        before = x.copy()
        if inplace:
            args.out, out = args.in_, x
        table.call("relu_forward", args)
        assert same_bits(out, expected), f"{out}\nis not\n{expected}"
        if remember:
            assert np.array_equal(bits, wanted)
        else:
            assert memory.stray(memory.bits, bits[:0]) is False
        assert inplace or same_bits(x, before)
        assert not memory.stray(memory.out, out if not inplace else out[:0])
        assert not memory.stray(memory.first, x)
        assert not memory.stray(memory.bits, bits)


@covers("relu_backward")
@pytest.mark.parametrize("by", ["input", "bits"])
def test_relu_backward(table: Table, oracle: ctypes.CDLL, by: str) -> None:
    """The gradient where it passes, by the input or by the bits that forward left, else 0."""
    rng, memory = np.random.default_rng(2), Memory()
    for count, flush, inplace in itertools.product(COUNTS, FLUSH, (False, True)):
        out, x, grad, bits = memory.arrays(table, count, flush)
        x[:], grad[:] = mixed(rng, count, table), mixed(rng, count, table)
        expected = np.empty_like(x)
        forward = MapArgs(address(expected), address(x), None, address(bits), count)
        getattr(oracle, f"oracle_{table.name}_relu_forward")(ctypes.byref(forward))
        args = MapArgs(
            address(out),
            address(x) if by == "input" else None,
            address(grad),
            address(bits) if by == "bits" else None,
            count,
        )
        scalar = MapArgs.from_buffer_copy(args)
        scalar.out = address(expected)
        getattr(oracle, f"oracle_{table.name}_relu_backward")(ctypes.byref(scalar))
        if inplace:
            args.out, out = args.grad, grad
        table.call("relu_backward", args)
        assert same_bits(out, expected), f"{out}\nis not\n{expected}"
        assert not memory.stray(memory.out, out if not inplace else out[:0])
        assert not memory.stray(memory.second, grad)
        assert not memory.stray(memory.first, x)
        assert not memory.stray(memory.bits, bits)


@covers("relu_forward")
def test_relu_rules_by_hand(table: Table) -> None:
    """The rules once more, with the answers written down rather than computed."""
    x = np.array([-1, -0.0, 0.0, 2, np.nan, np.inf, -np.inf], table.dtype)
    out, bits = np.empty_like(x), np.full(1, 255, np.uint64)
    args = MapArgs(address(out), address(x), None, address(bits), x.size)
    table.call("relu_forward", args)
    expected = np.array([0, -0.0, 0.0, 2, np.nan, np.inf, 0], table.dtype)
    assert same_bits(out, expected)
    assert int(bits[0]) == 0b0111000


SPANS = (
    ([0], [3]),
    ([0, 2, 3], [2, 1, 2]),
    ([4, 5, 5, 7], [2, 1, 4, 1]),
    ([1, 1, 2], [1, 0, 1]),
)


@covers("span_sums")
def test_span_sums(table: Table, oracle: ctypes.CDLL) -> None:
    """Neighbouring rows at any distance, of either sign, are added in order, plane by plane."""
    rng, out_page, in_page = np.random.default_rng(3), Pages(1 << 14), Pages(1 << 16)
    lengths = (*range(1, 4 * table.lanes + 2), 8 * table.lanes, 9 * table.lanes + 1)
    for columns, flush, (first, count) in itertools.product(lengths, FLUSH, SPANS):
        for planes, gap in ((1, 0), (3, 2)):
            out_page.bytes[:] = in_page.bytes[:] = CANARY
            step = (columns + gap) * int(rng.choice([1, -1]))
            rows = max(f - first[0] + n for f, n in zip(first, count, strict=True))
            plane = (rows - 1) * abs(step) + columns
            out = out_page.array(planes * len(first) * columns, table.dtype, flush)
            block = in_page.array(planes * plane, table.dtype, flush)
            block[:] = numbers(rng, block.size, table.dtype, special=True)
            starts, counts = np.array(first, np.int64), np.array(count, np.int64)
            args = SpanArgs(
                out=address(out),
                in_=address(block, 0 if step > 0 else plane - columns),
                first=address(starts),
                count=address(counts),
                planes=planes,
                plane_step=plane,
                spans=len(first),
                step=step,
                columns=columns,
            )
            expected = np.empty_like(out)
            scalar = SpanArgs.from_buffer_copy(args)
            scalar.out = address(expected)
            getattr(oracle, f"oracle_{table.name}_span_sums")(ctypes.byref(scalar))
            before = in_page.bytes.copy()
            table.call("span_sums", args)
            assert same_bits(out, expected), f"{out}\nis not\n{expected}"
            assert np.array_equal(in_page.bytes, before)
            out.view(np.uint8)[:] = CANARY
            assert (out_page.bytes == CANARY).all()
