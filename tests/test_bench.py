"""The benchmark: which rows, what they cost, whether results are right, how they are timed.

No time is measured here that anything depends on.
"""

import csv
import dataclasses
import signal
from pathlib import Path

import numpy as np
import pytest
from bench_fakes import (
    ALL,
    CONV,
    DECONV,
    MAXPOOL,
    ROW,
    Fake,
    bench_of,
    fail,
    layer,
    off_at_one_place,
    one_more,
)

import pyconv
from pyconv import _core, reference
from pyconv._bench import cli, engines, layers, measure
from pyconv._bench.layers import Choice, Layer, Row
from pyconv._bench.problem import Problem

SHAPES = Path(__file__).resolve().parents[1] / "bench" / "shapes.csv"


@pytest.fixture(autouse=True)
def leave_no_trace():
    """The number of threads and the signal handler are as they were."""
    threads, handler = pyconv.get_num_threads(), signal.getsignal(signal.SIGTERM)
    yield
    pyconv.set_num_threads(threads)
    signal.signal(signal.SIGTERM, handler)


# ---- layers and rows ----


def test_the_file_of_shapes() -> None:
    found = layers.read_layers(SHAPES)
    assert len(found) == 211 == len({(v.network, v.layer) for v in found})
    kinds = [v.kind for v in found]
    assert {kind: kinds.count(kind) for kind in sorted(set(kinds))} == {
        "avgpool": 5,
        "deconv": 12,
        "dense": 141,
        "depthwise": 22,
        "grouped": 9,
        "maxpool": 22,
    }
    with SHAPES.open(newline="") as file:
        for line, v in zip(csv.DictReader(file), found, strict=True):
            if v.op in ("conv", "deconv"):
                assert v.flops(1) / 1e6 == pytest.approx(float(line["mflop_fwd"]), abs=0.006)


def test_the_short_list_is_a_part_of_it() -> None:
    all_of_them = {v.id: v for v in layers.read_layers(SHAPES)}
    short = layers.read_layers(layers.SHORT)
    assert {v.kind for v in short} == {v.kind for v in all_of_them.values()}
    for v in short:
        assert v == dataclasses.replace(all_of_them[v.id], batches=(1,))


def test_a_wrong_size_is_refused() -> None:
    with pytest.raises(ValueError, match="net/conv: the output has 4 pixels, not 3"):
        dataclasses.replace(CONV, OH=3)


def test_work_is_counted() -> None:
    dense = layer(C=3, H=5, W=5, K=4, kh=3, kw=3)
    assert dense.flops(10) == 2 * 10 * 4 * 3 * 9 * (3 * 3)
    assert dense.bytes("fwd", 10, 4) == 4 * (10 * 3 * 25 + 10 * 4 * 9 + 4 * 3 * 9)
    assert dense.columns(10) == 8 * 10 * 3 * 9 * 9
    up = layer("deconv", C=3, H=5, W=5, K=4, kh=2, kw=2, sh=2, sw=2)
    assert up.flops(1) == 2 * 4 * 3 * 4 * 25 and up.columns(1) == 8 * 4 * 4 * 25
    pool = layer("maxpool", C=2, H=4, W=4, K=2, kh=2, kw=2, sh=2, sw=2)
    assert pool.flops(1) == 0 == pool.columns(1)
    assert pool.bytes("fwd", 1, 8) == 8 * (32 + 8)
    assert pool.bytes("fwd_indices", 1, 4) == 4 * (32 + 8) + 8 * 8 == pool.bytes("bwd", 1, 4)


def test_rows_are_chosen_and_named() -> None:
    assert [row.name for row in layers.rows_of([MAXPOOL], Choice(threads=(1,)))] == [
        "net/maxpool fwd n=2 f32 t1",
        "net/maxpool fwd_indices n=2 f32 t1",
        "net/maxpool bwd n=2 f32 t1",
        "net/maxpool fwd n=2 f64 t1",
        "net/maxpool fwd_indices n=2 f64 t1",
        "net/maxpool bwd n=2 f64 t1",
    ]

    def count(**choice) -> int:
        return len(list(layers.rows_of(ALL, Choice(**choice))))

    assert count() == 2 * 2 * (4 * 3 + 3 + 2)
    assert count(ops=("conv",)) == 36 and count(ops=("depthwise",)) == 12
    assert count(passes=("bwd_data",), dtypes=("float64",), threads=(2,)) == 4
    assert count(batches=(1,)) == 0 == count(networks=("other",))
    assert count(layers=("et/av",)) == 8
    row = Row(CONV, 2, "float32", "fwd", 1)
    assert row.key == ("net", "conv", "fwd", "2", "float32", "1")


def test_float64_batches_are_halved_until_they_fit() -> None:
    """Unless they are another row already."""
    big = layer(C=64, H=224, W=224, K=64, kh=3, kw=3, ph=1, pw=1)
    assert big.columns(32) > layers.MOST_COLUMNS > big.columns(16)
    big = dataclasses.replace(big, batches=(16, 32, 1), passes=("fwd",))
    assert [(row.dtype, row.n) for row in layers.rows_of([big], Choice(threads=(1,)))] == [
        *(("float32", 16), ("float32", 32), ("float32", 1)),
        *(("float64", 16), ("float64", 1)),
    ]


