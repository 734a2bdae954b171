"""The doctor: it names each planted fault, nothing in healthy runs, and changes nothing of what it looks at."""

import dataclasses
import hashlib
import json
import math
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sure import Cli

import ornstein
from ornstein.core.exact import Empirical, Gaussian
from ornstein.experiment import checks, pictures
from ornstein.experiment.config import Experiment
from ornstein.experiment.doctor import CHECKS, Diagnosis, doctor
from ornstein.experiment.evidence import Evidence
from ornstein.experiment.run import Run
from ornstein.experiment.train import train

Made = Callable[..., Path]

#: what is drawn while training takes longer than these trainings, and no check looks at it
PICTURES = ["loss_curve", "by_noise", "draw"]
SMALL = ["training.cpu=true", "training.threads=1", "training.snapshot_every=0", "sampling.preview=4",
         "training.log_every=50", "training.checkpoint_every=100000", "training.warmup=20"]  # fmt: skip
MLP = [*SMALL, "net={name: mlp, width: 64, depth: 2}", "training.steps=1200", "training.batch_size=128",
       "training.validate_every=150"]  # fmt: skip
POINTS = [*MLP, "data.count=3000"]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    """A trained run of a preset with overrides, kept for the module."""
    root, kept = tmp_path_factory.mktemp("doctor"), {}

    def make(preset: str, *overrides: str, **arrays: np.ndarray) -> Path:
        key = hashlib.sha1(repr((preset, overrides, sorted(arrays))).encode()).hexdigest()[:12]
        if key not in kept:
            if arrays:
                np.savez(root / f"{key}.npz", **arrays)
                overrides = (f"data.path={root / key}.npz", *overrides)
            with pytest.MonkeyPatch.context() as patched:
                for name in PICTURES:
                    patched.setattr(pictures, name, lambda *_, **__: None)
                for _ in train(Experiment.read(preset, overrides), root / key):
                    pass
            kept[key] = root / key
        return kept[key]

    return make


@pytest.fixture(scope="module")
def points(made: Made) -> Path:
    return made("eight-gaussians", *POINTS)


def table() -> np.ndarray:
    """Five columns that hang together: two kinds of row, a heavy tail."""
    g = np.random.default_rng(3)
    z = g.normal(size=(2000, 5))
    x = z @ g.normal(size=(5, 5))
    x[:, 0] += np.where(z[:, 1] > 0.3, 4, -4)
    x[:, 2] = np.exp(x[:, 2] / 3)
    return x.astype(np.float32)


def waves(n: int = 600, length: int = 16) -> np.ndarray:
    """Series of two channels (n, 2, length): a sine of some frequency, and how it changes."""
    g = np.random.default_rng(1)
    t = np.linspace(0, 1, length)
    angle = 2 * math.pi * (g.uniform(0.5, 2, (n, 1)) * t + g.uniform(size=(n, 1)))
    x = np.stack([np.sin(angle), np.cos(angle)], 1) * g.uniform(0.5, 1.5, (n, 1, 1))
    return (x + 0.1 * g.normal(size=x.shape)).astype(np.float32)


def look(run: Any, n: int = 200) -> Diagnosis:
    return doctor(run, n=n, seed=0)


def sampling(run: Run, **how: Any) -> Run:
    """The run, drawn from in another way."""
    chosen = dataclasses.replace(run.experiment.sampling, **how)
    return dataclasses.replace(run, experiment=dataclasses.replace(run.experiment, sampling=chosen))


def hurt(folder: Path, change: Callable[[torch.nn.Module], None]) -> Run:
    """A run whose network was changed after it was trained."""
    run = Run.load(folder)
    with torch.no_grad():
        change(run.model.net)
    return run


# --- healthy runs


def healthy(name: str, made: Made) -> Path:
    if name == "points":
        return made("eight-gaussians", *POINTS)
    if name == "flow":
        return made("pinwheel", *POINTS, "process=flow", "predicts=velocity", "objective=flow")
    if name == "table":
        return made("array", *MLP, x=table())
    net = "net={name: unet, channels: 16, multipliers: [1, 2], blocks: 1, attention: [], patch: 2}"
    return made("array", *SMALL, net, "training.steps=600", "training.batch_size=64", "training.validate_every=100",
                x=waves())  # fmt: skip


@pytest.mark.parametrize("name", ["points", "flow", "table", "series"])
def test_nothing_is_wrong_with_a_healthy_run(name: str, made: Made) -> None:
    found = look(healthy(name, made))
    assert found.findings == {}, found.text()
    assert set(found.examined) == set(CHECKS)  # all had something to say
    assert found.advice


# --- planted faults


