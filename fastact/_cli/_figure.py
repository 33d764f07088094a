"""Curves as in a textbook, drawn by matplotlib."""

import contextlib
import io
import math
import re
import textwrap
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from fastact._cli._curve import Asymptote, Curve

_PANEL = (3.6, 2.6)  # inches; the size of the axes of one function
_RATIO = _PANEL[1] / _PANEL[0]
_MARGIN = 0.14  # above and below the curves, as a fraction of their height
_DPI = 200
_STYLE: dict[Any, Any] = {
    "font.family": "DejaVu Serif",  # comes with matplotlib
    "font.size": 8,
    "axes.titlesize": 9.5,
    "svg.hashsalt": "fastact",  # without it, names within the file are random
}
_INK = "#333333"
_FUNCTION: dict[str, Any] = {"color": "#0b4f9e", "linewidth": 2.4, "zorder": 4}
_DERIVATIVE: dict[str, Any] = {"color": "#d9730d", "linewidth": 1.3, "zorder": 5}
_ASYMPTOTE: dict[str, Any] = {"color": "#2c8a57", "linewidth": 1.2, "dashes": (5, 3), "zorder": 3}
_Sides = tuple[dict[str, Any], dict[str, Any]]  # arguments of annotate, for either side
_LEFT_OR_RIGHT: _Sides = (
    {"xytext": (-5, 0), "ha": "right", "va": "center_baseline"},
    {"xytext": (5, 0), "ha": "left", "va": "center_baseline"},
)
_BELOW_OR_ABOVE: _Sides = (
    {"xytext": (0, -5), "ha": "center", "va": "top"},
    {"xytext": (0, 5), "ha": "center", "va": "bottom"},
)
# Behind a number, to interrupt a line there.
_GAP: dict[str, Any] = {"facecolor": "white", "edgecolor": "none", "pad": 0.6}


def rendered(panels: Mapping[str, Curve], form: str) -> bytes:
    """A picture of the curves: always the same bytes with the same version of matplotlib.

    Parameters
    ----------
    panels : mapping
        Curves by title.
    form : str
        The file format: "pdf", "png" or "svg".

    Returns
    -------
    bytes
        The content of a file.
    """
    # PNG has no date to leave out.
    undated = {"pdf": {"CreationDate": None}, "svg": {"Date": None}}.get(form)
    file = io.BytesIO()
    with styled():
        figure(panels).savefig(file, format=form, dpi=_DPI, metadata=undated)
    return file.getvalue()


@contextlib.contextmanager
def styled() -> Iterator[None]:
    """Within the context, matplotlib has the settings that :func:`figure` needs, not the user's."""
    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(_STYLE)
        yield


def figure(panels: Mapping[str, Curve]) -> Figure:
    """A panel for each curve, and a legend; without a window, and unknown to pyplot."""
    columns = min(len(panels), 2 if len(panels) == 4 else 3 if len(panels) <= 12 else 4)
    rows = math.ceil(len(panels) / columns)
    size = columns * (_PANEL[0] + 0.4), rows * (_PANEL[1] + 0.6) + 0.3
    page = Figure(size, layout="constrained")
    layout: Any = page.get_layout_engine()
    layout.set(w_pad=0.12, h_pad=0.12)
    grid = page.add_gridspec(rows, 2 * columns)
    # Functions between -1 and 1 share their range of y, so that heights can be compared.
    bounded = [curve for curve in panels.values() if np.abs(curve.limits).max() <= 1]
    for i, (title, curve) in enumerate(panels.items()):
        row, column = divmod(i, columns)
        vacant = columns - min(columns, len(panels) - row * columns)  # half of it on either side
        start = vacant + 2 * column
        axes = page.add_subplot(grid[row, start : start + 2])
        axes.set_title(_typeset(title), pad=12)
        _set_ranges(axes, curve, bounded if curve in bounded else [curve])
        _draw_axes(axes, curve)
        for asymptote in curve.asymptotes:
            _draw_asymptote(axes, curve, asymptote)
        _draw_curve(axes, curve)
    lines = [Line2D([], [], **_FUNCTION), Line2D([], [], **_DERIVATIVE)]
    names = ["function", "derivative"]
    if any(curve.asymptotes for curve in panels.values()):
        lines.append(Line2D([], [], **_ASYMPTOTE))
        names.append("asymptote")
    page.legend(lines, names, loc="outside lower center", ncols=len(names), frameon=False)
    return page


