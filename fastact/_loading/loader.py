"""Object code by its name: loaded from the cache or built, then made executable.

LLVM is imported at the first use, not with the package. Numba is imported only to compile, not if
the cache has the code.
"""

import contextlib
import functools
import itertools
import os
import sys
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from fastact._kernels.vocabulary import variants_of
from fastact._loading import imported, jobs
from fastact._loading.lock import MAKING

if TYPE_CHECKING:
    from fastact._machine.targets import Target

_PACKAGE = os.path.dirname(os.path.dirname(__file__))

Function = TypeVar("Function", bound=Callable[..., Any])


def apart(function: Function) -> Function:
    """Make `function` run as a job, since it imports LLVM, and Numba if there is no code yet."""

    @functools.wraps(function)
    def job(*arguments: Any, **named: Any) -> Any:
        key = (function.__name__, arguments, tuple(named.items()))
        return jobs.run(key, functools.partial(function, *arguments, **named))

    return job  # type: ignore[return-value] # of the same signature


@functools.cache
@apart
def host() -> "Target":
    """The machine that this process runs on."""
    from fastact._compiler import host as compiler_host

    return compiler_host.host()


@contextlib.contextmanager
def _import_warnings() -> Iterator[None]:
    """Suppress the EncodingWarnings that importing Numba raises if they are enabled."""
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
    """Load object code from the cache, or build it, and make it executable in this process.

    Parameters
    ----------
    name : str
        A readable name of the code, also used by the cache.
    build : callable
        ``build(target)`` returns the object code.
    symbols : iterable of str
        The symbols whose addresses are returned.
    options : str
        Everything else that `build` depends on, apart from the sources of the compiler.
    kernels : sequence of callable
        The functions that Numba compiles for it; without any, only LLVM is imported. Code of
        closures is not cached, since their values are in no source.
    target : Target, optional
        The machine to build for; by default this one. Code for another has to run here, too.

    Returns
    -------
    dict
        The addresses of `symbols` by name.
    """
    from fastact._compiler import host as compiler_host
    from fastact._loading import cache, linker

    target = target or compiler_host.host()

    def built() -> bytes:
        if not kernels:
            return build(target)
        with _import_warnings():
            from numba.core.compiler_lock import global_compiler_lock

        # Before any lock of ours, since a thread that holds Numba's may ask for a loop.
        with global_compiler_lock:
            return build(target)

    every = [*kernels, *(variant for kernel in kernels for variant in variants_of(kernel).kernels)]
    if any(kernel.__closure__ for kernel in every):
        code = built()
    else:
        code = cache.object_code(
            name=name,
            sources=_sources(every),
            imported=imported.TIME,
            target=target,
            options=repr((options, [(k.__module__, k.__code__.co_firstlineno) for k in kernels])),
            build=built,
        )
    with MAKING:
        return linker.load_all(code, symbols)


def _sources(kernels: Iterable[Callable[..., Any]]) -> list[str]:
    """The source files that object code for `kernels` depends on, including theirs."""
    own = [kernel.__code__.co_filename for kernel in kernels]
    folders = ["_compiler", "_machine", *(["_kernels"] if own else [])]
    return [*own, *itertools.chain.from_iterable(map(_files, folders))]


@functools.cache
def _files(folder: str) -> list[str]:
    """Every source in a `folder` of the package; a list of names would have to be maintained."""
    return [
        os.path.join(place, name)
        for place, _, names in os.walk(os.path.join(_PACKAGE, folder))
        for name in names
        if name.endswith(".py")
    ]
