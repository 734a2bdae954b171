"""How many threads take a step: the policy on a clock of its own, in the loop, and what the command line sets."""

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from sure import there

from ornstein.errors import InputError
from ornstein.experiment.build import load_data
from ornstein.experiment.config import Experiment
from ornstein.experiment.settle import settle
from ornstein.experiment.train import train as train_experiment
from ornstein.training import Training, fit, latest
from ornstein.training.threads import _AGAIN, _STEPS, Pace, pace_of, paced, threads

IDLE, BUSY = {4: 1.0, 2: 1.6, 1: 2.9}, {4: 40.0, 2: 9.0, 1: 5.0}
CPU = torch.device("cpu")


def walk(policy: Pace, seconds: dict[int, float], steps: int) -> tuple[list[int], list[str]]:
    """The numbers of threads that so many steps are taken by, where each takes these seconds, and what is said."""
    numbers, said = [], []
    for _ in range(steps):
        numbers.append(policy.number)
        said.append(policy.took(seconds[policy.number]))
    return numbers, [sentence for sentence in said if sentence]


TRIAL = 3 + 2 * 3 * 3  # steps until three numbers are measured: to warm up, then two turns of three steps each


@pytest.mark.parametrize(
    ("seconds", "best"),
    [
        (IDLE, 4),
        (BUSY, 1),
        ({4: 1.09, 2: 1.0, 1: 2.0}, 4),  # more threads where it is all but the same
        ({4: 1.2, 2: 1.0, 1: 1.09}, 2),
    ],
)
def test_the_fastest_goes_on(seconds: Any, best: Any) -> None:
    policy = Pace([4, 2, 1])
    numbers, said = walk(policy, seconds, 100)
    assert set(numbers[TRIAL:]) == {best}
    assert not said
    assert sorted(set(numbers[:TRIAL])) == [1, 2, 4]


def test_measuring_is_the_same_whatever_the_clock_says() -> None:
    """The number that takes a step of a trial follows from the step alone: runs with one choice have the same bits."""
    assert walk(Pace([4, 2, 1]), IDLE, TRIAL)[0] == walk(Pace([4, 2, 1]), BUSY, TRIAL)[0]


def test_one_hiccup_decides_nothing() -> None:
    policy = Pace([4, 2, 1])
    for step in range(TRIAL):
        policy.took(IDLE[policy.number] * (50 if step == 4 else 1))
    assert policy.number == 4


def test_measured_anew_when_the_rate_falls_to_half_and_when_it_rises_by_a_fifth() -> None:
    policy = Pace([4, 2, 1])
    walk(policy, IDLE, TRIAL)
    numbers, said = walk(policy, {n: 1.9 * s for n, s in IDLE.items()}, 12 * _STEPS)
    assert set(numbers) == {4}, "slower, but not half as fast"
    numbers, said = walk(policy, BUSY, 200)
    assert numbers[-1] == 1
    assert len(said) == 1
    assert said[0] == (
        "A step came to take 40 s instead of 1 s, so threads were measured anew: 4 take 40 s, 2 take 9 s, 1 takes 5 s; "
        "1 from here on."
    )
    numbers, said = walk(policy, {n: s / 1.1 for n, s in BUSY.items()}, 3 * _STEPS)
    assert set(numbers) == {1}, "faster, but not by a fifth"
    numbers, said = walk(policy, {n: 1.4 * s for n, s in IDLE.items()}, 3 * _STEPS)
    assert numbers[-1] == 4, "at 4.06 s a step comes faster by a fifth than at 5 s"
    assert len(said) == 1


def test_one_thread_that_notices_nothing_goes_back_to_all_all_the_same() -> None:
    """On a processor of its own it was as fast while the others were busy as it is now that they are not."""
    policy, idle = Pace([2, 1]), {2: 0.06, 1: 0.1}
    walk(policy, {2: 0.5, 1: 0.1}, 100)
    assert policy.chosen == 1
    steps = round(_AGAIN / idle[1])
    numbers, said = walk(policy, idle, steps - 200)
    assert set(numbers) == {1}
    numbers, said = walk(policy, idle, 400)
    assert numbers[-1] == 2
    assert len(said) == 1
    assert said[0].startswith("1 of 2 threads had taken the steps for 30"), said


