"""Data with holes: what is learned from the cells that were seen is what complete rows would teach."""

import math
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sure import Cli, there
from torch import Tensor, nn

import ornstein
from ornstein.core.clocks import VP
from ornstein.core.condition import Condition
from ornstein.core.denoiser import Denoiser, NetDenoiser
from ornstein.core.gaps import GIVEN, Filled, OnSeen, apart, mean_square, some_known, together, told
from ornstein.core.learner import Problem
from ornstein.core.nearest import LEAST, correlation, nearest
from ornstein.core.prediction import Prediction
from ornstein.core.process import Level
from ornstein.data import Affine, open_data
from ornstein.data.holes import alike
from ornstein.data.statistics import extremes, moments, value_range
from ornstein.errors import InputError
from ornstein.experiment.checks_of_samples import memorised
from ornstein.experiment.config import Experiment
from ornstein.experiment.evaluate import REPORT
from ornstein.experiment.evidence import Evidence
from ornstein.experiment.learner import LEARNERS
from ornstein.experiment.train import train
from ornstein.likelihood import log_likelihood
from ornstein.likelihood.measure import _without_holes
from ornstein.objectives import OBJECTIVES
from ornstein.samplers import sample

FACTOR = torch.tensor([[1.0, 0, 0, 0], [0.8, 0.6, 0, 0], [-0.5, 0.5, 0.7, 0], [0.3, -0.6, 0.2, 0.7]]).double()
COVARIANCE = FACTOR @ FACTOR.T


def gaussian(n: int, seed: int, missing: float = 0.0) -> Tensor:
    """Draws of N(0, COVARIANCE), float64, a share of whose cells is missing completely at random."""
    dice = torch.Generator().manual_seed(seed)
    x = torch.randn(n, 4, generator=dice, dtype=torch.float64) @ FACTOR.T
    return x.masked_fill(torch.rand(n, 4, generator=dice) < missing, math.nan)


CLOCK = VP()


@dataclass(frozen=True, eq=False)
class Exact(Denoiser):
    """The posterior mean of N(0, COVARIANCE) given the seen cells of x_t, and clean values of others."""

    process: VP = CLOCK
    gaps: bool = True
    tells: bool = True  # which cells are seen; else a hole counts as the value 0

    def predict(self, x: Tensor, level: Level, condition: Condition) -> Prediction:
        seen = ~x.isnan() if self.tells else torch.ones_like(x, dtype=torch.bool)
        given, known = torch.zeros_like(x), torch.zeros_like(seen)
        if GIVEN in condition.parts:
            given, known = (part.to(x) for part in condition.parts[GIVEN].chunk(2, 1))
            known = known > 0
        one = torch.ones(len(x), 1, dtype=x.dtype)
        alpha, sigma = (v * one if isinstance(v, float) else v.to(x).reshape(-1, 1) for v in (level.alpha, level.sigma))
        # what is observed is a x_0 + noise, cell by cell; what is neither seen nor given has no weight
        a = torch.where(known, 1.0, torch.where(seen, alpha, 0.0))
        noise = torch.where(known, 1e-12, torch.where(seen, sigma**2, 1.0))
        value = torch.where(known, given, torch.where(x.isnan(), 0.0, x))
        prior = COVARIANCE.to(x)
        inner = a[:, :, None] * prior * a[:, None, :] + torch.diag_embed(noise)
        x0 = torch.linalg.solve(inner, value[..., None])
        found = (prior @ (a[..., None] * x0)).squeeze(-1)
        return Prediction(torch.where(x.isnan(), math.nan, found) if self.gaps else found, x, level)


class Table(nn.Module):
    """A linear map of its own for each pattern of holes; or, not told of them, one for all."""

    def __init__(self, told: bool) -> None:
        super().__init__()
        self.told = told
        self.maps = nn.Parameter(torch.zeros(16, 4, 4))

    def forward(self, x: Tensor, noise_level: Tensor, condition: dict[str, Tensor]) -> Tensor:
        bits = condition["seen"].long() if self.told else torch.ones_like(x).long()
        pattern = (bits * torch.tensor([1, 2, 4, 8])).sum(1)
        return torch.einsum("nij,nj->ni", self.maps[pattern], x)


