from pathlib import Path

import pytest

from petseg_lib.config import NOTEBOOKS, ParameterError
from petseg_lib.profiles import REPOSITORY, checked, find_file, load_profile, settings_from_environment

PROFILES = sorted((REPOSITORY / "profiles").glob("*.yaml"))


@pytest.fixture
def write(tmp_path, monkeypatch):
    monkeypatch.setenv("PETSEG_WORKSPACE", str(tmp_path))

    def write(text: str) -> Path:
        path = tmp_path / "mine.yaml"
        path.write_text(text, encoding="utf-8")
        return path

    return write


@pytest.mark.parametrize("path", PROFILES, ids=lambda path: path.stem)
def test_committed_profiles_are_whole(path):
    profile = load_profile(path)
    notebooks = {notebook for notebook, _ in profile.runs.values()}
    # Sweeps take an hour or more on real photographs, and so have profiles of their own.
    expected = {"demo": set(NOTEBOOKS), "ablations": {"06_ablations"}, "photographs": {"06_ablations"}}
    assert notebooks == expected.get(path.stem, set(NOTEBOOKS) - {"06_ablations"})
    for run, (notebook, settings) in profile.runs.items():
        full = NOTEBOOKS[notebook].checked(settings)
        assert full.run_dir == f"runs/{path.stem}/{run}"
        assert full.figures_dir == f"figures/{path.stem}"
    assert path.read_text(encoding="utf-8").startswith("# ")


def test_the_six_profiles_exist_and_go_by_name():
    assert [path.stem for path in PROFILES] == ["ablations", "best", "demo", "photographs", "report", "sample"]
    assert load_profile("demo") == load_profile(REPOSITORY / "profiles" / "demo.yaml")


def test_the_demo_is_the_default_of_every_notebook():
    for run, (notebook, settings) in load_profile("demo").runs.items():
        assert NOTEBOOKS[notebook]() == NOTEBOOKS[notebook].checked(settings), run


def test_own_parameters_win_over_common_ones_and_settings_over_both(write):
    path = write("""
parameters: {epochs: 3, learning_rate: 1e-3, limit_images: 5}
runs:
  mean_std: {notebook: 02_mean_std}
  first: {notebook: 03_unet_training, epochs: 4}
  second: {notebook: 04_resnet34_unet_training}
""")
    runs = load_profile(path).runs
    assert runs["first"][1]["epochs"] == 4
    assert runs["second"][1]["epochs"] == 3
    assert runs["second"][1]["learning_rate"] == 0.001
    assert isinstance(runs["second"][1]["learning_rate"], float)
    assert "epochs" not in runs["mean_std"][1]
    assert runs["mean_std"][1]["limit_images"] == 5
    runs = load_profile(path, {"epochs": "7", "data": 'it\'s my "data"'}).runs
    epochs = {run: settings.get("epochs") for run, (_, settings) in runs.items()}
    assert epochs == {"mean_std": None, "first": 7, "second": 7}
    assert runs["mean_std"][1]["data"] == 'it\'s my "data"'


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("parameters: {epohcs: 3}", "unknown parameter 'epohcs': did you mean 'epochs'?"),
        ("runs: {a: {notebook: 02_mean_std, epochs: 3}}", "profile mine, run a: unknown parameter 'epochs'"),
        ("runs: {a: {notebook: 02_mean, seed: 3}}", "run a has notebook '02_mean', but it must be one of 01_data"),
        ("runs: {a: {notebook: 02_mean_std, limit_images: -1}}", "profile mine, run a: parameter limit_images is -1, but"),
        ("runs: {a: {notebook: 02_mean_std, run_dir: x}}", "run_dir follows from the names"),
        ("parameters: {figures_dir: x}", "figures_dir follows from the names"),
        ("runs: {a/b: {notebook: 02_mean_std}}", "run name 'a/b' must be letters"),
        (
            "runs: {a.: {notebook: 02_mean_std}}",
            "run name 'a.' must be letters",
        ),  # Windows would make a folder of it that is named a
        (
            "runs: {b: {notebook: 02_mean_std}, B: {notebook: 02_mean_std}}",
            "runs b and B differ in capitals alone, and share a folder",
        ),
        ("runs: {a: {notebook: 05_comparison, runs: [b]}}", "run a names run 'b', but there are a"),
        ("runs: {a: {notebook: 03_unet_training, statistics_run: b}}", "run a names run 'b', but there are a"),
        ("runs: {a: {notebook: 07_predict, model_run: b}}", "run a names run 'b', but there are a"),
        ("runs: [a]", "must each map names to values"),
        ("run: {a: {notebook: 02_mean_std}}", "nothing else, but it has run"),
        ("- a", "is no profile"),
        ("runs: {", "is not YAML"),
        ("parameters: {data: !!python/name:os.system }", "is not YAML"),
        ("runs: {a: {notebook: 02_mean_std}, a: {notebook: 03_unet_training}}", "is not YAML: a is there twice"),
        ("parameters: {epochs: 3, epochs: 4}", "is not YAML: epochs is there twice"),
        ("runs: {a: {notebook: 05_comparison, runs: ''}}", "run a: parameter runs is [], but"),
    ],
)
def test_a_wrong_profile_is_refused_in_one_sentence(write, text, message):
    with pytest.raises(ParameterError) as caught:
        load_profile(write(text))
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_file_in_another_encoding_is_refused_in_one_sentence(tmp_path):
    (tmp_path / "mine.yaml").write_bytes("parameters: {data: Müller}".encode("latin-1"))
    with pytest.raises(ParameterError, match="is not YAML"):
        load_profile(tmp_path / "mine.yaml")


