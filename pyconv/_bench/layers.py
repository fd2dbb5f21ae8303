"""Layers of real networks, the rows that are measured on them, and what each row costs."""

from __future__ import annotations

import csv
import dataclasses
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

SHORT = Path(__file__).with_name("short.csv")

# torch computes float64 convolutions through columns, which hold kh*kw copies of the input. Batches
# are halved until they take less than this, so that a machine with 16 GB can run all rows.
MOST_COLUMNS = 6e9

POOLS = ("maxpool", "avgpool")


@dataclasses.dataclass(frozen=True)
class Layer:
    """A line of shapes.csv. C, H, W are the input of the layer, K, OH, OW its output."""

    id: int
    network: str
    layer: str
    op: str  # conv, deconv, maxpool, avgpool
    C: int
    H: int
    W: int
    K: int
    kh: int
    kw: int
    sh: int
    sw: int
    ph: int
    pw: int
    dh: int
    dw: int
    groups: int
    oph: int
    opw: int
    OH: int
    OW: int
    batches: tuple[int, ...]
    passes: tuple[str, ...]

    def __post_init__(self) -> None:
        for size, out, window in (
            (self.H, self.OH, (self.kh, self.sh, self.ph, self.dh, self.oph)),
            (self.W, self.OW, (self.kw, self.sw, self.pw, self.dw, self.opw)),
        ):
            kernel, stride, padding, dilation, extra = window
            reach = dilation * (kernel - 1) + 1 - 2 * padding
            if self.op == "deconv":
                expected = (size - 1) * stride + reach + extra
            else:
                expected = (size - reach) // stride + 1
            if out != expected:
                raise ValueError(f"{self.name}: the output has {expected} pixels, not {out}")

    @property
    def name(self) -> str:
        """Network and layer."""
        return f"{self.network}/{self.layer}"

    @property
    def kind(self) -> str:
        """The operator, convolutions told apart by their groups."""
        if self.op != "conv":
            return self.op
        if self.groups == 1:
            return "dense"
        return "depthwise" if self.groups == self.C else "grouped"

    def flops(self, n: int) -> float:
        """Operations of any pass of a convolution, padding counted as if it were input."""
        if self.op in POOLS:
            return 0.0
        pixels = self.H * self.W if self.op == "deconv" else self.OH * self.OW
        return 2.0 * n * self.K * (self.C // self.groups) * self.kh * self.kw * pixels

    def bytes(self, pass_: str, n: int, itemsize: int) -> int:
        """Compulsory traffic: every input once, every output once."""
        x, y = n * self.C * self.H * self.W, n * self.K * self.OH * self.OW
        weight = 0 if self.op in POOLS else self.C * self.K // self.groups * self.kh * self.kw
        indices = 8 * y if pass_ == "fwd_indices" or (self.op, pass_) == ("maxpool", "bwd") else 0
        return (x + y + weight) * itemsize + indices

    def columns(self, n: int) -> int:
        """Bytes of what torch unfolds for a float64 convolution."""
        if self.op in POOLS:
            return 0
        channels, pixels = (
            (self.K, self.H * self.W) if self.op == "deconv" else (self.C, self.OH * self.OW)
        )
        return 8 * n * channels * self.kh * self.kw * pixels

    def all_passes(self) -> tuple[str, ...]:
        """The passes of the file, and for max pooling the values with their indices."""
        if self.op == "maxpool" and "fwd" in self.passes:
            return ("fwd", "fwd_indices", *self.passes[1:])
        return self.passes


class Row(NamedTuple):
    """What is measured, and comes back as one line."""

    layer: Layer
    n: int
    dtype: str
    pass_: str
    threads: int

    @property
    def key(self) -> tuple[str, ...]:
        """What tells it from all others, as a file of results has it."""
        names = (self.layer.network, self.layer.layer, self.pass_)
        return (*names, str(self.n), self.dtype, str(self.threads))

    @property
    def name(self) -> str:
        """For reading."""
        dtype = self.dtype.replace("float", "f")
        return f"{self.layer.name} {self.pass_} n={self.n} {dtype} t{self.threads}"


class Choice(NamedTuple):
    """Which rows are wanted; an empty tuple stands for all."""

    networks: tuple[str, ...] = ()
    layers: tuple[str, ...] = ()  # parts of network/layer
    ops: tuple[str, ...] = ()  # operators or kinds
    passes: tuple[str, ...] = ()
    batches: tuple[int, ...] = ()
    dtypes: tuple[str, ...] = ("float32", "float64")
    threads: tuple[int, ...] = (1, 2)


def read_layers(path: Path) -> list[Layer]:
    """Return the layers of a file like shapes.csv; columns that are not needed may be there."""
    names = [field.name for field in dataclasses.fields(Layer)]
    with path.open(newline="", encoding="utf-8") as file:
        layers = []
        for line in csv.DictReader(file):
            values: dict[str, object] = {name: line[name] for name in names}
            for name in names:
                if name not in ("network", "layer", "op", "batches", "passes"):
                    values[name] = int(line[name])
            values["batches"] = tuple(map(int, line["batches"].split(";")))
            values["passes"] = tuple(line["passes"].split(";"))
            layers.append(Layer(**values))  # type: ignore[arg-type]
    return layers


def capped(layer: Layer, n: int, dtype: str) -> int:
    """Halve a batch until torch's columns fit."""
    while dtype == "float64" and n > 1 and layer.columns(n) > MOST_COLUMNS:
        n //= 2
    return n


def rows_of(layers: Iterable[Layer], choice: Choice) -> Iterator[Row]:
    """Yield the rows that are wanted; those that share their data follow one another."""
    for layer in layers:
        if (
            (choice.networks and layer.network not in choice.networks)
            or (choice.layers and not any(part in layer.name for part in choice.layers))
            or (choice.ops and not {layer.op, layer.kind} & set(choice.ops))
        ):
            continue
        for dtype in choice.dtypes:
            wanted = [n for n in layer.batches if not choice.batches or n in choice.batches]
            for n in dict.fromkeys(capped(layer, n, dtype) for n in wanted):
                for pass_ in layer.all_passes():
                    if not choice.passes or pass_ in choice.passes:
                        for threads in choice.threads:
                            yield Row(layer, n, dtype, pass_, threads)
