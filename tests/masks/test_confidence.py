"""How sure the teacher is of every pixel: from its probabilities, through file and pipeline, to
weights in a loss.
"""

import json

import cv2
import numpy as np
import pytest
import torch
from colour_teacher import CLASSES, HEIGHT, WIDTH, generate, make_config, make_data
from mmdet.structures import DetDataSample
from mmengine.registry import DefaultScope
from mmengine.structures import PixelData
from pycocotools import mask as mask_utils

from mmcast.errors import CASTError
from mmcast.masks.confidence import LEVELS, confidence_map, decode_map, encode_map, map_size
from mmcast.models.pixel_confidence import confidence_of
from mmcast.pseudo_labels.dataset import PseudoLabelDataset
from mmcast.testing.data import make_samples
from mmcast.testing.models import build_model, tiny_student_config


def test_map_by_hand():
    """Pixels: nobody's, at a sure one's border, in its middle, at a weak one's border, and where
    both are unsure.
    """
    strong, weak = [0, 0.5, 1, 0, 0.75], [0, 0, 0, 0.5, 0.5]
    probabilities = np.rint(255 * np.array([[strong], [weak]])).astype(np.uint8)
    levels = confidence_map(probabilities, np.array([0.8, 0.2]))
    # 1, 1 - 0.8, 1, 1 - 0.2, and 1 - max(0.8 / 2, 0.2), in fifteenths
    assert levels.tolist() == [[15, 3, 15, 12, 9]] and levels.dtype == np.uint8


def test_an_image_without_instances_is_sure_to_have_none():
    assert (confidence_map(np.zeros((0, 4, 6), np.uint8), np.zeros(0)) == LEVELS).all()


@pytest.mark.parametrize(
    'size, expected',
    [((256, 320), (256, 320)), ((1024, 2048), (256, 512)), ((513, 100), (257, 50))],
)
def test_maps_have_at_most_512_pixels_a_side(size, expected):
    assert map_size(size) == expected


def test_text_is_exact_and_small():
    """20 objects with soft borders on a Cityscapes image."""
    rng = np.random.default_rng(0)
    probabilities = np.zeros((20, *map_size((1024, 2048))), np.uint8)
    for mask in probabilities:
        cv2.circle(
            mask,
            tuple(int(value) for value in rng.integers(20, 236, 2)),
            int(rng.integers(5, 40)),
            255,
            -1,
        )
        mask[:] = cv2.GaussianBlur(mask, (9, 9), 2)
    levels = confidence_map(probabilities, rng.uniform(0.3, 1, 20))
    text = encode_map(levels)
    assert np.array_equal(decode_map(text), levels) and len(text) < 12_000
    for damaged in ('', text[:50], 'no base64!'):
        with pytest.raises(CASTError, match='confidence map in the pseudo-labels is damaged'):
            decode_map(damaged)


# ---- the file


def test_maps_are_stored_and_labels_stay_as_they_are(tmp_path):
    make_data(tmp_path)
    generate(tmp_path, 'plain.json', config=make_config())
    generate(tmp_path, 'sure.json', config=make_config(with_probabilities=True), confidence=True)
    plain, sure = (
        json.loads((tmp_path / f'{name}.json').read_text()) for name in ('plain', 'sure')
    )
    assert plain['annotations'] == sure['annotations'] and sure['info']['confidence'] is True
    maps = [decode_map(image.pop('confidence')) for image in sure['images']]
    assert plain['images'] == sure['images']
    # But for the black image, the best instance, of score 0.877, is unsure of the first two rows.
    for number, levels in enumerate(maps):
        assert levels.shape == (HEIGHT, WIDTH) and (levels[2:] == LEVELS).all()
        assert (levels[:2] == (LEVELS if number == 2 else round(LEVELS * 0.123))).all()
    with pytest.raises(CASTError, match=r'plain\.json was made with another .*confidence'):
        generate(
            tmp_path, 'plain.json', config=make_config(with_probabilities=True), confidence=True
        )


def test_a_teacher_without_probabilities_is_refused(tmp_path):
    make_data(tmp_path)
    with pytest.raises(CASTError, match='ColourTeacher does not tell mask probabilities'):
        generate(tmp_path, confidence=True)


def test_views_of_a_symmetric_teacher_have_the_same_map(tmp_path):
    make_data(tmp_path)
    config = make_config(with_probabilities=True, with_factors=True)
    generate(tmp_path, 'one.json', config=config, confidence=True)
    generate(tmp_path, 'two.json', config=config, confidence=True, flip=True)
    one, two = (
        json.loads((tmp_path / f'{name}.json').read_text())['images'] for name in ('one', 'two')
    )
    for first, second in zip(one, two):
        assert np.array_equal(decode_map(first['confidence']), decode_map(second['confidence']))


# ---- the networks that tell probabilities


