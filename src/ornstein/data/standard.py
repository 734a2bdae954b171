"""Well-known data sets: scikit-learn's digits, MNIST, Fashion-MNIST and CIFAR-10.

Digits come with scikit-learn. The others are looked for, in this order,
1. in `root`, if given; else in the folder that the environment variable ORNSTEIN_DATA names, then in the cache
   (~/.cache/ornstein, or below XDG_CACHE_HOME);
2. on the network: the publisher's files are downloaded to `root` or the cache and their published MD5 is verified.

Nothing is unpickled: CIFAR-10 is read from its binary edition (or from JPEGs), never from the Python one.

References: LeCun, Bottou, Bengio and Haffner, "Gradient-based learning applied to document recognition", 1998;
Xiao, Rasul and Vollgraf, "Fashion-MNIST", 2017, arXiv:1708.07747; Krizhevsky, "Learning multiple layers of
features from tiny images", 2009; the digits are the test part of Alpaydin and Kaynak's optical digits (UCI, 1998).
"""

import gzip
import math
import os
import tarfile
import zlib
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, final

import torch
from torch import Tensor

from ornstein.data.condition import labelled
from ornstein.data.dataset import Dataset, Source
from ornstein.data.layout import Layout
from ornstein.data.pictures import read_pictures
from ornstein.data.reading import absolute, digits, read_arrays
from ornstein.data.splitting import split
from ornstein.data.transform import WholeNumbers
from ornstein.errors import InputError, shown
from ornstein.files import cache, fetch, named

if TYPE_CHECKING:
    import numpy as np

# train images, train labels, test images, test labels
Parts = tuple[Tensor, Tensor, Tensor, Tensor]

DIGIT_NAMES = tuple("0123456789")
#: the largest of these files, the training images of MNIST, holds 47 million bytes
MOST_BYTES = 2**26


def shelves(accepted: str) -> list[Path]:
    """Folders in which data sets are looked for: the one that ORNSTEIN_DATA names, and the cache."""
    if not (chosen := os.environ.get("ORNSTEIN_DATA")):
        return [cache()]
    if not (folder := named(chosen, "ORNSTEIN_DATA")).is_dir():
        raise InputError(f"ORNSTEIN_DATA={chosen!r} is not a folder; name one that holds {accepted}.")
    return [folder, cache()]


@final
@dataclass(frozen=True)
class Digits(Source):
    """Scikit-learn's 1,797 handwritten digits, 1x8x8 with values 0..16: real data that need no download.

    Args:
        test_fraction, seed: what share is held out, and which examples; in proportion to the classes.
    """

    test_fraction: float = 0.2
    seed: int = 0

    def load(self) -> Dataset:
        rows = torch.from_numpy(digits())
        images, labels = rows[:, :-1].reshape(-1, 1, 8, 8), rows[:, -1].long()
        train, test = split(len(images), self.test_fraction, self.seed, labels)
        return Dataset(
            name="digits",
            train=images[train],
            test=images[test],
            conditions=labelled(labels[train], labels[test], DIGIT_NAMES),
            kind="image",
            transform=WholeNumbers(17),
            layout=Layout("NCHW"),
        )


