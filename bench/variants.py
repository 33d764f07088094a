"""Find the code that is fastest for each function: how many vectors per iteration, for example.

    python -m bench.variants --levels native x86-64-v3
    python -m bench.variants sigmoid tanh --formats float32 --shapes 512x4 512x2 256x4
    python -m bench.variants tanh --levels x86-64-v3 --shapes 2 4 --tune znver3 skylake
    python -m bench.variants tanh --shapes 2 4 --stages 1 3 4

The first form compares 1, 2, 4 and 8 vectors per iteration for every function and format, in code
for this processor and for a lesser one. A shape is a number of vectors per iteration, which may
follow the width of a vector in bits. ``--stages`` divides each loop into that many stages, instead
of as many as the code of the package has ("4 in 3" are 4 vectors in 3 stages). ``--tune`` names
processors whose instructions LLVM is to have in mind when it orders those of the code; it still
uses only instructions of the level.

Loops are called directly, on one core, in turns within each repetition. Times are medians of
nanoseconds per element, less the time of a call without elements. Loads from the stack and stores
to it, per vector, follow in parentheses. The last two columns have the fastest variant, and by how
much the code of the package is slower. Differences below 2 % do not count.
"""

import argparse
import contextlib
import ctypes
import dataclasses
import itertools
import re
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple
from unittest import mock

import numpy as np
from tqdm import tqdm

from fastact._compiler import host, pipeline
from fastact._compiler.symbols import ALONE
from fastact._declarations.records import Activation, Derivative, Objective
from fastact._loading import linker
from fastact._machine.formats import FLOATS, FORMATS
from fastact._machine.targets import BASELINES, Target
from fastact._runtime import engine

from . import accuracy, machine_code, operations, tables, timing
from .peers.base import Call

LEAST_GAIN = 0.02
"""Differences below this are noise: two runs of the same code differ by up to 2 %."""


class Variant(NamedTuple):
    """Differences from the usual code of a target; None stands for none.

    Attributes
    ----------
    vectors : int
        The number of vectors per iteration.
    bits : int or None
        The width of a vector.
    processor : str or None
        LLVM's name of the processor for which it orders instructions.
    stages : int or None
        The number of stages of the loop (``_compiler/software_pipelining.py``).
    """

    vectors: int
    bits: int | None = None
    processor: str | None = None
    stages: int | None = None

    def __str__(self) -> str:
        shape = f"{self.bits}x{self.vectors}" if self.bits else f"{self.vectors}"
        shape = f"{shape} in {self.stages}" if self.stages else shape
        return f"{shape} {self.processor}" if self.processor else shape

    def target(self, usual: Target) -> Target:
        bits = self.bits or usual.vector_bits
        stages = self.stages or usual.stages
        return dataclasses.replace(usual, vector_bits=bits, interleave=self.vectors, stages=stages)


class Code(NamedTuple):
    """A loop in this process."""

    address: int
    spills: float  # per vector


@contextlib.contextmanager
def tuned(processor: str | None) -> Iterator[None]:
    """Let LLVM order the instructions of all functions for a processor."""
    if processor is None:
        yield
        return
    unchanged = pipeline.for_target

    def for_target(text: str, *rest) -> str:
        return re.sub(
            r"(?m)^(define .*?)\s*\{$",
            rf'\1 "tune-cpu"="{processor}" {{',
            unchanged(text, *rest),
        )

    with mock.patch.object(pipeline, "for_target", for_target):
        yield


def compiled(declared: Activation, form: str, usual: Target, variant: Variant) -> Code:
    """Compile a loop, without the cache."""
    target = variant.target(usual)
    with tuned(variant.processor):
        module, machine = pipeline.optimised(*operations.sources(declared, form, target), target)
    code = pipeline.emit(module, machine)
    (loop,) = machine_code.loops(
        machine_code.function(machine.emit_assembly(module), operations.HOT_LOOP)
    )
    spills = machine_code.counts(loop, target.architecture).spills / variant.vectors
    return Code(linker.load(code, ALONE), spills)


def caller(address: int, operands: Sequence[np.ndarray], length: int) -> Call:
    """Return a call of the inner loop at `address` for contiguous `operands`."""
    pointer = ctypes.c_void_p
    loop = ctypes.CFUNCTYPE(ctypes.c_int, *[pointer] * 5)(address)
    data = (pointer * len(operands))(*(x.ctypes.data for x in operands))
    dimensions = (ctypes.c_ssize_t * 1)(length)
    strides = (ctypes.c_ssize_t * len(operands))(*(x.itemsize for x in operands))
    return lambda: loop(None, data, dimensions, strides, None)


