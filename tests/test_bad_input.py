"""Bad input: one clear error of the right class, the layer as it was, and the next call right.

The class says what is wrong: TypeError for a wrong type, ValueError for a wrong value or shapes
that disagree, RuntimeError for a wrong order of calls. The message names the layer or function and
what came. Calls that crashed other libraries run in a child. What constructors refuse stands in
test_bad_sizes.py.
"""

# ruff: noqa: B023 - each lambda is called before its loop goes on

import copy
import itertools
import pickle
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from guarded import in_child
from small_layers import CONVS, LAYERS, POOLS, fails, image, make, snapshot, unchanged

import pyconv
import pyconv.functional as F
from pyconv import _core, reference

# ---- calls ----


class Unit:
    """Makes a layer with a forward behind it, and checks that a bad call left it as it was."""

    def __init__(self, name: str, **changes: Any) -> None:
        self.layer = make(name, **changes)
        self.y = self.layer(image)
        self.gy = np.ones_like(self.y)
        if name in CONVS:
            self.layer.backward(self.gy)
        self.gx = self.layer.vjp(image)[1](self.gy, True) if name in POOLS else None
        self.before = snapshot(self.layer)

    def refuses(self, error: Any, call: Callable[[Any], Any], *words: str) -> None:
        """Demand an error, an unchanged layer, and a right call after it."""
        fails(error, lambda: call(self.layer), *words)
        unchanged(self.layer, self.before)

    def works(self) -> None:
        """Demand that backward still belongs to the first forward, and the next call is right."""
        assert np.array_equal(self.layer(image), self.y)
        gx = self.layer.backward(self.gy)
        assert gx.shape == image.shape
        if self.gx is not None:
            assert np.array_equal(gx, self.gx)


BAD_SHAPES = [(), (3,), (8, 9), (1, 2, 3, 8, 9), (2, 4, 8, 9), (4, 8, 9), (2, 3, 2, 9), (3, 8, 1)]


@pytest.mark.parametrize("name", LAYERS)
@pytest.mark.parametrize("shape", BAD_SHAPES, ids=str)
def test_inputs_of_wrong_shape(name: str, shape: tuple[int, ...]) -> None:
    """Rank, channels, and sizes smaller than the window."""
    channels_are_wrong = len(shape) in (3, 4) and shape[-3] != 3
    too_small = len(shape) in (3, 4) and not channels_are_wrong
    if name == "ReLU" or (name not in (*CONVS, "BatchNorm2d") and channels_are_wrong):
        return  # a pool takes any channels, ReLU takes anything
    if name in ("ConvTranspose2d", "AdaptiveAvgPool2d") and too_small:
        return
    if name == "BatchNorm2d" and shape == (2, 3, 2, 9):
        return
    too_small = too_small and name != "BatchNorm2d"
    unit = Unit(name)
    words = [name]
    if not too_small:
        words.append(str(shape))
    for call in (
        lambda layer: layer(np.ones(shape, np.float32)),
        lambda layer: layer.forward(np.ones(shape, np.float32)),
        lambda layer: layer.vjp(np.ones(shape, np.float32)),
    ):
        unit.refuses(ValueError, call, *words)
    unit.works()


def test_the_message_shows_the_arithmetic() -> None:
    """What a user reads who gives an image that is too small, or too flat."""
    layer = pyconv.Conv2d(3, 16, 3)
    fails(
        ValueError,
        lambda: layer(np.ones((28, 28))),
        "Conv2d(3, 16): expected input (N, 3, H, W) or (3, H, W), got (28, 28)",
    )
    fails(
        ValueError,
        lambda: layer(np.ones((3, 2, 8))),
        "Conv2d(3, 16): ",
        "output height = floor((2 + 2*0 - 1*(3-1) - 1)/1) + 1 = 0",
    )
    fails(ValueError, lambda: pyconv.MaxPool2d(3)(np.ones((1, 2, 9))), "MaxPool2d(kernel_size=3): ")
    fails(ValueError, lambda: F.conv2d(np.ones(3), np.ones((1, 1, 1, 1))), "conv2d: ")


