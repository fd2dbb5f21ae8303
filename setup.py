"""Build of pyconv._core, the C extension. What does not concern C is in pyproject.toml.

Every C file is one unit with its own flags, compiled in parallel, and linked into one extension.
The files of csrc/isa named isa_<name>.c hold all kernels for one instruction set and get that set's
flags from the table ISAS; everything else is compiled for the plain machine. Which set runs is
chosen at run time, by csrc/isa/dispatch.c.

Switches (environment variables):

    PYCONV_WERROR=1                             warnings are errors
    PYCONV_DEBUG=1                              -O1 -g, asserts on, nothing stripped
    PYCONV_SANITIZE=address|undefined|thread    the same with that sanitizer, or address,undefined

The tests import this file for its tables: `core_units()` is everything that knows no Python, so
that a test can build the kernels and operators without an interpreter, from the same list and with
the same flags.
"""

import hashlib
import os
import platform
import sys
import sysconfig
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

ROOT = Path(__file__).resolve().parent
CSRC = Path("csrc")
CORE_ROOMS = ("base", "geom", "ops")  # beside isa/, which has flags of its own
PYTHON_ROOM = "py"


class Isa(NamedTuple):
    """An instruction set: its flags, and the machines that have it (none named: every machine).

    The kernels are unrolled by hand, so what -O3 adds to -O2 is a tenth more code; the last resort
    of a machine without AVX2 is small before it is fast.
    """

    flags: tuple[str, ...]
    machines: tuple[str, ...]
    optimize: str = "-O3"


X86_64 = ("x86_64", "amd64")
ARM64 = ("aarch64", "arm64")

# The one table of instruction sets. isa_<name>.c is compiled with these flags, and dispatch.c is
# told PC_HAVE_<NAME>.
ISAS = {
    "baseline": Isa((), (), "-Os"),
    "avx2": Isa(("-mavx2", "-mfma"), X86_64),
    "avx512": Isa(
        (
            *("-mavx512f", "-mavx512bw", "-mavx512dq", "-mavx512vl", "-mavx2", "-mfma"),
            "-mprefer-vector-width=512",
        ),
        X86_64,
        "-O2",
    ),
    "neon": Isa((), ARM64),
}

WARNINGS = ("-Wall", "-Wextra", "-Wshadow", "-Wconversion", "-Wvla")

# No contraction: a multiply-add is fused where the code says so and nowhere else, so that the
# results are the same bits whatever the compiler. No symbol is visible but those that say so:
# PyInit__core.
LANGUAGE = ("-std=gnu11", "-ffp-contract=off", "-fno-math-errno", "-fvisibility=hidden")


class Unit(NamedTuple):
    """One C file and the flags it is compiled with, include directories and macros among them."""

    source: Path
    flags: tuple[str, ...]


def compile_flags(env: Mapping[str, str] = os.environ) -> tuple[str, ...]:
    """Flags that every unit gets."""
    flags = [*LANGUAGE, f"-I{CSRC}", *WARNINGS]
    if is_on(env, "PYCONV_WERROR"):
        flags.append("-Werror")
    sanitizers = env.get("PYCONV_SANITIZE", "")
    if sanitizers:
        # Python's own flags hold -fwrapv, which would hide overflow from the sanitizer.
        flags += [f"-fsanitize={sanitizers}", "-fno-omit-frame-pointer", "-fno-wrapv"]
        flags.append("-fno-sanitize-recover=all")
    # What loops long is in isa/; -O3 would be 45 kB more code here.
    flags += (
        ["-O1", "-g", "-UNDEBUG"]
        if is_debug(env)
        else ["-O2", "-ftree-vectorize", "-g0", "-DNDEBUG"]
    )
    return tuple(flags)


def link_flags(env: Mapping[str, str] = os.environ) -> tuple[str, ...]:
    """Flags of the link: no unused library, read-only address tables, stripped in a release."""
    flags = ["-pthread"]
    if sys.platform == "linux":
        flags += ["-Wl,--as-needed", "-Wl,-z,relro,-z,now", "-lm"]
        if not is_debug(env):
            flags.append("-Wl,-s")
    sanitizers = env.get("PYCONV_SANITIZE", "")
    if sanitizers:
        flags.append(f"-fsanitize={sanitizers}")
    return tuple(flags)


def is_on(env: Mapping[str, str], name: str) -> bool:
    """Tell whether a switch is set to something else than nothing and 0."""
    return env.get(name, "") not in ("", "0")


