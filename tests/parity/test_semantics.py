"""What torch does, rule by rule: each test is named after the rule and holds its worked example.

The numbers were computed by hand or by torch 2.13.0; no test needs torch.
"""

import itertools
import warnings
from typing import Any

import numpy as np
import pytest
from parity.compare import assert_table, ones, table

import pyconv
import pyconv.functional as F

MODES = ("zeros", "reflect", "replicate", "circular")
IMAGE = np.arange(1.0, 17.0, dtype="f4").reshape(1, 4, 4)


def conv(weight: Any, bias: Any = None, **arguments: Any) -> pyconv.Conv2d:
    """A float32 layer with these weights."""
    w = np.array(weight, "f4")
    ic = w.shape[1] * arguments.get("groups", 1)
    layer = pyconv.Conv2d(ic, len(w), w.shape[2:], bias=bias is not None, **arguments)
    layer.weight = w
    if bias is not None:
        layer.bias = np.array(bias, "f4")
    return layer


# ---- signatures, attributes, repr ----


def test_conv2d_argument_order() -> None:
    layer = pyconv.Conv2d(4, 8, 3, 2, 1, 2, 4, False, "reflect", None, np.float64)
    assert (layer.stride, layer.padding, layer.dilation) == ((2, 2), (1, 1), (2, 2))
    assert (layer.groups, layer.bias, layer.padding_mode) == (4, None, "reflect")
    assert layer.weight.dtype == np.float64
    x, w = ones(1, 4, 6, 6), ones(2, 2, 2, 2)
    assert F.conv2d(x, w, ones(2), 2, 1, 3, 2).shape == (1, 2, 3, 3)


def test_conv_transpose2d_argument_order_differs_from_conv2d() -> None:
    """Groups and bias come before dilation in the layer; dilation is last in the function."""
    layer = pyconv.ConvTranspose2d(4, 8, 3, 2, 1, 1, 4, False, 2, "zeros", None, np.float64)
    assert (layer.output_padding, layer.groups, layer.dilation) == ((1, 1), 4, (2, 2))
    assert layer.bias is None
    assert layer.weight.dtype == np.float64
    y = F.conv_transpose2d(ones(1, 4, 3, 3), ones(4, 1, 2, 2), None, 2, 1, 1, 2, 3)
    assert y.shape == (1, 2, (3 - 1) * 2 - 2 + 3 + 1 + 1, 7)


def test_max_pool_argument_order_is_swapped_in_the_function() -> None:
    layer = pyconv.MaxPool2d(3, 2, 1, 1, True, False)
    assert (layer.return_indices, layer.ceil_mode) == (True, False)
    x = ones(1, 1, 6, 6)
    assert F.max_pool2d(x, 3, 2, 0, 1, True, False).shape == (1, 1, 3, 3)
    assert len(F.max_pool2d(x, 3, 2, 0, 1, False, True)) == 2


def test_avg_pool_argument_order() -> None:
    layer = pyconv.AvgPool2d(3, 2, 1, True, False, 7)
    assert (layer.ceil_mode, layer.count_include_pad, layer.divisor_override) == (True, False, 7)
    assert_table(F.avg_pool2d(ones(1, 2, 2), 2, 2, 0, False, True, 8), "0.5")


def test_forward_takes_exactly_one_array() -> None:
    for layer in (pyconv.Conv2d(1, 1, 1), pyconv.MaxPool2d(1), pyconv.AvgPool2d(1)):
        with pytest.raises(TypeError):
            layer()
        with pytest.raises(TypeError):
            layer(ones(1, 2, 2), ones(1, 2, 2))


def test_sizes_of_numpy_and_lists_and_one_element_tuples() -> None:
    layer = pyconv.Conv2d(np.int64(2), 3, [np.int32(3), 2], stride=(2,), padding=[1])
    assert (layer.kernel_size, layer.stride, layer.padding) == ((3, 2), (2, 2), (1, 1))
    assert repr(layer) == "Conv2d(2, 3, kernel_size=(3, 2), stride=(2, 2), padding=(1, 1))"


