"""Guarded memory among canaries, for the arrays of one call of a kernel."""

from typing import Any

import numpy as np
from guarded import Flush, Pages
from kernels.library import Array, numbers

CANARY = 0xA5


class Memory:
    """Guarded memory for the arrays of one call, used again for the next."""

    def __init__(self) -> None:
        self.pages = {name: Pages(1 << 15) for name in ("out", "vec", "weight")}
        self.arrays: dict[str, Array] = {}

    def fill(
        self, name: str, count: int, dtype: Any, flush: Flush, rng: np.random.Generator
    ) -> Array:
        """Return an array of arbitrary numbers, infinities and NaNs too, among canaries."""
        self.pages[name].bytes[:] = CANARY
        array = self.pages[name].array(count, dtype, flush)
        array[:] = numbers(rng, count, dtype, special=True)
        self.arrays[name] = array
        return array

    def snapshot(self) -> dict[str, Array]:
        """Return a copy of all of it."""
        return {name: page.bytes.copy() for name, page in self.pages.items()}
