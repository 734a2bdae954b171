"""A folder of pictures as a data set; its sub-folders may be its classes."""

import os
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Literal, TypeVar, final, get_args

import torch
from torch import Tensor

from ornstein.data.captions import TEXT, captioned, differ, read_captions, split_texts
from ornstein.data.condition import TextKind, labelled
from ornstein.data.dataset import Dataset, Source
from ornstein.data.labels import lost
from ornstein.data.layout import Layout
from ornstein.data.pictures import (
    FOREIGN,
    SUFFIXES,
    WHITE,
    Mode,
    colour,
    read_whole_pictures,
    remarks_on,
    whole_levels,
)
from ornstein.data.reading import absolute, folder
from ornstein.data.remarks import remarks
from ornstein.data.splitting import split
from ornstein.data.statistics import value_range
from ornstein.data.zipped import contents, is_zip, members
from ornstein.errors import InputError, shown
from ornstein.files import named

Label = Literal["auto", "folder", "none"]
Broken = Literal["skip", "stop"]
Read = TypeVar("Read")

TEST_FOLDERS = ("test", "val", "valid", "validation")
#: broken pictures that are passed over: one in so many
ONE_IN = 10


@final
@dataclass(frozen=True)
class ImageFolder(Source):
    """A folder of image files (png, jpg, webp, bmp, gif, tiff, ppm), read recursively; sub-folders become classes.

    A zip of such a folder is read as it is, without being unpacked (`ornstein.data.zipped`). The description says what
    was done to how many of the pictures to make them fit together.

    A folder that contains only `train` and `test` (or `val`) keeps that split; otherwise a part is held out.

    Args:
        path: the folder, or the .zip. Hidden files and files of other types are ignored; pictures of formats that are
            not read, such as HEIC, are named in the description. Links to folders are followed, but not those in a zip.
        size: (height, width), or one number for a square, or as text "64,48" or "64x48": crop at the centre to that
            aspect and resize. None takes the files as they are; they must then agree in size.
        mode: "L" (greyscale), "RGB", "RGBA" (transparency is a fourth channel), or "auto": greyscale if every file is,
            else RGB.
        background: the colour that transparency is laid on if it is not kept: a name, or #rrggbb.
        label: "folder" makes the first level of sub-folders the classes, "none" ignores them, "auto" uses them if
            there are at least two.
        captions: a .csv of two columns, file and caption: the part "text" of the condition of each picture. A relative
            path is looked up in the folder first; files are named by their paths in the folder, or by name alone.
        text: "words" or "characters": what a caption is split into; "sentences": it becomes a vector of an encoder,
            which needs the extra `ornstein[sentences]`.
        flip: mirror training images left to right at random.
        test_fraction, seed: what share is held out, and which pictures; in proportion to the classes. Pictures that
            share a caption are held out together, unless captions are few.
        broken: "skip" skips files that cannot be read, up to a tenth of all, and names them in the description;
            "stop" ends at the first.

    Raises:
        InputError: no such folder, or one in it that may not be read; no images; files that cannot be read; sizes that
            differ; images outside of the class folders; fewer than three images.
    """

    path: str
    size: int | str | tuple[int, int] | None = None
    mode: Mode = "auto"
    background: str = WHITE
    label: Label = "auto"
    captions: str | None = None
    text: TextKind = "words"
    flip: bool = False
    test_fraction: float = 0.1
    seed: int = 0
    broken: Broken = "skip"

    def __post_init__(self) -> None:
        if self.size is not None:
            object.__setattr__(self, "size", _sides(self.size))
        choices = {"mode": Mode, "label": Label, "broken": Broken, "text": TextKind}
        for field, known in ((name, get_args(kind)) for name, kind in choices.items()):
            if getattr(self, field) not in known:
                raise InputError(f"data.{field}={getattr(self, field)!r} is not known; use one of {', '.join(known)}.")
        colour(self.background)
        object.__setattr__(self, "path", absolute(self.path))
        if self.captions is not None:
            inside = Path(self.path, self.captions)
            place = str(inside) if inside.is_file() else absolute(self.captions, "data.captions")
            object.__setattr__(self, "captions", place)

    def load(self) -> Dataset:
        lying = lie(self.path)
        places, files = lying.places, lying.files
        if not places:
            unread = lying.foreign
            raise InputError(
                f"data.path={self.path!r} holds no images ({len(files)} other files{f', {unread}' if unread else ''}); "
                f"looked for {', '.join(SUFFIXES)} in it and its sub-folders."
            )
        assert self.size is None or isinstance(self.size, tuple)
        sources, size = lying.read(range(len(places))), self.size
        values, broken, done = passing_over(
            len(sources) if self.broken == "skip" else 0,
            lambda most: read_whole_pictures(
                sources, size, self.mode, lambda i: shown("/".join(places[i])), most, self.background
            ),
        )
        notes = lying.left_out(broken)
        places = [place for i, place in enumerate(places) if i not in broken]
        said = None if self.captions is None else read_captions(self.captions, places)
        in_test = _given_split(places)
        if in_test is not None:
            places = [place[1:] for place in places]
        labels, classes = self._labels(places)
        if in_test is None:
            if said is not None and differ(said[0]):
                train, test = split_texts(said[0], self.test_fraction, self.seed)
                notes.append("held out by caption")
            else:
                train, test = split(len(values), self.test_fraction, self.seed, labels)
        else:
            train, test = (~in_test).nonzero().flatten(), in_test.nonzero().flatten()
            notes.append("split by folder")
        notes += remarks_on(done, len(values), values, self.background)
        if labels is not None:
            notes += filter(None, [lost(labels[train], labels[test], classes)])
        conditions = {} if labels is None else labelled(labels[train], labels[test], classes)
        if said is not None:
            texts, remark = said
            trained, held_out = ([texts[i] for i in part.tolist()] for part in (train, test))
            conditions[TEXT], lacking = captioned(trained, held_out, self.text, "data.captions")
            notes += filter(None, [remark, lacking])
        top = 255 if values.dtype == torch.uint8 else value_range(values)[1]
        transform = whole_levels(0, int(top))
        kept = values[train]
        return Dataset(
            name=shown(Path(self.path).resolve().name),
            train=kept,
            test=values[test],
            conditions=conditions,
            kind="image",
            transform=transform,
            flip=self.flip,
            note="; ".join([*notes, *remarks(kept, transform, "image")]),
            layout=Layout("NCHW"),
        )

    def _labels(self, places: Sequence[tuple[str, ...]]) -> tuple[Tensor | None, tuple[str, ...]]:
        folders = [place[0] if len(place) > 1 else None for place in places]
        classes = tuple(sorted({folder for folder in folders if folder is not None}))
        if self.label == "none" or (self.label == "auto" and len(classes) < 2):
            return None, ()
        if None in folders or not classes:
            stray = shown(places[folders.index(None)][0])
            raise InputError(
                f"data.label={self.label!r} makes sub-folders of {self.path!r} the classes, but {stray!r} lies in none "
                "of them; move it or use data.label='none'."
            )
        number = {name: i for i, name in enumerate(classes)}
        return torch.tensor([number[folder] for folder in folders if folder is not None]), tuple(map(shown, classes))


