"""Training steps a second while other programs compete for the processor, by how OpenMP's threads wait.

    python benchmarks/busy.py              # alone, and beside twice as many busy processes as there are cores
    python benchmarks/busy.py --busy 10    # beside ten

Each row is a process of its own, since OpenMP reads its environment when torch is loaded: a small U-Net on digits (32
channels, batches of 128) makes steps for --seconds, after a few that are not counted, while the other processes only
count. Rows are measured in turn, first alone and then with the busy processes.
"""

import contextlib
import multiprocessing
import os
import subprocess
import sys
import time
from collections.abc import Iterator

import common

#: row -> the environment variables of its process
WAYS: dict[str, dict[str, str]] = {
    "torch's default": {},
    "`GOMP_SPINCOUNT=10000`": {"GOMP_SPINCOUNT": "10000"},
    "`GOMP_SPINCOUNT=1000`": {"GOMP_SPINCOUNT": "1000"},
    "`OMP_WAIT_POLICY=PASSIVE`": {"OMP_WAIT_POLICY": "PASSIVE"},
    "one thread": {"OMP_NUM_THREADS": "1"},
}
#: variables that set how threads wait, or how many there are: the caller's are left out of every row
SAID = ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY", "OMP_NUM_THREADS", "MKL_NUM_THREADS")


def rate(seconds: float, channels: int = 32, batch: int = 128) -> float:
    """Steps a second of the network in this process."""
    import torch

    from ornstein.nets import UNet

    torch.manual_seed(0)
    net = UNet(channels=channels).build((1, 8, 8))
    optimiser, x, level = torch.optim.AdamW(net.parameters()), torch.randn(batch, 1, 8, 8), torch.ones(batch)

    def step() -> None:
        optimiser.zero_grad()
        (net(x, level) - x).square().mean().backward()
        optimiser.step()

    for _ in range(2):
        step()
    began, count = time.perf_counter(), 0
    while time.perf_counter() - began < seconds:
        step()
        count += 1
    return count / (time.perf_counter() - began)


def _counting() -> None:
    while True:
        pass


@contextlib.contextmanager
def beside(busy: int) -> Iterator[None]:
    """Keep this many other processes busy."""
    others = [multiprocessing.Process(target=_counting, daemon=True) for _ in range(busy)]
    for other in others:
        other.start()
    try:
        yield
    finally:
        for other in others:
            other.kill()
            other.join()


def measured(way: dict[str, str], seconds: float, quick: bool) -> float:
    """`rate` in a process with this environment."""
    kept = {name: value for name, value in os.environ.items() if name not in SAID}
    words = [sys.executable, __file__, "--here", str(seconds), *["--quick"] * quick]
    return float(subprocess.run(words, env={**kept, **way}, capture_output=True, text=True, check=True).stdout)


def main() -> None:
    parser = common.arguments(__doc__, "a tiny network, two rows, a fifth of a second each, beside one process")
    parser.add_argument("--busy", type=int, default=2 * (os.cpu_count() or 1), help="other processes")
    parser.add_argument("--seconds", type=float, default=10.0, help="for each row, alone and beside them")
    parser.add_argument("--here", type=float, help="print the rate of this process alone, measured for so long")
    asked = parser.parse_args()
    if asked.here is not None:
        print(rate(asked.here, *(4, 8) if asked.quick else ()))
        return
    busy, seconds = (1, 0.2) if asked.quick else (asked.busy, asked.seconds)
    print(f"| | alone | beside {busy} busy processes |\n|---|---|---|", flush=True)
    rows = list(WAYS.items())
    for name, way in rows[-2:] if asked.quick else rows:  # threads that spin can be very slow
        alone = measured(way, seconds, asked.quick)
        with beside(busy):
            crowded = measured(way, seconds, asked.quick)
        print(f"| {name} | {alone:.1f} | {crowded:.1f} |", flush=True)


if __name__ == "__main__":
    main()