def test_bias_by_truth() -> None:
    for false in (False, None, 0):
        layer = pyconv.Conv2d(1, 1, 1, bias=false)
        assert layer.bias is None
        assert list(layer.state_dict()) == ["weight"]
    assert pyconv.Conv2d(1, 1, 1, bias=1).bias.shape == (1,)


def test_conv_validation_order() -> None:
    """Of two wrong arguments the first in this list is named.

    A difference: an unknown string is named before channels and groups; the rest is torch's order.
    """
    wrongs: list[tuple[dict[str, Any], str]] = [
        ({"padding": "foo"}, "Invalid padding string 'foo'"),
        ({"padding_mode": "x"}, "padding_mode must be one of"),
        ({"groups": 0}, "groups must be a positive integer"),
        ({"in_channels": 3, "groups": 2}, "in_channels must be divisible by groups"),
        ({"out_channels": 5, "groups": 2}, "out_channels must be divisible by groups"),
        ({"padding": "same", "stride": 2}, "padding='same' is not supported for strided"),
    ]
    base = {"in_channels": 4, "out_channels": 4, "kernel_size": 3}
    for (first, message), (second, _) in itertools.combinations(wrongs, 2):
        with pytest.raises(ValueError, match=message):
            pyconv.Conv2d(**{**base, **second, **first})


def test_conv_reprs() -> None:
    assert repr(pyconv.Conv2d(4, 8, 3, 2, 1, 2, 4, False, "reflect")) == (
        "Conv2d(4, 8, kernel_size=(3, 3), stride=(2, 2), padding=(1, 1), dilation=(2, 2), "
        "groups=4, bias=False, padding_mode=reflect)"
    )
    assert repr(pyconv.Conv2d(1, 1, (3, 5), padding="same", dilation=2)) == (
        "Conv2d(1, 1, kernel_size=(3, 5), stride=(1, 1), padding=same, dilation=(2, 2))"
    )
    assert repr(pyconv.Conv2d(1, 1, 3, padding="valid")) == (
        "Conv2d(1, 1, kernel_size=(3, 3), stride=(1, 1), padding=valid)"
    )
    assert repr(pyconv.ConvTranspose2d(4, 8, 3, 2, 1, 1, 4, False, 2)) == (
        "ConvTranspose2d(4, 8, kernel_size=(3, 3), stride=(2, 2), padding=(1, 1), "
        "dilation=(2, 2), output_padding=(1, 1), groups=4, bias=False)"
    )


def test_pool_reprs_and_attributes_as_given() -> None:
    pool = pyconv.MaxPool2d(3, stride=(2, 1), return_indices=True)
    assert (pool.kernel_size, pool.stride) == (3, (2, 1))
    assert repr(pool) == (
        "MaxPool2d(kernel_size=3, stride=(2, 1), padding=0, dilation=1, ceil_mode=False)"
    )
    assert pyconv.MaxPool2d((3, 2)).stride == (3, 2)
    assert repr(pyconv.AvgPool2d((3, 2))) == (
        "AvgPool2d(kernel_size=(3, 2), stride=(3, 2), padding=0)"
    )


def test_state_dict_keys_and_layouts() -> None:
    state = pyconv.Conv2d(4, 6, (3, 2), groups=2).state_dict()
    assert [(k, v.shape) for k, v in state.items()] == [("weight", (6, 2, 3, 2)), ("bias", (6,))]
    state = pyconv.ConvTranspose2d(4, 6, (3, 2), groups=2).state_dict()
    assert [(k, v.shape) for k, v in state.items()] == [("weight", (4, 3, 3, 2)), ("bias", (6,))]
    assert not pyconv.MaxPool2d(2).state_dict()


# ---- initial weights ----


