"""PyTensor: our kernels in functions that its Numba linker compiles."""

import functools
import hashlib
import importlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from fastact import numba as _numba  # noqa: F401 - makes our ufuncs known to Numba
from fastact._compiler import frontend
from fastact._declarations.records import ACTIVATIONS, element_wise
from fastact._functions import UFUNCS
from fastact._interop import njit
from fastact._interop.extras import require
from fastact._interop.versions import warn_unless_tested
from fastact._kernels.vocabulary import SCALAR_FUNCTIONS

__all__ = ["TESTED", "register"]

TESTED = ((3, 0), (3, 1))
"""The versions of PyTensor that `register` was tested with: from the first to below the second."""

_DTYPES = ("float32", "float64")


def register() -> None:
    """Use our kernels in functions that PyTensor's Numba linker compiles.

    Functions compiled afterwards compute ``pytensor.tensor.sigmoid``, ``softplus``, ``tanh``,
    ``erf`` and others of float32 and float64 with our kernels, alone and fused with other
    operations. The page "Use it from ..." of the documentation lists them. Gradients, and formulas
    that PyTensor rewrites as these operations, are included: ``log(1 + exp(x))``, for instance, is
    a softplus. Other types, other linkers and functions that were compiled before do not change.
    A second call has no effect.

    Raises
    ------
    ImportError
        If PyTensor is not installed.

    Warns
    -----
    UserWarning
        If the version of PyTensor is outside the tested range, ``TESTED``.

    Notes
    -----
    PyTensor stores compiled functions on disk. The keys of ours differ from the keys of PyTensor's
    functions, and change with the sources of the kernels.

    Examples
    --------
    >>> import pytensor, pytensor.tensor as pt, fastact.pytensor
    >>> fastact.pytensor.register()
    >>> x = pt.vector("x")
    >>> pytensor.function([x], pt.sigmoid(x), mode="NUMBA")([0.0])
    array([0.5])
    """
    warn_unless_tested("PyTensor", require("pytensor", "pytensor").__version__, *TESTED)
    _register()


@functools.cache
def _register() -> None:
    from pytensor.link.numba.dispatch import basic
    from pytensor.scalar.basic import Composite

    ours = {
        getattr(importlib.import_module(f"pytensor.scalar.{module}"), op): UFUNCS[name]
        for name, declared in ACTIVATIONS.items()
        for module, op in (op.split(".") for op in declared.pytensor_ops)
    }
    for op_type, ufunc in ours.items():
        before = basic.numba_funcify_and_cache_key.dispatch(op_type)
        basic.register_funcify_and_cache_key(op_type)(functools.partial(_funcify, ufunc, before))
    before = basic.numba_funcify_and_cache_key.dispatch(Composite)
    fused = functools.partial(_funcify_fused, tuple(ours), before)
    basic.register_funcify_and_cache_key(Composite)(fused)


def _funcify(
    ufunc: np.ufunc, before: Callable[..., Any], op: Any, node: Any, **arguments: Any
) -> Any:
    """The function of one number that PyTensor asks for, and its key on disk."""
    if node.inputs[0].type.dtype not in _DTYPES:
        return before(op, node=node, **arguments)
    return _inlined(ufunc), f"{ufunc.__name__}-{_sources()}"


def _funcify_fused(
    ours: tuple[type, ...], before: Callable[..., Any], op: Any, node: Any, **arguments: Any
) -> Any:
    """The same for fused operations; the function is inlined if one of `ours` is among them."""
    function, key = before(op, node=node, **arguments)
    if any(isinstance(inner.op, ours) for inner in op.fgraph.apply_nodes):
        function.targetoptions["forceinline"] = True
        return _inlined(function), key
    return function, key


def _inlined(function: Any) -> Any:
    """`function`, wrapped such that its callers are always inlined, whatever their size.

    PyTensor wraps functions in others and calls these in a loop, which LLVM vectorises only if all
    of them are inlined. By default it would not inline softplus of float64, which would then take
    38 ns per element instead of 7.
    """

    @intrinsic
    def inlined(typing: Any, *operands: Any) -> Any:
        kind = typing.resolve_value_type(function)
        inner = kind.get_call_type(typing, operands, {})

        def code(context: Any, builder: Any, signature: Any, values: Any) -> Any:
            builder.function.attributes.add("alwaysinline")
            call = context.get_function(kind, inner)
            context.add_linking_libs(getattr(call, "libs", ()))
            return call(builder, cgutils.unpack_tuple(builder, values[0], len(operands)))

        return inner.return_type(types.StarArgTuple(operands)), code

    return inlined


@functools.cache
def _sources() -> str:
    """A hash of the sources that make the kernels."""
    files = {function.__code__.co_filename for function in SCALAR_FUNCTIONS}
    files |= {declared.kernel.__code__.co_filename for declared in element_wise().values()}
    files |= {__file__, frontend.__file__, njit.__file__}
    content = b"".join(Path(file).read_bytes() for file in sorted(files))
    return hashlib.sha256(content).hexdigest()
