"""Shapes, costs and receptive fields without data: against real calls, formulas, and probing."""

import itertools
import math
import threading
import tracemalloc

import numpy as np
import pytest
from parity.networks import NETWORKS

import pyconv
from pyconv import functional as F
from pyconv._fields import SAME, after, beside, transposed, window


class SimpleCNN(pyconv.Module):
    """A lecture's network, forward alone, with a skip written by hand."""

    def __init__(self):
        super().__init__()
        self.conv1 = pyconv.Conv2d(1, 4, 3, padding=1)
        self.conv2 = pyconv.Conv2d(4, 4, 3, padding=1, dtype=np.float32)
        self.act = pyconv.ReLU()
        self.pool = pyconv.MaxPool2d(2)
        self.up = pyconv.ConvTranspose2d(8, 2, 2, 2)
        self.fc = pyconv.Linear(4 * 14 * 14, 10)

    def trunk(self, x):
        h = self.act(self.conv1(x))
        h += self.conv2(h)
        return np.concatenate([h, self.act(h) * 2], axis=1)

    def forward(self, x):
        h = self.pool(self.trunk(x))[:, :4]
        return self.fc(h.reshape(len(h), -1))


# ---- shapes ----


@pytest.mark.parametrize("name", NETWORKS)
def test_shapes_are_those_of_a_real_call(name):
    model = NETWORKS[name](pyconv)
    seen = []
    for module in model.modules():
        module.register_forward_hook(
            lambda module, args, output: seen.append((module, args[0].shape, output.shape))
        )
    modes = [module.training for module in model.modules()]
    table = pyconv.summary(model, (3, 1, 8, 8))
    assert not seen  # nothing was computed, and no hook was told that it was
    assert [module.training for module in model.modules()] == modes
    model.eval()(np.zeros((3, 1, 8, 8)))
    found = {(type(m).__name__, i, o) for m, i, o in seen}
    assert {(row.kind, row.input_shape, row.output_shape) for row in table.rows} == found
    assert len(table.rows) == len(seen)
    assert model.output_shape((3, 1, 8, 8)) == table.rows[0].output_shape
    assert table.parameters == sum(p.numel() for p in model.parameters())
    assert table.parameters == sum(row.parameters for row in table.rows)
    assert sum(row.repeated for row in table.rows) == (6 if name == "shared" else 0)


def test_a_forward_of_ones_own_is_followed():
    net = SimpleCNN()
    table = pyconv.summary(net, (2, 1, 28, 28))
    assert [(row.name, row.output_shape) for row in table.rows] == [
        ("", (2, 10)),
        ("conv1", (2, 4, 28, 28)),
        ("act", (2, 4, 28, 28)),
        ("conv2", (2, 4, 28, 28)),
        ("act", (2, 4, 28, 28)),
        ("pool", (2, 8, 14, 14)),
        ("fc", (2, 10)),
    ]
    assert net.output_shape((2, 1, 28, 28)) == net(np.zeros((2, 1, 28, 28))).shape
    fields = [row.receptive_field.size for row in table.rows]
    assert fields == [(28, 28), (3, 3), (3, 3), (5, 5), (5, 5), (6, 6), (28, 28)]


class Lecture(pyconv.Module):
    """A network as tutorials write it: what has no weights is a function."""

    def __init__(self):
        super().__init__()
        self.conv1 = pyconv.Conv2d(1, 4, 3, padding=1)
        self.conv2 = pyconv.Conv2d(4, 6, 3)
        self.fc = pyconv.Linear(6 * 12 * 12, 10)

    def trunk(self, x):
        return F.relu(self.conv2(F.max_pool2d(F.relu(self.conv1(x)), 2)))

    def forward(self, x):
        x = F.dropout(self.trunk(x).reshape(len(x), -1), training=self.training)
        return F.log_softmax(self.fc(x), dim=1)


