"""The walls of csrc/: who may include whom, who may call what, and how a kernel gets into the list.

ARCHITECTURE.md says the rules in prose. Here the compiler and `nm` say whether they hold.
"""

import importlib.util
import os
import re
import shlex
import shutil
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import ModuleType

import pytest
from kernels.library import has_kernel, narrow_of

ROOT = Path(__file__).resolve().parents[1]
CSRC = ROOT / "csrc"
CC = shlex.split(os.environ.get("CC", "gcc"))

# What a file of a room may include: whole rooms, or single files.
MAY_INCLUDE = {
    "base": {"base"},
    "geom": {"base", "geom"},
    "simd": {"base", "simd"},
    "kernels": {"base", "geom", "simd", "kernels"},
    "isa": {"base", "geom", "simd", "kernels", "isa"},
    "ops": {
        *("base", "geom", "ops"),
        *("kernels/kernels.h", "kernels/kernels.def", "isa/dispatch.h"),
    },
    "py": {
        *("base", "geom", "ops", "py"),
        *("kernels/kernels.h", "kernels/kernels.def", "isa/dispatch.h"),
    },
}

# Kernels move memory with these and call nothing else: they cannot fail, allocate or print.
KERNELS_MAY_CALL = {"memcpy", "memmove", "memset", "_GLOBAL_OFFSET_TABLE_", "__stack_chk_fail"}

# The only files with globals that change: the pool (with its scratch arenas) and the chosen table.
STATEFUL = {"base/pool.c", "base/scratch.c", "isa/dispatch.c"}

# Never written: the address of a thread's own `me` tells it from the others.
IDENTITIES = {("ops/call.c", "me")}

INCLUDE = re.compile(r'^\s*#\s*include\s+"([^"]+)"', re.MULTILINE)
LIST_ROW = re.compile(r"^PC_(?:NARROW_|WIDE_)?KERNEL\((\w+), (\w+), (\w+), (\w+)\)$", re.MULTILINE)
COMMENT = re.compile(r"/\*.*?\*/", re.DOTALL)


