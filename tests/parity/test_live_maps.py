"""Losses, activations and padding beside torch's, value and gradient, where torch is installed."""

import copy
import itertools
import warnings
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="torch is not installed")

import pyconv  # noqa: E402
import pyconv.functional as F  # noqa: E402

T = torch.nn.functional
DTYPES = ("float32", "float64")
# A handful of roundings of numbers of size 1 to 10.
BOUND = {"float32": 4e-6, "float64": 1e-14}


def numbers(*shape: int, seed: int = 0, dtype: str = "float64") -> np.ndarray:
    return (3 * np.random.default_rng(seed).standard_normal(shape)).astype(dtype)


def agree(ours: Any, theirs: Any, dtype: str) -> None:
    ours, theirs = np.asarray(ours), theirs.detach().numpy()
    assert ours.dtype == theirs.dtype == np.dtype(dtype) and ours.shape == theirs.shape
    np.testing.assert_allclose(ours, theirs, rtol=BOUND[dtype], atol=BOUND[dtype])


def both(function: str, x: np.ndarray, *args: Any, **options: Any) -> tuple[Any, Any, Any]:
    """torch's input, its output and the gradient of a weighted sum of it; arrays as tensors."""
    t = torch.tensor(x, requires_grad=True)

    def as_tensor(value: Any) -> Any:
        return torch.tensor(value) if isinstance(value, np.ndarray | np.generic) else value

    y = getattr(T, function)(
        t, *map(as_tensor, args), **{k: as_tensor(v) for k, v in options.items()}
    )
    weights = torch.tensor(numbers(*y.shape, seed=9, dtype=str(x.dtype)))
    y.backward(weights)
    return y, weights.numpy(), t.grad


def check(function: str, x: np.ndarray, *args: Any, **options: Any) -> None:
    y, weights, grad = both(function, x, *args, **options)
    agree(getattr(F, function)(x, *args, **options), y, str(x.dtype))
    options.pop("inplace", None)
    backward = getattr(F, f"{function}_backward")
    agree(backward(weights, x, *args, **options), grad, str(x.dtype))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    "function, options",
    [
        ("sigmoid", {}),
        ("tanh", {}),
        ("leaky_relu", {}),
        ("leaky_relu", {"negative_slope": -0.3}),
        *(("softmax", {"dim": dim}) for dim in (0, 1, -1)),
        *(("log_softmax", {"dim": dim}) for dim in (0, 1, -1)),
    ],
)
def test_elementwise(function: str, options: dict[str, Any], dtype: str) -> None:
    check(function, numbers(4, 5, 6, dtype=dtype), **options)
    check(function, numbers(0, 5, 6, dtype=dtype), **options)
    special = np.array([[[np.nan, np.inf, -np.inf, 0.0, -0.0, 90.0, -90.0, 1e30, -1e30]]], dtype)
    if "softmax" not in function:
        check(function, special, **options)
    for values in ([0, -np.inf], [-np.inf, -np.inf], [np.inf, 0], [np.nan, 0]):
        if "softmax" in function:
            check(function, np.array([[values]], dtype), dim=2)


@pytest.mark.parametrize("shape", [(), (3,), (2, 3), (2, 3, 4), (2, 3, 4, 5)])
def test_softmax_chooses_its_dimension_as_torch_does(shape: tuple[int, ...]) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        check("softmax", numbers(*shape))
        check("log_softmax", numbers(*shape))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    "mode, pad",
    [
        *itertools.product(["constant"], [(1, 2), (1, 2, -1, 3), (0, 0, 1, -1, 2, 0, -1, 1)]),
        *itertools.product(
            ["reflect", "replicate", "circular"],
            [(1, 2, 3, 0), (-1, 1, 2, -1), (-1, 2, 0, 0), (1, 1, 2, 2, 1, 2), (4, 4, 3, 3)],
        ),
        ("replicate", (9, 9, 0, 11)),
        ("circular", (5, 5, 4, 4)),
    ],
)
def test_pad(mode: str, pad: tuple[int, ...], dtype: str) -> None:
    x = numbers(2, 3, 4, 5, dtype=dtype)
    y, weights, grad = both("pad", x, pad, mode=mode)
    agree(F.pad(x, pad, mode), y, dtype)
    agree(F.pad_backward(weights, x.shape, pad, mode), grad, dtype)


