"""Look at torch and at the devices it sees."""

from __future__ import annotations

from collections.abc import Iterator

from tunesmith.doctor.findings import Finding
from tunesmith.hardware import GIB, choose_device, choose_precision, driver_version


def look_at_devices() -> Iterator[Finding]:
    """Import torch, and ask it for GPUs."""
    try:
        import torch
    except Exception as problem:  # noqa: BLE001  a damaged installation raises anything
        hint = "install torch anew; see the first lines of the README"
        yield Finding("devices", "torch", f"cannot be imported: {problem}", "broken", hint)
        return
    yield Finding("devices", "torch", f"{torch.__version__}, {torch.get_num_threads()} threads")
    driver = driver_version()
    if not torch.cuda.is_available():
        hint = ""
        if driver:
            hint = "there is a driver: install a CUDA build of torch that it is new enough for"
        found = f"none that torch can use; driver {driver}" if driver else "none"
        yield Finding("devices", "GPU", found, "absent" if driver else "good", hint)
    for number in range(torch.cuda.device_count() if torch.cuda.is_available() else 0):
        known = torch.cuda.get_device_properties(number)
        free, total = torch.cuda.mem_get_info(number)
        yield Finding(
            "devices",
            f"GPU {number}",
            f"{known.name}, capability {known.major}.{known.minor}, {free / GIB:.1f} GiB free of "
            f"{total / GIB:.1f}, CUDA {torch.version.cuda}, driver {driver or 'unknown'}",
        )
    device = choose_device("auto")
    auto = f"{device.type}, {choose_precision('auto', device)}"
    yield Finding("devices", "auto means", auto)
