"""Series and a run: what is missing, what comes next, what came before, in several draws; and longer than trained.

All of these are one task: unknown steps are drawn given known ones. A forecast has the unknown steps at the end, a
back-cast at the beginning. If a hole is longer than a window can hold beside what is known, it is drawn piece by
piece, each given the one before.

A model that was trained to fill (`learner: filling`) draws from p(hidden given known) directly, in one network call a
step. Any other is guided, which is slower and less exact (`ornstein.experiment.restore`).
"""

import dataclasses
import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ornstein.core.condition import Condition
from ornstein.core.denoiser import SEEN
from ornstein.core.drive import another_seed, sample_seeds
from ornstein.core.gaps import GIVEN, Filled, OnSeen, together, told
from ornstein.data.condition import LABEL
from ornstein.data.series import CALENDAR
from ornstein.data.timeline import Timeline
from ornstein.data.tracks import Track, called, read
from ornstein.errors import InputError, must_be_whole, shown
from ornstein.experiment.arguments import construct
from ornstein.experiment.guide import with_denoiser
from ornstein.experiment.restore import inpaint
from ornstein.experiment.run import Run
from ornstein.nets import NETS, UNet

#: draws whose range covers 90 % where they are honest: of 19 and the truth each is as likely to be outermost
DRAWS = 19


@dataclass(frozen=True, eq=False)
class Completed:
    """Draws of a series whose holes are filled.

    Attributes:
        track: as it was given, with the steps that were added; NaN where not known.
        draws: (draws, T, F) float64, data units; what was known is in every draw as it was.
    """

    track: Track
    draws: Tensor

    @property
    def centre(self) -> Tensor:
        """(T, F): the median of the draws."""
        return self.draws.median(0).values

    @property
    def interval(self) -> tuple[Tensor, Tensor]:
        """(T, F) each: the range of the draws; if the model is right, that of 19 holds the truth nine times in ten."""
        return self.draws.amin(0), self.draws.amax(0)


def timeline(run: Run) -> Timeline:
    """What the run's series are made of.

    Raises:
        InputError: it was not trained on series.
    """
    found = run.about["data"].get("series")
    if found is None:
        raise InputError(
            f"run={str(run.folder)!r} was trained on {run.kind}s; series come from data=series, as in ornstein train "
            "weather.csv data=series."
        )
    return Timeline.from_dict(found)


def of_length(run: Run, length: int) -> Run:
    """The same run with windows of another length, such as longer ones than it was trained on.

    Args:
        run: whose examples are arrays (C, L), by a network that slides: a U-Net.
        length: steps, a multiple of what the U-Net halves to.

    Raises:
        InputError: no such run, or no such length.
    """
    problem, net = run.learner.problem, construct(NETS, run.experiment.net)
    if len(problem.shape) != 2 or not isinstance(net, UNet):
        raise InputError(f"length={length!r} is for series drawn by a U-Net; {run.folder} draws {run.kind}s.")
    least = 2 ** (len(net.multipliers) - 1) * net.patch
    if isinstance(length, bool) or not isinstance(length, int) or length < least or length % least:
        raise InputError(f"length={length!r} must be a multiple of {least}, to which this run's network halves.")
    held = 1 + 4 * net.channels / problem.shape[0]  # of each step also some maps of the network, float32
    run.must_hold(length, "length", held / problem.shape[1])
    facts = dict(run.about["data"])
    facts["shape"] = [problem.shape[0], length]
    facts["conditions"] = {
        name: {**about, "shape": [about["shape"][0], length]} if about["kind"] == "picture" else about
        for name, about in facts.get("conditions", {}).items()
    }
    learner = dataclasses.replace(run.learner, problem=dataclasses.replace(problem, shape=(problem.shape[0], length)))
    return dataclasses.replace(run, about={**run.about, "data": facts}, learner=learner)


def dated(run: Run, n: int, length: int, first: "Sequence[int] | None" = None) -> Condition:
    """The calendar of n windows of this length, as a condition; without parts if the run takes no calendar.

    Args:
        first: where each begins on the grid; None: spread evenly over a year, or over the steps that it has.
    """
    if CALENDAR not in run.conditions:
        return Condition()
    line = timeline(run)
    first = starts(line, n) if first is None else first
    return Condition({CALENDAR: torch.stack([line.calendar(start, length) for start in first])})


