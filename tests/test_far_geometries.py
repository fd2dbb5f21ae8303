"""Geometries far from any network, where scratch memory is counted wrongly if it is at all.

What a call takes as scratch is counted before it runs, by the code that uses it. These are the
shapes where the two have differed. The arenas are larger than what is asked for, so an overflow
may go unnoticed: the asserts of a sanitizer build notice it. In children, for those.
"""

from typing import Any

import numpy as np
import pytest
from guarded import in_child

import pyconv
import pyconv.functional as F
from pyconv import reference

Array = np.ndarray[Any, np.dtype[Any]]


def whole(rng: np.random.Generator, shape: tuple[int, ...], dtype: str) -> Array:
    """Return whole numbers from -2 to 2: every sum here is exact in float32."""
    return rng.integers(-2, 3, shape).astype(dtype)


TAPS = 25000


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("kernel", [(1, TAPS), (TAPS, 1)], ids=["wide", "tall"])
@in_child
def test_window_of_more_taps_than_l1_holds(kernel: list[int], dtype: str) -> None:
    """By a loop over the few outputs. The input gradient takes long: once, and fewer channels."""
    rng = np.random.default_rng(11)
    oc, few, outputs = 33, 4, 3
    size = [TAPS + outputs - 1 if k > 1 else 1 for k in kernel]
    x = whole(rng, (1, 1, *size), dtype)
    w = whole(rng, (oc, 1, *kernel), dtype)
    bias = whole(rng, (oc,), dtype)
    line, taps = x.ravel().astype(float), w.reshape(oc, TAPS).astype(float)
    gy = whole(rng, (oc, outputs), dtype)
    y, gx, gw = np.zeros((oc, outputs)), np.zeros_like(line), np.zeros_like(taps)
    for o in range(outputs):
        seen = slice(o, o + TAPS)
        y[:, o] = taps @ line[seen] + bias
        gx[seen] += gy[:few, o] @ taps[:few]
        gw += np.outer(gy[:, o], line[seen])
    got = F.conv2d(x, w, bias)
    assert np.array_equal(got.reshape(oc, outputs), y)
    grad = gy.reshape(got.shape)
    _, got_gw, _ = F.conv2d_backward(grad, x, w, output_mask=(False, True, False))
    assert got_gw is not None
    assert np.array_equal(got_gw.reshape(oc, TAPS), gw)
    if dtype == "float64" and kernel[0] == 1:
        less = grad[:, :few], x, w[:few]
        got_gx, _, _ = F.conv2d_backward(*less, output_mask=(True, False, False))
        assert got_gx is not None
        assert np.array_equal(got_gx.ravel(), gx)


# Input channels, output channels and size of the image; kernel; padding. The padded gradient is
# taken by as many channels at a time as make a megabyte, and fewer the last time need more scratch.
LAST_BLOCKS = [
    ((8, 2, 128, 256), (1, 1), 1, "float32"),
    ((9, 2, 200, 256), (3, 8), 3, "float64"),
    ((12, 3, 90, 256), (7, 3), 1, "float64"),
]


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize(("sizes", "kernel", "padding", "dtype"), LAST_BLOCKS, ids=str)
@in_child
def test_last_block_of_a_padded_gradient(
    sizes: list[int], kernel: list[int], padding: int, dtype: str, threads: int
) -> None:
    """The gradient under a circular padding is that of the padded input, folded back."""
    rng = np.random.default_rng(12)
    ic, oc, *size = sizes
    sides = ((padding, padding), (padding, padding))
    layer = pyconv.Conv2d(
        ic,
        oc,
        (kernel[0], kernel[1]),
        padding=padding,
        padding_mode="circular",
        bias=False,
        dtype=dtype,
    )
    layer.weight = whole(rng, layer.weight.shape, dtype)
    x = whole(rng, (1, ic, *size), dtype)
    with pyconv.num_threads(threads):
        y = layer(x)
        gy = whole(rng, y.shape, dtype)
        got = layer.backward(gy)
    assert got is not None
    bordered = np.zeros((1, ic, size[0] + 2 * padding, size[1] + 2 * padding), dtype)
    for r in range(kernel[0]):
        for s in range(kernel[1]):
            seen = bordered[:, :, r : r + y.shape[2], s : s + y.shape[3]]
            seen += np.einsum("nohw,oi->nihw", gy, layer.weight[:, :, r, s])
    assert np.array_equal(got, reference.padded_backward(bordered, x.shape, sides, "circular"))


