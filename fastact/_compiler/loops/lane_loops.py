"""LLVM IR of the steps of a function of rows, taken for every lane.

Consecutive steps for the same lane are one loop, which LLVM vectorises.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import inf

from fastact._compiler.loops.loop_metadata import LoopMetadata, aligned_stack, wide_vectors
from fastact._kernels.row_steps import SHARES, Scheme, Source
from fastact._machine.targets import Target

LINE = 64  # bytes of a line of the caches, or a part of one

# The places that steps read and write. These hold a value for every lane, like those of the largest
# elements and of the parameters ...
SUM = ["high", "low"]

TOTAL = ["total", "rest"]

DIVISOR = ["q0", "q1"]

# ... and these a value for every element in the buffers: t0 is a power of 2 or 0, and s0 its
# exponent alone. With tables, both have a few bits of a significand too.
TERM = ["t0", "t1"]

KEPT_TERM = ["s0", "t1"]

# Elements in the type of computation, and factors and summands for them.
WIDE = ["z", "w", "b"]

BUFFERED = ["x", "y", *KEPT_TERM, *TERM, *WIDE]


@dataclass(frozen=True)
class Shape:
    """The types of an element in memory and in computation, and the vectors that are the lanes."""

    storage: str
    compute: str
    vector: int
    vectors: int
    notes: LoopMetadata
    target: Target
    padding: float = -inf  # the infinity that is larger than no element
    scheme: Scheme = SHARES

    @property
    def largest(self) -> list[str]:
        """The places of the largest elements."""
        return ["largest", "second"][: self.scheme.largest]

    @property
    def parameters(self) -> list[str]:
        return [f"p{k}" for k in range(self.scheme.parameters)]

    @property
    def finished(self) -> list[str]:
        """The largest elements, if the last value of a row is computed from them too."""
        return self.largest if self.scheme.largest > 1 else []

    @property
    def state(self) -> list[str]:
        """All places that hold a value for every lane."""
        return [*self.largest, *self.parameters, *SUM, *TOTAL, *DIVISOR]

    @property
    def least(self) -> str:
        """That infinity as a constant of the type of computation."""
        return "0xFFF0000000000000" if self.padding < 0 else "0x7FF0000000000000"

    @property
    def lanes(self) -> int:
        return self.vector * self.vectors

    @property
    def together(self) -> bool:
        """Whether elements and terms have the same size, so that one can replace the other."""
        return self.storage == self.compute

    def kind(self, place: str) -> str:
        if place == "s0":
            return self.exponent
        return self.storage if place in ("x", "y") else self.compute

    @property
    def exponent(self) -> str:
        """The integer type for the first factor of a term, without bits that are 0."""
        return f"i{self.exponent_bits}"

    @property
    def exponent_bits(self) -> int:
        """Its bits: an exponent, or also a few bits of a significand from a table."""
        return 8 if self.compute == "float" and self.target.lookup is None else 16


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
    one step to the next. With `ahead`, a round prefetches the elements that many bytes later.
    """

    name: str
    calls: Sequence[tuple[str, Sequence[str], Sequence[str]]]
    kept: Sequence[str]
    given: Sequence[str] = ()
    ahead: bool = False

    def call(
        self, shape: Shape, rounds: str = "1", suffix: str = "", ahead: str = "0", **at: str
    ) -> str:
        """A call of the loop. Pointers are named like their places, unless `at` names another."""
        arguments = [f"ptr %{at.get(place, place)}" for place in self.kept]
        arguments += [f"{shape.compute} %{value}" for value in self.given]
        arguments += [f"i64 {ahead}"] * self.ahead
        return f"\n  call void @{self.name}{suffix}({', '.join(arguments)}, i64 {rounds})"

    def call_for_rows(
        self,
        shape: Shape,
        suffix: str,
        rows: str,
        rounds: str,
        pitches: Mapping[str, str],
        ahead: str = "0",
        **at: str,
    ) -> str:
        """A call of the loop for several rows; `pitches` are bytes from row to row, by place."""
        arguments = []
        for place in self.kept:
            arguments += [f"ptr %{at.get(place, place)}", f"i64 {pitches[place]}"]
        arguments += [f"ptr %{value}" for value in self.given]
        arguments += [f"i64 {ahead}"] * self.ahead
        return (
            f"\n  call void @{self.name}{suffix}({', '.join(arguments)}, i64 {rounds}, i64 {rows})"
        )

    @staticmethod
    def _bits(shape: Shape) -> tuple[str, int]:
        """The integer type as wide as a number, and where the bits that are kept begin."""
        if shape.compute == "double":
            return "i64", 52
        return "i32", 23 if shape.exponent_bits == 8 else 16

    def define(self, shape: Shape, suffix: str = "", rows: bool = False) -> str:
        """The function. For several `rows`, each has its own places, and its own given values."""
        body = ""
        values = {value: f"%{value}" for value in self.given} | {"least": shape.least}

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
                    if place == "s0":
                        values[place] = "%power"
                        integer, bits = self._bits(shape)
                        body += f"""
  %biased = zext {shape.exponent} %in.s0 to {integer}
  %power.bits = shl {integer} %biased, {bits}
  %power = bitcast {integer} %power.bits to {shape.compute}"""
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
                if place == "t0" and "s0" in self.kept:
                    integer, bits = self._bits(shape)
                    body += f"""
  %t0.bits = bitcast {shape.compute} {value} to {integer}
  %t0.biased = lshr {integer} %t0.bits, {bits}
  %t0.exponent = trunc {integer} %t0.biased to {shape.exponent}{point("%to.s0", "s0")}
  store {shape.exponent} %t0.exponent, ptr %to.s0, align 1, {shape.notes.parallel}"""
                if place in self.kept:
                    body += point(f"%to.{place}", place) + (
                        f"\n  store {shape.kind(place)} {values[place]}, ptr %to.{place}, "
                        f"align 1, {shape.notes.parallel}"
                    )
        # The input may be the output, and terms may be in place of either.
        parameters = [
            f"ptr {'' if place in BUFFERED else 'noalias '}%{place}" for place in self.kept
        ]
        parameters += [f"{shape.compute} %{value}" for value in self.given]
        before, after = "entry", "done"
        of_row = first_row = next_row = rolled = ""
        if rows:
            before, after = "row", "row.last"
            # Rows are so short that LLVM would unroll all rounds, and leave sums in memory.
            rolled = f", {shape.notes.rolled()}"
            parameters = []
            for place in self.kept:
                alias = "" if place in BUFFERED else "noalias "
                parameters += [f"ptr {alias}%{place}.rows", f"i64 %{place}.pitch"]
                of_row += f"""
  %{place}.skip = mul i64 %r, %{place}.pitch
  %{place} = getelementptr i8, ptr %{place}.rows, i64 %{place}.skip"""
            for value in self.given:
                parameters.append(f"ptr noalias %{value}.rows")
                of_row += f"""
  %{value}.at = getelementptr {shape.compute}, ptr %{value}.rows, i64 %r
  %{value} = load {shape.compute}, ptr %{value}.at, align 4"""
            first_row = f"""
first.row:
  br label %row
row:
  %r = phi i64 [ 0, %first.row ], [ %r.next, %row.last ]{of_row}
  br label %round"""
            next_row = """
row.last:
  %r.next = add nuw i64 %r, 1
  %r.more = icmp ult i64 %r.next, %rows
  br i1 %r.more, label %row, label %done"""
        prefetches = ""
        if self.ahead:
            parameters.append("i64 %ahead")
            size = {"float": 4, "double": 8}[shape.compute]
            near = 3 if rows else 2  # the level of the cache: a group of rows fits into the first
            prefetches = f"""
  %here = getelementptr {shape.storage}, ptr %x, i64 %first
  %there = getelementptr i8, ptr %here, i64 %ahead"""
            for k in range(0, shape.lanes * size, LINE):
                prefetches += f"""
  %line.{k} = getelementptr i8, ptr %there, i64 {k}
  call void @llvm.prefetch.p0(ptr %line.{k}, i32 0, i32 {near}, i32 1)"""
        attributes = wide_vectors(shape.target)
        # What is computed from elements can need many registers. The other steps need few.
        if any({"x", "z"} & {*inputs} and step != "larger" for step, inputs, _ in self.calls):
            attributes += f" {aligned_stack(shape.target)}"
        metadata = shape.notes.vectorised(shape.vector, shape.vectors, unrolled=False)
        return f"""
define internal void @{self.name}{suffix}({", ".join(parameters)}, i64 %rounds\
{", i64 %rows" if rows else ""}) noinline {attributes} {{
entry:
  %some = icmp ne i64 %rounds, 0
  br i1 %some, label %{"first.row" if rows else "round"}, label %done{first_row}
round:
  %k = phi i64 [ 0, %{before} ], [ %k.next, %last ]
  %first = mul nuw nsw i64 %k, {shape.lanes}{prefetches}
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
  br i1 %again, label %round, label %{after}{rolled}{next_row}
done:
  ret void
}}"""


