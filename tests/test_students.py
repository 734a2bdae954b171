"""Students of few calls: what each method teaches is the exact flow map where the teacher is exact; and as runs."""

import math
import shutil
from collections import Counter
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from sure import Cli, once
from torch import Tensor

import ornstein
from ornstein.core.chains import Tabulated
from ornstein.core.clocks import VE, VP, Flow
from ornstein.core.condition import Condition, Given
from ornstein.core.denoiser import Denoiser, FunctionDenoiser, NetDenoiser
from ornstein.core.exact import GaussianMixture
from ornstein.core.learner import Problem
from ornstein.core.prediction import Prediction
from ornstein.core.process import Level, Process
from ornstein.core.walk import end
from ornstein.distill import RUNG, Assisted, Endpoint, Moments
from ornstein.distill.endpoint import SOFT, energy
from ornstein.distill.ladder import Ladder, Renoise, grid
from ornstein.distill.students import CALLS, Consistency, Progressive, Rectified
from ornstein.errors import InputError
from ornstein.experiment.config import Experiment
from ornstein.experiment.folder import read_experiment, read_weights
from ornstein.experiment.learner import LEARNERS
from ornstein.experiment.report import describe
from ornstein.experiment.run import Run
from ornstein.experiment.settle import drawing_precision
from ornstein.experiment.students import student_of
from ornstein.experiment.train import train
from ornstein.nets import NETS
from ornstein.samplers import DDIM, UniPCAuto

F64 = torch.float64
MEAN, STD = torch.tensor([0.3, -0.8], dtype=F64), torch.tensor([0.5, 1.2], dtype=F64)
CLOCKS: dict[str, Process] = {"vp": VP(), "flow": Flow(), "ve": VE(), "betas": Tabulated.from_betas("linear", 960)}


def gaussian(process: Process) -> Any:
    return GaussianMixture(torch.ones(1), MEAN[None], STD[None] ** 2).denoiser(process)


def ends_of(x: Tensor, level: Level) -> Tensor:
    """Where the probability-flow trajectory from x ends, in closed form."""
    return MEAN + STD * (x - level.alpha * MEAN) / ((level.alpha * STD) ** 2 + level.sigma**2) ** 0.5


class Affine(Denoiser):
    """A student that can be anything linear at each level and number of calls; before it is taught, its teacher."""

    def __init__(self, teacher: Any) -> None:
        self.teacher, self.process, self.sigma_data = teacher, teacher.process, teacher.sigma_data
        self.known: dict[Any, tuple[Tensor, Tensor]] = {}

    def predict(self, x: Tensor, level: Level, condition: Condition) -> Prediction:
        assert len(x)  # networks are asked about something
        answer = self.teacher.predict(x, level, Condition()).x0.clone()
        for key, rows in groups(x, level, condition):
            if key in self.known:
                slope, offset = self.known[key]
                answer[rows] = x[rows] * slope + offset
        return Prediction(answer, x, level)

    def learn(self, lesson: Any) -> None:
        """The least squares of a lesson, exactly."""
        for key, rows in groups(lesson.x, lesson.level, lesson.condition):
            x, y = lesson.x[rows], lesson.answer[rows]
            slope = ((x - x.mean(0)) * (y - y.mean(0))).sum(0) / (x - x.mean(0)).square().sum(0)
            self.known[key] = slope, y.mean(0) - slope * x.mean(0)


def groups(x: Tensor, level: Level, condition: Condition) -> Any:
    t = torch.as_tensor(level.t, dtype=F64).flatten().expand(len(x))
    calls = condition.parts.get(CALLS, torch.full((len(x),), -1))
    keys = [(round(float(a), 9), int(b)) for a, b in zip(t, calls, strict=True)]
    return [(key, torch.tensor([k == key for k in keys])) for key in dict.fromkeys(keys)]


def taught(objective: Any, process: Process, rounds: int) -> tuple[Affine, Any]:
    teacher = gaussian(process)
    student, dice = Affine(teacher), torch.Generator().manual_seed(0)
    learner: Any = LEARNERS["student"](Problem(process, "v", objective, (2,), teacher.sigma_data))
    x0 = MEAN + STD * torch.randn(240, 2, generator=dice, dtype=F64)
    for _ in range(rounds):
        student.learn(objective.lesson(student, x0, Condition(), dice, teacher, learner.calls))
    return student, learner


