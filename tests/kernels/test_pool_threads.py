"""The thread pool and the shelf of scratch memory: every index once, whatever else goes on.

Each test runs in an interpreter of its own: a pool that hangs fails one test, and threads that one
test starts are not there in the next. The tasks are C functions of pool_tasks.c, so that no Python
lock orders the threads.
"""

import contextlib
import ctypes
import itertools
import os
import resource
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from guarded import in_child
from kernels.library import Library, declare_oracle, pointer

MOST = 2000


class PoolTest(ctypes.Structure):
    """Mirror of pool_test in pool_tasks.c."""

    _fields_ = (
        ("run", pointer),
        ("hits", pointer),
        ("thread", pointer),
        ("state", pointer),
        ("product", pointer),
        ("inner", ctypes.c_int),
        ("pause", ctypes.c_int),
        ("entered", ctypes.c_int),
        ("left", ctypes.c_int),
        ("wait", ctypes.c_int),
        ("wrong_count", ctypes.c_int),
        ("count", ctypes.c_int),
    )


class Pool:
    """The pool of a loaded library, and what a run on it saw."""

    def __init__(self, libraries: list[str]) -> None:
        self.library = Library(Path(libraries[0]))
        self.oracle = declare_oracle(ctypes.CDLL(libraries[1]))
        self.door = ctypes.cast(self.library.c.pc_pool_run, pointer).value

    def workers(self) -> int:
        """Return the number of threads that the pool says it has."""
        return int(self.library.c.pc_pool_workers())

    def run(self, count: int, *, inner: int = 0, pause: int = 0, state: int = -1) -> "Run":
        """Run `count` tasks, of `pause` microseconds each, and check that each index came once."""
        run = self.prepare(count, inner=inner)
        run.test.pause = pause
        run.go(state)
        run.check()
        return run

    def prepare(self, count: int, *, inner: int = 0, wait: bool = False) -> "Run":
        """Return a run that has not begun. With `wait` its tasks stay until they are let go."""
        return Run(self, count, inner, wait)


class Run:
    """One call of pc_pool_run and what its tasks noted."""

    def __init__(self, pool: Pool, count: int, inner: int, wait: bool) -> None:
        self.oracle, self.count, self.inner = pool.oracle, count, inner
        self.hits = (ctypes.c_int * MOST)()
        self.thread = (ctypes.c_int64 * MOST)()
        self.state = (ctypes.c_int64 * MOST)()
        self.product = (ctypes.c_float * MOST)()
        notes = [ctypes.addressof(a) for a in (self.hits, self.thread, self.state, self.product)]
        self.test = PoolTest(pool.door, *notes, inner, 0, 0, 0, int(wait), 0, count)
        self.state_after = 0

    def go(self, state: int = -1) -> None:
        """Run, with the caller's floating-point control word set to `state` if that is not -1."""
        self.state_after = self.oracle.oracle_pool_run(ctypes.byref(self.test), state)

    def entered(self) -> int:
        """Return how many tasks have begun."""
        return int(self.oracle.oracle_pool_entered(ctypes.byref(self.test)))

    def let_go(self) -> None:
        """Let waiting tasks end."""
        self.oracle.oracle_pool_let_go(ctypes.byref(self.test))

    def check(self) -> None:
        """Each index once, with the right count, no other index, and every task has ended."""
        expected = [1] * self.count + [0] * (MOST - self.count)
        assert list(self.hits) == expected
        assert self.test.wrong_count == 0
        assert self.entered() == self.count * (self.inner or 1)
        assert self.test.left == self.count

    def threads(self) -> set[int]:
        """Return the threads that ran tasks."""
        return set(self.thread[: self.count])


@pytest.fixture
def libraries(library: Library, oracle: ctypes.CDLL) -> list[str]:
    """Paths of the rooms below Python and of the oracle, for a child to load."""
    return [str(library.path), oracle._name]


