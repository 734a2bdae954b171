"""The ground floor: processes, predictions, denoisers, the sampling loop, and exact distributions to check them by."""

from collections.abc import Callable

from ornstein.core.chains import Tabulated
from ornstein.core.clocks import EDM, OU, VE, VP, Cosine, Flow, SubVP
from ornstein.core.process import Process

#: every process by name: a class, or a way to make a chain
PROCESSES: dict[str, Callable[..., Process]] = {
    "vp": VP,
    "cosine": Cosine,
    "sub-vp": SubVP,
    "ve": VE,
    "edm": EDM,
    "ou": OU,
    "flow": Flow,
    "betas": Tabulated.from_betas,
    "ladder": Tabulated.from_sigmas,
    "euler-ou": Tabulated.euler_ou,
}
