"""Machine code in this process: object files made executable through llvmlite's linker."""

import functools
import itertools
from collections.abc import Iterable

import llvmlite.binding as llvm

ENTRY = "loop"  # the function that every object file of a ufunc's loop is made for
ALONE = "loop_alone"  # the same without sharing its work among threads

RUN = "run"  # what converts a run of elements
TABLE = "table"  # the words of a loop that leaves the work to others

_numbers = itertools.count()
_resident = []  # code is never unloaded: ufuncs hold bare pointers into it


@functools.cache
def _linker():
    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    return llvm.create_lljit_compiler()


def load(object_code: bytes, symbol: str) -> int:
    """Make `object_code` executable and return the address of `symbol` in it."""
    return load_all(object_code, [symbol])[symbol]


def load_all(object_code: bytes, symbols: Iterable[str]) -> dict[str, int]:
    """Make `object_code` executable and return the addresses of `symbols` in it."""
    library = llvm.JITLibraryBuilder().add_object_img(object_code)
    for symbol in symbols:
        library.export_symbol(symbol)
    linked = library.link(_linker(), f"fastact-{next(_numbers)}")
    _resident.append(linked)
    return {symbol: linked[symbol] for symbol in symbols}
