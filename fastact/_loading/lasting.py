"""Objects that are never freed, since machine code has their addresses.

The interpreter empties the modules when it ends. Meanwhile calls in daemon threads go on without
the GIL, and destructors may still call ufuncs.
"""

import ctypes
from typing import TypeVar

Thing = TypeVar("Thing")


def lasting(thing: Thing) -> Thing:
    """Return `thing`, and keep it and all that it refers to until the process ends."""
    ctypes.pythonapi.Py_IncRef(ctypes.py_object(thing))
    return thing
