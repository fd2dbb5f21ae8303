"""The benchmark: which rows, what they cost, whether results are right, the file, the arithmetic.

No time is measured here that anything depends on.
"""

import csv
import dataclasses
import signal
from pathlib import Path

import numpy as np
import pytest

import pyconv
from pyconv import _core, reference
from pyconv.__main__ import main
from pyconv._bench import cli, engines, layers, measure, records, report
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


def layer(op="conv", **sizes) -> Layer:
    """Return a small layer; what is not said is 1, or follows."""
    ones = {name: 1 for name in ("sh", "sw", "dh", "dw", "groups")}
    zeros = {name: 0 for name in ("ph", "pw", "oph", "opw")}
    v = {"C": 4, "H": 7, "W": 9, "K": 6, "kh": 3, "kw": 2, **ones, **zeros, **sizes}
    for out, size, axis in (("OH", "H", "h"), ("OW", "W", "w")):
        span = v["d" + axis] * (v["k" + axis] - 1) + 1 - 2 * v["p" + axis]
        if op == "deconv":
            v[out] = (v[size] - 1) * v["s" + axis] + span + v["op" + axis]
        else:
            v[out] = (v[size] - span) // v["s" + axis] + 1
    passes = ("fwd", "bwd") if "pool" in op else ("fwd", "bwd_data", "bwd_weights")
    return Layer(1, "net", op, op, batches=(2,), passes=passes, **v)


CONV = layer(C=4, K=6, groups=2, sh=2, ph=1, pw=1, dw=2)
DEPTHWISE = layer(C=5, K=5, groups=5, kh=5, ph=2, sw=2)
DECONV = layer("deconv", C=4, K=6, groups=2, sh=3, sw=2, ph=1, oph=2, opw=1, dw=2)
MAXPOOL = layer("maxpool", C=3, K=3, kh=3, kw=3, sh=2, sw=1, ph=1, pw=1)
AVGPOOL = layer("avgpool", C=3, K=3, kh=3, kw=2, sh=2, sw=2, ph=1)
ALL = (CONV, DEPTHWISE, layer(), DECONV, MAXPOOL, AVGPOOL)


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


def test_edges_are_looked_at() -> None:
    """The last row, column, channel and sample, where kernels end, and the first ones."""
    v = layer(C=8, H=40, W=40, K=50)
    (e,) = Problem(v, 3, "float32").expected("fwd")
    for axis, size in zip(e.where, e.shape, strict=True):
        assert {0, size - 2, size - 1} <= set(axis.tolist())


# ---- measuring ----


class Fake:
    """An engine that does what pyconv does, or something wrong."""

    version = "1"

    def __init__(self, name: str, spoil=None) -> None:
        self.name, self.spoil, self.seen = name, spoil, []
        self.real = engines.Pyconv()
        self.mode = self.real.mode

    def prepare(self, problem, pass_, threads):
        self.seen.append((problem, pass_, threads))
        run = self.real.prepare(problem, pass_, threads)
        return run if self.spoil is None else lambda: self.spoil(run())

    def arrays(self, result):
        return self.real.arrays(result)


def one_more(y):
    """Return something wrong at every place."""
    return y + 1


def off_at_one_place(y):
    """Return something wrong where nobody looks but at everything."""
    y = y.copy()
    y[1, 2, 20, 21] += 1
    return y


def fail(y):
    """Fail."""
    raise MemoryError("no room\nhere")


def bench_of(*fakes, path=None) -> cli.Bench:
    """Return a run with these engines."""
    return cli.Bench(fakes, records.Results(path, {"cpu": "this"}), 0.0)


ROW = Row(CONV, 2, "float32", "fwd", 2)


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


