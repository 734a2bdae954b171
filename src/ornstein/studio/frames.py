"""Samples as what a page draws: pictures as PNG, points and curves as whole numbers, rows as words.

A payload is plain JSON, `{"pixels": ...}`, `{"points": ...}`, `{"curves": ...}` or `{"rows": ...}`; film.js draws each
in the colours of the page, light or dark. What is sent is small: pictures go in their own resolution and are enlarged
by the browser, coordinates are rounded to a thousandth of the window.
"""

import base64
import io
import math
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from ornstein.experiment.cells import draws_rows, must_be_table
from ornstein.experiment.pictures import image_grid
from ornstein.experiment.run import Run
from ornstein.experiment.stream import Seen

#: a coordinate is a whole number from 0 to this
FULL = 1000
#: rows, curves, points and pictures that are shown of a batch: the files have all
ROWS, CURVES, POINTS, PICTURES = 25, 12, 1000, 100
#: frames that a film keeps, evenly of its way
FRAMES = 61
#: bytes of a picture's file that is shown
PICTURE = 3_000_000


def data_uri(picture: Image.Image) -> str:
    """A picture as PNG in a data URI."""
    stream = io.BytesIO()
    picture.save(stream, format="PNG", compress_level=3)
    return "data:image/png;base64," + base64.b64encode(stream.getvalue()).decode()


def thumbnail(path: Path, side: int = 96) -> str | None:
    """A small copy of a picture as a data URI; None of what is no picture, or too large a one."""
    try:
        if path.stat().st_size > PICTURE:
            return None
        with Image.open(path) as picture:
            picture.load()
            small = picture.convert("RGB")
    except (OSError, ValueError, Image.DecompressionBombError):
        return None
    small.thumbnail((side, side))
    return data_uri(small)


def pixels(images: Tensor, columns: int | None = None) -> dict[str, Any]:
    """A grid of images (N, C, H, W) in [-1, 1] at their own resolution, nothing between them."""
    grid = image_grid(images, columns, side=1, clear=True)
    return {"pixels": data_uri(grid), "size": [grid.width, grid.height]}


class Window:
    """How samples of one run are shown, from the first frame to the last in the same window.

    Args:
        run: whose samples.
        count: how many there are.
    """

    def __init__(self, run: Run, count: int) -> None:
        self.run, self.count = run, count
        self.columns = math.ceil(math.sqrt(min(count, PICTURES))) if run.kind == "image" else None
        low, high = run.about["data"]["range"]
        middle, reach = (low + high) / 2, 0.65 * (high - low) or 1.0
        self.low, self.high = middle - reach, middle + reach

    @property
    def one(self) -> bool:
        """Whether there is but one thing to see at a moment: rows become known cell by cell."""
        return draws_rows(self.run)

    def payload(self, x: Tensor, spread: float = 1.0) -> dict[str, Any]:
        """Samples in model space (N, *shape), divided by `spread` first."""
        run = self.run
        if draws_rows(run):
            return self._rows(x[:ROWS])
        x = x / spread
        if run.kind == "image":
            return pixels(run.transform.pictures(x[:PICTURES]), self.columns)
        own = run.transform.inverse(x)
        if own[0].numel() == 2:
            return {"points": self._whole(own[:POINTS].flatten(1)), "window": [self.low, self.high]}
        lines = own[:CURVES].reshape(min(len(own), CURVES), -1, own.shape[-1])
        return {"curves": self._whole(lines), "window": [self.low, self.high]}

    def frame(self, seen: Seen) -> dict[str, Any]:
        """A moment as the page shows it."""
        said = f"step {seen.step} of {seen.steps}"
        if seen.ratio is not None:
            said += f", noise is {seen.ratio:.3g} times the data" if seen.step < seen.steps else ", no noise is left"
        noisy = self.payload(seen.noisy, seen.spread)
        clean = None if self.one else self.payload(seen.clean)
        return {"said": said, "noisy": noisy, "clean": clean, "step": seen.step, "steps": seen.steps}

    def _whole(self, values: Tensor) -> list[Any]:
        scaled = (values.double() - self.low) / (self.high - self.low) * FULL
        found: list[Any] = scaled.clamp(-FULL, 2 * FULL).round().int().tolist()
        return found

    def _rows(self, x: Tensor) -> dict[str, Any]:
        tokens, types = must_be_table(self.run)
        values, known = tokens.inverse(x), tokens.categories.known(x)
        columns = []
        for place, kind in enumerate(types):
            own = list(tokens.tokens_of(place))
            there = known[:, own].all(1) if own else ~values[:, place].isnan()
            words = kind.render(torch.where(there, values[:, place], math.nan).numpy())
            columns.append([word if yes else None for word, yes in zip(words, there.tolist(), strict=True)])
        return {"rows": [list(row) for row in zip(*columns, strict=True)], "names": [kind.name for kind in types]}
