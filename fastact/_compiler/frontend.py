"""Numba as the front end: it compiles a scalar kernel to LLVM IR of one scalar function.

Numba infers types and lowers; ``pipeline.py`` vectorises and generates code. The IR is the same for
every target, except that some targets and formats use a variant of a kernel. An exact `fma` is a
call of ``llvm.fma`` and a `muladd` a call of ``llvm.fmuladd``, which a later stage resolves for the
target.
"""

import contextlib
import contextvars
import functools
import hashlib
import inspect
from collections.abc import Callable, Iterator
from typing import Any

import numba
from llvmlite import ir
from numba import types
from numba.core import config
from numba.core.compiler_lock import global_compiler_lock
from numba.core.imputils import lower_constant
from numba.core.ir import Loc
from numba.extending import (
    lower_builtin,
    models,
    register_jitable,
    register_model,
    type_callable,
    typeof_impl,
)

from fastact._compiler.pipeline import ScalarIR
from fastact._compiler.table_lookup import LOOKUP
from fastact._kernels import vocabulary
from fastact._machine.formats import Format
from fastact._machine.targets import Target

# Numba's default error model tests divisors for zero, with a branch. An option that is not set here
# would be inherited from the function that Numba is compiling at the same time.
_OPTIONS = {"error_model": "numpy", "fastmath": False}

_SETTINGS = {"DISABLE_JIT": 0, "DEBUGINFO_DEFAULT": 0, "BOUNDSCHECK": None, "ENABLE_PROFILING": 0}
"""The settings of Numba that kernels need; users may set others to debug or profile their code."""


_Emit = Callable[[Any, ir.IRBuilder, Any, Any], ir.Value]
"""Builds an operation from Numba's context, a builder, and the types and values of operands."""

_rounds_to_odd = contextvars.ContextVar("rounds_to_odd", default=False)
_in_own_module = contextvars.ContextVar("in_own_module", default=False)  # not a user's function


def scalar_ir(
    kernel: Callable[..., Any], form: Format, arity: int, target: Target, results: int = 1
) -> ScalarIR:
    """Return the IR of `kernel`, with arguments and result in the format that `form` computes in.

    If `kernel` returns several `results`, the function returns an array of them.
    """
    register_vocabulary()
    kernel = variant(kernel, form, target)
    number = getattr(types, form.compute)
    result = number if results == 1 else types.UniTuple(number, results)
    token = _rounds_to_odd.set(form.compute != form.name)
    own = _in_own_module.set(True)
    try:
        with _settings():
            compiled = numba.cfunc(result(*[number] * arity), nopython=True, **_OPTIONS)(kernel)
    finally:
        _in_own_module.reset(own)
        _rounds_to_odd.reset(token)
    # `native_name` is a wrapper with the C ABI that reports exceptions, but kernels raise none. The
    # function inside it has the same name without the prefix.
    return ScalarIR(compiled.inspect_llvm(), compiled.native_name.removeprefix("cfunc."))


def variant(kernel: Callable[..., Any], form: Format, target: Target) -> Callable[..., Any]:
    """The kernel that computes `kernel` for this format and target."""
    variants = vocabulary.variants_of(kernel)
    if form.bits == 16 and variants.narrow is not None:
        return variants.narrow
    by_tables = form.compute == "float32" and target.lookup is not None
    if (
        by_tables
        and variants.tables is not None
        and (form.bits == 32 or variants.tables_in_16_bits)
    ):
        return variants.tables
    if not target.has_fma and variants.without_fma is not None:
        return variants.without_fma
    return kernel


@contextlib.contextmanager
def _settings() -> Iterator[None]:
    """Run Numba with `_SETTINGS`, whatever the environment or a configuration file says."""
    with global_compiler_lock:  # as in every compilation
        config.reload_config()  # else the compiler does so if the environment has changed
        before = {name: getattr(config, name) for name in _SETTINGS}
        path_of = Loc._get_path

        def path_from_anywhere(location: Loc) -> str:
            try:
                return path_of(location)  # type: ignore[no-any-return] # Numba is untyped
            except OSError:  # the path is relative to the current folder, which is gone
                return location.filename  # type: ignore[no-any-return] # as above

        vars(config).update(_SETTINGS)
        Loc._get_path = path_from_anywhere
        try:
            yield
        finally:
            Loc._get_path = path_of
            vars(config).update(before)


_LAST = {vocabulary.last_muladd.__name__, vocabulary.last_signed_muladd.__name__}


@functools.cache
def register_vocabulary() -> None:
    """Register the functions that kernels may call with Numba."""
    for function in vocabulary.SCALAR_FUNCTIONS:
        if last := _LAST & set(function.__code__.co_names):
            # Numba compiles a function once for all formats that compute in the same type.
            raise TypeError(
                f"{', '.join(last)} must be called in a kernel, not in {function.__name__}"
            )
        register_jitable(**_OPTIONS)(function)


