"""One row: are the results right, and how long do they take, beside the machine's own limit.

All engines of a row and the limit take turns for several rounds, so that whatever else happens on
the machine happens to all of them. A turn begins with a pause, until the threads of the engine
before have stopped spinning, and calls that are not timed, which bring back what the others have
pushed out of the caches, and give the system time to find a CPU for each thread.
"""

from __future__ import annotations

import dataclasses
import gc
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from typing import TYPE_CHECKING

import numpy as np

import pyconv
from pyconv import _core
from pyconv._bench.layers import POOLS
from pyconv._bench.problem import Expected

if TYPE_CHECKING:
    from pyconv._arrays import Array
    from pyconv._bench.engines import Engine, Run
    from pyconv._bench.layers import Row
    from pyconv._bench.problem import Problem

Times = dict[str, tuple[float, float]]  # minimum and median, by name

# Seconds that the process must have been idle for: long enough for a clock that ticks 250 times a
# second to notice a thread that spins, as onnxruntime's do for 60 ms after a call, torch's for 10.
IDLE = 0.006
MOST_PAUSES = 50
TURN = 0.003  # seconds that a turn takes about
MOST_CALLS, MOST_ROUNDS = 100, 30
LIMIT_CALL = 0.0007  # seconds of one burst of multiply-adds
# An engine whose call takes longer than this, and so many times as long as the fastest, has had its
# chance with the first one.
LONG, HOPELESS = 0.5, 3.0
# When the limit's median is so many times its minimum, the machine had other work. That hurts
# engines whose threads wait for each other most, so the row is measured once more.
BUSY = 1.25


@dataclasses.dataclass
class Outcome:
    """What became of a row. Times are in seconds, the limit in operations or bytes a second."""

    row: Row
    status: str = "ok"
    times: Times = dataclasses.field(default_factory=dict)
    limit: float = 0.0
    noise: float = 1.0  # the limit's median time / its minimum

    @property
    def work(self) -> float:
        """Operations of a convolution, bytes of a pool."""
        layer, n = self.row.layer, self.row.n
        if layer.op in POOLS:
            return layer.bytes(self.row.pass_, n, np.dtype(self.row.dtype).itemsize)
        return layer.flops(n)


def seconds(run: Run) -> float:
    """Time one call."""
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def settle() -> float:
    """Wait until no thread of this process is busy, and return for how many seconds."""
    start = time.perf_counter()
    for _ in range(MOST_PAUSES):
        busy = time.process_time()
        time.sleep(IDLE)
        if time.process_time() - busy < IDLE / 8:
            break
    return time.perf_counter() - start


def take_turns(
    runs: Mapping[str, Run], budget: float, clock: Callable[[Run], float] = seconds
) -> Times:
    """Return minimum and median of each; all together take about `budget` seconds."""
    first, pauses = {}, 0.0
    for name, run in runs.items():
        pauses += settle()
        first[name] = clock(run)
    fastest = min(first.values())
    calls = {name: max(1, min(MOST_CALLS, int(TURN / max(t, 1e-7)))) for name, t in first.items()}
    # A long call is its own warming-up, and the first one counts as well.
    times = {name: [t] if calls[name] == 1 else [] for name, t in first.items()}
    playing = [name for name, t in first.items() if not (t > LONG and t > HOPELESS * fastest)]
    warm = {name: count if count > 1 else 0 for name, count in calls.items()}
    turn = pauses + sum(first[name] * (calls[name] + warm[name]) for name in playing)
    for _ in range(max(2, min(MOST_ROUNDS, int(budget / turn)))):
        for name in playing:
            run = runs[name]
            settle()
            for _ in range(warm[name]):
                run()
            times[name].extend(clock(run) for _ in range(calls[name]))
    return {name: (min(kept), statistics.median(kept)) for name, kept in times.items()}


def take_quiet_turns(
    runs: Mapping[str, Run], budget: float, turns: Callable[..., Times] = take_turns
) -> Times:
    """Take turns, twice if the first time was busy: the minima of both, medians of the calmer."""
    times = turns(runs, budget)
    if noise(times) > BUSY:
        time.sleep(budget)
        again = turns(runs, budget)
        calmer = min(times, again, key=noise)
        times = {name: (min(times[name][0], again[name][0]), calmer[name][1]) for name in times}
    return times


