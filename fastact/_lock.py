"""The lock under which loops are made at their first use."""

import os
from _thread import RLock  # as functools does: `threading` takes a tenth of our import time

MAKING = RLock()

if hasattr(os, "register_at_fork"):
    # A fork waits for the loop that is being made, so that no child inherits the lock taken
    # by a thread that it does not have.
    os.register_at_fork(
        before=MAKING.acquire, after_in_parent=MAKING.release, after_in_child=MAKING.release
    )
