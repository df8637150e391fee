"""The ResNet34 encoder takes torchvision's weights, gives its features, and says clearly when it cannot."""

import copy
import hashlib
import io
import pickle

import pytest
import torch
from safetensors.torch import save_file
from torch import nn
from torchvision.models import ResNet34_Weights, resnet34

from petseg_lib.checkpoints import describe_model
from petseg_lib.config import ResNet34UNetParameters
from petseg_lib.models import build_model


def images():
    return torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(1))


@pytest.fixture(scope="module")
def reference():
    """torchvision's resnet34 with random weights and BatchNorm statistics that are not the trivial ones."""
    torch.manual_seed(2)
    network = resnet34(weights=None).eval()
    for layer in network.modules():
        if isinstance(layer, nn.BatchNorm2d):
            nn.init.uniform_(layer.weight, 0.5, 1.5)
            nn.init.normal_(layer.bias, std=0.2)
            nn.init.normal_(layer.running_mean, std=0.2)
            nn.init.uniform_(layer.running_var, 0.5, 1.5)
    return network


@pytest.fixture(scope="module")
def weights_file(reference, tmp_path_factory):
    path = tmp_path_factory.mktemp("weights") / "resnet34.pth"
    torch.save(reference.state_dict(), path)
    return path


def torchvision_features(network, batch):
    stem = network.relu(network.bn1(network.conv1(batch)))
    features = [stem]
    x = network.maxpool(stem)
    for layer in (network.layer1, network.layer2, network.layer3, network.layer4):
        x = layer(x)
        features.append(x)
    return features


@pytest.mark.parametrize("kind", ["pth", "safetensors"])
@pytest.mark.parametrize("initialisation", ["kaiming", "default"])
def test_features_are_torchvisions(reference, weights_file, tmp_path, kind, initialisation):
    if kind == "safetensors":
        weights_file = tmp_path / "resnet34.safetensors"
        save_file(reference.state_dict(), weights_file)
    model = build_model("resnet34_unet", encoder_weights=str(weights_file), initialisation=initialisation).eval()
    exact = images().double()  # in float32 a processor may compute ours in another way than torchvision's
    with torch.inference_mode():
        ours, theirs = model.double().encoder(exact), torchvision_features(copy.deepcopy(reference).double(), exact)
    assert [feature.shape[1] for feature in ours] == [64, 64, 128, 256, 512]
    for mine, other in zip(ours, theirs, strict=True):
        assert other.abs().max() > 0.1
        torch.testing.assert_close(mine, other)


def test_encoder_state_dict_is_torchvisions(reference):
    with torch.device("meta"):
        ours = build_model("resnet34_unet").encoder.state_dict()
    theirs = {name: tensor for name, tensor in reference.state_dict().items() if not name.startswith("fc.")}
    assert list(ours) == list(theirs)
    assert [tensor.shape for tensor in ours.values()] == [tensor.shape for tensor in theirs.values()]


def test_shallow_encoder_takes_what_it_has(reference, weights_file):
    model = build_model("resnet34_unet", depth=3, encoder_weights=str(weights_file))
    assert torch.equal(model.encoder.layer2[0].conv1.weight, reference.layer2[0].conv1.weight)
    assert not hasattr(model.encoder, "layer3")


def test_weights_from_before_batch_counts(reference, tmp_path):
    old = {name: tensor for name, tensor in reference.state_dict().items() if "num_batches" not in name}
    save_file(old, tmp_path / "old.safetensors")
    model = build_model("resnet34_unet", encoder_weights=str(tmp_path / "old.safetensors"))
    assert torch.equal(model.encoder.bn1.running_mean, reference.bn1.running_mean)


def test_weights_relative_to_the_workspace(weights_file, reference, tmp_path, monkeypatch):
    monkeypatch.setenv("PETSEG_WORKSPACE", str(weights_file.parent))
    monkeypatch.chdir(tmp_path)
    model = build_model("resnet34_unet", encoder_weights=weights_file.name)
    assert torch.equal(model.encoder.conv1.weight, reference.conv1.weight)


