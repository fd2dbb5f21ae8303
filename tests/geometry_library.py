"""csrc/geom alone, as a shared library through ctypes, for the tests of its sizes and its words."""

import atexit
import ctypes
import functools
import re
import shlex
import shutil
import subprocess
import sysconfig
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from geometry_reference import Window

ROOT = Path(__file__).resolve().parents[1]
INT64_MIN, INT64_MAX = -(2**63), 2**63 - 1
KINDS = {0: None, 1: ValueError, 2: MemoryError}  # pc_status
TEXT_SIZE = 640

i64 = ctypes.c_int64
Sizes = dict[str, int]

# Beside the room: how large the structs are that this file mirrors, and a sum that may wrap.
PROBE = """
#include "geom/geom.h"
int64_t probe_sizes(int which);
int64_t probe_sum(int64_t a, int64_t b);
int64_t probe_sizes(int which)
{
    return (int64_t)(which == 0   ? sizeof(pc_window)
                     : which == 1 ? sizeof(pc_conv_geom)
                     : which == 2 ? sizeof(pc_pool_geom)
                                  : sizeof(pc_error));
}
int64_t probe_sum(int64_t a, int64_t b) { return a + b; }
"""


class CWindow(ctypes.Structure):
    """Mirror of pc_window."""

    _fields_ = (
        ("kernel", i64 * 2),
        ("stride", i64 * 2),
        ("dilation", i64 * 2),
        ("pad", i64 * 2 * 2),
        ("rule", ctypes.c_int),
        ("mode", ctypes.c_int),
        ("ceil_mode", ctypes.c_bool),
    )

    @classmethod
    def of(cls, window: Window) -> "CWindow":
        """Make the C window of a Python one."""
        pad = (i64 * 2 * 2)(*((i64 * 2)(*sides) for sides in window.pad))
        pairs = (window.kernel, window.stride, window.dilation)
        rest = (window.rule, window.mode, window.ceil_mode)
        return cls(*((i64 * 2)(*pair) for pair in pairs), pad, *rest)

    def padding(self) -> tuple[Any, Any]:
        """Return ((top, bottom), (left, right))."""
        return tuple(self.pad[0]), tuple(self.pad[1])


WINDOWS = ("ih", "iw", "oh", "ow", "kh", "kw", "sh", "sw", "dh", "dw")
CONV_FIELDS = ("n", "g", "ic", "oc", *WINDOWS, "pt", "pb", "pl", "pr")
POOL_FIELDS = ("n", "c", *WINDOWS, "pt", "pl")


class ConvGeom(ctypes.Structure):
    """Mirror of pc_conv_geom."""

    _fields_ = (*((name, i64) for name in CONV_FIELDS), ("mode", ctypes.c_int))


class PoolGeom(ctypes.Structure):
    """Mirror of pc_pool_geom."""

    _fields_ = tuple((name, i64) for name in POOL_FIELDS)


class Failure(Exception):
    """What C said: the kind of Python exception that it asks for, and the text."""

    def __init__(self, kind: type[Exception], text: str) -> None:
        super().__init__(f"{kind.__name__}: {text}")
        self.kind = kind
        self.text = text


