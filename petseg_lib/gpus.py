"""Which cores and GPUs there are, and one GPU for each run. Without torch: the command that starts notebooks must be light."""

import itertools
import os
import platform
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

RUNS_AT_ONCE = "PETSEG_RUNS_AT_ONCE"
LIGHT = ("01_data_exploration", "02_mean_std", "06_ablations")  # they compute on no GPU: what 06 trains takes its own


def usable_cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def visible_gpus() -> list[str]:
    """The ids of the GPUs that this process may use, as CUDA_VISIBLE_DEVICES would name them.

    Those that it names are taken as CUDA takes them, up to the first negative number, or the first that is not there:
    `-1` switches all GPUs off.
    """
    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    if named is None:
        return [str(index) for index in range(count_gpus())]
    ids = [each.strip() for each in named.split(",") if each.strip()]
    ids = list(itertools.takewhile(lambda each: not each.startswith("-"), ids))
    # Parts of a GPU (`MIG-...`) are trusted: of several CUDA counts the first alone.
    return ids if not ids or any(each.startswith("MIG-") for each in ids) else ids[: count_gpus()]


def count_gpus() -> int:
    """How many GPUs CUDA finds under CUDA_VISIBLE_DEVICES."""
    import torch

    return torch.cuda.device_count() if finds_cuda() else 0


def finds_cuda() -> bool:
    """Whether CUDA itself finds a GPU: Lightning Fabric has torch ask NVML, which counts those that the driver is too old for."""
    import torch

    return torch.cuda.is_available() and torch._C._cuda_getDeviceCount() > 0


def computes_on_gpu() -> bool:
    """Whether a run with `device: auto` computes on a GPU here, NVIDIA's, AMD's or Apple's, and not on the CPU."""
    import torch

    return finds_cuda() or torch.backends.mps.is_available()  # Lightning Fabric takes no other


@contextmanager
def one_gpu(folder: Path) -> Iterator[dict[str, str]]:
    """The environment of a run that sees one GPU alone, which no other run has meanwhile, and knows how many there may be beside it.

    A run uses one device. Where CUDA_VISIBLE_DEVICES names several, the first one that is free is taken, by a lock that
    the system drops with its process; whoever starts more runs than GPUs waits. Otherwise nothing is changed: a batch
    system has given the run its own.

    Args:
        folder: where the locks lie, the same for all runs that share the machine. Other machines may use it as well.
    """
    several = "," in os.environ.get("CUDA_VISIBLE_DEVICES", "")  # of one alone CUDA makes what it can, without torch's import
    gpus = visible_gpus() if several else []
    if len(gpus) < 2:
        yield {}
        return
    folder.mkdir(parents=True, exist_ok=True)
    # GPU 0 of another machine is another one, and that of another Slurm job too, whose GPUs are counted from 0 again.
    place = "-".join([platform.node(), *filter(None, [os.environ.get("SLURM_JOB_ID")])])
    locks = {gpu: FileLock(folder / f".gpu-{re.sub(r'[^A-Za-z0-9-]', '_', f'{place}-{gpu}')}.lock") for gpu in gpus}
    gpu = _first_free(locks)
    try:
        yield {"CUDA_VISIBLE_DEVICES": gpu, RUNS_AT_ONCE: str(len(gpus))}
    finally:
        locks[gpu].release()


def _first_free(locks: dict[str, FileLock]) -> str:
    while True:
        for gpu, lock in locks.items():
            try:
                lock.acquire(blocking=False)
                return gpu
            except Timeout:
                continue
        time.sleep(0.2)
