"""Parameters: one sentence for each bad value, and one set of names in notebooks, profiles and models."""

import ast
import itertools
from typing import Literal, get_args, get_origin
from unittest.mock import patch

import nbformat
import pytest
import torch
from papermill import inspect_notebook

from petseg_lib import profiles
from petseg_lib.config import NOTEBOOKS, ParameterError, ResNet34UNetParameters, UNetParameters
from petseg_lib.models import build_model
from petseg_lib.profiles import REPOSITORY, load_profile

FILES = REPOSITORY / "profiles"
PROFILES = sorted(path.relative_to(FILES).with_suffix("").as_posix() for path in FILES.rglob("*.yaml"))


def parameters_cell(notebook: str) -> str:
    cells = nbformat.read(REPOSITORY / "notebooks" / f"{notebook}.ipynb", 4).cells
    (cell,) = [cell for cell in cells if "parameters" in cell.metadata.get("tags", [])]
    return cell.source


def literals(source: str) -> dict[str, object]:
    return {statement.targets[0].id: ast.literal_eval(statement.value) for statement in ast.parse(source).body}


@pytest.mark.parametrize("notebook", NOTEBOOKS)
def test_the_parameters_cell_holds_every_name_with_its_default_and_its_sentence(notebook):
    source, model = parameters_cell(notebook), NOTEBOOKS[notebook]
    assert literals(source) == model().model_dump()
    sentences = {line.split(" = ")[0]: line.split("  # ")[1] for line in source.splitlines()}
    assert sentences == {name: field.description for name, field in model.model_fields.items()}


@pytest.mark.parametrize("notebook", NOTEBOOKS)
def test_papermill_knows_every_parameter(notebook):
    """It warns of one that it cannot read, which a second = in the line is enough for."""
    known = inspect_notebook(REPOSITORY / "notebooks" / f"{notebook}.ipynb")
    assert {name: each["help"] for name, each in known.items()} == {
        name: field.description for name, field in NOTEBOOKS[notebook].model_fields.items()
    }


def test_notebook_06_does_not_say_of_its_defaults_that_they_replace_what_the_sweep_says():
    """`demo` and 0 are no dataset and no limit there: the sweep's own hold (`profiles.settings_for_sweep`)."""
    sweep = profiles.find_sweep("demo")
    parameters = NOTEBOOKS["06_ablations"]()
    assert not profiles.settings_for_sweep(sweep, parameters.of_data() | {"limit_images": str(parameters.limit_images)})
    assert {settings["limit_images"] for _, settings in load_profile(sweep).runs.values()} == {40}
    for name in ("data", "limit_images"):
        assert "sweep" in type(parameters).model_fields[name].description


def test_a_choice_is_said_with_its_alternatives():
    for model in NOTEBOOKS.values():
        for name, field in model.model_fields.items():
            said = field.description.replace(",", "").replace(":", "").split()
            alternatives = get_args(field.annotation) if get_origin(field.annotation) is Literal else ()
            assert set(alternatives) <= set(said), (name, field.description)


@pytest.mark.parametrize("notebook", NOTEBOOKS)
def test_the_demo_profile_is_the_defaults(notebook):
    profile = load_profile("demo")
    (settings,) = [settings for name, settings in profile.runs.values() if name == notebook]
    assert NOTEBOOKS[notebook](**settings) == NOTEBOOKS[notebook]()


@pytest.mark.parametrize("profile", PROFILES)
def test_profiles_hold_known_names_and_right_values(profile):
    for notebook, settings in load_profile(profile).runs.values():
        assert NOTEBOOKS[notebook].checked(settings).model_dump(include=set(settings)) == settings


