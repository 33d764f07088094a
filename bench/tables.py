"""Results as tables, for the screen and in Markdown."""

from collections.abc import Iterable, Sequence

import tabulate

from .peers import OURS, PEERS, others
from .peers.base import ARRAY_LAYOUTS, ROWS
from .results import Cell, Results, Row

BASELINE = ("numpy", "scipy")  # nearly all users have these


def table(lines: Sequence[Sequence], headers: Sequence[str], words: int, style: str) -> str:
    """A table whose first `words` columns are text; `style` is a format of tabulate."""
    align = ["left"] * words + ["right"] * (len(headers) - words)
    colalign = align if lines else None  # tabulate 0.9 cannot align columns without rows
    return tabulate.tabulate(lines, headers, style, colalign=colalign, disable_numparse=True)


def number(value: float) -> str:
    """Format with three digits; from 1,000 on as an integer, from 1e7 on with an exponent."""
    return f"{value:.3g}" if value < 1000 else f"{value:,.0f}" if value < 1e7 else f"{value:.1e}"


def text(cell: Cell | None, value: float | None) -> str:
    """Format a value, or the reason if there is none: a dash if the library lacks the function."""
    if value is not None:
        return number(value)
    if cell is None:
        return "-"
    return "n/a" if cell.status == "unsupported" else cell.status


