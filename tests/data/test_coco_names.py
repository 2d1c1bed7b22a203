"""Labels follow class names, whatever the order of categories in a file."""

import copy
import json

import numpy as np
import pytest
import torch
from mmdet.structures import DetDataSample
from mmengine.structures import InstanceData
from PIL import Image
from pycocotools import mask as rle

from mmcast.coco.consistency import check_labels
from mmcast.errors import CASTError
from mmcast.registry import DATASETS, METRICS

SIDE = 32
# Category, and the box that its instance fills.
INSTANCES = {
    'one.png': [('square', (2, 2, 10, 10)), ('disc', (15, 15, 8, 8))],
    'two.png': [('disc', (1, 20, 9, 9)), ('ring', (16, 2, 12, 12))],
}


def coco_file(folder, categories):
    """A COCO file whose categories are listed like this: ids by name, or pairs of id and name."""
    pairs = (
        [(id_, name) for name, id_ in categories.items()]
        if isinstance(categories, dict)
        else (categories)
    )
    ids = {}
    for id_, name in pairs:
        ids.setdefault(name, id_)
    images = [
        dict(id=number, file_name=name, height=SIDE, width=SIDE)
        for number, name in enumerate(INSTANCES, 1)
    ]
    annotations = []
    for image in images:
        for name, (x, y, w, h) in INSTANCES[image['file_name']]:
            if name in ids:
                polygon = [x, y, x + w, y, x + w, y + h, x, y + h]
                annotations.append(
                    dict(
                        id=len(annotations) + 1,
                        image_id=image['id'],
                        category_id=ids[name],
                        bbox=[x, y, w, h],
                        area=w * h,
                        iscrowd=0,
                        segmentation=[polygon],
                    )
                )
    path = folder / 'labels.json'
    content = dict(
        images=images,
        annotations=annotations,
        categories=[dict(id=id_, name=name) for id_, name in pairs],
    )
    path.write_text(json.dumps(content))
    return path


def labels_of(path, classes):
    """Class names of every image as the data set gives them."""
    dataset = DATASETS.build(
        dict(
            type='CocoDataset',
            ann_file=str(path),
            metainfo=dict(classes=classes),
            pipeline=[],
            data_prefix=dict(img=''),
        )
    )
    return {
        dataset.get_data_info(index)['img_path'].rpartition('/')[2]: [
            classes[instance['bbox_label']]
            for instance in dataset.get_data_info(index)['instances']
        ]
        for index in range(len(dataset))
    }


def evaluate(path, classes, **options):
    """The metrics of perfect predictions."""
    metric = METRICS.build(
        dict(type='CocoMetric', ann_file=str(path), metric='segm', classwise=True, **options)
    )
    metric.dataset_meta = dict(classes=classes)
    for number, (_, instances) in enumerate(INSTANCES.items(), 1):
        instances = [instance for instance in instances if instance[0] in classes]
        masks = np.zeros((len(instances), SIDE, SIDE), bool)
        for mask, (_, (x, y, w, h)) in zip(masks, instances):
            mask[y : y + h, x : x + w] = True
        found = InstanceData(
            labels=torch.tensor([classes.index(name) for name, _ in instances]),
            scores=torch.ones(len(instances)),
            bboxes=torch.tensor([[x, y, x + w, y + h] for _, (x, y, w, h) in instances]).float(),
            masks=[rle.encode(np.asfortranarray(mask)) for mask in masks.astype(np.uint8)],
        )
        sample = DetDataSample(
            metainfo=dict(img_id=number, ori_shape=(SIDE, SIDE)), pred_instances=found
        )
        metric.process({}, [sample.to_dict()])
    return metric.evaluate(len(INSTANCES))


ORDERS = {
    'as the classes': dict(disc=1, square=2, ring=3),
    'another order': dict(square=1, ring=2, disc=3),
    'ids fall': dict(disc=9, square=4, ring=2),
    'ids fall, another order': dict(ring=7, disc=5, square=3),
}


@pytest.mark.parametrize('categories', ORDERS.values(), ids=ORDERS)
def test_labels_and_metrics_follow_names(categories, tmp_path):
    classes = ('disc', 'square', 'ring')
    path = coco_file(tmp_path, categories)
    assert labels_of(path, classes) == {
        name: [found for found, _ in instances] for name, instances in INSTANCES.items()
    }
    metrics = evaluate(path, classes)
    assert metrics['coco/segm_mAP'] == 1.0
    assert [metrics[f'coco/{name}_precision'] for name in classes] == [1.0, 1.0, 1.0]


def test_figures_per_class_are_those_of_the_class(tmp_path):
    """Predictions with two names swapped; only the third class is right."""
    path = coco_file(tmp_path, ORDERS['ids fall, another order'])
    content = json.loads(path.read_text())
    for annotation in content['annotations']:
        annotation['category_id'] = {5: 3, 3: 5, 7: 7}[annotation['category_id']]
    path.write_text(json.dumps(content))
    metrics = evaluate(path, ('disc', 'square', 'ring'))
    assert metrics['coco/ring_precision'] == 1.0
    assert metrics['coco/disc_precision'] == metrics['coco/square_precision'] == 0.0


