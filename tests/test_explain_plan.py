"""explain_plan as users see it; whether what it says is what runs, kernels/test_plans.py asks."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import pyconv
from pyconv import _core
from pyconv._bench.layers import Layer, read_layers

SHAPES = Path(__file__).resolve().parents[1] / "bench" / "shapes.csv"
MOST_SCRATCH = 4 << 20  # of a thread, beside what all share


def layer_of(row: Layer, dtype: str) -> Any:
    """A layer without the random numbers, which would take a minute."""
    if row.op in ("maxpool", "avgpool"):
        window = {"kernel_size": (row.kh, row.kw), "stride": (row.sh, row.sw)}
        pool = pyconv.MaxPool2d if row.op == "maxpool" else pyconv.AvgPool2d
        return pool(**window, padding=(row.ph, row.pw))
    options: dict[str, Any] = {
        "stride": (row.sh, row.sw),
        "padding": (row.ph, row.pw),
        "dilation": (row.dh, row.dw),
        "groups": row.groups,
        "dtype": dtype,
    }
    kind, core = pyconv.Conv2d, _core.Conv2d
    if row.op == "deconv":
        kind, core = pyconv.ConvTranspose2d, _core.ConvTranspose2d
        options["output_padding"] = (row.oph, row.opw)
    layer = kind.__new__(kind)
    core.__init__(layer, row.C, row.K, (row.kh, row.kw), **options)
    return layer


@pytest.mark.skipif(not SHAPES.exists(), reason="not in a source tree")
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_scratch_stays_small_whatever_the_batch(dtype: str) -> None:
    large = {}
    for row in read_layers(SHAPES):
        layer = layer_of(row, dtype)
        for threads in (1, 2):
            for n in sorted({1, 2, *row.batches, 1000}):
                plan = layer.explain_plan((n, row.C, row.H, row.W), dtype, threads)
                for found in plan.passes:
                    if found.scratch_per_thread > MOST_SCRATCH:
                        large[row.name, found.name, n, threads] = found.scratch_per_thread
    assert large == {}


def test_numbers_of_a_convolution() -> None:
    conv = pyconv.Conv2d(8, 6, (3, 5), padding=(1, 2), groups=2)
    plan = conv.explain_plan((4, 8, 10, 12))
    assert (plan.input_shape, plan.output_shape) == ((4, 8, 10, 12), (4, 6, 10, 12))
    assert plan.layer == repr(conv) and plan.dtype == "float32"
    assert [found.name for found in plan.passes] == ["forward", "backward_input", "backward_weight"]
    for found in plan.passes:
        assert found.algorithm == "direct" and found.isa == _core.build_info()["isa"]
        assert found.flops == 2 * 4 * 6 * 4 * 15 * 120
        assert found.bytes == 4 * (4 * 8 * 120 + 4 * 6 * 120 + 6 * 4 * 15)
        assert found.intensity == found.flops / found.bytes
        assert f"{found.intensity:.1f} FLOP a byte" in found.limit
    assert plan.forward_indices is None


def test_a_transposed_convolution_runs_crosswise() -> None:
    plan = pyconv.ConvTranspose2d(32, 32, 4, stride=2, padding=1).explain_plan((32, 8, 9))
    assert plan.output_shape == (32, 16, 18)
    assert plan.forward.primitive == "backward_input"
    assert plan.backward_input.primitive == "forward"
    assert (plan.forward.phases, plan.backward_input.phases) == (4, 1)


def test_dtype_and_threads_are_choices() -> None:
    conv = pyconv.Conv2d(64, 64, 3, dtype=np.float64)
    one = conv.explain_plan((8, 64, 40, 40), threads=1)
    assert one.dtype == "float64" and one.forward.threads == 1
    assert conv.explain_plan((8, 64, 40, 40), np.float32, 3).forward.threads == 3
    assert conv.explain_plan((1, 64, 3, 3), threads=3).forward.threads == 1
    with pyconv.num_threads(2):
        assert conv.explain_plan((8, 64, 40, 40)).forward.threads == 2
    assert pyconv.MaxPool2d(2).explain_plan((1, 2, 8, 8), "float64").dtype == "float64"


def test_one_dimension() -> None:
    plan = pyconv.Conv1d(16, 16, 5, padding=2).explain_plan((2, 16, 50))
    assert (plan.input_shape, plan.output_shape) == ((2, 16, 50), (2, 16, 50))
    wide = pyconv.Conv2d(16, 16, (1, 5), padding=(0, 2)).explain_plan((2, 16, 1, 50))
    assert plan.passes == wide.passes


def test_an_empty_batch_has_nothing_to_do() -> None:
    for layer in (pyconv.Conv2d(3, 4, 3), pyconv.ConvTranspose2d(3, 4, 3), pyconv.AvgPool2d(2)):
        plan = layer.explain_plan((0, 3, 8, 8))
        for found in plan.passes:
            assert found.phases == 0 and found.items == 0 and found.kernel is None
            assert str(found) == f"{found.name}: nothing to do"


def test_more_than_can_be_counted() -> None:
    plan = pyconv.Conv2d(4, 4, 3).explain_plan((2**36, 4, 16, 16))
    assert plan.forward.items is None
    assert "many items" in str(plan)


def test_text_has_what_the_attributes_have() -> None:
    conv = pyconv.Conv2d(16, 16, 3, stride=2)
    plan = conv.explain_plan((1, 16, 15, 16))
    text = str(plan)
    assert text.splitlines()[0].startswith(f"{conv!r}: (1, 16, 15, 16) -> (1, 16, 7, 7), float32, ")
    for found in plan.passes:
        assert str(found) in text
        assert f"{found.scratch_per_thread:,} bytes a thread" in str(found)
        assert f"{found.flops:,} FLOP" in str(found)
        for block, value in found.blocks.items():
            assert f"{block} {value}" in str(found)
    assert "of 4 phases" in str(plan.backward_input)


def test_plans_do_not_change() -> None:
    plan = pyconv.Conv2d(16, 16, 3).explain_plan((16, 9, 9))
    with pytest.raises(AttributeError):
        plan.dtype = "float16"  # type: ignore[misc]
    with pytest.raises(TypeError):
        plan.forward.blocks["samples"] = 2  # type: ignore[index]


@pytest.mark.parametrize(
    ("shape", "options", "error", "words"),
    [
        ((3, 4), {}, ValueError, "input_shape must be"),
        ((1, 5, 8, 8), {}, ValueError, "to have 3 channels"),
        ((1, 3, 2, 8), {}, ValueError, "output height"),
        ((1, 3, 8.0, 8), {}, TypeError, "input_shape"),
        ((1, 3, 8, 8), {"dtype": "int8"}, TypeError, "float32 or float64"),
        ((1, 3, 8, 8), {"threads": 0}, ValueError, "at least 1"),
        ((1, 3, 8, 8), {"threads": 1.5}, TypeError, "threads"),
        ((1, 3, 2**62, 8), {}, (ValueError, MemoryError), "Conv2d"),
    ],
)
def test_wrong_arguments(shape: Any, options: Any, error: Any, words: str) -> None:
    conv = pyconv.Conv2d(3, 4, 3)
    with pytest.raises(error, match=words):
        conv.explain_plan(shape, **options)


def test_a_layer_without_its_init_says_so() -> None:
    with pytest.raises(RuntimeError):
        pyconv.Conv2d.__new__(pyconv.Conv2d).explain_plan((1, 3, 8, 8))


def test_a_plan_is_not_run_and_leaves_the_layer_alone() -> None:
    conv = pyconv.Conv2d(3, 4, 3)
    conv.explain_plan((1, 3, 8, 8))
    with pytest.raises(RuntimeError, match="backward needs a forward"):
        conv.backward(np.zeros((1, 4, 6, 6)))
