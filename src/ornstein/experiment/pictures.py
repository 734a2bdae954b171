"""Pictures of data, samples and training: what a run leaves for people to look at.

Images are drawn as a grid of their own pixels, enlarged without smoothing; all else as charts (`charts.py`). A reader
never sees half of one (`ornstein.files`).
"""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from torch import Tensor

from ornstein.core.learner import Judgement, Measure
from ornstein.data.schema import ColumnType
from ornstein.experiment import charts
from ornstein.experiment.charts import ACCENT, INK, PALE, canvas, chart, plain
from ornstein.experiment.charts_of_tables import table_chart
from ornstein.files import replacing


def image_grid(images: Tensor, columns: int | None = None, side: int = 720, clear: bool = False) -> Image.Image:
    """A grid of images (N, C, H, W) in [-1, 1], enlarged by a whole factor to about `side` pixels across.

    Between them it is white, or with `clear` there is nothing.
    """
    if images.shape[1] not in (1, 3, 4):  # no colours: the channels side by side
        images = images.transpose(1, 2).flatten(2)[:, None]
    n, channels, height, width = images.shape
    columns = columns or math.ceil(math.sqrt(n * height / width))
    rows = math.ceil(n / columns)
    scale = max(1, side // (columns * (width + 1)))
    gap = max(1, scale // 4)
    values = ((images.float().cpu() + 1) * 127.5).round().clamp(0, 255).byte()
    values = values[:, :3] if channels >= 3 else values[:, :1].expand(-1, 3, -1, -1)
    pixels = values.permute(0, 2, 3, 1).numpy().repeat(scale, 1).repeat(scale, 2)
    cell_h, cell_w = height * scale + gap, width * scale + gap
    canvas = np.full((rows * cell_h + gap, columns * cell_w + gap, 3), 255, np.uint8)
    opaque = np.zeros(canvas.shape[:2], np.uint8)
    for i, image in enumerate(pixels):
        top, left = gap + (i // columns) * cell_h, gap + (i % columns) * cell_w
        canvas[top : top + height * scale, left : left + width * scale] = image
        opaque[top : top + height * scale, left : left + width * scale] = 255
    return Image.fromarray(np.dstack([canvas, opaque]) if clear else canvas)


def draw(
    samples: Tensor,
    kind: str,
    path: Path,
    *,
    columns: int | None = None,
    real: Tensor | None = None,
    names: Sequence[str] | None = None,
    ordered: bool = False,
    types: Sequence[ColumnType] = (),
) -> None:
    """Draw samples to a PNG by their kind.

    Args:
        samples: (N, *shape): in [-1, 1] for images of shape (C, H, W), in the data's own units otherwise.
        kind: "image", "vector", "array" or "table".
        columns: of the grid of images.
        real: drawn behind or beside what is no image, in the same units.
        names: of a table's columns, or of channels.
        ordered: the samples are a way from the first to the last, and are shown as one.
        types: what the columns of a table are.
    """
    with replacing(path) as beside:
        if kind == "image":
            image_grid(samples, columns).save(beside, format="PNG")
        elif types:
            charts.save(table_chart(samples, types, real), beside)
        else:
            charts.save(chart(samples, real=real, names=names, ordered=ordered), beside)


def film(
    frames: Sequence[Tensor], kind: str, path: Path, milliseconds: int = 80, types: Sequence[ColumnType] = ()
) -> None:
    """An animated GIF of batches of samples, holding the last frame for two seconds."""
    if kind == "image":
        pictures = [image_grid(frame, side=480) for frame in frames]
    elif types:
        called = ("at the end", "known so far")
        pictures = [_as_image(table_chart(frame, types, frames[-1], called)) for frame in frames]
    else:
        pictures = [_as_image(chart(frame, last=frames[-1])) for frame in frames]
    # one palette for the whole film: none of it flickers
    palette = pictures[-1].quantize(128 if kind == "image" else 32)
    indexed = [picture.quantize(palette=palette, dither=Image.Dither.NONE) for picture in pictures]
    durations = [milliseconds] * (len(indexed) - 1) + [2000]
    with replacing(path) as beside:
        indexed[0].save(
            beside, format="GIF", save_all=True, append_images=indexed[1:], duration=durations, loop=0, optimize=True
        )


def loss_curve(records: Sequence[Mapping[str, float]], path: Path) -> None:
    """The training loss and the held-out error over the steps, from the lines of metrics.jsonl.

    A panel each: they are measured in different units, the loss by the objective's weights on training data, the error
    against the best linear denoiser on held-out data. On one axis the gap between them would look like over-fitting.
    """
    panels = [("loss", "training loss", "the objective's own, on training data"),
              ("held_out", "held-out error", "error of x0 / that of a linear denoiser")]  # fmt: skip
    found = [
        [(r["step"], r[key]) for r in records if r.get(key) is not None and math.isfinite(r[key])]
        for key, _, _ in panels
    ]
    kept = [(panel, points) for panel, points in zip(panels, found, strict=True) if points] or [(panels[0], [])]
    figure = canvas(9 if len(kept) == 2 else 6, 3.8)
    across = figure.subplots(1, len(kept), squeeze=False)[0]
    for axes, ((key, title, unit), points) in zip(across, kept, strict=True):
        plain(axes)
        steps, values = zip(*points, strict=True) if points else ((), ())
        if key == "loss" and len(values) > 20:
            axes.plot(steps, values, color=PALE, lw=0.8, label="each report")
            axes.plot(steps, _smooth(values), color=INK, lw=1.6, label="smoothed")
            axes.legend(frameon=False)
        else:
            axes.plot(steps, values, color=INK if key == "loss" else ACCENT, lw=1.6, marker="o", ms=3)
        positive = all(value > 0 for value in values)  # implicit losses are negative
        axes.set(title=title, xlabel="step", ylabel=unit)
        if positive and values:
            axes.set_yscale("log")
            axes.yaxis.set_major_formatter("{x:g}")
            axes.yaxis.set_minor_formatter("{x:g}")
    with replacing(path) as beside:
        charts.save(figure, beside)


def by_noise(found: Judgement, measure: Measure, path: Path) -> None:
    """How good a model is against the noise ratio sigma/alpha, beside knowing next to nothing."""
    figure, axes = charts.figure()
    if measure.share:
        axes.axhline(found.known[0], color=INK, lw=1.2, ls="--", label=measure.known)
        axes.set(ylim=(0, 1.03))
    else:
        axes.fill_between(found.ratios, found.found, found.known, color=PALE, alpha=0.35, lw=0)
        axes.plot(found.ratios, found.known, color=INK, lw=1.2, ls="--", label=measure.known)
        axes.set(yscale="log")
    axes.plot(found.ratios, found.found, color=ACCENT, lw=1.8, marker="o", ms=3, label="this network, held-out data")
    axes.set(xscale="log", xlabel="noise ratio sigma/alpha", ylabel=measure.found)
    axes.legend(frameon=False)
    with replacing(path) as beside:
        charts.save(figure, beside)


def _smooth(values: Sequence[float]) -> np.ndarray:
    width = max(3, len(values) // 20)
    padded = np.pad(np.asarray(values, float), width, mode="edge")
    return np.convolve(padded, np.ones(2 * width + 1) / (2 * width + 1), mode="valid")


def _as_image(figure: Any) -> Image.Image:
    figure.canvas.draw()
    return Image.fromarray(np.asarray(figure.canvas.buffer_rgba())[..., :3].copy())
