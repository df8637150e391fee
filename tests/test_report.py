"""The report of run folders: one page that asks for nothing, its PDF, and tables whose numbers are those of the folders."""

import json
import os
import re
import shutil
import subprocess
import sys
from datetime import UTC, datetime
from html.parser import HTMLParser
from pathlib import Path

import nbformat
import numpy as np
import pandas as pd
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from petseg_lib.cli import main
from petseg_lib.config import UNetParameters
from petseg_lib.data.masks import BORDER_POLICIES
from petseg_lib.profiles import REPOSITORY
from petseg_lib.report import find_browser, missing_runs, print_pdf, without_notebook, write_report, write_tables
from petseg_lib.report.chapters import _parts, read_chapters
from petseg_lib.report.pdf import NAMES, WINDOWS_FOLDERS, PdfError
from petseg_lib.report.provenance import facts, moment, settings
from petseg_lib.report.tables import (
    CAPTIONS,
    SUMMARY,
    Table,
    as_text,
    conventions,
    latex,
    markdown,
    measured_runs,
    summary,
    tables_of,
)
from petseg_lib.runs import Run

PIXEL = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
SECONDS = 83.0


def per_image(names: list[str]) -> pd.DataFrame:
    """Six hits, two misses and two false alarms in each image: a Dice of 12 / 16."""
    table = pd.DataFrame({"name": names, "breed": "pug", "species": "dog", "width": 4, "height": 4})
    for policy in BORDER_POLICIES:
        for resolution in ("model", "native"):
            table = table.assign(**{f"{resolution}_{policy}_{kind}": n for kind, n in (("tp", 6), ("fp", 2), ("fn", 2))})
        sums = {"intersection": 5.0, "prediction": 8.0, "target": 8.0}
        table = table.assign(**{f"model_{policy}_soft_{kind}": value for kind, value in sums.items()})
    return table


def notebook(name: str, seed: int) -> nbformat.NotebookNode:
    widget = new_output("display_data", {"application/vnd.jupyter.widget-view+json": {"model_id": "1"}})
    picture = new_output("display_data", {"image/png": PIXEL}, metadata={"image/png": {"width": 7}})
    lines = [new_output("stream", name="stdout", text=f"epoch {number}\n") for number in range(1, 31)]
    table = new_output("display_data", {"text/html": '<table class="dataframe"><td>best_epoch</td></table>', "text/plain": "t"})
    cells = [
        new_markdown_cell(
            "# 3 · A `UNet`\n\nWhat it is.\n\n[02_mean_std](02_mean_std.ipynb) [03_unet_training](03_unet_training.ipynb)"
        ),
        new_markdown_cell("## Train <fast>\n\nOne line an epoch.\n\n```\n## no heading\n```"),
        new_code_cell(f"seed = {seed}", outputs=lines),
        new_code_cell("paint_pets()", outputs=[picture, table]),
        new_markdown_cell("## Look closer"),
        new_code_cell("view()", outputs=[widget]),
    ]
    times = {"end_time": f"2026-03-0{1 + seed}T10:05:00+00:00", "duration": 61.2, "input_path": f"/x/{name}.ipynb"}
    return new_notebook(cells=cells, metadata={"papermill": times})


def write_run(folder: Path, seed: int = 0, epochs: int = 4, name: str = "03_unet_training") -> None:
    folder.mkdir(parents=True)
    nbformat.write(notebook(name, seed), folder / "notebook.ipynb")
    parameters = UNetParameters(epochs=epochs, run_dir=f"runs/trial/{folder.name}").model_dump()
    record = {"notebook": name, "parameters": parameters, "commit": "abc123+", "python": "3.11.7", "platform": "Linux x86_64"}
    record |= {"packages": {"torch": "2.14.1"}, "left_out": {"pug_7": "no trimap"}}
    (folder / "params.json").write_text(json.dumps(record))
    metrics = {"parameters": 1_942_577, "gflop": 1.51624, "images_per_second": 157.07, "epochs": epochs, "best_epoch": 2}
    metrics |= {"training_seconds": SECONDS, "test_images": 5, "device": "cpu", "precision": "32-true"}
    (folder / "metrics.json").write_text(json.dumps(metrics))
    per_image([f"pug_{number}" for number in range(5)]).to_csv(folder / "per_image.csv", index=False)


