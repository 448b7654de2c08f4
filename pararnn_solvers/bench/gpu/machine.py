"""Which card, driver and CUDA a benchmark ran on, and in what state the card was."""

from __future__ import annotations

import datetime
import subprocess
from typing import Any

from pararnn_solvers.linear import cuda

STATE = ("driver_version", "clocks.sm", "clocks.mem", "temperature.gpu", "power.draw", "pstate")
"""What ``nvidia-smi`` is asked for."""


def card() -> dict[str, Any]:
    """Return what the current device is, and what runs it."""
    xp = cuda.cupy()
    device, runtime = xp.cuda.Device(), xp.cuda.runtime
    name = runtime.getDeviceProperties(device.id)["name"]
    return {
        "card": name.decode() if isinstance(name, bytes) else name,
        "compute capability": device.compute_capability,
        "multiprocessors": cuda.multiprocessors(),
        "L2 cache, bytes": device.attributes["L2CacheSize"],
        "memory, bytes": device.mem_info[1],
        "CUDA of the driver": version(runtime.driverGetVersion()),
        "CUDA runtime": version(runtime.runtimeGetVersion()),
        "NVRTC": ".".join(map(str, xp.cuda.nvrtc.getVersion())),
        "CuPy": xp.__version__,
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    }


def version(number: int) -> str:
    """Return CUDA's number of a version as people write it."""
    return f"{number // 1000}.{number % 1000 // 10}"


def state() -> dict[str, str] | None:
    """Return the driver's version, clocks, temperature and power now; None without nvidia-smi."""
    number = cuda.cupy().cuda.Device().id
    command = [
        "nvidia-smi",
        f"--query-gpu={','.join(STATE)}",
        "--format=csv,noheader",
        f"--id={number}",
    ]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    values = [value.strip() for value in done.stdout.splitlines()[0].split(",")]
    return dict(zip(STATE, values, strict=True))