BAD_ARRAYS: dict[str, Any] = {
    "complex": image.astype(complex),
    "longdouble": image.astype(np.longdouble),
    "objects": image.astype(object),
    "strings": image.astype("U8"),
    "bytes": image.astype("S8"),
    "dates": image.astype("M8[s]"),
    "records": np.zeros(image.shape, [("a", "f4")]),
    "None": None,
    "a word": "image",
    "a dict": {"x": 1},
    "a ragged list": [[[1.0], [1.0, 2.0]]],
}


@pytest.mark.parametrize("name", LAYERS)
@pytest.mark.parametrize("kind", BAD_ARRAYS)
def test_inputs_of_wrong_type(name: str, kind: str) -> None:
    """What is not made of real numbers, as input and as gradient."""
    value = BAD_ARRAYS[kind]
    error = (TypeError, ValueError) if kind == "a ragged list" else TypeError
    unit = Unit(name)
    unit.refuses(error, lambda layer: layer(value))
    unit.refuses(error, lambda layer: layer.vjp(value))
    unit.refuses(error, lambda layer: layer.backward(value))
    if kind not in ("a ragged list",):
        unit.refuses(TypeError, lambda layer: layer(value), name)
    unit.works()


@pytest.mark.parametrize("name", LAYERS)
def test_calls_with_wrong_arguments(name: str) -> None:
    """Too few, too many, unknown."""
    unit = Unit(name)
    for call in (
        lambda layer: layer(),
        lambda layer: layer(image, image, image),
        lambda layer: layer(image, foo=1),
        lambda layer: layer(foo=image),
        lambda layer: layer.backward(),
        lambda layer: layer.backward(unit.gy, True, 1),
        lambda layer: layer.backward(unit.gy, nothing=1),
        lambda layer: layer.vjp(),
    ):
        unit.refuses(TypeError, call)
    unit.works()
    assert np.array_equal(unit.layer(input=image), unit.y)


@pytest.mark.parametrize("name", LAYERS)
def test_backward_without_forward(name: str) -> None:
    """Before any forward, after one in eval mode, and after a forward in eval mode that follows one
    in training mode: RuntimeError, and nothing changes."""
    layer = make(name)
    gy = np.ones(layer.output_shape(image.shape), np.float32)
    before = snapshot(layer)
    fails(RuntimeError, lambda: layer.backward(gy), name, "forward")
    unchanged(layer, before)
    layer.eval()
    layer(image)
    fails(RuntimeError, lambda: layer.backward(gy), name, "eval")
    layer.train()
    layer(image)
    layer.eval()
    layer(image)
    fails(RuntimeError, lambda: layer.backward(gy), name)
    layer.train()
    layer(image)
    assert layer.backward(gy).shape == image.shape


@pytest.mark.parametrize("name", LAYERS)
def test_gradients_of_wrong_shape(name: str) -> None:
    """Every axis off by one, another rank, an empty batch: nothing is read, nothing changes."""
    unit = Unit(name)
    shape = unit.y.shape
    wrong: list[tuple[int, ...]] = [shape[1:], (1, *shape), (), (0, *shape[1:]), shape[::-1]]
    for axis, off in itertools.product(range(4), (-1, 1)):
        wrong.append(tuple(n + off * (a == axis) for a, n in enumerate(shape)))
    for bad in wrong:
        if bad == shape:
            continue
        gy = np.ones(bad, np.float32)
        unit.refuses(ValueError, lambda layer: layer.backward(gy), name, str(bad), str(shape))
        pullback = unit.layer.vjp(image)[1]
        unit.refuses(ValueError, lambda layer: pullback(gy), str(bad), str(shape))
    unit.works()


