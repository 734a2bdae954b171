"""Image files: one picture, or many of them (paths or bytes), as whole numbers (N, C, H, W).

How a file becomes an array, exactly:
- Orientation written by a camera (EXIF) is applied.
- Transparency is composited on a background, white by default; mode "RGBA" keeps it as a fourth channel.
- Greyscale stays one channel, everything else becomes RGB; in "auto" mode many are greyscale only if every file is.
- 8-bit files give uint8. 16-bit greyscale (PNG, TIFF; usual in medicine and microscopy) keeps its 16 bits, as
  int32; 16-bit colour is read at 8 bits, which is all that Pillow offers. Floating-point TIFF is refused: use .npy.
- Of an animation the first frame is taken.
- With `size`, the largest centred rectangle of the wanted aspect is cut out and resized with an antialiased Lanczos
  window; a picture that has the size already is not touched. Without it nothing is ever resized.
- What was done, and to how many pictures, is returned with the pixels (`remarks_on`), to be reported to the user.

What a file *is* is decided by its content, and only the formats of `FORMATS` are tried: Pillow would pass others to
external programs (an EPS called x.png to Ghostscript). A picture of more than `MOST_PIXELS` is refused before it is
decoded, since a few bytes can declare any size.
"""

import io
import math
import os
import stat
import threading
import warnings
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from pathlib import Path
from typing import IO, TYPE_CHECKING, Literal

import torch
from torch import Tensor

from ornstein.data.reading import half_of_memory
from ornstein.data.transform import Affine, Transform, WholeNumbers
from ornstein.errors import InputError

if TYPE_CHECKING:
    from PIL import Image

Mode = Literal["auto", "L", "RGB", "RGBA"]
#: by the number of channels, the mode that gives so many
MODES: dict[int, Mode] = {1: "L", 3: "RGB", 4: "RGBA"}
#: what transparency is laid on
WHITE = "white"
#: what may be done to a picture when it is read
_LAID, _FITTED, _COARSE, _COLOURED = "laid", "fitted", "coarse", "coloured"

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm", ".pgm")
#: in Pillow's words
FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF", "PPM")
#: what people keep beside them that is a picture but is not read, for which a sentence is better than silence
FOREIGN = (
    *(".heic", ".heif", ".avif", ".jxl", ".jp2", ".svg", ".eps", ".psd", ".exr", ".dcm"),
    *(".raw", ".dng", ".cr2", ".cr3", ".nef", ".arw"),
)
#: the largest cameras of telephones have 48 million
MOST_PIXELS = 50_000_000
#: pictures of more pixels than this are decoded one at a time, so that memory does not grow with the threads
_BIG = 4_000_000
_one_at_a_time = threading.Lock()


def whole_levels(low: int, high: int) -> WholeNumbers:
    """The grid for whole-numbered images whose values run from `low` to `high`.

    Images rarely use their last level, so from 128 up the range is that of the container: the smallest of 8, 10, 12,
    14 and 16 bits that holds `high`. Below, it is what was found (0..16 for digits, 0..1 for masks). Grids that
    start below zero are taken as found.
    """
    if low < 0 or high < 128:
        return WholeNumbers(high - min(low, 0) + 1, min(low, 0))
    return WholeNumbers(next(count for count in (2**8, 2**10, 2**12, 2**14, 2**16) if high < count))


def read_pictures(
    sources: "Sequence[Path | bytes | Image.Image]",
    size: tuple[int, int] | None,
    mode: Mode,
    name: Callable[[int], str],
    background: str = WHITE,
) -> Tensor:
    """Images as one tensor (N, C, H, W): uint8, or int32 for 16-bit greyscale.

    Args:
        sources: files, their bytes, or what Pillow made of them; at least one.
        size: (height, width) to crop and resize to, or None if all agree.
        mode: see `Mode`: "L" (greyscale), "RGB", "RGBA" (transparency as a fourth channel), or "auto": greyscale if
            every file is, else RGB.
        name: what to call the i-th source in an error.
        background: the colour that transparency is laid on, where it is not kept: see `colour`.

    Raises:
        InputError: a source that cannot be read; sizes that differ without `size`; 8 and 16 bits mixed; more than
            half of this machine's memory holds.
    """
    values, broken, _ = read_whole_pictures(sources, size, mode, name, most_broken=0, background=background)
    assert not broken
    return values


def colour(background: object) -> tuple[int, int, int]:
    """Red, green and blue, 0 to 255, of a colour's name or its #rrggbb.

    Raises:
        InputError: no such colour.
    """
    from PIL import ImageColor

    try:
        found = ImageColor.getrgb(str(background))
    except ValueError:
        found = ()  # type: ignore[assignment]
    if len(found) != 3:  # or with transparency of its own
        raise InputError(
            f"data.background={background!r} must be a colour that transparency is laid on, such as white or #20a0ff."
        )
    return found


