"""`ornstein.fit`: data in memory go in, and the like of them comes out."""

from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
import torch
from PIL import Image

import ornstein
from ornstein import InputError
from ornstein.data.kept import PLACE
from ornstein.experiment import own
from ornstein.experiment.budget import in_time
from ornstein.experiment.build import load_data
from ornstein.experiment.calibrate import within
from ornstein.experiment.cells import draw_rows, score
from ornstein.experiment.config import Experiment
from ornstein.experiment.evaluate import evaluate
from ornstein.experiment.folder import read_experiment, read_weights
from ornstein.experiment.given import picture_values, taken
from ornstein.experiment.loglik import loglik
from ornstein.experiment.model import Model
from ornstein.experiment.rows import write_rows
from ornstein.experiment.train import train
from ornstein.likelihood import flow

TINY: dict[str, Any] = {"steps": 3, "batch_size": 16, "training.cpu": True, "training.precision": "float32"}
MLP = {**TINY, "net.width": 16, "net.depth": 1}
UNET = {**TINY, "net.channels": 8, "net.attention": [], "sampling.steps": 2}


def vectors(n: int = 60, dtype: Any = np.float64) -> np.ndarray:
    x = np.random.default_rng(0).normal([1000.0, -3.0], [30.0, 0.01], (n, 2))
    return x.astype(dtype)


def things(n: int = 90) -> pd.DataFrame:
    dice = np.random.default_rng(1)
    kind = dice.integers(0, 3, n)
    return pd.DataFrame(
        {
            "kind": pd.Categorical.from_codes(kind, ["red", "green", "blue"]),
            "count": pd.array([None if i % 9 == 0 else int(v) for i, v in enumerate(dice.integers(0, 9, n))], "Int64"),
            "price": dice.gamma(2.0, 50.0, n).round(2),
            "member": dice.random(n) < 0.3,
            "when": [datetime(2021, 3, 1) + timedelta(days=int(d)) for d in dice.integers(0, 400, n)],
            "word": [("up", "down")[int(k) % 2] for k in kind],
        },
        index=np.arange(n) + 100,
    )


@pytest.fixture(scope="module")
def table() -> Model:
    return ornstein.fit(things(), seed=1, **MLP)


# --- the caller's own type --------------------------------------------------------------------------------------------


def test_a_frame_of_pandas_comes_back_with_its_types_and_order(table: Model) -> None:
    given, drawn = things(), table.sample(40, seed=0)
    assert isinstance(drawn, pd.DataFrame)
    assert list(drawn.columns) == list(given.columns)
    assert drawn.dtypes.to_dict() == given.dtypes.to_dict()
    assert list(drawn["kind"].cat.categories) == ["red", "green", "blue"]  # equal types may have them in another order
    assert set(drawn["kind"]) <= {"red", "green", "blue"}
    assert (drawn["price"].round(2) == drawn["price"]).all()
    assert drawn.equals(table.sample(50, seed=0).head(40))
    assert not drawn.equals(table.sample(40, seed=1))
    assert not table.sample(40).equals(table.sample(40))  # no seed: others each time
    assert set(table.sample(20, seed=2, where="kind=red")["kind"]) == {"red"}


@pytest.mark.parametrize("made", [pl.from_pandas, pa.Table.from_pandas])
def test_other_frames_come_back_as_what_they_were(made: Any) -> None:
    given = made(things().reset_index(drop=True))
    drawn = ornstein.fit(given, **MLP).sample(5, seed=0)
    assert type(drawn) is type(given)
    assert drawn.schema == given.schema if isinstance(given, pl.DataFrame) else drawn.schema.equals(given.schema)


def test_holes_of_a_frame_are_filled_and_nothing_else_is_touched(table: Model) -> None:
    given = things().iloc[:12].assign(note="kept")
    given["odd"] = given["price"] + 0.12345  # of which the model knows nothing
    given.loc[100, "price"] = np.nan
    given.loc[101, "kind"] = None
    given.loc[102, "price"] = 12.34567  # of more decimals than the model's
    filled = table.impute(given, 5)
    assert filled.index.equals(given.index)
    assert filled.dtypes.to_dict() == given.dtypes.to_dict()
    assert not filled[things().columns].isna().any().any()
    pd.testing.assert_frame_equal(filled.where(given.notna(), None), given.where(given.notna(), None))
    assert filled.loc[102, "price"] == 12.34567
    scores = table.score_samples(given)
    assert scores.shape == (12,)
    assert np.isfinite(scores).all()


