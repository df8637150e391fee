"""One way to read many photographs, in a process of its own that does nothing else: prints its seconds and peak memory.

python -m benchmarks.mean_std_child WAY COUNT FOLDER [NAME]: the photographs of a folder (or one of them alone) are repeated
up to a count. Nothing here imports torch, whose mere import takes about as much memory as the whole work.
"""

import json
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from PIL import Image


def main(way: str, count: str, folder: str, name: str = "*.jpg") -> None:
    found = sorted(Path(folder).glob(name))
    paths = [found[index % len(found)] for index in range(int(count))]
    work = WAYS[way]()
    before = peak_memory()
    began = time.perf_counter()
    result = work(paths)
    print(json.dumps({"seconds": time.perf_counter() - began, "before": before, "peak": peak_memory(), "result": result}))


def ours() -> Callable[[list[Path]], list]:
    from petseg_lib.data.statistics import channel_statistics  # only here: its imports are no part of the rivals

    def work(paths: list[Path]) -> list:
        statistics = channel_statistics(paths)
        return [statistics.image_mean, statistics.image_std]

    return work


def report(paths: list[Path]) -> list:
    """The source report's way: all photographs in memory as floats, the mean of their means, the spread about that."""
    images = [np.array(Image.open(path).convert("RGB")) / 255 for path in paths]
    mean = np.mean([image.mean(axis=(0, 1)) for image in images], axis=0)
    squares = sum(((image - mean) ** 2).sum(axis=(0, 1)) for image in images)
    return [mean.tolist(), np.sqrt(squares / sum(image[..., 0].size for image in images)).tolist()]


def decode(paths: list[Path]) -> None:
    """The limit: whoever wants the pixels of a photograph must decode it, on all cores."""
    with ThreadPoolExecutor() as pool:
        for _ in pool.map(_decode, paths):
            pass


def _decode(path: Path) -> None:
    with Image.open(path) as image:
        image.load()


def peak_memory() -> float:
    """Peak of this process, MB. On Linux from /proc: there `ru_maxrss` begins with the memory of the process that started this one."""
    status = Path("/proc/self/status")
    if status.is_file():
        (line,) = (line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) / 1000
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (1e6 if sys.platform == "darwin" else 1e3)


WAYS = {"ours": ours, "report": lambda: report, "decode": lambda: decode}

if __name__ == "__main__":
    main(*sys.argv[1:])
