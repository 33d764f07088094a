"""The machine code of dense layers: packed tiles in registers, and no calls of other code."""

import functools
import re

import pytest
from assembly import CALL, DOUBLE, PACKED, POINTER, SCALAR, every_target, made_once

from bench import machine_code
from fastact._compiler import host
from fastact._compiler.gemm import loops as gemm_loops
from fastact._compiler.gemm import module as gemm_module
from fastact._compiler.gemm import narrow, several_rows
from fastact._compiler.gemm.interface import ENTRIES, Storage, lanes_for
from fastact._compiler.gemm.tiles import TILE, tile_name
from fastact._compiler.symbols import SETTING
from fastact._machine.formats import FORMATS
from fastact._machine.targets import BASELINES

TARGETS = {"host": host.host(), **BASELINES}

FUSED = {
    "x86_64": re.compile(r"\tvfmadd\w+\t"),
    "aarch64": re.compile(r"\tfmla\t"),
}
PREFETCH = {
    "x86_64": re.compile(r"\tprefetch"),
    "aarch64": re.compile(r"\tprfm\t"),
}
SPILLED_VECTOR = re.compile(r"\(%rsp\).*[yz]mm|[yz]mm.*\(%rsp\)")
WIDE = {
    ("x86_64", 512): "%zmm",
    ("x86_64", 256): "%ymm",
    ("x86_64", 128): "%xmm",
    ("aarch64", 128): r"\bv\d+\.(4s|2d)",
}


def lanes_of(name, target):
    widest = TARGETS[target].vector_bits // FORMATS[name].bits
    return sorted(
        {lanes_for(n, FORMATS[name], TARGETS[target]) for n in range(1, widest + 1)}, reverse=True
    )


def kinds():
    """Every target, format and number of lanes; those like another only in exhaustive runs."""
    for target in TARGETS:
        for name in ("float32", "float64"):
            for i, lanes in enumerate(lanes_of(name, target)):
                like_another = (i > 0 or target in ("x86-64", "x86-64-v4")) and (
                    target != "host" or lanes not in (1, 4)
                )
                marks = [pytest.mark.exhaustive] if like_another else []
                yield pytest.param(target, name, lanes, marks=marks)


every_kind = pytest.mark.parametrize(("target", "name", "lanes"), list(kinds()))


@functools.cache
def emitted(target, name, lanes):
    """The assembly and the object code of the same module."""

    def make():
        module, machine = gemm_module.compiled(FORMATS[name], lanes, TARGETS[target])
        return machine.emit_assembly(module).encode() + b"\0" + machine.emit_object(module)

    text, _, code = made_once(make, "gemm", TARGETS[target], name, lanes).partition(b"\0")
    return text.decode(), code


@every_kind
def test_tiles_stay_in_registers(target, name, lanes):
    """Each is one loop: an fma of whole vectors for each accumulator, and no spilled register."""
    architecture = TARGETS[target].architecture
    wide = re.compile(WIDE[architecture, TARGETS[target].vector_bits])
    text, _ = emitted(target, name, lanes)
    groups = gemm_module.tile_groups(FORMATS[name], lanes, TARGETS[target])
    form = FORMATS[name]
    place = form, lanes, TARGETS[target]
    ways = narrow.applies(*place), gemm_loops.fetches_strips(*place, Storage(form))
    assert len(groups) == 1 + sum(ways)
    for group, (rows, vectors) in ((g, size) for g in groups for size in g.sizes):
        body = machine_code.function(text, tile_name(rows, vectors, group.prefix))
        (loop,) = machine_code.loops(body)
        # Without fma, each product needs one more register, which the tallest tiles lack.
        if TARGETS[target].has_fma:
            assert not machine_code.STACK[architecture].search(loop), (group, rows, vectors)
            assert "%rsp, %rbp" not in body
        assert not CALL.search(loop)
        fused = FUSED[architecture].findall(loop)
        if group.lanes > 1:
            assert PACKED[architecture].search(loop)
            assert not SCALAR[architecture].search(loop)
        if TARGETS[target].has_fma and (group.lanes > 1 or architecture == "x86_64"):
            assert len(fused) == rows * vectors
        assert bool(PREFETCH[architecture].search(loop)) == (group.prefix != TILE)
        if group.lanes * FORMATS[name].bits == TARGETS[target].vector_bits:
            assert wide.search(loop)
        if name == "float32":
            assert not DOUBLE[architecture].search(loop)


COMPACT = [
    Storage(FORMATS["bfloat16"]),
    Storage(FORMATS["float16"]),
    Storage(FORMATS["int8"], True),
]
WIDENING = {
    ("bfloat16", "x86_64"): r"\tvpshufb\t|\tv?punpck[lh]wd\t|\tpmovzxwd\t",
    ("float16", "x86_64"): r"\tvcvtph2psx?\t",
    ("int8", "x86_64"): r"\tv?cvtdq2ps\t",
    ("bfloat16", "aarch64"): r"\tu?shll\t",
    ("float16", "aarch64"): r"\tfcvtl\t",
    ("int8", "aarch64"): r"\tscvtf\t",
}