@pytest.mark.parametrize("dtype", [np.float64, np.float32, np.int16])
def test_an_array_comes_back_with_its_type(dtype: Any) -> None:
    model = ornstein.fit(vectors(dtype=dtype) if dtype != np.int16 else vectors().round().astype(dtype), **MLP)
    drawn = model.sample(50, seed=0)
    assert type(drawn) is np.ndarray
    assert (drawn.dtype, drawn.shape) == (np.dtype(dtype), (50, 2))
    assert abs(float(drawn[:, 0].mean()) - 1000) < 200  # in its own units
    assert model.score_samples(vectors(7, dtype)).shape == (7,)


def test_bytes_and_truths_stay_what_they_are() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (20, 8, 6, 3), np.uint8)  # channels last
    drawn = ornstein.fit(pixels, **UNET).sample(3, seed=0)
    assert (drawn.dtype, drawn.shape) == (np.uint8, (3, 8, 6, 3))
    truths = np.random.default_rng(0).random((30, 4)) < 0.5
    assert ornstein.fit(truths, **MLP).sample(3, seed=0).dtype == bool


def test_a_tensor_comes_back_as_one() -> None:
    x = torch.randn(30, 3, 16, generator=torch.Generator().manual_seed(0))  # series of three features
    drawn = ornstein.fit(x, **UNET).sample(4, seed=0)
    assert (drawn.dtype, drawn.shape) == (x.dtype, (4, 3, 16))
    line = torch.arange(40, dtype=torch.int64)
    assert ornstein.fit(line, **MLP).sample(4, seed=0).dtype == torch.int64
    assert ornstein.fit(line, **MLP).sample(4, seed=0).shape == (4,)


def test_pictures_come_back_as_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(flow, "STEPS", 8)  # scores are of a shape here, not near anything
    monkeypatch.setattr(flow, "DOUBLINGS", 0)
    dice = np.random.default_rng(0)
    photos = [Image.fromarray(dice.integers(0, 256, (h, 20, 3), np.uint8)) for h in (16, 18, 20, 17, 30)]
    labels = ["cat", "dog", "cat", "dog", "cat"]
    model = ornstein.fit(photos, labels, **UNET)
    drawn = model.sample(2, label="dog", seed=0)
    assert all(isinstance(x, Image.Image) for x in drawn)
    assert [(x.size, x.mode) for x in drawn] == [((16, 16), "RGB")] * 2  # their median, in eights
    assert model.run.classes == ("cat", "dog")
    assert "data.size" in model.run.about["reasons"]
    assert photos[0].size == (20, 16)  # untouched
    assert model.score_samples(photos).shape == (5,)
    grey = ornstein.fit([np.asarray(x.convert("L").resize((8, 8))) for x in photos], **UNET).sample(1, seed=0)
    assert (grey[0].shape, grey[0].dtype) == ((8, 8), np.uint8)
    clear = [np.dstack([np.asarray(x.resize((8, 8))), np.full((8, 8), 99, np.uint8)]) for x in photos]
    kept = ornstein.fit(clear, **{**UNET, "data.mode": "RGBA"})
    assert (kept.sample(1, seed=0)[0].shape, kept.score_samples(clear[:1]).shape) == ((8, 8, 4), (1,))
    values, _, reasons = picture_values(clear, {"background": "black"}, None)
    assert "5 of 5 transparent, laid on black" in reasons["data"]
    assert np.abs(values[0] - clear[0][..., :3].transpose(2, 0, 1) * (99 / 255)).max() <= 1


def test_a_path_is_as_good(tmp_path: Path) -> None:
    things().to_csv(tmp_path / "t.csv", index=False)
    drawn = ornstein.fit(tmp_path / "t.csv", **MLP).sample(3, seed=0)
    assert list(drawn) == list(things().columns)
    assert all(isinstance(word, str) for word in drawn["price"])
    np.save(tmp_path / "x.npy", vectors())
    assert ornstein.fit(str(tmp_path / "x.npy"), **MLP).sample(3, seed=0).shape == (3, 2)


