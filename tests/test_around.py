"""BatchNorm2d, ReLU, AdaptiveAvgPool2d and Conv1d: the same bits, and what is theirs alone."""

import copy
import hashlib
import itertools
import pickle
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from guarded import call_in_child
from runs import Array, Results, check_same, fresh, plain

import pyconv
import pyconv.functional as F
from pyconv import _core

DTYPES = ["float32", "float64"]
parametrised = pytest.mark.parametrize("dtype", DTYPES)

# Shapes at the edges of blocks, chunks, groups of planes and shares of threads.
NORM_SHAPES = [
    (2, 3, 5, 7),
    (5, 2, 1, 1),
    (37, 6, 3, 3),
    (9, 5, 16, 16),
    (3, 1, 37, 41),
    (2, 3, 150, 301),
    (40, 4, 31, 33),
    (3, 40, 14, 14),
]


def norm(x: Array, gy: Array) -> Results:
    """Everything of batch normalisation, by the batch's statistics and by given ones."""
    c = x.shape[1]
    w, b, mean, var = np.linspace(-1, 2, 4 * c, dtype=x.dtype.name).reshape(4, c)
    var = np.abs(var) + var.dtype.type(0.1)
    found: Results = {}
    for training in (True, False):
        moved, spread = mean.copy(), var.copy()
        found[f"output {training}"] = F.batch_norm(x, moved, spread, w, b, training, 0.3)
        found |= {f"mean {training}": moved, f"var {training}": spread}
        grads = F.batch_norm_backward(gy, x, mean, var, w, training)
        found |= {f"{i} {training}": g for i, g in enumerate(grads) if g is not None}
    return found


def relu(x: Array, gy: Array) -> Results:
    """ReLU, the function and the layer."""
    layer = pyconv.ReLU()
    y = layer(x)
    found = {"y": y, "function": F.relu(x), "gx": layer.backward(gy)}
    return found | {"function's gx": F.relu_backward(gy, x)}


def adaptive(x: Array, gy: Array) -> Results:
    """Adaptive pooling, to a regular and to an irregular grid."""
    found: Results = {}
    for size in (1, (2, 3), (4, 1), (None, 5), (None, None)):
        y = found[f"y {size}"] = F.adaptive_avg_pool2d(x, size)
        found[f"gx {size}"] = F.adaptive_avg_pool2d_backward(y[::-1], x.shape)
    return found


RUNS: dict[str, tuple[Callable[..., Results], tuple[int, ...]]] = {
    **{f"norm {shape}": (norm, shape) for shape in NORM_SHAPES},
    "norm of huge numbers": (norm, (7, 3, 3, 5)),
    "relu": (relu, (3, 5, 201, 207)),
    "relu of a line": (relu, (700_001,)),
    "adaptive": (adaptive, (5, 7, 33, 35)),
    "adaptive of several shares": (adaptive, (5, 7, 87, 91)),
    "adaptive of two columns": (adaptive, (2, 3, 7, 2)),
    "adaptive of one": (adaptive, (1, 1, 300, 500)),
}


def given(name: str, dtype: str) -> Results:
    """Return the inputs of a run; those of batch normalisation far from zero, or overflowing."""
    run, shape = RUNS[name]
    x, gy = fresh(shape, dtype, 1), fresh(shape, dtype, 2)
    if "huge" in name:
        x, gy = (array * np.finfo(dtype).max ** array.dtype.type(0.55) for array in (x, gy))
    return {"x": x + x.dtype.type(100) if run is norm else x, "gy": gy}


# ---- the same bits ----


@parametrised
@pytest.mark.parametrize("name", RUNS)
def test_threads_do_not_matter(name: str, dtype: str) -> None:
    arrays, run = given(name, dtype), RUNS[name][0]
    with pyconv.num_threads(1):
        alone = run(**arrays)
    for threads in (2, 3, 7):
        with pyconv.num_threads(threads):
            check_same(run(**arrays), alone, f"{threads} threads")


