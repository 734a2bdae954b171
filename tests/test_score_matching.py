"""Score matching: the divergence against brute force, the identities between the losses, and what training finds."""

import dataclasses
import math
import subprocess
import sys
import textwrap
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from laws import PROCESSES, interior, mixture, refused
from torch import nn

from ornstein import EDM, OU, VE, VP, FunctionDenoiser, NetDenoiser, Prediction, Tabulated
from ornstein.core.divergence import divergence, draw_probes
from ornstein.core.grids import ends
from ornstein.objectives import OBJECTIVES
from ornstein.objectives.score_matching import (
    ScoreMatching,
    denoising,
    denoising_loss,
    estimate,
    explicit_loss,
    fisher_divergence,
    implicit,
    implicit_loss,
    sliced,
    sliced_loss,
)

F64 = torch.float64


def seeded(seed: Any = 0) -> Any:
    return torch.Generator().manual_seed(seed)


class Small(nn.Module):
    """Convolution, group norm, fused attention, noise level: what a U-Net has, on (B, 2, 3, 4)."""

    def __init__(self, channels: Any = 4) -> None:
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            self.inp, self.out = nn.Conv2d(2, channels, 3, padding=1), nn.Conv2d(channels, 2, 3, padding=1)
            self.norm, self.level = nn.GroupNorm(2, channels), nn.Linear(1, channels)
            self.qkv = nn.Linear(channels, 3 * channels)
        self.double()

    def forward(self, x: Any, noise_level: Any, condition: Any) -> Any:
        h = F.silu(self.norm(self.inp(x)) + self.level(noise_level[:, None])[:, :, None, None])
        q, k, v = self.qkv(h.flatten(2).transpose(1, 2)).unflatten(-1, (3, 1, -1)).permute(2, 0, 3, 1, 4)
        attended = F.scaled_dot_product_attention(q, k, v)[:, 0]
        return self.out(h + attended.transpose(1, 2).reshape(h.shape))


def brute_force(field: Any, x: Any) -> Any:
    """The trace of each sample's Jacobian, one sample and one element at a time."""
    traces = []
    for i in range(len(x)):
        jacobian = torch.autograd.functional.jacobian(lambda one: field(one[None])[0], x[i])
        traces.append(jacobian.reshape(x[i].numel(), -1).trace())
    return torch.stack(traces)


@pytest.mark.filterwarnings("ignore:There is a performance drop")
@pytest.mark.parametrize("predicts", ["v", "score", "velocity"])
def test_the_exact_trace_is_that_of_the_jacobian_of_pictures(predicts: Any) -> None:
    denoiser = NetDenoiser(Small(), VP(), predicts)
    x = torch.randn(3, 2, 3, 4, generator=seeded(), dtype=F64)
    for read in ("eps", "score", "x0", "velocity"):

        def field(x: Any, read: Any = read) -> Any:
            return getattr(denoiser(x, 0.4), read)

        value, trace = divergence(field, x)
        torch.testing.assert_close(value, field(x))
        torch.testing.assert_close(trace, brute_force(field, x), rtol=1e-9, atol=1e-9)
        # one time per sample; and torch.func's transforms pass through a denoiser too
        t = torch.tensor([0.1, 0.4, 0.9], dtype=F64)
        each = divergence(lambda x, read=read, t=t: getattr(denoiser(x, t), read), x)[1]  # type: ignore[misc]
        torch.testing.assert_close(each[1], trace[1], rtol=1e-9, atol=1e-9)
        jacobian = torch.func.jacrev(field)(x)
        torch.testing.assert_close(torch.einsum("bchwbchw->b", jacobian), trace, rtol=1e-9, atol=1e-9)


def grads(loss: Any, module: Any) -> Any:
    return torch.cat([g.flatten() for g in torch.autograd.grad(loss, list(module.parameters()))])


