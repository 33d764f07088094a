"""Dense layers: ``activation(x @ W + b)`` in one pass."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from fastact._compiler.gemm.interface import DONE
from fastact._dense import weights
from fastact._dense.activated import IDENTITY, Activated, ActivationLike, chosen
from fastact._dense.compact import NAMES, Compact, compacted
from fastact._dense.frozen import Frozen, again
from fastact._runtime import convert
from fastact._runtime.operands import as_array, check_unmasked, common_type, compute_dtype

if TYPE_CHECKING:  # importing numpy.typing takes a hundredth of NumPy's import time
    from numpy.typing import ArrayLike, NDArray

__all__ = ["Dense", "dense"]

# (size, rows): if W has less than `size` bytes, it is packed first for `rows` rows or more. A small
# W stays in the cache without packing (bench/NOTES.md).
_ROWS_WORTH_PACKING = ((48 << 10, np.inf), (512 << 10, 512), (np.inf, 64))

_BLOCK = 1 << 18  # bytes of operands that are converted at a time


def dense(
    x: ArrayLike,
    W: ArrayLike,
    b: ArrayLike | None = None,
    activation: ActivationLike = IDENTITY,
    *,
    out: NDArray[Any] | None = None,
    saved: NDArray[Any] | None = None,
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
    activation : str, ufunc, tuple or None, optional
        An activation of this package with one input, by name or as the function itself. None
        and "identity" mean no activation. Functions of rows, such as softmax, are computed along
        the last axis. If a function has parameters besides its input, this is a tuple of the
        function and the parameters, each a number or an array of shape (N,):
        ``(fa.prelu, 0.25)``, ``(fa.layer_norm, weight, bias, 1e-5)``. The function alone has its
        default, if its docstring names one.
    out : ndarray, shape (..., N), optional
        Array into which the result is written. It must not overlap an input or itself.
    saved : ndarray, shape (..., N), optional
        Array into which ``x @ W + b`` is written, the input of the activation. It must not overlap
        `out`, an input or itself. :func:`dense_backward` needs it for some activations. Without
        it, this sum is never in memory as a whole.

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
    if type(x) is type(W) is np.ndarray and x.ndim and W.ndim == 2 and saved is None:
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
    return _forward("dense", x, as_array("dense", "W", W), bias, activation, out, saved)


@functools.lru_cache(256)
def _direct(char: str, columns: int, activation: Any) -> tuple[int, Callable[..., int]]:
    """The plan and function for weights that are not packed; TypeError or ValueError if none."""
    if char not in "fd":
        raise TypeError(char)
    kernels = weights.kernels(np.dtype(char), columns)
    plan = kernels.plan(chosen("dense", activation, columns), columns=columns)
    return plan, kernels.direct


@functools.lru_cache(256)
def _zeros(char: str, columns: int) -> np.ndarray:
    zeros = np.zeros(columns, char)
    zeros.flags.writeable = False
    return zeros


class PackedLayer(Frozen):
    """What layers with packed weights have in common. `_own` has one matrix, or two to multiply."""

    activation: str
    dtype: np.dtype[Any]
    in_features: int
    out_features: int
    weights_dtype: str | None
    _activated: Activated | None
    _has_bias: tuple[bool, ...]
    _own: weights.Weights  # in the type that the layer computes in for inputs of its dtype
    _packed: dict[str, weights.Weights]
    _call: weights.Layer
    _caller: str  # the class that error messages name
    _matrix = "W"  # the argument that determines the shape of the input

    def _set(
        self,
        matrices: dict[str, Any],
        biases: dict[str, Any],
        activated: Activated | None,
        weights_dtype: str | None,
    ) -> None:
        """Set the attributes, from checked arrays by the names of the arguments."""
        dtype = common_type(self._caller, **matrices, **biases)
        if weights_dtype is not None:
            dtype = min(dtype, np.dtype(np.float32), key=lambda dtype: dtype.itemsize)
            matrices = {
                name: _in_format(self._caller, name, W, weights_dtype)
                for name, W in matrices.items()
            }
        computed = compute_dtype(dtype)
        own = _pack(list(matrices.values()), list(biases.values()), activated, computed)
        depth, columns = own.shape
        self._fix(
            activation=IDENTITY if activated is None else activated.name,
            dtype=dtype,
            in_features=depth,
            out_features=columns,
            weights_dtype=weights_dtype,
            _activated=activated,
            _has_bias=tuple(b is not None for b in biases.values()),
            _own=own,
            _packed={computed.char: own},
            _call=own.call,
        )

    @property
    def parameters(self) -> dict[str, NDArray[Any] | float]:
        return {} if self._activated is None else self._activated.named()

    def _unpacked(self, k: int = 0) -> np.ndarray:
        """The matrix with index k as it is used, as a new array."""
        w = self._own.unpacked(k)
        return convert.converted(w, self.dtype) if self.weights_dtype is None else w

    def _stored(self, k: int = 0) -> np.ndarray | Compact:
        """The same as it is stored, which ``__init__`` accepts."""
        if self.weights_dtype is None:
            return self._unpacked(k)
        return self._own.compact(k)._replace(dtype=self.dtype)

    def _bias(self, k: int = 0) -> np.ndarray | None:
        """Its bias, as a new array, or None."""
        if not self._has_bias[k]:
            return None
        return convert.converted(self._own.biases[k].copy(), self.dtype)

    def __call__(self, x: ArrayLike, *, out: NDArray[Any] | None = None) -> NDArray[Any]:
        """The result for x of shape (..., K), in `out` or a new array."""
        y = self._call(x, out)
        return self._carefully(x, out) if y is None else y

    def _carefully(self, x: Any, out: Any, saved: Any = None) -> np.ndarray:
        """The result for operands of any type and layout, or an error that says what is wrong."""
        x = as_array(self._caller, "x", x)
        check_input(self._caller, x, (self.in_features, self.out_features), self._matrix)
        result = common_type(self._caller, x=x, W=self)
        y = output(self._caller, out, x, self.out_features, result)
        check_overlap(self._caller, y, x=x)
        saved = _saved(self._caller, saved, result, y, x=x)
        _blockwise(self._packed_as(compute_dtype(result)), x, y, saved)
        return y

    def _packed_as(self, dtype: np.dtype) -> weights.Weights:
        """The weights packed in `dtype`, once for all callers."""
        found = self._packed.get(dtype.char)
        if found is None:
            own = self._own
            biases = [own.biases[k] if has else None for k, has in enumerate(self._has_bias)]
            matrices: list[Any] = [own.unpacked(k) for k in range(len(biases))]
            made = _pack(matrices, biases, self._activated, dtype)
            found = self._packed.setdefault(dtype.char, made)
        return found

    def __repr__(self) -> str:
        return (
            f"{type(self).__name__}({self.in_features} -> {self.out_features}, "
            f"{self._activated or IDENTITY}, {self.dtype}"
            + (f", weights {self.weights_dtype})" if self.weights_dtype else ")")
        )


class Dense(PackedLayer):
    """A layer ``activation(x @ W + b)`` that packs its weights once.

    Parameters
    ----------
    W : array_like, shape (K, N)
        The weights. The layer keeps a copy.
    b : array_like, shape (N,), optional
        The bias. Default is no bias.
    activation : str, ufunc, tuple or None, optional
        As for :func:`dense`.
    weights_dtype : {None, "bfloat16", "float16", "int8"}, optional
        A format in which the weights take a half or a quarter of the memory of float32. They are
        widened to float32 when they are read. So a few rows are computed faster, if the weights are
        larger than the caches. Default is the format in which the layer computes.

    Attributes
    ----------
    W : ndarray, shape (K, N)
        The weights as they are used, a new array each time: of the dtype of the layer, or float32
        if there is a `weights_dtype`.
    b : ndarray or None
        The bias, a new array each time.
    in_features, out_features : int
        K and N.
    dtype : dtype
        The common type of `W` and `b`, and the type of the result unless the input has a wider one.
        With `weights_dtype`, it is float32 instead of float64.
    activation : str
        The name of the activation, "identity" for none.
    parameters : dict
        The parameters of the activation by name: a float, or an ndarray of shape (N,).
    weights_dtype : str or None
        As given.

    Raises
    ------
    ValueError, TypeError
        As for :func:`dense`. Also for an unknown `weights_dtype`, and for weights in int8 that are
        infinite or NaN.
    AttributeError
        If an attribute of the layer is set or deleted.

    Notes
    -----
    Weights in bfloat16 and float16 are rounded once, to nearest even. The result has the bits of a
    layer of float32 with these weights. Those in int8 have a float32 scale for each column, the
    largest magnitude in it divided by 127. A weight becomes the integer nearest to ``w / scale``.
    The sum of the products with these integers is multiplied by the scale when the bias is added
    (with one rounding, where the processor has an fma). So the result of such a layer differs from
    the exact one of its original weights by at most ``scale / 2 * sum(abs(x))``, and the rounding
    of the sum, at most ``(K + 1) * eps / 2 * (abs(x) @ abs(W) + abs(b))`` with the W of the layer.
    The sums must not overflow before they are multiplied: ``127 * sum(abs(x))`` has to be less
    than 3.4e38. An input of float64 is computed in float64, with the W of the layer.

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
    >>> fa.Dense(np.ones((3, 2), np.float32), activation=fa.sigmoid, weights_dtype="int8")
    Dense(3 -> 2, sigmoid, float32, weights int8)
    """

    __module__ = "fastact"  # for pickles, which stay valid if modules move inside the package

    _caller = "Dense"

    def __init__(
        self,
        W: ArrayLike,
        b: ArrayLike | None = None,
        activation: ActivationLike = IDENTITY,
        weights_dtype: str | None = None,
    ):
        given: Any = W
        if not isinstance(given, Compact):  # which copies of layers have
            given = as_array("Dense", "W", given)
        b = None if b is None else as_array("Dense", "b", b)
        check_weights("Dense", given, b)
        activated = chosen("Dense", activation, given.shape[1])
        self._set({"W": given}, {"b": b}, activated, weights_dtype)

    @property
    def W(self) -> np.ndarray:
        """The weights as they are used, as a new array."""
        return self._unpacked()

    @property
    def b(self) -> np.ndarray | None:
        """The bias, as a new array, or None."""
        return self._bias()

    def __call__(
        self,
        x: ArrayLike,
        *,
        out: NDArray[Any] | None = None,
        saved: NDArray[Any] | None = None,
    ) -> NDArray[Any]:
        """``activation(x @ W + b)`` for x of shape (..., K); see :func:`dense`."""
        if saved is None:
            y = self._call(x, out)
            if y is not None:
                return y
        return self._carefully(x, out, saved)

    def __reduce__(self) -> tuple[Any, ...]:
        activation = None if self._activated is None else self._activated.argument
        arguments = (self._stored(), self._bias(), activation, self.weights_dtype)
        return again, (type(self), Dense, *arguments), self.__getstate__()


def _forward(
    caller: str, x: Any, W: np.ndarray, b: np.ndarray | None, activation: Any, out: Any, saved: Any
) -> np.ndarray:
    """The result for operands of any type and layout, or an error that says what is wrong."""
    x = as_array(caller, "x", x)
    check_weights(caller, W, b)
    activated = chosen(caller, activation, W.shape[1])
    check_input(caller, x, W.shape)
    result = common_type(caller, x=x, W=W, b=b)
    y = output(caller, out, x, W.shape[1], result)
    check_overlap(caller, y, x=x, W=W, b=b)
    saved = _saved(caller, saved, result, y, x=x, W=W, b=b)
    if y.size:
        packed = _pack([W], [b], activated, compute_dtype(result), temporary=True)
        _blockwise(packed, x, y, saved)
        packed.give_back()
    return y


def _saved(
    caller: str, saved: Any, dtype: np.dtype, y: np.ndarray, **inputs: np.ndarray | None
) -> np.ndarray | None:
    """Check the array for the input of the activation."""
    if saved is None:
        return None
    output(caller, saved, y, y.shape[-1], dtype, "saved")
    check_overlap(caller, saved, "saved", out=y, **inputs)
    return saved  # type: ignore[no-any-return] # checked


def _in_format(caller: str, name: str, W: np.ndarray | Compact, form: Any) -> Compact:
    """`W`, the argument `name`, as weights of fewer bits."""
    if not isinstance(form, str) or form not in NAMES:
        known = ", ".join(map(repr, NAMES))
        raise ValueError(f"{caller}: weights_dtype must be None or one of {known}, got {form!r}")
    if isinstance(W, Compact):
        return W
    return compacted(caller, name, convert.converted(W, common_type(caller, **{name: W})), form)


def _pack(
    matrices: list[np.ndarray | Compact],
    biases: list[np.ndarray | None],
    activated: Activated | None,
    dtype: np.dtype,
    temporary: bool = False,
) -> weights.Weights:
    layers: list[Any] = [
        (
            # With this very dtype object.
            W if isinstance(W, Compact) else np.require(convert.converted(W, dtype), dtype, "A"),
            None if b is None else convert.converted(b, dtype),
        )
        for W, b in zip(matrices, biases, strict=True)
    ]
    (W, b), *second = layers
    return weights.Weights(W, b, activated, temporary, second[0] if second else None)


def _blockwise(
    packed: weights.Weights, x: np.ndarray, y: np.ndarray, saved: np.ndarray | None = None
) -> None:
    """Compute y from x, in blocks of converted rows where compiled code refuses the arrays."""
    if x.ndim == 1:
        x, y = x[np.newaxis], y[np.newaxis]
        saved = None if saved is None else saved[np.newaxis]
    done = packed.call(x, y) if saved is None else packed.call_saving(x, y, saved)
    if done is not None:
        return
    if x.ndim > 2:
        for k, (x_part, y_part) in enumerate(zip(x, y, strict=True)):
            _blockwise(packed, x_part, y_part, None if saved is None else saved[k])
        return
    depth, columns = packed.shape
    rows = min(len(x), max(1, _BLOCK // (packed.dtype.itemsize * (depth + columns or 1))))
    source, *sinks = (np.empty((rows, width), packed.dtype) for width in (depth, columns, columns))
    for start in range(0, len(x), rows or 1):
        part = x[start : start + rows]
        convert.copy(part, source[: len(part)])
        given, sink, kept = (buffer[: len(part)] for buffer in (source, *sinks))
        done = packed.call(given, sink) if saved is None else packed.call_saving(given, sink, kept)
        if done is None:
            raise RuntimeError("the compiled layer refused operands that were converted for it")
        convert.copy(sink, y[start : start + rows])
        if saved is not None:
            convert.copy(kept, saved[start : start + rows])


def check_weights(
    caller: str, W: np.ndarray, b: np.ndarray | None = None, names: tuple[str, str] = ("W", "b")
) -> None:
    if W.ndim != 2:
        raise ValueError(f"{caller}: {names[0]} must have shape (K, N), got shape {W.shape}")
    if b is not None and b.shape != W.shape[1:]:
        raise ValueError(
            f"{caller}: {names[1]} must have shape {W.shape[1:]} to match the columns of "
            f"{names[0]} of shape {W.shape}, got shape {b.shape}"
        )


def check_input(caller: str, x: np.ndarray, shape: tuple[int, int], name: str = "W") -> None:
    if x.ndim == 0 or x.shape[-1] != shape[0]:
        raise ValueError(
            f"{caller}: x must have shape (..., {shape[0]}) to match {name} of shape {shape}, "
            f"got shape {x.shape}"
        )


def output(
    caller: str, out: Any, x: np.ndarray, columns: int, dtype: np.dtype, name: str = "out"
) -> np.ndarray:
    shape = (*x.shape[:-1], columns)
    if out is None:
        return np.empty(shape, dtype)
    if not isinstance(out, np.ndarray):
        raise TypeError(f"{caller}: {name} must be an ndarray, got {type(out).__name__}")
    if out.shape != shape:
        raise ValueError(f"{caller}: {name} must have shape {shape}, got shape {out.shape}")
    check_unmasked(caller, name, out, remedy="data")
    # NumPy also casts numbers to text, to objects, and to the small integers of ml_dtypes.
    inexact = out.dtype.kind in "fc" or "float" in out.dtype.name or "complex" in out.dtype.name
    if not inexact or not np.can_cast(dtype, out.dtype, "same_kind"):
        raise TypeError(
            f"{caller}: {name} must be of a type that {dtype} can be cast to, got dtype {out.dtype}"
        )
    if not out.flags.writeable:
        raise ValueError(f"{caller}: {name} must be writeable, got a read-only array")
    return out


def check_overlap(
    caller: str, out: np.ndarray, name: str = "out", /, **inputs: np.ndarray | None
) -> None:
    for other, operand in inputs.items():
        if operand is None:
            continue
        try:
            shared = np.shares_memory(out, operand, max_work=10_000)  # type: ignore[arg-type] # any int
        except np.exceptions.TooHardError:
            shared = True
        if shared:
            raise ValueError(
                f"{caller}: {name} must not overlap {other}, got arrays that share memory"
            )
    if _overlaps_itself(out):
        raise ValueError(
            f"{caller}: {name} must not overlap itself, got shape {out.shape} with strides "
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
