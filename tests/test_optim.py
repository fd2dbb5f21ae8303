"""Adam, AdamW, schedulers and gradient clipping: against their formulas, without torch."""

import copy
import math
import pickle
import tracemalloc
import warnings

import numpy as np
import pytest

import pyconv
from pyconv.optim import SGD, Adam, AdamW, clip_grad_norm_
from pyconv.optim._base import BLOCK
from pyconv.optim.lr_scheduler import CosineAnnealingLR, StepLR

KINDS = {
    "SGD": lambda p, **o: SGD(p, 0.1, **o),
    "SGD with all": lambda p, **o: SGD(p, 0.1, 0.9, weight_decay=0.01, nesterov=True, **o),
    "SGD, dampened": lambda p, **o: SGD(p, 0.1, 0.9, 0.5, **o),
    "Adam": lambda p, **o: Adam(p, 0.1, **o),
    "Adam with all": lambda p, **o: Adam(p, 0.1, (0.8, 0.95), 1e-4, 0.1, True, **o),
    "AdamW": lambda p, **o: AdamW(p, 0.1, **o),
    "AdamW with all": lambda p, **o: AdamW(p, 0.1, (0.8, 0.95), 1e-4, 0.3, True, **o),
}


def parameter(*values, dtype=np.float64):
    return pyconv.Parameter(np.array(values, dtype))


def by_hand(group, grads, p):
    """The formulas of the docstrings, for one number."""
    adam = "betas" in group
    m = v = largest = 0.0
    for t, g in enumerate(grads, 1):
        g = -g if group["maximize"] else g
        decay = group["weight_decay"]
        if not adam:
            g += decay * p
            m = g if t == 1 else group["momentum"] * m + (1 - group["dampening"]) * g
            if group["momentum"]:
                g = g + group["momentum"] * m if group["nesterov"] else m
            p -= group["lr"] * g
            continue
        b1, b2 = group["betas"]
        if group["decoupled"]:
            p *= 1 - group["lr"] * decay
        else:
            g += decay * p
        m = b1 * m + (1 - b1) * g
        v = b2 * v + (1 - b2) * g * g
        largest = max(largest, v) if group["amsgrad"] else v
        p -= group["lr"] / (1 - b1**t) * m / (math.sqrt(largest / (1 - b2**t)) + group["eps"])
    return p


