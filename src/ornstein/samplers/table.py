"""Steppers by name: the table, empty here, and how to look something up in it.

`named` fills it and imports every stepper; this file imports none, so that a stepper around a stepper can use it.
"""

from dataclasses import fields
from typing import Any

from ornstein.core.drive import Stepper
from ornstein.errors import InputError, lookup

#: every stepper by name
STEPPERS: dict[str, type[Stepper]] = {}


def stepper_named(stepper: str | Stepper, **options: Any) -> Stepper:
    """The stepper of that name with its options, or the stepper given.

    Raises:
        InputError: an unknown name (the nearest is suggested), or options that it does not take.
    """
    if isinstance(stepper, Stepper):
        if options:
            raise InputError(f"stepper={stepper!r} has its options already; {', '.join(options)} cannot be added.")
        return stepper
    cls = lookup(STEPPERS, stepper, "stepper")
    known = [field.name for field in fields(cls)]  # type: ignore[arg-type]
    for name in options:
        if name not in known:
            raise InputError(f"stepper={stepper!r} takes no {name!r}; it takes {', '.join(known) or 'no options'}.")
    return cls(**options)
