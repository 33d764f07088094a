"""PyTorch: activations and dense layers with gradients, for tensors on the CPU.

Every function here has the name of its ufunc: ``fastact.torch.sigmoid(t)``. Tensors are neither
copied nor converted: the ufuncs compute on NumPy arrays that share their memory, for bfloat16 with
the dtype of ml_dtypes. Calls that ``torch.compile`` traces, and tensors without accessible memory,
use the operators of ``_interop/torch_ops.py``.
"""

import inspect
from collections.abc import Callable, Sequence
from numbers import Real
from typing import Any

import numpy as np

from fastact._declarations.declare import ufunc_of
from fastact._declarations.records import (
    ACTIVATIONS,
    DERIVATIVES,
    REDUCTION_DERIVATIVES,
    ROW_DERIVATIVES,
    derivative_of,
)
from fastact._dense.activated import IDENTITY, chosen, known
from fastact._functions import UFUNCS
from fastact._interop import torch_ops
from fastact._interop.torch_ops import array as _array
from fastact._interop.torch_ops import torch
from fastact._interop.versions import warn_unless_tested

TESTED = ((2, 13), (2, 14))
"""The tested versions of PyTorch: from the first to below the second."""

warn_unless_tested("PyTorch", torch.__version__, *TESTED)

__all__ = ["dense", *DERIVATIVES, *ROW_DERIVATIVES, *REDUCTION_DERIVATIVES]

_DTYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


# Where operators are not needed, these functions take half of their time.
class _Unary(torch.autograd.Function):
    """An activation: `function(array, out)`, whose gradient is ``derivative(gradient, saved)``."""

    @staticmethod
    def forward(
        ctx: Any, function: Callable[..., Any], saves: str, derivative: Callable[..., Any], x: Any
    ) -> Any:
        y = _computed(function, x)
        ctx.derivative = derivative
        ctx.save_for_backward(x if saves == "input" else y)
        return y

    @staticmethod
    def backward(ctx: Any, grad_output: Any) -> Any:
        return None, None, None, ctx.derivative(grad_output, *ctx.saved_tensors)


def _computed(function: Callable[..., Any], x: Any) -> Any:
    y = torch.empty_like(x)
    function(_array(x), out=_array(y))
    return y


def _applied(function: Callable[..., Any], saves: str, back: Callable[..., Any], x: Any) -> Any:
    if torch.is_grad_enabled() and x.requires_grad:
        return _Unary.apply(function, saves, back, x)
    return _computed(function, x)


