"""Gradients of dense layers and softmax."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from fastact._declarations.records import DERIVATIVES
from fastact._dense.layers import (
    activation_name,
    check_input,
    check_weights,
    common_type,
    compute_dtype,
)
from fastact._functions import UFUNCS
from fastact._runtime import convert
from fastact._runtime.operands import as_array
from fastact._runtime.undisturbed import undisturbed

if TYPE_CHECKING:  # importing numpy.typing takes a hundredth of NumPy's import time
    from numpy.typing import ArrayLike, NDArray

__all__ = ["dense_backward", "softmax_backward"]


def softmax_backward(grad_output: ArrayLike, output: ArrayLike, axis: int = -1) -> NDArray[Any]:
    """Gradient with respect to the input of softmax.

    ``softmax_backward(g, y) = y * (g - sum(g * y))``

    Parameters
    ----------
    grad_output : array_like
        The gradient with respect to the output of softmax.
    output : array_like
        The output of softmax, with the shape of `grad_output`.
    axis : int, optional
        The axis along which softmax was computed. Default is the last axis.

    Returns
    -------
    ndarray
        Has the common type of the operands, as for :func:`fastact.dense`: float16 (or bfloat16),
        float32 or float64. The 16-bit formats are computed in float32 and rounded once. For
        integers and bool, it is float64.

    Raises
    ------
    ValueError
        For operands without an axis or of different shapes, and masked arrays with masked
        elements.
    TypeError
        For complex, longdouble, string, datetime and object operands.
    AxisError
        If `axis` is out of bounds.

    Notes
    -----
    NumPy computes the result in several passes. Nevertheless, no floating-point warning is raised,
    the result does not depend on the caller's rounding mode and flush-to-zero setting, and the
    caller's status flags stay unchanged. The error is a few eps times
    ``output * (abs(grad_output) + sum(abs(grad_output * output)))``, and grows with the logarithm
    of the length of a row. Where the difference cancels, few correct digits remain.

    Examples
    --------
    >>> import fastact as fa
    >>> y = fa.softmax([0.0, 0.0])
    >>> fa.softmax_backward([1.0, 0.0], y)
    array([ 0.25, -0.25])
    """
    caller = "softmax_backward"
    g, y = as_array(caller, "grad_output", grad_output), as_array(caller, "output", output)
    result = common_type(caller, grad_output=g, output=y)
    if g.ndim == 0:
        raise ValueError(f"{caller}: grad_output must have at least one axis, got shape ()")
    _check_same_shape(caller, g, y)
    dtype = compute_dtype(result)
    g, y = convert.converted(g, dtype), convert.converted(y, dtype)

    def gradient() -> np.ndarray:
        total = (g * y).sum(axis, keepdims=True)
        return (g - total) * y  # type: ignore[no-any-return] # NumPy's stubs: Any

    return convert.converted(undisturbed(gradient), result)


def dense_backward(
    grad_output: ArrayLike,
    x: ArrayLike,
    W: ArrayLike,
    output: ArrayLike,
    activation: str | np.ufunc | None = "identity",
) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
    """Gradients with respect to the operands of a dense layer.

    Parameters
    ----------
    grad_output : array_like, shape (..., N)
        The gradient with respect to the output of the layer.
    x : array_like, shape (..., K)
        The input of the layer.
    W : array_like, shape (K, N)
        Its weights.
    output : array_like, shape (..., N)
        The result of ``dense(x, W, b, activation)``. This holds for all activations, also for
        softplus and step, although `softplus_backward` and `step_backward` use the input.
    activation : str, ufunc or None, optional
        As for :func:`fastact.dense`.

    Returns
    -------
    grad_x : ndarray, shape (..., K)
    grad_W : ndarray, shape (K, N)
    grad_b : ndarray, shape (N,)
        All have the common type of the operands, as for :func:`fastact.dense`: float16 (or
        bfloat16), float32 or float64. The 16-bit formats are computed in float32 and rounded
        once. If all operands are integers or bool, it is float64.

    Raises
    ------
    ValueError
        For shapes that do not match, an unknown activation, an activation whose derivative cannot
        be computed from its output, and masked arrays with masked elements.
    TypeError
        For complex, longdouble, string, datetime and object operands.

    Notes
    -----
    NumPy computes the products, so their bits depend on its BLAS. No floating-point warning is
    raised, the result does not depend on the calling thread's rounding mode and flush-to-zero
    setting, and its status flags stay unchanged. If the BLAS starts threads, each of them has its
    own floating-point environment, which this package does not set. At 0, the derivatives of relu
    and step are 0. The derivative of softplus is computed as 1 - exp(-output).

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
    given = {"grad_output": grad_output, "x": x, "W": W, "output": output}
    g, x, W, y = (as_array(caller, name, operand) for name, operand in given.items())
    name = activation_name(caller, activation)
    through(caller, name)
    check_weights(caller, W)
    check_input(caller, x, W.shape)
    shape = (*x.shape[:-1], W.shape[1])
    if g.shape != shape:
        raise ValueError(
            f"{caller}: grad_output must have shape {shape} to match x of shape {x.shape} and W of "
            f"shape {W.shape}, got shape {g.shape}"
        )
    _check_same_shape(caller, g, y)
    result = common_type(caller, grad_output=g, x=x, W=W, output=y)
    dtype = compute_dtype(result)
    g, x, W, y = (convert.converted(operand, dtype) for operand in (g, x, W, y))

    def gradients() -> tuple[np.ndarray, ...]:
        before = through(caller, name)(g, y)
        count = math.prod(x.shape[:-1])
        rows, inputs = before.reshape(count, W.shape[1]), x.reshape(count, W.shape[0])
        return before @ W.T, inputs.T @ rows, rows.sum(0)

    found = undisturbed(gradients)
    return tuple(convert.converted(gradient, result) for gradient in found)  # type: ignore[return-value] # three


_OF_ROWS = {"softmax": softmax_backward}


def through(caller: str, activation: str | None) -> Callable[..., Any]:
    """The function from gradient and output of an activation to the gradient of its input.

    ValueError for an activation whose output does not tell its derivative.
    """
    if activation is None:
        return lambda g, y: g
    if activation in _OF_ROWS:
        return _OF_ROWS[activation]
    declared = DERIVATIVES.get(activation)
    if declared is not None and declared.output_tells:
        of_output = declared.of_output
        return UFUNCS[declared.name] if of_output is None else lambda g, y: g * of_output(np, y)
    raise ValueError(
        f"{caller}: activation must have a derivative that its output tells, got {activation!r}, "
        + ("which has none" if declared is None else "whose derivative needs its input")
    )


def _check_same_shape(caller: str, g: np.ndarray, y: np.ndarray) -> None:
    if y.shape != g.shape:
        raise ValueError(
            f"{caller}: output must have the shape of grad_output, {g.shape}, got shape {y.shape}"
        )
