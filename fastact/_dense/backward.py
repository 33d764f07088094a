"""Gradients of dense layers."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from fastact._declarations.records import Derivative, RowDerivative, derivative_of
from fastact._dense.activated import Activated, ActivationLike, chosen
from fastact._dense.layers import check_input, check_weights
from fastact._functions import UFUNCS
from fastact._runtime import convert
from fastact._runtime.operands import as_array, check_same_shape, common_type, compute_dtype
from fastact._runtime.undisturbed import undisturbed

if TYPE_CHECKING:  # importing numpy.typing takes a hundredth of NumPy's import time
    from numpy.typing import ArrayLike, NDArray

__all__ = ["dense_backward"]


def dense_backward(
    grad_output: ArrayLike,
    x: ArrayLike,
    W: ArrayLike,
    output: ArrayLike | None = None,
    activation: ActivationLike = "identity",
    *,
    saved: ArrayLike | None = None,
) -> tuple[NDArray[Any], ...]:
    """Gradients with respect to the operands of a dense layer.

    Parameters
    ----------
    grad_output : array_like, shape (..., N)
        The gradient with respect to the output of the layer.
    x : array_like, shape (..., K)
        The input of the layer.
    W : array_like, shape (K, N)
        Its weights.
    output : array_like, shape (..., N), optional
        The result of ``dense(x, W, b, activation)``. It is enough for an activation whose
        derivative is declared in terms of the output, and for softplus and step.
    activation : str, ufunc, tuple or None, optional
        As for :func:`fastact.dense`.
    saved : array_like, shape (..., N), optional
        ``x @ W + b``, as :func:`fastact.dense` writes it to its `saved`. An activation whose
        derivative ``NAME_backward`` takes the input needs it.

    Returns
    -------
    grad_x : ndarray, shape (..., K)
    grad_W : ndarray, shape (K, N)
    grad_b : ndarray, shape (N,)
    grad_parameter : ndarray, shape () or (N,)
        Only if the activation has a parameter, whose shape it has.

        All have the common type of the operands, as for :func:`fastact.dense`: float16 (or
        bfloat16), float32 or float64. The 16-bit formats are computed in float32 and rounded
        once. If all operands are integers or bool, it is float64.

    Raises
    ------
    ValueError
        For shapes that do not match, an unknown activation, an activation whose derivative needs
        `output` or `saved` and does not get it, and masked arrays with masked elements.
    TypeError
        For complex, longdouble, string, datetime and object operands.

    Notes
    -----
    NumPy computes the products, so their bits depend on its BLAS. No floating-point warning is
    raised, the result does not depend on the calling thread's rounding mode and flush-to-zero
    setting, and its status flags stay unchanged. If the BLAS starts threads, each of them has its
    own floating-point environment, which this package does not set. At 0, the derivatives of relu
    and step are 0. Without `saved`, the derivative of softplus is computed as 1 - exp(-output).

    Examples
    --------
    >>> import numpy as np, fastact as fa
    >>> x, W = np.array([[1.0, 2.0]]), np.array([[1.0, -1.0], [2.0, -2.0]])
    >>> y = fa.dense(x, W, activation="relu")
    >>> grad_x, grad_W, grad_b = fa.dense_backward(np.ones_like(y), x, W, y, "relu")
    >>> grad_b
    array([1., 0.])
    """
    caller = "dense_backward"
    given = {"grad_output": grad_output, "x": x, "W": W}
    given |= {
        name: value
        for name, value in {"output": output, "saved": saved}.items()
        if value is not None
    }
    operands = {name: as_array(caller, name, operand) for name, operand in given.items()}
    g, x, W = (operands[name] for name in ("grad_output", "x", "W"))
    check_weights(caller, W)
    activated = chosen(caller, activation, W.shape[1])
    back = through(caller, activated, "output" in operands, "saved" in operands)
    check_input(caller, x, W.shape)
    shape = (*x.shape[:-1], W.shape[1])
    if g.shape != shape:
        raise ValueError(
            f"{caller}: grad_output must have shape {shape} to match x of shape {x.shape} and W of "
            f"shape {W.shape}, got shape {g.shape}"
        )
    for name in ("output", "saved"):
        if name in operands:
            check_same_shape(caller, **{"grad_output": g, name: operands[name]})
    result = common_type(caller, **operands)
    dtype = compute_dtype(result)
    wide = {name: convert.converted(operand, dtype) for name, operand in operands.items()}

    def gradients() -> tuple[np.ndarray, ...]:
        g, x, W = wide["grad_output"], wide["x"], wide["W"]
        before, *of_parameters = back(g, wide.get("output"), wide.get("saved"))
        count = math.prod(x.shape[:-1])
        rows, inputs = before.reshape(count, W.shape[1]), x.reshape(count, W.shape[0])
        summed = (_like_parameter(v, p) for v, p in zip(of_parameters, values, strict=True))
        return before @ W.T, inputs.T @ rows, rows.sum(0), *summed

    values = () if activated is None else activated.parameters
    found = undisturbed(gradients)
    return tuple(convert.converted(gradient, result) for gradient in found)


def _like_parameter(gradient: np.ndarray, value: float | tuple[float, ...]) -> np.ndarray:
    """The sum of the gradients of all elements that have the same parameter."""
    axes = tuple(range(gradient.ndim - isinstance(value, tuple)))
    return np.asarray(gradient.sum(axes))


def through(
    caller: str, activated: Activated | None, has_output: bool = True, has_saved: bool = False
) -> Callable[..., tuple[np.ndarray, ...]]:
    """The function of the gradient, output and input that returns the gradients of the activation.

    The first of them is with respect to its input, the others to its parameters. ValueError if they
    cannot be computed from what there is.
    """
    if activated is None:
        return lambda g, y, z: (g,)
    declared = derivative_of(activated.name)
    if declared is None:
        raise ValueError(
            f"{caller}: activation must have a derivative, got {activated}, which has none"
        )
    there = {"output": has_output, "saved": has_saved}
    _check_has(caller, activated, {name: there[name] for name in needed(declared, has_saved)})
    if isinstance(declared, RowDerivative):
        rule = declared.rule
        return lambda g, y, z: (rule(np, g, y, axis=-1),)
    if declared.of_output is not None and not has_saved:
        of_output = declared.of_output
        return lambda g, y, z: (g * of_output(np, y),)
    return lambda g, y, z: _gradients(declared, activated, g, y, z)


def needed(declared: Derivative | RowDerivative, has_saved: bool = False) -> list[str]:
    """What gradients of a layer need of it: "output", "saved" for the sums, or both."""
    if isinstance(declared, RowDerivative) or (declared.of_output is not None and not has_saved):
        return ["output"]
    return ["saved" if name == "input" else name for name in declared.needs]


def _check_has(caller: str, activated: Activated, there: dict[str, bool]) -> None:
    missing = [name for name, is_there in there.items() if not is_there]
    if missing:
        what = {"output": "its output, as output=", "saved": "its input, as saved="}
        raise ValueError(
            f"{caller}: the derivative of {activated} needs "
            + " and ".join(what[name] for name in there)
            + f"; got no {' and no '.join(missing)}"
        )


def _gradients(
    declared: Derivative, activated: Activated, g: np.ndarray, y: Any, z: Any
) -> tuple[np.ndarray, ...]:
    operands = declared.operands([z, *activated.arrays(g.dtype, g.shape[-1])], y)
    found = UFUNCS[declared.name](g, *operands)
    return found if isinstance(found, tuple) else (found,)