def test_gradients_of_wrong_shape_in_functions() -> None:
    """The functions check the same."""
    w, gy = np.ones((6, 3, 3, 3), np.float32), np.ones((2, 6, 6, 7), np.float32)
    wt = np.ones((3, 6, 3, 3), np.float32)
    for axis, off in itertools.product(range(4), (-1, 1)):
        bad = np.ones([n + off * (a == axis) for a, n in enumerate(gy.shape)], np.float32)
        fails(
            ValueError, lambda: F.conv2d_backward(bad, image, w), "conv2d_backward", str(bad.shape)
        )
        fails(ValueError, lambda: F.avg_pool2d_backward(bad, image.shape, 3), str(bad.shape))
        fails(ValueError, lambda: F.conv_transpose2d_backward(bad, image, wt), str(bad.shape))
    fails(
        ValueError, lambda: F.conv2d_backward(gy, image, w, output_mask=(True, True)), "output_mask"
    )
    fails(TypeError, lambda: F.conv2d_backward(gy, image, w, output_mask=5), "output_mask")
    fails(TypeError, lambda: F.conv2d_backward(gy, image, w, output_mask=(1, "a", None)))


# ---- indices ----


@in_child
def test_indices_out_of_range() -> None:
    """Indices below -1, beyond the plane, or whose low 32 bits would fit: ValueError, no write."""
    x = np.arange(24, dtype=np.float32).reshape(1, 1, 4, 6)
    values, indices = F.max_pool2d(x, 2, return_indices=True)
    gy = np.ones_like(values)
    for bad in (-2, 24, 25, 2**31, 2**32 + 3, 2**40, 2**62, 2**63 - 1, -(2**63), -(2**32) + 3):
        for position in np.ndindex(indices.shape):
            wrong = indices.copy()
            wrong[position] = bad
            fails(
                ValueError, lambda: F.max_pool2d_backward(gy, wrong, x.shape), "max_pool2d_backward"
            )
    empty = indices.copy()
    empty[0, 0, 0] = -1
    expected = reference.max_pool2d_backward(gy, empty, x.shape)
    assert np.array_equal(F.max_pool2d_backward(gy, empty, x.shape), expected)


@in_child
def test_indices_of_wrong_shape_or_type() -> None:
    """They belong to a gradient and an input; all three shapes must agree."""
    x = np.ones((2, 3, 8, 9), np.float32)
    values, indices = F.max_pool2d(x, 2, return_indices=True)
    gy = np.ones_like(values)

    def refused(error: Any, gy: Any, indices: Any, shape: Any) -> None:
        fails(error, lambda: F.max_pool2d_backward(gy, indices, shape), "max_pool2d_backward")

    for shape in [(9, 3, 8, 9), (1, 3, 8, 9), (0, 3, 8, 9), (2, 4, 8, 9), (2, 1, 8, 9), (3, 8, 9)]:
        refused(ValueError, gy, indices, shape)
    for other in (
        indices[:1],
        indices[:0],
        indices[:, :1],
        indices[..., :1],
        indices[0],
        indices[None],
    ):
        refused(ValueError, gy, other, x.shape)
        refused(ValueError, values[:1], other, x.shape)
    refused(ValueError, gy[:1], indices, x.shape)
    refused(ValueError, gy[:, :, :, :-1], indices, x.shape)
    for other in (
        indices.astype(float),
        indices.astype(complex),
        indices.astype(object),
        gy,
        None,
        "i",
    ):
        refused((TypeError, ValueError), gy, other, x.shape)
    refused(TypeError, gy, indices.astype(np.uint64), x.shape)
    for shape in [(), (8,), (2, 3, 8, 9, 1), (2, 3, -8, 9), (2, 3, 8, 2**64)]:
        refused(ValueError, gy, indices, shape)
    for shape in [None, 5, "2389", (2, 3, 8.0, 9), (2, 3, None, 9), (2, 3, True, 9)]:
        refused(TypeError, gy, indices, shape)
    refused((ValueError, MemoryError), gy, indices, (2, 3, 2**62, 2**62))
    refused((ValueError, MemoryError), gy, indices, (2, 3, 2**31, 2**31))
    small = F.max_pool2d_backward(gy, indices.astype(np.int8), x.shape)
    assert np.array_equal(small, F.max_pool2d_backward(gy, indices, x.shape))


@in_child
def test_indices_that_the_user_changes() -> None:
    """A layer trusts its own copy of the indices, not the one that it handed out."""
    layer = pyconv.MaxPool2d(2, return_indices=True)
    y, indices = layer(image)
    indices[...] = 2**40
    expected = F.max_pool2d_backward(
        np.ones_like(y), F.max_pool2d(image, 2, return_indices=True)[1], image.shape
    )
    assert np.array_equal(layer.backward(np.ones_like(y)), expected)


