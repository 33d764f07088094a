"""Files that verbs read and write."""

from pathlib import Path
from typing import TYPE_CHECKING

from fastact._cli import Refused
from fastact._loading import whole_file

if TYPE_CHECKING:
    from fastact import Dense, Gated, Sequential


def load_model(path: Path) -> "Dense | Gated | Sequential":
    """The model in a file: an ONNX model, or a layer or stack that was saved by this package."""
    import fastact

    try:
        if path.suffix.lower() == ".onnx":
            return fastact.Sequential.from_onnx(path)
        return fastact.load(path)
    except OSError as reason:
        raise Refused(f"cannot read '{path}': {reason.strerror}") from None
    except (ImportError, TypeError, ValueError) as reason:
        raise Refused(f"cannot convert '{path}': {reason}") from reason


def write(path: Path, content: bytes) -> None:
    """Replace the file at `path` in one step, so that a failure keeps its old content."""
    try:
        whole_file.put(str(path), [content], lasting=False)
    except OSError as reason:
        raise Refused(f"cannot write '{path}': {reason.strerror}") from None
