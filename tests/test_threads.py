"""How many threads a call may use: defaults, the process-wide number, and the context."""

import asyncio
import contextvars
import os
import subprocess
import sys
import threading

import numpy as np
import pytest

import pyconv


@pytest.fixture(autouse=True)
def restore():
    before = pyconv.get_num_threads()
    yield
    pyconv.set_num_threads(before)


def in_child(code, **environment):
    kept = {k: v for k, v in os.environ.items() if not k.endswith("_NUM_THREADS")}
    return subprocess.run(
        [sys.executable, "-c", code],
        env={**kept, **environment},
        capture_output=True,
        text=True,
        check=True,
    ).stdout.strip()


SHOW = "import pyconv; print(pyconv.get_num_threads())"


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({"PYCONV_NUM_THREADS": "3"}, 3),
        ({"OMP_NUM_THREADS": "5"}, 5),
        ({"PYCONV_NUM_THREADS": "3", "OMP_NUM_THREADS": "5"}, 3),
        ({"OMP_NUM_THREADS": "4,2"}, 4),
        ({"PYCONV_NUM_THREADS": "", "OMP_NUM_THREADS": " 6 "}, 6),
        ({"PYCONV_NUM_THREADS": "many", "OMP_NUM_THREADS": "-1"}, None),
        ({"PYCONV_NUM_THREADS": "0", "OMP_NUM_THREADS": "2.5"}, None),
        ({}, None),
    ],
)
def test_default(environment, expected, monkeypatch):
    for name in ("PYCONV_NUM_THREADS", "OMP_NUM_THREADS"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert pyconv._threads.default_num_threads() == (expected or len(os.sched_getaffinity(0)))


def test_default_is_set_on_import():
    assert in_child(SHOW, PYCONV_NUM_THREADS="3") == "3"
    assert in_child(SHOW, OMP_NUM_THREADS="5") == "5"
    one = "import os; os.sched_setaffinity(0, {min(os.sched_getaffinity(0))}); " + SHOW
    assert in_child(one) == "1"


def test_importing_leaves_the_environment_alone():
    code = "import os; before = dict(os.environ); import pyconv; print(before == dict(os.environ))"
    assert in_child(code) == "True"


def test_set_and_get():
    pyconv.set_num_threads(3)
    assert pyconv.get_num_threads() == 3
    for wrong in (0, -1):
        with pytest.raises(ValueError, match="at least 1"):
            pyconv.set_num_threads(wrong)
        with pytest.raises(ValueError, match="at least 1"):
            pyconv.num_threads(wrong)
    for wrong in (True, 1.0, "2", None):
        with pytest.raises(TypeError):
            pyconv.set_num_threads(wrong)
        with pytest.raises(TypeError):
            pyconv.num_threads(wrong)
    assert pyconv.get_num_threads() == 3


def test_a_context_nests_and_ends_with_an_error_too():
    pyconv.set_num_threads(2)
    two = pyconv.num_threads(4)
    with pyconv.num_threads(3):
        assert pyconv.get_num_threads() == 3
        with two, two:
            assert pyconv.get_num_threads() == 4
        pyconv.set_num_threads(5)  # process-wide: the context stays
        assert pyconv.get_num_threads() == 3
        with pytest.raises(KeyError), pyconv.num_threads(1):
            raise KeyError
        assert pyconv.get_num_threads() == 3
    assert pyconv.get_num_threads() == 5


def test_a_context_is_for_its_own_thread():
    pyconv.set_num_threads(2)
    seen = []
    with pyconv.num_threads(7):
        thread = threading.Thread(
            target=contextvars.Context().run,
            args=(lambda: seen.append(pyconv.get_num_threads()),),
        )
        thread.start()
        thread.join()
        assert contextvars.copy_context().run(pyconv.get_num_threads) == 7
    assert seen == [2]


def test_a_context_is_for_its_own_task():
    pyconv.set_num_threads(2)

    async def task(n):
        with pyconv.num_threads(n):
            await asyncio.sleep(0)
            return pyconv.get_num_threads()

    async def both():
        return await asyncio.gather(task(3), task(4))

    assert asyncio.run(both()) == [3, 4]
    assert pyconv.get_num_threads() == 2


def test_results_do_not_depend_on_it():
    layer = pyconv.Conv2d(8, 16, 3, padding=1, rng=0)
    x = np.random.default_rng(0).standard_normal((4, 8, 33, 31))
    results = []
    for n in (1, 2, 5):
        with pyconv.num_threads(n):
            y, pullback = layer.vjp(x)
            layer.zero_grad()
            results.append((y.tobytes(), pullback(y).tobytes(), layer.weight_grad.tobytes()))
    assert results[0] == results[1] == results[2]
