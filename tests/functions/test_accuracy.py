"""The errors of every activation stay within its declared bounds, over all or many inputs."""

import platform
from dataclasses import replace

import numpy as np
import pytest
from conftest import ufunc_for
from kinds import FOR_LESSER_MACHINES

from bench import accuracy
from bench.references import FOR_ARRAYS
from fastact._compiler import host
from fastact._declarations.declare import ufunc_of
from fastact._declarations.records import ACTIVATIONS, FAST, without_fma
from fastact._kernels.vocabulary import variants_of
from fastact._machine.targets import BASELINES

pytestmark = pytest.mark.functional

UNARY = [a for a in ACTIVATIONS.values() if a.nin == 1]

unary = pytest.mark.parametrize("declared", [*UNARY, *FAST.values()], ids=lambda a: a.name)


def ufunc(declared):
    return ufunc_of(declared.name)


def limit(declared):
    """What no declared error may exceed: an ulp, or a few in the fast tier."""
    return 4 if declared.name in FAST else 1


def bound(declared, name, target=None):
    """The largest error that is documented for `target`, or for this machine."""
    ulp = declared.ulp[name]
    if (target or host.host()).has_fma:
        return ulp
    return without_fma(ulp)


OF_REFERENCE = 2.0**-28
"""An error of two roundings of the reference in float64, in ulp of float32: halfway between two
numbers, it makes an error of 0.5 ulp larger."""


def edges(dtype) -> np.ndarray:
    """Values near which a kernel may take another path.

    These are the multiples of log(2)/2, where the exponent of the reduced argument of exp changes;
    the inputs whose results become subnormal or 0; integers; and the limits of the format.
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
    assert declared.ulp["float32"] <= limit(declared)
    assert report.ulp <= bound(declared, "float32")
    assert report.wrong == 0


@unary
def test_float64_sample(declared):
    x = np.concatenate([accuracy.samples64(40_000, seed=1), edges(np.float64)[::23]])
    report = accuracy.float64_report(ufunc(declared), declared.reference, x)
    assert declared.ulp["float64"] <= limit(declared)
    assert report.ulp <= bound(declared, "float64")


@unary
def test_results_are_in_the_declared_range(declared, dtype):
    with np.errstate(over="ignore"):
        ends = [special[0] for special in declared.specials]  # and minima inside the range
        x = np.append(accuracy.samples64(40_000, seed=2), ends).astype(dtype)
    y = ufunc(declared)(x).astype(np.float64)
    least, greatest = np.array(declared.range, dtype).astype(np.float64)
    lowest = np.nanmin(y)
    if declared.nondecreasing or least in (-np.inf, *y):
        assert lowest == least or least == -np.inf
    else:  # a minimum where the function is flat; it need not be a number of the format
        below = np.nextafter(np.array(least, dtype), np.array(-np.inf, dtype))
        assert float(below) <= lowest <= 0.999 * least
    assert np.nanmax(y) == greatest or greatest == np.inf


@unary
def test_no_slope_is_above_the_steepest(declared):
    """The declared steepest slope is also reached, to within a thousandth."""
    x = np.linspace(-20, 20, 4_000_001)
    with np.errstate(all="ignore"):  # some functions are not defined everywhere
        steepest = np.nanmax(abs(np.diff(declared.reference(FOR_ARRAYS, x)) / np.diff(x)))
    assert steepest <= 1.001 * declared.steepest
    assert steepest >= 0.999 * declared.steepest or declared.steepest == np.inf


@unary
@pytest.mark.exhaustive
def test_every_float32(declared):
    functions, complete = [ufunc(declared)], True
    if variants_of(declared.kernel).tables:
        complete = host.host().lookup
        if complete:  # the other kernel, for the same machine without its widest vectors
            functions.append(ufunc_for(declared.kernel, replace(host.host(), vector_bits=256)))
    reports = accuracy.exhaustive_reports(functions, declared.reference, "float32")
    print(f"{declared.name} float32: {reports}")
    for report in reports:
        assert report.count >= 1 << 32
        assert report.ulp <= bound(declared, "float32") + OF_REFERENCE
        assert report.wrong == 0
    if complete:  # the declared figure is the measured one, rounded up
        assert max(report.ulp for report in reports) > declared.ulp["float32"] - 0.01


@unary
@pytest.mark.exhaustive
@pytest.mark.parametrize("seed", range(4))
def test_many_float64(declared, seed):
    count = 500_000 if declared.measured_in_full else 25_000  # MPFR takes 0.1 ms for a sample
    x = np.concatenate([accuracy.samples64(count, seed + 100), edges(np.float64)[seed::23]])
    report = accuracy.float64_report(ufunc(declared), declared.reference, x)
    print(f"{declared.name} float64: {report}")
    assert report.ulp <= bound(declared, "float64")


@pytest.mark.parametrize(
    "declared", [ACTIVATIONS[name] for name in FOR_LESSER_MACHINES], ids=FOR_LESSER_MACHINES
)
@pytest.mark.parametrize("target", ["x86-64-v2", "x86-64-v3"])
@pytest.mark.skipif(platform.machine() not in ("x86_64", "AMD64"), reason="runs code for x86-64")
def test_code_for_lesser_machines_is_as_accurate(declared, target):
    """With narrower vectors, and for v2 without instructions for fma and half precision."""
    target = BASELINES[target]
    function = ufunc_for(declared.kernel, target)
    for name in ("float16", "bfloat16"):
        report = accuracy.exhaustive(function, declared.reference, name)
        assert report.ulp <= declared.ulp[name]
        assert report.wrong == 0
    report = accuracy.narrow_report(function, declared.reference, sample32(9973), "float32")
    assert report.ulp <= bound(declared, "float32", target)
    report = accuracy.float64_report(
        function, declared.reference, accuracy.samples64(8_000, seed=3)
    )
    assert report.ulp <= bound(declared, "float64", target)
