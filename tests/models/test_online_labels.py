"""Which of a teacher's predictions become labels, and what becomes of those of a file."""

import numpy as np
import pytest
import torch
from mmdet.structures.mask import BitmapMasks
from mmengine.structures import InstanceData

from mmcast.errors import CASTError
from mmcast.models.online_labels import OnlineLabels


def columns(*ranges, size=(4, 20)):
    """Masks of whole columns, from and to."""
    masks = np.zeros((len(ranges), *size), dtype=bool)
    for mask, (left, right) in zip(masks, ranges):
        mask[:, left:right] = True
    return masks


def predictions(masks, classes, qualities):
    classes, qualities = torch.tensor(classes), torch.tensor(qualities)
    return InstanceData(
        scores=classes * qualities,
        class_scores=classes,
        mask_quality=qualities,
        labels=torch.arange(len(classes)),
        masks=torch.from_numpy(masks),
    )


FIVE = predictions(
    columns((0, 2), (4, 6), (8, 10), (12, 14), (16, 18)),
    [0.9, 0.7, 0.95, 0.6, 0.8],
    [0.9, 0.99, 0.5, 0.99, 0.91],
)


@pytest.mark.parametrize(
    'options, kept',
    [
        (dict(score_thr=0.7), [0, 4]),
        (dict(score_thr=0, class_score_thr=0.7), [0, 2, 4]),  # 0.7 itself is not above it
        (dict(score_thr=0, mask_quality_thr=0.9), [1, 3, 4]),
        (dict(score_thr=0, class_score_thr=0.7, mask_quality_thr=0.9), [4]),
        (dict(score_thr=0.6, class_score_thr=0.85), [0]),
    ],
    ids=str,
)
def test_each_score_has_a_threshold_of_its_own(options, kept):
    found = OnlineLabels(**options).choose(FIVE, (8, 24))
    assert found.labels.tolist() == kept
    assert np.array_equal(found.masks.masks[:, :4, :20], FIVE.masks[kept].numpy())
    assert found.masks.masks.shape[1:] == (8, 24)


def test_a_threshold_on_what_the_teacher_does_not_tell_is_refused():
    plain = InstanceData(
        scores=torch.tensor([0.9]), labels=torch.tensor([0]), masks=torch.ones(1, 4, 4).bool()
    )
    assert len(OnlineLabels().choose(plain, (4, 4))) == 1
    with pytest.raises(
        CASTError, match='class_score_thr is set, but the online teacher predicts no'
    ):
        OnlineLabels(class_score_thr=0.5).choose(plain, (4, 4))


def test_what_better_labels_leave_too_little_of_is_a_duplicate():
    """The second keeps 3 of 10 columns, the third all, the fourth 1 of 2 after the third."""
    masks = columns((0, 10), (3, 13), (14, 20), (13, 15))
    pred = predictions(masks, [0.9, 0.8, 0.7, 0.6], [1.0] * 4)
    by_visible = {
        visible: OnlineLabels(min_visible=visible).choose(pred, (4, 20)).labels.tolist()
        for visible in (0.0, 0.31, 0.5, 0.51)
    }
    assert by_visible == {0.0: [0, 1, 2, 3], 0.31: [0, 2, 3], 0.5: [0, 2, 3], 0.51: [0, 2]}


def test_labels_of_a_file_stay_and_those_that_it_lacks_are_added():
    """Of the online ones the first is in the file, the second beside it, the third half covered,
    the fourth mostly.
    """
    file = InstanceData(
        labels=torch.tensor([7, 7]),
        masks=BitmapMasks(columns((0, 6), (5, 8)).astype(np.uint8), 4, 20),
    )
    pred = predictions(columns((0, 5), (15, 18), (7, 9), (2, 10)), [0.9, 0.8, 0.7, 0.6], [1.0] * 4)
    labels = OnlineLabels(min_visible=0.0)
    online = labels.choose(pred, (4, 20))
    both = OnlineLabels(min_visible=0.5).add(file, online)
    assert both.labels.tolist() == [7, 7, 1, 2]
    # Labels of a file may overlap, if its data set lets them; what is added overlaps nothing.
    assert np.array_equal(both.masks.masks, columns((0, 6), (5, 8), (15, 18), (8, 9)))
    assert both.bboxes.tolist()[2:] == [[15, 0, 18, 4], [8, 0, 9, 4]]


@pytest.mark.parametrize('file, online', [(0, 1), (1, 0), (0, 0)])
def test_nothing_can_be_added_to_nothing(file, online):
    labels = OnlineLabels()
    pred = predictions(columns(*[(0, 3)] * online), [0.9] * online, [1.0] * online)
    known = InstanceData(
        labels=torch.zeros(file).long(),
        masks=BitmapMasks(columns(*[(9, 12)] * file).astype(np.uint8), 4, 20),
    )
    both = labels.add(known, labels.choose(pred, (4, 20)))
    assert len(both.labels) == len(both.masks.masks) == file + online
    assert both.masks.masks.shape[1:] == (4, 20) and both.bboxes.shape == (file + online, 4)
