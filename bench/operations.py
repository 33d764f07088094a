"""Count the machine instructions of every hot loop: ``python -m bench.operations``.

This writes ``bench/results/operations.md``, so that a change of code generation shows as a
difference. Nothing is run, and code for other machines is counted too. With functions, formats or
targets as arguments, only their counts are printed::

    python -m bench.operations sigmoid tanh --formats float32 --targets x86-64-v3
"""

import argparse
import re
import sys
from collections.abc import Callable, Iterable, Sequence

import llvmlite.binding as llvm
import numba
from tqdm import tqdm

import fastact  # noqa: F401 # declares the functions
from fastact._compiler import frontend, pipeline
from fastact._compiler.loops import elementwise, normalization, rows
from fastact._declarations.records import (
    NORMALIZATIONS,
    OBJECTIVES,
    Activation,
    element_wise,
    of_rows,
)
from fastact._kernels.normalization_steps import steps_for
from fastact._machine.formats import FORMATS
from fastact._machine.targets import BASELINES, Target
from fastact._runtime import engine

from . import machine_code, tables
from .machine import ROOT

RESULT = ROOT / "bench/results/operations.md"

HOT_LOOP = "hot_loop"  # the one that is counted

ROW_LOOPS = ("add_terms", "add_and_keep_terms", "divide_terms", "divide", "subtract")
"""The loops of functions of rows that are counted: those that compute something for each element,
when a row is in all lanes (``_compiler/loops/lane_loops.py``)."""

NORMALIZATION_LOOPS = ("add_elements", "add_squares", "normalize")
"""The loops of functions that normalise rows, which compute in float64 in all formats
(``_compiler/loops/normalization.py``)."""

HEADERS = ["function", "format", "vectors", *machine_code.Counts._fields]

COMPILER = (
    f"Python {sys.version_info[0]}.{sys.version_info[1]}, "
    f"Numba {'.'.join(numba.__version__.split('.')[:2])} and "
    f"LLVM {'.'.join(map(str, llvm.llvm_version_info))}"
)
"""The versions that the code depends on: Python's bytecode tells Numba the order of branches."""

_ABOUT = """# Operations

The instructions of the hot loop of each function, per vector, in code for each baseline. They are
counted in the assembly by `python -m bench.operations`. Code made by
{compiler} has these numbers; other versions can make
other code. Nothing is measured here.

- vectors: how many vectors one iteration handles. A vector is one of the format that is computed
  in, which is float32 for the 16-bit formats, and float64 for all formats in layer_norm and
  rms_norm.
- instructions: all of them
- arithmetic: those that compute something from vectors, including conversions and shuffles. An fma
  is one, unless the target has none.
- divisions: those of them that divide
- constants: those that load or make a constant within the loop
- spills: those that load from the stack or store to it. There are none if all values fit into the
  registers.

A function of rows has several loops. Those that compute something for each element are listed.
"""


def declarations() -> dict[str, Activation]:
    """The records of all element-wise functions by name."""
    return element_wise() | OBJECTIVES


def sources(declared: Activation, form: str, target: Target) -> tuple[str, list[pipeline.ScalarIR]]:
    """The LLVM IR of the loop of an element-wise function, and that of its kernel."""
    number, shape = FORMATS[form], (declared.nin, target, len(declared.results))
    key = frontend.variant(declared.kernel, number, target), form, declared.nin
    if key not in _scalars:
        _scalars[key] = frontend.scalar_ir(declared.kernel, number, *shape)
    scalar = _scalars[key]
    return elementwise.loop_ir(scalar, number, *shape), [scalar]


_scalars: dict[tuple[Callable, str, int], pipeline.ScalarIR] = {}
"""The IR of kernels, which is the same for all targets. Numba takes a third of all time."""


def assembly(declared: Activation, form: str, target: Target) -> str:
    """The code of the loop of an element-wise function."""
    target = engine.tuned(declared.kernel, FORMATS[form], target)
    return pipeline.assembly(*sources(declared, form, target), target)