def test_turns() -> None:
    """Everyone is called in turn; a call that is long and hopeless is made once."""
    calls: list[str] = []
    lasts = {"quick": 1e-3, "slow": 1.0, "hopeless": 4.0}

    def clock(run) -> float:
        run()
        return lasts[calls[-1]] / calls.count(calls[-1])  # each time less

    runs = {name: lambda name=name: calls.append(name) for name in lasts}
    times = measure.take_turns(runs, 0.0, clock)
    # The quick one: a first call, then in both rounds one without a clock and three with.
    quick = ["quick"] * 4
    assert calls == ["quick", "slow", "hopeless", *quick, *quick]
    assert times["quick"] == (1e-3 / 9, pytest.approx(1e-3 * (1 / 5 + 1 / 7) / 2))
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


# ---- the file ----


def outcome(row: Row = ROW, status: str = "ok", **milliseconds: float) -> measure.Outcome:
    """Return an outcome with these best times; medians are twice as long."""
    times = {name: (t / 1e3, t / 500) for name, t in milliseconds.items()}
    return measure.Outcome(row, status, times, limit=1e9 if times else 0.0)


def test_rows_come_back_from_the_file(tmp_path) -> None:
    path = tmp_path / "new" / "run.csv"
    results = records.Results(path, {"cpu": "one: two", "torch": "2"})
    results.add(outcome(pyconv=2.0, torch=3.0, torch_cl=1.0))
    other = ROW._replace(pass_="bwd_data")
    results.add(outcome(other, "error: ValueError: a, b"))
    machine, (first, second) = records.read(path)
    assert machine == {"cpu": "one: two", "torch": "2"}
    assert [first, second] == results.records
    assert first.best == {"pyconv": 2.0, "torch": 3.0, "torch_cl": 1.0}
    assert first.median == {"pyconv": 4.0, "torch": 6.0, "torch_cl": 2.0}
    assert first.share == pytest.approx(CONV.flops(2) / 2e-3 / 1e9, rel=1e-3)
    assert (first.kind, first.kernel, first.channels) == ("grouped", (3, 2), 4)
    assert first.mflop == pytest.approx(CONV.flops(2) / 1e6)
    assert first.name == ROW.name and first.key == ROW.key
    assert second.status == "error: ValueError: a, b" and not second.right and second.share == 0


def test_a_run_goes_on_where_it_was(tmp_path, capsys) -> None:
    path = tmp_path / "run.csv"
    rows = list(layers.rows_of([CONV], Choice(dtypes=("float32",))))
    first = bench_of(Fake("pyconv"), path=path)
    first.run(rows[:4], float("inf"))
    with path.open("a") as file:
        file.write("net,conv,bwd_wei")  # a process that died while it wrote
    fake = Fake("pyconv")
    again = bench_of(fake, path=path)
    assert again.run(rows, float("inf")) == 0
    assert [(pass_, threads) for _, pass_, threads in fake.seen] == [
        *(("bwd_weights", 1), ("bwd_weights", 2)),
    ]
    assert [record.key for record in records.read(path)[1]] == [row.key for row in rows]
    assert not list(tmp_path.glob("*.running"))


def test_a_row_that_killed_its_process_is_lost(tmp_path, capsys) -> None:
    path = tmp_path / "run.csv"
    rows = list(layers.rows_of([CONV], Choice(dtypes=("float32",), threads=(1,))))
    records.Results(path, {}).begin(rows[1])  # and no end
    bench_of(Fake("pyconv"), path=path).run(rows, float("inf"))
    status = {record.key: record.status for record in records.read(path)[1]}
    assert [status[row.key] for row in rows] == ["ok", "crashed", "ok"]
    assert "LOST: crashed" in capsys.readouterr().out


def test_a_row_that_was_stopped_is_not(tmp_path) -> None:
    def stop(y):
        raise KeyboardInterrupt

    path = tmp_path / "run.csv"
    with pytest.raises(KeyboardInterrupt):
        bench_of(Fake("pyconv", stop), path=path).run([ROW], float("inf"))
    assert records.Results(path, {}).crashed([ROW]) is None and not records.read(path)[1]


# ---- the arithmetic ----


def record(row: Row = ROW, status: str = "ok", share: float = 0.5, **best: float):
    """Return a line of the file."""
    line = records.fields_of(outcome(row, status, **best)) | {"share": share}
    return records.record_of({name: str(line.get(name, "")) for name in records.FIELDS})