def predict(model, images, samples):
    model.mask_probabilities = True
    with torch.no_grad():
        return [sample.pred_instances for sample in model.predict(images, samples)]


@pytest.mark.parametrize(
    'windows',
    [None, dict(size=64, overlap=16, score_thr=0.0), dict(size=32, overlap=16, score_thr=0.0)],
)
def test_what_is_likelier_than_not_is_in_the_mask(windows):
    torch.manual_seed(0)
    model = build_model(tiny_student_config()).eval()
    model.test_cfg.windows = windows
    for found in predict(model, *make_samples([1, 1])):
        assert len(found) and found.probabilities.shape == found.masks.shape
        unsure = (found.probabilities == 127) | (found.probabilities == 128)
        assert (
            torch.equal((found.probabilities > 127) | unsure, found.masks | unsure)
            and found.masks.any()
        )


def test_maps_of_large_images_are_coarser():
    torch.manual_seed(0)
    model = build_model(tiny_student_config()).eval()
    images, samples = make_samples([1])
    samples[0].set_metainfo(dict(ori_shape=(600, 1100), scale_factor=(64 / 1100, 64 / 600)))
    found = predict(model, images, samples)[0]
    assert found.masks.shape[1:] == (600, 1100) and found.probabilities.shape[1:] == map_size(
        (600, 1100)
    ) == (200, 367)


# ---- the data set

META = (
    'img_id',
    'img_path',
    'ori_shape',
    'img_shape',
    'scale_factor',
    'flip',
    'flip_direction',
    'source',
)


def build(folder, *transforms, confidence=True):
    pipeline = [
        dict(type='LoadImage'),
        dict(type='LoadAnnotations', with_bbox=True, with_mask=True),
        *transforms,
        dict(type='PackDetInputs', meta_keys=META),
    ]
    with DefaultScope.overwrite_default_scope('mmcast'):
        return PseudoLabelDataset(
            ann_file=str(folder / 'labels.json'),
            data_prefix=dict(img=str(folder / 'images')),
            metainfo=dict(classes=CLASSES),
            pipeline=pipeline,
            confidence=confidence,
        )


@pytest.fixture
def labels_whose_confidence_is_a_mask(tmp_path):
    """Sure within the first image's car and nowhere else, so that wherever it moves, the map must
    follow.
    """
    make_data(tmp_path)
    generate(tmp_path, config=make_config(with_probabilities=True), confidence=True)
    content = json.loads((tmp_path / 'labels.json').read_text())
    for image in content['images']:
        car = [
            ann['segmentation'] for ann in content['annotations'] if ann['image_id'] == image['id']
        ][-1:]
        if car:
            image['confidence'] = encode_map(LEVELS * mask_utils.decode(car[0]))
    (tmp_path / 'labels.json').write_text(json.dumps(content))
    return tmp_path


@pytest.mark.parametrize(
    'transforms',
    [
        [],
        [dict(type='RandomFlip', prob=1.0)],
        [dict(type='Resize', scale_factor=2.0, keep_ratio=True)],
        [dict(type='RandomCrop', crop_size=(9, 9), allow_negative_crop=True)],
    ],
    ids=['none', 'flip', 'resize', 'crop'],
)
def test_the_map_moves_with_the_masks(labels_whose_confidence_is_a_mask, transforms):
    np.random.seed(1)
    data = build(labels_whose_confidence_is_a_mask, *transforms)[0]
    sample = data['data_samples']
    car = sample.gt_instances.masks.masks[
        (sample.gt_instances.labels == CLASSES.index('car')).nonzero()[0, 0]
    ]
    assert car.any() and not car.all()
    assert np.array_equal(confidence_of(sample).numpy(), car)


@pytest.mark.parametrize(
    'transform',
    [
        dict(type='TranslateX', prob=1.0, level=5),
        dict(type='TranslateY', prob=1.0, level=5),
        dict(type='Rotate', prob=1.0, level=5),
        dict(type='ShearX', prob=1.0, level=5),
        dict(type='ShearY', prob=1.0, level=5),
        dict(type='Pad', size=(HEIGHT + 3, WIDTH + 5)),
        dict(type='Expand', prob=1.0, seg_ignore_label=255),
        dict(type='RandomErasing', n_patches=2, ratio=0.3),
    ],
    ids=lambda transform: transform['type'],
)
def test_what_a_transform_fills_in_is_sure(labels_whose_confidence_is_a_mask, transform):
    np.random.seed(0)
    sample = build(labels_whose_confidence_is_a_mask, transform)[0]['data_samples']
    levels = sample.gt_sem_seg.sem_seg[0]
    filled = levels == 255
    assert filled.any() and set(levels[~filled].tolist()) == {0, LEVELS}
    assert torch.equal(confidence_of(sample), (filled | (levels == LEVELS)).float())


