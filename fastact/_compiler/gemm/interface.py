"""The interface between the compiled dense loops and their callers."""

import struct
from typing import TYPE_CHECKING, NamedTuple

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
    "floor",
    "parameter",
    "parameter_column",
    "dtype",
    "gate",
    "product",
    "row_parameters",
    "panel",
)
"""The fields of a plan, an array of int64 that describes weights, bias and activation.

A plan of a gated layer has no `loop`, but that of the activation of the `gate`, or 0, and that of
the `product` of two inputs. All other plans have no product. A function of rows may have
`row_parameters`: so many arrays with a number for each column are one after another at `parameter`,
followed by one number. A plan of weights in fewer bits has a `panel`: ``shared_panel`` bytes, of
which the first int64 is 0 while no call uses them.
"""

ENTRIES = {"packed": 3, "direct": 5, "pack": 7}
"""The compiled functions that callers use, with their numbers of arguments."""


class Storage(NamedTuple):
    """How packed weights are stored.

    Attributes
    ----------
    form : Format
        The format of the elements of W. If it is not the format that is computed in, they are
        widened when they are loaded.
    scaled : bool
        Whether each column has a factor for its sum. It follows the bias of the column in memory.
    """

    form: Format
    scaled: bool = False

    @property
    def terms(self) -> int:
        """The numbers of each column besides W: its bias, and its factor if it has one."""
        return 1 + self.scaled

    def entries(self, form: Format) -> dict[str, int]:
        """The `ENTRIES` of loops that compute in `form`; only plain weights need no packing."""
        plain = self == Storage(form)
        return {name: n for name, n in ENTRIES.items() if plain or name != "direct"}


DONE, REFUSED = 0, 1
"""Results of the compiled functions. Operands that need more care are refused, untouched."""


LINE = 64
"""Bytes of a cache line, more than which other processors may have."""

SHARED_PANEL = 3 << 16
"""Bytes of widened weights in memory that all layers of a format share: three vectors of 1024 k."""


def shared_panel(target: "Target") -> int:
    """The bytes of that memory.

    A line is for the word that tells whether it is in use, and a k for the rounding of parts.
    """
    return LINE + SHARED_PANEL + max(target.tiles) * target.vector_bits // 8


class Plan:
    """A plan read by compiled code."""

    def __init__(self, function: "Function", address: "Integer"):
        self.function, self.address = function, address

    def get(self, name: str) -> "Integer":
        return self.function.load(self.address + 8 * FIELDS.index(name))


def memory_order(stored: Format, lanes: int, target: "Target") -> list[int]:
    """The column of a vector that each of its elements in packed W belongs to.

    It is that in which ``_compiler/gemm/widening.py`` widens them with fewest instructions.
    """
    if stored.kind == "bfloat" and target.shuffle is not None and lanes == 16:
        quarters = (0, 2, 1, 3)
        return [4 * quarter + k for quarter in quarters for k in range(4)]
    return list(range(lanes))


def bits_of(number: float, form: Format) -> int:
    """The bits of `number`, as a signed integer."""
    code, integer = {32: ("f", "i"), 64: ("d", "q")}[form.bits]
    return int(struct.unpack(f"<{integer}", struct.pack(f"<{code}", number))[0])


def lanes_for(columns: int, form: Format, target: "Target") -> int:
    """The lanes of the widest vector that `columns` fill at least once.

    So the last vector may overlap the one before it.
    """
    lanes = target.vector_bits // form.bits
    while lanes > columns and lanes * form.bits > 128:
        lanes //= 2
    return lanes if lanes <= columns else 1
