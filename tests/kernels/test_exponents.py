"""The operations that take a number apart return what the definition says."""

import numpy as np
import pytest
from conftest import ufunc_for

from fastact._compiler import host
from fastact._kernels.logarithm import LOG
from fastact._kernels.vocabulary import exponent, pick, significand

pytestmark = pytest.mark.functional


def exponent_kernel(x):
    return exponent(x, pick(LOG, x).root)


def significand_kernel(x):
    return significand(x, pick(LOG, x).root)


def numbers(dtype):
    """Normal numbers of all magnitudes, also next to where the exponent changes."""
    info, rng = np.finfo(dtype), np.random.default_rng(1)
    least = {np.float32: LOG.single, np.float64: LOG.double}[dtype].root
    changes = np.ldexp(dtype(least), np.arange(info.minexp + 1, info.maxexp))
    x = np.exp2(rng.uniform(info.minexp, info.maxexp, 10_000)).astype(dtype)
    ends = np.array([info.smallest_normal, info.max, 1], dtype)
    return least, np.concatenate([x, changes, np.nextafter(changes, dtype(0)), ends])


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_number_is_its_significand_times_a_power_of_two(dtype):
    least, x = numbers(dtype)
    k = ufunc_for(exponent_kernel, host.host(), "fd")(x)
    m = ufunc_for(significand_kernel, host.host(), "fd")(x)
    assert k.dtype == m.dtype == dtype
    assert (k == np.round(k)).all()
    assert (least <= m).all() and (m < 2 * least).all()
    np.testing.assert_array_equal(np.ldexp(m.astype(np.longdouble), k.astype(int)), x)
