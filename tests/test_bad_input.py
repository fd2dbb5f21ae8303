"""Bad input: one clear error of the right class, the layer as it was, and the next call right.

The class says what is wrong: TypeError for a wrong type, ValueError for a wrong value or shapes
that disagree, MemoryError for what cannot be represented or allocated, RuntimeError for a wrong
order of calls. The message names the layer or function and what came. Calls that crashed other
libraries run in a child.
"""

import copy
import itertools
import pickle
import resource
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from guarded import in_child

import pyconv
import pyconv.functional as F
from pyconv import _core, reference

Array = np.ndarray[Any, np.dtype[Any]]

LAYERS = ["Conv2d", "ConvTranspose2d", "MaxPool2d", "AvgPool2d"]
CONVS = LAYERS[:2]
POOLS = LAYERS[2:]

x34 = np.arange(2 * 3 * 8 * 9, dtype=np.float32).reshape(2, 3, 8, 9) % 7


class NoInt:
    """Something that is no number at all."""

    def __repr__(self) -> str:
        return "NoInt()"


class Raises:
    """A number that raises when it is asked for its value."""

    def __index__(self) -> int:
        raise ZeroDivisionError("asked for its value")


def make(name: str, **changes: Any) -> Any:
    """Return a small layer."""
    defaults: dict[str, Any] = (
        {"in_channels": 3, "out_channels": 6, "kernel_size": 3}
        if name in CONVS
        else {"kernel_size": 3}
    )
    return getattr(pyconv, name)(**{**defaults, **changes})


def slots(name: str) -> list[str]:
    """Return the constructor's arguments that are sizes."""
    if name == "Conv2d":
        return "in_channels out_channels kernel_size stride padding dilation groups".split()
    if name == "ConvTranspose2d":
        return (
            "in_channels out_channels kernel_size stride padding output_padding dilation groups"
        ).split()
    if name == "MaxPool2d":
        return "kernel_size stride padding dilation".split()
    return "kernel_size stride padding".split()


SLOTS = [(name, slot) for name in LAYERS for slot in slots(name)]
SCALAR_SLOTS = {"in_channels", "out_channels", "groups"}


def fails(error: Any, call: Callable[[], Any], *words: str) -> None:
    """Demand an error of exactly that class whose message holds the words."""
    with pytest.raises(error) as caught:
        call()
    expected = error if isinstance(error, tuple) else (error,)
    assert type(caught.value) in expected
    text = str(caught.value)
    for word in words:
        assert word in text, f"{word!r} is not in {text!r}"


# ---- constructors ----


@pytest.mark.parametrize(("name", "slot"), SLOTS, ids=lambda value: str(value))
@pytest.mark.parametrize(
    "value",
    [None, True, False, 2.0, 3.5, np.float32(2), "3", b"3", "", NoInt(), {1: 2}, 1j, Ellipsis],
    ids=repr,
)
def test_wrong_types_of_sizes(name: str, slot: str, value: Any) -> None:
    """bool and float are no sizes. None is one only for a pool's stride, a str only for padding."""
    if slot == "stride" and value is None and name in POOLS:
        assert make(name, stride=None).stride == 3
        return
    if slot == "padding" and isinstance(value, str) and name in CONVS:
        fails(ValueError, lambda: make(name, padding=value), name, "padding")
        return
    fails(TypeError, lambda: make(name, **{slot: value}), name, slot)


@pytest.mark.parametrize(("name", "slot"), SLOTS, ids=lambda value: str(value))
@pytest.mark.parametrize(
    "value",
    [(True, 1), (1, 2.0), (None, 1), ("1", "1"), [[1], [1]], (1, (1, 1)), np.array([1.0, 2.0])],
    ids=repr,
)
def test_wrong_types_inside_tuples(name: str, slot: str, value: Any) -> None:
    """Each entry of a tuple is a size by the same rule."""
    fails((TypeError, ValueError), lambda: make(name, **{slot: value}), name, slot)
    if slot not in SCALAR_SLOTS and not (slot == "padding" and isinstance(value, list)):
        fails(TypeError, lambda: make(name, **{slot: value}), name, slot)