def test_recomputing_changes_neither_value_nor_gradient() -> None:
    net = Small()
    denoiser, x = NetDenoiser(net, VP(), "v"), torch.randn(3, 2, 3, 4, generator=seeded(), dtype=F64)
    probes = draw_probes(x, 3, "gaussian", seeded())
    for given in (None, probes):
        found = []
        for keep in (0, 2, 10**6):
            value, trace = divergence(lambda x: denoiser(x, 0.4).eps, x, given, keep=keep)
            found.append((trace, value, grads((trace * value.flatten(1).sum(1)).sum(), net)))
        for other in found[1:]:
            for a, b in zip(found[0], other, strict=True):
                torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-10)
        with torch.no_grad():  # nothing to train: the same numbers, and no graph
            value, trace = divergence(lambda x: denoiser(x, 0.4).eps, x, given)
        assert not value.requires_grad
        assert not trace.requires_grad
        torch.testing.assert_close(trace, found[0][0])
        torch.testing.assert_close(value, found[0][1])


def test_memory_is_bounded() -> None:
    """64 passes through a wide network: nothing is kept without gradients, one pass where recomputed, or all 64."""
    code = """
        import re, torch
        from pathlib import Path
        from torch import nn
        from ornstein.core.divergence import divergence
        torch.set_num_threads(1)
        net = nn.Sequential(nn.Linear(64, 512), nn.SiLU(), nn.Linear(512, 64))
        # ru_maxrss would begin at the high-water mark of the process that this one was forked from
        peak = lambda: int(re.search("VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())[1]) / 1024
        divergence(net, torch.randn(2, 64))[1].sum().backward()
        x = torch.randn(256, 64)
        before = peak()
        with torch.no_grad():
            divergence(net, x)
        print(peak() - before)
        for keep in (16, 64):
            divergence(net, x, keep=keep)[1].sum().backward()
            print(peak() - before)
    """
    out = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, check=True)
    none, one, all_ = (float(line) for line in out.stdout.split())
    # measured: 9, 13 and 147 MB
    assert none < 0.3 * all_, out.stdout
    assert one < 0.4 * all_, out.stdout


def finite_differences(loss: Any, parameter: Any, places: Any, h: Any = 1e-5) -> Any:
    found = []
    with torch.no_grad():
        flat = parameter.view(-1)
        for i in places:
            kept = flat[i].item()
            values = []
            for shift in (h, -h):
                flat[i] = kept + shift
                values.append(loss().item())
            flat[i] = kept
            found.append((values[0] - values[1]) / (2 * h))
    return torch.tensor(found, dtype=F64)


@pytest.mark.parametrize(
    "objective",
    [
        implicit(),
        implicit(keep=0),
        implicit(probes=2, law="gaussian"),
        sliced(probes=2),
        sliced(2, reduced=False),
        denoising(),
    ],
    ids=["exact", "recomputed", "hutchinson", "sliced reduced", "sliced", "denoising"],
)
def test_gradients_match_finite_differences(objective: Any) -> None:
    """To the network's parameters, through fused attention and group norm, on a rough batch of pictures."""
    net = Small()
    denoiser, x0 = NetDenoiser(net, VP(), "v"), torch.randn(3, 2, 3, 4, generator=seeded(1), dtype=F64)

    def loss() -> Any:
        return objective(denoiser, x0, None, seeded(2)).sum()

    for parameter in (net.inp.weight, net.qkv.weight, net.level.weight, net.norm.weight):
        (slope,) = torch.autograd.grad(loss(), parameter)
        places = torch.linspace(0, parameter.numel() - 1, 4).long().tolist()
        expected = finite_differences(loss, parameter, places)
        torch.testing.assert_close(slope.flatten()[places], expected, rtol=1e-5, atol=1e-6)


def test_a_score_that_is_itself_a_gradient_trains_too() -> None:
    """An energy's score, -grad E, through every loss: the third derivative of E matches finite differences."""
    weight = torch.tensor([[0.7, -0.3], [0.2, 0.5]], dtype=F64, requires_grad=True)

    def score(x: Any) -> Any:
        with torch.enable_grad():
            at = x if x.requires_grad else x.detach().requires_grad_()
            energy = torch.tanh(at @ weight).square().sum() + 0.1 * at.pow(4).sum()
            return -torch.autograd.grad(energy, at, create_graph=True)[0]

    x = torch.randn(5, 2, generator=seeded(), dtype=F64)
    torch.testing.assert_close(divergence(score, x)[1], brute_force(score, x), rtol=1e-8, atol=1e-8)
    losses: list[Callable[[], torch.Tensor]] = [
        lambda: implicit_loss(score, x).sum(),
        lambda: implicit_loss(score, x, 2, generator=seeded(1)).sum(),
        lambda: sliced_loss(score, x, seeded(1), 2, reduced=False).sum(),
        lambda: denoising_loss(score, x, 0.3, seeded(1)).sum(),
    ]
    for loss in losses:
        (slope,) = torch.autograd.grad(loss(), weight)
        torch.testing.assert_close(slope.flatten(), finite_differences(loss, weight, range(4)), rtol=1e-6, atol=1e-6)


