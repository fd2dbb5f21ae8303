"""The reference, checked by hand-made examples and by identities; nothing here uses the C code.

All numbers are small integers, so every sum is exact and every comparison has tolerance 0. The
gradients are checked as adjoints: a map A and its gradient A' satisfy <A x, g> = <x, A' g>.
"""

import inspect
import itertools
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from pyconv import reference as R

RNG_SEEDS = range(150)


def integers(rng: np.random.Generator, *shape: int) -> np.ndarray:
    return rng.integers(-4, 5, shape).astype(np.float64)


def dot(a: Any, b: Any) -> float:
    assert np.shape(a) == np.shape(b)
    return float(np.sum(np.asarray(a) * b))


def window(rng: np.random.Generator) -> tuple[Any, ...]:
    """Kernel, stride, dilation and padding ((top, bottom), (left, right))."""
    k, s, d = (tuple(int(v) for v in rng.integers(1, 4, 2)) for _ in range(3))
    return k, s, d, rng.integers(0, 3, (2, 2)).tolist()


def convolutions() -> Iterator[tuple[Any, ...]]:
    """Random images, weights and windows that fit."""
    for seed in RNG_SEEDS:
        rng = np.random.default_rng([1, seed])
        k, s, d, pad = window(rng)
        size = [max(1, d[i] * (k[i] - 1) + 1 - sum(pad[i])) + int(rng.integers(6)) for i in (0, 1)]
        g, ic, oc, n = (int(v) for v in rng.integers(1, 4, 4))
        x = integers(rng, n, g * ic, *size)
        w = integers(rng, g * oc, ic, *k)
        yield (
            rng,
            x,
            w,
            integers(rng, g * oc),
            {
                "stride": s,
                "padding": pad,
                "dilation": d,
                "groups": g,
            },
        )


# ---- names ----


def test_names_and_arguments() -> None:
    expected = {
        "conv2d": "input weight bias stride padding dilation groups",
        "conv2d_backward": "grad_output input weight stride padding dilation groups output_mask",
        "conv_transpose2d": "input weight bias stride padding output_padding groups dilation",
        "conv_transpose2d_backward": "grad_output input weight stride padding output_padding "
        "groups dilation output_mask",
        "max_pool2d": "input kernel_size stride padding dilation ceil_mode return_indices",
        "max_pool2d_backward": "grad_output indices input_shape",
        "avg_pool2d": "input kernel_size stride padding ceil_mode count_include_pad "
        "divisor_override",
        "avg_pool2d_backward": "grad_output input_shape kernel_size stride padding ceil_mode "
        "count_include_pad divisor_override",
        "adaptive_avg_pool2d": "input output_size",
        "adaptive_avg_pool2d_backward": "grad_output input_shape",
        "batch_norm": "input running_mean running_var weight bias training momentum eps",
        "batch_norm_backward": "grad_output input running_mean running_var weight training eps "
        "output_mask",
        "relu": "input inplace",
        "relu_backward": "grad_output input",
        "padded": "input padding mode",
        "padded_backward": "grad_output input_shape padding mode",
    }
    assert sorted(expected) == sorted(R.__all__)
    for name, parameters in expected.items():
        assert list(inspect.signature(getattr(R, name)).parameters) == parameters.split()


# ---- padding ----


@pytest.mark.parametrize(
    ("mode", "numpy_mode"),
    [("zeros", "constant"), ("reflect", "reflect"), ("replicate", "edge"), ("circular", "wrap")],
)
def test_padded_is_what_numpy_pads(mode: str, numpy_mode: str) -> None:
    x = np.arange(2 * 3 * 4).reshape(2, 3, 4)
    for pad in itertools.product((0, 1, 2), (0, 2), (0, 3), (0, 1)):
        sides = ((0, 0), pad[:2], pad[2:])
        result = R.padded(x, (pad[:2], pad[2:]), mode)
        np.testing.assert_array_equal(result, np.pad(x, sides, mode=numpy_mode))
        assert not np.shares_memory(x, result)


@pytest.mark.parametrize("mode", ["zeros", "reflect", "replicate", "circular"])
def test_padded_backward_is_the_adjoint(mode: str) -> None:
    for seed in range(30):
        rng = np.random.default_rng([2, seed])
        pad = rng.integers(-1, 3, (2, 2)).tolist()
        x = integers(rng, 2, 3, 4)
        y = R.padded(x, pad, mode)
        g = integers(rng, *y.shape)
        assert dot(y, g) == dot(x, R.padded_backward(g, x.shape, pad, mode))


