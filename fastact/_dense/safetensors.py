"""Files of named arrays in the format of safetensors, read by mapping them into memory.

A file consists of the length of the header (8 bytes, little-endian), the header (JSON in UTF-8),
and the elements of the arrays (in C order, little-endian, one array after another, without gaps).
The header has an entry for each array, ``"name": {"dtype": "F32", "shape": [2, 3], "data_offsets":
[0, 24]}``, and one for texts: ``"__metadata__": {"name": "text"}``.
The format is described at https://huggingface.co/docs/safetensors.

The package safetensors is not used, since it copies each array (``get_tensor`` of version 0.8), and
of keys that occur twice it takes the last. It also has bfloat16 as an array only with ml_dtypes,
which weights of fewer bits do not need. The tests read files of each with the other.
"""

from __future__ import annotations

import functools
import json
import math
import mmap
import os
import stat
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np

from fastact._loading import whole_file

LARGEST_HEADER = 100_000_000
"""Bytes; the limit of the package safetensors, too."""

_PREFIX = 8  # bytes of the length of the header
_ALIGNMENT = 8  # of the elements in the file
_METADATA = "__metadata__"
_CODES = {
    "float64": "F64",
    "float32": "F32",
    "float16": "F16",
    "bfloat16": "BF16",
    "complex64": "C64",
    "bool": "BOOL",
    **{f"int{bits}": f"I{bits}" for bits in (8, 16, 32, 64)},
    **{f"uint{bits}": f"U{bits}" for bits in (8, 16, 32, 64)},
}
_NAMES = {code: name for name, code in _CODES.items()}

TYPES = frozenset(_CODES)
"""The names of the types of elements: those of NumPy, and "bfloat16"."""


class Entry(NamedTuple):
    """An array of a file.

    Attributes
    ----------
    type : str
        One of `TYPES`.
    shape : tuple of int
    array : callable
        ``array()``: an array of this type and shape; for "bfloat16", it may also be uint16, and
        for a file that was read it is. That of a file that was read is read-only, and reads the
        elements from the file as they are used.
    """

    type: str
    shape: tuple[int, ...]
    array: Callable[[], np.ndarray]

    @property
    def size(self) -> int:
        """Bytes of the elements."""
        return math.prod(self.shape) * memory(self.type).itemsize


def memory(name: str) -> np.dtype[Any]:
    """The type of arrays that are read."""
    return np.dtype("uint16" if name == "bfloat16" else name)


def entry(array: np.ndarray) -> Entry:
    """The entry of an array whose type is one of `TYPES`."""
    return Entry(array.dtype.name, array.shape, lambda: array)


def write(path: str, entries: Mapping[str, Entry], metadata: Mapping[str, str]) -> None:
    """Put a file of these arrays and texts in the place of `path`; see ``whole_file.put``.

    Elements are next to each other and aligned, as in files of the package: arrays of larger
    elements come first. Arrays are made one after another.
    """
    ordered = sorted(entries.items(), key=lambda item: -memory(item[1].type).itemsize)
    header: dict[str, Any] = {_METADATA: dict(metadata)}
    end = 0
    for name, e in ordered:
        start, end = end, end + e.size
        header[name] = {
            "dtype": _CODES[e.type],
            "shape": list(e.shape),
            "data_offsets": [start, end],
        }
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % _ALIGNMENT)
    if len(text) > LARGEST_HEADER:
        raise ValueError(
            f"the header of a file must have at most {LARGEST_HEADER} bytes, got {len(text)}"
        )

    def parts() -> Iterator[bytes | memoryview]:
        yield len(text).to_bytes(_PREFIX, "little")
        yield text
        for _, e in ordered:
            yield _elements(e)

    whole_file.put(path, parts(), lasting=True)


def _elements(e: Entry) -> bytes | memoryview:
    array = e.array()
    if not array.size:  # memoryview cannot cast these
        return b""
    if e.type == "bfloat16":
        array = array.view(np.uint16)
    return array.astype(_little(e.type), order="C", copy=False).reshape(-1).view(np.uint8).data


