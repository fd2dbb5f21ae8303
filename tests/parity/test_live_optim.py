"""Optimizers, schedulers and clipping beside torch's, where torch is installed."""

import math
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="torch is not installed")

import pyconv  # noqa: E402
from pyconv import optim  # noqa: E402

OPTIONS: dict[str, list[dict[str, Any]]] = {
    "SGD": [
        {"lr": 0.1},
        {"lr": 0.1, "momentum": 0.9},
        {"lr": 0.1, "momentum": 0.9, "dampening": 0.3, "weight_decay": 0.1},
        {"lr": 0.1, "momentum": 0.9, "nesterov": True, "weight_decay": 0.1, "maximize": True},
    ],
    "Adam": [
        {},
        {"lr": 0.05, "betas": (0.8, 0.99), "eps": 1e-3, "weight_decay": 0.1},
        {"amsgrad": True, "maximize": True},
    ],
    "AdamW": [{}, {"lr": 0.05, "weight_decay": 0.5}, {"amsgrad": True, "weight_decay": 0.0}],
}
CASES = [(name, options) for name, many in OPTIONS.items() for options in many]


def pair(name: str, options: dict[str, Any], dtype: str = "float64") -> Any:
    """A parameter and its optimizer, of pyconv and of torch, and gradients."""
    rng = np.random.default_rng(0)
    start = rng.standard_normal((5, 7)).astype(dtype)
    p, q = pyconv.Parameter(start), torch.nn.Parameter(torch.tensor(start))
    ours = getattr(optim, name)([p], **options)
    theirs = getattr(torch.optim, name)([q], **options)
    return p, q, ours, theirs, rng.standard_normal((20, 5, 7)).astype(dtype)


def step(p: Any, q: Any, ours: Any, theirs: Any, grads: Any) -> None:
    for grad in grads:
        p.grad, q.grad = grad, torch.tensor(grad)
        ours.step()
        theirs.step()


@pytest.mark.parametrize("dtype, bound", [("float64", 1e-13), ("float32", 1e-5)])
@pytest.mark.parametrize("name, options", CASES)
def test_steps(name: str, options: dict[str, Any], dtype: str, bound: float) -> None:
    p, q, ours, theirs, grads = pair(name, options, dtype)
    step(p, q, ours, theirs, grads)
    np.testing.assert_allclose(p.data, q.detach().numpy(), rtol=bound, atol=bound)
    for key, value in theirs.state_dict()["state"][0].items() if theirs.state else ():
        if value is not None:
            mine = ours.state_dict()["state"][0][key]
            np.testing.assert_allclose(mine, value.numpy(), rtol=bound, atol=bound)


@pytest.mark.parametrize("name, options", CASES)
def test_state_travels_both_ways(name: str, options: dict[str, Any]) -> None:
    p, q, ours, theirs, grads = pair(name, options)
    step(p, q, ours, theirs, grads[:10])
    p2, q2, ours2, theirs2, _ = pair(name, {"lr": 7.0})
    p2.data = q.detach().numpy()
    with torch.no_grad():
        q2.copy_(torch.tensor(p.data))
    ours2.load_state_dict(theirs.state_dict())
    known = theirs.state_dict()["param_groups"][0]
    state = ours.state_dict()
    for entry in state["state"].values():
        entry.update({k: torch.tensor(v) for k, v in entry.items()})
    state["param_groups"][0] = {**known, **state["param_groups"][0]}
    theirs2.load_state_dict(state)
    step(p, q, ours, theirs, grads[10:])
    step(p2, q2, ours2, theirs2, grads[10:])
    for values in (p2.data, q2.detach().numpy(), q.detach().numpy()):
        np.testing.assert_allclose(values, p.data, rtol=1e-13, atol=1e-13)


SCHEDULES: dict[str, Callable[[Any, Any], Any]] = {
    "StepLR": lambda s, o: s.StepLR(o, 3, 0.3),
    "CosineAnnealingLR": lambda s, o: s.CosineAnnealingLR(o, 7, 0.01),
    "CosineAnnealingLR, short": lambda s, o: s.CosineAnnealingLR(o, 1),
}


@pytest.mark.parametrize("name", SCHEDULES)
def test_schedules(name: str) -> None:
    _, _, ours, theirs, _ = pair("SGD", {"lr": 0.3})
    mine = SCHEDULES[name](optim.lr_scheduler, ours)
    their = SCHEDULES[name](torch.optim.lr_scheduler, theirs)
    for epoch in range(40):
        ours.step()
        theirs.step()
        mine.step()
        their.step()
        if epoch == 20:  # whoever changes the rate in between is heard
            ours.param_groups[0]["lr"] = theirs.param_groups[0]["lr"] = 0.2
        assert mine.get_last_lr() == pytest.approx(their.get_last_lr(), rel=1e-12, abs=1e-15)
    assert mine.last_epoch == their.last_epoch and mine.base_lrs == their.base_lrs


@pytest.mark.parametrize("max_norm, norm_type", [(1, 2), (100, 2), (0.1, 1), (0.5, math.inf)])
def test_clipping(max_norm: float, norm_type: float) -> None:
    rng = np.random.default_rng(3)
    ours, theirs = [], []
    for shape in ((3, 4), (5,), ()):
        values, grad = rng.standard_normal(shape), np.asarray(rng.standard_normal(shape))
        p, q = pyconv.Parameter(values), torch.nn.Parameter(torch.tensor(values))
        p.grad, q.grad = grad, torch.tensor(grad)
        ours.append(p)
        theirs.append(q)
    mine = optim.clip_grad_norm_(ours, max_norm, norm_type)
    expected = torch.nn.utils.clip_grad_norm_(theirs, max_norm, norm_type)
    assert float(mine) == pytest.approx(float(expected), rel=1e-14)
    for p, q in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(p.grad, q.grad.numpy(), rtol=1e-14)


MISTAKES: dict[str, Callable[[Any, Any], Any]] = {
    "no parameters": lambda o, p: o.SGD([]),
    "lr": lambda o, p: o.SGD([p], -1.0),
    "momentum": lambda o, p: o.SGD([p], 1.0, -1.0),
    "weight_decay": lambda o, p: o.Adam([p], weight_decay=-1.0),
    "nesterov": lambda o, p: o.SGD([p], 1.0, nesterov=True),
    "eps": lambda o, p: o.Adam([p], eps=-1.0),
    "beta 0": lambda o, p: o.AdamW([p], betas=(1.0, 0.9)),
    "beta 1": lambda o, p: o.AdamW([p], betas=(0.9, 1.0)),
    "a parameter twice": lambda o, p: o.SGD([{"params": [p]}, {"params": [p]}]),
    "a group of nothing": lambda o, p: o.SGD([p]).add_param_group([p]),
    "no optimizer": lambda o, p: o.lr_scheduler.StepLR([], 1),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_mistakes_in_torchs_words(name: str) -> None:
    said = []
    for module, parameter in ((optim, pyconv.Parameter(1.0)), (torch.optim, None)):
        parameter = torch.nn.Parameter(torch.ones(())) if parameter is None else parameter
        with pytest.raises((ValueError, TypeError)) as error, warnings.catch_warnings():
            warnings.simplefilter("ignore")
            MISTAKES[name](module, parameter)
        said.append((type(error.value), str(error.value)))
    assert said[0][0] is said[1][0]
    assert said[0][1].split(",")[0] == said[1][1].split(",")[0]
