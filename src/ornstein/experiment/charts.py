"""Charts of data other than images: tables, series and volumes, with samples beside real data if there are any.

A table of many columns does not fit into one picture. The chart shows what a reader asks first: each column by
itself (does its spread agree, are its zeros there?), and the columns that are most related to each other, by rank
correlation in the real data (are the relations there?).
"""

import math
from collections.abc import Iterator, Sequence
from typing import Any, Literal

import numpy as np
from torch import Tensor

INK, ACCENT, PALE = "#1b2a41", "#d1495b", "#b8c4d6"
#: columns that get a panel each; of more than these, all share one panel
PANELS = 24
#: series, and volumes, of either kind
LINES, VOLUMES = 8, 4
#: colours of an order, from first to last
ORDER = "plasma"
#: how matplotlib finds places for panels: nothing written overlaps
LAYOUT: Literal["constrained"] | None = "constrained"


def figure(square: bool = False) -> tuple[Any, Any]:
    """An empty figure of one panel, and the panel."""
    made = canvas(5, 5) if square else canvas(7, 4.2)
    axes = made.add_subplot()
    plain(axes)
    return made, axes


def save(made: Any, path: Any) -> None:
    """Write a figure as PNG, of three channels: in two fifths of the time that a fourth, of nothing, would take too."""
    made.set_dpi(130)
    # `savefig` draws twice where a layout is computed: once for it, once for the file
    drawn(made).save(path, format="PNG", dpi=(130, 130), compress_level=3)


def drawn(made: Any) -> Any:
    """A figure as a PIL image."""
    from PIL import Image

    made.canvas.draw()
    return Image.fromarray(np.asarray(made.canvas.buffer_rgba())[..., :3].copy())


def chart(
    samples: Tensor,
    *,
    real: Tensor | None = None,
    names: Sequence[str] | None = None,
    ordered: bool = False,
    last: Tensor | None = None,
    start: Tensor | None = None,
    called: Sequence[str] = (),
) -> Any:
    """A figure of points (N, *shape) in the data's own units.

    Args:
        samples: vectors (N, d), series (N, C, L), or fields (N, C, H, W) and volumes (N, C, D, H, W).
        real: as many real ones as are to be seen, of the same shape.
        names: of the columns or channels; by default numbers from 0.
        ordered: the samples are a path from the first of them to the last.
        last: samples whose limits and columns to use instead of these: the last frame of a film.
        start: for vectors in the plane, where a bridge carried the samples from: drawn, and joined to some of them.
        called: what the rows of fields and volumes are, if not samples.
    """
    x = samples.float().cpu().numpy()
    true = None if real is None else real.float().cpu().numpy()
    final = None if last is None else last.float().cpu().numpy()
    word = "column" if x.ndim == 2 else "channel"
    names = list(names) if names else [f"{word} {i}" for i in range(x.shape[1] if x.ndim > 1 else 1)]
    if x.ndim <= 2:
        x = x.reshape(len(x), -1)
        if ordered:
            return _way(x, names)
        made = _table(x, true, names) if final is None else _frame(x, final, names)
        if start is not None and x.shape[1] == 2:
            _carried(made.axes[0], start.float().cpu().numpy(), x)
        return made
    if x.ndim in (4, 5):
        return _fields(x, true, names, _places(len(x)) if ordered else called, final)
    x = x.reshape(len(x), x.shape[1], -1)
    true = None if true is None else true.reshape(len(true), *x.shape[1:])
    final = None if final is None else final.reshape(len(final), *x.shape[1:])
    return _series(x, true, names, ordered, final)


def related(x: np.ndarray, most: int = 3) -> list[tuple[int, int, float]]:
    """The pairs of columns of x (N, d) that are most related: (i, j, Spearman's rank correlation), strongest first."""
    ranks = np.stack([_ranks(column) for column in x.T])
    ranks -= ranks.mean(1, keepdims=True)
    spread = np.sqrt((ranks**2).sum(1))
    unit = np.divide(ranks, spread[:, None], out=np.zeros_like(ranks), where=spread[:, None] > 0)
    rho = unit @ unit.T
    i, j = np.triu_indices(len(rho), 1)
    chosen = np.argsort(-np.abs(rho[i, j]), kind="stable")[:most]
    return [(int(i[k]), int(j[k]), float(rho[i[k], j[k]])) for k in chosen]


def _ranks(values: np.ndarray) -> np.ndarray:
    """Middle ranks: equal values share one."""
    order = np.sort(values)
    return (np.searchsorted(order, values, "left") + np.searchsorted(order, values, "right")) / 2