def read(path: str) -> tuple[dict[str, Entry], dict[str, str]]:
    """The arrays and the texts of a file.

    Raises
    ------
    ValueError
        If the file is not as described above. Nothing is allocated according to a size that the
        file does not have.
    OSError
        If it cannot be read.
    """
    if not stat.S_ISREG(os.stat(path).st_mode):  # the next line would wait for a pipe
        raise ValueError("it must be a regular file, got a folder, device or pipe")
    with open(path, "rb") as stream:
        size = os.fstat(stream.fileno()).st_size
        if size < _PREFIX:
            raise ValueError(f"it must have {_PREFIX} bytes or more, got {size}")
        mapped = mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ)
    length = int.from_bytes(mapped[:_PREFIX], "little")
    most = min(LARGEST_HEADER, len(mapped) - _PREFIX)
    if length > most:
        raise ValueError(f"it must have a header of at most {most} bytes, got a length of {length}")
    first = _PREFIX + length
    try:
        text = mapped[_PREFIX:first].decode()
    except UnicodeDecodeError as error:
        raise ValueError(f"it must have a header in UTF-8, got an error: {error}") from error
    header = parsed("the header", text)
    metadata = header.pop(_METADATA, {})
    if not _is_texts(metadata):
        raise ValueError(f"it must have texts by name in {_METADATA}, got {shown(metadata)}")
    found, end = {}, 0
    # Empty arrays begin where others do.
    places = {name: _place(name, described) for name, described in header.items()}
    for name, (kind, shape, begin, stop) in sorted(places.items(), key=lambda item: item[1][2:]):
        read_ = functools.partial(_mapped, mapped, first + begin, kind, shape)
        found[name] = Entry(kind, shape, read_)
        if begin != end or stop - begin != found[name].size:
            raise ValueError(
                f"it must have {shown(name)}, {kind} of shape {shape}, at bytes {end} to "
                f"{end + found[name].size} of the elements, got {begin} to {stop}"
            )
        end = stop
    if end != len(mapped) - first:
        raise ValueError(f"it must have {end} bytes of elements, got {len(mapped) - first}")
    return found, metadata


def parsed(what: str, text: str) -> dict[str, Any]:
    """The object that `text` is in JSON; ValueError if it is none, or has a key twice."""
    if not text.startswith("{"):
        raise ValueError(f"it must have an object in JSON as {what}, got {shown(text)}")
    try:
        found = json.loads(text, object_pairs_hook=_once, parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"it must have valid JSON as {what}, got an error: {error}") from error
    return found  # type: ignore[no-any-return] # an object, as it begins like one


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        [(name, _)] = Counter(name for name, _ in pairs).most_common(1)
        raise ValueError(f"the key {shown(name)} twice")
    return found


def _no_constant(name: str) -> None:
    raise ValueError(f"{name}, which JSON does not have")


def _is_texts(metadata: Any) -> bool:
    return isinstance(metadata, dict) and all(isinstance(text, str) for text in metadata.values())


def _place(name: str, described: Any) -> tuple[str, tuple[int, ...], int, int]:
    """The type, the shape, and the first and last byte of an array, each valid by itself."""
    match described:
        case {"dtype": str(code), "shape": list(shape), "data_offsets": [begin, stop], **others}:
            if (
                not others
                and code in _NAMES
                and all(type(n) is int and 0 <= n < 1 << 63 for n in (*shape, begin, stop))
                and len(shape) <= 64
            ):
                return _NAMES[code], tuple(shape), begin, stop
    raise ValueError(
        f"it must have a dtype of {', '.join(_NAMES)}, a shape and two data_offsets "
        f"for {shown(name)}, got {shown(described)}"
    )


def _mapped(mapped: mmap.mmap, start: int, kind: str, shape: tuple[int, ...]) -> np.ndarray:
    dtype = memory(kind)
    count = math.prod(shape)
    if not count:
        return np.empty(shape, dtype)
    array = np.frombuffer(mapped, _little(kind), count, start).reshape(shape)
    # Other programs may write files whose elements are not aligned.
    return np.require(array, dtype, "A")


def _little(kind: str) -> np.dtype[Any]:
    return memory(kind).newbyteorder("<")


def shown(value: Any) -> str:
    """The beginning of what may be long, for messages."""
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:80]}..."
