"""The public functions of derivatives of row activations, which apply the declared rules."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from fastact._declarations.docstrings import row_gradient_docstring
from fastact._declarations.records import RowDerivative

if TYPE_CHECKING:  # importing numpy.typing takes a hundredth of NumPy's import time
    from numpy.typing import ArrayLike, NDArray


def function_of(declared: RowDerivative) -> "Callable[..., NDArray[Any]]":
    """The public function of a derivative, with the module and the name of its rule."""
    name, rule = declared.name, declared.rule

    def backward(grad_output: "ArrayLike", output: "ArrayLike", axis: int = -1) -> "NDArray[Any]":
        return _applied(name, rule, {"grad_output": grad_output, "output": output}, axis)

    backward.__name__ = backward.__qualname__ = name
    backward.__module__ = rule.__module__
    backward.__doc__ = row_gradient_docstring(declared)
    return backward


def tangent(
    declared: RowDerivative, tangent: "ArrayLike", output: "ArrayLike", axis: int
) -> "NDArray[Any]":
    """The derivative of the output in the direction of `tangent`, which has its shape."""
    rule = declared.tangent or declared.rule
    return _applied(declared.name, rule, {"tangent": tangent, "output": output}, axis)


def _applied(
    caller: str, rule: Callable[..., Any], given: dict[str, Any], axis: int
) -> "NDArray[Any]":
    # Here, to keep the import of the package short.
    from fastact._runtime import convert
    from fastact._runtime.operands import as_array, check_same_shape, common_type, compute_dtype
    from fastact._runtime.undisturbed import undisturbed

    operands = {name: as_array(caller, name, value) for name, value in given.items()}
    result = common_type(caller, **operands)
    first, *_ = operands
    if operands[first].ndim == 0:
        raise ValueError(f"{caller}: {first} must have at least one axis, got shape ()")
    check_same_shape(caller, **operands)
    dtype = compute_dtype(result)
    given_to_rule = [convert.converted(operand, dtype) for operand in operands.values()]
    gradient = undisturbed(lambda: rule(np, *given_to_rule, axis))
    return convert.converted(gradient, result)
