"""The operators of ONNX that can be converted.

An element-wise operator becomes scalings and activations, or arithmetic of formulas. Others change
the rows: they add an affine map, or change the shape.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NoReturn

import numpy as np

from fastact._declarations.records import (
    NORMALIZATIONS,
    ROW_ACTIVATIONS,
    OnnxOperator,
    activations,
)
from fastact._dense.folding import Activation, Affine, Part, Scaling, batch_normalization, clip
from fastact._dense.formulas import Formula, applied
from fastact._dense.onnx_graph import Node
from fastact._dense.onnx_rows import Rows, number, numbers, refuse
from fastact._machine.formats import FLOATS

_ACTIVATIONS: dict[str, list[tuple[str, OnnxOperator]]] = {}
for _name, _declared in activations().items():
    for _operator in _declared.onnx_operators:
        _ACTIVATIONS.setdefault(_operator.name, []).append((_name, _operator))


# Element-wise operators of one input, as scalings and activations.


def _activation(rows: Rows, node: Node) -> list[Part]:
    attributes = dict(node.attributes)
    known = _ACTIVATIONS[node.operator]
    if known[0][0] in ROW_ACTIVATIONS | NORMALIZATIONS:
        # Up to version 12, all axes from this one on are a row.
        axis = attributes.pop("axis", 1 if rows.version < 13 else -1)
        if axis not in (-1, rows.rank - 1):
            refuse(node, "be along the last axis", f"axis={axis} of {rows.rank} axes")
    inputs = [rows.columns(node, node.input(k)) for k in range(1, len(node.inputs))]
    for name, operator in known:
        values = operator.operands(*inputs, **attributes)
        if values is not None:
            return [Activation(node.name, (name, *values) if values else name)]
    required = (operator.requirement for _, operator in known)
    refuse(node, " or ".join(filter(None, required)), f"{attributes}")


def _hard_sigmoid(rows: Rows, node: Node) -> list[Part]:
    """``min(max(alpha * x + beta, 0), 1)``; hard_sigmoid has 1/6 and 1/2."""
    alpha, beta = node.attributes.get("alpha", 0.2), node.attributes.get("beta", 0.5)
    is_sixth = np.float32(alpha) == np.float32(1 / 6)
    scaling = Scaling(node.name, 1.0 if is_sixth else 6 * alpha, 6 * beta - 3)
    return [scaling, Activation(node.name, "hard_sigmoid")]


def _clip(rows: Rows, node: Node) -> list[Part]:
    if rows.version < 11:
        given = (node.attributes.get(key) for key in ("min", "max"))
        low, high = (None if value is None else np.array(value, np.float32) for value in given)
    else:
        low, high = node.input(1), node.input(2)
    return _limited(node, low, high)


def _limited(node: Node, low: np.ndarray | None, high: np.ndarray | None) -> list[Part]:
    """``minimum(maximum(x, low), high)``, without the limits that are None."""
    least, most = _limit(node, low), _limit(node, high)
    if least is not None and most is not None:
        if not least < most:
            refuse(node, "have a lower limit below the upper one", f"{least} and {most}")
        return clip(node.name, least, most)
    if least is None and most is None:
        return []
    sign, limit = (1.0, least) if most is None else (-1.0, most)
    shift: Any = limit  # not None
    return [
        Scaling(node.name, sign, -sign * shift),
        Activation(node.name, "relu"),
        Scaling(node.name, sign, shift),
    ]


def _limit(node: Node, array: np.ndarray | None) -> float | None:
    """A limit; None if no finite number exceeds it."""
    value = number(node, array)
    if array is None or value is None:
        return None
    largest = np.nextafter(np.array(np.inf, array.dtype), np.array(0, array.dtype))
    return None if abs(value) >= float(largest) else value


def _nothing(rows: Rows, node: Node) -> list[Part]:
    return []


def _cast(rows: Rows, node: Node) -> list[Part]:
    if node.attributes["to"] not in _FLOAT_TYPES:
        got = f"the type {node.attributes['to']} of ONNX"
        refuse(node, f"convert to {', '.join(FLOATS)}", got, TypeError)
    return []


_FLOAT_TYPES = (1, 10, 11, 16)
"""The numbers that ONNX gives to float32, float16, float64 and bfloat16."""


def _dropout(rows: Rows, node: Node) -> list[Part]:
    training = node.input(2)
    if training is not None and training.any():
        refuse(node, "be in inference mode, where it does nothing", "training_mode=True")
    return []


def _batch_normalization(rows: Rows, node: Node) -> list[Part]:
    trains = node.attributes.get("training_mode", 0) or node.outputs > 1
    if trains or not node.attributes.get("spatial", 1):
        refuse(
            node,
            "be in inference mode, with one output and a mean for each column",
            f"{node.outputs} outputs and {node.attributes}",
        )
    if rows.rank != 2:
        refuse(node, "have an input of two axes, of which it treats the last", f"{rows.rank} axes")
    gamma, beta, mean, variance = (rows.columns(node, node.input(k)) for k in range(1, 5))
    epsilon = node.attributes.get("epsilon", 1e-5)
    return batch_normalization(node.name, mean, variance, epsilon, gamma, beta)


def _scaler(rows: Rows, node: Node) -> list[Part]:
    offset, scale = (
        rows.columns(node, np.array(node.attributes.get(key, [default]), np.float32)).astype(float)
        for key, default in (("offset", 0), ("scale", 1))
    )
    return [Scaling(node.name, scale, -offset * scale)]


ELEMENT_WISE: dict[str, Callable[[Rows, Node], list[Part]]] = {
    **dict.fromkeys(_ACTIVATIONS, _activation),
    "BatchNormalization": _batch_normalization,
    "Cast": _cast,
    "Clip": _clip,
    "Dropout": _dropout,
    "HardSigmoid": _hard_sigmoid,
    "Identity": _nothing,
    "Scaler": _scaler,
}


# Arithmetic of formulas. None means that it is of no activation.


def _power(node: Node, x: Formula, power: Formula) -> Formula | None:
    exponent = power.number
    if exponent is None or exponent.size != 1 or exponent not in (1, 2, 3):
        return None
    return x ** int(exponent)


def _maximum(node: Node, *operands: Formula) -> Formula | None:
    return _with_limit(operands, lambda limit: _limited(node, limit, None))


def _minimum(node: Node, *operands: Formula) -> Formula | None:
    return _with_limit(operands, lambda limit: _limited(node, None, limit))


def _with_limit(
    operands: tuple[Formula, ...], parts: Callable[[np.ndarray], list[Part]]
) -> Formula | None:
    limits = [f.number for f in operands if f.number is not None]
    of = [f for f in operands if f.number is None]
    if len(of) != 1 or len(limits) != 1 or limits[0].size != 1:
        return None
    return applied(parts(limits[0]), of[0])


def _greater(node: Node, x: Formula, y: Formula) -> Formula | None:
    """A comparison with a number, which only `_where` uses."""
    return None if y.number is None else x.formulas.greater(x) - y


def _where(node: Node, condition: Formula, x: Formula, y: Formula) -> Formula | None:
    """torch's softplus, which is x above 20. There it differs by 2e-9 at most."""
    threshold = (x.formulas.greater(x) - condition).number
    if threshold is None or threshold.min() < 20 or not y.equals(x.formulas.softplus(x)):
        return None
    return y


