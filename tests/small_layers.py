"""One small layer of each kind, an image for them, and checks of errors and of what they leave."""

import copy
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import pyconv

Array = np.ndarray[Any, np.dtype[Any]]

CONVS = ["Conv2d", "ConvTranspose2d"]
POOLS = ["MaxPool2d", "AvgPool2d"]
AROUND = ["BatchNorm2d", "ReLU", "AdaptiveAvgPool2d"]
WINDOWS = CONVS + POOLS
LAYERS = WINDOWS + AROUND

image = np.arange(2 * 3 * 8 * 9, dtype=np.float32).reshape(2, 3, 8, 9) % 7


def make(name: str, **changes: Any) -> Any:
    """Return a layer that takes `image`."""
    defaults: dict[str, Any] = {"kernel_size": 3}
    if name in AROUND:
        own = {"BatchNorm2d": {"num_features": 3}, "AdaptiveAvgPool2d": {"output_size": 3}}
        defaults = own.get(name, {})
    if name in CONVS:
        defaults |= {"in_channels": 3, "out_channels": 6}
    return getattr(pyconv, name)(**{**defaults, **changes})


def fails(error: Any, call: Callable[[], Any], *words: str) -> None:
    """Demand an error of exactly that class (or one of several), whose message holds the words."""
    with pytest.raises(error) as caught:
        call()
    assert type(caught.value) in (error if isinstance(error, tuple) else (error,))
    text = str(caught.value)
    for word in words:
        assert word in text, f"{word!r} is not in {text!r}"


def snapshot(layer: Any) -> dict[str, Any]:
    """Return copies of all that a layer shows, and what a backward of its saved state gives."""
    names = ("weight", "bias", "weight_grad", "bias_grad")
    state = {name: copy.copy(getattr(layer, name, None)) for name in names}
    state["objects"] = [id(getattr(layer, name, None)) for name in names]
    state["training"] = layer.training
    state["repr"] = repr(layer)
    return state


def unchanged(layer: Any, before: dict[str, Any]) -> None:
    """Demand that nothing of a layer has changed."""
    now = snapshot(layer)
    for key, value in before.items():
        if isinstance(value, np.ndarray):
            assert np.array_equal(now[key], value), key
        else:
            assert now[key] == value or now[key] is value, key