def test_a_path_is_filled_and_scored_as_what_lies_there(table: Model, tmp_path: Path) -> None:
    """As text or as a Path: a table comes back as its columns of words, an array as one; "test" is the run's own."""
    given = things().iloc[1:9].assign(note="kept")
    given.loc[101, "price"] = np.nan
    given.loc[102, "kind"] = None
    given.to_csv(tmp_path / "t.csv", index=False, date_format="%Y-%m-%d %H:%M:%S")
    filled, frame = table.impute(str(tmp_path / "t.csv"), 3, seed=2), table.impute(given, 3, seed=2)
    assert list(filled) == list(given.columns)
    written = (tmp_path / "t.csv").read_text().splitlines()[1:]
    for row, line in enumerate(written[2:], 2):
        assert ",".join(words[row] for words in filled.values()) == line
    assert (float(filled["price"][0]), filled["kind"][1]) == (frame["price"][101], frame["kind"][102])
    assert np.array_equal(table.score_samples(tmp_path / "t.csv"), table.score_samples(given))
    assert np.array_equal(table.score_samples("test"), score(table.run, table.run.load_data().test)[0])
    model, holed = ornstein.fit(vectors(), **MLP), vectors(6)
    holed[[0, 3], [1, 0]] = np.nan
    np.save(tmp_path / "x.npy", holed)
    for place in (tmp_path / "x.npy", str(tmp_path / "x.npy")):
        assert np.array_equal(model.impute(place, 3), model.impute(holed, 3))
    np.save(tmp_path / "x.npy", vectors(6))
    assert np.array_equal(model.score_samples(tmp_path / "x.npy"), model.score_samples(vectors(6)))
    for call, match in (
        (lambda: table.impute(tmp_path / "no.csv"), r"X='.*no\.csv' is not a file"),
        (lambda: model.score_samples("no.npy"), r"X='no\.npy' is not a file"),
        (lambda: table.impute(np.zeros((3, 6))), "X is of type ndarray; give a data frame, or the path of a table"),
    ):
        with pytest.raises(InputError, match=match):
            call()


@pytest.mark.parametrize("zone", [None, "Europe/Berlin"])
@pytest.mark.parametrize("made", [pd.DataFrame, pl.from_pandas, pa.Table.from_pandas])
def test_moments_at_midnight_stay_so_and_are_dates_in_files(made: Any, zone: str | None, tmp_path: Path) -> None:
    """In summer and in winter, for a model of a frame as of its file, and whichever of them is filled."""
    given = things()[["price", "when"]].reset_index(drop=True)
    given["when"] = given["when"].dt.tz_localize(zone)
    model = ornstein.fit(made(given), **MLP)
    assert model.run.types[1].format == "%Y-%m-%d"
    holed = given.copy()
    holed.loc[3:9, "when"] = pd.NaT
    for frame in (model.sample(30, seed=0), model.impute(made(holed), 3)):
        rows = frame if isinstance(frame, pd.DataFrame) else frame.to_pandas()
        assert rows["when"].dt.tz == given["when"].dt.tz
        assert (rows["when"].dt.normalize() == rows["when"]).all()
        assert rows["when"].notna().all()
    assert rows["when"][10:].astype(given["when"].dtype).equals(given["when"][10:])
    holed["price"] = holed["price"].where(holed.index > 1)
    holed.to_csv(tmp_path / "t.csv", index=False, date_format="%Y-%m-%d")
    for path in (tmp_path / "t.csv", tmp_path / "dotted.csv"):
        of_file = ornstein.fit(path, **MLP) if path.exists() else None
        if of_file is None:
            given.to_csv(path, index=False, date_format="%d.%m.%Y")
            of_file = ornstein.fit(path, **MLP)
        filled = of_file.impute(made(holed), 3)
        rows = filled if isinstance(filled, pd.DataFrame) else filled.to_pandas()
        assert (rows["when"].dt.normalize() == rows["when"]).all()
    words = model.impute(tmp_path / "t.csv", 3)["when"]
    assert words[10:] == [str(day.date()) for day in given["when"][10:]]


