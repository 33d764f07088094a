"""Write the figures of the documents from the committed results: ``python -m bench.readme``.

This module writes the text between ``<!-- figures: NAME -->`` and ``<!-- end -->`` in the README
and in the pages of docs/. To publish the figures of a new run::

    python -m bench --output bench/results/emerald-rapids && python -m bench.readme

Every folder in ``bench/results`` is one run on one kind of machine. All blocks show the run in
`MAIN`, except "other machines", which shows the others, each with its origin.
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
    FAST,
    LIBRARIES,
    NORMALIZATIONS,
    OBJECTIVES,
    ROW_ACTIVATIONS,
    ROW_REDUCTIONS,
    Activation,
    Normalization,
    RowActivation,
    RowReduction,
    along_rows,
    row_derivatives,
)

from . import pictures, report, results, tables
from .machine import ROOT
from .peers import OURS, OWN
from .peers.base import ROWS
from .results import Results, Row
from .workloads import TYPICAL

RESULTS = ROOT / "bench/results"
MAIN = RESULTS / "emerald-rapids"
EXHAUSTIVE = ROOT / "bench/results/accuracy.md"
STARTUP = ROOT / "bench/results/startup.md"
_BLOCK = re.compile(r"(?ms)^(<!-- figures: ([\w -]+) -->\n).*?^(<!-- end -->)$")

# The README shows one shape for functions of rows, and one layer.
_ROW_SHAPE = (4096, 128)
_LAYER = ("sigmoid", (256, 784, 128))


def documents() -> list[Path]:
    """The README, and the pages of docs/."""
    return [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]


def _listed(
    records: Iterable[Activation | RowActivation | RowReduction | Normalization],
) -> str:
    return "\n".join(f"- {declared.summary} `{declared.formula}`" for declared in records)


def functions(found: Results) -> str:
    """The declared summary and formula of each activation."""
    return _listed([*ACTIVATIONS.values(), *along_rows().values()])


def conventions(found: Results) -> str:
    """The name of each function in other libraries, and how it differs there."""
    rows = [
        [declared.name, *(declared.elsewhere.get(library, "") for library in LIBRARIES)]
        for declared in [*ACTIVATIONS.values(), *along_rows().values()]
    ]
    return tables.table(rows, ["fastact", *LIBRARIES], len(LIBRARIES) + 1, "github")


def keras(found: Results) -> str:
    """The activations that ``fastact.keras`` replaces, by their names in Keras."""
    known = (ACTIVATIONS | ROW_ACTIVATIONS).values()
    names = {function.public for declared in known for function in declared.keras_functions}
    return _listed_names(names)


def pytensor(found: Results) -> str:
    """The functions that ``fastact.pytensor`` replaces."""
    return _listed_names(name for name, a in ACTIVATIONS.items() if a.pytensor_ops)


def _listed_names(names: Iterable[str]) -> str:
    *first, last = (f"`{name}`" for name in sorted(names))
    return f"{', '.join(first)} and {last}."


def fast_tier(found: Results) -> str:
    """The declared largest errors of the fast tier, beside those of the default."""
    lines = [
        [f"`fa.{name}`", *(f"{ulp:g} ({ACTIVATIONS[declared.of].ulp[form]:g})"
                           for form, ulp in declared.ulp.items())]
        for name, declared in FAST.items()
    ]  # fmt: skip
    return tables.table(lines, ["function", *next(iter(FAST.values())).ulp], 1, "github")


def derivatives(found: Results) -> str:
    """The formulas of derivatives, which name their operands."""
    known = [*DERIVATIVES.values(), *row_derivatives().values()]
    return "\n".join(f"- `{declared.formula}`" for declared in known)


def reference(found: Results) -> str:
    """An entry of the API reference for every function, under the heading of its kind."""
    kinds = {
        "Activations": [*ACTIVATIONS, *ROW_ACTIVATIONS, *NORMALIZATIONS],
        "Reductions": [*ROW_REDUCTIONS],
        "Derivatives": [
            *(declared.name for declared in DERIVATIVES.values()),
            *(declared.name for declared in row_derivatives().values()),
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
    """A row for each function measured in full, in float32, and one for a layer; microseconds."""
    function, shape = _LAYER
    typical = found.select(dtype="float32", layout="contiguous", dense=False, shape=(TYPICAL,))
    full = {name for name, declared in ACTIVATIONS.items() if declared.measured_in_full}
    rows = [
        *(row for row in typical if row.workload.function in full),
        *found.select(dtype="float32", layout=ROWS, shape=_ROW_SHAPE),
        *found.select(dtype="float32", dense=True, function=function, shape=shape),
    ]
    names = [name for name in tables.measured(rows) if name == OURS or name not in OWN]
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


def _largest_errors(path: Path) -> dict[tuple[str, str], str]:
    """The largest error by function and format, from the table of ``python -m bench.accuracy``."""
    lines = path.read_text(encoding="utf-8").splitlines()
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]
    return {(name, form): f"{float(ulp):.2f}" for name, form, _, ulp, *_ in cells}


def exhaustive(found: Results) -> str:
    """The largest error by function and format, on a machine with AVX-512."""
    errors = _largest_errors(EXHAUSTIVE)
    formats = [*dict.fromkeys(form for _, form in errors)]
    names = dict.fromkeys(name for name, _ in errors)
    lines = [[name, *(errors.get((name, form), "") for form in formats)] for name in names]
    return tables.table(lines, ["", *formats], 1, "github")


def levels(found: Results) -> str:
    """The largest error in float32 by function and level, from :data:`EXHAUSTIVE` and beside it."""
    stem = EXHAUSTIVE.stem
    files = sorted(EXHAUSTIVE.parent.glob(f"{stem}-*.md"), reverse=True)
    by_level = {"AVX-512": _largest_errors(EXHAUSTIVE)}
    by_level |= {path.stem.removeprefix(f"{stem}-"): _largest_errors(path) for path in files}
    names = dict.fromkeys(name for path in files for name, _ in _largest_errors(path))
    lines = [
        [name, *(errors.get((name, "float32"), "") for errors in by_level.values())]
        for name in names
    ]
    return tables.table(lines, ["", *by_level], 1, "github")


def startup(found: Results) -> str:
    """Seconds and megabytes of whole processes, from the table of ``python -m bench.startup``."""
    text = STARTUP.read_text(encoding="utf-8")
    return "\n".join(line for line in text.splitlines() if line.startswith("|"))


BLOCKS: dict[str, Callable[[Results], str]] = {
    "functions": functions,
    "derivatives": derivatives,
    "conventions": conventions,
    "keras": keras,
    "pytensor": pytensor,
    "fast tier": fast_tier,
    "reference": reference,
    "origin": origin,
    "summary": summary,
    "speed": speed,
    "slower": slower,
    "exhaustive": exhaustive,
    "levels": levels,
    "startup": startup,
}
"""The functions that write the blocks, except pictures, by the names of the blocks."""

OTHERS = "other machines"

NAMES = frozenset([*BLOCKS, OTHERS, *(f"picture {name}" for name in pictures.PICTURES)])
"""The names of all blocks."""


def _path(target: Path, page: Path) -> str:
    return Path(os.path.relpath(target, page.parent)).as_posix()


def _picture(name: str, folder: Path, page: Path) -> str:
    return f"![{pictures.PICTURES[name].title}]({_path(folder / f'{name}.svg', page)})"


def other_machines(runs: dict[Path, Results], page: Path) -> str:
    """A section for each run that is not the main one."""
    parts = []
    for folder, found in runs.items():
        if folder != MAIN:
            parts += [
                f"### {folder.name}",
                f"{origin(found)} [Full report]({_path(folder / 'report.md', page)}).",
                *(_picture(name, folder, page) for name in ("speedups", "accuracy")),
                speed(found),
                slower(found),
            ]
    return "\n\n".join(parts) or "There are none yet."


def _block(name: str, runs: dict[Path, Results], page: Path) -> str:
    if name == OTHERS:
        return other_machines(runs, page)
    if name in BLOCKS:
        return BLOCKS[name](runs[MAIN])
    return _picture(name.removeprefix("picture "), MAIN, page)


def render(page: Path, text: str, runs: dict[Path, Results]) -> str:
    """Return the `text` of a `page` with new content in its blocks; `runs` are by folder."""
    return _BLOCK.sub(lambda m: f"{m[1]}{_block(m[2], runs, page)}\n{m[3]}", text)


def complete_runs() -> dict[Path, Results]:
    """Read the results of every machine; raise ``BadFile`` if those of one are incomplete."""
    runs = {path.parent: results.read(path) for path in sorted(RESULTS.glob("*/results.json"))}
    for folder, found in runs.items():
        if found.incomplete:
            raise results.BadFile(f"{folder / 'results.json'} comes from an interrupted run")
    return runs


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the blocks of all documents, and the reports that they link to."""
    parser = argparse.ArgumentParser("python -m bench.readme", description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter)  # fmt: skip
    parser.parse_args(arguments)
    try:
        runs = complete_runs()
    except results.BadFile as error:
        print(error, file=sys.stderr)
        return 2
    for folder, found in runs.items():
        report.write(found, folder, ["svg"])
    for page in documents():
        before = page.read_text(encoding="utf-8")
        after = render(page, before, runs)
        if after != before:
            page.write_text(after, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
