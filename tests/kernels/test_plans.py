"""What explain_plan says is what runs: kernels, tiles, bands, threads and memory of each family.

A layer of a copy of the extension that counts is asked for its plan, and then run.
"""

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
import pytest
from kernels import library as lib
from kernels.counting import Counted, Ran, load_counted

import pyconv
from pyconv import _core, _plan

Array = np.ndarray[Any, np.dtype[Any]]

# Copies that a family may make on the way; every other kernel does arithmetic.
COPIES = {
    "dense tile": {"pack_scalars", "copy_rows", "transpose", "join_rows"},
    "weight tile": {"copy_rows", "transpose"},
    "pixel": {"copy_rows"},
    "rows": {"split_rows", "join_rows", "add_pairs"},
    "planes": set(),
    "whole planes": set(),
    "scatter": set(),
}
RUN_ON, ROWS = "rows run on", "row by row"
SCALARS, VECTORS = ("pixel", "weights as scalars"), ("pixel", "weights as vectors")
INPUT = ("pixel", "input as vectors")
DTYPES = ["float32", "float64"]


class Case(NamedTuple):
    """A layer, an input, and the family and form that each pass is meant to reach; None: any."""

    kind: str
    arguments: tuple[Any, ...]
    options: dict[str, Any]
    shape: tuple[int, ...]
    forward: tuple[str, str] | None
    backward_input: tuple[str, str] | None
    backward_weight: tuple[str, str] | None = None


def dense(form: str) -> tuple[str, str]:
    """The dense tile in one of its forms."""
    return "dense tile", form


def weight(form: str) -> tuple[str, str]:
    """The weight tile in one of its forms."""
    return "weight tile", form


DEPTHWISE = {"padding": 1, "groups": 32}
BY_ROWS, JOINED = ("rows", ""), ("rows", "phases joined")
IN_PLACE = ("rows", "in place")
WALKS = lib.has_kernel(_core.build_info()["isa"], "conv_walk")  # usual windows, on this machine