def is_debug(env: Mapping[str, str]) -> bool:
    """Tell whether asserts and debugging information are wanted."""
    return is_on(env, "PYCONV_DEBUG") or bool(env.get("PYCONV_SANITIZE", ""))


def isas_for(machine: str) -> dict[str, Isa]:
    """Return the rows of ISAS that can be compiled for `machine`, weakest first."""
    wanted = machine.lower()
    return {name: isa for name, isa in ISAS.items() if not isa.machines or wanted in isa.machines}


def isa_units(machine: str = platform.machine(), env: Mapping[str, str] = os.environ) -> list[Unit]:
    """One unit per instruction set of the machine, and the file that chooses between them."""
    isas = isas_for(machine)
    flags = compile_flags(env)
    units = [
        Unit(
            CSRC / "isa" / f"isa_{name}.c",
            (*flags, *isa.flags, *(() if is_debug(env) else (isa.optimize,))),
        )
        for name, isa in isas.items()
    ]
    have = tuple(f"-DPC_HAVE_{name.upper()}=1" for name in isas)
    return [*units, Unit(CSRC / "isa" / "dispatch.c", (*flags, *have))]


def core_units(
    machine: str = platform.machine(), env: Mapping[str, str] = os.environ
) -> list[Unit]:
    """Everything that knows no Python, the large units first: no core waits for them at the end."""
    flags = compile_flags(env)
    return isa_units(machine, env) + [
        Unit(source, flags) for room in CORE_ROOMS for source in sources_of(room)
    ]


def python_units(env: Mapping[str, str] = os.environ) -> list[Unit]:
    """The units that see Python and NumPy, whose headers' warnings are not ours."""
    import numpy

    headers = (
        sysconfig.get_path("include"),
        sysconfig.get_path("platinclude"),
        numpy.get_include(),
    )
    system = tuple(f"-isystem{path}" for path in dict.fromkeys(headers))
    return [Unit(source, compile_flags(env) + system) for source in sources_of(PYTHON_ROOM)]


def sources_of(room: str) -> list[Path]:
    """Return the C files of a room, in a fixed order."""
    return sorted(path.relative_to(ROOT) for path in (ROOT / CSRC / room).glob("*.c"))


def headers() -> list[str]:
    """Everything that a C file may include: a change in one of them rebuilds what includes it."""
    found = (path for end in ("*.h", "*.def") for path in (ROOT / CSRC).rglob(end))
    return sorted(str(path.relative_to(ROOT)) for path in found)


def is_fresh(made: Path, depfile: Path) -> bool:
    """Tell whether an object is newer than all that it was made from, as the compiler listed it."""
    if not (made.exists() and depfile.exists()):
        return False
    _, _, files = depfile.read_text().partition(":")
    age = made.stat().st_mtime
    sources = [Path(name) for name in [*files.replace("\\\n", " ").split(), "setup.py"]]
    return all(path.exists() and path.stat().st_mtime < age for path in sources)


class BuildExt(build_ext):
    """Compiles the units, each with its own flags, and leaves the link to setuptools."""

    def build_extension(self, ext: Extension) -> None:
        """Compile all units in parallel, then link them."""
        units = core_units() + python_units()
        with ThreadPoolExecutor(self.parallel or os.cpu_count()) as pool:
            ext.extra_objects = list(pool.map(self.compile_unit, units))
        self.force = (
            True  # linking takes no time, and a change of flags must not leave the old file behind
        )
        super().build_extension(ext)

    def compile_unit(self, unit: Unit) -> str:
        """Compile one unit unless its object is fresh. Other flags have other folders."""
        command = "\n".join([*self.compiler.compiler_so, *unit.flags])
        folder = Path(self.build_temp, hashlib.sha256(command.encode()).hexdigest()[:12])
        made = folder / unit.source.with_suffix(".o")
        depfile = made.with_suffix(".d")
        if not is_fresh(made, depfile):
            made.parent.mkdir(parents=True, exist_ok=True)
            self.compiler.compile(
                [str(unit.source)],
                output_dir=str(folder),
                extra_postargs=[*unit.flags, "-MMD", "-MF", str(depfile)],
            )
        return str(made)


def extension() -> Extension:
    """Return the extension without sources of its own: BuildExt hands its objects over."""
    return Extension(
        "pyconv._core",
        sources=[],
        depends=headers(),
        extra_link_args=list(link_flags()),
    )


if __name__ == "__main__":
    setup(ext_modules=[extension()], cmdclass={"build_ext": BuildExt})