def test_padding_is_sure_and_other_images_have_no_weights(labels_whose_confidence_is_a_mask):
    sample = build(labels_whose_confidence_is_a_mask)[0]['data_samples']
    sample.set_metainfo(dict(batch_input_shape=(HEIGHT + 3, WIDTH + 5)))
    weights = confidence_of(sample)
    assert weights.shape == (HEIGHT + 3, WIDTH + 5)
    assert (weights[HEIGHT:] == 1).all() and (weights[:, WIDTH:] == 1).all()
    sample.set_metainfo(dict(source='labeled'))  # whose segmentation map is one of classes
    assert confidence_of(sample) is None
    assert (
        confidence_of(build(labels_whose_confidence_is_a_mask, confidence=False)[0]['data_samples'])
        is None
    )


def test_a_file_without_maps_is_refused(tmp_path):
    make_data(tmp_path)
    generate(tmp_path)
    with pytest.raises(
        CASTError, match=r'labels\.json has no confidence maps: make it with confidence=True'
    ):
        build(tmp_path)


# ---- the losses


def weighted_losses(model, levels):
    """Losses of two pseudo-labeled images; ``levels`` of the first, None for no map; the same
    points each time.
    """
    images, samples = make_samples([2, 3], seed=4)
    for sample in samples:
        sample.set_metainfo(dict(source='pseudo', batch_input_shape=tuple(images.shape[-2:])))
    if levels is not None:
        samples[0].gt_sem_seg = PixelData(
            sem_seg=torch.full((1, *images.shape[-2:]), levels, dtype=torch.uint8)
        )
    torch.manual_seed(7)
    return model.loss(images, samples)


def test_mask_losses_of_an_image_are_weighted_and_no_other_loss_is():
    torch.manual_seed(0)
    model = build_model(tiny_student_config()).train()
    plain, sure, third, unsure = (
        weighted_losses(model, levels) for levels in (None, LEVELS, LEVELS // 3, 0)
    )
    for name, loss in plain.items():
        torch.testing.assert_close(sure[name], loss)
        if 'loss_mask' in name:
            assert 0 < unsure[name] < loss  # what is left is the second image's
            torch.testing.assert_close(third[name], unsure[name] + (loss - unsure[name]) / 3)
        else:
            torch.testing.assert_close(unsure[name], loss)


def test_every_point_has_the_weight_of_its_pixel():
    """Against a loop over points, weights constant in each half of the image."""
    torch.manual_seed(0)
    head = build_model(tiny_student_config()).panoptic_head
    weights = torch.ones(16, 16)
    weights[:, :8] = 0.25
    logits, masks = torch.randn(2, 3, 4, 4), torch.randint(0, 2, (3, 16, 16)).float()
    matched = torch.ones(2, 3, dtype=torch.bool)
    # Away from the border between the halves, where weights are interpolated.
    columns = torch.tensor([0.1, 0.3, 0.7, 0.9])
    uncertain = torch.stack(torch.broadcast_tensors(columns, torch.rand(3, 2, 4)), -1)
    anywhere = torch.stack(torch.broadcast_tensors(columns, torch.rand(3, 4)), -1)
    head._loss_points = lambda _: (uncertain, anywhere)
    found = head._mask_losses(logits, masks, matched, torch.tensor(3.0), [(1, None), (2, weights)])[
        0
    ]
    expected = torch.zeros(2)
    for layer in range(2):
        for gt in range(3):
            points = torch.cat([uncertain[gt, layer], anywhere[gt]])[None]
            losses = [
                head._mask_losses(
                    logits[layer : layer + 1, gt : gt + 1],
                    masks[gt : gt + 1],
                    matched[:1, :1],
                    torch.tensor(3.0),
                )
                for head._loss_points in [
                    lambda _, point=point, none=points[:, :0]: (point[None, None, None], none)
                    for point in points[0]
                ]
            ]
            scale = [1 if gt == 0 or point[0] > 0.5 else 0.25 for point in points[0]]
            expected[layer] += sum(s * loss[0][0] for s, loss in zip(scale, losses)) / len(losses)
    torch.testing.assert_close(found, expected)


def test_a_sample_without_objects_may_have_a_map():
    model = build_model(tiny_student_config()).train()
    images, samples = make_samples([0, 2])
    for sample in samples:
        sample.set_metainfo(dict(source='pseudo', batch_input_shape=tuple(images.shape[-2:])))
        sample.gt_sem_seg = PixelData(
            sem_seg=torch.zeros((1, *images.shape[-2:]), dtype=torch.uint8)
        )
    losses = model.loss(images, samples)
    assert losses['loss_mask'] == 0 and losses['loss_dice'] > 0


def test_a_plain_sample_has_no_weights():
    assert confidence_of(DetDataSample()) is None
