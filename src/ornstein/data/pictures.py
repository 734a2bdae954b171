"""Image files: one picture, one folder of them, or one blob of their bytes, as whole numbers (N, C, H, W).

How a file becomes an array, with nothing left to guess:
- Orientation written by a camera (EXIF) is applied.
- Transparency is composited on white.
- Greyscale stays one channel, everything else becomes RGB; in "auto" mode a folder is greyscale only if every file is.
- 8-bit files give uint8. 16-bit greyscale (PNG, TIFF; usual in medicine and microscopy) keeps its 16 bits, as
  int32; 16-bit colour is read at 8 bits, which is all that Pillow offers. Floating-point TIFF is refused: use .npy.
- Of an animation the first frame is taken.
- With `size`, the largest centred rectangle of the wanted aspect is cut out and resized with an antialiased Lanczos
  window; a picture that has the size already is not touched.
"""

import io
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Literal, final, get_args

import torch
from torch import Tensor

from ornstein.data.dataset import Dataset, Source, split, value_range
from ornstein.data.transform import Levels
from ornstein.errors import InputError

if TYPE_CHECKING:
    from PIL import Image

Mode = Literal["auto", "L", "RGB"]
Label = Literal["auto", "folder", "none"]

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm", ".pgm")
TEST_FOLDERS = ("test", "val", "valid", "validation")


@final
@dataclass(frozen=True)
class ImageFolder(Source):
    """A folder of image files (png, jpg, webp, bmp, gif, tiff, ppm), read recursively; sub-folders become classes.

    A folder that holds just `train` and `test` (or `val`) keeps that split; otherwise a part is held out.

    Args:
        path: the folder. Hidden files and files of other types are ignored.
        size: (height, width), or one number for a square: crop at the centre and resize. None takes the files as
            they are, which must then agree in size.
        mode: "L" (greyscale), "RGB", or "auto": greyscale if every file is.
        label: "folder" makes the first level of sub-folders the classes, "none" ignores them, "auto" uses them if
            there are at least two.
        flip: mirror training images left to right at random.
        test_fraction, seed: how many are held out, and which; in proportion to the classes.

    Raises:
        InputError: no such folder; no images; a file that cannot be read; sizes that differ; images outside of the
            class folders; fewer than three images.
    """

    path: str
    size: int | tuple[int, int] | None = None
    mode: Mode = "auto"
    label: Label = "auto"
    flip: bool = False
    test_fraction: float = 0.1
    seed: int = 0

    def __post_init__(self) -> None:
        if self.size is not None:
            size: tuple[int, ...] = (self.size, self.size) if isinstance(self.size, int) else tuple(self.size)
            if len(size) != 2 or not all(isinstance(side, int) and side > 0 for side in size):
                raise InputError(f"size={self.size!r} must be one positive number or two (height, width).")
            object.__setattr__(self, "size", size)
        for field, known in (("mode", get_args(Mode)), ("label", get_args(Label))):
            if getattr(self, field) not in known:
                raise InputError(f"{field}={getattr(self, field)!r} is not known; use one of {', '.join(known)}.")

    def load(self) -> Dataset:
        root = Path(self.path).expanduser()
        if not root.is_dir():
            raise InputError(f"path={self.path!r} is not a folder; give a folder of images.")
        files = sorted(f for f in root.rglob("*") if f.is_file() and not _hidden(f.relative_to(root)))
        pictures = [f for f in files if f.suffix.lower() in SUFFIXES]
        if not pictures:
            raise InputError(
                f"path={self.path!r} holds no images ({len(files)} other files); "
                f"looked for {', '.join(SUFFIXES)} in it and its sub-folders."
            )
        places = [f.relative_to(root).parts for f in pictures]
        in_test = self._given_split(places)
        if in_test is not None:
            places = [place[1:] for place in places]
        labels, classes = self._labels(places)

        assert self.size is None or isinstance(self.size, tuple)
        values = read_pictures(pictures, self.size, self.mode, name=lambda i: str(pictures[i].relative_to(root)))
        if in_test is None:
            train, test = split(len(values), self.test_fraction, self.seed, labels)
            note = ""
        else:
            train, test = (~in_test).nonzero().flatten(), in_test.nonzero().flatten()
            note = "split by folder"
        top = 255 if values.dtype == torch.uint8 else value_range(values)[1]
        return Dataset(
            name=root.resolve().name,
            train=values[train],
            test=values[test],
            train_labels=None if labels is None else labels[train],
            test_labels=None if labels is None else labels[test],
            classes=classes,
            kind="image",
            transform=whole_levels(0, int(top)),
            flip=self.flip,
            note=note,
        )

    @staticmethod
    def _given_split(places: Sequence[tuple[str, ...]]) -> Tensor | None:
        tops = {place[0] if len(place) > 1 else "" for place in places}
        if len(tops) == 2 and "train" in tops and tops & set(TEST_FOLDERS):
            return torch.tensor([place[0] != "train" for place in places])
        return None

    def _labels(self, places: Sequence[tuple[str, ...]]) -> tuple[Tensor | None, tuple[str, ...]]:
        folders = [place[0] if len(place) > 1 else None for place in places]
        classes = tuple(sorted({folder for folder in folders if folder is not None}))
        if self.label == "none" or (self.label == "auto" and len(classes) < 2):
            return None, ()
        if None in folders or not classes:
            stray = places[folders.index(None)][0]
            raise InputError(
                f"label={self.label!r} makes sub-folders of {self.path!r} the classes, but {stray!r} lies in none of "
                "them; move it or use label='none'."
            )
        return torch.tensor([classes.index(folder) for folder in folders if folder is not None]), classes


