"""Keras' NumPy backend with our activations, and unchanged afterwards.

Keras' own tests are in its wheels 3.12.4 and 3.15.1, and pass there with the patch. 3.13.2, 3.14.1
and 3.15.0 have the same functions, line for line.
"""

import atexit
import concurrent.futures
import importlib.util
import os
import re
import shutil
import tempfile
import time
import warnings
from functools import partial
from math import inf, nan

import ml_dtypes
import mpmath
import numpy as np
import own_tests
import pytest
from conftest import assert_same, run_python

import fastact as fa

pytestmark = pytest.mark.integration

os.environ["KERAS_BACKEND"] = "numpy"  # before Keras is imported
os.environ["KERAS_HOME"] = tempfile.mkdtemp(prefix="keras-tests-")  # instead of the user's folder
atexit.register(shutil.rmtree, os.environ["KERAS_HOME"], ignore_errors=True)
keras = pytest.importorskip("keras")
import bench.keras  # noqa: E402 - the lines above prepare Keras
import fastact.keras  # noqa: E402

mp = mpmath.mp


def phi(x):
    return (1 + mp.erf(x / mp.sqrt(2))) / 2 if x > -1 else mp.erfc(-x / mp.sqrt(2)) / 2


def selu(x):
    scale, alpha = (
        mp.mpf("1.0507009873554804934193349852946"),
        mp.mpf("1.6732632423543772848170429916717"),
    )
    return scale * (x if x > 0 else alpha * mp.expm1(x))


def gelu_tanh(x):
    # (1 + tanh(t)) / 2 as a logistic function does not cancel.
    return x / (1 + mp.exp(-2 * mp.sqrt(2 / mp.pi) * (x + mp.mpf("0.044715") * x**3)))


def sigmoid(x):
    return 1 / (1 + mp.exp(-x))


def hard_sigmoid(x):
    return min(max(x / 6 + mp.mpf(0.5), mp.mpf(0)), mp.mpf(1))


def elu(x):
    return x if x > 0 else mp.expm1(x)


def squareplus(x, b=4):
    # The terms of the sum would cancel for negative numbers.
    root = mp.sqrt(x * x + b)
    return (x + root) / 2 if x > 0 else b / (root - x) / 2


def logarithm(x):
    return mp.log1p(mp.exp(x))


ACTIVATION = keras.activations
NN = fastact.keras.nn
ELEMENT_WISE = {
    "relu": (ACTIVATION.relu, lambda x: max(x, mp.mpf(0)), (0, inf)),
    "relu6": (ACTIVATION.relu6, lambda x: min(max(x, mp.mpf(0)), mp.mpf(6)), (0, 6)),
    "elu": (ACTIVATION.elu, elu, (-1, inf)),
    "selu": (ACTIVATION.selu, selu, (-1.7580993408473766, inf)),
    "sigmoid": (ACTIVATION.sigmoid, sigmoid, (0, 1)),
    "log_sigmoid": (ACTIVATION.log_sigmoid, lambda x: -logarithm(-x), (-inf, 0)),
    "hard_sigmoid": (ACTIVATION.hard_sigmoid, hard_sigmoid, (0, 1)),
    "hard_silu": (ACTIVATION.hard_silu, lambda x: x * hard_sigmoid(x), (0, inf)),
    "silu": (ACTIVATION.silu, lambda x: x * sigmoid(x), (0, inf)),
    "tanh": (ACTIVATION.tanh, mp.tanh, (-1, 1)),
    "tanh_shrink": (ACTIVATION.tanh_shrink, lambda x: x - mp.tanh(x), (-inf, inf)),
    "hard_tanh": (ACTIVATION.hard_tanh, lambda x: min(max(x, mp.mpf(-1)), mp.mpf(1)), (-1, 1)),
    "softplus": (ACTIVATION.softplus, logarithm, (0, inf)),
    "softsign": (ACTIVATION.softsign, lambda x: x / (1 + abs(x)), (-1, 1)),
    "mish": (ACTIVATION.mish, lambda x: x * mp.tanh(logarithm(x)), (0, inf)),
    "gelu": (ACTIVATION.gelu, lambda x: x * phi(x), (0, inf)),
    "gelu, approximate": (partial(ACTIVATION.gelu, approximate=True), gelu_tanh, (0, inf)),
    "ops.gelu": (keras.ops.gelu, gelu_tanh, (0, inf)),  # has another default
    "nn.tanh": (lambda x: NN.tanh(x), mp.tanh, (-1, 1)),
    "celu": (ACTIVATION.celu, elu, (-1, inf)),
    "celu, alpha": (
        partial(ACTIVATION.celu, alpha=0.5),
        lambda x: elu(2 * x) / 2 if x < 0 else x,
        (-0.5, inf),
    ),
    "squareplus": (ACTIVATION.squareplus, squareplus, (0, inf)),
    "squareplus, b": (
        partial(ACTIVATION.squareplus, b=0.25),
        partial(squareplus, b=0.25),
        (0, inf),
    ),
}
"""Functions of Keras that call one that is replaced, definitions, and limits at -inf and inf."""

