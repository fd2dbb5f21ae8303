"""What happens in the middle: interrupts, forks, arrays that change, calls inside calls.

A layer holds its parameters, its gradients and what its last forward saved. Whatever comes between
two calls, or into one, these are either as before the call or as after it, and the process lives.
Each test runs in a child, for that is what it is about.
"""

# ruff: noqa: B023 - each lambda is called before its loop goes on

import contextlib
import gc
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from guarded import in_child
from small_layers import CONVS, LAYERS, Array, fails, image, make

import pyconv
import pyconv.functional as F


def ones_for(layer: Any, x: Array = image) -> Array:
    """Return a gradient of the layer's output shape."""
    return np.ones(layer.output_shape(x.shape), x.dtype)


# ---- Ctrl-C ----


@contextlib.contextmanager
def interrupted_after(seconds: float) -> Iterator[None]:
    """Send this process a SIGINT from another thread, again and again until the block has ended."""
    done = threading.Event()

    def interrupt() -> None:
        wait = seconds
        while not done.wait(wait):
            os.kill(os.getpid(), signal.SIGINT)
            wait = 5.0

    # A shell that starts a job in the background lets it ignore SIGINT.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    thread = threading.Thread(target=interrupt)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


def interrupt(call: Callable[[], Any]) -> bool:
    """Interrupt a call that takes many seconds; tell whether it was stopped by that."""
    try:
        with interrupted_after(0.2):
            call()
    except KeyboardInterrupt:
        return True
    return False


# Each of these would take minutes. The arrays are broadcast, so they take no memory.
def long_input(channels: int, size: int) -> Array:
    """Return one image of ones without memory behind it."""
    return np.broadcast_to(np.float32(1), (1, channels, size, size))


LONG_CALLS: dict[str, Callable[[], Any]] = {
    "conv2d": lambda: F.conv2d(long_input(512, 512), np.ones((512, 512, 9, 9), np.float32)),
    "conv2d_backward, input": lambda: F.conv2d_backward(
        long_input(512, 504),
        long_input(512, 512),
        np.ones((512, 512, 9, 9), np.float32),
        output_mask=(True, False, False),
    ),
    "conv2d_backward, weight": lambda: F.conv2d_backward(
        long_input(512, 504),
        long_input(512, 512),
        np.ones((512, 512, 9, 9), np.float32),
        output_mask=(False, True, False),
    ),
    "depthwise": lambda: F.conv2d(
        long_input(256, 1024), np.ones((256, 1, 63, 63), np.float32), groups=256
    ),
    "conv_transpose2d": lambda: F.conv_transpose2d(
        long_input(512, 504), np.ones((512, 512, 9, 9), np.float32)
    ),
    "max_pool2d": lambda: F.max_pool2d(long_input(64, 2048), 101, 1, return_indices=True),
    "avg_pool2d": lambda: F.avg_pool2d(long_input(64, 2048), 101, 1),
    "avg_pool2d_backward": lambda: F.avg_pool2d_backward(
        long_input(64, 1948), (1, 64, 2048, 2048), 101, 1
    ),
}


@pytest.mark.parametrize("name", LONG_CALLS)
@in_child
def test_ctrl_c_stops_a_long_call(name: str) -> None:
    """KeyboardInterrupt comes out of the call long before it is done; the next call is right."""
    with pyconv.num_threads(2):
        assert interrupt(LONG_CALLS[name])
    w = np.ones((6, 3, 3, 3), np.float32)
    assert np.array_equal(F.conv2d(image, w), F.conv2d(image.copy(), w))


@in_child
def test_ctrl_c_changes_nothing() -> None:
    """After an interrupted forward or backward: gradients, saved input and weights as before."""
    for name in CONVS:
        layer = getattr(pyconv, name)(128, 128, 9, bias=False)
        small = np.ones((1, 128, 9, 9), np.float32)
        y = layer(small)
        gy = np.ones_like(y)
        expected = layer.vjp(small)[1](gy)
        layer.weight_grad = np.ones(layer.weight.shape)
        weight = layer.weight.copy()
        for call in (layer, layer.vjp):
            assert interrupt(lambda: call(long_input(128, 1024)))
            assert np.array_equal(layer.weight, weight)
            assert (layer.weight_grad == 1).all()
        # what is saved still belongs to the small forward
        assert np.array_equal(layer.backward(gy), expected)


