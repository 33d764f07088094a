"""The interface between the compiled dense loops and their callers."""

from typing import TYPE_CHECKING

from fastact._machine.formats import Format

if TYPE_CHECKING:
    from fastact._compiler.builder import Function, Integer
    from fastact._machine.targets import Target

FIELDS = (
    "w",
    "w_vector",
    "w_final",
    "w_k",
    "depth",
    "columns",
    "bias",
    "loop",
    "row_wise",
    "dtype",
)
"""The fields of a plan, an array of int64 that describes weights, bias and activation."""

ENTRIES = {"packed": 3, "direct": 5, "pack": 7}
"""The compiled functions that callers use, with their numbers of arguments."""

DONE, REFUSED = 0, 1
"""Results of the compiled functions. Operands that need more care are refused, untouched."""


class Plan:
    """A plan read by compiled code."""

    def __init__(self, function: "Function", address: "Integer"):
        self.function, self.address = function, address

    def get(self, name: str) -> "Integer":
        return self.function.load(self.address + 8 * FIELDS.index(name))


def lanes_for(columns: int, form: Format, target: "Target") -> int:
    """The lanes of the widest vector that `columns` fill at least once.

    So the last vector may overlap the one before it.
    """
    lanes = target.vector_bits // form.bits
    while lanes > columns and lanes * form.bits > 128:
        lanes //= 2
    return lanes if lanes <= columns else 1
