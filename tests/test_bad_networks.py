"""What is wrong with a network's call is told clearly, and leaves everything as it was."""

import warnings

import numpy as np
import pytest

import pyconv
from pyconv import functional as F


def net():
    return pyconv.Sequential(
        pyconv.Conv2d(1, 4, 3, padding=1, rng=0),
        pyconv.Residual(pyconv.Conv2d(4, 4, 3, padding=1, rng=1)),
        pyconv.LeakyReLU(),
        pyconv.Concat(pyconv.Identity(), pyconv.Conv2d(4, 2, 1, rng=2)),
        pyconv.Flatten(),
        pyconv.Linear(6 * 16, 3, rng=3),
    )


X = np.random.default_rng(0).standard_normal((5, 1, 4, 4)).astype(np.float32)
LABELS = np.array([0, 1, 2, 1, 0])

BAD_INPUTS = {
    "None": None,
    "text": "image",
    "complex": X.astype(complex),
    "objects": X.astype(object),
    "too few axes": X[0, 0],
    "too many axes": X[None],
    "channels": np.concatenate([X, X], 1),
    "size": X[:, :, :3],
    "no array at all": object(),
    "ragged": [[1, 2], [3]],
}


@pytest.mark.parametrize("name", BAD_INPUTS)
def test_a_bad_input_leaves_the_last_forward_to_be_answered(name):
    model, other = net(), net()
    g = np.ones((5, 3))
    expected = (other(X), other.backward(g))[1]
    model(X)
    for call in (model, model.vjp):
        with pytest.raises((TypeError, ValueError)) as error:
            call(BAD_INPUTS[name])
        assert str(error.value)
    np.testing.assert_array_equal(model.backward(g), expected)
    for mine, theirs in zip(model.parameters(), other.parameters(), strict=True):
        np.testing.assert_array_equal(mine.grad, theirs.grad)


@pytest.mark.parametrize("g", [None, "g", np.ones((5, 4)), np.ones(5), np.ones((5, 3), complex)])
def test_a_bad_gradient_changes_nothing(g):
    model = net()
    model(X)
    with pytest.raises((TypeError, ValueError)):
        model.backward(g)
    assert all(p.grad is None for p in model.parameters())
    assert model.backward(np.ones((5, 3))).shape == X.shape


def losses():
    weight = np.array([1, 2, 3], np.float32)
    return {
        "CrossEntropyLoss": (pyconv.CrossEntropyLoss(weight), LABELS),
        "MSELoss": (pyconv.MSELoss(), np.ones((5, 3))),
        "BCEWithLogitsLoss": (pyconv.BCEWithLogitsLoss(pos_weight=weight), np.ones((5, 3))),
    }


BAD_TARGETS = [
    ("CrossEntropyLoss", np.array([0, 1, 3, 0, 0]), ValueError, "Target 3 is out of bounds"),
    ("CrossEntropyLoss", np.array([0, -1, 0, 0, 0]), ValueError, "Target -1 is out of bounds"),
    ("CrossEntropyLoss", LABELS.astype(float), TypeError, "integer dtype, got float64"),
    ("CrossEntropyLoss", LABELS.astype(bool), TypeError, "integer dtype, got bool"),
    ("CrossEntropyLoss", np.ones((5, 3), int), TypeError, "Expected floating point type"),
    ("CrossEntropyLoss", LABELS[:4], ValueError, "expected target of shape"),
    ("CrossEntropyLoss", LABELS[:, None], ValueError, "expected target of shape"),
    ("CrossEntropyLoss", None, (TypeError, ValueError), "target"),
    ("MSELoss", np.ones(3), ValueError, "expected target of shape"),
    ("MSELoss", np.ones((5, 3), complex), TypeError, "complex"),
    ("BCEWithLogitsLoss", np.ones((5, 1)), ValueError, "must be the same as input size"),
    ("BCEWithLogitsLoss", "yes", TypeError, "real numbers"),
]


@pytest.mark.parametrize(("name", "target", "error", "text"), BAD_TARGETS)
def test_a_bad_target_leaves_the_last_loss_to_be_answered(name, target, error, text):
    criterion, good = losses()[name]
    scores = np.random.default_rng(1).standard_normal((5, 3)).astype(np.float32)
    criterion(scores, good)
    expected = criterion.vjp(scores, good)[1]()
    with pytest.raises(error, match=text):
        criterion(scores, target)
    np.testing.assert_array_equal(criterion.backward(), expected)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("name", ["CrossEntropyLoss", "MSELoss", "BCEWithLogitsLoss"])
def test_a_loss_fed_nan_is_nan_and_says_nothing(name, value):
    criterion, target = losses()[name]
    scores = np.zeros((5, 3), np.float32)
    scores[1, 1] = value
    with warnings.catch_warnings(), np.errstate(all="raise"):
        warnings.simplefilter("error")
        loss, grad = criterion(scores, target), criterion.backward()
    assert not np.isfinite(loss) or value != value or name != "MSELoss"
    assert loss.dtype == (np.float32 if name == "CrossEntropyLoss" else np.float64)
    assert np.isfinite(grad[[0, 2, 3, 4]]).all()  # other samples are not harmed
    if value != value:
        assert np.isnan(loss) and np.isnan(grad[1]).any()


def test_a_training_on_nan_goes_on_and_stays_nan():
    model, criterion = net(), pyconv.CrossEntropyLoss()
    optimizer = pyconv.optim.Adam(model.parameters())
    with warnings.catch_warnings(), np.errstate(all="raise"):
        warnings.simplefilter("error")
        for _ in range(2):
            optimizer.zero_grad()
            loss = criterion(model(X * np.float32(np.nan)), LABELS)
            model.backward(criterion.backward())
            pyconv.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
    assert np.isnan(loss)


def test_mixed_dtypes_end_in_the_models():
    for dtype in (np.float32, np.float64):
        model = net() if dtype == np.float32 else net().double()
        for x in (X, X.astype(np.float64), (X > 0), (10 * X).astype(np.int8), X.astype(np.float16)):
            y = model(x)
            assert y.dtype == dtype
            assert model.backward(np.ones(y.shape, np.float16)).dtype == dtype
        assert all(p.grad.dtype == dtype for p in model.parameters())
        model.double()
        assert all(p.grad.dtype == np.float64 for p in model.parameters())
        with pytest.raises(RuntimeError, match="forward in training mode"):
            model.backward(np.ones((5, 3)))  # what was kept had the other dtype


def test_load_state_dict_mismatches_leave_a_whole_network_unchanged():
    model = net()
    model.register_buffer("seen", np.zeros((), np.int64))
    before = {key: value.copy() for key, value in model.state_dict().items()}
    good = {key: value + 1 for key, value in before.items()}
    for change in (
        {"5.bias": np.zeros(4)},
        {"1.body.weight": np.zeros((4, 4, 3))},
        {"seen": np.zeros(2)},
        {"3.1.bias": np.array(["a", "b"])},
        {"more": 1},
    ):
        with pytest.raises(RuntimeError, match=r"Error\(s\) in loading state_dict for Sequential"):
            model.load_state_dict({**good, **change})
        for key, value in model.state_dict().items():
            np.testing.assert_array_equal(value, before[key])
    model.load_state_dict(good)
    assert model.seen == 1


@pytest.mark.parametrize("call", [F.softmax, F.log_softmax])
def test_functions_refuse_what_is_not_real(call):
    for wrong in (None, "x", X.astype(complex), object()):
        with pytest.raises(TypeError):
            call(wrong, 0)
