"""The rows that the part of an ONNX model that was read so far computes."""

from __future__ import annotations

from typing import Any, NoReturn

import numpy as np

from fastact._dense.folding import Activation, Affine, Part, Scaling
from fastact._dense.onnx_graph import Graph, Node
from fastact._machine.formats import FLOATS, format_of


class Rows:
    """What is known of the rows, and the parts that compute them.

    Attributes
    ----------
    version : int
        Of the operators of ONNX.
    shape : list of (int or None)
        That of the array of rows, as far as it is known.
    parts : list of Affine, Scaling and Activation
    """

    def __init__(self, graph: Graph):
        self.version = graph.version
        self.shape = list(graph.shape)
        self.parts: list[Part] = []
        if not self.shape:
            raise ValueError(
                f"from_onnx: input {graph.source!r} must have an axis of features, got a number"
            )

    @property
    def rank(self) -> int:
        return len(self.shape)

    @property
    def width(self) -> int | None:
        """The number of columns, if it is known."""
        return self.shape[-1]

    @width.setter
    def width(self, width: int | None) -> None:
        self.shape[-1] = width

    def columns(self, node: Node, array: np.ndarray | None) -> np.ndarray:
        """A constant that is broadcast with rows, as an array of shape () or (N,)."""
        array = numbers(node, array)
        number = array.size == 1
        fits = array.ndim <= self.rank and (number or array.size == array.shape[-1])
        if not fits or not (number or self.width in (None, array.size)):
            columns = "each column" if self.width is None else f"each of the {self.width} columns"
            refuse(
                node,
                f"have a number or one for {columns}",
                f"an array of shape {array.shape} for {self.rank} axes",
            )
        return array.reshape(() if number else -1)

    def affine(self, node: Node, W: np.ndarray, b: np.ndarray | None = None) -> None:
        """Add an affine map of the rows."""
        if self.width not in (None, len(W)):
            refuse(node, f"have weights for {self.width} columns", f"an array of shape {W.shape}")
        self.parts.append(Affine(node.name, W, b))
        self.width = W.shape[1]

    def scale(self, parts: list[Part]) -> None:
        """Add parts that keep the number of columns, which they may tell."""
        self.parts += parts
        for part in parts:
            if isinstance(part, Scaling):
                size = max(np.size(part.scale), np.size(part.shift))
                self.width = size if size > 1 else self.width

    def take(self, node: Node, index: np.ndarray) -> None:
        """Take columns of the last affine map, which only scalings may follow."""
        k = len(self.parts) - 1
        while k >= 0 and isinstance(self.parts[k], Scaling):
            k -= 1
        last = self.parts[k] if k >= 0 else None
        if not isinstance(last, Affine):
            refuse(node, "have a layer before it, whose columns it joins or chooses", f"{last}")
        b = None if last.b is None else last.b[index]
        self.parts[k] = Affine(last.name, last.W[:, index], b)
        for after in range(k + 1, len(self.parts)):
            name, *values = self.parts[after]
            taken = (np.asarray(a)[index] if np.ndim(a) else a for a in values)  # type: ignore[arg-type] # of a Scaling
            self.parts[after] = Scaling(name, *taken)  # type: ignore[arg-type] # the same
        self.width = len(index)

    @property
    def adds_up_to_1(self) -> bool:
        """Whether the elements of a row are positive, and their sum is 1."""
        *parts, last = self.parts or [Scaling("")]
        if not isinstance(last, Activation) or last.function not in ("softmax", "sigmoid"):
            return False
        while last.function == "sigmoid" and parts:
            # sigmoid(x) + sigmoid(-x) is 1.
            part = parts.pop()
            if isinstance(part, Activation):
                return False
            same, *opposite = (np.empty((0, 2)) if a is None else np.asarray(a) for a in part[1:])
            if isinstance(part, Affine):
                return self.width == 2 and _opposite(same) and all(map(_opposite, opposite))
            if np.ptp(same) or not all(map(_opposite, opposite)):
                return False
        return last.function == "softmax"


def _opposite(array: np.ndarray) -> bool:
    """Whether one column is -1 times the other."""
    first, second = np.moveaxis(np.broadcast_to(array, (*array.shape[:-1], 2)), -1, 0)
    return bool((first == -second).all())


def numbers(node: Node, array: np.ndarray | None) -> np.ndarray:
    """A constant of floating-point numbers."""
    if array is None:
        refuse(node, "have all its inputs", "one that is left out")
    form = format_of(array.dtype.type)
    if form is None or form.name not in FLOATS:
        refuse(node, f"have constants of {', '.join(FLOATS)}", f"{array.dtype}", TypeError)
    return array


def refuse(node: Node, wanted: str, got: str, error: type[Exception] = ValueError) -> NoReturn:
    """Raise the error that a node must be otherwise."""
    raise error(f"from_onnx: {node.name} must {wanted}, got {got}")


def number(node: Node, array: Any) -> float | None:
    """A constant with one element; None if it is left out."""
    if array is None:
        return None
    if numbers(node, array).size != 1:
        refuse(node, "have a number", f"an array of shape {array.shape}")
    return float(array.reshape(()))
