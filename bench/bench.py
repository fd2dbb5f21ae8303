"""pyconv beside torch on the layers of real networks, in one process, interleaved.

    python bench/bench.py --networks resnet50_v1.5,dcgan --threads 1
    python bench/bench.py --floor 0.25          # exit status 1 when a row is slower than that

Each row is (layer, pass, batch). Both engines get the same float32 data and the same number of
threads, take turns for several rounds, and make a fresh output each time; the row shows the minimum
and the median of each, and the ratio torch / pyconv of the minima (above 1, pyconv is faster). Each
result is compared with torch's in float64 before it is timed: a wrong row counts as a loss. torch
runs in its default layout (NCHW), in inference mode forward, and computes in backward only the
gradient that the row is about.

A machine that others use as well makes single times worthless; the ratio of interleaved minima is
what to look at, and runs of the same machine are what to compare.
"""

import argparse
import csv
import math
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

import pyconv
import pyconv.functional as F

SHAPES = Path(__file__).with_name("shapes.csv")
DEFAULT = "resnet50_v1.5,unet64_pad,dcgan"
SETTLE = 0.003  # seconds between the engines, for the other one's threads to stop spinning
# A sum of n products in float32 is off by about sqrt(n) units; ten times that is no rounding error.
UNIT = 2.0**-24

Run = Callable[[], Any]


class Row(NamedTuple):
    """One pass of one layer: how each engine runs it, and what the result must be."""

    name: str
    depth: int  # products or values summed per result
    pyconv: Run
    torch: Run
    exact: Run  # torch in float64


def layers(networks: set[str]) -> Iterator[dict[str, str]]:
    """The rows of shapes.csv that belong to the networks."""
    with SHAPES.open() as file:
        for layer in csv.DictReader(file):
            if not networks or layer["network"] in networks:
                yield layer


