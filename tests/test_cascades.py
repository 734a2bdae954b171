"""Laws of cascades: exact stages draw the exact law, at any noise on what is coarse; one stage is the plain model."""

import math
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from sure import Cli, once
from torch import Tensor

import ornstein
from ornstein.core.clocks import VP
from ornstein.core.condition import Condition
from ornstein.core.denoiser import Denoiser, FunctionDenoiser
from ornstein.core.exact import Gaussian
from ornstein.core.learner import Problem
from ornstein.core.process import Level
from ornstein.errors import InputError
from ornstein.experiment.config import Experiment
from ornstein.experiment.learner import LEARNERS, Staged
from ornstein.experiment.measured import coarsened
from ornstein.experiment.settle import drawing_precision
from ornstein.experiment.train import train
from ornstein.guidance import Mask, Measurement, MomentMatching
from ornstein.latent import Cascade
from ornstein.latent.cascade import COARSE, NOISE, halved, repeated
from ornstein.nets import Label, UNet
from ornstein.objectives import OBJECTIVES
from ornstein.samplers import STEPPERS

F64 = torch.float64
CLOCK, UNIT = VP(), 0.8
#: the mean of pairs of four numbers
PAIRS = torch.tensor([[0.5, 0.5, 0, 0], [0, 0, 0.5, 0.5]], dtype=F64)


def learner(shape: tuple[int, ...] = (1, 4), **settings: Any) -> Staged:
    return Staged(Problem(CLOCK, "v", OBJECTIVES["v"](), shape, UNIT, taught_by="v"), **settings)


def law() -> tuple[Tensor, Tensor]:
    root = torch.randn(4, 4, generator=torch.Generator().manual_seed(3), dtype=F64)
    return torch.tensor([1.0, -0.5, 0.3, 2.0], dtype=F64), root @ root.T / 4 + 0.05 * torch.eye(4, dtype=F64)


def exact(augmentation: float, of: tuple[Tensor, Tensor] | None = None) -> Cascade:
    """The two stages of a Gaussian, in closed form."""
    mean, cov = of or law()
    within = PAIRS @ cov @ PAIRS.T

    def finer(x: Tensor, level: Level, condition: Condition) -> Tensor:
        told = condition.parts[NOISE][:, None].double()
        s = (told / math.sqrt(3) + 1) / 2 * augmentation * UNIT
        noisy = within + s[:, :, None] ** 2 * torch.eye(2, dtype=F64)
        gain = cov @ PAIRS.T @ torch.linalg.inv(noisy)
        off = condition.parts[COARSE][:, 0].double() - PAIRS @ mean
        centre = mean + (gain @ off[:, :, None])[..., 0]
        left = cov - gain @ PAIRS @ cov
        a, b = float(level.alpha), float(level.sigma)
        spread = a * a * left + b * b * torch.eye(4, dtype=F64)
        moved = left @ torch.linalg.solve(spread, (x[:, 0].double() - a * centre)[:, :, None])
        found: Tensor = (centre + a * moved[..., 0])[:, None].to(x)
        return found

    base = Gaussian((PAIRS @ mean).reshape(1, 2), within).denoiser(CLOCK)
    return Cascade((base, FunctionDenoiser(finer, CLOCK, UNIT)), augmentation)


@pytest.mark.parametrize("level", [0.0, 0.7])
def test_exact_stages_draw_the_exact_law(level: float) -> None:
    known, n = learner(augmentation=1.0, level=level), 20_000
    *_, last = known.trajectory(exact(1.0), n, STEPPERS["heun"](), 40, None, seed=1, dtype=F64)
    x, (mean, cov) = last.x[:, 0], law()
    assert last.step == 40
    off = (x.mean(0) - mean) / (cov.diagonal() / n).sqrt()
    assert float(off.abs().max()) < 4
    variances = cov.diagonal()
    error = ((variances[:, None] * variances + cov**2) / n).sqrt()  # of a covariance of Gaussians
    assert float(((torch.cov(x.T) - cov) / error).abs().max()) < 4.5


