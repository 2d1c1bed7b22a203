"""Both teachers on overlapping windows of an image."""

from unittest import mock

import numpy as np
import pytest
import torch
from mmdet.structures import DetDataSample
from mmdet.structures.mask import mask2bbox
from tiny_sam3 import sam3
from tiny_teacher import teacher

from mmcast.masks.tiling import Windows

SIDE = 48
CORNERS = [(y, x) for y in (0, SIDE) for x in (0, SIDE)]
FIELDS = ('class_scores', 'mask_quality', 'agreement', 'labels')


@pytest.fixture(scope='module', params=[teacher, sam3], ids=['grounded_sam', 'sam3'])
def model(request, tmp_path_factory):
    return request.param(tmp_path_factory.mktemp('teacher')).eval()


def predict(model, *images):
    samples = [
        DetDataSample(metainfo=dict(img_shape=image.shape[:2], ori_shape=image.shape[:2]))
        for image in images
    ]
    inputs = [torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1))) for image in images]
    with torch.no_grad():
        found = model.test_step(dict(inputs=inputs, data_samples=samples))
    return [sample.pred_instances for sample in found]


def photo(size, seed=0):
    coarse = np.random.default_rng(seed).integers(0, 256, (6, 6, 3), dtype=np.uint8)
    return np.kron(coarse, np.ones((16, 16, 1), np.uint8))[: size[0], : size[1]]


def test_an_instance_of_one_window_is_what_that_window_shows_alone(model):
    """Without overlap nothing is seen twice; an instance that a border cuts may be completed by the
    neighbour's.
    """
    image = photo((2 * SIDE, 2 * SIDE))
    windows = [image[y : y + SIDE, x : x + SIDE] for y, x in CORNERS]
    # In the same batches as below: on some processors another size rounds differently.
    alone = [*predict(model, *windows[:2]), *predict(model, *windows[2:])]
    threshold = sorted(torch.cat([found.scores for found in alone]).tolist())[-8]
    with mock.patch.object(model, 'windows', Windows(SIDE, 0, threshold, batch_size=2)):
        found = predict(model, image)[0]
    assert 1 <= len(found) <= 7 and found.masks.shape[1:] == (2 * SIDE, 2 * SIDE)
    assert not {'logits', 'corner'} & set(found.keys())
    torch.testing.assert_close(found.bboxes, mask2bbox(found.masks))
    for instance in range(len(found)):
        (corner, of_window), *others = [
            (corner, part[part.scores == found.scores[instance]])
            for corner, part in zip(CORNERS, alone)
            if (part.scores == found.scores[instance]).any()
        ]
        assert not others and len(of_window) == 1
        y, x = corner
        there = found.masks[instance, y : y + SIDE, x : x + SIDE]
        assert torch.equal(there, of_window.masks[0])
        assert all(found[name][instance] == of_window[name][0] for name in FIELDS)


def test_an_image_on_which_no_window_shows_anything_is_empty(model):
    with mock.patch.object(model, 'windows', Windows(SIDE, 16, score_thr=1.0)):
        found = predict(model, photo((96, 64)))[0]
    assert len(found) == 0 and found.masks.shape == (0, 96, 64)


def test_masks_of_windows_come_at_the_size_of_the_original(model):
    sample = DetDataSample(metainfo=dict(img_shape=(64, 96), ori_shape=(128, 192)))
    image = torch.from_numpy(np.ascontiguousarray(photo((64, 96)).transpose(2, 0, 1)))
    with (
        torch.no_grad(),
        mock.patch.object(model, 'windows', Windows(SIDE, 16, score_thr=0.0)),
    ):
        found = model.test_step(dict(inputs=[image], data_samples=[sample]))[0].pred_instances
    assert len(found) and found.masks.shape[1:] == (128, 192)
    assert found.bboxes[:, 2].max() > 96
