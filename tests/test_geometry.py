"""csrc/geom: every size against formulas in unbounded integers, every error of the right kind.

The room is compiled alone, once as it is and once with the sanitizer of undefined behaviour, which
ends the process at the first sum that wraps. Absurd integers run against both; what would be a
crash in the second is one failed test, in a fork.
"""

import ctypes
import itertools
import random
from collections.abc import Callable, Iterable
from typing import Any

import geometry_reference as ref
import numpy as np
import pytest
from geometry_library import (
    INT64_MAX,
    INT64_MIN,
    TEXT_SIZE,
    ConvGeom,
    CWindow,
    Failure,
    Geometry,
    PoolGeom,
    Sizes,
    check_arithmetic,
    load,
    load_checked,
    outcome,
)
from geometry_reference import CIRCULAR, NUMBERS, REFLECT, REPLICATE, SAME, VALID, ZEROS, Window
from guarded import in_fork
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st


@pytest.fixture(scope="session")
def geom() -> Geometry:
    """The room as it is."""
    room = load()
    assert room is not None
    return room


@pytest.fixture(scope="session")
def checked() -> Geometry:
    """The room with the sanitizer."""
    return load_checked()


def crossed(axes: Iterable[Any], seed: int) -> list[tuple[Any, Any]]:
    """Pair each case of one axis with another one for the other axis, and with itself."""
    first = list(axes)
    second = first.copy()
    random.Random(seed).shuffle(second)
    return list(zip(first + first, second + first, strict=True))


def test_structs_are_what_this_file_thinks(geom: Geometry) -> None:
    mirrors = [CWindow, ConvGeom, PoolGeom]
    sizes = [ctypes.sizeof(mirror) for mirror in mirrors]
    assert [geom.c.probe_sizes(which) for which in range(4)] == [*sizes, TEXT_SIZE]


# ---- all small cases ----


def brute_windows(size: int, k: int, s: int, d: int, before: int, after: int) -> int:
    """Count windows by sliding one over the padded axis."""
    padded = ["pad"] * before + ["x"] * size + ["pad"] * after
    return sum(start + d * (k - 1) < len(padded) for start in range(0, len(padded), s))


