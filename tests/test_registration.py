"""Which attributes of a module are children, parameters and buffers, and what may become one."""

import copy
import pickle
import types

import numpy as np
import pytest

import pyconv


def pyconv_kit():
    """What the scenarios below need of a library; torch_kit is the same of torch."""
    return types.SimpleNamespace(
        Module=pyconv.Module,
        Parameter=lambda: pyconv.Parameter(np.ones(2, np.float32)),
        array=lambda *values: np.array(values, np.float32),
        layer=pyconv.ReLU,
    )


def torch_kit():
    torch = pytest.importorskip("torch")
    return types.SimpleNamespace(
        Module=torch.nn.Module,
        Parameter=lambda: torch.nn.Parameter(torch.ones(2)),
        array=lambda *values: torch.tensor(values),
        layer=torch.nn.ReLU,
    )


def module(kit):
    net = kit.Module()
    net.plain = 1
    net.weight = kit.Parameter()
    net.register_buffer("mean", kit.array(1, 2))
    net.act = kit.layer()
    return net


# ---- the same statements for pyconv and torch, which must fail with the same words ----

NAMES = ("", "a.b", 1, "plain", "forward", "act", "weight", "mean")
MISTAKES = {
    **{
        f"register_buffer {name!r}": lambda kit, net, name=name: net.register_buffer(
            name, kit.array(1)
        )
        for name in NAMES
        if name != "mean"
    },
    **{
        f"register_parameter {name!r}": lambda kit, net, name=name: net.register_parameter(
            name, kit.Parameter()
        )
        for name in NAMES
        if name != "weight"
    },
    **{
        f"add_module {name!r}": lambda kit, net, name=name: net.add_module(name, kit.layer())
        for name in NAMES
        if name != "act"
    },
    "a list as a buffer": lambda kit, net: net.register_buffer("x", [1]),
    "an array as a parameter": lambda kit, net: net.register_parameter("x", 1),
    "a list as a module": lambda kit, net: net.add_module("x", [kit.layer()]),
    "a number to a buffer": lambda kit, net: setattr(net, "mean", 3.0),
    "a number to a parameter": lambda kit, net: setattr(net, "weight", 3.0),
    "a number to a child": lambda kit, net: setattr(net, "act", 3.0),
    "a parameter in a method's name": lambda kit, net: setattr(net, "forward", kit.Parameter()),
    "deleting what is not there": lambda kit, net: delattr(net, "nothing"),
    "get_submodule": lambda kit, net: net.get_submodule("act.inner"),
    "get_submodule of an array": lambda kit, net: net.get_submodule("mean"),
    "get_parameter": lambda kit, net: net.get_parameter("act.weight"),
    "get_parameter of a buffer": lambda kit, net: net.get_parameter("mean"),
    "get_buffer": lambda kit, net: net.get_buffer("act.mean"),
    "get_buffer of an attribute": lambda kit, net: net.get_buffer("plain"),
}


def forgotten(kit, kind):
    class Forgetful(kit.Module):
        def __init__(self):
            if kind == "module":
                self.act = kit.layer()
            elif kind == "parameter":
                self.weight = kit.Parameter()
            elif kind == "register_parameter":
                self.register_parameter("weight", kit.Parameter())
            else:
                self.register_buffer("mean", kit.array(1))

    return Forgetful()


MISTAKES |= {
    f"no super().__init__(), {kind}": lambda kit, net, kind=kind: forgotten(kit, kind)
    for kind in ("module", "parameter", "register_parameter", "buffer")
}


