"""The machines that kernels are compiled for, as data."""

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
