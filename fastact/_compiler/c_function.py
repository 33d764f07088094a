"""LLVM IR of a C function of one or two numbers around a scalar function.

It neither saves nor resets the floating-point environment, because that would take longer than
many kernels. So the caller's rounding mode applies, and flags may be raised.
"""

from fastact._compiler.conversions import compute_type
from fastact._compiler.pipeline import ScalarIR
from fastact._compiler.symbols import ENTRY
from fastact._machine.formats import Format


def function_ir(scalar: ScalarIR, form: Format, arity: int) -> str:
    """LLVM IR of ``number ENTRY(number, ...)``, to be linked with `scalar`."""
    number = compute_type(form)
    values = ", ".join(f"{number} %v{i}" for i in range(arity))
    return f"""
declare i32 @{scalar.symbol}(ptr, ptr, {", ".join([number] * arity)})
define {number} @{ENTRY}({values}) {{
  %r = alloca {number}
  %status = call i32 @{scalar.symbol}(ptr %r, ptr null, {values})
  %v = load {number}, ptr %r
  ret {number} %v
}}"""