def tasks() -> list[str]:
    """Return the kernel's folders of all threads of this process."""
    return sorted(os.listdir("/proc/self/task"))


def affinities() -> dict[str, set[int]]:
    """Return the CPUs that each thread may use."""
    return {task: os.sched_getaffinity(int(task)) for task in tasks()}


@contextlib.contextmanager
def busy(pool: Pool) -> Iterator[Run]:
    """Keep the pool busy with a run of another thread, all of whose tasks have begun and wait."""
    run = pool.prepare(2, wait=True)
    thread = threading.Thread(target=run.go)
    thread.start()
    until(lambda: run.entered() == 2)
    try:
        yield run
    finally:
        run.let_go()
        thread.join(30)
    assert not thread.is_alive()
    run.check()


def until(condition: Callable[[], bool], seconds: float = 30) -> None:
    """Wait for a condition; fail when it does not come."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.001)


def in_a_fork(work: Callable[[], None], seconds: float = 30) -> None:
    """Run `work` in a forked child, which must end well and in time."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            work()
            code = 0
        finally:
            os._exit(code)
    end = time.monotonic() + seconds
    while True:
        found, status = os.waitpid(child, os.WNOHANG)
        if found:
            break
        if time.monotonic() > end:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            pytest.fail("the forked child hangs")
        time.sleep(0.005)
    assert os.waitstatus_to_exitcode(status) == 0


@in_child
def test_each_index_once(libraries: list[str]) -> None:
    """For every count, growing and shrinking, and for more than the pool ever has threads."""
    pool = Pool(libraries)
    for count in [*range(65), *range(64, 0, -1), MOST, 1, 0]:
        pool.run(count)


@in_child
def test_the_caller_waits_for_the_last(libraries: list[str]) -> None:
    """Tasks that take long are all done when the run returns, and more than one thread did them."""
    pool = Pool(libraries)
    for _ in range(10):
        assert len(pool.run(6, pause=3000).threads()) > 1


@in_child
def test_no_worker_for_one_task(libraries: list[str]) -> None:
    """A single task, or none, is done by the caller without waking or making anybody."""
    pool = Pool(libraries)
    before = tasks()
    assert len(pool.run(1).threads()) == 1
    pool.run(0)
    assert pool.workers() == 0
    assert tasks() == before


@in_child
def test_workers_are_counted_and_kept(libraries: list[str]) -> None:
    """At most one worker fewer than the largest count, the same ones for the next runs."""
    pool = Pool(libraries)
    before = len(tasks())
    pool.run(5)
    first = tasks()
    assert pool.workers() == len(first) - before <= 4
    for count in (2, 3, 4, 5):
        pool.run(count)
    assert tasks() == first
    pool.run(9)
    assert pool.workers() == len(tasks()) - before <= 8


@in_child
def test_a_task_may_run_tasks(libraries: list[str]) -> None:
    """Nested runs find the pool busy and do their work alone."""
    pool = Pool(libraries)
    for count in (1, 2, 3, 7, 20):
        pool.run(count, inner=5)


@in_child
def test_a_second_caller_works_alone(libraries: list[str]) -> None:
    """While the pool is busy, another thread's run is done on that thread, all of it."""
    pool = Pool(libraries)
    with busy(pool) as other:
        for count in (2, 8, 33):
            alone = pool.run(count, pause=2000)  # time enough for others to come
            assert len(alone.threads()) == 1
            assert not alone.threads() & other.threads()
    pool.run(16)


