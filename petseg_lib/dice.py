"""Dice: counts first, scores as arithmetic on counts, and the losses that train towards it.

`scored` is everywhere a bool mask of the pixels that count (None: all do).
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

Loss = Callable[[Tensor, Tensor, Tensor | None], Tensor]


def count(prediction: Tensor, target: Tensor, scored: Tensor | None = None) -> Tensor:
    """Hits, false alarms and misses of each image.

    Args:
        prediction: (N, ...), bool or 0 and 1 in any dtype.
        target: the same shape, bool or 0 and 1.
        scored: the same shape, bool.

    Returns:
        (N, 3) int64: true positives, false positives, false negatives, in pixels.

    Raises:
        ValueError: shapes differ, or a value is neither 0 nor 1 (a probability, a 0-255 mask).
    """
    _check_shapes(prediction, target, scored)
    prediction, target = _as_bool("prediction", prediction), _as_bool("target", target)
    if scored is not None:
        prediction, target = prediction & scored, target & scored
    hits, predicted, wanted = (mask.flatten(1).sum(1) for mask in (prediction & target, prediction, target))
    return torch.stack([hits, predicted - hits, wanted - hits], dim=1)


def dice_from_counts(tp: Any, fp: Any, fn: Any) -> Any:
    """2 tp / (2 tp + fp + fn), in [0, 1]; 1 where all three are zero (Dice 1945).

    Numbers, arrays or tensors of one shape; tensors of whole numbers give float32, of others their own type, all else float64.
    Soft counts work too.
    """
    return _ratio(2 * tp, 2 * tp + fp + fn)


def iou_from_counts(tp: Any, fp: Any, fn: Any) -> Any:
    """tp / (tp + fp + fn), the Jaccard index, in [0, 1]; 1 where all three are zero. Types as in dice_from_counts."""
    return _ratio(tp, tp + fp + fn)


def _ratio(part: Any, whole: Any) -> Any:
    """part / whole, and 1 where both are zero: with a gradient that stays finite there."""
    if isinstance(whole, Tensor):
        empty = whole == 0
        return part.masked_fill(empty, 1) / whole.masked_fill(empty, 1)
    empty = np.equal(whole, 0)
    return np.where(empty, 1.0, part) / np.where(empty, 1.0, whole)


def soft_dice(probability: Tensor, target: Tensor, scored: Tensor | None = None) -> Tensor:
    """Dice of probabilities, pooled over the batch.

    2 |P.T| / (|P| + |T|), as in Milletari et al. 2016 (V-Net), eq. 3 without squares.

    Args:
        probability: (N, 1, H, W), in [0, 1].
        target: (N, 1, H, W), 0 or 1.
        scored: (N, 1, H, W), bool.

    Returns:
        Scalar float32 in [0, 1]; 1 where both are empty.

    Raises:
        ValueError: shapes differ, or a value lies outside [0, 1].
    """
    _check_shapes(probability, target, scored)
    for name, values in (("probability", probability), ("target", target)):
        if values.numel():
            low, high = values.min().item(), values.max().item()
            if not (low >= 0 and high <= 1):  # so that NaN fails too
                raise ValueError(f"the values of {name} run from {low} to {high}, but they must lie in [0, 1]")
    return _soft_dice(probability.float(), target.float(), scored, per_image=False)


def _soft_dice(probability: Tensor, target: Tensor, scored: Tensor | None, per_image: bool) -> Tensor:
    """Scalar, or (N,) where `per_image`. Does not look at the values: that would make a GPU wait at every step."""
    if scored is not None:
        probability, target = probability * scored, target * scored
    dims = tuple(range(1, probability.ndim)) if per_image else tuple(range(probability.ndim))
    return _ratio(2 * (probability * target).sum(dims), probability.sum(dims) + target.sum(dims))


def build_loss(name: str) -> Loss:
    """A loss to minimise, by its name.

    - `bce_dice`: binary cross-entropy of the logits + 1 - soft Dice pooled over the batch.
    - `bce_dice_image`: the same with the mean over images of each image's own soft Dice.
    - `bce`, `dice`: the parts of `bce_dice` alone.
    - `double_sigmoid`: the report's: `bce_dice` with cross-entropy taking the probabilities for logits, so that the
      probability it sees is a sigmoid of a sigmoid and lies between 0.5 and 0.73.

    Returns:
        loss(logits, target, scored=None) -> scalar float32, computed in float32 also under autocast. The logits are
        (N, 1, H, W), any real number; target the same shape, 0 or 1 (not checked: see soft_dice); scored the same
        shape, bool. Pixels not scored change neither the loss nor the gradient.

    Raises:
        ValueError: an unknown name; the loss itself raises it where shapes differ.
    """
    if name not in _LOSSES:
        raise ValueError(f"loss is {name!r}, but it must be one of {', '.join(_LOSSES)}")
    return _LOSSES[name]


def _bce(logits: Tensor, target: Tensor, scored: Tensor | None = None) -> Tensor:
    """Mean over the scored pixels; 0 where there is none."""
    _check_shapes(logits, target, scored)
    if scored is None:
        return F.binary_cross_entropy_with_logits(logits.float(), target.float())
    total = F.binary_cross_entropy_with_logits(logits.float(), target.float(), scored.float(), reduction="sum")
    return total / scored.sum().clamp(min=1)


def _dice(logits: Tensor, target: Tensor, scored: Tensor | None = None, per_image: bool = False) -> Tensor:
    _check_shapes(logits, target, scored)
    return 1 - _soft_dice(logits.float().sigmoid(), target.float(), scored, per_image).mean()


def _bce_dice(logits: Tensor, target: Tensor, scored: Tensor | None = None) -> Tensor:
    return _bce(logits, target, scored) + _dice(logits, target, scored)


def _bce_dice_image(logits: Tensor, target: Tensor, scored: Tensor | None = None) -> Tensor:
    return _bce(logits, target, scored) + _dice(logits, target, scored, per_image=True)


def _double_sigmoid(logits: Tensor, target: Tensor, scored: Tensor | None = None) -> Tensor:
    return _bce(logits.float().sigmoid(), target, scored) + _dice(logits, target, scored)


_LOSSES: dict[str, Loss] = {
    "bce_dice": _bce_dice,
    "bce_dice_image": _bce_dice_image,
    "bce": _bce,
    "dice": _dice,
    "double_sigmoid": _double_sigmoid,
}


def _check_shapes(first: Tensor, second: Tensor, scored: Tensor | None) -> None:
    shapes = {tuple(mask.shape) for mask in (first, second, scored) if mask is not None}
    if len(shapes) > 1:
        raise ValueError(f"shapes must be the same, but they are {', '.join(map(str, sorted(shapes)))}")
    if scored is not None and scored.dtype != torch.bool:
        raise ValueError(f"scored must be bool, but it is {scored.dtype}")


def _as_bool(name: str, mask: Tensor) -> Tensor:
    if mask.dtype == torch.bool:
        return mask
    wrong = mask[(mask != 0) & (mask != 1)]
    if wrong.numel():
        raise ValueError(f"the values of {name} must be 0 or 1, but one is {wrong[0].item()}")
    return mask.bool()
