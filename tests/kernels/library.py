"""The C rooms below Python as a shared library, and the scalar oracle beside it, through ctypes.

The library is built from the same list of files and with the same flags as the extension (setup.py
has both), but for the visibility of symbols: the extension shows one, a test needs them all. It is
linked without Python, which is a test of its own: a room that called Python would not link.
"""

import ctypes
import functools
import importlib.util
import os
import platform
import re
import shlex
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from guarded import in_fork

ROOT = Path(__file__).resolve().parents[2]
HERE = Path(__file__).resolve().parent

Array = np.ndarray[Any, np.dtype[Any]]

DTYPES = {"f32": np.dtype(np.float32), "f64": np.dtype(np.float64)}
TAP_DTYPES = {"f32": np.dtype(np.int32), "f64": np.dtype(np.int64)}

# ---- the structs of kernels.h ----

i64, pointer = ctypes.c_int64, ctypes.c_void_p


class DenseArgs(ctypes.Structure):
    """Mirror of pc_dense_args."""

    _fields_ = (
        ("out", pointer),
        ("out_step", i64),
        ("rows", i64),
        ("columns", i64),
        ("init", pointer),
        ("init_step", i64),
        ("accumulate", ctypes.c_bool),
        ("vec", pointer),
        ("scal", pointer),
        ("outer", i64),
        ("count", i64),
        ("rest", i64),
        ("vec_outer", i64),
        ("list", pointer),
        ("ahead", i64),
    )


class PackArgs(ctypes.Structure):
    """Mirror of pc_pack_args."""

    _fields_ = (
        ("to", pointer),
        ("source", pointer),
        ("channels", i64),
        ("steps", i64),
        ("rows", i64),
        ("channel_step", i64),
        ("row_step", i64),
        ("ahead", i64),
        ("place", pointer),
        ("places", i64),
        ("channel", i64),
    )


class CopyArgs(ctypes.Structure):
    """Mirror of pc_copy_args."""

    _fields_ = (
        ("to", pointer),
        ("source", pointer),
        ("rows", i64),
        ("columns", i64),
        ("to_step", i64),
        ("from_step", i64),
        ("from_column", i64),
        ("ahead", i64),
    )


class WeightArgs(ctypes.Structure):
    """Mirror of pc_weight_args."""

    _fields_ = (
        ("out", pointer),
        ("rows", i64),
        ("vectors", i64),
        ("accumulate", ctypes.c_bool),
        ("vec", pointer),
        ("scal", pointer),
        ("offset", pointer),
        ("row_count", i64),
        ("columns", i64),
        ("pixel_step", i64),
        ("row", pointer),
    )


class TransposeArgs(ctypes.Structure):
    """Mirror of pc_transpose_args."""

    _fields_ = (
        *[("out", pointer), ("out_step", i64), ("input", pointer)],
        *[(name, i64) for name in ("in_step", "rows", "columns")],
        ("add", ctypes.c_bool),
    )


class StripsArgs(ctypes.Structure):
    """Mirror of pc_strips_args."""

    _fields_ = (("sums", pointer), ("input", pointer), ("count", i64))


class RowsArgs(ctypes.Structure):
    """Mirror of pc_rows_args."""

    _fields_ = (
        ("out", pointer),
        *[(name, i64) for name in ("out_step", "limit", "rows", "columns")],
        *[(name, pointer) for name in ("init", "vec")],
        *[(name, i64) for name in ("vec_step", "taps")],
        *[(name, pointer) for name in ("offset", "weight")],
        *[(name, i64) for name in ("slide", "height", "width")],
    )


class WalkArgs(ctypes.Structure):
    """Mirror of pc_walk_args."""

    _fields_ = (
        ("out", pointer),
        *[(name, i64) for name in ("out_step", "out_ahead", "rows", "columns")],
        *[(name, pointer) for name in ("init", "weight", "vec")],
        *[(name, i64) for name in ("vec_step", "vec_ahead", "vec_rows")],
        *[(name, i64) for name in ("first", "stride", "size")],
        *[(name, ctypes.c_bool) for name in ("odd", "up")],
        ("column", pointer),
    )


