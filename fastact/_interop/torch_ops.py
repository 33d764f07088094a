"""Our functions as operators of PyTorch's dispatcher, for tensors without accessible memory.

torch.compile and torch.export trace with tensors that have no memory; torch.func and batched
gradients wrap tensors in others. All of them support operators, for which this module registers
shapes, gradients and batching rules. A call through the dispatcher takes longer.
"""

from collections.abc import Callable, Sequence
from typing import Any, NoReturn

import numpy as np

from fastact._declarations import row_gradients
from fastact._declarations.records import DERIVATIVES, ROW_DERIVATIVES
from fastact._dense import backward, layers
from fastact._functions import ROW_GRADIENTS, UFUNCS
from fastact._interop.extras import require

torch: Any = require("torch", "torch")

from torch._functorch.utils import enable_single_level_autograd_function  # noqa: E402
from torch.autograd import forward_ad  # noqa: E402

_Dims = tuple[int | None, ...]
"""For each argument, the dimension that vmap maps over; None if it is not batched."""

_PLAIN = (torch.Tensor, torch.nn.Parameter)
_LIBRARY = torch.library.Library("fastact", "DEF")


def are_needed(*tensors: Any) -> bool:
    """Whether any of the tensors, or the context of the call, needs operators."""
    return (
        torch.compiler.is_compiling()
        or _are_transformed()
        or any(type(tensor) not in _PLAIN for tensor in tensors)
    )


def _are_transformed() -> bool:
    """Whether a transform of torch.func or forward-mode differentiation is active."""
    active: bool = torch._C._are_functorch_transforms_active()
    return active or forward_ad._current_level >= 0


def array(x: Any) -> np.ndarray:
    """An array over the memory of the tensor `x`."""
    x = x.detach().resolve_neg()
    if x.dtype == torch.bfloat16:
        return x.view(torch.int16).numpy(force=True).view(_bfloat16())  # type: ignore[no-any-return] # of torch
    # force=True also accepts zeros for which torch has allocated no memory.
    return x.numpy(force=True)  # type: ignore[no-any-return] # of torch


def tensor(x: Any) -> Any:
    """A tensor over the memory of the array `x`, or of the value of a NumPy scalar."""
    x = np.asarray(x)
    if x.dtype.name != "bfloat16":
        return torch.from_numpy(x)
    return torch.from_numpy(x.view(np.int16)).view(torch.bfloat16)


def _bfloat16() -> np.dtype:
    return np.dtype(require("ml_dtypes", "torch").bfloat16)  # type: ignore[no-any-return] # of ml_dtypes


def _operator(schema: str, like: Callable[..., Any], compute: Callable[..., Any]) -> Any:
    """Define the operator of `schema`; `like` returns empty tensors as results of `compute`."""
    _LIBRARY.define(schema)
    name = schema.partition("(")[0]
    _LIBRARY.impl(name, compute, "CPU")
    torch.library.register_fake(f"fastact::{name}", like, lib=_LIBRARY)
    return getattr(torch.ops.fastact, name).default


def _differentiable(operator: Any, function: type) -> None:
    """Let `function`, a ``torch.autograd.Function``, differentiate `operator`.

    Its first argument is `operator`. ``torch.library.register_autograd`` would do this too, but
    not for torch.func: there, forward mode silently returns 0 as the derivative.
    """
    apply = super(torch.autograd.Function, function).apply  # torch.func has already been handled

    def differentiable(*arguments: Any) -> Any:
        if not (torch.is_grad_enabled() or _are_transformed()):  # most backward passes
            with torch._C._AutoDispatchBelowAutograd():
                return operator(*arguments)
        with enable_single_level_autograd_function():
            return apply(operator, *arguments)

    _LIBRARY.impl(operator, differentiable, "Autograd")


def _below(operator: Any, *arguments: Any) -> Any:
    """Call `operator` from inside a ``torch.autograd.Function``.

    Such functions compute without derivatives. But inside nested transforms of torch.func, the
    outer ones stay active, and may differentiate the result again.
    """
    with (
        torch._C._AutoDispatchBelowAutograd(),
        torch.enable_grad(),
        forward_ad._set_fwd_grad_enabled(True),
    ):
        return operator(*arguments)


def _once(operator: Any, name_of: Callable[[Sequence[Any]], str]) -> None:
    """Make it an error to differentiate `operator`, which is a step of a backward pass."""

    class Once(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, operator: Callable[..., Any], *arguments: Any) -> Any:
            ctx.name = name_of(arguments)
            return _below(operator, *arguments)

        @staticmethod
        def backward(ctx: Any, *_: Any) -> NoReturn:
            raise NotImplementedError(
                f"fastact.torch.{ctx.name} can be differentiated once, not twice: the gradient of "
                "its gradient was requested"
            )

        jvp = backward

    _differentiable(operator, Once)


