"""Machine code in this process: object files made executable through llvmlite's linker."""

import itertools

import llvmlite.binding as llvm

_names = (f"fastact-{i}" for i in itertools.count())
_resident = []  # code is never unloaded: ufuncs hold bare pointers into it


def load(object_code: bytes, symbol: str) -> int:
    """Make `object_code` executable and return the address of `symbol` in it."""
    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    linker = llvm.create_lljit_compiler()
    name = next(_names)
    tracker = (
        llvm.JITLibraryBuilder()
        .add_object_img(object_code)
        .export_symbol(symbol)
        .link(linker, name)
    )
    _resident.append((linker, tracker))
    return tracker[symbol]
