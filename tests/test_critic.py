"""The critic of drawn rows: what it learns, which draws it keeps, and how a run comes by it."""

import math
import shutil
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from ornstein.core.categories import Categories
from ornstein.core.learner import Problem
from ornstein.core.walk import end
from ornstein.discrete import Absorbing, AnyOrder, JointTable, MaskedColumns, MaskedCrossEntropy, constrained
from ornstein.discrete.critic import Critic, learn, numbers_of
from ornstein.errors import InputError
from ornstein.experiment import budget
from ornstein.experiment.budget import in_time
from ornstein.experiment.calibrate import calibrate_critic
from ornstein.experiment.cells import draw_rows, impute
from ornstein.experiment.config import Experiment
from ornstein.experiment.course import DONE, STOPPED, course
from ornstein.experiment.critics import criticise, rows_drawn
from ornstein.experiment.folder import CRITIC
from ornstein.experiment.plan import plan
from ornstein.experiment.run import Run
from ornstein.experiment.train import train
from ornstein.experiment.watch import Moment
from ornstein.metrics.boosted import TreeTest
from ornstein.training import manifest

SHAPE = (3, 2, 4)


@dataclass(frozen=True, eq=False)
class Watched(JointTable):
    """A known law, whose draws a critic sees."""

    critic: Critic | None = None


def known(critic: Critic | None) -> Watched:
    table = torch.rand(SHAPE, generator=torch.Generator().manual_seed(1), dtype=torch.float64) ** 2
    return Watched(table / table.sum(), Absorbing(), (-1, -1, 0), critic)


def learner(model: JointTable) -> MaskedColumns:
    categories = model.categories
    problem = Problem(model.process, "classes", MaskedCrossEntropy(), (categories.width,), categories=categories)
    return MaskedColumns(problem, trees=1)


#: two trees of two questions: of the first number (class and place within it), and of the second token
CRITIC_OF_TWO = Critic(
    torch.tensor([[0, 1], [0, 0]]),
    torch.tensor([[1.5, 0.5], [0.5, 2.2]]),
    torch.tensor([[0.3, -1.0, 0.8, 0.2], [-0.5, 0.4, 9.0, 1.0]]),
    torch.tensor(0.9),
)


def by_hand(numbers: Tensor) -> Tensor:
    """The odds' logarithm of `CRITIC_OF_TWO`, question by question."""
    found = []
    for first, second in numbers.tolist():
        one = CRITIC_OF_TWO.value[0][int(first > 1.5) + 2 * int(second > 0.5)]
        two = CRITIC_OF_TWO.value[1][int(first > 0.5) + 2 * int(first > 2.2)]
        found.append(float(one + two))
    return torch.tensor(found, dtype=torch.float64)


def test_a_number_is_its_class_and_how_far_into_it_it_lies() -> None:
    categories = Categories((3, 2, 4), (-1, -1, 0), within=((), (), (4, 2, 1)))
    codes = torch.tensor([[0, 1, 0], [1, 0, 1], [2, 1, 0], [0, 0, 3]])
    expected = torch.tensor([[0.125, 1.0], [1.75, 0.0], [2.5, 1.0], [0.875, 0.0]])
    assert torch.allclose(numbers_of(categories, categories.one_hot(codes)), expected)


def test_what_is_kept_has_the_law_times_the_chance_to_be_kept() -> None:
    model, n = known(CRITIC_OF_TWO), 40_000
    rows = torch.cartesian_prod(*(torch.arange(k) for k in SHAPE))
    numbers = numbers_of(model.categories, model.categories.one_hot(rows))
    assert torch.allclose(CRITIC_OF_TWO.log_odds(numbers), by_hand(numbers), atol=1e-6)
    weights = model.table.flatten() * (by_hand(numbers) - 0.9).clamp(max=0).exp()
    expected = weights / weights.sum()
    assert float((expected - model.table.flatten()).abs().max()) > 0.02  # what is tested makes a difference
    x = end(learner(model).walk(model, n, AnyOrder(), None, seed=3)).x
    codes = model.categories.codes(x)
    flat = (codes[:, 0] * SHAPE[1] + codes[:, 1]) * SHAPE[2] + codes[:, 2]
    found = torch.bincount(flat, minlength=math.prod(SHAPE)).double() / n
    assert bool(((found - expected).abs() <= 5 * (expected * (1 - expected) / n).sqrt()).all())


def test_a_draw_depends_neither_on_its_batch_nor_on_draws_that_were_thrown_away() -> None:
    model = known(CRITIC_OF_TWO)
    walks = learner(model)
    whole = end(walks.walk(model, 300, AnyOrder(), None, seed=5)).x
    seeds = (5 << 32) + torch.arange(100, 140)
    assert torch.equal(end(walks.walk(model, 40, AnyOrder(), None, seeds=seeds)).x, whole[100:140])