@pytest.mark.parametrize(
    ("layer_type", "arguments", "fan_in"),
    [
        (pyconv.Conv2d, (8, 32, (3, 5)), 8 * 15),
        (pyconv.Conv2d, (8, 32, 3, 1, 0, 1, 4), 2 * 9),
        (pyconv.ConvTranspose2d, (32, 8, (3, 5)), 8 * 15),
        (pyconv.ConvTranspose2d, (32, 16, 3, 1, 0, 0, 4), 4 * 9),
    ],
    ids=["conv", "conv_groups", "transposed", "transposed_groups"],
)
def test_init_bounds(layer_type: Any, arguments: Any, fan_in: int) -> None:
    """U(-b, b) with b = 1/sqrt(weight.shape[1] * kh * kw): a transposed layer's is its output."""
    bound = 1 / np.sqrt(fan_in)
    layers = [layer_type(*arguments, rng=seed) for seed in range(20)]
    for name in ("weight", "bias"):
        values = np.stack([getattr(layer, name) for layer in layers]) / bound
        assert np.abs(values).max() <= 1
        assert values.max() > 0.9
        assert values.min() < -0.9
        # Mean and variance of U(-1, 1) are 0 and 1/3; five standard errors of either.
        assert abs(values.mean()) < 5 / np.sqrt(3 * values.size)
        assert abs(values.var() - 1 / 3) < 5 * np.sqrt(4 / 45 / values.size)


def test_init_draws_the_weight_first() -> None:
    with_bias, without = (pyconv.Conv2d(2, 3, 3, bias=b, rng=5) for b in (True, False))
    np.testing.assert_array_equal(with_bias.weight, without.weight)


# ---- convolution: sizes and padding ----


def test_conv_output_size_for_all_small_geometries() -> None:
    """floor((n + 2p - d(k-1) - 1)/s) + 1, counted here by placing the window."""
    checked = 0
    for n, k, s, p, d in itertools.product(range(1, 9), (1, 2, 3, 5), (1, 2, 4), (0, 1, 3), (1, 3)):
        starts = [i for i in range(0, n + 2 * p, s) if i + d * (k - 1) < n + 2 * p]
        x, w = ones(1, 1, n), ones(1, 1, 1, k)
        arguments = {"stride": (1, s), "padding": (0, p), "dilation": (1, d)}
        if starts:
            assert F.conv2d(x, w, **arguments).shape == (1, 1, len(starts))
            checked += 1
        else:
            with pytest.raises(ValueError, match="Kernel size can't be greater than actual"):
                F.conv2d(x, w, **arguments)
    assert checked > 400


def test_cells_that_no_window_covers_get_zero_gradient() -> None:
    layer = conv([[[[1, 2]]]], stride=(1, 3))
    layer(ones(1, 1, 7))
    assert_table(layer.backward(ones(1, 1, 2)), "1 2 0 1 2 0 0")


def test_same_vector() -> None:
    layer = conv([[[[1, 2], [3, 4]]]], padding="same")
    text = "44 54 64 28 / 84 94 104 44 / 124 134 144 60 / 41 44 47 16"
    assert_table(layer(IMAGE), text)


@pytest.mark.parametrize(("k", "d", "left", "right"), [(2, 1, 0, 1), (4, 1, 1, 2), (2, 3, 1, 2)])
def test_same_odd_total_puts_extra_right(k: int, d: int, left: int, right: int) -> None:
    x = np.arange(1.0, 7.0, dtype="f4").reshape(1, 1, 6)
    w = np.arange(1.0, k + 1, dtype="f4").reshape(1, 1, 1, k)
    padded = np.pad(x, ((0, 0), (0, 0), (left, right)))
    expected = F.conv2d(padded, w, dilation=(1, d))
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # and without torch's warning about a copy
        y = F.conv2d(x, w, padding="same", dilation=(1, d))
    np.testing.assert_array_equal(y, expected)
    assert y.shape == x.shape


@pytest.mark.parametrize("mode", MODES[1:])
def test_same_splits_alike_in_every_padding_mode(mode: str) -> None:
    layer = conv([[[[1, 10, 100, 1000]]]], padding="same", padding_mode=mode)
    x = np.arange(1.0, 6.0, dtype="f4").reshape(1, 1, 5)
    numpy_mode = {"replicate": "edge", "circular": "wrap"}.get(mode, mode)
    padded = np.pad(x, ((0, 0), (0, 0), (1, 2)), mode=numpy_mode)
    np.testing.assert_array_equal(layer(x), F.conv2d(padded, layer.weight))


