"""The table of kernels: complete, mirrored rightly by these tests, chosen as dispatch.h says."""

import ctypes
import re
from pathlib import Path

import pytest
from kernels import library as lib


def test_every_kernel_has_a_test() -> None:
    """Each line of kernels.def has a test in this folder, each test a kernel that is there."""
    texts = [path.read_text(encoding="utf-8") for path in Path(__file__).parent.glob("test_*.py")]
    covered = set(re.findall(r"^@covers\(\"(\w+)\"\)", "\n".join(texts), flags=re.MULTILINE))
    assert lib.listed_kernels()
    assert covered == set(lib.listed_kernels())


def test_structs_are_mirrored(oracle: ctypes.CDLL) -> None:
    """The ctypes structures lie in memory as the compiler lays them out."""
    mirrors = {
        "pc_dense_args": lib.DenseArgs,
        "pc_pack_args": lib.PackArgs,
        "pc_copy_args": lib.CopyArgs,
        "pc_weight_args": lib.WeightArgs,
        "pc_transpose_args": lib.TransposeArgs,
        "pc_strips_args": lib.StripsArgs,
        "pc_pool_args": lib.PoolArgs,
        "pc_pairs_args": lib.PairsArgs,
        "pc_chains_args": lib.ChainsArgs,
        "pc_rows_args": lib.RowsArgs,
        "pc_rows_weight_args": lib.RowsWeightArgs,
        "pc_walk_args": lib.WalkArgs,
        "pc_rows_copy_args": lib.RowsCopyArgs,
        "pc_planes_args": lib.PlanesArgs,
        "pc_map_args": lib.MapArgs,
        "pc_span_args": lib.SpanArgs,
        "pc_norm_sums_args": lib.NormSumsArgs,
        "pc_norm_map_args": lib.NormMapArgs,
        "pc_kernels": lib.Kernels,
        "pc_isa": lib.Isa,
    }
    for name, mirror in mirrors.items():
        assert oracle.oracle_layout(name.encode()) == ctypes.sizeof(mirror), name
    for struct, field in [
        ("pc_dense_args", "accumulate"),
        ("pc_dense_args", "vec"),
        ("pc_dense_args", "list"),
        ("pc_dense_args", "ahead"),
        ("pc_pack_args", "row_step"),
        ("pc_copy_args", "ahead"),
        ("pc_kernels", "dense_vectors"),
        ("pc_weight_args", "vec"),
        ("pc_weight_args", "row"),
        ("pc_transpose_args", "rows"),
        ("pc_transpose_args", "add"),
        ("pc_pool_args", "src_plane"),
        ("pc_pool_args", "left"),
        ("pc_pool_args", "work"),
        ("pc_pairs_args", "indices"),
        ("pc_pairs_args", "strange"),
        ("pc_chains_args", "rounds"),
        ("pc_rows_args", "width"),
        ("pc_rows_weight_args", "column"),
        ("pc_walk_args", "up"),
        ("pc_walk_args", "column"),
        ("pc_rows_copy_args", "limit"),
        ("pc_planes_args", "inside"),
        ("pc_map_args", "count"),
        ("pc_span_args", "columns"),
        ("pc_norm_sums_args", "count"),
        ("pc_norm_map_args", "count"),
        ("pc_isa", "f64"),
    ]:
        place = getattr(mirrors[struct], field).offset
        assert oracle.oracle_layout(f"{struct}.{field}".encode()) == place, field


def test_tables_are_those_of_the_build(library: lib.Library) -> None:
    """One table per instruction set of setup.py, in its order; the first runs everywhere."""
    isas = library.isas()
    assert list(isas) == lib.isa_names()
    assert library.usable(isas["baseline"])
    for name, isa in isas.items():
        assert isa.fma == (name != "baseline")


def test_tables_are_complete(library: lib.Library) -> None:
    """Every entry is filled, no two share a function, and the sizes fit together.

    Entries that a narrower ISA serves are empty, and that one has them; so are those that only an
    ISA with a narrower one has.
    """
    seen = set()
    isas = library.isas()
    for own, isa in isas.items():
        narrow = ctypes.cast(isa.narrow, ctypes.POINTER(lib.Isa)).contents
        assert narrow.name.decode() == lib.narrow_of(own)
        assert narrow.narrow == isa.narrow and narrow.fma == isa.fma
        assert narrow.f32.lanes == isa.f32.lanes // (1 if narrow.name == isa.name else 2)
        for kernels in (isa.f32, isa.f64):
            assert kernels.lanes > 0
            assert kernels.tile_rows > 0
            assert kernels.tile_columns % kernels.lanes == 0
            assert 1 <= kernels.dense_rows <= len(kernels.dense_vectors)
            vectors = list(kernels.dense_vectors)[: kernels.dense_rows]
            assert vectors == sorted(vectors, reverse=True)  # more rows, fewer vectors
            assert vectors[-1] >= 1 and vectors[0] <= 8
            for name in lib.listed_kernels():
                address = getattr(kernels, name)
                if not lib.has_kernel(own, name):
                    assert address is None, name
                    assert lib.has_kernel(narrow.name.decode(), name) == (narrow.name != isa.name)
                    continue
                assert address, name
                assert address not in seen, name
                seen.add(address)
        assert isa.f32.lanes == 2 * isa.f64.lanes


@pytest.fixture
def choose(library: lib.Library):
    """Return a function that chooses and tells what was chosen; in the end it is free again."""

    def chosen(cap: bytes | None) -> str:
        assert library.c.pc_isa_choose(cap)
        return library.c.pc_isa_chosen().contents.name.decode()

    yield chosen
    library.c.pc_isa_choose(None)


def test_no_cap_takes_the_best(choose, library: lib.Library) -> None:
    """Without a cap, and with an empty one, the strongest table that this machine can run."""
    usable = [name for name, isa in library.isas().items() if library.usable(isa)]
    assert choose(None) == usable[-1]
    choose(b"baseline")
    assert choose(b"") == usable[-1]


def test_a_cap_holds_whatever_was_chosen_before(choose, library: lib.Library) -> None:
    """Each cap gives its own table where the machine has it, and never a stronger one."""
    usable = []
    for name, isa in library.isas().items():
        if library.usable(isa):
            usable.append(name)
        assert choose(name.encode()) == usable[-1]
    for name in reversed(usable):
        assert choose(name.encode()) == name


def test_a_cap_of_another_architecture_leaves_the_baseline_or_less(choose) -> None:
    """The names of all architectures are known everywhere."""
    for name in (b"baseline", b"avx2", b"avx512", b"neon"):
        assert choose(name)


def test_an_unknown_cap_changes_nothing(choose, library: lib.Library) -> None:
    """A name that is none of the list is refused, and the choice stays."""
    before = choose(b"baseline")
    for name in (b"sse9", b"AVX2", b"avx", b"avx512 "):
        assert not library.c.pc_isa_choose(name)
        assert library.c.pc_isa_chosen().contents.name.decode() == before