def test_functions_are_followed_as_layers_are():
    net = Lecture()
    table = pyconv.summary(net, (2, 1, 28, 28))
    assert [(row.name, row.kind, row.depth, row.output_shape) for row in table.rows] == [
        ("", "Lecture", 0, (2, 10)),
        ("conv1", "Conv2d", 1, (2, 4, 28, 28)),
        ("relu()", "relu()", 1, (2, 4, 28, 28)),
        ("max_pool2d()", "max_pool2d()", 1, (2, 4, 14, 14)),
        ("conv2", "Conv2d", 1, (2, 6, 12, 12)),
        ("relu()", "relu()", 1, (2, 6, 12, 12)),
        ("dropout()", "dropout()", 1, (2, 864)),
        ("fc", "Linear", 1, (2, 10)),
        ("log_softmax()", "log_softmax()", 1, (2, 10)),
    ]
    fields = [row.receptive_field.size for row in table.rows]
    assert fields == [(28, 28), (3, 3), (3, 3), (4, 4), (8, 8), (8, 8)] + 3 * [(28, 28)]
    same = pyconv.Sequential(
        net.conv1,
        pyconv.ReLU(),
        pyconv.MaxPool2d(2),
        net.conv2,
        pyconv.ReLU(),
        pyconv.Flatten(),
        pyconv.Dropout(),
        net.fc,
        pyconv.Softmax(1),
    )
    assert table.macs == same.macs((2, 1, 28, 28)) and not table.not_counted
    assert table.activation_bytes == (
        pyconv.summary(same, (2, 1, 28, 28)).activation_bytes - 2 * 864 * 4  # a reshape has no row
    )
    assert net.output_shape((2, 1, 28, 28)) == net(np.zeros((2, 1, 28, 28))).shape


class Calls(pyconv.Module):
    def __init__(self, call, **values):
        super().__init__()
        self.call = call

    def forward(self, x):
        return self.call(x)


def _numbers(*shape):
    return np.arange(math.prod(shape), dtype=np.float32).reshape(shape)


FUNCTIONS = {
    "conv2d": (
        lambda x: F.conv2d(x, _numbers(9, 2, 3, 2), None, (2, 1), ((1, 0), (2, 1)), 2, 3),
        lambda: pyconv.Conv2d(6, 9, (3, 2), (2, 1), ((1, 0), (2, 1)), 2, 3),
    ),
    "conv2d, same": (
        lambda x: F.conv2d(x, _numbers(8, 6, 4, 3), padding="same", dilation=[2]),
        lambda: pyconv.Conv2d(6, 8, (4, 3), padding="same", dilation=2),
    ),
    "conv1d": (
        lambda x: F.conv1d(x, _numbers(4, 9, 3), stride=2, padding=[1]),
        lambda: pyconv.Conv1d(9, 4, 3, 2, 1),
    ),
    "conv_transpose2d": (
        lambda x: F.conv_transpose2d(x, _numbers(6, 4, 3, 3), stride=2, padding=1, groups=2),
        lambda: pyconv.ConvTranspose2d(6, 8, 3, 2, 1, groups=2),
    ),
    "max_pool2d": (
        lambda x: F.max_pool2d(x, [3, 2], padding=1, ceil_mode=True, return_indices=True)[0],
        lambda: pyconv.MaxPool2d((3, 2), padding=1, ceil_mode=True),
    ),
    "avg_pool2d": (lambda x: F.avg_pool2d(x, 3, 1, (1, 0)), lambda: pyconv.AvgPool2d(3, 1, (1, 0))),
    "adaptive_avg_pool2d": (
        lambda x: F.adaptive_avg_pool2d(x, (3, None)),
        lambda: pyconv.AdaptiveAvgPool2d((3, None)),
    ),
    "batch_norm": (
        lambda x: F.batch_norm(x, np.zeros(6, np.float32), np.ones(6, np.float32), training=True),
        lambda: pyconv.BatchNorm2d(6),
    ),
    "linear": (lambda x: F.linear(x, _numbers(5, 10)), lambda: pyconv.Linear(10, 5)),
    "softmax": (lambda x: F.softmax(input=x, dim=1), lambda: pyconv.Softmax(1)),
    "sigmoid": (F.sigmoid, pyconv.Sigmoid),
    "tanh": (F.tanh, pyconv.Tanh),
    "leaky_relu": (F.leaky_relu, pyconv.LeakyReLU),
    "dropout": (F.dropout, pyconv.Dropout),
    "matmul": (lambda x: x @ _numbers(10, 5), lambda: pyconv.Linear(10, 5, bias=False)),
}


