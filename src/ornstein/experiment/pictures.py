"""Pictures of data, samples and training: what a run leaves for people to look at.

Images are drawn as a grid of their own pixels, enlarged without smoothing; vectors as a scatter of two coordinates;
other arrays as lines. A reader never sees half of one (`ornstein.files`).
"""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from torch import Tensor

from ornstein.files import replacing

INK, ACCENT, PALE = "#1b2a41", "#d1495b", "#b8c4d6"


def image_grid(images: Tensor, columns: int | None = None, side: int = 720) -> Image.Image:
    """A grid of images (N, C, H, W) in [-1, 1], enlarged by a whole factor to about `side` pixels across."""
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
    for i, image in enumerate(pixels):
        top, left = gap + (i // columns) * cell_h, gap + (i % columns) * cell_w
        canvas[top : top + height * scale, left : left + width * scale] = image
    return Image.fromarray(canvas)


def draw(samples: Tensor, kind: str, path: Path, *, columns: int | None = None, real: Tensor | None = None) -> None:
    """Draw samples to a PNG by their kind.

    Args:
        samples: (N, *shape): in [-1, 1] for images of shape (C, H, W), in the data's own units otherwise.
        kind: "image", "vector" or "array".
        real: drawn pale behind vectors, in the same units.
    """
    with replacing(path) as beside:
        if kind == "image":
            image_grid(samples, columns).save(beside, format="PNG")
        else:
            _save(_plot(samples, kind, real), beside)


def film(frames: Sequence[Tensor], kind: str, path: Path, milliseconds: int = 80) -> None:
    """An animated GIF of batches of samples, holding the last frame for two seconds."""
    if kind == "image":
        pictures = [image_grid(frame, side=480) for frame in frames]
    else:
        last = frames[-1].flatten(1).cpu()
        reach = 1.3 * last.abs().max().item()
        pictures = [_as_image(_plot(frame, kind, None, reach)) for frame in frames]
    # one palette for the whole film: none of it flickers
    palette = pictures[-1].quantize(128 if kind == "image" else 32)
    indexed = [picture.quantize(palette=palette, dither=Image.Dither.NONE) for picture in pictures]
    durations = [milliseconds] * (len(indexed) - 1) + [2000]
    with replacing(path) as beside:
        indexed[0].save(
            beside, format="GIF", save_all=True, append_images=indexed[1:], duration=durations, loop=0, optimize=True
        )


def loss_curve(records: Sequence[Mapping[str, float]], path: Path) -> None:
    """The training loss and the held-out error over the steps, from the lines of metrics.jsonl."""
    figure, axes = _figure()
    for key, label, color in (("loss", "training loss", PALE), ("held_out", "held-out error / linear", ACCENT)):
        points = [(r["step"], r[key]) for r in records if r.get(key) is not None and math.isfinite(r[key])]
        if points:
            steps, values = zip(*points, strict=True)
            if key == "loss" and len(values) > 20:
                axes.plot(steps, values, color=PALE, lw=0.8)
                axes.plot(steps, _smooth(values), color=INK, lw=1.6, label=f"{label}, smoothed")
            else:
                axes.plot(steps, values, color=color, lw=1.6, marker="o", ms=3, label=label)
    positive = all(value > 0 for line in axes.lines for value in line.get_ydata())
    axes.set(xlabel="step", ylabel="loss", yscale="log" if positive else "linear")  # implicit losses are negative
    axes.legend(frameon=False)
    with replacing(path) as beside:
        _save(figure, beside)


def loss_by_noise(ratios: Sequence[float], errors: Sequence[float], linear: Sequence[float], path: Path) -> None:
    """The held-out error of x0 against the noise ratio sigma/alpha, beside the best that a linear denoiser could do."""
    figure, axes = _figure()
    axes.fill_between(ratios, errors, linear, color=PALE, alpha=0.35, lw=0)
    axes.plot(ratios, linear, color=INK, lw=1.2, ls="--", label="best linear denoiser of white data")
    axes.plot(ratios, errors, color=ACCENT, lw=1.8, marker="o", ms=3, label="this network, held-out data")
    axes.set(xscale="log", yscale="log", xlabel="noise ratio sigma/alpha", ylabel="mean squared error of x0")
    axes.legend(frameon=False)
    with replacing(path) as beside:
        _save(figure, beside)


def accuracy_by_noise(ratios: Sequence[float], accuracies: Sequence[float], chance: float, path: Path) -> None:
    """The share of held-out data that a noisy classifier tells right, against the noise ratio sigma/alpha."""
    figure, axes = _figure()
    axes.axhline(chance, color=INK, lw=1.2, ls="--", label="the commonest class")
    axes.plot(ratios, accuracies, color=ACCENT, lw=1.8, marker="o", ms=3, label="this network, held-out data")
    axes.set(xscale="log", ylim=(0, 1.03), xlabel="noise ratio sigma/alpha", ylabel="share told right")
    axes.legend(frameon=False)
    with replacing(path) as beside:
        _save(figure, beside)


def _smooth(values: Sequence[float]) -> np.ndarray:
    width = max(3, len(values) // 20)
    padded = np.pad(np.asarray(values, float), width, mode="edge")
    return np.convolve(padded, np.ones(2 * width + 1) / (2 * width + 1), mode="valid")


def _figure(square: bool = False) -> tuple[Any, Any]:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5, 5) if square else (7, 4.2), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(alpha=0.2, lw=0.5)
    return figure, axes


def _plot(samples: Tensor, kind: str, real: Tensor | None = None, reach: float | None = None) -> Any:
    figure, axes = _figure(square=kind == "vector")
    x = samples.float().cpu().numpy()
    if kind == "vector":
        flat = x.reshape(len(x), -1)
        if flat.shape[1] == 1:
            axes.hist(flat[:, 0], bins=60, color=ACCENT)
        else:
            if real is not None:
                axes.scatter(*real.float().cpu().flatten(1)[:, :2].numpy().T, s=3, color=PALE, lw=0, label="real")
            axes.scatter(*flat[:, :2].T, s=4, color=ACCENT, lw=0, alpha=0.7, label="samples")
            axes.set_aspect("equal", adjustable="box" if reach else "datalim")
            if real is not None:
                axes.legend(frameon=False, markerscale=3, loc="upper right")
        if reach:
            axes.set(xlim=(-reach, reach), ylim=(-reach, reach))
    else:
        for line in x[:16].reshape(min(len(x), 16), -1, x.shape[-1])[:, 0]:
            axes.plot(line, lw=1, alpha=0.8)
        if reach:
            axes.set_ylim(-reach, reach)
    return figure


def _save(figure: Any, path: Path) -> None:
    figure.savefig(path, format="png", dpi=130)


def _as_image(figure: Any) -> Image.Image:
    figure.canvas.draw()
    return Image.fromarray(np.asarray(figure.canvas.buffer_rgba())[..., :3].copy())
