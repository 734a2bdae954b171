"""Options, keys and YAML that nobody would write, by the hundred: a sentence and exit code 2, or it works."""

import random
import re
from pathlib import Path
from typing import Any, get_args, get_type_hints

import numpy as np
import pytest
import typer
import yaml
from PIL import Image
from sure import Cli

from ornstein.cli import app
from ornstein.errors import InputError
from ornstein.experiment.build import build, build_stepper, load_data
from ornstein.experiment.config import Experiment, methods, presets
from ornstein.experiment.train import train
from ornstein.samplers import STEPPERS

ODD = [
    "", " ", "0", "-1", "1", "2.5", "1e-3", "1e400", "-inf", ".nan", "nan", "true", "no", "null", "~", "[]", "{}",
    "[1, 2]", "[[", "{a: 1}", "'12'", '"', "*x", "&x 1", "!!int x", "2001-99-99", "1:30", "010", "0x10", "²", "é",
    "\udcff", "a b", "[/red]", "vp", "name", "9223372036854775808", "9" * 5000, "-9223372036854775809", "a\nb", "--",
    "=", "#", "%s", "\x07", "../x", "/dev/null", "x" * 400,
]  # fmt: skip
KEYS = [
    "process", "process.beta_max", "process.name", "net", "net.width", "net.depth", "data", "data.count", "data.noise",
    "data.seed", "predicts", "objective", "objective.drop_label", "training", "training.steps", "training.lr",
    "training.betas", "training.ema", "training.clip", "training.seed", "sampling", "sampling.steps", "sampling.grid",
    "sampling.ema", "sampling.stepper", "sampling.stepper.eta", "sampling.stepper.name", "sampling.preview", "preset",
    "version", "training. steps", "", ".", "a.b.c", "name", "1", "process.beta_max.x",
]  # fmt: skip
OPTIONS = {
    "sample": [
        "-n", "--label", "--stepper", "--with", "--steps", "--grid", "--seed", "--ema", "--out", "--guidance",
        "--scale", "--interval", "--rescale", "--guide", "--precision", "--given", "--film", "--bogus",
    ],
    "inpaint": ["--input", "--mask", "-n", "--method", "--noise", "--label", "--seed", "--steps", "--stepper", "--ema"],
    "restore": ["--operator", "--input", "--with", "--clean", "-n", "--method", "--noise", "--seed", "--steps"],
    "interpolate": ["--from", "--to", "-n", "--label", "--steps", "--stepper", "--ema", "--out"],
    "dream": ["--as", "-n", "--label", "--text", "--method", "--scale", "--noise", "--steps", "--lr", "--seed"],
    "loglik": ["--out", "-n", "--reference", "--draws", "--trace", "--probes", "--seed", "--ema"],
    "tune": ["--steps", "--criterion", "--count", "--rounds", "--ema"],
    "plan": ["--gpus", "--device", "--utilisation", "--price"],
    "list": [],
    "info": ["--bogus"],
    "evaluate": ["-n", "--seed", "--steps", "--stepper", "--ema"],
}  # fmt: skip
#: what a verb wants, so that the fuzz gets past it; small, so that it is soon done
GIVEN = {
    "sample": ["-n", "2", "--steps", "2"],
    "inpaint": ["-n", "1", "--steps", "2", "--input", "ROWS", "--force"],
    "restore": ["-n", "1", "--steps", "2", "--input", "ROWS", "--operator", "blur", "--force"],
    "interpolate": ["-n", "2", "--steps", "2", "--from", "0", "--to", "1", "--force"],
    "dream": ["-n", "2", "--steps", "2", "--force"],
    "loglik": ["test", "-n", "1", "--force", "--out", "s.csv"],
    "tune": ["--steps", "70", "--criterion", "endpoint"],
    "evaluate": ["-n", "0"],
    "impute": ["ROWS", "--force", "--out", "f.csv"],
    "forecast": ["ROWS", "--force", "--out", "f.csv"],
    "translate": ["--input", "ROWS", "--force", "--out", "t.npz"],
}
WORDS = ["eta=nan", "eta=1", "order=true", "name=1", "x.png", "x.npz", "8xH100", "hutchinson", "RUN", "ROWS"]
VALUES = [*ODD, *STEPPERS, *WORDS]


