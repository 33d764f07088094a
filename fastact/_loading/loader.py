"""Object code by its name: from the cache, or built, and then executable in this process.

LLVM is imported at the first use, not with the package, and Numba only to compile: not where the
cache has the code.
"""

import contextlib
import functools
import os
import sys
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, TypeVar

from fastact._kernels.vocabulary import SCALAR_FUNCTIONS
from fastact._loading import jobs
from fastact._loading.lock import MAKING

if TYPE_CHECKING:
    from fastact._machine.targets import Target

_IMPORTED = time.time_ns()

_WITHOUT_FORMATS = (
    *(
        "_compiler/pipeline",
        "_compiler/environment",
        "_compiler/threads/fan_out",
        "_compiler/table_lookup",
        "_compiler/object_file",
    ),
    *("_compiler/nontemporal", "_compiler/symbols", "_machine/targets"),
)
_ALWAYS = (*_WITHOUT_FORMATS, "_machine/formats")
_SCALARS = (
    *_ALWAYS,
    "_compiler/conversions",
    "_compiler/frontend",
    "_compiler/loops/elementwise",
    "_compiler/overlap",
    "_kernels/vocabulary",
    "_kernels/tables",
)
GENERATORS = {
    "loop": _SCALARS,
    "rows": (*_SCALARS, "_compiler/loops/rows", "_kernels/row_steps", "_compiler/transpose"),
    "scalar": (
        *(
            "_compiler/pipeline",
            "_compiler/conversions",
            "_compiler/threads/fan_out",
            "_machine/formats",
            "_compiler/frontend",
            "_compiler/table_lookup",
        ),
        *(
            "_compiler/symbols",
            "_compiler/object_file",
            "_kernels/vocabulary",
            "_compiler/c_function",
            "_compiler/nontemporal",
        ),
        *("_kernels/tables", "_machine/targets"),
    ),
    "gemm": (
        *(*_ALWAYS, "_compiler/gemm/loops", "_compiler/gemm/module", "_compiler/ndarray_fields"),
        *(
            "_compiler/gemm/interface",
            "_compiler/builder",
            "_compiler/gemm/tiles",
            "_compiler/transpose",
        ),
    ),
    "convert": (
        *(
            *_ALWAYS,
            "_compiler/conversions",
            "_compiler/loops/convert",
            "_compiler/ndarray_fields",
            "_compiler/gemm/interface",
            "_compiler/builder",
        ),
    ),
    "mixed": (*_WITHOUT_FORMATS, "_compiler/loops/mixed", "_compiler/overlap"),
    "undisturbed": (*_WITHOUT_FORMATS, "_compiler/loops/undisturbed"),
    "helpers": (
        *(
            "_compiler/pipeline",
            "_compiler/threads/fan_out",
            "_compiler/threads/helpers",
            "_compiler/table_lookup",
            "_compiler/symbols",
            "_compiler/object_file",
        ),
        *("_compiler/nontemporal", "_machine/targets"),
    ),
}
"""The modules that make object code, by what they make; a test compares them with imports."""

BY_NUMBA = ("loop", "rows", "scalar")
"""What Numba compiles a part of; the rest imports LLVM only."""


Function = TypeVar("Function", bound=Callable)


def apart(function: Function) -> Function:
    """Have `function` run as a job: it imports LLVM, and Numba where there is no code yet."""

    @functools.wraps(function)
    def job(*arguments, **named):
        key = (function.__name__, arguments, tuple(named.items()))
        return jobs.run(key, functools.partial(function, *arguments, **named))

    return job  # type: ignore[return-value]


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


def load_kernels(
    generator: str,
    name: str,
    kernels: Sequence[Callable],
    target: "Target | None",
    options: str,
    build: Callable[["Target"], bytes],
    symbols: Iterable[str],
) -> dict[str, int]:
    """The addresses of `symbols` in what ``build(target)`` makes around `kernels`, by name."""
    places = [(k.__module__, k.__code__.co_firstlineno) for k in kernels]
    sources = [f.__code__.co_filename for f in (*kernels, *SCALAR_FUNCTIONS)]
    keeps = not any(kernel.__closure__ for kernel in kernels)  # its values are in no source
    return load(generator, name, sources, target, f"{options} {places}", build, symbols, keeps)


def load(
    generator: str,
    name: str,
    sources: Sequence[str],
    target: "Target | None",
    options: str,
    build: Callable[["Target"], bytes],
    symbols: Iterable[str],
    keeps: bool = True,
) -> dict[str, int]:
    """Addresses of `symbols` in what ``build(target)`` makes; see ``cache.object_code``.

    `sources` are files beside those of the `generator`. The code is looked for and kept in the
    cache if it `keeps`.
    """
    from fastact._compiler import host as _host
    from fastact._loading import cache as _cache
    from fastact._loading import linker

    folder = os.path.dirname(os.path.dirname(__file__))
    target = target or _host.host()

    def built() -> bytes:
        jobs.begin_compiling()
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
        return linker.load_all(code, symbols)
