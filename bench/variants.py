"""Compare code for the same kernel with different vector widths and interleaves, for the lab book.

    python -m bench.variants sigmoid tanh --formats float32 --shapes 512x4 512x2 256x4

The loops are called directly, interleaved within each repetition, on one core.
"""

import argparse
import ctypes
import dataclasses

import numpy as np
from tabulate import tabulate
from tqdm import tqdm

from fastact._compiler import host
from fastact._declarations.records import ACTIVATIONS
from fastact._runtime import engine

from . import problems, timing, workloads
from .peers.base import Call


def caller(address: int, x: np.ndarray, y: np.ndarray) -> Call:
    """Return a call of the inner loop at `address` from contiguous `x` to contiguous `y`."""
    pointer = ctypes.c_void_p
    loop = ctypes.CFUNCTYPE(ctypes.c_int, *[pointer] * 5)(address)
    data = (pointer * 2)(x.ctypes.data, y.ctypes.data)
    length = (ctypes.c_ssize_t * 1)(len(x))
    strides = (ctypes.c_ssize_t * 2)(x.itemsize, y.itemsize)
    return lambda: loop(None, data, length, strides, None)


def main(arguments: list[str] | None = None) -> None:
    """Print the median ns per element of each variant."""
    unary = {name: a for name, a in ACTIVATIONS.items() if a.nin == 1}
    parser = argparse.ArgumentParser(prog="python -m bench.variants", description=__doc__)
    parser.add_argument("functions", nargs="+", choices=unary)
    formats = ["float16", "float32", "float64"]
    parser.add_argument("--formats", nargs="+", choices=formats, default=formats)
    parser.add_argument("--shapes", nargs="+", default=["512x1", "512x2", "512x4", "256x4"],
                        metavar="BITSxVECTORS")  # fmt: skip
    parser.add_argument("--size", type=int, default=8192, help="elements of the arrays")
    parser.add_argument("--repetitions", type=int, default=41, help="samples of each loop")
    options = parser.parse_args(arguments)
    rows = []
    with timing.one_thread():
        for name in tqdm(options.functions, unit="function"):
            for form in options.formats:
                case = problems.problem(workloads.Workload(name, form, (options.size,)))
                calls = {}
                for shape in options.shapes:
                    bits, vectors = map(int, shape.split("x"))
                    target = dataclasses.replace(host.host(), vector_bits=bits, interleave=vectors)
                    address = engine.loop_address(
                        unary[name].kernel, 1, type(case.out.dtype), target
                    )
                    calls[shape] = caller(address, case.inputs[0], case.out)
                counts = {shape: timing.calls_per_sample(call) for shape, call in calls.items()}
                samples = timing.interleaved(calls, counts, options.repetitions)
                medians = [np.median(s) / options.size for s in samples.values()]
                rows.append((name, form, *medians))
    print(tabulate(rows, ["function", "format", *options.shapes], "github", floatfmt=".3f"))


if __name__ == "__main__":
    main()
