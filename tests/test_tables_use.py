"""What people do with a model of a table: rows such that, holes filled, odd rows found; against a law known in full."""

import csv
import gzip
import math
import os
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from sure import Cli
from torch import Tensor

from ornstein.core.drive import sample_seeds
from ornstein.data.schema import ColumnType
from ornstein.data.table import Table
from ornstein.data.tokens import Tokens
from ornstein.discrete import Absorbing, JointTable, bound
from ornstein.errors import InputError
from ornstein.experiment.cells import draw_rows, explain, impute, score
from ornstein.experiment.config import Experiment
from ornstein.experiment.evidence import Evidence
from ornstein.experiment.guide import guided
from ornstein.experiment.rows import oddest
from ornstein.experiment.run import Run
from ornstein.experiment.train import train
from ornstein.experiment.where import Where, _apart, _both
from ornstein.training import manifest

HEAD = "kind,size,day,code,note"
COMPUTED = "computed and not learnt: 'code' from 'kind'"
KINDS, SIZES = ("red", "green", "blue"), (1, 2, 3, 4)


def law() -> Tensor:
    """p(kind, size), which depend on each other."""
    table = torch.tensor([[4.0, 3, 2, 1], [1, 1, 6, 1], [0.2, 4, 0, 3]], dtype=torch.float64)
    return table / table.sum()


