"""Tables and a summary of a run, in Markdown.

A ratio is the other engine's best time / pyconv's, so above 1 pyconv is faster. A row that is
wrong, was skipped or has crashed is lost: it counts among the rows that are slower and has a share
of 0; geometric means, which cannot hold it, are over the other rows, and say how many were lost.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

from pyconv._bench.measure import BUSY
from pyconv._bench.records import Record

BETTER = ("torch", "torch_cl")  # torch in the better of its layouts
EQUAL = 0.97  # as fast, but for noise

CONVOLUTIONS = ("dense", "grouped", "deconv")
POOLS = ("maxpool", "avgpool")
FAMILIES = {"convolutions": CONVOLUTIONS, "depthwise": ("depthwise",), "pools": POOLS}

Select = Callable[[Record], bool]


# ---- figures; each takes rows and returns text, "" where there is nothing to say ----


def geometric_mean(ratios: Iterable[float | None]) -> float | None:
    """Return the geometric mean of the ratios that are there, lost rows left out."""
    kept = [ratio for ratio in ratios if ratio]
    return math.exp(statistics.fmean(map(math.log, kept))) if kept else None


def mean_against(rows: Iterable[Record], *names: str) -> str:
    """Return the geometric mean against the faster of some engines."""
    mean = geometric_mean(row.against(*names) for row in rows)
    return f"{mean:.2f}x" if mean else ""


def not_slower(rows: Iterable[Record]) -> str:
    """Return the share of rows that are about as fast as torch's better layout, or faster."""
    ratios = [ratio for row in rows if (ratio := row.against(*BETTER)) is not None]
    if not ratios:
        return ""
    return f"{100 * sum(ratio >= EQUAL for ratio in ratios) / len(ratios):.0f} %"


def median_share(rows: Iterable[Record]) -> str:
    """Return the median share of the limit."""
    shares = [row.share for row in rows]
    return f"{100 * statistics.median(shares):.0f} %" if shares else ""


def both_means(rows: Sequence[Record]) -> str:
    """Return the geometric means against torch in NCHW, and in the better layout."""
    means = [mean_against(rows, "torch"), mean_against(rows, *BETTER)]
    return " / ".join(filter(None, means))


# ---- what is to be reached ----


class Goal(NamedTuple):
    """A class of rows, a figure of them, and the numbers that it is held against."""

    what: str
    select: Select
    figure: Callable[[Sequence[Record]], str]
    reach: str
    stretch: str
    dtype: str = "float32"


def is_dense(kernels: Sequence[tuple[int, int]], passes: Sequence[str], mflop: float) -> Select:
    """Select dense convolutions with 32 channels or more where the kernel is larger than 1x1."""
    return lambda row: (
        row.kind == "dense"
        and row.pass_ in passes
        and row.mflop >= mflop
        and (not kernels or row.kernel in kernels)
        and (row.channels >= 32 or kernels == POINT)
    )


def of(kinds: Sequence[str], *passes: str) -> Select:
    """Select kinds, and passes if any are named."""
    return lambda row: row.kind in kinds and (not passes or row.pass_ in passes)


POINT, SQUARE = ((1, 1),), ((3, 3), (5, 5), (7, 7))
FORWARD, FORWARD_AND_INPUT = ("fwd", "fwd_indices"), ("fwd", "bwd_data")