def _operation(declared: Callable[..., Any], result: int = 0) -> Callable[[_Emit], _Emit]:
    """Register the decorated `emit(context, builder, kinds, values)` as the code of `declared`.

    The operation has the type of its operand number `result`.
    """

    def attach(emit: _Emit) -> _Emit:
        @type_callable(declared)
        def typing(context: Any) -> Callable[..., Any]:
            def kind(*operands: Any) -> Any:
                return operands[result]

            kind.__signature__ = inspect.signature(declared)  # type: ignore[attr-defined] # Numba reads it
            return kind

        @lower_builtin(declared, types.VarArg(types.Any))
        def lowering(context: Any, builder: ir.IRBuilder, signature: Any, values: Any) -> ir.Value:
            return emit(context, builder, signature.args, values)

        return emit

    return attach


def _intrinsic(builder: ir.IRBuilder, name: str, values: list[ir.Value]) -> ir.Value:
    kind = values[0].type
    function = builder.module.declare_intrinsic(
        name, [kind], ir.FunctionType(kind, [kind] * len(values))
    )
    return builder.call(function, values)


@_operation(vocabulary.like)
def _like(context: Any, builder: ir.IRBuilder, kinds: Any, values: Any) -> ir.Value:
    return context.cast(builder, values[1], kinds[1], kinds[0])


@_operation(vocabulary.fma)
def _fma(context: Any, builder: ir.IRBuilder, kinds: Any, values: Any) -> ir.Value:
    return _intrinsic(builder, "llvm.fma", values)


@_operation(vocabulary.muladd)
def _muladd(context: Any, builder: ir.IRBuilder, kinds: Any, values: Any) -> ir.Value:
    return _intrinsic(builder, "llvm.fmuladd", values)


@_operation(vocabulary.magnitude)
def _magnitude(context: Any, builder: ir.IRBuilder, kinds: Any, values: Any) -> ir.Value:
    return _intrinsic(builder, "llvm.fabs", values)


@_operation(vocabulary.sqrt)
def _sqrt(context: Any, builder: ir.IRBuilder, kinds: Any, values: Any) -> ir.Value:
    return _intrinsic(builder, "llvm.sqrt", values)


@_operation(vocabulary.copysign)
def _copysign(context: Any, builder: ir.IRBuilder, kinds: Any, values: Any) -> ir.Value:
    return _intrinsic(builder, "llvm.copysign", values)


@_operation(vocabulary.quiet)
def _quiet(context: Any, builder: ir.IRBuilder, kinds: Any, values: Any) -> ir.Value:
    if isinstance(kinds[0], types.Integer):
        return values[0]
    if _in_own_module.get():
        return _intrinsic(builder, "llvm.canonicalize", values)
    # In functions of users, LLVM joins two of these to one of <2 x float> on some processors, and
    # then aborts, since it has no instruction for it.
    bits = 64 if kinds[0] is types.float64 else 32
    integer, significand = ir.IntType(bits), 52 if bits == 64 else 23
    infinity = ((1 << (bits - 1 - significand)) - 1) << significand
    pattern = builder.bitcast(values[0], integer)
    unsigned = builder.and_(pattern, ir.Constant(integer, (1 << (bits - 1)) - 1))
    missing = builder.icmp_unsigned(">", unsigned, ir.Constant(integer, infinity))
    quieted = builder.or_(pattern, ir.Constant(integer, 1 << (significand - 1)))
    return builder.bitcast(builder.select(missing, quieted, pattern), values[0].type)


@_operation(vocabulary.last_muladd)
def _last_muladd(context: Any, builder: ir.IRBuilder, kinds: Any, values: Any) -> ir.Value:
    return _muladd_to_odd(builder, values, signed=False)


@_operation(vocabulary.last_signed_muladd)
def _last_signed_muladd(context: Any, builder: ir.IRBuilder, kinds: Any, values: Any) -> ir.Value:
    return _muladd_to_odd(builder, values, signed=True)


