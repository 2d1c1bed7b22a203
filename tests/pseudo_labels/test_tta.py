"""Several looks at one image become one set of instances."""

import json

import numpy as np
import pytest
import torch
from colour_teacher import generate, make_config, make_data
from devices import DEVICES
from mmdet.structures import DetDataSample
from mmengine.structures import InstanceData
from stored_labels import rectangle

from mmcast.errors import CASTError
from mmcast.pseudo_labels.tta import merge_views, predict_views
from mmcast.testing.models import build_model, tiny_student_config


def view(*instances):
    """Instances of (label, score, mask)."""
    labels, scores, masks = zip(*instances)
    return InstanceData(
        labels=torch.tensor(labels),
        scores=torch.tensor(scores),
        class_scores=torch.tensor(scores),
        mask_quality=torch.ones(len(scores)) * 0.5,
        masks=torch.from_numpy(np.stack(masks)),
    )


A, B = rectangle(0, 0, 10, 10), rectangle(0, 15, 10, 10)


def test_seen_in_every_view_keeps_its_score_and_seen_in_one_loses_the_rest():
    merged = merge_views([view((1, 0.5, A), (0, 0.8, B)), view((1, 0.9, A))], 0.05)
    assert merged.labels.tolist() == [1, 0]
    assert merged.scores.tolist() == pytest.approx([0.7, 0.4])
    assert merged.class_scores.tolist() == pytest.approx([0.7, 0.4])
    assert merged.mask_quality.tolist() == pytest.approx([0.5, 0.5])
    assert torch.equal(merged.masks, torch.from_numpy(np.stack([A, B])))


def test_other_classes_and_places_stay_apart_and_a_view_counts_once():
    merged = merge_views([view((1, 0.8, A), (1, 0.6, A)), view((2, 0.7, A), (1, 0.5, B))], 0.05)
    assert merged.labels.tolist() == [1, 2, 1, 1]
    assert merged.scores.tolist() == pytest.approx([0.4, 0.35, 0.3, 0.25])


def test_a_pixel_needs_more_than_half_of_the_scores():
    narrow, wide = rectangle(0, 0, 10, 7), rectangle(0, 0, 10, 10)
    for scores, expected in (((0.9, 0.3), wide), ((0.3, 0.9), narrow)):
        merged = merge_views([view((0, scores[0], wide)), view((0, scores[1], narrow))], 0.05)
        assert torch.equal(merged.masks[0], torch.from_numpy(expected))


def test_nothing_above_the_floor():
    merged = merge_views([view((1, 0.04, A)), view((1, 0.03, A))], 0.05)
    assert len(merged.scores) == 0 and merged.masks.shape == (0, *A.shape)


@pytest.mark.parametrize('device', DEVICES)
def test_mirrored_images_give_a_symmetric_teacher_the_same_labels(device, tmp_path):
    make_data(tmp_path)
    config = make_config(with_factors=True)
    generate(tmp_path, 'plain.json', config=config, device=device)
    generate(tmp_path, 'flip.json', config=config, device=device, flip=True)
    plain, flip = (
        json.loads((tmp_path / f'{name}.json').read_text()) for name in ('plain', 'flip')
    )
    assert flip['info'].pop('views') == dict(flip=True, scales=[1.0])
    assert plain['info'].pop('views') == dict(flip=False, scales=[1.0])

    def by_mask(labels):
        return sorted(labels, key=lambda ann: (ann['image_id'], ann['category_id']))

    for one, other in zip(by_mask(plain['annotations']), by_mask(flip['annotations']), strict=True):
        assert other.pop('score') == pytest.approx(one.pop('score'), abs=1e-6)
        assert one | dict(id=0) == other | dict(id=0)
    with pytest.raises(CASTError, match=r'plain\.json was made with another views'):
        generate(tmp_path, 'plain.json', config=config, flip=True)


def test_all_sizes_give_masks_of_the_image():
    model = build_model(tiny_student_config()).eval()
    sample = DetDataSample(
        metainfo=dict(img_shape=(40, 64), ori_shape=(80, 128), scale_factor=(0.5, 0.5))
    )
    data = dict(inputs=torch.randint(0, 256, (3, 40, 64), dtype=torch.uint8), data_samples=sample)
    with torch.no_grad():
        views = predict_views(model, data, flip=True, scales=[1, 0.5, 1.5])
        again = predict_views(model, data, flip=False, scales=[1])
    assert [found.masks.shape[1:] for found in views] == [(80, 128)] * 6
    assert torch.equal(views[0].scores, again[0].scores)  # the views left the image as it was
    assert not torch.equal(views[0].scores, views[1].scores)
    assert sample.img_shape == (40, 64) and sample.scale_factor == (0.5, 0.5)


def test_sizes_must_be_above_zero(tmp_path):
    make_data(tmp_path)
    with pytest.raises(CASTError, match='scales are .* give one or more factors above 0'):
        generate(tmp_path, scales=[1, 0])
