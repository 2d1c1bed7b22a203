"""Transforms that would leave masks behind are refused."""

import pytest
from mmcv.transforms import Compose
from mmdet.datasets.transforms import MixUp

from mmcast.data.mask_transforms import check_mask_transforms
from mmcast.errors import CASTError

LOAD = dict(type='LoadCompressedAnnotations', with_bbox=True, with_mask=True)


@pytest.mark.parametrize(
    'transform, message',
    [
        (dict(type='Mosaic'), r'Mosaic moves .* replace Mosaic by mixing=dict\(mosaic='),
        (dict(type='mmdet.RandomShift'), 'RandomShift by TranslateX'),
        (dict(type=MixUp), r'MixUp by mixing=dict\(mixup='),
        (
            dict(type='RandomApply', transforms=[dict(type='RandomAffine')]),
            'RandomAffine by Rotate',
        ),
        (dict(type=Compose, transforms=(dict(type='RandomCenterCropPad'),)), 'Pad by RandomCrop'),
    ],
    ids=str,
)
def test_what_leaves_masks_behind_is_named_with_what_to_use(transform, message):
    """Anywhere in wrapped data sets."""
    inner = dict(type='CocoDataset', pipeline=[LOAD])
    dataset = dict(type='MultiImageMixDataset', dataset=inner, pipeline=[transform])
    with pytest.raises(CASTError, match=f'^data: .*{message}'):
        check_mask_transforms(dict(type='ConcatDataset', datasets=[inner, dataset]), 'data')


def test_a_mosaic_whose_masks_are_not_of_the_size_of_its_image_is_refused():
    """As findings/mmdet_cached_mosaic_masks.sh shows; square images are right."""
    wide = dict(type='CachedMosaic', img_scale=(64, 32))
    with pytest.raises(CASTError, match='^data: .* masks of 64 x 32 .* image of 32 x 64'):
        check_mask_transforms(dict(type='CocoDataset', pipeline=[LOAD, wide]), 'data')
    square = dict(wide, img_scale=(64, 64))
    check_mask_transforms(dict(type='CocoDataset', pipeline=[LOAD, square]), 'data')


def test_others_and_those_of_boxes_alone_may_pass():
    moved = [LOAD, dict(type='CachedMosaic'), dict(type='Rotate')]
    check_mask_transforms(dict(type='CocoDataset', pipeline=moved), 'data')
    boxes = [dict(type='LoadAnnotations', with_bbox=True), dict(type='Mosaic')]
    check_mask_transforms(dict(type='CocoDataset', pipeline=boxes), 'data')
