"""The real notebooks under every profile that needs more than a CPU's minutes: its own image size, few images, one epoch."""

import json
import re
import subprocess

import nbformat
import pytest
import torch
import torchvision

from petseg_lib.config import NOTEBOOKS, workspace
from petseg_lib.data.synthetic import draw_pets
from petseg_lib.execute import find_notebook, run_notebook
from petseg_lib.notebooks import unclean_notebooks
from petseg_lib.profiles import REPOSITORY, load_profile

FEW = {"epochs": "1", "limit_images": "2", "batch_size": "2", "loader_workers": "0"}

NARROWED = {("best", "unet"): {"width": "16"}}  # a UNet of full width at a larger size runs under `report`


@pytest.mark.parametrize("profile", ["report", "best", "sample"])
def test_a_profile_runs_end_to_end(profile, tmp_path):
    """Its weights of ImageNet come from a file of the same layout, since no test waits for a network."""
    weights = tmp_path / "resnet34.pth"
    torch.save(torchvision.models.resnet34().state_dict(), weights)
    pets = draw_pets(tmp_path / "pets", 20)
    for run, (notebook, settings) in load_profile(profile).runs.items():
        given = FEW | {"data": str(pets)} | ({"encoder_weights": str(weights)} if settings.get("encoder_weights") else {})
        given |= NARROWED.get((profile, run), {})
        known = {name: value for name, value in given.items() if name in NOTEBOOKS[notebook].model_fields}
        folder = run_notebook(notebook, f"runs/{profile}/{run}", profile, known)
        assert (folder / "metrics.json").is_file()
        record = json.loads((folder / "params.json").read_text(encoding="utf-8"))["parameters"]
        assert record.get("image_size") == settings.get("image_size")
        if "epochs" in known:
            metrics = json.loads((folder / "metrics.json").read_text(encoding="utf-8"))
            assert metrics["test_images"] == 2 and 0 <= metrics["dice_image_native"] <= 1
    exported = {path.name for path in (workspace() / "figures" / profile).iterdir()}
    assert {"results.csv", "README.md", "unet_curves.png", "unet_curves.pdf", "comparison_cost.svg"} <= exported
    assert {"comparison_differences.csv", "comparison_strata.csv", "comparison_thresholds.csv"} <= exported


def test_one_run_alone_is_compared_with_nothing(tmp_path):
    few = FEW | {"data": str(draw_pets(tmp_path / "pets", 20)), "image_size": "32", "width": "4", "limit_images": "4"}
    for notebook, run, settings in (
        ("02_mean_std", "mean_std", {}),
        ("03_unet_training", "mine", {"border_policy": "ignore", "train_images": "3"}),
        ("05_comparison", "comparison", {"runs": "mine"}),
    ):
        known = {name: value for name, value in (few | settings).items() if name in NOTEBOOKS[notebook].model_fields}
        folder = run_notebook(notebook, f"runs/alone/{run}", settings=known)
    record = json.loads((workspace() / "runs" / "alone" / "mine" / "params.json").read_text(encoding="utf-8"))
    assert record["photographs"]["train"][0] == 3 and record["photographs"]["validate"][0] == 1
    metrics = json.loads((folder / "metrics.json").read_text(encoding="utf-8"))
    assert metrics == {"runs": ["mine"], "best": "mine", "verdict": "mine is the only run: there is no pair to compare."}
    exported = {path.name for path in (workspace() / "figures" / "alone").iterdir()}
    assert {"comparison_failures.png", "comparison_calibration.svg", "comparison_strata.png", "results.csv"} <= exported
    assert not {"comparison_best.png", "comparison_difference.png"} & exported


def test_a_bad_value_stops_plain_papermill_at_the_second_cell(tmp_path):
    import papermill

    out = tmp_path / "out.ipynb"
    with pytest.raises(papermill.PapermillExecutionError, match="learning_rate is -1"):
        papermill.execute_notebook(
            find_notebook("03_unet_training"), out, {"learning_rate": -1}, kernel_name="python3", progress_bar=False
        )
    ran = [cell for cell in nbformat.read(out, 4).cells if cell.cell_type == "code" and cell.outputs]
    assert "from_notebook(globals())" in ran[-1].source


def test_committed_notebooks_hold_no_widgets_paths_or_timestamps():
    assert unclean_notebooks() == []


@pytest.mark.skipif(not (REPOSITORY / ".git").exists(), reason="needs the git history")
def test_committed_figures_of_photographs_are_curves_and_tables():
    listed = ["git", "-C", str(REPOSITORY), "ls-files", "figures"]
    names = subprocess.run(listed, capture_output=True, text=True, check=True).stdout.splitlines()
    charts = "best|breeds|calibration|conventions|cost|difference|distribution|strata|thresholds|time"
    figures = rf"(\w+_(curves|network)|ablations(_variants)?|ablation_\w+|comparison_({charts}))\.(png|svg)"
    csv = r"(results|ablations|comparison_(differences|strata|thresholds))\.csv"
    drawn = rf"figures/((ablations|photographs)/README\.md|\w+/({csv}|tables/\w+\.(md|tex)|{figures}))"
    assert "figures/demo/results.csv" in names
    assert [name for name in names if not name.startswith("figures/demo/") and not re.fullmatch(drawn, name)] == []


@pytest.mark.parametrize("notebook", NOTEBOOKS)
def test_committed_notebooks_are_small_and_were_run(notebook):
    path = find_notebook(notebook)
    assert path.stat().st_size < 1_000_000
    cells = [cell for cell in nbformat.read(path, 4).cells if cell.cell_type == "code"]
    assert all(cell.execution_count for cell in cells)
    assert not any(output.output_type == "error" for cell in cells for output in cell.outputs)
    assert not any(line.startswith("def ") for cell in cells for line in cell.source.splitlines())
