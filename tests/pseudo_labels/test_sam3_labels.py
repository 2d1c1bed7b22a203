"""Pseudo-labels of SAM3: all that it tells of an instance is stored, and read without overlaps."""

import json

import numpy as np
import pytest
import torch
from colour_teacher import CLASSES, generate, make_config, make_data
from mmengine.registry import DefaultScope
from pycocotools import mask as mask_utils
from tiny_sam3 import sam3, sam3_config

from mmcast.pseudo_labels.dataset import PseudoLabelDataset


@pytest.fixture(scope='module')
def data(tmp_path_factory):
    """Labels of four images that a tiny SAM3 made, from the files that a person has."""
    folder = make_data(tmp_path_factory.mktemp('sam3_labels'), count=4)
    torch.save(dict(state_dict=sam3(folder, classes=CLASSES).state_dict()), folder / 'teacher.pth')
    config = make_config()
    config.model = sam3_config(folder, classes=CLASSES)
    generate(folder, config=config, confidence=True)
    return folder


def test_presence_and_mask_quality_are_stored_with_the_score(data):
    content = json.loads((data / 'labels.json').read_text())
    by_image = {}
    for ann in content['annotations']:
        assert 0 < ann['score'] <= ann['class_score'] < 1
        assert 0.5 <= ann['mask_quality'] <= 1 and 0 <= ann['agreement'] <= 1
        by_image.setdefault((ann['image_id'], ann['category_id']), set()).add(ann['class_score'])
    # Presence is the image's: one value a class.
    assert len(by_image) == 8 and all(len(values) == 1 for values in by_image.values())
    assert all('confidence' in image for image in content['images'])


def test_what_classes_claim_twice_goes_to_the_higher_score(data):
    content = json.loads((data / 'labels.json').read_text())
    options = dict(ann_file=str(data / 'labels.json'), data_prefix=dict(img=str(data / 'images')))
    pipeline = [
        dict(type='LoadImageFromFile'),
        dict(type='LoadAnnotations', with_bbox=True, with_mask=True),
        dict(type='PackDetInputs', meta_keys=('img_id', 'source')),
    ]
    with DefaultScope.overwrite_default_scope('mmcast'):
        dataset = PseudoLabelDataset(
            **options, metainfo=dict(classes=CLASSES), pipeline=pipeline, score_thr=0.0
        )
        samples = [dataset[i]['data_samples'] for i in range(len(dataset))]
    names = {category['id']: category['name'] for category in content['categories']}
    claimed = 0
    for sample in samples:
        found = [ann for ann in content['annotations'] if ann['image_id'] == sample.img_id]
        found = sorted(found, key=lambda ann: ann['score'])
        masks = np.stack([mask_utils.decode(ann['segmentation']) for ann in found]).astype(bool)
        claimed += int((masks.sum(0) > 1).sum())
        expected = np.full(masks.shape[1:], -1)
        for ann, mask in zip(found, masks):  # the best comes last
            expected[mask] = CLASSES.index(names[ann['category_id']])
        gt = sample.gt_instances
        assert gt.masks.masks.sum(0).max() == 1
        seen = np.full(masks.shape[1:], -1)
        for label, mask in zip(gt.labels.tolist(), gt.masks.masks.astype(bool)):
            seen[mask] = label
        assert np.array_equal(seen, expected)
    assert claimed > 0