def test_without_noise_a_stage_is_given_what_the_one_before_drew() -> None:
    asked: list[Condition] = []

    def seen(x: Tensor, level: Level, condition: Condition) -> Tensor:
        asked.append(condition)
        return x * 0

    for augmentation in (0.0, 1.0):
        plain = learner(augmentation=augmentation, level=0.0)
        model = replace(exact(augmentation), stages=(exact(1.0).stages[0], FunctionDenoiser(seen, CLOCK, UNIT)))
        states = list(plain.trajectory(model, 3, STEPPERS["ddim"](), 6, None, seed=0))
        coarse = halved(states[3].x)
        assert torch.equal(asked[-1].parts[COARSE], coarse)
        assert torch.equal(states[3].x, repeated(coarse, (4,)))
        assert len(set(asked[-1].parts[NOISE].tolist())) == 1
    noisy = replace(learner(augmentation=1.0), level=0.5)
    list(noisy.trajectory(model, 3, STEPPERS["ddim"](), 6, None, seed=0))
    away = (asked[-1].parts[COARSE] - coarse) / (0.5 * UNIT)
    assert 0.2 < float(away.std()) < 3
    assert asked[-1].parts[NOISE].tolist() == pytest.approx([0.0] * 3)


def test_one_stage_is_the_plain_model_bit_for_bit() -> None:
    shape, config = (1, 8, 8), UNet(8, (1, 2), 1, (), embedding=8)
    problem = Problem(CLOCK, "v", OBJECTIVES["v"](), shape, UNIT, 3, {"label": Label(3)}, taught_by="v")
    one, plain = Staged(problem, stages=1), LEARNERS["denoiser"](problem)
    nets = [known.network(partial(config.build, seed=2)) for known in (one, plain)]
    for net in nets:
        for number, p in enumerate(net.parameters()):
            torch.nn.init.normal_(p, std=0.1, generator=torch.Generator().manual_seed(number))
    x, label = torch.randn(4, *shape, generator=torch.Generator().manual_seed(0)), torch.tensor([0, 1, 2, -1])
    models = [known.model(net.eval()) for known, net in zip((one, plain), nets, strict=True)]
    losses, drawn = [], []
    for known, model in zip((one, plain), models, strict=True):
        losses.append(known.loss(model, x, label, torch.Generator().manual_seed(5), {}))
        *_, last = known.trajectory(model, 4, STEPPERS["ddpm"](), 5, None, seed=7, condition=label)
        drawn.append(last.x)
        assert known.judge(model, x, label).value > 0
    assert torch.equal(losses[0], losses[1])
    assert torch.equal(drawn[0], drawn[1])
    assert one.judge(models[0], x, label).found == plain.judge(models[1], x, label).found


