"""The examples in the docstrings of the installed package."""

import doctest
import importlib
import pkgutil

import pytest

import pyconv

MODULES = ["pyconv"] + [
    f"pyconv.{module.name}"
    for module in pkgutil.iter_modules(pyconv.__path__)
    if module.name != "__main__"  # running it is what it is for
]


@pytest.mark.parametrize("name", MODULES)
def test_examples(name: str) -> None:
    module = importlib.import_module(name)
    assert doctest.testmod(module, optionflags=doctest.NORMALIZE_WHITESPACE).failed == 0


def test_there_are_examples() -> None:
    finder = doctest.DocTestFinder()
    modules = [importlib.import_module(name) for name in MODULES]
    examples = [test.examples for module in modules for test in finder.find(module)]
    assert sum(map(len, examples)) > 50
