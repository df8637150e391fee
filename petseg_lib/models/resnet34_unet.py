"""A ResNet34 (He et al. 2016) as encoder under the UNet's decoder; torchvision's weights fit into it."""

from collections.abc import Sequence
from http.client import HTTPException

import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional as F

from petseg_lib.config import ParameterError
from petseg_lib.disk import from_here
from petseg_lib.models.blocks import DoubleConv, SegmentationNetwork, UNetDecoder
from petseg_lib.models.convolutions import Conv1x1, Conv3x3, UpConv2x2

STAGE_BLOCKS = (3, 4, 6, 3)


class ResidualBlock(nn.Module):
    """ResNet's basic block. Its parameters have torchvision's names."""

    def __init__(self, in_channels: int, channels: int, stride: int, relu_before_addition: bool) -> None:
        super().__init__()
        self.conv1 = Conv3x3(in_channels, channels, stride, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = Conv3x3(channels, channels, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.downsample = None
        if stride != 1 or in_channels != channels:
            shortcut = Conv1x1(in_channels, channels, stride)
            self.downsample = nn.Sequential(shortcut, nn.BatchNorm2d(channels))
        self.relu_before_addition = relu_before_addition

    def forward(self, x: Tensor) -> Tensor:
        """(N, in_channels, H, W) -> (N, channels, H / stride, W / stride)."""
        shortcut = x if self.downsample is None else self.downsample(x)
        x = F.relu(self.bn1(self.conv1(x)))
        x = self.bn2(self.conv2(x))
        return F.relu(x) + shortcut if self.relu_before_addition else F.relu(x + shortcut)


class ResNet34Encoder(nn.Module):
    """Stem and residual stages; with width 64 and a 7x7 stem its state dict is that of torchvision's `resnet34` without `fc`."""

    def __init__(
        self, width: int, stage_blocks: Sequence[int], relu_before_addition: bool = False, stem: str = "7x7", stem_stride: int = 2
    ) -> None:
        """`stage_blocks` are the residual blocks of each stage; `stem` is `7x7`, or `3x3` for the UNet's DoubleConv."""
        super().__init__()
        self.double_conv = None
        if stem == "3x3":
            self.double_conv = DoubleConv(3, width, stride=stem_stride)
        else:
            self.conv1 = nn.Conv2d(3, width, 7, stride=stem_stride, padding=3, bias=False)
            self.bn1 = nn.BatchNorm2d(width)
        self.channels = (width, *(width * 2**stage for stage in range(len(stage_blocks))))
        self.layer_names = [f"layer{number}" for number in range(1, len(stage_blocks) + 1)]
        for stage, blocks in enumerate(stage_blocks):
            before, channels = self.channels[stage : stage + 2]
            first = ResidualBlock(before, channels, 1 if stage == 0 else 2, relu_before_addition)
            others = [ResidualBlock(channels, channels, 1, relu_before_addition) for _ in range(blocks - 1)]
            self.add_module(self.layer_names[stage], nn.Sequential(first, *others))

    def forward(self, images: Tensor) -> list[Tensor]:
        """(N, 3, H, W) -> features of 1/2 (the stem), 1/4, 1/8, ... of that resolution; all twice as fine with stem_stride 1."""
        stem = F.relu(self.bn1(self.conv1(images))) if self.double_conv is None else self.double_conv(images)
        features = [stem]
        x = F.max_pool2d(stem, 3, stride=2, padding=1)
        for name in self.layer_names:
            x = self.get_submodule(name)(x)
            features.append(x)
        return features


class ResNet34UNet(SegmentationNetwork):
    """Stem and the first `depth` - 1 stages of a ResNet34 (all with depth 5), the UNet decoder with skips from the
    stem and the stages, and a last doubling to full resolution with half the width and no skip.

    With `stem_stride` 1 the stem keeps the full resolution, as ResNets for small pictures do (He et al. 2016, section 4.2):
    all features are twice as fine, and there is nothing left to double at the end. With `stem` `3x3` two convolutions of 3x3
    take the place of the one of 7x7, as in the UNet.
    """

    def __init__(self, width: int = 64, depth: int = 5, dropout: float = 0.1, stem: str = "7x7", stem_stride: int = 2) -> None:
        encoder = ResNet34Encoder(width, STAGE_BLOCKS[: depth - 1], stem=stem, stem_stride=stem_stride)
        decoder = UNetDecoder(encoder.channels, beyond=[width // 2] if stem_stride == 2 else [])
        stride = 2 ** (depth - 1) * stem_stride
        super().__init__(encoder, decoder, nn.Conv2d(decoder.out_channels, 1, 1), stride, dropout)


class ReportEncoder(ResNet34Encoder):
    """The report's: one more block, of 16 times the width, as bottleneck; ReLU before the addition; no stem skip."""

    def __init__(self, width: int) -> None:
        super().__init__(width, (*STAGE_BLOCKS, 1), relu_before_addition=True)
        self.channels = self.channels[1:]

    def forward(self, images: Tensor) -> list[Tensor]:
        """(N, 3, H, W) -> features of 1/4, 1/8, ..., 1/64 of that resolution."""
        return super().forward(images)[1:]


class ReportResNet34UNet(SegmentationNetwork):
    """The report's own network, 48,194,369 parameters with width 64: two transposed convolutions end it."""

    def __init__(self, width: int = 64, dropout: float = 0.1) -> None:
        encoder = ReportEncoder(width)
        ups = [self._up(width) for _ in range(2)]
        head = nn.Sequential(*ups, nn.Conv2d(width, 1, 1))
        super().__init__(encoder, UNetDecoder(encoder.channels), head, 64, dropout)

    @staticmethod
    def _up(width: int) -> nn.Sequential:
        conv = UpConv2x2(width, width, bias=False)
        return nn.Sequential(conv, nn.BatchNorm2d(width), nn.ReLU(inplace=True))


def load_encoder_weights(encoder: ResNet34Encoder, source: str) -> None:
    """Fill the encoder with the weights of a torchvision `resnet34`; `fc` and stages it does not have are left out.

    Args:
        encoder: of width 64.
        source: `imagenet` (fetched once by torchvision, kept in torch's cache folder), or a .safetensors, .pth or
            .pt file, relative to the current folder or else to the workspace.

    Raises:
        ParameterError: the weights cannot be fetched or read, or are not those of a resnet34.
    """
    given = _fetch_imagenet() if source == "imagenet" else _read_state_dict(source)
    wanted = encoder.state_dict()
    for name, tensor in wanted.items():
        found = tuple(given[name].shape) if isinstance(given.get(name), Tensor) else "missing"
        # Files from before PyTorch 0.4.1 do not count BatchNorm's batches, and nothing here reads that count.
        if found != tuple(tensor.shape) and not (found == "missing" and name.endswith("num_batches_tracked")):
            raise ParameterError(
                f"encoder_weights {source!r} must hold the state dict of torchvision's resnet34, but its tensor "
                f"{name} is {found} where {tuple(tensor.shape)} is needed"
            )
    encoder.load_state_dict({name: given[name] for name in wanted if name in given})


def _fetch_imagenet() -> dict[str, Tensor]:
    from torchvision.models import ResNet34_Weights  # here, because it takes 2 s, and few runs need it

    weights = ResNet34_Weights.IMAGENET1K_V1
    try:
        return weights.get_state_dict(progress=True, check_hash=True, map_location="cpu", weights_only=True)
    except (OSError, HTTPException, RuntimeError) as error:  # RuntimeError: the download's hash is wrong
        raise ParameterError(
            f"encoder_weights 'imagenet' could not be fetched from {weights.url} ({error}): "
            "give the path of a file with torchvision's resnet34 weights instead"
        ) from error


def _read_state_dict(source: str) -> dict[str, Tensor]:
    path = from_here(source)
    if path.suffix not in (".safetensors", ".pth", ".pt"):
        raise ParameterError(f"encoder_weights is {source!r}, but it must be 'imagenet' or a .safetensors, .pth or .pt file")
    if not path.is_file():
        raise ParameterError(f"encoder_weights is {source!r}, but there is no such file")
    try:
        given = load_file(path) if path.suffix == ".safetensors" else torch.load(path, "cpu", weights_only=True)
    except Exception as error:  # a damaged file can end in nearly any exception
        raise ParameterError(
            f"encoder_weights {source!r} cannot be read as a state dict ({type(error).__name__}): "
            "it must hold tensors alone and be whole"
        ) from error
    if not isinstance(given, dict):
        raise ParameterError(f"encoder_weights {source!r} holds a {type(given).__name__}, but it must hold a state dict")
    return given