def test_ratios() -> None:
    row = record(pyconv=2.0, torch=4.0, torch_cl=1.0)
    assert row.against("torch") == 2.0 and row.against("torch", "torch_cl") == 0.5
    assert row.against("onnxruntime") is None
    assert record(status="crashed").against("torch") == 0.0


def test_lost_rows_count_as_losses() -> None:
    rows = [
        *(record(pyconv=1.0, torch=8.0, share=0.9), record(pyconv=1.0, torch=2.0, share=0.7)),
        *(record(status="wrong"), record(status="crashed"), record(status="skipped: x")),
    ]
    assert report.not_slower(rows) == "40 %"
    assert report.mean_against(rows, "torch") == "4.00x"
    assert report.median_share(rows) == "0 %" and report.median_share(rows[:3]) == "70 %"
    assert report.figures(rows)[:3] == ["5", "3", "4.00x"]
    worst = report.worst(rows, 4)
    assert [line.split(" | ")[1] for line in worst[2:]] == ["0.00x"] * 3 + ["2.00x"]
    assert "crashed" in worst[3]
    assert cli.below_floor(rows, 3.0) == rows[1:]


def test_equal_means_097() -> None:
    rows = [record(pyconv=1.0, torch=t, torch_cl=9.0) for t in (0.96, 0.98, 1.5)]
    assert report.not_slower(rows) == "67 %"
    assert report.not_slower([record(pyconv=1.0)]) == ""


def test_the_second_thread() -> None:
    big = layer(C=64, H=50, W=50, K=64, kh=3, kw=3)
    assert big.flops(2) > 2e8 > CONV.flops(2)
    rows = [
        *(record(Row(big, 2, "float32", "fwd", t), pyconv=4.0 / t, torch=3.0) for t in (1, 2)),
        *(record(Row(CONV, 2, "float32", "fwd", t), pyconv=1.0) for t in (1, 2)),
        record(Row(big, 2, "float64", "fwd", 1), pyconv=1.0),
    ]
    lines = report.second_thread(rows)
    assert len(lines) == 3 and lines[2].startswith("| pyconv | float32 | 1 | 2.00x |")


def test_goals_take_the_rows_that_they_name() -> None:
    big = layer(C=64, H=50, W=50, K=64, kh=3, kw=3)
    thin = layer(C=16, H=100, W=100, K=64, kh=3, kw=3)
    point = layer(C=64, H=100, W=100, K=64, kh=1, kw=1)
    shares = {big: 0.9, thin: 0.8, point: 0.7}
    rows = [
        record(Row(v, 2, "float32", p, 1), share=share, pyconv=1.0)
        for v, share in shares.items()
        for p in ("fwd", "bwd_data", "bwd_weights")
    ]
    rows.append(record(Row(big, 2, "float64", "fwd", 1), share=0.6, pyconv=1.0))
    wide = layer("maxpool", C=64, H=100, W=100, K=64, kh=2, kw=2, sh=2, sw=2)
    rows += [
        record(Row(v, 2, "float32", "fwd", 2), share=s, pyconv=1.0, torch=9.0, torch_cl=3.0)
        for v, s in ((wide, 0.4), (MAXPOOL, 0.2))
    ]
    lines = [line.split(" | ") for line in report.goal_table(rows, 1 << 20)[2:]]
    found = {line[0].lstrip("| "): line[1:4] for line in lines}
    assert found == {
        "3x3, 5x5, 7x7 forward and input gradient, >= 100 MFLOP, >= 32 channels: share of peak": [
            *("2", "90 %", "")
        ],
        "1x1 forward and input gradient, >= 50 MFLOP: share of peak": ["2", "70 %", ""],
        "weight gradient, dense, >= 100 MFLOP: share of peak": ["3", "80 %", ""],
        "all passes, dense, >= 100 MFLOP: share of peak (capped to AVX2)": ["9", "80 %", ""],
        "max pooling, values and values + indices: NCHW / better layout": [
            *("2", "", "9.00x / 3.00x")
        ],
        "pooling, beyond the second cache: share of copy bandwidth": ["1", "", "40 %"],
        "float64 convolution, all passes: share of peak": ["1", "60 %", ""],
        "float32 rows at or above 0.97 of torch's better layout": ["11", "", "100 %"],
    }