def test_known_tokens_stay_and_holes_are_filled_without_the_critic() -> None:
    model = known(CRITIC_OF_TWO)
    walks, n = learner(model), 2000
    x = model.categories.one_hot(torch.tensor([[1, -1, -1]])).expand(n, -1)
    given = end(walks.walk(model, n, AnyOrder(), None, seed=0, x=x)).x
    assert torch.equal(given[:, :3], x[:, :3])
    assert not torch.equal(given, end(walks.walk(known(None), n, AnyOrder(), None, seed=0, x=x)).x)
    options: dict[str, Any] = {"seed": 0, "x": x, "allowed": torch.ones(model.categories.width)}
    filled, plain = (end(walks.walk(each, n, AnyOrder(), None, **options)).x for each in (model, known(None)))
    assert torch.equal(filled, plain)


def test_known_tokens_that_are_drawn_are_drawn_again_with_the_rest() -> None:
    """Of the second token 0: the law of what is kept, given that, though the critic prefers some first tokens."""
    model, n = known(CRITIC_OF_TWO), 40_000
    sets = {0: torch.tensor([1.0, 1.0, 0.0]), 1: torch.tensor([1.0, 0.0])}

    def met(which: Any, seeds: Tensor) -> Tensor:
        return constrained(model, torch.zeros(len(seeds), model.categories.width), sets, seeds)

    codes = model.categories.codes(end(learner(model).walk(model, n, AnyOrder(), None, seed=3, x=met)).x)
    assert int(codes[:, 1].max()) == 0
    rows = torch.tensor([[k, 0, j] for k in range(2) for j in range(4)])
    odds = by_hand(numbers_of(model.categories, model.categories.one_hot(rows)))
    weights = model.table[:2, 0].flatten() * (odds - 0.9).clamp(max=0).exp()
    expected = weights / weights.sum()
    found = torch.bincount(codes[:, 0] * 4 + codes[:, 2], minlength=8).double() / n
    assert bool(((found - expected).abs() <= 5 * (expected * (1 - expected) / n).sqrt()).all())


def test_a_critic_learns_the_logarithm_of_the_odds() -> None:
    """Of two laws of two numbers that differ in how these go together, and in nothing that one number shows."""
    dice = torch.Generator().manual_seed(0)
    real, drawn = (torch.rand(n, 2, generator=dice) for n in (20_000, 30_000))
    alike = (real > 0.5).all(1) | (real <= 0.5).all(1)
    real = real[alike | (torch.rand(len(real), generator=dice) < 0.25)]  # log-odds of ln 1.6 and ln 0.4
    critic = learn(real, drawn, 120, dice)
    fresh = torch.rand(5000, 2, generator=dice)
    same = (fresh > 0.5).all(1) | (fresh <= 0.5).all(1)
    expected = torch.where(same, math.log(1.6), math.log(0.4)).double()
    found = critic.log_odds(fresh)
    assert abs(float(found[same].mean()) - math.log(1.6)) < 0.05
    assert abs(float(found[~same].mean()) - math.log(0.4)) < 0.05
    assert float((found - expected).square().mean().sqrt()) < 0.2
    assert float((critic.chance(drawn) == 1).double().mean()) == pytest.approx(0.2, abs=0.01)
    none = learn(torch.rand(20_000, 2, generator=dice), drawn, 120, dice).log_odds(fresh)
    assert float(none.square().mean().sqrt()) < 0.15  # where there is nothing to see, it sees hardly anything


def points(count: int, seed: int) -> Tensor:
    """Points in thirty small squares, (count, 2)."""
    corners, dice = torch.rand(30, 2, generator=torch.Generator().manual_seed(0)), torch.Generator().manual_seed(seed)
    return corners[torch.randint(30, (count,), generator=dice)] + 0.1 * torch.rand(count, 2, generator=dice)