ARITHMETIC: dict[str, Callable[..., Formula | None]] = {
    "Abs": lambda node, x: x.formulas.abs(x),
    "Add": lambda node, x, y: x + y,
    "Div": lambda node, x, y: x / y,
    "Exp": lambda node, x: x.formulas.exp(x),
    "Greater": _greater,
    "Log": lambda node, x: x.formulas.log(x),
    "Max": _maximum,
    "Min": _minimum,
    "Mul": lambda node, x, y: x * y,
    "Neg": lambda node, x: -x,
    "Pow": _power,
    "Reciprocal": lambda node, x: 1 / x,
    "Sqrt": lambda node, x: x.formulas.sqrt(x),
    "Sub": lambda node, x, y: x - y,
    "Where": _where,
}


# Operators with weights.


def _matmul(rows: Rows, node: Node) -> None:
    rows.affine(node, _matrix(node, node.input(1)))


def _gemm(rows: Rows, node: Node) -> None:
    if node.attributes.get("transA", 0):
        refuse(node, "have transA=0, since it mixes the rows otherwise", f"{node.attributes}")
    W = _matrix(node, node.input(1))
    rows.affine(node, W.T if node.attributes.get("transB", 0) else W)
    alpha, beta = node.attributes.get("alpha", 1.0), node.attributes.get("beta", 1.0)
    if alpha != 1:
        rows.parts.append(Scaling(node.name, alpha))
    if node.input(2) is not None:
        bias = rows.columns(node, node.input(2)).astype(np.float64)
        rows.parts.append(Scaling(node.name, 1.0, beta * bias))


def _matrix(node: Node, array: np.ndarray | None) -> np.ndarray:
    array = numbers(node, array)
    if array.ndim != 2:
        refuse(node, "have weights of shape (K, N)", f"an array of shape {array.shape}")
    return array


def _linear(rows: Rows, node: Node, count: int) -> None:
    """A linear model with so many results, whose weights are attributes."""
    weights = np.array(node.attributes["coefficients"], np.float32)
    b = np.array(node.attributes.get("intercepts") or [0] * count, np.float32)
    transform = node.attributes.get("post_transform", "NONE")
    if len(b) != count or weights.size % (count or 1):
        got = f"{weights.size} coefficients and {b.size} intercepts"
        refuse(node, f"have weights for {count} columns", got)
    if transform not in _TRANSFORMS:
        refuse(node, f"have a post_transform of {', '.join(_TRANSFORMS)}", transform)
    rows.affine(node, weights.reshape(count, -1).T, b)
    if transform != "NONE":
        rows.parts.append(Activation(node.name, _TRANSFORMS[transform]))


