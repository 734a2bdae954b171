"""A studio that serves, and what the pictures of digits that it draws are."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch

from ornstein.experiment import packaged


@contextmanager
def studio(home: Path, auth: tuple[str, str] | None = None) -> Iterator[Any]:
    """One that serves a folder with one run, and a link that leads out of it."""
    pytest.importorskip("gradio", reason="the studio's extra is not installed")
    from ornstein.studio.server import open_studio

    shutil.copytree(packaged.HOME / "moons", home / "runs" / "plane")
    shutil.copytree(packaged.HOME / "moons", home / "outside")
    (home / "runs" / "link").symlink_to(home / "outside")
    opened = open_studio(home / "runs", port=0, block=False, auth=auth)
    try:
        yield opened
    finally:
        opened.close()


def digit_of(pictures: torch.Tensor) -> list[int]:
    """Which digit each picture (N, 64) in 0..16 is like, by its nearest real ones."""
    from sklearn.datasets import load_digits
    from sklearn.neighbors import KNeighborsClassifier

    real = load_digits()
    found: list[int] = KNeighborsClassifier(3).fit(real.data, real.target).predict(pictures.numpy()).tolist()
    return found
