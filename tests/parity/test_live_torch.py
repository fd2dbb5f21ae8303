"""pyconv beside torch, where torch is installed: layer against layer, function against function."""

import sys
import types
import unittest
import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="torch is not installed")

from parity import compare, make_golden  # noqa: E402
from parity.calls import ATTRIBUTES, LOOKS, REFUSALS, Call  # noqa: E402
from parity.cases import CASES, Case, random_cases  # noqa: E402

import pyconv  # noqa: E402
import pyconv.functional as F  # noqa: E402

RANDOM = random_cases(100, 20265)
OPERATORS = ("conv2d", "conv_transpose2d", "max_pool2d", "avg_pool2d")
LAYERS = ("Conv2d", "ConvTranspose2d", "MaxPool2d", "AvgPool2d")


@pytest.fixture(autouse=True, scope="module")
def one_torch_thread() -> Iterator[None]:
    """The arrays are small, and idle OpenMP threads only stand in the way."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(autouse=True)
def quiet_torch() -> Iterator[None]:
    """torch warns about even kernels with 'same' and about layers without channels."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module="torch")
        warnings.filterwarnings("ignore", "Using padding='same' with even kernel lengths")
        yield


# ---- numbers ----

TWINS: dict[str, compare.Arrays] = {}


def torch_says(case: Case) -> compare.Arrays:
    """Output and gradients of torch's layer, computed once per case."""
    if case.name not in TWINS:
        TWINS[case.name] = make_golden.run(case, case.dtype)
    return TWINS[case.name]


@pytest.mark.parametrize("case", RANDOM, ids=lambda case: case.name)
def test_layer_beside_layer(case: Case) -> None:
    expected = torch_says(case)
    actual = compare.run_layer(case)
    assert {name: a.shape for name, a in actual.items() if name != "indices"} == {
        name: a.shape for name, a in expected.items() if name != "indices"
    }
    compare.check(case, actual, expected)


@pytest.mark.parametrize("case", RANDOM, ids=lambda case: case.name)
def test_functions_beside_layer(case: Case) -> None:
    if actual := compare.run_functions(case):
        compare.check(case, actual, torch_says(case))


def test_the_random_cases_are_many_and_not_empty() -> None:
    assert len(RANDOM) >= 700
    assert {case.layer for case in RANDOM} == set(LAYERS)
    assert not {case.name for case in RANDOM} & {case.name for case in CASES}
    filled = [case for case in RANDOM if 0 not in case.shape]
    assert len(filled) >= 0.8 * len(RANDOM)
    outputs = [torch_says(case)["output"] for case in filled[::5]]
    nonzero = sum(np.count_nonzero(y) for y in outputs)
    assert nonzero >= 0.3 * sum(y.size for y in outputs)


# ---- looks and state ----


@pytest.mark.parametrize("call", LOOKS, ids=lambda call: call.name)
def test_looks(call: Call) -> None:
    expected = make_golden.look(call)
    layer = compare.build(call)
    assert repr(layer) == expected["repr"]
    assert [[k, list(v.shape)] for k, v in layer.state_dict().items()] == expected["state_dict"]
    for attribute in ATTRIBUTES[call.layer].split():
        assert repr(getattr(layer, attribute)) == expected["attributes"][attribute], attribute


@pytest.mark.parametrize("case", RANDOM[::7], ids=lambda case: case.name)
def test_repr_of_random_layers(case: Case) -> None:
    kwargs = dict(case.arguments)
    twin = getattr(torch.nn, case.layer)(**kwargs)
    layer = getattr(pyconv, case.layer)(**kwargs)
    assert repr(layer) == repr(twin)
    twin.eval()
    layer.eval()
    assert layer.training is twin.training is False


@pytest.mark.parametrize("layer_name", ["Conv2d", "ConvTranspose2d"])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_state_dict_goes_both_ways(layer_name: str, bias: bool, dtype: str) -> None:
    twin = getattr(torch.nn, layer_name)(4, 6, 3, bias=bias, dtype=getattr(torch, dtype))
    layer = getattr(pyconv, layer_name)(4, 6, 3, bias=bias, dtype=dtype)
    assert not np.array_equal(layer.weight, twin.weight.detach().numpy())

    result = layer.load_state_dict({k: v.numpy() for k, v in twin.state_dict().items()})
    assert list(result.missing_keys) == list(result.unexpected_keys) == []
    assert list(layer.state_dict()) == list(twin.state_dict())
    for key, value in twin.state_dict().items():
        np.testing.assert_array_equal(layer.state_dict()[key], value.numpy())

    other = getattr(pyconv, layer_name)(4, 6, 3, bias=bias, dtype=dtype)
    twin.load_state_dict({k: torch.from_numpy(v.copy()) for k, v in other.state_dict().items()})
    for key, value in other.state_dict().items():
        np.testing.assert_array_equal(twin.state_dict()[key].numpy(), value)


