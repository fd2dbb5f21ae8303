"""What csrc/geom refuses, and in which words: torch's, and arithmetic that is right.

Whoever looks for torch's explanation of an error should find it, so the words are those of torch
2.13, up to the place where ours go on.
"""

from collections.abc import Callable
from typing import Any

import geometry_reference as ref
import pytest
from geometry_library import (
    INT64_MAX,
    INT64_MIN,
    Failure,
    Geometry,
    check_arithmetic,
    load,
    load_checked,
    outcome,
    square,
)
from geometry_reference import CIRCULAR, REFLECT, REPLICATE, SAME, Window
from guarded import in_fork


@pytest.fixture(scope="session")
def geom() -> Geometry:
    """The room as it is."""
    room = load()
    assert room is not None
    return room


@pytest.fixture(scope="session")
def checked() -> Geometry:
    """The room with the sanitizer."""
    return load_checked()


def text_of(function: Callable[..., Any], *arguments: Any) -> str:
    """Return the text of a call that must fail for a wrong value."""
    with pytest.raises(Failure) as caught:
        function(*arguments)
    assert caught.value.kind is ValueError
    return caught.value.text


# ---- what crashed others, or gave them a wrapped size ----

CRASHED_OTHERS = {
    "stride 0": ("conv", (1, 1, 5, 5), 1, 1, 1, square(2, stride=(1, 0)), ValueError),
    "stride 0 pool": ("pool", (1, 1, 5, 5), square(2, stride=(0, 0)), ValueError),
    "kernel 0": ("pool", (1, 1, 5, 5), square(0), ValueError),
    "dilation 0": ("pool", (1, 1, 5, 5), square(2, dilation=(0, 1)), ValueError),
    "groups 0": ("conv", (1, 1, 5, 5), 1, 1, 0, square(1), ValueError),
    "groups lowest": ("conv", (1, 1, 5, 5), 1, 1, INT64_MIN, square(1), ValueError),
    "channels lowest over -1": ("conv", (1, 1, 5, 5), INT64_MIN, 1, -1, square(1), ValueError),
    "kernel larger than input": ("conv", (1, 1, 2, 2), 1, 1, 1, square(3), ValueError),
    "wraps to a positive size": (
        *("conv", (1, 1, 5, 5), 1, 1, 1),
        Window(
            (8608480567731124087, 1), (1, 1), (1250999896764, 1), ((1250999896764,) * 2, (0, 0))
        ),
        MemoryError,
    ),
    "kernel area wraps to 0": ("pool", (1, 1, 5, 5), square(2**32), MemoryError),
    "weight bytes wrap": ("conv", (1, 2**30, 5, 5), 2**30, 2**28, 1, square(3), MemoryError),
    "weight of 2**33 elements": (
        *("conv", (1, 2**10, 128, 128), 2**10, 2**9, 1, square(128)),
        {"oh": 1, "oc": 2**9},
    ),
    "dilation 2**31 with same": (
        *("conv", (1, 1, 5, 5), 1, 1, 1, square(3, dilation=(2**31, 2**31), rule=SAME)),
        {"oh": 5, "pl": 2**31},
    ),
    "dilation 1879048192 transposed": (
        *("conv_transpose", (1, 1, 2, 2), 1, 1, 1, square(3, dilation=(1879048192,) * 2)),
        MemoryError,
    ),
    "stride 2**32 transposed": (
        *("conv_transpose", (1, 1, 2, 2), 1, 1, 1, Window((1, 1), (2**32, 1))),
        {"ih": 2**32 + 1, "sh": 2**32},
    ),
    "output padding above stride": (
        *("conv_transpose", (1, 1, 2, 2), 1, 1, 1, square(3), (1, 0), ValueError),
    ),
    "output padding -1": ("conv_transpose", (1, 1, 2, 2), 1, 1, 1, square(3), (0, -1), ValueError),
    "output size absurd": (
        *("conv_transpose", (1, 1, 2, 2), 1, 1, 1, square(3), (0, 0), (1879048192, 3), ValueError),
    ),
    "output size beside a huge stride": (
        *("conv_transpose", (1, 1, 1, 1), 1, 1, 1, square(3, stride=(INT64_MAX, INT64_MAX))),
        *((0, 0), (2**40, 3)),
        {"ih": 2**40, "iw": 3},
    ),
    "last start in ceil mode wraps": (
        *("pool", (1, 1, 2**62 + 2, 1), Window((1, 1), (2**62, 1), ceil_mode=True)),
        MemoryError,
    ),
    "empty with a huge axis": (
        *("conv", (1, 1, 0, 4634247419717959497), 1, 1, 1, square(1), ValueError),
    ),
    "all empty": ("pool", (0, 0, 0, 0), square(1), ValueError),
    "negative shape": ("conv", (-1, 1, 5, 5), 1, 1, 1, square(1), ValueError),
    "negative padding of zeros": (
        *("conv", (1, 1, 5, 5), 1, 1, 1, square(1, pad=((0, -1), (0, 0))), ValueError),
    ),
    "all rows cropped": (
        "conv",
        *((1, 1, 5, 5), 1, 1, 1, square(1, pad=((-5, 3), (0, 0)), mode=REPLICATE)),
        ValueError,
    ),
    "crop of all there is": (
        "conv",
        *((1, 1, 5, 5), 1, 1, 1, square(1, pad=((INT64_MIN, INT64_MIN), (0, 0)), mode=REFLECT)),
        ValueError,
    ),
    "pooled size above 32 bits": (
        *("pool", (1, 1, 2**40, 1), Window((1, 1))),
        {"oh": 2**40, "ih": 2**40},
    ),
}


