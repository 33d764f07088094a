"""Numba's entry point ``numba_extensions``: called at the first compilation of every program.

It is a module outside the package, since most of those programs do not use fastact, and importing
fastact takes much longer.
"""

import sys


def init() -> None:
    """Make Numba ask :mod:`fastact._interop.njit` about ufuncs, once fastact is imported."""
    import numpy as np
    from numba.extending import typeof_impl

    before = typeof_impl.dispatch(np.ufunc)
    if before.__module__ == __name__:
        return

    @typeof_impl.register(np.ufunc)
    def typeof_ufunc(ufunc: np.ufunc, context: object) -> object:
        if "fastact" in sys.modules:  # otherwise it is not one of ours
            from fastact._interop import njit

            found = njit.numba_type(ufunc)
            if found is not None:
                return found
        return before(ufunc, context)