def test_load_state_dict_says_what_torch_says() -> None:
    layer, twin = pyconv.Conv2d(4, 6, 3), torch.nn.Conv2d(4, 6, 3)
    wrong: tuple[dict[str, np.ndarray], ...] = (
        {},
        {"weight": np.zeros((6, 4, 3, 3), "f4")},
        {**layer.state_dict(), "more": np.zeros(3, "f4")},
        {"weight": np.zeros((6, 4, 3, 2), "f4"), "bias": np.zeros(6, "f4")},
        {"weight": np.zeros((6, 4, 3, 3), "f4"), "bias": np.zeros((6, 1), "f4")},
    )
    for state in wrong:
        with pytest.raises(RuntimeError) as theirs:
            twin.load_state_dict({k: torch.tensor(v) for k, v in state.items()})
        with pytest.raises(RuntimeError) as ours:
            layer.load_state_dict(state)
        assert str(ours.value).splitlines()[0] == str(theirs.value).splitlines()[0]
        for key in ("weight", "bias", "more"):
            assert (f'"{key}"' in str(ours.value)) == (f'"{key}"' in str(theirs.value)), state
            assert (f" {key}:" in str(ours.value)) == (f" {key}:" in str(theirs.value)), state


# ---- who refuses what ----


@pytest.mark.parametrize("call", REFUSALS, ids=lambda call: call.name)
def test_refuses_what_torch_refuses(call: Call) -> None:
    """`call.differs` is the table of differences: each is asserted to be one."""
    torch_refuses = bool(make_golden.verdict(call)["error"])
    error = compare.refusal(call)
    assert (error is not None) == (torch_refuses != bool(call.differs)), error or "no error"


def random_calls(layer: str, count: int) -> Iterator[Call]:
    """Small integers everywhere, so that about half of the calls are wrong somewhere."""
    rng = np.random.default_rng([20266, LAYERS.index(layer)])

    def number(low: int, high: int) -> int:
        return int(rng.integers(low, high + 1))

    def pair(low: int, high: int) -> Any:
        return number(low, high) if rng.random() < 0.5 else (number(low, high), number(low, high))

    for _ in range(count):
        least = -1 if rng.random() < 0.1 else 0
        one = 0 if rng.random() < 0.1 else 1
        kwargs: dict[str, Any] = {"padding": pair(least, 3), "stride": pair(one, 3)}
        image = (number(1, 7), number(1, 7))
        if layer != "AvgPool2d":
            kwargs["dilation"] = pair(one, 3)
        if layer in ("MaxPool2d", "AvgPool2d"):
            kwargs |= {"ceil_mode": rng.random() < 0.5, "kernel_size": pair(1, 5)}
            yield Call(layer, (), kwargs, (1, 2, *image))
            continue
        groups = number(1, 3)
        ic, oc = (v * groups if rng.random() < 0.9 else v for v in (number(1, 2), number(1, 2)))
        if layer == "ConvTranspose2d":
            kwargs["output_padding"] = pair(0, 2)
            if rng.random() < 0.3:
                # torch ignores output_padding then, even where it would be wrong by itself.
                kwargs["output_padding"] = 0
                size = (number(1, 12), number(1, 12))
                args = (ic, oc, pair(1, 4))
                yield Call(
                    layer,
                    args,
                    {**kwargs, "groups": groups},
                    (1, ic, *image),
                    call={"output_size": size},
                )
                continue
        elif rng.random() < 0.5:
            kwargs["padding_mode"] = str(rng.choice(["zeros", "reflect", "replicate", "circular"]))
        channels = ic if rng.random() < 0.9 else number(1, 6)
        kwargs["groups"] = groups
        yield Call(layer, (ic, oc, pair(1, 4)), kwargs, (1, channels, *image))


def empty_output(call: Call) -> bool:
    """A difference: some of torch's paths return an array without elements, ours refuse it."""
    y = make_golden.build(call)(torch.zeros(call.shape), **call.call)
    return call.layer == "ConvTranspose2d" and y.numel() == 0


@pytest.mark.parametrize("layer", LAYERS)
def test_random_calls_are_refused_by_both_or_by_none(layer: str) -> None:
    refused, wrong, count = 0, [], 500
    for call in random_calls(layer, count):
        theirs, ours = make_golden.verdict(call), compare.refusal(call)
        refused += bool(theirs["error"])
        if bool(theirs["error"]) != (ours is not None) and not empty_output(call):
            wrong.append((call.name, theirs["error"], ours))
    assert not wrong, f"{len(wrong)} of {count}, the first: {wrong[:5]}"
    assert 0.2 * count < refused < 0.9 * count


# ---- torch's own sample inputs ----


