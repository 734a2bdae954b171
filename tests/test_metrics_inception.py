"""FID's Inception: what it sees, against its layers written out one by one; and what is no such network."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from sure import Cli
from torch import Tensor
from torch.nn import functional as F

from ornstein.errors import InputError
from ornstein.experiment.evidence import looks, weights_of
from ornstein.experiment.run import Run
from ornstein.experiment.wording import MEASURED_IN
from ornstein.metrics import inception

#: of each convolution: channels out, in, and the kernel's sides; "m" stands for those inside of the blocks 6b to 6e
STEM = {"1a_3x3": (32, 3, 3, 3), "2a_3x3": (32, 32, 3, 3), "2b_3x3": (64, 32, 3, 3), "3b_1x1": (80, 64, 1, 1),
        "4a_3x3": (192, 80, 3, 3)}  # fmt: skip


def of_a(c: int, pool: int) -> dict[str, tuple[int, ...]]:
    return {"branch1x1": (64, c, 1, 1), "branch5x5_1": (48, c, 1, 1), "branch5x5_2": (64, 48, 5, 5),
            "branch3x3dbl_1": (64, c, 1, 1), "branch3x3dbl_2": (96, 64, 3, 3), "branch3x3dbl_3": (96, 96, 3, 3),
            "branch_pool": (pool, c, 1, 1)}  # fmt: skip


def of_c(m: int) -> dict[str, tuple[int, ...]]:
    return {"branch1x1": (192, 768, 1, 1), "branch7x7_1": (m, 768, 1, 1), "branch7x7_2": (m, m, 1, 7),
            "branch7x7_3": (192, m, 7, 1), "branch7x7dbl_1": (m, 768, 1, 1), "branch7x7dbl_2": (m, m, 7, 1),
            "branch7x7dbl_3": (m, m, 1, 7), "branch7x7dbl_4": (m, m, 7, 1), "branch7x7dbl_5": (192, m, 1, 7),
            "branch_pool": (192, 768, 1, 1)}  # fmt: skip


def of_e(c: int) -> dict[str, tuple[int, ...]]:
    forks = {f"branch3x3{dbl}a": (384, 384, 1, 3) for dbl in ("_2", "dbl_3")}
    forks |= {f"branch3x3{dbl}b": (384, 384, 3, 1) for dbl in ("_2", "dbl_3")}
    return {"branch1x1": (320, c, 1, 1), "branch3x3_1": (384, c, 1, 1), "branch3x3dbl_1": (448, c, 1, 1),
            "branch3x3dbl_2": (384, 448, 3, 3), "branch_pool": (192, c, 1, 1), **forks}  # fmt: skip


BLOCKS: dict[str, dict[str, tuple[int, ...]]] = {
    "5b": of_a(192, 32), "5c": of_a(256, 64), "5d": of_a(288, 64),
    "6a": {"branch3x3": (384, 288, 3, 3), "branch3x3dbl_1": (64, 288, 1, 1), "branch3x3dbl_2": (96, 64, 3, 3),
           "branch3x3dbl_3": (96, 96, 3, 3)},
    "6b": of_c(128), "6c": of_c(160), "6d": of_c(160), "6e": of_c(192),
    "7a": {"branch3x3_1": (192, 768, 1, 1), "branch3x3_2": (320, 192, 3, 3), "branch7x7x3_1": (192, 768, 1, 1),
           "branch7x7x3_2": (192, 192, 1, 7), "branch7x7x3_3": (192, 192, 7, 1), "branch7x7x3_4": (192, 192, 3, 3)},
    "7b": of_e(1280), "7c": of_e(2048),
}  # fmt: skip


@pytest.fixture(scope="module")
def kept() -> dict[str, Tensor]:
    """Weights by the names of the file, at random."""
    dice, found = torch.Generator().manual_seed(0), {"fc.weight": torch.zeros(1008, 2048), "fc.bias": torch.zeros(1008)}
    shapes: dict[str, tuple[int, ...]] = {f"Conv2d_{name}": shape for name, shape in STEM.items()}
    shapes |= {f"Mixed_{block}.{name}": shape for block, each in BLOCKS.items() for name, shape in each.items()}
    for name, shape in shapes.items():
        width = shape[1] * shape[2] * shape[3]
        found[f"{name}.conv.weight"] = torch.randn(shape, generator=dice) * (2 / width) ** 0.5
        for part in ("weight", "bias", "running_mean", "running_var"):
            found[f"{name}.bn.{part}"] = 0.5 + torch.rand(shape[0], generator=dice)
    return found


def written_out(kept: dict[str, Tensor], x: Tensor) -> Tensor:
    """The network line by line, with its normalisations as they are."""

    def conv(name: str, x: Tensor, stride: int = 1, pad: Any = 0) -> Tensor:
        x = F.conv2d(x, kept[f"{name}.conv.weight"], None, stride, pad)
        mean, variance, gain, bias = (
            kept[f"{name}.bn.{part}"] for part in ("running_mean", "running_var", "weight", "bias")
        )
        return F.batch_norm(x, mean, variance, gain, bias, eps=1e-3).relu()

    def mean(x: Tensor) -> Tensor:  # of those that are inside
        return F.avg_pool2d(x, 3, 1, 1) / F.avg_pool2d(torch.ones_like(x), 3, 1, 1)

    x = conv("Conv2d_2b_3x3", conv("Conv2d_2a_3x3", conv("Conv2d_1a_3x3", x, 2)), 1, 1)
    x = conv("Conv2d_4a_3x3", conv("Conv2d_3b_1x1", F.max_pool2d(x, 3, 2)))
    x = F.max_pool2d(x, 3, 2)
    for b in ("Mixed_5b.branch", "Mixed_5c.branch", "Mixed_5d.branch"):
        five = conv(b + "5x5_2", conv(b + "5x5_1", x), 1, 2)
        three = conv(b + "3x3dbl_3", conv(b + "3x3dbl_2", conv(b + "3x3dbl_1", x), 1, 1), 1, 1)
        x = torch.cat([conv(b + "1x1", x), five, three, conv(b + "_pool", mean(x))], 1)
    b = "Mixed_6a.branch"
    three = conv(b + "3x3dbl_3", conv(b + "3x3dbl_2", conv(b + "3x3dbl_1", x), 1, 1), 2)
    x = torch.cat([conv(b + "3x3", x, 2), three, F.max_pool2d(x, 3, 2)], 1)
    flat, tall = (0, 3), (3, 0)
    for b in ("Mixed_6b.branch", "Mixed_6c.branch", "Mixed_6d.branch", "Mixed_6e.branch"):
        seven = conv(b + "7x7_3", conv(b + "7x7_2", conv(b + "7x7_1", x), 1, flat), 1, tall)
        twice = conv(b + "7x7dbl_3", conv(b + "7x7dbl_2", conv(b + "7x7dbl_1", x), 1, tall), 1, flat)
        twice = conv(b + "7x7dbl_5", conv(b + "7x7dbl_4", twice, 1, tall), 1, flat)
        x = torch.cat([conv(b + "1x1", x), seven, twice, conv(b + "_pool", mean(x))], 1)
    b = "Mixed_7a.branch"
    seven = conv(b + "7x7x3_3", conv(b + "7x7x3_2", conv(b + "7x7x3_1", x), 1, flat), 1, tall)
    x = torch.cat([conv(b + "3x3_2", conv(b + "3x3_1", x), 2), conv(b + "7x7x3_4", seven, 2), F.max_pool2d(x, 3, 2)], 1)
    for b in ("Mixed_7b.branch", "Mixed_7c.branch"):
        one, two = conv(b + "3x3_1", x), conv(b + "3x3dbl_2", conv(b + "3x3dbl_1", x), 1, 1)
        forks = [conv(b + "3x3_2a", one, 1, (0, 1)), conv(b + "3x3_2b", one, 1, (1, 0)),
                 conv(b + "3x3dbl_3a", two, 1, (0, 1)), conv(b + "3x3dbl_3b", two, 1, (1, 0))]  # fmt: skip
        pooled = mean(x) if "7b" in b else F.max_pool2d(x, 3, 1, 1)
        x = torch.cat([conv(b + "1x1", x), *forks, conv(b + "_pool", pooled)], 1)
    return x


def close(found: Tensor, wanted: Tensor) -> bool:
    return float((found - wanted).abs().max()) < 1e-4 * float(wanted.abs().max())


@torch.no_grad()
def test_it_sees_what_its_layers_written_out_see(kept: dict[str, Tensor]) -> None:
    network = inception.Network.of(kept)
    assert len(network.layers) == 94
    x = torch.rand(2, 3, 139, 139, generator=torch.Generator().manual_seed(1)) * 2 - 1
    found, wanted = network.seen(x), written_out(kept, x)
    assert found.shape == (2, 2048, 3, 3)
    assert close(found, wanted)
    assert network.seen(torch.zeros(1, 3, 299, 299)).shape == (1, 2048, 8, 8)  # as in the paper's table


@torch.no_grad()
def test_pictures_are_resized_without_a_filter_and_grey_ones_are_coloured(
    kept: dict[str, Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(inception, "_SIDE", 75)
    network = inception.Network.of(kept)
    x = torch.rand(2, 1, 150, 150, generator=torch.Generator().manual_seed(1)) * 2 - 1
    # bilinear, to half the side: each place is the mean of the four that it covers
    halved = x.unflatten(2, (75, 2)).unflatten(4, (75, 2)).mean((3, 5)).expand(-1, 3, -1, -1)
    wanted = network.seen(halved).mean((2, 3))
    see = inception.features(network, torch.device("cpu"))
    assert close(see(x), wanted)
    assert close(see(x[:1]), see(x)[:1])
    # an edge between two places is sharp at a quarter of the side, where a filter would blur it
    fine = (torch.arange(300) % 4 == 1).float().expand(1, 3, 300, 300) * 2 - 1
    assert close(see(fine), network.seen(torch.zeros(1, 3, 75, 75)).mean((2, 3)))


def test_what_are_not_its_weights_is_a_sentence(kept: dict[str, Tensor], tmp_path: Path) -> None:
    others = {**kept, "fc.weight": torch.zeros(1000, 2048)}
    lacks = {name: value for name, value in kept.items() if not name.startswith("Mixed_7c.branch_pool")}
    (tmp_path / "text.pth").write_text("not weights")
    torch.save({"fc.weight": Path("x")}, tmp_path / "objects.pth")
    for path, said in (
        (tmp_path / "nowhere.pth", "is not a file; give the file of FID's weights"),
        (tmp_path, "is a folder"),
        (tmp_path / "text.pth", "damaged or no file of plain tensors"),
        (tmp_path / "objects.pth", "damaged or no file of plain tensors"),
    ):
        with pytest.raises(InputError, match=said):
            weights_of(path)
    for given, said in ((others, "1,008 classes"), ([1], "1,008 classes"), (lacks, r"Mixed_7c\.branch_pool")):
        with pytest.raises(InputError, match=said):
            inception.Network.of(given)


def test_a_run_that_draws_no_pictures_has_no_fid() -> None:
    with pytest.raises(InputError, match=r"weights\.pth' sees pictures, and .*moons draws none"):
        looks(Run.load("moons"), Path("weights.pth"))


@pytest.mark.slow
def test_the_verb_measures_a_true_fid_of_as_many_samples_as_are_asked_for(
    kept: dict[str, Tensor], run: Path, tmp_path: Path, cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(inception, "_SIDE", 75)
    torch.save(kept, tmp_path / "weights.pth")
    shutil.copytree(run, tmp_path / "run")
    answer = cli("evaluate", tmp_path / "run", "-n", 60, "--steps", 2, "--inception", tmp_path / "weights.pth")
    assert answer.code == 0, answer
    rows = json.loads((tmp_path / "run" / "evaluation.json").read_text())["rows"]
    assert {f"{name} inception" for name in ("frechet", "kernel", "precision", "recall", "density", "coverage")} <= set(
        rows
    )
    assert (rows["frechet inception"]["on"], rows["frechet inception"]["size"]) == ("inception", 60)
    page = (tmp_path / "run" / "report.html").read_text("utf-8")
    assert MEASURED_IN["inception"] in page
