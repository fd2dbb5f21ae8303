"""What a model consists of and costs, and what its outputs see; all without computing it.

:func:`summary` makes the table, :func:`receptive_field` the numbers behind one of its columns, and
``model.overlap()`` what one needs to cut a large image into tiles.
"""

from __future__ import annotations

import html
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from pyconv._fields import WHOLE, Field
from pyconv._trace import trace

if TYPE_CHECKING:
    from pyconv._trace import Call
    from pyconv.module import Module

__all__ = ["Overlap", "ReceptiveField", "Row", "Summary", "receptive_field", "summary"]


class ReceptiveField(NamedTuple):
    """Which part of the input an output position sees; one entry for each axis of the image."""

    size: tuple[int, ...]
    """How many input positions an output sees at most."""
    stride: tuple[float, ...]
    """How many input positions lie between neighbouring outputs; below 1 after upsampling."""
    offset: tuple[int, ...]
    """The first input that output 0 sees; negative in the padding before the image."""


class Overlap(NamedTuple):
    """How an image may be cut into tiles; one entry for each axis of the image."""

    halo: tuple[tuple[int, int], ...]
    """How much of its neighbours a tile needs before and behind itself."""
    stride: tuple[int, ...]
    """Of what the size and the place of a tile must be a multiple."""
    output_stride: tuple[int, ...]
    """How many outputs belong to ``stride`` inputs."""


@dataclass(frozen=True)
class Row:
    """One call of one module or function.

    Attributes
    ----------
    name : str
        The dotted name; empty for the model itself. Of a function: ``conv2d()``, behind the name of
        the module whose forward calls it.
    kind : str
        The name of the class; ``conv2d()`` for a function.
    depth : int
        How deep it is nested; 0 for the model itself.
    leaf : bool
        Whether it is a layer or a function, and not a container. Costs are those of leaves.
    input_shape, output_shape : tuple of int
    parameters : int
        Those of this module and not of its children; 0 if it has been called before.
    macs : int
    activation_bytes : int
        What the output takes; 0 for a container.
    receptive_field : ReceptiveField or None
        With respect to the input of the model. None where it cannot be followed.
    repeated : bool
        Whether the module has been called before.
    """

    name: str
    kind: str
    depth: int
    leaf: bool
    input_shape: tuple[int, ...]
    output_shape: tuple[int, ...]
    parameters: int
    macs: int
    activation_bytes: int
    receptive_field: ReceptiveField | None
    repeated: bool


@dataclass(frozen=True)
class Summary:
    """What :func:`summary` returns: rows and totals, which print as a table.

    Attributes
    ----------
    rows : tuple of Row
        In the order of the calls, a container before what it calls.
    parameters, trainable_parameters : int
    macs : int
        Multiplications of one forward.
    input_bytes, activation_bytes, parameter_bytes : int
    not_counted : tuple of str
        What multiplies as well, but not in a way that can be counted; ``macs`` is without it.
    """

    rows: tuple[Row, ...]
    parameters: int
    trainable_parameters: int
    macs: int
    input_bytes: int
    activation_bytes: int
    parameter_bytes: int
    not_counted: tuple[str, ...] = ()

    def _table(self) -> list[tuple[str, ...]]:
        """The cells, as text; the first line are the headings."""
        lines: list[tuple[str, ...]] = [_HEADINGS]
        counts: dict[int, int] = {}
        for row in self.rows:
            counts[row.depth] = counts.get(row.depth, 0) + 1
            place = f": {row.depth}-{counts[row.depth]}" if row.depth else ""
            branch = "│    " * (row.depth - 1) + "├─" if row.depth else ""
            own = "(again)" if row.repeated and row.parameters == 0 else _number(row.parameters)
            lines.append(
                (
                    f"{branch}{row.kind}{place}",
                    str(list(row.output_shape)),
                    own,
                    _number(row.macs),
                    _number(row.activation_bytes),
                    _field_text(row.receptive_field),
                )
            )
        return lines

    def _totals(self) -> list[tuple[str, str]]:
        return [
            ("Total params", f"{self.parameters:,}"),
            ("Trainable params", f"{self.trainable_parameters:,}"),
            ("Non-trainable params", f"{self.parameters - self.trainable_parameters:,}"),
            ("Multiply-adds", f"{self.macs:,}"),
            ("Input bytes", f"{self.input_bytes:,}"),
            ("Activation bytes", f"{self.activation_bytes:,}"),
            ("Parameter bytes", f"{self.parameter_bytes:,}"),
            *(("Multiply-adds not counted", what) for what in self.not_counted),
        ]

    def __str__(self) -> str:
        table = self._table()
        widths = [max(len(line[i]) for line in table) for i in range(len(_HEADINGS))]
        lines = [
            "  ".join(
                cell.ljust(width) if i < 2 else cell.rjust(width)
                for i, (cell, width) in enumerate(zip(line, widths, strict=True))
            ).rstrip()
            for line in table
        ]
        rule = "=" * (sum(widths) + 2 * (len(widths) - 1))
        totals = [f"{name}: {value}" for name, value in self._totals()]
        return "\n".join([rule, lines[0], rule, *lines[1:], rule, *totals, rule])

    __repr__ = __str__

    def _repr_html_(self) -> str:
        head, *body = self._table()
        left = "text-align:left;padding:1px 10px;white-space:pre"
        right = "text-align:right;padding:1px 10px"

        def cells(tag: str, line: Sequence[str]) -> str:
            return "".join(
                f'<{tag} style="{left if i < 2 else right}">{html.escape(cell)}</{tag}>'
                for i, cell in enumerate(line)
            )

        rows = "".join(f"<tr>{cells('td', line)}</tr>" for line in body)
        totals = "<br>".join(f"{name}: {value}" for name, value in self._totals())
        return (
            f'<table style="border-collapse:collapse"><thead><tr>{cells("th", head)}</tr></thead>'
            f"<tbody>{rows}</tbody></table><div>{totals}</div>"
        )