@in_child
def test_many_callers(libraries: list[str]) -> None:
    """Several threads hammer the pool with short runs; no index is lost or done twice."""
    pool = Pool(libraries)
    lost: list[int] = []

    def hammer() -> None:
        lost.append(pool.oracle.oracle_pool_hammer(pool.door, 3000, 9))

    threads = [threading.Thread(target=hammer) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert lost == [0] * 4


@in_child
def test_many_short_runs(libraries: list[str]) -> None:
    """One caller, runs so short that workers come late: nothing is lost, nothing hangs."""
    pool = Pool(libraries)
    assert pool.oracle.oracle_pool_hammer(pool.door, 20000, 5) == 0


@in_child
def test_fork_after_use(libraries: list[str]) -> None:
    """A child has no workers and makes its own; so does its child; the parent's go on."""
    pool = Pool(libraries)
    pool.run(4)
    had = pool.workers()

    def child() -> None:
        assert pool.workers() == 0
        assert len(tasks()) == 1
        pool.run(6)
        assert pool.workers() == len(tasks()) - 1
        in_a_fork(grandchild)
        pool.run(6)

    def grandchild() -> None:
        assert pool.workers() == 0
        pool.run(3)

    for _ in range(20):
        in_a_fork(child)
    assert pool.workers() == had
    pool.run(4)


@in_child
def test_fork_before_use(libraries: list[str]) -> None:
    """A child of a parent that never ran anything."""
    pool = Pool(libraries)
    in_a_fork(lambda: pool.run(4).check())
    pool.run(4)


@in_child
def test_fork_while_busy(libraries: list[str]) -> None:
    """A child forked in the middle of another thread's run finds a pool that is free."""
    pool = Pool(libraries)
    with busy(pool):

        def child() -> None:
            pool.run(5)
            assert 0 < pool.workers() == len(tasks()) - 1

        for _ in range(5):
            in_a_fork(child)


@in_child
def test_fork_while_others_run(libraries: list[str]) -> None:
    """Forks at any moment of other threads' runs, and of their taking and giving scratch."""
    pool = Pool(libraries)
    stop = threading.Event()

    def hammer() -> None:
        while not stop.is_set():
            assert pool.oracle.oracle_pool_hammer(pool.door, 50, 5) == 0
            pool.library.c.pc_scratch_give(pool.library.c.pc_scratch_take(1000))

    def child() -> None:
        pool.run(5)
        scratch = pool.library.c.pc_scratch_take(1000)
        assert scratch
        pool.library.c.pc_scratch_give(scratch)

    threads = [threading.Thread(target=hammer) for _ in range(2)]
    for thread in threads:
        thread.start()
    try:
        for _ in range(60):
            in_a_fork(child)
    finally:
        stop.set()
        for thread in threads:
            thread.join(30)


@in_child
def test_threads_that_cannot_be_made(libraries: list[str]) -> None:
    """Without address space for their stacks there are fewer threads, or none, and all the work."""
    pool = Pool(libraries)
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    used = pages * resource.getpagesize()
    _, most = resource.getrlimit(resource.RLIMIT_AS)
    before = len(tasks())
    prepared = [pool.prepare(64) for _ in range(3)]
    for run, room in zip(prepared, (0, 3 << 20, 6 << 20), strict=True):
        resource.setrlimit(resource.RLIMIT_AS, (used + room, most))
        run.go()
    few = pool.workers()
    assert few == len(tasks()) - before
    resource.setrlimit(resource.RLIMIT_AS, (most, most))
    for run in prepared:
        run.check()
    assert few < 10
    pool.run(64)  # and when there is room again, the pool grows
    assert pool.workers() > few


@in_child
def test_floating_point_state(libraries: list[str]) -> None:
    """Tasks see the default state on every thread; the caller's own comes back."""
    pool = Pool(libraries)
    default = pool.oracle.oracle_fp_state()
    mischief = default | pool.oracle.oracle_fp_mischief()
    assert mischief != default
    for count in (1, 8, 3):  # before the workers are born, and after
        run = pool.run(count, state=mischief)
        assert run.state_after == mischief
        control = {state & ~0x3F for state in run.state[:count]}  # the flags of x86 aside
        assert control == {default & ~0x3F}
        # a product that flushing would have made zero, rounded to nearest
        assert set(run.product[:count]) == {run.product[0]}
        assert run.product[0] == pytest.approx(1e-40, rel=1e-3)
    run = pool.run(8, state=default)
    assert run.state_after == default, "exception flags leaked to the caller"


@in_child
def test_workers_take_no_signals(libraries: list[str]) -> None:
    """All signals that can be blocked are blocked on workers; the caller's mask is as before."""
    pool = Pool(libraries)
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1})
    mine = signal.pthread_sigmask(signal.SIG_BLOCK, set())
    before = tasks()
    pool.run(5)
    assert signal.pthread_sigmask(signal.SIG_BLOCK, set()) == mine
    signal.pthread_sigmask(signal.SIG_SETMASK, mask)
    workers = set(tasks()) - set(before)
    assert workers
    blockable = signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}
    for worker in workers:
        status = Path("/proc/self/task", worker, "status").read_text()
        blocked = int(status.split("SigBlk:")[1].split()[0], 16)
        assert all(blocked >> (number - 1) & 1 for number in blockable)