def test_valid_is_zero_with_any_stride() -> None:
    x, w = np.arange(25.0).reshape(1, 5, 5), np.arange(4.0).reshape(1, 1, 2, 2)
    for stride in (1, 2, (3, 1)):
        np.testing.assert_array_equal(
            F.conv2d(x, w, stride=stride, padding="valid"), F.conv2d(x, w, stride=stride)
        )


def test_same_refuses_a_stride() -> None:
    with pytest.raises(ValueError, match="padding='same' is not supported for strided"):
        pyconv.Conv2d(1, 1, 3, 2, "same")
    with pytest.raises(ValueError, match="padding='same' is not supported for strided"):
        F.conv2d(IMAGE, ones(1, 1, 3, 3), stride=(1, 2), padding="same")


@pytest.mark.parametrize(
    ("mode", "text"),
    [
        ("zeros", "0 0 1 2 3 4 0 0 0"),
        ("reflect", "3 2 1 2 3 4 3 2 1"),
        ("replicate", "1 1 1 2 3 4 4 4 4"),
        ("circular", "3 4 1 2 3 4 1 2 3"),
    ],
)
def test_padding_mode_vectors_and_their_gradient(mode: str, text: str) -> None:
    layer = conv([[[[1]]]], padding=((0, 0), (2, 3)), padding_mode=mode)
    row = np.array([[[1, 2, 3, 4]]], "f4")
    assert_table(layer(row), text)
    gy = np.arange(1.0, 10.0, dtype="f4").reshape(1, 1, 9)
    read = table(text)[0]
    expected = [gy[0, 0, read == value].sum() for value in (1, 2, 3, 4)]
    np.testing.assert_array_equal(layer.backward(gy)[0, 0], expected)


def test_reflect_padding_limit() -> None:
    assert conv([[[[1]]]], padding=3, padding_mode="reflect")(IMAGE).shape == (1, 10, 10)
    with pytest.raises(ValueError, match="Padding size should be less than the corresponding"):
        conv([[[[1]]]], padding=(3, 4), padding_mode="reflect")(IMAGE)


def test_circular_padding_limit() -> None:
    assert conv([[[[1]]]], padding=4, padding_mode="circular")(IMAGE).shape == (1, 12, 12)
    with pytest.raises(ValueError, match="wrapping around more than once"):
        conv([[[[1]]]], padding=(5, 0), padding_mode="circular")(IMAGE)


def test_replicate_and_zero_padding_have_no_limit() -> None:
    for mode in ("replicate", "zeros"):
        assert conv([[[[1]]]], padding=50, padding_mode=mode)(IMAGE).shape == (1, 104, 104)


def test_negative_padding_crops_but_not_in_zeros_mode() -> None:
    for mode in MODES[1:]:
        layer = conv([[[[1]]]], padding=-1, padding_mode=mode)
        assert_table(layer(IMAGE), "6 7 / 10 11")
        assert_table(layer.backward(ones(1, 2, 2)), "0 0 0 0 / 0 1 1 0 / 0 1 1 0 / 0 0 0 0")
    with pytest.raises(ValueError, match="negative padding is not supported"):
        pyconv.Conv2d(1, 1, 1, padding=-1)


@pytest.mark.parametrize("mode", MODES)
def test_unbatched_and_empty_batch_in_every_padding_mode(mode: str) -> None:
    layer = pyconv.Conv2d(2, 3, 3, padding=2, padding_mode=mode)
    assert layer(ones(2, 4, 5)).shape == (3, 6, 7)
    assert layer.backward(ones(3, 6, 7)).shape == (2, 4, 5)
    assert layer(ones(0, 2, 4, 5)).shape == (0, 3, 6, 7)
    assert layer.backward(ones(0, 3, 6, 7)).shape == (0, 2, 4, 5)


def test_groups_vector() -> None:
    x = np.arange(1.0, 9.0, dtype="f4").reshape(1, 2, 2, 2)
    w = np.arange(1.0, 5.0, dtype="f4").reshape(4, 1, 1, 1)
    expected = "1 2 3 4 / 2 4 6 8 / 15 18 21 24 / 20 24 28 32"
    np.testing.assert_array_equal(F.conv2d(x, w, groups=2).reshape(4, 4), table(expected))