@pytest.mark.parametrize("maximize", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_steps_are_the_formulas(kind, maximize):
    rng = np.random.default_rng(0)
    n = 2 * BLOCK + 3  # three blocks, one of them small
    start, grads = rng.standard_normal(n), rng.standard_normal((7, n)) * 3
    p = pyconv.Parameter(start.reshape(1, n, 1))
    optimizer = KINDS[kind]([p], maximize=maximize)
    for grad in grads:
        p.grad = grad.reshape(p.shape)
        optimizer.step()
        np.testing.assert_array_equal(p.grad.reshape(-1), grad)
    group = {**optimizer.param_groups[0], "decoupled": isinstance(optimizer, AdamW)}
    for i in (0, 1, BLOCK - 1, BLOCK, 2 * BLOCK, n - 1):
        expected = by_hand(group, grads[:, i], start[i])
        assert p.data[0, i, 0] == pytest.approx(expected, rel=1e-12, abs=1e-13)


@pytest.mark.parametrize("kind", KINDS)
def test_steps_after_the_first_make_no_arrays(kind):
    p = pyconv.Parameter(np.ones((100, 10_000), np.float32))
    p.grad = np.ones(p.shape)
    array, optimizer = p.data, KINDS[kind]([p])
    optimizer.step()
    tracemalloc.start()
    optimizer.step()
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 20_000 and p.data is array and array.dtype == np.float32


@pytest.mark.parametrize("kind", KINDS)
def test_a_step_before_any_backward_changes_nothing(kind):
    p = parameter(1, 2)
    optimizer = KINDS[kind]([p])
    optimizer.step()
    assert p.data.tolist() == [1, 2] and not optimizer.state


@pytest.mark.parametrize("kind", KINDS)
def test_state_travels(kind):
    rng = np.random.default_rng(1)
    grads = rng.standard_normal((6, 2))
    one = parameter(1, 2)
    first = KINDS[kind]([one])
    for grad in grads[:3]:
        one.grad = grad
        first.step()
    other = parameter(*one.data)
    second = type(first)([other], lr=99)
    second.load_state_dict(copy.deepcopy(first.state_dict()))
    _, (third_p, third) = pickle.loads(pickle.dumps((None, (one, first))))
    for grad in grads[3:]:
        for p, optimizer in ((one, first), (other, second), (third_p, third)):
            p.grad = grad
            optimizer.step()
    assert one.data.tobytes() == other.data.tobytes() == third_p.data.tobytes()
    assert repr(first) == repr(second) == repr(third)


def test_state_of_another_kind_or_shape_is_refused_and_changes_nothing():
    p, q = parameter(1, 2), parameter(1, 2)
    adam, sgd = Adam([p]), SGD([q], momentum=0.9)
    p.grad = q.grad = [1, 1]
    adam.step()
    sgd.step()
    with pytest.raises(ValueError, match="Adam has no 'momentum_buffer'"):
        adam.load_state_dict({**adam.state_dict(), "state": sgd.state_dict()["state"]})
    state = copy.deepcopy(adam.state_dict())
    state["state"][0]["exp_avg"] = np.ones(3)
    with pytest.raises(ValueError, match=r"expected shape \(2,\)"):
        adam.load_state_dict(state)
    state = copy.deepcopy(adam.state_dict())
    state["param_groups"][0]["lr"] = -1
    with pytest.raises(ValueError, match="Invalid learning rate"):
        adam.load_state_dict(state)
    assert adam.param_groups[0]["lr"] == 1e-3 and adam.state[p]["step"] == 1


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"lr": -1}, "Invalid learning rate: -1"),
        ({"lr": float("nan")}, "Invalid learning rate: nan"),
        ({"eps": -1}, "Invalid epsilon value: -1"),
        ({"betas": (1.0, 0.9)}, "Invalid beta parameter at index 0: 1.0"),
        ({"betas": (0.9, -0.1)}, "Invalid beta parameter at index 1: -0.1"),
        ({"betas": (0.9,)}, "betas must be two numbers"),
        ({"weight_decay": -1}, "Invalid weight_decay value: -1"),
    ],
)
def test_adam_refuses(options, text):
    for kind in (Adam, AdamW):
        with pytest.raises(ValueError, match=text):
            kind([parameter(1)], **options)
        with pytest.raises(ValueError, match="empty parameter list"):
            kind([])
    p = parameter(1.0)
    optimizer = AdamW([p])
    optimizer.param_groups[0].update(options)
    p.grad = [1.0]
    with pytest.raises(ValueError, match=text):
        optimizer.step()
    assert p.data[0] == 1 and not optimizer.state


def test_a_read_only_parameter_stops_the_step_before_it_begins():
    p, q = parameter(1), parameter(1)
    p.grad = q.grad = [1]
    q.data.flags.writeable = False
    with pytest.raises(ValueError, match="read-only"):
        SGD([p, q], 1).step()
    assert p.data[0] == 1


# ---- schedulers ----


def rates(optimizer, scheduler, n):
    seen = [optimizer.param_groups[0]["lr"]]
    for _ in range(n):
        optimizer.step()
        scheduler.step()
        seen.append(optimizer.param_groups[0]["lr"])
        assert scheduler.get_last_lr() == [group["lr"] for group in optimizer.param_groups]
    return seen


def test_step_lr():
    optimizer = SGD([parameter(1)], lr=8.0)
    assert rates(optimizer, StepLR(optimizer, 2, 0.5), 6) == [8, 8, 4, 4, 2, 2, 1]


