"""Examples given in memory: kept in the folder of their run, so that it can be resumed and evaluated.

What `ornstein.fit` is given in memory is written into the run's folder as a safetensors file, bit for bit, with
what is known of them (types of columns, classes, the map to model space) as text in its header. It contains no code.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, final

from ornstein.data.condition import Column, Known
from ornstein.data.dataset import Dataset, Source
from ornstein.data.delimited import Dialect
from ornstein.data.layout import Layout
from ornstein.data.reading import absolute
from ornstein.data.schema import ColumnType
from ornstein.data.timeline import Timeline
from ornstein.data.transform import Transform
from ornstein.errors import InputError, shown
from ornstein.files import regular, replacing

#: where in a run's folder they lie
PLACE = Path("data") / "examples.safetensors"
_HEAD = "ornstein"


@final
@dataclass(frozen=True)
class Kept(Source):
    """Examples that `ornstein.fit` was given in memory, from the file that keeps them in the run's folder.

    Args:
        path: the file.

    Raises:
        InputError: it is not there, or damaged.
    """

    beside: ClassVar[bool] = True

    path: str

    def __post_init__(self) -> None:
        object.__setattr__(self, "path", absolute(self.path))

    def load(self) -> Dataset:
        from safetensors import SafetensorError, safe_open

        file = regular(self.path, "data.path", "the examples that ornstein.fit kept beside its run")
        try:
            with safe_open(file, "pt") as opened:
                facts = json.loads(opened.metadata()[_HEAD])
                tensors = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118  no mapping
            return Dataset(
                name=facts["name"],
                train=tensors["train"],
                test=tensors["test"],
                conditions={
                    name: Column(Known.from_dict(about), tensors[f"{name}.train"], tensors[f"{name}.test"])
                    for name, about in facts["conditions"].items()
                },
                kind=facts["kind"],
                transform=Transform.from_dict(facts["transform"]),
                flip=facts["flip"],
                note=facts["note"],
                layout=Layout(facts["layout"]),
                columns=tuple(ColumnType.from_dict(about) for about in facts["columns"]),
                dialect=Dialect.from_dict(facts["dialect"]) if facts["dialect"] else None,
                spread=facts["spread"],
                timeline=Timeline.from_dict(facts["timeline"]) if facts["timeline"] else None,
            )
        except (SafetensorError, OSError, KeyError, TypeError, ValueError, AttributeError):
            raise InputError(f"{shown(file)} is damaged, or is not what ornstein.fit kept.") from None


def keep(data: Dataset, path: Path) -> None:
    """Write a data set to a file from which `Kept` loads the same.

    Raises:
        InputError: the disk is full or refuses.
    """
    from safetensors.torch import save_file

    tensors = {"train": data.train, "test": data.test}
    for name, column in data.conditions.items():
        tensors |= {f"{name}.train": column.train, f"{name}.test": column.test}
    facts = {
        "name": data.name,
        "kind": data.kind,
        "conditions": {name: column.about.to_dict() for name, column in data.conditions.items()},
        "transform": data.transform.to_dict(),
        "flip": data.flip,
        "note": data.note,
        "layout": data.layout.axes,
        "columns": [column.to_dict() for column in data.columns],
        "dialect": data.dialect.to_dict() if data.dialect is not None else None,
        "spread": data.spread,
        "timeline": data.timeline.to_dict() if data.timeline is not None else None,
    }
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as part:
            save_file({name: t.contiguous() for name, t in tensors.items()}, part, {_HEAD: json.dumps(facts)})
    except OSError as error:
        raise InputError(f"{shown(path)} cannot be written: {error.strerror or error}.") from None
