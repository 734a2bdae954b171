"""Threads that wait for each other step aside where others want the processor.

At the end of every parallel loop OpenMP's threads wait for the last of them, and GNU's spin meanwhile: they ask again
and again, for milliseconds, rather than let the system wake them. On an idle machine that saves a wake-up some thousand
times a step. On a busy one the thread that all wait for has no processor, because those that wait hold it, and two
threads are slower than one. Steps a second of a small U-Net on two cores, idle and beside four busy processes: 14.9 and
1.0 with two threads, 9.0 and 3.2 with one. Waiting ten thousand turns and then sleeping costs nothing on an idle
machine (15.2 and 1.8); waiting less does (1,000 turns: 13.4 and 2.6; none: 10.5 and 3.0).

OpenMP reads this from the environment when torch loads it. The environment belongs to the whole process and its
children, so only the command line sets it, whose process is its own.
"""

import os
import sys

#: the most turns of waiting that still cost nothing where a machine is idle
SPINS = 10_000
#: by which a person says how threads wait, or how many there are
SAID = ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY", "OMP_NUM_THREADS")


def wait_briefly() -> bool:
    """Let GNU's OpenMP threads of this process sleep after a short wait; says whether they will.

    False, with nothing changed, if the environment sets it already, or if torch is loaded and has read it. Other OpenMP
    libraries (macOS, Windows) ignore it.
    """
    if "torch" in sys.modules or any(name in os.environ for name in SAID):
        return False
    os.environ["GOMP_SPINCOUNT"] = str(SPINS)
    return True
