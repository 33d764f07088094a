"""From a kernel and a DType to the address of a compiled loop.

LLVM is imported at the first use of a kernel, not with the package, and Numba only to compile:
not where the cache has the code.
"""

import contextlib
import ctypes
import functools
import os
import sys
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, TypeVar

import numpy as np

from fastact import _jobs
from fastact._fan_out import SETTING
from fastact._formats import FLOAT32, FLOAT64, Format, conversion_format, format_of
from fastact._lock import MAKING
from fastact._scalar import SCALAR_FUNCTIONS

if TYPE_CHECKING:
    from fastact._targets import Target

DType = type[np.dtype]

_IMPORTED = time.time_ns()

_WITHOUT_FORMATS = (
    *("_codegen", "_environment", "_fan_out", "_lookup", "_machine_code", "_object_file"),
    *("_streaming", "_targets"),
)
_ALWAYS = (*_WITHOUT_FORMATS, "_formats")
_SCALARS = (*_ALWAYS, "_conversions", "_frontend", "_loops", "_overlap", "_scalar", "_tables")
GENERATORS = {
    "loop": _SCALARS,
    "rows": (*_SCALARS, "_rows", "_steps", "_transpose"),
    "scalar": (
        *("_codegen", "_conversions", "_fan_out", "_formats", "_frontend", "_lookup"),
        *("_machine_code", "_object_file", "_scalar", "_scalar_function", "_streaming"),
        *("_tables", "_targets"),
    ),
    "gemm": (
        *(*_ALWAYS, "_gemm", "_gemm_code", "_ndarray"),
        *("_plan", "_structured", "_tiles", "_transpose"),
    ),
    "convert": (*(*_ALWAYS, "_conversions", "_convert_code", "_ndarray", "_plan", "_structured"),),
    "mixed": (*_WITHOUT_FORMATS, "_mixed_code", "_overlap"),
    "undisturbed": (*_WITHOUT_FORMATS, "_undisturbed_code"),
    "helpers": (
        *("_codegen", "_fan_out", "_helper_code", "_lookup", "_machine_code", "_object_file"),
        *("_streaming", "_targets"),
    ),
}
"""The modules that make object code, by what they make; a test compares them with imports."""

BY_NUMBA = ("loop", "rows", "scalar")
"""What Numba compiles a part of; the rest imports LLVM only."""


Function = TypeVar("Function", bound=Callable)


def _apart(function: Function) -> Function:
    """Have `function` run as a job: it imports LLVM, and Numba where there is no code yet."""

    @functools.wraps(function)
    def apart(*arguments, **named):
        key = (function.__name__, arguments, tuple(named.items()))
        return _jobs.run(key, functools.partial(function, *arguments, **named))

    return apart  # type: ignore[return-value]


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


@_apart
def loop_address(
    kernel: Callable,
    nin: int,
    dtype: DType,
    target: "Target | None" = None,
    alone: bool = False,
    nout: int = 1,
) -> int:
    """Compile `kernel` for `dtype`, or load its code; the address of its strided loop.

    `target` is this machine unless another is given, whose code has to run here. The loop
    shares much work among threads unless it is to work `alone`.
    """
    from fastact import _cost, _pool
    from fastact._machine_code import ALONE, ENTRY

    form = format_of(dtype.type)
    if form is None:
        raise TypeError(f"no kernel computes in {dtype.type.__name__}")

    def build(target: "Target") -> bytes:
        from fastact import _codegen, _frontend, _loops

        scalar = _frontend.scalar_ir(kernel, form, nin, target, nout)
        loop = _loops.loop_ir(scalar, form, nin, target, nout)
        return _codegen.object_code(loop, [scalar], target)

    name = f"{kernel.__name__}-{form.name}"
    found = _kernel_addresses("loop", name, [kernel], target, repr((form, nin, nout)), build)
    if alone:
        return found[ALONE]
    cost = _cost.of_loop(found[ALONE], nin + nout, form.itemsize)
    _pool.attach(found[SETTING], cost, (nin + nout) * form.itemsize)
    return found[ENTRY]


