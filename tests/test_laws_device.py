"""The laws of devices (`laws_device.py`), in a process of their own.

The device that is pretended must be there when torch's autograd begins, which counts devices once in a process.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from sure import TRAINED


@pytest.mark.timeout(900)
@pytest.mark.parametrize("which", ["not slow", pytest.param("slow", marks=pytest.mark.slow)])
def test_the_laws_of_devices_hold(which: str, run: Path) -> None:
    words = ["-m", "pytest", "-q", "-p", "no:xdist", "-p", "no:cacheprovider", "--tb=short", "--timeout=300"]
    words += ["-m", which]
    done = subprocess.run(
        [sys.executable, *words, str(Path(__file__).with_name("laws_device.py"))],
        capture_output=True,
        text=True,
        env={name: value for name, value in os.environ.items() if not name.startswith("PYTEST_XDIST")} | {TRAINED: run},
    )
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
    assert " passed" in done.stdout or "[100%]" in done.stdout
