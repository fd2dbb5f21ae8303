"""Training epochs of three small networks, pyconv beside torch: time and memory.

    python bench/epoch.py                          # all three, 2 threads, about two minutes
    python bench/epoch.py --networks vgg --seconds 5 --threads 1

The engines take turns in one process, a step that is not timed and then steps for 50 ms: zero_grad,
forward, loss, backward, and a step of SGD with momentum, on the same images and from the same
weights, whose losses must agree. A line has the minimum and the median over the steps, as images
per second, and torch's time over pyconv's. Memory is the peak of a process that trains with one
engine alone, less what it had before the first step; where the kernel does not tell, it is left
out.

The networks: the demo's, on 8x8 digits; one in VGG's style and one in ResNet's (with batch
normalisation), on images of 3x32x32.
"""

import argparse
import json
import statistics
import subprocess
import sys
import time
import types
from collections.abc import Callable
from typing import Any

import numpy as np

import pyconv
from pyconv._bench.measure import settle

TURN = 0.05  # seconds


def demo(nn: Any) -> Any:
    """The network of `python -m pyconv demo`."""
    return nn.Sequential(
        nn.Conv2d(1, 32, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(32, 32, 3, padding=1),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(32 * 4 * 4, 10),
    )


def vgg(nn: Any) -> Any:
    """Six convolutions, three pools, two linear layers."""
    layers, channels = [], 3
    for width in (32, 64, 128):
        for _ in range(2):
            layers += [nn.Conv2d(channels, width, 3, padding=1), nn.ReLU()]
            channels = width
        layers.append(nn.MaxPool2d(2))
    return nn.Sequential(
        *layers, nn.Flatten(), nn.Linear(128 * 16, 128), nn.ReLU(), nn.Linear(128, 10)
    )


def resnet(nn: Any) -> Any:
    """Three residual blocks behind a convolution, normalised."""

    def unit(ic: int, oc: int, kernel: int, stride: int) -> list[Any]:
        conv = nn.Conv2d(ic, oc, kernel, stride, kernel // 2, bias=False)
        return [conv, nn.BatchNorm2d(oc)]

    def block(ic: int, oc: int, stride: int) -> list[Any]:
        body = nn.Sequential(*unit(ic, oc, 3, stride), nn.ReLU(), *unit(oc, oc, 3, 1))
        beside = None if stride == 1 and ic == oc else nn.Sequential(*unit(ic, oc, 1, stride))
        return [nn.Residual(body, beside), nn.ReLU()]

    return nn.Sequential(
        *unit(3, 16, 3, 1),
        nn.ReLU(),
        *block(16, 16, 1),
        *block(16, 32, 2),
        *block(32, 64, 2),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(64, 10),
    )


NETWORKS: dict[str, tuple[Callable[[Any], Any], tuple[int, ...]]] = {
    "demo": (demo, (1, 8, 8)),
    "vgg": (vgg, (3, 32, 32)),
    "resnet": (resnet, (3, 32, 32)),
}


def batch(name: str, size: int) -> tuple[Any, Any]:
    """Images and labels; what they show does not matter for the time."""
    rng = np.random.default_rng(0)
    images = rng.standard_normal((size, *NETWORKS[name][1]), dtype=np.float32)
    return images, rng.integers(0, 10, size)


def pyconv_step(name: str, size: int, state: dict[str, Any] | None) -> tuple[Any, Any]:
    """A function that trains one step and returns the loss, and the first weights."""
    model = NETWORKS[name][0](pyconv)
    if state is not None:
        model.load_state_dict(state)
    criterion = pyconv.CrossEntropyLoss()
    optimizer = pyconv.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)
    images, labels = batch(name, size)
    first = {key: value.copy() for key, value in model.state_dict().items()}

    def step() -> float:
        optimizer.zero_grad()
        loss = criterion(model(images), labels)
        model.backward(criterion.backward(), input_grad=False)
        optimizer.step()
        return float(loss)

    return step, first


def torch_step(name: str, size: int, state: dict[str, Any] | None) -> tuple[Any, Any]:
    """The same by torch."""
    import torch

    class Residual(torch.nn.Module):
        def __init__(self, body: Any, shortcut: Any) -> None:
            super().__init__()
            self.body = body
            self.shortcut = shortcut

        def forward(self, x: Any) -> Any:
            return self.body(x) + (x if self.shortcut is None else self.shortcut(x))

    model = NETWORKS[name][0](types.SimpleNamespace(**vars(torch.nn), Residual=Residual))
    if state is not None:
        model.load_state_dict({key: torch.from_numpy(value) for key, value in state.items()})
    criterion = torch.nn.CrossEntropyLoss()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)
    images, labels = (torch.from_numpy(array) for array in batch(name, size))

    def step() -> float:
        optimizer.zero_grad()
        loss = criterion(model(images), labels)
        loss.backward()
        optimizer.step()
        return float(loss.item())

    return step, None


