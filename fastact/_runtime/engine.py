"""From a kernel and a DType to the address of a compiled loop, which can use several threads."""

import ctypes
import functools
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from fastact._compiler.symbols import ALONE, ENTRY, ROWS_CALLS, RUN, SETTING, WORDS
from fastact._kernels.vocabulary import variants_of
from fastact._loading.loader import apart, load
from fastact._machine.formats import FLOAT32, FLOAT64, Format, conversion_format, format_of

if TYPE_CHECKING:
    from fastact._compiler.gemm.interface import Storage
    from fastact._machine.targets import Target

DType: TypeAlias = Any  # type[np.dtype]; NumPy's stubs know its `type` of instances only

_LOOP = (ENTRY, ALONE, SETTING)


def choose_dtype(dtype: DType, requested: bool, keeps_integers: bool) -> DType | None:
    """The DType to compute in for operands of `dtype`, or None if there is none.

    Floats keep their type. bool is computed in float64, and so are integers unless the activation
    keeps them. A `requested` type is never replaced by another.
    """
    if not issubclass(dtype.type, np.bool_):
        form = format_of(dtype.type)
        if form is None:
            return None
        if keeps_integers or not form.is_integer:
            return dtype
    return None if requested else np.dtypes.Float64DType


@apart
def loop_address(
    kernel: Callable[..., Any],
    nin: int,
    dtype: DType,
    target: "Target | None" = None,
    alone: bool = False,
    nout: int = 1,
) -> int:
    """Compile `kernel` for `dtype`, or load its code; return the address of its strided loop.

    `target` is this machine by default; code for another has to run here, too. The loop shares
    large amounts of work among threads unless it is to work `alone`.
    """
    from fastact._compiler import host
    from fastact._parallel import pool
    from fastact._runtime import loop_timing

    form = format_of(dtype.type)
    if form is None:
        raise TypeError(f"no kernel computes in {dtype.type.__name__}")

    def build(target: "Target") -> bytes:
        from fastact._compiler import frontend, pipeline
        from fastact._compiler.loops import elementwise

        scalar = frontend.scalar_ir(kernel, form, nin, target, nout)
        loop = elementwise.loop_ir(scalar, form, nin, target, nout)
        return pipeline.object_code(loop, [scalar], target)

    name = f"{kernel.__name__}-{form.name}"
    target = target or tuned(kernel, form, host.host())
    found = load(name, build, _LOOP, repr((form, nin, nout)), [kernel], target)
    if alone:
        return found[ALONE]
    cost = loop_timing.of_loop(found[ALONE], nin + nout, form.itemsize)
    pool.attach(found[SETTING], cost, (nin + nout) * form.itemsize)
    return found[ENTRY]


def tuned(kernel: Callable[..., Any], form: Format, target: "Target") -> "Target":
    """`target` with the vectors per iteration, stages and copies of the loop that suit `kernel`."""
    import dataclasses  # later than the package, which imports few modules

    variants, key = variants_of(kernel), (form.name, target.vector_bits)
    return dataclasses.replace(
        target,
        interleave=variants.vectors.get(key, target.interleave),
        stages=variants.stages.get(key, target.stages),
        one_number=variants.one_number,
    )


@apart
def scalar_address(kernel: Callable[..., Any], nin: int, dtype: DType, nout: int = 1) -> int:
    """Like :func:`loop_address`, but for ``double function(double, ...)``, or float likewise.

    If there are several results, it is ``void function(double, ..., double *, ...)``.
    """
    form = format_of(dtype.type)
    if form not in (FLOAT32, FLOAT64):
        raise TypeError(f"no scalar function computes in {dtype.type.__name__}")

    def build(target: "Target") -> bytes:
        from fastact._compiler import c_function, frontend, pipeline

        scalar = frontend.scalar_ir(kernel, form, nin, target, nout)
        function = c_function.function_ir(scalar, form, nin, nout)
        return pipeline.object_code(function, [scalar], target)

    name = f"{kernel.__name__}-{form.name}-scalar"
    return load(name, build, [ENTRY], repr((form, nin, nout)), [kernel])[ENTRY]


@apart
def rows_address(
    steps: type, dtype: DType, target: "Target | None" = None, alone: bool = False
) -> int:
    """Like :func:`loop_address`, for the `steps` of a function of rows.

    The address is of ``int loop(context, char **data, npy_intp *dimensions, npy_intp *strides,
    auxdata)``. `context` and `auxdata` are ignored. The two data pointers point to the first row
    of the input and of the output. The dimensions are the number of rows and their length. The
    strides, in bytes, are those of input and output from row to row, then those of input and
    output from element to element. The output may be the input, but must not overlap it otherwise.
    Rows of an output that overlaps itself are written in order.
    """
    from fastact._kernels.row_steps import counts, scheme_of
    from fastact._parallel import pool
    from fastact._runtime import loop_timing

    form = format_of(dtype.type)
    if form is None or form.is_integer:
        raise TypeError(f"no function of rows computes in {dtype.type.__name__}")

    def build(target: "Target") -> bytes:
        from fastact._compiler import pipeline
        from fastact._compiler.loops import rows

        scalars = rows.steps_ir(steps, form, target)
        text = rows.rows_ir(steps, scalars, form, target)
        return pipeline.object_code(text, scalars.values(), target)

    scheme = scheme_of(steps)
    kernels = [getattr(steps, name) for name in counts(scheme)]
    options = repr((form, scheme, getattr(steps, "padding", None)))
    name = f"{steps.__name__.strip('_').lower()}-{form.name}"
    found = load(name, build, _LOOP, options, kernels, target)
    if alone:
        return found[ALONE]
    cost = loop_timing.of_rows(found[ALONE], form.itemsize)
    pool.attach(found[SETTING], cost, 2 * form.itemsize)
    return found[ENTRY]


