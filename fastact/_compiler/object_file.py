"""The symbols and sections that an object file in ELF format, as on Linux, refers to.

Other formats are not read. See the System V ABI, "Object Files". All targets are little-endian and
64-bit.
"""

import struct
from collections.abc import Iterator

_SYMBOL_TABLE, _RELOCATIONS = 2, 4  # kinds of sections
_UNDEFINED = 0  # the section number of an undefined symbol


def is_elf(object_code: bytes) -> bool:
    """Whether `object_code` is in ELF format."""
    return object_code.startswith(b"\x7fELF")


def _sections(object_code: bytes) -> list[tuple[int, ...]]:
    """The section headers: name, kind, flags, address, offset, size, link, ..."""
    (start,) = struct.unpack_from("<Q", object_code, 40)
    size, count = struct.unpack_from("<HH", object_code, 58)
    return [struct.unpack_from("<2I4Q2I2Q", object_code, start + i * size) for i in range(count)]


def _content(object_code: bytes, section: tuple[int, ...]) -> bytes:
    return object_code[section[4] : section[4] + section[5]]


def _symbols(object_code: bytes) -> list[tuple[str, int]]:
    """The name of each symbol, and the number of the section that defines it."""
    found = []
    sections = _sections(object_code)
    for section in sections:
        if section[1] == _SYMBOL_TABLE:
            names = _content(object_code, sections[section[6]])
            for name, _, _, number, _, _ in struct.iter_unpack(
                "<IBBHQQ", _content(object_code, section)
            ):
                found.append((names[name : names.index(b"\0", name)].decode(), number))
    return found


def undefined(object_code: bytes) -> list[str]:
    """The symbols that the file uses but does not define; none if it is not ELF."""
    if not is_elf(object_code):
        return []
    return [name for name, section in _symbols(object_code) if name and section == _UNDEFINED]


def relocations(object_code: bytes) -> Iterator[tuple[int, int]]:
    """The kind of each relocation, and the number of the section that it refers to."""
    symbols = _symbols(object_code)
    for section in _sections(object_code):
        if section[1] == _RELOCATIONS:
            for _, info, _ in struct.iter_unpack("<QQq", _content(object_code, section)):
                yield info & 0xFFFFFFFF, symbols[info >> 32][1]


def section_names(object_code: bytes) -> list[str]:
    """The names of the sections."""
    sections = _sections(object_code)
    (number,) = struct.unpack_from("<H", object_code, 62)
    names = _content(object_code, sections[number])
    return [names[s[0] : names.index(b"\0", s[0])].decode() for s in sections]
