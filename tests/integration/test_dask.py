"""Arrays of dask stay lazy, and a cluster computes arrays that do not fit in one worker."""

import os
import re
import subprocess
import sys

import dask
import dask.array as da
import numpy as np
import pytest
from conftest import ROOT, assert_same
from distributed import Client, LocalCluster

import fastact as fa

pytestmark = pytest.mark.integration

EXAMPLE = ROOT / "examples" / "dask_cluster.py"


def test_lazy_arrays_stay_lazy():
    def never(block):
        raise AssertionError("computed")

    x = da.ones((6, 4), chunks=(2, 4)).map_blocks(never, dtype="f8")
    net = fa.Sequential([fa.Dense(np.ones((4, 3))), "softmax"])
    for y in (
        fa.sigmoid(x),
        fa.heaviside(x, 0.5),
        fa.softmax(x),
        x.map_blocks(net, dtype=net.dtype, chunks=(x.chunks[0], (3,))),
    ):
        assert isinstance(y, da.Array)
        with pytest.raises(AssertionError, match="computed"):
            y.compute()
    with pytest.raises(AssertionError, match="computed"):
        net(x)  # not lazy


def test_values_are_those_of_arrays_in_memory(activation, dtype):
    rng = np.random.default_rng(0)
    operands = [rng.normal(0, 3, (7, 5)).astype(dtype) for _ in range(activation.nin)]
    lazy = [da.from_array(operand, chunks=(3, 2)) for operand in operands]
    function = getattr(fa, activation.name)
    assert function(*lazy).dtype == dtype
    assert_same(function(*lazy).compute(), function(*operands))


def test_softmax_needs_its_axis_in_one_chunk():
    x = np.random.default_rng(0).normal(size=(6, 4))
    assert_same(fa.softmax(da.from_array(x, chunks=(2, 4))).compute(), fa.softmax(x))
    by_column = fa.softmax(da.from_array(x, chunks=(6, 2)), axis=0)
    assert_same(by_column.compute(), fa.softmax(x, axis=0))
    with pytest.raises(ValueError, match="consists of multiple chunks"):
        fa.softmax(da.from_array(x, chunks=(2, 2)))


def settings():
    return os.getpid(), fa.get_num_threads()


def test_worker_processes_give_the_same_bits():
    x = np.random.default_rng(0).normal(size=(1000, 9)).astype(np.float32)
    W = np.random.default_rng(1).normal(size=(9, 30)).astype(np.float32)
    net = fa.Sequential([fa.Dense(W, activation="tanh"), fa.Dense(W.T), "softmax"])
    lazy = fa.sigmoid(da.from_array(x, chunks=(300, 9)))
    by_function = lazy.map_blocks(net, dtype=net.dtype)
    by_argument = lazy.map_blocks(
        lambda block, net: net(block), net=dask.delayed(net), meta=net(x[:0])
    )
    cluster = LocalCluster(
        n_workers=2, threads_per_worker=1, processes=True, dashboard_address=":0"
    )
    with cluster, Client(cluster) as client:
        found = client.run(settings).values()
        assert len({pid for pid, _ in found} | {os.getpid()}) == 3
        # A worker uses one thread.
        assert [threads for _, threads in found] == [1, 1]
        expected = net(fa.sigmoid(x))
        assert_same(by_function.compute(), expected)
        assert_same(by_argument.compute(), expected)


def test_example_computes_more_than_a_worker_may_hold():
    done = subprocess.run(
        [sys.executable, "-W", "error", str(EXAMPLE)],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Pausing worker" not in done.stderr and "restart" not in done.stderr.lower()
    megabytes, limit = re.search(r"images, (\d+) MB; (\d+)MB for a worker", done.stdout).groups()
    most = re.search(r"(\d+) MB at most in one", done.stdout)[1]
    assert int(most) < int(limit) and int(megabytes) > 3 * int(limit)
    equal, all_of_them = re.search(
        r"labels equal to scikit-learn's: (\d+) of (\d+)", done.stdout
    ).groups()
    assert equal == all_of_them
    assert float(re.search(r"([\d.]+)% are recognised", done.stdout)[1]) > 80