CASES = {
    "many-rows-run-on": Case(
        *("Conv2d", (64, 64, 3), {"padding": 1}, (2, 64, 20, 21)),
        *(dense(RUN_ON), dense(RUN_ON), weight("input packed")),
    ),
    "rows-in-place": Case(
        *("Conv2d", (8, 8, 3), {"padding": 1}, (1, 8, 40, 64)),
        *(dense(ROWS), dense(ROWS), weight("input packed")),
    ),
    "rows-run-on": Case(
        *("Conv2d", (12, 12, 3), {"padding": 1}, (2, 12, 61, 9)),
        *(dense(RUN_ON), dense(RUN_ON), weight("input packed")),
    ),
    "endless": Case(  # narrow bands of a row that is longer than the slab
        *("Conv1d", (4, 8, 5), {}, (1, 4, 100_000)),
        *(dense(ROWS), dense(ROWS), weight("input packed")),
    ),
    "pointwise": Case(
        *("Conv2d", (96, 80, 1), {}, (2, 96, 9, 11)),
        *(dense(RUN_ON), dense(RUN_ON), weight("input in place")),
    ),
    "pointwise-turned": Case(
        *("Conv2d", (64, 96, 1), {}, (1, 64, 24, 24)),
        *(dense(RUN_ON), dense(RUN_ON), weight("input in place, turned")),
    ),
    "samples": Case(  # several in one slab
        *("Conv2d", (64, 64, 3), {"padding": 1}, (5, 64, 5, 5)),
        *(dense(RUN_ON), dense(RUN_ON), weight("input packed")),
    ),
    "few-samples": Case(
        *("Conv2d", (9, 10, 3), {"padding": 1}, (5, 9, 5, 5)),
        *(dense(RUN_ON), dense(RUN_ON), weight("input packed")),
    ),
    "exact": Case(  # a small map under a large window: each pixel is a band
        *("ConvTranspose2d", (64, 64, 4), {}, (6, 64, 2, 2)),
        *(dense(RUN_ON), dense(RUN_ON), weight("input packed")),
    ),
    "phases": Case(  # a strided gradient, its phases through a panel
        *("Conv2d", (32, 64, 3), {"stride": 2, "padding": 1}, (2, 32, 21, 25)),
        *(dense(RUN_ON), None, weight("input packed")),
    ),
    "transposed": Case(
        *("ConvTranspose2d", (64, 32, 4), {"stride": 2, "padding": 1}, (1, 64, 48, 48)),
        *(dense(ROWS), dense(ROWS), weight("input packed")),
    ),
    "tiled": Case(  # windows that tile the output: its pixels are rows of a 1x1 convolution
        *("ConvTranspose2d", (24, 20, 2), {"stride": 2}, (3, 24, 13, 15)),
        *(dense(RUN_ON), None, weight("input packed")),
    ),
    "unreached": Case(  # a stride that jumps over pixels
        *("Conv2d", (16, 24, 1), {"stride": 2}, (2, 16, 17, 19)),
        *(dense(RUN_ON), dense(RUN_ON), None),
    ),
    "pixel": Case(  # one of output a sample, and a vector of them that is not full
        *("Conv2d", (70, 37, 1), {}, (3, 70, 1, 1)),
        *(SCALARS, VECTORS, None),
    ),
    "pixel-window": Case(
        *("ConvTranspose2d", (300, 40, 4), {}, (1, 300, 1, 1)),
        *(VECTORS, SCALARS, INPUT),
    ),
    "pixel-batch": Case(  # so many samples that weights are better packed, backward
        *("Conv2d", (300, 70, 3), {}, (70, 300, 3, 3)),
        *(SCALARS, dense(RUN_ON), weight("input packed")),
    ),
    "pixel-samples": Case(  # threads share them
        *("Conv2d", (600, 20, 3), {}, (70, 600, 3, 3)),
        *(SCALARS, VECTORS, INPUT),
    ),
    "pixel-few": Case(  # of input: a vector would not be full
        *("Conv2d", (1, 20, 1), {}, (2, 1, 1, 1)),
        *(SCALARS, dense(RUN_ON), weight("input in place")),
    ),
    "exact-rows": Case(  # bands that leave out the taps of rows in padding
        *("Conv2d", (32, 48, 3), {"padding": (12, 1), "dilation": (12, 1)}, (1, 32, 59, 21)),
        *(dense(RUN_ON), dense(RUN_ON), weight("input packed")),
    ),
    "exact-columns": Case(  # and of columns, whose outputs run on
        *("Conv2d", (96, 80, 3), {"padding": 16, "dilation": 16}, (1, 96, 33, 31)),
        *(dense(RUN_ON), dense(RUN_ON), weight("input packed")),
    ),
    "wide-padding": Case(
        *("Conv2d", (64, 64, 3), {"padding": 6, "dilation": 6}, (1, 64, 14, 14)),
        *(dense(RUN_ON), dense(RUN_ON), weight("input packed")),
    ),
    "reflected": Case(
        *("Conv2d", (16, 24, 3), {"padding": 1, "padding_mode": "reflect"}, (2, 16, 15, 17)),
        *(None, None, weight("input packed")),
    ),
    "grouped": Case(
        *("Conv2d", (48, 48, 3), {"padding": 1, "groups": 2}, (2, 48, 14, 15)),
        *(None, None, weight("input packed")),
    ),
    "few-channels": Case(
        *("Conv2d", (16, 16, 3), {"padding": 1, "groups": 4}, (2, 16, 14, 15)),
        *(BY_ROWS, BY_ROWS, IN_PLACE),
    ),
    "few-channels-large": Case(  # worth what dense_tile packs
        *("Conv2d", (16, 16, 3), {"padding": 1, "groups": 4}, (2, 16, 57, 59)),
        *(dense(ROWS), dense(ROWS), IN_PLACE),
    ),
    "depthwise-planes": Case(
        *("Conv2d", (32, 32, 3), DEPTHWISE, (2, 32, 7, 7)),
        *(("planes", "in place"), ("planes", "in place"), IN_PLACE),
    ),
    "depthwise": Case(
        *("Conv2d", (32, 32, 3), DEPTHWISE, (2, 32, 28, 29)),
        *(IN_PLACE if WALKS else BY_ROWS, IN_PLACE if WALKS else BY_ROWS, IN_PLACE),
    ),
    "depthwise-dilated": Case(
        *("Conv2d", (32, 32, 3), {**DEPTHWISE, "dilation": 2}, (2, 32, 28, 29)),
        *(BY_ROWS, BY_ROWS, IN_PLACE),
    ),
    "depthwise-bands": Case(
        *("Conv2d", (32, 32, 3), {**DEPTHWISE, "dilation": 2}, (1, 32, 112, 113)),
        *(BY_ROWS, BY_ROWS, IN_PLACE),
    ),
    "depthwise-large": Case(
        *("Conv2d", (32, 32, 5), DEPTHWISE, (1, 32, 112, 113)),
        *(IN_PLACE if WALKS else BY_ROWS, IN_PLACE if WALKS else BY_ROWS, IN_PLACE),
    ),
    "depthwise-strided": Case(
        *("Conv2d", (32, 32, 3), {**DEPTHWISE, "stride": 2}, (2, 32, 28, 29)),
        *(IN_PLACE if WALKS else BY_ROWS, IN_PLACE if WALKS else JOINED, IN_PLACE),
    ),
    "depthwise-phases": Case(
        *("Conv2d", (32, 32, 3), {**DEPTHWISE, "stride": 3}, (2, 32, 28, 29)),
        *(BY_ROWS, JOINED, ("rows", "phases first")),
    ),
    "max-pool": Case("MaxPool2d", (3, 2, 1), {}, (2, 8, 41, 43), IN_PLACE, ("scatter", "")),
    "max-pool-large": Case("MaxPool2d", (3,), {}, (1, 2, 600, 700), IN_PLACE, ("scatter", "")),
    "pairs": Case(
        *("MaxPool2d", (2,), {}, (2, 8, 40, 43)),
        *(IN_PLACE, ("scatter", "pairs of rows first")),
    ),
    "avg-pool": Case("AvgPool2d", (3, 2, 1), {}, (2, 8, 41, 43), IN_PLACE, IN_PLACE),
    "avg-pool-large": Case("AvgPool2d", (5, 1, 2), {}, (1, 2, 300, 400), IN_PLACE, IN_PLACE),
    "whole-planes": Case(
        *("AvgPool2d", (7,), {}, (2, 64, 7, 7)),
        *(("whole planes", ""), ("whole planes", "")),
    ),
}


