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
    model = load_model(options.model)
    rows = [(k, *_described(layer)) for k, layer in enumerate(model)]
    count, size = (sum(row[column] for row in rows) for column in (4, 5))
    total = ("total", _shape(model), "", model.dtype, count, size)
    lines = [[str(cell) for cell in row] for row in (HEADERS, *rows, total)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    for line in lines:
        texts, numbers = line[:NUMBERS], line[NUMBERS:]
        cells = [cell.ljust(width) for cell, width in zip(texts, widths, strict=False)]
        cells += [cell.rjust(width) for cell, width in zip(numbers, widths[NUMBERS:], strict=True)]
        print("  ".join(cells))
    if model.classes_ is not None:
        print(f"classes: {', '.join(map(str, model.classes_))}")
    return 0


def _described(layer: Any) -> tuple[Any, ...]:
    """The cells of a layer after its number."""
    from fastact import Dense

    if not isinstance(layer, Dense):  # an activation
        return "", getattr(layer, "name", getattr(layer, "__name__", layer)), "", 0, 0
    weights = layer.in_features * layer.out_features
    biases = 0 if layer.b is None else layer.out_features
    values = sum(np.size(value) for value in layer.parameters.values())
    size = (biases + values) * layer.dtype.itemsize
    if layer.weights_dtype is None:
        size += weights * layer.dtype.itemsize
    else:
        scales = layer.out_features * layer.dtype.itemsize if layer.weights_dtype == "int8" else 0
        size += weights * (1 if layer.weights_dtype == "int8" else 2) + scales
    dtype = layer.weights_dtype or layer.dtype
    return _shape(layer), layer.activation, dtype, weights + biases + values, size


def _shape(layer: Any) -> str:
    return f"{layer.in_features} -> {layer.out_features}"
