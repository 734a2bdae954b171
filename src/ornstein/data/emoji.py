"""Emoji with captions: small pictures in colour, and a few words of what each shows.

The file, `emoji32.npz`, holds encoded pictures of 32x32 end to end (`blob`, `offsets`), and for each its `caption`, its
`vendor` (who drew it) and its `skin` (which modifiers its code has; "" for none). It is looked for where ORNSTEIN_DATA
says, and in the cache; it is not published in this form.

Two kinds are left out by default. Pictures of OpenMoji are CC BY-SA, and what is made of them would have to be shared
under the same licence; those of Noto (Apache 2.0) and Twemoji (CC BY) stay. Variants that differ only in skin have the
captions of the yellow ones, up to 25 for a text that does not mention skin, and would make three in five pictures
people.
"""

from dataclasses import dataclass
from typing import ClassVar, final, get_args

import torch

from ornstein.data.captions import TEXT, captioned, split_texts
from ornstein.data.condition import TextKind
from ornstein.data.dataset import Dataset, Source
from ornstein.data.layout import Layout
from ornstein.data.reading import absolute, read_arrays
from ornstein.data.standard import decode_blob, shelves
from ornstein.data.transform import WholeNumbers
from ornstein.errors import InputError, shown
from ornstein.files import named

_FILE = "emoji32.npz"
_KEYS = ("blob", "offsets", "caption", "vendor", "skin")


@final
@dataclass(frozen=True)
class Emoji(Source):
    """Emoji, 3x32x32 bytes on white, each with a caption: the part "text".

    Args:
        root: folder with emoji32.npz; None: ORNSTEIN_DATA, then the cache.
        vendors: whose pictures to use: noto, twemoji, openmoji.
        skin: whether to include variants of skin, which share a caption.
        text: "words" or "characters": what a caption is split into; "sentences": it becomes a vector of an encoder,
            which needs the extra `ornstein[sentences]`.
        test_fraction, seed: what share of the captions is held out, each with all of its pictures, and which.

    Raises:
        InputError: no such file, or a damaged one; a vendor that is not in it.
    """

    fetched: ClassVar[bool] = True

    root: str | None = None
    vendors: tuple[str, ...] = ("noto", "twemoji")
    skin: bool = False
    text: TextKind = "words"
    test_fraction: float = 0.1
    seed: int = 0

    def __post_init__(self) -> None:
        if self.root is not None:
            object.__setattr__(self, "root", absolute(self.root, "data.root"))
        object.__setattr__(self, "vendors", tuple(self.vendors))
        if self.text not in get_args(TextKind):
            raise InputError(f"data.text={self.text!r} is not known; use one of {', '.join(get_args(TextKind))}.")

    def load(self) -> Dataset:
        import numpy as np

        folders = [named(self.root, "data.root")] if self.root is not None else shelves(_FILE)
        file = next((folder / _FILE for folder in folders if (folder / _FILE).is_file()), None)
        if file is None:
            looked = " or ".join(map(shown, folders))
            raise InputError(
                f"data='emoji' was not found in {looked}; set ORNSTEIN_DATA to a folder with {_FILE} "
                f"({', '.join(_KEYS)}), or give data.root."
            )
        arrays = read_arrays(file)
        if missing := [key for key in _KEYS if key not in arrays]:
            raise InputError(f"{shown(file)} lacks {', '.join(missing)}; it holds {', '.join(map(shown, arrays))}.")
        vendor, skin, caption = (arrays[key] for key in ("vendor", "skin", "caption"))
        known = sorted(set(vendor.tolist()))
        if strange := [one for one in self.vendors if one not in known]:
            raise InputError(f"data.vendors has {strange[0]!r}; {shown(file)} has pictures of {', '.join(known)}.")
        images = decode_blob(arrays["blob"], arrays["offsets"], shown(file.name))
        if not len(images) == len(vendor) == len(skin) == len(caption):
            raise InputError(
                f"{shown(file)} has {len(images):,} pictures but {len(caption):,} captions; it is damaged."
            )
        kept = torch.from_numpy(np.flatnonzero(np.isin(vendor, self.vendors) & ((skin == "") | self.skin)))
        images, texts = images[kept], caption[kept.numpy()].tolist()
        train, test = split_texts(texts, self.test_fraction, self.seed)
        column, remark = captioned(
            [texts[i] for i in train.tolist()], [texts[i] for i in test.tolist()], self.text, _FILE
        )
        return Dataset(
            name="emoji",
            train=images[train],
            test=images[test],
            conditions={TEXT: column},
            kind="image",
            transform=WholeNumbers(256),
            note="; ".join(filter(None, [f"of {', '.join(self.vendors)}, held out by caption", remark])),
            layout=Layout("NCHW"),
        )
