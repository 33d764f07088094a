"""Time loops that users compile with Numba: ``python -m bench.njit``

The first table compares loops that call functions of fastact with loops that compute the usual
formulas with ``math``. The second table shows the cost for a program that does not use fastact: the
time of the first compilation in a new process, without and with fastact's entry point, in turns.
"""

import argparse
import math
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numba
import numpy as np
from tabulate import tabulate
from tqdm import tqdm

import fastact
import fastact.numba  # registers the functions, as the entry point of an installed package does

from . import timing

ROOT = Path(__file__).parents[1]
NAIVE: dict[str, Callable[[float], float]] = {
    "sigmoid": lambda x: 1 / (1 + math.exp(-x)),
    "tanh": lambda x: math.tanh(x),
    "softplus": lambda x: math.log1p(math.exp(x)),
}
"""The formulas as users write them without a library."""

FIRST = """
import time, numba
start = time.perf_counter()
numba.njit(lambda x: x + 1)(1)
print(time.perf_counter() - start)
"""


def loop(function: Callable) -> Callable:
    """Return a compiled loop that applies `function` to x and writes to y."""
    inner = function if isinstance(function, np.ufunc) else numba.njit(function)

    @numba.njit
    def compiled(x, y):
        for i in range(x.size):
            y[i] = inner(x[i])

    return compiled


def loops(size: int, repetitions: int) -> list[list]:
    """Return a row for each function and dtype: median nanoseconds per element, and their ratio."""
    rows = []
    for name, formula in tqdm(NAIVE.items(), unit="function"):
        for dtype in (np.float32, np.float64):
            x = np.random.default_rng(0).normal(0, 4, size).astype(dtype)
            y = np.empty_like(x)
            ours, naive = loop(getattr(fastact, name)), loop(formula)
            calls = {"fastact": lambda: ours(x, y), "math": lambda: naive(x, y)}  # noqa: B023
            counts = {which: timing.calls_per_sample(call) for which, call in calls.items()}
            samples = timing.interleaved(calls, counts, repetitions)
            median = {which: statistics.median(s) / size for which, s in samples.items()}
            ratio = median["math"] / median["fastact"]
            rows.append([name, np.dtype(dtype).name, *median.values(), ratio])
    return rows


def starts(repetitions: int) -> list[list]:
    """Return a row without and one with the entry point: median and least seconds."""
    measured: dict[str, list[float]] = {"without": [], "with the entry point": []}
    with tempfile.TemporaryDirectory() as folder:
        info = Path(folder) / "fastact-0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text("Metadata-Version: 2.1\nName: fastact\nVersion: 0\n")
        (info / "entry_points.txt").write_text("[numba_extensions]\ninit = _fastact_numba:init\n")
        for turn in tqdm(range(repetitions + 1), unit="turn"):  # the first is a warm-up
            for name, seconds in measured.items():
                path = [str(ROOT), *([folder] if name != "without" else [])]
                done = subprocess.run(
                    [sys.executable, "-c", FIRST],
                    env=os.environ | {"PYTHONPATH": os.pathsep.join(path)},
                    capture_output=True, text=True, check=True,
                )  # fmt: skip
                if turn:
                    seconds.append(float(done.stdout))
    return [[name, statistics.median(s), min(s)] for name, s in measured.items()]


def main(arguments: list[str] | None = None) -> None:
    """Measure, and print the tables."""
    parser = argparse.ArgumentParser("python -m bench.njit", description=__doc__)
    parser.add_argument("--size", type=int, default=65_536, help="elements of the arrays")
    parser.add_argument("--repetitions", type=int, default=25, help="samples of each loop")
    parser.add_argument("--starts", type=int, default=0, metavar="N",
                        help="processes of each kind, for the cost of the entry point")  # fmt: skip
    options = parser.parse_args(arguments)
    if options.size < 1 or options.repetitions < 1 or options.starts < 0:
        parser.error("--size and --repetitions must be positive, --starts not negative")
    print(f"Numba {numba.__version__}, {time.strftime('%Y-%m-%d')}")
    with timing.one_thread():
        rows = loops(options.size, options.repetitions)
    headers = ["function", "dtype", "fastact, ns", "math, ns", "math / fastact"]
    print(tabulate(rows, headers, "github", floatfmt=".3g"))
    if options.starts:
        headers = ["first compilation", "s, median", "s, least"]
        print("", tabulate(starts(options.starts), headers, "github", floatfmt=".4f"), sep="\n")


if __name__ == "__main__":
    main()
