"""Captions: texts that describe examples, in tokens of their own that need no download.

A text is split into words or characters, and each is a number: its place in the vocabulary of the training part, the
commonest first. Held-out texts may have words that do not occur in training. A model knows nothing of these, so they
are left out, and counted; a user who asks for one is told (`Known.model`).

Examples that share a caption are held out together. Otherwise every held-out caption would have been seen in training,
and evaluation would not show how a model handles new combinations of words.
"""

from collections import Counter
from collections.abc import Sequence

import torch
from torch import Tensor

from ornstein.data.condition import Column, Known, TextKind, encoded, pieces
from ornstein.data.delimited import read_delimited
from ornstein.data.labels import MOST_FLOAT_CLASSES
from ornstein.data.pictures import SUFFIXES
from ornstein.data.sentences import WIDTH
from ornstein.data.splitting import split
from ornstein.data.statistics import moments
from ornstein.errors import InputError, shown

#: the part that `--text` means
TEXT = "text"
#: tokens of a text, and different ones, at most
LONGEST, MOST_DIFFERENT = 256, 2**14
#: what the columns of a file of captions may be called
FILES, TEXTS = ("file", "file_name", "filename", "image", "path"), ("caption", "text", "description", "title")


def captioned(train: Sequence[str], test: Sequence[str], kind: TextKind, name: str) -> tuple[Column, str]:
    """Texts of the training and of the held-out examples as a part of the condition, and a remark.

    Args:
        train, test: one for each example; "" where there is none.
        kind: "words" or "characters": what they are split into; "sentences": vectors of a frozen encoder.
        name: to call them by in errors.

    Raises:
        InputError: the training part has no words at all; the encoder is not installed.
    """
    if kind == "sentences":
        trained, held_out = encoded(train), encoded(test)
        known = trained[~trained.isnan().any(1)]
        if len(known) == 0:
            raise InputError(f"{name} has no text of any training example; there is nothing to learn from it.")
        mean, sigma = moments(known)
        scale = torch.where(sigma > 0, sigma, 1.0)
        about = Known(kind, (WIDTH,), shift=tuple(mean.tolist()), scale=tuple(scale.tolist()))
        return Column(about, about.standardised(trained), about.standardised(held_out)), ""
    found = Counter(word for text in train for word in pieces(text, kind))
    if not found:
        raise InputError(f"{name} has no {kind} in any training example; there is nothing to learn from it.")
    vocabulary = tuple(word for word, _ in found.most_common(MOST_DIFFERENT))
    length = min(LONGEST, max(len(pieces(text, kind)) for text in (*train, *test)))
    about = Known(kind, (length,), classes=vocabulary)
    (trained, cut), (held_out, unsaid) = about.tokens(train), about.tokens(test)
    every = sum(len(pieces(text, kind)) for text in test)
    remarks = [
        f"{len(cut):,} {kind} of training texts left out: {LONGEST} of each are read, {MOST_DIFFERENT:,} different ones"
    ] * bool(cut)
    remarks += [f"{len(unsaid):,} of {every:,} held-out {kind} are new, and left out"] * bool(unsaid)
    return Column(about, trained, held_out), "; ".join(remarks)


def split_texts(texts: Sequence[str], fraction: float, seed: int) -> tuple[Tensor, Tensor]:
    """Indices of the training and of the held-out examples, those of equal texts together.

    Raises:
        InputError: fraction outside (0, 1), or fewer than three different texts.
    """
    places = {text: place for place, text in enumerate(sorted(set(texts)))}
    chosen = torch.zeros(len(places), dtype=torch.bool)
    chosen[split(len(places), fraction, seed)[1]] = True
    held_out = chosen[torch.tensor([places[text] for text in texts])]
    return (~held_out).nonzero().flatten(), held_out.nonzero().flatten()


def differ(texts: Sequence[str]) -> bool:
    """Whether so many texts differ that they are captions rather than classes."""
    return len(set(texts)) > max(MOST_FLOAT_CLASSES, len(texts) // 10)


def read_captions(path: str, places: Sequence[tuple[str, ...]]) -> tuple[list[str], str]:
    """The captions of pictures from a file of two columns, "" where it has none, and a remark.

    Args:
        path: the .csv, with names over its columns: one of `FILES` and one of `TEXTS`, or two whatever they are called.
        places: where each picture lies in its folder, as the parts of its name.

    Raises:
        InputError: no such file, or no such columns; a picture that has two captions, or none of them any.
    """
    columns, _, _ = read_delimited(path, "data.captions")
    if next(iter(columns)).lower().endswith(SUFFIXES):  # no name of a column, but the first picture's
        columns, _, _ = read_delimited(path, "data.captions", header=False)
    names = [next((name for name in columns if name.strip().lower() in known), None) for known in (FILES, TEXTS)]
    if None in names and len(columns) == 2:
        names = list(columns)
    file, text = names
    if file is None or text is None:
        raise InputError(
            f"data.captions={shown(path)!r} has the columns {', '.join(map(shown, columns))}; it must have one of "
            f"{', '.join(FILES)} and one of {', '.join(TEXTS)}."
        )
    said: dict[str, str] = {}
    for place, caption in zip(columns[file].texts(), columns[text].texts(), strict=True):
        place = place.strip().replace("\\", "/").removeprefix("./")
        if said.setdefault(place, caption) != caption:
            raise InputError(f"data.captions={shown(path)!r} has two captions of {shown(place)!r}; one is taken.")
    once = Counter(place[-1] for place in places)
    # by its whole name, or by the last part where only one picture is called so
    whole = ["/".join(place) for place in places]
    found = [
        said.get(name, said.get(place[-1], "") if once[place[-1]] == 1 else "")
        for name, place in zip(whole, places, strict=True)
    ]
    told = sum(bool(text.strip()) for text in found)
    if not told:
        raise InputError(
            f"data.captions={shown(path)!r} names none of the pictures, such as {shown(whole[0])!r}; it names "
            f"{shown(next(iter(said)))!r}."
        )
    without = len(found) - told
    return found, f"{without:,} of {len(found):,} pictures have no caption" if without else ""
