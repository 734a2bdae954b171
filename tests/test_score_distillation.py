"""Score distillation: its gradient is that of the KL it states, its optima are where theory puts them; renderers."""

import math
from collections.abc import Mapping
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from laws import cover
from torch import Tensor

from ornstein.core.chains import Tabulated
from ornstein.core.clocks import EDM, VP, Flow
from ornstein.core.condition import Condition
from ornstein.core.denoiser import Denoiser, FunctionDenoiser, NetDenoiser
from ornstein.core.drive import trajectory
from ornstein.core.exact import Empirical, Gaussian, GaussianMixture
from ornstein.core.grids import times
from ornstein.core.process import Level, Process
from ornstein.distill.renderers import RENDERERS, VIEW, Pixels, Strokes, Volume, view_of
from ornstein.distill.score import LAWS, SCORE_DISTILLATIONS, WEIGHTS, Learned, Moment, ScoreDistillation, dream
from ornstein.errors import InputError
from ornstein.guidance import ClassifierFree
from ornstein.nets import MLP
from ornstein.samplers import DDIM

F64 = torch.float64
CLOCKS: dict[str, Process] = {"vp": VP(), "flow": Flow(), "edm": EDM(), "betas": Tabulated.from_betas("linear", 960)}
MIX = GaussianMixture(
    torch.tensor([0.3, 0.7]),
    torch.tensor([[1.0, 0.2], [-0.8, 0.5]]),
    torch.tensor([[[0.3, 0.1], [0.1, 0.2]], [[0.1, 0.0], [0.0, 0.4]]]),
)


def nodes(count: int = 40) -> tuple[Tensor, Tensor]:
    """eps (count^2, 2) and their weights, exact for polynomials of a degree below 2 count: Gauss-Hermite."""
    at, weight = (torch.from_numpy(v) for v in np.polynomial.hermite_e.hermegauss(count))
    weight = weight / weight.sum()
    return torch.cartesian_prod(at, at), torch.outer(weight, weight).flatten()


def mean_pull(by: ScoreDistillation, denoiser: Denoiser, own: Denoiser, x: Tensor, t: float, given: Any = None) -> Any:
    """The gradient by one x (2,), averaged over the noise by quadrature."""
    eps, weight = nodes()
    many = x.expand(len(eps), 2)
    level = denoiser.process.at(torch.full((len(eps),), t, dtype=F64), like=many)
    return weight @ by.pull(denoiser, own, many, level, eps, Condition.of(given))


def own_law(name: str, denoiser: Denoiser, x: Tensor) -> Denoiser:
    return LAWS[name](denoiser)(x, Condition(), torch.Generator())


def generator_of(theta: Tensor) -> Tensor:
    """A render of two numbers from three parameters, not linear in them."""
    return torch.stack([theta[0].sin() + theta[1] * theta[2], theta[2].exp() - theta[0] * theta[1]])


@pytest.mark.parametrize("weight", WEIGHTS)
@pytest.mark.parametrize("law", ["point", "gaussian"])
def test_the_gradient_is_that_of_the_weighted_kl_by_finite_differences(law: str, weight: str) -> None:
    process, theta, t = VP(), torch.tensor([0.4, -0.7, 0.3], dtype=F64), 0.35
    denoiser, by = MIX.denoiser(process), ScoreDistillation(law=law, weight=weight)
    level = process.at(t)
    eps, shares = nodes()

    def kl(theta: Tensor) -> float:
        """lambda KL(N(alpha x, sigma^2 I) || p_t): the entropy of the first is the same for all x."""
        noisy = level.alpha * generator_of(theta) + level.sigma * eps
        q = torch.tensor(level.noise_ratio / denoiser.unit, dtype=F64)
        scale = float(WEIGHTS[weight](q)) * (level.sigma / level.alpha) ** 2
        return -scale * float(shares @ MIX.log_prob(noisy, level))

    h = 1e-5
    steps = h * torch.eye(3, dtype=F64)
    wanted = torch.tensor([(kl(theta + d) - kl(theta - d)) / (2 * h) for d in steps])
    x = generator_of(theta)
    pull = mean_pull(by, denoiser, own_law(law, denoiser, x.expand(len(eps), 2)), x, t)
    found = torch.autograd.functional.jacobian(generator_of, theta).T @ pull.double()
    assert wanted.norm() > 0.02
    assert (found - wanted).norm() < 1e-5 * wanted.norm() + 1e-6


