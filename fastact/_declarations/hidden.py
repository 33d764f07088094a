"""Functions of rows and elements that are hidden, which would take part in the rest of their row.

A ufunc is handed the bare numbers. But NumPy's masked arrays, which know of no ``__array_ufunc__``,
are handed the finished result, and look up what else is to be done for a ufunc in a dictionary of
the module ``numpy.ma.core``. As NumPy imports that module only where it is used, and it takes
longer than ours, the entry is made after it. And pandas, for a Series, takes the ``__call__`` of a
ufunc by its name and hands it what the Series consists of; NumPy itself does not ask for that.
"""

import sys
from collections.abc import Callable
from types import ModuleType
from typing import Any

import numpy as np

from fastact._runtime.operands import check_present, check_unmasked

_MODULE = "numpy.ma.core"


def refuse(ufunc: np.ufunc) -> None:
    """Let `ufunc` raise ValueError for masked arrays and Series with elements that are hidden."""

    def domain(*operands: Any) -> np.ndarray:
        for operand in operands:
            check_unmasked(ufunc.__name__, "x", operand)
        return np.zeros((), bool)  # no element of the result is to be masked for its own sake

    def call(*operands: Any, **keywords: Any) -> Any:
        for operand in operands[: ufunc.nin]:
            check_present(ufunc.__name__, "x", operand)
        return ufunc(*operands, **keywords)

    if hasattr(ufunc, "__dict__"):  # not in older versions of NumPy
        vars(ufunc)["__call__"] = call

    def register(module: ModuleType) -> None:
        module.ufunc_domain[ufunc] = domain

    module: Any = sys.modules.get(_MODULE)
    if hasattr(module, "ufunc_domain"):
        register(module)
    else:
        sys.meta_path.insert(0, _AfterImport(register))


class _AfterImport:
    """A finder of modules that finds what the others do, and is gone after the import."""

    def __init__(self, then: Callable[[ModuleType], None]):
        self._then = then

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> Any:
        if name != _MODULE:
            return None
        others = [finder for finder in sys.meta_path if not isinstance(finder, _AfterImport)]
        others = [finder for finder in others if hasattr(finder, "find_spec")]
        found = (finder.find_spec(name, path, target) for finder in others)
        spec = next((spec for spec in found if spec is not None), None)
        loader: Any = getattr(spec, "loader", None)
        execute = getattr(loader, "exec_module", None)
        # What is no object of its own is left as it is.
        if execute is not None and hasattr(loader, "__dict__") and not isinstance(loader, type):

            def exec_module(module: ModuleType) -> None:
                execute(module)
                if module.__name__ == _MODULE and self in sys.meta_path:
                    sys.meta_path.remove(self)
                    self._then(module)

            loader.exec_module = exec_module
        return spec