@pytest.fixture
def runs(temporary_workspace) -> Path:
    """Two finished runs of one notebook, and one that did not finish."""
    folder = temporary_workspace / "runs" / "trial"
    write_run(folder / "unet")
    write_run(folder / "unet_long", seed=1, epochs=16)
    (folder / "broken").mkdir()
    return folder


class Page(HTMLParser):
    """What a page holds: tags with their attributes, and for each text the tags around it."""

    VOID = ("meta", "img", "br", "hr", "link", "wbr")

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags, self.open, self.texts = [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        if tag not in self.VOID:
            self.open.append((tag, dict(attributes)))

    def handle_endtag(self, tag):
        if tag in self.VOID:  # <img/>
            return
        while self.open and self.open.pop()[0] != tag:
            pass

    def handle_data(self, data):
        if data.strip():
            self.texts.append((data.strip(), list(self.open)))

    def around(self, text: str) -> list[list[tuple[str, dict]]]:
        return [tags for data, tags in self.texts if text in data]

    def values(self, tag: str, attribute: str) -> list[str]:
        return [attributes[attribute] for name, attributes in self.tags if name == tag and attribute in attributes]


@pytest.fixture
def page(runs) -> Page:
    return Page(write_report(runs, runs / "report.html").read_text(encoding="utf-8"))


# The page


def test_the_page_asks_for_nothing(page, runs):
    assert not {"script", "link", "iframe", "object", "embed", "base"} & {tag for tag, _ in page.tags}
    sources = [value for _, attributes in page.tags for name, value in attributes.items() if name in ("src", "srcset", "data")]
    assert len(sources) == 2 and all(source.startswith("data:image/png;base64,") for source in sources)
    assert not any(name.startswith("on") for _, attributes in page.tags for name in attributes)
    styles = "".join(data for data, tags in page.texts if tags[-1][0] == "style")
    assert "@media print" in styles and "@import" not in styles and "url(" not in styles
    assert [path.name for path in runs.iterdir() if path.is_file()] == ["report.html"]


def test_every_link_of_the_contents_leads_somewhere(page):
    targets = [attributes["id"] for _, attributes in page.tags if "id" in attributes]
    links = page.values("a", "href")
    assert len(targets) == len(set(targets))
    assert {link.removeprefix("#") for link in links} <= set(targets)
    sections = [tags for tags in page.around("Train <fast>") if "nav" in [tag for tag, _ in tags]]
    assert [tags[-1][1]["href"] for tags in sections] == ["#run-1-1", "#run-2-1"]
    assert ("h3", {"id": "run-1-1"}) in page.tags and ("h2", {"id": "run-2"}) in page.tags
    assert ("h3", {"id": "run-1-2"}) in page.tags and "## no heading" in [data for data, _ in page.texts]


def test_links_to_notebooks_lead_to_their_chapters(page):
    assert not any(".ipynb" in link for link in page.values("a", "href"))
    assert ("a", {"href": "#run-1"}) in [tags[-1] for tags in page.around("03_unet_training")]
    assert any(tags[-1][0] == "p" for tags in page.around("02_mean_std"))


def test_links_of_the_summary_and_of_told_text_lead_to_the_run_that_they_name(page):
    links = [(data, tags) for data, tags in page.texts if tags[-1][0] == "a"]
    of_summary = [(data, tags[-1][1]["href"]) for data, tags in links if ("table", {"class": "summary"}) in tags]
    assert of_summary == [("unet", "#run-1"), ("unet_long", "#run-2")]
    told = [tags[-1][1]["href"] for data, tags in links if data == "run unet" and ("details", {"class": "told"}) in tags]
    assert told == ["#run-1", "#run-1-1"]


def test_the_page_is_named_after_its_runs_and_says_its_command(page):
    assert [tags[-1][0] for tags in page.around("petseg: trial")] == ["title", "h1"]
    assert [tags[-1][0] for tags in page.around("petseg report runs/trial")] == ["code"]
    assert [data for data, tags in page.texts if tags[-1] == ("h2", {"id": "run-1"})] == ["3 · A UNet"]


def test_chapters_are_the_finished_runs_in_the_order_of_their_notebooks(runs):
    write_run(runs / "a_resnet", name="04_resnet34_unet_training")
    write_run(runs / "b_unet")
    (runs / "b_unet" / "metrics.json").unlink()
    assert [chapter.run.name for chapter in read_chapters(runs)] == ["unet", "unet_long", "a_resnet"]
    assert [run.name for run in measured_runs(runs)] == ["unet", "unet_long", "a_resnet"]


def test_code_is_folded_away(page):
    found = page.around("paint_pets")
    assert len(found) == 2
    assert all(("details", {"class": "code"}) in tags for tags in found)
    assert not any("open" in attributes for tag, attributes in page.tags if tag == "details")
    (shown,) = [tags for tags in page.around("What it is.") if ("details", {"class": "told"}) not in tags]
    assert "details" not in [tag for tag, _ in shown]


def test_what_another_run_told_is_folded_and_named(page):
    first, second = page.around("One line an epoch.")
    assert "details" not in [tag for tag, _ in first]
    assert ("details", {"class": "told"}) in second
    assert page.around("The text is that of run unet.")


def test_many_printed_lines_are_folded_but_the_last_stay(page):
    folded, shown = page.around("epoch 30")[:2]
    assert ("details", {"class": "lines"}) in folded
    assert "details" not in [tag for tag, _ in shown]
    assert page.around("all 30 lines")
    assert all(("details", {"class": "lines"}) in tags for tags in page.around("epoch 27") if tags[-1][0] == "pre")


def test_a_picture_has_a_description_and_a_viewer_is_missed(page):
    assert page.values("img", "alt") == ["Train <fast>", "Train <fast>"]
    assert len(page.around("In JupyterLab, an interactive viewer stands here.")) == 2


def test_the_page_says_what_each_run_was_made_with(page):
    for said in (
        "abc123+",
        "3.11.7",
        "Linux x86_64",
        "torch 2.14.1",
        "cpu, 32-true",
        "1 min 1 s",
        "1 March 2026, 10:05 UTC",
        "pug_7",
    ):
        assert any(tags[-1][0] == "dd" for tags in page.around(said)), said
    changed = [tags for tags in page.around("epochs") if ("div", "changed") in [(tag, a.get("class")) for tag, a in tags]]
    assert len(changed) == 1  # 16 are the notebook's own
    names = [data for data, tags in page.texts if tags[-1][0] == "dt"]
    assert names.count("learning_rate") == 2
    assert any("2 March 2026, 10:05 UTC" in data for data, tags in page.texts if tags[-1][0] == "p")


def test_parameters_are_explained_and_places_stand_among_the_facts(runs):
    record = json.loads((runs / "unet" / "params.json").read_text())
    record["parameters"]["statistics_run"] = ""
    (runs / "unet" / "params.json").write_text(json.dumps(record))
    chapter, *_ = read_chapters(runs)
    places = {"data": "demo", "run_dir": "runs/trial/unet", "figures_dir": "figures/demo"}
    assert {name: facts(chapter).get(name) for name in places} == places
    found = {setting.name: setting for setting in settings(chapter)}
    assert not found.keys() & places.keys()
    assert (found["figure_formats"].value, found["statistics_run"].value) == ("png, svg, pdf", "(empty)")
    assert found["epochs"].meaning == UNetParameters.model_fields["epochs"].description


def test_a_notebook_of_ones_own_is_a_chapter_as_well(runs):
    write_run(runs / "mine", name="09_mine")
    chapter = read_chapters(runs)[-1]
    assert chapter.source == "09_mine" and not any(each.default or each.meaning for each in settings(chapter))


def test_an_hour_of_the_afternoon_is_told_from_one_of_the_morning():
    assert moment(datetime(2026, 11, 4, 20, 42, tzinfo=UTC)) == "4 November 2026, 20:42 UTC"


def test_the_summary_is_arithmetic_on_the_run_folders(page):
    cells = [data for data, tags in page.texts if ("table", {"class": "summary"}) in tags]
    assert cells == [
        *("run", "dice_image (native, pet)", "95% interval", "parameters", "GFLOP", "images/s", "epochs", "training time"),
        *("unet", "0.7500", "0.7500 to 0.7500", "1,942,577", "1.516", "157.1", "4", "1 min 23 s"),
        *("unet_long", "0.7500", "0.7500 to 0.7500", "1,942,577", "1.516", "157.1", "16", "1 min 23 s"),
    ]
    assert page.around("Test images: 5. Device: cpu, 32-true.")


def test_runs_that_were_made_in_jupyterlab_are_named_and_no_older_notebook_is_shown_for_them(runs, monkeypatch, capsys):
    """JupyterLab writes params.json and metrics.json anew, and leaves the notebook of an earlier run where it was."""
    again = Run(runs / "unet_long")
    metrics = again.metrics
    (again.folder / "metrics.json").unlink()  # as `open_run` does
    monkeypatch.delenv("PETSEG_EXECUTED", raising=False)
    again.finish(metrics)
    (runs / "unet" / "notebook.ipynb").rename(runs / "unet" / "moved.ipynb")
    assert without_notebook(runs) == ["unet", "unet_long"]
    assert main(["report", "runs/trial"]) == 2
    assert "nothing to report in runs/trial: unet, unet_long, finished, but with no executed notebook" in capsys.readouterr().err
    (runs / "unet" / "moved.ipynb").rename(runs / "unet" / "notebook.ipynb")
    assert main(["report", "runs/trial"]) == 0
    assert "petseg: not shown in the report: unet_long, finished, but with no" in capsys.readouterr().err
    assert [chapter.run.name for chapter in read_chapters(runs)] == ["unet"]
    page = Page((runs / "report.html").read_text(encoding="utf-8"))
    assert page.around("unet_long") and page.around(", finished, but with no executed notebook")
    (again.folder / "metrics.json").unlink()
    monkeypatch.setenv("PETSEG_EXECUTED", "1")
    again.finish(metrics)
    assert without_notebook(runs) == []


def test_a_finished_training_that_is_measured_again_keeps_what_its_own_machine_gave(runs, monkeypatch):
    monkeypatch.delenv("PETSEG_EXECUTED", raising=False)
    run = Run(runs / "unet")
    run.finish(run.metrics | {"device": "cuda", "precision": "bf16-mixed", "images_per_second": 9.0, "test_images": 6})
    assert (run.metrics["device"], run.metrics["precision"], run.metrics["images_per_second"]) == ("cpu", "32-true", 157.07)
    assert run.metrics["test_images"] == 6 and run.has_notebook


def test_runs_that_did_not_finish_are_named(runs, temporary_workspace, monkeypatch, capsys):
    assert missing_runs(runs) == []  # no profile says what should stand there
    (temporary_workspace / "profiles").mkdir()
    sections = "".join(f"  {run}: {{notebook: 03_unet_training}}\n" for run in ("mean_std", "unet", "broken", "absent"))
    sections = sections.replace("03_unet_training", "02_mean_std", 1)
    (temporary_workspace / "profiles" / "trial.yaml").write_text(f"runs:\n{sections}")
    assert missing_runs(runs) == ["mean_std", "broken", "absent"]
    shutil.copytree(runs, sweep := runs.parent / "sweeps" / "trial")
    assert missing_runs(sweep) == [], "it is of no profile, whatever its name"
    assert write_tables(sweep) == temporary_workspace / "figures" / "sweeps" / "trial" / "tables"
    assert main(["report", "runs/trial"]) == 0
    said = capsys.readouterr()
    assert said.out.splitlines() == ["runs/trial/report.html", "figures/trial/tables"]
    assert said.err == "petseg: not finished, and so not in the report: mean_std, broken, absent\n"
    assert Page((runs / "report.html").read_text()).around("Not finished, and so not in this report:")


def test_a_report_of_nothing_is_refused(temporary_workspace, capsys):
    (temporary_workspace / "runs" / "demo").mkdir(parents=True)
    assert main(["report", "runs/demo"]) == 2
    assert capsys.readouterr().err == "petseg: no finished run in runs/demo: there is nothing to report\n"


# Tables


DIFFICULT = pd.DataFrame({"run_name": ["a_b & 5%", "x|y\n{z}"], "share": [0.51234, None]})


def test_tables_name_the_command_and_hold_the_numbers(runs, temporary_workspace):
    figures = temporary_workspace / "figures" / "trial"
    figures.mkdir(parents=True)
    pd.DataFrame({"run": ["unet"] * 50 + ["007"], "value": 0.123456}).to_csv(figures / "results.csv", index=False)
    folder = write_tables(runs)
    assert folder == figures / "tables"
    names = ("conventions", "results", "summary")
    assert sorted(path.name for path in folder.iterdir()) == [f"{name}.{kind}" for name in names for kind in ("md", "tex")]
    for path in folder.iterdir():
        assert "Made by `petseg report runs/trial` from " in path.read_text()
    summary = (folder / "summary.md").read_text()
    assert "| unet      |                     0.7500 | 0.7500 to 0.7500 |" in summary
    conventions = (folder / "conventions.tex").read_text()
    assert r"dice\_batch\_soft & model & pet & 0.6250 & 0.6250 \\" in conventions
    results = (folder / "results.tex").read_text()
    assert r"\begin{longtable}{lr}" in results and results.count(r"unet & 0.1235 \\") == 50 and r"007 & 0.1235 \\" in results
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    write_tables(runs)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


def test_runs_are_listed_by_notebook_and_then_by_name(runs):
    write_run(runs / "a_resnet", name="04_resnet34_unet_training")
    assert [run.name for run in measured_runs(runs)] == ["unet", "unet_long", "a_resnet"]


def test_a_run_made_on_windows_has_the_same_chapter_elsewhere(runs):
    here = write_report(runs, runs / "here.html").read_text(encoding="utf-8")
    for path in runs.glob("*/notebook.ipynb"):
        made = nbformat.read(path, as_version=4)
        made.metadata.papermill.input_path = f"C:\\petseg\\notebooks\\{Path(made.metadata.papermill.input_path).name}"
        nbformat.write(made, path)
    assert write_report(runs, runs / "there.html").read_text(encoding="utf-8") == here


def test_what_differs_between_runs_is_a_column_of_the_summary(runs):
    metrics = runs / "unet_long" / "metrics.json"
    metrics.write_text(json.dumps(json.loads(metrics.read_text()) | {"test_images": 9, "device": "cuda"}))
    table = summary(measured_runs(runs))
    assert table.cells["test images"].tolist() == ["5", "9"]
    assert table.cells["device"].tolist() == ["cpu, 32-true", "cuda, 32-true"]
    assert table.caption == SUMMARY, "what is the same for all runs, and that alone, stands below"


def test_the_dice_of_batches_is_of_each_runs_own_batch_size(runs):
    for name, batch_size in (("unet", 2), ("unet_long", 1)):
        path = runs / name / "params.json"
        record = json.loads(path.read_text())
        record["parameters"]["batch_size"] = batch_size
        path.write_text(json.dumps(record))
        table = pd.read_csv(runs / name / "per_image.csv")
        table.assign(model_pet_soft_intersection=[8.0, 0.0, 8.0, 0.0, 8.0]).to_csv(runs / name / "per_image.csv", index=False)
    cells = conventions(measured_runs(runs)).cells.set_index(["convention", "border_policy"])
    row = cells.loc[[("dice_batch_soft", "pet")], ["unet", "unet_long"]]
    assert row.to_numpy().tolist() == [["0.6667", "0.6000"]]  # of 1/2, 1/2 and 1; of 1, 0, 1, 0 and 1


def test_names_that_could_be_numbers_stay_as_they_are(runs, temporary_workspace):
    figures = temporary_workspace / "figures" / "trial"
    figures.mkdir(parents=True)
    names = {"run": "007", "against": "1e5", "name": "001", "first": "0.50", "second": "12.0", "breed": "1_000"}
    pd.DataFrame([names]).to_csv(figures / "names.csv", index=False)
    table, *_ = tables_of(runs, figures)
    assert table.cells.to_dict("records") == [names]


def test_a_breed_called_na_is_no_missing_value(runs, temporary_workspace):
    figures = temporary_workspace / "figures" / "trial"
    figures.mkdir(parents=True)
    pd.DataFrame({"breed": ["NA", "pug"], "mean": [0.5, np.nan]}).to_csv(figures / "breeds.csv", index=False)
    lines = (write_tables(runs) / "breeds.md").read_text().splitlines()
    assert [line.split() for line in lines if line.startswith("| ")][1:] == [
        ["|", "NA", "|", "0.5000", "|"],
        ["|", "pug", "|", "|"],
    ]


def test_each_csv_file_of_the_notebooks_has_a_caption(temporary_workspace):
    sources = [path.read_text(encoding="utf-8") for path in (REPOSITORY / "notebooks").glob("*.ipynb")]
    written = {name for source in sources for name in re.findall(r'write_table\(folder / \\"([^"\\]+)\\"', source)}
    committed = {path.name for path in (REPOSITORY / "figures" / "demo").glob("*.csv")}
    assert written == committed == CAPTIONS.keys()
    for table in tables_of(temporary_workspace / "runs", REPOSITORY / "figures" / "sample"):
        assert table.caption == CAPTIONS[f"{table.name}.csv"]


def test_a_csv_file_of_ones_own_is_named_in_its_caption(temporary_workspace):
    (temporary_workspace / "mine.csv").write_text("a\n1\n")
    (table,) = tables_of(temporary_workspace / "runs", temporary_workspace)
    assert table.caption == "mine.csv, as the notebooks leave it."


def test_latex_is_escaped_and_has_the_rules_of_booktabs():
    text = latex(Table("t", "50% of dice_image", "runs/x", as_text(DIFFICULT)), "petseg report runs/x")
    assert text.startswith("% Made by `petseg report runs/x` from runs/x.\n% Needs: booktabs, graphicx.\n")
    assert r"\caption{50\% of dice\_image}" in text and r"\label{tab:t}" in text
    assert r"\begin{tabular}{lr}" in text
    assert r"run\_name & share \\" in text and r"a\_b \& 5\% & 0.5123 \\" in text and r"x|y \{z\} &  \\" in text
    assert [text.count(rf"\{rule}rule") for rule in ("top", "mid", "bottom")] == [1, 1, 1]
    assert text.count("{") - text.count(r"\{") == text.count("}") - text.count(r"\}")


def test_markdown_is_a_table_whatever_stands_in_the_cells():
    text = markdown(Table("t", "Caption.", "runs/x", as_text(DIFFICULT)), "petseg report runs/x")
    rows = [line for line in text.splitlines() if line.startswith("|")]
    assert len(rows) == 4
    assert rows[0].split() == ["|", "run_name", "|", "share", "|"]
    assert rows[1].startswith("|:") and rows[1].endswith(":|")
    assert r"x\|y {z}" in rows[3]
    assert all(row.replace(r"\|", "").count("|") == 3 for row in rows)


def test_a_bar_in_a_columns_name_is_no_border():
    text = markdown(Table("t", "Caption.", "runs/x", as_text(pd.DataFrame({"a|b": [1]}))), "petseg report runs/x")
    assert next(line for line in text.splitlines() if line.startswith("|")).split() == ["|", r"a\|b", "|"]


@pytest.mark.parametrize("fence", ["```", "~~~"])
def test_a_heading_within_a_block_of_code_is_none(fence):
    other = "~~~" if fence == "```" else "```"
    code = f"{fence}sh\n# a comment\n{other}\n## another\n{fence}"
    assert _parts(f"Before.\n{code}\n## Heading\nAfter.") == [f"Before.\n{code}", "## Heading", "After."]


@pytest.mark.parametrize(
    ("values", "texts"),
    [
        ([0.87791, 0.9], ["0.8779", "0.9000"]),
        ([683.52, 1.25], ["683.5", "1.2"]),
        ([58.43, 1.25], ["58.4300", "1.2500"]),
        ([1e-4, 0.003], ["0.0001", "0.003"]),
        ([-0.0002519, 0.0394], ["-0.0003", "0.0394"]),
        ([1e-5, 0.05], ["1e-05", "0.0500"]),
        ([0.89641, 0.00002], ["0.8964", "2e-05"]),
        ([340.0, 0.0123], ["340.0", "0.0123"]),
        ([3.0, None], ["3", ""]),
        ([3, 12], ["3", "12"]),
        (["a", None], ["a", ""]),
        ([None, None], ["", ""]),
        ([0.0, -0.25], ["0.0000", "-0.2500"]),
        ([True, False], ["True", "False"]),
        ([0.91234, -np.inf], ["0.9123", "-inf"]),
        ([3.0, np.inf], ["3", "inf"]),
    ],
)
def test_a_column_has_as_many_digits_as_it_needs(values, texts):
    assert as_text(pd.DataFrame({"x": values}))["x"].tolist() == texts


# The PDF


def browser_script(folder: Path, body: str) -> Path:
    """A stand-in for a browser: its `printed` is the file it was told to print to."""
    script = folder / "chromium"
    script.write_text(
        f'#!{sys.executable}\nimport sys, time\n(printed,) = [a[15:] for a in sys.argv if a.startswith("--print-to-pdf=")]\n{body}\n'
    )
    script.chmod(0o755)
    return script


@pytest.fixture
def old_pdf(tmp_path) -> Path:
    (tmp_path / "report.pdf").write_bytes(b"of before")
    (tmp_path / "report.html").write_text("<p>page</p>")
    return tmp_path / "report.pdf"


posix = pytest.mark.skipif(sys.platform == "win32", reason="scripts of POSIX")


@posix
def test_a_pdf_is_printed_beside_the_page(old_pdf):
    browser = browser_script(old_pdf.parent, 'open(printed, "wb").write(b"%PDF-1.4 " + sys.argv[-1].encode())')
    print_pdf(browser, old_pdf.with_name("report.html"), old_pdf)
    assert old_pdf.read_bytes() == b"%PDF-1.4 " + old_pdf.with_name("report.html").as_uri().encode()
    assert sorted(path.name for path in old_pdf.parent.glob("*[!e]")) == ["chromium", "report.html", "report.pdf"]


@posix
@pytest.mark.parametrize(
    ("body", "sentence"),
    [
        ('sys.exit("first\\nno display")', "chromium made no PDF of {page}: no display"),
        ("sys.exit(7)", "chromium made no PDF of {page}: exit status 7"),
        ('open(printed, "w").write("<html>")', "chromium made no PDF of {page}: exit status 0"),
        ("time.sleep(60)", "chromium did not print {page} within 1 s: there is no PDF"),
    ],
)
def test_a_browser_that_fails_leaves_the_pdf_of_before(old_pdf, body, sentence):
    page = old_pdf.with_name("report.html")
    with pytest.raises(PdfError) as raised:
        print_pdf(browser_script(old_pdf.parent, body), page, old_pdf, seconds=1)
    assert str(raised.value) == sentence.format(page=page)
    assert old_pdf.read_bytes() == b"of before"


@posix
def test_a_browser_is_found_on_the_path_or_where_chrome_path_says(tmp_path, monkeypatch):
    monkeypatch.delenv("CHROME_PATH", raising=False)
    monkeypatch.setattr("petseg_lib.report.pdf.MACOS", ())
    for name in WINDOWS_FOLDERS:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert find_browser() is None
    edge = tmp_path / "Program Files (x86)" / "Microsoft" / "Edge" / "Application" / "msedge.exe"
    monkeypatch.setenv("ProgramFiles(x86)", str(tmp_path / "Program Files (x86)"))
    assert find_browser() is None
    edge.parent.mkdir(parents=True)
    edge.touch()  # which is on the PATH of no Windows
    assert find_browser() == edge
    for name in reversed(NAMES):
        script = browser_script(tmp_path, "").rename(tmp_path / name)
        assert find_browser() == script
    (tmp_path / "mine").mkdir()
    mine = browser_script(tmp_path / "mine", "")
    monkeypatch.setenv("CHROME_PATH", str(mine))
    assert find_browser() == mine
    monkeypatch.setenv("CHROME_PATH", "nowhere")
    with pytest.raises(PdfError, match="CHROME_PATH is 'nowhere', but it must be the program file of a Chromium, Chrome or Edge"):
        find_browser()


def test_without_a_browser_the_report_is_made_all_the_same(runs, monkeypatch, capsys):
    monkeypatch.setattr("petseg_lib.report.find_browser", lambda: None)
    assert main(["report", "runs/trial", "--pdf"]) == 0
    *made, words = capsys.readouterr().out.splitlines()
    assert made == ["runs/trial/report.html", "figures/trial/tables"]
    assert words.startswith("no Chromium, Chrome or Edge here") and not (runs / "report.pdf").exists()


def test_with_a_browser_the_pdf_lies_beside_the_report(runs, tmp_path, monkeypatch, capsys):
    browser = browser_script(tmp_path, 'open(printed, "wb").write(b"%PDF of this page")')
    monkeypatch.setattr("petseg_lib.report.find_browser", lambda: browser)
    assert main(["report", "runs/trial", "--pdf"]) == 0
    assert capsys.readouterr().out.splitlines() == ["runs/trial/report.html", "figures/trial/tables", "runs/trial/report.pdf"]
    assert (runs / "report.pdf").read_bytes() == b"%PDF of this page"


def test_a_real_browser_prints_pages_of_a4(runs):
    browser = find_browser()
    if browser is None:
        pytest.skip("no Chromium, Chrome or Edge here")
    pdf = print_pdf(browser, write_report(runs, runs / "report.html"), runs / "report.pdf").read_bytes()
    assert pdf.startswith(b"%PDF") and b"/MediaBox [0 0 594.95" in pdf.replace(b"594.96", b"594.95")
    assert b"/FontFile2" in pdf
    assert sorted(path.name for path in runs.iterdir() if path.is_file()) == ["report.html", "report.pdf"]


@pytest.mark.skipif(os.name != "posix", reason="needs make")
@pytest.mark.parametrize(
    ("profile", "folder"),
    [
        ("sample", "sample"),
        ("profiles/sample.yaml", "sample"),
        ("sweeps/demo", "sweeps/demo"),
        ("profiles/sweeps/demo.yaml", "sweeps/demo"),
    ],
)
def test_make_report_names_the_profiles_runs(profile, folder):
    outside = {name: value for name, value in os.environ.items() if not name.startswith(("MAKE", "MFLAGS"))}
    command = ["make", "--dry-run", "report", f"PROFILE={profile}"]
    result = subprocess.run(command, cwd=REPOSITORY, env=outside, capture_output=True, text=True, check=True)
    assert result.stdout.splitlines()[-1] == f".venv/bin/petseg report runs/{folder} --pdf"


@pytest.mark.parametrize(
    "path", sorted((REPOSITORY / "figures").glob("*/*.csv")), ids=lambda path: f"{path.parent.name}/{path.name}"
)
def test_committed_tables_are_of_the_csv_files_beside_them(path):
    drawn = markdown(Table(path.stem, "", "", as_text(pd.read_csv(path))), "")
    committed = (path.parent / "tables" / f"{path.stem}.md").read_text(encoding="utf-8")
    assert [line for line in committed.splitlines() if line.startswith("|")] == [
        line for line in drawn.splitlines() if line.startswith("|")
    ]
