"""The formulas of csrc/geom in Python, whose integers cannot overflow.

Written to be read beside the definition, not to be fast. A wrong value raises ValueError; a right
one whose size does not fit 64 bits, or whose array would have more bytes than that, MemoryError.
The checks come in the order in which the C code makes them, so that the kind of error is decided
where a call is wrong in two ways.

Axis 0 is the height, axis 1 the width. An array is meant to have 8 bytes per element.
"""

from typing import NamedTuple

INT64_MAX = 2**63 - 1

ZEROS, REFLECT, REPLICATE, CIRCULAR = range(4)  # pc_pad_mode
NUMBERS, SAME, VALID = range(3)  # pc_pad_rule

Pair = tuple[int, int]
Shape = tuple[int, int, int, int]


class Window(NamedTuple):
    """What a layer was told, as pc_window."""

    kernel: Pair = (1, 1)
    stride: Pair = (1, 1)
    dilation: Pair = (1, 1)
    pad: tuple[Pair, Pair] = ((0, 0), (0, 0))
    rule: int = NUMBERS
    mode: int = ZEROS
    ceil_mode: bool = False

    def span(self, axis: int) -> int:
        """From the first tap to the last one, both included."""
        return self.dilation[axis] * (self.kernel[axis] - 1) + 1


def representable(size: int) -> None:
    """Demand that a size, or a number of bytes, fits."""
    if size > INT64_MAX:
        raise MemoryError(size)


def array(n: int, channels: int, height: int, width: int) -> None:
    """Demand that an array's bytes fit, an empty batch counted as one sample."""
    representable(max(n, 1) * channels * height * width * 8)


def demand(condition: bool) -> None:
    """Demand a right value."""
    if not condition:
        raise ValueError


# ---- at construction ----


def check_window(window: Window) -> Window:
    """Return the window with its padding as numbers."""
    for pair in (window.kernel, window.stride, window.dilation):
        demand(min(pair) >= 1)
    demand(window.rule != SAME or window.stride == (1, 1))
    pad = []
    for axis in range(2):
        span = window.span(axis)
        representable(span)
        before, after = window.pad[axis]
        if window.rule == SAME:
            before = (span - 1) // 2
            after = (span - 1) - before
        elif window.rule == VALID:
            before = after = 0
        elif window.mode == ZEROS:
            demand(before >= 0 and after >= 0)
        demand(before + after >= -(2**63))  # crops more than any image has
        representable(before + after)
        pad.append((before, after))
    return window._replace(pad=(pad[0], pad[1]))


