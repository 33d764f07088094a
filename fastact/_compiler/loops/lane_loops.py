"""LLVM IR of the steps of a function of rows, taken for every lane.

Consecutive steps for the same lane are one loop, which LLVM vectorises.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from fastact._compiler.loops.loop_metadata import LoopMetadata, wide_vectors
from fastact._machine.targets import Target

# The places that steps read and write. These hold a value for every lane ...
LARGEST = ["largest"]

PARAMETERS = ["p0", "p1", "p2"]

SUM = ["high", "low"]

TOTAL = ["total", "rest"]

DIVISOR = ["q0", "q1"]

STATE = [*LARGEST, *PARAMETERS, *SUM, *TOTAL, *DIVISOR]

# ... and these a value for every element in the buffers.
TERM = ["t0", "t1"]

BUFFERED = ["x", "y", *TERM]


@dataclass(frozen=True)
class Shape:
    """The types of an element in memory and in computation, and the vectors that are the lanes."""

    storage: str
    compute: str
    vector: int
    vectors: int
    notes: LoopMetadata
    target: Target
    padding: float  # the infinity that is larger than no element

    @property
    def least(self) -> str:
        """That infinity as a constant of the type of computation."""
        return "0xFFF0000000000000" if self.padding < 0 else "0x7FF0000000000000"

    @property
    def lanes(self) -> int:
        return self.vector * self.vectors

    def kind(self, place: str) -> str:
        return self.storage if place in ("x", "y") else self.compute


def call_step(shape: Shape, step: str, inputs: Sequence[str], outputs: Sequence[str]) -> str:
    """Call a step with the values `inputs`, and name its results `outputs`."""
    results = f"[{len(outputs)} x {shape.compute}]"
    arguments = ", ".join(f"{shape.compute} {value}" for value in inputs)
    text = f"\n  {outputs[0]}.all = call {results} @{step}({arguments})"
    for k, value in enumerate(outputs):
        text += f"\n  {value} = extractvalue {results} {outputs[0]}.all, {k}"
    return text


@dataclass(frozen=True)
class LaneLoop:
    """A loop that takes steps for every lane, in each of a number of rounds.

    `calls` are the steps, with the places of their arguments and of their results. Places in
    `kept` are in memory. Values in `given` are the same for all lanes. All other values pass from
    one step to the next.
    """

    name: str
    calls: Sequence[tuple[str, Sequence[str], Sequence[str]]]
    kept: Sequence[str]
    given: Sequence[str] = ()

    def call(self, shape: Shape, rounds: str = "1", suffix: str = "", **at: str) -> str:
        """A call of the loop. Pointers are named like their places, unless `at` names another."""
        arguments = [f"ptr %{at.get(place, place)}" for place in self.kept]
        arguments += [f"{shape.compute} %{value}" for value in self.given]
        return f"\n  call void @{self.name}{suffix}({', '.join(arguments)}, i64 {rounds})"

    def define(self, shape: Shape, suffix: str = "") -> str:
        body = ""
        values = {value: f"%{value}" for value in self.given}

        def point(name: str, place: str) -> str:
            index = "%i" if place in BUFFERED else "%lane"
            kind = shape.kind(place)
            return f"\n  {name} = getelementptr inbounds {kind}, ptr %{place}, i64 {index}"

        for step, inputs, outputs in self.calls:
            for place in inputs:
                if place not in values:
                    values[place] = f"%in.{place}"
                    body += point(f"%from.{place}", place) + (
                        f"\n  %in.{place} = load {shape.kind(place)}, ptr %from.{place}, "
                        f"align 1, {shape.notes.parallel}"
                    )
                    if place == "x":
                        values[place] = "%decoded"
                        body += (
                            f"\n  %decoded = call {shape.compute} @decode({shape.storage} %in.x)"
                        )
            results = [f"%{step}.{place}" for place in outputs]
            body += call_step(shape, step, [values[place] for place in inputs], results)
            for place, value in zip(outputs, results, strict=True):
                values[place] = value
                if place == "y":
                    values[place] = "%encoded"
                    body += f"\n  %encoded = call {shape.storage} @encode({shape.compute} {value})"
                if place in self.kept:
                    body += point(f"%to.{place}", place) + (
                        f"\n  store {shape.kind(place)} {values[place]}, ptr %to.{place}, "
                        f"align 1, {shape.notes.parallel}"
                    )
        # The input may be the output, and terms may be in place of either.
        parameters = [
            f"ptr {'' if place in ('x', 'y', TERM[0]) else 'noalias '}%{place}"
            for place in self.kept
        ]
        parameters += [f"{shape.compute} %{value}" for value in self.given]
        metadata = shape.notes.vectorised(shape.vector, shape.vectors, unrolled=False)
        return f"""
