"""The README's figures, from the committed results: ``python -m bench.readme``.

What stands between ``<!-- figures: NAME -->`` and ``<!-- end -->`` is written by this module.
After a run that is worth publishing::

    python -m bench --output bench/results/ice-lake && python -m bench.readme
"""

import argparse
import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from . import pictures, report, results, tables
from .machine import ROOT
from .peers import OURS
from .peers.base import ROWS
from .results import Results, Row
from .workloads import TYPICAL

README = ROOT / "README.md"
FOLDER = ROOT / "bench/results/ice-lake"
EXHAUSTIVE = ROOT / "bench/results/accuracy.md"
_BLOCK = re.compile(r"(?ms)^(<!-- figures: ([\w ]+) -->\n).*?^(<!-- end -->)$")


def _typical(found: Results) -> list[Row]:
    rows = found.select(layout="contiguous", dense=False)
    return [row for row in rows if row.workload.size == TYPICAL]


def origin(found: Results) -> str:
    """Where the figures are from."""
    return report.origin(found)


def speed(found: Results) -> str:
    """Nanoseconds per element at one size, and who is how much faster."""
    rows = _typical(found)
    names = tables.measured(rows)
    lines = []
    for row in rows:
        times, w = row.per_element(), row.workload
        cells = [tables.text(row.cells.get(name), times.get(name)) for name in names]
        lines.append([w.function, w.dtype, *cells, tables.ratio(row.ratio())])
    headers = ["function", "dtype", *names, "fastest other / ours"]
    return tables.table(lines, headers, 2, "github")


def dense(found: Results) -> str:
    """Layers: what they reach of the machine, and who is how much faster."""
    rows = [row for row in found.select(dense=True) if OURS in row.medians()]
    return tables.dense(rows, "github") if rows else "No dense layer has been measured yet."


def rows(found: Results) -> str:
    """Functions of rows."""
    rows = found.select(layout=ROWS)
    return tables.matrices(rows, "github") if rows else "No function of rows has been measured yet."


def slower(found: Results) -> str:
    """Every workload where another library is faster, folded."""
    rows = [row for row in found.all_rows if row.ratio() is not None]
    count = len(tables.faster(rows))
    return (
        f"<details><summary>All {count} of {len(rows)} workloads where another library is faster"
        f"</summary>\n\n{tables.slower(found, 'github')}\n\n</details>"
    )


def errors(found: Results) -> str:
    """Largest errors of all libraries on the inputs of the benchmark."""
    rows = [row for row in found.select(layout="contiguous") if not row.workload.dense]
    return tables.accuracy(rows, "github")


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


def picture(name: str) -> Callable[[Results], str]:
    title = pictures.PICTURES[name].title
    path = (FOLDER / f"{name}.svg").relative_to(ROOT).as_posix()
    return lambda found: f"![{title}]({path})"


BLOCKS: dict[str, Callable[[Results], str]] = {
    "origin": origin,
    "speed": speed,
    "rows": rows,
    "dense": dense,
    "slower": slower,
    "errors": errors,
    "exhaustive": exhaustive,
    **{f"picture {name}": picture(name) for name in pictures.PICTURES},
}
"""What writes each block, by its name."""


def render(text: str, found: Results) -> str:
    """The README `text` with its blocks written anew."""
    return _BLOCK.sub(lambda m: f"{m[1]}{BLOCKS[m[2]](found)}\n{m[3]}", text)


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the README's blocks, and the report that they link to."""
    parser = argparse.ArgumentParser("python -m bench.readme", description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter)  # fmt: skip
    parser.parse_args(arguments)
    try:
        found = results.read(FOLDER / "results.json")
    except results.BadFile as error:
        print(error, file=sys.stderr)
        return 2
    if found.incomplete:
        print(f"{FOLDER / 'results.json'} is of an interrupted run", file=sys.stderr)
        return 2
    report.write(found, FOLDER, ["svg"])
    Path(README).write_text(render(README.read_text(encoding="utf-8"), found), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
