"""`training.minutes`: as many steps as a time allows, decided before the first.

A learning rate that falls to zero at the last step, and a run that resumes bit for bit, need a number of steps, not a
clock. So a few real steps and network calls are timed, as `ornstein plan` does, the time this took is subtracted, and
the resulting number of steps is written into the experiment.
"""

import dataclasses
import time

from ornstein import ranks
from ornstein.data import Dataset
from ornstein.errors import InputError
from ornstein.experiment.config import Experiment
from ornstein.experiment.plan import plan


def in_time(experiment: Experiment, data: Dataset) -> Experiment:
    """The experiment with its minutes turned into steps, measured here and now; unchanged if it has none.

    Raises:
        InputError: of several processes, which would each measure another number.
    """
    config = experiment.training
    if config.minutes is None:
        return experiment
    if ranks.count() > 1:
        raise InputError(f"training.minutes={config.minutes:g} is of one process; say training.steps for several.")
    began = time.perf_counter()
    # on a machine that is slow to measure, what is left is never less than half
    planned = plan(experiment, data=data)
    left = max(1 - (time.perf_counter() - began) / (60 * config.minutes), 0.5)
    left *= min(1, 60 * config.minutes / max(planned.seconds, 1e-9))  # beyond the steps there may be a critic to teach
    if (steps := planned.experiment.training.steps) < config.steps:
        steps = max(int(left * steps), 1)
        why = (
            f"{steps:,}: about {config.minutes:g} minutes on this machine as busy as now, at "
            f"{1 / planned.step:,.1f} steps a second, with what is drawn on the way"
        )
    else:
        why = (
            f"{steps:,}, in less than {config.minutes:g} minutes: "
            + experiment.reasons.get("training.steps", "as was asked for").partition(": ")[2]
        )
    return dataclasses.replace(
        experiment,
        training=dataclasses.replace(config, steps=steps, minutes=None),
        reasons={**experiment.reasons, "training.steps": why},
    )
