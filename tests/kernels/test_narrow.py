"""The short formulas of 16-bit formats: coefficients, and the arrays that derive them."""

import importlib

import numpy as np
import pytest
from conftest import ufunc_for

from fastact._compiler import host
from fastact._declarations.records import ACTIVATIONS
from fastact._kernels.vocabulary import variants_of
from tools import narrow


def has_coefficients(name):
    return any(k.startswith("_NARROW") for k in vars(module_of(name)))


def module_of(name):
    return importlib.import_module(variants_of(ACTIVATIONS[name].kernel).narrow.__module__)


NARROW = [
    name
    for name, a in ACTIVATIONS.items()
    if variants_of(a.kernel).narrow and has_coefficients(name)
]
every_narrow = pytest.mark.parametrize("name", NARROW)


def committed(name, search):
    """The coefficients in the file of the function, without their scale."""
    values = {k: getattr(module_of(name), k) for k in search.start}
    return {k: [float(c) / search.scale.get(k, 1) for c in v] for k, v in values.items()}


def test_every_narrow_kernel_has_a_search():
    assert sorted(narrow.searches()) == sorted(NARROW)


@every_narrow
def test_coefficients_are_what_their_derivation_gives(name):
    search = narrow.searches()[name]
    assert narrow.found(name, search) == committed(name, search)


@every_narrow
def test_arrays_compute_what_compiled_code_computes(name):
    """Apart from the rounding of a fused multiply-add, which the arrays round twice."""
    kernel = variants_of(ACTIVATIONS[name].kernel).narrow
    x = np.linspace(-20, 20, 100_001, dtype=np.float32)
    fused = host.host().has_fma
    got = narrow.for_arrays(kernel, narrow._fused if fused else narrow._separate)(x)
    want = ufunc_for(kernel, host.host(), "f")(x)
    differ = np.flatnonzero(got != want)
    assert len(differ) < 5
    np.testing.assert_array_almost_equal_nulp(got, want)


def test_a_wrong_coefficient_is_noticed():
    search = narrow.searches()["tanh"]
    p = list(search.start["_NARROW_P"])
    p[1] += 1e-4
    search = search._replace(start={**search.start, "_NARROW_P": p})
    assert narrow.found("tanh", search, trials=3) is None
