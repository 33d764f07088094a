"""Numba's number of threads, ``numba.set_num_threads``, which also limits the number of ours."""

import ctypes
import sys
from typing import Any


def of_running() -> int:
    """The address of the function that returns it, or 0 if Numba has started no threads."""
    parallel: Any = sys.modules.get("numba.np.ufunc.parallel")
    try:
        if parallel._is_initialized:
            return ctypes.cast(parallel._get_num_threads, ctypes.c_void_p).value or 0
    except Exception:  # there is no such module, or it is not Numba's
        pass
    return 0


def of_tbb() -> int:
    """The same for Numba's TBB layer, whether or not Numba has started it."""
    from fastact._parallel import tbb

    try:
        return int(tbb.numba_layer().get_num_threads)
    except Exception:
        return 0
