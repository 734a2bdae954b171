"""Restoring, filling in, interpolating and guided drawing from the command line, on a small run."""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from sure import Cli

from ornstein.core.exact import Gaussian
from ornstein.experiment import restore as home
from ornstein.experiment.build import load_data
from ornstein.experiment.config import Experiment
from ornstein.experiment.guide import guided
from ornstein.experiment.interpolate import interpolate, turn
from ornstein.experiment.measured import METHODS
from ornstein.experiment.run import Run
from ornstein.experiment.train import train
from ornstein.guidance import Blur, ClassifierFree
from ornstein.samplers import encode


def one_sentence(answer: Any, *words: Any) -> None:
    assert answer.code == 2, answer
    text = answer.err.strip()
    assert text.startswith("ornstein: ")
    assert "\n" not in text, text
    for word in words:
        assert str(word) in text, f"{word!r} is not in {text!r}"


@pytest.fixture(scope="module")
def digit(run: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A held-out digit as a picture and as an array with its lower half missing."""
    folder = tmp_path_factory.mktemp("digit")
    data = load_data(Run.load(run).experiment)
    pixels = ((data.transform.forward(data.test[3:4])[0, 0] + 1) * 127.5).round().byte().numpy()
    Image.fromarray(pixels).save(folder / "digit.png")
    hole = np.zeros((8, 8), np.uint8)
    hole[4:] = 255
    Image.fromarray(hole).save(folder / "hole.png")
    array = data.test[3:5].float().numpy()
    array[:, :, 4:] = np.nan
    np.save(folder / "digits.npy", array)
    return folder


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A run on vectors, of a few steps."""
    folder = tmp_path_factory.mktemp("runs") / "moons"
    changes = ["training.steps=20", "training.batch_size=64", "training.validate_every=20", "data.count=400"]
    for _ in train(Experiment.read("points", [*changes, "net.width=16", "sampling.steps=4"]), folder, draws=False):
        pass
    return folder


def test_inpainting_keeps_what_is_known_and_says_what_it_is_unsure_of(
    cli: Cli, run: Path, digit: Any, tmp_path: Path
) -> None:
    out = tmp_path / "filled.png"
    for mask, given in ((["--mask", digit / "hole.png"], "digit.png"), ([], "digits.npy")):
        answer = cli("inpaint", run, "--input", digit / given, *mask, "-n", 3, "--steps", 4, "--force", "--out", out)
        assert answer.code == 0, answer
        rows = 1 if mask else 2
        with np.load(out.with_suffix(".npz")) as made:
            samples, known = made["samples"], made["known"]
            assert samples.shape == (rows, 3, 1, 8, 8)
            assert known[:, :, :4].all()
            assert not known[:, :, 4:].any()
            truth = np.load(digit / "digits.npy")[:rows, None, :, :4]
            # the picture has 256 levels for the data's 17
            assert np.abs(samples[:, :, :, :4] - truth).max() < (0.04 if mask else 1e-5)
            np.testing.assert_allclose(made["mean"], samples.mean(1), atol=1e-5)
            np.testing.assert_allclose(made["std"], samples.std(1), atol=1e-5)
            assert made["std"][:, :, :4].max() < 1e-5
            # of 17 levels, three draws round to the same in a corner that is always black
            assert (made["std"][:, :, 4:] > 0).mean() > 0.5
        with Image.open(out) as picture:
            assert picture.width > 400
    # a draw is the same however many there are, and another with another seed
    again = cli("inpaint", run, "--input", digit / "digits.npy", "-n", 3, "--steps", 4, "--out", tmp_path / "b.png")
    assert again.code == 0
    np.testing.assert_array_equal(np.load(tmp_path / "b.npz")["samples"], samples)
    cli(
        "inpaint", run, "--input", digit / "digits.npy", "-n", 3, "--steps", 4, "--seed", 1, "--out", tmp_path / "c.png"
    )
    assert np.abs(np.load(tmp_path / "c.npz")["samples"] - samples).max() > 0.1


@pytest.mark.parametrize("method", METHODS)
def test_every_method_fills_in(cli: Cli, run: Path, digit: Any, tmp_path: Path, method: Any) -> None:
    out = tmp_path / "filled.png"
    words = ["--mask", digit / "hole.png", "-n", 2, "--steps", 3, "--method", method, "--out", out]
    answer = cli("inpaint", run, "--input", digit / "digit.png", *words)
    assert answer.code == 0, answer
    with np.load(out.with_suffix(".npz")) as made:
        assert np.isfinite(made["samples"]).all()
        assert made["std"][:, :, :4].max() < 1e-5


@pytest.mark.parametrize(
    ("operator", "options"), [("blur", ["--with", "width=0.8"]), ("downsample", ["--with", "by=2"])]
)
def test_restoring_explains_what_was_measured(
    cli: Cli, run: Path, digit: Any, tmp_path: Path, operator: Any, options: Any
) -> None:
    out = tmp_path / "restored.png"
    words = [run, "--operator", operator, *options, "--input", digit / "digit.png", "--clean", "-n", 2, "--steps", 6]
    assert cli("restore", *words, "--out", out).code == 0
    with np.load(out.with_suffix(".npz")) as made:
        samples = torch.from_numpy(made["samples"])[0]
    opened = Run.load(run)
    truth = opened.transform.forward(home.read_input(opened, digit / "digit.png"))
    acts = home.damage(operator, {"width": 0.8} if operator == "blur" else {"by": 2})
    seen, made = (acts.apply(x) for x in (truth, opened.transform.forward(samples)))
    plain = acts.apply(opened.draw(2, seed=0, steps=6))
    assert (made - seen).square().mean() < 0.1 * (plain - seen).square().mean()
    if operator == "downsample":  # the small picture itself, without --clean
        small = ((seen[0, 0] + 1) * 127.5).round().byte().numpy()
        Image.fromarray(small).save(tmp_path / "small.png")
        answer = cli(
            "restore",
            run,
            "--operator",
            operator,
            "--input",
            tmp_path / "small.png",
            "--steps",
            3,
            "--force",
            "--out",
            out,
        )
        assert answer.code == 0, answer


def test_the_missing_numbers_of_a_table_are_imputed(cli: Cli, table: Any, tmp_path: Path) -> None:
    # a row that misses nothing is among them, and comes back as it is
    rows = np.array([[0.5, np.nan], [0.3, -0.7], [np.nan, 0.2], [np.nan, np.nan]], np.float32)
    np.save(tmp_path / "rows.npy", rows)
    out = tmp_path / "rows.png"
    answer = cli("inpaint", table, "--input", tmp_path / "rows.npy", "-n", 5, "--steps", 4, "--out", out)
    assert answer.code == 0, answer
    with np.load(out.with_suffix(".npz")) as made:
        known = ~np.isnan(rows)
        np.testing.assert_array_equal(made["known"], known)
        np.testing.assert_allclose(made["mean"][known], rows[known], atol=1e-5)
        np.testing.assert_array_equal(made["samples"][1], np.tile(rows[1], (5, 1)))
        np.testing.assert_array_equal(made["samples"].swapaxes(1, 2)[known], np.repeat(rows[known], 5).reshape(-1, 5))
        assert made["std"][~known].min() > 1e-3
    np.save(tmp_path / "whole.npy", rows[1:2])
    answer = cli("inpaint", table, "--input", tmp_path / "whole.npy", "--out", tmp_path / "whole.png")
    assert (answer.code, "nothing is missing" in answer.err) == (2, True)


def test_restoring_with_an_exact_model_is_the_exact_posterior(run: Path) -> None:
    """The run's denoiser replaced by a known one: mean and deviation of many draws against closed form."""
    from ornstein.experiment.guide import with_denoiser
    from ornstein.guidance import Measurement, exact_posterior

    opened = Run.load(run)
    g = torch.Generator().manual_seed(0)
    root = torch.randn(64, 6, generator=g) / 3
    prior = Gaussian(torch.zeros(1, 8, 8), root @ root.mT + 0.01 * torch.eye(64))
    known = with_denoiser(opened, prior.denoiser(opened.denoiser.process))
    x = prior.sample(1, g)
    found = home.restore(
        known,
        Blur(1.0),
        x,
        clean=True,
        draws=300,
        noise=0.1,
        seed=0,
        steps=20,
        method="moment-matching",
        stepper="dpm++2m",
    )
    truth = exact_posterior(prior, Measurement(Blur(1.0), found.measured, 0.1))
    std = truth.covariance().diagonal().sqrt().reshape(1, 8, 8)
    assert ((found.mean[0] - truth.mean()) / std).abs().max() < 5 / 300**0.5
    assert (found.std[0] / std - 1).abs().max() < 0.25


def test_guided_drawing_from_the_command_line(cli: Cli, run: Path, tmp_path: Path) -> None:
    def drawn(*words: Any) -> Any:
        answer = cli("sample", run, "-n", 4, "--label", 3, "--steps", 4, "--force", "--out", tmp_path / "x.npz", *words)
        assert answer.code == 0, answer
        return np.load(tmp_path / "x.npz")["samples"]

    plain = drawn()
    np.testing.assert_array_equal(drawn("--scale", 1), plain)
    assert not np.array_equal(drawn("--scale", 6), plain)
    np.testing.assert_array_equal(drawn("--scale", 6, "--interval", "1e8,1e9"), plain)
    np.testing.assert_array_equal(drawn("--guidance", "autoguidance", "--guide", run, "--scale", 6), plain)  # no weaker
    opened = Run.load(run)
    assert isinstance(guided(opened, scale=3.0).denoiser, ClassifierFree)
    expected = guided(opened, scale=6.0).sample(4, label=3, steps=4, seed=0)
    np.testing.assert_array_equal(drawn("--scale", 6), expected.numpy())
    np.testing.assert_array_equal(drawn("--scale", 6, "--rescale", 0), expected.numpy())
    expected = guided(opened, scale=6.0, rescale=0.7).sample(4, label=3, steps=4, seed=0)
    np.testing.assert_array_equal(drawn("--scale", 6, "--rescale", 0.7), expected.numpy())


def test_interpolation_goes_from_one_to_the_other(cli: Cli, run: Path, tmp_path: Path) -> None:
    out = tmp_path / "between.png"
    answer = cli("interpolate", run, "--from", 3, "--to", 17, "-n", 5, "--steps", 40, "--out", out)
    assert answer.code == 0, answer
    with np.load(out.with_suffix(".npz")) as made:
        first, last, between = made["first"], made["last"], made["between"]
    data = load_data(Run.load(run).experiment).test[[3, 17]].numpy()
    np.testing.assert_array_equal(np.concatenate([first, last]), data)  # to the bit, in the values of the data
    assert (between.dtype, between.shape) == (data.dtype, (5, 1, 8, 8))
    first, last, between = (x.astype(float) for x in (first, last, between))
    size = np.abs(first - last).mean()
    assert np.abs(between[0] - first[0]).mean() < 0.1 * size
    assert np.abs(between[-1] - last[0]).mean() < 0.1 * size


def test_what_is_given_in_fine_units_comes_back_to_the_last_bit(cli: Cli, tmp_path: Path) -> None:
    """Values whose way to model space and back would be rounded: in doubles, and far from zero."""
    x = (1000 + 0.1 * np.random.default_rng(0).standard_normal((60, 3))).astype(np.float64)
    np.save(tmp_path / "x.npy", x)
    changes = ["training.steps=2", "training.batch_size=16", "training.validate_every=2", "net={name: mlp, width: 8}"]
    folder = tmp_path / "run"
    for _ in train(Experiment.read("array", [f"data.path={tmp_path / 'x.npy'}", *changes]), folder, draws=False):
        pass
    given = x[:2].copy()
    given[:, 1] = np.nan
    for name, values in (("rows", given), ("a", x[0]), ("b", x[1])):
        np.save(tmp_path / f"{name}.npy", values)
    answer = cli("inpaint", folder, "-i", tmp_path / "rows.npy", "-n", 2, "--steps", 2, "-o", tmp_path / "rows.png")
    assert answer.code == 0, answer
    filled = np.load(tmp_path / "rows.npz")["samples"]
    assert filled.dtype == np.float64
    np.testing.assert_array_equal(filled[:, 0][:, [0, 2]], x[:2][:, [0, 2]])
    ends = ["--from", tmp_path / "a.npy", "--to", tmp_path / "b.npy"]
    answer = cli("interpolate", folder, *ends, "--steps", 2, "-n", 2, "-o", tmp_path / "way.png")
    assert answer.code == 0, answer
    with np.load(tmp_path / "way.npz") as way:
        np.testing.assert_array_equal(np.concatenate([way["first"], way["last"]]), x[:2])


def test_pictures_of_other_sizes_are_cropped_where_those_of_the_run_were(cli: Cli, tmp_path: Path) -> None:
    """By every verb, and masks with them; what cannot be read stops no folder, and is named."""
    rng, photos = np.random.default_rng(0), tmp_path / "photos"
    photos.mkdir()
    for i in range(20):
        Image.fromarray(rng.integers(0, 256, (12, 16), dtype=np.uint8)).save(photos / f"{i:02}.png")
    changes = ["training.steps=2", "training.batch_size=8", "training.validate_every=2", "net={name: mlp, width: 8}"]
    folder, whole = tmp_path / "run", np.asarray(Image.open(photos / "03.png"))
    for _ in train(Experiment.read("images", [f"data.path={photos}", "data.size=12", *changes]), folder, draws=False):
        pass
    mask = np.zeros((12, 16), np.uint8)
    mask[:6] = 255
    Image.fromarray(mask).save(tmp_path / "mask.png")
    Image.fromarray(whole[:9]).save(tmp_path / "wide.png")
    draws = ["-n", 2, "--steps", 2, "--force", "-o", tmp_path / "out.png"]
    answer = cli("inpaint", folder, "-i", photos / "03.png", "--mask", tmp_path / "mask.png", *draws)
    assert answer.code == 0, answer
    with np.load(tmp_path / "out.npz") as made:
        assert made["samples"].dtype == np.uint8
        np.testing.assert_array_equal(made["samples"][0, 1, 0, 6:], whole[6:, 2:14])
    for words, shape in ((["--clean"], (12, 12)), ([], (12, 12))):
        answer = cli("restore", folder, "--operator", "downsample", "-i", tmp_path / "wide.png", *words, *draws)
        assert answer.code == 0, answer
        with np.load(tmp_path / "out.npz") as made:
            assert (made["samples"].dtype, made["samples"].shape) == (np.uint8, (1, 2, 1, *shape))
    (photos / "05.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    (photos / "05.heic").write_bytes(b"\0\0\0\x18ftypheic")
    scored = cli("loglik", folder, photos, "-n", 6, "--reference", 0, "--probes", 2, "-o", tmp_path / "s.csv")
    assert scored.code == 0, scored
    said = "left out 1 .heic (not read; save them as png or jpg); left out 1 of 20 files that cannot be read, first 05"
    assert said in scored.out
    lines = (tmp_path / "s.csv").read_text().splitlines()
    assert [line.split(",")[1] for line in lines[1:]] == [f"{i:02}.png" for i in (0, 1, 2, 3, 4, 6)]
    for i in (6, 7):
        (photos / f"{i:02}.png").write_bytes(b"")
    broken = cli("loglik", folder, photos, "-o", tmp_path / "t.csv")
    one_sentence(broken, "07.png cannot be read", "nor can 2 others", "more than one in 10")


def test_latents_turn_on_a_great_circle(run: Path) -> None:
    """It keeps the length, and its ends."""
    a, b = torch.randn(1, 50, generator=torch.Generator().manual_seed(0)), torch.ones(1, 50)
    b = b * a.norm() / b.norm()
    way = turn(a, b, torch.linspace(0, 1, 5))
    torch.testing.assert_close(way[[0, -1]], torch.cat([a, b]))
    torch.testing.assert_close(way.norm(dim=1), a.norm().expand(5))
    torch.testing.assert_close((way[1:] - way[:-1]).norm(dim=1), (way[1] - way[0]).norm().expand(4))
    torch.testing.assert_close(turn(a, a, torch.tensor([0.3])), a)
    opened = Run.load(run)
    data = load_data(opened.experiment)
    x = data.transform.forward(data.test[:2])
    same = interpolate(opened, x[:1], x[:1], 3, steps=30)  # from a datum to itself, that datum
    torch.testing.assert_close(same, x[:1].expand(3, -1, -1, -1), rtol=0, atol=0.05)


def test_interpolation_turns_its_latents(run: Path) -> None:
    """What comes out in the middle is what the turned latent decodes to, and not what their mean does."""
    opened = Run.load(run)
    data = load_data(opened.experiment)
    x = data.transform.forward(data.test[[3, 17]])
    way: dict[str, Any] = {"steps": 30, "grid": None if opened.denoiser.process.chain else "logsnr"}
    a, b = encode(opened.denoiser, x, **way).split(1)
    middle = interpolate(opened, x[:1], x[1:], 3, steps=30)[1]
    turned, mean = (
        [state.x for state in opened.trajectory(1, seed=0, x=latent, **way)][-1][0].cpu()
        for latent in (turn(a, b, torch.tensor([0.5])), 0.5 * (a + b))
    )
    torch.testing.assert_close(middle, turned, rtol=1e-4, atol=1e-4)
    assert (middle - mean).abs().mean() > 0.02


def test_what_does_not_fit_is_said_in_a_sentence(cli: Cli, run: Path, table: Any, digit: Any, tmp_path: Path) -> None:
    wide = tmp_path / "wide.png"
    Image.fromarray(np.zeros((8, 9), np.uint8)).save(wide)
    picture, hole = digit / "digit.png", digit / "hole.png"
    (tmp_path / "not.npy").write_text("hello")
    (tmp_path / "broken.png").write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n")
    np.save(tmp_path / "two.npy", np.zeros((2, 1, 8, 8), np.float32))
    np.save(tmp_path / "broad.npy", np.zeros((1, 1, 9, 9), np.float32))
    np.save(tmp_path / "full.npy", np.zeros((1, 3), np.float32))
    np.save(tmp_path / "long.npy", np.array([[np.nan, 0, 0]], np.float32))
    np.save(tmp_path / "far.npy", np.full((1, 2), 1e38, np.float32))
    np.save(tmp_path / "far-away.npy", np.array([[np.nan, 1e38]], np.float32))
    cases = [
        (["inpaint", run, "--input", tmp_path / "gone.png"], ["gone.png", "not a file"]),
        (["inpaint", run, "--input", wide, "--mask", hole], ["1x8x9", "1x8x8"]),
        (["inpaint", run, "--input", picture, "--mask", wide], ["wide.png", "8x9", "8x8"]),
        (["inpaint", run, "--input", picture], ["nothing is missing"]),
        (["inpaint", run, "--input", picture, "--mask", hole, "--method", "pigmd"], ["pigmd", "pigdm"]),
        (["inpaint", run, "--input", picture, "--mask", hole, "-n", 0], ["n=0"]),
        (["inpaint", run, "--input", picture, "--mask", hole, "--out", "x.gif"], ["x.gif", ".png"]),
        (["inpaint", run, "--input", picture, "--mask", hole, "--noise", -1], ["noise=-1"]),
        (["inpaint", run, "--input", tmp_path / "not.npy"], ["not.npy", "numbers"]),
        (
            ["inpaint", run, "--input", tmp_path / "broken.png", "--mask", hole],
            ["broken.png cannot be read as an image"],
        ),
        (["restore", run, "--operator", "blur", "--input", tmp_path / "broken.png"], ["broken.png cannot be read"]),
        (["inpaint", table, "--input", picture], ["digit.png", ".npy", "vectors"]),
        (["inpaint", run, "--input", picture, "--mask", hole, "--stepper", "hein"], ["hein", "heun"]),
        (["restore", run, "--operator", "blurr", "--input", picture], ["blurr", "blur"]),
        (["restore", run, "--operator", "blur", "--with", "by=2", "--input", picture], ["by", "width"]),
        (["restore", run, "--operator", "downsample", "--input", picture], ["1x8x8", "1x4x4"]),
        (["restore", run, "--operator", "downsample", "--with", "by=3", "--input", picture], ["by=3", "8"]),
        (["restore", run, "--operator", "blur", "--with", "name=blur", "--input", picture], ["operator.name"]),
        (["interpolate", run, "--from", "3", "--to", "99999"], ["99999", "held-out"]),
        (["interpolate", run, "--from", "3", "--to", "4", "-n", 1], ["n=1"]),
        (["interpolate", run, "--from", "3", "--to", wide], ["wide.png", "1x8x9", "1x8x8"]),
        (["interpolate", run, "--from", "3", "--to", tmp_path / "two.npy"], ["two.npy", "2 samples"]),
        # whatever reads a file names it
        (["restore", run, "--operator", "blur", "--input", tmp_path / "broad.npy"], ["broad.npy", "1x9x9", "1x8x8"]),
        (["restore", run, "--operator", "blur", "--clean", "--input", tmp_path / "broad.npy"], ["broad.npy", "1x8x8"]),
        (["inpaint", run, "--mask", hole, "--input", tmp_path / "broad.npy"], ["broad.npy", "1x9x9", "1x8x8"]),
        (["interpolate", run, "--from", tmp_path / "broad.npy", "--to", "3"], ["broad.npy", "1x9x9", "1x8x8"]),
        (["loglik", run, tmp_path / "broad.npy", "--out", tmp_path / "s.csv"], ["broad.npy", "1x9x9", "1x8x8"]),
        (["inpaint", table, "--input", tmp_path / "long.npy"], ["long.npy", "3", "2"]),
        (["interpolate", table, "--from", tmp_path / "long.npy", "--to", "3"], ["long.npy", "3", "2"]),
        (["loglik", table, tmp_path / "full.npy", "--out", tmp_path / "s.csv"], ["full.npy", "3", "2"]),
        (["interpolate", table, "--from", tmp_path / "far.npy", "--to", "3"], ["not finite", "far outside"]),
        (["inpaint", table, "--input", tmp_path / "far-away.npy"], ["not finite", "far outside"]),
        (["sample", run, "--guidance", "classifier-fre"], ["classifier-fre", "classifier-free"]),
        (["sample", run, "--guidance", "autoguidance"], ["--guide"]),
        (["sample", run, "--scale", 2, "--guide", run], ["no other run"]),
        (["sample", run, "--guidance", "autoguidance", "--guide", table], ["other data"]),
        (["sample", run, "--guidance", "classifier", "--guide", run], ["no classifier", "objective=classifier"]),
        (["sample", run, "--interval", "1,2"], ["--scale"]),
        (["sample", run, "--scale", 2, "--interval", "1;2"], ["--interval", "0.3,5"]),
        (["sample", run, "--rescale", 0.5], ["--scale"]),
        (["sample", run, "--scale", 2, "--rescale", 2], ["rescale=2", "[0, 1]"]),
        (["sample", run, "--scale", 2, "--interval", "1;2"], ["1;2", "0.3,5"]),
    ]
    for words, said in cases:
        one_sentence(cli(*words), *said)
    unlabelled = dataclasses.replace(Run.load(table))
    unlabelled.about["data"].update(classes=[], conditions={})
    with pytest.raises(ValueError, match="trained without"):
        guided(unlabelled)


@pytest.mark.parametrize(
    "verb",
    [
        ["inpaint", "--input", "digits.npy", "-n", 1, "--steps", 3],
        ["restore", "--operator", "blur", "--input", "digit.png", "-n", 1, "--steps", 3],
        ["interpolate", "--from", 0, "--to", 1, "-n", 2, "--steps", 3],
    ],
    ids=lambda verb: verb[0],
)
def test_what_else_is_known_is_given_as_to_sample(
    cli: Cli, run: Path, digit: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, verb: Any
) -> None:
    monkeypatch.chdir(digit)

    def made(*words: Any) -> Any:
        answer = cli(verb[0], run, *verb[1:], *words, "--force", "--out", tmp_path / "out.png")
        assert answer.code == 0, answer
        with np.load(tmp_path / "out.npz") as arrays:
            return arrays["between" if verb[0] == "interpolate" else "samples"]

    assert np.array_equal(made("--given", "label=3"), made("--label", 3))
    assert not np.array_equal(made("--given", "label=3"), made())
    one_sentence(cli(verb[0], run, *verb[1:], "--given", "price=3", "--out", tmp_path / "no.png"), "price=3", "label")
