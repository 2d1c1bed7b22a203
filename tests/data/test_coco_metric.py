"""mmcast's ``CocoMetric`` returns what mmdet's does."""

import json

import numpy as np
import pytest
import torch
from mmdet.evaluation import CocoMetric as MMDetCocoMetric
from mmdet.structures import DetDataSample
from mmengine.structures import InstanceData
from pycocotools import mask as mask_utils

from mmcast.data import CocoMetric
from mmcast.errors import CASTError

CLASSES = ('a', 'b', 'c')
SIDE, IMAGES = 48, 5


def random_masks(rng, number):
    masks = np.zeros((number, SIDE, SIDE), np.uint8)
    for mask in masks:
        (top, left), (height, width) = rng.integers(0, 30, 2), rng.integers(3, 30, 2)
        mask[top : top + height, left : left + width] = 1
    return masks


def rles(masks):
    return [mask_utils.encode(np.asfortranarray(mask)) for mask in masks]


def write_labels(path):
    """With groups, an image without instances, and one class that has none."""
    rng, annotations = np.random.default_rng(0), []
    for image in range(1, IMAGES):
        for rle in rles(random_masks(rng, 6)):
            annotations.append(
                dict(
                    id=len(annotations) + 1,
                    image_id=image,
                    category_id=int(rng.integers(1, 3)),
                    iscrowd=int(rng.random() < 0.1),
                    bbox=mask_utils.toBbox(rle).tolist(),
                    area=int(mask_utils.area(rle)),
                    segmentation=dict(rle, counts=rle['counts'].decode()),
                )
            )
    images = [
        dict(id=number, file_name=f'{number}.png', height=SIDE, width=SIDE)
        for number in range(1, IMAGES + 1)
    ]
    categories = [dict(id=number, name=name) for number, name in enumerate(CLASSES, 1)]
    path.write_text(json.dumps(dict(images=images, annotations=annotations, categories=categories)))
    return path, annotations


def samples(annotations):
    """Predictions near the ground truth, some of them elsewhere."""
    rng = np.random.default_rng(1)
    for image in range(1, IMAGES + 1):
        own = [ann for ann in annotations if ann['image_id'] == image]
        near = [np.roll(mask_utils.decode(ann['segmentation']), 1, 0) for ann in own]
        masks = np.concatenate([np.array(near).reshape(-1, SIDE, SIDE), random_masks(rng, 4)])
        encoded = rles(masks.astype(np.uint8))
        x, y, w, h = mask_utils.toBbox(encoded).T
        instances = InstanceData(
            labels=torch.from_numpy(
                np.append([ann['category_id'] - 1 for ann in own], rng.integers(0, 3, 4)).astype(
                    int
                )
            ),
            scores=torch.from_numpy(rng.choice([0.2, 0.5, 0.9], len(masks))),
            bboxes=torch.from_numpy(np.stack([x, y, x + w, y + h], 1)).float(),
            masks=encoded,
        )
        yield DetDataSample(
            metainfo=dict(img_id=image, ori_shape=(SIDE, SIDE)), pred_instances=instances
        ).to_dict()


def evaluate(kind, path, annotations, **options):
    metric = kind(ann_file=str(path), **options)
    metric.dataset_meta = dict(classes=CLASSES)
    metric.process({}, list(samples(annotations)))
    return metric.evaluate(IMAGES)


OPTIONS = (
    dict(metric='segm'),
    dict(metric=['bbox', 'segm'], classwise=True),
    dict(metric=['segm', 'proposal']),
    dict(metric=['proposal', 'bbox']),
    dict(metric='segm', proposal_nums=(1, 10, 100), iou_thrs=np.array([0.5, 0.75])),
    dict(metric='segm', metric_items=['mAP_l', 'AR_m@1000']),
    dict(metric='segm', use_mp_eval=True),
)


@pytest.mark.parametrize('options', OPTIONS, ids=str)
def test_same_figures_as_mmdets(options, tmp_path):
    path, annotations = write_labels(tmp_path / 'labels.json')
    ours, theirs = (
        evaluate(kind, path, annotations, **options) for kind in (CocoMetric, MMDetCocoMetric)
    )
    assert ours.keys() == theirs.keys() and len(ours) > 1
    np.testing.assert_equal(dict(ours), dict(theirs))


def test_same_files_of_predictions_as_mmdets(tmp_path):
    path, annotations = write_labels(tmp_path / 'labels.json')
    for kind, name in ((CocoMetric, 'ours'), (MMDetCocoMetric, 'theirs')):
        options = dict(metric=['bbox', 'segm'], outfile_prefix=str(tmp_path / name))
        figures = evaluate(kind, path, annotations, **options)
        assert figures['coco/segm_mAP'] > 0
    for part in ('bbox', 'segm'):
        ours, theirs = (
            (tmp_path / f'{name}.{part}.json').read_text() for name in ('ours', 'theirs')
        )
        assert ours == theirs


