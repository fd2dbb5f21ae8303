"""pyconv against what torch 2.13.0 computed, recorded by make_golden.py. Needs no torch."""

import json
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from parity.calls import ATTRIBUTES, LOOKS, REFUSALS, Call
from parity.cases import CASES, Case
from parity.compare import build, check, refusal, run_functions, run_layer

from pyconv import reference

GOLDEN = Path(__file__).with_name("golden")
LAYERS = ("Conv2d", "ConvTranspose2d", "MaxPool2d", "AvgPool2d")


@cache
def golden(layer: str) -> list[dict[str, np.ndarray]]:
    """The expected arrays of a layer's cases, in the order of CASES."""
    cases = [case for case in CASES if case.layer == layer]
    with np.load(GOLDEN / f"{layer}.npz", allow_pickle=False) as file:
        about = json.loads(str(file["about"]))
        stored = {name: file[name] for name in file.files if name != "about"}
    assert about["torch"].startswith("2.13.0")
    assert about["names"] == [case.name for case in cases], "run tests/parity/make_golden.py again"
    result: list[dict[str, np.ndarray]] = [{} for _ in cases]
    for name, array in stored.items():
        number, what = name.split(".")
        result[int(number)][what] = array
    for expected, shape in zip(result, about["shapes"], strict=True):
        expected["shape"] = np.array(shape)
    return result


def expected_of(case: Case) -> dict[str, np.ndarray]:
    number = [c for c in CASES if c.layer == case.layer].index(case)
    return dict(golden(case.layer)[number])


@cache
def recorded(what: str) -> dict[str, Any]:
    with np.load(GOLDEN / "layers.npz", allow_pickle=False) as file:
        return {entry["name"]: entry for entry in json.loads(str(file[what]))}


def test_the_golden_files_hold_enough() -> None:
    arrays = zeros = elements = 0
    for layer in LAYERS:
        for expected in golden(layer):
            assert {"output", "grad_input"} <= set(expected)
            del expected["shape"]
            for what, array in expected.items():
                if what != "indices":
                    arrays += 1
                    elements += array.size
                    zeros += array.size - np.count_nonzero(array)
    golden.cache_clear()
    assert len(CASES) >= 400
    assert len({case.name for case in CASES}) == len(CASES)
    assert {case.dtype for case in CASES} == {"float32", "float64"}
    assert arrays >= 3 * 400
    assert elements - zeros >= 0.3 * elements
    assert sum(file.stat().st_size for file in GOLDEN.iterdir()) < 5_000_000


def test_the_cases_reach_the_fast_paths_of_torch() -> None:
    """It has other code beyond 20,480 elements, from 16 samples, for 1x1 and depthwise layers."""
    for layer in LAYERS:
        cases = [case for case in CASES if case.layer == layer]
        assert any(np.prod(case.shape) > 20_480 for case in cases)
        assert any(len(case.shape) == 4 and case.shape[0] >= 16 for case in cases)
        assert any(len(case.shape) == 3 for case in cases)
        assert any(case.shape[0] == 0 for case in cases)
    for layer in ("Conv2d", "ConvTranspose2d"):
        large = [case for case in CASES if case.layer == layer and np.prod(case.shape) > 20_480]
        assert any(case.arguments["kernel_size"] == 1 for case in large)
        assert any(case.arguments.get("groups") == case.arguments["in_channels"] for case in large)


@pytest.mark.parametrize("values", ["integer", "real"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("layer", LAYERS)
def test_the_comparison_notices_one_wrong_element(layer: str, dtype: str, values: str) -> None:
    kind = (layer, dtype, values, False)
    case = next(c for c in CASES if (c.layer, c.dtype, c.values, c.sampled) == kind)
    expected = expected_of(case)
    del expected["shape"]
    actual = run_layer(case)
    check(case, actual, expected)
    for name in actual:
        wrong = {key: array.copy() for key, array in actual.items()}
        place = wrong[name].reshape(-1)
        place[np.abs(place).argmax()] *= 1 + (1e-3 if dtype == "float32" else 1e-7)
        with pytest.raises(AssertionError):
            check(case, wrong, expected)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_layer(case: Case) -> None:
    expected = expected_of(case)
    shape = tuple(expected.pop("shape"))
    actual = run_layer(case)
    assert actual["output"].shape == shape
    assert actual["grad_input"].shape == case.shape
    check(case, actual, expected)


@pytest.mark.parametrize(
    "case",
    [case for case in CASES if case.arguments.get("padding_mode", "zeros") == "zeros"],
    ids=lambda case: case.name,
)
def test_functions(case: Case) -> None:
    expected = expected_of(case)
    shape = tuple(expected.pop("shape"))
    actual = run_functions(case)
    assert actual is not None
    assert set(actual) == set(expected)
    assert actual["output"].shape == shape
    check(case, actual, expected)


@pytest.mark.parametrize(
    "case",
    [case for case in CASES if not case.sampled],
    ids=lambda case: case.name,
)
def test_reference(case: Case) -> None:
    """The reference says what torch said, so that what is checked against it is right."""
    expected = expected_of(case)
    del expected["shape"]
    if actual := run_functions(case, reference):
        check(case, actual, expected)


@pytest.mark.parametrize("call", LOOKS, ids=lambda call: call.name)
def test_looks(call: Call) -> None:
    expected = recorded("looks")[call.name]
    layer = build(call)
    assert repr(layer) == expected["repr"]
    state = [[key, list(value.shape)] for key, value in layer.state_dict().items()]
    assert state == expected["state_dict"]
    for attribute in ATTRIBUTES[call.layer].split():
        assert repr(getattr(layer, attribute)) == expected["attributes"][attribute], attribute


def test_enough_looks_and_refusals() -> None:
    assert len(recorded("looks")) == len(LOOKS) >= 40
    assert len(recorded("refusals")) == len(REFUSALS) >= 300


@pytest.mark.parametrize("call", REFUSALS, ids=lambda call: call.name)
def test_refuses_what_torch_refuses(call: Call) -> None:
    """And nothing else, but for the differences, each of which must be one."""
    torch_refuses = bool(recorded("refusals")[call.name]["error"])
    error = refusal(call)
    assert (error is not None) == (torch_refuses != bool(call.differs)), error or "no error"
    if error is not None:
        assert call.words in str(error)
        assert call.layer in str(error)
