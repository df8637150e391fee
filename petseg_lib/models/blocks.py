"""The named parts that the networks are built of, and the frame that joins encoder, decoder and head."""

from collections.abc import Sequence
from itertools import zip_longest
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

MIN_SIDE = 32
FEW_PIXELS, MANY_WEIGHTS = 4 * 4, 256 * 512 * 9  # of an image: a matrix product is faster on a CPU for 1 to 32 of them


class Conv3x3(nn.Conv2d):
    """A padded convolution, 3x3. A CPU computes that of few pixels in bf16 by many weights as one matrix product.

    Reading the weights is most of its work, and oneDNN's convolution reads and writes them several times. How many images
    there are does not decide, so that none is rounded in another way than in a batch of others.
    """

    def __init__(self, in_channels: int, out_channels: int, stride: int = 1, bias: bool = True) -> None:
        super().__init__(in_channels, out_channels, 3, stride=stride, padding=1, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        """(N, in_channels, H, W) -> (N, out_channels, ceil(H / stride), ceil(W / stride))."""
        stride = self.stride[0]
        height, width = (-(-side // stride) for side in x.shape[-2:])
        few = height * width <= FEW_PIXELS and self.weight.numel() >= MANY_WEIGHTS
        if not few or x.device.type != "cpu" or x.dtype != torch.bfloat16:
            return super().forward(x)
        weight = self.weight.permute(0, 2, 3, 1).flatten(1)  # which copies nothing where channels lie last
        return F.linear(_Windows.apply(x.permute(0, 2, 3, 1), stride), weight, self.bias).permute(0, 3, 1, 2)


class _Windows(torch.autograd.Function):
    """(N, H, W, C) -> (N, H / stride, W / stride, 9 C): the 3x3 pixels around each, zeros beyond the edge."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, stride: int) -> Tensor:
        ctx.stride, ctx.shape = stride, x.shape
        padded = F.pad(x, (0, 0, 1, 1, 1, 1))
        return torch.cat([padded[place] for place in _places(x.shape, stride)], dim=-1)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        count, height, width, channels = ctx.shape
        padded = gradient.new_zeros(count, height + 2, width + 2, channels, dtype=torch.float32)  # nine sums in bf16 lose digits
        for place, part in zip(_places(ctx.shape, ctx.stride), gradient.split(channels, dim=-1), strict=True):
            padded[place] += part
        return padded[:, 1:-1, 1:-1].to(gradient.dtype), None


def _places(shape: torch.Size, stride: int) -> list[tuple[slice, slice, slice]]:
    """Where each of the 3x3 pixels of all windows lies in the padded images."""
    _, height, width, _ = shape
    return [
        (slice(None), slice(row, row + height, stride), slice(column, column + width, stride))
        for row in range(3)
        for column in range(3)
    ]


class DoubleConv(nn.Sequential):
    """Two padded 3x3 convolutions, each with BatchNorm and ReLU: (N, C, H, W) -> (N, out_channels, H, W).

    With BatchNorm the convolutions have no bias: it subtracts the mean, and would take the bias away again.
    """

    def __init__(self, in_channels: int, out_channels: int, batch_norm: bool = True) -> None:
        layers: list[nn.Module] = []
        for channels in (in_channels, out_channels):
            layers.append(Conv3x3(channels, out_channels, bias=not batch_norm))
            layers.append(nn.BatchNorm2d(out_channels) if batch_norm else nn.Identity())
            layers.append(nn.ReLU(inplace=True))
        super().__init__(*layers)


class UpBlock(nn.Module):
    """Doubles the resolution, joins the skip (if any) and convolves twice (Ronneberger et al. 2015, fig. 1)."""

    def __init__(self, in_channels: int, skip_channels: int, out_channels: int, batch_norm: bool = True) -> None:
        super().__init__()
        self.up = nn.ConvTranspose2d(in_channels, out_channels, 2, stride=2)
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
