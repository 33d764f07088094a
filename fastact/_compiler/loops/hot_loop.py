"""LLVM IR of the loop over contiguous elements, which LLVM vectorises."""

from fastact._compiler.conversions import compute_type, conversions_ir, storage_type
from fastact._compiler.loops.loop_metadata import LoopMetadata, aligned_stack, wide_vectors
from fastact._compiler.loops.operands import inputs_and_outputs, pointers
from fastact._compiler.loops.scalar_call import scalar_call_ir
from fastact._compiler.pipeline import ScalarIR
from fastact._machine.formats import FORMATS, Format
from fastact._machine.targets import Target

ASSUME_IR = "declare void @llvm.assume(i1)"
"""A declaration that modules with such loops need."""


def hot_loop_ir(
    name: str,
    operands: list[str],
    storage: str,
    compute: str,
    block: int,
    notes: LoopMetadata,
    vectors: tuple[int, int],
    target: Target,
    one_number: str = "",
) -> str:
    """@NAME: a loop over `%blocks` > 0 times `block` elements.

    `vectors` holds the lanes of a vector, and the number of vectors that LLVM interleaves. The
    operand `one_number` is the same for all elements: LLVM computes what depends on it alone before
    the loop.
    """
    inputs, outputs = inputs_and_outputs(operands)
    kind = f"[{len(outputs)} x {compute}]"

    def load(x: str, place: str) -> str:
        return f"""
  %p.{x} = getelementptr inbounds {storage}, ptr %{x}, i64 {place}
  %s.{x} = load {storage}, ptr %p.{x}, align 1, {notes.parallel}
  %v.{x} = call {compute} @decode({storage} %s.{x})"""

    first = load(one_number, "0") if one_number else ""
    loads = "".join(load(x, "%i") for x in inputs if x != one_number)
    values = ", ".join(f"{compute} %v.{x}" for x in inputs)
    stores = "".join(
        f"""
  %v.{y} = extractvalue {kind} %v, {k}
  %s.{y} = call {storage} @encode({compute} %v.{y})
  %p.{y} = getelementptr inbounds {storage}, ptr %{y}, i64 %i
  store {storage} %s.{y}, ptr %p.{y}, align 1, {notes.parallel}"""
        for k, y in enumerate(outputs)
    )
    attributes = f"{wide_vectors(target)} {aligned_stack(target)}"
    return f"""
define void @{name}({pointers(operands)}, i64 %blocks) noinline {attributes} {{
entry:
  %some = icmp ne i64 %blocks, 0
  call void @llvm.assume(i1 %some)
  %n = mul nuw nsw i64 %blocks, {block}{first}
  br label %body
body:
  %i = phi i64 [ 0, %entry ], [ %next, %body ]{loads}
  %v = call {kind} @scalar({values}){stores}
  %next = add nuw nsw i64 %i, 1
  %more = icmp ult i64 %next, %n
  br i1 %more, label %body, label %done, {notes.vectorised(*vectors)}
done:
  ret void
}}"""


def vector_loop_ir(name: str, scalar: ScalarIR, form: Format, target: Target) -> str:
    """LLVM IR of ``void NAME(x, y, count)`` for `count` vectors, to be linked with `scalar`."""
    compute, storage = compute_type(form), storage_type(form, target)
    lanes = target.vector_bits // FORMATS[form.compute].bits
    notes = LoopMetadata()
    return "\n".join(
        [
            ASSUME_IR,
            scalar_call_ir("scalar", scalar, compute, 1, 1),
            conversions_ir(form, target),
            hot_loop_ir(name, ["x0", "y"], storage, compute, lanes, notes, (lanes, 1), target),
            notes.ir(),
        ]
    )
