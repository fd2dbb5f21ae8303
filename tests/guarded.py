"""What keeps a crash inside one test: guard pages around arrays, and child processes around calls.

A read or write beside an array usually hits the heap's own memory and goes unnoticed. An array
that ends exactly where a page ends, before a page that nobody may touch, turns the first byte too
far into a fault. The fault ends the process, so tests that could provoke one run in a child: a
fork, which costs milliseconds, where the test itself is all that runs, and a new interpreter where
threads or a whole package are at stake.
"""

import ctypes
import functools
import importlib.util
import json
import mmap
import os
import signal
import subprocess
import sys
import traceback
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
from numpy.lib.array_utils import byte_bounds

PROT_NONE = 0
PAGE = mmap.PAGESIZE
FLUSH: tuple[Literal["front", "back"], ...] = ("front", "back")

Flush = Literal["front", "back"]
Array = np.ndarray[Any, np.dtype[Any]]

_libc = ctypes.CDLL(None, use_errno=True)


class Pages:
    """At least `size` bytes of memory between two pages that fault when they are touched."""

    def __init__(self, size: int) -> None:
        usable = max(-(-size // PAGE), 1) * PAGE
        private = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS
        self._map = mmap.mmap(-1, usable + 2 * PAGE, flags=private)
        self.bytes: Array = np.frombuffer(self._map, np.uint8)[PAGE:-PAGE]
        self._protect(-PAGE, PAGE, PROT_NONE)
        self._protect(usable, PAGE, PROT_NONE)

    def _protect(self, offset: int, size: int, protection: int) -> None:
        """Set the protection of whole pages; the offset counts from the first usable byte."""
        start = ctypes.c_void_p(self.bytes.ctypes.data + offset)
        if _libc.mprotect(start, ctypes.c_size_t(size), protection) != 0:
            raise OSError(ctypes.get_errno(), "mprotect failed")

    def make_readonly(self) -> None:
        """From now on a write faults as well."""
        self._protect(0, self.bytes.size, mmap.PROT_READ)

    def cut(self, size: int, flush: Flush) -> Array:
        """Return `size` bytes that touch the guard page in front or the one behind."""
        return self.bytes[:size] if flush == "front" else self.bytes[self.bytes.size - size :]

    def array(self, shape: int | Sequence[int], dtype: Any, flush: Flush) -> Array:
        """Return a C-contiguous array that touches a guard page. Its values are what was there."""
        sizes = (shape,) if isinstance(shape, int) else tuple(shape)
        count = int(np.prod(sizes, dtype=np.int64))
        return self.cut(count * np.dtype(dtype).itemsize, flush).view(dtype).reshape(sizes)


def guarded(array: Array, flush: Flush, *, readonly: bool = False) -> Array:
    """Return a copy with the same steps whose first or last byte touches a guard page.

    With `readonly` the memory itself refuses writes, whatever the array's flags say.
    """
    if array.size == 0:
        return array.copy()
    low, high = byte_bounds(array)
    pages = Pages(high - low)
    buffer = pages.cut(high - low, flush)
    copy: Array = np.ndarray(
        array.shape, array.dtype, buffer, array.ctypes.data - low, array.strides
    )
    copy[...] = array
    if readonly:
        pages.make_readonly()
    return copy


CHILD = """
import json, sys
import guarded
print("\\n" + json.dumps(guarded._run_here(*sys.argv[1:3], json.loads(sys.argv[3]))))
"""


def call_in_child(
    function: Callable[..., Any],
    arguments: Mapping[str, Any] | None = None,
    *,
    env: Mapping[str, str] | None = None,
    timeout: float = 120,
) -> Any:
    """Call a module's function in a new interpreter and return its result.

    Arguments and result travel as JSON. The test fails if the child crashes, raises or is not back
    in time.
    """
    __tracebackhide__ = True
    path = os.pathsep.join([str(Path(__file__).parent), *[part for part in sys.path if part]])
    code = function.__code__
    command = [sys.executable, "-P", "-X", "faulthandler", "-c", CHILD]
    try:
        child = subprocess.run(
            [*command, code.co_filename, function.__name__, json.dumps(dict(arguments or {}))],
            env={**os.environ, "PYTHONPATH": path, **(env or {})},
            capture_output=True,
            text=True,
            timeout=timeout,
        )
    except subprocess.TimeoutExpired as late:
        said = (late.stderr or b"").decode(errors="replace")
        pytest.fail(f"no answer within {timeout} s\n{said}", pytrace=False)
    if child.returncode != 0:
        said = f"the child ended with code {child.returncode}\n{child.stderr[-6000:]}"
        pytest.fail(said, pytrace=False)
    return json.loads(child.stdout.splitlines()[-1])


def in_child(test: Callable[..., None]) -> Callable[..., None]:
    """Make a test run in a child. What it gets from fixtures and parameters must be JSON."""

    @functools.wraps(test)
    def run(**arguments: Any) -> None:
        __tracebackhide__ = True
        call_in_child(test, arguments)

    return run


def in_fork(test: Callable[..., None]) -> Callable[..., None]:
    """Make a test run in a fork of this process, so that a fault fails it and not the run.

    For tests of plain C calls, with fixtures and parameters of any kind. They may not skip.
    """

    @functools.wraps(test)
    def run(**arguments: Any) -> None:
        __tracebackhide__ = True
        reader, writer = os.pipe()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # other threads are no matter here
            child = os.fork()
        if child == 0:
            code = 1
            try:
                test(**arguments)
                code = 0
            except BaseException:
                os.write(writer, traceback.format_exc().encode()[-6000:])
            finally:
                os._exit(code)
        os.close(writer)
        with os.fdopen(reader) as pipe:
            said = pipe.read()
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        if code < 0:
            pytest.fail(f"ended by {signal.Signals(-code).name}")
        if code > 0:
            pytest.fail(said, pytrace=False)

    return run


def _run_here(file: str, name: str, arguments: dict[str, Any]) -> Any:
    """Load a file as a module and call one of its functions: the child's half of call_in_child."""
    spec = importlib.util.spec_from_file_location(Path(file).stem + "_in_child", file)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    function = getattr(module, name)
    return getattr(function, "__wrapped__", function)(**arguments)