def complaint(kit, name):
    """The error's class and text, without what the two libraries call their types."""
    net = module(kit)
    with pytest.raises((AttributeError, KeyError, TypeError)) as error:
        MISTAKES[name](kit, net)
    if kit.Module is pyconv.Module:  # nothing has changed
        assert [n for n, _ in net.named_children()] == ["act"]
        assert [n for n, _ in net.named_parameters()] == ["weight"]
        assert net.mean.tolist() == [1, 2]
    text = str(error.value)
    for here, there in (
        ("pyconv.Parameter", "torch.nn.Parameter"),
        ("(numpy.ndarray or None required)", "(torch Tensor or None required)"),
        ("numpy.ndarray", "torch.nn.Buffer, torch.Tensor"),
        ("pyconv.Module", "torch.nn.Module"),
        ("not a Module", "not an nn.Module"),
        ("not a Parameter", "not an nn.Parameter"),
    ):
        text = text.replace(here, there)
    return type(error.value), text


@pytest.mark.parametrize("name", MISTAKES)
def test_mistakes_are_told_in_torchs_words(name):
    ours, theirs = complaint(pyconv_kit(), name), complaint(torch_kit(), name)
    assert ours[0] is theirs[0] and ours[1].startswith(theirs[1].rstrip("'\""))


def test_a_forgotten_init_is_told_in_torchs_words_without_torch_too():
    kit = pyconv_kit()
    with pytest.raises(AttributeError, match=r"cannot assign module before Module.__init__\(\)"):
        forgotten(kit, "module")
    with pytest.raises(AttributeError, match=r"cannot assign parameters before Module.__init__"):
        forgotten(kit, "parameter")
    with pytest.raises(AttributeError, match=r"cannot assign buffer before Module.__init__\(\)"):
        forgotten(kit, "buffer")


# ---- the same statements, which must end in the same names ----


def reassigned(kit, net):
    net.act = kit.layer()
    net.weight = kit.Parameter()


def none_first(kit, net):
    net.down = None
    net.last = kit.layer()
    net.down = kit.layer()


def none_later(kit, net):
    net.act = net.weight = net.mean = None
    net.more = net.act_too = kit.layer()
    net.act_too = None
    net.mean = kit.array(3)


def change_of_kind(kit, net):
    net.act = kit.Parameter()
    net.mean = kit.layer()
    net.plain = kit.layer()


def deleted(kit, net):
    del net.act, net.weight, net.mean, net.plain
    net.weight = 1
    net.act = 2


def registered(kit, net):
    net.register_module("m", None)
    net.register_parameter("p", None)
    net.register_buffer("b", None)
    net.register_buffer("hidden", kit.array(5), persistent=False)
    net.register_buffer("mean", kit.array(7), persistent=False)
    net.register_buffer("again", kit.array(7), persistent=False)
    net.register_buffer("again", kit.array(7))


def shared(kit, net):
    net.other = net.act
    net.tied = net.weight
    net.register_buffer("view", net.mean)
    net.inner = kit.Module()
    net.inner.act = net.act
    net.inner.inner = module(kit)


STATEMENTS = (reassigned, none_first, none_later, change_of_kind, deleted, registered, shared)


def names(kit, statement):
    net = module(kit)
    statement(kit, net)
    return {
        "children": [name for name, _ in net.named_children()],
        "modules": [name for name, _ in net.named_modules()],
        "modules, all": [name for name, _ in net.named_modules(remove_duplicate=False)],
        "parameters": [name for name, _ in net.named_parameters()],
        "parameters, all": [name for name, _ in net.named_parameters(remove_duplicate=False)],
        "parameters, own": [name for name, _ in net.named_parameters("net", recurse=False)],
        "buffers": [name for name, _ in net.named_buffers()],
        "buffers, all": [name for name, _ in net.named_buffers(remove_duplicate=False)],
        "state": list(net.state_dict()),
        "repr": repr(net),
    }


@pytest.mark.parametrize("statement", STATEMENTS)
def test_names_and_repr_are_torchs(statement):
    assert names(pyconv_kit(), statement) == names(torch_kit(), statement)


def test_names_without_torch():
    found = names(pyconv_kit(), none_first)
    assert found["children"] == ["act", "last", "down"]
    assert "(act): None" in names(pyconv_kit(), none_later)["repr"]
    assert names(pyconv_kit(), registered)["state"] == ["weight", "again"]


