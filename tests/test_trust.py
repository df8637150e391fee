"""Nothing that is loaded can run code, and what cannot be trusted is refused in one sentence."""

import ast
import json
import os
import re
import struct
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load, save_file

from petseg_lib import disk
from petseg_lib.checkpoints import load_model, load_state, save_model, save_state
from petseg_lib.models import build_model
from petseg_lib.profiles import REPOSITORY, load_profile
from petseg_lib.runs import RunError

SETTINGS = {"width": 4, "depth": 2, "dropout": 0.0, "initialisation": "default"}
DESCRIPTION = {
    "model": "unet",
    "settings": SETTINGS,
    "image_size": 32,
    "border_policy": "pet",
    "mean": [0.5] * 3,
    "std": [0.2] * 3,
}
MODULES = sorted((REPOSITORY / "petseg_lib").rglob("*.py"))
RUN_CODE = {"eval", "exec", "compile", "__import__"}
LOADERS = {
    ("pickle", "load"), ("pickle", "loads"), ("pickle", "Unpickler"), ("marshal", "loads"), ("shelve", "open"),
    ("joblib", "load"), ("pd", "read_pickle"), ("yaml", "load"), ("yaml", "unsafe_load"), ("yaml", "full_load"),
    ("os", "system"), ("os", "popen"),
}  # fmt: skip


def unsafe_calls(source: str) -> list[str]:
    """Calls that could run what a file says."""
    found = []
    for call in (node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Call)):
        keywords = {keyword.arg: ast.unparse(keyword.value) for keyword in call.keywords}
        if isinstance(call.func, ast.Name) and call.func.id in RUN_CODE:
            found.append(call.func.id)
        if isinstance(call.func, ast.Attribute) and isinstance(call.func.value, ast.Name):
            name = (call.func.value.id, call.func.attr)
            if name in LOADERS or (name == ("torch", "load") and keywords.get("weights_only") != "True"):
                found.append(".".join(name))
        if keywords.get("allow_pickle", "False") != "False" or keywords.get("shell", "False") != "False":
            found.append("allow_pickle or shell")
    return found


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.relative_to(REPOSITORY).as_posix())
def test_the_library_has_no_call_that_could_run_what_a_file_says(path):
    assert unsafe_calls(path.read_text(encoding="utf-8")) == []


@pytest.mark.parametrize(
    "source",
    ["torch.load(f)", "torch.load(f, weights_only=False)", "pickle.loads(b)", "yaml.load(t)", "np.load(f, allow_pickle=True)",
     "eval(text)", "subprocess.run(c, shell=True)", "pd.read_pickle(f)"],
)  # fmt: skip
def test_such_calls_are_found(source):
    assert unsafe_calls(source)


class Malicious:
    def __reduce__(self):
        return os.mkdir, ("owned",)


