"""torch's optimisers without torch's compiler.

torch keeps its compiler out of what an optimiser does, and loads it to do so: some two seconds of a processor in each
process that trains, before its first step. Nothing here compiles an optimiser, so its methods are taken as they were
before torch wrapped them. The arithmetic is torch's own, to the last bit.
"""

import inspect
from functools import cache
from typing import Any, TypeVar, cast

import torch

O = TypeVar("O", bound=torch.optim.Optimizer)  # noqa: E741  an optimiser

#: the methods around which torch asks its compiler to stay away; `step` is another, which wants no gradients besides
_KEPT_OUT = ("add_param_group", "zero_grad", "state_dict", "load_state_dict")


def eager(kind: type[O]) -> type[O]:
    """An optimiser of torch as a class that never loads the compiler, and is otherwise the same.

    Args:
        kind: `torch.optim.AdamW` and the like. Of one whose methods are not wrapped, nothing changes.
    """
    made: type[O] = _bare(cast(Any, kind))
    return made


@cache
def _bare(kind: Any) -> Any:
    bare: dict[str, Any] = {name: inspect.unwrap(getattr(kind, name)) for name in _KEPT_OUT}
    bare["step"] = torch.no_grad()(inspect.unwrap(kind.step))
    return type(kind.__name__, (kind,), bare)
