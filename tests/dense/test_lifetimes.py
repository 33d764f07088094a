"""Memory that compiled loops of layers read is not shared, and lives as long as they need it."""

import gc
import sys
import threading
import weakref

import numpy as np
import pytest
from conftest import assert_same

import fastact as fa
from fastact._dense import backward, layers, sequential
from fastact._dense import weights as weights_module
from fastact._dense.activated import Activated


def random(shape, dtype, seed):
    return np.random.default_rng(seed).standard_normal(shape).astype(dtype)


def turned(shape, dtype, seed):
    """Weights whose columns are contiguous, so that a call packs them."""
    return random(shape[::-1], dtype, seed).T


def stack():
    return fa.Sequential(
        [fa.Dense(random((9, 33), "f", 1), activation="tanh"), fa.Dense(random((33, 5), "f", 2))]
    )


X = random((70, 9), "f", 0)
WIDE = X.astype("d")
CALLS = {
    "dense, packed": lambda: fa.dense(X, turned((9, 33), "f", 3), None, "tanh"),
    "dense, of another type": lambda: fa.dense(X.astype("e"), random((9, 33), "e", 4)),
    "dense, mixed types": lambda: fa.dense(WIDE, turned((9, 33), "f", 5)),
    "Dense, its first call": lambda: fa.Dense(random((9, 33), "f", 6), None, "softmax")(WIDE),
    "Sequential, its first call": lambda: stack()(X),
    "Sequential, of another type": lambda: stack()(WIDE),
    "dense_backward": lambda: fa.dense_backward(
        X[:, :5], X, random((9, 5), "f", 7), X[:, 1:6], "softmax"
    )[1],
}


@pytest.mark.parametrize("inner", CALLS)
@pytest.mark.parametrize("outer", CALLS)
def test_a_trace_function_may_call(outer, inner):
    """Calls between any two of our lines, as by a signal handler or destructor, are correct."""
    expected, within = CALLS[outer](), CALLS[inner]()
    wrong, count, before = [], 0, sys.gettrace()
    ours = [module.__file__ for module in (layers, weights_module, sequential, backward)]

    def trace(frame, event, argument):
        nonlocal count
        if event == "line" and frame.f_code.co_filename in ours:
            count += 1
            if CALLS[inner]().tobytes() != within.tobytes():
                wrong.append(frame.f_lineno)
        return trace

    sys.settrace(trace)
    try:
        y = CALLS[outer]()
    finally:
        sys.settrace(before)
    assert_same(y, expected)
    assert not wrong and count > 9


def test_buffers_are_used_again():
    """Also a buffer that a re-entrant call received while the first one was in use."""
    first = weights_module.Weights(turned((9, 33), "f", 0), None, None, temporary=True)
    second = weights_module.Weights(turned((9, 33), "f", 1), None, None, temporary=True)
    assert not np.shares_memory(first._packed, second._packed)
    second.give_back()
    third = weights_module.Weights(turned((9, 33), "f", 2), None, None, temporary=True)
    assert np.shares_memory(second._packed, third._packed)
    with pytest.raises(AttributeError):
        second.call(X, np.empty((70, 33), "f"))


@pytest.mark.parametrize("dtype", ["f", "d"])
def test_a_bound_function_keeps_all_that_it_reads(dtype):
    W, b, x = random((9, 33), dtype, 1), random(33, dtype, 2), X.astype(dtype)
    weights = weights_module.Weights(W, b, None)
    bound = {
        name: weights.bound(None if name is None else Activated(name))
        for name in (None, "tanh", "softmax")
    }
    read = [weakref.ref(weights._packed), weakref.ref(weights.biases[0])]
    del weights
    gc.collect()
    assert all(reference() is not None for reference in read)
    others = [np.full((9 * 33 + k,), np.nan, dtype) for k in range(200)]
    for name, call in bound.items():
        y = np.empty((70, 33), dtype)
        assert call(x, y) is y
        assert_same(y, fa.dense(x, W, b, name))
    del bound, call, others
    gc.collect()
    assert all(reference() is None for reference in read)


def test_threads_that_pack_at_once_get_the_same_weights(monkeypatch):
    """Both threads make weights and a plan before either stores its own."""
    layer, meeting = fa.Dense(random((9, 33), "f", 1)), threading.Barrier(2)
    pack, plan, found = layers._pack, weights_module.Kernels.plan, []

    def meet(function):
        def slow(*args, **kwargs):
            made = function(*args, **kwargs)
            meeting.wait(60)
            return made

        return slow

    def work():
        weights = layer._packed_as(np.dtype("d"))
        found.append((weights, weights.bound(Activated("tanh")).__self__.plan))

    monkeypatch.setattr(layers, "_pack", meet(pack))
    monkeypatch.setattr(weights_module.Kernels, "plan", meet(plan))
    threads = [threading.Thread(target=work) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    (first, plan_of_first), (second, plan_of_second) = found
    assert first is second
    assert plan_of_first is plan_of_second


def test_threads_that_prepare_a_stack_at_once(monkeypatch):
    """Whichever program and weights are kept, the other thread's program reads no freed memory."""
    model, meeting, pack = stack(), threading.Barrier(2), layers._pack
    expected = fa.Sequential([*stack()])(WIDE)
    programs, results = [], []

    def slow(*args, **kwargs):
        made = pack(*args, **kwargs)
        meeting.wait(60)
        return made

    def work():
        results.append(model(WIDE))
        programs.append(model._compiled[WIDE.dtype])

    monkeypatch.setattr(layers, "_pack", slow)
    threads = [threading.Thread(target=work) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    monkeypatch.undo()
    gc.collect()
    others = [np.full((9 * 33 + k,), np.nan) for k in range(200)]
    for program in programs:
        y = np.empty_like(expected)
        assert program.run(WIDE, y) is y
        results.append(y)
    assert len(results) == 4 and len(others) == 200
    for y in results:
        assert_same(y, expected)
