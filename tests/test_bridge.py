"""Bridges between two data sets, held to closed form: the table of readings, couplings, Gaussian bridges."""

import itertools
import math
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor

from ornstein.bridge import (
    BRIDGE_STEPPERS,
    COUPLINGS,
    PATHS,
    BridgeMatching,
    Brownian,
    Ends,
    Entropic,
    FunctionBridge,
    GaussianBridge,
    GaussianCoupling,
    Held,
    Heun,
    Independent,
    Linear,
    Optimal,
    Path,
    Trigonometric,
    crossing,
    held_diffusion,
    markovian_fitting,
    proportional_fitting,
    sinkhorn,
    translate,
)
from ornstein.bridge.coupling import squared_distances
from ornstein.bridge.drive import stages
from ornstein.bridge.path import READINGS, Stage
from ornstein.core.clocks import OU, VE, VP
from ornstein.core.condition import Condition
from ornstein.core.exact import Gaussian
from ornstein.core.process import Process
from ornstein.core.walk import end
from ornstein.errors import InputError
from ornstein.laws.bridges import (
    BRIDGE_STEPPER_LAWS,
    PATH_LAWS,
    carries_constant_ends,
    its_steps_compose,
    laws,
    normals,
    walked,
)

F64 = torch.float64


@dataclass(frozen=True)
class Lopsided(Path):
    """Noise that belongs to no diffusion held at its ends."""

    t_max = 2.0

    def alpha(self, t: Tensor) -> Tensor:
        return (1 - t / 2) ** 2

    def beta(self, t: Tensor) -> Tensor:
        return (t / 2) ** 3 * (2 - t / 2)

    def variance(self, t: Tensor) -> Tensor:
        return 0.3 * t * (2 - t) * (1 + t)


NOISY = [Brownian(0.7), Trigonometric(0.5), Held(VP()), Held(OU()), Held(VE()), Lopsided()]
DIFFUSIONS = NOISY[:-1]
ALL = [Linear(), Trigonometric(), *NOISY]


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_the_tables_make_what_they_say() -> None:
    made = [factory(VP()) if name == "held" else factory() for name, factory in PATHS.items()]
    assert all(isinstance(path, Path) for path in made)
    x = normals(6, 2)
    for factory in COUPLINGS.values():
        index = factory()(x, x + 1, seeded())
        assert index.shape == (6,)
        assert bool(((index >= 0) & (index < 6)).all())


@pytest.mark.parametrize("path", ALL + [path.reversed() for path in ALL], ids=str)
@pytest.mark.parametrize("held", ["joins-its-ends", "any-two-readings-give-its-ends"])
def test_a_path_keeps_the_laws_of_paths(path: Path, held: str) -> None:
    PATH_LAWS[held](path)


def test_one_end_alone_does_not_tell_the_rest() -> None:
    x, x0, x1 = normals(3, 5, 2)
    stage = Brownian(0.7).at(0.4, like=x)
    ends = Ends(x0, x1, x, stage)
    for name in ("x0", "down", "x1", "up"):
        with pytest.raises(InputError, match="does not know"):
            Ends.of(x, stage, {name: ends.read(name)}).read("velocity")
    with pytest.raises(InputError, match="must be two"):
        Ends.of(x, stage, {"velocity": x})


@pytest.mark.parametrize("path", [Linear(), Trigonometric()], ids=str)
def test_without_noise_one_reading_gives_both_ends(path: Path) -> None:
    x0, x1 = normals(2, 5, 2)
    stage = path.at(0.3)
    x = stage.between(x0, x1, normals(5, 2, seed=9))
    ends = Ends(x0, x1, x, stage)
    for name in ("x0", "x1", "velocity", "up", "down"):
        back = Ends.of(x, stage, {name: ends.read(name)})
        assert back.x0 is not None
        assert back.x1 is not None
        assert torch.allclose(back.x0, x0)
        assert torch.allclose(back.x1, x1)
    assert torch.allclose(ends.velocity, (path.at(0.3 + 1e-6).between(x0, x1, 0 * x) - x) / 1e-6, atol=1e-4)


