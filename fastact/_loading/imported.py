"""When the first source of this package was imported.

``fastact/__init__.py`` imports this before all that machine code is made of.
"""

import time

TIME = time.time_ns()
"""Nanoseconds since the epoch."""
