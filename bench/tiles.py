"""Compare register tiles of different sizes, and the blocks around them, for the lab book.

    python -m bench.tiles --tiles 8x3 6x4 8x2 14x2
    python -m bench.tiles --problem 1024x1024x1024 --set LARGE_BLOCK=524288 --set K_BLOCK=256

The first form computes everything with one size of tile, on operands that stay in the first levels
of the cache. The second form computes a whole problem, once with the constants of
``fastact/_compiler/gemm/loops.py`` unchanged and once with each change. Both print median GFLOP/s
on one core.
"""

import argparse
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from unittest import mock

import numpy as np
from tabulate import tabulate

from fastact._compiler import host
from fastact._compiler.gemm import loops
from fastact._dense import weights
from fastact._loading import cache, loader
from fastact._machine.targets import Target

from . import timing

TILES = 32  # in a call, so that the cost of the call itself is negligible


@dataclass(frozen=True)
class OneTile(Target):
    """This machine with tiles of one size, and of one row for fewer vectors."""

    size: tuple[int, int] = (1, 1)

    @property
    def tiles(self) -> dict[int, int]:
        rows, vectors = self.size
        return dict.fromkeys(range(1, vectors), 1) | {vectors: rows}


def one_tile(size: tuple[int, int]) -> OneTile:
    host = loader.host()
    fields = {name: getattr(host, name) for name in Target.__dataclass_fields__}
    return OneTile(**fields, size=size)


@contextmanager
def compiled_apart(target: Target, constants: dict[str, int]) -> Iterator[None]:
    """Compile loops for `target` with `constants`, and do not keep them for other callers."""
    weights._kernels.cache_clear()
    with ExitStack() as changes:
        changes.enter_context(mock.patch.dict(vars(loops), constants))
        for module in (loader, host):
            changes.enter_context(mock.patch.object(module, "host", lambda: target))
        # The cache knows neither the constants nor the tiles of a target.
        changes.enter_context(mock.patch.object(cache, "object_code", _built))
        yield
    weights._kernels.cache_clear()


def _built(build: Callable[[], bytes], **_: object) -> bytes:
    return build()


def layer(shape: tuple[int, int, int], dtype: str, target: Target, constants: dict[str, int]):
    """Return a call of a layer of `shape` (M, K, N) without activation."""
    rows, depth, columns = shape
    random = np.random.default_rng(0)
    x = random.standard_normal((rows, depth)).astype(dtype)
    w = random.standard_normal((depth, columns)).astype(dtype)
    out = np.zeros((rows, columns), dtype)
    with compiled_apart(target, constants):
        packed = weights.Weights(w, None, None)
    return lambda: packed.call(x, out)


def race(calls: dict, shapes: dict[str, tuple[int, int, int]], repetitions: int) -> dict:
    """Return the median GFLOP/s of each call; the calls are interleaved."""
    counts = {name: timing.calls_per_sample(call) for name, call in calls.items()}
    samples = timing.interleaved(calls, counts, repetitions)
    return {name: 2 * np.prod(shapes[name]) / np.median(s) for name, s in samples.items()}


def pair(text: str) -> tuple[int, int]:
    rows, vectors = map(int, text.split("x"))
    return rows, vectors


def main(arguments: list[str] | None = None) -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(prog="python -m bench.tiles", description=__doc__)
    parser.add_argument("--tiles", nargs="+", type=pair, default=[], metavar="ROWSxVECTORS",
                        help="sizes of tiles")  # fmt: skip
    parser.add_argument("--depths", nargs="+", type=int, default=[64, 256, 784],
                        help="values of K, for --tiles")  # fmt: skip
    parser.add_argument("--problem", metavar="MxKxN", help="shape of a whole problem")
    parser.add_argument("--set", action="append", default=[], metavar="CONSTANT=VALUE",
                        help="changed constants, separated by commas, for --problem")  # fmt: skip
    parser.add_argument("--dtype", choices=["float32", "float64"], default="float32")
    parser.add_argument("--repetitions", type=int, default=41, help="samples of each call")
    options = parser.parse_args(arguments)
    lines, calls, shapes = [], {}, {}
    with timing.one_thread():
        if options.problem:
            shape = tuple(map(int, options.problem.split("x")))
            for setting in ["", *options.set]:
                constants = {k: int(v) for k, v in (s.split("=") for s in setting.split(",") if s)}
                calls[setting or "as it is"] = layer(shape, options.dtype, loader.host(), constants)
            shapes = dict.fromkeys(calls, shape)
            speeds = race(calls, shapes, options.repetitions)
            print(tabulate(speeds.items(), [options.problem, "GFLOP/s"], "github", floatfmt=".0f"))
        else:
            lanes = loader.host().vector_bits // (8 * np.dtype(options.dtype).itemsize)
            for rows, vectors in options.tiles:
                for depth in options.depths:
                    name = rows, vectors, depth
                    shapes[name] = (TILES * rows, depth, vectors * lanes)
                    calls[name] = layer(shapes[name], options.dtype, one_tile((rows, vectors)), {})
            speeds = race(calls, shapes, options.repetitions)
            for rows, vectors in options.tiles:
                lines.append(
                    (f"{rows} x {vectors}", *(speeds[rows, vectors, d] for d in options.depths))
                )
            headers = ["rows x vectors", *(f"K = {depth}" for depth in options.depths)]
            print(tabulate(lines, headers, "github", floatfmt=".0f"))


if __name__ == "__main__":
    main()
