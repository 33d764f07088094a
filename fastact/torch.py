"""PyTorch: activations and dense layers with gradients, for tensors on the CPU.

Every function here has the name of its ufunc: ``fastact.torch.sigmoid(t)``. Tensors are neither
copied nor converted: the ufuncs compute on NumPy arrays that share their memory, for bfloat16 with
the dtype of ml_dtypes. Calls that ``torch.compile`` traces, and tensors without accessible memory,
use the operators of ``_interop/torch_ops.py``.
"""

from collections.abc import Callable
from typing import Any

import numpy as np

from fastact._declarations.records import DERIVATIVES, ROW_DERIVATIVES
from fastact._dense import backward, layers
from fastact._functions import UFUNCS
from fastact._interop import torch_ops
from fastact._interop.torch_ops import array as _array
from fastact._interop.torch_ops import tensor as _tensor
from fastact._interop.torch_ops import torch
from fastact._interop.versions import warn_unless_tested

TESTED = ((2, 13), (2, 14))
"""The tested versions of PyTorch: from the first to below the second."""

warn_unless_tested("PyTorch", torch.__version__, *TESTED)

__all__ = ["dense", *DERIVATIVES, *ROW_DERIVATIVES]

_DTYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


# Where operators are not needed, these functions take half of their time.
class _Unary(torch.autograd.Function):
    """An activation: `function(array, out)`, whose gradient is ``derivative(gradient, saved)``."""

    @staticmethod
    def forward(
        ctx: Any, function: Callable[..., Any], saves: str, derivative: Callable[..., Any], x: Any
    ) -> Any:
        y = torch.empty_like(x)
        function(_array(x), out=_array(y))
        ctx.derivative = derivative
        ctx.save_for_backward(x if saves == "input" else y)
        return y

    @staticmethod
    def backward(ctx: Any, grad_output: Any) -> Any:
        return None, None, None, ctx.derivative(grad_output, *ctx.saved_tensors)


class _Dense(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, activation: str | None, x: Any, W: Any, b: Any) -> Any:
        y = _tensor(
            layers.dense(_array(x), _array(W), None if b is None else _array(b), activation)
        )
        ctx.activation = activation
        ctx.has_bias = b is not None
        ctx.save_for_backward(x, W, y)
        return y

    @staticmethod
    def backward(ctx: Any, grad_output: Any) -> Any:
        grad_x, grad_W, grad_b = torch_ops.dense_backward(
            grad_output, *ctx.saved_tensors, ctx.activation
        )
        return None, grad_x, grad_W, grad_b if ctx.has_bias else None


def dense(x: Any, W: Any, b: Any = None, activation: str | np.ufunc | None = "identity") -> Any:
    """``activation(x @ W + b)`` in one pass, differentiable with respect to `x`, `W` and `b`.

    Parameters
    ----------
    x : Tensor, shape (..., K)
        One row or many. All tensors must be on the CPU and of one type.
    W : Tensor, shape (K, N)
        The weights. For an ``nn.Linear``, pass ``linear.weight.T``.
    b : Tensor, shape (N,), optional
        The bias. Default is no bias.
    activation : str, ufunc or None, optional
        As for :func:`fastact.dense`.

    Returns
    -------
    Tensor, shape (..., N)

    Raises
    ------
    TypeError
        For anything but tensors of one type: float16, bfloat16, float32 or float64.
    ValueError
        For tensors that are not on the CPU, shapes that do not match, and an unknown activation.
    NotImplementedError
        If it is differentiated twice, or in forward mode (``torch.func.jvp``).

    Examples
    --------
    >>> import torch, fastact.torch
    >>> x, W = torch.ones(1, 2), torch.ones(2, 3, requires_grad=True)
    >>> fastact.torch.dense(x, W, activation="relu").sum().backward()
    >>> W.grad.shape
    torch.Size([2, 3])
    """
    for key, operand in {"x": x, "W": W, "b": b}.items():
        if key != "b" or operand is not None:
            _check("dense", key, operand)
            if operand.dtype != x.dtype:
                raise TypeError(
                    f"dense: {key} must have the dtype of x, {x.dtype}, got {operand.dtype}"
                )
    name = _activation_name(activation)
    backward.through("dense", name)  # an error here, not in the backward pass
    if torch_ops.are_needed(x, W, *([] if b is None else [b])):
        return torch_ops.dense(x, W, b, name)
    return _Dense.apply(name, x, W, b)