@pytest.mark.parametrize("unit", [1.0, 2.5])
def test_the_weights_are_those_that_people_know_by_their_names(unit: float) -> None:
    process, g = VP(), torch.Generator().manual_seed(0)
    x, eps = torch.randn(2, 9, 2, generator=g, dtype=F64)
    level = process.at(torch.linspace(0.05, 0.95, 9, dtype=F64), like=x)
    denoiser = FunctionDenoiser(lambda xt, at, given: 0.3 * xt.sin(), process, unit)
    told = denoiser.predict(level.noised(x, eps), level, Condition())
    off, in_units = told.eps - eps, (level.alpha * unit) ** 2 + level.sigma**2
    wanted = {
        "sds": level.sigma**2 * off * unit / in_units,  # DreamFusion's, of data of deviation one
        "eps": unit * off,
        "x0": x - told.x0,
        "kl": unit**2 * level.alpha / level.sigma * off,  # unit^2 times a KL in nats, whose gradient is -alpha score
    }
    assert wanted.keys() == WEIGHTS.keys()
    for weight, value in wanted.items():
        found = ScoreDistillation(weight=weight).pull(
            denoiser, own_law("point", denoiser, x), x, level, eps, Condition()
        )
        assert (found - value).abs().max() < 1e-9 * value.abs().max(), weight


@pytest.mark.parametrize("clock", ["vp", "flow"])
def test_the_gradient_of_particles_is_that_of_the_kl_of_their_mixture(clock: str) -> None:
    process, t = CLOCKS[clock], 0.45
    x = torch.tensor([[0.6, 0.1], [-0.5, 0.8], [0.2, -0.4]], dtype=F64)
    denoiser, by, level = MIX.denoiser(process), ScoreDistillation(law="particles", weight="x0"), process.at(t)
    eps, shares = nodes()

    def kl(x: Tensor) -> float:
        law, noisy = Empirical(x), level.alpha * x[:, None] + level.sigma * eps
        apart = law.log_prob(noisy.flatten(0, 1), level) - MIX.log_prob(noisy.flatten(0, 1), level)
        return float((apart.reshape(3, -1) @ shares).mean()) * (level.sigma / level.alpha) ** 2

    own, h = own_law("particles", denoiser, x), 1e-5
    for i in range(3):
        found = mean_pull(by, denoiser, own, x[i], t) / 3  # each is a third of the law
        for k in range(2):
            step = torch.zeros_like(x)
            step[i, k] = h
            wanted = (kl(x + step) - kl(x - step)) / (2 * h)
            assert abs(float(found[k]) - wanted) < 1e-5 * max(1.0, abs(wanted)), (i, k)
    # those that are asked for otherwise are of another law
    two = LAWS["particles"](denoiser)(x, Condition.of(torch.tensor([0, 1, 0])), torch.Generator())
    pair = own_law("particles", denoiser, x[::2])
    level3 = process.at(torch.full((3,), t, dtype=F64), like=x)
    assert (two.predict(x, level3, Condition()).x0[1] - x[1]).abs().max() < 1e-6
    level2 = process.at(torch.full((2,), t, dtype=F64), like=x[::2])
    apart = two.predict(x, level3, Condition()).x0[::2] - pair.predict(x[::2], level2, Condition()).x0
    assert apart.abs().max() < 1e-6
    alone = mean_pull(by, denoiser, own_law("point", denoiser, x[:1]), x[0], t)
    assert (alone / 3 - mean_pull(by, denoiser, own, x[0], t) / 3).norm() > 0.05  # they do repel each other