def layouts(array: Array) -> dict[str, Array]:
    """Return the same values in memory of other orders."""
    wide = np.zeros([2 * n for n in array.shape], array.dtype)
    every = tuple(slice(None, None, 2) for _ in array.shape)
    wide[every] = array
    gaps = np.zeros((*array.shape[:-1], array.shape[-1] + 3), array.dtype)[..., :-3]
    gaps[...] = array
    backward = tuple(slice(None, None, -1) for _ in array.shape)
    return {
        "Fortran": np.asfortranarray(array),
        "channels last": np.moveaxis(np.moveaxis(array, 1, -1).copy(), -1, 1),
        "every other": wide[every],
        "gaps between rows": gaps,
        "backward": array[backward].copy()[backward],
        "big-endian": array.astype(array.dtype.newbyteorder()),
    }


@parametrised
@pytest.mark.parametrize("name", [name for name, (_, shape) in RUNS.items() if len(shape) == 4])
def test_layouts_do_not_matter(name: str, dtype: str) -> None:
    arrays, run = given(name, dtype), RUNS[name][0]
    expected = run(**arrays)
    changed = (("x", "gy"), ("x",), ("gy",))  # one may be read in place where the other is not
    for what, keys in itertools.product(layouts(arrays["x"]), changed):
        other = arrays | {key: layouts(arrays[key])[what] for key in keys}
        before = {key: array.copy() for key, array in other.items()}
        check_same(run(**other), expected, what)
        for key, array in other.items():
            assert np.array_equal(array, before[key], equal_nan=True)


def test_broadcast_inputs() -> None:
    for axis in range(4):
        x = fresh((4, 3, 20, 30), "float32", 3).take([0], axis)
        x = np.broadcast_to(x, (4, 3, 20, 30))
        for run in (norm, relu, adaptive):
            check_same(run(x, x), run(x.copy(), x.copy()), f"axis {axis}")


def fingerprints() -> dict[str, str]:
    """Return hashes of all results with the chosen instruction set."""
    found = {"isa": _core.build_info()["isa"]}
    for dtype in DTYPES:
        for name, (run, _) in RUNS.items():
            for key, array in run(**given(name, dtype)).items():
                found[f"{dtype} {name} {key}"] = hashlib.sha256(plain(array)).hexdigest()
    return found


def test_instruction_sets_with_fma_agree() -> None:
    found = [call_in_child(fingerprints, env={"PYCONV_ISA": isa}) for isa in ("avx2", "avx512")]
    if found[0]["isa"] != "avx2" or found[1]["isa"] != "avx512":
        pytest.skip("this machine has no avx512")
    for each in found:
        del each["isa"]
    assert found[0] == found[1]


# ---- BatchNorm2d ----


def images(*shape: int) -> Array:
    return np.random.default_rng(5).standard_normal(shape).astype(np.float32)


def test_cumulative_average() -> None:
    """momentum=None: the running statistics are the mean over the batches."""
    layer = pyconv.BatchNorm2d(3, momentum=None)
    batches = [images(4, 3, 5, 6) * k + k for k in (1, 2, 3)]
    for x in batches:
        layer(x)
    mean = np.mean([x.mean((0, 2, 3)) for x in batches], 0)
    var = np.mean([x.var((0, 2, 3), ddof=1) for x in batches], 0)
    np.testing.assert_allclose(layer.running_mean, mean, rtol=1e-5)
    np.testing.assert_allclose(layer.running_var, var, rtol=1e-5)
    assert layer.num_batches_tracked == 3


def test_running_statistics_move_in_training_alone() -> None:
    layer = pyconv.BatchNorm2d(2)
    x = images(3, 2, 4, 4)
    arrays = layer.running_mean, layer.running_var, layer.num_batches_tracked
    layer.eval()
    layer(x), layer.vjp(x)
    assert layer.num_batches_tracked == 0 and not layer.running_mean.any()
    layer.train()
    layer.vjp(x)
    assert layer.num_batches_tracked == 1 and layer.running_mean.any()
    assert (layer.running_mean, layer.running_var, layer.num_batches_tracked) == arrays or all(
        a is b
        for a, b in zip(
            (layer.running_mean, layer.running_var, layer.num_batches_tracked), arrays, strict=True
        )
    )
    layer.reset_running_stats()
    assert layer.num_batches_tracked == 0 and (layer.running_var == 1).all()


