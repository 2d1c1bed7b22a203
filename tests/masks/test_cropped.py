"""Cropped masks against whole ones in numpy, OpenCV and pycocotools."""

import cv2
import numpy as np
import pytest
from pycocotools import mask as mask_api

from mmcast.masks.cropped import CroppedMasks
from mmcast.masks.drawing import draw_instances
from mmcast.masks.rle import encode_crop, encode_mask


def random_masks(rng, size, number=4):
    """Speckled boxes, some over the whole image, one of no pixel."""
    masks = np.zeros((number + 1, *size), bool)
    for mask in masks[:number]:
        (top, left), (height, width) = rng.integers(0, size), rng.integers(1, 60, 2)
        mask[top : top + height, left : left + width] = True
        if rng.random() < 0.2:
            mask[:] = True
        mask &= rng.random(size) < rng.choice([0.3, 0.9, 1])
    return masks


def sizes(seed, number=40, largest=90):
    return np.random.default_rng(seed).integers(1, largest, (number, 2)).tolist()


@pytest.mark.parametrize('size', sizes(0))
def test_whole_masks_come_back_and_their_facts_are_right(size):
    masks = random_masks(np.random.default_rng(size), size)
    cropped = CroppedMasks.of(masks, size)
    assert np.array_equal(cropped.to_array(), masks)
    assert np.array_equal(cropped.any(), masks.any((1, 2)))
    assert cropped.areas() == masks.sum((1, 2)).tolist()
    chosen = np.array([3, 0, 0])
    assert np.array_equal(cropped[chosen].to_array(), masks[chosen])
    known = CroppedMasks.in_boxes(masks, cropped.boxes())
    assert np.array_equal(known.to_array(), masks)
    assert np.array_equal(known.corners, cropped.corners)
    swapped = masks[[2, 1, 0, *range(3, len(masks))]]
    assert np.array_equal(cropped.replaced([2, 0], cropped[[0, 2]]).to_array(), swapped)
    assert np.array_equal(cropped[cropped.any()].to_array(), masks[masks.any((1, 2))])
    for box, mask in zip(cropped.boxes().tolist(), masks):
        ys, xs = np.nonzero(mask)
        assert box == ([xs.min(), ys.min(), xs.max() + 1, ys.max() + 1] if len(xs) else [0] * 4)


def test_no_masks_have_a_size():
    cropped = CroppedMasks.of(np.zeros((0, 5, 7), bool), (5, 7))
    assert cropped.to_array().shape == (0, 5, 7) and cropped.boxes().shape == (0, 4)
    assert len(cropped.resize((3, 2))) == len(cropped.copy_to((2, 2), (9, 9))) == 0


def test_parts_are_placed_joined_and_cut():
    masks = random_masks(np.random.default_rng(0), (30, 40))
    moved = CroppedMasks.of(masks, (30, 40)).copy_to((5, 8), (60, 70))
    expected = np.pad(masks, ((0, 0), (5, 25), (8, 22)))
    assert np.array_equal(moved.to_array(), expected)
    assert not any(np.shares_memory(crop, masks) for crop in moved.crops)
    both = CroppedMasks.joined([moved, moved]).cut_to((20, 33))
    assert np.array_equal(both.to_array(), np.concatenate([expected] * 2)[:, :20, :33])


@pytest.mark.parametrize('size', sizes(1))
def test_resizing_is_that_of_whole_masks(size):
    rng = np.random.default_rng(size)
    masks = random_masks(rng, size)
    wanted = ([2 * side for side in size], [max(side // 2, 1) for side in size], *sizes(size, 2))
    for height, width in wanted:
        whole = [
            cv2.resize(mask.astype(np.float32), (width, height), interpolation=cv2.INTER_LINEAR)
            for mask in masks
        ]
        found = CroppedMasks.of(masks, size).resize((height, width))
        assert np.array_equal(found.to_array(), np.stack(whole) > 0.5)


@pytest.mark.parametrize('size', sizes(2, largest=12))
def test_run_lengths_are_those_of_whole_masks(size):
    masks = random_masks(np.random.default_rng(size), size, number=20)
    cropped = CroppedMasks.of(masks, size)
    for mask, crop, corner in zip(masks, cropped.crops, cropped.corners.tolist()):
        expected = mask_api.encode(np.asfortranarray(mask, dtype=np.uint8))['counts'].decode()
        assert encode_mask(mask)['counts'] == expected
        assert encode_crop(crop, corner, size) == dict(size=size, counts=expected)


def test_what_is_drawn_lies_where_the_mask_is():
    image = np.zeros((40, 60, 3), np.uint8)
    mask = np.zeros((40, 60), bool)
    mask[12:30, 20:50] = True
    mask[18:22, 30:40] = False
    for masks in ([mask], CroppedMasks.of([mask], (40, 60))):
        drawing = draw_instances(image, masks, [(200, 100, 50)])
        ring = cv2.dilate(mask.astype(np.uint8), np.ones((3, 3))).astype(bool)
        assert (drawing[mask].any(-1)).all() and not drawing[~ring].any()
        assert drawing[12, 30].tolist() == [200, 100, 50]  # the outline
        assert drawing[15, 25].tolist() == [90, 45, 22]  # the fill