@pytest.mark.parametrize("clock", CLOCKS)
def test_progressive_distillation_of_an_exact_gaussian_is_its_exact_flow_map(clock: str) -> None:
    student, learner = taught(Progressive(substeps=24), CLOCKS[clock], rounds=3)
    assert learner.calls == (4, 2, 1)
    for calls in learner.calls:
        states = list(learner.walk(student, 64, DDIM(), calls, seeds=torch.arange(64), dtype=F64))
        assert states[-1].calls == calls
        exact = ends_of(states[0].x, student.process.at(states[0].t))
        assert (states[-1].x - exact).abs().max() < 1e-3
    # a batch of few rows has lessons of some numbers of calls only
    dice, one = torch.Generator().manual_seed(0), torch.zeros(1, 2, dtype=F64)
    for rows in (1, 2):
        lesson = learner.lessons.lesson(student, one.expand(rows, 2), Condition(), dice, student, learner.calls)
        assert (lesson.answer - student.predict(lesson.x, lesson.level, lesson.condition).x0).abs().max() < 1e-3
    # and a teacher's own step of DDIM is far from it: what is taught is not what was there
    untaught = end(learner.walk(Affine(student.teacher), 64, DDIM(), 1, seeds=torch.arange(64), dtype=F64)).x
    assert (untaught - exact).abs().max() > 0.1


@pytest.mark.parametrize("clock", ["vp", "betas"])
def test_consistency_with_an_exact_gaussian_is_its_exact_flow_map_from_everywhere(clock: str) -> None:
    segments = 60
    student, learner = taught(Consistency(segments=segments), CLOCKS[clock], rounds=segments)
    ladder = Ladder(student, segments)
    assert learner.lessons.rungs(learner.calls) == segments
    x = torch.randn(40, 2, generator=torch.Generator().manual_seed(1), dtype=F64)
    for rung in range(segments):
        level = ladder.at(torch.full((40,), rung), x)
        noisy = level.alpha * MEAN + (level.alpha**2 * STD**2 + level.sigma**2) ** 0.5 * x
        found = student.predict(noisy, level, Condition()).x0
        assert (found - ends_of(noisy, level)).abs().max() < (1e-3 if rung < segments - 1 else 3e-4)


@pytest.mark.parametrize("clock", ["vp", "flow", "ve"])
def test_the_teachers_walk_is_of_second_order_down_to_the_clean_point(clock: str) -> None:
    teacher, off = gaussian(CLOCKS[clock]), []
    for segments in (4, 8, 16, 32, 64):
        ladder, at = Ladder(teacher, segments), torch.zeros(64, dtype=torch.long)
        x = torch.randn(64, 2, generator=torch.Generator().manual_seed(0), dtype=F64)
        top = ladder.at(at, x)
        x = ((top.alpha * teacher.sigma_data) ** 2 + top.sigma**2) ** 0.5 * x
        exact = ends_of(x, top)
        for _ in range(segments):
            x, at = ladder.heun(teacher, x, at, at + 1, Condition()), at + 1
        off.append(float((x - exact).square().mean().sqrt()))
    assert all(coarse > 3 * fine for coarse, fine in pairwise(off[1:])), off
    assert off[0] < 0.03  # and useful from the beginning


@pytest.mark.parametrize("clock", CLOCKS)
def test_reflow_of_an_exact_gaussian_joins_noise_with_the_end_that_the_flow_takes_it_to(clock: str) -> None:
    process = CLOCKS[clock]
    teacher, dice = gaussian(process), torch.Generator().manual_seed(0)
    x0 = torch.zeros(64, 2, dtype=F64)
    lesson = Rectified(segments=96).lesson(teacher, x0, Condition(), dice, teacher, (1, 2))
    # the noise that x_t is made of, with the end that it should be made of, is the noise whose end that is
    level, top = lesson.level, process.at(float(grid(process, 96, teacher.unit)[0]))
    z = (lesson.x - level.alpha * lesson.answer) / level.sigma
    assert len(lesson.answer.unique(dim=0)) == 16  # lines
    assert len(torch.as_tensor(level.t).unique()) > 50  # levels
    start = ((top.alpha * teacher.sigma_data) ** 2 + top.sigma**2) ** 0.5 * z
    assert (lesson.answer - ends_of(start, top)).abs().max() < 1e-3