@in_child
def test_ctrl_c_in_a_layers_backward() -> None:
    """Gradients are added to both parameters, or to neither; the sums here are exact."""
    layer = pyconv.Conv2d(64, 256, 9, padding=4)
    x = np.ones((2, 64, 64, 64), np.float32)
    with pyconv.num_threads(2):
        y, pullback = layer.vjp(x)
        gy = np.ones_like(y)
        pullback(gy)
        weight, bias = layer.weight_grad.copy(), layer.bias_grad.copy()

        def many() -> None:
            while True:
                pullback(gy)

        for _ in range(3):
            layer.zero_grad()
            assert interrupt(many)
            if layer.weight_grad is None:
                assert layer.bias_grad is None
                continue
            times = layer.bias_grad[0] / bias[0]
            assert np.array_equal(layer.bias_grad, bias * times)
            assert np.array_equal(layer.weight_grad, weight * times)


@in_child
def test_a_signal_handler_may_use_the_layer() -> None:
    """A handler that runs in the middle of a call calls the same layer, and lets it go on."""
    layer = pyconv.Conv2d(64, 64, 7, padding=3).eval()
    x = np.ones((2, 64, 128, 128), np.float32)
    expected, small = layer(x), layer(x[:1, :, :9, :9])
    seen: list[bool] = []
    signal.signal(
        signal.SIGALRM,
        lambda *_: seen.append(bool(np.array_equal(layer(x[:1, :, :9, :9]), small))),
    )
    signal.setitimer(signal.ITIMER_REAL, 0.02, 0.02)
    try:
        for _ in range(50):
            assert np.array_equal(layer(x), expected)
            if len(seen) > 10:
                break
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
    assert seen
    assert all(seen)


# ---- arrays that change between calls ----


def attempts(layer: Any) -> dict[str, Callable[[], Any]]:
    """Return what a user could do to a layer's weight in place."""
    w = layer.weight

    def strided() -> None:
        w.strides = (0, 0, 0, 0)

    def shaped() -> None:
        w.shape = (w.size,)

    def typed() -> None:
        w.dtype = np.int32

    def halved() -> None:
        w.dtype = np.float16

    def frozen() -> None:
        w.flags.writeable = False

    return {
        "resize": lambda: w.resize((1,)),
        "resize, unchecked": lambda: w.resize((1,), refcheck=False),
        "grow, unchecked": lambda: w.resize((100, 100, 10, 10), refcheck=False),
        "shape": shaped,
        "dtype": typed,
        "half": halved,
        "strides": strided,
        "swap": lambda: w.byteswap(inplace=True),
        "read-only": frozen,
        "setstate": lambda: w.__setstate__((1, (3,), np.dtype("f4"), False, b"\0" * 12)),
    }


@pytest.mark.parametrize("name", CONVS)
@in_child
def test_weights_that_are_changed_in_place(name: str) -> None:
    """Each attempt fails, or the layer says so at its next use, or works with what is there."""
    for attempt in attempts(make(name)):
        layer = make(name)
        gy = ones_for(layer)
        layer(image)
        layer.backward(gy)
        with contextlib.suppress(Exception):
            attempts(layer)[attempt]()
        for use in (
            lambda: layer(image),
            lambda: layer.backward(gy),
            lambda: layer.vjp(image)[1](gy),
            lambda: setattr(
                layer, "weight", np.ones((6, 3, 3, 3) if name == "Conv2d" else (3, 6, 3, 3))
            ),
            lambda: layer.double(),
            lambda: layer.state_dict(),
            lambda: layer(image),
            lambda: repr(layer),
        ):
            with contextlib.suppress(RuntimeError, ValueError):
                use()
    gc.collect()