def operands_of(declared: Activation, form: str, size: int) -> list[np.ndarray]:
    """Return usual inputs, and the outputs."""
    rng, dtype = np.random.default_rng(0), accuracy.dtype_of(form)
    inputs = [4 * rng.standard_normal(size) for _ in range(declared.nin)]
    if isinstance(declared, Derivative):
        inputs[1] = rng.uniform(*declared.interval, size)
    if isinstance(declared, Objective):
        inputs[1] = rng.integers(0, 2, size)
    return [*(x.astype(dtype) for x in inputs), *(np.zeros(size, dtype) for _ in declared.results)]


def measure(codes: dict[Variant, Code], operands: Sequence[np.ndarray], repetitions: int):
    """Return the median nanoseconds per element of each variant."""
    size = len(operands[0])
    calls = {str(variant): caller(code.address, operands, size) for variant, code in codes.items()}
    calls[""] = caller(next(iter(codes.values())).address, operands, 0)
    counts = {name: timing.calls_per_sample(call) for name, call in calls.items()}
    samples = timing.interleaved(calls, counts, repetitions)
    empty = np.median(samples.pop(""))
    return {name: (np.median(s) - empty) / size for name, s in samples.items()}


def fastest(times: dict[str, float], usual: str) -> tuple[str, float | None]:
    """Return the name of the fastest variant, and how much more time the usual one takes."""
    best = min(times, key=times.get)
    if usual not in times:
        return best, None
    loss = times[usual] / times[best] - 1
    return (best, loss) if loss >= LEAST_GAIN else (usual, 0.0)


def row(declared: Activation, form: str, usual: Target, variants: Sequence[Variant], options):
    """Return the cells of a function and format."""
    usual = engine.tuned(declared.kernel, FORMATS[form], usual)
    codes = {variant: compiled(declared, form, usual, variant) for variant in variants}
    operands = operands_of(declared, form, options.size)
    times = measure(codes, operands, options.repetitions)
    stages = usual.stages if options.stages else None
    best, loss = fastest(times, str(Variant(usual.interleave, stages=stages)))
    cells = [
        f"{ns:.3f} ({code.spills:.3g})"
        for ns, code in zip(times.values(), codes.values(), strict=True)
    ]
    return [*cells, best, "-" if loss is None else f"{loss:.0%}"]


def levels() -> dict[str, Callable[[], Target]]:
    """What code can be made for and run here, by name; the triple is always that of this system."""
    return {"native": host.host} | {
        level: lambda level=level: dataclasses.replace(BASELINES[level], triple=host.host().triple)
        for level in host.levels()
    }


def shape(text: str) -> Variant:
    *bits, vectors = text.split("x")
    return Variant(int(vectors), *map(int, bits))


def main(arguments: list[str] | None = None) -> None:
    """Print the table."""
    known = operations.declarations()
    parser = argparse.ArgumentParser(prog="python -m bench.variants", description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter)  # fmt: skip
    parser.add_argument("functions", nargs="*", choices=[*known, []], metavar="function",
                        help=f"any of {', '.join(known)} (default: all)")  # fmt: skip
    parser.add_argument("--formats", nargs="+", choices=FLOATS, default=list(FLOATS))
    parser.add_argument("--levels", nargs="+", choices=levels(), default=["native"])
    parser.add_argument("--shapes", nargs="+", type=shape, default=list(map(Variant, (1, 2, 4, 8))),
                        metavar="[BITSx]VECTORS")  # fmt: skip
    parser.add_argument("--tune", nargs="+", default=[], metavar="PROCESSOR",
                        help="LLVM's names of processors, besides none")  # fmt: skip
    parser.add_argument("--stages", nargs="+", type=int, default=[],
                        help="numbers of stages (default: those of the package)")  # fmt: skip
    parser.add_argument("--size", type=int, default=8192, help="elements of the arrays")
    parser.add_argument("--repetitions", type=int, default=21, help="samples of each loop")
    options = parser.parse_args(arguments)
    variants = [
        s._replace(stages=stages, processor=processor)
        for s in options.shapes
        for stages in options.stages or [None]
        for processor in (None, *options.tune)
    ]
    rows = []
    with timing.one_thread():
        cases = itertools.product(options.functions or known, options.formats, options.levels)
        for name, form, level in tqdm(list(cases), unit="loop"):
            cells = row(known[name], form, levels()[level](), variants, options)
            rows.append([name, form, level, *cells])
    headers = ["function", "format", "level", *map(str, variants), "fastest", "loss"]
    print(tables.table(rows, headers, 3, "github"))


if __name__ == "__main__":
    main()
