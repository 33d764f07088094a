"""The machine code of every kernel: packed in the hot loop, without calls of other code.

LLVM emits code for machines other than this one, so that all baselines are tested here.
"""

import re
from types import FunctionType

import pytest
from assembly import (
    CALL,
    DOUBLE,
    PACKED,
    POINTER,
    SCALAR,
    TARGETS,
    X86_OPERATION,
    every_target,
    row_assembly,
)
from assembly import assembly as kept_assembly
from kinds import TYPICAL

from bench import machine_code, operations
from fastact._compiler import nontemporal, software_pipelining
from fastact._compiler.loops import past_the_caches
from fastact._declarations.records import element_wise, of_rows
from fastact._kernels import tables
from fastact._kernels.vocabulary import variants_of, with_variants
from fastact._machine import formats
from fastact._runtime import engine


def assembly(name: str, form: str, target: str) -> str:
    return kept_assembly(name, form, TARGETS[target])


def vectors(name: str, form: str, target: str) -> int:
    """How many vectors one iteration handles."""
    return engine.tuned(
        element_wise()[name].kernel, formats.FORMATS[form], TARGETS[target]
    ).interleave


def hot_loop(text: str, function: str) -> str:
    """The lines of the one loop of `function`."""
    (loop,) = machine_code.loops(machine_code.function(text, function))
    return loop


every_kernel = pytest.mark.parametrize(
    ("name", "form"),
    [
        pytest.param(a.name, form, marks=[] if a.name in TYPICAL else [pytest.mark.exhaustive])
        for a in element_wise().values()
        for form in (*a.ulp, *(formats.INTEGERS if a.keeps_integers else ()))
        if a.name in TYPICAL or form == "float32"  # loops of other formats differ in no other way
    ],
)


@every_kernel
@every_target
@pytest.mark.parametrize("function", ["hot_loop", "hot_loop_short"])
def test_hot_loop_is_packed(name, form, target, function):
    architecture = TARGETS[target].architecture
    loop = hot_loop(assembly(name, form, target), function)
    assert PACKED[architecture].search(loop)
    if target == "x86-64":  # where LLVM counts four scalar roots as cheaper than one of a vector
        loop = loop.replace("\tsqrtss\t", "\t")
    assert not SCALAR[architecture].search(loop)
    if formats.FORMATS[form].compute == "float32":
        assert not DOUBLE[architecture].search(loop)


@every_target
@pytest.mark.parametrize("name", ["celu", "celu_backward"])
def test_hot_loop_for_one_number_is_packed_and_shorter(name, target):
    """What depends on the last input alone is computed before the loop."""
    text, architecture = assembly(name, "float32", target), TARGETS[target].architecture
    usual, uniform = hot_loop(text, "hot_loop"), hot_loop(text, "hot_loop_uniform")
    assert PACKED[architecture].search(uniform)
    assert not SCALAR[architecture].search(uniform)
    assert uniform.count("\n") < usual.count("\n")


def assert_spills_are_aligned(text: str, function: str, target: str):
    body = machine_code.function(text, function)
    size = TARGETS[target].vector_bits // 8
    # A loop that LLVM has divided in two for a number that does not change is none of the loops.
    blocks = [*machine_code.loops(body)] or [body]
    if size > 16 and any(machine_code.STACK["x86_64"].search(block) for block in blocks):
        assert f"\tandq\t$-{size}, %rsp\n" in body


@every_kernel
@every_target
def test_spilled_vectors_do_not_cross_pages(name, form, target):
    text = assembly(name, form, target)
    for function in re.findall(r"(?m)^(hot_loop\w*):", text):
        assert_spills_are_aligned(text, function, target)


ROW_KINDS = {
    "softmax": ["add_terms", "add_and_keep_terms", "divide_terms", "divide"],
    "log_softmax": ["add_terms", "subtract"],
    "logsumexp": ["add_terms"],
}
"""The loops of functions of each kind of result: terms, elements, and one for a row."""


@pytest.mark.parametrize("form", ["float32", "float64"])
@pytest.mark.parametrize("name", ROW_KINDS)
@every_target
def test_spilled_vectors_of_rows_do_not_cross_pages(name, form, target):
    text = row_assembly(of_rows()[name].steps, form, TARGETS[target])
    assert operations.row_loops(text) == ROW_KINDS[name]
    for function in ROW_KINDS[name]:
        assert_spills_are_aligned(text, function, target)


