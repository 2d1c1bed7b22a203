"""Agreement with held-out ground truth, in cases small enough to work out by hand, and AP against
mmdet's metric.
"""

import json

import numpy as np
import pytest
from stored_labels import (
    CAR,
    CATEGORIES,
    HEIGHT,
    PERSON,
    WIDTH,
    label,
    rectangle,
    write_hidden,
    write_labels,
)

from mmcast.errors import CASTError
from mmcast.pseudo_labels.quality import (
    calibration,
    compare_labels,
    describe_precision,
    mask_precision,
    read_ground_truth,
)
from mmcast.pseudo_labels.store import read_pseudo_labels


def test_hidden_labels_are_found_by_name(tmp_path):
    store = read_pseudo_labels(write_labels(tmp_path / 'labels.json', {1: [], 2: []}))
    polygon = dict(label(CAR, rectangle(0, 0, 1, 1)), segmentation=[[0, 0, 10, 0, 10, 5, 0, 5]])
    hidden = read_ground_truth(write_hidden(tmp_path / 'hidden.json', {2: [polygon], 8: []}), store)
    assert list(hidden) == [2]
    assert (hidden[2][0]['category_id'], hidden[2][0]['area']) == (CAR, 50)
    with pytest.raises(CASTError, match=r'hidden\.json has none of the images .* such as 1\.png'):
        read_ground_truth(write_hidden(tmp_path / 'hidden.json', {8: []}), store)


def test_hidden_labels_are_found_by_another_spelling_of_the_path(tmp_path):
    """Labels have normal paths, a list of images those of whoever wrote it."""
    store = read_pseudo_labels(write_labels(tmp_path / 'labels.json', {1: [], 2: []}))
    path = write_hidden(tmp_path / 'hidden.json', {1: [], 2: []})
    content = json.loads(path.read_text())
    for image, folder in zip(content['images'], ('./', 'a//../')):
        image['file_name'] = folder + image['file_name']
    path.write_text(json.dumps(content))
    assert [*read_ground_truth(path, store)] == [1, 2]


def test_hidden_labels_of_a_used_and_an_unused_category_of_one_name(tmp_path):
    store = read_pseudo_labels(write_labels(tmp_path / 'labels.json', {1: []}))
    path = write_hidden(tmp_path / 'hidden.json', {1: [label(CAR, rectangle(0, 0, 5, 5))]})
    content = json.loads(path.read_text())
    content['categories'] += [dict(id=8, name='car'), dict(id=9, name='person')]
    path.write_text(json.dumps(content))
    assert [ann['category_id'] for ann in read_ground_truth(path, store)[1]] == [CAR]


def test_hidden_labels_of_images_of_another_size_are_refused(tmp_path):
    """Pycocotools compares masks of two sizes with an IoU of -1, and finds an AP of 0."""
    store = read_pseudo_labels(write_labels(tmp_path / 'labels.json', {1: [], 2: []}))
    path = write_hidden(tmp_path / 'hidden.json', {1: [], 2: []})
    content = json.loads(path.read_text())
    content['images'][1].update(height=2 * HEIGHT, width=2 * WIDTH)
    path.write_text(json.dumps(content))
    with pytest.raises(
        CASTError, match=r'lists 1 images in another .* 2\.png, 60x40 and not 30x20'
    ):
        read_ground_truth(path, store)


def test_labels_take_hidden_ones_in_the_order_of_their_scores():
    """Of two labels on one car the better scored matches; a wrong class and a group do not."""
    truth = rectangle(0, 0, 10, 10)
    hidden = {
        1: [
            label(CAR, truth),
            label(PERSON, rectangle(0, 20, 4, 5)),
            label(PERSON, rectangle(10, 10, 10, 10), iscrowd=1),
        ],
        2: [],
        3: [label(CAR, truth)],
    }
    labels = {
        1: [
            label(CAR, truth, 0.5),
            label(CAR, rectangle(0, 0, 10, 8), 0.9),
            label(PERSON, rectangle(10, 10, 10, 9), 0.4),
            label(PERSON, truth, 0.3),
        ]
    }
    found = compare_labels(labels, hidden)
    rows = sorted(
        zip(found.scores['score'].tolist(), found.correct.tolist(), found.iou.round(3).tolist())
    )
    assert rows == [(0.3, False, 0.0), (0.5, False, 1.0), (0.9, True, 0.8)]  # none on the group
    assert found.total == 3
    assert found.summary() == dict(
        precision=pytest.approx(1 / 3), recall=pytest.approx(1 / 3), mean_iou=pytest.approx(0.8)
    )
    # 0.8 over one match, two wrong and one missed; nothing on image 2; nothing found on image 3.
    assert found.image_quality == {1: pytest.approx(0.8 / (1 + (2 + 1) / 2)), 3: 0}


