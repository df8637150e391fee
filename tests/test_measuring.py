"""Floors, headline, results table, predictions by run and `petseg evaluate`, against trimaps and arithmetic by hand."""

import json

import numpy as np
import pandas as pd
import pytest
import short_training
from PIL import Image
from small_model import DESCRIPTION, SETTINGS
from torch import nn

from petseg_lib import checkpoints, comparison, devices, evaluation
from petseg_lib.cli import main
from petseg_lib.data.masks import BORDER_POLICIES
from petseg_lib.data.pets import load_pets
from petseg_lib.data.pictures import DatasetError
from petseg_lib.models import build_model
from petseg_lib.runs import Run, RunError

KEYS = ["convention", "resolution", "border_policy"]


def by_hand(table, batch_size):
    """Every Dice of a per_image table, by convention, resolution and border policy."""
    values = {}
    for policy in BORDER_POLICIES:
        for resolution in ("native", "model"):
            tp, fp, fn = (table[f"{resolution}_{policy}_{kind}"].to_numpy(float) for kind in ("tp", "fp", "fn"))
            values["dice_image", resolution, policy] = (2 * tp / (2 * tp + fp + fn)).mean()
            values["dice_dataset", resolution, policy] = 2 * tp.sum() / (2 * tp + fp + fn).sum()
        hit, predicted, target = (table[f"model_{policy}_soft_{part}"] for part in ("intersection", "prediction", "target"))
        batches = [slice(first, first + batch_size) for first in range(0, len(table), batch_size)]
        soft = [2 * hit[rows].sum() / (predicted[rows] + target[rows]).sum() for rows in batches]
        values["dice_batch_soft", "model", policy] = np.mean(soft)
    return values


def drawn_counts(images, seed):
    """A per_image table of which no two columns are alike."""
    kinds = [f"{resolution}_{{}}_{kind}" for resolution in ("native", "model") for kind in ("tp", "fp", "fn")]
    kinds += [f"model_{{}}_soft_{part}" for part in ("intersection", "prediction", "target")]
    columns = [kind.format(policy) for kind in kinds for policy in BORDER_POLICIES]
    numbers = np.random.default_rng(seed).integers(50, 100, (images, len(columns)))
    return pd.DataFrame(numbers, columns=columns).assign(name=[f"pet_{i}" for i in range(images)])


def pet_shares(pets, split):
    """Of each photograph of a split, at its own size: the share that is pet or border."""
    return np.array([np.isin(np.asarray(Image.open(pets.trimap_path(pet))), (1, 3)).mean() for pet in pets.split(split)])


def write_run(folder, model, **changes):
    folder.mkdir()
    checkpoints.save_model(folder / "model.safetensors", model.state_dict(), DESCRIPTION | changes)
    (folder / "params.json").write_text(json.dumps({"parameters": {"batch_size": 3}}))
    (folder / "metrics.json").write_text("{}")
    return Run(folder)


@pytest.fixture
def run_of_everything(tmp_path):
    """A run whose saved weights take everything for pet."""
    model = build_model("unet", **SETTINGS).requires_grad_(False)
    model.head.weight.zero_()
    model.head.bias.fill_(5)
    return write_run(tmp_path / "everything", model)


@pytest.fixture(scope="module")
def trained(pets, tmp_path_factory):
    """Trained for two epochs, and measured, as notebook 03 does."""
    folder = tmp_path_factory.mktemp("trained")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PETSEG_WORKSPACE", str(folder))
        patch.setattr(short_training, "SMALL", short_training.SMALL | {"epochs": 2, "border_policy": "ignore"})
        for name in ("WRITING_SHARE", "EXPECTED_BYTES_A_SECOND"):  # which the training changes
            patch.setattr(checkpoints, name, getattr(checkpoints, name))
        short_training.train("runs/t/unet", str(pets.root), 1e-9)
    return Run(folder / "runs" / "t" / "unet")


def test_everything_is_pet_has_the_dice_of_each_test_photographs_share(pets, fabric, tmp_path):
    run = write_run(tmp_path / "unet", build_model("unet", **SETTINGS), image_size=40)
    table, share = comparison.floors(pets, run, fabric)["everything is pet"], pet_shares(pets, "test")
    assert list(table["name"]) == [pet.name for pet in pets.split("test")]
    np.testing.assert_allclose(evaluation.dice_per_image(table), 2 * share / (1 + share), atol=1e-12)
    assert (table["model_pet_tp"] + table["model_pet_fp"] == 40**2).all()