# ---- right results ----


def by_reference(problem: Problem, pass_: str):
    """Return what the definition says, from pyconv's slow twin and in float64."""
    v = problem.layer
    x, g = (a.astype(np.float64) for a in (problem.x, problem.g))
    kernel, stride, padding, dilation = engines.geometry(v)
    if v.op == "maxpool":
        y = reference.max_pool2d(x, kernel, stride, padding, dilation, return_indices=True)
        if pass_ == "bwd":
            return (reference.max_pool2d_backward(g, y[1], x.shape),)
        return y if pass_ == "fwd_indices" else y[:1]
    if v.op == "avgpool":
        if pass_ == "fwd":
            return (reference.avg_pool2d(x, kernel, stride, padding),)
        return (reference.avg_pool2d_backward(g, x.shape, kernel, stride, padding),)
    w = problem.w.astype(np.float64)
    options = dict(stride=stride, padding=padding, dilation=dilation, groups=v.groups)
    name = "conv2d"
    if v.op == "deconv":
        name, options["output_padding"] = "conv_transpose2d", (v.oph, v.opw)
    if pass_ == "fwd":
        return (getattr(reference, name)(x, w, None, **options),)
    gradients = getattr(reference, name + "_backward")(g, x, w, **options)
    return (gradients[pass_ == "bwd_weights"],)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("v", ALL, ids=lambda v: v.kind)
def test_the_right_results_are_those_of_the_definition(v: Layer, dtype: str) -> None:
    """A right result agrees; one that is off at any place that is looked at does not."""
    problem = Problem(v, 2, dtype)
    for pass_ in v.all_passes():
        parts = by_reference(problem, pass_)
        expected = problem.expected(pass_)
        assert len(parts) == len(expected)
        for e, right in zip(expected, parts, strict=True):
            np.testing.assert_allclose(e.values, right[e.where], rtol=1e-5, atol=1e-6)
            good = right.astype(e.dtype)
            assert e.agrees(good)
            assert not e.agrees(good[..., :-1])
            assert not e.agrees(good.astype(np.float16))
            seen = np.zeros(good.shape, bool)
            seen[e.where] = True
            for place in (np.argwhere(seen)[0], np.argwhere(seen)[-1]):
                for wrong in (good[tuple(place)] + 1, np.nan):
                    if good.dtype.kind == "i" and wrong is np.nan:
                        continue
                    bad = good.copy()
                    bad[tuple(place)] = wrong
                    assert not e.agrees(bad)


def test_the_first_of_equal_values_is_the_largest() -> None:
    problem = Problem(MAXPOOL, 2, "float32")
    problem.x[:] = np.round(problem.x)
    for part, right in zip(problem.largest, by_reference(problem, "fwd_indices"), strict=True):
        assert np.array_equal(part, right)


def test_edges_are_looked_at() -> None:
    """The last row, column, channel and sample, where kernels end, and the first ones."""
    v = layer(C=8, H=40, W=40, K=50)
    (e,) = Problem(v, 3, "float32").expected("fwd")
    for axis, size in zip(e.where, e.shape, strict=True):
        assert {0, size - 2, size - 1} <= set(axis.tolist())


# ---- measuring ----


def test_a_row_is_measured() -> None:
    fakes = [Fake("pyconv"), Fake("torch")]
    outcome = bench_of(*fakes).outcome(ROW)
    assert outcome.status == "ok" and set(outcome.times) == {"pyconv", "torch"}
    assert outcome.limit > 0 and all(0 < best <= mid for best, mid in outcome.times.values())
    assert [fake.seen[0][1:] for fake in fakes] == [("fwd", 2)] * 2


@pytest.mark.parametrize("row", [Row(MAXPOOL, 2, "float64", p, 1) for p in MAXPOOL.all_passes()])
def test_a_pool_is_held_against_a_copy(row: Row) -> None:
    outcome = bench_of(Fake("pyconv")).outcome(row)
    assert outcome.work == row.layer.bytes(row.pass_, 2, 8)
    assert outcome.status == "ok" and outcome.limit > 0


def test_a_wrong_result_is_lost() -> None:
    assert bench_of(Fake("pyconv", one_more)).outcome(ROW).status == "wrong"


def test_a_result_that_torch_has_otherwise_is_lost() -> None:
    """Every element is compared then."""
    v = layer(C=8, H=40, W=40, K=50)
    row = Row(v, 3, "float32", "fwd", 1)
    wrong = Fake("pyconv", off_at_one_place)
    assert bench_of(wrong).outcome(row).status == "ok"
    assert bench_of(wrong, Fake("torch")).outcome(row).status == "wrong: not what torch has"


def test_a_failure_is_lost_and_others_go_on() -> None:
    bench = bench_of(Fake("pyconv", fail))
    assert bench.outcome(ROW).status == "error: MemoryError: no room here"
    bench.engines = [Fake("pyconv")]
    assert bench.outcome(ROW).status == "ok"


