"""Random changes of a training image and its trimap, alike for both."""

import random

import albumentations
import cv2
import numpy as np

from petseg_lib.config import ImageParameters
from petseg_lib.data.masks import BACKGROUND


def build_augmentation(parameters: ImageParameters, seed: int) -> albumentations.Compose:
    """Flip, shift, zoom, rotation and colour changes, as strong as the parameters say.

    Call it as `augmentation(image=..., mask=...)` with an (H, W, 3) uint8 image and its (H, W) uint8 trimap; it returns
    a dictionary with the same two. What comes in from outside the frame is black before colours change, and background in the trimap. Images
    are interpolated linearly, trimaps by nearest neighbour.

    Args:
        parameters: probabilities and ranges.
        seed: of the draws, 0 or more; `reseed` starts them anew.
    """
    changes = []
    if parameters.flip_probability > 0:
        changes.append(albumentations.HorizontalFlip(p=parameters.flip_probability))
    if parameters.affine_probability > 0:
        changes.append(_affine(parameters))
    if parameters.colour > 0:
        changes.append(_colour_jitter(parameters.colour))
    augmentation = albumentations.Compose(changes)
    reseed(augmentation, seed)
    return augmentation


def reseed(augmentation: albumentations.Compose, *seed: int) -> None:
    """Make the next draws a function of some numbers, each 0 or more, such as (seed, epoch, image).

    All changes draw from one stream. (albumentations' own `set_random_seed` gives each change a stream of its own with
    the same start: reseeded for each image, it would flip exactly those that it also rotates.)
    """
    generator = np.random.default_rng(seed)
    augmentation.set_random_state(generator, random.Random(int(generator.integers(2**63))))


def _affine(parameters: ImageParameters) -> albumentations.Affine:
    return albumentations.Affine(
        translate_percent=(-parameters.shift, parameters.shift),
        scale=(parameters.scale_min, parameters.scale_max),
        keep_ratio=True,
        rotate=(-parameters.rotate, parameters.rotate),
        interpolation=cv2.INTER_LINEAR,
        mask_interpolation=cv2.INTER_NEAREST,
        border_mode=cv2.BORDER_CONSTANT,
        fill=0,
        fill_mask=BACKGROUND,
        p=parameters.affine_probability,
    )


def _colour_jitter(strength: float) -> albumentations.ColorJitter:
    around_one = (1 - strength, 1 + strength)
    hue = strength / 4  # of the colour circle: a quarter each way at most, so that fur keeps a colour of fur
    return albumentations.ColorJitter(brightness=around_one, contrast=around_one, saturation=around_one, hue=(-hue, hue), p=1.0)


def cutmix(images: np.ndarray, trimaps: np.ndarray, probability: float, *seed: int) -> None:
    """Replace a rectangle of some images, and of their trimaps, by what the next image of the batch has there (Yun et al. 2019).

    Its share of the image is uniform between 0 and 1, and so is its centre's place; what lies outside of the frame is cut off.

    Args:
        images, trimaps: (N, S, S, 3) and (N, S, S) uint8, changed in place; the last image's next one is the first.
        probability: of each image, 0 to 1.
        seed: the draws are a function of these numbers, each 0 or more.
    """
    generator = np.random.default_rng(seed)
    side = images.shape[1]
    others, other_trimaps = np.roll(images, -1, axis=0), np.roll(trimaps, -1, axis=0)
    for position in range(len(images)):
        mixed, share, *centre = generator.random(4)
        if mixed < probability:
            half = side * share**0.5 / 2
            rows, columns = (slice(max(0, round(side * middle - half)), round(side * middle + half)) for middle in centre)
            images[position, rows, columns] = others[position, rows, columns]
            trimaps[position, rows, columns] = other_trimaps[position, rows, columns]
