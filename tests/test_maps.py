"""Activations, softmax, dropout and padding: as layers and as functions, with their gradients."""

import copy
import pickle
import warnings

import numpy as np
import pytest

import pyconv
from pyconv import functional as F
from pyconv.testing import gradcheck

X = np.random.default_rng(0).standard_normal((2, 3, 4, 5))

LAYERS = {
    "Identity()": lambda: pyconv.Identity(1, any=2),
    "Sigmoid()": pyconv.Sigmoid,
    "Tanh()": pyconv.Tanh,
    "LeakyReLU(negative_slope=0.01)": pyconv.LeakyReLU,
    "LeakyReLU(negative_slope=0.3, inplace=True)": lambda: pyconv.LeakyReLU(0.3, True),
    "Softmax(dim=1)": lambda: pyconv.Softmax(1),
    "Softmax(dim=-1)": lambda: pyconv.Softmax(-1),
    "Dropout(p=0.5, inplace=False)": lambda: pyconv.Dropout(rng=0),
    "Dropout(p=0.25, inplace=True)": lambda: pyconv.Dropout(0.25, True, rng=0),
}
FUNCTIONS = {
    "sigmoid": (F.sigmoid, F.sigmoid_backward, {}),
    "tanh": (F.tanh, F.tanh_backward, {}),
    "leaky_relu": (F.leaky_relu, F.leaky_relu_backward, {"negative_slope": 0.3}),
    "softmax": (F.softmax, F.softmax_backward, {"dim": 2}),
    "log_softmax": (F.log_softmax, F.log_softmax_backward, {"dim": -3}),
}
VALUES = {
    "sigmoid": lambda x: 1 / (1 + np.exp(-x)),
    "tanh": lambda x: (np.exp(x) - np.exp(-x)) / (np.exp(x) + np.exp(-x)),
    "leaky_relu": lambda x: np.maximum(x, 0) + 0.3 * np.minimum(x, 0),
    "softmax": lambda x: np.exp(x) / np.exp(x).sum(2, keepdims=True),
    "log_softmax": lambda x: np.log(np.exp(x) / np.exp(x).sum(1, keepdims=True)),
}


# ---- layers ----


@pytest.mark.parametrize("name", LAYERS)
def test_a_layer_prints_copies_and_keeps_dtype_and_mode(name):
    layer = LAYERS[name]()
    assert repr(layer) == name and list(layer.parameters()) == [] and not layer.state_dict()
    for dtype in (np.float32, np.float64):
        y = layer(X.astype(dtype))
        assert y.dtype == dtype and y.shape == X.shape and type(y) is np.ndarray
        assert layer.backward(np.ones(X.shape)).dtype == dtype
        assert layer.backward(np.ones(X.shape), input_grad=False) is None
    assert layer(np.ones((2, 2), np.int64)).dtype == np.float64
    for make in (copy.deepcopy, lambda layer: pickle.loads(pickle.dumps(layer))):
        new = make(layer)
        assert repr(new) == name
        with pytest.raises(RuntimeError, match="forward in training mode"):
            new.backward(X)
        np.testing.assert_array_equal(new(X), layer(X))
    with pytest.raises(ValueError, match="expected grad_output of shape"):
        layer.backward(X[0])
    for wrong in (X.astype(complex), np.array(["a"]), np.array([object()])):
        with pytest.raises(TypeError, match=name.split("(")[0]):
            layer(wrong)
    layer.eval()(X)
    with pytest.raises(RuntimeError, match="forward in training mode"):
        layer.backward(X)


@pytest.mark.parametrize("name", [n for n in LAYERS if "Dropout" not in n])
def test_the_gradients_of_a_layer_fit_difference_quotients(name):
    assert gradcheck(LAYERS[name](), X)
    layer = LAYERS[name]()
    assert gradcheck(pyconv.Sequential(layer, pyconv.Linear(5, 2, rng=0), layer), X)


