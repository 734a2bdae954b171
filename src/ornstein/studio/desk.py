"""The desk: whose work is done next, when several people share one machine.

One job computes at a time, since two would but share the cores. It has the turn for a *slice* of time; then, if
others wait, it stands in line again behind one job of each of them. So whoever asks for ten things delays a neighbour
by one of them, a long job does not hold up short ones, and everybody can be told the place that he is at.

A job is a function that is handed its `Job` and calls `job.tick()` at least twice a second: there it may lose the turn
for a while, or be stopped by an exception. It stops when its owner says so or leaves, and when nobody has asked after
it for a while, as when a page was closed. What it shows is kept as the newest alone, so a slow reader costs no memory.
"""

import asyncio
import threading
import time
from collections import OrderedDict, deque
from collections.abc import AsyncGenerator, Callable
from dataclasses import dataclass
from typing import Any

from ornstein.errors import InputError

#: seconds of one turn; seconds after which a job that nobody asks after is let go
SLICE, PATIENCE = 1.0, 30.0
#: jobs in line at a time: in all, and of one owner
MOST, EACH = 64, 3
#: seconds between two looks at a job that is followed, and between two things of it that are passed on: a browser that
#: draws each must have time left to hear a click
_LOOK, _PACE = 0.04, 0.15


class Stopped(Exception):
    """Raised in a job that is to end."""


class Replaced(Stopped):
    """Raised in a job whose owner has asked for another in the same room: nobody waits for its end."""


@dataclass(frozen=True, eq=False)
class News:
    """What is new of a job: its place in line (0: it is being done), or what it shows."""

    place: int
    shown: Any = None


class Job:
    """One piece of work in line; made by `Desk.submit`."""

    def __init__(self, desk: "Desk", owner: str, work: Callable[["Job"], Any], room: str) -> None:
        self.owner, self.room = owner, room
        self.shown: Any = None
        self.version = 0
        self.result: Any = None
        self.error: BaseException | None = None
        self.done = False
        self.stopped: Stopped | None = None
        self.asked = self.began = time.monotonic()
        self._desk, self._work = desk, work
        self._thread: threading.Thread | None = None

    def show(self, value: Any) -> None:
        """Let whoever follows see this, in place of what was shown before."""
        self.shown, self.version = value, self.version + 1
        self.tick()

    def tick(self) -> None:
        """Go on, or wait for the next turn.

        Raises:
            Stopped: the job is to end.
        """
        self._desk.tick(self)

    def stop(self, why: Stopped | None = None) -> None:
        """End it: at its next tick, or at once if it waits."""
        self._desk.stop(self, why or Stopped())

    def _run(self) -> None:
        try:
            self.result = self._work(self)
        except BaseException as error:  # whatever it is, it is for the follower, not for this thread
            self.error = error
        finally:
            self._desk.finish(self)