@pytest.mark.parametrize("seconds", [{2: 0.06, 1: 0.05}, {2: 5.0, 1: 0.1}, {2: 60.0, 1: 20.0}])
def test_to_ask_again_and_again_costs_a_fiftieth(seconds: Any) -> None:
    """Of a machine that stays busy, quick steps and slow: turns take that share of the time, and choose the same."""
    policy = Pace([2, 1])
    walk(policy, seconds, 100)
    cost = 6 * (seconds[1] + seconds[2])
    numbers, said = walk(policy, seconds, round(5 * max(_AGAIN, 50 * cost) / seconds[1]))
    turns = sum(seconds[2] + seconds[1] for number in numbers if number == 2)
    assert 3 <= len(said) <= 5
    assert turns <= sum(seconds[number] for number in numbers) / 50
    assert policy.chosen == 1


def test_what_grew_faster_may_fall_to_half_of_that() -> None:
    policy = Pace([4, 2, 1])
    walk(policy, {n: 3 * s for n, s in IDLE.items()}, TRIAL)
    walk(policy, IDLE, 3 * _STEPS)
    numbers, said = walk(policy, {n: 2.5 * s for n, s in IDLE.items()}, 6 * _STEPS)
    assert set(numbers) == {1, 2, 4}
    assert "2.5 s instead of 1 s" in said[0]


def test_what_does_not_help_is_tried_less_and_less() -> None:
    """Between two loads, with the same choice under both, every other trial would be in vain."""
    policy, trials = Pace([4, 2, 1]), []
    quick = {n: s / 100 for n, s in IDLE.items()}
    walk(policy, quick, TRIAL)
    for half in range(40):
        load = {n: s * (1.0 if half % 2 else 10.0) for n, s in quick.items()}
        trials.append(sum(number != 4 for number in walk(policy, load, 1000)[0]))
    assert sum(trials[:10]) > 0
    assert sum(trials[20:]) <= sum(trials[:20]) / 3


def test_of_one_number_nothing_is_measured() -> None:
    assert walk(Pace([1]), {1: 1.0}, 50) == ([1] * 50, [])
    assert Pace([1]).facts() is None


def test_a_run_goes_on_with_what_was_chosen() -> None:
    policy = Pace([4, 2, 1])
    assert policy.facts() is None
    walk(policy, BUSY, TRIAL)
    known = json.loads(json.dumps(policy.facts()))
    again = Pace([4, 2, 1])
    again.go_on(known)
    assert walk(again, BUSY, 100) == ([1] * 100, [])
    elsewhere = Pace([2])  # on a machine that has not so many
    elsewhere.go_on(known)
    assert elsewhere.number == 2


