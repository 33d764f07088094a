"""The activations inside Numba's compiled functions.

For a ufunc that it does not know, Numba calls `numba_type` (see ``_fastact_numba.py``), which
registers the ufuncs of this package. Their types follow NumPy's rules, as implemented by
``engine.choose_dtype``. Their code is Numba's broadcasting loop for ufuncs around the kernel. The
kernel is always inlined, since LLVM vectorises a loop only then. It does not inherit `fastmath` or
`error_model` from the function around it, since its accuracy depends on its roundings. Kernels that
use tables are called instead (see ``_compiler/vector_function.py``).
"""

import functools
import inspect
import itertools
from collections.abc import Callable, Sequence
from typing import Any

import llvmlite.binding as llvm
import numba
import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.core.codegen import CodeLibrary, CPUCodegen
from numba.core.errors import NumbaError
from numba.core.registry import cpu_target
from numba.core.typing import Signature, signature
from numba.core.typing.npydecl import Numpy_rules_ufunc
from numba.extending import lower_builtin, type_callable
from numba.np import npyimpl, numpy_support

from fastact._compiler import frontend, vector_function
from fastact._declarations.declare import ufunc_of
from fastact._declarations.records import FAST, OBJECTIVES, element_wise
from fastact._kernels.vocabulary import variants_of
from fastact._loading import loader
from fastact._machine.formats import FLOAT32
from fastact._runtime import engine

_OPTIONS: dict[str, Any] = {"error_model": "numpy", "fastmath": False, "forceinline": True}

STAND_INS: dict[np.ufunc, np.ufunc] = {}
"""Ufuncs of other packages, and the ufuncs that replace them in compiled functions."""


def numba_type(ufunc: np.ufunc) -> types.Type | None:
    """The type of a ufunc that another one replaces; None for all others.

    After the call, Numba itself knows the types of our ufuncs.
    """
    _register_activations()
    if ufunc in STAND_INS:
        return cpu_target.typing_context.resolve_value_type(STAND_INS[ufunc])
    return None


@functools.cache
def _register_activations() -> None:
    frontend.register_vocabulary()
    for name, declared in (element_wise() | FAST | OBJECTIVES).items():
        register(ufunc_of(name), declared.kernel, declared.keeps_integers)


def register(
    ufunc: np.ufunc,
    kernel: Callable[..., Any],
    keeps_integers: bool = False,
    weak_integers: bool = False,
) -> None:
    """Make `ufunc` known to Numba as `kernel` for each element.

    Parameters
    ----------
    ufunc : ufunc
        A ufunc. If it has several outputs, they may be given by position only, as for
        ``numpy.divmod`` in compiled functions.
    kernel : callable
        A function of scalars of one type: float32 or float64, or an integer type if
        `keeps_integers`. If the ufunc has several outputs, it returns a tuple.
    keeps_integers : bool
        Whether integers keep their type. Otherwise they are converted to float64.
    weak_integers : bool
        Whether integers are converted to the type of a float operand, as in Numba's own ufuncs.
    """
    compiled = numba.njit(**_OPTIONS)(kernel)
    outputs = ["out"] if ufunc.nout == 1 else [f"out{k + 1}" for k in range(ufunc.nout)]
    by_name = inspect.Parameter.POSITIONAL_OR_KEYWORD
    optional = [inspect.Parameter(name, by_name, default=None) for name in outputs]
    parameters = [*inspect.signature(kernel).parameters.values(), *optional]
    number_of = functools.partial(_number, kernel.__name__, keeps_integers, weak_integers)

    @type_callable(ufunc)
    def typing(context: Any) -> Callable[..., Signature]:
        # Only outputs may be missing.
        def result(*operands: Any, **named: Any) -> Signature:
            given = [*operands, *named.values()]
            # Numba converts the arguments to these types. For an optional argument that is None,
            # this raises TypeError.
            kinds = [kind.type if isinstance(kind, types.Optional) else kind for kind in given]
            found = _results(context, ufunc, number_of, _without_none(kinds, ufunc.nin))
            return signature(found[0] if ufunc.nout == 1 else types.Tuple(found), *kinds)

        result.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined] # Numba reads it
        return result

    class Kernel(npyimpl._Kernel):
        def generate(self, *values: Any) -> Any:
            kinds, result = self.outer_sig.args, self.outer_sig.return_type
            number = number_of(kinds)
            context = self.context
            numbers = [self.cast(v, kind, number) for v, kind in zip(values, kinds, strict=True)]
            if number == types.float32 and _looks_up(kernel, context.codegen()):
                name, library = _linked(kernel, context.codegen())
                function = cgutils.get_or_insert_function(
                    self.builder.module, ir.FunctionType(ir.FloatType(), [ir.FloatType()]), name
                )
                context.add_linking_libs([library])
                # For most such processors, LLVM prefers vectors of half the size, with which calls
                # are no faster than the formula (bench/NOTES.md). The `add` of llvmlite's class
                # refuses attributes that have values.
                width = f'"prefer-vector-width"="{loader.host().vector_bits}"'
                set.add(self.builder.function.attributes, width)
                return self.cast(self.builder.call(function, numbers), number, result)
            function = numba.typeof(compiled)
            signature = context.typing_context.resolve_function_type(
                function, (number,) * len(numbers), {}
            )
            code = context.get_function(function, signature)
            context.add_linking_libs(getattr(code, "libs", ()))
            found = code(self.builder, numbers)
            if ufunc.nout == 1:
                return self.cast(found, number, result)
            several = cgutils.unpack_tuple(self.builder, found, ufunc.nout)
            cast = [self.cast(v, number, kind) for v, kind in zip(several, result, strict=True)]
            return context.make_tuple(self.builder, result, cast)

    @lower_builtin(ufunc, types.VarArg(types.Any))
    def lowering(context: Any, builder: Any, signature: Signature, values: Any) -> Any:
        kinds = _without_none(signature.args, ufunc.nin)
        values = values[: len(kinds)]
        signature = signature.replace(args=kinds)
        for i, k in itertools.product(range(len(kinds)), range(ufunc.nin, len(kinds))):
            if i != k and isinstance(kinds[i], types.Array):  # Numba would read beyond its end
                fits = types.none(kinds[i], kinds[k])
                context.compile_internal(builder, _check_shape, fits, [values[i], values[k]])
        return npyimpl.numpy_ufunc_kernel(context, builder, signature, values, ufunc, Kernel)

    # This runs during a compilation, after Numba has looked for new registrations.
    cpu_target.typing_context.refresh()
    cpu_target.target_context.refresh()


