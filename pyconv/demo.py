"""``python -m pyconv demo``: a small convolutional network learns to read digits.

The images are the 8x8 scans of handwritten digits that scikit-learn ships (1797 images, the test
part of the UCI collection "Optical Recognition of Handwritten Digits"). Training uses pyconv alone.
"""

from __future__ import annotations

import hashlib
import math
import os
import sys
import time
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

import pyconv
from pyconv.optim import SGD

if TYPE_CHECKING:
    from pyconv._arrays import Array

BATCH = 32
LEARNING_RATE = 0.03
EPOCHS = 30
HELD_OUT = 0.25


class Digits(NamedTuple):
    """Images of mean 0 and deviation 1, their labels, and the held-out part of both."""

    images: Array
    labels: Array
    test_images: Array
    test_labels: Array


class History(NamedTuple):
    """What training leaves behind."""

    losses: list[float]  # of each step
    accuracies: list[float]  # on the held-out digits, after each epoch
    seconds: float


def load(images: Any, labels: Any, seed: int) -> Digits:
    """Split at random, by ``seed``, and normalise by the training part's mean and deviation."""
    x = np.asarray(images, np.float32).reshape(-1, 1, 8, 8)
    y = np.asarray(labels)
    order = np.random.default_rng(seed).permutation(len(x))
    held_out = round(len(x) * HELD_OUT)
    test, train = order[:held_out], order[held_out:]
    mean, deviation = x[train].mean(), x[train].std()
    x = (x - mean) / deviation
    return Digits(x[train], y[train], x[test], y[test])


def build(seed: int) -> pyconv.Sequential:
    """A network of two convolutions: 8x8 pixels, 32 maps, 32 maps of 4x4, ten scores."""
    rng = np.random.default_rng(seed)
    return pyconv.Sequential(
        pyconv.Conv2d(1, 32, 3, padding=1, rng=rng),
        pyconv.ReLU(),
        pyconv.MaxPool2d(2),
        pyconv.Conv2d(32, 32, 3, padding=1, rng=rng),
        pyconv.ReLU(),
        pyconv.Flatten(),
        pyconv.Linear(32 * 4 * 4, 10, rng=rng),
    )


def shifted(images: Array, rng: np.random.Generator) -> Array:
    """Each image moved by up to one pixel at random, so that no place is learned by heart."""
    padded = np.pad(images, ((0, 0), (0, 0), (1, 1), (1, 1)), mode="edge")
    moved = np.empty_like(images)
    for out, image, (y, x) in zip(moved, padded, rng.integers(0, 3, (len(images), 2)), strict=True):
        out[...] = image[:, y : y + 8, x : x + 8]
    return moved


def train(model: pyconv.Sequential, digits: Digits, seed: int, epochs: int, bar: Any) -> History:
    """Train ``model``; the learning rate falls from its start to 0 along half a cosine."""
    rng = np.random.default_rng(seed)
    criterion = pyconv.CrossEntropyLoss()
    optimizer = SGD(model.parameters(), lr=LEARNING_RATE, momentum=0.9, weight_decay=1e-3)
    steps = math.ceil(len(digits.images) / BATCH)
    losses: list[float] = []
    accuracies: list[float] = []
    start = time.perf_counter()
    for _ in range(epochs):
        model.train()
        order = rng.permutation(len(digits.images))
        for first in range(0, len(order), BATCH):
            batch = order[first : first + BATCH]
            done = len(losses) / (steps * epochs)
            optimizer.param_groups[0]["lr"] = LEARNING_RATE * (1 + math.cos(math.pi * done)) / 2
            optimizer.zero_grad()
            loss = criterion(model(shifted(digits.images[batch], rng)), digits.labels[batch])
            model.backward(criterion.backward(), input_grad=False)
            optimizer.step()
            losses.append(float(loss))
            bar.update()
        accuracies.append(float((predict(model, digits.test_images) == digits.test_labels).mean()))
        bar.set_postfix(loss=f"{losses[-1]:.3f}", accuracy=f"{accuracies[-1]:.2%}")
    return History(losses, accuracies, time.perf_counter() - start)


def predict(model: pyconv.Sequential, images: Array) -> Array:
    """The digit with the largest score, for each image."""
    scores: Array = model.eval()(images)
    return np.asarray(scores.argmax(1))


def weights_hash(model: pyconv.Sequential) -> str:
    """A short name for the bits of all weights."""
    digest = hashlib.sha256()
    for name, array in model.state_dict().items():
        digest.update(name.encode() + array.tobytes())
    return digest.hexdigest()[:12]


