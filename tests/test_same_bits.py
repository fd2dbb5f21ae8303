"""The same bits: for any thread count, batch split, memory layout and instruction set with FMA.

Here the data are arbitrary numbers, so that a sum taken in another order shows. Two things are
left out of a comparison because no promise covers them: what a NaN carries, and the sign of zero.

And not only the same bits, but the right ones: forward and input gradients are compared with one
scalar chain of fused multiply-adds per output, in the order that the definition gives.
"""

import ctypes
import functools
import hashlib
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
import pytest
from guarded import call_in_child
from kernels.library import load_oracle, numbers

import pyconv
import pyconv.functional as F
from pyconv import _core, reference

Array = np.ndarray[Any, np.dtype[Any]]
Results = dict[str, Array]

DTYPES = ["float32", "float64"]
THREADS = [2, 3, 7]
ISAS = ["baseline", "avx2", "avx512", "neon"]
WITH_FMA = ["avx2", "avx512", "neon"]


class Case(NamedTuple):
    """A convolution, and by exchange of its two tensors a transposed one."""

    n: int
    groups: int
    ic: int
    oc: int
    size: tuple[int, int]
    kernel: tuple[int, int]
    stride: tuple[int, int] = (1, 1)
    padding: Any = (0, 0)
    dilation: tuple[int, int] = (1, 1)

    @property
    def options(self) -> dict[str, Any]:
        """The keywords of pyconv.functional."""
        return {
            "stride": self.stride,
            "padding": self.padding,
            "dilation": self.dilation,
            "groups": self.groups,
        }

    @property
    def sides(self) -> tuple[tuple[int, int], tuple[int, int]]:
        """The padding as ((top, bottom), (left, right))."""
        if self.padding == "same":
            rows, columns = (d * (k - 1) for k, d in zip(self.kernel, self.dilation, strict=True))
            return (rows // 2, rows - rows // 2), (columns // 2, columns - columns // 2)
        first, second = self.padding
        return (first, second) if isinstance(first, tuple) else ((first, first), (second, second))

    @property
    def out(self) -> tuple[int, int]:
        """The size of the output."""
        found = []
        for axis in (0, 1):
            reach = self.dilation[axis] * (self.kernel[axis] - 1) + 1
            found.append((self.size[axis] + sum(self.sides[axis]) - reach) // self.stride[axis] + 1)
        return found[0], found[1]


CASES = {
    "dense": Case(2, 1, 9, 20, (17, 41), (3, 3), padding=(1, 1)),
    "pointwise": Case(3, 1, 33, 19, (9, 11), (1, 1)),
    "first": Case(2, 1, 3, 16, (40, 39), (7, 7), (2, 2), (3, 3)),
    "strided": Case(2, 1, 8, 12, (21, 35), (3, 3), (2, 2), (1, 1)),
    "strided-pointwise": Case(2, 1, 12, 10, (15, 20), (1, 1), (2, 2)),
    "dilated": Case(2, 1, 6, 9, (25, 33), (3, 3), (1, 1), (2, 2), (2, 2)),
    "far": Case(2, 1, 4, 7, (9, 14), (3, 4), (1, 1), (7, 11), (6, 5)),
    "sides": Case(2, 1, 5, 7, (12, 31), (4, 2), (3, 1), ((2, 0), (0, 3)), (1, 2)),
    "same": Case(2, 1, 5, 7, (12, 31), (4, 2), padding="same"),
    "grouped": Case(2, 3, 12, 15, (13, 29), (3, 3), padding=(1, 1)),
    "depthwise": Case(2, 24, 24, 24, (14, 37), (3, 3), padding=(1, 1)),
    "depthwise-strided": Case(2, 10, 10, 20, (15, 30), (5, 5), (2, 2), (2, 2)),
    "channels": Case(4, 1, 70, 65, (5, 5), (3, 3), padding=(1, 1)),
    # more than a slab of scratch holds: cut into bands, columns, blocks of channels
    "bands": Case(1, 1, 16, 7, (75, 110), (3, 3), padding=(1, 1)),
    "columns": Case(1, 1, 19, 3, (5, 2100), (3, 5), padding=(1, 2)),
    "blocks": Case(1, 1, 150, 9, (13, 90), (3, 3), padding=(1, 1)),
    "blocks of outputs": Case(1, 1, 9, 150, (13, 90), (3, 3), (2, 2), (1, 1)),
    "window": Case(2, 1, 3, 5, (40, 44), (31, 33), padding=(15, 16)),
}


def fresh(shape: Any, dtype: str, seed: int) -> Array:
    """Return arbitrary numbers."""
    rng = np.random.default_rng(seed)
    return numbers(rng, int(np.prod(shape)), dtype).reshape(shape)


def plain(array: Array) -> bytes:
    """Return the bytes of an array, with one zero and one NaN."""
    if array.dtype.kind == "f":
        array = array + array.dtype.type(0)  # -0 + 0 is +0
        array[np.isnan(array)] = np.nan
    return array.tobytes()


def check_same(got: Results, expected: Results, what: str) -> None:
    """Demand the same bits in all results."""
    assert got.keys() == expected.keys()
    for name, array in expected.items():
        assert got[name].dtype == array.dtype, (what, name)
        assert got[name].shape == array.shape, (what, name)
        if plain(got[name]) != plain(array):
            far = np.nanmax(np.abs(got[name] - array))
            pytest.fail(f"{name} differs ({what}), at most by {far}")


def inputs(case: Case, dtype: str) -> Results:
    """Return the tensors of a convolution and of the transposed one with the same weight."""
    return {
        "x": fresh((case.n, case.ic, *case.size), dtype, 1),
        "w": fresh((case.oc, case.ic // case.groups, *case.kernel), dtype, 2),
        "b": fresh(case.oc, dtype, 3),
        "gy": fresh((case.n, case.oc, *case.out), dtype, 4),
    }


def more(case: Case) -> tuple[int, int]:
    """Return the output padding with which the transposed convolution's output has case.size."""
    return tuple(  # type: ignore[return-value]
        (
            case.size[axis]
            + sum(case.sides[axis])
            - 1
            - case.dilation[axis] * (case.kernel[axis] - 1)
        )
        % case.stride[axis]
        for axis in (0, 1)
    )


def convolve(case: Case, x: Array, w: Array, b: Array, gy: Array) -> Results:
    """Return forward and gradients, plain and transposed where the padding allows it."""
    options = case.options
    gx, gw, gb = F.conv2d_backward(gy, x, w, **options)
    found = {"forward": F.conv2d(x, w, b, **options), "gx": gx, "gw": gw, "gb": gb}
    if all(before == after for before, after in case.sides):
        options["padding"] = tuple(before for before, _ in case.sides)
        options["output_padding"] = more(case)
        found["transposed"] = F.conv_transpose2d(gy, w, None, **options)
        gx, gw, gb = F.conv_transpose2d_backward(x, gy, w, **options)
        found.update({"transposed gx": gx, "transposed gw": gw, "transposed gb": gb})
    return found


class Pool(NamedTuple):
    """A pool of either kind."""

    shape: tuple[int, int, int, int]
    kernel: int
    stride: int
    padding: int
    ceil_mode: bool


POOLS = {
    "halves": Pool((3, 5, 40, 38), 2, 2, 0, False),
    "resnet": Pool((2, 6, 35, 33), 3, 2, 1, False),
    "overlapping": Pool((2, 4, 19, 50), 5, 1, 2, False),
    "gaps": Pool((2, 3, 31, 29), 2, 5, 1, True),
    "global": Pool((2, 9, 7, 7), 7, 7, 0, False),
}


def pool_inputs(pool: Pool, dtype: str) -> Results:
    """Return an image and gradients."""
    x = fresh(pool.shape, dtype, 5)
    return {"x": x, "gy": fresh(F.max_pool2d(x, *pool[1:4], 1, pool.ceil_mode).shape, dtype, 6)}


def pooled(pool: Pool, x: Array, gy: Array) -> Results:
    """Return forward and gradients of both pools."""
    _, k, s, p, ceil = pool
    values, indices = F.max_pool2d(x, k, s, p, 1, ceil, True)
    return {
        "max": values,
        "indices": indices,
        "max gx": F.max_pool2d_backward(gy, indices, x.shape),
        "avg": F.avg_pool2d(x, k, s, p, ceil, False),
        "avg gx": F.avg_pool2d_backward(gy, x.shape, k, s, p, ceil),
    }


def all_runs(dtype: str) -> Iterator[tuple[str, Results, Callable[..., Results]]]:
    """Yield name, inputs and function of every case."""
    for name, case in CASES.items():
        yield name, inputs(case, dtype), functools.partial(convolve, case)
    for name, pool in POOLS.items():
        yield name, pool_inputs(pool, dtype), functools.partial(pooled, pool)


RUNS = [*CASES, *POOLS]
parametrised = pytest.mark.parametrize("dtype", DTYPES)


def run_of(name: str, dtype: str) -> tuple[Results, Callable[..., Results]]:
    """Return the inputs and the function of one case."""
    return next((given, run) for found, given, run in all_runs(dtype) if found == name)


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
    ["dense", "first", "dilated", "sides", "depthwise", "pointwise", "resnet", "overlapping"],
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


# ---- the right bits ----


def chain(case: Case, dtype: str, which: str, *tensors: Array | None) -> Array:
    """Return the oracle's forward ("forward") or input gradient ("backward_input")."""
    (top, _), (left, _) = case.sides
    oh, ow = case.out
    sizes = (ctypes.c_int64 * 16)(
        *(case.n, case.groups, case.ic, case.oc, *case.size, oh, ow),
        *(*case.kernel, *case.stride, *case.dilation, top, left),
    )
    channels, size = (case.oc, case.out) if which == "forward" else (case.ic, case.size)
    result = np.full((case.n, channels, *size), np.nan, dtype)
    contiguous = [None if each is None else np.ascontiguousarray(each) for each in tensors]
    pointers = [None if each is None else each.ctypes.data for each in (result, *contiguous)]
    word = "f32" if dtype == "float32" else "f64"
    function = getattr(load_oracle(), f"oracle_{word}_conv_{which}")
    fused = _core.build_info()["isa"] != "baseline"
    function(ctypes.byref(sizes), *map(ctypes.c_void_p, pointers), int(fused))
    return result


@parametrised
@pytest.mark.parametrize("name", CASES)
def test_convolution_is_the_scalar_chain(name: str, dtype: str) -> None:
    """Bias first, then taps in the order channel, kernel row, kernel column, one fma each."""
    case = CASES[name]
    t = inputs(case, dtype)
    found = convolve(case, **t)
    expected = {
        "forward": chain(case, dtype, "forward", t["x"], t["w"], t["b"]),
        "gx": chain(case, dtype, "backward_input", t["gy"], t["w"], None),
    }
    if "transposed" in found:
        expected["transposed"] = expected["gx"]
        expected["transposed gx"] = chain(case, dtype, "forward", t["x"], t["w"], None)
    check_same({key: found[key] for key in expected}, expected, "scalar chain")


@parametrised
def test_transposed_bias_comes_first(dtype: str) -> None:
    """The transposed convolution's chain starts at its bias as well."""
    case = CASES["strided"]
    t = inputs(case, dtype)
    bias = fresh(case.ic, dtype, 11)
    got = F.conv_transpose2d(
        t["gy"], t["w"], bias, case.stride, case.padding, more(case), case.groups, case.dilation
    )
    expected = chain(case, dtype, "backward_input", t["gy"], t["w"], bias)
    check_same({"transposed": got}, {"transposed": expected}, "scalar chain")


# ---- infinities and NaNs ----

FOOTPRINTS = [
    Case(1, 1, 2, 3, (5, 6), (3, 3), padding=(1, 1)),
    Case(1, 1, 2, 3, (5, 6), (3, 2), (2, 2), (1, 1)),
    Case(2, 2, 2, 4, (4, 5), (2, 3), (1, 1), ((0, 2), (3, 1)), (2, 2)),
    Case(1, 3, 3, 3, (5, 5), (3, 3), (2, 1), (1, 2)),
    Case(1, 1, 1, 2, (3, 2), (3, 3), (1, 1), (9, 9), (8, 9)),  # whole taps in the padding
    Case(3, 1, 2, 2, (1, 2), (4, 4), (1, 1), (2, 3)),  # more padding than image
]


def special_at(array: Array, position: int, value: float) -> Array:
    """Return a copy with one element replaced."""
    copy = array.copy()
    copy.flat[position] = value
    return copy


@parametrised
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf], ids=str)
@pytest.mark.parametrize("case", FOOTPRINTS, ids=str)
def test_footprint_of_infinity_and_nan(case: Case, value: float, dtype: str) -> None:
    """Each position of each tensor in turn: the chain's own infinities and NaNs, and no others.

    In forward the padding's zeros are multiplied, so an infinite weight over padding gives NaN. In
    the input gradient no tap lies outside the gradient, so there it gives nothing.
    """
    t = {key: np.abs(array) + array.dtype.type(1) for key, array in inputs(case, dtype).items()}
    for key in ("x", "w", "gy"):
        for position in range(t[key].size):
            u = {**t, key: special_at(t[key], position, value)}
            found = convolve(case, **u)
            expected = {
                "forward": chain(case, dtype, "forward", u["x"], u["w"], u["b"]),
                "gx": chain(case, dtype, "backward_input", u["gy"], u["w"], None),
            }
            if "transposed" in found:
                expected["transposed"] = expected["gx"]
                expected["transposed gx"] = chain(case, dtype, "forward", u["x"], u["w"], None)
            check_same({k: found[k] for k in expected}, expected, f"{value} in {key}[{position}]")


@parametrised
def test_infinite_weight_over_padding(dtype: str) -> None:
    """The rule by hand: NaN where the weight meets padding, infinity where it meets the image."""
    x = np.ones((1, 1, 1, 3), dtype)
    w = np.array([[[[np.inf, 1, 1]]]], dtype)
    y = F.conv2d(x, w, padding=(0, 1))
    assert np.isnan(y[0, 0, 0, 0])
    assert np.isposinf(y[0, 0, 0, 1:]).all()
    gx = F.conv2d_backward(x, x, w, padding=(0, 1))[0]
    assert np.isposinf(gx[0, 0, 0, :2]).all()
    assert gx[0, 0, 0, 2] == 2  # the infinite tap of this cell lies behind the gradient


@parametrised
@pytest.mark.parametrize("name", ["resnet", "gaps", "overlapping"])
def test_pool_footprint_of_infinity_and_nan(name: str, dtype: str) -> None:
    """NaNs and infinities reach the windows that hold them, in both pools."""
    pool = POOLS[name]
    given = pool_inputs(pool, dtype)
    rng = np.random.default_rng(12)
    for key in given:
        chosen = rng.random(given[key].shape) < 0.02
        given[key][chosen] = rng.choice([np.nan, np.inf, -np.inf], int(chosen.sum()))
    _, k, s, p, ceil = pool
    x, gy = given["x"], given["gy"]
    found = pooled(pool, **given)
    values, indices = reference.max_pool2d(x, k, s, p, 1, ceil, True)
    check_same({"max": found["max"]}, {"max": values}, "reference")
    assert np.array_equal(found["indices"], indices)
    with np.errstate(invalid="ignore"):
        average = reference.avg_pool2d(x, k, s, p, ceil, False)
        gradient = reference.avg_pool2d_backward(gy, x.shape, k, s, p, ceil)
    for got, expected in ((found["avg"], average), (found["avg gx"], gradient)):
        assert np.array_equal(np.isnan(got), np.isnan(expected))
        assert np.array_equal(np.isinf(got), np.isinf(expected))
