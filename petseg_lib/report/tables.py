"""Tables for a paper, in Markdown and LaTeX, from nothing but run folders and the CSV files beside the figures."""

from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
from nbconvert.filters import escape_latex

from petseg_lib import comparison
from petseg_lib.config import shown, workspace
from petseg_lib.disk import write_atomically
from petseg_lib.execute import duration
from petseg_lib.profiles import profile_of
from petseg_lib.runs import Run

SUMMARY = (
    "dice_image (native, border policy pet) of each run with its interval over test images, and what the run cost: "
    "parameters, GFLOP an image (two per multiply-add), images a second (inference, one at a time), epochs, training time."
)
CONVENTIONS = "Every Dice convention of every run on its test images."
_INTERVAL = "low and high are the ends of its interval (95% unless the notebook's parameter confidence says otherwise)"
# Of the CSV files that the notebooks write beside their figures; docs/files.md has every column.
CAPTIONS = {
    "results.csv": (
        "Every Dice convention of each run compared, and of two floors that know nothing of the photograph: value, from 0 to 1, "
        "is that of convention, resolution and border policy over the test images, of which images is the number."
    ),
    "comparison_differences.csv": (
        "Each pair of runs on the same test images: difference is the mean dice_image (native, border policy pet) of run less "
        f"that of against, the better of the two; {_INTERVAL}, paired over images. On ahead of the images run is the better one."
    ),
    "comparison_strata.csv": (
        "Mean dice_image (native, border policy pet) of each run on the test images of a species, or of a third of them by the "
        "pet's size (share of the photograph) or outline (its length over the square root of the pet's area); from and to are the "
        f"least and the largest such value in that third; {_INTERVAL}."
    ),
    "comparison_thresholds.csv": (
        "The threshold of probability that gives each run the highest mean dice_image (native, under the run's own border policy) "
        "on the valid split, and that Dice on both splits at 0.5 (half) and at the threshold (chosen): gain is test_chosen less "
        f"test_half; {_INTERVAL}, paired over images."
    ),
    "ablations.csv": (
        "Each question of a sweep: difference is the mean dice_image (native, border policy pet) of the variant second less that "
        f"of first, over seeds and test images; {_INTERVAL}, over both (with one seed, over images alone). The outcome is that of "
        "second; report says whether the source report's choice holds."
    ),
}
_LONG = 40  # rows; a longer table is broken over pages
_SHRUNK = "\\medskip\n" r"\resizebox{\ifdim\width>\linewidth\linewidth\else\width\fi}{!}{"
_NUMBER = r"[-+]?(\d|inf$)|$"
_OF_WORDS = dict.fromkeys(("run", "against", "name", "first", "second", "breed"), str)  # 007 is a name


class Table(NamedTuple):
    """A table as text: its name, what it shows, the files it was made from, and its cells."""

    name: str
    caption: str
    source: str
    cells: pd.DataFrame


def measured_runs(runs_folder: Path) -> list[Run]:
    """The finished training runs of a folder of run folders, by notebook and name."""
    runs = map(Run, sorted(runs_folder.glob("*/")))
    measured = [run for run in runs if run.complete and (run.folder / "per_image.csv").is_file()]
    return sorted(measured, key=lambda run: (run.provenance.get("notebook", ""), run.name))


def summary(runs: list[Run]) -> Table:
    """One row a run: its dice_image (native, pet) with the interval, and what it cost."""
    table = comparison.summary_table({run.name: run for run in runs}, {run.name: run.per_image for run in runs}, {})
    metrics = [run.metrics for run in runs]
    columns = {
        "run": table["run"],
        "dice_image (native, pet)": table["dice"].map("{:.4f}".format),
        "95% interval": [f"{low:.4f} to {high:.4f}" for low, high in zip(table["low"], table["high"], strict=True)],
        "test images": [str(each["test_images"]) for each in metrics],
        "parameters": table["parameters"].map("{:,}".format),
        "GFLOP": table["gflop"].map("{:.3f}".format),
        "images/s": table["images_per_second"].map("{:.1f}".format),
        "epochs": table["epochs"].map(str),
        "training time": table["training_seconds"].map(duration),
        "device": [f"{each['device']}, {each['precision']}" for each in metrics],
    }
    # What is the same for all runs needs no column.
    shared = [name for name in ("test images", "device") if len(set(columns[name])) == 1]
    caption = " ".join([SUMMARY, *(f"{name.capitalize()}: {columns[name][0]}." for name in shared)])
    return Table("summary", caption, _source(runs), pd.DataFrame(columns).drop(columns=shared))


