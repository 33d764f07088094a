"""The pictures of a report, drawn from results alone.

Every library has the same colour and marker in all of them.
"""

import hashlib
import math
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import matplotlib

matplotlib.use("Agg")

from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import LogLocator, NullLocator

from . import tables
from .peers import OURS, OURS_FAST, OURS_UNPACKED, others
from .results import Results, Row, to_json
from .workloads import TYPICAL

LOOKS = {
    OURS: ("#0b5cad", "o"),
    OURS_UNPACKED: ("#7db4e6", "o"),
    OURS_FAST: ("#4c3fb0", "d"),
    "numpy": ("#e69f00", "s"),
    "scipy": ("#7a4b1e", "D"),
    "torch": ("#d1361b", "^"),
    "onnxruntime": ("#00886b", "v"),
    "jax": ("#b04fb5", "P"),
    "numexpr": ("#6b6b6b", "X"),
    "scikit-learn": ("#8f8f00", "*"),
}
"""Colour and marker. The colours also differ in lightness, for readers with colour blindness."""

_BOUNDS = {
    "copy": ("#333333", (0, (4, 2)), "np.copyto"),
    "fma": ("#333333", (0, (1, 1.5)), "FMA bound"),
}
_STYLE = {
    "figure.facecolor": "white",  # readable on a dark page too
    "savefig.facecolor": "white",
    "font.size": 9,
    "axes.titlesize": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#e4e4e4",
    "grid.linewidth": 0.6,
    "legend.frameon": False,
    "svg.hashsalt": "fastact",  # the same results make the same file
    "svg.fonttype": "path",
}


_FEW = 12  # functions; if there are more, pictures show one dtype, and the tables show all


def speed(results: Results, dtype: str = "float32") -> Figure | None:
    """Nanoseconds per element against the number of elements, with a panel for each function."""
    rows = [r for r in results.select(dtype=dtype, layout="contiguous", dense=False)]
    functions = _unique(r.workload.function for r in rows)
    if not rows:
        return None
    figure, axes = _grid(len(functions), 6 if len(functions) > _FEW else 3, 3.3, 2.7)
    for axis, function in zip(axes, functions, strict=True):
        chosen = sorted(
            (r for r in rows if r.workload.function == function), key=lambda r: r.workload.size
        )
        for bound, (colour, dashes, _) in _BOUNDS.items():
            points = [
                (r.workload.size, r.bounds[bound][1] / r.workload.size)
                for r in chosen
                if bound in r.bounds
            ]
            if points:
                axis.plot(*zip(*points, strict=True), color=colour, linestyle=dashes, linewidth=1)
        for name in reversed(tables.measured(chosen)):
            points = [
                (r.workload.size, r.per_element()[name]) for r in chosen if name in r.per_element()
            ]
            if points:
                _line(axis, name, points)
        axis.set(title=function, xscale="log", yscale="log")
        ticks = [16**k for k in range(7) if 16**k <= chosen[-1].workload.size]
        axis.set_xticks(ticks, ["1", "16", "256", "4k", "64k", "1M", "16M"][: len(ticks)])
        axis.minorticks_off()
        axis.yaxis.set_major_formatter(_plain)
    _labels(figure, f"elements ({dtype})", "ns per element")
    _legend(figure, tables.measured(rows), _BOUNDS)
    return figure


def accuracy(results: Results) -> Figure | None:
    """Largest error against time: accurate and fast libraries are in the lower left."""
    rows = [
        r
        for r in results.select(layout="contiguous", dense=False)
        if r.workload.size == _typical(results) and any(c.ulp for c in r.cells.values())
    ]
    functions = _unique(r.workload.function for r in rows)
    dtypes = _unique(r.workload.dtype for r in rows)
    if not rows:
        return None
    columns = len(functions)
    if columns > _FEW:
        columns, dtypes = 6, dtypes[:1]
    figure, axes = _grid(len(functions) * len(dtypes), columns, 3.3, 2.5)
    for axis, (dtype, function) in zip(
        axes, [(d, f) for d in dtypes for f in functions], strict=True
    ):
        axis.set(title=f"{function} {dtype}", xscale="log", yscale="log")
        axis.axhline(0.5, color="#333333", linestyle=(0, (4, 2)), linewidth=1)
        group = results.select(function=function, dtype=dtype, layout="contiguous", dense=False)
        worst = 4.0
        for row in rows:
            if (row.workload.function, row.workload.dtype) != (function, dtype):
                continue
            for name, ns in row.per_element().items():
                ulp = tables.max_ulp(group, name)
                if ulp is None:
                    continue
                shown = min(max(ulp, 0.4), 1e8)
                worst = max(worst, shown)
                _point(axis, name, ns, shown)
        axis.set_ylim(0.3, worst * 2.5)
        axis.margins(x=0.15)
        axis.xaxis.set_major_formatter(_plain)
        axis.xaxis.set_minor_locator(LogLocator(subs=(2, 5)))
        axis.xaxis.set_minor_formatter(_plain)
        axis.yaxis.set_major_formatter(_plain)
        axis.yaxis.set_minor_locator(NullLocator())
    _labels(figure, f"ns per element, {_typical(results):,} elements (less is better)",
            "largest error in ulp (less is better)")  # fmt: skip
    correct = Line2D([], [], color="#333333", linestyle=(0, (4, 2)), linewidth=1)
    _legend(figure, tables.measured(rows), {}, [(correct, "correctly rounded: 0.5 ulp")])
    return figure


