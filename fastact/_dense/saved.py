"""Models in files: ``model.save(path)`` and ``load(path)``.

A file has the format of ``safetensors.py``. Its text "fastact" describes the model in JSON::

    {"version": 1, "model": {"kind": "Sequential", "classes": null, "layers": [
        {"kind": "Dense", "activation": "prelu", "dtype": "float32", "weights_dtype": null},
        {"kind": "activation", "activation": "softmax"}]}}

The arrays have the names of the layers and their own: "layers.0.W", "layers.0.b" and
"layers.0.activation.slope", or "W" if the model is a single layer. The text "fastact_crc32" is a
checksum of the description and of the names, types and shapes of the arrays, and so detects damage
outside of their elements. It is no signature, and none is needed: a file names no code.

A kind of layers is one entry of `_KINDS`. Whoever changes what is written of a kind increases
`VERSION`.
"""

from __future__ import annotations

import json
import os
import zlib
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, TypeVar

import numpy as np

from fastact._dense import safetensors
from fastact._dense.activated import IDENTITY, Activated, chosen, known
from fastact._dense.compact import INT8, NAMES, Compact
from fastact._dense.frozen import Frozen
from fastact._dense.gated import Gated
from fastact._dense.layers import Dense
from fastact._dense.safetensors import Entry, entry
from fastact._dense.sequential import Sequential
from fastact._machine.formats import BFLOAT16, FLOATS

__all__ = ["load"]

VERSION = 1

_KEY, _CHECKSUM = "fastact", "fastact_crc32"
_OF_GATED = "_gate", "_up"  # the ends of names of arrays
_UNICODE = 0x110000  # code points are less

_Described = tuple[dict[str, Any], dict[str, Entry]]
"""A description, and arrays by name."""


def save(model: Frozen, path: Any) -> None:
    """Write `model` to a file; see ``Frozen.save``."""
    place = _path("save", path)
    described, entries = _described("model", model)
    text = json.dumps({"version": VERSION, "model": described})
    metadata = {_KEY: text, _CHECKSUM: _checksum(text, entries)}
    try:
        safetensors.write(place, entries, metadata)
    except ValueError as error:
        raise ValueError(f"save: {place}: {error}") from error


def load(path: str | os.PathLike[str]) -> Dense | Gated | Sequential:
    """Read a model from a file that its ``save`` has written.

    Parameters
    ----------
    path : str or os.PathLike

    Returns
    -------
    Dense, Gated or Sequential
        Its results, weights and other attributes have the same bits as those of the model that
        was saved.

    Raises
    ------
    ValueError
        If the file is no such file or is damaged, or if another version has written it in a
        way that this one does not know. The message has the path, and says what is wrong.
    OSError
        If the file cannot be read.
    ImportError
        For a model of bfloat16 without ml_dtypes.
    TypeError
        If `path` is not a path.

    See Also
    --------
    Dense.save, Gated.save, Sequential.save : Write a model.

    Notes
    -----
    Nothing in a file is executed, in contrast to a pickle. Sizes, types, shapes and names are
    checked, and no memory is allocated for sizes that the file itself does not have. Elements of
    weights are not checked: damage there gives other results.

    The file is mapped into memory, and weights are packed from there. So a model takes no more
    memory than its layers while it is read, apart from pages that the system can drop. A file that
    another program shortens meanwhile ends the process. (``save`` replaces files at once, and
    never does that.) Later changes of the file have no effect.

    The format is that of the package safetensors, whose ``load_file`` reads the arrays:
    "layers.0.W", "layers.0.b" and so on.

    Examples
    --------
    >>> import os, tempfile
    >>> import numpy as np, fastact as fa
    >>> model = fa.Sequential([fa.Dense(np.eye(3), activation="relu"), "softmax"])
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = os.path.join(folder, "model.safetensors")
    ...     model.save(path)
    ...     loaded = fa.load(path)
    >>> loaded
    Sequential(
        Dense(3 -> 3, relu, float64),
        softmax,
    )
    >>> np.array_equal(loaded(np.ones(3)), model(np.ones(3)))
    True
    """
    place = _path("load", path)
    try:
        return _loaded(*safetensors.read(place))
    except (ValueError, TypeError, RecursionError) as error:
        raise ValueError(f"load: {place}: {error}") from error