def picture(model: pyconv.Sequential, digits: Digits, history: History, path: str) -> None:
    """Save training curve, digits with predictions and the first layer's filters as an image."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 7.5), layout="constrained")
    FigureCanvasAgg(figure)
    figure.suptitle(
        f"pyconv demo: {history.accuracies[-1]:.2%} of {len(digits.test_labels)} held-out digits "
        f"read correctly after {history.seconds:.1f} s"
    )
    top, bottom = np.asarray(figure.subfigures(2, 1, height_ratios=(1, 1.1)))
    left, right = top.subfigures(1, 2, width_ratios=(1.2, 1))
    _draw_curve(left, history)
    _draw_filters(right, model[0].weight[:, 0])
    _draw_digits(bottom, digits, predict(model, digits.test_images))
    figure.savefig(path, dpi=110, format="png")


def _draw_curve(figure: Any, history: History) -> None:
    axes = figure.subplots()
    epochs = len(history.accuracies)
    steps = np.arange(1, len(history.losses) + 1) * epochs / len(history.losses)
    axes.semilogy(steps, np.maximum(history.losses, 1e-5), color="0.75", linewidth=0.8)
    means = np.array_split(np.asarray(history.losses), epochs)
    centres = np.arange(epochs) + 0.5
    axes.semilogy(centres, [m.mean() for m in means], color="tab:blue", label="training loss")
    axes.set(xlabel="epoch", title="Training", xlim=(0, epochs))
    axes.set_ylabel("cross entropy", color="tab:blue")
    twin = axes.twinx()
    errors = 100 * (1 - np.asarray(history.accuracies))
    twin.plot(np.arange(1, epochs + 1), errors, ".-", color="tab:red")
    twin.set_ylabel("held-out digits misread (%)", color="tab:red")
    twin.set_ylim(0, max(5.0, 1.1 * float(errors.min())))


def _tiles(images: Array, rows: int, columns: int, gap: int) -> tuple[Array, Array]:
    """One large image of many small ones, with gaps of NaN, and their upper left corners."""
    height, width = images.shape[1:]
    sheet = np.full((rows * (height + gap), columns * (width + 1)), np.nan, images.dtype)
    corners = []
    for i, image in enumerate(images[: rows * columns]):
        y, x = i // columns * (height + gap) + gap, i % columns * (width + 1)
        sheet[y : y + height, x : x + width] = image
        corners.append((x - 0.5, y - 0.5))
    return sheet, np.asarray(corners)


def _draw_filters(figure: Any, filters: Array) -> None:
    axes = figure.subplots()
    axes.set_axis_off()
    axes.set_title("What the first layer learned: 3x3 filters")
    limit = float(np.abs(filters).max())
    sheet, _ = _tiles(filters, math.ceil(len(filters) / 8), 8, 1)
    image = axes.imshow(sheet, cmap="RdBu_r", vmin=-limit, vmax=limit)
    figure.colorbar(image, ax=axes, shrink=0.8, label="weight")


def _draw_digits(figure: Any, digits: Digits, predictions: Array) -> None:
    """Four rows of digits; those misread come first and are marked."""
    from matplotlib.patches import Rectangle

    rows, columns = 4, 16
    wrong = predictions != digits.test_labels
    order = np.argsort(~wrong, kind="stable")[: rows * columns]
    axes = figure.subplots()
    axes.set_axis_off()
    axes.set_title(f"Held-out digits and what the network read; its {wrong.sum()} errors in red")
    sheet, corners = _tiles(digits.test_images[order, 0], rows, columns, 3)
    axes.imshow(sheet, cmap="gray_r")
    for i, (x, y) in zip(order, corners, strict=True):
        truth, guess = digits.test_labels[i], predictions[i]
        if wrong[i]:
            axes.text(x + 4, y - 0.3, f"{guess}, not {truth}", color="tab:red", **_LABEL)
            frame = Rectangle((x, y), 8, 8, fill=False, edgecolor="tab:red", linewidth=2)
            axes.add_patch(frame)
        else:
            axes.text(x + 4, y - 0.3, str(guess), **_LABEL)


_LABEL: dict[str, Any] = {"ha": "center", "va": "bottom", "fontsize": 8}


def run(seed: int = 0, epochs: int = EPOCHS, output: str = "pyconv-demo.png") -> int:
    """Train, print and save the picture; returns the exit code."""
    try:
        import matplotlib  # noqa: F401
        from sklearn.datasets import load_digits
        from tqdm import tqdm
    except ImportError as error:
        print(f'The demo needs {error.name}: pip install "pyconv[demo]"', file=sys.stderr)
        return 2
    folder = os.path.dirname(os.path.abspath(output))
    if not os.path.isdir(folder):
        print(f"There is no folder {folder} to save the picture in", file=sys.stderr)
        return 2
    data = load_digits()
    digits = load(data.images, data.target, seed)
    model = build(seed)
    count = sum(p.numel() for p in model.parameters())
    print(f"{len(digits.labels)} digits to learn from, {len(digits.test_labels)} held out")
    print(f"{count} weights, {pyconv.get_num_threads()} threads, seed {seed}")
    steps = epochs * math.ceil(len(digits.images) / BATCH)
    with tqdm(total=steps, desc="training", unit="step") as bar:
        history = train(model, digits, seed, epochs, bar)
    correct = int((predict(model, digits.test_images) == digits.test_labels).sum())
    print(
        f"accuracy {history.accuracies[-1]:.2%} ({correct} of {len(digits.test_labels)} held-out "
        f"digits) after {history.seconds:.1f} s of training"
    )
    print("The split is random, of the UCI optical digits' test part as scikit-learn ships it.")
    print(f"weights {weights_hash(model)}")
    picture(model, digits, history, output)
    print(f"saved {output}")
    return 0
