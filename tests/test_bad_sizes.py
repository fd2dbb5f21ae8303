"""Sizes that no layer can have, said at construction or, where the input matters, at the call.

The class of the error says what is wrong: TypeError for a wrong type, ValueError for a wrong
value, MemoryError for what cannot be represented or allocated. Calls that crashed other libraries
run in a child.
"""

# ruff: noqa: B023 - each lambda is called before its loop goes on

import itertools
import resource
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from guarded import in_child
from small_layers import CONVS, POOLS, WINDOWS, Array, fails, image, make, snapshot, unchanged

import pyconv
import pyconv.functional as F


class NoInt:
    """Something that is no number at all."""

    def __repr__(self) -> str:
        return "NoInt()"


class Raises:
    """A number that raises when it is asked for its value."""

    def __index__(self) -> int:
        raise ZeroDivisionError("asked for its value")


def slots(name: str) -> list[str]:
    """Return the constructor's arguments that are sizes."""
    window = ["kernel_size", "stride", "padding"]
    if name == "AvgPool2d":
        return window
    if name == "MaxPool2d":
        return [*window, "dilation"]
    more = ["output_padding"] if name == "ConvTranspose2d" else []
    return ["in_channels", "out_channels", *window, *more, "dilation", "groups"]


SLOTS = [(name, slot) for name in WINDOWS for slot in slots(name)]
SCALAR_SLOTS = {"in_channels", "out_channels", "groups"}


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
        fails(ZeroDivisionError, lambda: make(name, **{slot: value}), "asked for its value")


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
            fails(ValueError, lambda: make(name, **{slot: value}), name, slot)
        for value in absurd:
            forms = [value] if slot in SCALAR_SLOTS else [value, (1, value), (value, 1)]
            for form in forms:
                run_or_refuse(name, {slot: form}, x)
    for name in WINDOWS:
        pairs = itertools.combinations(
            [slot for slot in slots(name) if slot not in SCALAR_SLOTS], 2
        )
        for (one, two), first, second in itertools.product(
            pairs, (2, 2**31, 2**40, 2**62), (1, 2**31, 2**61, 2**62)
        ):
            run_or_refuse(name, {one: first, two: second}, x)
    for name, power in itertools.product(POOLS, (12, 20, 31, 40, 61)):  # windows that do fit
        window = {"kernel_size": (1, 2**power), "padding": (0, 2 ** (power - 1))}
        run_or_refuse(name, window | {"stride": 2**62}, x)
        run_or_refuse(name, {key: value[::-1] for key, value in window.items()}, x)


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
        (MemoryError, lambda: pyconv.Conv2d(1, 1, 3, dilation=2**62)),
        (MemoryError, lambda: pyconv.ConvTranspose2d(1, 1, (1, 5), dilation=2**61)),
        (MemoryError, lambda: pyconv.MaxPool2d((3, 1), dilation=2**62)),
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
        fails(TypeError, lambda: make(name, padding="same"), name, "padding")


@pytest.mark.parametrize("axis", [0, 1])
@pytest.mark.parametrize(
    ("mode", "over", "words"),
    [
        ("reflect", 0, "Padding size should be less than the corresponding input dimension"),
        ("circular", 1, "Padding value causes wrapping around more than once"),
    ],
)
def test_limits_of_padding_modes(mode: str, over: int, words: str, axis: int) -> None:
    """Each mode reaches so far beyond the image and no further; up to there it is np.pad."""
    size = image.shape[2 + axis]
    for side in (0, 1):
        sides = [[1, 1], [1, 1]]
        sides[axis][side] = size + over
        layer = make("Conv2d", padding=sides, padding_mode=mode)
        fails(ValueError, lambda: layer(image), "Conv2d(3, 6): ", words, str(size))
        sides[axis][side] -= 1
        layer = make("Conv2d", padding=sides, padding_mode=mode)
        words_of_numpy: Any = {"reflect": "reflect", "circular": "wrap"}[mode]
        bordered = np.pad(image, ((0, 0), (0, 0), *sides), words_of_numpy)
        assert np.array_equal(layer(image), F.conv2d(bordered, layer.weight, layer.bias))


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


@pytest.mark.parametrize("name", WINDOWS)
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
    layer(image)
    before = snapshot(layer)
    for bad in ({"kernel_size": 0}, {"groups": 2}, {"stride": "1"}, {"dtype": int}):
        fails((TypeError, ValueError), lambda: layer.__init__(**{**layer._config(), **bad}))
        unchanged(layer, before)


# ---- memory that is not to be had ----


@in_child
def test_memory_that_is_not_to_be_had() -> None:
    """Sizes that can be represented but not allocated: MemoryError, and the layer unchanged."""
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
        lambda: F.conv2d_backward(wide, wide, one, output_mask=(True, False, False)),
        "conv2d_backward",
    )
    layer = make("Conv2d")
    y = layer(image)
    before = snapshot(layer)
    many = np.broadcast_to(image[:1], (2**27, 3, 8, 9))
    fails(MemoryError, lambda: layer(many), "Conv2d(3, 6)")
    unchanged(layer, before)
    assert layer.backward(np.ones_like(y)).shape == image.shape  # of the forward that succeeded
    assert np.array_equal(layer(image), y)


def test_sizes_whose_bytes_overflow() -> None:
    """Shapes are possible with step 0 whose bytes, or whose result's bytes, no integer can hold."""
    one = np.ones((1, 1, 1, 1), np.float32)
    for shape in ((2**60, 1, 1, 1), (2**20, 1, 2**20, 2**20), (1, 1, 2**30, 2**30)):
        x = np.lib.stride_tricks.as_strided(one, shape, (0, 0, 0, 0))
        fails(MemoryError, lambda: F.conv2d(x, np.ones((9, 1, 1, 1), np.float32)), "conv2d")
        fails(MemoryError, lambda: F.max_pool2d(x, 1), "max_pool2d")
        fails(MemoryError, lambda: F.avg_pool2d(x, 1), "avg_pool2d")
    fails(MemoryError, lambda: pyconv.Conv2d(2**31, 2**31, 1), "Conv2d")
    fails(MemoryError, lambda: pyconv.ConvTranspose2d(2**21, 2**21, 2**11), "ConvTranspose2d")
    fails(MemoryError, lambda: pyconv.Conv2d(1, 1, 1, padding=2**40).output_shape((1, 1, 1, 1)))