def test_every_stage_learns_and_a_sample_is_the_same_in_any_batch() -> None:
    known = learner((1, 8, 8), stages=3)
    net = known.network(lambda *of: UNet(8, (1,), 1, (), embedding=8).build(*of))
    for number, p in enumerate(net.parameters()):
        torch.nn.init.normal_(p, std=0.1, generator=torch.Generator().manual_seed(number))
    x = torch.randn(4, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    known.loss(known.model(net), x, None, torch.Generator().manual_seed(1), {}).mean().backward()
    stages: Any = net.stages
    for stage in stages:
        assert float(stage.stem.weight.grad.abs().max()) > 0
    model = known.model(net.eval())
    *_, whole = known.trajectory(model, 4, STEPPERS["ddpm"](), 7, None, seeds=[5, 6, 7, 8])
    *_, part = known.trajectory(model, 2, STEPPERS["ddpm"](), 7, None, seeds=[7, 8])
    torch.testing.assert_close(part.x, whole.x[2:], rtol=1e-4, atol=1e-4)
    assert whole.step == 7


def test_what_no_cascade_can_do_is_said() -> None:
    for settings, said in (
        ({"stages": 4}, "halves the sides 3 times"),
        ({"stages": 0}, "stages"),
        ({"level": 0.9}, "learner.level=0.9"),
    ):
        with pytest.raises(InputError, match=said):
            learner(**settings)
    known = learner()
    cases: list[Any] = [
        (1, None, {}, "steps=1 must be 2 or more"),
        (4, [1.0, 0.5, 0.0], {}, "name a grid"),
        (4, None, {"x": torch.zeros(1, 1, 4)}, "takes no x"),
    ]
    for steps, grid, more, said in cases:
        with pytest.raises(InputError, match=said):
            known.trajectory(exact(1.0), 1, STEPPERS["ddim"](), steps, grid, **more)


def test_a_guided_cascade_keeps_its_coarse_picture() -> None:
    """Scale 1 is the plain one; else each stage is asked with the label and without, and given it both times."""
    asked: list[dict[str, Tensor]] = []

    def seen(x: Tensor, level: Level, condition: Condition) -> Tensor:
        asked.append(dict(condition.parts))
        label = condition.parts.get("label")
        return torch.zeros_like(x) if label is None else (label >= 0).reshape(-1, 1, 1).to(x).expand_as(x)

    whole = exact(1.0)
    model = Cascade(tuple(FunctionDenoiser(seen, CLOCK, UNIT) for _ in whole.stages), 1.0)
    label = torch.tensor([1, 0])
    drawn = {}
    for scale in (None, 1.0, 3.0):
        one = model if scale is None else Staged.guidance["classifier-free"](model, scale)
        asked.clear()
        *_, last = learner(augmentation=1.0).trajectory(one, 2, STEPPERS["ddim"](), 4, None, seed=0, condition=label)
        drawn[scale] = last.x
    assert torch.equal(drawn[None], drawn[1.0])
    assert torch.equal(drawn[3.0], 3 * drawn[1.0])
    finer = [parts for parts in asked if COARSE in parts]
    assert {int(one) for parts in finer for one in parts["label"]} == {0, 1, -1}
    pairs = {tuple(two.flatten().tolist()) for parts in finer for two in parts[COARSE].split(2)}
    assert len(pairs) == 1


def test_what_is_put_around_a_cascade_is_put_around_each_stage_as_it_is_guided() -> None:
    whole, known, met = exact(1.0), learner(augmentation=1.0), []
    tripled = whole.around(lambda one, _: FunctionDenoiser(lambda x, t, c: 3 * one.predict(x, t, c).x0, CLOCK, UNIT))

    def counted(one: Denoiser, halvings: int) -> Denoiser:
        def answer(x: Tensor, level: Level, condition: Condition) -> Tensor:
            met.append(halvings)
            return one.predict(x, level, condition).x0

        return FunctionDenoiser(answer, CLOCK, UNIT)

    drawn = [
        list(known.trajectory(one, 2, STEPPERS["ddim"](), 4, None, seed=0))[-1].x
        for one in (whole, tripled, known.around(tripled, counted))
    ]
    assert torch.equal(drawn[2], drawn[1])
    assert not torch.allclose(drawn[1], drawn[0])
    assert tuple(dict.fromkeys(met)) == known.halvings == (1, 0)


@pytest.fixture(scope="module")
def cascade(tmp_path_factory: pytest.TempPathFactory) -> Path:
    def make(folder: Path) -> None:
        words = ["preset=cascade", "net.channels=8", "training.steps=10", "training.validate_every=10"]
        words += ["training.precision=float32", "sampling.steps=4"]
        for _ in train(Experiment.read("digits", words), folder / "run", draws=False):
            pass

    return once(tmp_path_factory, "cascade", make) / "run"


def test_one_folder_one_sample_and_its_noise_a_setting(cli: Cli, cascade: Path, tmp_path: Path) -> None:
    opened = ornstein.load(cascade)
    assert isinstance(drawing_precision(opened.learner, opened.model, "auto"), str)
    first = cli("sample", cascade, "-n", 4, "--film", "--out", tmp_path / "a.npz")
    assert first.code == 0, first
    assert cli("sample", cascade, "-n", 4, "--scale", 2, "--out", tmp_path / "e.npz").code == 0
    assert cli("sample", cascade, "-n", 4, "--augmentation", 0.4, "--out", tmp_path / "b.npz").code == 0
    assert cli("sample", cascade, "-n", 4, "--augmentation", 0.1, "--out", tmp_path / "c.npz").code == 0
    a, b, c = (ornstein_samples(tmp_path / f"{name}.npz") for name in "abc")
    assert (a == c).all()  # its own level
    assert (a != b).any()
    said = cli("info", cascade).out
    assert "4x4, then 8x8" in said
    answer = cli("sample", cascade, "--augmentation", 0.9, "--out", tmp_path / "d.npz")
    assert answer.code == 2
    assert "learner.level=0.9" in answer.err
    answer = cli("interpolate", cascade, "--from", 0, "--to", 1)
    assert answer.code == 2
    assert "stage by stage" in answer.err
    opened = ornstein.load(cascade)
    assert opened.drawing("bfloat16").draw(2, seed=0).shape == (2, 1, 8, 8)


def test_only_a_cascade_has_a_coarse_picture_to_noise(cli: Cli, tmp_path: Path) -> None:
    words = ["training.steps=2", "net.width=4", "data.count=50", "training.validate_every=2", "sampling.steps=2"]
    for _ in train(Experiment.read("moons", [*words, "training.precision=float32"]), tmp_path / "run", draws=False):
        pass
    answer = cli("sample", tmp_path / "run", "--augmentation", 0.1)
    assert answer.code == 2
    assert "no cascade" in answer.err


def ornstein_samples(path: Path) -> Any:
    import numpy as np

    return np.load(path)["samples"]


def aligned() -> tuple[Tensor, Tensor]:
    """A law whose coarse numbers know nothing of how each pair differs."""
    mean, _ = law()
    pairs = torch.tensor([[0.9, 0.5], [0.5, 0.7]], dtype=F64)
    apart = torch.tensor([[1.0, -1, 0, 0], [0, 0, 1, -1]], dtype=F64) / 2
    own = torch.tensor([[0.4, -0.2], [-0.2, 0.3]], dtype=F64)
    return mean, 4 * PAIRS.T @ pairs @ PAIRS + 4 * apart.T @ own @ apart


def test_a_cascade_fills_in_by_the_exact_law_where_a_hole_is_of_whole_pairs() -> None:
    """Both stages are told what is fixed of their own picture; noise is less on means, by the root of two."""
    mean, cov = aligned()
    n, noise, seen = 12_000, 0.3, torch.tensor([[[True, True, False, False]]])
    y = torch.tensor([[[0.4, -0.9, 0.0, 0.0]]], dtype=F64)
    measurement = Measurement(Mask(seen), y, noise)
    coarse = coarsened(measurement, 1)
    assert coarse.operator.known.tolist() == [[[True, False]]]  # type: ignore[attr-defined]
    assert coarse.y.tolist() == [[[-0.25, 0.0]]]
    assert coarse.noise == pytest.approx(noise / math.sqrt(2))
    known = learner(augmentation=1.0, level=0.0)
    model = known.around(
        exact(1.0, (mean, cov)),
        lambda stage, halvings: MomentMatching(stage, coarsened(measurement, halvings), iterations=4),
    )
    *_, last = known.trajectory(model, n, STEPPERS["heun"](), 40, None, seed=1, dtype=F64)
    x, told = last.x[:, 0], torch.eye(4, dtype=F64)[:2]
    gain = cov @ told.T @ torch.linalg.inv(told @ cov @ told.T + noise**2 * torch.eye(2, dtype=F64))
    mean, cov = mean + gain @ (y[0, 0, :2] - told @ mean), cov - gain @ told @ cov
    off = (x.mean(0) - mean) / (cov.diagonal() / n).sqrt()
    assert float(off.abs().max()) < 4
    variances = cov.diagonal()
    error = ((variances[:, None] * variances + cov**2) / n).sqrt()
    assert float(((torch.cov(x.T) - cov) / error).abs().max()) < 4.5