@pytest.mark.parametrize("nothing", [None, np.nan])
def test_columns_without_any_value_get_the_type_that_they_were_learnt_with(table: Model, nothing: Any) -> None:
    """As an empty column is added to have it filled."""
    given = things().drop(columns=["kind", "when", "price", "count"]).head(6)
    filled = table.impute(given.assign(price=nothing, kind=nothing, when=nothing, count=nothing), 3)
    assert filled[["price", "when"]].dtypes.to_dict() == things()[["price", "when"]].dtypes.to_dict()
    assert filled.index.equals(given.index)
    assert filled["count"].dtype.kind in "iu"
    assert set(filled["kind"]) <= {"red", "green", "blue"}


def test_an_index_that_names_rows_is_left_out_and_said_to_be(table: Model) -> None:
    given = things().reset_index(drop=True)
    for index, said in ((given["when"], "(when)"), (list(map(str, range(90))), "(0, ...)")):
        named = given.set_index(pd.Index(index)).drop(columns="when")
        with pytest.warns(UserWarning, match="makes it a column") as told:
            model = ornstein.fit(named, **MLP)
        assert f"without its index {said}; X.reset_index() makes it a column" in str(told[0].message)
        assert Path(told[0].filename) == Path(__file__)
        assert f"index {said}" in repr(model)
        assert model.sample(3, seed=0).index.equals(pd.RangeIndex(3))
        assert model.impute(named.head(3)).index.equals(named.index[:3])
    assert "index" not in repr(table)  # whole numbers without a name


def test_rows_drawn_by_a_run_on_parquet_have_its_types(tmp_path: Path) -> None:
    given = things().assign(when=things()["when"].dt.tz_localize("UTC"))
    given.astype({"count": "Int32"}).to_parquet(tmp_path / "t.parquet", index=False)
    run = ornstein.fit(tmp_path / "t.parquet", **MLP).run
    assert write_rows(run, tmp_path / "new.parquet", draw_rows(run, 20, seed=0)) == 20
    assert pd.read_parquet(tmp_path / "new.parquet").dtypes.equals(pd.read_parquet(tmp_path / "t.parquet").dtypes)
    (tmp_path / "t.parquet").unlink()  # then those that suit what its columns are
    write_rows(run, tmp_path / "other.parquet", draw_rows(run, 20, seed=0))
    other = pd.read_parquet(tmp_path / "other.parquet")
    assert other["member"].dtype == bool
    assert other["price"].equals(pd.read_parquet(tmp_path / "new.parquet")["price"])


def test_a_column_is_told_what_it_is_by_name() -> None:
    given = things()
    said: tuple[dict[str, Any], ...] = ({"data.types.price": "category"}, {"data.types": {"price": "category"}})
    one, two = (ornstein.fit(given, **MLP, **types) for types in said)
    assert one.run.types == two.run.types
    assert one.run.types[2].kind == "category"


def test_holes_of_an_array_are_filled() -> None:
    model = ornstein.fit(vectors(), **MLP)
    given = vectors(6)
    given[[0, 3], [1, 0]] = np.nan
    filled = model.impute(given, 3)
    assert np.array_equal(filled[~np.isnan(given)], given[~np.isnan(given)])
    assert np.isfinite(filled).all()
    assert np.isnan(given[0, 1])  # the caller's own is left alone
    assert np.array_equal(model.impute(filled), filled)
    with pytest.raises(InputError, match="was not trained on data with gaps"):
        model.score_samples(given)


def test_examples_with_holes_are_scored_by_what_is_there() -> None:
    whole = vectors()
    holed = whole.copy()
    holed[::4, 1] = np.nan
    model = ornstein.fit(holed, **MLP)
    other = whole[:8].copy()
    other[::4, 1] = np.nan
    found = model.score_samples(other)
    assert np.array_equal(found, loglik(model.run, torch.from_numpy(other), reference=0).found.log_prob.numpy())
    other[:, 0] = 1300  # ten deviations away
    assert (model.score_samples(other) < found.min() - 10).all()


