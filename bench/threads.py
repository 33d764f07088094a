"""Several threads: each library in a process of its own, on as many cores as threads.

Thread pools that spin while they wait spoil the times of others in the same process, so a process
that runs this module measures one library with one number of threads: ``python -m bench.threads
LIBRARY THREADS REPETITIONS``. It reads workloads as a line of JSON from stdin and answers with a
line when it is ready; for each further line it takes a part of the samples, and answers with a
line; at the end of stdin it writes rows as JSON. So the processes of one library take turns: how it
scales is not how a machine changes its speed.
"""

import contextlib
import dataclasses
import json
import math
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence

from . import machine
from .results import Cell, Results, Row, from_json, to_json
from .timing import ONE_THREAD
from .workloads import Workload

SECONDS = 0.7  # for one workload of one library, where calls take long

ROUNDS = 7
"""How often all workloads are gone through for a part of the samples, by turns. The host of a
virtual machine keeps a second core from running for a second now and then: in one row of six all
samples were hit with one round, in one of eight so many with three that the median was."""

SETTLE = 0.3
"""Seconds between the turns, in which idle threads cease to spin (0.2 for OpenMP's)."""

WARM_UP = 0.15
"""Seconds of calls before the first that is timed. A virtual machine gives a second core that was
idle its full time only after some 50 ms of work; until then two threads take as long as one."""


def counts(cores: int) -> list[int]:
    """1, 2, 4, ... and all `cores`."""
    powers = [1 << k for k in range(cores.bit_length()) if 1 << k <= cores]
    return sorted({*powers, cores})


def scaling(
    workloads: Sequence[Workload], library: str, threads: Sequence[int], repetitions: int
) -> list[Row]:
    """Measure one library.

    Parameters
    ----------
    workloads : sequence of Workload
    library : str
        Key of :data:`bench.peers.PEERS`.
    threads : sequence of int
        How many threads and cores it gets, one number after another.
    repetitions : int
        Samples of each time.

    Returns
    -------
    list of Row
        With the cell of one library alone; an "error" in each where the process failed.
    """
    asked = json.dumps([dataclasses.asdict(workload) for workload in workloads])
    rows: list[Row] = []
    with contextlib.ExitStack() as stack:
        processes = {
            count: stack.enter_context(_process(asked, library, count, repetitions))
            for count in threads
        }
        for _ in range(ROUNDS):
            for process in processes.values():
                process.take_turn()
                time.sleep(SETTLE)
        for count, process in processes.items():
            rows += process.rows(workloads, library, count)
    return rows


class _Process:
    """One of a library that waits for its turns."""

    def __init__(self, process: subprocess.Popen, errors) -> None:
        self._process, self._errors = process, errors

    def take_turn(self) -> None:
        with contextlib.suppress(BrokenPipeError):  # it has died, as `rows` finds out
            self._process.stdin.write("\n")
            self._process.stdin.flush()
            self._process.stdout.readline()

    def rows(self, workloads: Sequence[Workload], library: str, count: int) -> list[Row]:
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.close()
        said = self._process.stdout.read()
        status = self._process.wait()
        if status == 0:
            return from_json(said).rows
        self._errors.seek(0)
        reason = (self._errors.read().strip().splitlines() or ["no message"])[-1]
        cells = {library: Cell("error", f"exit status {status}: {reason}")}
        return [Row(workload, cells, threads=count, own_process=True) for workload in workloads]


@contextlib.contextmanager
def _process(asked: str, library: str, count: int, repetitions: int) -> Iterator[_Process]:
    """One that has made itself ready, so that nothing disturbs the others later."""
    environment = os.environ | {name: str(count) for name in ONE_THREAD if name != "XLA_FLAGS"}
    if count == 1:
        environment["XLA_FLAGS"] = " ".join(
            filter(None, [os.environ.get("XLA_FLAGS"), ONE_THREAD["XLA_FLAGS"]])
        )
    command = [sys.executable, "-m", __name__, library, str(count), str(repetitions)]
    with (
        tempfile.TemporaryFile("w+") as errors,
        subprocess.Popen(
            command, cwd=machine.ROOT, env=environment, text=True,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors,
        ) as process,
    ):  # fmt: skip
        try:
            with contextlib.suppress(BrokenPipeError):
                process.stdin.write(f"{asked}\n")
                process.stdin.flush()
                process.stdout.readline()
            yield _Process(process, errors)
        finally:
            process.kill()


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
    """Measure one library, as a process that :func:`scaling` starts."""
    library, threads, repetitions = arguments[0], int(arguments[1]), int(arguments[2])
    if hasattr(os, "sched_setaffinity"):  # before a library counts its cores
        os.sched_setaffinity(0, sorted(machine.cores())[:threads])
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # what libraries print is no answer

    import threadpoolctl

    from . import peers
    from .measure import Measurement
    from .problems import problem

    loaded, missing = peers.load([library], threads)
    if missing:
        sys.exit(missing[library])
    asked = [Workload(**w | {"shape": tuple(w["shape"])}) for w in json.loads(sys.stdin.readline())]
    measurements = []
    for workload in asked:
        # A thread of NumPy's BLAS would spin on a core of the library's, long after the
        # expected results are known: dense layers of two threads took as long as of one.
        with threadpoolctl.threadpool_limits(1):
            case = problem(workload)
        measurements.append(Measurement(case, loaded, with_ulp=False, with_bounds=False))
    answers.write("ready\n")
    for _ in sys.stdin:
        for measurement in measurements:
            measurement.collect(math.ceil(repetitions / ROUNDS), SECONDS / ROUNDS, WARM_UP)
        answers.write("done\n")
    rows = [
        dataclasses.replace(measurement.row(), threads=threads, own_process=True)
        for measurement in measurements
    ]
    answers.write(to_json(Results("", rows=rows)))
    answers.close()


if __name__ == "__main__":
    main(sys.argv[1:])
