"""The lock under which code is loaded and loops are registered.

Who holds it waits for no other lock: Numba's own comes first.
"""

from _thread import RLock  # as functools does: `threading` takes a tenth of our import time

MAKING = RLock()
