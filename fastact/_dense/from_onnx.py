"""Conversion of ONNX models to layers.

`onnx_graph` reads a model as a chain of steps. Operators with weights become parts one by one.
Element-wise operators between them are divided into runs, each of which `formulas` recognises as an
activation or a scaling, since exporters write many activations as several operators.
"""

from __future__ import annotations

import itertools
from typing import Any, NamedTuple

import numpy as np

from fastact._dense.activated import Activated
from fastact._dense.folding import Activation, Part, Scaling, fold
from fastact._dense.formulas import Formula, Formulas, TooLarge, applied, recognised
from fastact._dense.layers import Dense
from fastact._dense.onnx_graph import Graph, Node, read
from fastact._dense.onnx_operators import ARITHMETIC, ELEMENT_WISE, LAYERS
from fastact._dense.onnx_rows import Rows, refuse
from fastact._runtime.undisturbed import undisturbed

_CONCAT = "Concat"
_SUPPORTED = sorted({*ARITHMETIC, *ELEMENT_WISE, *LAYERS, _CONCAT})

Known = dict[str, Formula]
"""The formulas of values, in terms of a value before them."""


class _Run(NamedTuple):
    """Steps that are an activation or a scaling.

    Attributes
    ----------
    parts : list of Scaling and Activation
    length : int
        The number of steps.
    rank : tuple of int
        The number of these and of the steps in the runs after them, and less the number of all
        their parts: the largest is best.
    """

    parts: list[Part]
    length: int
    rank: tuple[int, int]


_NONE = _Run([], 0, (0, 0))

_Runs = dict[str, _Run]
"""By the value that they begin with."""


def stack(model: Any, output: str | None) -> tuple[list[Dense | Activated], np.ndarray | None]:
    """The layers of `model`, and its classes if these are as many as the columns of the result."""
    graph = read(model, output)
    # Constants are combined in the default floating-point environment.
    rows = undisturbed(lambda: rows_of(graph))
    classes = graph.classes
    if classes is not None and len(classes) != rows.width:
        classes = None
    return fold("from_onnx", rows.parts), classes


def rows_of(graph: Graph) -> Rows:
    """The rows that all steps of a graph compute."""
    steps, value, rows = graph.steps, graph.source, Rows(graph)
    runs: _Runs = {}
    if steps and not graph.is_float and steps[0][0].operator != "Cast":
        raise TypeError(
            f"from_onnx: input {value!r} must be of floating-point numbers, or converted by Cast "
            f"at once, got integers for {steps[0][0].name}"
        )
    while steps:
        count = _join(rows, steps, value) or _activation(rows, steps, value, runs)
        if not count:
            _layer(rows, steps[0], value)
            count = 1
        value = steps[count - 1][-1].output
        steps = steps[count:]
    return rows


def _activation(rows: Rows, steps: list[list[Node]], value: str, runs: _Runs) -> int:
    """Convert a run of steps that is an activation or a scaling; its length."""
    if value not in runs:
        _divide(rows, steps, value, runs)
    run = runs.get(value, _NONE)
    rows.scale(run.parts)
    return run.length


def _divide(rows: Rows, steps: list[list[Node]], value: str, runs: _Runs) -> None:
    """Divide element-wise steps into runs: as many steps as possible, of as few parts as possible.

    The longest run may end within an activation: at the sigmoid of a sum, before its logarithm.
    """
    steps = list(itertools.takewhile(_is_element_wise, steps))
    values = [value, *(step[-1].output for step in steps)]
    for start in reversed(range(len(steps))):
        known = {values[start]: Formulas().x}
        best = _NONE
        for end, step in enumerate(steps[start:], start + 1):
            if not _read(rows, step, known):
                break
            parts = recognised(step[-1].name, known[step[-1].output])
            if parts is not None:
                after, left = runs.get(values[end], _NONE).rank
                found = _Run(parts, end - start, (end - start + after, left - len(parts)))
                best = max(best, found, key=lambda run: run.rank)
        runs[values[start]] = best


def _is_element_wise(step: list[Node]) -> bool:
    return all(node.operator in ARITHMETIC or node.operator in ELEMENT_WISE for node in step)


def _read(rows: Rows, nodes: list[Node], known: Known) -> bool:
    """Add what nodes compute to `known`; False if they are not element-wise."""
    try:
        for node in nodes:
            formula = _formula(rows, node, known)
            if formula is None:
                return False
            known[node.output] = formula
    except TooLarge:
        return False
    return True


