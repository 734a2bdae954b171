"""Laws of every process: its coefficients, their derivatives, and the noising that they describe."""

import dataclasses
import itertools
import math
from collections.abc import Callable
from typing import Any, Literal

import numpy as np
import pytest
import torch
from laws import PROCESSES, ZERO_SNR, interior, refused
from sure import there
from torch import Tensor

from ornstein import EDM, OU, VE, VP, Cosine, Flow, SubVP, Tabulated
from ornstein.core.exact import GaussianMixture
from ornstein.laws.processes import COEFFICIENTS
from ornstein.laws.processes import LAWS as PROCESS_LAWS
from ornstein.samplers import STEPPERS

ALL = {**PROCESSES, **ZERO_SNR}
every = pytest.mark.parametrize("name", ALL)


@every
@pytest.mark.parametrize("law", PROCESS_LAWS)
def test_keeps_the_laws_of_processes(name: Any, law: Any) -> None:
    PROCESS_LAWS[law](ALL[name])


@every
def test_derivatives_are_the_same_wherever_they_are_asked(name: Any) -> None:
    """In inference mode, without gradients, and inside torch.func's transforms; for one time and for a batch."""
    p = ALL[name]
    t = interior(p, 2)
    x = torch.ones(2, 3, dtype=torch.float64)
    expected = p.at(t, like=x).rates[1] * x + p.at(float(t[0])).rates[0]

    def read(x: Any) -> Any:
        return p.at(t, like=x).rates[1] * x + p.at(float(t[0])).rates[0]

    with torch.inference_mode():
        assert torch.equal(read(x), expected)
    with torch.no_grad():
        assert torch.equal(read(x), expected)
    assert torch.equal(torch.func.vjp(read, x)[0], expected)
    assert torch.equal(torch.func.jvp(read, (x,), (x,))[0], expected)
    assert torch.equal(torch.func.vmap(read)(x.expand(4, 2, 3)), expected.expand(4, 2, 3))


def beta(t: Any) -> Any:
    return 0.1 + 19.9 * t


def cosine_beta(t: Any) -> Any:
    w = math.pi / 2 / 1.008
    return 2 * w * math.tan(w * (t + 0.008))


#: f and g^2 as the papers write them
CLOSED_FORMS: dict[str, Callable[[float], tuple[float, float]]] = {
    "vp": lambda t: (-beta(t) / 2, beta(t)),
    "sub-vp": lambda t: (-beta(t) / 2, beta(t) * (1 - math.exp(-2 * (0.1 * t + 9.95 * t * t)))),
    "cosine": lambda t: (-cosine_beta(t) / 2, cosine_beta(t)),
    "ve": lambda t: (0.0, (0.01 * 5000**t) ** 2 * 2 * math.log(5000)),
    "edm": lambda t: (0.0, 2 * t),
    "ou": lambda t: (-1.0, 2.0),
    "flow": lambda t: (-1 / (1 - t), 2 * t / (1 - t)),
}


@pytest.mark.parametrize("name", CLOSED_FORMS)
def test_drift_and_diffusion_are_the_papers(name: Any) -> None:
    for t in interior(PROCESSES[name], 9).tolist():
        level = PROCESSES[name].at(t)
        f, g2 = CLOSED_FORMS[name](t)
        assert level.f == pytest.approx(f, rel=1e-9)
        assert level.g2 == pytest.approx(g2, rel=1e-9)


