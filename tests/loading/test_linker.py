"""Object code can be linked whatever addresses are free in the process.

The linker ends the process if it cannot express a distance, so this must be impossible.
"""

import functools
import importlib
import pkgutil
import sys

import pytest
from conftest import FLOATS, run_python
from kinds import TYPICAL

import fastact
from bench import operations
from fastact._compiler import (
    c_function,
    direct_call,
    frontend,
    host,
    layer_call,
    object_file,
    pipeline,
)
from fastact._compiler.gemm import module
from fastact._compiler.gemm.interface import Storage
from fastact._compiler.loops import convert as convert_loops
from fastact._compiler.loops import mixed as mixed_loops
from fastact._compiler.loops import normalization as normalization_loops
from fastact._compiler.loops import rows as row_loops
from fastact._compiler.loops import undisturbed
from fastact._compiler.threads import helpers as helper_code
from fastact._declarations.records import NORMALIZATIONS, ROW_ACTIVATIONS, element_wise
from fastact._loading import linker
from fastact._machine.formats import FLOAT32, FLOAT64, FORMATS
from fastact._machine.targets import BASELINES

TARGETS = {"host": host.host(), **BASELINES}

# Relocations with the distance from an instruction to its operand, or with the low bits of the
# operand's address, as numbered in the System V ABI's supplements for the two processors.
DISTANCES = {
    "x86_64": {2: "PC32", 4: "PLT32"},
    "aarch64": {
        **{261: "PREL32", 275: "ADR_PREL_PG_HI21", 283: "CALL26"},
        **{277: "ADD_ABS_LO12_NC", 278: "LDST8_ABS_LO12_NC", 284: "LDST16_ABS_LO12_NC"},
        **{285: "LDST32_ABS_LO12_NC", 286: "LDST64_ABS_LO12_NC", 299: "LDST128_ABS_LO12_NC"},
    },
}


def kernel_code(name, form, target):
    return pipeline.object_code(*operations.sources(element_wise()[name], form, target), target)


def rows_code(target):
    steps = ROW_ACTIVATIONS["softmax"].steps
    scalars = row_loops.steps_ir(steps, FLOAT32, target)
    return pipeline.object_code(
        row_loops.rows_ir(steps, scalars, FLOAT32, target), scalars.values(), target
    )


def normalization_code(target):
    steps = NORMALIZATIONS["layer_norm"].steps
    scheme = steps.scheme
    scalars = normalization_loops.steps_ir(steps, scheme, target)
    text = normalization_loops.normalization_ir(scheme, scalars, FLOAT64, target)
    return pipeline.object_code(text, scalars.values(), target)


def scalar_code(target):
    kernel = element_wise()["softplus"].kernel
    scalar = frontend.scalar_ir(kernel, FLOAT64, 1, target)
    function = c_function.function_ir(scalar, FLOAT64, 1, 1)
    return pipeline.object_code(function, [scalar], target)


def gemm_code(target):
    return module.object_code(FLOAT32, target.vector_bits // 32, target)


def narrow_gemm_code(name, target):
    stored = Storage(FORMATS[name], scaled=name == "int8")
    return module.object_code(FLOAT32, target.vector_bits // 32, target, stored)


CODE = {
    "loop": functools.partial(kernel_code, "softplus", "float64"),
    "rows": rows_code,
    "normalization": normalization_code,
    "scalar": scalar_code,
    "gemm": gemm_code,
    "gemm of int8": functools.partial(narrow_gemm_code, "int8"),
    "gemm of float16": functools.partial(narrow_gemm_code, "float16"),
    "convert": functools.partial(convert_loops.object_code, FLOAT64, FLOAT32),
    "mixed": functools.partial(mixed_loops.object_code, 2, 1),
    "undisturbed": undisturbed.object_code,
    "direct call": direct_call.object_code,
    "layer call": layer_call.object_code,
    "helpers": helper_code.object_code,
}


def assert_closed(code, target):
    """Assert that `code` refers to itself only, by distances within one block of memory."""
    assert object_file.undefined(code) == []
    kinds = set()
    for kind, section in object_file.relocations(code):
        assert 0 < section < 0xFF00  # not undefined, absolute or common
        kinds.add(kind)
    assert kinds <= set(DISTANCES[target.architecture])
    names = object_file.section_names(code)
    assert ".text" in names
    assert not [name for name in names if "got" in name or "eh_frame" in name]
    return kinds


def test_all_makers_of_object_files_are_tried():
    package = fastact._compiler
    modules = (
        importlib.import_module(module.name)
        for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}.")
    )
    makers = [module.__name__ for module in modules if hasattr(module, "object_code")]
    made = {name.removeprefix(f"{package.__name__}.") for name in makers}
    assert made == {  # The pipeline makes "loop", "rows", "normalization" and "scalar".
        *("pipeline", "gemm.module", "loops.convert", "loops.mixed", "loops.undisturbed"),
        *("direct_call", "layer_call", "threads.helpers"),
    }


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="object files in another format")
@pytest.mark.parametrize(
    "target",
    [
        name
        if name in ("aarch64", "x86-64-v3")
        else pytest.param(name, marks=pytest.mark.exhaustive)
        for name in TARGETS
    ],
)
@pytest.mark.parametrize("generator", CODE)
def test_object_files_are_closed(generator, target):
    kinds = assert_closed(CODE[generator](TARGETS[target]), TARGETS[target])
    # These two have neither constants nor calls.
    assert kinds or generator in ("undisturbed", "layer call")


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="object files in another format")
@pytest.mark.exhaustive
@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("dtype", FLOATS, ids=str)
@pytest.mark.parametrize("name", TYPICAL)
def test_object_files_of_kernels_of_each_kind_are_closed(name, dtype, target):
    assert_closed(kernel_code(name, dtype.name, TARGETS[target]), TARGETS[target])


