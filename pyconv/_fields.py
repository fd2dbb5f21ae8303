"""Receptive fields: which input positions an output position sees, exactly and without data.

Along one axis a layer is a :class:`Steps`: output ``i`` sees the inputs ``first(i)`` to
``last(i)``, and ``period`` outputs further on the same happens ``advance`` inputs further on. A
convolution has period 1 and its stride as advance; a transposed one the other way round. Steps
after steps are steps, and so are steps beside steps, so that the field of a network needs no bounds
and no probing. Periods are never shortened: the tiles of a network must begin where all its layers
begin anew.

A *field* is a tuple of Steps, one for each of the last axes, or WHOLE where an output may see
everything, or None where nobody knows.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Final

LONGEST = 4096  # a longer period is not followed


class _Whole:
    def __repr__(self) -> str:
        return "WHOLE"


WHOLE: Final = _Whole()


@dataclass(frozen=True)
class Steps:
    """See the top of the file; ``lows`` and ``highs`` are for the outputs of one period."""

    period: int
    advance: int
    lows: tuple[int, ...]
    highs: tuple[int, ...]

    def first(self, i: int) -> int:
        """The first input that output ``i`` sees, perhaps in the padding before the image."""
        block, rest = divmod(i, self.period)
        return self.lows[rest] + block * self.advance

    def last(self, i: int) -> int:
        """The last input that output ``i`` sees."""
        block, rest = divmod(i, self.period)
        return self.highs[rest] + block * self.advance

    @property
    def size(self) -> int:
        """How many inputs an output sees at most."""
        return max(high - low + 1 for low, high in zip(self.lows, self.highs, strict=True))


SAME = Steps(1, 1, (0,), (0,))


def window(kernel: int, stride: int, before: int, dilation: int) -> Steps:
    """A convolution or a pool."""
    return Steps(1, stride, (-before,), (dilation * (kernel - 1) - before,))


def transposed(kernel: int, stride: int, before: int, dilation: int) -> Steps | None:
    """A transposed convolution: input ``i`` goes to the outputs ``i*stride - before + tap``."""
    if stride > LONGEST:
        return None
    reach = dilation * (kernel - 1)
    lows = tuple(-(-(o + before - reach) // stride) for o in range(stride))
    highs = tuple((o + before) // stride for o in range(stride))
    return Steps(stride, 1, lows, highs)


def adaptive(n: int, out: int) -> Steps | None:
    """An adaptive pool from ``n`` to ``out``: ``floor(i*n/out)`` to ``ceil((i + 1)*n/out) - 1``."""
    if not n or not out:
        return None
    common = math.gcd(n, out)
    period, advance = out // common, n // common
    if period > LONGEST:
        return None
    lows = tuple(i * n // out for i in range(period))
    highs = tuple(-(-(i + 1) * n // out) - 1 for i in range(period))
    return Steps(period, advance, lows, highs)


def after(outer: Steps, inner: Steps) -> Steps | None:
    """What ``outer`` sees of the input of ``inner``, whose outputs are its inputs."""
    period = outer.period * (inner.period // math.gcd(inner.period, outer.advance))
    if period > LONGEST:
        return None
    advance = inner.advance * (outer.advance * (period // outer.period) // inner.period)
    lows = tuple(inner.first(outer.first(i)) for i in range(period))
    highs = tuple(inner.last(outer.last(i)) for i in range(period))
    return Steps(period, advance, lows, highs)


def beside(a: Steps, b: Steps) -> Steps | None:
    """What is seen by an output to which both paths lead."""
    period = math.lcm(a.period, b.period)
    advance = a.advance * (period // a.period)
    if period > LONGEST or advance != b.advance * (period // b.period):
        return None
    lows = tuple(min(a.first(i), b.first(i)) for i in range(period))
    highs = tuple(max(a.last(i), b.last(i)) for i in range(period))
    return Steps(period, advance, lows, highs)


# ---- fields, for all axes at once ----

Field = Any  # tuple[Steps, ...], WHOLE or None


def chain(outer: Field, inner: Field) -> Field:
    """The field of a layer with the field ``outer`` whose input has the field ``inner``."""
    if outer is None or inner is None:
        return None
    if outer is WHOLE or inner is WHOLE:
        return WHOLE
    if len(outer) != len(inner):
        return None
    return _all(after(o, i) for o, i in zip(outer, inner, strict=True))


def union(fields: list[Field]) -> Field:
    """The field of what is computed, position by position, from several arrays."""
    if not fields or any(field is None for field in fields):
        return None
    if any(field is WHOLE for field in fields):
        return WHOLE
    total = fields[0]
    for field in fields[1:]:
        if total is None or len(total) != len(field):
            return None
        total = _all(beside(a, b) for a, b in zip(total, field, strict=True))
    return total


def _all(steps: Any) -> Field:
    found = tuple(steps)
    return None if any(s is None for s in found) else found


def shifted(pad: Any, ndim: int) -> Field:
    """The field of ``functional.pad``, for all axes of an array."""
    before = [*pad[::2], *[0] * ndim][:ndim]
    return tuple(window(1, 1, n, 1) for n in reversed(before))


def kind_of(layer: Any) -> str:
    """The kind of a layer of pyconv; '' for a map."""
    return next((c.__name__ for c in type(layer).__mro__ if c.__name__ in _KINDS), "")


def field_of(
    kind: str, layer: Any, shape: tuple[int, ...], out_shape: tuple[int, ...]
) -> Field | str:
    """The field of one layer, from its arguments; "same" for a map."""
    if kind == "AdaptiveAvgPool2d":
        axes = zip(shape[-2:], out_shape[-2:], strict=True)
        return _all(adaptive(n, out) for n, out in axes)
    if kind in ("Linear", "Flatten", "Softmax"):
        return WHOLE if kind != "Softmax" or layer.dim not in (1, -3) else "same"
    if not kind:
        return "same"
    n = 1 if kind == "Conv1d" else 2
    kernel, stride = _each(layer.kernel_size, n), _each(layer.stride, n)
    dilation = _each(getattr(layer, "dilation", 1), n)
    if layer.padding == "same":
        before = [d * (k - 1) // 2 for d, k in zip(dilation, kernel, strict=True)]
    elif layer.padding == "valid":
        before = [0] * n
    else:
        before = [p[0] if isinstance(p, (tuple, list)) else p for p in _each(layer.padding, n)]
    make = transposed if kind == "ConvTranspose2d" else window
    return _all(
        make(*arguments) for arguments in zip(kernel, stride, before, dilation, strict=True)
    )


_KINDS = (
    "AdaptiveAvgPool2d",
    "AvgPool2d",
    "Conv1d",
    "Conv2d",
    "ConvTranspose2d",
    "Flatten",
    "Linear",
    "MaxPool2d",
    "Softmax",
)


def _each(value: Any, n: int) -> list[Any]:
    values = list(value) if isinstance(value, (tuple, list)) else [value]
    return values * n if len(values) == 1 else values
