"""What pyconv runs on: versions, compiler, instruction sets, threads."""

from __future__ import annotations

import os
import platform
import sys
from typing import Any

import numpy as np

import pyconv
from pyconv import _core


def show_config(as_dict: bool = False) -> dict[str, Any] | None:
    """Print versions, compiler, instruction sets and threads.

    Parameters
    ----------
    as_dict : bool, default: False
        Return a dict instead of printing.

    Returns
    -------
    dict or None
        Keys are strings; values are strings, numbers or lists of strings.

    Examples
    --------
    >>> import pyconv
    >>> config = pyconv.show_config(as_dict=True)
    >>> config["pyconv"] == pyconv.__version__
    True
    """
    built = dict(_core.build_info())
    features = built.pop("cpu", {})
    config = {
        "pyconv": pyconv.__version__,
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "numpy": np.__version__,
        "platform": platform.platform(),
        "cpu": _cpu_name(),
        "cpu_features": [name for name, found in features.items() if found],
        "cpus": _cpus(),
        "threads": pyconv.get_num_threads(),
        **built,
        **{name: os.environ[name] for name in _VARIABLES if name in os.environ},
    }
    if as_dict:
        return config
    width = max(map(len, config))
    for key, value in config.items():
        text = ", ".join(map(str, value)) if isinstance(value, (list, tuple)) else value
        print(f"{key:<{width}}  {text}")
    return None


# What changes how pyconv runs; shown where set.
_VARIABLES = ("PYCONV_NUM_THREADS", "OMP_NUM_THREADS", "PYCONV_ISA")


def _cpus() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _cpu_name() -> str:
    if sys.platform == "linux":
        try:
            with open("/proc/cpuinfo", encoding="utf-8", errors="replace") as lines:
                for line in lines:
                    if line.startswith("model name"):
                        return line.partition(":")[2].strip()
        except OSError:
            pass
    return platform.processor() or platform.machine()
