"""The layer "tbb": Numba's threading layer for TBB.

It is the only one of Numba's layers that several threads may enter at once. It is loaded whichever
layer Numba has chosen, and without importing Numba. The extra "tbb" of this package installs TBB.

A forked child of a process that has used TBB does not use it: TBB has lost its threads there, and
maybe a lock that one of them held.
"""

import ctypes
import importlib.machinery
import importlib.util
import itertools
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from fastact._parallel.protocol import Functions

NAME = "tbb"

# sigmoid of 16,384 float32 takes 9 us, and longer with TBB's threads (bench/NOTES.md).
SHARE = 20_000_000

_LIBRARIES = {"win32": "tbb12.dll", "darwin": "libtbb.12.dylib"}
_INTERFACE = 12060  # TBB 2021.6, which Numba's layer needs
_MODULE = "numba.np.ufunc.tbbpool"

_begun = False
_lost = False  # whether this process was forked from one that had begun


def foresee() -> None:
    """See `protocol.Layer`: load TBB, which starts no threads before there is work."""
    if _lost:
        raise ImportError("this process was forked")
    numba_layer()


def begin() -> Functions:
    """See `protocol.Layer`."""
    global _begun
    foresee()
    _begun = True
    layer = numba_layer()
    return Functions(layer.parallel_for, layer.get_num_threads, layer.set_num_threads)


def after_fork() -> None:
    """See `protocol.Layer`: a child of a process that has not begun loses nothing."""
    global _lost
    _lost = _lost or _begun


def numba_layer() -> Any:
    """The extension module, whose attributes are addresses of functions.

    Raises
    ------
    ImportError
        If TBB or the layer is missing; the message says which.
    """
    _load_library()
    if _MODULE in sys.modules:
        return sys.modules[_MODULE]
    try:
        package = importlib.util.find_spec("numba")
    except ValueError:  # sys.modules has something without a spec under that name
        package = None
    if package is None or not package.submodule_search_locations:
        raise ImportError("Numba is not found")
    folder = Path(package.submodule_search_locations[0], "np", "ufunc")
    for suffix in importlib.machinery.EXTENSION_SUFFIXES:
        path = folder / f"tbbpool{suffix}"
        if path.exists():
            loader = importlib.machinery.ExtensionFileLoader(_MODULE, str(path))
            spec = importlib.util.spec_from_file_location(_MODULE, path, loader=loader)
            assert spec is not None  # because a loader is given
            return importlib.util.module_from_spec(spec)
    raise ImportError("this build of Numba has no layer for TBB")


def _load_library() -> None:
    """Load TBB, also from where pip puts it, so that Numba's layer finds it loaded."""
    name = _LIBRARIES.get(sys.platform, "libtbb.so.12")
    reasons = []
    for path in itertools.chain([name], _places(name)):
        try:
            library = ctypes.CDLL(path)
        except OSError as reason:
            reasons.append(reason)
            continue
        if library.TBB_runtime_interface_version() < _INTERFACE:
            raise ImportError(f"TBB in {path} is older than 2021.6")
        return
    raise ImportError(f'TBB is not found, pip install "fastact[tbb]" installs it: {reasons[-1]}')


def _places(name: str) -> Iterator[str]:
    folder = ("Library", "bin") if os.name == "nt" else ("lib",)
    for prefix in dict.fromkeys((sys.prefix, sys.base_prefix)):
        yield str(Path(prefix, *folder, name))
    import importlib.metadata  # slow, and needed only if TBB is elsewhere

    try:
        files = importlib.metadata.files("tbb") or []
    except importlib.metadata.PackageNotFoundError:
        return
    yield from (str(file.locate()) for file in files if file.name == name)
