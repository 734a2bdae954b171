"""A run that begins with another: `ornstein train --from RUN new.csv`, `ornstein.fit(X, start=RUN)`."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from PIL import Image
from sure import Cli, there

import ornstein
from ornstein import InputError
from ornstein.experiment.build import load_data
from ornstein.experiment.cells import draw_rows, score
from ornstein.experiment.evaluate import evaluate
from ornstein.experiment.folder import read_experiment, read_weights
from ornstein.experiment.model import Model
from ornstein.experiment.run import Run
from ornstein.experiment.start import _data, going_on
from ornstein.experiment.train import train

TINY: dict[str, Any] = {
    "training.cpu": True, "training.precision": "float32", "batch_size": 16, "sampling.preview": 0
}  # fmt: skip
MLP: dict[str, Any] = {**TINY, "steps": 30, "net.width": 16, "net.depth": 1}
#: a step that changes nothing
STILL: dict[str, Any] = {"steps": 1, "lr": 1e-30}


def things(path: Path, seed: int = 0, n: int = 120, **other: Any) -> Path:
    dice = np.random.default_rng(seed)
    kind = dice.integers(0, 3, n)
    frame = pd.DataFrame({
        "kind": np.array(["red", "green", "blue"])[kind],
        "code": kind + 7,  # follows from the kind
        "price": dice.gamma(2.0 + seed, 50.0, n).round(2),
        "gone": np.where(dice.random(n) < 0.2, np.nan, dice.integers(0, 5, n)),
    }).assign(**other)  # fmt: skip
    frame.to_csv(path, index=False)
    return path


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("start")


@pytest.fixture(scope="module")
def old(place: Path) -> Run:
    return ornstein.fit(things(place / "old.csv"), folder=place / "old", **MLP).run


def drawn(run: Run) -> torch.Tensor:
    return torch.cat(list(draw_rows(run, 20, seed=3))).nan_to_num(-1.0)  # NaN is not itself


def as_before(run: Run, old: Run) -> bool:
    """Whether a run's weights are to the bit the average that the old one draws with."""
    name = "ema-0.050.safetensors"
    one, two = read_weights(run.folder / name, run.folder), read_weights(old.folder / name, old.folder)
    return all(torch.equal(one[key], two[key]) for key in two)


def trained(asked: Any, folder: Path, resume: bool = False) -> Run:
    for _ in train(asked, folder, resume=resume, draws=False):
        pass
    return Run.load(folder)


# --- tables -----------------------------------------------------------------------------------------------------------


def test_a_step_that_changes_nothing_leaves_the_model_as_it_was(old: Run, place: Path, tmp_path: Path) -> None:
    new = things(tmp_path / "new.csv", 1)
    run = ornstein.fit(new, folder=tmp_path / "run", start=old, **STILL).run
    assert as_before(run, old)
    assert torch.equal(drawn(run), drawn(old))
    assert run.about["transform"] == old.about["transform"]
    assert [c["name"] for c in run.about["data"]["table"]] == ["kind", "code", "price", "gone"]
    assert run.about["data"]["sha256"] != old.about["data"]["sha256"]
    assert run.experiment.start == str(place / "old")
    assert "start" in run.about["reasons"]


def test_it_learns_the_new_data(old: Run, tmp_path: Path) -> None:
    new = things(tmp_path / "new.csv", 4)
    run = ornstein.fit(new, start=old, steps=150, lr=3e-3).run
    rows = load_data(run.experiment, run.about).test
    assert score(run, rows)[0].mean() > score(old, rows)[0].mean() + 0.1