def _loaded(entries: dict[str, Entry], metadata: dict[str, str]) -> Dense | Gated | Sequential:
    if _KEY not in metadata:
        raise ValueError(
            f"it must have a text {_KEY!r} that describes the layers, as files of save() do, got "
            f"only arrays, {safetensors.shown(list(entries))}; Dense(W, b) makes a layer of arrays"
        )
    text = metadata[_KEY]
    # Before the checksum, which another version may compute in another way.
    described = safetensors.parsed(f"the text {_KEY!r}", text)
    if described.get("version") != VERSION:
        raise ValueError(
            f"it must have version {VERSION} of the format, got "
            f"{safetensors.shown(described.get('version'))}"
        )
    checksum = _checksum(text, entries)
    if metadata.get(_CHECKSUM) != checksum:
        raise ValueError(
            f"it must have the checksum {checksum} of its description, got "
            f"{safetensors.shown(metadata.get(_CHECKSUM))}; it was damaged or edited"
        )
    _, model = _fields(described, version=int, model=dict)
    arrays = _Arrays(entries, "", set())
    made = _made(model, arrays)
    if not isinstance(made, Dense | Gated | Sequential):
        raise ValueError(f"the model must be a layer or a stack, got {made}")
    unused = entries.keys() - arrays.used
    if unused:
        raise ValueError(f"all arrays must belong to a layer, got {min(unused)!r}, which does not")
    return made


def _checksum(text: str, entries: Mapping[str, Entry]) -> str:
    table = sorted((name, e.type, list(e.shape)) for name, e in entries.items())
    return f"{zlib.crc32((text + json.dumps(table)).encode(errors='surrogatepass')):08x}"


def _path(caller: str, path: Any) -> str:
    found = os.fspath(path) if isinstance(path, os.PathLike) else path
    if not isinstance(found, str):
        raise TypeError(f"{caller}: path must be a str or os.PathLike, got {path!r}")
    return found


class _Arrays(NamedTuple):
    """The arrays of a layer in a file, by their names without that of the layer."""

    entries: Mapping[str, Entry]
    prefix: str
    used: set[str]  # names with those of layers

    def within(self, name: str) -> _Arrays:
        return self._replace(prefix=f"{self.prefix}{name}.")

    def __contains__(self, name: object) -> bool:
        return f"{self.prefix}{name}" in self.entries

    def get(self, name: str, kind: str | None = None, ndim: int | None = None) -> np.ndarray:
        """The array of this type and number of axes."""
        full = f"{self.prefix}{name}"
        if full not in self.entries:
            raise ValueError(f"there must be an array {full!r}, got none")
        found = self.entries[full]
        self.used.add(full)
        if kind not in (None, found.type) or ndim not in (None, len(found.shape)):
            axes = "" if ndim is None else f" with {ndim} axes"
            raise ValueError(
                f"{full} must be an array of {kind}{axes}, got {found.type} of shape {found.shape}"
            )
        return found.array()


class _Kind(NamedTuple):
    """How layers of one class are saved.

    Attributes
    ----------
    of : type
        Subclasses, which may compute something else, are refused.
    described : callable
        ``described(name, layer)`` for messages about `name`: the fields in JSON and the arrays.
    made : callable
        ``made(fields, arrays)``: the layer. It may raise ValueError and TypeError.
    """

    of: type
    described: Callable[[str, Any], _Described]
    made: Callable[[dict[str, Any], _Arrays], Any]


def _described(name: str, layer: Any) -> _Described:
    """The description of a layer, of which error messages speak as `name`."""
    if isinstance(layer, np.ufunc):
        layer = chosen("save", layer)
    kind = next((kind for kind in _KINDS if type(layer) is _KINDS[kind].of), None)
    if kind is None:
        classes = ", ".join(k.of.__name__ for k in _KINDS.values() if issubclass(k.of, Frozen))
        raise TypeError(
            f"save: {name} must be one of {classes} or an activation, and of no subclass, got "
            f"{type(layer).__module__}.{type(layer).__qualname__}"
        )
    added = layer.__getstate__() if isinstance(layer, Frozen) else None
    if added:
        raise ValueError(
            f"save: {name} must have no attributes that were added to it, since they would be "
            f"lost, got {', '.join(added)}"
        )
    fields, entries = _KINDS[kind].described(name, layer)
    return {"kind": kind, **fields}, entries


def _made(described: Any, arrays: _Arrays) -> Any:
    """The layer of a description."""
    if not isinstance(described, dict):
        raise ValueError(f"a layer must be an object in JSON, got {safetensors.shown(described)}")
    fields = dict(described)
    kind = fields.pop("kind", None)
    if not isinstance(kind, str) or kind not in _KINDS:
        raise ValueError(
            f"kind of a layer must be one of {', '.join(_KINDS)}, got {safetensors.shown(kind)}"
        )
    return _KINDS[kind].made(fields, arrays)


