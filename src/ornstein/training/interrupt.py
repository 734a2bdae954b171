"""Ctrl-C in training: the first waits for the step to end, a second does not.

The same goes for SIGTERM if a program has given it Python's own handler of Ctrl-C, as the command line does.
"""

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
        asked: whether it did.
    """

    def __init__(self) -> None:
        self.asked = False

    @contextmanager
    def heard(self) -> Iterator[None]:
        """Let Ctrl-C ask for a stop after the step, rather than tear the step apart."""
        ours = threading.current_thread() is threading.main_thread()
        means_stop = signal.default_int_handler
        heard = [s for s in (signal.SIGINT, signal.SIGTERM) if ours and signal.getsignal(s) is means_stop]

        first = 0.0

        def ask(number: int, frame: FrameType | None) -> None:
            nonlocal first
            # Of several processes each may be told twice at once: by the terminal and by the launcher.
            if self.asked and not (ranks.count() > 1 and time.monotonic() - first < 1):
                raise KeyboardInterrupt
            self.asked, first = True, first if self.asked else time.monotonic()

        try:
            for number in heard:
                signal.signal(number, ask)
            yield
        finally:
            for number in heard:
                signal.signal(number, means_stop)
