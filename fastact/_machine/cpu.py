"""Which processor code is made for, as the environment variable ``FASTACT_CPU`` asks.

An error in the name belongs to the import (``_runtime/settings.py``); LLVM says later what the
machine has.
"""

from collections.abc import Mapping

VARIABLE = "FASTACT_CPU"
NATIVE = "native"
LEVELS = ("x86-64", "x86-64-v2", "x86-64-v3", "x86-64-v4", "aarch64")
"""The baselines of ``targets.py`` by name; the lesser ones of an architecture come first."""


def chosen(environment: Mapping[str, str]) -> str:
    """`NATIVE` or one of `LEVELS`, whether or not this machine has it."""
    name = environment.get(VARIABLE, "").strip() or NATIVE
    if name not in (NATIVE, *LEVELS):
        raise ValueError(f"{VARIABLE} must be one of {', '.join((NATIVE, *LEVELS))}, got {name!r}")
    return name
