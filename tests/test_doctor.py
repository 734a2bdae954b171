"""The doctor: it names each planted fault, nothing in healthy runs, and changes nothing of what it looks at."""

import dataclasses
import hashlib
import json
import math
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from sure import Cli, once

import ornstein
from ornstein.core.condition import Condition
from ornstein.core.denoiser import FunctionDenoiser
from ornstein.core.exact import Empirical, Gaussian
from ornstein.experiment import checks, checks_of_samples
from ornstein.experiment.config import Experiment
from ornstein.experiment.doctor import CHECKS, Diagnosis, data_or_minutes, doctor, examine
from ornstein.experiment.evidence import Evidence, Part
from ornstein.experiment.run import Run
from ornstein.experiment.train import train

Made = Callable[..., Path]

SMALL = ["training.cpu=true", "training.threads=1", "training.snapshot_every=0", "sampling.preview=4",
         "training.log_every=50", "training.checkpoint_every=100000", "training.warmup=20"]  # fmt: skip
MLP = [*SMALL, "net={name: mlp, width: 64, depth: 2}", "training.steps=800", "training.batch_size=128",
       "training.validate_every=100"]  # fmt: skip
POINTS = [*MLP, "data.count=3000"]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    """A trained run of a preset with overrides, made once."""

    def make(preset: str, *overrides: str, **arrays: np.ndarray) -> Path:
        key = hashlib.sha1(repr((preset, overrides, sorted(arrays))).encode()).hexdigest()[:12]

        def trained(folder: Path) -> None:
            asked = list(overrides)
            if arrays:
                np.savez(folder.with_suffix(".npz"), allow_pickle=False, **arrays)
                asked.insert(0, f"data.path={folder.with_suffix('.npz')}")
            for _ in train(Experiment.read(preset, asked), folder, draws=False):
                pass

        return once(tmp_path_factory, f"doctor-{key}", trained)

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


@pytest.mark.parametrize(
    "name", ["points", "table", *(pytest.param(name, marks=pytest.mark.slow) for name in ("flow", "series"))]
)
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
    return np.asarray(np.clip(bright + g.integers(-2, 3, size=(400, 2, 2)), 0, 16), np.uint8)


def ladder(low: float, high: float = 50) -> list[str]:
    return [f"process={{name: ladder, sigma_min: {low}, sigma_max: {high}, steps: 30}}", "predicts=edm",
            "objective=edm", "sampling.stepper=ddim", "sampling.steps=30"]  # fmt: skip


def deaf(net: torch.nn.Module) -> None:
    """Tell it of much noise where there is little, and of little where there is much."""
    forward = net.forward
    net.forward = lambda x, noise_level, *rest: forward(x, -noise_level, *rest)


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
                                           "process={name: vp, beta_max: 0.4}")),
    "noise that ends too high": (
        "smallest-noise", lambda made, _: made("moons", *POINTS, "training.steps=100", *ladder(0.5))),
    "noise that ends below what rounding leaves": (
        "smallest-noise", lambda made, _: made("array", *MLP, "training.steps=100", *ladder(1e-4), x=whole_numbers())),
    "a network that is told the noise level upside down": (
        "error-by-noise", lambda made, _: hurt(healthy("table", made), deaf)),
    "an average far too long": (
        "ema-length", lambda made, _: made("moons", *POINTS, "training.steps=150", "training.ema=[0.05, 0.28]",
                                           "training.decay=constant", "sampling.ema=0.28")),
    "thirty rows learned by heart": (
        "memorisation", lambda made, _: made("array", *MLP, "training.steps=500", "training.lr=3e-3", **few_rows())),
    "thirty rows, and what was not seen forgotten": (
        "over-fitting", lambda made, _: made("array", *MLP, "training.steps=500", "training.lr=3e-3", **few_rows())),
    "two steps of sampling": (
        "sampler", lambda _, points: sampling(Run.load(points), steps=2)),
    "two steps of a sampler that draws noise": (
        "sampler", lambda made, _: sampling(Run.load(healthy("table", made)), steps=3, stepper={"name": "ddpm"})),
    "a mode that training never saw": (
        "modes-missed", lambda made, _: made("array", *MLP, "training.steps=450", **missing_mode())),
    "a rate too small to get anywhere": (
        "under-fitting", lambda made, _: made("moons", *POINTS, "training.steps=250", "training.lr=5e-5",
                                              "training.decay=constant", "training.validate_every=50")),
    "answers that are no gradient": ("curl", lambda _, points: hurt(points, turned)),
    "weights that are no numbers": ("broken-draws", lambda _, points: hurt(points, broken)),
}  # fmt: skip