def conv_rows(layer: dict[str, str], n: int, rng: np.random.Generator) -> Iterator[Row]:
    """Forward, input gradient and weight gradient of a convolution or a transposed one."""
    v = {name: int(number) for name, number in layer.items() if number.isdecimal()}
    transposed = layer["op"] == "deconv"
    stride, padding, dilation = (v["sh"], v["sw"]), (v["ph"], v["pw"]), (v["dh"], v["dw"])
    extra = (v["oph"], v["opw"])
    shape = (v["C"], v["K"]) if transposed else (v["K"], v["C"])
    x = rng.standard_normal((n, v["C"], v["H"], v["W"]), np.float32)
    w = rng.standard_normal((shape[0], shape[1] // v["groups"], v["kh"], v["kw"]), np.float32)
    g = rng.standard_normal((n, v["K"], v["OH"], v["OW"]), np.float32)
    tx, tw, tg = map(torch.from_numpy, (x, w, g))
    options = (stride, padding, dilation, transposed, extra, v["groups"])
    kwargs: dict[str, Any] = dict(
        stride=stride, padding=padding, dilation=dilation, groups=v["groups"]
    )
    if transposed:
        kwargs["output_padding"] = extra

    def forward() -> Any:
        return (F.conv_transpose2d if transposed else F.conv2d)(x, w, None, **kwargs)

    def backward(mask: tuple[bool, bool, bool]) -> Run:
        function = F.conv_transpose2d_backward if transposed else F.conv2d_backward
        return lambda: function(g, x, w, output_mask=mask, **kwargs)[mask.index(True)]

    def torch_forward(a: Any, b: Any) -> Run:
        def run() -> Any:
            with torch.inference_mode():
                return torch.convolution(a, b, None, *options)

        return run

    def torch_backward(mask: tuple[bool, bool, bool], *tensors: Any) -> Run:
        function = torch.ops.aten.convolution_backward
        return lambda: function(*tensors, None, *options, list(mask))[mask.index(True)]

    per_group = v["kh"] * v["kw"] // (v["sh"] * v["sw"] if transposed else 1)
    depth = max(1, per_group * v["C"] // v["groups"])
    passes = layer["passes"].split(";")
    double = (tg.double(), tx.double(), tw.double())
    if "fwd" in passes:
        yield Row("fwd", depth, forward, torch_forward(tx, tw), torch_forward(*double[1:]))
    for name, mask in (
        ("bwd_data", (True, False, False)),
        ("bwd_weights", (False, True, False)),
    ):
        if name in passes:
            products = v["kh"] * v["kw"] * v["K"] if mask[0] else n * v["OH"] * v["OW"]
            yield Row(
                name,
                products,
                backward(mask),
                torch_backward(mask, tg, tx, tw),
                torch_backward(mask, *double),
            )


def pool_rows(layer: dict[str, str], n: int, rng: np.random.Generator) -> Iterator[Row]:
    """Values, values with indices, and the gradient of a pool."""
    v = {name: int(number) for name, number in layer.items() if number.isdecimal()}
    kernel, stride, padding = (v["kh"], v["kw"]), (v["sh"], v["sw"]), (v["ph"], v["pw"])
    x = rng.standard_normal((n, v["C"], v["H"], v["W"]), np.float32)
    tx = torch.from_numpy(x)
    aten = torch.ops.aten
    if layer["op"] == "maxpool":
        y, index = F.max_pool2d(x, kernel, stride, padding, return_indices=True)
        g = rng.standard_normal(y.shape, np.float32)
        tg, ti = torch.from_numpy(g), torch.from_numpy(index)
        values = torch.nn.functional.max_pool2d
        yield Row(
            "fwd",
            1,
            lambda: F.max_pool2d(x, kernel, stride, padding),
            lambda: values(tx, kernel, stride, padding),
            lambda: values(tx.double(), kernel, stride, padding),
        )
        yield Row(
            "fwd_indices",
            1,
            lambda: F.max_pool2d(x, kernel, stride, padding, return_indices=True)[1],
            lambda: aten.max_pool2d_with_indices(tx, kernel, stride, padding)[1],
            lambda: aten.max_pool2d_with_indices(tx.double(), kernel, stride, padding)[1],
        )
        options = (kernel, stride, padding, [1, 1], False, ti)
        function = aten.max_pool2d_with_indices_backward
        yield Row(
            "bwd",
            v["kh"] * v["kw"],
            lambda: F.max_pool2d_backward(g, index, x.shape),
            lambda: function(tg, tx, *options),
            lambda: function(tg.double(), tx.double(), *options),
        )
        return
    g = rng.standard_normal((n, v["C"], v["OH"], v["OW"]), np.float32)
    tg = torch.from_numpy(g)
    yield Row(
        "fwd",
        v["kh"] * v["kw"],
        lambda: F.avg_pool2d(x, kernel, stride, padding),
        lambda: aten.avg_pool2d(tx, kernel, stride, padding),
        lambda: aten.avg_pool2d(tx.double(), kernel, stride, padding),
    )
    options = (kernel, stride, padding, False, True, None)
    yield Row(
        "bwd",
        v["kh"] * v["kw"],
        lambda: F.avg_pool2d_backward(g, x.shape, kernel, stride, padding),
        lambda: aten.avg_pool2d_backward(tg, tx, *options),
        lambda: aten.avg_pool2d_backward(tg.double(), tx.double(), *options),
    )


def agrees(row: Row) -> bool:
    """pyconv's float32 result against torch's float64 one."""
    exact = row.exact().numpy()
    got = row.pyconv()
    if exact.shape != got.shape:
        return False
    error = np.abs(got.astype(np.float64) - exact).max(initial=0.0)
    bound = 10 * math.sqrt(row.depth) * UNIT * np.abs(exact).max(initial=1.0)
    return bool(error <= bound)


def measure(run: Run) -> float:
    """Seconds of one call."""
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def timed(row: Row, seconds: float) -> tuple[list[float], list[float]]:
    """Times of both engines, taken in turns: at least five rounds, more for short calls."""
    measure(row.pyconv)
    once = measure(row.pyconv) + measure(row.torch)
    burst = max(1, min(50, int(0.002 / max(once, 1e-6))))
    rounds = max(5, min(40, int(seconds / max(burst * once, 1e-6))))
    times: tuple[list[float], list[float]] = ([], [])
    for _ in range(rounds):
        for run, kept in zip((row.pyconv, row.torch), times, strict=True):
            time.sleep(SETTLE)
            run()
            kept.extend(measure(run) for _ in range(burst))
    return times


def main() -> int:
    """Print a line for each row, then the summary."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--networks", default=DEFAULT, help="comma-separated, or 'all'")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--batch", default="1", help="'1', or 'all' that shapes.csv lists")
    parser.add_argument("--seconds", type=float, default=0.3, help="of measuring a row")
    parser.add_argument("--floor", type=float, help="fail when a row's ratio is below")
    args = parser.parse_args()

    torch.set_num_threads(args.threads)
    pyconv.set_num_threads(args.threads)
    networks = set() if args.networks == "all" else set(args.networks.split(","))
    rng = np.random.default_rng(0)
    ratios: dict[str, float] = {}
    print(f"pyconv {pyconv.__version__}, torch {torch.__version__}, {args.threads} thread(s)")
    print(f"{'':>48} {'pyconv ms':>17} {'torch ms':>17}  torch/pyconv")
    for layer in layers(networks):
        for n in map(int, layer["batches"].split(";") if args.batch == "all" else "1"):
            make = conv_rows if layer["op"] in ("conv", "deconv") else pool_rows
            for row in make(layer, n, rng):
                name = f"{layer['network']} {layer['layer']} {row.name} n={n}"
                if not agrees(row):
                    ratios[name] = 0.0
                    print(f"{name:48} WRONG", flush=True)
                    continue
                ours, theirs = timed(row, args.seconds)
                ratios[name] = min(theirs) / min(ours)
                shown = " ".join(
                    f"{1e3 * min(times):8.3f} {1e3 * statistics.median(times):8.3f}"
                    for times in (ours, theirs)
                )
                print(f"{name:48} {shown}  {ratios[name]:6.2f}", flush=True)
    if not ratios:
        print(f"no such network: {args.networks}", file=sys.stderr)
        return 2
    right = [r for r in ratios.values() if r > 0]
    mean = math.exp(sum(map(math.log, right)) / len(right)) if right else 0.0
    wrong = len(ratios) - len(right)
    print(f"{len(ratios)} rows, {wrong} wrong, geometric mean {mean:.2f}; the slowest:")
    for name in sorted(ratios, key=ratios.__getitem__)[:10]:
        print(f"  {ratios[name]:6.2f}  {name}")
    return int(args.floor is not None and min(ratios.values()) < args.floor)


if __name__ == "__main__":
    sys.exit(main())
