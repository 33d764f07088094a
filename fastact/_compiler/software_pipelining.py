"""Software pipelining of vectorised loops.

A processor starts an operation as soon as its operands are known, but looks only so far ahead. A
long kernel is a chain of operations, and the chains of several vectors that fit into the scheduler
do not fill the pipes. So the loop is divided into stages of similar latency. An iteration computes
the last stage of one block of vectors, the stage before it of the next block, and so on: parts that
do not depend on each other. Results are the same bits. The loop is rewritten in the optimised
text, where the vectors are known.
"""

import re
from collections.abc import Callable
from typing import NamedTuple

import llvmlite.binding as llvm

from fastact._compiler.nontemporal import AHEAD, HOT_LOOP, STREAMED

FEW = ".few"
"""Follows the name of a loop in that of the loop as it was, for few blocks."""

_LEAST = 8  # blocks that are computed in stages

# Cycles until the result of an operation on vectors is known, on recent processors. Only
# their proportions matter.
_LATENCIES = {"fdiv": 12, "call": 4, "fmul": 4, "fadd": 3, "fsub": 3, "fcmp": 1, "select": 1}
_FREE = ("bitcast", "getelementptr", "load", "store")
_SLACK = 0.15  # of the latency of a stage, by which a cut moves to where fewer values pass it

_LOOP = re.compile(
    r"(?ms)^(?P<entry>entry:.*?)^  br label %(?P<label>[\w.]+)\n\n"
    r"(?P=label):[^\n]*\n"
    r"  (?P<index>%[\w.]+) = phi i64 \[ 0, %entry \], \[ (?P<next>%[\w.]+), %(?P=label) \]\n"
    r"(?P<body>.*?)"
    r"  (?P=next) = add (?:nuw |nsw )*i64 (?P=index), (?P<step>\d+)\n"
    r"  (?P<test>%[\w.]+) = icmp eq i64 (?P=next), (?P<end>%[\w.]+)\n"
    r"  br i1 (?P=test), label %(?P<exit>[\w.]+), label %(?P=label), (?P<notes>[^\n]*)\n\n"
    r"(?P=exit):[^\n]*\n  ret void\n$"
)
_NAME = re.compile(r"%[\w.]+")
_VECTOR = re.compile(r"<\d+ x \w+>")


class _Instruction(NamedTuple):
    result: str | None
    operation: str
    operands: tuple[str, ...]  # values of the loop, without the index
    text: str  # without "result = "


def applied(module: llvm.ModuleRef, stages: int) -> llvm.ModuleRef:
    """`module` with its hot loop and the copies of it in `stages`.

    It is `module` itself if a loop has another form than expected, as another version of LLVM might
    give it. Then code is slower, not wrong; a test looks for the stages.
    """
    try:
        text = str(module)
        for name in (HOT_LOOP, AHEAD, STREAMED):
            text = _divided(text, name, stages)
        return llvm.parse_assembly(text)
    except (_OtherForm, RuntimeError):  # the second is LLVM's
        return module


class _OtherForm(Exception):
    """The text of a module is not as expected."""


def _divided(text: str, name: str, stages: int) -> str:
    """The `text` of a module with the loop of the function `name` in `stages`."""
    defined = re.search(
        rf"(?ms)^define internal (?P<convention>fastcc )?void @{name}\("
        r"(?P<parameters>[^\n]*)\) [^\n()]*\{\n(?P<body>.*?)^\}\n",
        text,
    )
    if defined is None:
        if name == HOT_LOOP:
            raise _OtherForm
        return text  # there are copies only of some loops
    *pointers, count = _NAME.findall(defined["parameters"])
    arguments = ", ".join([*(f"ptr {pointer}" for pointer in pointers), f"i64 {count}"])
    few = defined[0].replace(f"@{name}(", f"@{name}{FEW}(", 1)
    whole = defined[0].replace(
        defined["body"],
        f"""start:
  %few = icmp ult i64 {count}, {_LEAST}
  br i1 %few, label %plain, label %entry
plain:
  call {defined["convention"] or ""}void @{name}{FEW}({arguments})
  ret void
{_pipelined(defined["body"], stages)}""",
    )
    return text.replace(defined[0], few + whole)


