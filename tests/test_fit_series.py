"""`ornstein.fit(X, data="series")`: series in memory, as by their path, and given back in the type of the data."""

import csv
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
import torch
from sure import Cli

import ornstein
from ornstein import InputError
from ornstein.core.condition import Condition
from ornstein.experiment.folder import read_experiment, read_weights
from ornstein.experiment.loglik import loglik, read
from ornstein.experiment.model import Model
from ornstein.experiment.series import complete, dated, timeline
from ornstein.experiment.series_files import save
from ornstein.experiment.train import train
from ornstein.likelihood import flow

SMALL: dict[str, Any] = {
    "data": "series", "data.window": 8, "steps": 3, "batch_size": 8, "training.cpu": True, "net.channels": 8,
    "net.multipliers": [1, 2], "sampling.steps": 2, "sampling.preview": 0,
}  # fmt: skip


def stations(hours: int = 400, names: str = "AB") -> pd.DataFrame:
    """Hourly rows of stations: a daily wave, a count, and their hour, which is a part of their date."""
    dice = np.random.default_rng(0)
    when = pd.date_range("2021-03-01", periods=hours, freq="h")
    parts = [
        pd.DataFrame(
            {
                "hour": when.hour,
                "station": name,
                "count": dice.poisson(2, hours),
                "warmth": (2 + 5 * np.sin(2 * np.pi * np.arange(hours) / 24) + 0.3 * dice.normal(size=hours)).round(2),
                "when": when,
            }
        )
        for name in names
    ]
    return pd.concat(parts, ignore_index=True)


DRAWN = ["station", "count", "warmth", "when"]


@pytest.fixture(scope="module")
def model() -> Model:
    return ornstein.fit(stations(), **SMALL)


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("series") / "stations.csv"
    stations().to_csv(place, index=False)
    return place


@pytest.fixture(scope="module")
def by_path(path: Path) -> Model:
    return ornstein.fit(path, **SMALL)


@pytest.mark.parametrize("made", [pd.DataFrame, pl.from_pandas, pa.Table.from_pandas])
def test_a_frame_is_learnt_as_its_file_is(made: Any, by_path: Model) -> None:
    """The same windows, told the same, and so the same weights; samples are frames of the same kind and types."""
    given = made(stations())
    mine, other = ornstein.fit(given, **SMALL), by_path
    assert mine.run.about["data"]["sha256"] == other.run.about["data"]["sha256"]
    one, two = (read_weights(m.run.folder / "model.safetensors", m.run.folder) for m in (mine, other))
    assert all(torch.equal(one[name], two[name]) for name in two)
    assert mine.run.about["reasons"]["preset"] == other.run.about["reasons"]["preset"]
    drawn = mine.sample(3, seed=0)
    assert type(drawn) is type(given)
    if isinstance(drawn, pl.DataFrame):
        assert drawn.schema == given.select(DRAWN).schema
    elif isinstance(drawn, pa.Table):
        assert drawn.schema.equals(given.select(DRAWN).schema)
    else:
        assert drawn.dtypes.to_dict() == given[DRAWN].dtypes.to_dict()


def test_windows_of_a_frame_have_their_dates_and_names(model: Model) -> None:
    drawn = model.sample(5, seed=1)
    assert list(drawn.columns) == DRAWN  # in the frame's order; the hour is part of the date
    assert len(drawn) == 5 * 8
    for k in range(5):
        window = drawn[8 * k : 8 * k + 8]
        assert (window["when"].diff().dropna() == pd.Timedelta(hours=1)).all()
        assert window["station"].nunique() == 1
    assert set(drawn["station"]) == {"A", "B"}
    assert (drawn["count"] >= 0).all()
    assert drawn.equals(model.sample(5, seed=1))
    assert not drawn.equals(model.sample(5, seed=2))
    # what is written beside the values is what they were drawn given
    first = ((drawn["when"][::8] - pd.Timestamp("2021-03-01")) / pd.Timedelta(hours=1)).astype(int)
    told = {
        **dated(model.run, 5, 8, list(first)).parts,
        "label": torch.tensor(["AB".index(x) for x in drawn["station"][::8]]),
    }
    values = timeline(model.run).kept(model.run.sample(5, seed=1, condition=Condition(told)))
    assert np.allclose(drawn[["count", "warmth"]], values.flatten(0, 1))
    assert set(model.sample(4, seed=0, label="B")["station"]) == {"B"}
    long = model.sample(1, seed=0, length=48)
    assert len(long) == long["when"].nunique() == 48