def ratio(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"


def libraries(rows: Iterable[Row]) -> list[str]:
    """The libraries with a cell in `rows`, in the order of :data:`PEERS`."""
    found = {name for row in rows for name in row.cells}
    return [name for name in PEERS if name in found]


def measured(rows: Iterable[Row]) -> list[str]:
    """The libraries with a time in `rows`, in the order of :data:`PEERS`."""
    found = {name for row in rows for name in row.medians()}
    return [name for name in PEERS if name in found]


def speed(rows: Sequence[Row], style: str) -> str:
    """Nanoseconds per element of contiguous arrays, and the limits of the machine."""
    names = libraries(rows)
    lines = []
    for row in rows:
        times, w = row.per_element(), row.workload
        bounds = [row.bounds[b][1] / w.size if b in row.bounds else None for b in ("copy", "fma")]
        lines.append(
            [w.function, w.dtype, w.size]
            + [text(row.cells.get(name), times.get(name)) for name in names]
            + [*map(_optional, bounds), f"{row.spread():.0%}"]
            + [ratio(row.ratio()), ratio(row.ratio(BASELINE))]
        )
    headers = ["function", "dtype", "size", *names, "copy", "FMA bound"]
    return table(lines, [*headers, "spread", "vs others", "vs NumPy/SciPy"], 2, style)


def _optional(value: float | None) -> str:
    return "-" if value is None else number(value)


def calls(rows: Sequence[Row], style: str) -> str:
    """Nanoseconds per call for one element."""
    names = libraries(rows)
    lines = []
    for row in rows:
        times, w = row.medians(), row.workload
        cells = [text(row.cells.get(name), times.get(name)) for name in names]
        kind = w.layout if not w.shape else "array"
        lines.append([w.function, w.dtype, kind, *cells, ratio(row.ratio())])
    return table(lines, ["function", "dtype", "element", *names, "vs others"], 3, style)


def layouts(rows: Sequence[Row], style: str) -> str:
    """Nanoseconds per element for each layout."""
    names = libraries(rows)
    lines = []
    for row in rows:
        times, w = row.per_element(), row.workload
        cells = [text(row.cells.get(name), times.get(name)) for name in names]
        lines.append([w.function, w.dtype, w.layout, *cells, ratio(row.ratio())])
    return table(lines, ["function", "dtype", "layout", *names, "vs others"], 3, style)


def matrices(rows: Sequence[Row], style: str) -> str:
    """Nanoseconds per element of functions of rows, and the largest error of each library."""
    names = libraries(rows)
    lines = []
    for row in rows:
        times, w = row.per_element(), row.workload
        cells = [text(row.cells.get(name), times.get(name)) for name in names]
        ulps = {name: row.cells[name].ulp for name in names if name in row.cells}
        errors = [f"{n} {number(u)}" for n, u in ulps.items() if u is not None]
        shape = " x ".join(map(str, w.shape))
        lines.append([w.function, w.dtype, shape, *cells, ratio(row.ratio()), ", ".join(errors)])
    return table(lines, ["function", "dtype", "shape", *names, "vs others", "ulp"], 3, style)


def dense(rows: Sequence[Row], style: str) -> str:
    """Microseconds of layers, and their share of the machine's rate of fused multiply-adds."""
    names = libraries(rows)
    lines = []
    for row in rows:
        times, w = row.medians(), row.workload
        other = row.fastest(others())
        lines.append(
            [w.function, w.dtype, " x ".join(map(str, w.shape))]
            + [text(row.cells.get(n), times[n] / 1000 if n in times else None) for n in names]
            + ([number(row.gflops(OURS)), f"{row.share(OURS):.0%}"] if OURS in times else ["-"] * 2)
            + [f"{row.share(other):.0%} {other}" if other else "-"]
            + [ratio(row.ratio()), ratio(row.ratio(["numpy"]))]
        )
    headers = ["function", "dtype", "M x K x N", *names, "GFLOP/s", "of FMA peak", "best of others"]
    return table(lines, [*headers, "vs others", "vs numpy"], 3, style)


def threads(rows: Sequence[Row], style: str) -> str:
    """Microseconds with several threads."""
    names = libraries(rows)
    lines = []
    for row in rows:
        times, w = row.medians(), row.workload
        what = ("dense " if w.dense else "") + w.function
        cells = [text(row.cells.get(n), times[n] / 1000 if n in times else None) for n in names]
        shape = " x ".join(map(str, w.shape))
        lines.append([what, w.dtype, shape, row.threads, *cells, ratio(row.ratio())])
    headers = ["function", "dtype", "shape", "threads", *names, "vs others"]
    return table(lines, headers, 2, style)


def accuracy(rows: Sequence[Row], style: str) -> str:
    """Largest error in ulp by function and dtype, over all sizes."""
    names = libraries(rows)
    groups: dict[tuple[str, str], list[Row]] = {}
    for row in rows:
        groups.setdefault((row.workload.function, row.workload.dtype), []).append(row)
    lines = []
    for key, group in groups.items():
        texts = []
        for name in names:
            cell = next((row.cells[name] for row in group if name in row.cells), None)
            texts.append(text(cell, max_ulp(group, name)))
        lines.append([*key, *texts])
    return table(lines, ["function", "dtype", *names], 2, style)


def max_ulp(rows: Iterable[Row], name: str) -> float | None:
    """Largest error of one library in `rows`, None if it was not measured."""
    ulps = [row.cells[name].ulp for row in rows if name in row.cells]
    return max((ulp for ulp in ulps if ulp is not None), default=None)


def faster(rows: Iterable[Row]) -> list[tuple[Row, str, float]]:
    """Each row where another library is faster, that library, and our time over its time."""
    found = []
    for row in rows:
        name, value = row.fastest(others()), row.ratio()
        if name and value is not None and value < 1:
            found.append((row, name, 1 / value))
    return sorted(found, key=lambda item: -item[2])


def slower(results: Results, style: str) -> str:
    """Every workload where another library has the lower median."""
    lines = []
    for row, name, times in faster(results.all_rows):
        apart = row.cells[name].ns[2] < row.cells[OURS].ns[0]
        what = describe(row)
        lines.append([what, name, f"{times:.2f}", "yes" if apart else "no"])
    return table(lines, ["workload", "faster library", "our time / its", "beyond spread"], 2, style)


def describe(row: Row) -> str:
    """The workload of a row in words."""
    w = row.workload
    parts = [" x ".join(map(str, w.shape))] if w.shape else []
    parts += [w.layout] if w.layout != "contiguous" else []
    if row.own_process:
        parts.append("one thread, own process" if row.threads == 1 else f"{row.threads} threads")
    return f"{'dense ' * w.dense}{w.function} {w.dtype}, {', '.join(parts)}"


SPEED = f"""Nanoseconds per element, medians, one thread.

- copy: `np.copyto` from the input to the output
- FMA bound: the floating-point operations of our kernel at the rate of fused multiply-adds that
  this machine reached
- spread: half the interquartile range over the median, the largest of the row
- vs others, vs NumPy/SciPy: time of the fastest of these libraries over the time of {OURS}; above 1
  {OURS} is faster
- a dash: the library does not have the function
- n/a: it has the function, but not for this dtype or layout"""
ACCURACY = "Largest error in ulp on the same inputs; for float64 on a sample of them."
CALLS = "Nanoseconds per call."
LAYOUTS = """Nanoseconds per element. The arrays are overwritten (in place), have a stride of two
elements (strided), begin one byte off alignment (unaligned), or are in Fortran order while the
result is in C order (transposed)."""
ROW_TEXT = """Nanoseconds per element, for matrices of rows x elements of each row, and largest
errors in ulp."""
DENSE = """Microseconds per call of activation(x @ W + b). x has M rows and K columns, W has N
columns. GFLOP/s is our rate. of FMA peak: our share of the rate of fused multiply-adds that the
machine reached in the same row (the upper quartile of that rate). best of others: the share of the
fastest other library."""
THREADS = """Microseconds per call. Each library runs in a separate process, with as many cores as
threads."""


def sections(results: Results, style: str) -> list[tuple[str, str, str]]:
    """Title, table and explanation of everything that was measured."""
    arrays = [r for r in results.rows if not r.workload.dense]
    plain = [r for r in arrays if r.workload.layout == "contiguous"]
    other = [r for r in arrays if r.workload.layout in ARRAY_LAYOUTS[1:]]
    known = [r for r in plain if any(cell.ulp is not None for cell in r.cells.values())]
    groups = [
        ("Speed", speed, plain, SPEED),
        ("Accuracy", accuracy, known, ACCURACY),
        ("One element", calls, [r for r in arrays if r.workload.size == 1], CALLS),
        ("Layouts", layouts, other, LAYOUTS),
        ("Functions of rows", matrices, [r for r in arrays if r.workload.layout == ROWS], ROW_TEXT),
        ("Dense layers", dense, [r for r in results.rows if r.workload.dense], DENSE),
        ("Threads", threads, results.scaling, THREADS),
    ]
    found = [(title, make(rows, style), told) for title, make, rows, told in groups if rows]
    if any(row.ratio() is not None for row in results.all_rows):
        told = """Every workload where another library has the lower median. beyond spread: the
upper quartile of its time is below the lower quartile of ours."""
        found.append(("Where others are faster", slower(results, style), told))
    return found
