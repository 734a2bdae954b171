"""Finding data by name: the table of sources, and how a word is resolved to one of them."""

import os
from dataclasses import MISSING, fields
from pathlib import Path
from typing import Any

from ornstein.data.array import Array
from ornstein.data.classes import Quantised, Text
from ornstein.data.dataset import Source
from ornstein.data.emoji import Emoji
from ornstein.data.folder import ImageFolder
from ornstein.data.kept import Kept
from ornstein.data.series import Series
from ornstein.data.standard import CIFAR10, MNIST, Digits, FashionMNIST
from ornstein.data.table import TABLES, Table
from ornstein.data.toys import Checkerboard, EightGaussians, Moons, Pinwheel, Spirals, SwissRoll
from ornstein.data.zipped import is_zip
from ornstein.errors import InputError, lookup
from ornstein.files import named, regular

#: every source by name; those that are made of others join it in `ornstein.data`
DATA: dict[str, type[Source]] = {
    "digits": Digits,
    "moons": Moons,
    "swiss-roll": SwissRoll,
    "eight-gaussians": EightGaussians,
    "checkerboard": Checkerboard,
    "pinwheel": Pinwheel,
    "spirals": Spirals,
    "mnist": MNIST,
    "fashion-mnist": FashionMNIST,
    "cifar10": CIFAR10,
    "emoji": Emoji,
    "images": ImageFolder,
    "array": Array,
    "table": Table,
    "series": Series,
    "text": Text,
    "quantised": Quantised,
    "kept": Kept,
}


def open_data(name_or_path: str | Path, **arguments: Any) -> Source:
    """The source with this name in `DATA`, or for this folder of images, .npz / .npy file or table.

    A name in the table wins over a file of the same name; write ./digits for a folder called digits. Nothing is
    read yet: `.load()` does that.

    Args:
        name_or_path: see above.
        arguments: fields of the source, such as `open_data("moons", noise=0.1)`.

    Raises:
        InputError: neither a known name nor a path that can be read; an argument that the source does not have.
    """
    path = named(name_or_path, "data")
    if str(name_or_path) in DATA:
        kind = DATA[str(name_or_path)]
    elif os.path.isdir(path):
        kind, arguments = ImageFolder, {"path": str(name_or_path), **arguments}
    elif os.path.lexists(path):
        regular(name_or_path, "data", "an .npz or .npy file, a table, or a folder or zip of images")
        if is_zip(path):
            return open_data("images", path=str(name_or_path), **arguments)
        is_table = path.name.lower().endswith(TABLES)
        if not is_table and path.suffix.lower() not in (".npz", ".npy"):
            raise InputError(
                f"data={str(name_or_path)!r} is a {path.suffix or 'nameless'} file; expected .npz or .npy, or a table "
                "as .csv, .csv.gz, .tsv or .parquet."
            )
        kind, arguments = Table if is_table else Array, {"path": str(name_or_path), **arguments}
    elif path.suffix or {"/", os.sep} & set(str(name_or_path)):
        raise InputError(
            f"data={str(name_or_path)!r} does not exist; give a folder of images, an .npz or .npy file, a table, or "
            f"one of {', '.join(DATA)}."
        )
    else:
        kind = lookup(DATA, str(name_or_path), "data")
    known = {field.name: field for field in fields(kind) if field.init}  # type: ignore[arg-type]
    for argument in arguments:
        lookup(known, argument, f"argument of data {name_or_path}")
    for field in known.values():
        if field.default is field.default_factory is MISSING and field.name not in arguments:
            raise InputError(f"data={str(name_or_path)!r} needs the argument {field.name!r}.")
    return kind(**arguments)
