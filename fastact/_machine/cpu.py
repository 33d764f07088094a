"""The processor that code is compiled for, as set in the environment variable ``FASTACT_CPU``.

An unknown name is an error at import (``_runtime/settings.py``). Whether this machine can run the
code is checked later, with LLVM (``_compiler/host.py``).
"""

from collections.abc import Mapping

VARIABLE = "FASTACT_CPU"
NATIVE = "native"


def chosen(environment: Mapping[str, str]) -> str:
    """Return `NATIVE` or the name of a baseline, whether or not this machine can run it."""
    name = environment.get(VARIABLE, "").strip() or NATIVE
    if name == NATIVE:
        return name
    # Imported here, because most imports of fastact do not need it.
    from fastact._machine.targets import BASELINES

    if name not in BASELINES:
        raise ValueError(
            f"{VARIABLE} must be one of {', '.join((NATIVE, *BASELINES))}, got {name!r}"
        )
    return name
