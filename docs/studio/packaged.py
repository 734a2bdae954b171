"""Trains and packs the small models that come with ornstein, so that it has something to show before any training.

    python docs/studio/packaged.py RUNS [--table adult.csv.gz]

Trains what is not yet in the folder RUNS (about ten minutes on two cores) and evaluates it, except for the table, whose
data are not available where the model is opened. Then it packs what drawing needs: two YAML files, the average of the
weights that the run draws with, in float16, and what the report shows. The weights are opened as float32 like any
others. Of the table only the names, ranges and shares of its columns are packed.
"""

import argparse
import shutil
import subprocess
import sys
from pathlib import Path

import yaml
from safetensors.torch import load_file, save_file

from ornstein.experiment.config import Experiment
from ornstein.experiment.packaged import HOME
from ornstein.training import average_file, manifest

#: name -> what to train
MODELS = {
    "digits": ["digits"],
    "moons": ["moons"],
    "adult": [
        "TABLE",
        "data.drop=[split,fnlwgt,workclass,education_num,relationship,race,capital_gain,capital_loss,native_country]",
        *("net.width=128", "training.steps=1500", "training.batch_size=256", "training.validate_every=1500"),
    ],
}
#: what the gallery shows of a run, beside what is needed to draw
SHOWN = ("metrics.jsonl", "evaluation.json", "evaluation.png", "samples/latest.png")


def trained(runs: Path, name: str, table: Path) -> Path:
    """The run of that name, trained and evaluated if it was not."""
    folder = (runs / name).resolve()
    words = [str(table.name) if word == "TABLE" else word for word in MODELS[name]]
    if not (folder / "run.yaml").exists():  # from where the table lies, so that its place is a bare name
        subprocess.run(
            [sys.executable, "-m", "ornstein", "train", *words, "--out", folder], cwd=table.parent, check=True
        )
    if "TABLE" not in MODELS[name] and not (folder / "evaluation.json").exists():
        subprocess.run([sys.executable, "-m", "ornstein", "evaluate", folder], cwd=table.parent, check=True)
    return folder


def pack(folder: Path, place: Path) -> None:
    """Copy what is wanted of a run, its weights halved in size, under hashes of its own."""
    shutil.rmtree(place, ignore_errors=True)
    (place / "samples").mkdir(parents=True)
    weights = average_file(Experiment.read(folder / "experiment.yaml").sampling.ema)
    for name in ("experiment.yaml", "run.yaml", *SHOWN):
        if (folder / name).exists():
            shutil.copyfile(folder / name, place / name)
    settings = yaml.safe_load((place / "experiment.yaml").read_text("utf-8"))
    if "path" in settings["data"]:  # where the table lies is of this machine
        settings["data"]["path"] = Path(settings["data"]["path"]).name
        (place / "experiment.yaml").write_text(yaml.safe_dump(settings, sort_keys=False), "utf-8")
    save_file({name: tensor.half() for name, tensor in load_file(folder / weights).items()}, place / weights)
    (place / weights).chmod(0o644)
    manifest.accept(place, ["experiment.yaml", "run.yaml", weights])


def main() -> None:
    asked = argparse.ArgumentParser(description="Trains and packs the models that ornstein carries.")
    asked.add_argument("runs", type=Path, help="where they are trained, or lie trained")
    asked.add_argument("--table", type=Path, default=Path("../shared/data/adult.csv.gz"), help="UCI's Adult as .csv.gz")
    asked.add_argument("--only", help="one of them")
    said = asked.parse_args()
    said.runs.mkdir(parents=True, exist_ok=True)
    for name in [said.only] if said.only else MODELS:
        pack(trained(said.runs, name, said.table.resolve()), HOME / name)
    size = sum(path.stat().st_size for path in HOME.rglob("*") if path.is_file() and path.suffix != ".py")
    print(f"{size / 1e6:.2f} MB in {HOME.name}/")


if __name__ == "__main__":
    main()
