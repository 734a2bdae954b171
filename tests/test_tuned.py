"""Tuned solvers: every linear multistep method is a triangle of numbers, and a fitted one beats it on fresh noise."""

import dataclasses
import math
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from laws import PROCESSES, ZERO_SNR, constant, mixture, refused
from sure import Cli

import ornstein
from ornstein import VP, Flow, sample
from ornstein.core.grids import times
from ornstein.distill.solver import endpoint_error, endpoints, fit_endpoint, starting_noise
from ornstein.experiment.folder import accept, read_tuned, write_tuned
from ornstein.experiment.run import Run
from ornstein.experiment.tune import tune_endpoint
from ornstein.samplers import STEPPERS
from ornstein.samplers.ancestral import DDIM
from ornstein.samplers.exponential import DEIS, DPMpp2M
from ornstein.samplers.flow import Heun
from ornstein.samplers.tuned import Tuned, as_tuned, path, squared
from ornstein.samplers.unipc import UniPC

F64 = torch.float64
#: the methods of the table that are deterministic, of one call a step, and so triangles
LINEAR = [s for s in (cls() for cls in STEPPERS.values()) if not s.stochastic and s.calls == 1]
MIXED = Tuned((1.0, 0.6, 0.3, 0.0), (0.02, -0.01), ((0.9,), (-0.3, 1.2), (0.1, -0.4, 1.3)))
LEANT = dataclasses.replace(MIXED, leanings=(((0.1, -0.2, 0.3), (-0.05, 0.1, 0.2)), ((0.3, -0.1), (0.2, 0.4))))


@pytest.mark.parametrize("stepper", LINEAR, ids=repr)
@pytest.mark.parametrize("process", [VP(), Flow(), PROCESSES["betas"], ZERO_SNR["betas[zero]"]], ids=repr)
def test_every_linear_method_is_a_triangle(process: Any, stepper: Any) -> None:
    """What is read off a method draws what the method draws, to rounding."""
    grid = times(process, 6, "trailing" if process.chain else "flow")
    den = mixture().denoiser(process)
    tuned = as_tuned(stepper, process, grid, den.sigma_data)
    given = sample(den, (20, 2), stepper=stepper, grid=grid, seed=0, dtype=F64)
    found = sample(den, (20, 2), stepper=tuned, grid=tuned.grid, seed=0, dtype=F64)
    torch.testing.assert_close(found, given, rtol=1e-9, atol=1e-9)


def test_the_triangles_that_books_print() -> None:
    """DDIM is the diagonal; DPM-Solver++(2M) has two numbers a row, of the ratio of steps in log-SNR."""
    grid = times(VP(), 4, "logsnr")
    ddim = as_tuned(STEPPERS["ddim"](), VP(), grid)
    for i, row in enumerate(ddim.weights):
        assert row == pytest.approx([0.0] * i + [1.0], abs=1e-12)
    assert ddim.drift == pytest.approx([0.0] * 3, abs=1e-12)
    # even steps in log-SNR: half a step of extrapolation
    dpm = as_tuned(DPMpp2M(), VP(), grid)
    assert dpm.weights[1] == pytest.approx([-0.5, 1.5], abs=1e-9)
    assert dpm.weights[2] == pytest.approx([0.0, -0.5, 1.5], abs=1e-9)
    assert dpm.weights[3] == pytest.approx([0.0, 0.0, 0.0, 1.0], abs=1e-12)


def test_constant_data_come_out_exactly_whatever_the_numbers() -> None:
    c = torch.tensor([0.7, -1.3], dtype=F64)
    for tuned in (MIXED, LEANT, Tuned((0.5, 0.0), (), ((1.0,),))):
        drawn = sample(constant(VP(), c), (3, 2), stepper=tuned, grid=tuned.grid, seed=0)
        assert torch.equal(drawn, c.float().expand(3, 2))


