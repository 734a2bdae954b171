"""What memory cannot hold is refused before it is taken, in a sentence, with a value that fits."""

import math
import mmap
import re
import resource
import time
from contextlib import ExitStack
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from PIL import Image
from sure import there

from ornstein import memory
from ornstein.data.folder import ImageFolder
from ornstein.data.toys import Moons
from ornstein.errors import InputError, must_fit
from ornstein.experiment import afford
from ornstein.experiment.build import build, load_data
from ornstein.experiment.config import Experiment
from ornstein.experiment.interpolate import interpolate
from ornstein.experiment.plan import plan
from ornstein.experiment.restore import inpaint
from ornstein.experiment.run import Run
from ornstein.experiment.settle import settle
from ornstein.experiment.train import train
from ornstein.experiment.tune import tune_endpoint
from ornstein.training import Training
from ornstein.training.count import metered

SMALL = ["net.width=16", "net.depth=1", "data.count=200"]


@pytest.fixture(scope="module")
def digits() -> Any:
    return load_data(Experiment.read("digits"))


@pytest.fixture(scope="module")
def moons() -> Any:
    return load_data(Experiment.read("moons", SMALL))


def refused(work: Any) -> Any:
    """The sentence, of what must take neither a second nor memory, on a machine that may be busy with other things."""
    held, began = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.process_time()
    with pytest.raises(InputError) as error:
        work()
    assert time.process_time() - began < 3
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - held < 200_000, "kB"
    assert "\n" not in str(error.value)
    return str(error.value)


# --- training ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "value"),
    [
        ("net.channels", "200000"),
        ("net.channels", "100000000000000"),  # beyond counting
        ("net.multipliers", "[1,2,300000]"),
        ("net.embedding", "1000000000"),
    ],
)
def test_a_network_that_does_not_fit_names_the_field_and_a_value_that_does(
    digits: Any, change: Any, value: Any
) -> None:
    asked = Experiment.read("digits", [f"{change}={value}"])
    for act in (lambda: settle(asked, digits), lambda: plan(asked, data=digits)):
        said = refused(act)
        assert re.fullmatch(
            rf"{change}={re.escape(value)} makes a network that takes in training [\d.,]+ GB of memory, of which "
            rf"[\d.,]+ GB are free; {change}=[\d,\[\]]+ would fit\.",
            said.replace("more GB than one can count", "9 GB"),
        ), said


