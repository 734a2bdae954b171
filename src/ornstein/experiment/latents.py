"""Codecs in experiments: what is measured when one has been trained, and what a run on its latents copies.

`ornstein train DATA preset=autoencoder` ends with a codec, and this file measures it: the mean and the deviation of
each channel of its latents over the training data, which give a model latents with mean 0 and variance 1; how far
decoded data are from the originals; and how good they look. The results lie in the codec's folder as latents.yaml, and
in a copy with each model of its latents.
"""

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ornstein.data import Dataset
from ornstein.errors import InputError, shown
from ornstein.experiment import pictures
from ornstein.experiment.evidence import looks
from ornstein.experiment.folder import holding, weights_name, write_measured
from ornstein.experiment.run import Run
from ornstein.files import digest, write_text
from ornstein.latent import NetCodec
from ornstein.metrics import METRICS, Report, report
from ornstein.metrics.reconstruction import psnr, ssim

#: measures of copying, which is what a codec is for; and those that say something of a handful of points
_OF_COPIES, _FEW_WILL_DO = ("memorisation",), ("sliced-wasserstein", "energy-distance", "mmd")
#: training examples that latents are measured on, and held-out ones that are read back
_MEASURED, _READ = 10_000, 2000


def is_codec(run: Run) -> bool:
    """Whether what a run has learned is a codec."""
    return isinstance(run.model, NetCodec)


def measure(run: Run, data: Dataset) -> dict[str, Any]:
    """What latents.yaml says of a codec.

    shift and scale of each channel of the latent over training data, as drawn; spread, the mean absolute error of what
    is decoded from a drawn latent, in model space; psnr (decibels) and ssim, the means over held-out data decoded
    from mean latents; weights, the hash of the file of weights.
    """
    codec: NetCodec = run.model
    x = run.transform.forward(_some(data.train, _MEASURED))
    code = codec.encode(x)
    shift, scale = code.moments()
    if not bool((scale > 0).all()):
        raise InputError(f"run={shown(run.folder)!r} has a latent channel that never varies; take fewer channels.")
    eps = torch.randn(code.mean.shape, generator=torch.Generator().manual_seed(0))
    spread = (codec.decode(code.drawn(eps)) - x).abs().mean()
    test = run.transform.forward(_some(data.test, _READ))
    back, span = codec.decode(codec.encode(test).mean), 2.0 if run.transform.levels else float(test.max() - test.min())
    decibels = psnr(back, test, span)
    return {
        "shift": shift.tolist(),
        "scale": scale.tolist(),
        "spread": float(spread),
        "psnr": float(decibels[decibels.isfinite()].mean()) if bool(decibels.isfinite().any()) else math.inf,
        "ssim": float(ssim(back, test, span).mean()),
        "latent": list(codec.latent),
        "fewer": math.prod(codec.shape) / math.prod(codec.latent),
        "weights": digest(run.folder / weights_name(run.experiment.sampling.ema), "sha256"),
    }


def finish(folder: Path, data: Dataset) -> None:
    """Measure a codec whose training has ended, and write the results. For the holder of the lock."""
    run = Run.load(folder)
    write_measured(folder, measure(run, data))
    draw(run, data, folder / "samples" / "latest.png")


def draw(run: Run, data: Dataset, path: Path) -> None:
    """Held-out pictures above their reconstructions, for a codec of pictures."""
    if run.kind != "image":
        return
    x = run.transform.forward(_some(data.test, 30))
    back = run.model.decode(run.model.encode(x).mean)
    path.parent.mkdir(parents=True, exist_ok=True)
    above, below = (run.transform.pictures(part) for part in (x, back))
    pictures.draw(pictures.paired(above, below), "image", path, columns=10)


def evaluate_codec(run: Run, n: int, seed: int, stage: Callable[[str], None]) -> tuple[dict[str, Any], Report]:
    """What `measure` says of a codec, and a report on reconstructed training data in place of samples.

    Writes latents.yaml, evaluation.json and evaluation.png, held-out pictures above their reconstructions.
    """
    data, dice = run.load_data(), torch.Generator().manual_seed(seed)
    stage("reading back")
    found = measure(run, data)
    if run.ema == run.experiment.sampling.ema:  # of another average it is of no use to who opens the codec
        with holding(run.folder, "evaluating"):
            write_measured(run.folder, found)
    rows = torch.randperm(len(data.train), generator=torch.Generator().manual_seed(seed))[:n]
    codec: NetCodec = run.model
    back = codec.decode(codec.encode(run.transform.forward(data.train[rows])).mean)
    labels = data.train_labels
    few = min(len(rows), len(data.test)) < 50
    measures = [name for name in METRICS if name not in _OF_COPIES and (not few or name in _FEW_WILL_DO)]
    result = report(
        run.transform.inverse(back, quantise=True).float(),
        data.train.float(),
        data.test.float(),
        dice,
        labels=None if labels is None else labels[rows],
        train_labels=labels,
        heldout_labels=data.test_labels,
        metrics=measures,
        other_features=looks(run),
        progress=stage,
    )
    told = {**found, **result.to_dict()}
    write_text(run.folder / "evaluation.json", json.dumps(told, indent=2, allow_nan=False) + "\n")
    stage("the picture")
    draw(run, data, run.folder / "evaluation.png")
    return found, result


def in_words(measured: dict[str, Any]) -> str:
    """A codec's size and what it loses, in a sentence."""
    latent = "x".join(map(str, measured["latent"]))
    return (
        f"latents {latent}, {measured['fewer']:.3g} times fewer numbers; read back with PSNR {measured['psnr']:.1f} "
        f"dB, SSIM {measured['ssim']:.3f} (held-out data)"
    )


def _some(x: Tensor, most: int) -> Tensor:
    """At most so many rows, at random, always the same: files are often sorted."""
    return x if len(x) <= most else x[torch.randperm(len(x), generator=torch.Generator().manual_seed(0))[:most]]