def test_a_setting_must_belong_to_a_notebook_of_the_profile(write):
    path = write("runs: {a: {notebook: 02_mean_std}}")
    with pytest.raises(ParameterError, match="unknown parameter 'epochs'"):
        load_profile(path, {"epochs": "1"})


def test_a_run_without_section_gets_the_common_parameters(write):
    profile = load_profile(write("parameters: {limit_images: 3, epochs: 9}\nruns: {a: {notebook: 02_mean_std}}"))
    assert profile.settings("03_unet_training", "other") == {"limit_images": 3, "epochs": 9}
    assert profile.settings("02_mean_std", "other") == {"limit_images": 3}
    given = load_profile(write("parameters: {epochs: 9}\nruns: {a: {notebook: 03_unet_training}}"), {"epochs": "2"})
    assert given.settings("03_unet_training", "other") == {"epochs": "2"}
    with pytest.raises(ParameterError, match="run a of profile mine belongs to notebook 02_mean_std"):
        profile.settings("03_unet_training", "a")


@pytest.mark.parametrize("text", ["[a, b]", "a,b", " a , b ", '["a", "b"]', "['a','b']"])
def test_lists_may_be_text(text):
    assert checked("05_comparison", {"runs": text}) == {"runs": ["a", "b"]}


def test_a_name_with_commas_is_one_item_of_a_list_in_quotes():
    assert checked("05_comparison", {"runs": '["runs/sweeps/mine/a,seed=0", b]'}) == {"runs": ["runs/sweeps/mine/a,seed=0", "b"]}
    assert checked("05_comparison", {"runs": "[no, 01]"}) == {"runs": ["no", "01"]}
    with pytest.raises(ParameterError, match=r'parameter runs is \["a, which is no list'):
        checked("05_comparison", {"runs": '["a'})


def test_an_unknown_profile_names_the_known_ones():
    with pytest.raises(ParameterError, match="ablations, best, demo, photographs, report, sample"):
        find_file("nope", "profiles", ".yaml")


def test_a_profile_of_the_workspace_comes_before_the_repositorys(write, tmp_path):
    own = tmp_path / "profiles" / "demo.yaml"
    own.parent.mkdir()
    write("runs: {}").rename(own)
    assert find_file("demo", "profiles", ".yaml") == own.resolve()
    assert find_file("best", "profiles", ".yaml") == REPOSITORY / "profiles" / "best.yaml"
    assert find_file("best.yaml", "profiles", ".yaml") == REPOSITORY / "profiles" / "best.yaml"


@pytest.mark.parametrize(("data", "expected"), [("pets", "{here}/pets"), ("demo", "demo"), ("", "other")])
def test_data_is_meant_from_where_one_stands_and_comes_before_set(tmp_path, monkeypatch, data, expected):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "pets").mkdir()
    monkeypatch.setenv("SET", "data=other loss='bce'")
    monkeypatch.setenv("DATA", data)
    expected = expected.format(here=tmp_path.resolve().as_posix())
    assert {name: Path(value).as_posix() for name, value in settings_from_environment().items()} == {
        "data": expected,
        "loss": "bce",
    }
