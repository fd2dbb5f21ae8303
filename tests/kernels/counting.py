"""A copy of the extension that tells what it ran: the same sources, linked with counting.c."""

import ctypes
import functools
import importlib.util
from collections.abc import Callable
from importlib.machinery import ExtensionFileLoader
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

from kernels import library as lib

MAXIMA = (
    "scratch",
    "threads",
    "slab_samples",
    "slab_rows",
    "slab_columns",
    "slab_channels",
    "tile_rows",
    "tile_vectors",
    "band_rows",
    "band_columns",
)
WRAPPED = ("pc_isa_chosen", "pc_scratch_take", "pc_pool_run", "pc_slab_pack")


class Ran(NamedTuple):
    """What has run: how often each kernel, and the largest of what counting.c looks at."""

    kernels: dict[str, int]
    largest: dict[str, int]


class Counted:
    """The copy, as the module ``core``."""

    def __init__(self, path: Path) -> None:
        spec = importlib.util.spec_from_loader(
            "counted._core", ExtensionFileLoader("counted._core", str(path))
        )
        assert spec is not None and spec.loader is not None
        self.core: ModuleType = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(self.core)
        self._take = ctypes.CDLL(str(path)).counting_take

    def run(self, call: Callable[[], Any]) -> Ran:
        """Call, and return what ran for it."""
        names = lib.listed_kernels()
        kernels, largest = (ctypes.c_int64 * len(names))(), (ctypes.c_int64 * len(MAXIMA))()
        self._take(kernels, largest)
        call()
        self._take(kernels, largest)
        counts = {name: count for name, count in zip(names, kernels, strict=True) if count}
        return Ran(counts, dict(zip(MAXIMA, largest, strict=True)))


@functools.cache
def load_counted() -> Counted:
    """Return the copy, built on first use."""
    tables = lib.build_tables()
    own = tables.Unit(Path("tests/kernels/counting.c"), tables.compile_flags())
    objects = lib.core_objects() + lib.build_objects([*tables.python_units(), own], "-O1")
    # Its own symbols first: the extension that the tests import has the same ones.
    wraps = [f"-Wl,--wrap={name}" for name in WRAPPED]
    return Counted(lib.link("_core.so", *objects, "-Wl,-Bsymbolic", *wraps, whole=False))