@dataclass(frozen=True)
class Public(Source, ABC):
    """A published data set of 8-bit images with its own held-out part.

    Args:
        root: folder to look in (and to download to); None: ORNSTEIN_DATA, then the cache.
        download: fetch the publisher's files if none are found.
        flip: mirror training images left to right at random.
    """

    root: str | None = None
    download: bool = True
    flip: bool = False

    fetched: ClassVar[bool] = True
    name: ClassVar[str]
    classes: ClassVar[tuple[str, ...]]
    folder: ClassVar[str]
    """Sub-folder of the cache, where downloads go."""
    accepted: ClassVar[str]
    """The file names that are looked for, for the error that says that none is there."""
    urls: ClassVar[tuple[str, ...]]
    """Where the files are published, without their names; the first that answers is used."""
    md5: ClassVar[Mapping[str, str]]
    """The published files and their hashes."""

    def __post_init__(self) -> None:
        if self.root is not None:
            object.__setattr__(self, "root", absolute(self.root, "data.root"))

    @abstractmethod
    def read(self, folder: Path, chosen: bool) -> tuple[Parts, str] | None:
        """The data in this folder and which file they are from, or None if they are not there.

        `chosen` says that the user named this very folder (`root`), so that files with names which other data sets
        share (the idx files of the MNIST family) can be taken for this one's.
        """

    def load(self) -> Dataset:
        (train, train_labels, test, test_labels), origin = self._search() or self._download()
        return Dataset(
            name=self.name,
            train=train,
            test=test,
            conditions=labelled(train_labels, test_labels, self.classes),
            kind="image",
            transform=WholeNumbers(256),
            flip=self.flip,
            note=f"from {origin}",
            layout=Layout("NCHW"),
        )

    def _search(self) -> tuple[Parts, str] | None:
        if self.root is not None:
            return self.read(named(self.root, "data.root"), chosen=True)
        return next((found for folder in shelves(self.accepted) if (found := self.read(folder, chosen=False))), None)

    def _download(self) -> tuple[Parts, str]:
        target = named(self.root, "data.root") if self.root is not None else cache() / self.folder
        reason = "data.download=False"
        if self.download:
            try:
                for file, md5 in self.md5.items():
                    fetch([url + file for url in self.urls], target / file, md5)
            except InputError as error:
                reason = str(error).rstrip(".")
            else:
                found = self.read(target, chosen=True)
                assert found is not None
                return found
        if self.root is not None:
            looked, remedy = self.root, "give as data.root"
        else:
            looked = " or ".join(filter(None, (os.environ.get("ORNSTEIN_DATA"), str(cache()))))
            remedy = "set ORNSTEIN_DATA to"
        raise InputError(
            f"data={self.name!r} was not found in {looked} and not downloaded ({reason}); "
            f"{remedy} a folder with {self.accepted}."
        )


class _Idx(Public, ABC):
    """The MNIST family: one .npz, or the four idx files of the publisher, gzipped or not."""

    archives: ClassVar[tuple[str, ...]]
    subfolders: ClassVar[tuple[str, ...]]

    def read(self, folder: Path, chosen: bool) -> tuple[Parts, str] | None:
        for archive in self.archives:
            if (folder / archive).is_file():
                return _read_npz(folder / archive), archive
        for place in [folder / sub for sub in self.subfolders] + [folder] * chosen:
            files = [
                next((f for f in (place / name, place / name.removesuffix(".gz")) if f.is_file()), None)
                for name in self.md5
            ]
            present = [file for file in files if file is not None]
            if len(present) == 4:
                return _read_idx_parts(present), f"idx files in {place.name}"
        return None


@final
@dataclass(frozen=True)
class MNIST(_Idx):
    """MNIST: 60,000 + 10,000 handwritten digits, 1x28x28 bytes, 10 classes."""

    name = "mnist"
    classes = DIGIT_NAMES
    folder = "mnist"
    archives = ("mnist.npz",)
    subfolders = ("mnist", "MNIST/raw")
    accepted = (
        "mnist.npz (x_train, y_train, x_test, y_test) or a sub-folder mnist/ with train-images-idx3-ubyte.gz, "
        "train-labels-idx1-ubyte.gz, t10k-images-idx3-ubyte.gz and t10k-labels-idx1-ubyte.gz"
    )
    urls = (
        "https://ossci-datasets.s3.amazonaws.com/mnist/",
        "https://storage.googleapis.com/cvdf-datasets/mnist/",
    )
    md5 = {  # noqa: RUF012  a class constant, annotated as such in the base
        "train-images-idx3-ubyte.gz": "f68b3c2dcbeaaa9fbdd348bbdeb94873",
        "train-labels-idx1-ubyte.gz": "d53e105ee54ea40749a09fcbcd1e9432",
        "t10k-images-idx3-ubyte.gz": "9fb629c4189551a2d022fa330f9573f3",
        "t10k-labels-idx1-ubyte.gz": "ec29112dd5afa0611ce80d1b7f02629c",
    }