def dense(
    x: Any,
    W: Any,
    b: Any = None,
    activation: str | np.ufunc | tuple[Any, ...] | None = "identity",
) -> Any:
    """``activation(x @ W + b)`` in one pass, differentiable with respect to all tensors.

    Parameters
    ----------
    x : Tensor, shape (..., K)
        One row or many. All tensors must be on the CPU and of one type.
    W : Tensor, shape (K, N)
        The weights. For an ``nn.Linear``, pass ``linear.weight.T``.
    b : Tensor, shape (N,), optional
        The bias. Default is no bias.
    activation : str, ufunc, tuple or None, optional
        As for :func:`fastact.dense`. The parameter in a pair of a function and a parameter may be
        a tensor of shape () or (N,), which is differentiated, too.

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

    Notes
    -----
    The input of the activation is kept only if a gradient is required and its derivative needs it.

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
            _check_dtype("dense", key, operand, x.dtype)
    name, parameter = _activation(activation, x.dtype, W.shape[-1:])
    given = [operand for operand in (x, W, b, parameter) if operand is not None]
    if torch_ops.are_needed(*given):
        return torch_ops.dense(x, W, b, parameter, name)
    if torch.is_grad_enabled() and any(operand.requires_grad for operand in given):
        return torch_ops.Dense.apply(torch_ops.compute_dense, x, W, b, parameter, name)
    y, _ = torch_ops.compute_dense(x, W, b, parameter, name)
    return y


# torch.compile traces the following, and would warn about cached functions.
_LAYERS = {name: (ufunc_of(name), [*getattr(known()[name], "parameters", ())]) for name in known()}


def _activation(activation: Any, dtype: Any, columns: Any) -> tuple[str | None, Any]:
    """The name of an activation, and the tensor of its parameter, or None."""
    given: tuple[Any, ...] = ()
    function = activation
    if isinstance(activation, tuple) and activation:
        function, *rest = activation
        given = tuple(rest)
    if not given and (function is None or (isinstance(function, str) and function == IDENTITY)):
        return None, None
    for name, (ufunc, expected) in _LAYERS.items():
        is_it = function == name if isinstance(function, str) else function is ufunc
        if is_it and len(given) == len(expected) and derivative_of(name) is not None:
            pairs = zip(expected, given, strict=True)
            parameters = [_layer_parameter(key, value, dtype, columns) for key, value in pairs]
            return name, parameters[0] if parameters else None
    found = chosen("dense", activation)  # which says what is wrong
    raise ValueError(f"dense: activation must have a derivative, got {found}, which has none")


def _layer_parameter(key: str, value: Any, dtype: Any, columns: Any) -> Any:
    parameter = _parameter("dense", key, value, dtype)
    if parameter.shape not in ((), columns):
        raise ValueError(
            f"dense: {key} must be a number or have shape {tuple(columns)}, as many as W has "
            f"columns, got shape {tuple(parameter.shape)}"
        )
    return parameter


def _parameter(caller: str, key: str, value: Any, dtype: Any) -> Any:
    """A parameter as a tensor."""
    if isinstance(value, Real):
        return torch.scalar_tensor(value, dtype=dtype, device="cpu")
    _check(caller, key, value, "a number or a tensor")
    _check_dtype(caller, key, value, dtype)
    return value


_DOCSTRING = """{summary}

Parameters
----------
{parameters}

Returns
-------
Tensor
    {result}

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
Values are those of :obj:`fastact.{name}`, gradients those of :obj:`fastact.{name}_backward`{more}.