@pytest.mark.parametrize(
    ("name", "value", "allowed"),
    [
        ("learning_rate", "fast", "number"),
        ("learning_rate", 0, "greater than 0"),
        ("learning_rate", float("nan"), "greater than 0"),
        ("shift", float("-inf"), "greater than or equal to 0"),
        ("image_size", 31, "greater than or equal to 32"),
        ("epochs", True, "no numbers"),
        ("border_policy", "fur", "'pet', 'background', 'edge' or 'ignore'"),
        ("limit_images", 1, "2 images or more"),
        ("train_images", 1, "2 images or more"),
        ("data", "", "it must have at least 1 character"),
    ],
)
def test_a_bad_value_is_one_sentence_with_name_value_and_what_is_allowed(name, value, allowed):
    with pytest.raises(ParameterError) as caught:
        UNetParameters.checked({name: value})
    message = str(caught.value)
    assert name in message and str(value) in message and allowed in message
    assert "\n" not in message


@pytest.mark.parametrize(
    ("notebook", "values", "sentence"),
    [
        ("07_predict", {"threshold": 0}, "threshold is 0, but it must be greater than 0"),
        ("07_predict", {"threshold": 1}, "threshold is 1, but it must be less than 1"),
        ("05_comparison", {"figure_formats": ["svg"]}, "png must be among them"),
        ("03_unet_training", {"rotate": 181}, "rotate is 181, but it must be less than or equal to 180"),
        (
            "03_unet_training",
            {"half_size_share": 0.5, "image_size": 63},
            "image_size is 63, but half_size_share needs 64 or more",
        ),
    ],
)
def test_what_a_notebook_does_not_take_is_refused(notebook, values, sentence):
    with pytest.raises(ParameterError, match=sentence):
        NOTEBOOKS[notebook].checked(values)


def test_an_unknown_name_is_refused_with_the_nearest_one():
    with pytest.raises(ParameterError, match="unknown parameter 'lerning_rate': did you mean 'learning_rate'"):
        UNetParameters.checked({"lerning_rate": 1e-3})


def test_text_that_is_a_number_is_taken_as_the_number():
    assert UNetParameters.checked({"learning_rate": "1e-3"}).learning_rate == 1e-3


def test_a_notebook_gives_its_parameters_and_nothing_else():
    cell = literals(parameters_cell("03_unet_training"))
    assert UNetParameters.from_notebook({**cell, "something": object()}) == UNetParameters()
    del cell["epochs"]
    with pytest.raises(ParameterError, match="must run first, and set epochs"):
        UNetParameters.from_notebook(cell)


def test_a_name_that_papermill_injects_without_a_cell_knowing_it_is_refused():
    cell = literals(parameters_cell("03_unet_training")) | {"epoch": 3, "In": ["", "epochs = 1", "# Parameters\nepoch = 3\n"]}
    with pytest.raises(ParameterError, match="unknown parameter 'epoch': did you mean 'epochs'"):
        UNetParameters.from_notebook(cell)


def test_in_a_notebook_the_error_is_its_sentence_alone():
    assert ParameterError("too much")._render_traceback_() == ["ParameterError: too much"]


def test_what_the_parameters_allow_is_what_build_model_builds():
    """A network that cannot be built is refused before a run folder is touched."""
    choices = itertools.product(["default", "report"], [2, 5, 6], [64, 16], ["7x7", "3x3"], [1, 2], ["", "imagenet"])
    for variant, depth, width, stem, stem_stride, encoder_weights in choices:
        given = {"variant": variant, "depth": depth, "width": width, "stem": stem, "stem_stride": stem_stride}
        given["encoder_weights"] = encoder_weights
        try:
            settings, refused = ResNet34UNetParameters.checked(given).model_settings(), ""
        except ParameterError as error:
            settings, refused = given, str(error).split(", but")[0]
        with patch("petseg_lib.models.load_encoder_weights"), torch.device("meta"):
            if not refused:
                assert build_model("resnet34_unet", **settings)
                continue
            with pytest.raises(ParameterError) as caught:
                build_model("resnet34_unet", **settings)
            assert str(caught.value).split(", but")[0] == refused
