"""Calls whose looks and verdicts are compared with torch: good ones, and every kind of bad one."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

# ---- how a layer looks: repr, attributes, state_dict ----


@dataclass(frozen=True)
class Call:
    """A constructor call, and perhaps a call of the layer on zeros of some shape."""

    layer: str
    args: tuple[Any, ...]
    kwargs: dict[str, Any] = field(default_factory=dict)
    shape: tuple[int, ...] | None = None
    dtype: str = "float32"
    call: dict[str, Any] = field(default_factory=dict)
    words: str = ""  # what torch's message and ours both say
    differs: str = ""  # why one of them accepts what the other refuses

    @property
    def name(self) -> str:
        arguments = [repr(a) for a in self.args] + [f"{k}={v!r}" for k, v in self.kwargs.items()]
        shown = f"{self.layer}({', '.join(arguments)})"
        if self.shape is not None:
            call = "".join(f", {k}={v!r}" for k, v in self.call.items())
            shown += f"(zeros({self.shape}, {self.dtype}){call})"
        return shown


_CONV_ATTRIBUTES = (
    "in_channels out_channels kernel_size stride padding dilation groups padding_mode "
    "output_padding transposed training"
)
ATTRIBUTES = {
    "Conv2d": _CONV_ATTRIBUTES,
    "ConvTranspose2d": _CONV_ATTRIBUTES,
    "MaxPool2d": "kernel_size stride padding dilation return_indices ceil_mode training",
    "AvgPool2d": "kernel_size stride padding ceil_mode count_include_pad divisor_override training",
    "Conv1d": _CONV_ATTRIBUTES,
    "BatchNorm2d": "num_features eps momentum affine track_running_stats training",
    "ReLU": "inplace training",
    "AdaptiveAvgPool2d": "output_size training",
}

LOOKS = [
    *(
        Call("Conv2d", args, kwargs)
        for args, kwargs in (
            ((3, 16, 3), {}),
            ((3, 16, (3, 5)), {}),
            ((3, 16, [3, 5]), {}),
            ((3, 16, 3, 2), {}),
            ((3, 16, 3, (2, 1), 1), {}),
            ((3, 16, 3, 1, (0, 2)), {}),
            ((3, 16, 3, 1, 0), {}),
            ((3, 16, 3, 1, (0, 0), 2), {}),
            ((4, 8, 3, 2, 1, 2, 4, False, "reflect"), {}),
            ((1, 1, (3, 5)), {"padding": "same", "dilation": 2}),
            ((1, 1, 3), {"padding": "valid", "stride": 2}),
            ((4, 8, 3), {"groups": 2}),
            ((4, 8, 1), {"bias": False}),
            ((4, 8, 1), {"bias": True, "padding_mode": "circular"}),
            ((4, 8, 1), {"padding_mode": "replicate", "padding": 3}),
            ((4, 8, 2), {"padding_mode": "zeros", "device": "cpu"}),
            ((4, 8, 2), {"device": None, "dtype": None}),
            ((4, 8, 2), {"dtype": "float64"}),
            ((8, 8, 7), {"groups": 8, "padding": 3, "stride": [2, 2]}),
        )
    ),
    *(
        Call("ConvTranspose2d", args, kwargs)
        for args, kwargs in (
            ((4, 8, 3), {}),
            ((4, 8, (2, 4), 2), {}),
            ((4, 8, 3, 2, 1, 1, 4, False, 2), {}),
            ((4, 8, 3, (2, 3), 1, (1, 2)), {}),
            ((4, 8, 4, 2, 1), {"bias": False}),
            ((4, 8, 4), {"groups": 2, "padding": [0, 1]}),
            ((4, 8, 2), {"dilation": 3, "output_padding": 2}),
            ((4, 8, 2), {"dtype": "float64", "padding_mode": "zeros"}),
            ((4, 8, 2, 2, 0, 0), {}),
        )
    ),
    *(
        Call("MaxPool2d", args, kwargs)
        for args, kwargs in (
            ((2,), {}),
            ((3, 2, 1), {}),
            (((3, 2),), {}),
            (((3, 2), (2, 1)), {}),
            ((3, None, 1, 2, True, True), {}),
            ((3,), {"stride": 2, "padding": (1, 0)}),
            ((3,), {"dilation": (1, 2), "ceil_mode": True}),
            ((3,), {"return_indices": True}),
        )
    ),
    *(
        Call("AvgPool2d", args, kwargs)
        for args, kwargs in (
            ((2,), {}),
            ((3, 2, 1), {}),
            (((3, 2),), {}),
            ((3, None, (1, 0)), {}),
            (((3, 2), (2, 1), (1, 1), True, False, 7), {}),
            ((3,), {"divisor_override": -2}),
            ((3,), {"count_include_pad": False, "ceil_mode": True}),
        )
    ),
    *(
        Call("Conv1d", args, kwargs)
        for args, kwargs in (
            ((3, 16, 3), {}),
            ((3, 16, (5,), [2], 1), {}),
            ((4, 8, 3, 2, 1, 2, 4, False, "reflect"), {}),
            ((4, 8, 3), {"padding": "same", "dilation": 2, "dtype": "float64"}),
            ((4, 8, 3), {"padding": (0,), "padding_mode": "circular"}),
        )
    ),
    *(
        Call("BatchNorm2d", args, kwargs)
        for args, kwargs in (
            ((3,), {}),
            ((3, 1e-3, 0.5), {}),
            ((3, 1e-5, None, False, False), {}),
            ((3,), {"affine": False}),
            ((3,), {"bias": False, "dtype": "float64"}),
            ((3,), {"track_running_stats": False, "eps": 0.0}),
        )
    ),
    *(Call("ReLU", args, {}) for args in ((), (True,), (False,))),
    *(Call("AdaptiveAvgPool2d", (size,)) for size in (1, (2, 3), [4, 5], (None, 7), (6, None))),
]


# ---- good and bad calls: who refuses what ----

_BOOL = "a bool is no size"
_EMPTY = "a layer without channels is refused"
_CASTS = "a layer converts its input to its own dtype"
_SIZED = "an output without elements is an error, for any batch size"
_TOO_FEW = "Kernel size can't be greater than actual input size"
_RANK = "Expected 3D (unbatched) or 4D (batched) input to"


def _refusals() -> Iterator[Call]:
    image = (1, 4, 6, 6)
    convs = (("Conv2d", (4, 3)), ("ConvTranspose2d", (4, 3)))
    pools: tuple[tuple[str, tuple[int, ...]], ...] = (("MaxPool2d", ()), ("AvgPool2d", ()))

    # Window arguments, which all four have.
    for layer, channels in convs + pools:

        def make(
            *args: Any,
            shape: tuple[int, ...] = image,
            words: str = "",
            differs: str = "",
            layer: str = layer,
            channels: tuple[int, ...] = channels,
            **kwargs: Any,
        ) -> Call:
            return Call(layer, channels + args, kwargs, shape, words=words, differs=differs)

        is_pool, is_transposed = not channels, layer == "ConvTranspose2d"
        for good in (3, (3, 2), [3, 2]):
            yield make(good)
        for shape in (image[1:], (0, 4, 6, 6), (5, 4, 6, 6)):
            yield make(3, shape=shape)
        yield make(words="missing")
        for wrong in (None, "3", 3.0, (3, 3.0), (3, "3"), (3, (3, 3)), 2**63, 2**64):
            yield make(wrong)
        for wrong in ((3, 3, 3), ()):
            yield make(wrong)
        for wrong in (-1, (3, -1)):
            yield make(wrong, words="kernel size should be greater than zero" if is_pool else "")
        yield make(0, words="" if is_pool else "kernel size should be greater than zero")
        for wrong in (-1, (-1, 1)):
            words = "stride should be greater than zero"
            yield make(3, stride=wrong, words=words if is_pool else "non-positive stride")
        for wrong in (0, (1, 0)):
            words = "stride should not be zero" if is_pool else "non-positive stride"
            yield make(3, stride=wrong, words=words)
        for wrong in ((1, 2, 3), 1.0, "1", (1, None), 2**64, ((1, 1), (1, 1))):
            yield make(3, stride=wrong)
        for wrong in (-1, (1, -1)):
            words = "pad must be non-negative, but got pad: -1"
            yield make(3, padding=wrong, words=words if is_pool else "negative padding")
        for wrong in ((1, 1, 1, 1), 1.0, None, (1, None), 2**64):
            yield make(3, padding=wrong)
        yield make(True, differs="" if is_pool else _BOOL)
        yield make((3, True), differs=_BOOL)
        yield make(3, stride=(True, 1))
        yield make(3, padding=(1, True), differs=_BOOL)
        yield make(3, unknown=1, words="unexpected keyword argument")
        for shape in ((6, 6), (1, 1, 4, 6, 6), ()):
            yield make(3, shape=shape, words="" if is_pool else _RANK)
        for shape in ((1, 4, 0, 6), (1, 4, 6, 0)):
            yield make(3, shape=shape)
        if layer != "AvgPool2d":
            for wrong in (0, -1):
                yield make(3, dilation=wrong, words="dilation should be greater than zero")
            for wrong in ((1, 2, 3), 1.5, None, "2", 2**64):
                yield make(3, dilation=wrong)
        if not is_transposed:
            for shape in ((1, 4, 2, 6), (0, 4, 6, 2), (4, 2, 6)):
                yield make(3, shape=shape, words="too small" if is_pool else _TOO_FEW)
            yield make(3, stride=2**31 - 1)
        if is_pool:
            half = "pad should be at most half of effective kernel size"
            for k, pad in ((2, 2), (3, 2), ((3, 2), (0, 2)), (1, 1)):
                yield make(k, padding=pad, words=half)
            yield make(2, padding=1)
            yield make(3, ceil_mode=True, shape=(1, 4, 2, 6))
            yield make(3, ceil_mode=True, stride=2, shape=(1, 4, 2, 6))
            yield make(3, shape=(1, 0, 6, 6))
            yield make(3, stride=(2,))
            yield make((3,))
            yield make((3,), stride=2, padding=(1,))
    stricter = "pad should be smaller than or equal to half of kernel size"
    yield Call("MaxPool2d", (3,), {"padding": 2, "dilation": 2}, image, words=stricter)
    yield Call("MaxPool2d", (3,), {"return_indices": 1, "ceil_mode": 0}, image)
    yield Call("AvgPool2d", (3,), {"divisor_override": 0}, image, words="divisor must be not zero")
    yield Call("AvgPool2d", (3,), {"divisor_override": -3}, image)
    yield Call("AvgPool2d", (3,), {"divisor_override": 1.5}, image)
    yield Call("AvgPool2d", (3,), {"divisor_override": "2"}, image)

    # Channels, groups and images, which the convolutions have.
    for layer, _ in convs:
        for wrong in (None, "4", 4.0, -4, 2**64):
            yield Call(layer, (wrong, 3, 3), {}, image)
            yield Call(layer, (4, wrong, 3), {}, image)
        yield Call(layer, (0, 3, 3), {}, differs=_EMPTY)
        yield Call(layer, (4, 0, 3), {}, differs=_EMPTY)
        positive = "groups must be a positive integer"
        for wrong in (0, -1):
            yield Call(layer, (4, 4, 3), {"groups": wrong}, image, words=positive)
        for wrong in (1.5, None, "1"):
            yield Call(layer, (4, 4, 3), {"groups": wrong}, image)
        by_groups = "must be divisible by groups"
        yield Call(layer, (4, 6, 3), {"groups": 3}, image, words=f"in_channels {by_groups}")
        yield Call(layer, (4, 3, 3), {"groups": 2}, image, words=f"out_channels {by_groups}")
        for shape in ((1, 3, 6, 6), (3, 6, 6), (0, 3, 6, 6)):
            words = "to have 4 channels, but got 3 channels"
            yield Call(layer, (4, 3, 3), {}, shape, words=words)
        for bias in (None, 0, 1, "yes"):
            yield Call(layer, (4, 3, 3), {"bias": bias}, image)
        for dtype in ("float64", "uint8", "int64"):
            yield Call(layer, (4, 3, 3), {}, image, dtype, differs=_CASTS)
        yield Call(layer, (4, 3, 3), {"dtype": "float64"}, image, differs=_CASTS)
        yield Call(layer, (4, 3, 3), {"dtype": "float64"}, image, "float64")
        yield Call(layer, (4, 3, 3), {}, image, "complex64")
        yield Call(layer, (4, 3, 3), {"dtype": "int32"})
        yield Call(layer, (4, 3, 3), {"device": "nowhere"})
        for mode in ("x", None, 3):
            yield Call(layer, (4, 3, 3), {"padding_mode": mode}, image, words="padding")

    for wrong in ("foo", "SAME", ""):
        yield Call("Conv2d", (4, 3, 3, 1, wrong), {}, image, words="Invalid padding string")
    strided = "padding='same' is not supported for strided convolutions"
    for stride in (2, (1, 2)):
        yield Call("Conv2d", (4, 3, 3), {"padding": "same", "stride": stride}, image, words=strided)
    for mode, pad, good in (
        ("reflect", 5, True),
        ("reflect", 6, False),
        ("reflect", (0, 6), False),
        ("circular", 6, True),
        ("circular", 7, False),
        ("circular", (7, 0), False),
        ("replicate", 20, True),
        ("replicate", -1, True),
        ("reflect", -1, True),
        ("circular", -1, True),
        ("replicate", -3, False),
    ):
        words = {"reflect": "Padding size should be less than", "circular": "wrapping around"}
        arguments = {"padding": pad, "padding_mode": mode}
        phrase = "" if good else words.get(mode, "")
        yield Call("Conv2d", (4, 3, 3), arguments, image, words=phrase)
    yield Call("Conv2d", (4, 3, 3), {"padding": 2, "dilation": 5}, image, words=_TOO_FEW)
    garbage = "torch's size arithmetic overflows and it returns garbage"
    yield Call("Conv2d", (4, 3, 3), {"dilation": 2**62}, image, differs=garbage)
    asymmetric = "padding per side, which torch does not have"
    sides = {"padding": ((1, 0), (2, 1))}
    yield Call("Conv2d", (4, 3, 3), sides, image, differs=asymmetric)
    yield Call("Conv2d", (True, 3, 3), {}, (1, 1, 6, 6), differs=_BOOL)

    only_zeros = 'Only "zeros" padding mode is supported for ConvTranspose2d'
    for mode in ("reflect", "circular"):
        yield Call("ConvTranspose2d", (4, 3, 3), {"padding_mode": mode}, image, words=only_zeros)
    for padding in ("same", "valid"):
        yield Call("ConvTranspose2d", (4, 3, 3), {"padding": padding}, image)
    limit = "output padding must be smaller than either stride or dilation"
    for stride, dilation, more, good in (
        (1, 1, 1, False),
        (2, 1, 1, True),
        (2, 1, 2, False),
        (1, 3, 2, True),
        (1, 3, 3, False),
        ((2, 1), 1, (1, 1), False),
        ((2, 1), (1, 2), (1, 1), True),
    ):
        arguments = {"stride": stride, "dilation": dilation, "output_padding": more}
        phrase = "" if good else limit
        yield Call("ConvTranspose2d", (4, 3, 3), arguments, image, words=phrase)
    for wrong in (-1, 1.0, None, (0, 0, 0), "0"):
        yield Call("ConvTranspose2d", (4, 3, 3), {"output_padding": wrong}, image)
    requested = "requested an output size of"
    for size, phrase in (
        ((13, 13), ""),
        ((14, 13), ""),
        ([99, 99, 14, 14], ""),
        ((12, 13), requested),
        ((13, 15), requested),
        ((13,), "output_size must have 2 or 4 elements"),
        ((3, 13, 13), "output_size must have 2 or 4 elements"),
        (13, ""),
    ):
        call = {"output_size": size}
        yield Call("ConvTranspose2d", (4, 3, 3, 2), {}, image, call=call, words=phrase)
    # A dilation beyond the stride does not widen the range.
    call = {"output_size": (13, 13)}
    yield Call("ConvTranspose2d", (4, 3, 3), {"dilation": 3}, image, call=call, words=requested)
    for n, words, differs in ((1, "too small", ""), (2, "", _SIZED)):
        shape = (n, 4, 2, 2)
        yield Call("ConvTranspose2d", (4, 3, 2), {"padding": 2}, shape, words=words)
        yield Call(
            "ConvTranspose2d", (4, 3, 3), {"padding": 2}, shape, words=words, differs=differs
        )


def _more_refusals() -> Iterator[Call]:
    line, image = (1, 4, 12), (2, 4, 6, 6)

    # Conv1d
    for good in (3, (3,), [3]):
        yield Call("Conv1d", (4, 3, good), {}, line)
    for shape in (line[1:], (0, 4, 12), (5, 4, 12)):
        yield Call("Conv1d", (4, 3, 3), {}, shape)
    for shape in ((12,), (1, 1, 4, 12), ()):
        rank = "Expected 2D (unbatched) or 3D (batched) input to conv1d"
        yield Call("Conv1d", (4, 3, 3), {}, shape, words=rank)
    for shape in ((1, 4, 2), (4, 0)):
        yield Call("Conv1d", (4, 3, 3), {}, shape, words=_TOO_FEW)
    yield Call("Conv1d", (4, 3, 3), {}, (1, 3, 12), words="to have 4 channels, but got 3 channels")
    for wrong in ((3, 3), (), 3.0, None, "3", 0, -1, 2**64):
        yield Call("Conv1d", (4, 3, wrong), {}, line)
    for name, good in (("stride", (2,)), ("padding", (1,)), ("dilation", (2,))):
        yield Call("Conv1d", (4, 3, 3), {name: good}, line)
        for wrong in ((1, 1), 1.5, None, -1):
            yield Call("Conv1d", (4, 3, 3), {name: wrong}, line)
    yield Call("Conv1d", (4, 3, 3), {"padding": "same", "stride": 2}, line)
    yield Call("Conv1d", (4, 3, 3), {"padding": "full"}, line, words="Invalid padding string")
    yield Call("Conv1d", (4, 3, 3), {"padding": 12, "padding_mode": "reflect"}, line)
    yield Call("Conv1d", (4, 3, 3), {"padding": 11, "padding_mode": "reflect"}, line)
    sides = {"padding": ((1, 2),)}
    asymmetric = "padding per side, which torch does not have"
    yield Call("Conv1d", (4, 3, 3), sides, line, differs=asymmetric)
    yield Call("Conv1d", (4, 6, 3), {"groups": 3}, line, words="must be divisible by groups")
    yield Call("Conv1d", (4, 3, 3), {}, line, "float64", differs=_CASTS)
    yield Call("Conv1d", (4, 3, 3), {}, line, "complex64")

    # BatchNorm2d
    for shape in (image, (0, 4, 6, 6), (1, 4, 1, 2), (2, 4, 0, 6)):
        yield Call("BatchNorm2d", (4,), {}, shape)
    for shape in ((4, 6, 6), (4,), (), (1, 2, 4, 6, 6)):
        yield Call("BatchNorm2d", (4,), {}, shape, words="expected 4D input (got")
    one = "Expected more than 1 value per channel when training"
    yield Call("BatchNorm2d", (4,), {}, (1, 4, 1, 1), words=one)
    yield Call("BatchNorm2d", (3,), {}, image, words="running_mean should contain 4 elements not 3")
    for wrong in (-1, 3.0, None, "3", True, 2**64):
        yield Call("BatchNorm2d", (wrong,), {})
    yield Call("BatchNorm2d", (0,), {}, differs=_EMPTY)
    positive = "eps must be positive during training"
    yield Call("BatchNorm2d", (4, 0.0), {}, image, words=positive)
    for wrong in (-1.0, None, "x"):
        yield Call("BatchNorm2d", (4, wrong), {}, image)
    for momentum in (0.0, 1, 2.5, -1.0, None):
        yield Call("BatchNorm2d", (4,), {"momentum": momentum}, image)
    yield Call("BatchNorm2d", (4,), {"momentum": "x"}, image)
    for dtype in ("float64", "uint8"):
        yield Call("BatchNorm2d", (4,), {}, image, dtype, differs=_CASTS)
    yield Call("BatchNorm2d", (4,), {}, image, "complex64")
    yield Call("BatchNorm2d", (4,), {"dtype": "int32"})
    yield Call("BatchNorm2d", (4, 1e-5, 0.1, True, True, None, None, True), {})

    # ReLU
    for shape in ((), (3,), (0, 2), (1, 2, 3, 4, 5)):
        yield Call("ReLU", (), {}, shape)
    yield Call("ReLU", (), {}, (3,), "int64")
    yield Call("ReLU", (), {}, (3,), "bool", differs="all layers convert bool to float")
    yield Call("ReLU", (), {}, (3,), "complex64")
    yield Call("ReLU", (True, False), {})

    # AdaptiveAvgPool2d
    for size in (3, (2, 5), [7, 1], (None, 2), (None, None), 0, (0, 3)):
        yield Call("AdaptiveAvgPool2d", (size,), {}, image)
    for wrong in (None, 2.0, "2", True, (True, 2), (2, 2.5), ((1, 2), 2), 2**64, 2**62):
        yield Call("AdaptiveAvgPool2d", (wrong,), {}, image)
    for wrong in ((2, 3, 4), ()):
        yield Call("AdaptiveAvgPool2d", (wrong,), {}, image, words="output_size must be 2")
    yield Call(
        "AdaptiveAvgPool2d", ((2,),), {}, image, differs="a sequence of one stands for both axes"
    )
    for wrong in (-1, (2, -1)):
        words = "elements of output_size must be greater than or equal to 0 but received"
        yield Call("AdaptiveAvgPool2d", (wrong,), {}, image, words=words)
    for shape in (image[1:], (0, 4, 6, 6), (2, 0, 6, 6)):
        yield Call("AdaptiveAvgPool2d", (2,), {}, shape)
    for shape in ((6, 6), (), (1, 1, 4, 6, 6)):
        yield Call("AdaptiveAvgPool2d", (2,), {}, shape, words="Expected 3D or 4D tensor")
    for shape in ((1, 4, 0, 6), (4, 6, 0)):
        words = "Expected input to have non-zero size for non-batch dimensions"
        yield Call("AdaptiveAvgPool2d", (2,), {}, shape, words=words)
    nan = "torch gives the mean of nothing"
    yield Call("AdaptiveAvgPool2d", (1,), {}, (1, 4, 0, 6), differs=nan)
    yield Call("AdaptiveAvgPool2d", (), {}, words="missing")


REFUSALS = [*_refusals(), *_more_refusals()]