def load_setup() -> ModuleType:
    """Import setup.py for its tables."""
    spec = importlib.util.spec_from_file_location("pyconv_setup", ROOT / "setup.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


SETUP = load_setup()
UNITS = SETUP.core_units()

if shutil.which(CC[0]) is None:
    pytest.skip("no C compiler", allow_module_level=True)

C_FILES = sorted(path for end in ("*.c", "*.h", "*.def") for path in CSRC.rglob(end))


def name_of(path: Path) -> str:
    """Return a path as the includes write it: room/file."""
    return path.resolve().relative_to(CSRC).as_posix()


def breaches(file: str, included: Iterator[str]) -> list[str]:
    """Return what a file includes and must not."""
    allowed = MAY_INCLUDE[file.split("/")[0]]
    return [name for name in included if name not in allowed and name.split("/")[0] not in allowed]


def run(*command: str | Path) -> str:
    """Run a command in the root of the project, and return what it prints."""
    done = subprocess.run(
        [str(word) for word in command], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="session")
def objects(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Compile everything that knows no Python; return its objects by the name of their source."""
    folder = tmp_path_factory.mktemp("objects")

    def compile_one(unit) -> tuple[str, Path]:
        name = name_of(ROOT / unit.source)
        made = folder / name.replace("/", "-").replace(".c", ".o")
        # Not the release's -O3: what a file refers to does not depend on it.
        run(*CC, *unit.flags, "-O1", "-fPIC", "-c", unit.source, "-o", made)
        return name, made

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        return dict(pool.map(compile_one, UNITS))


def symbols(made: Path, *options: str) -> list[tuple[str, str]]:
    """Return (type, name) of an object's symbols."""
    lines = run("nm", "--format=posix", *options, made).splitlines()
    return [(line.split()[1], line.split()[0]) for line in lines]


def table_rows() -> list[tuple[str, str, str, str]]:
    """Return the rows of kernels.def."""
    return LIST_ROW.findall(COMMENT.sub("", (CSRC / "kernels/kernels.def").read_text()))


def test_all_rooms_are_there() -> None:
    assert {path.name for path in CSRC.iterdir() if path.is_dir()} == set(MAY_INCLUDE)


@pytest.mark.parametrize("path", C_FILES, ids=name_of)
def test_include_names_its_room_and_respects_the_walls(path: Path) -> None:
    included = INCLUDE.findall(path.read_text())
    for name in included:
        assert (CSRC / name).exists(), f"{name} does not name its room, or is not there"
    assert breaches(name_of(path), included) == []


@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: name_of(ROOT / unit.source))
def test_what_the_compiler_reads_respects_the_walls(unit) -> None:
    """The same by `gcc -MM`, which sees what is included through others."""
    _, _, files = run(*CC, *unit.flags, "-MM", unit.source).partition(":")
    paths = [(ROOT / name).resolve() for name in files.replace("\\\n", " ").split()]
    inside = [name_of(path) for path in paths if path.is_relative_to(CSRC)]
    assert len(inside) == len(paths), "an include from outside csrc/"
    assert breaches(name_of(ROOT / unit.source), inside) == []


def test_only_one_file_sees_numpy() -> None:
    numpy = re.compile(r'#\s*include\s+[<"]numpy/')
    assert {name_of(path) for path in C_FILES if numpy.search(path.read_text())} == {"py/array.c"}


def test_only_py_knows_python(objects: dict[str, Path]) -> None:
    for name, made in objects.items():
        undefined = [symbol for _, symbol in symbols(made, "-u")]
        assert not [symbol for symbol in undefined if re.match(r"_?Py", symbol)], name


def test_kernels_call_nothing(objects: dict[str, Path]) -> None:
    for name, made in objects.items():
        if name.startswith("isa/isa_"):
            undefined = {symbol for _, symbol in symbols(made, "-u")}
            isa = name.removeprefix("isa/isa_").removesuffix(".c")
            table = {f"pc_isa__{narrow_of(isa)}"} - {f"pc_isa__{isa}"}  # an address, no call
            assert undefined - KERNELS_MAY_CALL == table, name


def test_isa_files_define_their_list_and_nothing_else(objects: dict[str, Path]) -> None:
    """The linker could take a symbol without an ISA's name from a file for a larger machine."""
    for isa in SETUP.isas_for(SETUP.platform.machine()):
        defined = {name for _, name in symbols(objects[f"isa/isa_{isa}.c"], "-g", "--defined-only")}
        rows = [row for row in table_rows() if has_kernel(isa, row[0])]
        listed = {f"{symbol}__{isa}" for row in rows for symbol in row[1:3]}
        assert defined == listed | {f"pc_isa__{isa}"}


def test_globals_that_change_live_in_two_places(objects: dict[str, Path]) -> None:
    for name, made in objects.items():
        # Tables of constant addresses are in .data.rel.ro; thread-local state would be in .tbss.
        rows = [line.split() for line in run("objdump", "-t", made).splitlines()]
        state = [
            row[-1]
            for row in rows
            if len(row) > 4 and re.fullmatch(r"\.(data|bss|tdata|tbss)(\.(?!rel\.ro).*)?", row[-3])
            if not row[-1].startswith(".")
        ]
        state = [symbol for symbol in state if (name, symbol) not in IDENTITIES]
        assert name in STATEFUL or state == [], f"{name} has mutable globals"


def test_kernel_list_follows_its_grammar() -> None:
    text = COMMENT.sub("", (CSRC / "kernels/kernels.def").read_text())
    lines = [line for line in text.splitlines() if line.strip()]
    rows = table_rows()
    assert len(rows) == len(lines) >= 5
    for name, f32, f64, args in rows:
        assert (f32, f64) == (f"pc_f32_{name}", f"pc_f64_{name}")
        assert re.fullmatch(r"pc_\w+_args", args)
        assert re.search(rf"}} {args};", (CSRC / "kernels/kernels.h").read_text())
    assert len({row[0] for row in rows}) == len(rows)


def test_each_kernel_is_written_once() -> None:
    bodies = "".join(path.read_text() for path in (CSRC / "kernels").glob("*.inc.h"))
    written = re.findall(r"^void PC_SYMBOL\((\w+)\)", bodies, re.MULTILINE)
    assert sorted(written) == sorted(row[0] for row in table_rows())


def test_kernels_name_no_isa() -> None:
    for path in (CSRC / "kernels").iterdir():
        code = COMMENT.sub("", path.read_text())
        assert not re.search(r"\b_mm\d*_|__m\d+|avx|neon|immintrin|arm_neon", code), path.name


def test_intrinsics_stay_in_simd() -> None:
    for path in C_FILES:
        if name_of(path).split("/")[0] not in ("simd", "base"):
            assert not re.search(r"\b_mm\d*_\w+\(|<immintrin|<arm_neon", path.read_text()), (
                path.name
            )


@pytest.mark.parametrize("dtype", ["f32", "f64"])
def test_vocabularies_have_all_words(dtype: str) -> None:
    """A kernel may use each word whatever the ISA, so each file of simd/ must have all of them."""
    text = (CSRC / f"simd/words_{dtype}.h").read_text()
    words = dict(re.findall(r"^#define (vi?_\w+) (v[fim]\d\d_\w+)$", text, re.MULTILINE))
    assert len(words) >= 10
    for path in (CSRC / "simd").glob("vec_*.h"):
        code = COMMENT.sub("", path.read_text())
        assert [word for word in words.values() if not re.search(rf"\b{word}\b", code)] == []


def test_both_dtypes_have_the_same_words() -> None:
    lists = [(CSRC / f"simd/words_{dtype}.h").read_text() for dtype in ("f32", "f64")]
    short = [re.findall(r"^#define (\w+)", text, re.MULTILINE) for text in lists]
    assert short[0] == short[1]


def test_files_stay_readable() -> None:
    ends = {".c", ".h", ".def", ".py", ".pyi"}
    trees = (CSRC, ROOT / "tests", ROOT / ".ci", ROOT / "bench", ROOT / "pyconv")
    files = [path for tree in trees for path in tree.rglob("*") if path.suffix in ends]
    long = {str(path): count for path in files if (count := path.read_text().count("\n")) > 600}
    assert long == {}
