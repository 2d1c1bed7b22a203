"""Overlaps of run-length encoded masks against the same on bitmaps."""

import numpy as np
import pytest
from pycocotools import mask as mask_utils

from mmcast.masks.overlaps import complement, resolve_overlaps, resolve_rle_overlaps
from mmcast.masks.rle import encode_mask


def masks_of(rng, count, density=None):
    height, width = rng.integers(1, 40, 2)
    return rng.random((count, height, width)) < (rng.random() if density is None else density)


def test_highest_score_takes_a_shared_pixel_and_ties_go_to_the_earlier():
    masks = np.array([[[1, 1, 0, 0]], [[0, 1, 1, 0]], [[0, 0, 1, 1]]], bool)
    expected = [[[1, 0, 0, 0]], [[0, 1, 1, 0]], [[0, 0, 0, 1]]]
    assert (
        resolve_overlaps(masks, np.array([0.5, 0.9, 0.9])).tolist()
        == np.array(expected, bool).tolist()
    )


@pytest.mark.parametrize('seed', range(40))
def test_rle_overlaps_are_those_of_bitmaps(seed):
    rng = np.random.default_rng(seed)
    masks = masks_of(rng, rng.integers(0, 7), density=0.2)
    scores = rng.integers(0, 4, len(masks)) / 4  # with ties
    resolved = resolve_rle_overlaps([encode_mask(mask) for mask in masks], scores.tolist())
    assert [rle['counts'] for rle in resolved] == [
        str(rle['counts']) for rle in resolved
    ]  # text, for JSON
    for rle, mask in zip(resolved, resolve_overlaps(masks, scores), strict=True):
        assert np.array_equal(mask_utils.decode(rle), mask)


@pytest.mark.parametrize('density', [0, 0.01, 0.5, 0.99, 1])
def test_masks_are_encoded_as_pycocotools_encodes_them(density):
    rng = np.random.default_rng(0)
    for mask in (masks_of(rng, 1, density)[0] for _ in range(200)):
        reference = mask_utils.encode(np.asfortranarray(mask, np.uint8))
        assert encode_mask(mask) == dict(
            size=reference['size'], counts=reference['counts'].decode()
        )


@pytest.mark.parametrize('density', [0, 0.01, 0.5, 0.99, 1, None])
def test_complement_is_the_other_pixels_as_coco_writes_them(density):
    rng = np.random.default_rng(0)
    for mask in (masks_of(rng, 1, density)[0] for _ in range(50)):
        assert complement(encode_mask(mask))['counts'].decode() == encode_mask(~mask)['counts']


def test_long_runs_have_numbers_of_several_characters():
    mask = np.zeros((700, 900), bool)
    mask[13:650, 17:800] = True
    mask[:, 400:410] = False
    assert complement(encode_mask(mask))['counts'].decode() == encode_mask(~mask)['counts']
    assert complement(encode_mask(~mask))['counts'].decode() == encode_mask(mask)['counts']


def test_encoded_mask_is_that_of_pycocotools():
    mask = np.random.default_rng(0).random((2, 31, 47)) < 0.5
    for layout in (
        mask[0],
        mask.transpose(0, 2, 1)[1],
        np.asfortranarray(mask[0]),
        mask[1, ::2, 3:],
    ):
        reference = mask_utils.encode(np.asfortranarray(layout, dtype=np.uint8))
        assert encode_mask(layout) == dict(
            size=reference['size'], counts=reference['counts'].decode()
        )