def test_softmax_without_a_dimension_chooses_torchs_and_says_so():
    layer = pyconv.Softmax()
    assert repr(layer) == "Softmax(dim=None)"
    for shape, axis in (((3,), 0), ((2, 3), 1), ((2, 3, 4), 0), (X.shape, 1)):
        x = np.random.default_rng(1).standard_normal(shape)
        with pytest.warns(UserWarning, match="Implicit dimension choice for softmax"):
            y = layer(x)
        np.testing.assert_array_equal(y, F.softmax(x, axis))
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            np.testing.assert_array_equal(layer.backward(x), F.softmax_backward(x, x, axis))
    with pytest.warns(UserWarning, match="Implicit dimension") as caught:
        F.softmax(X)
    assert caught[0].filename == __file__


def test_dropout_zeroes_and_scales_what_its_generator_says():
    x = np.random.default_rng(3).standard_normal((100, 100)).astype(np.float32)
    layer, other = pyconv.Dropout(0.2, rng=5), pyconv.Dropout(0.2, rng=5)
    y = layer(x)
    np.testing.assert_array_equal(y, other(x))
    kept = y != 0
    assert 0.78 < kept.mean() < 0.82
    np.testing.assert_allclose(y[kept], x[kept] * 1.25, rtol=1e-6)
    grad = layer.backward(np.ones_like(x))
    np.testing.assert_allclose(grad, np.where(kept, 1.25, 0), rtol=1e-6)
    assert not np.array_equal(layer(x), y)  # the next choice is another one
    np.testing.assert_array_equal(layer.eval()(x), x)
    y, pullback = layer.vjp(x)
    np.testing.assert_array_equal(y, x)
    np.testing.assert_array_equal(pullback(y), x)
    assert not pyconv.Dropout(1.0)(x).any()
    np.testing.assert_array_equal(pyconv.Dropout(0.0)(x), x)


def test_dropout_follows_manual_seed_and_is_chosen_anew_where_it_stands_twice():
    x = np.ones(64, np.float32)
    layer = pyconv.Dropout()
    pyconv.manual_seed(3)
    first, second = layer(x), layer(x)
    pyconv.manual_seed(3)
    assert np.array_equal(layer(x), first) and np.array_equal(layer(x), second)
    assert not np.array_equal(first, second)
    net = pyconv.Sequential(layer, layer)
    y = net(x)
    np.testing.assert_array_equal(net.backward(x), y)  # of ones the output is the gradient


def test_dropout_as_a_function():
    x = np.ones(1000)
    y = F.dropout(x, 0.25, rng=2)
    assert set(np.unique(y)) == {0, 1 / 0.75} and 0.7 < (y > 0).mean() < 0.8
    for quiet in (F.dropout(x, 0.25, False), F.dropout(x, 0)):
        assert quiet is not x and np.array_equal(quiet, x)


@pytest.mark.parametrize("p", [-0.1, 1.1, np.nan])
def test_dropout_wants_a_probability(p):
    for make in (lambda: pyconv.Dropout(p), lambda: F.dropout(X, p)):
        with pytest.raises(ValueError, match="probability has to be between 0 and 1, but got"):
            make()


# ---- functions ----


@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_functions_values_and_gradients(name):
    function, backward, options = FUNCTIONS[name]
    np.testing.assert_allclose(function(X, **options), VALUES[name](X), rtol=1e-13, atol=1e-15)
    assert gradcheck(function, X, **options)
    x32 = X.astype(np.float32)
    y = function(x32, **options)
    assert y.dtype == np.float32 and y.flags.c_contiguous
    np.testing.assert_allclose(y, VALUES[name](X), rtol=1e-5, atol=1e-6)
    turned = np.asfortranarray(x32)[:, ::-1]
    np.testing.assert_array_equal(
        function(turned, **options), function(np.ascontiguousarray(turned), **options)
    )
    assert function(turned, **options).flags.c_contiguous
    assert backward(X, turned, **options).flags.c_contiguous
    with pytest.raises(ValueError, match="grad_output"):
        backward(X[0], X, **options)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_function_of_nothing_and_of_extremes(name):
    function, backward, options = FUNCTIONS[name]
    empty = np.ones((0, 3, 4, 5), np.float32)
    assert (
        function(empty, **options).shape == backward(empty, empty, **options).shape == (0, 3, 4, 5)
    )
    with warnings.catch_warnings(), np.errstate(all="raise"):
        warnings.simplefilter("error")
        x = np.full((1, 3, 2, 1), 1e30, np.float32)
        x[0, 0, 0, 0] = np.nan
        x[0, 1] = -x[0, 1]
        y = function(x, **options)
        assert np.isnan(y[0, 0, 0, 0]) and np.isfinite(y[0, 1:, 1]).all()
        assert np.isfinite(backward(np.ones_like(x), x, **options)[0, 1:, 1]).all()


