"""Time PyTensor's compiled functions before and after ``fastact.pytensor.register()``.

    python -m bench.pytensor

Both are compiled with the Numba linker. Their calls are interleaved, in one process and on the same
array: of numbers from the interval that a function is shown in, or else of normal numbers.
"""

import argparse
import statistics
from functools import partial

import numba
import numpy as np
import pytensor
import pytensor.tensor as pt
from tabulate import tabulate

import fastact.pytensor
from fastact._declarations.records import ACTIVATIONS

from . import timing

DTYPES = ("float32", "float64")


NAMES = [name for name, declared in ACTIVATIONS.items() if declared.pytensor_ops]
"""The functions that are replaced."""


def functions(dtype: str) -> dict:
    """Return compiled functions of one vector, by their formula."""
    x = pt.vector("x", dtype=dtype)
    outputs = {name: getattr(pt, name)(x) for name in NAMES} | {
        "gradient of sum(softplus)": pytensor.grad(pt.softplus(x).sum(), x),
        "softplus(x) * x": pt.softplus(x) * x,
        "mean(softplus(x) - x sigmoid(x))": pt.mean(pt.softplus(x) - x * pt.sigmoid(x)),
        "erf(x) * expm1(-x**2)": pt.erf(x) * pt.expm1(-pt.square(x)),
    }
    return {
        name: pytensor.function([x], y, mode="NUMBA", trust_input=True)
        for name, y in outputs.items()
    }


def argument(name: str, size: int) -> np.ndarray:
    """Return numbers for which the function is defined."""
    rng = np.random.default_rng(0)
    if name in NAMES:
        return rng.uniform(*ACTIVATIONS[name].interval, size)
    return rng.normal(0, 4, size)


def main(arguments: list[str] | None = None) -> None:
    """Measure, and print the table."""
    parser = argparse.ArgumentParser("python -m bench.pytensor", description=__doc__)
    parser.add_argument("--size", type=int, default=65_536, help="elements of the arrays")
    parser.add_argument("--repetitions", type=int, default=25, help="samples of each function")
    options = parser.parse_args(arguments)
    if options.size < 1 or options.repetitions < 1:
        parser.error("--size and --repetitions must be positive")
    rows = []
    with timing.one_thread():
        before = {dtype: functions(dtype) for dtype in DTYPES}
        fastact.pytensor.register()
        after = {dtype: functions(dtype) for dtype in DTYPES}
        for dtype in DTYPES:
            for name, theirs in before[dtype].items():
                ours, x = after[dtype][name], argument(name, options.size).astype(dtype)
                calls = {"before": partial(theirs, x), "after": partial(ours, x)}
                counts = {which: timing.calls_per_sample(call) for which, call in calls.items()}
                samples = timing.interleaved(calls, counts, options.repetitions)
                times = [statistics.median(s) / options.size for s in samples.values()]
                rows.append([name, dtype, *times, times[0] / times[1]])
    print(f"PyTensor {pytensor.__version__}, Numba {numba.__version__}")
    headers = ["function", "dtype", "before, ns", "after, ns", "before / after"]
    print(tabulate(rows, headers, "github", floatfmt=".3g"))


if __name__ == "__main__":
    main()