@pytest.mark.parametrize("path", NOISY, ids=str)
def test_the_drifts_of_one_end_are_those_of_their_own_diffusion(path: Path) -> None:
    """Velocity +- g^2/2 score, at the g^2 where an end drops out."""
    x, x0, x1 = normals(3, 4, 3)
    for share in (0.1, 0.5, 0.8):
        stage = path.at(share * path.t_max)
        ends = Ends(x0, x1, x, stage)
        assert torch.allclose(ends.drift(stage.g2_up, up=True), ends.read("up"), rtol=1e-8, atol=1e-8)
        assert torch.allclose(ends.drift(stage.g2_down, up=False), ends.read("down"), rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("path", DIFFUSIONS, ids=str)
def test_both_directions_have_one_diffusion_where_the_path_is_one(path: Path) -> None:
    for share in (0.1, 0.5, 0.9):
        stage = path.at(share * path.t_max)
        assert stage.g2_up == pytest.approx(stage.g2_down, rel=1e-8)
        assert path.stiffness == pytest.approx(stage.variance / (stage.alpha * stage.beta), rel=1e-9)
        if isinstance(path, Held):
            assert stage.g2_up == pytest.approx(path.process.at(share * path.t_max).g2, rel=1e-8)
    assert Brownian(0.7).at(0.3).g2_up == pytest.approx(0.49)


def test_a_path_that_is_no_diffusion_has_no_stiffness() -> None:
    for path in (Lopsided(), Linear()):
        with pytest.raises(InputError, match="not a diffusion"):
            _ = path.stiffness


@pytest.mark.parametrize("process", [VP(), VE(), OU()], ids=str)
def test_a_held_process_is_bayes_rule(process: Process) -> None:
    path = Held(process)
    for share in (0.1, 0.4, 0.9):
        stage, posterior = path.at(share * process.t_max), process.posterior(share * process.t_max, process.t_max)
        expected = (posterior.from_x0, posterior.from_xt, posterior.variance)
        assert (stage.alpha, stage.beta, stage.variance) == pytest.approx(expected, rel=1e-9)


@dataclass(frozen=True)
class Noising(Path):
    """A process: the far end is its noise."""

    process: Process

    @property
    def t_max(self) -> float:  # type: ignore[override]
        return self.process.t_max

    def alpha(self, t: Tensor) -> Tensor:
        return self.process.alpha(t)

    def beta(self, t: Tensor) -> Tensor:
        return self.process.sigma(t)

    def variance(self, t: Tensor) -> Tensor:
        return torch.zeros_like(t)


@pytest.mark.parametrize("process", [VP(), OU()], ids=str)
def test_a_bridge_to_noise_is_a_denoiser(process: Process) -> None:
    mean, cov, *_ = laws(3)
    eye = torch.eye(3, dtype=F64)
    bridge = GaussianBridge(GaussianCoupling.independent(mean, cov, 0 * mean, eye), Noising(process))
    denoiser, x = Gaussian(mean, cov).denoiser(process), normals(4, 3)
    for t in (0.2, 0.7):
        ends, told = bridge(x, t), denoiser(x, t)
        assert torch.allclose(ends.read("x0"), told.x0, rtol=1e-9, atol=1e-9)
        assert torch.allclose(ends.read("x1"), told.eps, rtol=1e-9, atol=1e-9)
        assert torch.allclose(ends.velocity, told.velocity, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("path", [Brownian(0.7), Held(VP()), Trigonometric(), Linear(), Lopsided()], ids=str)
def test_steps_with_one_end_known_compose(path: Path) -> None:
    its_steps_compose(path)


# -- couplings ---------------------------------------------------------------------------------------------------------


def test_optimal_transport_on_a_line_sorts() -> None:
    x, y = normals(50, 1), normals(50, 1, seed=1) ** 3
    paired = y[Optimal()(x, y, seeded())]
    assert torch.equal(paired[x[:, 0].argsort()], y.sort(0).values)


def test_optimal_transport_is_the_best_of_all_pairings() -> None:
    x, y = normals(6, 2, 2), normals(6, 2, 2, seed=1)
    cost = squared_distances(x, y)
    best = min(sum(cost[i, j].item() for i, j in enumerate(p)) for p in itertools.permutations(range(6)))
    found = Optimal()(x, y, seeded())
    assert sorted(found.tolist()) == list(range(6))
    assert cost[torch.arange(6), found].sum().item() == pytest.approx(best)


@pytest.mark.parametrize("stiffness", [0.05, 1.0, 30.0])
def test_an_entropic_plan_has_its_margins_and_its_form(stiffness: float) -> None:
    """Even weights, and log P = f_i + g_j + x_i . y_j/c: what both determine is one plan."""
    x, y = 5 + normals(7, 3), normals(11, 3, seed=1)
    plan = sinkhorn(squared_distances(x, y) / 2, stiffness)
    assert torch.allclose(plan.exp().sum(1), torch.full((7,), 1 / 7, dtype=F64), rtol=1e-8)
    assert torch.allclose(plan.exp().sum(0), torch.full((11,), 1 / 11, dtype=F64), rtol=1e-8)
    rest = plan - x @ y.mT / stiffness
    centred = rest - rest.mean(0) - rest.mean(1, keepdim=True) + rest.mean()
    assert float(centred.abs().max()) < 1e-9 * (1 + float(rest.abs().max()))


def test_entropic_transport_of_a_normal_law_is_the_closed_form() -> None:
    """On 400 quantiles of each law, in one dimension: E[xy] under the plan."""
    u = (torch.arange(400, dtype=F64) + 0.5) / 400
    z = torch.special.ndtri(u)[:, None]
    x, y = 0.8 * z, 1 + 1.5 * z
    for c in (0.3, 2.0):
        plan = sinkhorn(squared_distances(x, y) / 2, c).exp()
        cross = float(x[:, 0] @ plan @ (y[:, 0] - 1))
        mean0, cov0, mean1, cov1 = (torch.tensor(v, dtype=F64) for v in ([0.0], [[0.64]], [1.0], [[2.25]]))
        exact = GaussianCoupling.entropic(mean0, cov0, mean1, cov1, c)
        assert cross == pytest.approx(float(exact.cross), rel=0.01)


def test_entropic_partners_are_drawn_from_the_plan() -> None:
    x, y = normals(3, 1), normals(4, 1, seed=1)
    plan = sinkhorn(squared_distances(x, y) / 2, 0.5).exp() * 3
    n, counts = 2000, torch.zeros(3, 4, dtype=F64)
    drawn = Entropic(0.5)(x.repeat(n, 1), y, seeded())  # the same plan: a point that stands n times has n n-ths of it
    counts.index_put_((torch.arange(3).repeat(n), drawn), torch.ones((), dtype=F64), accumulate=True)
    assert bool(((counts / n - plan).abs() <= 5 * (plan * (1 - plan) / n).sqrt() + 1e-3).all())


def test_hard_entropic_transport_is_optimal_transport() -> None:
    x, y = normals(8, 2), normals(8, 2, seed=1)
    plan = sinkhorn(squared_distances(x, y) / 2, 0.002, tolerance=1e-3)
    assert torch.equal(plan.argmax(1), Optimal()(x, y, seeded()))


def test_independent_partners_are_used_once_where_there_are_enough() -> None:
    x = normals(6, 2)
    assert sorted(Independent()(x, x, seeded()).tolist()) == list(range(6))
    assert set(Independent()(x, x[:4], seeded()).tolist()) == set(range(4))


@pytest.mark.parametrize("name", ["paired", "optimal"])
def test_couplings_row_by_row_want_as_many_of_each(name: str) -> None:
    with pytest.raises(InputError, match="as many of each"):
        COUPLINGS[name]()(normals(3, 2), normals(4, 2), seeded())


def test_couplings_refuse_what_cannot_be() -> None:
    with pytest.raises(InputError, match="stiffness"):
        Entropic(0.0)
    with pytest.raises(InputError, match="one shape"):
        Optimal()(normals(3, 2), normals(3, 4), seeded())
    with pytest.raises(InputError, match="small beside the cost"):
        sinkhorn(squared_distances(normals(30, 2), normals(30, 2, seed=1)), 0.01, rounds=5)


# -- Gaussian bridges --------------------------------------------------------------------------------------------------

SIZES = [(d, noise) for d in (1, 2, 16) for noise in (0.1, 1.0, 10.0)]


@pytest.mark.parametrize(("d", "noise"), SIZES)
def test_the_schrodinger_coupling_has_its_laws_and_its_form(d: int, noise: float) -> None:
    """Its density is u(x_0) v(x_1) exp(x_0 . x_1/c): -I/c stands beside the diagonal of the precision."""
    mean0, cov0, mean1, cov1 = laws(d)
    coupling = GaussianCoupling.entropic(mean0, cov0, mean1, cov1, noise**2)
    precision = torch.linalg.inv(coupling.covariance)
    assert torch.allclose(precision[:d, d:] * noise**2, -torch.eye(d, dtype=F64), rtol=0, atol=1e-6)
    assert torch.equal(coupling.covariance[:d, :d], cov0)
    assert torch.equal(coupling.covariance[d:, d:], cov1)


def test_as_the_noise_goes_the_coupling_is_that_of_optimal_transport() -> None:
    """x_1 = T x_0, T symmetric and positive, to within c; at c = 0 exactly, also where a law is flat."""
    mean0, cov0, mean1, cov1 = laws(3)
    exact = GaussianCoupling.entropic(mean0, cov0, mean1, cov1)
    transport = torch.linalg.solve(cov0, exact.cross)
    assert torch.allclose(transport, transport.mT, atol=1e-9)
    assert float(torch.linalg.eigvalsh(transport).min()) > 0
    assert torch.allclose(transport @ cov0 @ transport, cov1, atol=1e-9)
    gaps = [
        float((GaussianCoupling.entropic(mean0, cov0, mean1, cov1, c).cross - exact.cross).norm()) for c in (2e-3, 1e-3)
    ]
    assert gaps[0] / gaps[1] == pytest.approx(2, rel=0.05)
    flat = GaussianCoupling.entropic(mean0, torch.diag(torch.tensor([1.0, 0, 0], dtype=F64)), mean1, cov1)
    assert bool(flat.cross.isfinite().all())
    assert flat.cross[0].norm() > 0.1


@pytest.mark.parametrize("path", [Brownian(0.1), Brownian(1.0), Trigonometric(0.5), Held(VP(t_max=0.3))], ids=str)
@pytest.mark.parametrize("d", [1, 2, 16])
def test_drifts_carry_the_marginals(path: Path, d: int) -> None:
    """Of a Schrodinger bridge, at five times: the means and covariances solve the equations of both directions.

    Forward and backward agree by time reversal: their drifts differ by g^2 times the score of the marginal.
    """
    bridge, eye = GaussianBridge.schrodinger(*laws(d), path), torch.eye(d, dtype=F64)
    assert torch.allclose(bridge.covariance(0.0), laws(d)[1])
    assert torch.allclose(bridge.covariance(path.t_max), laws(d)[3])
    for share in (0.1, 0.3, 0.5, 0.7, 0.9):
        t, h = share * path.t_max, 1e-5 * path.t_max
        mean, cov = bridge.mean(t), bridge.covariance(t)
        mean_rate = (bridge.mean(t + h) - bridge.mean(t - h)) / (2 * h)
        cov_rate = (bridge.covariance(t + h) - bridge.covariance(t - h)) / (2 * h)
        size = float(cov_rate.norm()) + float(cov.norm())
        g2 = path.at(t).g2_up
        (up, b_up), (down, b_down) = bridge.affine("up", t), bridge.affine("down", t)
        for slope, shift, sign in ((up, b_up, 1), (down, b_down, -1)):
            assert torch.allclose(slope @ mean + shift, mean_rate, rtol=1e-6, atol=1e-6 * (1 + float(mean_rate.norm())))
            carried = slope @ cov + cov @ slope.mT + sign * g2 * eye
            assert float((carried - cov_rate).norm()) < 1e-6 * size
        assert float((up - down + g2 * torch.linalg.inv(cov)).norm()) < 1e-6 * float(up.norm() + down.norm())
        # a Schrodinger bridge's drift is a gradient
        assert float((up - up.mT).norm()) < 1e-6 * float(up.norm() + 1)


def carried(bridge: GaussianBridge, steps: int) -> tuple[Tensor, Tensor, Tensor]:
    """Mean, covariance at the far end, and cov(x_0, x_T), of Euler-Maruyama upward, with no sampling error.

    The last step, where the drift upward is infinite, is taken as the walk takes it: to the mean of the far end.
    """
    path, c = bridge.path, bridge.coupling
    times = torch.linspace(0, path.t_max, steps + 1, dtype=F64).tolist()
    mean, cov, cross = c.mean0, c.cov0, c.cov0
    for t, s in itertools.pairwise(times):
        h = s - t
        if s == times[-1]:
            slope, shift, noise = *bridge.affine("x1", t), 0.0
        else:
            slope, shift = bridge.affine("up", t)
            slope, shift, noise = torch.eye(len(mean), dtype=F64) + h * slope, h * shift, h * path.at(t).g2_up
        mean, cov = slope @ mean + shift, slope @ cov @ slope.mT + noise * torch.eye(len(mean), dtype=F64)
        cross = cross @ slope.mT
    return mean, cov, cross


@pytest.mark.parametrize("path", [Brownian(0.5), Trigonometric(0.8)], ids=str)
def test_euler_maruyama_reaches_the_other_end_with_order_one(path: Path) -> None:
    """In law: mean, covariance, and the pairs that it joins: the coupling's, for a Schrodinger bridge alone."""
    bridge = GaussianBridge.schrodinger(*laws(2), path)
    truth = (bridge.coupling.mean1, bridge.coupling.cov1, bridge.coupling.cross)
    gaps = [
        [float((found - true).norm()) for found, true in zip(carried(bridge, n), truth, strict=True)]
        for n in (20, 40, 80)
    ]
    for coarse, fine in itertools.pairwise(gaps):
        for a, b in zip(coarse, fine, strict=True):
            assert b < 1e-12 or 0.75 < math.log2(a / b) < 1.3  # means that move on a straight line are exact
    loose = GaussianBridge(GaussianCoupling.independent(*laws(2)), path)
    _, cov, cross = carried(loose, 80)
    assert torch.allclose(cov, loose.coupling.cov1, rtol=0.1, atol=0.05)  # its marginals are right
    assert float(cross.norm()) > 0.1  # and its pairs are not those that it was made of: none


def test_a_batch_of_times_is_its_times() -> None:
    bridge, x = GaussianBridge.schrodinger(*laws(3), Brownian(0.6)), normals(4, 3)
    times = torch.tensor([0.1, 0.4, 0.6, 0.95], dtype=F64)
    for name in READINGS:
        together = bridge(x, times).read(name)
        for i, t in enumerate(times.tolist()):
            assert torch.allclose(together[i : i + 1], bridge(x[i : i + 1], t).read(name))


def test_gaussian_couplings_refuse_what_is_none() -> None:
    mean0, cov0, mean1, cov1 = laws(2)
    with pytest.raises(InputError, match="positive semi-definite"):
        GaussianCoupling.entropic(mean0, cov0 - 3 * torch.eye(2), mean1, cov1, 1.0)
    with pytest.raises(InputError, match="joint covariance"):
        GaussianCoupling(mean0, mean1, cov0, cov1, 10 * cov0)
    with pytest.raises(InputError, match="mean1"):
        GaussianCoupling(mean0, mean1[:1], cov0, cov1, cov0)
    with pytest.raises(InputError, match="not a diffusion"):
        GaussianBridge.schrodinger(mean0, cov0, mean1, cov1, Linear())


# -- walks and losses --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", BRIDGE_STEPPERS)
def test_ends_that_are_always_c_come_out_as_c(name: str) -> None:
    carries_constant_ends(BRIDGE_STEPPERS[name](), tuple(ALL))


@pytest.mark.parametrize("held", BRIDGE_STEPPER_LAWS)
@pytest.mark.parametrize("name", BRIDGE_STEPPERS)
def test_bridge_steppers_keep_every_law(name: str, held: str) -> None:
    BRIDGE_STEPPER_LAWS[held](BRIDGE_STEPPERS[name]())


def test_a_walk_carries_one_law_into_the_other_in_both_directions() -> None:
    bridge = GaussianBridge.schrodinger(*laws(2), Brownian(0.7))
    x0, x1 = bridge.coupling.sample(20_000, seeded())
    for way, x, law in ((bridge, x1, 0), (bridge.reversed(), x0, 2)):
        found = end(crossing(way, x, steps=60, seed=1)).x
        mean, cov = laws(2)[law : law + 2]
        assert torch.allclose(found.mean(0), mean, atol=0.05)
        assert torch.allclose(found.T.cov(), cov, rtol=0.05, atol=0.05)


@pytest.mark.parametrize("noise", [0.5, 1.0, 2.0])
def test_a_walk_of_few_steps_keeps_the_variance_of_its_end(noise: float) -> None:
    """By weights of the two answers of a step; evenly averaged they lose 5, 11 and 19 % of it in eight steps."""
    bridge = GaussianBridge.schrodinger(*laws(2), Brownian(noise))
    cov, cross, _ = walked(bridge, Heun(), 8)
    assert float(cov.trace() / bridge.coupling.cov0.trace()) == pytest.approx(1, abs=0.02 * noise)
    assert torch.allclose(cross, bridge.coupling.cross, rtol=1e-9)  # E[x_0 given x_t] is a martingale


def test_dense_times_follow_the_arcsine_law() -> None:
    seen: list[Tensor] = []

    def heard(x: Tensor, stage: Stage, condition: Condition) -> dict[str, Tensor]:
        seen.append(torch.as_tensor(stage.t).flatten())
        return {"x0": x, "x1": x}

    x0, x1 = normals(2, 400, 1)
    for dense in (False, True):
        BridgeMatching(even=True, dense=dense)(FunctionBridge(heard, Trigonometric(0.5)), x0, x1, None, seeded())
    even, often = (times.sort().values for times in seen)
    share = (torch.arange(400) + 0.5) / 400
    assert torch.allclose(even, share.double(), atol=3e-3)
    assert torch.allclose(often.sqrt().asin() * 2 / math.pi, share.double(), atol=3e-3)
    assert float((often < 0.01).double().mean()) == pytest.approx(2 / math.pi * math.asin(0.1), abs=3e-3)


def test_walks_refuse_what_cannot_be() -> None:
    far = FunctionBridge(lambda x, stage, condition: {"x1": x}, Brownian())
    with pytest.raises(InputError, match="does not know the end"):
        translate(far, normals(2, 2), seed=0)
    with pytest.raises(InputError, match="times that fall"):
        translate(far, normals(2, 2), grid=[0.5, 0.7, 0.0])
    with pytest.raises(InputError, match="steps"):
        translate(far, normals(2, 2), steps=0)


REGRESSED: list[Any] = [("x0", "x1"), ("x0",), ("velocity",), ("up", "down"), ("score",)]


@pytest.mark.parametrize("regress", REGRESSED)
@pytest.mark.parametrize("coupled", ["paired", "independent"])
def test_the_exact_bridge_is_the_minimum(regress: tuple[str, ...], coupled: str) -> None:
    """The gradient by any shift of its ends, constant or linear in x, is zero to within its standard error."""
    joined = GaussianBridge.schrodinger(*laws(2), Brownian(0.8))
    exact = joined if coupled == "paired" else GaussianBridge(GaussianCoupling.independent(*laws(2)), joined.path)
    x0, x1 = joined.coupling.sample(40_000, seeded())  # which an independent coupling is to take apart
    shift = torch.zeros(len(x0), 2, 2, 3, dtype=F64, requires_grad=True)  # for each row: which end, of (1, x)

    def moved(x: Tensor, stage: Any, condition: Any) -> dict[str, Tensor]:
        ends, told = exact(x, stage), torch.cat([torch.ones_like(x[:, :1]), x], 1)
        by = torch.einsum("beij,bj->ebi", shift, told)
        return {"x0": ends.read("x0") + by[0], "x1": ends.read("x1") + by[1]}

    loss = BridgeMatching(COUPLINGS[coupled](), regress, cut=0.05)(
        FunctionBridge(moved, exact.path), x0, x1, None, seeded(1)
    )
    assert loss.shape == (len(x0),)
    (gradient,) = torch.autograd.grad(loss.sum(), shift)
    flat = gradient.flatten(1)
    error = flat.std(0) / len(flat) ** 0.5
    assert bool((flat.mean(0).abs() <= 5 * error + 1e-12).all())
    wrong = GaussianBridge(GaussianCoupling.independent(*laws(2)), Brownian(0.8))
    if coupled == "paired":  # and another bridge between the same laws is worse
        settings = BridgeMatching(COUPLINGS["paired"](), regress, cut=0.05)
        worse = settings(wrong, x0, x1, None, seeded(1)) - settings(exact, x0, x1, None, seeded(1))
        assert float(worse.mean()) > 3 * float(worse.std()) / len(x0) ** 0.5


def test_objectives_refuse_what_they_cannot_regress() -> None:
    with pytest.raises(InputError, match="regress"):
        BridgeMatching(regress=("noise",))
    with pytest.raises(InputError, match="cut"):
        BridgeMatching(cut=0.5)
    half = FunctionBridge(lambda x, stage, condition: {"x0": x}, Brownian())
    with pytest.raises(InputError, match="does not know"):
        BridgeMatching()(half, normals(3, 2), normals(3, 2), None, seeded())


# -- two data sets without pairs ---------------------------------------------------------------------------------------


def regression(x: Tensor, y: Tensor) -> Tensor:
    """(d + 1, d): the affine map of least squares, of (1, x)."""
    told = torch.cat([torch.ones_like(x[:, :1]), x], 1)
    found: Tensor = torch.linalg.solve(told.mT @ told, told.mT @ y)
    return found


def by_least_squares(x: Tensor, target: Tensor, up: bool) -> Any:
    known = [regression(a, b) for a, b in zip(x, target, strict=True)]
    return lambda y, k: mapped(y, known[k if up else k - 1])


def mapped(x: Tensor, weights: Tensor) -> Tensor:
    return weights[0] + x @ weights[1:]


def agrees(pairs: tuple[Tensor, Tensor], exact: GaussianCoupling) -> None:
    """Means, covariances and cross covariance of pairs, within 5 % of the closed form's size."""
    found = torch.cat(pairs, 1)
    d, cov = len(exact.mean0), found.T.cov()
    scale = float(exact.covariance.trace() / (2 * d)) ** 0.5
    assert float((found.mean(0) - exact.mean).norm()) < 0.05 * scale * (2 * d) ** 0.5
    for rows, columns in ((slice(0, d), slice(0, d)), (slice(d, None), slice(d, None)), (slice(0, d), slice(d, None))):
        block = exact.covariance[rows, columns]
        assert float((cov[rows, columns] - block).norm()) < 0.05 * float(block.norm()), (rows, columns)


STEPS = 20


@pytest.mark.parametrize("d", [1, 2])
@pytest.mark.parametrize("path", [Brownian(1.0), Trigonometric(1.0)], ids=str)
def test_iterative_markovian_fitting_finds_the_schrodinger_bridge(path: Path, d: int) -> None:
    """From independent ends, by least squares at each stage of the walk: pairs, and marginals on the way."""
    exact = GaussianBridge.schrodinger(*laws(d), path)
    x0, x1 = GaussianCoupling.independent(*laws(d)).sample(20_000, seeded())
    noise = seeded(1)

    def fit(near: Tensor, far: Tensor, up: bool) -> FunctionBridge:
        known = {}
        for stage in stages(path, STEPS)[:-1]:
            if up:
                stage = path.at(path.t_max - float(stage.t))
            z = torch.randn(near.shape, generator=noise, dtype=F64)
            known[round(float(stage.t), 9)] = regression(stage.between(near, far, z), far if up else near)

        def ends(x: Tensor, stage: Any, condition: Any) -> dict[str, Tensor]:
            return {"x1" if up else "x0": mapped(x, known[round(float(stage.t), 9)])}

        return FunctionBridge(ends, path)

    turns = list(markovian_fitting(x0, x1, fit, turns=10, generator=seeded(2), steps=STEPS))
    assert [turn.up for turn in turns] == [False, True] * 5
    agrees((turns[-1].x0, turns[-1].x1), exact.coupling)
    agrees((turns[-2].x0, turns[-2].x1), exact.coupling)
    assert torch.equal(turns[-1].x0, x0)  # the law that a walk starts from is kept
    for share in (0.1, 0.3, 0.5, 0.7, 0.9):
        t = share * path.t_max
        between = path.at(t).between(turns[-1].x0, turns[-1].x1, torch.randn(x0.shape, generator=noise, dtype=F64))
        cov = exact.covariance(t)
        assert float((between.T.cov() - cov).norm()) < 0.05 * float(cov.norm())
    first = torch.cat([turns[0].x0, turns[0].x1], 1).T.cov()[:d, d:]
    assert float((first - exact.coupling.cross).norm()) > 0.05 * float(exact.coupling.cross.norm())


@pytest.mark.parametrize("d", [1, 2])
def test_iterative_proportional_fitting_finds_the_schrodinger_bridge(d: int) -> None:
    """From Brownian motion, by least squares at each step, to the coupling and the marginals on the way."""
    path = Brownian(1.0)
    exact = GaussianBridge.schrodinger(*laws(d), path)
    x0, x1 = GaussianCoupling.independent(*laws(d)).sample(30_000, seeded())
    halves = list(proportional_fitting(x0, x1, [1 / 40] * 40, by_least_squares, turns=8, generator=seeded(2)))
    for half in halves[-2:]:
        agrees((half.chain[0], half.chain[-1]), exact.coupling)
        for k in (4, 12, 20, 28, 36):
            cov = exact.covariance(k / 40)
            assert float((half.chain[k].T.cov() - cov).norm()) < 0.05 * float(cov.norm())
    assert torch.equal(halves[-1].chain[0], x0)
    assert torch.equal(halves[-2].chain[-1], x1)


def test_reflow_straightens() -> None:
    """By turns downward alone, on straight lines: one step comes to do what forty do, and the pairs come closer."""
    x0, x1 = GaussianCoupling.independent(*laws(2)).sample(5_000, seeded())

    def fit(near: Tensor, far: Tensor, up: bool) -> GaussianBridge:
        assert not up
        cov = torch.cat([near, far], 1).T.cov()
        return GaussianBridge(
            GaussianCoupling(near.mean(0), far.mean(0), cov[:2, :2], cov[2:, 2:], cov[:2, 2:]), Linear()
        )

    turns = list(markovian_fitting(x0, x1, fit, turns=2, generator=seeded(), steps=40, both=False))
    bends = [float((translate(turn.bridge, x1, steps=1) - turn.x0).square().mean()) for turn in turns]
    assert bends[0] > 0.05
    assert bends[1] < 1e-20  # pairs that a linear map joins: for Gaussians the second turn is straight
    lengths = [float((x0 - x1).square().mean()), *(float((turn.x0 - x1).square().mean()) for turn in turns)]
    assert lengths[0] > lengths[1]
    assert lengths[1] == pytest.approx(lengths[2])
    assert torch.allclose(turns[-1].x0.T.cov(), laws(2)[1], rtol=0.1, atol=0.05)


def test_a_diffusion_held_at_both_ends_is_the_ornstein_uhlenbeck_bridge() -> None:
    """dX = -X dt + sqrt(2) dB from a to b in a unit of time, in Euler's steps: mean and variance at five times."""
    path, n, count = Held(OU(t_max=1.0)), 200, 20_000
    a, b = torch.tensor([2.0, -0.5], dtype=F64), torch.tensor([-1.0, 1.5], dtype=F64)
    down = held_diffusion(lambda x, k: x - x / n, a, b, [2 / n] * n, by_least_squares, count=count, generator=seeded())
    assert torch.equal(down.chain[0], a.expand(count, 2))
    assert torch.equal(down.chain[-1], b.expand(count, 2))
    for k in (20, 60, 100, 140, 180):
        stage, x = path.at(k / n), down.chain[k]
        mean = stage.between(a, b, torch.zeros_like(a))
        assert float((x.mean(0) - mean).norm()) < 0.05 * float((a - b).norm())
        assert torch.allclose(x.T.cov(), stage.variance * torch.eye(2, dtype=F64), atol=0.05 * float(stage.variance))
    with pytest.raises(InputError, match="one shape"):
        held_diffusion(lambda x, k: x, a, b[:1], [1.0], by_least_squares, count=2, generator=seeded())


def test_turns_are_positive() -> None:
    x = normals(3, 1)
    with pytest.raises(InputError, match="turns"):
        next(markovian_fitting(x, x, lambda *_: FunctionBridge(lambda *_: {}, Brownian()), turns=0, generator=seeded()))
    with pytest.raises(InputError, match="gammas"):
        next(proportional_fitting(x, x, [], lambda *_: lambda y, k: y, turns=1, generator=seeded()))