STEPS = {"pyconv": pyconv_step, "torch": torch_step}


def set_threads(engine: str, threads: int) -> None:
    if engine == "pyconv":
        pyconv.set_num_threads(threads)
    else:
        import torch

        torch.set_num_threads(threads)


def resident(field: str) -> int | None:
    """VmRSS (now) or VmHWM (the peak) of this process in bytes; Linux alone tells."""
    try:
        with open("/proc/self/status", encoding="ascii") as file:
            lines = dict(line.split(":", 1) for line in file)
    except OSError:
        return None
    return int(lines[field].split()[0]) * 1024


def peak_memory(engine: str, name: str, size: int, threads: int) -> None:
    """Print what five steps take at their peak; in a process of its own."""
    set_threads(engine, threads)
    tiny, _ = STEPS[engine](name, 2, None)
    tiny()  # libraries, threads and their stacks are there from now on
    step, _ = STEPS[engine](name, size, None)
    before = resident("VmRSS")
    for _ in range(5):
        step()
    after = resident("VmHWM")
    print(json.dumps(None if before is None or after is None else after - before))


def measure(name: str, options: argparse.Namespace) -> None:
    """One network: train in turns, and print a line for each engine."""
    for engine in STEPS:
        set_threads(engine, options.threads)
    ours, state = pyconv_step(name, options.batch, None)
    theirs, _ = torch_step(name, options.batch, state)
    steps = {"pyconv": ours, "torch": theirs}
    losses: dict[str, list[float]] = {engine: [] for engine in steps}
    times: dict[str, list[float]] = {engine: [] for engine in steps}
    for engine, step in steps.items():  # the first step makes arrays and threads
        losses[engine].append(step())
    end = time.perf_counter() + options.seconds
    while time.perf_counter() < end or len(times["torch"]) < 3:
        for engine, step in steps.items():
            settle()
            losses[engine].append(step())  # the other engine's data leave the caches
            turn = time.perf_counter() + TURN
            while True:
                start = time.perf_counter()
                losses[engine].append(step())
                times[engine].append(time.perf_counter() - start)
                if time.perf_counter() > turn:
                    break
    both = min(10, *map(len, losses.values()))
    np.testing.assert_allclose(losses["pyconv"][:both], losses["torch"][:both], rtol=1e-2)
    memory = {}
    for engine in steps:
        command = [sys.executable, __file__, "--memory", engine, "--networks", name]
        command += ["--batch", str(options.batch), "--threads", str(options.threads)]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        memory[engine] = json.loads(done.stdout)
    for engine in steps:
        least, middle = min(times[engine]), statistics.median(times[engine])
        rate = f"{options.batch / least:9,.0f} {options.batch / middle:9,.0f} images/s"
        room = memory[engine]
        room_text = "" if room is None else f"   {room / 2**20:7.1f} MB"
        print(f"{name:8} {engine:8} {rate} (best, median of {len(times[engine])}){room_text}")
    best = min(times["torch"]) / min(times["pyconv"])
    median = statistics.median(times["torch"]) / statistics.median(times["pyconv"])
    print(f"{name:8} pyconv is {best:.2f} times as fast as torch (medians: {median:.2f})\n")


def main() -> int:
    """Parse the options and run."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--networks", default=",".join(NETWORKS), help="some of %(default)s")
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seconds", type=float, default=20.0, help="for each network")
    parser.add_argument("--memory", choices=list(STEPS), help=argparse.SUPPRESS)
    options = parser.parse_args()
    names = options.networks.split(",")
    if unknown := set(names) - set(NETWORKS):
        parser.error(f"unknown networks: {sorted(unknown)}")
    if options.memory:
        peak_memory(options.memory, names[0], options.batch, options.threads)
        return 0
    print(f"batches of {options.batch}, {options.threads} threads, float32")
    for name in names:
        measure(name, options)
    return 0


if __name__ == "__main__":
    sys.exit(main())
