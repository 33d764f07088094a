"""The steps that make up a function that normalises rows, like layer_norm."""

from typing import NamedTuple


class Scheme(NamedTuple):
    """What a function does with a row, besides dividing it by the root of a mean square."""

    centered: bool
    """Whether the mean of the row is subtracted before."""

    @property
    def operands(self) -> list[str]:
        """The rows besides the input: factors of the columns, and what is added to them."""
        return ["weight", "bias"] if self.centered else ["weight"]

    @property
    def center(self) -> list[str]:
        """The values that hold the mean."""
        return ["c0", "c1"] if self.centered else []


def steps_for(steps: type, bits: int) -> type:
    """The class of steps for formats of so many bits: `steps`, or its attribute ``in_double``.

    All steps compute in binary64. Elements of narrower formats, and their squares, are exact there
    and cannot overflow.
    """
    return steps if bits == 64 else steps.in_double  # type: ignore[attr-defined] # all have one


def counts(scheme: Scheme) -> dict[str, tuple[int, int]]:
    """The scalar functions of a function of rows: numbers of arguments and results.

    ==========  ==================================================  =========================
    add         element, scale, sum                                 sum
    merge       two sums                                            sum of both
    center      sum, length of the row                              mean, sum of squares
    add_square  element, scale, mean, sum of squares                sum of squares
    rescale     sum of squares, epsilon                             scale
    invert      sum of squares, length of the row, scale, epsilon   inverse deviation
    result      element, scale, mean, inverse deviation, factor,    element of the result
                summand
    ==========  ==================================================  =========================

    Sums, means and inverse deviations are pairs, whose second number is the error of the first, or
    whatever else the steps pass to each other. The sum of squares that `center` returns is one
    number, negative if it is not known; then the elements are read again for `add_square`.

    A row is multiplied by a scale, a power of 2, which is 1 at first. If `rescale` returns another
    one, the row is computed again with that. Without a mean, there are neither `add` and `center`
    nor a summand.
    """
    mean, of_mean = 2 * scheme.centered, {"add": (4, 2), "center": (3, 3)}
    return (of_mean if scheme.centered else {}) | {
        "merge": (4, 2),
        "add_square": (4 + mean, 2),
        "rescale": (3, 1),
        "invert": (5, 2),
        "result": (4 + mean + len(scheme.operands), 1),
    }
