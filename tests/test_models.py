"""The contract that every network passes, and the numbers that its name promises."""

import copy
import math
from unittest.mock import patch

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from petseg_lib.config import ParameterError
from petseg_lib.models import NETWORKS, build_model, convolutions, gflop, parameter_count, winograd
from petseg_lib.models.blocks import DoubleConv, UpBlock, pad_to_stride
from petseg_lib.models.folding import fold_batchnorm
from petseg_lib.models.shapes import stage_shapes

every_network = pytest.mark.parametrize(("name", "variant"), NETWORKS)


def small(name, variant="default", **parameters):
    torch.manual_seed(0)
    return build_model(name, variant=variant, **{"width": 4} | parameters)


def images(height=64, width=64, number=2):
    return torch.randn(number, 3, height, width, generator=torch.Generator().manual_seed(1))


# The numbers of the report


@pytest.mark.parametrize(
    ("name", "variant", "parameters", "operations"),
    [("unet", "default", 31_037_633, 385.3), ("resnet34_unet", "report", 48_194_369, 58.4)],
)
def test_size_and_cost_are_the_reports(name, variant, parameters, operations):
    with torch.device("meta"):
        model = build_model(name, variant=variant)
    assert parameter_count(model) == parameters
    assert gflop(model, 512) == pytest.approx(operations, abs=0.05)


def test_gflop_leaves_the_model_as_it_was():
    model = small("unet").train()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    first_conv = 2 * 3 * 4 * 9 * 64 * 64 / 1e9
    assert gflop(model, 64) > first_conv
    assert gflop(model, 128) == pytest.approx(4 * gflop(model, 64))
    assert model.training
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


def test_parameter_count_leaves_frozen_ones_out():
    model = small("unet")
    whole = parameter_count(model)
    model.head.requires_grad_(False)
    assert parameter_count(model) == whole - 5  # four weights and a bias


# The contract


@every_network
def test_forward_shape_and_finite_gradients(name, variant):
    model = small(name, variant).train()
    logits = model(images())
    assert logits.shape == (2, 1, 64, 64)
    assert logits.min() < 0 or logits.max() > 1  # no sigmoid inside
    (logits * torch.randn_like(logits)).sum().backward()
    for parameter_name, parameter in model.named_parameters():
        assert parameter.grad is not None, parameter_name
        assert parameter.grad.isfinite().all(), parameter_name
        assert parameter.grad.abs().sum() > 0, parameter_name


@every_network
@pytest.mark.parametrize(("height", "width"), [(32, 32), (33, 47), (97, 32), (65, 131)])
def test_any_size(name, variant, height, width):
    model = small(name, variant)
    for mode in (True, False):
        logits = model.train(mode)(images(height, width, number=1))
        assert logits.shape == (1, 1, height, width)
        assert logits.isfinite().all()


@every_network
@pytest.mark.parametrize("shape", [(1, 3, 31, 64), (1, 3, 64, 20), (1, 1, 64, 64), (3, 64, 64)])
def test_input_that_does_not_fit(name, variant, shape):
    with pytest.raises(ValueError, match=r"^the input.* must (have 32 px or more|be \(N, 3, H, W\))$"):
        small(name, variant)(torch.zeros(shape))


@every_network
def test_deepest_allowed_depths_run_small_images(name, variant):
    deepest = {("unet", "default"): 8}.get((name, variant))
    logits = small(name, variant, depth=deepest).train()(images(32, 32, number=1))
    assert logits.shape == (1, 1, 32, 32)


def test_padding_is_zeros_below_and_right():
    image = torch.ones(1, 3, 33, 40)
    padded = pad_to_stride(image, 16)
    assert padded.shape == (1, 3, 48, 48)
    assert torch.equal(padded[..., :33, :40], image)
    assert padded.sum() == image.sum()
    assert pad_to_stride(padded, 16) is padded
    assert pad_to_stride(image, 64).shape == (1, 3, 64, 128)  # two pixels in the bottleneck


@every_network
@torch.no_grad()
def test_logits_lie_over_the_pixels_that_they_are_of(name, variant):
    """What was padded at the right and below is cut off there again."""
    model, given = small(name, variant).eval(), images(100, 70)
    assert torch.equal(model(given), model(pad_to_stride(given, model.stride))[..., :100, :70])


@every_network
def test_train_and_eval(name, variant):
    model = small(name, variant, dropout=0.5)
    batch = images()
    model.train()
    assert not torch.equal(model(batch), model(batch))  # dropout
    model.eval()
    assert torch.equal(model(batch), model(batch))
    torch.testing.assert_close(model(batch)[:1], model(batch[:1]), rtol=1e-4, atol=1e-4)  # images do not mix


