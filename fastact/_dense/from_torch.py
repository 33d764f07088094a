"""Conversion of torch modules to layers.

Modules are recognised by the name of their class, so that torch is not imported.
"""

import sys
from typing import Any

import numpy as np

from fastact._declarations.records import NORMALIZATIONS, TorchModule, activations
from fastact._dense.activated import Activated
from fastact._dense.folding import Activation, Affine, Part, batch_normalization, clip, fold
from fastact._dense.layers import Dense

_ACTIVATIONS: dict[str, list[tuple[str, TorchModule]]] = {}
for _name, _declared in activations().items():
    for _module in _declared.torch_modules:
        _ACTIVATIONS.setdefault(_module.name, []).append((_name, _module))
_DROPOUTS = ("Dropout", "AlphaDropout", "FeatureAlphaDropout")
_TYPES = ("torch.float16", "torch.bfloat16", "torch.float32", "torch.float64")
_TENSORS = ("Tensor", "Parameter", "Buffer")
_SUPPORTED = (
    "Sequential",
    "Linear",
    "BatchNorm1d",
    *_ACTIVATIONS,
    "Flatten",
    "Identity",
    *_DROPOUTS,
)


def stack(module: Any) -> list[Dense | Activated]:
    """The layers of `module`."""
    return fold("from_torch", _parts(module, "module"))


def _parts(module: Any, name: str) -> list[Part]:
    """The parts of `module`, which error messages call `name`."""
    kind = type(module)
    # Subclasses are refused, since they may compute something else. This includes parametrized
    # modules.
    if not kind.__module__.startswith("torch.nn.modules.") or kind.__name__ not in _SUPPORTED:
        raise TypeError(
            f"from_torch: {name} must be one of {', '.join(_SUPPORTED)} of torch.nn, got "
            f"{kind.__module__}.{kind.__name__}"
        )
    _check_calls(module, name)
    if kind.__name__ == "Sequential":
        return [
            part for index, child in enumerate(module) for part in _parts(child, f"{name}[{index}]")
        ]
    if kind.__name__ == "Linear":
        W = _array(module.weight, f"{name}.weight").T
        return [Affine(name, W, _optional(module.bias, f"{name}.bias"))]
    if kind.__name__ in _ACTIVATIONS:
        return _activation(module, name)
    if module.training and kind.__name__ in ("BatchNorm1d", *_DROPOUTS):
        does = "nothing" if kind.__name__ in _DROPOUTS else "the same for every batch"
        raise ValueError(
            f"from_torch: {name} must be in evaluation mode, where it does {does}, got "
            f"{module!r} in training mode; call eval() first"
        )
    if kind.__name__ == "BatchNorm1d":
        return _batch_normalization(module, name)
    if kind.__name__ == "Flatten" and (module.start_dim, module.end_dim) != (1, -1):
        raise ValueError(
            f"from_torch: {name} must have start_dim=1 and end_dim=-1, with which it does nothing "
            f"to rows, got {module!r}"
        )
    return []


def _activation(module: Any, name: str) -> list[Part]:
    known = _ACTIVATIONS[type(module).__name__]
    for activation, declared in known:
        if declared.accepts(module):
            if activation in NORMALIZATIONS:
                return [
                    Activation(name, (activation, *_of_normalization(module, name, activation)))
                ]
            values = [_parameter(value, name) for value in declared.parameters(module)]
            return [Activation(name, (activation, *values) if values else activation)]
    if type(module).__name__ == "Hardtanh":
        return clip(name, module.min_val, module.max_val)
    required = " or ".join(declared.requirement for _, declared in known)
    raise ValueError(f"from_torch: {name} must {required}, got {module!r}")


def _parameter(value: Any, name: str) -> Any:
    """A number, or the values of a tensor, which may be a single one for all columns."""
    if isinstance(value, int | float):
        return value
    array = _array(value, f"{name}.weight")
    return array.reshape(()) if array.size == 1 else array