# ---- convolution: batches, dtypes, special values ----


def test_unbatched_shapes() -> None:
    layer = pyconv.Conv2d(2, 3, 2)
    assert layer(ones(2, 4, 5)).shape == (3, 3, 4)
    assert layer.backward(ones(3, 3, 4)).shape == (2, 4, 5)
    layer = pyconv.ConvTranspose2d(2, 3, 2)
    assert layer(ones(2, 4, 5)).shape == (3, 5, 6)
    assert layer.backward(ones(3, 5, 6)).shape == (2, 4, 5)
    for pool in (pyconv.MaxPool2d(2), pyconv.AvgPool2d(2)):
        assert pool(ones(3, 4, 5)).shape == (3, 2, 2)
        assert pool.backward(ones(3, 2, 2)).shape == (3, 4, 5)


def test_empty_batch_gives_zero_gradients() -> None:
    for layer in (pyconv.Conv2d(2, 3, 2), pyconv.ConvTranspose2d(2, 3, 2)):
        y = layer(np.zeros((0, 2, 4, 4), "f4"))
        assert layer.backward(np.zeros_like(y)).shape == (0, 2, 4, 4)
        np.testing.assert_array_equal(layer.weight_grad, np.zeros_like(layer.weight))
        np.testing.assert_array_equal(layer.bias_grad, np.zeros_like(layer.bias))
    for pool in (pyconv.MaxPool2d(2), pyconv.AvgPool2d(2)):
        assert pool(np.zeros((0, 2, 4, 4))).shape == (0, 2, 2, 2)
        assert pool.backward(np.zeros((0, 2, 2, 2))).shape == (0, 2, 4, 4)


def test_empty_batch_is_checked_like_any_other() -> None:
    for layer in (pyconv.Conv2d(2, 3, 5), pyconv.MaxPool2d(5), pyconv.AvgPool2d(5)):
        with pytest.raises(ValueError):
            layer(np.zeros((0, 2, 4, 4), "f4"))
    with pytest.raises(ValueError, match="to have 2 channels, but got 3 channels"):
        pyconv.Conv2d(2, 3, 2)(np.zeros((0, 3, 4, 4), "f4"))


def test_layers_without_channels_are_refused() -> None:
    """A difference: torch builds them, and its output then has no channels."""
    for layer_type in (pyconv.Conv2d, pyconv.ConvTranspose2d):
        with pytest.raises(ValueError, match="in_channels"):
            layer_type(0, 3, 3)
        with pytest.raises(ValueError, match="out_channels"):
            layer_type(3, 0, 3)


def test_images_without_rows_or_columns_are_refused_even_with_padding() -> None:
    for shape in ((1, 2, 0, 4), (1, 2, 4, 0)):
        for layer in (
            pyconv.Conv2d(2, 3, 2, padding=2),
            pyconv.ConvTranspose2d(2, 3, 2),
            pyconv.MaxPool2d(2, padding=1),
            pyconv.AvgPool2d(2, padding=1),
        ):
            with pytest.raises(ValueError):
                layer(np.zeros(shape, "f4"))


def test_wrong_rank_channels_and_bias() -> None:
    layer = pyconv.Conv2d(4, 6, 3)
    message = r"Expected 3D \(unbatched\) or 4D \(batched\) input to conv2d"
    for shape in ((8, 9), (1, 1, 4, 8, 9)):
        with pytest.raises(ValueError, match=message):
            layer(np.zeros(shape, "f4"))
    with pytest.raises(ValueError, match="to have 4 channels, but got 3 channels"):
        layer(np.zeros((2, 3, 8, 8), "f4"))
    with pytest.raises(ValueError, match="bias to be 1-dimensional with 6 elements"):
        F.conv2d(ones(2, 4, 8, 8), ones(6, 4, 3, 3), ones(5))
    with pytest.raises(ValueError, match="Calculated padded input size per channel"):
        layer(np.zeros((2, 4, 2, 8), "f4"))


