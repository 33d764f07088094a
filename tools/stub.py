"""The stub of the package: type checkers do not run the code that finds the functions."""

from fastact._declarations.records import (
    OBJECTIVES,
    ROW_ACTIVATIONS,
    ROW_DERIVATIVES,
    element_wise,
)

STUB = "fastact/__init__.pyi"

_HEAD = """\
# Written by `python -m tools.documents` from the declarations.
from fastact._dense.backward import dense_backward as dense_backward
from fastact._dense.layers import Dense as Dense
from fastact._dense.layers import dense as dense
from fastact._dense.sequential import Sequential as Sequential
"""
_TAIL = """\
from fastact._parallel.counts import get_num_threads as get_num_threads
from fastact._parallel.counts import num_threads as num_threads
from fastact._parallel.counts import set_num_threads as set_num_threads
from fastact._runtime.configuration import show_config as show_config

__version__: str
__all__: list[str]
"""


def stub() -> str:
    """The text of `STUB`."""
    modules = {
        name: declared.kernel.__module__ for name, declared in (element_wise() | OBJECTIVES).items()
    }
    modules |= {name: declared.steps.__module__ for name, declared in ROW_ACTIVATIONS.items()}
    modules |= {declared.name: declared.rule.__module__ for declared in ROW_DERIVATIVES.values()}
    names = sorted(modules, key=lambda name: (modules[name], name))
    lines = [f"from {modules[name]} import {name} as {name}\n" for name in names]
    return "".join([_HEAD, *lines, _TAIL])
