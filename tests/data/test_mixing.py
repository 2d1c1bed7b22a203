"""Copy-paste, mixup and mosaic against slow references, and the data sets that mix."""

import copy
import json
from itertools import product

import cv2
import numpy as np
import pytest
import torch
from mmdet.structures.bbox import HorizontalBoxes
from mmdet.structures.mask import BitmapMasks
from mmengine.registry import DATASETS, TRANSFORMS, DefaultScope

from mmcast.data.compressed_masks import CompressedMasks
from mmcast.data.mixing import build_mixing
from mmcast.errors import CASTError
from mmcast.masks.confidence import LEVELS, encode_map
from mmcast.masks.rle import encode_mask
from mmcast.pseudo_labels.store import make_info
from mmcast.training.randomness import _seed_batches

SIZES = {'one size': [(30, 41)] * 4, 'four sizes': [(30, 41), (24, 50), (37, 20), (16, 16)]}


def scene(rng, size, number=6):
    """Random pixels, overlapping ellipses (the last may be empty), two of them ignored, and scores
    that no other label has.
    """
    masks = np.zeros((number, *size), np.uint8)
    for mask in masks:
        centre, axes = rng.integers(0, size[::-1]), rng.integers(1, [s // 2 for s in size[::-1]])
        cv2.ellipse(mask, centre.tolist(), axes.tolist(), int(rng.integers(180)), 0, 360, 1, -1)
    return dict(
        img=rng.integers(0, 256, (*size, 3), np.uint8),
        img_shape=size,
        masks=masks,
        gt_bboxes_labels=rng.integers(0, 3, number),
        gt_ignore_flags=rng.random(number) < 0.3,
        gt_scores=rng.random(number, np.float32),
        gt_seg_map=rng.integers(0, LEVELS + 1, size, np.uint8),
    )


def as_loaded(image, kind):
    """The same as a pipeline's ``results``."""
    masks, size = image['masks'], image['img'].shape[:2]
    loaded = BitmapMasks(masks.copy(), *size)
    boxes = HorizontalBoxes(loaded.get_bboxes('hbox').tensor)
    if kind == 'compressed':
        loaded = CompressedMasks([encode_mask(mask) for mask in masks], *map(np.arange, size))
    copies = {key: np.copy(image[key]) for key in image.keys() - {'masks', 'img_shape'}}
    return copies | dict(img_shape=size, gt_masks=loaded, gt_bboxes=boxes)


def check_labels(mixed, expected):
    """Compares with (mask, label, ignored, score) of each label, boxes found pixel by pixel."""
    masks = mixed['gt_masks'].to_ndarray()
    assert len(expected) == len(masks) == len(mixed['gt_bboxes']) > 0
    for i, (mask, label, ignored, score) in enumerate(expected):
        assert np.array_equal(masks[i], mask)
        assert mixed['gt_bboxes_labels'][i] == label
        assert mixed['gt_ignore_flags'][i] == ignored
        assert mixed['gt_scores'][i] == score
        ones = [(y, x) for y, x in product(*map(range, mask.shape)) if mask[y, x]]
        y, x = zip(*ones)
        box = min(x), min(y), max(x) + 1, max(y) + 1
        assert mixed['gt_bboxes'].tensor[i].tolist() == list(box)
    # As bitmaps of their own too, which later transforms begin with.
    again = mixed['gt_masks'].flip().flip().to_ndarray()
    assert np.array_equal(again, masks)


def fields(image, i):
    return (image[key][i] for key in ('gt_bboxes_labels', 'gt_ignore_flags', 'gt_scores'))


@pytest.fixture(params=['bitmaps', 'compressed'])
def kind(request):
    return request.param


@pytest.mark.parametrize('sizes', SIZES)
def test_copy_paste(kind, sizes):
    """Pixel by pixel, on drawn instances."""
    rng, hidden, cut = np.random.default_rng(1), 0, 0
    for round in range(8):
        behind, donor = (scene(rng, SIZES[sizes][i]) for i in (round % 4, (round + 1) % 4))
        options = dict(min_score=0.2, min_area=30, max_objects=3, min_visible=0.6)
        paste = TRANSFORMS.build(dict(type='CopyPasteInstances', **options))
        mixed = paste(dict(as_loaded(behind, kind), mix_results=[as_loaded(donor, kind)]))
        height, width = behind['img'].shape[:2]
        clipped = np.zeros((len(donor['masks']), height, width), np.uint8)
        h, w = (min(a, b) for a, b in zip((height, width), donor['img'].shape))
        clipped[:, :h, :w] = donor['masks'][:, :h, :w]
        # Scores tell which were drawn; those that may not be are none of them.
        pasted = [i for i, s in enumerate(donor['gt_scores']) if s in mixed['gt_scores']]
        possible = [
            i
            for i, mask in enumerate(clipped)
            if mask.sum() >= 30 and donor['gt_scores'][i] > 0.2 and not donor['gt_ignore_flags'][i]
        ]
        assert set(pasted) <= set(possible) and len(pasted) <= 3
        assert bool(pasted) == bool(possible)
        cover = np.zeros((height, width), bool)
        image, levels = behind['img'].copy(), behind['gt_seg_map'].copy()
        for y, x, i in product(range(height), range(width), pasted):
            if clipped[i, y, x]:
                cover[y, x] = True
                image[y, x], levels[y, x] = donor['img'][y, x], donor['gt_seg_map'][y, x]
        assert np.array_equal(mixed['img'], image)
        assert np.array_equal(mixed['gt_seg_map'], levels)
        expected = []
        for i, mask in enumerate(behind['masks']):
            left = mask & ~cover
            if left.any() or not pasted:
                label, ignored, score = fields(behind, i)
                faint = left.sum() < 0.6 * mask.sum()
                hidden, cut = hidden + (faint and not ignored), cut + (left.sum() < mask.sum())
                expected.append((left, label, ignored or faint, score))
        expected += [(clipped[i], *fields(donor, i)) for i in pasted]
        if pasted:
            check_labels(mixed, expected)
    assert hidden and cut


@pytest.mark.parametrize('sizes', SIZES)
def test_mixup(kind, sizes):
    rng = np.random.default_rng(2)
    for round in range(4):
        first, other = (scene(rng, SIZES[sizes][i]) for i in (round, (round + 1) % 4))
        mixed = TRANSFORMS.build(dict(type='MixUpInstances'))(
            dict(as_loaded(first, kind), mix_results=[as_loaded(other, kind)])
        )
        height, width = first['img'].shape[:2]
        h, w = (min(a, b) for a, b in zip((height, width), other['img'].shape))
        for key in ('img', 'gt_seg_map'):
            mean = first[key].astype(float)
            mean[:h, :w] = (mean[:h, :w] + other[key][:h, :w]) / 2
            assert mixed[key].dtype == np.uint8
            assert abs(mixed[key] - mean).max() <= 0.5
        second = np.zeros((6, height, width), np.uint8)
        second[:, :h, :w] = other['masks'][:, :h, :w]
        both = [(first, mask) for mask in first['masks']] + [(other, mask) for mask in second]
        check_labels(
            mixed, [(m, *fields(image, i % 6)) for i, (image, m) in enumerate(both) if m.any()]
        )


@pytest.mark.parametrize('sizes', SIZES)
def test_mosaic(kind, sizes):
    """A pixel of a mask is the one under its centre; the image is resized by OpenCV."""
    rng = np.random.default_rng(3)
    for round in range(4):
        images = [scene(rng, SIZES[sizes][(round + i) % 4]) for i in range(4)]
        first, *others = [as_loaded(image, kind) for image in images]
        mixed = TRANSFORMS.build(dict(type='MosaicInstances', pad_value=7))(
            dict(first, mix_results=others)
        )
        height, width = images[0]['img'].shape[:2]
        picture, levels = np.full((height, width, 3), 7), np.full((height, width), LEVELS)
        expected = []
        for number, image in enumerate(images):
            top, left = (number // 2) * (height // 2), (number % 2) * (width // 2)
            bottom, right = (height // 2, height)[number // 2], (width // 2, width)[number % 2]
            h, w = image['img'].shape[:2]
            half = (h + 1) // 2, (w + 1) // 2
            small = cv2.resize(image['img'], half[::-1])
            masks = np.zeros((6, height, width), np.uint8)
            for y, x in product(range(half[0]), range(half[1])):
                if top + y < bottom and left + x < right:
                    picture[top + y, left + x] = small[y, x]
                    old = int((y + 0.5) * h / half[0]), int((x + 0.5) * w / half[1])
                    masks[:, top + y, left + x] = image['masks'][:, *old]
                    corner = int(y * h / half[0]), int(x * w / half[1])  # as OpenCV does
                    levels[top + y, left + x] = image['gt_seg_map'][corner]
            expected += [(m, *fields(image, i)) for i, m in enumerate(masks) if m.any()]
        assert np.array_equal(mixed['img'], picture)
        assert np.array_equal(mixed['gt_seg_map'], levels)
        check_labels(mixed, expected)


# ---- data sets

LOADING = [
    dict(type='LoadImage'),
    dict(type='LoadCompressedAnnotations', with_bbox=True, with_mask=True),
]
MOVING = [
    dict(type='PhotoMetricDistortion'),
    dict(type='RandomFlip', prob=0.5),
    dict(type='RandomCrop', crop_size=(40, 24), allow_negative_crop=True),
]
PACKING = [
    dict(type='FilterAnnotations', min_gt_bbox_wh=(2, 2), by_mask=True, keep_empty=False),
    dict(type='PackDetInputs', meta_keys=('img_id', 'img_shape', 'flip', 'source')),
]
ALL = {name: dict(prob=0.7) for name in ('mosaic', 'copy_paste', 'mixup')}


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    """Eight images with labels of two classes, as human annotations (with groups) and as
    pseudo-labels.
    """
    root, rng = tmp_path_factory.mktemp('mixing'), np.random.default_rng(4)
    images, annotations = [], []
    for number in range(8):
        image = scene(rng, (32, 48))
        name = f'{number}.png'
        cv2.imwrite(str(root / name), image['img'])
        confidence = encode_map(image['gt_seg_map'])
        images.append(dict(id=number, file_name=name, height=32, width=48, confidence=confidence))
        for mask, ignored, score in zip(
            *(image[key] for key in ('masks', 'gt_ignore_flags', 'gt_scores'))
        ):
            x, y, w, h = cv2.boundingRect(mask)
            annotations.append(
                dict(
                    id=len(annotations) + 1,
                    image_id=number,
                    category_id=1 + len(annotations) % 2,
                    iscrowd=int(ignored),
                    segmentation=encode_mask(mask),
                    bbox=[x, y, w, h],
                    area=int(mask.sum()),
                    score=float(score),
                )
            )
    content = dict(images=images, categories=[dict(id=1, name='a'), dict(id=2, name='b')])
    (root / 'labeled.json').write_text(json.dumps(content | dict(annotations=annotations)))
    info = make_info(score_floor=0.0)
    single = [dict(ann, iscrowd=0) for ann in annotations]
    (root / 'pseudo.json').write_text(
        json.dumps(content | dict(info=dict(info, confidence=True), annotations=single))
    )
    return root


def annotations(folder):
    return json.loads((folder / 'pseudo.json').read_text())['annotations']


def build(folder, kind='PseudoLabelDataset', pipeline=(*LOADING, *MOVING, *PACKING), **options):
    if kind == 'PseudoLabelDataset':
        options = dict(ann_file='pseudo.json', score_thr=0.1) | options
    config = dict(type=kind, ann_file='labeled.json', data_root=str(folder)) | options
    config |= dict(metainfo=dict(classes=('a', 'b')), data_prefix=dict(img=''))
    config.setdefault('serialize_data', False)  # MMEngine searches all memory for garbage after it
    with DefaultScope.overwrite_default_scope('mmcast'):
        return DATASETS.build(config | dict(pipeline=list(pipeline)))


@pytest.fixture(scope='module')
def pseudo_labeled(folder):
    return build(folder, serialize_data=True)


def mixing(dataset, options, **changes):
    """The data set with another ``mixing``, which is quicker than to build it again."""
    other = copy.copy(dataset)
    other.__dict__ |= dict(mixers=build_mixing(options), **changes)
    return other


def same(one, two):
    """Whether two packed images are equal in all."""
    samples = one['data_samples'], two['data_samples']
    labels = [s.gt_instances for s in samples] + [s.ignored_instances for s in samples]
    return (
        torch.equal(one['inputs'], two['inputs'])
        and all(
            np.array_equal(a.masks.to_ndarray(), b.masks.to_ndarray())
            and torch.equal(a.labels, b.labels)
            for a, b in (labels[:2], labels[2:])
        )
        and samples[0].metainfo == samples[1].metainfo
    )


@pytest.fixture(
    scope='module',
    params=[('LoadAnnotations', True), ('LoadCompressedAnnotations', False)],
    ids=str,
)
def both_kinds(request, folder):
    """Pseudo-labeled and labeled images, with confidence maps or without."""
    loading, confidence = request.param
    pipeline = [LOADING[0], dict(LOADING[1], type=loading), *MOVING, *PACKING]
    pseudo = build(folder, confidence=confidence, pipeline=pipeline)
    return pseudo, build(folder, 'CocoDataset', pipeline=pipeline), confidence


@pytest.mark.parametrize('name', ALL)
def test_scores_ignore_regions_and_source_reach_the_sample(folder, both_kinds, name):
    pseudo, labeled, confidence = both_kinds
    pseudo, labeled = (mixing(each, {name: dict(prob=1.0)}) for each in (pseudo, labeled))
    known = {np.float32(ann['score']) for ann in annotations(folder)}
    np.random.seed(0)
    ignored = 0
    for i in range(8):
        sample = pseudo[i]['data_samples']
        found = sample.gt_instances
        assert sample.metainfo['source'] == 'pseudo'
        assert len(found.scores) == len(found.masks) == len(found.labels) == len(found.bboxes)
        assert {np.float32(score) for score in found.scores} <= known
        assert ('gt_sem_seg' in sample) == confidence
        if confidence:
            assert sample.gt_sem_seg.sem_seg.shape[-2:] == sample.metainfo['img_shape']
        sample = labeled[i]['data_samples']
        assert set(sample.gt_instances.scores.tolist()) <= {1.0}
        ignored += len(sample.ignored_instances.masks)
    assert ignored


def test_the_mean_of_confidences_is_of_full_ones_where_a_transform_filled_in(folder):
    moving = dict(type='TranslateX', prob=1.0, level=10)
    pipeline = [*LOADING, moving, *PACKING]
    dataset = build(folder, confidence=True, pipeline=pipeline, mixing=dict(mixup=dict(prob=1)))
    images = [dataset._load(i, dataset.pipeline.transforms[:4]) for i in range(2)]
    maps = [image['gt_seg_map'] for image in images]
    assert all((levels == LEVELS).all(0).any() for levels in maps)  # columns that were filled in
    mixed = dataset.mixers[0](dict(images[0], mix_results=images[1:]))['gt_seg_map']
    assert abs(mixed - np.mean(maps, 0)).max() <= 0.5 and mixed.max() <= LEVELS


def test_nothing_is_mixed_by_default_nor_by_a_probability_of_0(pseudo_labeled):
    assert not pseudo_labeled.mixers
    never = mixing(pseudo_labeled, {name: dict(prob=0) for name in ALL})
    for i in range(8):
        np.random.seed(i)
        one = pseudo_labeled[i]
        np.random.seed(i)
        assert same(one, never[i])
        assert 'scores' not in one['data_samples'].gt_instances
    assert not build_mixing(dict(mosaic=None))
    tested = mixing(pseudo_labeled, ALL, test_mode=True)[0]['data_samples']
    assert 'scores' not in tested.gt_instances


def test_crops_flips_and_colours_are_those_without_mixing(pseudo_labeled):
    """Of the images of a batch after a mixed one too; so two runs differ in nothing else."""
    seen = []
    for options in ({}, ALL):
        np.random.seed(5)
        dataset = mixing(pseudo_labeled, options)
        seen.append(([dataset[i]['data_samples'].metainfo for i in range(8)], np.random.rand()))
    assert seen[0] == seen[1]
    assert len({meta['flip'] for meta in seen[0][0]}) == 2


def test_batches_are_those_of_the_seed_and_of_a_resumed_run(pseudo_labeled):
    def load(first, seed):
        dataset = mixing(pseudo_labeled, ALL)
        _seed_batches(dataset, (seed, 0, 1), first, 1)
        return [item for i in range(first, 4) for item in dataset.__getitems__([2 * i, 2 * i + 1])]

    whole = load(0, seed=3)
    assert all(map(same, whole, load(0, seed=3)))
    assert all(map(same, whole[4:], load(2, seed=3)))
    assert not all(map(same, whole, load(0, seed=4)))


def test_another_image_than_itself_is_mixed_in(pseudo_labeled):
    for name in ALL:
        (mixer,) = build_mixing({name: dict(prob=1)})
        drawn = {i for _ in range(40) for i in mixer.get_indexes(pseudo_labeled, 3)}
        assert drawn and 3 not in drawn
        assert drawn <= set(range(8))


@pytest.mark.parametrize('name', ['mixup', 'mosaic'])
def test_prob_is_the_fraction_of_mixed_images_where_half_of_the_crops_are_empty(
    pseudo_labeled, monkeypatch, name
):
    dataset = mixing(pseudo_labeled, {name: dict(prob=0.5)})
    (mixer,) = dataset.mixers
    monkeypatch.setattr(
        type(dataset), '_load', lambda self, i, _: {'i': i} if np.random.rand() < 0.5 else None
    )
    np.random.seed(0)
    found = [dataset._load_others(mixer, 3, []) for _ in range(1000)]
    assert {len(others) for others in found} == {0, mixer.number}
    assert np.mean([*map(bool, found)]) == pytest.approx(0.5, abs=0.05)
    assert {other['i'] for others in found for other in others} == set(range(8)) - {3}


def test_where_all_crops_are_empty_nothing_is_mixed(pseudo_labeled, monkeypatch):
    tried = []
    monkeypatch.setattr(type(pseudo_labeled), '_load', lambda self, i, _: tried.append(i))
    for mixer in build_mixing({name: dict(prob=1) for name in ALL}):
        tried.clear()
        assert pseudo_labeled._load_others(mixer, 3, []) == []
        assert len(tried) == 10


def test_instances_are_pasted_from_images_that_have_sure_ones(folder, pseudo_labeled):
    (paste,) = build_mixing(dict(copy_paste=dict(prob=1, min_score=0.9)))
    sure = {ann['image_id'] for ann in annotations(folder) if ann['score'] > 0.9}
    assert 0 < len(sure) < 8
    drawn = [i for _ in range(40) for i in paste.get_indexes(pseudo_labeled, None)]
    assert set(drawn) == sure
    (never,) = build_mixing(dict(copy_paste=dict(prob=1, min_score=1)))
    assert never.get_indexes(pseudo_labeled, None) == []


@pytest.mark.parametrize(
    'first, message',
    [
        (LOADING + [dict(type='MinIoURandomCrop', min_ious=(0.9,))], 'Crop leaves out labels'),
        ([LOADING[0], dict(type='LoadAnnotations', with_bbox=True)], 'mixing needs masks'),
    ],
    ids=['hiding', 'boxes alone'],
)
def test_a_pipeline_that_cannot_be_mixed_is_named(folder, first, message):
    dataset = build(folder, pipeline=[*first, *PACKING[-1:]], mixing=ALL)
    np.random.seed(0)
    with pytest.raises(CASTError, match=f'pseudo.json: .*{message}'):
        [dataset[i] for i in range(8) for _ in range(5)]


@pytest.mark.parametrize(
    'mixing, message',
    [
        (dict(mozaic=dict()), 'mixing has no mozaic; .*mosaic'),
        (dict(mixup=dict(porb=1)), 'mixing.mixup has no porb; .*prob'),
        (dict(mine=dict(type='RandomFlip')), 'RandomFlip is no transform that mixes'),
        (dict(mosaic=dict(prob=1.5)), 'prob=1.5'),
        (dict(copy_paste=dict(min_visible=-1)), 'min_visible=-1'),
        (dict(copy_paste=dict(max_objects=0)), 'max_objects=0: give a number from 1$'),
        (dict(mine=dict(type='mmdet.Mosaic')), 'mmdet.Mosaic is no transform that mixes'),
        (dict(mixup=dict(prob='high')), 'prob=high: give a number from 0 to 1'),
        (dict(mixup=0.5), 'mixing.mixup=0.5: give its options'),
        ('mixup', 'mixing=mixup: give options by name'),
    ],
    ids=str,
)
def test_mistakes_in_mixing_are_named(mixing, message):
    with pytest.raises(CASTError, match=message):
        build_mixing(mixing)
