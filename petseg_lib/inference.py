"""A trained model at work: made ready once, then passes over many images."""

import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar
from weakref import WeakSet

import numpy as np
import torch
from lightning_fabric import Fabric
from torch import Tensor, nn

from petseg_lib.data.cache import Cache
from petseg_lib.data.loaders import normalise
from petseg_lib.devices import memory_format
from petseg_lib.gpus import usable_cores
from petseg_lib.models.convolutions import Conv3x3
from petseg_lib.models.folding import fold_batchnorm

PIXELS_A_PASS = 16 * 128**2  # on a CPU: fewer take more of a pass to read a network's weights, and more take more memory
MOST_THREADS = 8  # each has a pass, or a photograph's own size, in memory; on a CPU the cores are shared among them
_PREPARED: WeakSet[nn.Module] = WeakSet()  # what `for_inference` made
Measured = TypeVar("Measured")


def for_inference(model: nn.Module, fabric: Fabric) -> nn.Module:
    """A copy on the device that is faster and cannot be trained; the model itself stays as it is.

    Whatever measures or predicts here makes one. Who predicts one photograph at a time makes it once and hands it over:
    a model that this function made is taken as it is.
    """
    if model in _PREPARED:
        return model
    dtype = {"bf16-mixed": torch.bfloat16, "16-mixed": torch.float16}.get(fabric._precision.precision)
    model = fold_batchnorm(model, dtype).requires_grad_(False).to(memory_format=memory_format(fabric.device))
    for layer in model.modules():  # once, and not in every pass
        if dtype is not None and isinstance(layer, nn.Conv2d | nn.ConvTranspose2d):
            layer.to(dtype)
        if isinstance(layer, Conv3x3):
            layer.keep_filters()
    prepared = fabric.setup_module(model).eval()
    _PREPARED.add(prepared)
    return prepared


def logits_of(model: nn.Module, image: Tensor, fabric: Fabric) -> np.ndarray:
    """Normalised (n, 3, S, S) -> (n, S, S) float32, all of a batch in one copy from where it is computed."""
    with torch.inference_mode():  # `normalise` makes images channels last, in which Apple's GPUs are slow
        image = fabric.to_device(image).contiguous(memory_format=memory_format(fabric.device))
        return model(image).float()[:, 0].cpu().numpy()


def map_passes(
    measure: Callable[[slice, np.ndarray], Measured],
    model: nn.Module,
    cache: Cache,
    description: dict[str, Any],
    fabric: Fabric,
    batch_size: int = 8,
) -> list[Measured]:
    """What `measure` makes of a cache's images, a pass through the model at a time, in the cache's order.

    On a CPU each thread has passes of its own, in place of a share of one pass: what a core has computed, another core
    need not read, and no core waits while others measure. A GPU makes the next pass while threads measure the last ones.

    Args:
        measure: of the rows of a pass in the cache and their logits, (n, S, S) float32. Several threads call it.
        description: `checkpoints.describe_model`: its mean and std are used.
        batch_size: images a pass on a GPU. On a CPU, which takes as many as are fast, no more large ones at a time.
    """
    model = for_inference(model, fabric)

    def logits(rows: slice) -> np.ndarray:
        return logits_of(model, normalise(cache.images[rows], description["mean"], description["std"]), fabric)

    if fabric.device.type != "cpu":
        return _measured_behind(measure, logits, passes(len(cache), batch_size))
    cores, image_size = torch.get_num_threads(), cache.images.shape[1]
    at_a_time = max(batch_size, 2 * PIXELS_A_PASS // image_size**2)  # large images: one a thread, no more than a batch
    threads = max(1, min(MOST_THREADS, cores, at_a_time, len(cache)))
    images = images_a_pass(len(cache), image_size, threads)
    try:
        with ThreadPoolExecutor(threads, initializer=torch.set_num_threads, initargs=(cores // threads,)) as pool:
            return list(pool.map(lambda rows: measure(rows, logits(rows)), passes(len(cache), images)))
    finally:
        torch.set_num_threads(cores)  # a thread sets its own, and what later ones begin with


def _measured_behind(
    measure: Callable[[slice, np.ndarray], Measured], logits: Callable[[slice], np.ndarray], rows_of_passes: list[slice]
) -> list[Measured]:
    """`measure` by threads, of no more passes at once than there are threads: logits must not pile up."""
    threads, under_way, results = min(MOST_THREADS, usable_cores()), deque(), []
    with ThreadPoolExecutor(threads) as pool:
        for rows in rows_of_passes:
            if len(under_way) == threads:
                results.append(under_way.popleft().result())
            under_way.append(pool.submit(measure, rows, logits(rows)))
        return results + [each.result() for each in under_way]


def passes(count: int, images: int) -> list[slice]:
    """The rows of each pass through `count` images."""
    return [slice(first, min(first + images, count)) for first in range(0, count, images)]


def images_a_pass(count: int, image_size: int, threads: int) -> int:
    """Of `count` images on a CPU: so many that each thread has about as many passes as the others; 1 or more."""
    most = max(1, PIXELS_A_PASS // image_size**2)
    passes_a_thread = -(-count // (most * threads))
    return max(1, -(-count // max(1, passes_a_thread * threads)))


def images_per_second(model: nn.Module, image_size: int, fabric: Fabric) -> float:
    """Inference speed, one image at a time: from the median of forward passes, timed for about a second."""
    model = for_inference(model, fabric)
    image = torch.rand(1, 3, image_size, image_size, device=fabric.device).contiguous(memory_format=memory_format(fabric.device))
    times: list[float] = []
    with torch.inference_mode():
        while sum(times) < 1:
            began = time.perf_counter()
            model(image)[..., :1, :1].cpu()  # which waits for a GPU
            times.append(time.perf_counter() - began)
    return 1 / float(np.median(times[1:] or times))  # the first pass warms up, which is little of a long one
