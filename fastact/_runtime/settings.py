"""A check of our environment variables when the package is imported.

An error in one is raised by the import, since a later call may not be able to raise it. The
command line prints it like its other errors, although its code does not run before the import.
"""

import contextlib
import os
import sys

from fastact._machine import cpu
from fastact._parallel import counts, layers


def _is_command() -> bool:
    """Whether Python imports the package to run ``python -m fastact``."""
    arguments = getattr(sys, "argv", [])  # embedded interpreters may have none
    if arguments[:1] != ["-m"]:  # it is "-m" until Python has found the module
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
    with contextlib.suppress(Exception):  # stderr may be closed or full
        sys.stderr.write(f"python -m fastact: error: {refused}\n")
    raise SystemExit(2) from None
