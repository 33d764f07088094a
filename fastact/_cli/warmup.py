"""Compile functions ahead of time, into the cache of machine code.

For images and clusters. It has to run on the same kind of machine as the program, since code is
made for one kind.
"""

import argparse
import itertools
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any

import numpy as np

from fastact._cli import Refused
from fastact._declarations.declare import ufunc_of
from fastact._declarations.records import FAST
from fastact._functions import UFUNCS
from fastact._machine.formats import CONVERSIONS, FLOATS, FORMATS, conversion_format, format_of

SUMMARY = "Compile functions ahead of time, into the cache of machine code."

DENSE = "dense"
NAMES = [*UFUNCS, *FAST, DENSE]

Job = Callable[[], object]


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument(
        "functions",
        nargs="*",
        metavar="FUNCTION",
        help=f"any of {', '.join(NAMES)}; by default all of them",
    )
    parser.add_argument(
        "--dtypes",
        nargs="+",
        metavar="DTYPE",
        help=f"any of {', '.join(_dtypes())}; by default all that a function has code for",
    )


def run(options: argparse.Namespace) -> int:
    """Compile the code for every function and dtype."""
    from fastact._loading import cache, loader
    from fastact._parallel import helpers
    from fastact._runtime import direct_calls, engine

    try:
        loader.host()  # fails if it is not what FASTACT_CPU asks for, or if there is no code for it
    except (ValueError, RuntimeError) as reason:
        raise Refused(str(reason)) from reason
    names = _known("FUNCTION", options.functions, dict.fromkeys(NAMES))
    ufuncs = {name: ufunc_of(name) for name in names if name != DENSE}
    dtypes = _known("DTYPE", options.dtypes, _dtypes())
    jobs: list[Job] = [
        partial(function, *[np.ones(1, dtype)] * function.nin)
        for function in ufuncs.values()
        for dtype in dtypes.values()
        if options.dtypes or _has(function, dtype)
    ]
    several = [*dtypes.values(), *([] if options.dtypes else [np.dtype(bool)])]
    jobs += _mixed_jobs(ufuncs.values(), several)
    if DENSE in names:
        jobs += _dense_jobs(dtypes.values())
    jobs.append(helpers.helper_addresses)  # the code of the threads, for every function
    if any(map(direct_calls.fits, ufuncs.values())):
        jobs.append(engine.direct_call_addresses)
    try:
        if not cache.enabled():
            raise Refused("there is no cache to warm up, since FASTACT_CACHE is 0")
        place = cache.folder()
        before = cache.compiled
    except (cache.Unusable, OSError) as reason:
        raise Refused(str(reason)) from reason
    start = time.perf_counter()
    try:
        for job in _progress(jobs):
            job()
    except ImportError as reason:
        raise Refused(f"compiling needs Numba and llvmlite ({reason})") from reason
    if cache.trouble is not None:  # a warning has said why
        return 1
    made = cache.compiled - before  # not the new entries, which other processes make, too
    seconds = time.perf_counter() - start
    print(f"{len(jobs)} ready, {made} of them compiled in {seconds:.1f} s, in {place}")
    return 0


def _dense_jobs(dtypes: Iterable[np.dtype]) -> list[Job]:
    """Calls that compile the loops of dense layers, for each number of lanes.

    Weights are of each of the `dtypes`, computed in float32 or float64.
    """
    from fastact._compiler.gemm.interface import lanes_for
    from fastact._dense import weights
    from fastact._loading import loader
    from fastact._runtime import engine

    jobs: list[Job] = [engine.layer_call_address]
    dtypes = list(dtypes)
    for name in dict.fromkeys(FORMATS[format_of(dtype.type).compute].name for dtype in dtypes):  # type: ignore[union-attr] # all have one
        form = FORMATS[name]
        if not form.is_integer:
            columns = range(1, loader.host().vector_bits // form.bits + 1)
            widths = {lanes_for(n, form, loader.host()): n for n in columns}
            jobs += [partial(weights.kernels, np.dtype(name), n) for n in widths.values()]
            if name == "float32":
                jobs += _compact_jobs(widths, [dtype.name for dtype in dtypes])
            jobs.append(partial(weights.gate_loops, None, np.dtype(name)))
            jobs.append(partial(engine.convert_addresses, form, form))
    return [*jobs, engine.undisturbed_address]


def _compact_jobs(widths: dict[int, int], names: Iterable[str]) -> list[Job]:
    """Calls that compile the loops of layers with a `weights_dtype` among `names`."""
    from fastact._dense import compact, weights

    # Few columns of 16-bit weights are widened before.
    single, widest = np.dtype(np.float32), widths[max(widths)]
    return [
        partial(weights.kernels, single, columns, name)
        for name in compact.NAMES
        if name in names
        for columns in (widths.values() if name == compact.INT8 else [widest])
    ]


def _mixed_jobs(functions: Iterable[np.ufunc], dtypes: Sequence[np.dtype]) -> list[Job]:
    """Calls that compile how `functions` and layers convert operands of several types."""
    from fastact._runtime import engine

    forms = dict.fromkeys(conversion_format(dtype.type) for dtype in dtypes)
    floats = [form for form in FLOATS.values() if form in forms or form.compute == form.name]
    jobs: list[Job] = [
        partial(engine.convert_addresses, source, sink)
        for source, sink in itertools.product(forms, floats)
        if source != sink and (source, sink) in CONVERSIONS
    ]
    given = np.dtypes.Float64DType
    for nin, nout, signature in dict.fromkeys((f.nin, f.nout, f.signature) for f in functions):
        make: Callable[..., int] = partial(engine.mixed_address, nout=nout)
        if signature not in (None, "(n)->(n)"):
            continue  # NumPy casts the inputs
        if signature:
            make = engine.mixed_rows_address
        jobs.append(partial(make, (given,) * nin, given, 0))
    return jobs


def _dtypes() -> dict[str, np.dtype]:
    """The dtypes in which at least one function computes, by name."""
    found = [np.dtype(code) for code in "efdbBhHiIlLqQ"]
    try:
        import ml_dtypes
    except ImportError:  # then there are no arrays of bfloat16 either
        pass
    else:
        found.insert(1, np.dtype(ml_dtypes.bfloat16))
    return {dtype.name: dtype for dtype in found}


def _has(function: np.ufunc, dtype: np.dtype) -> bool:
    """Whether `function` computes in `dtype`, rather than in a type that it is promoted to."""
    if dtype.name == "bfloat16":  # it has no letter, so it is not listed
        return _has(function, np.dtype("f"))
    types = f"{dtype.char * function.nin}->{dtype.char * function.nout}"
    return types in function.types


def _known(argument: str, wanted: Iterable[str] | None, known: dict[str, Any]) -> dict[str, Any]:
    unknown = [name for name in wanted or () if name not in known]
    if unknown:
        names = ", ".join(map(repr, unknown))
        raise Refused(f"{argument} must be any of {', '.join(known)}; got {names}")
    return {name: known[name] for name in wanted or known}


def _progress(jobs: list[Job]) -> Iterable[Job]:
    try:
        from tqdm import tqdm
    except ImportError:  # then only the progress bar is missing
        return jobs
    shown = sys.stderr is not None and not sys.stderr.closed and sys.stderr.isatty()
    bar: Iterable[Job] = tqdm(jobs, "compiling", unit=" loops", disable=not shown)
    return bar