def learned(told: bool, level: Level) -> Tensor:
    """The linear denoiser of complete rows that a third of the cells missing has taught, (4, 4)."""
    net = Table(told)
    denoiser = NetDenoiser(net, VP(), "x0", gaps=True)
    objective = OBJECTIVES["denoising"](sigma=float(level.noise_ratio))
    data = gaussian(40_000, 0, 0.3)
    data = data[~data.isnan().all(1)]
    net.double()
    # one draw of noise, for which the loss is a parabola
    optimiser = torch.optim.LBFGS(net.parameters(), max_iter=30, line_search_fn="strong_wolfe")

    def closure() -> float:
        optimiser.zero_grad()
        loss = objective(denoiser, data, None, torch.Generator().manual_seed(1)).mean()
        loss.backward()
        return float(loss)

    optimiser.step(closure)
    # asked of complete rows, one unit vector at a time
    return denoiser(torch.eye(4).double(), level).x0.detach().T


def test_what_holes_leave_teaches_the_complete_rows_denoiser() -> None:
    level = VP().at(VP().time(torch.tensor(-2 * math.log(0.7))).item())
    alpha, variance = float(level.alpha), float(level.sigma) ** 2
    exact = alpha * COVARIANCE @ torch.linalg.inv(alpha**2 * COVARIANCE + variance * torch.eye(4).double())
    assert (learned(True, level) - exact).abs().max() < 0.05
    assert (learned(False, level) - exact).abs().max() > 0.1  # a hole that counts as 0 teaches something else


@pytest.mark.parametrize("name", ["ddpm", "v", "edm", "flow", "min-snr", "score", "denoising"])
def test_each_regression_is_least_where_the_seen_cells_answer(name: str) -> None:
    x0 = gaussian(40_000, 2, 0.3)
    x0 = x0[~x0.isnan().all(1)]

    def slope(tells: bool) -> tuple[Tensor, Tensor]:
        """The mean derivative of the loss as the answer moves along x_t, and its standard error."""
        theta = torch.zeros(len(x0), 1, dtype=torch.float64, requires_grad=True)

        class Moved(Exact):
            def predict(self, x: Tensor, level: Level, condition: Condition) -> Prediction:
                found = super().predict(x, level, condition)
                whole = torch.where(x.isnan(), 0.0, x)
                return Prediction(found.x0 + theta * level.sigma * (whole @ FACTOR), x, level)

        loss = OBJECTIVES[name]()(Moved(tells=tells), x0, None, torch.Generator().manual_seed(3))
        assert loss.shape == (len(x0),)
        assert bool(loss.isfinite().all())
        (each,) = torch.autograd.grad(loss.sum(), theta)
        return each.mean().abs(), each.std() / math.sqrt(len(x0))

    value, error = slope(tells=True)
    assert value < 4 * error
    value, error = slope(tells=False)
    assert value > 5 * error


def test_the_mean_is_over_the_cells_that_were_seen() -> None:
    x0 = torch.tensor([[1.0, math.nan, 3.0], [math.nan, 5.0, 6.0], [1.0, 1.0, 1.0]])
    error = torch.tensor([[1.0, math.nan, 3.0], [math.nan, 2.0, 0.0], [3.0, 0.0, 0.0]], requires_grad=True)
    found = mean_square(error, x0, 2.0, gaps=True)
    assert torch.equal(found, torch.tensor([10.0, 4.0, 6.0]))
    (slope,) = torch.autograd.grad(found.sum(), error)
    assert torch.equal(slope, torch.tensor([[2.0, 0, 6.0], [0, 4.0, 0], [4.0, 0, 0]]))
    assert mean_square(error, x0, 2.0).isnan()[:2].all()  # who is not told of holes does not hide them


