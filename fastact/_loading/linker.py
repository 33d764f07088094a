"""Machine code in this process: object files made executable through llvmlite's linker.

Code reaches its constants, and they each other, by distances of 32 bits; a linker that finds them
further apart ends the process. So each object gets one block of memory, with all of its sections.
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
    """A linker for one object: others have symbols of the same names."""
    nothing = llvm.parse_assembly("", llvm.create_context())
    # llvmlite's own memory manager is the one that reserves a block for all sections.
    linker = llvm.create_mcjit_compiler(nothing, _native().create_target_machine(), use_lmm=True)
    linker.remove_module(nothing)  # or it would be compiled
    return linker


def load(object_code: bytes, symbol: str) -> int:
    """Make `object_code` executable and return the address of `symbol` in it."""
    return load_all(object_code, [symbol])[symbol]


def load_all(object_code: bytes, symbols: Iterable[str]) -> dict[str, int]:
    """Make `object_code` executable and return the addresses of `symbols` in it.

    It must refer to no symbol of others, which ``pipeline.emit`` sees to.
    """
    linker = _linker()
    linker.add_object_file(llvm.ObjectFileRef.from_data(object_code))
    linker.finalize_object()
    addresses = {symbol: linker.get_global_value_address(symbol) for symbol in symbols}
    for symbol, address in addresses.items():
        if not address:
            raise RuntimeError(f"no symbol {symbol!r} in the compiled code")
    linker.detach()  # code is never unloaded: ufuncs hold bare pointers into it
    return addresses
