"""Laws of a prior and a decoder: exact pieces draw the exact law, given a picture's embedding or not."""

import math
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from laws import refused
from sure import Cli, once
from torch import Tensor

import ornstein
from ornstein.core.clocks import VP
from ornstein.core.condition import Condition
from ornstein.core.denoiser import FunctionDenoiser
from ornstein.core.learner import Problem
from ornstein.core.numerics import normal
from ornstein.core.process import Level
from ornstein.experiment.config import Experiment
from ornstein.experiment.learner import Prior
from ornstein.experiment.settle import drawing_precision
from ornstein.experiment.train import train
from ornstein.experiment.variations import liked
from ornstein.laws.nets import nudged
from ornstein.mixed import EMBEDDING, PriorAndDecoder
from ornstein.mixed.embedding import alike, contrast
from ornstein.nets import Label, Picture, Tokens, UNet, Vector
from ornstein.nets.matcher import Matcher
from ornstein.objectives import OBJECTIVES
from ornstein.samplers import STEPPERS

F64 = torch.float64


def dice(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


CLOCK, UNIT = VP(), 0.8
#: the embedding of four numbers: two sums of them
SUMS = torch.tensor([[0.7, -0.2, 0.5, 0.1], [0.1, 0.6, -0.3, 0.8]], dtype=F64)
#: means of the three classes that a caption names
MEANS = torch.tensor([[1.0, -0.5, 0.3, 2.0], [-1.0, 0.4, 0.0, -0.6], [0.2, 1.5, -1.2, 0.3]], dtype=F64)


def learner(conditions: Mapping[str, Any] | None = None, shape: tuple[int, ...] = (1, 4), **settings: Any) -> Prior:
    conditions = {"label": Label(3)} if conditions is None else conditions
    problem = Problem(CLOCK, "v", OBJECTIVES["v"](), shape, UNIT, 3, conditions, taught_by="v")
    return Prior(problem, **{"embedding": 2, "channels": 4, "width": 8, "depth": 1, **settings})


def spread() -> Tensor:
    root = torch.randn(4, 4, generator=dice(3), dtype=F64)
    return root @ root.T / 4 + 0.05 * torch.eye(4, dtype=F64)


def posterior(x: Tensor, level: Level, mean: Tensor, cov: Tensor) -> Tensor:
    """E[x_0 given x_t] of N(mean, cov), rows of x and of mean."""
    a, b = float(level.alpha), float(level.sigma)
    moved = cov @ torch.linalg.solve(a * a * cov + b * b * torch.eye(len(cov), dtype=F64), (x - a * mean)[:, :, None])
    found: Tensor = mean + a * moved[..., 0]
    return found


def exact() -> PriorAndDecoder:
    """x ~ N(mean of its class, cov) with the embedding SUMS x + noise, both pieces in closed form."""
    cov = spread()
    within = SUMS @ cov @ SUMS.T + 0.01 * torch.eye(2, dtype=F64)
    gain = cov @ SUMS.T @ torch.linalg.inv(within)

    def embedding(z: Tensor, level: Level, condition: Condition) -> Tensor:
        return posterior(z.double(), level, MEANS[condition.parts["label"]] @ SUMS.T, within).to(z)

    def decoded(x: Tensor, level: Level, condition: Condition) -> Tensor:
        mean = MEANS[condition.parts["label"]]
        centre = mean + (condition.parts[EMBEDDING].double() - mean @ SUMS.T) @ gain.T
        return posterior(x[:, 0].double(), level, centre, cov - gain @ SUMS @ cov)[:, None].to(x)

    return PriorAndDecoder(FunctionDenoiser(embedding, CLOCK), FunctionDenoiser(decoded, CLOCK, UNIT))


def check(x: Tensor, mean: Tensor, cov: Tensor) -> None:
    """Moments of a Gaussian sample (n, d) within their standard errors."""
    n, variances = len(x), cov.diagonal()
    assert float(((x.mean(0) - mean) / (variances / n).sqrt()).abs().max()) < 4
    error = ((variances[:, None] * variances + cov**2) / n).sqrt()
    assert float(((torch.cov(x.T) - cov) / error).abs().max()) < 4.5


def drawn(model: PriorAndDecoder, label: Tensor, **how: Any) -> Tensor:
    asked = learner(prior_steps=40)
    *_, last = asked.trajectory(
        model, len(label), STEPPERS["heun"](), 40, None, seed=1, condition=label, dtype=F64, **how
    )
    assert last.step == 40
    return last.x[:, 0]


def test_exact_pieces_draw_the_exact_law_given_the_caption() -> None:
    label = torch.arange(3).repeat(8_000)
    x = drawn(exact(), label)
    for kind in range(3):
        check(x[label == kind], MEANS[kind], spread())


def test_variations_are_of_the_law_given_the_embedding() -> None:
    """What it holds is that of the picture, but for the embedding's own noise, and the rest is drawn anew."""
    cov, z = spread(), torch.tensor([[1.5, -0.7]], dtype=F64)
    within = SUMS @ cov @ SUMS.T + 0.01 * torch.eye(2, dtype=F64)
    gain = cov @ SUMS.T @ torch.linalg.inv(within)
    x = drawn(replace(exact(), like=z), torch.zeros(8_000, dtype=torch.int64))
    mean = MEANS[0] + gain @ (z[0] - SUMS @ MEANS[0])
    check(x, mean, cov - gain @ SUMS @ cov)
    given = drawn(exact(), torch.zeros(8_000, dtype=torch.int64))
    assert float((x @ SUMS.T).var(0).max()) < 0.1 * float((given @ SUMS.T).var(0).min())


def test_each_pair_is_found_among_the_others_and_equal_ones_are_equally_right() -> None:
    """By hand: three captions, two of them the same, and a row without one."""
    seen = torch.tensor([[1.0, 0.0], [0.6, 0.8], [0.0, 1.0], [-1.0, 0.0]])
    said = torch.tensor([[0.8, 0.6], [0.0, 1.0], [0.8, 0.6], [0.0, -1.0]])
    condition = Condition(
        {"label": torch.tensor([2, 0, 2, -1]), "number": torch.tensor([0.5, math.nan, 0.5, math.nan])}
    )
    assert alike(condition)[:3, :3].tolist() == [[True, False, True], [False, True, False], [True, False, True]]
    found = contrast(seen, said, torch.tensor(2.0), condition)
    logits = 2 * seen[:3] @ said[:3].T
    across, down = logits.log_softmax(1), logits.log_softmax(0).T
    for row, right in enumerate(([0, 2], [1], [0, 2])):
        expected = -0.5 * (across[row, right].mean() + down[row, right].mean())
        assert float(found[row]) == pytest.approx(float(expected), abs=1e-6)
    assert float(found[3]) == 0


def test_every_network_learns_by_its_own_loss_alone() -> None:
    known = learner({"label": Label(3)}, (1, 8, 8), silent=0.0)
    net = nudged(known.network(partial(UNet(8, (1,), 1, (), embedding=8).build)))
    decoder, prior, matcher = net.stages  # type: ignore[misc]
    x, label = torch.randn(6, 1, 8, 8, generator=dice()), torch.tensor([0, 1, 2, 0, -1, 2])
    known.loss(known.model(net), x, label, dice(1), {}).sum().backward()
    for part in (decoder, prior, matcher):
        assert all(p.grad is not None and bool(p.grad.isfinite().all()) for p in part.parameters())
        assert float(sum(p.grad.square().sum() for p in part.parameters())) > 0
    whole = {name: p.grad.clone() for name, p in matcher.named_parameters()}
    net.zero_grad()
    model = known.model(net)
    ratio = known.noise * torch.rand(6, generator=(own := dice(1)))
    seeds = torch.randint(2**62, (6,), generator=own)
    noisy = x + UNIT * ratio.reshape(-1, 1, 1, 1) * normal(seeds, (1, 8, 8), 2**36)
    assert model.embed is not None
    (0.1 * model.embed.contrast(noisy, Condition.of(label))).sum().backward()
    for name, p in matcher.named_parameters():  # neither prior nor decoder teaches it
        torch.testing.assert_close(p.grad, whole[name])


def test_a_decoder_begins_as_the_model_that_it_is_made_of() -> None:
    known, told = learner({"text": Tokens(5, 3)}, (1, 8, 8)), {"text": Tokens(5, 3)}
    config = UNet(8, (1,), 1, (8,), embedding=8)
    plain, net = nudged(config.build((1, 8, 8), told)), known.network(config.build)
    known.begin(net, plain.state_dict())
    decoder: Any = net.eval().stages[0]  # type: ignore[index]
    x, u, text = torch.randn(3, 1, 8, 8, generator=dice()), torch.zeros(3), {"text": torch.tensor([[1, 2, -1]] * 3)}
    z = {EMBEDDING: torch.randn(3, 2, generator=dice(1))}
    assert torch.equal(decoder(x, u, {**text, **z}), plain(x, u, text))
    other = learner({"text": Tokens(5, 3)}, (1, 8, 8)).network(config.build)
    known.begin(other, nudged(net).state_dict())
    assert all(
        torch.equal(one, two) for one, two in zip(other.state_dict().values(), net.state_dict().values(), strict=True)
    )
    with pytest.raises(RuntimeError):
        known.begin(net, config.build((1, 8, 8), {"label": Label(3)}).state_dict())


def test_a_sample_is_the_same_in_any_batch_and_one_embedding_serves_all() -> None:
    known = learner({"label": Label(3)}, (1, 8, 8), prior_steps=3)
    net = nudged(known.network(UNet(8, (1,), 1, (), embedding=8).build))
    model, label = known.model(net), torch.tensor([0, 1, 2, -1])
    way: tuple[Any, ...] = (STEPPERS["ddpm"](), 4, None)
    *_, whole = known.trajectory(model, 4, *way, seeds=[5, 6, 7, 8], condition=label)
    *_, part = known.trajectory(model, 2, *way, seeds=[7, 8], condition=label[2:])
    torch.testing.assert_close(part.x, whole.x[2:], rtol=1e-4, atol=1e-4)
    z = model.embed(whole.x[:1])  # type: ignore[misc]
    assert float(z.square().sum()) == pytest.approx(known.embedding, rel=1e-5)
    *_, like = known.trajectory(replace(model, like=z), 4, *way, seeds=[5, 6, 7, 8], condition=label)
    told = Condition({"label": label, EMBEDDING: z.repeat(4, 1)})
    *_, given = known.trajectory(model, 4, *way, seeds=[5, 6, 7, 8], condition=told)
    assert torch.equal(like.x, given.x)
    for scale in (1.0, 3.0):
        one = Prior.guidance["classifier-free"](model, scale)
        *_, last = known.trajectory(one, 4, *way, seeds=[5, 6, 7, 8], condition=label)
        alike = torch.allclose(last.x, whole.x, rtol=1e-4, atol=1e-4)
        assert alike == (scale == 1.0)
    assert known.judge(model, torch.randn(8, 1, 8, 8, generator=dice()), label.repeat(2)).value > 0


@pytest.mark.parametrize(("shape", "kind"), [((1, 8, 8), Label(3)), ((2, 9), Vector(4)), ((1, 3, 5, 4), Tokens(5, 3))])
def test_pictures_of_any_grid_are_embedded_one_by_one(shape: tuple[int, ...], kind: Any) -> None:
    net = nudged(Matcher(6, 4, 0.5).build(shape, {"it": kind}))
    x = torch.randn(3, *shape, generator=dice())
    seen, said, _ = net(x)
    assert said is None
    torch.testing.assert_close(seen.norm(dim=1), torch.ones(3))
    torch.testing.assert_close(torch.cat([net(one[None])[0] for one in x]), seen, rtol=1e-4, atol=1e-5)
    assert not torch.allclose(seen[0], seen[1], atol=1e-3)
    net.train()
    assert torch.equal(net(x)[0], seen)  # nothing is left out where nothing is learned


def test_what_has_no_prior_is_said() -> None:
    sized = Picture(1, (4,))
    refused(lambda: learner({}), "captions", "labels")
    refused(lambda: learner({"sketch": sized, "label": Label(2)}), "no other")
    refused(lambda: learner({EMBEDDING: Vector(2)}), EMBEDDING, "rename")
    refused(lambda: learner(shape=(4,)), "learner='prior'", "pictures")
    refused(lambda: learner(silent=1.5), "learner.silent=1.5")
    refused(lambda: learner(embedding=1), "learner.embedding")
    refused(lambda: Matcher().build((1, 4, 4), {"sketch": Picture(1, (4, 4))}), "labels")


# ------------------------------------------------------------------------------------------------------------- runs


@pytest.fixture(scope="module")
def prior_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    def make(folder: Path) -> None:
        words = ["preset=prior", "net.channels=8", "training.steps=10", "training.validate_every=10"]
        words += ["training.precision=float32", "sampling.steps=3", "learner.prior_steps=3", "learner.channels=8"]
        for _ in train(Experiment.read("digits", words), folder / "run", draws=False):
            pass

    return once(tmp_path_factory, "prior", make) / "run"


def test_one_run_draws_and_varies_a_picture(cli: Cli, prior_run: Path, tmp_path: Path) -> None:
    opened = ornstein.load(prior_run)
    assert isinstance(drawing_precision(opened.learner, opened.model, "auto"), str)
    assert (
        cli("sample", prior_run, "-n", 4, "--label", 3, "--scale", 2, "--film", "--out", tmp_path / "a.png").code == 0
    )
    test = opened.load_data().test
    np.save(tmp_path / "five.npy", test[5:6].numpy())
    for name, like in (("b", 5), ("c", tmp_path / "five.npy")):
        answer = cli("sample", prior_run, "-n", 3, "--like", like, "--out", tmp_path / f"{name}.npz")
        assert answer.code == 0, answer
    b, c = (np.load(tmp_path / f"{name}.npz")["samples"] for name in "bc")
    assert (b == c).all()
    five, six = (liked(opened, name).draw(3, seed=0) for name in "56")
    assert (opened.transform.inverse(five, quantise=True).numpy() == b).all()
    assert not torch.equal(five, six)
    assert "an embedding of 64 numbers" in cli("info", prior_run).out
    answer = cli("sample", prior_run, "--like", 9999, "--out", tmp_path / "e.png")
    assert answer.code == 2
    assert "example 9999" in answer.err
    assert opened.drawing("bfloat16").draw(2, seed=0, label=1).shape == (2, 1, 8, 8)
