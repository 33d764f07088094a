"""Machine code of the dense loops and their register tiles."""

import llvmlite.binding as llvm

from fastact._compiler import pipeline
from fastact._compiler.environment import environment_ir
from fastact._compiler.gemm.interface import ENTRIES
from fastact._compiler.gemm.loops import loops_ir
from fastact._compiler.gemm.tiles import PARAMETERS, fma_declaration, tile_ir, tile_name
from fastact._compiler.symbols import SETTING
from fastact._compiler.threads.fan_out import FAN_OUT_IR
from fastact._compiler.transpose import rows_to_cells
from fastact._machine.formats import Format
from fastact._machine.targets import Target


def object_code(form: Format, lanes: int, target: Target) -> bytes:
    """A relocatable object file with the `ENTRIES`, which needs no other."""
    module, machine = compiled(form, lanes, target)
    return pipeline.emit(module, machine)


def compiled(form: Format, lanes: int, target: Target) -> tuple[llvm.ModuleRef, llvm.TargetMachine]:
    """The LLVM module, and the machine to emit it with."""
    machine = pipeline.machine_of(target)
    module = pipeline.parse(loops_ir(form, lanes, target), target, machine)
    module.link_in(pipeline.parse(_support_ir(form, lanes, target), target, machine))
    tiles = {tile_name(*size) for size in _sizes(target)}
    visible = {*ENTRIES, SETTING}
    pipeline.hide(module, {*visible, *tiles})
    pipeline.optimise(module, machine)
    # Tiles need no optimisation; the passes would only take time, 10 ms for each tile.
    text = "".join(tile_ir(form, *size, lanes, target) for size in _sizes(target))
    tiles_ir = fma_declaration(form, lanes) + text
    module.link_in(pipeline.parse(tiles_ir, target, machine))
    pipeline.hide(module, visible)
    pipeline.seal(module)
    return module, machine


def _sizes(target: Target) -> list[tuple[int, int]]:
    return [(h, v) for v, tallest in target.tiles.items() for h in range(1, tallest + 1)]


def _entry_ir(name: str, arity: int) -> str:
    """The entry `name`, which runs in the default floating-point environment."""
    parameters = ", ".join(f"i64 %a{i}" for i in range(arity))
    return f"""
declare i64 @inner.{name}({", ".join(["i64"] * arity)})
define i64 @{name}({parameters}) {{
  %saved = alloca [2 x i64]
  call void @enter(ptr %saved)
  %status = call i64 @inner.{name}({parameters})
  call void @leave(ptr %saved)
  ret i64 %status
}}"""


def _support_ir(form: Format, lanes: int, target: Target) -> str:
    """The entries, and the functions that the loops call."""
    return "\n".join(
        [
            environment_ir(target),
            FAN_OUT_IR,
            *(_entry_ir(name, arity) for name, arity in (*ENTRIES.items(), ("run_chunk", 2))),
            _tile_switch(target),
            _apply(form),
            _transpose(form, lanes),
        ]
    )


def _tile_switch(target: Target) -> str:
    """@tile: call the tile of so many rows and vectors."""
    names = [parameter.split()[-1] for parameter in PARAMETERS.split(", ")]
    kinds = [parameter.split()[0] for parameter in PARAMETERS.split(", ")]
    integers = ", ".join(f"i64 {name}" for name in names)
    pointers = "".join(
        f"\n  {name}.p = inttoptr i64 {name} to ptr"
        for name, kind in zip(names, kinds, strict=True)
        if kind == "ptr"
    )
    arguments = ", ".join(
        f"{kind} {name}{'.p' * (kind == 'ptr')}" for name, kind in zip(names, kinds, strict=True)
    )
    sizes = _sizes(target)
    cases = " ".join(f"i64 {16 * v + h}, label %t{h}.{v}" for h, v in sizes)
    calls = "".join(
        f"""
t{h}.{v}:
  call void @{tile_name(h, v)}({arguments})
  ret i64 0"""
        for h, v in sizes
    )
    declarations = "".join(
        f"declare void @{tile_name(*size)}({', '.join(kinds)})\n" for size in sizes
    )
    return f"""{declarations}
define i64 @tile(i64 %rows, i64 %vectors, {integers}) {{
  %high = mul i64 %vectors, 16
  %size = add i64 %high, %rows{pointers}
  switch i64 %size, label %none [ {cases} ]{calls}
none:
  unreachable
}}"""


def _apply(form: Format) -> str:
    """@apply: call a ufunc's strided loop, with the operand as input and output."""
    return f"""
define i64 @apply(i64 %loop, i64 %at, i64 %outer, i64 %inner, i64 %stride) {{
  %function = inttoptr i64 %loop to ptr
  %p = inttoptr i64 %at to ptr
  %data = alloca [2 x ptr]
  %dimensions = alloca [2 x i64]
  %strides = alloca [4 x i64]
  %data.1 = getelementptr ptr, ptr %data, i64 1
  store ptr %p, ptr %data
  store ptr %p, ptr %data.1
  %dimensions.1 = getelementptr i64, ptr %dimensions, i64 1
  store i64 %outer, ptr %dimensions
  store i64 %inner, ptr %dimensions.1
  %strides.1 = getelementptr i64, ptr %strides, i64 1
  %strides.2 = getelementptr i64, ptr %strides, i64 2
  %strides.3 = getelementptr i64, ptr %strides, i64 3
  store i64 %stride, ptr %strides
  store i64 %stride, ptr %strides.1
  store i64 {form.itemsize}, ptr %strides.2
  store i64 {form.itemsize}, ptr %strides.3
  %status = call i32 %function(ptr null, ptr %data, ptr %dimensions, ptr %strides, ptr null)
  ret i64 0
}}"""


def _transpose(form: Format, lanes: int) -> str:
    """@transpose: copy `lanes` columns, `stride` bytes apart, of as many k, in the order of k."""
    size = form.itemsize
    rows = "".join(
        f"""
  %skip.{i} = mul i64 %stride, {i}
  %row.at.{i} = getelementptr i8, ptr %source, i64 %skip.{i}
  %cell.at.{i} = getelementptr i8, ptr %sink, i64 {i * lanes * size}"""
        for i in range(lanes)
    )
    return f"""
define i64 @transpose(i64 %from, i64 %stride, i64 %to) noinline {{
  %source = inttoptr i64 %from to ptr
  %sink = inttoptr i64 %to to ptr{rows}{rows_to_cells(f"i{form.bits}", lanes, lanes)}
  ret i64 0
}}"""