def test_the_value_that_is_named_fits(digits: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Weights, gradients, two moments, two averages and the preview's: seven times the weights."""
    net = build(Experiment.read("digits"), digits.fingerprint(), digits.transform).net
    weights = sum(p.nbytes for p in net.parameters())
    for room, fits in ((7 * weights, True), (7 * weights - 1, False)):
        monkeypatch.setattr(afford, "room", lambda device, room=room: float(room))
        if fits:
            build(Experiment.read("digits"), digits.fingerprint(), digits.transform, times=afford.copies(Training()))
            continue
        said = refused(lambda: settle(Experiment.read("digits"), digits))
        named = there(re.search(r"(net\.channels=24) would fit", said))[1]
        smaller = Experiment.read("digits", [named])
        assert build(smaller, digits.fingerprint(), digits.transform, times=7.0).net


def test_a_network_is_measured_without_being_made(digits: Any) -> None:
    for name in ("digits", "moons"):
        experiment = Experiment.read(name)
        data = digits if name == "digits" else load_data(experiment)
        built = build(experiment, data.fingerprint(), data.transform)
        config = afford_config(experiment)
        found = afford._weights(config, lambda net, b=built: net.build(b.learner.problem.shape, b.learner.told))  # type: ignore[misc]
        assert found == sum(p.nbytes for p in built.net.parameters())


def afford_config(experiment: Any) -> Any:
    from ornstein.experiment.arguments import construct
    from ornstein.nets import NETS

    return construct(NETS, experiment.net)


@pytest.mark.parametrize(("field", "name"), [("net.depth=1000000", "moons"), ("net.blocks=1000000", "digits")])
def test_more_layers_than_anyone_builds(field: Any, name: Any, digits: Any, moons: Any) -> None:
    said = refused(lambda: settle(Experiment.read(name, [field]), digits if name == "digits" else moons))
    assert field.split(".")[1].split("=")[0] in said
    assert "from 1 to 1,000" in said


def test_a_batch_that_does_not_fit(moons: Any) -> None:
    asked = Experiment.read("moons", [*SMALL, "training.batch_size=1000000000000"])
    said = refused(lambda: settle(asked, moons))
    assert said.startswith("training.batch_size=1000000000000 takes ")
    most = int(there(re.search(r"up to ([\d,]+) would fit", said))[1].replace(",", ""))
    assert 10_000 < most < 10**12


def test_pieces_that_do_not_fit(digits: Any) -> None:
    """A million digits fit, what the network keeps of them does not."""
    changes = ["training.batch_size=1000000"]
    said = refused(lambda: settle(Experiment.read("digits", changes), digits))
    assert said.startswith("training.batch_size=1000000 is 1,000,000 samples at a time, of which the loss keeps ")
    assert int(there(re.search(r"training.accumulate=(\d+) would fit", said))[1]) > 1


def test_a_plan_says_what_a_run_takes_that_does_not_fit(moons: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pieces too large for what is free now are no mistake of a plan's; where a run would begin they are refused."""
    monkeypatch.setattr(afford, "room", lambda device: 1e6)
    changes = [*SMALL, "training.batch_size=4000", "training.cpu=true"]
    assert plan(Experiment.read("moons", changes), data=moons).needed > 1e6
    with pytest.raises(InputError, match=r"training\.accumulate=\d+ would fit"):
        settle(Experiment.read("moons", changes), moons)


def test_what_the_loss_keeps_is_what_it_kept(digits: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a sample, within a fifth of the bytes alive as the forward pass of a larger batch ends."""
    told = []
    monkeypatch.setattr("ornstein.experiment.settle.afford_pieces", lambda config, kept, *rest: told.append(kept))
    experiment = Experiment.read("digits", ["net.dropout=0"])
    settled = settle(experiment, digits)
    x0, given = digits.batch(0, 40, 0)
    held: list[Any] = []

    def forward(batch: Any) -> None:
        loss = settled.built.loss({})
        held[:] = [loss(settled.built.net, (x0[:batch], given[:batch]), torch.Generator().manual_seed(0))]

    live = {batch: metered(forward, batch, settled.built.net).live for batch in (20, 40)}
    assert told[0] == pytest.approx((live[40] - live[20]) / 20, rel=0.2)


def test_pieces_in_closed_form(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of 1,000 bytes gradients, moments and averages take 200; a piece of 32 samples has the other 800."""
    monkeypatch.setattr(afford, "room", lambda device: 1000.0)
    config, cpu = Training(batch_size=64, accumulate=2), torch.device("cpu")  # 32 samples at a time
    weights = 200.0 / (afford.copies(config) - 1)
    afford.afford_pieces(config, 25.0, weights, cpu)
    with pytest.raises(InputError, match=r"32 samples at a time, .*; training\.accumulate=3 would fit"):
        afford.afford_pieces(config, 25.1, weights, cpu)
    afford.afford_pieces(Training(batch_size=64, accumulate=3), 25.1, weights, cpu)
    afford.afford_pieces(Training(batch_size=64, accumulate=2, precision="bfloat16"), 50.0, weights, cpu)
    with pytest.raises(InputError, match="take smaller samples or a smaller network"):
        afford.afford_pieces(config, 801.0, weights, cpu)


# --- data -------------------------------------------------------------------------------------------------------------


def test_pictures_blown_up_beyond_memory(tmp_path: Path) -> None:
    for i in range(400):
        Image.new("L", (4, 4), i % 256).save(tmp_path / f"{i}.png")
    said = refused(ImageFolder(str(tmp_path), size=16_000).load)
    assert re.match(r"data\.size=16000,16000 of 400 pictures fills 102 GB, more than half of this machine's", said)
    assert "data.size=100000" in refused(lambda: ImageFolder(str(tmp_path), size=100_000))


def test_more_points_than_fit() -> None:
    said = refused(Moons(count=10**13).load)
    assert re.fullmatch(
        r"data\.count=10000000000000 takes 320,000 GB of memory, of which .* up to [\d,]+ would fit\.", said
    )


# --- drawing ----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, moons: Any) -> Any:
    folder = tmp_path_factory.mktemp("runs") / "moons"
    words = [*SMALL, "training.steps=2", "training.batch_size=8", "sampling.preview=4", "sampling.steps=2"]
    for _ in train(Experiment.read("moons", words), folder, draws=False):
        pass
    return Run.load(folder)


HUGE = 10**12


@pytest.mark.parametrize(
    "act",
    [
        lambda run: run.draw(HUGE),
        lambda run: run.sample(HUGE, label="upper"),
        lambda run: run.examples(HUGE),
        lambda run: run.every_class(HUGE),
        lambda run: run.condition(HUGE, 0),
        lambda run: run.trajectory(HUGE),
        lambda run: tune_endpoint(run, 5, count=HUGE),
        lambda run: inpaint(run, torch.zeros(1, 2), torch.tensor([[True, False]]), draws=HUGE),
    ],
    ids=["draw", "sample", "examples", "every_class", "condition", "trajectory", "tune", "inpaint"],
)
def test_more_samples_than_fit(run: Any, act: Any) -> None:
    said = refused(lambda: act(run))
    assert re.fullmatch(
        r"(n|count|draws)=1000000000000 takes 32,000 GB of memory, of which .* GB are free; up to [\d,]+ would fit\.",
        said,
    )


def test_evaluating_by_more_samples_than_fit(run: Any) -> None:
    from ornstein.experiment.evaluate import evaluate

    assert "n=1000000000000 takes" in refused(lambda: evaluate(run, n=HUGE))
    assert "likelihood=-1 must be" in refused(lambda: evaluate(run, n=20, likelihood=-1))  # before it draws


def test_many_between_two_are_those_of_few(run: Any) -> None:
    """Beyond a batch they come in batches, which changes none of them."""
    a, b = torch.tensor([[-1.0, 0.5]]), torch.tensor([[1.0, 0.2]])
    many, few = (interpolate(run, a, b, n, steps=3) for n in (601, 3))
    torch.testing.assert_close(many[[0, 300, 600]], few)


# --- how much there is ------------------------------------------------------------------------------------------------


def test_free_memory_is_less_than_all_of_it_and_what_is_taken_goes_from_it() -> None:
    def free() -> float:
        found = memory.free_bytes()
        assert 0 < found <= memory.machine_bytes()
        return found

    with ExitStack() as held:
        found = [free()]
        for _ in range(3):
            # 512 MB more, straight from the system: the C library keeps what the tests before this one freed
            held.enter_context(mmap.mmap(-1, 2**29)).write(bytes(2**29))
            found.append(free())
    # others on this machine may give back as much meanwhile, but not each time
    assert max(before - after for before, after in pairwise(found)) > 1e8


def test_a_containers_share_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Given 1,000 bytes of which 600 are held, 200 of these being files: 600 are free."""
    for name, text in (
        ("memory.max", "1000\n"),
        ("memory.current", "600\n"),
        ("memory.stat", "anon 400\nactive_file 0\ninactive_file 200\n"),
    ):
        (tmp_path / name).write_text(text)
    names = ("memory.max", "memory.current", "\ninactive_file")
    monkeypatch.setattr(memory, "_GROUPS", ((tmp_path, *names),))
    assert (memory.machine_bytes(), memory.free_bytes()) == (1000.0, 600.0)
    (tmp_path / "memory.max").write_text("max\n")
    assert memory.machine_bytes() > 1000


def test_the_sentence() -> None:
    must_fit("x=1 takes", 5e9, 5e9, "less would fit")
    with pytest.raises(InputError, match=r"^x=1 takes 5 GB of memory, of which 4\.5 GB are free; less would fit\.$"):
        must_fit("x=1 takes", 5e9, 4.5e9, "less would fit")


def test_the_room_of_a_device_is_what_it_says_is_free(monkeypatch: pytest.MonkeyPatch) -> None:
    device = torch.device("cuda")
    for module, expected in (
        (SimpleNamespace(mem_get_info=lambda of: (5, 9) if of == device else None), 5.0),
        (SimpleNamespace(), math.inf),
    ):
        monkeypatch.setattr(torch, "get_device_module", lambda of, module=module: module)
        assert afford.room(device) == expected
    monkeypatch.setattr(afford, "free_bytes", lambda: 7.0)
    assert afford.room(torch.device("cpu")) == 7.0


def test_of_a_batch_of_two_nobody_knows_what_one_example_keeps(moons: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """What four keep beyond two, halved; where there are no four it is nought, and not a guess."""
    kept: list[float] = []
    monkeypatch.setattr(
        "ornstein.experiment.settle.afford_pieces", lambda config, bytes_kept, *rest: kept.append(bytes_kept)
    )
    for rows in (2, 8):
        settle(Experiment.read("moons", [f"training.batch_size={rows}", "training.cpu=true"]), moons)
    assert kept[0] == 0
    assert kept[1] > 1000
