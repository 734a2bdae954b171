"""What a run will cost: counts against closed forms and torch's counter, the plan against what a run took."""

import math
import re
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from sure import Cli, there
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from ornstein.errors import InputError
from ornstein.experiment import plan as planning
from ornstein.experiment.build import build, load_data
from ornstein.experiment.calibrate import calibrate
from ornstein.experiment.config import Experiment, methods
from ornstein.experiment.devices import GPUS
from ornstein.experiment.plan import plan
from ornstein.experiment.settle import _divided, settle, settle_drawing
from ornstein.experiment.train import train
from ornstein.experiment.workload import count_training, network_calls
from ornstein.nets import UNet, attend
from ornstein.samplers import STEPPERS
from ornstein.training import Training
from ornstein.training.count import counted, metered

FLOAT = 4


def built(experiment: Any, data: Any) -> Any:
    return build(experiment, data.fingerprint(), data.transform)


@pytest.fixture(scope="module")
def digits() -> Any:
    return load_data(Experiment.read("digits"))


# --- counting ---------------------------------------------------------------------------------------------------------


def test_linear_layers_by_hand() -> None:
    """Forward 2 b i o each; backward as much for the weights, and again for every input but the first."""
    net = nn.Sequential(nn.Linear(30, 50, bias=False), nn.Linear(50, 20, bias=False))
    found = counted(lambda b: net(torch.ones(b, 30)).sum().backward(), net)
    for batch in (1, 7, 1000):
        assert found.flops(batch) == 2 * batch * (2 * 30 * 50 + 3 * 50 * 20)


def test_attention_by_hand_on_either_side_of_where_its_arithmetic_changes() -> None:
    for tokens in (64, 1024):
        shape = (2, tokens, 16)
        found = counted(lambda b, shape=shape: attend(*torch.ones(3, b, *shape).unbind()), nn.Identity())  # type: ignore[misc, arg-type]
        assert found.flops(5) == 5 * 2 * 2 * 2 * tokens**2 * 16


def test_a_unet_as_torchs_counter_has_it() -> None:
    net = UNet(channels=8, multipliers=(1, 2), blocks=1, attention=(4,)).build((3, 8, 8), seed=0)

    def work(batch: Any) -> None:
        net(torch.ones(batch, 3, 8, 8), torch.zeros(batch)).sum().backward()

    found = counted(work, net)
    with FlopCounterMode(display=False) as counter:
        work(6)
    assert found.flops(6) == counter.get_total_flops() > 0


def test_memory_of_a_chain_by_hand() -> None:
    """sin five times keeps its five inputs; the last output and two cosine terms join them as the way back begins."""

    def work(batch: Any) -> None:
        x = torch.ones(batch, 1000, requires_grad=True)
        for _ in range(5):
            x = x.sin()
        x.sum().backward()

    found = counted(work, nn.Identity())
    assert found.peak(50) / (50 * 1000 * FLOAT) == pytest.approx(5 + 1 + 2, abs=1e-3)


@pytest.mark.parametrize("changes", [["net.channels=16"], ["net.channels=8", "preset=sliced"], ["net.channels=64"]])
def test_the_peak_of_a_large_batch_follows_from_two_small_ones(digits: Any, changes: Any) -> None:
    """Also where it moves from the gradients of the weights to the end of the forward pass."""
    experiment = Experiment.read("digits", [*changes, "net.dropout=0"])
    parts = built(experiment, digits)
    found = count_training(experiment, parts, digits)

    def work(batch: Any) -> None:
        x0, labels = digits.batch(0, batch, 0)
        parts.net.zero_grad()
        parts.loss({})(parts.net, (x0, labels), torch.Generator().manual_seed(0)).sum().backward()

    for batch in (1, 40):
        meter = metered(work, batch, parts.net)
        assert found.peak(batch) == pytest.approx(max(meter.trace), rel=2e-3)
        assert found.flops(batch) == meter.flops


def test_half_precision_halves_what_convolutions_keep(digits: Any) -> None:
    peaks = {}
    for precision in ("float32", "bfloat16"):
        experiment = Experiment.read("digits", [f"training.precision={precision}", "net.dropout=0"])
        peaks[precision] = count_training(experiment, built(experiment, digits), digits).peak(128)
    assert 0.4 < peaks["bfloat16"] / peaks["float32"] < 0.9