# What a case is there for, beside the forms.
POINTS: dict[str, Callable[[_plan.LayerPlan], bool]] = {
    "endless": lambda plan: plan.forward.blocks["band_columns"] < plan.output_shape[-1],
    "samples": lambda plan: plan.forward.blocks["samples"] > 1,
    "few-samples": lambda plan: plan.backward_input.blocks["samples"] > 1,
    "exact": lambda plan: plan.forward.blocks["exact"] == 1,
    "exact-rows": lambda plan: plan.forward.blocks["exact_rows"] > plan.forward.blocks["exact"],
    "exact-columns": lambda plan: (
        min(p.blocks["exact_columns"] for p in (plan.forward, plan.backward_input)) == 1
        and plan.forward.blocks["exact"] == 0
    ),
    "phases": lambda plan: plan.backward_input.phases == 4,
    "transposed": lambda plan: plan.forward.phases == 4,
    "tiled": lambda plan: plan.forward.phases == 1 and plan.forward.blocks["panel_blocks"] > 0,
    "pixel": lambda plan: plan.backward_input.blocks["depth"] < 37,
    "pixel-window": lambda plan: plan.forward.blocks["columns"] == 640 / plan.forward.threads,
    "pixel-samples": lambda plan: plan.forward.blocks["batches"] == plan.forward.threads,
    "unreached": lambda plan: plan.backward_input.phases == 1,
    "reflected": lambda plan: plan.backward_input.scratch_shared > 0,
    "depthwise-bands": lambda plan: plan.forward.blocks["bands"] > 1,
    "depthwise-large": lambda plan: plan.forward.blocks["bands"] > 1,
    "depthwise-strided": lambda plan: plan.backward_input.phases == (1 if WALKS else 4),
    "depthwise-phases": lambda plan: plan.backward_input.phases == 9,
    "max-pool-large": lambda plan: plan.forward.blocks["band_rows"] < plan.output_shape[2],
    "avg-pool-large": lambda plan: plan.backward_input.blocks["band_rows"] < plan.input_shape[2],
}