def _of_normalization(module: Any, name: str, activation: str) -> list[Any]:
    """The parameters of a normalization. Those that a module lacks multiply by 1, or add 0."""
    (width,) = module.normalized_shape
    values: list[Any] = []
    for column, without in zip(NORMALIZATIONS[activation].columns, (1.0, 0.0), strict=False):
        tensor = getattr(module, column)
        given = tensor is not None
        values.append(_array(tensor, f"{name}.{column}") if given else np.full(width, without))
    if module.eps is not None:
        return [*values, module.eps]
    if module.weight is None:
        raise ValueError(
            f"from_torch: {name} must have an eps or a weight, since the default eps depends on "
            f"the type of the weight, got {module!r}"
        )
    return [*values, float(sys.modules["torch"].finfo(module.weight.dtype).eps)]


def _batch_normalization(module: Any, name: str) -> list[Part]:
    if module.running_mean is None or module.running_var is None:
        raise ValueError(
            f"from_torch: {name} must have running statistics, since it depends on the batch "
            f"without them, got {module!r}"
        )
    return batch_normalization(
        name,
        _array(module.running_mean, f"{name}.running_mean"),
        _array(module.running_var, f"{name}.running_var"),
        module.eps,
        _optional(module.weight, f"{name}.weight"),
        _optional(module.bias, f"{name}.bias"),
    )


# The methods that a call of a module goes through.
_CALLED = ("forward", "_call_impl", "_slow_forward", "_wrapped_call_impl")


def _check_calls(module: Any, name: str) -> None:
    """Raise ValueError if hooks or replaced methods may change what a call of `module` does."""
    if module._forward_hooks or module._forward_pre_hooks:
        raise ValueError(f"from_torch: {name} must have no hooks, got {module!r}")
    # torch has been imported, since `module` exists.
    of_all = sys.modules["torch.nn.modules.module"]
    for hooks in ("_global_forward_hooks", "_global_forward_pre_hooks"):
        if getattr(of_all, hooks, None):
            raise ValueError(
                f"from_torch: {name} must have no hooks, got hooks for all modules in "
                f"{of_all.__name__}.{hooks}"
            )
    replaced = [method for method in _CALLED if method in vars(module)]
    if type(module).forward.__module__ != type(module).__module__:
        replaced.append("forward")
    if replaced:
        raise ValueError(
            f"from_torch: {name} must have the methods of {type(module).__name__}, got a replaced "
            f"{replaced[0]}"
        )


def _array(tensor: Any, name: str) -> np.ndarray:
    kind = type(tensor)
    # Subclasses may hide values or have none.
    if kind.__module__.partition(".")[0] != "torch" or kind.__name__ not in _TENSORS:
        raise TypeError(
            f"from_torch: {name} must be a plain tensor or parameter, got "
            f"{kind.__module__}.{kind.__name__}"
        )
    if str(tensor.dtype) not in _TYPES:
        raise TypeError(
            f"from_torch: {name} must be of float16, bfloat16, float32 or float64, got "
            f"{tensor.dtype}"
        )
    if str(tensor.layout) != "torch.strided" or tensor.is_nested:
        layout = "nested" if tensor.is_nested else tensor.layout
        raise ValueError(f"from_torch: {name} must be dense, got a tensor of layout {layout}")
    if tensor.device.type == "meta":
        raise ValueError(f"from_torch: {name} must have values, got a tensor on the meta device")
    # force=True copies from any device, and resolves a sign that is kept as a flag.
    if str(tensor.dtype) != "torch.bfloat16":
        return tensor.numpy(force=True)  # type: ignore[no-any-return] # of torch
    try:
        from ml_dtypes import bfloat16
    except ImportError as missing:
        raise ImportError(
            f"from_torch: {name} must be of float16, float32 or float64 without ml_dtypes, got "
            f'{tensor.dtype}; pip install "fastact[torch]" installs it'
        ) from missing
    bits = tensor.detach().view(sys.modules["torch"].int16)
    return bits.numpy(force=True).view(bfloat16)  # type: ignore[no-any-return] # of torch


def _optional(tensor: Any, name: str) -> np.ndarray | None:
    return None if tensor is None else _array(tensor, name)
