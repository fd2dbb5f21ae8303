"""What torch's pools do, rule by rule; the other layers are in test_semantics.py."""

import itertools
from typing import Any

import numpy as np
import pytest
from parity.compare import assert_table, ones

import pyconv
import pyconv.functional as F

IMAGE = np.arange(1.0, 17.0, dtype="f4").reshape(1, 4, 4)
NAN, INF = np.nan, np.inf


def max_pool(x: Any, *args: Any, **kwargs: Any) -> tuple[np.ndarray, np.ndarray]:
    """Values and indices of an image given as a nested list of rows."""
    values, indices = F.max_pool2d(np.asarray(x, "f4"), *args, return_indices=True, **kwargs)
    assert indices.dtype == np.int64
    np.testing.assert_array_equal(F.max_pool2d(np.asarray(x, "f4"), *args, **kwargs), values)
    return values, indices


# ---- checks ----


@pytest.mark.parametrize("layer_type", [pyconv.MaxPool2d, pyconv.AvgPool2d])
def test_pad_at_most_half_kernel(layer_type: Any) -> None:
    for k in range(1, 6):
        size = 6 + 2 * (k // 2) - k + 1
        assert layer_type(k, 1, k // 2)(ones(1, 6, 6)).shape == (1, size, size)
        with pytest.raises(ValueError, match="pad should be at most half of effective kernel"):
            layer_type(k, 1, k // 2 + 1)
    with pytest.raises(ValueError, match="pad must be non-negative, but got pad: -1"):
        layer_type(3, 1, -1)


def test_pad_is_measured_against_the_undilated_kernel_too() -> None:
    with pytest.raises(ValueError, match="pad should be smaller than or equal to half of kernel"):
        pyconv.MaxPool2d(3, 1, padding=2, dilation=2)
    assert pyconv.MaxPool2d(3, 1, padding=1, dilation=2)(ones(1, 5, 5)).shape == (1, 3, 3)


@pytest.mark.parametrize("layer_type", [pyconv.MaxPool2d, pyconv.AvgPool2d])
def test_pools_refuse_wrong_sizes(layer_type: Any) -> None:
    for wrong in (0, -1, (2, 0)):
        with pytest.raises(ValueError):
            layer_type(wrong)
        with pytest.raises(ValueError):
            layer_type(2, stride=wrong)
    for wrong in ((2, 2, 2), ()):
        with pytest.raises(ValueError):
            layer_type(wrong)
    for wrong in (2.0, "2", None, True, (2, 2.0)):
        with pytest.raises(TypeError):
            layer_type(wrong)
    for wrong in ((6, 6), (1, 1, 1, 6, 6), (), (1, 0, 6, 6), (1, 1, 0, 6)):
        with pytest.raises(ValueError):
            layer_type(2)(np.zeros(wrong, "f4"))
    with pytest.raises(ValueError, match="Output size is too small"):
        layer_type(5)(ones(1, 4, 9))


def test_stride_is_the_kernel_if_not_given() -> None:
    for pool in (pyconv.MaxPool2d((3, 2)), pyconv.AvgPool2d((3, 2), None)):
        assert pool.stride == (3, 2)
        assert pool(ones(1, 7, 7)).shape == (1, 2, 3)


# ---- sizes ----


def window_starts(n: int, k: int, s: int, p: int, d: int, ceil_mode: bool) -> list[int]:
    """Where windows start, placed one by one."""
    span, starts = d * (k - 1) + 1, []
    for start in itertools.count(-p, s):
        fits = start + span <= n + p
        overhangs = ceil_mode and start + span < n + p + s and start < n
        if not fits and not overhangs:
            return starts
        starts.append(start)
    raise AssertionError


@pytest.mark.parametrize("ceil_mode", [False, True])
def test_pool_output_size_for_all_small_geometries(ceil_mode: bool) -> None:
    checked = 0
    for n, k, s, d in itertools.product(range(1, 12), range(1, 6), range(1, 5), range(1, 4)):
        for p in range(k // 2 + 1):
            count = len(window_starts(n, k, s, p, d, ceil_mode))
            arguments = ((1, k), (1, s), (0, p))
            calls = [lambda x, a=arguments, d=d: F.max_pool2d(x, *a, (1, d), ceil_mode)]
            if d == 1:
                calls.append(lambda x, a=arguments: F.avg_pool2d(x, *a, ceil_mode))
            for call in calls:
                if count:
                    assert call(ones(1, 1, n)).shape == (1, 1, count), (n, k, s, p, d)
                    checked += 1
                else:
                    with pytest.raises(ValueError, match="Output size is too small"):
                        call(ones(1, 1, n))
    assert checked > 1000


def test_ceil_mode_lets_the_last_window_hang_over() -> None:
    assert_table(F.max_pool2d(IMAGE, 3, 2, ceil_mode=True), "11 12 / 15 16")
    assert_table(F.max_pool2d(IMAGE, 3, 2), "11")


def test_ceil_mode_drops_window_starting_in_right_padding() -> None:
    """Width 5, k 2, s 2, p 1: the windows start at -1, 1, 3; one at 5 would be all padding."""
    for function in (F.max_pool2d, F.avg_pool2d):
        assert function(ones(1, 1, 5), (1, 2), (1, 2), (0, 1), ceil_mode=True).shape == (1, 1, 3)
        assert function(ones(1, 1, 4), (1, 2), (1, 2), (0, 1), ceil_mode=True).shape == (1, 1, 3)


# ---- max pool ----


def test_max_pool_ceil_vector() -> None:
    values, indices = max_pool(IMAGE, 3, 2, 1, ceil_mode=True)
    assert_table(values, "6 8 8 / 14 16 16 / 14 16 16")
    assert_table(indices, "5 7 7 / 13 15 15 / 13 15 15")


def test_max_pool_dilation_vector() -> None:
    _, indices = max_pool(IMAGE, 2, 1, 1, 2)
    assert_table(indices, "5 6 7 6 / 9 10 11 10 / 13 14 15 14 / 9 10 11 10")


def test_max_pool_gradient_vector() -> None:
    pool = pyconv.MaxPool2d(3, 1, 1)
    pool(IMAGE)
    assert_table(pool.backward(ones(1, 4, 4)), "0 0 0 0 / 0 1 1 2 / 0 1 1 2 / 0 2 2 4")


def test_max_pool_tie_takes_the_first() -> None:
    pool = pyconv.MaxPool2d(2, 1)
    pool(np.zeros((1, 3, 3), "f4"))
    assert_table(pool.backward(ones(1, 2, 2)), "1 1 0 / 1 1 0 / 0 0 0")


def test_max_pool_equal_zeros_keep_the_sign_of_the_first() -> None:
    values, indices = max_pool([[[-0.0, 0.0]], [[0.0, -0.0]]], (1, 2))
    assert not indices.any()
    assert np.signbit(values[0, 0, 0])
    assert not np.signbit(values[1, 0, 0])


def test_max_pool_nan_wins_and_index_is_the_last_nan() -> None:
    values, indices = max_pool([[[NAN, 1], [NAN, 2]]], 2)
    assert np.isnan(values).all()
    assert indices.item() == 2
    for place in range(4):
        plane = np.arange(4.0)
        plane[place] = NAN
        values, indices = max_pool(plane.reshape(1, 2, 2), 2)
        assert np.isnan(values).all()
        assert indices.item() == place
    _, indices = max_pool([[[NAN, NAN, NAN, INF]]], (1, 4))
    assert indices.item() == 2


def test_max_pool_gradient_goes_to_the_nan() -> None:
    pool = pyconv.MaxPool2d(2)
    pool(np.array([[[NAN, 1], [NAN, 2]]], "f4"))
    assert_table(pool.backward(ones(1, 1, 1)), "0 0 / 1 0")


def test_max_pool_of_minus_infinity_has_the_first_index_in_the_image() -> None:
    values, indices = max_pool(np.full((1, 3, 3), -INF), 3, 2, 1)
    assert (values == -INF).all()
    assert_table(indices, "0 1 / 3 4")


def test_max_pool_padding_is_never_chosen() -> None:
    values, indices = max_pool(np.full((1, 2, 2), -5.0), 2, 1, 1)
    assert (values == -5).all()
    assert_table(indices, "0 0 1 / 0 0 1 / 2 2 3")


def test_max_pool_corner_case_with_dilation_and_ceil() -> None:
    pool = pyconv.MaxPool2d(2, 2, 1, 2, False, True)
    assert_table(pool(np.array([[[-1, -2], [-3, -4]]], "f4")), "-4 -4 / -4 -4")


def test_max_pool_indices_count_within_one_unpadded_plane() -> None:
    x = np.stack([IMAGE, IMAGE[:, ::-1], IMAGE[:, :, ::-1]])
    for layout in (x, np.asfortranarray(x), x.transpose(0, 2, 3, 1).copy().transpose(0, 3, 1, 2)):
        _, indices = max_pool(layout, 2)
        np.testing.assert_array_equal(indices[0, 0], [[5, 7], [13, 15]])
        np.testing.assert_array_equal(indices[1, 0], [[1, 3], [9, 11]])
        np.testing.assert_array_equal(indices[2, 0], [[4, 6], [12, 14]])


def test_empty_dilated_window_is_minus_infinity_and_index_minus_one() -> None:
    """A difference: torch's index points outside the plane, and its backward writes there."""
    values, indices = max_pool([[[1, 2], [3, 4]]], 2, 1, 1, 3)
    assert (values.shape, indices.shape) == ((1, 1, 1), (1, 1, 1))
    assert values.item() == -INF
    assert indices.item() == -1
    pool = pyconv.MaxPool2d(2, 1, 1, 3)
    pool(ones(1, 2, 2))
    assert_table(pool.backward(ones(1, 1, 1)), "0 0 / 0 0")


def test_return_indices_gives_a_plain_tuple() -> None:
    result = pyconv.MaxPool2d(2, return_indices=True)(IMAGE)
    assert type(result) is tuple
    values, indices = result
    assert_table(values, "6 8 / 14 16")
    assert indices.dtype == np.int64


def test_max_pool_backward_accumulates_and_skips_minus_one() -> None:
    gx = F.max_pool2d_backward([[[1.0, 2.0], [4.0, 8.0]]], [[[0, 3], [3, -1]]], (1, 2, 2))
    assert_table(gx, "1 0 / 0 6")


def test_max_pool_backward_refuses_indices_outside_the_plane() -> None:
    for wrong in (4, -2, 2**31, -(2**63)):
        with pytest.raises(ValueError):
            F.max_pool2d_backward(ones(1, 1, 1), np.array([[[wrong]]]), (1, 2, 2))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("size", [(1, 1), (7, 7), (1, 1024), (5, 205), (40, 90)], ids=str)
def test_max_pool_backward_adds_in_order_whatever_the_plane(
    dtype: type, size: tuple[int, int]
) -> None:
    """Planes large and small, few and many, closely and apart; -1 and wrong indices anywhere."""
    rng = np.random.default_rng(sum(size))
    for channels, windows in itertools.product((1, 3, 4, 9), ((1, 1), (3, 5), (7, 7))):
        shape, some = (2, channels, *windows), max(1, size[0] * size[1] // 3)
        indices = rng.integers(0, some, shape) + rng.integers(0, 2, shape) * (2 * some)
        indices = np.minimum(indices, size[0] * size[1] - 1)
        indices[rng.random(shape) < rng.choice([0, 0.05, 0.9])] = -1
        gy = rng.standard_normal(shape).astype(dtype)
        expected = np.zeros((2, channels, *size), dtype)
        for plane, where, grad in zip(
            expected.reshape(2 * channels, -1),
            indices.reshape(2 * channels, -1),
            gy.reshape(2 * channels, -1),
            strict=True,
        ):
            for i, g in zip(where, grad, strict=True):
                if i >= 0:
                    plane[i] += g
        last = (0, 2, 3, 1)
        apart = np.ascontiguousarray(gy.transpose(last)).transpose(0, 3, 1, 2)
        around = np.full((2, channels + 2, *windows), 1 << 40)
        around[:, 1:-1] = indices
        for gradient, where in ((gy, indices), (apart, indices), (gy, around[:, 1:-1])):
            got = F.max_pool2d_backward(gradient, where, expected.shape)
            assert got.tobytes() == expected.tobytes()
        for wrong in (-2, size[0] * size[1], 1 << 40):
            place = tuple(rng.integers(0, n) for n in shape)
            bad = indices.copy()
            bad[place] = wrong
            with pytest.raises(ValueError, match="indices must be -1 or lie in a plane"):
                F.max_pool2d_backward(gy, bad, expected.shape)


def test_max_pool_backward_refuses_shapes_that_disagree() -> None:
    indices = np.zeros((1, 2, 2), np.int64)
    for gy, index, shape in (
        (ones(1, 2, 3), indices, (1, 4, 4)),
        (ones(1, 2, 2), indices, (2, 4, 4)),
        (ones(1, 2, 2), indices, (4, 4)),
        (ones(1, 1, 2, 2), indices, (1, 4, 4)),
    ):
        with pytest.raises(ValueError):
            F.max_pool2d_backward(gy, index, shape)


def test_max_pool_backward_works_in_the_forward_dtype() -> None:
    pool = pyconv.MaxPool2d(2)
    pool(IMAGE)
    assert pool.backward(np.ones((1, 2, 2))).dtype == np.float32


# ---- average pool ----


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({}, "1.5556 3.3333 / 6.3333 11"),
        ({"ceil_mode": True}, "1.5556 3.3333 2 / 6.3333 11 6 / 4.5 7.5 4"),
        ({"ceil_mode": True, "count_include_pad": False}, "3.5 5 6 / 9.5 11 12 / 13.5 15 16"),
        (
            {"ceil_mode": True, "divisor_override": 4},
            "3.5 7.5 3 / 14.25 24.75 9 / 6.75 11.25 4",
        ),
        ({"count_include_pad": False}, "3.5 5 / 9.5 11"),
    ],
    ids=str,
)
def test_avg_pool_divisor_vectors(arguments: dict[str, Any], text: str) -> None:
    assert_table(F.avg_pool2d(IMAGE, 3, 2, 1, **arguments), text, decimals=4)
    assert_table(pyconv.AvgPool2d(3, 2, 1, **arguments)(IMAGE), text, decimals=4)


def test_avg_pool_clipped_divisor_ceil_include_pad() -> None:
    """What hangs over the padded image is not counted: divisors 16, 12 and 9."""
    text = ".25 .5 .1667 / .5 1 .3333 / .1667 .3333 .1111"
    assert_table(F.avg_pool2d(ones(1, 5, 5), 4, 3, 2, ceil_mode=True), text, decimals=4)


def test_avg_pool_gradient_vector() -> None:
    pool = pyconv.AvgPool2d(3, 2, 1, ceil_mode=True)
    pool(IMAGE)
    text = """.1111 .2222 .1111 .2778 / .2222 .4444 .2222 .5556 /
              .1111 .2222 .1111 .2778 / .2778 .5556 .2778 .6944"""
    assert_table(pool.backward(ones(1, 3, 3)), text, decimals=4)


def test_avg_pool_gradient_is_divided_as_the_forward() -> None:
    """Each cell's gradient is the sum of 1/divisor of its windows, in every combination."""
    for ceil, include, override in itertools.product((0, 1), (0, 1), (None, 3, -2)):
        arguments = (3, 2, 1, bool(ceil), bool(include), override)
        gx = F.avg_pool2d_backward(
            np.ones(F.avg_pool2d(IMAGE, *arguments).shape), IMAGE.shape, *arguments
        )
        for place in np.ndindex(1, 4, 4):
            unit = np.zeros((1, 4, 4))
            unit[place] = 1
            np.testing.assert_allclose(gx[place], F.avg_pool2d(unit, *arguments).sum(), rtol=1e-14)


def test_avg_pool_one_row_window_with_padding_and_ceil() -> None:
    """Once gave NaN: the last window has no cell in the image and is dropped."""
    y = F.avg_pool2d(np.array([[[1, 2, 3, 4]]], "f4"), (1, 2), (1, 2), (0, 1), True)
    assert_table(y, "0.5 2.5 2")


def test_avg_pool_divisor_must_not_be_zero_and_is_an_integer() -> None:
    with pytest.raises(ValueError, match="divisor must be not zero"):
        pyconv.AvgPool2d(2, divisor_override=0)
    for wrong in (1.5, "2", True):
        with pytest.raises(TypeError):
            pyconv.AvgPool2d(2, divisor_override=wrong)


def test_avg_pool_negative_divisor() -> None:
    assert_table(F.avg_pool2d(ones(1, 2, 2), 2, divisor_override=-2), "-2")
    gx = F.avg_pool2d_backward(ones(1, 1, 1), (1, 2, 2), 2, divisor_override=-2)
    assert_table(gx, "-0.5 -0.5 / -0.5 -0.5")


def test_avg_pool_padding_is_not_multiplied() -> None:
    """NaN and infinity reach exactly the windows that hold them."""
    for value in (NAN, INF):
        x = np.array([[[value, 1, 1, 1]]], "f4")
        y = F.avg_pool2d(x, (1, 2), 1, (0, 1))
        np.testing.assert_array_equal(y[0, 0], [value, value, 1, 1, 0.5])


def test_avg_pool_repr_shows_three_arguments() -> None:
    pool = pyconv.AvgPool2d(3, 2, 1, True, False, 7)
    assert repr(pool) == "AvgPool2d(kernel_size=3, stride=2, padding=1)"


# ---- results ----


def test_results_are_new_c_contiguous_arrays() -> None:
    """A difference: torch keeps the memory order of its input."""
    x = np.ones((2, 8, 6, 3), "f4").transpose(0, 3, 1, 2)
    layers = (
        pyconv.Conv2d(3, 3, 1),
        pyconv.ConvTranspose2d(3, 3, 1),
        pyconv.MaxPool2d(1),
        pyconv.AvgPool2d(1),
    )
    for layer in layers:
        y = layer(x)
        gx = layer.backward(np.asfortranarray(y))
        for array in (y, gx):
            assert array.flags.c_contiguous
            assert array.flags.writeable
        assert not np.shares_memory(x, y)
