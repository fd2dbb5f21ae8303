"""Write the golden files: what torch says to every case of cases.py and calls.py.

Run it where torch 2.13.0 is installed, in tests/:

    python -m parity.make_golden

Each file holds the results of one layer (around.npz those of around.py), under ``<number of the
case>.<name of the array>``, and ``about``: torch's version, this script's name, the names and
output shapes of the cases. layers.npz holds repr, state_dict and attributes of LOOKS and the
verdicts on REFUSALS, as JSON.
"""

import json
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch
from parity.around import CASES as AROUND
from parity.around import Around
from parity.calls import ATTRIBUTES, LOOKS, REFUSALS, Call
from parity.cases import CASES, Case

GOLDEN = Path(__file__).with_name("golden")
VERSION = "2.13.0"


def tensor(array: np.ndarray) -> torch.Tensor:
    return torch.tensor(array, requires_grad=True)


def run(case: Case, dtype: str) -> dict[str, np.ndarray]:
    """Output and every gradient of torch's layer, on the case's numbers in `dtype`."""
    x, weight, bias = case.arrays()
    x_leaf = tensor(x.astype(dtype))
    arguments = dict(case.arguments)
    image = x_leaf
    if isinstance(arguments.get("padding"), tuple) and isinstance(arguments["padding"][0], tuple):
        # torch's layers know no padding per side, but its function does.
        (top, bottom), (left, right) = arguments.pop("padding")
        mode = arguments.pop("padding_mode", "zeros").replace("zeros", "constant")
        image = torch.nn.functional.pad(x_leaf, (left, right, top, bottom), mode)
    if case.layer == "MaxPool2d":
        arguments["return_indices"] = True
    elif weight is not None:
        arguments["dtype"] = getattr(torch, dtype)
    layer = getattr(torch.nn, case.layer)(**arguments)
    with torch.no_grad():
        for name, value in (("weight", weight), ("bias", bias)):
            if value is not None:
                getattr(layer, name).copy_(torch.tensor(value))
    result = {}
    y = layer(image, **case.call)
    if case.layer == "MaxPool2d":
        y, indices = y
        result["indices"] = indices.numpy()
    result["output"] = y.detach().numpy()
    y.backward(torch.tensor(case.numbers("grad_output", tuple(y.shape)).astype(dtype)))
    result["grad_input"] = x_leaf.grad.numpy()
    for name, parameter in layer.named_parameters():
        result[f"grad_{name}"] = parameter.grad.numpy()
    return result


def compact(array: np.ndarray) -> np.ndarray:
    """Store small integers as such; the test converts them back."""
    if np.isfinite(array).all() and np.array_equal(array, array.astype(np.int16)):
        return array.astype(np.int16)
    return array


def write_cases(layer: str, about: dict[str, Any]) -> int:
    arrays, shapes = {}, []
    cases = [case for case in CASES if case.layer == layer]
    for number, case in enumerate(cases):
        result = run(case, case.dtype)
        if case.dtype == "float32":
            for name, exact in run(case, "float64").items():
                same = np.array_equal(result[name], exact, equal_nan=True)
                assert same or not case.exact(name), (case.name, name)
        shapes.append(result["output"].shape)
        for name, array in result.items():
            assert array.dtype == (np.int64 if name == "indices" else np.dtype(case.dtype))
            arrays[f"{number}.{name}"] = compact(case.kept(array, name))
    about = about | {"names": [case.name for case in cases], "shapes": shapes}
    np.savez_compressed(GOLDEN / f"{layer}.npz", about=json.dumps(about), **arrays)
    return len(cases)