@pytest.mark.parametrize("target", BASELINES)
def test_calls_of_undefined_functions_are_an_error(target):
    target = BASELINES[target]
    text = """
declare double @elsewhere(double)
define double @loop(double %x) {
  %y = call double @elsewhere(double %x)
  ret double %y
}"""
    machine = pipeline.machine_of(target)
    with pytest.raises(RuntimeError, match=r"must not refer to undefined symbols, got .*elsewhere"):
        pipeline.emit(pipeline.parse(text, target, machine), machine)


def test_unknown_symbols_are_an_error():
    code = helper_code.object_code(host.host())
    with pytest.raises(RuntimeError, match="no symbol 'nonsense'"):
        linker.load(code, "nonsense")


# Only gaps of a few pages are free in the address space, each 4 GB from the next, and one gap of
# 1 GB for everything else. Linux uses the highest gap that is large enough.
_SCATTER = """
import ctypes, mmap, sys
import numpy as np
import fastact as fa
from fastact._loading import linker

C = ctypes.CDLL(None)
C.mmap.restype = ctypes.c_void_p
C.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, *[ctypes.c_int] * 3, ctypes.c_long]
C.munmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t]
RESERVE = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | 0x4000 | 0x100000  # NORESERVE, FIXED_NOREPLACE
GB = 1 << 30

def free():
    end = GB
    with open("/proc/self/maps", encoding="ascii") as file:
        lines = list(file)
    for line in lines:
        start, stop = (int(address, 16) for address in line.split()[0].split("-"))
        if end < start < 1 << 47:
            yield end, start
        end = max(end, stop)

def scatter():
    gaps = []
    while gaps != (found := list(free())):  # the list itself may have taken a part of a gap
        gaps = found
    for start, stop in gaps:
        assert C.mmap(start, stop - start, 0, RESERVE, -1, 0) == start
    at = max(gaps, key=lambda gap: gap[1] - gap[0])[1] - 8 * GB
    for pages in [*range(1, 13), GB // mmap.PAGESIZE]:
        for _ in range(6 if pages < 13 else 1):
            assert C.munmap(at, pages * mmap.PAGESIZE) == 0
            at -= 4 * GB

load_all = linker.load_all

def scattered(*arguments):
    global load_all
    if sys.argv[1:] != ["done"]:
        sys.argv[1:] = ["done"]
        scatter()
    return load_all(*arguments)

linker.load_all = scattered
x = np.linspace(-3, 3, 12)
print(fa.{name}({arguments}).sum())
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="mmap as Linux has it")
@pytest.mark.parametrize(
    ("name", "arguments"),
    [("softplus", "x"), ("softmax", "x"), ("dense", "x[None].astype('f'), np.ones((12, 3), 'f')")],
)
def test_free_addresses_may_be_scattered(name, arguments):
    code = _SCATTER.replace("{name}", name).replace("{arguments}", arguments)
    expected = run_python(code.replace("        scatter()\n", "        pass\n"))
    assert run_python(code) == expected