@pytest.mark.parametrize(("name", "slot"), SLOTS, ids=lambda value: str(value))
@pytest.mark.parametrize("value", [(), (1, 1, 1), [1, 1, 1, 1], tuple(range(1, 1000))], ids=len)
def test_wrong_lengths(name: str, slot: str, value: Any) -> None:
    """Pairs have one or two entries; a pool's empty stride is None."""
    if slot in SCALAR_SLOTS:
        fails(TypeError, lambda: make(name, **{slot: value}), name, slot)
    elif slot == "stride" and not value and name in POOLS:
        assert make(name, stride=value).stride is not None
    else:
        fails(ValueError, lambda: make(name, **{slot: value}), name, slot)


def test_endless_iterators_end() -> None:
    """An iterator that never stops is refused like a sequence that is too long."""
    fails(ValueError, lambda: pyconv.Conv2d(3, 6, itertools.count(1)), "Conv2d", "kernel_size")
    fails(ValueError, lambda: pyconv.MaxPool2d(itertools.repeat(2)), "MaxPool2d", "kernel_size")


def test_an_error_inside_index_comes_through() -> None:
    """What `__index__` raises is not replaced."""
    for name, slot in SLOTS:
        value = Raises()
        fails(ZeroDivisionError, lambda: make(name, **{slot: value}), "asked for its value")  # noqa: B023


@pytest.mark.parametrize(("name", "slot"), SLOTS, ids=lambda value: str(value))
@pytest.mark.parametrize("value", [0, -1, -(2**31), -(2**63), (1, 0), (0, 1), (-1, 1), (1, -5)])
def test_zero_and_negative_sizes(name: str, slot: str, value: Any) -> None:
    """Only padding may be 0, nothing may be negative; said at construction."""
    if slot in SCALAR_SLOTS and isinstance(value, tuple):
        return
    numbers = value if isinstance(value, tuple) else (value,)
    if slot in ("padding", "output_padding") and min(numbers) >= 0:
        make(name, **{slot: value}, **({"stride": 2} if slot == "output_padding" else {}))
        return
    fails(ValueError, lambda: make(name, **{slot: value}), name)


@in_child
def test_absurd_sizes() -> None:
    """2**31 to 2**64 in every slot, alone and in pairs: ValueError or MemoryError, or a layer that
    either works or says the same of its input. Never a crash, a hang, or a wrapped size."""
    resource.setrlimit(resource.RLIMIT_AS, (8 << 30, 8 << 30))
    absurd = [2**31 - 1, 2**31, 2**32, 2**32 + 1, 2**40, 2**62, 2**63 - 1]
    beyond = [2**63, 2**64, 2**64 + 1, 10**30, -(2**63) - 1]
    x = np.ones((1, 3, 5, 5), np.float32)
    for name, slot in SLOTS:
        for value in beyond:
            fails(ValueError, lambda: make(name, **{slot: value}), name, slot)  # noqa: B023
        for value in absurd:
            forms = [value] if slot in SCALAR_SLOTS else [value, (1, value), (value, 1)]
            for form in forms:
                run_or_refuse(name, {slot: form}, x)
    for name in LAYERS:
        pairs = itertools.combinations(
            [slot for slot in slots(name) if slot not in SCALAR_SLOTS], 2
        )
        for (one, two), first, second in itertools.product(
            pairs, (2, 2**31, 2**40, 2**62), (1, 2**31, 2**61, 2**62)
        ):
            run_or_refuse(name, {one: first, two: second}, x)


def run_or_refuse(name: str, changes: dict[str, Any], x: Array) -> None:
    """Build a layer and call it both ways: each step works or says ValueError or MemoryError."""
    try:
        layer = make(name, **changes)
    except (ValueError, MemoryError) as error:
        assert name in str(error)
        return
    try:
        y = layer(x)
        layer.backward(np.ones_like(y))
    except (ValueError, MemoryError) as error:
        assert name in str(error), changes
        return
    assert y.shape == layer.output_shape(x.shape)
    assert np.isfinite(y).all()


