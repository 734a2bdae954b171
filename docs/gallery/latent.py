"""Digits encoded in half as many numbers and decoded again, and new digits drawn in that space."""

import tempfile
from pathlib import Path

import matplotlib.pyplot as plt
import torch
from style import save

from ornstein.experiment.config import Experiment
from ornstein.experiment.folder import read_measured
from ornstein.experiment.run import Run
from ornstein.experiment.train import train
from ornstein.metrics import SlicedWasserstein

torch.set_num_threads(1)
CODEC = ["preset=autoencoder", "net.factor=2", "net.latent=2", "training.steps=1500"]
MODEL = ["preset=latent", "training.steps=1200", "net.channels=32"]
with tempfile.TemporaryDirectory() as place:
    runs = Path(place)
    for name, words in (("codec", CODEC), ("latent", [*MODEL, f"data.codec={runs / 'codec'}"])):
        for _ in train(Experiment.read("digits", [*words, "training.validate_every=9999"]), runs / name, draws=False):
            pass
    measured, run = read_measured(runs / "codec"), Run.load(runs / "latent")
    data = run.load_data()
    samples = run.sample(len(data.test), label=run.every_class(len(data.test)), seed=0)
assert measured is not None
digits = torch.stack([data.test[data.test_labels == k][0] for k in range(10)])
latents = run.transform.forward(digits)
rows = {
    "held out": digits,
    "latent, channel 1": latents[:, :1],
    "channel 2": latents[:, 1:],
    "read back": run.transform.inverse(latents, quantise=True),
    "drawn": samples[:10],
    "drawn, another seed": samples[10:20],
}
figure, axes = plt.subplots(len(rows), 10, figsize=(8.6, 5.4))
for line, (name, pictures) in zip(axes, rows.items(), strict=True):
    for panel, picture in zip(line, pictures, strict=True):
        whole = picture.shape[-1] == 8
        panel.imshow(picture[0], cmap="gray" if whole else "cividis", vmin=0 if whole else -2, vmax=16 if whole else 2)
        panel.set(xticks=[], yticks=[])
        panel.grid(visible=False)
        panel.spines[:].set_visible(False)
    line[0].set_ylabel(name, size=8, rotation=0, ha="right", va="center")
save(figure)
distance, real = SlicedWasserstein(), data.test.float()
back = run.transform.inverse(run.transform.forward(data.train[: len(real)]), quantise=True).float()
for name, x in (("training data", data.train[: len(real)].float()), ("read back", back), ("drawn", samples.float())):
    found = distance(x, real, torch.Generator().manual_seed(0))
    print(f"sliced Wasserstein distance of {name} from held-out data: {found:.3f}")
print(f"read back: PSNR {measured['psnr']:.1f} dB, SSIM {measured['ssim']:.3f}; scales {measured['scale']}")
