"""Several looks at one image become one set of instances."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from colour_teacher import generate, make_config, make_data
from devices import DEVICES
from mmdet.structures import DetDataSample
from mmengine.dataset import Compose
from mmengine.structures import InstanceData
from pycocotools import mask as mask_utils
from stored_labels import rectangle

from mmcast.configs import load_config
from mmcast.errors import CASTError
from mmcast.models.weights.loading import load_weights
from mmcast.pseudo_labels.generate import generate_pseudo_labels
from mmcast.pseudo_labels.tta import merge_views, predict_views
from mmcast.registry import MODELS
from mmcast.testing.models import build_model, tiny_student_config
from mmcast.toy.cityscapes import generate_toy_cityscapes

CONFIGS = Path(__file__).parents[2] / 'configs'


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
        views = predict_views(model, data, flip=True, scales=[1, 0.5, 1.5], batch_size=1)
        again = predict_views(model, data, flip=False, scales=[1])
    assert [found.masks.shape[1:] for found in views] == [(80, 128)] * 6
    assert torch.equal(views[0].scores, again[0].scores)  # the views left the image as it was
    assert not torch.equal(views[0].scores, views[1].scores)
    assert sample.img_shape == (40, 64) and sample.scale_factor == (0.5, 0.5)


def merged_slowly(views, floor):
    """``merge_views`` pixel by pixel of whole images; of the scores alone."""
    found = [
        (float(score), number, view.masks[i].numpy(), int(view.labels[i]))
        for number, view in enumerate(views)
        for i, score in enumerate(view.scores)
        if score > floor
    ]
    groups = []
    for one in sorted(found, key=lambda each: -each[0]):
        ious = [
            (one[2] & group[0][2]).sum() / max((one[2] | group[0][2]).sum(), 1)
            if one[3] == group[0][3] and one[1] not in [each[1] for each in group]
            else 0
            for group in groups
        ]
        if groups and max(ious) >= 0.5:
            groups[ious.index(max(ious))].append(one)
        else:
            groups.append([one])
    masks = [
        sum(score * mask for score, _, mask, _ in group) > sum(each[0] for each in group) / 2
        for group in groups
    ]
    return [group[0][3] for group in groups], masks, [sum(e[0] for e in g) for g in groups]


@pytest.mark.parametrize('seed', range(20))
def test_merged_masks_are_those_of_a_slow_way(seed):
    """Rectangles in few places, so that many overlap; some are empty, some scores are equal."""
    rng = np.random.default_rng(seed)
    views = [
        view(
            *(
                (
                    int(rng.integers(2)),
                    float(np.float32(rng.choice([0.04, 0.3, 0.3, rng.random()]))),
                    rectangle(*rng.integers(0, 4, 2), *rng.integers(0, 9, 2)),
                )
                for _ in range(rng.integers(1, 12))
            )
        )
        for _ in range(6)
    ]
    merged = merge_views(views, 0.05)
    labels, masks, sums = merged_slowly(views, 0.05)
    assert merged.labels.tolist() == labels
    assert np.array_equal(merged.masks.numpy(), masks)
    assert merged.scores.tolist() == pytest.approx([total / 6 for total in sums])


def test_labels_of_six_views_are_those_of_view_by_view(tmp_path):
    """Mirrored images in one batch with the others and a network made faster, against each view by
    itself in the network as it is. The toy's teacher on street scenes.
    """
    config = load_config(CONFIGS / 'toy/toy_teacher_adapt_labeled.py')
    checkpoint = CONFIGS / 'toy/weights/toy_teacher.pth'
    generate_toy_cityscapes(tmp_path / 'toy', num_train=0, num_val=2, progress=False)
    images = tmp_path / 'toy/leftImg8bit/val'
    views = dict(flip=True, scales=[0.75, 1, 1.25])
    generate_pseudo_labels(
        config,
        checkpoint,
        tmp_path / 'labels.json',
        img_dir=images,
        device='cpu',
        num_workers=0,
        progress=False,
        **views,
    )
    found = json.loads((tmp_path / 'labels.json').read_text())
    model = MODELS.build(config.model).eval()
    load_weights(model, str(checkpoint))
    dataset = config.test_dataloader.dataset
    prepare = Compose([step for step in dataset.pipeline if step.type != 'LoadAnnotations'])
    count = 0
    for image in found['images']:
        data = prepare(dict(img_path=str(images / image['file_name']), img_id=1))
        with torch.no_grad():
            plain = predict_views(model, data, batch_size=1, **views)
        labels, masks, sums = merged_slowly(plain, 0.05)
        kept = [i for i, total in enumerate(sums) if total / 6 > 0.05]
        stored = [ann for ann in found['annotations'] if ann['image_id'] == image['id']]
        assert [ann['category_id'] - 1 for ann in stored] == [labels[i] for i in kept]
        for ann, i in zip(stored, kept):
            assert np.array_equal(mask_utils.decode(ann['segmentation']), masks[i])
            assert ann['score'] == pytest.approx(sums[i] / 6, abs=1e-5)
        count += len(stored)
    assert count > 20


def test_sizes_must_be_above_zero(tmp_path):
    make_data(tmp_path)
    with pytest.raises(CASTError, match='scales are .* give one or more factors above 0'):
        generate(tmp_path, scales=[1, 0])