@pytest.fixture(scope="session")
def counted() -> Counted:
    """The copy of the extension."""
    return load_counted()


def filled(shape: tuple[int, ...], dtype: str) -> Array:
    """Some numbers."""
    return np.random.default_rng(5).standard_normal(shape).astype(dtype)


def plan_of(counted: Counted, case: Case, dtype: str, threads: int) -> tuple[Any, _plan.LayerPlan]:
    """A layer of the copy, and its plan."""
    counted.core.set_num_threads(threads)
    options = {**case.options} if "Pool" in case.kind else {**case.options, "dtype": dtype}
    layer = getattr(counted.core, case.kind)(*case.arguments, **options)
    if "Pool" not in case.kind:
        layer.weight = filled(layer.weight.shape, dtype)
    shape = case.shape
    images = (*shape[:-1], 1, shape[-1]) if case.kind == "Conv1d" else shape
    output_shape = layer.output_shape(images)
    if case.kind == "Conv1d":
        output_shape = (*output_shape[:2], output_shape[3])
    passes = layer._explain(images, dtype)
    with pyconv.num_threads(threads):  # the extension that is tested says the same
        theirs = getattr(pyconv, case.kind)(*case.arguments, **options)
        assert theirs._explain(images, dtype) == passes
        assert theirs.explain_plan(shape, dtype).forward.threads <= threads
    return layer, _plan.made(layer, shape, output_shape, dtype, passes)


def runs_of(
    counted: Counted, case: Case, layer: Any, plan: _plan.LayerPlan
) -> Iterator[tuple[_plan.PassPlan, Ran]]:
    """Run each pass alone."""
    core, dtype = counted.core, plan.dtype
    x, gy = filled(plan.input_shape, dtype), filled(plan.output_shape, dtype)
    layer.training = False
    yield plan.forward, counted.run(lambda: layer(x))
    if case.kind.startswith("Conv"):
        function = {
            "Conv1d": core.conv1d_backward,
            "Conv2d": core.conv2d_backward,
            "ConvTranspose2d": core.conv_transpose2d_backward,
        }[case.kind]
        names = ["stride", "padding", "dilation", "groups"]
        options = {name: getattr(layer, name) for name in names}

        def backward(*mask: bool) -> Callable[[], Any]:
            return lambda: function(gy, x, layer.weight, output_mask=mask, **options)

        if layer.padding_mode != "zeros":  # which the functions do not have
            layer.training = True
            layer._weight_requires_grad = layer._bias_requires_grad = False
            layer(x)
            yield plan.backward_input, counted.run(lambda: layer.backward(gy))
            return
        yield plan.backward_input, counted.run(backward(True, False, False))
        assert plan.backward_weight is not None
        yield plan.backward_weight, counted.run(backward(False, True, False))
        return
    layer.training = True
    if plan.forward_indices is not None:
        yield plan.forward_indices, counted.run(lambda: layer(x))
    else:
        layer(x)
    yield plan.backward_input, counted.run(lambda: layer.backward(gy))


