"""A process that forks while pyconv computes: both sides finish, with the same results."""

import os
import signal
from types import FrameType

import numpy as np
from guarded import in_child

import pyconv
import pyconv.functional as F


@in_child
def test_a_signal_handler_that_forks_in_the_middle_of_a_call() -> None:
    """The handler runs on the calling thread between two blocks of work. In the child the pool's
    threads are gone, and with them what they had begun."""
    pyconv.set_num_threads(2)
    rng = np.random.default_rng(0)
    x = rng.standard_normal((16, 64, 112, 112), np.float32)
    weight = rng.standard_normal((64, 64, 3, 3), np.float32)
    expected = F.conv2d(x, weight, padding=1)
    forked: list[int] = []

    def fork(number: int, frame: FrameType | None) -> None:
        forked.append(os.fork())

    signal.signal(signal.SIGALRM, fork)
    seconds = 0.02
    while not forked:  # a call may be over before the signal comes
        signal.setitimer(signal.ITIMER_REAL, seconds)
        result = F.conv2d(x, weight, padding=1)
        signal.setitimer(signal.ITIMER_REAL, 0)
        seconds /= 2
    same = np.array_equal(result, expected)
    if forked == [0]:
        os._exit(0 if same else 3)
    assert same
    assert os.waitpid(forked[0], 0)[1] == 0