@in_child
def test_parameters_that_crashed_others() -> None:
    """The numbers of published crash reports."""
    resource.setrlimit(resource.RLIMIT_AS, (8 << 30, 8 << 30))
    big, many = 8608480567731124087, 1250999896764
    x = np.ones((1, 1, 5, 5), np.float32)
    refused: list[tuple[Any, Callable[[], Any]]] = [
        (MemoryError, lambda: pyconv.MaxPool2d(big, padding=many, dilation=many)),
        (MemoryError, lambda: pyconv.Conv2d(1, 1, big, padding=many, dilation=many)),
        (ValueError, lambda: pyconv.MaxPool2d(2**29, dilation=1879048192)(x)),
        (ValueError, lambda: pyconv.MaxPool2d(3, stride=0)),
        (ValueError, lambda: pyconv.Conv2d(4, 4, 3, groups=-(2**63))),
        (ValueError, lambda: pyconv.Conv2d(4, 4, 3, groups=0)),
        (MemoryError, lambda: pyconv.Conv2d(2**30, 2**28, 3)),
        (MemoryError, lambda: pyconv.Conv2d(256, 512, 65536)),
        (MemoryError, lambda: pyconv.ConvTranspose2d(1, 1, 2, dilation=1879048192)(x)),
        (MemoryError, lambda: pyconv.ConvTranspose2d(1, 1, 3, stride=2**62)(x)),
        (ValueError, lambda: pyconv.ConvTranspose2d(1, 1, 3, stride=2, output_padding=2)),
        (ValueError, lambda: pyconv.ConvTranspose2d(1, 1, 3, output_padding=-1)),
        (ValueError, lambda: pyconv.ConvTranspose2d(1, 1, 3)(x, output_size=(1879048192, 7))),
        (ValueError, lambda: pyconv.ConvTranspose2d(1, 1, 3)(x, output_size=(-1, 7))),
        (ValueError, lambda: pyconv.Conv2d(1, 1, 3)(np.ones((1, 1, 0, 0), np.float32))),
        (ValueError, lambda: F.conv2d(x, np.ones((1, 1), np.float32))),
        (ValueError, lambda: F.conv2d(x, np.ones((0, 1, 3, 3), np.float32))),
        (ValueError, lambda: F.conv2d(x, np.ones((1, 1, 0, 3), np.float32))),
        (
            ValueError,
            lambda: F.conv2d(np.ones((0, 4634247419717959497, 0, 1)), np.ones((1, 1, 1, 1))),
        ),
        (ValueError, lambda: F.max_pool2d(np.ones((0, 2**60, 0, 1)), 2)),
        (ValueError, lambda: F.conv2d(x, np.ones((1, 2, 3, 3), np.float32))),
        (ValueError, lambda: F.conv2d(x, np.ones((2, 1, 3, 3), np.float32), np.ones(3))),
        (ValueError, lambda: F.avg_pool2d(x, 2, divisor_override=0)),
        (ValueError, lambda: pyconv.AvgPool2d(2, divisor_override=0)),
    ]
    for error, call in refused:
        fails(error, call)
    # and what sounds absurd but is defined
    far = pyconv.Conv2d(1, 1, 3, padding=2**31, dilation=2**31, dtype=np.float64)
    expected = x[0, 0] * far.weight[0, 0, 1, 1] + far.bias
    np.testing.assert_allclose(far(x)[0, 0], expected, rtol=0, atol=1e-12)
    gx = far.backward(np.ones((1, 1, 5, 5)))
    np.testing.assert_allclose(gx[0, 0], np.full((5, 5), far.weight[0, 0, 1, 1]))
    same = pyconv.Conv2d(1, 1, 3, padding="same", dilation=2**31)
    assert same(x).shape == x.shape
    assert pyconv.Conv2d(1, 1, 3, stride=2**62)(x).shape == (1, 1, 1, 1)
    assert pyconv.ConvTranspose2d(1, 1, 3, stride=2**62)(x[..., :1, :1]).shape == (1, 1, 3, 3)
    assert pyconv.MaxPool2d(2, stride=2**62)(x).shape == (1, 1, 1, 1)


