"""Machine code that calls a function in the default floating-point environment."""

from fastact._compiler import pipeline
from fastact._compiler.environment import environment_ir
from fastact._compiler.symbols import ENTRY
from fastact._machine.targets import Target


def object_code(target: Target) -> bytes:
    """Object code of ``ptr ENTRY(ptr call, ptr function)``, which returns ``call(function)``."""
    machine = pipeline.machine_of(target)
    text = f"""{environment_ir(target)}
define ptr @{ENTRY}(ptr %call, ptr %function) {{
  %saved = alloca [2 x i64]
  call void @enter(ptr %saved)
  %result = call ptr %call(ptr %function)
  call void @leave(ptr %saved)
  ret ptr %result
}}"""
    module = pipeline.parse(text, target, machine)
    pipeline.optimise(module, machine)
    return pipeline.emit(module, machine)
