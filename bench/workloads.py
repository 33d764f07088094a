"""The list of all workloads, for the command, the test suite and asv.

A workload is a function, a dtype, a shape and a layout. Every library that has the function
computes it. The functions are those that the package declares.
"""

import itertools
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from fastact._declarations.records import ACTIVATIONS, along_rows

from .peers.base import ARRAY_LAYOUTS, ROWS, SCALAR_LAYOUTS
from .peers.ours import DENSE

DTYPES = ("float32", "float64", "float16")
SIZES = tuple(16**k for k in range(7))  # one element to 16,777,216, far beyond the caches
MIDDLE = SIZES[3:6]  # neither the cost of a call nor the memory dominates
TYPICAL = 65_536  # elements for the layouts, the bar chart and the table in docs/benchmarks.md
SHAPES = (
    (1, 784, 128),
    (32, 784, 128),
    (256, 784, 128),
    (4096, 64, 64),
    (65536, 10, 32),
    (16384, 128, 8),
    (512, 512, 512),
    (1024, 1024, 1024),
    (8, 4096, 4096),
    (1, 4096, 4096),
    (1000, 300, 37),
    (7, 13, 5),
)
"""M, K and N of dense layers: M rows of K inputs to N outputs."""

ROW_SHAPES = ((1, 10), (65536, 10), (4096, 128), (256, 4096))
"""Numbers of rows, and of elements per row, for functions of rows."""

SHARED_SIZES = (1 << 18, 1 << 20, 1 << 24)
SHARED_SHAPES = ((512, 512, 512), (4096, 64, 64))
"""Sizes of arrays, and M, K and N of dense layers, for several threads."""

PARTS = ("sizes", "layouts", "scalars", "rows", "dense", "threads")
"""Groups of workloads, in the order of a run."""


@dataclass(frozen=True)
class Workload:
    """One thing to compute, the same for every library.

    Attributes
    ----------
    function : str
        Name of an activation.
    dtype : str
    shape : tuple of int
        Shape of the arrays, empty for scalars; M, K, N for a dense layer.
    layout : str
        One of ARRAY_LAYOUTS or SCALAR_LAYOUTS, or ROWS.
    dense : bool
        Whether it is a dense layer, with the function as its activation.
    """

    function: str
    dtype: str
    shape: tuple[int, ...]
    layout: str = "contiguous"
    dense: bool = False

    @property
    def size(self) -> int:
        """How many elements the result has."""
        return math.prod(self.shape[::2] if self.dense else self.shape)

    @property
    def name(self) -> str:
        parts = ["dense"] * self.dense + [self.function, self.dtype]
        if self.layout != "contiguous":
            parts.append(self.layout.replace(" ", "_"))
        return "-".join([*parts, "x".join(map(str, self.shape)) or "1"])


def functions() -> list[str]:
    """The names of all functions that the package declares."""
    return [*ACTIVATIONS, *along_rows()]


def _elementwise(functions: Iterable[str]) -> list[str]:
    return [name for name in functions if name in ACTIVATIONS]


def _in_full(functions: Iterable[str]) -> list[str]:
    return [name for name in _elementwise(functions) if ACTIVATIONS[name].measured_in_full]


def sizes(
    functions: Iterable[str],
    dtypes: Iterable[str],
    chosen: Sequence[int] | None = None,
    others: Sequence[int] | None = None,
) -> list[Workload]:
    """Contiguous arrays: all sizes for float32, the middle ones for the other dtypes.

    Functions that are not measured in full have the middle ones alone.

    Parameters
    ----------
    functions, dtypes : iterable of str
    chosen : sequence of int, optional
        Numbers of elements instead of these.
    others : sequence of int, optional
        Numbers of elements for functions that are not measured in full; `chosen` by default.
    """
    whole = _in_full(functions := list(functions))

    def of(function: str, dtype: str) -> Sequence[int]:
        if function not in whole:
            return others or chosen or MIDDLE
        return chosen or (SIZES if dtype == "float32" else MIDDLE)

    return [
        Workload(function, dtype, (size,))
        for function, dtype in itertools.product(_elementwise(functions), dtypes)
        for size in of(function, dtype)
    ]


def layouts(functions: Iterable[str], dtypes: Iterable[str], size: int) -> list[Workload]:
    """Arrays in the other layouts; transposed ones are square matrices."""
    side = max(round(size**0.5), 1)
    return [
        Workload(function, dtype, (side, side) if layout == "transposed" else (size,), layout)
        for function, dtype in itertools.product(_in_full(functions), dtypes)
        for layout in ARRAY_LAYOUTS[1:]
    ]


def scalars(functions: Iterable[str], dtypes: Iterable[str]) -> list[Workload]:
    """Scalars, which show the cost of a call; without float16, which SciPy widens here."""
    return [
        Workload(function, dtype, (), layout)
        for function, dtype in itertools.product(_in_full(functions), dtypes)
        for layout in SCALAR_LAYOUTS
        if dtype == "float64" or (dtype, layout) == ("float32", "NumPy scalar")
    ]


def rows(
    functions: Iterable[str], dtypes: Iterable[str], shapes: Iterable[tuple[int, int]]
) -> list[Workload]:
    """Matrices for functions of rows."""
    functions = [name for name in functions if name in along_rows()]
    return [Workload(*case, ROWS) for case in itertools.product(functions, dtypes, shapes)]


def dense(
    functions: Iterable[str], dtypes: Iterable[str], shapes: Iterable[tuple[int, int, int]]
) -> list[Workload]:
    """Dense layers with the activations in ``DENSE``, without float16, which BLAS lacks."""
    return [
        Workload(function, dtype, shape, dense=True)
        for function in functions
        if function in DENSE
        for dtype in dtypes
        if dtype != "float16"
        for shape in shapes
    ]


def threads(
    functions: Iterable[str], sizes_: Sequence[int], shapes: Iterable[tuple[int, int, int]]
) -> list[Workload]:
    """Arrays and layers of float32 for several threads."""
    functions = [name for name in _in_full(functions) if ACTIVATIONS[name].nin == 1]
    return sizes(functions, ["float32"], sizes_) + dense(functions, ["float32"], shapes)


def every(functions: Iterable[str]) -> list[Workload]:
    """All workloads of one thread."""
    functions = list(functions)
    return [
        *sizes(functions, DTYPES),
        *layouts(functions, DTYPES, TYPICAL),
        *scalars(functions, DTYPES),
        *rows(functions, DTYPES, ROW_SHAPES),
        *dense(functions, DTYPES, SHAPES),
    ]


def small(functions: Iterable[str]) -> list[Workload]:
    """Every kind of workload once, as small as possible, to run without timing."""
    functions = list(functions)
    return [
        *sizes(functions, DTYPES, [64]),
        *layouts(functions, ["float32"], 64),
        *scalars(functions, DTYPES),
        *rows(functions, DTYPES, [(5, 7)]),
        *dense(functions, DTYPES, [(7, 13, 5)]),
    ]
