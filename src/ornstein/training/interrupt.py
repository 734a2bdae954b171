"""Ctrl-C in training: asked for once it waits for the step to end, asked for twice it does not."""

import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from ornstein import ranks


class Interrupt:
    """Whether Ctrl-C asked this process to stop.

    Attributes:
        asked: it did.
    """

    def __init__(self) -> None:
        self.asked = False

    @contextmanager
    def heard(self) -> Iterator[None]:
        """Let Ctrl-C ask for a stop after the step, rather than tear the step apart."""
        ours = threading.current_thread() is threading.main_thread()
        if not ours or signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
            yield
            return

        first = 0.0

        def ask(number: int, frame: FrameType | None) -> None:
            nonlocal first
            # Of several processes each may be told twice at once: by the terminal and by the launcher.
            if self.asked and not (ranks.count() > 1 and time.monotonic() - first < 1):
                raise KeyboardInterrupt
            self.asked, first = True, first if self.asked else time.monotonic()

        signal.signal(signal.SIGINT, ask)
        try:
            yield
        finally:
            signal.signal(signal.SIGINT, signal.default_int_handler)
