"""Dense layers: ``activation(x @ W + b)`` in one pass."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from fastact._compiler.gemm.interface import DONE
from fastact._declarations.records import activations
from fastact._dense import weights
from fastact._dense.frozen import Frozen, again
from fastact._functions import UFUNCS
from fastact._runtime import convert
from fastact._runtime.operands import as_array, check_unmasked, common_type, compute_dtype

if TYPE_CHECKING:  # importing numpy.typing takes a hundredth of NumPy's import time
    from numpy.typing import ArrayLike, NDArray

__all__ = ["Dense", "dense"]

_IDENTITY = "identity"

# (size, rows): if W has less than `size` bytes, it is packed first for `rows` rows or more. A small
# W stays in the cache without packing (bench/NOTES.md).
_ROWS_WORTH_PACKING = ((48 << 10, np.inf), (512 << 10, 512), (np.inf, 64))

_BLOCK = 1 << 18  # bytes of operands that are converted at a time


def dense(
    x: ArrayLike,
    W: ArrayLike,
    b: ArrayLike | None = None,
    activation: str | np.ufunc | None = _IDENTITY,
    *,
    out: NDArray[Any] | None = None,
) -> NDArray[Any]:
    """``activation(x @ W + b)``, in one pass over the result.

    Parameters
    ----------
    x : array_like, shape (..., K)
        One row or many, with any strides.
    W : array_like, shape (K, N)
        The weights. Contiguous rows are fastest. For repeated use see :class:`Dense`.
    b : array_like, shape (N,), optional
        The bias. Default is no bias.
    activation : str, ufunc or None, optional
        An activation of this package with one input, by name or as the function itself. None
        and "identity" mean no activation. Functions of rows, such as softmax, are computed along
        the last axis.
    out : ndarray, shape (..., N), optional
        Array into which the result is written. It must not overlap an input or itself.

    Returns
    -------
    ndarray, shape (..., N)
        `out`, or a new array of the common type of the operands: float16 (or bfloat16),
        float32 or float64. The 16-bit formats are computed in float32 and rounded once. If all
        operands are integers or bool, it is float64. If NumPy has no common type, as for float16
        with bfloat16, or the common type is another one of ml_dtypes (int4, float8), it is the
        first of float16, float32 and float64 to which all operands can be cast safely, as for
        ufuncs.

    Raises
    ------
    ValueError
        For shapes that do not match, an unknown activation, an `out` that is read-only or
        overlaps an input or itself, and masked arrays with masked elements.
    TypeError
        For complex, longdouble, string, datetime and object operands, and an `out` that is not
        an array of floating-point or complex numbers (ufuncs also cast their results to text and
        objects).

    Notes
    -----
    Each element is the sum of its K products in the order of k, each added with one rounding
    (fma, where the processor has it), plus the bias, followed by the activation. So an element
    depends only on its row and column (with softmax, on its row). Its bits are the same whatever
    the number of rows and their memory layout, and whether or not W was packed before. (The only
    exception is which of several NaNs the result is, which depends on the compiler.) The sum is
    within ``K * eps * (abs(x) @ abs(W))`` of the exact one. NaN and infinities behave as in matmul.
    No floating-point warning is raised, the result does not depend on the caller's rounding mode
    and flush-to-zero setting, and the caller's status flags stay unchanged. Operands and results
    whose type differs from the one that the layer computes in are converted with one rounding, to
    nearest even; values that are too large become infinite.

    A Series or DataFrame is converted to an array. Columns of several numeric types, including
    bool, are converted to their common type, and missing values become NaN (integers and bool with
    missing values become float64).

    The register blocks and the loops around them follow K. Goto and R. van de Geijn, "Anatomy of
    high-performance matrix multiplication" (2008).

    Examples
    --------
    >>> import numpy as np, fastact as fa
    >>> fa.dense([1.0, 2.0], [[1.0, -1.0], [2.0, -2.0]], b=[0.5, 0.5], activation="relu")
    array([5.5, 0. ])
    """
    if type(x) is type(W) is np.ndarray and x.ndim and W.ndim == 2:
        try:
            plan, direct = _direct(W.dtype.char, W.shape[1], activation)
        except (TypeError, ValueError):
            pass  # _forward says what is wrong
        else:
            bias: Any = _zeros(W.dtype.char, W.shape[1]) if b is None else b
            enough = next(rows for size, rows in _ROWS_WORTH_PACKING if W.nbytes < size)
            if x.size < enough * W.shape[0] and type(bias) is np.ndarray:
                y = np.empty(x.shape[:-1] + W.shape[1:], W.dtype) if out is None else out
                if type(y) is np.ndarray and direct(plan, x, W, bias, y) == DONE:
                    return y
    bias = None if b is None else as_array("dense", "b", b)
    return _forward("dense", x, as_array("dense", "W", W), bias, activation, out)


@functools.lru_cache(256)
def _direct(char: str, columns: int, activation: Any) -> tuple[int, Callable[..., int]]:
    """The plan and function for weights that are not packed; TypeError or ValueError if none."""
    if char not in "fd":
        raise TypeError(char)
    kernels = weights.kernels(np.dtype(char), columns)
    return kernels.plan(activation_name("dense", activation)), kernels.direct


@functools.lru_cache(256)
def _zeros(char: str, columns: int) -> np.ndarray:
    zeros = np.zeros(columns, char)
    zeros.flags.writeable = False
    return zeros


class Dense(Frozen):
    """A layer ``activation(x @ W + b)`` that packs its weights once.

    Parameters
    ----------
    W : array_like, shape (K, N)
        The weights. The layer keeps a copy.
    b : array_like, shape (N,), optional
        The bias. Default is no bias.
    activation : str, ufunc or None, optional
        As for :func:`dense`.

    Attributes
    ----------
    in_features, out_features : int
        K and N.
    dtype : dtype
        The common type of `W` and `b`, and the type of the result unless the input has a wider one.
    activation : str
        The name of the activation, "identity" for none.

    Raises
    ------
    ValueError, TypeError
        As for :func:`dense`.
    AttributeError
        If an attribute of the layer is set or deleted.

    Notes
    -----
    Copies and pickles of a subclass are instances of that subclass, with the attributes that it
    added. They are made without calling its ``__init__``. If a subclass overrides ``__call__``,
    :class:`Sequential` calls it.

    Examples
    --------
    >>> import numpy as np, fastact as fa
    >>> layer = fa.Dense(np.ones((3, 2), np.float32), activation=fa.sigmoid)
    >>> layer
    Dense(3 -> 2, sigmoid, float32)
    >>> layer(np.zeros(3, np.float32))
    array([0.5, 0.5], dtype=float32)
    """

    __module__ = "fastact"  # for pickles, which stay valid if modules move inside the package

    activation: str
    dtype: np.dtype[Any]
    in_features: int
    out_features: int
    _name: str | None
    _has_bias: bool
    _tail: tuple[int, ...]
    _own: weights.Weights  # in the type that the layer computes in for inputs of its dtype
    _packed: dict[str, weights.Weights]
    _call: Callable[[np.ndarray, np.ndarray], int]
    _fast: bool  # whether _call accepts arrays of the dtype of the layer

    def __init__(
        self,
        W: ArrayLike,
        b: ArrayLike | None = None,
        activation: str | np.ufunc | None = _IDENTITY,
    ):
        W, b = as_array("Dense", "W", W), None if b is None else as_array("Dense", "b", b)
        name = activation_name("Dense", activation)
        check_weights("Dense", W, b)
        dtype = common_type("Dense", W=W, b=b)
        computed = compute_dtype(dtype)
        own = _pack(W, b, name, computed)
        self._fix(
            activation=name or _IDENTITY,
            dtype=dtype,
            in_features=W.shape[0],
            out_features=W.shape[1],
            _name=name,
            _has_bias=b is not None,
            _tail=W.shape[1:],
            _own=own,
            _packed={computed.char: own},
            _call=own.call,
            _fast=computed == dtype,
        )

    @property
    def W(self) -> np.ndarray:
        """The weights, as a new array."""
        return self._unpacked()

    @property
    def b(self) -> np.ndarray | None:
        """The bias, as a new array, or None."""
        return self._bias()

    def _unpacked(self) -> np.ndarray:
        return convert.converted(self._own.unpacked(), self.dtype)

    def _bias(self) -> np.ndarray | None:
        return convert.converted(self._own.bias.copy(), self.dtype) if self._has_bias else None

    def __call__(self, x: ArrayLike, *, out: NDArray[Any] | None = None) -> NDArray[Any]:
        """``activation(x @ W + b)`` for x of shape (..., K); see :func:`dense`."""
        if type(x) is np.ndarray and self._fast:
            y = np.empty(x.shape[:-1] + self._tail, self.dtype) if out is None else out
            if type(y) is np.ndarray and self._call(x, y) == DONE:
                return y
        x = as_array("Dense", "x", x)
        check_input("Dense", x, (self.in_features, self.out_features))
        result = common_type("Dense", x=x, W=self)
        y = output("Dense", out, x, self.out_features, result)
        check_overlap("Dense", y, x=x)
        _blockwise(self._packed_as(compute_dtype(result)), x, y)
        return y

    def _packed_as(self, dtype: np.dtype) -> weights.Weights:
        """The weights packed in `dtype`, once for all callers."""
        found = self._packed.get(dtype.char)
        if found is None:
            bias = self._own.bias if self._has_bias else None
            made = _pack(self._own.unpacked(), bias, self._name, dtype)
            found = self._packed.setdefault(dtype.char, made)
        return found

    def __repr__(self) -> str:
        return (
            f"{type(self).__name__}({self.in_features} -> {self.out_features}, {self.activation}, "
            f"{self.dtype})"
        )

    def __reduce__(self) -> tuple[Any, ...]:
        arguments = (self._unpacked(), self._bias(), self._name)
        return again, (type(self), Dense, *arguments), self.__getstate__()


def _forward(
    caller: str, x: Any, W: np.ndarray, b: np.ndarray | None, activation: Any, out: Any
) -> np.ndarray:
    """The result for operands of any type and layout, or an error that says what is wrong."""
    x = as_array(caller, "x", x)
    name = activation_name(caller, activation)
    check_weights(caller, W, b)
    check_input(caller, x, W.shape)
    result = common_type(caller, x=x, W=W, b=b)
    y = output(caller, out, x, W.shape[1], result)
    check_overlap(caller, y, x=x, W=W, b=b)
    if y.size:
        packed = _pack(W, b, name, compute_dtype(result), temporary=True)
        _blockwise(packed, x, y)
        packed.give_back()
    return y


def _pack(
    W: np.ndarray, b: np.ndarray | None, name: str | None, dtype: np.dtype, temporary: bool = False
) -> weights.Weights:
    bias = None if b is None else convert.converted(b, dtype)
    W = np.require(convert.converted(W, dtype), dtype, "A")  # with this very dtype object
    return weights.Weights(W, bias, name, temporary)


def _blockwise(packed: weights.Weights, x: np.ndarray, y: np.ndarray) -> None:
    """Compute y from x, in blocks of converted rows where compiled code refuses the arrays."""
    if x.ndim == 1:
        x, y = x[np.newaxis], y[np.newaxis]
    if packed.call(x, y) == DONE:
        return
    if x.ndim > 2:
        for x_part, y_part in zip(x, y, strict=True):
            _blockwise(packed, x_part, y_part)
        return
    depth, columns = packed.shape
    rows = min(len(x), max(1, _BLOCK // (packed.dtype.itemsize * (depth + columns or 1))))
    source, sink = np.empty((rows, depth), packed.dtype), np.empty((rows, columns), packed.dtype)
    for start in range(0, len(x), rows or 1):
        part = x[start : start + rows]
        convert.copy(part, source[: len(part)])
        if packed.call(source[: len(part)], sink[: len(part)]) != DONE:
            raise RuntimeError("the compiled layer refused operands that were converted for it")
        convert.copy(sink[: len(part)], y[start : start + rows])


def activation_name(caller: str, activation: Any, what: str = "activation must be") -> str | None:
    """The declared name of an activation given by name or as the function; None for identity."""
    if activation is None or (isinstance(activation, str) and activation == _IDENTITY):
        return None
    known = _known()
    if isinstance(activation, str):
        if activation in known:
            return activation
    else:
        for name, function in known.items():
            if activation is function:
                return name
    raise ValueError(
        f"{caller}: {what} one of {', '.join([_IDENTITY, *known])}, by name or as a function "
        f"of fastact, got {activation!r}"
    )


@functools.cache
def _known() -> dict[str, np.ufunc]:
    """The activations that layers accept, by name."""
    return {name: UFUNCS[name] for name in activations()}


def check_weights(caller: str, W: np.ndarray, b: np.ndarray | None = None) -> None:
    if W.ndim != 2:
        raise ValueError(f"{caller}: W must have shape (K, N), got shape {W.shape}")
    if b is not None and b.shape != W.shape[1:]:
        raise ValueError(
            f"{caller}: b must have shape {W.shape[1:]} to match the columns of W of shape "
            f"{W.shape}, got shape {b.shape}"
        )


def check_input(caller: str, x: np.ndarray, shape: tuple[int, int]) -> None:
    if x.ndim == 0 or x.shape[-1] != shape[0]:
        raise ValueError(
            f"{caller}: x must have shape (..., {shape[0]}) to match W of shape {shape}, "
            f"got shape {x.shape}"
        )


def output(caller: str, out: Any, x: np.ndarray, columns: int, dtype: np.dtype) -> np.ndarray:
    shape = (*x.shape[:-1], columns)
    if out is None:
        return np.empty(shape, dtype)
    if not isinstance(out, np.ndarray):
        raise TypeError(f"{caller}: out must be an ndarray, got {type(out).__name__}")
    if out.shape != shape:
        raise ValueError(f"{caller}: out must have shape {shape}, got shape {out.shape}")
    check_unmasked(caller, "out", out, remedy="data")
    # NumPy also casts numbers to text, to objects, and to the small integers of ml_dtypes.
    inexact = out.dtype.kind in "fc" or "float" in out.dtype.name or "complex" in out.dtype.name
    if not inexact or not np.can_cast(dtype, out.dtype, "same_kind"):
        raise TypeError(
            f"{caller}: out must be of a type that {dtype} can be cast to, got dtype {out.dtype}"
        )
    if not out.flags.writeable:
        raise ValueError(f"{caller}: out must be writeable, got a read-only array")
    return out


def check_overlap(caller: str, out: np.ndarray, **inputs: np.ndarray | None) -> None:
    for name, operand in inputs.items():
        if operand is None:
            continue
        try:
            shared = np.shares_memory(out, operand, max_work=10_000)  # type: ignore[arg-type] # any int
        except np.exceptions.TooHardError:
            shared = True
        if shared:
            raise ValueError(f"{caller}: out must not overlap {name}, got arrays that share memory")
    if _overlaps_itself(out):
        raise ValueError(
            f"{caller}: out must not overlap itself, got shape {out.shape} with strides "
            f"{out.strides} for elements of {out.itemsize} bytes"
        )


def _overlaps_itself(x: np.ndarray) -> bool:
    axes = [(abs(step), n) for step, n in zip(x.strides, x.shape, strict=True) if n > 1]
    if x.size < 2:
        return False
    end = x.itemsize
    for step, n in sorted(axes):
        if step < end:
            break
        end += step * (n - 1)
    else:
        return False
    # Axes that are not nested may still be interleaved.
    places = np.zeros(1, np.int64)
    for step, n in axes:
        places = np.add.outer(places, np.arange(n) * step).ravel()
    places.sort()
    return bool((np.diff(places) < x.itemsize).any())