def test_softmax_of_a_number_and_of_another_dtype():
    assert F.softmax(3.0, 0) == 1 and F.softmax(3.0, 0).shape == ()
    assert F.softmax_backward(1.0, 3.0, 0).shape == ()
    assert F.softmax(X, 1, dtype=np.float32).dtype == np.float32
    assert F.softmax_backward(X, X, 1, dtype=np.float32).dtype == np.float32
    for dim, error in ((4, ValueError), (-5, ValueError), (1.0, TypeError), (True, TypeError)):
        with pytest.raises(error, match=r"Dimension out of range|must be an int"):
            F.softmax(X, dim)
    with pytest.raises(TypeError, match="float16"):
        F.softmax(X, 1, dtype=np.float16)


# ---- padding ----

PADS = {
    "constant": [
        ((1, 2), {}),
        ((1, 0, 2, 3), {"value": 7.5}),
        ((0, 1, -1, 2, -1, -1, 1, 0), {"value": -1}),
        ((-2, -3), {}),
        ((), {}),
    ],
    "reflect": [((1, 2, 3, 0), {}), ((-1, 1, 2, -1), {}), ((1, 1, 2, 2, 1, 2), {})],
    "replicate": [((1, 7, 3, 0), {}), ((-1, 1, 2, -1), {}), ((1, 1, 2, 2, 1, 2), {})],
    "circular": [((1, 5, 3, 0), {}), ((-1, 1, 2, -1), {}), ((1, 1, 2, 2, 1, 2), {})],
}
CASES = [(mode, *case) for mode, cases in PADS.items() for case in cases]


@pytest.mark.parametrize("mode, pad, options", CASES)
def test_pad(mode, pad, options):
    assert gradcheck(F.pad, X, pad=pad, mode=mode, **options)
    if min(pad, default=0) >= 0:  # NumPy's own names for the same
        pairs = [(pad[i], pad[i + 1]) for i in range(0, len(pad), 2)]
        widths = [(0, 0)] * (4 - len(pairs)) + pairs[::-1]
        how = {"replicate": "edge", "circular": "wrap"}.get(mode, mode)
        more = {"constant_values": options.get("value", 0)} if mode == "constant" else {}
        np.testing.assert_array_equal(
            F.pad(X, pad, mode, **options), np.pad(X, widths, how, **more)
        )
    y = F.pad(X.astype(np.float32)[..., ::-1], pad, mode, **options)
    assert y.dtype == np.float32 and y.flags.c_contiguous and not np.shares_memory(y, X)


PAD_MISTAKES = {
    "odd": ((1,), {}, ValueError, "divisible by 2"),
    "too many": ((1,) * 10, {}, ValueError, "two times the input dimension"),
    "float": ((1.0, 1), {}, TypeError, "pad must be an int"),
    "bool": ((True, 1), {}, TypeError, "pad must be an int"),
    "mode": ((1, 1), {"mode": "same"}, ValueError, "Unrecognised padding mode same"),
    "axes": ((1, 1), {"mode": "reflect"}, ValueError, "not supported for 4D input"),
    "reflect": ((5, 1, 0, 0), {"mode": "reflect"}, ValueError, "less than the corresponding"),
    "circular": ((6, 0, 0, 0), {"mode": "circular"}, ValueError, "wrapping around more than once"),
    "negative": ((-3, -3), {}, ValueError, "negative output size"),
    "value": ((1, 1, 1, 1), {"mode": "circular", "value": 3}, ValueError, "doesn't take in value"),
}


@pytest.mark.parametrize("name", PAD_MISTAKES)
def test_pad_refuses(name):
    pad, options, error, text = PAD_MISTAKES[name]
    with pytest.raises(error, match=text):
        F.pad(X, pad, **options)
    if "value" not in options:
        with pytest.raises(error, match=text):
            F.pad_backward(X, X.shape, pad, **options)


def test_pad_backward_wants_the_outputs_shape():
    with pytest.raises(ValueError, match="expected grad_output of shape"):
        F.pad_backward(X, X.shape, (1, 1))
