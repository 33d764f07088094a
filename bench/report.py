"""What was measured, as tables, Markdown and JSON."""

import dataclasses
import json
import os
import platform
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

import tabulate

from .peers import OURS
from .timing import Cell, Row

BASELINE = ("numpy", "scipy")  # what nearly everybody has installed

SPEED = (
    "Nanoseconds per element, medians. spread: half the distance of the quartiles, the widest "
    "of the row.\n"
    f"vs others, vs NumPy/SciPy: time of the fastest of them over the time of {OURS}; above 1, "
    f"{OURS} is faster."
)
ACCURACY = "Largest error in ulp on the same inputs, of float64 on a sample of them."


@dataclass
class Results:
    """Rows, and where they are from."""

    command: str
    repetitions: int
    core: int | None = None
    versions: dict[str, str] = field(default_factory=dict)
    missing: dict[str, str] = field(default_factory=dict)
    rows: list[Row] = field(default_factory=list)
    incomplete: bool = True

    def failures(self) -> list[str]:
        """What went wrong, a line for each."""
        return [
            f"{name}: {row.function} {row.dtype} {row.size}: {cell.status}: {cell.note}"
            for row in self.rows
            for name, cell in row.cells.items()
            if cell.status in ("wrong", "error")
        ]


def cpu_model() -> str:
    """The name of the processor.

    Returns
    -------
    str
        From /proc/cpuinfo where there is one that tells.
    """
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def speed_table(results: Results, style: str) -> str:
    """Times of all libraries by function, dtype and size.

    Parameters
    ----------
    results : Results
        What was measured.
    style : str
        A table format of tabulate.

    Returns
    -------
    str
        The table.
    """
    lines = []
    for row in results.rows:
        times = {name: cell.ns[1] for name, cell in row.cells.items() if cell.ns}
        texts = [_text(row.cells.get(name), times.get(name)) for name in results.versions]
        ratios = [_ratio(times, results.versions), _ratio(times, BASELINE)]
        lines.append([row.function, row.dtype, row.size, *texts, _spread(row), *ratios])
    headers = ["function", "dtype", "size", *results.versions]
    return _table(lines, [*headers, "spread", "vs others", "vs NumPy/SciPy"], style)


def accuracy_table(results: Results, style: str) -> str:
    """Errors of all libraries by function and dtype, the largest over all sizes.

    Parameters
    ----------
    results : Results
        What was measured.
    style : str
        A table format of tabulate.

    Returns
    -------
    str
        The table.
    """
    groups: dict[tuple[str, str], list[Row]] = {}
    for row in results.rows:
        groups.setdefault((row.function, row.dtype), []).append(row)
    lines = []
    for key, rows in groups.items():
        texts = []
        for name in results.versions:
            cells = [row.cells[name] for row in rows if name in row.cells]
            ulps = [cell.ulp for cell in cells if cell.ulp is not None]
            texts.append(_text(cells[0] if cells else None, max(ulps, default=None)))
        lines.append([*key, *texts])
    return _table(lines, ["function", "dtype", *results.versions], style)


def _text(cell: Cell | None, value: float | None) -> str:
    if cell is None:
        return "-"
    return cell.status if value is None else f"{value:.3g}"


def _ratio(times: dict[str, float], names: Iterable[str]) -> str:
    others = [times[name] for name in names if name in times and name != OURS]
    return f"{min(others) / times[OURS]:.2f}" if others and OURS in times else "-"


def _spread(row: Row) -> str:
    quartiles = [cell.ns for cell in row.cells.values() if cell.ns]
    spreads = [(upper - lower) / 2 / median for lower, median, upper in quartiles]
    return f"{max(spreads):.0%}" if spreads else "-"


def _table(lines: list[list], headers: list[str], style: str) -> str:
    words = sum(header in ("function", "dtype") for header in headers)
    align = ["left"] * words + ["right"] * (len(headers) - words)
    colalign = align if lines else None  # tabulate 0.9 cannot align the columns of no rows
    return tabulate.tabulate(lines, headers, style, colalign=colalign, disable_numparse=True)


def sections(results: Results, style: str) -> list[str]:
    """The tables, each followed by what it shows; accuracy only where it was measured.

    Parameters
    ----------
    results : Results
        What was measured.
    style : str
        A table format of tabulate.

    Returns
    -------
    list of str
        Paragraphs.
    """
    texts = [speed_table(results, style), SPEED]
    if any(cell.ulp is not None for row in results.rows for cell in row.cells.values()):
        texts += [accuracy_table(results, style), ACCURACY]
    return texts


def markdown(results: Results) -> str:
    """The tables in GitHub's Markdown, below a line that tells where they are from.

    Parameters
    ----------
    results : Results
        What was measured.

    Returns
    -------
    str
        The text of a file.
    """
    versions = {"Python": platform.python_version(), **results.versions}
    origin = [
        cpu_model(),
        f"{os.cpu_count()} cores, one used",
        *(f"{name} {version}" for name, version in versions.items()),
        *(f"{name} missing" for name in results.missing),
    ]
    incomplete = " Incomplete: interrupted." * results.incomplete
    line = f"{', '.join(origin)}: `{results.command}`.{incomplete}"
    return "\n\n".join([line, *sections(results, "github"), *results.failures()]) + "\n"


def to_json(results: Results) -> str:
    """Everything that was measured, and on what.

    Parameters
    ----------
    results : Results
        What was measured.

    Returns
    -------
    str
        A JSON object; rows hold a cell for each library that has the function.
    """
    content = {
        "command": results.command,
        "incomplete": results.incomplete,
        "machine": {
            "platform": platform.platform(),
            "cpu": cpu_model(),
            "cores": os.cpu_count(),
        },
        "python": platform.python_version(),
        "versions": results.versions,
        "missing": results.missing,
        "threads": 1,
        "pinned_core": results.core,
        "repetitions": results.repetitions,
        "rows": [_row(row) for row in results.rows],
    }
    return json.dumps(content, indent=1) + "\n"


def _row(row: Row) -> dict:
    content = dataclasses.asdict(row)
    for cell in content["cells"].values():
        cell["ns"] = cell["ns"] and dict(zip(("q1", "median", "q3"), cell["ns"], strict=True))
    return content