def test_fields_that_do_not_move_have_no_divergence() -> None:
    x = torch.randn(4, 3, generator=seeded())
    assert torch.equal(divergence(torch.ones_like, x)[1], torch.zeros(4))
    half = torch.zeros(3)
    half[0] = 1.0
    # only the first of three numbers depends on x
    torch.testing.assert_close(divergence(lambda x: x**2 * half, x)[1], 2 * x[:, 0])
    # a gradient with respect to where it is taken
    at = x.clone().requires_grad_()
    (slope,) = torch.autograd.grad(divergence(lambda x: x**3 / 3, at)[1].sum(), at)
    torch.testing.assert_close(slope, 2 * x)


@pytest.mark.parametrize("law", ["rademacher", "gaussian"])
def test_probes_agree_with_the_exact_trace_and_vary_as_stated(law: Any) -> None:
    matrix = torch.randn(4, 4, generator=seeded(3), dtype=F64)
    x = torch.zeros(20000, 4, dtype=F64)
    estimates = divergence(lambda x: x @ matrix.T, x, draw_probes(x, 1, law, seeded(4)))[1]
    off = matrix - torch.diag(matrix.diagonal())
    variance = (off**2 + off * off.T).sum() + (2 * matrix.diagonal().square().sum() if law == "gaussian" else 0)
    assert abs(estimates.mean() - matrix.trace()) < 5 * (variance / len(x)).sqrt()
    assert abs(estimates.var() / variance - 1) < 0.1
    four = divergence(lambda x: x @ matrix.T, x, draw_probes(x, 4, law, seeded(5)))[1]
    assert abs(4 * four.var() / variance - 1) < 0.1
    if law == "rademacher":  # exact where the Jacobian is diagonal
        cube = divergence(lambda x: x**3, x + 1, draw_probes(x, 1, law, seeded(6)))[1]
        torch.testing.assert_close(cube, torch.full((20000,), 12.0, dtype=F64))


# ------------------------------------------------------------------------------------------------ identities


def wrong_scores(score: Any) -> Any:
    """The truth, and fields that differ from it in size, direction and shape."""
    turn = torch.tensor([[0.8, -0.5], [0.4, 1.1]], dtype=F64)
    return {
        "exact": score,
        "shrunk": lambda x: 0.6 * score(x),
        "turned": lambda x: score(x) @ turn.T,
        "bent": lambda x: score(x) + torch.sin(2 * x) - 0.3,
        "constant": lambda x: torch.full_like(x, 0.4),
    }


def zero(differences: Any, k: Any = 5.0) -> Any:
    """Whether numbers have mean zero within k standard errors; and are no trivial zeros."""
    error = differences.std() / math.sqrt(len(differences))
    assert error > 0
    return abs(differences.mean()) < k * error


def score_of(mix: Any) -> Any:
    """grad log p of a mixture by autograd of its density."""

    def score(x: Any) -> Any:
        with torch.enable_grad():
            at = x if x.requires_grad else x.detach().requires_grad_()
            return torch.autograd.grad(mix.log_prob(at).sum(), at, create_graph=True)[0]

    return score


def test_all_losses_are_the_explicit_one_up_to_their_constants() -> None:
    """On the mixture, for the true score and for wrong ones, sample for sample with one set of draws."""
    mix, n = mixture(), 6000
    x, reference = mix.sample(n, seeded(7)).double(), score_of(mix)
    r = reference(x).detach()
    known = 0.5 * r.square().sum(1)  # J_explicit = J_implicit + 1/2 E|r|^2
    for name, score in wrong_scores(reference).items():
        with torch.no_grad():
            explicit = explicit_loss(score, x, reference) - known
            for values in (
                implicit_loss(score, x),
                implicit_loss(score, x, 1, "gaussian", seeded(8)),
                sliced_loss(score, x, seeded(9)),
                sliced_loss(score, x, seeded(10), 2, "gaussian", reduced=False),
            ):
                assert zero(values - explicit), name


