"""From LLVM IR to machine code for a target."""

import functools
import re
from collections.abc import Iterable
from dataclasses import dataclass

import llvmlite.binding as llvm

from fastact._compiler import object_file, software_pipelining, table_lookup
from fastact._compiler.nontemporal import add_copies
from fastact._compiler.symbols import ALONE, ENTRY, SETTING
from fastact._machine.targets import Target

# An fma for targets without the instruction, after T. J. Dekker, "A floating-point technique for
# extending the available precision" (1971): product and sum are unevaluated pairs. It is exact up
# to one rounding of the low parts if the product neither overflows nor underflows.
_EMULATED_FMA = """
define internal {t} @split.{t}({t} %a) alwaysinline {{
  %c = fmul {t} %a, {splitter}
  %d = fsub {t} %c, %a
  %h = fsub {t} %c, %d
  ret {t} %h
}}
define internal {t} @fma.{t}({t} %a, {t} %b, {t} %c) alwaysinline {{
  %p = fmul {t} %a, %b
  %ah = call {t} @split.{t}({t} %a)
  %al = fsub {t} %a, %ah
  %bh = call {t} @split.{t}({t} %b)
  %bl = fsub {t} %b, %bh
  %hh = fmul {t} %ah, %bh
  %hl = fmul {t} %ah, %bl
  %lh = fmul {t} %al, %bh
  %ll = fmul {t} %al, %bl
  %e1 = fsub {t} %hh, %p
  %e2 = fadd {t} %e1, %hl
  %e3 = fadd {t} %e2, %lh
  %e = fadd {t} %e3, %ll
  %s = fadd {t} %p, %c
  %cv = fsub {t} %s, %p
  %pv = fsub {t} %s, %cv
  %ce = fsub {t} %c, %cv
  %pe = fsub {t} %p, %pv
  %se = fadd {t} %ce, %pe
  %low = fadd {t} %se, %e
  %r = fadd {t} %s, %low
  ret {t} %r
}}
"""
_SPLITTERS = {"float": "4097.0", "double": "134217729.0"}  # 2**ceil(p/2) + 1


@dataclass(frozen=True)
class ScalarIR:
    """LLVM IR with a function `symbol(ptr result, ptr unused, arguments...)`."""

    text: str
    symbol: str


@functools.cache
def _initialize() -> None:
    llvm.initialize_all_targets()
    llvm.initialize_all_asmprinters()


def machine_of(target: Target) -> llvm.TargetMachine:
    """LLVM's code generator for `target`."""
    _initialize()
    return llvm.Target.from_triple(target.triple).create_target_machine(
        cpu=target.cpu, features=target.features, opt=3, reloc="pic", codemodel="default"
    )


def for_target(text: str, target: Target, layout: str) -> str:
    """The IR `text` as a module for `target`, with an emulated fma if the target has none."""
    text = re.sub(r"(?m)^target (datalayout|triple) = .*\n", "", text)
    if not target.has_fma:
        for t, suffix in (("float", "f32"), ("double", "f64")):
            text = re.sub(rf"(?m)^declare {t} @llvm\.fma\.{suffix}\(.*\n", "", text)
            if f"@llvm.fma.{suffix}" in text:
                text = text.replace(f"@llvm.fma.{suffix}", f"@fma.{t}")
                text += _EMULATED_FMA.format(t=t, splitter=_SPLITTERS[t])
    # In the text, because llvmlite 0.47 would add the attribute to the return value. There would be
    # tables for unwinding then, and nothing here unwinds.
    text = re.sub(r"(?m)^(define .*?)\s*\{$", r"\1 nounwind {", text)
    return f'target datalayout = "{layout}"\ntarget triple = "{target.triple}"\n{text}'


def parse(text: str, target: Target, machine: llvm.TargetMachine) -> llvm.ModuleRef:
    """The module of the IR `text`, for `target`."""
    return llvm.parse_assembly(for_target(text, target, str(machine.target_data)))


def hide(module: llvm.ModuleRef, visible: set[str]) -> None:
    """Make every definition internal except the `visible` ones."""
    for thing in (*module.functions, *module.global_variables):
        special = thing.name.startswith("llvm.")
        if not thing.is_declaration and not special and thing.name not in visible:
            thing.linkage = "internal"


def optimise(module: llvm.ModuleRef, machine: llvm.TargetMachine) -> None:
    """Run LLVM's passes, which vectorise loops but not straight-line code."""
    options = llvm.create_pipeline_tuning_options(speed_level=3)
    options.loop_vectorization = True
    options.slp_vectorization = False
    builder = llvm.create_pass_builder(machine, options)
    builder.getModulePassManager().run(module, builder)


def seal(module: llvm.ModuleRef) -> None:
    """Let the code of `module` refer to its own definitions directly.

    The alternative, a table of addresses, is for definitions that another library may replace.
    """
    for thing in (*module.functions, *module.global_variables):
        if not thing.is_declaration and thing.linkage is llvm.Linkage.external:
            thing.visibility = "hidden"


def emit(module: llvm.ModuleRef, machine: llvm.TargetMachine) -> bytes:
    """The object file of `module`; RuntimeError if it refers to undefined symbols."""
    seal(module)
    code: bytes = machine.emit_object(module)
    if missing := object_file.undefined(code):
        raise RuntimeError(f"compiled code must not refer to undefined symbols, got {missing}")
    return code


def optimised(
    loop: str, scalars: Iterable[ScalarIR], target: Target
) -> tuple[llvm.ModuleRef, llvm.TargetMachine]:
    """The LLVM module of `loop` with `scalars` inlined, and the machine to emit it with."""
    machine = machine_of(target)
    module = parse(loop, target, machine)
    for scalar in scalars:
        # In the text, because llvmlite 0.47 would add the attribute to the return value.
        text = table_lookup.declare(scalar.text, target)
        inlined = re.sub(r"(?m)^(define .*) \{$", r"\1 alwaysinline {", text)
        module.link_in(parse(inlined, target, machine))
    hide(module, {ENTRY, ALONE, SETTING})
    optimise(module, machine)
    module = add_copies(table_lookup.define(module, target, machine))
    if target.stages > 1:
        module = software_pipelining.applied(module, target.stages)
    return module, machine


def object_code(loop: str, scalars: Iterable[ScalarIR], target: Target) -> bytes:
    """A relocatable object file of a ufunc's loop, which refers to no undefined symbols."""
    module, machine = optimised(loop, scalars, target)
    return emit(module, machine)


def assembly(loop: str, scalars: Iterable[ScalarIR], target: Target) -> str:
    """The same as assembly, for people and tests."""
    module, machine = optimised(loop, scalars, target)
    seal(module)
    text: str = machine.emit_assembly(module)
    return text
