"""HIPS autograd: activations that its ``grad`` can differentiate any number of times.

Every function here has the name of its ufunc: ``fastact.autograd.sigmoid(x)``.

Examples
--------
>>> import autograd, fastact.autograd
>>> autograd.grad(fastact.autograd.sigmoid)(0.0)
np.float64(0.25)
"""

import importlib.metadata
from collections.abc import Callable
from typing import Any

from fastact._declarations.records import DERIVATIVES, ROW_DERIVATIVES, Derivative, RowDerivative
from fastact._functions import UFUNCS
from fastact._interop.extras import require
from fastact._interop.versions import warn_unless_tested

require("autograd", "autograd")  # so that an error names the package, not a module of it
_extend = require("autograd.extend", "autograd")
_np = require("autograd.numpy", "autograd")

TESTED = ((1, 7), (1, 10))
"""The tested versions of autograd: from the first to below the second."""

warn_unless_tested("autograd", importlib.metadata.version("autograd"), *TESTED)

__all__ = [*DERIVATIVES, *ROW_DERIVATIVES]


def _element_wise(declared: Derivative) -> Callable[..., Any]:
    function: Callable[..., Any] = _extend.primitive(UFUNCS[declared.activation])
    through: Callable[..., Any] = _extend.primitive(UFUNCS[declared.name])

    def saved(y: Any, x: Any) -> Any:
        return x if declared.saved == "input" else y

    _extend.defvjp(function, lambda y, x: lambda g: through(g, saved(y, x)))
    _extend.defjvp(function, lambda g, y, x: through(g, saved(y, x)))

    # The gradient is linear in the incoming one. Higher derivatives follow from the declared
    # expressions, computed with autograd's functions.
    def by_saved(g: Any, gradient: Any, kept: Any) -> Any:
        return g * gradient * declared.slope(_np, kept)

    _extend.defvjp(
        through,
        lambda _, gradient, kept: lambda g: through(g, kept),
        lambda _, gradient, kept: lambda g: by_saved(g, gradient, kept),
    )
    _extend.defjvp(
        through,
        lambda g, _, gradient, kept: through(g, kept),
        lambda g, _, gradient, kept: by_saved(g, gradient, kept),
    )
    return function


def _row_wise(declared: RowDerivative) -> Callable[..., Any]:
    function: Callable[..., Any] = _extend.primitive(UFUNCS[declared.activation])
    tangent = declared.tangent or declared.rule

    # In autograd's functions, which it can differentiate again.
    _extend.defvjp(function, lambda y, x, axis=-1: lambda g: declared.rule(_np, g, y, axis))
    _extend.defjvp(function, lambda g, y, x, axis=-1: tangent(_np, g, y, axis))
    return function


globals().update({name: _element_wise(declared) for name, declared in DERIVATIVES.items()})
globals().update({name: _row_wise(declared) for name, declared in ROW_DERIVATIVES.items()})