#: steps along an energy, which a tested network is not
FIXED = [name for name in STEPPERS if STEPPERS[name]().calls is not None and name != "recovery-langevin"]


@pytest.mark.parametrize("name", FIXED)
def test_network_calls_are_the_steppers_own(digits: Any, name: Any) -> None:
    experiment = Experiment.read("digits", [f"sampling.stepper={name}", "sampling.steps=6"])
    stepper = STEPPERS[name]()
    expected = there(stepper.last_calls) + 5 * there(stepper.calls)
    assert network_calls(experiment, built(experiment, digits), digits) == expected


# --- the plan ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "method", [name for name in methods() if name not in ("autoencoder", "cascade", "latent", "prior")]
)
def test_every_method_can_be_planned(method: Any) -> None:
    found = plan(Experiment.read("moons", [f"preset={method}", "net.width=16", "data.count=2000"]), "2xH100")
    assert found.step_flops > 0
    assert found.calls > 0
    assert found.seconds > 0
    assert not found.advice


def test_stages_are_planned_by_what_each_costs(digits: Any) -> None:
    found = plan(Experiment.read("digits", ["preset=cascade", "sampling.steps=20"]), "l4", data=digits)
    plain = plan(Experiment.read("digits", ["sampling.steps=20"]), "l4", data=digits)
    assert found.calls == 10  # of both stages
    assert plain.calls == 20
    assert 1.1 < found.step_flops / plain.step_flops < 1.5  # a quarter more pixels
    assert plan(Experiment.read("digits", ["preset=autoencoder"]), "l4", data=digits).calls == 0
    assert plan(Experiment.read("digits", ["preset=prior"]), "l4", data=digits).step_flops > plain.step_flops


def test_objectives_that_ask_more_of_the_network_cost_more(digits: Any) -> None:
    flops = {
        method: plan(Experiment.read("digits", [f"preset={method}", "training.batch_size=32"]), "l4", data=digits)
        for method in ("ddpm", "sliced")
    }
    assert 1.7 < flops["sliced"].step_flops / flops["ddpm"].step_flops < 3


def test_a_classifier_draws_nothing(digits: Any) -> None:
    found = plan(Experiment.read("digits", ["objective=classifier"]), "l4", data=digits)
    assert found.calls == 0
    assert "drawing" not in found.text()


@pytest.mark.parametrize(("gpu", "has"), [("h100", "bfloat16"), ("t4", "float32")])
def test_auto_is_bfloat16_on_gpus_that_have_it(digits: Any, gpu: Any, has: Any) -> None:
    large = ["net.channels=128", "net.blocks=1", "training.batch_size=4096"]
    auto = plan(
        Experiment.read("digits", [*large, "training.precision=auto", "sampling.precision=auto"]), gpu, data=digits
    )
    said = [f"training.precision={has}", f"sampling.precision={has}"]
    given = plan(Experiment.read("digits", [*large, *said]), gpu, data=digits)
    assert (auto.experiment, auto.step, auto.draw) == (given.experiment, given.step, given.draw)
    # where bfloat16 is taken, float32 was tried, which needs more room
    assert (auto.needed > given.needed) == (has == "bfloat16")
    wide = plan(Experiment.read("digits", large), gpu, data=digits)
    assert (auto.step < wide.step, auto.draw < wide.draw) == (has == "bfloat16", has == "bfloat16")


@pytest.mark.parametrize(
    ("changes", "trains", "draws"),
    [
        (["preset=sliced", "net.channels=8"], {"float32"}, {"float32", "bfloat16"}),
        (["preset=energy-recovery"], {"float32"}, {"float32"}),
        (["net.channels=8"], {"float32", "bfloat16"}, {"float32", "bfloat16"}),
    ],
)
def test_auto_is_decided_here_as_training_does(digits: Any, changes: Any, trains: Any, draws: Any) -> None:
    """Chains and second derivatives are float32 whatever is faster; measuring leaves the network as it was."""
    auto = ["training.precision=auto", "sampling.precision=auto"]
    experiment = Experiment.read("digits", [*changes, *auto, "training.batch_size=8", "training.cpu=true"])
    settled = settle(experiment, digits)
    parts, before = settled.built, built(experiment, digits).net.state_dict()
    found = settle_drawing(settled)
    assert found.training.precision in trains
    assert found.sampling.precision in draws
    assert all(torch.equal(before[name], value) for name, value in parts.net.state_dict().items())


