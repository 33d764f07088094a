"""Stacks of torch modules as layers, recognised by name so that torch is not imported."""

from typing import Any

import numpy as np

from .layers import Dense

_ACTIVATIONS = {
    "ReLU": "relu",
    "Sigmoid": "sigmoid",
    "Tanh": "tanh",
    "Softplus": "softplus",
    "Softmax": "softmax",
}
_DROPOUTS = ("Dropout", "AlphaDropout", "FeatureAlphaDropout")
_SUPPORTED = ("Sequential", "Linear", *_ACTIVATIONS, "Identity", *_DROPOUTS)


def stack(module: Any, name: str = "module") -> list[Dense | str]:
    """The layers of `module`, which errors call `name`."""
    kind = type(module)
    # Subclasses may do something else, and parametrized modules are such.
    if not kind.__module__.startswith("torch.nn.modules.") or kind.__name__ not in _SUPPORTED:
        raise TypeError(
            f"from_torch: {name} must be one of {', '.join(_SUPPORTED)} of torch.nn, got "
            f"{kind.__module__}.{kind.__name__}"
        )
    if module._forward_hooks or module._forward_pre_hooks:
        raise ValueError(f"from_torch: {name} must be without hooks, got {module!r}")
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
        _check_parameters(module, name)
        return [_ACTIVATIONS[kind.__name__]]
    if kind.__name__ in _DROPOUTS and module.training:
        raise ValueError(
            f"from_torch: {name} must be in evaluation mode, where it does nothing, got "
            f"{module!r} in training mode; call eval() first"
        )
    return []


def _array(tensor: Any, name: str) -> np.ndarray:
    if str(tensor.dtype) not in ("torch.float16", "torch.float32", "torch.float64"):
        raise TypeError(
            f"from_torch: {name} must be of float16, float32 or float64, got {tensor.dtype}"
        )
    return np.asarray(tensor.detach().cpu())


def _check_parameters(module: Any, name: str) -> None:
    # Above its threshold torch's softplus is x, which is 2e-9 less than it should be at 20.
    if type(module).__name__ == "Softplus" and (module.beta != 1 or module.threshold < 20):
        raise ValueError(
            f"from_torch: {name} must have beta=1 and a threshold of at least 20, got {module!r}"
        )
    if type(module).__name__ == "Softmax" and module.dim != -1:
        raise ValueError(
            f"from_torch: {name} must be Softmax(dim=-1), along the last axis of every input, "
            f"got {module!r}"
        )
