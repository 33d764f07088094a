"""The variables of the environment that are ours, looked at when the package is imported.

An error in one belongs to the import: what is called later may not be able to raise it. The
command line, whose package is imported before any code of its own runs, gets its usual message.
"""

import contextlib
import os
import sys

from fastact._machine import cpu
from fastact._parallel import counts, layers


def _is_command() -> bool:
    """Whether Python is looking for what ``python -m fastact`` asks for."""
    arguments = getattr(sys, "argv", [])  # embedded interpreters may have none
    if arguments[:1] != ["-m"]:  # as long as it is looking
        return False
    module = sys.orig_argv[-len(arguments)]
    return module == "fastact" or (module[:1] == "-" and module.endswith("mfastact"))


try:
    cpu.chosen(os.environ)
    counts.check(os.environ)
    layers.chosen(os.environ)
except ValueError as refused:
    if not _is_command():
        raise
    with contextlib.suppress(Exception):  # where it is closed or full
        sys.stderr.write(f"python -m fastact: error: {refused}\n")
    raise SystemExit(2) from None
