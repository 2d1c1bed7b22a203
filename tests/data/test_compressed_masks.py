import copy
import json
import pickle
import random
from fractions import Fraction

import mmcv
import numpy as np
import pytest
import torch
from mmdet.structures.mask import BitmapMasks
from mmengine.dataset import Compose
from mmengine.structures import InstanceData
from pycocotools import mask as mask_api

from mmcast.coco.converters.cityscapes import convert_cityscapes
from mmcast.data.compressed_masks import CompressedMasks
from mmcast.data.loading import LoadCompressedAnnotations
from mmcast.errors import CASTError
from mmcast.registry import DATASETS, TRANSFORMS
from mmcast.toy.cityscapes import generate_toy_cityscapes


def random_masks(rng, count, height, width):
    """Blobs with holes, a full mask, an empty one and a single pixel, in both forms."""
    masks = np.zeros((count + 3, height, width), np.uint8)
    for mask in masks[:count]:
        top, left = rng.integers(0, height - 4), rng.integers(0, width - 4)
        region = mask[top : top + rng.integers(4, height), left : left + rng.integers(4, width)]
        region[:] = rng.random(region.shape) < 0.8
    masks[count] = 1
    masks[-1, rng.integers(height), rng.integers(width)] = 1
    rles = [mask_api.encode(np.asfortranarray(mask)) for mask in masks]
    return BitmapMasks(masks, height, width), CompressedMasks(
        rles, np.arange(height), np.arange(width)
    )


def random_operation(rng, height, width):
    """Name and arguments of a method that changes the geometry of masks (height, width)."""
    box = np.concatenate(
        [rng.integers(0, (width, height)), rng.integers(0, (width + 9, height + 9)) + 1]
    )
    box[2:] = np.maximum(box[:2] + 1, box[2:])
    return [
        ('flip', (rng.choice(['horizontal', 'vertical', 'diagonal']),)),
        ('crop', (box,)),
        ('resize', (tuple(rng.integers(5, 150, 2).tolist()),)),
        ('rescale', (rng.uniform(0.4, 2.5),)),
        ('rescale', (tuple(rng.integers(20, 150, 2).tolist()),)),
        ('pad', ((height + int(rng.integers(9)), width + int(rng.integers(9))),)),
        ('__getitem__', (rng.permutation(6)[:4],)),
    ][rng.integers(7)]


@pytest.fixture
def centred(monkeypatch):
    """mmdet's bitmaps are resized by the centres of pixels, in exact arithmetic, not by their
    corners.
    """

    def resize(self, out_shape, interpolation='nearest'):
        assert interpolation == 'nearest'
        rows, columns = (
            [int((i + Fraction(1, 2)) * old / new) for i in range(new)]
            for old, new in zip((self.height, self.width), out_shape)
        )
        return BitmapMasks(self.masks[:, rows][:, :, columns], *out_shape)

    def rescale(self, scale, interpolation='nearest'):
        width, height = mmcv.rescale_size((self.width, self.height), scale)
        return resize(self, (height, width), interpolation)

    monkeypatch.setattr(BitmapMasks, 'resize', resize)
    monkeypatch.setattr(BitmapMasks, 'rescale', rescale)


@pytest.mark.parametrize('seed', range(40))
def test_any_sequence_of_transforms_gives_the_bitmaps_of_mmdet(seed, centred):
    rng = np.random.default_rng(seed)
    bitmaps, masks = random_masks(rng, 5, *rng.integers(20, 90, 2))
    for _ in range(6):
        name, arguments = random_operation(rng, bitmaps.height, bitmaps.width)
        if name == '__getitem__' and len(bitmaps) < 6:
            continue
        if rng.random() < 0.3:
            assert masks.areas is not None  # decodes, which must not change what follows
        bitmaps, masks = (getattr(each, name)(*arguments) for each in (bitmaps, masks))
        assert isinstance(masks, CompressedMasks)
        assert (masks.height, masks.width, len(masks)) == (
            bitmaps.height,
            bitmaps.width,
            len(bitmaps),
        )
        if min(bitmaps.height, bitmaps.width) < 5:
            break
    np.testing.assert_array_equal(masks.areas, bitmaps.areas)
    np.testing.assert_array_equal(masks.to_ndarray(), bitmaps.to_ndarray())
    assert torch.equal(masks.to_tensor(torch.bool, 'cpu'), bitmaps.to_tensor(torch.bool, 'cpu'))
    assert torch.equal(masks.get_bboxes('hbox').tensor, bitmaps.get_bboxes('hbox').tensor)