@pytest.mark.parametrize("sigma", [0.1, 0.7])
def test_denoising_is_the_explicit_loss_of_the_noisy_data(sigma: Any) -> None:
    mix, n = mixture(), 20000
    level = EDM().at(sigma)
    exact = mix.denoiser(EDM())
    x0 = mix.sample(n, seeded(11)).double()
    z = torch.randn(x0.shape, generator=seeded(12), dtype=F64)  # the draw that denoising_loss makes
    xt = x0 + sigma * z
    r = exact(xt, level).score
    constant = 0.5 * (r + z / sigma).square().sum(1)
    for name, score in wrong_scores(exact.score_at(sigma)).items():
        values = denoising_loss(score, x0, sigma, seeded(12))
        explicit = explicit_loss(score, xt, exact.score_at(sigma))
        if name == "exact":
            torch.testing.assert_close(values, constant)
        else:
            assert zero(values - explicit - constant), name


def family(exact: Any) -> Any:
    """A denoiser with three numbers to learn, which is exact at (0, 0, 0)."""

    def make(theta: Any) -> Any:
        def answer(x: Any, level: Any, condition: Any) -> Any:
            # an error of the score that is of the score's own size at every level
            error = (
                theta[0] * exact(x, level).score + theta[1] * torch.sin(2 * x) / level.sigma + theta[2] / level.sigma
            )
            return exact(x, level).x0 + level.sigma**2 / level.alpha * error

        return FunctionDenoiser(answer, exact.process)

    return make


METHODS = {
    "implicit": implicit(),
    "implicit, probes": implicit(probes=2),
    "sliced": sliced(),
    "sliced, plain": sliced(reduced=False),
    "denoising": denoising(),
    "denoising, unweighted at one level": denoising(weight="one", sigma=0.5),
    "implicit, likelihood": implicit(weight="g2", times="uniform"),
    "implicit at one level": implicit(sigma=0.3),
}


def smooth(mix: Any) -> Any:
    """The exact denoiser in plain differentiable operations, so that it has second derivatives."""

    def answer(x: Any, level: Any, condition: Any) -> Any:
        def term(k: Any) -> Any:
            cov = mix_cov[k] * level.alpha[..., None] ** 2 + level.sigma[..., None] ** 2 * eye
            away = x - level.alpha * mix.means[k]
            solved = torch.linalg.solve(cov, away[..., None])[..., 0]
            log = mix.log_weights[k] - 0.5 * ((away * solved).sum(-1) + torch.logdet(cov))
            return log, mix.means[k] + level.alpha * solved @ mix_cov[k]

        logs, means = zip(*(term(k) for k in range(len(mix.means))), strict=True)
        r = torch.stack(logs, 1).softmax(1)
        return (r[..., None] * torch.stack(means, 1)).sum(1)

    eye = torch.eye(mix.d, dtype=F64)
    mix_cov = torch.einsum("kir,kr,kjr->kij", mix.basis, mix.spread, mix.basis)
    return answer


@pytest.mark.parametrize("name", ["vp", "ladder"])
@pytest.mark.parametrize("method", METHODS)
def test_every_objective_is_minimised_by_the_exact_denoiser(method: Any, name: Any) -> None:
    """The mean gradient vanishes there, within its standard error, and the curvature is positive."""
    objective, process = METHODS[method], PROCESSES[name]
    if objective.weight == "g2" and process.chain:
        objective = dataclasses.replace(objective, weight="sigma2")  # a table of levels has no rate
    mix = mixture()
    answer = smooth(mix)
    make = family(FunctionDenoiser(answer, process))
    x0 = mix.sample(1500, seeded(13)).double()
    n = len(x0)

    def loss(theta: Any) -> Any:
        return objective(make(theta), x0, None, seeded(14))

    theta = torch.zeros(3, dtype=F64)
    # one theta per sample gives one gradient per sample
    rows = torch.zeros(3, n, 1, dtype=F64, requires_grad=True)
    (each,) = torch.autograd.grad(loss(rows).sum(), rows)
    each = each[..., 0]
    error = each.std(1) / math.sqrt(n)
    assert (error > 0).all()
    assert (each.mean(1).abs() < 5 * error).all(), (each.mean(1), error)
    hessian = torch.autograd.functional.hessian(lambda theta: loss(theta).mean(), theta)
    assert torch.linalg.eigvalsh(hessian).min() > 0
    # so the minimiser of this sample's loss, a quadratic, lies within its error of the truth
    away = torch.linalg.solve(hessian, each.mean(1))
    spread = torch.linalg.solve(hessian, torch.linalg.solve(hessian, torch.cov(each) / n).T).diagonal().sqrt()
    assert (away.abs() < 5 * spread).all(), (away, spread)


