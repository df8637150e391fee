"""Pets cut out of photographs without trimaps: what is read, what is written, and what is said of it."""

import os
import shutil
import sys
from pathlib import Path
from unittest.mock import Mock

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from small_model import DESCRIPTION, SETTINGS

from petseg_lib import cutouts, evaluation, figures, inference
from petseg_lib.checkpoints import save_model
from petseg_lib.cli import main
from petseg_lib.config import PredictionParameters, ReadableError
from petseg_lib.data.pictures import DatasetError, passed_over, read_upright
from petseg_lib.models import build_model
from petseg_lib.runs import open_run
from petseg_lib.widgets import cutout_viewer

ORIENTATION = 0x0112


@pytest.fixture
def model():
    torch.manual_seed(0)
    return build_model("unet", **SETTINGS)


@pytest.fixture
def folder(tmp_path) -> Path:
    """Photographs of several kinds, and what is none: of one name twice, in capitals, with alpha, hidden, a text, a folder."""
    place = tmp_path / "mine"
    (place / "inner").mkdir(parents=True)
    draws = np.random.default_rng(0)
    for name, size in (("rex.jpg", (50, 40)), ("rex.png", (40, 50)), ("Tom.JPEG", (64, 33)), (".hidden.jpg", (40, 40))):
        Image.fromarray(draws.integers(0, 256, (*size, 3), dtype=np.uint8)).save(place / name)
    Image.new("RGBA", (35, 45), (200, 30, 30, 90)).save(place / "clear.webp")
    (place / "notes.txt").write_text("no photograph")
    (place / "holiday.jpg").mkdir()
    return place


def test_photographs_are_found_by_name_and_evenly_spaced(folder, tmp_path):
    found = cutouts.photographs_in(folder)
    assert [path.name for path in found] == ["Tom.JPEG", "clear.webp", "rex.jpg", "rex.png"]
    assert cutouts.names_of(found) == ["Tom", "clear", "rex.jpg", "rex.png"]
    assert [path.name for path in cutouts.photographs_in(folder, 2)] == ["Tom.JPEG", "rex.png"]
    assert [path.name for path in cutouts.photographs_in(folder, 3)] == ["Tom.JPEG", "rex.jpg", "rex.png"]
    assert cutouts.photographs_in(folder, 9) == found
    (folder / ".DS_Store").touch()
    assert passed_over(folder) == ["notes.txt (no photograph by its name)"]
    assert cutouts.photographs_in(folder / "rex.jpg") == [folder / "rex.jpg"]
    with pytest.raises(DatasetError, match="the photographs nowhere do not exist"):
        cutouts.photographs_in("nowhere")
    with pytest.raises(DatasetError, match=r"inner has no photograph: files named \.jpg, \.jpeg"):
        cutouts.photographs_in(folder / "inner")


@pytest.mark.skipif(os.name == "nt", reason="needs links")
def test_a_link_to_nothing_is_no_folder_that_could_be_passed_over(folder):
    (folder / "gone.jpg").symlink_to("elsewhere.jpg")
    assert "gone.jpg" in [path.name for path in cutouts.photographs_in(folder)]


@pytest.mark.parametrize(
    ("files", "names"),
    [
        (["a.jpg", "a.png", "a.png.jpg"], ["a.jpg", "a.png", "a.png.jpg"]),
        (["IMG_1.jpg", "img_1.png", "IMG_2.jpg"], ["IMG_1.jpg", "img_1.png", "IMG_2"]),
        (["Rex.jpg", "rex.jpg", "rex.JPG"], ["Rex.jpg", "rex.jpg_2", "rex.JPG_3"]),
        (["REX.jpg", "rex.jpg", "rex.jpg_2.jpg"], ["REX.jpg", "rex.jpg_2", "rex.jpg_2_2"]),
        (["plain"], ["plain"]),
    ],
)
def test_no_result_is_written_over_another(files, names):
    assert cutouts.names_of([Path(file) for file in files]) == names


