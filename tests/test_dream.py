"""`ornstein dream`: what is optimised comes to look like what was asked for; what cannot be is refused."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from sure import Cli, once
from torch import Tensor

from ornstein.distill.renderers import SHOWN, TURNED, VIEW, Volume, view_of
from ornstein.experiment.config import Experiment
from ornstein.experiment.dream import dreamed
from ornstein.experiment.run import Run
from ornstein.experiment.train import train
from ornstein.metrics import fit_classifier

#: a network is taught beside the pictures
SLOWER = pytest.param("vsd", 2.0, marks=pytest.mark.slow)


@pytest.fixture(scope="module")
def judge() -> Any:
    """Who tells digits apart: the share of pictures that show the digits asked for, by a classifier of real ones."""
    digits = Run.load("digits")
    data = digits.load_data()
    labels = data.train_condition.parts["label"]
    dice = torch.Generator().manual_seed(0)
    known = fit_classifier(digits.transform.forward(data.train).float(), labels, generator=dice, steps=200)
    test, named = digits.transform.forward(data.test).float(), data.test_condition.parts["label"]
    assert known.accuracy(test, named) > 0.93
    return lambda x, asked: known.accuracy(x.clamp(-1, 1), asked)


@pytest.mark.parametrize(("method", "scale"), [("annealed", 2.0), ("flow", 1.0), ("controlled", 2.0), SLOWER])
def test_pixels_become_the_digit_that_was_asked_for(judge: Any, method: str, scale: float) -> None:
    run, asked = Run.load("digits"), torch.arange(10).repeat(2)
    found = dreamed(run, "pixels", 20, method=method, scale=scale, label=asked, steps=60, lr=0.1)
    assert found.x.shape == (20, 1, 8, 8)
    assert judge(found.x, asked) >= 0.9
    assert found.losses[-10:].mean() < 0.5 * found.losses[:10].mean()


def test_strokes_become_the_digit_that_was_asked_for(judge: Any) -> None:
    run, asked = Run.load("digits"), torch.arange(10)
    how: dict[str, Any] = {"options": {"count": 8, "paper": -1.0}, "steps": 120, "scale": 2.0}
    found = dreamed(run, "strokes", 10, label=asked, **how)
    assert judge(found.x, asked) >= 0.7
    # of that which knows nothing of digits there is one in ten
    begun = dreamed(run, "strokes", 10, label=asked, **{**how, "steps": 1})
    assert judge(begun.x, asked) <= 0.4


def test_what_is_written_is_what_was_found(cli: Cli, tmp_path: Path) -> None:
    words = ["dream", "digits", "--label", 3, "--steps", 4, "-n", 2, "--film"]
    answer = cli(*words, "--as", "strokes", "--with", "count=5", "--with", "paper=-1", "--out", tmp_path / "three.png")
    assert answer.code == 0, answer
    assert "4 steps" in answer.out
    assert {path.name for path in tmp_path.iterdir()} == {f"three.{kind}" for kind in ("png", "npz", "svg", "gif")}
    with np.load(tmp_path / "three.npz") as arrays:
        assert arrays["points"].shape == (2, 5, 3, 2)
    assert (tmp_path / "three.svg").read_text().count("<path") == 10
    with Image.open(tmp_path / "three.gif") as film:
        assert film.n_frames == 5  # type: ignore[attr-defined]
    same = dreamed(Run.load("digits"), "strokes", 2, label=3, steps=4, options={"count": 5, "paper": -1.0})
    with np.load(tmp_path / "three.npz") as arrays:
        assert (arrays["points"] == same.parameters["points"].numpy()).all()


def solids(folder: Path) -> None:
    """A run of a few steps that is told from where a block was seen."""
    dice, eye = torch.Generator().manual_seed(0), Volume(side=8)
    azimuth = 6.28 * torch.rand(40, generator=dice)
    block = torch.zeros(8, 8, 8)
    block[2:6, 3:5, 1:7] = 20.0
    x = eye.seen(block, torch.zeros(3, 8, 8, 8), azimuth, 8).permute(0, 2, 3, 1)
    np.savez(folder.with_suffix(".npz"), x=((x + 1) * 127.5).round().byte().numpy(), view=view_of(azimuth).numpy())
    short = [f"data.path={folder.with_suffix('.npz')}", "data.condition=view", "training.steps=2", "training.warmup=1"]
    net = "net={name: unet, channels: 8, multipliers: [1], blocks: 1, attention: []}"
    for _ in train(
        Experiment.read("array", [*short, net, "training.batch_size=8", "sampling.preview=2"]), folder, draws=False
    ):
        pass


@pytest.fixture(scope="module")
def seen_round(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return once(tmp_path_factory, "solids", solids)


def test_a_volume_is_seen_from_all_round_and_the_run_is_told_from_where(
    cli: Cli, seen_round: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ["dream", seen_round, "--as", "volume", "-n", 3, "--steps", 2, "--film", "--with", "side=8"]
    answer = cli(*words, "--out", tmp_path / "block.png")
    assert answer.code == 0, answer
    with np.load(tmp_path / "block.npz") as arrays:
        assert arrays["density"].shape == (8, 8, 8)
        assert arrays["colour"].shape == (3, 8, 8, 8)
    with Image.open(tmp_path / "block.gif") as film:
        assert film.n_frames == TURNED  # type: ignore[attr-defined]
    run, told, drawn = Run.load(seen_round), [], []
    was = Volume.seen

    def seen(self: Volume, density: Tensor, colour: Tensor, azimuth: Tensor, side: int) -> Tensor:
        drawn.append(azimuth)
        return was(self, density, colour, azimuth, side)

    def net(x: Tensor, level: Tensor, parts: Any) -> Tensor:
        told.append(parts[VIEW])
        return torch.zeros_like(x)

    monkeypatch.setattr(Volume, "seen", seen)
    monkeypatch.setattr(run.denoiser.net, "forward", net)
    found = dreamed(run, "volume", 3, steps=2)
    assert found.x.shape == (SHOWN, 3, 8, 8)
    assert len(told) == 2
    for azimuth, standardised in zip(drawn, told, strict=False):
        own = run.conditions[VIEW].units(standardised)
        assert (own - view_of(azimuth)).abs().max() < 1e-5


def test_bad_input_is_refused_in_a_sentence(cli: Cli, seen_round: Path, tmp_path: Path) -> None:
    place = ["--out", tmp_path / "x.png"]
    for words, *said in (
        (["digits", "--as", "voxels", *place], "as='voxels'", "volume"),
        (["digits", "--as", "volume", *place], "as='volume'", "1x8x8"),
        (["moons", "--as", "strokes", *place], "strokes", "vectors"),
        (["adult", *place], "tables token by token"),
        (["digits", "--method", "sdx", *place], "method='sdx'", "sds"),
        (["digits", "--method", "particles", "--noise", "2", *place], "--noise '2'", "0.05,20"),
        (["digits", "--noise", "3,1", *place], "noise=(3.0, 1.0)"),
        (["digits", "--steps", 0, *place], "steps=0"),
        (["digits", "--lr", "nan", *place], "lr=nan"),
        (["digits", "-n", 0, *place], "n=0"),
        (["digits", "--label", "eleven", *place], "eleven"),
        (["digits", "--seed", 2**64, *place], "seed=18446744073709551616"),
        (["digits", "--steps", 10**6, *place], "steps=1000000"),
        (["digits", "--text", "three", *place], "text='three'"),
        (["digits", "--scale", 2, *place], "scale=2", "--label"),
        (["digits", "--with", "cuont=3", "--as", "strokes", *place], "cuont", "count"),
        (["digits", "--with", "count=0", "--as", "strokes", *place], "count=0"),
        (["digits", "--with", "name=volume", *place], "name"),
        (["digits", "--out", tmp_path / "x.gif"], "x.gif", ".png"),
        (["digits", "--as", "strokes", "--lr", 1000, "--steps", 9, *place], "not finite"),
        (["digits", "--lr", 1e4, *place], "lr=10000"),
        ([seen_round, "--as", "volume", "--scale", 2, *place], "scale=2"),
    ):
        answer = cli("dream", *words)
        assert answer.code == 2, (words, answer)
        assert "Traceback" not in answer.err
        for word in said:
            assert word in answer.err, (words, answer)
    assert list(tmp_path.iterdir()) == []
