"""Dense layers: ``activation(x @ W + b)`` in one pass."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

import numpy as np

from . import _convert, _weights, activations
from ._declare import ACTIVATIONS, ROW_ACTIVATIONS
from ._formats import FORMATS, format_of
from ._plan import DONE

if TYPE_CHECKING:  # numpy.typing takes a hundredth of NumPy's import time
    from numpy.typing import ArrayLike, NDArray

__all__ = ["Dense", "dense"]

_IDENTITY = "identity"

# W is worth being packed first from so many rows on, by its size in bytes: a small one stays in the
# cache as it is (bench/NOTES.md).
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
        One row or many, of any strides.
    W : array_like, shape (K, N)
        Weights. Contiguous rows are fastest. For repeated use see :class:`Dense`.
    b : array_like, shape (N,), optional
        The bias; none by default.
    activation : str, ufunc or None, optional
        An activation of this package with one input, by name or as the function itself; None
        and "identity" for none. softmax is taken over the last axis.
    out : ndarray, shape (..., N), optional
        Where to put the result. It may not overlap an input.

    Returns
    -------
    ndarray, shape (..., N)
        `out`, or a new array of the common type of the operands: float16 (or bfloat16),
        float32 or float64. The 16-bit formats are computed in float32 and rounded once;
        integers and bool alone give float64.

    Raises
    ------
    ValueError
        For shapes that do not fit each other, an unknown activation, or an `out` that overlaps
        an input or is read-only.
    TypeError
        For complex, longdouble, string, datetime and object operands, and an `out` that is no
        array or would lose the kind of the result.

    Notes
    -----
    Each element is the sum of its K products in the order of k, each added with one rounding
    (fma, where the processor has it), plus the bias, and then the activation. So it depends on
    its row and its column alone (with softmax, its row): the bits are the same whatever the
    number of rows, their memory layout, and whether W was packed before. (Of NaN only that it
    is one: which of two NaNs a product keeps is the compiler's choice.) The sum is within
    ``K * eps * (abs(x) @ abs(W))`` of the exact one. NaN and infinities behave as in matmul.
    No floating-point warning is raised, and the caller's rounding mode, flush-to-zero and status
    flags neither change the result nor are changed. Operands and results of other types than
    the layer computes in are converted with one rounding each, to nearest even, what is too
    large to infinity.

    Blocks of registers and loops around them follow K. Goto and R. van de Geijn, "Anatomy of
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
            pass  # explained below
        else:
            bias = _zeros(W.dtype.char, W.shape[1]) if b is None else b
            enough = next(rows for size, rows in _ROWS_WORTH_PACKING if W.nbytes < size)
            if x.size < enough * W.shape[0] and type(bias) is np.ndarray:
                y = np.empty(x.shape[:-1] + W.shape[1:], W.dtype) if out is None else out
                if type(y) is np.ndarray and direct(plan, x, W, bias, y) == DONE:
                    return y
    return _forward(
        "dense", x, np.asarray(W), None if b is None else np.asarray(b), activation, out
    )


@functools.lru_cache(256)
def _direct(char: str, columns: int, activation: Any):
    """Plan and function for weights used as they are; TypeError or ValueError if there is none."""
    dtype = np.dtype(char)
    if char not in "fd":
        raise TypeError(char)
    kernels = _weights.kernels(dtype, columns)
    plan = kernels.plan(activation_name("dense", activation))
    return _Address(plan), kernels.direct


class _Address(int):
    """The address of an array, which it keeps alive."""

    array: np.ndarray

    def __new__(cls, array: np.ndarray):
        self = super().__new__(cls, array.ctypes.data)
        self.array = array
        return self


@functools.lru_cache(256)
def _zeros(char: str, columns: int) -> np.ndarray:
    zeros = np.zeros(columns, char)
    zeros.flags.writeable = False
    return zeros


class Dense:
    """A layer ``activation(x @ W + b)`` that packs its weights once.

    Parameters
    ----------
    W : array_like, shape (K, N)
        Weights; a copy is kept.
    b : array_like, shape (N,), optional
        The bias; none by default.
    activation : str, ufunc or None, optional
        As for :func:`dense`.

    Attributes
    ----------
    in_features, out_features : int
        K and N.
    dtype : dtype
        The common type of `W` and `b`, and of the result for inputs that fit in it.
    activation : str
        The name of the activation, "identity" for none.

    Raises
    ------
    ValueError, TypeError
        As by :func:`dense`.

    Examples
    --------
    >>> import numpy as np, fastact as fa
    >>> layer = fa.Dense(np.ones((3, 2), np.float32), activation=fa.sigmoid)
    >>> layer
    Dense(3 -> 2, sigmoid, float32)
    >>> layer(np.zeros(3, np.float32))
    array([0.5, 0.5], dtype=float32)
    """

    def __init__(
        self,
        W: ArrayLike,
        b: ArrayLike | None = None,
        activation: str | np.ufunc | None = _IDENTITY,
    ):
        W, b = np.asarray(W), None if b is None else np.asarray(b)
        name = activation_name("Dense", activation)
        self.activation = name or _IDENTITY
        check_weights("Dense", W, b)
        self.dtype = common_type("Dense", W=W, b=b)
        self.in_features: int = W.shape[0]
        self.out_features: int = W.shape[1]
        self._tail = W.shape[1:]
        self._has_bias = b is not None
        own = compute_dtype(self.dtype)
        self._packed = {own.char: _pack(W, b, name, own)}
        self._call = self._packed[own.char].call
        self._fast = own == self.dtype

    @property
    def W(self) -> np.ndarray:
        """The weights, as a new array."""
        return _convert.converted(
            self._packed[compute_dtype(self.dtype).char].unpacked(), self.dtype
        )

    @property
    def b(self) -> np.ndarray | None:
        """The bias, as a new array, or None."""
        if not self._has_bias:
            return None
        bias = self._packed[compute_dtype(self.dtype).char].bias
        return _convert.converted(bias.copy(), self.dtype)

    def __call__(self, x: ArrayLike, *, out: NDArray[Any] | None = None) -> NDArray[Any]:
        """``activation(x @ W + b)`` for x of shape (..., K); see :func:`dense`."""
        if type(x) is np.ndarray and self._fast:
            y = np.empty(x.shape[:-1] + self._tail, self.dtype) if out is None else out
            if type(y) is np.ndarray and self._call(x, y) == DONE:
                return y
        x = np.asarray(x)
        check_input("Dense", x, (self.in_features, self.out_features))
        result = common_type("Dense", x=x, W=self)
        y = output("Dense", out, x, self.out_features, result)
        check_overlap("Dense", y, x=x)
        _blockwise(self.weights(compute_dtype(result)), x, y)
        return y

    def weights(self, dtype: np.dtype) -> _weights.Weights:
        if dtype.char not in self._packed:
            name = None if self.activation == _IDENTITY else self.activation
            self._packed[dtype.char] = _pack(self.W, self.b, name, dtype)
        return self._packed[dtype.char]

    def __repr__(self) -> str:
        return f"Dense({self.in_features} -> {self.out_features}, {self.activation}, {self.dtype})"

    def __reduce__(self):
        return Dense, (self.W, self.b, self.activation)


def _forward(caller: str, x, W, b, activation, out) -> np.ndarray:
    """The result for operands of any type and layout, or an error that says what is wrong."""
    x = np.asarray(x)
    name = activation_name(caller, activation)
    check_weights(caller, W, b)
    check_input(caller, x, W.shape)
    result = common_type(caller, x=x, W=W, b=b)
    y = output(caller, out, x, W.shape[1], result)
    check_overlap(caller, y, x=x, W=W, b=b)
    if y.size:
        _blockwise(_pack(W, b, name, compute_dtype(result), temporary=True), x, y)
    return y


def _pack(W, b, name: str | None, dtype: np.dtype, temporary: bool = False) -> _weights.Weights:
    bias = None if b is None else _convert.converted(b, dtype)
    W = np.require(_convert.converted(W, dtype), dtype, "A")  # of this very object, too
    return _weights.Weights(W, bias, name, temporary)


def _blockwise(weights: _weights.Weights, x: np.ndarray, y: np.ndarray) -> None:
    """x into y, by way of blocks of converted rows where they cannot be worked on as they are."""
    if x.ndim == 1:
        x, y = x[np.newaxis], y[np.newaxis]
    if weights.call(x, y) == DONE:
        return
    if x.ndim > 2:
        for x_part, y_part in zip(x, y, strict=True):
            _blockwise(weights, x_part, y_part)
        return
    depth, columns = weights.shape
    rows = min(len(x), max(1, _BLOCK // (weights.dtype.itemsize * (depth + columns or 1))))
    source, sink = np.empty((rows, depth), weights.dtype), np.empty((rows, columns), weights.dtype)
    for start in range(0, len(x), rows or 1):
        part = x[start : start + rows]
        _convert.copy(part, source[: len(part)])
        weights.call(source[: len(part)], sink[: len(part)])
        _convert.copy(sink[: len(part)], y[start : start + rows])


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
        f"{caller}: {what} one of {', '.join([_IDENTITY, *known])} or such a function "
        f"of fastact, got {activation!r}"
    )


@functools.cache
def _known() -> dict[str, np.ufunc]:
    """The activations that a layer may have."""
    names = [name for name, declared in ACTIVATIONS.items() if declared.nin == 1]
    return {name: getattr(activations, name) for name in [*names, *ROW_ACTIVATIONS]}


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


def common_type(caller: str, **operands: np.ndarray | Dense | None) -> np.dtype:
    """The type of the result; TypeError for the first operand that has none to compute in."""
    types = []
    for name, operand in operands.items():
        if operand is None:
            continue
        dtype = operand.dtype
        form = None if dtype.type is np.bool_ else format_of(dtype.type)
        if form is None and dtype.type is not np.bool_:
            raise TypeError(
                f"{caller}: {name} must be an array of float16, bfloat16, float32, float64, "
                f"integers or bool, got dtype {dtype}"
            )
        types.append(dtype)
    try:
        common = np.result_type(*types)
    except TypeError:
        names = ", ".join(name for name, operand in operands.items() if operand is not None)
        raise TypeError(
            f"{caller}: {names} must have a common type, got {', '.join(map(str, types))}"
        ) from None
    form = format_of(common.type)
    return common if form and not form.is_integer else np.dtype(np.float64)


def compute_dtype(dtype: np.dtype) -> np.dtype:
    return np.dtype(FORMATS[format_of(dtype.type).compute].name)


def output(caller: str, out: Any, x: np.ndarray, columns: int, dtype: np.dtype) -> np.ndarray:
    shape = (*x.shape[:-1], columns)
    if out is None:
        return np.empty(shape, dtype)
    if not isinstance(out, np.ndarray):
        raise TypeError(f"{caller}: out must be an ndarray, got {type(out).__name__}")
    if out.shape != shape:
        raise ValueError(f"{caller}: out must have shape {shape}, got shape {out.shape}")
    if not np.can_cast(dtype, out.dtype, "same_kind"):
        raise TypeError(
            f"{caller}: out must be of a type that {dtype} casts to, got dtype {out.dtype}"
        )
    if not out.flags.writeable:
        raise ValueError(f"{caller}: out must be writeable, got a read-only array")
    return out


def check_overlap(caller: str, out: np.ndarray, **inputs: np.ndarray | None) -> None:
    for name, operand in inputs.items():
        if operand is None:
            continue
        try:
            shared = np.shares_memory(out, operand, max_work=10_000)
        except np.exceptions.TooHardError:
            shared = True
        if shared:
            raise ValueError(f"{caller}: out must not overlap {name}, got arrays that share memory")
