"""Fixtures and helpers of all tests: activations, formats, inputs, comparisons, processes."""

import atexit
import functools
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
from code_cache import Kept
from hypothesis import settings
from kinds import ONE_RESULT, TYPICAL

import fastact
from fastact._declarations import declare
from fastact._loading import cache
from fastact._parallel import layers
from fastact._runtime import engine
from fastact._runtime import ufunc as ufunc_module

FLOATS = [np.dtype(t) for t in (np.float16, ml_dtypes.bfloat16, np.float32, np.float64)]
PEERS = {1: np.tanh, 2: np.heaviside}  # NumPy's, to compare the behaviour, not the values
ROOT = Path(fastact.__file__).parents[1]

# A shell starts background jobs with SIGINT ignored, and processes of tests would inherit this.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# A first example may compile, and machines are busy.
settings.register_profile("fastact", settings.default, deadline=None)
settings.load_profile("fastact")

# A test run and the processes that it starts share a cache, which is empty at the start.
if "PYTEST_XDIST_WORKER" not in os.environ:  # workers use the cache of the main process
    os.environ["FASTACT_CACHE_DIR"] = tempfile.mkdtemp(prefix="fastact-tests-")
    os.environ.pop("FASTACT_CACHE", None)
    atexit.register(shutil.rmtree, os.environ["FASTACT_CACHE_DIR"], ignore_errors=True)
    # Without bytecode, each of hundreds of processes would compile the package for half a second.
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)


def _missing(layer):
    """Return why a threading layer cannot be used here, or an empty string if it can."""
    try:
        layers.LAYERS[layer]().foresee()
    except (ImportError, OSError, AttributeError) as reason:
        return str(reason)
    return ""


def needs_layer(name):
    """Return a mark for tests that use the threading layer `name`."""
    missing = _missing(name)
    return pytest.mark.skipif(bool(missing), reason=f"no layer {name}: {missing}")


LAYERS = [pytest.param(name, marks=needs_layer(name)) for name in layers.LAYERS]
"""Parameters: every threading layer, skipped where it cannot be used."""


def pytest_ignore_collect(collection_path, config):
    """Ignore the tests that need other libraries unless ``-m`` names them."""
    others = Path(__file__).parent / "integration"
    if collection_path == others and "integration" not in config.option.markexpr:
        return True
    return None


def pytest_collection_finish():
    """Refuse tests that compile a kernel when they are imported, which all workers would do."""
    if cache.compiled:
        raise pytest.UsageError(f"collecting the tests compiled {cache.compiled} kernels")


def _of_each(activations):
    # Fixtures without state have session scope, because hypothesis refuses function scope.
    return pytest.fixture(
        scope="session", params=list(activations), ids=lambda declared: declared.name
    )


@_of_each(TYPICAL.values())
def activation(request):
    """The declaration of an activation or derivative of each kind."""
    return request.param


@_of_each(declared for declared in TYPICAL.values() if declared.nin == 2)
def binary_activation(request):
    return request.param


@_of_each(ONE_RESULT.values())
def every_activation(request):
    """The declaration of each activation and derivative."""
    return request.param


@pytest.fixture(scope="session")
def ufunc(activation):
    """The public ufunc of `activation`."""
    return getattr(fastact, activation.name)


@pytest.fixture(scope="session")
def every_ufunc(every_activation):
    """The public ufunc of `every_activation`."""
    return getattr(fastact, every_activation.name)


@pytest.fixture(scope="session")
def binary(binary_activation):
    return getattr(fastact, binary_activation.name)


@pytest.fixture(scope="session")
def peer(activation):
    """A ufunc of NumPy with the same number of inputs."""
    return PEERS[activation.nin]


@pytest.fixture(scope="session", params=FLOATS, ids=str)
def dtype(request):
    """Each floating-point format."""
    return request.param


def ufunc_for(kernel, target, types="efd"):
    """Return a ufunc of `kernel` with code for `target`, which must be able to run here."""
    nin = kernel.__code__.co_argcount
    return ufunc_module.create(
        name=kernel.__name__,
        nin=nin,
        doc="",
        types=types,
        choose=functools.partial(engine.choose_dtype, keeps_integers=False),
        make_loop=functools.partial(engine.loop_address, kernel, nin, target=target),
    )