def test_it_goes_on_bit_for_bit_and_is_judged_when_the_other_is_gone(place: Path, old: Run, tmp_path: Path) -> None:
    shutil.copytree(place / "old", tmp_path / "old")
    new = things(tmp_path / "new.csv", 1)
    changes = ["training.steps=6", "training.checkpoint_every=3"]
    whole = trained(going_on(tmp_path / "old", str(new), changes), tmp_path / "whole")
    asked = going_on(tmp_path / "old", str(new), [*changes[1:], "training.steps=3"])
    trained(asked, tmp_path / "half")
    shutil.rmtree(tmp_path / "old")
    half = trained(read_experiment(tmp_path / "half", changes), tmp_path / "half", resume=True)
    for name in ("model.safetensors", "ema-0.050.safetensors"):
        one, two = (read_weights(run.folder / name, run.folder) for run in (half, whole))
        assert all(torch.equal(one[key], two[key]) for key in two)
    assert load_data(half.experiment, half.about).fingerprint() == half.about["data"]
    assert Model(half).score_samples(pd.read_csv(new)).shape == (120,)


def test_a_run_that_never_saved_begins_again_with_the_other(place: Path, old: Run, tmp_path: Path) -> None:
    new = things(tmp_path / "new.csv", 1)
    asked = going_on(place / "old", str(new), ["training.steps=1", "training.lr=1e-30"])
    moments = train(asked, tmp_path / "run")
    next(moments)
    del moments  # which closes it
    shutil.rmtree(tmp_path / "run" / "checkpoints")
    for path in (tmp_path / "run").glob("*.safetensors"):
        path.unlink()
    assert as_before(trained(asked, tmp_path / "run", resume=True), old)


@pytest.mark.parametrize(
    ("other", "said"),
    [
        ({"kind": ["purple", *["red"] * 119], "code": 7}, "'purple' is not among the column's 3 words"),
        ({"code": 9}, "contradicts 'kind'"),
        ({"price": [np.nan, *[1.5] * 119]}, "'price' is empty in a row, but the run .* never seen it missing"),
        ({"price": "dear"}, "column 'price'"),
        ({"gone": "?!"}, "column 'gone'"),
    ],
)
def test_what_the_run_has_no_place_for_is_one_sentence(
    other: dict[str, Any], said: str, old: Run, tmp_path: Path
) -> None:
    new = things(tmp_path / "new.csv", 0, **other)
    for data in (new, pd.read_csv(new)):
        with pytest.raises(InputError, match=said) as error:
            ornstein.fit(data, start=old, **STILL)
        assert "\n" not in str(error.value)


def test_columns_may_be_more_and_values_beyond_but_not_fewer(old: Run, tmp_path: Path) -> None:
    frame = pd.read_csv(things(tmp_path / "new.csv", 1)).assign(extra=1)
    frame.loc[3, "price"] = 1e6
    model = ornstein.fit(frame, start=old, **STILL)
    assert load_data(model.run.experiment, model.run.about).note.count("beyond those that the run to go on knows") == 1
    assert "extra" not in model.sample(2, seed=0)
    with pytest.raises(InputError, match="no column 'price'"):
        ornstein.fit(frame.drop(columns="price"), start=old, **STILL)


def test_from_the_command_line(old: Run, place: Path, tmp_path: Path, cli: Cli) -> None:
    new = things(tmp_path / "new.csv", 1)
    words = ["train", "--from", str(place / "old"), str(new), "--out", str(tmp_path / "run"), "training.steps=2"]
    answer = cli(*words)
    assert answer.code == 0, answer.err
    assert "whose weights, types and scales these are" in answer.out
    about = yaml.safe_load((tmp_path / "run" / "experiment.yaml").read_text())
    assert about["start"] == str(place / "old")
    assert about["net"] == yaml.safe_load((place / "old" / "experiment.yaml").read_text())["net"]
    assert cli("train", "--resume", str(tmp_path / "run"), "training.steps=3").code == 0
    assert cli("train", "--from", str(place / "old"), "--resume", str(tmp_path / "run")).code == 2
    assert cli("train", "--from", str(place / "old")).code == 2
    refused = cli("train", "--from", str(tmp_path / "nowhere"), str(new))
    assert (refused.code, "nowhere" in refused.err) == (2, True)
    refused = cli("train", "--from", str(place / "old"), str(new), "net.width=8", "--out", str(tmp_path / "other"))
    assert (refused.code, "weights of another network" in refused.err) == (2, True)
    assert not (tmp_path / "other" / "run.yaml").exists()