class Desk:
    """Jobs in line.

    Args:
        slice_: seconds of one turn.
        patience: seconds after which a job that nobody asks after is let go.
    """

    def __init__(self, slice_: float = SLICE, patience: float = PATIENCE) -> None:
        self._slice, self._patience = slice_, patience
        self._line: OrderedDict[str, deque[Job]] = OrderedDict()  # owners in the order of their turns
        self._now: Job | None = None
        self._change = threading.Condition()

    def submit(self, owner: str, work: Callable[[Job], Any], room: str = "") -> Job:
        """Put a job in line; one of the same owner in the same room ends first.

        Raises:
            InputError: too many wait.
        """
        with self._change:
            self.leave(owner, room)
            if len(self._jobs()) >= MOST:
                raise InputError(f"The studio is full: {MOST} jobs wait already; try again in a minute.")
            if sum(job.owner == owner for job in self._jobs()) >= EACH:
                raise InputError(f"{EACH} jobs of yours wait already; let one end, or stop it.")
            job = Job(self, owner, work, room)
            self._line.setdefault(owner, deque()).append(job)
            if self._now is not None and self._now.owner in self._line:
                self._line.move_to_end(self._now.owner)  # who has the turn comes after whoever has not
            self._next()
            return job

    def place(self, job: Job) -> int:
        """How many turns are taken before the job's; 0 while it has the turn."""
        with self._change:
            if job is self._now or job.done:
                return 0
            owners = list(self._line)
            mine, before = self._line[job.owner].index(job), owners.index(job.owner)
            ahead = sum(
                min(len(jobs), mine + (place < before)) for place, jobs in enumerate(self._line.values())
                if place != before
            )  # fmt: skip
            return 1 + mine + ahead

    def leave(self, owner: str, room: str | None = None) -> None:
        """End all jobs of an owner, or those of one room in place of which there is something newer."""
        with self._change:
            for job in self._jobs():
                if job.owner == owner and room in (None, job.room):
                    self.stop(job, Stopped() if room is None else Replaced())

    def count(self) -> int:
        """Jobs in line, with the one that is being done."""
        with self._change:
            return len(self._jobs())

    async def follow(self, job: Job) -> AsyncGenerator[News, None]:
        """What is new of a job until it ends; who stops listening ends it.

        Raises:
            Stopped: it was stopped; Replaced: it has made way for another.
            InputError: what the job raised, or any other error of its.
        """
        place, version, told = -1, 0, 0.0
        try:
            while not job.done:
                job.asked = time.monotonic()
                here = self.place(job)
                if job.version != version and job.asked - told > _PACE:
                    place, version, told = here, job.version, job.asked
                    yield News(here, job.shown)
                elif here != place:
                    place = here
                    yield News(here)
                await asyncio.sleep(_LOOK)
            if job.error is None and job.version != version:  # shown just before the end
                yield News(0, job.shown)
        finally:
            job.stop()
        if job.error is not None:
            raise job.error

    # What jobs call ------------------------------------------------------------------------------------------------

    def tick(self, job: Job) -> None:
        """See `Job.tick`."""
        with self._change:
            self._may_go_on(job)
            if time.monotonic() - job.began < self._slice or not self._line:
                return
            self._line.setdefault(job.owner, deque()).appendleft(job)
            self._line.move_to_end(job.owner)
            self._now = None
            self._next()
            while self._now is not job:
                self._change.wait(0.5)
                if self._now is not job:
                    self._may_go_on(job)

    def stop(self, job: Job, why: Stopped) -> None:
        """See `Job.stop`."""
        with self._change:
            job.stopped = job.stopped or why
            if job._thread is None and not job.done:
                self._drop(job)
                job.error, job.done = job.stopped, True
            self._change.notify_all()

    def finish(self, job: Job) -> None:
        """A job has ended: the turn is free, if it had it."""
        with self._change:
            job.done = True
            self._drop(job)
            if self._now is job:
                self._now = None
            self._next()

    def _may_go_on(self, job: Job) -> None:
        if job.stopped is not None:
            raise job.stopped
        if time.monotonic() - job.asked > self._patience:
            raise Stopped

    def _jobs(self) -> list[Job]:
        waiting = [job for jobs in self._line.values() for job in jobs]
        return waiting if self._now is None else [self._now, *waiting]

    def _drop(self, job: Job) -> None:
        jobs = self._line.get(job.owner)
        if jobs and job in jobs:
            jobs.remove(job)
        if jobs is not None and not jobs:
            del self._line[job.owner]

    def _next(self) -> None:
        """Give the turn to the first in line, if it is free."""
        while self._now is None and self._line:
            owner, jobs = next(iter(self._line.items()))
            job = jobs.popleft()
            del self._line[owner]
            if jobs:
                self._line[owner] = jobs  # his others after one of each of the rest
            if time.monotonic() - job.asked > self._patience and job._thread is None:
                job.error, job.done = Stopped(), True  # nobody waits for it any more
                continue
            self._now, job.began = job, time.monotonic()
            if job._thread is None:
                job._thread = threading.Thread(target=job._run, name=f"studio-{job.room}", daemon=True)
                job._thread.start()
        self._change.notify_all()