def remarks_on(done: Mapping[str, int], count: int, values: Tensor, background: str) -> list[str]:
    """What was done to pictures when they were read, in words, each with how many of all `count` it was done to.

    Args:
        done: as `read_whole_pictures` returns it.
        values: the pictures (N, C, H, W).
        background: as they were read with.
    """
    channels, *sides = values.shape[1:]
    deep = values.dtype != torch.uint8
    said = [{1: "read as 16-bit grey" if deep else "read as grey", 3: "read as RGB", 4: "read as RGBA"}[channels]]
    by = "x".join(map(str, sides))
    words = {
        _COLOURED: "grey in themselves",
        _COARSE: "of 16 bits, read at 8",
        _LAID: f"transparent, laid on {background} (data.background=COLOUR; data.mode=RGBA keeps transparency)",
        _FITTED: f"cropped at the centre and resized to {by}",
    }
    return [*said, *(f"{done[key]:,} of {count:,} {what}" for key, what in words.items() if done.get(key))]


def read_whole_pictures(
    sources: "Sequence[Path | bytes | Image.Image]",
    size: tuple[int, int] | None,
    mode: Mode,
    name: Callable[[int], str],
    most_broken: int,
    background: str = WHITE,
) -> tuple[Tensor, dict[int, InputError], Mapping[str, int]]:
    """As `read_pictures`, but up to `most_broken` that cannot be read are left out, and returned with what is wrong.

    With them comes what was done to how many pictures, for `remarks_on`.
    """
    if size is not None:  # before the first is blown up to it
        channels = next((count for count, its in MODES.items() if its == mode), 1)
        filled = float(len(sources)) * math.prod(size) * channels
        if filled > half_of_memory():
            raise InputError(
                f"data.size={size[0]},{size[1]} of {len(sources):,} pictures fills {filled / 1e9:.3g} GB, more than "
                "half of this machine's memory; take a smaller size."
            )
    pictures: list[Tensor] = []
    kept: list[int] = []
    broken: dict[int, InputError] = {}
    done: Counter[str] = Counter()
    paper = colour(background)
    with warnings.catch_warnings(), ThreadPoolExecutor() as pool:
        warnings.simplefilter("ignore")  # what matters in Pillow's asides is an error here
        # Pillow decodes outside of Python's lock, but for the thumbnails in a blob threads cost more than they save
        apply = pool.map if isinstance(sources[0], Path) else map
        try:
            tried = apply(lambda i: _tried(sources[i], size, mode, name(i), paper), range(len(sources)))
            for i, found in enumerate(tried):
                if isinstance(found, InputError):
                    broken[i] = found
                    if len(broken) > most_broken:
                        raise found
                    continue
                picture, treated = found
                done.update(treated)
                pictures.append(picture)
                kept.append(i)
                _agree(picture, pictures[0], lambda place: name(kept[place]), len(kept) - 1, len(sources))
        except InputError:
            pool.shutdown(cancel_futures=True)
            raise
    first, channels = pictures[0], max(map(len, pictures))
    if grey := sum(len(picture) < channels for picture in pictures):
        done[_COLOURED] = grey
    out = torch.empty(len(pictures), channels, *first.shape[1:], dtype=first.dtype)
    for i in reversed(range(len(out))):
        out[i] = pictures.pop()  # a grey picture among coloured ones fills all three channels
    return out, broken, done


def sides(sources: "Sequence[Path | bytes]") -> list[tuple[int, int, bool]]:
    """(height, width, whether of more than 8 bits) of each picture, as it will be read, from the files' headers.

    Files that cannot be read are passed over.
    """
    from PIL import Image

    found = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for source in sources:
            try:
                if isinstance(source, Path) and not stat.S_ISREG(os.stat(source).st_mode):
                    continue
                opened = source if isinstance(source, Path) else io.BytesIO(source)
                with Image.open(opened, formats=FORMATS) as image:
                    height, width = image.height, image.width
                    if image.getexif().get(0x0112, 1) >= 5:  # turned by a quarter when it is read
                        height, width = width, height
                    found.append((height, width, image.mode.startswith("I")))
            except Exception:  # decoders raise whatever a damaged file makes them; the reader will say so
                continue
    return found


def is_picture(shape: tuple[int, ...], transform: Transform) -> bool:
    """Whether examples (C, H, W) have colours, black and white, as pictures do: these lie at -1 and 1 in the model."""
    ranged = isinstance(transform, Affine) and not isinstance(transform.scale, tuple)
    return len(shape) == 3 and shape[0] in MODES and (ranged or transform.levels is not None)


def _agree(picture: Tensor, first: Tensor, name: Callable[[int], str], place: int, count: int) -> None:
    if picture.shape[1:] != first.shape[1:]:
        raise InputError(
            f"images differ in size: {name(0)} is {first.shape[1]}x{first.shape[2]}, {name(place)} is "
            f"{picture.shape[1]}x{picture.shape[2]} (height x width); "
            "give data.size=H,W to crop and resize them."
        )
    if picture.dtype != first.dtype:
        raise InputError(
            f"{name(0)} and {name(place)} differ in bits a pixel; give data.mode=L or RGB to read both at 8."
        )
    if place == 0 and count * first.nbytes > half_of_memory():
        raise InputError(
            f"{count:,} pictures as large as {name(0)} fill {count * first.nbytes / 1e9:.3g} GB, more than half of "
            "this machine's memory; give data.size=H,W to resize them."
        )


