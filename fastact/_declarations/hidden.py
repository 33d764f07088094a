"""Errors for hidden elements in functions of rows, where they would change the rest of their row.

A ufunc receives bare numbers, and cannot know which of them are masked or missing. NumPy's masked
arrays do not define ``__array_ufunc__``. They receive the finished result, and then look up the
domain of the ufunc in a dictionary of the module ``numpy.ma.core``; our function is entered there.
NumPy imports that module only when it is used, and its import takes longer than ours, so the entry
is made after that import. For a Series, pandas looks up ``__call__`` of the ufunc by name and calls
it with the arrays of the Series. NumPy itself does not look up this attribute.
"""

import sys
from collections.abc import Callable, Sequence
from types import ModuleType
from typing import Any

import numpy as np

from fastact._runtime.operands import check_present, check_unmasked

_MODULE = "numpy.ma.core"


def refuse(ufunc: np.ufunc, inputs: Sequence[str]) -> None:
    """Make `ufunc` raise ValueError for masked arrays and Series with hidden elements.

    `inputs` are the names of its inputs.
    """

    def domain(*operands: Any) -> np.ndarray:
        for name, operand in zip(inputs, operands, strict=False):
            check_unmasked(ufunc.__name__, name, operand)
        return np.zeros((), bool)  # masks no element of the result

    def call(*operands: Any, **keywords: Any) -> Any:
        for name, operand in zip(inputs, operands, strict=False):
            check_present(ufunc.__name__, name, operand)
        return ufunc(*operands, **keywords)

    if hasattr(ufunc, "__dict__"):  # older versions of NumPy have none
        vars(ufunc)["__call__"] = call

    module: Any = sys.modules.get(_MODULE)
    if hasattr(module, "ufunc_domain"):
        module.ufunc_domain[ufunc] = domain
        return
    # One finder enters all functions: of several, only the first would see the import.
    if not _waiting:
        sys.meta_path.insert(0, _AfterImport(_enter))
    _waiting[ufunc] = domain


_waiting: dict[np.ufunc, Callable[..., np.ndarray]] = {}
"""The domains of functions that were declared before the module was imported."""


def _enter(module: ModuleType) -> None:
    module.ufunc_domain.update(_waiting)
    _waiting.clear()


class _AfterImport:
    """A finder that calls a function once the module is imported, and then removes itself.

    It returns the spec that the other finders return.
    """

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
        # Loaders that are classes, or have no attributes, are shared and stay unchanged.
        if execute is not None and hasattr(loader, "__dict__") and not isinstance(loader, type):

            def exec_module(module: ModuleType) -> None:
                execute(module)
                if module.__name__ == _MODULE and self in sys.meta_path:
                    sys.meta_path.remove(self)
                    self._then(module)

            loader.exec_module = exec_module
        return spec
