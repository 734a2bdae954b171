"""Distances in other features: by closed forms, and what EfficientNet-lite0 sees, where it is installed."""

from pathlib import Path

import numpy as np
import pytest
import torch
from sure import Cli
from torch import Tensor
from torch.nn import functional as F

from ornstein.errors import InputError
from ornstein.latent import NetCodec, Reconstruction
from ornstein.metrics import gaussian_frechet, lite, report
from ornstein.nets import Autoencoder


def eyes() -> lite.Network:
    """A network like EfficientNet-lite0, narrower, with random weights."""
    dice = torch.Generator().manual_seed(0)

    def layer(out: int, inp: int, side: int) -> lite.Layer:
        kernel = torch.randn(out, inp, side, side, generator=dice) / (inp * side**2) ** 0.5
        return kernel, 0.1 * torch.randn(out, generator=dice)

    widths, blocks = [16, *[(24, 40)[i % 2] for i in range(15)]], []
    for i, wide in enumerate(widths):
        inp = widths[i - 1] if i else 32
        expand = [layer(2 * inp, inp, 1)] if i else []
        work = 2 * inp if i else inp
        blocks.append([*expand, layer(work, 1, 3 + 2 * (i % 2)), layer(wide, work, 1)])
    return lite.Network(layer(32, 3, 3), blocks, layer(64, widths[-1], 1))


def gaussian(n: int, mean: Tensor, factor: Tensor, seed: int) -> Tensor:
    return mean + torch.randn(n, len(mean), generator=torch.Generator().manual_seed(seed)) @ factor.T


def test_the_frechet_distance_in_a_view_is_that_of_its_gaussians() -> None:
    """Of linear features of Gaussians, in closed form: (A m, A S A') against (A n, A R A')."""
    m, n = torch.tensor([3.0, 0.0, 1.5]), torch.zeros(3)
    s, r = torch.diag(torch.tensor([1.5, 0.5, 1.0])), torch.tensor([[1.0, 0, 0], [0.6, 0.8, 0], [0, 0, 1.0]])
    a = torch.tensor([[2.0, 4.0, 0.0], [0.0, -2.0, 1.0]])
    sets = gaussian(4000, m, s, 0), gaussian(4000, n, r, 1), gaussian(4000, n, r, 2)
    dice = torch.Generator().manual_seed(3)
    rows = report(*sets, dice, metrics=["frechet"], other_features={"eyes": lambda x: x @ a.T}).rows
    assert list(rows) == ["frechet", "frechet eyes"]
    exact = float(gaussian_frechet(a @ m, a @ s @ s.T @ a.T, a @ n, a @ r @ r.T @ a.T))
    assert rows["frechet eyes"].value == pytest.approx(exact, rel=0.15)  # of a thousand points
    assert rows["frechet eyes"].floor < 0.05 * exact
    assert (rows["frechet eyes"].on, rows["frechet"].on) == ("eyes", "data")
    assert rows["frechet eyes"].size == 1000


def test_a_normalisation_is_folded_into_the_convolution_before_it() -> None:
    dice = torch.Generator().manual_seed(0)
    kept = {
        f"n.{part}": torch.rand(5, generator=dice) + 0.5 for part in ("weight", "bias", "running_mean", "running_var")
    }
    kept["c.weight"] = torch.randn(5, 1, 3, 3, generator=dice)
    x = torch.randn(2, 5, 8, 7, generator=dice)
    # on a side of 8 a stride of 2 lacks one row, which stands at the end; on 7 it lacks two, one at each
    plain = F.conv2d(F.pad(x, (1, 1, 0, 1)), kept["c.weight"], stride=2, groups=5)
    mean, variance, gain, bias = (kept[f"n.{part}"] for part in ("running_mean", "running_var", "weight", "bias"))
    normed = F.batch_norm(plain, mean, variance, gain, bias, eps=1e-3)
    found = lite._same(x, lite.folded(kept, "c", "n"), 2, groups=5)
    assert found.shape == (2, 5, 4, 4)
    assert torch.allclose(found, normed, atol=1e-5)


def test_what_is_no_picture_and_no_weights_are_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError, match="1, 3 or 4 channels"):
        lite.in_colour(torch.zeros(2, 2, 8, 8))
    monkeypatch.setattr(lite, "_PACKAGE", "no_such_package")
    lite.installed.cache_clear()
    with pytest.raises(InputError, match=r"pip install 'ornstein\[images\]'"):
        lite.features()


