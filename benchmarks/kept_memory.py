"""What it is worth that a process keeps the memory it frees (`devices.keep_freed_memory`): steps in processes with and without.

python -m benchmarks.kept_memory DATA NETWORK PROFILE WIDTH SIZE BATCH_SIZE KEPT: a process of its own that makes a few steps, and
prints the median of their seconds and its peak memory.
"""

import json
import sys
import time
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from unittest.mock import patch

import numpy as np

from benchmarks.children import answer_of
from benchmarks.mean_std_child import peak_memory
from benchmarks.rows import Row, build_row, in_rounds
from benchmarks.setting import QUICK, TITLES, Setting
from benchmarks.steps import our_step, random_batch
from benchmarks.timing import alternate
from petseg_lib import devices
from petseg_lib.models import build_model

GIVEN_BACK = "freed memory given back"
WARM_UP, STEPS = 2, 5


def kept_memory(setting: Setting) -> list[Row]:
    """Of the profile `sample`'s networks and of the report's."""
    small, large = setting.sizes.sample_width, setting.sizes.width
    rows = [("unet", "sample", small), ("resnet34_unet", "sample", small)]
    rows += [("unet", "report", large), ("resnet34_unet_report", "report", large)]
    return [_row(setting, *row) for row in (rows[:1] if setting.quick else rows)]  # each has processes of its own


def _row(setting: Setting, network: str, profile: str, width: int) -> Row:
    sizes, peaks = setting.sizes, {"kept": [], "given_back": []}
    what = (setting.data, network, profile, width, sizes.image_size, sizes.batch_size)

    def seconds(memory: str) -> float:
        answer = answer_of("kept_memory", *what, memory)
        peaks[memory].append(answer["peak"])
        return answer["seconds"]

    title = f"training step of {TITLES[network]}, width {width}, in a process of its own"
    measures = {"ours": partial(seconds, "kept"), GIVEN_BACK: partial(seconds, "given_back")}
    taken = alternate(title, measures, sizes.rounds, warm_up=False)
    kept, given_back = (np.median(peaks[memory]) for memory in ("kept", "given_back"))
    return build_row(
        f"kept_memory_{network}_{width}",
        title,
        "s",
        taken,
        rivals=[GIVEN_BACK],
        conditions=f"{in_rounds(sizes.rounds)}, each the median of {STEPS} steps in a new process; {sizes.image_size} px, {sizes.batch_size} a batch; "
        f"peak memory {kept:,.0f} MB, {given_back:,.0f} MB where it is given back",
    )


def main(data: str, network: str, profile: str, width: str, size: str, batch_size: str, memory: str) -> None:
    """The child."""
    setting = Setting(data, QUICK, Path(), "cpu", quick=False)
    p = setting.parameters(network, profile, width=int(width), image_size=int(size), batch_size=int(batch_size))
    given_back = patch.object(devices, "keep_freed_memory", lambda: None) if memory == "given_back" else nullcontext()
    with given_back:
        step = our_step(build_model(p.model, **p.model_settings()), p, [random_batch(p.batch_size, p.image_size, "cpu")])
    seconds = []
    for _ in range(WARM_UP + STEPS):
        began = time.perf_counter()
        step()
        seconds.append(time.perf_counter() - began)
    print(json.dumps({"seconds": float(np.median(seconds[WARM_UP:])), "peak": peak_memory()}))


if __name__ == "__main__":
    main(*sys.argv[1:])