def _named(*loops: LaneLoop) -> dict[str, LaneLoop]:
    return {loop.name: loop for loop in loops}


_COLLECT = LaneLoop("collect_sums", [("collect", [*TOTAL, *SUM], TOTAL)], [*TOTAL, *SUM])

_START = LaneLoop("start_sums", [("start", ["largest"], SUM)], ["largest", *SUM])

_ADD_TERM = ("add", [*TERM, *SUM], SUM)

_RESULT = ("result", [*TERM, *DIVISOR], ["y"])

_RESULT_OF_X = ("result", ["x", *DIVISOR], ["y"])

_RESULT_OF_ROW = ("result", DIVISOR, ["y"])


def _find(shape: Shape) -> LaneLoop:
    # Two places are merged with an element and the least one.
    element = ["x", "least"][: len(shape.largest)]
    step = ("larger", [*shape.largest, *element], shape.largest)
    return LaneLoop("find", [step], [*shape.largest, "x"])


def along(shape: Shape) -> dict[str, LaneLoop]:
    """The loops for one row in all lanes."""
    parameters = shape.parameters
    term_of_x = ("term", ["x", *parameters], TERM)
    add = LaneLoop("add_terms", [term_of_x, _ADD_TERM], ["x", *SUM], parameters)
    kept, results = [], []
    if shape.scheme.results is Source.TERMS:
        kept = [
            LaneLoop("add_and_keep_terms", [term_of_x, _ADD_TERM], ["x", *SUM, *TERM], parameters),
            LaneLoop(
                "add_and_keep_exponents",
                [term_of_x, _ADD_TERM],
                ["x", *SUM, *KEPT_TERM],
                parameters,
                ahead=True,
            ),
        ]
        results = [
            LaneLoop("divide_terms", [_RESULT], [*TERM, "y"], DIVISOR),
            LaneLoop(
                "divide_exponents",
                [("result", [*KEPT_TERM, *DIVISOR], ["y"])],
                [*KEPT_TERM, "y"],
                DIVISOR,
            ),
            LaneLoop("divide", [term_of_x, _RESULT], ["x", "y"], [*parameters, *DIVISOR]),
        ]
    elif shape.scheme.results is Source.ELEMENTS:
        results = [LaneLoop("subtract", [_RESULT_OF_X], ["x", "y"], DIVISOR)]
    return _named(_find(shape), _START, add, *kept, _COLLECT, *results)


