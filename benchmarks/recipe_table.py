"""The recipes tried as a table with intervals, RECIPES.md, and as curves over time, dice_over_time.svg.

`python -m benchmarks.recipe_table` writes both from recipes.json.
"""

from typing import Any

import numpy as np
import pandas as pd
import yaml

from benchmarks.recipes import HERE, RECIPES, load
from petseg_lib.ablations import interval_over_seeds
from petseg_lib.disk import write_atomically
from petseg_lib.figures import dice_over_time
from petseg_lib.words import in_words

TABLE, FIGURE = HERE / "RECIPES.md", HERE / "dice_over_time.svg"
# The figure's recipes: as many as its colours can tell apart.
DRAWN = (
    "unet_report",
    "resnet_report",
    "unet_short_muon_constant",
    "resnet_short_muon_stem",
    "unet_sample",
    "resnet_sample",
    "unet_480_constant",
)


def rows(split: str) -> list[dict[str, Any]]:
    """A row a recipe: its Dice over seeds, and its gain over the recipe it builds on (`of`) or those it is measured `against`.

    A gain is that of the seeds both have, with its interval over seeds and images.
    """
    entries = [each for each in load() if each["split"] == split]
    table = []
    for name, own in yaml.safe_load(RECIPES.read_text(encoding="utf-8")).items():
        dice = {each["seed"]: np.array(each["dice"]) for each in entries if each["recipe"] == name}
        if not dice:
            continue
        mine = [each for each in entries if each["recipe"] == name]
        of_seeds = [values.mean() for values in dice.values()]
        row = {"recipe": name, "why": own.get("why", ""), "seeds": len(dice), "dice": float(np.mean(of_seeds))}
        row["spread"] = float(np.std(of_seeds, ddof=1)) if len(dice) > 1 else None
        row["flipped"] = float(np.mean([each["dice_flipped"] for each in mine]))
        row["cost"] = cost(mine)
        row["epochs"] = int(np.median([each["epochs"] for each in mine]))
        last = {each["seed"]: np.array(each["dice_last"]) for each in mine if "dice_last" in each}
        row["gains"], row["last"] = [], [gained([last[seed] - dice[seed] for seed in last])] if last else []
        others = own.get("against", own.get("of", []))
        for over in [others] if isinstance(others, str) else others:
            before = {each["seed"]: np.array(each["dice"]) for each in entries if each["recipe"] == over}
            if common := sorted(dice.keys() & before.keys()):
                row["gains"].append(gained([dice[seed] - before[seed] for seed in common], f" over {over}"))
            if over.endswith("_report") and (common := sorted(last.keys() & before.keys())):  # over which there is an aim
                row["last"].append(gained([last[seed] - before[seed] for seed in common], f" over {over}"))
        table.append(row)
    return table


def cost(entries: list[dict[str, Any]]) -> str:
    """Seconds of a core, and in which arithmetic, where that is known; of a training on a GPU those of the clock, with its name."""
    on_cpu = [each["cpu_seconds"] for each in entries if each.get("device", "cpu") == "cpu"]
    on_gpu = [(each["wall_seconds"], each["device"]) for each in entries if each.get("device", "cpu") != "cpu"]
    if on_gpu:
        return f"{np.median([seconds for seconds, _ in on_gpu]):.0f} of the clock, {on_gpu[0][1]}"
    kinds = sorted({each["arithmetic"] for each in entries if "arithmetic" in each})
    return "; ".join([f"{np.median(on_cpu):.0f}", *kinds])


def gained(differences: list[np.ndarray], over: str = "") -> str:
    """A gain in words, of the differences of each seed (one a row) on each image."""
    gain, count = interval_over_seeds(np.stack(differences)), len(differences)
    return f"{gain.mean:+.4f} [{gain.low:+.4f}, {gain.high:+.4f}]{over}, {in_words(count, 'seed')}"


def write_table() -> None:
    """recipes.json as RECIPES.md."""
    splits = sorted({each["split"] for each in load()}, key=lambda split: (split != "test", split))
    what = "What a minute of training buys: recipes tried on real photographs, over seeds, each a run without a notebook.\n"
    parts = ["# Recipes tried\n", what, f"![Dice over time]({FIGURE.name})\n"]
    parts.append(
        "dice_image at native size, border policy `pet`. *Gain* is over the recipe that it builds on, on the seeds that both have, and so not always the difference of the column *Dice*, with its 95% interval over seeds and images (Student's, of crossed random effects: of two seeds such an interval misses the truth up to one time in eight, of three one in thirteen; of one seed it is of the images alone, and says nothing of other seeds, which move Dice by about 0.01, and by 0.02 to 0.03 on a breed that was not trained on). `dev` (see the head of `recipes.py`) trains on 200 photographs, chooses the epoch by 25 and measures on 75, so its figures are lower than those of `test`. *Last epoch* is what that one's weights gain over those of the best epoch by the validation photographs, which the other columns are of, and then over the report's recipe (of its best epoch). *CPU s* are seconds of a core of shared machines, over many changes to the code and to what else ran on them: of one machine where no arithmetic is named, of others where it is (bf16 of one with AMX). On the former the same recipe (`unet_short`, tested on Abyssinians) took 168 s with seed 0 and later 88 s with the others. Rows of different ages cannot be compared by them.\n"
    )
    for split in splits:
        parts.append(
            f"## {split}\n\n| recipe | what it changes | seeds | Dice | gain | with flips | last epoch | epochs | CPU s |\n|---|---|---|---|---|---|---|---|---|"
        )
        for row in rows(split):
            spread = f" ± {row['spread']:.4f}" if row["spread"] is not None else ""
            parts.append(
                f"| {row['recipe']} | {row['why']} | {row['seeds']} | {row['dice']:.4f}{spread} | {'<br>'.join(row['gains'])} | {row['flipped']:.4f} "
                f"| {'<br>'.join(row['last'])} | {row['epochs']} | {row['cost']} |"
            )
        parts.append("")
    write_atomically(TABLE, ("\n".join(parts)).encode())
    write_figure()


def curves() -> dict[str, pd.DataFrame]:
    """Of the recipes measured on test, the first seed of each: CPU seconds of each epoch, and valid_dice."""
    found: dict[str, pd.DataFrame] = {}
    for entry in (each for each in load() if each["split"] == "test"):
        ended, dice = np.array(entry["curve"]).T
        # Other work shared the machine: the clock's time is taken down to the CPU's.
        seconds = np.diff(ended, prepend=0.0) * entry["cpu_seconds"] / entry["wall_seconds"]
        found.setdefault(entry["recipe"], pd.DataFrame({"seconds": seconds, "valid_dice": dice}))
    return found


def write_figure() -> None:
    """The best validation Dice so far against the CPU time of training."""
    figure = dice_over_time({name: curve for name, curve in curves().items() if name in DRAWN})
    figure.axes[0].set_xlabel("CPU time of training, minutes")
    figure.savefig(FIGURE, metadata={"Date": None, "Creator": None})


if __name__ == "__main__":
    write_table()