@pytest.mark.parametrize("name", CRASHED_OTHERS)
def test_what_crashed_others(geom: Geometry, name: str) -> None:
    method, *arguments, expected = CRASHED_OTHERS[name]
    got = outcome(getattr(geom, method), *arguments)
    if isinstance(expected, dict):
        assert isinstance(got, dict)
        assert {key: got[key] for key in expected} == expected
    else:
        assert got is expected
    assert got == outcome(getattr(ref, method), *arguments)


@in_fork
def test_what_crashed_others_overflows_nothing(checked: Geometry) -> None:
    for method, *arguments, _ in CRASHED_OTHERS.values():
        outcome(getattr(checked, method), *arguments)


# ---- the words ----

CONV = ("conv", (1, 1, 8, 9), 1, 1, 1)
BACK = ("conv_transpose", (1, 1, 5, 6), 1, 1, 1)
POOL = ("pool", (1, 4, 8, 9))

WORDS: list[tuple[tuple[Any, ...], list[str]]] = [
    (
        (*CONV, square(0)),
        ["kernel size should be greater than zero, but got", "kernel_size=(0, 0)"],
    ),
    (
        (*CONV, Window((2, 2), (0, 1))),
        ["non-positive stride is not supported", "stride should not be zero", "(0, 1)"],
    ),
    (
        (*CONV, Window((2, 2), (1, -3))),
        [
            "non-positive stride is not supported",
            "stride should be greater than zero, but got",
            "(1, -3)",
        ],
    ),
    (
        (*CONV, square(2, dilation=(0, 1))),
        [
            "non-positive dilation is not supported",
            "dilation should be greater than zero, but got",
            "(0, 1)",
        ],
    ),
    (
        (*CONV, square(2, pad=((0, 0), (-1, 2)))),
        [
            "negative padding is not supported",
            "pad must be non-negative, but got pad: -1",
            "width",
        ],
    ),
    (
        (*CONV, Window((2, 2), (2, 1), rule=SAME)),
        ["padding='same' is not supported for strided convolutions", "stride=(2, 1)"],
    ),
    (
        ("check_channels", 4, 6, 0, (1, 1)),
        [
            "groups must be a positive integer",
            "non-positive groups is not supported",
            "groups=0",
        ],
    ),
    (
        ("check_channels", 3, 4, 2, (1, 1)),
        ["in_channels must be divisible by groups", "in_channels=3, groups=2"],
    ),
    (
        ("check_channels", 4, 3, 2, (1, 1)),
        ["out_channels must be divisible by groups", "out_channels=3, groups=2"],
    ),
    (("check_channels", 0, 3, 1, (1, 1)), ["in_channels must be a positive integer", "=0"]),
    (("check_channels", 3, -7, 1, (1, 1)), ["out_channels must be a positive integer", "=-7"]),
    (
        ("conv", (2, 3, 8, 8), 4, 6, 2, square(3)),
        [
            "Given groups=2, weight of size [6, 2, 3, 3], expected input[2, 3, 8, 8] to have "
            "4 channels, but got 3 channels instead"
        ],
    ),
    (
        ("conv_transpose", (2, 3, 8, 8), 4, 6, 2, square(3)),
        [
            "Given transposed=1, weight of size [4, 3, 3, 3], expected input[2, 3, 8, 8] to have "
            "4 channels, but got 3 channels instead"
        ],
    ),
    (
        ("conv", (1, 1, 2, 8), 1, 1, 1, square(3)),
        [
            "Calculated padded input size per channel: (2 x 8). Kernel size: (3 x 3). "
            "Kernel size can't be greater than actual input size",
            "output height = floor((2 + 2*0 - 1*(3-1) - 1)/1) + 1 = 0",
        ],
    ),
    (
        ("conv", (1, 1, 8, 2), 1, 1, 1, Window((3, 3), (2, 2), (1, 3), ((0, 0), (0, 1)))),
        [
            "Calculated padded input size per channel: (8 x 3). Kernel size: (3 x 7). "
            "Kernel size can't be greater than actual input size",
            "output width = floor((2 + 0 + 1 - 3*(3-1) - 1)/2) + 1 = -1",
        ],
    ),
    (
        ("conv", (2, 4, 0, 8), 4, 1, 1, square(3, pad=((2, 2), (2, 2)))),
        ["Only zero batch or zero channel inputs are supported, but got input shape: [2, 4, 0, 8]"],
    ),
    (
        ("conv", (2, 4, 0, 8), 4, 1, 1, square(3)),
        ["Calculated padded input size per channel: (0 x 8). Kernel size: (3 x 3)"],
    ),
    (
        ("conv", (1, 1, 5, 4), 1, 1, 1, square(1, pad=((4, 4), (4, 4)), mode=REFLECT)),
        [
            "Padding size should be less than the corresponding input dimension, but got: "
            "padding (4, 4) at dimension 3 of input [1, 1, 5, 4]"
        ],
    ),
    (
        ("conv", (1, 1, 4, 5), 1, 1, 1, square(1, pad=((0, 4), (0, 0)), mode=REFLECT)),
        [
            "Padding size should be less than the corresponding input dimension, but got: "
            "padding (0, 4) at dimension 2 of input [1, 1, 4, 5]"
        ],
    ),
    (
        ("conv", (1, 1, 4, 5), 1, 1, 1, square(1, pad=((5, 4), (0, 0)), mode=CIRCULAR)),
        ["Padding value causes wrapping around more than once.", "(5, 4)", "height 4"],
    ),
    (
        ("conv", (1, 1, 5, 5), 1, 1, 1, square(1, pad=((0, 0), (-3, -3)), mode=CIRCULAR)),
        ["Negative padding value is resulting in an empty dimension", "(-3, -3)", "width 5"],
    ),
    (
        ("conv", (1, 1, 5, 5), 1, 1, 1, square(1, pad=((-3, -3), (0, 0)), mode=REPLICATE)),
        ["too small", "(-3, -3)", "height 5"],
    ),
    (
        ("conv", (1, 1, 0, 5), 1, 1, 1, square(1, mode=REFLECT)),
        [
            "Expected 3D or 4D (batch mode) tensor with possibly 0 batch size and other non-zero "
            "dimensions for input, but got: [1, 1, 0, 5]"
        ],
    ),
    (
        (*BACK, square(3, stride=(2, 2)), (2, 1)),
        [
            "output padding must be smaller than either stride or dilation, but got "
            "output_padding_height: 2 output_padding_width: 1 stride_height: 2 stride_width: 2 "
            "dilation_height: 1 dilation_width: 1"
        ],
    ),
    ((*BACK, square(3), (0, -1)), ["negative output_padding is not supported", "(0, -1)"]),
    (
        (*BACK, Window((3, 3), (2, 2), pad=((1, 1), (1, 1))), (0, 0), (11, 12)),
        [
            "requested an output size of [11, 12], but valid sizes range from [9, 11] to "
            "[10, 12] (for an input of [5, 6])"
        ],
    ),
    (
        (*BACK, square(1, pad=((3, 3), (3, 3)))),
        [
            "Given input size per channel: (5 x 6). Calculated output size per channel: "
            "(-1 x 0). Output size is too small",
            "output height = (5-1)*1 - 2*3 + 1*(1-1) + 0 + 1 = -1",
        ],
    ),
    (
        (*BACK, Window((3, 3), (2, 2), pad=((0, 0), (5, 9))), (0, 1)),
        ["Output size is too small", "output width = (6-1)*2 - (5 + 9) + 1*(3-1) + 1 + 1 = 0"],
    ),
    (
        ("conv_transpose", (2, 4, 0, 8), 4, 1, 1, square(3)),
        ["Only zero batch or zero channel inputs are supported, but got input shape: [2, 4, 0, 8]"],
    ),
    (
        (*BACK, square(3, mode=CIRCULAR)),
        ['Only "zeros" padding mode is supported'],
    ),
    ((*POOL, Window((2, 2), (0, 1))), ["stride should not be zero", "(0, 1)"]),
    (
        (*POOL, square(3, pad=((0, 0), (2, 2)))),
        [
            "pad should be at most half of effective kernel size, but got pad=2, kernel_size=3 "
            "and dilation=1",
            "width",
        ],
    ),
    (
        (*POOL, square(3, dilation=(2, 2), pad=((2, 2), (1, 1)))),
        [
            "pad should be smaller than or equal to half of kernel size, but got padW = 1, "
            "padH = 2, kW = 3, kH = 3"
        ],
    ),
    ((*POOL, square(3, pad=((0, 1), (0, 0)))), ["(0, 1)", "height"]),
    ((*POOL, square(3, pad=((-1, -1), (0, 0)), mode=REFLECT)), ["pad must be non-negative"]),
    (
        (*POOL, square(9)),
        [
            "Given input size: (4x8x9). Calculated output size: (4x0x1). Output size is too small",
            "output height = floor((8 + 2*0 - 1*(9-1) - 1)/1) + 1 = 0",
        ],
    ),
    (
        (*POOL, Window((9, 12), (2, 2), ceil_mode=True)),
        [
            "Given input size: (4x8x9). Calculated output size: (4x1x0). Output size is too small",
            "output width = ceil((9 + 2*0 - 1*(12-1) - 1)/2) + 1 = 0",
        ],
    ),
    (
        ("pool", (2, 0, 8, 8), square(2)),
        [
            "Expected 3D or 4D (batch mode) tensor with optional 0 dim batch size for input, "
            "but got:[2, 0, 8, 8]"
        ],
    ),
    (
        ("pool", (2, 3, 0, 8), square(2)),
        [
            "Expected 3D or 4D (batch mode) tensor with optional 0 dim batch size for input, "
            "but got:[2, 3, 0, 8]"
        ],
    ),
    (("pool", (2, 3, 8, -8), square(2)), ["negative dimensions are not allowed", "[2, 3, 8, -8]"]),
]


