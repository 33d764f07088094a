"""The steps that make up a function of whole rows, like softmax."""

from enum import Enum
from typing import NamedTuple


class Source(Enum):
    """What the results of a row are computed from, besides the divisor."""

    TERMS = "terms"
    ELEMENTS = "elements"
    NOTHING = "nothing"  # the row has one result


class Scheme(NamedTuple):
    """Which values the steps of a function pass to each other."""

    largest: int = 1
    """How many of the largest elements are found: the largest, or also the next."""

    parameters: int = 3
    """How many parameters `term` has."""

    results: Source = Source.TERMS


SHARES = Scheme()
"""Results are shares of the sum of terms, as those of softmax."""

LOGARITHMS = Scheme(2, 4, Source.ELEMENTS)
"""Results are differences of the elements and the logarithm of a sum, as those of log_softmax."""

TOTALS = Scheme(2, 4, Source.NOTHING)
"""There is one result, the logarithm of a sum."""


def scheme_of(steps: type) -> Scheme:
    """The scheme of a class of steps: its attribute ``scheme``, or else `SHARES`."""
    return getattr(steps, "scheme", SHARES)


def counts(scheme: Scheme) -> dict[str, tuple[int, int]]:
    """The scalar functions that make up a function of rows: numbers of arguments and results.

    ==========  =============================================  =============================
    larger      two elements                                   the larger
    prepare     largest element of the row                     parameters of `term`
    term        element, parameters                            term, as a product
    start       a number, only for its type                    initial sum of a chunk
    add         term, sum                                      sum
    collect     sum of previous chunks, sum of a chunk         sum of chunks
    merge       two sums of chunks                             sum of both
    finish      sum of the row                                 divisor, as a pair
    result      term, divisor                                  element of the result
    ==========  =============================================  =============================

    A term is 0 or a power of 2, and a factor. Steps with tables may have powers of 2 times numbers
    of 8 bits instead. Where the factor is NaN, the other number is ignored.

    If the scheme has two largest elements, `larger` merges two pairs of them, and `finish` is
    also given the pair of the row. If results are not computed from terms, the arguments of
    `result` are the element and what `finish` returned, or only the latter.

    Rows are padded with an infinity that `larger` never prefers to an element, and whose term is
    0. This is -inf, unless the class of the steps has an attribute ``padding = inf``.
    """
    largest, several = scheme.largest, scheme.largest > 1
    before = {Source.TERMS: 2, Source.ELEMENTS: 1, Source.NOTHING: 0}[scheme.results]
    return {
        "larger": (2 * largest, largest),
        "prepare": (largest, scheme.parameters),
        "term": (1 + scheme.parameters, 2),
        "start": (1, 2),
        "add": (4, 2),
        "collect": (4, 2),
        "merge": (4, 2),
        "finish": (2 + largest * several, 2),
        "result": (before + 2, 1),
    }