def test_weights_below_ones_home_folder(weights_file, reference, monkeypatch):
    monkeypatch.setenv("HOME", str(weights_file.parent))
    monkeypatch.setenv("USERPROFILE", str(weights_file.parent))
    model = build_model("resnet34_unet", encoder_weights=f"~/{weights_file.name}")
    assert torch.equal(model.encoder.conv1.weight, reference.conv1.weight)


def test_weights_beside_the_caller_come_before_those_of_the_workspace(temporary_workspace, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "weights.pth").write_bytes(bytes_of([1, 2]))
    (temporary_workspace / "weights.pth").write_bytes(b"")
    with pytest.raises(ValueError, match="holds a list"):
        build_model("resnet34_unet", encoder_weights="weights.pth")


def serve_as_imagenet(monkeypatch, home, url):
    monkeypatch.setenv("TORCH_HOME", str(home))
    monkeypatch.setattr(ResNet34_Weights.IMAGENET1K_V1.value, "url", url)


def test_imagenet_goes_through_torchvision(weights_file, reference, tmp_path, monkeypatch):
    content = weights_file.read_bytes()
    served = tmp_path / f"resnet34-{hashlib.sha256(content).hexdigest()[:8]}.pth"
    served.write_bytes(content)
    serve_as_imagenet(monkeypatch, tmp_path / "home", served.as_uri())
    model = build_model("resnet34_unet", encoder_weights="imagenet")
    assert torch.equal(model.encoder.layer4[2].conv2.weight, reference.layer4[2].conv2.weight)
    served.unlink()  # the second time it comes from torch's cache folder
    again = build_model("resnet34_unet", encoder_weights="imagenet")
    assert torch.equal(again.encoder.conv1.weight, reference.conv1.weight)


def test_imagenet_that_cannot_be_fetched(tmp_path, monkeypatch):
    damaged = tmp_path / "resnet34-00000000.pth"
    damaged.write_bytes(b"half a file")
    for url, why in [((tmp_path / "nowhere.pth").as_uri(), "nowhere"), (damaged.as_uri(), "hash")]:
        serve_as_imagenet(monkeypatch, tmp_path / "home", url)
        with pytest.raises(ValueError, match=rf"could not be fetched from .*{why}.* give the path of a file"):
            build_model("resnet34_unet", encoder_weights="imagenet")


def bytes_of(thing):
    buffer = io.BytesIO()
    torch.save(thing, buffer)
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("name", "content", "sentence"),
    [
        ("missing.pth", None, "no such file"),
        ("missing.safetensors", None, "no such file"),
        ("weights.ckpt", b"", r"must be 'imagenet' or a \.safetensors, \.pth or \.pt file"),
        ("empty.pth", b"", "cannot be read as a state dict"),
        ("damaged.pth", b"PK\x03\x04 half", "cannot be read as a state dict"),
        ("text.pth", b"<html>not found</html>", "cannot be read as a state dict"),
        ("damaged.safetensors", b"1234567890", "cannot be read as a state dict"),
        ("code.pth", pickle.dumps(print, protocol=2), "cannot be read as a state dict"),
        ("list.pth", bytes_of([1, 2]), "holds a list"),
        ("nested.pth", bytes_of({"state_dict": {}}), "conv1.weight is missing"),
        ("shape.pth", bytes_of({"conv1.weight": torch.zeros(64, 1, 7, 7)}), r"conv1.weight is \(64, 1, 7, 7\) where"),
    ],
)
def test_unusable_encoder_weights(tmp_path, name, content, sentence):
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=sentence) as caught:
        build_model("resnet34_unet", encoder_weights=str(tmp_path / name))
    assert "\n" not in str(caught.value)


def test_a_trained_network_needs_no_more_the_weights_that_it_began_with():
    parameters = ResNet34UNetParameters.checked({"encoder_weights": "gone.pth", "width": 64})
    description = describe_model(parameters, (0.5,) * 3, (0.25,) * 3)
    with torch.device("meta"):
        assert build_model(description["model"], **description["settings"]).encoder
