"""The layers as Python sees them: signatures, printing, initial values, attributes, modes."""

import gc
import inspect
import math
import weakref

import numpy as np
import pytest

import pyconv

# ---- signatures: torch's names, order and defaults ----

SIGNATURES = {
    "Conv2d": "in_channels, out_channels, kernel_size, stride=1, padding=0, dilation=1, groups=1, "
    "bias=True, padding_mode='zeros', device=None, dtype=None, *, rng=None",
    "ConvTranspose2d": "in_channels, out_channels, kernel_size, stride=1, padding=0, "
    "output_padding=0, groups=1, bias=True, dilation=1, padding_mode='zeros', device=None, "
    "dtype=None, *, rng=None",
    "Linear": "in_features, out_features, bias=True, device=None, dtype=None, *, rng=None",
    "ReLU": "inplace=False",
    "Conv1d": "in_channels, out_channels, kernel_size, stride=1, padding=0, dilation=1, groups=1, "
    "bias=True, padding_mode='zeros', device=None, dtype=None, *, rng=None",
    "BatchNorm2d": "num_features, eps=1e-05, momentum=0.1, affine=True, track_running_stats=True, "
    "device=None, dtype=None, *, bias=True",
    "AdaptiveAvgPool2d": "output_size",
    "Flatten": "start_dim=1, end_dim=-1",
    "CrossEntropyLoss": "weight=None, size_average=None, ignore_index=-100, reduce=None, "
    "reduction='mean', label_smoothing=0.0",
    "MSELoss": "size_average=None, reduce=None, reduction='mean'",
}


def plain_signature(function):
    parameters = [
        p.replace(annotation=inspect.Parameter.empty)
        for p in inspect.signature(function).parameters.values()
        if p.name != "self"
    ]
    return str(inspect.Signature(parameters))[1:-1]


@pytest.mark.parametrize("name", SIGNATURES)
def test_signature(name):
    assert plain_signature(getattr(pyconv, name).__init__) == SIGNATURES[name]


def test_pools_take_torchs_positional_order():
    pool = pyconv.MaxPool2d(3, 2, 1, 4, True, False)
    assert (pool.kernel_size, pool.stride, pool.padding) == (3, 2, 1)
    assert (pool.dilation, pool.return_indices, pool.ceil_mode) == (4, True, False)
    pool = pyconv.AvgPool2d(3, 2, 1, True, False, 7)
    assert (pool.kernel_size, pool.stride, pool.padding) == (3, 2, 1)
    assert (pool.ceil_mode, pool.count_include_pad, pool.divisor_override) == (True, False, 7)
    assert pyconv.MaxPool2d((3, 2)).stride == (3, 2)


def test_every_public_class_is_documented():
    for name in pyconv.__all__:
        value = getattr(pyconv, name)
        if inspect.isclass(value) and value is not pyconv.num_threads:
            for heading in ("Raises", "Examples"):
                assert f"\n    {heading}\n    ---" in value.__doc__, (name, heading)


# ---- printing ----

PRINTED = [
    (
        lambda: pyconv.Conv2d(4, 8, 3, 2, 1, 2, 4, False, "reflect"),
        "Conv2d(4, 8, kernel_size=(3, 3), stride=(2, 2), padding=(1, 1), dilation=(2, 2), "
        "groups=4, bias=False, padding_mode=reflect)",
    ),
    (
        lambda: pyconv.Conv2d(1, 1, (3, 5), padding="same", dilation=2),
        "Conv2d(1, 1, kernel_size=(3, 5), stride=(1, 1), padding=same, dilation=(2, 2))",
    ),
    (
        lambda: pyconv.Conv2d(1, 1, 3, padding="valid"),
        "Conv2d(1, 1, kernel_size=(3, 3), stride=(1, 1), padding=valid)",
    ),
    (
        lambda: pyconv.Conv2d(1, 1, 3, padding=((1, 0), (2, 3))),
        "Conv2d(1, 1, kernel_size=(3, 3), stride=(1, 1), padding=((1, 0), (2, 3)))",
    ),
    (
        lambda: pyconv.ConvTranspose2d(4, 8, 3, 2, 1, 1, 4, False, 2),
        "ConvTranspose2d(4, 8, kernel_size=(3, 3), stride=(2, 2), padding=(1, 1), dilation=(2, 2), "
        "output_padding=(1, 1), groups=4, bias=False)",
    ),
    (
        lambda: pyconv.MaxPool2d(3, 2, 1, return_indices=True),
        "MaxPool2d(kernel_size=3, stride=2, padding=1, dilation=1, ceil_mode=False)",
    ),
    (
        lambda: pyconv.AvgPool2d((3, 2)),
        "AvgPool2d(kernel_size=(3, 2), stride=(3, 2), padding=0)",
    ),
    (lambda: pyconv.ReLU(), "ReLU()"),
    (lambda: pyconv.ReLU(inplace=True), "ReLU(inplace=True)"),
    (lambda: pyconv.Flatten(), "Flatten(start_dim=1, end_dim=-1)"),
    (lambda: pyconv.Linear(4, 3), "Linear(in_features=4, out_features=3, bias=True)"),
    (lambda: pyconv.Linear(4, 3, False), "Linear(in_features=4, out_features=3, bias=False)"),
    (lambda: pyconv.CrossEntropyLoss(), "CrossEntropyLoss()"),
    (lambda: pyconv.MSELoss(), "MSELoss()"),
]


