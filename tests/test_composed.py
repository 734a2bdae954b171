"""Every composed run by every verb: each works, or says in one sentence why it cannot."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from sure import Cli, once
from test_captions import pictures

import ornstein
from ornstein.experiment.config import Experiment
from ornstein.experiment.folder import read_metrics
from ornstein.experiment.train import train

FEW = ["training.steps=4", "training.batch_size=8", "training.threads=1", "training.precision=float32",
       "training.validate_every=4", "sampling.precision=float32", "sampling.ema=0"]  # fmt: skip
NET = ["net.channels=8", "net.multipliers=[1]", "net.blocks=1", "net.attention=[8]", "net.embedding=8",
       "sampling.steps=2"]  # fmt: skip
#: how each kind of run is trained on pictures of 8x8 with captions, beside where they lie
RUNS: dict[str, list[str]] = {
    "codec": ["preset=autoencoder", "net.channels=8", "net.factor=2", "net.latent=2"],
    "latent": ["preset=latent", "data.codec={codec}", *NET],
    "cascade": ["preset=cascade", *NET],
    "experts": ["preset=experts", *NET],
    "prior": ["preset=prior", "learner.channels=8", "learner.width=16", "learner.prior_steps=2", *NET],
}
#: what each verb is asked for, beside the run
ASKED: dict[str, list[Any]] = {
    "sample": ["-n", 2, "--text", "red, on the left", "--scale", 2, "--film", "--out", "{here}/a.png"],
    "inpaint": ["--input", "{here}/hole.npy", "-n", 2, "--steps", 2, "--method", "dps", "--out", "{here}/b.png"],
    "restore": ["--operator", "downsample", "--with", "by=2", "--input", "{here}/one.png", "--clean", "-n", 2,
                "--steps", 2, "--method", "dps", "--out", "{here}/c.png"],
    "interpolate": ["--from", 0, "--to", "{here}/one.png", "-n", 3, "--steps", 2, "--out", "{here}/d.png"],
    "loglik": ["test", "-n", 1, "--reference", 0, "--out", "{here}/e.csv"],
    "evaluate": ["-n", 8],
    "doctor": [],
    "impute": ["{here}/hole.npy", "-n", 2, "--out", "{here}/f.npz"],
    "tune": ["--steps", 2],
    "distill": ["--steps", 1, "--out", "{here}/student", "training.steps=1"],
    "translate": ["--input", "{here}/one.png"],
    "forecast": ["{here}/hole.npy", "--steps", 2],
    "info": [],
}  # fmt: skip
#: of pictures none goes: what each kind of run says to a verb, in words; it answers all others
OF_OTHERS = {"translate": "is no bridge", "forecast": "series"}
REFUSED: dict[str, dict[str, str]] = {
    "codec": {verb: "codec" for verb in ASKED if verb not in ("info", "evaluate", "doctor")} | OF_OTHERS,
    "latent": OF_OTHERS,
    "cascade": OF_OTHERS
    | dict.fromkeys(["interpolate", "loglik", "tune"], "stage by stage")
    | {"restore": "says nothing of a coarse picture", "distill": "whose learner is denoiser"},
    "experts": OF_OTHERS | {"distill": "whose learner is denoiser"},
    "prior": OF_OTHERS | {"distill": "whose learner is denoiser", "loglik": "draws an embedding first"},
}
#: what `info` says of each
TOLD = {
    "codec": "latents 2x4x4",
    "latent": "PSNR",
    "cascade": "4x4, then 8x8",
    "experts": "3 networks, each of an interval",
    "prior": "an embedding of 64 numbers",
}
#: those that a table of all runs takes seconds each for
LONG = ("restore", "interpolate", "loglik", "evaluate", "doctor", "impute", "tune", "distill")
TABLE = [
    pytest.param(name, verb, marks=[pytest.mark.slow] * (verb in LONG and verb not in REFUSED[name]))
    for name in RUNS
    for verb in ASKED
]


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return pictures(once(tmp_path_factory, "composed-photos", lambda folder: folder.mkdir()) / "photos")


@pytest.fixture(scope="module")
def composed(tmp_path_factory: pytest.TempPathFactory, photos: Path) -> Callable[[str], Path]:
    """A run of a kind, made when it is first asked for."""

    def made(name: str) -> Path:
        def make(folder: Path) -> None:
            of = "data.of" if name == "latent" else "data"
            words = [word.format(codec=made("codec")) if "{codec}" in word else word for word in RUNS[name]]
            where = [f"{of}.path={photos}", f"{of}.captions=captions.csv"]
            for _ in train(Experiment.read("images", [*where, *words, *FEW]), folder / name, draws=False):
                pass

        return once(tmp_path_factory, f"composed-{name}", make) / name

    return made


@pytest.mark.parametrize(("name", "verb"), TABLE)
def test_a_run_answers_a_verb_or_says_why_not(
    cli: Cli, composed: Callable[[str], Path], photos: Path, tmp_path: Path, name: str, verb: str
) -> None:
    shutil.copy(photos / "00.png", tmp_path / "one.png")
    given = np.asarray(Image.open(photos / "00.png")).astype(np.float32).transpose(2, 0, 1).copy()
    given[:, :, 4:] = np.nan
    np.save(tmp_path / "hole.npy", given[None])
    run = composed(name)
    if verb in LONG and verb not in REFUSED[name]:  # which writes into the run
        run = Path(shutil.copytree(run, tmp_path / name))
    answer = cli(verb, run, *(str(word).format(here=tmp_path) for word in ASKED[verb]))
    if verb in REFUSED[name]:
        assert answer.code == 2, answer
        assert REFUSED[name][verb] in answer.err
        assert answer.err.strip().startswith("ornstein: ")
        assert len(answer.err.strip().splitlines()) == 1
        return
    assert answer.code in ((0, 1) if verb == "doctor" else (0,)), answer  # 1: something is wrong with so short a run
    if verb == "info":
        assert TOLD[name] in answer.out
    if "--film" in ASKED[verb]:
        with Image.open(tmp_path / "a.gif") as film:
            assert film.n_frames >= 2  # type: ignore[attr-defined]  # those that are alike are one
    if verb == "inpaint":
        found = np.load(tmp_path / "b.npz")["samples"]
        assert found.shape[:2] == (1, 2)
        assert (found.reshape(2, *given.shape)[:, :, :, :4] == given[:, :, :4]).all()


def test_latents_go_on_with_other_pictures_in_the_words_of_the_first(
    cli: Cli, composed: Callable[[str], Path], photos: Path, tmp_path: Path
) -> None:
    """By the codec that lies in the run, the one that it was trained with being gone."""
    run = Path(shutil.copytree(composed("latent"), tmp_path / "latent"))
    text = (run / "experiment.yaml").read_text()
    (run / "experiment.yaml").write_text(text.replace(str(composed("codec")), "/nowhere/codec"))
    assert cli("info", run, "--accept").code == 0
    fewer = tmp_path / "fewer"
    fewer.mkdir()
    lines = ["file,caption"]
    for i in range(24):
        shutil.copy(photos / f"{i:02}.png", fewer)
        lines.append(f'{i:02}.png,"red, {"unheard" * (i < 4)} on the {"left" if i % 2 else "right"}"')
    (fewer / "captions.csv").write_text("\n".join(lines))
    answer = cli(
        "train", "--from", run, fewer, "data.captions=captions.csv", "training.steps=2", "--out", tmp_path / "on"
    )
    assert answer.code == 0, answer
    before, after = ornstein.load(run), ornstein.load(tmp_path / "on")
    assert after.conditions == before.conditions  # its words, and no others
    assert after.load_data().sigma_data == before.load_data().sigma_data
    assert len(after.load_data().train) + len(after.load_data().test) == 24
    given = before.load_data().train[:2]
    assert torch.equal(before.transform.forward(given), after.transform.forward(given))
    answer = cli("train", "--from", run, "training.steps=1", "--out", tmp_path / "same")
    assert answer.code == 0, answer


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("shard", ["none", "fsdp"])
@pytest.mark.parametrize("name", ["codec", "cascade", "prior"])
def test_two_processes_train_it_as_one_does(tmp_path: Path, name: str, shard: str) -> None:
    """Each step's loss and the weights, to the rounding of a sum."""
    words = [*RUNS[name], *FEW, "training.log_every=1", "training.warmup=0", "training.accumulate=2"]
    for _ in train(Experiment.read("digits", words), tmp_path / "one", draws=False):
        pass
    start = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    command = [*start, "-m", "ornstein.cli", "train", "digits", *words, f"training.shard={shard}"]
    done = subprocess.run(
        [*command, "--out", str(tmp_path / "two")], capture_output=True, text=True, check=False, timeout=500,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    one, two = (
        [record["loss"] for record in read_metrics(tmp_path / who) if "loss" in record] for who in ("one", "two")
    )
    assert len(one) == 4
    assert two == pytest.approx(one, rel=1e-5)
    weights = [load_file(tmp_path / who / "model.safetensors") for who in ("one", "two")]
    assert weights[0].keys() == weights[1].keys()
    for key, weight in weights[0].items():
        torch.testing.assert_close(weights[1][key], weight, rtol=0, atol=2e-5)
