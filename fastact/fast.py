"""The fast tier: activations that take less time and have errors of a few ulp.

Each has the formats, special values and guarantees of the function of the same name in ``fastact``,
except for the largest error, which its docstring states. They have to be chosen explicitly, also in
layers: ``fa.Dense(W, b, fa.fast.tanh)``. Vector math libraries have such tiers, too: HA and LA of
Intel's VML, or u10 and u35, for 1.0 and 3.5 ulp, of SLEEF.

Examples
--------
>>> import numpy as np, fastact as fa
>>> x = np.linspace(-5, 5, 1000, dtype=np.float32)
>>> bool(abs(fa.fast.sigmoid(x) - fa.sigmoid(x)).max() < 2e-7)
True
>>> fa.Dense(np.ones((3, 2)), activation=fa.fast.tanh)
Dense(3 -> 2, fast.tanh, float64)
"""

from fastact._declarations.declare import ufunc_of as _ufunc_of
from fastact._declarations.records import FAST as _FAST
from fastact._functions import UFUNCS as _UFUNCS  # noqa: F401 # the declarations

globals().update({declared.of: _ufunc_of(name) for name, declared in _FAST.items()})

__all__ = [declared.of for declared in _FAST.values()]