def test_the_likelihood_of_a_row_with_holes_is_that_of_its_seen_cells() -> None:
    scale, shift = torch.tensor([1.0, 5.0, 0.1, 2.0]).double(), torch.tensor([0.0, 3.0, 1.0, -2.0]).double()
    x = gaussian(40, 4, 0.4)
    x = x[~x.isnan().all(1)] * scale + shift
    transform = Affine(tuple(shift.tolist()), tuple(scale.tolist()))
    found = log_likelihood(Exact(), x, transform=transform, tolerance=1e-3, ratios=(1e-3, 1e3))
    full = COVARIANCE * scale[:, None] * scale
    for row, value, dims in zip(x, found.log_prob, found.dims, strict=True):  # type: ignore[arg-type]
        seen = ~row.isnan()
        law = torch.distributions.MultivariateNormal(shift[seen], full[seen][:, seen])
        assert abs(float(law.log_prob(row[seen]) - value)) < 0.01
        assert int(dims) == int(seen.sum())
    with pytest.raises(InputError, match="not trained on data with gaps"):
        log_likelihood(Exact(gaps=False), x)
    whole = torch.ones(1, 4).double()
    assert float(OnSeen(Exact()).surplus(whole > 0)) == 0


def test_the_likelihood_of_rows_with_holes_is_asked_for_as_that_of_others() -> None:
    """Each of its options tells: of the rows completed, by the denoiser that the seen cells give, it is the same."""
    x, asked = gaussian(3, 5), []
    x[0, 1] = x[1, 2:] = math.nan
    how: dict[str, Any] = {
        "trace": "hutchinson", "probes": 3, "tolerance": 1e-5, "prior": "sampling",
        "ratios": (1e-2, 1e2), "seeds": [7, 8, 9],
    }  # fmt: skip
    found = log_likelihood(Exact(), x, **how, progress=lambda *told: asked.append(told))
    whole, given, beyond = _without_holes(Exact(), x, ~x.isnan(), Condition(), None)
    same = log_likelihood(OnSeen(Exact()), whole, condition=given, dequantise="none", **how)
    assert torch.equal(found.log_prob, same.log_prob - beyond)
    assert torch.equal(found.products, same.products)
    assert asked == [(3, 3)]


def test_draws_given_some_cells_follow_the_conditional_law() -> None:
    value = torch.tensor([[math.nan, 1.0, math.nan, -0.5]]).double()
    known = ~value.isnan()
    condition = Condition({GIVEN: told(value, known)}).repeat(4000)
    drawn = sample(Filled(Exact()), (4000, 4), condition=condition, stepper="ddpm", steps=100, seed=0).double()
    assert torch.equal(drawn[:, 1], torch.ones(4000).double())
    assert torch.equal(drawn[:, 3], torch.full((4000,), -0.5).double())
    hidden = [0, 2]
    gain = COVARIANCE[hidden][:, [1, 3]] @ torch.linalg.inv(COVARIANCE[[1, 3]][:, [1, 3]])
    mean = gain @ torch.tensor([1.0, -0.5]).double()
    left = COVARIANCE[hidden][:, hidden] - gain @ COVARIANCE[[1, 3]][:, hidden]
    assert (drawn[:, hidden].mean(0) - mean).abs().max() < 4 * float(left.diagonal().max()) ** 0.5 / 60
    assert (drawn[:, hidden].T.cov() - left).abs().max() < 0.05


def test_what_is_told_in_training_is_of_every_kind() -> None:
    known = some_known(4000, (3, 32), torch.Generator().manual_seed(0))
    nothing = ~known.flatten(1).any(1)
    assert 0.2 < nothing.double().mean() < 0.35
    assert not bool(known.flatten(1).all(1).any())  # there is always something to learn
    forecast = known[:, :, 0].all(1) & ~known[:, :, -1].any(1)
    before = known[:, :, -1].all(1) & ~known[:, :, 0].any(1)
    some_channels = (known.all(2).any(1)) & (~known).any(2).any(1)
    for kind in (forecast, before, some_channels):
        assert kind.double().mean() > 0.02
    vectors = some_known(4000, (8,), torch.Generator().manual_seed(0))
    assert 0.3 < vectors.double().mean() < 0.45