@pytest.mark.parametrize(("call", "words"), WORDS, ids=[words[0][:60] for _, words in WORDS])
def test_words_of_wrong_values(geom: Geometry, call: tuple[Any, ...], words: list[str]) -> None:
    method, *arguments = call
    text = text_of(getattr(geom, method), *arguments)
    for part in words:
        assert part in text
    check_arithmetic(text)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        ((*CONV, square(3, dilation=(1, 2**62))), ["width", f"{2**62}*(3-1) + 1"]),
        ((*CONV, square(1, pad=((2**62, 2**62), (0, 0)))), ["height", f"{2**62} + {2**62}"]),
        (
            ("conv", (1, 1, 4, 4), 1, 1, 1, square(1, pad=((0, 0), (2**62, 2**62 - 1)))),
            ["padded width", f"4 + {2**62} + {2**62 - 1}"],
        ),
        (("conv", (1, 2**60, 1, 1), 2**60, 1, 1, square(1)), ["weight", f"1 * ({2**60}/1) * 1"]),
        (
            ("conv", (2**59, 2, 1, 1), 2, 1, 1, square(1)),
            ["input of shape", f"[{2**59}, 2, 1, 1]"],
        ),
        (
            ("conv", (2**59, 1, 1, 1), 1, 2, 1, square(1)),
            ["output of shape", f"[{2**59}, 2, 1, 1]"],
        ),
        ((*BACK, Window((3, 3), (1, 2**62))), ["width", f"(6-1)*{2**62} + 1*(3-1) + 1"]),
        (
            ("conv_transpose", (1, 1, 1, 2), 1, 1, 1, Window((3, 3), (1, INT64_MAX - 9)), (0, 99)),
            ["width", f"(2-1)*{INT64_MAX - 9} - 2*0 + 1*(3-1) + 99 + 1"],
        ),
        ((*POOL, Window((2**32, 2**31))), ["area", f"{2**32}*{2**31}"]),
    ],
)
def test_words_of_sizes_that_are_too_large(
    geom: Geometry, call: tuple[Any, ...], words: list[str]
) -> None:
    method, *arguments = call
    with pytest.raises(Failure) as caught:
        getattr(geom, method)(*arguments)
    assert caught.value.kind is MemoryError
    assert "too large" in caught.value.text
    for part in words:
        assert part in caught.value.text