def test_the_path_of_a_gaussian_tells_its_width() -> None:
    """Along its trajectory the noise in x is r/sqrt(s^2 + r^2) of the first, the answer s^2/sqrt(s^2 + r^2) of it."""
    process, z = ornstein.EDM(), torch.tensor([[0.3, -1.2, 0.5], [2.0, 0.1, -0.4]], dtype=F64)
    for s in (0.0, 0.02, 0.5, 3.0):
        before, now = 0.7, 0.2
        answers = [s * s / math.hypot(s, r) * z for r in (80.0, before, now)]
        level = process.at(now)
        kept, moved = path(math.hypot(s, now) * z, answers, level.alpha, level.sigma, squared(z))
        noise = now**2 / (s * s + now**2)
        assert kept.tolist() == pytest.approx([math.log(1e-4 + noise) / 4] * 2, rel=1e-6)
        change = s * s / math.hypot(s, now) - s * s / math.hypot(s, before)
        expected = change / math.hypot(change, now * math.sqrt(noise)) - 0.5
        assert moved.tolist() == pytest.approx([expected] * 2, abs=2e-5)


def test_leaning_weights_are_the_sum_that_the_page_says() -> None:
    """Three calls, by hand; each sample by itself."""
    den, p = mixture().denoiser(VP()), VP()
    found = sample(den, (4, 2), stepper=LEANT, grid=LEANT.grid, seed=2, dtype=F64)
    states: list[Any] = []
    sample(den, (4, 2), stepper="ddim", grid=[1.0], seed=2, dtype=F64, progress=states.append)
    x, answers = states[0].x, []
    a, b, c = (p.at(t) for t in LEANT.grid[:3])
    for level, after, drift, weights, leanings in (
        (a, b, 0.02, (0.9,), None),
        (b, c, -0.01, (-0.3, 1.2), LEANT.leanings[0]),
        (c, None, 0.0, (0.1, -0.4, 1.3), [(0.0, *row, -sum(row)) for row in LEANT.leanings[1]]),
    ):
        answers.append(den(x, level).x0)
        if leanings is None:
            first = squared((x - level.alpha * answers[0]) / level.sigma)
            numbers = [torch.full((4, 1), n, dtype=F64) for n in (drift, *weights)]
        else:
            kept, moved = path(x, answers, level.alpha, level.sigma, first)
            numbers = [
                (n + u * kept + v * moved)[:, None] for n, u, v in zip((drift, *weights), *leanings, strict=True)
            ]
        mixed = sum(w * answer for w, answer in zip(numbers[1:], answers, strict=True))
        if after is not None:
            ratio = after.sigma / level.sigma
            x = ratio * (1 + numbers[0]) * x + (after.alpha - ratio * level.alpha) * mixed
    torch.testing.assert_close(found, mixed, rtol=1e-9, atol=1e-9)
    alone = sample(den, (1, 2), stepper=LEANT, grid=LEANT.grid, seeds=[(2 << 32) + 3], dtype=F64)
    torch.testing.assert_close(alone[0], found[3], rtol=1e-12, atol=1e-12)


def test_it_steps_on_its_own_grid_only() -> None:
    den = mixture().denoiser(VP())
    refused(lambda: sample(den, (2, 2), stepper=MIXED, steps=3, seed=0), "grid")
    refused(lambda: sample(den, (2, 2), stepper=MIXED, grid=[1.0, 0.6, 0.2, 0.0], seed=0), "grid=tuned.grid")
    refused(lambda: sample(den, (2, 2), stepper=MIXED, grid=[1.0, 0.6, 0.0], seed=0), "grid=tuned.grid")
    refused(lambda: sample(den, (2, 2), stepper=MIXED, grid=[1.0, 0.6, 0.3, 0.1, 0.0], seed=0), "grid=tuned.grid")