@dataclass(frozen=True)
class Lying:
    """Pictures that lie in a folder, or in a zip of one.

    Args:
        places: where each lies in it, as the parts of its name; sorted.
        files: everything that lies there, and is not hidden.
        read: takes numbers of `places`, and gives what those pictures are read from.
    """

    places: list[tuple[str, ...]]
    files: Sequence[PurePath]
    read: "Callable[[Sequence[int]], Sequence[Path | bytes]]"

    @property
    def foreign(self) -> str:
        """How many files there are of formats of pictures that are not read, by suffix; "" if there are none."""
        found = Counter(f.suffix.lower() for f in self.files if f.suffix.lower() in FOREIGN)
        return ", ".join(f"{count:,} {suffix}" for suffix, count in found.items())

    def left_out(self, broken: Collection[int]) -> list[str]:
        """What was not read, in words: files of other formats, and those of these numbers, which cannot be."""
        said = [f"left out {self.foreign} (not read; save them as png or jpg)"] if self.foreign else []
        if broken:
            first = shown("/".join(self.places[min(broken)]))
            said.append(f"left out {len(broken)} of {len(self.places):,} files that cannot be read, first {first}")
        return said


def passing_over(count: int, read: Callable[[int], Read]) -> Read:
    """What `read` makes of pictures, given how many may be passed over since they cannot be read: one in `ONE_IN`.

    Args:
        count: of the pictures; 0 to stop at the first that cannot be read.
        read: takes how many.

    Raises:
        InputError: more cannot be read.
    """
    most = count // ONE_IN
    try:
        return read(most)
    except InputError as error:
        if most and " cannot be read" in str(error):
            said = str(error).rstrip(".")
            raise InputError(f"{said}, nor can {most} others: more than one in {ONE_IN}.") from error
        raise