def _formula(rows: Rows, node: Node, known: Known) -> Formula | None:
    """What an element-wise operator computes; None for others."""
    if node.operator in ARITHMETIC:
        formulas = next(iter(known.values())).formulas
        operands = [
            known[given] if isinstance(given, str) else _constant(rows, node, given, formulas)
            for given in node.inputs
        ]
        return ARITHMETIC[node.operator](node, *operands)
    if node.operator not in ELEMENT_WISE:
        return None
    _check_input(node)
    return applied(ELEMENT_WISE[node.operator](rows, node), known[node.values[0]])


def _constant(rows: Rows, node: Node, given: np.ndarray | None, formulas: Formulas) -> Formula:
    if node.operator == "Pow" and given is not None:
        given = np.asarray(given, np.float64)  # an exponent may be an integer
    array = rows.columns(node, given)
    known = {"float64": 2.0**-52, "float32": 2.0**-23, "float16": 2.0**-10, "bfloat16": 2.0**-7}
    return formulas.constant(array, known[array.dtype.name])


def _layer(rows: Rows, step: list[Node], value: str) -> None:
    """Convert a step that is no activation."""
    node = step[-1]
    if len(step) == 1 and node.operator in LAYERS:
        _check_input(node)
        LAYERS[node.operator](rows, node)
        return
    if rows.adds_up_to_1 and _divides_by_sum(step, value):
        return
    unknown = next((n for n in step if n.operator not in _SUPPORTED), None)
    if unknown is not None:
        refuse(
            unknown,
            f"have one of the operators {', '.join(_SUPPORTED)}",
            unknown.operator,
            TypeError,
        )
    names = ", ".join(node.name for node in step)
    raise ValueError(
        f"from_onnx: {names} must compute an activation of {value!r}, got another formula, or a "
        "branch around a layer"
    )


def _divides_by_sum(step: list[Node], value: str) -> bool:
    """Whether nodes divide an array by the sums of its rows, as scikit-learn's converter does."""
    if [node.operator for node in step] != ["Abs", "ReduceSum", "Div"]:
        return False
    absolute, total, quotient = step
    axes = total.input(1) if len(total.inputs) > 1 else total.attributes.get("axes")
    return (
        np.array_equal(np.ravel(axes), [1])  # type: ignore[arg-type] # None is no axis
        and total.attributes.get("keepdims", 1) == 1
        and total.values == [absolute.output]
        and quotient.values == [value, total.output]
    )


def _check_input(node: Node) -> None:
    if len(node.values) != 1 or not isinstance(node.inputs[0], str):
        refuse(
            node,
            "have constants as all inputs but the first",
            f"{', '.join(map(repr, node.values))}, which depend on the input of the model",
        )


class _Branch(NamedTuple):
    """``function(x * scale + shift)``."""

    scale: np.ndarray
    shift: np.ndarray
    function: Any


def _join(rows: Rows, steps: list[list[Node]], value: str) -> int:
    """Convert steps that join columns, each an activation of the same ones; their number.

    Classifiers of two classes are exported with one column, which is joined with its opposite.
    """
    known = {value: Formulas().x}
    for k, step in enumerate(steps):
        *before, last = step
        if last.operator != _CONCAT:
            if not _read(rows, step, known):
                return 0
            continue
        along_rows = last.attributes["axis"] in (-1, rows.rank - 1)
        if not along_rows or rows.width is None or not _read(rows, before, known):
            return 0
        branches = [_branch(last, given, known) for given in last.inputs]
        found = [branch for branch in branches if branch is not None]
        functions = {branch.function for branch in found}
        if len(found) < len(branches) or len(functions) > 1:
            return 0
        rows.take(last, np.tile(np.arange(rows.width), len(found)))
        each = rows.width // len(found)
        scale = np.concatenate([np.broadcast_to(branch.scale, each) for branch in found])
        shift = np.concatenate([np.broadcast_to(branch.shift, each) for branch in found])
        rows.scale([Scaling(last.name, scale, shift), Activation(last.name, functions.pop())])
        return k + 1
    return 0


def _branch(node: Node, given: Any, known: Known) -> _Branch | None:
    """What an input of a node is, if it is an activation; 1 - sigmoid(x) is sigmoid(-x)."""
    parts = recognised(node.name, known[given]) if isinstance(given, str) else None
    if parts is None:
        return None
    scale, shift, function = np.array(1.0), np.array(0.0), None
    for part in parts:
        if isinstance(part, Activation) and isinstance(part.function, str):
            function = part.function
        elif isinstance(part, Scaling) and function is None:
            scale, shift = np.asarray(part.scale), np.asarray(part.shift)
        elif part[1:] == (-1, 1) and function == "sigmoid":
            scale, shift = -scale, -shift
        else:
            return None
    return _Branch(scale, shift, function)
