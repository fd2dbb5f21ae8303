"""Cases for the layers around the four: Conv1d, BatchNorm2d, ReLU, AdaptiveAvgPool2d.

As in cases.py a case is a layer's arguments and an input's shape, and its numbers come from a seed.
A BatchNorm2d is called three times in training mode, each time with another batch, and then once in
eval mode: the results are those of the last two calls and what the layer has become.
"""

import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np

LAYERS = ("Conv1d", "BatchNorm2d", "ReLU", "AdaptiveAvgPool2d")
BATCHES = 3


@dataclass(frozen=True)
class Around:
    """Some calls of one layer, forward and backward."""

    layer: str
    arguments: dict[str, Any]
    shape: tuple[int, ...]
    dtype: str
    values: str  # "integer", "real"; for ReLU also "special", for BatchNorm2d "far"

    @property
    def name(self) -> str:
        arguments = ", ".join(f"{k}={v!r}" for k, v in self.arguments.items())
        shape = "x".join(map(str, self.shape))
        return f"{self.layer}({arguments})({shape}) {self.dtype} {self.values}"

    @property
    def exact(self) -> bool:
        """Whether any right implementation gives the same bits."""
        return self.layer == "ReLU" or (self.values == "integer" and self.layer == "Conv1d")

    def numbers(self, what: str, shape: tuple[int, ...]) -> np.ndarray:
        """The case's own array called `what`."""
        stream = np.random.RandomState(zlib.crc32(f"{what} of {self.name}".encode()))
        uniform = stream.random_sample(shape)
        if self.values == "integer":
            return (np.floor(9 * uniform) - 4).astype(self.dtype)
        result = 2 * uniform - 1
        if self.values == "far" and what.startswith("input"):
            result = 1000 + result
        if self.values == "special" and what.startswith("input"):
            rare = stream.choice([np.nan, np.inf, -np.inf, 0.0, -0.0], shape)
            result = np.where(stream.random_sample(shape) < 0.4, rare, result)
        return result.astype(self.dtype)

    def batches(self) -> list[np.ndarray]:
        """The inputs, in order; a layer without a state gets one."""
        count = BATCHES + 1 if self.layer == "BatchNorm2d" else 1
        return [self.numbers(f"input {i}", self.shape) for i in range(count)]


_Configuration = tuple[dict[str, Any], tuple[int, ...]]


def _conv1d() -> Iterator[_Configuration]:
    def conv(ic: int, oc: int, k: Any, shape: tuple[int, ...], **more: Any) -> _Configuration:
        return {"in_channels": ic, "out_channels": oc, "kernel_size": k, **more}, shape

    for k in (1, 2, 3, 8, (5,)):
        yield conv(4, 3, k, (2, 4, 11))
    for stride, padding, dilation in product((1, 3), (0, 2), (1, 2)):
        options = {"stride": stride, "padding": padding, "dilation": dilation}
        yield conv(4, 6, 3, (2, 4, 21), groups=2, **options)
    for mode in ("reflect", "replicate", "circular"):
        yield conv(3, 2, 4, (2, 3, 9), padding=3, padding_mode=mode)
        yield conv(3, 2, 3, (3, 9), padding="same", padding_mode=mode)
    yield conv(3, 2, 4, (2, 3, 9), padding="same", dilation=2)
    yield conv(3, 2, 4, (2, 3, 9), padding="valid", bias=False)
    yield conv(4, 4, 3, (4, 17), groups=4, stride=(2,), padding=(1,))
    yield conv(4, 3, 3, (0, 4, 9))
    yield conv(16, 24, 9, (1, 16, 200), padding=4)
    yield conv(2, 3, 31, (17, 2, 101), stride=2)


def _batch_norm() -> Iterator[_Configuration]:
    for shape in ((4, 3, 5, 6), (2, 5, 1, 1), (1, 4, 7, 7), (33, 2, 3, 3), (2, 3, 20, 31)):
        yield {"num_features": shape[1]}, shape
    shape = (3, 4, 6, 5)
    for options in (
        {"eps": 1e-3},
        {"momentum": 0.5},
        {"momentum": None},
        {"affine": False},
        {"bias": False},
        {"track_running_stats": False},
        {"track_running_stats": False, "affine": False},
        {"momentum": 1.0, "eps": 0.25, "bias": False},
    ):
        yield {"num_features": 4, **options}, shape
    yield {"num_features": 3}, (0, 3, 4, 4)
    yield {"num_features": 70}, (2, 70, 4, 4)


def _relu() -> Iterator[_Configuration]:
    for shape in ((), (7,), (2, 3), (3, 4, 5), (2, 3, 4, 5), (1, 2, 3, 2, 2), (0, 3), (2, 3, 70)):
        yield {}, shape
    yield {"inplace": True}, (3, 33)


def _adaptive() -> Iterator[_Configuration]:
    sizes = (1, 2, 3, 5, 7, (1, 4), (6, 1), (None, 2), (3, None), (8, 9), (None, None), [4, 2])
    for size in sizes:
        yield {"output_size": size}, (2, 3, 7, 9)
    for size, shape in ((1, (2, 5, 7, 7)), (6, (3, 2, 13, 13)), (4, (3, 12, 12)), (3, (2, 1, 9))):
        yield {"output_size": size}, shape
    yield {"output_size": 2}, (0, 3, 5, 5)
    yield {"output_size": (2, 5)}, (1, 2, 30, 61)


def _cases() -> list[Around]:
    groups = (_conv1d, _batch_norm, _relu, _adaptive)
    kinds = {"ReLU": ("special", "real"), "BatchNorm2d": ("real", "far", "integer")}
    found = []
    for layer, group in zip(LAYERS, groups, strict=True):
        for number, (arguments, shape) in enumerate(group()):
            for turn, dtype in enumerate(("float32", "float64")):
                kind = kinds.get(layer, ("integer", "real"))
                values = kind[(number + turn) % len(kind)]
                found.append(Around(layer, arguments, shape, dtype, values))
    return found


CASES = _cases()