@in_child
def test_windows_without_a_number() -> None:
    """All NaN, all -inf, or no tap in the image: indices stay usable, backward adds up."""
    for value in (np.nan, -np.inf):
        x = np.full((1, 2, 6, 6), value, np.float32)
        y, indices = F.max_pool2d(x, 3, 2, 1, return_indices=True)
        assert ((indices >= 0) & (indices < 36)).all()
        assert F.max_pool2d_backward(np.ones_like(y), indices, x.shape).sum() == y.size
    x = np.ones((1, 1, 2, 2), np.float32)
    y, indices = F.max_pool2d(x, 2, 1, 1, dilation=3, return_indices=True)
    assert (y[indices < 0] == -np.inf).all()
    assert indices.min() == -1
    gx = F.max_pool2d_backward(np.ones_like(y), indices, x.shape)
    assert gx.sum() == (indices >= 0).sum()
    layer = pyconv.MaxPool2d(2, 1, 1, dilation=3)
    assert np.array_equal(layer(x), y)
    assert np.array_equal(layer.backward(np.ones_like(y)), gx)


# ---- parameters ----


@pytest.mark.parametrize("name", CONVS)
def test_setting_parameters(name: str) -> None:
    """Wrong shapes and types, None, deletion: nothing is copied in part."""
    unit = Unit(name)
    shape = unit.layer.weight.shape

    def put(attribute: str, value: Any) -> Callable[[Any], None]:
        return lambda layer: setattr(layer, attribute, value)

    for attribute, right in (("weight", shape), ("bias", (6,))):
        for wrong in ((), (1,), right[1:], (1, *right), tuple(n + 1 for n in right)):
            value = np.ones(wrong, np.float32)
            unit.refuses(ValueError, put(attribute, value), name, attribute, str(right), str(wrong))
            unit.refuses(ValueError, put(attribute + "_grad", value), name, str(right), str(wrong))
        for kind in ("complex", "objects", "strings", "longdouble"):
            value = np.ones(right).astype(BAD_ARRAYS[kind].dtype)
            unit.refuses(TypeError, put(attribute, value), name, attribute)
            unit.refuses(TypeError, put(attribute + "_grad", value), name)
        unit.refuses(AttributeError, lambda layer: delattr(layer, attribute))
    unit.refuses((TypeError, ValueError), put("weight", None), name, "weight")
    unit.refuses(ValueError, put("bias", None), name, "bias")
    for attribute in ("in_channels", "kernel_size", "stride", "padding", "groups", "dtype"):
        unit.refuses(AttributeError, put(attribute, 1))
    unit.works()
    without = make(name, bias=False)
    fails(ValueError, lambda: put("bias", np.ones(6))(without), name, "bias")
    fails(ValueError, lambda: put("bias_grad", np.ones(6))(without), name, "bias")
    without.bias = None
    assert without.bias is None


@pytest.mark.parametrize("name", CONVS)
def test_loading_states(name: str) -> None:
    """Missing, unexpected and misshapen entries: all are listed, and nothing is copied."""
    unit = Unit(name)
    good = {key: array + 1 for key, array in unit.layer.state_dict().items()}
    head = f"Error(s) in loading state_dict for {name}:"

    def load(state: Any, **options: Any) -> Callable[[Any], Any]:
        return lambda layer: layer.load_state_dict(state, **options)

    unit.refuses(RuntimeError, load({}), head, "Missing key(s)", '"weight"', '"bias"')
    unit.refuses(RuntimeError, load({"weight": good["weight"]}), head, "Missing key(s)", '"bias"')
    unit.refuses(RuntimeError, load({**good, "more": 1}), head, "Unexpected key(s)", '"more"')
    for strict in (True, False):
        bad = {"weight": good["weight"], "bias": np.ones(7)}
        unit.refuses(
            RuntimeError, load(bad, strict=strict), head, "size mismatch for bias", "(7,)", "(6,)"
        )
        bad = {"weight": good["weight"], "bias": np.array(["a"] * 6)}
        unit.refuses((RuntimeError, TypeError), load(bad, strict=strict))
        bad = {"weight": good["weight"], "bias": None}
        unit.refuses((RuntimeError, TypeError), load(bad, strict=strict))
    for other in (None, 5, [("weight", 1)], "weight"):
        unit.refuses(TypeError, load(other))
    found = unit.layer.load_state_dict({"bias": good["bias"], "more": 1}, strict=False)
    assert found.missing_keys == ["weight"]
    assert found.unexpected_keys == ["more"]
    assert np.array_equal(unit.layer.bias, good["bias"])
    assert np.array_equal(unit.layer.weight, unit.before["weight"])