def _fields(described: dict[str, Any], **types: Any) -> tuple[Any, ...]:
    """The values in the order of `types`, which they must have; no others may be there."""
    if described.keys() != types.keys():
        raise ValueError(f"there must be {', '.join(types)}, got {', '.join(described)}")
    for name, kind in types.items():
        if not isinstance(described[name], kind):
            raise ValueError(
                f"{name} must be of type {getattr(kind, '__name__', kind)}, got "
                f"{safetensors.shown(described[name])}"
            )
    return tuple(described[name] for name in types)


def _activation(activated: Activated | None) -> _Described:
    if activated is None:
        return {"activation": IDENTITY}, {}
    arrays = {
        f"activation.{name}": entry(np.array(value))
        for name, value in zip(activated.named(), activated.parameters, strict=True)
    }
    return {"activation": activated.name}, arrays


def _made_activation(name: str, arrays: _Arrays, columns: int | None = None) -> Activated | None:
    parameters = getattr(known().get(name), "parameters", ())
    given = (arrays.get(f"activation.{parameter}", "float64") for parameter in parameters)
    return chosen("activation", (name, *given), columns)


def _described_layer(name: str, layer: Dense | Gated) -> _Described:
    """A layer, with the arrays "W", "scale" and "b"; of a gated one, twice."""
    fields, arrays = _activation(layer._activated)
    fields |= {"dtype": layer.dtype.name, "weights_dtype": layer.weights_dtype}
    for suffix, k in _matrices(layer).items():
        bias = layer._bias(k)
        if not layer.out_features or not (layer.in_features or bias is not None):
            raise ValueError(f"save: {name} must have outputs, and inputs or a bias, got {layer!r}")
        arrays |= _described_weights(layer, suffix, k)
        if bias is not None:
            arrays[f"b{suffix}"] = entry(bias)
    return fields, arrays


def _matrices(layer: Dense | Gated) -> dict[str, int]:
    """The indices of the matrices of a layer, by the ends of the names of their arrays."""
    return (
        {"": 0} if isinstance(layer, Dense) else dict(zip(_OF_GATED, layer._indices, strict=True))
    )


def _described_weights(layer: Dense | Gated, suffix: str, k: int) -> dict[str, Entry]:
    shape = layer.in_features, layer.out_features
    if layer.weights_dtype is None:
        return {f"W{suffix}": Entry(layer.dtype.name, shape, lambda: layer._unpacked(k))}
    found = {f"W{suffix}": Entry(layer.weights_dtype, shape, lambda: layer._own.compact(k).values)}
    if layer.weights_dtype == INT8:
        found[f"scale{suffix}"] = Entry("float32", shape[1:], lambda: layer._own.compact(k).scale)  # type: ignore[arg-type, return-value] # int8 has one
    return found


def _made_layer(fields: dict[str, Any], arrays: _Arrays, suffixes: tuple[str, ...]) -> Any:
    """The arguments of a layer: W, b, activation and `weights_dtype`, and its type."""
    name, dtype, weights_dtype = _fields(
        fields, activation=str, dtype=str, weights_dtype=str | None
    )
    if dtype not in FLOATS or weights_dtype not in (None, *NAMES):
        raise ValueError(
            f"dtype and weights_dtype must be those of a layer, got {dtype!r} and {weights_dtype!r}"
        )
    pairs = [_made_weights(arrays, suffix, dtype, weights_dtype) for suffix in suffixes]
    activated = _made_activation(name, arrays, pairs[0][0].shape[1])
    return pairs, activated, weights_dtype, dtype


def _made_weights(
    arrays: _Arrays, suffix: str, dtype: str, weights_dtype: str | None
) -> tuple[Any, np.ndarray | None]:
    W: Any = arrays.get(f"W{suffix}", weights_dtype or dtype, 2)
    bias = f"b{suffix}"
    b = _of_type(arrays.get(bias, dtype, 1), dtype) if bias in arrays else None
    if not W.size and (b is None or not b.size):
        # A small file could have any number of rows or columns then, and take any time and memory.
        raise ValueError(f"W{suffix} or {bias} must have elements, got W of shape {W.shape}")
    if weights_dtype is None:
        return _of_type(W, dtype), b
    # A copy, since the layer keeps it, but must not depend on the file.
    of_int8 = weights_dtype == INT8
    scale = arrays.get(f"scale{suffix}", "float32", 1).copy() if of_int8 else None
    if scale is not None and scale.shape != W.shape[1:]:
        raise ValueError(f"scale{suffix} must have shape {W.shape[1:]}, got shape {scale.shape}")
    return Compact(weights_dtype, W, scale, _dtype(dtype)), b


def _made_dense(fields: dict[str, Any], arrays: _Arrays) -> Dense:
    ((W, b),), activated, weights_dtype, dtype = _made_layer(fields, arrays, ("",))
    return _of_dtype(Dense(W, b, activated, weights_dtype), dtype)