def test_who_says_how_many_wins(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS"):
        monkeypatch.delenv(name, raising=False)
    with threads(6):
        assert pace_of(Training(), CPU).numbers == (6, 3, 1)
        assert pace_of(Training(threads=2), CPU).numbers == (2,)
        assert pace_of(Training(), torch.device("cuda")).numbers == (6,)
        monkeypatch.setenv("OMP_NUM_THREADS", "6")
        assert pace_of(Training(), CPU).numbers == (6,)


@pytest.mark.parametrize("number", [0, -1, 2.5, "two", True, 10**9, None])
def test_a_number_that_is_none(number: Any) -> None:
    with pytest.raises(InputError, match=r"training\.threads=.* a whole number from 1 to 1,024 or auto"):
        Training(threads=number)


# --- in the loop ------------------------------------------------------------------------------------------------------

SHORT = Training(steps=30, log_every=1, checkpoint_every=5, snapshot_every=0, cpu=True)


def train(folder: Any, config: Any, seen: Any = None, end: Any = None) -> Any:
    """The weights after training; `seen` gets (step, threads of the reader, threads of the loss)."""
    torch.manual_seed(0)
    net, inside = torch.nn.Linear(300, 300), []

    def loss(net: Any, batch: Any, generator: Any) -> Any:
        inside.append(torch.get_num_threads())
        return (net(batch) - batch).square().mean(1)

    def batches(step: Any) -> Any:
        return torch.randn(64, 300, generator=torch.Generator().manual_seed(step))

    for progress in fit(net, loss, batches, config, folder, resume=True):
        if seen is not None:
            seen.append((progress.step, torch.get_num_threads(), inside[-1] if inside else None, progress))
        if progress.step == end:
            break
    return net.weight.detach()


@pytest.fixture
def three(monkeypatch: pytest.MonkeyPatch) -> Any:
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS"):
        monkeypatch.delenv(name, raising=False)
    with threads(3):
        yield


def test_a_number_that_is_given_is_taken_and_put_back(tmp_path: Path, three: Any) -> None:
    seen: list[Any] = []
    train(tmp_path, replace(SHORT, steps=3, threads=2), seen)
    assert {(reader, inside, p.threads) for _, reader, inside, p in seen} == {(3, 2, 2)}
    assert there(latest(tmp_path)).state["threads"] is None


def test_what_settle_decided_takes_the_steps(tmp_path: Path, three: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Settled before training, in one place: the loop takes its steps by that object and makes none itself."""
    tiny = ["training.steps=2", "training.batch_size=8", "net.width=8", "data.count=40", "training.cpu=true"]
    experiment = Experiment.read("moons", tiny)
    assert settle(experiment, load_data(experiment)).pace.numbers == (3, 1)
    monkeypatch.setattr("ornstein.experiment.settle.pace_of", lambda config, device: Pace([2]))
    moments = list(train_experiment(experiment, tmp_path / "run"))
    assert {moment.progress.threads for moment in moments} == {2}


def test_with_a_number_a_killed_run_is_the_same_run(tmp_path: Path, three: Any) -> None:
    whole = train(tmp_path / "whole", replace(SHORT, threads=2))
    train(tmp_path / "killed", replace(SHORT, threads=2), end=12)
    assert torch.equal(train(tmp_path / "killed", replace(SHORT, threads=2)), whole)


def test_measured_in_the_loop_and_kept_in_its_checkpoints(tmp_path: Path, three: Any) -> None:
    """Each number has its turns, the reader keeps his own, and a resumed run measures nothing again."""
    seen: list[Any] = []
    train(tmp_path, SHORT, seen)
    assert {reader for _, reader, _, _ in seen} == {3}
    assert [inside for _, _, inside, _ in seen[:16]] == [3] * 3 + [3] * 3 + [1] * 3 + [3] * 3 + [1] * 3 + [seen[15][2]]
    kept = there(latest(tmp_path)).state["threads"]
    assert kept["chosen"] == seen[-1][3].threads
    assert kept["usual"] > 0
    seen = []
    train(tmp_path, replace(SHORT, steps=30 + _STEPS - 2), seen)
    assert {inside for _, _, inside, _ in seen[1:]} == {kept["chosen"]}


def test_what_is_said_is_among_the_warnings() -> None:
    policy = Pace([2, 1])
    policy.go_on({"chosen": 2, "usual": 1e-9})
    said: list[Any] = []
    policy._patience = 0.0  # seconds: the steps below take none
    while not said:
        with paced(policy, said):
            pass
    assert "threads were measured anew" in said[0]


# --- what the command line sets ---------------------------------------------------------------------------------------

COMMAND = """
import sys
from ornstein.cli import main
sys.argv = ["ornstein", "--version"]
try:
    main()
except SystemExit:
    pass
import torch
"""


def openmp(code: str, **environment: str) -> str:
    """How GNU's OpenMP waits in a process that runs `code` and then torch, in its own words."""
    names = ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY", "OMP_NUM_THREADS")
    clean = {name: value for name, value in os.environ.items() if name not in names}
    found = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True,
        env={**clean, **environment, "OMP_DISPLAY_ENV": "VERBOSE"},
    )  # fmt: skip
    spins = [line.split("=")[1].strip(" '") for line in found.stderr.splitlines() if "GOMP_SPINCOUNT" in line]
    if not spins:
        pytest.skip("torch's OpenMP is not GNU's")
    return spins[0]


def test_torch_waits_briefly_under_the_command_line_and_as_ever_without() -> None:
    assert openmp(COMMAND) == "10000"
    assert openmp("import ornstein; ornstein.VP") != "10000"


@pytest.mark.parametrize(
    "said", [{"GOMP_SPINCOUNT": "77"}, {"OMP_WAIT_POLICY": "PASSIVE"}, {"OMP_NUM_THREADS": "2"}, {}]
)
def test_what_the_environment_says_of_waiting_stays(monkeypatch: pytest.MonkeyPatch, said: Any) -> None:
    from ornstein import waiting

    for name in waiting.SAID:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.delitem(sys.modules, "torch")
    for name, value in said.items():
        monkeypatch.setenv(name, value)
    before = dict(os.environ)
    assert waiting.wait_briefly() == (not said)
    assert dict(os.environ) == (before if said else {**before, "GOMP_SPINCOUNT": "10000"})