@pytest.mark.parametrize(("make", "text"), PRINTED, ids=[text[:40] for _, text in PRINTED])
def test_repr(make, text):
    assert repr(make()) == text


def test_a_subclass_prints_its_own_name():
    class Mine(pyconv.Conv2d):
        pass

    assert repr(Mine(1, 2, 3)) == "Mine(1, 2, kernel_size=(3, 3), stride=(1, 1))"


# ---- initial values ----


def with_rng(rng):
    """The layers that have parameters, with their fan-in as torch counts it."""
    return [
        (pyconv.Conv2d(8, 64, (3, 5), groups=2, rng=rng), 4 * 15),
        (pyconv.ConvTranspose2d(64, 8, (3, 5), groups=2, rng=rng), 4 * 15),
        (pyconv.Linear(60, 100, rng=rng), 60),
    ]


@pytest.mark.parametrize("i", range(3))
def test_weights_and_bias_are_uniform_within_torchs_bounds(i):
    layer, fan_in = with_rng(0)[i]
    bound = 1 / math.sqrt(fan_in)
    values = np.concatenate([layer.weight.ravel(), layer.bias]) / bound
    assert np.abs(values).max() <= 1 + 1e-6
    # 3840 and more values from U(-1, 1): mean 0 +- 0.0093, variance 1/3 +- 0.0048.
    assert abs(values.mean()) < 0.05 and abs(values.var() - 1 / 3) < 0.025
    # Kolmogorov-Smirnov: 1.95 / sqrt(n) is passed once in a thousand times.
    ranks = (np.arange(values.size) + 0.5) / values.size
    assert np.abs((np.sort(values) + 1) / 2 - ranks).max() < 1.95 / math.sqrt(values.size)


@pytest.mark.parametrize("i", range(3))
def test_rng_decides_the_values(i):
    a, b, c = (with_rng(seed)[i][0] for seed in (0, 0, 1))
    np.testing.assert_array_equal(a.weight, b.weight)
    np.testing.assert_array_equal(a.bias, b.bias)
    assert not (a.weight == c.weight).any()


def test_rng_is_anything_that_default_rng_takes():
    expected = pyconv.Conv2d(1, 2, 3, rng=7).weight
    for rng in (np.random.default_rng(7), np.random.SeedSequence(7), np.random.PCG64(7), [7]):
        np.testing.assert_array_equal(pyconv.Conv2d(1, 2, 3, rng=rng).weight, expected)


def test_a_generator_goes_on_weight_first_then_bias():
    rng = np.random.default_rng(3)
    layer = pyconv.Conv2d(1, 2, 3, rng=rng, dtype=np.float64)
    other = np.random.default_rng(3)
    np.testing.assert_array_equal(layer.weight, other.uniform(-1 / 3, 1 / 3, (2, 1, 3, 3)))
    np.testing.assert_array_equal(layer.bias, other.uniform(-1 / 3, 1 / 3, 2))
    assert rng.random() == other.random()