@pytest.mark.parametrize("name", ["vp", "ve", "flow", "ladder", "betas"])
@pytest.mark.parametrize("weight", ["sigma2", "one"])
def test_implicit_and_denoising_differ_by_the_weight_of_the_noise(name: Any, weight: Any) -> None:
    """E lambda |s + eps/sigma|^2/d = E lambda (|s|^2 + 2 div s)/d + lambda/sigma^2, at every level, for any score."""
    process, mix = PROCESSES[name], mixture()
    denoiser = FunctionDenoiser(lambda x, level, condition: 0.5 * torch.tanh(x) + 0.2 * x[:, [1, 0]], process)
    x0 = mix.sample(4000, seeded(15)).double()
    eps = torch.randn(x0.shape, generator=seeded(16), dtype=F64)
    probes = draw_probes(x0, 2, "rademacher", seeded(17))
    for t in interior(process, 3).tolist():
        level = process.at(t)
        constant = 1 / level.sigma**2 if weight == "one" else 1.0
        target = denoising(weight=weight).loss_at(denoiser, x0, t, eps, None)
        for objective, given in ((implicit(weight=weight), None), (sliced(weight=weight, reduced=False), probes)):
            values = objective.loss_at(denoiser, x0, t, eps, None, given)
            assert zero(values + constant - target), t


def test_denoising_over_the_clock_is_the_regression_of_the_noise() -> None:
    """The losses are in one unit: lambda = sigma^2 is Ho's L_simple, by draw."""
    mix = mixture()
    x0 = mix.sample(64, seeded(18))
    denoiser = FunctionDenoiser(lambda x, level, condition: torch.tanh(x), VP())
    a = denoising()(denoiser, x0, None, seeded(19))
    torch.testing.assert_close(a, OBJECTIVES["ddpm"]()(denoiser, x0, None, seeded(19)), rtol=1e-4, atol=1e-5)
    b = denoising(times="log-snr")(denoiser, x0, None, seeded(19))
    torch.testing.assert_close(b, OBJECTIVES["score"]()(denoiser, x0, None, seeded(19)), rtol=1e-4, atol=1e-5)


def test_the_weight_of_a_level_is_the_one_named() -> None:
    mix = mixture()
    x0, process = mix.sample(8, seeded(20)).double(), VE()
    denoiser = FunctionDenoiser(lambda x, level, condition: torch.tanh(x), process)
    eps = torch.randn(x0.shape, generator=seeded(21), dtype=F64)
    t = torch.linspace(0.1, 0.9, 8, dtype=F64)
    level = process.at(t, like=x0)
    for make in (denoising, implicit, sliced):
        plain = make(weight="one")
        probes = draw_probes(x0, 1, "rademacher", seeded(22)) if make is sliced else None
        given: tuple[Any, ...] = (denoiser, x0, t, eps, None) + (() if make is denoising else (probes,))
        base = plain.loss_at(*given)
        for weight, factor in (("sigma2", level.sigma**2), ("g2", level.g2)):
            got = make(weight=weight).loss_at(*given)
            torch.testing.assert_close(got, factor.flatten() * base, rtol=1e-9, atol=1e-12)


def test_the_trace_of_implicit_is_exact_unless_probes_are_asked_for() -> None:
    denoiser = FunctionDenoiser(lambda x, level, condition: torch.tanh(x.flip(1) + x), VE())
    x0 = mixture().sample(8, seeded(20)).double()
    plain, exact, probed = (make(denoiser, x0, None, seeded(23)) for make in (implicit(), implicit(0), implicit(1)))
    assert torch.equal(plain, exact)
    assert not torch.allclose(plain, probed)


