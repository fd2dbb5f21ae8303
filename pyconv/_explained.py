"""The method ``explain_plan`` of the layers whose work is planned in C."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any

from pyconv._threads import num_threads

if TYPE_CHECKING:
    from numpy.typing import DTypeLike

    from pyconv._plan import LayerPlan


class Explained:
    """What convolutions and pools have beside torch's methods."""

    if TYPE_CHECKING:
        output_shape: Any
        _explain: Any

    def _image_shape(self, input_shape: Sequence[int]) -> Sequence[int]:
        """The input as the C part has it, where that has a dimension more."""
        return input_shape

    def explain_plan(
        self,
        input_shape: Sequence[int],
        dtype: DTypeLike | None = None,
        threads: int | None = None,
    ) -> LayerPlan:
        """Tell how forward and backward would compute: kernels, tiles, blocks, threads, memory.

        Nothing is computed. The numbers are those of the structs by which the C code would run with
        an input of that shape, in C order, and finite weights.

        Parameters
        ----------
        input_shape : tuple of int
            As for ``output_shape``.
        dtype : float32 or float64, optional
            The layer's own if not given, float32 for a pool.
        threads : int, optional
            How many threads may be used, as in :class:`pyconv.num_threads`; fewer may be worth it.

        Returns
        -------
        LayerPlan
            It prints as a text; its attributes ``forward``, ``backward_input`` and, for a
            convolution, ``backward_weight`` have everything as numbers. A max pool has
            ``forward_indices`` as well, the forward that also returns indices.

        Raises
        ------
        TypeError, ValueError, MemoryError
            As a call with an input of that shape would.

        Examples
        --------
        >>> import pyconv
        >>> plan = pyconv.Conv2d(64, 64, 3, padding=1).explain_plan((8, 64, 56, 56), threads=1)
        >>> plan.forward.family, plan.forward.kernel, plan.forward.threads
        ('dense tile', 'dense_tile', 1)
        >>> plan.forward.flops == 2 * 8 * 64 * 64 * 9 * 56 * 56
        True
        >>> print(plan.backward_weight)  # doctest: +ELLIPSIS
        backward_weight: direct, weight tile, input packed
            kernel   weight_tile, ... rows x ... vectors
            blocks   chunk_samples ..., chunk_rows ...
            work     ... for 1 thread
            scratch  ... bytes a thread, 0 shared
            cost     1,849,688,064 FLOP, 12,992,512 bytes
            limit    compute bound below a balance of 142.4 FLOP a byte, memory bound above
        """
        from pyconv import _plan

        output_shape = self.output_shape(input_shape)
        with nullcontext() if threads is None else num_threads(threads):
            passes = self._explain(self._image_shape(input_shape), dtype)
        return _plan.made(self, tuple(input_shape), output_shape, dtype, passes)
