"""Several threads: each library in a process of its own, on as many cores as threads.

Thread pools that spin while they wait spoil the times of others in the same process, so the
process that runs this module measures one library with one number of threads:
``python -m bench.threads LIBRARY THREADS REPETITIONS``, workloads as JSON on stdin, rows as
JSON on stdout.
"""

import dataclasses
import json
import math
import os
import subprocess
import sys
from collections.abc import Sequence

from . import machine
from .results import Cell, Results, Row, from_json, to_json
from .timing import ONE_THREAD
from .workloads import Workload

SECONDS = 0.7  # for one workload of one library, where calls take long

ROUNDS = 3
"""How often all workloads are gone through for a part of the samples. The host of a virtual machine
may keep a second core from running for a second, which took all samples of one row in six."""

WARM_UP = 0.15
"""Seconds of calls before the first that is timed. A virtual machine gives a second core that was
idle its full time only after some 50 ms of work; until then two threads take as long as one."""


def counts(cores: int) -> list[int]:
    """1, 2, 4, ... and all `cores`."""
    powers = [1 << k for k in range(cores.bit_length()) if 1 << k <= cores]
    return sorted({*powers, cores})


def scaling(
    workloads: Sequence[Workload], library: str, threads: int, repetitions: int
) -> list[Row]:
    """Measure one library.

    Parameters
    ----------
    workloads : sequence of Workload
    library : str
        Key of :data:`bench.peers.PEERS`.
    threads : int
        How many threads and cores it gets.
    repetitions : int
        Samples of each time.

    Returns
    -------
    list of Row
        With the cell of one library alone; an "error" in each where the process failed.
    """
    asked = json.dumps([dataclasses.asdict(workload) for workload in workloads])
    environment = os.environ | {name: str(threads) for name in ONE_THREAD if name != "XLA_FLAGS"}
    if threads == 1:
        environment["XLA_FLAGS"] = " ".join(
            filter(None, [os.environ.get("XLA_FLAGS"), ONE_THREAD["XLA_FLAGS"]])
        )
    command = [sys.executable, "-m", __name__, library, str(threads), str(repetitions)]
    done = subprocess.run(
        command, cwd=machine.ROOT, env=environment, input=asked, capture_output=True, text=True
    )
    if done.returncode == 0:
        return from_json(done.stdout).rows
    reason = (done.stderr.strip().splitlines() or ["no message"])[-1]
    cells = {library: Cell("error", f"exit status {done.returncode}: {reason}")}
    return [Row(workload, cells, threads=threads, own_process=True) for workload in workloads]


def merge(rows: list[Row], others: Sequence[Row]) -> None:
    """Put the cells of `others` into the `rows` of the same workload and threads."""
    found = {row.key: i for i, row in enumerate(rows)}
    for row in others:
        i = found.get(row.key)
        if i is None:
            rows.append(row)
        else:
            rows[i] = dataclasses.replace(rows[i], cells=rows[i].cells | row.cells)


def main(arguments: Sequence[str]) -> None:
    """Measure one library, as the process that :func:`scaling` starts."""
    library, threads, repetitions = arguments[0], int(arguments[1]), int(arguments[2])
    if hasattr(os, "sched_setaffinity"):  # before a library counts its cores
        os.sched_setaffinity(0, sorted(machine.cores())[:threads])

    import threadpoolctl

    from . import peers
    from .measure import Measurement
    from .problems import problem

    loaded, missing = peers.load([library], threads)
    if missing:
        sys.exit(missing[library])
    asked = [Workload(**w | {"shape": tuple(w["shape"])}) for w in json.load(sys.stdin)]
    measurements = []
    for workload in asked:
        # A thread of NumPy's BLAS would spin on a core of the library's, long after the
        # expected results are known: dense layers of two threads took as long as of one.
        with threadpoolctl.threadpool_limits(1):
            case = problem(workload)
        measurements.append(Measurement(case, loaded, with_ulp=False, with_bounds=False))
    for _ in range(ROUNDS):
        for measurement in measurements:
            measurement.collect(math.ceil(repetitions / ROUNDS), SECONDS / ROUNDS, WARM_UP)
    rows = [
        dataclasses.replace(measurement.row(), threads=threads, own_process=True)
        for measurement in measurements
    ]
    sys.stdout.write(to_json(Results("", rows=rows)))


if __name__ == "__main__":
    main(sys.argv[1:])
