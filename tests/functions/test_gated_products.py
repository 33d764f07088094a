"""Products with a gate, where the gate or a partial product alone would over- or underflow."""

import numpy as np
import pytest
from kinds import bound

import fastact
from bench import accuracy
from fastact._declarations.records import element_wise

pytestmark = pytest.mark.functional

LARGEST = {"float32": 128, "float64": 1024}
GATES = {"glu": 1, "glu_backward": 2} | {
    name + suffix: place
    for name in ("swiglu", "geglu")
    for suffix, place in (("", 0), ("_backward", 1))
}
"""Which operand of each function is the argument of the gate."""


def hard_operands(declared, name, count):
    """Factors over the whole range of exponents, and arguments of exp that make up for them."""
    rng = np.random.default_rng(7)
    limit = LARGEST[name]
    shape = (declared.nin, count)
    x = rng.uniform(1, 2, shape) * 2.0 ** rng.integers(-limit + 24, limit, shape)
    x *= rng.choice([-1, 1], shape)
    x[GATES[declared.name]] = rng.uniform(-2.1 * limit * np.log(2), 30, count)
    if "geglu" in declared.name:  # whose exponential is that of a square
        gate = x[GATES[declared.name]]
        gate[:] = np.sign(gate) * np.sqrt(2 * abs(gate))
    return list(x.astype(name))


@pytest.mark.parametrize("declared", GATES)
@pytest.mark.parametrize(("name", "count"), [("float32", 200_000), ("float64", 10_000)])
def test_powers_of_2_are_multiplied_last(declared, name, count):
    declared = element_wise()[declared]
    function = getattr(fastact, declared.name)
    inputs = hard_operands(declared, name, count)
    for k in range(len(declared.results)):

        def nth(function, *x, k=k):
            return function(*x)[k] if len(declared.results) > 1 else function(*x)

        def found(*x, nth=nth):
            return nth(function, *x)

        def reference(m, *x, nth=nth):
            return nth(declared.reference, m, *x)

        report = (
            accuracy.float64_report(found, reference, inputs)
            if name == "float64"
            else accuracy.narrow_report(found, reference, inputs, name)
        )
        assert report.ulp <= bound(declared, name), report
        assert report.wrong == 0