def test_statistics_leave_holes_out() -> None:
    x = torch.randn(3000, 3, 5, generator=torch.Generator().manual_seed(0)) * 2 + 7
    holes = torch.rand(x.shape, generator=torch.Generator().manual_seed(1)) < 0.3
    gappy = x.masked_fill(holes, math.nan)
    mean, sigma = moments(gappy)
    for k in range(3):
        seen = gappy[:, k][~holes[:, k]].double()
        assert math.isclose(mean[k], seen.mean(), rel_tol=1e-9)
        assert math.isclose(sigma[k], seen.std(correction=0), rel_tol=1e-9)
        assert [end[k] for end in extremes(gappy)] == [seen.min(), seen.max()]
    assert value_range(gappy) == (gappy.nan_to_num(99).min().item(), gappy.nan_to_num(-99).max().item())


def test_samples_get_the_holes_of_the_data_that_they_are_compared_with() -> None:
    train, heldout, drawn = gaussian(2000, 5, 0.3), gaussian(500, 6, 0.3), gaussian(800, 7)
    samples, one, other = alike(drawn, train, heldout)
    mean = train.nanmean(0)
    holes = heldout.isnan()[torch.arange(800) % 500]
    assert torch.equal(samples[~holes], drawn[~holes])
    assert torch.equal(samples[holes], mean.expand(800, 4)[holes])
    assert not one.isnan().any()
    assert torch.equal(other[~heldout.isnan()], heldout[~heldout.isnan()])


@pytest.mark.usefixtures("brief_reports")
def test_a_run_learns_from_holes_and_all_its_verbs_go_on(cli: Cli, tmp_path: Path) -> None:
    x = gaussian(400, 8, 0.3).float()
    file = tmp_path / "gappy.npy"
    np.save(file, x[~x.isnan().all(1)].numpy())
    few = 3.0 + x[~x.isnan().all(1)][:6].numpy()
    np.save(tmp_path / "few.npy", few)
    run = tmp_path / "run"
    small = ["net={name: mlp, width: 16, depth: 1, embedding: 8}", "training.steps=20", "training.batch_size=64"]
    small.append("sampling.preview=0")
    for learner in ("denoiser", "filling"):
        asked = Experiment.read("array", [f"data.path={file}", f"learner={learner}", *small])
        for _ in train(asked, run := tmp_path / learner):
            pass
        opened = ornstein.load(run)
        assert opened.about["data"]["missing"] == pytest.approx(0.3, abs=0.05)
        assert bool(opened.sample(8, seed=0).isfinite().all())
        filled = cli("impute", run, tmp_path / "few.npy", "-n", 3, "--force", "--out", tmp_path / "filled.npz")
        assert filled.code == 0, filled
        assert f"{np.isnan(few).sum()} holes in" in filled.out
        with np.load(tmp_path / "filled.npz") as made:
            known = ~np.isnan(few)
            for found in (*made["samples"].swapaxes(0, 1), made["mean"]):  # what is there comes back to the last bit
                assert np.array_equal(found[known], few[known])
                assert np.isfinite(found).all()
            assert (made["std"] > 0).tolist() == (~known).tolist()
        refused = cli("impute", run, tmp_path / "few.npy", "--out", tmp_path / "filled.csv")
        assert refused.code == 2
        assert "filled.csv' must end in .npz" in refused.err
        measured = cli("evaluate", run, "-n", 60)
        assert measured.code == 0, measured
        assert REPORT in measured.out  # it is named where it is written
        page = (run / REPORT).read_text()
        assert "of the data&#39;s cells are missing: what compares with closed forms" in page
        assert not re.search(r"\bnan\b|\binf\b", re.sub(r'base64,[^"]*', "", page))
        examined = set(re.findall("<dt>([a-z-]+)</dt>", page))
        assert {"smallest-noise", "memorisation", "modes-missed", "broken-draws", "sampler"} <= examined
        assert not {"signal-left", "error-by-noise", "curl"} & examined
    with pytest.raises(InputError, match=r"cells missing.*cannot leave out; take ddpm"):
        for _ in train(
            Experiment.read("array", [f"data.path={file}", "predicts=energy", *small]), tmp_path / "e", draws=False
        ):
            pass