FLOATS = [np.dtype(t) for t in (np.float16, ml_dtypes.bfloat16, np.float32, np.float64)]


@pytest.fixture(autouse=True)
def untouched():
    before = functions()
    yield
    assert functions() == before


def functions():
    """Return all functions that the patch may replace."""
    return {
        (place.__name__, key): value
        for place in fastact.keras._PLACES.values()
        for key, value in vars(place).items()
        if callable(value)
    }


def is_patched():
    return NN.relu.__globals__["__name__"] == "fastact.keras"


def largest_error(y, exact):
    """Return the largest error in ulp of the format of `y`."""
    info = ml_dtypes.finfo(y.dtype)
    errors = []
    for got, want in zip(y.astype(np.float64), exact, strict=True):
        exponent = max(mp.frexp(want)[1] - 1, info.minexp) if want else info.minexp
        if abs(want) > mp.mpf(float(info.max)) and got == np.copysign(inf, float(mp.sign(want))):
            continue
        errors.append(abs(mp.mpf(got) - want) / mp.mpf(2) ** (exponent - info.nmant))
    return float(max(errors))


def inputs(dtype):
    """Return finite numbers of a type: usual, tiny, and such that functions underflow."""
    tiny = 10.0 ** -np.arange(1, 40)
    far = [20.0, 30.0, 50.0, 87.0, 88.5, 100.0, 103.5, 120.0, 1e4, 3e38]
    with np.errstate(all="ignore"):
        x = np.concatenate([np.linspace(-15, 15, 121), tiny, -tiny, far, np.negative(far)])
        x = x.astype(dtype)
        return x[np.isfinite(x)]


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
@pytest.mark.parametrize("name", ELEMENT_WISE)
def test_results_are_accurate(name, dtype):
    """Results are within an ulp of those of mpmath, and correctly rounded in 16 bits."""
    function, definition, _ = ELEMENT_WISE[name]
    x = inputs(dtype)
    with fastact.keras.patched():
        y = function(x)
    with np.errstate(all="ignore"):
        x = x.astype(y.dtype)  # as Keras converts it
    y, x = y[np.isfinite(x)], x[np.isfinite(x)]
    with mpmath.workdps(200):
        exact = [definition(mp.mpf(value)) for value in x.astype(np.float64)]
        assert largest_error(y, exact) <= (0.51 if y.dtype.itemsize == 2 else 1)


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
@pytest.mark.parametrize("name", ELEMENT_WISE)
def test_infinite_inputs_and_nan_give_limits_and_no_warnings(name, dtype):
    function, _, limits = ELEMENT_WISE[name]
    with fastact.keras.patched():
        y = function(np.array([-inf, inf, nan], dtype))
    expected = np.array([*limits, nan], y.dtype)
    np.testing.assert_array_equal(y.astype(np.float64), expected.astype(np.float64))


