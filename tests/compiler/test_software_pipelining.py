"""Loops in stages: which functions have them, and the same bits as without."""

import dataclasses
import functools

import llvmlite.binding as llvm
import numpy as np
import pytest
from assembly import TARGETS

from bench import machine_code, operations
from fastact._compiler import host, pipeline, software_pipelining
from fastact._compiler.nontemporal import AHEAD, HOT_LOOP, STREAMED
from fastact._compiler.symbols import ALONE
from fastact._declarations.records import element_wise
from fastact._loading import linker
from fastact._machine.formats import FORMATS

from bench.variants import caller  # isort: skip


@functools.cache
def code(name: str, form: str, stages: int) -> int:
    target = dataclasses.replace(host.host(), interleave=2, stages=stages)
    sources = operations.sources(element_wise()[name], form, target)
    return linker.load(pipeline.object_code(*sources, target), ALONE)


@pytest.mark.parametrize("stages", [2, 3, 4, 5])
@pytest.mark.parametrize("form", ["float32", "float64"])
@pytest.mark.parametrize("name", ["sigmoid", "softplus", "sigmoid_backward"])
def test_stages_do_not_change_bits(name, form, stages):
    """Also in place, and for numbers of blocks next to where stages begin."""
    block = 2 * host.host().vector_bits // FORMATS[form].bits
    rng, nin = np.random.default_rng(0), element_wise()[name].nin
    plain, staged = code(name, form, 1), code(name, form, stages)
    # The last size is so large that stores bypass the caches, the one before it is prefetched.
    large = [(mebibytes << 20) // np.dtype(form).itemsize for mebibytes in (1, 17)]
    for size in (7 * block, 8 * block, 9 * block + 1, 40 * block + 3, *large):
        inputs = [(9 * rng.standard_normal(size)).astype(form) for _ in range(nin)]
        want, got = np.zeros(size, form), np.zeros(size, form)
        caller(plain, [*inputs, want], size)()
        caller(staged, [*inputs, got], size)()
        np.testing.assert_array_equal(got.view(f"u{got.itemsize}"), want.view(f"u{got.itemsize}"))
        caller(staged, [*inputs, inputs[0]], size)()
        np.testing.assert_array_equal(inputs[0].view(got.view(f"u{got.itemsize}").dtype),
                                      want.view(f"u{got.itemsize}"))  # fmt: skip


def test_a_divided_loop_computes_nothing_twice():
    """As many operations per iteration as without stages, and few values in memory between."""
    target = dataclasses.replace(TARGETS["x86-64-v3"], interleave=4)
    found = {}
    for stages in (1, 3):
        divided = dataclasses.replace(target, stages=stages)
        text = pipeline.assembly(
            *operations.sources(element_wise()["sigmoid"], "float32", divided), divided
        )
        (loop,) = machine_code.loops(machine_code.function(text, "hot_loop"))
        found[stages] = machine_code.counts(loop, "x86_64")
        for name in (HOT_LOOP, AHEAD, STREAMED):
            assert (f"\n{name}{software_pipelining.FEW}:" in text) == (stages > 1)
    assert found[3].arithmetic == found[1].arithmetic


def test_a_loop_of_another_form_stays_as_it_is():
    module = llvm.parse_assembly("define void @hot_loop(ptr %x, i64 %n) { ret void }")
    assert software_pipelining.applied(module, 3) is module
