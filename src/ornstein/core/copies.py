"""Constants beside the data that they are used with.

A table of a chain, the measurement of an inverse problem and the shares of classes are made on the CPU and used at
every step with data on a GPU. A copy from ordinary memory waits until the GPU has done all
that was asked of it, so a step that copies a constant stalls it. Here a constant is copied once to each device.
"""

from collections.abc import MutableMapping
from typing import Any

import torch
from torch import Tensor
from torch.utils.weak import WeakIdKeyDictionary

#: constant -> (device, type, version) -> its copy; a constant that nobody holds any more takes its copies along
_COPIES: MutableMapping[Tensor, dict[Any, Tensor]] = WeakIdKeyDictionary()


def beside(constant: Tensor, like: Tensor, dtype: torch.dtype | None = None) -> Tensor:
    """A tensor that is used again and again, on the device of another; copied there once, and again if it has changed.

    Args:
        constant: of any shape; returned as it is if it is there already, or if a gradient is to flow through it.
        like: whose device and type to take.
        dtype: another type to take.
    """
    dtype = like.dtype if dtype is None else dtype
    if (constant.device, constant.dtype) == (like.device, dtype):
        return constant
    if constant.requires_grad or constant.is_inference() or constant.device == like.device:
        return constant.to(like.device, dtype)
    copies, key = _COPIES.setdefault(constant, {}), (like.device, dtype, constant._version)
    if key not in copies:
        copies.clear()
        with torch.inference_mode(False):  # a copy made inside could not be used outside
            copies[key] = constant.to(like.device, dtype)
    return copies[key]
