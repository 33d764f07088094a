"""From a kernel and a DType to the address of a compiled loop.

Numba and LLVM are imported at the first use of a kernel, not with the package.
"""

import threading
from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from ._formats import Format, format_of

if TYPE_CHECKING:
    from ._targets import Target

DType = type[np.dtype]

_compiling = threading.RLock()


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
    """Compile `kernel` for `dtype`; the address of its strided loop.

    `target` is this machine unless another is given, whose code has to run here.
    """
    from . import _codegen, _frontend, _machine_code

    form = format_of(dtype.type)
    if form is None:
        raise TypeError(f"no kernel computes in {dtype.type.__name__}")
    with _compiling:
        scalar = _frontend.scalar_ir(kernel, form, nin)
        code = _codegen.object_code(scalar, form, nin, target or _codegen.host())
        return _machine_code.load(code, _codegen.ENTRY)


def host() -> "Target":
    """The machine this process runs on."""
    from . import _codegen

    return _codegen.host()


def gemm_addresses(form: Format, lanes: int) -> dict[str, int]:
    """Compile the loops of dense layers; the addresses of their entries by name."""
    from . import _gemm_code, _machine_code

    with _compiling:
        code = _gemm_code.object_code(form, lanes, host())
        return _machine_code.load_all(code, _gemm_code.ENTRIES)


def rows_address(steps: type, dtype: DType, target: "Target | None" = None) -> int:
    """As :func:`loop_address` for the `steps` of a function of rows.

    The address is that of ``int loop(context, char **data, npy_intp *dimensions, npy_intp
    *strides, auxdata)``, where `context` and `auxdata` are ignored, the two data pointers are
    those of the first row of input and output, the dimensions are the number of rows and their
    length, and the strides, in bytes: input and output from row to row, then input and output
    from element to element. Output and input may be the same, and must not overlap otherwise.
    """
    from . import _codegen, _frontend, _machine_code

    form = format_of(dtype.type)
    if form is None or form.is_integer:
        raise TypeError(f"no function of rows computes in {dtype.type.__name__}")
    with _compiling:
        code = _codegen.rows_object_code(
            _frontend.steps_ir(steps, form), form, target or _codegen.host()
        )
        return _machine_code.load(code, _codegen.ENTRY)