def test_what_is_differentiated_is_the_pull_at_the_levels_and_with_the_noise_of_the_generator() -> None:
    denoiser, by = MIX.denoiser(VP()), ScoreDistillation()
    x = torch.randn(6, 2, generator=torch.Generator().manual_seed(3)).requires_grad_(True)
    own = own_law("point", denoiser, x.detach())
    loss = by(denoiser, x, None, torch.Generator().manual_seed(5), own)
    loss.sum().backward()
    dice = torch.Generator().manual_seed(5)
    t = by.times(denoiser, 6, dice)
    eps = torch.randn(6, 2, generator=dice)
    level = denoiser.process.at(t, like=x.detach())
    wanted = by.pull(denoiser, own, x.detach(), level, eps, Condition())
    assert x.grad is not None
    assert (x.grad - wanted).abs().max() < 1e-6
    assert (loss.detach() - wanted.square().sum(1) / 2).abs().max() < 1e-6


@pytest.mark.parametrize("clock", CLOCKS)
def test_levels_lie_evenly_in_flow_time_on_every_clock_and_fall_where_they_are_to(clock: str) -> None:
    denoiser, dice = MIX.denoiser(CLOCKS[clock]), torch.Generator().manual_seed(0)
    low, high = 0.1, 4.0
    slack = 0.02 if denoiser.process.chain else 1e-6  # a chain has whole levels

    def place(t: Tensor) -> Tensor:
        q = (-0.5 * denoiser.process.log_snr(t)).exp() / denoiser.unit
        return q / (1 + q)

    u = place(ScoreDistillation(noise=(low, high)).times(denoiser, 400, dice))
    turned = u
    u = u.sort().values
    ends = low / (1 + low), high / (1 + high)
    assert (u - torch.linspace(*ends, 400, dtype=F64)).abs().max() < (ends[1] - ends[0]) / 400 + slack
    assert (turned[0] - ends[0]) > 0.05  # no render has a stratum of its own
    falling = ScoreDistillation(noise=(low, high), falls=True)
    for progress in (0.0, 0.3, 1.0):
        u = place(falling.times(denoiser, 3, dice, progress))
        assert (u - (ends[1] + progress * (ends[0] - ends[1]))).abs().max() < slack
    whole = ScoreDistillation(noise=(1e-9, 1e9)).times(denoiser, 50, dice)
    assert 0 < whole.min() < whole.max() <= denoiser.process.t_max


def last(*args: Any, **options: Any) -> Moment:
    *_, moment = dream(*args, **options)
    return moment


def pixels(parameters: Mapping[str, Tensor], generator: torch.Generator) -> Tensor:
    return parameters["pixels"]


@pytest.mark.parametrize(("clock", "method"), cover(CLOCKS, ["sds", "controlled"]))
def test_on_a_gaussian_the_optimum_is_its_mean(clock: str, method: str) -> None:
    mean = torch.tensor([0.7, -1.1])
    denoiser = Gaussian(mean, torch.tensor([[0.5, 0.2], [0.2, 0.3]])).denoiser(CLOCKS[clock])
    leaf = {"pixels": torch.zeros(64, 2)}
    by, dice = SCORE_DISTILLATIONS[method](), torch.Generator().manual_seed(0)
    last(denoiser, pixels, leaf, by=by, generator=dice, steps=150, lr=0.1)
    x = leaf["pixels"].detach()
    assert (x.mean(0) - mean).abs().max() < 0.03
    assert x.std(0).max() < 0.15  # where they began together, and where the data have 0.7


