"""Machine code of the dense loops and their register tiles."""

from typing import NamedTuple

import llvmlite.binding as llvm

from fastact._compiler import pipeline
from fastact._compiler.environment import environment_ir
from fastact._compiler.gemm import narrow, several_rows
from fastact._compiler.gemm.interface import Storage
from fastact._compiler.gemm.loops import (
    FAR_TILE,
    KEEPING_TILE,
    WIDENING_TILE,
    fetches_strips,
    loops_ir,
)
from fastact._compiler.gemm.tiles import (
    PARAMETERS,
    TILE,
    declarations_ir,
    tile_ir,
    tile_name,
)
from fastact._compiler.symbols import SETTING
from fastact._compiler.threads.fan_out import FAN_OUT_IR
from fastact._compiler.transpose import square
from fastact._machine.formats import Format
from fastact._machine.targets import Target


def object_code(form: Format, lanes: int, target: Target, stored: Storage | None = None) -> bytes:
    """A relocatable object file with the entries of `stored`, which needs no other."""
    module, machine = compiled(form, lanes, target, stored)
    return pipeline.emit(module, machine)


def compiled(
    form: Format, lanes: int, target: Target, stored: Storage | None = None
) -> tuple[llvm.ModuleRef, llvm.TargetMachine]:
    """The LLVM module, and the machine to emit it with.

    Weights are plain ones of `form`, unless `stored` says otherwise. Those in another format need
    vectors as wide as the target has.
    """
    stored = stored or Storage(form)
    machine = pipeline.machine_of(target)
    module = pipeline.parse(loops_ir(form, lanes, target, stored), target, machine)
    module.link_in(pipeline.parse(_support_ir(form, lanes, target, stored), target, machine))
    groups = tile_groups(form, lanes, target, stored)
    tiles = {tile_name(*size, group.prefix) for group in groups for size in group.sizes}
    has_parts = several_rows.applies(form, lanes, target)
    if has_parts:
        tiles |= set(several_rows.tile_names(form, lanes))
    visible = {*stored.entries(form), SETTING}
    pipeline.hide(module, {*visible, *tiles})
    pipeline.optimise(module, machine)
    # Tiles need no optimisation; the passes would only take time, 10 ms for each tile.
    for group in groups:
        text = declarations_ir(form, group.lanes, target) + "".join(
            _tile_ir(form, size, target, group) for size in group.sizes
        )
        module.link_in(pipeline.parse(text, target, machine))
    if has_parts:
        text = declarations_ir(form, narrow.widest(form, target), target)
        text += several_rows.tiles_ir(form, lanes, target, stored)
        module.link_in(pipeline.parse(text, target, machine))
    pipeline.hide(module, visible)
    pipeline.seal(module)
    return module, machine


class TileGroup(NamedTuple):
    """Tiles that one function calls, whose name is the prefix of theirs."""

    prefix: str
    lanes: int
    sizes: list[tuple[int, int]]
    stored: Storage
    prefetches: bool = False
    keeps: bool = False


def _tile_ir(form: Format, size: tuple[int, int], target: Target, group: TileGroup) -> str:
    prefix, lanes, _, stored, prefetches, keeps = group
    return tile_ir(form, *size, lanes, target, prefix, prefetches, stored, keeps)


def tile_groups(
    form: Format, lanes: int, target: Target, stored: Storage | None = None
) -> list[TileGroup]:
    """All tiles of a module for vectors of columns with so many lanes."""
    stored, plain = stored or Storage(form), Storage(form)
    sizes = [(h, v) for v, tallest in target.tiles.items() for h in range(1, tallest + 1)]
    groups = [TileGroup(TILE, lanes, sizes, Storage(form, stored.scaled))]
    if stored.form != form:
        groups.append(TileGroup(WIDENING_TILE, lanes, sizes, stored))
        groups.append(TileGroup(KEEPING_TILE, lanes, sizes, stored, keeps=True))
    if fetches_strips(form, lanes, target, stored):
        groups.append(TileGroup(FAR_TILE, lanes, sizes, plain, prefetches=True))
    if narrow.applies(form, lanes, target):
        wide, sizes = narrow.widest(form, target), narrow.sizes(form, lanes)
        groups.append(TileGroup(narrow.TILE, wide, sizes, plain, prefetches=True))
    return groups


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


