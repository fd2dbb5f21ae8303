"""The generator that fills new layers."""

from __future__ import annotations

from typing import Any

import numpy as np

# Made on first use: numpy.random is not imported by NumPy itself.
_generator: np.random.Generator | None = None


def manual_seed(seed: int) -> np.random.Generator:
    """Start the default generator anew and return it; layers made from then on are reproducible.

    Parameters
    ----------
    seed : int
        Anything that ``numpy.random.default_rng`` takes.

    Raises
    ------
    TypeError, ValueError
        As ``numpy.random.default_rng``, for instance for a negative seed.

    Examples
    --------
    >>> import pyconv
    >>> _ = pyconv.manual_seed(0)
    >>> a = pyconv.Linear(3, 2)
    >>> _ = pyconv.manual_seed(0)
    >>> b = pyconv.Linear(3, 2)
    >>> bool((a.weight == b.weight).all())
    True
    """
    global _generator
    _generator = np.random.default_rng(seed)
    return _generator


def generator(rng: Any = None) -> np.random.Generator:
    """Return the generator that ``rng`` stands for; the default one for None."""
    global _generator
    if rng is not None:
        return np.random.default_rng(rng)
    if _generator is None:
        _generator = np.random.default_rng()
    return _generator


def fill_uniform(rng: np.random.Generator, array: np.ndarray[Any, Any], bound: float) -> None:
    """Fill ``array`` from U(-bound, bound). One seed gives the same numbers in both dtypes."""
    array[...] = rng.uniform(-bound, bound, array.shape)
