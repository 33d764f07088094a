"""fastact: compiled activation functions as genuine NumPy ufuncs, and dense layers.

``fastact/_functions`` has a file for each function. Every name declared there is a ufunc here, or
the derivative of a function of rows.
"""

# These two come first: the first records the time before the sources of machine code are imported,
# and the second refuses invalid settings before anything is compiled.
from fastact._loading import imported as _imported  # noqa: F401
from fastact._runtime import settings as _settings  # noqa: F401

# isort: split
import importlib as _importlib
from typing import Any as _Any

from fastact._functions import ROW_GRADIENTS as _ROW_GRADIENTS
from fastact._functions import UFUNCS as _UFUNCS
from fastact._parallel.counts import get_num_threads as get_num_threads
from fastact._parallel.counts import num_threads as num_threads
from fastact._parallel.counts import set_num_threads as set_num_threads

__version__ = "0.1.0"

globals().update(_UFUNCS)
globals().update(_ROW_GRADIENTS)

# Imported at the first access, since many programs do not need them.
_LATER = {
    "Dense": "_dense.layers",
    "dense": "_dense.layers",
    "Gated": "_dense.gated",
    "Sequential": "_dense.sequential",
    "dense_backward": "_dense.backward",
    "load": "_dense.saved",
    "show_config": "_runtime.configuration",
}
_MODULES = ["fast"]  # also imported at the first access

__all__ = [*_UFUNCS, *_ROW_GRADIENTS, *_LATER, *_MODULES]
__all__ += ["get_num_threads", "num_threads", "set_num_threads"]


def __getattr__(name: str) -> _Any:
    if name in _MODULES:
        return _importlib.import_module(f"{__name__}.{name}")
    if name not in _LATER:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(_importlib.import_module(f"{__name__}.{_LATER[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_LATER, *_MODULES})