def _batched(operator: Any, rule: Callable[..., Any]) -> None:
    torch.library.register_vmap(operator, rule, lib=_LIBRARY)


def _in_front(info: Any, x: Any, dim: int | None) -> Any:
    """`x` with the dimension that vmap maps over as the first."""
    return x.expand(info.batch_size, *x.shape) if dim is None else x.movedim(dim, 0)


def _one_by_one(operator: Any) -> Callable[..., Any]:
    def rule(info: Any, in_dims: _Dims, *arguments: Any) -> Any:
        found = [
            operator(
                *(
                    argument if dim is None else argument.select(dim, i)
                    for argument, dim in zip(arguments, in_dims, strict=True)
                )
            )
            for i in range(info.batch_size)
        ]
        if isinstance(found[0], tuple):
            return tuple(map(torch.stack, zip(*found, strict=True))), (0,) * len(found[0])
        return torch.stack(found), 0

    return rule


# Element-wise.


def _compute(x: Any, name: str) -> Any:
    y = torch.empty_like(x)
    UFUNCS[name](array(x), out=array(y))
    return y


def _compute_backward(grad_output: Any, saved: Any, name: str) -> Any:
    gradient = torch.empty_like(saved)
    UFUNCS[DERIVATIVES[name].name](array(grad_output), array(saved), out=array(gradient))
    return gradient


element_wise = _operator(
    "element_wise(Tensor x, str name) -> Tensor", lambda x, name: torch.empty_like(x), _compute
)
element_wise_backward = _operator(
    "element_wise_backward(Tensor grad_output, Tensor saved, str name) -> Tensor",
    lambda grad_output, saved, name: torch.empty_like(saved),
    _compute_backward,
)


class _ElementWise(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, operator: Callable[..., Any], x: Any, name: str) -> Any:
        y = _below(operator, x, name)
        ctx.name = name
        saved = x if DERIVATIVES[name].saved == "input" else y
        ctx.save_for_backward(saved)
        ctx.save_for_forward(saved)
        return y

    @staticmethod
    def backward(ctx: Any, grad_output: Any) -> Any:
        return None, element_wise_backward(grad_output, *ctx.saved_tensors, ctx.name), None

    @staticmethod
    def jvp(ctx: Any, _: Any, tangent: Any, *__: Any) -> Any:  # the Jacobian is diagonal
        return element_wise_backward(tangent, *ctx.saved_tensors, ctx.name)


_differentiable(element_wise, _ElementWise)
_once(element_wise_backward, lambda inputs: inputs[-1])
_batched(element_wise, lambda info, in_dims, x, name: (element_wise(x, name), in_dims[0]))


def _batched_backward(info: Any, in_dims: _Dims, grad_output: Any, saved: Any, name: str) -> Any:
    grad_output, saved = (
        _in_front(info, grad_output, in_dims[0]),
        _in_front(info, saved, in_dims[1]),
    )
    return element_wise_backward(grad_output, saved, name), 0


_batched(element_wise_backward, _batched_backward)

# Of whole rows.


def _compute_rows(x: Any, name: str, dim: int) -> Any:
    y = torch.empty_like(x)
    UFUNCS[name](array(x), out=array(y), axis=dim)
    return y


def _compute_rows_backward(grad_output: Any, output: Any, name: str, dim: int) -> Any:
    derivative = ROW_GRADIENTS[ROW_DERIVATIVES[name].name]
    return tensor(derivative(array(grad_output), array(output), axis=dim)).contiguous()


def _compute_rows_tangent(tangent: Any, output: Any, name: str, dim: int) -> Any:
    declared = ROW_DERIVATIVES[name]
    found = row_gradients.tangent(declared, array(tangent), array(output), dim)
    return tensor(found).contiguous()


row_wise = _operator(
    "row_wise(Tensor x, str name, int dim) -> Tensor",
    lambda x, name, dim: torch.empty_like(x),
    _compute_rows,
)
row_wise_backward = _operator(
    "row_wise_backward(Tensor grad_output, Tensor output, str name, int dim) -> Tensor",
    lambda grad_output, output, name, dim: output.new_empty(output.shape),
    _compute_rows_backward,
)
row_wise_tangent = _operator(
    "row_wise_tangent(Tensor tangent, Tensor output, str name, int dim) -> Tensor",
    lambda tangent, output, name, dim: output.new_empty(output.shape),
    _compute_rows_tangent,
)


