"""Pseudo-labels as a training set: thresholds, overlaps and class order against hand-computed
answers.
"""

import json
from itertools import islice

import cv2
import numpy as np
import pytest
from mmengine.registry import DefaultScope
from pycocotools import mask as mask_utils

from mmcast.errors import CASTError
from mmcast.masks.rle import encode_mask
from mmcast.pseudo_labels.dataset import PseudoLabelDataset
from mmcast.pseudo_labels.store import make_info
from mmcast.pseudo_labels.threshold_file import write_thresholds

HEIGHT, WIDTH = 8, 10
CLASSES = ('person', 'car')
PIPELINE = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations', with_bbox=True, with_mask=True),
    dict(type='PackDetInputs', meta_keys=('img_id', 'source')),
]


def rectangle(rows, columns):
    mask = np.zeros((HEIGHT, WIDTH), dtype=bool)
    mask[slice(*rows), slice(*columns)] = True
    return mask


# Image 1: a car (score 0.6) of 4 x 5 pixels, of which a person (0.9) takes 2 x 2, and a truck, not
# a class. Image 2: a person (0.31) that lies within a car (0.8). Image 3: one weak car (0.3). Image
# 4: nothing.
LABELS = [
    (1, 5, 0.6, rectangle((0, 4), (0, 5))),
    (1, 9, 0.9, rectangle((2, 6), (3, 6))),
    (1, 2, 0.9, rectangle((6, 8), (0, 2))),
    (2, 9, 0.31, rectangle((1, 3), (1, 3))),
    (2, 5, 0.8, rectangle((0, 4), (0, 4))),
    (3, 5, 0.3, rectangle((0, 8), (0, 10))),
]


@pytest.fixture
def files(tmp_path):
    annotations = []
    for number, (image_id, category_id, score, mask) in enumerate(LABELS, start=1):
        rle = encode_mask(mask)
        annotations.append(
            dict(
                id=number,
                image_id=image_id,
                category_id=category_id,
                score=score,
                iscrowd=0,
                segmentation=rle,
                area=int(mask.sum()),
                bbox=mask_utils.toBbox(rle).tolist(),
            )
        )
    images = [dict(id=i, file_name=f'{i}.png', height=HEIGHT, width=WIDTH) for i in (1, 2, 3, 4)]
    for image in images:
        cv2.imwrite(str(tmp_path / image['file_name']), np.zeros((HEIGHT, WIDTH, 3), np.uint8))
    categories = [dict(id=5, name='car'), dict(id=2, name='truck'), dict(id=9, name='person')]
    content = dict(
        info=make_info(score_floor=0.05),
        images=images,
        annotations=annotations,
        categories=categories,
        unreadable=[],
    )
    (tmp_path / 'labels.json').write_text(json.dumps(content))
    return tmp_path


def build(files, **kwargs):
    with DefaultScope.overwrite_default_scope('mmcast'):
        options = dict(
            ann_file=str(files / 'labels.json'),
            data_prefix=dict(img=str(files)),
            metainfo=dict(classes=CLASSES),
            pipeline=PIPELINE,
        )
        return PseudoLabelDataset(**(options | kwargs))


def labels_and_areas(dataset):
    infos = [dataset.get_data_info(index) for index in range(len(dataset))]
    return [
        [(i['bbox_label'], int(mask_utils.area(i['mask']))) for i in info['instances']]
        for info in infos
    ]


def test_threshold_overlaps_and_class_order(files):
    dataset = build(files)
    assert labels_and_areas(dataset) == [[(1, 16), (0, 12)], [(1, 16)], [], []]
    car, person = dataset.get_data_info(0)['instances']
    assert (car['score'], person['score']) == (0.6, 0.9)
    assert person['bbox'] == [3, 2, 6, 6]
    remaining = rectangle((0, 4), (0, 5)) & ~rectangle((2, 6), (3, 6))
    assert np.array_equal(mask_utils.decode(car['mask']), remaining)


def test_overlaps_may_stay(files):
    assert labels_and_areas(build(files, resolve_overlaps=False)) == [
        [(1, 20), (0, 12)],
        [(0, 4), (1, 16)],
        [],
        [],
    ]


def test_box_shrinks_with_its_mask(files):
    content = json.loads((files / 'labels.json').read_text())
    content['annotations'][0]['segmentation'] = encode_mask(rectangle((2, 4), (0, 5)))
    (files / 'labels.json').write_text(json.dumps(content))
    car = build(files).get_data_info(0)['instances'][0]
    assert car['bbox'] == [0, 2, 3, 4]


def test_threshold_of_each_class(files):
    assert labels_and_areas(build(files, score_thr=dict(person=0.95, car=0.1))) == [
        [(1, 20)],
        [(1, 16)],
        [(1, 80)],
        [],
    ]


def test_area_counts_after_overlaps(files):
    assert labels_and_areas(build(files, min_area=16)) == [[(1, 16)], [(1, 16)], [], []]
    assert labels_and_areas(build(files, min_area=17)) == [[], [], [], []]


def test_empty_images_pass_through_the_pipeline(files):
    dataset = build(files, filter_cfg=dict(filter_empty_gt=True, min_size=32))
    assert len(dataset) == 4
    samples = [dataset[i]['data_samples'] for i in range(4)]
    assert [len(sample.gt_instances) for sample in samples] == [2, 1, 0, 0]
    assert samples[3].gt_instances.masks.masks.shape == (0, HEIGHT, WIDTH)
    assert all(sample.source == 'pseudo' for sample in samples)
    assert samples[0].gt_instances.labels.tolist() == [1, 0]
    assert samples[0].gt_instances.masks.masks.sum((1, 2)).tolist() == [16, 12]