@pytest.mark.parametrize("kind", ["jpeg", "png", "tiff"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_photographs_are_turned_upright(tmp_path, orientation, kind):
    """Each orientation is stored so that it is upright again: the corner that is bright stays where people see it."""
    upright = np.full((32, 48, 3), 40, np.uint8)
    upright[:8, :8] = 230
    back = {2: Image.Transpose.FLIP_LEFT_RIGHT, 3: Image.Transpose.ROTATE_180, 4: Image.Transpose.FLIP_TOP_BOTTOM}
    back |= {
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_90,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }
    stored = Image.fromarray(upright)
    stored = stored.transpose(back[orientation]) if orientation > 1 else stored
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    stored.save(tmp_path / "photograph", format=kind, exif=exif)
    read = read_upright(tmp_path / "photograph")
    assert read.shape == upright.shape
    assert np.abs(read.astype(int) - upright).max() < 30  # JPEG's losses


def test_masks_and_cutouts_are_what_the_network_says(model, folder, tmp_path, fabric):
    paths = cutouts.photographs_in(folder)
    table, left_out = cutouts.cut_out_all(model, DESCRIPTION, paths, tmp_path / "out", fabric, threshold=0.45)
    assert left_out == {} and table["name"].tolist() == ["Tom", "clear", "rex.jpg", "rex.png"]
    pd.testing.assert_frame_equal(pd.read_csv(tmp_path / "out" / "cutouts.csv"), table)
    prepared = inference.for_inference(model, fabric)
    for path, row in zip(paths, table.itertuples(), strict=True):
        photograph = read_upright(path)
        probability = evaluation.probabilities(prepared, photograph, DESCRIPTION, fabric)
        mask = np.asarray(Image.open(tmp_path / "out" / "masks" / f"{row.name}.png"))
        cut = np.asarray(Image.open(tmp_path / "out" / "cutouts" / f"{row.name}.png"))
        assert (row.height, row.width) == probability.shape == mask.shape
        assert np.array_equal(mask, np.where(probability > 0.45, 255, 0)) and np.array_equal(cut[..., 3], mask)
        assert np.array_equal(cut[..., :3], np.where(mask[..., None], photograph, 0))
        assert row.share == pytest.approx((mask > 0).mean())
        assert row.unsure == pytest.approx(((probability > 0.1) & (probability < 0.9)).mean())
    shares = [
        cutouts.cut_out_all(model, DESCRIPTION, paths, tmp_path / "other", fabric, t)[0]["share"].sum() for t in (0.01, 0.99)
    ]
    assert shares == [4.0, 0.0]  # an untrained network is sure of nothing


def test_a_few_of_the_photographs_keep_the_names_that_they_have_among_all(model, folder, fabric):
    (made,) = cutouts.cutouts(model, DESCRIPTION, {"rex.png": folder / "rex.png"}, fabric)
    assert made.name == "rex.png" and np.array_equal(made.photograph, read_upright(folder / "rex.png"))
    assert np.array_equal(made.unsure, (made.probability > 0.1) & (made.probability < 0.9))


def test_pet_is_what_lies_above_the_threshold_and_not_on_it():
    cut = cutouts.cut_out(np.zeros((1, 3, 3), np.uint8), np.array([[0.25, 0.5, 0.75]]), 0.5)
    assert cut[..., 3].tolist() == [[0, 0, 255]]


def test_a_damaged_photograph_stops_or_is_left_out(model, folder, tmp_path, fabric):
    (folder / "broken.jpg").write_bytes(b"no picture")
    paths = cutouts.photographs_in(folder)
    with pytest.raises(DatasetError, match=r"the photograph .*broken\.jpg cannot be opened: it is no picture"):
        cutouts.cut_out_all(model, DESCRIPTION, paths, tmp_path / "out", fabric)
    table, left_out = cutouts.cut_out_all(model, DESCRIPTION, paths, tmp_path / "out", fabric, bad_samples="skip")
    assert len(table) == 4 and list(left_out) == ["broken"] and "it is no picture" in left_out["broken"]
    with pytest.raises(DatasetError, match="no photograph can be used: the photograph"):
        cutouts.cut_out_all(model, DESCRIPTION, [folder / "broken.jpg"], tmp_path / "out", fabric, bad_samples="skip")


@pytest.fixture
def trained(model, temporary_workspace) -> str:
    run = temporary_workspace / "runs" / "mine" / "unet"
    run.mkdir(parents=True)
    save_model(run / "model.safetensors", model.state_dict(), DESCRIPTION)
    (run / "metrics.json").write_text("{}")
    return "runs/mine/unet"


def test_the_command_cuts_out_a_folder_and_names_what_it_could_not(trained, folder, tmp_path, capsys):
    (folder / "broken.jpg").write_bytes(b"no picture")
    out = tmp_path / "out"
    assert main(["predict", trained, str(folder), "--out", str(out)]) == 1
    said = capsys.readouterr()
    left_out, passed_over = said.err.splitlines()
    assert left_out.startswith("petseg: left out: the photograph ")
    assert passed_over == "petseg: passed over: notes.txt (no photograph by its name)"
    assert f"4 photographs: {out}/cutouts, {out}/masks, {out}/cutouts.csv" in said.out and "Tom" in said.out
    assert len(list((out / "masks").iterdir())) == len(list((out / "cutouts").iterdir())) == 4
    assert main(["predict", trained, str(folder / "rex.jpg"), "--out", str(tmp_path / "one")]) == 0
    assert [path.name for path in (tmp_path / "one" / "cutouts").iterdir()] == ["rex.png"]


@pytest.mark.parametrize(("threshold", "share"), [("0.01", 1.0), ("0.99", 0.0)])
def test_the_command_cuts_at_its_threshold(trained, folder, tmp_path, threshold, share):
    assert main(["predict", trained, str(folder / "rex.jpg"), "--out", str(tmp_path / "out"), "--threshold", threshold]) == 0
    assert pd.read_csv(tmp_path / "out" / "cutouts.csv")["share"].tolist() == [share]  # an untrained network is sure of nothing


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"--threshold": "1.5"}, "threshold is 1.5, but it must be above 0 and below 1"),
        ({"--threshold": "0"}, "threshold is 0.0, but it must be above 0 and below 1"),
        ({"--out": "mine/out"}, "mine/out lies in the folder of the photographs, where nothing is written: name another one"),
        ({"--out": "mine"}, "mine lies in the folder of the photographs, where nothing is written: name another one"),
    ],
)
def test_the_command_refuses_in_a_sentence(trained, folder, tmp_path, monkeypatch, capsys, change, sentence):
    monkeypatch.chdir(tmp_path)
    before = sorted(folder.rglob("*"))
    options = {"--out": "out"} | change
    assert main(["predict", trained, "mine", *(word for pair in options.items() for word in pair)]) == 2
    assert capsys.readouterr().err == f"petseg: {sentence}\n"
    assert sorted(folder.rglob("*")) == before


