"""Sequential: a chain, its gradients, and its manners as a list."""

from collections import OrderedDict

import numpy as np
import pytest

import pyconv


def small(seed=0):
    rng = np.random.default_rng(seed)
    return pyconv.Sequential(
        pyconv.Conv2d(1, 2, 3, rng=rng),
        pyconv.ReLU(),
        pyconv.MaxPool2d(2),
        pyconv.Flatten(),
        pyconv.Linear(8, 3, rng=rng),
    )


def named():
    return pyconv.Sequential(OrderedDict(first=pyconv.ReLU(), second=pyconv.Flatten()))


X = np.random.default_rng(1).standard_normal((2, 1, 6, 6))


# ---- forward and backward ----


def test_forward_is_the_chain():
    net = small()
    expected = X
    for layer in net:
        expected = layer(expected)
    np.testing.assert_array_equal(net(X), expected)
    np.testing.assert_array_equal(net.eval()(X), expected)


def test_backward_is_the_chain_backwards():
    net, other = small(), small()
    h = X
    for layer in other:
        h = layer(h)
    grad = np.ones((2, 3), np.float32)
    expected = grad
    for layer in reversed(list(other)):
        expected = layer.backward(expected)
    net(X)
    np.testing.assert_array_equal(net.backward(grad), expected)
    for mine, theirs in zip(net.parameters(), other.parameters(), strict=True):
        np.testing.assert_array_equal(mine.grad, theirs.grad)


def test_gradients_fit_difference_quotients():
    assert pyconv.testing.gradcheck(small(), X)


def test_input_grad_false_still_gives_all_parameter_gradients():
    net, other = small(), small()
    net(X), other(X)
    assert net.backward(np.ones((2, 3)), input_grad=False) is None
    assert other.backward(np.ones((2, 3))).shape == X.shape
    for mine, theirs in zip(net.parameters(), other.parameters(), strict=True):
        np.testing.assert_array_equal(mine.grad, theirs.grad)


@pytest.mark.parametrize("make", [lambda: pyconv.Conv2d(2, 2, 3, padding=1, rng=0)])
def test_one_layer_may_stand_in_the_chain_twice(make):
    layer = make()
    net = pyconv.Sequential(layer, pyconv.ReLU(), layer)
    assert pyconv.testing.gradcheck(net, np.random.default_rng(0).standard_normal((1, 2, 3, 3)))


def test_backward_twice_accumulates():
    net = small()
    net(X)
    first = net.backward(np.ones((2, 3)))
    once = [p.grad.copy() for p in net.parameters()]
    second = net.backward(np.ones((2, 3)))
    np.testing.assert_array_equal(first, second)
    for before, parameter in zip(once, net.parameters(), strict=True):
        np.testing.assert_array_equal(2 * before, parameter.grad)


def test_backward_needs_a_forward_in_training_mode():
    net = small()
    with pytest.raises(RuntimeError, match="Sequential: backward needs a forward"):
        net.backward(np.ones((2, 3)))
    net(X)
    net.eval()(X)
    with pytest.raises(RuntimeError, match="Sequential: backward needs a forward"):
        net.backward(np.ones((2, 3)))


def test_a_wrong_gradient_changes_nothing():
    net = small()
    net(X)
    with pytest.raises(ValueError, match="grad_output"):
        net.backward(np.ones((2, 4)))
    assert all(p.grad is None for p in net.parameters())
    assert net.backward(np.ones((2, 3))).shape == X.shape


def test_vjp_works_in_eval_mode_and_keeps_no_state():
    net = small()
    y = net(X)
    net.eval()
    other, pullback = net.vjp(2 * X)
    assert not np.array_equal(other, y)
    expected = small()
    expected(2 * X)
    np.testing.assert_array_equal(pullback(np.ones((2, 3))), expected.backward(np.ones((2, 3))))
    net.train()
    expected = small()
    expected(X)
    np.testing.assert_array_equal(net.backward(np.ones((2, 3))), expected.backward(np.ones((2, 3))))


def test_a_child_in_eval_mode_may_stand_in_a_model_that_is_trained():
    net = small()
    net[0].eval()
    net(X)
    net.backward(np.ones((2, 3)))
    assert net[0].weight_grad is not None


def test_changing_an_output_is_harmless():
    net, other = small(), small()
    h = net[:2](X)
    y = net(X)
    h += 100
    y += 100
    other(X)
    np.testing.assert_array_equal(net.backward(np.ones((2, 3))), other.backward(np.ones((2, 3))))