def _support_ir(form: Format, lanes: int, target: Target, stored: Storage) -> str:
    """The entries, and the functions that the loops call."""
    entries = stored.entries(form) | {"run_chunk": 2}
    return "\n".join(
        [
            environment_ir(target),
            FAN_OUT_IR,
            *(_entry_ir(name, arity) for name, arity in entries.items()),
            *map(_tile_switch, tile_groups(form, lanes, target, stored)),
            _apply(form),
            _normalize(form),
            _transpose(form, lanes),
            narrow.transpositions_ir(form, lanes, target, stored),
        ]
    )


def _tile_switch(group: TileGroup) -> str:
    """@PREFIX: call the tile of so many rows and vectors."""
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
    sizes = group.sizes
    cases = " ".join(f"i64 {16 * v + h}, label %t{h}.{v}" for h, v in sizes)
    calls = "".join(
        f"""
t{h}.{v}:
  call void @{tile_name(h, v, group.prefix)}({arguments})
  ret i64 0"""
        for h, v in sizes
    )
    declarations = "".join(
        f"declare void @{tile_name(*size, group.prefix)}({', '.join(kinds)})\n" for size in sizes
    )
    return f"""{declarations}
define i64 @{group.prefix}(i64 %rows, i64 %vectors, {integers}) {{
  %high = mul i64 %vectors, 16
  %size = add i64 %high, %rows{pointers}
  switch i64 %size, label %none [ {cases} ]{calls}
none:
  unreachable
}}"""


def _apply(form: Format) -> str:
    """@apply: call a ufunc's strided loop, with the operand at %at as input and output.

    %stride is from row to row for a function of rows, otherwise from element to element. If there
    is a %parameter, that is an input, too.
    """
    size = str(form.itemsize)
    return f"""
define i64 @apply(i64 %loop, i64 %at, i64 %outer, i64 %inner, i64 %stride, i64 %parameter, \
i64 %column) {{
  %function = inttoptr i64 %loop to ptr
  %p = inttoptr i64 %at to ptr
  %q = inttoptr i64 %parameter to ptr
{_array("dimensions", "i64", ["%outer", "%inner"])}
{_array("one", "ptr", ["%p", "%p"])}
{_array("one.strides", "i64", ["%stride", "%stride", size, size])}
{_array("two", "ptr", ["%p", "%q", "%p"])}
{_array("two.strides", "i64", ["%stride", "%column", "%stride"])}
  %has = icmp ne i64 %parameter, 0
  %data = select i1 %has, ptr %two, ptr %one
  %strides = select i1 %has, ptr %two.strides, ptr %one.strides
  %status = call i32 %function(ptr null, ptr %data, ptr %dimensions, ptr %strides, ptr null)
  ret i64 0
}}"""


def _normalize(form: Format) -> str:
    """@normalize: call the loop of a normalization, with the rows at %at as input and output.

    %stride is from row to row. Other operands of %width bytes, one or two by %count, and then one
    number are at %parameter.
    """
    size = str(form.itemsize)
    return f"""
define i64 @normalize(i64 %loop, i64 %at, i64 %outer, i64 %inner, i64 %stride, i64 %parameter, \
i64 %width, i64 %count) {{
  %function = inttoptr i64 %loop to ptr
  %x = inttoptr i64 %at to ptr
  %p0 = inttoptr i64 %parameter to ptr
  %p1 = getelementptr i8, ptr %p0, i64 %width
  %p2 = getelementptr i8, ptr %p1, i64 %width
{_array("dimensions", "i64", ["%outer", "%inner"])}
{_array("one", "ptr", ["%x", "%p0", "%p1", "%x"])}
{_array("one.strides", "i64", ["%stride", "0", "0", "%stride", *[size] * 3])}
{_array("two", "ptr", ["%x", "%p0", "%p1", "%p2", "%x"])}
{_array("two.strides", "i64", ["%stride", "0", "0", "0", "%stride", *[size] * 4])}
  %single = icmp eq i64 %count, 1
  %data = select i1 %single, ptr %one, ptr %two
  %strides = select i1 %single, ptr %one.strides, ptr %two.strides
  %status = call i32 %function(ptr null, ptr %data, ptr %dimensions, ptr %strides, ptr null)
  ret i64 0
}}"""


def _array(name: str, kind: str, values: list[str]) -> str:
    """An array on the stack with these values."""
    stores = (
        f"""
  %{name}.{k} = getelementptr {kind}, ptr %{name}, i64 {k}
  store {kind} {value}, ptr %{name}.{k}"""
        for k, value in enumerate(values)
    )
    return f"  %{name} = alloca [{len(values)} x {kind}]{''.join(stores)}"


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
  %sink = inttoptr i64 %to to ptr{rows}{square(form.bits, lanes)}
  ret i64 0
}}"""
