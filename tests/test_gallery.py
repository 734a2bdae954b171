"""The gallery: every page has its script and its picture, and the script makes the picture."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

GALLERY = Path(__file__).parents[1] / "docs" / "gallery"
#: what several scripts share
SHARED = ("style", "shapes", "solids")
PAGES = sorted(page.stem for page in GALLERY.glob("*.md") if page.stem != "README")


def test_the_index_has_every_page_once_with_its_picture() -> None:
    index = (GALLERY / "README.md").read_text("utf-8")
    assert sorted(re.findall(r"\]\(([\w-]+)\.md\)", index)) == PAGES
    assert sorted(re.findall(r'<img src="([\w-]+)\.png"', index)) == PAGES
    assert sorted(path.stem for path in GALLERY.glob("*.py") if path.stem not in SHARED) == PAGES
    assert sorted(path.stem for path in GALLERY.glob("*.png")) == PAGES


@pytest.mark.parametrize("name", PAGES)
def test_a_page_names_its_own_command_and_picture_and_both_are_there(name: Any) -> None:
    page = (GALLERY / f"{name}.md").read_text("utf-8")
    assert re.findall(r"python (docs/gallery/\S+\.py)", page) == [f"docs/gallery/{name}.py"]
    assert re.findall(r"!\[[^\]]+\]\(([^)]+)\)", page) == [f"{name}.png"]
    for link in re.findall(r"(?<!!)\[[^\]]+\]\((?!https?:)([^)#]+)", page):
        assert (GALLERY / link).is_file(), link
    compile((GALLERY / f"{name}.py").read_text("utf-8"), name, "exec")
    picture = GALLERY / f"{name}.png"
    with Image.open(picture) as image:
        image.verify()
        assert image.format == "PNG"
        assert image.width >= 1200  # sharp on a screen of twice the density
    assert picture.stat().st_size < 150_000


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("name", PAGES)
def test_a_script_makes_its_picture(name: Any, tmp_path: Path) -> None:
    for path in GALLERY.glob("*.py"):
        shutil.copy(path, tmp_path)
    done = subprocess.run(
        [sys.executable, tmp_path / f"{name}.py"],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert re.search(r"\d", done.stdout), "a script prints the figures that its page quotes"
    with Image.open(tmp_path / f"{name}.png") as made, Image.open(GALLERY / f"{name}.png") as kept:
        assert made.size == kept.size
