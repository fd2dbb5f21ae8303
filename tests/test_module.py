"""What all modules share: parameters, state, copies, modes, printing; and a user's own modules."""

import copy
import gc
import pickle
import weakref

import numpy as np
import pytest

import pyconv


class Scale(pyconv.Module):
    """A user's layer with a parameter, a forward and a backward."""

    def __init__(self, channels):
        super().__init__()
        self.factor = pyconv.Parameter(np.full((channels, 1, 1), 2.0, np.float32))

    def forward(self, x):
        self.x = x
        return x * self.factor.data

    def backward(self, grad_output):
        self.factor.accumulate_grad(
            (grad_output * self.x).sum((0, 2, 3)).reshape(self.factor.shape)
        )
        return grad_output * self.factor.data


class Net(pyconv.Module):
    """A user's composition, forward alone."""

    def __init__(self):
        super().__init__()
        self.body = pyconv.Sequential(pyconv.Conv2d(1, 2, 3, rng=0), pyconv.ReLU())
        self.head = pyconv.Linear(2, 3, rng=1)
        self.register_buffer("count", np.zeros((), np.int64))
        self.register_buffer("scratch", np.ones(2, np.float32), persistent=False)

    def forward(self, x):
        return self.head(self.body(x)[:, :, 0, 0])


class Doubling(pyconv.Conv2d):
    """A subclass of a C layer that changes what it computes."""

    def forward(self, x):
        return 2 * super().forward(x)

    def backward(self, grad_output, input_grad=True):
        return super().backward(2 * grad_output, input_grad)


def conv(**options):
    return pyconv.Conv2d(2, 3, 3, **{"rng": 0, **options})