#: alpha, sigma, log-SNR worked out apart, to 40 digits, from the formulas of the papers
GOLDEN = [
    ("vp", 0.001, 0.999945026511, 0.0104854163351, 9.11542986546),
    ("vp", 0.25, 0.723657185083, 0.690159603626, 0.0947897970709),
    ("vp", 0.5, 0.281182880797, 0.959654202068, -2.45513546882),
    ("vp", 1.0, 0.00657158649493, 0.999978406892, -10.0499568133),
    ("sub-vp", 0.001, 0.999945026511, 0.00010994395572, 18.2309696809),
    ("sub-vp", 0.5, 0.281182880797, 0.920936187547, -2.37277093764),
    ("sub-vp", 1.0, 0.00657158649493, 0.999956814251, -10.0499136266),
    ("cosine", 0.001, 0.999979357675, 0.00642528013567, 10.0949888115),
    ("cosine", 0.5, 0.702740058941, 0.71144670184, -0.0246268828115),
    ("cosine", 0.99, 0.0155838771792, 0.999878564013, -8.32279393993),
    ("ve", 0.001, 1.0, 0.00131073639131, 13.2743323379),
    ("ve", 0.5, 1.0, 0.707036066973, 0.693347200563),
    ("ve", 1.0, 1.0, 49.999999, -7.82404597086),
    ("edm", 0.002, 1.0, 0.002, 12.4292161968),
    ("edm", 1.0, 1.0, 1.0, 0.0),
    ("edm", 80.0, 1.0, 80.0, -8.76405326935),
    ("ou", 0.001, 0.999000499833, 0.0446990081844, 6.21360793176),
    ("ou", 1.0, 0.367879441171, 0.929873495032, -1.85458654213),
    ("ou", 5.0, 0.00673794699909, 0.999977299777, -9.99995459904),
    ("flow", 0.001, 0.999, 0.001, 13.8135095573),
    ("flow", 0.5, 0.5, 0.5, 0.0),
    ("flow", 0.9, 0.1, 0.9, -4.39444915467),
    # sqrt(abar_T) = 0.00635 (Ho et al. 2020), 0.0683 (Stable Diffusion), 4.9e-5 (cosine)
    ("betas", 1.0, 0.99994999875, 0.01, 9.21024036698),
    ("betas", 500.0, 0.280334162887, 0.959902472712, -2.46169871581),
    ("betas", 1000.0, 0.00635281808757, 0.999979820648, -10.1176731833),
    ("betas[scaled-linear]", 1.0, 0.999574909649, 0.0291547594742, 7.06942384703),
    ("betas[scaled-linear]", 500.0, 0.526943688127, 0.849900199755, -0.956050482711),
    ("betas[scaled-linear]", 1000.0, 0.0682649142172, 0.997667229835, -5.3640477003),
    ("betas[cosine]", 1.0, 0.999979357675, 0.00642528013567, 10.0949888115),
    ("betas[cosine]", 500.0, 0.702740058941, 0.71144670184, -0.0246268828115),
    ("betas[cosine]", 999.0, 0.00155845016187, 0.999998785616, -12.9281244463),
    ("betas[cosine]", 1000.0, 4.92825213137e-5, 0.999999998786, -19.8358821516),
    ("betas[sigmoid]", 1.0, 0.999925394617, 0.0122149580768, 8.81003879645),
    ("betas[sigmoid]", 500.0, 0.549482535302, 0.835505202496, -0.838119168745),
    ("betas[sigmoid]", 1000.0, 0.00629935075268, 0.999980158893, -10.1345777294),
    ("ladder", 1.0, 1.0, 0.01, 9.21034037198),
    ("ladder", 5.0, 1.0, 0.0774263682681, 5.11685576221),
    ("ladder", 10.0, 1.0, 1.0, 0.0),
    ("euler-ou", 1.0, 0.9891, 0.147648230602, 3.80392562871),
    ("euler-ou", 50.0, 0.186417967099, 0.99430114492, -3.34809767169),
    ("euler-ou", 100.0, 0.00320668865257, 1.0248876616, -11.5341989087),
]


