"""Compile functions ahead, into the cache of machine code.

For images and clusters: on the kind of machine that will run it, since code is made for one.
"""

import argparse
import functools
import time
from collections.abc import Callable, Iterable

import numpy as np

from .. import activations, layers
from . import Refused

UFUNCS = {name: f for name, f in vars(activations).items() if isinstance(f, np.ufunc)}
DENSE = "dense"
FUNCTIONS = (*UFUNCS, DENSE)


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument(
        "functions",
        nargs="*",
        metavar="FUNCTION",
        help=f"any of {', '.join(FUNCTIONS)}; by default all of them",
    )
    parser.add_argument(
        "--dtypes",
        nargs="+",
        metavar="DTYPE",
        help=f"any of {', '.join(_dtypes())}; by default all that a function has code for",
    )


def run(options: argparse.Namespace) -> int:
    """Call every function once with every dtype."""
    from .. import _cache

    functions = _known("FUNCTION", options.functions, FUNCTIONS)
    dtypes = _dtypes()
    wanted = [dtypes[name] for name in _known("DTYPE", options.dtypes, dtypes)]
    jobs = [job for name in functions for job in _jobs(name, wanted, bool(options.dtypes))]
    try:
        if not _cache.enabled():
            raise Refused("there is no cache to warm up, as FASTACT_CACHE is 0")
        place = _cache.folder()
        before = {entry.path for entry in _cache.entries()}
    except (_cache.Unusable, OSError) as reason:
        raise Refused(str(reason)) from reason
    start = time.perf_counter()
    for job in _progress(jobs):
        job()
    if _cache.trouble is not None:  # a warning has said so
        return 1
    made = sum(entry.path not in before for entry in _cache.entries())
    seconds = time.perf_counter() - start
    print(f"{made} compiled in {seconds:.1f} s; all that was asked for is in {place}")
    return 0


def _jobs(name: str, dtypes: Iterable[np.dtype], promoted: bool) -> list[Callable[[], object]]:
    """Calls that need all code of a function for arrays of `dtypes`.

    Unless `promoted` dtypes count, only for those that it has code of its own for.
    """
    if name == DENSE:
        # Code differs by the width of vectors, which narrow layers do not fill.
        return [
            functools.partial(layers.dense, np.ones((1, 1), dtype), np.ones((1, columns), dtype))
            for dtype in dtypes
            if promoted or dtype.char in "fd"
            for columns in (1, 2, 4, 8, 16)
        ]
    function = UFUNCS[name]
    return [
        functools.partial(function, *[np.ones(1, dtype)] * function.nin)
        for dtype in dtypes
        if promoted or _has(function, dtype)
    ]


def _dtypes() -> dict[str, np.dtype]:
    """By name, those that any function has code of its own for."""
    found = [np.dtype(code) for code in "efdbBhHiIlLqQ"]
    try:
        import ml_dtypes
    except ImportError:  # then there are no such arrays either
        pass
    else:
        found.insert(1, np.dtype(ml_dtypes.bfloat16))
    return {dtype.name: dtype for dtype in found}


def _has(function: np.ufunc, dtype: np.dtype) -> bool:
    """Whether `function` computes in `dtype`, rather than in what it is promoted to."""
    if dtype.name == "bfloat16":  # which has no letter to be listed under
        return "f" * function.nin + "->f" in function.types
    return dtype.char * function.nin + "->" + dtype.char in function.types


def _known(argument: str, wanted: Iterable[str] | None, known: Iterable[str]) -> list[str]:
    unknown = [name for name in wanted or () if name not in known]
    if unknown:
        names = ", ".join(map(repr, unknown))
        raise Refused(f"{argument} must be any of {', '.join(known)}; got {names}")
    return list(wanted or known)


def _progress(jobs: list) -> Iterable:
    try:
        from tqdm import tqdm
    except ImportError:  # a bar is all that is missing then
        return jobs
    return tqdm(jobs, "warming up", disable=None)  # only on a terminal
