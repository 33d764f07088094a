"""PyTorch: activations and dense layers that its autograd differentiates, for tensors on the CPU.

Every function here has the name of its ufunc: ``fastact.torch.sigmoid(t)``. Tensors are neither
copied nor converted on the way: NumPy arrays over the same memory go to the ufunc, and bfloat16 by
way of ml_dtypes.

A call is an ``autograd.Function``. What ``torch.compile`` traces, and what has no memory to read,
goes to custom operators of the same functions, which PyTorch leaves alone until there are values.
"""

import functools
from collections.abc import Callable
from typing import Any

import numpy as np

from . import activations, backward, layers
from ._declare import DERIVATIVES, ROW_ACTIVATIONS
from ._extras import require
from ._versions import warn_unless_tested

torch = require("torch", "torch")

TESTED = ((2, 13), (2, 14))
"""The versions of PyTorch that this was tested with: from the first, below the second."""

warn_unless_tested("PyTorch", torch.__version__, *TESTED)

__all__ = ["dense", *DERIVATIVES, *ROW_ACTIVATIONS]

_DTYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


# What is computed. Results are new, and those of an operator have strides that are known before.


def _activation(x: torch.Tensor, name: str, dim: int) -> torch.Tensor:
    y = torch.empty_like(x)
    _FUNCTIONS[name](_array(x), out=_array(y), **_axis(name, dim))
    return y


def _activation_backward(
    grad: torch.Tensor, saved: torch.Tensor, name: str, dim: int
) -> torch.Tensor:
    return _tensor(_DERIVATIVES[name](_array(grad), _array(saved), **_axis(name, dim)))


def _dense(
    x: torch.Tensor, W: torch.Tensor, b: torch.Tensor | None, activation: str | None
) -> torch.Tensor:
    return _tensor(layers.dense(_array(x), _array(W), None if b is None else _array(b), activation))