@dataclasses.dataclass(frozen=True)
class Leaky(DDIM):
    """Keeps some of the noise at the clean point."""

    def finish(self, denoiser: Any, x: Any, t: Any, memory: Any, noise: Any) -> Any:
        return denoiser(x, t).x0 + 0.1 * x


def test_numbers_that_do_not_fit_are_refused() -> None:
    refused(lambda: dataclasses.replace(MIXED, grid=(1.0, 0.3, 0.6, 0.0)), "grid", "fall")
    refused(lambda: dataclasses.replace(MIXED, drift=(0.0,)), "drift", "1")
    refused(lambda: dataclasses.replace(MIXED, weights=MIXED.weights[:2]), "weights")
    refused(lambda: dataclasses.replace(MIXED, weights=(*MIXED.weights[:2], (0.1, 0.1, 0.1))), "sums to 0.3")
    refused(lambda: dataclasses.replace(LEANT, leanings=LEANT.leanings[:1]), "leanings", "[3, 2]")
    for stepper in (Heun(), STEPPERS["ddpm"](), STEPPERS["euler-maruyama"](), Leaky()):
        refused(lambda stepper=stepper: as_tuned(stepper, VP(), times(VP(), 4)), "triangle")
    den = mixture().denoiser(VP())
    refused(lambda: fit_endpoint(den, (2,), 0), "steps=0")
    refused(lambda: fit_endpoint(den, (2,), 5, rounds=0), "rounds=0")
    refused(lambda: fit_endpoint(den, (2,), 5, count=8, condition=torch.zeros(7)), "condition", "7", "8")


def test_the_teacher_knows_where_trajectories_end() -> None:
    """A Gaussian's trajectories are known: x keeps its place in the marginal, (x - alpha m)/spread."""
    m, v = torch.tensor([0.5, -1.0], dtype=F64), torch.tensor([0.04, 0.6], dtype=F64)
    den = ornstein.core.exact.Gaussian(m, v).denoiser(VP())
    x = starting_noise(den, (16, 2), 3, F64)
    first = VP().at(1.0)
    ends = m + v.sqrt() * (x - first.alpha * m) / (first.alpha**2 * v + first.sigma**2).sqrt()
    errors = [float((endpoints(den, x, steps=n) - ends).abs().max()) for n in (50, 200, 1000)]
    assert errors[1] < 1e-4
    assert errors[2] < 1e-6
    assert endpoint_error(den, x, ends, DEIS(), calls=1).value > 0.1


@pytest.fixture(scope="module")
def fresh() -> Any:
    den = mixture().denoiser(VP())
    x = starting_noise(den, (200, 2), 100, F64)
    return den, x, endpoints(den, x, steps=400)


def test_a_fitted_solver_is_far_nearer_on_fresh_noise(fresh: Any) -> None:
    den, x, ends = fresh
    tuned = fit_endpoint(den, (2,), 5, count=256, rounds=24, dtype=F64, seed=1)
    found = endpoint_error(den, x, ends, tuned, calls=5)
    others = [
        endpoint_error(den, x, ends, stepper, grid, calls=5).value
        for stepper in LINEAR
        for grid in ("flow", "power", "uniform")
    ]
    assert found.value < 0.6 * min(others), (found, min(others))
    assert len(tuned.grid) == 6
    assert 0.3 < tuned.grid[0] <= 1.0
    # the same seed, the same numbers
    assert fit_endpoint(den, (2,), 3, count=64, rounds=3, seed=1) == fit_endpoint(
        den, (2,), 3, count=64, rounds=3, seed=1
    )