# ---- buffers ----


class Counter(pyconv.Module):
    def __init__(self):
        super().__init__()
        self.register_buffer("count", np.zeros((), np.int64))
        self.register_buffer("mean", np.zeros(2, np.float32))
        self.register_buffer("scratch", np.ones(3, np.float32), persistent=False)
        self.register_buffer("nothing", None)


def test_a_buffer_is_the_array_itself_and_may_be_replaced():
    array = np.zeros(2)
    net = Counter()
    net.register_buffer("mine", array)
    assert net.mine is array and net.get_buffer("mine") is array
    net.mean = other = np.ones(5)
    assert net.state_dict()["mean"] is other
    net.nothing = np.float32(3)  # a scalar becomes an array
    assert isinstance(net.nothing, np.ndarray) and net.nothing.shape == ()
    net.count += 1
    net.count = net.count + 1
    assert isinstance(net.count, np.ndarray) and net.count == 2 and net.count.dtype == np.int64
    for wrong in (np.array(["a"]), np.array([object()]), "a", [1.0], 1.0):
        with pytest.raises(TypeError, match="cannot assign"):
            net.mean = wrong
        with pytest.raises(TypeError, match="cannot assign"):
            net.register_buffer("more", wrong)
    assert net.mean is other and not hasattr(net, "more")


def test_double_and_float_convert_floating_buffers_alone():
    net = pyconv.Sequential(Counter())
    net.double()
    counter = net[0]
    assert counter.mean.dtype == counter.scratch.dtype == np.float64
    assert counter.count.dtype == np.int64 and counter.nothing is None
    assert net.float()[0].mean.dtype == np.float32
    assert list(net.state_dict()) == ["0.count", "0.mean"]


@pytest.mark.parametrize("make", [copy.deepcopy, lambda net: pickle.loads(pickle.dumps(net))])
def test_copies_hold_all_buffers_and_know_which_are_saved(make):
    net = Counter()
    net.mean += 3
    new = make(net)
    assert [name for name, _ in new.named_buffers()] == ["count", "mean", "scratch"]
    assert list(new.state_dict()) == ["count", "mean"]
    assert new.mean.tolist() == [3, 3] and not np.shares_memory(new.mean, net.mean)
    new.nothing = np.ones(1)
    assert list(new.state_dict()) == ["count", "mean", "nothing"] and net.nothing is None


def test_a_shallow_copy_has_names_of_its_own():
    net = Counter()
    new = copy.copy(net)
    new.extra = pyconv.ReLU()
    del new.count
    assert list(net.children()) == [] and list(net.state_dict()) == ["count", "mean"]


def test_a_layer_of_the_extension_may_have_buffers_and_children():
    conv = pyconv.Conv2d(1, 1, 1)
    conv.register_buffer("mask", np.ones((1, 1, 1, 1), np.float32))
    conv.after = pyconv.Linear(2, 2)
    assert list(conv.state_dict()) == ["weight", "bias", "mask", "after.weight", "after.bias"]
    for new in (copy.deepcopy(conv), pickle.loads(pickle.dumps(conv)), copy.copy(conv)):
        assert list(new.state_dict()) == list(conv.state_dict())
    assert conv.double().mask.dtype == np.float64
    with pytest.raises(KeyError, match="already exists"):
        conv.register_buffer("weight", np.ones(1))


def test_a_parameter_assigned_to_a_layers_weight_is_copied_in():
    for layer in (pyconv.Conv2d(1, 1, 2, rng=0), pyconv.Linear(2, 1, rng=0)):
        array, values = layer.weight, np.ones(layer.weight.shape)
        layer.weight = pyconv.Parameter(values)
        assert layer.weight is array and (array == 1).all()
        assert [name for name, _ in layer.named_parameters()] == ["weight", "bias"]