def _table(x: np.ndarray, real: np.ndarray | None, names: Sequence[str]) -> Any:
    d = x.shape[1]
    if d == 1:
        made, axes = figure()
        _histogram(axes, x[:, 0], None if real is None else real[:, 0])
        axes.set(xlabel=names[0], ylabel="density")
        axes.legend(frameon=False)
        return made
    if d == 2:
        made, axes = figure(square=True)
        _scatter(axes, x, real, 0, 1, names)
        if real is not None:
            axes.legend(frameon=False, markerscale=3, loc="upper right")
        return made
    pairs = related(x if real is None else real)
    across = 6 if d > 4 else d
    rows = -(-d // across) if d <= PANELS else 2
    made = canvas(10, 3.6 + 1.5 * rows)
    upper, lower = made.subfigures(2, 1, height_ratios=(3.4, 1.5 * rows))
    upper.suptitle("the most related columns" + ("" if real is None else " of the real data"), fontsize=10)
    for axes, (i, j, rho) in zip(_row(upper.subplots(1, len(pairs))), pairs, strict=True):
        plain(axes)
        _scatter(axes, x, real, i, j, names)
        axes.set_title(f"rank correlation {rho:.2f}", fontsize=8)
    if real is not None:
        upper.legend(
            *axes.get_legend_handles_labels(), frameon=False, markerscale=3, fontsize=8, loc="upper left", ncols=2
        )
    if d <= PANELS:
        lower.suptitle("every column by itself; what lies beyond counts in the outermost bins", fontsize=10)
        panels = _row(lower.subplots(rows, across))
        for i, axes in enumerate(panels):
            axes.set_axis_off() if i >= d else plain(axes)
            if i < d:
                _histogram(axes, x[:, i], None if real is None else real[:, i], bins=30)
                axes.set_title(names[i], fontsize=8)
                axes.tick_params(labelsize=6)
                axes.set_yticks([])
    else:
        lower.suptitle("every column by itself", fontsize=10)
        _bands(lower.subplots(), x, real)
    return made


def _carried(axes: Any, start: np.ndarray, x: np.ndarray, lines: int = 80) -> None:
    """Where points in the plane came from, and lines from there to some of them."""
    axes.scatter(start[:, 0], start[:, 1], s=3, color=INK, lw=0, alpha=0.5, label="source", zorder=1)
    joined = np.stack([start[:lines], x[:lines]])
    axes.plot(joined[..., 0], joined[..., 1], color=INK, lw=0.4, alpha=0.35, zorder=1)
    axes.legend(frameon=False, markerscale=3, loc="upper right")


def _histogram(axes: Any, x: np.ndarray, real: np.ndarray | None, bins: int = 60) -> None:
    shown = x if real is None else real
    low, high = np.quantile(shown, (0.002, 0.998))
    room = 0.05 * (high - low) or 0.5
    edges = np.linspace(low - room, high + room, bins + 1)
    if (shown == np.round(shown)).all():  # whole numbers: as many of them in each bin, or the bins beat with them
        step = max(1, round((high - low) / bins))
        edges = np.arange(np.floor(low), high + step + 1, step) - 0.5

    def heights(values: np.ndarray) -> np.ndarray:
        return np.histogram(values.clip(edges[0], edges[-1]), edges, density=True)[0]

    # one outline for all bins: `hist` makes a rectangle of each, in three times the time
    if real is not None:
        axes.stairs(heights(real), edges, fill=True, color=PALE, label="real")
        axes.stairs(heights(x), edges, color=ACCENT, lw=1.2, label="samples")
    else:
        axes.stairs(heights(x), edges, fill=True, color=ACCENT, label="samples")


def _scatter(axes: Any, x: np.ndarray, real: np.ndarray | None, i: int, j: int, names: Sequence[str]) -> None:
    if real is not None:
        axes.scatter(real[:, i], real[:, j], s=3, color=PALE, lw=0, label="real")
    axes.scatter(x[:, i], x[:, j], s=4, color=ACCENT, lw=0, alpha=0.7, label="samples")
    axes.set(xlabel=names[i], ylabel=names[j])
    _even(axes, (x if real is None else real)[:, [i, j]], "datalim")


def _even(axes: Any, points: np.ndarray, adjustable: str) -> None:
    """One scale for both axes where their units are alike, as in the plane; else each its own."""
    wide = np.ptp(points, axis=0)
    if wide.min() > wide.max() / 3:
        axes.set_aspect("equal", adjustable=adjustable)


def _bands(axes: Any, x: np.ndarray, real: np.ndarray | None) -> None:
    """All columns along one axis: median, and where nine of ten values lie, in each column's own unit."""
    plain(axes)
    base = x if real is None else real
    centre, unit = base.mean(0), base.std(0)
    unit = np.where(unit > 0, unit, 1)
    place = np.arange(x.shape[1])
    for points, color, label in ((real, INK, "real"), (x, ACCENT, "samples")):
        if points is None:
            continue
        low, middle, high = np.quantile((points - centre) / unit, (0.05, 0.5, 0.95), axis=0)
        axes.fill_between(place, low, high, color=color, alpha=0.25, lw=0, step="mid")
        axes.step(place, middle, color=color, lw=0.9, where="mid", label=f"{label}: median, nine values of ten")
    axes.set(xlabel="column", ylabel="standard deviations", xlim=(-0.5, len(place) - 0.5))
    axes.legend(frameon=False, fontsize=8, ncols=2, loc="lower center", bbox_to_anchor=(0.5, 1))


def _frame(x: np.ndarray, last: np.ndarray, names: Sequence[str]) -> Any:
    """One picture of a film of vectors, with the limits of its end."""
    made, axes = figure(square=x.shape[1] > 1)
    low, high = last.min(0), last.max(0)
    room = np.where(high > low, 0.3 * (high - low), 1)
    if x.shape[1] == 1:
        axes.hist(
            np.clip(x[:, 0], low - room, high + room),
            bins=60,
            range=(float((low - room)[0]), float((high + room)[0])),
            color=ACCENT,
        )
        axes.set(xlabel=names[0])
        return made
    i, j = (0, 1) if x.shape[1] == 2 else related(last, 1)[0][:2]
    axes.scatter(x[:, i], x[:, j], s=4, color=ACCENT, lw=0, alpha=0.7)
    axes.set(xlabel=names[i], ylabel=names[j], xlim=(low[i] - room[i], high[i] + room[i]),
             ylim=(low[j] - room[j], high[j] + room[j]))  # fmt: skip
    _even(axes, last[:, [i, j]], "box")
    return made


def _places(n: int) -> list[str]:
    """What the points of a way are called: its ends, and numbers between them."""
    return ["from", *map(str, range(1, n - 1)), "to"]


def _colours(n: int) -> Any:
    from matplotlib import colormaps

    return colormaps[ORDER](np.linspace(0, 0.9, n))


def _way(x: np.ndarray, names: Sequence[str]) -> Any:
    """Points (n, d) on a way: in the plane numbered along a line, otherwise each column against its place."""
    n, d = x.shape
    place = _places(n)
    if d == 2:
        made, axes = figure(square=True)
        axes.plot(x[:, 0], x[:, 1], color=PALE, lw=1.2, zorder=1)
        axes.scatter(x[:, 0], x[:, 1], s=36, color=_colours(n), zorder=2)
        axes.scatter(x[[0, -1], 0], x[[0, -1], 1], s=110, facecolors="none", edgecolors=INK, zorder=3)
        for point, name in zip(x, place, strict=True):
            axes.annotate(name, point, xytext=(6, 6), textcoords="offset points", fontsize=8)
        axes.set(xlabel=names[0], ylabel=names[1])
        axes.margins(0.12)
        _even(axes, x, "datalim")
        return made
    if d > PANELS:
        made, axes = figure()
        unit = x.std(0)
        drawn = axes.imshow(((x - x.mean(0)) / np.where(unit > 0, unit, 1)).T, aspect="auto", cmap="coolwarm")
        axes.set(ylabel="column", xticks=range(n), xticklabels=place)
        axes.grid(False)
        made.colorbar(drawn, label="standard deviations of the way")
        return made
    across = min(d, 6)
    rows = -(-d // across)
    made = canvas(max(4, 2.2 * across), 2.2 * rows + 0.4)
    for i, axes in enumerate(_row(made.subplots(rows, across))):
        if i >= d:
            axes.set_axis_off()
            continue
        plain(axes)
        axes.plot(x[:, i], color=PALE, lw=1.2, zorder=1)
        axes.scatter(range(n), x[:, i], s=20, color=_colours(n), zorder=2)
        axes.set_title(names[i], fontsize=9)
        axes.set_xticks([0, n - 1], ["from", "to"])
        axes.tick_params(labelsize=7)
    return made


def _series(
    x: np.ndarray, real: np.ndarray | None, names: Sequence[str], ordered: bool, last: np.ndarray | None
) -> Any:
    """Series (N, C, L): a row of panels a channel, the real ones in a second column with the same axis."""
    shown = [("samples", x)] + ([] if real is None else [("real", real)])
    channels = x.shape[1]
    made = canvas(7 if real is None else 10, max(3.2, 1.9 * channels + 0.5))
    panels = np.reshape(made.subplots(channels, len(shown), sharex=True, sharey="row", squeeze=False), (channels, -1))
    for column, (title, lines) in enumerate(shown):
        count = len(lines) if ordered else min(len(lines), LINES)
        for c in range(channels):
            axes = panels[c, column]
            plain(axes)
            for k in range(count):
                color = {"color": _colours(count)[k]} if ordered else {}
                axes.plot(lines[k, c], lw=1, alpha=0.85, **color)
            if not column:
                axes.set_ylabel(names[c], fontsize=9)
            if last is not None:
                room = 0.3 * (last[:, c].max() - last[:, c].min()) or 1
                axes.set_ylim(last[:, c].min() - room, last[:, c].max() + room)
        if not ordered:
            panels[0, column].set_title(f"{title}, {count} of {len(lines):,}", fontsize=10)
        panels[-1, column].set_xlabel("place in the series")
    if ordered:
        from matplotlib.cm import ScalarMappable
        from matplotlib.colors import ListedColormap

        bar = made.colorbar(ScalarMappable(cmap=ListedColormap(_colours(len(x)))), ax=panels.ravel().tolist())
        bar.set_ticks((np.arange(len(x)) + 0.5) / len(x), labels=_places(len(x)))
    return made


def _fields(
    x: np.ndarray, real: np.ndarray | None, names: Sequence[str], called: Sequence[str], last: np.ndarray | None
) -> Any:
    """Fields, a row each, their channels side by side; volumes, a row for each channel, cut across three axes."""
    blocks = [("samples", x)] + ([] if real is None else [("real", real)])
    count = len(x) if called else min(VOLUMES, *(len(block) for _, block in blocks))
    base = last if last is not None else x if real is None else real
    low, high = (end(base, axis=(0, *range(2, base.ndim))) for end in (np.min, np.max))
    each, flat = range(x.shape[1]), x.ndim == 4
    rows = [(i, each if flat else [c]) for i in range(count) for c in ([0] if flat else each)]
    across = len(each) if flat else 3
    cuts = ["across depth", "across height", "across width"]
    heads = [names[c] for c in each] if flat and len(each) > 1 else [""] if flat else cuts
    made = canvas(1.7 * across * len(blocks) + 1.2, 1.7 * len(rows) + 0.6)
    panels = made.subplots(len(rows), across * len(blocks), squeeze=False)
    for row, (i, channels) in enumerate(rows):
        for b, (title, block) in enumerate(blocks):
            shown = [(c, cut) for c in channels for cut in _cuts(block[i, c])]
            for k, (c, cut) in enumerate(shown):
                axes = panels[row, b * across + k]
                axes.imshow(cut, cmap="gray", vmin=float(low[c]), vmax=float(high[c]))
                axes.set(xticks=[], yticks=[])
                if not row:
                    axes.set_title("\n".join(filter(None, ("" if called else title, heads[k]))), fontsize=8)
        said = (called[i] if called else "", "" if flat or len(each) == 1 else names[channels[0]])
        panels[row, 0].set_ylabel(" ".join(filter(None, said)), fontsize=8)
    return made


def _cuts(field: np.ndarray) -> Iterator[np.ndarray]:
    """(H, W) as it is; (D, H, W) cut through the middle across each axis."""
    if field.ndim == 2:
        yield field
    else:
        yield from (field.take(field.shape[axis] // 2, axis=axis) for axis in range(3))


def _row(panels: Any) -> list[Any]:
    return list(np.ravel(np.array(panels, dtype=object)))


def canvas(width: float, height: float) -> Any:
    """An empty figure, in inches."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    made = Figure(figsize=(width, height), layout=LAYOUT)
    FigureCanvasAgg(made)
    return made


def logarithmic(axes: Any, across: str) -> None:
    """Make the "x" or the "y" of a panel logarithmic, once all is plotted, with as many marks as can be read."""
    from matplotlib.ticker import LogLocator, MaxNLocator, NullLocator

    axes.set(**{f"{across}scale": "log"})
    axis, (low, high) = getattr(axes, f"{across}axis"), getattr(axes, f"get_{across}lim")()
    decades = math.log10(high / low)
    marked = (1, 2, 5) if decades < 2 else (1, 3) if decades < 4 else (1,)
    axis.set_major_locator(MaxNLocator(5) if decades < 0.7 else LogLocator(subs=marked))
    axis.set_major_formatter("{x:g}")
    axis.set_minor_locator(NullLocator())


def plain(axes: Any) -> None:
    """The look of every panel: no box, a faint grid."""
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(alpha=0.2, lw=0.5)