def test_it_does_not_depend_on_the_batch_nor_on_the_clock_it_is_read_on(fresh: Any) -> None:
    den, x, ends = fresh
    whole = fit_endpoint(den, (2,), 3, count=90, rounds=6, dtype=F64)
    parts = fit_endpoint(den, (2,), 3, count=90, rounds=6, dtype=F64, batch=40)
    assert parts.grid == pytest.approx(whole.grid, rel=1e-4)
    assert endpoint_error(den, x, ends, parts, calls=3).value == pytest.approx(
        endpoint_error(den, x, ends, whole, calls=3).value, rel=1e-3
    )
    # a denoiser read on another clock, whose levels carry no gradient
    home = ornstein.FunctionDenoiser(lambda y, level, condition: den(y, level).x0, VP(), sigma_data=den.sigma_data)
    read = home.on(Flow())
    noise = starting_noise(read, (200, 2), 100, F64)
    there = endpoints(read, noise, steps=200)
    before = endpoint_error(read, noise, there, UniPC(), calls=4).value
    tuned = fit_endpoint(read, (2,), 4, count=128, rounds=16, dtype=F64)
    assert endpoint_error(read, noise, there, tuned, calls=4).value < 0.5 * before


def test_it_fits_chains_without_signal_and_conditions() -> None:
    process = ZERO_SNR["betas[zero]"]
    den = mixture().denoiser(process)
    x = starting_noise(den, (200, 2), 9, F64)
    ends = endpoints(den, x, steps=200)
    tuned = fit_endpoint(den, (2,), 4, count=128, rounds=16, dtype=F64)
    assert tuned.grid[0] <= process.t_max
    assert (
        endpoint_error(den, x, ends, tuned, calls=4).value < 0.6 * endpoint_error(den, x, ends, UniPC(), calls=4).value
    )
    # with labels: the conditional trajectories are those that are followed
    condition = torch.arange(256) % 3
    vp = mixture().denoiser(VP())
    fitted = fit_endpoint(vp, (2,), 2, count=256, condition=condition, rounds=12, dtype=F64)
    labels = torch.arange(200) % 3
    noise = starting_noise(vp, (200, 2), 9, F64)
    there = endpoints(vp, noise, steps=200, condition=labels)
    conditional = endpoint_error(vp, noise, there, fitted, calls=2, condition=labels).value
    blind = fit_endpoint(vp, (2,), 2, count=256, rounds=12, dtype=F64)
    assert conditional < endpoint_error(vp, noise, there, blind, calls=2, condition=labels).value