def lie(path: "str | Path", noun: str = "data.path") -> Lying:
    """What pictures lie in a folder and its sub-folders, or in a zip; hidden ones and other types are passed over.

    Args:
        noun: what to call the path in errors.

    Raises:
        InputError: no such folder or zip; a sub-folder that may not be read, or that is there twice by a link; a zip
            that is damaged, or would grow beyond measure.
    """
    place = named(path, noun)
    if is_zip(place) and not os.path.isdir(place):
        inside = members(place, noun)
        kept = [(name, info) for name, info in inside if name.suffix.lower() in SUFFIXES]
        return Lying(
            [name.parts for name, _ in kept],
            [name for name, _ in inside],
            lambda rows: contents(place, [kept[i][1] for i in rows], noun),
        )
    root = folder(path, noun, "a folder of images, or a zip of one")
    files = sorted(_walked(root, root, {}))
    pictures = [f for f in files if f.suffix.lower() in SUFFIXES]
    return Lying([f.relative_to(root).parts for f in pictures], files, lambda rows: [pictures[i] for i in rows])


def stray(places: Sequence[tuple[str, ...]]) -> str:
    """The first picture that lies in no sub-folder where there are several; "" if there is none.

    Where it is, the sub-folders are no classes.
    """
    if _given_split(places) is not None:
        places = [place[1:] for place in places]
    outside = [place[0] for place in places if len(place) == 1]
    return outside[0] if outside and len({place[0] for place in places if len(place) > 1}) > 1 else ""


def _walked(place: Path, root: Path, seen: dict[tuple[int, int], Path]) -> Iterator[Path]:
    """What lies in a folder and below, short of folders and of what is hidden.

    Links to folders are followed, for classes are often linked, but none is read twice: that is how loops end.
    """
    facts = os.stat(place)
    if (first := seen.setdefault((facts.st_dev, facts.st_ino), place)) != place:
        if place.is_relative_to(first):
            return  # a loop: all that is in it has been found
        raise InputError(
            f"{shown(place.relative_to(root))} and {shown(first.relative_to(root))} in data.path={str(root)!r} are the "
            "same folder; remove one of the two."
        )
    try:
        with os.scandir(place) as entries:
            found = sorted(entries, key=lambda entry: entry.name)
        for entry in found:
            if entry.name.startswith("."):
                continue
            if _leads_to_folder(entry):
                yield from _walked(place / entry.name, root, seen)
            else:
                yield place / entry.name
    except OSError as error:
        raise InputError(
            f"{shown(place)} cannot be read ({error.strerror}); make it readable, or move it out of "
            f"data.path={str(root)!r}."
        ) from error


def _leads_to_folder(entry: "os.DirEntry[str]") -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself: by its name a broken picture, which is counted, or a folder, which is missed
        if Path(entry.name).suffix.lower() in SUFFIXES:
            return False
        raise


def _given_split(places: Sequence[tuple[str, ...]]) -> Tensor | None:
    tops = {place[0] if len(place) > 1 else "" for place in places}
    if len(tops) == 2 and "train" in tops and tops & set(TEST_FOLDERS):
        return torch.tensor([place[0] != "train" for place in places])
    return None


def _sides(size: int | str | tuple[int, int]) -> tuple[int, int]:
    """(height, width) from 64, (64, 48), "64", "64,48" or "64x48"."""
    given: tuple[int | str, ...]
    if isinstance(size, str):
        given = tuple(size.lower().replace("x", ",").strip("()[] ").split(","))
    else:
        given = tuple(size) if isinstance(size, (tuple, list)) else (size,)
    try:
        sides = tuple(int(side) for side in given if not isinstance(side, (bool, float)))
    except (ValueError, TypeError):
        sides = ()
    sides = sides * 2 if len(sides) == 1 and isinstance(size, (int, str)) else sides
    if len(sides) != 2 or len(given) > 2 or min(sides) < 1 or max(sides) > 2**14:
        raise InputError(
            f"data.size={size!r} must be one positive number or two (height, width) up to {2**14:,}, such as 64 or "
            "64,48."
        )
    return sides[0], sides[1]
