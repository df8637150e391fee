"""Where to compute, and in which arithmetic."""

import torch
from lightning_fabric import Fabric


def open_fabric(device: str = "auto", precision: str = "auto") -> Fabric:
    """Lightning Fabric on one device.

    Args:
        device: `auto`, `cpu`, `cuda` or `mps`.
        precision: `auto` (bf16 where the hardware computes in it), `32-true`, `bf16-mixed` or `16-mixed`.

    Raises:
        RuntimeError: the device is not there (Lightning Fabric's own sentence).
    """
    fabric = Fabric(accelerator=device, devices=1, precision="32-true")
    precision = best_precision(fabric.device) if precision == "auto" else precision
    return fabric if precision == "32-true" else Fabric(accelerator=device, devices=1, precision=precision)


def best_precision(device: torch.device) -> str:
    """bf16 only where the hardware computes in it: elsewhere it is slower than float32, not faster."""
    if device.type == "cuda":
        return "bf16-mixed" if torch.cuda.get_device_capability(device)[0] >= 8 else "16-mixed"
    if device.type == "cpu":
        capabilities = torch.cpu.get_capabilities() if hasattr(torch.cpu, "get_capabilities") else {}
        return "bf16-mixed" if capabilities.get("avx512_bf16") or capabilities.get("amx_bf16") else "32-true"
    return "32-true"
