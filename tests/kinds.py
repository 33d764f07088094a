"""One function of each kind, for tests of what functions have in common.

The compiler, the loops, the engine, and the interfaces to other libraries know nothing of a
function but what its kind says. So these tests need not be repeated for each function, and a new
one adds few of them. Tests of values and documents are for every function.
"""

from collections.abc import Callable

from fastact._compiler import host
from fastact._declarations.records import (
    OBJECTIVES,
    WITHOUT_FMA,
    WITHOUT_FMA_BACKWARD,
    Activation,
    Derivative,
    element_wise,
)
from fastact._kernels.vocabulary import variants_of


def kind(declared: Activation) -> tuple[int | bool, ...]:
    """Everything that makes a difference to the code around the kernel of a function."""
    variants = variants_of(declared.kernel)
    return (
        declared.nin,
        len(declared.results),
        declared.keeps_integers,
        variants.tables is not None,
        variants.narrow is not None,
        bool(variants.vectors),
    )


def kind_in_numba(declared: Activation) -> tuple[int | bool, ...]:
    """The same for code around the kernel in functions that Numba compiles.

    They have neither 16-bit formats nor a loop of the package, with a number of vectors.
    """
    nin, nout, keeps_integers, tables, _narrow, _vectors = kind(declared)
    return nin, nout, keeps_integers, tables


def of_each_kind(
    declarations: dict[str, Activation],
    kind: Callable[[Activation], tuple[int | bool, ...]] = kind,
) -> dict[str, Activation]:
    """The first declaration of each kind, by name."""
    first: dict[tuple[int | bool, ...], str] = {}
    for name, declared in declarations.items():
        first.setdefault(kind(declared), name)
    return {name: declarations[name] for name in first.values()}


ONE_RESULT = {name: a for name, a in element_wise().items() if len(a.results) == 1}
"""Activations and derivatives. Derivatives of functions of several inputs have several results, and
tests of their own in ``functions/test_several_inputs.py``."""

TYPICAL = of_each_kind(ONE_RESULT)
"""A function of each kind, among activations and derivatives."""

WITH_SEVERAL_RESULTS = of_each_kind(element_wise() | OBJECTIVES)
"""The same, among functions of any number of results."""

IN_NUMBA = of_each_kind(WITH_SEVERAL_RESULTS, kind_in_numba)
"""The same, for functions that Numba compiles."""

FOR_LESSER_MACHINES = [
    name for name, declared in TYPICAL.items() if getattr(declared, "measured_in_full", False)
]
"""Functions of one input whose code for x86-64-v2 and -v3 the default tests try. That of all others
is tested when all tests run at these levels (.ci/run)."""


def bound(declared: Activation, name: str) -> float:
    """The declared bound in ulp in the format `name`, with what is allowed without an fma."""
    ulp = declared.ulp[name]
    more = WITHOUT_FMA_BACKWARD if isinstance(declared, Derivative) else WITHOUT_FMA
    return ulp if host.host().has_fma or ulp <= 0.51 else ulp + more