# ---- losses ----


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("smoothing", [0.0, 0.1, 1.0])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("kind", ["labels", "ignoring", "probabilities"])
@pytest.mark.parametrize("shape", [(5, 4), (4,), (2, 4, 3), (2, 4, 3, 2)])
def test_cross_entropy(
    shape: tuple[int, ...], kind: str, weighted: bool, smoothing: float, reduction: str, dtype: str
) -> None:
    x = numbers(*shape, dtype=dtype)
    options: dict[str, Any] = {"reduction": reduction, "label_smoothing": smoothing}
    if weighted:
        options["weight"] = np.array([1.0, 0.5, 2.0, 3.0], dtype)
    if kind == "probabilities":
        target = F.softmax(numbers(*shape, seed=1, dtype=dtype), 0 if len(shape) == 1 else 1)
    else:
        batch = shape[:1] + shape[2:] if len(shape) > 1 else ()
        target = np.asarray(np.random.default_rng(2).integers(0, 4, batch))
        if kind == "ignoring":
            options["ignore_index"] = 2
    check("cross_entropy", x, target, **options)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("weight", [None, (4,), (5, 1), (5, 4)])
@pytest.mark.parametrize("pos_weight", [None, (4,), ()])
def test_binary_cross_entropy(weight: Any, pos_weight: Any, reduction: str, dtype: str) -> None:
    x = numbers(5, 4, dtype=dtype)
    target = np.random.default_rng(3).random((5, 4)).astype(dtype)
    target[0], target[1] = 0, 1
    options: dict[str, Any] = {"reduction": reduction}
    if weight is not None:
        options["weight"] = np.abs(numbers(*weight, seed=4, dtype=dtype))
    if pos_weight is not None:
        options["pos_weight"] = np.abs(np.asarray(numbers(*pos_weight, seed=5, dtype=dtype)))
    check("binary_cross_entropy_with_logits", x, target, **options)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("function", ["binary_cross_entropy_with_logits", "mse_loss"])
def test_losses_of_extremes(function: str, dtype: str) -> None:
    x = np.array([90, -90, 1e4, -1e4, 0, np.nan, np.inf], dtype)
    for target in (np.zeros(7, dtype), np.ones(7, dtype)):
        check(function, x, target, reduction="none")
    check(function, np.zeros((0, 2), dtype), np.zeros((0, 2), dtype), reduction="sum")


LOSSES = {
    "CrossEntropyLoss": (
        {"weight": np.ones(4, np.float32), "ignore_index": 1, "label_smoothing": 0.1},
        np.array([0, 3, 1]),
    ),
    "MSELoss": ({"reduction": "sum"}, numbers(3, 4, seed=7, dtype="float32")),
    "BCEWithLogitsLoss": (
        {"weight": np.ones((3, 1), np.float32), "pos_weight": np.full(4, 2, np.float32)},
        np.ones((3, 4), np.float32),
    ),
}


@pytest.mark.parametrize("name", LOSSES)
def test_a_loss_module_has_torchs_arguments_repr_and_state(name: str) -> None:
    options, target = LOSSES[name]
    tensors = {k: torch.tensor(v) if isinstance(v, np.ndarray) else v for k, v in options.items()}
    ours, theirs = getattr(pyconv, name)(**options), getattr(torch.nn, name)(**tensors)
    assert repr(ours) == repr(theirs)
    state = {k: v.numpy() for k, v in theirs.state_dict().items()}
    assert list(ours.state_dict()) == list(state)
    copy.deepcopy(ours).load_state_dict(state)
    x = numbers(3, 4, dtype="float32")
    t = torch.tensor(x, requires_grad=True)
    theirs(t, torch.tensor(target)).backward()
    ours(x, target)
    agree(ours.backward(), t.grad, "float32")


# ---- the layers' looks ----

LAYERS = {
    "Identity": [(), (54, 3)],
    "Sigmoid": [()],
    "Tanh": [()],
    "LeakyReLU": [(), (0.2,), (0.2, True)],
    "Softmax": [(), (1,), (-1,)],
    "Dropout": [(), (0.2,), (1, True)],
}


@pytest.mark.parametrize("name", LAYERS)
def test_a_layer_prints_as_torchs(name: str) -> None:
    for args in LAYERS[name]:
        ours, theirs = getattr(pyconv, name)(*args), getattr(torch.nn, name)(*args)
        assert repr(ours).replace("p=1.0", "p=1") == repr(theirs)
