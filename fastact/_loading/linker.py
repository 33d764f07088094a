"""Machine code in this process: object files made executable through llvmlite's linker.

Code and constants refer to constants by 32-bit offsets; if a distance is larger, the linker ends
the process. So all sections of an object are placed in one block of memory.
"""

import functools
from collections.abc import Iterable

import llvmlite.binding as llvm


@functools.cache
def _native() -> llvm.Target:
    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    return llvm.Target.from_triple(llvm.get_process_triple())


def _linker() -> llvm.ExecutionEngine:
    """A linker for a single object, since other objects define symbols of the same names."""
    nothing = llvm.parse_assembly("", llvm.create_context())
    # use_lmm: llvmlite's memory manager reserves one block for all sections, LLVM's does not.
    linker = llvm.create_mcjit_compiler(nothing, _native().create_target_machine(), use_lmm=True)
    linker.remove_module(nothing)  # otherwise it would be compiled
    return linker


def load(object_code: bytes, symbol: str) -> int:
    """Make `object_code` executable and return the address of `symbol` in it."""
    return load_all(object_code, [symbol])[symbol]


def load_all(object_code: bytes, symbols: Iterable[str]) -> dict[str, int]:
    """Make `object_code` executable and return the addresses of `symbols` in it.

    It must refer to no external symbol; ``pipeline.emit`` ensures that.
    """
    linker = _linker()
    linker.add_object_file(llvm.ObjectFileRef.from_data(object_code))
    linker.finalize_object()
    addresses = {symbol: linker.get_global_value_address(symbol) for symbol in symbols}
    for symbol, address in addresses.items():
        if not address:
            raise RuntimeError(f"no symbol {symbol!r} in the compiled code")
    linker.detach()  # code is never unloaded, since ufuncs hold raw pointers into it
    return addresses