@every_network
def test_dropout_drops_whole_channels_of_the_bottleneck_alone(name, variant):
    model = small(name, variant, dropout=0.5).train()
    seen = []
    model.dropout.register_forward_hook(lambda _, inputs, output: seen.append((inputs[0], output)))
    model(images(128, 128))
    assert sum(isinstance(layer, nn.Dropout2d) for layer in model.modules()) == 1
    [(before, after)] = seen
    assert before.shape[-1] == 128 // model.stride
    kept = (after != 0).flatten(2).any(2)
    assert 0 < kept.float().mean() < 1
    torch.testing.assert_close(after, before * 2 * kept[..., None, None])


@every_network
def test_save_and_load(name, variant, tmp_path):
    model = small(name, variant).train()
    model(images())  # moves the BatchNorm statistics
    save_file(model.state_dict(), tmp_path / "model.safetensors")
    torch.manual_seed(99)
    other = build_model(name, variant=variant, width=4)
    other.load_state_dict(load_file(tmp_path / "model.safetensors"))
    assert torch.equal(other.eval()(images()), model.eval()(images()))


@every_network
@pytest.mark.parametrize("initialisation", ["kaiming", "default"])
def test_a_seed_decides_the_weights(name, variant, initialisation):
    first, second = (small(name, variant, initialisation=initialisation).state_dict() for _ in range(2))
    assert all(torch.equal(tensor, second[key]) for key, tensor in first.items())
    torch.manual_seed(1)
    other = build_model(name, variant=variant, width=4, initialisation=initialisation).state_dict()
    key = next(key for key in first if key.startswith("encoder."))
    assert not torch.equal(first[key], other[key])


@every_network
def test_kaiming_is_normal_with_fan_out(name, variant):
    model = small(name, variant, width=16)
    for layer_name, layer in model.named_modules():
        if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d) and layer.weight.numel() > 5_000:
            fan_out = layer.weight.shape[0] * layer.weight[0, 0].numel()
            assert layer.weight.std().item() == pytest.approx((2 / fan_out) ** 0.5, rel=0.06), layer_name
            assert layer.weight.abs().max() > 3 * layer.weight.std(), layer_name  # normal, not uniform


@every_network
def test_kaiming_starts_without_biases_but_that_of_the_logits(name, variant):
    convolutions = [each for each in small(name, variant).modules() if isinstance(each, nn.Conv2d | nn.ConvTranspose2d)]
    *others, last = [each.bias for each in convolutions if each.bias is not None]
    assert others and not torch.cat(others).any()
    assert last.shape == (1,) and last.any()


@every_network
def test_default_initialisation_is_pytorchs(name, variant):
    model = small(name, variant, width=16, initialisation="default")
    for layer in model.modules():
        if isinstance(layer, nn.Conv2d):
            bound = 1 / layer.weight[0].numel() ** 0.5  # PyTorch draws uniformly up to here
            assert layer.weight.abs().max() <= bound * (1 + 1e-6)


@pytest.mark.parametrize("initialisation", ["kaiming", "default"])
@every_network
def test_first_logits_are_moderate(name, variant, initialisation):
    logits = small(name, variant, width=16, initialisation=initialisation).train()(images())
    assert logits.abs().max() < 10


@pytest.mark.parametrize(("name", "depths"), [("unet", range(1, 6)), ("resnet34_unet", range(2, 6))])
def test_depth_is_the_number_of_halvings(name, depths):
    for depth in depths:
        model = small(name, depth=depth).eval()
        features = model.encoder(images(64, 64))
        assert features[-1].shape[-1] == 64 // 2**depth
        assert model(images(64, 64)).shape == (2, 1, 64, 64)
        assert model.stride == 2**depth


@pytest.mark.parametrize("stem_stride", [1, 2])
@pytest.mark.parametrize("depth", [2, 5])
def test_the_stride_of_a_resnet_is_what_one_pixel_of_its_bottleneck_sees(depth, stem_stride):
    model = small("resnet34_unet", depth=depth, stem_stride=stem_stride).eval()
    assert model.encoder(images(64, 64))[-1].shape[-1] * model.stride == 64


@every_network
def test_parts_are_named_after_the_field(name, variant):
    assert {key.split(".")[0] for key in small(name, variant).state_dict()} == {"encoder", "decoder", "head"}


@every_network
def test_the_shapes_of_stages_are_those_of_their_features(name, variant):
    model = small(name, variant).eval()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    found = stage_shapes(model, 128)
    features = model.encoder(images(128, 128))
    assert found.photograph == (3, 128) and found.logits == (1, 128)
    assert found.encoder == [(each.shape[1], each.shape[-1]) for each in features]
    ends = 2 if variant == "report" else 0  # transposed convolutions after the decoder's blocks, without skips
    assert len(found.decoder) == len(found.skips) == len(model.decoder.blocks) + ends
    assert found.decoder[-1][1] == 128 and found.skips[len(model.decoder.blocks) :] == [None] * ends
    for block, skip, (channels, side) in zip(model.decoder.blocks, found.skips, found.decoder, strict=not ends):
        joined = block.conv[0].in_channels - block.up.out_channels
        assert joined == (0 if skip is None else found.encoder[skip][0]) and channels == block.up.out_channels
        assert skip is None or found.encoder[skip][1] == side
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert not model.encoder._forward_hooks


