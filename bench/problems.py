"""The arrays of a workload, and what has to come out of them."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from fastact._declarations.records import ACTIVATIONS

from .peers.base import ROWS
from .workloads import Workload


@dataclass(frozen=True)
class Problem:
    """Inputs of a workload, where to put the results, and what they should be.

    Attributes
    ----------
    workload : Workload
    inputs : sequence of ndarray or scalar
        Of a dense layer x, W and b.
    out : ndarray or None
        None for scalars; in place it is the first input.
    want : ndarray
        The results in float64.
    original : ndarray or None
        A copy of the first input, where the results overwrite it.
    """

    workload: Workload
    inputs: Sequence
    out: np.ndarray | None
    want: np.ndarray
    original: np.ndarray | None = None

    def prepare(self) -> None:
        """Undo the effects of calls: bring the input back that a result overwrote."""
        if self.original is not None:
            np.copyto(self.out, self.original)

    def forget(self) -> None:
        """Make sure that a result seen from now on is a new one."""
        if self.original is not None:
            self.prepare()
        elif self.out is not None:
            self.out.fill(np.nan)


def _softmax(x: np.ndarray) -> np.ndarray:
    exponentials = np.exp(x - x.max(axis=1, keepdims=True))
    return exponentials / exponentials.sum(axis=1, keepdims=True)


# The declared references take one row of numbers and are too slow for a benchmark.
ROW_FORMULAS = {"softmax": _softmax}


def problem(workload: Workload) -> Problem:
    """Make the arrays, from the normal distribution with standard deviation 4.

    The weights of a dense layer are scaled so that its sums are distributed like that too.
    All arrays are touched, so that no page is mapped within a sample.
    """
    rng = np.random.default_rng(0)
    if workload.dense:
        return _dense(workload, rng)
    if workload.layout == ROWS:
        x, out = (_on_cache_line(workload.dtype, workload.shape) for _ in range(2))
        x[...] = 4 * rng.standard_normal(workload.shape)
        out.fill(0)
        return Problem(workload, [x], out, ROW_FORMULAS[workload.function](x.astype(np.float64)))
    activation = ACTIVATIONS[workload.function]
    if not workload.shape:
        values = (4 * rng.standard_normal(activation.nin)).tolist()
        if workload.layout == "NumPy scalar":
            values = [np.dtype(workload.dtype).type(value) for value in values]
        return Problem(workload, values, None, _reference(activation, values))
    inputs = [_empty(workload) for _ in range(activation.nin)]
    for x in inputs:
        x[...] = 4 * rng.standard_normal(workload.shape)
    want = _reference(activation, inputs)
    if workload.layout == "in place":
        return Problem(workload, inputs, inputs[0], want, inputs[0].copy())
    out = _on_cache_line(workload.dtype, workload.shape)
    out.fill(0)
    return Problem(workload, inputs, out, want)


def _dense(workload: Workload, rng: np.random.Generator) -> Problem:
    rows, inner, columns = workload.shape
    inputs = [
        _on_cache_line(workload.dtype, shape)
        for shape in ((rows, inner), (inner, columns), (columns,))
    ]
    for array, scale in zip(inputs, (1, 4 / math.sqrt(inner), 1), strict=True):
        array[...] = scale * rng.standard_normal(array.shape)
    x, weights, bias = (array.astype(np.float64) for array in inputs)
    out = _on_cache_line(workload.dtype, (rows, columns))
    out.fill(0)
    want = _reference(ACTIVATIONS[workload.function], [x @ weights + bias])
    return Problem(workload, inputs, out, want)


def _reference(activation, inputs) -> np.ndarray:
    with np.errstate(all="ignore"):
        wide = (np.asarray(x, np.float64) for x in inputs)
        return np.asarray(activation.reference(np, *wide), np.float64)


def _empty(workload: Workload) -> np.ndarray:
    """An array of the layout, its elements still unset."""
    dtype, shape = workload.dtype, workload.shape
    if workload.layout == "strided":
        return _on_cache_line(dtype, (2 * shape[0],))[::2]
    if workload.layout == "unaligned":
        return _on_cache_line(dtype, shape, offset=1)
    if workload.layout == "transposed":
        return _on_cache_line(dtype, shape[::-1]).T
    return _on_cache_line(dtype, shape)


def _on_cache_line(dtype: str, shape: tuple[int, ...], offset: int = 0) -> np.ndarray:
    """An empty array that begins `offset` bytes behind where a cache line does.

    Elsewhere that is left to chance.
    """
    nbytes = math.prod(shape) * np.dtype(dtype).itemsize
    raw = np.empty(nbytes + 64 + offset, np.uint8)
    start = -raw.ctypes.data % 64 + offset
    return raw[start : start + nbytes].view(dtype).reshape(shape)