@in_child
def test_infinite_weight_of_a_last_block() -> None:
    """Each block looks at its own weights: this one's infinity meets no zeros behind grad_out."""
    layer = pyconv.Conv2d(9, 2, 2, padding=1, padding_mode="circular", dtype="float64")
    weight = np.ones(layer.weight.shape)
    weight[-1, -1, 0, 0] = np.inf
    layer.weight = weight
    y = layer(np.ones((1, 9, 200, 256)))
    gx = layer.backward(np.ones(y.shape))
    assert gx is not None
    assert np.isfinite(gx[:, :-1]).all()
    assert np.isposinf(gx[:, -1]).all()


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("stride", [1, 2])
@in_child
def test_bands_leave_out_taps_in_padding(stride: int, threads: int, dtype: str) -> None:
    """Strong dilation: most bands read only padding with some rows of the window."""
    rng = np.random.default_rng(14)
    size = 38 if stride == 1 else 75
    x, w = whole(rng, (2, 5, size, size), dtype), whole(rng, (14, 5, 3, 3), dtype)
    options = {"stride": stride, "padding": 12 * stride, "dilation": 12 * stride}
    with pyconv.num_threads(threads):
        y = F.conv2d(x, w, **options)
        grad = whole(rng, y.shape, dtype)
        gx = F.conv2d_backward(grad, x, w, **options, output_mask=(True, False, False))[0]
    assert np.array_equal(y, reference.conv2d(x, w, **options))
    assert np.array_equal(gx, reference.conv2d_backward(grad, x, w, **options)[0])


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("window", [(2, 2), (1, 3), (5, 4)], ids=str)
@in_child
def test_windows_that_tile_the_output(window: list[int], threads: int, dtype: str) -> None:
    """Pixels of a window as rows of a 1x1 convolution: groups, bias, samples, several panels."""
    rng = np.random.default_rng(15)
    for n, groups, ic, oc, size in (
        (3, 2, 4, 6, (5, 7)),
        (3, 2, 40, 24, (5, 7)),
        (2, 1, 40, 90, (18, 31)),
    ):
        x = whole(rng, (n, ic, *size), dtype)
        w, b = whole(rng, (ic, oc // groups, *window), dtype), whole(rng, (oc,), dtype)
        with pyconv.num_threads(threads):
            y = F.conv_transpose2d(x, w, b, stride=tuple(window), groups=groups)
        expected = reference.conv_transpose2d(x, w, b, stride=tuple(window), groups=groups)
        assert np.array_equal(y, expected)


# Window, stride, padding, dilation, size of the input. By one of them the windows do not tile.
NOTHING = (0, 0)
ALMOST = [
    ((2, 2), (2, 2), ((0, 1), NOTHING), (2, 1), (6, 8)),
    ((2, 2), (2, 2), (NOTHING, (0, 1)), (1, 2), (6, 8)),
    ((3, 3), (3, 3), ((1, 0), NOTHING), (1, 1), (6, 9)),
    ((3, 3), (3, 3), (NOTHING, (1, 0)), (1, 1), (6, 9)),
    ((2, 2), (2, 2), (NOTHING, NOTHING), (1, 1), (7, 8)),
    ((2, 2), (2, 2), (NOTHING, NOTHING), (1, 1), (6, 9)),
    ((3, 2), (2, 2), (NOTHING, NOTHING), (1, 1), (6, 8)),
    ((2, 3), (2, 2), (NOTHING, NOTHING), (1, 1), (8, 6)),
]


# One window along an axis tiles it whatever the stride, if it is as long as the input.
SINGLE = [
    ((4, 4), (1, 1), (NOTHING, NOTHING), (1, 1), (4, 4)),
    ((3, 5), (1, 2), (NOTHING, NOTHING), (1, 1), (3, 5)),
    ((4, 2), (1, 2), (NOTHING, NOTHING), (1, 1), (4, 6)),
    ((2, 5), (2, 7), (NOTHING, NOTHING), (1, 1), (6, 5)),
    ((4, 4), (1, 1), (NOTHING, NOTHING), (1, 1), (4, 5)),
    ((4, 4), (3, 3), (NOTHING, NOTHING), (1, 1), (5, 6)),
    ((3, 3), (1, 1), (NOTHING, NOTHING), (2, 2), (5, 5)),
]


@pytest.mark.parametrize(
    ("kernel", "stride", "padding", "dilation", "size"), ALMOST + SINGLE, ids=str
)
def test_windows_that_tile_the_output_or_almost(
    kernel: Any, stride: Any, padding: Any, dilation: Any, size: tuple[int, int]
) -> None:
    """Some pixels of grad_in meet other taps than that of their place in a window."""
    rng = np.random.default_rng(16)
    x, w = whole(rng, (2, 4, *size), "float32"), whole(rng, (5, 4, *kernel), "float32")
    options = {"stride": stride, "padding": padding, "dilation": dilation}
    gy = whole(rng, F.conv2d(x, w, **options).shape, "float32")
    gx, _, _ = F.conv2d_backward(gy, x, w, **options, output_mask=(True, False, False))
    assert np.array_equal(gx, reference.conv2d_backward(gy, x, w, **options)[0])


@in_child
def test_threads_share_the_kernel_rows_of_a_dilated_window() -> None:
    """With one input channel and few outputs there is nothing else that they could share."""
    rng = np.random.default_rng(13)
    x, w = whole(rng, (1, 1, 304, 300), "float32"), whole(rng, (3, 1, 3, 3), "float32")
    gy = whole(rng, (3, 300, 298), "float32")
    expected = [
        [np.tensordot(gy, x[0, 0, 2 * r : 2 * r + 300, s : s + 298], 2) for s in range(3)]
        for r in range(3)
    ]
    with pyconv.num_threads(2):
        _, got, _ = F.conv2d_backward(
            gy[None], x, w, dilation=(2, 1), output_mask=(False, True, False)
        )
    assert got is not None
    assert np.array_equal(got[:, 0], np.moveaxis(np.array(expected), 2, 0))
