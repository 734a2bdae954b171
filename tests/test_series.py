"""Series in time: windows, gaps, the calendar; filled, forecast and drawn longer than trained."""

import csv
import dataclasses
import math
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sure import Cli
from torch import Tensor

import ornstein
from ornstein.core.condition import Condition
from ornstein.core.denoiser import Denoiser
from ornstein.core.gaps import Filled
from ornstein.core.prediction import Prediction
from ornstein.core.process import Level, Process
from ornstein.data.series import Series
from ornstein.data.timeline import Timeline
from ornstein.data.tracks import Track, read
from ornstein.errors import InputError
from ornstein.experiment import loglik
from ornstein.experiment.config import Experiment
from ornstein.experiment.folder import read_weights
from ornstein.experiment.guide import with_denoiser
from ornstein.experiment.run import Run
from ornstein.experiment.series import _cover, complete, dated, forecast, impute_series, long, of_length
from ornstein.experiment.series_files import save
from ornstein.experiment.train import train
from ornstein.likelihood import LogLikelihood

START = datetime(2021, 3, 1, tzinfo=UTC)


def written(path: Path, hours: int = 1200, names: tuple[str, ...] = ("A", "B"), lost: tuple[int, int] = (0, 0)) -> Path:
    """Hourly rows of stations, a daily wave and its opposite; the hours from one to the other of `lost` have no row."""
    dice = np.random.default_rng(0)
    with path.open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["station", "hour", "when", "warmth", "rain"])
        for name in names:
            for hour in range(hours):
                wave = math.sin(2 * math.pi * hour / 24)
                values = f"{2 + 5 * wave + 0.3 * dice.normal():.2f}", f"{max(0.0, -wave + 0.3 * dice.normal()):.1f}"
                when = START + timedelta(hours=hour)
                if not lost[0] <= hour < lost[1]:
                    rows.writerow([name, when.hour, when.strftime("%Y-%m-%d %H:%M:%S"), *values])
    return path


def facts(path: Path, **arguments: Any) -> tuple[Any, Timeline]:
    data = Series(str(path), **arguments).load()
    assert data.timeline is not None
    return data, data.timeline


def test_windows_are_cut_in_time_and_none_crosses_the_split(tmp_path: Path) -> None:
    x = np.stack([np.arange(1000.0), -np.arange(1000.0)], 1)
    np.save(tmp_path / "x.npy", x)
    data, line = facts(tmp_path / "x.npy", window=40, stride=7)
    assert data.train.shape[1:] == data.test.shape[1:] == (2, 40)
    steps = data.train[:, 0]
    assert torch.equal(steps.diff(dim=1), torch.ones_like(steps[:, 1:]))
    assert torch.equal(steps[:, 0].diff(), torch.full_like(steps[1:, 0], 7))
    assert float(data.train[:, 0].max()) < 900 <= float(data.test[:, 0].min())
    assert float(data.test[:, 0].max()) == 999  # up to the very last step
    assert line.time is None
    assert data.layout.axes == "NLC"


def test_dates_names_gaps_and_parts_of_dates(tmp_path: Path) -> None:
    data, line = facts(written(tmp_path / "x.csv", lost=(100, 108)), window=48, stride=1)
    assert [feature.name for feature in line.features] == ["warmth", "rain"]  # "hour" is a part of the date
    assert line.step == 3600
    assert line.by is not None
    assert set(data.classes) == {"A", "B"}
    window = data.train[100 - 24]
    assert bool(window[:, 24:32].isnan().all())
    assert not bool(window[:, :24].isnan().any())
    assert line.cycles == ("day", "week")  # of a year there are not two
    assert Timeline.from_dict(data.fingerprint()["series"]) == line
    phases = data.conditions["calendar"].train[5]
    hours = torch.arange(5, 53).double()
    assert torch.allclose(phases[0].double(), (2 * math.pi * hours / 24).cos(), atol=1e-4)
    assert torch.allclose(phases[1].double(), (2 * math.pi * hours / 24).sin(), atol=1e-4)
    assert line.least == (None, 0.0)  # rain is never below


