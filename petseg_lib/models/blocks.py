"""The named parts that the networks are built of, and the frame that joins encoder, decoder and head."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import zip_longest

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from petseg_lib.models.convolutions import Conv3x3, UpConv2x2

MIN_SIDE = 32


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """A model in evaluation mode, without gradients; each of its modules as it was afterwards."""
    training = {module: module.training for module in model.modules()}
    try:
        model.eval()
        with torch.no_grad():
            yield
    finally:
        for module, mode in training.items():
            module.training = mode


class DoubleConv(nn.Sequential):
    """Two padded 3x3 convolutions, each with BatchNorm and ReLU: (N, C, H, W) -> (N, out_channels, H, W).

    With BatchNorm the convolutions have no bias: it subtracts the mean, and would take the bias away again. A `stride` of 2,
    of the first convolution, halves the resolution.
    """

    def __init__(self, in_channels: int, out_channels: int, batch_norm: bool = True, stride: int = 1) -> None:
        layers: list[nn.Module] = []
        for channels, step in ((in_channels, stride), (out_channels, 1)):
            layers.append(Conv3x3(channels, out_channels, step, bias=not batch_norm))
            layers.append(nn.BatchNorm2d(out_channels) if batch_norm else nn.Identity())
            layers.append(nn.ReLU(inplace=True))
        super().__init__(*layers)


class UpBlock(nn.Module):
    """Doubles the resolution, joins the skip (if any) and convolves twice (Ronneberger et al. 2015, fig. 1)."""

    def __init__(self, in_channels: int, skip_channels: int, out_channels: int, batch_norm: bool = True) -> None:
        super().__init__()
        self.up = UpConv2x2(in_channels, out_channels)
        self.conv = DoubleConv(out_channels + skip_channels, out_channels, batch_norm)

    def forward(self, x: Tensor, skip: Tensor | None = None) -> Tensor:
        """(N, in_channels, H, W) and a skip (N, skip_channels, 2H, 2W) -> (N, out_channels, 2H, 2W)."""
        x = self.up(x)
        return self.conv(x if skip is None else torch.cat([skip, x], dim=1))


class UNetDecoder(nn.Module):
    """One UpBlock for each skip, the deepest first, then one without skip for each width in `beyond`."""

    def __init__(self, channels: Sequence[int], beyond: Sequence[int] = (), batch_norm: bool = True) -> None:
        """`channels` are those of the encoder's features, the finest first."""
        super().__init__()
        *skips, below = channels
        self.blocks = nn.ModuleList()
        for skip, out_channels in [(c, c) for c in reversed(skips)] + [(0, c) for c in beyond]:
            self.blocks.append(UpBlock(below, skip, out_channels, batch_norm))
            below = out_channels
        self.out_channels = below

    def forward(self, features: list[Tensor]) -> Tensor:
        """Features, the finest first, each half the size of the one before -> (N, out_channels, H, W)."""
        *skips, x = features
        for block, skip in zip_longest(self.blocks, reversed(skips)):
            x = block(x, skip)
        return x


class SegmentationNetwork(nn.Module):
    """An encoder, Dropout2d after its deepest features (the bottleneck), a decoder and a head."""

    def __init__(self, encoder: nn.Module, decoder: nn.Module, head: nn.Module, stride: int, dropout: float) -> None:
        """`stride` is the side in px of the square of the input that becomes one pixel of the bottleneck."""
        super().__init__()
        self.encoder, self.decoder, self.head = encoder, decoder, head
        self.dropout = nn.Dropout2d(dropout)
        self.stride = stride

    def forward(self, images: Tensor) -> Tensor:
        """Logits of "this pixel is pet".

        Args:
            images: (N, 3, H, W), normalised; H and W are 32 px or more and need not be equal, even or powers of two.

        Returns:
            (N, 1, H, W), any real number; their sigmoid is the probability.

        Raises:
            ValueError: not three channels, or a side below 32 px.
        """
        if images.ndim != 4 or images.shape[1] != 3:
            raise ValueError(f"the input's shape is {tuple(images.shape)}, but it must be (N, 3, H, W)")
        height, width = images.shape[-2:]
        if min(height, width) < MIN_SIDE:
            raise ValueError(f"the input is {height} x {width} px, but each side must have {MIN_SIDE} px or more")
        features = self.encoder(pad_to_stride(images, self.stride))
        features[-1] = self.dropout(features[-1])
        return self.head(self.decoder(features))[..., :height, :width]


def pad_to_stride(images: Tensor, stride: int) -> Tensor:
    """Zeros (the mean colour) at the right and below, up to whole multiples of `stride` px.

    The result spans two strides or more: BatchNorm cannot train on one image whose bottleneck is a single pixel.
    """
    height, width = images.shape[-2:]
    below, right = -height % stride, -width % stride
    if height + below == width + right == stride:
        right += stride
    return F.pad(images, (0, right, 0, below)) if below or right else images


def initialise_kaiming(model: nn.Module) -> None:
    """Kaiming normal (He et al. 2015, eq. 14: fan_out) for the convolutions; their biases become zero.

    The last one, of a single output channel, keeps PyTorch's: it feeds no ReLU, and fan_out would start the logits at
    several units.
    """
    for layer in model.modules():
        if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d) and layer.out_channels > 1:
            nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