@pytest.mark.parametrize("name", CONVS)
def test_channels_and_groups(name: str) -> None:
    """Groups divide both numbers of channels."""
    fails(ValueError, lambda: make(name, groups=2), name, "in_channels", "divisible", "groups")
    fails(ValueError, lambda: make(name, out_channels=7, groups=3), name, "out_channels", "groups")
    fails(ValueError, lambda: make(name, groups=0), name, "groups must be a positive integer")


def test_words_for_padding() -> None:
    """'same' refuses a stride; other words, and words where numbers must be, are refused."""
    fails(
        ValueError,
        lambda: make("Conv2d", padding="same", stride=2),
        "Conv2d(3, 6)",
        "padding='same' is not supported for strided convolutions",
    )
    fails(ValueError, lambda: make("Conv2d", padding="full"), "Invalid padding string 'full'")
    fails(ValueError, lambda: make("Conv2d", padding_mode="mirror"), "padding_mode must be one of")
    fails((TypeError, ValueError), lambda: make("Conv2d", padding_mode=None), "padding_mode")
    fails(ValueError, lambda: make("ConvTranspose2d", padding="same"), "ConvTranspose2d")
    fails(
        ValueError,
        lambda: make("ConvTranspose2d", padding_mode="reflect"),
        'Only "zeros" padding mode is supported',
    )
    for name in POOLS:
        fails(TypeError, lambda: make(name, padding="same"), name, "padding")  # noqa: B023


@pytest.mark.parametrize("name", POOLS)
def test_padding_of_pools(name: str) -> None:
    """At most half of the kernel, without its dilation, and equal on both sides."""
    fails(ValueError, lambda: make(name, kernel_size=2, padding=2), name, "at most half", "pad=2")
    fails((TypeError, ValueError), lambda: make(name, padding=((0, 1), (1, 0))), name, "padding")
    if name == "MaxPool2d":
        fails(ValueError, lambda: make(name, dilation=2, padding=2), name, "half of kernel size")


@pytest.mark.parametrize("name", CONVS)
@pytest.mark.parametrize(
    "dtype", [np.int32, "complex64", np.float16, object, "U3", np.longdouble, bool]
)
def test_dtypes_of_layers(name: str, dtype: Any) -> None:
    """float32 or float64."""
    fails(TypeError, lambda: make(name, dtype=dtype), name, "dtype", "float32 or float64")


@pytest.mark.parametrize("name", CONVS)
def test_devices_other_than_the_cpu(name: str) -> None:
    """There is one device."""
    fails(ValueError, lambda: make(name, device="cuda"), name, "device", "cuda")
    make(name, device="cpu")


@pytest.mark.parametrize("name", LAYERS)
def test_arguments_that_nobody_knows(name: str) -> None:
    """Unknown names, names given twice, missing and too many arguments."""
    layer = getattr(pyconv, name)
    fails(TypeError, lambda: make(name, kernel=3), "kernel")
    fails(TypeError, lambda: layer(3, 3, 3, kernel_size=3, in_channels=1), name)
    fails(TypeError, lambda: layer(), name)
    fails(TypeError, lambda: layer(*range(1, 40)), name)


def test_a_constructor_that_fails_leaves_an_old_layer_whole() -> None:
    """`__init__` again, with nonsense, on a layer in use."""
    layer = make("Conv2d")
    layer(x34)
    before = snapshot(layer)
    for bad in ({"kernel_size": 0}, {"groups": 2}, {"stride": "1"}, {"dtype": int}):
        fails((TypeError, ValueError), lambda: layer.__init__(**{**layer._config(), **bad}))  # noqa: B023
        unchanged(layer, before)