define internal void @{self.name}{suffix}({", ".join(parameters)}, i64 %rounds) \
noinline {wide_vectors(shape.target)} {{
entry:
  %some = icmp ne i64 %rounds, 0
  br i1 %some, label %round, label %done
round:
  %k = phi i64 [ 0, %entry ], [ %k.next, %last ]
  %first = mul nuw nsw i64 %k, {shape.lanes}
  br label %body
body:
  %lane = phi i64 [ 0, %round ], [ %lane.next, %body ]
  %i = add nuw nsw i64 %first, %lane{body}
  %lane.next = add nuw nsw i64 %lane, 1
  %more = icmp ult i64 %lane.next, {shape.lanes}
  br i1 %more, label %body, label %last, {metadata}
last:
  %k.next = add nuw nsw i64 %k, 1
  %again = icmp ult i64 %k.next, %rounds
  br i1 %again, label %round, label %done
done:
  ret void
}}"""


def _named(*loops: LaneLoop) -> dict[str, LaneLoop]:
    return {loop.name: loop for loop in loops}


_FIND = LaneLoop("find", [("larger", [*LARGEST, "x"], LARGEST)], [*LARGEST, "x"])

_START = LaneLoop("start_sums", [("start", LARGEST, SUM)], [*LARGEST, *SUM])

_COLLECT = LaneLoop("collect_sums", [("collect", [*TOTAL, *SUM], TOTAL)], [*TOTAL, *SUM])

_TERM_OF_X = ("term", ["x", *PARAMETERS], TERM)

_ADD_TERM = ("add", [*TERM, *SUM], SUM)

_RESULT = ("result", [*TERM, *DIVISOR], ["y"])

ALONG = _named(
    _FIND,
    _START,
    LaneLoop("add_terms", [_TERM_OF_X, _ADD_TERM], ["x", *SUM], PARAMETERS),
    LaneLoop("add_and_keep_terms", [_TERM_OF_X, _ADD_TERM], ["x", *SUM, *TERM], PARAMETERS),
    _COLLECT,
    LaneLoop("divide_terms", [_RESULT], [*TERM, "y"], DIVISOR),
    LaneLoop("divide", [_TERM_OF_X, _RESULT], ["x", "y"], [*PARAMETERS, *DIVISOR]),
)
"""The loops for one row in all lanes."""

ACROSS = _named(
    _FIND,
    LaneLoop("prepare_all", [("prepare", LARGEST, PARAMETERS)], [*LARGEST, *PARAMETERS]),
    _START,
    LaneLoop("add_and_keep_terms", [_TERM_OF_X, _ADD_TERM], ["x", *PARAMETERS, *SUM, *TERM]),
    _COLLECT,
    LaneLoop("finish_all", [("finish", TOTAL, DIVISOR)], [*TOTAL, *DIVISOR]),
    LaneLoop("divide_terms", [_RESULT], [*TERM, *DIVISOR, "y"]),
)
"""The loops for one row in each lane."""


def allocate(shape: Shape, chunk: int, state: Sequence[str]) -> str:
    """Allocate the buffers, and `state` for every lane with room for the results of ``fold_ir``."""
    buffers = dict.fromkeys(TERM, shape.compute)
    # Terms overwrite elements, and results overwrite terms. If all have the same size, that saves
    # one buffer on the stack.
    together = shape.storage == shape.compute
    if not together:
        buffers["x"] = shape.storage
    lines = [f"%{name} = alloca [{chunk} x {kind}], align 64" for name, kind in buffers.items()]
    lines += [f"%{a} = alloca [{2 * shape.lanes} x {shape.compute}], align 64" for a in state]
    if together:
        lines.append(f"%x = getelementptr i8, ptr %{TERM[0]}, i64 0")
    return "".join(f"\n  {line}" for line in lines)


def begin(shape: Shape) -> str:
    """Set the largest element and the total to their initial values."""
    kind = f"<{shape.lanes} x {shape.compute}>"
    least = ", ".join([f"{shape.compute} {shape.least}"] * shape.lanes)
    stores = [f"<{least}>, ptr %{place}" for place in LARGEST]
    stores += [f"zeroinitializer, ptr %{place}" for place in TOTAL]
    return "".join(f"\n  store {kind} {store}, align 64" for store in stores)
