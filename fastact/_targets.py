"""The machines that kernels are compiled for, as data."""

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Target:
    """What code generation has to know of a machine.

    `vector_bits` is the width of the vectors in the hot loop; `interleave` how many of them
    one iteration handles, to hide the latency of a long polynomial.
    """

    triple: str
    cpu: str
    features: str
    vector_bits: int
    has_fma: bool
    has_half: bool
    interleave: int = 4

    @property
    def tiles(self) -> Mapping[int, int]:
        """Most rows of a register tile by its number of vectors."""
        if self.vector_bits == 512 or self.architecture == "aarch64":
            return TILES["32 registers"]
        return TILES["16 registers" if self.has_fma else "16 registers, no fma"]

    @property
    def permutes(self) -> bool:
        """Whether an instruction picks each float of a vector from a table of 32."""
        return self.vector_bits == 512  # AVX-512

    @property
    def architecture(self) -> str:
        return self.triple.split("-")[0]


def _x86(cpu: str, vector_bits: int, modern: bool) -> Target:
    return Target("x86_64-unknown-linux-gnu", cpu, "", vector_bits, modern, modern)


KNOWN = {
    "x86-64-v2": _x86("x86-64-v2", 128, False),
    "x86-64-v3": _x86("x86-64-v3", 256, True),
    "x86-64-v4": _x86("x86-64-v4", 512, True),
    "aarch64": Target("aarch64-unknown-linux-gnu", "generic", "+neon", 128, True, True),
}
"""The baselines whose code the tests read; the host is asked for its own."""

# Accumulators, a row of W and one element of x have to fit the vector registers, and pointers
# to the rows of x the integer registers. The wide and flat ones are for one or two rows,
# where more streams of W arrive faster from memory (bench/NOTES.md).
TILES = {
    "16 registers": {1: 8, 2: 6, 3: 4, 4: 2},
    "16 registers, no fma": {1: 8, 2: 6, 3: 3, 4: 2},  # a product takes one more
    "32 registers": {1: 8, 2: 8, 3: 8, 4: 6, 5: 2, 6: 2, 7: 2, 8: 2},
}
"""By instruction set: tile sizes as in `Target.tiles`."""
