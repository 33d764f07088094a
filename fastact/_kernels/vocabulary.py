"""The operations that kernels are written with.

A kernel is a plain Python function of scalars. It may use ``+ - * /``, comparisons,
``a if c else b``, other functions marked :func:`scalar`, and the operations declared here.
``_compiler/frontend.py``, the only file that uses Numba's compiler, implements them. So the import
of a kernel costs nothing.
"""

from collections.abc import Callable, Iterable, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple, NoReturn, TypeVar

Function = TypeVar("Function", bound=Callable[..., Any])

SCALAR_FUNCTIONS: list[Callable[..., Any]] = []
"""Every function that kernels may call; ``_compiler/frontend.py`` registers them with Numba."""


def scalar(function: Function) -> Function:
    """Mark `function` as one that kernels may call."""
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


class Variants(NamedTuple):
    """What differs between formats and targets in the code of a kernel."""

    tables: Callable[..., Any] | None = None
    """The kernel in binary32 on targets that look up tables in vector registers."""

    tables_in_16_bits: bool = True
    """Whether `tables` is also the kernel in the 16-bit formats, where it must round correctly."""

    narrow: Callable[..., Any] | None = None
    """The kernel in the 16-bit formats."""

    without_fma: Callable[..., Any] | None = None
    """The kernel on targets without an fma, except where there is a narrow one."""

    vectors: Mapping[tuple[str, int], int] = MappingProxyType({})
    """Vectors per iteration, by format and bits of a vector, as ``python -m bench.variants`` finds
    them. Elsewhere, the target decides."""

    stages: Mapping[tuple[str, int], int] = MappingProxyType({})
    """Stages into which the loop is divided (``_compiler/software_pipelining.py``), by format and
    bits of a vector. Elsewhere, there is one."""

    one_number: bool = False
    """Whether the last input is usually one number: a second loop computes what depends on it alone
    before it begins. LLVM may take minutes to make that of a kernel that does not gain from it."""

    @property
    def kernels(self) -> tuple[Callable[..., Any], ...]:
        every = (self.tables, self.narrow, self.without_fma)
        return tuple(kernel for kernel in every if kernel is not None)


def with_variants(**fields: Any) -> Callable[[Function], Function]:
    """Attach the :class:`Variants` of the decorated kernel to it."""

    def attach(kernel: Function) -> Function:
        kernel.variants = Variants(**fields)  # type: ignore[attr-defined]
        return kernel

    return attach


def variants_of(kernel: Callable[..., Any]) -> Variants:
    """The variants of `kernel`, if it has any."""
    return getattr(kernel, "variants", Variants())


def _compiled_only() -> NoReturn:
    raise NotImplementedError("this operation is available in compiled kernels only")


def like(x, value):
    """`value` in the type of `x` (a bare literal would promote float32 to float64)."""
    _compiled_only()


def pick(table, x):
    """The field of the :class:`PerFormat` `table` for the type of `x`."""
    _compiled_only()


def fma(a, b, c):
    """a*b + c rounded once on every target; emulated if the target has no instruction."""
    _compiled_only()


def muladd(a, b, c):
    """a*b + c, fused where the target has the instruction, else rounded twice."""
    _compiled_only()


def last_muladd(a, b, c):
    """a*b + c with |a*b| <= c, as the last step of a kernel: call it there, not in a helper.

    In loops over 16-bit formats, the sum is rounded to odd. So the following conversion rounds
    the sum itself, not a value that was rounded to nearest before (S. Boldo and G. Melquiond,
    "Emulation of FMA and correctly rounded sums: proved algorithms using rounding to odd", IEEE
    Trans. Comput. 57, 2008). Elsewhere it is `muladd`.
    """
    _compiled_only()


def last_signed_muladd(a, b, c):
    """:func:`last_muladd` for a `c` of any sign, with |a*b| <= |c|: one operation more."""
    _compiled_only()


def horner(x, coefficients):
    """The polynomial sum(coefficients[i] * x**i) by Horner's rule with :func:`muladd`."""
    _compiled_only()


def horner_by_pairs(x, square, coefficients):
    """:func:`horner` in `square` = x * x, with pairs of terms as coefficients.

    Half as many operations wait for each other, and there are as many of them.
    """
    _compiled_only()


def pow2(n, shift):
    """2**(n + shift) for integral floats whose sum is a normal exponent; `shift` is a constant.

    The result is 0 if the sum is just below the normal exponents.
    """
    _compiled_only()


def pow2_of_sum(total):
    """2**k for `total` = 1.5 * 2**(p-1) + bias + k, where k is a normal exponent.

    Adding that constant to a number rounds it to an integer k, and leaves this total. The result
    is 0 if k is just below the normal exponents.
    """
    _compiled_only()


def exponent(x, least):
    """The integer k with least <= x / 2**k < 2 * least, for positive normal numbers `x`.

    `least` is a constant between 1/2 and 1. The result is a float.
    """
    _compiled_only()


def significand(x, least):
    """x / 2**k for the k of :func:`exponent`."""
    _compiled_only()


def lookup(table, total):
    """The entry k mod 32 of the :class:`Table` `table`, for `total` = 1.5 * 2**23 + k in binary32.

    Adding that constant to a number rounds it to an integer k, and leaves this total.
    """
    _compiled_only()


def raised(entry, total, steps):
    """2**(k // steps) p, for an `entry` of p and `total` as in :func:`lookup`.

    The bits of the result are those of `entry` and k / steps in the exponent field, added. So the
    entry of a number p from 1 to 2 has the bits of p less (k mod steps) / steps in that field.
    `steps` is a constant, a power of 2.
    """
    _compiled_only()


def leading_bits(x, count):
    """The sign, the exponent field and the first `count` bits of the significand of `x`.

    They are the lowest bits of the result, for :func:`lookup` in rows whose widths double with each
    power of 2. `count` is a constant.
    """
    _compiled_only()


def polynomial(x, tables, total):
    """Like :func:`horner`; coefficient i is the entry for `total` of ``tables[i]``."""
    _compiled_only()


def magnitude(x):
    """|x|: the sign bit cleared."""
    _compiled_only()


def sqrt(x):
    """The square root, rounded correctly on every target; NaN for negative numbers."""
    _compiled_only()


def copysign(x, sign):
    """`x` with the sign bit of `sign`."""
    _compiled_only()


def quiet(x):
    """`x`, but a signalling NaN becomes the quiet NaN of the same sign and payload."""
    _compiled_only()


# With this order of operands, each of the next two is one min or max instruction, and returns a
# NaN in `x`. `x if x < high else high` would be a comparison and a blend, and lose the NaN.


@scalar
def at_most(x, high):
    """min(x, high); NaN if `x` is NaN."""
    return high if high < x else x


@scalar
def at_least(x, low):
    """max(x, low); NaN if `x` is NaN."""
    return low if low > x else x


@scalar
def number_at_least(x, low):
    """max(x, low); `low` if `x` is NaN."""
    return x if x > low else low


@scalar
def number_at_most(x, high):
    """min(x, high); `high` if `x` is NaN."""
    return x if x < high else high


@scalar
def or_nan(x, first):
    """`x`, or `first` if `first` is NaN: of two NaNs, the first is returned.

    Functions of several operands choose the NaN themselves: in a sum or a product of two NaNs, the
    compiler chooses by the order that suits its instructions.
    """
    return x if first == first else first


@scalar
def or_nans(x, first, second):
    """`x`, or the first of two operands that is NaN."""
    return or_nan(or_nan(x, second), first)