@pytest.mark.parametrize(("name", "t", "alpha", "sigma", "log_snr"), GOLDEN)
def test_golden_values(name: Any, t: Any, alpha: Any, sigma: Any, log_snr: Any) -> None:
    p = PROCESSES[name]
    level = p.at(t)
    # some of the formulas in use cannot give more than about nine digits of alpha at the end of the cosine
    assert level.alpha == pytest.approx(alpha, rel=1e-9)
    assert level.sigma == pytest.approx(sigma, rel=1e-9)
    assert level.log_snr == pytest.approx(log_snr, rel=1e-9, abs=1e-12)
    single = p.at(torch.tensor([t, t], dtype=torch.float64), like=torch.zeros(2, 5))
    assert single.alpha.dtype == torch.float32
    torch.testing.assert_close(single.alpha, torch.full((2, 1), alpha), rtol=2e-7, atol=0)
    torch.testing.assert_close(single.sigma, torch.full((2, 1), sigma), rtol=2e-7, atol=0)


def test_end_of_ddpms_chain_is_the_papers() -> None:
    assert PROCESSES["betas"].at(1000.0).alpha ** 2 == pytest.approx(4.036e-5, rel=1e-4)


@every
def test_the_kernel_from_the_data_is_alpha_and_sigma(name: Any) -> None:
    p = ALL[name]
    for t in interior(p, 7).tolist():
        assert p.kernel(0.0, t) == pytest.approx((p.at(t).alpha, p.at(t).sigma ** 2), rel=1e-14)


#: x_k = a x_{k-1} + b z of each chain, from its own definition
CHAINS: dict[str, Callable[[int], tuple[float, float]]] = {
    "betas": lambda k: (math.sqrt(1 - (1e-4 + 0.0199 * (k - 1) / 999)), math.sqrt(1e-4 + 0.0199 * (k - 1) / 999)),
    "ladder": lambda k: (
        1.0,
        math.sqrt((0.01 * 100 ** ((k - 1) / 9)) ** 2 - (k > 1) * (0.01 * 100 ** ((k - 2) / 9)) ** 2),
    ),
    "euler-ou": lambda k: (1 - (0.01 + 0.09 * k / 100), math.sqrt(2 * (0.01 + 0.09 * k / 100))),
}


@pytest.mark.parametrize("name", CHAINS)
def test_chains_step_as_they_are_defined(name: Any) -> None:
    p = PROCESSES[name]
    levels = p.levels(torch.arange(there(p.chain) + 1))
    for k, (s, t) in enumerate(itertools.pairwise(levels), 1):
        a, b = CHAINS[name](k)
        assert t.kernel_from(s) == pytest.approx((a, b * b), rel=1e-9)


def test_euler_ou_has_its_short_steps_near_the_data() -> None:
    """The schedule's step k is that of the backward chain, from noise to data; the other order has another name."""
    n, low, high = 100, 0.01, 0.1
    backward = [low + (high - low) * (n - k) / n for k in range(n)]
    orders: list[tuple[Literal["rising", "falling"], list[float]]] = [
        ("rising", backward[::-1]), ("falling", backward),
    ]  # fmt: skip
    for order, forward in orders:
        p = Tabulated.euler_ou(order=order)
        gammas = 1 - p.alphas[1:] / p.alphas[:-1]
        torch.testing.assert_close(gammas, torch.tensor(forward, dtype=torch.float64), rtol=1e-12, atol=0)
        assert torch.equal(p.sigmas, Tabulated.euler_ou(forward).sigmas)
    assert torch.equal(Tabulated.euler_ou().alphas, Tabulated.euler_ou(order="rising").alphas)