@pytest.fixture(scope="module")
def points(tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder = tmp_path_factory.mktemp("fuzz") / "run"
    short = ["training.steps=2", "training.warmup=1", "training.batch_size=16", "net.width=8", "data.count=100"]
    for _ in train(Experiment.read("moons", [*short, "sampling.preview=4", "sampling.steps=2"]), folder, draws=False):
        pass
    return folder


@pytest.fixture(params=[pytest.param(0.4, id="some"), pytest.param(1.0, id="all", marks=pytest.mark.slow)])
def share(request: Any) -> Any:
    """How much of each hundred is tried: in the slow tests all."""
    return request.param


def answered(answer: Any, words: Any) -> None:
    """Exit code 0 or 2, and nothing that looks like a fault of ours."""
    assert answer.code in (0, 2), (words, answer)
    assert "Traceback" not in answer.err, (words, answer)
    if answer.code == 2:
        assert re.fullmatch(r"\s*ornstein: [^\n]+\n?", answer.err), (words, answer)


@pytest.mark.parametrize("verb", OPTIONS)
def test_options(cli: Cli, points: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, verb: Any, share: Any) -> None:
    """Thirty for each verb, ninety for the one with the most options."""
    monkeypatch.chdir(tmp_path)
    np.save(tmp_path / "rows.npy", np.array([[np.nan, 0.5]], np.float32))
    rng = random.Random(verb)
    names = {"RUN": str(points), "ROWS": "rows.npy"}
    for _ in range(round(share * (90 if verb == "sample" else 30))):
        run = [str(points)] if verb not in ("plan", "list") else ["moons"] if verb == "plan" else []
        words = [verb, *run, *GIVEN.get(verb, [])]
        for _ in range(rng.randint(1, 2)):
            name, value = rng.choice([*OPTIONS[verb], *OPTIONS[verb], ""]), rng.choice(VALUES)
            if name == "--with":
                value = f"{rng.choice(['eta', 'width', 'by', 'order'])}={rng.choice(ODD)}"
                words += ["--stepper", "ddim"] * (verb == "sample")
            words += [name] * bool(name) + [value] * (name not in ("--film", "--clean"))
        if verb == "plan":  # nothing is timed
            words += ["--gpus", "L4"] * ("--gpus" not in words)
        words = [names.get(word, word) for word in words]
        answered(cli(*words), words)


def numbers() -> Any:
    """Every option of every verb that takes a number: (verb, option, whether it is a whole one)."""
    for command in app.registered_commands:
        hints = get_type_hints(command.callback)
        for parameter in typer.main.get_command(app).commands[command.name or command.callback.__name__].params:  # type: ignore
            kinds = {int, float} & {hints[parameter.name], *get_args(hints[parameter.name])}
            for kind in kinds if parameter.opts[0].startswith("-") else ():
                yield command.name or command.callback.__name__, parameter.opts[-1], kind is int  # type: ignore[union-attr]


@pytest.mark.parametrize(("verb", "option", "whole"), list(numbers()))
def test_no_option_takes_what_is_no_finite_number(
    cli: Cli,
    points: Any,
    run: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    verb: Any,
    option: Any,
    whole: Any,
) -> None:
    monkeypatch.chdir(tmp_path)
    np.save("rows.npy", np.array([[np.nan, 0.5]], np.float32))
    np.save("digit.npy", np.ones((1, 1, 8, 8), np.float32))
    names = {"ROWS": "digit.npy" if verb == "restore" else "rows.npy"}
    first = {"plan": "moons", "restore": run}.get(verb, points)
    needed = {"--scale": ["--label", "0"], "--rescale": ["--label", "0", "--scale", "2"]}
    words = [
        verb,
        first,
        *[names.get(word, word) for word in GIVEN.get(verb, [])],
        *(needed.get(option, []) if verb != "distill" else []),
    ]
    words += ["--gpus", "L4"] * (verb == "plan")
    for value in ("inf", "nan", "-inf", "1e400", "-nan", "Infinity", "x", "", *["1.5"] * whole):
        answer = cli(*words, f"{option}={value}")
        answered(answer, (*words, option, value))
        assert answer.code == 2, (words, option, value)
        assert option.strip("-") in answer.err, (answer.err, option, value)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["tune", "RUN", "--bogus", "1"], ["--bogus", "--rounds", "`ornstein tune -h`"]),
        (["tune", "RUN"], ["--steps", "`ornstein tune -h`"]),
        (["tune", "RUN", "--steps"], ["--steps", "`ornstein tune -h`"]),
        (["sample"], ["RUN", "`ornstein sample -h`"]),
        (["sample", "RUN", "more"], ["more"]),
        (["sample", "RUN", "--film=3"], ["--film"]),
        (["train", ""], ["experiment='' is empty"]),
        (["smple"], ["'smple'", "'sample'", "`ornstein -h`"]),
    ],
)
def test_wrong_usage_is_a_sentence_too(cli: Cli, points: Any, words: Any, said: Any) -> None:
    answer = cli(*[points if word == "RUN" else word for word in words])
    answered(answer, words)
    assert answer.code == 2
    assert all(word in answer.err for word in said), answer.err


@pytest.mark.parametrize("option", ["--label", "--seed", "--ema", "--scale", "--with"])
def test_every_odd_value_of_an_option(
    cli: Cli, points: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, option: Any, share: Any
) -> None:
    monkeypatch.chdir(tmp_path)
    for odd in random.Random(option).sample(ODD, round(share * len(ODD))):
        value = f"eta={odd}" if option == "--with" else odd
        more = ["--stepper", "ddim"] if option == "--with" else []
        words = ["sample", points, "-n", "2", "--steps", "2", *more, option, value]
        answered(cli(*words), words)


