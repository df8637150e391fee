"""Kill training notebooks at random moments, start each again, and compare it with one that was left in peace.

`make torture` runs 20 of them and prints a table; a short form without notebooks is in `make test`.
"""

import argparse
import itertools
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pandas as pd
import psutil
from short_training import SMALL, content

from petseg_lib.checkpoints import load_state
from petseg_lib.data.synthetic import draw_pets

# Each run of the same number has the same parameters, so that it can be compared.
VARIANTS = [
    ("03_unet_training", {"loader_workers": 0}),
    ("04_resnet34_unet_training", {"loader_workers": 2, "ema_decay": 0.9}),
    ("03_unet_training", {"loader_workers": 2, "accumulate": 2, "optimizer": "adam", "schedule": "cosine"}),
    ("04_resnet34_unet_training", {"loader_workers": 0, "schedule": "constant"}),
]
WAYS = ("SIGKILL to all", "SIGKILL to the kernel", "SIGTERM to petseg")


def torture(kills: int, seed: int, workspace: Path) -> pd.DataFrame:
    """One row a killed run: notebook, way, seconds (after its start), epochs (finished by then), checkpoint (the epoch that is
    gone on from), identical (at the end)."""
    draws = random.Random(seed)
    data = draw_pets(workspace / "pets", 40)
    variants = VARIANTS[: max(1, kills // 5)]  # each needs a run left in peace
    peaceful = []
    for number, (notebook, settings) in enumerate(variants):
        assert start(workspace, notebook, f"runs/t/peaceful_{number}", data, settings).wait() == 0
        peaceful.append(workspace / f"runs/t/peaceful_{number}")
    rows = []
    for kill, ((notebook, settings), reference) in zip(
        range(kills), itertools.cycle(zip(variants, peaceful, strict=True)), strict=False
    ):
        out, way = f"runs/t/killed_{kill}", WAYS[kill % len(WAYS)]
        folder, enough, began = workspace / out, draws.randint(0, SMALL["epochs"]), time.monotonic()
        process = start(workspace, notebook, out, data, settings)
        while epochs(folder) < enough and process.poll() is None:
            time.sleep(0.01)
        time.sleep(draws.uniform(0, 0.3 if enough else 8))  # anywhere in an epoch, or in the start before the first
        seconds = time.monotonic() - began
        end(process, way)
        reached, state = epochs(folder), folder / "resume" / "state.pt"
        checkpoint = load_state(state)["progress"]["epoch"] if state.is_file() else 0
        assert start(workspace, notebook, out, data, settings).wait() == 0, f"{out} could not go on"
        rows.append((notebook, way, round(seconds, 1), reached, checkpoint, content(folder) == content(reference)))
    return pd.DataFrame(rows, columns=["notebook", "way", "seconds", "epochs", "checkpoint", "identical"])


def start(workspace: Path, notebook: str, out: str, data: Path, settings: dict) -> subprocess.Popen:
    options = [word for name, value in (SMALL | settings | {"data": data}).items() for word in ("-p", name, str(value))]
    command = [sys.executable, "-m", "petseg_lib.cli", "run", notebook, "--out", out, *options]
    environment = os.environ | {"PETSEG_WORKSPACE": str(workspace)}
    return subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def end(process: subprocess.Popen, way: str) -> None:
    """End a run in one of three ways, and wait until nothing of it is left."""
    family = psutil.Process(process.pid).children(recursive=True) if process.poll() is None else []
    if way == "SIGTERM to petseg":
        process.send_signal(signal.SIGTERM)
    elif way == "SIGKILL to the kernel":
        for child in family:
            if "ipykernel_launcher" in " ".join(child.cmdline()):
                child.kill()
    else:
        for each in [process, *family]:
            each.kill()
    process.wait()
    psutil.wait_procs(family, timeout=30)


def epochs(folder: Path) -> int:
    history = folder / "history.csv"
    return len(pd.read_csv(history)) if history.is_file() else 0


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        table = torture(options.kills, options.seed, Path(folder))
    print(table.to_string(index=False))
    print(f"{table['identical'].sum()} of {len(table)} identical")
    sys.exit(not table["identical"].all())
