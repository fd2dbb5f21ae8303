"""Forward hooks, and what a layer remembers of its calls."""

import copy
import pickle

import numpy as np
import pytest

import pyconv


def images(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


LAYERS = {
    "Conv2d": lambda: pyconv.Conv2d(2, 2, 1, rng=0),
    "ConvTranspose2d": lambda: pyconv.ConvTranspose2d(2, 2, 1, rng=0),
    "MaxPool2d": lambda: pyconv.MaxPool2d(1),
    "AvgPool2d": lambda: pyconv.AvgPool2d(1),
    "ReLU": pyconv.ReLU,
    "Flatten": lambda: pyconv.Flatten(0, 0),
    "Linear": lambda: pyconv.Linear(3, 3, rng=0),
    "Sequential": lambda: pyconv.Sequential(pyconv.ReLU()),
}


class Recorder:
    def __init__(self):
        self.seen = []

    def __call__(self, module, args, output):
        self.seen.append((module, args, output))


# ---- hooks ----


@pytest.mark.parametrize("mode", [True, False])
@pytest.mark.parametrize("name", LAYERS)
def test_a_hook_sees_calls_by_the_user_and_by_containers(name, mode):
    layer, record = LAYERS[name](), Recorder()
    net = pyconv.Sequential(pyconv.Sequential(layer)).train(mode)
    handle = layer.register_forward_hook(record)
    x = images(1, 2, 3, 3)
    for call in (layer, net):
        y = call(x)
        module, args, output = record.seen.pop()
        assert module is layer and args[0] is x and output is y and not record.seen
    handle.remove()
    layer(x)
    net(x)
    handle.remove()
    assert not record.seen and not layer._watched
    if mode:
        assert net.backward(y).shape == layer.backward(y).shape == x.shape


def test_hooks_run_in_torchs_order_with_torchs_arguments():
    def scenario(layer, x):
        log = []
        net = layer()

        def note(name, result=None):
            return lambda *args: log.append((name, len(args))) or result

        net.register_forward_hook(note("first"))
        gone = net.register_forward_hook(note("gone"))
        net.register_forward_hook(note("with kwargs"), with_kwargs=True)
        net.register_forward_hook(note("prepended"), prepend=True)
        net.register_forward_hook(note("always"), always_call=True)
        gone.remove()
        with net.register_forward_hook(note("replaced", 7)):
            net.register_forward_hook(lambda *args: log.append(("sees", args[2])))
            log.append(("output", net(x)))
        net(x)
        try:
            net(object())
        except (TypeError, ValueError):
            log.append(("failed", 0))
        return [(what, n if isinstance(n, int) else None) for what, n in log]

    torch = pytest.importorskip("torch")
    ours = scenario(pyconv.ReLU, np.ones(2))
    assert ours == scenario(torch.nn.ReLU, torch.ones(2))
    assert ours[:6] == [
        ("prepended", 3),
        ("first", 3),
        ("with kwargs", 4),
        ("always", 3),
        ("replaced", 3),
        ("sees", 7),
    ]


@pytest.mark.parametrize("name", LAYERS)
def test_after_a_replaced_output_there_is_no_backward(name):
    layer = LAYERS[name]()
    x = images(1, 2, 3, 3)
    layer(x)
    layer.register_forward_hook(lambda module, args, output: 2 * output)
    y = layer(x)
    with pytest.raises(RuntimeError, match="forward in training mode before it"):
        layer.backward(y)
    with pytest.raises(RuntimeError, match="a forward hook returned another output"):
        pyconv.Sequential(layer)(x)
    np.testing.assert_array_equal(pyconv.Sequential(layer).eval()(x), y)


def test_a_hook_on_a_users_module_and_on_a_loss():
    class Net(pyconv.Module):
        def forward(self, x, scale=1):
            return x * scale

    record, net = Recorder(), Net()
    net.register_forward_hook(record)
    assert net(2, scale=3) == 6 and record.seen[0][1:] == ((2,), 6)
    assert pyconv.Sequential(net)(5) == 5 and len(record.seen) == 2
    criterion = pyconv.MSELoss()
    criterion.register_forward_hook(record)
    assert criterion([1.0], [3.0]) == 4 and record.seen[2][2] == 4
    assert criterion.backward().tolist() == [-4]


def test_a_hook_that_raises_leaves_the_call_to_fail():
    layer = LAYERS["Conv2d"]()
    layer.register_forward_hook(lambda *args: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        layer(images(1, 2, 3, 3))


@pytest.mark.parametrize("make", [copy.deepcopy, lambda net: pickle.loads(pickle.dumps(net))])
@pytest.mark.parametrize("name", LAYERS)
def test_hooks_are_neither_copied_nor_pickled(name, make):
    layer = LAYERS[name]()
    layer.register_forward_hook(lambda *args: 1 / 0)
    new = make(layer)
    assert new(images(1, 2, 3, 3)).shape
    with new.register_forward_hook(Recorder()):
        pass
    with pytest.raises(ZeroDivisionError):
        layer(images(1, 2, 3, 3))


def test_a_hook_may_remove_itself_and_outlive_its_module():
    layer = pyconv.ReLU()
    seen = []
    handle = layer.register_forward_hook(lambda *args: (handle.remove(), seen.append(1))[0])
    layer.register_forward_hook(lambda *args: seen.append(2))
    layer(np.ones(2))
    layer(np.ones(2))
    assert seen == [1, 2, 2]
    del layer
    handle.remove()


# ---- one backward belongs to the last forward ----


@pytest.mark.parametrize("name", LAYERS)
def test_two_forwards_and_two_backwards_are_an_error_that_names_vjp(name):
    layer = LAYERS[name]()
    first, second = images(1, 2, 3, 3), images(1, 2, 3, 3, seed=1)
    y = layer(first)
    layer(second)
    expected = layer.vjp(second)[1](y)
    np.testing.assert_array_equal(layer.backward(y), expected)
    before = [p.grad.copy() for p in layer.parameters()]
    with pytest.raises(RuntimeError, match=r"again after 2 forwards, .*`y, pullback = layer.vjp"):
        layer.backward(y)
    for parameter, grad in zip(layer.parameters(), before, strict=True):
        np.testing.assert_array_equal(parameter.grad, grad)
    layer(second)  # a new forward is a new beginning
    np.testing.assert_array_equal(layer.backward(y), expected)
    np.testing.assert_array_equal(layer.backward(y), expected)


@pytest.mark.parametrize("name", LAYERS)
def test_what_counts_is_forwards_that_no_backward_has_answered(name):
    layer = LAYERS[name]()
    x = images(1, 2, 3, 3)
    y = layer(x)
    for _ in range(2):  # one forward, any number of backwards; and again
        layer.backward(y)
        layer.backward(y)
        layer(x)
    layer.eval()(x)  # eval mode forgets everything
    layer.train()(x)
    layer.backward(y)
    layer.backward(y)
    layer.vjp(x)  # and vjp has nothing to do with it
    layer.backward(y)
    layer(x)
    layer(x)
    with pytest.raises((ValueError, TypeError)):
        layer.backward(object())  # a backward that fails answers nothing
    layer.backward(y)
    with pytest.raises(RuntimeError, match="again after 2 forwards"):
        layer.backward(y)


def test_a_loss_too():
    criterion = pyconv.MSELoss()
    criterion([1.0], [0.0])
    criterion([2.0], [0.0])
    assert criterion.backward().tolist() == [4.0]
    with pytest.raises(RuntimeError, match="again after 2 forwards"):
        criterion.backward()


def test_a_users_forward_that_calls_a_layer_twice():
    class Twice(pyconv.Module):
        def __init__(self):
            super().__init__()
            self.act = pyconv.Linear(2, 2, rng=0)

        def forward(self, x):
            return self.act(self.act(x))

        def backward(self, grad_output):
            return self.act.backward(self.act.backward(grad_output))

    net = Twice()
    y = net(np.ones((1, 2)))
    with pytest.raises(RuntimeError, match="vjp"):
        net.backward(y)