def test_a_failed_call_moves_nothing() -> None:
    layer = pyconv.BatchNorm2d(2)
    layer(images(2, 2, 3, 3))
    before = {key: array.copy() for key, array in layer.state_dict().items()}
    for bad in (images(1, 2, 1, 1), images(2, 3, 4, 4), images(2, 4, 4), "x"):
        with pytest.raises((TypeError, ValueError)):
            layer(bad)
    layer.running_var.flags.writeable = False
    with pytest.raises(ValueError, match="running_var is updated and must not be read-only"):
        layer(images(2, 2, 3, 3))
    layer.running_var = np.ones(3, np.float32)
    with pytest.raises(ValueError, match="running_var should contain 2 elements"):
        layer(images(2, 2, 3, 3))
    layer.running_var = before["running_var"].copy()
    layer.num_batches_tracked = np.array(1.5)
    with pytest.raises(TypeError, match="num_batches_tracked"):
        layer(images(2, 2, 3, 3))
    layer.num_batches_tracked = before["num_batches_tracked"].copy()
    for key, array in layer.state_dict().items():
        np.testing.assert_array_equal(array, before[key])
    assert layer.backward(images(2, 2, 3, 3)).shape == (2, 2, 3, 3)


def test_functions_check_running_arrays() -> None:
    x, mean, var = images(3, 2, 4, 4), np.zeros(2, "f4"), np.ones(2, "f4")
    locked = mean.copy()
    locked.flags.writeable = False
    for wrong, error in (
        ([0, 0], TypeError),
        (mean.astype("f8"), TypeError),
        (mean.astype(">f4"), TypeError),
        (np.zeros((2, 1), "f4"), ValueError),
        (locked, ValueError),
        ("ab", TypeError),
    ):
        with pytest.raises(error, match="running_mean"):
            F.batch_norm(x, wrong, var, training=True)
        assert (var == 1).all()
    strided = np.zeros(5, "f4")[1:4:2]  # of any layout
    F.batch_norm(x, strided, var, training=True)
    F.batch_norm(x, mean, np.ones(2, "f4"), training=True)
    assert np.array_equal(strided, mean) and mean.any()
    F.batch_norm(x, [0, 1], (1, 2))  # read only: anything will do


def test_momentum_and_eps_may_be_set() -> None:
    layer = pyconv.BatchNorm2d(2)
    layer.momentum, layer.eps = None, 0.5
    assert (layer.momentum, layer.eps) == (None, 0.5)
    layer.momentum = 0.25
    for name, wrong, error in (
        ("momentum", "x", TypeError),
        ("eps", -1, ValueError),
        ("eps", float("nan"), ValueError),
        ("eps", None, TypeError),
        ("num_features", 3, AttributeError),
        ("affine", False, AttributeError),
    ):
        with pytest.raises(error):
            setattr(layer, name, wrong)
    assert (layer.momentum, layer.eps) == (0.25, 0.5)
    y = layer(images(4, 2, 3, 3))
    layer.eps = 100.0  # backward goes by the eps of its forward
    other = pyconv.BatchNorm2d(2, eps=0.5)
    other(images(4, 2, 3, 3))
    np.testing.assert_array_equal(layer.backward(y), other.backward(y))


def test_conversion_and_copies_keep_the_buffers() -> None:
    layer = pyconv.BatchNorm2d(2, momentum=0.5)
    layer(images(4, 2, 3, 3))
    state = {key: array.copy() for key, array in layer.state_dict().items()}
    for new in (copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))):
        assert not np.shares_memory(new.running_mean, layer.running_mean)
        for key, array in new.state_dict().items():
            np.testing.assert_array_equal(array, state[key])
        new(images(4, 2, 3, 3))
        assert new.num_batches_tracked == 2 and layer.num_batches_tracked == 1
    layer.double()
    assert layer.running_var.dtype == layer.weight.dtype == np.float64
    assert layer.num_batches_tracked.dtype == np.int64
    assert layer(images(4, 2, 3, 3)).dtype == np.float64
    other = pyconv.BatchNorm2d(2)
    other.load_state_dict(state)
    assert other.num_batches_tracked == 1
    np.testing.assert_array_equal(other.running_mean, state["running_mean"])
    with pytest.raises(RuntimeError, match="running_mean"):
        other.load_state_dict({k: v for k, v in state.items() if k != "running_mean"})


@pytest.mark.parametrize("training", [False, True])
def test_gradients_that_are_asked_for_alone(training: bool) -> None:
    x, gy = images(2, 3, 4, 5), images(2, 3, 4, 5) + 1
    arrays = gy, x, np.zeros(3, "f4"), np.ones(3, "f4")
    whole = F.batch_norm_backward(*arrays, training=training)
    for mask in itertools.product((True, False), repeat=3):
        found = F.batch_norm_backward(*arrays, training=training, output_mask=mask)
        for wanted, got, expected in zip(mask, found, whole, strict=True):
            assert np.array_equal(got, expected) if wanted else got is None