def test_disk_is_what_a_run_leaves(run: Path) -> None:
    experiment = Experiment.read(run / "experiment.yaml")
    found = plan(experiment, "l4")
    taken = sum(file.stat().st_size for file in run.rglob("*.safetensors"))
    assert sum(found.disk.values()) == pytest.approx(taken, rel=0.05)  # headers, of a small network


def test_the_text_adds_up(digits: Any) -> None:
    found = plan(Experiment.read("digits"), "4xA100", price=2.0, data=digits)
    text = found.text()
    assert "4 x A100" in text
    assert f"{found.parameters:,} parameters" in text
    listed = text.split("memory", 1)[1].split("disk")[0].splitlines()[1:]
    unit = {"B": 1, "kB": 1e3, "MB": 1e6, "GB": 1e9}
    total = sum(float(number) * unit[name] for number, name in (line.split()[:2] for line in listed))
    assert total == pytest.approx(found.needed, rel=0.01)
    assert found.cost == pytest.approx(4 * 2.0 * found.seconds / 3600)
    assert "assumed" in text


def test_small_networks_are_no_faster_on_a_larger_gpu_and_large_ones_are(digits: Any) -> None:
    small = Experiment.read("digits")
    assert plan(small, "a100", data=digits).step == plan(small, "h100", data=digits).step
    large = Experiment.read("digits", ["net.channels=128", "net.multipliers=[1,2,2]", "training.batch_size=100000"])
    one, faster, busier = (
        plan(large, "t4", data=digits),
        plan(large, "l4", data=digits),
        plan(large, "t4", utilisation=0.8, data=digits),
    )
    assert one.step > 1.5 * faster.step
    assert one.step > 1.5 * busier.step
    assert plan(large, "4xt4", data=digits).step == pytest.approx(one.step / 4, rel=0.1)


def test_what_does_not_fit_comes_with_what_does(digits: Any) -> None:
    changes = ["net.channels=64", "training.batch_size=1000000"]
    found = plan(Experiment.read("digits", changes), "t4", data=digits)
    assert found.needed > found.room
    assert "it does not fit" in found.text()
    pieces = int(there(re.search(r"training.accumulate=(\d+)", found.advice))[1])
    assert not plan(Experiment.read("digits", [*changes, f"training.accumulate={pieces}"]), "t4", data=digits).advice
    assert plan(Experiment.read("digits", [*changes, f"training.accumulate={pieces - 1}"]), "t4", data=digits).advice


def test_sharding_spreads_all_but_the_previews_average(digits: Any) -> None:
    whole, spread = (
        plan(Experiment.read("digits", [f"training.shard={shard}"]), "8xl4", data=digits).memory
        for shard in ("none", "fsdp")
    )
    assert spread["weights"] == whole["weights"] / 8
    assert spread["Adam's two moments"] == whole["Adam's two moments"] / 8
    assert spread["the average that previews are drawn by"] == whole["weights"]


def test_processor_time_is_near_what_a_run_takes(digits: Any, tmp_path: Path) -> None:
    """benchmarks/plan.py has the figures; here a wide margin, as other work on a machine disturbs a second of it."""
    changes = [
        "net.channels=32",
        "training.steps=16",
        "training.validate_every=16",
        "sampling.preview=4",
        "sampling.steps=4",
    ]
    experiment = Experiment.read("digits", changes)
    found = plan(experiment, data=digits)
    moments = train(experiment, tmp_path / "run", digits)
    next(moments)
    start = time.process_time()
    for _ in moments:
        pass
    assert 0.5 < found.processor / (time.process_time() - start) < 2
    assert found.step > 0
    assert "measured" in found.basis


