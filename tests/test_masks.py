"""Border policies, and the resizing of trimaps."""

import numpy as np
import pytest

from petseg_lib.data.masks import BORDER_POLICIES, resize_trimap, target_and_scored

TRIMAP = np.array([[1, 2, 3], [3, 1, 2]], dtype=np.uint8)


@pytest.mark.parametrize(
    ("policy", "target", "scored"),
    [
        ("pet", [[1, 0, 1], [1, 1, 0]], [[1, 1, 1], [1, 1, 1]]),
        ("background", [[1, 0, 0], [0, 1, 0]], [[1, 1, 1], [1, 1, 1]]),
        ("edge", [[0, 0, 1], [1, 0, 0]], [[1, 1, 1], [1, 1, 1]]),
        ("ignore", [[1, 0, 0], [0, 1, 0]], [[1, 1, 0], [0, 1, 1]]),
    ],
)
def test_border_policies(policy, target, scored):
    found_target, found_scored = target_and_scored(TRIMAP, policy)
    assert (found_target.dtype, found_scored.dtype) == (np.uint8, bool)
    assert found_target.tolist() == target
    assert found_scored.astype(int).tolist() == scored


def test_there_are_four_policies_and_no_other():
    assert BORDER_POLICIES == ("pet", "background", "edge", "ignore")
    with pytest.raises(ValueError, match="border policy 'bordr' is unknown: it must be one of pet, background, edge"):
        target_and_scored(TRIMAP, "bordr")


def test_a_batch_of_trimaps_keeps_its_shape():
    target, scored = target_and_scored(np.full((5, 8, 9), 3, dtype=np.uint8), "ignore")
    assert target.shape == scored.shape == (5, 8, 9)
    assert not scored.any()


@pytest.mark.parametrize("size", [7, 31, 64, 129, (20, 90), (200, 33)])
def test_resizing_makes_no_new_classes(size):
    trimap = np.random.default_rng(0).choice(np.array([1, 3], dtype=np.uint8), (57, 83))
    resized = resize_trimap(trimap, size)
    assert resized.shape == ((size, size) if isinstance(size, int) else size)
    assert set(np.unique(resized)) == {1, 3}, "2 would be the mean of 1 and 3"


def test_resizing_takes_the_pixel_at_the_centre():
    trimap = np.array([[1, 2, 3]], dtype=np.uint8)
    assert resize_trimap(trimap, (1, 1)).tolist() == [[2]]
    assert resize_trimap(trimap, (1, 6)).tolist() == [[1, 1, 2, 2, 3, 3]]
    assert resize_trimap(trimap, (1, 3)).tolist() == [[1, 2, 3]]