def test_a_summary_of_nothing_and_of_lost_rows() -> None:
    assert report.summary({}, []) == ""
    text = report.summary({"cpu": "x"}, [record(status="wrong")])
    assert "- cpu: x" in text and "| wrong |" in text and "nan" not in text
    assert "| wrong | 0 |" in report.row_table([record(status="wrong")])


# ---- the command ----


@pytest.fixture
def small(tmp_path, monkeypatch) -> Path:
    """A short list of two layers, fake engines, no limits."""
    path = tmp_path / "shapes.csv"
    names = [field.name for field in dataclasses.fields(Layer)]
    with path.open("w", newline="") as file:
        lines = csv.writer(file)
        lines.writerow([*names, "why"])
        for v in (CONV, AVGPOOL):
            values = [getattr(v, name) for name in names]
            joined = [";".join(map(str, x)) if isinstance(x, tuple) else x for x in values]
            lines.writerow([*joined, "a, b"])
    monkeypatch.setattr(layers, "SHORT", path)
    monkeypatch.setattr(cli, "machine_limits", lambda threads: {"FMA": 1.0})
    fakes = [Fake("pyconv"), Fake("torch")]
    monkeypatch.setattr(engines, "installed", lambda names: fakes)
    return path


def test_the_command_measures_keeps_and_sums_up(small, tmp_path, capsys) -> None:
    path = tmp_path / "out.csv"
    command = ["bench", "--seconds", "0", "--threads", "1,2", "--output", str(path)]
    assert main([*command, "--ops", "grouped"]) == 0
    assert "6 rows" in capsys.readouterr().out
    assert main([*command, "--quick"]) == 0
    printed = capsys.readouterr().out
    assert "10 rows" in printed and printed.count("net/conv") < printed.count("net/avgpool") + 10
    machine, rows = records.read(path)
    assert len(rows) == 10 and {row.dtype for row in rows} == {"float32"}
    assert machine["pyconv"] == machine["torch"] == "1" and machine["isa"]
    page = path.with_suffix(".md").read_text()
    assert page.count("net/avgpool bwd n=2 f32 t2") >= 1 and "## To be reached" in page
    assert main(["bench", "--summary", str(path)]) == 0
    assert capsys.readouterr().out.strip() in page


def test_time_may_be_up(small, capsys) -> None:
    assert main(["bench", "--minutes", "0", "--threads", "1", "--dtypes", "f64"]) == 0
    assert "time is up: 5 rows left out" in capsys.readouterr().out


def test_another_machine_needs_a_word(small, tmp_path, capsys) -> None:
    path = tmp_path / "out.csv"
    records.Results(path, {"cpu": "another", "l2": "1"})
    command = ["bench", "--seconds", "0", "--passes", "bwd", "--output", str(path)]
    assert main(command) == 2
    assert "cpu: another ->" in capsys.readouterr().err
    assert main([*command, "--anyway"]) == 0


def test_the_floor_decides_the_exit_code(small, capsys) -> None:
    command = ["bench", "--seconds", "0", "--passes", "bwd", "--threads", "1", "--floor"]
    assert main([*command, "0.0001"]) == 0
    assert main([*command, "10000"]) == 1
    assert "below the floor of 10000.0: net/avgpool bwd" in capsys.readouterr().err


def test_no_rows_is_an_error(capsys) -> None:
    assert main(["bench", "--layers", "no such layer"]) == 2
    assert "no layer" in capsys.readouterr().err


def test_wrong_options_are_refused(capsys) -> None:
    for wrong in (["--dtypes", "f16"], ["--threads", "many"]):
        with pytest.raises(SystemExit):
            main(["bench", *wrong])
        assert "usage: python -m pyconv bench" in capsys.readouterr().err


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
