"""A file of results: CSV, one line a row, with the machine in comment lines above.

It is written row by row, so a run that was stopped goes on where it was. The row being measured
stands in a file beside it: found there by the next run, that row has killed its process, and is
recorded as crashed.
"""

from __future__ import annotations

import csv
import hashlib
import platform
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

import pyconv
from pyconv import _core
from pyconv._bench.engines import NAMES

if TYPE_CHECKING:
    from pyconv._bench.engines import Engine
    from pyconv._bench.layers import Row
    from pyconv._bench.measure import Outcome

KEY = ("network", "layer", "pass", "n", "dtype", "threads")
TIMES = tuple(f"{name}_{what}_ms" for name in NAMES for what in ("min", "median"))
ABOUT = ("kind", "kernel", "channels", "status", "mflop", "mbytes")
FIELDS = (*KEY, *ABOUT, *TIMES, "limit", "share", "noise")


class Record(NamedTuple):
    """A line of the file, read back."""

    key: tuple[str, ...]
    kind: str
    kernel: tuple[int, int]
    channels: int  # the fewer of input's and output's
    status: str
    mflop: float
    mbytes: float
    best: dict[str, float]  # milliseconds, by engine
    median: dict[str, float]
    limit: float  # giga-operations or gigabytes a second
    noise: float  # the limit's median time / its minimum
    share: float  # of the limit; 0 when the row is lost

    @property
    def pass_(self) -> str:
        """The pass."""
        return self.key[2]

    @property
    def dtype(self) -> str:
        """The dtype."""
        return self.key[4]

    @property
    def threads(self) -> int:
        """The number of threads."""
        return int(self.key[5])

    @property
    def name(self) -> str:
        """For reading."""
        network, layer, pass_, n, dtype, threads = self.key
        return f"{network}/{layer} {pass_} n={n} {dtype.replace('float', 'f')} t{threads}"

    @property
    def right(self) -> bool:
        """Whether it was measured at all; a row that was not is lost."""
        return self.status == "ok"

    def against(self, *names: str) -> float | None:
        """Return time of the fastest of the engines / pyconv's: 0 for a lost row, None without."""
        if not self.right:
            return 0.0
        theirs = [self.best[name] for name in names if name in self.best]
        return min(theirs) / self.best["pyconv"] if theirs else None


def fields_of(outcome: Outcome) -> dict[str, Any]:
    """Return a row's line."""
    row, layer = outcome.row, outcome.row.layer
    line: dict[str, Any] = dict(zip(KEY, row.key, strict=True))
    itemsize = np.dtype(row.dtype).itemsize
    line |= {
        "kind": layer.kind,
        "kernel": f"{layer.kh}x{layer.kw}",
        "channels": min(layer.C, layer.K),
        "status": outcome.status,
        "mflop": f"{layer.flops(row.n) / 1e6:.6g}",
        "mbytes": f"{layer.bytes(row.pass_, row.n, itemsize) / 1e6:.6g}",
    }
    for name, (best, median) in outcome.times.items():
        line[f"{name}_min_ms"] = f"{1e3 * best:.5g}"
        line[f"{name}_median_ms"] = f"{1e3 * median:.5g}"
    if outcome.status == "ok":
        line["noise"] = f"{outcome.noise:.4g}"
        line["limit"] = f"{outcome.limit / 1e9:.5g}"
        line["share"] = f"{outcome.work / outcome.times['pyconv'][0] / outcome.limit:.4g}"
    return line


def record_of(line: dict[str, str]) -> Record:
    """Return a line as numbers."""

    def times(what: str) -> dict[str, float]:
        found = {name: line.get(f"{name}_{what}_ms") for name in NAMES}
        return {name: float(text) for name, text in found.items() if text}

    height, width = line["kernel"].split("x")
    return Record(
        tuple(line[name] for name in KEY),
        line["kind"],
        (int(height), int(width)),
        int(line["channels"]),
        line["status"],
        float(line["mflop"]),
        float(line["mbytes"]),
        times("min"),
        times("median"),
        float(line["limit"] or 0),
        float(line["noise"] or 1),
        float(line["share"] or 0) if line["status"] == "ok" else 0.0,
    )


