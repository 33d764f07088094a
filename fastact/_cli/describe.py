"""Print the layers of a model, with the number of parameters and their size."""

import argparse
from pathlib import Path
from typing import Any

import numpy as np

from fastact._cli._files import load_model

SUMMARY = "Print the layers of a model, with their shapes, types and sizes."

HEADERS = ("layer", "shape", "activation", "dtype", "parameters", "bytes")
NUMBERS = 4  # the columns from here on are numbers


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument(
        "model",
        metavar="MODEL",
        type=Path,
        help="a file that ends in .onnx, or one that was saved by this package",
    )


def run(options: argparse.Namespace) -> int:
    """Print the table."""
    from fastact import Sequential

    model = load_model(options.model)
    layers = model.layers if isinstance(model, Sequential) else [model]
    rows = [(k, *_described(layer)) for k, layer in enumerate(layers)]
    count, size = (sum(row[column] for row in rows) for column in (4, 5))
    total = ("total", _shape(model), "", model.dtype, count, size)
    lines = [[str(cell) for cell in row] for row in (HEADERS, *rows, total)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    for line in lines:
        texts, numbers = line[:NUMBERS], line[NUMBERS:]
        cells = [cell.ljust(width) for cell, width in zip(texts, widths, strict=False)]
        cells += [cell.rjust(width) for cell, width in zip(numbers, widths[NUMBERS:], strict=True)]
        print("  ".join(cells))
    if isinstance(model, Sequential) and model.classes_ is not None:
        print(f"classes: {', '.join(map(str, model.classes_))}")
    return 0


def _described(layer: Any) -> tuple[Any, ...]:
    """The cells of a layer after its number."""
    from fastact import Dense, Gated
    from fastact._dense.compact import MEMORY

    if not isinstance(layer, Dense | Gated):  # an activation
        values = getattr(layer, "parameters", ())
        count = sum(np.size(value) for value in values)
        name = getattr(layer, "name", getattr(layer, "__name__", layer))
        return "", name, "", count, 8 * count  # in float64
    has_bias = layer._has_bias  # an entry for each matrix
    weights = len(has_bias) * layer.in_features * layer.out_features
    biases = sum(has_bias) * layer.out_features
    values = sum(np.size(value) for value in layer.parameters.values())
    stored = layer.weights_dtype or layer.dtype.name
    scales = len(has_bias) * layer.out_features if stored == "int8" else 0
    size = weights * MEMORY[stored].itemsize + (biases + values) * layer.dtype.itemsize + 4 * scales
    kind = "gated, " * isinstance(layer, Gated)
    return _shape(layer), kind + layer.activation, stored, weights + biases + values, size


def _shape(layer: Any) -> str:
    return f"{layer.in_features} -> {layer.out_features}"