class _RowWise(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, operator: Callable[..., Any], x: Any, name: str, dim: int) -> Any:
        y = _below(operator, x, name, dim)
        ctx.options = name, dim
        ctx.save_for_backward(y)
        ctx.save_for_forward(y)
        return y

    @staticmethod
    def backward(ctx: Any, grad_output: Any) -> Any:
        gradient = row_wise_backward(grad_output, *ctx.saved_tensors, *ctx.options)
        return None, gradient, None, None

    @staticmethod
    def jvp(ctx: Any, _: Any, tangent: Any, *__: Any) -> Any:
        return row_wise_tangent(tangent, *ctx.saved_tensors, *ctx.options)


def _inner(name: str, dim: int, ndim: int) -> int:
    """The axis `dim` of tensors with `ndim` axes, counted after the axis of the batch."""
    if not -ndim <= dim < ndim:
        raise IndexError(f"{name}: dim must be an axis of a tensor of {ndim} axes, got {dim}")
    return dim % ndim + 1


def _batched_rows(info: Any, in_dims: _Dims, x: Any, name: str, dim: int) -> Any:
    return row_wise(x.movedim(in_dims[0], 0), name, _inner(name, dim, x.ndim - 1)), 0


def _batched_with_output(operator: Any) -> Callable[..., Any]:
    def rule(info: Any, in_dims: _Dims, first: Any, output: Any, name: str, dim: int) -> Any:
        first, output = _in_front(info, first, in_dims[0]), _in_front(info, output, in_dims[1])
        return operator(first, output, name, _inner(name, dim, output.ndim - 1)), 0

    return rule


_differentiable(row_wise, _RowWise)
_batched(row_wise, _batched_rows)
for _operation in (row_wise_backward, row_wise_tangent):
    _once(_operation, lambda inputs: inputs[2])
    _batched(_operation, _batched_with_output(_operation))

# Layers.


def _compute_dense(x: Any, W: Any, b: Any, activation: str | None) -> Any:
    bias = None if b is None else array(b)
    return tensor(layers.dense(array(x), array(W), bias, activation))


def _compute_dense_backward(
    grad_output: Any, x: Any, W: Any, y: Any, activation: str | None
) -> Any:
    found = backward.dense_backward(array(grad_output), array(x), array(W), array(y), activation)
    return tuple(tensor(gradient).contiguous() for gradient in found)


def _like_dense_backward(grad_output: Any, x: Any, W: Any, y: Any, activation: str | None) -> Any:
    return x.new_empty(x.shape), W.new_empty(W.shape), W.new_empty(W.shape[1:])


dense = _operator(
    "dense(Tensor x, Tensor W, Tensor? b, str? activation) -> Tensor",
    lambda x, W, b, activation: x.new_empty((*x.shape[:-1], W.shape[1])),
    _compute_dense,
)
dense_backward = _operator(
    "dense_backward(Tensor grad_output, Tensor x, Tensor W, Tensor y, str? activation)"
    " -> (Tensor, Tensor, Tensor)",
    _like_dense_backward,
    _compute_dense_backward,
)


class _Dense(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, operator: Callable[..., Any], x: Any, W: Any, b: Any, activation: str | None
    ) -> Any:
        y = _below(operator, x, W, b, activation)
        ctx.activation, ctx.has_bias = activation, b is not None
        ctx.save_for_backward(x, W, y)
        return y

    @staticmethod
    def backward(ctx: Any, grad_output: Any) -> Any:
        grad_x, grad_W, grad_b = dense_backward(grad_output, *ctx.saved_tensors, ctx.activation)
        return None, grad_x, grad_W, grad_b if ctx.has_bias else None, None

    @staticmethod
    def jvp(ctx: Any, *_: Any) -> NoReturn:
        raise NotImplementedError(
            "fastact.torch.dense has no forward-mode derivative; use reverse mode, as "
            "torch.func.vjp and jacrev do"
        )


def _batched_dense(
    info: Any, in_dims: _Dims, x: Any, W: Any, b: Any, activation: str | None
) -> Any:
    if in_dims[1:] == (None,) * 3:  # more rows for the same weights
        return dense(x.movedim(in_dims[0], 0), W, b, activation), 0
    return _one_by_one(dense)(info, in_dims, x, W, b, activation)


_differentiable(dense, _Dense)
_once(dense_backward, lambda inputs: "dense")
_batched(dense, _batched_dense)
_batched(dense_backward, _one_by_one(dense_backward))
