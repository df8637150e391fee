"""A dataset as large as the whole of Oxford-IIIT Pet, simulated: a folder's photographs, repeated under other names.

    python -m benchmarks.repeated DIR OUT [--count 7349]

Files are hard links where the system allows them. For measuring how long a profile takes; a Dice of it means nothing,
since pets to train on come again in test.
"""

import argparse
import os
import shutil
from pathlib import Path

from petseg_lib.data.download import PAIRS


def repeat(data: Path, out: Path, count: int) -> None:
    """Fill a new folder in the Oxford layout: each list file as much longer as the whole is, its lines in turn.

    Args:
        data: a folder in the Oxford layout.
        out: a folder that does not exist yet.
        count: pets in all.
    """
    lists = {name: (data / "annotations" / name).read_text(encoding="utf-8").split("\n") for name in ("trainval.txt", "test.txt")}
    lists = {name: [line for line in lines if line and line[0] != "#"] for name, lines in lists.items()}
    files = {"images": ".jpg", "annotations/trimaps": ".png"}
    for folder in files:
        (out / folder).mkdir(parents=True)
    wanted = round(count * len(lists["trainval.txt"]) / sum(map(len, lists.values())))
    for (name, lines), many in zip(lists.items(), (wanted, count - wanted), strict=True):
        new_lines = []
        for number in range(many):
            pet, _, rest = lines[number % len(lines)].partition(" ")
            breed, _, own = pet.rpartition("_")
            new = f"{breed}_{own}{number // len(lines):04d}"
            for folder, suffix in files.items():
                _link(data / folder / f"{pet}{suffix}", out / folder / f"{new}{suffix}")
            new_lines.append(f"{new} {rest}\n")
        (out / "annotations" / name).write_text("".join(new_lines), encoding="utf-8")


def _link(file: Path, new: Path) -> None:
    try:
        os.link(file, new)
    except OSError:  # another disk, or the file of another user
        shutil.copy(file, new)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--count", type=int, default=PAIRS)
    options = parser.parse_args()
    repeat(options.data, options.out, options.count)


if __name__ == "__main__":
    main()