def test_every_skip_reaches_the_logits():
    for name, variant in NETWORKS:
        model = small(name, variant).eval()
        features = [feature.detach().requires_grad_() for feature in model.encoder(images(128, 128))]
        model.head(model.decoder(features)).square().sum().backward()
        assert all(feature.grad.abs().sum() > 0 for feature in features)


@torch.no_grad()
@pytest.mark.parametrize("batch_norm", [True, False])
def test_a_block_convolves_twice_and_each_time_drops_what_is_below_zero(batch_norm):
    torch.manual_seed(0)
    block, x = DoubleConv(3, 4, batch_norm).eval(), torch.randn(2, 3, 8, 8)
    expected = x
    for convolution in (layer for layer in block if isinstance(layer, nn.Conv2d)):
        expected = F.conv2d(expected, convolution.weight, convolution.bias, padding=1).relu()
    torch.testing.assert_close(block(x), expected, rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_the_unet_halves_by_the_largest_of_four_pixels():
    model = small("unet", depth=1).eval()
    model.encoder.stages[1] = nn.Identity()
    fine, half = model.encoder(images(32, 32))
    assert torch.equal(half, fine.unflatten(3, (16, 2)).unflatten(2, (16, 2)).amax((3, 5)))


@torch.no_grad()
def test_the_reports_network_ends_in_two_doublings_with_a_relu_each():
    x, head = torch.randn(2, 4, 8, 8), small("resnet34_unet", "report").eval().head
    for doubling in head[:-1]:
        x = doubling(x)
        assert x.min() == 0 < x.max()
    assert x.shape == (2, 4, 32, 32)


def test_report_blocks_add_after_the_relu():
    block = small("resnet34_unet", "report").encoder.layer1[0].eval()
    x = torch.randn(1, 4, 8, 8)
    assert (block(x) - x >= 0).all()
    assert (block(x) < 0).any()
    plain = small("resnet34_unet").encoder.layer1[0].eval()
    assert (plain(x) >= 0).all()


# Settings


@pytest.mark.parametrize(
    ("parameters", "sentence"),
    [
        ({"name": "vnet"}, "model is 'vnet', but it must be unet or resnet34_unet"),
        ({"variant": "report"}, "variant is 'report', but it must be default for unet"),
        ({"name": "resnet34_unet", "variant": "big"}, "variant is 'big', but it must be default or report"),
        ({"depth": 0}, "depth is 0, but it must be 1 to 8 for unet"),
        ({"depth": 9}, "depth is 9, but it must be 1 to 8 for unet"),
        ({"name": "resnet34_unet", "depth": 1}, "depth is 1, but it must be 2 to 5"),
        ({"name": "resnet34_unet", "depth": 6}, "depth is 6, but it must be 2 to 5"),
        ({"name": "resnet34_unet", "variant": "report", "depth": 5}, "depth is 5, but it must be 6"),
        ({"width": 3}, "width is 3, but it must be 4 or more"),
        ({"dropout": 1.0}, "dropout is 1.0, but it must be 0 to below 1"),
        ({"dropout": float("nan")}, "dropout is nan"),
        ({"initialisation": "zeros"}, "initialisation is 'zeros', but it must be kaiming or default"),
        ({"encoder_weights": "imagenet"}, "encoder_weights is 'imagenet', but it must be empty except for resnet34"),
        ({"name": "resnet34_unet", "width": 32, "encoder_weights": "imagenet"}, "with width 64"),
        ({"name": "resnet34_unet", "variant": "report", "width": 64, "encoder_weights": "a.pth"}, "it must be empty"),
        ({"name": "resnet34_unet", "width": 64, "stem": "3x3", "encoder_weights": "a.pth"}, "with width 64 and stem 7x7"),
        ({"name": "resnet34_unet", "stem": "5x5"}, "stem is '5x5', but it must be 7x7, or 3x3 for resnet34_unet"),
    ],
)
def test_settings_that_are_not_allowed(parameters, sentence):
    settings = {"name": "unet", "width": 4} | parameters
    with pytest.raises(ValueError, match=sentence):
        build_model(settings.pop("name"), **settings)


@every_network
def test_folding_batchnorm_changes_no_logit(name, variant):
    model = small(name, variant).train()
    for _ in range(3):
        model(3 * images() + 1)  # statistics unlike those that BatchNorm starts with
    model.eval()
    folded = fold_batchnorm(model)
    of_bf16 = fold_batchnorm(model, torch.bfloat16)
    assert {each.dtype for each in folded.parameters()} == {torch.float32}
    assert {each.dtype for each in of_bf16.parameters()} == {torch.float32, torch.bfloat16}, "what no BatchNorm follows stays"
    assert not any(isinstance(layer, nn.BatchNorm2d) for layer in folded.modules())
    with torch.no_grad():
        expected = model(images())
        torch.testing.assert_close(folded(images()), expected, atol=1e-4 * expected.abs().max().item(), rtol=1e-4)
    assert any(isinstance(layer, nn.BatchNorm2d) for layer in model.modules())


class Own(nn.Module):
    """Layers that are registered in another order than they are used in, a convolution used twice, and one of one pixel."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8)
        self.last_norm, self.shared, self.last = nn.BatchNorm2d(8), nn.Conv2d(8, 8, 1), nn.Conv2d(8, 8, 1)
        self.pooled, self.pooled_norm = nn.Conv2d(8, 8, 1), nn.BatchNorm2d(8)
        self.in_place = nn.Sequential(nn.Conv2d(8, 8, 1), nn.ReLU(inplace=True), nn.BatchNorm2d(8))
        self.of_each_image = nn.Sequential(nn.Conv2d(8, 8, 1), nn.BatchNorm2d(8, track_running_stats=False))
        self.shared_norm = nn.BatchNorm2d(8)

    def forward(self, images):
        x = self.norm(torch.relu(self.conv(images)))
        x = self.of_each_image(self.in_place(self.shared_norm(self.shared(self.shared(x)))))
        pooled = self.pooled_norm(self.pooled(x.mean((2, 3), keepdim=True)))
        return self.last_norm(self.last(x)) + pooled


@torch.no_grad()
def test_a_network_of_ones_own_is_folded_where_a_batchnorm_follows_and_nowhere_else():
    model = Own()
    for norm in (layer for layer in model.modules() if isinstance(layer, nn.BatchNorm2d) and layer.running_mean is not None):
        norm.running_mean.normal_()
        norm.running_var.uniform_(0.5, 2)
        norm.weight.uniform_(0.5, 2)
    folded = fold_batchnorm(model)
    torch.testing.assert_close(folded(images()), model.eval()(images()), rtol=1e-4, atol=1e-4)
    left = {name for name, layer in folded.named_modules() if isinstance(layer, nn.BatchNorm2d)}
    assert left == {"norm", "shared_norm", "in_place.2", "of_each_image.1"}


@pytest.mark.parametrize("training", [True, False])
def test_a_dry_pass_leaves_a_network_as_it_was(training):
    model = Own().train(training)
    model.norm.eval()  # as where a part of it is frozen
    before = {
        name: (each.training, [tensor.clone() for tensor in each.state_dict().values()]) for name, each in model.named_modules()
    }
    assert gflop(model, 64) > 0
    for name, module in model.named_modules():
        mode, tensors = before[name]
        assert module.training is mode
        assert all(map(torch.equal, module.state_dict().values(), tensors)) and not module._forward_hooks


@torch.no_grad()
def test_a_folded_copy_of_a_network_in_training_is_ready_to_predict():
    model = small("unet", dropout=0.5).train()
    folded = fold_batchnorm(model)
    assert torch.equal(folded(images()), folded(images())), "nothing is dropped"
    assert model.training


AVX2, AVX512 = {"avx2": True}, {"avx2": True, "avx512_f": True, "avx512_bf16": True}
AMX = AVX512 | {"amx_bf16": True}
by_products = pytest.mark.parametrize(("dtype", "capabilities"), [(torch.bfloat16, AVX512), (torch.float32, AVX2)])


def passes_of(layer, x, dtype, upstream):
    """What a layer gives, and its gradients, of x in a precision."""
    given = x.to(dtype, memory_format=torch.channels_last).detach().requires_grad_()
    with torch.autocast("cpu", torch.bfloat16, enabled=dtype == torch.bfloat16):
        y = layer(given)
    layer.zero_grad()
    y.backward(upstream.to(y.dtype))
    return [y.detach(), given.grad, *(each.grad.clone() for each in layer.parameters())]


def assert_rounded_alike(results, exact, most):
    for rounded, expected in zip(results, exact, strict=True):
        assert rounded.shape == expected.shape
        assert rounded.ndim != 4 or rounded.is_contiguous(memory_format=torch.channels_last)
        assert (rounded.float() - expected).norm() < most * expected.norm()


def oneDNN_convolves(layer, x):
    with FlopCounterMode(display=False) as counter:
        layer(x)
    return "aten.convolution" in {str(each) for each in counter.get_flop_counts()["Global"]}


@by_products
@pytest.mark.parametrize(("height", "width", "stride"), [(4, 4, 1), (4, 4, 2), (5, 3, 2), (1, 6, 1)])
def test_a_convolution_of_few_pixels_is_the_same_as_a_matrix_product(monkeypatch, dtype, capabilities, height, width, stride):
    torch.manual_seed(0)
    monkeypatch.setattr(convolutions, "_capabilities", lambda: capabilities)
    convolution = convolutions.Conv3x3(24, 40, stride).to(memory_format=torch.channels_last)
    exact = nn.Conv2d(24, 40, 3, stride, padding=1).to(memory_format=torch.channels_last)
    exact.load_state_dict({name: each.to(dtype).float() for name, each in convolution.state_dict().items()})
    x = torch.randn(2, 24, height, width).to(dtype).float()
    upstream = torch.randn(2, 40, -(-height // stride), -(-width // stride)).to(dtype).float()
    for many in (0, math.inf):
        monkeypatch.setattr(convolutions, "MANY_WEIGHTS", many)
        with torch.autocast("cpu", torch.bfloat16, enabled=dtype == torch.bfloat16):
            assert oneDNN_convolves(convolution, x.to(dtype)) == (many > 0)
    monkeypatch.setattr(convolutions, "MANY_WEIGHTS", 0)
    results = passes_of(convolution, x, dtype, upstream)
    # to bf16 once, after its sum
    assert_rounded_alike(results, passes_of(exact, x, torch.float32, upstream), 0.003 if dtype == torch.bfloat16 else 3e-6)


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize(("height", "width", "stride"), [(8, 8, 1), (16, 16, 2), (15, 9, 2), (5, 7, 1)])
def test_with_amx_the_weights_gradient_of_few_pixels_is_a_matrix_product(monkeypatch, bias, height, width, stride):
    torch.manual_seed(0)
    monkeypatch.setattr(convolutions, "_capabilities", lambda: AMX)
    convolution = convolutions.Conv3x3(128, 256, stride, bias).to(memory_format=torch.channels_last)
    exact = nn.Conv2d(128, 256, 3, stride, 1, bias=bias).to(memory_format=torch.channels_last)
    exact.load_state_dict({name: each.to(torch.bfloat16).float() for name, each in convolution.state_dict().items()})
    x = torch.randn(2, 128, height, width).to(torch.bfloat16).float()
    upstream = torch.randn(2, 256, -(-height // stride), -(-width // stride)).to(torch.bfloat16).float()
    with FlopCounterMode(display=False) as counter:
        results = passes_of(convolution, x, torch.bfloat16, upstream)
    work = {str(name): flop for name, flop in counter.get_flop_counts()["Global"].items()}
    assert work["aten.convolution_backward"] == work["aten.convolution"] == work["aten.mm"], "oneDNN has one gradient to compute"
    # to bf16 once, after its sum; the bias' result twice
    assert_rounded_alike(results, passes_of(exact, x, torch.float32, upstream), 0.004)
    convolution.requires_grad_(False).zero_grad()
    with torch.autocast("cpu", torch.bfloat16):
        given = x.to(torch.bfloat16).requires_grad_()
        convolution(given).sum().backward()
    assert given.grad is not None and convolution.weight.grad is None, "what is frozen has no gradient"


@pytest.mark.parametrize(
    ("capabilities", "dtype", "channels", "side", "trained"),
    [
        (AMX, torch.bfloat16, 255, 8, True),
        (AMX, torch.bfloat16, 256, 9, True),
        (AMX, torch.float32, 256, 8, True),
        (AMX, torch.bfloat16, 256, 8, False),
        (AVX512, torch.bfloat16, 256, 8, True),
        ({}, torch.bfloat16, 256, 8, True),
    ],
)
def test_other_weights_gradients_are_oneDNNs(monkeypatch, capabilities, dtype, channels, side, trained):
    monkeypatch.setattr(convolutions, "_capabilities", lambda: capabilities)
    monkeypatch.setattr(convolutions._WeightsByProduct, "apply", None)  # which would fail
    convolution = convolutions.Conv3x3(128, channels)
    with torch.autocast("cpu", torch.bfloat16, enabled=dtype == torch.bfloat16), torch.set_grad_enabled(trained):
        assert oneDNN_convolves(convolution, torch.zeros(1, 128, side, side, dtype=dtype))


@pytest.mark.parametrize("channels", [3, 15, 16])
@pytest.mark.parametrize(("height", "width", "stride"), [(8, 6, 2), (5, 7, 2), (4, 4, 1)])
def test_a_strided_convolution_of_single_pixels_asks_oneDNN_for_no_stride_where_it_is_wrong(channels, height, width, stride):
    torch.manual_seed(0)
    ours = convolutions.Conv1x1(channels, 10, stride).double()  # computed by another way than oneDNN's
    plain = copy.deepcopy(ours)
    plain.__class__ = nn.Conv2d
    x = torch.randn(2, channels, height, width, dtype=torch.float64, requires_grad=True)
    with patch.object(F, "conv2d", wraps=F.conv2d) as called:
        results = ours(x)
    (call,) = called.call_args_list
    assert (call.args[0].shape[-2:] == results.shape[-2:]) == (channels < 16 or stride == 1)
    expected = plain(x)
    torch.testing.assert_close(results, expected)
    upstream = torch.randn_like(expected)
    for ours_grad, plain_grad in zip(
        torch.autograd.grad(results, [x, *ours.parameters()], upstream),
        torch.autograd.grad(expected, [x, *plain.parameters()], upstream),
        strict=True,
    ):
        torch.testing.assert_close(ours_grad, plain_grad)


@pytest.mark.parametrize(("side", "height", "width"), [(2, 6, 4), (2, 2, 2), (2, 2, 8), (4, 8, 4), (4, 4, 4), (4, 4, 12)])
def test_winograds_way_is_a_convolution_and_so_are_its_gradients(side, height, width):
    torch.manual_seed(0)
    x = torch.randn(2, height, width, 3, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(5, 3, 3, 3, dtype=torch.float64, requires_grad=True)
    expected = F.conv2d(x.permute(0, 3, 1, 2), weight, padding=1).permute(0, 2, 3, 1)
    torch.testing.assert_close(winograd.Winograd.apply(x, weight, side), expected)
    assert torch.autograd.gradcheck(lambda *given: winograd.Winograd.apply(*given, side), (x, weight))


@pytest.mark.parametrize(("side", "most"), [(2, 0.006), (4, 0.015)])
def test_winograds_way_rounds_as_little_as_its_points_allow(monkeypatch, side, most):
    torch.manual_seed(0)
    x = torch.randn(5, 36, 32, 96).relu().to(torch.bfloat16)
    weight, bias = torch.randn(40, 96, 3, 3) / 30, torch.randn(40).to(torch.bfloat16)
    expected = F.conv2d(x.float().permute(0, 3, 1, 2), weight, bias.float(), padding=1).permute(0, 2, 3, 1)
    filters = winograd.filters_at_points(weight, side, torch.bfloat16)
    result = winograd.convolve(x, filters, side, bias)
    assert (result - expected).std() < most * expected.std()
    one_by_one = [winograd.convolve(each, filters, side, bias) for each in x.split(1)]
    assert torch.equal(torch.cat(one_by_one), result), "an image is rounded alone as among others"
    assert torch.equal(winograd.Winograd.apply(x, weight, side) + bias, result), "and in training as without gradients"
    for tiles in (1, 24, 10**6):  # a row of tiles, several, all images at a time
        monkeypatch.setattr(winograd, "TILES_A_PRODUCT", tiles)
        assert torch.equal(winograd.convolve(x, filters, side, bias), result)
    assert winograd.convolve(x[:0], filters, side, bias).shape == (0, 36, 32, 40)


@by_products
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize(("fewer", "height", "width", "side"), [(False, 16, 20, 4), (True, 8, 10, 2), (True, 16, 18, 2)])
def test_a_convolution_of_many_channels_takes_winograds_way(monkeypatch, dtype, capabilities, bias, fewer, height, width, side):
    torch.manual_seed(0)
    monkeypatch.setattr(convolutions, "_capabilities", lambda: capabilities)
    channels = (64 if dtype == torch.float32 else 128) * (1 + fewer)
    convolution = convolutions.Conv3x3(channels, channels + 8, bias=bias).to(memory_format=torch.channels_last)
    x = torch.randn(2, channels, height, width)
    upstream = torch.randn(2, channels + 8, height, width)
    with patch.object(convolutions.Winograd, "apply", wraps=convolutions.Winograd.apply) as called:
        results = passes_of(convolution, x, dtype, upstream)
    assert [call.args[-1] for call in called.call_args_list] == [side]
    with torch.autocast("cpu", torch.bfloat16, enabled=dtype == torch.bfloat16):
        assert not oneDNN_convolves(convolution, x.to(dtype))
        assert convolution(x[:0].to(dtype)).shape == (0, channels + 8, height, width)
        with torch.no_grad():
            measured = convolution(x.to(dtype, memory_format=torch.channels_last))
    monkeypatch.setattr(convolutions, "_capabilities", dict)
    assert oneDNN_convolves(convolution, x)
    exact = passes_of(convolution, x, torch.float32, upstream)
    assert_rounded_alike([*results, measured], [*exact, exact[0]], 0.02 if dtype == torch.bfloat16 else 1e-5)


@by_products
@pytest.mark.parametrize("bias", [False, True])
def test_filters_are_transformed_once_where_they_no_longer_change(monkeypatch, dtype, capabilities, bias):
    torch.manual_seed(0)
    monkeypatch.setattr(convolutions, "_capabilities", lambda: capabilities)
    convolution = convolutions.Conv3x3(256, 256, bias=bias).to(dtype, memory_format=torch.channels_last)
    small, large = (torch.randn(2, 256, side, side).to(dtype) for side in (10, 16))
    with torch.no_grad():
        expected = [convolution(x) for x in (small, large)]
        convolution.keep_filters()
        with patch.object(convolutions, "filters_at_points", wraps=winograd.filters_at_points) as called:
            results = [convolution(x) for x in (small, large, large, small)]
    assert [call.args[1] for call in called.call_args_list] == [2, 4]
    for result, other in zip(results, expected + expected[::-1], strict=True):
        assert torch.equal(result, other)


@by_products
@pytest.mark.parametrize(
    ("inputs", "outputs", "height", "width", "stride", "pays"),
    [
        (0.9, 1, 32, 32, 1, True),
        (1, 0.9, 32, 32, 1, True),
        (1, 1, 12, 16, 1, True),
        (1, 1, 32, 34, 1, True),
        (2, 1.9, 8, 8, 1, True),
        (2, 2, 9, 8, 1, True),
        (2, 2, 8, 9, 1, True),
        (2, 2, 6, 8, 1, True),
        (2, 2, 16, 16, 2, True),
        (2, 2, 16, 16, 1, False),
    ],
)
def test_other_convolutions_are_oneDNNs(monkeypatch, dtype, capabilities, inputs, outputs, height, width, stride, pays):
    """Channels are in units of the fewest that pay."""
    monkeypatch.setattr(convolutions, "_capabilities", lambda: capabilities)
    if not pays:
        monkeypatch.setattr(convolutions, "_winograd_pays", lambda dtype: False)
    fewest = {torch.bfloat16: 128, torch.float32: 64}[dtype]
    convolution = convolutions.Conv3x3(int(inputs * fewest), int(outputs * fewest), stride, bias=False)
    x = torch.zeros(1, int(inputs * fewest), height, width, dtype=dtype)
    with torch.autocast("cpu", torch.bfloat16, enabled=dtype == torch.bfloat16):
        assert oneDNN_convolves(convolution, x)


@by_products
def test_what_inductor_compiles_is_left_to_it(monkeypatch, dtype, capabilities):
    monkeypatch.setattr(convolutions, "_capabilities", lambda: capabilities)
    convolution, x = convolutions.Conv3x3(128, 128).to(dtype), torch.zeros(1, 128, 16, 16, dtype=dtype)
    assert not oneDNN_convolves(convolution, x)
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: True)
    assert oneDNN_convolves(convolution, x)


@pytest.mark.parametrize(
    ("capabilities", "in_bf16", "in_float32"),
    [(AVX512, True, False), (AMX, False, False), (AVX2, False, True), ({}, False, False)],
)
def test_winograds_way_is_for_processors_that_multiply_in_vectors(monkeypatch, capabilities, in_bf16, in_float32):
    monkeypatch.setattr(convolutions, "_capabilities", lambda: capabilities)
    assert convolutions._winograd_pays(torch.bfloat16) is in_bf16
    assert convolutions._winograd_pays(torch.float32) is in_float32


@pytest.mark.parametrize(("capabilities", "cast"), [(AVX2, False), (AVX2, True), (AVX512, False), ({}, False)])
def test_float32_is_oneDNNs_but_with_avx2_and_no_more(monkeypatch, capabilities, cast):
    monkeypatch.setattr(convolutions, "_capabilities", lambda: capabilities)
    monkeypatch.setattr(convolutions, "MANY_WEIGHTS", 0)
    layers = {convolutions.Conv3x3(64, 64): 16, convolutions.Conv3x3(8, 8): 4, convolutions.UpConv2x2(8, 8): 8}
    for layer, side in layers.items():
        for dtype in (torch.float32, torch.float64):
            x = torch.zeros(1, layer.in_channels, side, side, dtype=dtype)
            with torch.autocast("cpu", torch.float16, enabled=cast):
                ours = dtype == torch.float32 and capabilities == AVX2 and not cast
                assert oneDNN_convolves(layer.to(dtype), x) != ours


@pytest.mark.parametrize(("dtype", "capabilities"), [(torch.bfloat16, AVX512), (torch.float32, AVX512), (torch.float32, AVX2)])
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize(("height", "width"), [(4, 4), (5, 7)])
def test_doubling_is_a_transposed_convolution_and_so_are_its_gradients(monkeypatch, dtype, capabilities, bias, height, width):
    torch.manual_seed(0)
    monkeypatch.setattr(convolutions, "_capabilities", lambda: capabilities)
    ours = convolutions.UpConv2x2(6, 10, bias=bias).to(memory_format=torch.channels_last)
    x = torch.randn(3, 6, height, width)
    upstream = torch.randn(3, 10, 2 * height, 2 * width)
    plain = copy.deepcopy(ours)
    plain.__class__ = nn.ConvTranspose2d
    few, product = height * width <= 16, dtype == torch.bfloat16 or capabilities == AVX2
    with torch.autocast("cpu", torch.bfloat16, enabled=dtype == torch.bfloat16):
        assert oneDNN_convolves(ours, x.to(dtype)) == (not product or not (bias or few))
        with torch.no_grad():
            assert oneDNN_convolves(ours, x.to(dtype)) == (not product or not few)
            measured = ours(x.to(dtype, memory_format=torch.channels_last))
        assert ours(x[:0].to(dtype)).shape == (0, 10, 2 * height, 2 * width)
    results, exact = passes_of(ours, x, dtype, upstream), passes_of(plain, x, torch.float32, upstream)
    assert all(each.dtype in (dtype, torch.float32) for each in results)
    assert_rounded_alike([*results, measured], [*exact, exact[0]], 1e-6 if dtype == torch.float32 else 5e-3)


def test_the_bias_of_a_doubling_is_left_out_of_oneDNNs_in_training(monkeypatch):
    monkeypatch.setattr(convolutions, "_capabilities", lambda: AVX512)
    up = convolutions.UpConv2x2(4, 4)
    for trained in (True, False):
        with torch.set_grad_enabled(trained), patch.object(F, "conv_transpose2d", wraps=F.conv_transpose2d) as called:
            up(torch.zeros(1, 4, 8, 8))
        with_bias = len(called.call_args.args) > 2
        assert with_bias != trained
        with torch.set_grad_enabled(trained), torch.autocast("cpu", torch.bfloat16):
            assert up(torch.zeros(1, 4, 8, 8)).dtype == torch.bfloat16


def test_a_stem_of_full_resolution_has_the_same_encoder_and_finer_features():
    usual, fine = (small("resnet34_unet", stem_stride=stride).eval() for stride in (2, 1))
    shapes = [{name: tensor.shape for name, tensor in model.encoder.state_dict().items()} for model in (usual, fine)]
    assert shapes[0] == shapes[1]
    for finer, coarser in zip(fine.encoder(images()), usual.encoder(images()), strict=True):
        assert finer.shape[-1] == 2 * coarser.shape[-1]
    with torch.no_grad():
        assert fine(images(33, 70)).shape == (2, 1, 33, 70)
    assert 3 < gflop(fine, 64) / gflop(usual, 64) < 5


@pytest.mark.parametrize("stride", [1, 2])
def test_a_stem_of_two_convolutions_is_the_unets_and_leaves_the_rest(stride):
    usual, other = (small("resnet34_unet", stem=stem, stem_stride=stride) for stem in ("7x7", "3x3"))
    shapes = [{name: tensor.shape for name, tensor in model.state_dict().items()} for model in (usual, other)]
    only = [shapes[0].keys() - shapes[1].keys(), shapes[1].keys() - shapes[0].keys()]
    assert only[0] and all(name.startswith(("encoder.conv1.", "encoder.bn1.")) for name in only[0])
    assert all(name.startswith("encoder.double_conv.") for name in only[1])
    unet_block = {name: tensor.shape for name, tensor in small("unet").encoder.stages[0].state_dict().items()}
    assert {name.removeprefix("encoder.double_conv."): shapes[1][name] for name in only[1]} == unet_block
    sides = [[each.shape[-1] for each in model.encoder(images())] for model in (usual, other)]
    assert sides[0] == sides[1]
    with torch.no_grad():
        assert other.eval()(images(33, 70)).shape == (2, 1, 33, 70)
        torch.testing.assert_close(fold_batchnorm(other)(images()), other(images()), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("name", "variant"), [("unet", "default"), ("resnet34_unet", "report")])
@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"stem_stride": 1}, "stem_stride is 1, but it must be 2, or 1"),
        ({"stem": "3x3"}, "stem is '3x3', but it must be 7x7, or 3x3"),
    ],
)
def test_other_networks_have_no_such_stem(name, variant, setting, message):
    with pytest.raises(ValueError, match=f"{message} for resnet34_unet"):
        build_model(name, variant=variant, width=4, **setting)


def test_a_unet_without_batchnorm_has_biases_instead_and_folds_to_itself():
    plain = build_model("unet", width=4, batch_norm=False)
    assert not any(isinstance(layer, nn.BatchNorm2d) for layer in plain.modules())
    assert all(layer.bias is not None for layer in plain.modules() if isinstance(layer, nn.Conv2d))
    plain.eval()
    with torch.no_grad():
        torch.testing.assert_close(fold_batchnorm(plain)(images()), plain(images()), rtol=0, atol=0)


def test_a_resnet_without_batchnorm_is_refused():
    with pytest.raises(ParameterError, match="batch_norm is False, but it must be true for resnet34_unet"):
        build_model("resnet34_unet", width=4, batch_norm=False)


@torch.no_grad()
def test_a_decoder_block_has_the_skips_channels_first():
    """Saved weights lie in that order."""
    block, below, skip = UpBlock(2, 3, 4).eval(), torch.randn(1, 2, 4, 4), torch.randn(1, 3, 8, 8)
    first = next(layer for layer in block.conv.modules() if isinstance(layer, torch.nn.Conv2d))
    first.weight[:, 3:] = 0
    assert torch.equal(block(below, skip), block(below + 1, skip))
    assert not torch.equal(block(below, skip), block(below, skip + 1))
