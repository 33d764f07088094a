"""Conversion of Keras models to layers.

Layers are recognised by the name of their class, so that Keras is not imported. A model is followed
from its output to its input, by the attributes in which Keras 3 keeps its graph: ``_keras_history``
of tensors and ``_inbound_nodes`` of layers.
"""

import inspect
import sys
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np

from fastact._declarations.records import (
    NORMALIZATIONS,
    ROW_ACTIVATIONS,
    KerasFunction,
    activations,
)
from fastact._dense.activated import Activated
from fastact._dense.folding import (
    Activation,
    Affine,
    Part,
    Scaling,
    batch_normalization,
    clip,
    fold,
    standardization,
)
from fastact._dense.layers import Dense
from fastact._runtime.undisturbed import undisturbed

_MODELS = ("keras.src.models.sequential.Sequential", "keras.src.models.functional.Functional")
_FUNCTIONS = "keras.src.activations.activations"
_ACTIVATIONS: dict[str, list[tuple[str, KerasFunction]]] = {}
for _name, _declared in activations().items():
    for _known in _declared.keras_functions:
        _ACTIVATIONS.setdefault(_known.public, []).append((_name, _known))


def stack(model: Any) -> list[Dense | Activated]:
    """The layers of `model`."""
    return fold("from_keras", _parts(model))


def _parts(model: Any) -> list[Part]:
    if _class(model) not in _MODELS:
        raise TypeError(
            "from_keras: model must be a keras.Sequential or a functional keras.Model of Keras 3, "
            f"and of no subclass, got {_class(model)}"
        )
    parts: list[Part] = []
    _add_model(model, "model", "", parts)
    return parts


class _Step(NamedTuple):
    """A layer, or another operation, in a model.

    Attributes
    ----------
    layer : object
    name : str
        What error messages call it.
    axes : int
        How many axes its input has, with the first.
    """

    layer: Any
    name: str
    axes: int

    def is_last(self, axis: Any) -> bool:
        """Whether `axis`, a number or a sequence of one, is the last axis of the input."""
        numbers = axis if isinstance(axis, list | tuple) else [axis]
        return len(numbers) == 1 and numbers[0] in (-1, self.axes - 1)

    def require(self, met: bool, what: str, **given: Any) -> None:
        """Raise ValueError if `what` is not met by what is `given`."""
        if not met:
            shown = ", ".join(f"{name}={value!r}" for name, value in given.items())
            raise ValueError(
                f"from_keras: {self.name} must {what}, got {type(self.layer).__name__} with {shown}"
            )


def _add_model(model: Any, name: str, path: str, parts: list[Part]) -> None:
    """Append the parts of a model, whose layers error messages call by `path` and their names."""
    _check_call(model, name)
    # A Sequential raises AttributeError before it is built.
    inputs, outputs = getattr(model, "inputs", None), getattr(model, "outputs", None)
    if inputs is None or outputs is None:
        raise ValueError(
            f"from_keras: {name} must be built, got {model!r}; call build(shape) first"
        )
    if len(inputs) != 1 or len(outputs) != 1 or len(inputs[0].shape) < 2:
        raise ValueError(
            f"from_keras: {name} must have one output and one input of two axes or more, got "
            f"{len(outputs)} and shapes {[tuple(tensor.shape) for tensor in inputs]}"
        )
    for step in reversed(list(_steps(inputs[0], outputs[0], path))):
        if _class(step.layer) in _MODELS:
            _add_model(step.layer, step.name, f"{path}{step.layer.name}/", parts)
        else:
            parts += _of_layer(step, parts)


def _steps(source: Any, tensor: Any, path: str) -> Iterator[_Step]:
    """The layers from the last one, whose result is `tensor`, to the first one after `source`."""
    while tensor is not source:
        history = tensor._keras_history
        layer = history.operation
        name = f"layer {path + layer.name!r}"
        node = layer._inbound_nodes[history.node_index]
        if len(node.input_tensors) != 1:
            raise ValueError(
                f"from_keras: {name} must have one input, got {len(node.input_tensors)}"
            )
        (tensor,) = node.input_tensors
        # Such as training=True.
        given = [*node.arguments.args, *node.arguments.kwargs.values()]
        others = [a for a in given if not (a is tensor or a is None or a is False)]
        if others:
            raise ValueError(
                f"from_keras: {name} must be called with its input alone, got "
                f"{', '.join(map(repr, others))} as well"
            )
        yield _Step(layer, name, len(tensor.shape))