# ---- objects that were never made ----

ATTRIBUTES = [
    "weight",
    "bias",
    "weight_grad",
    "bias_grad",
    "kernel_size",
    "stride",
    "padding",
    "dilation",
    "dtype",
    "ceil_mode",
    "return_indices",
    "in_channels",
    "groups",
    "padding_mode",
    "transposed",
    "divisor_override",
]


@pytest.mark.parametrize("name", LAYERS)
@in_child
def test_half_initialised_objects(name: str) -> None:
    """`__new__` without `__init__`, and an `__init__` that failed: RuntimeError, never a crash."""
    cls = getattr(pyconv, name)
    core = getattr(_core, name)

    class Forgetful(cls):  # type: ignore[misc, valid-type]
        def __init__(self) -> None:
            pass

    def failed() -> Any:
        layer = cls.__new__(cls)
        fails((TypeError, ValueError), lambda: layer.__init__(0, 0, "x", None))
        return layer

    for make_one in (lambda: cls.__new__(cls), lambda: core.__new__(core), Forgetful, failed):
        layer: Any = make_one()
        for attribute in ATTRIBUTES:
            if hasattr(core, attribute):
                fails(RuntimeError, lambda: getattr(layer, attribute))
        for call in (
            lambda: layer(image),
            lambda: layer.forward(image),
            lambda: layer.vjp(image),
            lambda: layer.backward(image),
            lambda: layer.output_shape((1, 3, 8, 8)),
            lambda: layer._config(),
        ):
            fails(RuntimeError, call)
        if name in CONVS:
            for attribute in ("weight", "bias", "weight_grad", "bias_grad"):
                for value in (None, np.ones(3)):
                    fails(RuntimeError, lambda: setattr(layer, attribute, value))
                fails((RuntimeError, AttributeError), lambda: delattr(layer, attribute))
            fails(RuntimeError, lambda: layer._set_dtype(np.float64))
            if isinstance(layer, pyconv.Module):
                fails(RuntimeError, lambda: layer.double())
                fails(RuntimeError, lambda: layer.load_state_dict({}))
                fails(RuntimeError, lambda: list(layer.parameters()))
                fails(RuntimeError, lambda: layer.reset_parameters())
        if isinstance(layer, pyconv.Module):
            fails(RuntimeError, lambda: pickle.dumps(layer))
            fails(RuntimeError, lambda: copy.deepcopy(layer))
        fails(RuntimeError, lambda: layer.training)
        fails(RuntimeError, lambda: setattr(layer, "training", False))
        for quiet in (repr, str, hash):
            try:
                quiet(layer)
            except RuntimeError:
                continue
        core.__init__(layer, **make(name)._config())  # and now it is one
        assert layer(image).shape == layer.output_shape(image.shape)


