"""How many threads a call may use.

The process-wide default comes from the environment variable ``PYCONV_NUM_THREADS``, else from
``OMP_NUM_THREADS``, else it is the number of CPUs that this process may run on. Results do not
depend on it: they have the same bits for any number of threads.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from pyconv import _core
from pyconv._arrays import as_size

if TYPE_CHECKING:
    from contextvars import Token
    from typing import Self


def default_num_threads() -> int:
    """Return the number of threads that environment and CPU affinity ask for."""
    for name in ("PYCONV_NUM_THREADS", "OMP_NUM_THREADS"):
        # OMP_NUM_THREADS may be a list, one entry per level of nesting. What is no number of
        # threads is passed over: an import is no place to fail.
        text = os.environ.get(name, "").split(",")[0].strip()
        if text.isdecimal() and int(text) > 0:
            return int(text)
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def set_num_threads(n: int) -> None:
    """Let every call of this process use up to ``n`` threads.

    Parameters
    ----------
    n : int
        At least 1.

    Raises
    ------
    TypeError
        If ``n`` is no int.
    ValueError
        If ``n`` is less than 1.

    Examples
    --------
    >>> import pyconv
    >>> before = pyconv.get_num_threads()
    >>> pyconv.set_num_threads(2)
    >>> pyconv.get_num_threads()
    2
    >>> pyconv.set_num_threads(before)
    """
    _core.set_num_threads(n)


def get_num_threads() -> int:
    """Return how many threads a call made here would use at most."""
    return _core.get_num_threads()


class num_threads:
    """Use up to ``n`` threads within a ``with`` block.

    It is a context variable: it holds for this thread of control alone, other threads and other
    asyncio tasks keep theirs.

    Parameters
    ----------
    n : int
        At least 1.

    Raises
    ------
    TypeError
        If ``n`` is no int.
    ValueError
        If ``n`` is less than 1.

    Examples
    --------
    >>> import pyconv
    >>> with pyconv.num_threads(1):
    ...     pyconv.get_num_threads()
    1
    """

    def __init__(self, n: int) -> None:
        self._n = as_size("num_threads", "the number of threads", n, 1)
        self._tokens: list[Token[int]] = []

    def __enter__(self) -> Self:
        self._tokens.append(_core.num_threads_var.set(self._n))
        return self

    def __exit__(self, *exception: Any) -> None:
        _core.num_threads_var.reset(self._tokens.pop())


_core.set_num_threads(default_num_threads())