@pytest.mark.parametrize("spoil", [one_more, fail])
def test_a_wrong_engine_is_left_out(spoil, capsys) -> None:
    outcome = bench_of(Fake("pyconv"), Fake("torch_cl", spoil)).outcome(ROW)
    assert outcome.status == "ok" and set(outcome.times) == {"pyconv"}
    assert "torch_cl" in capsys.readouterr().out


def test_what_does_not_fit_is_skipped_and_lost(monkeypatch) -> None:
    monkeypatch.setattr(cli, "available_memory", lambda: 1000.0)
    assert bench_of(Fake("pyconv")).outcome(ROW).status == "skipped: needs 0 GB"


def test_rows_of_a_layer_share_their_data() -> None:
    fake = Fake("pyconv")
    bench = bench_of(fake)
    for row in layers.rows_of([CONV], Choice(dtypes=("float32",))):
        bench.outcome(row)
    bench.outcome(Row(DECONV, 2, "float32", "fwd", 1))
    problems = [problem for problem, _, _ in fake.seen]
    assert len(problems) == 7 and len(set(map(id, problems[:6]))) == 1
    assert problems[6].layer is DECONV


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_the_copy_is_one(dtype) -> None:
    for size in (0, 1, 1023, 1024, 4097, 100_003):
        array = np.arange(size, dtype=dtype)
        for threads in (1, 2, 3):
            with pyconv.num_threads(threads):
                copy = _core.fresh_copy(array)
            assert copy.dtype == dtype and np.array_equal(copy, array)
            assert not np.shares_memory(copy, array)
    assert np.array_equal(_core.fresh_copy(np.arange(9, dtype=dtype)[::-2]), [8, 6, 4, 2, 0])


def test_wrong_calls_of_the_limits() -> None:
    for rounds in (-1, 2**24 + 1, 2**70):
        with pytest.raises(ValueError, match="rounds"):
            _core.fma_chains(np.float32, rounds)
    for dtype, rounds in ((np.int32, 1), (np.float32, 1.0), (np.float32, True)):
        with pytest.raises(TypeError):
            _core.fma_chains(dtype, rounds)
    with pytest.raises(ValueError, match="one axis"):
        _core.fresh_copy(np.ones((2, 3)))
    with pytest.raises(TypeError):
        _core.fresh_copy(["a"])


def test_a_busy_machine_is_measured_twice() -> None:
    """Minima of both, medians of the calmer one."""
    busy = {"pyconv": (2.0, 9.0), "torch": (4.0, 8.0), "limit": (1.0, 2.0)}
    calm = {"pyconv": (3.0, 5.0), "torch": (3.0, 6.0), "limit": (1.0, 1.2)}

    def measured(*turns):
        left = list(turns)
        times = measure.take_quiet_turns({}, 0.0, lambda runs, budget: left.pop(0))
        return times, len(left)

    assert measured(calm, busy) == (calm, 1)
    both = {"pyconv": (2.0, 5.0), "torch": (3.0, 6.0), "limit": (1.0, 1.2)}
    assert measured(busy, calm) == (both, 0)
    assert measured(busy, busy) == (busy, 0)


def test_turns() -> None:
    """Everyone is called in turn; a call that is long and hopeless is made once."""
    calls: list[str] = []
    lasts = {"quick": 1e-3, "slow": 1.0, "hopeless": 4.0}

    def clock(run) -> float:
        run()
        return lasts[calls[-1]] / calls.count(calls[-1])  # each time less

    runs = {name: lambda name=name: calls.append(name) for name in lasts}
    times = measure.take_turns(runs, 0.0, clock)
    # The quick one: a first call, then in both rounds three without a clock and three with.
    quick = ["quick"] * 6
    assert calls == ["quick", "slow", "hopeless", *quick, *quick]
    assert times["quick"] == (1e-3 / 13, pytest.approx(1e-3 * (1 / 7 + 1 / 11) / 2))
    assert times["slow"] == (1.0, 1.0) and times["hopeless"] == (4.0, 4.0)

    calls.clear()
    del runs["quick"]
    times = measure.take_turns(runs, 0.0, clock)
    assert calls == ["slow", "hopeless", "slow", "slow"]
    assert times["slow"] == (pytest.approx(1 / 3), 0.5)

    calls.clear()
    lasts["hopeless"] = 0.01
    measure.take_turns(runs, 10.0, clock)
    assert calls.count("hopeless") == 1 + measure.MOST_ROUNDS and calls.count("slow") == 1


def test_engines_that_are_not_installed_are_not_there(monkeypatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert [engine.name for engine in engines.installed()] == ["pyconv"]


def test_torch_and_onnxruntime_agree(capsys) -> None:
    """Each engine that is installed has the right result in every pass that it knows."""
    there = engines.installed()
    if [engine.name for engine in there] == ["pyconv"]:
        pytest.skip("torch is not installed")
    for v in ALL:
        for row in layers.rows_of([v], Choice(threads=(1,))):
            done = bench_of(*there).outcome(row)
            backward = {engine.name for engine in there} - {"onnxruntime"}
            assert done.status == "ok" and backward <= set(done.times)
    assert capsys.readouterr().out == ""
