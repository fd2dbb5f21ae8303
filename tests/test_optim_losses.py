"""SGD against steps done by hand, the losses against their formulas, and gradcheck itself."""

import copy
import pickle

import numpy as np
import pytest

import pyconv
from pyconv import functional as F
from pyconv.optim import SGD
from pyconv.testing import gradcheck


def rng(seed=0):
    return np.random.default_rng(seed)


def parameter(*values):
    return pyconv.Parameter(np.array(values, np.float64))


def steps(optimizer, p, *grads):
    """The values after each step with these gradients."""
    seen = []
    for grad in grads:
        p.grad = [grad]
        optimizer.step()
        seen.append(round(float(p.data[0]), 12))
    return seen


# ---- SGD ----


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        # From p = 1 with gradients 1, 2, 0 and lr 0.5, by hand.
        ({}, [0.5, -0.5, -0.5]),
        ({"maximize": True}, [1.5, 2.5, 2.5]),
        ({"weight_decay": 0.5}, [0.25, -0.8125, -0.609375]),
        # v: 1; 0.5 + 2 = 2.5; 1.25
        ({"momentum": 0.5}, [0.5, -0.75, -1.375]),
        # v: 1 (the first is not dampened); 0.5 + 0.75*2 = 2; 1
        ({"momentum": 0.5, "dampening": 0.25}, [0.5, -0.5, -1.0]),
        # g + 0.5 v: 1.5; 2 + 1.25 = 3.25; 0.625
        ({"momentum": 0.5, "nesterov": True}, [0.25, -1.375, -1.6875]),
        # g: 1.5, then 2.125, then -0.453125; v: 1.5, 2.875, 0.984375
        ({"momentum": 0.5, "weight_decay": 0.5}, [0.25, -1.1875, -1.609375]),
    ],
)
def test_sgd_steps_by_hand(options, expected):
    p = parameter(1)
    if options == {"momentum": 0.5, "weight_decay": 0.5}:
        # v = 1.5; g = 2 + 0.125, v = 0.75 + 2.125 = 2.875; p = 0.25 - 1.4375 = -1.1875;
        # g = -0.59375, v = 1.4375 - 0.59375 = 0.84375; p = -1.1875 - 0.421875
        assert expected[2] == -1.1875 - 0.421875
    assert steps(SGD([p], lr=0.5, **options), p, 1, 2, 0) == expected


def test_sgd_works_in_place_and_in_the_parameters_dtype():
    conv = pyconv.Conv2d(1, 2, 3, rng=0)
    weight, before = conv.weight, conv.weight.copy()
    optimizer = SGD(conv.parameters(), lr=np.float64(0.1), momentum=np.float64(0.9))
    conv.backward(np.ones_like(conv(np.ones((1, 1, 4, 4)))))
    grad = conv.weight_grad.copy()
    optimizer.step()
    assert conv.weight is weight and weight.dtype == np.float32
    np.testing.assert_array_equal(weight, before - np.float32(0.1) * grad)
    np.testing.assert_array_equal(conv.weight_grad, grad)
    optimizer.step()
    assert all(s["momentum_buffer"].dtype == np.float32 for s in optimizer.state.values())


def test_sgd_passes_over_parameters_without_gradient_or_not_required():
    p, q = parameter(1), parameter(1)
    q.grad = [1]
    q.requires_grad = False
    SGD([p, q], lr=1).step()
    assert p.data[0] == q.data[0] == 1


def test_sgd_zero_grad():
    p = parameter(1)
    optimizer = SGD([p])
    p.grad = [1]
    held = p.grad
    optimizer.zero_grad(set_to_none=False)
    assert p.grad is held and held[0] == 0
    optimizer.zero_grad()
    assert p.grad is None


def test_sgd_groups_have_options_of_their_own():
    p, q = parameter(1), parameter(1)
    optimizer = SGD([{"params": [p], "lr": 1.0}, {"params": q}], lr=0.5)
    p.grad = q.grad = [1]
    optimizer.step()
    assert (p.data[0], q.data[0]) == (0, 0.5)
    optimizer.param_groups[1]["lr"] = 0.25
    optimizer.step()
    assert (p.data[0], q.data[0]) == (-1, 0.25)
    assert "lr: 0.25" in repr(optimizer)