@pytest.fixture(scope="module")
def taught(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run on points in thirty small squares, which a small network blurs after a few steps."""
    folder = tmp_path_factory.mktemp("critic")
    rows = [f"{a:.4f},{b:.4f}" for a, b in points(6000, 1).tolist()]
    (folder / "points.csv").write_text("\n".join(["a,b", *rows]))
    asked = Experiment.read(
        str(folder / "points.csv"),
        ["training.steps=300", "net.width=8", "net.depth=1", "learner.waves=0", "training.cpu=true",
         "learner.trees=150", "training.precision=float32", "training.threads=1"],
    )  # fmt: skip
    notes = [moment.note for moment in train(asked, folder / "run", draws=False)]
    assert CRITIC in notes[-1]
    assert notes[0] == ""
    return folder / "run"


def test_a_run_is_taught_a_critic_and_draws_what_is_harder_to_tell(taught: Path, tmp_path: Path) -> None:
    run, dice = Run.load(taught), torch.Generator().manual_seed(0)
    assert run.model.critic is not None
    assert len(run.model.critic.which) == 150
    test = run.load_data().test
    plain = replace(run, model=replace(run.model, critic=None))
    real = points(3000, 2).double()
    told = [TreeTest((False, False))(each.sample(len(real), seed=1), real, dice) for each in (run, plain)]
    print(told)
    assert told[0] < told[1] - 0.03, told
    assert torch.equal(torch.cat(list(draw_rows(run, 50, seed=1))), run.sample(50, seed=1).double())
    holes = test[:20].clone()
    holes[:, 0] = math.nan
    assert torch.equal(impute(run, holes, draws=2), impute(plain, holes, draws=2))
    # another average of the weights draws otherwise, which this critic does not know
    assert Run.load(taught, ema=0.1).model.critic is None
    damaged = shutil.copytree(taught, tmp_path / "damaged")
    with (damaged / CRITIC).open("r+b") as file:
        file.seek(-3, 2)
        file.write(b"abc")
    with pytest.raises(InputError, match=r"critic\.safetensors is damaged or was changed"):
        Run.load(damaged)


def test_going_on_with_a_run_teaches_another_critic(taught: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(taught, tmp_path / "on")
    before = (folder / CRITIC).read_bytes()
    asked = Run.load(folder).experiment
    assert not any(moment.note for moment in train(asked, folder, resume=True, draws=False))  # nothing is left to do
    assert (folder / CRITIC).read_bytes() == before
    manifest.forget(folder, [CRITIC])  # as if it had been stopped while the critic was taught
    (folder / CRITIC).unlink()
    assert (course("on", folder).state, course("on", folder).left) == (STOPPED, None)
    assert "not its critic; resume it for that" in course("on", folder).said
    notes, said = [], []
    for moment in train(asked, folder, resume=True, draws=False):
        notes.append(moment.note)
        said.append(course("on", folder).said)
    assert CRITIC in notes[-1]
    assert any(one.startswith("All 300 steps are done; teaching a critic: 0 of") for one in said)
    assert said[-2].startswith("All 300 steps are done; teaching a critic: trees learn from")
    assert course("on", folder).state == DONE
    assert (folder / CRITIC).read_bytes() == before
    longer = replace(asked, training=replace(asked.training, steps=303))
    last = None
    for last in train(longer, folder, resume=True, draws=False):
        if not last.note:  # while it trains, the critic that is there knows other weights
            assert last.progress.step == 300 or Run.load(folder).model.critic is None
    assert last is not None
    assert CRITIC in last.note
    assert (folder / CRITIC).read_bytes() != before
    assert Run.load(folder).model.critic is not None


def test_a_plan_has_time_for_the_critic(taught: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = Run.load(taught)
    asked, data = run.experiment, run.load_data()
    plain = replace(asked, learner={**(asked.learner or {}), "trees": 0})
    with_it, without = (plan(each, "h100", data=data) for each in (asked, plain))
    rows = rows_drawn(run.learner, asked.training, len(data.train))
    assert rows == int(0.15 * 300 * 512 / run.steps)  # fewer than two for each of the training rows
    assert with_it.previews - without.previews == pytest.approx(rows * with_it.draw / 1000)

    brief = replace(asked, training=replace(asked.training, steps=10**6, minutes=0.02))
    once, found = plan(brief, data=data), []  # measured once, so that both have the same rate
    for more in (0.0, 3 * 60 * 0.02):
        longer = replace(once, previews=60 * 0.02 - once.step * once.experiment.training.steps + more)
        monkeypatch.setattr(budget, "plan", lambda experiment, data, longer=longer: longer)
        found.append(in_time(brief, data).training.steps)
    assert found[1] == pytest.approx(found[0] / 4, rel=0.02, abs=2)


def test_what_a_critic_takes_is_measured_with_its_trees_and_all_that_drawing_does(taught: Path, tmp_path: Path) -> None:
    """A small network's calls are a small part of it. By processor time, which a busy machine hardly changes."""
    folder = shutil.copytree(taught, tmp_path / "run")
    manifest.forget(folder, [CRITIC])
    (folder / CRITIC).unlink()
    run = Run.load(folder)
    data, rows = run.load_data(), rows_drawn(run.learner, run.experiment.training, len(run.load_data().train))
    expected = float(calibrate_critic(run.experiment, data, rows)[1])
    began = time.process_time()
    last: Any = None
    moments = list(criticise(folder, data, Moment(last)))
    assert CRITIC in moments[-1].note
    assert expected == pytest.approx(time.process_time() - began, rel=0.5)


def test_few_rows_or_few_steps_teach_no_critic(tmp_path: Path) -> None:
    (tmp_path / "few.csv").write_text("\n".join(["a,b", *(f"{i % 7},{i % 5}" for i in range(6000))]))
    asked = Experiment.read(
        str(tmp_path / "few.csv"), ["training.steps=2", "net.width=8", "training.cpu=true", "training.threads=1"]
    )
    assert not any(moment.note for moment in train(asked, tmp_path / "run", draws=False))
    assert not (tmp_path / "run" / CRITIC).exists()
    with pytest.raises(InputError, match=r"learner\.trees=-1 must be a whole number"):
        MaskedColumns(learner(known(None)).problem, trees=-1)
