"""BatchNorm folded into the convolution before it: the same function in fewer passes over memory, for inference alone."""

import copy
from collections.abc import Iterator
from itertools import pairwise

import torch
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_weights


def fold_batchnorm(model: nn.Module, dtype: torch.dtype | None = None) -> nn.Module:
    """A copy in evaluation mode in which each BatchNorm that directly follows a convolution has become part of it.

    A module's children must be registered in the order in which they are applied, and each module and weight used once, as
    those of this library's networks are.

    Args:
        dtype: of these convolutions in the copy, computed in the model's own; None: the model's own.
    """
    computed_anew = {id(convolution.weight): convolution.weight for _, convolution, _, _ in _convolutions(model)}
    model = copy.deepcopy(model, computed_anew).eval()  # all but these are copied
    for module, convolution, name, norm in list(_convolutions(model)):
        convolution.weight, convolution.bias = fuse_conv_bn_weights(
            convolution.weight, convolution.bias, norm.running_mean, norm.running_var, norm.eps, norm.weight, norm.bias,
            isinstance(convolution, nn.ConvTranspose2d),
        )  # fmt: skip
        convolution.to(dtype)  # at once: one layer's at a time takes no new memory
        setattr(module, name, nn.Identity())
    return model


def _convolutions(model: nn.Module) -> Iterator[tuple[nn.Module, nn.Conv2d | nn.ConvTranspose2d, str, nn.BatchNorm2d]]:
    """Those that a BatchNorm follows: the module of both, the convolution, the BatchNorm's name in it and the BatchNorm."""
    for module in model.modules():
        for (_, layer), (name, following) in pairwise(module.named_children()):
            if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d) and isinstance(following, nn.BatchNorm2d):
                yield module, layer, name, following