def _tried(
    source: "Path | bytes | Image.Image",
    size: tuple[int, int] | None,
    mode: Mode,
    name: str,
    paper: tuple[int, int, int],
) -> tuple[Tensor, list[str]] | InputError:
    try:
        return _read(source, size, mode, name, paper)
    except InputError as error:
        return error


def _read(
    source: "Path | bytes | Image.Image",
    size: tuple[int, int] | None,
    mode: Mode,
    name: str,
    paper: tuple[int, int, int],
) -> tuple[Tensor, list[str]]:
    """One picture (C, H, W), and what was done to it."""
    from PIL import Image

    stream: IO[bytes] | None = None
    try:
        if isinstance(source, Image.Image):
            return _values(source.copy(), size, mode, paper)  # which is turned in place
        if isinstance(source, Path):
            if not stat.S_ISREG(os.stat(source).st_mode):
                raise InputError("is a pipe, a device or a folder and not a file.")
            stream = source.open("rb")
        else:
            stream = io.BytesIO(source)
        with Image.open(stream, formats=FORMATS) as image:
            pixels = image.width * image.height
            if pixels > MOST_PIXELS:
                raise InputError(
                    f"is of {image.width}x{image.height} pixels, more than the {MOST_PIXELS:,} that are read; "
                    "make it smaller first."
                )
            with _one_at_a_time if pixels > _BIG else nullcontext():
                return _values(image, size, mode, paper)
    except InputError as error:
        raise InputError(f"{name} {error}") from error
    except Exception as error:  # decoders raise whatever a damaged file makes them
        # Pillow's own words may hold the address of a buffer: they stay in the chain, not in the sentence
        raise InputError(f"{name} cannot be read as an image ({_reason(stream, error)}).") from error
    finally:
        if stream is not None:
            stream.close()


def _reason(stream: IO[bytes] | None, error: Exception) -> str:
    if stream is None:
        return getattr(error, "strerror", None) or "it is not available"
    if type(error).__name__ == "DecompressionBombError":  # Pillow's own limit, which lies above ours
        return f"it declares more than the {MOST_PIXELS:,} pixels that are read"
    if isinstance(error, MemoryError):
        return "it does not fit into memory"
    if not stream.closed:
        stream.seek(0)
        head = stream.read(12)
        if head[4:8] == b"ftyp":
            kind = head[8:12].decode("latin1").strip().upper()
            return f"its content is {kind if kind.isalnum() else 'of a film'}; save it as PNG or JPEG"
    return "damaged, or not what its name says"


def _values(
    image: "Image.Image", size: tuple[int, int] | None, mode: Mode, paper: tuple[int, int, int]
) -> tuple[Tensor, list[str]]:
    """Pixels (C, H, W): uint8, or int32 if the image is 16-bit grey and the mode leaves it so; what was done to it."""
    import numpy as np
    from PIL import Image, ImageOps

    # Pillow reads colour of 16 bits at 8 without a word, but says what it will decode
    done = [_COARSE] if any(";16" in str(tile) for tile in getattr(image, "tile", ())) else []
    ImageOps.exif_transpose(image, in_place=True)
    if image.mode == "F":
        raise InputError("has floating-point pixels; store such data as .npy or .npz.")
    top = 255
    if image.mode.startswith("I"):
        deep = np.asarray(image)
        if deep.min() < 0 or deep.max() > 65535:
            raise InputError("has 32-bit pixels outside 0..65535; store such data as .npy or .npz.")
        deep = deep.astype(np.float32)
        # as floats, because Pillow resizes 16-bit pixels badly; 65535 = 257 * 255
        image, top = Image.fromarray(deep if mode == "auto" else deep / 257), 65535 if mode == "auto" else 255
        done = [] if mode == "auto" else [_COARSE]
    else:
        grey = image.mode in ("1", "L", "LA", "La")
        if mode != "RGBA" and image.has_transparency_data:
            image = image if image.mode == "RGBA" else image.convert("RGBA")
            alpha = image.getchannel("A")
            if alpha.getextrema()[0] != 255:
                done.append(_LAID)
            sheet = Image.new("RGB", image.size, paper)
            sheet.paste(image, mask=alpha)
            image = sheet
        image = image.convert(("L" if grey else "RGB") if mode == "auto" else mode)
    if size is not None and image.size != size[::-1]:
        image = ImageOps.fit(image, size[::-1], method=Image.Resampling.LANCZOS)
        done.append(_FITTED)
    values = torch.from_numpy(np.array(image))
    if values.is_floating_point():
        values = values.round().clamp(0, top).to(torch.uint8 if top == 255 else torch.int32)
    values = values.movedim(-1, 0) if values.ndim == 3 else values[None]
    if mode == "RGBA" and len(values) == 1:  # was of 16 bits
        values = torch.cat([values.expand(3, -1, -1), torch.full_like(values, 255)])
    return values.expand(3, -1, -1) if mode == "RGB" else values, done
