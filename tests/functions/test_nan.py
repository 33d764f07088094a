"""Every function returns a NaN input as the same NaN, made quiet, in any format and position.

If both inputs are NaN, the first one is returned. Where numbers have no result, the NaN is
unspecified. Objectives return only one NaN, as softmax does (``test_softmax.py``).
"""

import itertools
import platform

import numpy as np
import pytest
from conftest import FLOATS, assert_same, bits, is_nan, nans, quieted, ufunc_for
from kinds import FOR_LESSER_MACHINES

import fastact
from fastact._declarations.declare import ufunc_of
from fastact._declarations.records import ACTIVATIONS, FAST, OBJECTIVES, unary_derivatives
from fastact._machine.targets import BASELINES

pytestmark = pytest.mark.functional

UNARY = [name for name, declared in ACTIVATIONS.items() if declared.nin == 1]
NUMBERS = [0.0, -0.0, 0.5, 1.0, -1.0, 700.0, -700.0, np.inf, -np.inf]

every_dtype = pytest.mark.parametrize("dtype", FLOATS, ids=str)


def patterns(dtype):
    """All NaNs of 16-bit formats; of wider ones, NaNs with every low payload.

    Kernels read the low payload as an exponent.
    """
    if dtype.itemsize == 2:
        every = np.arange(1 << 16, dtype=np.uint16).view(dtype)
        return every[is_nan(every)]
    low = np.arange(1 << 12, dtype=f"u{dtype.itemsize}")
    return (bits(nans(dtype))[:, None] ^ (low & (low.max() >> 1))).ravel().view(dtype)


def layouts(array):
    """Views of the same elements that reach the loops for whole vectors, remainders and buffers."""
    yield array
    for step in (2, 3):
        spread = np.zeros(step * len(array), array.dtype)
        spread[::step] = array
        yield spread[::step]
    backwards = np.ascontiguousarray(array[::-1])
    yield backwards[::-1]
    room = np.zeros(array.nbytes + 1, np.uint8)
    unaligned = room[1:].view(array.dtype)
    unaligned[...] = array
    yield unaligned


def check_unary(function, dtype):
    bad = patterns(dtype)
    bad = bad[is_nan(bad)]
    assert len(bad) > 100
    expected = quieted(bad)
    for x in layouts(bad):
        assert_same(function(x), expected)
    for length in (1, 3, 17, 70):  # alone, and among numbers
        for place in range(0, length, max(1, length // 5)):
            x = np.resize(np.array(NUMBERS).astype(dtype), length)
            usual = function(x)
            for i in range(0, len(bad), len(bad) // 7):
                x[place] = bad[i]
                usual[place] = expected[i]
                assert_same(function(x), usual)


@every_dtype
@pytest.mark.parametrize("name", [*UNARY, *FAST])
def test_functions_of_one_number(name, dtype):
    check_unary(ufunc_of(name), dtype)


@every_dtype
@pytest.mark.parametrize("target", ["x86-64-v2", "x86-64-v3"])
@pytest.mark.parametrize("name", FOR_LESSER_MACHINES)
@pytest.mark.skipif(platform.machine() not in ("x86_64", "AMD64"), reason="runs code for x86-64")
def test_code_for_lesser_machines(name, dtype, target):
    """Kernels by formula, even if this machine uses tables, and an emulated fma."""
    check_unary(ufunc_for(ACTIVATIONS[name].kernel, BASELINES[target]), dtype)


@every_dtype
@pytest.mark.parametrize("name", unary_derivatives())
def test_derivatives(name, dtype):
    """A NaN is returned for any other operand, also if the derivative is 0 or the gradient inf."""
    function = getattr(fastact, f"{name}_backward")
    bad = nans(dtype)
    for number in np.array(NUMBERS).astype(dtype):
        numbers = np.full_like(bad, number)
        for x, y in itertools.product(layouts(np.tile(bad, 7)), [np.tile(numbers, 7)]):
            assert_same(function(x, y), quieted(np.tile(bad, 7)))
            assert_same(function(y, x), quieted(np.tile(bad, 7)))
    first, second = (np.ascontiguousarray(v.ravel()) for v in np.meshgrid(bad, bad))
    for x, y in zip(layouts(first), layouts(second), strict=True):
        assert_same(function(x, y), quieted(first))
    for x, y in zip(first, second, strict=True):
        assert_same(np.asarray(function(x, y)), quieted(np.array(x)))


@every_dtype
def test_heaviside(dtype):
    """The second operand is returned where the first is 0."""
    bad = nans(dtype)
    for number in np.array([*NUMBERS, np.nan]).astype(dtype):
        assert_same(fastact.heaviside(bad, number), quieted(bad))
        if number == 0:
            assert_same(fastact.heaviside(np.full_like(bad, number), bad), quieted(bad))
        elif number == number:
            assert not is_nan(fastact.heaviside(np.full_like(bad, number), bad)).any()


@every_dtype
@pytest.mark.parametrize("name", OBJECTIVES)
def test_objectives_have_one_nan(name, dtype):
    function = getattr(fastact, name)
    quiet = np.array(np.nan, dtype)
    for length in (1, 5, 40, 200):
        bad, ones = np.resize(nans(dtype), length), np.ones(length, dtype)
        for operands in ((bad, ones), (ones, bad), (bad, bad[::-1])):
            grad, hess = function(*operands)
            assert_same(grad, np.full(length, quiet))
            if operands[0] is bad:
                assert_same(hess, np.full(length, quiet))
            else:  # the hessian does not depend on the label
                assert not is_nan(hess).any()