@pytest.mark.parametrize('size', [(1024, 2048), (512, 683), (37, 41)])
def test_resized_masks_stay_on_their_objects(size):
    """Images, here enlarged at the sizes of Cityscapes and ADE20K, are resized by the centres of
    pixels: OpenCV's nearest neighbour, mmdet's, moves masks right and down by half a pixel.
    """
    rng, shifts, mmdets = np.random.default_rng(0), [], []
    for scale in rng.uniform(1, 2, 100):
        top, left = rng.integers(5, 15, 2)
        mask = np.zeros(size, np.uint8)
        mask[top : top + 9, left : left + 12] = 1
        masks = CompressedMasks([mask_api.encode(np.asfortranarray(mask))], *map(np.arange, size))
        resized = masks.rescale(scale).to_ndarray()[0]
        for shift, found in (
            (shifts, resized),
            (mmdets, mmcv.imrescale(mask, scale, interpolation='nearest')),
        ):
            centre = (np.argwhere(found).mean(axis=0) + 0.5) - (top + 4.5, left + 6) * np.divide(
                found.shape, size
            )
            shift.append(centre)
    assert np.abs(np.mean(shifts, axis=0)).max() < 0.1  # of a pixel of the resized image
    assert np.mean(mmdets, axis=0).min() > 0.4


def test_other_transforms_give_bitmaps():
    for change in (
        lambda each: each.rotate((30, 40), 20.0),
        lambda each: each.translate((30, 40), 5),
        lambda each: each.expand(50, 60, 3, 4),
        lambda each: each.pad((33, 44), pad_val=1),
        lambda each: each.resize((15, 20), 'bilinear'),
        lambda each: type(each).cat([each, each]),
    ):
        bitmaps, masks = random_masks(np.random.default_rng(0), 3, 30, 40)
        changed = change(masks)
        assert type(changed) is BitmapMasks
        np.testing.assert_array_equal(changed.masks, change(bitmaps).masks)


def test_none_left_is_fine(centred):
    bitmaps, masks = random_masks(np.random.default_rng(0), 3, 30, 40)
    none = np.array([], int)
    bitmaps, masks = (
        each[none].flip().rescale(1.5).crop(np.array([3, 3, 20, 20])).pad((20, 21))
        for each in (bitmaps, masks)
    )
    assert masks.to_ndarray().shape == bitmaps.to_ndarray().shape == (0, 20, 21)
    np.testing.assert_array_equal(masks.areas, bitmaps.areas)


def test_instance_data_index_and_copy_them():
    bitmaps, masks = random_masks(np.random.default_rng(0), 3, 30, 40)
    keep = torch.tensor([True, False, True, False, True, True])
    data = copy.deepcopy(InstanceData(masks=masks))[keep]
    np.testing.assert_array_equal(data.masks.to_ndarray(), bitmaps.masks[keep.numpy()])


def test_what_is_written_into_the_bitmaps_counts():
    bitmaps, masks = random_masks(np.random.default_rng(0), 3, 30, 40)
    for each in (bitmaps, masks):
        each.masks[:, :5] = 0
        each.masks = np.where(np.eye(30, 40), 1, each.masks)
    for changed in (lambda each: each, lambda each: each.flip(), lambda each: each[np.array([2])]):
        expected, got = changed(bitmaps), changed(masks)
        np.testing.assert_array_equal(got.to_ndarray(), expected.to_ndarray())
        np.testing.assert_array_equal(got.areas, expected.areas)
    assert not masks.to_ndarray()[:, :5, 30:].any() and masks.to_ndarray()[:, 7, 7].all()


def test_boxes_copies_and_texts_leave_them_compressed():
    bitmaps, masks = random_masks(np.random.default_rng(0), 3, 30, 40)
    boxes = masks.get_bboxes('hbox').tensor
    assert torch.equal(boxes, bitmaps.get_bboxes('hbox').tensor)
    assert boxes[4].tolist() == [0, 0, 0, 0]  # of the empty one
    for mask, expected in zip(masks, bitmaps, strict=True):
        np.testing.assert_array_equal(mask, expected)
    assert repr(copy.deepcopy(masks)) == 'CompressedMasks(num_masks=6, height=30, width=40)'
    assert isinstance(masks, CompressedMasks)


