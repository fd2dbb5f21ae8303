"""Sizes, taps and windows for :mod:`pyconv.reference`: integers and shapes only.

It shares nothing with the C code, so that the two can be checked against each other.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[Any]
Pair = int | Sequence[int]
Sides = tuple[tuple[int, int], tuple[int, int]]
Padding = int | Sequence[int] | Sequence[Sequence[int]] | str


def pair(value: Pair) -> tuple[int, int]:
    """One number for both axes, or one for each."""
    first, second = np.broadcast_to(np.asarray(value), 2)
    return int(first), int(second)


def sides_of(
    padding: Padding,
    kernel: Sequence[int] = (),
    stride: tuple[int, int] = (1, 1),
    dilation: tuple[int, int] = (1, 1),
) -> Sides:
    """Return any form of padding as ((top, bottom), (left, right))."""
    if isinstance(padding, str):
        if padding == "valid":
            return (0, 0), (0, 0)
        if padding != "same":
            raise ValueError(f"unknown padding {padding!r}")
        if stride != (1, 1):
            raise ValueError("padding='same' needs stride 1")
        rows, columns = (d * (k - 1) for k, d in zip(kernel, dilation, strict=True))
        return (rows // 2, rows - rows // 2), (columns // 2, columns - columns // 2)
    numbers = np.asarray(padding)
    if numbers.ndim < 2:
        numbers = np.broadcast_to(numbers, 2)[:, None]
    (top, bottom), (left, right) = np.broadcast_to(numbers, (2, 2)).tolist()
    return (top, bottom), (left, right)


def taps_of(
    padded_size: Sequence[int],
    kernel: Sequence[int],
    stride: tuple[int, int],
    dilation: tuple[int, int],
    count: Sequence[int] | None = None,
) -> tuple[list[tuple[tuple[int, int], tuple[slice, slice]]], tuple[int, int]]:
    """Return every tap with the slices it has in all windows, and how many windows there are."""
    if count is None:
        count = [
            (size - d * (k - 1) - 1) // s + 1
            for size, k, s, d in zip(padded_size, kernel, stride, dilation, strict=True)
        ]
    oh, ow = count
    if oh < 1 or ow < 1:
        raise ValueError(f"the window is larger than the padded image: output {oh} x {ow}")
    taps = []
    for i, j in np.ndindex(*kernel):
        top, left = i * dilation[0], j * dilation[1]
        rows = slice(top, top + stride[0] * (oh - 1) + 1, stride[0])
        columns = slice(left, left + stride[1] * (ow - 1) + 1, stride[1])
        taps.append(((i, j), (rows, columns)))
    return taps, (oh, ow)


def full_size(
    size: Sequence[int],
    kernel: Sequence[int],
    stride: Pair,
    padding: Pair,
    output_padding: Pair,
    dilation: Pair,
) -> tuple[tuple[slice, slice], list[int]]:
    """Return the slices that cut the padding off, and the size of the output before that."""
    full, crop = [], []
    for axis in (0, 1):
        s, d = pair(stride)[axis], pair(dilation)[axis]
        pad, more = pair(padding)[axis], pair(output_padding)[axis]
        length = (size[axis] - 1) * s + d * (kernel[axis] - 1) + 1 + more
        if length - 2 * pad < 1:
            raise ValueError(f"the output would be empty: size {length - 2 * pad}")
        full.append(length)
        crop.append(slice(pad, length - pad))
    return (crop[0], crop[1]), full


def pooled_size(
    size: tuple[int, int],
    kernel: tuple[int, int],
    stride: tuple[int, int],
    padding: tuple[int, int],
    dilation: tuple[int, int],
    ceil_mode: bool,
) -> tuple[int, int]:
    """Return the number of a pool's windows along both axes."""
    result = []
    for n, k, s, p, d in zip(size, kernel, stride, padding, dilation, strict=True):
        count = (n + 2 * p - d * (k - 1) - 1 + (s - 1 if ceil_mode else 0)) // s + 1
        if ceil_mode and (count - 1) * s >= n + p:
            count -= 1
        if count < 1:
            raise ValueError(f"the window is larger than the padded image: output size {count}")
        result.append(count)
    return result[0], result[1]


def average_windows(
    shape: Sequence[int],
    kernel_size: Pair,
    stride: Pair | None,
    padding: Pair,
    ceil_mode: bool,
    count_include_pad: bool,
    divisor_override: int | None,
) -> tuple[tuple[int, int], list[tuple[tuple[int, int], tuple[slice, slice], int]]]:
    """Return an average pool's size and each window: its place, its cells, its divisor."""
    if divisor_override == 0:
        raise ValueError("divisor must be not zero")
    kernel, pad = pair(kernel_size), pair(padding)
    step = kernel if stride is None else pair(stride)
    image_size = (shape[-2], shape[-1])
    size = pooled_size(image_size, kernel, step, pad, (1, 1), ceil_mode)
    windows = []
    for place in np.ndindex(*size):
        image, counted = [], 1
        for n, k, s, p, o in zip(image_size, kernel, step, pad, place, strict=True):
            start = o * s - p
            stop = min(start + k, n + p)  # clipped to the padded image first
            inside = slice(max(start, 0), min(stop, n))
            counted *= stop - start if count_include_pad else inside.stop - inside.start
            image.append(inside)
        rows, columns = image
        windows.append((place, (rows, columns), divisor_override or counted))
    return size, windows


def images(input: ArrayLike, weight: ArrayLike) -> tuple[Array, Array, bool]:
    """Bring both to the dtype of the work, the image to four axes; say whether it had a batch."""
    x, w = np.asarray(input), np.asarray(weight)
    if x.ndim not in (3, 4) or w.ndim != 4:
        raise ValueError(f"expected 3 or 4 and 4 axes, got {x.shape} and {w.shape}")
    batched = x.ndim == 4
    dtype = np.result_type(x, w, np.float32)
    return (x if batched else x[None]).astype(dtype), w.astype(dtype), batched


def like(gradient: ArrayLike, dtype: np.dtype[Any], batch: bool = True) -> Array:
    """Bring a gradient to the dtype of the work, and to four axes if it needs a batch."""
    gy = np.asarray(gradient, dtype)
    return gy[None] if batch and gy.ndim == 3 else gy


def split(array: Array, groups: int, axis: int) -> Array:
    """Split an axis of channels into (groups, channels of a group)."""
    before, channels, after = array.shape[:axis], array.shape[axis], array.shape[axis + 1 :]
    if channels % groups:
        raise ValueError(f"{channels} channels cannot be split into {groups} groups")
    return array.reshape(*before, groups, channels // groups, *after)


def padding_sources(shape: Sequence[int], padding: Padding, mode: str) -> list[Array]:
    """For both axes, the cell that each padded cell reads; -1 where it reads the padding zero."""
    result = []
    for size, (before, after) in zip(shape[-2:], sides_of(padding), strict=True):
        i = np.arange(-before, size + after)
        most = max(before, after)
        if mode == "zeros":
            source = np.where((i >= 0) & (i < size), i, -1)
        elif mode == "reflect":
            if most >= size:
                raise ValueError(f"reflect: padding {most} must be less than the size {size}")
            source = size - 1 - np.abs(size - 1 - np.abs(i))
        elif mode == "replicate":
            source = np.clip(i, 0, size - 1)
        elif mode == "circular":
            if most > size:
                raise ValueError(f"circular: padding {most} must be at most the size {size}")
            source = i % size
        else:
            raise ValueError(f"unknown padding mode {mode!r}")
        result.append(source)
    return result
