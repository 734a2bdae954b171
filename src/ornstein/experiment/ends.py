"""`ornstein train bridge data.source=... data.target=...`: what suits two data sets, with a reason for each choice.

The target decides the network: a residual network for vectors, a U-Net for data on a grid, by the rules
for the user's own data (`ornstein.experiment.own`). Pictures of folders are read in one size and mode, the target's.
"""

from collections.abc import Mapping
from typing import Any

from ornstein.data import DATA, ImageFolder
from ornstein.data.between import named_end, opened
from ornstein.errors import InputError, shown
from ornstein.experiment import own
from ornstein.nets import NETS, UNet

#: of sources that are made of other data, the fields that name those; the last of them decides
_ENDS = {"between": ("source", "target"), "blurred": ("of",)}
#: a U-Net, and what trains it, where the preset's own network is one for vectors
_UNET = {"name": "unet", "channels": 64, "multipliers": [1, 2, 2], "blocks": 1, "attention": [8]}
_TRAINING = {"batch_size": 64, "lr": 3e-4, "steps": 20_000, "precision": "auto", "validate_every": 2000}
_SAMPLING = {"preview": 40, "precision": "auto"}


def fields_of(data: Any) -> tuple[str, ...]:
    """The fields that name the data which an experiment's are made of; () of others."""
    return _ENDS.get(str(data.get("name")), ()) if isinstance(data, Mapping) else ()


def chosen(preset: str, tree: Mapping[str, Any], said: Mapping[str, Any]) -> own.Own:
    """The choices for the two data sets that the user names beside a preset.

    Args:
        preset: its name.
        tree: the experiment as the preset has it.
        said: dotted key -> value.

    Raises:
        InputError: data that are not there, or of a kind that the preset's network does not take.
    """
    ends = _ENDS[tree["data"]["name"]]
    data = _told(tree["data"], said, ends)
    last = data[ends[-1]]
    reasons: dict[str, str] = {}
    if _is_folder(last):
        known = {f"data.{key}": value for key, value in last.items() if value not in (None, "auto")}
        found = own.chosen(last["path"], {**said, **known})
        count, places = found.examples, True
        reading = {key: found.changes.get(f"data.{key}") for key in ("size", "mode")}
        for end in ends:
            if _is_folder(data[end]):
                data[end] |= {k: v for k, v in reading.items() if v is not None and data[end][k] in (None, "auto")}
        if "data.size" in found.reasons:
            reasons["data.size"] = found.reasons["data.size"]
    else:
        loaded = opened(last).load()
        count, places = len(loaded.train), len(loaded.shape) > 1
        found = own.Own(preset, {}, count)
        if places:
            found = own.of_shape({}, count, loaded.shape, loaded.kind, f"data.{ends[-1]}={shown(loaded.name)!r}")
    changes = {key: value for key, value in found.changes.items() if key.startswith("net.")}
    reasons |= {key: why for key, why in found.reasons.items() if key.startswith("net.")}
    if places and NETS[tree["net"]["name"]] is not UNet:
        sections = {"training": _TRAINING, "sampling": _SAMPLING}
        whole = {f"{name}.{key}": value for name, section in sections.items() for key, value in section.items()}
        changes = {"net": dict(_UNET), **whole, **changes}
        reasons["net"] = "a U-Net, for the target has places"
    elif not places and NETS[tree["net"]["name"]] is UNet:
        raise InputError(
            f"data.{ends[-1]}={shown(last.get('path') or last['name'])!r} has no places, and preset={preset!r} is of "
            "pictures; take the preset bridge."
        )
    return own.Own(preset, data, count, changes, reasons)


def _is_folder(end: Mapping[str, Any]) -> bool:
    return DATA[end["name"]] is ImageFolder


def _told(data: Mapping[str, Any], said: Mapping[str, Any], ends: tuple[str, ...]) -> dict[str, Any]:
    """The preset's data with the ends as they are said, each a name and all its arguments."""
    found = dict(data)
    for key, value in said.items():
        noun, _, rest = key.partition(".")
        where, _, inner = rest.partition(".")
        if noun == "data" and where in ends:
            before = found[where] if isinstance(found[where], Mapping) else {"name": found[where]}
            found[where] = {**before, inner: value} if inner else value
    return found | {end: named_end(found[end], f"data.{end}") for end in ends}