@pytest.mark.parametrize(("name", "short", "long"), [("ddpm", 0.0373, 0.1200), ("reverse-diffusion", 0.0210, 0.1021)])
def test_short_steps_near_the_data_end_nearer_to_them(name: str, short: float, long: float) -> None:
    """The Wasserstein distance of 100 backward steps with the exact denoiser, no sampling: a step's law is Gaussian,
    whose mean and deviation the stepper says, so a density is carried down on a grid. Long steps there are three times
    as far off."""
    weights, means, variances = torch.tensor([[0.5, 0.3, 0.2], [-1.3, 0.4, 1.7], [0.03, 0.1, 0.01]]).double()
    mix = GaussianMixture(weights, means[:, None], variances)
    x = torch.linspace(-4.5, 4.5, 241, dtype=torch.float64)[:, None]
    stepper: Any = STEPPERS[name]()
    found: list[float] = []
    orders: list[Literal["rising", "falling"]] = ["rising", "falling"]
    for order in orders:
        process = Tabulated.euler_ou(order=order)
        denoiser: Any = mix.denoiser(process)
        levels = [process.at(float(k)) for k in range(100, 0, -1)]
        density = torch.exp(-(x[:, 0] ** 2) / 2)
        density = density / density.sum()
        for t, s in itertools.pairwise(levels):
            steps: list[Callable[[], Tensor]] = [lambda: torch.zeros_like(x), lambda: torch.ones_like(x)]
            mean, noisy = (stepper.step(denoiser, x, t, s, None, noise)[0] for noise in steps)
            kernel = torch.exp(-(((x[:, 0] - mean) / (noisy - mean)) ** 2) / 2)
            density = density @ (kernel / kernel.sum(1, keepdim=True))
        ends = denoiser(x, levels[-1].t).x0[:, 0]
        at = torch.linspace(-2.6, 2.6, 2601, dtype=torch.float64)
        drawn = torch.from_numpy(np.interp(at, ends, density.cumsum(0) - density / 2, left=0, right=1))
        true = (weights * torch.special.ndtr((at[:, None] - means) / variances.sqrt())).sum(1)
        found.append(float((drawn - true).abs().mean() * 5.2))
    assert found == pytest.approx([short, long], abs=0.002)


def test_euler_ou_settles_at_its_own_variance() -> None:
    for gamma in (0.02, 0.1, 0.5):
        p = Tabulated.euler_ou([gamma] * 800)
        assert p.at(800.0).sigma ** 2 == pytest.approx(1 / (1 - gamma / 2), rel=1e-6)


@every
def test_posterior_is_bayes_rule(name: Any) -> None:
    """The product of q(x_s given x_0) and q(x_t given x_s), normalised on a fine grid, has the posterior's moments."""
    p = ALL[name]
    times = interior(p, 5).tolist()
    for s, t in [(times[0], times[1]), (times[1], times[3]), (times[3], times[4]), (times[0], times[4])]:
        low, high = p.at(s), p.at(t)
        posterior = p.posterior(s, t)
        a, b2 = p.kernel(s, t)
        for x0, z in [(0.8, 1.1), (-1.3, -0.4)]:
            xt = high.alpha * x0 + high.sigma * z
            mean = posterior.from_xt * xt + posterior.from_x0 * x0
            grid = low.alpha * x0 + low.sigma * torch.linspace(-12, 12, 20001, dtype=torch.float64)
            log = -((grid - low.alpha * x0) ** 2) / (2 * low.sigma**2) - (xt - a * grid) ** 2 / (2 * b2)
            weight = log.softmax(0)
            by_hand = (weight * grid).sum().item()
            assert mean == pytest.approx(by_hand, abs=1e-7 * low.sigma)
            assert posterior.variance == pytest.approx((weight * (grid - by_hand) ** 2).sum().item(), rel=1e-6)


