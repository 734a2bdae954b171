"""Charts of tables of unlike columns: each column by its kind, and the pairs that are most related.

Words are labelled bars; numbers a histogram, on an axis that a heavy tail does not press flat; dates lie on a
calendar; missing cells are a bar of their own. Everything is a share of all rows, so that bars can be compared. The
samples are red, real rows grey.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ornstein.data.schema import ColumnType
from ornstein.errors import shown
from ornstein.experiment.charts import ACCENT, PALE, PANELS, canvas, plain
from ornstein.metrics import columns_apart, related

#: bins of a histogram; words of a column, and of a column in a pair, that have a bar
BINS, BARS, PAIRED = 30, 7, 6
#: letters of a word, and of a column's name
LETTERS = 18
#: the outer values over the inner ones from which on an axis is bent
_HEAVY = 50.0
#: a bar so many times as high as the next is cut off, and its share written beside it
_TALL = 3.0
_MISSING = "missing"


def table_chart(
    samples: Tensor,
    types: Sequence[ColumnType],
    real: Tensor | None = None,
    called: tuple[str, str] = ("real", "samples"),
) -> Any:
    """A figure of rows (N, d) of a table, NaN for what is missing, in front of other rows (M, d) if given.

    `called`: the names of the other rows, and of these.
    """
    told = [i for i, kind in enumerate(types) if kind.kind not in ("identifier", "constant")]
    rest = [shown(kind.name) for kind in types if kind.kind in ("identifier", "constant")]
    kinds = [types[i] for i in told]
    x = samples[:, told].double().cpu()
    true = None if real is None else real[:, told].double().cpu()
    words = [kind.worded for kind in kinds]
    order, caption = list(range(len(kinds))), "every column by itself"
    if len(kinds) > PANELS:
        far = torch.arange(len(kinds)).flip(0).double() if true is None else columns_apart(x, true, words)
        order = sorted(far.argsort(descending=True, stable=True)[:PANELS].tolist())
        which = "first" if true is None else "least alike"
        caption = f"the {PANELS} columns that are {which}, of {len(kinds)}"
    caption += ", in shares of all rows; what lies beyond counts in the outermost bars"
    caption += f"\nnot drawn, as they say nothing of a row: {', '.join(rest[:6])}" * bool(rest)
    across = min(4, len(order))
    rows = -(-len(order) // across)
    pairs = related(x if true is None else true, words) if len(kinds) > 1 else []
    made = canvas(11, 2.0 * rows + (3.8 if pairs else 0.8))
    if pairs:
        upper, lower = made.subfigures(2, 1, height_ratios=(3.6, 2.0 * rows + 0.4))
        upper.suptitle("the most related columns" + ("" if true is None else " of the real data"), fontsize=10)
        for axes, (i, j, v) in zip(np.ravel(upper.subplots(1, len(pairs))), pairs, strict=True):
            plain(axes)
            _pair(axes, x, true, kinds, i, j)
            axes.set_title(f"Cramér's V {v:.2f}", fontsize=8)
            axes.tick_params(labelsize=7)
    else:
        lower = made.subfigures(1, 1)
    lower.suptitle(caption, fontsize=10)
    panels = np.ravel(lower.subplots(rows, across, squeeze=False))
    for axes in panels[len(order) :]:
        axes.set_axis_off()
    for axes, i in zip(panels, order, strict=False):
        plain(axes)
        _column(axes, kinds[i], x[:, i].numpy(), None if true is None else true[:, i].numpy())
        axes.set_title(_short(kinds[i].name, 30), fontsize=9)
        axes.tick_params(labelsize=7)
    _key(made, called if true is not None else called[1:])
    return made


def _short(word: str, letters: int = LETTERS) -> str:
    """A word that fits beside a bar, and that no markup of the figure's reads."""
    word = shown(word)
    word = word if len(word) <= letters else word[: letters - 1] + "…"
    return word.replace("$", r"\$")


def _key(made: Any, called: Sequence[str]) -> None:
    from matplotlib.patches import Patch

    looks: list[dict[str, Any]] = [{"facecolor": PALE}, {"facecolor": "none", "edgecolor": ACCENT}][-len(called) :]
    marks = [Patch(label=name, **look) for name, look in zip(called, looks, strict=True)]
    made.legend(handles=marks, frameon=False, fontsize=9, ncols=2, loc="upper left")


# One column -----------------------------------------------------------------------------------------------------------


def _column(axes: Any, kind: ColumnType, x: np.ndarray, real: np.ndarray | None) -> None:
    (_bars if kind.worded else _histogram)(axes, kind, x, real)


