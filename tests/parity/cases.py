"""What is compared with torch: one list of cases, for the maker of the golden files and the tests.

A case is a layer's constructor arguments and an input's shape. Its numbers are not stored: they
come from a seed, by ``np.random.RandomState.random_sample``, a stream that NumPy has promised never
to change. Every configuration comes in float32 and float64, once with small integers (every sum is
exact, so the tolerance is 0) and once with reals.
"""

import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import product
from typing import Any

import numpy as np

SAMPLE = 256  # elements that are kept of an array in a sampled case


@dataclass(frozen=True)
class Case:
    """One call of one layer, forward and backward."""

    layer: str
    arguments: dict[str, Any]
    shape: tuple[int, ...]
    dtype: str
    values: str  # "integer", "real"; for max pools also "nan", "infinite"
    sampled: bool = False  # large: only a sample and the sum of every array is kept
    call: dict[str, Any] = field(default_factory=dict)

    @property
    def name(self) -> str:
        arguments = ", ".join(f"{k}={v!r}" for k, v in self.arguments.items())
        call = "".join(f", {k}={v!r}" for k, v in self.call.items())
        shape = "x".join(map(str, self.shape))
        return f"{self.layer}({arguments})({shape}{call}) {self.dtype} {self.values}"

    def exact(self, what: str) -> bool:
        """Whether any right implementation computes the array `what` without rounding."""
        if self.layer == "MaxPool2d" and what in ("output", "indices"):
            return True
        return self.values != "real" and self.layer != "AvgPool2d"

    @property
    def weight_shape(self) -> tuple[int, ...] | None:
        a = self.arguments
        if self.layer not in ("Conv2d", "ConvTranspose2d"):
            return None
        channels = (a["in_channels"], a["out_channels"])
        first, second = channels if self.layer == "ConvTranspose2d" else channels[::-1]
        kernel = a["kernel_size"]
        kernel = (kernel, kernel) if isinstance(kernel, int) else tuple(kernel)
        return (first, second // a.get("groups", 1), *kernel)

    def numbers(self, what: str, shape: tuple[int, ...]) -> np.ndarray:
        """The case's own array called `what`: "input", "weight", "bias" or "grad_output"."""
        stream = np.random.RandomState(zlib.crc32(f"{what} of {self.name}".encode()))
        uniform = stream.random_sample(shape)
        if self.values == "real":
            return (2 * uniform - 1).astype(self.dtype)
        result = (np.floor(9 * uniform) - 4).astype(self.dtype)
        if what == "input" and self.values in ("nan", "infinite"):
            rare = {"nan": np.nan, "infinite": -np.inf}[self.values]
            result[stream.random_sample(shape) < 0.3] = rare
        return result

    def arrays(self) -> tuple[np.ndarray, np.ndarray | None, np.ndarray | None]:
        """Input, weight and bias; None where the layer has none."""
        weight = bias = None
        if self.weight_shape is not None:
            weight = self.numbers("weight", self.weight_shape)
            if self.arguments.get("bias", True):
                bias = self.numbers("bias", (self.arguments["out_channels"],))
        return self.numbers("input", self.shape), weight, bias

    def kept(self, array: np.ndarray, what: str) -> np.ndarray:
        """What a golden file holds of a result: all of it, or a sample and the sum."""
        if not self.sampled or array.size <= SAMPLE:
            return array
        stream = np.random.RandomState(zlib.crc32(f"sample of {what} of {self.name}".encode()))
        places = (stream.random_sample(SAMPLE) * array.size).astype(np.int64)
        total = array.sum(dtype=np.float64)
        return np.append(array.reshape(-1)[places].astype(np.float64), total)


# ---- the configurations ----

_Configuration = tuple[dict[str, Any], tuple[int, ...], dict[str, Any]]


def _conv(ic: int, oc: int, k: Any, shape: tuple[int, ...], **more: Any) -> _Configuration:
    call = {"output_size": more.pop("output_size")} if "output_size" in more else {}
    return {"in_channels": ic, "out_channels": oc, "kernel_size": k, **more}, shape, call


def _pool(k: Any, shape: tuple[int, ...], **more: Any) -> _Configuration:
    return {"kernel_size": k, **more}, shape, {}


class _Draw:
    """Random choices from a stream that never changes."""

    def __init__(self, seed: int) -> None:
        self.stream = np.random.RandomState(seed)

    def number(self, low: int, high: int) -> int:
        """A number from low to high, both included."""
        return low + int(self.stream.random_sample() * (high - low + 1))

    def pair(self, low: int, high: int) -> tuple[int, int]:
        return self.number(low, high), self.number(low, high)

    def batch(self, wide: bool) -> tuple[int, ...]:
        """No batch, an empty one, or some samples; without `wide` always some."""
        if wide and self.often(0.2):
            return ((), (0,))[self.number(0, 1)]
        return (self.number(1, 3),)

    def often(self, probability: float) -> bool:
        return bool(self.stream.random_sample() < probability)


def _fits(size: int, k: int, s: int, p: int, d: int = 1) -> bool:
    return size + 2 * p >= d * (k - 1) + 1


def _random_conv(count: int, seed: int, wide: bool = False) -> Iterator[_Configuration]:
    draw = _Draw(seed)
    while count:
        k, s, d, p = draw.pair(1, 4), draw.pair(1, 3), draw.pair(1, 3), draw.pair(0, 3)
        g, (ic_g, oc_g), size = draw.number(1, 3), draw.pair(1, 4), draw.pair(1, 12)
        if wide and draw.often(0.4):
            (ic_g, oc_g), size = draw.pair(1, 20), (draw.number(1, 20), draw.number(1, 70))
        if not all(_fits(*axis) for axis in zip(size, k, s, p, d, strict=True)):
            continue
        more: dict[str, Any] = {"stride": s, "padding": p, "dilation": d, "groups": g}
        if draw.often(0.3):
            more["bias"] = False
        if wide and draw.often(0.3):
            more["padding_mode"] = ("reflect", "replicate", "circular")[draw.number(0, 2)]
            more["padding"] = tuple(min(a, n - 1) for a, n in zip(p, size, strict=True))
            if not all(_fits(*axis) for axis in zip(size, k, s, more["padding"], d, strict=True)):
                continue
        elif wide and draw.often(0.3):
            more |= {"padding": "same", "stride": 1}
        yield _conv(g * ic_g, g * oc_g, k, (*draw.batch(wide), g * ic_g, *size), **more)
        count -= 1


def _structured_conv() -> Iterator[_Configuration]:
    image = (2, 4, 9, 8)
    for k in (1, 2, 3, 5, (1, 3), (3, 1), (4, 2), (8, 7)):
        yield _conv(4, 3, k, image)
    for s in (2, 3, (1, 2), (3, 1), 10):
        yield _conv(4, 3, 3, image, stride=s)
    for p in (1, 2, (0, 2), (3, 1), 6, "same", "valid"):
        yield _conv(4, 3, 3, image, padding=p)
    for k, d in product((2, 4, (3, 2)), (1, 2, 3, (1, 2))):  # odd and even totals
        if not (k == 4 and d == 3):
            yield _conv(4, 3, k, image, padding="same", dilation=d)
    yield _conv(4, 3, 4, image, padding="valid", stride=2)
    for mode in ("reflect", "replicate", "circular"):
        for p in (1, (2, 3), "same", (0, 4)):
            yield _conv(4, 3, (3, 2), image, padding=p, padding_mode=mode)
        yield _conv(4, 4, 3, image, stride=2, padding=(3, 2), groups=2, padding_mode=mode)
        yield _conv(4, 4, 2, image, padding="same", dilation=3, padding_mode=mode)
        yield _conv(4, 2, 3, image[1:], padding=2, padding_mode=mode)
        yield _conv(4, 2, 3, (0, *image[1:]), padding=1, padding_mode=mode)
        yield _conv(4, 3, 3, image, padding=((2, 0), (1, 3)), padding_mode=mode)
    yield _conv(4, 2, 2, image, padding=(-1, -2), padding_mode="replicate")
    for p in (((1, 0), (0, 2)), ((0, 3), (2, 0)), ((2, 2), (0, 1))):
        yield _conv(4, 3, 3, image, padding=p)
        yield _conv(4, 3, (2, 3), image, padding=p, stride=2, dilation=2)
    for g, oc in ((2, 2), (2, 6), (4, 4), (4, 8)):
        yield _conv(4, oc, 3, image, groups=g, padding=1)
        yield _conv(4, oc, 2, image, groups=g, stride=2, bias=False)
    yield _conv(4, 3, 3, image[1:])
    yield _conv(4, 3, 2, image[1:], padding="same", bias=False)
    yield _conv(4, 3, 3, (0, 4, 9, 8), padding=1)
    yield _conv(4, 4, 3, (0, 4, 9, 8), stride=2, groups=2)
    yield _conv(1, 1, 1, (1, 1, 1, 1))
    yield _conv(3, 2, 1, (3, 3, 1, 1), bias=False)
    yield _conv(2, 3, (5, 6), (2, 2, 5, 6))
    yield _conv(1, 1, 3, (1, 1, 5, 5), padding=1, stride=2)


def _large_conv() -> Iterator[_Configuration]:
    """Sizes at which torch leaves its plain loops: 20,480 elements, 16 samples, 1x1, depthwise."""
    yield _conv(8, 12, 3, (1, 8, 56, 56), padding=1)
    yield _conv(8, 12, 3, (1, 8, 56, 56), padding=1, stride=2)
    yield _conv(8, 6, 3, (1, 8, 56, 56), padding=2, dilation=2)
    yield _conv(3, 16, 7, (1, 3, 96, 96), padding=3, stride=2, bias=False)
    yield _conv(64, 32, 1, (1, 64, 20, 20))
    yield _conv(64, 24, 1, (2, 64, 17, 19), stride=2, bias=False)
    yield _conv(33, 65, 1, (16, 33, 7, 7))
    yield _conv(17, 33, 3, (16, 17, 7, 7), padding=1)
    yield _conv(5, 7, 3, (16, 5, 13, 11), padding=1, stride=2, dilation=2)
    yield _conv(4, 8, (5, 4), (20, 4, 14, 14), padding="same")
    yield _conv(32, 32, 3, (1, 32, 28, 28), padding=1, groups=32)
    yield _conv(32, 32, 5, (2, 32, 28, 28), padding=2, stride=2, groups=32, bias=False)
    yield _conv(32, 64, 3, (1, 32, 28, 28), padding=2, dilation=2, groups=32)
    yield _conv(16, 32, 3, (2, 16, 40, 40), padding=1, groups=4)
    yield _conv(16, 16, 3, (1, 16, 40, 40), padding=(4, 1), dilation=(4, 1), stride=(1, 2))
    yield _conv(8, 8, 3, (1, 8, 56, 56), padding=2, padding_mode="reflect")
    yield _conv(8, 8, 3, (16, 8, 14, 14), padding=1, padding_mode="circular")
    yield _conv(2, 3, 3, (1, 2, 3, 5000))
    yield _conv(2, 3, 3, (1, 2, 5000, 3), stride=(2, 1))
    yield _conv(70, 40, 3, (1, 70, 19, 17), padding=1)
    yield _conv(128, 8, 3, (17, 128, 4, 4))
    yield _conv(4, 4, 11, (1, 4, 80, 80), stride=4, padding=2)
    yield _conv(4, 4, 11, (4, 80, 80), stride=3)


def _random_transpose(count: int, seed: int, wide: bool = False) -> Iterator[_Configuration]:
    draw = _Draw(seed)
    while count:
        k, s, d, p = draw.pair(1, 4), draw.pair(1, 3), draw.pair(1, 3), draw.pair(0, 2)
        g, (ic_g, oc_g), size = draw.number(1, 3), draw.pair(1, 4), draw.pair(1, 8)
        if wide and draw.often(0.4):
            (ic_g, oc_g), size = draw.pair(1, 20), (draw.number(1, 12), draw.number(1, 40))
        extra = tuple(draw.number(0, max(a, b) - 1) for a, b in zip(s, d, strict=True))
        out = [
            (n - 1) * a - 2 * q + b * (w - 1) + e + 1
            for n, a, q, b, w, e in zip(size, s, p, d, k, extra, strict=True)
        ]
        if min(out) >= 1:
            more: dict[str, Any] = {"stride": s, "padding": p, "output_padding": extra}
            more |= {"groups": g, "dilation": d}
            if draw.often(0.3):
                more["bias"] = False
            yield _conv(g * ic_g, g * oc_g, k, (*draw.batch(wide), g * ic_g, *size), **more)
            count -= 1


def _structured_transpose() -> Iterator[_Configuration]:
    image = (2, 4, 5, 6)
    windows = ((1, 1), (2, 2), (3, 1), (4, 2), (3, (2, 3)), ((1, 4), 1), (2, 4), ((3, 2), (1, 2)))
    for k, s in windows:
        yield _conv(4, 3, k, image, stride=s)
        yield _conv(4, 3, k, image, stride=s, padding=(0, 1) if k != 1 else 0, bias=False)
    yield _conv(4, 3, 3, image, stride=2, padding=1, output_padding=1)
    yield _conv(4, 3, 3, image, stride=3, output_padding=(2, 1))
    yield _conv(4, 3, 2, image, dilation=3, output_padding=2)
    yield _conv(4, 3, 3, image, stride=2, output_size=(12, 14))
    yield _conv(4, 3, 3, image, stride=2, output_padding=1, output_size=(2, 3, 11, 13))
    yield _conv(4, 3, 3, image[1:], stride=2, output_size=(11, 14))
    yield _conv(4, 3, 3, image, stride=(3, 2), padding=1, output_size=[15, 11])
    for g, oc in ((2, 2), (2, 6), (4, 4), (4, 8)):
        yield _conv(4, oc, 3, image, groups=g, stride=2, padding=1)
    yield _conv(4, 3, 3, image[1:], stride=2)
    yield _conv(4, 3, 3, (0, 4, 5, 6), stride=2)
    yield _conv(1, 1, 1, (1, 1, 1, 1))
    yield _conv(2, 3, (4, 5), (2, 2, 1, 1))
    yield _conv(1, 1, 3, (1, 1, 2, 2), stride=2, padding=1, output_padding=1)


def _large_transpose() -> Iterator[_Configuration]:
    yield _conv(32, 16, 4, (2, 32, 8, 8), stride=2, padding=1, bias=False)
    yield _conv(16, 8, 2, (2, 16, 28, 28), stride=2)
    yield _conv(20, 12, 4, (16, 20, 1, 1), bias=False)
    yield _conv(6, 5, 3, (17, 6, 9, 9), stride=2, padding=1, output_padding=1)
    yield _conv(8, 8, 3, (1, 8, 56, 56), padding=1)
    yield _conv(32, 32, 3, (1, 32, 28, 28), stride=2, padding=1, groups=32)
    yield _conv(16, 8, 3, (16, 16, 6, 7), dilation=2, groups=4)
    yield _conv(70, 33, 1, (1, 70, 19, 17), stride=2, output_padding=1)
    yield _conv(3, 2, (3, 5), (1, 3, 2, 3000), stride=(2, 1))
    yield _conv(8, 4, 5, (1, 8, 52, 52), stride=3, padding=2, output_padding=2)


def _random_pool(
    count: int, seed: int, average: bool, wide: bool = False
) -> Iterator[_Configuration]:
    draw = _Draw(seed)
    while count:
        k, s, d, size = draw.pair(1, 5), draw.pair(1, 4), draw.pair(1, 3), draw.pair(1, 13)
        if wide and draw.often(0.4):
            size = (draw.number(1, 20), draw.number(1, 70))
        p = (draw.number(0, k[0] // 2), draw.number(0, k[1] // 2))
        if average:
            d = (1, 1)
        # A dilated window over padding alone is left out: torch's index is then not in the plane.
        safe = all(b == 1 or q == 0 for b, q in zip(d, p, strict=True))
        if not safe or not all(_fits(*axis) for axis in zip(size, k, s, p, d, strict=True)):
            continue
        more: dict[str, Any] = {"stride": s, "padding": p, "ceil_mode": draw.often(0.5)}
        if average:
            more["count_include_pad"] = draw.often(0.5)
            if draw.often(0.3):
                more["divisor_override"] = (1, 3, 7, -2)[draw.number(0, 3)]
        else:
            more["dilation"] = d
        yield _pool(k, (*draw.batch(wide), draw.number(1, 3), *size), **more)
        count -= 1


def _structured_max() -> Iterator[_Configuration]:
    image = (2, 3, 9, 8)
    for k in (1, 2, 3, 5, (2, 3), (1, 4), (9, 8)):
        yield _pool(k, image)
    for s in (1, 2, 4, (1, 3), 20):
        yield _pool(3, image, stride=s)
        yield _pool(3, image, stride=s, padding=1, ceil_mode=True)
    yield _pool(3, image, stride=2, padding=(1, 0))
    yield _pool((4, 2), image, stride=1, padding=(2, 1))
    yield _pool(2, image, stride=1, dilation=2)
    yield _pool(3, image, stride=2, dilation=(1, 3), ceil_mode=True)
    yield _pool(3, image, stride=1, padding=1, dilation=2)
    yield _pool(2, image, stride=3, ceil_mode=True, return_indices=True)
    yield _pool(2, image[1:], return_indices=True)
    yield _pool(3, image[1:], stride=2, padding=1, ceil_mode=True)
    yield _pool(2, (0, 3, 6, 6), return_indices=True)
    yield _pool(2, (0, 3, 6, 6))
    yield _pool(1, (1, 1, 1, 1))


def _large_max() -> Iterator[_Configuration]:
    yield _pool(3, (2, 16, 56, 56), stride=2, padding=1)
    yield _pool(2, (16, 5, 40, 39))
    yield _pool(2, (2, 16, 41, 41), stride=2, ceil_mode=True)
    yield _pool(13, (1, 8, 60, 60), stride=1, padding=6)
    yield _pool(3, (1, 2, 5, 5000), stride=1, padding=1)
    yield _pool((2, 5), (1, 64, 30, 31), stride=(1, 3), dilation=(3, 2))


def _structured_average() -> Iterator[_Configuration]:
    image = (2, 3, 9, 8)
    for k in (1, 2, 3, 5, (2, 3), (1, 4), (9, 8)):
        yield _pool(k, image)
    for include, ceil in product((True, False), (True, False)):
        both = {"count_include_pad": include, "ceil_mode": ceil}
        for k, s, p in ((3, 2, 1), (4, 3, 2), ((1, 2), 2, (0, 1)), (2, 3, 0), (5, (4, 3), (2, 1))):
            yield _pool(k, image, stride=s, padding=p, **both)
        yield _pool(3, image, stride=2, padding=1, divisor_override=5, **both)
    yield _pool(3, image, stride=1, divisor_override=-2)
    yield _pool(2, image[1:])
    yield _pool(3, image[1:], stride=2, padding=1, ceil_mode=True)
    yield _pool(2, (0, 3, 6, 6))
    yield _pool(1, (1, 1, 1, 1))


def _large_average() -> Iterator[_Configuration]:
    yield _pool(3, (2, 16, 56, 56), stride=2, padding=1)
    yield _pool(2, (16, 5, 40, 39))
    yield _pool(7, (2, 64, 7, 7))
    yield _pool(3, (2, 16, 41, 41), stride=2, ceil_mode=True, count_include_pad=False)
    yield _pool(3, (1, 2, 5, 5000), stride=1, padding=1)


_Groups = list[tuple[str, Iterator[_Configuration], bool]]


def _cases(groups: _Groups) -> list[Case]:
    """Give every configuration both dtypes, each with another kind of numbers."""
    seen: dict[str, Case] = {}
    for layer, configurations, sampled in groups:
        kinds = ["integer", "real"] + ["nan", "infinite"] * (layer == "MaxPool2d")
        for number, (arguments, shape, call) in enumerate(configurations):
            for turn, dtype in enumerate(("float32", "float64")):
                values = kinds[(number + turn) % len(kinds)]
                case = Case(layer, arguments, shape, dtype, values, sampled, call)
                seen.setdefault(case.name, case)
    return list(seen.values())


def random_cases(count: int, seed: int) -> list[Case]:
    """Twice `count` cases for each layer that are in no golden file."""
    return _cases(
        [
            ("Conv2d", _random_conv(count, seed, wide=True), False),
            ("ConvTranspose2d", _random_transpose(count, seed, wide=True), False),
            ("MaxPool2d", _random_pool(count, seed, average=False, wide=True), False),
            ("AvgPool2d", _random_pool(count, seed, average=True, wide=True), False),
        ]
    )


CASES = _cases(
    [
        ("Conv2d", _random_conv(55, 20261), False),
        ("Conv2d", _structured_conv(), False),
        ("Conv2d", _large_conv(), True),
        ("ConvTranspose2d", _random_transpose(45, 20262), False),
        ("ConvTranspose2d", _structured_transpose(), False),
        ("ConvTranspose2d", _large_transpose(), True),
        ("MaxPool2d", _random_pool(35, 20263, average=False), False),
        ("MaxPool2d", _structured_max(), False),
        ("MaxPool2d", _large_max(), True),
        ("AvgPool2d", _random_pool(35, 20264, average=True), False),
        ("AvgPool2d", _structured_average(), False),
        ("AvgPool2d", _large_average(), True),
    ]
)