_TRANSFORMS = {"NONE": "identity", "LOGISTIC": "sigmoid", "SOFTMAX": "softmax"}


def _linear_classifier(rows: Rows, node: Node) -> None:
    labels = (node.attributes.get(f"classlabels_{kind}") for kind in ("ints", "strings"))
    _linear(rows, node, len(next(filter(None, labels), [])))


def _linear_regressor(rows: Rows, node: Node) -> None:
    _linear(rows, node, node.attributes.get("targets", 1))


# Operators that join, choose or keep columns, or change the shape.


def _normalizer(rows: Rows, node: Node) -> None:
    if node.attributes.get("norm", "MAX") != "L1" or not rows.adds_up_to_1:
        wanted = "have norm='L1' after probabilities that add up to 1, where it does nothing"
        refuse(node, wanted, f"{node.attributes}")


def _extractor(rows: Rows, node: Node) -> None:
    index: Any = node.input(1)  # an array
    rows.take(node, index.ravel())


def _flatten(rows: Rows, node: Node) -> None:
    axis = node.attributes.get("axis", 1)
    if axis in (-1, rows.rank - 1) and rows.rank > 1:
        rows.shape = [None, rows.width]
    elif axis == 1 and rows.rank > 1:
        _make_columns(rows, node)
    else:
        _refuse_shape(rows, node, f"axis={axis}")


def _make_columns(rows: Rows, node: Node) -> None:
    """Make one axis of all but the first."""
    for part in rows.parts:
        if isinstance(part, Activation):
            function, *values = (
                part.function if isinstance(part.function, tuple) else [part.function]
            )
            of_columns = function in ROW_ACTIVATIONS | NORMALIZATIONS or any(map(np.ndim, values))
        else:
            of_columns = isinstance(part, Affine) or bool(
                np.ndim(part.scale) or np.ndim(part.shift)
            )
        if of_columns:
            refuse(node, "come before all that depends on columns, which it makes", part.name)
    first, *sizes = rows.shape
    rows.shape = [first, _product(sizes)]


def _product(sizes: list[int | None]) -> int | None:
    known = [size for size in sizes if size is not None]
    return math.prod(known) if len(known) == len(sizes) else None


def _reshape(rows: Rows, node: Node) -> None:
    given: Any = node.input(1)  # an array
    target = given.ravel().tolist()
    *sizes, width = target or [0]
    *old, columns = rows.shape
    same_axes = len(sizes) == len(old)
    keeps_axes = same_axes and all(n in (0, o) for n, o in zip(sizes, old, strict=True))
    first = len(sizes) == 1 and (sizes[0] in (0, old[0]) or (sizes[0] == -1 and width > 0))
    if 0 in target and node.attributes.get("allowzero", 0):
        _refuse_shape(rows, node, f"shape {target}, where 0 is a size")
    elif width == columns or (keeps_axes and width in (0, -1)):
        rows.shape = [*(size if size > 0 else None for size in sizes), columns]
    elif first and rows.rank > 2 and width in (-1, _product(rows.shape[1:])):
        _make_columns(rows, node)
    else:
        _refuse_shape(rows, node, f"shape {target}")


def _squeeze(rows: Rows, node: Node) -> None:
    axes = _axes(rows, node, rows.rank)
    rows.shape = [size for axis, size in enumerate(rows.shape) if axis not in axes]


def _unsqueeze(rows: Rows, node: Node) -> None:
    for axis in _axes(rows, node, None):
        rows.shape.insert(axis, 1)


def _axes(rows: Rows, node: Node, rank: int | None) -> list[int]:
    """The axes that are removed or added, before the last one, of an array of this rank."""
    given: Any = node.input(1) if rows.version >= 13 else node.attributes.get("axes")
    axes = [] if given is None else np.ravel(given).tolist()
    total = rows.rank + len(axes) if rank is None else rank
    found = sorted(axis % total for axis in axes)
    if not found or found[-1] == total - 1:
        _refuse_shape(rows, node, f"axes {axes}")
    return found


def _refuse_shape(rows: Rows, node: Node, got: str) -> NoReturn:
    shape = ", ".join("?" if size is None else str(size) for size in rows.shape)
    wanted = "keep the columns, or make columns of all axes but the first"
    refuse(node, wanted, f"{got} for an array of shape ({shape})")


LAYERS: dict[str, Callable[[Rows, Node], None]] = {
    "ArrayFeatureExtractor": _extractor,
    "Flatten": _flatten,
    "Gemm": _gemm,
    "LinearClassifier": _linear_classifier,
    "LinearRegressor": _linear_regressor,
    "MatMul": _matmul,
    "Normalizer": _normalizer,
    "Reshape": _reshape,
    "Squeeze": _squeeze,
    "Unsqueeze": _unsqueeze,
}