@in_child
def test_affinities_stay(libraries: list[str]) -> None:
    """Workers that were sent to another CPU may soon run where they might before, or might not."""
    pool = Pool(libraries)
    pool.run(3)
    everywhere = os.sched_getaffinity(0)
    one, other = min(everywhere), max(everywhere)
    for caller, workers in (
        (everywhere, everywhere),
        (everywhere, {other}),
        ({one}, everywhere),
        ({one}, {one}),
    ):
        for task in map(int, tasks()):
            os.sched_setaffinity(task, caller if task == os.getpid() else workers)
        expected = affinities()
        for count in (2, 3, 2, 9) * 10:
            time.sleep(0.001)  # asleep when they are called
            pool.run(count)
        until(lambda expected=expected: expected.items() <= affinities().items())


@in_child
def test_scratch_is_aligned_and_private(libraries: list[str]) -> None:
    """What two calls hold at a time never overlaps, and all of it can be written."""
    c = Pool(libraries).library.c
    held = [(c.pc_scratch_take(size), size) for size in (0, 1, 63, 64, 1000, 4 << 20) * 3]
    spans = sorted((address, address + size) for address, size in held if size)
    assert all(address % 64 == 0 for address, _ in held)
    assert all(end <= start for (_, end), (start, _) in itertools.pairwise(spans))
    for address, size in held:
        ctypes.memset(address, 0xA5, size)
    for address, _ in held:
        c.pc_scratch_give(address)
    c.pc_scratch_give(None)
    c.pc_scratch_release()
    c.pc_scratch_release()


@in_child
def test_scratch_is_kept_for_the_next_call(libraries: list[str]) -> None:
    """What was given back is taken again by what fits into it, until it is released."""
    c = Pool(libraries).library.c
    first = c.pc_scratch_take(100_000)
    c.pc_scratch_give(first)
    assert c.pc_scratch_take(50_000) == first
    other = c.pc_scratch_take(50_000)
    assert other != first
    c.pc_scratch_give(first)
    large = c.pc_scratch_take(200_000)
    assert large not in (first, other)
    c.pc_scratch_give(large)
    c.pc_scratch_give(other)
    for _ in range(20):  # more than the shelf holds
        held = [c.pc_scratch_take(size) for size in range(1000, 21_000, 1000)]
        assert len(set(held)) == 20
        for address in held:
            c.pc_scratch_give(address)
    c.pc_scratch_release()


@in_child
def test_scratch_that_is_not_to_be_had(libraries: list[str]) -> None:
    """Sizes that no machine has are refused, sizes that would wrap as well."""
    c = Pool(libraries).library.c
    for size in (2**64 - 1, 2**64 - 64, 2**63, 2**63 - 1, 2**62):
        assert c.pc_scratch_take(size) is None
    scratch = c.pc_scratch_take(64)
    assert scratch
    c.pc_scratch_give(scratch)