def speedups(results: Results) -> Figure | None:
    """Time of the fastest other library over ours, per function and dtype."""
    rows = [
        r
        for r in results.select(layout="contiguous", dense=False)
        if r.workload.size == _typical(results) and r.ratio() is not None
    ]
    if not rows:
        return None
    if len(rows) > 3 * _FEW:
        rows = [row for row in rows if row.workload.dtype == rows[0].workload.dtype]
    figure, axis = plt.subplots(figsize=(8, 0.9 + 0.27 * len(rows)), layout="constrained")
    for position, row in enumerate(rows):
        value, fastest = row.ratio(), row.fastest(others())
        ahead = OURS if value >= 1 else fastest
        axis.barh(position, value - 1, left=1, height=0.72, color=LOOKS[ahead][0],
                  hatch="" if value >= 1 else "////", edgecolor="white", linewidth=0)  # fmt: skip
        left = value < 1
        axis.annotate(f"{value:.2f}  {fastest}", (value, position), (-4 if left else 4, 0),
                      textcoords="offset points", ha="right" if left else "left", va="center",
                      fontsize=8)  # fmt: skip
    axis.axvline(1, color="#333333", linewidth=1)
    axis.set_yticks(range(len(rows)), [f"{r.workload.function} {r.workload.dtype}" for r in rows])
    axis.invert_yaxis()
    axis.grid(False, axis="y")
    axis.set_xscale("log", base=2)
    values = [r.ratio() for r in rows]
    axis.set_xlim(min(min(values), 0.5) / 2.6, max(max(values), 2) * 2.6)
    axis.xaxis.set_major_formatter(_plain)
    axis.set_xlabel(
        f"time of the fastest other library / ours, {_typical(results):,} elements, one thread"
    )
    losses = _unique(r.fastest(others()) for r in rows if r.ratio() < 1)
    entries = [(Patch(facecolor=LOOKS[OURS][0]), f"{OURS} is faster")]
    entries += [
        (Patch(facecolor=LOOKS[name][0], hatch="////", edgecolor="white", linewidth=0),
         f"{name} is faster") for name in losses
    ]  # fmt: skip
    _legend(figure, [], {}, entries)
    return figure


def dense(results: Results) -> Figure | None:
    """The share of the rate of fused multiply-adds that layers reach, per shape and library."""
    rows = results.select(dense=True)
    panels = _unique((r.workload.function, r.workload.dtype) for r in rows)
    shapes = _unique(r.workload.shape for r in rows)
    if not rows:
        return None
    figure, axes = _grid(len(panels), 2, 4.4, 0.8 + 0.3 * len(shapes), sharey=True)
    for axis, (function, dtype) in zip(axes, panels, strict=True):
        chosen = results.select(dense=True, function=function, dtype=dtype)
        for row in chosen:
            position = shapes.index(row.workload.shape)
            shares = {name: 100 * row.share(name) for name in row.medians()}
            if shares:
                axis.plot([min(shares.values()), max(shares.values())], [position] * 2,
                          color="#d0d0d0", linewidth=1.5, zorder=1)  # fmt: skip
            for name in reversed(tables.measured([row])):
                if name in shares:
                    _point(axis, name, shares[name], position)
        axis.set(title=f"{function} {dtype}")
        axis.set_xlim(0, 102 * max(1, *(row.share(n) for row in rows for n in row.medians())))
        axis.set_yticks(range(len(shapes)), [" x ".join(map(str, s)) for s in shapes])
        axis.set_ylim(len(shapes) - 0.5, -0.5)
    _labels(
        figure,
        "% of the FMA rate that the machine reached in the same row, one thread",
        "M x K x N",
    )
    _legend(figure, tables.measured(rows), {})
    return figure