def test_a_control_takes_all_the_noise_away_on_data_that_are_round_and_none_of_the_gradient() -> None:
    mean, deviation, t = torch.tensor([0.5, -0.3], dtype=F64), 0.6, 0.4
    denoiser: Any = Gaussian(mean, deviation**2).denoiser(VP())
    # what noise is measured in must be the deviation about the mean, which is near that about zero for pictures
    denoiser = FunctionDenoiser(lambda x, level, given: denoiser_of(x, level), VP(), deviation)
    exact = Gaussian(mean, deviation**2)

    def denoiser_of(x: Tensor, level: Level) -> Tensor:
        return exact.posterior_mean(x, level)

    x = torch.tensor([1.0, 0.2], dtype=F64).expand(500, 2)
    eps = torch.randn(500, 2, generator=torch.Generator().manual_seed(0), dtype=F64)
    level = VP().at(torch.full((500,), t, dtype=F64), like=x)
    by = ScoreDistillation(weight="x0")
    found = {law: by.pull(denoiser, own_law(law, denoiser, x), x, level, eps, Condition()) for law in
             ("point", "gaussian")}  # fmt: skip
    k = float((level.alpha * deviation**2 / ((level.alpha * deviation) ** 2 + level.sigma**2))[0])
    assert found["gaussian"].std(0).max() < 1e-9
    assert (found["point"].std(0) / (k * float(level.sigma[0])) - 1).abs().max() < 0.1
    assert (found["gaussian"][0] - (1 - k * float(level.alpha[0])) * (x[0] - mean)).abs().max() < 1e-9


@pytest.mark.parametrize("scale", [0.0, 1.0, 2.0, 7.5])
@pytest.mark.parametrize("t", [0.2, 0.6, 0.95])
def test_guidance_drives_a_point_to_where_the_closed_form_says(scale: float, t: float) -> None:
    narrow, wide, m, process = 0.09, 1.0, torch.tensor([0.8, -0.4], dtype=F64), VP()

    def answer(x: Tensor, level: Level, given: Condition) -> Tensor:
        """N(m, narrow) given a label, N(0, wide) without: as if the means of labels spread about zero."""
        labelled = ~given.absent("label")[:, None]
        mean, variance = torch.where(labelled, m, 0.0), torch.where(labelled, narrow, wide)
        gain = level.alpha * variance / (level.alpha**2 * variance + level.sigma**2)
        return mean + gain * (x - level.alpha * mean)

    level = process.at(t)
    near, far = (level.alpha**2 * v + level.sigma**2 for v in (narrow, wide))
    stays = scale * m / near / (scale / near - (scale - 1) / far)
    guided = ClassifierFree(FunctionDenoiser(answer, process), scale)
    by, own, labels = ScoreDistillation(), own_law("point", guided, stays.expand(1600, 2)), torch.zeros(1600).long()
    assert mean_pull(by, guided, own, stays, t, labels).abs().max() < 1e-7
    aside = stays + 0.1
    pull = mean_pull(by, guided, own_law("point", guided, aside.expand(1600, 2)), aside, t, labels)
    assert (pull > 1e-4).all()  # whoever is elsewhere is driven back: descent goes against the pull
    if t == 0.95 and scale > 1:
        assert (stays / m - scale).abs().max() < 0.1 * scale  # w times as far from the mean of all


def test_guided_on_a_labelled_pair_it_arrives_where_the_mean_pull_vanishes() -> None:
    pair = GaussianMixture(torch.ones(2), torch.tensor([[0.9, 0.0], [-0.9, 0.0]]), torch.full((2,), 0.05))
    labels, found = torch.zeros(1600).long(), []
    for scale in (1.0, 3.0):
        guided = ClassifierFree(pair.denoiser(Flow()), scale)
        by = SCORE_DISTILLATIONS["controlled"](noise=(0.999, 1.001))
        leaf, dice = {"pixels": torch.zeros(64, 2)}, torch.Generator().manual_seed(0)
        last(guided, pixels, leaf, labels[:64], by=by, generator=dice, steps=120, lr=0.1)
        t = float(by.times(guided, 1, dice)[0])
        low, high = 0.0, 5.0
        for _ in range(25):  # along the line of the two means, bisected
            middle = torch.tensor([(low + high) / 2, 0.0], dtype=F64)
            own = own_law("point", guided, middle.expand(1600, 2))
            ahead = float(mean_pull(by, guided, own, middle, t, labels)[0]) < 0
            low, high = (float(middle[0]), high) if ahead else (low, float(middle[0]))
        found.append(low)
        assert (leaf["pixels"].detach().mean(0) - torch.tensor([low, 0.0])).abs().max() < 0.03
    assert abs(found[0] - 0.9) < 1e-5  # scale 1 is the conditional Gaussian, whose optimum is its mean
    assert found[1] > 1.05


