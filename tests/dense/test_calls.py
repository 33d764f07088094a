"""The built-in function that calls a layer: what it refuses, and what it leaves behind."""

import sys
import threading
import time

import numpy as np
import pytest
from conftest import assert_same

import fastact as fa
from fastact._dense.weights import Weights

pytestmark = pytest.mark.functional

W = np.arange(27, dtype=np.float32).reshape(9, 3) / 8
B = np.array([0.5, -1.0, 2.0], np.float32)
X = np.linspace(-1, 1, 45, dtype=np.float32).reshape(5, 9)


@pytest.fixture
def call():
    return Weights(W, B, None).call


@pytest.mark.parametrize("shape", [(9,), (0, 9), (1, 9), (5, 9), (2, 3, 9), (1,) * 63 + (9,)])
def test_results_are_new_arrays(call, shape):
    x = np.resize(X, shape)
    y = call(x)
    assert type(y) is np.ndarray and y.flags.owndata and y.flags.c_contiguous
    assert_same(y, fa.dense(x, W, B))
    assert_same(call(x, None), y)
    out = np.empty_like(y)
    assert call(x, out) is out
    assert_same(out, y)


class Sub(np.ndarray):
    pass


READ_ONLY = np.zeros((5, 3), np.float32)
READ_ONLY.flags.writeable = False

REFUSED = {
    "a list": (X.tolist(),),
    "a number": (1.0,),
    "a subclass": (X.view(Sub),),
    "no axes": (np.array(1.0, np.float32),),
    "another dtype": (X.astype(np.float64),),
    "another byte order": (X.astype(X.dtype.newbyteorder()),),
    "too few columns": (X[:, :8],),
    "out of another type": (X, [1.0]),
    "out of a subclass": (X, np.empty((5, 3), np.float32).view(Sub)),
    "out of another dtype": (X, np.empty((5, 3))),
    "out of another shape": (X, np.empty((5, 4), np.float32)),
    "a read-only out": (X, READ_ONLY),
    "an out that overlaps x": (X, X[:, 3:6]),
}


@pytest.mark.parametrize("arguments", REFUSED.values(), ids=REFUSED)
def test_refused(call, arguments):
    before = [np.copy(argument) for argument in arguments]
    assert call(*arguments) is None
    for argument, copy in zip(arguments, before, strict=True):
        np.testing.assert_array_equal(argument, copy)


def test_references(call):
    """None is lost or leaked: of the operands, the dtype, the result, and None."""
    out, dtype = np.empty((5, 3), np.float32), X.dtype
    apart = np.zeros((3, 4, 9), np.float32)[:, :3]  # its rows have no single stride
    things = [X, out, dtype, None, call.__self__]

    def counts():
        return [sys.getrefcount(thing) for thing in things]

    def calls():
        for _ in range(1000):
            call(X)
            call(X, out)
            call(X, None)
            call(X[:, :8])
            call(X, X[:, 3:6])
            call(apart)

    calls()
    before = counts()
    calls()
    after = counts()
    assert all(abs(b - a) < 100 for a, b in zip(after, before, strict=True))
    made, other = call(X), np.empty(3)
    assert sys.getrefcount(made) == sys.getrefcount(other)


def test_no_memory(call):
    wide = np.lib.stride_tricks.as_strided(X, (1 << 57, 9), (0, 4))
    with pytest.raises(MemoryError):
        call(wide)


def test_other_threads_run_meanwhile():
    """A large call releases the GIL."""
    layer = fa.Dense(np.ones((2000, 2000), np.float32))
    x = np.ones((2000, 2000), np.float32)
    layer(x[:1])
    done, seen = threading.Event(), []

    def work():
        layer(x)
        done.set()

    worker = threading.Thread(target=work)
    interval = sys.getswitchinterval()
    sys.setswitchinterval(100)  # nobody else asks for the GIL
    try:
        worker.start()
        while not done.is_set():
            time.sleep(1e-4)
            seen.append(1)
    finally:
        sys.setswitchinterval(interval)
        worker.join()
    assert len(seen) > 5
