"""The format of results, which tables, pictures and comparisons read."""

import dataclasses
import json
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .peers import OURS, others
from .workloads import Workload

FORMAT = 1

Quartiles = tuple[float, float, float]
"""Lower quartile, median and upper quartile."""


class BadFile(Exception):
    """A file does not hold results."""


@dataclass(frozen=True)
class Cell:
    """The measurement of one library in one workload.

    Attributes
    ----------
    status : {"measured", "unsupported", "wrong", "error"}
    note : str
        The reason, if nothing was measured.
    ns : tuple of float, optional
        Quartiles of the nanoseconds per call.
    calls : int
        Calls per sample.
    ulp : float, optional
        Largest error in ulp.
    """

    status: str
    note: str = ""
    ns: Quartiles | None = None
    calls: int = 0
    ulp: float | None = None


@dataclass(frozen=True)
class Row:
    """One workload: a cell for each library that has the function.

    Attributes
    ----------
    workload : Workload
    cells : dict
        :class:`Cell` by library.
    bounds : dict
        Quartiles of the least nanoseconds per call that the machine allows: "fma" by its rate of
        arithmetic, "copy" by its rate of copying memory.
    repetitions : int
        Samples of each cell.
    threads : int
    own_process : bool
        Whether each library ran in a separate process; otherwise they took turns in one.
    """

    workload: Workload
    cells: dict[str, Cell]
    bounds: dict[str, Quartiles] = field(default_factory=dict)
    repetitions: int = 0
    threads: int = 1
    own_process: bool = False

    @property
    def key(self) -> tuple[Workload, int, bool]:
        """Times are comparable if these are equal."""
        return self.workload, self.threads, self.own_process

    def medians(self) -> dict[str, float]:
        """Median nanoseconds per call of each library that was measured."""
        return {name: cell.ns[1] for name, cell in self.cells.items() if cell.ns}

    def per_element(self) -> dict[str, float]:
        """Median nanoseconds per element of the result."""
        return {name: ns / self.workload.size for name, ns in self.medians().items()}

    def fastest(self, names: Iterable[str]) -> str | None:
        """The fastest of those libraries in `names` that were measured."""
        medians = self.medians()
        return min((name for name in names if name in medians), key=medians.get, default=None)

    def ratio(self, names: Iterable[str] | None = None) -> float | None:
        """Time of the fastest of `names` over ours, so above 1 we are faster.

        By default, `names` are all other libraries.
        """
        fastest = self.fastest(others() if names is None else names)
        medians = self.medians()
        if fastest is None or OURS not in medians:
            return None
        return medians[fastest] / medians[OURS]

    def gflops(self, name: str) -> float:
        """Billions of floating-point operations per second of a dense layer."""
        rows, inner, columns = self.workload.shape
        return 2 * rows * inner * columns / self.medians()[name]

    def share(self, name: str) -> float:
        """Share of the rate of fused multiply-adds that the machine reached.

        The rate is taken from the lower quartile of their times. On a shared processor the median
        rate is at times only half of that, and shares would exceed 1.
        """
        return self.bounds["fma"][0] / self.medians()[name]

    def spread(self) -> float:
        """Half the interquartile range over the median, the largest of all cells."""
        spreads = [relative_spread(cell.ns) for cell in self.cells.values() if cell.ns]
        return max(spreads, default=0.0)


def relative_spread(ns: Quartiles) -> float:
    return (ns[2] - ns[0]) / 2 / ns[1]


def quartiles(values: Sequence[float]) -> Quartiles:
    """Quartiles by linear interpolation, rounded to six digits; one value is enough."""
    found = statistics.quantiles(values, method="inclusive") if len(values) > 1 else [values[0]] * 3
    lower, median, upper = (float(f"{value:.6g}") for value in found)
    return lower, median, upper


@dataclass
class Results:
    """Rows, and the run that they come from.

    Attributes
    ----------
    command : str
        The command that was run.
    machine : dict
        From :func:`bench.machine.describe`.
    versions : dict
        Of the libraries, by name.
    missing : dict
        Of libraries that could not be imported, the reasons by name.
    pinned_core : int, optional
        The core that `rows` were measured on.
    rows : list of Row
        With one thread, all libraries interleaved in one process.
    scaling : list of Row
        By number of threads, each library in a separate process.
    incomplete : bool
        Whether the run was interrupted.
    """

    command: str
    machine: dict[str, Any] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)
    missing: dict[str, str] = field(default_factory=dict)
    pinned_core: int | None = None
    rows: list[Row] = field(default_factory=list)
    scaling: list[Row] = field(default_factory=list)
    incomplete: bool = True

    @property
    def all_rows(self) -> list[Row]:
        return [*self.rows, *self.scaling]

    def failures(self) -> list[str]:
        """A line for each wrong result and each error."""
        return [
            f"{name}: {row.workload.name}: {cell.status}: {cell.note}"
            for row in self.all_rows
            for name, cell in row.cells.items()
            if cell.status in ("wrong", "error")
        ]

    def unsupported(self) -> dict[tuple[str, str], list[Row]]:
        """The rows that a library with the function does not support, by library and reason."""
        found: dict[tuple[str, str], list[Row]] = {}
        for row in self.all_rows:
            for name, cell in row.cells.items():
                if cell.status == "unsupported":
                    found.setdefault((name, cell.note), []).append(row)
        return found

    def select(self, **wanted: Any) -> list[Row]:
        """The single-threaded rows whose workloads have these attributes."""
        return [
            row
            for row in self.rows
            if all(getattr(row.workload, name) == value for name, value in wanted.items())
        ]


def to_json(results: Results) -> str:
    """The text of a result file."""
    content = {"format": FORMAT} | dataclasses.asdict(results)
    fields = []
    for name, value in content.items():
        if name in ("rows", "scaling"):  # a line for each row
            lines = ",\n".join(map(json.dumps, value))
            fields.append(f'"{name}": [\n{lines}\n]')
        else:
            fields.append(f'"{name}": {json.dumps(value)}')
    return "{\n" + ",\n".join(fields) + "\n}\n"


def from_json(text: str) -> Results:
    """Parse the text of a result file; raise :class:`BadFile` if it is not one."""
    try:
        content = json.loads(text)
        if (form := content.pop("format")) != FORMAT:
            raise BadFile(f"expected format {FORMAT}, got {form}")
        for name in ("rows", "scaling"):
            content[name] = [_row(**row) for row in content[name]]
        return Results(**content)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise BadFile(f"{type(error).__name__}: {error}") from error


def read(path: Path) -> Results:
    """Read the result file at `path`."""
    try:
        return from_json(path.read_text(encoding="utf-8"))
    except (BadFile, OSError, UnicodeDecodeError) as error:
        raise BadFile(f"{path}: {error}") from error


def _row(workload, cells, bounds, **rest) -> Row:
    workload = Workload(**workload | {"shape": tuple(workload["shape"])})
    cells = {
        name: Cell(**cell | {"ns": cell["ns"] and tuple(cell["ns"])})
        for name, cell in cells.items()
    }
    bounds = {name: tuple(bound) for name, bound in bounds.items()}
    return Row(workload, cells, bounds, **rest)