@every
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_a_batch_of_times_is_as_good_as_one(name: Any, dtype: Any) -> None:
    """Per-sample coefficients have the data's type (float32 at least), broadcast, and lose nothing but its rounding."""
    p = ALL[name]
    t = torch.cat([interior(p, 9), torch.tensor([p.t_max], dtype=torch.float64)])
    near = t * (1 - 1e-3)
    like = torch.zeros(len(t), 2, 3, dtype=dtype)
    kept = torch.float64 if dtype == torch.float64 else torch.float32
    tolerance = 1e-11 if dtype == torch.float64 else 2e-6
    level, before = p.at(t, like), p.at(near, like)

    def agree(batch: Any, singles: Any, what: Any) -> None:
        assert batch.dtype == kept, what
        assert batch.shape == (len(t), 1, 1), what
        expected = torch.tensor(singles, dtype=torch.float64).to(kept).reshape(-1, 1, 1)
        torch.testing.assert_close(batch, expected, rtol=tolerance, atol=tolerance, msg=lambda m: f"{what}: {m}")

    singles = [p.at(one) for one in t.tolist()]
    for what in COEFFICIENTS:
        agree(getattr(level, what), [getattr(one, what) for one in singles], what)
    for i in (0, 1):
        agree(level.rates[i], [one.rates[i] for one in singles], f"rates[{i}]")
    pairs = list(zip(near.tolist(), t.tolist(), strict=True))
    # b^2 between close levels is a small difference: relative accuracy, so no atol to hide behind
    kernel = p.kernel(near, t, like)
    expected = torch.tensor([p.kernel(s, u) for s, u in pairs], dtype=torch.float64)
    for i in (0, 1):
        part = kernel[i]
        assert isinstance(part, torch.Tensor)
        assert part.dtype == kept
        torch.testing.assert_close(part.flatten().double(), expected[:, i], rtol=max(tolerance, 1e-9), atol=0)
    for field, batch in zip(p.posterior(near, t, like)._fields, level.posterior(before), strict=True):
        agree(batch, [getattr(p.posterior(s, u), field) for s, u in pairs], field)


@every
def test_times_off_the_clock_are_refused(name: Any) -> None:
    p = ALL[name]
    x = torch.zeros(2, 3)
    beyond = p.t_max * 1.001
    for t in (-1e-9, beyond, math.nan, math.inf):
        refused(lambda t=t: p.at(t), "t=", f"{p.t_max:g}")
        refused(lambda t=t: p.at(torch.tensor([0.1, t]), like=x), "t=", f"{p.t_max:g}")
    refused(lambda: p.at(torch.tensor([0.1, 0.2])), "like")
    refused(lambda: p.at(torch.tensor([0.1, 0.2, 0.3]), like=x), "(3,)", "(2, 3)")
    p.at(torch.full((2,), p.t_max), like=x)  # the end itself, rounded to float32, is on the clock


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: VP(beta_min=-1.0), ["beta_min=-1.0"]),
        (lambda: VP(beta_min=2.0, beta_max=1.0), ["beta_min=2.0", "beta_max=1.0"]),
        (lambda: VP(beta_max=math.nan), ["beta_max=nan"]),
        (lambda: SubVP(t_max=0.0), ["t_max=0.0"]),
        (lambda: VE(sigma_min=1.0, sigma_max=0.5), ["sigma_min=1.0"]),
        (lambda: EDM(t_max=-80.0), ["t_max=-80.0"]),
        (lambda: OU(t_max=math.inf), ["t_max=inf"]),
        (lambda: Cosine(t_max=1.01), ["t_max=1.01"]),
        (lambda: Cosine(s=0.0), ["s=0.0"]),
        (lambda: Flow(t_max=2.0), ["t_max=2.0"]),
        (lambda: Tabulated.from_betas("lineal"), ["lineal", "scaled-linear"]),
        (lambda: Tabulated.from_betas("linear", 0), ["steps=0"]),
        # scaled by 1000/20, the last beta is 1: no chain (and not a silent one)
        (lambda: Tabulated.from_betas("linear", 20), ["beta_20=1 ", "N=20"]),
        (lambda: Tabulated.from_betas("cosine", beta_max=0.5), ["beta_max"]),
        (lambda: Tabulated.from_betas([0.1, 1.2]), ["beta_2=1.2"]),
        (lambda: Tabulated.from_betas([0.1, 0.0]), ["beta_2=0"]),
        (lambda: Tabulated.from_betas([0.1, math.nan]), ["beta_2=nan"]),
        (lambda: Tabulated.from_sigmas([0.1, 0.1]), ["fall strictly"]),
        (lambda: Tabulated.from_sigmas([0.2, 0.1]), ["fall strictly"]),
        (lambda: Tabulated.from_sigmas(steps=1), ["steps=1"]),
        (lambda: Tabulated.euler_ou([0.1, 1.0]), ["gamma_1=1.0"]),
        (lambda: Tabulated.euler_ou(steps=0), ["steps=0"]),
        (lambda: Tabulated.euler_ou(order="up"), ["order", "up", "rising", "falling"]),  # type: ignore[arg-type]
        (lambda: Tabulated(torch.ones(3), torch.zeros(2)), ["(3,)", "(2,)"]),
        (lambda: Tabulated(torch.tensor([0.9, 0.5]), torch.tensor([0.0, 0.5])), ["0.9"]),
        (lambda: dataclasses.replace(Tabulated.from_betas(), t_max=1001.0), ["t_max=1001.0", "1000"]),
    ],
)
def test_parameters_that_make_no_process_are_refused(make: Any, words: Any) -> None:
    refused(make, *words)