def _typeset(formula: str) -> str:
    signs = formula.replace(">=", "\N{GREATER-THAN OR EQUAL TO}")
    signs = signs.replace("<=", "\N{LESS-THAN OR EQUAL TO}")
    signs = re.sub(r"(?<!\w)-", "\N{MINUS SIGN}", signs)
    return "\n".join(textwrap.wrap(signs, 46))


def _number(value: float) -> str:
    return f"{value:.4g}".replace("-", "\N{MINUS SIGN}")


def _set_ranges(axes: Axes, curve: Curve, alike: Iterable[Curve]) -> None:
    """Set the ranges to fit the curve, with the height that the curves `alike` need together."""
    values = [0.0]
    for one in alike:
        values += [v for piece in one.pieces for v in piece.y]
        values += [v for v in one.limits if np.isfinite(v)]
    low, high = min(values), max(values)
    # A derivative that is much larger than the function is cut off.
    slopes = np.concatenate([piece.slope for piece in curve.pieces])
    most = max(high - low, 2.0)
    low, high = min(low, max(slopes.min(), low - most)), max(high, min(slopes.max(), high + most))
    left, right = curve.pieces[0].x[0], curve.pieces[-1].x[-1]
    arrow = 0.03 * (right - left)  # beyond the curves
    left, right = left - arrow, right + arrow
    height = (high - low) * (1 + 2 * _MARGIN)
    if not np.isfinite(curve.limits).all():  # equal units of x and y, if the curve fits
        height = max(height, (right - left) * _RATIO)
    low, high = (low + high - height) / 2, (low + high + height) / 2
    axes.set(xlim=(left, right), ylim=(low, high), box_aspect=_RATIO)


def _draw_axes(axes: Axes, curve: Curve) -> None:
    """Draw axes with arrows, through the origin or as near to it as possible."""
    (left, right), (low, high) = axes.get_xlim(), axes.get_ylim()
    across, up = np.clip(0, low, high), np.clip(0, left, right)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines["bottom"].set(position=("data", across), color=_INK, linewidth=0.8)
    axes.spines["left"].set(position=("data", up), color=_INK, linewidth=0.8)
    arrow: dict[str, Any] = {"color": _INK, "markersize": 4, "clip_on": False}
    axes.plot(right, across, ">", **arrow)
    axes.plot(up, high, "^", **arrow)
    near: dict[str, Any] = {"textcoords": "offset points", "color": _INK, "annotation_clip": False}
    axes.annotate("x", (right, across), (6, 0), va="center", style="italic", **near)
    axes.annotate("y", (up, high), (6, 0), va="center", style="italic", **near)
    axes.tick_params(color=_INK, length=3, width=0.8)
    for x in (xs := _ticks(left, right, up)):
        _draw_number(axes, curve, x, (x, across), _BELOW_OR_ABOVE)
    for y in (ys := _ticks(low, high, across)):
        _draw_number(axes, curve, y, (up, y), _LEFT_OR_RIGHT)
    axes.set_xticks(xs, [""] * len(xs))
    axes.set_yticks(ys, [""] * len(ys))


def _ticks(start: float, stop: float, crossing: float) -> list[float]:
    """Round numbers, except at the arrow and where the axes cross."""
    ticks: Any = MaxNLocator(8, steps=[1, 2, 5, 10]).tick_values(start, stop)
    arrow = (stop - start) * 0.02
    inside = (ticks >= start) & (ticks < stop - arrow)
    found: list[float] = ticks[inside & ~np.isclose(ticks, crossing)].tolist()
    return found