def test_how_far_apart_two_pictures_look_is_an_angle_at_each_place() -> None:
    network, dice = eyes(), torch.Generator().manual_seed(1)
    x, y = (torch.rand(3, 3, 32, 32, generator=dice) * 2 - 1 for _ in range(2))
    assert [tuple(grid.shape[2:]) for grid in network.stages(x)] == [(16, 16), (8, 8), (4, 4), (2, 2), (1, 1)]
    pairs = zip(network.stages(x), network.stages(y), strict=True)
    # |u - v|^2 = 2 - 2 cos for unit vectors
    angles = [(2 - 2 * F.cosine_similarity(u, v, dim=1)).mean((1, 2)) for u, v in pairs]
    found = network.apart(x, y)
    assert found.shape == (3,)
    torch.testing.assert_close(found, torch.stack(angles).mean(0), rtol=1e-4, atol=1e-5)
    assert torch.equal(network.apart(x, x), torch.zeros(3))
    torch.testing.assert_close(network.apart(x[:1], y[:1]), found[:1])  # whatever else is in the batch
    grey, clear = x[:, :1].expand(-1, 3, -1, -1), torch.ones(3, 1, 32, 32)
    assert torch.equal(network.apart(x[:, :1], torch.cat([grey, clear], 1)), torch.zeros(3))


def test_a_codec_is_drawn_by_its_features_and_without_a_weight_needs_none(monkeypatch: pytest.MonkeyPatch) -> None:
    net = Autoencoder(factor=2, latent=2, channels=4).build((3, 16, 16))
    codec, x = NetCodec(net), torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(2)) * 2 - 1  # type: ignore[arg-type]

    def lost(weight: float) -> Tensor:
        found: Tensor = Reconstruction(features=weight)(codec, x, None, torch.Generator().manual_seed(3))
        return found

    monkeypatch.setattr(lite, "_PACKAGE", "no_such_package")
    lite.installed.cache_clear()
    plain = lost(0.0)
    with pytest.raises(InputError, match=r"objective.features=0.5, .* pip install 'ornstein\[images\]'"):
        lost(0.5)
    network = eyes()
    monkeypatch.setattr(lite, "installed", lambda device: network)
    back, *_ = net(x, torch.randn(2, *codec.latent, generator=torch.Generator().manual_seed(3)))
    torch.testing.assert_close(lost(0.5) - plain, 0.5 * network.apart(back, x))
    # what it adds pulls encoder and decoder, by the gradient of finite differences
    for weight in map(net.get_parameter, ("stem.weight", "out.weight")):
        (slope,) = torch.autograd.grad((lost(0.5) - lost(0.0)).sum(), weight)
        ends = []
        for step in (0.005, -0.01):
            with torch.no_grad():
                weight.add_(step * slope / slope.norm())
                ends.append(float((lost(0.5) - lost(0.0)).sum()))
        assert float(slope.norm()) > 0.01
        assert (ends[0] - ends[1]) / 0.01 == pytest.approx(float(slope.norm()), rel=0.05)


def test_what_are_no_pictures_have_no_features_and_no_weight_is_negative(cli: Cli, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"objective.features=-0.1 must be a weight"):
        Reconstruction(features=-0.1)
    path = tmp_path / "signals.npy"
    np.save(path, np.random.default_rng(0).normal(size=(40, 16, 2)))
    answer = cli(
        "train",
        "series",
        f"data.path={path}",
        "preset=autoencoder",
        "objective.features=0.1",
        "--out",
        tmp_path / "run",
    )
    assert answer.code == 2
    assert "objective.features=0.1" in answer.err
    assert "1, 3 or 4 channels" in answer.err


@pytest.mark.skipif(lite.weights_file() is None, reason="the extra ornstein[images] is not installed")
def test_the_network_sees_kinds_of_pictures_and_not_their_channels() -> None:
    dice = torch.Generator().manual_seed(0)
    ramp = torch.linspace(-1, 1, 24).expand(4, 1, 24, 24)
    smooth = (ramp + 0.1 * torch.randn(4, 1, 1, 1, generator=dice)).clamp(-1, 1)
    noise = torch.rand(4, 1, 24, 24, generator=dice) * 2 - 1
    features = lite.features()
    a, b, c = (features(x) for x in (smooth, smooth.transpose(2, 3), noise))
    assert a.shape == (4, 1280)
    assert float(torch.cdist(a, c).min()) > float(torch.cdist(a, b).max())
    clear = torch.cat([smooth.expand(-1, 3, -1, -1), torch.ones(4, 1, 24, 24)], 1)
    assert torch.equal(features(clear), a)
    assert torch.allclose(features(smooth[:1]), a[:1], atol=1e-4)  # whatever else is in the batch