def rows_of(count: int, seed: int = 0) -> list[list[str]]:
    dice = torch.Generator().manual_seed(seed)
    drawn = torch.multinomial(law().flatten(), count, True, generator=dice)
    days = torch.randint(1, 29, (count,), generator=dice)
    return [
        [KINDS[int(i) // 4], str(SIZES[int(i) % 4]), f"2021-02-{int(d):02d}", f"K-{int(i) // 4}" * (int(i) < 8), ""]
        for i, d in zip(drawn, days, strict=True)
    ]


def write(path: Path, rows: list[list[str]], head: str = HEAD) -> Path:
    with gzip.open(path, "wt", newline="") if path.suffix == ".gz" else path.open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(head.split(","))
        writer.writerows(rows)
    return path


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A run on such a table whose model is not the network's, but the law that the table was drawn from."""
    folder = tmp_path_factory.mktemp("table")
    rows = rows_of(3000)
    for row in rows[::7]:
        row[1] = ""
    path = write(folder / "things.csv", [r[:4] for r in rows], HEAD.rpartition(",")[0])
    asked = Experiment.read(
        "table",
        [
            f"data.path={path}",
            "training.steps=2",
            "training.cpu=true",
            "training.precision=float32",
            "net.width=16",
            "net.depth=1",
        ],
    )
    for _ in train(asked, folder / "run", draws=False):
        pass
    opened = Run.load(folder / "run")
    categories = opened.transform.categories
    assert categories is not None
    assert categories.sizes == (3, 5, 28)  # kind; size and its being missing; day. The code follows from the kind
    sixth = torch.cat([law() * 6 / 7, law().sum(1, keepdim=True) / 7], 1)
    joint = sixth[:, :, None].expand(3, 5, 28) / 28
    order = [KINDS.index(level) for level in Table(str(path)).load().columns[0].levels]
    return replace(opened, model=JointTable(joint[order], Absorbing()))


def drawn(run: Run, n: int, where: str) -> Tensor:
    types = tuple(ColumnType.from_dict(about) for about in run.about["data"]["table"])
    return torch.cat(list(draw_rows(run, n, Where.of(where, run.transform, types), seed=1)))  # type: ignore[arg-type]


def level(run: Run, word: str) -> int:
    return list(run.about["data"]["table"][0]["levels"]).index(word)


def near(found: Tensor, expected: float, n: int) -> None:
    assert float(found.double().mean()) == pytest.approx(
        expected, abs=5 * (expected * (1 - expected) / n) ** 0.5 + 1e-9
    )


def test_a_run_that_knows_of_no_waves_nor_trust_nor_smoothness_opens_and_draws_as_it_did(tmp_path: Path) -> None:
    path = write(tmp_path / "things.csv", rows_of(200))
    short = ["training.steps=2", "training.cpu=true", "training.precision=float32", "net.width=16", "net.depth=1"]
    before = ("learner.waves", "learner.kept", "learner.smooth", "learner.timeless", "learner.ramp", "objective.others")
    off = [f"{name}={'false' if name in ('learner.smooth', 'learner.timeless') else 0}" for name in before]
    asked = Experiment.read("table", [f"data.path={path}", *short, *off])
    for _ in train(asked, tmp_path / "run", draws=False):
        pass
    drawn = Run.load(tmp_path / "run").drawing().sample(20, seed=0)
    said = tmp_path / "run" / "experiment.yaml"
    lines = said.read_text("utf-8").splitlines(keepends=True)
    kept = [
        line
        for line in lines
        if line.strip().partition(":")[0] not in ("waves", "kept", "smooth", "timeless", "ramp", "others")
    ]
    assert len(kept) == len(lines) - 6
    said.write_text("".join(kept), "utf-8")
    manifest.accept(tmp_path / "run", [said.name])
    assert torch.equal(Run.load(tmp_path / "run").drawing().sample(20, seed=0).nan_to_num(-1), drawn.nan_to_num(-1))


def test_an_objective_with_other_settings_leaves_the_learner_as_it_is() -> None:
    learner = Experiment.read("table", ["data.path=x.csv"]).learner
    assert learner is not None
    assert learner["waves"] > 0
    assert Experiment.read("table", ["data.path=x.csv", "objective.ordered=0.25"]).learner == learner


def test_rows_such_that_have_the_law_given_that(run: Run) -> None:
    n, p = 6000, law()
    rows = drawn(run, n, "size=2..3")
    assert set(rows[:, 1].tolist()) == {2.0, 3.0}
    for k, word in enumerate(KINDS):
        near(rows[:, 0] == level(run, word), float(p[k, 1:3].sum() / p[:, 1:3].sum()), n)
    # what follows from the kind agrees with it
    assert len(rows[:, [0, 3]].nan_to_num(-1).unique(dim=0)) == 3


def test_several_conditions_meet_exactly(run: Run) -> None:
    n, p = 6000, law()
    rows = drawn(run, n, "kind=red|blue, size<=2, day=2021-02-03..2021-02-09")
    chosen = p[[0, 2], :2]
    for k, word in ((0, "red"), (2, "blue")):
        near(rows[:, 0] == level(run, word), float(p[k, :2].sum() / chosen.sum()), n)
    assert sorted({int(s // 86400) for s in rows[:, 2].tolist()}) == list(range(18661, 18668))


def test_a_column_that_is_named_twice_is_as_both_ask(run: Run) -> None:
    assert set(drawn(run, 300, "size>=2, size<=3, size=3|4")[:, 1].tolist()) == {3.0}
    with pytest.raises(InputError, match="never been"):
        drawn(run, 5, "size=1, size=2")


def test_a_column_that_follows_from_another_can_be_asked_for(run: Run) -> None:
    rows = drawn(run, 200, "code=K-1")
    assert set(rows[:, 0].tolist()) == {level(run, "green")}


def test_spans_that_overlap_count_once(run: Run) -> None:
    n, p = 6000, law()
    rows = drawn(run, n, "size=2..3|3..4")
    for j in (1, 2, 3):
        near(rows[:, 1] == SIZES[j], float(p[:, j].sum() / p[:, 1:].sum()), n)


def test_missing_values_can_be_asked_for(run: Run) -> None:
    assert set(drawn(run, 50, "code=")[:, 0].tolist()) == {level(run, "blue")}
    assert bool(drawn(run, 50, "size=")[:, 1].isnan().all())


@pytest.mark.parametrize(
    ("where", "says"),
    [
        ("kind=purple", "purple"),
        ("colour=red", "colour"),
        ("kind=red..blue", "no order"),
        ("kind>=red", "no order"),
        ("size=4..2", "ends below its start"),
        ("size", "must look like"),
        ("size>2", "'size>2' must look like size=VALUE"),
        ("", "asks for nothing"),
        (" , ", "asks for nothing"),
        ("size=9", "'size=9': column 'size' has never been what"),
        ("kind=", "missing value"),
        ("size=many", "column 'size', --where: 'many' is no number"),
        ("kind=blue, size=3", "too rare"),
    ],
)
def test_what_cannot_be_asked_is_said_in_a_sentence(run: Run, where: str, says: str) -> None:
    with pytest.raises(InputError, match=says):
        drawn(run, 5, where)


def test_spans_that_are_asked_for_twice_meet_and_those_that_overlap_are_one() -> None:
    assert _apart([(3, 4), (0, 1), (0.5, 2.5), (1, 2), (2.5, 2.75)]) == [(0, 2.75), (3, 4)]
    assert _both([(0, 2), (3, 5)], [(1, 4), (6, 7)]) == [(1, 2), (3, 4)]
    assert _both([(0, 1), None], [None, (1, 2)]) == [(1, 1), None]
    assert _both([(0, 1), None], [(2, 3)]) == []


def test_holes_are_filled_from_the_law_and_known_cells_stay(run: Run) -> None:
    p = law()
    red = level(run, "red")
    code = float(drawn(run, 1, "kind=red")[0, 3])
    rows = torch.tensor([[red, math.nan, 1.6136e9 // 86400 * 86400, code]] * 3000, dtype=torch.float64)
    found = impute(run, rows, draws=2, seed=0)
    for place in (0, 2, 3):
        assert torch.equal(found[0, :, place], rows[:, place])
    assert not bool(found.isnan().any())
    for j, size in enumerate(SIZES):
        near(found[:, :, 1].flatten() == size, float(p[0, j] / p[0].sum()), 6000)


def test_a_hole_agrees_with_what_follows_from_it(run: Run) -> None:
    code = float(drawn(run, 1, "kind=green")[0, 3])
    rows = torch.tensor([[math.nan, 3.0, math.nan, code]] * 200, dtype=torch.float64)
    assert set(impute(run, rows, draws=1)[0, :, 0].tolist()) == {level(run, "green")}


def test_draws_of_a_row_depend_neither_on_the_others_nor_on_how_many_there_are(run: Run) -> None:
    rows = torch.tensor([[math.nan, 2.0, math.nan, math.nan]] * 5, dtype=torch.float64)
    every = impute(run, rows, draws=4, seed=4)
    few = rows[:3].clone()
    few[1] = impute(run, few[1:2])[0]  # a row without holes
    assert torch.equal(every[:2, [0, 2]].nan_to_num(), impute(run, few, draws=2, seed=4)[:, [0, 2]].nan_to_num())
    assert len(every[:, :, [0, 2]].flatten(0, 1).unique(dim=0)) > 10


def test_numbers_within_cells_stay_and_their_scores_count_the_cells_width(tmp_path: Path) -> None:
    dice = torch.Generator().manual_seed(0)
    prices = torch.exp(torch.randn(900, generator=dice, dtype=torch.float64))
    path = write(tmp_path / "p.csv", [[repr(p), f"{round(100 * p) / 100:.2f}"] for p in prices.tolist()], "exact,cents")
    asked = [f"data.path={path}", "training.steps=1", "training.cpu=true", "training.precision=float32", "net.width=8"]
    for _ in train(Experiment.read("table", asked), tmp_path / "run", draws=False):
        pass
    opened = Run.load(tmp_path / "run")
    tokens = opened.transform
    assert isinstance(tokens, Tokens)
    rows = opened.load_data().test
    holes = rows.clone()
    holes[::2, 0] = math.nan
    holes[1::2, 1] = math.nan
    found = impute(opened, holes, draws=2)
    for k in range(2):
        assert torch.equal(found[k][~holes.isnan()], holes[~holes.isnan()])
        assert not bool(found[k].isnan().any())
    nats, _ = bound(opened.denoiser, tokens.forward(rows), sample_seeds(len(rows), 0, None, None))
    assert torch.allclose(score(opened, rows)[0], nats + tokens.log_abs_det(rows), atol=1e-4)
    assert float(tokens.log_abs_det(rows).abs().mean()) > 1


def test_scores_are_log_probabilities_with_holes_summed_out(run: Run) -> None:
    p, day = law(), 1.6136e9 // 86400 * 86400
    rows = torch.tensor(
        [[level(run, "red"), 2.0, day, math.nan], [level(run, "blue"), math.nan, day, math.nan]], dtype=torch.float64
    )
    found, error = score(run, rows)
    expected = [math.log(float(p[0, 1]) * 6 / 7 / 28), math.log(float(p[2].sum()) / 28)]
    assert found.tolist() == pytest.approx(expected, abs=1e-5)
    assert float(error.max()) < 1e-5


def test_one_thread_judges_rows_of_a_table(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """Several would wait for each other longer than they compute."""
    by, judge = set(), type(run.learner).judge

    def told(self: Any, *of: Any) -> Any:
        by.add(torch.get_num_threads())
        return judge(self, *of)

    monkeypatch.setattr(type(run.learner), "judge", told)
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        assert Evidence(run, run.load_data(), 10, 0).on_held_out.mean > 0
        assert (by, torch.get_num_threads()) == ({1}, 2)
    finally:
        torch.set_num_threads(before)


def test_the_cell_that_is_odd_is_named(run: Run) -> None:
    day = 1.6136e9 // 86400 * 86400
    rows = torch.tensor([[level(run, "blue"), 1.0, day, math.nan]], dtype=torch.float64)
    told = explain(run, rows)[0]
    assert int(told[:3].argmax()) == 1
    assert float(told[2]) == pytest.approx(0, abs=1e-5)  # any day is as likely: none is odd
    given = law()[2] * 6 / 7 / law()[2].sum()
    each = torch.cat([given, torch.tensor([1 / 7], dtype=torch.float64)])
    expected = -math.log(float(given[0])) + float(torch.special.xlogy(each, each).sum())
    assert float(told[1]) == pytest.approx(expected, abs=1e-5)
    types = [ColumnType(name, "identifier") for name in "abcde"]
    surprise = torch.tensor([[0.5, 2.0, math.nan, 3.0, 1.0], [-1.0, 0.0, -2.0, 0.25, math.nan]])
    assert oddest(surprise, types) == ["d (+3.0), b (+2.0), e (+1.0)", "d (+0.2)"]


def test_a_table_from_the_command_line(cli: Cli, tmp_path: Path) -> None:
    rows, head = rows_of(400), HEAD.replace("note", "=note")
    path = write(tmp_path / "things.csv.gz", rows, head)
    answer = cli("train", str(path), "training.steps=3", "training.cpu=true", "net.width=16",
                 "training.precision=float32", "sampling.preview=0", "--out", str(tmp_path / "run"))  # fmt: skip
    assert answer.code == 0, answer.err
    assert COMPUTED in answer.out
    answer = cli("sample", str(tmp_path / "run"), "-n", "50", "--where", "kind=red", "--out", str(tmp_path / "new.csv"))
    assert answer.code == 0, answer.err
    with (tmp_path / "new.csv").open(newline="") as file:
        found = list(csv.reader(file))
    assert found[0] == head.split(",")
    assert "runs such cells as formulas" in answer.out
    assert len(found) == 51
    assert {(row[0], row[3], row[4]) for row in found[1:]} == {("red", "K-0", "")}
    holes = [list(row) for row in rows[:20]]
    for row in holes[::2]:
        row[1] = "NA"
    given = write(tmp_path / "holes.csv", [[*row, f" kept {i}"] for i, row in enumerate(holes)], head + ",beside")
    answer = cli("impute", str(tmp_path / "run"), str(given), "-n", "3", "--out", str(tmp_path / "filled.csv"))
    assert answer.code == 0, answer.err
    assert "runs such cells as formulas" in answer.out
    with (tmp_path / "filled.csv").open(newline="") as file:
        filled = list(csv.reader(file))[1:]
    for before, after in zip(holes, filled, strict=True):
        assert after[1] in "1234" if before[1] == "NA" else after[1] == before[1]
        assert [after[0], *after[2:5]] == [before[0], *before[2:]]
    assert [row[5] for row in filled] == [f" kept {i}" for i in range(20)]
    with (tmp_path / "filled.holes.csv").open(newline="") as file:
        listed = list(csv.DictReader(file))
    assert [(row["row"], row["column"]) for row in listed] == [(str(i + 1), "size") for i in range(0, 20, 2)]
    assert all(row["draw_3"] in "1234" for row in listed)
    answer = cli("loglik", str(tmp_path / "run"), str(given), "--explain", "--out", str(tmp_path / "odd.csv"))
    assert "2.3 nats are ten times less likely" in answer.out
    assert answer.code == 0, answer.err
    assert "runs such cells as formulas" in answer.out
    with (tmp_path / "odd.csv").open(newline="") as file:
        scored = list(csv.DictReader(file))
    assert sorted(int(row["rank"]) for row in scored) == list(range(1, 21))


def test_a_column_that_a_file_has_not_is_named_and_is_no_hole(cli: Cli, run: Run, tmp_path: Path) -> None:
    given = write(tmp_path / "few.csv", [["red", "2021-02-03"], ["", "2021-02-04"]], "kind,day")
    said = "few.csv has no column 'size', 'code': taken as not known"
    answer = cli("impute", run.folder, given, "-n", "2", "--out", tmp_path / "filled.csv")
    assert answer.code == 0, answer.err
    assert "1 hole in 1 of 2 rows" in answer.out
    assert said in answer.out
    assert COMPUTED not in answer.out
    assert {line.split(",")[1] for line in (tmp_path / "filled.holes.csv").read_text().splitlines()[1:]} == {"kind"}
    assert (tmp_path / "filled.csv").read_text().startswith("kind,day\nred,2021-02-03\n")
    answer = cli("loglik", run.folder, given, "--explain", "--out", tmp_path / "odd.csv")
    assert answer.code == 0, answer.err
    assert said in answer.out
    whole = write(tmp_path / "whole.csv", [row[:4] for row in rows_of(3)], HEAD.rpartition(",")[0])
    assert "taken as" not in cli("loglik", run.folder, whole, "--out", tmp_path / "whole-odd.csv").out


def test_holes_that_are_computed_are_said_to_be(cli: Cli, run: Run, tmp_path: Path) -> None:
    for name, row, told in (("code", "red,2,", True), ("kind", ",2,K-1", False), ("size", "red,,K-0", False)):
        given, out = write(tmp_path / f"{name}.csv", [row.split(",")], "kind,size,code"), tmp_path / f"{name}-out.csv"
        answer = cli("impute", run.folder, given, "-n", "2", "--out", out)
        assert answer.code == 0, answer.err
        assert (COMPUTED in answer.out) == told, name
    assert (tmp_path / "code-out.csv").read_text() == "kind,size,code\nred,2,K-0\n"


def test_what_does_not_fit_a_table_is_said(cli: Cli, run: Run, tmp_path: Path) -> None:
    folder, other = str(run.folder), write(tmp_path / "other.csv", [["1", "2"]], "a,b")
    unknown = write(tmp_path / "unknown.csv", [["purple", "1"]], "kind,size")
    holes = str(write(tmp_path / "holes.csv", [["red", ""]] * 3, "kind,size"))
    for words, says in (
        (("sample", folder, "--out", "x.png"), "draws rows"),
        (("impute", folder, str(other), "--out", "x.csv"), "none of the run's columns"),
        (("impute", folder, str(unknown), "--out", "x.csv"), "purple"),
        (("impute", folder, "nothing.csv", "--out", "x.csv"), "nothing.csv"),
        (("impute", folder, holes, "--out", "x.csv", "-n", "1000000000000"), "draws=1000000000000 takes"),
        (("impute", folder, holes, "--out", "x.csv", "--seed", "-1"), "seed=-1 must be"),
        (("impute", folder, holes, "--out", "x.csv", "--seed", "2147483648"), "seed=2147483648 must be"),
        (("impute", folder, str(other), "--out", "x.png"), "must be a table"),
        (("loglik", folder, "test", "--out", "x.csv", "-n", "0"), "count=0"),
        (("loglik", folder, "test", "--out", "x.csv", "--trace", "exact"), "--trace is of likelihoods by"),
        (("loglik", folder, "test", "--out", "x.csv", "--reference", "9"), "--reference is of likelihoods by"),
    ):
        answer = cli(*words)
        assert answer.code == 2
        assert says in answer.err
        assert "Traceback" not in answer.err


def test_ended_by_a_machine_a_verb_leaves_no_half_file(
    cli: Cli, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def ended(*_: object, **__: object) -> Tensor:
        assert signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL, "it would end here, with its part left"
        assert list(tmp_path.glob(".ornstein-*")), "it is being written"
        os.kill(os.getpid(), signal.SIGTERM)
        raise AssertionError("it went on")

    monkeypatch.setattr("ornstein.experiment.cells._completed", ended)
    answer = cli("sample", run.folder, "-n", 5, "--out", tmp_path / "x.csv")
    assert answer.code == 130, answer
    assert "stopped" in answer.err
    assert not list(tmp_path.iterdir())
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


def test_a_column_that_rows_are_drawn_given_is_not_drawn(cli: Cli, tmp_path: Path) -> None:
    path, run = write(tmp_path / "things.csv", rows_of(300)), str(tmp_path / "run")
    answer = cli("train", str(path), "data.condition=[size,kind]", "data.drop=code", "training.steps=3", "net.width=16",
                 "training.cpu=true", "training.precision=float32", "sampling.preview=0", "--out", run)  # fmt: skip
    assert answer.code == 0, answer.err
    answer = cli("sample", run, "-n", "9", "--given", "size=3", "--given", "kind=red", "--out", str(tmp_path / "a.csv"))
    assert answer.code == 0, answer.err
    with (tmp_path / "a.csv").open(newline="") as file:
        assert next(csv.reader(file)) == ["day", "note"]
    for words, says in (
        (("--given", "kind=purple"), "purple"),
        (("--given", "colour=red"), "colour"),
        (("--where", "size=3"), "size"),
        (("--scale", "2"), "--scale is of Gaussian noise"),
        (("--film",), "--film is of Gaussian noise"),
        (("--scale", "0"), "--scale is of Gaussian noise"),
    ):
        answer = cli("sample", run, "-n", "3", *words)
        assert answer.code == 2
        assert says in answer.err


@pytest.mark.parametrize(
    "words",
    [
        "tune {run} --steps 5",
        "tune {run} --steps 5 --criterion endpoint",
        "inpaint {run} --input {run}/x.npy --out {run}/x.png",
        "restore {run} --operator blur --input {run}/x.npy --out {run}/x.png",
        "interpolate {run} --from 1 --to 2 --out {run}/x.png",
    ],
)
def test_verbs_of_gaussian_noise_send_tables_elsewhere(cli: Cli, run: Run, words: str) -> None:
    answer = cli(*words.format(run=run.folder).split())
    assert answer.code == 2
    assert "token by token, for which there are sample --where, impute and loglik" in " ".join(answer.err.split())


def test_guidance_is_of_gaussian_noise(run: Run) -> None:
    with pytest.raises(InputError, match=r"guidance is of Gaussian noise"):
        guided(run, "autoguidance", guide=run)


def test_masked_columns_want_tokens() -> None:
    with pytest.raises(InputError, match="stepper="):
        Experiment.read("points", ["predicts=classes", "objective=masked", "process=absorbing"])
    with pytest.raises(InputError, match="process='absorbing' does not go with learner='denoiser'"):
        Experiment.read("points", ["process=absorbing"])
    with pytest.raises(InputError, match="process='vp' does not go with learner='masked'"):
        Experiment.read("table", ["data.path=x.csv", "process=vp"])