# Every transform of mmdet that moves pixels or instances, as far as the package needs nothing more.
TRANSFORM_CONFIGS = [
    *(
        dict(type=name, prob=1.0)
        for name in ('Rotate', 'ShearX', 'ShearY', 'TranslateX', 'TranslateY')
    ),
    dict(type='Resize', scale=(50, 80), keep_ratio=True),
    dict(type='Resize', scale_factor=0.7),
    dict(type='FixScaleResize', scale=(50, 80)),
    dict(type='FixShapeResize', width=70, height=40, keep_ratio=True),
    dict(type='ResizeShortestEdge', scale=40, max_size=90),
    dict(type='RandomFlip', prob=1.0, direction=['horizontal', 'vertical', 'diagonal']),
    dict(type='RandomFlip_GLIP', prob=1.0),
    dict(type='Pad', size=(110, 120)),
    dict(type='Pad', size_divisor=50, pad_val=dict(img=1, masks=1)),
    dict(type='RandomCrop', crop_size=(30, 40)),
    dict(type='RandomCrop', crop_size=(30, 40), recompute_bbox=True, bbox_clip_border=False),
    dict(type='Expand', prob=1.0),
    dict(type='MinIoURandomCrop'),
    dict(type='CutOut', n_holes=3, cutout_ratio=(0.2, 0.2)),
    dict(type='RandomErasing', n_patches=(2, 4), ratio=(0.1, 0.4)),
    dict(type='RandomErasing', n_patches=(2, 4), ratio=(0.1, 0.4), mask_border_value=1),
    dict(type='CopyPaste'),
    dict(type='CopyPaste', selected=False),
    dict(type='CachedMosaic', img_scale=(60, 60), prob=1.0, max_cached_images=5),
    dict(type='CachedMixUp', img_scale=(60, 60), prob=1.0, max_cached_images=4),
    dict(
        type='AutoAugment',
        policies=[
            [dict(type='Rotate', prob=1.0), dict(type='CutOut', n_holes=1, cutout_ratio=(0.2, 0.2))]
        ],
    ),
    dict(type='RandAugment', aug_space=[[dict(type='Rotate')], [dict(type='ShearY', prob=1.0)]]),
    dict(
        type='RandomOrder',
        transforms=[dict(type='Rotate', prob=1.0), dict(type='RandomFlip', prob=1.0)],
    ),
    dict(type='FilterAnnotations', by_mask=True, min_gt_mask_area=20, keep_empty=False),
]


def results_with(bitmaps, masks, image):
    """What comes into a transform, without the empty mask and the one of one pixel."""
    return dict(
        img=image.copy(),
        img_shape=image.shape[:2],
        gt_bboxes=bitmaps.get_bboxes('hbox'),
        gt_bboxes_labels=np.arange(len(bitmaps)) % 3,
        gt_ignore_flags=np.zeros(len(bitmaps), bool),
        gt_masks=masks,
    )


@pytest.mark.parametrize('config', TRANSFORM_CONFIGS, ids=lambda config: config['type'])
def test_every_transform_of_mmdet_gives_what_it_gives_with_bitmaps(config, centred):
    outputs = []
    for compressed in (False, True):
        transform, outputs_of_kind = TRANSFORMS.build(copy.deepcopy(config)), []
        rng = np.random.default_rng(1)
        np.random.seed(3)
        random.seed(3)
        for _ in range(7):
            several = []
            for _ in range(2):
                pair = [each[np.arange(4)] for each in random_masks(rng, 4, 64, 96)]
                image = rng.integers(0, 255, (64, 96, 3), dtype=np.uint8)
                several.append(results_with(pair[0], pair[compressed], image))
            outputs_of_kind.append(transform(dict(several[0], mix_results=several[1:])))
        outputs.append(outputs_of_kind)
    seen = 0
    for expected, got in zip(*outputs, strict=True):
        if expected is None or got is None:
            assert expected is got
            continue
        np.testing.assert_array_equal(got['img'], expected['img'])
        np.testing.assert_array_equal(got['gt_masks'].to_ndarray(), expected['gt_masks'].masks)
        np.testing.assert_array_equal(got['gt_bboxes_labels'], expected['gt_bboxes_labels'])
        assert torch.equal(got['gt_bboxes'].tensor, expected['gt_bboxes'].tensor)
        assert len(got['gt_masks']) == len(got['gt_bboxes'])
        seen += len(got['gt_masks'])
    assert seen > 5


def test_only_the_boxes_go_to_the_trainer():
    """Sixteen objects of 64x64 on a crop of 512x1024 need under a hundredth of their bitmaps."""
    mask = np.zeros((1024, 2048), np.uint8)
    mask[600:664, 900:964] = 1
    masks = CompressedMasks(
        [mask_api.encode(np.asfortranarray(mask))] * 16, np.arange(1024), np.arange(2048)
    )
    masks = masks.crop(np.array([500, 400, 1524, 912]))
    assert masks.areas.tolist() == [64 * 64] * 16
    sent = pickle.dumps(masks)
    assert len(sent) < 16 * 512 * 1024 / 100
    np.testing.assert_array_equal(pickle.loads(sent).to_ndarray(), masks.to_ndarray())


