"""The same bits: for any thread count, batch split, memory layout and instruction set with FMA.

Here the data are arbitrary numbers, so that a sum taken in another order shows. Two things are
left out of a comparison because no promise covers them: what a NaN carries, and the sign of zero.
That they are the right bits is the subject of test_right_bits.py.
"""

import functools
import hashlib
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from guarded import call_in_child
from runs import (
    CASES,
    DTYPES,
    POOLS,
    RUNS,
    Array,
    Case,
    Pool,
    Results,
    all_runs,
    check_same,
    convolve,
    fresh,
    inputs,
    parametrised,
    plain,
    pool_inputs,
    pooled,
    run_of,
)

import pyconv
from pyconv import _core

THREADS = [2, 3, 7]
ISAS = ["baseline", "avx2", "avx512", "neon"]
WITH_FMA = ["avx2", "avx512", "neon"]


# ---- threads ----


@parametrised
@pytest.mark.parametrize("name", RUNS)
def test_threads_do_not_matter(name: str, dtype: str) -> None:
    """1, 2, 3 and 7 threads: everything, weight and bias gradients as well."""
    given, run = run_of(name, dtype)
    with pyconv.num_threads(1):
        alone = run(**given)
    for count in THREADS:
        with pyconv.num_threads(count):
            check_same(run(**given), alone, f"{count} threads")


# ---- batches ----

PER_SAMPLE = {"forward", "gx", "transposed", "transposed gx"}
PER_SAMPLE |= {"max", "indices", "max gx", "avg", "avg gx"}