def _commonest(kind: ColumnType, base: np.ndarray, most: int) -> list[int]:
    """The levels of a column that have most rows, commonest first; a boolean's in their order."""
    counts = np.bincount(base[~np.isnan(base)].astype(int), minlength=len(kind.levels))
    if kind.kind == "boolean":
        return list(range(len(kind.levels)))
    return [int(level) for level in np.argsort(-counts, kind="stable")[:most]]


def _bars(axes: Any, kind: ColumnType, x: np.ndarray, real: np.ndarray | None) -> None:
    """Words: a bar each, the commonest on top, then all others, then what is missing."""
    base = x if real is None else real
    chosen = _commonest(kind, base, BARS if len(kind.levels) <= BARS else BARS - 1)
    others = len(kind.levels) - len(chosen)

    def shares(values: np.ndarray) -> np.ndarray:
        each = [np.mean(values == level) for level in chosen]
        gone = float(np.mean(np.isnan(values)))
        return np.array([*each, *([max(1 - sum(each) - gone, 0)] if others else []), gone])

    found = [shares(values) for values in (real, x) if values is not None]
    labels = [_short(kind.levels[level]) for level in chosen] + [f"{others:,} other{'s' * (others > 1)}"] * (others > 0)
    if any(each[-1] > 0 for each in found):
        labels.append(_MISSING)
    place = np.arange(len(labels))
    if real is not None:
        axes.barh(place, found[0][: len(labels)], height=0.8, color=PALE)
    axes.barh(place, found[-1][: len(labels)], height=0.5 if real is not None else 0.8, facecolor="none",
              edgecolor=ACCENT, lw=1.2)  # fmt: skip
    axes.set_yticks(place, labels)
    axes.invert_yaxis()
    axes.xaxis.set_major_formatter(_percent)
    axes.xaxis.set_major_locator(_few(3))
    axes.grid(False, axis="y")


@dataclass(frozen=True)
class _Scale:
    """Where values lie on an axis, which may be bent, and its bins.

    Attributes:
        place: values to places.
        edges: of the bins, in places.
        ticks: (place, label) of what is written below; () for what matplotlib finds.
    """

    place: Callable[[np.ndarray], np.ndarray]
    edges: np.ndarray
    ticks: tuple[tuple[float, str], ...] = ()

    @staticmethod
    def of(kind: ColumnType, known: np.ndarray) -> "_Scale":
        """The scale of a column, by values that are there."""
        if kind.kind == "date":
            known = known / 86_400  # days: how matplotlib counts
        low, high = np.quantile(known, (0.002, 0.998)) if len(known) else (0.0, 1.0)
        size = np.abs(known[known != 0])
        inner, outer = np.quantile(size, (0.02, 0.98)) if len(size) else (1.0, 1.0)
        if kind.kind != "date" and outer > _HEAVY * inner:
            return _Scale.bent(low, high, inner)
        if kind.kind == "integer" or (kind.kind == "number" and bool((known == np.round(known)).all())):
            step = max(1, round((high - low) / BINS))
            edges = np.arange(np.floor(low), high + step + 1, step) - 0.5
        else:
            room = 0.03 * (high - low) or 0.5
            edges = np.linspace(low - room, high + room, BINS + 1)
        return _Scale((lambda v: v / 86_400) if kind.kind == "date" else (lambda v: v), edges)

    @staticmethod
    def bent(low: float, high: float, unit: float) -> "_Scale":
        """A straight line up to `unit`, then as a logarithm, of either sign."""

        def place(values: np.ndarray) -> np.ndarray:
            return np.arcsinh(values / unit)

        first, last = place(np.array([low, high]))
        # an odd number of bins: zero lies in the middle of one
        width = (last - first) / BINS
        edges = np.arange(np.floor(first / width - 0.5), np.ceil(last / width + 0.5) + 1) * width + width / 2
        powers = 10.0 ** np.arange(np.ceil(np.log10(unit)), np.log10(max(abs(low), abs(high), unit)) + 1)
        values = [0.0, *powers, *-powers]
        kept = sorted(v for v in values if edges[0] <= place(np.array(v)) <= edges[-1])
        for _ in range(4):
            if len(kept) > 6:  # every other one, from zero outward
                kept = [v for k, v in enumerate(sorted(kept, key=abs)) if k % 2 == 0]
        return _Scale(place, edges, tuple((float(place(np.array(v))), _figure(v)) for v in sorted(kept)))

    def shares(self, values: np.ndarray) -> np.ndarray:
        """The share of all rows in each bin, what lies beyond in the outermost."""
        known = self.place(values[~np.isnan(values)]).clip(self.edges[0], self.edges[-1])
        return np.histogram(known, self.edges)[0] / max(len(values), 1)