def test_padded_limits_and_crop() -> None:
    row = [[1, 2, 3]]
    with pytest.raises(ValueError, match="reflect"):
        R.padded(row, (0, 3), "reflect")
    with pytest.raises(ValueError, match="circular"):
        R.padded(row, (0, 4), "circular")
    with pytest.raises(ValueError, match="unknown"):
        R.padded(row, 0, "other")
    assert R.padded(row, (0, 2), "reflect").tolist() == [[3, 2, 1, 2, 3, 2, 1]]
    assert R.padded(row, (0, 3), "circular").tolist() == [[1, 2, 3] * 3]
    assert R.padded(row, ((0, 0), (-1, 1)), "replicate").tolist() == [[2, 3, 3]]


# ---- convolution ----


def test_conv2d_by_hand() -> None:
    x = np.arange(25).reshape(1, 5, 5)
    sobel = [[[[1, 0, -1], [2, 0, -2], [1, 0, -1]]]]
    assert R.conv2d(x, sobel).tolist() == [[[-8.0] * 3] * 3]
    assert R.conv2d(x, [[[[1]]]], [100], stride=2)[0].tolist() == [
        [100, 102, 104],
        [110, 112, 114],
        [120, 122, 124],
    ]


def test_conv2d_with_one_nonzero_tap_is_a_shifted_image() -> None:
    rng = np.random.default_rng(3)
    x = integers(rng, 1, 2, 9, 8)
    for i, j, channel in itertools.product(range(3), range(2), range(2)):
        w = np.zeros((1, 2, 3, 2))
        w[0, channel, i, j] = 5
        y = R.conv2d(x, w, stride=(2, 1), padding=((1, 0), (0, 2)), dilation=(2, 3))
        full = np.pad(x[:, channel : channel + 1], ((0, 0), (0, 0), (1, 0), (0, 2)))
        shifted = full[:, :, 2 * i :, 3 * j :]
        np.testing.assert_array_equal(y, 5 * shifted[:, :, : full.shape[2] - 4 : 2, :7])


def test_conv2d_against_seven_loops() -> None:
    for _, x, w, b, a in itertools.islice(convolutions(), 40):
        (top, bottom), (left, right) = a["padding"]
        full = np.pad(x, ((0, 0), (0, 0), (top, bottom), (left, right)))
        y = R.conv2d(x, w, b, **a)
        (sh, sw), (dh, dw), g = a["stride"], a["dilation"], a["groups"]
        ic_g, oc_g = w.shape[1], len(w) // g
        for n, o, i, j in np.ndindex(y.shape):
            total = b[o]
            for c, p, q in np.ndindex(w.shape[1:]):
                channel = o // oc_g * ic_g + c
                total += w[o, c, p, q] * full[n, channel, i * sh + p * dh, j * sw + q * dw]
            assert y[n, o, i, j] == total
        # and there was no room for another window
        assert (y.shape[2] * sh + dh * (w.shape[2] - 1)) >= full.shape[2]
        assert (y.shape[3] * sw + dw * (w.shape[3] - 1)) >= full.shape[3]


def test_conv2d_backward_is_the_adjoint() -> None:
    nonzero = 0
    for rng, x, w, b, a in convolutions():
        y = R.conv2d(x, w, **a)
        gy = integers(rng, *y.shape)
        gx, gw, gb = R.conv2d_backward(gy, x, w, **a)
        assert dot(y, gy) == dot(x, gx) == dot(w, gw)
        other_x, other_w = integers(rng, *x.shape), integers(rng, *w.shape)
        assert dot(R.conv2d(other_x, w, **a), gy) == dot(other_x, gx)
        assert dot(R.conv2d(x, other_w, **a), gy) == dot(other_w, gw)
        assert dot(R.conv2d(x, w, b, **a), gy) == dot(y, gy) + dot(b, gb)
        nonzero += dot(y, gy) != 0
    assert nonzero > 100


