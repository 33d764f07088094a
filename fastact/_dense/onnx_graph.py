"""The nodes of an ONNX model between its input and an output, as a chain of steps.

This is the only module that imports the package ``onnx``, which reads and checks the model.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

if TYPE_CHECKING:
    import onnx

OLDEST = 7  # the first version of the operators whose broadcasting is that of NumPy

_FLOATS = ("FLOAT", "FLOAT16", "BFLOAT16", "DOUBLE")
_INTEGERS = ("INT8", "INT16", "INT32", "INT64", "UINT8", "UINT16", "UINT32", "UINT64", "BOOL")

# Operators that are computed while a model is read, if all inputs are constants.
_OF_CONSTANTS = (
    "Add",
    "Cast",
    "CastLike",
    "Concat",
    "Constant",
    "Div",
    "Expand",
    "Identity",
    "Mul",
    "Neg",
    "Reciprocal",
    "Reshape",
    "Sqrt",
    "Squeeze",
    "Sub",
    "Transpose",
    "Unsqueeze",
)


class Node(NamedTuple):
    """A node that depends on the input of the model.

    Attributes
    ----------
    operator : str
        Its name, after that of its domain if this is not one of ONNX: "com.microsoft.FusedGemm".
    name : str
        What error messages call the node.
    inputs : tuple of ndarray, str and None
        Constants, the names of other values, and None for what is left out.
    attributes : dict
        Numbers, texts, lists of these, and arrays.
    output : str
        The name of the value that other nodes use.
    outputs : int
        The number of values, used or not.
    """

    operator: str
    name: str
    inputs: tuple[np.ndarray | str | None, ...]
    attributes: dict[str, Any]
    output: str
    outputs: int

    @property
    def values(self) -> list[str]:
        """The names of the inputs that are not constants."""
        return [given for given in self.inputs if isinstance(given, str)]

    def input(self, index: int) -> np.ndarray | None:
        """A constant input, None if it is left out; ValueError if it is not constant."""
        found = self.inputs[index] if index < len(self.inputs) else None
        if isinstance(found, str):
            raise ValueError(
                f"from_onnx: {self.name} must have a constant as input {index}, got {found!r}, "
                "which depends on the input of the model"
            )
        return found


class Graph(NamedTuple):
    """What an output of a model is computed from.

    Attributes
    ----------
    version : int
        Of the operators of ONNX.
    source : str
        The name of the input.
    shape : list of (int or None)
        That of the input, as far as it is declared.
    is_float : bool
        Whether the input is of floating-point numbers.
    steps : list of list of Node
        Each step computes its last value from the last value of the step before it, with no other
        values. Steps of several nodes contain branches.
    classes : ndarray or None
        The classes that the model assigns to columns.
    """

    version: int
    source: str
    shape: list[int | None]
    is_float: bool
    steps: list[list[Node]]
    classes: np.ndarray | None


def read(model: Any, output: str | None) -> Graph:
    """The graph of a model: a path, bytes, or an ``onnx.ModelProto``."""
    proto = _checked(model)
    return _Reader(proto).graph(output)


def _checked(model: Any) -> onnx.ModelProto:
    try:
        import onnx
        import onnx.inliner
    except ModuleNotFoundError as missing:
        if missing.name != "onnx":
            raise  # it is installed, but one of its dependencies is not
        raise ImportError(
            'from_onnx: onnx is not installed; pip install "fastact[onnx]" installs it'
        ) from missing
    if not isinstance(model, str | bytes | os.PathLike | onnx.ModelProto):
        raise TypeError(
            "from_onnx: model must be a path, bytes or an onnx.ModelProto, got "
            f"{type(model).__module__}.{type(model).__name__}"
        )
    given: Any = os.fspath(model) if isinstance(model, str | os.PathLike) else model
    what = repr(given) if isinstance(given, str) else f"an object of {type(given).__name__}"
    if isinstance(given, str):
        with open(given, "rb"):
            pass  # an OSError that names the file, which the checker would not raise
    try:
        if isinstance(given, str):
            onnx.checker.check_model(given)  # also that files with weights are there
            given = onnx.load(given)
        else:
            given = onnx.load_from_string(given) if isinstance(given, bytes) else given
            _check_weights(given)
            onnx.checker.check_model(given)
        if given.functions:
            given = onnx.inliner.inline_local_functions(given)
    except _Elsewhere:
        raise
    except Exception as reason:  # of several kinds, for malformed files and invalid models
        raise ValueError(
            f"from_onnx: model must be a valid ONNX model, got {what}: {reason}"
        ) from reason
    return given  # type: ignore[no-any-return] # a ModelProto


class _Elsewhere(ValueError):
    """Weights are in another file, whose folder is not known."""


def _check_weights(proto: onnx.ModelProto) -> None:
    for tensor in proto.graph.initializer:
        if tensor.data_location == tensor.EXTERNAL:
            raise _Elsewhere(
                f"from_onnx: model must contain its weights, got {tensor.name!r} in another file; "
                "pass the path of the model"
            )


class _Reader:
    """Reads the graph of a model that was checked."""

    def __init__(self, proto: onnx.ModelProto):
        self._graph = proto.graph
        self._versions = {o.domain or "ai.onnx": o.version for o in proto.opset_import}
        self._producers = {name: node for node in self._graph.node for name in node.output if name}
        self._tensors = {tensor.name: tensor for tensor in self._graph.initializer}
        self._constants: dict[str, np.ndarray | None] = {}

    def graph(self, output: str | None) -> Graph:
        version = self._versions.get("ai.onnx", OLDEST)
        if version < OLDEST:
            raise ValueError(
                f"from_onnx: model must use version {OLDEST} or later of the operators of ONNX, "
                f"got version {version}"
            )
        source = self._source()
        end = self._end(output)
        nodes = [self._node(node, value) for node, value in self._needed(end, source)]
        shape, is_float = self._described(source)
        return Graph(
            version, source.name, shape, is_float, _steps(nodes, source.name), self._classes()
        )

    def _source(self) -> Any:
        found = [value for value in self._graph.input if value.name not in self._tensors]
        if len(found) != 1:
            names = ", ".join(repr(value.name) for value in found) or "none"
            raise ValueError(f"from_onnx: model must have one input, got {names}")
        return found[0]

    def _described(self, source: Any) -> tuple[list[int | None], bool]:
        """The shape of the input, and whether it is of floating-point numbers."""
        import onnx

        tensor = source.type.tensor_type
        kind = onnx.TensorProto.DataType.Name(tensor.elem_type)
        if kind not in _FLOATS + _INTEGERS:
            raise TypeError(
                f"from_onnx: input {source.name!r} must be a tensor of {', '.join(_FLOATS)} or "
                f"integers, got {kind}"
            )
        # Exporters write 0 for a size that is not known. The checker requires a shape.
        shape = [size.dim_value or None for size in tensor.shape.dim]
        return shape, kind in _FLOATS

    def _end(self, output: str | None) -> str:
        """The name of the value that is the result."""
        import onnx

        floats = [onnx.TensorProto.DataType.Value(name) for name in _FLOATS]
        names = [value.name for value in self._graph.output]
        if output is None:
            # Labels of a classifier are integers or texts.
            found = [
                value.name
                for value in self._graph.output
                if value.type.tensor_type.elem_type in floats or self._zipped(value.name)
            ]
        else:
            found = [name for name in names if name == output]
        if len(found) != 1:
            raise ValueError(
                f"from_onnx: output must be one of {', '.join(map(repr, names))}, got {output!r}"
            )
        return self._zipped(found[0]) or found[0]

    def _zipped(self, name: str) -> str | None:
        """The array of which a value is a list of dicts, one for each row."""
        node = self._producers.get(name)
        return node.input[0] if node is not None and node.op_type == "ZipMap" else None

    def _needed(self, end: str, source: Any) -> list[tuple[Any, str]]:
        """The nodes that `end` depends on, in order, each with its only value that is used."""
        used = {end}
        found = []
        for node in reversed(self._graph.node):  # they are in an order of evaluation
            outputs = [name for name in node.output if name in used]
            if not outputs or self.constant(outputs[0]) is not None:
                continue
            if len(outputs) > 1:
                raise ValueError(
                    f"from_onnx: {_called(node)} must have one output that is used, got "
                    f"{', '.join(map(repr, outputs))}"
                )
            used.update(node.input)
            found.append((node, outputs[0]))
        if source.name not in used:
            raise ValueError(
                f"from_onnx: output must depend on the input {source.name!r}, got {end!r}, which "
                "is constant"
            )
        return found[::-1]

    def _node(self, proto: Any, value: str) -> Node:
        inputs = tuple(self._input(name) for name in proto.input)
        attributes = {a.name: _attribute(a) for a in proto.attribute}
        operator = proto.op_type
        if proto.domain not in ("", "ai.onnx", "ai.onnx.ml"):
            operator = f"{proto.domain}.{operator}"
        expected = proto.output[operator == "LinearClassifier"]  # the first are labels
        if value != expected:
            raise ValueError(
                f"from_onnx: {_called(proto)} must be used for its output {expected!r}, got "
                f"{value!r}"
            )
        outputs = sum(map(bool, proto.output))
        return Node(operator, _called(proto), inputs, attributes, value, outputs)

    def _input(self, name: str) -> np.ndarray | str | None:
        if not name:
            return None
        constant = self.constant(name)
        return name if constant is None else constant

    def constant(self, name: str) -> np.ndarray | None:
        """The value with this name; None if it depends on the input, or is not computed."""
        if name not in self._constants:
            self._constants[name] = self._computed(name)
        return self._constants[name]

    def _computed(self, name: str) -> np.ndarray | None:
        import onnx
        import onnx.reference

        if name in self._tensors:
            return onnx.numpy_helper.to_array(self._tensors[name])
        node = self._producers.get(name)
        if node is None or node.op_type not in _OF_CONSTANTS or node.domain not in ("", "ai.onnx"):
            return None
        inputs = {given: self.constant(given) for given in node.input if given}
        if any(value is None for value in inputs.values()):
            return None
        reference = onnx.reference.ReferenceEvaluator(
            onnx.helper.make_model(
                onnx.helper.make_graph(
                    [node],
                    "constant",
                    [onnx.helper.make_empty_tensor_value_info(given) for given in inputs],
                    [onnx.helper.make_empty_tensor_value_info(name)],
                ),
                opset_imports=[onnx.helper.make_opsetid("", self._versions["ai.onnx"])],
            )
        )
        (found,) = reference.run(None, inputs)
        return np.asarray(found)

    def _classes(self) -> np.ndarray | None:
        """The first list of classes in the model."""
        for node in self._graph.node:
            given = {a.name: _attribute(a) for a in node.attribute}
            for key in ("classlabels_ints", "classlabels_int64s", "classlabels_strings"):
                if given.get(key):
                    return np.array(given[key])
            if node.op_type == "ArrayFeatureExtractor":
                found = self.constant(node.input[0])
                if found is not None:
                    return found.ravel()
        return None


def _called(proto: Any) -> str:
    name = proto.name or next(filter(None, proto.output), "")
    return f"node {name!r} ({proto.op_type})"


def _attribute(proto: Any) -> Any:
    """The value of an attribute, with texts as str."""
    import onnx

    value = onnx.helper.get_attribute_value(proto)
    if isinstance(value, bytes):
        return value.decode()
    if proto.type == onnx.AttributeProto.STRINGS:
        return [text.decode() for text in value]
    if proto.type == onnx.AttributeProto.TENSOR:
        return onnx.numpy_helper.to_array(value)
    return value


def _steps(nodes: list[Node], source: str) -> list[list[Node]]:
    last_use = {name: k for k, node in enumerate(nodes) for name in node.values}
    steps: list[list[Node]] = [[]]
    alive = {source}
    for k, node in enumerate(nodes):
        steps[-1].append(node)
        alive = {name for name in alive if last_use[name] > k} | {node.output}
        if alive == {node.output}:
            steps.append([])
    return steps[:-1]
