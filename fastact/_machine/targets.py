"""The machines that kernels are compiled for, as data: all that differs between them is here.

What LLVM has no common operation for is given as lines of its IR.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple


class Operation(NamedTuple):
    """An instruction as lines of LLVM IR: a declaration, and a call."""

    declaration: str
    call: str


class Lookup(NamedTuple):
    """An instruction that picks an entry of a table for each of `lanes` float.

    Its call computes ``%values`` from ``%numbers``, as many int32, and the halves ``%low`` and
    ``%high`` of the table, which fill a vector each. It ignores all but the lowest bits of a
    number, those that tell entries apart.
    """

    feature: str  # that brings it, by LLVM's name
    lanes: int
    operation: Operation


class Environment(NamedTuple):
    """The floating-point environment, as lines of LLVM IR.

    `enter` saves control and status in the 16 bytes at ``%saved`` and installs the default:
    rounding to nearest even, nothing flushed to zero, no traps. `leave` restores what was saved.
    """

    declarations: str
    enter: str
    leave: str


class Vectors(NamedTuple):
    """What comes with vectors of a width: the features that it needs, and registers."""

    features: tuple[str, ...] = ()
    registers: int = 16
    lookup: Lookup | None = None


class Costs(NamedTuple):
    """Half cycles that one core takes, where an instruction waits for no other."""

    fma: int
    load: int
    latency: int  # until the result of an fma may be added to


@dataclass(frozen=True)
class Architecture:
    """What all processors of an architecture have in common.

    Attributes
    ----------
    name : str
        As it begins a triple.
    aliases : tuple of str
        Other names that mean the same.
    vectors : mapping
        :class:`Vectors` by their bits, the widest first.
    fma, half : str
        The features that bring a fused multiply-add, and conversions of half precision; empty
        where every processor has them.
    reported : tuple of str
        Features that decide what code is made, or one day might.
    environment : Environment
    pause : Operation
        What a processor should do in a loop that waits.
    costs : Costs
    fence : Operation, optional
        What orders stores that go past the caches before later ones. Without one, there are no
        such stores.
    """

    name: str
    aliases: tuple[str, ...]
    vectors: Mapping[int, Vectors]
    fma: str
    half: str
    reported: tuple[str, ...]
    environment: Environment
    pause: Operation
    costs: Costs
    fence: Operation | None = None


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
        return architecture_of(self.triple)

    @property
    def instructions(self) -> Architecture:
        return ARCHITECTURES[self.architecture]

    @property
    def lookup(self) -> Lookup | None:
        """What looks tables up in vector registers, if anything does."""
        return self.instructions.vectors[self.vector_bits].lookup

    @property
    def tiles(self) -> Mapping[int, int]:
        """Most rows of a register tile by its number of vectors."""
        name = f"{self.instructions.vectors[self.vector_bits].registers} registers"
        return TILES[name] if self.has_fma else TILES.get(f"{name}, no fma", TILES[name])


def architecture_of(triple: str) -> str:
    """The first part of a `triple`, by one name for each architecture."""
    name = triple.split("-")[0]
    return next((a.name for a in ARCHITECTURES.values() if name in a.aliases), name)


def target_of(triple: str, cpu: str, features: Mapping[str, bool]) -> Target:
    """The machine with a processor of these `features`, by LLVM's names."""
    architecture = ARCHITECTURES[architecture_of(triple)]

    def has(*needed: str) -> bool:
        return all(features.get(name) for name in needed)

    return Target(
        triple,
        cpu,
        ",".join(f"{'+' if there else '-'}{name}" for name, there in sorted(features.items())),
        next(bits for bits, needs in architecture.vectors.items() if has(*needs.features)),
        has_fma=not architecture.fma or has(architecture.fma),
        has_half=not architecture.half or has(architecture.half),
    )


# Accumulators, a row of W and one element of x have to fit the vector registers, and pointers
# to the rows of x the integer registers. The wide and flat ones are for one or two rows,
# where more streams of W arrive faster from memory (bench/NOTES.md).
TILES = {
    "16 registers": {1: 8, 2: 6, 3: 4, 4: 2},
    "16 registers, no fma": {1: 8, 2: 6, 3: 3, 4: 2},  # a product takes one more
    "32 registers": {1: 8, 2: 8, 3: 8, 4: 6, 5: 2, 6: 2, 7: 2, 8: 2},
}
"""By vector registers: tile sizes as in `Target.tiles`."""