def across(shape: Shape) -> dict[str, LaneLoop]:
    """The loops for one row in each lane."""
    largest, parameters = shape.largest, shape.parameters
    kept = TERM if shape.scheme.results is Source.TERMS else []
    results = {
        Source.TERMS: LaneLoop("divide_terms", [_RESULT], [*TERM, *DIVISOR, "y"]),
        Source.ELEMENTS: LaneLoop("subtract", [_RESULT_OF_X], ["x", *DIVISOR, "y"]),
        Source.NOTHING: LaneLoop("give", [_RESULT_OF_ROW], [*DIVISOR, "y"]),
    }
    return _named(
        _find(shape),
        LaneLoop("prepare_all", [("prepare", largest, parameters)], [*largest, *parameters]),
        _START,
        LaneLoop(
            "add_and_keep_terms" if kept else "add_terms",
            [("term", ["x", *parameters], TERM), _ADD_TERM],
            ["x", *parameters, *SUM, *kept],
        ),
        _COLLECT,
        LaneLoop(
            "finish_all",
            [("finish", [*TOTAL, *shape.finished], DIVISOR)],
            [*TOTAL, *shape.finished, *DIVISOR],
        ),
        results[shape.scheme.results],
    )


def allocate(shape: Shape, rooms: Mapping[str, int], state: Sequence[str]) -> str:
    """Allocate the buffers, and `state` for every lane with room for the results of ``fold_ir``.

    `rooms` are the numbers of values in the buffers of terms. Elements have as much room as t0.
    """
    buffers = [(name, room, shape.kind(name)) for name, room in rooms.items()]
    # Terms overwrite elements, and results overwrite terms. If all have the same size, that saves
    # one buffer on the stack.
    if not shape.together:
        buffers.append(("x", rooms[TERM[0]], shape.storage))
    lines = [f"%{name} = alloca [{room} x {kind}], align 64" for name, room, kind in buffers]
    lines += [f"%{a} = alloca [{2 * shape.lanes} x {shape.compute}], align 64" for a in state]
    if shape.together:
        lines.append(f"%x = getelementptr i8, ptr %{TERM[0]}, i64 0")
    return "".join(f"\n  {line}" for line in lines)


def begin(shape: Shape, places: Sequence[str]) -> str:
    """Set those of the largest elements and the total that are in `places` to initial values."""
    kind = f"<{shape.lanes} x {shape.compute}>"
    least = ", ".join([f"{shape.compute} {shape.least}"] * shape.lanes)
    stores = [f"<{least}>, ptr %{place}" for place in shape.largest if place in places]
    stores += [f"zeroinitializer, ptr %{place}" for place in TOTAL if place in places]
    return "".join(f"\n  store {kind} {store}, align 64" for store in stores)