@pytest.mark.parametrize("name", [n for n in PROCESSES if n in ("vp", "edm", "flow", "betas", "ladder")])
def test_one_level_is_the_level_named(name: Any) -> None:
    process, seen = PROCESSES[name], []

    def answer(x: Any, level: Any, condition: Any) -> Any:
        seen.append(level.noise_ratio)
        return 0.1 * x

    ratio = process.at(float(interior(process, 3)[1])).noise_ratio
    for make in (denoising, implicit, sliced):
        seen.clear()
        objective = make(sigma=ratio)
        objective(FunctionDenoiser(answer, process), torch.ones(4, 2, dtype=F64), None, seeded())
        torch.testing.assert_close(seen[0].flatten(), torch.full((4,), ratio, dtype=F64), rtol=1e-9, atol=0)
        assert objective.draw_times(process, 4, seeded()).shape == (4,)


@pytest.mark.parametrize("objective", METHODS.values(), ids=METHODS)
def test_times_are_the_first_draw_and_labels_pass(objective: Any) -> None:
    """What the training loop relies on to say which noise levels a bad batch had."""
    asked = []

    def answer(x: Any, level: Any, condition: Any) -> Any:
        asked.append((level.t.flatten(), condition.parts["label"]))
        return 0.1 * x

    labels = torch.arange(40)
    objective = dataclasses.replace(objective, drop_label=0.5)
    objective(FunctionDenoiser(answer, VP()), torch.ones(40, 2, dtype=F64), labels, seeded(23))
    times = objective.draw_times(VP(), 40, seeded(23))
    torch.testing.assert_close(asked[0][0], times)
    low, high = ends(VP())
    assert times.min() >= low * (1 - 1e-9)
    assert times.max() <= high
    kept = asked[0][1]
    assert ((kept == labels) | (kept == -1)).all()
    assert 5 < (kept == -1).sum() < 35


def test_a_ladder_is_visited_level_by_level() -> None:
    process = Tabulated.from_sigmas(steps=8)
    times = denoising().draw_times(process, 64, seeded())
    assert times.unique().tolist() == list(range(1, 9))


# ------------------------------------------------------------------------------------------------- measures


def test_fisher_divergence_of_two_gaussians_is_the_closed_form() -> None:
    """Samples of N(m, v), scores of N(0, 1) and N(m, v): 1/2 E|x(1/v - 1) - m/v|^2 = 1/2 ((1 - v)^2/v + m^2)."""
    m, v, n = 0.7, 0.4, 40000
    x = m + math.sqrt(v) * torch.randn(n, 1, generator=seeded(24), dtype=F64)
    found = fisher_divergence(lambda x: -x, x, lambda x: -(x - m) / v)
    expected = 0.5 * ((1 - v) ** 2 / v + m**2)
    assert abs(found.value - expected) < 5 * found.standard_error
    assert 0 < found.standard_error < 0.02
    # and so are the implicit values: E[1/2 x^2 - 1] for the score -x
    for loss in (lambda x: implicit_loss(lambda x: -x, x), lambda x: sliced_loss(lambda x: -x, x, seeded(25))):
        found = estimate(loss, x)
        assert abs(found.value - (0.5 * (v + m**2) - 1)) < 5 * found.standard_error


def test_standard_errors_are_those_of_the_estimates() -> None:
    """Over 60 repetitions the estimates scatter as their errors say."""
    mix = mixture()
    score = score_of(mix)
    found = [
        fisher_divergence(lambda x: 0.5 * score(x), mix.sample(300, seeded(100 + i)).double(), score) for i in range(60)
    ]
    values = torch.tensor([e.value for e in found])
    claimed = torch.tensor([e.standard_error for e in found]).square().mean().sqrt()
    assert abs(values.std() / claimed - 1) < 5 / math.sqrt(2 * 60)
    assert str(found[0]).count("±") == 1


def test_measures_do_not_depend_on_the_batch_and_keep_no_graph() -> None:
    mix = mixture()
    exact, x = mix.denoiser(VP()), mix.sample(500, seeded(26)).double()
    net = nn.Linear(2, 2).double()
    a = fisher_divergence(net, x, exact.score_at(0.3), batch=7)
    b = fisher_divergence(net, x, exact.score_at(0.3), batch=500)
    assert a.value == pytest.approx(b.value, rel=1e-12)
    a, b = (estimate(lambda x: implicit_loss(net, x), x, batch) for batch in (7, 500))
    assert a.value == pytest.approx(b.value, rel=1e-12)


