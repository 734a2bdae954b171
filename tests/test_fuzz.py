"""Options, keys and YAML that nobody would write, by the hundred: a sentence and exit code 2, or it works."""

import gzip
import inspect
import os
import random
import re
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args, get_type_hints

import fuzz_reading
import numpy as np
import pytest
import yaml
from PIL import Image
from sure import Cli

from ornstein.cli import _verbs
from ornstein.errors import InputError
from ornstein.experiment.build import build, build_stepper, load_data
from ornstein.experiment.config import Experiment, methods, presets
from ornstein.experiment.plain import parsed
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
    for verb, command in _verbs().items():
        hints = get_type_hints(inspect.unwrap(command.callback))
        for parameter in command.params:
            kinds = {int, float} & {hints[parameter.name], *get_args(hints[parameter.name])}
            for kind in kinds if parameter.opts[0].startswith("-") else ():
                yield verb, parameter.opts[-1], kind is int


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
    for value in ("inf", "nan", "-inf", "1e400", "x", "", *["1.5"] * whole):
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


def test_who_reads_a_text_again_reads_what_it_says() -> None:
    """It is parsed once, and what is made of it is changed: presets by what is asked, an experiment by what is open."""
    text = "net: {width: 8}\nema: [0.1]\n"
    first = parsed(text, "a")
    first["net"]["width"] = 9
    first["ema"].append(0.2)
    assert parsed(text, "b") == {"net": {"width": 8}, "ema": [0.1]}


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


# --- bad files, by every verb that takes one

#: kind of file -> words of the verbs that take such, FILE being the file; each needs no more to be soon done
TAKES = {
    "table": [
        "train FILE", "train --from adult FILE", "impute adult FILE -n 1 --out o.csv", "plan FILE",
        "loglik adult FILE -n 1 --out o.csv", "train series data.path=FILE", "train --from SERIES FILE",
        "forecast SERIES FILE --steps 2 -n 1 --out o.csv", "impute SERIES FILE -n 1 --out o.csv",
        "loglik SERIES FILE -n 1 --out o.csv --reference 0",
    ],
    "picture": [
        "train FILE", "inpaint digits --input FILE --mask FILE --out o.png", "loglik digits FILE --out o.csv",
        "restore digits --operator blur --input FILE --out o.png", "interpolate digits --from FILE --to 0 --out o.png",
        "interpolate digits --from 0 --to FILE --out o.png",
    ],
    "array": [
        "train FILE", "train --from moons FILE", "impute moons FILE -n 1 --out o.npz", "loglik moons FILE --out o.csv",
        "inpaint moons --input FILE --out o.png", "interpolate moons --from FILE --to 0 --out o.png",
        "forecast SERIES FILE --steps 2 -n 1 --out o.csv", "plan FILE",
    ],
    "zip": ["train FILE", "train --from digits FILE", "loglik digits FILE --out o.csv", "plan FILE"],
}  # fmt: skip


def bad_tables() -> dict[str, bytes]:
    """Truncated, in another encoding, ragged, with a column twice, without rows, infinite, huge, and what is none."""
    rows = [f"2013-01-{1 + i // 24:02d} {i % 24:02d}:00,{i}.5,word" for i in range(60)]
    head, whole = b"time,warmth,note", "\n".join(["time,warmth,note", *rows]).encode()
    return {
        "cut.csv": whole[:-9], "cut.csv.gz": gzip.compress(whole)[:-20], "zeros.csv": bytes(999), "empty.csv": b"",
        "sixteen.csv": whole.decode().encode("utf-16")[:-1], "header.csv": head, "ragged.csv": whole + b"\n1,2",
        "wide.csv": whole + b"\n1,2,3,4", "twice.csv": whole.replace(b"note", b"time", 1),
        "infinite.csv": whole.replace(b",7.5,", b",inf,"), "huge.csv": whole + b"\n1,2," + b"x" * 200_000,
        "quote.csv": whole + b'\n"' + b"x,1\n" * 50_000, "picture.csv": fuzz_reading.picture("png", 0),
        "none.parquet": b"PAR1PAR1", "bomb.csv.gz": gzip.compress(head + b"\n" * 3 * 10**8, 1),
    }  # fmt: skip


