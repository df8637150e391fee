"""From trimaps to targets: what the border counts as, and how trimaps change their size."""

from typing import get_args

import cv2
import numpy as np

from petseg_lib.config import BorderPolicy

PET, BACKGROUND, BORDER = 1, 2, 3
BORDER_POLICIES: tuple[str, ...] = get_args(BorderPolicy)


def target_and_scored(trimap: np.ndarray, border_policy: str) -> tuple[np.ndarray, np.ndarray]:
    """What a network should say of each pixel, and which pixels count.

    Args:
        trimap: uint8 of any shape: 1 pet, 2 background, 3 border.
        border_policy: `pet` (pet and border are the target), `background` (the pet without its border), `edge` (the
            border alone), `ignore` (the pet without its border, and the border does not count).

    Returns:
        target: uint8, 0 or 1, the shape of the trimap.
        scored: bool, the same shape; False only on the border under `ignore`, where the target is 0.

    Raises:
        ValueError: the policy is unknown.
    """
    if border_policy not in BORDER_POLICIES:
        raise ValueError(f"border policy {border_policy!r} is unknown: it must be one of {', '.join(BORDER_POLICIES)}")
    if border_policy == "pet":
        target = trimap != BACKGROUND
    elif border_policy == "edge":
        target = trimap == BORDER
    else:
        target = trimap == PET
    scored = trimap != BORDER if border_policy == "ignore" else np.ones(trimap.shape, dtype=bool)
    return target.astype(np.uint8), scored


def resize_trimap(trimap: np.ndarray, size: int | tuple[int, int]) -> np.ndarray:
    """A trimap (H, W) at another size by nearest neighbour, the only way that makes no new classes.

    Args:
        trimap: (H, W) uint8.
        size: side of a square, or (height, width), px.
    """
    height, width = (size, size) if isinstance(size, int) else size
    # EXACT measures from pixel centres, as photographs are resized; plain INTER_NEAREST is half a pixel off.
    return cv2.resize(trimap, (width, height), interpolation=cv2.INTER_NEAREST_EXACT)
