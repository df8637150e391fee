"""Work that needs a process of its own: a cold start, or a memory that nothing else has filled."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).resolve().parents[1]


def run_python(*arguments: object) -> str:
    """Run this Python with arguments, in the repository's folder; returns what it printed."""
    path = os.pathsep.join(filter(None, [str(REPOSITORY), os.environ.get("PYTHONPATH")]))
    command = [sys.executable, *map(str, arguments)]
    return subprocess.run(
        command, check=True, cwd=REPOSITORY, env=os.environ | {"PYTHONPATH": path}, stdout=subprocess.PIPE, text=True
    ).stdout


def seconds_of(*arguments: object) -> float:
    """From the start of Python to its end."""
    began = time.perf_counter()
    run_python(*arguments)
    return time.perf_counter() - began


def answer_of(module: str, *arguments: object) -> dict[str, Any]:
    """The JSON that a module of this package printed as its last line."""
    return json.loads(run_python("-m", f"benchmarks.{module}", *arguments).strip().splitlines()[-1])
