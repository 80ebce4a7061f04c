"""What PyTorch sees of this machine's accelerators, for `consilo participant doctor`.

It is asked in a process of its own: importing PyTorch takes seconds, and a driver that does not fit can end the process
that touches it.
"""

from __future__ import annotations

import json
import subprocess
import sys
import warnings
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from shared.errors import TaskError

ASK_LIMIT_S = 120.0
_NVIDIA_DRIVER = Path("/proc/driver/nvidia/version")
_SAID_MAX_CHARS = 300


@dataclass(frozen=True, slots=True)
class Device:
    """One GPU."""

    name: str
    free_bytes: int
    total_bytes: int


@dataclass(frozen=True, slots=True)
class Accelerators:
    """What was seen."""

    torch: str
    built_for_cuda: str | None
    """The CUDA version that this PyTorch was built for; None for a build without."""
    devices: tuple[Device, ...]
    mps: bool
    complaint: str
    """What PyTorch said of a driver that it cannot use."""
    nvidia_driver: str
    """The first line of the kernel's driver; empty where none is loaded."""


def ask_accelerators() -> Accelerators:
    """Start a process that looks. Raises TaskError when it cannot tell."""
    command = [sys.executable, "-P", "-m", "participant.tasks.accelerators"]
    try:
        done = subprocess.run(
            command, capture_output=True, encoding="utf-8", errors="backslashreplace", timeout=ASK_LIMIT_S, check=True
        )
        fields = json.loads(done.stdout)
    except subprocess.TimeoutExpired:
        raise TaskError(
            f"PyTorch did not say within {ASK_LIMIT_S:g} s what devices there are: see the driver"
        ) from None
    except subprocess.CalledProcessError as error:
        last = (error.stderr.strip().splitlines() or [f"exit code {error.returncode}"])[-1][:_SAID_MAX_CHARS]
        raise TaskError(f"PyTorch cannot be used: {last}. Install it again, in the build for this machine") from None
    except ValueError:  # no JSON
        raise TaskError(
            f"expected one JSON object of {' '.join(command)}, got something else: run it, and see what prints "
            "when this Python starts or imports torch (sitecustomize, PYTHONPATH)"
        ) from None
    return Accelerators(**{**fields, "devices": tuple(Device(**device) for device in fields["devices"])})


def _look() -> Accelerators:
    import torch

    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        there = torch.cuda.is_available()
    return Accelerators(
        torch=torch.__version__,
        built_for_cuda=torch.version.cuda,
        devices=tuple(_device(torch, number) for number in range(torch.cuda.device_count())) if there else (),
        mps=torch.backends.mps.is_available(),
        complaint=" ".join(str(warning.message) for warning in said)[:_SAID_MAX_CHARS],
        nvidia_driver=_NVIDIA_DRIVER.read_text().partition("\n")[0] if _NVIDIA_DRIVER.exists() else "",
    )


def _device(torch: Any, number: int) -> Device:
    free, total = torch.cuda.mem_get_info(number)
    return Device(torch.cuda.get_device_name(number), free, total)


if __name__ == "__main__":
    sys.stdout.write(json.dumps(asdict(_look())))