def _activation_name(activation: Any) -> str | None:
    # torch.compile traces this, and would warn about the cached functions of `layers`.
    for name in (*DERIVATIVES, *ROW_DERIVATIVES):
        if activation is UFUNCS[name]:
            return name
        if isinstance(activation, str) and activation == name:
            return name
    return layers.activation_name("dense", activation)


_DOCSTRING = """{summary}

Parameters
----------
x : Tensor
    float16, bfloat16, float32 or float64, on the CPU, with any strides.{more}

Returns
-------
Tensor
    Has the type and shape of `x`.

Raises
------
TypeError
    For anything but tensors of these types.
ValueError
    For tensors that are not on the CPU.
NotImplementedError
    If it is differentiated twice.

Notes
-----
Values are those of :obj:`fastact.{name}`, gradients those of :obj:`fastact.{name}_backward`.

Examples
--------
>>> import torch, fastact.torch
>>> x = torch.zeros(3, requires_grad=True)
>>> fastact.torch.{name}(x).sum().backward()
>>> x.grad.shape
torch.Size([3])"""

_DIM = """
dim : int, optional
    The axis along which the rows lie. Default is the last axis."""


def _element_wise(name: str) -> Callable[..., Any]:
    function, saved = UFUNCS[name], DERIVATIVES[name].saved

    def differentiable(x: Any) -> Any:
        _check(name, "x", x)
        if torch_ops.are_needed(x):
            return torch_ops.element_wise(x, name)
        return _Unary.apply(function, saved, back, x)

    def back(g: Any, saved: Any) -> Any:
        return torch_ops.element_wise_backward(g, saved, name)

    return _named(differentiable, name, f"The ufunc ``{name}`` for tensors, element-wise.", "")


def _row_wise(name: str) -> Callable[..., Any]:
    function = UFUNCS[name]

    def differentiable(x: Any, dim: int = -1) -> Any:
        _check(name, "x", x)
        if torch_ops.are_needed(x):
            return torch_ops.row_wise(x, name, dim)

        def along(x: Any, out: Any) -> Any:
            return function(x, out=out, axis=dim)

        def back(g: Any, y: Any) -> Any:
            return torch_ops.row_wise_backward(g, y, name, dim)

        return _Unary.apply(along, "output", back, x)

    return _named(differentiable, name, f"The ufunc ``{name}`` for tensors, along an axis.", _DIM)


def _named(function: Callable[..., Any], name: str, summary: str, more: str) -> Callable[..., Any]:
    function.__name__ = function.__qualname__ = name
    function.__doc__ = _DOCSTRING.format(name=name, summary=summary, more=more)
    return function


def _check(caller: str, name: str, x: Any) -> None:
    expected = f"{caller}: {name} must be a tensor of float16, bfloat16, float32 or float64"
    if not isinstance(x, torch.Tensor):
        raise TypeError(f"{expected}, got {type(x).__name__}")
    if x.dtype not in _DTYPES:
        raise TypeError(f"{expected}, got {x.dtype}")
    if x.device.type != "cpu":
        raise ValueError(
            f"{caller}: {name} must be on the CPU, got a tensor on {x.device}; "
            f"{name}.cpu() moves it"
        )
    if x.layout != torch.strided or x.is_nested:
        layout = "nested" if x.is_nested else x.layout
        raise ValueError(f"{caller}: {name} must be dense, got a tensor of layout {layout}")


globals().update({name: _element_wise(name) for name in DERIVATIVES})
globals().update({name: _row_wise(name) for name in ROW_DERIVATIVES})