def test_a_malicious_state_is_refused_and_does_nothing(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "resume" / "state.pt"
    save_state(path, {"model": Malicious()})
    with pytest.raises(RunError, match=r"state\.pt cannot be trusted or is damaged .*: remove .*resume to start that run anew"):
        load_state(path)
    assert not (tmp_path / "owned").exists()


@pytest.mark.parametrize("content", [b"", b"no state", b"PK\x03\x04" + bytes(100)])
def test_a_damaged_state_is_one_sentence(tmp_path, content):
    (tmp_path / "state.pt").write_bytes(content)
    with pytest.raises(RunError, match=r"state\.pt cannot be trusted or is damaged") as raised:
        load_state(tmp_path / "state.pt")
    assert "\n" not in str(raised.value)


@pytest.fixture
def saved(tmp_path):
    path = tmp_path / "model.safetensors"
    save_model(path, build_model("unet", **SETTINGS).state_dict(), DESCRIPTION)
    return path


def refused(path, words: str) -> None:
    with pytest.raises(RunError, match=words) as raised:
        load_model(path)
    assert str(raised.value).count("\n") == 0


@pytest.mark.skipif(sys.platform != "linux", reason="Linux lists what a process has mapped")
def test_a_loaded_model_leaves_its_file_free(saved):
    """Windows replaces no file that a process has mapped: a notebook that is left open would keep the next training from its end."""
    model, _ = load_model(saved)
    assert list(model.parameters()) and str(saved) not in Path("/proc/self/maps").read_text()


@pytest.mark.parametrize("kept", [100, 4_097, 5_000, 1_200_000])
def test_a_state_that_was_cut_off_is_one_sentence(tmp_path, kept):
    path = tmp_path / "state.pt"
    save_state(path, {"progress": {"epoch": 1}, "model": {"weight": torch.ones(600_000)}})
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(RunError, match="cannot be trusted or is damaged"):
        load_state(path)


def test_weights_that_cannot_be_written_leave_those_that_stand(saved, monkeypatch):
    before = saved.read_bytes()
    monkeypatch.setattr(disk.os, "fsync", lambda descriptor: (_ for _ in ()).throw(OSError(5, "Input/output error")))
    with pytest.raises(OSError, match="Input/output error"):
        save_model(saved, {"another": torch.ones(1)}, DESCRIPTION)
    assert saved.read_bytes() == before


def test_weights_that_are_a_pickle_are_refused(saved):
    torch.save({"weight": Malicious()}, saved)
    refused(saved, "is no safetensors file")


def test_an_oversized_header_is_refused(saved):
    saved.write_bytes(struct.pack("<Q", 2**62) + saved.read_bytes()[8:])
    refused(saved, "is no safetensors file")


def test_cut_weights_are_refused(saved):
    saved.write_bytes(saved.read_bytes()[:-100])
    refused(saved, "is no safetensors file")


def test_weights_of_other_shapes_are_refused(saved):
    weights = {name: tensor[:1] if tensor.ndim > 1 else tensor for name, tensor in load(saved.read_bytes()).items()}
    save_file({name: tensor.contiguous() for name, tensor in weights.items()}, saved, {"petseg": json.dumps(DESCRIPTION)})
    refused(saved, "do not fit unet")


def test_weights_that_are_too_few_or_too_many_are_refused(saved):
    weights = load(saved.read_bytes())
    first, *others = weights
    for those, words in (
        ({name: weights[name] for name in others}, f"1 weights in .* do not fit unet: {first} is missing, but must be"),
        (weights | {"more": torch.ones(1)}, r"1 weights in .* do not fit unet: more is \(1,\), but must be absent"),
    ):
        save_file(those, saved, {"petseg": json.dumps(DESCRIPTION)})
        refused(saved, words)


@pytest.mark.parametrize(
    "description",
    ["not json", "[]", "{}", json.dumps(DESCRIPTION | {"model": "os.system"}), json.dumps(DESCRIPTION | {"settings": {"width": -1}}),
     json.dumps(DESCRIPTION | {"settings": {"width": 10**9}}), json.dumps(DESCRIPTION | {"settings": {"nothing": 1}})],
)  # fmt: skip
def test_a_description_that_makes_no_sense_is_refused(saved, description):
    save_file(load(saved.read_bytes()), saved, {"petseg": description})
    refused(saved, "model.safetensors")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"image_size": 31}, "image_size is 31, but must be 32 to 4096"),
        ({"image_size": 4097}, "image_size is 4097, but must be 32 to 4096"),
        ({"mean": [0.5] * 2}, r"mean is \[0.5, 0.5\], but must be three numbers"),
        ({"std": ["0.2"] * 3}, "std is .*, but must be three numbers"),
        ({"border_policy": "fur"}, "border_policy is 'fur'"),
    ],
)
def test_what_a_prediction_could_not_use_is_refused(saved, change, words):
    save_file(load(saved.read_bytes()), saved, {"petseg": json.dumps(DESCRIPTION | change)})
    refused(saved, words)


def test_weights_without_a_description_are_refused(saved):
    save_file(load(saved.read_bytes()), saved)
    refused(saved, "holds weights without a description of their model: petseg did not write it")


def test_a_profile_cannot_make_objects(tmp_path):
    path = tmp_path / "evil.yaml"
    path.write_text("parameters: !!python/object/apply:os.mkdir [owned]\nruns: {}\n")
    with pytest.raises(ValueError, match="is not YAML"):
        load_profile(path)


@pytest.mark.skipif(sys.platform == "win32", reason="make is rare there")
def test_make_lab_keeps_jupyters_token_and_address():
    (line,) = [line for line in (REPOSITORY / "Makefile").read_text().splitlines() if "jupyter lab" in line]
    assert line.split() == [".venv/bin/jupyter", "lab", "notebooks"]  # by default: localhost alone, with a token


def test_every_fault_in_the_document_names_a_test_that_is_there():
    text = (REPOSITORY / "docs" / "reliability.md").read_text(encoding="utf-8")
    named = re.findall(r"`(test_\w+\.py)::(\w+)`", text)
    faults, _, _ = text.partition("## Twenty kills")
    rows = [line for line in faults.splitlines() if line.startswith("| ") and not line.startswith(("| what", "| fault"))]
    assert len(rows) > 20 and all("::test_" in row for row in rows)
    for file, test in named:
        assert f"def {test}(" in (REPOSITORY / "tests" / file).read_text(encoding="utf-8"), f"{file} has no {test}"
