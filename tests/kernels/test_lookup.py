"""Tables that kernels look up: every entry, in whole vectors, in remainders and one by one."""

import ctypes
import dataclasses

import numpy as np
import pytest
from conftest import ufunc_for

from fastact._compiler import host
from fastact._kernels import tables, vocabulary
from fastact._kernels.vocabulary import ENTRIES
from fastact._runtime import engine

pytestmark = pytest.mark.functional

VALUES = np.random.default_rng(3).permutation(ENTRIES) - 7.5
TABLE = vocabulary.Table(VALUES)
OTHERS = tuple(vocabulary.Table(np.roll(VALUES, k)) for k in range(1, 4))
SHIFT = tables.TANH.shift

# With and without an instruction for lookups. This machine also runs code for narrower vectors.
TARGETS = {bits: dataclasses.replace(host.host(), vector_bits=bits) for bits in (128, 256, 512)}
every_target = pytest.mark.parametrize(
    "target",
    [
        pytest.param(
            target,
            id=f"{bits} bits",
            marks=pytest.mark.skipif(
                bits > host.host().vector_bits, reason=f"needs vectors of {bits} bits"
            ),
        )
        for bits, target in TARGETS.items()
    ],
)


def entry(x):
    return vocabulary.lookup(TABLE, x + SHIFT)


def polynomial(x):
    return vocabulary.polynomial(x, OTHERS, x + SHIFT)


def expected(kernel, x):
    k = x.astype(int) % ENTRIES
    if kernel is entry:
        return VALUES[k].astype(np.float32)
    return sum(np.roll(VALUES, i + 1)[k] * x.astype(float) ** i for i in range(3))


@every_target
@pytest.mark.parametrize("dtype", ["float32", "float16"])
@pytest.mark.parametrize("kernel", [entry, polynomial])
@pytest.mark.parametrize("size", [1, 15, 16, 17, 64, 1000])
def test_entries(kernel, target, dtype, size):
    function = ufunc_for(kernel, target)
    x = np.resize(np.arange(-40, 41), size).astype(dtype)
    for operand in (x, np.repeat(x, 3)[::3]):
        want = expected(kernel, x).astype(np.float32).astype(dtype)
        np.testing.assert_array_equal(function(operand), want)


@pytest.mark.parametrize("kernel", [entry, polynomial])
def test_entries_one_by_one(kernel):
    address = engine.scalar_address(kernel, 1, type(np.dtype("f")))
    function = ctypes.CFUNCTYPE(ctypes.c_float, ctypes.c_float)(address)
    for k in range(-40, 41):
        assert function(k) == expected(kernel, np.array(k))


@every_target
def test_kernels_by_tables_are_for_targets_that_permute(target):
    """They are also only for formats that are computed in binary32."""
    function = ufunc_for(vocabulary.with_variants(tables=negative)(positive), target)
    for dtype in "ef":
        assert function(np.ones(100, dtype))[0] == (-1 if target.lookup else 1)


def test_kernels_by_tables_are_not_for_float64():
    function = ufunc_for(vocabulary.with_variants(tables=negative)(positive), None, "d")
    assert function(1.0) == 1


@every_target
@pytest.mark.parametrize("dtype", ["e", "f", "d"])
def test_narrow_kernels_are_for_16_bits(target, dtype):
    """There they come before kernels by tables."""
    with_both = vocabulary.with_variants(narrow=negative, tables=positive)(same)
    assert ufunc_for(with_both, target, dtype)(1.0, dtype=dtype) == (-1 if dtype == "e" else 1)


def positive(x):
    return vocabulary.magnitude(x)


def negative(x):
    return -vocabulary.magnitude(x)


def same(x):
    return x