def bad_pictures() -> dict[str, bytes]:
    """Truncated, 0x0, 50,000x50,000, and what is none."""
    return {
        "cut.png": fuzz_reading.picture("png", 0)[:40], "nothing.png": fuzz_reading.png(0, 0, zlib.compress(b"")),
        "large.png": fuzz_reading.png(50_000, 50_000, zlib.compress(bytes(100))), "text.png": b"no picture",
        "empty.png": b"", "eps.png": b"%!PS-Adobe-3.0 EPSF-3.0\n", "heic.jpg": b"\0\0\0\x18ftypheic" + bytes(99),
    }  # fmt: skip


def bad_arrays() -> dict[str, bytes]:
    """Truncated, objects, words, infinite, larger than they are, a bomb, and what is none."""
    npy = fuzz_reading.npy
    return {
        "cut.npy": npy(np.ones((9, 2)))[:-9], "objects.npy": npy(np.array([{}], object)), "empty.npy": b"",
        "words.npy": npy(np.array(["a", "b"])), "infinite.npy": npy(np.full((9, 2), np.inf)), "text.npy": b"no array",
        "declared.npy": fuzz_reading.headed("{'descr': '<f4', 'fortran_order': False, 'shape': (10**12,)}"),
        "none.npz": fuzz_reading.zipped(), "bomb.npz": fuzz_reading.npz(True, x=np.zeros((9000, 9000), np.uint8)),
    }  # fmt: skip


def bad_zips() -> dict[str, bytes]:
    """Truncated, without pictures, a bomb, a way out, pictures of sizes that none has, and what is none."""
    zipped, zlibbed = fuzz_reading.zipped, zlib.compress(bytes(100))
    sizes = {"a.png": fuzz_reading.png(0, 0, zlibbed), "b.png": fuzz_reading.png(50_000, 50_000, zlibbed)}
    return {
        "cut.zip": zipped(("a.png", fuzz_reading.picture("png", 0)))[:-30], "text.zip": b"PK\x03\x04" + bytes(50),
        "none.zip": zipped(), "bomb.zip": zipped(("a.png", bytes(2**27))), "sizes.zip": zipped(*sizes.items()),
        "outside.zip": zipped(("../../a.png", b"no picture")),
    }  # fmt: skip


BAD: dict[str, Callable[[], dict[str, bytes]]] = {
    "table": bad_tables,
    "picture": bad_pictures,
    "array": bad_arrays,
    "zip": bad_zips,
}


@pytest.fixture(scope="module")
def hours(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run on a series, hardly trained."""
    folder = tmp_path_factory.mktemp("hours")
    begin = np.datetime64("2013-01-01T00")
    lines = [f"{begin + np.timedelta64(i, 'h')}:00,{i % 24}.5" for i in range(700)]
    (folder / "hours.csv").write_text("\n".join(["time,warmth", *lines]))
    few = [f"data.path={folder / 'hours.csv'}", "training.steps=1", "net.channels=8", "training.batch_size=4"]
    for _ in train(Experiment.read("series", few), folder / "run", draws=False):
        pass
    return folder / "run"


@pytest.mark.parametrize("every", [False, pytest.param(True, marks=pytest.mark.slow)])
@pytest.mark.parametrize("kind", TAKES)
def test_a_bad_file_is_a_sentence_by_every_verb_and_nothing_is_left(
    cli: Cli, hours: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, every: bool
) -> None:
    """Each verb with one file drawn at random, in the slow tests with all of them."""
    monkeypatch.chdir(tmp_path)
    names = list(bad := BAD[kind]())
    for name, content in bad.items():
        Path(name).write_bytes(content)
    suffix = Path(names[0]).suffix
    Path(f"loop{suffix}").symlink_to(tmp_path / f"loop{suffix}")
    Path(f"endless{suffix}").symlink_to("/dev/zero")
    os.mkfifo(f"pipe{suffix}")
    names += [f"loop{suffix}", f"endless{suffix}", f"pipe{suffix}", f"nowhere{suffix}", "x" * 300 + suffix]
    before, rng = sorted(os.listdir()), random.Random(kind)
    for verb in TAKES[kind]:
        for name in names if every else [rng.choice(names)]:
            words = [word.replace("FILE", name).replace("SERIES", str(hours)) for word in verb.split()]
            words += ["training.steps=1", "--out", "run"] * (words[0] == "train")
            answer = cli(*words)
            answered(answer, words)
            assert answer.code == 2, (words, answer)
            assert sorted(os.listdir()) == before, words
