"""The benchmark's chains of multiply-adds against scalar ones, to the bit."""

import ctypes

import numpy as np
from guarded import FLUSH, Pages
from kernels.library import ChainsArgs, Library, Table, address, covers, numbers, same_bits

import pyconv
from pyconv import _core

CHAINS = 12  # PC_CHAINS


@covers("fma_chains")
def test_every_value_is_a_chain(table: Table, oracle: ctypes.CDLL) -> None:
    """Exactly so many rounds for each value, and nothing beside them is touched."""
    rng, pages = np.random.default_rng(0), Pages(1)
    scalar = getattr(oracle, f"oracle_{table.name}_fma_chains")
    scalar.argtypes = (ctypes.c_void_p, ctypes.c_int64, ctypes.c_int)
    for rounds in (0, 1, 2, 7):
        for flush in FLUSH:
            values = pages.array(CHAINS * table.lanes, table.dtype, flush)
            values[:] = numbers(rng, values.size, table.dtype)
            expected = values.copy()
            factor, term = rng.standard_normal(2)
            args = ChainsArgs(address(expected), factor, term, rounds)
            scalar(ctypes.byref(args), values.size, int(table.fma))
            args.values = address(values)
            table.call("fma_chains", args)
            assert same_bits(values, expected), rounds


def test_operations_are_counted(library: Library) -> None:
    """What the extension says it did is what the chosen table's kernel does, on all threads."""
    isa = library.isas()[_core.build_info()["isa"]]
    for dtype, kernels in (("float32", isa.f32), ("float64", isa.f64)):
        with pyconv.num_threads(3):
            assert _core.fma_chains(dtype, 5) == 2 * 5 * CHAINS * kernels.lanes * 3
