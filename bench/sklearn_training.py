"""Time scikit-learn's networks before and after patching: ``python -m bench.sklearn_training``

They train on the handwritten digits (1,797 images of 64 pixels) and predict them, with one thread
on one core. The two versions take turns, so that a slow moment of the machine affects both.
"""

import argparse
import contextlib
import functools
import statistics
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from tabulate import tabulate
from tqdm import tqdm

from . import timing

HEADERS = ["estimator", "dtype", "", "before, ms", "after, ms", "before / after"]

PREDICTIONS = 10  # per sample, since one prediction is short

Case = tuple[str, str, Callable[[], Any], Callable[[Any], Any]]


def cases(passes: int) -> Iterator[Case]:
    """Yield a name, a dtype, a call that trains, and a function of its result that predicts."""
    from sklearn.datasets import load_digits
    from sklearn.neural_network import BernoulliRBM, MLPClassifier

    pixels, digits = load_digits(return_X_y=True)
    options = {"max_iter": passes, "random_state": 0}
    for dtype in ("float32", "float64"):
        X = (pixels / 16).astype(dtype)
        for activation in ("logistic", "tanh", "relu"):
            for widths in ((100,), (256, 256)):
                mlp = MLPClassifier(widths, activation=activation, **options)
                name = f"MLPClassifier, {activation}, {' + '.join(map(str, widths))}"
                yield (
                    name,
                    dtype,
                    lambda mlp=mlp, X=X: mlp.fit(X, digits),
                    lambda fitted, X=X: fitted.predict_proba(X),
                )
        rbm = BernoulliRBM(256, n_iter=passes, batch_size=100, random_state=0)
        yield (
            "BernoulliRBM, 256",
            dtype,
            lambda rbm=rbm, X=X: rbm.fit(X),
            lambda fitted, X=X: fitted.transform(X),
        )


def seconds(call: Callable[[], Any], times: int) -> float:
    """Return the seconds per call, over `times` calls."""
    start = time.perf_counter()
    for _ in range(times):
        call()
    return (time.perf_counter() - start) / times


def measure(passes: int, repetitions: int) -> list[list[Any]]:
    """Return rows for the table; each time is the median of `repetitions`."""
    rows = []
    for name, dtype, train, predict in tqdm(list(cases(passes)), unit="case", disable=None):
        predicting = functools.partial(predict, train())
        for kind, call, times in (("training", train, 1), ("prediction", predicting, PREDICTIONS)):
            before, after = in_turns(call, times, repetitions)
            ratio = statistics.median(b / a for b, a in zip(before, after, strict=True))
            medians = (1e3 * statistics.median(samples) for samples in (before, after))
            rows.append([name, dtype, kind, *medians, ratio])
    return rows


def in_turns(
    call: Callable[[], Any], times: int, repetitions: int
) -> tuple[list[float], list[float]]:
    """Return samples without and with our functions, which take turns."""
    import fastact.sklearn

    samples: tuple[list[float], list[float]] = [], []
    for turn in range(repetitions + 1):
        for patched, kept in enumerate(samples):
            with fastact.sklearn.patched() if patched else contextlib.nullcontext():
                taken = seconds(call, times)
            if turn:  # the first turn is a warm-up
                kept.append(taken)
    return samples


def main(arguments: list[str] | None = None) -> None:
    """Measure, and print the table."""
    parser = argparse.ArgumentParser("python -m bench.sklearn_training", description=__doc__)
    parser.add_argument("--passes", type=int, default=4, help="passes over the digits per training")
    parser.add_argument(
        "--repetitions", type=int, default=9, help="samples for each time, which is their median"
    )
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="also write the table here")
    options = parser.parse_args(arguments)
    for name in ("passes", "repetitions"):
        if getattr(options, name) < 1:
            parser.error(f"--{name} must be positive, got {getattr(options, name)}")
    with timing.one_thread(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # training does not converge in so few passes
        import sklearn  # here, so that the libraries that it loads use one thread

        rows = measure(options.passes, options.repetitions)
    versions = f"scikit-learn {sklearn.__version__}, numpy {np.__version__}"
    floats = ("", "", "", ".2f", ".2f", ".2f")
    print(tabulate(rows, HEADERS, "simple", floatfmt=floats), versions, sep="\n\n")
    if options.markdown:
        table = tabulate(rows, HEADERS, "github", floatfmt=floats)
        text = f"# scikit-learn's networks before and after patching\n\n{table}\n\n{versions}\n"
        options.markdown.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