@final
@dataclass(frozen=True)
class FashionMNIST(_Idx):
    """Fashion-MNIST: 60,000 + 10,000 pictures of clothes, 1x28x28 bytes, 10 classes."""

    name = "fashion-mnist"
    classes = (
        "T-shirt/top",
        "Trouser",
        "Pullover",
        "Dress",
        "Coat",
        "Sandal",
        "Shirt",
        "Sneaker",
        "Bag",
        "Ankle boot",
    )
    folder = "fashion-mnist"
    archives = ("fashion_mnist.npz", "fashion_mnist_20k.npz")
    subfolders = ("fashion-mnist", "FashionMNIST/raw")
    accepted = (
        "fashion_mnist.npz or fashion_mnist_20k.npz (x_train, y_train, x_test, y_test) or a sub-folder fashion-mnist/ "
        "with train-images-idx3-ubyte.gz, train-labels-idx1-ubyte.gz, t10k-images-idx3-ubyte.gz and "
        "t10k-labels-idx1-ubyte.gz"
    )
    urls = (
        "https://raw.githubusercontent.com/zalandoresearch/fashion-mnist/master/data/fashion/",
        "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",
    )
    md5 = {  # noqa: RUF012
        "train-images-idx3-ubyte.gz": "8d4fb7e6c68d591d4c3dfef9ec88bf0d",
        "train-labels-idx1-ubyte.gz": "25c81989df183df01b3e8a0aad5dffbe",
        "t10k-images-idx3-ubyte.gz": "bef4ecab320f06d8554ea6380940ec79",
        "t10k-labels-idx1-ubyte.gz": "bb300cfdad3c16e7a12a480ee83cd310",
    }


@final
@dataclass(frozen=True)
class CIFAR10(Public):
    """CIFAR-10: 50,000 + 10,000 photographs of ten things, 3x32x32 bytes.

    The lossless binary edition is preferred; files of JPEGs are read if they are all there is, and the description
    says so, for their compression shows in every metric.
    """

    name = "cifar10"
    classes = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
    folder = "cifar10"
    accepted = (
        "cifar-10-binary.tar.gz, cifar-10-batches-bin/data_batch_1.bin and so on, or cifar10_jpeg_train.npz and "
        "cifar10_jpeg_test.npz (blob, offsets, label); the pickled Python edition is not read"
    )
    urls = ("https://www.cs.toronto.edu/~kriz/",)
    md5 = {"cifar-10-binary.tar.gz": "c32a1d4ab5d03f1284b67883e8d87530"}  # noqa: RUF012

    def read(self, folder: Path, chosen: bool) -> tuple[Parts, str] | None:
        batches = [f"data_batch_{k}.bin" for k in range(1, 6)] + ["test_batch.bin"]
        for place in (folder, folder / "cifar-10-batches-bin", folder / self.folder):
            if all((place / batch).is_file() for batch in batches):
                return _read_cifar([_whole(place / batch) for batch in batches]), "data_batch_*.bin"
            archive = place / "cifar-10-binary.tar.gz"
            if archive.is_file():
                return _read_cifar(_members(archive, batches)), archive.name
        train, test = folder / "cifar10_jpeg_train.npz", folder / "cifar10_jpeg_test.npz"
        if train.is_file() and test.is_file():
            return (*_read_jpegs(train), *_read_jpegs(test)), "JPEGs, not the lossless originals"
        return None


def decode_blob(blob: "np.ndarray", offsets: "np.ndarray", name: str) -> Tensor:
    """Images (N, C, H, W) whose encoded bytes lie end to end in `blob`, the i-th in [offsets[i], offsets[i + 1])."""
    import numpy as np

    whole = blob.dtype == np.uint8 and blob.ndim == 1 and offsets.ndim == 1 and offsets.dtype.kind in "iu"
    places = offsets.astype(np.int64) if whole else offsets
    if not whole or len(places) < 2 or places[0] < 0 or np.any(np.diff(places) < 0) or places[-1] > len(blob):
        raise InputError(f"{name} has damaged offsets; expected N + 1 ascending positions in a blob of bytes.")
    encoded = [blob[a:b].tobytes() for a, b in pairwise(places.tolist())]
    return read_pictures(encoded, None, "auto", name=lambda i: f"image {i} of {name}")


def _checked(
    images: "Tensor | np.ndarray", labels: "Tensor | np.ndarray", origin: Path | str, shape: tuple[int, ...]
) -> tuple[Tensor, Tensor]:
    """Images (N, *shape) uint8 with labels 0..9, or an error that names the file."""
    import numpy as np

    images, labels = np.asarray(images), np.asarray(labels)
    fits = images.dtype == np.uint8 and images.shape[1:] == shape and labels.shape == (len(images),)
    if not fits or labels.dtype.kind not in "iu" or len(labels) == 0 or labels.min() < 0 or labels.max() > 9:
        raise InputError(
            f"{shown(origin)} holds {images.shape} {images.dtype} images with {labels.shape} labels; expected "
            f"bytes of shape {('N', *shape)} with N labels 0..9."
        )
    return torch.from_numpy(images), torch.from_numpy(labels.astype(np.int64))


