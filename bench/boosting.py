"""Compare the logistic objective for boosting with its NumPy formula: ``python -m bench.boosting``

It measures the objective alone, then whole trainings with it, with NumPy's formula and with the
built-in objective of the library, all with one thread on one core. They take turns, so that a slow
moment of the machine affects all of them.
"""

import argparse
import statistics
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from tabulate import tabulate
from tqdm import tqdm

from . import timing

HEADERS = ["what", "NumPy, ms", "fastact, ms", "built in, ms", "NumPy / fastact"]
ROUNDS = 50

Calls = dict[str, Callable[[], Any]]


def formula(score: np.ndarray, label: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The objective as the documentation of the libraries writes it."""
    p = 1 / (1 + np.exp(-score))
    return p - label, p * (1 - p)


def cases(rows: int) -> Iterator[tuple[str, Calls]]:
    """Yield the name of each case, and the calls that take turns."""
    import lightgbm
    import xgboost
    from sklearn.datasets import make_classification

    import fastact

    ways = {"NumPy": formula, "fastact": fastact.logistic_grad_hess}
    X, y = make_classification(rows, 20, random_state=0)
    for dtype in ("float32", "float64"):
        score = np.random.default_rng(0).normal(0, 3, rows).astype(dtype)
        label = y.astype(dtype)
        calls = {name: lambda way=way, s=score, t=label: way(s, t) for name, way in ways.items()}
        yield f"objective, {rows:,} {dtype}", calls

    def objective(way):
        return lambda score, dataset: way(score, dataset.get_label())

    table = xgboost.DMatrix(X, y)
    options = {"nthread": 1, "max_depth": 4}
    calls = {
        name: lambda way=way: xgboost.train(
            options | {"base_score": 0.0}, table, ROUNDS, obj=objective(way)
        )
        for name, way in ways.items()
    }
    own = options | {"objective": "binary:logistic", "base_score": 0.5}
    calls["built in"] = lambda: xgboost.train(own, table, ROUNDS)
    yield f"XGBoost {xgboost.__version__}, {ROUNDS} rounds of {rows:,}", calls

    dataset = lightgbm.Dataset(X, y).construct()
    quiet = {"verbosity": -1, "num_threads": 1, "boost_from_average": False}
    calls = {
        name: lambda way=way: lightgbm.train(quiet | {"objective": objective(way)}, dataset, ROUNDS)
        for name, way in ways.items()
    }
    calls["built in"] = lambda: lightgbm.train(quiet | {"objective": "binary"}, dataset, ROUNDS)
    yield f"LightGBM {lightgbm.__version__}, {ROUNDS} rounds of {rows:,}", calls


def measure(rows: int, repetitions: int) -> list[list[Any]]:
    """Return rows for the table; each time is the median of `repetitions`, after a warm-up."""
    found = []
    for what, calls in tqdm(list(cases(rows)), unit="case", disable=None):
        samples: dict[str, list[float]] = {name: [] for name in calls}
        for turn in range(repetitions + 1):
            for name, call in calls.items():
                start = time.perf_counter()
                call()
                if turn:
                    samples[name].append(1e3 * (time.perf_counter() - start))
        medians = {name: statistics.median(taken) for name, taken in samples.items()}
        ratios = map(float.__truediv__, samples["NumPy"], samples["fastact"])
        cells = [medians.get(name, "") for name in ("NumPy", "fastact", "built in")]
        found.append([what, *cells, statistics.median(ratios)])
    return found


def main(arguments: list[str] | None = None) -> None:
    """Measure, and print the table."""
    parser = argparse.ArgumentParser("python -m bench.boosting", description=__doc__)
    parser.add_argument("--rows", type=int, default=100_000, help="rows of the training data")
    parser.add_argument(
        "--repetitions", type=int, default=5, help="samples for each time, which is their median"
    )
    options = parser.parse_args(arguments)
    for name in ("rows", "repetitions"):
        if getattr(options, name) < 1:
            parser.error(f"--{name} must be positive, got {getattr(options, name)}")
    with timing.one_thread():
        rows = measure(options.rows, options.repetitions)
    print(tabulate(rows, HEADERS, "simple", floatfmt=("", ".2f", ".2f", ".2f", ".2f")))


if __name__ == "__main__":
    main()
