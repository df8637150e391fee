"""A sweep's questions, answered over seeds: paired differences with intervals, and a plain sentence each."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from scipy.stats import t as student

from petseg_lib.comparison import ROUNDING, Interval, apart, mean_interval, percent, same_images
from petseg_lib.config import NOTEBOOKS, shown
from petseg_lib.evaluation import dice_per_image
from petseg_lib.profiles import Profile
from petseg_lib.runs import OF_NO_RESULT, Run, RunError, is_finished
from petseg_lib.sweeps import as_stated, folder_of, left_open
from petseg_lib.words import in_words, some


@dataclass(frozen=True)
class Answer:
    """What a sweep says to one of its questions.

    Attributes:
        question: as it stands in the sweep, a sentence.
        first, second: the variants compared.
        dice: (2, S, N) dice_image of both variants, by seed and image.
        difference: of the second less the first, with its interval over seeds and images.
        report: the variant that the source report chose, or empty.
    """

    question: str
    why: str
    first: str
    second: str
    dice: np.ndarray
    difference: Interval
    report: str = ""

    @property
    def by_seed(self) -> np.ndarray:
        """(S,) mean difference of each seed."""
        return (self.dice[1] - self.dice[0]).mean(axis=1)

    @property
    def outcome(self) -> str:
        """Of the second variant: `better`, `worse` or `not told apart`."""
        if self.difference.low <= 0 <= self.difference.high:
            return "not told apart"
        return "better" if self.difference.mean > 0 else "worse"

    @property
    def of_report(self) -> str:
        """Of the report's choice: `holds`, `does not hold`, `not told apart`, or empty where it made none."""
        if not self.report or self.outcome == "not told apart":
            return self.outcome if self.report else ""
        return "holds" if (self.report == self.second) == (self.outcome == "better") else "does not hold"

    def sentence(self, confidence: float = 0.95) -> str:
        """The answer in words, with what it rests on."""
        seeds, images = self.dice.shape[1:]
        lead = self.difference if self.difference.mean >= 0 else -self.difference
        interval = f"{percent(confidence)} interval {lead.low:+z.4f} to {lead.high:+z.4f}"
        grounds = f"({interval}, {in_words(seeds, 'seed')}, {in_words(images, 'image')})"
        grounds += "; another seed is not in this interval" if seeds == 1 else ""
        amount = f"{apart(lead.mean)} dice_image"
        if np.array_equal(*self.dice):
            words = f"{self.first} and {self.second} have the same dice_image on each of these images."
        elif self.outcome == "not told apart":
            ahead = self.second if self.difference.mean > 0 else self.first
            words = f"{self.first} and {self.second} are not told apart by this much data: {ahead} is {amount} ahead {grounds}."
        else:
            words = f"{self.second} is {self.outcome} than {self.first} by {amount} {grounds}."
        of_report = {
            "holds": f" The report chose {self.report}: that holds here.",
            "does not hold": f" The report chose {self.report}: that does not hold here.",
            "not told apart": f" The report chose {self.report}: this neither bears it out nor refutes it.",
        }
        return words + of_report.get(self.of_report, "")


def interval_over_seeds(differences: np.ndarray, confidence: float = 0.95) -> Interval:
    """The mean of differences and its interval over seeds and images at once.

    Each seed's effect and each image's is taken for drawn, independently, since every seed is measured on the same images
    (two-way crossed random effects). Two or three seeds tell little of how far seeds spread, so the interval is Student's,
    of as many degrees of freedom as the parts of the variance have together (Satterthwaite 1946, Biometrics Bulletin 2,
    110). Of simulated 95% intervals over 60 images, 5% miss the truth where seeds do not spread, 8% over three seeds and 12%
    over two where they spread by 0.02 (tests/test_ablations.py bounds it). With one seed it is `comparison.mean_interval`, over images.

    Args:
        differences: (S, N) of Dice, in [-1, 1], by seed and image.
        confidence: of the interval, above 0.5 to below 1.
    """
    seeds, images = differences.shape
    if seeds == 1:
        return mean_interval(differences[0], confidence)
    mean = float(differences.mean())
    if images == 1:
        return Interval(mean, -np.inf, np.inf)
    of_seeds, of_images = differences.mean(axis=1), differences.mean(axis=0)
    rest = ((differences - of_seeds[:, None] - of_images + mean) ** 2).sum() / ((seeds - 1) * (images - 1))
    by_seeds = of_seeds.var(ddof=1) / seeds  # the mean's variance by seeds, and by what seed and image do together
    by_images = max(of_images.var(ddof=1) - rest / seeds, 0) / images
    variance = by_seeds + by_images
    if variance < ROUNDING**2:
        return Interval(mean, mean, mean)
    freedom = variance**2 / (by_seeds**2 / (seeds - 1) + by_images**2 / (images - 1))
    reach = float(student.ppf((1 + confidence) / 2, freedom) * np.sqrt(variance))
    return Interval(mean, max(mean - reach, -1.0), min(mean + reach, 1.0))  # no difference of two Dices lies beyond