def test_faults_of_keras_that_are_mended():
    """Without the patch they are still there, so that the documents remain true."""
    x = np.array([-inf, inf], np.float32)

    def results():
        return [ACTIVATION.softsign(x), ACTIVATION.hard_silu(x), ACTIVATION.gelu([-12.0])]

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        signs, silu, gelu = results()
    assert np.isnan(signs).all() and np.isnan(silu[0]) and gelu == 0
    with pytest.warns(RuntimeWarning, match="overflow"):
        ACTIVATION.sigmoid(np.float32(-100))
    with fastact.keras.patched():
        signs, silu, gelu = results()
        assert ACTIVATION.sigmoid(np.float32(-100)) == np.float32(3.8e-44)
    assert signs.tolist() == [-1, 1] and silu.tolist() == [0, inf] and -2.2e-32 < gelu < -2.1e-32


CALLS = {
    **{name: function for name, (function, *_) in ELEMENT_WISE.items()},
    **{
        f"{text}.{name}": partial(lambda module, name, *x: getattr(module, name)(*x), module, name)
        for text, module in (("ops", keras.ops), ("nn", NN))
        for name in (
            *("relu", "relu6", "elu", "selu", "sigmoid", "log_sigmoid", "hard_sigmoid"),
            *("hard_silu", "silu", "tanh", "tanh_shrink", "hard_tanh", "softplus", "softsign"),
            *("gelu", "leaky_relu", "glu", "softmax", "log_softmax", "celu", "squareplus"),
        )
    },
    **{name: getattr(ACTIVATION, name) for name in ("leaky_relu", "glu", "softmax", "log_softmax")},
    "exact": lambda x: NN.gelu(x, approximate=False),
    "by name": lambda x: NN.gelu(x=x, approximate=False),
    "Mish": fastact.keras.Mish.static_call,
    "elu, alpha 1": lambda x: NN.elu(x, alpha=1),
    "elu, alpha 0.5": lambda x: keras.ops.elu(x, 0.5),
    "celu, alpha 0.5": lambda x: NN.celu(x, alpha=0.5),
    "celu, alpha 0": lambda x: NN.celu(x, 0),
    "celu, alpha -0.5": lambda x: NN.celu(x, -0.5),
    "celu, alphas": lambda x: NN.celu(x, np.array([0.25, 0.5])),
    "squareplus, b 0.25": lambda x: keras.ops.squareplus(x, 0.25),
    "squareplus, b -9": lambda x: NN.squareplus(x, b=-9),
    "squareplus, b of columns": lambda x: NN.squareplus(x, np.array([0.25, 0.5])),
    "slope 0.01": lambda x: keras.ops.leaky_relu(x, 0.01),
    "slope 0": lambda x: NN.leaky_relu(x, negative_slope=0),
    "slope 1": lambda x: NN.leaky_relu(x, 1),
    "slope 1.5": lambda x: NN.leaky_relu(x, 1.5),
    "slope -0.5": lambda x: NN.leaky_relu(x, -0.5),
    "slopes": lambda x: NN.leaky_relu(x, np.array([0.25, 0.5])),
    "slopes above 1": lambda x: NN.leaky_relu(x, np.array([0.25, 1.5])),
    "relu with arguments": lambda x: ACTIVATION.relu(x, 0.5, 1.25),
    "relu with a slope": lambda x: ACTIVATION.relu(x, 0.5),
    "softmax of columns": lambda x: keras.ops.softmax(x, axis=0),
    "softmax of all": lambda x: NN.softmax(x, axis=None),
    "softmax of both": lambda x: NN.softmax(x, (-1, 0)),
    "softmax of nothing": lambda x: NN.softmax(x, ()),
    "log_softmax of columns": lambda x: keras.ops.log_softmax(x, axis=0),
    "log_softmax of all": lambda x: NN.log_softmax(x, axis=None),
    "log_softmax of both": lambda x: ACTIVATION.log_softmax(x, axis=(0, 1)),
    "glu of columns": lambda x: keras.ops.glu(x, axis=0),
}
"""Calls of functions that are replaced, with all arguments."""