def starts(line: Timeline, n: int) -> list[int]:
    """The places where n windows begin that are spread evenly over a year; all 0 without dates."""
    if line.time is None:
        return [0] * n
    span = max(int(365 * 86_400 / line.step) if line.step else 12 // line.months, 1)
    return [k * span // n for k in range(n)]


def long(run: Run, n: int, length: int, condition: Condition | None = None) -> tuple[Run, Condition]:
    """The run with windows of this length, and what to draw n of them given.

    Args:
        condition: what is asked for, n rows; None for the labels of the data in their shares. The calendar is added.

    Raises:
        InputError: as `of_length`; a run that is told pictures of its own, which have their own length.
    """
    longer = of_length(run, length)
    if others := [name for name, about in run.conditions.items() if about.kind == "picture" and name != CALENDAR]:
        raise InputError(f"length={length} does not go with {others[0]!r}, which this run is told at its own length.")
    given = Condition.of(run.every_class(n)) if condition is None else condition
    return longer, Condition({**dated(run, n, length).parts, **given.parts})


def impute_series(
    run: Run,
    track: "Track | Tensor",
    *,
    draws: int = DRAWS,
    seed: int = 0,
    steps: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Completed:
    """Draw what is missing in a series given what is known of it.

    Args:
        run: trained on series.
        track: a series on the run's grid (`ornstein.data.tracks.read`), or (T, F) values without dates; NaN is missing.
        draws: how often.
        seed, steps: as for drawing.
        progress: called with (holes filled, holes in all), counted in steps of time.

    Raises:
        InputError: a run that was not trained on series; another number of features; a name that it does not know.
    """
    line = timeline(run)
    track = track if isinstance(track, Track) else Track("", 0, torch.as_tensor(track).double())
    if track.values.ndim != 2 or track.values.shape[1] != len(line.features):
        raise InputError(
            f"a series of shape {tuple(track.values.shape)} does not fit; it must be (time, {len(line.features)})."
        )
    must_be_whole("draws", draws)
    if track.values.isinf().any():
        raise InputError("the series has infinite values; NaN, or an empty cell, says that one is missing.")
    window = line.window
    short = max(window - len(track.values), 0)  # a series shorter than a window is filled up, and cut again
    values = torch.nn.functional.pad(track.values, (0, 0, 0, short), value=math.nan)
    run.must_hold(draws, "draws", len(values) / window)
    filled = values.expand(draws, *values.shape).clone()
    holes = values.isnan().any(1)
    total = int(holes.sum())
    for turn in itertools.count():  # each has noise of its own
        if not holes.any():
            break
        places = _cover(holes, window)
        some = torch.cat([filled[:, start : start + window] for start, _ in places])
        where = [track.first + start for start, _ in places for _ in range(draws)]
        drawn = _drawn(run, line, some, where, track.name, another_seed(seed, turn), steps)
        for (start, inside), piece in zip(places, drawn.split(draws), strict=True):
            here = filled[:, start : start + window]
            filled[:, start : start + window] = torch.where(here.isnan() & inside[:, None], piece, here)
            holes[start : start + window] &= ~inside
        if progress is not None:
            progress(total - int(holes.sum()), total)
    return Completed(track, filled[:, : len(track.values)])


def forecast(run: Run, track: Track, after: int = 0, before: int = 0, **options: Any) -> Completed:
    """Draw the steps that come after a series, or those that came before it.

    The known steps are used as far as a window reaches; holes in them are drawn too.

    Args:
        after, before: how many steps; one of the two. Of data of working days or opening hours only such moments count.
        **options: see `impute_series`.

    Returns:
        The new steps alone.

    Raises:
        InputError: numbers out of range; as `impute_series`.
    """
    for name, value in (("steps", after), ("before", before)):
        if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= 1_000_000:
            raise InputError(f"{name}={value!r} must be a whole number of steps, up to 1,000,000.")
    if bool(after) == bool(before):
        raise InputError(
            f"steps={after} and before={before}: say how many steps to draw, after the series or before it."
        )
    line, count = timeline(run), len(track.values)
    said = f"steps={after}" if after else f"before={before}"
    on = _until(line, track.first + count, after, said) if after else _until(line, track.first, -before, said)
    after, before = len(on) * bool(after), len(on) * bool(before)
    window = line.window
    near = track.values[-window:] if after else track.values[:window]
    longer = torch.nn.functional.pad(near, (0, 0, before, after), value=math.nan)
    first = track.first + count - len(near) if after else track.first - before
    found = impute_series(run, Track(track.name, first, longer), **options)
    new = slice(len(near), None) if after else slice(0, before)
    place = track.first + count if after else first
    rows = torch.where(on, 0, -1) if line.idle else None  # a table has those alone
    return Completed(Track(track.name, place, longer[new], rows, line.idle), found.draws[:, new])


def _until(line: Timeline, place: int, count: int, said: str) -> Tensor:
    """(T,) bool: which of the steps from `place` on occur in the data, `count` of them; before it, if `count` < 0.

    Args:
        said: by which words they were asked for.
    """
    wanted = wide = abs(count)
    while True:
        first = place if count > 0 else place - wide
        line.must_date(first, wide, said)
        on = line.occur(first, wide) if line.idle else torch.ones(wide, dtype=torch.bool)
        order = on if count > 0 else on.flip(0)
        if int(on.sum()) >= wanted:
            needed = int(order.nonzero()[wanted - 1]) + 1
            return on[:needed] if count > 0 else on[-needed:]
        wide *= 2


def complete(
    run: Run, data: Any, after: int = 0, before: int = 0, *, noun: str = "input", **options: Any
) -> list[Completed]:
    """Every series of data with its holes filled, or what comes after or came before it.

    Args:
        data: a file's path, a data frame or an array, with the columns of the run's own.
        after, before: steps to draw; neither: the holes are filled.
        noun: what to call a file in errors.
        **options: see `impute_series`.

    Raises:
        InputError: data that do not fit, or a series without any value.
    """
    tracks = read(timeline(run), data, noun)
    for track in tracks:
        if track.values.isnan().all():
            which = f"series {shown(track.name)!r}" if track.name else "series"
            raise InputError(f"{called(data, noun)}: a {which} has no value at all.")
    if after or before:
        return [forecast(run, track, after, before, **options) for track in tracks]
    return [impute_series(run, track, **options) for track in tracks]


def _cover(holes: Tensor, window: int) -> list[tuple[int, Tensor]]:
    """Windows that do not overlap, each with the steps (window,) bool to fill in it; the others wait for another turn.

    A hole lies in the middle of its window. Of one longer than half a window that much is filled at a time, beginning
    where it meets what is known; other holes that lie in the window are filled with it.
    """
    edges = torch.nn.functional.pad(holes.int(), (1, 1)).diff()
    runs = list(zip((edges > 0).nonzero().flatten().tolist(), (edges < 0).nonzero().flatten().tolist(), strict=True))
    places: list[tuple[int, Tensor]] = []
    reach, half, count = 0, max(window // 2, 1), len(holes)
    for begin, end in runs:
        if begin == 0 and end == count:
            end = min(end, window)
        elif end - begin > half:  # what came before is drawn from its end on
            begin, end = (begin, begin + half) if begin else (end - half, end)
        start = max(0, min((begin + end - window) // 2, count - window))
        if start < reach or begin < start:
            continue
        inside = torch.zeros(count, dtype=torch.bool)
        inside[begin:end] = True
        for first, last in runs:
            if start <= first and last <= start + window:
                inside[first:last] = True
        places.append((start, inside[start : start + window]))
        reach = start + window
    return places


def _turns(line: Timeline, known: Tensor) -> list[Tensor]:
    """Which cells (N, F, L) count, known or drawn, in each of the turns that windows are filled in; in the last all.

    A model of rows with holes knows which of a row's cells were recorded, and may conclude from that: gusts are
    recorded where there are some, so a moment that is said to have all its features is a windy one. Where nothing is
    known it is therefore asked for what is mostly recorded first, as of any other moment, and for the rest given that.
    """
    mostly = torch.tensor([share <= 0.5 for share in line.lacking] or [True] * known.shape[1])
    first = known | (~known.any(1, keepdim=True) & mostly[:, None])
    everything = torch.ones_like(known)
    return [first, everything] if bool((first & ~known).any()) and not bool(first.all()) else [everything]


def _drawn(
    run: Run,
    line: Timeline,
    values: Tensor,
    first: Sequence[int],
    name: str,
    seed: int,
    steps: int | None,
) -> Tensor:
    """Windows (N, L, F) in data units with their NaN drawn: (N, L, F) float64."""
    given = run.transform.forward(values.transpose(1, 2).contiguous()).float()
    known = ~given.isnan()
    parts = dict(dated(run, len(given), line.window, first).parts)
    if LABEL in run.conditions and name:
        parts[LABEL] = run.conditions[LABEL].model(name, len(given), line.by.name if line.by else LABEL)
    if isinstance(run.denoiser, Filled):
        z = given
        for turn, seen in enumerate(_turns(line, known)):
            parts |= {GIVEN: told(z, known, run.learner.problem.correlation), SEEN: seen.float()}
            seeds = sample_seeds(len(given), another_seed(seed, turn) if turn else seed, None, None)
            asked = with_denoiser(run, OnSeen(run.denoiser))
            z = together(asked.draw(len(given), condition=Condition(parts), seeds=seeds, steps=steps), parts[GIVEN])
            known = seen
    else:
        z = inpaint(run, given, known, draws=1, seed=seed, steps=steps or 50).samples[:, 0]
    if not bool(z.isfinite().all()):
        raise InputError(
            "the draws are not finite: the series lies far outside the run's data, or the model has diverged."
        )
    return line.kept(run.transform.inverse(z.double()).transpose(1, 2))