def _read_npz(file: Path) -> Parts:
    arrays = read_arrays(file)
    missing = [key for key in ("x_train", "y_train", "x_test", "y_test") if key not in arrays]
    if missing:
        raise InputError(f"{shown(file)} lacks {', '.join(missing)}; it holds {', '.join(map(shown, arrays))}.")
    parts: list[Tensor] = []
    for part in ("train", "test"):
        images = arrays[f"x_{part}"]
        images = images[:, None] if images.ndim == 3 else images
        parts += _checked(images, arrays[f"y_{part}"].reshape(-1), file, (1, 28, 28))
    train, train_labels, test, test_labels = parts
    return train, train_labels, test, test_labels


def _whole(file: Path) -> bytes:
    """The content of a file, unpacked if it is gzipped, of at most `MOST_BYTES`.

    Raises:
        InputError: damaged, unreadable, or larger.
    """
    try:
        with gzip.open(file) if file.suffix == ".gz" else file.open("rb") as stream:
            content = stream.read(MOST_BYTES + 1)
    except (OSError, EOFError, zlib.error) as error:
        raise InputError(f"{shown(file)} is damaged and cannot be unpacked.") from error
    if len(content) > MOST_BYTES:
        raise InputError(f"{shown(file)} holds more than the {MOST_BYTES:,} bytes that a file of these data can have.")
    return content


def _read_idx(file: Path) -> Tensor:
    """A tensor from LeCun's idx format: zero, zero, type (8 = byte), number of axes, their lengths, the values."""
    content = _whole(file)
    axes = content[3] if content[:3] == b"\0\0\x08" and len(content) > 3 else 0
    lengths = [int.from_bytes(content[4 + 4 * k : 8 + 4 * k], "big") for k in range(axes)]
    values = bytearray(content[4 + 4 * axes :])
    if not axes or axes > 3 or len(values) != math.prod(lengths) or not values:
        raise InputError(f"{shown(file)} is not a whole idx file of bytes.")
    return torch.frombuffer(values, dtype=torch.uint8).reshape(lengths)


def _read_idx_parts(files: Sequence[Path]) -> Parts:
    train, train_labels, test, test_labels = map(_read_idx, files)
    return (
        *_checked(train.unsqueeze(1), train_labels, files[0], (1, 28, 28)),
        *_checked(test.unsqueeze(1), test_labels, files[2], (1, 28, 28)),
    )


def _members(archive: Path, names: Sequence[str]) -> list[bytes]:
    found: dict[str, bytes] = {}
    try:
        with tarfile.open(archive) as tar:
            for member in tar:
                if member.size > MOST_BYTES or member.offset > 8 * MOST_BYTES:  # to pass over it is to unpack it
                    raise tarfile.TarError(member.name)
                stream = tar.extractfile(member) if Path(member.name).name in names and member.isreg() else None
                if stream is not None:
                    found[Path(member.name).name] = stream.read()
            return [found[name] for name in names]
    except (OSError, EOFError, KeyError, ValueError, zlib.error, tarfile.TarError) as error:
        raise InputError(f"{shown(archive)} is damaged or lacks {', '.join(names)}.") from error


def _read_cifar(batches: Sequence[bytes]) -> Parts:
    """Records of one label and 3 x 32 x 32 values, the last batch being the test part."""
    record = 1 + 3 * 32 * 32
    if any(not batch or len(batch) % record for batch in batches):
        raise InputError(f"CIFAR-10's binary files must hold whole records of {record} bytes; one of them does not.")
    tables = [torch.frombuffer(bytearray(batch), dtype=torch.uint8).reshape(-1, record) for batch in batches]
    train, test = torch.cat(tables[:-1]), tables[-1]
    shape = (3, 32, 32)
    return (
        *_checked(train[:, 1:].reshape(-1, *shape), train[:, 0], "data_batch_*.bin", shape),
        *_checked(test[:, 1:].reshape(-1, *shape), test[:, 0], "test_batch.bin", shape),
    )


def _read_jpegs(file: Path) -> tuple[Tensor, Tensor]:
    arrays = read_arrays(file)
    missing = [key for key in ("blob", "offsets", "label") if key not in arrays]
    if missing:
        raise InputError(f"{shown(file)} must hold blob, offsets and label; it holds {', '.join(map(shown, arrays))}.")
    images = decode_blob(arrays["blob"], arrays["offsets"], shown(file.name))
    return _checked(images, arrays["label"], file, (3, 32, 32))
