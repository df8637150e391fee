"""python -m benchmarks [--data DIR] [--rows NAME ...] [--quick] [--out DIR]: measure, and write results.json and RESULTS.md."""

import argparse
import gc
import json
import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from benchmarks import (
    caching,
    choices,
    epochs,
    evaluating,
    feeding,
    kept_memory,
    lasting,
    mean_std,
    opening,
    prediction,
    profile_time,
    steps,
)
from benchmarks.machine import in_words
from benchmarks.rows import Row
from benchmarks.setting import GPU, QUICK, Setting, Sizes
from benchmarks.write_up import write_up
from petseg_lib.config import workspace
from petseg_lib.data.pets import dataset_folder
from petseg_lib.disk import write_atomically
from petseg_lib.gpus import finds_cuda

HERE = Path(__file__).parent
# In this order: the epochs leave the weights that the evaluations use.
ROWS: dict[str, Callable[[Setting], list[Row]]] = {
    "mean_std": mean_std.mean_std,
    "feeding": feeding.feeding,
    **steps.STEPS,
    **epochs.EPOCHS,
    "checkpoint": epochs.checkpoint_sample,
    **evaluating.EVALUATIONS,
    "prediction": prediction.prediction,
    **profile_time.PROFILES,
    "import": opening.imports,
    "open": opening.notebooks,
    "memory": lasting.memory,
    "cache": caching.caching,
    "scale": lasting.scale,
    "choices": choices.choices,
    "kept_memory": kept_memory.kept_memory,
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the suite; returns the exit status."""
    options = _parser().parse_args(arguments)
    data = dataset_folder(options.data)
    device = "cuda" if finds_cuda() else "cpu"
    standing = HERE / "gpu" if device == "cuda" else HERE
    out = Path(options.out or (workspace() / "build" / "bench-quick" if options.quick else standing))
    out.mkdir(parents=True, exist_ok=True)
    (workspace() / "build").mkdir(parents=True, exist_ok=True)
    with (
        TemporaryDirectory(prefix="bench-", dir=workspace() / "build", ignore_cleanup_errors=True) as folder,
        processes_in(folder),
    ):
        sizes = QUICK if options.quick else GPU if device == "cuda" else Sizes()
        setting = Setting(str(data.resolve()), sizes, Path(folder), device, options.quick)
        measure(setting, options.rows or list(ROWS), out, data_in_words(options.data, setting))
    return 0


@contextmanager
def processes_in(folder: str) -> Iterator[None]:
    """While it lasts, this process and those that it starts work in a folder, and find only packages that users have.

    Lightning Fabric imports torchmetrics where it is installed, which takes longer than torch; only the tests need it.
    """
    hidden = Path(folder) / "hidden"
    hidden.mkdir()
    (hidden / "torchmetrics.py").write_text('raise ImportError("only the tests have this package")\n')
    path = os.pathsep.join(filter(None, [str(hidden), os.environ.get("PYTHONPATH")]))
    before = dict(os.environ)
    os.environ.update({"PETSEG_WORKSPACE": folder, "PYTHONPATH": path})
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description="Measure petseg beside its rivals.")
    parser.add_argument("--data", default="demo", metavar="DIR", help="dataset folder in the Oxford layout, or demo (default)")
    parser.add_argument("--rows", nargs="+", choices=list(ROWS), metavar="NAME", help=f"only these: {', '.join(ROWS)}")
    parser.add_argument("--quick", action="store_true", help="tiny sizes, to see that all works")
    parser.add_argument(
        "--out",
        metavar="DIR",
        help="where results go (default: benchmarks, on a GPU benchmarks/gpu; of --quick: build/bench-quick)",
    )
    return parser


def measure(setting: Setting, names: list[str], out: Path, data: str) -> None:
    """Measure rows one after the other and write what there is after each; rows that are not measured stay as they were."""
    path = out / "results.json"
    results: dict[str, Any] = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {"rows": {}}
    circumstances = {"machine": in_words(setting.device), "data": data, "quick": setting.quick}
    print(f"{circumstances['machine']}\n{data}", flush=True)
    for name in (name for name in ROWS if name in names):
        gc.collect()
        gc.freeze()  # what earlier rows left is not searched for garbage in this one's time
        began = time.perf_counter()
        print(f"{name} begins", flush=True)
        others = [row for row in results["rows"].values() if row["subject"] != name]
        rows = [*others, *({"subject": name} | row | circumstances for row in ROWS[name](setting))]
        in_order = sorted(rows, key=lambda row: list(ROWS).index(row["subject"]))
        results["rows"] = {row["name"]: row for row in in_order}
        write_atomically(path, (json.dumps(results, indent=1, ensure_ascii=False) + "\n").encode())
        write_atomically(out / "RESULTS.md", write_up(results).encode())
        print(f"{name} took {time.perf_counter() - began:.0f} s", flush=True)


def data_in_words(name: str, setting: Setting) -> str:
    """No paths: they are another machine's."""
    dataset = setting.dataset()
    kind = "synthetic pets (drawn, not photographed)" if name == "demo" else "a folder of photographs"
    breeds = len({pet.breed for pet in dataset.pets})
    return f"{len(dataset.pets)} of {kind}, {breeds} breeds, {len(dataset.split('train'))} of them to train"


if __name__ == "__main__":
    raise SystemExit(main())