NUMBERS = np.array([[-1.5, 0.5], [2.0, 0.25], [-0.25, 3.0], [1.0, -2.5]])
OPERANDS = {
    **{
        str(np.dtype(t)): NUMBERS.astype(t)
        for t in (*FLOATS, np.bool_, np.int8, np.int32, np.int64, np.complex64)
    },
    "unsigned": np.array([[1, 2], [0, 3]], np.uint8),
    "a list": NUMBERS.tolist(),
    "a list of integers": [[1, 2], [3, 4]],
    "a tuple": (0.5, -1.5),
    "an array": np.array([0.5, -1.5], np.float32),
    "a number": 0.75,
    "an integer": 2,
    "a scalar": np.float32(-0.75),
    "a scalar of float16": np.float16(-0.75),
    "no dimensions": np.array(0.75, np.float32),
    "nothing": np.empty((0, 2), np.float32),
    "transposed": NUMBERS.astype(np.float32).T,
    "strided": np.tile(NUMBERS.astype(np.float32), 2)[::2, ::2],
    "swapped bytes": NUMBERS.astype(np.dtype(np.float32).newbyteorder()),
    "a variable": keras.Variable(NUMBERS, dtype="float32"),
    "a variable of bfloat16": keras.Variable(NUMBERS, dtype="bfloat16"),
}


def outcome(function, x):
    """Return the result, or the type of the exception."""
    try:
        with warnings.catch_warnings(), np.errstate(all="ignore"):
            warnings.simplefilter("ignore")
            return function(x)
    except (AttributeError, IndexError, OverflowError, TypeError, ValueError) as error:
        return type(error)


@pytest.mark.parametrize("name", CALLS)
def test_results_are_like_those_of_keras(name):
    """Types and shapes are the same, values nearly, and errors too."""
    expected = {kind: outcome(CALLS[name], x) for kind, x in OPERANDS.items()}
    with fastact.keras.patched():
        actual = {kind: outcome(CALLS[name], x) for kind, x in OPERANDS.items()}
    for kind, x in OPERANDS.items():
        # Mish computes with float32 inside, and its result may nevertheless be of float64.
        assert_alike(actual[kind], expected[kind], x, 2.0**-23 if name == "Mish" else 0)


def assert_alike(actual, expected, x, least):
    if isinstance(expected, type):
        # Where Keras needs an array, other things are accepted, and where it needs elements, none.
        assert actual is expected or not (isinstance(x, np.ndarray) and x.size)
        return
    assert isinstance(actual, (np.ndarray, np.generic))
    assert actual.dtype == expected.dtype and actual.shape == expected.shape
    exact = not np.issubdtype(actual.dtype, np.inexact) and actual.dtype != ml_dtypes.bfloat16
    # The sum of 8 or fewer exponentials has a few rounding errors.
    tolerance = 0 if exact else 8 * max(least, float(ml_dtypes.finfo(actual.dtype).eps))
    wide = np.complex128 if np.iscomplexobj(actual) else np.float64
    np.testing.assert_allclose(
        actual.astype(wide), expected.astype(wide), rtol=tolerance, atol=tolerance
    )


