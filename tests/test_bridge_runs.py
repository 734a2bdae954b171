"""Bridges as people use them: two data sets in one, the network that learns, what teaches it, and the verbs."""

import dataclasses
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from sure import Cli
from torch import Tensor, nn

from ornstein.bridge import (
    BRIDGE_OBJECTIVES,
    Bridge,
    BridgeMatching,
    Brownian,
    Fitting,
    GaussianBridge,
    GaussianCoupling,
    Guess,
    Linear,
    Matching,
    NetBridge,
    Paired,
    crossing,
    path_energy,
    translate,
)
from ornstein.core.condition import SOURCE, Condition
from ornstein.data import open_data
from ornstein.data.between import named_end
from ornstein.errors import InputError
from ornstein.experiment import plain
from ornstein.experiment.config import Experiment
from ornstein.experiment.run import Run
from ornstein.experiment.train import train
from ornstein.experiment.translate import carry
from ornstein.guidance import Blur
from ornstein.metrics import Wasserstein

F64 = torch.float64
#: a run of a second
TINY = ["net.width=16", "net.depth=1", "training.batch_size=64", "training.validate_every=1000000",
        "training.log_every=1000000", "data.source.count=400", "data.target.count=400"]  # fmt: skip


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def trained(folder: Path, preset: str, *changes: str) -> Run:
    for _ in train(Experiment.read(preset, changes), folder, draws=False):
        pass
    return Run.load(folder)


