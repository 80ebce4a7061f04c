"""The row about the device that tasks train on."""

from __future__ import annotations

from participant.tasks.accelerators import Accelerators
from participant.tasks.contract import DeviceRequest
from shared.errors import ConfigError
from shared.findings import Caution

_DRIVER = "install the driver that this PyTorch was built for, or a PyTorch for the driver (the README says how)"


def device_found(request: DeviceRequest, seen: Accelerators) -> str | Caution:
    """What tasks will run on, and whether somebody may have expected more. Raises ConfigError."""
    here = {DeviceRequest.CUDA: bool(seen.devices), DeviceRequest.MPS: seen.mps}
    chosen = next((device for device, there in here.items() if there), DeviceRequest.CPU)
    if request is not DeviceRequest.AUTO:
        if not here.get(request, True):
            why, advice = _no_gpu(seen)
            raise ConfigError(
                f'training.device is {request}, and PyTorch sees none: {why}. {advice}; or set device = "auto" or "cpu"'
            )
        chosen = request
    said = f"{chosen}, with PyTorch {seen.torch}{_memory(seen) if chosen is DeviceRequest.CUDA else ''}"
    if chosen is DeviceRequest.CPU and request is DeviceRequest.AUTO and (seen.nvidia_driver or seen.complaint):
        why, advice = _no_gpu(seen)
        return Caution(f"{said}, although a GPU may be here: {why}", advice)
    return said


def _memory(seen: Accelerators) -> str:
    each = (f"{device.name}, {device.free_bytes / 1e9:.1f} of {device.total_bytes / 1e9:.1f} GB free"
            for device in seen.devices)  # fmt: skip
    return f": {'; '.join(each)}"


def _no_gpu(seen: Accelerators) -> tuple[str, str]:
    if seen.built_for_cuda is None:
        driver = f"an NVIDIA driver is loaded ({seen.nvidia_driver}), and " if seen.nvidia_driver else ""
        return (
            f"{driver}this PyTorch ({seen.torch}) was built without CUDA",
            "install the build with CUDA (the README says how)",
        )
    if seen.complaint:
        return f"PyTorch, built for CUDA {seen.built_for_cuda}, says: {seen.complaint}", _DRIVER
    if not seen.nvidia_driver:
        return (
            f"PyTorch is built for CUDA {seen.built_for_cuda}, and no NVIDIA driver is loaded",
            "load the driver; in a container or virtual machine, hand the GPU in (--gpus all)",
        )
    return (
        f"the driver is loaded ({seen.nvidia_driver}), and PyTorch, built for CUDA {seen.built_for_cuda}, sees no GPU",
        "see whether this user may open /dev/nvidia*, what CUDA_VISIBLE_DEVICES says, and what nvidia-smi says",
    )
