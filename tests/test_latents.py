"""Laws of codecs: a linear one changes nothing, bounds hold and close, latents have variance one, runs are whole."""

import json
import math
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sure import Cli, once
from torch import Tensor

import ornstein
from ornstein.core.clocks import VP
from ornstein.core.codec import Code, Codec
from ornstein.core.condition import Condition
from ornstein.core.drive import trajectory
from ornstein.core.exact import Gaussian, GaussianMixture
from ornstein.core.numerics import normal
from ornstein.data import Affine, Coded, WholeNumbers
from ornstein.data.coded import Encoded
from ornstein.errors import InputError
from ornstein.experiment.config import Experiment
from ornstein.experiment.folder import read_measured, read_weights
from ornstein.experiment.settle import drawing_precision
from ornstein.experiment.train import train
from ornstein.guidance import ClassifierFree, Mask, Measurement, PiGDM, ReadBack
from ornstein.latent import LinearCodec, NetCodec, Reconstruction
from ornstein.latent.objective import judged
from ornstein.laws.oracles import Louder
from ornstein.likelihood import log_likelihood
from ornstein.metrics.reconstruction import psnr, ssim
from ornstein.nets import Autoencoder
from ornstein.nets.patches import Patches
from ornstein.samplers import STEPPERS

F64 = torch.float64
SHAPE, LATENT = (1, 2, 2), (4, 1, 1)


