"""The limits of the machine: its rate of fused multiply-adds, and of copying memory.

Both are measured like a library and interleaved with the libraries, so that a slow moment of the
machine does not make a share of the peak look better than it is.
"""

import ctypes
import functools
import re

import llvmlite.binding as llvm
import numpy as np

from fastact._compiler import frontend, host, pipeline
from fastact._compiler.loops import elementwise
from fastact._declarations.records import ACTIVATIONS
from fastact._loading import linker
from fastact._machine import formats

from .peers.base import Call
from .problems import Problem

CHAINS = 12  # enough to hide a latency of 4 cycles on 2 ports, and they fit into 16 registers
ROUNDS = 10_000  # in a call, which takes about 20 us


@functools.cache
def fma_loop(dtype: str):
    """Return a function of (rounds, factor, summand) that computes fused multiply-adds.

    It computes `rounds` of them in each lane of each chain, in registers alone, and returns the sum
    of all these lanes. Its attribute ``lanes`` is their number.
    """
    target = host.host()
    scalar, suffix = ("double", "f64") if dtype == "float64" else ("float", "f32")
    lanes = target.vector_bits // (64 if dtype == "float64" else 32)
    vector, chains = f"<{lanes} x {scalar}>", range(CHAINS)
    fma = f"@llvm.fma.v{lanes}{suffix}"
    phis = [f"%a{c} = phi {vector} [ zeroinitializer, %entry ], [ %n{c}, %loop ]" for c in chains]
    steps = [
        f"%n{c} = call {vector} {fma}({vector} %a{c}, {vector} %m, {vector} %s)" for c in chains
    ]
    sums = [f"%t{c + 1} = fadd {vector} %t{c}, %n{c}" for c in chains]

    def spread(name, value):
        return f"""%{name}1 = insertelement {vector} poison, {scalar} {value}, i32 0
  %{name} = shufflevector {vector} %{name}1, {vector} poison, <{lanes} x i32> zeroinitializer"""

    join = "\n  ".join
    total = f"@llvm.vector.reduce.fadd.v{lanes}{suffix}"
    text = f"""
target triple = "{target.triple}"
declare {vector} {fma}({vector}, {vector}, {vector})
declare {scalar} {total}({scalar}, {vector})
define {scalar} @peak(i64 %rounds, {scalar} %factor, {scalar} %summand)
    "min-legal-vector-width"="{target.vector_bits}" {{
entry:
  {spread("m", "%factor")}
  {spread("s", "%summand")}
  br label %loop
loop:
  %i = phi i64 [ 0, %entry ], [ %next, %loop ]
  {join(phis)}
  {join(steps)}
  %next = add i64 %i, 1
  %more = icmp ult i64 %next, %rounds
  br i1 %more, label %loop, label %done
done:
  %t0 = fmul {vector} zeroinitializer, zeroinitializer
  {join(sums)}
  %r = call reassoc {scalar} {total}({scalar} 0.0, {vector} %t{CHAINS})
  ret {scalar} %r
}}
"""
    machine = pipeline.machine_of(target)
    number = ctypes.c_double if dtype == "float64" else ctypes.c_float
    address = linker.load(machine.emit_object(llvm.parse_assembly(text)), "peak")
    function = ctypes.CFUNCTYPE(number, ctypes.c_int64, number, number)(address)
    function.lanes = lanes * CHAINS
    return function


_ARITHMETIC = re.compile(
    r"= (?:fadd|fsub|fmul|fdiv|fcmp) .*?<(\d+) x"
    r"|= .*?call .*?<(\d+) x .*?@llvm\.(?:fma|fmuladd|minnum|maxnum|minimum|maximum)\."
)


@functools.cache
def operations(function: str, dtype: str) -> float:
    """Floating-point operations per element in the hot loop of our kernel.

    Each sum, product, quotient, comparison, minimum, maximum or fused multiply-add counts as one.
    """
    activation, form = ACTIVATIONS[function], formats.FORMATS[dtype]
    scalar = frontend.scalar_ir(activation.kernel, form, activation.nin, host.host())
    loop = elementwise.loop_ir(scalar, form, activation.nin, host.host())
    module, _ = pipeline.optimised(loop, [scalar], host.host())
    text = str(module.get_function("hot_loop"))
    lanes = sum(int(a or b) for a, b in _ARITHMETIC.findall(text))
    (block,) = re.findall(r"%index\.next = add .*%index, (\d+)", text)
    return lanes / int(block)


def calls(case: Problem) -> dict[str, tuple[Call, float]]:
    """Return the bounds of a workload by name: a call, and how many such calls are the bound.

    "fma" issues the multiply-adds of a dense layer, or the operations of our kernel. "copy" copies
    the first input to the output. Only contiguous layouts have bounds.
    """
    workload = case.workload
    if workload.layout != "contiguous":
        return {}
    needed = (
        float(np.prod(workload.shape, dtype=float))
        if workload.dense
        else workload.size * operations(workload.function, workload.dtype)
    )
    loop = fma_loop(workload.dtype)
    bounds = {"fma": (functools.partial(loop, ROUNDS, 0.5, 1.0), needed / (ROUNDS * loop.lanes))}
    if not workload.dense:
        bounds["copy"] = (functools.partial(np.copyto, case.out, case.inputs[0]), 1.0)
    return bounds
