"""Compute the result of a model for rows in a file."""

import argparse
import io
import sys
import zipfile
from pathlib import Path
from typing import Any

import numpy as np

from fastact._cli import Refused
from fastact._cli._files import load_model, write

SUMMARY = "Compute the result of a model for rows in a file."

STANDARD = "-"


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument(
        "model",
        metavar="MODEL",
        type=Path,
        help="a file that ends in .onnx, or one that was saved by this package",
    )
    parser.add_argument(
        "-i",
        "--input",
        metavar="FILE",
        required=True,
        help="the rows: an array in a .npy file, numbers in a .csv file, or - for a .npy file on "
        "standard input",
    )
    parser.add_argument(
        "-o",
        "--output",
        metavar="FILE",
        required=True,
        help="the .npy file to write, or - for standard output",
    )


def run(options: argparse.Namespace) -> int:
    """Compute the result, and write it."""
    model = load_model(options.model)
    x = _rows(options.input, model.dtype)
    try:
        y = model(x)
    except (TypeError, ValueError) as reason:
        raise Refused(f"'{options.model}' cannot take '{options.input}': {reason}") from reason
    content = io.BytesIO()
    np.save(content, y)
    if options.output != STANDARD:
        write(Path(options.output), content.getvalue())
        return 0
    sys.stdout.buffer.write(content.getbuffer())
    sys.stdout.buffer.flush()
    return 0


def _rows(name: str, dtype: np.dtype) -> Any:
    """The array in a file. Text is read in the type of the model."""
    try:
        if name == STANDARD:
            return np.load(io.BytesIO(sys.stdin.buffer.read()), allow_pickle=False)
        if Path(name).suffix.lower() == ".csv":
            return np.loadtxt(name, dtype, delimiter=",", ndmin=2, encoding="utf-8")
        found = np.load(name, mmap_mode="r", allow_pickle=False)
    except OSError as reason:
        raise Refused(f"cannot read '{name}': {reason.strerror or reason}") from None
    except (EOFError, ValueError, zipfile.BadZipFile) as reason:
        raise Refused(f"'{name}' must contain an array of numbers: {reason}") from None
    if not isinstance(found, np.ndarray):
        found.close()
        raise Refused(f"'{name}' must contain one array, got several; save it with numpy.save")
    return found
