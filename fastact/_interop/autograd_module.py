"""The module that references of functions get for autograd's arrays."""

import functools
from collections.abc import Callable
from math import pi, sqrt
from typing import Any

from fastact._interop.extras import require

_extend = require("autograd.extend", "autograd")
_np = require("autograd.numpy", "autograd")


class _Module:
    """autograd's NumPy, with erf and erfc of SciPy."""

    def __getattr__(self, name: str) -> Any:
        if name in _SIGNS:
            return _gaussian(name)
        return getattr(_np, name)


_SIGNS = {"erf": 1, "erfc": -1}


@functools.cache
def _gaussian(name: str) -> Callable[..., Any]:
    # Those of autograd.scipy have no forward mode.
    function: Callable[..., Any] = _extend.primitive(
        getattr(require("scipy.special", "scipy"), name)
    )
    factor = _SIGNS[name] * 2 / sqrt(pi)
    _extend.defvjp(function, lambda y, x: lambda g: g * factor * _np.exp(-x * x))
    _extend.defjvp(function, lambda g, y, x: g * factor * _np.exp(-x * x))
    return function


MODULE: Any = _Module()
"""As mpmath's ``mp``, but for arrays, and differentiable any number of times."""
