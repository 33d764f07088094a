"""The public functions of derivatives of functions of rows, which apply the declared rules."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from fastact._declarations.records import ReductionDerivative, RowDerivative

if TYPE_CHECKING:  # importing numpy.typing takes a hundredth of NumPy's import time
    from numpy.typing import ArrayLike, NDArray


def of_output(declared: RowDerivative) -> "Callable[..., NDArray[Any]]":
    """The public function of the derivative of an activation."""
    name, rule = declared.name, declared.rule

    def backward(grad_output: "ArrayLike", output: "ArrayLike", axis: int = -1) -> "NDArray[Any]":
        given = {"grad_output": grad_output, "output": output}
        return _applied(name, rule, given, axis, _check_rows)

    return backward


def of_input(declared: ReductionDerivative) -> "Callable[..., NDArray[Any]]":
    """The public function of the derivative of a reduction."""
    name, rule = declared.name, declared.rule

    def backward(grad_output: "ArrayLike", input: "ArrayLike", axis: int = -1) -> "NDArray[Any]":
        given = {"grad_output": grad_output, "input": input}
        return _applied(name, rule, given, axis, _keep_axis)

    return backward


def tangent(
    declared: RowDerivative | ReductionDerivative,
    tangent: "ArrayLike",
    saved: "ArrayLike",
    axis: int,
) -> "NDArray[Any]":
    """The derivative of the output in the direction of `tangent`, which has the shape of `saved`.

    This is the output of an activation, or the input of a reduction, whose axis is kept.
    """
    rule = declared.tangent or declared.rule
    given = {"tangent": tangent, "saved": saved}
    return _applied(declared.name, rule, given, axis, _check_rows)


def _applied(
    caller: str,
    rule: Callable[..., Any],
    given: dict[str, Any],
    axis: int,
    align: Callable[..., None],
) -> "NDArray[Any]":
    # Here, to keep the import of the package short.
    from fastact._runtime import convert
    from fastact._runtime.operands import as_array, common_type, compute_dtype
    from fastact._runtime.undisturbed import undisturbed

    operands = {name: as_array(caller, name, value) for name, value in given.items()}
    result = common_type(caller, **operands)
    align(caller, operands, axis)
    dtype = compute_dtype(result)
    given_to_rule = [convert.converted(operand, dtype) for operand in operands.values()]
    gradient = undisturbed(lambda: rule(np, *given_to_rule, axis))
    return convert.converted(gradient, result)


def _check_rows(caller: str, operands: dict[str, Any], axis: int) -> None:
    """ValueError unless both operands are rows of one shape."""
    from fastact._runtime.operands import check_same_shape

    _check_has_axis(caller, operands, next(iter(operands)))
    check_same_shape(caller, **operands)


def _keep_axis(caller: str, operands: dict[str, Any], axis: int) -> None:
    """Give the gradient of a reduction length 1 along the axis, unless it has that."""
    _check_has_axis(caller, operands, "input")
    g, x = operands["grad_output"], operands["input"]
    reduced = np.moveaxis(x, axis, -1).shape[:-1]
    if g.shape == reduced:
        operands["grad_output"] = np.expand_dims(g, axis)
    elif g.ndim != x.ndim or np.moveaxis(g, axis, -1).shape != (*reduced, 1):
        raise ValueError(
            f"{caller}: grad_output must have the shape of input without axis {axis}, {reduced}, "
            f"or with length 1 along it, got shape {g.shape}"
        )


def _check_has_axis(caller: str, operands: dict[str, Any], name: str) -> None:
    if operands[name].ndim == 0:
        raise ValueError(f"{caller}: {name} must have at least one axis, got shape ()")