@pytest.mark.parametrize("name", FUNCTIONS)
@pytest.mark.parametrize("shape", [(3, 6, 9, 10), (6, 9, 10)])
def test_a_function_counts_as_its_layer(name, shape):
    shape = shape[1:] if name == "conv1d" else (1, *shape)[-4:] if name == "batch_norm" else shape
    call, make = FUNCTIONS[name]
    found = pyconv.summary(Calls(call), shape).rows[-1]
    expected = pyconv.summary(make(), shape).rows[-1]
    assert found.kind == f"{name.split(',')[0]}()" and found.leaf
    assert found.input_shape[1:] == expected.input_shape[1:]
    assert found.output_shape == expected.output_shape and found.macs == expected.macs
    assert found.activation_bytes == expected.activation_bytes
    if name == "conv1d":  # nobody says that images have one axis
        assert len(shape) == 2 or found.receptive_field is None
    elif name != "matmul":  # NumPy's products are not followed
        assert found.receptive_field == expected.receptive_field


def test_padding_moves_the_field():
    net = Calls(lambda x: F.max_pool2d(F.pad(x, (2, 0, 3, -1)), 3))
    field = pyconv.receptive_field(net, (1, 1, 12, 12))
    assert field.size == (3, 3) and field.offset == (-3, -2)
    rows = pyconv.summary(net, (1, 1, 12, 12)).rows
    assert rows[1].output_shape == (1, 1, 14, 14) and not rows[0].leaf
    wide = pyconv.summary(Calls(lambda x: F.pad(x, (0, 0, 0, 0, 0, 0, 1, 2))), (1, 1, 2, 2))
    assert wide.rows[0].output_shape == (4, 1, 2, 2)


def test_what_cannot_be_counted_is_named():
    class Doubled(pyconv.Conv2d):
        def forward(self, x):
            return 2 * super().forward(x)

    class Fine(pyconv.Linear):
        def forward(self, x):
            return 2 * super().forward(x)

    w = np.ones((4, 3), np.float32)
    net = pyconv.Sequential(
        Doubled(1, 4, 3), Calls(lambda x: np.einsum("nchw,cd->ndhw", x, w)), Fine(6, 2)
    )
    table = pyconv.summary(net, (1, 1, 8, 8))
    assert table.not_counted == ("a forward of its own of '0'", "einsum of '1'")
    assert table.macs == 3 * 6 * 6 * 2
    text = str(table)
    assert "Multiply-adds not counted: a forward of its own of '0'\n" in text
    assert "Multiply-adds not counted: einsum of '1'\n" in text
    assert "not counted: einsum" in table._repr_html_()


def test_a_functions_mistakes_are_its_own():
    for call, text in (
        (lambda x: F.conv2d(x, _numbers(8, 5, 3, 3)), r"\(N, 5, H, W\).*\(3, 6, 9, 10\)"),
        (lambda x: F.softmax(x, dim=7), "Dimension out of range"),
        (lambda x: F.linear(x, _numbers(5, 9)), "162x10"),
    ):
        with pytest.raises((ValueError, IndexError), match=text):
            pyconv.summary(Calls(call), (3, 6, 9, 10))
        np.testing.assert_array_equal(F.relu([-1.0, 2]), [0, 2])  # nobody follows any more
    with pytest.raises(TypeError, match="weight"):
        pyconv.summary(Calls(lambda x: F.conv2d(x)), (3, 6, 9, 10))


def test_several_inputs_and_several_outputs():
    class Two(pyconv.Module):
        def __init__(self):
            super().__init__()
            self.pool = pyconv.MaxPool2d(2, return_indices=True)
            self.up = pyconv.ConvTranspose2d(1, 1, 2, 2)

        def forward(self, x, y):
            values, indices = self.pool(x)
            assert indices.dtype == np.int64 and indices.shape == values.shape
            return self.up(values + y, output_size=(9, 8)), self.up(y, (8, 9))

    table = pyconv.summary(Two(), [(1, 1, 8, 8), (1, 1, 4, 4)])
    assert [row.output_shape[2:] for row in table.rows] == [(9, 8), (4, 4), (9, 8), (8, 9)]


def test_a_large_model_is_followed_without_memory_or_time():
    net = pyconv.Sequential(
        pyconv.Conv2d(3, 64, 3, padding=1), pyconv.ReLU(), pyconv.Conv2d(64, 64, 3, padding=1)
    )
    tracemalloc.start()
    table = pyconv.summary(net, (1, 3, 20_000, 20_000))
    tracemalloc.stop()
    assert table.macs == 64 * 27 * 20_000**2 + 64 * 576 * 20_000**2