def whole_levels(low: int, high: int) -> Levels:
    """The grid for whole-numbered images whose values run from `low` to `high`.

    Images rarely use their last level, so from 128 up the range is that of the container: the smallest of 8, 10, 12,
    14 and 16 bits that holds `high`. Below, it is what was found (0..16 for digits, 0..1 for masks). Grids that
    start below zero are taken as found.
    """
    if low < 0 or high < 128:
        return Levels(high - min(low, 0) + 1, min(low, 0))
    return Levels(next(count for count in (2**8, 2**10, 2**12, 2**14, 2**16) if high < count))


def read_pictures(
    sources: Sequence[Path | bytes], size: tuple[int, int] | None, mode: Mode, name: Callable[[int], str]
) -> Tensor:
    """Image files (paths, or their bytes) as one tensor (N, C, H, W): uint8, or int32 for 16-bit greyscale.

    Args:
        sources: at least one.
        size: (height, width) to crop and resize to, or None if all agree.
        mode: see `ImageFolder`.
        name: what to call the i-th source in an error.

    Raises:
        InputError: a source that cannot be read; sizes that differ without `size`; 8 and 16 bits mixed.
    """
    pictures: list[Tensor] = []
    with ThreadPoolExecutor() as pool:
        # Pillow decodes outside of Python's lock, but for the thumbnails in a blob threads cost more than they save
        apply = map if isinstance(sources[0], bytes) else pool.map
        decoded = apply(lambda i: _read(sources[i], size, mode, name(i)), range(len(sources)))
        try:
            for i, picture in enumerate(decoded):
                pictures.append(picture)
                first = pictures[0]
                if picture.shape[1:] != first.shape[1:]:
                    raise InputError(
                        f"images differ in size: {name(0)} is {first.shape[1]}x{first.shape[2]}, {name(i)} is "
                        f"{picture.shape[1]}x{picture.shape[2]} (height x width); "
                        "give size=H,W to crop and resize them."
                    )
                if picture.dtype != first.dtype:
                    raise InputError(
                        f"{name(0)} and {name(i)} differ in bits a pixel; give mode='L' or 'RGB' to read both at 8."
                    )
        except InputError:
            pool.shutdown(cancel_futures=True)
            raise
    out = torch.empty(len(pictures), max(map(len, pictures)), *first.shape[1:], dtype=first.dtype)
    for i in reversed(range(len(out))):
        out[i] = pictures.pop()  # a grey picture among coloured ones fills all three channels
    return out


def _hidden(place: Path) -> bool:
    return any(part.startswith(".") for part in place.parts)


def _read(source: Path | bytes, size: tuple[int, int] | None, mode: Mode, name: str) -> Tensor:
    """One picture (C, H, W)."""
    from PIL import Image

    stream: Path | IO[bytes] = source if isinstance(source, Path) else io.BytesIO(source)
    try:
        with Image.open(stream) as image:
            return _values(image, size, mode)
    except InputError as error:
        raise InputError(f"{name} {error}") from error
    except (OSError, SyntaxError, ValueError, EOFError, Image.DecompressionBombError) as error:
        # Pillow's own words may hold the address of a buffer: they stay in the chain, not in the sentence
        raise InputError(f"{name} cannot be read as an image (damaged, or not what its name says).") from error


def _values(image: "Image.Image", size: tuple[int, int] | None, mode: Mode) -> Tensor:
    """Pixels (C, H, W): uint8, or int32 if the image is 16-bit grey and the mode leaves it so."""
    import numpy as np
    from PIL import Image, ImageOps

    ImageOps.exif_transpose(image, in_place=True)
    if image.mode == "F":
        raise InputError("has floating-point pixels; store such data as .npy or .npz.")
    top = 255
    if image.mode.startswith("I"):
        deep = np.asarray(image).astype(np.float32)
        if deep.min() < 0 or deep.max() > 65535:
            raise InputError("has 32-bit pixels outside 0..65535; store such data as .npy or .npz.")
        # as floats, because Pillow resizes 16-bit pixels badly; 65535 = 257 * 255
        image, top = Image.fromarray(deep if mode == "auto" else deep / 257), 65535 if mode == "auto" else 255
    else:
        grey = image.mode in ("1", "L", "LA", "La")
        if image.has_transparency_data:
            image = image.convert("RGBA")
            image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
        image = image.convert(("L" if grey else "RGB") if mode == "auto" else mode)
    if size is not None and image.size != size[::-1]:
        image = ImageOps.fit(image, size[::-1], method=Image.Resampling.LANCZOS)
    values = torch.from_numpy(np.array(image))
    if values.is_floating_point():
        values = values.round().clamp(0, top).to(torch.uint8 if top == 255 else torch.int32)
    values = values.movedim(-1, 0) if values.ndim == 3 else values[None]
    return values.expand(3, -1, -1) if mode == "RGB" else values