def _pipelined(body: str, stages: int) -> str:
    """The body of a function, from its first label, with its loop in `stages`.

    The loop has to run for `stages` iterations.
    """
    found = _LOOP.search(body)
    if not found:
        raise _OtherForm
    instructions = _read(found["body"])
    placed = _stages(instructions, stages)
    return _written(found, instructions, placed, stages)


def _read(body: str) -> list[_Instruction]:
    instructions: list[_Instruction] = []
    inside: set[str] = set()
    for line in body.splitlines():
        left, equals, right = line.strip().partition(" = ")
        result, text = (left, right) if equals and left.startswith("%") else (None, line.strip())
        operation = text.removeprefix("tail ").split()[0]
        operands = tuple(dict.fromkeys(name for name in _NAME.findall(text) if name in inside))
        instructions.append(_Instruction(result, operation, operands, text))
        if result:
            inside.add(result)
    return instructions


def _repeated(instruction: _Instruction) -> bool:
    """Whether each stage that needs the result computes it anew, from memory."""
    return instruction.operation in ("getelementptr", "load")


def _stages(instructions: list[_Instruction], count: int) -> list[int]:
    """The stage of each instruction."""
    start: list[int] = []
    finish: dict[str, int] = {}
    for one in instructions:
        start.append(max((finish[name] for name in one.operands), default=0))
        if one.result:
            free = one.operation in _FREE
            finish[one.result] = start[-1] + (0 if free else _LATENCIES.get(one.operation, 1))
    total = max(start)
    cuts: list[int] = []
    for k in range(1, count):
        middle, slack = total * k / count, total / count * _SLACK
        near = [t for t in sorted(set(start)) if abs(t - middle) <= slack] or [round(middle)]
        carried = {t: _carried(instructions, [int(s >= t) for s in start]) for t in near}
        cuts.append(min(near, key=lambda t: (carried[t], abs(t - middle))))
    placed = [sum(t >= cut for cut in cuts) for t in start]
    for k, one in enumerate(instructions):
        if one.operation == "store":
            placed[k] = count - 1
        elif one.operation == "call" and one.result is None:
            placed[k] = 0  # a prefetch
    # What can wait for the stage that needs it does, where fewer values are carried then.
    for k, one in reversed(list(enumerate(instructions))):
        users = [placed[j] for j, user in enumerate(instructions) if one.result in user.operands]
        if users and min(users) > placed[k]:
            later = [*placed[:k], min(users), *placed[k + 1 :]]
            if _carried(instructions, later) <= _carried(instructions, placed):
                placed = later
    return placed


def _carried(instructions: list[_Instruction], placed: list[int]) -> int:
    """How many vectors are carried from one iteration to the next."""
    return sum(_lags(instructions, placed).values())


def _lags(instructions: list[_Instruction], placed: list[int]) -> dict[str, int]:
    """By value: by how many stages the last one that uses it is behind the one that makes it."""
    pairs = list(zip(instructions, placed, strict=True))
    made = {one.result: stage for one, stage in pairs if not _repeated(one)}
    lags: dict[str, int] = {}
    for one, stage in zip(instructions, placed, strict=True):
        if _repeated(one):
            continue
        for name in one.operands:
            if made.get(name, stage) < stage:
                lags[name] = max(lags.get(name, 0), stage - made[name])
    return lags


