"""Compare the functions with those of other libraries on this machine: ``python -m bench``."""

import argparse
import importlib.util
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

import tqdm

from fastact._declare import ACTIVATIONS

from . import peers, report, timing

DTYPES = ["float32", "float64", "float16"]
FULL = {"libraries": list(peers.PEERS), "dtypes": DTYPES, "repetitions": 25}
QUICK = {"libraries": ["numpy", "scipy"], "dtypes": DTYPES[:2], "repetitions": 11}


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) == 0:
        raise argparse.ArgumentTypeError(f"not a positive integer: {text!r}")
    return int(text)


def _file(text: str) -> Path:
    """A path that can be written to, as far as can be seen before minutes of measuring."""
    path = Path(text)
    if path.is_dir() or not path.absolute().parent.is_dir():
        raise argparse.ArgumentTypeError(f"no place for a file: {text!r}")
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
    add("--quick", action="store_true", help="below a minute: NumPy and SciPy, no float16")
    add("--functions", nargs="+", choices=list(ACTIVATIONS), default=list(ACTIVATIONS))
    add("--dtypes", nargs="+", choices=DTYPES)
    add("--sizes", nargs="+", type=_positive, default=[1 << 12, 1 << 16, 1 << 20])
    add("--libraries", nargs="+", choices=list(peers.PEERS), help="default: all installed")
    add("--repetitions", type=_positive, help="samples of some 2 ms for each time")
    add("--json", type=_file, metavar="FILE", help="write everything measured to FILE")
    add("--markdown", type=_file, metavar="FILE", help="write the tables to FILE")
    add("--accuracy", action=argparse.BooleanOptionalAction, help="errors; needs gmpy2")
    options = parser.parse_args(arguments)
    for name, value in (QUICK if options.quick else FULL).items():
        if getattr(options, name) is None:
            setattr(options, name, value)
    has_reference = importlib.util.find_spec("gmpy2") is not None
    if options.accuracy is None:
        options.accuracy = has_reference
    elif options.accuracy and not has_reference:
        parser.error("--accuracy needs gmpy2, which is not installed")
    return options


def run(options: argparse.Namespace, results: report.Results) -> None:
    """Measure, and add to `results` what is finished.

    Parameters
    ----------
    options : argparse.Namespace
        From :func:`parse`.
    results : Results
        Where to put libraries and rows, one by one, so that an interruption keeps them.
    """
    names = dict.fromkeys([peers.OURS, *options.libraries])
    libraries, results.missing = peers.load(list(names))
    results.versions = {name: library.version for name, library in libraries.items()}
    for name, reason in results.missing.items():
        print(f"{name} is missing: {reason}", file=sys.stderr)
    total = len(options.functions) * len(options.dtypes) * len(options.sizes)
    with tqdm.tqdm(total=total, unit="row") as progress:
        for function in options.functions:
            for dtype in options.dtypes:
                largest = timing.problem(ACTIVATIONS[function], dtype, max(options.sizes))
                for size in options.sizes:
                    progress.set_description(f"{function} {dtype} {size}")
                    cells = timing.measure(
                        largest.head(size), libraries, options.repetitions, options.accuracy
                    )
                    results.rows.append(timing.Row(function, dtype, size, cells))
                    progress.update()
    results.incomplete = False


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line.

    Parameters
    ----------
    arguments : sequence of str, optional
        Those of the process by default.

    Returns
    -------
    int
        Exit status: 0, 1 where a result was wrong, 130 where interrupted.
    """
    arguments = sys.argv[1:] if arguments is None else arguments
    options = parse(arguments)
    command = shlex.join(["python", "-m", "bench", *arguments])
    results = report.Results(command, options.repetitions)
    with timing.one_thread() as results.core:
        try:
            run(options, results)
        except KeyboardInterrupt:
            print("interrupted: what follows is what was finished", file=sys.stderr)
    print("\n\n".join(report.sections(results, "simple")))
    if options.json:
        options.json.write_text(report.to_json(results))
    if options.markdown:
        options.markdown.write_text(report.markdown(results))
    for failure in results.failures():
        print(failure, file=sys.stderr)
    return 130 if results.incomplete else 1 if results.failures() else 0


if __name__ == "__main__":
    sys.exit(main())