@in_child
def test_types_used_in_odd_ways() -> None:
    """Base types cannot be made, methods take their own kind alone, classes cannot be mixed."""
    fails(TypeError, lambda: _core._Conv())
    fails(TypeError, lambda: _core._Layer())
    fails(TypeError, lambda: _core.Pullback())
    fails(TypeError, lambda: object.__new__(pyconv.Conv2d))
    fails(TypeError, lambda: _core.Conv2d.__new__(_core.MaxPool2d))
    fails(TypeError, lambda: _core.Conv2d.__new__(int))
    fails(TypeError, lambda: type("Both", (_core.Conv2d, _core.MaxPool2d), {}))
    fails(TypeError, lambda: type("Both", (pyconv.MaxPool2d, pyconv.AvgPool2d), {}))
    fails(TypeError, lambda: type("Of", (_core.Pullback,), {}))
    pool, conv = pyconv.MaxPool2d(2), make("Conv2d")
    fails(TypeError, lambda: _core.Conv2d.__init__(pool, 1, 1, 1))
    fails(TypeError, lambda: _core.Conv2d.weight.__get__(pool))
    fails(TypeError, lambda: _core._Layer.forward(5, image))
    for cls in (pyconv.ConvTranspose2d, pyconv.MaxPool2d, pyconv.AvgPool2d, _core.MaxPool2d):
        other = make("Conv2d")
        try:
            other.__class__ = cls
        except TypeError:
            continue
        for use in (
            lambda: other(image),
            lambda: other.vjp(image),
            lambda: other(image, (8, 9)),
            lambda: other.backward(image),
            lambda: repr(other),
            lambda: other.__init__(3, 6, 3),
            lambda: other(image),
        ):
            try:
                use()
            except Exception as error:
                assert isinstance(error, (TypeError, ValueError, RuntimeError, AttributeError))
    assert conv(image).shape == (2, 6, 6, 7)


# ---- functions ----


def test_functions_name_themselves() -> None:
    """The same errors from the functions, with their own names in front."""
    w = np.ones((6, 3, 3, 3), np.float32)
    wt = np.ones((3, 6, 3, 3), np.float32)
    fails(ValueError, lambda: F.conv2d(image, w, groups=2), "conv2d")
    fails(ValueError, lambda: F.conv2d(image[0, 0], w), "conv2d: ", "(8, 9)")
    fails(ValueError, lambda: F.conv2d(image[:, :2], w), "conv2d: ")
    fails(ValueError, lambda: F.conv2d(image, w, np.ones(5)), "conv2d: ", "bias")
    fails(ValueError, lambda: F.conv2d(image, w, np.ones((6, 1))), "conv2d: ", "bias")
    fails(TypeError, lambda: F.conv2d(image, w.astype(complex)), "conv2d: ", "weight")
    fails(TypeError, lambda: F.conv2d(image, w, stride=1.0), "conv2d: ", "stride")
    fails(TypeError, lambda: F.conv2d(image, w, groups=True), "conv2d: ", "groups")
    fails(ValueError, lambda: F.conv2d(image, w, padding=-1), "conv2d: ", "padding")
    fails(ValueError, lambda: F.conv2d(image, w, dilation=2**64), "conv2d: ", "dilation")
    fails(ValueError, lambda: F.conv_transpose2d(image, w), "conv_transpose2d: ")
    fails(ValueError, lambda: F.conv_transpose2d(image, wt, output_padding=1), "conv_transpose2d: ")
    fails(ValueError, lambda: F.conv_transpose2d(image, wt, padding=30), "conv_transpose2d: ")
    words = ("conv_transpose2d: ", "padding", "same")
    fails((TypeError, ValueError), lambda: F.conv_transpose2d(image, wt, padding="same"), *words)
    fails(ValueError, lambda: F.max_pool2d(image, 0), "max_pool2d: ")
    fails(TypeError, lambda: F.max_pool2d(image, None), "max_pool2d: ", "kernel_size")
    fails(ValueError, lambda: F.avg_pool2d(image, 20), "avg_pool2d: ")
    fails(TypeError, lambda: F.avg_pool2d(image, 2, divisor_override=1.5), "divisor_override")
    fails(TypeError, lambda: F.avg_pool2d(image, 2, ceil_mode="yes"), "ceil_mode")
    fails(
        ValueError, lambda: F.avg_pool2d_backward(image, (2, 3, 4, 4), 2), "avg_pool2d_backward: "
    )


def test_thread_numbers() -> None:
    """At least one, an int."""
    before = pyconv.get_num_threads()
    for bad, error in ((0, ValueError), (-1, ValueError), (2.0, TypeError), (True, TypeError)):
        fails(error, lambda: pyconv.set_num_threads(bad))
        fails(error, lambda: pyconv.num_threads(bad).__enter__())
    fails(TypeError, lambda: pyconv.set_num_threads(None))
    fails(ValueError, lambda: pyconv.set_num_threads(2**70))
    assert pyconv.get_num_threads() == before
