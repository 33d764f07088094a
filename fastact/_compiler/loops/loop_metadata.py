"""What LLVM is told of functions and loops besides their code: attributes and metadata, by name."""

from fastact._machine.targets import Target

NO_CALLS = '"no-builtins"'
"""Of functions whose loops LLVM is not to turn into calls of memcpy or the like."""


def wide_vectors(target: Target) -> str:
    """Of functions with the same, and vectors as wide as the target has them."""
    return f'"prefer-vector-width"="{target.vector_bits}" {NO_CALLS}'


_ITSELF = "ITSELF"


class LoopMetadata:
    """The notes on the loops of a module, which are numbered as they are asked for.

    Attributes and results of methods are what goes behind a load, a store, or the branch back to
    the beginning of a loop.
    """

    def __init__(self) -> None:
        self._numbers: dict[str, int] = {}
        # Every iteration touches its own element only, so the accesses are parallel whether or
        # not the output is the input: no run-time overlap check, and no scalar code in place.
        group = self._node("distinct !{}")
        self.parallel = f"!llvm.access.group {group}"
        self._parallel = self._node(f'!{{!"llvm.loop.parallel_accesses", {group}}}')

    def vectorised(self, lanes: int = 0, interleave: int = 0, unrolled: bool = True) -> str:
        """Of a loop over elements: as `interleave` vectors of so many lanes, all parallel.

        Without numbers, LLVM chooses them, and proves what is parallel. Loops that are not to be
        unrolled stay whole before they are vectorised, too.
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
        """Of a loop that goes element by element, `unroll` in a turn or, if None, without turns."""
        how = self._option("unroll.full")
        if unroll is not None:
            how = self._option("unroll.count", f"i32 {unroll}")
        return self._loop([self._option("vectorize.enable", "i1 false"), how])

    def ir(self) -> str:
        """The nodes; asked for last."""
        return "".join(
            f"\n!{number} = {text.replace(_ITSELF, f'!{number}')}"
            for text, number in self._numbers.items()
        )

    def _loop(self, notes: list[str]) -> str:
        # Metadata of a loop is distinct by referring to itself.
        text = f"distinct !{{{_ITSELF}, {', '.join(notes)}}}"
        return f"!llvm.loop {self._node(text)}"

    def _option(self, name: str, value: str = "") -> str:
        return self._node(f'!{{!"llvm.loop.{name}"{", " * bool(value)}{value}}}')

    def _node(self, text: str) -> str:
        return f"!{self._numbers.setdefault(text, len(self._numbers))}"