class RowsWeightArgs(ctypes.Structure):
    """Mirror of pc_rows_weight_args."""

    _fields_ = (
        *[(name, pointer) for name in ("sums", "grad")],
        *[(name, i64) for name in ("grad_step", "grad_ahead", "rows", "columns")],
        ("vec", pointer),
        *[(name, i64) for name in ("vec_step", "vec_ahead", "vec_rows")],
        *[(name, i64) for name in ("first", "stride", "dilation", "across", "height", "width")],
        ("column", pointer),
    )


class PlanesArgs(ctypes.Structure):
    """Mirror of pc_planes_args."""

    _fields_ = (
        *[(name, pointer) for name in ("out", "in_", "weight", "init")],
        *[(name, i64) for name in ("planes", "count", "in_step", "taps")],
        *[(name, pointer) for name in ("offset", "inside")],
    )


class RowsCopyArgs(ctypes.Structure):
    """Mirror of pc_rows_copy_args."""

    _fields_ = (
        ("wide", pointer),
        ("narrow", pointer),
        ("rows", i64),
        ("columns", i64),
        ("stride", i64),
        ("wide_step", i64),
        ("wide_column", i64),
        ("narrow_step", i64),
        ("phase_step", i64),
        ("limit", i64),
    )


class PoolArgs(ctypes.Structure):
    """Mirror of pc_pool_args."""

    _fields_ = (
        ("out", pointer),
        ("indices", pointer),
        ("src", pointer),
        ("planes", i64),
        ("src_plane", i64),
        ("rows", i64),
        ("columns", i64),
        ("out_row", i64),
        ("src_rows", i64),
        ("src_columns", i64),
        ("src_row", i64),
        ("readable", i64),
        ("kh", i64),
        ("kw", i64),
        ("sh", i64),
        ("sw", i64),
        ("dh", i64),
        ("dw", i64),
        ("top", i64),
        ("left", i64),
        ("cells", pointer),
        ("row_cells", pointer),
        ("start", pointer),
        ("place", pointer),
        ("base", i64),
        ("base_row", i64),
        ("row_number", i64),
        ("column_number", i64),
        ("work", pointer),
    )


POOL_ROWS = 8  # PC_POOL_ROWS


class PairsArgs(ctypes.Structure):
    """Mirror of pc_pairs_args."""

    _fields_ = (
        ("grad_in", pointer),
        ("grad_out", pointer),
        ("indices", pointer),
        ("grad_row", i64),
        ("index_row", i64),
        ("rows", i64),
        ("columns", i64),
        ("width", i64),
        ("strange", pointer),
    )


class ChainsArgs(ctypes.Structure):
    """Mirror of pc_chains_args."""

    _fields_ = (
        ("values", pointer),
        ("factor", ctypes.c_double),
        ("term", ctypes.c_double),
        ("rounds", i64),
    )


class MapArgs(ctypes.Structure):
    """Mirror of pc_map_args."""

    _fields_ = (
        ("out", pointer),
        ("in_", pointer),
        ("grad", pointer),
        ("bits", pointer),
        ("count", i64),
    )


class SpanArgs(ctypes.Structure):
    """Mirror of pc_span_args."""

    _fields_ = (
        ("out", pointer),
        ("in_", pointer),
        ("first", pointer),
        ("count", pointer),
        ("planes", i64),
        ("plane_step", i64),
        ("spans", i64),
        ("step", i64),
        ("columns", i64),
    )


class NormSumsArgs(ctypes.Structure):
    """Mirror of pc_norm_sums_args."""

    _fields_ = (
        ("sums", pointer),
        ("u", pointer),
        ("v", pointer),
        ("u0", ctypes.c_double),
        ("v0", ctypes.c_double),
        ("rows", i64),
        ("u_step", i64),
        ("v_step", i64),
        ("count", i64),
    )