# --- arrays and pictures ----------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("brief_reports")
def test_arrays_keep_scale_spread_and_layout(tmp_path: Path) -> None:
    dice = np.random.default_rng(0)
    x = dice.normal(5.0, 2.0, (60, 12, 3)).astype(np.float32)  # time, features
    small: dict[str, Any] = {
        "net.channels": 8,
        "net.attention": [],
        "steps": 4,
        "net.multipliers": [1],
        "predicts": "edm",
    }
    old = ornstein.fit(x, folder=tmp_path / "old", **{**TINY, **small})
    y = 3 * x - 20
    new = ornstein.fit(y, start=old, **STILL)
    assert np.array_equal(new.sample(3, seed=0, steps=3), old.sample(3, seed=0, steps=3))
    assert new.run.about["data"]["sigma_data"] == old.run.about["data"]["sigma_data"]
    assert np.array_equal(new.score_samples(y[:2]), old.score_samples(y[:2]))
    np.save(tmp_path / "y.npy", y)
    place = tmp_path / "new"
    read = ornstein.fit(tmp_path / "y.npy", folder=place, start=tmp_path / "old", **STILL).run
    assert torch.equal(read.draw(2, seed=0, steps=3), old.run.draw(2, seed=0, steps=3))
    shutil.rmtree(tmp_path / "old")
    assert evaluate(ornstein.load(place), n=12, steps=2, page=False) is not None
    with pytest.raises(InputError, match="was trained on arrays of 3x12"):
        ornstein.fit(np.ones((9, 6, 3), np.float32) * dice.random((9, 6, 3)), start=place, **STILL)


def photos(place: Path, *classes: str, side: int = 12, most: int = 256) -> Path:
    for i, name in enumerate(classes * 6):
        (place / name).mkdir(parents=True, exist_ok=True)
        values = np.random.default_rng(i).integers(0, most, (side, side, 3), np.uint8)
        Image.fromarray(values).save(place / name / f"{i}.png")
    return place


def test_new_pictures_are_read_as_the_old_ones_were() -> None:
    new, grey = {"name": "images", "path": "x"}, {"shape": [1, 4, 6], "classes": []}
    assert _data(new, {"name": "digits"}, grey) == {"mode": "L", "name": "images", "path": "x", "size": [4, 6]}
    named = {"shape": [3, 4, 4], "classes": ["cat"]}
    expected = {"mode": "RGB", "name": "images", "path": "x", "flip": True, "size": [4, 4], "label": "folder"}
    assert _data(new, {"name": "images", "path": "y", "flip": True}, named) == expected


def test_pictures_keep_their_classes_and_their_size(tmp_path: Path) -> None:
    small: dict[str, Any] = {"net.channels": 8, "net.attention": [], "steps": 4, "net.multipliers": [1]}
    old = ornstein.fit(photos(tmp_path / "one", "cat", "dog"), folder=tmp_path / "old", **{**TINY, **small})
    new = ornstein.fit(photos(tmp_path / "two", "dog", side=20, most=9), start=tmp_path / "old", **STILL)
    assert new.run.classes == ("cat", "dog")
    assert np.array_equal(new.sample(2, label="dog", seed=0, steps=3), old.sample(2, label="dog", seed=0, steps=3))
    data = load_data(new.run.experiment, new.run.about)
    assert set(there(data.train_labels).tolist()) == {1}
    assert data.shape == (3, 12, 12)
    with pytest.raises(InputError, match="'owl' is no class of the run"):
        ornstein.fit(photos(tmp_path / "three", "dog", "owl"), start=tmp_path / "old", **STILL)
    with pytest.raises(InputError, match="no label, which the run"):
        ornstein.fit([Image.new("RGB", (12, 12), (i, 0, 0)) for i in range(5)], start=tmp_path / "old", **STILL)
    given = ornstein.fit(
        [np.full((12, 12, 3), i, np.uint8) for i in range(6)], ["dog"] * 6, start=tmp_path / "old", **STILL
    )
    assert given.sample(1, label="cat", seed=0)[0].shape == (12, 12, 3)