def test_layers_convert_to_their_dtype_and_functions_to_the_common_one() -> None:
    """A difference: torch never casts."""
    x = np.arange(16).reshape(1, 4, 4)
    for dtype in ("uint8", "int64", "float16", "float64", "bool"):
        assert pyconv.Conv2d(1, 1, 2)(x.astype(dtype)).dtype == np.float32
    assert pyconv.Conv2d(1, 1, 2, dtype=np.float64)(x).dtype == np.float64
    assert F.conv2d(x.astype("f4"), np.ones((1, 1, 2, 2))).dtype == np.float64
    assert F.conv2d(x.astype("u1"), ones(1, 1, 2, 2)).dtype == np.float32
    for function in (F.max_pool2d, F.avg_pool2d):
        assert function(x.astype("u1"), 2).dtype == np.float32
        assert function(x, 2).dtype == np.float64
    for wrong in (x * 1j, x.astype(object), x.astype(str)):
        with pytest.raises(TypeError):
            pyconv.Conv2d(1, 1, 2)(wrong)
        with pytest.raises(TypeError):
            F.max_pool2d(wrong, 2)


@pytest.mark.parametrize("value", [np.inf, np.nan])
def test_padding_zeros_are_multiplied(value: float) -> None:
    """An infinite weight over padding gives NaN, as np.pad and then no padding would."""
    weight = np.array([[[[value, 1, 1]]]], "f4")
    y = F.conv2d(ones(1, 1, 3), weight, padding=(0, 1))
    np.testing.assert_array_equal(y[0, 0], [np.nan, value + 2, value + 1])


def test_the_input_gradient_has_no_taps_outside_the_output() -> None:
    gx, _, _ = F.conv2d_backward(ones(1, 1, 2), ones(1, 1, 3), [[[[np.inf, 1.0]]]])
    np.testing.assert_array_equal(gx[0, 0], [np.inf, np.inf, 1])
    y = F.conv_transpose2d(ones(1, 1, 2), [[[[np.inf, 1.0]]]])
    np.testing.assert_array_equal(y[0, 0], [np.inf, np.inf, 1])


# ---- convolution: backward ----


def test_conv_backward_by_hand() -> None:
    layer = conv([[[[1, 2], [3, 4]]]], bias=[5])
    x = np.arange(1.0, 10.0, dtype="f4").reshape(1, 3, 3)
    gy = np.array([[[1, 10], [100, 1000]]], "f4")
    assert_table(layer(x), "42 52 / 72 82")
    assert_table(layer.backward(gy), "1 12 20 / 103 1234 2040 / 300 3400 4000")
    assert_table(layer.weight_grad, "5421 6532 / 8754 9865")
    assert layer.bias_grad == [1111]


def test_backward_twice_accumulates() -> None:
    layer = conv([[[[1, 2], [3, 4]]]], bias=[0])
    layer(IMAGE)
    layer.backward(ones(1, 3, 3))
    grad = layer.weight_grad
    once = grad.copy()
    layer.backward(ones(1, 3, 3))
    assert layer.weight_grad is grad
    np.testing.assert_array_equal(grad, 2 * once)


def test_only_the_masked_gradients_are_given() -> None:
    for backward in (F.conv2d_backward, F.conv_transpose2d_backward):
        for mask in itertools.product((True, False), repeat=3):
            arrays = ones(1, 1, 1, 1), ones(1, 1, 1, 1), ones(1, 1, 1, 1)
            gradients = backward(*arrays, output_mask=mask)
            assert tuple(g is not None for g in gradients) == mask


def test_grad_output_of_another_shape_is_refused() -> None:
    for layer in (pyconv.Conv2d(1, 1, 2), pyconv.MaxPool2d(2, 1), pyconv.AvgPool2d(2, 1)):
        y = layer(IMAGE)
        for shape in ((1, 1, 3, 3), (1, 3, 4), (1, 9), (2, 3, 3)):
            with pytest.raises(ValueError):
                layer.backward(np.zeros(shape, "f4"))
        assert layer.backward(np.zeros_like(y)).shape == IMAGE.shape


# ---- transposed convolution ----