def test_a_run_that_was_measured_before_a_mask_was_mended_gets_no_floors(pets, fabric, tmp_path):
    run = write_run(tmp_path / "unet", build_model("unet", **SETTINGS), image_size=40)
    table = comparison.floors(pets, run, fabric)["everything is pet"]
    run.write_table("per_image.csv", table)
    assert len(comparison.floors(pets, run, fabric)) == 2
    table.loc[0, "native_pet_tp"] -= 1
    run.write_table("per_image.csv", table)
    with pytest.raises(RunError, match=f"unet and everything is pet were measured on other masks of {table['name'][0]}: where"):
        comparison.floors(pets, run, fabric)


def bands(root, **lists):
    """Photographs of 32 x 32 px whose trimaps are four bands, each given by its value."""
    (root / "images").mkdir(parents=True)
    (root / "annotations" / "trimaps").mkdir(parents=True)
    for file, trimaps in lists.items():
        for number, values in enumerate(trimaps):
            trimap = np.tile(np.repeat(np.array(list(values), dtype=np.uint8), 8), (32, 1))
            Image.fromarray(trimap).save(root / "annotations" / "trimaps" / f"{file}_{number}.png")
            Image.fromarray(80 * trimap).convert("RGB").save(root / "images" / f"{file}_{number}.jpg")
        (root / "annotations" / f"{file}.txt").write_text("".join(f"{file}_{i} 1 1 1\n" for i in range(len(trimaps))))
    return load_pets(root)


# The averages of the four bands, in quarters: pet 4 3 2 1, background 4 2 2 1, edge 0 1 0 0. Above one half are 2, 1, 0 bands.
@pytest.mark.parametrize(
    ("policy", "quarters", "dice"), [("pet", 10, [4 / 5, 2 / 4]), ("background", 9, [2 / 3, 0]), ("edge", 1, [0, 0])]
)
def test_the_average_mask_is_of_the_train_split_under_the_runs_policy(policy, quarters, dice, fabric, tmp_path):
    valid, train = ["1111"], ["1112", "1122", "1312", "1221"]
    dataset = bands(tmp_path / "bands", trainval=valid + train, test=["1132", "2321"])
    run = write_run(tmp_path / "unet", build_model("unet", **SETTINGS), image_size=32, border_policy=policy)
    table = comparison.floors(dataset, run, fabric)["average training mask"]
    assert table["model_pet_soft_prediction"].tolist() == pytest.approx([64 * quarters] * 2, abs=0.01)
    assert evaluation.dice_per_image(table, "native", policy).tolist() == pytest.approx(dice)


def test_results_have_a_row_for_every_dice_of_every_run():
    tables = {"unet": drawn_counts(5, 0), "other": drawn_counts(7, 1), "a floor": drawn_counts(5, 2)}
    results = comparison.results_table(tables, {"unet": 2, "other": 4})
    assert list(results.columns) == ["run", *KEYS, "value", "images"]
    assert results[["run", "images"]].value_counts().to_dict() == {("unet", 5): 20, ("other", 7): 20, ("a floor", 5): 20}
    sizes = {"unet": 2, "other": 4, "a floor": 4}  # a floor has no batches: it gets the largest
    expected = {(name, *key): value for name, size in sizes.items() for key, value in by_hand(tables[name], size).items()}
    assert results.set_index(["run", *KEYS])["value"].to_dict() == pytest.approx(expected)


@pytest.mark.parametrize("policy", BORDER_POLICIES)
def test_the_headline_is_of_the_border_policy_asked_for(policy):
    table = drawn_counts(6, 3)
    values, found = by_hand(table, 4), evaluation.headline(evaluation.dice_table(table, 4), policy)
    assert len(set(values.values())) == len(values)
    assert found == pytest.approx({"_".join(key[:2]): value for key, value in values.items() if key[2] == policy})


class Brightness(nn.Module):
    """One logit for all of a photograph: how bright it is after normalisation, times a factor."""

    def __init__(self, factor):
        super().__init__()
        self.factor = factor

    def forward(self, image):
        return self.factor * image.mean((1, 2, 3), keepdim=True).repeat(1, 1, *image.shape[2:])


