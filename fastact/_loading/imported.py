"""The time when the first source of this package was imported.

``fastact/__init__.py`` imports this module before every source that machine code depends on.
"""

import time

TIME = time.time_ns()
"""Nanoseconds since the epoch."""