def test_a_class_that_the_file_lacks_moves_no_other(tmp_path):
    path = coco_file(tmp_path, dict(square=1, ring=2))
    classes = ('square', 'disc', 'ring')
    assert labels_of(path, classes) == {'one.png': ['square'], 'two.png': ['ring']}
    metrics = evaluate(path, classes)
    assert metrics['coco/segm_mAP'] == 1.0
    assert metrics['coco/ring_precision'] == metrics['coco/square_precision'] == 1.0


@pytest.mark.parametrize('unused_first', [True, False])
def test_of_two_categories_of_one_name_the_used_one_counts(unused_first, tmp_path):
    """Roboflow groups the categories under one that may have the name of one of them."""
    path = coco_file(tmp_path, [(1, 'disc'), (2, 'square'), (3, 'ring')])
    content = json.loads(path.read_text())
    content['categories'].insert(0 if unused_first else 3, dict(id=0, name='disc'))
    path.write_text(json.dumps(content))
    classes = ('disc', 'square', 'ring')
    assert labels_of(path, classes)['one.png'] == ['square', 'disc']
    assert evaluate(path, classes)['coco/segm_mAP'] == 1.0


def test_two_used_categories_of_one_name_are_refused(tmp_path):
    path = coco_file(tmp_path, [(1, 'disc'), (2, 'square'), (3, 'ring')])
    content = json.loads(path.read_text())
    content['categories'].append(dict(id=4, name='disc'))
    content['annotations'][1]['category_id'] = 4
    path.write_text(json.dumps(content))
    message = r'labels\.json cannot be used.* categories 1, 4 are all called disc and have annot'
    for name in INSTANCES:
        Image.new('RGB', (SIDE, SIDE)).save(tmp_path / name)
    with pytest.raises(CASTError, match=message):
        labels_of(path, ('disc', 'square', 'ring'))
    with pytest.raises(CASTError, match=message):  # before training
        check_labels(str(path), str(tmp_path), ('disc', 'square', 'ring'))
    with pytest.raises(CASTError, match=message):
        evaluate(path, ('disc', 'square', 'ring'))


def mix(content):
    """Faults of many kinds, none of which changes what is meant."""
    for image in content['images']:
        image['id'] = f'{image["id"]}'
    first, second, third, fourth = content['annotations']
    first.update(id=0, image_id='1', iscrowd=None, area=0)
    second.update(segmentation=second['segmentation'][0], category_id=f'{second["category_id"]}')
    third.update(bbox=None, iscrowd='0', image_id=2.0)
    points = fourth['segmentation'][0]
    fourth.update(segmentation=[[], [points[i : i + 2] for i in (0, 2, 4, 6)], [1, 1, 5, 5]])
    del fourth['iscrowd'], fourth['area']
    content['categories'].insert(0, dict(id=0, name='disc'))
    for annotation, image in ((first, 1), (fourth, '2')):
        content['annotations'].append(
            copy.deepcopy(dict(annotation, image_id=image, segmentation=[[3, 3, 5, 5]]))
        )
    return content


@pytest.mark.parametrize('categories', ORDERS.values(), ids=ORDERS)
def test_a_file_with_many_faults_means_what_it_meant(categories, tmp_path):
    classes = ('disc', 'square', 'ring')
    path = coco_file(tmp_path, categories)
    dataset = dict(type='CocoDataset', metainfo=dict(classes=classes), data_prefix=dict(img=''))
    options = dict(dataset, ann_file=str(path), pipeline=[])
    right = DATASETS.build(options)
    path.write_text('\ufeff' + json.dumps(mix(json.loads(path.read_text()))))
    mended = DATASETS.build(options)
    for index in range(2):
        found, wanted = (
            [
                (i['bbox'], i['bbox_label'], i['mask'], i['ignore_flag'])
                for i in part.get_data_info(index)['instances']
            ]
            for part in (mended, right)
        )
        assert found == wanted and len(found) == 2
    metrics = evaluate(path, classes)
    assert metrics['coco/segm_mAP'] == 1.0
    assert [metrics[f'coco/{name}_precision'] for name in classes] == [1.0, 1.0, 1.0]


def test_sizes_that_a_file_lacks_come_from_its_images(tmp_path):
    path = coco_file(tmp_path, ORDERS['as the classes'])
    content = json.loads(path.read_text())
    for image in content['images']:
        del image['height'], image['width']
    path.write_text(json.dumps(content))
    for name in INSTANCES:
        Image.new('RGB', (SIDE, SIDE)).save(tmp_path / name)
    dataset = DATASETS.build(
        dict(
            type='CocoDataset',
            ann_file=str(path),
            metainfo=dict(classes=('disc', 'square', 'ring')),
            pipeline=[],
            data_prefix=dict(img=str(tmp_path)),
        )
    )
    assert dataset.get_data_info(0)['height'] == SIDE
    assert evaluate(path, ('disc', 'ring'), img_dir=str(tmp_path))['coco/segm_mAP'] == 1.0
    with pytest.raises(CASTError, match='width and height are null and null'):
        evaluate(path, ('disc', 'ring'))
