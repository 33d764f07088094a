"""celu and squareplus with extreme operands, and the square root of the vocabulary."""

import mpmath
import numpy as np
import pytest
from conftest import assert_same, ufunc_for

import fastact
from fastact._compiler import host
from fastact._declarations.records import element_wise
from fastact._kernels.vocabulary import sqrt

pytestmark = pytest.mark.functional


def root(x):
    return sqrt(x)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_roots_are_rounded_correctly(dtype):
    rng = np.random.default_rng(0)
    size = np.dtype(dtype).itemsize
    x = rng.integers(0, 1 << (8 * size - 1), 2000, np.uint64).astype(f"u{size}").view(dtype)
    x = np.append(x[np.isfinite(x)], np.finfo(dtype).smallest_subnormal)
    function = ufunc_for(root, host.host())
    with mpmath.workprec(np.finfo(dtype).nmant + 1):
        exact = np.array([float(mpmath.sqrt(float(value))) for value in x], dtype)
    assert_same(function(x), exact)
    special = np.array([0.0, -0.0, np.inf], dtype)
    assert_same(function(special), special)
    assert np.isnan(function(np.array([-1.0], dtype)))[0]


def worst(name, dtype, *operands):
    """The largest errors of the results, in ulp, against the declared reference in mpmath."""
    declared = element_wise()[name]
    several = len(declared.results) > 1
    given = [
        np.broadcast_to(np.array(x, dtype), np.broadcast_shapes(*map(np.shape, operands)))
        for x in operands
    ]
    found = getattr(fastact, name)(*given)
    errors = [0.0] * len(declared.results)
    with mpmath.workdps(700):
        for values in zip(*given, *(found if several else [found]), strict=True):
            inputs, results = values[: declared.nin], values[declared.nin :]
            exact = declared.reference(mpmath.mp, *(mpmath.mpf(float(v)) for v in inputs))
            for k, (got, want) in enumerate(
                zip(results, exact if several else [exact], strict=True)
            ):
                if abs(want) > np.finfo(dtype).max:
                    assert abs(got) >= np.finfo(dtype).max
                    continue
                ulp = float(np.spacing(np.abs(np.array(float(want), dtype))))
                errors[k] = max(errors[k], float(abs(mpmath.mpf(float(got)) - want) / ulp))
    return errors


EXTREME = {np.float32: (-145, -120, -60, 0, 60, 126), np.float64: (-1070, -990, -400, 0, 400, 1022)}


@pytest.mark.parametrize("dtype", EXTREME)
def test_celu_of_any_alpha(dtype):
    rng = np.random.default_rng(1)
    alpha = 2.0 ** np.repeat(np.array(EXTREME[dtype], float), 40) * rng.uniform(1, 1.9, 240)
    alpha = alpha.astype(dtype)
    x = np.maximum(-alpha.astype(float) * 2.0 ** rng.uniform(-20, 1, 240), -np.finfo(dtype).max)
    x = x.astype(dtype)
    assert max(worst("celu", dtype, x, alpha)) <= 1
    g = rng.uniform(-2, 2, 240)
    assert max(worst("celu_backward", dtype, g, x, alpha)) <= 1


@pytest.mark.parametrize("dtype", EXTREME)
def test_squareplus_of_any_b(dtype):
    rng = np.random.default_rng(2)
    b = 2.0 ** np.repeat(np.array(EXTREME[dtype], float), 40) * rng.uniform(1, 1.9, 240)
    x = np.sqrt(b) * 2.0 ** rng.uniform(-20, 20, 240) * rng.choice([-1, 1], 240)
    b, x = b.astype(dtype), x.astype(dtype)
    assert max(worst("squareplus", dtype, x, b)) <= 1
    g = rng.uniform(-2, 2, 240)
    assert max(worst("squareplus_backward", dtype, g, x, b)) <= 1


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_squareplus_of_negative_b_cancels_nowhere(dtype):
    rng = np.random.default_rng(3)
    x = rng.uniform(1, 4, 300).astype(dtype) * rng.choice([-1, 1], 300).astype(dtype)
    b = -(x * x) * (1 - 2.0 ** rng.uniform(-30, -1, 300)).astype(dtype)
    b = np.maximum(b, np.nextafter(-(x * x), dtype(0)))
    assert max(worst("squareplus", dtype, x, b)) <= 1