def test_the_features_and_the_calendar_are_called_what_people_call_them(tmp_path: Path) -> None:
    path = written(tmp_path / "a.csv")
    said = facts(path)[0].describe()
    assert "calendar (4 numbers at each of 56 steps)" in said
    assert "outliers" not in said
    lines = path.read_text().splitlines()
    cells = lines[100].split(",")
    path.write_text("\n".join([*lines[:100], ",".join([*cells[:3], "9e4", cells[4]]), *lines[101:]]) + "\n")
    assert "outliers: 'warmth' reaches" in facts(path)[0].describe()
    np.save(tmp_path / "a.npy", np.where(np.arange(1200) == 99, 9e4, np.random.default_rng(0).normal(size=1200)))
    assert "outliers: channel 0 reaches" in Series(str(tmp_path / "a.npy")).load().describe()


def test_errors_of_arithmetic_are_no_decimals(tmp_path: Path) -> None:
    """Knots as miles an hour have five decimals, though many are written with sixteen digits; thirds have no end."""
    knots = np.random.default_rng(0).integers(0, 40, 1200)
    rows = [f"2021-{1 + i // 672:02d}-{1 + i // 24 % 28:02d} {i % 24:02d}:00" for i in range(1200)]
    winds = [k * 1.15078 for k in knots.tolist()]
    assert any(len(repr(wind)) > 15 for wind in winds)
    lines = [f"{when},{wind!r},{wind / 3!r}" for when, wind in zip(rows, winds, strict=True)]
    (tmp_path / "a.csv").write_text("\n".join(["when,wind,third", *lines]) + "\n")
    _, line = facts(tmp_path / "a.csv")
    assert [feature.decimals for feature in line.features] == [5, None]
    drawn = line.kept(torch.tensor([[12.345678912, 1 / 3]], dtype=torch.float64))
    assert line.features[0].render(drawn[:, 0].numpy()) == ["12.34568"]
    assert float(drawn[0, 1]) == 1 / 3
    np.save(tmp_path / "a.npy", np.array(winds)[:, None])
    assert facts(tmp_path / "a.npy")[1].features[0].decimals is None  # which nobody has written


def test_two_rows_at_one_moment_become_their_mean(tmp_path: Path) -> None:
    file = written(tmp_path / "x.csv", names=("A",))
    lines = file.read_text().splitlines()
    cells = lines[10].split(",")
    again = ",".join([*cells[:3], str(float(cells[3]) + 1), cells[4]])
    file.write_text("\n".join([*lines[:11], again, *lines[11:]]))
    data, _ = facts(file, window=48, stride=1, by="none")
    assert float(data.train[0, 0, 9]) == pytest.approx(float(cells[3]) + 0.5, abs=1e-5)
    assert "; 1 moment of several rows: their mean is taken;" in data.note


def test_a_value_counts_once_however_many_windows_it_is_in(tmp_path: Path) -> None:
    """The largest of few values is in many windows, and yet no bound of all; what many moments lie on is one."""
    dice = np.random.default_rng(0)
    damp = np.minimum(80 + 12 * dice.normal(size=300), 100)  # some a twentieth at 100
    np.save(tmp_path / "x.npy", np.stack([dice.normal(size=300), damp, dice.poisson(2, 300)], 1))
    _, line = facts(tmp_path / "x.npy", window=32)
    assert line.least == (None, 0.0, 0.0)
    assert line.most == (None, 100.0, None)


def test_months_are_steps(tmp_path: Path) -> None:
    file = tmp_path / "x.csv"
    rows = [f"{1990 + m // 12}-{m % 12 + 1:02}-01,{math.sin(m) + 3:.3f}" for m in range(360) if m != 7]
    file.write_text("\n".join(["month_of,sales", *rows]))
    data, line = facts(file, window=24)
    assert (line.months, line.step) == (1, 0)
    assert line.cycles == ("year",)
    assert bool(data.train[0, 0, 7].isnan())
    line.must_date(0, 12 * (10_000 - 1990), "steps=1")
    with pytest.raises(InputError, match="steps=1 leaves"):
        line.must_date(12 * (10_000 - 1990), 1, "steps=1")
    moments = line.seconds(0, 3).tolist()
    assert [datetime.fromtimestamp(s, UTC).strftime("%Y-%m-%d") for s in moments] == [
        "1990-01-01", "1990-02-01", "1990-03-01",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("rows", "arguments", "match"),
    [
        (["2021-01-01,1", "2021-01-02,2", "2021-01-03,3"], {}, "shorten data.window"),
        ([f"2021-01-{d:02} 00:00:00,{d}" for d in range(1, 29)] + ["2021-02-03 07:00:00,1"], {}, "row 29 lies between"),
        ([f"2021-01-{d:02},{d}" for d in range(1, 29)], {"time": "no"}, "data.time"),
        ([f"2021-01-{d:02},{d}" for d in range(1, 29)], {"columns": "when"}, "numbers"),
        ([f"2021-01-{d:02},{d}" for d in range(1, 29)], {"calendar": "moon"}, "calendar"),
        ([f"2021-01-{d:02},{d}" for d in range(1, 29)], {"window": 0}, "data.window=0"),
        ([f"2021-01-{d:02},{d}" for d in range(1, 29)], {"test_fraction": 1.5}, "test_fraction"),
    ],
)
def test_what_is_no_series_is_a_sentence(tmp_path: Path, rows: list[str], arguments: Any, match: str) -> None:
    file = tmp_path / "x.csv"
    file.write_text("\n".join(["when,value", *rows]))
    with pytest.raises(InputError, match=match):
        Series(str(file), **arguments).load()


