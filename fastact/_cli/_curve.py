"""What to draw of a function of one variable, found from its values.

These are smooth pieces with their derivatives, the points where the function jumps or bends, and
the lines that it approaches. All of it is for a picture: points are found to about 1e-7 of the
interval, far below a pixel.
"""

import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

Function = Callable[[np.ndarray], np.ndarray]

_CELLS = 1000  # of the interval; each may contain one jump or bend at most
_HALVINGS = 14  # of a cell, to 6e-8 of the interval
# Over so short a distance, smooth functions change by much less. So do their difference quotients,
# whose rounding errors are about 2**-52 / 6e-8 = 4e-9 of the height divided by the width.
_JUMP = 1e-3  # as a fraction of the largest value in the interval
# Heights below the smallest normal number count as that number: a thousandth of a subnormal one may
# round to 0, and then every rounding error would be a jump.
_LEAST_HEIGHT = float(np.finfo(np.float64).tiny)


@dataclass(frozen=True, eq=False)  # arrays have no truth value
class Piece:
    """Samples of a function and its derivative where both are continuous; at the ends, limits."""

    x: np.ndarray
    y: np.ndarray
    slope: np.ndarray


@dataclass(frozen=True)
class Break:
    """A point where one piece ends and the next begins: the function jumps, or else its slope."""

    x: float
    value: float
    jumps: bool


@dataclass(frozen=True)
class Asymptote:
    """The line slope * x + intercept, approached towards `side` (-1 or 1) times infinity."""

    side: int
    slope: float
    intercept: float


@dataclass(frozen=True, eq=False)
class Curve:
    """A function over an interval, with a break between any two pieces.

    `limits` are the limits towards negative and positive infinity.
    """

    limits: tuple[float, float]
    pieces: list[Piece]
    breaks: list[Break]
    asymptotes: list[Asymptote]


def trace(function: Function, low: float, high: float, derivative: Function | None = None) -> Curve:
    """Find what to draw of `function` between `low` and `high`.

    Parameters
    ----------
    function : callable
        Takes and returns float64 arrays; for infinities, it returns its limits.
    low, high : float
        The interval.
    derivative : callable, optional
        Takes and returns the same; by default, it is replaced by differences of values. In either
        case, jumps and bends are found from the values of `function`.

    Returns
    -------
    Curve
        Asymptotes on which the outermost piece lies, like those of the step, are left out.
    """
    near = (high - low) / (_CELLS << _HALVINGS)

    def slope(x: np.ndarray) -> np.ndarray:
        return (function(x + near) - function(x)) / near

    jumps = _jumps(function, low, high, _LEAST_HEIGHT)
    height = max(abs(function(np.linspace(low, high))).max(), _LEAST_HEIGHT)
    steady = height / (high - low)  # the scale of slopes
    bends = [
        x
        for start, stop in itertools.pairwise([low, *jumps, high])
        for x in _jumps(slope, start + 4 * near, stop - 4 * near, steady)
    ]
    breaks = [Break(x, float(function(np.array([x]))[0]), x in jumps) for x in jumps + bends]
    breaks.sort(key=lambda found: found.x)
    edges = [low, *(found.x for found in breaks), high]
    pieces = [_piece(function, derivative, *ends, 4 * near) for ends in itertools.pairwise(edges)]
    outermost = {-1: pieces[0], 1: pieces[-1]}
    limits = tuple(function(np.array([-np.inf, np.inf])).tolist())
    approached = [_asymptote(function, side) for side in outermost]
    asymptotes = [a for a in approached if a and not _lies_on(outermost[a.side], a)]
    return Curve(limits, pieces, breaks, asymptotes)


def _jumps(function: Function, low: float, high: float, least: float) -> list[float]:
    """Where `function` changes over a tiny distance, by more than `_JUMP` of its largest value.

    If that value is below `least`, it is replaced by `least`.
    """
    x = np.linspace(low, high, _CELLS + 1)
    threshold = _JUMP * max(abs(function(x)).max(), least)
    left, right = x[:-1], x[1:]
    for _ in range(_HALVINGS):
        middle = (left + right) / 2
        y = function(middle)
        to_left = abs(y - function(left)) > abs(function(right) - y)
        left, right = np.where(to_left, left, middle), np.where(to_left, middle, right)
    jumping = abs(function(right) - function(left)) > threshold
    near = right[0] - left[0]
    places = ((left + right) / 2)[jumping]
    # If the value at the point itself is between those on either side, as for the sign function
    # at 0, the jump is found twice, once from each side.
    places = places[np.diff(places, prepend=-np.inf) > 2 * near]
    digits = -math.ceil(math.log10(2 * near))  # those that are known: 0, not -4e-8
    return [place for place in (places.round(digits) + 0.0).tolist() if low < place < high]


def _piece(
    function: Function, derivative: Function | None, start: float, stop: float, margin: float
) -> Piece:
    """Samples from `start` to `stop`; the function is extrapolated to these from the inside."""
    x = np.linspace(start, stop, _CELLS + 1)
    inside = x.clip(start + margin, stop - margin)
    y = function(inside)
    slope = derivative(inside) if derivative else np.gradient(y, inside, edge_order=2)
    return Piece(x, y + slope * (x - inside), slope)


def _asymptote(function: Function, side: int) -> Asymptote | None:
    """The line that `function` approaches, if there is one."""
    # Not round numbers: at these, a function with waves might look like a line.
    x = side * np.array([np.inf, 1e6 / 3, 1e7 / 7, 1e9 / 11])
    limit, *y = function(x)
    if np.isfinite(limit):
        return Asymptote(side, 0.0, float(limit) + 0.0)
    with np.errstate(all="ignore"):  # results may be infinite
        slope = (y[1] - y[0]) / (x[2] - x[1])
        intercept = y[0] - slope * x[1]
        straight = abs(slope * x[3] + intercept - y[2]) < 1e-3
    if not straight:
        return None  # x**2, log x, floor x, or undefined there
    return Asymptote(side, round(float(slope), 5) + 0.0, round(float(intercept), 5) + 0.0)


def _lies_on(piece: Piece, line: Asymptote) -> bool:
    return np.allclose(piece.y, line.slope * piece.x + line.intercept, rtol=0, atol=1e-6)