_HEADINGS = (
    "Layer (type: depth-number)",
    "Output shape",
    "Params",
    "Multiply-adds",
    "Activation bytes",
    "Receptive field",
)


def _number(n: int) -> str:
    return f"{n:,}" if n else "--"


def _field_text(found: ReceptiveField | None) -> str:
    return "?" if found is None else " x ".join(map(str, found.size))


def summary(model: Module, input_shape: Sequence[Any]) -> Summary:
    """Tell what a model consists of and costs, layer by layer; nothing is computed.

    A forward of one's own is followed, too: it runs on zeros, and each layer that it calls makes a
    row, as does each function of :mod:`pyconv.functional`, and ``@``. NumPy's maps, slices and
    reshapes make none, but the receptive fields know them. What else NumPy multiplies
    (:func:`numpy.einsum`, for one), and a layer whose forward is overridden, is named in the end
    as not counted.

    Parameters
    ----------
    model : Module
    input_shape : sequence of int, or of such sequences
        The shape of the input; several if forward takes several.

    Returns
    -------
    Summary
        It prints as a table, and has the numbers as ``rows`` and totals.

    Raises
    ------
    TypeError, ValueError
        If the shape is none, or does not fit; as a call with such an input would.

    Examples
    --------
    >>> import pyconv
    >>> net = pyconv.Sequential(
    ...     pyconv.Conv2d(1, 8, 3), pyconv.ReLU(), pyconv.Flatten(), pyconv.Linear(288, 10)
    ... )
    >>> table = pyconv.summary(net, (1, 1, 8, 8))
    >>> table.parameters, table.macs
    (2970, 5472)
    >>> for row in table.rows:
    ...     print(row.name, row.kind, row.output_shape)
     Sequential (1, 10)
    0 Conv2d (1, 8, 6, 6)
    1 ReLU (1, 8, 6, 6)
    2 Flatten (1, 288)
    3 Linear (1, 10)

    Notes
    -----
    Multiply-adds are counted as :meth:`Module.macs` says.
    """
    tracer = trace(model, input_shape)
    calls = tracer.calls
    image = calls[0].input_shape
    rows = tuple(
        Row(
            call.name,
            call.kind,
            call.depth,
            call.leaf,
            call.input_shape,
            call.output_shape,
            _own_parameters(call),
            call.macs,
            math.prod(call.output_shape) * call.itemsize if call.leaf else 0,
            _receptive_field(call.field, image),
            call.again,
        )
        for call in calls
    )
    parameters = list(model.parameters())
    itemsize = parameters[0].dtype.itemsize if parameters else 4
    many = bool(len(input_shape)) and isinstance(input_shape[0], (tuple, list))
    return Summary(
        rows,
        sum(p.numel() for p in parameters),
        sum(p.numel() for p in parameters if p.requires_grad),
        sum(row.macs for row in rows),
        sum(math.prod(shape) for shape in (input_shape if many else [input_shape])) * itemsize,
        sum(row.activation_bytes for row in rows),
        sum(p.numel() * p.dtype.itemsize for p in parameters),
        tuple(tracer.missed),
    )