@pytest.mark.parametrize("photographs", ["mine/rex.jpg", "photographs"])
def test_a_file_and_a_folder_of_the_workspace_are_kept_from_results_as_well(
    trained, folder, tmp_path, temporary_workspace, monkeypatch, capsys, photographs
):
    monkeypatch.chdir(tmp_path)
    shutil.copytree(folder, temporary_workspace / "photographs")
    out = folder if photographs.endswith(".jpg") else temporary_workspace / "photographs" / "out"
    assert main(["predict", trained, photographs, "--out", str(out)]) == 2
    assert "lies in the folder of the photographs, where nothing is written" in capsys.readouterr().err
    assert not (out / "masks").exists()


@pytest.mark.parametrize("standing", ["masks/rex.png", "cutouts.csv"])
def test_what_someone_drew_is_not_written_over(trained, folder, tmp_path, capsys, standing):
    own = tmp_path / "project" / standing
    own.parent.mkdir(parents=True)
    own.write_text("drawn by hand")
    assert main(["predict", trained, str(folder), "--out", str(tmp_path / "project")]) == 2
    assert f"project holds {standing}, which `petseg predict` did not write" in capsys.readouterr().err
    assert own.read_text() == "drawn by hand" and [path for path in own.parent.rglob("*") if path.is_file()] == [own]


def test_what_was_added_to_results_costs_none_of_them(trained, folder, tmp_path, capsys):
    out = tmp_path / "out"
    assert main(["predict", trained, str(folder), "--out", str(out)]) == 0
    (out / "masks" / "mine.png").write_text("drawn by hand")
    before = sorted(out.rglob("*"))
    assert main(["predict", trained, str(folder), "--out", str(out)]) == 2
    assert "out holds masks/mine.png, which `petseg predict` did not write" in capsys.readouterr().err
    assert main(["predict", trained, str(out / "cutouts"), "--out", str(out)]) == 2
    assert "is where" in capsys.readouterr().err and sorted(out.rglob("*")) == before
    (out / "masks" / "mine.png").unlink()
    for one in (next((out / kind).iterdir()) for kind in ("masks", "cutouts")):
        assert main(["predict", trained, str(one), "--out", str(out)]) == 2
        assert "is where" in capsys.readouterr().err and one.is_file()