def check(plan: _plan.PassPlan, ran: Ran) -> None:
    """Compare what a plan says with what ran."""
    kernels, largest, blocks = ran.kernels, ran.largest, plan.blocks
    assert largest["threads"] == plan.threads
    assert largest["scratch"] == plan.scratch_per_thread * plan.threads + plan.scratch_shared
    assert set(kernels) - COPIES[plan.family] == ({plan.kernel} if plan.kernel else set())
    joined = "joined" in plan.form or blocks.get("paired", 0) == 1
    assert ("join_rows" in kernels) == joined
    same: dict[str, int] = {}
    if plan.family == "dense tile":
        assert plan.tile is not None
        same = {"tile_rows": plan.tile[0], "slab_channels": blocks["channels"]}
        same["slab_samples"] = blocks["samples"]
        if not blocks["exact_rows"] and not blocks["exact_columns"]:
            same |= {"slab_rows": blocks["band_rows"], "slab_columns": blocks["band_columns"]}
    elif plan.family == "weight tile":
        assert plan.tile is not None
        same = {"tile_vectors": plan.tile[1]}
        if plan.form == "input packed":
            same |= {"slab_rows": blocks["chunk_rows"], "slab_columns": blocks["chunk_columns"]}
            same["slab_channels"] = blocks["channels"]
        else:
            assert "copy_rows" not in kernels
    elif plan.family == "pixel":
        assert plan.tile is not None
        rows = plan.kernel == "dense_tile"
        same = {"tile_rows": plan.tile[0]} if rows else {"tile_vectors": plan.tile[1]}
    elif plan.family == "rows":
        same = {"band_rows": blocks["band_rows"]}
        if "band_columns" in blocks:
            same["band_columns"] = blocks["band_columns"]
        elif plan.name == "backward_weight":
            assert ("split_rows" in kernels) == (plan.form == "phases first")
        elif plan.form == "in place":
            assert kernels[plan.kernel] == plan.items
        else:  # an item packs each channel once
            assert plan.items is not None
            assert kernels["split_rows"] == plan.items * blocks["channels"]
    assert {name: largest[name] for name in same} == same


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", CASES)
def test_what_is_planned_is_what_runs(
    counted: Counted, name: str, dtype: str, threads: int
) -> None:
    case = CASES[name]
    layer, plan = plan_of(counted, case, dtype, threads)
    for found in plan.passes:
        wanted = getattr(case, found.name, None)
        if wanted is not None:
            assert (found.family, found.form) == wanted, found.name
    assert name not in POINTS or POINTS[name](plan)
    for found, ran in runs_of(counted, case, layer, plan):
        check(found, ran)


def other_operators(core: Any) -> Iterator[Callable[[], Any]]:
    """What has kernels and no plan."""
    x, gy = filled((2, 40, 9, 11), "float32"), filled((2, 8, 9, 11), "float32")
    mean, variance = np.zeros(40, np.float32), np.ones(40, np.float32)
    yield lambda: core.conv2d_backward(
        gy, x, filled((8, 40, 1, 1), "float32"), output_mask=(False, False, True)
    )
    yield lambda: core.batch_norm(x, mean, variance, training=True)
    yield lambda: core.batch_norm_backward(x, x, mean, variance, training=True)
    yield lambda: core.relu_backward(x, core.relu(x))
    yield lambda: core.adaptive_avg_pool2d(x, (4, 3))
    yield lambda: core.fma_chains(np.float32, 10)


def test_every_kernel_is_reached(counted: Counted) -> None:
    """By a plan, by a copy on its way, or by another operator."""
    planned, seen = set(), set()
    for case in CASES.values():
        layer, plan = plan_of(counted, case, "float32", 1)
        for found, ran in runs_of(counted, case, layer, plan):
            planned |= {found.kernel} - {None}
            seen |= set(ran.kernels)
    assert planned < seen
    others = set[str]()
    for call in other_operators(counted.core):
        others |= set(counted.run(call).kernels)
    assert seen | others == set(lib.listed_kernels())
    # What is a layer's own work is in its plan.
    assert others - seen == {
        *("strip_sums", "norm_sums", "norm_map", "relu_forward", "relu_backward"),
        *("span_sums", "fma_chains"),
    }