# ---- calls ----


def snapshot(layer: Any) -> dict[str, Any]:
    """Return copies of all that a layer shows, and what a backward of its saved state gives."""
    names = ("weight", "bias", "weight_grad", "bias_grad")
    state = {name: copy.copy(getattr(layer, name, None)) for name in names}
    state["objects"] = [id(getattr(layer, name, None)) for name in names]
    state["training"] = layer.training
    state["repr"] = repr(layer)
    return state


def unchanged(layer: Any, before: dict[str, Any]) -> None:
    """Demand that nothing of a layer has changed."""
    now = snapshot(layer)
    for key, value in before.items():
        if isinstance(value, np.ndarray):
            assert np.array_equal(now[key], value), key
        else:
            assert now[key] == value or now[key] is value, key


class Unit:
    """Makes a layer with a forward behind it, and checks that a bad call left it as it was."""

    def __init__(self, name: str, **changes: Any) -> None:
        self.layer = make(name, **changes)
        self.y = self.layer(x34)
        self.gy = np.ones_like(self.y)
        if name in CONVS:
            self.layer.backward(self.gy)
        self.gx = self.layer.vjp(x34)[1](self.gy, True) if name in POOLS else None
        self.before = snapshot(self.layer)

    def refuses(self, error: Any, call: Callable[[Any], Any], *words: str) -> None:
        """Demand an error, an unchanged layer, and a right call after it."""
        fails(error, lambda: call(self.layer), *words)
        unchanged(self.layer, self.before)

    def works(self) -> None:
        """Demand that backward still belongs to the first forward, and the next call is right."""
        assert np.array_equal(self.layer(x34), self.y)
        gx = self.layer.backward(self.gy)
        assert gx.shape == x34.shape
        if self.gx is not None:
            assert np.array_equal(gx, self.gx)


BAD_SHAPES = [(), (3,), (8, 9), (1, 2, 3, 8, 9), (2, 4, 8, 9), (4, 8, 9), (2, 3, 2, 9), (3, 8, 1)]


@pytest.mark.parametrize("name", LAYERS)
@pytest.mark.parametrize("shape", BAD_SHAPES, ids=str)
def test_inputs_of_wrong_shape(name: str, shape: tuple[int, ...]) -> None:
    """Rank, channels, and sizes smaller than the window."""
    channels_are_wrong = len(shape) in (3, 4) and shape[-3] != 3
    too_small = len(shape) in (3, 4) and not channels_are_wrong
    if (name in POOLS and channels_are_wrong) or (name == "ConvTranspose2d" and too_small):
        return  # a pool takes any channels, a transposed convolution any size
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
    "complex": x34.astype(complex),
    "longdouble": x34.astype(np.longdouble),
    "objects": x34.astype(object),
    "strings": x34.astype("U8"),
    "bytes": x34.astype("S8"),
    "dates": x34.astype("M8[s]"),
    "records": np.zeros(x34.shape, [("a", "f4")]),
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
        lambda layer: layer(x34, x34, x34),
        lambda layer: layer(x34, foo=1),
        lambda layer: layer(foo=x34),
        lambda layer: layer.backward(),
        lambda layer: layer.backward(unit.gy, True, 1),
        lambda layer: layer.backward(unit.gy, nothing=1),
        lambda layer: layer.vjp(),
    ):
        unit.refuses(TypeError, call)
    unit.works()
    assert np.array_equal(unit.layer(input=x34), unit.y)


