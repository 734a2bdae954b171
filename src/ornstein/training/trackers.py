"""Experiment trackers that a run's figures are sent to, through Hugging Face's accelerate.

`training.trackers=wandb` sends every line of metrics.jsonl there too, under the run folder's name, with the settings as
its configuration. A tracker takes accounts, hosts and projects from its own environment variables:
WANDB_MODE=offline, WANDB_PROJECT, MLFLOW_TRACKING_URI, MLFLOW_EXPERIMENT_NAME, TRACKIO_DIR and the like. A tracker that
fails during the run is dropped with a warning, and the run goes on.
"""

import os
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from importlib.util import find_spec
from typing import Any

from ornstein.errors import InputError

#: how they are begun: given their class in accelerate and the name of the run
TRACKERS: dict[str, Callable[[Any, str], Any]] = {
    "wandb": lambda kind, name: kind(os.environ.get("WANDB_PROJECT", "ornstein"), name=name),
    "mlflow": lambda kind, name: kind("ornstein", run_name=name),
    "trackio": lambda kind, name: kind("ornstein", name=name, embed=False),
}


def must_have(names: Sequence[str]) -> None:
    """Refuse trackers whose libraries are not installed.

    Raises:
        InputError: one of them is not.
    """
    for name in names:
        lacking = [library for library in ("accelerate", name) if find_spec(library) is None]
        if lacking:
            raise InputError(
                f"training.trackers={name!r} needs {' and '.join(lacking)}, not installed here: "
                f"pip install {' '.join(lacking)}."
            )


def begun(names: Sequence[str], run: str, settings: Mapping[str, Any]) -> "tuple[Tracker, ...]":
    """The trackers, started for a run and given its settings.

    Args:
        names: keys of `TRACKERS`.
        run: the run's name there.
        settings: a tree of settings; its leaves are sent under their dotted names.

    Raises:
        InputError: a library that is not installed, or a tracker that does not start.
    """
    must_have(names)
    if not names:
        return ()
    from accelerate import PartialState
    from accelerate.tracking import LOGGER_TYPE_TO_CLASS

    PartialState()  # its loggers want it
    found = []
    for name in names:
        try:
            tracker = TRACKERS[name](LOGGER_TYPE_TO_CLASS[name], run)
            tracker.start()
            tracker.store_init_configuration(dict(_leaves(settings)))
        except Exception as error:  # of any library, of any kind
            reason = str(error).strip().partition("\n")[0].rstrip(".")
            raise InputError(f"training.trackers={name!r} could not begin: {reason}.") from None
        found.append(Tracker(name, tracker))
    return tuple(found)


class Tracker:
    """One of accelerate's trackers, started; once it fails nothing more is sent to it."""

    def __init__(self, name: str, tracker: Any):
        self._name, self._tracker = name, tracker

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Send it numbers at a step."""
        self._told("log", dict(values), step=step)

    def finish(self) -> None:
        """End its record of the run, finished or failed."""
        self._told("finish")
        self._tracker = None

    def _told(self, what: str, *given: Any, **options: Any) -> None:
        if self._tracker is None:
            return
        try:
            getattr(self._tracker, what)(*given, **options)
        except Exception as error:  # of any library, of any kind
            self._tracker = None
            warnings.warn(f"{self._name} is told nothing more: {error}", RuntimeWarning, stacklevel=2)


def _leaves(tree: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in tree.items():
        if isinstance(value, Mapping):
            yield from _leaves(value, f"{prefix}{key}.")
        elif value is not None:
            yield f"{prefix}{key}", value if isinstance(value, (bool, int, float, str)) else str(value)