class NormMapArgs(ctypes.Structure):
    """Mirror of pc_norm_map_args."""

    _fields_ = (
        ("out", pointer),
        ("in_", pointer),
        ("more", pointer),
        ("lines", pointer),  # of four doubles each
        ("rows", i64),
        ("out_step", i64),
        ("in_step", i64),
        ("more_step", i64),
        ("count", i64),
    )


@functools.cache
def listed_kernels() -> tuple[str, ...]:
    """Return the names in kernels.def."""
    return tuple(name for _, name in kernel_rows())


@functools.cache
def kernel_rows() -> list[tuple[str, str]]:
    """Return the macro and the name of each line of kernels.def."""
    text = (ROOT / "csrc" / "kernels" / "kernels.def").read_text(encoding="utf-8")
    code = re.sub(r"/\*.*?\*/", "", text, flags=re.DOTALL)
    return re.findall(
        r"^\s*(PC_KERNEL|PC_NARROW_KERNEL|PC_WIDE_KERNEL)\(\s*(\w+)", code, flags=re.MULTILINE
    )


def narrow_of(isa: str) -> str:
    """Return the ISA that serves an ISA's pools and short rows: the one it names, or itself."""
    text = (ROOT / "csrc" / "isa" / f"isa_{isa}.c").read_text(encoding="utf-8")
    named = re.search(r"^#define PC_ISA_NARROW (\w+)$", text, flags=re.MULTILINE)
    return named[1] if named else isa


def has_kernel(isa: str, kernel: str) -> bool:
    """Tell whether an ISA has a kernel of its own: one with a narrow one leaves it the pools."""
    other = "PC_WIDE_KERNEL" if narrow_of(isa) == isa else "PC_NARROW_KERNEL"
    return (other, kernel) not in kernel_rows()


class Kernels(ctypes.Structure):
    """Mirror of pc_kernels: the sizes, then one address per line of kernels.def."""

    _fields_ = (
        ("lanes", i64),
        ("tile_rows", i64),
        ("tile_columns", i64),
        ("dense_rows", i64),
        ("dense_vectors", i64 * 8),
        *[(name, pointer) for name in listed_kernels()],
    )


class Isa(ctypes.Structure):
    """Mirror of pc_isa."""

    _fields_ = (
        ("name", ctypes.c_char_p),
        ("narrow", pointer),
        ("fma", ctypes.c_bool),
        ("f32", Kernels),
        ("f64", Kernels),
    )


