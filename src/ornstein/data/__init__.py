"""Data: where they come from, what shape and range they have, and the invertible map to model space.

    source = open_data("digits")          # or a folder of images, or an .npz / .npy file
    data = source.load()
    print(data.describe())                # 1,437 images 1x8x8, values 0..16 (uint8) -> [-1, 1], ...
    x0, condition = data.batch(step=0, size=128, seed=0)

Nothing here depends on a model. To add a data set, write a frozen dataclass with a `load()` that returns a `Dataset`,
and give it a line in `DATA`.
"""

from ornstein.data.array import Array
from ornstein.data.between import Between, Blurred
from ornstein.data.classes import Classes, Quantised, Text
from ornstein.data.coded import Coded, Encoded, Latents
from ornstein.data.condition import Column, Known, labelled
from ornstein.data.dataset import Dataset, Source
from ornstein.data.emoji import Emoji
from ornstein.data.folder import ImageFolder
from ornstein.data.joint import Labelled
from ornstein.data.kept import Kept
from ornstein.data.layout import Layout
from ornstein.data.opening import DATA, open_data
from ornstein.data.schema import ColumnType
from ornstein.data.series import Series
from ornstein.data.splitting import split
from ornstein.data.standard import CIFAR10, MNIST, Digits, FashionMNIST
from ornstein.data.table import Table
from ornstein.data.toys import Checkerboard, EightGaussians, Moons, Pinwheel, Spirals, SwissRoll, Toy
from ornstein.data.transform import TRANSFORMS, Affine, Chain, Transform, WholeNumbers

#: what is made of other data
DATA.update({"between": Between, "blurred": Blurred, "labelled": Labelled, "latents": Latents})

__all__ = [
    "CIFAR10",
    "DATA",
    "MNIST",
    "TRANSFORMS",
    "Affine",
    "Array",
    "Between",
    "Blurred",
    "Chain",
    "Checkerboard",
    "Classes",
    "Coded",
    "Column",
    "ColumnType",
    "Dataset",
    "Digits",
    "EightGaussians",
    "Emoji",
    "Encoded",
    "FashionMNIST",
    "ImageFolder",
    "Kept",
    "Known",
    "Labelled",
    "Latents",
    "Layout",
    "Moons",
    "Pinwheel",
    "Quantised",
    "Series",
    "Source",
    "Spirals",
    "SwissRoll",
    "Table",
    "Text",
    "Toy",
    "Transform",
    "WholeNumbers",
    "labelled",
    "open_data",
    "split",
]