def transposed(weight: Any, **arguments: Any) -> pyconv.ConvTranspose2d:
    w = np.array(weight, "f4")
    layer = pyconv.ConvTranspose2d(len(w), w.shape[1], w.shape[2:], bias=False, **arguments)
    layer.weight = w
    return layer


def test_transposed_vector() -> None:
    weight = np.arange(1, 10).reshape(1, 1, 3, 3)
    layer = transposed(weight, stride=2, padding=1, output_padding=1)
    text = "5 14 10 12 / 14 36 24 30 / 15 34 20 24 / 24 55 32 36"
    assert_table(layer(np.array([[[1, 2], [3, 4]]], "f4")), text)


def test_transposed_takes_zeros_mode_alone_and_says_so_first() -> None:
    for arguments in ({"padding_mode": "reflect"}, {"padding_mode": "x", "groups": 0}):
        with pytest.raises(ValueError, match='Only "zeros" padding mode is supported'):
            pyconv.ConvTranspose2d(1, 1, 3, **arguments)


@pytest.mark.parametrize("padding", ["same", "valid"])
def test_transposed_refuses_padding_strings(padding: str) -> None:
    with pytest.raises((TypeError, ValueError), match="padding"):
        pyconv.ConvTranspose2d(1, 1, 3, padding=padding)


def test_transposed_output_size() -> None:
    """(n-1)*s - 2p + d(k-1) + output_padding + 1."""
    checked = 0
    for n, k, s, p, d in itertools.product((1, 2, 5), (1, 2, 4), (1, 2, 3), (0, 1, 2), (1, 3)):
        size = (n - 1) * s - 2 * p + d * (k - 1) + 1
        for more in range(max(s, d)):
            layer = pyconv.ConvTranspose2d(1, 1, (1, k), (1, s), (0, p), (0, more), dilation=(1, d))
            if size + more >= 1:
                assert layer(ones(1, 1, n)).shape == (1, 1, size + more)
                checked += 1
            else:
                with pytest.raises(ValueError, match="Output size is too small"):
                    layer(ones(1, 1, n))
    assert checked > 200


def test_transposed_output_too_small_for_any_batch() -> None:
    """A difference: for more than one sample torch returns an array without elements."""
    layer = pyconv.ConvTranspose2d(1, 1, 3, padding=2)
    for n in (0, 1, 2):
        with pytest.raises(ValueError, match="Output size is too small"):
            layer(ones(n, 1, 2, 2))


def test_output_padding_cells_are_computed_values() -> None:
    """With padding cut off, the added row is what the padding would have hidden, plus the bias."""
    layer = transposed([[[[1, 2, 3]]]], stride=(1, 2), padding=(0, 1), output_padding=(0, 1))
    assert_table(layer(np.array([[[1, 10]]], "f4")), "2 13 20 30")
    y = F.conv_transpose2d(ones(1, 1, 1), ones(1, 1, 1, 1), [7.0], stride=3, output_padding=2)
    assert_table(y, "8 7 7 / 7 7 7 / 7 7 7")


def test_output_padding_rule() -> None:
    """Per axis smaller than the stride or smaller than the dilation."""
    for s, d, more in itertools.product((1, 2, 3), (1, 2, 3), range(4)):
        if more < max(s, d):
            layer = pyconv.ConvTranspose2d(1, 1, 2, s, 0, (0, more), dilation=d)
            assert layer(ones(1, 2, 2)).shape == (1, s + d + 1, s + d + 1 + more)
        else:
            with pytest.raises(ValueError, match="output padding must be smaller than either"):
                pyconv.ConvTranspose2d(1, 1, 2, s, 0, (0, more), dilation=d)


def test_output_size_forms() -> None:
    layer = pyconv.ConvTranspose2d(1, 2, 3, stride=2)
    x = ones(1, 1, 5, 6)
    for size in ((12, 14), [12, 14], (1, 2, 12, 14), np.array([12, 14]), (99, 99, 12, 14)):
        assert layer(x, size).shape == (1, 2, 12, 14)
        assert layer(x, output_size=size).shape == (1, 2, 12, 14)
    assert layer(x[0], (12, 14)).shape == layer(x[0], (2, 12, 14)).shape == (2, 12, 14)
    assert layer(x, None).shape == (1, 2, 11, 13)


