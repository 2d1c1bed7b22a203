"""Instances from queries against mmdet's own way of making them, which resizes everything first."""

import math

import pytest
import torch
from mmdet.models.detectors import Mask2Former

from mmcast.models.student.postprocess import (
    BAND,
    bands_of,
    keep_best,
    make_instances,
    path_weights,
    resize_and_score,
    resize_weights,
)
from mmcast.testing.data import make_samples
from mmcast.testing.models import build_model, tiny_student_config


def blobs(*shape, seed=0):
    """Smooth random logits, positive here and there."""
    noise = torch.randn(*shape, generator=torch.Generator().manual_seed(seed))
    return torch.nn.functional.avg_pool2d(noise, 3, stride=1, padding=1) - 0.3


@pytest.mark.parametrize('size_in, size_out', [(7, 14), (7, 20), (20, 7), (5, 5), (1, 4)])
def test_weights_are_those_of_interpolate(size_in, size_out):
    values = torch.randn(1, 2, size_in)
    want = torch.nn.functional.interpolate(values, size_out, mode='linear', align_corners=False)
    torch.testing.assert_close(values @ resize_weights(size_in, size_out, values).T, want)


def test_way_of_a_mask_is_resize_crop_resize():
    masks = torch.randn(1, 1, 9, 12)
    bilinear = dict(mode='bilinear', align_corners=False)
    step = torch.nn.functional.interpolate(masks, (36, 48), **bilinear)[..., :30, :41]
    want = torch.nn.functional.interpolate(step, (75, 66), **bilinear)[0, 0]
    rows, columns = path_weights(9, 36, 30, 75, masks), path_weights(12, 48, 41, 66, masks)
    torch.testing.assert_close(rows @ masks[0, 0] @ columns.T, want)
    torch.testing.assert_close(
        path_weights(9, 36, 30, None, masks) @ masks[0, 0],
        (resize_weights(9, 36, masks) @ masks[0, 0])[:30],
    )


def test_only_the_window_is_resized_and_nothing_is_missed():
    logits = blobs(6, 9, 12)
    logits[4] = -1  # nothing
    logits[5] = 1  # everything
    rows, columns = path_weights(9, 36, 30, 75, logits), path_weights(12, 48, 41, 66, logits)
    masks, scores, boxes = resize_and_score(logits, rows, columns)
    whole = rows @ logits @ columns.T
    assert torch.equal(masks, whole > 0)
    for mask, score, box, values in zip(masks, scores, boxes, whole):
        if not mask.any():
            assert score == 0 and not box.any()
            continue
        assert score.item() == pytest.approx(values[mask].sigmoid().mean().item(), rel=1e-5)
        y, x = mask.nonzero(as_tuple=True)
        assert box.tolist() == [x.min(), y.min(), x.max() + 1, y.max() + 1]


@pytest.mark.parametrize(
    'sizes', [(28, 112, 110, 300), (148, 518, 512, None), (148, 592, 580, None)]
)
def test_products_in_bands_are_bit_by_bit_those_of_the_whole_matrix(sizes):
    like = torch.zeros(1)
    weights = path_weights(*sizes, like)
    values = blobs(1, sizes[0], 2 * sizes[0])[0]
    bands = bands_of(weights)
    assert [band[:2] for band in bands] == [
        (start, min(start + BAND, len(weights))) for start in range(0, len(weights), BAND)
    ]
    for start, stop, first, last in bands:
        part = weights[start:stop, first:last]
        assert torch.equal(part @ values[first:last], (weights @ values)[start:stop])
        assert last - first <= BAND * sizes[0] / sizes[1] + 4


def test_best_pairs_of_query_and_class_by_hand():
    # Without "no object": query 0 has 3/6 and 2/6, query 1 has 1/4 and 2/4 (of 4), query 2 almost
    # nothing.
    logits = torch.tensor([[3.0, 2.0, 1.0], [1.0, 2.0, 1.0], [0.01, 0.01, 5.0]]).log()
    scores, queries, labels = keep_best(logits, 3)
    order = scores.argsort(descending=True, stable=True)
    assert sorted(zip(queries.tolist(), labels.tolist())) == [(0, 0), (0, 1), (1, 1)]
    torch.testing.assert_close(scores[order], torch.tensor([0.5, 0.5, 1 / 3]))


