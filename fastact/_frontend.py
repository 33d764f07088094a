"""Numba as the front end: a scalar kernel in Python becomes LLVM IR of one scalar function.

Numba types and lowers; vectorisation and code generation happen in ``_codegen.py``. The IR
is the same for every target: an exact `fma` is a call of ``llvm.fma`` and a `muladd` one of
``llvm.fmuladd``, which a later stage resolves for the target at hand.
"""

import contextvars
import functools
import inspect
from collections.abc import Callable

import numba
from llvmlite import ir
from numba import types
from numba.extending import lower_builtin, register_jitable, type_callable

from . import _scalar
from ._codegen import ScalarIR
from ._formats import Format

_OPTIONS = {"error_model": "numpy"}  # the default's zero-division test is a branch


_rounds_to_odd = contextvars.ContextVar("rounds_to_odd", default=False)


def scalar_ir(kernel: Callable, form: Format, arity: int, results: int = 1) -> ScalarIR:
    """The IR of `kernel`, with arguments and result in the format that `form` computes in.

    Where it returns several `results`, the result is an array of them.
    """
    teach()
    number = getattr(types, form.compute)
    result = number if results == 1 else types.UniTuple(number, results)
    token = _rounds_to_odd.set(form.compute != form.name)
    try:
        compiled = numba.cfunc(result(*[number] * arity), nopython=True, **_OPTIONS)(kernel)
    finally:
        _rounds_to_odd.reset(token)
    # `native_name` is a wrapper with the C ABI, which reports exceptions that kernels cannot
    # raise; the function inside it has the same name without the prefix.
    return ScalarIR(compiled.inspect_llvm(), compiled.native_name.removeprefix("cfunc."))


@functools.cache
def teach() -> None:
    """Make the functions that kernels may call known to Numba."""
    for function in _scalar.SCALAR_FUNCTIONS:
        register_jitable(**_OPTIONS)(function)


def _operation(declared: Callable) -> Callable:
    """Decorate the code of a `declared` operation: `emit(context, builder, kinds, values)`.

    The result has the type of the first operand.
    """

    def attach(emit):
        @type_callable(declared)
        def typing(context):
            def result(*operands):
                return operands[0]

            result.__signature__ = inspect.signature(declared)
            return result

        @lower_builtin(declared, types.VarArg(types.Any))
        def lowering(context, builder, signature, values):
            return emit(context, builder, signature.args, values)

        return emit

    return attach


def _intrinsic(builder: ir.IRBuilder, name: str, values: list[ir.Value]) -> ir.Value:
    kind = values[0].type
    function = builder.module.declare_intrinsic(
        name, [kind], ir.FunctionType(kind, [kind] * len(values))
    )
    return builder.call(function, values)


@_operation(_scalar.like)
def _like(context, builder, kinds, values):
    return context.cast(builder, values[1], kinds[1], kinds[0])


@_operation(_scalar.fma)
def _fma(context, builder, kinds, values):
    return _intrinsic(builder, "llvm.fma", values)


@_operation(_scalar.muladd)
def _muladd(context, builder, kinds, values):
    return _intrinsic(builder, "llvm.fmuladd", values)


@_operation(_scalar.magnitude)
def _magnitude(context, builder, kinds, values):
    return _intrinsic(builder, "llvm.fabs", values)


@_operation(_scalar.copysign)
def _copysign(context, builder, kinds, values):
    return _intrinsic(builder, "llvm.copysign", values)


@_operation(_scalar.last_muladd)
def _last_muladd(context, builder, kinds, values):
    if not _rounds_to_odd.get():
        return _intrinsic(builder, "llvm.fmuladd", values)
    low, high = builder.fmul(values[0], values[1]), values[2]
    total = builder.fadd(high, low)
    # Where the significand of the sum is even, its pattern moves by one towards the exact
    # sum, and is odd then. Exact sums may move too: that is far from where the conversion
    # that follows changes its result. The order of the next sum makes 0 + -0 a +0.
    error = builder.fadd(builder.fsub(high, total), low)
    integer = ir.IntType(kinds[0].bitwidth)
    one = ir.Constant(integer, 1)
    sign = builder.ashr(
        builder.bitcast(error, integer), ir.Constant(integer, kinds[0].bitwidth - 1)
    )
    bits = builder.bitcast(total, integer)
    is_odd = builder.trunc(bits, ir.IntType(1))
    moved = builder.add(bits, builder.or_(sign, one))
    return builder.bitcast(builder.select(is_odd, bits, moved), total.type)


@_operation(_scalar.horner)
def _horner(context, builder, kinds, values):
    x, table = values
    *lower, result = (builder.extract_value(table, i) for i in range(kinds[1].count))
    for coefficient in reversed(lower):
        result = _intrinsic(builder, "llvm.fmuladd", [result, x, coefficient])
    return result


@_operation(_scalar.pow2)
def _pow2(context, builder, kinds, values):
    # Adding 1.5 * 2**p + bias leaves n + bias in the low bits of the sum; shifted to the
    # exponent field they are 2**n. (In integers here, as 2.0**52 depends on the rounding mode
    # that the caller has set.) One add and one shift; converting to an integer and
    # adding the bias there would be one operation more.
    significand, bias = (52, 1023) if kinds[0] is types.float64 else (23, 127)
    magic = ir.Constant(values[0].type, float((3 << (significand - 1)) + bias))
    shift = context.cast(builder, values[1], kinds[1], kinds[0])
    return _exponent(builder, builder.fadd(values[0], builder.fadd(magic, shift)), significand)


@_operation(_scalar.pow2_of_sum)
def _pow2_of_sum(context, builder, kinds, values):
    return _exponent(builder, values[0], 52 if kinds[0] is types.float64 else 23)


def _exponent(builder: ir.IRBuilder, total: ir.Value, significand: int) -> ir.Value:
    """The lowest bits of the sum `total`, as the exponent field of a number."""
    integer = ir.IntType(64 if significand == 52 else 32)
    low = builder.bitcast(total, integer)
    return builder.bitcast(builder.shl(low, ir.Constant(integer, significand)), total.type)


@type_callable(_scalar.pick)
def _type_pick(context):
    return lambda table, x: table.types[_field(x)]


def _field(x) -> int:
    return 1 if x is types.float64 else 0


@lower_builtin(_scalar.pick, types.NamedTuple, types.Float)
def _pick(context, builder, signature, values):
    return builder.extract_value(values[0], _field(signature.args[1]))