class Geometry:
    """The room, loaded. Each method returns what C filled in, or raises what it said."""

    def __init__(self, path: Path) -> None:
        self.c = ctypes.CDLL(str(path))
        self.c.pc_pad_source.restype = i64
        self.c.pc_pad_source.argtypes = (ctypes.c_int, i64, i64)
        self.c.pc_avg_pool_count.restype = i64
        self.c.pc_avg_pool_count.argtypes = (i64, i64, i64, i64, i64, ctypes.c_bool)
        self.c.pc_channels_check.argtypes = (i64, i64, i64, ctypes.c_void_p, ctypes.c_void_p)
        self.c.probe_sizes.restype = i64
        self.c.probe_sum.restype = i64
        self.c.probe_sum.argtypes = (i64, i64)

    def ask(self, function: Callable[..., int], *arguments: Any) -> None:
        """Call a function whose last parameter is a pc_error."""
        text = ctypes.create_string_buffer(b"\x5a" * TEXT_SIZE, TEXT_SIZE)
        kind = KINDS[function(*arguments, text)]
        if kind is not None:
            said = text.value.decode()
            assert 20 < len(said) < TEXT_SIZE - 1, f"too short, or cut: {said}"
            raise Failure(kind, said)

    def fill(self, result: Any, function: Callable[..., int], *arguments: Any) -> Sizes:
        """Call a function that fills a struct before the error, and read all its fields."""
        ctypes.memset(ctypes.byref(result), 0x5A, ctypes.sizeof(result))
        before = bytes(result)
        try:
            self.ask(function, *arguments, ctypes.byref(result))
        except Failure:
            assert bytes(result) == before, "an error changed the result"
            raise
        return {name: getattr(result, name) for name, _ in result._fields_}

    def check_window(self, window: Window) -> Window:
        """pc_window_check."""
        given = CWindow.of(window)
        before = bytes(given)
        try:
            self.ask(self.c.pc_window_check, ctypes.byref(given))
        except Failure:
            assert bytes(given) == before, "an error changed the window"
            raise
        return window._replace(pad=given.padding())

    def check_pool_window(self, window: Window) -> None:
        """pc_pool_window_check."""
        self.ask(self.c.pc_pool_window_check, ctypes.byref(CWindow.of(window)))

    def check_channels(self, in_channels: int, out_channels: int, groups: int, kernel: Any) -> None:
        """pc_channels_check."""
        pair = (i64 * 2)(*kernel)
        self.ask(self.c.pc_channels_check, in_channels, out_channels, groups, pair)

    def check_output_padding(self, window: Window, output_padding: Any) -> None:
        """pc_output_padding_check."""
        pair = (i64 * 2)(*output_padding)
        self.ask(self.c.pc_output_padding_check, ctypes.byref(CWindow.of(window)), pair)

    def conv(self, shape: Any, ic: int, oc: int, g: int, window: Window) -> Sizes:
        """pc_conv_geometry."""
        sizes = ((i64 * 4)(*shape), i64(ic), i64(oc), i64(g))
        given = CWindow.of(window)
        return self.fill(ConvGeom(), self.c.pc_conv_geometry, *sizes, ctypes.byref(given))

    def conv_transpose(
        self,
        shape: Any,
        ic: int,
        oc: int,
        g: int,
        window: Window,
        output_padding: Any = (0, 0),
        output_size: Any = None,
    ) -> Sizes:
        """pc_conv_transpose_geometry."""
        sizes = ((i64 * 4)(*shape), i64(ic), i64(oc), i64(g))
        given = CWindow.of(window)
        wanted = None if output_size is None else (i64 * 2)(*output_size)
        more = (ctypes.byref(given), (i64 * 2)(*output_padding), wanted)
        return self.fill(ConvGeom(), self.c.pc_conv_transpose_geometry, *sizes, *more)

    def pool(self, shape: Any, window: Window) -> Sizes:
        """pc_pool_geometry."""
        given = CWindow.of(window)
        return self.fill(
            PoolGeom(), self.c.pc_pool_geometry, (i64 * 4)(*shape), ctypes.byref(given)
        )

    def pad_source(self, mode: int, i: int, size: int) -> int:
        """pc_pad_source."""
        return int(self.c.pc_pad_source(mode, i, size))

    def avg_pool_count(self, *arguments: Any) -> int:
        """pc_avg_pool_count."""
        return int(self.c.pc_avg_pool_count(*arguments))


@functools.cache
def compiler() -> list[str]:
    """Return the command of the C compiler that made this Python, or of any other."""
    for command in (sysconfig.get_config_var("CC"), "cc"):
        if command and shutil.which(shlex.split(command)[0]):
            return shlex.split(command)
    pytest.skip("no C compiler")


@functools.cache
def load(*flags: str) -> Geometry | None:
    """Compile and load the room; None where the compiler cannot with these flags."""
    folder = Path(tempfile.mkdtemp(prefix="pyconv-geom-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    probe, made = folder / "probe.c", folder / "libgeom.so"
    probe.write_text(PROBE, encoding="utf-8")
    sources = [ROOT / "csrc/base/error.c", *sorted((ROOT / "csrc/geom").glob("*.c")), probe]
    fixed = ["-std=gnu11", "-O1", "-g0", "-fPIC", "-shared", f"-I{ROOT / 'csrc'}"]
    command = [*compiler(), *fixed, *flags, "-o", str(made), *map(str, sources)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0 and not flags:
        pytest.fail(done.stderr)
    return Geometry(made) if done.returncode == 0 else None


def load_checked() -> Geometry:
    """Load the room with the sanitizer: a sum that wraps or a division by zero ends the process."""
    room = load("-fsanitize=undefined", "-fno-sanitize-recover=all", "-fno-wrapv")
    if room is None:
        pytest.skip("this compiler has no sanitizer of undefined behaviour")
    return room


def outcome(function: Callable[..., Any], *arguments: Any) -> Any:
    """Return what a function returns, or the kind of its error."""
    try:
        return function(*arguments)
    except Failure as failure:
        return failure.kind
    except (ValueError, MemoryError) as error:
        return type(error)


def square(kernel: int, **more: Any) -> Window:
    """Return a window that is the same on both axes."""
    return Window((kernel, kernel), **more)


ARITHMETIC = re.compile(r"output (?:height|width) = (.+) = (-?\d+)$")


def check_arithmetic(text: str) -> bool:
    """Do the sum that a message shows; tell whether it shows one."""
    shown = ARITHMETIC.search(text)
    if shown is None:
        assert "= floor(" not in text and "= ceil(" not in text
        return False
    formula = re.sub(r"floor\(\((.*)\)/(\d+)\)", r"((\1) // \2)", shown[1])
    formula = re.sub(r"ceil\(\((.*)\)/(\d+)\)", r"(-(-(\1) // \2))", formula)
    assert re.fullmatch(r"[-+*/() 0-9]+", formula), formula
    assert eval(formula) == int(shown[2]) < 1
    return True
