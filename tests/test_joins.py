"""Residual, Concat and ModuleList; and that no container gives a gradient that is not its own."""

import copy
import pickle
from collections import OrderedDict

import numpy as np
import pytest

import pyconv

X = np.random.default_rng(1).standard_normal((2, 3, 5, 6))


def conv(ic=3, oc=3, k=3, seed=0, **options):
    return pyconv.Conv2d(ic, oc, k, padding=k // 2, rng=seed, **options)


def body():
    return pyconv.Sequential(conv(), pyconv.ReLU(), conv(seed=1))


NETS = {
    "residual": lambda: pyconv.Residual(body()),
    "residual with shortcut": lambda: pyconv.Residual(
        pyconv.Sequential(conv(3, 4, stride=2), pyconv.ReLU()), conv(3, 4, 1, stride=2)
    ),
    "residual in residual": lambda: pyconv.Residual(pyconv.Residual(conv())),
    "residual of nothing": lambda: pyconv.Residual(pyconv.Sequential(), pyconv.Sequential()),
    "concat": lambda: pyconv.Concat(conv(3, 2, 1), body(), pyconv.MaxPool2d(3, 1, 1)),
    "concat of one": lambda: pyconv.Concat(conv()),
    "concat along rows": lambda: pyconv.Concat(conv(), pyconv.AvgPool2d((2, 1)), dim=-2),
    "concat with the input": lambda: pyconv.Concat(pyconv.Sequential(), conv(), dim=1),
    "dense": lambda: pyconv.Sequential(
        pyconv.Concat(pyconv.Sequential(), conv()), pyconv.Concat(pyconv.Sequential(), conv(6, 2))
    ),
    "u": lambda: pyconv.Sequential(
        pyconv.Concat(
            pyconv.Sequential(),
            pyconv.Sequential(
                pyconv.MaxPool2d(2),
                conv(),
                pyconv.ConvTranspose2d(3, 2, (3, 2), 2, rng=3),
            ),
        ),
        conv(5, 1),
    ),
}


def shared():
    """One layer in three places, and in both branches."""
    layer, act = conv(), pyconv.ReLU()
    return pyconv.Sequential(
        layer, act, pyconv.Residual(layer, pyconv.Sequential(act, layer)), act, layer
    )


NETS["shared layers"] = shared


@pytest.mark.parametrize("name", NETS)
def test_gradients_fit_difference_quotients(name):
    assert pyconv.testing.gradcheck(NETS[name](), X)


@pytest.mark.parametrize("name", NETS)
def test_eval_forward_vjp_copies_and_pickles_agree(name):
    net = NETS[name]()
    y = net(X)
    grad = np.random.default_rng(2).standard_normal(y.shape)
    expected = net.backward(grad)
    assert net.eval()(X).tobytes() == y.tobytes() and net.training is False
    for other in (copy.deepcopy(net), pickle.loads(pickle.dumps(net))):
        other.zero_grad()
        again, pullback = other.vjp(X)
        assert again.tobytes() == y.tobytes()
        assert pullback(grad).tobytes() == expected.tobytes()
        for mine, theirs in zip(other.parameters(), net.parameters(), strict=True):
            assert mine.grad.tobytes() == theirs.grad.tobytes()
        other.zero_grad()
        assert other.vjp(X)[1](grad, input_grad=False) is None
        for mine, theirs in zip(other.parameters(), net.parameters(), strict=True):
            assert mine.grad.tobytes() == theirs.grad.tobytes()


def test_residual_and_concat_by_hand():
    layer, other = conv(), conv(seed=5)
    g = np.random.default_rng(3).standard_normal(X.shape).astype(np.float32)
    net = pyconv.Residual(layer, other)
    np.testing.assert_array_equal(net(X), layer(X) + other(X))
    expected = layer.vjp(X)[1](g) + other.vjp(X)[1](g)
    np.testing.assert_array_equal(net.backward(g), expected)
    x = X.astype(np.float32)
    plain = pyconv.Residual(layer)
    np.testing.assert_array_equal(plain(x), layer(x) + x)
    np.testing.assert_array_equal(plain.backward(g), layer.vjp(x)[1](g) + g)
    two = pyconv.Concat(layer, other, dim=2)
    np.testing.assert_array_equal(two(X), np.concatenate([layer(X), other(X)], 2))
    g = np.concatenate([g, g + 1], 2)
    expected = layer.vjp(X)[1](g[:, :, :5]) + other.vjp(X)[1](g[:, :, 5:])
    np.testing.assert_array_equal(two.backward(g), expected)


def test_a_float64_image_leaves_a_float32_network_in_float32():
    assert pyconv.Residual(conv())(X).dtype == np.float32
    assert pyconv.Residual(conv().double())(X).dtype == np.float64
    assert pyconv.Residual(pyconv.Sequential())(np.ones((2, 2), np.uint8)).dtype == np.float32


def test_changing_inputs_and_outputs_of_a_join_is_harmless():
    for name in ("residual", "concat", "concat of one", "residual of nothing"):
        net, other = NETS[name](), NETS[name]()
        y = net(X)
        g = np.ones(y.shape)
        expected = (other(X), other.backward(g.copy()))[1]
        y += 100
        first = net.backward(g)
        first += 100
        assert (g == 1).all(), name
        np.testing.assert_array_equal(net.backward(g), expected)


def test_joins_print_as_trees():
    assert repr(pyconv.Residual(pyconv.ReLU())) == "Residual(\n  (body): ReLU()\n)"
    assert repr(pyconv.Residual(pyconv.ReLU(), pyconv.ReLU())) == (
        "Residual(\n  (body): ReLU()\n  (shortcut): ReLU()\n)"
    )
    assert repr(pyconv.Concat(pyconv.ReLU())) == "Concat(\n  (0): ReLU()\n)"
    assert repr(pyconv.Concat(pyconv.ReLU(), dim=0)) == "Concat(\n  dim=0\n  (0): ReLU()\n)"


def test_a_concat_is_a_line_of_branches():
    net = pyconv.Concat(OrderedDict(one=pyconv.ReLU(), two=pyconv.Flatten()), dim=0)
    assert list(dict(net.named_children())) == ["one", "two"]
    assert net[:1].dim == 0 and len(net[:1]) == 1 and net[-1] is net.two
    assert [type(m) for m in net] == [pyconv.ReLU, pyconv.Flatten]
    net.append(pyconv.ReLU())
    assert len(net) == 3


# ---- what is wrong ----


def test_shapes_that_do_not_meet():
    net = pyconv.Residual(pyconv.Conv2d(3, 3, 3))
    with pytest.raises(ValueError, match=r"size of tensor a \(3\) must match .* tensor b \(5\) at"):
        net(X)
    with pytest.raises(ValueError, match="same number of dimensions"):
        pyconv.Residual(pyconv.Flatten())(X)
    with pytest.raises(ValueError, match="must match"):  # no broadcasting
        pyconv.Residual(pyconv.Conv2d(3, 1, 1))(X)
    net = pyconv.Concat(conv(), pyconv.Conv2d(3, 3, 3))
    with pytest.raises(ValueError, match="Sizes of tensors must match except in dimension 1"):
        net(X)
    with pytest.raises(ValueError, match="must match except"):
        pyconv.Concat(conv(), pyconv.Flatten())(X)
    with pytest.raises(ValueError, match="Dimension out of range"):
        pyconv.Concat(conv(), dim=4)(X)
    with pytest.raises(ValueError, match="non-empty"):
        pyconv.Concat()(X)


def test_a_wrong_gradient_changes_nothing():
    for name in ("residual", "concat"):
        net = NETS[name]()
        y = net(X)
        for wrong in (np.ones((1, *y.shape)), np.ones(3)):
            with pytest.raises(ValueError, match="expected grad_output of shape"):
                net.backward(wrong)
        assert all(p.grad is None for p in net.parameters())
        assert net.backward(np.ones(y.shape)).shape == X.shape


@pytest.mark.parametrize("wrong", [None, 3, pyconv.ReLU, [pyconv.ReLU()]])
def test_only_modules(wrong):
    for make in (
        lambda: pyconv.Residual(wrong),
        lambda: pyconv.Residual(pyconv.ReLU(), wrong if wrong is not None else 1),
        lambda: pyconv.Concat(wrong),
        lambda: pyconv.ModuleList([wrong]),
        lambda: pyconv.ModuleList().append(wrong),
    ):
        with pytest.raises(TypeError, match="is not a Module subclass"):
            make()
    with pytest.raises(TypeError, match="dim must be an int"):
        pyconv.Concat(dim=1.0)


def test_a_pool_with_indices_is_no_path():
    for net in (pyconv.Residual, pyconv.Concat):
        with pytest.raises(TypeError, match="got a tuple"):
            net(pyconv.MaxPool2d(3, 1, 1, return_indices=True))(X)


# ---- ModuleList ----


def scenario(nn):
    """What a list of modules says after each of some changes."""
    layers = nn.ModuleList([nn.ReLU(), nn.ReLU(), nn.Flatten(), nn.ReLU()])
    yield repr(layers), len(layers)
    layers.append(nn.ReLU())
    layers += [nn.Flatten(0), nn.Flatten(0)]
    yield repr(layers), [name for name, _ in layers.named_children()]
    del layers[1]
    layers.insert(1, nn.Sequential(nn.ReLU(), nn.Linear(2, 2)))
    layers[2] = nn.Linear(1, 1)
    yield repr(layers), list(layers.state_dict())
    yield repr(layers.pop(-1)), repr(layers[1:3]), repr(layers[-2:] + layers[:1])
    del layers[1:4]
    yield repr(layers), repr(nn.ModuleList()), [type(m).__name__ for m in layers]
    for mistake in (
        lambda: layers[9],
        lambda: layers.extend(3),
        lambda: layers.append(3),
        lambda: layers(3),
    ):
        with pytest.raises((IndexError, TypeError, NotImplementedError)) as error:
            mistake()
        yield type(error.value), str(error.value)


def test_a_module_list_says_what_torchs_does():
    torch = pytest.importorskip("torch")
    for ours, theirs in zip(scenario(pyconv), scenario(torch.nn), strict=True):
        assert ours == theirs


def test_a_module_list_without_torch():
    assert len(list(scenario(pyconv))) == 9
    layers = pyconv.ModuleList(conv() for _ in range(3))
    assert len(list(layers.parameters())) == 6 and layers[1:][0] is layers[1]
    assert [m is n for m, n in zip(layers, list(layers), strict=True)] == [True] * 3


# ---- a forward of one's own ----


@pytest.mark.parametrize(
    "make",
    [
        lambda Own: Own(pyconv.Sequential)(conv()),
        lambda Own: Own(pyconv.Conv2d)(3, 3, 3, padding=1),
        lambda Own: Own(pyconv.ReLU)(),
        lambda Own: Own(pyconv.Residual)(conv()),
    ],
)
def test_an_inherited_backward_does_not_answer_for_a_forward_of_ones_own(make):
    def own(base):
        class Skip(base):
            def forward(self, x):
                return x + super().forward(x)

        return Skip

    net = make(own)
    x = X.astype(np.float32)
    y = net(x)
    for backward in (lambda: net.backward(y), lambda: net.vjp(x)[1](y)):
        with pytest.raises(NotImplementedError, match="Skip has no backward"):
            backward()


def test_a_container_drops_what_a_backward_has_answered_before_it_computes_again():
    class Spy(pyconv.Module):
        def forward(self, x):
            self.kept = net.__dict__.get("_kept")
            return x

        def backward(self, grad_output):
            return grad_output

    spy = Spy()
    net = pyconv.Sequential(spy)
    net(X)
    net(X)
    assert spy.kept is not None  # nobody has asked for that gradient yet
    net.backward(X)
    net(X)
    assert spy.kept is None
    net.backward(X)
