"""From a kernel and a DType to the address of a compiled loop.

LLVM is imported at the first use of a kernel, not with the package, and Numba only to compile:
not where the cache has the code.
"""

import os
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from ._formats import format_of
from ._lock import MAKING
from ._scalar import SCALAR_FUNCTIONS

if TYPE_CHECKING:
    from ._targets import Target

DType = type[np.dtype]

_IMPORTED = time.time_ns()

GENERATOR = [
    os.path.join(os.path.dirname(__file__), name + ".py")
    for name in (
        "_codegen",
        "_conversions",
        "_environment",
        "_formats",
        "_frontend",
        "_loops",
        "_machine_code",
        "_scalar",
        "_targets",
    )
]
"""The files that turn a kernel into object code; a test compares them with what is imported."""


def choose_dtype(dtype: DType, requested: bool, keeps_integers: bool) -> DType | None:
    """The DType to compute in for operands of `dtype`, or None where there is none.

    Floats keep their type. bool and integers give float64, or stay what they are where the
    activation keeps integers; a `requested` type is never replaced by another.
    """
    if not issubclass(dtype.type, np.bool_):
        form = format_of(dtype.type)
        if form is None:
            return None
        if keeps_integers or not form.is_integer:
            return dtype
    return None if requested else np.dtypes.Float64DType


def loop_address(kernel: Callable, nin: int, dtype: DType, target: "Target | None" = None) -> int:
    """Compile `kernel` for `dtype`, or load its code; the address of its strided loop.

    `target` is this machine unless another is given, whose code has to run here.
    """
    form = format_of(dtype.type)
    if form is None:
        raise TypeError(f"no kernel computes in {dtype.type.__name__}")

    def build(target: "Target") -> bytes:
        from . import _codegen, _frontend

        scalar = _frontend.scalar_ir(kernel, form, nin)
        return _codegen.object_code(scalar, form, nin, target)

    return _load(f"{kernel.__name__}-{form.name}", [kernel], target, repr((form, nin)), build)


def _load(
    name: str,
    kernels: Sequence[Callable],
    target: "Target | None",
    options: str,
    build: Callable[["Target"], bytes],
) -> int:
    """The address of what ``build(target)`` makes of `kernels`; see ``_cache.object_code``."""
    from . import _cache, _host, _machine_code

    with MAKING:
        target = target or _host.host()
        if any(kernel.__closure__ for kernel in kernels):  # its values are in no source
            code = build(target)
        else:
            places = [(k.__module__, k.__code__.co_firstlineno) for k in kernels]
            code = _cache.object_code(
                name=name,
                sources=GENERATOR + [f.__code__.co_filename for f in (*kernels, *SCALAR_FUNCTIONS)],
                imported=_IMPORTED,
                target=target,
                options=f"{options} {places}",
                build=lambda: build(target),
            )
        return _machine_code.load(code, _machine_code.ENTRY)
