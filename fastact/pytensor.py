"""PyTensor: our kernels in what its Numba linker compiles."""

import functools
import hashlib
from pathlib import Path

from . import _frontend, _njit, activations
from . import numba as _numba  # noqa: F401 - makes our ufuncs known to Numba
from ._extras import require
from ._scalar import SCALAR_FUNCTIONS
from ._versions import warn_unless_tested

__all__ = ["TESTED", "register"]

TESTED = ((3, 0), (3, 1))
"""The versions of PyTensor that `register` was tested with: from the first, below the second."""

_DTYPES = ("float32", "float64")


def register() -> None:
    """Use our sigmoid, softplus and tanh in functions that PyTensor's Numba linker compiles.

    Functions compiled from now on compute ``pytensor.tensor.sigmoid``, ``softplus`` and ``tanh`` of
    float32 and float64 with our kernels, alone and fused with others, gradients included, since
    those are made of the same operations. Other types, other linkers and functions that were
    compiled before stay as they are. A second call does nothing.

    Raises
    ------
    ImportError
        Without PyTensor.

    Warns
    -----
    UserWarning
        Where PyTensor's version is outside the range that was tested, ``TESTED``.

    Notes
    -----
    PyTensor keeps compiled functions on disk; ours have keys of their own there, which change with
    the sources of the kernels.

    Examples
    --------
    >>> import pytensor, pytensor.tensor as pt, fastact.pytensor
    >>> fastact.pytensor.register()
    >>> x = pt.vector("x")
    >>> pytensor.function([x], pt.sigmoid(x), mode="NUMBA")([0.0])
    array([0.5])
    """
    warn_unless_tested("PyTensor", require("pytensor", "pytensor").__version__, *TESTED)
    _register()


@functools.cache
def _register() -> None:
    from pytensor.link.numba.dispatch import basic
    from pytensor.scalar.basic import Tanh
    from pytensor.scalar.math import Sigmoid, Softplus

    ours = {Sigmoid: activations.sigmoid, Softplus: activations.softplus, Tanh: activations.tanh}
    for op_type, ufunc in ours.items():
        before = basic.numba_funcify_and_cache_key.dispatch(op_type)
        basic.register_funcify_and_cache_key(op_type)(functools.partial(_funcify, ufunc, before))


def _funcify(ufunc, before, op, node, **arguments):
    """The function of one number that PyTensor asks for, and its key on disk."""
    from pytensor.link.numba.dispatch import basic

    if node.inputs[0].type.dtype not in _DTYPES:
        return before(op, node=node, **arguments)

    def activation(x):
        return ufunc(x)

    # Inlined into PyTensor's loop whatever its size, since LLVM vectorises that only then.
    function = basic.numba_njit(activation, fastmath=False, forceinline=True)
    return function, f"{ufunc.__name__}-{_sources()}"


@functools.cache
def _sources() -> str:
    """A hash of what makes the kernels."""
    files = {function.__code__.co_filename for function in SCALAR_FUNCTIONS}
    files |= {__file__, activations.__file__, _frontend.__file__, _njit.__file__}
    content = b"".join(Path(file).read_bytes() for file in sorted(files))
    return hashlib.sha256(content).hexdigest()