def test_nested_and_empty():
    net = pyconv.Sequential(pyconv.Sequential(), pyconv.Sequential(*small()))
    assert pyconv.testing.gradcheck(net, X)
    assert next(net.named_parameters())[0] == "1.0.weight"
    empty = pyconv.Sequential()
    assert empty(3) == 3 and empty.backward(4) == 4 and repr(empty) == "Sequential()"
    assert empty.backward(4, input_grad=False) is None


# ---- as a list ----


def test_numbers_or_names():
    assert [name for name, _ in small().named_children()] == list("01234")
    net = named()
    assert [name for name, _ in net.named_children()] == ["first", "second"]
    assert net.first is net[0] and getattr(small(), "1").__class__ is pyconv.ReLU
    assert repr(net) == (
        "Sequential(\n  (first): ReLU()\n  (second): Flatten(start_dim=1, end_dim=-1)\n)"
    )


@pytest.mark.parametrize(
    ("value", "name"),
    [([], "list"), ({}, "dict"), (1, "int"), (None, "NoneType"), (pyconv.ReLU, "type")],
)
def test_only_modules(value, name):
    with pytest.raises(TypeError, match=f"{name} is not a Module subclass"):
        pyconv.Sequential(value)
    with pytest.raises(TypeError, match=f"{name} is not a Module subclass"):
        small().append(value)
    with pytest.raises(TypeError, match=f"{name} is not a Module subclass"):
        small().insert(0, value)
    net = small()
    with pytest.raises(TypeError, match=f"{name} is not a Module subclass"):
        net[0] = value
    assert isinstance(net[0], pyconv.Conv2d)


def test_a_name_that_would_hide_a_method_is_refused():
    with pytest.raises(KeyError, match="'append' already exists"):
        pyconv.Sequential(OrderedDict(append=pyconv.ReLU()))


def test_index_and_slice():
    net = small()
    assert net[-1] is net[4] and net[np.int64(1)] is net[1] and len(net) == 5
    for index in (5, -6):
        with pytest.raises(IndexError, match=f"index {index} is out of range"):
            net[index]
    assert len(pyconv.Sequential(*[pyconv.ReLU()] * 3)) == 3
    with pytest.raises(IndexError, match="index 3 is out of range"):
        pyconv.Sequential(*[pyconv.ReLU()] * 3)[3]
    with pytest.raises(TypeError, match="index"):
        net["0"]
    tail = net[3:]
    assert isinstance(tail, pyconv.Sequential) and list(tail) == [net[3], net[4]]
    assert list(tail.state_dict()) == ["4.weight", "4.bias"]


def test_set_and_delete():
    net = small()
    relu = pyconv.ReLU()
    net[-1] = relu
    assert net[4] is relu
    del net[0]
    assert [name for name, _ in net.named_children()] == list("0123")
    del net[1:3]
    assert [type(m).__name__ for m in net] == ["ReLU", "ReLU"]


def test_append_extend_insert_pop():
    a, b, c, d = (pyconv.ReLU() for _ in range(4))
    net = pyconv.Sequential(b)
    assert net.append(c) is net and net.insert(0, a) is net and net.extend([d]) is net
    assert list(net) == [a, b, c, d]
    assert [name for name, _ in net.named_children()] == list("0123")
    assert net.pop(1) is b and list(net) == [a, c, d]
    assert list(net.pop(slice(0, 2))) == [a, c]
    assert net.insert(-1, b) is net and list(net) == [b, d]
    with pytest.raises(IndexError, match="Index out of range: 3"):
        net.insert(3, a)
    with pytest.raises(ValueError, match="without names"):
        named().insert(0, a)
    net.extend(net)
    assert list(net) == [b, d, b, d]


def test_plus_and_times():
    a, b = pyconv.ReLU(), pyconv.Flatten()
    net = pyconv.Sequential(a) + pyconv.Sequential(b)
    assert list(net) == [a, b]
    assert list(net * 2) == list(2 * net) == [a, b, a, b]
    net += pyconv.Sequential(a)
    assert list(net) == [a, b, a]
    net *= 2
    assert list(net) == [a, b, a] * 2
    with pytest.raises(TypeError, match="add operator supports only"):
        net + a
    with pytest.raises(TypeError, match="unsupported operand"):
        net * 1.5
    with pytest.raises(ValueError, match="Non-positive"):
        net * 0


def test_a_failed_change_leaves_the_chain_as_it_was():
    net = named()
    before = list(net.named_children())
    for change in (
        lambda: net.append(1),
        lambda: net.insert(0, pyconv.ReLU()),
        lambda: net.pop(7),
        lambda: net.__delitem__(7),
    ):
        with pytest.raises((TypeError, ValueError, IndexError)):
            change()
    assert list(net.named_children()) == before