def test_conv2d_padding_forms() -> None:
    rng = np.random.default_rng(4)
    x, w = integers(rng, 2, 3, 6, 7), integers(rng, 2, 3, 4, 3)
    same = R.conv2d(x, w, padding="same", dilation=(1, 2))
    np.testing.assert_array_equal(same, R.conv2d(x, w, padding=((1, 2), (2, 2)), dilation=(1, 2)))
    assert same.shape == (2, 2, 6, 7)
    np.testing.assert_array_equal(R.conv2d(x, w, padding="valid"), R.conv2d(x, w))
    one, both = R.conv2d(x, w, padding=2), R.conv2d(x, w, padding=(2, 2))
    np.testing.assert_array_equal(one, both)
    np.testing.assert_array_equal(one, R.conv2d(x, w, padding=(2,)))
    for wrong in ("same", "else"):
        with pytest.raises(ValueError):
            R.conv2d(x, w, padding=wrong, stride=2)


def test_a_window_larger_than_the_image_is_refused() -> None:
    with pytest.raises(ValueError):
        R.conv2d(np.ones((1, 2, 2)), np.ones((1, 1, 3, 1)))
    with pytest.raises(ValueError):
        R.conv_transpose2d(np.ones((1, 1, 1)), np.ones((1, 1, 2, 2)), padding=1)
    for pool in (R.max_pool2d, R.avg_pool2d):
        with pytest.raises(ValueError):
            pool(np.ones((1, 2, 2)), 3)


# ---- transposed convolution ----


def test_conv_transpose2d_by_hand() -> None:
    w = np.arange(1, 10).reshape(1, 1, 3, 3)
    y = R.conv_transpose2d([[[1, 2], [3, 4]]], w, stride=2, padding=1, output_padding=1)
    assert y[0].tolist() == [[5, 14, 10, 12], [14, 36, 24, 30], [15, 34, 20, 24], [24, 55, 32, 36]]


def test_conv_transpose2d_of_one_cell_is_the_kernel() -> None:
    w = np.arange(1.0, 7.0).reshape(1, 1, 2, 3)
    x = np.zeros((1, 3, 3))
    x[0, 1, 2] = 10
    y = R.conv_transpose2d(x, w, [1], stride=(3, 2), dilation=(1, 2))
    expected = np.ones((1, 8, 9))
    expected[0, 3:5, 4:9:2] += 10 * w[0, 0]
    np.testing.assert_array_equal(y, expected)