def test_levels_that_fall_and_noise_that_stays_are_ddim_to_the_last_digit() -> None:
    process = VP()
    denoiser, by = MIX.denoiser(process), ScoreDistillation(weight="x0")
    dice = torch.Generator().manual_seed(0)
    eps, start = torch.randn(2, 16, 2, generator=dice, dtype=F64)
    grid = times(process, 20, "flow", 1.0)
    walked = trajectory(denoiser, (16, 2), DDIM(), steps=20, grid=grid, x=start, seeds=torch.arange(16), dtype=F64)
    states = [state.x for state in walked]
    levels = [process.at(t.expand(16), like=start) for t in grid[:-1]]
    x = (start - levels[0].sigma * eps) / levels[0].alpha
    for (t, s), state in zip(pairwise(levels), states[1:-1], strict=True):
        own = own_law("point", denoiser, x)
        x = x - (1 - s.noise_ratio / t.noise_ratio) * by.pull(denoiser, own, x, t, eps, Condition())
        assert (s.alpha * x + s.sigma * eps - state).abs().max() < 1e-6  # the exact denoiser answers in float32
    assert (states[0] - states[-2]).abs().max() > 1


def test_a_law_in_closed_form_lets_a_gaussian_generator_learn_the_spread_and_a_point_does_not() -> None:
    mean, covariance = torch.tensor([0.4, -0.6]), torch.tensor([[0.6, 0.25], [0.25, 0.3]])
    denoiser, by = Gaussian(mean, covariance).denoiser(EDM()), ScoreDistillation(weight="kl", noise=(0.3, 3.0))
    found = {}
    for name in ("gaussian", "point"):
        dice = torch.Generator().manual_seed(0)
        a, b = torch.eye(2).requires_grad_(True), torch.zeros(2).requires_grad_(True)
        optimiser = torch.optim.Adam([a, b], 0.03)
        for _ in range(200):
            x = b + torch.randn(256, 2, generator=dice) @ a.T
            own: Denoiser = Gaussian(b.detach(), (a @ a.T).detach()).denoiser(EDM())
            own = own if name == "gaussian" else own_law("point", denoiser, x.detach())
            optimiser.zero_grad()
            by(denoiser, x, None, dice, own).mean().backward()
            optimiser.step()
        found[name] = (a @ a.T).detach()
        assert (b.detach() - mean).abs().max() < 0.1
    assert (found["gaussian"] - covariance).abs().max() < 0.05
    assert found["point"].abs().max() < 0.05  # all at the mean


def test_particles_spread_as_a_gaussian_does_where_points_meet_at_its_mean() -> None:
    denoiser, deviations = Gaussian(torch.tensor([1.0]), torch.tensor([0.5])).denoiser(EDM()), {}
    for method in ("particles", "sds"):
        dice = torch.Generator().manual_seed(0)
        leaf = {"pixels": torch.randn(64, 1, generator=dice)}
        by = ScoreDistillation("particles" if method == "particles" else "point", "x0", (0.1, 1.0))
        last(denoiser, pixels, leaf, by=by, generator=dice, steps=200, lr=0.05)
        x = leaf["pixels"].detach()
        deviations[method] = float(x.std(correction=0))
        assert abs(float(x.mean()) - 1.0) < 0.05
    assert abs(deviations["particles"] - math.sqrt(0.5)) < 0.05
    assert deviations["sds"] < 0.1


def small_net(seed: int = 0) -> NetDenoiser:
    net = MLP(width=32, depth=1).build((2,), seed=seed)
    return NetDenoiser(net, VP(), sigma_data=1.0)