def missing_mode(seed: int = 0) -> dict[str, np.ndarray]:
    """Four clusters in the plane, of which training never saw the last."""
    g = np.random.default_rng(seed)
    centres = np.array([[2, 2], [-2, 2], [2, -2], [-2, -2]])

    def drawn(n: int, kinds: int) -> np.ndarray:
        return (centres[g.integers(kinds, size=n)] + 0.3 * g.normal(size=(n, 2))).astype(np.float32)

    return {"x_train": drawn(1500, 3), "x_test": drawn(400, 4)}


def few_rows() -> dict[str, np.ndarray]:
    g = np.random.default_rng(0)
    rows = g.normal(size=(330, 6)).astype(np.float32)
    return {"x_train": rows[:30], "x_test": rows[30:]}


def whole_numbers() -> np.ndarray:
    """Pictures of 2 x 2 pixels with 17 grey levels."""
    g = np.random.default_rng(0)
    bright = g.integers(0, 17, size=(400, 1, 1))
    return np.clip(bright + g.integers(-2, 3, size=(400, 2, 2)), 0, 16).astype(np.uint8)


def ladder(low: float, high: float = 50) -> list[str]:
    return [f"process={{name: ladder, sigma_min: {low}, sigma_max: {high}, steps: 100}}", "predicts=edm",
            "objective=edm", "sampling.stepper=ddim", "sampling.steps=100"]  # fmt: skip


def deaf(net: torch.nn.Module) -> None:
    """Tell it of every noise level what it was told of the middle one."""
    forward = net.forward
    net.forward = lambda x, noise_level, *rest: forward(x, torch.zeros_like(noise_level), *rest)  # type: ignore[assignment]


def turned(net: torch.nn.Module) -> None:
    """Turn its answers about an axis: right in size, no longer a gradient."""
    last = [part for part in net.modules() if isinstance(part, torch.nn.Linear)][-1]
    quarter = torch.tensor([[0.0, -1.0], [1.0, 0.0]])
    last.weight.copy_(quarter @ last.weight)
    last.bias.copy_(quarter @ last.bias)


def broken(net: torch.nn.Module) -> None:
    next(net.parameters()).fill_(math.nan)


FAULTS: dict[str, tuple[str, Callable[[Made, Path], Any]]] = {
    "a clock that stops with signal left": (
        "signal-left", lambda made, _: made("eight-gaussians", *POINTS, "training.steps=300",
                                           "process={name: vp, beta_max: 1}")),
    "noise that ends too high": (
        "smallest-noise", lambda made, _: made("moons", *POINTS, "training.steps=300", *ladder(0.5))),
    "noise that ends below what rounding leaves": (
        "smallest-noise", lambda made, _: made("array", *MLP, "training.steps=100", *ladder(1e-4), x=whole_numbers())),
    "a network that does not hear the noise level": (
        "error-by-noise", lambda _, points: hurt(points, deaf)),
    "an average far too long": (
        "ema-length", lambda made, _: made("moons", *POINTS, "training.steps=150", "training.ema=[0.05, 0.28]",
                                           "training.decay=constant", "sampling.ema=0.28")),
    "thirty rows learned by heart": (
        "memorisation", lambda made, _: made("array", *MLP, "training.lr=3e-3", **few_rows())),
    "thirty rows, and what was not seen forgotten": (
        "over-fitting", lambda made, _: made("array", *MLP, "training.lr=3e-3", **few_rows())),
    "two steps of sampling": (
        "sampler", lambda _, points: sampling(Run.load(points), steps=2)),
    "two steps of a sampler that draws noise": (
        "sampler", lambda made, _: sampling(Run.load(healthy("table", made)), steps=3, stepper={"name": "ddpm"})),
    "a mode that training never saw": (
        "modes-missed", lambda made, _: made("array", *MLP, "training.steps=600", **missing_mode())),
    "a rate too small to get anywhere": (
        "under-fitting", lambda made, _: made("moons", *POINTS, "training.steps=400", "training.lr=5e-5",
                                              "training.decay=constant", "training.validate_every=50")),
    "answers that are no gradient": ("curl", lambda _, points: hurt(points, turned)),
    "weights that are no numbers": ("broken-draws", lambda _, points: hurt(points, broken)),
}  # fmt: skip


@pytest.mark.parametrize("fault", FAULTS)
def test_a_planted_fault_is_named(fault: str, made: Made, points: Path) -> None:
    name, planted = FAULTS[fault]
    found = look(planted(made, points))
    assert name in found.findings, found.text()
    wrong = found.findings[name]
    assert wrong.do in found.text()
    assert wrong.said in found.text()
