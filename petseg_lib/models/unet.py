"""The UNet (Ronneberger et al. 2015) with padded convolutions and BatchNorm."""

from torch import Tensor, nn
from torch.nn import functional as F

from petseg_lib.models.blocks import DoubleConv, SegmentationNetwork, UNetDecoder


class UNetEncoder(nn.Module):
    """A DoubleConv at full resolution and one after each of `depth` halvings; each halving doubles the channels."""

    def __init__(self, width: int, depth: int, batch_norm: bool = True) -> None:
        super().__init__()
        self.channels = tuple(width * 2**stage for stage in range(depth + 1))
        inputs = (3, *self.channels[:-1])
        self.stages = nn.ModuleList(DoubleConv(a, b, batch_norm) for a, b in zip(inputs, self.channels, strict=True))

    def forward(self, images: Tensor) -> list[Tensor]:
        """(N, 3, H, W) -> features of 1, 1/2, ..., 1/2**depth of that resolution."""
        features = [self.stages[0](images)]
        for stage in self.stages[1:]:
            features.append(stage(F.max_pool2d(features[-1], 2)))
        return features


class UNet(SegmentationNetwork):
    """Width 64 and depth 4 are the report's: 64-128-256-512, bottleneck 1024, 31,037,633 parameters."""

    def __init__(self, width: int = 64, depth: int = 4, dropout: float = 0.1, batch_norm: bool = True) -> None:
        encoder = UNetEncoder(width, depth, batch_norm)
        decoder = UNetDecoder(encoder.channels, batch_norm=batch_norm)
        super().__init__(encoder, decoder, nn.Conv2d(width, 1, 1), 2**depth, dropout)