def test_manual_seed_starts_the_default_generator_anew():
    pyconv.manual_seed(5)
    first = [layer.weight.copy() for layer, _ in with_rng(None)]
    assert isinstance(pyconv.manual_seed(5), np.random.Generator)
    again = [layer.weight.copy() for layer, _ in with_rng(None)]
    for a, b in zip(first, again, strict=True):
        np.testing.assert_array_equal(a, b)
    assert not (pyconv.Linear(60, 100).weight == again[2]).any()


def test_one_seed_gives_the_same_numbers_in_both_dtypes():
    wide, narrow = (pyconv.Conv2d(2, 3, 3, dtype=t, rng=4) for t in (np.float64, np.float32))
    np.testing.assert_array_equal(wide.weight.astype(np.float32), narrow.weight)


def test_reset_parameters_draws_again_in_place():
    for layer, _ in with_rng(0):
        array, before = layer.weight, layer.weight.copy()
        layer.reset_parameters(1)
        assert layer.weight is array and not (array == before).any()
        layer.reset_parameters(0)
        np.testing.assert_array_equal(array, before)


# ---- dtypes and devices ----


@pytest.mark.parametrize(
    "make", [lambda **o: pyconv.Conv2d(1, 2, 1, **o), lambda **o: pyconv.Linear(1, 2, **o)]
)
def test_dtype_and_device(make):
    assert make().weight.dtype == np.float32
    for dtype in ("float64", np.float64, float, np.dtype("f8")):
        layer = make(dtype=dtype, device="cpu")
        assert layer.dtype == layer.weight.dtype == layer.bias.dtype == np.float64
    for dtype in (np.float16, int, complex, "U3"):
        with pytest.raises(TypeError, match="dtype"):
            make(dtype=dtype)
    with pytest.raises(ValueError, match="device"):
        make(device="cuda")


def test_a_layer_with_parameters_converts_its_input():
    for dtype in (np.uint8, np.int64, np.float16, np.float64, bool):
        x = np.ones((1, 2, 3, 3), dtype)
        assert pyconv.Conv2d(2, 1, 3)(x).dtype == np.float32
        assert pyconv.Linear(3, 1)(x).dtype == np.float32
        assert pyconv.Linear(3, 1, dtype=np.float64)(x).dtype == np.float64


def test_a_layer_without_parameters_keeps_float64():
    for dtype, expected in [
        (np.uint8, np.float32),
        (np.float16, np.float32),
        (np.float32, np.float32),
        (np.int64, np.float64),
        (np.float64, np.float64),
        (">f4", np.float32),
    ]:
        for layer in (pyconv.ReLU(), pyconv.Flatten(), pyconv.MaxPool2d(1)):
            y = layer(np.ones((1, 2, 3, 3), dtype))
            assert y.dtype == expected
            assert layer.backward(np.ones(y.shape, np.float64)).dtype == expected


@pytest.mark.parametrize("make", [pyconv.ReLU, pyconv.Flatten, lambda: pyconv.Linear(2, 2)])
@pytest.mark.parametrize("dtype", [complex, np.longdouble, object, "U1"])
def test_what_is_not_real_is_refused(make, dtype):
    with pytest.raises(TypeError, match=r"float32 or float64|must be an array of real numbers"):
        make()(np.ones((2, 2)).astype(dtype))


def test_anything_like_an_array_will_do():
    class Arrayish:
        def __array__(self, dtype=None, copy=None):
            return np.array([[-1.0, 2.0]], dtype)

    class Dlpack:
        array = np.array([[-1.0, 2.0]])

        def __dlpack__(self, **options):
            return self.array.__dlpack__(**options)

        def __dlpack_device__(self):
            return self.array.__dlpack_device__()

    for x in (Arrayish(), Dlpack(), [[-1, 2]], np.array([[-1.0, 2.0]]).T[::-1].T[:, ::-1]):
        assert pyconv.ReLU()(x).tolist() == [[0, 2]]


# ---- attributes ----


