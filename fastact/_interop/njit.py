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
from fastact._declarations.records import element_wise
from fastact._functions import UFUNCS
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
    for name, declared in element_wise().items():
        register(UFUNCS[name], declared.kernel, declared.keeps_integers)


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
        A ufunc with one output.
    kernel : callable
        A function of scalars of one type: float32 or float64, or an integer type if
        `keeps_integers`.
    keeps_integers : bool
        Whether integers keep their type. Otherwise they are converted to float64.
    weak_integers : bool
        Whether integers are converted to the type of a float operand, as in Numba's own ufuncs.
    """
    compiled = numba.njit(**_OPTIONS)(kernel)
    optional = inspect.Parameter("out", inspect.Parameter.POSITIONAL_OR_KEYWORD, default=None)
    parameters = [*inspect.signature(kernel).parameters.values(), optional]
    number_of = functools.partial(_number, kernel.__name__, keeps_integers, weak_integers)

    @type_callable(ufunc)
    def typing(context: Any) -> Callable[..., Signature]:
        # Only `out` may be missing.
        def result(*operands: Any, **named: Any) -> Signature:
            given = [*operands, *named.values()]
            # Numba converts the arguments to these types. For an optional argument that is None,
            # this raises TypeError.
            kinds = [kind.type if isinstance(kind, types.Optional) else kind for kind in given]
            out = [kind for kind in kinds[ufunc.nin :] if kind != types.none]
            found = _result(context, ufunc, number_of, [*kinds[: ufunc.nin], *out])
            return signature(found, *kinds)

        result.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined] # Numba reads it
        return result

    class Kernel(npyimpl._Kernel):
        def generate(self, *values: Any) -> Any:
            kinds, result = self.outer_sig.args, self.outer_sig.return_type
            number = number_of(kinds)
            numbers = [self.cast(v, kind, number) for v, kind in zip(values, kinds, strict=True)]
            context = self.context
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
            return self.cast(code(self.builder, numbers), number, result)

    @lower_builtin(ufunc, types.VarArg(types.Any))
    def lowering(context: Any, builder: Any, signature: Signature, values: Any) -> Any:
        kinds = signature.args
        if len(kinds) > ufunc.nin and kinds[-1] == types.none:
            kinds, values = kinds[:-1], values[:-1]
            signature = signature.replace(args=kinds)
        for i, kind in enumerate(kinds[: ufunc.nin] if len(kinds) > ufunc.nin else ()):
            if isinstance(kind, types.Array):  # Numba would read beyond its end
                fits = types.none(kind, kinds[-1])
                context.compile_internal(builder, _check_shape, fits, [values[i], values[-1]])
        return npyimpl.numpy_ufunc_kernel(context, builder, signature, values, ufunc, Kernel)

    # This runs during a compilation, after Numba has looked for new registrations.
    cpu_target.typing_context.refresh()
    cpu_target.target_context.refresh()


def _looks_up(kernel: Callable[..., Any], codegen: CPUCodegen) -> bool:
    """Whether `kernel` uses tables on this machine, and Numba compiles for that feature, too."""
    _, _, features = codegen.magic_tuple()
    lookup = loader.host().lookup
    return hasattr(kernel, "by_tables") and lookup is not None and f"+{lookup.feature}" in features


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


def _result(
    context: Any,
    ufunc: np.ufunc,
    number_of: Callable[[Sequence[types.Type]], types.Type],
    operands: Sequence[types.Type],
) -> types.Type:
    """The type of ``ufunc(*operands)``; the last operand may be `out`."""
    name = ufunc.__name__
    inputs = operands[: ufunc.nin]
    kinds, outputs, ndim, layout = Numpy_rules_ufunc._handle_inputs(ufunc, operands, {})
    number = number_of(kinds[: ufunc.nin])
    if outputs:
        (out,) = outputs
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
        return out
    if ndim == 0:
        return number
    return numpy_support.resolve_output_type(context, inputs, types.Array(number, ndim, layout))


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
