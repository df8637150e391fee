"""Networks that take photographs (N, 3, H, W) and return logits (N, 1, H, W)."""

from typing import Any

from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from petseg_lib.config import ParameterError
from petseg_lib.models.blocks import SegmentationNetwork, initialise_kaiming
from petseg_lib.models.resnet34_unet import ReportResNet34UNet, ResNet34UNet, load_encoder_weights
from petseg_lib.models.shapes import dry_pass
from petseg_lib.models.unet import UNet
from petseg_lib.network_rules import DEPTHS, check_network

NETWORKS = {
    ("unet", "default"): UNet,
    ("resnet34_unet", "default"): ResNet34UNet,
    ("resnet34_unet", "report"): ReportResNet34UNet,
}
INITIALISATIONS = ("kaiming", "default")


def build_model(
    name: str,
    *,
    width: int = 64,
    depth: int | None = None,
    dropout: float = 0.1,
    initialisation: str = "kaiming",
    variant: str = "default",
    encoder_weights: str = "",
    stem: str = "7x7",
    stem_stride: int = 2,
    batch_norm: bool = True,
) -> SegmentationNetwork:
    """A network with fresh weights, which torch's global seed decides.

    Args:
        name: `unet` or `resnet34_unet`.
        width: channels of the first stage, 4 or more.
        depth: halvings of the resolution (one less with stem_stride 1): unet 1 to 8 (4 if None), resnet34_unet 2 to 5 (5), its
            `report` variant 6.
        dropout: share of the bottleneck's channels dropped while training, 0 to below 1.
        initialisation: `kaiming` (normal, fan_out, as in the report; the last 1x1 convolution keeps PyTorch's) or
            `default` (PyTorch's).
        variant: of resnet34_unet: `default` (true ResNet34 blocks, a skip from the stem) or `report`.
        encoder_weights: for resnet34_unet of width 64 and stem 7x7: `imagenet`, or a file with torchvision's resnet34 state dict.
        stem: of resnet34_unet (default): `7x7`, ResNet's, or `3x3`, the two convolutions that the UNet begins with.
        stem_stride: of resnet34_unet (default): 2, or 1 for features twice as fine at 3.5 times the arithmetic; any weights fit.
        batch_norm: of unet: BatchNorm after each convolution of three by three; the ResNet always has it.

    Returns:
        A module from (N, 3, H, W) to logits (N, 1, H, W), H and W 32 px or more.

    Raises:
        ParameterError: (a ValueError) an unknown name, or a value that is not allowed.
    """
    network = _network(name, variant)
    smallest, largest, usual = DEPTHS[name, variant]
    depth = usual if depth is None else depth
    try:
        check_network(name, variant, depth, width, encoder_weights, stem, stem_stride)
    except ValueError as error:
        raise ParameterError(str(error)) from None
    _check("width", width, width >= 4, "4 or more")
    _check("dropout", dropout, 0 <= dropout < 1, "0 to below 1")
    _check("initialisation", initialisation, initialisation in INITIALISATIONS, " or ".join(INITIALISATIONS))
    own: dict[str, Any] = {} if smallest == largest else {"depth": depth}
    own |= {"stem": stem, "stem_stride": stem_stride} if network is ResNet34UNet else {}
    _check("batch_norm", batch_norm, batch_norm or network is UNet, f"true for {name}")
    own |= {"batch_norm": batch_norm} if network is UNet else {}
    model = network(width=width, dropout=dropout, **own)
    if initialisation == "kaiming":
        initialise_kaiming(model)
    if encoder_weights:
        load_encoder_weights(model.encoder, encoder_weights)
    return model


def _network(name: str, variant: str) -> type[SegmentationNetwork]:
    names = list(dict.fromkeys(known for known, _ in NETWORKS))
    _check("model", name, name in names, " or ".join(names))
    variants = [known for owner, known in NETWORKS if owner == name]
    _check("variant", variant, variant in variants, " or ".join(variants) + f" for {name}")
    return NETWORKS[name, variant]


def _check(name: str, value: Any, allowed: bool, what: str) -> None:
    if not allowed:
        raise ParameterError(f"parameter {name} is {value!r}, but it must be {what}")


def parameter_count(model: nn.Module) -> int:
    """Trainable numbers in the model."""
    return sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)


def gflop(model: nn.Module, image_size: int) -> float:
    """Billions of operations, two per multiply-add, of one image's way forward; convolutions alone are counted. Nothing is computed.

    Args:
        image_size: side of the square input, px.
    """
    with FlopCounterMode(display=False) as counter:
        dry_pass(model, image_size)
    return counter.get_total_flops() / 1e9
