"""Many visitors at once: clients that draw from a studio. What was lost, how long did they wait, how much memory went?

    python docs/studio/load.py [--clients 32] [--seconds 60]

The studio is a separate process on this machine; the clients are threads of this one. Each asks for a few digits, one
drawing after the other, and checks that it got its own: as many as it asked for, of the class that it named.
"""

import argparse
import re
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
from gradio_client import Client


def resident(process: int) -> float:
    """Megabytes of memory that a process holds."""
    text = Path(f"/proc/{process}/status").read_text()
    found = re.search(r"VmRSS:\s+(\d+)", text)
    assert found is not None
    return int(found[1]) / 1024


def client(address: str, number: int, until: float, told: list[tuple[float, str]]) -> None:
    """One person: (seconds, what went wrong) of each drawing."""
    studio = Client(address, verbose=False)
    while time.monotonic() < until:
        began, wrong, label = time.monotonic(), "", str(number % 10)
        try:
            _, files = studio.predict(run="digits", count=4, label=label, steps=5, api_name="/sample")
            place = next(file for file in files if file.endswith(".npz"))
            drawn: Any = np.load(place)
            if drawn["samples"].shape != (4, 1, 8, 8) or set(drawn["labels"].tolist()) != {number % 10}:
                wrong = "another's samples"
        except Exception as error:
            wrong = str(error)[:80] or type(error).__name__
        told.append((time.monotonic() - began, wrong))


def main() -> None:
    asked = argparse.ArgumentParser(description="Many people at once.")
    asked.add_argument("--clients", type=int, default=32)
    asked.add_argument("--seconds", type=float, default=60)
    said = asked.parse_args()
    with tempfile.TemporaryDirectory() as empty:
        words = [sys.executable, "-u", "-m", "ornstein", "studio", empty, "--port", "0"]
        server = subprocess.Popen(words, stdout=subprocess.PIPE, text=True)
        assert server.stdout is not None
        address = re.search(r"http://\S+", server.stdout.readline())
        assert address is not None
        try:
            told: list[tuple[float, str]] = []
            Client(address[0], verbose=False).predict(run="digits", count=4, steps=5, api_name="/sample")
            memory, until = [resident(server.pid)], time.monotonic() + said.seconds
            threads = [
                threading.Thread(target=client, args=(address[0], number, until, told))
                for number in range(said.clients)
            ]
            for thread in threads:
                thread.start()
            while time.monotonic() < until:
                time.sleep(5)
                memory.append(resident(server.pid))
            for thread in threads:
                thread.join(300)
        finally:
            server.terminate()
    waits = sorted(seconds for seconds, _ in told)
    wrong = [what for _, what in told if what]
    print(f"{said.clients} clients, {said.seconds:g} s: {len(told)} drawings, {len(wrong)} wrong {wrong[:3]}")
    print(f"waited {statistics.median(waits):.1f} s in the middle, {waits[int(0.95 * len(waits))]:.1f} s of 95 in 100")
    print(f"memory MB, every 5 s: {', '.join(f'{m:.0f}' for m in memory)}")


if __name__ == "__main__":
    main()