def dice(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def turned(scale: float) -> LinearCodec:
    """A rotation of four pixels into four channels, times a number."""
    q = torch.linalg.qr(torch.randn(4, 4, generator=dice(), dtype=F64)).Q
    return LinearCodec(scale * q, SHAPE, LATENT)


def mixture(codec: LinearCodec | None = None) -> GaussianMixture:
    """Two bumps of pixels; or the same as a codec tells them."""
    g = dice(2)
    means, root = torch.randn(2, 4, generator=g, dtype=F64), torch.randn(2, 4, 4, generator=g, dtype=F64) / 2
    covariances = root @ root.mT + 0.1 * torch.eye(4, dtype=F64)
    if codec is None:
        return GaussianMixture(torch.tensor([0.3, 0.7]), means.reshape(2, *SHAPE), covariances)
    matrix = codec.matrix
    if codec.centre is not None:
        means = means - codec.centre
    covariances = matrix @ covariances @ matrix.T
    covariances = (covariances + covariances.mT) / 2
    return GaussianMixture(torch.tensor([0.3, 0.7]), (means @ matrix.T).reshape(2, *LATENT), covariances)


@pytest.mark.parametrize("stepper", ["ddim", "heun", "unipc"])
@pytest.mark.parametrize("way", ["plain", "guided", "measured"])
def test_in_the_latents_of_a_linear_codec_all_is_as_in_pixels(stepper: str, way: str) -> None:
    """Every state of the same noise, told by the codec; guided by labels, and by a measurement through the decoder."""
    codec, clock = turned(0.37), VP()
    pixels: Any = mixture().denoiser(clock)
    latents: Any = mixture(codec).denoiser(Louder(clock, 0.37))
    label = Condition.of(torch.tensor([0, 1, 1, -1]))
    mask = Mask(torch.tensor([True, False, True, True]).reshape(SHAPE))
    y = torch.tensor([0.5, 0.0, -1.0, 0.2], dtype=F64).reshape(1, *SHAPE)
    if way == "guided":
        pixels, latents = (ClassifierFree(one, scale=2.5) for one in (pixels, latents))
    if way == "measured":
        pixels = PiGDM(pixels, Measurement(mask, y, 0.3))
        latents = PiGDM(latents, Measurement(ReadBack(mask, codec), y, 0.3))
    x = normal(torch.arange(4), SHAPE, 0).double() * float(clock.at(1.0).sigma)
    how: dict[str, Any] = {"steps": 6, "dtype": F64, "condition": label, "seed": 0}
    own = list(trajectory(pixels, (4, *SHAPE), STEPPERS[stepper](), x=x, **how))
    told = list(trajectory(latents, (4, *LATENT), STEPPERS[stepper](), x=codec.tell(x).mean, **how))
    assert len(own) == len(told) == 7
    for one, other in zip(own, told, strict=True):
        torch.testing.assert_close(codec.read(other.x), one.x, rtol=1e-8, atol=1e-8)
    assert own[-1].x.std() > 0.3


def test_a_likelihood_through_any_invertible_map_is_that_of_the_pixels() -> None:
    """With its log-determinant, and that of the data's own units; no rotation is needed."""
    matrix = torch.randn(4, 4, generator=dice(5), dtype=F64)
    codec = LinearCodec(matrix, SHAPE, LATENT, torch.tensor([0.3, -1.0, 0.1, 0.5], dtype=F64))
    transform = Coded(Affine(2.0, 3.0), codec, LATENT)
    x = mixture().sample(6, dice(1)).double()
    found = log_likelihood(mixture(codec).denoiser(VP()), 3 * x + 2, transform=transform, tolerance=1e-3)
    expected = mixture().log_prob(x) - 4 * math.log(3)
    torch.testing.assert_close(found.log_prob, expected, rtol=0, atol=2e-3)
    assert found.dims == 4


class Bent(Codec):
    """One number of two: the mean of x's, with a spread; back to both by a curve."""

    shape, latent, spread = (1, 2), (1, 1), 0.25

    def tell(self, x: Tensor) -> Code:
        mean = (0.5 * x[..., :1] + x[..., 1:]).clamp(-1.5, 1.5)
        return Code(mean, torch.full_like(mean, 0.8))  # wider than the posterior, so that many draws settle

    def read(self, z: Tensor) -> Tensor:
        return torch.cat([z.sin(), 0.5 * z], -1)


def by_quadrature(x: Tensor, scale: float, levels: int | None) -> Tensor:
    """log p(x), (B,), by a sum over latents: x in model space."""
    z = torch.linspace(-8, 8, 4001, dtype=F64)
    back = Bent().read(z[:, None, None])[None, :, 0]
    away = x.reshape(-1, 1, 2) - back
    if levels is None:
        each = torch.exp(-away.abs() / scale) / (2 * scale)
    else:
        half = 1 / (levels - 1)

        def below(u: Tensor) -> Tensor:  # the Laplace law's distribution function
            return torch.where(u < 0, 0.5 * (u / scale).exp(), 1 - 0.5 * (-u / scale).exp())

        low = torch.where(x.reshape(-1, 1, 2) <= -1 + 1e-6, 0.0, below(away - half))
        high = torch.where(x.reshape(-1, 1, 2) >= 1 - 1e-6, 1.0, below(away + half))
        each = high - low
    prior = torch.exp(-0.5 * z.square()) / math.sqrt(2 * math.pi)
    return (each.prod(-1) * prior * (z[1] - z[0])).sum(1).log()


@pytest.mark.parametrize("levels", [None, 4])
def test_the_bound_through_an_encoder_lies_below_and_closes_as_draws_grow(levels: int | None) -> None:
    """Beside quadrature, for densities and for the probabilities of levels, which add up to one."""
    base = Affine(0.0, 2.0) if levels is None else WholeNumbers(levels)
    places = [-2.0, -0.4, 0.3, 1.1] if levels is None else [float(k) for k in range(levels)]
    x = torch.cartesian_prod(torch.tensor(places), torch.tensor(places)).reshape(-1, 1, 2)
    exact = by_quadrature(base.forward(x.double()), Bent.spread, levels)
    if levels is None:
        exact = exact - 2 * math.log(2.0)
    else:
        assert float(exact.exp().sum()) == pytest.approx(1, abs=1e-9)
    denoiser = Gaussian(torch.zeros(1, 1), 1.0).denoiser(VP())
    transform = Coded(base, Bent(), (1, 1))
    one, many = (log_likelihood(denoiser, x, transform=transform, draws=k, tolerance=1e-2) for k in (1, 25))
    assert float((one.log_prob - exact).mean()) < -0.05  # one draw is a bound on average
    off = many.log_prob - exact
    assert abs(float(off.mean())) < 0.15
    assert bool((off.abs() < 4 * many.standard_error + 0.05).all())


def test_what_is_no_law_of_latents_has_no_bound() -> None:
    class Still(Bent):
        def tell(self, x: Tensor) -> Code:
            code = super().tell(x)
            return Code(code.mean, torch.zeros_like(code.std))

    denoiser = Gaussian(torch.zeros(1, 1), 1.0).denoiser(VP())
    with pytest.raises(InputError, match="codebook"):
        log_likelihood(denoiser, torch.zeros(2, 1, 2), transform=Coded(Affine(), Still(), (1, 1)))
    with pytest.raises(InputError, match="dequantise"):
        log_likelihood(
            denoiser, torch.zeros(2, 1, 2), transform=Coded(WholeNumbers(4), Bent(), (1, 1)), dequantise="uniform"
        )


@pytest.mark.parametrize(("shape", "factor"), [((1, 8, 8), 2), ((3, 7, 10), 4), ((2, 9), 4), ((1, 4, 5, 6), 2)])
def test_an_autoencoder_takes_any_grid(shape: tuple[int, ...], factor: int) -> None:
    config = Autoencoder(factor=factor, latent=3, channels=4)
    net = config.build(shape, seed=1)
    x = torch.randn(4, *shape, generator=dice())
    codec = NetCodec(net, shift=(0.5, -1.0, 2.0), scale=(0.1, 2.0, 3.0))  # type: ignore[arg-type]
    code = codec.tell(x)
    assert codec.latent == (3, *(math.ceil(n / factor) for n in shape[1:]))
    assert code.mean.shape == code.std.shape == (4, *codec.latent)
    assert codec.read(code.mean).shape == x.shape
    plain = NetCodec(net)  # type: ignore[arg-type]
    torch.testing.assert_close(codec.read(code.mean), plain.read(plain.tell(x).mean), rtol=1e-4, atol=1e-5)
    lone = torch.cat([codec.tell(one[None]).mean for one in x])
    torch.testing.assert_close(lone, code.mean, rtol=1e-4, atol=1e-5)
    assert all(p.grad is None for p in net.parameters())
    Reconstruction()(plain, x, None, dice()).sum().backward()
    silent = [name for name, p in net.named_parameters() if p.grad is None]
    assert not silent


def test_a_codebook_reads_back_its_nearest_vector_and_all_vectors_learn() -> None:
    net: Any = Autoencoder(factor=2, latent=2, channels=4, codebook=5).build((1, 4, 4))
    codec = NetCodec(net)
    z = torch.randn(3, 2, 2, 2, generator=dice())
    apart = (z.movedim(1, -1)[..., None, :] - net.book).square().sum(-1)
    nearest = net.book[apart.argmin(-1)].movedim(-1, 1)
    assert torch.equal(net.nearest(z), nearest)
    assert torch.equal(codec.read(z), net.decode(nearest))
    assert not bool(codec.tell(torch.zeros(1, 1, 4, 4)).std.any())
    x = torch.randn(8, 1, 4, 4, generator=dice(1))
    Reconstruction()(codec, x, None, dice()).mean().backward()
    assert bool((net.book.grad.abs().sum(1) > 0).all())
    assert bool(net.stem.weight.grad.any())  # through what stands for it


def test_the_divergence_and_the_absolute_error_are_what_is_weighed() -> None:
    net = Autoencoder(factor=2, latent=2, channels=4).build((1, 4, 4))
    codec, x = NetCodec(net), torch.randn(5, 1, 4, 4, generator=dice())  # type: ignore[arg-type]
    with torch.no_grad():
        plain, weighed = (Reconstruction(kl=kl)(codec, x, None, dice(3)) for kl in (0.0, 2.0))
        code = codec.tell(x)
        eps = torch.randn(5, *codec.latent, generator=dice(3))
        lost = (codec.read(code.drawn(eps)) - x).abs().flatten(1).mean(1)
    law = torch.distributions.Normal(code.mean, code.std)
    nats = torch.distributions.kl_divergence(law, torch.distributions.Normal(0.0, 1.0)).flatten(1).sum(1)
    torch.testing.assert_close(plain, lost)
    torch.testing.assert_close(weighed - plain, 2 * nats / 16, rtol=1e-4, atol=1e-5)


def test_a_judge_learns_by_the_hinge_and_pulls_the_codec_alone() -> None:
    class Brightness(torch.nn.Module):
        """Two patches, whose scores are known: the mean of each half, times a number that is learned."""

        def __init__(self) -> None:
            super().__init__()
            self.gain = torch.nn.Parameter(torch.tensor(0.5))

        def forward(self, x: Tensor) -> Tensor:
            scores: Tensor = self.gain * x.unflatten(-1, (2, -1)).mean((1, 2, 4))
            return scores

    judge = Brightness()
    real, made = torch.full((1, 1, 4, 4), 1.2), torch.full((1, 1, 4, 4), 0.4, requires_grad=True)
    found = judged(judge, real, made, 0.1)
    # max(0, 1 - 0.6) + max(0, 1 + 0.2) - 0.1 * 0.2
    assert found.tolist() == [pytest.approx(1.58, abs=1e-6)]
    found.sum().backward()
    assert made.grad is not None
    assert judge.gain.grad is not None
    torch.testing.assert_close(made.grad, torch.full((1, 1, 4, 4), -0.1 * 0.5 / 16))  # up, where it is thought real
    assert float(judge.gain.grad) == pytest.approx(-1.2 + 0.4)
    # of what is told beyond doubt there is nothing to learn, and the codec is still drawn
    far = torch.full((1, 1, 4, 4), -3.0, requires_grad=True)
    gradients = torch.autograd.grad(judged(judge, 2 * real, far, 0.1).sum(), (judge.gain, far))
    assert float(gradients[0]) == 0
    assert bool((gradients[1] < 0).all())


def test_similarity_and_decibels_by_hand() -> None:
    x = torch.rand(2, 3, 16, 13, generator=dice())
    torch.testing.assert_close(psnr(x, x + 0.1, 1.0), torch.full((2,), 20.0, dtype=F64), atol=1e-4, rtol=0)
    assert psnr(x, x, 1.0).isinf().all()
    torch.testing.assert_close(ssim(x, x, 1.0), torch.ones(2, dtype=F64))
    # of constants the structure is equal, and the brightness alone is compared
    a, b = torch.full((1, 1, 5, 5), 0.2), torch.full((1, 1, 5, 5), 0.6)
    expected = (2 * 0.2 * 0.6 + 1e-4) / (0.2**2 + 0.6**2 + 1e-4)
    assert float(ssim(a, b, 1.0)) == pytest.approx(expected, rel=1e-5)
    # of opposite patterns the covariance is minus the variance
    board = (-1.0) ** (torch.arange(16)[:, None] + torch.arange(16)).reshape(1, 1, 16, 16)
    assert float(ssim(board, -board, 2.0)) == pytest.approx(-1, abs=0.01)
    with pytest.raises(InputError, match="must be alike"):
        psnr(x, x[:1], 1.0)


def test_ssim_is_that_of_scikit_image() -> None:
    """Its formula by scipy's Gaussian filter, in truncated windows of 11 that lie within the picture."""
    from scipy.ndimage import gaussian_filter

    x, other = (torch.rand(2, 3, 20, 17, generator=dice(seed), dtype=F64) for seed in (0, 1))
    y = 0.7 * x + 0.3 * other

    def mean(z: Tensor) -> Any:
        return gaussian_filter(z.numpy(), (0, 0, 1.5, 1.5), truncate=3.5)[:, :, 5:-5, 5:-5]

    m, n = mean(x), mean(y)
    v, w, c = mean(x * x) - m * m, mean(y * y) - n * n, mean(x * y) - m * n
    c1, c2 = 0.01**2, 0.03**2
    alike = (2 * m * n + c1) * (2 * c + c2) / ((m * m + n * n + c1) * (v + w + c2))
    np.testing.assert_allclose(ssim(x, y, 1.0), alike.mean((1, 2, 3)), rtol=1e-12)


# ------------------------------------------------------------------------------------------------------------- runs

TINY = ["net.factor=2", "net.latent=2", "net.channels=8", "training.steps=40", "training.validate_every=40"]
SMALL = ["net.channels=8", "training.steps=12", "training.validate_every=12", "sampling.steps=3", "sampling.preview=0"]


@pytest.fixture(scope="module")
def codec_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    def make(folder: Path) -> None:
        words = ["preset=autoencoder", *TINY, "training.precision=float32"]
        for _ in train(Experiment.read("digits", words), folder / "codec", draws=False):
            pass

    return once(tmp_path_factory, "latents-codec", make) / "codec"


def test_without_weight_a_judge_changes_no_bit_and_with_it_the_run_goes_on_bit_for_bit(tmp_path: Path) -> None:
    words = ["preset=autoencoder", *TINY, "training.precision=float32", "training.batch_size=16"]
    words += ["training.checkpoint_every=1", "training.steps=2"]

    def trained(name: str, weight: float, *stops: int) -> dict[str, Tensor]:
        asked = Experiment.read("digits", [*words, f"objective.adversarial={weight}"])
        for stop in stops:
            for moment in train(asked, tmp_path / name, resume=(tmp_path / name).exists(), draws=False):
                if moment.progress.step == stop:
                    break
        return read_weights(tmp_path / name / "model.safetensors", tmp_path / name)

    asked = Experiment.read("digits", words)
    for _ in train(asked, tmp_path / "plain", draws=False):
        pass
    plain, zero = read_weights(tmp_path / "plain" / "model.safetensors", tmp_path / "plain"), trained("zero", 0.0, 2)
    assert plain.keys() == zero.keys()
    assert all(torch.equal(plain[key], zero[key]) for key in plain)
    whole, halves = trained("whole", 0.1, 2), trained("halves", 0.1, 1, 2)
    assert all(torch.equal(whole[key], halves[key]) for key in whole)
    assert {key for key in whole if key not in plain} == {
        f"judge.{key}" for key in Patches().build((1, 8, 8)).state_dict()
    }
    assert not torch.equal(whole["out.weight"], plain["out.weight"])


def test_a_held_out_picture_by_itself_gives_a_finite_error(codec_run: Path) -> None:
    """It is the mean of all that are held out, whose error, 0, is no unit."""
    run = ornstein.load(codec_run)
    x0 = run.transform.forward(run.load_data().test[:1])
    found = run.learner.judge(run.model, x0, None)
    unit = math.sqrt(2 / math.pi) * run.learner.problem.sigma_data
    error = float((run.model.decode(run.model.encode(x0).mean) - x0).abs().mean())
    assert found.known == pytest.approx([unit] * len(found.known))
    assert found.value == pytest.approx(error / unit)


@pytest.fixture(scope="module")
def latent_run(tmp_path_factory: pytest.TempPathFactory, codec_run: Path) -> Path:
    def make(folder: Path) -> None:
        words = ["preset=latent", f"data.codec={codec_run}", *SMALL, "training.precision=float32"]
        for _ in train(Experiment.read("digits", words), folder / "latents", draws=False):
            pass

    return once(tmp_path_factory, "latents-model", make) / "latents"


def test_latents_have_mean_zero_and_variance_one_by_what_was_measured(codec_run: Path, latent_run: Path) -> None:
    measured = read_measured(codec_run)
    assert measured is not None
    assert min(abs(value - 1) for value in measured["scale"]) > 1e-3  # it was needed
    data = ornstein.load(latent_run).load_data()
    assert isinstance(data, Encoded)
    z = torch.cat([data.batch(step, 256, seed=0)[0] for step in range(30)])
    torch.testing.assert_close(z.mean((0, 2, 3)), torch.zeros(2), atol=0.03, rtol=0)
    torch.testing.assert_close(z.std((0, 2, 3)), torch.ones(2), atol=0.03, rtol=0)
    assert data.sigma_data == pytest.approx(1, abs=0.01)
    again, other = data.batch(3, 16, seed=0)[0], data.batch(3, 16, seed=1)[0]
    assert torch.equal(again, data.batch(3, 16, seed=0)[0])
    assert not torch.equal(again, other)
    halves = [data.batch(3, 8, seed=0, rank=rank, world=2)[0] for rank in (0, 1)]
    assert torch.equal(torch.cat(halves), data.batch(3, 16, seed=0)[0])


@pytest.mark.usefixtures("brief_reports")
def test_a_codec_is_measured_by_what_it_reads_back_and_draws_nothing(cli: Cli, codec_run: Path, tmp_path: Path) -> None:
    run = tmp_path / "codec"
    shutil.copytree(codec_run, run)
    answer = cli("evaluate", run, "-n", 60, "--no-page")
    assert answer.code == 0, answer
    assert "PSNR" in answer.out
    assert "SSIM" in answer.out
    opened = ornstein.load(run)
    x = opened.transform.forward(opened.load_data().test)
    with torch.no_grad():
        mean, _ = opened.model.net.encode(x)
        back = opened.model.net.decode(mean)
    found = json.loads((run / "evaluation.json").read_text())
    assert found["psnr"] == pytest.approx(float(psnr(back, x, 2.0).mean()), abs=1e-3)
    assert {"frechet", "kernel"} <= found["rows"].keys() if "rows" in found else "frechet" in str(found)
    for words in (("sample", run), ("loglik", run, "test", "--out", tmp_path / "s.csv")):
        answer = cli(*words)
        assert answer.code == 2
        assert "being a codec" in answer.err
    assert "latents 2x4x4" in cli("info", run).out


def test_a_model_of_latents_is_whole_by_itself(cli: Cli, codec_run: Path, latent_run: Path, tmp_path: Path) -> None:
    opened = ornstein.load(latent_run)
    assert isinstance(drawing_precision(opened.learner, opened.model, "auto"), str)
    """Moved, and its codec gone from where it was: drawn, filmed, guided, filled in, measured, gone on with."""
    run = tmp_path / "moved"
    shutil.copytree(latent_run, run)
    text = (run / "experiment.yaml").read_text()
    assert str(codec_run) in text
    (run / "experiment.yaml").write_text(text.replace(str(codec_run), "/nowhere/codec"))
    assert cli("info", run, "--accept").code == 0
    said = cli("info", run).out
    assert "codec" in said
    assert "PSNR" in said
    assert cli("sample", run, "-n", 4, "--film", "--scale", 2, "--out", tmp_path / "a.png").code == 0
    opened = ornstein.load(run)
    own = opened.sample(3, seed=4)
    assert own.shape == (3, 1, 8, 8)
    assert own.dtype == torch.uint8
    z = opened.draw(3, seed=4)
    assert z.shape == (3, 2, 4, 4)
    assert isinstance(opened.transform, Coded)
    expected = opened.transform.plain.inverse(opened.transform.own.decode(z), quantise=True)
    assert torch.equal(own, expected)
    answer = cli("train", "--resume", run, "training.steps=14")
    assert answer.code == 0, answer
    answer = cli("loglik", run, "test", "-n", 2, "--out", tmp_path / "s.csv")
    assert "lower bounds" in answer.out
    (run / "codec" / "ema-0.050.safetensors").unlink()
    answer = cli("sample", run)
    assert answer.code == 2
    assert "codec" in answer.err


def test_holes_are_filled_in_through_the_decoder(cli: Cli, latent_run: Path, tmp_path: Path) -> None:
    import numpy as np

    opened = ornstein.load(latent_run)
    given = opened.load_data().test[:1].float().numpy()
    given[:, :, 4:] = np.nan
    np.save(tmp_path / "hole.npy", given)
    words = (
        "inpaint",
        latent_run,
        "--input",
        tmp_path / "hole.npy",
        "-n",
        2,
        "--steps",
        4,
        "--out",
        tmp_path / "f.png",
    )
    answer = cli(*words, "--method", "dps")
    assert answer.code == 0, answer
    found = np.load(tmp_path / "f.npz")["samples"]
    assert found.shape == (1, 2, 1, 8, 8)
    assert (found[0, :, :, :4] == given[0, :, :4]).all()
    answer = cli(*words, "--method", "replacement", "--force")
    assert answer.code == 2
    assert "decoding is none" in answer.err


def test_what_is_no_codec_is_refused_in_a_sentence(cli: Cli, codec_run: Path, latent_run: Path, tmp_path: Path) -> None:
    half = tmp_path / "half"
    shutil.copytree(codec_run, half)
    (half / "latents.yaml").unlink()
    other = tmp_path / "other.npy"
    import numpy as np

    np.save(other, np.random.default_rng(0).integers(0, 17, (40, 1, 6, 6)).astype("uint8"))
    for words, expected in (
        (["digits", f"data.codec={latent_run}"], "is no codec but a denoiser"),
        (["digits"], "data.codec is missing"),
        (["digits", f"data.codec={tmp_path / 'none'}"], "is not a folder"),
        (["digits", f"data.codec={half}"], "measured"),
        (["quantised-digits", f"data.codec={codec_run}"], "data.of"),
        (["moons", f"data.codec={codec_run}"], "codec takes nothing else"),
        (["labelled-moons", f"data.codec={codec_run}"], "data.of"),
        ([str(other), f"data.codec={codec_run}"], "the codec was trained on 1x8x8"),
    ):
        answer = cli("train", words[0], "preset=latent", *words[1:], "--out", tmp_path / "run")
        assert answer.code == 2, (words, answer)
        assert expected in answer.err, (words, answer.err)
    answer = cli("train", "moons", "preset=autoencoder", "--out", tmp_path / "run")
    assert answer.code == 2
    assert "places" in answer.err or "neighbours" in answer.err
