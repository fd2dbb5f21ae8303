"""Calls leave nothing behind: no references, no memory, no cycles, whether they succeed or fail.

Error paths leak most, so they are walked as often as the others.
"""

import contextlib
import ctypes
import gc
import os
import sys
import weakref
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from guarded import in_child
from small_layers import CONVS, LAYERS, image, make

import pyconv
import pyconv.functional as F


def valid_calls(layers: list[Any]) -> None:
    """Call everything once, rightly."""
    for layer in layers:
        y = layer(image)
        layer.backward(np.ones_like(y))
        one = slice(1) if isinstance(layer, pyconv.BatchNorm2d) else 0  # that wants a batch
        _, pullback = layer.vjp(image[one])
        pullback(np.ones_like(y[one]), False)
        layer(image.tolist())
        layer.zero_grad()
        layer.output_shape(image.shape)
    values, indices = F.max_pool2d(image, 2, return_indices=True)
    F.max_pool2d_backward(values, indices, image.shape)
    F.conv2d(image.astype(np.uint8)[..., ::-1], np.ones((6, 3, 3, 3)), np.ones(6), padding="same")
    F.avg_pool2d_backward(image, (2, 3, 16, 18), 2)


def wrong_calls(layers: list[Any]) -> None:
    """Call everything wrongly, in many ways."""
    nan = np.ones((6, 3, 3, 3), complex)
    calls: list[Callable[[], Any]] = [
        lambda: pyconv.Conv2d(3, 6, (1, 2, 3)),
        lambda: pyconv.Conv2d(3, 6, 3, padding=((1, 2), (3, "a"))),
        lambda: pyconv.Conv2d(3, 6, 3, dtype=int),
        lambda: pyconv.Conv2d(3, 6, 3, padding="same", stride=[2, 2]),
        lambda: pyconv.Conv2d(2**40, 2**40, 3),
        lambda: pyconv.ConvTranspose2d(3, 6, 3, output_padding=[5, 5]),
        lambda: pyconv.MaxPool2d([3, 3], [2, 2], [5, 5]),
        lambda: pyconv.AvgPool2d((3, 3), (2, 2), divisor_override=0),
        lambda: F.conv2d(image, nan),
        lambda: F.conv2d(image, np.ones((6, 3, 3, 3)), np.ones(5)),
        lambda: F.conv2d(image, np.ones((6, 2, 3, 3))),
        lambda: F.conv2d_backward(image, image, np.ones((6, 3, 3, 3))),
        lambda: F.max_pool2d_backward(image, np.full(image.shape, 10**6), image.shape),
        lambda: F.max_pool2d_backward(image, image, image.shape),
        lambda: F.avg_pool2d(image, 2, 2, 2),
    ]
    for layer in layers:
        calls += [
            lambda layer=layer: layer(image[0, 0]),
            lambda layer=layer: layer([[[1.0]]]),
            lambda layer=layer: layer(None),
            lambda layer=layer: layer(image.astype(object)),
            lambda layer=layer: layer.vjp(image, image, image),
            lambda layer=layer: layer.backward(image[:, :, :1]),
            lambda layer=layer: layer.vjp(image)[1](image[..., :1]),
            lambda layer=layer: layer.output_shape((1, 2, "3", 4)),
            lambda layer=layer: setattr(layer, "weight", nan),
            lambda layer=layer: setattr(layer, "weight_grad", np.ones(3)),
            lambda layer=layer: layer.load_state_dict({"weight": np.ones(3)}),
            lambda layer=layer: layer.__init__(3, 6, 0),
        ]
    for call in calls:
        with contextlib.suppress(Exception):
            call()


def clean() -> None:
    """Collect garbage, and empty the cache of attributes, which keeps the names looked up in C."""
    gc.collect()
    ctypes.pythonapi.PyType_ClearCache()


@pytest.mark.parametrize("kind", ["valid", "wrong"])
@in_child
def test_nothing_is_left_behind(kind: str) -> None:
    """A thousand rounds of calls: no more blocks of memory and references than before.

    What the interpreter itself keeps grows now and then. A leak grows in every part of the run.
    """
    calls = {"valid": valid_calls, "wrong": wrong_calls}[kind]
    layers = [make(name) for name in LAYERS]
    watched = [image, *(getattr(layers[0], name) for name in ("weight", "bias")), None, np.float32]
    rounds = 1000 if kind == "valid" else 250  # of more than sixty calls each
    for _ in range(100):
        calls(layers)
    clean()
    references = [sys.getrefcount(each) for each in watched]
    grown = []
    for _ in range(5):
        blocks = sys.getallocatedblocks()
        for _ in range(rounds // 5):
            calls(layers)
        clean()
        grown.append(sys.getallocatedblocks() - blocks)
    assert min(grown) < 5, f"blocks more in each fifth of {rounds} rounds: {grown}"
    for each, before in zip(watched, references, strict=True):
        assert abs(sys.getrefcount(each) - before) < 5


@in_child
def test_memory_of_arrays_is_given_back() -> None:
    """Large results, saved inputs, pullbacks and interrupted or refused calls: no growth."""

    def resident() -> int:
        with open("/proc/self/statm", encoding="ascii") as statm:
            return int(statm.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")

    layer = pyconv.Conv2d(3, 6, 3, padding=1)
    x = np.ones((4, 3, 256, 256), np.float32)

    def calls() -> None:
        y, pullback = layer.vjp(x)
        pullback(y)
        layer(x)
        with contextlib.suppress(ValueError):
            layer.backward(y[:1])
        layer.backward(y)

    for _ in range(3):
        calls()
    before = resident()
    for _ in range(30):
        calls()
    assert resident() - before < 10 * x.nbytes


@in_child
def test_cycles_are_collected() -> None:
    """A layer that holds itself, through an attribute or through what it saved, is freed."""
    for name in LAYERS:
        layer = make(name)
        layer.itself = layer
        layer.call = layer.__call__
        _, layer.pullback = layer.vjp(image)
        layer(image)
        gone = weakref.ref(layer)
        del layer
        gc.collect()
        assert gone() is None, name


@in_child
def test_the_saved_input_is_let_go() -> None:
    """A forward in eval mode, a new forward, and the layer's end let go of the saved input."""
    for name in CONVS:
        for end in ("eval", "next", "del", "init"):
            layer = make(name)
            x = image.copy()
            before = sys.getrefcount(x)
            layer(x)
            assert sys.getrefcount(x) > before
            if end == "eval":
                layer.eval()(image)
            elif end == "next":
                layer(image)
            elif end == "init":
                layer.__init__(3, 6, 3)
            else:
                del layer
                gc.collect()
            assert sys.getrefcount(x) == before, (name, end)
