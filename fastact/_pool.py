"""The threads that compiled loops share their work among, and what the loops know of them.

Numba's threading layer for TBB is used on its own, without importing Numba, whatever layer
Numba itself has chosen: of its layers it alone may be entered by several threads at once. It is
loaded at the first call that is worth it, by way of a function that stands in its place.
"""

import ctypes
import importlib.machinery
import importlib.util
import os
import sys
from ctypes import CFUNCTYPE, c_int, c_int64, c_size_t, c_void_p
from pathlib import Path

from . import _threads
from ._fan_out import POOL_FIELDS

_PARALLEL_FOR = CFUNCTYPE(None, *[c_void_p] * 5, c_size_t, c_size_t, c_int)
_TASK = CFUNCTYPE(None, *[c_void_p] * 4)

# What a thread has to be given for the fan-out to pay, in picoseconds: twice the time until a
# sleeping thread of TBB's has come (bench/NOTES.md).
_SHARE = 20_000_000

_TBB_NAMES = {"win32": "tbb12.dll", "darwin": "libtbb.12.dylib"}
_TBB_INTERFACE = 12060  # TBB 2021.6, which numba's layer wants


class _Table(ctypes.Structure):
    _fields_ = [(name, c_int64) for name in POOL_FIELDS]


_table = _Table()
layer = "not started"
"""What shares the work: "tbb", "none" for one thread only, or "not started"."""

trouble: Exception | None = None
"""Why it is not TBB, if so."""


def attach(setting: int, cost: float) -> None:
    """Tell a loaded object about the threads.

    Parameters
    ----------
    setting : int
        The address of its ``SETTING``.
    cost : float
        Nanoseconds for a unit of its work.
    """
    _table.count = _threads.default()
    _table.get_limit = _limit_of_numba()
    words = (c_int64 * 2).from_address(setting)
    words[1] = max(1, round(1000 * cost))
    words[0] = ctypes.addressof(_table)


def _limit_of_numba() -> int:
    """The address of the function that tells numba's number of threads, if it has any yet."""
    parallel = sys.modules.get("numba.np.ufunc.parallel")
    if not getattr(parallel, "_is_initialized", False):
        return 0
    return ctypes.cast(parallel._get_num_threads, c_void_p).value or 0


@_PARALLEL_FOR
def _start(task, args, counts, steps, job, inner, operands, threads) -> None:
    """Start the threads, then do the first call."""
    start()
    if _table.parallel_for == _address_of_start:
        return  # nothing is done: the caller sees it and works alone
    _PARALLEL_FOR(_table.parallel_for)(task, args, counts, steps, job, inner, operands, threads)


def start() -> None:
    """Load TBB."""
    global layer, trouble
    try:
        functions = _numba_layer()
    except (ImportError, OSError, AttributeError) as reason:
        layer, trouble = "none", reason
        _table.share = 1 << 62
        return
    _table.get_mask, _table.set_mask = functions.get_num_threads, functions.set_num_threads
    _table.get_limit = _table.get_limit or functions.get_num_threads
    _table.parallel_for = functions.parallel_for
    layer = "tbb"


def _numba_layer():
    """Numba's extension module for TBB."""
    _load_tbb()
    name = "numba.np.ufunc.tbbpool"
    if name in sys.modules:
        return sys.modules[name]
    package = importlib.util.find_spec("numba")
    if package is None or not package.submodule_search_locations:
        raise ImportError("Numba is not found")
    folder = Path(package.submodule_search_locations[0], "np", "ufunc")
    for suffix in importlib.machinery.EXTENSION_SUFFIXES:
        path = folder / f"tbbpool{suffix}"
        if path.exists():
            loader = importlib.machinery.ExtensionFileLoader(name, str(path))
            spec = importlib.util.spec_from_file_location(name, path, loader=loader)
            return importlib.util.module_from_spec(spec)
    raise ImportError("this build of Numba has no layer for TBB")


def _load_tbb() -> ctypes.CDLL:
    """TBB's library, so that numba's layer finds it loaded."""
    name = _TBB_NAMES.get(sys.platform, "libtbb.so.12")
    reason: OSError | None = None
    for path in [name, *_places(name)]:
        try:
            library = ctypes.CDLL(path)
        except OSError as error:
            reason = reason or error
            continue
        if library.TBB_runtime_interface_version() < _TBB_INTERFACE:
            raise ImportError(f"TBB before 2021.6 in {path}")
        return library
    raise ImportError(f"TBB is not found: {reason}")


def _places(name: str):
    """Where pip may have put TBB."""
    for prefix in dict.fromkeys((sys.prefix, sys.exec_prefix, sys.base_prefix)):
        yield str(Path(prefix, *(["Library", "bin"] if os.name == "nt" else ["lib"]), name))
    import importlib.metadata  # 20 ms, where it is elsewhere

    try:
        files = importlib.metadata.files("tbb") or []
    except importlib.metadata.PackageNotFoundError:
        return
    yield from (str(file.locate()) for file in files if file.name == name)


_address_of_start = ctypes.cast(_start, c_void_p).value
_table.parallel_for = _address_of_start
_table.get_count = ctypes.cast(_threads.get_own, c_void_p).value
_table.key = _threads.KEY
_table.share = _SHARE
