"""Compute the result of a model for rows in a file."""

import argparse
import errno
import io
import os
import sys
import warnings
from pathlib import Path

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


def _rows(name: str, dtype: np.dtype) -> np.ndarray:
    """The array in a file. Text is read in the type of the model."""
    try:
        return _text(name, dtype) if Path(name).suffix.lower() == ".csv" else _array(name)
    except OSError as reason:
        raise Refused(f"cannot read '{name}': {reason.strerror or reason}") from None
    except ValueError as reason:
        raise Refused(f"'{name}' must contain an array of numbers: {reason}") from None


def _text(name: str, dtype: np.dtype) -> np.ndarray:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "loadtxt: input contained no data", UserWarning)
        # Spreadsheets write a byte order mark, which is no part of the first number.
        found = np.loadtxt(name, dtype, delimiter=",", ndmin=2, encoding="utf-8-sig")
    if not len(found):
        raise ValueError("it has no rows")
    return found


def _array(name: str) -> np.ndarray:
    if name != STANDARD and os.path.isfile(name):
        with open(name, "rb") as stream:
            _check_single(stream.read(len(_ARCHIVE)))
        return np.lib.format.open_memmap(name, mode="r")
    # Pipes can be read only once.
    if name != STANDARD:
        content = Path(name).read_bytes()
    elif sys.stdin is None:  # closed, as by the shell's <&-
        raise OSError(errno.EBADF, os.strerror(errno.EBADF))
    else:
        content = sys.stdin.buffer.read()
    _check_single(content)
    return np.lib.format.read_array(io.BytesIO(content), allow_pickle=False)


_ARCHIVE = b"PK"
"""The first bytes of an .npz file."""


def _check_single(content: bytes) -> None:
    if content.startswith(_ARCHIVE):
        raise ValueError("it is an archive, as numpy.savez writes; save one array with numpy.save")