def _own_parameters(call: Call) -> int:
    if call.again or call.module is None:
        return 0
    return sum(p.numel() for p in call.module.parameters(recurse=False))


def receptive_field(model: Module, input_shape: Sequence[int]) -> ReceptiveField:
    """Return which part of its input each output of a model sees: size, stride and offset.

    Output ``i`` sees, along each axis, at most ``size`` positions, from about ``offset + stride *
    i`` on. It is exact for convolutions and pools, in any nesting; of paths that meet, it is what
    all of them see. After :class:`Linear`, :class:`Flatten` or a global pool everything is seen:
    the size is the image's, the stride 0.

    Parameters
    ----------
    model : Module
    input_shape : sequence of int

    Returns
    -------
    ReceptiveField
        ``size``, ``stride`` and ``offset``, each with an entry for height and width.

    Raises
    ------
    ValueError
        If forward does something that cannot be followed, or the shape does not fit.

    Examples
    --------
    >>> import pyconv
    >>> net = pyconv.Sequential(
    ...     pyconv.Conv2d(1, 8, 3, padding=1), pyconv.MaxPool2d(2), pyconv.Conv2d(8, 8, 3)
    ... )
    >>> pyconv.receptive_field(net, (1, 1, 32, 32))
    ReceptiveField(size=(8, 8), stride=(2, 2), offset=(-1, -1))

    Notes
    -----
    Borders are not cut off: it is the field of an output in the middle of a large image. See
    Araujo, Norris and Sim, "Computing Receptive Fields of Convolutional Neural Networks", Distill,
    2019.
    """
    call = trace(model, input_shape).calls[0]
    found = _receptive_field(call.field, call.input_shape)
    if found is None:
        raise ValueError(_lost(model))
    return found


def overlap(model: Module, input_shape: Sequence[int] | None = None) -> Overlap:
    """Return what :meth:`Module.overlap` says.

    Without ``input_shape`` one is tried that fits the first layer with channels.
    """
    call = trace(model, input_shape).calls[0] if input_shape is not None else _any_call(model)
    if call.field is None:
        raise ValueError(_lost(model))
    if call.field is WHOLE:
        raise ValueError(
            f"{type(model).__name__}: each output sees the whole image, which cannot be cut into "
            "tiles"
        )
    return Overlap(
        tuple((max(0, -min(s.lows)), max(0, max(s.highs) - (s.advance - 1))) for s in call.field),
        tuple(s.advance for s in call.field),
        tuple(s.period for s in call.field),
    )


def _any_call(model: Module) -> Call:
    channels = next(
        (m.in_channels for m in model.modules() if hasattr(m, "in_channels")),
        1,
    )
    axes = 1 if any(type(m).__name__ == "Conv1d" for m in model.modules()) else 2
    error: Exception | None = None
    for size in (64, 256, 1024, 4096):
        try:
            return trace(model, (1, channels, *(size,) * axes)).calls[0]
        except ValueError as found:
            error = found
    raise ValueError(
        f"{type(model).__name__}: overlap found no input_shape that fits; say one. {error}"
    )


def _receptive_field(found: Field, image: tuple[int, ...]) -> ReceptiveField | None:
    if found is None:
        return None
    if found is WHOLE:
        sizes = image[-2:] if len(image) > 2 else image[-1:]
        return ReceptiveField(sizes, (0,) * len(sizes), (0,) * len(sizes))
    return ReceptiveField(
        tuple(s.size for s in found),
        tuple(
            s.advance // s.period if s.advance % s.period == 0 else s.advance / s.period
            for s in found
        ),
        tuple(s.lows[0] for s in found),
    )


def _lost(model: Module) -> str:
    return (
        f"{type(model).__name__}: its forward does something that cannot be followed, such as an "
        "index or a transposition; use layers, or functions of pyconv.functional, instead"
    )