def test_keys_and_values(cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, share: Any) -> None:
    """Two hundred, one or two at a time, over presets and under methods."""
    monkeypatch.chdir(tmp_path)
    rng = random.Random(1)
    for _ in range(round(share * 200)):
        words = ["train", rng.choice(["moons", "digits", *ODD[:20]] if rng.random() < 0.2 else ["moons"])]
        for _ in range(rng.randint(1, 2)):
            words.append(f"{rng.choice(KEYS)}{rng.choice(['=', '=', '=', ' = ', ''])}{rng.choice(ODD)}")
        if rng.random() < 0.2:
            words.append(f"preset={rng.choice([*methods(), *presets()])}")
        answered(cli(*words, "--show"), words)


def test_files_of_yaml(cli: Cli, tmp_path: Path, share: Any) -> None:
    """Two hundred: a whole experiment with a line cut, doubled, moved, or a character changed."""
    rng = random.Random(2)
    whole = Experiment.read("moons", []).to_yaml()
    for _ in range(round(share * 200)):
        lines = whole.splitlines()
        for _ in range(rng.randint(1, 3)):
            at = rng.randrange(len(lines))
            change = rng.randrange(5)
            if change == 0:
                del lines[at]
            elif change == 1:
                lines.insert(at, lines[at])
            elif change == 2:
                lines[at] = lines[at].partition(":")[0] + ": " + rng.choice(ODD)
            elif change == 3:
                place = rng.randrange(len(lines[at]) + 1)
                lines[at] = lines[at][:place] + rng.choice("\t :-[]{}&*!'\"#%@x9\x01é") + lines[at][place:]
            else:
                lines[at], lines[0] = lines[0], lines[at]
        text = "\n".join(lines).encode("utf-8", "surrogateescape")
        (tmp_path / "x.yaml").write_bytes(text)
        answered(cli("train", tmp_path / "x.yaml", "--show"), text)


def test_any_bytes_in_the_place_of_an_experiment(cli: Cli, tmp_path: Path, share: Any) -> None:
    """A file of another kind, cut anywhere, is told from YAML by its name in a sentence."""
    np.savez(tmp_path / "a.npz", x=np.ones((4, 2)))
    np.save(tmp_path / "a.npy", np.ones((4, 2)))
    Image.fromarray(np.zeros((4, 4, 3), np.uint8)).save(tmp_path / "a.png")
    (tmp_path / "a.csv").write_text("height,weight\n1.5,2\n3,4\n")
    (tmp_path / "a.py").write_text("import os\nos.remove('x: y')\n")
    rng, place = random.Random(4), tmp_path / "x.yaml"
    for source in [tmp_path / f"a.{kind}" for kind in ("npz", "npy", "png", "csv", "py")]:
        whole = source.read_bytes()
        spoilt = [bytes(rng.choice(whole) for _ in range(rng.randint(1, 60))) for _ in range(round(share * 40))]
        for content in (whole, whole[: len(whole) // 2], *spoilt):
            place.write_bytes(content)
            answer = cli("train", place, "--show")
            answered(answer, content)
            assert answer.code == 2
            assert "x.yaml" in answer.err
            assert "unicode string" not in answer.err
        place.write_bytes(whole)
        said = cli("train", place, "--show").err
        assert source.suffix in (".csv", ".py") or f"{place.name} is not text" in said, said
        answered(cli("train", source, "--show"), whole)  # as data, which it may be


def test_what_is_accepted_can_be_built() -> None:
    """Of values that the reading lets through, the parts make sense or say in a sentence why not."""
    rng = random.Random(3)
    small = ["0", "1", "-1", "2.5", "1e-3", "1e400", "nan", "true", "null", "[]", "[1, 2]", "vp", "3", "1e9", "''"]
    keys = [
        "process.beta_max", "process.beta_min", "process.t_max", "objective.drop_label", "net.depth", "training.ema",
        "sampling.stepper.order", "sampling.stepper", "sampling.grid", "predicts", "process", "objective",
    ]  # fmt: skip
    built, data = 0, load_data(Experiment.read("moons", ["data.count=100"]))
    for _ in range(200):
        changes = [f"{rng.choice(keys)}={rng.choice(small)}" for _ in range(rng.randint(1, 2))]
        if any(change.startswith("net.depth=1e9") for change in changes):
            continue
        try:
            asked = Experiment.read("moons", changes)
            build_stepper(asked.sampling.stepper)
            build(asked, data.fingerprint(), data.transform)
            built += 1
            assert yaml.safe_load(asked.to_yaml())
        except InputError:
            continue
    assert built > 10
