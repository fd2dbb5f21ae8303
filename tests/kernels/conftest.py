"""Fixtures of the kernel tests."""

import ctypes

import pytest
from kernels import library as lib


@pytest.fixture(scope="session")
def library() -> lib.Library:
    """The rooms below Python, without Python."""
    return lib.load_library()


@pytest.fixture(scope="session")
def oracle() -> ctypes.CDLL:
    """The scalar loops that everything is compared with."""
    return lib.load_oracle()


@pytest.fixture
def table(request: pytest.FixtureRequest, library: lib.Library) -> lib.Table:
    """One ISA's kernels for one dtype, as `covers` asks for them."""
    isa, dtype = request.param
    return library.table(isa, dtype)