def test_errors_of_keras_are_kept():
    with fastact.keras.patched():
        with pytest.raises(ValueError, match="axis size must be divisible by 2"):
            keras.ops.glu(np.ones((2, 3), np.float32))
        with pytest.raises(TypeError):
            NN.relu(np.ones(3, np.float32), 0.5)
        with pytest.raises(np.exceptions.AxisError):
            keras.ops.softmax(np.ones(3, np.float32), axis=1)


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
def test_rows_have_the_bits_of_our_functions(dtype):
    rng = np.random.default_rng(0)
    x = rng.normal(0, 4, (3, 4, 5)).astype(dtype)
    flat = x.transpose(1, 0, 2).reshape(4, 15)
    with fastact.keras.patched():
        for name in ("softmax", "log_softmax"):
            theirs, ours = getattr(NN, name), getattr(fa, name)
            for axis in (-1, 0, 1, np.int64(2)):
                assert_same(theirs(x, axis), ours(x, axis=axis))
            expected = ours(flat).reshape(4, 3, 5).transpose(1, 0, 2)
            for axes in ((0, 2), [0, -1]):
                assert_same(theirs(x, axes), expected)
                wide = np.float32 if dtype == np.float64 else dtype
                close = getattr(keras.ops, name)(x.astype(wide), axes)
                np.testing.assert_allclose(
                    close.astype(float), expected.astype(float), rtol=1e-5, atol=1e-6
                )
            assert_same(theirs(x, None), ours(x.ravel()).reshape(x.shape))


@pytest.mark.parametrize("axis", [0, 1, -1])
def test_halves_have_the_bits_of_our_function(axis):
    x = np.random.default_rng(0).normal(0, 4, (4, 6, 8)).astype(np.float32)
    with fastact.keras.patched():
        assert_same(keras.ops.glu(x, axis), fa.glu(*np.split(x, 2, axis)))


def test_float32_has_the_bits_of_our_functions():
    x = np.random.default_rng(0).normal(0, 4, 1000).astype(np.float32)
    names = {"leaky_relu": lambda x: fa.prelu(x, 0.2), "hard_silu": fa.hard_swish}
    names |= {"tanh_shrink": fa.tanhshrink, "gelu": fa.gelu, "mish": fa.mish, "silu": fa.silu}
    with fastact.keras.patched():
        for name, ours in names.items():
            assert_same(getattr(ACTIVATION, name)(x), ours(x))
        assert_same(keras.ops.gelu(x), fa.gelu_tanh(x))
        assert_same(keras.ops.leaky_relu(x, 0.01), fa.prelu(x, 0.01))
        assert_same(keras.layers.LeakyReLU()(x), fa.prelu(x, 0.3))
        assert_same(
            keras.layers.Softmax(0)(x.reshape(20, 50)), fa.softmax(x.reshape(20, 50), axis=0)
        )
        assert_same(keras.layers.Activation("gelu")(x), fa.gelu(x))


def test_models():
    """Models that were made before, inside or after compute with our functions inside."""

    def made():
        keras.utils.clear_session()  # names begin anew
        keras.utils.set_random_seed(0)
        x = y = keras.Input((6, 8))
        for activation in ("gelu", "mish", "hard_silu", "softplus"):
            y = keras.layers.Dense(8, activation=activation)(y)
        y = keras.layers.MultiHeadAttention(2, 4)(y, y)
        y = keras.layers.LSTM(5)(y)
        return keras.Model(x, keras.layers.Dense(3, activation="softmax")(y))

    x = np.random.default_rng(0).normal(size=(7, 6, 8)).astype(np.float32)
    before = made()
    expected = before.predict(x, verbose=0)
    with fastact.keras.patched():
        inside = made()
        results = [model.predict(x, verbose=0) for model in (before, inside)]
        assert inside.to_json() == before.to_json()
    assert_same(inside.predict(x, verbose=0), expected)
    assert_same(*results)
    assert (results[0] != expected).any()
    np.testing.assert_allclose(results[0], expected, rtol=1e-4)


def test_its_own_tests_pass(tmp_path):
    modules = ["keras.src.activations.activations_test", "keras.src.ops.nn_test"]
    if not all(map(importlib.util.find_spec, modules)):
        pytest.skip(f"the wheel of Keras {keras.__version__} has no tests")
    passed, counts = own_tests.run("keras_patched", modules, tmp_path)
    assert passed >= 400
    replaced = {
        f"{hook.place.__name__.rpartition('.')[2]}.{hook.key}" for hook in fastact.keras._hooks()
    }
    assert counts.keys() == replaced - {"nn.tanh"}  # only Keras' own mish calls this one


