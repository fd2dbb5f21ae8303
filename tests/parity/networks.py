"""Small networks that are trained by pyconv and by torch: same weights, same digits, same order.

``build(nn, name)`` writes a network once, in the words that both libraries have, and in Residual
and Concat, which ``torch_kit`` adds. The digits are scikit-learn's; weights and order come from a
stream that NumPy has promised never to change.
"""

import math
import types
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

BATCH = 32
STEPS = {"float64": 200, "float32": 50}


def _cnn(nn: Any) -> Any:
    return nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(16, 16, 3, padding=1, bias=False),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(16 * 4 * 4, 10),
    )


def _vgg(nn: Any) -> Any:
    layers, channels = [], 1
    for width in (8, 16, 24):
        for _ in range(2):
            layers += [nn.Conv2d(channels, width, 3, padding=1), nn.LeakyReLU(0.1)]
            channels = width
        layers.append(nn.MaxPool2d(2))
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(24, 32), nn.Tanh(), nn.Linear(32, 10))


def _block(nn: Any, ic: int, oc: int, stride: int, norm: bool) -> Any:
    def normal(channels: int) -> list[Any]:
        return [nn.BatchNorm2d(channels)] if norm else []

    body = nn.Sequential(
        nn.Conv2d(ic, oc, 3, stride, 1, bias=not norm),
        *normal(oc),
        nn.ReLU(),
        nn.Conv2d(oc, oc, 3, 1, 1, bias=not norm),
        *normal(oc),
    )
    plain = stride == 1 and ic == oc
    beside = None if plain else nn.Sequential(nn.Conv2d(ic, oc, 1, stride), *normal(oc))
    return nn.Sequential(nn.Residual(body, beside), nn.ReLU())


def _resnet(nn: Any, norm: bool = False) -> Any:
    return nn.Sequential(
        nn.Conv2d(1, 8, 3, padding=1),
        nn.ReLU(),
        _block(nn, 8, 8, 1, norm),
        _block(nn, 8, 16, 2, norm),
        nn.AdaptiveAvgPool2d(1) if norm else nn.AvgPool2d(4),
        nn.Flatten(),
        nn.Linear(16, 10),
    )