@pytest.mark.parametrize("name", CONVS)
@in_child
def test_a_weight_of_another_shape_is_refused(name: str) -> None:
    """A reshaped or retyped weight is an error that says so; with its own shape all is well."""
    layer = make(name)
    y = layer(image)
    w = layer.weight
    shape, dtype = w.shape, w.dtype

    def reshaped(value: Any) -> None:
        w.shape = value

    def retyped(value: Any) -> None:
        w.dtype = value

    for change, wrong, right in (
        (reshaped, shape[::-1], shape),
        (reshaped, (w.size,), shape),
        (retyped, np.int32, dtype),
    ):
        change(wrong)
        for use in (
            lambda: layer(image),
            lambda: layer.vjp(image),
            lambda: layer.backward(np.ones_like(y)),
            lambda: setattr(layer, "weight", np.ones(shape)),
        ):
            fails(RuntimeError, use, name, "weight")
        change(right)
        assert np.array_equal(layer(image), y)
        assert layer.weight_grad is None


@pytest.mark.parametrize("name", CONVS)
@in_child
def test_gradients_that_are_changed_in_place(name: str) -> None:
    """The same for weight_grad, to which backward adds."""
    for change in (
        lambda g: g.resize((1,), refcheck=False),
        lambda g: setattr(g, "shape", (g.size,)),
        lambda g: setattr(g, "dtype", np.float16),
        lambda g: setattr(g.flags, "writeable", False),
        lambda g: g.__setstate__((1, (3,), np.dtype("f4"), False, b"\0" * 12)),
    ):
        layer = make(name)
        gy = ones_for(layer)
        layer(image)
        layer.backward(gy)
        with contextlib.suppress(Exception):
            change(layer.weight_grad)
        bias = layer.bias_grad.copy()
        try:
            layer.backward(gy)
        except (RuntimeError, ValueError) as error:
            assert name in str(error)
            assert np.array_equal(layer.bias_grad, bias)  # all or nothing
        with contextlib.suppress(RuntimeError, ValueError):
            layer.double()
        layer.zero_grad()
        layer(image)


@in_child
def test_the_weight_outlives_its_layer() -> None:
    """Arrays that were handed out stay good when the layer is gone, or was made anew."""
    for name in CONVS:
        layer = make(name)
        layer(image)
        layer.backward(ones_for(layer))
        arrays = [layer.weight, layer.bias, layer.weight_grad, layer.bias_grad]
        copies = [array.copy() for array in arrays]
        layer.__init__(5, 5, 5)
        del layer
        gc.collect()
        assert all(np.array_equal(a, b) for a, b in zip(arrays, copies, strict=True))
        arrays[0][...] = 1


@in_child
def test_inputs_that_change_before_backward() -> None:
    """The saved input is the caller's array: other values, other numbers; other shape, an error."""
    layer = pyconv.Conv2d(3, 6, 3)
    for change in (
        lambda x: x.resize((1, 3, 3, 3), refcheck=False),
        lambda x: x.resize((50, 3, 8, 9), refcheck=False),
        lambda x: setattr(x, "shape", (x.size,)),
        lambda x: setattr(x, "shape", (2, 3, 9, 8)),
        lambda x: setattr(x, "dtype", np.int32),
        lambda x: x.fill(np.nan),
        lambda x: setattr(x, "strides", (0, 0, 0, 0)),
        lambda x: x.__setstate__((1, (3,), np.dtype("f4"), False, b"\0" * 12)),
    ):
        x = image.copy()
        layer(x)
        _, pullback = layer.vjp(x)
        gy = ones_for(layer)
        with contextlib.suppress(Exception):
            change(x)
        for use in (lambda: layer.backward(gy), lambda: pullback(gy)):
            with contextlib.suppress(RuntimeError, ValueError, TypeError):
                use()
    assert np.array_equal(layer(image), layer(image.copy()))


# ---- calls inside calls ----


class Reenters:
    """An input that does something to the layer while it is being converted."""

    def __init__(self, array: Array, action: Callable[[], Any]) -> None:
        self.array, self.action, self.depth = array, action, 0

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Array:
        """Act once, then hand the array out."""
        self.depth += 1
        if self.depth == 1:
            self.action()
        return self.array