def _muladd_to_odd(builder: ir.IRBuilder, values: Any, *, signed: bool) -> ir.Value:
    if not _rounds_to_odd.get():
        return _intrinsic(builder, "llvm.fmuladd", values)
    low, high = builder.fmul(values[0], values[1]), values[2]
    total = builder.fadd(high, low)
    # If the significand of the sum is even, the bits of the sum move by one towards the exact sum,
    # and are odd then. An exact sum may move up too, but it is far from where the following
    # conversion changes its result. NaN may change in its lowest bits, which the conversion
    # cuts off.
    error = builder.fadd(builder.fsub(high, total), low)
    integer = _ZERO.type  # the 16-bit formats are computed in binary32
    if signed:  # -error for a negative sum; 0 remains 0
        sign = builder.and_(builder.bitcast(total, integer), ir.Constant(integer, 1 << 31))
        error = builder.bitcast(builder.xor(builder.bitcast(error, integer), sign), error.type)
    below = builder.sext(builder.fcmp_ordered("<", error, ir.Constant(error.type, 0.0)), integer)
    bits = builder.add(builder.bitcast(total, integer), below)
    return builder.bitcast(builder.or_(bits, ir.Constant(integer, 1)), total.type)


@_operation(vocabulary.horner)
def _horner(context: Any, builder: ir.IRBuilder, kinds: Any, values: Any) -> ir.Value:
    x, table = values
    *lower, result = (builder.extract_value(table, i) for i in range(kinds[1].count))
    for coefficient in reversed(lower):
        result = _intrinsic(builder, "llvm.fmuladd", [result, x, coefficient])
    return result


@_operation(vocabulary.horner_by_pairs)
def _horner_by_pairs(context: Any, builder: ir.IRBuilder, kinds: Any, values: Any) -> ir.Value:
    x, square, table = values
    terms = [builder.extract_value(table, i) for i in range(kinds[2].count)]
    pairs = [
        _intrinsic(builder, "llvm.fmuladd", [*pair[1:], x, pair[0]]) if len(pair) == 2 else pair[0]
        for pair in (terms[i : i + 2] for i in range(0, len(terms), 2))
    ]
    *lower, result = pairs
    for pair in reversed(lower):
        result = _intrinsic(builder, "llvm.fmuladd", [result, square, pair])
    return result


@_operation(vocabulary.pow2)
def _pow2(context: Any, builder: ir.IRBuilder, kinds: Any, values: Any) -> ir.Value:
    # Adding 1.5 * 2**p + bias leaves n + bias in the low bits of the sum; shifted to the exponent
    # field, they are 2**n. That is one addition and one shift; to convert to an integer and add the
    # bias would take one operation more. The constant is computed in integers, because 2.0**52
    # depends on the caller's rounding mode.
    significand, bias = (52, 1023) if kinds[0] is types.float64 else (23, 127)
    magic = ir.Constant(values[0].type, float((3 << (significand - 1)) + bias))
    shift = context.cast(builder, values[1], kinds[1], kinds[0])
    return _exponent(builder, builder.fadd(values[0], builder.fadd(magic, shift)), significand)


@_operation(vocabulary.pow2_of_sum)
def _pow2_of_sum(context: Any, builder: ir.IRBuilder, kinds: Any, values: Any) -> ir.Value:
    return _exponent(builder, values[0], 52 if kinds[0] is types.float64 else 23)


def _exponent(builder: ir.IRBuilder, total: ir.Value, significand: int) -> ir.Value:
    """The number whose exponent field is the lowest bits of the sum `total`."""
    integer = ir.IntType(64 if significand == 52 else 32)
    low = builder.bitcast(total, integer)
    return builder.bitcast(builder.shl(low, ir.Constant(integer, significand)), total.type)


@_operation(vocabulary.raised)
def _raised(context: Any, builder: ir.IRBuilder, kinds: Any, values: Any) -> ir.Value:
    entry, total = (builder.bitcast(value, _ZERO.type) for value in values[:2])
    # 2**23 / steps, which the optimiser makes a shift.
    width = builder.udiv(ir.Constant(total.type, 1 << 23), _integer(builder, values[2]))
    power = builder.mul(total, width)
    return builder.bitcast(builder.add(entry, power), values[0].type)


@_operation(vocabulary.leading_bits)
def _leading_bits(context: Any, builder: ir.IRBuilder, kinds: Any, values: Any) -> ir.Value:
    bits = builder.bitcast(values[0], _ZERO.type)
    dropped = builder.sub(ir.Constant(bits.type, 23), _integer(builder, values[1]))
    return builder.bitcast(builder.lshr(bits, dropped), values[0].type)


def _integer(builder: ir.IRBuilder, constant: ir.Value) -> ir.Value:
    """A constant of a kernel, in the 32 bits of a number in binary32."""
    if isinstance(constant.type, ir.IntType) and constant.type.width != 32:
        return builder.trunc(constant, _ZERO.type)
    return constant


