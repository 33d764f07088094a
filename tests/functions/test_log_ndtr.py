"""log_ndtr and its derivative: far below 0, where the polynomials end, and around thresholds."""

import numpy as np
import pytest

import fastact
from bench import accuracy
from fastact._declarations.records import ACTIVATIONS, DERIVATIVES

pytestmark = pytest.mark.functional

DECLARED = ACTIVATIONS["log_ndtr"]
GRADIENT = DERIVATIVES["log_ndtr"]


def inputs(name):
    """Powers of 2 to where the result overflows, and numbers on both sides of each threshold."""
    rng, count = np.random.default_rng(1), {"float32": 200_000, "float64": 8_000}[name]
    highest = {"float32": 64.5, "float64": 512.5}[name]
    edges = {"float32": (0.75, 1.25, 1.9, 8, 14.5), "float64": (0.5, 1.9, 12, 38.5)}[name]
    near = rng.choice([*edges, *np.negative(edges)], count) * (1 + rng.uniform(-0.05, 0.05, count))
    far = -(2.0 ** rng.uniform(3, highest, count))
    return np.concatenate([near, far, rng.uniform(-300, -14, count)]).astype(name)


@pytest.mark.parametrize("name", ["float32", "float64"])
def test_errors(name):
    x = inputs(name)
    if name == "float64":
        report = accuracy.float64_report(fastact.log_ndtr, DECLARED.reference, x)
    else:
        report = accuracy.narrow_report(fastact.log_ndtr, DECLARED.reference, x, name)
    assert report.wrong == 0
    assert report.ulp <= DECLARED.ulp[name]


@pytest.mark.parametrize("name", ["float32", "float64"])
def test_errors_of_gradients(name):
    x = inputs(name)
    operands = [np.random.default_rng(2).uniform(-2, 2, len(x)).astype(name), x]
    function, reference = fastact.log_ndtr_backward, GRADIENT.reference
    if name == "float64":
        report = accuracy.float64_report(function, reference, operands)
    else:
        report = accuracy.narrow_report(function, reference, operands, name)
    assert report.wrong == 0
    assert report.ulp <= GRADIENT.ulp[name]


def test_results_overflow_where_the_square_does():
    largest = np.sqrt(2 * float(np.finfo(np.float32).max))
    x = -np.float32(largest * np.array([1 - 1e-6, 1 + 1e-6, 1e10]))
    np.testing.assert_array_equal(np.isinf(fastact.log_ndtr(x)), [False, True, True])