@pytest.mark.parametrize("name", LAYERS)
@in_child
def test_inputs_that_call_the_layer(name: str) -> None:
    """`__array__` calls, trains, resets, makes anew: no crash, and the layer is usable after it."""
    layer = make(name)
    reference = make(name)
    if name in CONVS:
        reference.load_state_dict(layer.state_dict())
    y = reference(image)
    gy = np.ones_like(y)
    actions: list[Callable[[], Any]] = [
        lambda: layer(image),
        lambda: layer(image[:1]),
        lambda: layer.vjp(image),
        lambda: layer.backward(gy),
        lambda: layer.eval(),
        lambda: layer.train(),
        lambda: layer.zero_grad(),
        lambda: layer.__init__(*((3, 6, 3) if name in CONVS else (3,))),
        lambda: layer.__init__(*((3, 5, 1) if name in CONVS else (1,))),
        lambda: layer.__init__(*((4, 4, 2) if name in CONVS else (2,))),
        gc.collect,
    ]
    if name in CONVS:
        actions += [
            lambda: layer.double(),
            lambda: layer.float(),
            lambda: setattr(layer, "weight", layer.weight * 2),
            lambda: setattr(layer, "weight_grad", None),
            lambda: layer.weight.__setitem__(..., 0),
        ]
    for action in actions:
        for call in (
            lambda value: layer(value),
            lambda value: layer.vjp(value),
            lambda value: layer.backward(value),
            lambda value: layer.vjp(image)[1](value),
            lambda value: setattr(layer, "weight", value),
            lambda value: setattr(layer, "bias_grad", value),
        ):
            layer.__init__(*((3, 6, 3) if name in CONVS else (3,)))
            layer(image)
            for array in (image, gy):
                with contextlib.suppress(ValueError, TypeError, RuntimeError, AttributeError):
                    call(Reenters(array, action))
    layer.__init__(*((3, 6, 3) if name in CONVS else (3,)))
    if name in CONVS:
        layer.load_state_dict(reference.state_dict())
    assert np.array_equal(layer(image), y)
    assert np.array_equal(layer.backward(gy), reference.backward(gy))


class Dying(np.ndarray):  # type: ignore[type-arg]
    """An array whose end does something."""

    action: Callable[[], Any] | None = None

    def __del__(self) -> None:
        if self.action is not None:
            self.action()


@in_child
def test_arrays_that_call_the_layer_when_they_die() -> None:
    """What is dropped while a layer changes is dropped after the change."""
    for name in LAYERS:
        layer = make(name)
        seen: list[Any] = []
        for _ in range(3):
            x = image.copy().view(Dying)
            x.action = lambda: seen.append(layer(image))
            layer(x)
            del x
        layer(image)
        layer.eval()
        layer(image)
        layer.__init__(*((3, 6, 3) if name in CONVS else (3,)))
        assert all(np.asarray(y).shape == layer.output_shape(image.shape) for y in seen)


@in_child
def test_sizes_that_call_the_layer() -> None:
    """`__index__` that makes the layer anew, inside output_shape and inside the constructor."""

    class Index:
        def __init__(self, action: Callable[[], Any], value: int) -> None:
            self.action, self.value = action, value

        def __index__(self) -> int:
            self.action()
            return self.value

    layer = pyconv.ConvTranspose2d(3, 6, 3, stride=2)

    def again() -> None:
        layer.__init__(1, 1, 1)

    with contextlib.suppress(ValueError):
        layer.output_shape((2, 3, Index(again, 8), 9))
    layer.__init__(3, 6, 3, 2)
    with contextlib.suppress(ValueError):
        layer(image, output_size=(Index(again, 18), 20))
    layer.__init__(Index(again, 3), Index(again, 6), (Index(again, 3), 3))
    assert layer(image).shape == (2, 6, 10, 11)


# ---- threads ----


