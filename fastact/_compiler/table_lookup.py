"""LLVM IR of tables that are looked up in vector registers.

A kernel looks up entries one by one, by calls of `LOOKUP`, which its module defines. If the target
has an instruction for that, LLVM must not see the definition. Instead, a variant for whole vectors
is declared, which LLVM calls when it vectorises a loop. The variant is defined and everything is
inlined only after that.
"""

import re

import llvmlite.binding as llvm

from fastact._machine.targets import Lookup, Target

LOOKUP = "fastact_lookup"
_SCALAR = f"{LOOKUP}_scalar"
_VECTOR = f"{LOOKUP}_vector"


def _declaration(lanes: int) -> str:
    # "u": the same table for all lanes; "v": a number for each.
    return f"""
declare float @{LOOKUP}(ptr, i32) memory(none) nounwind willreturn #99
attributes #99 = {{ "vector-function-abi-variant"="_ZGV_LLVM_N{lanes}uv_{LOOKUP}({_VECTOR})" }}
declare <{lanes} x float> @{_VECTOR}(ptr, <{lanes} x i32>) memory(none) nounwind willreturn
@llvm.compiler.used = appending global [2 x ptr] [ptr @{_SCALAR}, ptr @{_VECTOR}], \
section "llvm.metadata"
"""


def _definition(lookup: Lookup) -> str:
    lanes = lookup.lanes
    return f"""
{lookup.operation.declaration}
define internal <{lanes} x float> @{_VECTOR}(ptr %table, <{lanes} x i32> %numbers) alwaysinline {{
  %rest = getelementptr inbounds float, ptr %table, i32 {lanes}
  %low = load <{lanes} x float>, ptr %table, align {4 * lanes}
  %high = load <{lanes} x float>, ptr %rest, align {4 * lanes}
  {lookup.operation.call}
  ret <{lanes} x float> %values
}}"""


def declare(text: str, target: Target) -> str:
    """The IR `text` of a kernel, with the variant for vectors declared if the target has one."""
    if f"@{LOOKUP}(" not in text:
        return text
    text = text.replace(" noinline ", " nounwind ")  # everything is inlined here
    if target.lookup is None:
        return text
    return re.sub(rf"(?m)^(define .*@){LOOKUP}\(", rf"\g<1>{_SCALAR}(", text) + _declaration(
        target.lookup.lanes
    )


def define(module: llvm.ModuleRef, target: Target, machine: llvm.TargetMachine) -> llvm.ModuleRef:
    """The vectorised `module`, with lookups in place of the calls."""
    text = str(module)
    if target.lookup is None or f"@{_VECTOR}" not in text:
        return module
    text = re.sub(
        rf"(?m)^(declare .*@({LOOKUP}|{_VECTOR})\(|@llvm\.compiler\.used =).*\n", "", text
    )
    text = text.replace(f"@{LOOKUP}(", f"@{_SCALAR}(") + _definition(target.lookup)
    module = llvm.parse_assembly(text)
    passes = llvm.create_new_module_pass_manager()
    passes.add_always_inliner_pass()
    passes.add_instruction_combine_pass()
    passes.add_global_dead_code_eliminate_pass()
    passes.run(module, llvm.create_pass_builder(machine, llvm.create_pipeline_tuning_options()))
    return module