def test_nothing_seen_is_a_sentence(tmp_path: Path) -> None:
    x = gaussian(40, 9).float()
    x[7] = math.nan
    np.save(tmp_path / "row.npy", x.numpy())
    with pytest.raises(InputError, match="examples without any value"):
        open_data(tmp_path / "row.npy").load()
    x = gaussian(40, 9).float()
    x[:, 2] = math.nan
    np.save(tmp_path / "column.npy", x.numpy())
    with pytest.raises(InputError, match="feature 2 has no value"):
        open_data(tmp_path / "column.npy").load()
    # a held-out part need not have every feature
    for kind in (np.float32, np.float64):
        whole, other = (gaussian(count, 9).numpy().astype(kind) for count in (40, 8))
        other[:, 2] = math.nan
        np.savez(tmp_path / "parts.npz", x_train=whole, x_test=other)
        assert bool(open_data(tmp_path / "parts.npz").load().test[:, 2].isnan().all())
        np.savez(tmp_path / "parts.npz", x_train=whole, x_test=np.full_like(other, math.nan))
        with pytest.raises(InputError, match="held-out part has no value at all"):
            open_data(tmp_path / "parts.npz").load()


def test_copies_are_found_in_data_with_holes_and_nothing_in_honest_draws(tmp_path: Path) -> None:
    """Draws that are training rows, and draws of the law itself, judged beside rows of which a tenth was not seen."""
    parts = [gaussian(300, seed, 0.1).float() for seed in (3, 4)]
    keep = [part[~part.isnan().all(1)] for part in parts]
    np.savez(tmp_path / "x.npz", x_train=keep[0].numpy(), x_test=keep[1].numpy())
    small = ["net={name: mlp, width: 8, depth: 1, embedding: 8}", "training.steps=2", "training.batch_size=8"]
    for _ in train(
        Experiment.read("array", [f"data.path={tmp_path / 'x.npz'}", *small]), tmp_path / "run", draws=False
    ):
        pass
    run = ornstein.load(tmp_path / "run")
    data = run.load_data()
    seen, fresh = gaussian(300, 3).float()[~parts[0].isnan().all(1)], gaussian(300, 9).float()
    found = {}
    for name, drawn in (("copies", seen), ("honest", fresh)):
        evidence = Evidence(run, data, len(drawn), 0, run.transform.forward(drawn))
        evidence.given = Condition()
        found[name] = there(memorised(evidence))
    assert not found["copies"].healthy
    assert found["honest"].figure == 0


def ou(n: int, length: int, times: tuple[float, ...], seed: int) -> Tensor:
    """Draws of Ornstein-Uhlenbeck processes of these relaxation times, (n, len(times), length) float64."""
    dice = torch.Generator().manual_seed(seed)
    keeps = torch.tensor([math.exp(-1 / tau) for tau in times], dtype=torch.float64)
    x = torch.randn(n, len(times), length, generator=dice, dtype=torch.float64)
    for k in range(1, length):
        x[..., k] = keeps * x[..., k - 1] + (1 - keeps**2).sqrt() * x[..., k]
    return x