_X86_64 = Architecture(
    name="x86_64",
    aliases=("amd64", "x86_64h"),
    vectors={
        512: Vectors(
            features=("avx512f", "avx512dq", "avx512vl"),
            registers=32,
            lookup=Lookup(
                "avx512f",
                16,
                Operation(
                    "declare <16 x float> @llvm.x86.avx512.vpermi2var.ps.512"
                    "(<16 x float>, <16 x i32>, <16 x float>)",
                    "%values = call <16 x float> @llvm.x86.avx512.vpermi2var.ps.512"
                    "(<16 x float> %low, <16 x i32> %numbers, <16 x float> %high)",
                ),
            ),
        ),
        256: Vectors(features=("avx2",)),
        128: Vectors(),
    },
    fma="fma",
    half="f16c",
    reported=(
        *("avx2", "avx512f", "avx512dq", "avx512vl", "avx512bf16", "avx512fp16", "fma", "f16c"),
    ),
    environment=Environment(
        """
declare void @llvm.x86.sse.stmxcsr(ptr)
declare void @llvm.x86.sse.ldmxcsr(ptr)""",
        """
  %default = alloca i32
  store i32 8064, ptr %default
  call void @llvm.x86.sse.stmxcsr(ptr %saved)
  call void @llvm.x86.sse.ldmxcsr(ptr %default)""",
        """
  call void @llvm.x86.sse.ldmxcsr(ptr %saved)""",
    ),
    pause=Operation("declare void @llvm.x86.sse2.pause()", "call void @llvm.x86.sse2.pause()"),
    costs=Costs(fma=1, load=2, latency=8),  # an Ice Lake server loads no faster
    fence=Operation("declare void @llvm.x86.sse.sfence()", "call void @llvm.x86.sse.sfence()"),
)

_AARCH64 = Architecture(
    name="aarch64",
    aliases=("arm64", "arm64e"),
    vectors={128: Vectors(registers=32)},
    fma="",
    half="",
    reported=("neon", "fullfp16", "bf16", "sve"),
    environment=Environment(
        """
declare i64 @llvm.aarch64.get.fpcr()
declare void @llvm.aarch64.set.fpcr(i64)
declare i64 @llvm.aarch64.get.fpsr()
declare void @llvm.aarch64.set.fpsr(i64)""",
        """
  %control = call i64 @llvm.aarch64.get.fpcr()
  %status = call i64 @llvm.aarch64.get.fpsr()
  store i64 %control, ptr %saved
  %next = getelementptr i64, ptr %saved, i64 1
  store i64 %status, ptr %next
  call void @llvm.aarch64.set.fpcr(i64 0)""",
        """
  %control = load i64, ptr %saved
  %next = getelementptr i64, ptr %saved, i64 1
  %status = load i64, ptr %next
  call void @llvm.aarch64.set.fpcr(i64 %control)
  call void @llvm.aarch64.set.fpsr(i64 %status)""",
    ),
    pause=Operation("declare void @llvm.aarch64.isb(i32)", "call void @llvm.aarch64.isb(i32 15)"),
    costs=_X86_64.costs,  # not measured
)

ARCHITECTURES = {architecture.name: architecture for architecture in (_X86_64, _AARCH64)}
"""By name; no code is made for others."""

# As the psABI of x86-64 has them, by LLVM's names; each level has those before it, too.
_V1 = ("cmov", "cx8", "fxsr", "mmx", "sse", "sse2")
_V2 = (*_V1, "cx16", "popcnt", "sahf", "sse3", "sse4.1", "sse4.2", "ssse3")
_V3 = (*_V2, "avx", "avx2", "bmi", "bmi2", "f16c", "fma", "lzcnt", "movbe", "xsave")
_V4 = (*_V3, "avx512bw", "avx512cd", "avx512dq", "avx512f", "avx512vl")


def _baseline(architecture: Architecture, cpu: str, features: tuple[str, ...]) -> Target:
    return target_of(f"{architecture.name}-unknown-linux-gnu", cpu, dict.fromkeys(features, True))


KNOWN = {
    "x86-64": _baseline(_X86_64, "x86-64", _V1),
    "x86-64-v2": _baseline(_X86_64, "x86-64-v2", _V2),
    "x86-64-v3": _baseline(_X86_64, "x86-64-v3", _V3),
    "x86-64-v4": _baseline(_X86_64, "x86-64-v4", _V4),
    "aarch64": _baseline(_AARCH64, "generic", ("neon",)),
}
"""The baselines that may be asked for by name (``_machine/cpu.py``), and whose code the tests
read; the lesser ones of an architecture come first."""

CERTAIN = {
    name: next(target for target in KNOWN.values() if target.architecture == name)
    for name in ARCHITECTURES
}
"""What every processor of an architecture can run."""