def test_output_size_overrides_output_padding() -> None:
    layer = pyconv.ConvTranspose2d(1, 1, 3, stride=2, output_padding=1)
    assert layer(ones(1, 5, 6)).shape == (1, 12, 14)
    assert layer(ones(1, 5, 6), (11, 13)).shape == (1, 11, 13)
    assert layer.backward(ones(1, 11, 13)).shape == (1, 5, 6)


def test_output_size_range_is_stride_wide() -> None:
    """From the least size to stride - 1 more, even where the dilation is larger."""
    layer = pyconv.ConvTranspose2d(1, 1, 3, stride=2, dilation=3)
    least = (5 - 1) * 2 + 3 * 2 + 1
    for more in (-1, 2):
        with pytest.raises(ValueError, match="requested an output size of"):
            layer(ones(1, 5, 5), (least, least + more))
    assert layer(ones(1, 5, 5), (least, least + 1)).shape == (1, least, least + 1)


def test_output_size_of_a_wrong_length_or_type() -> None:
    layer = pyconv.ConvTranspose2d(1, 1, 3, stride=2)
    with pytest.raises(ValueError, match="output_size must have 2 or 4 elements"):
        layer(ones(1, 1, 5, 5), (1, 11, 11))
    with pytest.raises(ValueError, match="output_size must have 2 or 3 elements"):
        layer(ones(1, 5, 5), (1, 1, 11, 11))
    with pytest.raises(TypeError):
        layer(ones(1, 1, 5, 5), 11)


def test_transposed_forward_is_the_input_gradient_of_conv2d() -> None:
    rng = np.random.default_rng(3)
    x = rng.integers(-3, 4, (2, 4, 3, 5)).astype("f4")
    w = rng.integers(-3, 4, (4, 3, 3, 2)).astype("f4")
    y = F.conv_transpose2d(x, w, stride=(2, 1), padding=(1, 0), groups=2, dilation=(1, 2))
    image = np.zeros_like(y)
    arguments: dict[str, Any] = {"stride": (2, 1), "padding": (1, 0), "dilation": (1, 2)}
    gx, _, _ = F.conv2d_backward(x, image, w, groups=2, **arguments)
    np.testing.assert_array_equal(y, gx)
    gy = rng.integers(-3, 4, y.shape).astype("f4")
    gx, _, _ = F.conv_transpose2d_backward(gy, x, w, groups=2, **arguments)
    np.testing.assert_array_equal(gx, F.conv2d(gy, w, groups=2, **arguments))


# ---- sizes beyond 32 and 64 bits ----


def test_sizes_that_torch_computes_wrongly_or_refuses() -> None:
    x = np.arange(9.0, dtype="f4").reshape(1, 3, 3)
    for dilation in (2**31, 2**62, 2**63 - 1):
        with pytest.raises((ValueError, MemoryError)):
            pyconv.Conv2d(1, 1, 3, dilation=dilation)(x)
    for wrong in (2**63, 2**64, -(2**70)):
        with pytest.raises(ValueError):
            pyconv.Conv2d(1, 1, 3, stride=wrong)
        with pytest.raises(ValueError):
            pyconv.MaxPool2d(wrong)
    w = np.full((1, 1, 2, 2), 2, "f4")
    for huge in (2**31, 2**62, 2**63 - 1):  # a stride may be as large as it likes
        assert_table(F.conv2d(x, w, stride=huge), "16")
        assert_table(F.max_pool2d(x, 2, huge), "4")
        assert_table(F.avg_pool2d(x, 2, huge), "2")
    assert_table(F.conv_transpose2d(ones(1, 1, 1), w, stride=2**32), "2 2 / 2 2")


def test_huge_windows_are_memory_or_value_errors() -> None:
    for arguments in ((1, 1, 2**31), (2**31, 2**31, 2**31), (2**40, 1, 1), (1, 1, (2**62, 2))):
        with pytest.raises((ValueError, MemoryError)):
            pyconv.Conv2d(*arguments)