def test_sgd_closure():
    p = parameter(1)

    def closure():
        p.grad = [1]
        return 42

    assert SGD([p], lr=1).step(closure) == 42 and p.data[0] == 0
    assert SGD([p]).step() is None


@pytest.mark.parametrize(
    ("arguments", "options", "error", "text"),
    [
        ([[]], {}, ValueError, "empty parameter list"),
        ([pyconv.Parameter(1.0)], {}, TypeError, "iterable of Parameters"),
        ([np.ones(3)], {}, TypeError, "iterable of Parameters"),
        ([[np.ones(3)]], {}, TypeError, "one of the params is ndarray"),
        ([[1]], {}, TypeError, "one of the params is int"),
        ([[pyconv.Parameter(1.0)] * 2], {}, ValueError, "more than once"),
        ([[parameter(1)], -1], {}, ValueError, "Invalid learning rate: -1"),
        ([[parameter(1)], float("nan")], {}, ValueError, "Invalid learning rate"),
        ([[parameter(1)], 1, -1], {}, ValueError, "Invalid momentum value: -1"),
        ([[parameter(1)]], {"weight_decay": -1}, ValueError, "Invalid weight_decay value"),
        ([[parameter(1)]], {"nesterov": True}, ValueError, "Nesterov momentum requires"),
        ([[{"params": [parameter(1)], "rate": 1}]], {}, ValueError, r"unknown.*\['rate'\]"),
    ],
)
def test_sgd_errors(arguments, options, error, text):
    with pytest.raises(error, match=text):
        SGD(*arguments, **options)


def test_sgd_refused_group_changes_nothing():
    p = parameter(1)
    optimizer = SGD([p])
    for group in ({"params": [p]}, {"params": [parameter(2)], "lr": -1}, [p]):
        with pytest.raises((ValueError, TypeError)):
            optimizer.add_param_group(group)
    assert len(optimizer.param_groups) == 1


def test_sgd_goes_on_from_a_state_dict():
    p, q = parameter(1), parameter(1)
    first, second = SGD([p], lr=0.5, momentum=0.5), SGD([q], lr=9)
    steps(first, p, 1)
    steps(second, q, 0)
    q.data = p.data
    second.load_state_dict(copy.deepcopy(first.state_dict()))
    assert steps(first, p, 2, 0) == steps(second, q, 2, 0) == [-0.75, -1.375]
    assert second.param_groups[0]["lr"] == 0.5
    state = first.state_dict()
    assert state["param_groups"][0]["params"] == [0] and list(state["state"]) == [0]
    with pytest.raises(ValueError, match="groups"):
        SGD([parameter(1), parameter(2)]).load_state_dict(state)
    with pytest.raises(ValueError, match="expected shape"):
        SGD([parameter(1, 2)]).load_state_dict(state)


def test_sgd_pickles_with_its_model():
    model = pyconv.Linear(2, 1, rng=0)
    optimizer = SGD(model.parameters(), lr=0.5, momentum=0.5)
    model.backward(model(np.ones((1, 2))))
    optimizer.step()
    new_model, new = pickle.loads(pickle.dumps((model, optimizer)))
    for m, o in ((model, optimizer), (new_model, new)):
        m.zero_grad()
        m(np.ones((1, 2)))
        m.backward([[1.0]])
        o.step()
    np.testing.assert_array_equal(model.weight, new_model.weight)


def test_a_model_converted_in_between_is_trained_on():
    model = pyconv.Linear(2, 1, rng=0)
    optimizer = SGD(model.parameters(), momentum=0.9)
    for _ in range(2):
        model.backward(np.ones_like(model(np.ones((1, 2)))))
        optimizer.step()
        model.double()
    assert all(s["momentum_buffer"].dtype == np.float64 for s in optimizer.state.values())