def test_calibration_of_ten_bins():
    scores, correct = (
        np.array([0.05, 0.15, 0.12, 0.95, 1.0]),
        np.array([False, True, False, True, True]),
    )
    found = calibration(scores, correct, np.array([0, 0.6, 0.2, 0.9, 0.7]))
    assert [each['count'] for each in found['bins']] == [1, 2, 2]
    assert found['bins'][1] == pytest.approx(dict(count=2, score=0.135, precision=0.5, iou=0.4))
    assert found['error'] == pytest.approx((0.05 + 2 * 0.365 + 2 * 0.025) / 5)


def test_calibration_of_a_score_that_some_labels_lack():
    """Of labels of two teachers in one file, for instance."""
    truth = rectangle(0, 0, 10, 10)
    labels = {
        1: [label(CAR, truth, 0.9, class_score=0.7), label(CAR, rectangle(10, 10, 5, 5), 0.5)]
    }
    found = compare_labels(labels, {1: [label(CAR, truth)]})
    assert sorted(found.scores) == ['class_score', 'score']
    assert calibration(found.scores['class_score'], found.correct, found.iou)['bins'] == [
        dict(count=1, score=0.7, precision=1.0, iou=1.0)
    ]


def test_average_precision_is_that_of_mmdets_metric(tmp_path):
    from mmdet.evaluation import CocoMetric

    rng = np.random.default_rng(0)

    def draw(count, scores):
        masks = (rectangle(*rng.integers(0, 8, 2), *rng.integers(5, 12, 2)) for _ in range(count))
        return [
            label([CAR, PERSON][rng.integers(2)], mask, rng.random() if scores else None)
            for mask in masks
        ]

    hidden = {image: draw(4, False) for image in range(1, 7)}
    labels = {
        image: draw(3, True) + [dict(ann, score=rng.random()) for ann in hidden[image][:2]]
        for image in hidden
    }
    store = read_pseudo_labels(write_labels(tmp_path / 'labels.json', labels))
    metric = CocoMetric(
        ann_file=str(write_hidden(tmp_path / 'hidden.json', hidden, offset=0)), metric='segm'
    )
    metric.dataset_meta = dict(classes=('person', 'car'))  # the file's order
    for image, found in labels.items():
        prediction = dict(
            bboxes=np.array([ann['bbox'] for ann in found]),
            scores=np.array([ann['score'] for ann in found]),
            labels=np.array([[PERSON, CAR].index(ann['category_id']) for ann in found]),
            masks=[ann['segmentation'] for ann in found],
        )
        tensors = {key: _tensor(value) for key, value in prediction.items()}
        metric.process({}, [dict(img_id=image, ori_shape=(HEIGHT, WIDTH), pred_instances=tensors)])
    expected = metric.evaluate(size=len(labels))
    found = average_precision(labels, hidden, store)
    assert found['ap'] == pytest.approx(expected['coco/segm_mAP'], abs=6e-4)  # mmdet rounds
    assert found['ap50'] == pytest.approx(expected['coco/segm_mAP_50'], abs=6e-4)
    assert 0.1 < found['ap'] < 0.9
    assert list(found['ap_of_class']) == [category['name'] for category in CATEGORIES]


def average_precision(labels, hidden, store):
    precision = mask_precision(hidden, store)
    for image in store['images']:
        if image['id'] in hidden:
            precision.add(image, hidden[image['id']], labels.get(image['id'], ()))
    return describe_precision(precision, store)


def _tensor(value):
    import torch

    return torch.from_numpy(value) if isinstance(value, np.ndarray) else value


def test_no_hidden_label_gives_no_figure():
    store = dict(
        images=[dict(id=1, file_name='1.png', height=HEIGHT, width=WIDTH)], categories=CATEGORIES
    )
    nothing = dict(ap=None, ap50=None, ap_of_class=dict(car=None, person=None))
    assert average_precision({}, {1: []}, store) == nothing
    assert compare_labels({}, {1: []}).summary() == dict(precision=None, recall=None, mean_iou=None)
