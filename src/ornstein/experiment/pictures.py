"""Pictures of data, samples and training.

Images are drawn as a grid of their own pixels, enlarged without smoothing; everything else as charts (`charts.py`). A
reader never sees a partial file (`ornstein.files`).
"""

import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ornstein.core.learner import Judgement, Measure
from ornstein.data import Dataset
from ornstein.data.holes import filled
from ornstein.data.pictures import MODES
from ornstein.data.schema import ColumnType
from ornstein.data.transform import Transform
from ornstein.experiment import charts
from ornstein.experiment.charts import ACCENT, INK, PALE, canvas, chart, plain
from ornstein.experiment.charts_of_tables import table_chart
from ornstein.files import replacing


def image_grid(images: Tensor, columns: int | None = None, side: int = 720, clear: bool = False) -> Image.Image:
    """A grid of images (N, C, H, W) in [-1, 1], enlarged by a whole factor to about `side` pixels across.

    A fourth channel is opacity; what is transparent shows white. The gaps between images are white, or with `clear`
    transparent.
    """
    if images.shape[1] not in (1, 3, 4):  # no colours: the channels side by side
        images = images.transpose(1, 2).flatten(2)[:, None]
    n, _, height, width = images.shape
    columns = columns or math.ceil(math.sqrt(n * height / width))
    rows = math.ceil(n / columns)
    scale = max(1, side // (columns * (width + 1)))
    gap = max(1, scale // 4)
    pixels = colours(images).repeat(scale, 1).repeat(scale, 2)
    cell_h, cell_w = height * scale + gap, width * scale + gap
    canvas = np.full((rows * cell_h + gap, columns * cell_w + gap, 3), 255, np.uint8)
    opaque = np.zeros(canvas.shape[:2], np.uint8)
    for i, image in enumerate(pixels):
        top, left = gap + (i // columns) * cell_h, gap + (i % columns) * cell_w
        canvas[top : top + height * scale, left : left + width * scale] = image
        opaque[top : top + height * scale, left : left + width * scale] = 255
    return Image.fromarray(np.dstack([canvas, opaque]) if clear else canvas)


def beside(real: Tensor, data: Dataset) -> Tensor:
    """Some of the data's real examples (n, F, ...) as drawn beside samples: gaps of series stay open, other cells that
    are missing get the mean. (A table's holes are values of their own.)
    """
    return filled(real, data.train) if data.missing and real.ndim != 3 else real


def colours(images: Tensor) -> np.ndarray:
    """Images (N, C, H, W) in [-1, 1] of 1, 3 or 4 channels as bytes (N, H, W, 3), what is transparent on white."""
    values = ((images.float().cpu() + 1) * 127.5).round().clamp(0, 255).byte()
    if images.shape[1] == 4:  # as paper would show it
        opaque = values[:, 3:].float() / 255
        values = (values[:, :3] * opaque + 255 * (1 - opaque)).round().byte()
    values = values if images.shape[1] >= 3 else values.expand(-1, 3, -1, -1)
    found: np.ndarray = values.permute(0, 2, 3, 1).numpy()
    return found


def as_pictures(values: Tensor, pil: bool) -> list[Any]:
    """Whole numbers (N, C, H, W) of 1, 3 or 4 channels as pictures: of PIL, or arrays."""
    arrays = [np.ascontiguousarray(x.movedim(0, -1).squeeze(-1).numpy()) for x in values]
    if values.dtype != torch.uint8:
        arrays = [x.astype(np.uint16) for x in arrays]
    return [Image.fromarray(x) for x in arrays] if pil else arrays


def are_files(kind: str, shape: Sequence[int]) -> bool:
    """Whether samples of this kind and shape (C, ...) can be a file each, as `save_each` writes them."""
    return kind == "image" and shape[0] in MODES


def save_each(z: Tensor, transform: Transform, folder: Path, names: Sequence[str]) -> None:
    """Images in model space as files, FOLDER/NAME.png, in their own size, with their transparency.

    Greys of more than 8 bits keep them: such a file has the values of the data.

    Args:
        z: (N, ...), of images of 1, 3 or 4 channels.
        names: one for each; the folders in them are made.
    """
    levels, seen = transform.levels, transform.pictures(z)
    if seen.shape[1] == 1 and levels is not None and levels.count > 256 and levels.low >= 0:
        values = transform.inverse(z, quantise=True)
    else:
        values = ((seen.float() + 1) * 127.5).round().clamp(0, 255).byte()
    for name, picture in zip(names, as_pictures(values.cpu(), pil=True), strict=True):
        place = folder / f"{name}.png"
        place.parent.mkdir(parents=True, exist_ok=True)
        with replacing(place) as beside:
            picture.save(beside, format="PNG")


def numbered(n: int, labels: Tensor | None, classes: Sequence[str]) -> list[str]:
    """Names for n pictures: their numbers; with labels (n,) in a folder of their class, if classes can be folders."""
    names = [f"{i:05d}" for i in range(n)]
    if labels is None or not all(re.fullmatch(r"\w[\w .-]*", word) for word in classes):
        return names
    return [f"{classes[k]}/{name}" if k >= 0 else name for name, k in zip(names, labels.tolist(), strict=True)]


def paired(above: Tensor, below: Tensor, columns: int = 10) -> Tensor:
    """Two batches of images (N, ...) as rows of a grid: a row of the one, a row of the other below, and so on."""
    whole = len(above) - len(above) % columns or len(above)
    rows = zip(above[:whole].split(columns), below[:whole].split(columns), strict=True)
    return torch.cat([part for pair in rows for part in pair])


def channel_names(facts: Mapping[str, Any]) -> list[str] | None:
    """What the columns, or the features of a series, are called, by run.yaml's facts of the data; None if nothing."""
    series = facts.get("series", {}).get("features", ())
    return facts.get("columns") or [feature["name"] for feature in series] or None


def shown(z: Tensor, transform: Transform, kind: str) -> Any:
    """Samples in model space in the form that is drawn: images in [-1, 1], texts, or in the data's own units."""
    if transform.letters:
        return transform.texts(z)
    return transform.pictures(z) if kind == "image" else transform.inverse(z)


def draw(
    samples: Any,
    kind: str,
    path: Path,
    *,
    columns: int | None = None,
    real: Tensor | None = None,
    names: Sequence[str] | None = None,
    ordered: bool = False,
    types: Sequence[ColumnType] = (),
    start: Tensor | None = None,
) -> None:
    """Draw samples to a PNG by their kind.

    Args:
        samples: (N, *shape): in [-1, 1] for images of shape (C, H, W), texts, in the data's own units otherwise.
        kind: "image", "vector", "array", "table" or "writing".
        columns: of the grid of images.
        real: real data, drawn behind or beside samples that are not images, in the same units.
        names: of a table's columns, or of channels.
        ordered: the samples are a path from the first to the last, and are shown as one.
        types: what the columns of a table are.
        start: where a bridge began, (N, *shape) as the samples: above each image, or joined to the points by lines.
    """
    with replacing(path) as beside:
        if kind == "image" and start is not None:
            wide = min(10, len(samples))
            image_grid(paired(start, samples, wide), wide).save(beside, format="PNG")
        elif kind == "image":
            image_grid(samples, columns).save(beside, format="PNG")
        elif kind == "writing":
            charts.save(_page(samples), beside)
        elif types:
            charts.save(table_chart(samples, types, real), beside)
        else:
            charts.save(chart(samples, real=real, names=names, ordered=ordered, start=start), beside)


def _page(texts: Sequence[str]) -> Any:
    """A figure of the first few texts, in lines of one width."""
    wide, most = 96, 12
    lines = []
    for text in texts[:most]:
        flat = text.replace("\n", "\u21b5").replace("\t", " ")
        lines += [flat[i : i + wide] for i in range(0, len(flat), wide)] + [""]
    figure = canvas(9.5, max(1.0, 0.19 * len(lines)))
    for number, line in enumerate(lines):
        place = 1 - (number + 0.5) / len(lines)
        # parse_math: a text may have dollars
        figure.text(0.02, place, line, family="monospace", size=9, color=INK, va="center", parse_math=False)
    return figure


def film(
    frames: Sequence[Any], kind: str, path: Path, milliseconds: int = 80, types: Sequence[ColumnType] = ()
) -> None:
    """An animated GIF of batches of samples, holding the last frame for two seconds."""
    if kind == "image":
        pictures = [image_grid(frame, side=480) for frame in frames]
    elif kind == "writing":
        pictures = [charts.drawn(_page(frame)) for frame in frames]
    elif types:
        called = ("at the end", "known so far")
        pictures = [charts.drawn(table_chart(frame, types, frames[-1], called)) for frame in frames]
    else:
        pictures = [charts.drawn(chart(frame, last=frames[-1])) for frame in frames]
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
            charts.logarithmic(axes, "y")
    with replacing(path) as beside:
        charts.save(figure, beside)


def by_noise(found: Judgement, measure: Measure, path: Path) -> None:
    """The error of a model against the noise ratio sigma/alpha, beside that of the baseline."""
    figure, axes = charts.figure()
    if measure.share:
        axes.axhline(found.known[0], color=INK, lw=1.2, ls="--", label=measure.known)
        axes.set(ylim=(0, 1.03))
    else:
        axes.fill_between(found.ratios, found.found, found.known, color=PALE, alpha=0.35, lw=0)
        axes.plot(found.ratios, found.known, color=INK, lw=1.2, ls="--", label=measure.known)
    axes.plot(found.ratios, found.found, color=ACCENT, lw=1.8, marker="o", ms=3, label="this network, held-out data")
    charts.logarithmic(axes, "x")
    if not measure.share:
        charts.logarithmic(axes, "y")
    axes.set(xlabel=measure.across, ylabel=measure.found)
    axes.legend(frameon=False)
    with replacing(path) as beside:
        charts.save(figure, beside)


def _smooth(values: Sequence[float]) -> np.ndarray:
    width = max(3, len(values) // 20)
    padded = np.pad(np.asarray(values, float), width, mode="edge")
    return np.convolve(padded, np.ones(2 * width + 1) / (2 * width + 1), mode="valid")