# --- the run ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["frame", "array"])
@pytest.mark.usefixtures("brief_reports")
def test_a_run_of_data_in_memory_goes_on_bit_for_bit_and_is_judged(kind: str, tmp_path: Path) -> None:
    data = things() if kind == "frame" else vectors()
    how = {**MLP, "sampling.preview": 0 if kind == "frame" else 4}
    whole = ornstein.fit(data, folder=tmp_path / "whole", **{**how, "steps": 6})
    ornstein.fit(data, folder=tmp_path / "half", **how)
    (tmp_path / "half").rename(tmp_path / "moved")  # its data move with it
    place = tmp_path / "moved"
    for _ in train(read_experiment(place, ["training.steps=6"]), place, resume=True):
        pass
    for name in ("model.safetensors", "ema-0.050.safetensors"):
        one, two = read_weights(place / name, place), read_weights(tmp_path / "whole" / name, tmp_path / "whole")
        assert all(torch.equal(one[key], two[key]) for key in two)
    run = ornstein.load(place)
    assert load_data(run.experiment).fingerprint() == run.about["data"]
    if kind == "array":
        assert loglik(run, "test", count=2).found.log_prob.shape == (2,)
        assert evaluate(run, n=20, steps=2, page=False) is not None
    assert (tmp_path / "whole" / "samples" / "latest.png").exists() == (kind == "array")
    assert str(whole.sample(3, seed=0)) == str(Model(ornstein.load(place), whole.like).sample(3, seed=0))


def test_a_run_without_a_folder_goes_with_its_model(tmp_path: Path) -> None:
    model = ornstein.fit(vectors(), **MLP)
    place, drawn = model.run.folder, model.sample(3, seed=0)
    assert not list(place.rglob("*.png"))  # which nobody would see
    kept = model.save(tmp_path / "kept")
    with pytest.raises(InputError, match="is there already"):
        model.save(kept)
    del model
    assert not place.exists()
    run = ornstein.load(kept)
    assert np.array_equal(run.sample(3, seed=0).double().numpy(), drawn)
    (kept / PLACE).unlink()
    with pytest.raises(InputError, match=r"data\.path=.*examples.safetensors"):
        load_data(read_experiment(kept))


def test_a_folder_that_is_in_use_is_left_alone(tmp_path: Path) -> None:
    ornstein.fit(vectors(), folder=tmp_path / "run", **MLP)
    before = (tmp_path / "run" / PLACE).read_bytes()
    with pytest.raises(InputError, match="holds a run already"):
        ornstein.fit(vectors(40), folder=tmp_path / "run", **MLP)
    assert (tmp_path / "run" / PLACE).read_bytes() == before
    (tmp_path / "mine" / PLACE).parent.mkdir(parents=True)
    (tmp_path / "mine" / PLACE).write_bytes(b"mine")
    with pytest.raises(InputError, match="write over"):
        ornstein.fit(vectors(), folder=tmp_path / "mine", **MLP)
    assert (tmp_path / "mine" / PLACE).read_bytes() == b"mine"


@pytest.mark.parametrize(
    ("X", "options", "match"),
    [
        ({"a": 1}, {}, "X is of type dict"),
        ([[1, 2], [3]], {}, "X is of type list"),
        (np.array(["a", "b", "c"]), {}, "no array of numbers"),
        (vectors(2), {}, "at least 3"),
        (vectors(), {"stepz": 3}, "stepz is no key"),
        (vectors(), {"net.widht": 3}, "did you mean 'width'"),
        (vectors(), {"data.key": "x"}, "data.key is not known of data in memory"),
        (vectors(), {"data.layout": "NCHW"}, "names 4 axes"),
        (vectors(), {"steps": object()}, "training.steps="),
        (vectors(), {"y": [1, 2]}, "'y'"),
        (np.array([[1.0, np.inf]] * 5), {}, "infinite"),
        (np.full((20, 2), np.nan), {}, "no value at all, only NaN"),
        (np.where(np.arange(20)[:, None] == 8, np.nan, vectors(20)), {"data.test_fraction": 0.5}, "without any value"),
        (np.zeros((4, 2, 2, 2, 2, 2)) + np.arange(4).reshape(4, 1, 1, 1, 1, 1), {}, "up to three axes"),
        ([np.zeros((4, 4), np.uint8), "no"], {}, r"X\[1\] is of type str"),
        ("nowhere.csv", {}, "nowhere.csv"),
        ("nowhere.csv", {"y": [1]}, "y goes with data in memory"),
        (vectors(), {"data": "text"}, "data='text' is of a file; give its path"),
        (things(), {"y": [1]}, "y goes with arrays"),
        (things(), {"data.types": {"nosuch": "category"}}, "nosuch"),
    ],
)
def test_what_cannot_be_is_one_sentence(X: Any, options: dict[str, Any], match: str) -> None:
    with pytest.raises(InputError, match=match) as error:
        ornstein.fit(X, **{**MLP, **options})
    assert "\n" not in str(error.value)


