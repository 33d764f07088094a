"""Which processor code is made for, as the environment variable ``FASTACT_CPU`` asks.

An error in the name belongs to the import (``_runtime/settings.py``); LLVM says later what the
machine has.
"""

from collections.abc import Mapping

VARIABLE = "FASTACT_CPU"
NATIVE = "native"


def chosen(environment: Mapping[str, str]) -> str:
    """`NATIVE` or the name of a baseline, whether or not this machine has it."""
    name = environment.get(VARIABLE, "").strip() or NATIVE
    if name == NATIVE:
        return name
    # An import that asks for nothing does without it.
    from fastact._machine.targets import KNOWN

    if name not in KNOWN:
        raise ValueError(f"{VARIABLE} must be one of {', '.join((NATIVE, *KNOWN))}, got {name!r}")
    return name