def _figure(value: float) -> str:
    """A number on an axis: 100, 10k, 2M."""
    for size, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= size and len(short := f"{value / size:g}") < 6:
            return f"{short}{letter}"
    return f"{value:,.10g}"


def _histogram(axes: Any, kind: ColumnType, x: np.ndarray, real: np.ndarray | None) -> None:
    """Numbers and dates, and beside them what is missing."""
    base = x if real is None else real
    scale = _Scale.of(kind, base[~np.isnan(base)] if not np.isnan(base).all() else x[~np.isnan(x)])
    sets = [values for values in (real, x) if values is not None]
    found = [scale.shares(values) for values in sets]
    gone = [float(np.isnan(values).mean()) for values in sets]
    edges = scale.edges
    if real is not None:
        axes.stairs(found[0], edges, fill=True, color=PALE)
    axes.stairs(found[-1], edges, fill=real is None, color=ACCENT, lw=1.2)
    bars = [found[0], *found[1:]]
    if any(gone):
        wide = edges[-1] - edges[0]
        at, width = edges[-1] + 0.12 * wide, 0.09 * wide
        if real is not None:
            axes.bar(at, gone[0], width, color=PALE)
        axes.bar(at, gone[-1], width, facecolor="none", edgecolor=ACCENT, lw=1.2)
        axes.text(at + width / 2, -0.035, _MISSING, transform=axes.get_xaxis_transform(), ha="right", va="top",
                  fontsize=7)  # fmt: skip
        bars = [np.append(each, share) for each, share in zip(bars, gone, strict=True)]
    _cut_off(axes, bars, edges)
    if kind.kind == "date":
        from matplotlib.dates import AutoDateLocator, ConciseDateFormatter

        locator = AutoDateLocator(minticks=2, maxticks=4)  # type: ignore[no-untyped-call]
        axes.xaxis.set_major_locator(locator)
        axes.xaxis.set_major_formatter(ConciseDateFormatter(locator))  # type: ignore[no-untyped-call]
        axes.xaxis.get_offset_text().set_fontsize(6.5)
    elif scale.ticks:
        axes.set_xticks([place for place, _ in scale.ticks], [label for _, label in scale.ticks])
    else:
        whole = kind.kind == "integer"
        # the word below the bar of missing cells has that place to itself
        last = edges[-1] - 0.15 * (edges[-1] - edges[0]) * any(gone)
        places = _few(4, whole).tick_values(edges[0], edges[-1])
        kept = [place for place in places if edges[0] <= place <= last]
        axes.set_xticks(kept, [_figure(place) for place in kept])
    axes.yaxis.set_major_formatter(_percent)
    axes.yaxis.set_major_locator(_few(2))


def _cut_off(axes: Any, bars: list[np.ndarray], edges: np.ndarray) -> None:
    """Where one bar towers above all others, let the others be seen, and write its shares beside it."""
    top = np.max(bars, axis=0)
    order = np.argsort(top)
    if len(top) < 3 or top[order[-1]] <= _TALL * top[order[-2]] or top[order[-2]] <= 0:
        return
    k = int(order[-1])
    axes.set_ylim(0, 1.6 * top[order[-2]])
    said = " and ".join(f"{each[k]:.1%}" for each in bars)
    at = (edges[k] + edges[k + 1]) / 2 if k < len(edges) - 1 else edges[-1] + 0.12 * (edges[-1] - edges[0])
    left = at < (edges[0] + edges[-1]) / 2
    axes.annotate(said, (at, 1), xycoords=axes.get_xaxis_transform(), xytext=(8 if left else -8, -8),
                  textcoords="offset points", ha="left" if left else "right", fontsize=6.5)  # fmt: skip


def _percent(value: float, _: int) -> str:
    return f"{100 * value:.3g} %"


def _few(count: int, whole: bool = False) -> Any:
    from matplotlib.ticker import MaxNLocator

    return MaxNLocator(count, integer=whole)


# Two columns ----------------------------------------------------------------------------------------------------------


