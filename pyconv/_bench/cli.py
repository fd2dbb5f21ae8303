"""The command line: which rows, how long, where the results go."""

from __future__ import annotations

import argparse
import signal
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pyconv
from pyconv._bench import engines as all_engines
from pyconv._bench import layers as rooms
from pyconv._bench.measure import Outcome, machine_limits, measure
from pyconv._bench.problem import Problem
from pyconv._bench.records import Record, Results, about, read
from pyconv._bench.report import BETTER, row_table, summary

QUICK_MINUTES = 1.8


def comma_separated(make: Callable[[str], Any]) -> Callable[[str], tuple[Any, ...]]:
    """Return a parser of lists."""

    def parse(text: str) -> tuple[Any, ...]:
        return tuple(make(part) for part in text.split(",") if part)

    return parse


def dtype_name(text: str) -> str:
    """Return float32 for f32."""
    name = {"f32": "float32", "f64": "float64"}.get(text, text)
    if name not in ("float32", "float64"):
        raise ValueError(text)
    return name


def add_options(parser: argparse.ArgumentParser, *, full: bool) -> None:
    """Add the options; `full` for the run over all layers, else for the short one."""
    words, numbers = comma_separated(str), comma_separated(int)
    rows = parser.add_argument_group("rows (comma-separated lists; all by default)")
    rows.add_argument("--networks", type=words, default=(), help="such as resnet50_v1.5,dcgan")
    rows.add_argument("--layers", type=words, default=(), help="parts of network/layer")
    rows.add_argument(
        *("--ops", "--kinds"),
        type=words,
        default=(),
        help="conv, deconv, maxpool, avgpool; or dense, grouped, depthwise for a part of conv",
    )
    rows.add_argument(
        "--passes", type=words, default=(), help="fwd, fwd_indices, bwd, bwd_data, bwd_weights"
    )
    rows.add_argument("--batches", type=numbers, default=(), help="of those that the file lists")
    rows.add_argument(
        "--dtypes",
        type=comma_separated(dtype_name),
        help="f32,f64; --quick and the short form: f32" if full else "default: f32",
    )
    rows.add_argument("--threads", type=numbers, default=(1, 2) if full else (), help="such as 1,2")
    rows.add_argument("--shapes", type=Path, help="another file of layers")
    parser.add_argument(
        "--engines",
        type=words,
        default=all_engines.NAMES,
        help="beside pyconv: torch,torch_cl,onnxruntime; all that are installed by default",
    )
    parser.add_argument(
        "--seconds",
        type=float,
        default=0.6 if full else 0.25,
        help="of measuring a row; long calls take longer (default: %(default)s)",
    )
    parser.add_argument("--minutes", type=float, help="begin no row after this time")
    parser.add_argument(
        "--quick", action="store_true", help="the short list of layers, within two minutes"
    )
    parser.add_argument(
        "--output",
        type=Path,
        metavar="FILE.csv",
        help="keep the rows there, and go on with them if it is there; FILE.md gets the tables",
    )
    parser.add_argument(
        "--anyway", action="store_true", help="go on with a file of another machine or build"
    )
    parser.add_argument(
        "--summary", type=Path, metavar="FILE.csv", help="measure nothing, show what is there"
    )
    parser.add_argument("--floor", type=float, help="fail when a row's ratio to torch is below")


def available_memory() -> float:
    """Return the bytes that are free, infinite where nobody tells."""
    try:
        with open("/proc/meminfo", encoding="ascii") as lines:
            for line in lines:
                if line.startswith("MemAvailable:"):
                    return 1024 * float(line.split()[1])
    except OSError:
        pass
    return float("inf")


def needed_memory(row: rooms.Row) -> float:
    """Return about how much a row takes: the arrays, in two layouts, and results of all engines."""
    itemsize = 8 if row.dtype == "float64" else 4
    arrays = row.layer.bytes(row.pass_, row.n, itemsize)
    return 5.0 * arrays + (row.layer.columns(row.n) if itemsize == 8 else 0)


