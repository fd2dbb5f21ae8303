"""What a module can say without being computed; the part of Module that _trace.py is behind."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, cast

if TYPE_CHECKING:
    from pyconv._summary import Overlap
    from pyconv.module import Module


class Blueprint:
    """Shapes, costs and tiles of a module."""

    _knows_its_shape: bool = False  # whether output_shape is arithmetic, not a trace

    def output_shape(self, input_shape: Sequence[int], /) -> tuple[int, ...]:
        """Return the shape that an input of ``input_shape`` would give; nothing is computed.

        Examples
        --------
        >>> import pyconv
        >>> net = pyconv.Sequential(pyconv.Conv2d(3, 8, 5, stride=2), pyconv.Flatten())
        >>> net.output_shape((1, 3, 32, 32))
        (1, 1568)
        """
        from pyconv._trace import output_shape

        return output_shape(cast("Module", self), input_shape)

    def macs(self, input_shape: Sequence[int], /) -> int:
        """Return the number of multiplications for an input of ``input_shape``.

        Counted are those with weights, of convolutions and Linear, over the whole batch, padding
        included; the bias is none. A transposed convolution multiplies at its input positions. Of a
        forward of one's own, functions of :mod:`pyconv.functional` and ``@`` are counted too;
        :func:`pyconv.summary` names what is not.

        Examples
        --------
        >>> import pyconv
        >>> pyconv.Conv2d(64, 128, 3, padding=1).macs((1, 64, 10, 10))  # 10*10 * 128 * 64*3*3
        7372800
        """
        from pyconv._trace import macs

        return macs(cast("Module", self), input_shape)

    def overlap(self, input_shape: Sequence[int] | None = None) -> Overlap:
        """Return how far tiles of an image must overlap; see :func:`pyconv.receptive_field`."""
        from pyconv._summary import overlap

        return overlap(cast("Module", self), input_shape)