def test_a_second_call_leaves_nothing_of_the_first(model, folder, tmp_path, fabric, monkeypatch):
    paths, out = cutouts.photographs_in(folder), tmp_path / "out"
    cutouts.cut_out_all(model, DESCRIPTION, paths[:2], out, fabric)
    with monkeypatch.context() as patch:  # the second is interrupted at its second photograph
        patch.setattr(cutouts, "cut_out", Mock(side_effect=[np.zeros((50, 40, 4), np.uint8), KeyboardInterrupt]))
        with pytest.raises(KeyboardInterrupt):
            cutouts.cut_out_all(model, DESCRIPTION, paths[2:], out, fabric)
    with monkeypatch.context() as patch:  # the third between the two files of its first
        patch.setattr(Image.Image, "save", Mock(side_effect=[None, KeyboardInterrupt]))
        with pytest.raises(KeyboardInterrupt):
            cutouts.cut_out_all(model, DESCRIPTION, paths[2:], out, fabric)
    for kind in cutouts.FOLDERS:
        assert list((out / kind).iterdir()) == []
        (out / kind / ".DS_Store").write_text("")  # which macOS leaves where someone has looked
    (out / "notes.txt").write_text("mine")
    cutouts.cut_out_all(model, DESCRIPTION, paths[:1], out, fabric)
    files = sorted(str(path.relative_to(out)) for path in out.rglob("[!.]*") if path.is_file())
    assert files == ["cutouts.csv", str(Path("cutouts/Tom.png")), str(Path("masks/Tom.png")), "notes.txt"]


def test_a_mask_that_someone_mended_is_not_written_over(model, folder, tmp_path, fabric):
    paths, out = cutouts.photographs_in(folder), tmp_path / "out"
    cutouts.cut_out_all(model, DESCRIPTION, paths, out, fabric)
    mask = out / "masks" / "rex.jpg.png"
    Image.new("L", (4, 4), 255).save(mask)
    later = (out / cutouts.TABLE).stat().st_mtime_ns + 10**9
    os.utime(mask, ns=(later, later))
    with pytest.raises(ReadableError, match=r"holds masks/rex\.jpg\.png, which .* changed since"):
        cutouts.cut_out_all(model, DESCRIPTION, paths, out, fabric)
    assert Image.open(mask).size == (4, 4) and len(list((out / "cutouts").iterdir())) == len(paths)


@pytest.mark.parametrize("kind", cutouts.FOLDERS)
def test_a_mask_that_was_drawn_before_and_then_put_there_is_not_written_over(model, folder, tmp_path, fabric, kind):
    paths, out = cutouts.photographs_in(folder), tmp_path / "out"
    cutouts.cut_out_all(model, DESCRIPTION, paths, out, fabric)
    drawn = out / kind / "Tom.png"
    Image.new("L", (4, 4), 255).save(drawn)
    earlier = (out / cutouts.TABLE).stat().st_mtime_ns - 3600 * 10**9
    os.utime(drawn, ns=(earlier, earlier))
    with pytest.raises(ReadableError, match=rf"holds {kind}/Tom\.png, which .* did not write"):
        cutouts.cut_out_all(model, DESCRIPTION, paths, out, fabric)
    assert Image.open(drawn).size == (4, 4)


def test_results_are_not_removed_where_they_are_to_be_read(model, folder, tmp_path, fabric):
    cutouts.cut_out_all(model, DESCRIPTION, cutouts.photographs_in(folder), tmp_path, fabric)
    before = cutouts.photographs_in(tmp_path / "cutouts")
    with pytest.raises(ReadableError, match=r"cutouts is where .* gets its results: name another one"):
        cutouts.cut_out_all(model, DESCRIPTION, before, tmp_path, fabric)
    assert cutouts.photographs_in(tmp_path / "cutouts") == before


def test_notebook_07_leaves_a_mask_that_someone_mended(model, folder, temporary_workspace, fabric):
    paths, parameters = cutouts.photographs_in(folder), PredictionParameters(run_dir="runs/mine/predict")
    run = open_run(parameters, "07_predict")
    cutouts.cut_out_all(model, DESCRIPTION, paths, run.folder, fabric)
    run.finish({})
    mask = run.folder / "masks" / "Tom.png"
    Image.new("L", (4, 4), 255).save(mask)
    later = (run.folder / cutouts.TABLE).stat().st_mtime_ns + 10**9
    os.utime(mask, ns=(later, later))
    run = open_run(parameters, "07_predict")
    with pytest.raises(ReadableError, match=r"holds masks/Tom\.png, which .* changed since"):
        cutouts.cut_out_all(model, DESCRIPTION, paths, run.folder, fabric)
    assert Image.open(mask).size == (4, 4) and not run.complete