def test_gradients_pass_through_a_network_and_leave_it_alone() -> None:
    torch.manual_seed(0)
    net = torch.nn.Sequential(torch.nn.Linear(2, 32), torch.nn.Tanh(), torch.nn.Linear(32, 2))

    class Net(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body = net

        def forward(self, x: Any, noise_level: Any, condition: Any) -> Any:
            return self.body(x + 0.3 * torch.sin(noise_level)[:, None])

    den = ornstein.NetDenoiser(Net(), VP(), predicts="v")
    x = starting_noise(den, (200, 2), 50)
    ends = endpoints(den, x, steps=300)
    tuned = fit_endpoint(den, (2,), 4, count=256, rounds=40)
    assert all(p.grad is None for p in net.parameters())
    best = min(endpoint_error(den, x, ends, s, grid, calls=4).value for s in LINEAR for grid in ("flow", "power"))
    assert endpoint_error(den, x, ends, tuned, calls=4).value < 0.7 * best


# --- runs -------------------------------------------------------------------------------------------------------------


def test_a_run_is_tuned_to_its_endpoint_and_drawn_with_what_was_kept(cli: Cli, run: Path, tmp_path: Path) -> None:
    copied = tmp_path / "run"
    shutil.copytree(run, copied)
    found = tune_endpoint(Run.load(copied), 4, count=16, fresh=16, rounds=10, reference=40)
    assert found.tuned.value < found.default.value
    assert {"unipc", "dpm++2m", "heun", "ddim"} <= set(found.others)
    assert "ddpm" not in found.others
    entry = yaml.safe_load((copied / "tuned.yaml").read_text())[4]["endpoint"]
    tuned = Tuned(
        tuple(entry["grid"]),
        tuple(entry["drift"]),
        tuple(map(tuple, entry["weights"])),
        tuple(tuple(map(tuple, rows)) for rows in entry["leanings"]),
    )
    assert len(tuned.leanings) == 3
    opened = Run.load(copied)
    expected = opened.draw(3, seed=0, stepper=tuned, grid=tuned.grid)
    assert torch.equal(opened.draw(3, seed=0, grid="tuned", steps=4), expected)
    assert not torch.equal(opened.draw(3, seed=0, steps=4), expected)
    # a stepper that is named takes the levels; the grid of the bound is its own and stays beside it
    assert torch.equal(
        opened.draw(3, seed=0, stepper="ddim", grid="tuned", steps=4),
        opened.draw(3, seed=0, stepper="ddim", grid=tuned.grid),
    )
    write_tuned(copied, 4, {"grid": times(opened.denoiser.process, 4, "logsnr").tolist()})
    kept = read_tuned(copied)[4]
    assert kept["endpoint"] == tuned
    assert torch.equal(
        opened.draw(3, seed=0, stepper="ddpm", grid="tuned", steps=4),
        opened.draw(3, seed=0, stepper="ddpm", grid=kept["grid"]),
    )
    assert torch.equal(opened.draw(3, seed=0, grid="tuned", steps=4), expected)
    answer = cli("sample", copied, "-n", 3, "--grid", "tuned", "--steps", 4, "--out", tmp_path / "a.npz")
    assert answer.code == 0


def test_solvers_that_were_kept_before_weights_leant_are_still_read(run: Path, tmp_path: Path) -> None:
    entry = {"grid": list(MIXED.grid), "drift": list(MIXED.drift), "weights": [list(row) for row in MIXED.weights]}
    (tmp_path / "tuned.yaml").write_text(yaml.safe_dump({3: {"endpoint": entry}}))
    assert read_tuned(tmp_path)[3]["endpoint"] == MIXED
    write_tuned(tmp_path, 2, {"endpoint": LEANT})
    assert {k: part["endpoint"] for k, part in read_tuned(tmp_path).items()} == {3: MIXED, 2: LEANT}


def test_what_does_not_beat_the_default_is_not_kept(run: Path, tmp_path: Path) -> None:
    copied = tmp_path / "run"
    shutil.copytree(run, copied)
    # a run whose own sampling is already the teacher's cannot be beaten by one round on two trajectories
    path = copied / "experiment.yaml"
    tree = yaml.safe_load(path.read_text())
    tree["sampling"]["stepper"] = {"name": "unipc"}
    path.write_text(yaml.safe_dump(tree))
    accept(copied)
    refused(lambda: tune_endpoint(Run.load(copied), 3, count=2, fresh=8, rounds=1, reference=3), "steps=3", "not kept")
    assert not (copied / "tuned.yaml").exists()
    refused(lambda: tune_endpoint(Run.load(copied), 65, count=8, fresh=8, reference=20), "steps=65", "64")


def test_the_command_refuses_in_one_sentence(cli: Cli, run: Path, tmp_path: Path) -> None:
    copied = tmp_path / "run"
    shutil.copytree(run, copied)
    answer = cli("tune", copied, "--steps", 0, "--criterion", "endpoint")
    assert answer.code == 2
    assert "steps=0" in answer.err
    for option, said in (("--count", "count=0"), ("--rounds", "rounds=0")):
        answer = cli("tune", copied, "--steps", 4, "--criterion", "endpoint", option, 0)
        assert answer.code == 2
        assert said in answer.err
        answer = cli("tune", copied, "--steps", 4, option, 8)
        assert answer.code == 2
        assert "--criterion endpoint" in answer.err
    (copied / "tuned.yaml").write_text("{5: {endpoint: {grid: [1.0, 0.0], drift: [], weights: [[2.0]]}}}")
    answer = cli("sample", copied, "--grid", "tuned", "--steps", 5)
    assert answer.code == 2
    assert "damaged" in answer.err