def random_tables(seed: Any) -> Any:
    """Alphas falling and sigmas rising by steps of very unequal sizes."""
    g = torch.Generator().manual_seed(seed)
    n = int(torch.randint(1, 12, (), generator=g))
    down = torch.rand(n, generator=g, dtype=torch.float64) ** 6
    alphas = torch.cat([torch.ones(1, dtype=torch.float64), 1 - 0.99 * down.cumsum(0) / down.sum()])
    if seed % 3 == 0:
        alphas = torch.ones_like(alphas)
    up = 10 ** (3 * torch.rand(n, generator=g, dtype=torch.float64) - 1.5)
    return alphas, torch.cat([torch.zeros(1, dtype=torch.float64), up.cumsum(0)])


@pytest.mark.parametrize("seed", range(30))
def test_tables_are_met_exactly_and_smoothly(seed: Any) -> None:
    alphas, sigmas = random_tables(seed)
    p = Tabulated(alphas, sigmas)
    k = torch.arange(len(alphas), dtype=torch.float64)
    assert torch.equal(p.alpha(k), alphas)
    assert torch.equal(p.sigma(k), sigmas)
    t = torch.linspace(0, p.t_max, 5001, dtype=torch.float64)
    assert (p.alpha(t).diff() <= 0).all()
    assert (p.sigma(t).diff() >= 0).all()
    # C1: the derivative from the left is that from the right
    h = 1e-7
    inner = k[1:-1]
    for left, right in zip(p._rates(inner - h), p._rates(inner + h), strict=True):
        torch.testing.assert_close(left, right, rtol=1e-4, atol=1e-4)
    # noisier all the time: g^2 > 0, or the velocity reading and the reverse equation are not defined
    assert all(level.g2 > 0 for level in p.levels(t[1:]))


def test_zero_terminal_snr_keeps_the_start_and_kills_the_end() -> None:
    plain, zero = Tabulated.from_betas("scaled-linear"), Tabulated.from_betas("scaled-linear", zero_snr=True)
    assert zero.at(1.0).alpha == pytest.approx(plain.at(1.0).alpha, rel=1e-14)
    assert zero.at(1000.0).alpha == 0.0
    assert zero.at(1000.0).sigma == 1.0
    # Lin et al. 2023, algorithm 1: the square roots are shifted and scaled
    shift = [plain.at(float(k)).alpha - plain.at(1000.0).alpha for k in (1, 500)]
    assert zero.at(500.0).alpha / zero.at(1.0).alpha == pytest.approx(shift[1] / shift[0], rel=1e-12)
    for k in (1.0, 500.0, 999.0):
        assert zero.at(k).alpha ** 2 + zero.at(k).sigma ** 2 == pytest.approx(1.0, rel=1e-12)


def test_named_schedules_reach_about_the_same_noise_whatever_the_steps() -> None:
    for kind in ("linear", "scaled-linear", "sigmoid", "cosine"):
        ends_ = [Tabulated.from_betas(kind, n) for n in (200, 1000, 4000)]
        halves = [p.at(p.t_max / 2).log_snr for p in ends_]
        assert max(halves) - min(halves) < 0.1