def sample(declared, dtype, shape=(), seed=0):
    """Return inputs for an activation: from its interval, large, zero, infinite and NaN."""
    rng = np.random.default_rng(seed)
    low, high = declared.interval
    rare = [0.0, -0.0, np.inf, -np.inf, np.nan, 1e-6, -1e-6, 100.0, -100.0, -14.0]

    def one():
        usual = rng.uniform(low, high, shape)
        return np.where(rng.random(shape) < 0.3, rng.choice(rare, shape), usual).astype(dtype)

    return [one() for _ in range(declared.nin)]


def bits(array):
    """Return the bit patterns, which distinguish one NaN from another, and 0 from -0."""
    array = np.asarray(array)
    return array.astype(array.dtype.newbyteorder("="), copy=False).view(f"u{array.itemsize}")


def is_nan(array):
    """Do the same as ``numpy.isnan``, but without warnings for signalling NaN in bfloat16."""
    magnitude = bits(array) & ((1 << (8 * array.itemsize - 1)) - 1)
    return magnitude > bits(np.array(np.inf, array.dtype))


def nans(dtype):
    """Return NaN of both signs, signalling and quiet, with small and large payloads."""
    infinity = int(bits(np.array(np.inf, dtype)))
    quiet = 1 << (ml_dtypes.finfo(dtype).nmant - 1)
    sign = 1 << (8 * dtype.itemsize - 1)
    positive = [infinity + payload for payload in (1, quiet - 1, quiet, quiet + 1, 2 * quiet - 1)]
    patterns = positive + [pattern + sign for pattern in positive]
    return np.array(patterns, f"u{dtype.itemsize}").view(dtype)


def quieted(array):
    """Return the same NaN, all of them quiet."""
    quiet = 1 << (ml_dtypes.finfo(array.dtype).nmant - 1)
    return (bits(array) | bits(array).dtype.type(quiet)).view(array.dtype)


def assert_same(actual, expected):
    """Assert that type, shape and bits are the same."""
    assert actual.dtype == expected.dtype
    assert np.shape(actual) == np.shape(expected)
    np.testing.assert_array_equal(bits(actual), bits(expected))


def one_by_one(function, *operands):
    """Return the results of `function` for one element at a time."""
    operands = np.broadcast_arrays(*operands)
    result = np.empty(operands[0].shape, operands[0].dtype)
    for i in np.ndindex(result.shape):
        result[i] = function(*(x[i] for x in operands))
    return result


def run_python(code, returncode=0, **environment):
    """Run `code` in a new process, where warnings are errors, and return its standard output."""
    path = os.pathsep.join([str(ROOT), str(Path(__file__).parent)])
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONPATH": path} | environment,
        timeout=300,
    )
    assert done.returncode == returncode, done.stdout + done.stderr
    assert done.stderr == ""  # Python prints exceptions of callbacks there
    return done.stdout


_loop_address = functools.cache(engine.loop_address)


@pytest.fixture
def fresh(monkeypatch):
    """``fresh(declared)`` returns a ufunc like the public one that has not been called yet."""
    for registry in ("ACTIVATIONS", "DERIVATIVES", "UFUNCS"):
        monkeypatch.setattr(declare, registry, dict(getattr(declare, registry)))
    monkeypatch.setattr(engine, "loop_address", _loop_address)  # compiles each loop only once

    def again(declared):
        record = {name: getattr(declared, name) for name in declared.fields}
        kernel = record.pop("kernel")
        if isinstance(declared, declare.Derivative):
            del record["summary"]
            return declare.derivative(**record)(kernel)
        return declare.activation(**record)(kernel)

    return again


@pytest.fixture
def kept(tmp_path, monkeypatch):
    """A new cache, which this process and those that it starts use."""
    monkeypatch.setenv("FASTACT_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setattr(cache, "trouble", None)
    monkeypatch.setattr(cache, "_warnings_left", [1])
    source = tmp_path / "source.py"
    source.write_text("coefficient = 1.5\n")
    return Kept(tmp_path / "cache", source)


@pytest.fixture(scope="session")
def damaged(tmp_path_factory):
    """Like `kept`, with the session scope that hypothesis needs."""
    place = tmp_path_factory.mktemp("damaged")
    source = place / "source.py"
    source.write_text("")
    return Kept(place / "cache", source)