def _looks_up(kernel: Callable[..., Any], codegen: CPUCodegen) -> bool:
    """Whether `kernel` uses tables on this machine, and Numba compiles for that feature, too."""
    _, _, features = codegen.magic_tuple()
    lookup = loader.host().lookup
    if variants_of(kernel).tables is None or lookup is None:
        return False
    return f"+{lookup.feature}" in features


@functools.cache
def _linked(kernel: Callable[..., Any], codegen: CPUCodegen) -> tuple[str, CodeLibrary]:
    name, text = vector_function.function(kernel, FLOAT32, loader.host())
    library = codegen.create_library(name)
    library.add_llvm_module(llvm.parse_assembly(text))
    library.finalize()
    return name, library


def _check_shape(x: Any, out: Any) -> None:
    for i in range(1, x.ndim + 1):
        length = x.shape[x.ndim - i]
        if length != 1 and length != out.shape[out.ndim - i]:
            raise ValueError("out must have the shape of the broadcast inputs")


def _without_none(kinds: Sequence[types.Type], nin: int) -> tuple[types.Type, ...]:
    """`kinds` without outputs at the end that are None, which stands for a new array."""
    count = len(kinds)
    while count > nin and kinds[count - 1] == types.none:
        count -= 1
    return tuple(kinds[:count])


def _results(
    context: Any,
    ufunc: np.ufunc,
    number_of: Callable[[Sequence[types.Type]], types.Type],
    operands: Sequence[types.Type],
) -> list[types.Type]:
    """The types of the results of ``ufunc(*operands)``; the last operands may be outputs."""
    name = ufunc.__name__
    inputs = operands[: ufunc.nin]
    kinds, outputs, ndim, layout = Numpy_rules_ufunc._handle_inputs(ufunc, operands, {})
    number = number_of(kinds[: ufunc.nin])
    for out in outputs:
        if out.ndim < ndim:
            raise numba.TypingError(
                f"{name}: out must have at least {ndim} dimensions, like the inputs, got {out.ndim}"
            )
        source, sink = numpy_support.as_dtype(number), numpy_support.as_dtype(out.dtype)
        if not np.can_cast(source, sink, "same_kind"):
            raise numba.TypingError(
                f"{name}: out must be an array of {source} or a type of the same kind, "
                f"got an array of {sink}"
            )
    made = number
    if ndim and len(outputs) < ufunc.nout:
        made = types.Array(number, ndim, layout)
        made = numpy_support.resolve_output_type(context, inputs, made)
    return [*outputs, *[made] * (ufunc.nout - len(outputs))]


def _number(
    name: str, keeps_integers: bool, weak_integers: bool, kinds: Sequence[types.Type]
) -> types.Type:
    """The type in which the function `name` computes for operands or elements of these types."""
    if weak_integers and any(isinstance(kind, types.Float) for kind in kinds):
        kinds = [kind for kind in kinds if not isinstance(kind, types.Integer)]
    try:
        common = np.result_type(*(numpy_support.as_dtype(types.unliteral(k)) for k in kinds))
        dtype = engine.choose_dtype(type(common), False, keeps_integers)
    except (NumbaError, TypeError):  # a type that NumPy does not have, or no common type
        dtype = None
    if dtype is None or issubclass(dtype.type, np.float16):
        raise numba.TypingError(
            f"{name} inside Numba: expected float32, float64, integers or bool, "
            f"got {', '.join(map(str, kinds))}"
        )
    return numba.from_dtype(dtype())