def threads(results: Results) -> Figure | None:
    """The rate of each library against the number of threads, with a panel for each workload."""
    rows = results.scaling
    keys = _unique((r.workload.dense, r.workload.function, r.workload.shape) for r in rows)
    counts = _unique(r.threads for r in rows)
    if not rows:
        return None
    figure, axes = _grid(len(keys), 3, 3.3, 2.2)
    for axis, key in zip(axes, keys, strict=True):
        is_dense, function, shape = key
        chosen = [
            r for r in rows if (r.workload.dense, r.workload.function, r.workload.shape) == key
        ]
        for name in reversed(tables.measured(chosen)):
            points = [(r.threads, _rate(r, name)) for r in chosen if name in r.medians()]
            if points:
                _line(axis, name, points)
        size = " x ".join(f"{n:,}" for n in shape)
        axis.set(title=f"{'dense ' * is_dense}{function} {size}")
        axis.set_ylim(0, 1.06 * axis.get_ylim()[1])
        axis.set_xticks(counts)
        axis.set_xlim(min(counts) - 0.15, max(counts) + 0.15)
        axis.set_ylabel("GFLOP/s" if is_dense else "elements per ns", fontsize=8)
    _labels(figure, "threads and cores, each library in its own process (float32)", "")
    _legend(figure, tables.measured(rows), {})
    return figure


def _rate(row: Row, name: str) -> float:
    return row.gflops(name) if row.workload.dense else 1 / row.per_element()[name]


def _typical(results: Results) -> int:
    """The size for pictures of one size: the usual one if it was measured, else the largest."""
    sizes = {r.workload.size for r in results.select(layout="contiguous", dense=False)}
    return TYPICAL if TYPICAL in sizes else max(sizes, default=TYPICAL)


def _unique(values: Iterable) -> list:
    return list(dict.fromkeys(values))


def _plain(value: float, position=None) -> str:
    exponent = math.log10(value) if value > 0 else 0
    return f"{value:g}" if -3 <= exponent < 4 else f"$10^{{{exponent:.0f}}}$"


def _point(axis: Axes, name: str, x: float, y: float) -> None:
    colour, marker = LOOKS[name]
    ours = name == OURS
    axis.scatter(x, y, 65 if ours else 42, colour, marker=marker, zorder=4 if ours else 3,
                 edgecolors="white", linewidths=0.5)  # fmt: skip


def _line(axis: Axes, name: str, points: Sequence[tuple[float, float]]) -> None:
    colour, marker = LOOKS[name]
    ours = name == OURS
    axis.plot(*zip(*points, strict=True), color=colour, marker=marker, label=name,
              markersize=6 if ours else 5, linewidth=2.4 if ours else 1.2,
              zorder=4 if ours else 3, markeredgecolor="white", markeredgewidth=0.3)  # fmt: skip


def _grid(count: int, columns: int, width: float, height: float, **options):
    """A figure with `count` axes in rows of up to `columns`."""
    columns = max(min(columns, count), 1)
    lines = math.ceil(count / columns)
    figure, axes = plt.subplots(
        lines,
        columns,
        figsize=(max(width * columns, 4.5), height * lines + 0.6),
        layout="constrained",
        squeeze=False,
        **options,
    )
    flat = list(axes.flat)
    for unused in flat[count:]:
        unused.remove()
    return figure, flat[:count]


def _labels(figure: Figure, x: str, y: str) -> None:
    figure.supxlabel(x, fontsize=9)
    figure.supylabel(y, fontsize=9)


def _legend(figure: Figure, names: Sequence[str], bounds: dict, more: Sequence = ()) -> None:
    entries = [
        (Line2D([], [], color=LOOKS[name][0], marker=LOOKS[name][1], linewidth=2), name)
        for name in names
    ]
    entries += [
        (Line2D([], [], color=colour, linestyle=dashes, linewidth=1), label)
        for colour, dashes, label in bounds.values()
    ]
    entries += more
    handles, labels = zip(*entries, strict=True)
    most = max(int(figure.get_figwidth() / 1.25), 2)
    columns = math.ceil(len(labels) / math.ceil(len(labels) / most))  # lines of equal length
    figure.legend(handles, labels, loc="outside upper center", ncols=columns)


class Picture(NamedTuple):
    title: str
    draw: Callable[[Results], Figure | None]


PICTURES = {
    "speed": Picture("Time per element against size", speed),
    "accuracy": Picture("Accuracy against time", accuracy),
    "speedups": Picture("Speed relative to the fastest other library", speedups),
    "dense": Picture("Dense layers: share of the FMA peak", dense),
    "threads": Picture("Several threads", threads),
}
"""Every picture by the name of its file."""


def signature(results: Results) -> dict[str, str | None]:
    """The metadata of an SVG file: the program that drew it, and a hash of the results."""
    digest = hashlib.sha256(to_json(results).encode()).hexdigest()
    creator = f"matplotlib {matplotlib.__version__}"
    return {"Date": None, "Creator": creator, "Description": f"sha256 of results: {digest}"}


def draw_all(results: Results, directory: Path, formats: Sequence[str]) -> list[str]:
    """Draw the pictures that there are results for, and return their names."""
    drawn = []
    for name, picture in PICTURES.items():
        with plt.rc_context(_STYLE):
            figure = picture.draw(results)
            if figure is None:
                continue
            for form in formats:
                figure.savefig(
                    directory / f"{name}.{form}",
                    dpi=150,
                    metadata=signature(results) if form == "svg" else None,
                )
            plt.close(figure)
        drawn.append(name)
    return drawn