def test_the_nearest_known_values_say_all_of_an_ornstein_uhlenbeck_process() -> None:
    """Its conditional law given every known value, by the whole covariance matrix."""
    times, length = (2.0, 11.0), 24
    x = ou(40, length, times, 0)
    known = torch.rand(x.shape, generator=torch.Generator().manual_seed(1)) < 0.25
    known[0] = False
    lags = torch.arange(length, dtype=torch.float64)
    rho = torch.stack([(-lags / tau).exp() for tau in times])
    mean, spread = nearest(x.masked_fill(~known, math.nan), known, rho)
    for row in range(len(x)):
        for k in range(len(times)):
            covariance = rho[k][(lags[:, None] - lags).abs().long()]
            at = known[row, k]
            solved = torch.linalg.solve(covariance[at][:, at], covariance[at])
            left = (1 - (covariance[at] * solved).sum(0)).clamp(min=0).sqrt()
            assert torch.allclose(mean[row, k], solved.T @ x[row, k, at], atol=1e-9)
            assert torch.allclose(spread[row, k][~at], left[~at].clamp(min=LEAST), atol=1e-9)
            assert torch.equal(spread[row, k] == 0, at)
    assert torch.equal(mean[known], x[known])
    # beyond the distances that it knows nothing is said
    some = torch.zeros(1, 2, length, dtype=torch.bool)
    some[..., 0] = True
    mean, spread = nearest(x[:1], some, rho[:, :5])
    assert bool((mean[..., 5:] == 0).all())
    assert bool((spread[..., 5:] == 1).all())
    assert float(spread[0, 0, 4]) < 1


def test_correlations_are_those_of_what_was_seen() -> None:
    x = ou(20_000, 16, (2.0, 11.0), 2)
    x[:, 1] *= 3  # whose scale says nothing
    x = x.masked_fill(torch.rand(x.shape, generator=torch.Generator().manual_seed(3)) < 0.4, math.nan)
    expected = torch.stack([(-torch.arange(16, dtype=torch.float64) / tau).exp() for tau in (2.0, 11.0)])
    assert torch.allclose(correlation(x), expected, atol=0.04)  # three standard errors
    assert bool((correlation(torch.full((5, 1, 4), math.nan)) == 0).all())


@pytest.mark.parametrize("series", [False, True])
def test_what_is_apart_comes_together_again(series: bool) -> None:
    x = ou(400, 20, (3.0, 8.0), 4).float()
    known = torch.rand(x.shape, generator=torch.Generator().manual_seed(5)) < 0.4
    rho = correlation(ou(2000, 20, (3.0, 8.0), 6)).float() if series else None
    given = told(x, known, rho)
    rest = apart(x, given)
    assert torch.equal(rest.isnan(), known)
    assert torch.equal(together(rest, given)[known], x[known])
    assert torch.allclose(together(rest, given), x, atol=1e-5)
    if series:  # of unit variance wherever a cell lies
        near, far = (given[:, 2:] > 0.5) & ~known, given[:, 2:] < 0.2
        for some in (near, far):
            assert float(rest[some].std()) == pytest.approx(1, abs=0.05)
    else:
        assert torch.equal(rest[~known], x[~known])


def test_what_is_taught_of_a_series_is_what_is_left() -> None:
    """Of a series that stays at 5 next to nothing is left, where any of it is known."""
    rho = torch.full((1, 16), 0.9999)
    problem = Problem(VP(), "v", OBJECTIVES["v"](), (1, 16), correlation=rho)
    teach = LEARNERS["filling"](problem)

    class Nothing(nn.Module):
        def forward(self, x: Tensor, noise_level: Tensor, condition: dict[str, Tensor]) -> Tensor:
            return torch.zeros_like(x)

    x0, dice = torch.full((400, 1, 16), 5.0), torch.Generator().manual_seed(0)
    loss = teach.loss(teach.model(Nothing()), x0, None, dice, {})
    untold = ~some_known(400, (1, 16), torch.Generator().manual_seed(0)).flatten(1).any(1)
    assert 80 < int(untold.sum()) < 200
    assert float(loss[~untold].mean()) < 1.2  # the noise alone
    assert float(loss[untold].mean()) > 8