def _of_layer(step: _Step, before: list[Part]) -> list[Part]:
    """The parts of a layer, after those `before` it."""
    kind = type(step.layer)
    # Subclasses are refused, since they may compute something else.
    if not kind.__module__.startswith("keras.src.layers.") or kind.__name__ not in _LAYERS:
        raise TypeError(
            f"from_keras: {step.name} must be one of {', '.join(_LAYERS)} of keras.layers, a "
            f"keras.Sequential or a functional keras.Model, got {_class(step.layer)}"
        )
    _check_call(step.layer, step.name)
    if kind.__name__ in ("Flatten", "Reshape"):
        _check_flat(step, before)
    return _LAYERS[kind.__name__](step)


def _check_call(layer: Any, name: str) -> None:
    """Raise ValueError if a replaced method may change what a call of `layer` does."""
    kind = type(layer)
    if "call" in vars(layer) or kind.call.__module__ != kind.__module__:
        raise ValueError(
            f"from_keras: {name} must have the methods of {kind.__name__}, got a replaced call"
        )


def _check_flat(step: _Step, before: list[Part]) -> None:
    """Raise ValueError if a layer does not make rows of inputs, or parts depend on their axes."""
    layer = step.layer
    if type(layer).__name__ == "Reshape":
        step.require(
            len(layer.target_shape) == 1, "make rows", target_shape=tuple(layer.target_shape)
        )
    elif step.axes > 2:
        step.require(
            layer.data_format == "channels_last",
            "have data_format='channels_last'",
            data_format=layer.data_format,
        )
    step.require(
        step.axes <= 2 or not any(map(_has_columns, before)),
        "come before layers that compute with the last axis",
        input_axes=step.axes,
    )


def _has_columns(part: Part) -> bool:
    """Whether a part treats the elements of the last axis differently, or together."""
    if isinstance(part, Affine):
        return True
    if isinstance(part, Scaling):
        return bool(np.ndim(part.scale) or np.ndim(part.shift))
    name, *values = part.function if isinstance(part.function, tuple) else (part.function,)
    return name in ROW_ACTIVATIONS | NORMALIZATIONS or any(map(np.ndim, values))


def _nothing(step: _Step) -> list[Part]:
    """What the layer does when a model predicts."""
    return []


def _dense(step: _Step) -> list[Part]:
    layer = step.layer
    mode = getattr(layer, "quantization_mode", None)
    step.require(mode is None, "not be quantized", quantization_mode=mode)
    b = _array(layer.bias) if layer.use_bias else None
    return [Affine(step.name, _array(layer.kernel), b), *_activation(step)]


def _activation(step: _Step) -> list[Part]:
    """The function, or the layer, that a layer has as its activation."""
    function: Any = step.layer.activation
    if type(function).__module__.startswith("keras.src.layers."):
        return _of_layer(step._replace(layer=function), [])
    name, arguments = getattr(function, "__name__", ""), {}
    known: Any = getattr(sys.modules[_FUNCTIONS], name, None)
    if known is None or known is not function:
        name = repr(function)
    else:
        parameters = list(inspect.signature(known).parameters.values())[1:]
        arguments = {p.name: p.default for p in parameters}
    if name not in ("linear", *_ACTIVATIONS):
        names = ", ".join(["linear", *_ACTIVATIONS])
        raise TypeError(
            f"from_keras: the activation of {step.name} must be one of {names} of "
            f"keras.activations, got {name}"
        )
    return [] if name == "linear" else _function(step, name, **arguments)


def _function(step: _Step, name: str, /, **arguments: Any) -> list[Part]:
    """A function of ``keras.activations`` with these arguments."""
    if name == "relu":
        return _relu(step, **arguments)
    if _ACTIVATIONS[name][0][0] in ROW_ACTIVATIONS:
        axis = arguments.pop("axis")
        step.require(step.is_last(axis), "be along the last axis", axis=axis)
    for ours, function in _ACTIVATIONS[name]:
        values = function.operands(**arguments)
        if values is not None:
            return [Activation(step.name, (ours, *values) if values else ours)]
    required = " or ".join(function.requirement for _, function in _ACTIVATIONS[name])
    step.require(False, required, **arguments)
    return []


def _relu(
    step: _Step,
    negative_slope: float = 0.0,
    max_value: float | None = None,
    threshold: float = 0.0,
) -> list[Part]:
    step.require(threshold == 0, "have threshold=0", threshold=threshold)
    if negative_slope:
        step.require(
            max_value is None,
            "have either max_value or negative_slope",
            max_value=max_value,
            negative_slope=negative_slope,
        )
        return _function(step, "leaky_relu", negative_slope=negative_slope)
    if max_value is None:
        return [Activation(step.name, "relu")]
    step.require(0 < max_value < np.inf, "have a positive max_value", max_value=max_value)
    return clip(step.name, 0, max_value)