def _dense_backward(
    grad: torch.Tensor, x: torch.Tensor, W: torch.Tensor, y: torch.Tensor, activation: str | None
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    found = backward.dense_backward(*map(_array, (grad, x, W, y)), activation)
    return tuple(map(_tensor, found))


_FUNCTIONS = {name: getattr(activations, name) for name in [*DERIVATIVES, *ROW_ACTIVATIONS]}
_DERIVATIVES = {
    **{name: getattr(activations, declared.name) for name, declared in DERIVATIVES.items()},
    **{name: getattr(backward, f"{name}_backward") for name in ROW_ACTIVATIONS},
}


def _axis(name: str, dim: int) -> dict[str, int]:
    return {"axis": dim} if name in ROW_ACTIVATIONS else {}


def _saves_input(name: str) -> bool:
    return name in DERIVATIVES and DERIVATIVES[name].saved == "input"


# How it is differentiated and mapped over batches.


def _refuse_twice(name: str) -> None:
    raise NotImplementedError(
        f"fastact.torch.{name} can be differentiated once, not twice: the gradient of its "
        "gradient was asked for"
    )


def _first(x: Any, axis: int | None, size: int) -> Any:
    """The tensor `x` with the axis of a batch in front, also if it has none."""
    return x.expand(size, *x.shape) if axis is None else x.movedim(axis, 0)


def _inner(x: Any, name: str, dim: int) -> int:
    """`dim` of an element of the batch `x`, as an axis of `x`."""
    if name not in ROW_ACTIVATIONS:
        return dim
    ndim = x.ndim - 1
    if not -ndim <= dim < ndim:
        raise IndexError(f"{name}: dim must be an axis of a tensor of {ndim} axes, got {dim}")
    return dim % ndim + 1


def _one_by_one(function: Any, size: int, axes: Any, tensors: Any, activation: str | None) -> list:
    """What `function` gives for each element of a batch."""
    return [
        function(
            *(t if a is None else t.select(a, i) for t, a in zip(tensors, axes, strict=True)),
            activation,
        )
        for i in range(size)
    ]


class _ActivationBackward(torch.autograd.Function):
    @staticmethod
    def forward(grad, saved, name, dim):
        operator = _activation_backward_operator if _legacy(grad, saved) else _activation_backward
        return operator(grad, saved, name, dim)

    @staticmethod
    def setup_context(ctx, inputs, output):
        ctx.name = inputs[2]

    @staticmethod
    def backward(ctx, *_):
        _refuse_twice(ctx.name)

    jvp = backward

    @staticmethod
    def vmap(info, axes, grad, saved, name, dim):
        grad, saved = (
            _first(t, a, info.batch_size) for t, a in ((grad, axes[0]), (saved, axes[1]))
        )
        return _ActivationBackward.apply(grad, saved, name, _inner(saved, name, dim)), 0


class _Activation(torch.autograd.Function):
    @staticmethod
    def forward(x, name, dim):
        return _activation(x, name, dim)

    @staticmethod
    def setup_context(ctx, inputs, output):
        x, ctx.name, ctx.dim = inputs
        saved = x if _saves_input(ctx.name) else output
        ctx.save_for_backward(saved)
        ctx.save_for_forward(saved)

    @staticmethod
    def backward(ctx, grad):
        return _apply_activation_backward(grad, *ctx.saved_tensors, ctx.name, ctx.dim), None, None

    @staticmethod
    def jvp(ctx, tangent, *_):  # all Jacobians are symmetric
        return _apply_activation_backward(tangent, *ctx.saved_tensors, ctx.name, ctx.dim)

    @staticmethod
    def vmap(info, axes, x, name, dim):
        x = x.movedim(axes[0], 0)
        return _Activation.apply(x, name, _inner(x, name, dim)), 0


class _DenseBackward(torch.autograd.Function):
    @staticmethod
    def forward(grad, x, W, y, activation):
        operator = _dense_backward_operator if _legacy(grad, x, W, y) else _dense_backward
        return operator(grad, x, W, y, activation)

    @staticmethod
    def setup_context(ctx, inputs, output):
        pass

    @staticmethod
    def backward(ctx, *_):
        _refuse_twice("dense")

    jvp = backward

    @staticmethod
    def vmap(info, axes, grad, x, W, y, activation):
        found = _one_by_one(
            _DenseBackward.apply, info.batch_size, axes[:4], (grad, x, W, y), activation
        )
        return tuple(map(torch.stack, zip(*found, strict=True))), (0, 0, 0)


class _Dense(torch.autograd.Function):
    @staticmethod
    def forward(x, W, b, activation):
        return _dense(x, W, b, activation)

    @staticmethod
    def setup_context(ctx, inputs, output):
        x, W, b, ctx.activation = inputs
        ctx.has_bias = b is not None
        ctx.save_for_backward(x, W, output)

    @staticmethod
    def backward(ctx, grad):
        grad_x, grad_W, grad_b = _apply_dense_backward(grad, *ctx.saved_tensors, ctx.activation)
        return grad_x, grad_W, grad_b if ctx.has_bias else None, None

    @staticmethod
    def jvp(ctx, *_):
        raise NotImplementedError(
            "fastact.torch.dense has no forward-mode derivative; use reverse mode, as "
            "torch.func.vjp and jacrev do"
        )

    @staticmethod
    def vmap(info, axes, x, W, b, activation):
        if axes[1] is axes[2] is None:
            return _Dense.apply(x.movedim(axes[0], 0), W, b, activation), 0
        found = _one_by_one(_Dense.apply, info.batch_size, axes[:3], (x, W, b), activation)
        return torch.stack(found), 0


def _legacy(*tensors: Any) -> bool:
    """Whether one is a batch of gradients (``is_grads_batched``), which only operators map over."""
    return any(map(torch._C._functorch.is_legacy_batchedtensor, tensors))


def _plain(function: Any) -> Any:
    """`function` as PyTorch calls it fastest, but not within the transforms of ``torch.func``."""

    class Plain(torch.autograd.Function):
        @staticmethod
        def forward(ctx, *inputs):
            output = function.forward(*inputs)
            function.setup_context(ctx, inputs, output)
            return output

        backward = staticmethod(function.backward)
        jvp = staticmethod(function.jvp)

    def apply(*operands):
        if torch._C._are_functorch_transforms_active():
            return function.apply(*operands)
        return Plain.apply(*operands)

    return apply


_apply_activation, _apply_activation_backward = _plain(_Activation), _plain(_ActivationBackward)
_apply_dense, _apply_dense_backward = _plain(_Dense), _plain(_DenseBackward)


# Operators. What `register_fake` says of a result, of its strides too, must be so.


def _operator(function: Callable, contiguous: bool = True) -> Any:
    @functools.wraps(function)
    def strided(*operands):
        found = function(*operands)
        if isinstance(found, tuple):
            return tuple(t.contiguous() for t in found)
        return found.contiguous() if contiguous else found

    return torch.library.custom_op(f"fastact::{function.__name__[1:]}", strided, mutates_args=())


_activation_operator = _operator(_activation, contiguous=False)
_activation_backward_operator = _operator(_activation_backward)
_dense_operator = _operator(_dense)
_dense_backward_operator = _operator(_dense_backward)


@_activation_operator.register_fake
def _(x, name, dim):
    return torch.empty_like(x)


@_activation_backward_operator.register_fake
def _(grad, saved, name, dim):
    return saved.new_empty(saved.shape)


@_dense_operator.register_fake
def _(x, W, b, activation):
    return x.new_empty((*x.shape[:-1], W.shape[1]))


@_dense_backward_operator.register_fake
def _(grad, x, W, y, activation):
    return x.new_empty(x.shape), W.new_empty(W.shape), W.new_empty(W.shape[1:])


def _differentiate_activation(ctx, grad):
    return _activation_backward_operator(grad, *ctx.saved_tensors, ctx.name, ctx.dim), None, None


def _differentiate_dense(ctx, grad):
    found = _dense_backward_operator(grad, *ctx.saved_tensors, ctx.activation)
    return found[0], found[1], found[2] if ctx.has_bias else None, None


_activation_operator.register_autograd(
    _differentiate_activation, setup_context=_Activation.setup_context
)
_activation_backward_operator.register_autograd(
    _ActivationBackward.backward, setup_context=_ActivationBackward.setup_context
)
_dense_operator.register_autograd(_differentiate_dense, setup_context=_Dense.setup_context)
_dense_backward_operator.register_autograd(
    _DenseBackward.backward, setup_context=_DenseBackward.setup_context
)


@torch.compiler.assume_constant_result  # not traced, as what it calls keeps results
def _dense_name(activation: Any) -> str | None:
    name = layers.activation_name("dense", activation)
    backward.through("dense", name)  # or gradients would be refused when it is too late
    return name


def dense(x: Any, W: Any, b: Any = None, activation: str | np.ufunc | None = "identity") -> Any:
    """``activation(x @ W + b)`` in one pass, differentiable by `x`, `W` and `b`.

    Parameters
    ----------
    x : Tensor, shape (..., K)
        On the CPU, as all others.
    W : Tensor, shape (K, N)
        Of the type of `x`. For an ``nn.Linear``, ``linear.weight.T``.
    b : Tensor, shape (N,), optional
        The bias; none by default.
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
        For tensors elsewhere than on the CPU, shapes that do not fit each other, and an unknown
        activation.
    NotImplementedError
        When it is differentiated twice, or in forward mode (``torch.func.jvp``).
    """
    for key, operand in {"x": x, "W": W, "b": b}.items():
        if key != "b" or operand is not None:
            _check("dense", key, operand)
            if operand.dtype != x.dtype:
                raise TypeError(
                    f"dense: {key} must have the dtype of x, {x.dtype}, got {operand.dtype}"
                )
    apply = _dense_operator if torch.compiler.is_compiling() else _apply_dense
    return apply(x, W, b, _dense_name(activation))


_DOCSTRING = """{summary}

Parameters
----------
x : Tensor
    float16, bfloat16, float32 or float64, on the CPU, of any strides.{more}

Returns
-------
Tensor
    Of the type and shape of `x`.

Raises
------
TypeError
    For anything but such tensors.
ValueError
    For tensors elsewhere than on the CPU.
NotImplementedError
    When it is differentiated twice.

Notes
-----
Values are those of :obj:`fastact.{name}`, gradients those of :obj:`fastact.{name}_backward`."""

_DIM = """
dim : int, optional
    The axis along which results add up to 1; the last by default."""


def _apply(name: str, x: Any, dim: int) -> Any:
    _check(name, "x", x)
    apply = _activation_operator if torch.compiler.is_compiling() else _apply_activation
    return apply(x, name, dim)


def _element_wise(name: str) -> Callable[..., Any]:
    def differentiable(x):
        return _apply(name, x, -1)

    return _named(differentiable, name, "Element-wise, as the ufunc of this name.", "")


def _row_wise(name: str) -> Callable[..., Any]:
    def differentiable(x, dim=-1):
        return _apply(name, x, dim)

    return _named(differentiable, name, "Along an axis, as the ufunc of this name.", _DIM)


def _named(function: Callable, name: str, summary: str, more: str) -> Callable[..., Any]:
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


def _array(x: Any) -> np.ndarray:
    """An array over the memory of the tensor `x`."""
    x = x.detach().resolve_neg()
    if x.dtype == torch.bfloat16:
        return x.view(torch.int16).numpy(force=True).view(_bfloat16())
    return x.numpy(force=True)  # also what torch knows to be zero and has no memory for


def _tensor(x: Any) -> Any:
    """A tensor over the memory of the array `x`, or of the value of a NumPy scalar."""
    x = np.asarray(x)
    if x.dtype.name != "bfloat16":
        return torch.from_numpy(x)
    return torch.from_numpy(x.view(np.int16)).view(torch.bfloat16)


def _bfloat16() -> np.dtype:
    return np.dtype(require("ml_dtypes", "torch").bfloat16)


globals().update({name: _element_wise(name) for name in DERIVATIVES})
globals().update({name: _row_wise(name) for name in ROW_ACTIVATIONS})
