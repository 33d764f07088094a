"""Machine code as text: its functions, their loops, and what kinds of instructions these have."""

import re
from collections.abc import Iterator
from typing import NamedTuple

# Conditional jumps: code off the straight path returns by an unconditional one.
JUMP = re.compile(r"(?m)^\t(j(?!mp)\w+|b\.\w+|cbn?z|tbn?z)\t(?:.*, )?(\.LBB\w+)$")

# The stack, where registers are spilled. Such code uses the frame pointer as any other register.
STACK = {
    "x86_64": re.compile(r"\(%rsp\b"),
    "aarch64": re.compile(r"\[sp\b"),
}


class Kinds(NamedTuple):
    """Patterns of instructions of one architecture.

    `vector` finds instructions with a vector or mask as an operand. Those of them that `moved`
    finds only load, store, copy or make a vector; all others are arithmetic, which here includes
    conversions, selects, table lookups and shuffles.
    """

    vector: re.Pattern[str]
    moved: re.Pattern[str]
    division: re.Pattern[str]
    constant: re.Pattern[str]  # loaded or made in the loop, not before it


KINDS = {
    "x86_64": Kinds(
        vector=re.compile(r"%[xyz]mm\d|%k\d"),
        # A move with a mask is a select. A register becomes zero by an exclusive or with itself.
        moved=re.compile(
            r"\t(v?mov([au]p[sd]|dq[au]\d*|s[sd]|[dq])|vp?broadcast\w+|kmov\w)\t(?!.*\{%k)"
            r"|\tv?p?xor\w*\t(%\w+), (\3, )?\3$"
        ),
        division=re.compile(r"\tv?div"),
        constant=re.compile(r"\(%rip\)"),
    ),
    "aarch64": Kinds(
        vector=re.compile(r"\b[vq]\d+"),
        moved=re.compile(r"\t(mov|movi|mvni|fmov|dup|ld\w+|st\w+)\t"),
        division=re.compile(r"\tfdiv\t"),
        constant=re.compile(r"\t(movi|mvni|movk?|fmov)\t.*#|\tdup\t.*\b[wx]\d|:lo12:"),
    ),
}
"""The kinds of instructions by architecture."""


class Counts(NamedTuple):
    """How many instructions some code has, and how many of each kind.

    An instruction can be of several kinds: an addition whose operand is a constant in memory counts
    for `arithmetic` and `constants`. `spills` are loads from the stack and stores to it.
    """

    instructions: int
    arithmetic: int
    divisions: int
    constants: int
    spills: int


def function(text: str, name: str) -> str:
    """The lines of the function `name`."""
    body = text[re.search(rf"(?m)^{re.escape(name)}:", text).start() :]
    return body[: body.index(".Lfunc_end")]


def loops(body: str) -> Iterator[str]:
    """The innermost loops: blocks that end in a jump back to their label."""
    lines = body.splitlines()
    at = {line[:-1]: i for i, line in enumerate(lines) if re.fullmatch(r"\.LBB\w+:", line)}
    for i, line in enumerate(lines):
        if (jump := JUMP.match(line)) and at.get(jump[2], i) < i:
            block = "\n".join(lines[at[jump[2]] : i + 1])
            if block.count("\n.LBB") == 0:
                yield block


def counts(code: str, architecture: str) -> Counts:
    """Count the instructions of `code`, which may also contain labels and directives."""
    lines = re.findall(r"(?m)^\t(?!\.)[^#\n]*\S", code)
    lines = [f"\t{line.strip()}" for line in lines]
    kinds = KINDS[architecture]
    vectors = [line for line in lines if kinds.vector.search(line)]
    return Counts(
        instructions=len(lines),
        arithmetic=sum(not kinds.moved.search(line) for line in vectors),
        divisions=sum(bool(kinds.division.search(line)) for line in lines),
        constants=sum(bool(kinds.constant.search(line)) for line in lines),
        spills=sum(bool(STACK[architecture].search(line)) for line in lines),
    )
