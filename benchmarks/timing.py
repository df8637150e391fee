"""Rivals take turns within one run, so that whatever else the machine does slows all of them alike."""

import time
from collections.abc import Callable, Sequence

import numpy as np

Measure = Callable[[], float]
MMAP_THRESHOLD, USUAL_MMAP_MAX = -3, 65536  # of glibc's malloc.h, and its default


def timed(work: Callable[[], object], device: str = "cpu", per: float = 1.0) -> Measure:
    """A measure of the seconds that some work takes; divided by `per`, such as the steps it consists of."""

    def measure() -> float:
        synchronise(device)
        began = time.perf_counter()
        work()
        synchronise(device)
        return (time.perf_counter() - began) / per

    return measure


def as_usual(measure: Measure) -> Measure:
    """The same with glibc's memory as it usually is, not kept as `devices.open_fabric` has it, for whoever does not use that.

    Blocks of 32 MiB and more are given back when they are freed, which is where glibc's own adjustments end. Smaller ones it
    gives back as well, once 64 MiB are free; that is left out, in the rival's favour, since ours comes next in this process.
    """
    from petseg_lib import devices

    def usual() -> float:
        devices.set_malloc(devices.MMAP_MAX, USUAL_MMAP_MAX)
        devices.set_malloc(MMAP_THRESHOLD, 32 * 2**20)
        try:
            return measure()
        finally:
            devices.keep_freed_memory()

    return usual


def synchronise(device: str) -> None:
    """Wait for a GPU, which computes on while Python already does something else."""
    if device.startswith("cuda"):
        import torch

        torch.cuda.synchronize()


def alternate(title: str, measures: dict[str, Measure], rounds: int, warm_up: bool = True) -> dict[str, list[float]]:
    """Every measure once a round, in turn, and in the opposite order every other round.

    Args:
        title: what to print before the figures of each round.
        measures: by the name of who is measured.
        rounds: 1 or more.
        warm_up: one round before that does not count: files come into the system's cache, kernels are chosen.

    Returns:
        For each name its figures, one a round.
    """
    taken: dict[str, list[float]] = {name: [] for name in measures}
    for number in range(0 if warm_up else 1, rounds + 1):
        for name in list(measures) if number % 2 == 0 else reversed(measures):
            figure = measures[name]()
            if number:
                taken[name].append(figure)
            print(f"  {title}, {f'round {number} of {rounds}' if number else 'warm-up'}: {name} {figure:.4g}", flush=True)
    return taken


def spread(samples: Sequence[float]) -> dict[str, float]:
    """Median and quartiles."""
    low, median, high = (float(value) for value in np.percentile(samples, (25, 50, 75)))
    return {"median": median, "low": low, "high": high, "samples": len(samples)}


def quotient(above: Sequence[float], below: Sequence[float]) -> list[float]:
    """Round by round: what slows the machine for a while slows both."""
    return [a / b for a, b in zip(above, below, strict=True)]