def spread_at(denoiser: Any, t: float) -> float:
    """The standard deviation of what a walk from t begins with."""
    level = denoiser.process.at(t)
    return math.hypot(level.alpha * denoiser.sigma_data, level.sigma)


class Steered(Denoiser):
    """A student that can add anything linear to its teacher's answer, at each level and number of calls."""

    def __init__(self, teacher: Any) -> None:
        self.teacher, self.process, self.sigma_data = teacher, teacher.process, teacher.sigma_data
        self.known: dict[Any, Tensor] = {}

    def predict(self, x: Tensor, level: Level, condition: Condition) -> Prediction:
        (key, _), *more = groups(x, level, condition)
        assert not more  # all rows of a walk are at one level
        slope, offset = self.known.setdefault(key, torch.zeros(2, 2, dtype=F64, requires_grad=True))
        return Prediction(self.teacher.predict(x, level, Condition()).x0 + slope * x + offset, x, level)


@pytest.mark.parametrize(("clock", "reuse"), [*((clock, 1) for clock in CLOCKS), ("flow", 3)])
def test_the_endpoint_of_an_exact_gaussian_is_learned_as_its_exact_flow_map(clock: str, reuse: int) -> None:
    teacher, objective = gaussian(CLOCKS[clock]), Endpoint(segments=24, reuse=reuse)
    learner: Any = LEARNERS["student"](Problem(CLOCKS[clock], "v", objective, (2,), teacher.sigma_data))
    student, x0 = Steered(teacher), torch.zeros(96, 2, dtype=F64)
    pool = objective.memory(x0, Condition())

    def loss(step: int, memory: dict[str, Tensor]) -> Tensor:
        dice = torch.Generator().manual_seed(step)
        return objective(student, x0, Condition(), dice, teacher, learner.calls, memory).mean()

    def off(calls: int) -> float:
        states = list(learner.walk(student, 64, UniPCAuto(), calls, seeds=torch.arange(64), dtype=F64))
        assert states[-1].calls == calls
        # it begins below the top of the clock, from noise that the teacher would begin with there
        noise = states[0].x / spread_at(student, states[0].t)
        top = float(grid(student.process, 1, student.unit)[0])
        exact = ends_of(spread_at(student, top) * noise, student.process.at(top))
        return float((states[-1].x - exact).abs().max())

    for step in range(12 if pool else 1):  # now it has met its levels, and the pool was filled and has turned over
        loss(step, pool)
    untaught = [off(calls) for calls in learner.calls]
    search = torch.optim.LBFGS(
        student.known.values(), max_iter=200, tolerance_grad=1e-12, line_search_fn="strong_wolfe"
    )

    def closure() -> Tensor:
        search.zero_grad()
        value = loss(12, {name: kept.clone() for name, kept in pool.items()})
        value.backward()
        return value

    search.step(closure)
    assert max(off(calls) for calls in learner.calls) < 1e-3
    assert untaught[-1] > 0.1  # by the teacher's own solver in one call


