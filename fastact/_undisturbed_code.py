"""Machine code that calls a function with the floating-point environment put aside."""

from fastact import _codegen
from fastact._environment import ENVIRONMENT_IR, UNTOUCHED_IR
from fastact._machine.targets import Target
from fastact._symbols import ENTRY


def object_code(target: Target) -> bytes:
    """``ptr ENTRY(ptr call, ptr function)``, which returns what ``call(function)`` does."""
    machine = _codegen.machine_of(target)
    text = f"""{ENVIRONMENT_IR.get(target.architecture, UNTOUCHED_IR)}
define ptr @{ENTRY}(ptr %call, ptr %function) {{
  %saved = alloca [2 x i64]
  call void @enter(ptr %saved)
  %result = call ptr %call(ptr %function)
  call void @leave(ptr %saved)
  ret ptr %result
}}"""
    module = _codegen.parse(text, target, machine)
    _codegen.optimise(module, machine)
    return _codegen.emit(module, machine)
