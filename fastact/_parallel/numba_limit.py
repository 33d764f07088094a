"""Numba's own number of threads, ``numba.set_num_threads``, which is a limit of ours too."""

import ctypes
import sys
from typing import Any


def of_running() -> int:
    """The address of the function that tells it, if numba has started threads; else 0."""
    parallel: Any = sys.modules.get("numba.np.ufunc.parallel")
    try:
        if parallel._is_initialized:
            return ctypes.cast(parallel._get_num_threads, ctypes.c_void_p).value or 0
    except Exception:  # there is none, or something else is in its place
        pass
    return 0


def of_tbb() -> int:
    """The same of numba's layer for TBB, whether numba has started it yet or not."""
    from fastact._parallel import tbb

    try:
        return int(tbb.numba_layer().get_num_threads)
    except Exception:
        return 0
