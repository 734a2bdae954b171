"""What devices can do: GPUs by their datasheets, and the machine that this runs on.

For a GPU that this machine does not have, time comes from published peak rates,

    step = max(F / (u R) + M / W,  K h,  G / L),

with F operations at the peak rate R of the precision and a utilisation u; M bytes that other operations read and write
at the bandwidth W (the roofline of Williams et al. 2009, doi 10.1145/1498765.1498785, for each kind of operation);
K operations that take the host h to start, which bounds small networks on any GPU; and G = 2 (n - 1)/n bytes for each
byte of gradients through the link L of each of n devices, while the backward pass runs. u and h are assumptions.
"""

import math
import re
from pathlib import Path
from typing import NamedTuple

import torch

from ornstein.errors import InputError, lookup
from ornstein.memory import machine_bytes


class GPU(NamedTuple):
    """What a datasheet says: dense peak rates in 1e12/s, memory in 1e9 bytes, bandwidth and link in 1e9 bytes/s."""

    half: float  # tensor cores, bfloat16 and float16 with float32 sums, without sparsity
    single: float  # float32 on the ordinary cores
    memory: float
    bandwidth: float
    link: float  # to the other GPUs, one direction
    bfloat16: bool = True


#: NVIDIA's and AMD's datasheets: V100 (SXM2) 2020, T4 2019, A100 (SXM4) 2021, A10 2021, RTX 3090 and 4090 (GA102 and
#: AD102 whitepapers), L4 and L40S 2023, H100 and H200 (SXM) 2024, Blackwell (HGX B200) 2025, MI300X 2023. Where sheets
#: quote rates with sparsity, half of them.
GPUS: dict[str, GPU] = {
    "t4": GPU(65, 8.1, 16, 320, 16, bfloat16=False),
    "v100": GPU(125, 15.7, 32, 900, 150, bfloat16=False),
    "a10": GPU(125, 31.2, 24, 600, 32),
    "a100-40gb": GPU(312, 19.5, 40, 1555, 300),
    "a100": GPU(312, 19.5, 80, 2039, 300),
    "rtx-3090": GPU(71, 35.6, 24, 936, 32),
    "rtx-4090": GPU(165, 82.6, 24, 1008, 32),
    "l4": GPU(121, 30.3, 24, 300, 32),
    "l40s": GPU(362, 91.6, 48, 864, 32),
    "h100": GPU(989, 67, 80, 3350, 450),
    "h200": GPU(989, 67, 141, 4800, 450),
    "b200": GPU(2250, 75, 180, 7700, 900),
    "mi300x": GPU(1307, 163.4, 192, 5300, 448),
}
#: seconds that the host takes to start one operation
HOST = 10e-6


def parse_gpus(text: str) -> tuple[int, GPU, str]:
    """ "8xH100" as 8, the GPU and its name."""
    found = re.fullmatch(r"(?:(\d+) ?[x*] ?)?([a-z][\w -]*)", text.strip().lower())
    if not found or found[1] == "0":
        raise InputError(f"gpus={text!r} must be a GPU, with their number before it, such as 8xH100 or L4.")
    name = re.sub(r"[\s_]+", "-", found[2])
    return int(found[1] or 1), lookup(GPUS, name, "gpus"), name.upper()


def roofline(gpu: GPU, rate: float, flops: float, moved: float, kernels: int, sent: float = 0.0) -> tuple[float, str]:
    """Seconds, and what they are bounded by.

    Args:
        rate: 1e12/s of the arithmetic that is reached. flops: operations. moved: bytes that others read and write.
        kernels: operations to start. sent: bytes to other GPUs.
    """
    arithmetic, traffic = flops / (1e12 * rate), moved / (1e9 * gpu.bandwidth)
    return max(
        (arithmetic + traffic, "arithmetic" if arithmetic > traffic else "the memory's bandwidth"),
        (kernels * HOST, "starting operations: a larger GPU would be no faster"),
        (sent / (1e9 * gpu.link), "the exchange of gradients"),
    )


def this_machine(on_gpu: bool) -> tuple[str, float]:
    """This machine in words, and its memory."""
    if on_gpu:
        kind = torch.accelerator.current_accelerator()
        asked = torch.get_device_module(kind)
        if hasattr(asked, "get_device_properties"):  # CUDA, ROCm and XPU, in the same words
            found = asked.get_device_properties(torch.accelerator.current_device_index())
            return f"this machine's {found.name}", found.total_memory
        most = asked.recommended_max_memory() if hasattr(asked, "recommended_max_memory") else math.nan  # Apple's
        return f"this machine's GPU ({kind})", most
    threads = torch.get_num_threads()
    words = f"this machine's CPU, {threads} thread{'s' * (threads > 1)}"
    return words, machine_bytes()


def process_bytes(field: str, since_now: bool = False) -> float:
    """VmRSS, bytes of this process in memory, or VmHWM, the most at a time; NaN where the system is not Linux."""
    try:
        if since_now:
            Path("/proc/self/clear_refs").write_text("5")
        return 1024.0 * int(Path("/proc/self/status").read_text().split(field + ":")[1].split()[0])
    except (OSError, IndexError):
        return math.nan
