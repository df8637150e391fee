"""BatchNorm folded into the convolution before it: the same function in fewer passes over memory, for inference alone."""

import copy

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_weights

from petseg_lib.models.blocks import MIN_SIDE, evaluating


def fold_batchnorm(model: nn.Module, dtype: torch.dtype | None = None) -> nn.Module:
    """A copy in evaluation mode in which each BatchNorm that is given what a convolution made has become part of it.

    What such a convolution makes must go nowhere else.

    Args:
        dtype: of these convolutions in the copy, computed in the model's own; None: the model's own.
    """
    pairs = _convolutions(model)
    computed_anew = {id(weight): weight for weight in (model.get_submodule(name).weight for name, _ in pairs)}
    model = copy.deepcopy(model, computed_anew).eval()  # all but these are copied
    for of_convolution, of_norm in pairs:
        convolution, norm = model.get_submodule(of_convolution), model.get_submodule(of_norm)
        convolution.weight, convolution.bias = fuse_conv_bn_weights(
            convolution.weight, convolution.bias, norm.running_mean, norm.running_var, norm.eps, norm.weight, norm.bias,
            isinstance(convolution, nn.ConvTranspose2d),
        )  # fmt: skip
        convolution.to(dtype)  # at once: one layer's at a time takes no new memory
        model.set_submodule(of_norm, nn.Identity())
    return model


def _convolutions(model: nn.Module) -> list[tuple[str, str]]:
    """The names of each convolution that a BatchNorm follows, and of that BatchNorm, where both are used once.

    It is seen in a pass, and not by the order in which layers are registered: a network of one's own may have ReLU between.
    """
    made, given, handles = {}, {}, []
    for name, layer in model.named_modules():
        if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d):
            made[name] = []
            handles.append(layer.register_forward_hook(lambda _layer, _given, result, to=made[name]: to.append(_seen(result))))
        elif isinstance(layer, nn.BatchNorm2d) and layer.running_mean is not None:
            given[name] = []
            handles.append(layer.register_forward_pre_hook(lambda _layer, inputs, to=given[name]: to.append(_seen(inputs[0]))))
    try:
        if given:
            weight = next(model.parameters())
            with torch.inference_mode(False), evaluating(model):  # tensors of inference mode do not count their changes
                model(weight.new_zeros(1, 3, MIN_SIDE, MIN_SIDE))
    finally:
        for handle in handles:
            handle.remove()
    once = {results[0][:2]: name for name, results in made.items() if len(results) == 1}
    return [(once[inputs[0][:2]], name) for name, inputs in given.items() if len(inputs) == 1 and inputs[0][:2] in once]


def _seen(features: Tensor) -> tuple[int, int, Tensor]:
    """Which tensor it is, and how often it was changed in place, as by ReLU; kept, so that no later one has its id."""
    return id(features), features._version, features