def test_what_does_not_fit_the_model_is_refused(table: Model) -> None:
    model = ornstein.fit(vectors(), **MLP)
    for wrong in (np.zeros((3, 5)), np.zeros((3, 2, 2, 2))):
        with pytest.raises(InputError, match="shape"):
            model.score_samples(wrong)
    with pytest.raises(InputError, match="purple"):
        table.score_samples(things().assign(kind="purple"))
    with pytest.raises(InputError, match="draws=0"):
        model.impute(vectors(), 0)
    with pytest.raises(InputError, match="n=0"):
        table.sample(0)


@pytest.mark.parametrize("made", [pd.DataFrame, pl.from_pandas, pa.Table.from_pandas])
def test_what_else_data_in_memory_may_be_is_said_with_a_call_that_can_be_copied(made: Any) -> None:
    """The sentence is that of a file; the model shows it, and the call is taken as it stands."""
    days = pd.DataFrame({"when": pd.date_range("2021-03-01", periods=1200, freq="h"), "warmth": vectors(1200)[:, 0]})
    line, volumes = np.arange(400.0), np.random.default_rng(0).normal(size=(12, 5, 8, 8))
    cases = ((made(days), MLP, "series"), (line, MLP, "series"), (volumes, {**UNET, "data.test_fraction": 0.2}, "NDHW"))
    for X, how, else_ in cases[: 1 if made is not pd.DataFrame else None]:
        data, _, reasons = taken(X, None, {k[5:]: v for k, v in how.items() if k.startswith("data.")}, None)
        assert data.timeline is None
        call = reasons["data"].partition(" use ornstein.fit(X, ")[2].removesuffix(")")
        told = eval(f"dict({call})")  # the caller's own words
        assert list(told.values()) == [else_]
        again = taken(X, None, {k[5:]: v for k, v in told.items() if k != "data"}, None, told.get("data"))
        assert "data" not in again[2]
        assert again[0].kind == "array"
    assert "data" not in taken(made(things()), None, {}, None)[2]


def test_a_model_shows_what_was_chosen_for_its_data() -> None:
    days = pd.DataFrame({"when": pd.date_range("2021-03-01", periods=60, freq="h"), "warmth": vectors()[:, 0]})
    said = str(ornstein.fit(days, **MLP)).splitlines()
    assert said[0].startswith("data     frame: 54 tables")
    hint = "rows that need not follow each other; if by 'when' they do, use ornstein.fit(X, data='series')"
    assert f"chosen   data: table, of {hint}" in said


def test_minutes_stand_in_the_place_of_steps(tmp_path: Path) -> None:
    """As many steps as that takes, but never more than the data bear; what is written down has steps alone."""
    few: dict[str, Any] = {"net.width": 8, "net.depth": 1, "training.batch_size": 8, "training.validate_every": 1000}
    short = ornstein.fit(vectors(40), minutes=0.03, folder=tmp_path / "run", **few)
    training, reasons = short.run.experiment.training, short.run.experiment.reasons
    assert training.minutes is None
    assert reasons["training.steps"].startswith(f"{training.steps:,}: about 0.03 minutes")
    words = ["training.minutes=60", *(f"{key}={value}" for key, value in few.items())]
    given = {"name": "kept", "path": str(tmp_path / "run" / PLACE)}
    long = Experiment.read(own.of_shape(given, 40, (2,), "vector", ""), words)
    data = load_data(long)
    assert 1 <= training.steps < long.training.steps == in_time(long, data).training.steps
    assert "40 examples are seen 400 times" in in_time(long, data).reasons["training.steps"]
    asked = Experiment.read("digits", ["training.minutes=2", "training.validate_every=10"])
    assert (
        within(asked, 0.1, 1.0).training.steps == 600
    )  # a tenth of a second each, and as much for its share of a picture
    assert Experiment.read("digits", ["training.minutes=2", "training.steps=7"]).training.steps == 7
    with pytest.raises(InputError, match=r"go on with more training\.steps"):
        list(train(asked, tmp_path / "run", resume=True))
    with pytest.raises(InputError, match=r"training\.minutes=0"):
        ornstein.fit(vectors(40), minutes=0)
