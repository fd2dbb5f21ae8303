"""How a layer would compute: what the C code plans, for reading. See ``explain_plan``.

The C part says what it would do as dicts (csrc/py/explain.c); here they get names and a text. No
plan is made here: whatever a number says, the C code's own struct says.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import numpy as np

__all__ = ["LayerPlan", "PassPlan"]


@dataclass(frozen=True)
class PassPlan:
    """How one pass of a layer would compute.

    Attributes
    ----------
    name : str
        'forward', 'backward_input', 'backward_weight', or 'forward_indices'.
    primitive : str
        The pass of the C code that does it: a transposed convolution's forward is a
        'backward_input'.
    algorithm : str
        What fixes the bits: 'direct'.
    family : str
        What kind of loop it is: 'dense tile', 'weight tile', 'pixel', 'rows', 'whole planes',
        'scatter', or 'nothing to do'.
    form : str
        Which one of the family, such as 'rows run on'; may be empty.
    kernel : str or None
        The kernel that does the arithmetic, as csrc/kernels/kernels.def names it. None: a loop
        without a kernel.
    isa : str
        The instruction set.
    phases : int
        An input gradient with a stride has one for each remainder of a pixel modulo the stride;
        everything else has one.
    tile : (int, int) or None
        Rows and vectors that are kept in registers. None: the kernel decides.
    blocks : mapping from str to int
        How the loops are cut, in the words of the C code (csrc/ops).
    items : int or None
        What threads take one after the other. None: too many to be counted.
    threads : int
    scratch_per_thread, scratch_shared : int
        Bytes of memory that the call borrows.
    flops : int
        Two for each multiply-add, those with padding counted as well; 0 for a pool.
    bytes : int
        Each tensor once.
    """

    name: str
    primitive: str
    algorithm: str
    family: str
    form: str
    kernel: str | None
    isa: str
    phases: int
    tile: tuple[int, int] | None
    blocks: Mapping[str, int]
    items: int | None
    threads: int
    scratch_per_thread: int
    scratch_shared: int
    flops: int
    bytes: int

    @property
    def intensity(self) -> float:
        """FLOP for each byte."""
        return self.flops / max(1, self.bytes)

    @property
    def limit(self) -> str:
        """What a machine's balance, its peak FLOP/s over its memory's bytes/s, makes the limit."""
        if self.flops == 0:
            return "memory bound"
        ratio = f"{self.intensity:.1f} FLOP a byte"
        return f"compute bound below a balance of {ratio}, memory bound above"

    def __str__(self) -> str:
        """A few lines of text."""
        if self.phases == 0:
            return f"{self.name}: {self.family}"
        lines = list(self._lines())
        width = max(len(name) for name, _ in lines)
        text = [f"    {name:<{width}}  {value}" for name, value in lines]
        form = f", {self.form}" if self.form else ""
        return "\n".join([f"{self.name}: {self.algorithm}, {self.family}{form}", *text])

    def _lines(self) -> Iterator[tuple[str, str]]:
        if self.primitive != self.name:
            yield "runs as", f"a convolution's {self.primitive}"
        kernel = self.kernel or "none, a scalar loop"
        if self.tile:
            kernel += f", {self.tile[0]} rows x {self.tile[1]} vectors"
        yield "kernel", kernel
        if self.blocks:
            yield "blocks", ", ".join(f"{name} {value}" for name, value in self.blocks.items())
        items = "many items" if self.items is None else _many(self.items, "item")
        phases = f" of {self.phases} phases" if self.phases > 1 else ""
        yield "work", f"{items}{phases} for {_many(self.threads, 'thread')}"
        yield (
            "scratch",
            f"{self.scratch_per_thread:,} bytes a thread, {self.scratch_shared:,} shared",
        )
        yield "cost", f"{self.flops:,} FLOP, {self.bytes:,} bytes"
        yield "limit", self.limit


@dataclass(frozen=True)
class LayerPlan:
    """What ``explain_plan`` returns; prints as a text.

    Attributes
    ----------
    layer : str
        As the layer prints.
    input_shape, output_shape : tuple of int
    dtype : str
    forward, backward_input : PassPlan
    backward_weight : PassPlan or None
        None for a pool.
    forward_indices : PassPlan or None
        A max pool's forward that also returns indices, as training needs them.
    """

    layer: str
    input_shape: tuple[int, ...]
    output_shape: tuple[int, ...]
    dtype: str
    forward: PassPlan
    backward_input: PassPlan
    backward_weight: PassPlan | None = None
    forward_indices: PassPlan | None = None

    @property
    def passes(self) -> tuple[PassPlan, ...]:
        """Those that there are."""
        all_passes = (
            self.forward,
            self.forward_indices,
            self.backward_input,
            self.backward_weight,
        )
        return tuple(found for found in all_passes if found is not None)

    def __str__(self) -> str:
        """Every pass in a few lines."""
        isa = self.forward.isa
        head = f"{self.layer}: {self.input_shape} -> {self.output_shape}, {self.dtype}, {isa}"
        return "\n".join([head, *map(str, self.passes)])


def _many(number: int, noun: str) -> str:
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"


def made(
    layer: Any,
    input_shape: tuple[int, ...],
    output_shape: tuple[int, ...],
    dtype: Any,
    passes: Sequence[dict[str, Any]],
) -> LayerPlan:
    """Put names to what the C part says of a layer."""
    is_pool = not hasattr(layer, "weight")
    used = np.dtype(getattr(layer, "dtype", np.float32) if dtype is None else dtype)
    outputs = math.prod(output_shape)
    elements = math.prod(input_shape) + outputs + (0 if is_pool else layer.weight.size)
    plans = {}
    for values in passes:
        fields = dict(values)
        work = fields.pop("work")
        fields["blocks"] = MappingProxyType(fields["blocks"])
        indices = fields["name"] == "forward_indices" or fields["family"] == "scatter"
        plans[fields["name"]] = PassPlan(
            algorithm="direct",
            flops=0 if is_pool else 2 * work,
            bytes=elements * used.itemsize + (8 * outputs if indices else 0),
            **fields,
        )
    return LayerPlan(repr(layer), input_shape, output_shape, used.name, **plans)
