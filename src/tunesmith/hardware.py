"""What this machine can do: cores, memory, device, precision."""

from __future__ import annotations

import ctypes
import os
import platform
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import psutil

from tunesmith.errors import RecipeError

if TYPE_CHECKING:
    import torch

DeviceOption = Literal["auto", "cpu", "cuda"]
PrecisionOption = Literal["auto", "fp32", "bf16", "fp16", "pure_bf16"]
Precision = Literal["fp32", "bf16", "fp16", "pure_bf16"]
GIB = 1024**3
MALLOC_TRIM, MALLOC_MAP, MALLOC_MAPS = -1, -3, -4
"""Options of the GNU C library: how much free memory is kept, from which size on blocks are mapped
apart, and how many are."""


def num_cores() -> int:
    """Count the cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def memory_gib() -> float:
    """Measure the main memory that is free now, in GiB."""
    return float(psutil.virtual_memory().available) / GIB


def total_memory_gib() -> float:
    """Measure the main memory of this machine, in GiB."""
    return float(psutil.virtual_memory().total) / GIB


CPUINFO = Path("/proc/cpuinfo")
FEATURES = {
    "AVX2": "avx2",
    "AVX-512": "avx512f",
    "AVX-512 bf16": "avx512_bf16",
    "AVX-512 fp16": "avx512_fp16",
    "AMX bf16": "amx_bf16",
    "AMX int8": "amx_int8",
    "NEON": "asimd",
    "bf16": "bf16",
}
"""What Linux calls the instructions that speed up products."""


def cpu_features() -> list[str]:
    """List the instructions of this processor that matter; none is known but on Linux."""
    words = set(_cpu_lines().get("flags", _cpu_lines().get("Features", "")).split())
    return [name for name, word in FEATURES.items() if word in words]


def cpu_name() -> str:
    """Name the processor."""
    return _cpu_lines().get("model name") or platform.processor() or platform.machine()


def _cpu_lines() -> dict[str, str]:
    """Read what Linux says of the first core."""
    if not CPUINFO.is_file():
        return {}
    first = CPUINFO.read_text(encoding="utf-8", errors="replace").partition("\n\n")[0]
    pairs = (line.partition(":") for line in first.splitlines())
    return {name.strip(): value.strip() for name, _, value in pairs}


def driver_version() -> str:
    """Read the version of NVIDIA's driver; empty if there is none."""
    said = Path("/sys/module/nvidia/version")
    return said.read_text(encoding="utf-8").strip() if said.is_file() else ""


def use_memory(*, keep: bool) -> None:
    """Choose what the C library does with freed memory; nothing where it is not GNU's.

    Every update takes and frees about the same sizes. Fetching pages anew each time costs up to a
    fifth of the time on a CPU; keeping them costs memory, since what is freed leaves holes that
    other sizes do not fit into: where activations are computed twice, three times what they take.

    Args:
        keep: whether freed memory is handed out again rather than given back to the system.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):
        return
    if keep:
        mallopt(MALLOC_MAPS, 0)
        mallopt(MALLOC_TRIM, 2**31 - 1)
    else:
        mallopt(MALLOC_MAP, 2**20)


def give_back_memory() -> None:
    """Give the system what was freed, where the C library is GNU's and kept it."""
    try:
        ctypes.CDLL(None).malloc_trim(0)
    except (AttributeError, OSError, TypeError):
        return


def disk_free(path: Path) -> int:
    """Measure the free bytes of the disk that holds `path`, or would hold it."""
    existing = path.absolute()
    while not existing.exists():
        existing = existing.parent
    return shutil.disk_usage(existing).free


def choose_device(option: DeviceOption) -> torch.device:
    """Turn the option into a device that exists.

    Raises:
        RecipeError: if CUDA is asked for and not there.
    """
    import torch

    available = torch.cuda.is_available()
    if option == "cuda" and not available:
        raise RecipeError(
            "CUDA is asked for, but torch sees no such device",
            hint="write compute.device: auto, or install a CUDA build of torch and its driver",
            where="compute.device",
        )
    return torch.device("cuda" if available and option != "cpu" else "cpu")


def choose_precision(option: PrecisionOption, device: torch.device) -> Precision:
    """Turn `auto` into bf16 where the hardware multiplies it fast, else fp32."""
    if option != "auto":
        return option
    return "bf16" if has_fast_bf16(device) else "fp32"


def has_fast_bf16(device: torch.device) -> bool:
    """Whether bf16 products are faster than fp32 ones on `device`.

    A CPU without bf16 instructions takes 130 times as long for the gradient's products.
    """
    import torch

    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    return bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())


@dataclass(frozen=True)
class Machine:
    """What the results of a run depend on besides its recipe."""

    system: str
    processor: str
    cores: int
    memory_gib: float
    device: str


def describe_machine(device: torch.device) -> Machine:
    """Describe this machine for `environment.json`."""
    import torch

    name = torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"
    return Machine(
        system=f"{platform.system()} {platform.machine()}",
        processor=platform.processor() or platform.machine(),
        cores=num_cores(),
        memory_gib=round(psutil.virtual_memory().total / GIB, 1),
        device=name,
    )
