"""Labels in a file, as class numbers and names; anything doubtful is refused or reported, never guessed."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ornstein.errors import InputError

if TYPE_CHECKING:
    import numpy as np

#: whole numbers stored as floats, with more values than this and than a tenth of the examples, look like measurements
MOST_FLOAT_CLASSES = 50
#: the number that says "no label"
NONE = -1


def as_names(raw: "np.ndarray", name: str, count: int, classes: "np.ndarray | None" = None) -> "np.ndarray":
    """Labels (count,) or (count, 1) as whole numbers or strings.

    Args:
        raw: what the file has: whole numbers (of any type) or strings. -1 is "no label".
        name: of the array, for errors.
        count: how many examples there are.
        classes: names (K,) that the numbers count, if the file has them.

    Raises:
        InputError: another shape; no numbers, or not whole, or NaN or infinite; numbers that look like measurements.
    """
    import numpy as np

    raw = raw.reshape(-1) if raw.shape == (count, 1) else raw
    if raw.shape != (count,):
        raise InputError(f"labels {name!r} have shape {raw.shape}; expected ({count},), one per example.")
    remedy = "data.labels_key=none ignores them"
    if raw.dtype.kind == "f":
        if not np.isfinite(raw).all():
            bad = int(np.argmin(np.isfinite(raw)))
            raise InputError(
                f"labels {name!r} are NaN or infinite, first {raw[bad]} at {bad}; -1 says that a row has no label, "
                f"and {remedy}."
            )
        if np.array_equal(raw, np.round(raw)) and np.abs(raw).max() <= 2**53:
            raw = raw.astype(np.int64)
            different = len(np.unique(raw))
            if different > max(MOST_FLOAT_CLASSES, count // 10):
                raise InputError(
                    f"labels {name!r} are floating-point numbers of {different:,} different values in {count:,} "
                    f"examples, which look like measurements, not classes; {remedy}, and as whole numbers they are "
                    "taken for classes."
                )
    if raw.dtype.kind not in "buiU":
        raise InputError(
            f"labels {name!r} are of type {raw.dtype} and not whole; expected whole numbers or strings, "
            "or data.labels_key='none' to ignore them."
        )
    if classes is not None and raw.dtype.kind in "ui":
        if classes.dtype.kind not in "Uui" or classes.ndim != 1 or raw.min() < NONE or raw.max() >= len(classes):
            raise InputError(
                f"labels {name!r} run from {raw.min()} to {raw.max()}, which does not fit the file's "
                f"{classes.size} classes."
            )
        return np.where(raw == NONE, str(NONE), np.append(classes.astype(str), "")[raw])
    return raw


def numbered(raw: "np.ndarray", name: str) -> tuple[Tensor | None, tuple[str, ...], str]:
    """Labels from `as_names` as class numbers (N,), int64 with -1 for none; the classes' names; and a remark.

    Without any label the first is None.
    """
    import numpy as np

    found, index = np.unique(raw, return_inverse=True)
    names = list(map(str, found.tolist()))
    index = index.reshape(-1).astype(np.int64)
    signed = raw.dtype.kind in "iU" and str(NONE) in names
    if signed:
        place = names.index(str(NONE))
        names.pop(place)
        index = np.where(index == place, NONE, index - (index > place))
    if not names:
        return None, (), f"labels {name!r} are all -1, none"
    remarks = []
    if signed:
        remarks.append(f"{int((index == NONE).sum()):,} examples without a label (-1)")
    if len(names) > max(MOST_FLOAT_CLASSES, len(raw) // 3):
        remarks.append(
            f"{len(names):,} classes for {len(raw):,} examples: if {name!r} are no classes, use data.labels_key=none"
        )
    return torch.from_numpy(index), tuple(names), "; ".join(remarks)


def matched(raw: "np.ndarray", name: str, classes: Sequence[str], others: str) -> Tensor:
    """Labels from `as_names` as numbers (N,) of classes that are known.

    Raises:
        InputError: a label that is none of them.
    """
    names = [str(value) for value in raw.tolist()]
    known = {text: number for number, text in enumerate(classes)}
    if raw.dtype.kind in "iU":
        known.setdefault(str(NONE), NONE)
    unknown = sorted(set(names) - set(known))
    if unknown:
        raise InputError(f"{name} has labels that {others} has not: {', '.join(unknown[:5])}.")
    return torch.tensor([known[text] for text in names], dtype=torch.int64)


def lost(train: Tensor, test: Tensor, classes: Sequence[str]) -> str:
    """A remark on classes that one of the two parts has no example of; "" if there are none."""
    said = []
    for labels, what in ((train, "training"), (test, "held-out")):
        counted = torch.bincount(labels[labels >= 0], minlength=len(classes))
        missing = (counted == 0).nonzero().flatten().tolist()
        if missing:
            few = ", ".join(classes[i] for i in missing[:5]) + (", ..." if len(missing) > 5 else "")
            said.append(f"no {what} example of {len(missing)} class{'es' * (len(missing) > 1)} ({few})")
    return "; ".join(said)


def in_shares(counts: Sequence[int], n: int) -> Tensor:
    """Labels (n,), int64, of classes in the proportion of `counts`, as near as whole numbers come (largest remainder).

    The classes are spread over the list, each over the whole of it, so that every piece has nearly these shares; equal
    ones go round: 0, 1, 2, 0, 1, 2, ...
    """
    total, classes = sum(counts), range(len(counts))
    shares = [n * count // total for count in counts]  # in whole numbers: no rounding decides a tie
    by_remainder = sorted(classes, key=lambda c: (-(n * counts[c] % total), c))
    for c in by_remainder[: n - sum(shares)]:
        shares[c] += 1
    places = torch.cat([(torch.arange(share, dtype=torch.float64) + 0.5) / share for share in shares])
    labels = torch.arange(len(shares)).repeat_interleave(torch.tensor(shares))
    return labels[places.argsort(stable=True)]  # of two at one place the lower class first
