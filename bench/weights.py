"""Time layers whose weights are stored in fewer bits, next to those in float32.

    python -m bench.weights --shapes 1x4096x4096 256x784x128

It prints, for each shape M x K x N, the median time of a float32 layer with relu on one core, and
how many times faster a layer with each `weights_dtype` is.
"""

import argparse
import functools

import numpy as np
from tabulate import tabulate

import fastact as fa
from fastact._dense.compact import NAMES

from . import timing
from .workloads import SHAPES


def calls(shape: tuple[int, int, int]) -> dict:
    """Return a call for each `weights_dtype`; None is float32."""
    rows, depth, columns = shape
    random = np.random.default_rng(0)
    x, W, b = (
        random.standard_normal(size, np.float32)
        for size in ((rows, depth), (depth, columns), columns)
    )
    out = np.zeros((rows, columns), np.float32)
    return {
        name: functools.partial(fa.Dense(W, b, "relu", name), x, out=out) for name in (None, *NAMES)
    }


def measured(shape: tuple[int, int, int], repetitions: int) -> list:
    """Return a line of the table."""
    layers = calls(shape)
    counts = {name: timing.calls_per_sample(call) for name, call in layers.items()}
    samples = timing.interleaved(layers, counts, repetitions)
    medians = {name: float(np.median(times)) for name, times in samples.items()}
    ratios = [medians[None] / medians[name] for name in NAMES]
    return [" x ".join(map(str, shape)), medians[None] / 1000, *ratios]


def size(text: str) -> tuple[int, int, int]:
    rows, depth, columns = map(int, text.split("x"))
    return rows, depth, columns


def main(arguments: list[str] | None = None) -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(prog="python -m bench.weights", description=__doc__)
    parser.add_argument("--shapes", nargs="+", type=size, default=SHAPES, metavar="MxKxN",
                        help="by default those of the other benchmarks")  # fmt: skip
    parser.add_argument("--repetitions", type=int, default=21, help="samples of each layer")
    options = parser.parse_args(arguments)
    with timing.one_thread():
        lines = [measured(shape, options.repetitions) for shape in options.shapes]
    headers = ["M x K x N", "float32, us", *NAMES]
    print(tabulate(lines, headers, "github", floatfmt=(None, ".1f", ".2f", ".2f", ".2f")))


if __name__ == "__main__":
    main()
