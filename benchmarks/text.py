"""Bits per character of held-out text: a model of tokens beside n-grams and a compressor, on the same characters.

    python benchmarks/text.py write runs/docstrings.txt
    ornstein train text data.path=runs/docstrings.txt --out runs/docstrings
    python benchmarks/text.py compare runs/docstrings

The text consists of the documentation strings of the modules in Python's standard library, in the order of their names,
so it comes with every Python; the last tenth is held out. The n-grams are interpolated by Witten and Bell's rule
(1991), counted on the same training part. The figure of lzma is the number of bits that the held-out part adds to the
compressed training part. The model's figures are for pieces of the length that it was trained on, each without what
stands before it, whereas the n-grams and lzma see everything before a character. They are -log p in reading order, if
the model reads in order, and the bound on it that is the mean over all orders.
"""

import ast
import lzma
import math
import sys
import sysconfig
from collections import Counter, defaultdict
from pathlib import Path

import common


def corpus() -> str:
    """The documentation strings of the standard library's modules, classes and functions, each once."""
    found: dict[str, None] = {}
    for file in sorted(Path(sysconfig.get_path("stdlib")).glob("*.py")):
        for node in ast.walk(ast.parse(file.read_bytes())):
            if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
                found |= dict.fromkeys([ast.get_docstring(node) or ""])
    # a few letters of other alphabets would be classes of their own
    return "\n\n".join(text for text in found if text.isascii() and len(text) > 40)


def ngram(train: str, held: str, order: int) -> float:
    """Bits per character under an n-gram interpolated with all shorter ones."""
    counts: list[dict[str, Counter[str]]] = [defaultdict(Counter) for _ in range(order)]
    for n in range(order):
        for i in range(n, len(train)):
            counts[n][train[i - n : i]][train[i]] += 1
    letters, bits = len(set(train) | set(held)), 0.0
    text = train[-order:] + held
    for i in range(order, len(text)):
        p = 1 / letters
        for n in range(order):
            seen = counts[n].get(text[i - n : i])
            if seen is None:
                break
            total, kinds = seen.total(), len(seen)
            p = (seen[text[i]] + kinds * p) / (total + kinds)
        bits -= math.log2(p)
    return bits / len(held)


def compressed(train: str, held: str) -> float:
    """Bits per character that the held-out part adds under lzma."""
    strong = {"preset": 9 | lzma.PRESET_EXTREME}
    both, first = (len(lzma.compress(text.encode(), **strong)) for text in (train + held, train))  # type: ignore[arg-type]
    return 8 * (both - first) / len(held)


def main() -> None:
    parser = common.arguments(__doc__)
    parser.add_argument("work", choices=("write", "compare"))
    parser.add_argument("path", type=Path, help="the text to write, or the run")
    parser.add_argument("--draws", type=int, default=16, help="shares at which each piece is looked at")
    asked = parser.parse_args()
    if asked.work == "write":
        asked.path.parent.mkdir(parents=True, exist_ok=True)
        text = corpus()[:20_000] if asked.quick else corpus()
        asked.path.write_text(text, "utf-8")
        print(f"{len(text):,} characters of Python {sys.version.split()[0]}'s documentation strings: {asked.path}")
        return
    from ornstein.experiment.run import Run
    from ornstein.experiment.texts import bits

    run = Run.load(asked.path)
    text = Path(run.experiment.data["path"]).read_text("utf-8")
    kept = len(text) - math.ceil(len(text) * run.experiment.data["test_fraction"])
    train, held = text[:kept], text[kept:]
    data = run.load_data()
    test = data.test[:8] if asked.quick else data.test
    print(common.heading("", "bits a character"))
    for order in (3, 5) if asked.quick else (3, 4, 5, 6, 7, 8):
        print(common.row(f"{order}-gram", f"{ngram(train, held, order):.3f}"), flush=True)
    print(common.row("lzma", f"{compressed(train, held):.3f}"), flush=True)
    draws, pieces = 2 if asked.quick else asked.draws, f"ornstein, pieces of {run.shape[0]}"
    if run.model.reads:
        print(common.row(f"{pieces}, in order", str(bits(run, test).bits)), flush=True)
    print(common.row(f"{pieces}, in any order", str(bits(run, test, draws=draws, in_order=False).bits)))


if __name__ == "__main__":
    main()