@pytest.mark.parametrize("name", LAYERS)
def test_backward_without_forward(name: str) -> None:
    """Before any forward, after one in eval mode, and after a forward in eval mode that follows one
    in training mode: RuntimeError, and nothing changes."""
    layer = make(name)
    gy = np.ones(layer.output_shape(x34.shape), np.float32)
    before = snapshot(layer)
    fails(RuntimeError, lambda: layer.backward(gy), name, "forward")
    unchanged(layer, before)
    layer.eval()
    layer(x34)
    fails(RuntimeError, lambda: layer.backward(gy), name, "eval")
    layer.train()
    layer(x34)
    layer.eval()
    layer(x34)
    fails(RuntimeError, lambda: layer.backward(gy), name)
    layer.train()
    layer(x34)
    assert layer.backward(gy).shape == x34.shape


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
        unit.refuses(ValueError, lambda layer: layer.backward(gy), name, str(bad), str(shape))  # noqa: B023
        pullback = unit.layer.vjp(x34)[1]
        unit.refuses(ValueError, lambda layer: pullback(gy), str(bad), str(shape))  # noqa: B023
    unit.works()


def test_gradients_of_wrong_shape_in_functions() -> None:
    """The functions check the same."""
    w, gy = np.ones((6, 3, 3, 3), np.float32), np.ones((2, 6, 6, 7), np.float32)
    wt = np.ones((3, 6, 3, 3), np.float32)
    for axis, off in itertools.product(range(4), (-1, 1)):
        bad = np.ones([n + off * (a == axis) for a, n in enumerate(gy.shape)], np.float32)
        fails(ValueError, lambda: F.conv2d_backward(bad, x34, w), "conv2d_backward", str(bad.shape))  # noqa: B023
        fails(ValueError, lambda: F.avg_pool2d_backward(bad, x34.shape, 3), str(bad.shape))  # noqa: B023
        fails(ValueError, lambda: F.conv_transpose2d_backward(bad, x34, wt), str(bad.shape))  # noqa: B023
    fails(
        ValueError, lambda: F.conv2d_backward(gy, x34, w, output_mask=(True, True)), "output_mask"
    )
    fails(TypeError, lambda: F.conv2d_backward(gy, x34, w, output_mask=5), "output_mask")
    fails(TypeError, lambda: F.conv2d_backward(gy, x34, w, output_mask=(1, "a", None)))


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
            )  # noqa: B023
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
    y, indices = layer(x34)
    indices[...] = 2**40
    expected = F.max_pool2d_backward(
        np.ones_like(y), F.max_pool2d(x34, 2, return_indices=True)[1], x34.shape
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
        unit.refuses(AttributeError, lambda layer: delattr(layer, attribute))  # noqa: B023
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
                fails(RuntimeError, lambda: getattr(layer, attribute))  # noqa: B023
        for call in (
            lambda: layer(x34),  # noqa: B023
            lambda: layer.forward(x34),  # noqa: B023
            lambda: layer.vjp(x34),  # noqa: B023
            lambda: layer.backward(x34),  # noqa: B023
            lambda: layer.output_shape((1, 3, 8, 8)),  # noqa: B023
            lambda: layer._config(),  # noqa: B023
        ):
            fails(RuntimeError, call)
        if name in CONVS:
            for attribute in ("weight", "bias", "weight_grad", "bias_grad"):
                for value in (None, np.ones(3)):
                    fails(RuntimeError, lambda: setattr(layer, attribute, value))  # noqa: B023
                fails((RuntimeError, AttributeError), lambda: delattr(layer, attribute))  # noqa: B023
            fails(RuntimeError, lambda: layer._set_dtype(np.float64))  # noqa: B023
            if isinstance(layer, pyconv.Module):
                fails(RuntimeError, lambda: layer.double())  # noqa: B023
                fails(RuntimeError, lambda: layer.load_state_dict({}))  # noqa: B023
                fails(RuntimeError, lambda: list(layer.parameters()))  # noqa: B023
                fails(RuntimeError, lambda: layer.reset_parameters())  # noqa: B023
        if isinstance(layer, pyconv.Module):
            fails(RuntimeError, lambda: pickle.dumps(layer))  # noqa: B023
            fails(RuntimeError, lambda: copy.deepcopy(layer))  # noqa: B023
        layer.training = False
        assert layer.training is False
        for quiet in (repr, str, hash):
            try:
                quiet(layer)
            except RuntimeError:
                continue
        layer.__init__(**make(name)._config())  # and now it is one
        assert layer(x34).shape == layer.output_shape(x34.shape)
        del layer


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
    fails(TypeError, lambda: _core._Layer.forward(5, x34))
    for cls in (pyconv.ConvTranspose2d, pyconv.MaxPool2d, pyconv.AvgPool2d, _core.MaxPool2d):
        other = make("Conv2d")
        try:
            other.__class__ = cls
        except TypeError:
            continue
        for use in (
            lambda: other(x34),  # noqa: B023
            lambda: other.vjp(x34),  # noqa: B023
            lambda: other(x34, (8, 9)),  # noqa: B023
            lambda: other.backward(x34),  # noqa: B023
            lambda: repr(other),  # noqa: B023
            lambda: other.__init__(3, 6, 3),  # noqa: B023
            lambda: other(x34),  # noqa: B023
        ):
            try:
                use()
            except Exception as error:
                assert isinstance(error, (TypeError, ValueError, RuntimeError, AttributeError))
    assert conv(x34).shape == (2, 6, 6, 7)


# ---- memory that is not to be had ----


@in_child
def test_memory_that_is_not_to_be_had() -> None:
    """Sizes that can be represented but not allocated: MemoryError with the name, layer unchanged."""
    resource.setrlimit(resource.RLIMIT_AS, (4 << 30, 4 << 30))
    huge = 2**31
    fails(MemoryError, lambda: pyconv.Conv2d(1, 2**20, 2**11), "Conv2d(1, 1048576)", "weight")
    fails(MemoryError, lambda: pyconv.Conv2d(1, 1, 2**32 + 1), "Conv2d(1, 1)")
    one = np.ones((1, 1, 1, 1), np.float32)
    conv = pyconv.Conv2d(1, 1, 1, padding=huge)
    y = pyconv.Conv2d(1, 1, 1)(one)
    before = snapshot(conv)
    fails(MemoryError, lambda: conv(one), "Conv2d(1, 1)", "output")
    fails(MemoryError, lambda: conv.vjp(one), "Conv2d(1, 1)", "output")
    unchanged(conv, before)
    fails(RuntimeError, lambda: conv.backward(y))
    fails(
        MemoryError, lambda: pyconv.ConvTranspose2d(1, 1, 3, 2**20)(np.ones((1, 1, 2**10, 2**10)))
    )
    wide = np.broadcast_to(np.float32(1), (1, 1, 2**18, 2**18))
    fails(MemoryError, lambda: pyconv.MaxPool2d(1)(wide), "MaxPool2d(kernel_size=1)", "output")
    fails(MemoryError, lambda: pyconv.AvgPool2d(1)(wide), "AvgPool2d(kernel_size=1)", "output")
    fails(
        MemoryError, lambda: F.avg_pool2d_backward(one, (1, 1, 2**20, 2**20), 2**20), "avg_pool2d"
    )
    fails(
        MemoryError,
        lambda: F.conv2d_backward(np.broadcast_to(one, (1, 1, 2**18, 2**18)), wide, one),
        "conv2d_backward",
    )
    layer = make("Conv2d")
    y = layer(x34)
    before = snapshot(layer)
    many = np.broadcast_to(x34[:1], (2**27, 3, 8, 9))
    fails(MemoryError, lambda: layer(many), "Conv2d(3, 6)")
    unchanged(layer, before)
    assert layer.backward(np.ones_like(y)).shape == x34.shape  # of the forward that succeeded
    assert np.array_equal(layer(x34), y)


def test_sizes_whose_bytes_overflow() -> None:
    """Shapes are possible with step 0 whose bytes, or whose result's bytes, no integer can hold."""
    one = np.ones((1, 1, 1, 1), np.float32)
    for shape in ((2**60, 1, 1, 1), (2**20, 1, 2**20, 2**20), (1, 1, 2**30, 2**30)):
        x = np.lib.stride_tricks.as_strided(one, shape, (0, 0, 0, 0))
        fails(MemoryError, lambda: F.conv2d(x, np.ones((9, 1, 1, 1), np.float32)), "conv2d")  # noqa: B023
        fails(MemoryError, lambda: F.max_pool2d(x, 1), "max_pool2d")  # noqa: B023
        fails(MemoryError, lambda: F.avg_pool2d(x, 1), "avg_pool2d")  # noqa: B023
    fails(MemoryError, lambda: pyconv.Conv2d(2**31, 2**31, 1), "Conv2d")
    fails(MemoryError, lambda: pyconv.ConvTranspose2d(2**21, 2**21, 2**11), "ConvTranspose2d")
    shape = pyconv.Conv2d(1, 1, 1, padding=2**40).output_shape((1, 1, 1, 1))
    assert shape == (1, 1, 2**41 + 1, 2**41 + 1) or shape is None


# ---- functions ----


def test_functions_name_themselves() -> None:
    """The same errors from the functions, with their own names in front."""
    w = np.ones((6, 3, 3, 3), np.float32)
    wt = np.ones((3, 6, 3, 3), np.float32)
    fails(ValueError, lambda: F.conv2d(x34, w, groups=2), "conv2d")
    fails(ValueError, lambda: F.conv2d(x34[0, 0], w), "conv2d: ", "(8, 9)")
    fails(ValueError, lambda: F.conv2d(x34[:, :2], w), "conv2d: ")
    fails(ValueError, lambda: F.conv2d(x34, w, np.ones(5)), "conv2d: ", "bias")
    fails(ValueError, lambda: F.conv2d(x34, w, np.ones((6, 1))), "conv2d: ", "bias")
    fails(TypeError, lambda: F.conv2d(x34, w.astype(complex)), "conv2d: ", "weight")
    fails(TypeError, lambda: F.conv2d(x34, w, stride=1.0), "conv2d: ", "stride")
    fails(TypeError, lambda: F.conv2d(x34, w, groups=True), "conv2d: ", "groups")
    fails(ValueError, lambda: F.conv2d(x34, w, padding=-1), "conv2d: ", "padding")
    fails(ValueError, lambda: F.conv2d(x34, w, dilation=2**64), "conv2d: ", "dilation")
    fails(ValueError, lambda: F.conv_transpose2d(x34, w), "conv_transpose2d: ")
    fails(ValueError, lambda: F.conv_transpose2d(x34, wt, output_padding=1), "conv_transpose2d: ")
    fails(ValueError, lambda: F.conv_transpose2d(x34, wt, padding=30), "conv_transpose2d: ")
    fails(ValueError, lambda: F.conv_transpose2d(x34, wt, padding="same"), "conv_transpose2d")
    fails(ValueError, lambda: F.max_pool2d(x34, 0), "max_pool2d: ")
    fails(TypeError, lambda: F.max_pool2d(x34, None), "max_pool2d: ", "kernel_size")
    fails(ValueError, lambda: F.avg_pool2d(x34, 20), "avg_pool2d: ")
    fails(TypeError, lambda: F.avg_pool2d(x34, 2, divisor_override=1.5), "divisor_override")
    fails(TypeError, lambda: F.avg_pool2d(x34, 2, ceil_mode="yes"), "ceil_mode")
    fails(ValueError, lambda: F.avg_pool2d_backward(x34, (2, 3, 4, 4), 2), "avg_pool2d_backward: ")


def test_thread_numbers() -> None:
    """At least one, an int."""
    before = pyconv.get_num_threads()
    for bad, error in ((0, ValueError), (-1, ValueError), (2.0, TypeError), (True, TypeError)):
        fails(error, lambda: pyconv.set_num_threads(bad))  # noqa: B023
        fails(error, lambda: pyconv.num_threads(bad).__enter__())  # noqa: B023
    fails(TypeError, lambda: pyconv.set_num_threads(None))
    fails(ValueError, lambda: pyconv.set_num_threads(2**70))
    assert pyconv.get_num_threads() == before
