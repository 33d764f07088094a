"""LLVM IR of tables that are looked up in vector registers.

A kernel looks entries up one by one, by calls of `LOOKUP`, which its module defines. Where the
target permutes tables of 32 floats, LLVM is not to see that definition, but a variant for whole
vectors, which it calls when it vectorises a loop. What that does is defined, and all is inlined,
only afterwards.
"""

import re

import llvmlite.binding as llvm

from fastact._machine.targets import Target

LOOKUP = "fastact_lookup"
_SCALAR = f"{LOOKUP}_1"
_VECTOR = f"{LOOKUP}_16"

# "u": the same table for all lanes; "v": an index for each.
_DECLARATION = f"""
declare float @{LOOKUP}(ptr, i32) memory(none) nounwind willreturn #99
attributes #99 = {{ "vector-function-abi-variant"="_ZGV_LLVM_N16uv_{LOOKUP}({_VECTOR})" }}
declare <16 x float> @{_VECTOR}(ptr, <16 x i32>) memory(none) nounwind willreturn
@llvm.compiler.used = appending global [2 x ptr] [ptr @{_SCALAR}, ptr @{_VECTOR}], \
section "llvm.metadata"
"""

# The instruction reads the five low bits of an index.
_DEFINITION = f"""
declare <16 x float> @llvm.x86.avx512.vpermi2var.ps.512(<16 x float>, <16 x i32>, <16 x float>)
define internal <16 x float> @{_VECTOR}(ptr %table, <16 x i32> %numbers) alwaysinline {{
  %rest = getelementptr inbounds float, ptr %table, i32 16
  %low = load <16 x float>, ptr %table, align 64
  %high = load <16 x float>, ptr %rest, align 64
  %values = call <16 x float> @llvm.x86.avx512.vpermi2var.ps.512(
    <16 x float> %low, <16 x i32> %numbers, <16 x float> %high)
  ret <16 x float> %values
}}"""


def declare(text: str, target: Target) -> str:
    """The IR `text` of a kernel, with the variant for vectors made known if it is to be used."""
    if f"@{LOOKUP}(" not in text:
        return text
    text = text.replace(" noinline ", " nounwind ")  # all is inlined here
    if not target.permutes:
        return text
    return re.sub(rf"(?m)^(define .*@){LOOKUP}\(", rf"\g<1>{_SCALAR}(", text) + _DECLARATION


def define(module: llvm.ModuleRef, machine: llvm.TargetMachine) -> llvm.ModuleRef:
    """`module`, whose loops have been vectorised, with lookups in place of the calls."""
    text = str(module)
    if f"@{_VECTOR}" not in text:
        return module
    text = re.sub(
        rf"(?m)^(declare .*@({LOOKUP}|{_VECTOR})\(|@llvm\.compiler\.used =).*\n", "", text
    )
    text = text.replace(f"@{LOOKUP}(", f"@{_SCALAR}(") + _DEFINITION
    module = llvm.parse_assembly(text)
    passes = llvm.create_new_module_pass_manager()
    passes.add_always_inliner_pass()
    passes.add_instruction_combine_pass()
    passes.add_global_dead_code_eliminate_pass()
    passes.run(module, llvm.create_pass_builder(machine, llvm.create_pipeline_tuning_options()))
    return module
