"""Attributes of functions and metadata of loops in LLVM IR."""

from fastact._machine.targets import Target

NO_CALLS = '"no-builtins"'
"""Attribute of functions whose loops LLVM must not turn into calls of memcpy or the like."""


def wide_vectors(target: Target) -> str:
    """The attributes `NO_CALLS`, and vectors as wide as the target has them."""
    return f'"prefer-vector-width"="{target.vector_bits}" {NO_CALLS}'


def aligned_stack(target: Target) -> str:
    """The attribute that aligns the stack of a function for the vectors that it spills.

    Without it, whether a spilled vector lies on both sides of the end of a page is up to the
    caller. float32 tanh took twice as long then (bench/NOTES.md).
    """
    size = target.vector_bits // 8
    return f"alignstack({size})" if size > 16 else ""  # callers align it to 16 bytes


_ITSELF = "ITSELF"


class LoopMetadata:
    """The metadata of the loops of a module, numbered in the order in which they are requested.

    `parallel` follows a load or a store. The results of `vectorised` and `scalar` follow the branch
    back to the beginning of a loop.
    """

    def __init__(self) -> None:
        self._numbers: dict[str, int] = {}
        # Every iteration accesses only its own element, so that accesses are parallel even if the
        # output is the input. LLVM then makes no overlap check and no scalar loop for that case.
        group = self._node("distinct !{}")
        self.parallel = f"!llvm.access.group {group}"
        self._parallel = self._node(f'!{{!"llvm.loop.parallel_accesses", {group}}}')

    def vectorised(self, lanes: int = 0, interleave: int = 0, unrolled: bool = True) -> str:
        """For a parallel loop over elements, as `interleave` vectors of `lanes` lanes.

        Without numbers, LLVM chooses them, and has to prove that accesses are parallel. If not
        `unrolled`, the loop is not unrolled before it is vectorised either.
        """
        notes = [self._option("vectorize.enable", "i1 true")]
        if lanes:
            notes += [
                self._option("vectorize.width", f"i32 {lanes}"),
                self._option("interleave.count", f"i32 {interleave}"),
                self._parallel,
            ]
        if not unrolled:
            notes.append(self._option("unroll.disable"))
        return self._loop(notes)

    def scalar(self, unroll: int | None = None) -> str:
        """For a loop over single elements, unrolled by `unroll` or, if None, completely."""
        how = self._option("unroll.full")
        if unroll is not None:
            how = self._option("unroll.count", f"i32 {unroll}")
        return self._loop([self._option("vectorize.enable", "i1 false"), how])

    def rolled(self) -> str:
        """For a loop around others that is not unrolled."""
        return self._loop([self._option("unroll.disable")])

    def ir(self) -> str:
        """The nodes of the metadata; call it last."""
        return "".join(
            f"\n!{number} = {text.replace(_ITSELF, f'!{number}')}"
            for text, number in self._numbers.items()
        )

    def _loop(self, notes: list[str]) -> str:
        # The metadata of a loop refers to itself, which makes it distinct.
        text = f"distinct !{{{_ITSELF}, {', '.join(notes)}}}"
        return f"!llvm.loop {self._node(text)}"

    def _option(self, name: str, value: str = "") -> str:
        return self._node(f'!{{!"llvm.loop.{name}"{", " * bool(value)}{value}}}')

    def _node(self, text: str) -> str:
        return f"!{self._numbers.setdefault(text, len(self._numbers))}"
