"""Compare with other libraries on this machine, and write a report: ``python -m bench``."""

import argparse
import importlib.util
import shlex
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import tqdm

from . import machine, measure, peers, report, tables, threads, timing, workloads
from .problems import problem
from .results import Results

FULL = {
    "libraries": list(peers.PEERS),
    "dtypes": list(workloads.DTYPES),
    "sizes": None,  # float32 has more sizes than the other dtypes
    "other_sizes": None,
    "shapes": workloads.SHAPES,
    "shared_sizes": workloads.SHARED_SIZES,
    "shared_shapes": workloads.SHARED_SHAPES,
    "repetitions": 25,
    "output": Path("build/bench/full"),
}
QUICK = {
    "libraries": [*peers.OWN, "numpy", "scipy"],
    "dtypes": ["float32", "float64"],
    "sizes": [256, *workloads.MIDDLE],
    "other_sizes": [workloads.TYPICAL],  # of functions that are not measured in full
    "shapes": [(1, 784, 128), (256, 784, 128), (65536, 10, 32), (512, 512, 512)],
    "shared_sizes": [1 << 20],
    "shared_shapes": [(512, 512, 512)],
    "repetitions": 9,
    "output": Path("build/bench/quick"),
}


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) == 0:
        raise argparse.ArgumentTypeError(f"expected a positive integer, got {text!r}")
    return int(text)


def _shape(text: str) -> tuple[int, ...]:
    parts = text.split("x")
    if len(parts) != 3:
        raise argparse.ArgumentTypeError(f"expected MxKxN, for example 1x784x128, got {text!r}")
    return tuple(map(_positive, parts))


def _directory(text: str) -> Path:
    """The path of a folder, rejected now rather than after minutes if a file is in its place."""
    path = Path(text)
    existing = next(p for p in (path, *path.absolute().parents) if p.exists())
    if not existing.is_dir():
        raise argparse.ArgumentTypeError(f"expected a folder, or a path for one, got {text!r}")
    return path


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    """Read the command line.

    Parameters
    ----------
    arguments : sequence of str
        Without the program's name.

    Returns
    -------
    argparse.Namespace
        Every option with a value.
    """
    parser = argparse.ArgumentParser("python -m bench", description=__doc__.partition(":")[0])
    add = parser.add_argument
    add("--quick", action="store_true",
        help="two minutes: NumPy and SciPy only, fewer workloads")  # fmt: skip
    add("--parts", nargs="+", choices=workloads.PARTS)
    add("--functions", nargs="+", choices=workloads.functions(), default=workloads.functions())
    add("--dtypes", nargs="+", choices=workloads.DTYPES)
    add("--sizes", nargs="+", type=_positive, help="numbers of elements of arrays")
    add("--shapes", nargs="+", type=_shape, metavar="MxKxN", help="shapes of dense layers")
    add("--libraries", nargs="+", choices=peers.others(),
        help="libraries to compare with (default: all that are installed)")  # fmt: skip
    add("--threads", nargs="+", type=_positive, default=threads.counts(len(machine.cores())),
        help="numbers of threads for the part 'threads' (default: %(default)s)")  # fmt: skip
    add("--core", type=int, choices=sorted(machine.cores()),
        help="core for the workloads with one thread (default: the last)")  # fmt: skip
    add("--repetitions", type=_positive, help="samples of about 2 ms for each time")
    add("--output", type=_directory, metavar="DIRECTORY", help="folder of the report")
    add("--accuracy", action=argparse.BooleanOptionalAction, help="measure errors; needs gmpy2")
    options = parser.parse_args(arguments)
    if options.libraries:
        options.libraries = [*peers.OWN, *options.libraries]
    options.shared_sizes, options.shared_shapes = options.sizes, options.shapes
    options.other_sizes = options.sizes
    for name, value in (QUICK if options.quick else FULL).items():
        if getattr(options, name) is None:
            setattr(options, name, value)
    has_reference = importlib.util.find_spec("gmpy2") is not None
    if options.accuracy is None:
        options.accuracy = has_reference
    elif options.accuracy and not has_reference:
        parser.error("--accuracy needs gmpy2, which is not installed")
    alone = machine.CPUID in machine.limits()  # other processes would see the whole processor
    if options.parts is None:
        options.parts = [part for part in workloads.PARTS if part != "threads" or not alone]
    elif alone and "threads" in options.parts:
        parser.error("--parts threads starts processes, from which nothing is hidden")
    return options


def chosen(options: argparse.Namespace) -> list[workloads.Workload]:
    """The single-threaded workloads that the options ask for."""
    functions, dtypes = options.functions, options.dtypes
    makers: dict[str, Callable[[], list[workloads.Workload]]] = {
        "sizes": lambda: workloads.sizes(functions, dtypes, options.sizes, options.other_sizes),
        "layouts": lambda: workloads.layouts(functions, dtypes, workloads.TYPICAL),
        "scalars": lambda: workloads.scalars(functions, dtypes),
        "rows": lambda: workloads.rows(functions, dtypes, workloads.ROW_SHAPES),
        "dense": lambda: workloads.dense(functions, dtypes, options.shapes),
    }
    return [w for part, make in makers.items() if part in options.parts for w in make()]


def run(options: argparse.Namespace, results: Results) -> None:
    """Measure, and add each finished result to `results`.

    Parameters
    ----------
    options : argparse.Namespace
        From :func:`parse`.
    results : Results
        Libraries and rows are added one by one, so that an interruption keeps them.
    """
    alone = chosen(options)
    shared = workloads.threads(options.functions, options.shared_sizes, options.shared_shapes)
    counts = options.threads if "threads" in options.parts and shared else []
    with tqdm.tqdm(total=len(alone), unit="step") as progress:
        with timing.one_thread(options.core) as results.pinned_core:
            libraries, results.missing = peers.load(options.libraries)
            results.versions = {name: library.version for name, library in libraries.items()}
            for name, reason in results.missing.items():
                progress.write(f"{name} is missing: {reason}", file=sys.stderr)
            progress.total += threads.turns([*libraries], counts, options.repetitions)
            for workload in alone:
                progress.set_description(workload.name)
                case = problem(workload)
                results.rows.append(
                    measure.measure(case, libraries, options.repetitions, options.accuracy)
                )
                progress.update()

        def say(what: str) -> None:
            progress.set_description(what)
            progress.update()

        if counts:  # outside the block that restricts the process to one core
            repetitions = options.repetitions
            threads.scaling(shared, [*libraries], counts, repetitions, results.scaling, say)
    results.incomplete = False


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line.

    Parameters
    ----------
    arguments : sequence of str, optional
        By default the arguments of the process.

    Returns
    -------
    int
        Exit status: 0, or 1 if a result was wrong, or 130 if the run was interrupted.
    """
    arguments = sys.argv[1:] if arguments is None else arguments
    options = parse(arguments)
    results = Results(shlex.join(["python", "-m", "bench", *arguments]), machine.describe())
    try:
        run(options, results)
    except KeyboardInterrupt:
        print("interrupted: the report has only what was finished", file=sys.stderr)
    for title, table, told in tables.sections(results, "simple"):
        print(f"{title}\n\n{table}\n\n{told}\n")
    report.write(results, options.output)
    print(f"Report: {options.output / 'report.md'}")
    for failure in results.failures():
        print(failure, file=sys.stderr)
    return 130 if results.incomplete else 1 if results.failures() else 0


if __name__ == "__main__":
    sys.exit(main())
