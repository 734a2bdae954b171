"""Laws of texts as conditions: from files into tokens, from tokens into networks, and from words to pictures."""

import dataclasses
import io
import shlex
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from laws import refused
from PIL import Image
from sure import Cli, once

import ornstein
from ornstein.data import Emoji, ImageFolder, Known, open_data, sentences
from ornstein.data.before import as_before
from ornstein.data.captions import captioned, split_texts
from ornstein.data.condition import pieces
from ornstein.data.sentences import Encoder
from ornstein.experiment.plain import parsed, written
from ornstein.laws.nets import nudged
from ornstein.nets import Label, Tokens, Transformer, UNet, attend
from ornstein.nets.attention import CrossAttention

COLOURS = {"red": (220, 30, 30), "green": (30, 200, 40), "blue": (40, 60, 230), "yellow": (240, 220, 40)}
SIDES = ("left", "right", "top", "low")


def pictures(folder: Path) -> Path:
    """48 pictures of 8x8: a half in a colour, with a caption for each in captions.csv, three of a kind."""
    folder.mkdir(parents=True, exist_ok=True)
    lines = ["file,caption"]
    for i in range(48):
        colour, side = list(COLOURS)[i % 4], SIDES[i // 4 % 4]
        image = np.full((8, 8, 3), 255, np.uint8)
        half: Any = {"left": np.s_[:, :4], "right": np.s_[:, 4:], "top": np.s_[:4], "low": np.s_[4:]}[side]
        image[half] = COLOURS[colour]
        image[0, 0] = i
        Image.fromarray(image).save(folder / f"{i:02}.png")
        lines.append(f'{i:02}.png,"{colour.title()}, on the {side}!"')
    (folder / "captions.csv").write_text("\n".join(lines))
    return folder


@pytest.fixture(scope="module")
def captioned_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of a few steps on pictures with captions."""

    def make(folder: Path) -> None:
        from ornstein.experiment.config import Experiment
        from ornstein.experiment.train import train

        tiny = ["net.channels=8", "net.multipliers=[1]", "net.blocks=1", "net.attention=[8]", "net.embedding=8",
                "training.steps=12", "training.lr=0.02", "training.batch_size=8", "training.warmup=1",
                "training.threads=1", "training.precision=float32", "sampling.precision=float32", "sampling.ema=0",
                "sampling.steps=2", "sampling.preview=0", "data.captions=captions.csv"]  # fmt: skip
        tiny.append(f"data.path={pictures(folder / 'photos')}")
        for _ in train(Experiment.read("images", tiny), folder / "run"):
            pass

    return once(tmp_path_factory, "captioned", make) / "run"


# --- tokens --------------------------------------------------------------------------------------------------------


def test_a_text_is_taken_apart_and_put_together() -> None:
    assert pieces("The Mother's RED  heart-shaped box (№ 2)", "words") == [
        "the", "mother's", "red", "heart", "shaped", "box", "no", "2",
    ]  # fmt: skip
    assert pieces(" A \n b", "characters") == ["a", " ", "b"]
    words = Known("words", (3,), classes=("heart", "red", "6e80"))
    assert words.model("Red HEART", 2).tolist() == [[1, 0, -1]] * 2
    assert words.model(["6e80", ""], 2).tolist() == [[2, -1, -1], [-1, -1, -1]]
    assert words.model(None, 1).tolist() == [[-1, -1, -1]]
    assert words.texts(words.model("Red HEART", 1)) == ["red heart"]
    letters = Known("characters", (4,), classes=("a", " ", "b"))
    assert letters.texts(letters.model("a  B", 1)) == ["a b"]
    for known in (words, letters):  # as a run folder keeps it, numbers in words being words still
        assert Known.from_dict(parsed(written(known.to_dict()), "")) == known


@pytest.mark.parametrize(
    ("value", "n", "said"),
    [
        ("read heart", 1, ["text='read heart'", "'read'", "'red'"]),
        ("red red red red", 1, ["4 words", "at most 3"]),
        ("?!", 1, ["'?!'", "no words"]),
        (["red"], 2, ["(1,)", "2"]),
        (torch.zeros(2, 2, dtype=torch.int64), 2, ["(2, 3)"]),
        (torch.full((2, 3), 9), 2, ["0 to 1"]),
    ],
)
def test_a_text_that_cannot_be_is_refused(value: Any, n: Any, said: Any) -> None:
    refused(lambda: Known("words", (3,), classes=("heart", "red")).model(value, n, "text"), *said)
    refused(lambda: Known("words", (3,)), "names")
    refused(lambda: Known("words", classes=("a",)), "shape")


def test_the_vocabulary_is_that_of_the_training_part() -> None:
    column, remark = captioned(["red heart", "blue heart", ""], ["red moon", "moon"], "words", "x")
    assert column.about.classes[0] == "heart"  # the commonest first
    assert set(column.about.classes) == {"heart", "red", "blue"}
    assert column.about.texts(column.train) == ["red heart", "blue heart", ""]
    assert column.about.texts(column.test) == ["red", ""]
    assert "2 of 3 held-out words are new" in remark
    refused(lambda: captioned(["", "!"], ["a"], "words", "x"), "x has no words")


def test_what_shares_an_entry_is_held_out_together() -> None:
    texts = [f"caption {i % 40}" for i in range(120)]
    train, test = split_texts(texts, 0.1, 0)
    assert sorted([*train.tolist(), *test.tolist()]) == list(range(120))
    assert len(test) == 12
    assert not {texts[i] for i in train} & {texts[i] for i in test}


# --- files ---------------------------------------------------------------------------------------------------------


def test_a_folder_with_captions(tmp_path: Path) -> None:
    folder = pictures(tmp_path / "photos")
    data = ImageFolder(str(folder), captions="captions.csv").load()
    column = data.conditions["text"]
    assert set(column.about.classes) == {"on", "the", *COLOURS, *SIDES}
    for x, text in zip(data.train, column.about.texts(column.train), strict=True):
        colour, _, _, side = text.split()
        i = int(x[0, 0, 0])
        assert (colour, side) == (list(COLOURS)[i % 4], SIDES[i // 4 % 4])
    # by the last parts of their names, when they lie deeper; without a header; one is not told
    lines = (folder / "captions.csv").read_text().splitlines()
    (tmp_path / "deep").mkdir()
    folder.rename(tmp_path / "deep" / "inner")
    (tmp_path / "said.csv").write_text("\n".join(lines[1:-1]))
    again = ImageFolder(str(tmp_path / "deep"), captions=str(tmp_path / "said.csv"), text="characters").load()
    column = again.conditions["text"]
    texts = [*column.about.texts(column.train), *column.about.texts(column.test)]
    assert texts.count("") == 1
    assert "1 of 48 pictures have no caption" in again.describe()
    assert "red, on the left!" in texts


def test_many_captions_are_held_out_whole_and_few_are_not(tmp_path: Path) -> None:
    for i in range(120):
        Image.new("L", (4, 4), i).save(tmp_path / f"{i}.png")
    for kinds, apart in ((60, True), (3, False)):
        rows = [f"{i}.png,number {i % kinds}" for i in range(120)]
        (tmp_path / "c.csv").write_text("file,caption\n" + "\n".join(rows))
        data = ImageFolder(str(tmp_path), captions="c.csv").load()
        kind = [{int(x[0, 0, 0]) % kinds for x in part} for part in (data.train, data.test)]
        assert (not kind[0] & kind[1]) == apart
        assert ("held out by caption" in data.describe()) == apart


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("file,caption\nx.png,a", ["names none", "'00.png'", "'x.png'"]),
        ("file,caption\n00.png,a\n00.png,b", ["two captions of '00.png'"]),
        ("file,size,year\n00.png,1,2", ["file, size, year", "caption"]),
        ("file,caption\n00.png,?", ["no words"]),
    ],
)
def test_captions_that_cannot_be_are_refused(tmp_path: Path, content: str, said: Any) -> None:
    folder = pictures(tmp_path / "photos")
    (folder / "captions.csv").write_text(content)
    refused(lambda: ImageFolder(str(folder), captions="captions.csv").load(), "data.captions", *said)
    refused(lambda: ImageFolder(str(folder), text="phrases"), "data.text", "words, characters, sentences")  # type: ignore[arg-type]


def test_a_column_of_many_texts_is_captions(tmp_path: Path) -> None:
    texts = np.array([f"the {i} of {i % 7}" for i in range(80)])
    np.savez(
        tmp_path / "a.npz", x=np.random.default_rng(0).normal(size=(80, 3)), said=texts, kind=texts[np.arange(80) % 5]
    )
    data = open_data(tmp_path / "a.npz", condition=("said", "kind"), key="x").load()
    assert {name: column.about.kind for name, column in data.conditions.items()} == {"said": "words", "kind": "label"}
    assert "'said' read as texts" in data.describe()


def emoji(folder: Path) -> Path:
    """emoji32.npz with 24 captions by three vendors, and a variant of skin."""
    blobs, captions, vendors, skins = [], [], [], []
    for i in range(72 + 1):
        with io.BytesIO() as file:
            Image.new("RGB", (32, 32), (i, 0, 0)).save(file, "PNG")
            blobs.append(file.getvalue())
        captions.append(f"thing {'abcdefghijklmnopqrstuvwx'[i % 24]}")
        vendors.append(("noto", "twemoji", "openmoji")[i // 24 % 3])
        skins.append("1F3FB" if i == 72 else "")
    offsets = np.cumsum([0, *map(len, blobs)])
    blob = np.frombuffer(b"".join(blobs), np.uint8)
    np.savez(folder / "emoji32.npz", blob=blob, offsets=offsets, caption=captions, vendor=vendors, skin=skins)
    return folder


def test_emoji_leave_out_what_is_to_be_shared_alike_and_hold_captions_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ORNSTEIN_DATA", str(emoji(tmp_path)))
    data = open_data("emoji").load()
    assert data.shape == (3, 32, 32)
    shades = [set(part[:, 0, 0, 0].tolist()) for part in (data.train, data.test)]
    assert shades[0] | shades[1] == set(range(48))
    assert not {shade % 24 for shade in shades[0]} & {shade % 24 for shade in shades[1]}
    column = data.conditions["text"]
    assert column.about.texts(column.train)[0] == f"thing {'abcdefghijklmnopqrstuvwx'[min(shades[0])]}"
    assert len(Emoji(skin=True, vendors=("noto",)).load().train) == 22
    refused(lambda: Emoji(vendors=("apple",)).load(), "'apple'", "noto, openmoji, twemoji")
    monkeypatch.setenv("ORNSTEIN_DATA", str(tmp_path / "no"))
    refused(lambda: Emoji().load(), "ORNSTEIN_DATA", "emoji32.npz")
    refused(lambda: Emoji(root=str(tmp_path / "photos")).load(), "data='emoji'", "emoji32.npz")


def test_who_goes_on_with_other_captions_keeps_the_vocabulary(tmp_path: Path) -> None:
    folder = pictures(tmp_path / "photos")
    old = ImageFolder(str(folder), captions="captions.csv").load()
    said = (folder / "captions.csv").read_text().replace("Red", "Purple")
    (folder / "captions.csv").write_text(said)
    new = as_before(ImageFolder(str(folder), captions="captions.csv").load(), old.fingerprint(), old.transform)
    about = new.conditions["text"].about
    assert about == old.conditions["text"].about
    texts = set(about.texts(new.conditions["text"].train))
    assert "green on the left" in texts
    assert "on the left" in texts  # of the purple ones, which it has no word for


# --- sentences -----------------------------------------------------------------------------------------------------


def small_encoder() -> Encoder:
    """Of a few pieces and random weights, in 24 numbers and two layers."""
    dice, sizes = torch.Generator().manual_seed(0), {"intermediate.dense": (48, 24), "output.dense": (24, 48)}
    pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "red", "heart", "##s", "he", "##a", "cafe", ",", "\u65e5"]
    shapes = {"word": (len(pieces), 24), "position": (16, 24), "token_type": (2, 24)}
    weights = {
        f"embeddings.{name}_embeddings.weight": torch.randn(*size, generator=dice) for name, size in shapes.items()
    }
    layers = [f"encoder.layer.{i}." for i in range(2)]
    for layer in layers:
        inner = {f"attention.self.{part}": (24, 24) for part in ("query", "key", "value")}
        for name, size in {**inner, "attention.output.dense": (24, 24), **sizes}.items():
            weights[f"{layer}{name}.weight"] = 0.3 * torch.randn(*size, generator=dice)
            weights[f"{layer}{name}.bias"] = torch.randn(size[0], generator=dice)
    for norm in ("embeddings", *(f"{layer}{part}" for layer in layers for part in ("attention.output", "output"))):
        weights[f"{norm}.LayerNorm.weight"] = 1 + 0.2 * torch.randn(24, generator=dice)
        weights[f"{norm}.LayerNorm.bias"] = torch.randn(24, generator=dice)
    return Encoder(pieces, weights)


def test_a_text_is_cut_into_the_longest_pieces() -> None:
    numbers = small_encoder().pieces
    assert numbers("Red HEARTS") == [2, 4, 5, 6, 3]
    assert numbers("caf\u00e9,hea \u65e5\u65e5") == [2, 9, 10, 7, 8, 11, 11, 3]
    assert numbers("heap zzz") == [2, 1, 1, 3]  # a word that is not covered to its end is unknown
    assert len(numbers("red " * 400)) == 256


def test_the_encoder_is_a_transformer_of_torch() -> None:
    """Which is told the same weights; a text is the same beside a longer one."""
    encoder = small_encoder()
    w, stack = encoder.weights, torch.nn.ModuleList()
    for i in range(2):
        layer = torch.nn.TransformerEncoderLayer(24, 12, 48, 0.0, "gelu", 1e-12, batch_first=True)
        at = f"encoder.layer.{i}."
        inner = [f"{at}attention.self.{part}" for part in ("query", "key", "value")]
        own = {
            "linear1": "intermediate.dense",
            "linear2": "output.dense",
            "self_attn.out_proj": "attention.output.dense",
            "norm1": "attention.output.LayerNorm",
            "norm2": "output.LayerNorm",
        }
        told = {f"{a}.{part}": w[f"{at}{b}.{part}"] for a, b in own.items() for part in ("weight", "bias")}
        told |= {
            f"self_attn.in_proj_{part}": torch.cat([w[f"{name}.{part}"] for name in inner])
            for part in ("weight", "bias")
        }
        layer.load_state_dict(told)
        stack.append(layer.eval())
    texts = ["red", "hearts, he red cafe"]
    found = encoder(texts)
    for row, text in enumerate(texts):
        tokens = encoder.pieces(text)
        h = w["embeddings.word_embeddings.weight"][tokens] + w["embeddings.position_embeddings.weight"][: len(tokens)]
        h = h + w["embeddings.token_type_embeddings.weight"][0]
        h = F.layer_norm(h, (24,), w["embeddings.LayerNorm.weight"], w["embeddings.LayerNorm.bias"], 1e-12)[None]
        for each in stack:
            h = each(h)
        torch.testing.assert_close(found[row], F.normalize(h[0].mean(0), dim=0), rtol=1e-4, atol=1e-5)


def test_captions_as_sentences(tmp_path: Path) -> None:
    folder = pictures(tmp_path / "photos")
    source = ImageFolder(str(folder), captions="captions.csv", text="sentences")
    if sentences.place() is None:
        refused(source.load, "pip install 'ornstein[sentences]'")
        return
    data = source.load()
    about = data.conditions["text"].about
    assert Known.from_dict(parsed(written(about.to_dict()), "")) == about
    told = about.model(["Red, on the left!", "", "crimson, on the left", "the flag of Japan"], 4)
    assert told[1].isnan().all()
    one, same, other = about.units(told[[0, 2, 3]])
    assert one @ same > 0.5 > 0.4 > one @ other
    # what the authors' own program makes of it
    theirs = torch.tensor([-0.033748, -0.008057, -0.038663, 0.073061])
    torch.testing.assert_close(sentences.encoder()(["red heart"])[0, :4], theirs, rtol=0, atol=2e-6)


# --- networks ------------------------------------------------------------------------------------------------------

NETS: dict[str, Any] = {
    "unet": UNet(channels=8, multipliers=(1, 2), blocks=1, attention=(8,), heads_width=4, embedding=16),
    "transformer": Transformer(width=16, depth=2, heads_width=8, patch=2, embedding=16),
}
TEXTS = torch.tensor([[0, 1, 2, -1, -1], [3, -1, -1, -1, -1], [-1, -1, -1, -1, -1], [2, 1, 0, 3, 3]])


@pytest.mark.parametrize("place", [5, 300])
def test_masked_keys_are_as_if_they_were_not_there(place: int) -> None:
    """By plain products and by the fused kernel, which take over from each other with the number of queries."""
    dice = torch.Generator().manual_seed(0)
    query, key, value = (torch.randn(2, 3, n, 4, generator=dice) for n in (place, 6, 6))
    there = torch.tensor([[True, True, False, True, False, False], [True] * 6])
    found = attend(query, key, value, there[:, None, None])
    for row in range(2):
        k, v = (part[row : row + 1, :, there[row]] for part in (key, value))
        weights = torch.softmax(query[row : row + 1] @ k.transpose(-1, -2) / 2, -1)
        torch.testing.assert_close(found[row : row + 1], weights @ v, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", NETS)
def test_a_net_that_attends_reads_each_token(name: str) -> None:
    plain = NETS[name].build((2, 8, 8), {"label": Label(3)})
    assert not [key for key in plain.state_dict() if "text" in key]  # nothing of this where there is no text
    built = NETS[name].build((2, 8, 8), {"caption": Tokens(4, 5)})
    assert any(isinstance(part, CrossAttention) for part in built.modules())
    assert all(
        not p.proj.weight.any() and not p.proj.bias.any() for p in built.modules() if isinstance(p, CrossAttention)
    )
    net: Any = nudged(built, size=0.3)
    x, level = torch.randn(4, 2, 8, 8, generator=torch.Generator().manual_seed(0)), torch.zeros(4)
    found = net(x, level, {"caption": TEXTS})
    near: Any = {"rtol": 1e-4, "atol": 1e-5}
    torch.testing.assert_close(net(x, level, {"caption": TEXTS[:, :4]})[:3], found[:3], **near)  # what is beyond a text
    order = torch.tensor([2, 0, 3, 1])
    torch.testing.assert_close(net(x[order], level, {"caption": TEXTS[order]}), found[order], **near)
    absent = net(x, level, {"caption": torch.full((4, 5), -1)})
    assert torch.equal(absent, net(x, level))
    torch.testing.assert_close(found[2], absent[2], **near)
    # with the mean silenced, what is read is read by attention alone
    with torch.no_grad():
        for part in (net.embedding.caption.joined.weight, net.embedding.caption.joined.bias):
            part.zero_()
        one = x[:1].expand(2, -1, -1, -1)
        by_attention = net(one, level[:2], {"caption": torch.tensor([[0, 1, 2, -1, -1], [0, 3, 2, -1, -1]])})
    assert (by_attention[0] - by_attention[1]).abs().max() > 1e-3


def test_several_texts_are_dropped_each_on_its_own() -> None:
    net = nudged(NETS["transformer"].build((2, 4, 4), {"a": Tokens(4, 5), "b": Tokens(4, 5)}), size=0.3)
    x, level = torch.zeros(1, 2, 4, 4), torch.zeros(1)
    row = TEXTS[:1]
    both, a, b, none = (net(x, level, given) for given in ({"a": row, "b": row}, {"a": row}, {"b": row}, {}))
    for one, other in ((both, a), (both, b), (a, b), (a, none), (b, none)):
        assert (one - other).abs().max() > 1e-3
    torch.testing.assert_close(net(x, level, {"a": row, "b": torch.full((1, 5), -1)}), a, rtol=1e-4, atol=1e-5)


# --- from words to pictures ----------------------------------------------------------------------------------------


def test_the_studio_takes_texts_as_the_command_line_does(cli: Cli, captioned_run: Path, tmp_path: Path) -> None:
    pytest.importorskip("gradio", reason="the studio's extra is not installed")
    from ornstein.experiment.stream import stream
    from ornstein.studio.limits import Limits
    from ornstein.studio.playground import Controls, Playground
    from ornstein.studio.words import command, snippet

    run = ornstein.load(captioned_run)
    page: Any = SimpleNamespace(limits=Limits(), shelf=SimpleNamespace(open=lambda name: run))
    facts = Playground(page)._facts("run")
    assert facts["text"]["visible"]
    assert facts["scale"]["visible"]
    said = Controls(str(captioned_run), "", "", 3, 2, "", 2, "", "", "", 5, "red on the left; Blue")
    asked = said.drawing(page, run)
    assert asked.text == ("red on the left", "Blue")
    *_, last = stream(run, asked)
    words = command(str(captioned_run), asked, str(tmp_path / "a.npz"))
    assert "--text 'red on the left' --text Blue" in words
    assert cli(*shlex.split(words)[1:]).code == 0
    drawn = np.load(tmp_path / "a.npz")
    assert drawn["text"].tolist() == ["red on the left", "blue", "red on the left"]
    ours = run.layout.give_back(run.transform.inverse(last.noisy, quantise=True)).numpy().astype(int)
    assert abs(ours - drawn["samples"]).max() <= 1  # a sum of float32, rounded in batches of another size
    kept: dict[str, Any] = {}
    exec(snippet(str(captioned_run), asked, run), kept)
    assert torch.equal(kept["samples"], torch.from_numpy(drawn["samples"]))
    other = stream(run, dataclasses.replace(asked, text=("yellow",)))
    assert not torch.equal([*other][-1].noisy, last.noisy)
    refused(lambda: next(stream(run, dataclasses.replace(asked, text=("purple",)))), "'purple'")


def test_samples_are_drawn_from_texts(cli: Cli, captioned_run: Path, tmp_path: Path) -> None:
    run = ornstein.load(captioned_run)
    assert run.conditions["text"].kind == "words"
    one = run.sample(2, text="red on the left", seed=3)
    assert torch.equal(one, run.sample(2, condition={"text": "red on the left"}, seed=3))
    assert torch.equal(one[:1], run.sample(1, text=["Red: on the LEFT"], seed=3))
    out = tmp_path / "drawn.npz"
    answer = cli("sample", captioned_run, "-n", 4, "--text", "red on the left", "--text", "blue", "--scale", 2,
                 "--seed", 3, "--out", out)  # fmt: skip
    assert answer.code == 0, answer.err
    with np.load(out) as file:
        assert file["text"].tolist() == ["red on the left", "blue"] * 2
    other, none = (run.sample(2, text=text, seed=3, raw=True) for text in ("blue on the left", ""))
    same = run.sample(2, text="red on the left", seed=3, raw=True)
    assert min((same - other).abs().max(), (same - none).abs().max()) > 0.1  # of 255
    answer = cli("sample", captioned_run, "-n", 6, "--text", "red", "--text", "blue", "--out", tmp_path / "two.png")
    assert answer.code == 0, answer.err
    with Image.open(tmp_path / "two.png") as picture:
        assert picture.height > picture.width  # a column for each text
    answer = cli("sample", captioned_run, "--text", "purple heart", "--out", tmp_path / "no.png")
    assert answer.code == 2
    assert "'purple' was not seen in training" in answer.err
    answer = cli("sample", "digits", "--text", "three", "--out", tmp_path / "no.png")
    assert answer.code == 2
    assert "trained given label" in answer.err