def test_holes_are_covered_by_windows_that_do_not_overlap() -> None:
    dice = torch.Generator().manual_seed(0)
    for share in (0.01, 0.1, 0.5, 1.0):
        holes = torch.rand(500, generator=dice) < share
        holes[200:290] = True  # longer than a window
        left, turns = holes.clone(), 0
        while left.any():
            places = _cover(left, 64)
            assert places, "no progress"
            assert all(b - a >= 64 for (a, _), (b, _) in pairwise(places))
            for start, inside in places:
                assert bool(left[start : start + 64][inside].all())
                left[start : start + 64] &= ~inside
            turns += 1
        assert turns <= 500 // 32 + 2


@pytest.fixture(scope="module")
def stations(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A small model of a daily wave, trained for some seconds."""
    place = tmp_path_factory.mktemp("series")
    file = written(place / "stations.csv")
    changes = [
        f"data.path={file}",
        "data.window=48",
        "net={name: unet, channels: 16, multipliers: [1], blocks: 1, attention: [], dropout: 0, embedding: 32}",
        "training.steps=900",
        "training.batch_size=16",
        "training.lr=3e-3",
        "training.validate_every=900",
        "sampling.preview=4",
        "sampling.steps=12",
    ]
    for _ in train(Experiment.read("series", changes), place / "run", draws=False):
        pass
    return ornstein.load(place / "run")


def wave(first: int, count: int) -> Tensor:
    return 2 + 5 * (2 * math.pi * torch.arange(first, first + count).double() / 24).sin()


def test_a_gap_is_filled_from_what_is_known_which_stays(stations: Run) -> None:
    track = read(Timeline.from_dict(stations.about["data"]["series"]), stations.experiment.data["path"])[0]
    values = track.values[1100:1200].clone()
    truth = values.clone()
    values[40:52] = math.nan
    values[70:73, 1] = math.nan
    found = impute_series(stations, Track(track.name, 1100, values), draws=19, seed=1)
    known = ~values.isnan()
    assert torch.equal(found.draws[:, known], values[known].expand(19, -1))
    assert not found.draws.isnan().any()
    error = (found.centre[40:52, 0] - truth[40:52, 0]).abs().mean()
    line = torch.lerp(values[39, 0], values[52, 0], torch.linspace(0, 1, 14).double()[1:-1])
    assert error < 0.4 * (line - truth[40:52, 0]).abs().mean()
    low, high = found.interval
    assert bool((low[40:52] < high[40:52]).any())
    assert float(found.draws[..., 1].min()) >= 0  # rain never was below
    again = impute_series(stations, Track(track.name, 1100, values), draws=19, seed=1)
    assert torch.equal(found.draws, again.draws)


def test_a_table_is_scored_in_windows_that_lie_side_by_side(tmp_path: Path, stations: Run) -> None:
    """The run's own file among them: each is named by its series and first moment, and what fills none is counted."""
    line = Timeline.from_dict(stations.about["data"]["series"])
    file = written(tmp_path / "new.csv", hours=100)
    given = loglik.read(stations, file)
    assert given.note == "8 steps that fill no window were left out"
    tracks = read(line, file)
    for k, track in enumerate(tracks):
        assert torch.equal(given.x[2 * k : 2 * k + 2], track.values[:96].T.unflatten(1, (2, 48)).movedim(1, 0).float())
    days = ["2021-03-01 00:00:00", "2021-03-03 00:00:00"]
    assert given.files == [f"{name} {day}" for name in "AB" for day in days]
    assert given.labels == ["A", "A", "B", "B"]
    assert given.condition is not None
    assert set(given.condition.parts) == set(stations.conditions)
    assert torch.equal(given.condition.parts["calendar"][:2], dated(stations, 2, 48, [0, 48]).parts["calendar"])
    zero = torch.zeros(4, dtype=torch.float64)
    scored = loglik.Scores(given, LogLikelihood(zero, zero, zero, zero.long(), zero.long(), 96), None)
    assert scored.rows()[1]["window"] == "A 2021-03-03 00:00:00"
    assert loglik.read(stations, stations.experiment.data["path"]).x.shape == (50, 2, 48)
    with pytest.raises(InputError, match=r"up to 47 steps; a window of .* has 48"):
        loglik.read(stations, written(tmp_path / "short.csv", hours=47))


def test_what_a_file_says_comes_back_to_the_letter(tmp_path: Path, stations: Run) -> None:
    """Trailing zeros, signs and powers stay; what was drawn, or is a mean of two rows, is written the column's way."""
    spelled = ["+3.50", "3.5", "035e-1", "3.500", "4", " 4.25"]
    rows = list(csv.reader(written(tmp_path / "plain.csv", hours=60).open()))
    for i, row in enumerate(rows[1:]):
        row[3] = "" if 20 <= i < 24 else spelled[i % len(spelled)]
    rows.append([*rows[1][:3], "9.5", "1.0"])  # the first moment of A a second time
    with (tmp_path / "odd.csv").open("w", newline="") as file:
        csv.writer(file).writerows(rows)
    filled = complete(stations, tmp_path / "odd.csv", draws=3, steps=2)
    save(stations, filled, tmp_path / "filled.csv")
    back = list(csv.DictReader((tmp_path / "filled.csv").open()))
    assert len(back) == 120
    for i, (before, after) in enumerate(zip(rows[1:], back, strict=False)):
        assert (after["station"], after["when"]) == (before[0], before[2])
        if 20 <= i < 24:
            assert float(after["warmth_low"]) <= float(after["warmth"]) <= float(after["warmth_high"])
        elif i:
            assert [after[f"warmth{end}"] for end in ("", "_low", "_high")] == [before[3]] * 3
            assert after["rain"] == before[4]
        assert after[rows[0][1]] == (before[1] if i else "")  # no feature, and of the first moment there are two rows
    assert float(back[0]["warmth"]) == 6.5
    header = (tmp_path / "filled.csv").read_text().splitlines()[0].split(",")
    assert header[-1] == rows[0][1]


def test_the_holes_of_every_series_of_a_file_are_filled(stations: Run, tmp_path: Path) -> None:
    file = written(tmp_path / "holes.csv", hours=60, lost=(30, 34))
    found = complete(stations, file, draws=2, steps=3, seed=4)
    for one, track in zip(found, read(Timeline.from_dict(stations.about["data"]["series"]), file), strict=True):
        assert (one.track.name, one.draws.shape) == (track.name, (2, 60, 2))
        assert torch.equal(one.draws, impute_series(stations, track, draws=2, steps=3, seed=4).draws)
        assert not one.draws.isnan().any()


def test_a_forecast_and_a_backcast_keep_the_time_of_day(stations: Run, tmp_path: Path) -> None:
    track = read(Timeline.from_dict(stations.about["data"]["series"]), stations.experiment.data["path"])[0]
    for options, first in (({"after": 60}, 1200), ({"before": 60}, -60)):
        found = forecast(stations, track, draws=9, seed=0, **options)
        assert found.track.first == first
        assert found.draws.shape == (9, 60, 2)
        assert (found.centre[:, 0] - wave(first, 60)).abs().mean() < 1.5  # of a wave of height 5
    for end, beyond in (("9999-12-31 22:00:00", {"after": 3}), ("0001-01-01 01:00:00", {"before": 2})):
        (tmp_path / "end.csv").write_text(f"when,station,warmth,rain\n{end},A,1,2\n")
        said = " ".join(f"{'steps' if name == 'after' else name}={value}" for name, value in beyond.items())
        with pytest.raises(InputError, match=f"{said} leaves the calendar"):
            complete(stations, tmp_path / "end.csv", beyond.get("after", 0), beyond.get("before", 0))
    both = complete(stations, stations.experiment.data["path"], after=24, draws=3)
    save(stations, both, tmp_path / "next.csv")
    with (tmp_path / "next.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 48
    assert rows[0]["when"] == (START + timedelta(hours=1200)).strftime("%Y-%m-%d %H:%M:%S")
    assert [float(rows[5][f"warmth{end}"]) for end in ("_low", "", "_high")] == sorted(
        float(rows[5][f"warmth{end}"]) for end in ("_low", "", "_high")
    )
    assert np.load(tmp_path / "next.npz")["draws"].shape == (3, 48, 2)


def test_a_series_is_drawn_longer_than_it_was_trained(stations: Run) -> None:
    longer, condition = long(stations, 8, 240)
    drawn = longer.sample(8, condition=condition, seed=0)
    assert drawn.shape == (8, 240, 2)
    # ten days, each with its wave at the hour that the calendar says
    line = Timeline.from_dict(stations.about["data"]["series"])
    for k in range(8):
        first = k * int(365 * 86_400 / line.step) // 8
        assert np.corrcoef(drawn[k, :, 0], wave(first, 240))[0, 1] > 0.75  # without the calendar about 0
        # an hour and a half early or late would make it 0.92
        mean_day = np.asarray(drawn[k, :, 0]).reshape(10, 24).mean(0)
        assert np.corrcoef(mean_day, wave(first, 24))[0, 1] > 0.95
    for length in (0, True):
        with pytest.raises(InputError, match="length="):
            of_length(stations, length)
    assert dated(stations, 2, 96).parts["calendar"].shape == (2, 4, 96)


def test_what_does_not_fit_a_series_is_a_sentence(stations: Run, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"must be \(time, 2\)"):
        impute_series(stations, torch.zeros(50, 3))
    with pytest.raises(InputError, match="draws=1000000000000 takes"):
        impute_series(stations, torch.full((500, 2), math.nan), draws=10**12)
    with pytest.raises(InputError, match=r"length=1\d* takes"):
        of_length(stations, 10**9)
    with pytest.raises(InputError, match="not finite: the series lies far outside"):
        impute_series(stations, torch.tensor([[1e38, 1e38]] + [[math.nan, math.nan]] * 49))
    with pytest.raises(InputError, match="draws=0"):
        impute_series(stations, torch.zeros(50, 2), draws=0)
    with pytest.raises(InputError, match="infinite"):
        impute_series(stations, torch.full((50, 2), math.inf))
    np.savez(tmp_path / "empty.npz")
    with pytest.raises(InputError, match="holds nothing"):
        complete(stations, tmp_path / "empty.npz", after=5)
    other = written(tmp_path / "other.csv", names=("C", "D"))
    with pytest.raises(InputError, match="station"):
        complete(stations, other, after=5)
    with pytest.raises(InputError, match="after the series or before"):
        forecast(stations, Track("A", 0, torch.zeros(50, 2).double()))


@dataclass(frozen=True, eq=False)
class RecordedWhenHigh(Denoiser):
    """The law of two features, of which the first is 1 where the second was recorded, and -1 where it was not."""

    process: Process
    sigma_data: float = 1.0
    gaps: bool = True

    def predict(self, x: Tensor, level: Level, condition: Condition) -> Prediction:
        there = ~x[:, 1:].isnan()
        return Prediction(torch.cat([2.0 * there - 1.0, torch.full_like(x[:, 1:], 0.5)], 1), x, level)


def test_a_gap_is_not_filled_as_if_it_were_known_that_all_was_recorded(stations: Run) -> None:
    law = with_denoiser(stations, Filled(RecordedWhenHigh(stations.denoiser.process)))
    bare = dataclasses.replace(law.learner.problem, correlation=None)  # that law is of the values themselves
    law = dataclasses.replace(law, learner=dataclasses.replace(law.learner, problem=bare))
    values = torch.stack([wave(100, 60), torch.full((60,), torch.nan).double()], 1)  # no rain is known
    values[20:28] = torch.nan
    high, low = (law.transform.inverse(torch.full((1, 2, 1), end)).double()[0, 0, 0] for end in (1.0, -1.0))
    for lacking, filled in (((0.0, 0.8), low), ((0.0, 0.2), high)):
        facts = {**law.about["data"], "series": {**law.about["data"]["series"], "lacking": lacking}}
        run = dataclasses.replace(law, about={**law.about, "data": facts})
        found = impute_series(run, Track("A", 100, values), draws=2, steps=4).draws
        assert torch.allclose(found[:, 20:28, 0], filled.expand(2, 8), atol=0.006)
        assert torch.equal(found[:, :20, 0], values[:20, 0].expand(2, 20))
        assert torch.allclose(
            found[..., 1], law.transform.inverse(torch.full((1, 2, 1), 0.5)).double()[0, 1, 0], atol=0.06
        )


def test_how_often_a_feature_is_lacking_is_kept(tmp_path: Path) -> None:
    file = written(tmp_path / "a.csv", names=("A",), lost=(30, 50))
    lines = file.read_text().splitlines()
    gone = [line if k % 4 == 0 else line.rpartition(",")[0] + "," for k, line in enumerate(lines)]
    file.write_text("\n".join([lines[0], *gone[1:]]) + "\n")
    line = facts(file)[1]
    assert line.lacking == pytest.approx((0.0, 0.75), abs=0.02)
    assert Timeline.from_dict(line.to_dict()).lacking == line.lacking


def test_a_run_on_series_goes_on_with_others(cli: Cli, stations: Run, tmp_path: Path) -> None:
    """One of its stations alone, on later days: window, steps, calendar, scales and names are those of the old run."""
    new = written(tmp_path / "new.csv", hours=300, names=("B",), lost=(40, 60))
    answer = cli(
        "train", "--from", stations.folder, new, "training.steps=1", "training.lr=1e-30", "--out", tmp_path / "on"
    )
    assert answer.code == 0, answer
    on, line = ornstein.load(tmp_path / "on"), Timeline.from_dict(stations.about["data"]["series"])
    assert on.about["data"]["series"] == stations.about["data"]["series"]
    assert on.transform == stations.transform
    assert on.about["data"]["sigma_data"] == stations.about["data"]["sigma_data"]
    data = on.load_data()
    assert set(data.conditions["label"].train.tolist()) == {1}  # B, as in the old run
    assert torch.equal(data.train[0].T.nan_to_num(-9.0), read(line, new)[0].values[:48].float().nan_to_num(-9.0))
    one, two = (read_weights(run.folder / "ema-0.100.safetensors", run.folder) for run in (on, stations))
    assert all(torch.equal(one[name], two[name]) for name in two)
    other = written(tmp_path / "other.csv", hours=300, names=("C",))
    refused = cli("train", "--from", stations.folder, other, "--out", tmp_path / "no")
    assert refused.code == 2
    assert "station" in refused.err
    assert not (tmp_path / "no").exists()


def test_before_it_has_learned_a_run_fills_gaps_by_what_is_nearest(tmp_path: Path) -> None:
    """A network that says 0 draws white noise, so what is filled in is simple kriging's mean and spread."""
    dice, keep = np.random.default_rng(0), math.exp(-1 / 6)
    x = np.zeros((1500, 1))
    for k in range(1, len(x)):
        x[k] = keep * x[k - 1] + math.sqrt(1 - keep**2) * dice.normal()
    np.save(tmp_path / "x.npy", 10 + 3 * x)
    net = "net={name: unet, channels: 8, multipliers: [1, 2], blocks: 1, attention: [], embedding: 16}"
    little = ["training.steps=1", "training.lr=1e-12", "training.batch_size=2", "sampling.preview=0"]
    for _ in train(Experiment.read("series", [f"data.path={tmp_path / 'x.npy'}", net, *little]), tmp_path / "run"):
        pass
    run = ornstein.load(tmp_path / "run")
    with pytest.raises(InputError, match="length="):
        of_length(run, 241)  # whose network halves it
    values = torch.from_numpy(10 + 3 * x[:40]).clone()
    values[18:23] = math.nan
    draws = impute_series(run, values, draws=2000, steps=20).draws[:, 18:23, 0]
    away = torch.arange(1, 6).double()
    p, q, both = (-away / 6).exp(), (-(6 - away) / 6).exp(), math.exp(-1)
    a, b = (p - both * q) / (1 - both**2), (q - both * p) / (1 - both**2)
    left, right = (float(values[k, 0]) - 10 for k in (17, 23))
    # its correlations and moments are those of 1,350 steps of one series, of which each is known to some hundredths
    assert torch.allclose(draws.mean(0) - 10, a * left + b * right, atol=0.35)
    assert torch.allclose(draws.std(0), 3 * (1 - a * p - b * q).sqrt(), rtol=0.1)
