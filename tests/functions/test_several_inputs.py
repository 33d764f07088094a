"""Activations with several inputs, parameters among them, and their derivatives."""

import functools
import inspect
import itertools
import platform

import mpmath
import numpy as np
import pytest
from conftest import assert_same, is_nan, nans, quieted
from kinds import bound

import fastact
from bench import accuracy
from fastact._declarations import declare
from fastact._declarations.records import ACTIVATIONS, DERIVATIVES
from fastact._machine.targets import BASELINES
from fastact._runtime import engine, ufunc

pytestmark = pytest.mark.functional

NARROW = ["float16", "bfloat16"]

FUNCTIONS = [a for a in ACTIVATIONS.values() if a.nin > 1]
GRADIENTS = [d for d in DERIVATIVES.values() if ACTIVATIONS[d.activation].nin > 1]
PARAMETRIC = [a for a in FUNCTIONS if a.parameters]

each = pytest.mark.parametrize("declared", [*FUNCTIONS, *GRADIENTS], ids=lambda d: d.name)
each_gradient = pytest.mark.parametrize("declared", GRADIENTS, ids=lambda d: d.name)
each_parametric = pytest.mark.parametrize("declared", PARAMETRIC, ids=lambda d: d.name)


def within(reports, declared, name, limit=None):
    for report in reports:
        assert report.count > 0
        assert report.ulp <= (limit or bound(declared, name))
        assert report.wrong == 0


@each
def test_bounds(declared):
    assert declared.ulp["float32"] <= 1 and declared.ulp["float64"] <= 1
    assert all(declared.ulp[name] <= 0.51 for name in NARROW)


@each
@pytest.mark.parametrize("name", [*NARROW, "float32"])
def test_narrow_formats(declared, name):
    function = getattr(fastact, declared.name)
    within(accuracy.several_report(declared, name, function, 300_000, seed=1), declared, name)


@each
def test_float64(declared):
    function = getattr(fastact, declared.name)
    reports = accuracy.several_report(declared, "float64", function, 20_000, seed=2)
    within(reports, declared, "float64")


@each
@pytest.mark.exhaustive
@pytest.mark.parametrize(
    ("name", "samples"),
    [("float16", 2_000_000), ("bfloat16", 2_000_000), ("float32", 5_000_000), ("float64", 10**5)],
)
def test_many(declared, name, samples):
    function = getattr(fastact, declared.name)
    reports = accuracy.several_report(declared, name, function, samples, seed=3)
    print(f"{declared.name} {name}: {reports}")
    within(reports, declared, name)


# All others have code for lesser machines tested when all tests run at these levels (.ci/run).
@pytest.mark.parametrize("declared", [*PARAMETRIC[:1], *GRADIENTS[:1]], ids=lambda d: d.name)
@pytest.mark.parametrize("target", ["x86-64-v2", "x86-64-v3"])
@pytest.mark.skipif(platform.machine() not in ("x86_64", "AMD64"), reason="runs code for x86-64")
def test_code_for_lesser_machines_is_as_accurate(declared, target):
    nout = len(declared.results)
    function = ufunc.create(
        name=declared.name,
        nin=declared.nin,
        doc="",
        types="efd",
        choose=functools.partial(engine.choose_dtype, keeps_integers=False),
        make_loop=functools.partial(
            engine.loop_address, declared.kernel, declared.nin, target=BASELINES[target], nout=nout
        ),
        nout=nout,
    )
    for name, samples in {"float16": 50_000, "float32": 200_000, "float64": 5_000}.items():
        limit = declared.ulp[name] if name in NARROW else max(declared.ulp[name], 1)
        within(accuracy.several_report(declared, name, function, samples, 4), declared, name, limit)


@each
def test_special_values(declared, dtype):
    function = getattr(fastact, declared.name)
    for row in declared.specials:
        given, expected = row[: declared.nin], row[declared.nin :]
        found = function(*np.array(given, dtype)[:, None])
        for one, value in zip(found if len(expected) > 1 else [found], expected, strict=True):
            if value == value:
                assert_same(one, np.array([value], dtype))
            else:
                assert np.isnan(one.astype(np.float64)).all()