def test_cosine_annealing_lr():
    optimizer = SGD([parameter(1)], lr=3.0)
    seen = rates(optimizer, CosineAnnealingLR(optimizer, 10, 1.0), 30)
    expected = [1 + 2 * (1 + math.cos(math.pi * t / 10)) / 2 for t in range(31)]
    np.testing.assert_allclose(seen, expected, rtol=1e-12)


def test_every_group_has_its_own_rate():
    optimizer = SGD([{"params": [parameter(1)], "lr": 1.0}, {"params": [parameter(1)]}], lr=4.0)
    scheduler = StepLR(optimizer, 1, 0.5)
    rates(optimizer, scheduler, 2)
    assert scheduler.get_last_lr() == [0.25, 1.0] and scheduler.base_lrs == [1.0, 4.0]


@pytest.mark.parametrize("make", [lambda o: StepLR(o, 2), lambda o: CosineAnnealingLR(o, 5, 0.1)])
def test_a_schedule_goes_on_from_its_state(make):
    whole = SGD([parameter(1)], lr=1.0)
    expected = rates(whole, make(whole), 8)
    first = SGD([parameter(1)], lr=1.0)
    scheduler = make(first)
    rates(first, scheduler, 4)
    second = SGD([parameter(1)], lr=1.0)
    other = make(second)
    second.load_state_dict(first.state_dict())
    other.load_state_dict(copy.deepcopy(scheduler.state_dict()))
    assert rates(second, other, 4) == expected[4:]


def test_a_scheduler_that_goes_first_says_so():
    optimizer = SGD([parameter(1)])
    scheduler = StepLR(optimizer, 1)
    with pytest.warns(UserWarning, match=r"`lr_scheduler.step\(\)` before `optimizer.step\(\)`"):
        scheduler.step()
    optimizer.step()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        scheduler.step()


def test_a_scheduler_refuses():
    optimizer = SGD([parameter(1)])
    with pytest.raises(TypeError, match="list is not an Optimizer"):
        StepLR([], 1)
    for make in (lambda: StepLR(optimizer, 0), lambda: CosineAnnealingLR(optimizer, -1)):
        with pytest.raises(ValueError, match="must be positive"):
            make()
    with pytest.raises(KeyError, match="initial_lr"):
        StepLR(optimizer, 1, last_epoch=3)


# ---- clipping ----


@pytest.mark.parametrize("norm_type", [1.0, 2.0, 3, math.inf])
def test_clip_grad_norm(norm_type):
    rng = np.random.default_rng(2)
    p, q, idle = pyconv.Parameter(np.ones((3, 4))), parameter(1, 2), parameter(1)
    p.grad, q.grad = rng.standard_normal((3, 4)), rng.standard_normal(2)
    whole = np.concatenate([p.grad.reshape(-1), q.grad])
    size = np.linalg.norm(whole, norm_type)
    held = p.grad
    assert clip_grad_norm_([p, q, idle], 100, norm_type) == pytest.approx(size)
    np.testing.assert_array_equal(np.concatenate([p.grad.reshape(-1), q.grad]), whole)
    clip_grad_norm_(iter([p, q, idle]), 0.5, norm_type)
    assert p.grad is held and idle.grad is None
    clipped = np.concatenate([p.grad.reshape(-1), q.grad])
    np.testing.assert_allclose(clipped, whole * 0.5 / (size + 1e-6), rtol=1e-12)


def test_clip_grad_norm_of_nothing_and_of_nan():
    p = parameter(1, 2)
    assert pyconv.clip_grad_norm_(p, 1) == 0 and clip_grad_norm_([], 1) == 0
    p.grad = [np.nan, 1]
    with pytest.raises(RuntimeError, match="non-finite, so it cannot be clipped"):
        clip_grad_norm_(p, 1, error_if_nonfinite=True)
    assert p.grad[1] == 1
    assert np.isnan(clip_grad_norm_(p, 1)) and np.isnan(p.grad).all()
    with pytest.raises(TypeError, match=r"expected Parameters.* got ndarray"):
        clip_grad_norm_([np.ones(2)], 1)
