"""Measure what pyconv costs on disk and to import, beside NumPy, and torch where it is installed.

    python .ci/measure.py            print the figures
    python .ci/measure.py --check    and fail when one of pyconv's is beyond its limit

Times are of fresh processes, one library after the other in turn; the fastest of the runs counts,
because a busy machine can only add. What pyconv's import costs is counted after NumPy's, which it
needs anyway.
"""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

RUNS = 15
MEGABYTE = 1e6

# The promise for the import is 10 ms; the check leaves room for a slow machine.
LIMITS = {"extension": 1.2 * MEGABYTE, "package": 2.0 * MEGABYTE, "import": 15e-3}

TIME_PYCONV = """
import numpy, time
start = time.perf_counter()
import pyconv
print(time.perf_counter() - start)
"""

TIME_IMPORT = """
import time
start = time.perf_counter()
import {name}
print(time.perf_counter() - start)
"""


def folder_of(name: str) -> Path | None:
    """Return the folder of an installed package, without importing it."""
    spec = importlib.util.find_spec(name)
    return Path(spec.origin).parent if spec and spec.origin else None


def bytes_in(package: Path) -> int:
    """Return the size of a package and of the shared libraries that its wheel put beside it.

    The byte code that Python adds does not count.
    """
    folders = (package, package.with_name(f"{package.name}.libs"))
    files = (path for folder in folders for path in folder.rglob("*") if path.is_file())
    return sum(path.stat().st_size for path in files if "__pycache__" not in path.parts)


def import_times(programs: dict[str, str]) -> dict[str, float]:
    """Run the programs in turn, RUNS times; return the least seconds that each prints."""
    # The first run may compile; what it finds is then kept, as on any machine.
    env = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    seconds: dict[str, list[float]] = {name: [] for name in programs}
    for _ in range(RUNS):
        for name, program in programs.items():
            run = [sys.executable, "-P", "-c", program]
            done = subprocess.run(run, check=True, capture_output=True, text=True, env=env)
            seconds[name].append(float(done.stdout))
    return {name: min(times) for name, times in seconds.items()}


def main() -> int:
    """Print the table; with --check, tell by the exit code whether the limits hold."""
    folders = {name: folder_of(name) for name in ("pyconv", "numpy", "torch")}
    programs = {
        name: TIME_PYCONV if name == "pyconv" else TIME_IMPORT.format(name=name)
        for name, folder in folders.items()
        if folder
    }
    times = import_times(programs)
    print(f"{'':24}{'on disk':>12}{'import':>12}")
    for name, folder in folders.items():
        if folder is None:
            print(f"{name:24}{'not installed':>24}")
            continue
        label = "pyconv (beyond NumPy)" if name == "pyconv" else name
        size = bytes_in(folder) / MEGABYTE
        print(f"{label:24}{size:9.2f} MB{times[name] * 1e3:9.1f} ms")

    package = folders["pyconv"]
    if package is None:
        print("pyconv is not installed")
        return 1
    found = {
        "extension": max(path.stat().st_size for path in package.glob("_core*.so")),
        "package": bytes_in(package),
        "import": times["pyconv"],
    }
    print(f"{'its C extension':24}{found['extension'] / MEGABYTE:9.2f} MB")
    beyond = [name for name, limit in LIMITS.items() if found[name] >= limit]
    for name in beyond:
        print(f"beyond its limit: {name}, {found[name]:.4g} of {LIMITS[name]:.4g}")
    return 1 if beyond and "--check" in sys.argv else 0


if __name__ == "__main__":
    sys.exit(main())
