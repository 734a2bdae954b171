"""The command line as a person meets it: every verb, and what each says when it is asked for the impossible."""

import inspect
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from sure import Cli, there

import ornstein
from ornstein.experiment.build import load_data
from ornstein.experiment.config import Experiment, methods
from ornstein.experiment.folder import accept
from ornstein.experiment.report import describe
from ornstein.experiment.tune import tune
from ornstein.training import manifest


def one_sentence(answer: Any, *words: Any) -> None:
    """Exit code 2, nothing but one sentence that names what is wrong; no traceback."""
    assert answer.code == 2, answer
    text = answer.err.strip()
    assert text.startswith("ornstein: "), text
    assert "Traceback" not in text
    assert "\n" not in text, text
    for word in words:
        assert str(word) in text, f"{word!r} is not in {text!r}"


# --- help and lists ---------------------------------------------------------------------------------------------------


def test_help_teaches_and_does_not_load_torch() -> None:
    code = "import sys; sys.argv=['ornstein','train','--help']\nfrom ornstein.cli import app\n"
    code += "try: app()\nexcept SystemExit: pass\nassert 'torch' not in sys.modules, 'torch was loaded'"
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert "ornstein train digits" in said
    assert "--resume" in said


def test_help_of_every_verb_loads_neither_torch_nor_numpy() -> None:
    """In one process, one verb after another: what the first that loads them is called."""
    code = """
import sys
from ornstein.cli import app
from typer.main import get_command
for verb in ["", *get_command(app).commands]:
    app([*verb.split(), "--help"], standalone_mode=False)
    heavy = [name for name in ("torch", "numpy", "yaml", "matplotlib") if name in sys.modules]
    print(verb or "ornstein", *heavy, sep=",", file=sys.stderr)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    verbs = done.stderr.split()
    assert {"ornstein", "train", "sample", "evaluate", "tune", "info", "list"} <= set(verbs)
    assert not [verb for verb in verbs if "," in verb]


@pytest.mark.parametrize(
    "table",
    [
        "processes",
        "steppers",
        "grids",
        "objectives",
        "distillations",
        "readings",
        "nets",
        "data",
        "metrics",
        "presets",
        "methods",
    ],
)
def test_list_says_one_sentence_on_each(cli: Cli, table: Any) -> None:
    from ornstein.experiment.catalogue import tables

    answer = cli("list", table)
    assert answer.code == 0
    lines = answer.out.strip().splitlines()
    assert [line.split()[0] for line in lines] == list(tables()[table])
    for line in lines:
        assert re.search(r"\S\s{2,}[A-Z0-9].+\.$", line), f"{line!r} is not a name and a sentence"


def test_version(cli: Cli) -> None:
    assert cli("--version").out.strip() == f"ornstein {ornstein.__version__}"


# --- a run, from training to measuring --------------------------------------------------------------------------------


def test_the_run_folder_explains_itself(run: Path) -> None:
    names = {path.name for path in run.iterdir()}
    assert names >= {
        "experiment.yaml", "run.yaml", "model.safetensors", "ema-0.050.safetensors", "ema-0.100.safetensors",
        "metrics.jsonl", "tensorboard", "samples", "loss.png", "loss-by-noise.png", "checkpoints", "snapshots",
    }  # fmt: skip
    written = yaml.safe_load((run / "experiment.yaml").read_text())
    assert written["process"] == {"name": "vp", "beta_min": 0.1, "beta_max": 20.0, "t_max": 1.0}
    assert written["training"]["betas"]
    assert written["training"]["seed"] == 0
    about = yaml.safe_load((run / "run.yaml").read_text())
    assert about["data"]["shape"] == [1, 8, 8]
    assert about["data"]["range"] == [0, 16]
    assert len(about["data"]["sha256"]) == 64
    assert 0.5 < about["data"]["sigma_data"] < 1
    assert about["versions"]["torch"] == torch.__version__
    assert about["versions"]["ornstein"] == ornstein.__version__
    records = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert records[-1]["step"] == 30
    assert all(np.isfinite(r["loss"]) for r in records)
    assert [r["step"] for r in records if "held_out" in r] == [15, 30]
    assert sorted(p.name for p in (run / "samples").glob("step-*")) == ["step-00000015.png", "step-00000030.png"]
    assert list((run / "tensorboard").iterdir())
    tree, told = yaml.safe_load((run / "experiment.yaml").read_text()), describe(run)
    for noun in ("process", "net", "objective"):
        assert re.match(rf"{tree[noun]['name']}($|;| \()", told[noun]), told[noun]
    assert f"channels {tree['net']['channels']}, " in told["net"]


def test_the_experiment_written_out_reads_back_the_same(run: Path) -> None:
    from ornstein.experiment.config import Experiment

    text = (run / "experiment.yaml").read_text()
    assert Experiment.read(run / "experiment.yaml").to_yaml() == text


def test_an_older_experiment_keeps_the_chain_it_was_trained_on() -> None:
    """What version 1 meant by saying nothing is said now; a file without a version is of today."""
    tree = yaml.safe_load(Experiment.read("moons", ["process=euler-ou"]).to_yaml())
    assert tree["process"]["order"] == "rising"
    del tree["process"]["order"]
    for version, order in ((1, "falling"), (2, "rising"), (None, "rising")):
        tree["version"] = version
        old = {key: value for key, value in tree.items() if value is not None}
        found = Experiment.read(old)
        assert (found.process["order"], found.version) == (order, 2)
        assert Experiment.read(yaml.safe_load(found.to_yaml())) == found
    assert Experiment.read({**tree, "version": 1, "process": "euler-ou"}).process["order"] == "falling"


@pytest.mark.usefixtures("brief_reports")
def test_train_then_sample_then_evaluate_then_info(cli: Cli, tmp_path: Path) -> None:
    run = tmp_path / "moons"
    answer = cli(
        "train", "moons", "training.steps=60", "training.validate_every=30", "net.width=32", "process=ou",
        "data.count=2000", "sampling.preview=100", "--out", run,
    )  # fmt: skip
    assert answer.code == 0, answer
    assert "2" in answer.out
    assert "moons" not in answer.err
    answer = cli("sample", run, "-n", 50, "--seed", 3, "--out", tmp_path / "x.npz", "--film", "--steps", 5)
    assert answer.code == 0, answer
    arrays = np.load(tmp_path / "x.npz")
    assert arrays["samples"].shape == (50, 2)
    assert arrays["labels"].tolist() == there(ornstein.load(run).every_class(50)).tolist()
    assert abs(arrays["labels"].sum() - 25) <= 3  # of a random draw of 2,000, in its shares
    with Image.open(tmp_path / "x.gif") as film:
        assert 4 <= getattr(film, "n_frames", 1) <= 6  # equal neighbours are merged into one longer frame
    expected = ornstein.load(run).sample(50, seed=3, steps=5, label=arrays["labels"])
    assert np.array_equal(arrays["samples"], expected.numpy())
    answer = cli("evaluate", run, "-n", 200, "--steps", 5, "--no-page")
    assert answer.code == 0, answer
    result = json.loads((run / "evaluation.json").read_text())
    assert result["rows"]["sliced-wasserstein"]["ratio"] > 1
    answer = cli("info", run)
    assert answer.code == 0
    assert "ou" in answer.out
    assert "60 of 60" in answer.out


#: one of each learner: what is judged and drawn while it trains is the learner's
PICTURED = ("edm", "energy", "experts", "hybrid")
#: methods of pictures: tests/test_latents.py, tests/test_cascades.py, tests/test_prior.py
OF_PICTURES = ("autoencoder", "cascade", "latent", "prior")


@pytest.mark.parametrize("method", [name for name in methods() if name not in OF_PICTURES])
def test_every_method_goes_from_training_to_samples(cli: Cli, tmp_path: Path, method: Any) -> None:
    run = tmp_path / "run"
    short = ["training.steps=3", "training.warmup=1", "training.batch_size=32", "net.width=16", "data.count=500"]
    answer = cli("train", "moons", f"preset={method}", *short, "sampling.preview=0", "--out", run)
    assert answer.code == 0, answer
    assert "held-out" in answer.out
    assert not list(run.rglob("*.png"))
    answer = cli("sample", run, "-n", 4, "--out", tmp_path / "x.npz")
    assert answer.code == 0, answer
    assert np.load(tmp_path / "x.npz")["samples"].shape == (4, 2)
    pictured = method in PICTURED
    assert cli("train", "--resume", run, "training.steps=4", f"sampling.preview={4 * pictured}").code == 0
    assert (run / "loss.png").is_file() == pictured
    answer = cli("info", run)
    assert answer.code == 0
    assert "4 of 4" in answer.out


def test_a_classifier_is_trained_guides_and_refuses_to_draw(cli: Cli, tmp_path: Path) -> None:
    short = ["training.warmup=1", "training.batch_size=256", "net.width=32", "training.lr=0.01", "data.noise=0.05"]
    judge, blind = tmp_path / "judge", tmp_path / "blind"
    answer = cli("train", "moons", "objective=classifier", *short, "training.steps=150", "--out", judge)
    assert answer.code == 0, answer
    assert "--guidance classifier" in answer.out
    kept = yaml.safe_load((judge / "experiment.yaml").read_text())["objective"]["shares"]
    assert kept == pytest.approx([0.5, 0.5], abs=0.02)
    assert sum(kept) == pytest.approx(1)
    assert (judge / "accuracy-by-noise.png").is_file()
    assert "classes' shares" in cli("info", judge).out
    for verb in (["sample", judge], ["evaluate", judge], ["loglik", judge, "test", "--out", tmp_path / "x.csv"]):
        one_sentence(cli(*verb), "classifier", "--guide")
    one_sentence(cli("train", "checkerboard", "objective=classifier", "--out", tmp_path / "no"), "classifier", "labels")
    # a model that was never told the label draws the moon asked for
    answer = cli(
        "train", "moons", "objective.drop_label=1.0", *short, "training.steps=400", "sampling.preview=0", "--out", blind
    )
    assert answer.code == 0, answer
    right = []
    for extra in ([], ["--guidance", "classifier", "--guide", judge, "--scale", "3"]):
        assert cli("sample", blind, "-n", 100, "--seed", 1, *extra, "--force", "--out", tmp_path / "x.npz").code == 0
        drawn = np.load(tmp_path / "x.npz")
        upper = drawn["samples"][:, 1] > 0.25
        right.append((upper == (drawn["labels"] == 0)).mean())
    assert right[0] < 0.65
    assert right[1] > 0.8


def test_info_says_what_ncsnv2_chose_and_why(cli: Cli, tmp_path: Path) -> None:
    run = tmp_path / "run"
    short = ["training.steps=2", "training.warmup=1", "net.channels=8", "sampling.preview=4"]
    assert cli("train", "digits", "preset=ncsnv2", *short, "--out", run).code == 0
    kept = yaml.safe_load((run / "experiment.yaml").read_text())
    data = load_data(Experiment.read("digits"))
    x = data.transform.forward(data.train).flatten(1)
    assert kept["process"]["sigma_max"] == pytest.approx(float(torch.cdist(x, x).max()), rel=1e-4)
    said = " ".join(cli("info", run).out.split())
    for line in (
        "why sigma_max",
        "largest distance",
        "why ratio",
        "overlaps by 0.5",
        "why step_size",
        "why conditioning",
    ):
        assert line in said
    assert f"step_size {kept['sampling']['stepper']['step_size']}" in said


def test_samples_do_not_depend_on_how_many_are_drawn(run: Path) -> None:
    opened = ornstein.load(run)
    many, few = opened.draw(5, seed=7, label=3), opened.draw(2, seed=7, label=3)
    assert torch.allclose(many[:2], few, atol=1e-5)
    again = opened.draw(1, seeds=[(7 << 32) + 4], label=3)
    assert torch.allclose(many[4:], again, atol=1e-5)


def test_a_run_introduces_itself_in_three_lines(run: Path) -> None:
    opened = ornstein.load(run)
    data, model, trained = repr(opened).split("\n")
    assert data == f"data     digits: {opened.about['data']['count']:,} images 1x8x8, given label"
    weights = sum(p.numel() for p in opened.model.net.parameters())
    assert model.startswith(f"model    unet of {weights:,} weights, predicts v, taught by ")
    steps = opened.experiment.training.steps
    assert trained == f"trained  {steps:,} of {steps:,} steps, in {run}"
    assert opened.steps == opened.experiment.sampling.steps == 4


def test_labels_by_number_and_by_name(run: Path) -> None:
    opened = ornstein.load(run)
    assert [opened.condition(2, label).parts["label"].tolist() for label in ("3", 3)] == [[3, 3]] * 2
    assert there(opened.every_class(10)).tolist() == [*range(10)]
    assert opened.class_columns(opened.every_class(20)) == 10


def test_classes_are_drawn_in_the_shares_of_the_data_as_near_as_whole_numbers_come() -> None:
    from ornstein.data.labels import in_shares

    assert in_shares([1, 1, 1], 7).tolist() == [0, 1, 2, 0, 1, 2, 0]
    assert in_shares([950, 50], 200).bincount().tolist() == [190, 10]
    assert in_shares([5, 3, 2, 0], 4).bincount(minlength=4).tolist() == [2, 1, 1, 0]  # 2, 1.2, 0.8, 0
    for n in (1, 10, 97, 1000):
        found = in_shares([700, 200, 99, 1], n).bincount(minlength=4)
        assert found.sum() == n
        assert (found - n * torch.tensor([0.7, 0.2, 0.099, 0.001])).abs().max() < 1
    half = in_shares([900, 100], 400)[:200]  # a piece has the shares of the whole
    assert half.bincount().tolist() == [180, 20]


@pytest.mark.usefixtures("brief_reports")
def test_a_run_draws_rare_classes_rarely_and_old_folders_still_open(cli: Cli, tmp_path: Path) -> None:
    rare = np.arange(400) % 20 == 0
    x = np.random.default_rng(0).normal(size=(400, 2)).astype("float32")
    np.savez(tmp_path / "x.npz", x=x, labels=rare.astype(int))
    few = ["net={name: mlp, width: 32, depth: 1}", "training.steps=2", "sampling.preview=0"]
    answer = cli("train", "array", f"data.path={tmp_path / 'x.npz'}", *few, "--out", tmp_path / "run")
    assert answer.code == 0, answer
    about = yaml.safe_load((tmp_path / "run/run.yaml").read_text())
    assert about["data"]["class_counts"] == [342, 18]
    assert there(ornstein.load(tmp_path / "run").every_class(200)).bincount().tolist() == [190, 10]
    assert cli("evaluate", tmp_path / "run", "-n", 40, "--steps", 2, "--no-page").code == 0
    assert cli("sample", tmp_path / "run", "-n", 40, "--steps", 2, "--out", tmp_path / "s.npz").code == 0
    assert np.load(tmp_path / "s.npz")["labels"].sum() == 2
    del about["data"]["class_counts"]
    (tmp_path / "run/run.yaml").write_text(yaml.safe_dump(about))
    accept(tmp_path / "run")
    assert there(ornstein.load(tmp_path / "run").every_class(200)).bincount().tolist() == [100, 100]


def test_samples_come_in_the_units_of_the_data(run: Path) -> None:
    opened = ornstein.load(run)
    x, raw = opened.sample(3, seed=0), opened.sample(3, seed=0, raw=True)
    assert x.dtype == torch.uint8
    assert x.shape == (3, 1, 8, 8)
    assert raw.dtype == torch.float32
    assert bool((raw != raw.round()).any())
    assert torch.equal(raw.round().clamp(0, 16).to(torch.uint8), x)


def test_any_length_of_average_can_be_had(run: Path) -> None:
    exact, made = ornstein.load(run, ema=0.05), ornstein.load(run, ema=0.08)
    a, b = (dict(r.denoiser.net.named_parameters()) for r in (exact, made))
    assert any(not torch.equal(a[k], b[k]) for k in a)
    raw = ornstein.load(run, ema=0)
    assert raw.draw(1, seed=0).isfinite().all()


def test_a_tuned_grid_is_kept_and_used_and_is_better_than_even_ones(
    cli: Cli, run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    inner = inspect.unwrap(tune)  # the network's error is an average over these, not over 512
    monkeypatch.setattr(inner, "__kwdefaults__", there(inner.__kwdefaults__) | {"count": 16})
    copied = tmp_path / "digits"
    shutil.copytree(run, copied)
    answer = cli("tune", copied, "--steps", 5)
    assert answer.code == 0, answer
    assert "measuring the network at 200 levels" in answer.err
    bits = {words[0]: float(words[1]) for words in map(str.split, answer.out.splitlines()[1:]) if len(words) == 2}
    assert bits.pop("tuned") < min(bits.values())
    grid = yaml.safe_load((copied / "tuned.yaml").read_text())[5]["grid"]
    assert len(grid) == 6
    opened = ornstein.load(copied)
    assert torch.equal(opened.draw(2, seed=0, grid="tuned", steps=5), opened.draw(2, seed=0, grid=grid))
    one_sentence(cli("sample", copied, "--grid", "tuned", "--steps", 6), "tuned", "6", "5")
    one_sentence(cli("tune", copied, "--steps", 0), "steps", "0")
    one_sentence(cli("tune", copied, "--steps", 5, "--criterion", "look"), "criterion", "look", "bound")


def test_train_goes_on_and_longer_than_planned(cli: Cli, run: Path, tmp_path: Path) -> None:
    copied = tmp_path / "digits"
    shutil.copytree(run, copied)
    answer = cli("train", "--resume", copied, "training.steps=40")
    assert answer.code == 0, answer
    records = [json.loads(line) for line in (copied / "metrics.jsonl").read_text().splitlines()]
    steps = [r["step"] for r in records]
    assert steps == sorted(set(steps))
    assert steps[-1] == 40
    assert yaml.safe_load((copied / "experiment.yaml").read_text())["training"]["steps"] == 40


def test_a_handful_of_odd_colour_images_goes_all_the_way(cli: Cli, tmp_path: Path) -> None:
    place, run = images(tmp_path / "photos", [(13, 9)] * 48), tmp_path / "run"
    tiny = ["net.channels=8", "training.steps=3", "training.batch_size=4", "sampling.steps=2", "sampling.preview=4"]
    assert cli("train", "images", f"data.path={place}", *tiny, "--out", run).code == 0
    assert cli("sample", run, "-n", 2, "--out", tmp_path / "x.npz").code == 0
    assert np.load(tmp_path / "x.npz")["samples"].shape == (2, 3, 13, 9)
    answer = cli("evaluate", run, "-n", 8, "--no-page")
    assert answer.code == 0, answer
    assert "sliced-wasserstein" in answer.out
    assert "c2st" not in answer.out


# --- asked for the impossible -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["digitz"], ["digitz", "digits"]),
        (["digits", "process=vpp"], ["process", "vpp", "'vp'"]),
        (["digits", "process.beta_maxx=3"], ["process.beta_maxx", "beta_max"]),
        (["digits", "training.stepz=3"], ["training.stepz", "steps"]),
        (["digits", "training.steps=many"], ["training.steps", "many"]),
        (["digits", "training.steps=0"], ["training.steps", "0"]),
        (["digits", "training.lr=-1"], ["training.lr", "-1"]),
        (["digits", "traning.lr=1"], ["traning", "training"]),
        (["digits", "process.beta_max=fast"], ["process.beta_max", "fast"]),
        (["digits", "process.beta_max=0.01"], ["beta_m", "0.01"]),
        (["digits", "process=flow", "predicts=eps"], ["predicts", "eps", "t_max"]),
        (["digits", "predicts=noise"], ["predicts", "noise"]),
        (["digits", "objective=edmm"], ["objective", "edmm", "'edm'"]),
        (["digits", "objective.times=chain-uniform"], ["chain"]),
        (["digits", "net=unett"], ["net", "unett", "'unet'"]),
        (["digits", "net.channels=0"], ["channels", "0"]),
        (["digits", "sampling.stepper=ddimm"], ["stepper", "ddimm", "'ddim'"]),
        (["digits", "sampling.ema=0.2"], ["sampling.ema", "0.2", "0.05"]),
        (["digits", "training"], ["training", "="]),
        (["digits", "preset=ncsnv3"], ["preset", "ncsnv3", "'ncsnv2'"]),
        (["digits", "preset=moons"], ["preset", "moons", "first"]),
        (["ncsnv2"], ["ncsnv2", "method", "digits preset=ncsnv2"]),
        (["moons", "process=ladder", "sampling.grid=chain"], ["steps=30", "10"]),
        (["moons", "process=betas", "sampling.steps=2000"], ["steps=2000", "1000"]),
        (["moons", "preset=implicit", "training.compile=true"], ["training.compile", "implicit", "False"]),
        (["moons", "preset=energy", "training.compile=true"], ["training.compile", "energy"]),
        (["moons", "preset=hybrid", "predicts=energy"], ["hybrid", "variance", "energy"]),
        (["moons", "preset=hybrid", "predicts=eps"], ["predicts='eps'", "sigma/alpha", "predict v"]),
        (["moons", "preset=energy-recovery", "predicts=v"], ["energy", "predicts=energy"]),
        (["moons", "preset=energy-likelihood", "objective.start=chains", "objective.chains=16"], ["chains=16", "256"]),
        (["nowhere.yaml"], ["nowhere.yaml"]),
        (["images"], ["path"]),
        (["images", "data.path=/nowhere"], ["/nowhere"]),
        *(([preset], ["data.path is missing; give"]) for preset in ("images", "array", "series", "table")),
        (["array", "data.path=/nowhere.npy"], ["/nowhere.npy"]),
        ([], ["preset"]),
    ],
)
def test_train_refuses_in_one_sentence(
    cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: Any, said: Any
) -> None:
    monkeypatch.chdir(tmp_path)
    one_sentence(cli("train", *words, *(["--out", tmp_path / "run"] if words else [])), *said)
    assert not (tmp_path / "run" / "run.yaml").exists()


def test_train_does_not_overwrite_a_run(cli: Cli, run: Path) -> None:
    before = (run / "model.safetensors").read_bytes()
    one_sentence(cli("train", "digits", "--out", run), run, "--resume")
    assert (run / "model.safetensors").read_bytes() == before


def images(folder: Any, sizes: Any, spoil: Any = None) -> Any:
    folder.mkdir()
    for i, size in enumerate(sizes):
        Image.fromarray(np.full((*size, 3), 5 * i, np.uint8)).save(folder / f"{i}.png")
    if spoil is not None:
        (folder / "1.png").write_bytes((folder / "1.png").read_bytes()[:30] + spoil)
    return folder


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda place: images(place, []), ["photos"]),
        (lambda place: images(place, [(8, 8)]), ["1 ", "3"]),
        (lambda place: images(place, [(8, 8), (8, 8), (9, 8), (8, 8)]), ["8", "9", "size"]),
        (lambda place: images(place, [(8, 8)] * 4, b"spoilt"), ["1.png"]),
    ],
    ids=["empty", "one", "mixed", "corrupt"],
)
def test_train_refuses_unfit_images(cli: Cli, tmp_path: Path, make: Any, said: Any) -> None:
    place = make(tmp_path / "photos")
    one_sentence(cli("train", "images", f"data.path={place}", "--out", tmp_path / "run"), *said)


def test_train_refuses_data_that_are_not_finite(cli: Cli, tmp_path: Path) -> None:
    x = np.random.default_rng(0).normal(size=(50, 3)).astype(np.float32)
    x[7, 1] = np.inf  # NaN says that a value was not seen: tests/test_gaps.py
    np.save(tmp_path / "x.npy", x)
    one_sentence(cli("train", "array", f"data.path={tmp_path / 'x.npy'}", "--out", tmp_path / "run"), "x.npy", "7")


@pytest.mark.parametrize("verb", ["sample", "evaluate", "info"])
def test_verbs_refuse_what_is_not_a_run(cli: Cli, tmp_path: Path, verb: Any) -> None:
    one_sentence(cli(verb, tmp_path / "nowhere"), "nowhere")
    (tmp_path / "empty").mkdir()
    one_sentence(cli(verb, tmp_path / "empty"), "empty", "experiment.yaml")


def test_resume_refuses_what_is_not_a_run(cli: Cli, tmp_path: Path) -> None:
    one_sentence(cli("train", "--resume", tmp_path / "nowhere"), "nowhere")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--label", "12"], ["label", "12", "9"]),
        (["--label", "cat"], ["label", "cat"]),
        (["--stepper", "heunn"], ["stepper", "heunn", "'heun'"]),
        (["--steps", "0"], ["steps", "0"]),
        (["--grid", "karas"], ["grid", "karas", "'karras'"]),
        (["--grid", "trailing"], ["trailing", "continuous"]),
        (["--ema", "0.2"], ["0.2"]),
        (["-n", "0"], ["0"]),
        (["--seed", "-1"], ["seed", "-1"]),
        (["--out", "x.jpeg"], ["x.jpeg", ".png"]),
        (["--stepper", "ddim", "--with", "eta=2"], ["eta", "2"]),
        (["--stepper", "ddim", "--with", "etta=1"], ["etta", "eta"]),
        (["--with", "eta=1"], ["--stepper"]),
        (["--out", "/proc/nowhere/x.png"], ["/proc/nowhere"]),
    ],
)
def test_sample_refuses_in_one_sentence(cli: Cli, run: Path, words: Any, said: Any) -> None:
    one_sentence(cli("sample", run, *words), *said)


def spoilt(run: Path, place: Any, name: Any, content: Any, accept: Any = False) -> Any:
    shutil.copytree(run, place)
    (place / name).write_bytes(content)
    if accept:  # so that it is not refused for being another file than was written
        manifest.accept(place, [path.name for path in (*place.glob("*.yaml"), *place.glob("*.safetensors"))])
    return place


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("run.yaml", b"{}"),
        ("run.yaml", b"\xff\xfe: ["),
        ("experiment.yaml", b"- 1"),
        ("experiment.yaml", b"a: [1"),
        ("ema-0.100.safetensors", b"not tensors"),
        ("ema-0.100.safetensors", b""),
    ],
)
def test_a_damaged_run_is_refused(cli: Cli, run: Path, tmp_path: Path, name: Any, content: Any) -> None:
    place = spoilt(run, tmp_path / "digits", name, content)
    one_sentence(cli("sample", place, "-n", 1), name)


def test_a_run_from_a_newer_version_is_refused(cli: Cli, run: Path, tmp_path: Path) -> None:
    text = (run / "experiment.yaml").read_text().replace("version: 2", "version: 99").encode()
    place = spoilt(run, tmp_path / "digits", "experiment.yaml", text, accept=True)
    one_sentence(cli("sample", place, "-n", 1), "version", "99")


def test_weights_of_another_network_are_refused(cli: Cli, run: Path, tmp_path: Path) -> None:
    text = (run / "experiment.yaml").read_text().replace("channels: 16", "channels: 32").encode()
    place = spoilt(run, tmp_path / "digits", "experiment.yaml", text, accept=True)
    one_sentence(cli("sample", place, "-n", 1), "ema-0.100.safetensors", "experiment.yaml")


def test_a_damaged_checkpoint_is_named_and_the_run_still_samples(cli: Cli, run: Path, tmp_path: Path) -> None:
    place = tmp_path / "digits"
    shutil.copytree(run, place)
    newest = sorted((place / "checkpoints").iterdir())[-1]
    (newest / "optimizer.safetensors").write_bytes(b"spoilt")
    one_sentence(cli("train", "--resume", place, "training.steps=35"), newest.name)
    assert cli("sample", place, "-n", 1, "--steps", 2).code == 0


def test_resuming_with_another_network_is_refused_and_changes_nothing(cli: Cli, run: Path, tmp_path: Path) -> None:
    place = tmp_path / "digits"
    shutil.copytree(run, place)
    before = (place / "experiment.yaml").read_text()
    answer = cli("train", "--resume", place, "net.channels=24", "training.steps=40")
    assert answer.code == 2, answer
    assert (place / "experiment.yaml").read_text() == before


def test_data_that_changed_are_refused(cli: Cli, run: Path, tmp_path: Path) -> None:
    about = yaml.safe_load((run / "run.yaml").read_text())
    about["data"]["sha256"] = "0" * 64
    place = spoilt(run, tmp_path / "digits", "run.yaml", yaml.safe_dump(about).encode(), accept=True)
    one_sentence(cli("train", "--resume", place, "training.steps=35"), "data", "differ")
    one_sentence(cli("evaluate", place), "data", "differ")