def test_mixes_with_labeled_images_in_the_group_sampler(files):
    from mmdet.datasets.samplers import GroupMultiSourceSampler
    from mmengine.dataset import ConcatDataset

    both = ConcatDataset([build(files), build(files)])
    sampler = GroupMultiSourceSampler(both, batch_size=4, source_ratio=[1, 1], seed=0)
    assert sorted(index // 4 for index in islice(sampler, 4)) == [0, 0, 1, 1]


def test_one_line_says_what_was_kept(files, monkeypatch):
    lines = []
    monkeypatch.setattr(
        'mmcast.pseudo_labels.dataset.print_log', lambda line, **kwargs: lines.append(line)
    )
    build(files)
    assert lines == [
        (
            f'{files}/labels.json: kept 3 of 5 pseudo-labels (person 1/2, car 2/3), dropped by '
            'score 1, covered 1; 2 of 4 images are empty'
        )
    ]


def test_scores_are_thresholded_apart_and_reach_the_instances(files):
    content = json.loads((files / 'labels.json').read_text())
    for annotation in content['annotations']:
        annotation.update(class_score=0.5, mask_quality=annotation['score'])
    (files / 'labels.json').write_text(json.dumps(content))
    dataset = build(files, score_thr=0, mask_quality_thr=dict(person=0.95, car=0.5))
    assert labels_and_areas(dataset) == [[(1, 20)], [(1, 16)], [], []]
    car = dataset.get_data_info(0)['instances'][0]
    assert (car['score'], car['class_score'], car['mask_quality']) == (0.6, 0.5, 0.6)
    assert labels_and_areas(build(files, score_thr=0, class_score_thr=0.5)) == [[], [], [], []]


def test_thresholds_from_data_where_they_are_above_the_given_one(files, monkeypatch):
    lines = []
    monkeypatch.setattr(
        'mmcast.pseudo_labels.dataset.print_log', lambda line, **kwargs: lines.append(line)
    )
    build(files, score_thr=0.5, thresholds_from=dict(percentile=50), resolve_overlaps=False)
    assert lines[0] == f'{files}/labels.json: thresholds on score: person 0.500, car 0.500'
    assert 'person 1/2, car 2/3' in lines[1]
    square = dict(segmentation=[[1, 1, 5, 1, 5, 5, 1, 5]], bbox=[1, 1, 4, 4], area=16, iscrowd=0)
    people = dict(
        images=[dict(id=1, file_name='1.png', height=HEIGHT, width=WIDTH)],
        annotations=[dict(square, id=number, image_id=1, category_id=1) for number in range(1, 5)],
        categories=[dict(id=1, name='person'), dict(id=2, name='car')],
    )
    (files / 'labeled.json').write_text(json.dumps(people))
    source = dict(labeled=str(files / 'labeled.json'))
    build(files, score_thr=0, thresholds_from=source, resolve_overlaps=False)
    assert 'person 2/2, car 0/3' in lines[3]


def test_thresholds_of_held_out_images_where_they_are_above_the_given_one(files):
    path = files / 'thresholds.json'
    write_thresholds(path, classes=dict(car=dict(threshold=0.55), person=dict(threshold=0.2)))
    source = dict(held_out=str(path))

    def scores(**options):
        dataset = build(files, resolve_overlaps=False, **options)
        infos = [dataset.get_data_info(index) for index in range(len(dataset))]
        found = [instance for info in infos for instance in info['instances']]
        return [(CLASSES[instance['bbox_label']], instance['score']) for instance in found]

    every, chosen = scores(score_thr=0), scores(score_thr=0.4, thresholds_from=source)
    limits = dict(car=0.55, person=0.4)
    assert chosen == [(name, score) for name, score in every if score > limits[name]]
    assert 0 < len(chosen) < len(every)


def test_at_most_so_many_an_image(files):
    assert labels_and_areas(build(files, top_k=1)) == [[(0, 12)], [(1, 16)], [], []]


def test_labels_follow_names_where_two_categories_have_one(files):
    content = json.loads((files / 'labels.json').read_text())
    content['categories'] += [dict(id=11, name='car'), dict(id=1, name='person')]
    (files / 'labels.json').write_text(json.dumps(content))
    assert labels_and_areas(build(files)) == [[(1, 16), (0, 12)], [(1, 16)], [], []]


def test_no_image_that_could_be_read(files):
    content = json.loads((files / 'labels.json').read_text())
    content.update(images=[], annotations=[], unreadable=[dict(file_name='1.png', reason='cut')])
    (files / 'labels.json').write_text(json.dumps(content))
    with pytest.raises(CASTError, match=r'labels\.json has no image: none of 1 could be read'):
        build(files)


def test_other_files_and_names_are_refused(files):
    with pytest.raises(
        CASTError, match=r'labels\.json has no class tram, it has car, truck, person'
    ):
        build(files, metainfo=dict(classes=('person', 'tram')))
    with pytest.raises(
        CASTError, match=r'score_thr of .*labels\.json is for the classes car: give one'
    ):
        build(files, score_thr=dict(car=0.3))
    content = json.loads((files / 'labels.json').read_text())
    (files / 'labels.json').write_text(
        json.dumps(dict(content, info=dict(description='ground truth')))
    )
    with pytest.raises(CASTError, match=r'labels\.json is not a pseudo-label file .*mmcast label'):
        build(files)
