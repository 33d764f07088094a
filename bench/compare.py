"""Compare two result files, and list what became slower by more than the noise.

    python -m bench.compare OLD.json NEW.json

A ratio above 1 means slower. The whole machine may have been faster or slower, so the ratio of a
workload is divided by the median ratio of the other libraries in it. Only libraries that have the
same version in both files count for that. The noise is the sum of both spreads.
"""

import argparse
import statistics
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from fastact._machine import cpu

from . import results, tables
from .peers import OWN
from .results import Results, Row, relative_spread

NOISES = 2  # a change has to be this many times the noise


@dataclass(frozen=True)
class Change:
    """How the time of one workload changed.

    Attributes
    ----------
    row : Row
        The new row.
    name : str
        The library.
    ratio : float
        New time over old, corrected by `drift`.
    drift : float
        Median of new time over old of the other libraries.
    limit : float
        How far the ratio has to differ from 1 to be more than noise.
    """

    row: Row
    name: str
    ratio: float
    drift: float
    limit: float

    @property
    def verdict(self) -> str:
        if self.ratio > 1 + self.limit:
            return "slower"
        return "faster" if self.ratio < 1 / (1 + self.limit) else "same"


def changes(old: Results, new: Results, threshold: float) -> list[Change]:
    """Return the changes of this package in the workloads of both files, by descending ratio.

    Parameters
    ----------
    old, new : Results
    threshold : float
        The smallest relative change that counts, however small the noise is.
    """
    before = {row.key: row for row in old.all_rows}
    same = {n for n, v in new.versions.items() if old.versions.get(n) == v}
    same -= {*OWN}
    found = []
    for row in new.all_rows:
        earlier = before.get(row.key)
        if earlier is None:
            continue
        ratios = {
            name: cell.ns[1] / earlier.cells[name].ns[1]
            for name, cell in row.cells.items()
            if cell.ns and name in earlier.cells and earlier.cells[name].ns
        }
        drift = statistics.median([r for n, r in ratios.items() if n in same] or [1.0])
        for name in OWN:
            if name in ratios:
                spreads = [relative_spread(r.cells[name].ns) for r in (earlier, row)]
                limit = max(threshold, NOISES * sum(spreads))
                found.append(Change(row, name, ratios[name] / drift, drift, limit))
    return sorted(found, key=lambda change: -change.ratio)


def unmatched(old: Results, new: Results) -> list[str]:
    """Return a line for each workload that only one of the files has of this package."""
    names = [
        {
            (tables.describe(row), name)
            for row in results.all_rows
            for name in OWN
            if name in row.medians()
        }
        for results in (old, new)
    ]
    return [
        f"only in {where}: {name}: {what}"
        for where, these, those in (("OLD", *names), ("NEW", *names[::-1]))
        for what, name in sorted(these - those)
    ]


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the changes; return 1 if something became slower, 2 if a file cannot be read."""
    parser = argparse.ArgumentParser(
        "python -m bench.compare",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("old", type=Path, metavar="OLD.json")
    parser.add_argument("new", type=Path, metavar="NEW.json")
    parser.add_argument("--threshold", type=_percent, default=0.1, metavar="PERCENT",
                        help="the smallest change that counts (default: 10)")  # fmt: skip
    parser.add_argument("--all", action="store_true", help="also list what did not change")
    options = parser.parse_args(arguments)
    try:
        old, new = results.read(options.old), results.read(options.new)
    except results.BadFile as error:
        print(error, file=sys.stderr)
        return 2
    cpus, levels = (
        [found.machine.get(name, usual) for found in (old, new)]
        for name, usual in (("cpu", None), ("level", cpu.NATIVE))
    )
    if cpus[0] != cpus[1]:
        print(f"the files are from different processors: {cpus[0]}, {cpus[1]}", file=sys.stderr)
    if levels[0] != levels[1]:
        print(f"the files are for different {cpu.VARIABLE}: {', '.join(levels)}", file=sys.stderr)
    found = changes(old, new, options.threshold)
    shown = [change for change in found if options.all or change.verdict != "same"]
    lines = [
        [tables.describe(c.row), c.name, c.verdict]
        + [f"{value:.2f}" for value in (c.ratio, c.drift, 1 + c.limit)]
        for c in shown
    ]
    headers = ["workload", "library", "verdict", "new / old", "others' drift", "limit"]
    print(tables.table(lines, headers, 3, "simple"))
    for line in unmatched(old, new):
        print(line)
    count = sum(change.verdict == "slower" for change in found)
    print(f"{len(found)} compared, {count} slower")
    return 1 if count else 0


def _percent(text: str) -> float:
    try:
        value = float(text) / 100
    except ValueError:
        value = -1
    if not 0 <= value < float("inf"):
        raise argparse.ArgumentTypeError(f"expected a percentage, at least 0, got {text!r}")
    return value


if __name__ == "__main__":
    sys.exit(main())
