"""Write the figures of the documents from the committed results: ``python -m bench.readme``.

This module writes the text between ``<!-- figures: NAME -->`` and ``<!-- end -->`` in the README
and in the pages of docs/. To publish the figures of a new run::

    python -m bench --output bench/results/ice-lake && python -m bench.readme
"""

import argparse
import os
import re
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from fastact._declarations.records import (
    ACTIVATIONS,
    DERIVATIVES,
    OBJECTIVES,
    ROW_ACTIVATIONS,
    ROW_DERIVATIVES,
    Activation,
    RowActivation,
)

from . import pictures, report, results, tables
from .machine import ROOT
from .peers import OURS_UNPACKED
from .peers.base import ROWS
from .results import Results, Row
from .workloads import TYPICAL

FOLDER = ROOT / "bench/results/ice-lake"
EXHAUSTIVE = ROOT / "bench/results/accuracy.md"
STARTUP = ROOT / "bench/results/startup.md"
_BLOCK = re.compile(r"(?ms)^(<!-- figures: ([\w -]+) -->\n).*?^(<!-- end -->)$")

# The README shows one shape for functions of rows, and one layer.
_ROW_SHAPE = (4096, 128)
_LAYER = ("sigmoid", (256, 784, 128))


def documents() -> list[Path]:
    """The README, and the pages of docs/."""
    return [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]


def _listed(records: Iterable[Activation | RowActivation]) -> str:
    return "\n".join(f"- {declared.summary} `{declared.formula}`" for declared in records)


def functions(found: Results) -> str:
    """The declared summary and formula of each activation."""
    return _listed([*ACTIVATIONS.values(), *ROW_ACTIVATIONS.values()])


def derivatives(found: Results) -> str:
    """The formulas of derivatives, which name their operands."""
    known = [*DERIVATIVES.values(), *ROW_DERIVATIVES.values()]
    return "\n".join(f"- `{declared.formula}`" for declared in known)


def reference(found: Results) -> str:
    """An entry of the API reference for every function, under the heading of its kind."""
    kinds = {
        "Activations": [*ACTIVATIONS, *ROW_ACTIVATIONS],
        "Derivatives": [
            *(declared.name for declared in DERIVATIVES.values()),
            *(declared.name for declared in ROW_DERIVATIVES.values()),
        ],
        "Objectives": [*OBJECTIVES],
    }
    parts = []
    for title, names in kinds.items():
        parts += [f"## {title}", *(f"::: fastact.{name}" for name in names)]
    return "\n" + "\n\n".join(parts) + "\n"


def _typical(found: Results) -> list[Row]:
    rows = found.select(layout="contiguous", dense=False)
    return [row for row in rows if row.workload.size == TYPICAL]


def origin(found: Results) -> str:
    """The machine, the versions and the command that the figures come from."""
    return report.origin(found)


def summary(found: Results) -> str:
    """A row for each function in float32, and one for a layer, in microseconds."""
    function, shape = _LAYER
    rows = [
        *found.select(dtype="float32", layout="contiguous", dense=False, shape=(TYPICAL,)),
        *found.select(dtype="float32", layout=ROWS, shape=_ROW_SHAPE),
        *found.select(dtype="float32", dense=True, function=function, shape=shape),
    ]
    names = [name for name in tables.measured(rows) if name != OURS_UNPACKED]
    lines = []
    for row in rows:
        times, w = row.medians(), row.workload
        cells = [
            tables.text(row.cells.get(name), times[name] / 1000 if name in times else None)
            for name in names
        ]
        what = f"dense, {w.function}" if w.dense else w.function
        lines.append([what, " x ".join(map(str, w.shape)), *cells, tables.ratio(row.ratio())])
    headers = ["function", "shape", *names, "fastest other / ours"]
    return tables.table(lines, headers, 2, "github")


def speed(found: Results) -> str:
    """Nanoseconds per element at one size, and the ratio to the fastest other library."""
    rows = _typical(found)
    names = tables.measured(rows)
    lines = []
    for row in rows:
        times, w = row.per_element(), row.workload
        cells = [tables.text(row.cells.get(name), times.get(name)) for name in names]
        lines.append([w.function, w.dtype, *cells, tables.ratio(row.ratio())])
    headers = ["function", "dtype", *names, "fastest other / ours"]
    return tables.table(lines, headers, 2, "github")


def slower(found: Results) -> str:
    """Every workload where another library is faster, folded."""
    rows = [row for row in found.all_rows if row.ratio() is not None]
    count = len(tables.faster(rows))
    return (
        f'<details markdown="1"><summary>All {count} of {len(rows)} workloads where another '
        f"library is faster</summary>\n\n{tables.slower(found, 'github')}\n\n</details>"
    )


def exhaustive(found: Results) -> str:
    """Largest errors over all inputs, from the table of ``python -m bench.accuracy``."""
    lines = EXHAUSTIVE.read_text(encoding="utf-8").splitlines()
    cells = [[c.strip() for c in line.strip("|").split("|")] for line in lines if "|" in line]
    records = [dict(zip(cells[0], line, strict=True)) for line in cells[2:]]
    ulps = {(r["function"], r["format"]): f"{float(r['max ulp']):.2f}" for r in records}
    formats = list(dict.fromkeys(r["format"] for r in records))
    functions = list(dict.fromkeys(r["function"] for r in records))
    rows = [[name, *(ulps[name, form] for form in formats)] for name in functions]
    return tables.table(rows, ["", *formats], 1, "github")


def startup(found: Results) -> str:
    """Seconds and megabytes of whole processes, from the table of ``python -m bench.startup``."""
    text = STARTUP.read_text(encoding="utf-8")
    return "\n".join(line for line in text.splitlines() if line.startswith("|"))


BLOCKS: dict[str, Callable[[Results], str]] = {
    "functions": functions,
    "derivatives": derivatives,
    "reference": reference,
    "origin": origin,
    "summary": summary,
    "speed": speed,
    "slower": slower,
    "exhaustive": exhaustive,
    "startup": startup,
}
"""The functions that write the blocks, except pictures, by the names of the blocks."""

NAMES = frozenset([*BLOCKS, *(f"picture {name}" for name in pictures.PICTURES)])
"""The names of all blocks."""


def _block(name: str, found: Results, page: Path) -> str:
    if name in BLOCKS:
        return BLOCKS[name](found)
    picture = name.removeprefix("picture ")
    path = Path(os.path.relpath(FOLDER / f"{picture}.svg", page.parent)).as_posix()
    return f"![{pictures.PICTURES[picture].title}]({path})"


def render(page: Path, text: str, found: Results) -> str:
    """Return the `text` of a `page` with new content in its blocks."""
    return _BLOCK.sub(lambda m: f"{m[1]}{_block(m[2], found, page)}\n{m[3]}", text)


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the blocks of all documents, and the report that they link to."""
    parser = argparse.ArgumentParser("python -m bench.readme", description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter)  # fmt: skip
    parser.parse_args(arguments)
    try:
        found = results.read(FOLDER / "results.json")
    except results.BadFile as error:
        print(error, file=sys.stderr)
        return 2
    if found.incomplete:
        print(f"{FOLDER / 'results.json'} comes from an interrupted run", file=sys.stderr)
        return 2
    report.write(found, FOLDER, ["svg"])
    for page in documents():
        before = page.read_text(encoding="utf-8")
        after = render(page, before, found)
        if after != before:
            page.write_text(after, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
