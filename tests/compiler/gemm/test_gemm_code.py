"""The machine code of dense layers: packed tiles in registers, and no calls of other code."""

import functools
import re

import pytest
from assembly import CALL, DOUBLE, PACKED, POINTER, SCALAR

from fastact._compiler import host
from fastact._compiler.gemm import module as gemm_module
from fastact._compiler.gemm.interface import lanes_for
from fastact._compiler.gemm.tiles import tile_name
from fastact._compiler.symbols import SETTING
from fastact._machine.formats import FORMATS
from fastact._machine.targets import BASELINES

TARGETS = {"host": host.host(), **BASELINES}

# The stack, where registers are spilled. Such code uses the frame pointer as any other register.
STACK = {
    "x86_64": re.compile(r"\(%rsp\b"),
    "aarch64": re.compile(r"\[sp\b"),
}
FUSED = {
    "x86_64": re.compile(r"\tvfmadd\w+\t"),
    "aarch64": re.compile(r"\tfmla\t"),
}
WIDE = {
    ("x86_64", 512): "%zmm",
    ("x86_64", 256): "%ymm",
    ("x86_64", 128): "%xmm",
    ("aarch64", 128): r"\bv\d+\.(4s|2d)",
}
# Conditional jumps: code off the straight path returns by an unconditional one.
JUMP = re.compile(r"(?m)^\t(j(?!mp)\w+|b\.\w+|cbn?z|tbn?z)\t(?:.*, )?(\.LBB\w+)$")


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
    module, machine = gemm_module.compiled(FORMATS[name], lanes, TARGETS[target])
    return machine.emit_assembly(module), machine.emit_object(module)


def sizes_of(target):
    tiles = TARGETS[target].tiles
    return [(h, v) for v, tallest in tiles.items() for h in range(1, tallest + 1)]


def function(text, name):
    body = text[re.search(rf"(?m)^{re.escape(name)}:", text).start() :]
    return body[: body.index(".Lfunc_end")]


def loops(body):
    """The blocks that end in a jump back to their label."""
    lines = body.splitlines()
    at = {line[:-1]: i for i, line in enumerate(lines) if re.fullmatch(r"\.LBB\w+:", line)}
    for i, line in enumerate(lines):
        if (jump := JUMP.match(line)) and at.get(jump[2], i) < i:
            block = "\n".join(lines[at[jump[2]] : i + 1])
            if block.count("\n.LBB") == 0:
                yield block


@every_kind
def test_tiles_stay_in_registers(target, name, lanes):
    """Each is one loop: an fma of whole vectors for each accumulator, and no spilled register."""
    architecture = TARGETS[target].architecture
    wide = re.compile(WIDE[architecture, TARGETS[target].vector_bits])
    text, _ = emitted(target, name, lanes)
    for rows, vectors in sizes_of(target):
        body = function(text, tile_name(rows, vectors))
        (loop,) = loops(body)
        # Without fma, each product needs one more register, which the tallest tiles lack.
        if TARGETS[target].has_fma:
            assert not STACK[architecture].search(loop), (rows, vectors)
            assert "%rsp, %rbp" not in body
        assert not CALL.search(loop)
        fused = FUSED[architecture].findall(loop)
        if lanes > 1:
            assert PACKED[architecture].search(loop)
            assert not SCALAR[architecture].search(loop)
        if TARGETS[target].has_fma and (lanes > 1 or architecture == "x86_64"):
            assert len(fused) == rows * vectors
        if lanes * FORMATS[name].bits == TARGETS[target].vector_bits:
            assert wide.search(loop)
        if name == "float32":
            assert not DOUBLE[architecture].search(loop)


@every_kind
def test_nothing_outside_is_called(target, name, lanes):
    text, _ = emitted(target, name, lanes)
    own = set(re.findall(r"(?m)^([\w.]+):", text))
    called = {match[2].removesuffix("@PLT") for match in CALL.finditer(text)}
    # Besides its own functions, code calls the activation and the thread pool, through pointers.
    assert {c for c in called if not POINTER.match(c)} <= own
    visible = set(re.findall(r"(?m)^\t\.globl\t(\S+)", text))
    assert visible == {*gemm_module.ENTRIES, SETTING}


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
    assert set(gemm_module.ENTRIES) <= {name for name, section in found.items() if section}
    assert not [name for name, section in found.items() if section == 0]


def test_the_patterns_find_what_they_are_for():
    assert STACK["x86_64"].search("\tvmovups\t%zmm0, 64(%rsp)")
    assert not STACK["x86_64"].search("\tvbroadcastss\t(%rdi,%rbp), %zmm20")
    assert STACK["aarch64"].search("\tstr\tq0, [sp, #16]")
    assert not STACK["aarch64"].search("\tldr\tq27, [x3, x4]")
    assert JUMP.match("\tjne\t.LBB1_4")[2] == ".LBB1_4"
    assert JUMP.match("\tcbnz\tx7, .LBB1_4")[2] == ".LBB1_4"
    assert JUMP.match("\tb.ne\t.LBB1_4")[2] == ".LBB1_4"
    assert not JUMP.match("\tjmp\t.LBB1_4") and not JUMP.match("\tb\t.LBB1_4")
    body = "f:\n.LBB0_1:\n\tnop\n\tje\t.LBB0_2\n.LBB0_3:\n\tnop\n\tjne\t.LBB0_3\n.LBB0_2:\n\tret"
    body += "\n.LBB0_4:\n\tnop\n.LBB0_5:\n\tjne\t.LBB0_4"
    assert list(loops(body)) == [".LBB0_3:\n\tnop\n\tjne\t.LBB0_3"]