def test_a_learned_law_comes_to_know_the_renders_and_leaves_the_model_as_it_is() -> None:
    teacher = small_net()
    before = [p.clone() for p in teacher.net.parameters()]
    law, dice = Learned(ClassifierFree(teacher, 3.0), lr=1e-2), torch.Generator().manual_seed(0)
    assert all((a == b).all() for a, b in zip(law.copy.net.parameters(), before, strict=True))
    truth = Gaussian(torch.tensor([0.5, -0.5]), 0.04)
    for _ in range(150):
        own = law(truth.sample(64, dice), Condition(), dice)
    x, level = truth.sample(400, dice), VP().at(0.5)
    noisy = level.noised(x, torch.randn(x.shape, generator=dice))
    wanted = truth.posterior_mean(noisy, level)
    off = (own(noisy, 0.5).x0 - wanted).square().mean().sqrt()
    assert off < 0.1 < 0.4 < (teacher(noisy, 0.5).x0 - wanted).square().mean().sqrt()
    assert all((a == b).all() for a, b in zip(teacher.net.parameters(), before, strict=True))
    assert all(p.grad is None for p in teacher.net.parameters())
    with pytest.raises(InputError, match="particles"):
        Learned(MIX.denoiser(VP()))


def test_the_same_seed_dreams_the_same_and_held_noise_is_held() -> None:
    seen: list[Tensor] = []

    def answer(x: Tensor, level: Level, given: Condition) -> Tensor:
        seen.append((x - level.alpha * current[0]) / level.sigma)
        return 0.5 * x

    current: list[Tensor] = []

    def render(parameters: Mapping[str, Tensor], generator: torch.Generator) -> Tensor:
        current[:] = [parameters["pixels"].detach().clone()]
        return parameters["pixels"]

    denoiser = FunctionDenoiser(answer, Flow())
    for method, same in (("flow", True), ("sds", False)):
        ends = []
        for _ in range(2):
            seen.clear()
            leaf, dice = {"pixels": torch.zeros(2, 3)}, torch.Generator().manual_seed(4)
            ends.append(last(denoiser, render, leaf, by=SCORE_DISTILLATIONS[method](), generator=dice, steps=3).x)
            assert ((seen[0] - seen[2]).abs().max() < 1e-4) == same
        assert (ends[0] == ends[1]).all()


def test_bad_input_is_refused_in_a_sentence() -> None:
    for options, said in (
        ({"law": "dirac"}, "law='dirac'"),
        ({"weight": "one"}, "weight='one'"),
        ({"noise": (2.0, 1.0)}, "noise="),
        ({"noise": (0.0, 1.0)}, "noise="),
    ):
        with pytest.raises(InputError, match=said):
            ScoreDistillation(**options)
    denoiser, dice = MIX.denoiser(VP()), torch.Generator()
    for how, said in (({"steps": 0}, "steps=0"), ({"lr": math.nan}, "lr=nan")):
        with pytest.raises(InputError, match=said):
            last(denoiser, pixels, {"pixels": torch.zeros(1, 2)}, by=ScoreDistillation(), generator=dice, **how)
    with pytest.raises(InputError, match="3 rows"):
        last(denoiser, pixels, {"pixels": torch.zeros(1, 2)}, torch.zeros(3).long(), by=ScoreDistillation(),
             generator=dice)  # fmt: skip
    for make, said in (
        (lambda: Strokes(count=0), "count=0"),
        (lambda: Strokes(softness=0.0), "softness=0.0"),
        (lambda: Strokes(paper=1.5), "paper=1.5"),
        (lambda: Volume(side=1), "side=1"),
        (lambda: Volume(elevation=91.0), "elevation=91.0"),
    ):
        with pytest.raises(InputError, match=said):
            make()


@pytest.mark.parametrize("name", RENDERERS)
def test_a_renderer_is_differentiable_in_all_of_its_parameters(name: str) -> None:
    small = {"pixels": Pixels(), "strokes": Strokes(count=3), "volume": Volume(side=3)}
    dice = torch.Generator().manual_seed(0)
    begun = small[name].begin(2, (3, 4, 4), dice)
    leaves = [value.double().requires_grad_(True) for value in begun.values()]

    def flat(*values: Tensor) -> Tensor:
        parameters = dict(zip(begun, values, strict=True))
        found = small[name](parameters, torch.Generator().manual_seed(1), 2, (3, 4, 4))
        return found[0] if isinstance(found, tuple) else found

    assert flat(*leaves).shape == (2, 3, 4, 4)
    assert torch.autograd.gradcheck(flat, tuple(leaves), atol=1e-6)