def _made_gated(fields: dict[str, Any], arrays: _Arrays) -> Gated:
    (gate, up), activated, weights_dtype, dtype = _made_layer(fields, arrays, _OF_GATED)
    made = Gated(gate[0], up[0], activated, gate[1], up[1], weights_dtype)
    return _of_dtype(made, dtype)


L = TypeVar("L", Dense, Gated)


def _of_dtype(made: L, dtype: str) -> L:
    if made.dtype != dtype:
        raise ValueError(f"dtype must be that of the weights, {made.dtype}, got {dtype!r}")
    return made


def _described_activation(name: str, activated: Activated) -> _Described:
    return _activation(activated)


def _made_of_activation(fields: dict[str, Any], arrays: _Arrays) -> Activated | None:
    (name,) = _fields(fields, activation=str)
    return _made_activation(name, arrays)


def _described_stack(name: str, stack: Sequential) -> _Described:
    layers, arrays = [], {}
    for k, layer in enumerate(stack.layers):
        described, its = _described(f"{name}[{k}]", layer)
        layers.append(described)
        arrays.update({f"layers.{k}.{key}": e for key, e in its.items()})
    classes, its = _described_classes(name, stack.classes_)
    return {"classes": classes, "layers": layers}, arrays | its


def _made_stack(fields: dict[str, Any], arrays: _Arrays) -> Sequential:
    classes, layers = _fields(fields, classes=dict | None, layers=list)
    made = []
    for k, described in enumerate(layers):
        try:
            made.append(_made(described, arrays.within(f"layers.{k}")))
        except (ValueError, TypeError) as error:
            raise ValueError(f"layers[{k}]: {error}") from error
    return Sequential(made, None if classes is None else _made_classes(classes, arrays))


def _described_classes(
    name: str, classes: np.ndarray | None
) -> tuple[dict[str, Any] | None, dict[str, Entry]]:
    """Numbers as they are, strings as code points, and objects, which are str, as JSON."""
    if classes is None:
        return None, {}
    if classes.dtype.kind == "U":
        width = max(1, classes.dtype.itemsize // 4)
        codes = classes.reshape(-1).astype(f"=U{width}").view(np.uint32)
        return {"type": "str"}, {"classes": entry(codes.reshape(*classes.shape, width))}
    if classes.dtype.name in safetensors.TYPES:
        return {"type": classes.dtype.name}, {"classes": entry(classes)}
    values = classes.reshape(-1).tolist()
    if classes.dtype.kind != "O" or not all(isinstance(value, str) for value in values):
        raise TypeError(
            f"save: classes_ of {name} must be numbers, strings or objects that are str, got "
            f"dtype {classes.dtype} with {safetensors.shown(values)}"
        )
    return {"type": "object", "shape": list(classes.shape), "values": values}, {}


def _made_classes(described: dict[str, Any], arrays: _Arrays) -> np.ndarray:
    kind = described.get("type")
    if kind == "object":
        _, shape, values = _fields(described, type=str, shape=list, values=list)
        if not all(isinstance(value, str) for value in values):
            raise ValueError(f"values of classes must be str, got {safetensors.shown(values)}")
        return np.array(values, object).reshape(shape)
    (kind,) = _fields(described, type=str)
    if kind == "str":
        codes = arrays.get("classes", "uint32")
        if not codes.ndim or not codes.shape[-1] or (codes >= _UNICODE).any():
            raise ValueError(f"classes must be code points, got shape {codes.shape}")
        return codes.reshape(-1).view(f"U{codes.shape[-1]}").reshape(codes.shape[:-1])
    found = arrays.get("classes", kind)
    # Other bytes than 0 and 1 would be unusual bool.
    return found.view(np.uint8) != 0 if kind == "bool" else _of_type(found, kind)


def _of_type(array: np.ndarray, name: str) -> np.ndarray:
    """An array from a file, which has uint16 for bfloat16, in its own type."""
    return array.view(_dtype(name)) if name == BFLOAT16.name else array


def _dtype(name: str) -> np.dtype[Any]:
    if name != BFLOAT16.name:
        return np.dtype(name)
    try:
        from ml_dtypes import bfloat16
    except ImportError as missing:
        raise ImportError(
            "load: models must be of float16, float32 or float64 without ml_dtypes, got bfloat16; "
            'pip install "fastact[torch]" installs it'
        ) from missing
    return np.dtype(bfloat16)  # type: ignore[no-any-return] # of ml_dtypes


_KINDS = {
    "Sequential": _Kind(Sequential, _described_stack, _made_stack),
    "Dense": _Kind(Dense, _described_layer, _made_dense),
    "Gated": _Kind(Gated, _described_layer, _made_gated),
    "activation": _Kind(Activated, _described_activation, _made_of_activation),
}
"""By the name in files."""