def test_a_calibration_leaves_a_line_through_its_measurements(digits: Any) -> None:
    line = calibrate(Experiment.read("digits", ["net.channels=8"]), digits)
    assert (line.few, line.many) == (16, 128)
    assert line.at(16)[1] == line.low[1] > 0
    assert line.at(128)[1] == pytest.approx(line.high[1])


# --- on the command line ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("pieces", "processes", "each"), [(1, 1, 1), (3, 1, 3), (1, 2, 2), (3, 2, 4), (4, 2, 4), (2, 3, 3)]
)
def test_all_processes_get_as_many_pieces(
    pieces: int, processes: int, each: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ornstein.ranks.count", lambda: processes)
    asked = Experiment.read("digits", [f"training.accumulate={pieces}"])
    assert _divided(asked) == Experiment.read("digits", [f"training.accumulate={each}"])


@pytest.mark.parametrize(
    ("count", "shard", "first"), [(2, "none", "training.shard=fsdp, "), (2, "fsdp", ""), (1, "none", "")]
)
def test_what_no_pieces_make_fit_comes_with_other_ways(count: int, shard: Any, first: str) -> None:
    config = Training(batch_size=8, shard=shard)
    memory: Any = SimpleNamespace(config=config, count=count, parts=lambda pieces: {"weights": 2e9})
    said = planning._advice(memory, 1e9)
    assert said.endswith(f"take a smaller network, {first}smaller samples or a device with more memory.")
    memory.parts = lambda pieces: {"pieces": 6e9 / pieces}
    assert planning._advice(memory, 1e9) == (
        f"it does not fit, as 92% of it can be filled; set training.accumulate={8 if count == 2 else 7}, which does."
    )


def test_a_program_takes_memory_also_where_the_system_does_not_say(monkeypatch: pytest.MonkeyPatch) -> None:
    """More than Python and torch do, and less than twice that; what the data take is told apart."""
    for resident, loaded, expected in ((math.nan, 5e9, (0.3e9, 1e9)), (5.4e9, 5e9, (0.4e9, 0.7e9))):
        monkeypatch.setattr(planning, "process_bytes", lambda what, resident=resident: resident)
        assert expected[0] < planning._program(loaded) < expected[1]


def test_the_verb(cli: Cli) -> None:
    answer = cli("plan", "digits", "net.channels=16", "--gpus", "8xH100", "--price", "2.5")
    assert answer.code == 0, answer
    for word in ("8 x H100", "FLOP a step", "weights", "checkpoints", "price"):
        assert word in answer.out


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["digits", "--gpus", "8xH10O"], "did you mean 'h100'"),
        (["digits", "--gpus", "0xh100"], "8xH100"),
        (["digits", "--gpus", "8 of them!"], "8xH100"),
        (["digit", "--gpus", "l4"], "did you mean 'digits'"),
        (["digits", "--gpus", "t4", "training.precision=bfloat16"], "float16"),
        (["digits", "--gpus", "t4", "sampling.precision=bfloat16"], "sampling.precision"),
        (["digits", "--gpus", "256xl4"], "training.batch_size=128"),
        (["digits", "--gpus", "l4", "--price", "-1"], "price"),
        (["digits", "--gpus", "l4", "--utilisation", "2"], "utilisation"),
        (["digits", "--utilisation", "0.5"], "--gpus"),
        (["digits", "--gpus", "l4", "--device", "cpu"], "--gpus"),
        (["digits", "--device", "tpu"], "tpu"),
    ],
)
def test_what_cannot_be_planned_is_one_sentence(cli: Cli, words: Any, said: Any) -> None:
    answer = cli("plan", *words)
    assert answer.code == 2, answer
    assert said in answer.err
    assert len(answer.err.strip().splitlines()) == 1


def test_every_gpu_is_plausible() -> None:
    """Half precision is the faster, and a number takes at least as long to fetch as to use."""
    for gpu in GPUS.values():
        assert gpu.half > gpu.single
        assert gpu.bandwidth < 1e3 * gpu.single * 4
        assert gpu.link < gpu.bandwidth
    with pytest.raises(InputError, match="did you mean 'a100'"):
        plan(Experiment.read("digits"), "a1000")