@pytest.mark.parametrize("name", LAYERS)
@in_child
def test_one_layer_on_several_threads(name: str) -> None:
    """In eval mode any number of threads may call one layer; each result has the same bits."""
    layer = make(name).eval()
    inputs = [np.random.default_rng(i).standard_normal((2, 3, 20 + i, 31)) for i in range(4)]
    expected = [layer(x) for x in inputs]
    start = threading.Barrier(6)
    wrong: list[str] = []

    def work(number: int) -> None:
        start.wait()
        for step in range(60):
            i = (number + step) % 4
            with pyconv.num_threads(1 + step % 3):
                y = layer(inputs[i])
                gx = layer.vjp(inputs[i])[1](np.ones_like(y)) if name not in CONVS else None
            if not np.array_equal(y, expected[i]) or (
                gx is not None and gx.shape != inputs[i].shape
            ):
                wrong.append(f"thread {number}, step {step}")

    threads = [threading.Thread(target=work, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(100)
    assert not any(thread.is_alive() for thread in threads)
    assert not wrong


@in_child
def test_threads_that_change_one_layer() -> None:
    """Weights, dtypes, gradients, modes change while others call: any serial order, no crash."""
    sys.setswitchinterval(1e-6)
    layer = pyconv.Conv2d(3, 6, 3)
    zeros, ones = np.zeros((6, 3, 3, 3)), np.ones((6, 3, 3, 3))
    gy = ones_for(layer)
    stop = threading.Event()
    odd: list[BaseException] = []
    actions: list[Callable[[], Any]] = [
        lambda: layer(image),
        lambda: layer.backward(gy),
        lambda: layer.vjp(image)[1](gy),
        lambda: setattr(layer, "weight", zeros),
        lambda: setattr(layer, "weight", ones),
        lambda: setattr(layer, "weight_grad", None),
        lambda: layer.train(not layer.training),
        lambda: layer.double(),
        lambda: layer.float(),
        lambda: layer.__init__(3, 6, 3),
        lambda: layer.zero_grad(),
        lambda: layer.state_dict(),
    ]

    def work(action: Callable[[], Any]) -> None:
        while not stop.is_set():
            try:
                action()
            except (RuntimeError, ValueError):
                pass
            except BaseException as error:
                odd.append(error)

    threads = [threading.Thread(target=work, args=(action,)) for action in actions]
    for thread in threads:
        thread.start()
    time.sleep(1.5)
    stop.set()
    for thread in threads:
        thread.join(60)
    assert not any(thread.is_alive() for thread in threads)
    assert not odd
    layer.__init__(3, 6, 3)
    assert layer(image).shape == (2, 6, 6, 7)


# ---- fork ----


@in_child
def test_fork_after_use() -> None:
    """A child of a process whose pool has worked gets the same bits, with threads of its own."""
    x = np.random.default_rng(1).standard_normal((4, 16, 64, 64)).astype(np.float32)
    w = np.random.default_rng(2).standard_normal((32, 16, 3, 3)).astype(np.float32)
    with pyconv.num_threads(2):
        expected = F.conv2d(x, w)
        for _ in range(5):
            child = os.fork()
            if child == 0:
                code = 1
                try:
                    good = np.array_equal(F.conv2d(x, w), expected)
                    good &= F.max_pool2d(x, 2).shape == (4, 16, 32, 32)
                    code = 0 if good else 2
                finally:
                    os._exit(code)
            end = time.monotonic() + 60
            while not (found := os.waitpid(child, os.WNOHANG))[0]:
                assert time.monotonic() < end, "the forked child hangs"
                time.sleep(0.005)
            assert os.waitstatus_to_exitcode(found[1]) == 0
        assert np.array_equal(F.conv2d(x, w), expected)


@in_child
def test_the_floating_point_environment_stays() -> None:
    """np.errstate(all="raise") stays silent about our vectors, whatever their unused lanes hold."""
    x = np.full((1, 3, 5, 7), 1e-42, np.float32)
    w = np.full((2, 3, 3, 3), 1e-3, np.float32)
    with np.errstate(all="raise"):
        y = F.conv2d(x, w)
        F.conv2d_backward(y, x, w)
        F.max_pool2d(np.full((1, 1, 3, 3), np.nan, np.float32), 2)
        F.avg_pool2d(np.full((1, 1, 3, 3), np.inf, np.float32), 2)
        assert float(np.float32(1.0) + np.float32(1.0)) == 2
    assert np.float32(1e-40) * np.float32(0.5) != 0
