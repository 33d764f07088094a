"""The errors of every activation stay within its declared bounds, over all or many inputs."""

import platform
from dataclasses import replace

import numpy as np
import pytest
from conftest import ufunc_for

import fastact
from bench import accuracy
from fastact._compiler import host
from fastact._declarations.records import ACTIVATIONS
from fastact._machine.targets import BASELINES

pytestmark = pytest.mark.functional

UNARY = [a for a in ACTIVATIONS.values() if a.nin == 1]

unary = pytest.mark.parametrize("declared", UNARY, ids=lambda a: a.name)


def ufunc(declared):
    return getattr(fastact, declared.name)


def edges(dtype) -> np.ndarray:
    """Values near which a kernel may take another path.

    These are the multiples of log(2)/2, where the exponent from exp_reduced changes and softplus
    starts to halve the argument of its logarithm; the inputs whose results become subnormal or 0;
    integers; and the limits of the format.
    """
    info = np.finfo(dtype)
    centres = np.concatenate(
        [
            np.arange(-2160, 2161) * (np.log(2) / 2),
            np.log([float(info.smallest_normal), float(info.smallest_subnormal)]),
            np.arange(-60, 61),
            [float(info.max), float(info.smallest_normal), float(info.eps)],
        ]
    ).astype(dtype)
    bits = np.dtype(f"u{centres.itemsize}")
    steps = np.arange(-40, 41).astype(bits)  # wraps around: neighbours on both sides
    x = (np.concatenate([centres, -centres]).view(bits)[:, None] + steps).ravel().view(dtype)
    return x[~np.isnan(x)]


def sample32(step: int) -> np.ndarray:
    patterns = np.arange(0, 1 << 32, step, dtype=np.uint64).astype(np.uint32)
    return np.concatenate([patterns.view(np.float32), edges(np.float32)])


@unary
@pytest.mark.parametrize("name", ["float16", "bfloat16"])
def test_every_input_of_16_bits_is_rounded_correctly(declared, name):
    report = accuracy.exhaustive(ufunc(declared), declared.reference, name)
    assert report.count >= 1 << 16
    assert report.ulp <= declared.ulp[name] <= 0.5
    assert report.wrong == 0


@unary
def test_float32_sample(declared):
    report = accuracy.narrow_report(ufunc(declared), declared.reference, sample32(997), "float32")
    assert report.ulp <= declared.ulp["float32"] <= 1
    assert report.wrong == 0


@unary
def test_float64_sample(declared):
    x = np.concatenate([accuracy.samples64(40_000, seed=1), edges(np.float64)[::23]])
    report = accuracy.float64_report(ufunc(declared), declared.reference, x)
    assert report.ulp <= declared.ulp["float64"] <= 1
    assert report.decreases == 0 or not declared.nondecreasing


@unary
def test_results_are_in_the_declared_range(declared, dtype):
    with np.errstate(over="ignore"):
        x = np.append(accuracy.samples64(40_000, seed=2), [-np.inf, np.inf]).astype(dtype)
    y = ufunc(declared)(x).astype(np.float64)
    least, greatest = declared.range
    assert y.min() == least or least == -np.inf
    assert y.max() == greatest or greatest == np.inf


@unary
def test_no_slope_is_above_the_steepest(declared):
    """The declared steepest slope is also reached, to within a thousandth."""
    x = np.linspace(-20, 20, 4_000_001)
    steepest = abs(np.diff(declared.reference(np, x)) / np.diff(x)).max()
    assert steepest <= 1.001 * declared.steepest
    assert steepest >= 0.999 * declared.steepest or declared.steepest == np.inf


@unary
@pytest.mark.exhaustive
def test_every_float32(declared):
    functions, complete = [ufunc(declared)], True
    if hasattr(declared.kernel, "by_tables"):
        complete = host.host().lookup
        if complete:  # the other kernel, for the same machine without its widest vectors
            functions.append(ufunc_for(declared.kernel, replace(host.host(), vector_bits=256)))
    reports = accuracy.exhaustive_reports(
        functions, declared.reference, "float32", nondecreasing=declared.nondecreasing
    )
    print(f"{declared.name} float32: {reports}")
    for report in reports:
        assert report.count >= 1 << 32
        assert report.ulp <= declared.ulp["float32"]
        assert report.wrong == 0
        assert report.decreases == 0 or not declared.nondecreasing
    if complete:  # the declared figure is the measured one, rounded up
        assert max(report.ulp for report in reports) > declared.ulp["float32"] - 0.01


@unary
@pytest.mark.exhaustive
@pytest.mark.parametrize("seed", range(4))
def test_many_float64(declared, seed):
    x = np.concatenate([accuracy.samples64(500_000, seed + 100), edges(np.float64)[seed::4]])
    report = accuracy.float64_report(ufunc(declared), declared.reference, x)
    print(f"{declared.name} float64: {report}")
    assert report.ulp <= declared.ulp["float64"]
    assert report.decreases == 0 or not declared.nondecreasing


@unary
@pytest.mark.parametrize("target", ["x86-64-v2", "x86-64-v3"])
@pytest.mark.skipif(platform.machine() not in ("x86_64", "AMD64"), reason="runs code for x86-64")
def test_code_for_lesser_machines_is_as_accurate(declared, target):
    """With narrower vectors, and for v2 without instructions for fma and half precision."""
    function = ufunc_for(declared.kernel, BASELINES[target])
    for name in ("float16", "bfloat16"):
        report = accuracy.exhaustive(function, declared.reference, name)
        assert report.ulp <= declared.ulp[name]
        assert report.wrong == 0
    report = accuracy.narrow_report(function, declared.reference, sample32(9973), "float32")
    assert report.ulp <= (1 if declared.ulp["float32"] else 0)
    report = accuracy.float64_report(
        function, declared.reference, accuracy.samples64(8_000, seed=3)
    )
    assert report.ulp <= 1