class Bench:
    """A run: its engines, its file, and the data that the next row may share."""

    def __init__(
        self, engines: Sequence[all_engines.Engine], results: Results, seconds: float
    ) -> None:
        self.engines, self.results, self.seconds = engines, results, seconds
        self.problem: Problem | None = None

    def outcome(self, row: rooms.Row) -> Outcome:
        """Measure one row; whatever goes wrong is its outcome."""
        new = (row.layer, row.n, row.dtype)
        old = self.problem
        if old is None or (old.layer, old.n, old.dtype.name) != new:
            self.problem = old = None  # before the next arrays are made
            if needed_memory(row) > available_memory():
                return Outcome(row, f"skipped: needs {needed_memory(row) / 1e9:.0f} GB")
            self.problem = Problem(*new)
        assert self.problem is not None
        try:
            return measure(row, self.problem, self.engines, self.seconds)
        except Exception as error:
            text = " ".join(f"{type(error).__name__}: {error}".split())
            return Outcome(row, f"error: {text[:200]}")

    def run(self, rows: Sequence[rooms.Row], deadline: float) -> int:
        """Measure what is not there yet, until the deadline; return how many rows are left out."""
        crashed = self.results.crashed(rows)
        if crashed:
            show(self.results.add(Outcome(crashed, "crashed")))
        self.results.end()
        todo = [row for row in rows if not self.results.has(row)]
        for done, row in enumerate(todo):
            if time.monotonic() > deadline:
                return len(todo) - done
            self.results.begin(row)
            try:
                outcome = self.outcome(row)
            finally:  # stopped by Ctrl-C or a signal, it is no crash
                self.results.end()
            show(self.results.add(outcome))
        return 0


COLUMNS = f"{'':54} {'pyconv':>9} {'torch':>9} {'torch cl':>9} {'onnxrt':>9}  better  of limit"


def show(record: Record) -> None:
    """Print a row."""
    if not record.right:
        print(f"{record.name:54} LOST: {record.status}", flush=True)
        return
    times = [
        f"{record.best[name]:9.4g}" if name in record.best else f"{'':9}"
        for name in all_engines.NAMES
    ]
    ratio = record.against(*BETTER)
    shown = f"{ratio:6.2f}x" if ratio is not None else f"{'':7}"
    print(f"{record.name:54} {' '.join(times)} {shown} {100 * record.share:6.0f} %", flush=True)


def below_floor(records: Sequence[Record], floor: float) -> list[Record]:
    """Return the rows that are slower against torch in NCHW than is allowed, lost ones too."""
    ratios = [(row, row.against("torch")) for row in records]
    return [row for row, ratio in ratios if ratio is not None and ratio < floor]


def stop(signum: int, frame: object) -> None:
    """End as Ctrl-C does, so that the row under way is not taken for a crash."""
    raise KeyboardInterrupt


def run(options: argparse.Namespace, shapes: Path) -> int:
    """Do what the options say; `shapes` are the layers if they name no others."""
    if options.summary:
        print(summary(*read(options.summary)))
        return 0
    started = time.monotonic()
    minutes = options.minutes
    dtypes: tuple[str, ...] = ("float32",)
    if options.quick:
        shapes, minutes = rooms.SHORT, QUICK_MINUTES if minutes is None else minutes
        options.seconds = min(options.seconds, 0.25)
    elif shapes != rooms.SHORT:
        dtypes = ("float32", "float64")
    most = pyconv.get_num_threads()
    choice = rooms.Choice(
        *(options.networks, options.layers, options.ops, options.passes, options.batches),
        *(options.dtypes or dtypes, options.threads or tuple(sorted({1, most}))),
    )
    rows = list(rooms.rows_of(rooms.read_layers(options.shapes or shapes), choice))
    if not rows:
        print("no layer has such rows", file=sys.stderr)
        return 2
    engines = all_engines.installed(options.engines)
    machine = about(engines)
    results = Results(options.output, machine)
    changed = results.other_machine(machine)
    if changed and not options.anyway:
        for name in changed:
            print(f"{name}: {results.machine.get(name)} -> {machine.get(name)}", file=sys.stderr)
        print(f"{options.output} is of another run; --anyway goes on with it", file=sys.stderr)
        return 2
    signal.signal(signal.SIGTERM, stop)
    for threads in choice.threads:
        limits = machine_limits(threads)
        text = ", ".join(f"{name} {figure:.3g}" for name, figure in limits.items())
        print(f"limits with {threads} thread(s), in G a second: {text}")
    print(f"{len(rows)} rows; best times in ms\n{COLUMNS}", flush=True)
    bench = Bench(engines, results, options.seconds)
    deadline = started + 60 * minutes if minutes is not None else float("inf")
    try:
        left = bench.run(rows, deadline)
    except KeyboardInterrupt:
        print("stopped; the same command goes on" if options.output else "stopped")
        return 130
    if left:
        print(f"time is up: {left} rows left out")
    text = summary(results.machine, results.records)
    print(f"\n{text}")
    if options.output:
        tables = f"# Benchmark\n\n{text}\n\n## All rows: best (median) in ms\n\n"
        page = options.output.with_suffix(".md")
        page.write_text(f"{tables}{row_table(results.records)}\n", encoding="utf-8")
    slow = below_floor(results.records, options.floor) if options.floor is not None else []
    for row in slow:
        print(f"below the floor of {options.floor}: {row.name}", file=sys.stderr)
    return int(bool(slow))