@pytest.mark.parametrize(
    ("said", "options"), [((), {}), (("--length", 48), {"length": 48}), (("--label", "B"), {"label": "B"})]
)
def test_the_command_writes_windows_as_a_frame_has_them(
    model: Model, cli: Cli, tmp_path: Path, said: tuple[Any, ...], options: dict[str, Any]
) -> None:
    answer = cli("sample", model.run.folder, "-n", 5, "--seed", 1, *said, "--out", tmp_path / "windows.csv")
    assert answer.code == 0, answer.err
    told = pd.read_csv(tmp_path / "windows.csv", parse_dates=["when"])
    assert list(told.columns) == ["when", "station", "count", "warmth"]  # as `impute` writes them
    drawn = model.sample(5, seed=1, **options)
    assert told["when"].tolist() == drawn["when"].tolist()
    assert told["station"].tolist() == drawn["station"].tolist()
    assert np.allclose(told[["count", "warmth"]], drawn[["count", "warmth"]])
    refused = cli("sample", model.run.folder, "--out", tmp_path / "windows.parquet")
    assert refused.code == 2
    assert ".csv (rows with dates)" in refused.err


def test_windows_of_a_path_are_the_columns_of_its_table(by_path: Model, cli: Cli, tmp_path: Path) -> None:
    said = by_path.sample(5, seed=1, length=48)
    answer = cli("sample", by_path.run.folder, "-n", 5, "--seed", 1, "--length", 48, "--out", tmp_path / "drawn.csv")
    assert answer.code == 0, answer.err
    with (tmp_path / "drawn.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert list(said) == ["when", "station", "count", "warmth"]
    assert {name: [row[name] for row in rows] for name in said} == said
    with pytest.raises(InputError, match="calendar"):
        by_path.sample(5, condition=Condition({"calendar": torch.zeros(5, 4, 8)}))


def test_holes_of_a_frame_are_filled_as_those_of_its_file(model: Model, tmp_path: Path) -> None:
    given = stations(60).assign(note="kept")
    given.loc[20:25, "warmth"] = np.nan
    given.loc[70:72, "count"] = np.nan
    given["warmth"] += 0.12345  # of more decimals than the model's
    given = given.sample(frac=1, random_state=0)  # in any order
    filled = model.impute(given, 3, seed=4)
    assert filled.index.equals(given.index)
    assert list(filled.columns) == list(given.columns)
    assert not filled.isna().any().any()
    pd.testing.assert_frame_equal(filled.where(given.notna(), None), given.where(given.notna(), None))
    given.to_csv(tmp_path / "holes.csv", index=False)
    for one in complete(model.run, tmp_path / "holes.csv", draws=3, seed=4):
        mine = filled[filled["station"] == one.track.name].sort_values("when")
        assert np.allclose(mine[["count", "warmth"]].to_numpy(float), one.centre.numpy(), atol=1e-9)


@pytest.mark.parametrize("made", [pd.DataFrame, pl.from_pandas, pa.Table.from_pandas])
def test_moments_that_a_frame_skips_become_rows_as_those_of_its_file_do(
    made: Any, model: Model, tmp_path: Path
) -> None:
    whole = stations(60).assign(note="kept")
    whole.loc[20:22, "warmth"] = np.nan
    skipped = whole.drop(index=[40, 41, 42, 80]).reset_index(drop=True)
    filled = model.impute(made(skipped), 3, seed=4)
    assert type(filled) is type(made(skipped))
    rows = filled if isinstance(filled, pd.DataFrame) else filled.to_pandas()
    assert rows.index.equals(whole.index)
    # where they belong, with nothing but their moment, their name and what was drawn
    assert rows[["station", "when"]].equals(whole[["station", "when"]])
    assert list(rows.index[rows["note"].isna()]) == [40, 41, 42, 80]
    assert rows["count"].dtype == whole["count"].dtype
    there = rows.drop(index=[40, 41, 42, 80]).reset_index(drop=True)[["count", "warmth"]]
    assert there.where(skipped["warmth"].notna()).equals(skipped[["count", "warmth"]].where(skipped["warmth"].notna()))
    skipped.to_csv(tmp_path / "skipped.csv", index=False)
    found = complete(model.run, tmp_path / "skipped.csv", draws=3, seed=4)
    assert np.allclose(rows[["count", "warmth"]], torch.cat([one.centre for one in found]), atol=1e-9)
    words = model.impute(tmp_path / "skipped.csv", 3, seed=4)
    assert [float(word) for word in words["warmth"]] == [round(value, 2) for value in rows["warmth"]]
    shuffled = model.impute(made(skipped.sample(frac=1, random_state=0)), 3, seed=4)
    again = (shuffled if isinstance(shuffled, pd.DataFrame) else shuffled.to_pandas()).sort_values(["station", "when"])
    assert again.reset_index(drop=True)[["count", "warmth"]].equals(rows[["count", "warmth"]])


def test_data_of_working_days_or_opening_hours_keep_their_own_rows(cli: Cli, tmp_path: Path) -> None:
    dice = np.random.default_rng(0)
    days = pd.bdate_range("2021-03-01", periods=300)
    prices = pd.DataFrame({"day": days, "price": dice.normal(100, 3, 300).round(2)})
    model = ornstein.fit(prices, **SMALL)
    for given in (prices.drop(index=[30, 31]).reset_index(drop=True), prices[:8]):  # a feast; two weeks
        given = given.copy()
        given.loc[5, "price"] = np.nan
        filled = model.impute(given, 3, seed=1)
        assert filled["day"].equals(given["day"])
        assert filled["price"].notna().all()
        given.to_csv(tmp_path / "prices.csv", index=False)
        words = model.impute(tmp_path / "prices.csv", 3, seed=1)
        assert words["day"] == [str(day.date()) for day in given["day"]]
        found = complete(model.run, tmp_path / "prices.csv", draws=3, seed=1)
        save(model.run, found, tmp_path / "filled.csv")
        assert len((tmp_path / "filled.csv").read_text().splitlines()) == 1 + len(given)
        assert np.load(tmp_path / "filled.npz")["draws"].shape == (3, len(given), 1)
    for before, wanted in (
        (False, pd.bdate_range(days[-1], periods=8)[1:]),
        (True, pd.bdate_range(end=days[0], periods=8)[:-1]),
    ):
        for given in (prices, prices[:2] if before else prices[-2:]):  # few rows do not say which days there are
            assert list(model.forecast(given, 7, before=before, draws=2)["day"]) == list(wanted)
        how: dict[str, Any] = {"before" if before else "after": 7}
        save(model.run, complete(model.run, prices, **how, draws=2), tmp_path / "next.csv")
        assert list(pd.read_csv(tmp_path / "next.csv", parse_dates=["day"])["day"]) == list(wanted)
        assert np.load(tmp_path / "next.npz")["draws"].shape == (2, 7, 1)
    assert (model.sample(3, seed=0)["day"].dt.day_of_week < 5).all()
    assert cli("sample", model.run.folder, "-n", 3, "--out", tmp_path / "drawn.csv").code == 0
    assert (pd.read_csv(tmp_path / "drawn.csv", parse_dates=["day"])["day"].dt.day_of_week < 5).all()
    whole = pd.DataFrame({"day": pd.date_range("2021-03-01", periods=300), "price": prices["price"]})
    assert len(ornstein.fit(whole, **SMALL).impute(whole.drop(index=30), 3)) == 300  # here it is a gap
    when = pd.date_range("2021-03-01", periods=24 * 30, freq="h")
    visits = pd.DataFrame({"when": when, "visits": dice.poisson(9, len(when))})[when.hour.isin(range(8, 18))]
    model = ornstein.fit(visits, **SMALL)
    assert len(model.impute(visits[visits["when"].dt.day != 5], 3)) == 290
    nexts = model.forecast(visits, 12, draws=2)["when"]
    assert list(nexts.dt.hour) == [*range(8, 18), 8, 9]
    assert set(nexts.dt.day) == {31, 1}


def test_a_forecast_of_a_frame_goes_on_from_each_of_its_series(model: Model, path: Path) -> None:
    for before, when in ((False, "2021-03-17 16:00"), (True, "2021-02-28 19:00")):
        found = model.forecast(stations(), 5, before=before, draws=3, seed=2)
        assert list(found.columns) == DRAWN
        assert found.dtypes.to_dict() == stations()[DRAWN].dtypes.to_dict()
        assert list(found["station"]) == ["A"] * 5 + ["B"] * 5
        assert list(found["when"]) == 2 * list(pd.date_range(when, periods=5, freq="h"))
        how: dict[str, Any] = {"before" if before else "after": 5}
        after = complete(model.run, path, **how, draws=3, seed=2)
        assert np.allclose(found["warmth"], torch.cat([one.centre[:, 1] for one in after]), atol=0.0051)


@pytest.mark.parametrize("shape", [(300,), (300, 2), (2, 300, 3)])
@pytest.mark.parametrize("kind", [np.float64, torch.float32])
def test_an_array_is_series_and_comes_back_as_windows(shape: tuple[int, ...], kind: Any) -> None:
    x: Any = np.random.default_rng(0).normal(size=shape).cumsum(-1 if len(shape) == 1 else -2)
    x = torch.from_numpy(x).to(kind) if isinstance(kind, torch.dtype) else x
    model = ornstein.fit(x, **SMALL)
    features = shape[2:] if len(shape) == 3 else shape[1:]
    drawn = model.sample(3, seed=0)
    assert (type(drawn), drawn.dtype, tuple(drawn.shape)) == (type(x), x.dtype, (3, 8, *features))
    nexts = model.forecast(x, 7, draws=2)
    assert (type(nexts), nexts.dtype) == (type(x), x.dtype)
    assert tuple(nexts.shape) == (*shape[:-1][: len(shape) - 2], 7, *features)
    holed = x.clone() if isinstance(x, torch.Tensor) else x.copy()
    holed[..., 100:104] = torch.nan
    if len(shape) > 1:
        holed[..., 40:44, :1] = torch.nan
    filled, known = model.impute(holed, 2), holed == holed
    assert (type(filled), filled.dtype, filled.shape) == (type(x), x.dtype, x.shape)
    assert bool((filled[known] == holed[known]).all())
    assert bool((filled == filled).all())
    assert bool((holed != holed).any())  # the caller's own is left alone


def test_a_path_is_filled_and_forecast_as_the_command_line_writes_it(model: Model, tmp_path: Path, cli: Cli) -> None:
    """Columns of words, dates, names and other columns among them; of an .npy an array."""
    given = stations(60).assign(note="kept")
    given.loc[20:25, "warmth"] = np.nan
    given = given.drop(index=[40, 41])
    given.to_csv(tmp_path / "holes.csv", index=False)
    run = model.save(tmp_path / "run")
    for place in (tmp_path / "holes.csv", str(tmp_path / "holes.csv")):
        assert cli("impute", run, place, "--out", tmp_path / "x.csv", "-n", 3, "--seed", 4, "--force").code == 0
        assert cli("forecast", run, place, "--steps", 3, "-n", 3, "--out", tmp_path / "y.csv", "--force").code == 0
        for name, mine in (("x", model.impute(place, 3, seed=4)), ("y", model.forecast(place, 3, draws=3))):
            with (tmp_path / f"{name}.csv").open() as file:
                rows = list(csv.DictReader(file))
            assert mine == {column: [row[column] for row in rows] for column in mine}
            assert set(rows[0]) - set(mine) == {f"{x}_{end}" for x in ("count", "warmth") for end in ("low", "high")}
    line = ornstein.fit(np.random.default_rng(0).normal(size=300).cumsum(), **SMALL)
    holed = np.where(np.arange(60) % 20 < 3, np.nan, np.arange(60.0))
    np.save(tmp_path / "line.npy", holed)
    assert np.array_equal(line.impute(tmp_path / "line.npy", 2), line.impute(holed, 2))
    assert np.array_equal(line.forecast(tmp_path / "line.npy", 4, draws=2), line.forecast(holed, 4, draws=2))
    for call, match in (
        (lambda: model.forecast("no.csv", 3), r"X='no\.csv' is not a file"),
        (lambda: model.score_samples(tmp_path / "no.csv"), r"X='.*no\.csv' is not a file"),
        (lambda: model.score_samples(stations(5)), "the frame has series of up to 5 steps; a window of .* has 8"),
        (lambda: model.impute(given, 0), "draws=0 must be a whole number, at least 1"),
        (lambda: model.forecast(given, 3, draws=0), "draws=0 must be a whole number, at least 1"),
    ):
        with pytest.raises(InputError, match=match):
            call()
    assert "n=0 must be" in cli("forecast", run, place, "--steps", 3, "-n", 0).err


def test_dates_beside_windows_are_those_they_were_drawn_given(model: Model) -> None:
    """A calendar of the caller's says no dates, so a frame has none to show; values alone are drawn given it."""
    told = dated(model.run, 2, 8, [5, 17])
    for condition in (told, dict(told.parts)):
        with pytest.raises(InputError, match=r"condition='calendar' says no dates.*model\.run\.sample"):
            model.sample(2, condition=condition)
    assert model.run.sample(2, condition=told, seed=0).shape == (2, 8, 2)
    assert set(model.sample(2, condition={"label": "B"}, seed=0)["station"]) == {"B"}


def test_what_is_drawn_has_the_values_that_the_series_can_have(model: Model, tmp_path: Path) -> None:
    """Whole counts of at least 0 and hundredths, in every way to draw but the raw one."""
    drawn = model.run.sample(40, seed=0)
    raw = model.run.sample(40, seed=0, raw=True)
    assert bool((raw[..., 0] < 0).any())
    assert bool((raw[..., 0] != raw[..., 0].round()).any())
    assert torch.equal(drawn[..., 0], raw[..., 0].round().clamp(min=0))
    assert torch.equal(drawn[..., 1], (raw[..., 1].double() * 100).round().div(100).float())
    model.run.save_arrays(model.run.draw(40, seed=0), Condition(), 0, tmp_path / "x.npz")
    assert np.array_equal(np.load(tmp_path / "x.npz")["samples"], drawn.numpy())


def test_windows_of_a_frame_are_scored_side_by_side(model: Model, path: Path) -> None:
    stations(70).to_csv(path.with_name("some.csv"), index=False)
    mine, other = read(model.run, stations(70)), read(model.run, path.with_name("some.csv"))
    assert torch.equal(mine.x, other.x)
    assert mine.files == other.files
    assert mine.x.shape == (16, 2, 8)  # of each station eight windows, and six steps are left


def test_windows_of_a_frame_have_the_likelihood_of_their_values(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    """By few steps, which do for comparing: each window's own, the less the farther it lies from the data."""
    monkeypatch.setattr(flow, "STEPS", 3)
    monkeypatch.setattr(flow, "DOUBLINGS", 0)
    given = stations(20, "A")
    score = model.score_samples(given)
    windows = torch.from_numpy(given[["count", "warmth"]].to_numpy(np.float32)[:16].reshape(2, 8, 2)).mT
    assert np.allclose(score, loglik(model.run, windows).found.log_prob.numpy(), rtol=1e-6)
    given.loc[8:15, "warmth"] += 60
    far = model.score_samples(given)
    assert far[0] == score[0]
    assert far[1] < score[1] - 100


def test_a_run_on_series_in_memory_goes_on_on_others_in_memory_and_by_path(model: Model, tmp_path: Path) -> None:
    new = stations(300, "B")
    rest: dict[str, Any] = {"steps": 2, "training.lr": 1e-30}
    frame = ornstein.fit(new, start=model, folder=tmp_path / "new", **rest)
    new.to_csv(tmp_path / "new.csv", index=False)
    file = ornstein.fit(tmp_path / "new.csv", start=model, data="series", **rest)
    for one in (frame, file):
        assert one.run.about["data"]["series"] == model.run.about["data"]["series"]
        assert one.run.transform == model.run.transform
        assert one.run.experiment.data["name"] == ("kept" if one is frame else "series")
    assert frame.run.about["data"]["sha256"] == file.run.about["data"]["sha256"]
    assert set(frame.run.load_data().conditions["label"].train.tolist()) == {1}  # B, as in the old run
    for _ in train(read_experiment(tmp_path / "new", ["training.steps=3"]), tmp_path / "new", resume=True):
        pass
    assert list(frame.sample(1, label="B").columns) == DRAWN


@pytest.mark.parametrize(
    ("X", "options", "match"),
    [
        (stations(), {"y": [1]}, r"y goes with examples.*data\.by"),
        (stations().set_index("when"), {}, r"in its index.*reset_index"),
        (stations().astype({"when": str}).set_index("when"), {}, r"in its index.*reset_index"),
        (stations(), {"data": "serie"}, "data='serie' is not known; did you mean 'series'"),
        (stations(), {"data.widow": 3}, r"data\.widow is not known"),
        (stations(), {"data.time": "warmth"}, r"data\.time='warmth' is a column of kind"),
        (stations()[["station", "when"]], {}, "the frame has no column of numbers"),
        (stations(10), {}, "shorten data.window"),
        (stations().assign(when=lambda t: t["when"].where(t.index != 7)), {}, "the frame: row 8 has no when"),
        (np.zeros((2, 2, 2, 2)), {}, "the array has 4 axes; series are"),
        (np.array([1.0, np.inf] * 50), {}, "infinite"),
        (np.array(["a"] * 50), {}, "no array of numbers"),
    ],
)
def test_what_is_no_series_in_memory_is_one_sentence(X: Any, options: dict[str, Any], match: str) -> None:
    with pytest.raises(InputError, match=match) as error:
        ornstein.fit(X, **{**SMALL, **options})
    assert "\n" not in str(error.value)


def test_what_does_not_fit_a_model_of_series_is_refused(model: Model) -> None:
    twice = pd.concat([stations(60), stations(60)[5:6]], ignore_index=True)
    twice.loc[5, "warmth"] = np.nan
    for call, match in (
        (lambda: model.impute(twice), "holes in row 5, one of several"),
        (lambda: model.impute(np.zeros((50, 3))), "3 features; this run has 2"),
        (lambda: model.impute(stations(60).drop(columns="warmth")), "no column 'warmth'"),
        (lambda: model.forecast(stations(60), 0), "steps=0 must be a whole number"),
        (lambda: model.forecast(stations(60).assign(station="C"), 3), "'C'"),
        (lambda: model.impute(stations(60).assign(warmth=np.nan, count=np.nan)), "has no value at all"),
        (lambda: model.sample(2, length=17), "length=17 must be a multiple of 2"),
        (lambda: ornstein.fit(stations().drop(columns="warmth"), start=model, steps=2), "no column 'warmth'"),
    ):
        with pytest.raises(InputError, match=match):
            call()
    few: dict[str, Any] = {"steps": 2, "net.width": 8, "net.depth": 1}
    plain = ornstein.fit(np.random.default_rng(0).normal(size=(60, 2)), **few)
    with pytest.raises(InputError, match="series come from data=series"):
        plain.forecast(np.zeros((30, 2)), 3)