def test_conv_sizes_of_all_small_cases(geom: Geometry) -> None:
    axes = [
        (i, k, s, d, b, a)
        for i, k, s, d in itertools.product(range(12), range(1, 6), range(1, 5), range(1, 4))
        for b, a in {(0, 0), (1, 1), (k // 2, k // 2), (0, 2), (k, 1)}
    ]
    fine = 0
    for y, x in crossed(axes, 1):
        kernel, stride, dilation, pad = (y[1], x[1]), (y[2], x[2]), (y[3], x[3]), (y[4:], x[4:])
        call = ((3, 4, y[0], x[0]), 4, 6, 2, Window(kernel, stride, dilation, pad))
        got = outcome(geom.conv, *call)
        assert got == outcome(ref.conv, *call), call
        if got is not ValueError:
            fine += 1
            slid = [brute_windows(i, k, s, d, b, a) for i, k, s, d, b, a in (y, x)]
            assert [got["oh"], got["ow"]] == slid
    assert len(axes) / 2 < fine < 2 * len(axes)


@pytest.mark.parametrize("ceil_mode", [False, True])
def test_pool_sizes_of_all_small_cases(geom: Geometry, ceil_mode: bool) -> None:
    axes = [
        (i, k, s, d, p)
        for i, k, s, d in itertools.product(range(12), range(1, 6), range(1, 5), range(1, 4))
        for p in range(k // 2 + 2)
    ]
    fine = 0
    for y, x in crossed(axes, 2 + ceil_mode):
        kernel, stride, dilation = (y[1], x[1]), (y[2], x[2]), (y[3], x[3])
        pad = ((y[4], y[4]), (x[4], x[4]))
        window = Window(kernel, stride, dilation, pad, ceil_mode=ceil_mode)
        got = outcome(geom.pool, (2, 5, y[0], x[0]), window)
        assert got == outcome(ref.pool, (2, 5, y[0], x[0]), window), (y, x)
        if got is not ValueError:
            fine += 1
            for (i, _, s, _, p), o in ((y, got["oh"]), (x, got["ow"])):
                assert (o - 1) * s < i + p, "the last window starts behind the image"
    assert len(axes) / 2 < fine < 2 * len(axes)


def test_transposed_sizes_of_all_small_cases(geom: Geometry) -> None:
    axes = [
        (t, k, s, d, p, op)
        for t, k, s, d in itertools.product(range(8), range(1, 6), range(1, 5), range(1, 4))
        for p in range(0, k // 2 + 1)
        for op in range(max(s, d) + 1)
    ]
    fine = 0
    for y, x in crossed(axes, 4):
        kernel, stride, dilation = (y[1], x[1]), (y[2], x[2]), (y[3], x[3])
        window = Window(kernel, stride, dilation, ((y[4], y[4]), (x[4], x[4])))
        call = ((3, 4, y[0], x[0]), 4, 6, 2, window, (y[5], x[5]))
        got = outcome(geom.conv_transpose, *call)
        assert got == outcome(ref.conv_transpose, *call), call
        if got is not ValueError:
            fine += 1
            # The convolution the other way must make at least the transposed input, and just
            # that where output_padding stays below the stride; each tap lies in its padded image.
            for axis, (t, k, s, d, p, op) in enumerate((y, x)):
                i = (got["ih"], got["iw"])[axis]
                assert brute_windows(i, k, s, d, p, p) == t + op // s
                assert (t - 1) * s - p + (k - 1) * d < i + p
    assert len(axes) / 2 < fine < 2 * len(axes)


def test_transposed_output_size_of_all_small_cases(geom: Geometry) -> None:
    axes = [
        (t, k, s, d, p, more)
        for t, k, s, d in itertools.product(range(1, 6), range(1, 5), range(1, 5), range(1, 4))
        for p in range(0, k // 2 + 1)
        for more in range(-2, s + 2)
    ]
    fine = 0
    for y, x in crossed(axes, 5):
        window = Window((y[1], x[1]), (y[2], x[2]), (y[3], x[3]), ((y[4], y[4]), (x[4], x[4])))
        least = [(t - 1) * s - 2 * p + d * (k - 1) + 1 for t, k, s, d, p, _ in (y, x)]
        wanted = (least[0] + y[5], least[1] + x[5])
        call = ((1, 2, y[0], x[0]), 2, 2, 1, window)
        # output_size overrides an output_padding that would be refused alone.
        got = outcome(geom.conv_transpose, *call, (99, -1), wanted)
        assert got == outcome(ref.conv_transpose, *call, (0, 0), wanted), (call, wanted)
        if got is not ValueError:
            fine += 1
            assert (got["ih"], got["iw"]) == wanted
            instead = (y[5], x[5])
            assert got == geom.conv_transpose(*call, instead)
    assert len(axes) / 4 < fine < 2 * len(axes)


def test_convolution_and_transposed_one_are_mirrors(geom: Geometry) -> None:
    window = Window((3, 4), (2, 3), (2, 1), ((1, 2), (0, 3)))
    there = geom.conv((2, 6, 17, 23), 6, 4, 2, window)
    back = geom.conv_transpose((2, 4, there["oh"], there["ow"]), 4, 6, 2, window, (0, 0), (17, 23))
    assert back == there


@pytest.mark.parametrize("kernel", range(1, 7))
@pytest.mark.parametrize("dilation", range(1, 4))
def test_same_keeps_the_size_and_puts_the_odd_one_behind(
    geom: Geometry, kernel: int, dilation: int
) -> None:
    window = Window((kernel, 1), (1, 1), (dilation, 1), ((9, 9), (9, 9)), SAME)
    (top, bottom), sides = geom.check_window(window).pad
    assert top + bottom == dilation * (kernel - 1)
    assert bottom - top == dilation * (kernel - 1) % 2
    assert sides == (0, 0)
    got = geom.conv((1, 1, 8, 8), 1, 1, 1, window)
    assert (got["oh"], got["ow"]) == (8, 8)


def test_valid_is_no_padding_with_any_stride(geom: Geometry) -> None:
    window = Window((3, 3), (2, 3), (1, 1), ((9, 9), (9, 9)), VALID)
    assert geom.check_window(window).pad == ((0, 0), (0, 0))
    got = geom.conv((1, 1, 8, 8), 1, 1, 1, window)
    assert (got["oh"], got["ow"], got["pt"], got["pr"]) == (3, 2, 0, 0)


def test_same_uses_the_padding_mode(geom: Geometry) -> None:
    window = Window((4, 4), mode=REFLECT, rule=SAME)
    got = geom.conv((1, 1, 5, 5), 1, 1, 1, window)
    assert (got["oh"], got["pt"], got["pb"], got["mode"]) == (5, 1, 2, REFLECT)
    assert outcome(geom.conv, (1, 1, 5, 2), 1, 1, 1, window) is ValueError  # 2 is not < 2


@pytest.mark.parametrize("mode", [REFLECT, REPLICATE, CIRCULAR])
def test_padding_modes_and_their_limits(geom: Geometry, mode: int) -> None:
    sides = range(-5, 9)
    fine = 0
    for axis, i, k, b, a in itertools.product((0, 1), range(6), (1, 3), sides, sides):
        here = axis == 0
        kernel, pad = ((k, 1), ((b, a), (0, 0))) if here else ((1, k), ((0, 0), (b, a)))
        window = Window(kernel, pad=pad, mode=mode)
        shape = (1, 1, i, 4) if here else (1, 1, 4, i)
        got = outcome(geom.conv, shape, 1, 1, 1, window)
        assert got == outcome(ref.conv, shape, 1, 1, 1, window), (shape, window)
        if got is not ValueError:
            fine += 1
            limit = {REFLECT: i - 1, REPLICATE: 99, CIRCULAR: i}[mode]
            assert max(b, a) <= limit
            assert i + min(b, 0) + min(a, 0) >= 1
    assert fine > 500


def test_an_empty_batch_is_fine_and_still_checked(geom: Geometry) -> None:
    window = Window((3, 3))
    assert geom.conv((0, 4, 5, 6), 4, 2, 1, window)["n"] == 0
    assert geom.conv_transpose((0, 4, 5, 6), 4, 2, 1, window)["ih"] == 7
    assert geom.pool((0, 4, 5, 6), window)["ow"] == 4
    for small in ((0, 4, 2, 6), (0, 4, 6, 2)):
        assert outcome(geom.conv, small, 4, 2, 1, window) is ValueError
        assert outcome(geom.pool, small, window) is ValueError
    assert outcome(geom.conv, (0, 3, 5, 6), 4, 2, 1, window) is ValueError
    assert outcome(geom.conv, (0, 1, 2**40, 2**40), 1, 1, 1, window) is MemoryError
    assert outcome(geom.pool, (0, 1, 2**40, 2**40), window) is MemoryError


# ---- absurd integers ----

EDGES = [
    *(INT64_MIN, INT64_MIN + 1, -(2**62), -(2**32), -(2**31), -2, -1, 0),
    *(2**31 - 1, 2**31, 2**32, 2**32 + 1, 2**53, 2**59, 2**60 - 1, 2**60, 2**61 - 1, 2**61),
    *(2**62 - 1, 2**62, 2**62 + 1, 2**63 - 2, INT64_MAX),
]
edge = st.sampled_from(EDGES)
huge = st.sampled_from([value for value in EDGES if value >= 2**31 - 1])
near = st.builds(lambda e, d: max(INT64_MIN, min(e + d, INT64_MAX)), edge, st.integers(-9, 9))
number = st.one_of(huge, st.integers(0, 9), edge, near, st.integers(INT64_MIN, INT64_MAX))

# What an absurd integer can stand for. Some stand in several places at once, because a size that
# disagrees with another one fails for that alone, and what comes after it is never reached.
NAMES = ["n", "c", "h", "w", "ic", "oc", "g", "kh", "kw", "sh", "sw", "dh", "dw"]
NAMES += ["pt", "pb", "pl", "pr", "eh", "ew"]
TOGETHER = [("ic", "c"), ("pt", "pb"), ("pl", "pr"), ("pt", "pb", "dh"), ("pl", "dw"), ("sw", "ew")]
TOGETHER += [("ic", "c", "g", "oc"), ("sh", "pt", "pb"), ("kh", "sh"), ("h", "kh"), ("h", "sh")]
places = st.sampled_from([*((name,) for name in NAMES), *TOGETHER])


def ordinary(rng: random.Random) -> Sizes:
    """Return the sizes of a call that would mostly succeed."""
    v = {name: rng.randint(1, 4) for name in NAMES}
    v.update(n=rng.randint(0, 3), h=rng.randint(1, 15), w=rng.randint(1, 15))
    v.update(ic=v["g"] * v["ic"], oc=v["g"] * v["oc"], sh=rng.randint(1, 3), sw=rng.randint(1, 3))
    v.update(eh=rng.randrange(v["sh"]), ew=rng.randrange(v["sw"]), c=v["ic"])
    for side, k in (("pt", "kh"), ("pl", "kw")):
        v[side] = rng.choice([0, v[k] // 2])
    v.update(pb=v["pt"], pr=v["pl"])
    if rng.random() < 0.2:
        v["pb"] = rng.randint(0, 3)
    for dilation in ("dh", "dw"):
        v[dilation] = rng.choice([1, 1, v[dilation]])
    return v


@st.composite
def calls(draw: st.DrawFn) -> tuple[Any, ...]:
    """Draw an ordinary call, and put a few absurd integers into it."""
    rng = random.Random(draw(st.integers(0, 10**6)))
    v = ordinary(rng)
    for names, value in draw(st.lists(st.tuples(places, number), max_size=3)):
        v.update(dict.fromkeys(names, value))
    window = Window(
        (v["kh"], v["kw"]),
        (v["sh"], v["sw"]),
        (v["dh"], v["dw"]),
        ((v["pt"], v["pb"]), (v["pl"], v["pr"])),
        rng.choice([NUMBERS, NUMBERS, NUMBERS, SAME, VALID]),
        rng.choice([ZEROS, ZEROS, ZEROS, REFLECT, REPLICATE, CIRCULAR]),
        rng.random() < 0.5,
    )
    shape = (v["n"], v["c"], v["h"], v["w"])
    return shape, v["ic"], v["oc"], v["g"], window, (v["eh"], v["ew"])


def absurd(count: int) -> settings:
    """Return Hypothesis' settings: the same calls in every run, and nothing written to disk."""
    return settings(
        max_examples=count,
        derandomize=True,
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
    )


class Tally:
    """What absurd calls came to: a test that only ever sees one kind of answer tests nothing."""

    def __init__(self) -> None:
        self.counts: dict[Any, int] = {}

    def same(self, call: Callable[..., Any], expected: Callable[..., Any], *arguments: Any) -> Any:
        """Demand the same answer of both, and the arithmetic of the text to be right."""
        try:
            got = call(*arguments)
        except Failure as failure:
            got = failure.kind
            shows = check_arithmetic(failure.text)
            self.count("arithmetic" if shows else "no arithmetic")
        assert got == outcome(expected, *arguments), arguments
        self.count(got if isinstance(got, type) else "fine")
        if isinstance(got, dict):
            self.count("huge" if max(got.values()) >= 2**31 else "small")
        return got

    def count(self, what: Any) -> None:
        """Count something."""
        self.counts[what] = self.counts.get(what, 0) + 1


def absurd_calls(geom: Geometry, examples: int) -> Tally:
    """Send absurd integers through all functions, and compare with unbounded arithmetic."""
    tally = Tally()

    @absurd(examples)
    @given(calls())
    def run(call: tuple[Any, ...]) -> None:
        shape, ic, oc, groups, window, extra = call
        zeros = window._replace(mode=ZEROS)
        tally.same(geom.conv, ref.conv, shape, ic, oc, groups, window)
        tally.same(geom.pool, ref.pool, shape, window)
        back = (shape, ic, oc, groups, zeros)
        made = tally.same(geom.conv_transpose, ref.conv_transpose, *back, extra)
        if isinstance(made, dict):
            wanted = (made["ih"], made["iw"])
            tally.same(geom.conv_transpose, ref.conv_transpose, *back, extra, wanted)
        tally.same(geom.conv_transpose, ref.conv_transpose, *back, extra, extra)
        assert outcome(geom.check_window, window) == outcome(ref.check_window, window)
        got, expected = (
            outcome(f, window) for f in (geom.check_pool_window, ref.check_pool_window)
        )
        assert got == (expected if isinstance(expected, type) else None)
        channels = (ic, oc, groups, window.kernel)
        assert outcome(geom.check_channels, *channels) == outcome(ref.check_channels, *channels)
        extras = (window, extra)
        assert outcome(geom.check_output_padding, *extras) == outcome(
            ref.check_output_padding, *extras
        )

    run()
    return tally


def absurd_cells(geom: Geometry, examples: int) -> None:
    """The same for the questions about single cells."""

    @absurd(examples)
    @given(st.integers(ZEROS, CIRCULAR), number, number)
    def sources(mode: int, i: int, size: int) -> None:
        got = geom.pad_source(mode, i, size)
        assert got == ref.pad_source(mode, i, size)
        assert -1 <= got < max(size, 0)

    @absurd(examples)
    @given(number, number, number, number, number, st.booleans())
    def counts(size: int, o: int, kernel: int, stride: int, pad: int, include_pad: bool) -> None:
        call = (size, o, kernel, stride, pad, include_pad)
        assert geom.avg_pool_count(*call) == ref.avg_pool_count(*call)

    sources()
    counts()


def test_absurd_integers_give_exact_sizes_or_the_right_error(geom: Geometry) -> None:
    counts = absurd_calls(geom, 1500).counts
    assert min(counts[kind] for kind in (ValueError, MemoryError, "fine")) > 500, counts
    assert min(counts[kind] for kind in ("huge", "small", "arithmetic")) > 100, counts
    absurd_cells(geom, 500)


@in_fork
def test_absurd_integers_overflow_nothing(checked: Geometry) -> None:
    absurd_calls(checked, 1000)
    absurd_cells(checked, 400)


def test_the_sanitizer_would_notice(checked: Geometry) -> None:
    """A build that lets a sum wrap would make the test above worthless."""
    assert checked.c.probe_sum(INT64_MAX - 1, 1) == INT64_MAX

    @in_fork
    def wrap() -> None:
        checked.c.probe_sum(INT64_MAX, 1)

    with pytest.raises(pytest.fail.Exception):
        wrap()


# ---- absurd sizes by hand ----


def test_a_huge_stride_is_legal(geom: Geometry) -> None:
    for stride in (2**31, 2**32, 2**62, INT64_MAX):
        window = Window((3, 3), (stride, stride), pad=((1, 1), (1, 1)))
        assert geom.check_window(window) == window
        for ceil_mode in (False, True):
            pooled = geom.pool((1, 1, 5, 5), window._replace(ceil_mode=ceil_mode))
            assert (pooled["oh"], pooled["ow"]) == (1, 1)
            assert pooled["sh"] <= 7  # nothing absurd reaches a loop
        got = geom.conv((1, 1, 5, 5), 1, 1, 1, window)
        assert (got["oh"], got["ow"]) == (1, 1)
        assert got["sh"] <= 7
        got = geom.conv_transpose((1, 1, 1, 1), 1, 1, 1, window)
        assert (got["ih"], got["iw"]) == (1, 1)
        assert outcome(geom.conv_transpose, (1, 1, 2, 2), 1, 1, 1, window) is MemoryError


def test_a_huge_dilation_is_legal_where_the_window_fits_in_the_padding(geom: Geometry) -> None:
    far = 2**61
    sides = ((far, far), (0, 0))
    window = Window((3, 1), (1, 1), (far, INT64_MAX), sides)
    got = geom.conv((1, 1, 5, 5), 1, 1, 1, window)
    assert (got["oh"], got["dh"], got["pt"], got["dw"]) == (5, far, far, 1)
    assert geom.conv((1, 1, 5, 5), 1, 1, 1, window._replace(rule=SAME)) == got
    for kernel, dilation in ((5, far), (3, 2**62), (2, INT64_MAX)):
        wider = window._replace(kernel=(kernel, 1), dilation=(dilation, 1))
        assert outcome(geom.check_window, wider) is MemoryError
    unpadded = Window((2, 1), dilation=(2**62, 1))
    assert geom.check_window(unpadded) == unpadded
    assert outcome(geom.conv, (1, 1, 5, 5), 1, 1, 1, unpadded) is ValueError
    too_far = Window((1, 1), pad=((2**62, 2**62), (0, 0)))
    assert outcome(geom.check_window, too_far) is MemoryError


def test_bytes_are_counted_to_the_last_one(geom: Geometry) -> None:
    most = 2**60 - 1  # elements of 8 bytes that 2**63 - 1 bytes hold
    one = Window((1, 1))
    assert geom.conv((1, 1, 1, most), 1, 1, 1, one)["ow"] == most
    assert outcome(geom.conv, (1, 1, 1, most + 1), 1, 1, 1, one) is MemoryError
    assert geom.pool((1, most, 1, 1), one)["c"] == most
    assert outcome(geom.pool, (1, most + 1, 1, 1), one) is MemoryError
    assert outcome(geom.conv, (2, 1, 1, 2**59), 1, 1, 1, one) is MemoryError
    # the input fits, the output does not
    assert outcome(geom.conv, (1, 1, 1, 2**59), 1, 2, 1, one) is MemoryError
    longer = Window((1, 1), (1, 2))
    assert outcome(geom.conv_transpose, (1, 1, 1, 2**59 + 1), 1, 1, 1, longer) is MemoryError
    assert geom.conv_transpose((1, 1, 1, 2**59), 1, 1, 1, longer)["iw"] == most
    # the output fits, the input does not: only a question about shapes can ask that
    assert outcome(geom.conv, (1, 1, 1, most + 1), 1, 1, 1, longer) is MemoryError
    geom.check_channels(1, most, 1, (1, 1))
    assert outcome(geom.check_channels, 1, most + 1, 1, (1, 1)) is MemoryError
    assert outcome(geom.check_channels, most, 1, 1, (2, 1)) is MemoryError


# ---- cells of one axis ----

NUMPY_MODES = {ZEROS: "constant", REFLECT: "reflect", REPLICATE: "edge", CIRCULAR: "wrap"}


@pytest.mark.parametrize("mode", NUMPY_MODES)
def test_padding_reads_where_numpy_does(geom: Geometry, mode: int) -> None:
    for size, before, after in itertools.product(range(1, 7), range(9), range(9)):
        fill = {"constant_values": -1} if mode == ZEROS else {}
        padded = np.pad(np.arange(size), (before, after), mode=NUMPY_MODES[mode], **fill)
        got = [geom.pad_source(mode, i, size) for i in range(-before, size + after)]
        assert got == padded.tolist()


def test_an_average_counts_the_cells_under_its_window(geom: Geometry) -> None:
    pools = itertools.product(range(1, 9), range(1, 6), range(1, 5), (False, True))
    hanging = 0
    for i, k, s, ceil_mode in pools:
        for p in range(k // 2 + 1):
            window = Window((k, 1), (s, 1), pad=((p, p), (0, 0)), ceil_mode=ceil_mode)
            made = outcome(geom.pool, (1, 1, i, 1), window)
            if made is ValueError:
                continue
            for o in range(made["oh"]):
                # Walk over the window's cells, and ask each one where it is.
                cells = range(o * s - p, o * s - p + k)
                padded = sum(-p <= cell < i + p for cell in cells)
                hanging += padded < k
                assert geom.avg_pool_count(i, o, k, s, p, True) == padded
                inside = sum(0 <= cell < i for cell in cells)
                assert geom.avg_pool_count(i, o, k, s, p, False) == inside
    assert hanging > 100


def test_an_average_counts_nothing_outside(geom: Geometry) -> None:
    for include_pad in (False, True):
        assert geom.avg_pool_count(5, 9, 3, 1, 1, include_pad) == 0
        assert geom.avg_pool_count(5, 2**62, 3, 4, 1, include_pad) == 0
        assert geom.avg_pool_count(5, 0, INT64_MAX, 1, 2, include_pad) == (9 if include_pad else 5)
