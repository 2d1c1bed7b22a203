"""AP by hotcoco against pycocotools."""

import copy

import numpy as np
import pytest
from pycocotools import mask as mask_utils
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from mmcast.coco import evaluation
from mmcast.coco.evaluation import FastCOCOeval, MaskPrecision
from mmcast.masks.rle import encode_segmentation

SCORES = (0.0, 0.1, 0.5, 0.5, 0.9, 1.0)  # equal ones often
AREAS = (0, 1023.5, 1024, 9216, 5e9)  # of no mask, and the borders of COCO's ranges


def rectangle(rng, height, width):
    """A mask, with holes now and then; it may have no pixel."""
    mask = np.zeros((height, width), np.uint8, order='F')
    top, left = rng.integers(height), rng.integers(width)
    mask[top : top + rng.integers(height), left : left + rng.integers(width)] = 1
    if rng.random() < 0.3:
        mask &= rng.random((height, width)) < 0.7
    return mask


def segmentation(rng, mask):
    """One of the ways in which COCO writes a mask."""
    rle = mask_utils.encode(mask)
    kind = rng.integers(3)
    if kind == 0:
        flat = mask.ravel(order='F')
        changes = np.flatnonzero(np.diff(flat, prepend=0))
        counts = np.diff(changes, prepend=0, append=flat.size).tolist()
    else:
        counts = rle['counts'].decode() if kind == 1 else rle['counts']
    return dict(size=list(mask.shape), counts=counts)


def polygons(rng, height, width):
    points = rng.uniform(-0.2, 1.2, (rng.integers(1, 3), 5, 2)) * (width, height)
    return points.round(rng.integers(3)).reshape(len(points), -1).tolist()


def random_set(rng):
    """Ground truth with groups, empty images and ties, and predictions in no order."""
    height, width = rng.integers(8, 130, 2).tolist()
    classes = [3 * number for number in range(1, 1 + rng.integers(1, 5))]
    images = [
        dict(id=7 * number, height=height, width=width, file_name=f'{number}.png')
        for number in range(1, 1 + rng.integers(1, 6))
    ]
    truth, found = [], []
    for image in images:
        masks = [rectangle(rng, height, width) for _ in range(rng.integers(6))]
        for mask in masks:
            box = mask_utils.toBbox(mask_utils.encode(mask)) + rng.normal(0, 0.5, 4)
            drawn = rng.random() < 0.3
            truth.append(
                dict(
                    id=len(truth) + 1,
                    image_id=image['id'],
                    category_id=int(rng.choice(classes)),
                    iscrowd=int(rng.random() < 0.25),
                    area=float(rng.choice(AREAS)) if rng.random() < 0.3 else float(mask.sum()),
                    bbox=box.tolist(),
                    segmentation=(
                        polygons(rng, height, width) if drawn else segmentation(rng, mask)
                    ),
                )
            )
        for _ in range(rng.integers(9)):
            near = masks and rng.random() < 0.7
            mask = masks[rng.integers(len(masks))] if near else rectangle(rng, height, width)
            mask = np.asfortranarray(np.roll(mask, rng.integers(3), rng.integers(2)))
            rle = mask_utils.encode(mask)
            found.append(
                dict(
                    image_id=image['id'],
                    category_id=int(rng.choice(classes)),
                    score=float(rng.choice(SCORES)),
                    segmentation=dict(rle, counts=rle['counts'].decode()),
                    bbox=(mask_utils.toBbox(rle) + rng.integers(0, 2, 4)).tolist(),
                )
            )
    categories = [dict(id=number, name=str(number)) for number in classes]
    order = rng.permutation(len(found))
    return dict(images=images, annotations=truth, categories=categories), [found[i] for i in order]


def evaluate(kind, truth, found, shape, **params):
    """``eval`` and ``stats``."""
    other = 'bbox' if shape == 'segm' else 'segmentation'
    coco = COCO()
    coco.dataset = copy.deepcopy(truth)
    coco.createIndex()
    predictions = [{k: v for k, v in each.items() if k != other} for each in found]
    run = kind(coco, coco.loadRes(copy.deepcopy(predictions)), shape)
    for name, value in params.items():
        setattr(run.params, name, value)
    run.evaluate()
    run.accumulate()
    run.summarize()
    return run.eval, run.stats


def assert_same(truth, found, shape, **params):
    (fast, fast_stats), (slow, slow_stats) = (
        evaluate(kind, truth, found, shape, **params) for kind in (FastCOCOeval, COCOeval)
    )
    for name in ('precision', 'recall', 'scores'):
        np.testing.assert_allclose(fast[name], slow[name], rtol=0, atol=1e-12)
    np.testing.assert_allclose(fast_stats, slow_stats, rtol=0, atol=1e-12)
    assert fast['counts'] == slow['counts']


OPTIONS = (
    dict(),
    dict(maxDets=[100, 300, 1000]),  # mmdet's
    dict(maxDets=[1, 2, 3]),
    dict(useCats=0),
    dict(iouThrs=np.array([0.3, 0.5, 0.9])),
    dict(catIds=[3]),
    dict(imgIds=[14, 7]),
    dict(areaRng=[[0, 1e10], [0, 100], [100, 1024], [1024, 1e10]]),
)


