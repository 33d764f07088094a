"""Object code by its name: from the cache, or built, and then executable in this process.

LLVM is imported at the first use, not with the package, and Numba only to compile: not where the
cache has the code.
"""

import contextlib
import functools
import itertools
import os
import sys
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from fastact._loading import imported, jobs
from fastact._loading.lock import MAKING

if TYPE_CHECKING:
    from fastact._machine.targets import Target

_PACKAGE = os.path.dirname(os.path.dirname(__file__))

Function = TypeVar("Function", bound=Callable[..., Any])


def apart(function: Function) -> Function:
    """Have `function` run as a job: it imports LLVM, and Numba where there is no code yet."""

    @functools.wraps(function)
    def job(*arguments: Any, **named: Any) -> Any:
        key = (function.__name__, arguments, tuple(named.items()))
        return jobs.run(key, functools.partial(function, *arguments, **named))

    return job  # type: ignore[return-value] # of the same signature


@functools.cache
@apart
def host() -> "Target":
    """The machine this process runs on."""
    from fastact._compiler import host as _host

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


def load(
    name: str,
    build: Callable[["Target"], bytes],
    symbols: Iterable[str],
    options: str = "",
    kernels: Sequence[Callable[..., Any]] = (),
    target: "Target | None" = None,
) -> dict[str, int]:
    """Object code from the cache, or what `build` makes, executable in this process.

    Parameters
    ----------
    name : str
        For people, and for the cache.
    build : callable
        ``build(target)`` is the object code.
    symbols : iterable of str
        What is asked for in it.
    options : str
        Everything else that `build` depends on, beside the sources of the compiler.
    kernels : sequence of callable
        What Numba compiles for it; code without kernels imports LLVM only. Closures are not kept
        in the cache, since the values in them are in no source.
    target : Target, optional
        This machine, unless another is given, whose code has to run here.

    Returns
    -------
    dict
        The addresses of `symbols` by name.
    """
    from fastact._compiler import host as _host
    from fastact._loading import cache as _cache
    from fastact._loading import linker

    target = target or _host.host()

    def built() -> bytes:
        jobs.begin_compiling()
        if not kernels:
            return build(target)
        with _import_warnings():
            from numba.core.compiler_lock import global_compiler_lock

        # Before any lock of ours: another thread may hold it, and want a loop.
        with global_compiler_lock:
            return build(target)

    variants = [*kernels, *(k.by_tables for k in kernels if hasattr(k, "by_tables"))]
    if any(kernel.__closure__ for kernel in variants):
        code = built()
    else:
        code = _cache.object_code(
            name=name,
            sources=_sources(variants),
            imported=imported.TIME,
            target=target,
            options=repr((options, [(k.__module__, k.__code__.co_firstlineno) for k in kernels])),
            build=built,
        )
    with MAKING:
        return linker.load_all(code, symbols)


def _sources(kernels: Iterable[Callable[..., Any]]) -> list[str]:
    """The files that object code around `kernels` is made of, their own included."""
    own = [kernel.__code__.co_filename for kernel in kernels]
    folders = ["_compiler", "_machine", *(["_kernels"] if own else [])]
    return [*own, *itertools.chain.from_iterable(map(_files, folders))]


@functools.cache
def _files(folder: str) -> list[str]:
    """Every source in a `folder` of the package: a list of names would have to be kept."""
    return [
        os.path.join(place, name)
        for place, _, names in os.walk(os.path.join(_PACKAGE, folder))
        for name in names
        if name.endswith(".py")
    ]