@each
def test_the_first_nan_is_returned(declared, dtype):
    """Of the operands that a result depends on; which ones, calls with one NaN tell."""
    function = getattr(fastact, declared.name)
    bad = nans(dtype)
    # Different NaNs in each operand, so that it can be told which one is returned.
    different = [np.roll(bad, i) for i in range(declared.nin)]

    def results(number, given):
        numbers = np.full_like(bad, number)
        found = function(*(x if i in given else numbers for i, x in enumerate(different)))
        return found if len(declared.results) > 1 else [found]

    for number in (0.0, 0.5, -2.0):
        alone = [results(number, {i}) for i in range(declared.nin)]
        assert all(is_nan(one).all() for one in alone[0])
        for k in range(len(declared.results)):
            matter = [i for i, found in enumerate(alone) if is_nan(found[k]).any()]
            for size in range(1, len(matter) + 1):
                for given in itertools.combinations(matter, size):
                    assert_same(results(number, given)[k], quieted(different[given[0]]))


@each_gradient
def test_gradients_are_derivatives(declared):
    """The reference, compared with mpmath's numerical derivatives of the activation's."""
    activation = ACTIVATIONS[declared.activation]
    parameters = [activation.parameters.get(name, (0.7, -1.3)) for name in activation.inputs[1:]]
    with mpmath.workdps(60):
        for place in (-30.0, -2.5, -0.7, -1e-3, 1e-3, 0.4, 1.0, 3.75, 17.0):
            x = [mpmath.mpf(place), *(mpmath.mpf(values[0]) for values in parameters)]
            output = activation.reference(mpmath.mp, *x)
            found = declared.reference(mpmath.mp, 3, *declared.operands(x, output))
            for k, one in enumerate(found):
                order = tuple(int(i == k) for i in range(len(x)))
                exact = mpmath.diff(functools.partial(activation.reference, mpmath.mp), x, order)
                assert abs(one - 3 * exact) <= mpmath.mpf(10) ** -20 * (1 + abs(exact))


@each_parametric
def test_parameters_are_broadcast(declared):
    function = getattr(fastact, declared.name)
    rng = np.random.default_rng(5)
    x = rng.standard_normal((70, 9)).astype(np.float32)
    values = [np.resize(np.array(v, np.float32), 9) for v in declared.parameters.values()]
    rows = np.stack([function(x[:, i], *(v[i] for v in values)) for i in range(9)], axis=1)
    assert_same(function(x, *values), rows)
    first = [v[0] for v in declared.parameters.values()]
    assert_same(function(x, *first), function(x, *(np.full_like(x, v) for v in first)))


def declared_as(kernel, **fields):
    """Declare a derivative that is never kept."""
    before = DERIVATIVES.copy()
    try:
        declare.derivative(
            formula="", notes="", reference=None, specials=[], interval=(0, 1), ulp={}, **fields
        )(kernel)
    finally:
        DERIVATIVES.clear()
        DERIVATIVES.update(before)


@pytest.mark.parametrize(
    "kernel",
    [
        lambda output: 0,
        lambda grad_output, x: 0,
        lambda grad_output, y: 0,
        lambda grad_output: 0,
        lambda grad_output, input, output: 0,
    ],
    ids=lambda kernel: ", ".join(inspect.signature(kernel).parameters),
)
def test_derivatives_with_other_inputs_are_refused(kernel):
    kernel.__name__ = "sigmoid_backward"
    with pytest.raises(ValueError, match="sigmoid_backward: inputs must be grad_output, then"):
        declared_as(kernel)


def test_output_does_not_replace_an_output():
    def tanh_backward(grad_output, output):
        return grad_output

    with pytest.raises(ValueError, match="of_output is for derivatives of"):
        declared_as(tanh_backward, of_output=lambda m, y: 1 - y * y)
