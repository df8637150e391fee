"""What a run was made with."""

import platform
import shutil
import subprocess
from importlib.metadata import version
from pathlib import Path
from typing import Any

PACKAGES = ("torch", "torchvision", "lightning-fabric", "albumentations", "numpy", "opencv-python-headless", "pillow")


def made_with() -> dict[str, Any]:
    """commit, python, platform and packages, as params.json keeps them."""
    return {
        "commit": _commit(),
        "python": platform.python_version(),
        "platform": f"{platform.system()} {platform.machine()}",
        "packages": {name: version(name) for name in PACKAGES},
    }


def _commit() -> str:
    """The project's git commit, with "+" where files differ from it; "unknown" outside a clone or without git."""
    here = Path(__file__).parent
    # Installed into a folder within some other project's clone, it would have that one's commit.
    if shutil.which("git") is None or _git(here, "rev-parse", "--show-prefix") != f"{here.name}/":
        return "unknown"
    return _git(here, "describe", "--always", "--abbrev=12", "--dirty=+", "--exclude=*") or "unknown"


def _git(folder: Path, *command: str) -> str:
    """What git answers there, nothing where it refuses."""
    return subprocess.run(["git", "-C", str(folder), *command], capture_output=True, text=True, check=False).stdout.strip()