@pytest.mark.parametrize('shape', ['segm', 'bbox'])
@pytest.mark.parametrize('options', OPTIONS, ids=str)
def test_equals_pycocotools(options, shape, capsys):
    compared = 0
    for seed in range(25):
        truth, found = random_set(np.random.default_rng(seed))
        known = {image['id'] for image in truth['images']}
        if not found or not known.issuperset(options.get('imgIds', ())):
            continue
        assert_same(truth, found, shape, **options)
        compared += 1
    assert compared > 15
    assert 'evaluating with pycocotools' not in capsys.readouterr().out


def test_ids_that_hotcoco_does_not_take_are_no_matter(capsys):
    """Text, negative ones, and beyond 64 bits."""
    truth, found = random_set(np.random.default_rng(3))
    new = (
        {image['id']: own for image, own in zip(truth['images'], ('b', 'a', 'd', 'c', 'e'))},
        {category['id']: 2**70 - category['id'] * 2**69 for category in truth['categories']},
    )
    for each in truth['images']:
        each['id'] = new[0][each['id']]
    for each in truth['categories']:
        each['id'] = new[1][each['id']]
    for each in (*truth['annotations'], *found):
        each['image_id'] = new[0][each['image_id']]
        each['category_id'] = new[1][each['category_id']]
    assert_same(truth, found, 'segm')
    assert 'evaluating with pycocotools' not in capsys.readouterr().out


def test_annotations_stay_as_they_are():
    truth, found = random_set(np.random.default_rng(4))
    before = copy.deepcopy(truth)
    coco = COCO()
    coco.dataset = truth
    coco.createIndex()
    FastCOCOeval(coco, coco.loadRes(found)).evaluate()
    assert truth == before


def test_nothing_to_find_has_no_figures():
    truth, found = random_set(np.random.default_rng(4))
    truth['annotations'] = []
    assert_same(truth, found, 'segm')


def test_pycocotools_evaluates_where_hotcoco_is_missing_and_says_so(monkeypatch, capsys):
    truth, found = random_set(np.random.default_rng(4))
    with_hotcoco = evaluate(FastCOCOeval, truth, found, 'segm')[1]
    monkeypatch.setattr(evaluation, 'hotcoco', None)
    without = evaluate(FastCOCOeval, truth, found, 'segm')[1]
    assert 'evaluating with pycocotools: hotcoco cannot be imported' in capsys.readouterr().out
    np.testing.assert_allclose(with_hotcoco, without, rtol=0, atol=1e-12)


def test_pycocotools_evaluates_what_hotcoco_refuses_and_says_why(capsys):
    """A score that is no number, as a network that has diverged gives."""
    truth, found = random_set(np.random.default_rng(4))
    found[0]['score'] = float('nan')
    evaluate(FastCOCOeval, truth, found, 'segm')
    assert 'evaluating with pycocotools: hotcoco refuses' in capsys.readouterr().out


@pytest.mark.parametrize('with_hotcoco', [True, False])
def test_images_one_after_the_other_have_the_precision_of_all(with_hotcoco, monkeypatch, capsys):
    """In any order: of equal scores the lower image id counts first."""
    if not with_hotcoco:
        monkeypatch.setattr(evaluation, 'hotcoco', None)
    for seed in range(12):
        truth, found = random_set(np.random.default_rng(seed))
        if not found:
            continue
        ids = [image['id'] for image in truth['images']]
        run = MaskPrecision(ids, [category['id'] for category in truth['categories']])
        for annotation in truth['annotations']:  # as read_ground_truth returns them
            rle = annotation['segmentation']
            size = truth['images'][0]['height'], truth['images'][0]['width']
            annotation['segmentation'] = encode_segmentation(rle, *size)
        for image in reversed(truth['images']):
            run.add(
                image,
                *(
                    [ann for ann in part if ann['image_id'] == image['id']]
                    for part in (truth['annotations'], found)
                ),
            )
        expected = evaluate(COCOeval, truth, found, 'segm')[0]['precision'][:, :, :, 0, -1]
        np.testing.assert_allclose(run.precision(), expected, rtol=0, atol=1e-12)
    said = 'evaluating with pycocotools' in capsys.readouterr().out
    assert said != with_hotcoco


@pytest.mark.parametrize('number', [100, 101])
def test_images_with_more_objects_than_labels_count_are_said(number):
    said = []
    run = MaskPrecision([1], [1], say=said.append)
    size = 4, 2 * number
    rles = []
    for left in range(0, size[1], 2):
        mask = np.zeros(size, np.uint8, order='F')
        mask[:, left] = 1
        rle = mask_utils.encode(mask)
        rles.append(dict(category_id=1, segmentation=dict(rle, counts=rle['counts'].decode())))
    truth = [dict(rle, area=4, iscrowd=0) for rle in rles]
    found = [dict(rle, score=0.9) for rle in rles]
    run.add(dict(id=1, height=size[0], width=size[1]), truth, found)
    precision = run.precision()
    assert bool(said) == (number > 100)
    assert (precision.min() == 1) == (number == 100), 'the last object is not found'
    if said:
        (line,) = said
        assert line == (
            '1 of 1 images have more than 100 instances, up to 101; of these 1 cannot be found: '
            'AP counts the best 100 of an image, as COCO does'
        )
