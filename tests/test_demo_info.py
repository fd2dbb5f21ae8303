"""``python -m pyconv``: info, demo, and what a wrong call says."""

import importlib.util
import subprocess
import sys

import numpy as np
import pytest

import pyconv
from pyconv.__main__ import main

needs_demo_extra = pytest.mark.skipif(
    any(importlib.util.find_spec(name) is None for name in ("sklearn", "matplotlib", "tqdm")),
    reason="demo extra is not installed",
)


def run(*arguments, cwd=None):
    return subprocess.run(
        [sys.executable, "-m", "pyconv", *arguments],
        capture_output=True,
        text=True,
        cwd=cwd,
        check=False,
    )


# ---- info ----

KEYS = ["pyconv", "python", "numpy", "platform", "cpu", "cpus", "threads", "compiler", "isa"]


def test_info_prints_the_keys():
    done = run("info")
    assert done.returncode == 0 and done.stderr == ""
    lines = dict(line.split(None, 1) for line in done.stdout.splitlines())
    for key in KEYS:
        assert lines[key].strip(), key
    assert lines["pyconv"] == pyconv.__version__ and lines["numpy"] == np.__version__
    assert lines["isa"] in lines["isa_compiled"].split(", ")


def test_show_config(capsys):
    config = pyconv.show_config(as_dict=True)
    assert capsys.readouterr().out == ""
    assert set(KEYS) <= set(config)
    assert config["threads"] == pyconv.get_num_threads()
    assert pyconv.show_config() is None
    printed = capsys.readouterr().out
    assert [line.split()[0] for line in printed.splitlines()] == list(config)


def test_info_shows_the_environment(monkeypatch):
    monkeypatch.setenv("PYCONV_NUM_THREADS", "3")
    assert ["PYCONV_NUM_THREADS", "3"] in [line.split() for line in run("info").stdout.splitlines()]
    assert pyconv.show_config(as_dict=True)["PYCONV_NUM_THREADS"] == "3"


def test_importing_pyconv_imports_little():
    code = "import sys, pyconv; print(*sys.modules)"
    names = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = set(names.stdout.split())
    assert "pyconv.functional" in loaded
    assert not loaded & {"numpy.random", "dataclasses", "asyncio", "sklearn", "matplotlib", "torch"}
    assert not loaded & {f"pyconv.{name}" for name in ("optim", "testing", "reference", "demo")}


# ---- wrong calls ----


@pytest.mark.parametrize(
    "arguments",
    [[], ["train"], ["demo", "--seed", "-1"], ["demo", "--epochs", "0"], ["demo", "--seed", "x"]],
)
def test_wrong_calls_say_how(arguments, capsys):
    with pytest.raises(SystemExit) as exit_code:
        main(arguments)
    assert exit_code.value.code == 2
    assert "usage: python -m pyconv" in capsys.readouterr().err


def test_help_names_the_commands(capsys):
    with pytest.raises(SystemExit) as exit_code:
        main(["--help"])
    assert exit_code.value.code == 0
    out = capsys.readouterr().out
    assert "info" in out and "demo" in out


@pytest.mark.parametrize("missing", ["sklearn", "matplotlib", "tqdm"])
def test_demo_without_its_extra_says_what_to_install(missing, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, missing, None)
    if missing == "sklearn":
        monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    assert main(["demo"]) == 2
    captured = capsys.readouterr()
    assert captured.out == "" and captured.err.count("\n") == 1
    assert 'pip install "pyconv[demo]"' in captured.err


# ---- demo ----


def hash_of(text):
    (line,) = [line for line in text.splitlines() if line.startswith("weights ")]
    return line.split()[1]


@needs_demo_extra
def test_demo_saves_a_picture_and_gives_the_same_bits_twice(tmp_path, capsys):
    done = run("demo", "--epochs", "1", "--seed", "3", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    picture = (tmp_path / "pyconv-demo.png").read_bytes()
    assert picture.startswith(b"\x89PNG\r\n\x1a\n") and len(picture) > 20_000
    assert "training" in done.stderr  # the progress bar
    for text in ("accuracy", "held-out", "random", "UCI", "seed 3"):
        assert text in done.stdout

    assert main(["demo", "--epochs", "1", "--seed", "3", "--output", str(tmp_path / "b.png")]) == 0
    again = capsys.readouterr().out
    assert hash_of(again) == hash_of(done.stdout)
    from matplotlib.image import imread

    image = imread(tmp_path / "b.png")
    assert image.shape[0] > 500 and image.shape[1] > 800 and image[..., :3].std() > 0.1


@needs_demo_extra
def test_demo_seed_decides(tmp_path):
    from sklearn.datasets import load_digits

    from pyconv import demo

    class Silent:
        def update(self):
            pass

        def set_postfix(self, **values):
            pass

    data = load_digits()
    hashes, accuracies = [], []
    for seed, threads in ((0, 1), (0, 2), (1, 1)):
        with pyconv.num_threads(threads):
            digits = demo.load(data.images, data.target, seed)
            model = demo.build(seed)
            history = demo.train(model, digits, seed, 2, Silent())
        hashes.append(demo.weights_hash(model))
        accuracies.append(history.accuracies[-1])
        assert len(digits.test_labels) == 449 and len(digits.labels) == 1348
        assert abs(digits.images.mean()) < 1e-5 and abs(digits.images.std() - 1) < 1e-5
        assert len(history.losses) == 2 * 43
    assert hashes[0] == hashes[1] != hashes[2]
    assert min(accuracies) > 0.8


@needs_demo_extra
def test_demo_will_not_train_for_a_picture_that_cannot_be_saved(tmp_path, capsys):
    assert main(["demo", "--output", str(tmp_path / "no" / "a.png")]) == 2
    assert "There is no folder" in capsys.readouterr().err
