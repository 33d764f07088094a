"""The vector variants that loops of other packages call, each called directly."""

import ctypes

import llvmlite.binding as llvm
import numpy as np
import pytest
from conftest import assert_same

import fastact
from fastact._compiler import host, pipeline, vector_function
from fastact._declarations.records import ACTIVATIONS
from fastact._kernels.vocabulary import variants_of
from fastact._loading import linker
from fastact._machine import formats

pytestmark = pytest.mark.skipif(
    not host.host().lookup, reason="no kernel by tables on this machine"
)


@pytest.mark.parametrize("lanes", [1, 8, 16])
@pytest.mark.parametrize(
    "name", [name for name, a in ACTIVATIONS.items() if variants_of(a.kernel).tables]
)
def test_same_bits_as_the_ufunc(name, lanes):
    form, target = formats.FLOAT32, host.host()
    symbol, text = vector_function.function(ACTIVATIONS[name].kernel, form, target)
    kind, variant = ("float", symbol) if lanes == 1 else (f"<{lanes} x float>", f"{symbol}_{lanes}")
    text += f"""
define void @drive(ptr %x, ptr %y) {{
  %values = load {kind}, ptr %x, align 4
  %results = call {kind} @{variant}({kind} %values)
  store {kind} %results, ptr %y, align 4
  ret void
}}"""
    code = pipeline.machine_of(target).emit_object(llvm.parse_assembly(text))
    drive = ctypes.CFUNCTYPE(None, *[ctypes.c_void_p] * 2)(linker.load(code, "drive"))
    x = sample()
    y = np.full(x.size + 1, 7, x.dtype)
    for start in range(0, x.size, lanes):
        drive(x.ctypes.data + 4 * start, y.ctypes.data + 4 * start)
    assert y[-1] == 7
    assert_same(y[:-1], getattr(fastact, name)(x))


def sample():
    """Patterns from the whole range, in whole vectors, with infinities, subnormals and NaN."""
    return np.arange(0, 1 << 32, 1 << 18, dtype=np.uint64).astype(np.uint32).view(np.float32)