def test_without_a_label_file_the_samples_ground_truth_counts(tmp_path):
    _, annotations = write_labels(tmp_path / 'labels.json')
    figures = []
    for kind in (CocoMetric, MMDetCocoMetric):
        metric = kind(metric=['bbox', 'segm'])
        metric.dataset_meta = dict(classes=CLASSES)
        for sample in samples(annotations):
            sample['instances'] = [
                dict(
                    bbox=[x, y, x + w, y + h],
                    bbox_label=ann['category_id'] - 1,
                    ignore_flag=ann['iscrowd'],
                    mask=dict(ann['segmentation']),
                )
                for ann in annotations
                if ann['image_id'] == sample['img_id']
                for x, y, w, h in [ann['bbox']]
            ]
            metric.process({}, [sample])
        figures.append(dict(metric.evaluate(IMAGES)))
    assert figures[0]['coco/segm_mAP'] > 0
    np.testing.assert_equal(*figures)


def test_mmdets_own_metric_stays_as_it_is(tmp_path, capsys):
    path, annotations = write_labels(tmp_path / 'labels.json')
    evaluate(CocoMetric, path, annotations, metric='segm')
    assert 'per image evaluation' not in capsys.readouterr().out
    evaluate(MMDetCocoMetric, path, annotations, metric='segm')
    assert 'per image evaluation' in capsys.readouterr().out


def scene(tmp_path, found):
    """AP, COCO's and of 100 pixels and more, of predictions (left, side, score) in one image that
    shows a square of 15 pixels and one of 5, both of one class.
    """
    annotations = []
    for left, side in ((0, 15), (20, 5)):
        mask = np.zeros((1, SIDE, SIDE), np.uint8)
        mask[0, :side, left : left + side] = 1
        rle = dict(rles(mask)[0])
        annotations.append(
            dict(
                id=len(annotations) + 1,
                image_id=1,
                category_id=1,
                iscrowd=0,
                bbox=[left, 0, side, side],
                area=side**2,
                segmentation=dict(rle, counts=rle['counts'].decode()),
            )
        )
    images = [dict(id=1, file_name='1.png', height=SIDE, width=SIDE)]
    content = dict(images=images, annotations=annotations, categories=[dict(id=1, name='a')])
    (tmp_path / 'scene.json').write_text(json.dumps(content))
    masks = np.zeros((len(found), SIDE, SIDE), np.uint8)
    for mask, (left, side, _) in zip(masks, found):
        mask[:side, left : left + side] = 1
    instances = InstanceData(
        labels=torch.zeros(len(found), dtype=torch.long),
        scores=torch.tensor([score for *_, score in found]),
        bboxes=torch.zeros(len(found), 4),
        masks=rles(masks),
    )
    sample = DetDataSample(
        metainfo=dict(img_id=1, ori_shape=(SIDE, SIDE)), pred_instances=instances
    ).to_dict()
    figures = []
    for min_area in (0, 100):
        metric = CocoMetric(ann_file=str(tmp_path / 'scene.json'), metric='segm', min_area=min_area)
        metric.dataset_meta = dict(classes=('a',))
        metric.process({}, [sample])
        figures.append(metric.evaluate(1)['coco/segm_mAP'])
    return figures


@pytest.mark.parametrize(
    ('found', 'every', 'large'),
    [
        ([(0, 15, 0.9), (20, 5, 0.8)], 1.0, 1.0),
        ([(0, 15, 0.9)], 0.505, 1.0),  # 51 of COCO's 101 recalls: the small one is missed
        ([(30, 5, 0.9), (0, 15, 0.8), (20, 5, 0.7)], 0.667, 1.0),  # a small one where nothing is
        ([(30, 15, 0.9), (0, 15, 0.8), (20, 5, 0.7)], 0.667, 0.5),  # a large one
        ([(20, 5, 0.9)], 0.505, 0.0),
    ],
    ids=str,
)
def test_objects_below_min_area_neither_count_nor_cost(tmp_path, found, every, large):
    assert scene(tmp_path, found) == [every, large]


@pytest.mark.parametrize(
    'options', [dict(min_area=-1), dict(min_area=9, use_mp_eval=True)], ids=str
)
def test_a_min_area_that_cannot_be_is_refused(options):
    with pytest.raises(CASTError, match='min_area is'):
        CocoMetric(metric='segm', **options)


def figures_of(path, annotations, **options):
    metric = CocoMetric(ann_file=str(path), metric='segm', classwise=True, **options)
    metric.dataset_meta = dict(classes=CLASSES)
    for sample in samples(annotations):
        metric.process({}, [sample])
    return metric.evaluate(IMAGES)