@apart
def normalization_address(
    steps: type, dtype: DType, target: "Target | None" = None, alone: bool = False
) -> int:
    """Like :func:`rows_address`, for the `steps` of a function that normalises rows.

    The data pointers point to the first row of the input, to that of each of the operands for
    columns, to epsilon, and to the first row of the output. The strides are those of all of them
    from row to row, then those of all but epsilon from element to element.
    """
    from fastact._kernels.normalization_steps import counts, steps_for
    from fastact._parallel import pool
    from fastact._runtime import loop_timing

    form = format_of(dtype.type)
    if form is None or form.is_integer:
        raise TypeError(f"no function of rows computes in {dtype.type.__name__}")
    scheme, own = steps.scheme, steps_for(steps, form.bits)  # type: ignore[attr-defined] # all have one

    def build(target: "Target") -> bytes:
        from fastact._compiler import pipeline
        from fastact._compiler.loops import normalization

        scalars = normalization.steps_ir(own, scheme, target)
        text = normalization.normalization_ir(scheme, scalars, form, target)
        return pipeline.object_code(text, scalars.values(), target)

    kernels = [getattr(own, name) for name in counts(scheme)]
    name = f"{steps.__name__.strip('_').lower()}-{form.name}"
    found = load(name, build, _LOOP, repr((form, scheme)), kernels, target)
    if alone:
        return found[ALONE]
    columns = len(scheme.operands)
    cost = loop_timing.of_normalization(found[ALONE], columns, form.itemsize)
    pool.attach(found[SETTING], cost, 2 * form.itemsize)
    return found[ENTRY]


@apart
def gemm_addresses(form: Format, lanes: int, stored: "Storage | None" = None) -> dict[str, int]:
    """Compile the loops of dense layers, or load their code.

    Weights are plain ones of `form`, unless `stored` says otherwise. Return the addresses of the
    entries, and of ``SETTING``, by name.
    """
    from fastact._compiler.gemm.interface import Storage

    kept = stored or Storage(form)

    def build(target: "Target") -> bytes:
        from fastact._compiler.gemm import module

        return module.object_code(form, lanes, target, kept)

    options = repr((form, lanes, kept, object.__basicsize__))
    name = f"dense-{form.name}-{lanes}"
    if kept != Storage(form):
        name += f"-{kept.form.name}{'-scaled' * kept.scaled}"
    return load(name, build, [*kept.entries(form), SETTING], options)


@functools.cache
@apart
def convert_addresses(source: Format, sink: Format) -> dict[str, int]:
    """Compile the conversion of arrays, or load its code.

    Return the addresses of the functions that ``_compiler/loops/convert.py`` describes, by name.
    """

    def build(target: "Target") -> bytes:
        from fastact._compiler.loops import convert

        return convert.object_code(source, sink, target)

    name, options = f"convert-{source.name}-{sink.name}", repr((source, sink, object.__basicsize__))
    return load(name, build, [ENTRY, RUN], options)


@apart
def mixed_address(inputs: tuple[DType, ...], dtype: DType, loop: int, nout: int = 1) -> int:
    """The address of a strided loop for `inputs` of these DTypes that calls `loop` for `dtype`."""
    nin = len(inputs)

    def build(target: "Target") -> bytes:
        from fastact._compiler.loops import mixed

        return mixed.object_code(nin, nout, target)

    return _mixed(f"mixed-{nin}-{nout}", build, inputs, dtype, loop)


@apart
def mixed_rows_address(inputs: tuple[DType, ...], dtype: DType, loop: int) -> int:
    """The same for a function of rows, with a `loop` of :func:`rows_address`."""

    def build(target: "Target") -> bytes:
        from fastact._compiler.loops import mixed

        return mixed.rows_object_code(target)

    calls = [
        ctypes.cast(getattr(ctypes.pythonapi, name), ctypes.c_void_p).value for name in ROWS_CALLS
    ]
    return _mixed("mixed-rows", build, inputs, dtype, loop, calls)


def _mixed(
    name: str,
    build: Callable[["Target"], bytes],
    inputs: Sequence[DType],
    dtype: DType,
    loop: int,
    calls: Sequence[int | None] = (),
) -> int:
    form = format_of(dtype.type)
    found = load(name, build, [ENTRY, WORDS])
    sources = [conversion_format(given.type) for given in inputs]
    words = [loop, form.itemsize]  # type: ignore[union-attr] # there is a `loop` for it
    words += [0 if s == form else convert_addresses(s, form)[RUN] for s in sources]
    words += calls
    (ctypes.c_int64 * len(words)).from_address(found[WORDS])[:] = words
    return found[ENTRY]


@apart
def direct_call_addresses() -> tuple[int, int]:
    """The addresses of new code that calls a ufunc's loop without NumPy, and of its ``WORDS``."""

    def build(target: "Target") -> bytes:
        from fastact._compiler import direct_call

        return direct_call.object_code(target)

    options = repr((object.__basicsize__, tuple.__basicsize__))
    found = load("direct-call", build, [ENTRY, WORDS], options)
    return found[ENTRY], found[WORDS]


@apart
def layer_call_address() -> int:
    """The address of the code that calls a layer as a built-in function."""

    def build(target: "Target") -> bytes:
        from fastact._compiler import layer_call

        return layer_call.object_code(target)

    return load("layer-call", build, [ENTRY], repr(object.__basicsize__))[ENTRY]


@apart
def undisturbed_address() -> int:
    """Compile the code that calls a function in the default floating-point environment, or load it.

    Return its address.
    """

    def build(target: "Target") -> bytes:
        from fastact._compiler.loops import undisturbed

        return undisturbed.object_code(target)

    return load("undisturbed", build, [ENTRY])[ENTRY]