def _pair(axes: Any, x: Tensor, real: Tensor | None, kinds: Sequence[ColumnType], i: int, j: int) -> None:
    """Two columns against each other: points, intervals of numbers for each word, or circles for pairs of words."""
    if kinds[j].worded and not kinds[i].worded:
        i, j = j, i
    both = [None if rows is None else rows[:, [i, j]].numpy() for rows in (real, x)]
    interval = kinds[i].worded and not kinds[j].worded
    axes.set_xlabel(_short(kinds[i].name, 30), fontsize=8)
    axes.set_ylabel(_short(kinds[j].name, 30) + ": 5 %, middle, 95 %" * interval, fontsize=8)
    if kinds[j].worded:
        _circles(axes, kinds[i], kinds[j], both)
    elif kinds[i].worded:
        _intervals(axes, kinds[i], kinds[j], both)
    else:
        _points(axes, kinds[i], kinds[j], both)


def _points(axes: Any, across: ColumnType, up: ColumnType, both: list[np.ndarray | None]) -> None:
    base = both[0] if both[0] is not None else both[1]
    assert base is not None
    scales = [_Scale.of(kind, column[~np.isnan(column)]) for kind, column in zip((across, up), base.T, strict=True)]
    for rows, color, alpha in zip(both, (PALE, ACCENT), (1.0, 0.7), strict=True):
        if rows is not None:
            a, b = (s.place(column).clip(s.edges[0], s.edges[-1]) for s, column in zip(scales, rows.T, strict=True))
            axes.scatter(a, b, s=4, color=color, lw=0, alpha=alpha)
    for scale, axis, kind in zip(scales, (axes.xaxis, axes.yaxis), (across, up), strict=True):
        if scale.ticks:
            axis.set_ticks([place for place, _ in scale.ticks], labels=[label for _, label in scale.ticks])
        elif kind.kind == "date":
            axis.axis_date()
        else:
            axis.set_major_locator(_few(4))
            axis.set_major_formatter(lambda value, _: _figure(value))


def _intervals(axes: Any, across: ColumnType, up: ColumnType, both: list[np.ndarray | None]) -> None:
    """For each of the commonest words where nine of ten numbers lie, and their middle."""
    base = both[0] if both[0] is not None else both[1]
    assert base is not None
    known = base[:, 1][~np.isnan(base[:, 1])]
    scale, chosen = _Scale.of(up, known), _commonest(across, base[:, 0], PAIRED)
    bar, dot = {"marker": "_", "color": "#5b6b82", "ms": 12}, {"marker": "o", "color": ACCENT, "ms": 4}
    for rows, color, width, middle in zip(both, (PALE, ACCENT), (7, 1.5), (bar, dot), strict=True):
        for k, level in enumerate(chosen):
            if rows is None or not len(mine := rows[(rows[:, 0] == level) & ~np.isnan(rows[:, 1]), 1]):
                continue
            low, centre, high = scale.place(np.quantile(mine, (0.05, 0.5, 0.95)))
            axes.plot([k, k], [low, high], color=color, lw=width, solid_capstyle="butt")
            axes.plot(k, centre, mew=1.5, **middle)
    axes.set_xticks(range(len(chosen)), [_short(across.levels[level], 12) for level in chosen], rotation=30, ha="right")
    if scale.ticks:
        axes.set_yticks([place for place, _ in scale.ticks], [label for _, label in scale.ticks])
    elif up.kind == "date":
        axes.yaxis_date()
    else:
        axes.yaxis.set_major_formatter(lambda value, _: _figure(value))


def _circles(axes: Any, across: ColumnType, up: ColumnType, both: list[np.ndarray | None]) -> None:
    """For each pair of the commonest words a circle as large as its share of the rows."""
    base = both[0] if both[0] is not None else both[1]
    assert base is not None
    a, b = _commonest(across, base[:, 0], PAIRED), _commonest(up, base[:, 1], PAIRED)
    shares = [
        None if rows is None else np.array([[np.mean((rows[:, 0] == v) & (rows[:, 1] == w)) for v in a] for w in b])
        for rows in both
    ]
    largest = max(float(each.max()) for each in shares if each is not None) or 1
    k, m = np.meshgrid(np.arange(len(a)), np.arange(len(b)))
    for each, style in zip(shares, ({"color": PALE, "lw": 0}, {"facecolors": "none", "edgecolors": ACCENT, "lw": 1.2}),
                           strict=True):  # fmt: skip
        if each is not None:
            axes.scatter(k, m, s=500 * each / largest, **style)
    axes.set_xticks(range(len(a)), [_short(across.levels[v], 12) for v in a], rotation=30, ha="right")
    axes.set_yticks(range(len(b)), [_short(up.levels[w], 12) for w in b])
    axes.set(xlim=(-0.7, len(a) - 0.3), ylim=(len(b) - 0.3, -0.7))