def noise(times: Times) -> float:
    """Return how many times the limit's median is its minimum."""
    best, median = times["limit"]
    return median / best


# ---- the machine's limits ----


def multiply_adds(dtype: str) -> tuple[Run, float]:
    """Return a burst of multiply-adds on the current number of threads, and its operations."""
    rounds = 1000
    while least_seconds(dtype, rounds) < LIMIT_CALL:
        rounds *= 2
    return lambda: _core.fma_chains(dtype, rounds), _core.fma_chains(dtype, rounds)


def least_seconds(dtype: str, rounds: int) -> float:
    """Return the best time of a few bursts."""
    return min(seconds(lambda: _core.fma_chains(dtype, rounds)) for _ in range(3))


def copying(traffic: float) -> tuple[Run, float]:
    """Return a copy into fresh memory that reads and writes `traffic` bytes, and these bytes."""
    source = np.ones(max(1, int(traffic / 8)), np.float32)
    return lambda: _core.fresh_copy(source), 2.0 * source.nbytes


def limit_of(outcome: Outcome) -> tuple[Run, float]:
    """Return what a row is held against, and its work."""
    pyconv.set_num_threads(outcome.row.threads)
    if outcome.row.layer.op in POOLS:
        return copying(outcome.work)
    return multiply_adds(outcome.row.dtype)


def machine_limits(threads: int) -> dict[str, float]:
    """Return giga-operations and gigabytes a second of this machine."""
    pyconv.set_num_threads(threads)
    bursts = {f"FMA {dtype}": multiply_adds(dtype) for dtype in ("float32", "float64")}
    copies = {f"copy {size} MB": copying(size * 1e6) for size in (1, 16, 64)}
    found = {}
    for jobs in (bursts, copies):
        times = take_turns({name: run for name, (run, _) in jobs.items()}, 0.4)
        found.update({name: work / times[name][0] / 1e9 for name, (_, work) in jobs.items()})
    return found


# ---- right or wrong ----


def differ(ours: Sequence[Array], theirs: Sequence[Array], expected: Sequence[Expected]) -> bool:
    """Tell whether two right results are further apart anywhere than both may be off."""
    for a, b, e in zip(ours, theirs, expected, strict=True):
        if e.bound == 0:
            if not np.array_equal(a, b):
                return True
            continue
        gap = np.subtract(a, b)
        if not float(np.abs(gap, out=gap).max(initial=0.0)) <= 3 * e.bound:
            return True
    return False


def measure(row: Row, problem: Problem, engines: Sequence[Engine], budget: float) -> Outcome:
    """Run a row on all engines: the results first, then the times.

    A wrong result of pyconv ends it. An engine beside it that is wrong or fails is left out.
    """
    outcome = Outcome(row)
    runs: dict[str, Run] = {}
    expected = problem.expected(row.pass_)
    ours: tuple[Array, ...] = ()
    with ExitStack() as modes:
        for engine in engines:
            modes.enter_context(engine.mode())
        for engine in engines:
            try:
                run = engine.prepare(problem, row.pass_, row.threads)
                if run is None:
                    continue
                arrays = engine.arrays(run())
            except Exception as error:
                if engine.name == "pyconv":
                    raise
                print(f"  {engine.name}: {type(error).__name__}: {error}")
                continue
            right = len(arrays) == len(expected) and all(map(Expected.agrees, expected, arrays))
            if engine.name == "pyconv":
                ours = arrays
                if not right:
                    outcome.status = "wrong"
                    return outcome
            elif not right:
                print(f"  {engine.name} is wrong here and left out")
                continue
            elif engine.name == "torch" and differ(ours, arrays, expected):
                outcome.status = "wrong: not what torch has"
                return outcome
            runs[engine.name] = run
        del ours, arrays
        limit, work = limit_of(outcome)
        runs["limit"] = limit
        gc.disable()
        try:
            outcome.times = take_quiet_turns(runs, budget)
        finally:
            gc.enable()
    outcome.noise = noise(outcome.times)
    outcome.limit = work / outcome.times.pop("limit")[0]
    return outcome