def test_wrong_shapes_are_told_as_by_a_call_and_leave_no_trace():
    net = pyconv.Sequential(pyconv.Conv2d(3, 8, 3), pyconv.Linear(5, 2))
    with pytest.raises(ValueError, match="3 channels"):
        pyconv.summary(net, (1, 4, 8, 8))
    with pytest.raises(ValueError, match="mat1 and mat2 shapes cannot be multiplied"):
        net.output_shape((1, 3, 8, 8))
    with pytest.raises(TypeError, match="input_shape must be an int"):
        net.macs((1, 3, 8.0, 8))
    with pytest.raises(ValueError, match="input_shape must be at least 0"):
        net.macs((1, 3, -8, 8))
    assert net.training and not any(module._watched for module in net.modules())
    assert net[0](np.zeros((1, 3, 7, 7))).shape == (1, 8, 5, 5)


def test_other_threads_go_on_computing():
    started, done, results = threading.Event(), threading.Event(), []

    class Slow(pyconv.Module):
        def forward(self, x):
            if threading.current_thread() is not threading.main_thread():
                return x
            started.set()
            assert done.wait(10)
            return x

    conv = pyconv.Conv2d(1, 1, 1, rng=0)
    net = pyconv.Sequential(Slow(), conv)
    x = np.ones((1, 1, 2, 2), np.float32)
    expected = conv(x)

    def other():
        started.wait(10)
        results.append(F.relu(conv(x)) + 1)
        done.set()

    thread = threading.Thread(target=other)
    thread.start()
    net.output_shape((1, 1, 2, 2))
    thread.join()
    np.testing.assert_array_equal(results[0], F.relu(expected) + 1)


def test_hooks_are_there_again_afterwards():
    net, seen = pyconv.Sequential(pyconv.ReLU()), []
    net[0].register_forward_hook(lambda *args: seen.append(1))
    net.output_shape((1, 2))
    assert not seen
    net(np.ones((1, 2)))
    assert seen == [1]


# ---- multiplications ----

