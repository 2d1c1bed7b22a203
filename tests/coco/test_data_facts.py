"""A data set in numbers, against loops over its annotations."""

import json

import numpy as np
import pytest
from data_plans import CLASSES, write_labels

from mmcast.coco.data_facts import measure_data

SIZES = [(100, 200), (400, 200), (300, 300), (50, 80)]  # height and width
BOXES = [
    [(0, 10, 10, 20, 40), (1, 150, 60, 40, 10)],
    [(1, 0, 0, 100, 100)] * 5,
    [],
    [(0, 2, 2, 5, 20)],
]


@pytest.fixture
def data(tmp_path):
    labeled = write_labels(tmp_path / 'labeled.json', SIZES[:3], BOXES[:3])
    val = write_labels(tmp_path / 'val.json', SIZES[3:], BOXES[3:])
    unlabeled = write_labels(tmp_path / 'unlabeled.json', [(120, 60), (60, 60)], [])
    return measure_data(labeled, val, unlabeled, CLASSES)


def test_numbers_of_images_and_objects(data):
    facts = data.facts
    assert (facts.labeled, facts.val, facts.unlabeled, facts.empty) == (3, 1, 2, 1)
    assert facts.instances == dict(cell=1, nucleus=6)  # labeled alone
    assert facts.most_instances == 5 and facts.median_instances == 2
    assert facts.short_side == np.median([100, 200, 300, 50, 60, 60])
    assert facts.aspect == np.median([2, 2, 1, 1.6, 2, 1]) and facts.longest_aspect == 2
    assert facts.portrait == 2 / 6


def test_sizes_of_objects_are_in_short_sides_of_their_image(data):
    sides, extents = [], []
    for (height, width), boxes in zip(SIZES, BOXES):
        for _, _, _, across, down in boxes:
            sides.append(np.sqrt(across * down) / min(height, width))
            extents.append(max(across, down) / min(height, width))
    assert data.facts.small_side == pytest.approx(np.percentile(sides, 10))
    assert data.facts.median_side == pytest.approx(np.percentile(sides, 50))
    assert data.facts.large_extent == pytest.approx(np.percentile(extents, 95))


def test_areas_of_boxes_make_no_object_larger(tmp_path):
    path = tmp_path / 'labels.json'
    write_labels(path, [(100, 100)], [[(0, 0, 0, 60, 60)]])
    content = json.loads(path.read_text())
    corner = [0, 0, 4, 0, 4, 56, 60, 56, 60, 60, 0, 60]  # 464 pixels along two sides of the box
    content['annotations'][0].update(segmentation=[corner], area=3600)
    path.write_text(json.dumps(content))
    facts = measure_data(str(path), str(path), str(path), CLASSES).facts
    assert facts.small_side == pytest.approx(np.sqrt(464) / 100)


def test_groups_and_other_classes_do_not_count(tmp_path):
    path = write_labels(tmp_path / 'labels.json', SIZES[:2], BOXES[:2])
    content = json.loads((tmp_path / 'labels.json').read_text())
    content['annotations'][0]['iscrowd'] = 1
    (tmp_path / 'labels.json').write_text(json.dumps(content))
    facts = measure_data(path, path, path, ['nucleus']).facts
    assert facts.instances == dict(nucleus=6) and facts.most_instances == 5


def test_the_fullest_window_is_found(tmp_path):
    """A cluster of seven in the corner of one image, five far from each other in another."""
    cluster = [(0, 480 + 3 * i, 90, 4, 4) for i in range(6)] + [(0, 5, 5, 4, 4)]
    apart = [(0, 100 * i, 40, 4, 4) for i in range(5)]
    path = write_labels(tmp_path / 'labels.json', [(100, 500), (100, 500)], [apart, cluster])
    data = measure_data(path, path, path, CLASSES)
    assert data.most_in_windows(0.5, 0.1) == 6
    assert data.most_in_windows(1.2, 0.1) == 6
    assert data.most_in_windows(5, 1) == 7