def goals(l2: int) -> list[Goal]:
    """Return what pyconv is to reach."""

    def beyond_l2(row: Record) -> bool:
        return row.kind in POOLS and row.mbytes * 1e6 > l2

    def weights(row: Record) -> bool:
        return row.kind == "dense" and row.pass_ == "bwd_weights" and row.mflop >= 100

    def large(row: Record) -> bool:
        return row.kind == "dense" and row.mflop >= 100

    def any_row(row: Record) -> bool:
        return True

    def any_convolution(row: Record) -> bool:
        return row.kind not in POOLS

    def versus(*names: str) -> Callable[[Sequence[Record]], str]:
        return lambda rows: mean_against(rows, *names)

    better = versus(*BETTER)
    square = is_dense(SQUARE, FORWARD_AND_INPUT, 100)
    point = is_dense(POINT, FORWARD_AND_INPUT, 50)
    return [
        Goal(
            "3x3, 5x5, 7x7 forward and input gradient, >= 100 MFLOP, >= 32 channels: share of peak",
            *(square, median_share, "85 %", "92 %"),
        ),
        Goal(
            "1x1 forward and input gradient, >= 50 MFLOP: share of peak",
            *(point, median_share, "75 %", "88 %"),
        ),
        Goal(
            "weight gradient, dense, >= 100 MFLOP: share of peak",
            *(weights, median_share, "75 %", "85 %"),
        ),
        Goal(
            "all passes, dense, >= 100 MFLOP: share of peak (capped to AVX2)",
            *(large, median_share, "80 %", "88 %"),
        ),
        Goal("depthwise forward", of(["depthwise"], "fwd"), better, "1.3x", "2x"),
        Goal("depthwise input gradient", of(["depthwise"], "bwd_data"), better, "1.3x", "2x"),
        Goal("depthwise weight gradient", of(["depthwise"], "bwd_weights"), better, "2x", "4x"),
        Goal(
            "max pooling, values and values + indices: NCHW / better layout",
            *(of(["maxpool"], *FORWARD), both_means, "23x / 1.2x", "38x / 2x"),
        ),
        Goal(
            "average pooling forward: NCHW / better layout",
            *(of(["avgpool"], "fwd"), both_means, "7.5x / 1.2x", "13x / 2x"),
        ),
        Goal("pooling backward", of(POOLS, "bwd"), better, "1.5x", "3x"),
        Goal(
            "pooling, beyond the second cache: share of copy bandwidth",
            *(beyond_l2, median_share, "60 %", "85 %"),
        ),
        Goal(
            "float64 convolution, all passes: share of peak",
            *(any_convolution, median_share, "75 %", "90 %", "float64"),
        ),
        Goal(
            f"float32 rows at or above {EQUAL} of torch's better layout",
            *(any_row, not_slower, "75 %", "90 %"),
        ),
        Goal(
            f"float64 rows at or above {EQUAL} of torch's better layout",
            *(any_row, not_slower, "95 %", "100 %", "float64"),
        ),
    ]


# ---- tables ----


def table(head: Sequence[str], lines: Iterable[Sequence[str]]) -> list[str]:
    """Return a Markdown table without the columns, or itself, that would be empty."""
    lines = list(lines)
    kept = [column for column in range(len(head)) if any(cells[column] for cells in lines)]
    rows = [head, ["---"] * len(head), *lines] if kept else []
    return [f"| {' | '.join(cells[column] for column in kept)} |" for cells in rows]


def goal_table(records: Sequence[Record], l2: int) -> list[str]:
    """Return the goals, one column for each number of threads."""
    threads = sorted({row.threads for row in records})
    lines = []
    for goal in goals(l2):
        rows = [row for row in records if row.dtype == goal.dtype and goal.select(row)]
        figures = [goal.figure([row for row in rows if row.threads == t]) for t in threads]
        if any(figures):
            lines.append([goal.what, str(len(rows)), *figures, goal.reach, goal.stretch])
    named = [f"{t} thread{'s' if t > 1 else ''}" for t in threads]
    return table(["what", "rows", *named, "reach", "stretch"], lines)


HEAD = (
    *("rows", "lost", "torch NCHW", "torch channels-last", "better layout", "onnxruntime"),
    *(f">= {EQUAL} of better", "median share of limit"),
)


def figures(rows: Sequence[Record]) -> list[str]:
    """Return the cells under HEAD."""
    return [
        str(len(rows)),
        str(sum(not row.right for row in rows)),
        mean_against(rows, "torch"),
        mean_against(rows, "torch_cl"),
        mean_against(rows, *BETTER),
        mean_against(rows, "onnxruntime"),
        not_slower(rows),
        median_share(rows),
    ]


def groups(
    records: Iterable[Record], key: Callable[[Record], tuple[str, ...]]
) -> dict[tuple[str, ...], list[Record]]:
    """Return the rows by key, in the order in which the keys come up."""
    found: dict[tuple[str, ...], list[Record]] = {}
    for row in records:
        found.setdefault(key(row), []).append(row)
    return found


def limit_table(records: Iterable[Record]) -> list[str]:
    """Return what the multiply-adds reached within the rows, and how many rows were busy."""
    lines = []
    found = groups(records, lambda row: (row.dtype, str(row.threads)))
    for (dtype, threads), rows in sorted(found.items()):
        limits = [row.limit for row in rows if row.kind not in POOLS and row.limit]
        shown = [f"{f(limits):.1f}" for f in (max, statistics.median, min)] if limits else [""] * 3
        busy = sum(row.noise > BUSY for row in rows)
        lines.append([dtype, threads, *shown, f"{busy} of {len(rows)}"])
    return table(["dtype", "threads", "best", "median", "lowest", "busy rows"], lines)


