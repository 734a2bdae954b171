"""Small trained models that come with ornstein, so that there is something to draw from before anything is trained.

They are run folders like any others, without what only training needs and with weights in float16; the script
docs/studio/packaged.py made them. Their names may be given in place of a run folder where no folder has that name.
"""

from pathlib import Path

from ornstein.errors import InputError, shown

#: where they lie, and the one that a page opens with
HOME, FIRST = Path(__file__).parent, "digits"


def names() -> tuple[str, ...]:
    """The names of the models that come with ornstein, the first one first."""
    return tuple(
        sorted((place.parent.name for place in HOME.glob("*/run.yaml")), key=lambda name: (name != FIRST, name))
    )


def place(run: "str | Path") -> Path:
    """The folder of a run: the path itself, or if nothing is there, the packaged model of that name."""
    path = Path(run)
    return HOME / path.name if not path.exists() and str(path) in names() else path


def is_packaged(folder: "str | Path") -> bool:
    """Whether a folder is one of these."""
    return Path(folder).parent == HOME


def must_be_ones_own(folder: Path, what: str) -> None:
    """Refuse to write into a packaged model.

    Args:
        what: what is to be written, as "an evaluation".

    Raises:
        InputError: the folder is one.
    """
    if is_packaged(folder):
        raise InputError(
            f"run={shown(folder.name)!r} comes with ornstein, and {what} would be written into it; train one of your "
            "own, or copy its folder."
        )
