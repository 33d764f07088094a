"""The machine code of every kernel: packed in the hot loop, without calls of other code.

LLVM emits code for machines other than this one, so that all baselines are tested here.
"""

import functools
import re

import pytest
from assembly import CALL, DOUBLE, PACKED, POINTER, SCALAR, TARGETS, X86_OPERATION, every_target

from fastact._compiler import frontend, pipeline
from fastact._compiler.loops import elementwise, past_the_caches
from fastact._declarations.records import element_wise
from fastact._kernels import tables
from fastact._machine import formats


@functools.cache
def assembly(name: str, form: str, target: str) -> str:
    declared, number = element_wise()[name], formats.FORMATS[form]
    scalar = frontend.scalar_ir(declared.kernel, number, declared.nin, TARGETS[target])
    loop = elementwise.loop_ir(scalar, number, declared.nin, TARGETS[target])
    return pipeline.assembly(loop, [scalar], TARGETS[target])


def hot_loop(text: str, function: str) -> str:
    """The lines of the one loop of `function`."""
    body = text[text.index(f"\n{function}:") :]
    body = body[: body.index(".Lfunc_end")]
    blocks = re.split(r"(?m)^(?=\.LBB)", body)
    loops = [b for b in blocks if (m := re.match(r"(\.LBB\w+):", b)) and b.count(m[1]) > 1]
    assert len(loops) == 1, "the kernel is one loop"
    return loops[0]


every_kernel = pytest.mark.parametrize(
    ("name", "form"),
    [(a.name, form) for a in element_wise().values() for form in a.ulp]
    + [
        (a.name, form)
        for a in element_wise().values()
        if a.keeps_integers
        for form in formats.INTEGERS
    ],
)


@every_kernel
@every_target
@pytest.mark.parametrize("function", ["hot_loop", "hot_loop_short"])
def test_hot_loop_is_packed(name, form, target, function):
    architecture = TARGETS[target].architecture
    loop = hot_loop(assembly(name, form, target), function)
    assert PACKED[architecture].search(loop)
    assert not SCALAR[architecture].search(loop)
    if formats.FORMATS[form].compute == "float32":
        assert not DOUBLE[architecture].search(loop)


@every_kernel
@every_target
def test_nothing_outside_is_called(name, form, target):
    text = assembly(name, form, target)
    own = set(re.findall(r"(?m)^(\w+):", text))
    called = {match[2].removesuffix("@PLT") for match in CALL.finditer(text)}
    # Besides its own functions, code calls those of the thread pool, through pointers.
    assert {c for c in called if not POINTER.match(c)} <= own
    assert "fma" not in called


@pytest.mark.parametrize("form", ["float32", "float16", "bfloat16", "float64"])
@pytest.mark.parametrize(
    "name", [a.name for a in element_wise().values() if hasattr(a.kernel, "by_tables")]
)
@every_target
def test_tables_are_looked_up_in_registers(name, form, target):
    loop = hot_loop(assembly(name, form, target), "hot_loop")
    lookups = len(re.findall(r"\tvperm[it]2ps\t.*%zmm", loop))
    if TARGETS[target].lookup and form != "float64":
        pieces = getattr(tables, name.upper()).pieces
        assert lookups == (2 + len(pieces.slope)) * TARGETS[target].interleave
        assert not re.search("gather|div", loop)
    else:
        assert lookups == 0
        assert "div" in loop  # the other kernel divides


STREAMED_STORE = re.compile(r"\tv?movnt(p[sd]|dq)\t")
PREFETCH = re.compile(r"\tprefetch\w*\t")
ARITHMETIC = re.compile(X86_OPERATION + r"p[sd]\b")


@every_kernel
@every_target
def test_copies_of_the_loop_add_only_prefetches_and_streaming_stores(name, form, target):
    text = assembly(name, form, target)
    declared = element_wise()[name]
    vectors = TARGETS[target].interleave
    if TARGETS[target].instructions.fence is None or formats.FORMATS[form].bits < 32:
        assert "hot_loop_ahead" not in text and "hot_loop_stream" not in text
        return
    loop, ahead = hot_loop(text, "hot_loop"), hot_loop(text, "hot_loop_ahead")
    assert not PREFETCH.search(loop) and not STREAMED_STORE.search(loop)
    operands = declared.nin + len(declared.results)
    assert len(PREFETCH.findall(ahead)) >= vectors * operands / 2
    assert len(ARITHMETIC.findall(loop)) == len(ARITHMETIC.findall(ahead))
    if len(declared.results) > 1:
        assert "hot_loop_stream" not in text
        return
    streamed = hot_loop(text, "hot_loop_stream")
    assert len(STREAMED_STORE.findall(streamed)) >= vectors / 2
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