def about(engines: Iterable[Engine]) -> dict[str, str]:
    """Return what results depend on: machine, build, versions."""
    config = pyconv.show_config(as_dict=True)
    assert config is not None
    core = hashlib.sha256(Path(_core.__file__).read_bytes()).hexdigest()[:12]
    return {
        "cpu": str(config["cpu"]),
        "cpus": str(config["cpus"]),
        "l2": str(l2_bytes()),
        "platform": f"{platform.system()} {platform.machine()}, {'-'.join(platform.libc_ver())}",
        "compiler": str(config["compiler"]),
        "isa": str(config["isa"]),
        "core": core,
        "python": str(config["python"]),
        "numpy": np.__version__,
        **{engine.name: engine.version for engine in engines},
    }


def l2_bytes() -> int:
    """Return the size of a core's second cache; a megabyte where nobody tells."""
    try:
        size = Path("/sys/devices/system/cpu/cpu0/cache/index2/size").read_text(encoding="ascii")
        return int(size.strip().removesuffix("K")) * 1024
    except (OSError, ValueError):
        return 1 << 20


class Results:
    """The lines of a run, in a file if there is one."""

    def __init__(self, path: Path | None, machine: dict[str, str]) -> None:
        self.path, self.machine = path, machine
        self.records: list[Record] = []
        self.marker = path.with_name(path.name + ".running") if path else None
        if path and path.exists():
            # A process that died may have left half a line.
            text = path.read_text(encoding="utf-8")
            path.write_text(text[: text.rfind("\n") + 1], encoding="utf-8")
            self.machine, self.records = read(path)
        elif path:
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("w", newline="", encoding="utf-8") as file:
                file.writelines(f"# {name}: {text}\n" for name, text in machine.items())
                csv.DictWriter(file, FIELDS, lineterminator="\n").writeheader()
        self.keys = {record.key for record in self.records}

    def other_machine(self, machine: dict[str, str]) -> list[str]:
        """Return what is not as it was when the file was begun."""
        names = dict.fromkeys([*self.machine, *machine])
        return [name for name in names if self.machine.get(name) != machine.get(name)]

    def has(self, row: Row) -> bool:
        """Tell whether a row has been measured."""
        return row.key in self.keys

    def crashed(self, rows: Iterable[Row]) -> Row | None:
        """Return the row during which an earlier process died, if there is one."""
        if self.marker is None or not self.marker.exists():
            return None
        key = tuple(self.marker.read_text(encoding="utf-8").rstrip("\n").split("\t"))
        return next((row for row in rows if row.key == key and not self.has(row)), None)

    def begin(self, row: Row) -> None:
        """Note that a row is being measured."""
        if self.marker:
            self.marker.write_text("\t".join(row.key) + "\n", encoding="utf-8")

    def end(self) -> None:
        """Note that none is."""
        if self.marker:
            self.marker.unlink(missing_ok=True)

    def add(self, outcome: Outcome) -> Record:
        """Keep a row."""
        line = fields_of(outcome)
        if self.path:
            with self.path.open("a", newline="", encoding="utf-8") as file:
                csv.DictWriter(file, FIELDS, lineterminator="\n").writerow(line)
        record = record_of({name: str(line.get(name, "")) for name in FIELDS})
        self.records.append(record)
        self.keys.add(record.key)
        return record


def read(path: Path) -> tuple[dict[str, str], list[Record]]:
    """Return the machine and the rows of a file."""
    lines = path.read_text(encoding="utf-8").splitlines()
    comments = [line[2:].partition(": ") for line in lines if line.startswith("# ")]
    table = csv.DictReader(line for line in lines if not line.startswith("#"))
    return {name: text for name, _, text in comments}, [record_of(line) for line in table]