class Table:
    """One ISA's kernels for one dtype."""

    def __init__(self, isa: Isa, name: str) -> None:
        self.isa = isa.name.decode()
        self.fma = bool(isa.fma)
        self.name = name
        self.dtype = DTYPES[name]
        self.tap_dtype = TAP_DTYPES[name]
        self.kernels: Kernels = getattr(isa, name)
        self.lanes = int(self.kernels.lanes)
        self.tile_rows = int(self.kernels.tile_rows)
        self.tile_columns = int(self.kernels.tile_columns)
        self.dense_rows = int(self.kernels.dense_rows)
        self.dense_vectors = tuple(self.kernels.dense_vectors)[: self.dense_rows]

    def call(self, kernel: str, args: ctypes.Structure) -> None:
        """Run a kernel."""
        function = ctypes.CFUNCTYPE(None, pointer)(getattr(self.kernels, kernel))
        function(ctypes.addressof(args))

    def whole(self, columns: int) -> int:
        """Return `columns` rounded up to whole vectors."""
        return -(-columns // self.lanes) * self.lanes


class Library:
    """The rooms below Python, loaded."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.c = ctypes.CDLL(str(path))
        self.c.pc_isa_compiled.restype = ctypes.POINTER(ctypes.POINTER(Isa))
        self.c.pc_isa_chosen.restype = ctypes.POINTER(Isa)
        self.c.pc_isa_usable.restype = ctypes.c_bool
        self.c.pc_isa_choose.restype = ctypes.c_bool
        self.c.pc_isa_choose.argtypes = (ctypes.c_char_p,)
        self.c.pc_scratch_take.restype = pointer
        self.c.pc_scratch_take.argtypes = (ctypes.c_size_t,)
        self.c.pc_scratch_give.argtypes = (pointer,)

    def isas(self) -> dict[str, Isa]:
        """Return the compiled-in tables by name, in their order."""
        found, tables = {}, self.c.pc_isa_compiled()
        for table in tables:  # ends at NULL, as the array does
            if not table:
                break
            found[table.contents.name.decode()] = table.contents
        return found

    def usable(self, isa: Isa) -> bool:
        """Tell whether this machine can run a table."""
        return bool(self.c.pc_isa_usable(ctypes.byref(isa)))

    def table(self, isa: str, dtype: str) -> Table:
        """Return the kernels of an ISA, or skip the test on a machine without it."""
        found = self.isas()[isa]
        if not self.usable(found):
            pytest.skip(f"this machine has no {isa}")
        return Table(found, dtype)

    def tables(self, dtype: str) -> list[Table]:
        """Return the kernels of every ISA that this machine can run."""
        return [Table(isa, dtype) for isa in self.isas().values() if self.usable(isa)]


# ---- building ----


@functools.cache
def build_tables() -> ModuleType:
    """Return setup.py as a module: it guards its setup() and offers its tables."""
    spec = importlib.util.spec_from_file_location("pyconv_setup", ROOT / "setup.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def isa_names() -> list[str]:
    """Return the ISAs that are compiled for this kind of machine."""
    return list(build_tables().isas_for(platform.machine()))


@functools.cache
def compiler() -> list[str]:
    """Return the command of the C compiler; without one the test is skipped."""
    wanted = [os.environ["CC"]] if os.environ.get("CC") else ["cc", "gcc", "clang"]
    for command in map(shlex.split, wanted):
        if command and shutil.which(command[0]):
            return command
    pytest.skip("no C compiler")


@functools.cache
def _folder() -> "tempfile.TemporaryDirectory[str]":
    """Return a folder that lives as long as this process."""
    return tempfile.TemporaryDirectory(prefix="pyconv-kernels-")


def _compile(*arguments: object) -> None:
    """Run the compiler and fail with what it says."""
    command = [*compiler(), *map(str, arguments)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    if done.returncode != 0:
        pytest.fail(f"{shlex.join(command)}\n{done.stderr}")


def build_objects(units: list[Any], *flags: str) -> list[Path]:
    """Compile units of setup.py's tables with some flags more."""
    folder = Path(_folder().name)

    def build_unit(unit: Any) -> Path:
        made = folder / f"{unit.source.parent.name}-{unit.source.stem}.o"
        _compile("-fPIC", *unit.flags, *flags, "-c", unit.source, "-o", made)
        return made

    compiler()  # here, so that the skip is not raised in a thread
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        return list(pool.map(build_unit, units))


@functools.cache
def core_objects() -> list[Path]:
    """Compile the rooms below Python."""
    return build_objects(build_tables().core_units(), "-fvisibility=default")


def link(name: str, *arguments: object, whole: bool) -> Path:
    """Link a shared library, where nothing may be missing if it is a whole."""
    made = Path(_folder().name) / name
    sanitizers = os.environ.get("PYCONV_SANITIZE")
    strict = [f"-fsanitize={sanitizers}"] if sanitizers else ["-Wl,-z,defs"] if whole else []
    _compile("-shared", "-o", made, *arguments, *strict, "-pthread", "-lm")
    return made


@functools.cache
def build_library() -> Path:
    """Link the rooms below Python."""
    return link("libpyconv.so", *core_objects(), whole=True)


@functools.cache
def build_oracle() -> Path:
    """Compile and link the scalar oracle. Nothing in it may be fused that does not say so."""
    made = Path(_folder().name) / "liboracle.so"
    flags = ["-std=gnu11", "-O2", "-ffp-contract=off", "-fPIC", "-Icsrc", "-Wall", "-Wextra"]
    sources = (HERE / "oracle.c", HERE / "pool_tasks.c")
    _compile(*flags, "-shared", "-o", made, *sources, "-pthread", "-lm")
    return made


@functools.cache
def load_library() -> Library:
    """Return the rooms below Python, built on first use."""
    return Library(build_library())


@functools.cache
def load_oracle() -> ctypes.CDLL:
    """Return the oracle, built on first use."""
    return declare_oracle(ctypes.CDLL(str(build_oracle())))


def declare_oracle(oracle: ctypes.CDLL) -> ctypes.CDLL:
    """Tell ctypes the types of what does not return an int."""
    oracle.oracle_layout.restype = i64
    oracle.oracle_layout.argtypes = (ctypes.c_char_p,)
    for dtype in DTYPES:
        for kernel in ("dense_tile", "weight_tile", "conv_planes"):
            getattr(oracle, f"oracle_{dtype}_{kernel}").argtypes = (pointer, i64, ctypes.c_int)
    oracle.oracle_fp_state.restype = i64
    oracle.oracle_fp_mischief.restype = i64
    oracle.oracle_pool_run.restype = i64
    oracle.oracle_pool_run.argtypes = (pointer, i64)
    oracle.oracle_pool_entered.argtypes = (pointer,)
    oracle.oracle_pool_let_go.argtypes = (pointer,)
    oracle.oracle_pool_hammer.restype = i64
    oracle.oracle_pool_hammer.argtypes = (pointer, i64, ctypes.c_int)
    return oracle


# ---- what the tests share ----


def covers(kernel: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Run a test once per ISA that has `kernel` and dtype, with `table`, each in a fork."""
    isas = [isa for isa in isa_names() if has_kernel(isa, kernel)]
    cases = [(isa, dtype) for isa in isas for dtype in DTYPES]
    names = [f"{kernel}-{dtype}-{isa}" for isa, dtype in cases]
    mark = pytest.mark.parametrize("table", cases, ids=names, indirect=True)
    return lambda test: mark(in_fork(test))


def same_bits(got: Array, expected: Array) -> bool:
    """Tell whether two arrays are the same bytes, but for what a NaN carries."""
    if got.shape != expected.shape or got.dtype != expected.dtype:
        return False
    bits = np.dtype(f"u{got.dtype.itemsize}")
    nans = np.isnan(got) & np.isnan(expected)
    same = np.ascontiguousarray(got).view(bits) == np.ascontiguousarray(expected).view(bits)
    return bool(np.all(same | nans))


def numbers(rng: np.random.Generator, count: int, dtype: Any, *, special: bool = False) -> Array:
    """Return arbitrary numbers of many sizes, some of them subnormal or zeros of either sign.

    With `special` infinities, NaNs and the largest numbers as well.
    """
    limits = np.finfo(dtype)
    values = rng.standard_normal(count) * np.exp2(rng.integers(-12, 13, count))
    rare: list[Any] = [0.0, -0.0, limits.smallest_subnormal * 12345, -limits.smallest_subnormal]
    if special:
        rare += [np.inf, -np.inf, np.nan, limits.max, -limits.max]
    chosen = rng.random(count) < 0.15
    values[chosen] = rng.choice(np.array(rare, np.float64), int(chosen.sum()))
    return values.astype(dtype)


def address(array: Array | None, element: int = 0) -> int | None:
    """Return where an element of a contiguous array lives; it may lie outside the array."""
    return None if array is None else array.ctypes.data + element * array.itemsize
