"""Conversion of torch modules to layers.

Modules are recognised by the name of their class, so that torch is not imported.
"""

import sys
from typing import Any

import numpy as np

from fastact._declarations.records import activations
from fastact._dense.layers import Dense

_ACTIVATIONS = {
    module.name: (name, module)
    for name, declared in activations().items()
    for module in declared.torch_modules
}
_DROPOUTS = ("Dropout", "AlphaDropout", "FeatureAlphaDropout")
_TENSORS = ("Tensor", "Parameter", "Buffer")
_SUPPORTED = ("Sequential", "Linear", *_ACTIVATIONS, "Identity", *_DROPOUTS)


def stack(module: Any, name: str = "module") -> list[Dense | str]:
    """The layers of `module`, which error messages call `name`."""
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
            layer
            for index, child in enumerate(module)
            for layer in stack(child, f"{name}[{index}]")
        ]
    if kind.__name__ == "Linear":
        b = None if module.bias is None else _array(module.bias, f"{name}.bias")
        return [Dense(_array(module.weight, f"{name}.weight").T, b)]
    if kind.__name__ in _ACTIVATIONS:
        activation, declared = _ACTIVATIONS[kind.__name__]
        if not declared.accepts(module):
            raise ValueError(f"from_torch: {name} must {declared.requirement}, got {module!r}")
        return [activation]
    if kind.__name__ in _DROPOUTS and module.training:
        raise ValueError(
            f"from_torch: {name} must be in evaluation mode, where it does nothing, got "
            f"{module!r} in training mode; call eval() first"
        )
    return []


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
    if str(tensor.dtype) not in ("torch.float16", "torch.float32", "torch.float64"):
        raise TypeError(
            f"from_torch: {name} must be of float16, float32 or float64, got {tensor.dtype}"
        )
    if str(tensor.layout) != "torch.strided" or tensor.is_nested:
        layout = "nested" if tensor.is_nested else tensor.layout
        raise ValueError(f"from_torch: {name} must be dense, got a tensor of layout {layout}")
    if tensor.device.type == "meta":
        raise ValueError(f"from_torch: {name} must have values, got a tensor on the meta device")
    # force=True copies from any device, and resolves a sign that is kept as a flag.
    return tensor.numpy(force=True)  # type: ignore[no-any-return] # of torch