def transpositions() -> Iterator[tuple[Any, ...]]:
    for seed in RNG_SEEDS:
        rng = np.random.default_rng([5, seed])
        k, s, d, _ = window(rng)
        g, ic, oc, n = (int(v) for v in rng.integers(1, 4, 4))
        size = tuple(int(v) for v in rng.integers(1, 6, 2))
        more = tuple(int(rng.integers(0, max(s[i], d[i]))) for i in (0, 1))
        least = [(size[i] - 1) * s[i] + d[i] * (k[i] - 1) + 1 + more[i] for i in (0, 1)]
        pad = tuple(int(rng.integers(0, min(2, (v - 1) // 2) + 1)) for v in least)
        x, w = integers(rng, n, g * ic, *size), integers(rng, g * ic, oc, *k)
        arguments = {"stride": s, "padding": pad, "dilation": d, "groups": g}
        yield rng, x, w, integers(rng, g * oc), more, arguments


def test_conv_transpose2d_is_the_adjoint_of_conv2d() -> None:
    for rng, x, w, _, more, a in transpositions():
        y = R.conv_transpose2d(x, w, output_padding=more, **a)
        image = integers(rng, *y.shape)
        # With output_padding beyond the stride the convolution has room for more windows.
        z = R.conv2d(image, w, **a)[:, :, : x.shape[2], : x.shape[3]]
        assert dot(y, image) == dot(x, z)


def test_conv_transpose2d_backward_is_the_adjoint() -> None:
    for rng, x, w, b, more, a in transpositions():
        a["output_padding"] = more
        y = R.conv_transpose2d(x, w, **a)
        gy = integers(rng, *y.shape)
        gx, gw, gb = R.conv_transpose2d_backward(gy, x, w, **a)
        assert dot(y, gy) == dot(x, gx) == dot(w, gw)
        other_x, other_w = integers(rng, *x.shape), integers(rng, *w.shape)
        assert dot(R.conv_transpose2d(other_x, w, **a), gy) == dot(other_x, gx)
        assert dot(R.conv_transpose2d(x, other_w, **a), gy) == dot(other_w, gw)
        assert dot(R.conv_transpose2d(x, w, b, **a), gy) == dot(y, gy) + dot(b, gb)


# ---- pools ----


def pools() -> Iterator[tuple[Any, ...]]:
    for seed in RNG_SEEDS:
        rng = np.random.default_rng([6, seed])
        k, s, d, _ = window(rng)
        p = tuple(int(rng.integers(0, v // 2 + 1)) for v in k)
        size = [max(1, d[i] * (k[i] - 1) + 1 - 2 * p[i]) + int(rng.integers(6)) for i in (0, 1)]
        x = integers(rng, 2, int(rng.integers(1, 3)), *size)
        yield rng, x, k, s, p, d, bool(rng.integers(2))


def test_max_pool2d_against_python() -> None:
    for rng, x, k, s, p, d, ceil in pools():
        x[rng.random(x.shape) < 0.1] = np.nan
        x[rng.random(x.shape) < 0.2] = -np.inf
        values, indices = R.max_pool2d(x, k, s, p, d, ceil, True)
        for n, c, i, j in np.ndindex(values.shape):
            best = (-np.inf, -1)
            for a, b in np.ndindex(k):
                row, column = i * s[0] - p[0] + a * d[0], j * s[1] - p[1] + b * d[1]
                if 0 <= row < x.shape[2] and 0 <= column < x.shape[3]:
                    value = x[n, c, row, column]
                    if best[1] < 0 or value > best[0] or value != value:
                        best = (value, row * x.shape[3] + column)
            assert indices[n, c, i, j] == best[1]
            np.testing.assert_equal(values[n, c, i, j], best[0])


def test_max_pool2d_backward_is_the_adjoint_of_reading_the_indices() -> None:
    for rng, x, k, s, p, d, ceil in pools():
        _, indices = R.max_pool2d(x, k, s, p, d, ceil, True)
        gy = integers(rng, *indices.shape)
        gx = R.max_pool2d_backward(gy, indices, x.shape)
        flat = x.reshape(*x.shape[:2], -1)
        read = np.take_along_axis(flat, np.maximum(indices, 0).reshape(*x.shape[:2], -1), axis=2)
        assert dot(np.where(indices < 0, 0, read.reshape(gy.shape)), gy) == dot(x, gx)


def test_max_pool2d_rules_by_hand() -> None:
    nan, inf = np.nan, np.inf
    for row, index in (
        ([1, 3, 3], 1),
        ([nan, 5, nan], 2),
        ([nan, 5, 7], 0),
        ([-inf, -inf, -inf], 0),
        ([inf, nan, inf], 1),
    ):
        values, indices = R.max_pool2d([[row]], (1, 3), return_indices=True)
        assert indices.item() == index
        np.testing.assert_equal(values.item(), float(row[index]))
    values, indices = R.max_pool2d(np.ones((1, 2, 2)), 2, 1, 1, 3, return_indices=True)
    assert (values.tolist(), indices.tolist()) == ([[[-inf]]], [[[-1]]])
    with pytest.raises(ValueError):
        R.max_pool2d_backward(np.ones((1, 1, 1)), [[[4]]], (1, 2, 2))
    with pytest.raises(ValueError):
        R.max_pool2d_backward(np.ones((1, 1, 2)), [[[0]]], (1, 2, 2))


@pytest.mark.parametrize("include", [True, False])
@pytest.mark.parametrize("override", [None, -2])
def test_avg_pool2d_is_a_convolution_with_ones_over_a_count(
    include: bool, override: int | None
) -> None:
    """The divisor is itself a sum over windows: of ones where cells count, of zeros elsewhere."""
    for _, x, k, s, p, _, ceil in pools():
        y = R.avg_pool2d(x, k, s, p, ceil, include, override)
        beyond = [max(0, (y.shape[2 + i] - 1) * s[i] + k[i]) for i in (0, 1)]
        sides = [(p[i], max(0, beyond[i] - p[i] - x.shape[2 + i])) for i in (0, 1)]
        image = x.reshape(-1, 1, *x.shape[2:])
        kernel = np.ones((1, 1, *k))
        counted = np.zeros((1, 1, *(x.shape[2 + i] + sum(sides[i]) for i in (0, 1))))
        if include:
            counted[..., : x.shape[2] + 2 * p[0], : x.shape[3] + 2 * p[1]] = 1
        else:
            counted[..., p[0] : p[0] + x.shape[2], p[1] : p[1] + x.shape[3]] = 1
        shape = (slice(None), slice(None), slice(y.shape[2]), slice(y.shape[3]))
        total = R.conv2d(image, kernel, stride=s, padding=sides)[shape].reshape(y.shape)
        count = R.conv2d(counted, kernel, stride=s)[shape]
        np.testing.assert_array_equal(y, total / (override or count))


def test_avg_pool2d_by_hand() -> None:
    x = np.ones((1, 5, 5))
    y = R.avg_pool2d(x, 4, 3, 2, True)
    np.testing.assert_array_equal(
        y[0] * [[16, 16, 12], [16, 16, 12], [12, 12, 9]], [[4, 8, 2], [8, 16, 4], [2, 4, 1]]
    )
    with pytest.raises(ValueError, match="divisor must be not zero"):
        R.avg_pool2d(x, 2, divisor_override=0)


def test_avg_pool2d_backward_is_the_adjoint() -> None:
    """With windows of 1, 2 and 4 cells the means are exact."""
    for seed in range(60):
        rng = np.random.default_rng([7, seed])
        k = [(1, 1), (1, 2), (2, 2), (4, 1)][seed % 4]
        s, p = rng.integers(1, 4, 2).tolist(), [int(rng.integers(0, v // 2 + 1)) for v in k]
        x = integers(rng, 2, 2, *rng.integers(4, 9, 2))
        for override in (None, 8, -2):
            y = R.avg_pool2d(x, k, s, p, False, True, override)
            gy = integers(rng, *y.shape)
            gx = R.avg_pool2d_backward(gy, x.shape, k, s, p, False, True, override)
            assert dot(y, gy) == dot(x, gx)
    gx = R.avg_pool2d_backward([[[1.0, 1.0]]], (1, 1, 3), (1, 2), ceil_mode=True)
    assert gx.tolist() == [[[0.5, 0.5, 1.0]]]


# ---- dtypes and batches ----


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64", "longdouble", "uint8", "int64"])
def test_dtypes(dtype: str) -> None:
    x = np.ones((1, 1, 3, 3), dtype)
    expected = np.result_type(dtype, np.float32)
    y = R.conv2d(x, np.ones((1, 1, 2, 2), "f4"))
    assert y.dtype == expected
    for gradient in R.conv2d_backward(np.ones_like(y), x, np.ones((1, 1, 2, 2), "f4")):
        assert gradient is not None
        assert gradient.dtype == expected
    assert R.conv_transpose2d(x, np.ones((1, 1, 2, 2), "f4")).dtype == expected
    assert R.max_pool2d(x, 2).dtype == R.avg_pool2d(x, 2).dtype == expected


def test_without_batch_and_with_an_empty_one() -> None:
    for rng, x, w, b, a in itertools.islice(convolutions(), 20):
        y = R.conv2d(x, w, b, **a)
        np.testing.assert_array_equal(R.conv2d(x[0], w, b, **a), y[0])
        gy = integers(rng, *y.shape)
        gx, _, _ = R.conv2d_backward(gy, x, w, **a)
        alone, _, _ = R.conv2d_backward(gy[0], x[0], w, **a)
        np.testing.assert_array_equal(alone, gx[0])
        gx, gw, gb = R.conv2d_backward(gy[:0], x[:0], w, **a)
        assert gx.shape == x[:0].shape
        np.testing.assert_array_equal(gw, np.zeros_like(w))
        np.testing.assert_array_equal(gb, np.zeros_like(b))
    x, w = np.ones((2, 3, 3)), np.ones((2, 1, 2, 2))
    y = R.conv_transpose2d(x, w)
    np.testing.assert_array_equal(R.conv_transpose2d(x[None], w)[0], y)
    for mask in itertools.product((True, False), repeat=3):
        gradients = R.conv_transpose2d_backward(y, x, w, output_mask=mask)
        assert tuple(g is not None for g in gradients) == mask
    assert R.max_pool2d(np.ones((0, 2, 4, 4)), 2).shape == (0, 2, 2, 2)
    assert R.avg_pool2d(np.ones((0, 2, 4, 4)), 2).shape == (0, 2, 2, 2)