def test_factors_of_the_score_by_hand():
    """One feature channel of ones, so that an embedding is its mask's logit everywhere; identity
    resizing.
    """
    class_logits = torch.tensor([[3.0, 1.0], [1.0, 1.0]]).log()  # 3/4 and 1/2 for the only class
    one = torch.eye(2)
    instances = make_instances(
        class_logits, torch.tensor([[3.0], [-1.0]]), torch.ones(1, 2, 2), one, one, 2, 1
    )
    first, second = instances[instances.class_scores > 0.6], instances[instances.class_scores < 0.6]
    inside = 1 / (1 + math.exp(-3))
    assert first.class_scores.item() == pytest.approx(
        0.75
    ) and first.scores.item() == pytest.approx(0.75 * inside)
    assert first.mask_quality.item() == pytest.approx(inside, rel=1e-5) and first.masks.all()
    assert second.mask_quality.item() == second.scores.item() == 0 and not second.masks.any()


@pytest.mark.parametrize('kept, floor', [(8, 0.2), (3, 0.75)])
def test_what_is_below_the_floor_is_left_out_and_the_rest_stays(kept, floor):
    """Of queries with several labels each (8) and with one at most (3), bit by bit."""
    torch.manual_seed(0)
    arguments = (
        torch.tensor([[4.0, 3.0, 0.0], [2.0, 0.0, 0.0], [0.0, 1.0, 3.0], [0.0, 3.0, 0.0]]),
        torch.randn(4, 6),
        torch.randn(6, 8, 9),
        path_weights(8, 32, 30, 50, torch.zeros(1)),
        path_weights(9, 36, 36, 60, torch.zeros(1)),
        kept,
        2,
        True,
    )
    everything = make_instances(*arguments)
    expected = everything[everything.class_scores > floor]
    found = make_instances(*arguments, score_floor=floor)
    assert 0 < len(found) < len(everything)
    for name, values in expected.items():
        assert torch.equal(found[name], values)


@pytest.mark.parametrize('panoptic', [False, True])
def test_more_instances_than_queries_times_classes_are_all_of_them(panoptic):
    """A config for many objects with a head of few queries; mmdet's own postprocessing too."""
    config = tiny_student_config(num_classes=3, num_queries=2)
    config.test_cfg.update(max_per_image=100, panoptic_on=panoptic)
    student = build_model(config).eval()
    images, samples = make_samples([0])
    with torch.no_grad():
        found = student.predict(images, samples)[0].pred_instances
    assert len(found) == 6 and config.test_cfg.max_per_image == 100
    assert len(keep_best(torch.zeros(2, 4), 100)[0]) == 6


@pytest.mark.parametrize('rescale', [True, False])
@pytest.mark.parametrize('max_per_image', [4, 18])
def test_predictions_are_mmdets(rescale, max_per_image):
    """Of two images padded to one size, with as many instances kept as there are pairs, and with
    fewer.
    """
    config = tiny_student_config(num_classes=3, num_queries=6)
    config.test_cfg.max_per_image = max_per_image
    student = build_model(config).eval()
    images, samples = make_samples([0, 0])
    for sample, shape, original in zip(samples, [(50, 64), (64, 41)], [(75, 96), (100, 61)]):
        sample.set_metainfo(dict(img_shape=shape, ori_shape=original))
    with torch.no_grad():
        student.panoptic_head.pixel_decoder.mask_feature[-1].weight.mul_(20)  # masks of both signs
        ours, theirs = (
            cls.predict(student, images, [s.new() for s in samples], rescale)
            for cls in (type(student), Mask2Former)
        )
    for our, their in zip(ours, theirs):
        our, their = our.pred_instances, their.pred_instances
        assert torch.equal(our.labels, their.labels)
        torch.testing.assert_close(our.scores, their.scores, rtol=1e-4, atol=1e-5)
        assert our.masks.shape == their.masks.shape and our.masks.dtype == their.masks.dtype
        assert 0.05 < their.masks.float().mean() < 0.95
        different = (our.masks != their.masks).flatten(1).sum(1)
        assert different.max() <= 2  # logits within rounding of 0
        same = different == 0
        assert same.any() and torch.equal(our.bboxes[same], their.bboxes[same])