def _draw_number(
    axes: Axes, curve: Curve, value: float, at: tuple[float, float], sides: _Sides
) -> None:
    """Write `value` beside a tick, on the first side unless curves come too near."""
    extent = np.ptp([axes.get_xlim(), axes.get_ylim()], axis=1)
    points = 72 * np.divide(_PANEL, extent)[:, None]  # per unit of x and of y
    lines = [np.array([p.x, y]) for p in curve.pieces for y in (p.y, p.slope)]
    apart = (np.concatenate(lines, axis=1) - np.array(at)[:, None]) * points

    def room(side: dict[str, Any]) -> Any:  # from about the middle of the number to the curves
        return np.hypot(*(apart - 2 * np.array(side["xytext"])[:, None])).min()

    side = sides[0] if room(sides[0]) > 8 else max(sides, key=room)
    axes.annotate(
        _number(value), at, textcoords="offset points", color=_INK, annotation_clip=False,
        bbox=_GAP, zorder=3.5, **side,
    )  # fmt: skip


def _draw_curve(axes: Axes, curve: Curve) -> None:
    for piece in curve.pieces:
        axes.plot(piece.x, piece.y, solid_capstyle="butt", **_FUNCTION)
        axes.plot(piece.x, piece.slope, solid_capstyle="butt", **_DERIVATIVE)
    for i, found in enumerate(curve.breaks):
        left, right = curve.pieces[i], curve.pieces[i + 1]
        # Rings mark limits that are not values. Those of the derivative are wider, since the
        # function may have the same limit. A dot marks the value of the function.
        ring: dict[str, Any] = {"marker": "o", "linestyle": "none", "markerfacecolor": "white"}
        x = [found.x] * 2
        slopes = [left.slope[-1], right.slope[0]]
        axes.plot(x, slopes, **_DERIVATIVE | ring | {"markersize": 7, "zorder": 6})
        if found.jumps:
            ys = [left.y[-1], right.y[0]]
            axes.plot(x, ys, **_FUNCTION | ring | {"markersize": 4.5, "zorder": 7})
        axes.plot(found.x, found.value, "o", **_FUNCTION | {"markersize": 4, "zorder": 8})


def _draw_asymptote(axes: Axes, curve: Curve, line: Asymptote) -> None:
    """Draw the line, and its equation where the curve is not."""
    (left, right), (low, high) = axes.get_xlim(), axes.get_ylim()
    x: Any = np.array([left, right])
    axes.plot(x, line.slope * x + line.intercept, scalex=False, scaley=False, **_ASYMPTOTE)
    label: dict[str, Any] = {
        "text": _equation(line),
        "textcoords": "offset points",
        "color": _ASYMPTOTE["color"],
        "zorder": 7,
    }
    if line.slope == 0:  # above the end that the curve does not approach
        end, ha = (right, "right") if line.side < 0 else (left, "left")
        axes.annotate(xy=(end, line.intercept), xytext=(0, 3), ha=ha, va="bottom", **label)
        return
    # Along the line, halfway from the y axis to where the line leaves the picture.
    outermost = curve.pieces[0 if line.side < 0 else -1]
    far = (high if line.slope * line.side > 0 else low, left if line.side < 0 else right)
    x = 0.5 * (min if line.side > 0 else max)((far[0] - line.intercept) / line.slope, far[1])
    y = line.slope * x + line.intercept
    curve_above = np.interp(x, outermost.x, outermost.y) > y
    axes.annotate(
        xy=(x, y), xytext=(0, -3 if curve_above else 3), ha="center",
        va="top" if curve_above else "bottom", rotation=math.degrees(math.atan(line.slope)),
        rotation_mode="anchor", transform_rotates_text=True, **label,
    )  # fmt: skip


def _equation(line: Asymptote) -> str:
    if line.slope == 0:
        return f"y = {_number(line.intercept)}"
    units: dict[float, str] = {1: "", -1: "\N{MINUS SIGN}"}
    factor = units.get(line.slope, _number(line.slope))
    sign = "+" if line.intercept > 0 else "\N{MINUS SIGN}"
    rest = f" {sign} {_number(abs(line.intercept))}" if line.intercept else ""
    return f"y = {factor}x{rest}"