@pytest.fixture(scope="module")
def moons(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Moons to eight Gaussians, barely taught."""
    return trained(tmp_path_factory.mktemp("runs") / "bridge", "bridge", *TINY, "training.steps=30", "sampling.steps=4")


class Still(nn.Module):
    """A network that answers nought, and remembers what it was asked."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.channels, self.asked = channels, Tensor()

    def forward(self, x: Tensor, level: Tensor, parts: Any) -> Tensor:
        self.asked = level
        return x.new_zeros(len(x), self.channels, *x.shape[2:])


class Affine(nn.Module):
    """A network that is an affine map of points in the plane."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.map = nn.Linear(2, channels)

    def forward(self, x: Tensor, level: Tensor, parts: Any) -> Tensor:
        found: Tensor = self.map(x)
        return found


# -- two data sets -----------------------------------------------------------------------------------------------------


def test_a_batch_has_rows_of_both_sets_and_is_a_function_of_its_step() -> None:
    data = open_data("between", source={"name": "moons", "count": 90}, target={"name": "spirals", "count": 60}).load()
    assert data.far is not None
    for step in range(3):
        x, given = data.batch(step, 25, seed=4)
        assert torch.equal(given.parts[SOURCE], data.far.batch(step, 25, 4)[0]) is False  # an order of its own
        again, also = data.batch(step, 25, seed=4)
        assert torch.equal(x, again)
        assert torch.equal(given.parts[SOURCE], also.parts[SOURCE])
    seen = torch.cat([data.batch(step, 27, 0)[1].parts[SOURCE] for step in range(3)])  # an epoch of the source
    own = data.transform.forward(data.far.train)
    assert torch.equal(seen.sort(0).values, own.sort(0).values)
    assert data.test_condition.parts[SOURCE].shape == data.test.shape
    assert data.fingerprint()["far"]["count"] == 81
    other = open_data("between", source={"name": "moons", "count": 90, "seed": 1}, target=data_of("spirals", 60)).load()
    assert other.fingerprint()["sha256"] != data.fingerprint()["sha256"]


def data_of(name: str, count: int) -> dict[str, Any]:
    return {"name": name, "count": count}


def test_distances_are_those_of_the_data_but_for_one_factor() -> None:
    """So the cheapest pairing in model space is that of the data's own units; unlike columns can ask for their own."""
    ends = {"source": data_of("moons", 60), "target": data_of("spirals", 60)}
    data, each = (open_data("between", **ends, scale=scale).load() for scale in ("common", "each"))
    for made, wanted in ((data, True), (each, False)):
        assert made.far is not None
        own = torch.cdist(made.far.train, made.train)
        there = torch.cdist(made.transform.forward(made.far.train), made.transform.forward(made.train))
        ratio = there / own
        assert (float(ratio.max() / ratio.min()) < 1.01) is wanted
    both = torch.cat([data.train, data.far.train])  # type: ignore[union-attr]
    assert data.transform.forward(both).square().mean() == pytest.approx(1, rel=1e-5)


def test_a_blur_is_paired_with_what_it_came_from() -> None:
    data = open_data("blurred", of="digits", width=0.8).load()
    x, given = data.batch(3, 16, seed=1)
    blurred = Blur(0.8).apply(data.transform.inverse(x)).round()
    assert torch.equal(data.transform.inverse(given.parts[SOURCE], quantise=True).float(), blurred)
    assert data.paired
    assert torch.equal(data.far.test.float(), Blur(0.8).apply(data.test.float()).round())  # type: ignore[union-attr]


def pictures(folder: Path, size: int, mode: str = "L", count: int = 6) -> Path:
    folder.mkdir()
    dice = np.random.default_rng(size)
    for i in range(count):
        values = dice.integers(0, 256, (size, size, 3)[: 2 if mode == "L" else 3], dtype=np.uint8)
        Image.fromarray(values).save(folder / f"{i}.png")
    return folder


def test_two_data_sets_that_nothing_leads_between_are_refused(cli: Cli, tmp_path: Path) -> None:
    small, large = pictures(tmp_path / "small", 8), pictures(tmp_path / "large", 16)
    colour, more = pictures(tmp_path / "colour", 8, "RGB"), pictures(tmp_path / "more", 8, count=9)
    np.save(tmp_path / "three.npy", np.random.default_rng(0).normal(size=(30, 3)))
    for name, head in (("a", "height,weight"), ("b", "height,age"), ("c", "height,colour")):
        rows = [f"{i}.5,{['red', 'blue'][i % 2] if name == 'c' else i * i}" for i in range(40)]
        (tmp_path / f"{name}.csv").write_text("\n".join([head, *rows]))
    a, b, c = (tmp_path / f"{name}.csv" for name in "abc")
    cases: list[tuple[Any, Any, list[str], list[str]]] = [
        (small, large, [], ["images 1x8x8", "1x16x16", "data.source.size"]),
        (small, colour, [], ["1x8x8", "3x8x8", "mode=RGB"]),
        (small, more, ["data.paired=true"], ["data.paired=True", "5 + 1"]),
        ("moons", tmp_path / "three.npy", [], ["vectors 2", "vectors 3"]),
        ("moons", small, [], ["vectors 2", "images 1x8x8"]),
        (a, b, [], ["'weight'", "'age'"]),
        (a, c, [], ["'colour'", "columns of numbers"]),
        ("digits", small, [], ["0..16", "0..255"]),
        ("moons", tmp_path / "nothing.npy", [], ["nothing.npy", "does not exist"]),
        ("moons", "between", [], ["data.target='between'", "made of other data"]),
        ("moons", "moonz", [], ["moonz"]),
        ("moons", "moons", ["data.source.count=none"], ["data.source"]),
        ("moons", "moons", ["objective.coupling=paired"], ["data.paired=true"]),
        ("moons", "moons", ["process=linear", "objective=markovian-fitting"], ["noise"]),
        ("moons", "moons", ["predicts=v", "objective=v", "learner=denoiser"], ["process='linear'"]),
    ]
    for source, target, also, words in cases:
        found = cli("train", "bridge", f"data.source={source}", f"data.target={target}", *also, "--out", tmp_path / "r")
        assert found.code == 2, (source, target, found.out + found.err)
        assert "Traceback" not in found.err
        assert all(word in found.err for word in words), found.err
        assert len(found.err.strip().splitlines()) == 1
    assert not (tmp_path / "r").exists()
    assert cli("train", "moons", "learner=bridge", "predicts=ends", "objective=bridge", "process=linear").code == 2


def test_the_target_chooses_the_network(tmp_path: Path) -> None:
    large = pictures(tmp_path / "large", 80)
    asked = Experiment.read("bridge", [f"data.source={pictures(tmp_path / 'small', 40)}", f"data.target={large}"])
    assert asked.net["name"] == "unet"
    assert asked.data["source"]["size"] == asked.data["target"]["size"] == (64, 64)
    assert "net" in asked.reasons
    assert Experiment.read(plain.parsed(asked.to_yaml(), "")) == asked
    assert Experiment.read("bridge", ["data.source=spirals"]).net["name"] == "mlp"
    assert named_end({"name": "moons", "count": 5}, "data.source")["count"] == 5


# -- the network and its teachers --------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", [Linear(), Brownian(0.7)], ids=str)
def test_a_network_that_says_nothing_is_the_best_guess_at_white_ends(path: Any) -> None:
    eye, near, far = torch.eye(2, dtype=F64), 0.6, 1.7
    zero = torch.zeros(2, dtype=F64)
    exact = GaussianBridge(GaussianCoupling.independent(zero, near**2 * eye, zero, far**2 * eye), path)
    silent = Still(2 if path.noiseless else 4)
    still = NetBridge(silent, path, near, far)
    x = torch.randn(5, 2, generator=seeded(), dtype=F64)
    for t in (0.0, 0.2, 0.5, 0.9, 1.0):
        for down, a, b in ((True, still, exact), (False, still.reversed(), exact.reversed())):
            for end in ("x0", "x1"):
                assert torch.allclose(a(x, t).read(end), b(x, t).read(end), atol=1e-12), (t, down, end)
    times = torch.tensor([0.1, 0.5, 0.8, 0.9, 1.0], dtype=F64)
    assert torch.allclose(still(x, times).read("x0")[1:2], still(x[1:2], 0.5).read("x0"))
    # of the level it is told as much as training shows it, and at the ends no more
    for t, level in ((0.0, -6.0), (1e-5, -6.0), (0.3, math.log(3 / 7)), (1.0, 6.0)):
        still(x, t)
        assert torch.allclose(silent.asked, torch.full((5,), level, dtype=F64))
    # its errors, in units of what it leaves open, have mean square one at all times
    x0, x1 = (s * torch.randn(40_000, 2, generator=seeded(i), dtype=F64) for i, s in ((1, near), (2, far)))
    loss = BridgeMatching(Paired(), ("x0",), even=True)
    for t in (0.1, 0.5, 0.9):
        z = torch.randn(x0.shape, generator=seeded(3), dtype=F64)
        assert float(
            loss.loss_at(still, x0, x1, torch.full((len(x0),), t, dtype=F64), z, None).mean()
        ) == pytest.approx(1, abs=0.02)
    with pytest.raises(InputError, match="even=True"):
        BridgeMatching(regress=("velocity",), even=True)
    with pytest.raises(InputError, match="channels"):
        NetBridge(Still(3), path)(x, 0.5)


def test_without_noise_both_ends_agree_whatever_the_network_says() -> None:
    class Loud(nn.Module):
        def forward(self, x: Tensor, level: Tensor, parts: Any) -> Tensor:
            return 3 * x.sin() + level[:, None]

    bridge, x = NetBridge(Loud(), Linear(), 0.5, 2.0), torch.randn(6, 2, generator=seeded())
    for t in (0.0, 0.1, 0.7, 1.0):
        ends, stage = bridge(x, t), Linear().at(t)
        assert torch.allclose(stage.alpha * ends.read("x0") + stage.beta * ends.read("x1"), x, atol=1e-5)


def test_every_objective_is_made_and_says_what_it_wants() -> None:
    for name, made in BRIDGE_OBJECTIVES.items():
        assert made().settled(Brownian(1.0) if name != "reflow" else Linear(), False), name
    assert Matching().settled(Linear(), True) == Matching("paired")
    assert Matching().settled(Linear(), False) == Matching("optimal")
    x = torch.randn(4, 2, generator=seeded())
    for given in (None, Condition({SOURCE: torch.full((4, 2), torch.nan)})):
        with pytest.raises(InputError, match="starts from rows"):
            Matching("independent")(NetBridge(Still(2), Linear()), x, given, seeded())
    for wrong in ({"pool": 0}, {"pause": 0}, {"coupling": "none"}, {"cut": 0.6}):
        with pytest.raises(InputError):
            Fitting(**wrong)
    with pytest.raises(InputError, match="diffusion"):
        Matching("entropic").settled(Linear(), False)


def test_fitting_keeps_the_data_on_one_side_of_every_pair() -> None:
    """What teaches the way to the target has its rows at x_0, and a walked row at x_1; the weights stay their own."""
    net = Affine(4)
    bridge = NetBridge(net, Brownian(0.8))
    data = [torch.randint(100, (16, 2), generator=seeded(i)).float() for i in range(2)]  # whole numbers: data
    taught = Fitting(first=2, pool=40, pause=2, walk=2, horizon=1)
    memory = taught.memory(bridge, data[0])
    before = {name: weight.detach().clone() for name, weight in net.named_parameters()}
    for step in range(6):
        loss = taught(bridge, data[0], {SOURCE: data[1]}, seeded(step), memory)
        assert loss.shape == (16,)
        assert loss.requires_grad
        whole = {name: bool((pool[:32] == pool[:32].round()).all()) for name, pool in memory.items() if "." in name}
        assert whole["up.x0"]
        assert whole["down.x1"]
        assert whole["up.x1"] == whole["down.x0"] == (step < 2)
    assert int(memory["steps"]) == 6
    assert all(torch.equal(weight, before[name]) for name, weight in net.named_parameters())
    # the first rows of the loss are of pairs that were walked up, and teach what goes down; the others the rest
    for rows, silent in ((slice(0, 8), slice(2, 4)), (slice(8, 16), slice(0, 2))):
        taught_by = torch.autograd.grad(loss[rows].sum(), net.map.weight, retain_graph=True)[0]
        assert not taught_by[silent].any()
        assert taught_by.any()
    # the ring: 32 rows of the first steps, then 16 at steps 4 and 6, where there is room and round again
    taught(bridge, data[0], {SOURCE: data[1]}, seeded(6), memory)
    assert bool(memory["up.x0"].any(1).all())
    # a walker that is another network than the one that is taught walks by its own weights
    still = Fitting(first=1, pool=16, pause=1, walk=1, every=50, horizon=1, both=False)
    other = Affine(2)
    line = NetBridge(other, Linear())
    kept = still.memory(line, data[0])
    for _ in range(2):
        still(line, data[0], {SOURCE: data[1]}, seeded(), kept)
    wanted = translate(line, data[1], steps=1, seed=0)
    with torch.no_grad():
        other.map.weight += 5.0
    still(line, data[0], {SOURCE: data[1]}, seeded(), kept)
    assert torch.allclose(kept["down.x0"], wanted)


@pytest.mark.parametrize("preset", ["schrodinger", "bridge"])
def test_a_killed_run_goes_on_bit_for_bit(preset: str, tmp_path: Path) -> None:
    changes = [*TINY, "training.checkpoint_every=4", "training.warmup=2", "training.log_every=1"]
    if preset == "schrodinger":
        changes += ["objective.first=3", "objective.pool=100", "objective.pause=2", "objective.walk=2"]
    whole = trained(tmp_path / "whole", preset, *changes, "training.steps=10")
    asked = Experiment.read(preset, [*changes, "training.steps=10"])
    for moment in train(asked, tmp_path / "killed", draws=False):
        if moment.progress.step >= 6:
            break
    assert moment.progress.step == 6  # two steps beyond what was saved
    steps = [moment.progress.step for moment in train(asked, tmp_path / "killed", resume=True, draws=False)]
    assert steps[0] <= 6
    other = Run.load(tmp_path / "killed")
    for (name, a), b in zip(whole.model.net.state_dict().items(), other.model.net.state_dict().values(), strict=True):
        assert torch.equal(a, b), name


def test_a_trained_run_is_the_schrodinger_bridge_of_two_gaussians(tmp_path: Path) -> None:
    """In a few seconds, in one dimension: marginals, drift and pairs beside the closed form, and far from no bridge."""
    noise, laws = 0.7, (torch.tensor([-1.0]), torch.tensor([[0.3]]), torch.tensor([1.0]), torch.tensor([[2.0]]))
    for name, mean, cov in (("target", *laws[:2]), ("source", *laws[2:])):
        rows = mean + cov.sqrt() * torch.randn(20_000, 1, generator=seeded(len(name)))
        np.save(tmp_path / f"{name}.npy", rows.numpy())
    ends = [f"data.{name}={tmp_path / name}.npy" for name in ("source", "target")]
    run = trained(
        tmp_path / "run", "schrodinger", *ends, *TINY[:2], "training.batch_size=256", f"process.noise={noise}",
        "training.steps=500", "training.lr=5e-3", "objective.first=50",
        "training.validate_every=1000000", "net.width=32", "objective.horizon=50",
    )  # fmt: skip
    shift, scale = float(run.transform.shift[0]), float(run.transform.scale)  # type: ignore[attr-defined]
    mean0, cov0, mean1, cov1 = (law.double() for law in laws)
    moved = ((mean0 - shift) / scale, cov0 / scale**2, (mean1 - shift) / scale, cov1 / scale**2)
    exact = GaussianBridge.schrodinger(*moved, Brownian(noise))
    z = torch.randn(4000, 1, generator=seeded(9), dtype=F64)
    for down in (True, False):
        way, true = (bridge if down else bridge.reversed() for bridge in (run.model, exact))
        start = exact.mean(float(down)) + exact.covariance(float(down)).sqrt() * z
        grid = [1.0, 0.9, 0.7, 0.5, 0.3, 0.1, 0.05, 0.02, 0.0]
        found = list(crossing(way, start.float(), grid=grid, seed=1))
        wanted = list(crossing(true, start, grid=grid, seed=1))
        for a, b in zip(found, wanted, strict=True):
            assert float((a.x.mean() - b.x.mean()).abs() / b.x.std()) < 0.08
            assert float(a.x.double().var() / b.x.var()) == pytest.approx(1, abs=0.12)
        pairs = [float((state.x.double() * (start - start.mean())).mean()) for state in (found[-1], wanted[-1])]
        assert pairs[0] == pytest.approx(pairs[1], rel=0.12)
    loose = GaussianBridge(GaussianCoupling.independent(*moved), Brownian(noise))
    assert drifts_apart(run.model, exact) < 0.13
    assert drifts_apart(loose, exact) > 0.2  # what it was taught by at first


def drifts_apart(bridge: Bridge, exact: GaussianBridge) -> float:
    """How far the drifts of a bridge are from the exact ones, at three times, as a share of how these vary."""
    off = size = 0.0
    for t in (0.2, 0.5, 0.8):
        x = exact.mean(t) + exact.covariance(t).sqrt() * torch.linspace(-2, 2, 41, dtype=F64)[:, None]
        for reading in ("up", "down"):
            found, wanted = (one(x, t).read(reading) for one in (bridge, exact))
            off += float((found - wanted).square().sum())
            size += float((wanted - wanted.mean()).square().sum())
    return math.sqrt(off / size)


def test_the_energy_of_a_straight_way_is_its_squared_length() -> None:
    mean = torch.tensor([3.0, -1.0], dtype=F64)
    eye = torch.eye(2, dtype=F64)
    exact = GaussianBridge(GaussianCoupling.entropic(0 * mean, eye, mean, eye, 0.0), Linear())
    x = mean + torch.randn(200, 2, generator=seeded(), dtype=F64)
    assert torch.allclose(path_energy(exact, x, steps=7), torch.full((200,), 10.0, dtype=F64))
    # with noise: the closed form of the mean, which is more than any straight way
    noisy = GaussianBridge.schrodinger(0 * mean, 0.2 * eye, mean, 2 * eye, Brownian(1.5))
    times, energy = torch.linspace(0.005, 0.995, 100, dtype=F64), 0.0
    for t in times.tolist():
        (slope, offset), cov = noisy.affine("velocity", t), noisy.covariance(t)
        energy += float((slope @ noisy.mean(t) + offset).square().sum() + (slope @ cov @ slope.mT).trace()) / 100
    rows = mean + 2**0.5 * torch.randn(4000, 2, generator=seeded(), dtype=F64)
    assert float(path_energy(noisy, rows, steps=60, seed=1).mean()) == pytest.approx(energy, rel=0.03)
    assert energy > 10 + 2 * (2**0.5 - 0.2**0.5) ** 2  # the squared distance of the two
    points = torch.randn(50, 2, generator=seeded(1))
    order = torch.randperm(50, generator=seeded(2))
    assert Wasserstein()(points, points[order], seeded()) == pytest.approx(0, abs=1e-6)
    assert Wasserstein()(points, points[order] + torch.tensor([3.0, 4.0]), seeded()) == pytest.approx(5, rel=1e-5)


# -- the verbs ---------------------------------------------------------------------------------------------------------


def test_samples_are_carried_from_the_source(moons: Run, cli: Cli, tmp_path: Path) -> None:
    found = cli("sample", moons.folder, "-n", 30, "--out", tmp_path / "drawn.npz")
    assert found.code == 0, found.err
    with np.load(tmp_path / "drawn.npz") as arrays:
        source, samples = arrays["source"], arrays["samples"]
    held_out = moons.load_data().far.test.numpy()  # type: ignore[union-attr]
    assert np.allclose(source, held_out[:30], atol=1e-5)
    again = translate(moons.model, moons.transform.forward(torch.tensor(source)), steps=4, seed=0)
    assert np.allclose(moons.transform.inverse(again).numpy(), samples, atol=1e-4)
    for words in (["--scale", "2"], ["--grid", "karras"], ["--label", "0"]):
        refused = cli("sample", moons.folder, *words, "--out", tmp_path / "no.npz")
        assert (refused.code, len(refused.err.strip().splitlines())) == (2, 1), refused.err


def test_translate_carries_over_and_back_row_by_row(moons: Run, cli: Cli, tmp_path: Path) -> None:
    rows = np.random.default_rng(0).normal(size=(20, 2)).astype(np.float32)
    np.save(tmp_path / "rows.npy", rows)
    np.save(tmp_path / "few.npy", rows[7:9])
    for name, words in (("over", []), ("back", ["--back"]), ("few", ["--input", tmp_path / "few.npy"])):
        found = cli(
            "translate", moons.folder, "--input", tmp_path / "rows.npy", *words, "--out", tmp_path / f"{name}.npz"
        )
        assert found.code == 0, found.err
    over, back, few = (dict(np.load(tmp_path / f"{name}.npz")) for name in ("over", "back", "few"))
    assert np.allclose(over["source"], rows, atol=1e-5)
    x = moons.transform.forward(torch.tensor(rows))
    for way, kept in ((moons.model, over), (moons.model.reversed(), back)):
        wanted = moons.transform.inverse(translate(way, x, steps=4, seed=0)).numpy()
        assert np.allclose(wanted, kept["samples"], atol=1e-4)
    assert not np.allclose(over["samples"], back["samples"], atol=0.1)
    assert np.allclose(few["samples"], over["samples"][7:9], atol=1e-4)  # no noise on this path: alone or in company
    told: list[tuple[int, int]] = []
    carry(moons, x, steps=3, progress=lambda *said: told.append(said))
    assert told == [(0, 3), (1, 3), (2, 3), (3, 3)]
    found = cli("translate", moons.folder, "-i", tmp_path / "rows.npy", "-o", tmp_path / "way.png", "--film")
    assert found.code == 0, found.err
    assert Image.open(tmp_path / "way.gif").n_frames == 5  # type: ignore[attr-defined]
    np.save(tmp_path / "wide.npy", rows.repeat(2, 1))
    np.save(tmp_path / "holes.npy", np.where(rows > 1, np.nan, rows))
    for words, word in (
        (["-i", tmp_path / "wide.npy", "-o", tmp_path / "x.npz"], "shape 4"),
        (["-i", tmp_path / "holes.npy", "-o", tmp_path / "x.npz"], "complete rows"),
        (["-i", tmp_path / "none.npy", "-o", tmp_path / "x.npz"], "not a file"),
        (["-i", tmp_path / "rows.npy", "-o", tmp_path / "x.txt"], ".npz"),
        (["-i", tmp_path / "rows.npy", "-o", tmp_path / "folder"], "folder of pictures"),
        (["-i", tmp_path / "rows.npy", "-o", tmp_path / "over.npz"], "--force"),
        (["-i", tmp_path / "rows.npy", "-o", tmp_path / "x.npz", "--stepper", "ddim"], "stepper"),
    ):
        refused = cli("translate", moons.folder, *words)
        assert refused.code == 2
        assert word in refused.err, refused.err


def test_pictures_are_carried_one_by_one_into_a_folder(cli: Cli, tmp_path: Path, run: Path) -> None:
    made = trained(
        tmp_path / "run", "deblur", "net.channels=16", "training.steps=3", "training.batch_size=8", "sampling.steps=2",
        "training.validate_every=1000000",
    )  # fmt: skip
    folder = pictures(tmp_path / "in", 8, count=3)
    found = cli("translate", made.folder, "--input", folder, "--out", tmp_path / "carried")
    assert found.code == 0, found.err
    assert sorted(place.name for place in (tmp_path / "carried").iterdir()) == ["0.png", "1.png", "2.png"]
    alone = cli("translate", made.folder, "--input", folder / "0.png", "--out", tmp_path / "one.png")
    assert alone.code == 0, alone.err
    first, one = (np.asarray(Image.open(place)) for place in (tmp_path / "carried" / "0.png", tmp_path / "one.png"))
    assert first.shape == (8, 8)
    assert np.abs(first.astype(int) - one.astype(int)).max() <= 1  # a row does not depend on its batch
    assert cli("translate", made.folder, "--input", folder, "--out", tmp_path / "carried").code == 2
    refused = cli("translate", run, "--input", folder, "--out", tmp_path / "x.png")
    assert "no bridge" in refused.err


@pytest.mark.usefixtures("brief_reports")
def test_an_evaluation_says_how_far_and_at_what_cost(moons: Run, cli: Cli) -> None:
    found = cli("evaluate", moons.folder, "-n", 60)
    assert found.code == 0, found.err
    kept = json.loads((moons.folder / "evaluation.json").read_text())
    data = moons.load_data()
    far, near = data.transform.forward(data.far.test), data.transform.forward(data.test)  # type: ignore[union-attr]
    assert kept["transport"] == pytest.approx(Wasserstein()(far, near, seeded()) ** 2)
    assert kept["wasted"] == pytest.approx((kept["path_energy"] - kept["transport"]) / kept["transport"])
    score = kept["rows"]["wasserstein"]
    drawn = moons.draw(60, condition=moons.examples(60), seed=0)
    assert score["value"] == pytest.approx(Wasserstein()(drawn, near, seeded()), rel=0.3)
    assert score["floor"] < score["value"]
    assert "Path energy" in found.out
    assert (moons.folder / "report.html").is_file()


def test_a_bridge_is_judged_by_both_ends(moons: Run) -> None:
    data = moons.load_data()
    x0 = data.transform.forward(data.test)
    still = dataclasses.replace(moons.model, net=Still(2))
    judged = moons.learner.judge(still, x0, data.test_condition)
    guess = Guess.at(Linear().at(0.5), moons.model.near, moons.model.far)
    assert guess.out0 > 0
    assert moons.learner.judge(moons.model, x0, data.test_condition).value < judged.value
    assert moons.learner.judge(moons.model, x0, data.test_condition) == moons.learner.judge(
        moons.model, x0, data.test_condition
    )