def family(row: Record) -> str:
    """Return convolutions, depthwise or pools."""
    return next(name for name, kinds in FAMILIES.items() if row.kind in kinds)


def family_table(records: Sequence[Record]) -> list[str]:
    """Return ratios by family, dtype and threads."""
    found = groups(records, lambda row: (family(row), row.dtype, str(row.threads)))
    lines = [[*key, *figures(found[key])] for key in sorted(found)]
    return table(["", "dtype", "threads", *HEAD], lines)


def pass_table(records: Sequence[Record]) -> list[str]:
    """Return ratios by operator and pass."""
    found = groups(records, lambda row: (row.dtype, str(row.threads), row.kind, row.pass_))
    kinds = [*CONVOLUTIONS, "depthwise", *POOLS]
    order = sorted(found, key=lambda key: (key[:2], kinds.index(key[2])))
    return table(
        ["dtype", "threads", "operator", "pass", *HEAD], [[*k, *figures(found[k])] for k in order]
    )


def second_thread(records: Iterable[Record], least: float = 200) -> list[str]:
    """Return how much faster large layers are on two threads, pyconv's and torch's."""
    found = groups(records, lambda row: row.key[:5])
    lines = []
    for dtype in ("float32", "float64"):
        gains: dict[str, list[float]] = {"pyconv": [], "torch": []}
        for rows in found.values():
            by_threads = {row.threads: row for row in rows if row.right and row.mflop >= least}
            if rows[0].dtype != dtype or not {1, 2} <= set(by_threads):
                continue
            one, two = (by_threads[t].best for t in (1, 2))
            gains["pyconv"].append(one["pyconv"] / two["pyconv"])
            if all(name in times for name in BETTER for times in (one, two)):
                best = [min(times[name] for name in BETTER) for times in (one, two)]
                gains["torch"].append(best[0] / best[1])
        for name, kept in gains.items():
            if kept:
                low, middle, high = statistics.quantiles([*kept, *kept], n=4)
                row = [name, dtype, str(len(kept)), f"{middle:.2f}x", f"{low:.2f}-{high:.2f}x"]
                lines.append([*row, "1.8x", "1.95x"] if name == "pyconv" else [*row, "", ""])
    head = ["engine", "dtype", "rows", "median", "half of them within", "reach", "stretch"]
    return table(head, lines)


def worst(records: Iterable[Record], count: int = 10) -> list[str]:
    """Return the rows that lose most against torch's better layout; lost ones come first."""
    ratios = [(ratio, row) for row in records if (ratio := row.against(*BETTER)) is not None]
    ratios.sort(key=lambda pair: pair[0])
    lines = [
        [row.name, f"{ratio:.2f}x", f"{100 * row.share:.0f} %" if row.right else row.status]
        for ratio, row in ratios[:count]
    ]
    return table(["row", "better layout", "share of limit"], lines) if lines else []


def summary(machine: dict[str, str], records: Sequence[Record]) -> str:
    """Return all of the above."""
    parts = [
        ("Machine", [f"- {name}: {text}" for name, text in machine.items()]),
        ("Multiply-adds within the rows, GFLOP/s", limit_table(records)),
        ("To be reached", goal_table(records, int(machine.get("l2", 1 << 20)))),
        ("Second thread, convolutions of 200 MFLOP and more", second_thread(records)),
        ("Against the others, geometric means", family_table(records)),
        ("By operator and pass", pass_table(records)),
        ("The ten worst rows", worst(records)),
    ]
    return "\n\n".join(f"## {title}\n\n" + "\n".join(lines) for title, lines in parts if lines)


def row_table(records: Iterable[Record]) -> str:
    """Return every row."""
    names = ("pyconv", "torch", "torch_cl", "onnxruntime")
    lines = []
    for row in records:
        times = [
            f"{row.best[name]:.4g} ({row.median[name]:.4g})" if name in row.best else ""
            for name in names
        ]
        ratio = row.against(*BETTER)
        end = [f"{100 * row.share:.0f} %", f"{ratio:.2f}x" if ratio is not None else ""]
        lines.append([row.name, *times, *(end if row.right else [row.status, "0"])])
    head = ["row", *(f"{name} ms" for name in names), "of limit", "better layout"]
    return "\n".join(table(head, lines))