def row_assembly(steps: type, form: str, target: Target) -> str:
    """The code of the loop of a function of rows."""
    scalars = rows.steps_ir(steps, FORMATS[form], target)
    loop = rows.rows_ir(steps, scalars, FORMATS[form], target)
    return pipeline.assembly(loop, scalars.values(), target)


def normalization_assembly(steps: type, form: str, target: Target) -> str:
    """The code of the loop of a function that normalises rows."""
    scheme = steps.scheme
    chosen = steps_for(steps, FORMATS[form].bits)
    scalars = normalization.steps_ir(chosen, scheme, target)
    loop = normalization.normalization_ir(scheme, scalars, FORMATS[form], target)
    return pipeline.assembly(loop, scalars.values(), target)


def row_loops(text: str, loops: Sequence[str] = ROW_LOOPS) -> list[str]:
    """Those of the `loops` that the code `text` of a function of rows has."""
    return [loop for loop in loops if re.search(rf"(?m)^{loop}:", text)]


def lines(name: str, form: str, target: Target) -> list[list[str]]:
    """The lines of the table for one function: one for each of its loops."""
    if name in of_rows():
        text = row_assembly(of_rows()[name].steps, form, target)
        loops = {loop: f"{name}, {loop}" for loop in row_loops(text)}
    elif name in NORMALIZATIONS:
        text = normalization_assembly(NORMALIZATIONS[name].steps, form, target)
        loops = {loop: f"{name}, {loop}" for loop in row_loops(text, NORMALIZATION_LOOPS)}
    else:
        declared = declarations()[name]
        text = assembly(declared, form, target)
        loops = {HOT_LOOP: name}
        target = engine.tuned(declared.kernel, FORMATS[form], target)
    found, vectors = [], target.interleave
    for function, label in loops.items():
        (loop,) = machine_code.loops(machine_code.function(text, function))
        counted = machine_code.counts(loop, target.architecture)
        found.append([label, form, str(vectors), *(f"{n / vectors:.6g}" for n in counted)])
    return found


def names() -> list[str]:
    """The functions whose loops are counted."""
    return [*declarations(), *of_rows(), *NORMALIZATIONS]


def markdown(found: dict[str, list[list[str]]]) -> str:
    """The text of the committed file; `found` are lines by target."""
    parts = [_ABOUT.format(compiler=COMPILER)]
    for target, counted in found.items():
        parts += [f"## {target}", tables.table(counted, HEADERS, 2, "github")]
    return "\n\n".join(part.rstrip() for part in parts) + "\n"


def compiler(text: str) -> str:
    """The versions that the counts in the `text` of a file are for."""
    return re.search(r"(?m)^(Python .*) has these numbers", text)[1]


def read(text: str) -> dict[str, list[list[str]]]:
    """The lines by target in the `text` of a file."""
    sections = re.findall(r"(?ms)^## (\S+)\n(.*?)(?=^## |\Z)", text)
    return {
        target: [
            [cell.strip() for cell in line.strip("|").split("|")]
            for line in section.split("\n")
            if line.startswith("|")
        ][2:]
        for target, section in sections
    }


def count(chosen: Iterable[str], formats: Sequence[str], targets: Iterable[str]):
    """Lines by target."""
    pairs = [(name, form) for name in chosen for form in formats]
    return {
        target: [
            line
            for name, form in tqdm(pairs, target, leave=False)
            for line in lines(name, form, BASELINES[target])
        ]
        for target in targets
    }


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the file, or print some of its tables."""
    formats = [form for form in FORMATS.values() if not form.is_integer]
    parser = argparse.ArgumentParser("python -m bench.operations", description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter)  # fmt: skip
    parser.add_argument("functions", nargs="*", choices=[*names(), []], metavar="function")
    parser.add_argument("--formats", nargs="+", choices=[form.name for form in formats])
    parser.add_argument("--targets", nargs="+", choices=BASELINES)
    options = parser.parse_args(arguments)
    text = markdown(
        count(
            options.functions or names(),
            options.formats or [form.name for form in formats],
            options.targets or BASELINES,
        )
    )
    if options.functions or options.formats or options.targets:
        print(text.partition("\n\n## ")[2])
    else:
        RESULT.write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