def runs_by_variant(sweep: Profile) -> dict[str, dict[int, Run]]:
    """A sweep's runs: variant -> seed -> run.

    Args:
        sweep: as `sweeps.load_sweep` gives one that is asked.

    Raises:
        RunError: a run stands under other parameters than the sweep's, or runs differ in what the sweep leaves open.
    """
    runs: dict[str, dict[int, Run]] = {}
    first: dict[tuple[str, str], tuple[Run, Any]] = {}
    for name, point in sweep.points.items():
        run, (notebook, settings) = Run(folder_of(sweep, name)), sweep.runs[name]
        is_finished(run, as_stated(run, notebook, settings))
        for parameter, value in left_open(run, notebook, settings).items():
            other, its_value = first.setdefault((notebook, parameter), (run, value))
            if value != its_value and parameter not in OF_NO_RESULT:
                raise RunError(
                    f"{shown(run.folder)} and {shown(other.folder)} differ in {parameter} ({value!r} and {its_value!r}), of which the "
                    "sweep says nothing: `petseg sweep` trains what does not belong to it again"
                )
        runs.setdefault(point["variant"], {})[point["seed"]] = run
    return runs


def dice_by_seed(runs: dict[str, dict[int, Run]]) -> dict[str, np.ndarray]:
    """dice_image (native, border policy pet) of each variant, (S, N): by seed, in the sweep's order, and image.

    Raises:
        RunError: runs are not finished, or they were not all measured on the same images.
    """
    if missing := [run.name for seeds in runs.values() for run in seeds.values() if not run.complete]:
        raise RunError(
            f"not finished: {some(missing)} ({len(missing)} of {in_words(sum(map(len, runs.values())), 'run')}); `petseg sweep` "
            "trains what is missing, and so does notebook 06 with train_missing = True"
        )
    tables = {f"{variant}, seed {seed}": run.per_image for variant, seeds in runs.items() for seed, run in seeds.items()}
    same_images(tables)
    dice = iter([dice_per_image(table).to_numpy() for table in tables.values()])
    return {variant: np.stack([next(dice) for _ in seeds]) for variant, seeds in runs.items()}


def answers(sweep: Profile, dice: dict[str, np.ndarray], confidence: float = 0.95) -> dict[str, Answer]:
    """The answer to each of a sweep's questions, by its name.

    Args:
        dice: of `dice_by_seed`; runs of the same seed are paired.
    """
    found = {}
    for name, question in sweep.questions.items():
        first, second = question["first"], question["second"]
        interval = interval_over_seeds(dice[second] - dice[first], confidence)
        found[name] = Answer(
            question["question"],
            question.get("why", ""),
            first,
            second,
            np.stack([dice[first], dice[second]]),
            interval,
            question.get("report", ""),
        )
    return found


def answers_table(found: dict[str, Answer]) -> pd.DataFrame:
    """One row a question: question, first, second, dice_first, dice_second, difference, low, high, seeds, images, outcome, report."""
    rows = [
        {
            "question": answer.question,
            "first": answer.first,
            "second": answer.second,
            "dice_first": float(answer.dice[0].mean()),
            "dice_second": float(answer.dice[1].mean()),
            "difference": answer.difference.mean,
            "low": answer.difference.low,
            "high": answer.difference.high,
            "seeds": answer.dice.shape[1],
            "images": answer.dice.shape[2],
            "outcome": answer.outcome,
            "report": answer.of_report,
        }
        for answer in found.values()
    ]
    return pd.DataFrame(rows)


def variants_table(sweep: Profile, runs: dict[str, dict[int, Run]]) -> pd.DataFrame:
    """One row a variant: variant, changes (its notebook and parameters where the first variant's differ), seeds, dice_image, sd, seconds.

    dice_image (native, border policy pet) is the mean over seeds and images and sd its standard deviation over seeds;
    seconds are those of training, the median over seeds.
    """
    dice = {variant: values.mean(axis=1) for variant, values in dice_by_seed(runs).items()}
    rows = []
    for variant, seeds in runs.items():
        rows.append(
            {
                "variant": variant,
                "changes": _changes(sweep, variant),
                "seeds": len(seeds),
                "dice_image": float(dice[variant].mean()),
                "sd": float(dice[variant].std(ddof=1)) if len(seeds) > 1 else np.nan,
                "seconds": float(np.median([run.metrics["training_seconds"] for run in seeds.values()])),
            }
        )
    return pd.DataFrame(rows).set_index("variant")


def _changes(sweep: Profile, variant: str) -> str:
    """A variant's notebook and parameters where they differ from the first variant's, defaults included."""
    (first, common), *_ = sweep.runs.values()
    notebook, values = next(sweep.runs[name] for name, point in sweep.points.items() if point["variant"] == variant)
    reference, own = NOTEBOOKS[first].checked(common).model_dump(), NOTEBOOKS[notebook].checked(values).model_dump()
    # Of another notebook, what only it has or what it has another default of is not the variant's doing, unless it says so.
    compared = own if notebook == first else values
    changed = [name for name in compared if name not in ("run_dir", "figures_dir", "seed") and own[name] != reference.get(name)]
    return ", ".join([*([notebook] if notebook != first else []), *(f"{name} {own[name]}" for name in changed)])