def run_around(case: Around) -> dict[str, np.ndarray]:
    """What torch's layer gives for a case of around.py."""
    arguments = dict(case.arguments)
    if case.layer in ("Conv1d", "BatchNorm2d"):
        arguments["dtype"] = getattr(torch, case.dtype)
    layer = getattr(torch.nn, case.layer)(**arguments)
    with torch.no_grad():
        for name, parameter in layer.named_parameters():
            parameter.copy_(torch.tensor(case.numbers(name, tuple(parameter.shape))))
    result: dict[str, np.ndarray] = {}
    batches = case.batches()
    for turn, x in enumerate(batches):
        if case.layer == "BatchNorm2d" and turn == len(batches) - 1:
            layer.eval()
            layer.zero_grad()
        elif turn < len(batches) - 2:
            layer(torch.tensor(x))
            continue
        suffix = "" if layer.training else " in eval mode"
        leaf = tensor(x)
        y = layer(leaf.clone() if case.arguments.get("inplace") else leaf)
        result["output" + suffix] = y.detach().numpy()
        y.backward(torch.tensor(case.numbers("grad_output", tuple(y.shape))))
        result["grad_input" + suffix] = leaf.grad.numpy()
        for name, parameter in layer.named_parameters():
            result[f"grad_{name}{suffix}"] = parameter.grad.numpy().copy()
    for name, buffer in layer.named_buffers():
        result[name] = buffer.numpy()
    return result


def write_around(about: dict[str, Any]) -> None:
    arrays = {
        f"{number}.{name}": compact(array)
        for number, case in enumerate(AROUND)
        for name, array in run_around(case).items()
    }
    about = about | {"names": [case.name for case in AROUND]}
    np.savez_compressed(GOLDEN / "around.npz", about=json.dumps(about), **arrays)


def build(call: Call) -> torch.nn.Module:
    kwargs = dict(call.kwargs)
    if isinstance(kwargs.get("dtype"), str):
        kwargs["dtype"] = getattr(torch, kwargs["dtype"])
    return getattr(torch.nn, call.layer)(*call.args, **kwargs)


def look(call: Call) -> dict[str, Any]:
    layer = build(call)
    return {
        "name": call.name,
        "repr": repr(layer),
        "state_dict": [[key, list(value.shape)] for key, value in layer.state_dict().items()],
        "attributes": {a: repr(getattr(layer, a)) for a in ATTRIBUTES[call.layer].split()},
    }


def verdict(call: Call) -> dict[str, str]:
    """Where torch refuses the call (nowhere: ""), and with what class of error."""
    stage = "constructor"
    try:
        layer = build(call)
        stage = "forward"
        if call.shape is not None:
            layer(torch.zeros(call.shape, dtype=getattr(torch, call.dtype)), **call.call)
    except Exception as error:
        assert call.words in str(error), (call.name, call.words, str(error))
        return {"name": call.name, "stage": stage, "error": type(error).__name__}
    assert not call.words, (call.name, "torch says nothing")
    return {"name": call.name, "stage": "", "error": ""}


def main() -> None:
    if torch.__version__.split("+")[0] != VERSION:
        raise SystemExit(f"needs torch {VERSION}, this is {torch.__version__}")
    warnings.simplefilter("ignore")  # even kernels with 'same', empty layers
    about = {
        "torch": torch.__version__,
        "cpu": torch.backends.cpu.get_cpu_capability(),
        "numpy": np.__version__,
        "script": f"tests/parity/{Path(__file__).name}",
    }
    GOLDEN.mkdir(exist_ok=True)
    for layer in ("Conv2d", "ConvTranspose2d", "MaxPool2d", "AvgPool2d"):
        print(f"{layer}: {write_cases(layer, about)} cases")
    write_around(about)
    print(f"around: {len(AROUND)} cases")
    texts = {
        "about": json.dumps(about),
        "looks": json.dumps([look(call) for call in LOOKS]),
        "refusals": json.dumps([verdict(call) for call in REFUSALS]),
    }
    np.savez_compressed(GOLDEN / "layers.npz", **texts)
    print(f"layers: {len(LOOKS)} looks, {len(REFUSALS)} verdicts")
    print(f"{sum(file.stat().st_size for file in GOLDEN.iterdir()):,} bytes")


if __name__ == "__main__":
    main()
