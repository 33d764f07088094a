"""A function of one number with variants for vectors, as LLVM IR for modules of other packages.

LLVM vectorises a loop there by calling a variant. A kernel that looks up tables cannot be inlined
into the loop instead: LLVM inlines before it vectorises, and would then see a load for each lane.
"""

import hashlib
import re
from collections.abc import Callable
from typing import Any

import llvmlite.binding as llvm

from fastact._compiler import frontend, pipeline
from fastact._compiler.conversions import compute_type
from fastact._compiler.loops.hot_loop import vector_loop_ir
from fastact._compiler.loops.scalar_call import single_result_ir
from fastact._compiler.symbols import ALONE, ENTRY
from fastact._machine.formats import Format
from fastact._machine.targets import Target


def function(kernel: Callable[..., Any], form: Format, target: Target) -> tuple[str, str]:
    """Return the name of ``float function(float)`` and the IR of its module.

    The name contains a hash of the code: a process may also hold code of other versions of this
    package, which other packages keep on disk.
    """
    scalar = frontend.scalar_ir(kernel, form, 1, target)
    loop = vector_loop_ir(ALONE, scalar, form, target)
    single = single_result_ir(ENTRY, "scalar", compute_type(form), 1)
    module, machine = pipeline.optimised(loop + single, [scalar], target)
    name = f"fastact_{kernel.__name__}_{hashlib.sha256(str(module).encode()).hexdigest()[:16]}"
    text = str(module).replace(" noinline ", " nounwind ")
    text = re.sub(rf"(?m)^(define .*@{ALONE}\(.*) \{{$", r"\1 alwaysinline {", text)
    lanes = target.vector_bits // form.bits
    module = llvm.parse_assembly(text + _variants(name, lanes))
    pipeline.hide(module, {name, f"{name}_{lanes}", f"{name}_{lanes // 2}"})
    pipeline.optimise(module, machine)
    return name, str(module)


def _variants(name: str, whole: int) -> str:
    """The visible functions; the one for half as many lanes pads its vector with zeros."""
    half = whole // 2
    there = ", ".join(f"i32 {min(lane, half)}" for lane in range(whole))
    back = ", ".join(f"i32 {lane}" for lane in range(half))
    mangled = ",".join(f"_ZGV_LLVM_N{n}v_{name}({name}_{n})" for n in (whole, half))
    pure = "memory(none) nounwind willreturn"
    # Weak, not discardable: LLVM inserts the calls only when it vectorises.
    return f"""
define weak_odr float @{name}(float %x) noinline {pure} "vector-function-abi-variant"="{mangled}" {{
  %y = call float @{ENTRY}(float %x)
  ret float %y
}}
define internal <{whole} x float> @vector(<{whole} x float> %values) alwaysinline {{
  %x = alloca <{whole} x float>
  %y = alloca <{whole} x float>
  store <{whole} x float> %values, ptr %x
  call void @{ALONE}(ptr %x, ptr %y, i64 1)
  %results = load <{whole} x float>, ptr %y
  ret <{whole} x float> %results
}}
define weak_odr <{whole} x float> @{name}_{whole}(<{whole} x float> %values) noinline {pure} {{
  %y = call <{whole} x float> @vector(<{whole} x float> %values)
  ret <{whole} x float> %y
}}
define weak_odr <{half} x float> @{name}_{half}(<{half} x float> %values) noinline {pure} {{
  %x = shufflevector <{half} x float> %values, <{half} x float> zeroinitializer,
    <{whole} x i32> <{there}>
  %y = call <{whole} x float> @vector(<{whole} x float> %x)
  %results = shufflevector <{whole} x float> %y, <{whole} x float> poison, <{half} x i32> <{back}>
  ret <{half} x float> %results
}}
"""