@_apart
def scalar_address(kernel: Callable, nin: int, dtype: DType) -> int:
    """As :func:`loop_address`: that of ``double function(double, ...)``, or of float alike."""
    from fastact._machine_code import ENTRY

    form = format_of(dtype.type)
    if form not in (FLOAT32, FLOAT64):
        raise TypeError(f"no scalar function computes in {dtype.type.__name__}")

    def build(target: "Target") -> bytes:
        from fastact import _codegen, _frontend, _scalar_function

        scalar = _frontend.scalar_ir(kernel, form, nin, target)
        function = _scalar_function.function_ir(scalar, form, nin)
        return _codegen.object_code(function, [scalar], target)

    name = f"{kernel.__name__}-{form.name}-scalar"
    options = repr((form, nin))
    return _kernel_addresses("scalar", name, [kernel], None, options, build, [ENTRY])[ENTRY]


@_apart
def rows_address(
    steps: type, dtype: DType, target: "Target | None" = None, alone: bool = False
) -> int:
    """As :func:`loop_address` for the `steps` of a function of rows.

    The address is that of ``int loop(context, char **data, npy_intp *dimensions, npy_intp
    *strides, auxdata)``, where `context` and `auxdata` are ignored, the two data pointers are
    those of the first row of input and output, the dimensions are the number of rows and their
    length, and the strides, in bytes: input and output from row to row, then input and output
    from element to element. Output and input may be the same, and must not overlap otherwise; rows
    of an output that overlaps itself are written in order.
    """
    from fastact import _cost, _pool
    from fastact._machine_code import ALONE, ENTRY

    form = format_of(dtype.type)
    if form is None or form.is_integer:
        raise TypeError(f"no function of rows computes in {dtype.type.__name__}")

    def build(target: "Target") -> bytes:
        from fastact import _codegen, _rows

        scalars = _rows.steps_ir(steps, form, target)
        return _codegen.object_code(_rows.rows_ir(scalars, form, target), scalars.values(), target)

    kernels = [step for step in vars(steps).values() if callable(step)]
    name = f"{steps.__name__.strip('_').lower()}-{form.name}"
    found = _kernel_addresses("rows", name, kernels, target, repr(form), build)
    if alone:
        return found[ALONE]
    cost = _cost.of_rows(found[ALONE], form.itemsize)
    _pool.attach(found[SETTING], cost, 2 * form.itemsize)
    return found[ENTRY]


@_apart
def gemm_addresses(form: Format, lanes: int) -> dict[str, int]:
    """Compile the loops of dense layers, or load their code.

    The addresses of the entries, and of the threads' ``SETTING``, by name.
    """
    from fastact._plan import ENTRIES

    def build(target: "Target") -> bytes:
        from fastact import _gemm_code

        return _gemm_code.object_code(form, lanes, target)

    options = repr((form, lanes, object.__basicsize__))
    symbols = [*ENTRIES, SETTING]
    return _load("gemm", f"dense-{form.name}-{lanes}", [], None, options, build, symbols)


@functools.cache
@_apart
def convert_addresses(source: Format, sink: Format) -> dict[str, int]:
    """Compile the conversion of arrays, or load its code.

    The addresses of what ``_convert_code.py`` describes, by name.
    """
    from fastact._machine_code import ENTRY, RUN

    def build(target: "Target") -> bytes:
        from fastact import _convert_code

        return _convert_code.object_code(source, sink, target)

    name, options = f"convert-{source.name}-{sink.name}", repr((source, sink, object.__basicsize__))
    return _load("convert", name, [], None, options, build, [ENTRY, RUN])


@_apart
def mixed_address(inputs: tuple[DType, ...], dtype: DType, loop: int, nout: int = 1) -> int:
    """The address of a strided loop for `inputs` of these types, around the `loop` for `dtype`."""
    nin = len(inputs)

    def build(target: "Target") -> bytes:
        from fastact import _mixed_code

        return _mixed_code.object_code(nin, nout, target)

    return _mixed(f"mixed-{nin}-{nout}", repr((nin, nout)), build, inputs, dtype, loop)


