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

from fastact import _jobs
from fastact._kernels.vocabulary import SCALAR_FUNCTIONS
from fastact._lock import MAKING

if TYPE_CHECKING:
    from fastact._machine.targets import Target

_IMPORTED = time.time_ns()

_WITHOUT_FORMATS = (
    *("_codegen", "_environment", "_fan_out", "_lookup", "_object_file"),
    *("_streaming", "_symbols", "_machine/targets"),
)
_ALWAYS = (*_WITHOUT_FORMATS, "_machine/formats")
_SCALARS = (
    *_ALWAYS,
    "_conversions",
    "_frontend",
    "_loops",
    "_overlap",
    "_kernels/vocabulary",
    "_kernels/tables",
)
GENERATORS = {
    "loop": _SCALARS,
    "rows": (*_SCALARS, "_rows", "_kernels/row_steps", "_transpose"),
    "scalar": (
        *("_codegen", "_conversions", "_fan_out", "_machine/formats", "_frontend", "_lookup"),
        *("_symbols", "_object_file", "_kernels/vocabulary", "_scalar_function", "_streaming"),
        *("_kernels/tables", "_machine/targets"),
    ),
    "gemm": (
        *(*_ALWAYS, "_gemm", "_gemm_code", "_ndarray"),
        *("_plan", "_structured", "_tiles", "_transpose"),
    ),
    "convert": (*(*_ALWAYS, "_conversions", "_convert_code", "_ndarray", "_plan", "_structured"),),
    "mixed": (*_WITHOUT_FORMATS, "_mixed_code", "_overlap"),
    "undisturbed": (*_WITHOUT_FORMATS, "_undisturbed_code"),
    "helpers": (
        *("_codegen", "_fan_out", "_helper_code", "_lookup", "_symbols", "_object_file"),
        *("_streaming", "_machine/targets"),
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
        return _jobs.run(key, functools.partial(function, *arguments, **named))

    return job  # type: ignore[return-value]


@functools.cache
@apart
def host() -> "Target":
    """The machine this process runs on."""
    from fastact._machine import host as _host

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
    """Addresses of `symbols` in what ``build(target)`` makes; see ``_cache.object_code``.

    `sources` are files beside those of the `generator`. The code is looked for and kept in the
    cache if it `keeps`.
    """
    from fastact import _cache, _machine_code
    from fastact._machine import host as _host

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
