"""The lock under which code is loaded and loops are registered.

A thread that holds it waits for no other lock: Numba's lock has to be acquired first.
"""

from _thread import RLock  # importing `threading` would take a tenth of our import time

MAKING = RLock()
