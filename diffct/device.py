"""The device that networks compute on."""

import torch

_ACCELERATORS = ("cuda", "xpu", "mps")


def find_device(name: str | torch.device | None = None) -> torch.device:
    """Return a device of this machine.

    Args:
        name: E.g. "cpu", "cuda" or "cuda:1"; None for an NVIDIA GPU, or the CPU if there is none.

    Raises:
        ValueError: This machine has no such device; the message names those it has.
    """
    available = _devices()
    if name is None:
        return torch.device("cuda" if "cuda" in available else "cpu")
    try:
        device = torch.device(name)
    except (RuntimeError, ValueError):  # torch's message lists dozens of devices
        device = None
    if device is None or (device.type != "cpu" and str(device) not in available):
        raise ValueError(f"device {name}: not on this machine, which has {', '.join(available)}.")
    return device


def _devices() -> list[str]:
    """List the devices that PyTorch can use here."""
    names = ["cpu"]
    for kind in _ACCELERATORS:
        module = getattr(torch, kind)
        if module.is_available():
            names += [kind, *(f"{kind}:{index}" for index in range(module.device_count()))]
    return names
