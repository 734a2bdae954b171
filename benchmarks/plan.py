"""What `ornstein plan` says of short runs, beside what they took: processor time and the most memory at a time.

Each case is planned in one process and trained in another, pictures, held-out errors and checkpoints included. Time is
processor time from the first report of training to the last (so on one thread: `OMP_NUM_THREADS=1`), since a machine
that does other things too stretches the time on the wall and not this. Memory is the process's own high-water mark.

    OMP_NUM_THREADS=1 python benchmarks/plan.py [CASE ...] [--out plan.json]
"""

import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

#: preset and changes; a few dozen steps each, and a validation or two
CASES = {
    "moons": ["moons", "training.steps=1000", "training.validate_every=500"],
    "digits": ["digits", "training.steps=150", "training.validate_every=75"],
    "digits, bfloat16": ["digits", "training.steps=150", "training.validate_every=75", "training.precision=bfloat16"],
    "digits, sliced score matching": ["digits", "preset=sliced", "training.steps=60", "training.validate_every=30"],
    "digits, recovery likelihood": ["digits", "preset=energy-recovery", "training.steps=100"],
    "mnist": ["mnist", "training.steps=60", "training.validate_every=60"],
    "mnist, 64 channels, attention": [
        "mnist", "training.steps=8", "training.validate_every=8", "net.channels=64", "net.attention=[14]",
        "sampling.preview=16",
    ],
    "mnist, in 4 pieces": ["mnist", "training.steps=40", "training.validate_every=40", "training.accumulate=4"],
}  # fmt: skip


def planned(words: list[str]) -> dict[str, float]:
    from ornstein.experiment.config import Experiment
    from ornstein.experiment.plan import plan

    asked = Experiment.read(words[0], words[1:])
    # the first step is over when the clock starts
    found = plan(Experiment.read(words[0], [*words[1:], f"training.steps={asked.training.steps - 1}"]))
    return {"seconds": found.processor, "bytes": found.needed, "flops": found.step_flops}


def trained(words: list[str]) -> dict[str, float]:
    from ornstein.experiment.config import Experiment
    from ornstein.experiment.run import train

    with tempfile.TemporaryDirectory() as folder:
        moments = train(Experiment.read(words[0], words[1:]), Path(folder) / "run")
        next(moments)
        start = time.process_time()
        for _ in moments:
            pass
        seconds = time.process_time() - start
    unit = 1 if sys.platform == "darwin" else 1024
    return {"seconds": seconds, "bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit}


def main() -> None:
    words = sys.argv[1:]
    if words and words[0] in ("planned", "trained"):
        print(json.dumps((planned if words[0] == "planned" else trained)(words[1:])))
        return
    path = Path(words.pop(words.index("--out") + 1)) if "--out" in words else None
    names = [word for word in words if word != "--out"] or list(CASES)
    print(f"{'case':<32}{'GFLOP a step':>13}{'s planned':>11}{'taken':>8}{'':>7}{'MB planned':>12}{'taken':>7}")
    rows = []
    for name in names:
        said, took = (
            json.loads(
                subprocess.run(
                    [sys.executable, __file__, what, *CASES[name]], check=True, stdout=subprocess.PIPE, text=True
                ).stdout
            )
            for what in ("planned", "trained")
        )
        time_off, memory_off = (said[key] / took[key] - 1 for key in ("seconds", "bytes"))
        print(
            f"{name:<32}{said['flops'] / 1e9:>13.2f}{said['seconds']:>11.1f}{took['seconds']:>8.1f}{time_off:>+7.0%}"
            f"{said['bytes'] / 1e6:>12.0f}{took['bytes'] / 1e6:>7.0f}{memory_off:>+7.0%}",
            flush=True,
        )
        rows.append({"case": name, "words": CASES[name], "planned": said, "taken": took})
    if path:
        path.write_text(json.dumps(rows, indent=1) + "\n", "utf-8")


if __name__ == "__main__":
    main()
