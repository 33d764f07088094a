"""The stubs of the package: type checkers do not run the code that finds the functions."""

from fastact._declarations.records import (
    FAST,
    OBJECTIVES,
    along_rows,
    element_wise,
    row_derivatives,
)

_WRITTEN = "# Written by `python -m tools.documents` from the declarations.\n"
_HEAD = """\
from fastact import fast as fast
from fastact._dense.backward import dense_backward as dense_backward
from fastact._dense.gated import Gated as Gated
from fastact._dense.layers import Dense as Dense
from fastact._dense.layers import dense as dense
from fastact._dense.saved import load as load
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
    """The stub of ``fastact``."""
    modules = {
        name: declared.kernel.__module__ for name, declared in (element_wise() | OBJECTIVES).items()
    }
    modules |= {name: declared.steps.__module__ for name, declared in along_rows().items()}
    modules |= {declared.name: declared.rule.__module__ for declared in row_derivatives().values()}
    names = sorted(modules, key=lambda name: (modules[name], name))
    lines = [f"from {modules[name]} import {name} as {name}\n" for name in names]
    return "".join([_WRITTEN, _HEAD, *lines, _TAIL])


def fast_stub() -> str:
    """The stub of ``fastact.fast``, whose functions have the types of those in ``fastact``."""
    lines = [
        f"from {declared.kernel.__module__} import {declared.of} as {declared.of}\n"
        for declared in FAST.values()
    ]
    return "".join([_WRITTEN, *lines])


STUBS = {"fastact/__init__.pyi": stub, "fastact/fast.pyi": fast_stub}
"""What makes the text of each stub, by its path."""