# The transform

LOAD = dict(with_bbox=True, with_mask=True)
GEOMETRY = [
    dict(type='RandomFlip', prob=0.75, direction=['horizontal', 'vertical', 'diagonal']),
    dict(type='RandomResize', scale=(224, 112), ratio_range=(0.5, 2.0), keep_ratio=True),
    dict(type='RandomCrop', crop_size=(112, 56), allow_negative_crop=True),
    dict(type='FilterAnnotations', min_gt_bbox_wh=(1, 1), by_mask=True, keep_empty=False),
    dict(type='PackDetInputs'),
]


def as_polygons(annotation):
    """The instance's box as a rectangle and a triangle: overlapping, beyond the image's edge."""
    x, y, w, h = annotation['bbox']
    return [
        [x - 5, y, x + w, y, x + w, y + h, x - 5, y + h],
        [x, y, x + 2 * w, y + h / 3, x, y + h],
    ]


def as_uncompressed(annotation):
    mask = mask_api.decode(annotation['segmentation']).ravel(order='F')
    changes = np.flatnonzero(np.diff(mask, prepend=0, append=2))
    return dict(
        size=annotation['segmentation']['size'], counts=np.diff(changes, prepend=0).tolist()
    )


@pytest.fixture(scope='module')
def toy(tmp_path_factory):
    root = tmp_path_factory.mktemp('toy')
    generate_toy_cityscapes(root, num_train=8, num_val=0, size=(112, 224), progress=False)
    convert_cityscapes(root, 'train', root / 'train.json', progress=False)
    return root


@pytest.mark.parametrize('kind', ['rle', 'polygons', 'uncompressed', 'invalid'])
def test_pipeline_equals_mmdets_for_the_same_random_numbers(toy, tmp_path, kind, centred):
    coco = json.loads((toy / 'train.json').read_text())
    change = dict(
        rle=lambda ann: ann['segmentation'],
        polygons=as_polygons,
        uncompressed=as_uncompressed,
        invalid=lambda ann: [[1, 2, 3]] if ann['id'] % 2 else ann['segmentation'],
    )[kind]
    for ann in coco['annotations']:
        ann['segmentation'] = change(ann)
    (tmp_path / 'train.json').write_text(json.dumps(coco))
    compare_pipelines(toy, tmp_path / 'train.json')


def compare_pipelines(root, ann_file):
    dataset = DATASETS.build(
        dict(
            type='mmdet.CocoDataset',  # ours refuses invalid masks
            ann_file=str(ann_file),
            data_prefix=dict(img=str(root / 'leftImg8bit/train')),
            metainfo=dict(classes=('person', 'rider', 'car')),
            pipeline=[],
        )
    )
    found = 0
    for index in range(len(dataset)):
        for seed in range(4):
            samples = []
            for loader in ('LoadAnnotations', 'LoadCompressedAnnotations'):
                np.random.seed(seed)
                pipeline = Compose([dict(type='LoadImage'), dict(type=loader, **LOAD), *GEOMETRY])
                samples.append(pipeline(dataset.get_data_info(index)))
            stock, ours = samples
            assert torch.equal(stock['inputs'], ours['inputs'])
            for field in ('gt_instances', 'ignored_instances'):
                expected, got = (getattr(each['data_samples'], field) for each in (stock, ours))
                assert isinstance(got.masks, CompressedMasks)
                np.testing.assert_array_equal(got.masks.to_ndarray(), expected.masks.to_ndarray())
                assert torch.equal(got.bboxes.tensor, expected.bboxes.tensor)
                assert torch.equal(got.labels, expected.labels)
                found += len(got)
    assert found > 15


def test_mask_of_another_size_is_named():
    rle = mask_api.encode(np.zeros((4, 6), np.uint8, order='F'))
    results = dict(
        img_path='street.png',
        ori_shape=(6, 4),
        instances=[
            dict(
                bbox=[0, 0, 1, 1],
                bbox_label=0,
                ignore_flag=0,
                mask=dict(rle, counts=rle['counts'].decode()),
            )
        ],
    )
    with pytest.raises(CASTError, match='street.png is 6 x 4 but has a mask of 4 x 6'):
        LoadCompressedAnnotations(**LOAD)(results)
