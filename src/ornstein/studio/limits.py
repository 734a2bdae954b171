"""How much one page may ask for, so that ten people share one machine; each refusal is a sentence."""

import math
from dataclasses import dataclass

from ornstein.errors import InputError


@dataclass(frozen=True)
class Limits:
    """What one job may be.

    Attributes:
        count: samples.
        steps: of one way.
        numbers: in all samples together: pixels, cells, coordinates.
        upload: bytes of a file.
        side: pixels of a picture's side, or places along any other axis of what is given.
        points: drawn by hand.
        trainings: that go on at a time.
        training: steps of one.
    """

    count: int = 1000
    steps: int = 1000
    numbers: int = 4_000_000
    upload: int = 20_000_000
    side: int = 2048
    points: int = 500
    trainings: int = 2
    training: int = 100_000

    def whole(self, value: object, name: str, most: int, least: int = 1) -> int:
        """A whole number that a page gave.

        Raises:
            InputError: it is none, or not within the limits.
        """
        whole = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
        if not whole or value != int(value) or not least <= value <= most:  # type: ignore[call-overload,operator]
            raise InputError(f"{name}={value!r} must be a whole number from {least:,} to {most:,} in the studio.")
        return int(value)  # type: ignore[call-overload,no-any-return]

    def small(self, side: int, what: str) -> None:
        """See that something is not too large to be worked on here.

        Raises:
            InputError: its longest side is.
        """
        if side > self.side:
            raise InputError(f"{what} has a side of {side:,}; the studio takes up to {self.side:,}.")

    def drawing(self, count: object, steps: object, size: int) -> tuple[int, int | None]:
        """Count and steps of a drawing of samples of so many numbers; steps None: the run's own.

        Raises:
            InputError: more than one page may ask for.
        """
        n = self.whole(count, "count", self.count)
        if n * size > self.numbers:
            most = max(1, self.numbers // size)
            raise InputError(
                f"count={n} of {size:,} numbers each is more than the studio draws; up to {most:,} is fine."
            )
        return n, None if steps is None else self.whole(steps, "steps", self.steps)