@pytest.mark.parametrize("fault", FAULTS)
def test_a_planted_fault_is_named(fault: str, made: Made, points: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    name, planted = FAULTS[fault]
    if name != "broken-draws":  # which every check has to survive
        monkeypatch.setattr("ornstein.experiment.doctor.CHECKS", {name: CHECKS[name]})
    found = look(planted(made, points))
    assert name in found.findings, found.text()
    wrong = found.findings[name]
    assert wrong.do in found.text()
    assert wrong.said in found.text()
    told = found.to_dict()
    assert name in told["findings"]
    assert told["healthy"] is False


# --- what the figures are


def test_the_start_is_as_far_off_as_two_gaussians_are() -> None:
    """Of Gaussian data the divergence of the start is known in closed form."""
    g = torch.Generator().manual_seed(0)
    x = 0.5 + torch.randn(4000, 3, generator=g) * torch.tensor([1.5, 0.5, 0.2])
    law = Gaussian(torch.full((3,), 0.5), torch.tensor([1.5, 0.5, 0.2]) ** 2)
    process = ornstein.VP(beta_max=0.5)
    sigma_data = float(x.square().mean().sqrt())
    evidence: Any = SimpleNamespace(
        closed_forms=True, levels=[process.at(1.0)], dice=lambda: torch.Generator().manual_seed(1),
        held_out=SimpleNamespace(x0=law.sample(4000, torch.Generator().manual_seed(2))),
        laws={"gaussian": law, "empirical": Empirical(x[:50])},
        run=SimpleNamespace(model=SimpleNamespace(sigma_data=sigma_data)),
    )  # fmt: skip
    found = checks.signal_left(evidence)
    level = process.at(1.0)
    v = (level.alpha * sigma_data) ** 2 + level.sigma**2
    lam = (level.alpha**2 * torch.tensor([1.5, 0.5, 0.2]).double() ** 2 + level.sigma**2) / v
    exact = float(0.5 * (lam - 1 - lam.log()).sum() + 3 * (level.alpha * 0.5) ** 2 / (2 * v))
    assert found is not None
    assert found.figure == pytest.approx(exact, rel=0.1)
    assert exact > checks.SIGNAL_LEFT


@pytest.mark.parametrize(("angle", "wanted"), [(0.0, 0.0), (0.3, math.sin(0.3)), (math.pi / 2, 1.0)])
def test_curl_is_the_sine_of_the_angle_that_an_answer_is_turned_by(angle: float, wanted: float) -> None:
    """x0 = c R x: alpha J = c R, whose asymmetry is c sin(angle), in units of the larger of c and |c R - 1|."""
    turn = torch.tensor([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
    model = FunctionDenoiser(lambda x, level, condition: x @ turn.T / level.alpha, ornstein.VP())
    part = SimpleNamespace(x0=torch.randn(32, 2), condition=Condition())
    evidence: Any = SimpleNamespace(closed_forms=True, held_out=part, run=SimpleNamespace(model=model),
                                    dice=lambda: torch.Generator().manual_seed(0))  # fmt: skip
    found = checks.curl(evidence)
    assert found is not None
    larger = max(1.0, 2 * math.sin(angle / 2))  # |R - 1| = 2 sin(angle/2), |R| = 1, a direction
    assert found.figure == pytest.approx(wanted / larger, rel=0.1, abs=1e-6)


def test_an_honest_set_is_no_copy_and_a_copied_one_is(points: Path) -> None:
    run = Run.load(points)
    evidence = Evidence(run, run.load_data(), 400, 0)
    data = evidence.data
    evidence.__dict__["drawn"] = data.transform.forward(data.test[:150])
    half = dataclasses.replace(data, test=data.test[150:], conditions={})  # the other half of it is the reference
    evidence.data = half
    found = checks_of_samples.memorised(evidence)
    assert found is not None
    assert found.healthy, found
    for kept in ("drawn_own", "compared"):
        evidence.__dict__.pop(kept)
    evidence.__dict__["drawn"] = data.transform.forward(data.train[:150])
    found = checks_of_samples.memorised(evidence)
    assert found is not None
    assert found.figure > 0.4


def test_copies_are_told_among_rows_of_a_table_with_missing_cells(tmp_path: Path) -> None:
    g = np.random.default_rng(0)
    cells = np.where(g.random((400, 4)) < 0.05, "", g.normal(size=(400, 4)).round(3).astype(str))
    (tmp_path / "rows.csv").write_text("\n".join(["a,b,c,d", *map(",".join, cells)]) + "\n")
    few = [f"data.path={tmp_path / 'rows.csv'}", "data.test_fraction=0.5", "training.steps=1", "training.cpu=true",
           "training.precision=float32", "net.width=8", "net.depth=1"]  # fmt: skip
    for _ in train(Experiment.read("table", few), tmp_path / "run", draws=False):
        pass
    run = Run.load(tmp_path / "run")
    data = run.load_data()
    other = dataclasses.replace(data, test=data.test[100:])
    for drawn, of, copies in ((data.train[:100], data, True), (data.test[:100], other, False)):
        evidence = Evidence(run, of, 100, 0)
        evidence.__dict__["drawn"] = data.transform.forward(drawn)
        found = checks_of_samples.memorised(evidence)
        assert found is not None
        assert found.healthy is not copies, found


@pytest.mark.parametrize(
    ("checked", "fell", "late"),
    [
        ([(0, 1.2), (280, 0.65), (400, 0.5)], 0.25, 0.25 * 0.5 / 0.7),  # 0.3 in 120 steps, 0.25 in a quarter
        ([(0, 0.9), (100, 0.6), (300, 0.6), (400, 0.5)], 0.2, 0.2),  # won since 1, which knows next to nothing
        ([(0, 1.0), (300, 0.502), (400, 0.5)], 0.004, 0.0),
        ([(0, 1.0), (400, 0.5)], None, None),
        ([(350, 1.0), (380, 0.8), (400, 0.5)], None, None),
    ],
)
def test_what_the_last_quarter_won_is_told_from_the_held_out_errors(checked: Any, fell: Any, late: Any) -> None:
    evidence: Any = SimpleNamespace(checked=checked)
    assert checks.falling(evidence) == (None if fell is None else pytest.approx(fell))
    assert checks.won_late(evidence) == (None if late is None else pytest.approx(late))


def test_errors_are_measured_on_five_hundred_held_out_examples_or_all_and_fewer_of_large_ones() -> None:
    for there, shape, taken in ((600, (2,), 512), (40, (2,), 40), (600, (3, 512, 512), 42), (600, (3, 2048, 2048), 32)):
        data = SimpleNamespace(test=torch.zeros(there, 1), test_condition=Condition())
        evidence: Any = SimpleNamespace(data=data, run=SimpleNamespace(shape=shape), _part=lambda x, given, size: size)
        evidence.at_most = partial(Evidence.at_most, evidence)
        held_out: Any = Evidence.held_out
        assert held_out.func(evidence) == taken


def test_a_learner_that_is_no_denoiser_is_judged_by_whole_handfuls_of_examples() -> None:
    """Each tells one number, and a last one of fewer would weigh as much; of too few for one all are taken."""
    learner = SimpleNamespace(judge=lambda model, x0, given: SimpleNamespace(value=float(len(x0))))
    evidence: Any = SimpleNamespace(denoises=False, run=SimpleNamespace(learner=learner, model=None, types=()))
    for count, each in ((70, [32.0, 32.0]), (64, [32.0, 32.0]), (10, [10.0])):
        part = Part(torch.zeros(count, 2), Condition(), torch.zeros(count, 2))
        assert Evidence.judged(evidence, part).each.tolist() == each


@pytest.mark.parametrize(
    ("gap", "error", "fell", "says"),
    [
        (0.3, 0.01, 0.05, "More data would help more than more minutes (error on training data 30% below that on "),
        (0.3, 0.01, 0.2, "More minutes of training would help more than more data (error on training data 30% below "),
        (0.3, 0.2, 0.005, "Neither more data nor more minutes"),  # a gap that chance explains
        (0.01, 0.0, 0.005, "Neither more data nor more minutes"),
        (0.01, 0.0, -0.1, "Neither more data nor more minutes"),
        (0.3, 0.0, -0.1, "More data would help more than more minutes"),
    ],
)
def test_data_or_minutes_are_asked_for_by_the_gap_and_the_fall(gap: Any, error: Any, fell: Any, says: Any) -> None:
    def known(mean: float) -> Any:
        return SimpleNamespace(mean=mean, standard_error=error)

    checked = [(0, 1.0), (300, 0.5 * (1 + fell)), (400, 0.5)]
    evidence: Any = SimpleNamespace(checked=checked, on_held_out=known(1.0), on_trained=known(1.0 - gap))
    assert data_or_minutes(evidence).startswith(says)
    if "Neither" not in says:  # of one that has not done learning a gap says nothing yet
        assert data_or_minutes(evidence, learning=True).startswith(
            "More minutes of training are needed first (error on "
        )
    evidence.checked = []
    assert data_or_minutes(evidence) == ""


def test_too_few_measurements_in_training_are_said_to_be(points: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is not looked at is named: whoever reads that nothing is wrong would think it was."""
    monkeypatch.setattr("ornstein.experiment.doctor.CHECKS", {"over-fitting": CHECKS["over-fitting"]})
    run = Run.load(points)
    for times, said in ((0, "measured never"), (1, "measured once"), (2, "measured twice"), (3, "")):
        evidence = Evidence(run, run.load_data(), 20, 0)
        evidence.__dict__["checked"] = evidence.checked[-times:] if times else []
        found = examine(evidence)
        assert said in found.left_out, times
        assert bool(said) == ("over-fitting were not looked at" in found.left_out)
        assert bool(said) != ("over-fitting" in found.examined)
        assert not said or found.left_out in found.text()


def test_shares_that_chance_explains_are_not_apart() -> None:
    assert checks_of_samples._apart(0, 200, 32, 400) == pytest.approx(math.sqrt(2 * 32 * math.log(1.5) + 2 * (
        200 * math.log(1 / (1 - 32 / 600)) + 368 * math.log((368 / 400) / (1 - 32 / 600)))))  # fmt: skip
    assert checks_of_samples._apart(8, 200, 16, 400) == 0
    g = np.random.default_rng(0)
    far = [checks_of_samples._apart(int(g.binomial(200, 0.1)), 200, int(g.binomial(400, 0.1)), 400) for _ in range(500)]
    assert np.mean(np.square(far)) == pytest.approx(1, abs=0.25)  # a chi-square of one degree of freedom


# --- the verb


def test_the_verb_tells_reads_only_and_says_by_its_code_whether_something_is_wrong(points: Path, cli: Cli) -> None:
    def content() -> dict[str, bytes]:
        return {str(path): path.read_bytes() for path in sorted(points.rglob("*")) if path.is_file()}

    before, state = content(), torch.get_rng_state()
    answer = cli("doctor", points, "-n", 100)
    assert answer.code == 0, answer.out
    assert "Nothing is wrong." in answer.out
    told = json.loads(cli("doctor", points, "-n", 100, "--json").out)
    assert told["healthy"] is True
    assert set(told["checks"]) == set(CHECKS)
    assert content() == before
    assert torch.equal(torch.get_rng_state(), state)


def test_findings_give_code_1(points: Path, cli: Cli, tmp_path: Path) -> None:
    shutil.copytree(points, tmp_path / "run")
    text = (points / "experiment.yaml").read_text().replace("  steps: 30\n", "  steps: 1\n")
    (tmp_path / "run" / "experiment.yaml").write_text(text)
    assert cli("info", tmp_path / "run", "--accept").code == 0
    answer = cli("doctor", tmp_path / "run", "-n", 100)
    assert answer.code == 1
    assert "sampler: samples still change" in answer.out


def test_what_is_no_run_is_refused_in_a_sentence(cli: Cli, tmp_path: Path) -> None:
    answer = cli("doctor", tmp_path)
    assert answer.code == 2
    assert "has no experiment.yaml" in answer.err


def test_too_few_samples_are_refused_in_a_sentence(points: Path, cli: Cli) -> None:
    answer = cli("doctor", points, "-n", 3)
    assert answer.code == 2
    assert "n=3 must be at least 20" in answer.err


def test_the_front_door_takes_a_folder_or_a_run(points: Path) -> None:
    """And says the same of both: all that is random has a seed."""
    assert ornstein.doctor(points, n=50).to_dict() == ornstein.doctor(ornstein.load(points), n=50).to_dict()


def test_a_run_that_is_no_model_of_its_data_is_judged_by_what_it_is(made: Made) -> None:
    found = look(made("moons", *POINTS, "training.steps=80", "training.validate_every=20", "objective=classifier"), 40)
    assert {"over-fitting", "under-fitting", "broken-steps"} <= set(found.examined)
    assert not {"sampler", "memorisation", "signal-left"} & set(found.examined)