def test_rare_classes_are_left_out_of_the_mean(tmp_path):
    path, annotations = write_labels(tmp_path / 'labels.json')
    content = json.loads(path.read_text())
    rare = next(ann for ann in annotations if ann['category_id'] == 2 and not ann['iscrowd'])
    content['annotations'].remove(rare)
    path.write_text(json.dumps(content))
    single = [ann for ann in content['annotations'] if not ann['iscrowd']]
    numbers = {number: sum(ann['category_id'] == number for ann in single) for number in (1, 2)}
    frequent = max(numbers, key=numbers.get)
    assert numbers[1] != numbers[2]
    name = CLASSES[frequent - 1]
    every = figures_of(path, annotations)
    some = figures_of(path, annotations, min_objects=numbers[frequent])
    assert some['coco/segm_mAP'] == pytest.approx(every[f'coco/{name}_precision'], abs=5e-4)
    assert some['coco/segm_mAP'] != every['coco/segm_mAP']
    assert [key for key in some if key.endswith('_precision')] == [f'coco/{name}_precision']
    assert not figures_of(path, annotations, min_objects=numbers[frequent] + 1)
    areas = sorted(ann['area'] for ann in single if ann['category_id'] == frequent)
    assert not figures_of(
        path, annotations, min_objects=numbers[frequent], min_area=areas[0] + 1
    ), 'what min_area ignores does not count'


@pytest.mark.parametrize('options', [dict(min_objects=-1), dict(min_objects=3)], ids=str)
def test_objects_are_counted_in_a_file(options):
    with pytest.raises(CASTError, match='min_objects is'):
        CocoMetric(metric='segm', **options)


def crowded(tmp_path, number, classes=1, **options):
    """Figures of predictions that are the ground truth, ``number`` squares in one image."""
    side, masks, annotations = 10 * number, [], []
    for left in range(0, side, 10):
        mask = np.zeros((8, side), np.uint8)
        mask[:, left : left + 8] = 1
        masks += rles([mask])
        rle = dict(masks[-1], counts=masks[-1]['counts'].decode())
        annotations.append(
            dict(
                id=len(masks),
                image_id=1,
                category_id=1 + len(masks) % classes,
                iscrowd=0,
                bbox=[left, 0, 8, 8],
                area=64,
                segmentation=rle,
            )
        )
    images = [dict(id=1, file_name='1.png', height=8, width=side)]
    categories = [dict(id=1 + i, name=CLASSES[i]) for i in range(classes)]
    content = dict(images=images, annotations=annotations, categories=categories)
    (tmp_path / 'crowded.json').write_text(json.dumps(content))
    metric = CocoMetric(
        ann_file=str(tmp_path / 'crowded.json'),
        metric='segm',
        metric_items=['mAP', 'mAP_50', 'mAP_75', 'AR@100'],
        **options,
    )
    metric.dataset_meta = dict(classes=CLASSES[:classes])
    instances = InstanceData(
        labels=torch.tensor([annotation['category_id'] - 1 for annotation in annotations]),
        scores=torch.linspace(0.9, 0.5, number),
        bboxes=torch.zeros(number, 4),
        masks=masks,
    )
    sample = DetDataSample(metainfo=dict(img_id=1, ori_shape=(8, side)), pred_instances=instances)
    metric.process({}, [sample.to_dict()])
    figures = metric.evaluate(1)
    assert figures['coco/segm_AR@100'] == pytest.approx(min(1, 100 * classes / number), abs=1e-3)
    return [figures[f'coco/segm_mAP{end}'] for end in ('', '_50', '_75')]


def test_all_figures_count_as_many_predictions_as_an_image_has_objects(tmp_path, monkeypatch):
    said = []
    monkeypatch.setattr('mmcast.data.coco_names.print_log', lambda line, **_: said.append(line))
    assert crowded(tmp_path, 150) == [0.663, 1, 1], 'AP counts 100 in mmdet, others 1,000'
    assert 'have more than 100 instances, up to 150; of these 50 cannot be found' in said[0]
    assert 'set max_dets of the metric, to 150' in said[0]
    assert crowded(tmp_path, 150, max_dets=150) == [1, 1, 1]
    assert len(said) == 1
    assert crowded(tmp_path, 150, max_dets=120) == [0.802, 0.802, 0.802]
    assert 'more than 120 instances' in said[1]
    assert crowded(tmp_path, 40, max_dets=120) == crowded(tmp_path, 40) == [1, 1, 1]
    assert crowded(tmp_path, 40, max_dets=100) == crowded(tmp_path, 350, max_dets=400) == [1, 1, 1]
    assert crowded(tmp_path, 150, classes=2) == [1, 1, 1], '75 of each'
    assert len(said) == 2, 'COCO counts 100 of each class'
    with pytest.raises(CASTError, match='max_dets is 99'):
        CocoMetric(metric='segm', max_dets=99)
