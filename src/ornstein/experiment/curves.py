"""Line charts as SVG markup embedded in a page: sharp at any size, dark or light.

Colours are the page's CSS variables, by the class of a line: `line-0` for the run, `line-1`, ... for what it is
compared with. A logarithmic axis has marks at whole decades, a linear one at round values.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape

#: of the drawing, in its own units, which are about pixels; and what is left for numbers and names
WIDTH, HEIGHT = 440, 280
_LEFT, _RIGHT, _TOP, _BOTTOM = 52, 12, 14, 44
#: values on an axis, about
_MARKS = 5


@dataclass(frozen=True)
class Line:
    """One line of a chart: its name, and its points."""

    name: str
    points: Sequence[tuple[float, float]]
    dots: bool = False


def chart(lines: Sequence[Line], x: str, y: str, *, log_x: bool = False, log_y: bool = False) -> str:
    """A chart as one `<svg>`.

    Args:
        lines: the run's own first. Points that are not finite, or not positive on a logarithmic axis, are left out.
        x, y: what the axes are.
        log_x, log_y: whether they are logarithmic; y only where all values are positive.

    Returns:
        The markup, all names escaped; "" where no line has a point.
    """
    log_y = log_y and all(value > 0 for line in lines for _, value in line.points if math.isfinite(value))
    kept = [
        Line(line.name, [p for p in line.points if all(map(math.isfinite, p)) and not (log_x and p[0] <= 0)], line.dots)
        for line in lines
    ]
    every = [point for line in kept for point in line.points]
    if not every:
        return ""
    across, marks_x = _axis([p[0] for p in every], log_x, _LEFT, WIDTH - _RIGHT)
    up, marks_y = _axis([p[1] for p in every], log_y, HEIGHT - _BOTTOM, _TOP)
    parts = [f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(y)} against {escape(x)}">']
    for value in marks_y:
        place = up(value)
        parts.append(f'<line class="grid" x1="{_LEFT}" x2="{WIDTH - _RIGHT}" y1="{place:.1f}" y2="{place:.1f}"/>')
        parts.append(f'<text x="{_LEFT - 6}" y="{place + 3.5:.1f}" text-anchor="end">{_written(value)}</text>')
    for value in marks_x:
        parts.append(
            f'<text x="{across(value):.1f}" y="{HEIGHT - _BOTTOM + 16}" text-anchor="middle">{_written(value)}</text>'
        )
    middle = (_LEFT + WIDTH - _RIGHT) / 2
    parts.append(f'<text class="axis" x="{middle}" y="{HEIGHT - 8}" text-anchor="middle">{escape(x)}</text>')
    for number, line in reversed(list(enumerate(kept))):  # the run's own on top
        places = " ".join(f"{across(a):.1f},{up(b):.1f}" for a, b in line.points)
        parts.append(f'<polyline class="line-{number}" points="{places}"/>')
        if line.dots:
            parts += [
                f'<circle class="dot-{number}" r="2.6" cx="{across(a):.1f}" cy="{up(b):.1f}"/>' for a, b in line.points
            ]
    return "".join([*parts, "</svg>"])


def legend(lines: Sequence[Line]) -> str:
    """The names of the lines beside their colours, as `<span>`s."""
    shown = [f'<span class="key"><i class="key-{n}"></i>{escape(line.name)}</span>' for n, line in enumerate(lines)]
    return "".join(shown) if len(lines) > 1 else ""


def _axis(values: Sequence[float], log: bool, start: float, end: float) -> tuple[Callable[[float], float], list[float]]:
    """Where a value stands between two ends of the drawing, and the values that are named."""

    def scale(value: float) -> float:
        return math.log10(value) if log else value

    low, high = scale(min(values)), scale(max(values))
    if not high > low:
        low, high = low - 0.5, high + 0.5
    room = 0.04 * (high - low)
    low, high = low - room, high + room

    def place(value: float) -> float:
        return start + (scale(value) - low) / (high - low) * (end - start)

    return place, _decades(low, high) if log and high - low > 1 else _round(low, high, log)


def _decades(low: float, high: float) -> list[float]:
    """Powers of ten within, every so many that they do not crowd."""
    first, last = math.ceil(low), math.floor(high)
    step = max(1, math.ceil((last - first + 1) / _MARKS))
    return [10.0**k for k in range(first, last + 1, step)]


def _round(low: float, high: float, log: bool) -> list[float]:
    """Values 1, 2 or 5 times a power of ten apart, within two ends; the ends are logarithms if `log`."""
    first, last = (10**low, 10**high) if log else (low, high)
    raw = (last - first) / _MARKS
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= raw)
    return [round(k * step, 12) for k in range(math.ceil(first / step), math.floor(last / step) + 1)]


def _written(value: float) -> str:
    if value and (abs(value) >= 1e5 or abs(value) < 1e-3):
        power = math.floor(math.log10(abs(value)) + 1e-9)
        lead = value / 10.0**power
        head = "" if abs(lead - 1) < 1e-9 else f"{lead:.3g}·"
        return f'{head}10<tspan dy="-4" font-size="8">{power}</tspan>'
    return f"{value:,.6g}"
