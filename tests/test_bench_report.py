"""The benchmark's file, the arithmetic of its summary, and its command. No time matters here."""

import csv
import dataclasses
import signal
from pathlib import Path

import pytest
from bench_fakes import AVGPOOL, CONV, MAXPOOL, ROW, Fake, bench_of, layer

import pyconv
from pyconv.__main__ import main
from pyconv._bench import cli, engines, layers, measure, records, report
from pyconv._bench.layers import Choice, Layer, Row


@pytest.fixture(autouse=True)
def leave_no_trace():
    """The number of threads and the signal handler are as they were."""
    threads, handler = pyconv.get_num_threads(), signal.getsignal(signal.SIGTERM)
    yield
    pyconv.set_num_threads(threads)
    signal.signal(signal.SIGTERM, handler)


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
    assert cli.below_floor(rows, 3.0) == rows[1:] and cli.below_floor(rows, 0.5) == rows[2:]
    assert not cli.below_floor([record(pyconv=1.0)], 3.0)


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


def test_limits_are_those_of_convolutions() -> None:
    lines = report.limit_table(
        [
            record(pyconv=1.0)._replace(noise=1.3),
            record(Row(MAXPOOL, 2, "float32", "fwd", 1), pyconv=1.0),
        ]
    )
    assert lines[2:] == [
        "| float32 | 1 |  |  |  | 0 of 1 |",
        "| float32 | 2 | 1.0 | 1.0 | 1.0 | 1 of 1 |",
    ]


def test_empty_columns_are_left_out() -> None:
    lines = report.table(["a", "b", "c"], [["1", "", ""], ["", "", "2"]])
    assert lines == ["| a | c |", "| --- | --- |", "| 1 |  |", "|  | 2 |"]


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