def test_missing_parameters_stay_missing() -> None:
    for options, names in (
        ({"affine": False}, ()),
        ({"bias": False}, ("weight",)),
        ({}, ("weight", "bias")),
    ):
        layer = pyconv.BatchNorm2d(2, **options)
        assert tuple(name for name, _ in layer.named_parameters()) == names
        y = layer(images(4, 2, 3, 3))
        layer.backward(y)
        for name in ("weight", "bias"):
            assert (getattr(layer, name) is None) == (name not in names)
            assert (getattr(layer, name + "_grad") is None) == (name not in names)
            if name not in names:
                with pytest.raises(ValueError, match="made without"):
                    setattr(layer, name, np.ones(2))
    frozen = pyconv.BatchNorm2d(2).requires_grad_(False)
    frozen.backward(frozen(images(4, 2, 3, 3)))
    assert frozen.weight_grad is None and frozen.bias_grad is None


def test_infinities_and_nans_spoil_their_channel_alone() -> None:
    for value in (np.inf, -np.inf, np.nan):
        x = images(2, 3, 4, 4)
        x[0, 1, 2, 2] = value
        mean, var = np.zeros(3, "f4"), np.ones(3, "f4")
        y = F.batch_norm(x, mean, var, training=True)
        assert np.isnan(y[:, 1]).all() and np.isfinite(y[:, [0, 2]]).all()
        assert np.isfinite(mean[[0, 2]]).all() and np.isnan(var[1])
        assert np.isnan(mean[1]) if np.isnan(value) else np.isinf(mean[1])


# ---- ReLU ----


def test_relu_remembers_bits_and_not_its_arrays() -> None:
    layer = pyconv.ReLU()
    x = images(2, 3, 40, 40)
    before = sys.getrefcount(x)
    y = layer(x)
    assert sys.getrefcount(x) == before
    gy = np.ones_like(y)
    expected = np.where(x > 0, np.float32(1), np.float32(0))
    x[...] = y[...] = np.nan
    np.testing.assert_array_equal(layer.backward(gy), expected)


def test_relu_of_any_rank() -> None:
    layer = pyconv.ReLU()
    for shape in ((), (5,), (1,) * 12, (2, 0, 3)):
        x = images(*shape) if shape else np.float32(-2)
        y = layer(x)
        assert y.shape == shape == layer.backward(y).shape == layer.output_shape(shape)
    with pytest.raises(ValueError, match="expected grad_output of shape"):
        layer.backward(np.ones(3))


# ---- Conv1d ----


@parametrised
def test_conv1d_has_the_bits_of_conv2d(dtype: str) -> None:
    x, w, gy = fresh((3, 6, 40), dtype, 1), fresh((8, 3, 5), dtype, 2), fresh((3, 8, 20), dtype, 3)
    options: dict[str, Any] = {"stride": 2, "padding": 2, "groups": 2}
    flat: dict[str, Any] = {"stride": (1, 2), "padding": (0, 2), "groups": 2}
    y = F.conv1d(x, w, **options)
    assert y.flags.c_contiguous and y.flags.owndata
    wide = F.conv2d(x[:, :, None], w[:, :, None], **flat)
    assert plain(y) == plain(wide)
    grads = F.conv1d_backward(gy, x, w, **options)
    wides = F.conv2d_backward(gy[:, :, None], x[:, :, None], w[:, :, None], **flat)
    for one, two, shape in zip(grads, wides, (x.shape, w.shape, (8,)), strict=True):
        assert one is not None and two is not None
        assert one.shape == shape and plain(one) == plain(two)
    layer = pyconv.Conv1d(6, 8, 5, 2, 2, groups=2, bias=False, dtype=dtype)
    layer.weight = w
    assert plain(layer(x[..., ::-1])) == plain(F.conv1d(x[..., ::-1].copy(), w, **options))
    layer.backward(gy)
    assert layer.weight_grad.shape == layer.weight.shape == (8, 3, 5)
    one = layer(x[0])
    assert plain(one) == plain(y[0]) and layer.backward(gy[0]).shape == (6, 40)