def test_blocks_nest_and_end_with_exceptions():
    with pytest.raises(KeyError), fastact.keras.patched():
        with fastact.keras.patched():
            assert is_patched()
        assert is_patched()
        raise KeyError
    assert not is_patched()

    @fastact.keras.patched()
    def decorated():
        return is_patched()

    assert decorated() and decorated() and not is_patched()


def test_patch_and_unpatch_are_counted():
    fastact.keras.patch()
    with fastact.keras.patched():
        pass
    assert is_patched()
    fastact.keras.unpatch()
    assert not is_patched()
    with pytest.raises(RuntimeError, match=r"unpatch: there must be a call of patch\(\) to undo"):
        fastact.keras.unpatch()


def test_threads_may_enter_and_leave_at_any_time(monkeypatch):
    check = fastact.keras._patch.check

    def slow_check():
        time.sleep(1e-3)  # other threads enter meanwhile
        check()

    monkeypatch.setattr(fastact.keras._patch, "check", slow_check)
    x = np.linspace(-5, 5, 1000, dtype=np.float32)
    expected = fa.gelu(x)

    def work(seed):
        rng = np.random.default_rng(seed)
        for _ in range(50):
            with fastact.keras.patched():
                time.sleep(rng.uniform(0, 1e-4))
                if not (is_patched() and (ACTIVATION.gelu(x) == expected).all()):
                    return False
        return True

    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        assert all(pool.map(work, range(8)))


@pytest.mark.parametrize("version", ["3.11.3", "3.16.0", "3.16.dev0", "2.15.0", "4.0"])
def test_other_versions_are_refused(version, monkeypatch):
    monkeypatch.setattr(keras, "__version__", version)
    message = rf"patch: Keras must be of version 3\.12 to 3\.15, .*got {re.escape(version)}"
    with pytest.raises(RuntimeError, match=message), fastact.keras.patched():
        pass
    monkeypatch.undo()
    with fastact.keras.patched():  # the refused attempt was not counted
        assert is_patched()


def test_functions_that_someone_else_replaced_are_left_alone(monkeypatch):
    def mine(x):
        pass

    for place, key in [(NN, "gelu"), (fastact.keras.Mish, "static_call")]:
        with monkeypatch.context() as patch:
            patch.setattr(place, key, mine)
            with pytest.raises(RuntimeError, match=rf"its own function {key} for .*, got .*mine"):
                fastact.keras.patch()
            assert getattr(place, key) is mine and not is_patched()
    with monkeypatch.context() as patch:
        patch.delattr(NN, "gelu")
        assert [hook.ours for hook in fastact.keras._hooks() if hook.key == "gelu"] == [None]
        with pytest.raises(RuntimeError, match="its own function gelu for 'gelu', got None"):
            fastact.keras.patch()


def test_without_the_library_the_extra_is_named():
    code = """if True:
    import sys
    sys.modules["keras"] = None
    try:
        import fastact.keras
    except ImportError as error:
        print(error)
    """
    assert 'pip install "fastact[keras]"' in run_python(code)


def test_other_backends_are_refused():
    code = """if True:
    try:
        import fastact.keras
    except ImportError as error:
        print(error)
    """
    message = run_python(code, KERAS_BACKEND="jax")
    assert "must be 'numpy' (KERAS_BACKEND=numpy" in message and "got 'jax'" in message


def test_the_benchmark_runs(tmp_path):
    table = tmp_path / "table.md"
    options = ["--inputs", "1000", "--size", "100", "--repetitions", "1", "--markdown", str(table)]
    bench.keras.main(options)
    rows = [line.split("|")[1:-1] for line in table.read_text().splitlines() if "|" in line][2:]
    assert len(rows) == len({hook.key for hook in fastact.keras._hooks()} | {"gelu_tanh"})
    assert all(float(row[3]) <= 1 and float(row[6]) > 0 for row in rows)