@every_kernel
@every_target
def test_nothing_outside_is_called(name, form, target):
    text = assembly(name, form, target)
    own = set(re.findall(r"(?m)^(\w[\w.]*):", text))
    called = {match[2].removesuffix("@PLT") for match in CALL.finditer(text)}
    # Besides its own functions, code calls those of the thread pool, through pointers.
    assert {c for c in called if not POINTER.match(c)} <= own
    assert "fma" not in called


def assembly_without_tables(name: str, form: str, target: str) -> str:
    """The code of a kernel that is the same but for its variant with tables."""
    declared = element_wise()[name]
    fields = variants_of(declared.kernel)._replace(tables=None)._asdict()
    copied = FunctionType(declared.kernel.__code__, declared.kernel.__globals__, name)
    other = type(declared)(**(vars(declared) | {"kernel": with_variants(**fields)(copied)}))
    return operations.assembly(other, form, TARGETS[target])


@pytest.mark.parametrize("form", ["float32", "float64"])
@pytest.mark.parametrize(
    "name", [a.name for a in element_wise().values() if variants_of(a.kernel).tables]
)
@every_target
def test_tables_are_looked_up_in_registers(name, form, target):
    loop = hot_loop(assembly(name, form, target), "hot_loop")
    lookups = len(re.findall(r"\tvperm[it]2ps\t.*%zmm", loop))
    if TARGETS[target].lookup and form == "float32":
        table = getattr(tables, name.upper())
        more = 1 if isinstance(table, (tables.Bell, tables.Spread)) else 0  # powers, shares
        found = 2 + len(table.pieces.slope) + more
        assert lookups == found * vectors(name, form, target)
        assert not re.search("gather|div", loop)
    else:
        assert lookups == 0
        assert loop == hot_loop(assembly_without_tables(name, form, target), "hot_loop")


STREAMED_STORE = re.compile(r"\tv?movnt(p[sd]|dq)\t")
PREFETCH = re.compile(r"\tprefetch\w*\t")
ARITHMETIC = re.compile(X86_OPERATION + r"p[sd]\b")


@every_kernel
@every_target
def test_copies_of_the_loop_add_only_prefetches_and_streaming_stores(name, form, target):
    text = assembly(name, form, target)
    declared = element_wise()[name]
    per_iteration = vectors(name, form, target)
    if TARGETS[target].instructions.fence is None or formats.FORMATS[form].bits < 32:
        assert "hot_loop_ahead" not in text and "hot_loop_stream" not in text
        return
    # The copies are of the loop as it was before it was divided into stages.
    copied = software_pipelining.FEW if f"\n{software_pipelining.FEW}:" in text else "hot_loop"
    loop, ahead = hot_loop(text, copied), hot_loop(text, "hot_loop_ahead")
    assert not PREFETCH.search(loop) and not STREAMED_STORE.search(loop)
    operands = declared.nin + len(declared.results)
    lines = per_iteration * TARGETS[target].vector_bits / 8 / nontemporal.LINE
    assert len(PREFETCH.findall(ahead)) == lines * operands
    assert len(ARITHMETIC.findall(loop)) == len(ARITHMETIC.findall(ahead))
    if len(declared.results) > 1:
        assert "hot_loop_stream" not in text
        return
    streamed = hot_loop(text, "hot_loop_stream")
    assert len(STREAMED_STORE.findall(streamed)) >= per_iteration / 2
    assert len(loop.splitlines()) == len(streamed.splitlines())
    run = text[text.index("\nrun:") :].partition("\n.Lfunc_end")[0]
    assert "sfence" in run
    assert len(PREFETCH.findall(run)) == past_the_caches.PRIMED * declared.nin


@pytest.mark.parametrize("architecture", ["x86_64", "aarch64"])
def test_the_patterns_find_what_they_are_for(architecture):
    scalar, double, packed = {
        "x86_64": ("\tvaddss\t%xmm0, %xmm1, %xmm2", "\tvmulpd\t%ymm0", "\tvaddps\t%ymm0"),
        "aarch64": ("\tfadd\ts0, s1, s2", "\tfmul\tv0.2d, v1.2d", "\tfadd\tv0.4s, v1.4s"),
    }[architecture]
    assert SCALAR[architecture].search(scalar) and not SCALAR[architecture].search(packed)
    assert DOUBLE[architecture].search(double) and not DOUBLE[architecture].search(packed)
    assert PACKED[architecture].search(packed) and not PACKED[architecture].search("\tret")
