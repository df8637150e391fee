"""Where to compute, in which arithmetic, and in memory that is kept."""

import ctypes
import logging
import re
import sys

import torch
from lightning_fabric import Fabric
from lightning_fabric.plugins.environments import LightningEnvironment

from petseg_lib.config import ReadableError
from petseg_lib.gpus import finds_cuda

TRIM_THRESHOLD, MMAP_MAX, ARENA_MAX = -1, -4, -8  # of glibc's malloc.h
FULL = (
    "out of memory",
    "Invalid buffer size",
    "DefaultCPUAllocator",
    "ALLOC_FAILED",
    "ALLOCATION_FAILED",
)  # of PyTorch, Metal, cuBLAS, cuDNN

logging.getLogger("lightning_fabric").setLevel(logging.WARNING)  # in notebooks its word on the precision looked like an error


def open_fabric(device: str = "auto", precision: str = "auto") -> Fabric:
    """Lightning Fabric on one device; on a CPU the process keeps memory from then on (see `keep_freed_memory`).

    Args:
        device: `auto`, `cpu`, `cuda` or `mps`.
        precision: `auto` (bf16 where the hardware computes in it), `32-true`, `bf16-mixed` or `16-mixed`.

    Raises:
        ReadableError: the GPU is not there, cannot be used (`auto` then says so, and takes the CPU), or is Apple's, where other arithmetic than float32 fails in part of the versions.
    """
    trouble = cuda_trouble() if device in ("auto", "cuda") else ""
    if trouble and device == "cuda":
        raise ReadableError(f"parameter device is 'cuda', but {trouble}")
    if trouble:
        print(f"The GPU is not used: {trouble}.", flush=True)
        device = "cpu"  # Fabric would take it
    gpus = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if not gpus.get(device, True):
        has = "cpu and " + ", ".join(name for name in gpus if gpus[name]) if any(gpus.values()) else "cpu alone"
        raise ReadableError(f"parameter device is {device!r}, but this machine with this PyTorch has {has}")
    fabric = _fabric(device, "32-true")
    if fabric.device.type == "cpu":
        keep_freed_memory()
    precision = best_precision(fabric.device) if precision == "auto" else precision
    if fabric.device.type == "mps" and precision != "32-true":
        raise ReadableError(f"parameter precision is {precision!r}, but on Apple's GPUs it must be 'auto' or '32-true'")
    return fabric if precision == "32-true" else _fabric(device, precision)


def _fabric(device: str, precision: str) -> Fabric:
    # A run is one process. In a Slurm job Fabric would take it for one of SLURM_NTASKS, or refuse to begin.
    return Fabric(accelerator=device, devices=1, precision=precision, plugins=[LightningEnvironment()])


def cuda_trouble() -> str:
    """Why nothing can be computed on a GPU that PyTorch counts, as words that go on after "but"; empty where it can, or there is none."""
    if not torch.cuda.is_available():
        return ""
    if not finds_cuda():
        return "its driver is too old for this PyTorch, or does not start"
    major, minor = torch.cuda.get_device_capability()
    built_for = torch.cuda.get_arch_list()
    codes = [re.fullmatch(r"(sm|compute)_(\d+)(\d)[a-z]?", each) for each in built_for]
    # Binaries (sm) serve later minor versions of their architecture, the intermediate code (compute) all later ones.
    fits = [
        (int(code[2]), int(code[3])) <= (major, minor) and (code[1] == "compute" or int(code[2]) == major)
        for code in codes
        if code
    ]
    if torch.version.hip or not fits or any(fits):
        return ""
    return f"{torch.cuda.get_device_name()} has compute capability {major}.{minor}, and this PyTorch is built for {', '.join(built_for)}"


def best_precision(device: torch.device) -> str:
    """bf16 only where the hardware computes in it: elsewhere it is slower than float32, not faster."""
    if device.type == "cuda":
        return "bf16-mixed" if torch.cuda.get_device_capability(device)[0] >= 8 else "16-mixed"
    if device.type == "cpu":
        capabilities = torch.cpu.get_capabilities() if hasattr(torch.cpu, "get_capabilities") else {}
        return "bf16-mixed" if capabilities.get("avx512_bf16") or capabilities.get("amx_bf16") else "32-true"
    return "32-true"


def is_out_of_memory(error: RuntimeError) -> bool:
    """Whether a device's memory was full: Apple's GPUs and CPUs raise no OutOfMemoryError."""
    return isinstance(error, torch.OutOfMemoryError) or any(words in str(error) for words in FULL)


def memory_format(device: torch.device) -> torch.memory_format:
    """How images and convolutions' weights lie in memory: channels last, but not on Apple's GPUs.

    There a convolution's way back is many times slower with them until August 2026's PyTorch (its issues 192551 and 193349).
    """
    return torch.contiguous_format if device.type == "mps" else torch.channels_last


def keep_freed_memory() -> None:
    """What this process frees stays its own from now on, for the next step to take.

    glibc gives large blocks back to the system as soon as they are freed, as the activations are after each step; the next
    step asks for them anew, and the system then clears them page by page. Threads have small heaps of their own, of which it
    gives back in any case: those started from now on use the process's. Other allocators are left as they are.
    """
    set_malloc(MMAP_MAX, 0)
    set_malloc(TRIM_THRESHOLD, 2**31 - 1)
    set_malloc(ARENA_MAX, 1)


def set_malloc(name: int, value: int) -> None:
    """One of the settings of glibc's malloc (`man mallopt`), where that is this process's allocator."""
    libc = ctypes.CDLL(None) if sys.platform == "linux" else None
    if hasattr(libc, "gnu_get_libc_version"):
        libc.mallopt(name, value)