@pytest.mark.skipif(sys.platform != "linux", reason="other disks have no such names")
def test_photographs_whose_names_are_no_utf8_are_cut_out_and_known_again(trained, folder, tmp_path, capsys):
    for name in ("Bär.jpg", "Bör.jpg"):
        shutil.copy(folder / "rex.jpg", folder / os.fsdecode(name.encode("latin-1")))
    for _ in range(2):
        assert main(["predict", trained, str(folder), "--out", str(tmp_path / "out")]) == 0
        assert pd.read_csv(tmp_path / "out" / cutouts.TABLE)["name"].tolist()[:2] == ["B_r.jpg", "B_r.jpg_2"]
        assert (tmp_path / "out" / "masks" / "B_r.jpg_2.png").is_file()


def test_results_of_photographs_with_numbers_for_names_are_known_again(model, folder, tmp_path, fabric):
    paths = [(folder / "rex.jpg").rename(folder / "007.jpg"), (folder / "rex.png").rename(folder / "NA.png")]
    for _ in range(2):
        table, _ = cutouts.cut_out_all(model, DESCRIPTION, paths, tmp_path / "out", fabric)
        assert table["name"].tolist() == ["007", "NA"]


def make_cutouts(count: int) -> list[cutouts.Cutout]:
    draws = np.random.default_rng(0)
    made = []
    for number in range(count):
        shape = (40 + number, 60)
        probability = np.zeros(shape, np.float32)
        probability[10:30, 20:40], probability[30:34, 20:40] = 1.0, 0.6
        photograph = draws.integers(0, 256, (*shape, 3), dtype=np.uint8)
        made.append(cutouts.Cutout(f"pet_{number}", photograph, probability))
    return made


def test_a_grid_shows_each_photograph_above_what_is_cut_out():
    made = make_cutouts(5)
    figure = figures.cutout_grid(made, 0.7)
    titles = [axes.get_title() for axes in figure.axes]
    assert [title for title in titles if title.startswith("pet")] == [f"pet {number}" for number in range(5)]
    assert titles.count("17% of it is pet") == 1 and sum("of it is pet" in title for title in titles) == 5
    cut = next(axes for axes in figure.axes if axes.get_title() == "17% of it is pet").images[0].get_array()
    assert np.array_equal(cut[10:30, 20:40], made[0].photograph[10:30, 20:40])
    assert set(np.unique(cut[:10])) == {216, 250}  # nothing but chequers
    with pytest.raises(ValueError, match="at least 1 is needed"):
        figures.cutout_grid([])


def test_a_panel_outlines_and_cuts_at_its_threshold_and_veils_what_is_unsure():
    (made,) = make_cutouts(1)
    made = made._replace(probability=np.float32(0.95) * made.probability)
    photograph, probability, cut = figures.cutout_panel(made, 0.7).axes
    assert np.nanmax(photograph.lines[0].get_ydata()) == 29, "the line of the mask is where the cut is"
    assert set(np.unique(cut.images[0].get_array()[30:34, 20:40])) <= {216, 250}
    veiled = (photograph.images[0].get_array() != made.photograph).any(axis=2)
    unsure = np.zeros_like(veiled)
    unsure[30:34, 20:40] = True
    assert veiled[unsure].mean() > 0.9 and not veiled[~unsure].any()
    assert probability.images[0].get_clim() == (0, 1)


def test_a_viewer_answers_its_controls():
    viewer = cutout_viewer(make_cutouts(3))
    first = viewer.picture.value
    viewer.threshold.value = 0.7
    moved = viewer.picture.value
    viewer.next.click()
    assert viewer.choice.value == 1 and len({first, moved, viewer.picture.value}) == 3
    viewer.previous.click()
    assert viewer.picture.value == moved
    viewer.previous.click()
    assert viewer.choice.value == 2 and repr(viewer).startswith("CutoutViewer of 3 photographs")
    with pytest.raises(ValueError, match="at least 1 is needed"):
        cutout_viewer([])