@_operation(vocabulary.exponent)
def _exponent_of(context: Any, builder: ir.IRBuilder, kinds: Any, values: Any) -> ir.Value:
    # The exponent field of the bits above those of `least` is k + bias, as a positive number. It is
    # converted by the bits of 2**significand, because few targets have an arithmetic shift and a
    # conversion of 64-bit integers.
    significand, bias = (52, 1023) if kinds[0] is types.float64 else (23, 127)
    integer = ir.IntType(kinds[0].bitwidth)
    above = _above(builder, values, integer, significand, bias)
    field = builder.lshr(above, ir.Constant(integer, significand))
    magic = ir.Constant(integer, (significand + bias) << significand)
    number = builder.bitcast(builder.or_(field, magic), values[0].type)
    offset = ir.Constant(values[0].type, float((1 << significand) + bias))
    return builder.fsub(number, offset)


@_operation(vocabulary.significand)
def _significand_of(context: Any, builder: ir.IRBuilder, kinds: Any, values: Any) -> ir.Value:
    significand, bias = (52, 1023) if kinds[0] is types.float64 else (23, 127)
    integer = ir.IntType(kinds[0].bitwidth)
    above = _above(builder, values, integer, significand, bias)
    low = builder.and_(above, ir.Constant(integer, (1 << significand) - 1))
    return builder.bitcast(builder.add(low, builder.bitcast(values[1], integer)), values[0].type)


def _above(
    builder: ir.IRBuilder, values: Any, integer: ir.IntType, significand: int, bias: int
) -> ir.Value:
    """The bits of a number minus those of `least`, with the bias added to the exponent field."""
    bits, least = (builder.bitcast(value, integer) for value in values)
    start = builder.sub(ir.Constant(integer, bias << significand), least)
    return builder.add(bits, start)


class _TableType(types.Opaque):
    """The type of one table, so that the values are known where it is looked up."""

    def __init__(self, table: vocabulary.Table) -> None:
        self.values = table.values
        super().__init__(f"Table{self.values}")


@typeof_impl.register(vocabulary.Table)
def _typeof_table(table: vocabulary.Table, context: Any) -> _TableType:
    return _TableType(table)


register_model(_TableType)(models.OpaqueModel)


@lower_constant(_TableType)
def _constant_table(
    context: Any, builder: ir.IRBuilder, kind: _TableType, table: vocabulary.Table
) -> ir.Value:
    return context.get_dummy_value()


@_operation(vocabulary.lookup, result=1)
def _lookup(context: Any, builder: ir.IRBuilder, kinds: Any, values: Any) -> ir.Value:
    return _entry(builder, kinds[0], values[1])


@_operation(vocabulary.polynomial)
def _polynomial(context: Any, builder: ir.IRBuilder, kinds: Any, values: Any) -> ir.Value:
    x, _, total = values
    *lower, result = (_entry(builder, kind, total) for kind in kinds[1])
    for coefficient in reversed(lower):
        result = _intrinsic(builder, "llvm.fmuladd", [result, x, coefficient])
    return result


def _entry(builder: ir.IRBuilder, kind: _TableType, total: ir.Value) -> ir.Value:
    module = builder.module
    name = "table." + hashlib.sha256(repr(kind.values).encode()).hexdigest()
    if name not in module.globals:
        array = ir.ArrayType(ir.FloatType(), vocabulary.ENTRIES)
        table = ir.GlobalVariable(module, array, name)
        table.initializer = ir.Constant(array, kind.values)
        table.global_constant, table.linkage, table.align = True, "internal", 64
    table = module.globals[name]
    arguments = [table.gep([_ZERO, _ZERO]), builder.bitcast(total, _ZERO.type)]
    return builder.call(_lookup_function(module), arguments)


_ZERO = ir.Constant(ir.IntType(32), 0)


def _lookup_function(module: ir.Module) -> ir.Function:
    if LOOKUP not in module.globals:
        number = ir.FloatType()
        kind = ir.FunctionType(number, [number.as_pointer(), _ZERO.type])
        function = ir.Function(module, kind, LOOKUP)
        function.linkage = "linkonce_odr"
        function.attributes.add("noinline")  # see _compiler/table_lookup.py
        builder = ir.IRBuilder(function.append_basic_block())
        table, k = function.args
        k = builder.and_(k, ir.Constant(k.type, vocabulary.ENTRIES - 1))
        builder.ret(builder.load(builder.gep(table, [k])))
    return module.globals[LOOKUP]


@type_callable(vocabulary.pick)
def _type_pick(context: Any) -> Callable[..., Any]:
    return lambda table, x: table.types[_field(x)]


def _field(x: Any) -> int:
    return 1 if x is types.float64 else 0


@lower_builtin(vocabulary.pick, types.NamedTuple, types.Float)
def _pick(context: Any, builder: ir.IRBuilder, signature: Any, values: Any) -> ir.Value:
    return builder.extract_value(values[0], _field(signature.args[1]))