def images(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


# ---- parameters ----


def test_a_parameter_has_one_handle_for_life():
    layer = conv()
    weight, bias = layer.parameters()
    assert [p is q for p, q in zip(layer.parameters(), (weight, bias), strict=True)] == [True, True]
    assert dict(layer.named_parameters())["bias"] is bias
    assert weight.data is layer.weight
    layer(images(1, 2, 4, 4))
    layer.backward(images(1, 3, 2, 2))
    assert weight.grad is layer.weight_grad
    assert next(layer.parameters()) is weight


def test_a_handle_tells_shape_dtype_and_size():
    weight, bias = conv(dtype=np.float64).parameters()
    assert (weight.shape, weight.ndim, weight.numel()) == ((3, 2, 3, 3), 4, 54)
    assert weight.dtype == np.float64 and bias.shape == (3,)
    assert np.asarray(bias) is bias.data
    assert "(3, 2, 3, 3)" in repr(weight) and "float64" in repr(weight)


def test_a_handle_keeps_its_layer_but_makes_no_cycle():
    gc.disable()
    try:
        layer = conv()
        handle = next(layer.parameters())
        gone = weakref.ref(layer)
        del layer
        assert handle.data.shape == (3, 2, 3, 3)
        del handle
        assert gone() is None
    finally:
        gc.enable()


@pytest.mark.parametrize("make", [conv, lambda: pyconv.Linear(4, 3)])
def test_data_and_grad_can_be_assigned_with_a_check_of_the_shape(make):
    layer = make()
    weight = next(layer.parameters())
    array = layer.weight
    weight.data = np.ones(weight.shape)
    assert layer.weight is array and (array == 1).all()
    weight.grad = np.full(weight.shape, 2)
    assert layer.weight_grad.dtype == np.float32 and (layer.weight_grad == 2).all()
    for wrong in (np.ones(2), 1.0):
        with pytest.raises(ValueError, match="shape"):
            weight.data = wrong
        with pytest.raises(ValueError, match="shape"):
            weight.grad = wrong
    assert (weight.data == 1).all() and (weight.grad == 2).all()
    weight.grad = None
    assert layer.weight_grad is None


@pytest.mark.parametrize("make", [conv, lambda: pyconv.Linear(2, 3, rng=0)])
def test_gradients_are_computed_only_where_required(make):
    layer = make()
    weight, bias = layer.parameters()
    weight.requires_grad = False
    y = layer(images(1, 2, 4, 4) if isinstance(layer, pyconv.Conv2d) else images(1, 2))
    layer.backward(np.ones_like(y))
    assert weight.grad is None and bias.grad is not None
    layer.requires_grad_(False)
    assert not any(p.requires_grad for p in layer.parameters())


def test_an_own_parameter_copies_and_converts():
    values = np.arange(3)
    parameter = pyconv.Parameter(values)
    assert parameter.dtype == np.float64 and not np.shares_memory(parameter.data, values)
    parameter.accumulate_grad([1, 1, 1])
    held = parameter.grad
    parameter.accumulate_grad([1, 2, 3])
    assert parameter.grad is held and held.tolist() == [2, 3, 4]
    parameter.requires_grad = False
    parameter.accumulate_grad([9, 9, 9])
    assert held.tolist() == [2, 3, 4]
    with pytest.raises(TypeError, match="complex"):
        pyconv.Parameter(np.zeros(2, complex))
    with pytest.raises(ValueError, match="shape"):
        parameter.grad = [1, 2]


# ---- what a module consists of ----


def test_no_parameter_is_missed_while_nobody_holds_the_handles():
    net = pyconv.Sequential(*(conv() for _ in range(5)))
    assert sum(1 for _ in net.parameters()) == 10
    assert sum(1 for _ in net.named_parameters(recurse=True)) == 10


def test_names_run_over_attributes_in_their_order():
    net = Net()
    assert [name for name, _ in net.named_parameters()] == [
        "body.0.weight",
        "body.0.bias",
        "head.weight",
        "head.bias",
    ]
    assert [name for name, _ in net.named_modules()] == ["", "body", "body.0", "body.1", "head"]
    assert [name for name, _ in net.named_children()] == ["body", "head"]
    assert [name for name, _ in net.named_buffers()] == ["count", "scratch"]
    assert list(net.parameters(recurse=False)) == []
    assert net.get_submodule("body.0") is net.body[0]
    assert net.get_submodule("") is net


def test_a_module_used_twice_is_counted_once_but_saved_under_both_names():
    layer = conv()
    both = pyconv.Sequential(layer, layer)
    assert len(list(both.parameters())) == 2
    assert len(list(both.modules())) == 2
    assert list(both.state_dict()) == ["0.weight", "0.bias", "1.weight", "1.bias"]


def test_get_submodule_says_what_is_missing():
    with pytest.raises(AttributeError, match="Net has no attribute `tail`"):
        Net().get_submodule("tail")
    with pytest.raises(AttributeError, match="`count` is not a Module"):
        Net().get_submodule("count")


def test_add_module_and_register_buffer_check_the_name():
    net = pyconv.Module()
    net.add_module("odd name", pyconv.ReLU())
    assert [name for name, _ in net.named_children()] == ["odd name"]
    with pytest.raises(TypeError, match="list is not a Module subclass"):
        net.add_module("x", [])
    for name in ("", "a.b", "forward"):
        with pytest.raises(KeyError):
            net.add_module(name, pyconv.ReLU())
        with pytest.raises(KeyError):
            net.register_buffer(name, np.zeros(1))
    with pytest.raises(TypeError, match="name should be a string"):
        net.add_module(1, pyconv.ReLU())


def test_an_assigned_attribute_replaces_or_removes_a_child():
    net = Net()
    net.head = pyconv.ReLU()
    assert [type(c).__name__ for c in net.children()] == ["Sequential", "ReLU"]
    del net.head
    assert [name for name, _ in net.named_children()] == ["body"]


# ---- state_dict ----


def test_state_dict_holds_the_live_arrays():
    net = Net()
    state = net.state_dict()
    assert list(state) == [
        "count",
        "body.0.weight",
        "body.0.bias",
        "head.weight",
        "head.bias",
    ]
    assert state["body.0.weight"] is net.body[0].weight
    net.body[0].weight += 1
    assert (state["body.0.weight"] == net.body[0].weight).all()
    assert next(iter(net.state_dict(prefix="net."))) == "net.count"


def test_load_state_dict_copies_and_casts():
    source, target = conv(dtype=np.float64, rng=5), conv()
    array = target.weight
    result = target.load_state_dict(source.state_dict())
    assert repr(result) == str(result) == "<All keys matched successfully>"
    assert result == ([], [])
    assert target.weight is array and array.dtype == np.float32
    np.testing.assert_array_equal(array, source.weight.astype(np.float32))


def test_load_state_dict_reads_an_npz(tmp_path):
    net, other = Net(), Net()
    net.count += 3
    net.head.weight += 1
    np.savez(tmp_path / "net.npz", **net.state_dict())
    with np.load(tmp_path / "net.npz", allow_pickle=False) as file:
        other.load_state_dict(file)
    assert other.count == 3
    np.testing.assert_array_equal(other.head.weight, net.head.weight)


def test_load_state_dict_lists_everything_and_changes_nothing():
    net = Net()
    before = {key: value.copy() for key, value in net.state_dict().items()}
    state = {key: value + 1 for key, value in before.items()}
    del state["head.bias"]
    state["extra"] = np.zeros(1)
    state["body.0.weight"] = np.zeros((2, 1, 3, 4))
    with pytest.raises(RuntimeError) as error:
        net.load_state_dict(state)
    text = str(error.value)
    assert text.startswith("Error(s) in loading state_dict for Net:\n\t")
    assert 'Missing key(s) in state_dict: "head.bias". ' in text
    assert 'Unexpected key(s) in state_dict: "extra". ' in text
    assert "size mismatch for body.0.weight: copying a param with shape (2, 1, 3, 4)" in text
    assert text.index("Missing") < text.index("Unexpected") < text.index("size mismatch")
    for key, value in net.state_dict().items():
        np.testing.assert_array_equal(value, before[key])


@pytest.mark.parametrize("value", [np.zeros(3, complex), np.array(["a", "b", "c"]), [object()] * 3])
def test_load_state_dict_refuses_what_is_not_real(value):
    layer = conv()
    before = layer.weight.copy()
    with pytest.raises(RuntimeError, match='parameter named "bias"'):
        layer.load_state_dict({"weight": np.zeros((3, 2, 3, 3)), "bias": value})
    np.testing.assert_array_equal(layer.weight, before)


def test_load_state_dict_not_strict_still_minds_sizes():
    layer = conv()
    result = layer.load_state_dict({"bias": [1, 2, 3], "other": 0}, strict=False)
    assert result.missing_keys == ["weight"] and result.unexpected_keys == ["other"]
    assert "missing_keys=['weight']" in repr(result)
    assert layer.bias.tolist() == [1, 2, 3]
    with pytest.raises(RuntimeError, match="size mismatch for bias"):
        layer.load_state_dict({"bias": [1, 2]}, strict=False)
    with pytest.raises(TypeError, match="dict-like"):
        layer.load_state_dict([("bias", [1, 2, 3])])


def test_load_state_dict_from_its_own_arrays_exchanged():
    net = pyconv.Sequential(pyconv.Linear(2, 2, rng=0), pyconv.Linear(2, 2, rng=1))
    state = net.state_dict()
    first, second = net[0].weight.copy(), net[1].weight.copy()
    state["0.weight"], state["1.weight"] = state["1.weight"], state["0.weight"]
    net.load_state_dict(state)
    np.testing.assert_array_equal(net[0].weight, second)
    np.testing.assert_array_equal(net[1].weight, first)


def test_a_buffer_that_became_a_scalar_can_still_be_loaded():
    net = Net()
    net.count = net.count + 1  # NumPy makes a scalar of it
    net.load_state_dict({**net.state_dict(), "count": 7})
    assert net.count == 7


# ---- copies ----


ALL_LAYERS = {
    "Conv2d": lambda: conv(padding="same", groups=1, padding_mode="reflect"),
    "Conv2d without bias": lambda: conv(bias=False, dtype=np.float64, padding=((1, 0), (2, 1))),
    "ConvTranspose2d": lambda: pyconv.ConvTranspose2d(
        2, 3, 3, 2, output_padding=1, dilation=2, rng=0
    ),
    "MaxPool2d": lambda: pyconv.MaxPool2d((2, 3), 2, 1, 1, False, True),
    "AvgPool2d": lambda: pyconv.AvgPool2d(2, 1, 1, True, False, 3),
    "ReLU": lambda: pyconv.ReLU(True),
    "BatchNorm2d": lambda: pyconv.BatchNorm2d(2, 1e-3, None, bias=False, dtype=np.float64),
    "BatchNorm2d without": lambda: pyconv.BatchNorm2d(2, 0.5, 0.3, False, False),
    "AdaptiveAvgPool2d": lambda: pyconv.AdaptiveAvgPool2d([3, None]),
    "Flatten": lambda: pyconv.Flatten(2, 3),
    "Linear": lambda: pyconv.Linear(9, 2, rng=0),
    "Sequential": lambda: pyconv.Sequential(conv(), pyconv.Sequential(pyconv.ReLU())),
    "Scale": lambda: Scale(2),
    "Doubling": lambda: Doubling(2, 3, 3, rng=0),
}


@pytest.mark.parametrize("name", ALL_LAYERS)
def test_a_pickle_has_weights_and_settings_but_no_gradients_or_activations(name):
    layer = ALL_LAYERS[name]()
    layer.note = {"a": [1]}
    x = images(1, 2, 9, 9)
    y = layer(x)
    layer.backward(np.ones_like(y))
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        data = pickle.dumps(layer, protocol)
        new = pickle.loads(data)
        assert type(new) is type(layer) and repr(new) == repr(layer) and new.note == {"a": [1]}
        assert new.training
        for (key, mine), (other, theirs) in zip(
            new.state_dict().items(), layer.state_dict().items(), strict=True
        ):
            assert key == other and mine.dtype == theirs.dtype
            np.testing.assert_array_equal(mine, theirs)
            assert not np.shares_memory(mine, theirs)
        assert all(p.grad is None for p in new.parameters())
        np.testing.assert_array_equal(new(x), y)
    if name != "Scale":  # what a user's layer keeps is the user's affair
        with pytest.raises(RuntimeError, match="forward in training mode"):
            pickle.loads(pickle.dumps(layer)).backward(np.ones_like(y))


def test_a_pickle_does_not_grow_with_the_input():
    layer = pyconv.Sequential(conv(), pyconv.ReLU(), pyconv.Flatten())
    layer(images(1, 2, 9, 9))
    small = len(pickle.dumps(layer))
    layer(images(4, 2, 99, 99))
    assert len(pickle.dumps(layer)) == small


def test_a_pickle_keeps_mode_and_requires_grad():
    layer = pyconv.Sequential(conv(), pyconv.MaxPool2d(2), pyconv.Linear(2, 2)).eval()
    layer[0].requires_grad_(False)
    new = pickle.loads(pickle.dumps(layer))
    assert [m.training for m in new.modules()] == [False] * 4
    assert [p.requires_grad for p in new.parameters()] == [False, False, True, True]


@pytest.mark.parametrize("name", ALL_LAYERS)
def test_a_deepcopy_has_gradients_too_and_shares_nothing(name):
    layer = ALL_LAYERS[name]()
    layer.note = [1]
    layer.myself = layer if name in ("Conv2d", "MaxPool2d") else None
    x = images(1, 2, 9, 9)
    layer.backward(np.ones_like(layer(x)))
    new = copy.deepcopy(layer)
    assert repr(new.note) == "[1]" and new.note is not layer.note
    assert new.__dict__["myself"] is (new if layer.__dict__["myself"] is layer else None)
    assert len(list(new.parameters())) == len(list(layer.parameters()))
    for mine, theirs in zip(new.parameters(), layer.parameters(), strict=True):
        assert mine is not theirs and not np.shares_memory(mine.data, theirs.data)
        np.testing.assert_array_equal(mine.data, theirs.data)
        np.testing.assert_array_equal(mine.grad, theirs.grad)
        assert not np.shares_memory(mine.grad, theirs.grad)
    mine = new(x)
    np.testing.assert_array_equal(mine, layer(x))


def test_a_shared_child_stays_shared_in_copies():
    layer = conv()
    both = pyconv.Sequential(layer, layer)
    for new in (copy.deepcopy(both), pickle.loads(pickle.dumps(both))):
        assert new[0] is new[1] and new[0] is not layer


def test_model_and_handles_copied_together_stay_together():
    layer = conv()
    pair = {"model": layer, "weights": list(layer.parameters())}
    for new in (copy.deepcopy(pair), pickle.loads(pickle.dumps(pair))):
        assert new["weights"][0] is next(new["model"].parameters())
        assert new["weights"][0].data is new["model"].weight


def test_a_shallow_copy_of_a_layer_has_arrays_of_its_own():
    layer = conv()
    new = copy.copy(layer)
    new.weight += 1
    assert not (new.weight == layer.weight).any()


# ---- modes and conversions ----


def test_train_and_eval_reach_all_children():
    net = Net()
    assert all(module.training for module in net.modules())
    assert net.eval() is net
    assert not any(module.training for module in net.modules())
    net.train()
    assert net.body[0].training is True
    with pytest.raises(ValueError, match="boolean"):
        net.train("yes")


def test_a_child_may_override_train():
    class Frozen(pyconv.Sequential):
        def train(self, mode=True):
            return super().train(False)

    net = pyconv.Sequential(Frozen(pyconv.ReLU()), pyconv.ReLU()).train()
    assert [m.training for m in net.modules()] == [True, False, False, True]


def test_zero_grad():
    layer = pyconv.Sequential(conv(), pyconv.Flatten(), pyconv.Linear(12, 2, rng=0))
    layer.backward(np.ones_like(layer(images(1, 2, 4, 4))))
    held = [p.grad for p in layer.parameters()]
    layer.zero_grad(set_to_none=False)
    assert all(p.grad is g and not g.any() for p, g in zip(layer.parameters(), held, strict=True))
    layer.zero_grad()
    assert all(p.grad is None for p in layer.parameters())


def test_double_and_float_convert_everything_in_place():
    net = Net()
    net.body[0].weight_grad = np.ones((2, 1, 3, 3))
    handle = next(net.parameters())
    assert net.double() is net
    assert {p.dtype for p in net.parameters()} == {np.dtype(np.float64)}
    assert net.count.dtype == np.int64 and net.scratch.dtype == np.float64
    assert next(net.parameters()) is handle and handle.grad.dtype == np.float64
    assert net(np.ones((1, 1, 3, 3), np.float32)).dtype == np.float64
    net.float()
    assert net(np.ones((1, 1, 3, 3))).dtype == np.float32
    assert copy.deepcopy(net.double()).body[0].weight.dtype == np.float64


def test_apply_visits_children_first():
    seen = []
    pyconv.Sequential(pyconv.Sequential(pyconv.ReLU()), pyconv.Flatten()).apply(
        lambda module: seen.append(type(module).__name__)
    )
    assert seen == ["ReLU", "Sequential", "Flatten", "Sequential"]


# ---- printing ----


def test_a_nested_module_prints_as_a_tree():
    assert repr(Net()) == (
        "Net(\n"
        "  (body): Sequential(\n"
        "    (0): Conv2d(1, 2, kernel_size=(3, 3), stride=(1, 1))\n"
        "    (1): ReLU()\n"
        "  )\n"
        "  (head): Linear(in_features=2, out_features=3, bias=True)\n"
        ")"
    )
    assert repr(pyconv.Module()) == "Module()"


def test_extra_repr_stands_before_the_children():
    class Described(pyconv.Module):
        def __init__(self):
            super().__init__()
            self.inner = pyconv.ReLU()

        def extra_repr(self):
            return "a=1\nb=2"

    assert repr(Described()) == "Described(\n  a=1\n  b=2\n  (inner): ReLU()\n)"


# ---- modules of a user's own ----


def test_a_users_layer_is_trained_inside_a_sequential():
    net = pyconv.Sequential(conv(), Scale(3)).double()
    assert pyconv.testing.gradcheck(net, images(2, 2, 4, 4))
    assert [name for name, _ in net.named_parameters()] == ["0.weight", "0.bias", "1.factor"]


def test_forward_and_backward_missing():
    module = pyconv.Module()
    with pytest.raises(
        NotImplementedError, match=r"Module \[Module\] is missing the required \"forward\" function"
    ):
        module(1)
    net = Net()
    y, pullback = net.vjp(images(1, 1, 3, 3))
    assert y.shape == (1, 3)
    with pytest.raises(NotImplementedError, match=r"Net has no backward, .* pyconv.interop"):
        pullback(y)


def test_a_users_layer_used_twice_is_an_error_not_a_wrong_gradient():
    scale = Scale(2)
    net = pyconv.Sequential(scale, scale)
    y = net(images(1, 2, 3, 3))
    with pytest.raises(RuntimeError, match="called again"):
        net.backward(y)


def test_vjp_may_skip_the_input_gradient_of_a_users_layer():
    _, pullback = Scale(2).vjp(images(1, 2, 3, 3))
    assert pullback(np.ones((1, 2, 3, 3)), input_grad=False) is None
    assert pullback(np.ones((1, 2, 3, 3))).shape == (1, 2, 3, 3)


def test_a_subclass_with_its_own_forward_is_honoured_everywhere():
    layer, plain = Doubling(2, 3, 3, rng=0), conv()
    x = images(1, 2, 4, 4)
    expected = 2 * plain(x)
    np.testing.assert_array_equal(layer(x), expected)
    np.testing.assert_array_equal(layer.vjp(x)[0], expected)
    net = pyconv.Sequential(layer)
    np.testing.assert_array_equal(net(x), expected)
    np.testing.assert_array_equal(net.eval()(x), expected)
    assert pyconv.testing.gradcheck(net.train(), x)


@pytest.mark.parametrize("base", [pyconv.ReLU, pyconv.Flatten, pyconv.Sequential])
def test_a_subclass_of_a_python_layer_is_honoured_too(base):
    class Changed(base):
        def forward(self, x):
            return 3 * super().forward(x)

        def backward(self, grad_output, input_grad=True):
            return super().backward(3 * grad_output, input_grad)

    x = np.array([[1.0, -2.0, 0.5]])
    for module in (Changed(), pyconv.Sequential(Changed())):
        assert pyconv.testing.gradcheck(module, x)
        np.testing.assert_array_equal(module(x), 3 * base()(x))


def test_a_forward_put_on_the_object_is_honoured():
    layer = conv()
    layer.forward = lambda x: x + 1
    assert layer(1) == 2
    assert pyconv.Sequential(layer)(1) == 2


def test_a_subclass_with_its_own_vjp_is_honoured():
    class Shift(pyconv.Flatten):
        def vjp(self, input):
            y, pullback = super().vjp(input)
            return y + 1, pullback

    layer = Shift()
    assert layer(np.array([[1.0]])).tolist() == [[2.0]]
    assert layer.backward([[5.0]]).tolist() == [[5.0]]


def test_modules_compare_by_identity():
    a, b = conv(), conv()
    assert a == a and a != b and len({a, b}) == 2
