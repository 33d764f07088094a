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
        return architecture_of(self.triple)


def architecture_of(triple: str) -> str:
    """The first part of a `triple`, by one name for each architecture."""
    name = triple.split("-")[0]
    return {"amd64": "x86_64", "x86_64h": "x86_64", "arm64": "aarch64", "arm64e": "aarch64"}.get(
        name, name
    )


# As the psABI of x86-64 has them, by LLVM's names; each level has those before it, too.
_V1 = ("cmov", "cx8", "fxsr", "mmx", "sse", "sse2")
_V2 = (*_V1, "cx16", "popcnt", "sahf", "sse3", "sse4.1", "sse4.2", "ssse3")
_V3 = (*_V2, "avx", "avx2", "bmi", "bmi2", "f16c", "fma", "lzcnt", "movbe", "xsave")
_V4 = (*_V3, "avx512bw", "avx512cd", "avx512dq", "avx512f", "avx512vl")


def _x86(cpu: str, features: tuple[str, ...], vector_bits: int) -> Target:
    has_fma, has_half = "fma" in features, "f16c" in features
    text = ",".join(f"+{name}" for name in features)
    return Target("x86_64-unknown-linux-gnu", cpu, text, vector_bits, has_fma, has_half)


KNOWN = {
    "x86-64": _x86("x86-64", _V1, 128),
    "x86-64-v2": _x86("x86-64-v2", _V2, 128),
    "x86-64-v3": _x86("x86-64-v3", _V3, 256),
    "x86-64-v4": _x86("x86-64-v4", _V4, 512),
    "aarch64": Target("aarch64-unknown-linux-gnu", "generic", "+neon", 128, True, True),
}
"""The baselines that may be asked for (``_machine/cpu.py``), and whose code the tests read."""

CERTAIN = {"x86_64": KNOWN["x86-64"], "aarch64": KNOWN["aarch64"]}
"""What every processor of an architecture can run; no code is made for other architectures."""

# Accumulators, a row of W and one element of x have to fit the vector registers, and pointers
# to the rows of x the integer registers. The wide and flat ones are for one or two rows,
# where more streams of W arrive faster from memory (bench/NOTES.md).
TILES = {
    "16 registers": {1: 8, 2: 6, 3: 4, 4: 2},
    "16 registers, no fma": {1: 8, 2: 6, 3: 3, 4: 2},  # a product takes one more
    "32 registers": {1: 8, 2: 8, 3: 8, 4: 6, 5: 2, 6: 2, 7: 2, 8: 2},
}
"""By instruction set: tile sizes as in `Target.tiles`."""
