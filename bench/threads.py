"""Measure several threads: each library in a separate process, on as many cores as threads.

Thread pools that spin while they wait distort the times of other libraries in the same process. So
a process that runs this module measures one library with one number of threads: ``python -m
bench.threads LIBRARY THREADS REPETITIONS``. It reads workloads as a line of JSON from stdin and
answers with a line when it is ready. For each further line it takes a part of the samples, and
answers with a line. At the end of stdin it writes rows as JSON. This lets all libraries and numbers
of threads take turns, so that a change in the machine's speed affects all of them.
"""

import contextlib
import dataclasses
import itertools
import json
import math
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence

from . import machine
from .results import Cell, Results, Row, from_json, to_json
from .timing import ONE_THREAD
from .workloads import Workload

SECONDS = 0.7  # limit for a workload of one library whose calls take long

ROUNDS = 7
"""The largest number of rounds. In a round each process takes a part of the samples of all
workloads. Now and then the host of a virtual machine keeps a second core from running for a second.
With one round that affected all samples in one row of six, with three it affected the median in one
row of eight."""

SETTLE = 0.3
"""Seconds between turns, in which idle threads stop spinning (OpenMP's after 0.2 s)."""

WARM_UP = 0.15
"""Seconds of calls before the first timed one. A virtual machine gives an idle second core its full
time only after about 50 ms of work; until then two threads take as long as one."""


def counts(cores: int) -> list[int]:
    """Return 1, 2, 4, ... and `cores`."""
    powers = [1 << k for k in range(cores.bit_length()) if 1 << k <= cores]
    return sorted({*powers, cores})


def rounds(repetitions: int) -> int:
    """Return the number of rounds, each with about three samples or more."""
    return min(ROUNDS, math.ceil(repetitions / 3))


def turns(libraries: Sequence[str], threads: Sequence[int], repetitions: int) -> int:
    """Return how often :func:`scaling` calls `say`."""
    return (1 + rounds(repetitions)) * len(libraries) * len(threads)


def scaling(
    workloads: Sequence[Workload],
    libraries: Sequence[str],
    threads: Sequence[int],
    repetitions: int,
    rows: list[Row],
    say: Callable[[str], None],
) -> None:
    """Measure libraries with several threads.

    Parameters
    ----------
    workloads : sequence of Workload
    libraries : sequence of str
        Keys of :data:`bench.peers.PEERS`.
    threads : sequence of int
        Numbers of threads to measure; each process gets as many cores.
    repetitions : int
        Samples of each time.
    rows : list of Row
        The measured rows are added to it, also after an interruption. A cell has the status "error"
        if the process of the library with that number of threads failed.
    say : callable
        Called before each step with its description.
    """
    asked = json.dumps([dataclasses.asdict(workload) for workload in workloads])
    processes: dict[tuple[str, int], _Process] = {}
    with contextlib.ExitStack() as stack:
        try:
            for library, count in itertools.product(libraries, threads):
                say(f"preparing {library}, {count} threads")
                process = _process(asked, library, count, repetitions)
                processes[library, count] = stack.enter_context(process)
            for number in range(1, rounds(repetitions) + 1):
                for (library, count), process in processes.items():
                    say(f"round {number}, {library}, {count} threads")
                    process.take_turn()
                    time.sleep(SETTLE)
        finally:
            for (library, count), process in processes.items():
                merge(rows, process.rows(workloads, library, count))


class _Process:
    """A process that measures one library and waits for its turns."""

    def __init__(self, process: subprocess.Popen, errors) -> None:
        self._process, self._errors = process, errors

    def take_turn(self) -> None:
        with contextlib.suppress(BrokenPipeError):  # it has died, which `rows` reports
            self._process.stdin.write("\n")
            self._process.stdin.flush()
            self._process.stdout.readline()

    def rows(self, workloads: Sequence[Workload], library: str, count: int) -> list[Row]:
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.close()
        said = self._process.stdout.read()
        status = self._process.wait()
        if status == 0:
            return from_json(said[said.index("{") :]).rows  # after an answer that was not read
        self._errors.seek(0)
        reason = (self._errors.read().strip().splitlines() or ["no message"])[-1]
        cells = {library: Cell("error", f"exit status {status}: {reason}")}
        return [Row(workload, cells, threads=count, own_process=True) for workload in workloads]


@contextlib.contextmanager
def _process(asked: str, library: str, count: int, repetitions: int) -> Iterator[_Process]:
    """Start a process and wait until it is ready, so that it does not disturb the others later."""
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
            start_new_session=True,  # only the parent gets Ctrl-C, and then asks for the rows
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
    """Add the cells of `others` to the `rows` of the same workload and number of threads."""
    found = {row.key: i for i, row in enumerate(rows)}
    for row in others:
        i = found.get(row.key)
        if i is None:
            rows.append(row)
        else:
            rows[i] = dataclasses.replace(rows[i], cells=rows[i].cells | row.cells)


def main(arguments: Sequence[str]) -> None:
    """Measure one library, in a process that :func:`scaling` started."""
    library, threads, repetitions = arguments[0], int(arguments[1]), int(arguments[2])
    if hasattr(os, "sched_setaffinity"):  # before a library counts its cores
        os.sched_setaffinity(0, sorted(machine.cores())[:threads])
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # libraries may print to stdout, which is for answers

    import numpy as np
    import threadpoolctl

    from . import peers
    from .measure import Measurement
    from .problems import problem

    loaded, missing = peers.load([library], threads)
    if missing:
        sys.exit(missing[library])
    asked = [Workload(**w | {"shape": tuple(w["shape"])}) for w in json.loads(sys.stdin.readline())]
    measurements, arrays = [], {}
    for workload in asked:
        # After computing the expected results, a second thread of NumPy's BLAS would go on
        # spinning on a core of the library: dense layers took as long with two threads as with one.
        with threadpoolctl.threadpool_limits(1):
            case = problem(workload)
        # All processes exist at the same time, so functions share their operands, which are equal:
        # 128 MB instead of 640 for 16,777,216 float32.
        inputs, out = arrays.setdefault(
            (workload.dtype, workload.shape, len(case.inputs)), (case.inputs, case.out)
        )
        if all(map(np.array_equal, inputs, case.inputs)):
            case = dataclasses.replace(case, inputs=inputs, out=out)
        measurements.append(Measurement(case, loaded, with_ulp=False, with_bounds=False))
    answers.write("ready\n")
    parts = rounds(repetitions)
    for _ in sys.stdin:
        for measurement in measurements:
            measurement.collect(math.ceil(repetitions / parts), SECONDS / parts, WARM_UP)
        answers.write("done\n")
    rows = [
        dataclasses.replace(measurement.row(), threads=threads, own_process=True)
        for measurement in measurements
    ]
    rows = [row for row in rows if row.cells]  # none if the run was interrupted before
    answers.write(to_json(Results("", rows=rows)))
    answers.close()


if __name__ == "__main__":
    main(sys.argv[1:])