def _written(
    found: re.Match[str], instructions: list[_Instruction], placed: list[int], stages: int
) -> str:
    pairs = list(zip(instructions, placed, strict=True))
    stage_of = {one.result: stage for one, stage in pairs if one.result}
    repeated = {one.result for one in instructions if _repeated(one)}
    step, index = int(found["step"]), found["index"]
    lags = _lags(instructions, placed)
    kinds = _kinds(instructions)

    # What each stage executes, in order, with the loads that it repeats.
    members: list[list[_Instruction]] = []
    for stage in range(stages):
        needed: set[str] = set()
        chosen = []
        for one, at in reversed(pairs):
            if (at == stage and not _repeated(one)) or one.result in needed:
                chosen.append(one)
                needed |= {name for name in one.operands if name in repeated}
        members.append(chosen[::-1])

    def name_at(name: str, iteration: str, stage: int) -> str:
        return f"%{iteration}.{name[1:]}" + (f".again{stage}" if name in repeated else "")

    def emit(
        iteration: str,
        active: range,
        value: Callable[[str, int], str],
        place: Callable[[int], str],
    ) -> str:
        """The stages `active` of an iteration, the last first."""
        text = ""
        for stage in reversed(active):
            at = f"%{iteration}.index{stage}"
            text += f"  {at} = {place(stage)}\n"

            def renamed(match: re.Match[str], stage: int = stage, at: str = at) -> str:
                name = match[0]
                if name == index:
                    return at
                if name in repeated:
                    return name_at(name, iteration, stage)
                if name in stage_of:
                    return value(name, stage - stage_of[name])
                return name

            for one in members[stage]:
                line = _NAME.sub(renamed, one.text)
                if one.result:
                    line = f"{name_at(one.result, iteration, stage)} = {line}"
                text += f"  {line}\n"
        return text

    def carried(name: str, lag: int) -> str:
        return f"%loop.{name[1:]}" + (f".lag{lag}" if lag else "")

    def first(p: int) -> str:
        """The iterations that only begin blocks: stages up to the `p`-th."""
        return emit(
            f"first{p}",
            range(p + 1),
            lambda name, lag: f"%first{p - lag}.{name[1:]}",
            lambda stage: f"add i64 0, {(p - stage) * step}",
        )

    def last(e: int) -> str:
        """The iterations that only finish blocks: stages from the `e`-th on."""
        return emit(
            f"last{e}",
            range(e, stages),
            lambda name, lag: f"%last{e - lag}.{name[1:]}" if lag < e else carried(name, lag - e),
            lambda stage: f"sub i64 {found['end']}, {(1 + stage - e) * step}",
        )

    text: str = found["entry"] + "".join(map(first, range(stages - 1)))
    label = found["label"]
    text += f"  br label %{label}\n\n{label}:\n"
    text += f"  %loop.index = phi i64 [ {(stages - 1) * step}, %entry ], [ %loop.next, %{label} ]\n"
    for name, most in lags.items():
        for lag in range(1, most + 1):
            text += (
                f"  {carried(name, lag)} = phi {kinds[name]} "
                f"[ %first{stages - 1 - lag}.{name[1:]}, %entry ], "
                f"[ {carried(name, lag - 1)}, %{label} ]\n"
            )
    text += emit(
        "loop", range(stages), carried, lambda stage: f"sub i64 %loop.index, {stage * step}"
    )
    text += (
        f"  %loop.next = add nuw i64 %loop.index, {step}\n"
        f"  %loop.ends = icmp eq i64 %loop.next, {found['end']}\n"
        f"  br i1 %loop.ends, label %{found['exit']}, label %{label}, {found['notes']}\n\n"
        f"{found['exit']}:\n"
    )
    text += "".join(map(last, range(1, stages)))
    return text + "  ret void\n"


def _kinds(instructions: list[_Instruction]) -> dict[str, str]:
    """The types of the values that may be carried."""
    kinds: dict[str, str] = {}
    for one in instructions:
        vectors = _VECTOR.findall(one.text)
        if one.result is None or _repeated(one):
            continue
        if " to " in one.text:  # a conversion
            kinds[one.result] = vectors[-1]
        elif one.operation in ("fcmp", "icmp"):
            kinds[one.result] = re.sub(r" x .*", " x i1>", vectors[0])
        else:
            kinds[one.result] = vectors[one.operation == "select"]
    return kinds
