"""LLVM IR of a C function of numbers around a scalar function.

It neither saves nor resets the floating-point environment, because that would take longer than
many kernels. So the caller's rounding mode applies, and flags may be raised.
"""

from fastact._compiler.conversions import compute_type
from fastact._compiler.loops.scalar_call import (
    scalar_call_ir,
    single_result_ir,
    stored_results_ir,
)
from fastact._compiler.pipeline import ScalarIR
from fastact._compiler.symbols import ENTRY
from fastact._machine.formats import Format


def function_ir(scalar: ScalarIR, form: Format, arity: int, results: int) -> str:
    """LLVM IR of ``number ENTRY(number, ...)``, to be linked with `scalar`.

    If there are several results, it is ``void ENTRY(number, ..., number *, ...)``.
    """
    number = compute_type(form)
    call = scalar_call_ir("scalar", scalar, number, arity, results)
    if results == 1:
        return call + single_result_ir(ENTRY, "scalar", number, arity)
    return call + stored_results_ir(ENTRY, "scalar", number, arity, results)