def _inception(nn: Any) -> Any:
    def module(ic: int) -> Any:
        return nn.Concat(
            nn.Conv2d(ic, 4, 1),
            nn.Sequential(nn.Conv2d(ic, 4, 1), nn.ReLU(), nn.Conv2d(4, 8, 3, padding=1)),
            nn.Sequential(nn.Conv2d(ic, 2, 1), nn.ReLU(), nn.Conv2d(2, 4, 5, padding=2)),
            nn.Sequential(nn.MaxPool2d(3, 1, 1), nn.Conv2d(ic, 4, 1)),
        )

    return nn.Sequential(
        module(1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        module(20),
        nn.ReLU(),
        nn.AvgPool2d(2),
        nn.Flatten(),
        nn.Linear(80, 10),
    )


def _unet(nn: Any) -> Any:
    def two(ic: int, oc: int) -> list[Any]:
        return [
            nn.Conv2d(ic, oc, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(oc, oc, 3, padding=1),
            nn.ReLU(),
        ]

    def level(ic: int, oc: int, *below: Any) -> list[Any]:
        """Two convolutions, and beside them the same at half the size, brought back."""
        down = nn.Sequential(nn.MaxPool2d(2), *below, nn.ConvTranspose2d(2 * oc, oc, 2, 2))
        return [*two(ic, oc), nn.Concat(nn.Identity(), down), *two(2 * oc, oc)]

    return nn.Sequential(*level(1, 4, *level(4, 8, *two(8, 16))), nn.Conv2d(4, 1, 1))


def _autoencoder(nn: Any) -> Any:
    return nn.Sequential(
        nn.Conv2d(1, 8, 3, 2, 1),
        nn.ReLU(),
        nn.Conv2d(8, 4, 3, 2, 1),
        nn.Tanh(),
        nn.ConvTranspose2d(4, 8, 4, 2, 1),
        nn.ReLU(),
        nn.ConvTranspose2d(8, 1, 3, 2, 1, output_padding=1),
        nn.Sigmoid(),
    )


def _shared(nn: Any) -> Any:
    conv, act = nn.Conv2d(8, 8, 3, padding=1), nn.ReLU()
    return nn.Sequential(
        nn.Conv2d(1, 8, 3, padding=1),
        act,
        conv,
        act,
        nn.Residual(nn.Sequential(conv, act, conv)),
        act,
        nn.MaxPool2d(2),
        conv,
        nn.Flatten(),
        nn.Linear(128, 10),
    )


NETWORKS: dict[str, Callable[[Any], Any]] = {
    "cnn": _cnn,
    "vgg": _vgg,
    "resnet": _resnet,
    "inception": _inception,
    "unet": _unet,
    "autoencoder": _autoencoder,
    "shared": _shared,
    "resnet with batch norm": lambda nn: _resnet(nn, norm=True),
}
# What is learned: the digit, the image itself, or which of its pixels are bright.
LOSSES: dict[str, Callable[[Any], Any]] = {
    "autoencoder": lambda nn: nn.MSELoss(),
    "unet": lambda nn: nn.BCEWithLogitsLoss(),
    "vgg": lambda nn: nn.CrossEntropyLoss(label_smoothing=0.1),
}
OPTIMIZERS: dict[str, Callable[[Any, Any], Any]] = {
    "SGD": lambda optim, p: optim.SGD(p, lr=0.02, momentum=0.9, weight_decay=1e-4),
    "Adam": lambda optim, p: optim.Adam(p, lr=4e-3),
    "AdamW": lambda optim, p: optim.AdamW(p, lr=4e-3, amsgrad=True),
}
# Each network, each optimizer; not all pairs.
TRAININGS = [
    ("cnn", "SGD"),
    ("cnn", "Adam"),
    ("cnn", "AdamW"),
    ("vgg", "Adam"),
    ("resnet", "Adam"),
    ("inception", "AdamW"),
    ("unet", "AdamW"),
    ("autoencoder", "Adam"),
    ("shared", "SGD"),
    ("resnet with batch norm", "SGD"),
]


def build(nn: Any, name: str) -> Any:
    return NETWORKS[name](nn)


def loss(nn: Any, name: str) -> Any:
    return LOSSES.get(name, lambda nn: nn.CrossEntropyLoss())(nn)


def weights(shapes: dict[str, tuple[int, ...]]) -> dict[str, np.ndarray]:
    """First values for a state_dict: uniform, as torch's own, but of a stream that stays."""
    stream, bound, result = np.random.RandomState(7), 1.0, {}
    for name, shape in shapes.items():
        if "running" in name or "num_batches" in name:
            continue
        if len(shape) > 1:
            bound = 1 / math.sqrt(math.prod(shape[1:]))
        values = bound * (2 * stream.random_sample(shape) - 1)
        result[name] = values + (name.endswith("weight") and len(shape) == 1)
    return result


def digits() -> tuple[np.ndarray, np.ndarray]:
    """1797 images of 8x8 pixels from 0 to 1, and what they show, in an order that stays."""
    from sklearn.datasets import load_digits

    data = load_digits()
    order = np.random.RandomState(3).permutation(len(data.target))
    return data.images[order, None] / 16, data.target[order]


def batches(name: str, dtype: str, steps: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Images and targets of each step, of the first 1280 images."""
    images, labels = digits()
    for step in range(steps):
        first = step * BATCH % 1280
        x = images[first : first + BATCH].astype(dtype)
        if name == "autoencoder":
            yield x, x
        elif name == "unet":
            yield x, (x > 0.5).astype(dtype)
        else:
            yield x, labels[first : first + BATCH]


def held_out(dtype: str) -> tuple[np.ndarray, np.ndarray]:
    """The images that nobody is trained on, and what they show."""
    images, labels = digits()
    return images[1280:].astype(dtype), labels[1280:]


def train_pyconv(name: str, optimizer: str, dtype: str, steps: int) -> tuple[list[float], Any]:
    """The loss of each step, and the trained model."""
    import pyconv

    model = build(pyconv, name)
    model = model.double() if dtype == "float64" else model
    shapes = {key: value.shape for key, value in model.state_dict().items()}
    model.load_state_dict(weights(shapes), strict=False)
    criterion, rule = loss(pyconv, name), OPTIMIZERS[optimizer](pyconv.optim, model.parameters())
    losses = []
    for x, target in batches(name, dtype, steps):
        rule.zero_grad()
        losses.append(float(criterion(model(x), target)))
        model.backward(criterion.backward(), input_grad=False)
        rule.step()
    return losses, model


def accuracy(name: str, scores: np.ndarray) -> float:
    """The share of test images whose digit has the largest score; NaN if images come out."""
    if scores.ndim != 2:
        return math.nan
    return float((scores.argmax(1) == held_out("float32")[1]).mean())


def torch_kit() -> Any:
    """torch.nn with pyconv's two joins."""
    import torch
    from torch import nn

    class Residual(nn.Module):
        def __init__(self, body: Any, shortcut: Any = None) -> None:
            super().__init__()
            self.body = body
            self.shortcut = shortcut

        def forward(self, x: Any) -> Any:
            return self.body(x) + (x if self.shortcut is None else self.shortcut(x))

    class Concat(nn.Sequential):
        def forward(self, x: Any) -> Any:
            return torch.cat([branch(x) for branch in self], 1)

    return types.SimpleNamespace(**vars(nn), Residual=Residual, Concat=Concat)


def train_torch(name: str, optimizer: str, dtype: str, steps: int) -> tuple[list[float], Any]:
    """The same by torch."""
    import torch

    nn = torch_kit()
    model = build(nn, name)
    model = model.double() if dtype == "float64" else model
    shapes = {key: tuple(value.shape) for key, value in model.state_dict().items()}
    first = {key: torch.tensor(value) for key, value in weights(shapes).items()}
    model.load_state_dict(first, strict=False)
    criterion, rule = loss(nn, name), OPTIMIZERS[optimizer](torch.optim, model.parameters())
    losses = []
    for x, target in batches(name, dtype, steps):
        rule.zero_grad()
        found = criterion(model(torch.tensor(x)), torch.tensor(target))
        found.backward()
        losses.append(found.item())
        rule.step()
    return losses, model
