"""The memory of large results: kept when an array goes, lent again, never to two at a time."""

import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from guarded import in_child

import pyconv
import pyconv.functional as F

Array = np.ndarray[Any, np.dtype[Any]]

W = np.ones((4, 1, 1, 1), np.float32)


def result(value: float, size: int = 128) -> Array:
    """A result of 4*size*size numbers, all of them `value`."""
    return F.conv2d(np.full((1, 1, size, size), value, np.float32), W)


def place(array: Array) -> int:
    """Where the array's memory begins."""
    return int(array.__array_interface__["data"][0])


def test_memory_comes_back() -> None:
    """To a result of the same size, and to one that is a little smaller, but not to a small one."""
    pyconv.release_workspace()
    y = result(1)
    where = place(y)
    assert where % 64 == 0
    del y
    y = result(2)
    assert place(y) == where
    del y
    assert place(result(3, 125)) == where
    small = result(4, 90)
    assert place(small) != where
    assert (small == 4).all()


def test_small_memory_takes_no_places() -> None:
    """Parameters of small layers come and go, and the large block is still there."""
    pyconv.release_workspace()
    y = result(1)
    where = place(y)
    del y
    layers = [pyconv.Conv2d(1, 2, 3, rng=0) for _ in range(100)]
    del layers
    assert place(result(2)) == where


def test_memory_of_a_living_array_is_not_lent() -> None:
    """Nor that of a view's base."""
    pyconv.release_workspace()
    kept = [result(value) for value in range(5)]
    views = [y[0, 1:, 3:] for y in kept]
    del kept
    for value in range(5, 30):
        assert (result(value) == value).all()
    for value, view in enumerate(views):
        assert (view == value).all()


def test_threads_share_the_shelf() -> None:
    """Each keeps some results and checks them later; all are its own."""
    wrong: list[int] = []

    def work(me: int) -> None:
        kept: list[tuple[int, Array]] = []
        for i in range(60):
            kept.append((100 * me + i, result(100 * me + i, 64 + i % 3)))
            if len(kept) > 5:
                value, y = kept.pop(i % 5)
                if not (y == value).all():
                    wrong.append(value)

    threads = [threading.Thread(target=work, args=(me,)) for me in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


@pytest.mark.parametrize("size", [2, 30_000, 200_000])
def test_result_can_be_resized(size: int) -> None:
    """ndarray.resize keeps what fits, and fills up with zeros."""
    y = result(7)
    had = y.size
    y.resize(size, refcheck=False)
    assert (y[:had] == 7).all()
    assert (y[had:] == 0).all()


@in_child
def test_no_more_than_a_budget_is_kept() -> None:
    """400 MB of results go, and most of it to the system; release_workspace gives back the rest."""

    def resident() -> int:
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmRSS"):
                return int(line.split()[1]) // 1024
        raise AssertionError("no VmRSS")

    result(0)
    before = resident()
    kept = [result(value, 1024) for value in range(25)]
    assert resident() - before > 300
    del kept
    assert 40 < resident() - before < 100
    pyconv.release_workspace()
    assert resident() - before < 40