def test_a_stroke_covers_what_its_formula_says_and_later_ones_lie_on_top() -> None:
    brush = Strokes(count=2, softness=0.01)
    parameters = {
        "points": torch.tensor([[[[-2.0, 0.0], [0.0, 0.0], [2.0, 0.0]], [[0.0, -2.0], [0.0, 0.0], [0.0, 2.0]]]]),
        "width": torch.full((1, 2), math.log(0.2)),
        "opacity": torch.tensor([[20.0, 0.0]]),
        "colour": torch.tensor([[[-20.0], [20.0]]]),
    }
    x = brush(parameters, torch.Generator(), 1, (1, 10, 10))[0, 0]
    assert (x[4:6, :3] + 1).abs().max() < 1e-4  # black from left to right, two pixels wide
    assert (x[:4, :3] - 1).abs().max() < 1e-4  # the paper
    assert x[4:6, 4:6].abs().max() < 1e-4  # half of white over black
    bent = {key: value[:, :1] for key, value in parameters.items()}
    bent["points"] = torch.tensor([[[[-1.0, 1.0], [0.0, -1.0], [1.0, 1.0]]]])
    column = Strokes(count=1, softness=0.01)(bent, torch.Generator(), 1, (1, 10, 10))[0, 0, :, 4]
    assert (column < 0).nonzero().flatten().tolist() == [4, 5]  # halfway, (a + 2 b + c)/4, is the middle of the paper
    drawn = brush.svg(parameters)
    assert drawn.count("<path") == 2
    assert 'd="M-100.00 0.00Q0.00 0.00 100.00 0.00"' in drawn
    assert 'stroke="rgb(0,0,0)" stroke-linecap="round" stroke-width="20.00" stroke-opacity="1.000"' in drawn


def test_a_volume_dims_by_the_law_of_absorption_and_shows_each_side_from_its_own_side() -> None:
    eye = Volume(side=33, elevation=0.0)
    depth = 1.3
    whole = torch.full((33, 33, 33), depth)
    x = eye.seen(whole, torch.zeros(3, 33, 33, 33), torch.tensor([0.0]), 9)
    assert (x[0, :, 1:-1, 1:-1] - math.exp(-2 * depth)).abs().max() < 1e-4  # through a box two wide, on white
    # a block that is red at +x, green at +y, blue elsewhere, is seen so from azimuths 0 and 90 degrees
    at = torch.linspace(-1, 1, 33)
    z, y, across = torch.meshgrid(at, at, at, indexing="ij")
    block = 200.0 * (torch.stack([z, y, across]).abs().amax(0) < 0.5)
    red, green = (across > 0.35) & (y < 0.35), (y > 0.35) & (across < 0.35)
    colour = torch.stack([red, green, ~(red | green)]).float() * 2 - 1
    turned = torch.tensor([0.0, math.pi / 2, math.pi])
    x = eye.seen(block, colour, turned, 16)
    assert [int(view[:, 8, 8].argmax()) for view in x] == [0, 1, 2]
    assert (x[:, :, 0, 0] - 1).abs().max() < 1e-6
    # from azimuth 0 y runs to the right: the corner without red or green of its own lies there
    assert int(x[0, :, 8, 11].argmax()) == 2
    # from above one sees the top
    above = Volume(side=33, elevation=90.0).seen(block, torch.stack([z, -z, -z]).sign(), torch.tensor([0.3]), 16)
    assert (above[0, :, 8, 8] - torch.tensor([1.0, -1.0, -1.0])).abs().max() < 1e-3
    dice = torch.Generator().manual_seed(0)
    _, seen = Volume(sides=4)(eye.begin(64, (3, 8, 8), dice), dice, 64, (3, 8, 8))
    assert set(map(tuple, seen.parts[VIEW].round().int().abs().tolist())) == {(1, 0), (0, 1)}
    assert (view_of(turned) - torch.tensor([[1, 0], [0, 1], [-1, 0]])).abs().max() < 1e-6
