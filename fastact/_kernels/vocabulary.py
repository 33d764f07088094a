"""The vocabulary that kernels are written in.

A kernel is a plain Python function of scalars. It may use ``+ - * /``, comparisons,
``a if c else b``, other functions marked :func:`scalar`, and the operations declared
here. They get their meaning in ``_compiler/frontend.py``, the only file that knows Numba, so that
importing a kernel costs nothing.
"""

from collections.abc import Callable, Iterable
from typing import Any, NamedTuple, NoReturn, TypeVar

Function = TypeVar("Function", bound=Callable[..., Any])

SCALAR_FUNCTIONS: list[Callable[..., Any]] = []
"""Every function that kernels may call; ``_compiler/frontend.py`` makes them known to Numba."""


def scalar(function: Function) -> Function:
    """Record `function` as one that kernels may call."""
    SCALAR_FUNCTIONS.append(function)
    return function


class PerFormat(NamedTuple):
    """A value that differs between binary32 and binary64; read with :func:`pick`."""

    single: Any
    double: Any


ENTRIES = 32


class Table:
    """`ENTRIES` numbers in binary32, for :func:`lookup`."""

    def __init__(self, values: Iterable[float]) -> None:
        self.values = tuple(map(float, values))
        if len(self.values) != ENTRIES:
            raise ValueError(f"Table: expected {ENTRIES} numbers, got {len(self.values)}")


def with_tables(by_tables: Callable[..., Any]) -> Callable[[Function], Function]:
    """Let `by_tables` stand for the decorated kernel where it is computed in binary32.

    That is on targets that look tables up in vector registers.
    """

    def attach(kernel: Function) -> Function:
        kernel.by_tables = by_tables  # type: ignore[attr-defined]
        return kernel

    return attach


def _compiled_only() -> NoReturn:
    raise NotImplementedError("this operation has a meaning in compiled kernels only")


def like(x, value):
    """`value` in the type of `x` (a bare literal would promote float32 to float64)."""
    _compiled_only()


def pick(table, x):
    """The field of the :class:`PerFormat` `table` that belongs to the type of `x`."""
    _compiled_only()


def fma(a, b, c):
    """a*b + c rounded once on every target; emulated where there is no instruction."""
    _compiled_only()


def muladd(a, b, c):
    """a*b + c, fused where the target has the instruction, else rounded twice."""
    _compiled_only()


def last_muladd(a, b, c):
    """a*b + c with |a*b| <= c, as the last step of a kernel: call it there, not in a helper.

    In loops over 16-bit formats the sum is rounded to odd, so that the conversion that
    follows rounds the sum itself, not a value that has been rounded to nearest before
    (S. Boldo and G. Melquiond, "Emulation of FMA and correctly rounded sums: proved
    algorithms using rounding to odd", IEEE Trans. Comput. 57, 2008). Elsewhere it is `muladd`.
    """
    _compiled_only()


def horner(x, coefficients):
    """The polynomial sum(coefficients[i] * x**i) by Horner's rule with :func:`muladd`."""
    _compiled_only()


def pow2(n, shift):
    """2**(n + shift) for integral floats whose sum is a normal exponent, and 0 for the sum
    just below; `shift` is a constant.
    """
    _compiled_only()


def pow2_of_sum(total):
    """2**k for `total` = 1.5 * 2**(p-1) + bias + k, as rounding to an integer k by adding
    that constant leaves it; k is a normal exponent, or just below, where the power is 0.
    """
    _compiled_only()


def lookup(table, total):
    """The entry k mod 32 of the :class:`Table` `table`, for `total` = 1.5 * 2**23 + k in
    binary32, as rounding to an integer k by adding that constant leaves it.
    """
    _compiled_only()


def polynomial(x, tables, total):
    """As :func:`horner`, with an entry of each of the `tables` for a coefficient."""
    _compiled_only()


def magnitude(x):
    """|x|: the sign bit cleared."""
    _compiled_only()


def copysign(x, sign):
    """`x` with the sign bit of `sign`."""
    _compiled_only()


def quiet(x):
    """`x`; a signalling NaN becomes the quiet one of the same sign and payload."""
    _compiled_only()


# The order of the operands makes each of the next two one min or max instruction that
# hands a NaN in `x` on; `x if x < high else high` would be compare and blend (and lose it).


@scalar
def at_most(x, high):
    """min(x, high); NaN if `x` is."""
    return high if high < x else x


@scalar
def at_least(x, low):
    """max(x, low); NaN if `x` is."""
    return low if low > x else x


@scalar
def number_at_least(x, low):
    """max(x, low); `low` if `x` is NaN."""
    return x if x > low else low


@scalar
def or_nan(x, first):
    """`x`, or `first` if that is NaN, so that of two NaN the first counts."""
    return x if first == first else first
