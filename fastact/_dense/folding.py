"""A model as a list of parts, and its parts folded into few dense layers.

Readers of models of other libraries (``from_sklearn``, ``from_torch``) write what they find as a
list of parts, in the order in which they are applied to a row:

``Affine(name, W, b)``
    ``y = x @ W + b``, in the type of the weights.
``Scaling(name, scale, shift)``
    ``y = x * scale + shift``, a number for each column, or one for all.
``Activation(name, function)``
    Whatever layers accept: "relu", or ``("prelu", slope)``; "identity" is left out.

`name` says where the part is in the model, and begins the message of every error about it.
`standardization`, `batch_normalization` and `clip` write common layers as parts. What does nothing
(dropout, "passthrough") is no part. `fold` makes the layers.

What is folded
    A scaling becomes a part of the affine map before it (of its columns), or else of that after it
    (of its rows: ``b' = b + shift @ W``). Scalings next to each other become one. Two affine maps,
    from K to M and from M to N columns, become one if that takes no more products: K N instead of
    K M + M N.

What is left
    A scaling without an affine map between the same activations becomes a part of the weight and
    bias of the normalization directly before it (of the weight alone, if it adds nothing). Without
    one, or in a model without an affine map, it becomes an affine map with a diagonal matrix. A row
    takes K**2 products then, and an infinity in it makes the others NaN. No other layer computes
    this, and to refuse the model would help nobody.
    Nothing is folded whose weights would not be finite in the type of the layer: two layers can
    multiply by 1e30 each in float32, one cannot multiply by 1e60.

Types
    A folded layer has the common type of the affine maps in it, as if the scalings had none:
    scikit-learn has scalings of float64 for estimators of float32. A diagonal matrix has the common
    type of all affine maps of the model, or float64 if there are none, or if it would overflow.

Accuracy
    All arithmetic is in float64, independent of BLAS and of the floating-point environment, and
    weights are rounded once to the type of the layer. (Products of two numbers of float32 are exact
    in float64.) So a folded layer is the exact one with weights that are wrong by a relative error
    `c` of the sum of the absolute values of all products that they consist of: half an eps of
    float16, bfloat16 or float32, where subnormal weights have half of the smallest number as an
    absolute error besides; in float64, an eps for each term of the longest sum and for each part.
    Rounding errors of products and sums in layers are bounded in the same way, and are larger.

    An original that subtracts the mean of each column first has smaller errors for columns whose
    mean is many times their deviation. A folded layer has errors as if each element of its input
    had a relative error of a few eps: of a column with a mean of 1000 deviations, the last three
    digits are lost.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias, TypeVar

import numpy as np

from fastact._declarations.records import NORMALIZATIONS
from fastact._dense.activated import IDENTITY, Activated, ActivationLike, chosen
from fastact._dense.layers import Dense, dense
from fastact._runtime.convert import converted
from fastact._runtime.operands import common_type
from fastact._runtime.undisturbed import undisturbed

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

_FLOAT64 = np.dtype(np.float64)


class Affine(NamedTuple):
    """``y = x @ W + b``.

    Attributes
    ----------
    name : str
        Where the part is in the model.
    W : ndarray, shape (K, N)
    b : ndarray, shape (N,), or None
    """

    name: str
    W: np.ndarray
    b: np.ndarray | None = None


class Scaling(NamedTuple):
    """``y = x * scale + shift``, column by column.

    Attributes
    ----------
    name : str
        Where the part is in the model.
    scale, shift : array_like, shape (N,) or ()
        Finite numbers, in any type that float64 contains.
    """

    name: str
    scale: ArrayLike = 1.0
    shift: ArrayLike = 0.0


class Activation(NamedTuple):
    """An activation.

    Attributes
    ----------
    name : str
        Where the part is in the model.
    function : str, ufunc, tuple or None
        As for :func:`dense`: with parameters, a tuple of the function and their values.
    """

    name: str
    function: ActivationLike = IDENTITY


Part: TypeAlias = Affine | Scaling | Activation


def standardization(name: str, mean: ArrayLike | None, deviation: ArrayLike | None) -> Scaling:
    """``(x - mean) / deviation``, where None means 0 and 1."""
    center = _float64(0.0 if mean is None else mean)
    divisor = _float64(1.0 if deviation is None else deviation)
    return undisturbed(lambda: Scaling(name, 1 / divisor, -center / divisor))


def batch_normalization(
    name: str,
    mean: ArrayLike,
    variance: ArrayLike,
    epsilon: float,
    gamma: ArrayLike | None = None,
    beta: ArrayLike | None = None,
) -> list[Part]:
    """``(x - mean) / sqrt(variance + epsilon) * gamma + beta``, where None means 1 and 0."""
    deviation = undisturbed(lambda: np.sqrt(_float64(variance) + epsilon))
    scale, shift = 1.0 if gamma is None else gamma, 0.0 if beta is None else beta
    return [standardization(name, mean, deviation), Scaling(name, scale, shift)]


def clip(name: str, low: float, high: float) -> list[Part]:
    """``minimum(maximum(x, low), high)``, by hard_tanh between two scalings.

    Results between the limits have an error of a few eps of the larger limit, instead of none.
    """
    if (low, high) == (-1, 1):
        return [Activation(name, "hard_tanh")]
    if (low, high) == (0, 6):
        return [Activation(name, "relu6")]
    middle, half = low / 2 + high / 2, high / 2 - low / 2
    return [
        standardization(name, middle, half),
        Activation(name, "hard_tanh"),
        Scaling(name, half, middle),
    ]


def fold(caller: str, parts: Iterable[Part]) -> list[Dense | Activated]:
    """The layers of a model, each with the activation that follows it.

    Parameters
    ----------
    caller : str
        The function that error messages name.
    parts : iterable of Affine, Scaling and Activation

    Returns
    -------
    list of Dense and Activated
        An activation is by itself if no layer is directly before it.

    Raises
    ------
    ValueError
        For parts whose widths do not match, scalings that are not finite, and as for
        :func:`dense`. The message has the name of the part. Also if no layer has weights.
    TypeError
        As for :func:`dense`.
    """
    runs = _resolved(caller, parts)
    maps = {
        f"{k}": m for k, m in enumerate(m for run, _ in runs for m in run if isinstance(m, _Map))
    }
    common = common_type(caller, **maps) if maps else _FLOAT64
    runs = [(_with_scalings(run), activated) for run, activated in runs]
    if maps:  # or nothing would be left that is a layer
        runs = _normalized(runs, common)
    layers: list[Dense | Activated] = []
    for run, activated in runs:
        folded = _joined(
            [m if isinstance(m, _Map) else _diagonal(m, common) for m in run], _one_map
        )
        for m in folded:
            last = m is folded[-1]
            layers.append(Dense(*m.rounded(), activated if last and activated else IDENTITY))
        if not folded and activated:
            layers.append(activated)
    if not any(isinstance(layer, Dense) for layer in layers):
        found = ", ".join(map(str, layers)) or "nothing"
        raise ValueError(
            f"{caller}: the model must have at least one layer with weights, got {found}"
        )
    return layers


class _Map(NamedTuple):
    """An affine map, as given or in float64, and the type to which its weights are rounded."""

    W: np.ndarray
    b: np.ndarray | None
    dtype: np.dtype[Any]

    def rounded(self) -> tuple[np.ndarray, np.ndarray | None]:
        """The weights in the type of the layer."""
        b = None if self.b is None else converted(self.b, self.dtype)
        return converted(self.W, self.dtype), b

    def wide(self) -> tuple[np.ndarray, np.ndarray | None]:
        return _float64(self.W), None if self.b is None else _float64(self.b)

    def fits(self) -> bool:
        """Whether the weights are finite in the type of the layer."""
        return all(a is None or bool(np.isfinite(a).all()) for a in self.rounded())


class _Scaled(NamedTuple):
    """A scaling, with arrays of float64 of shape (N,)."""

    scale: np.ndarray
    shift: np.ndarray


_Run: TypeAlias = "list[_Map | _Scaled]"


def _with_scalings(run: _Run) -> _Run:
    """`run` with the scalings that the affine maps beside them take."""
    run = _joined(run, _one_scaling)
    run = _joined(run, _of_columns)
    return _joined(run, _of_rows)


def _normalized(
    runs: list[tuple[_Run, Activated | None]], common: np.dtype
) -> list[tuple[_Run, Activated | None]]:
    """`runs` with the scalings that the normalizations before them take."""
    found: list[tuple[_Run, Activated | None]] = []
    for run, activated in runs:
        if found and run and isinstance(run[0], _Scaled):
            before, normalization = found[-1]
            scaled = _scaled_normalization(normalization, run[0], common)
            if scaled is not None:
                found[-1], run = (before, scaled), run[1:]
        found.append((run, activated))
    return found


def _scaled_normalization(
    activated: Activated | None, scaled: _Scaled, common: np.dtype
) -> Activated | None:
    """A normalization whose weight, and bias if it has one, include `scaled`; else None."""
    if activated is None or activated.name not in NORMALIZATIONS:
        return None
    *rows, epsilon = activated.parameters
    shifts: list[ArrayLike] = [-0.0, scaled.shift]
    if len(rows) < 2 and scaled.shift.any():
        return None
    values = [
        np.broadcast_to(_scaled_by(_float64(row), scaled, shift), scaled.scale.shape)
        for row, shift in zip(rows, shifts, strict=False)
    ]
    if not all(np.isfinite(converted(row, common)).all() for row in values):
        return None
    return Activated(activated.name, (*(tuple(row.tolist()) for row in values), epsilon))


T = TypeVar("T")


def _joined(run: list[T], join: Callable[[T, T], T | None]) -> list[T]:
    """Each two neighbours replaced by what `join` makes of them, until it returns None for all."""
    k = 1
    while k < len(run):
        one = join(run[k - 1], run[k])
        if one is None:
            k += 1
        else:
            run, k = [*run[: k - 1], one, *run[k + 1 :]], max(k - 1, 1)
    return run


def _one_scaling(first: _Map | _Scaled, second: _Map | _Scaled) -> _Scaled | None:
    if isinstance(first, _Map) or isinstance(second, _Map):
        return None
    scale, shift = _scaled_by(first.scale, second), _scaled_by(first.shift, second, second.shift)
    found = _Scaled(scale, shift)
    return found if np.isfinite(found).all() else None


def _of_columns(first: _Map | _Scaled, second: _Map | _Scaled) -> _Map | None:
    if isinstance(first, _Scaled) or isinstance(second, _Map):
        return None
    b = second.shift if first.b is None else _scaled_by(first.b, second, second.shift)
    found = _Map(_scaled_by(first.W, second), b, first.dtype)
    return found if found.fits() else None


def _of_rows(first: _Map | _Scaled, second: _Map | _Scaled) -> _Map | None:
    if isinstance(first, _Map) or isinstance(second, _Scaled):
        return None
    b = dense(first.shift, *second.wide())
    found = _Map(_scaled_by(second.W.T, first).T, b, second.dtype)
    return found if found.fits() else None


def _one_map(first: _Map, second: _Map) -> _Map | None:
    (K, M), N = first.W.shape, second.W.shape[1]
    if K * N > K * M + M * N:
        return None
    (first_W, first_b), (W, b) = first.wide(), second.wide()
    if first_b is not None:
        b = dense(first_b, W, b)
    found = _Map(dense(first_W, W), b, common_type("fold", first=first, second=second))
    return found if found.fits() else None


def _scaled_by(values: np.ndarray, scaled: _Scaled, shift: ArrayLike = -0.0) -> np.ndarray:
    wide = _float64(values)
    # Adding -0.0 changes nothing, not even the sign of 0.
    return undisturbed(lambda: wide * scaled.scale + shift)


def _diagonal(scaled: _Scaled, common: np.dtype) -> _Map:
    made = _Map(np.diag(scaled.scale), scaled.shift, common)
    return made if made.fits() else made._replace(dtype=_FLOAT64)


def _resolved(caller: str, parts: Iterable[Part]) -> list[tuple[_Run, Activated | None]]:
    """The maps and scalings between activations, with the activation after them, all checked."""
    parts = list(parts)
    # Nothing before the first of these changes the width.
    known = ((found, part.name) for part in parts if (found := _width(caller, part)) is not None)
    width, before = next(known, (None, ""))
    runs: list[tuple[_Run, Activated | None]] = []
    run: _Run = []
    for part in parts:
        found = _width(caller, part)
        if found not in (None, width):
            raise ValueError(
                f"{caller}: {part.name} must have {width} input features to match {before}, got "
                f"{found}"
            )
        if isinstance(part, Activation):
            activated = chosen(f"{caller}: {part.name}", part.function, width)
            if activated is not None:
                runs.append((run, activated))
                run = []
        elif isinstance(part, Scaling):
            run.append(_scaled(caller, part, width))
        else:
            types = {f"{part.name} (W)": part.W, f"{part.name} (b)": part.b}
            run.append(_Map(part.W, part.b, common_type(caller, **types)))
            width, before = part.W.shape[1], part.name
    return [*runs, (run, None)]


def _width(caller: str, part: Part) -> int | None:
    """The number of columns that a part is for; None if it is for any number."""
    if isinstance(part, Activation):
        return None
    if isinstance(part, Affine):
        W, b = part.W.shape, None if part.b is None else part.b.shape
        if len(W) != 2 or b not in (None, W[1:]):
            raise ValueError(
                f"{caller}: {part.name} must have W of shape (K, N), and b of shape (N,) or None, "
                f"got shapes {W} and {b}"
            )
        return int(W[0])
    scale, shift = np.shape(part.scale), np.shape(part.shift)
    longest = max(scale, shift)
    if len(longest) > 1 or any(shape not in ((), longest) for shape in (scale, shift)):
        raise ValueError(
            f"{caller}: {part.name} must have scale and shift of shape (N,) or (), got shapes "
            f"{scale} and {shift}"
        )
    return longest[0] if longest else None


def _scaled(caller: str, part: Scaling, width: int | None) -> _Scaled:
    if width is None:
        raise ValueError(
            f"{caller}: {part.name} must have a number of columns, got a model without layers"
        )
    found = _Scaled(*(np.broadcast_to(_float64(a), width) for a in (part.scale, part.shift)))
    wrong = ~np.isfinite(found).all(axis=0)
    if wrong.any():
        column = int(wrong.argmax())
        raise ValueError(
            f"{caller}: {part.name} must multiply by finite numbers and add such, got "
            f"{found.scale[column]} and {found.shift[column]} for column {column}"
        )
    return found


def _float64(values: ArrayLike) -> np.ndarray:
    array = np.asarray(values)
    return converted(np.atleast_1d(array), _FLOAT64).reshape(array.shape)