@_apart
def mixed_rows_address(inputs: tuple[DType, ...], dtype: DType, loop: int) -> int:
    """The same for a function of rows, as by :func:`rows_address`."""
    from fastact import _mixed_code

    def build(target: "Target") -> bytes:
        return _mixed_code.rows_object_code(target)

    calls = [
        ctypes.cast(getattr(ctypes.pythonapi, name), ctypes.c_void_p).value
        for name in _mixed_code.ROWS_CALLS
    ]
    return _mixed("mixed-rows", "", build, inputs, dtype, loop, calls)


def _mixed(
    name: str,
    options: str,
    build: Callable[["Target"], bytes],
    inputs: Sequence[DType],
    dtype: DType,
    loop: int,
    calls: Sequence[int | None] = (),
) -> int:
    from fastact._machine_code import ENTRY, RUN, TABLE

    form = format_of(dtype.type)
    found = _load("mixed", name, [], None, options, build, [ENTRY, TABLE])
    sources = [conversion_format(given.type) for given in inputs]
    words = [loop, form.itemsize]
    words += [0 if s == form else convert_addresses(s, form)[RUN] for s in sources]
    words += calls
    (ctypes.c_int64 * len(words)).from_address(found[TABLE])[:] = words
    return found[ENTRY]


@_apart
def undisturbed_address() -> int:
    """Compile what runs a function in the default environment, or load its code."""
    from fastact._machine_code import ENTRY

    def build(target: "Target") -> bytes:
        from fastact import _undisturbed_code

        return _undisturbed_code.object_code(target)

    return _load("undisturbed", "undisturbed", [], None, "", build, [ENTRY])[ENTRY]


@_apart
def helper_addresses() -> dict[str, int]:
    """Compile what threads of our own run, or load its code; the addresses by name."""
    from fastact._helper_code import SYMBOLS, object_code

    return _load("helpers", "helpers", [], None, "", object_code, SYMBOLS)


@functools.cache
@_apart
def host() -> "Target":
    """The machine this process runs on."""
    from fastact import _host

    return _host.host()


@contextlib.contextmanager
def _import_warnings() -> Iterator[None]:
    """No warnings of text without an encoding where they are asked for: Numba has some."""
    if not sys.flags.warn_default_encoding:
        yield
        return
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", EncodingWarning)
        yield


def _kernel_addresses(
    generator: str,
    name: str,
    kernels: Sequence[Callable],
    target: "Target | None",
    options: str,
    build: Callable[["Target"], bytes],
    symbols: Iterable[str] | None = None,
) -> dict[str, int]:
    """The addresses of `symbols` in what ``build(target)`` makes around `kernels`, by name.

    By default they are those of a loop.
    """
    from fastact._machine_code import ALONE, ENTRY

    places = [(k.__module__, k.__code__.co_firstlineno) for k in kernels]
    sources = [f.__code__.co_filename for f in (*kernels, *SCALAR_FUNCTIONS)]
    keeps = not any(kernel.__closure__ for kernel in kernels)  # its values are in no source
    symbols = symbols or [ENTRY, ALONE, SETTING]
    return _load(generator, name, sources, target, f"{options} {places}", build, symbols, keeps)


def _load(
    generator: str,
    name: str,
    sources: Sequence[str],
    target: "Target | None",
    options: str,
    build: Callable[["Target"], bytes],
    symbols: Iterable[str],
    keeps: bool = True,
) -> dict[str, int]:
    """Addresses of `symbols` in what ``build(target)`` makes; see ``_cache.object_code``.

    `sources` are files beside those of the `generator`. The code is looked for and kept in the
    cache if it `keeps`.
    """
    from fastact import _cache, _host, _machine_code

    folder = os.path.dirname(__file__)
    target = target or _host.host()

    def built() -> bytes:
        _jobs.begin_compiling()
        if generator not in BY_NUMBA:
            return build(target)
        with _import_warnings():
            from numba.core.compiler_lock import global_compiler_lock

        # Before any lock of ours: another thread may hold it, and want a loop.
        with global_compiler_lock:
            return build(target)

    if keeps:
        code = _cache.object_code(
            name=name,
            sources=[
                *(os.path.join(folder, f"{module}.py") for module in GENERATORS[generator]),
                *sources,
            ],
            imported=_IMPORTED,
            target=target,
            options=options,
            build=built,
        )
    else:
        code = built()
    with MAKING:
        return _machine_code.load_all(code, symbols)
