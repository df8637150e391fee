"""A UNet that gives a mirrored photograph the mirrored mask, since its filters come in mirrored pairs.

Group convolutions (Cohen and Welling 2016, "Group equivariant convolutional networks") over the group of the left-right flip.
The first half of a layer's channels answers to a photograph as the second half does to its mirror image, so that a filter need
not be learned twice, once for pets that look to the left: half of the weights, for as many operations.
"""

import copy

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from petseg_lib.models.blocks import SegmentationNetwork, UpBlock


def make_flip_equivariant(model: SegmentationNetwork) -> None:
    """Tie a UNet's weights in place: from now on it trains one of each pair, the first half of what it had.

    Exact for widths that are multiples of the network's `stride`, in px: what is padded lies at the right.

    Args:
        model: a UNet, which halves the resolution alike from the left and from the right. A ResNet's strides begin at the left.
    """
    joined = {block.conv[0]: block.up.out_channels for block in model.modules() if isinstance(block, UpBlock)}
    for layer in list(model.modules()):
        if isinstance(layer, nn.BatchNorm2d):
            _tie(layer, "weight", _MirroredPairs(0))
        elif isinstance(layer, nn.ConvTranspose2d):
            _tie(layer, "weight", _MirroredPairs(1, inputs=0, maps=[layer.in_channels]))
        elif isinstance(layer, nn.Conv2d) and layer.out_channels == 1:
            _tie(layer, "weight", _MirroredPairs(1))  # one output, which is its own mirror image
            continue
        elif isinstance(layer, nn.Conv2d):
            below = joined.get(layer, 0)
            maps = [layer.in_channels - below, below] if below else [layer.in_channels]
            photograph = layer.in_channels == 3  # each of its channels is its own mirror image
            _tie(layer, "weight", _MirroredPairs(0) if photograph else _MirroredPairs(0, inputs=1, maps=maps))
        else:
            continue
        if layer.bias is not None:
            _tie(layer, "bias", _MirroredPairs(0))


def untied(model: nn.Module) -> nn.Module:
    """A copy with plain weights, the same function; the statistics of BatchNorm, which see each half alone, are averaged."""
    model = copy.deepcopy(model)
    for layer in model.modules():
        if parametrize.is_parametrized(layer):
            weights = {name: getattr(layer, name).detach().clone() for name in layer.parametrizations}
            # PyTorch's `remove_parametrizations` would take them from the class, which all copies of the model share.
            layer.__class__ = type(layer).__base__
            del layer.parametrizations
            for name, weight in weights.items():
                layer.register_parameter(name, nn.Parameter(weight))
            if isinstance(layer, nn.BatchNorm2d):
                for statistic in (layer.running_mean, layer.running_var):
                    statistic.copy_(statistic.view(2, -1).mean(0).repeat(2))
    return model


def _tie(layer: nn.Module, name: str, pairs: "_MirroredPairs") -> None:
    parametrize.register_parametrization(layer, name, pairs)


class _MirroredPairs(nn.Module):
    """From half of a layer's weights to all: the other half is its mirror image, whose inputs are mirrored as well."""

    def __init__(self, outputs: int, inputs: int = 0, maps: list[int] | None = None) -> None:
        """`outputs` and `inputs` are axes; `maps` are the inputs' channels, of each map that is joined, its halves mirrored."""
        super().__init__()
        self.outputs, self.inputs, self.maps = outputs, inputs, maps

    def forward(self, half: Tensor) -> Tensor:
        other = half
        if self.maps is not None:
            halves = [each for channels in self.maps for each in (channels // 2, channels // 2)]
            first_halves, second_halves = half.split(halves, self.inputs)[::2], half.split(halves, self.inputs)[1::2]
            pairs = zip(second_halves, first_halves, strict=True)
            other = torch.cat([each for pair in pairs for each in pair], self.inputs)
        return torch.cat([half, other.flip(-1) if other.ndim == 4 else other], self.outputs)

    def right_inverse(self, whole: Tensor) -> Tensor:
        return whole.narrow(self.outputs, 0, whole.shape[self.outputs] // 2).clone()