@every_target
@pytest.mark.parametrize("stored", COMPACT, ids=lambda stored: stored.form.name)
def test_narrow_weights_are_widened_in_registers(stored, target):
    """Once for each vector of a k. Tiles that keep the vectors store each of them once."""
    form, lanes = FORMATS["float32"], TARGETS[target].vector_bits // 32
    architecture = TARGETS[target].architecture
    module, machine = gemm_module.compiled(form, lanes, TARGETS[target], stored)
    text = machine.emit_assembly(module)
    plain, *groups = gemm_module.tile_groups(form, lanes, TARGETS[target], stored)
    assert [group.prefix for group in groups] == [gemm_loops.WIDENING_TILE, gemm_loops.KEEPING_TILE]
    assert plain.stored == Storage(form, stored.scaled)
    widening = re.compile(WIDENING[stored.form.name, architecture])
    for group, (rows, vectors) in ((g, size) for g in groups for size in g.sizes):
        body = machine_code.function(text, tile_name(rows, vectors, group.prefix))
        (loop,) = machine_code.loops(body)
        assert not CALL.search(loop)
        if not TARGETS[target].has_fma:  # converts halves by arithmetic, and lacks registers
            continue
        assert len(FUSED[architecture].findall(loop)) == rows * vectors
        assert len(widening.findall(loop)) == vectors
        if architecture == "x86_64":
            assert not SPILLED_VECTOR.search(loop), (group, rows, vectors)
            stores = re.findall(r"\tvmov(?:ups|dqu(?:64)?|dqa(?:64)?)\t%[yz]mm\d+, .*\(", loop)
            assert len(stores) == vectors * group.keeps


@every_kind
def test_vectors_of_several_rows_stay_in_registers(target, name, lanes):
    """Only addresses are kept on the stack, and no vector is moved within a loop."""
    if not several_rows.applies(FORMATS[name], lanes, TARGETS[target]):
        assert (
            lanes == 1
            or name == "float64"
            or narrow.widest(FORMATS[name], TARGETS[target]) == lanes
        )
        return
    text, _ = emitted(target, name, lanes)
    for parts in several_rows.possible_parts(FORMATS[name], lanes):
        body = machine_code.function(text, f"{several_rows.TILE}.{parts}")
        whole, single = machine_code.loops(body)
        sums = several_rows.groups_of(parts, TARGETS[target]) * parts
        assert len(FUSED["x86_64"].findall(whole)) == several_rows.part_of(FORMATS[name]) * sums
        assert len(FUSED["x86_64"].findall(single)) == sums
        assert PREFETCH["x86_64"].search(whole)
        for loop in (whole, single):
            assert not CALL.search(loop)
            assert not SPILLED_VECTOR.search(loop), parts


@every_kind
def test_nothing_outside_is_called(target, name, lanes):
    text, _ = emitted(target, name, lanes)
    own = set(re.findall(r"(?m)^([\w.]+):", text))
    called = {match[2].removesuffix("@PLT") for match in CALL.finditer(text)}
    # Besides its own functions, code calls the activation and the thread pool, through pointers.
    assert {c for c in called if not POINTER.match(c)} <= own
    visible = set(re.findall(r"(?m)^\t\.globl\t(\S+)", text))
    assert visible == {*ENTRIES, SETTING}


def symbols(elf):
    """Names and sections of the symbols of a 64-bit little-endian ELF file; 0 means undefined."""

    def number(at, size):
        return int.from_bytes(elf[at : at + size], "little")

    assert elf[:6] == b"\x7fELF\x02\x01"
    start, size, count = number(0x28, 8), number(0x3A, 2), number(0x3C, 2)
    headers = [start + i * size for i in range(count)]
    for header in headers:
        if number(header + 4, 4) == 2:  # the symbol table
            texts = number(headers[number(header + 40, 4)] + 24, 8)
            first, length = number(header + 24, 8), number(header + 32, 8)
            for entry in range(first + 24, first + length, 24):
                name = texts + number(entry, 4)
                yield elf[name : elf.index(b"\0", name)].decode(), number(entry + 6, 2)


@every_kind
def test_object_code_needs_no_other(target, name, lanes):
    if "linux" not in TARGETS[target].triple:
        pytest.skip("object files of this system are no ELF files")
    found = dict(symbols(emitted(target, name, lanes)[1]))
    assert set(ENTRIES) <= {name for name, section in found.items() if section}
    assert not [name for name, section in found.items() if section == 0]
