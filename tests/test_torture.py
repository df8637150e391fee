"""The short form of `make torture`: without notebooks, whose start takes longer than the whole training."""

import multiprocessing
import os
import random
import signal
import sys
import time
from pathlib import Path

import pandas as pd
import pytest
import short_training

from petseg_lib.checkpoints import load_state
from petseg_lib.data.synthetic import draw_pets


@pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX")
def test_killed_runs_end_as_those_left_in_peace(tmp_path, temporary_workspace, monkeypatch):
    # The server that forks them hands on neither this process's path nor its errors of import.
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")]))
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["short_training"])  # imported once for all runs
    data, draws, reached = draw_pets(tmp_path / "pets", 40), random.Random(0), []

    def start(run_dir, writing_share=0.02):
        process = context.Process(target=short_training.train_in, args=(temporary_workspace, run_dir, str(data), writing_share))
        process.start()
        return process

    def epochs(folder):
        return len(pd.read_csv(folder / "history.csv")) if (folder / "history.csv").is_file() else 0

    start("runs/t/peaceful").join()
    reference = short_training.content(temporary_workspace / "runs/t/peaceful")
    # The last one's checkpoint is of its first epoch, as if its writing took long.
    for kill, (way, writing_share) in enumerate(((signal.SIGKILL, 0.02), (signal.SIGTERM, 0.02), (signal.SIGKILL, 1e-9))):
        folder = temporary_workspace / f"runs/t/killed_{kill}"
        process, enough = start(f"runs/t/killed_{kill}", writing_share), draws.randint(2, 5)
        while epochs(folder) < enough and process.is_alive():
            time.sleep(0.005)
        time.sleep(draws.uniform(0, 0.1))  # anywhere in an epoch
        os.kill(process.pid, way)
        process.join()
        reached.append(epochs(folder))
        if writing_share < 0.02:
            assert load_state(folder / "resume" / "state.pt")["progress"]["epoch"] == 1 < reached[-1]
        again = start(f"runs/t/killed_{kill}")
        again.join()
        assert again.exitcode == 0
        assert short_training.content(folder) == reference, f"killed after epoch {reached[-1]}"
    assert any(0 < count < short_training.SMALL["epochs"] for count in reached), "no kill met a training under way"
