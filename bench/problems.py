"""The arrays of a workload, and its expected results."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from fastact._declarations.records import ACTIVATIONS, NORMALIZATIONS, Activation, along_rows

from .peers.base import ROWS
from .references import FOR_ARRAYS
from .workloads import Workload


@dataclass(frozen=True)
class Problem:
    """Inputs, output and expected results of a workload.

    Attributes
    ----------
    workload : Workload
    inputs : sequence of ndarray or scalar
        x, W and b for a dense layer.
    out : ndarray or None
        Where to put the results; None for scalars, and the first input if they overwrite it.
    want : ndarray
        The expected results in float64.
    original : ndarray or None
        A copy of the first input if the results overwrite it.
    """

    workload: Workload
    inputs: Sequence
    out: np.ndarray | None
    want: np.ndarray
    original: np.ndarray | None = None

    def prepare(self) -> None:
        """Undo the effects of calls: restore the input if they overwrote it."""
        if self.original is not None:
            np.copyto(self.out, self.original)

    def forget(self) -> None:
        """Erase the results of earlier calls, so that they cannot pass for new ones."""
        if self.original is not None:
            self.prepare()
        elif self.out is not None:
            self.out.fill(np.nan)


def problem(workload: Workload) -> Problem:
    """Make the arrays, from the normal distribution with standard deviation 4.

    The weights of a dense layer are scaled so that its sums have the same distribution. All arrays
    are written to, so that no page is mapped during a sample.
    """
    rng = np.random.default_rng(0)
    if workload.dense:
        return _dense(workload, rng)
    if workload.layout == ROWS:
        declared = along_rows()[workload.function]
        x = _on_cache_line(workload.dtype, workload.shape)
        x[...] = 4 * rng.standard_normal(workload.shape)
        inputs = [x, *_parameters(workload, rng)]
        want = _reference(declared, inputs)
        out = _on_cache_line(workload.dtype, want.shape)
        out.fill(0)
        return Problem(workload, inputs, out, want)
    activation = ACTIVATIONS[workload.function]
    if not workload.shape:
        values = [
            activation.parameters[name][0] if name in activation.parameters else value
            for name, value in zip(
                activation.inputs, (4 * rng.standard_normal(activation.nin)).tolist(), strict=True
            )
        ]
        if workload.layout == "NumPy scalar":
            values = [np.dtype(workload.dtype).type(value) for value in values]
        return Problem(workload, values, None, _reference(activation, values))
    inputs = [_input(workload, activation, name, rng) for name in activation.inputs]
    want = _reference(activation, inputs)
    undefined = np.isnan(want)
    if undefined.any():  # a function like logit has inputs from its interval there
        for x in inputs:
            if x.ndim:
                x[undefined] = rng.uniform(*activation.interval, undefined.sum())
        want = _reference(activation, inputs)
    if workload.layout == "in place":
        return Problem(workload, inputs, inputs[0], want, inputs[0].copy())
    out = _on_cache_line(workload.dtype, workload.shape)
    out.fill(0)
    return Problem(workload, inputs, out, want)


def _parameters(workload: Workload, rng: np.random.Generator) -> list[np.ndarray]:
    """The operands of a normalization besides its input; none of other functions of rows."""
    if workload.function not in NORMALIZATIONS:
        return []
    columns = []
    for _ in NORMALIZATIONS[workload.function].columns:
        columns.append(_on_cache_line(workload.dtype, workload.shape[1:]))
        columns[-1][...] = rng.standard_normal(workload.shape[1:])
    return [*columns, np.array(1e-5, workload.dtype)]


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


def _input(
    workload: Workload, activation: Activation, name: str, rng: np.random.Generator
) -> np.ndarray:
    """An array for an input; parameters are one number, the first of those declared."""
    if name in activation.parameters:
        return np.array(activation.parameters[name][0], workload.dtype)
    x = _empty(workload)
    x[...] = 4 * rng.standard_normal(workload.shape)
    return x


def _reference(activation, inputs) -> np.ndarray:
    with np.errstate(all="ignore"):
        wide = (np.asarray(x, np.float64) for x in inputs)
        return np.asarray(activation.reference(FOR_ARRAYS, *wide), np.float64)


def _empty(workload: Workload) -> np.ndarray:
    """An uninitialised array with the layout of the workload."""
    dtype, shape = workload.dtype, workload.shape
    if workload.layout == "strided":
        return _on_cache_line(dtype, (2 * shape[0],))[::2]
    if workload.layout == "unaligned":
        return _on_cache_line(dtype, shape, offset=1)
    if workload.layout == "transposed":
        return _on_cache_line(dtype, shape[::-1]).T
    return _on_cache_line(dtype, shape)


def _on_cache_line(dtype: str, shape: tuple[int, ...], offset: int = 0) -> np.ndarray:
    """An uninitialised array that begins `offset` bytes after the start of a cache line.

    ``np.empty`` leaves that offset to chance, and times depend on it.
    """
    nbytes = math.prod(shape) * np.dtype(dtype).itemsize
    raw = np.empty(nbytes + 64 + offset, np.uint8)
    start = -raw.ctypes.data % 64 + offset
    return raw[start : start + nbytes].view(dtype).reshape(shape)