N, C, D, H, W, K = 2, 6, 12, 9, 10, 3
OUT = (H - K + 1) * (W - K + 1)
KINDS = {
    "standard": (lambda: pyconv.Conv2d(C, D, K), N * OUT * D * C * K * K),
    "grouped": (lambda: pyconv.Conv2d(C, D, K, groups=3), N * OUT * D * (C // 3) * K * K),
    "depthwise": (lambda: pyconv.Conv2d(C, C, K, groups=C), N * OUT * C * K * K),
    "pointwise": (lambda: pyconv.Conv2d(C, D, 1), N * H * W * D * C),
    "separable": (
        lambda: pyconv.Sequential(pyconv.Conv2d(C, C, K, groups=C), pyconv.Conv2d(C, D, 1)),
        N * OUT * C * (K * K + D),
    ),
    "dilated": (
        lambda: pyconv.Conv2d(C, D, K, dilation=2),
        N * (H - 4) * (W - 4) * D * C * K * K,
    ),
    "strided": (lambda: pyconv.Conv2d(C, D, K, stride=3), N * 3 * 3 * D * C * K * K),
    "transposed": (lambda: pyconv.ConvTranspose2d(C, D, K, stride=2), N * H * W * D * C * K * K),
    "transposed, grouped": (
        lambda: pyconv.ConvTranspose2d(C, D, K, 2, groups=2),
        N * H * W * (D // 2) * C * K * K,
    ),
    "linear": (lambda: pyconv.Linear(W, 7), N * C * H * W * 7),
    "none": (lambda: pyconv.Sequential(pyconv.ReLU(), pyconv.AvgPool2d(2)), 0),
}


@pytest.mark.parametrize("name", KINDS)
def test_macs_are_the_formulas(name):
    make, expected = KINDS[name]
    layer = make()
    assert layer.macs((N, C, H, W)) == expected
    assert pyconv.summary(layer, (N, C, H, W)).macs == expected
    if name != "linear":
        assert layer.macs((C, H, W)) * N == expected


def test_the_lectures_parameters():
    assert sum(p.numel() for p in pyconv.Conv2d(64, 128, 3).parameters()) == 73_856
    block = pyconv.Sequential(pyconv.Conv2d(64, 64, 3, groups=64), pyconv.Conv2d(64, 128, 1))
    assert pyconv.summary(block, (1, 64, 8, 8)).parameters == 8_960


# ---- receptive fields ----

FIELDS = {
    "conv": lambda: pyconv.Conv2d(1, 1, (3, 4), (1, 2), (2, 1), (2, 1)),
    "same": lambda: pyconv.Conv2d(1, 1, (4, 3), padding="same", dilation=(1, 2)),
    "sides": lambda: pyconv.Conv2d(1, 1, 3, padding=((2, 0), (1, 3))),
    "chain": lambda: pyconv.Sequential(
        pyconv.Conv2d(1, 1, 3, padding=1),
        pyconv.ReLU(),
        pyconv.MaxPool2d(2),
        pyconv.Conv2d(1, 1, 5, 2, 2),
        pyconv.AvgPool2d(3, 1, 1),
    ),
    "residual": lambda: pyconv.Residual(
        pyconv.Sequential(pyconv.Conv2d(1, 1, 3, 2, 1), pyconv.Conv2d(1, 1, 3, padding=1)),
        pyconv.Conv2d(1, 1, 1, 2),
    ),
    "inception": lambda: pyconv.Concat(
        pyconv.Conv2d(1, 1, 1),
        pyconv.Conv2d(1, 1, (5, 1), padding=(2, 0)),
        pyconv.MaxPool2d(3, 1, 1),
    ),
    "up": lambda: pyconv.ConvTranspose2d(1, 1, (3, 5), (2, 3), (1, 2)),
    "down and up": lambda: pyconv.Sequential(
        pyconv.MaxPool2d(2), pyconv.Conv2d(1, 1, 3, padding=1), pyconv.ConvTranspose2d(1, 1, 2, 2)
    ),
    "u": lambda: pyconv.Sequential(
        pyconv.Concat(
            pyconv.Identity(),
            pyconv.Sequential(
                pyconv.MaxPool2d(2),
                pyconv.Conv2d(1, 1, 3, padding=1),
                pyconv.ConvTranspose2d(1, 1, 4, 2, 1),
            ),
        ),
        pyconv.Conv2d(2, 1, 3, padding=1),
    ),
    "up and down": lambda: pyconv.Sequential(
        pyconv.ConvTranspose2d(1, 1, 3, 3), pyconv.AvgPool2d(2), pyconv.Conv2d(1, 1, 3, 3, 1)
    ),
    "adaptive": lambda: pyconv.AdaptiveAvgPool2d((24, 36)),
    "adaptive, odd": lambda: pyconv.Sequential(
        pyconv.Conv2d(1, 1, 3, padding=1), pyconv.AdaptiveAvgPool2d((32, 15))
    ),
}


def seen_along(net, axis, n):
    """For each output position along an axis: first and last input position that it depends on.

    A NaN travels through every layer here to exactly the outputs that depend on it.
    """
    x = np.zeros((n, 1, n, n))
    for i in range(n):
        x[i, 0][(i, slice(None)) if axis == 0 else (slice(None), i)] = np.nan
    y = np.isnan(net.eval()(x)).any(axis=(1, 3 - axis))
    return [(rows.argmax(), n - 1 - rows[::-1].argmax()) for rows in y.T]


@pytest.mark.parametrize("name", FIELDS)
def test_receptive_fields_are_what_probing_finds(name):
    n = 48
    net = FIELDS[name]()
    field = pyconv.receptive_field(net, (1, 1, n, n))
    overlap = net.overlap((1, 1, n, n))
    for axis in (0, 1):
        seen = seen_along(net, axis, n)
        inside = [(i, a, b) for i, (a, b) in enumerate(seen) if a > 5 and b < n - 6]
        assert len(inside) > 3
        assert max(b - a + 1 for _, a, b in inside) == field.size[axis]
        period, advance = overlap.output_stride[axis], overlap.stride[axis]
        assert field.stride[axis] == advance / period
        for i, a, b in inside:  # a period further on the same is seen, an advance further on
            if (i + period, a + advance, b + advance) not in inside:
                assert i + period >= inside[-1][0]
        starts = [a - advance * (i // period) for i, a, _ in inside if i % period == 0]
        assert set(starts) == {field.offset[axis]}
        lows = [a - advance * (i // period) for i, a, _ in inside]
        highs = [b - advance * (i // period) for i, _, b in inside]
        before, behind = overlap.halo[axis]
        assert before == max(0, -min(lows)) and behind == max(0, max(highs) - advance + 1)


def test_tiles_with_the_halo_give_what_the_whole_image_gives():
    net = FIELDS["u"]().eval()
    halo, stride, out = net.overlap()
    x = np.random.default_rng(0).standard_normal((1, 1, 40, 40))
    whole = net(x)
    (before, behind), (step,) = halo[0], set(stride)
    assert step == 2 and halo[0] == halo[1] and out == stride
    before, behind = (step * math.ceil(n / step) for n in (before, behind))
    for top, left in itertools.product((16, 18), (12, 20)):
        tile = x[:, :, top - before : top + 8 + behind, left - before : left + 8 + behind]
        inner = net(tile)[:, :, before : before + 8, before : before + 8]
        np.testing.assert_array_equal(inner, whole[:, :, top : top + 8, left : left + 8])


def test_what_sees_the_whole_image():
    net = NETWORKS["cnn"](pyconv)
    field = pyconv.receptive_field(net, (1, 1, 8, 8))
    assert field == ((8, 8), (0, 0), (0, 0))
    with pytest.raises(ValueError, match="sees the whole image"):
        net.overlap((1, 1, 8, 8))
    with pytest.raises(ValueError, match="found no input_shape that fits"):
        net.overlap()


def test_what_cannot_be_followed_is_unknown_and_not_wrong():
    class Net(pyconv.Module):
        def __init__(self, change):
            super().__init__()
            self.conv, self.change = pyconv.Conv2d(1, 1, 3, padding=1), change

        def forward(self, x):
            return self.conv(self.change(self.conv(x)))

    changes = {
        "weights": lambda h: F.conv2d(h, h[:, :, 2:5, 2:5], padding=1),
        "product": lambda h: h @ np.ones((9, 9), np.float32),
        "flip": lambda h: h[:, :, ::-1],
        "transpose": lambda h: h.transpose(0, 1, 3, 2),
        "roll": lambda h: np.roll(h, 1, 2),
    }
    for name, change in changes.items():
        net = Net(change)
        assert pyconv.summary(net, (1, 1, 9, 9)).rows[0].receptive_field is None, name
        assert "?" in str(pyconv.summary(net, (1, 1, 9, 9)))
        with pytest.raises(ValueError, match="cannot be followed"):
            pyconv.receptive_field(net, (1, 1, 9, 9))
    for change in (lambda h: h * 2, lambda h: np.maximum(h, 0), lambda h: h[:1], np.tanh):
        assert pyconv.receptive_field(Net(change), (1, 1, 9, 9)).size == (5, 5)
    assert pyconv.receptive_field(Net(lambda h: h - h.mean((2, 3), keepdims=True)), (1, 1, 9, 9))[
        0
    ] == (9, 9)


def test_steps_after_and_beside_steps():
    pool, up = window(2, 2, 0, 1), transposed(2, 2, 0, 1)
    assert after(SAME, pool) == pool == after(pool, SAME)
    both = after(up, pool)
    assert (both.period, both.advance, both.lows, both.highs) == (2, 2, (0, 0), (1, 1))
    assert beside(both, SAME).lows == (0, 0) and beside(both, SAME).highs == (1, 1)
    assert beside(pool, SAME) is None  # one path is half as long as the other
    assert transposed(3, 2**40, 0, 1) is None


# ---- the table ----


def test_the_table_as_text_and_html():
    net = pyconv.Sequential(
        pyconv.Conv2d(1, 2, 3), pyconv.Sequential(pyconv.Flatten(), pyconv.Linear(72, 1000))
    )
    net[0].requires_grad_(False)
    table = pyconv.summary(net, (1, 1, 8, 8))
    text = str(table)
    assert repr(table) == text
    assert "├─Conv2d: 1-1" in text and "│    ├─Linear: 2-2" in text
    assert "[1, 2, 6, 6]" in text and "73,000" in text and "72,000" in text
    assert "Total params: 73,020" in text and "Non-trainable params: 20" in text
    assert "Multiply-adds: 72,648" in text and "Parameter bytes: 292,080" in text
    assert max(map(len, text.splitlines())) <= 110
    html = table._repr_html_()
    assert html.count("<tr>") == 6 and "73,000" in html and "Total params: 73,020" in html
    assert table.rows[2].parameters == 0 and not table.rows[2].leaf and table.rows[4].leaf
    assert table.input_bytes == 256 and table.activation_bytes == 4 * (72 + 72 + 1000)
    assert pyconv.summary(net.double(), (1, 1, 8, 8)).parameter_bytes == 2 * 292_080
