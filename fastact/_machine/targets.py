"""The machines that kernels are compiled for, and everything that differs between them, as data.

Operations without an LLVM intrinsic common to all targets are given as lines of LLVM IR.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple


class Operation(NamedTuple):
    """An instruction as lines of LLVM IR: a declaration and a call."""

    declaration: str
    call: str


class Lookup(NamedTuple):
    """An instruction that looks up an entry of a float table in each of `lanes` lanes.

    Its call computes ``%values`` from ``%numbers``, a vector of int32, and from ``%low`` and
    ``%high``, the halves of the table, which fill one vector each. It uses only the lowest bits
    of a number, as many as the index of an entry has.
    """

    feature: str  # LLVM's name of the feature that provides it
    lanes: int
    operation: Operation


class Shuffle(NamedTuple):
    """An instruction that selects bytes within each 128-bit part of a vector.

    Its name is that of LLVM's function of ``<N x i8> %bytes`` and ``<N x i8> %places``. Where a
    place is negative, the result is 0.
    """

    feature: str  # LLVM's name of the feature that provides it
    name: str


class Environment(NamedTuple):
    """The floating-point environment, as lines of LLVM IR.

    `enter` saves control and status in the 16 bytes at ``%saved`` and installs the default:
    rounding to nearest even, nothing flushed to zero, no traps. `leave` restores what was saved.
    """

    declarations: str
    enter: str
    leave: str


class Vectors(NamedTuple):
    """The features that vectors of some width need, their registers, a lookup and a shuffle."""

    features: tuple[str, ...] = ()
    registers: int = 16
    lookup: Lookup | None = None
    shuffle: Shuffle | None = None


class Costs(NamedTuple):
    """Half cycles that one core takes per instruction, if it waits for no other."""

    fma: int
    load: int
    latency: int  # from one fma to the next one that adds to its result


@dataclass(frozen=True)
class Architecture:
    """What all processors of an architecture have in common.

    Attributes
    ----------
    name : str
        The first part of a triple.
    aliases : tuple of str
        Other names of the same architecture.
    vectors : mapping
        :class:`Vectors` by width in bits, the widest first.
    fma, half : str
        The features that provide a fused multiply-add and conversions of half precision; empty
        if every processor has them.
    reported : tuple of str
        The features that ``show_config`` reports: those that code depends on, or one day may.
    environment : Environment
    pause : Operation
        The instruction for a loop that waits.
    costs : Costs
    fence : Operation, optional
        The instruction that orders non-temporal stores before later stores. Without one, code
        has no non-temporal stores.
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
    """What code generation has to know about a machine.

    `vector_bits` is the width of the vectors in the hot loop. One iteration handles `interleave`
    of them, to hide the latency of a long polynomial. `stages` is the number of parts into which
    the loop is divided for the same reason (``_compiler/software_pipelining.py``). With
    `one_number`, there is a copy of the hot loop for a last input that is one number.
    """

    triple: str
    cpu: str
    features: str
    vector_bits: int
    has_fma: bool
    has_half: bool
    interleave: int = 4
    stages: int = 1
    one_number: bool = False

    @property
    def architecture(self) -> str:
        return architecture_of(self.triple)

    @property
    def instructions(self) -> Architecture:
        return ARCHITECTURES[self.architecture]

    @property
    def lookup(self) -> Lookup | None:
        """The instruction that looks up tables in vector registers, or None."""
        return self.instructions.vectors[self.vector_bits].lookup

    @property
    def shuffle(self) -> Shuffle | None:
        """The instruction that selects bytes of parts of vectors, or None."""
        shuffle = self.instructions.vectors[self.vector_bits].shuffle
        there = shuffle is not None and f"+{shuffle.feature}" in self.features.split(",")
        return shuffle if there else None

    @property
    def tiles(self) -> Mapping[int, int]:
        """The largest number of rows of a register tile, by its number of vectors."""
        name = f"{self.instructions.vectors[self.vector_bits].registers} registers"
        return TILES[name] if self.has_fma else TILES.get(f"{name}, no fma", TILES[name])


def architecture_of(triple: str) -> str:
    """Return the architecture of `triple`, by one name for all its aliases."""
    name = triple.split("-")[0]
    return next((a.name for a in ARCHITECTURES.values() if name in a.aliases), name)


def target_of(triple: str, cpu: str, features: Mapping[str, bool]) -> Target:
    """Return the target for a processor with these `features`, by LLVM's names."""
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


# The accumulators, a row of W and one element of x must fit into the vector registers, and the
# pointers to the rows of x into the integer registers. The wide, flat tiles are for one or two
# rows: W arrives faster from memory in more streams (bench/NOTES.md).
TILES = {
    "16 registers": {1: 8, 2: 6, 3: 4, 4: 2, 5: 1, 6: 1},
    "16 registers, no fma": {1: 8, 2: 6, 3: 3, 4: 2},  # a product needs one more
    "32 registers": {1: 8, 2: 8, 3: 8, 4: 6, 5: 2, 6: 2, 7: 2, 8: 2},
}
"""Tile sizes as in `Target.tiles`, by vector registers."""


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
            shuffle=Shuffle("avx512bw", "llvm.x86.avx512.pshuf.b.512"),
        ),
        256: Vectors(features=("avx2",), shuffle=Shuffle("avx2", "llvm.x86.avx2.pshuf.b")),
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
"""The supported architectures, by name."""

# The levels of the x86-64 psABI, by LLVM's names; each includes the levels before it.
_V1 = ("cmov", "cx8", "fxsr", "mmx", "sse", "sse2")
_V2 = (*_V1, "cx16", "popcnt", "sahf", "sse3", "sse4.1", "sse4.2", "ssse3")
_V3 = (*_V2, "avx", "avx2", "bmi", "bmi2", "f16c", "fma", "lzcnt", "movbe", "xsave")
_V4 = (*_V3, "avx512bw", "avx512cd", "avx512dq", "avx512f", "avx512vl")


def _baseline(architecture: Architecture, cpu: str, features: tuple[str, ...]) -> Target:
    return target_of(f"{architecture.name}-unknown-linux-gnu", cpu, dict.fromkeys(features, True))


BASELINES = {
    "x86-64": _baseline(_X86_64, "x86-64", _V1),
    "x86-64-v2": _baseline(_X86_64, "x86-64-v2", _V2),
    "x86-64-v3": _baseline(_X86_64, "x86-64-v3", _V3),
    "x86-64-v4": _baseline(_X86_64, "x86-64-v4", _V4),
    "aarch64": _baseline(_AARCH64, "generic", ("neon",)),
}
"""The baselines that ``FASTACT_CPU`` may name (``_machine/cpu.py``), and whose code the tests
read; lower levels of an architecture come first."""

LOWEST_BASELINES = {
    name: next(target for target in BASELINES.values() if target.architecture == name)
    for name in ARCHITECTURES
}
"""The baseline that every processor of an architecture can run."""