def test_a_score_that_has_diverged_is_reported() -> None:
    x = torch.randn(50, 2, generator=seeded())
    refused(lambda: fisher_divergence(lambda x: x / 0, x, lambda x: x), "not finite", "50 of 50", "learning rate")
    refused(lambda: estimate(lambda x: implicit_loss(lambda x: x.sqrt(), x), x), "not finite")


# ------------------------------------------------------------------------------------------------- training


class Tiny(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(1)
            self.body = nn.Sequential(nn.Linear(4, 48), nn.Tanh(), nn.Linear(48, 48), nn.Tanh(), nn.Linear(48, 2))

    def forward(self, x: Any, noise_level: Any, condition: Any) -> Any:
        level = noise_level[:, None]
        return self.body(torch.cat([x, level, level.sigmoid()], 1))


@pytest.mark.parametrize("method", ["implicit", "sliced", "sliced, plain", "denoising"])
def test_training_finds_the_score(method: Any) -> None:
    """A small network on the mixture, over a ladder, by each method: its Fisher divergence to the truth falls."""
    mix, process = mixture(), Tabulated.from_sigmas(steps=6, sigma_min=0.3, sigma_max=3.0)
    exact = mix.denoiser(process)
    net = Tiny()
    denoiser = NetDenoiser(net, process, "eps", exact.sigma_data)
    optimiser = torch.optim.Adam(net.parameters(), 4e-3)
    g = seeded(27)
    held_out = {t: process.at(t).noised(mix.sample(2000, g), torch.randn(2000, 2, generator=g)) for t in (2.0, 4.0)}

    def distance() -> Any:
        return {
            t: fisher_divergence(denoiser.score_at(t), x, exact.score_at(t)).value * process.at(t).sigma ** 2
            for t, x in held_out.items()
        }

    before = distance()
    for _ in range(160):
        optimiser.zero_grad()
        METHODS[method](denoiser, mix.sample(256, g), None, g).mean().backward()
        optimiser.step()
    after = distance()
    for t in before:
        assert after[t] < 0.4 * before[t], (t, before, after)


# -------------------------------------------------------------------------------------------------- refusals


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: ScoreMatching("explicit"), ["method='explicit'", "implicit"]),
        (lambda: sliced(probes=0), ["probes=0", "at least 1"]),
        (lambda: implicit(probes=-1), ["probes=-1"]),
        (lambda: implicit(probes=1.5), ["probes=1.5"]),  # type: ignore[arg-type]
        (lambda: implicit(1, "gausian"), ["law='gausian'", "gaussian"]),
        (lambda: denoising(weight="sigma"), ["weight='sigma'", "sigma2"]),
        (lambda: denoising(sigma=0.0), ["sigma=0.0", "positive"]),
        (lambda: denoising(sigma=math.nan), ["sigma=nan"]),
        (lambda: denoising(times="log"), ["times='log'"]),
        (lambda: denoising(drop_label=2.0), ["drop_label=2.0"]),
        (lambda: implicit_loss(lambda x: x, torch.ones(2, 2), 1), ["generator=None"]),
        (lambda: sliced_loss(lambda x: x, torch.ones(2, 2), seeded(), 0), ["probes=0"]),
        (lambda: denoising_loss(lambda x: x, torch.ones(2, 2), 0.0, seeded()), ["sigma=0.0"]),
        (lambda: denoising(sigma=100.0).draw_times(EDM(), 2, seeded()), ["sigma=100", "80"]),
        (lambda: denoising(times="chain-uniform").draw_times(OU(), 2, seeded()), ["chain-uniform", "continuous"]),
    ],
)
def test_nonsense_is_refused(make: Any, words: Any) -> None:
    refused(make, *words)


def test_predictions_are_what_the_losses_take() -> None:
    """The loss is stated in the noise; the score that a Prediction gives is minus that over sigma."""
    level = VP().at(0.3)
    x = torch.randn(3, 2, generator=seeded(), dtype=F64)
    p = Prediction(torch.tanh(x), x, level)
    torch.testing.assert_close(p.score, -p.eps / level.sigma)