def test_training_learns_a_stripe_detector():
    model = pyconv.Sequential(
        pyconv.Conv2d(1, 2, 3, rng=0), pyconv.ReLU(), pyconv.Flatten(), pyconv.Linear(32, 2, rng=1)
    )
    x = rng().standard_normal((40, 1, 6, 6))
    y = np.arange(40) % 2
    x[y == 1, :, ::2] += 2
    x[y == 0, :, :, ::2] += 2
    criterion, optimizer = pyconv.CrossEntropyLoss(), SGD(model.parameters(), 0.1, 0.9)
    losses = []
    for _ in range(30):
        optimizer.zero_grad()
        losses.append(float(criterion(model(x), y)))
        model.backward(criterion.backward(), input_grad=False)
        optimizer.step()
    assert losses[-1] < 0.05 < losses[0]
    assert (model.eval()(x).argmax(1) == y).all()


# ---- cross entropy ----


def naive_cross_entropy(x, t, w, ignore, smoothing):
    """Losses and weights of single samples, one at a time; x has the classes last."""
    classes = x.shape[-1]
    losses, weights = np.zeros(x.shape[:-1]), np.zeros(x.shape[:-1])
    for index in np.ndindex(x.shape[:-1]):
        p = np.exp(x[index]) / np.exp(x[index]).sum()
        if t.dtype.kind == "f":
            target = t[index]
            weights[index] = 1
        elif t[index] == ignore:
            continue
        else:
            target = np.eye(classes)[t[index]]
            weights[index] = w[t[index]]
        target = target * (1 - smoothing) + smoothing / classes
        losses[index] = -(w * target * np.log(p)).sum()
    return losses, weights