@pytest.fixture(scope="module")
def torch_samples() -> Iterator[Any]:
    """torch's module and operator databases; their test base class is of no use here."""
    stand_in = types.ModuleType("expecttest")
    stand_in.TestCase = unittest.TestCase  # type: ignore[attr-defined]
    with pytest.MonkeyPatch.context() as patch, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        patch.setitem(sys.modules, "expecttest", sys.modules.get("expecttest", stand_in))
        from torch.testing._internal import common_methods_invocations, common_modules

        yield types.SimpleNamespace(
            modules={info.module_cls.__name__: info for info in common_modules.module_db},
            operators={info.name: info for info in common_methods_invocations.op_db},
        )


def close(actual: Any, expected: Any) -> None:
    """Compare float64 results, each an array or a tuple of arrays."""
    if isinstance(expected, tuple):
        assert isinstance(actual, tuple)
        for a, e in zip(actual, expected, strict=True):
            close(a, e)
        return
    array = expected.detach().numpy()
    assert (actual.dtype, actual.shape) == (array.dtype, array.shape)
    np.testing.assert_allclose(actual, array, rtol=0, atol=1e-12 * abs(array).max(initial=0))


def array_of(value: Any) -> Any:
    return value.detach().numpy() if isinstance(value, torch.Tensor) else value


@pytest.mark.parametrize("name", LAYERS)
@pytest.mark.parametrize("training", [True, False])
def test_torch_module_samples(torch_samples: Any, name: str, training: bool) -> None:
    info = torch_samples.modules[name]
    samples = info.module_inputs_func(
        info, device="cpu", dtype=torch.float64, requires_grad=True, training=training
    )
    assert len(samples) >= 2
    for sample in samples:
        args, kwargs = sample.constructor_input.args, sample.constructor_input.kwargs
        parameters = {} if "Pool" in name else {"dtype": torch.float64}
        twin = info.module_cls(*args, **kwargs, **parameters)
        layer = getattr(pyconv, name)(*args, **kwargs, **{k: np.float64 for k in parameters})
        layer.load_state_dict({k: v.numpy() for k, v in twin.state_dict().items()})
        assert repr(layer) == repr(twin)
        (x,) = sample.forward_input.args
        y = twin(x)
        close(layer(x.detach().numpy()), y)
        if isinstance(y, tuple):
            y = y[0]
        gy = torch.randn(y.shape, dtype=y.dtype)
        gx, *gradients = torch.autograd.grad(y, [x, *twin.parameters()], gy)
        close(layer.backward(gy.numpy()), gx)
        for parameter, gradient in zip(layer.parameters(), gradients, strict=True):
            close(parameter.grad, gradient)


@pytest.mark.parametrize("name", OPERATORS)
def test_torch_operator_samples(torch_samples: Any, name: str) -> None:
    info = torch_samples.operators[f"nn.functional.{name}"]
    samples = list(info.sample_inputs("cpu", torch.float64, requires_grad=True))
    assert len(samples) >= 5
    for sample in samples:
        tensors = (sample.input, *sample.args)
        arguments = [array_of(value) for value in tensors]
        close(getattr(F, name)(*arguments, **sample.kwargs), info.op(*tensors, **sample.kwargs))


@pytest.mark.parametrize("name", OPERATORS)
def test_torch_operator_errors(torch_samples: Any, name: str) -> None:
    info = torch_samples.operators[f"nn.functional.{name}"]
    errors = list(info.error_inputs("cpu")) if info.error_inputs_func else []
    for error in errors:
        sample = error.sample_input
        arguments = [array_of(value) for value in (sample.input, *sample.args)]
        mixed = "should be the same" in error.error_regex
        if mixed and not any(np.iscomplexobj(value) for value in arguments):
            # A difference: the functions convert to the common dtype.
            getattr(F, name)(*arguments, **sample.kwargs)
            continue
        with pytest.raises((TypeError, ValueError)):
            getattr(F, name)(*arguments, **sample.kwargs)
    assert errors or name == "conv_transpose2d"


# ---- torch's derivative of our function ----


@pytest.mark.parametrize("stride", [1, 2])
def test_gradcheck_of_torch_on_our_convolution(stride: int) -> None:
    class Function(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: Any, w: Any, b: Any) -> Any:
            ctx.save_for_backward(x, w)
            return torch.from_numpy(F.conv2d(x.numpy(), w.numpy(), b.numpy(), stride, 1))

        @staticmethod
        @torch.autograd.function.once_differentiable
        def backward(ctx: Any, gy: Any) -> Any:
            x, w = ctx.saved_tensors
            arrays = (gy.numpy(), x.numpy(), w.numpy())
            gradients = F.conv2d_backward(*arrays, stride=stride, padding=1)
            return tuple(torch.from_numpy(g) for g in gradients)

    generator = torch.Generator().manual_seed(1)
    shapes = ((2, 2, 5, 4), (3, 2, 3, 3), (3,))
    inputs = [
        torch.randn(s, dtype=torch.float64, generator=generator, requires_grad=True) for s in shapes
    ]
    assert torch.autograd.gradcheck(Function.apply, inputs)