def check_pool_window(window: Window) -> Window:
    """Return the window with its padding as numbers, fit for a pool."""
    window = check_window(window)
    for axis in range(2):
        before, after = window.pad[axis]
        demand(before == after >= 0)
        demand(before <= window.kernel[axis] // 2)
    representable(window.kernel[0] * window.kernel[1])
    return window


def check_channels(in_channels: int, out_channels: int, groups: int, kernel: Pair) -> None:
    """Demand whole groups, and a weight that fits."""
    demand(min(in_channels, out_channels, groups) >= 1)
    demand(in_channels % groups == 0 and out_channels % groups == 0)
    demand(min(kernel) >= 1)
    array(out_channels, in_channels // groups, *kernel)


def check_output_padding(window: Window, output_padding: Pair) -> None:
    """Demand of each axis: smaller than the stride or smaller than the dilation."""
    demand(min(output_padding) >= 0)
    for axis in range(2):
        demand(output_padding[axis] < max(window.stride[axis], window.dilation[axis]))


# ---- with an input ----


def useful(window: Window, padded: list[int]) -> dict[str, int]:
    """Return strides and dilations without what no window uses."""
    stride = [min(window.stride[axis], max(padded[axis], window.span(axis))) for axis in range(2)]
    dilation = [1 if window.kernel[axis] == 1 else window.dilation[axis] for axis in range(2)]
    return {"sh": stride[0], "sw": stride[1], "dh": dilation[0], "dw": dilation[1]}


def conv(
    shape: Shape, in_channels: int, out_channels: int, groups: int, window: Window
) -> dict[str, int]:
    """Return the fields of pc_conv_geom."""
    window = check_window(window)
    check_channels(in_channels, out_channels, groups, window.kernel)
    demand(min(shape) >= 0 and shape[1] == in_channels)
    n, _, *size = shape
    padded, out = [], []
    for axis in range(2):
        before, after = window.pad[axis]
        if window.mode == REFLECT:
            demand(max(before, after) < size[axis])
        if window.mode == CIRCULAR:
            demand(max(before, after) <= size[axis])
    for axis in range(2):
        before, after = window.pad[axis]
        if before < 0 or after < 0:
            demand(size[axis] + min(before, 0) + min(after, 0) >= 1)
        if window.mode == REPLICATE:
            demand(min(size) >= 1)
        padded.append(size[axis] + before + after)
        representable(padded[axis])
    for axis in range(2):
        out.append((padded[axis] - window.span(axis)) // window.stride[axis] + 1)
    demand(min(out) >= 1 and min(size) >= 1)
    array(*shape)
    array(n, out_channels, out[0], out[1])
    return {
        "n": n, "g": groups, "ic": in_channels, "oc": out_channels,
        "ih": size[0], "iw": size[1], "oh": out[0], "ow": out[1],
        "kh": window.kernel[0], "kw": window.kernel[1], **useful(window, padded),
        "pt": window.pad[0][0], "pb": window.pad[0][1],
        "pl": window.pad[1][0], "pr": window.pad[1][1], "mode": window.mode,
    }  # fmt: skip


def conv_transpose(
    shape: Shape,
    in_channels: int,
    out_channels: int,
    groups: int,
    window: Window,
    output_padding: Pair = (0, 0),
    output_size: Pair | None = None,
) -> dict[str, int]:
    """Return the fields of pc_conv_geom: the convolution from the output back to the input."""
    demand(window.mode == ZEROS)
    window = check_window(window)
    check_channels(in_channels, out_channels, groups, window.kernel)
    demand(min(shape) >= 0 and shape[1] == in_channels)
    if output_size is None:
        check_output_padding(window, output_padding)
    n, _, *size = shape
    demand(min(size) >= 1)
    uncut, extra = [], list(output_padding)
    for axis in range(2):
        uncut.append((size[axis] - 1) * window.stride[axis] + window.span(axis))
        representable(uncut[axis])
    if output_size is not None:
        for axis in range(2):
            least = uncut[axis] - sum(window.pad[axis])
            demand(least <= output_size[axis] <= least + window.stride[axis] - 1)
            extra[axis] = output_size[axis] - least
    for axis in range(2):
        uncut[axis] += extra[axis]
        representable(uncut[axis])
    out = [uncut[axis] - sum(window.pad[axis]) for axis in range(2)]
    demand(min(out) >= 1)
    array(*shape)
    array(n, out_channels, out[0], out[1])
    return {
        "n": n, "g": groups, "ic": out_channels, "oc": in_channels,
        "ih": out[0], "iw": out[1], "oh": size[0], "ow": size[1],
        "kh": window.kernel[0], "kw": window.kernel[1], **useful(window, uncut),
        "pt": window.pad[0][0], "pb": window.pad[0][1],
        "pl": window.pad[1][0], "pr": window.pad[1][1], "mode": ZEROS,
    }  # fmt: skip


def pool(shape: Shape, window: Window) -> dict[str, int]:
    """Return the fields of pc_pool_geom."""
    window = check_pool_window(window)
    demand(min(shape) >= 0 and min(shape[1:]) >= 1)
    n, channels, *size = shape
    padded, out = [], []
    for axis in range(2):
        pad, stride = window.pad[axis][0], window.stride[axis]
        padded.append(size[axis] + 2 * pad)
        representable(padded[axis])
        room = padded[axis] - window.span(axis)
        if window.ceil_mode:
            windows = -(-room // stride) + 1
            if (windows - 1) * stride >= size[axis] + pad:  # would start behind the image
                windows -= 1
        else:
            windows = room // stride + 1
        out.append(windows)
    demand(min(out) >= 1)
    array(*shape)
    array(n, channels, out[0], out[1])
    return {
        "n": n, "c": channels, "ih": size[0], "iw": size[1], "oh": out[0], "ow": out[1],
        "kh": window.kernel[0], "kw": window.kernel[1], **useful(window, padded),
        "pt": window.pad[0][0], "pl": window.pad[1][0],
    }  # fmt: skip


# ---- cells of one axis ----


def pad_source(mode: int, i: int, size: int) -> int:
    """Return where position `i` reads in an axis of `size` elements, -1 for the padding value."""
    if size < 1:
        return -1
    if mode == CIRCULAR:
        return i % size
    if mode == REPLICATE:
        return min(max(i, 0), size - 1)
    if mode == REFLECT:
        period = max(2 * (size - 1), 1)
        return min(i % period, -i % period)
    return i if 0 <= i < size else -1


def avg_pool_count(size: int, o: int, kernel: int, stride: int, pad: int, include_pad: bool) -> int:
    """Return how many cells of one axis output `o` of an average pool counts."""
    if min(size, kernel, stride) < 1 or min(o, pad) < 0 or size + 2 * pad > INT64_MAX:
        return 0  # no pool is like that
    start = o * stride - pad
    first, end = (-pad, size + pad) if include_pad else (0, size)
    return max(min(start + kernel, end) - max(start, first), 0)
