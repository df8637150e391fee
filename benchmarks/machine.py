"""The machine in words, and what it can do at most."""

import platform
from importlib.metadata import version
from pathlib import Path

from petseg_lib.gpus import usable_cores

PACKAGES = ("torch", "torchvision", "segmentation-models-pytorch", "albumentations", "opencv-python-headless", "pillow", "numpy")


def in_words(device: str) -> str:
    """Cores, kind of processor, arithmetic, versions: what a reader needs to place the figures. No names of hosts."""
    import torch

    able = [name for name in ("avx2", "avx512_f", "avx512_bf16", "amx_bf16") if _capabilities().get(name)]
    words = [f"{usable_cores()} cores of {_processor()}{f' with {chr(32).join(able)}' if able else ''}"]
    words.append(f"{torch.get_num_threads()} threads")
    if device.startswith("cuda"):
        words.append(torch.cuda.get_device_name())
    words.append(f"{platform.system()}, Python {platform.python_version()}")
    return "; ".join(words) + "; " + ", ".join(f"{name} {version(name)}" for name in PACKAGES)


def vectors() -> str:
    """The instructions that PyTorch computes with on the processor: `AVX2`, `AVX512`, `AVX512 with AMX`."""
    import torch

    return torch.backends.cpu.get_cpu_capability() + (" with AMX" if _capabilities().get("amx_bf16") else "")


def _capabilities() -> dict[str, bool]:
    import torch

    return torch.cpu.get_capabilities() if hasattr(torch.cpu, "get_capabilities") else {}


def _processor() -> str:
    kind = {"x86_64": "x86", "AMD64": "x86", "arm64": "ARM", "aarch64": "ARM"}.get(platform.machine(), platform.machine())
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return f"an {kind} machine"
    model = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "unknown model")
    shared = any(line.startswith("flags") and " hypervisor" in line for line in lines)
    return f"{'a shared' if shared else 'an'} {kind} {'server' if shared else 'machine'} ({model})"


def product_rate(device: str, precision: str, side: int):
    """Something to call that multiplies two square matrices of that side in a precision such as `bf16-mixed`, and its GFLOP.

    The rate of a large product is about the most that convolutions can reach.
    """
    import torch

    dtype = {"bf16-mixed": torch.bfloat16, "16-mixed": torch.float16}.get(precision, torch.float32)
    # of random numbers: a GPU multiplies ones and zeros faster, since fewer of its transistors switch
    first, second, result = (torch.randn(side, side, device=device).to(dtype) for _ in range(3))
    return (lambda: torch.mm(first, second, out=result)), 2 * side**3 / 1e9
