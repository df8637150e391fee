"""What recipes tried and the library does not have, since it did not pay: a recipe names it as `tried`."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from itertools import zip_longest
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader

from petseg_lib import training
from petseg_lib.data.loaders import Batch
from petseg_lib.dice import Loss, build_loss
from petseg_lib.models.blocks import SegmentationNetwork, pad_to_stride
from petseg_lib.models.resnet34_unet import ResidualBlock

MIXUP_ALPHA = 0.2
SIDE_WEIGHT = 0.4
TRIED = ("deep_supervision", "mixup", "zero_residuals")


class Mixup:
    """Batches of a training loader, each blended with itself in another order, masks as well (Zhang et al. 2018)."""

    def __init__(self, loader: DataLoader, seed: int) -> None:
        self.loader, self.seed = loader, seed
        self.dataset, self.sampler = loader.dataset, loader.sampler

    def __len__(self) -> int:
        return len(self.loader)

    def __iter__(self) -> Iterator[Batch]:
        for number, batch in enumerate(self.loader):
            if number % len(self) == 0:
                draws = np.random.default_rng((self.seed, self.sampler.epochs[number // len(self)]))
            share, order = float(draws.beta(MIXUP_ALPHA, MIXUP_ALPHA)), torch.from_numpy(draws.permutation(len(batch.image)))
            image, target = (each.lerp(each[order], 1 - share) for each in (batch.image, batch.target))
            yield batch._replace(image=image, target=target, scored=batch.scored & batch.scored[order])


class DeepSupervision(nn.Module):
    """A network whose coarser decoder blocks are trained to give the mask as well, at full size (Lee et al. 2015)."""

    def __init__(self, network: SegmentationNetwork) -> None:
        super().__init__()
        self.network = network
        coarser = list(network.decoder.blocks)[:-1]
        self.heads = nn.ModuleList(nn.Conv2d(block.up.out_channels, 1, 1) for block in coarser)
        self.sides: list[Tensor] = []

    def forward(self, images: Tensor) -> Tensor:
        """As the network's; while training it leaves the logits of the coarser blocks in `sides`, (N, 1, H, W) each."""
        if not self.training:
            return self.network(images)
        *skips, x = self.network.encoder(pad_to_stride(images, self.network.stride))
        x, coarser = self.network.dropout(x), []
        for block, skip in zip_longest(self.network.decoder.blocks, reversed(skips)):
            x = block(x, skip)
            coarser.append(x)
        height, width = images.shape[-2:]
        size = coarser[-1].shape[-2:]
        sides = [F.interpolate(head(x), size, mode="bilinear") for head, x in zip(self.heads, coarser[:-1], strict=True)]
        self.sides = [side[..., :height, :width].float() for side in sides]
        return self.network.head(coarser[-1])[..., :height, :width]

    def loss(self, name: str) -> Loss:
        """A loss by its name, plus 0.4 times its mean over the sides that the last forward pass left."""
        loss_of = build_loss(name)

        def with_sides(logits: Tensor, target: Tensor, scored: Tensor | None = None) -> Tensor:
            sides, self.sides = self.sides, []
            loss = loss_of(logits, target, scored)
            return loss + SIDE_WEIGHT * sum(loss_of(side, target, scored) for side in sides) / max(1, len(sides))

        return with_sides


def apply(
    tried: str | None, model: SegmentationNetwork, loader: DataLoader, seed: int
) -> tuple[nn.Module, Any, AbstractContextManager]:
    """The model and the training loader with what is tried, and the context to train them in."""
    if tried == "mixup":
        return model, Mixup(loader, seed), nullcontext()
    if tried == "deep_supervision":
        deep = DeepSupervision(model)
        return deep, loader, patch.object(training, "build_loss", deep.loss)
    if tried == "zero_residuals":
        for block in (each for each in model.modules() if isinstance(each, ResidualBlock)):
            nn.init.zeros_(block.bn2.weight)  # Goyal et al. 2017, section 5.1
    return model, loader, nullcontext()
