"""How large the features are on their way through a network."""

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.func import functional_call

from petseg_lib.models.blocks import SegmentationNetwork, evaluating


class Shapes(NamedTuple):
    """(channels, side in px) of what each stage makes of a square photograph.

    Attributes:
        photograph: what goes in.
        encoder: its features, from fine to coarse; the last one is the bottleneck.
        decoder: what each block returns, from coarse to fine.
        skips: for each block of the decoder which of the encoder's features it joins, as a place in `encoder`; None = none.
        logits: what comes out.
    """

    photograph: tuple[int, int]
    encoder: list[tuple[int, int]]
    decoder: list[tuple[int, int]]
    skips: list[int | None]
    logits: tuple[int, int]


def dry_pass(model: nn.Module, image_size: int) -> Tensor:
    """The logits of a pass of one image in evaluation mode, of which nothing is computed: it is on torch's meta device.

    Args:
        image_size: side of the square input, px.
    """
    weights = {name: tensor.to("meta") for name, tensor in (*model.named_parameters(), *model.named_buffers())}
    with evaluating(model):
        return functional_call(model, weights, (torch.empty(1, 3, image_size, image_size, device="meta"),))


def stage_shapes(model: SegmentationNetwork, image_size: int) -> Shapes:
    """What the stages of a network make of a photograph. Nothing is computed.

    Args:
        image_size: side of the square input, px.
    """
    seen: dict[str, list[tuple[int, int]]] = {"encoder": [], "decoder": []}

    def watch(part: str):
        def hook(_module: nn.Module, _given: tuple, result: Tensor | list[Tensor]) -> None:
            seen[part] += [_shape(each) for each in (result if isinstance(result, list) else [result])]

        return hook

    handles = [model.encoder.register_forward_hook(watch("encoder"))]
    # The report's ResNet34-UNet ends in two more stages, in its head.
    ends = [part for part in model.head.children() if isinstance(part, nn.Sequential)]
    handles += [block.register_forward_hook(watch("decoder")) for block in (*model.decoder.blocks, *ends)]
    try:
        logits = dry_pass(model, image_size)
    finally:
        for handle in handles:
            handle.remove()
    coarser = reversed(range(len(seen["encoder"]) - 1))
    skips = [next(coarser, None) for _ in seen["decoder"]]
    return Shapes((3, image_size), seen["encoder"], seen["decoder"], skips, _shape(logits))


def _shape(features: Tensor) -> tuple[int, int]:
    return features.shape[1], features.shape[-1]