def test_an_end_serves_as_many_lessons_as_it_is_to_beside_its_own_noise_and_condition() -> None:
    # the teacher's answer is what it is told, so that every end says which it was; each step tells it other things
    teacher = FunctionDenoiser(lambda x, level, given: given.parts["number"][:, None].expand_as(x), VP())
    met: list[Tensor] = []

    class Listening(Denoiser):
        process, sigma_data = teacher.process, teacher.sigma_data

        def predict(self, x: Tensor, level: Level, condition: Condition) -> Prediction:
            met.append(torch.stack([condition.parts["number"], x[:, 0] / spread_at(self, float(level.t))]))
            return teacher.predict(x, level, condition)

    objective, x0 = Endpoint(segments=2, reuse=4, drop_label=0.0), torch.zeros(8, 2, dtype=F64)
    pool = objective.memory(x0, Condition.of(x0[:, 0]))
    for step in range(200):
        given, dice = 8 * step + torch.arange(8, dtype=F64), torch.Generator().manual_seed(step)
        loss = objective(Listening(), x0, Condition.of(given), dice, teacher, (1,), pool)
        assert loss.abs().max() < 1e-9  # what it was told leads to its end
    lessons = [told.int().tolist() for told, _ in met]
    assert all(step - told // 8 < 16 for step, row in enumerate(lessons) for told in row)  # 32 ends, two new a step
    assert all(len(set(row)) == 8 for row in lessons[4:])  # as soon as there are eight
    served = Counter(told for row in lessons for told in row)
    assert {told % 8 for told in served} == {0, 1}  # new are the first rows of a batch, with their conditions
    assert sum(served[8 * step + i] for step in range(100) for i in (0, 1)) / 200 == pytest.approx(4, abs=0.3)
    for told, noise in torch.cat(met, 1).T.tolist():  # always beside the same noise
        first = torch.randn(8, 2, generator=torch.Generator().manual_seed(int(told) // 8), dtype=F64)
        assert noise == pytest.approx(float(first[int(told) % 8, 0]))


def test_ends_are_compared_as_sets_by_the_energy_distance_over_places() -> None:
    dice = torch.Generator().manual_seed(0)
    x, y = (torch.randn(3, 40, 5, generator=dice, dtype=F64) for _ in range(2))
    found = energy(x, 0.5 * y)

    def mean(a: Tensor, b: Tensor) -> Tensor:
        return (a[:, :, None] - b[:, None]).square().mean(-1).sqrt().mean()

    wanted = 2 * mean(x, 0.5 * y) - mean(x, x) - mean(0.5 * y, 0.5 * y)
    assert found.shape == (40,)
    # distances below SOFT count less, here those of points from themselves, by SOFT in all others
    assert abs(float(found.mean() - wanted)) < SOFT / 10
    assert abs(float(energy(y.flip(1), y).mean())) < 1e-12  # in any order
    # those that are too near each other are pushed apart
    size = torch.ones((), dtype=F64, requires_grad=True)
    (apart,) = torch.autograd.grad(energy(0.5 * size * y, y).mean(), size)
    assert apart < 0


@pytest.mark.parametrize("net", ["mlp", "transformer", "unet"])
def test_features_are_what_a_networks_last_layer_reads(net: str) -> None:
    shape = (6,) if net == "mlp" else (2, 4, 4)
    made: Any = NETS[net]().build(shape)
    with torch.no_grad():
        made.out.weight.normal_(generator=torch.Generator().manual_seed(0))
    denoiser = NetDenoiser(made, VP(), "x0", sigma_data=0.7)
    x = torch.randn(3, *shape, generator=torch.Generator().manual_seed(1), requires_grad=True)
    level = VP().at(0.2)
    read = denoiser.features(x, level, Condition())
    if net == "unet":
        out = made.out(read.transpose(1, 2).reshape(3, -1, 4, 4))
    else:
        out = made.out(read)
        out = out[:, 0] if net == "mlp" else out.transpose(1, 2).reshape(3, -1, 4, 4)
    assert torch.allclose(out.reshape(3, -1), denoiser.predict(x, level, Condition()).x0.reshape(3, -1), atol=1e-5)
    assert torch.autograd.grad(read.square().sum(), x)[0].abs().min() > 0  # and it moves with x
    # of what is no network nothing is known but x
    assert torch.equal(gaussian(VP()).features(x.flatten(1)[:, :2], level, Condition())[:, 0], x.flatten(1)[:, :2])


class Told(Denoiser):
    """What an auxiliary would learn of samples whose law is known for each level that they are from."""

    def __init__(self, student: Any, of: Callable[[int], GaussianMixture]) -> None:
        self.process, self.sigma_data, self.of = student.process, student.sigma_data, of

    def predict(self, x: Tensor, level: Level, condition: Condition) -> Prediction:
        answer, t = torch.empty_like(x), torch.as_tensor(level.t).flatten()
        for rung in condition.parts[RUNG].unique().tolist():
            rows = condition.parts[RUNG] == rung
            here = self.process.at(t[rows], like=x[rows])
            answer[rows] = self.of(rung).posterior_mean(x[rows], here)
        return Prediction(answer, x, level)


class Linear(Denoiser):
    """A student that is affine at each of four levels; it begins with samples that are too near each other."""

    def __init__(self, teacher: Any) -> None:
        self.teacher, self.process, self.sigma_data, self.calls = (
            teacher,
            teacher.process,
            teacher.sigma_data,
            (1, 2, 4),
        )
        self.levels = [self.process.at(t) for t in grid(self.process, 4, teacher.unit)[:-1].tolist()]
        self.means = torch.zeros(4, 2, dtype=F64, requires_grad=True)
        self.stds = torch.full((4, 2), 0.3, dtype=F64, requires_grad=True)

    def predict(self, x: Tensor, level: Level, condition: Condition) -> Prediction:
        t = torch.as_tensor(level.t, dtype=F64).flatten().expand(len(x))
        rung = (t[:, None] - torch.tensor([level.t for level in self.levels], dtype=F64)).abs().argmin(1)
        return Prediction(self.means[rung] + self.stds[rung] * standard(x, level), x, level)

    def law(self, rung: int) -> GaussianMixture:
        """Of what it makes of noisy data."""
        return GaussianMixture(torch.ones(1), self.means[rung, None].detach(), self.stds[rung, None].detach() ** 2)


def standard(x: Tensor, level: Level) -> Tensor:
    """Noisy data of the Gaussian, in units of their own spread about their mean."""
    return (x - level.alpha * MEAN) / ((level.alpha * STD) ** 2 + level.sigma**2) ** 0.5


def descend(student: Any, unknowns: list[Tensor], x0: Tensor, lr: float, given: Given = None) -> None:
    """Down the loss, beside an auxiliary that knows all; the gradient is nothing but zero at the end."""
    dice, objective = torch.Generator().manual_seed(0), Moments(drop_label=0.0, share=0.0, pull=1.0)
    beside = Assisted(student, Told(student, student.law))
    descent = torch.optim.SGD(unknowns, lr=lr, momentum=0.5)
    for _ in range(80):
        descent.zero_grad()
        objective(beside, x0, given, dice, student.teacher, student.calls).mean().backward()
        descent.step()


@pytest.mark.parametrize("clock", ["vp", "flow"])
def test_moments_of_an_exact_gaussian_are_matched_by_its_exact_flow_map(clock: str) -> None:
    student = Linear(gaussian(CLOCKS[clock]))
    x0 = MEAN + STD * torch.randn(128, 2, generator=torch.Generator().manual_seed(1), dtype=F64)
    descend(student, [student.means, student.stds], x0, 1.5)
    for level in student.levels:
        x = level.noised(x0, torch.randn(128, 2, generator=torch.Generator().manual_seed(2), dtype=F64))
        assert (student.predict(x, level, Condition()).x0 - ends_of(x, level)).abs().max() < 1e-6


class Halves(Denoiser):
    """A student whose samples are of one Gaussian or of another, as it is told; of all of them nobody is told which."""

    def __init__(self, mixture: GaussianMixture, process: Process) -> None:
        known = mixture.denoiser(process)
        blind = lambda x, level, condition: known.predict(x, level, Condition()).x0  # noqa: E731
        self.teacher, self.process, self.calls = FunctionDenoiser(blind, process, known.sigma_data), process, (1,)
        self.sigma_data = known.sigma_data
        self.means = torch.tensor([[0.2, 0.0], [0.0, -0.1]], dtype=F64, requires_grad=True)
        self.stds = torch.ones(2, 2, dtype=F64, requires_grad=True)

    def predict(self, x: Tensor, level: Level, condition: Condition) -> Prediction:
        noise = x / ((level.alpha * self.sigma_data) ** 2 + level.sigma**2) ** 0.5
        which = condition.parts["label"]
        return Prediction(self.means[which] + self.stds[which] * noise, x, level)

    def law(self, rung: int) -> GaussianMixture:
        return GaussianMixture(torch.ones(2), self.means.detach(), self.stds.detach() ** 2)


def test_moments_of_a_mixture_are_matched_by_its_law_and_not_by_its_trajectories() -> None:
    means = torch.tensor([[-1.0, 0.4], [0.8, -0.5]], dtype=F64)
    stds = torch.tensor([[0.3, 0.6], [0.5, 0.2]], dtype=F64)
    student = Halves(GaussianMixture(torch.ones(2), means, stds**2), VP())
    x0, halves = torch.zeros(64, 2, dtype=F64), Condition.of(torch.arange(64) % 2)
    descend(student, [student.means, student.stds], x0, 0.8, halves)
    order = student.means.detach()[:, 0].argsort()  # which half makes which is free
    assert (student.means.detach()[order] - means).abs().max() < 1e-6
    assert (student.stds.detach()[order].abs() - stds).abs().max() < 1e-6


def test_an_auxiliary_learns_what_the_student_makes_and_judges_without_being_judged() -> None:
    student = Linear(gaussian(VP()))
    bias = torch.zeros(2, dtype=F64, requires_grad=True)

    class Biased(Told):
        def predict(self, x: Tensor, level: Level, condition: Condition) -> Prediction:
            return Prediction(super().predict(x, level, condition).x0 + bias, x, level)

    x0 = MEAN + STD * torch.randn(4096, 2, generator=torch.Generator().manual_seed(1), dtype=F64)
    told = Biased(student, student.law)

    def gradients(*of: Tensor) -> tuple[Tensor, ...]:
        dice = torch.Generator().manual_seed(0)
        loss = Moments(share=0.0, pull=1.0)(
            Assisted(student, told), x0, Condition(), dice, student.teacher, student.calls
        )
        return torch.autograd.grad(loss.mean(), of)

    at_rest, pulled = gradients(bias, student.means)
    with torch.no_grad():
        bias += 0.3
    off, pushed = gradients(bias, student.means)
    # its regression rests where it says what is so of these samples
    assert at_rest.abs().max() < 0.1 * off.abs().min()
    # one that says too much draws the student down, and is itself not drawn by the student's loss
    assert (pushed > pulled).all()
    told.of = lambda rung: GaussianMixture(torch.ones(1), MEAN[None], STD[None] ** 2)
    with torch.no_grad():
        bias.zero_()
    assert gradients(student.means)[0].abs().max() < 1e-12 < pulled.abs().max()  # where the means agree, nothing pulls


def test_a_share_of_all_rows_leaves_nothing_to_match() -> None:
    with pytest.raises(InputError, match=r"share=1.0 must be a share"):
        Moments(share=1.0)


def test_noise_anew_is_that_of_the_next_level_around_the_answer() -> None:
    level, x = VP().at(0.4), torch.full((5, 2), 2.0)
    ask: Any = lambda x, t: Prediction(0.5 * x, x, t)  # noqa: E731
    found, memory = Renoise().step(ask, x, VP().at(0.9), level, None, lambda: torch.ones(5, 2))  # type: ignore[arg-type]
    assert memory is None
    assert torch.allclose(found, torch.full((5, 2), level.alpha + level.sigma))


# --- as runs ----------------------------------------------------------------------------------------------------------

FEW = ["training.batch_size=16", "training.checkpoint_every=2", "sampling.preview=0", "training.validate_every=4"]


def trained(asked: Any, folder: Path, resume: bool = False, draws: bool = True) -> Run:
    for _ in train(asked, folder, resume=resume, draws=draws):
        pass
    return Run.load(folder)


@pytest.fixture(scope="module")
def student(tmp_path_factory: pytest.TempPathFactory, run: Path) -> Path:
    """A student of four steps, whose teacher is gone."""

    def make(folder: Path) -> None:
        teacher = folder.with_name("teacher-of-few")
        shutil.copytree(run, teacher, dirs_exist_ok=True)
        changes = [*FEW, "training.steps=4", "sampling.preview=4"]
        trained(student_of(teacher, "progressive", [1, 2, 4], changes=changes), folder)
        shutil.rmtree(teacher)

    return once(tmp_path_factory, "student", make)


def test_a_student_is_a_run_that_draws_in_its_few_calls_and_in_no_others(
    student: Path, cli: Cli, tmp_path: Path
) -> None:
    opened = ornstein.load(student)
    assert isinstance(drawing_precision(opened.learner, opened.model, "auto"), str)
    opened = Run.load(student)
    for calls in (1, 2, 4):
        states = list(opened.trajectory(3, steps=calls, seed=0, label=torch.tensor([0, 1, 2])))
        assert states[-1].calls == calls
    assert opened.steps == 4
    assert opened.draw(3, seed=0).shape == (3, 1, 8, 8)
    told = cli("sample", student, "--steps", 3, "--out", tmp_path / "x.png")
    assert told.code == 2
    assert "steps=3: this student was taught to draw in 1, 2, 4 calls" in told.err
    told = cli("sample", student, "--steps", 2, "-n", 4, "--out", tmp_path / "x.png")
    assert told.code == 0, told.err
    assert (student / "distance-by-calls.png").is_file()
    lines = describe(student)
    assert "student" in lines["why start"]
    assert lines["objective"].startswith("progressive")
    assert lines["learner"] == "student (calls (1, 2, 4))"
    assert "grid" in cli("sample", student, "--grid", "karras", "--out", tmp_path / "y.png").err
    assert "taught" in cli("tune", student, "--steps", 2).err


def test_a_student_begins_as_its_teachers_average_and_remembers_it(run: Path, tmp_path: Path) -> None:
    asked = student_of(run, "progressive", [1, 2], changes=[*FEW, "training.steps=1", "training.lr=1e-30"])
    begun = trained(asked, tmp_path / "student")
    teacher = read_weights(run / "ema-0.100.safetensors", run)
    own = read_weights(tmp_path / "student" / "model.safetensors", tmp_path / "student")
    added = {name for name in own if name not in teacher}
    assert added == {"embedding.calls.weight"}
    assert all(torch.equal(own[name], value) for name, value in teacher.items())
    assert own["embedding.calls.weight"].abs().max() < 1e-20  # but for that step
    x = torch.randn(4, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    assert torch.equal(begun.model(x, 0.5).x0, Run.load(run).model(x, 0.5).x0)
    # and goes on being taught by that: weights that have moved since do not move the lessons
    learner, x0 = begun.learner, torch.randn(8, 1, 8, 8, generator=torch.Generator().manual_seed(1))
    memory = learner.memory(begun.model, x0)
    begun.model.net.requires_grad_(False)

    def lesson() -> Tensor:
        dice = torch.Generator().manual_seed(2)
        return learner.loss(begun.model, x0, None, dice, memory)

    before = {name: value.clone() for name, value in memory.items()}
    first = lesson()
    for parameter in begun.model.net.parameters():
        parameter.mul_(1.5)
    moved = lesson()
    assert not torch.equal(first, moved)
    for name, value in begun.model.net.state_dict().items():
        value.copy_(before[f"teacher.{name}"])
    assert torch.equal(first, lesson())
    assert all(torch.equal(memory[name], value) for name, value in before.items())


def test_a_student_goes_on_bit_for_bit_when_its_teacher_is_gone(student: Path, run: Path, tmp_path: Path) -> None:
    teacher = tmp_path / "teacher-of-few"
    shutil.copytree(run, teacher)
    changes = [*FEW, "training.steps=2"]
    trained(student_of(teacher, "progressive", [1, 2, 4], changes=changes), tmp_path / "half")
    shutil.rmtree(teacher)
    again = trained(read_experiment(tmp_path / "half", ["training.steps=4"]), tmp_path / "half", resume=True)
    for name in ("model.safetensors", "ema-0.100.safetensors"):
        one, two = read_weights(again.folder / name, again.folder), read_weights(student / name, student)
        assert all(torch.equal(one[key], two[key]) for key in two)


def gone_on(asked: Experiment, folder: Path) -> dict[str, Tensor]:
    """The weights after three steps, which are the same, bit for bit, with a stop after the first."""
    for name, steps in (("whole", (3,)), ("halves", (1, 3))):
        for stop in steps:
            for moment in train(asked, folder / name, resume=(folder / name).exists(), draws=False):
                if moment.progress.step == stop:
                    break
    one, two = (read_weights(folder / name / "model.safetensors", folder / name) for name in ("whole", "halves"))
    assert all(torch.equal(one[key], two[key]) for key in one)
    return one


def test_an_auxiliary_begins_as_the_teacher_and_goes_on_bit_for_bit(run: Path, tmp_path: Path) -> None:
    changes = [*FEW, "training.checkpoint_every=1"]
    asked = student_of(run, "moments", [1, 2], changes=[*changes, "training.steps=1", "training.lr=1e-30"])
    trained(asked, tmp_path / "begun", draws=False)
    teacher = read_weights(run / "ema-0.100.safetensors", run)
    own = read_weights(tmp_path / "begun" / "model.safetensors", tmp_path / "begun")
    assert all(
        torch.equal(own[f"{part}.{name}"], teacher[name]) for name in teacher for part in ("student", "auxiliary")
    )
    assert own.keys() - {f"{part}.{name}" for name in teacher for part in ("student", "auxiliary")} == {
        "auxiliary.embedding.rung.weight"
    }
    one = gone_on(student_of(run, "moments", [1, 2], changes=[*changes, "training.steps=3"]), tmp_path)
    assert not torch.equal(one["auxiliary.embedding.rung.weight"], own["auxiliary.embedding.rung.weight"])


def test_a_student_of_endpoints_begins_as_the_default_solver_and_goes_on_bit_for_bit(run: Path, tmp_path: Path) -> None:
    changes = [*FEW, "training.checkpoint_every=1"]
    asked = student_of(run, "endpoint", [1, 4], changes=[*changes, "training.steps=1", "training.lr=1e-30"])
    begun, teacher = trained(asked, tmp_path / "begun", draws=False), Run.load(run)
    label = torch.tensor([0, 1, 2])
    for calls in (1, 4):
        levels = Endpoint().levels(teacher.model.process, teacher.model.unit, calls, (1, 4))
        solved = teacher.draw(3, seed=0, label=label, stepper="unipc-auto", grid=levels.tolist())
        assert (begun.draw(3, seed=0, label=label, steps=calls) - solved).abs().max() < 1e-5
    changes = [*changes, "training.steps=3", "objective.reuse=3"]  # the pool of ends goes on too
    one = gone_on(student_of(run, "endpoint", [1, 4], changes=changes), tmp_path)
    assert not torch.equal(one["embedding.calls.weight"], torch.zeros_like(one["embedding.calls.weight"]))
    with pytest.raises(InputError, match="taught to draw in 1, 4 calls, and in no others"):
        begun.draw(3, seed=0, steps=2)


@pytest.mark.parametrize(("word", "value"), [("segments", 0), ("spread", -1.0), ("reuse", 0)])
def test_what_endpoints_cannot_be_taught_with_is_refused(word: str, value: float) -> None:
    with pytest.raises(InputError, match=f"{word}={value}"):
        Endpoint(**{word: value})  # type: ignore[arg-type]


@pytest.mark.parametrize("method", ["consistency", "reflow", "moments"])
def test_the_other_methods_train_and_draw_in_any_number_of_calls(method: str, run: Path, tmp_path: Path) -> None:
    asked = student_of(run, method, [1, 3], scale=2.0, changes=[*FEW, "training.steps=2"])
    made = trained(asked, tmp_path / method)
    assert made.draw(2, seed=0, steps=3).isfinite().all()
    assert made.draw(2, seed=0, steps=5).isfinite().all()
    assert asked.objective["scale"] == 2.0


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["digits", "--method", "progressive", "--steps", "1,3"], "steps=3 is no power of two"),
        (["digits", "--steps", "0"], "must be whole numbers from 1 to 64"),
        (["digits", "--method", "magic"], "method='magic'"),
        (["digits", "--steps", "7,11,13"], "1001 levels in common"),
        (["adult"], "cannot be distilled"),
        (["digits", "training.stepps=3"], "training.stepps"),
        (["nowhere"], "is not a folder"),
    ],
)
def test_what_cannot_be_distilled_is_one_sentence(words: Any, said: str, cli: Cli, tmp_path: Path) -> None:
    told = cli("distill", *words, "--out", tmp_path / "out")
    assert told.code == 2
    assert said in told.err
    assert len(told.err.strip().splitlines()) == 1
    assert not (tmp_path / "out").exists()


def test_guidance_wants_something_to_guide_to(tmp_path: Path) -> None:
    tiny = ["net={name: mlp, width: 8, depth: 1}", "training.steps=1", "data.count=100", "sampling.preview=0"]
    for _ in train(Experiment.read("swiss-roll", tiny), tmp_path / "roll"):
        pass
    with pytest.raises(InputError, match="scale=2 guides a teacher to what it is given"):
        student_of(tmp_path / "roll", "progressive", [1], scale=2.0)


def test_a_run_that_is_there_is_not_written_over(run: Path, cli: Cli) -> None:
    told = cli("distill", "digits", "--out", run)
    assert told.code == 2
    assert "holds a run already" in told.err
