"""Which axis is what: between the user's arrays and the model's own order, channels first.

Images are kept as (N, H, W, C) by most programs and as (N, C, H, W) by torch; series as (N, time, features) by
statisticians and as (N, C, L) by networks. A `Layout` is that choice in letters, one an axis:

    N examples    C channels or features    L places of a series    H W rows and columns    D planes of a volume

The model sees N, C and then the places. `give_back` undoes `take_in` exactly: both only permute axes. The letters are
part of a data set's fingerprint, so that a run knows them: `Layout(facts.get("layout", ""))`.
"""

from dataclasses import dataclass
from typing import Literal, final

import torch
from torch import Tensor

from ornstein.errors import InputError

Kind = Literal["image", "vector", "array", "table", "writing"]

_PLACES: dict[str, tuple[str, Kind]] = {
    "": ("", "vector"),
    "L": ("L", "array"),
    "HW": ("HW", "image"),
    "DHW": ("DHW", "array"),
}
_KNOWN = "ND, NL, NCL, NLC, NHW, NCHW, NHWC, NDHW, NCDHW, NDHWC"


@final
@dataclass(frozen=True)
class Layout:
    """The order of an array's axes.

    Args:
        axes: N, then C (or D alone) for the features and the places L, HW or DHW, in any order; without C there is
            one channel. "" for arrays that have the model's order already, however many axes they have.

    Raises:
        InputError: letters that are no such order.
    """

    axes: str = ""

    def __post_init__(self) -> None:
        letters = self._letters
        places = "".join(sorted(set(letters) - set("NC")))
        if self.axes and (
            letters[0] != "N" or len(set(letters)) != len(letters) or places not in map(_sorted, _PLACES)
        ):
            raise InputError(f"data.layout={self.axes!r} is not known; use auto, or one such as {_KNOWN}.")

    @property
    def _letters(self) -> str:
        return "NC" if self.axes == "ND" else self.axes

    @property
    def model(self) -> str:
        """The model's order of the same axes, such as "NCHW"; "" if the layout is."""
        if not self.axes:
            return ""
        return "NC" + next(p for p in _PLACES if _sorted(p) == _sorted(set(self._letters) - set("NC")))

    @property
    def kind(self) -> Kind:
        """What examples with these axes are."""
        return _PLACES[self.model[2:]][1] if self.axes else "array"

    def take_in(self, x: Tensor) -> Tensor:
        """(N, *own) -> (N, *model): a view, values untouched. More axes before N stay where they are."""
        if not self.axes:
            return x
        letters = self._letters
        if "C" not in letters:
            x, letters = x.unsqueeze(-1), letters + "C"
        return self._turned(x, letters, self.model)

    def give_back(self, z: Tensor) -> Tensor:
        """(N, *model) -> (N, *own): undoes `take_in`. More axes before N, such as draws, stay where they are."""
        if not self.axes:
            return z
        model = self.model
        if "C" not in self._letters:
            z, model = z.squeeze(1 - len(model)), model.replace("C", "")
        return self._turned(z, model, self._letters)

    def own(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """The shape of one example as its owner has it, from its shape in the model."""
        return tuple(self.give_back(torch.empty(0, *shape)).shape[1:])

    def rows(self, x: Tensor, shape: tuple[int, ...], noun: str = "input") -> Tensor:
        """Examples, or a single one, in their owner's order or in the model's, as (N, *model).

        Where both orders are possible the owner's is taken. Sides that differ from `shape` are left to the caller,
        who may expect that; the number of axes is not.

        Raises:
            InputError: another number of axes.
        """
        own = self.own(shape)
        for wanted, way in ((own, self.take_in), (shape, lambda v: v)):
            if tuple(x.shape[1:]) == wanted:
                return way(x)
            if tuple(x.shape) == wanted:
                return way(x[None])
        for wanted, way in ((own, self.take_in), (shape, lambda v: v)):
            if x.ndim == len(wanted) + 1:
                return way(x)
            if x.ndim == len(wanted):
                return way(x[None])
        raise InputError(f"{noun} has shape {_by(x.shape)}; one example of these data has shape {_by(own)}.")

    def _turned(self, x: Tensor, given: str, wanted: str) -> Tensor:
        lead = x.ndim - len(given)
        return x.permute(*range(lead), *(lead + given.index(axis) for axis in wanted))


#: for data that have the model's order
AS_FOUND = Layout()


def guessed(values: Tensor) -> Layout:
    """The layout of an array if none is given: the rules of the table in `ornstein.data.array`."""
    shape = values.shape
    last = len(shape) > 3 and 1 <= shape[-1] <= 4 and not 1 <= shape[1] <= 4
    match len(shape):
        case 1 | 2:
            return Layout("ND"[: len(shape)])
        case 3 if not values.is_floating_point() or shape[1] == shape[2]:
            return Layout("NHW")
        case 3:
            return Layout("NCL" if shape[1] <= shape[2] else "NLC")
        case 4:
            return Layout("NHWC" if last else "NCHW")
        case 5:
            return Layout("NDHWC" if last else "NCDHW")
        case _:
            return Layout()


def _sorted(letters: "str | set[str]") -> str:
    return "".join(sorted(letters))


def _by(shape: "tuple[int, ...] | torch.Size") -> str:
    return "x".join(map(str, shape)) or "()"