SHAPES = [(5, 3), (3,), (2, 3, 4), (2, 3, 2, 2), (1, 1)]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("smoothing", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("kind", ["labels", "ignored", "probabilities"])
def test_cross_entropy(shape, reduction, weighted, smoothing, kind):
    axis = 1 if len(shape) > 1 else 0
    classes = shape[axis]
    x = 3 * rng(1).standard_normal(shape)
    w = rng(2).uniform(0.5, 2, classes) if weighted else None
    if kind == "probabilities":
        t = rng(3).uniform(0, 1, shape)
    else:
        t = rng(3).integers(0, classes, x.sum(axis).shape)
    ignore = int(np.ravel(t)[0]) if kind == "ignored" else -100
    options = {"weight": w, "reduction": reduction, "label_smoothing": smoothing}
    if kind != "probabilities":
        options["ignore_index"] = ignore
    losses, weights = naive_cross_entropy(
        np.moveaxis(x, axis, -1),
        np.moveaxis(t, axis, -1) if kind == "probabilities" else t,
        np.ones(classes) if w is None else w,
        ignore,
        smoothing,
    )
    with np.errstate(all="ignore"):
        expected = {
            "none": losses,
            "sum": losses.sum(),
            "mean": losses.sum() / weights.sum(),
        }[reduction]
    y = F.cross_entropy(x, t, **options)
    np.testing.assert_allclose(y, expected, rtol=1e-12, atol=1e-12)
    criterion = pyconv.CrossEntropyLoss(**options)
    np.testing.assert_array_equal(criterion(x, t), y)
    if np.isfinite(expected).all():
        assert gradcheck(F.cross_entropy, x, t, **options)
        assert gradcheck(criterion, x, t)


def test_cross_entropy_of_nothing():
    x, ignored = np.ones((2, 3)), [-100, -100]
    assert np.isnan(F.cross_entropy(x, ignored))
    assert F.cross_entropy(x, ignored, reduction="sum") == 0
    assert np.isnan(F.cross_entropy(np.ones((0, 3)), []))
    assert F.cross_entropy(np.ones((0, 3)), [], reduction="none").shape == (0,)
    assert not F.cross_entropy_backward(1, x, ignored, reduction="sum").any()


def test_cross_entropy_of_large_scores():
    with np.errstate(all="raise"):
        loss = F.cross_entropy([[1e30, 0], [0, -np.inf], [800, 801]], [0, 0, 0], reduction="none")
        np.testing.assert_allclose(loss, [0, 0, np.log1p(np.e)])
        assert F.cross_entropy([[0, -np.inf]], [1]) == np.inf
        grad = F.cross_entropy_backward(1, [[0, -np.inf]], [0])
    assert grad.tolist() == [[0, 0]]


def test_cross_entropy_dtypes():
    x = rng().standard_normal((4, 3))
    for dtype, expected in ((np.float32, np.float32), (np.float64, np.float64)):
        loss = F.cross_entropy(x.astype(dtype), np.array([0, 1, 2, 0], np.uint8))
        assert loss.dtype == expected and np.ndim(loss) == 0
        grad = F.cross_entropy_backward(np.float64(1), x.astype(dtype), [0, 1, 2, 0])
        assert grad.dtype == expected and grad.flags.c_contiguous


@pytest.mark.parametrize(
    ("change", "error", "text"),
    [
        ({"target": [0, 3]}, ValueError, "Target 3 is out of bounds"),
        ({"target": [0, -1]}, ValueError, "Target -1 is out of bounds"),
        ({"target": [0.0, 1.0]}, TypeError, "integer"),
        ({"target": [True, False]}, TypeError, "integer"),
        ({"target": [0]}, ValueError, "expected target of shape"),
        ({"target": np.zeros((2, 3), int)}, TypeError, "Expected floating point type for target"),
        ({"target": np.zeros((2, 3)), "ignore_index": 0}, ValueError, "not supported"),
        ({"weight": [1, 2]}, ValueError, "all 3 classes or no classes"),
        ({"reduction": "median"}, ValueError, "not a valid value for reduction"),
        ({"label_smoothing": 1.5}, ValueError, "label_smoothing must be between 0.0 and 1.0"),
        ({"input": 1.0}, ValueError, "expected input"),
        ({"input": np.zeros((2, 3), complex)}, TypeError, "float32 or float64"),
    ],
)
def test_cross_entropy_errors(change, error, text):
    arguments = {"input": np.zeros((2, 3)), "target": [0, 1], **change}
    with pytest.raises(error, match=text):
        F.cross_entropy(**arguments)
    with pytest.raises(error, match=text):
        F.cross_entropy_backward(1.0, **arguments)


def test_the_old_words_for_reduction():
    for size_average, reduce, expected in [
        (None, None, "sum"),
        (True, None, "mean"),
        (False, None, "sum"),
        (None, True, "mean"),
        (False, True, "sum"),
        (None, False, "none"),
        (True, False, "none"),
    ]:
        assert pyconv.MSELoss(size_average, reduce, "sum").reduction == expected
        assert pyconv.CrossEntropyLoss(None, size_average, 0, reduce, "sum").reduction == expected


# ---- mean squared error ----


@pytest.mark.parametrize("weighted", [False, True])
def test_mse_loss(weighted):
    x, t = rng().standard_normal((2, 3, 4))
    w = rng(1).uniform(0.5, 2, (3, 4)) if weighted else None
    squares = (x - t) ** 2 * (1 if w is None else w)
    total = squares.size if w is None else w.sum()
    np.testing.assert_allclose(F.mse_loss(x, t, reduction="none", weight=w), squares, rtol=1e-14)
    np.testing.assert_allclose(F.mse_loss(x, t, reduction="sum", weight=w), squares.sum())
    np.testing.assert_allclose(F.mse_loss(x, t, weight=w), squares.sum() / total)
    for reduction in ("none", "sum", "mean"):
        assert gradcheck(F.mse_loss, x, t, reduction=reduction, weight=w)
    assert F.mse_loss(x.astype("f4"), t.astype("f4")).dtype == np.float32
    with pytest.raises(ValueError, match=r"expected target of shape \(3, 4\), got \(4,\)"):
        F.mse_loss(x, t[0])
    with pytest.raises(ValueError, match="grad_output"):
        F.mse_loss_backward(np.ones(2), x, t)


def test_criterion_backward():
    criterion = pyconv.MSELoss()
    with pytest.raises(RuntimeError, match="MSELoss: backward needs a forward"):
        criterion.backward()
    assert criterion([1, 2], [1, 5]) == 4.5
    assert criterion.backward().tolist() == [0, -3]
    assert criterion.backward(2).tolist() == [0, -6]
    criterion.eval()([1, 2], [1, 5])
    with pytest.raises(RuntimeError, match="forward in training mode"):
        criterion.backward()
    each = pyconv.MSELoss(reduction="none")
    assert each([1, 2], [1, 5]).tolist() == [0, 9]
    with pytest.raises(ValueError, match="needs a grad_output"):
        each.backward()
    assert each.backward([1, 10]).tolist() == [0, -60]


def test_the_class_weights_are_a_buffer():
    criterion = pyconv.CrossEntropyLoss([1, 2, 3])
    assert list(criterion.state_dict()) == ["weight"] and criterion.weight.dtype == np.float64
    assert criterion.float().weight.dtype == np.float32
    assert list(pyconv.CrossEntropyLoss().state_dict()) == []
    assert pickle.loads(pickle.dumps(criterion)).weight.tolist() == [1, 2, 3]


# ---- gradcheck itself ----


class Wrong(pyconv.Module):
    """A square whose gradient is wrong in one element, by a little."""

    def __init__(self, factor=1.01):
        super().__init__()
        self.factor = factor
        self.scale = pyconv.Parameter([1.0, 2.0])

    def forward(self, x):
        self.x = x
        return self.scale.data * x**2

    def backward(self, grad_output):
        self.scale.accumulate_grad((grad_output * self.x**2).sum(0))
        grad = 2 * self.scale.data * self.x * grad_output
        grad[1, 0] *= self.factor
        return grad


def test_gradcheck_finds_a_planted_error():
    x = np.array([[1.0, 2.0], [3.0, 4.0]])
    assert gradcheck(Wrong(1), x)
    with pytest.raises(AssertionError, match=r"Wrong: input 0: wrong gradient in 1 of 4.*\(1, 0\)"):
        gradcheck(Wrong(), x)
    assert gradcheck(Wrong(), x, rtol=0.1)


def test_gradcheck_finds_a_wrong_parameter_gradient():
    class WrongScale(Wrong):
        def backward(self, grad_output):
            grad = super().backward(grad_output)
            self.scale.grad = 2 * self.scale.grad
            return grad

    with pytest.raises(AssertionError, match="WrongScale: scale: wrong gradient in 2 of 2"):
        gradcheck(WrongScale(1), np.ones((2, 2)))

    class NoScale(Wrong):
        def backward(self, grad_output):
            grad = super().backward(grad_output)
            self.scale.grad = None
            return grad

    with pytest.raises(AssertionError, match="parameter scale got no gradient"):
        gradcheck(NoScale(1), np.ones((2, 2)))


def test_gradcheck_of_pairs_and_its_errors():
    def cube(x):
        return x**3

    assert gradcheck((cube, lambda g, x: 3 * x**2 * g), [1.0, 2.0])
    assert gradcheck((np.multiply, lambda g, a, b: (g * b, g * a)), [1.0, 2.0], [3.0, 4.0])
    with pytest.raises(AssertionError, match="cube: input 0: wrong gradient in 2 of 2"):
        gradcheck((cube, lambda g, x: 2 * x**2 * g), [1.0, 2.0])
    with pytest.raises(AssertionError, match="nan"):
        gradcheck((cube, lambda g, x: np.nan * g), [1.0, 2.0])
    with pytest.raises(AssertionError, match="gradient of shape"):
        gradcheck((cube, lambda g, x: g[:1]), [1.0, 2.0])
    with pytest.raises(TypeError, match="give a pair"):
        gradcheck(cube, [1.0])
    with pytest.raises(TypeError, match="floating-point"):
        gradcheck(F.relu, [1, 2])
    with pytest.raises(TypeError, match="no options"):
        gradcheck(pyconv.ReLU(), [1.0], stride=1)


def test_gradcheck_leaves_module_and_inputs_alone():
    layer, x = pyconv.Conv2d(1, 1, 2, rng=0), np.ones((1, 1, 3, 3), np.float32)
    y = layer(x)
    before = layer.weight.copy()
    gradcheck(layer, x)
    assert layer.weight.dtype == np.float32 and layer.weight_grad is None and (x == 1).all()
    np.testing.assert_array_equal(layer.weight, before)
    assert layer.backward(y).shape == x.shape