def conventions(runs: list[Run]) -> Table:
    """Every convention, resolution and border policy a row, every run a column."""
    batch_sizes = {run.name: run.parameters["batch_size"] for run in runs}
    table = comparison.convention_table({run.name: run.per_image for run in runs}, batch_sizes)
    return Table("conventions", CONVENTIONS, _source(runs), as_text(table.reset_index()))


def as_text(table: pd.DataFrame) -> pd.DataFrame:
    """The cells as text: each column of numbers with as many digits as its values need, and smaller ones with their own."""
    return pd.DataFrame({name: _column_as_text(column) for name, column in table.items()})


def _column_as_text(column: pd.Series) -> pd.Series:
    if pd.api.types.is_float_dtype(column):
        finite = column[np.isfinite(column)]
        sizes = finite[finite != 0].abs()
        if (finite % 1 == 0).all():
            style, least = "{:.0f}", 0.0
        elif sizes.max() < 0.01 and sizes.min() < 0.001:
            style, least = "{:.3g}", 0.0
        else:
            style, least = ("{:.1f}", 0.05) if sizes.max() >= 100 else ("{:.4f}", 0.00005)
        texts = column.map(
            lambda value: (style if abs(value) >= least or value == 0 else "{:.3g}").format(value), na_action="ignore"
        )
        return texts.astype(object).fillna("")
    return column.astype(object).fillna("").map(lambda value: " ".join(str(value).split()))  # on one line


def tables_of(runs_folder: Path, figures_folder: Path) -> list[Table]:
    """All tables of a folder of run folders: the runs' own, and each CSV file beside their figures."""
    runs = measured_runs(runs_folder)
    exported = [
        Table(
            path.stem,
            CAPTIONS.get(path.name, f"{path.name}, as the notebooks leave it."),
            shown(path),
            as_text(pd.read_csv(path, keep_default_na=False, na_values=[""], dtype=_OF_WORDS)),
        )
        for path in sorted(figures_folder.glob("*.csv"))
    ]
    return [*exported, summary(runs), conventions(runs)] if runs else exported


def _source(runs: list[Run]) -> str:
    return f"{shown(runs[0].folder.parent)}/*/: params.json, metrics.json, per_image.csv"


def markdown(table: Table, command: str) -> str:
    """The table in Markdown, with its caption and where it comes from."""
    escaped = table.cells.rename(columns=_without_bars).map(_without_bars)
    sides = ["right" if numeric else "left" for numeric in _numeric(table.cells)]
    drawn = escaped.to_markdown(index=False, disable_numparse=True, colalign=sides)
    return f"{table.caption}\n\n{drawn}\n\nMade by `{command}` from {table.source}.\n"


def latex(table: Table, command: str) -> str:
    """The table in LaTeX, with where it comes from and the packages it needs as comments.

    It has booktabs' rules; a long one is broken over pages, and another one that is wider than the text is shrunk to it.
    """
    long = len(table.cells) > _LONG
    drawn = table.cells.to_latex(
        index=False,
        escape=True,
        longtable=long,
        column_format="".join("r" if numeric else "l" for numeric in _numeric(table.cells)),
        caption=escape_latex(table.caption),
        label=f"tab:{table.name}",
    )
    drawn = drawn.replace(r"\begin{tabular}", _SHRUNK + r"\begin{tabular}").replace(r"\end{tabular}", r"\end{tabular}}")
    packages = "booktabs, longtable" if long else "booktabs, graphicx"
    return f"% Made by `{command}` from {table.source}.\n% Needs: {packages}.\n{drawn}"


def write_tables(runs_folder: Path) -> Path | None:
    """Write every table of `runs/PROFILE` into `figures/PROFILE/tables`, as NAME.md and NAME.tex; a sweep's is `sweeps/NAME`.

    Returns:
        The folder; None where there is nothing to tabulate.
    """
    figures_folder = workspace() / "figures" / profile_of(runs_folder)
    folder, command = figures_folder / "tables", f"petseg report {shown(runs_folder)}"
    tables = tables_of(runs_folder, figures_folder)
    if not tables:
        return None
    folder.mkdir(parents=True, exist_ok=True)
    for table in tables:
        write_atomically(folder / f"{table.name}.md", markdown(table, command).encode())
        write_atomically(folder / f"{table.name}.tex", latex(table, command).encode())
    return folder


def _numeric(cells: pd.DataFrame) -> list[bool]:
    """Which columns hold numbers."""
    return [bool(column.str.match(_NUMBER).all()) for _, column in cells.items()]


def _without_bars(text: str) -> str:
    return text.replace("|", r"\|")