def _relu_layer(step: _Step) -> list[Part]:
    layer = step.layer
    return _relu(step, layer.negative_slope, layer.max_value, layer.threshold)


def _prelu(step: _Step) -> list[Part]:
    alpha = _array(step.layer.alpha)
    step.require(
        alpha.size in (1, *alpha.shape[-1:]),
        "share its slopes along all axes but the first and the last",
        shared_axes=step.layer.shared_axes,
    )
    return [Activation(step.name, ("prelu", alpha.reshape(() if alpha.size == 1 else -1)))]


def _batch_normalization(step: _Step) -> list[Part]:
    layer = step.layer
    step.require(step.is_last(layer.axis), "be along the last axis", axis=layer.axis)
    return batch_normalization(
        step.name,
        _array(layer.moving_mean),
        _array(layer.moving_variance),
        layer.epsilon,
        _array(layer.gamma) if layer.scale else None,
        _array(layer.beta) if layer.center else None,
    )


def _layer_normalization(step: _Step) -> list[Part]:
    layer = step.layer
    step.require(step.is_last(layer.axis), "be along the last axis", axis=layer.axis)
    rms = getattr(layer, "rms_scaling", False)  # of older versions
    step.require(not rms, "have rms_scaling=False", rms_scaling=rms)
    weight = _array(layer.gamma) if layer.scale else 1.0
    bias = _array(layer.beta) if layer.center else 0.0
    return [Activation(step.name, ("layer_norm", weight, bias, layer.epsilon))]


def _rms_normalization(step: _Step) -> list[Part]:
    layer = step.layer
    step.require(step.is_last(layer.axis), "be along the last axis", axis=layer.axis)
    return [Activation(step.name, ("rms_norm", _array(layer.scale), layer.epsilon))]


def _normalization(step: _Step) -> list[Part]:
    layer = step.layer
    step.require(
        layer.axis == () or step.is_last(layer.axis), "be along the last axis", axis=layer.axis
    )
    shape = () if layer.axis == () else -1
    mean, variance = (_array(a).reshape(shape) for a in (layer.mean, layer.variance))
    least = sys.modules["keras"].config.epsilon()
    deviation = undisturbed(lambda: np.maximum(np.sqrt(variance.astype(np.float64)), least))
    if layer.invert:
        return [Scaling(step.name, deviation, mean)]
    return [standardization(step.name, mean, deviation)]


def _rescaling(step: _Step) -> list[Part]:
    layer = step.layer
    scale, offset = np.asarray(layer.scale), np.asarray(layer.offset)
    of_images = sys.modules["keras"].config.image_data_format()
    step.require(
        max(scale.ndim, offset.ndim) == 0 or of_images == "channels_last",
        "have one scale and one offset where the channels of images are first",
        scale=layer.scale,
        offset=layer.offset,
    )
    return [Scaling(step.name, scale, offset)]


def _calling(name: str, attribute: str) -> Callable[[_Step], list[Part]]:
    """What makes the parts of a layer that calls a function with one of its attributes."""

    def parts(step: _Step) -> list[Part]:
        return _function(step, name, **{attribute: getattr(step.layer, attribute)})

    return parts


_LAYERS: dict[str, Callable[[_Step], list[Part]]] = {
    "Dense": _dense,
    "BatchNormalization": _batch_normalization,
    "LayerNormalization": _layer_normalization,
    "RMSNormalization": _rms_normalization,
    "Normalization": _normalization,
    "Rescaling": _rescaling,
    "Activation": _activation,
    "ReLU": _relu_layer,
    "LeakyReLU": _calling("leaky_relu", "negative_slope"),
    "PReLU": _prelu,
    "ELU": _calling("elu", "alpha"),
    "Softmax": _calling("softmax", "axis"),
    "Flatten": _nothing,
    "Reshape": _nothing,
    "Identity": _nothing,
    "ActivityRegularization": _nothing,
    **{
        name: _nothing
        for name in (
            *("Dropout", "AlphaDropout", "GaussianDropout", "GaussianNoise"),
            *("SpatialDropout1D", "SpatialDropout2D", "SpatialDropout3D"),
        )
    },
}
"""By the name of the class in ``keras.layers``: what makes the parts of a layer."""


def _class(thing: Any) -> str:
    return f"{type(thing).__module__}.{type(thing).__name__}"


def _array(weight: Any) -> np.ndarray:
    """The values of a variable or tensor of any backend."""
    tensor = getattr(weight, "value", weight)  # NumPy warns of conversions of variables
    return np.asarray(sys.modules["keras"].ops.convert_to_numpy(tensor))
