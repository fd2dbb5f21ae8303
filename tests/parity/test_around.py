"""Conv1d, BatchNorm2d, ReLU and AdaptiveAvgPool2d beside torch: recorded, and live where it is."""

import json
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from parity.around import CASES, LAYERS, Around

import pyconv
import pyconv.functional as F
from pyconv import reference

GOLDEN = Path(__file__).with_name("golden") / "around.npz"
Arrays = dict[str, np.ndarray]


@cache
def golden() -> dict[str, Arrays]:
    """The recorded results by the name of their case."""
    with np.load(GOLDEN, allow_pickle=False) as file:
        about = json.loads(str(file["about"]))
        stored = {name: file[name] for name in file.files if name != "about"}
    assert about["torch"].startswith("2.13.0")
    assert about["names"] == [case.name for case in CASES], "run tests/parity/make_golden.py again"
    found: dict[str, Arrays] = {name: {} for name in about["names"]}
    for key, array in stored.items():
        number, what = key.split(".")
        found[about["names"][int(number)]][what] = array
    return found


def layer_of(case: Around) -> Any:
    """The case's layer with the case's parameters."""
    typed = {"dtype": case.dtype} if case.layer in ("Conv1d", "BatchNorm2d") else {}
    layer = getattr(pyconv, case.layer)(**case.arguments, **typed)
    for name, parameter in layer.named_parameters():
        parameter.data = case.numbers(name, parameter.shape)
    return layer


def run_layer(case: Around, how: str) -> Arrays:
    """Forward and backward, by the layer's own methods or by vjp."""
    layer = layer_of(case)
    result: Arrays = {}
    batches = case.batches()
    for turn, x in enumerate(batches):
        if case.layer == "BatchNorm2d" and turn == len(batches) - 1:
            layer.eval()
            layer.zero_grad()
        elif turn < len(batches) - 2:
            layer(x)
            continue
        suffix = "" if layer.training else " in eval mode"
        if how == "vjp" or not layer.training:
            y, pullback = layer.vjp(x)
        else:
            y, pullback = layer(x), layer.backward
        result["output" + suffix] = y
        result["grad_input" + suffix] = pullback(case.numbers("grad_output", y.shape))
        for name, parameter in layer.named_parameters():
            result[f"grad_{name}{suffix}"] = parameter.grad.copy()
    for name, buffer in layer.named_buffers():
        result[name] = buffer
    return result


def check(case: Around, actual: Arrays, expected: Arrays) -> None:
    """The same arrays; exactly, or within a few roundings of their largest element.

    Torch rounds a channel's mean to its type, which moves its outputs, not ours, by up to half a
    unit of mean / standard deviation: that is what the cases far from zero must allow for.
    """
    unit = 2.0**-24 if case.dtype == "float32" else 2.0**-53
    units, count = 100.0, 1
    if case.layer == "BatchNorm2d" and 0 not in case.shape:
        count = case.shape[0] * case.shape[2] * case.shape[3]
        if case.values == "far":
            units += max(4000 / x.std((0, 2, 3), dtype=np.float64).min() for x in case.batches())
    assert set(actual) == set(expected)
    for name, wanted in expected.items():
        got = actual[name]
        assert got.shape == wanted.shape, (case.name, name)
        if name == "num_batches_tracked":
            assert got == wanted and got.dtype == np.int64
            continue
        assert got.dtype == case.dtype, (case.name, name)
        if case.exact:
            np.testing.assert_array_equal(got, wanted, f"{name} of {case.name}")
            np.testing.assert_array_equal(np.isnan(got), np.isnan(wanted))
            continue
        summed = name.startswith(("grad_weight", "grad_bias"))
        scale = max(np.abs(wanted).max(initial=0), count / 2 if summed else 1)
        limit = scale * unit * units
        np.testing.assert_allclose(got, wanted, 0, limit, err_msg=f"{name} of {case.name}")


def test_there_are_enough_cases() -> None:
    assert {case.layer for case in CASES} == set(LAYERS)
    assert len({case.name for case in CASES}) == len(CASES) >= 100


@pytest.mark.parametrize("how", ["backward", "vjp"])
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_layer(case: Around, how: str) -> None:
    check(case, run_layer(case, how), golden()[case.name])


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_layer_beside_torch(case: Around) -> None:
    pytest.importorskip("torch", reason="torch is not installed")
    from parity import make_golden

    check(case, run_layer(case, "backward"), make_golden.run_around(case))


def functions(case: Around, of: Any) -> Arrays | None:
    """Forward and backward through functions, those of functional or of reference."""
    x, a = case.batches()[0], case.arguments
    if case.layer == "ReLU":
        y = of.relu(x)
        grad = case.numbers("grad_output", y.shape)
        return {"output": y, "grad_input": of.relu_backward(grad, x)}
    if case.layer == "AdaptiveAvgPool2d":
        y = of.adaptive_avg_pool2d(x, a["output_size"])
        grad = case.numbers("grad_output", y.shape)
        return {"output": y, "grad_input": of.adaptive_avg_pool2d_backward(grad, x.shape)}
    if case.layer != "BatchNorm2d":
        return None
    c = a["num_features"]
    mean, var = case.numbers("mean", (c,)), 1 + np.abs(case.numbers("var", (c,)))
    w, b = case.numbers("weight", (c,)), case.numbers("bias", (c,))
    gy, eps = case.numbers("grad_output", x.shape), a.get("eps", 1e-5)
    result: Arrays = {}
    for training in (True, False):
        y = of.batch_norm(x, mean, var, w, b, training, 0.3, eps)
        grads = of.batch_norm_backward(gy, x, mean, var, w, training, eps)
        names = ("grad_input", "grad_weight", "grad_bias")
        result |= {f"{n} {training}": g for n, g in zip(names, grads, strict=True)}
        result[f"output {training}"] = y
    return result | {"running_mean": mean, "running_var": var}


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_functions_beside_the_reference(case: Around) -> None:
    actual, expected = functions(case, F), functions(case, reference)
    if actual is not None and expected is not None:
        check(case, actual, expected)


@pytest.mark.parametrize(
    "case", [c for c in CASES if c.layer != "Conv1d"], ids=lambda case: case.name
)
def test_reference(case: Around) -> None:
    """The reference says what torch said."""
    if case.layer == "BatchNorm2d":
        c, a = case.arguments["num_features"], case.arguments
        if a.get("momentum", 0.1) is None:
            return
        w = case.numbers("weight", (c,)) if a.get("affine", True) else None
        b = case.numbers("bias", (c,)) if a.get("affine", True) and a.get("bias", True) else None
        mean, var = np.zeros(c, case.dtype), np.ones(c, case.dtype)
        *training, _ = case.batches()
        for x in training:
            y = reference.batch_norm(
                x, mean, var, w, b, True, a.get("momentum", 0.1), a.get("eps", 1e-5)
            )
        grad = case.numbers("grad_output", x.shape)
        grads = reference.batch_norm_backward(grad, x, mean, var, w, True, a.get("eps", 1e-5))
        found = {"output": y, "grad_input": grads[0]}
        if a.get("track_running_stats", True):
            found |= {"running_mean": mean, "running_var": var}
        check(case, found, {name: golden()[case.name][name] for name in found})
        return
    found = functions(case, reference) or {}
    check(case, found, golden()[case.name])
