"""HIPS autograd: activations that its ``grad`` can differentiate any number of times.

Every function here has the name of its ufunc: ``fastact.autograd.sigmoid(x)``.

Examples
--------
>>> import autograd, fastact.autograd
>>> autograd.grad(fastact.autograd.sigmoid)(0.0)
np.float64(0.25)
"""

import functools
import importlib.metadata
from collections.abc import Callable, Sequence
from typing import Any

from fastact._declarations.records import (
    DERIVATIVES,
    REDUCTION_DERIVATIVES,
    ROW_DERIVATIVES,
    Derivative,
    ReductionDerivative,
    RowDerivative,
)
from fastact._functions import UFUNCS
from fastact._interop.extras import require
from fastact._interop.versions import warn_unless_tested

_autograd = require("autograd", "autograd")  # so that an error names it, not a module of it
_extend = require("autograd.extend", "autograd")
_np = require("autograd.numpy", "autograd")
_unbroadcast = require("autograd.numpy.numpy_vjps", "autograd").unbroadcast
_tuple = require("autograd.builtins", "autograd").tuple
from fastact._interop.autograd_module import MODULE  # noqa: E402

TESTED = ((1, 7), (1, 10))
"""The tested versions of autograd: from the first to below the second."""

warn_unless_tested("autograd", importlib.metadata.version("autograd"), *TESTED)

__all__ = [*DERIVATIVES, *ROW_DERIVATIVES, *REDUCTION_DERIVATIVES]


def _element_wise(declared: Derivative) -> Callable[..., Any]:
    function: Callable[..., Any] = _extend.primitive(UFUNCS[declared.activation])
    through = _gradients(declared)

    def vjp(argnums: Sequence[int], y: Any, inputs: Any, _: Any) -> Callable[..., Any]:
        saved = declared.operands(inputs, y)

        def back(g: Any) -> tuple[Any, ...]:
            found = through(g, *saved)
            return tuple(_like(found[k], inputs[k]) for k in argnums)

        return back

    def jvp(argnums: Sequence[int], tangents: Any, y: Any, inputs: Any, _: Any) -> Any:
        saved = declared.operands(inputs, y)
        # Only in the direction of one input at a time is it the gradient with respect to that.
        directions = (
            through(_broadcast(tangent, y), *saved)[k]
            for k, tangent in zip(argnums, tangents, strict=True)
        )
        return functools.reduce(_np.add, directions)

    _extend.defvjp_argnums(function, vjp)
    _extend.defjvp_argnums(function, jvp)
    return function


def _gradients(declared: Derivative) -> Callable[..., Any]:
    """The function of the derivative's operands that returns a tuple of gradients.

    It is linear in the incoming gradient. Its other derivatives follow from declared expressions,
    computed with autograd's functions, which can be differentiated again.
    """
    ufunc, count = UFUNCS[declared.name], len(declared.results)
    through: Callable[..., Any] = _extend.primitive(
        ufunc if count > 1 else lambda *operands: (ufunc(*operands),)
    )

    def result(k: int, argnum: int, *operands: Any) -> Any:
        """A result, and the operand, since autograd warns of results that do not depend on it."""
        found = declared.reference(MODULE, *operands)
        return _tuple([found[k] if count > 1 else found, operands[argnum]])

    def vjp(argnums: Sequence[int], _: Any, operands: Any, __: Any) -> Callable[..., Any]:
        def back(gradients: Any) -> tuple[Any, ...]:
            return tuple(
                _like(
                    functools.reduce(
                        _np.add, (pulled(argnum, k, gradients[k], operands) for k in range(count))
                    ),
                    operands[argnum],
                )
                for argnum in argnums
            )

        return back

    def pulled(argnum: int, k: int, g: Any, operands: Any) -> Any:
        """The gradient with respect to an operand, of the result with the gradient `g`."""
        if argnum == 0:
            return through(g, *operands[1:])[k]
        if declared.slope is not None:
            return g * operands[0] * declared.slope(MODULE, *operands[1:])
        pull, _ = _autograd.make_vjp(functools.partial(result, k, argnum), argnum)(*operands)
        return pull(_tuple([g, _extend.vspace(operands[argnum]).zeros()]))

    def jvp(argnums: Sequence[int], tangents: Any, _: Any, operands: Any, __: Any) -> Any:
        pairs = [*zip(argnums, tangents, strict=True)]
        return _tuple(
            [
                functools.reduce(_np.add, (pushed(argnum, k, t, operands) for argnum, t in pairs))
                for k in range(count)
            ]
        )

    def pushed(argnum: int, k: int, tangent: Any, operands: Any) -> Any:
        """The derivative of a result in the direction `tangent` of an operand."""
        if argnum == 0 or declared.slope is not None:
            return pulled(argnum, k, tangent, operands)
        push = _autograd.make_jvp(functools.partial(result, k, argnum), argnum)(*operands)
        return push(tangent)[1][0]

    _extend.defvjp_argnums(through, vjp)
    _extend.defjvp_argnums(through, jvp)
    return through


def _broadcast(tangent: Any, y: Any) -> Any:
    """The tangent of an operand with the shape of `y`."""
    shape, _, dtype, _ = _np.metadata(y)
    # autograd cannot differentiate numpy.broadcast_to with more axes.
    return tangent if _np.shape(tangent) == shape else tangent + _np.zeros(shape, dtype)


def _like(gradient: Any, operand: Any) -> Any:
    """The gradient summed to the shape of the operand, which was broadcast."""
    return _unbroadcast(gradient, _np.metadata(operand))


def _row_wise(declared: RowDerivative) -> Callable[..., Any]:
    function: Callable[..., Any] = _extend.primitive(UFUNCS[declared.activation])
    tangent = declared.tangent or declared.rule

    # In autograd's functions, which it can differentiate again.
    _extend.defvjp(function, lambda y, x, axis=-1: lambda g: declared.rule(_np, g, y, axis))
    _extend.defjvp(function, lambda g, y, x, axis=-1: tangent(_np, g, y, axis))
    return function


def _reducing(declared: ReductionDerivative) -> Callable[..., Any]:
    function: Callable[..., Any] = _extend.primitive(UFUNCS[declared.activation])

    def vjp(y: Any, x: Any, axis: int = -1, keepdims: bool = False) -> Callable[..., Any]:
        def back(g: Any) -> Any:
            return declared.rule(_np, g if keepdims else _np.expand_dims(g, axis), x, axis)

        return back

    def jvp(g: Any, y: Any, x: Any, axis: int = -1, keepdims: bool = False) -> Any:
        found = declared.tangent(_np, g, x, axis)
        return found if keepdims else _np.squeeze(found, axis)

    _extend.defvjp(function, vjp)
    _extend.defjvp(function, jvp)
    return function


globals().update({name: _element_wise(declared) for name, declared in DERIVATIVES.items()})
globals().update({name: _row_wise(declared) for name, declared in ROW_DERIVATIVES.items()})
globals().update({name: _reducing(declared) for name, declared in REDUCTION_DERIVATIVES.items()})
