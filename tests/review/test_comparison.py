"""What became of every proposal."""

import numpy as np
import pytest
from export_scene import CORNER, DISC, HEIGHT, RING, SQUARE, WIDTH, box

from mmcast.masks.rle import encode_mask
from mmcast.review.comparison import compare_objects
from mmcast.review.returned import ReturnedObject
from mmcast.review.task import Proposal


def proposal(mask, label='cell', number=1):
    return Proposal(number, label, 0.5, encode_mask(mask))


def returned(mask, label='cell', iscrowd=False):
    return ReturnedObject(label, encode_mask(mask), iscrowd)


def outcomes(objects, proposals, unchanged_iou=0.8):
    return [
        (each.outcome, each.proposal and each.proposal.id)
        for each in compare_objects(objects, proposals, unchanged_iou)
    ]


def shifted(mask, rows, columns):
    return np.roll(mask, (rows, columns), (0, 1))


def test_each_object_is_unchanged_changed_added_or_removed():
    found = outcomes(
        [
            returned(RING),
            returned(SQUARE, 'nucleus'),
            returned(box(20, 2, 26, 12)),
            returned(DISC | box(8, 30, 10, 38)),
        ],
        [
            proposal(SQUARE, number=1),
            proposal(RING, number=2),
            proposal(CORNER & ~SQUARE, number=3),
            proposal(DISC, number=4),
        ],
    )
    assert found == [
        ('unchanged', 2), ('changed', 1), ('added', None), ('changed', 4), ('removed', 3),
    ]  # fmt: skip


@pytest.mark.parametrize('rows, columns', [(1, 0), (0, -1), (1, 1)])
def test_a_pixel_off_is_unchanged_and_keeps_the_pixels_of_the_proposal(rows, columns):
    moved = shifted(DISC, rows, columns)
    (each,) = compare_objects([returned(moved)], [proposal(DISC)], 0.7)
    iou = (moved & DISC).sum() / (moved | DISC).sum()
    assert each.outcome == 'unchanged' and each.iou == pytest.approx(iou)
    assert each.segmentation == encode_mask(DISC)
    (each,) = compare_objects([returned(moved)], [proposal(DISC)], 1)
    assert each.outcome == 'changed' and each.segmentation == encode_mask(moved)


def test_a_small_part_away_from_the_outline_is_a_change_however_high_the_iou():
    large = np.ones((HEIGHT, WIDTH), bool)
    hole = large & ~box(15, 20, 17, 22)
    (each,) = compare_objects([returned(hole)], [proposal(large)], 0.8)
    assert each.iou > 0.99 and each.outcome == 'changed'


def test_the_last_row_of_an_image_is_outline_too():
    large = np.ones((HEIGHT, WIDTH), bool)
    assert outcomes([returned(large & ~box(31, 0, 32, 48))], [proposal(large)]) == [
        ('unchanged', 1)
    ]


def test_pairs_are_chosen_together_and_of_equal_ones_that_of_the_class():
    """The first object overlaps both proposals; taken one by one it would get the other's."""
    one, two = box(0, 0, 10, 10), box(0, 5, 10, 15)
    assert outcomes(
        [returned(box(0, 2, 10, 12)), returned(one)], [proposal(one), proposal(two, number=2)]
    ) == [('changed', 2), ('unchanged', 1)]
    same = [proposal(one, 'nucleus', 1), proposal(one, 'cell', 2)]
    assert outcomes([returned(one, 'cell'), returned(one, 'nucleus')], same) == [
        ('unchanged', 2), ('unchanged', 1),
    ]  # fmt: skip


def test_a_proposal_that_became_a_group_is_changed():
    assert outcomes([returned(DISC, iscrowd=True)], [proposal(DISC)]) == [('changed', 1)]


def test_without_objects_or_proposals():
    assert outcomes([], [proposal(DISC)]) == [('removed', 1)]
    assert outcomes([returned(DISC)], []) == [('added', None)]
    assert outcomes([], []) == []