def check_batch(given: Results, run: Callable[..., Results]) -> None:
    """Compare the whole batch with its samples one by one, and with an uneven split."""
    whole = {name: array for name, array in run(**given).items() if name in PER_SAMPLE}
    n = len(given["x"])
    for cuts in (range(n + 1), (0, n // 3, n // 3 + 1, n)):
        parts = []
        for start, stop in zip(cuts, list(cuts)[1:], strict=False):
            if start == stop:
                continue
            part = {k: v[start:stop] if k in ("x", "gy") else v for k, v in given.items()}
            parts.append(run(**part))
        joined = {name: np.concatenate([part[name] for part in parts]) for name in whole}
        check_same(joined, whole, f"batch cut at {list(cuts)}")


@parametrised
@pytest.mark.parametrize("name", RUNS)
def test_batches_do_not_matter(name: str, dtype: str) -> None:
    """A batch at once, one by one, and in uneven parts."""
    check_batch(*run_of(name, dtype))


@parametrised
@pytest.mark.parametrize("n", [5, 17, 33])
@pytest.mark.parametrize("size", range(1, 8))
def test_batches_of_small_maps_do_not_matter(size: int, n: int, dtype: str) -> None:
    """Small maps are where a batch could be folded into the pixels."""
    for case in (
        Case(n, 1, 5, 9, (size, size), (3, 3), padding=(1, 1)),
        Case(n, 1, 9, 7, (size, 8 - size), (1, 1)),
        Case(n, 4, 4, 4, (size, size), (3, 3), (2, 2), (1, 1)),
    ):
        check_batch(inputs(case, dtype), functools.partial(convolve, case))
    pool = Pool((n, 3, size, size), min(size, 3), 2, min(size, 3) // 2, True)
    check_batch(pool_inputs(pool, dtype), functools.partial(pooled, pool))


def test_one_image_without_a_batch() -> None:
    """Unbatched input gives the bits of a batch of one."""
    case = CASES["dense"]
    given = inputs(case, "float32")
    one = convolve(case, given["x"][0], given["w"], given["b"], given["gy"][0])
    batch = convolve(case, given["x"][:1], given["w"], given["b"], given["gy"][:1])
    for name, array in batch.items():
        squeezed = array[0] if name in PER_SAMPLE else array
        check_same({name: one[name]}, {name: squeezed}, "unbatched")


# ---- memory layouts ----


def embedded(array: Array, steps: tuple[int, ...]) -> Array:
    """Return a view into a larger array, with these steps along the last axes, NaNs in between."""
    steps = (1,) * (array.ndim - len(steps)) + steps[-array.ndim :]
    larger = np.full([n * abs(s) + 1 for n, s in zip(array.shape, steps, strict=True)], np.nan)
    cut = tuple(
        slice(1, None, s) if s > 0 else slice(-1, 0, s)
        for s in (steps[axis] for axis in range(array.ndim))
    )
    view = larger.astype(array.dtype)[cut]
    view[...] = array
    return view


def misaligned(array: Array) -> Array:
    """Return a copy that starts at an odd address."""
    buffer = np.empty(array.nbytes + 1, np.uint8)
    copy = buffer[1:].view(array.dtype).reshape(array.shape)
    copy[...] = array
    return copy


def packed(array: Array) -> Array:
    """Return a field of packed records: its steps are no multiples of the item's size."""
    records = np.zeros(array.shape, np.dtype([("tag", "u1"), ("value", array.dtype)]))
    records["value"] = array
    return records["value"]


def wild_steps(array: Array) -> Array:
    """Return a view whose axes of length 1 have steps that lead nowhere."""
    steps = [
        123456789 if n == 1 else step for n, step in zip(array.shape, array.strides, strict=True)
    ]
    return np.lib.stride_tricks.as_strided(array, array.shape, steps)


def readonly(array: Array) -> Array:
    """Return a copy that refuses to be written."""
    copy = array.copy()
    copy.flags.writeable = False
    return copy


class Subclass(np.ndarray):  # type: ignore[type-arg]
    """A subclass, which is treated as a plain array."""


class Wrapped:
    """Something that becomes an array."""

    def __init__(self, array: Array) -> None:
        self.array = array

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Array:
        """Hand the array out."""
        return self.array if dtype is None else self.array.astype(dtype)


def permuted(order: tuple[int, ...]) -> Callable[[Array], Array]:
    """Return a function that stores the last axes in another order."""

    def store(array: Array) -> Array:
        if array.ndim != len(order):
            return array[::-1].copy()[::-1]
        inverse = np.argsort(order)
        return array.transpose(order).copy().transpose(inverse)

    return store


LAYOUTS: dict[str, Callable[[Array], Any]] = {
    "channels last": permuted((0, 2, 3, 1)),
    "batch last": permuted((1, 2, 3, 0)),
    "rows and columns exchanged": permuted((0, 1, 3, 2)),
    "fortran": np.asfortranarray,
    "every second column": lambda a: embedded(a, (2,)),
    "every third row": lambda a: embedded(a, (3, 1)),
    "every second of everything": lambda a: embedded(a, (2, 2, 2, 2)),
    "columns backward": lambda a: embedded(a, (-1,)),
    "rows backward": lambda a: embedded(a, (-1, 1)),
    "everything backward, with gaps": lambda a: embedded(a, (-2, -1, -3, -2)),
    "byteswapped": lambda a: a.astype(a.dtype.newbyteorder()),
    "misaligned": misaligned,
    "packed record": packed,
    "wild steps": wild_steps,
    "read-only": readonly,
    "subclass": lambda a: a.view(Subclass),
    "__array__": Wrapped,
}


@parametrised
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize(
    "name",
    [
        *("dense", "first", "dilated", "sides", "depthwise", "depthwise-planes", "pointwise"),
        *("depthwise-strided", "depthwise-seven", "resnet", "overlapping"),
    ],
)
def test_layouts_do_not_matter(name: str, layout: str, dtype: str) -> None:
    """Each argument in each layout, one at a time and all together; none is changed."""
    given, run = run_of(name, dtype)
    expected = run(**given)
    stored = {key: LAYOUTS[layout](array) for key, array in given.items()}
    for key in [*given, None]:
        chosen = stored if key is None else {**given, key: stored[key]}
        if name in POOLS:
            chosen = {**chosen, "x": np.asarray(chosen["x"])}  # its .shape is asked for
        check_same(run(**chosen), expected, f"{key or 'all'}: {layout}")
    for key, array in given.items():
        assert np.array_equal(np.asarray(stored[key]), array), f"{key} was changed"


def test_lists() -> None:
    """Nested lists of floats are float64 arrays."""
    case = CASES["sides"]
    given = inputs(case, "float64")
    lists: Any = {key: array.tolist() for key, array in given.items()}
    check_same(convolve(case, **lists), convolve(case, **given), "lists")


@parametrised
def test_axes_of_length_one_with_wild_steps(dtype: str) -> None:
    """One image, one channel, one row, one column: steps that are never taken do not matter."""
    for case in (
        Case(1, 1, 1, 1, (1, 9), (1, 3)),
        Case(1, 1, 3, 1, (9, 1), (3, 1), padding=(1, 0)),
        Case(2, 1, 1, 1, (1, 1), (1, 1)),
        Case(1, 1, 1, 4, (6, 6), (3, 3), padding=(1, 1)),
    ):
        given = inputs(case, dtype)
        wild = {key: wild_steps(array) for key, array in given.items()}
        check_same(convolve(case, **wild), convolve(case, **given), "wild steps")


@parametrised
@pytest.mark.parametrize("axis", range(4))
def test_broadcast_inputs(axis: int, dtype: str) -> None:
    """An axis of step 0 reads the same element again and again."""
    case = CASES["dense"]
    given = inputs(case, dtype)
    broadcast = {
        key: np.broadcast_to(array.take([0], axis % array.ndim), array.shape)
        for key, array in given.items()
    }
    assert all(0 in array.strides for array in broadcast.values())
    copies = {key: array.copy() for key, array in broadcast.items()}
    check_same(convolve(case, **broadcast), convolve(case, **copies), f"broadcast axis {axis}")


@parametrised
def test_overlapping_inputs(dtype: str) -> None:
    """The same memory under many elements, and the same array as several arguments."""
    line = fresh(400, dtype, 9)
    x = np.lib.stride_tricks.as_strided(
        line, (2, 3, 9, 31), [k * line.itemsize for k in (7, 2, 3, 1)]
    )
    case = Case(2, 1, 3, 3, (9, 31), (3, 3), padding=(1, 1))
    w = np.lib.stride_tricks.as_strided(
        line, (3, 3, 3, 3), [k * line.itemsize for k in (1, 2, 1, 3)]
    )
    given = {"x": x, "w": w, "b": line[:3], "gy": x}
    copies = {key: array.copy() for key, array in given.items()}
    before = line.copy()
    check_same(convolve(case, **given), convolve(case, **copies), "overlapping")
    assert np.array_equal(line, before, equal_nan=True)


# ---- training, eval ----


@parametrised
def test_layer_and_function_agree(dtype: str) -> None:
    """Training mode, eval mode, vjp and the functions: the same bits."""
    case = CASES["strided"]
    given = inputs(case, dtype)
    expected = convolve(case, **given)
    layer = pyconv.Conv2d(
        case.ic,
        case.oc,
        case.kernel,
        case.stride,
        case.padding,
        case.dilation,
        case.groups,
        dtype=dtype,
    )
    layer.weight, layer.bias = given["w"], given["b"]
    layer.train()
    found = {"forward": layer(given["x"]), "gx": layer.backward(given["gy"])}
    found.update({"gw": layer.weight_grad, "gb": layer.bias_grad})
    check_same(found, {key: expected[key] for key in found}, "training")
    layer.backward(given["gy"], False)
    twice = {"gw": expected["gw"] + expected["gw"], "gb": expected["gb"] + expected["gb"]}
    check_same({"gw": layer.weight_grad, "gb": layer.bias_grad}, twice, "backward twice")
    layer.eval()
    check_same({"forward": layer(given["x"])}, {"forward": expected["forward"]}, "eval")
    y, pullback = layer.vjp(given["x"])
    check_same(
        {"forward": y, "gx": pullback(given["gy"])},
        {key: expected[key] for key in ("forward", "gx")},
        "vjp",
    )


# ---- instruction sets ----


def fingerprints() -> dict[str, Any]:
    """Return the chosen instruction set and hashes of all results, for two kinds of data."""
    found: dict[str, Any] = {"isa": _core.build_info()["isa"]}
    for dtype in DTYPES:
        for name, given, run in all_runs(dtype):
            for key, array in run(**given).items():
                found[f"{dtype} {name} {key}"] = hashlib.sha256(plain(array)).hexdigest()
            small = {key: np.rint(np.clip(array, -4, 4)) for key, array in given.items()}
            if name in CASES:
                for key, array in run(**small).items():
                    found[f"integers {dtype} {name} {key}"] = hashlib.sha256(
                        plain(array)
                    ).hexdigest()
    return found


@functools.cache
def fingerprints_with(isa: str) -> dict[str, Any]:
    """Return the fingerprints of a process that is capped to an instruction set."""
    found: dict[str, Any] = call_in_child(fingerprints, env={"PYCONV_ISA": isa})
    return found


def test_instruction_sets_with_fma_agree() -> None:
    """Every instruction set of this machine that fuses: the same bits, weight gradients too."""
    found = [fingerprints_with(isa) for isa in WITH_FMA]
    usable = [each for each, isa in zip(found, WITH_FMA, strict=True) if each["isa"] == isa]
    if not usable:
        pytest.skip("this machine has no instruction set with fused multiply-add")
    for other in usable:
        different = [key for key in other if key != "isa" and other[key] != usable[0][key]]
        assert not different, (other["isa"], usable[0]["isa"])


def test_integers_are_exact_on_every_instruction_set() -> None:
    """With integers even the baseline, which rounds twice, gives the same bits."""
    found = [fingerprints_with(isa) for isa in ISAS]
    assert found[0]["isa"] == "baseline"
    for other in found:
        different = [
            key for key in other if key.startswith("integers") and other[key] != found[0][key]
        ]
        assert not different, other["isa"]