Examples
--------
>>> import torch, fastact.torch
>>> {first} = torch.zeros(3, requires_grad=True)
>>> fastact.torch.{name}({call}).sum().backward()
>>> {first}.grad.shape
torch.Size([3])"""

_TENSOR = """{name} : Tensor
    float16, bfloat16, float32 or float64, on the CPU, with any strides."""

_PARAMETER = """{name} : Tensor or float
    A number, or a tensor of the type of the input that is broadcast with it."""

_DIM = """
dim : int, optional
    The axis along which the rows lie. Default is the last axis."""

_KEEPDIM = """
keepdim : bool, optional
    If True, the axis is kept, with length 1. Default is False."""


def _unary(name: str) -> Callable[..., Any]:
    function, saved = UFUNCS[name], DERIVATIVES[name].saved
    operator = torch_ops.FUNCTIONS[name]

    def differentiable(x: Any) -> Any:
        _check(name, "x", x)
        if torch_ops.are_needed(x):
            return operator(x, name)
        return _applied(function, saved, back, x)

    def back(g: Any, saved: Any) -> Any:
        return torch_ops.gradients(g, saved, name)

    summary = f"The ufunc ``{name}`` for tensors, element-wise."
    return _named(differentiable, name, summary, _TENSOR.format(name="x"))


def _of_several(name: str) -> Callable[..., Any]:
    declared = ACTIVATIONS[name]
    names, operator = declared.inputs, torch_ops.FUNCTIONS[name]
    is_parameter = [key in declared.parameters for key in names]
    count = len(names)

    def differentiable(*given: Any, **named: Any) -> Any:
        if named or len(given) != count:
            given = _in_order(name, names, given, named)
        first = given[0]
        _check(name, names[0], first)
        dtype = first.dtype
        operands = [first]
        for i in range(1, count):
            key, value = names[i], given[i]
            if is_parameter[i]:
                value = _parameter(name, key, value, dtype)
            else:
                _check(name, key, value)
                _check_dtype(name, key, value, dtype)
            operands.append(value)
        if torch_ops.are_needed(*operands):
            return operator(*operands, name)
        if torch.is_grad_enabled() and any(operand.requires_grad for operand in operands):
            return torch_ops.ElementWise.apply(torch_ops.compute, *operands, name)
        return torch_ops.compute(*operands, name)

    by_name = inspect.Parameter.POSITIONAL_OR_KEYWORD
    differentiable.__signature__ = inspect.Signature(  # type: ignore[attr-defined]
        [inspect.Parameter(key, by_name) for key in names]
    )
    parameters = (
        (_PARAMETER if key in declared.parameters else _TENSOR).format(name=key) for key in names
    )
    typical = [f"{values[0]}" for values in declared.parameters.values()]
    tensors = [key for key in names if key not in declared.parameters]
    return _named(
        differentiable,
        name,
        f"The ufunc ``{name}`` for tensors, element-wise.",
        "\n".join(parameters),
        f"Has the type of `{names[0]}`, and the shape to which the operands are broadcast.",
        ",\nsummed to the shapes of the operands",
        tensors[0],
        ", ".join([*tensors[:1] * len(tensors), *typical]),
    )


def _in_order(
    name: str, names: Sequence[str], given: Sequence[Any], named: dict[str, Any]
) -> tuple[Any, ...]:
    """Arguments by position, of which some are given by name."""
    found = dict(zip(names, given, strict=False)) | named
    if len(given) + len(named) != len(names) or [*sorted(found)] != sorted(names):
        raise TypeError(
            f"{name}: expected {', '.join(names)}, "
            f"got {', '.join([f'{len(given)} by position', *named])}"
        )
    return tuple(found[key] for key in names)


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

        return _applied(along, "output", back, x)

    summary = f"The ufunc ``{name}`` for tensors, along an axis."
    return _named(differentiable, name, summary, _TENSOR.format(name="x") + _DIM)


def _reducing(name: str) -> Callable[..., Any]:
    def differentiable(x: Any, dim: int = -1, keepdim: bool = False) -> Any:
        _check(name, "x", x)
        if torch_ops.are_needed(x):
            return torch_ops.reduced(x, name, dim, keepdim)
        if torch.is_grad_enabled() and x.requires_grad:
            return torch_ops.Reduced.apply(torch_ops.compute_reduced, x, name, dim, keepdim)
        return torch_ops.compute_reduced(x, name, dim, keepdim)

    return _named(
        differentiable,
        name,
        f"The ufunc ``{name}`` for tensors, along an axis.",
        _TENSOR.format(name="x") + _DIM + _KEEPDIM,
        "Has the type of `x`, and its shape without the axis.",
    )


def _named(
    function: Callable[..., Any],
    name: str,
    summary: str,
    parameters: str,
    result: str = "Has the type and shape of `x`.",
    more: str = "",
    first: str = "x",
    call: str = "x",
) -> Callable[..., Any]:
    function.__name__ = function.__qualname__ = name
    function.__doc__ = _DOCSTRING.format(
        name=name,
        summary=summary,
        parameters=parameters,
        result=result,
        more=more,
        first=first,
        call=call,
    )
    return function


def _check(caller: str, name: str, x: Any, what: str = "a tensor") -> None:
    expected = f"{caller}: {name} must be {what} of float16, bfloat16, float32 or float64"
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


def _check_dtype(caller: str, name: str, x: Any, dtype: Any) -> None:
    if x.dtype != dtype:
        raise TypeError(f"{caller}: {name} must have the dtype of x, {dtype}, got {x.dtype}")


globals().update({n: _unary(n) if ACTIVATIONS[n].nin == 1 else _of_several(n) for n in DERIVATIVES})
globals().update({name: _row_wise(name) for name in ROW_DERIVATIVES})
globals().update({name: _reducing(name) for name in REDUCTION_DERIVATIVES})