def test_each_run_predicts_each_photograph_as_it_does_alone(pets, fabric):
    dark = DESCRIPTION | {"image_size": 32, "mean": [0.25] * 3, "std": [0.5] * 3}
    shown = [pets.split("test")[place] for place in (3, 0, 5)]
    predictions = evaluation.predict_by_run({"a": (Brightness(8), DESCRIPTION), "b": (Brightness(-2), dark)}, pets, shown, fabric)
    bright = []
    for prediction, pet in zip(predictions, shown, strict=True):
        photograph, trimap = (np.asarray(Image.open(path(pet))) for path in (pets.photograph_path, pets.trimap_path))
        bright.append(photograph.mean() / 255)
        logits = {"a": 8 * (bright[-1] - 0.5) / 0.25, "b": -2 * (bright[-1] - 0.25) / 0.5}
        assert list(prediction.by_model()) == ["a", "b"]
        for name, probability in prediction.by_model().items():
            np.testing.assert_allclose(probability, np.full(trimap.shape, 1 / (1 + np.exp(-logits[name]))), atol=0.01)
        np.testing.assert_array_equal(prediction.photograph, photograph)
        np.testing.assert_array_equal(prediction.truth, np.isin(trimap, (1, 3)))
    assert np.diff(sorted(bright)).min() > 0.01, "photographs in another order would be seen"


def test_what_does_not_count_is_known_beside_several_runs_as_well(pets, fabric):
    ignore, shown = DESCRIPTION | {"border_policy": "ignore"}, pets.split("test")[:1]
    (prediction,) = evaluation.predict_by_run({"a": (Brightness(8), ignore), "b": (Brightness(-2), ignore)}, pets, shown, fabric)
    assert np.array_equal(prediction.scored, np.asarray(Image.open(pets.trimap_path(shown[0]))) != 3)


def printed(capsys):
    """The table that the command printed, and nothing beside it."""
    said = capsys.readouterr()
    header, *rows = (line.split() for line in said.out.splitlines())
    assert said.err == "" and header == [*KEYS, "value", "images"] and len(rows) == 4 * 5
    return {tuple(words): float(value) for *words, value, _ in rows}


def test_a_run_measures_what_its_training_measured(trained, pets, monkeypatch, capsys):
    monkeypatch.setattr(evaluation, "open_fabric", lambda: devices.open_fabric("cpu"))  # as the training
    folder, expected = str(trained.folder), by_hand(trained.per_image, trained.parameters["batch_size"])
    assert 0.1 < expected["dice_image", "native", "ignore"] < 0.9
    table = evaluation.evaluate_run(folder, str(pets.root))
    assert set(table["images"]) == {len(pets.split("test"))}
    found = table.set_index(KEYS)["value"]
    assert found.to_dict() == pytest.approx(expected, abs=1e-9)
    assert main(["evaluate", folder, "--data", str(pets.root), "--split", "test"]) == 0
    assert printed(capsys) == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("split", ["train", "valid", "trainval", "test", None])
def test_the_command_prints_the_dice_of_the_split_asked_for(split, run_of_everything, pets, capsys):
    asked, share = ["--split", split] if split else [], pet_shares(pets, split or "test")
    assert len(share) == {"train": 9, "valid": 1}.get(split, 10)
    assert main(["evaluate", str(run_of_everything.folder), "--data", str(pets.root), *asked]) == 0
    assert printed(capsys)["dice_image", "native", "pet"] == pytest.approx((2 * share / (1 + share)).mean(), abs=1e-6)


def test_the_command_ends_in_a_sentence(run_of_everything, pets, temporary_workspace, capsys):
    run, data = str(run_of_everything.folder), str(pets.root)
    no_run = "runs/none/unet/model.safetensors does not exist: the run is missing or did not finish"
    no_data = f"the data folder {temporary_workspace / 'no'} does not exist"
    for run_dir, folder, sentence in (("runs/none/unet", data, no_run), (run, "no", no_data)):
        assert main(["evaluate", run_dir, "--data", folder]) == 2
        assert capsys.readouterr() == ("", f"petseg: {sentence}\n")
    with pytest.raises(SystemExit, match="2"):
        main(["evaluate", run, "--data", data, "--split", "dev"])
    assert "petseg evaluate: error: argument --split: invalid choice: 'dev'" in capsys.readouterr().err.splitlines()[-1]
    with pytest.raises(DatasetError, match="there is no split 'dev': it must be train, valid, trainval or test"):
        evaluation.evaluate_run(run, data, "dev")


def test_a_home_of_nobody_and_a_damaged_record_are_sentences(run_of_everything, pets, capsys):
    assert main(["evaluate", "~nosuchuser/run", "--data", "demo"]) == 2
    assert capsys.readouterr().err == "petseg: ~nosuchuser/run cannot be found: there is no such user\n"
    (run_of_everything.folder / "metrics.json").unlink()
    (run_of_everything.folder / "params.json").write_text('{"parameters": {"batch_s')
    assert main(["evaluate", str(run_of_everything.folder), "--data", str(pets.root)]) == 2
    unfinished, damaged = capsys.readouterr().err.splitlines()
    assert unfinished.endswith("everything is not finished: its weights so far are used")
    assert "params.json is damaged (" in damaged and "another folder" in damaged
