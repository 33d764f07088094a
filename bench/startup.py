"""Measure time and memory of whole processes, from start to exit: ``python -m bench.startup``

The cases are first calls without and with machine code in the cache, imports alone, and imports of
other libraries. They take turns, so that a slow moment of the machine affects all of them.
"""

import argparse
import importlib.util
import os
import statistics
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

from tabulate import tabulate
from tqdm import tqdm

ROOT = Path(__file__).parents[1]

ONE = "import numpy as np, fastact; fastact.sigmoid(np.ones(3, np.float32))"
ALL = """
import numpy as np, fastact
for f in list(vars(fastact).values()):
    if isinstance(f, np.ufunc):
        for signature in f.types:
            f(*[np.ones(3, signature[0])] * f.nin)
"""
DENSE = """
import numpy as np, fastact
layer = fastact.Dense(np.ones((64, 32), np.float32), np.ones(32, np.float32), "sigmoid")
layer(np.ones((8, 64), np.float32))
"""
NUMBA = "numba.vectorize, cached"
NUMBA_MODULE = """
import numpy as np, numba
@numba.vectorize(["f4(f4)"], cache=True)
def sigmoid(x):
    return 1 / (1 + np.exp(-x))
sigmoid(np.ones(3, np.float32))
"""

GOALS = [
    ("import fastact", "import numpy", 1.15),
    ("sigmoid, warm", "import scipy.special", 0.75),
    ("all, warm", "import scipy.special", 1.0),
    ("Dense, warm", "import scipy.special", 1.0),
]
LIMITS = [("sigmoid, cold", 2.0), ("warmup of all", 60.0)]


@dataclass
class Case:
    """A kind of process, and the measurements of each one."""

    code: str
    cold: bool = False
    needs: tuple[str, ...] = ()
    seconds: list[float] = field(default_factory=list)
    megabytes: list[float] = field(default_factory=list)


def cases(folder: Path) -> dict[str, Case]:
    """All cases whose libraries are installed."""
    numba_file = folder / "numba_user.py"
    numba_file.write_text(NUMBA_MODULE)
    use_numba = f"import sys; sys.path.insert(0, {str(folder)!r}); import numba_user"
    found = {
        "python": Case("pass"),
        "import numpy": Case("import numpy"),
        "import fastact": Case("import fastact"),
        "sigmoid, warm": Case(ONE),
        "all, warm": Case(ALL),
        "Dense, warm": Case(DENSE),
        "sigmoid, cold": Case(ONE, cold=True),
        "import scipy.special": Case("import scipy.special", needs=("scipy",)),
        "import numba": Case("import numba"),
        NUMBA: Case(use_numba),
        "import torch": Case("import torch", needs=("torch",)),
        "import jax.numpy": Case("import jax.numpy", needs=("jax",)),
    }
    return {
        name: case
        for name, case in found.items()
        if all(importlib.util.find_spec(library) for library in case.needs)
    }


def run(arguments: list[str], cache: str) -> tuple[float, float]:
    """Run a Python process; return its seconds and megabytes (the maximum resident set)."""
    environment = os.environ | {"FASTACT_CACHE_DIR": cache, "PYTHONPATH": str(ROOT)}
    environment.pop("FASTACT_CACHE", None)
    environment.pop("PYTHONDONTWRITEBYTECODE", None)  # an installed package has bytecode
    start = time.perf_counter()
    child = os.posix_spawn(sys.executable, [sys.executable, *arguments], environment)
    _, status, usage = os.wait4(child, 0)
    seconds = time.perf_counter() - start
    if status:
        raise RuntimeError(f"{arguments} ended with status {os.waitstatus_to_exitcode(status)}")
    return seconds, usage.ru_maxrss / (1024 if sys.platform != "darwin" else 1 << 20)


def measure(repetitions: int, folder: Path) -> dict[str, Case]:
    """Run every case `repetitions` times after a warm-up; `folder` has to be empty."""
    measured = cases(folder)
    warm = str(folder / "warm")
    warmup = Case("")
    add(warmup, run(["-m", "fastact", "warmup"], warm))
    for turn in tqdm(range(repetitions + 1), unit="turn", disable=None):
        for name, case in measured.items():
            cache = str(folder / f"cold {turn}") if case.cold else warm
            result = run(["-c", case.code], cache)
            if turn:
                add(measured[name], result)
    return measured | {"warmup of all": warmup}


def add(case: Case, result: tuple[float, float]) -> None:
    """Add the time and memory of a process to its case."""
    case.seconds.append(result[0])
    case.megabytes.append(result[1])


def table(measured: dict[str, Case], form: str) -> str:
    """Medians, the fastest run, and the ratio to ``import scipy.special`` if that was run."""
    base = measured.get("import scipy.special")
    rows = []
    for name, case in measured.items():
        median = statistics.median(case.seconds)
        ratio = median / statistics.median(base.seconds) if base else None
        rows.append([name, median, min(case.seconds), ratio, max(case.megabytes)])
    headers = ["process", "s, median", "s, least", "/ scipy.special", "MB at most"]
    return tabulate(rows, headers, form, floatfmt=("", ".3f", ".3f", ".2f", ".0f"))


def verdicts(measured: dict[str, Case]) -> list[str]:
    """Return a line for each goal, with the measured value.

    A ratio is the median of the ratios within each turn.
    """
    lines = []
    for name, base, most in GOALS:
        if base in measured:
            pairs = zip(measured[name].seconds, measured[base].seconds, strict=True)
            ratio = statistics.median(a / b for a, b in pairs)
            lines.append(f"{name} / {base}: {ratio:.2f} (goal: at most {most})")
    for name, most in LIMITS:
        seconds = statistics.median(measured[name].seconds)
        lines.append(f"{name}: {seconds:.2f} s (goal: at most {most:.0f} s)")
    return lines


def main(arguments: list[str] | None = None) -> None:
    """Measure, and print the table."""
    parser = argparse.ArgumentParser("python -m bench.startup", description=__doc__)
    parser.add_argument("--repetitions", type=int, default=15, help="processes of each kind")
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="also write the table here")
    options = parser.parse_args(arguments)
    if options.repetitions < 1:
        parser.error(f"--repetitions must be positive, got {options.repetitions}")
    with tempfile.TemporaryDirectory() as folder:
        measured = measure(options.repetitions, Path(folder))
    print(table(measured, "simple"), "", *verdicts(measured), sep="\n")
    if options.markdown:
        text = f"# Start-up\n\n{table(measured, 'github')}\n\n"
        text += "\n".join(f"- {line}" for line in verdicts(measured)) + "\n"
        options.markdown.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