@pytest.mark.parametrize(
    "make", [lambda **o: pyconv.Conv2d(2, 3, 1, **o), lambda **o: pyconv.Linear(2, 3, **o)]
)
def test_weight_and_bias_are_the_layers_own(make):
    layer, silent = make(), make(bias=False)
    weight = layer.weight
    layer.weight = np.full(weight.shape, 3)
    layer.weight -= 1
    assert layer.weight is weight and (weight == 2).all()
    with pytest.raises(ValueError, match="shape"):
        layer.weight = np.ones((2, 2))
    with pytest.raises(ValueError):
        layer.bias = None
    assert silent.bias is None and silent.bias_grad is None
    assert list(silent.state_dict()) == ["weight"]
    silent.bias = None
    with pytest.raises(ValueError):
        silent.bias = np.zeros(3)
    for name in ("weight", "bias"):
        with pytest.raises(AttributeError):
            delattr(layer, name)
    layer.weight_grad = np.ones(weight.shape)
    assert layer.weight_grad.dtype == np.float32
    with pytest.raises(ValueError, match="shape"):
        layer.weight_grad = np.ones(3)
    layer.weight_grad = None
    assert layer.weight_grad is None and (weight == 2).all()


def test_linear_checks_its_sizes():
    assert pyconv.Linear(0, 3)(np.ones((2, 0))).tolist() == [[0, 0, 0]] * 2
    assert pyconv.Linear(3, 0)(np.ones((2, 3))).shape == (2, 0)
    for wrong in (True, 2.0, "2", None):
        with pytest.raises(TypeError, match="in_features must be an int"):
            pyconv.Linear(wrong, 3)
    with pytest.raises(ValueError, match="out_features must be at least 0, got -1"):
        pyconv.Linear(2, -1)
    with pytest.raises(ValueError, match="too large"):
        pyconv.Linear(2**64, 1)


def test_linear_is_a_matrix_product_over_the_last_axis():
    layer = pyconv.Linear(2, 3, dtype=np.float64)
    layer.weight = [[1, 2], [3, 4], [5, 6]]
    layer.bias = [10, 20, 30]
    assert layer([1, 1]).tolist() == [13, 27, 41]
    assert layer(np.ones((4, 5, 2))).shape == (4, 5, 3)
    assert layer.backward(np.ones((4, 5, 3))).tolist() == [[[9, 12]] * 5] * 4
    assert layer.weight_grad.tolist() == [[20, 20]] * 3 and layer.bias_grad.tolist() == [20] * 3
    for x, got in ((np.ones((2, 5)), r"\(2x5 and 2x3\)"), (1.0, "")):
        with pytest.raises(ValueError, match=f"cannot be multiplied.*{got}"):
            layer(x)


def test_a_gradient_array_stays_the_same_object():
    for layer, x in (
        (pyconv.Conv2d(1, 1, 1), np.ones((1, 1, 2, 2))),
        (pyconv.Linear(2, 1), np.ones((1, 2))),
    ):
        y = layer(x)
        layer.backward(np.ones_like(y))
        held = layer.weight_grad
        once = held.copy()
        layer.backward(np.ones_like(y))
        assert layer.weight_grad is held
        np.testing.assert_array_equal(held, 2 * once)


def test_flatten_joins_axes():
    x = np.arange(120.0).reshape(2, 3, 4, 5)
    for start, end, shape in [
        (1, -1, (2, 60)),
        (0, -1, (120,)),
        (2, 3, (2, 3, 20)),
        (1, 2, (2, 12, 5)),
        (3, 3, (2, 3, 4, 5)),
        (-2, -1, (2, 3, 20)),
    ]:
        layer = pyconv.Flatten(start, end)
        y = layer(x)
        assert y.shape == shape and (y.ravel() == x.ravel()).all()
        np.testing.assert_array_equal(layer.backward(y), x)
    assert pyconv.Flatten(0)(5).shape == (1,)
    assert pyconv.Flatten()(np.ones((0, 3, 4))).shape == (0, 12)
    with pytest.raises(ValueError, match="start_dim cannot come after end_dim"):
        pyconv.Flatten(2, 1)(x)
    with pytest.raises(ValueError, match=r"range of \[-4, 3\], but got 4"):
        pyconv.Flatten(4)(x)
    with pytest.raises(TypeError, match="start_dim must be an int"):
        pyconv.Flatten(1.0)


# ---- modes ----

