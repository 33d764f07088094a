"""Errors and times of Keras' activations before and after patching: ``python -m bench.keras``

Keras computes with its NumPy backend. Errors are those of float32, in ulp: for a million inputs
with all exponents, or for rows of 100 normal numbers. The references are the declared formulas in
float64. Times are those of float32, with one thread on one core, where the two versions take turns.
"""

import argparse
import functools
import os
import statistics
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from tabulate import tabulate
from tqdm import tqdm

from fastact._declarations.records import ACTIVATIONS, ROW_ACTIVATIONS, RowActivation

from . import accuracy, timing

HEADERS = [
    "function",
    "before, ulp",
    "at",
    "after, ulp",
    "wrong before",
    "before, ns",
    "after, ns",
    "before / after",
]
APPROXIMATE = {"gelu": {"approximate": False}, "gelu_tanh": {"approximate": True}}
SPREAD = 4.0  # standard deviation of the inputs that are timed, and of those in rows
ROW = 100


class Case:
    """An activation as Keras computes it.

    Attributes
    ----------
    name : str
        The call in ``keras.activations``.
    call : callable
    declared : Activation or RowActivation
    """

    def __init__(self, name: str, declared: Any) -> None:
        import keras

        arguments = APPROXIMATE.get(name, {})
        own = getattr(keras.activations, declared.keras_functions[0].public)
        text = ", ".join(f"{argument}={value}" for argument, value in arguments.items())
        self.name = f"{own.__name__}({text})" if text else own.__name__
        self.call = functools.partial(own, **arguments)
        self.declared = declared
        self._parameters = declared.keras_functions[0].operands(**arguments)

    @property
    def of_rows(self) -> bool:
        """Whether the result depends on a row of inputs."""
        return isinstance(self.declared, RowActivation)

    @property
    def of_halves(self) -> bool:
        """Whether the inputs are halves of an array."""
        return not self.of_rows and self.declared.nin - len(self._parameters) == 2

    def errors(self, count: int) -> accuracy.Report:
        """The report for `count` inputs."""
        rng = np.random.default_rng(0)
        if self.of_rows:
            x = rng.normal(0, SPREAD, (count // ROW, ROW)).astype(np.float32)
            reference = self.declared.reference(np, x.astype(np.float64))
            return accuracy.narrow_report(
                lambda _: self.call(x).ravel(), lambda *_: reference.ravel(), x.ravel(), "float32"
            )
        if self.of_halves:
            operands = accuracy.operands(self.declared, np.dtype(np.float32), count, 0)
            return accuracy.narrow_report(
                lambda *halves: self.call(np.concatenate(halves)),
                self.declared.reference,
                operands,
                "float32",
            )
        step = (1 << 32) // count | 1
        x = np.arange(0, 1 << 32, step, np.uint32).view(np.float32)
        rounded = [float(np.float32(parameter)) for parameter in self._parameters]
        return accuracy.narrow_report(
            self.call,
            lambda m, x: self.declared.reference(m, x, *rounded),
            x[np.isfinite(x)],
            "float32",
        )

    def wrong(self) -> list[float]:
        """The infinite inputs with results other than declared."""
        if self.of_rows or self.of_halves or self._parameters:
            return []
        return [
            x
            for x, exact in self.declared.specials
            if np.isinf(x)
            and not np.array_equal(self.call(np.float32(x)), np.float32(exact), equal_nan=True)
        ]

    def argument(self, size: int) -> np.ndarray:
        """An array to time."""
        x = np.random.default_rng(0).normal(0, SPREAD, size).astype(np.float32)
        return x[: size // ROW * ROW].reshape(-1, ROW) if self.of_rows else x


def cases() -> Iterator[Case]:
    """Every activation that the patch replaces."""
    for name, declared in (ACTIVATIONS | ROW_ACTIVATIONS).items():
        if declared.keras_functions:
            yield Case(name, declared)


def measure(count: int, size: int, repetitions: int) -> list[list[Any]]:
    """Return rows for the table."""
    import fastact.keras

    def after(function: Callable[..., Any], *arguments: Any) -> Any:
        with fastact.keras.patched():
            return function(*arguments)

    rows = []
    for case in tqdm(list(cases()), unit="function", disable=None):
        with warnings.catch_warnings(), np.errstate(all="ignore"):
            warnings.simplefilter("ignore")
            errors, wrong = case.errors(count), case.wrong()
        ours = after(case.errors, count)
        x = case.argument(size)
        times = in_turns(functools.partial(case.call, x), repetitions)
        medians = [statistics.median(samples) / x.size for samples in times]
        ratio = statistics.median(b / a for b, a in zip(*times, strict=True))
        worst = "" if case.of_rows else ", ".join(f"{value:.7g}" for value in errors.worst)
        specials = ", ".join(f"{value:g}" for value in wrong)
        rows.append([case.name, errors.ulp, worst, ours.ulp, specials, *medians, ratio])
    return rows


def in_turns(call: Callable[[], Any], repetitions: int) -> tuple[list[float], list[float]]:
    """Return samples without and with our functions, in nanoseconds per call."""
    import fastact.keras

    count = timing.calls_per_sample(call)
    samples: tuple[list[float], list[float]] = [], []
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        for _ in range(repetitions):
            samples[0].append(timing.sample(call, count))
            with fastact.keras.patched():
                samples[1].append(timing.sample(call, count))
    return samples


def main(arguments: list[str] | None = None) -> None:
    """Measure, and print the table."""
    os.environ["KERAS_BACKEND"] = "numpy"
    parser = argparse.ArgumentParser("python -m bench.keras", description=__doc__)
    parser.add_argument("--inputs", type=int, default=1_000_000, help="for the errors")
    parser.add_argument("--size", type=int, default=65_536, help="elements of the arrays to time")
    parser.add_argument("--repetitions", type=int, default=25, help="samples for each time")
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="also write the table here")
    options = parser.parse_args(arguments)
    for name in ("inputs", "size", "repetitions"):
        least = 1 if name == "repetitions" else ROW
        if getattr(options, name) < least:
            parser.error(f"--{name} must be at least {least}, got {getattr(options, name)}")
    with timing.one_thread():
        import keras

        rows = measure(options.inputs, options.size, options.repetitions)
    versions = f"Keras {keras.__version__}, numpy {np.__version__}"
    floats = ("", ".3g", "", ".2f", "", ".3g", ".3g", ".3g")
    print(tabulate(rows, HEADERS, "simple", floatfmt=floats), versions, sep="\n\n")
    if options.markdown:
        table = tabulate(rows, HEADERS, "github", floatfmt=floats)
        text = f"# Keras' activations before and after patching\n\n{table}\n\n{versions}\n"
        options.markdown.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
