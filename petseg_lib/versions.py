"""What a run was made with."""

import hashlib
import platform
import shutil
import subprocess
from importlib.metadata import version
from pathlib import Path
from typing import Any

PACKAGES = ("torch", "torchvision", "lightning-fabric", "albumentations", "numpy", "opencv-python-headless", "pillow")


def made_with() -> dict[str, Any]:
    """commit, code, python, platform and packages, as params.json keeps them."""
    return {
        "commit": _commit(),
        "code": code(),
        "python": platform.python_version(),
        "platform": f"{platform.system()} {platform.machine()}",
        "packages": {name: version(name) for name in PACKAGES},
    }


def code() -> str:
    """Twelve digits that change with any line of petseg_lib: a commit does not tell one change beside it from another."""
    here = Path(__file__).parent
    read = hashlib.sha256()
    for path in sorted(here.rglob("*.py")):
        read.update(path.relative_to(here).as_posix().encode() + b"\0" + path.read_bytes().replace(b"\r\n", b"\n") + b"\0")
    return read.hexdigest()[:12]


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
