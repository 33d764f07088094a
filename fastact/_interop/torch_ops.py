"""Our functions as operators of PyTorch's dispatcher, for tensors without accessible memory.

torch.compile and torch.export trace with tensors that have no memory; torch.func and batched
gradients wrap tensors in others. All of them support operators, for which this module registers
shapes, gradients and batching rules. A call through the dispatcher takes longer.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

import numpy as np

from fastact._declarations import row_gradients
from fastact._declarations.records import (
    ACTIVATIONS,
    DERIVATIVES,
    derivative_of,
    row_derivatives,
)
from fastact._dense import backward, layers
from fastact._dense.activated import Activated, known
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


def _differentiable(
    operator: Any, function: type, compute: Callable[..., Any] | None = None
) -> None:
    """Let `function`, a ``torch.autograd.Function``, differentiate `operator`.

    Its first argument is `compute`, by default a function that calls `operator`.
    ``torch.library.register_autograd`` would do this too, but not for torch.func: there, forward
    mode silently returns 0 as the derivative.
    """
    apply = super(torch.autograd.Function, function).apply  # torch.func has already been handled
    compute = compute or functools.partial(_below, operator)

    def differentiable(*arguments: Any) -> Any:
        if not (torch.is_grad_enabled() or _are_transformed()):  # most backward passes
            with torch._C._AutoDispatchBelowAutograd():
                return operator(*arguments)
        with enable_single_level_autograd_function():
            return apply(compute, *arguments)

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
        def forward(ctx: Any, compute: Callable[..., Any], *arguments: Any) -> Any:
            ctx.name = name_of(arguments)
            return compute(*arguments)

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


# Element-wise. There is an operator for each number of inputs, since PyTorch does not differentiate
# with respect to the tensors in a list.


def _empty(name: str, *operands: Any) -> Any:
    """An empty tensor for results, like the first operand that has the shape of them."""
    first, *others = operands
    if all(other.ndim == 0 or other.shape == first.shape for other in others):
        return torch.empty_like(first)
    shapes = [operand.shape for operand in operands]
    try:
        shape = torch.broadcast_shapes(*shapes)
    except RuntimeError:
        raise ValueError(
            f"{name}: operands must have shapes that can be broadcast, got "
            f"{', '.join(str(tuple(shape)) for shape in shapes)}"
        ) from None
    for operand in operands:
        if operand.shape == shape:
            return torch.empty_like(operand)
    return first.new_empty(shape)


def compute(*arguments: Any) -> Any:
    """The function whose name follows its operands."""
    *operands, name = arguments
    y = _empty(name, *operands)
    UFUNCS[name](*map(array, operands), out=array(y))
    return y


def _empty_gradients(grad_output: Any, *arguments: Any) -> Any:
    *saved, name = arguments
    results = DERIVATIVES[name].results
    found = tuple(_empty(name, *saved, grad_output) for _ in results)
    return found if len(results) > 1 else found[0]


def _compute_gradients(*arguments: Any) -> Any:
    *operands, name = arguments
    found = _empty_gradients(*arguments)
    out = tuple(map(array, found)) if isinstance(found, tuple) else array(found)
    UFUNCS[DERIVATIVES[name].name](*map(array, operands), out=out)
    return found


def _tensors(count: int) -> str:
    return ", ".join(f"Tensor x{i}" for i in range(count))


@functools.cache
def _of_inputs(count: int) -> Any:
    """The operator of functions with so many inputs."""
    name = f"element_wise_{count}"
    operator = _operator(
        f"{name}({_tensors(count)}, str name) -> Tensor",
        lambda *arguments: _empty(arguments[-1], *arguments[:-1]),
        compute,
    )
    _differentiable(operator, ElementWise)
    _batched(operator, _side_by_side(operator))
    return operator


@functools.cache
def _of_gradients(count: int, results: int) -> Any:
    """The operator of derivatives with so many inputs and results."""
    name = f"element_wise_backward_{count}_{results}"
    kind = "Tensor" if results == 1 else f"({', '.join(['Tensor'] * results)})"
    operator = _operator(
        f"{name}({_tensors(count)}, str name) -> {kind}", _empty_gradients, _compute_gradients
    )
    _once(operator, lambda inputs: inputs[-1])
    _batched(operator, _side_by_side(operator))
    return operator


def _side_by_side(operator: Any) -> Callable[..., Any]:
    """The rule for functions that broadcast: the batch becomes their first axis."""

    def rule(info: Any, in_dims: _Dims, *arguments: Any) -> Any:
        *operands, name = arguments
        dims = in_dims[: len(operands)]
        ndim = max(x.ndim - (dim is not None) for x, dim in zip(operands, dims, strict=True))
        aligned = [
            x if dim is None else _with_axes(x.movedim(dim, 0), ndim + 1)
            for x, dim in zip(operands, dims, strict=True)
        ]
        found = operator(*aligned, name)
        return found, (0,) * len(found) if isinstance(found, tuple) else 0

    return rule


def _with_axes(x: Any, ndim: int) -> Any:
    """`x` with axes of length 1 after its first, so that it has `ndim` in all."""
    return x.reshape(x.shape[0], *[1] * (ndim - x.ndim), *x.shape[1:]) if x.ndim < ndim else x


class ElementWise(torch.autograd.Function):
    """An activation of any number of inputs: ``compute(*inputs, name)``."""

    @staticmethod
    def forward(ctx: Any, compute: Callable[..., Any], *arguments: Any) -> Any:
        *inputs, name = arguments
        y = compute(*arguments)
        saved = DERIVATIVES[name].operands(inputs, y)
        ctx.set_materialize_grads(False)  # a derivative may be infinite, and times 0 it is NaN
        ctx.name, ctx.shapes, ctx.shape = name, [x.shape for x in inputs], y.shape
        ctx.save_for_backward(*saved)
        ctx.save_for_forward(*saved)
        return y

    @staticmethod
    def backward(ctx: Any, grad_output: Any) -> Any:
        if grad_output is None:
            return (None,) * len(ctx.needs_input_grad)
        found = gradients(grad_output, *ctx.saved_tensors, ctx.name)
        if not isinstance(found, tuple):
            return None, found, None
        needed = ctx.needs_input_grad[1:]
        summed = (
            gradient.sum_to_size(shape) if is_needed else None
            for gradient, shape, is_needed in zip(found, ctx.shapes, needed, strict=False)
        )
        return None, *summed, None

    @staticmethod
    def jvp(ctx: Any, _: Any, *tangents: Any) -> Any:
        # The Jacobian with respect to each input is diagonal.
        directions: list[Any] = []
        for k, tangent in enumerate(tangents[:-1]):
            if tangent is None:
                continue
            given = tangent.expand(ctx.shape)
            found = GRADIENTS[ctx.name](given, *ctx.saved_tensors, ctx.name)
            directions.append(found[k] if isinstance(found, tuple) else found)
        return functools.reduce(torch.add, directions)


FUNCTIONS = {name: _of_inputs(ACTIVATIONS[name].nin) for name in DERIVATIVES}
"""The operators of element-wise activations."""

GRADIENTS = {
    name: _of_gradients(declared.nin, len(declared.results))
    for name, declared in DERIVATIVES.items()
}
"""The operators of their derivatives, by the names of the activations."""


def gradients(*arguments: Any) -> Any:
    """The gradients of the function whose name follows the operands of its derivative.

    Most backward passes need no operator, which would take several microseconds more. Those of
    batched gradients (``is_grads_batched``) do, whose tensors look like plain ones.
    """
    *operands, name = arguments
    needed = torch.is_grad_enabled() or are_needed(*operands)
    if needed or torch._C._functorch.is_legacy_batchedtensor(operands[0]):
        return GRADIENTS[name](*arguments)
    return _compute_gradients(*arguments)


# Of whole rows.


def _compute_rows(x: Any, name: str, dim: int) -> Any:
    y = torch.empty_like(x)
    UFUNCS[name](array(x), out=array(y), axis=dim)
    return y


def _compute_rows_backward(grad_output: Any, saved: Any, name: str, dim: int) -> Any:
    derivative = ROW_GRADIENTS[row_derivatives()[name].name]
    return tensor(derivative(array(grad_output), array(saved), axis=dim)).contiguous()


def _compute_rows_tangent(tangent: Any, saved: Any, name: str, dim: int) -> Any:
    declared = row_derivatives()[name]
    found = row_gradients.tangent(declared, array(tangent), array(saved), dim)
    return tensor(found).contiguous()


row_wise = _operator(
    "row_wise(Tensor x, str name, int dim) -> Tensor",
    lambda x, name, dim: torch.empty_like(x),
    _compute_rows,
)
# Of activations and reductions.
row_wise_backward = _operator(
    "row_wise_backward(Tensor grad_output, Tensor saved, str name, int dim) -> Tensor",
    lambda grad_output, saved, name, dim: saved.new_empty(saved.shape),
    _compute_rows_backward,
)
row_wise_tangent = _operator(
    "row_wise_tangent(Tensor tangent, Tensor output, str name, int dim) -> Tensor",
    lambda tangent, output, name, dim: output.new_empty(output.shape),
    _compute_rows_tangent,
)


class _RowWise(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, compute: Callable[..., Any], x: Any, name: str, dim: int) -> Any:
        y = compute(x, name, dim)
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


def _axis(name: str, dim: int, ndim: int) -> int:
    """The axis `dim` of tensors with `ndim` axes, counted from the first."""
    if not -ndim <= dim < ndim:
        raise IndexError(f"{name}: dim must be an axis of a tensor of {ndim} axes, got {dim}")
    return dim % ndim


def _inner(name: str, dim: int, ndim: int) -> int:
    """The axis `dim` of tensors with `ndim` axes, counted after the axis of the batch."""
    return _axis(name, dim, ndim) + 1


def _batched_rows(info: Any, in_dims: _Dims, x: Any, name: str, dim: int) -> Any:
    return row_wise(x.movedim(in_dims[0], 0), name, _inner(name, dim, x.ndim - 1)), 0


def _batched_with_saved(operator: Any) -> Callable[..., Any]:
    def rule(info: Any, in_dims: _Dims, first: Any, saved: Any, name: str, dim: int) -> Any:
        first, saved = _in_front(info, first, in_dims[0]), _in_front(info, saved, in_dims[1])
        return operator(first, saved, name, _inner(name, dim, saved.ndim - 1)), 0

    return rule


_differentiable(row_wise, _RowWise)
_batched(row_wise, _batched_rows)

# Reductions of rows.


def _empty_reduced(x: Any, name: str, dim: int, keepdim: bool = True) -> Any:
    axis = _axis(name, dim, x.ndim)
    return x.new_empty((*x.shape[:axis], *[1] * keepdim, *x.shape[axis + 1 :]))


def compute_reduced(x: Any, name: str, dim: int, keepdim: bool) -> Any:
    """The reduction `name` of the rows of `x`."""
    y = _empty_reduced(x, name, dim, keepdim)
    UFUNCS[name](array(x), out=array(y), axis=dim, keepdims=keepdim)
    return y


reduced = _operator(
    "reduced(Tensor x, str name, int dim, bool keepdim) -> Tensor", _empty_reduced, compute_reduced
)
reduced_tangent = _operator(
    "reduced_tangent(Tensor tangent, Tensor x, str name, int dim) -> Tensor",
    lambda tangent, x, name, dim: _empty_reduced(x, name, dim),
    _compute_rows_tangent,
)


class Reduced(torch.autograd.Function):
    """A reduction of rows: ``compute(x, name, dim, keepdim)``, as :func:`compute_reduced`."""

    @staticmethod
    def forward(
        ctx: Any, compute: Callable[..., Any], x: Any, name: str, dim: int, keepdim: bool
    ) -> Any:
        ctx.options, ctx.keepdim = (name, dim), keepdim
        ctx.save_for_backward(x)
        ctx.save_for_forward(x)
        return compute(x, name, dim, keepdim)

    @staticmethod
    def backward(ctx: Any, grad_output: Any) -> Any:
        gradient = row_wise_backward(grad_output, *ctx.saved_tensors, *ctx.options)
        return None, gradient, None, None, None

    @staticmethod
    def jvp(ctx: Any, _: Any, tangent: Any, *__: Any) -> Any:
        found = reduced_tangent(tangent, *ctx.saved_tensors, *ctx.options)
        return found if ctx.keepdim else found.squeeze(ctx.options[1])


def _batched_reduced(info: Any, in_dims: _Dims, x: Any, name: str, dim: int, keepdim: bool) -> Any:
    return reduced(x.movedim(in_dims[0], 0), name, _inner(name, dim, x.ndim - 1), keepdim), 0


_differentiable(reduced, Reduced)
_batched(reduced, _batched_reduced)
for _operation in (row_wise_backward, row_wise_tangent, reduced_tangent):
    _once(_operation, lambda inputs: inputs[2])
    _batched(_operation, _batched_with_saved(_operation))

# Layers. What follows the bias is the parameter of the activation, if it has one, and its name.


def needed(activation: str | None) -> list[str]:
    """What the gradient of a layer needs of it: "output", "saved" for the sums, or both."""
    return [] if activation is None else _NEEDED[activation]


_NEEDED = {name: backward.needed(declared) for name in known() if (declared := derivative_of(name))}


def compute_dense(
    x: Any, W: Any, b: Any, parameter: Any, activation: str | None, saving: bool = False
) -> tuple[Any, Any]:
    """The result of a layer, and the input of its activation if it is `saving` that."""
    operands = array(x), array(W), None if b is None else array(b)
    activated = _activated(parameter, activation)
    if not saving or activated is None:
        return tensor(layers.dense(*operands, activated)), None
    if x.dtype in (torch.float32, torch.float64):
        # Two passes, as in layers.dense, which would pack W: 90 us instead of 28 for 8 x 64 x 64.
        sums = layers.dense(*operands)
        return tensor(activated.applied(sums)), tensor(sums)
    saved = x.new_empty(_shape(x, W))
    return tensor(layers.dense(*operands, activated, saved=array(saved))), saved


def _activated(parameter: Any, activation: str | None) -> Activated | None:
    if activation is None:
        return None
    if parameter is None:
        return Activated(activation)
    value = array(parameter).astype(np.float64).tolist()
    return Activated(activation, (tuple(value) if parameter.ndim else value,))


def _shape(x: Any, W: Any) -> tuple[int, ...]:
    return (*x.shape[:-1], *W.shape[-1:])


def _compute_dense_backward(
    grad_output: Any,
    x: Any,
    W: Any,
    b: Any,
    y: Any,
    saved: Any,
    parameter: Any,
    activation: str | None,
) -> Any:
    found = backward.dense_backward(
        array(grad_output),
        array(x),
        array(W),
        None if y is None else array(y),
        _activated(parameter, activation),
        saved=None if saved is None else array(saved),
    )
    gradients = [tensor(gradient).contiguous() for gradient in found]
    return tuple(gradients if len(gradients) > 3 else [*gradients, x.new_empty(0)])


def _like_dense_backward(
    grad_output: Any, x: Any, W: Any, b: Any, y: Any, saved: Any, parameter: Any, activation: Any
) -> Any:
    of_parameter = 0 if parameter is None else parameter.shape
    return (*(x.new_empty(v) for v in (x.shape, W.shape, W.shape[1:], of_parameter)),)


dense = _operator(
    "dense(Tensor x, Tensor W, Tensor? b, Tensor? parameter, str? activation) -> Tensor",
    lambda x, W, *_: x.new_empty(_shape(x, W)),
    lambda *operands: compute_dense(*operands)[0],
)
dense_saving = _operator(
    "dense_saving(Tensor x, Tensor W, Tensor? b, Tensor? parameter, str? activation)"
    " -> (Tensor, Tensor)",
    lambda x, W, *_: (x.new_empty(_shape(x, W)), x.new_empty(_shape(x, W))),
    functools.partial(compute_dense, saving=True),
)
# It needs no `b`, but depends on it, so that it must know if that is to be differentiated.
_dense_backward = _operator(
    "dense_backward(Tensor grad_output, Tensor x, Tensor W, Tensor? b, Tensor? y, Tensor? saved,"
    " Tensor? parameter, str? activation) -> (Tensor, Tensor, Tensor, Tensor)",
    _like_dense_backward,
    _compute_dense_backward,
)


class Dense(torch.autograd.Function):
    """A layer: ``compute(x, W, b, parameter, activation, saving)``, as :func:`compute_dense`."""

    @staticmethod
    def forward(
        ctx: Any, compute: Callable[..., Any], x: Any, W: Any, b: Any, parameter: Any, name: Any
    ) -> Any:
        needs = needed(name)
        y, saved = compute(x, W, b, parameter, name, "saved" in needs and any(ctx.needs_input_grad))
        ctx.activation = name
        ctx.save_for_backward(x, W, b, y if "output" in needs else None, saved, parameter)
        return y

    @staticmethod
    def backward(ctx: Any, grad_output: Any, *_: Any) -> Any:
        found = _dense_backward(grad_output, *ctx.saved_tensors, ctx.activation)
        wanted = zip(found, ctx.needs_input_grad[1:], strict=False)
        return None, *(gradient if is_needed else None for gradient, is_needed in wanted), None

    @staticmethod
    def jvp(ctx: Any, *_: Any) -> NoReturn:
        raise NotImplementedError(
            "fastact.torch.dense has no forward-mode derivative; use reverse mode, as "
            "torch.func.vjp and jacrev do"
        )


class _DenseSaving(Dense):
    """The same; the input of the activation is a result, for a derivative around this one."""

    @staticmethod
    def forward(ctx: Any, compute: Callable[..., Any], *operands: Any) -> Any:
        y, saved = compute(*operands)
        x, W, b, parameter, ctx.activation = operands
        ctx.mark_non_differentiable(saved)
        kept = y if "output" in needed(ctx.activation) else None
        ctx.save_for_backward(x, W, b, kept, saved, parameter)
        return y, saved


def _dense_below(*arguments: Any) -> tuple[Any, Any]:
    *operands, saving = arguments
    return _below(dense_saving, *operands) if saving else (_below(dense, *operands), None)


def _batched_dense(operator: Any) -> Callable[..., Any]:
    def rule(info: Any, in_dims: _Dims, x: Any, *others: Any) -> Any:
        if in_dims[1:] == (None,) * len(others):  # more rows for the same weights
            found = operator(x.movedim(in_dims[0], 0), *others)
            return found, (0, 0) if isinstance(found, tuple) else 0
        return _one_by_one(operator)(info, in_dims, x, *others)

    return rule


_differentiable(dense, Dense, _dense_below)
_differentiable(dense_saving, _DenseSaving)
_batched(dense, _batched_dense(dense))
_batched(dense_saving, _batched_dense(dense_saving))
_once(_dense_backward, lambda inputs: "dense")
_batched(_dense_backward, _one_by_one(_dense_backward))