SMALL = {
    "Conv2d": (lambda: pyconv.Conv2d(2, 3, 2, rng=0), (1, 2, 4, 4)),
    "ConvTranspose2d": (lambda: pyconv.ConvTranspose2d(2, 3, 2, rng=0), (1, 2, 4, 4)),
    "MaxPool2d": (lambda: pyconv.MaxPool2d(2), (1, 2, 4, 4)),
    "AvgPool2d": (lambda: pyconv.AvgPool2d(2), (1, 2, 4, 4)),
    "ReLU": (pyconv.ReLU, (1, 2, 4, 4)),
    "Conv1d": (lambda: pyconv.Conv1d(2, 3, 2, rng=0), (1, 2, 7)),
    "BatchNorm2d": (lambda: pyconv.BatchNorm2d(2), (2, 2, 3, 4)),
    "AdaptiveAvgPool2d": (lambda: pyconv.AdaptiveAvgPool2d((2, 3)), (1, 2, 5, 4)),
    "Flatten": (pyconv.Flatten, (1, 2, 4, 4)),
    "Linear": (lambda: pyconv.Linear(4, 3, rng=0), (2, 4)),
}


@pytest.mark.parametrize("name", SMALL)
def test_backward_only_after_a_forward_in_training_mode(name):
    make, shape = SMALL[name]
    layer, x = make(), np.random.default_rng(0).standard_normal(shape)
    with pytest.raises(RuntimeError, match=f"{name}.*forward in training mode"):
        layer.backward(x)
    y = layer(x)
    layer.eval()(x)
    with pytest.raises(RuntimeError, match="forward in training mode"):
        layer.backward(y)
    layer.train()(x)
    assert layer.backward(y).shape == shape
    assert layer.backward(y, input_grad=False) is None
    with pytest.raises(ValueError, match="grad_output"):
        layer.backward(np.ones((*y.shape, 1)))


@pytest.mark.parametrize("name", SMALL)
def test_vjp_leaves_the_saved_forward_alone(name):
    make, shape = SMALL[name]
    layer, other = make(), make()
    x, z = np.random.default_rng(0).standard_normal((2, *shape))
    y = layer(x)
    grad = np.ones_like(y)
    _, pullback = layer.vjp(z)
    np.testing.assert_array_equal(layer.backward(grad), (other(x), other.backward(grad))[1])
    layer.zero_grad(), other.zero_grad()
    np.testing.assert_array_equal(pullback(grad), (other(z), other.backward(grad))[1])
    for mine, theirs in zip(layer.parameters(), other.parameters(), strict=True):
        np.testing.assert_array_equal(mine.grad, theirs.grad)


@pytest.mark.parametrize("name", SMALL)
def test_gradients_fit_difference_quotients(name):
    make, shape = SMALL[name]
    x = np.random.default_rng(3).permutation(np.arange(float(np.prod(shape)))).reshape(shape) - 3.3
    assert pyconv.testing.gradcheck(make(), x)


@pytest.mark.parametrize("name", SMALL)
def test_adding_to_an_output_is_harmless(name):
    make, shape = SMALL[name]
    layer, other = make(), make()
    x = np.random.default_rng(0).standard_normal(shape)
    grad = np.ones_like(layer(x.copy()))
    y = layer(x.copy())
    y += 100
    other(x)
    np.testing.assert_array_equal(layer.backward(grad), other.backward(grad))


@pytest.mark.parametrize("name", SMALL)
def test_a_layer_is_freed_without_the_collector(name):
    make, shape = SMALL[name]
    gc.disable()
    try:
        layer = make()
        layer.backward(layer(np.ones(shape)))
        list(layer.parameters()), layer.state_dict(), repr(layer)
        gone = weakref.ref(layer)
        del layer
        assert gone() is None
    finally:
        gc.enable()


@pytest.mark.parametrize("cls", [pyconv.Conv2d, pyconv.MaxPool2d, pyconv.Linear])
def test_a_half_made_layer_says_so(cls):
    layer = cls.__new__(cls)
    for use in (lambda: layer(np.ones((1, 1, 3, 3))), lambda: repr(layer)):
        with pytest.raises(RuntimeError, match="__init__"):
            use()
    layer = pyconv.Linear.__new__(pyconv.Linear)
    for name in ("weight", "bias", "weight_grad", "bias_grad", "dtype"):
        with pytest.raises(RuntimeError, match="__init__"):
            getattr(layer, name)


def test_the_namespace_is_what_it_says():
    for name in pyconv.__all__:
        assert getattr(pyconv, name) is not None
    assert set(pyconv.__all__) <= set(dir(pyconv))
    with pytest.raises(AttributeError, match="no attribute 'Conv4d'"):
        _ = pyconv.Conv4d
