import json
from collections import defaultdict
from pathlib import Path

import pytest

from mmcast.coco.converters.cityscapes_small import halve_cities, prepare_cityscapes_small
from mmcast.errors import CASTError
from mmcast.toy.cityscapes import generate_toy_cityscapes

HEIGHT, MIN_AREA = 40, 60


@pytest.fixture(scope='module')
def root(tmp_path_factory):
    """Cities abendorf, dammerburg and nebelsheim to train on, grauwinkel and regenau besides."""
    root = tmp_path_factory.mktemp('small') / 'data'
    generate_toy_cityscapes(root, num_train=24, num_val=5, size=(HEIGHT, 80), progress=False)
    return root


def prepare(root, out, **options):
    options = dict(percent=50, height=HEIGHT, min_area=MIN_AREA, num_workers=0, **options)
    return prepare_cityscapes_small(root, out, **options)


def read(path):
    return json.loads(Path(path).read_text())


def objects(coco):
    """By file name, the pixels of each instance and whether it counts."""
    names = {image['id']: Path(image['file_name']).name for image in coco['images']}
    found = defaultdict(dict)
    for ann in coco['annotations']:
        found[names[ann['image_id']]][ann['instance_id']] = ann['area'], ann['iscrowd']
    return found


def cities(coco):
    return {Path(image['file_name']).parts[1] for image in coco['images']}


def test_small_objects_are_groups_where_a_network_learns_and_objects_in_validation(root, tmp_path):
    paths = prepare(root, tmp_path)
    original = objects(read(root / 'annotations/instances_train.json'))
    small = 0
    for part in ('train', 'labeled'):
        for name, found in objects(read(paths[part])).items():
            assert found.keys() == original[name].keys()
            for key, (area, crowd) in found.items():
                assert crowd == (key < 1000 or area < MIN_AREA)
                small += key >= 1000 and crowd
    assert small > 5
    validation = objects(read(root / 'annotations/instances_val.json'))
    assert objects(read(paths['val'])) | objects(read(paths['test'])) == validation


def test_classes_that_few_objects_measure_are_said(root, tmp_path, capsys):
    test = read(prepare(root, tmp_path)['test'])
    line = next(line for line in capsys.readouterr().out.splitlines() if 'images of test' in line)
    for category in test['categories']:
        of_class = (ann for ann in test['annotations'] if ann['category_id'] == category['id'])
        number = sum(ann['area'] >= MIN_AREA and not ann['iscrowd'] for ann in of_class)
        assert (f'{number} of {category["name"]}' in line) == (0 < number < 10)


def test_each_city_is_in_one_part_and_every_file_is_there(root, tmp_path):
    paths = prepare(root, tmp_path)
    train, val, test = (read(paths[part]) for part in ('train', 'val', 'test'))
    assert cities(train) == {'abendorf', 'dammerburg', 'nebelsheim'}
    assert (cities(val), len(val['images'])) == ({'grauwinkel'}, 3)
    assert (cities(test), len(test['images'])) == ({'regenau'}, 2)
    labeled, unlabeled = read(paths['labeled']), read(paths['unlabeled'])
    assert len(labeled['images']) == len(unlabeled['images']) == 12
    for part in ('train', 'val', 'test'):
        for image in read(paths[part])['images']:
            assert Path(paths[f'{part}_images'], image['file_name']).is_file()


def test_a_second_call_changes_nothing_and_another_rule_is_refused(root, tmp_path):
    paths = prepare(root, tmp_path)
    before = {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()}
    assert prepare(root, tmp_path) == paths
    assert before == {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()}
    with pytest.raises(CASTError, match=r'train\.json exists with different content'):
        prepare_cityscapes_small(root, tmp_path, 50, height=HEIGHT, min_area=90)


def test_cities_of_ones_own_choice_leave_the_training_set(root, tmp_path):
    paths = prepare(root, tmp_path, val_cities='abendorf', test_cities='grauwinkel,regenau')
    train, val, test = (read(paths[part]) for part in ('train', 'val', 'test'))
    assert cities(train) == {'dammerburg', 'nebelsheim'}
    assert (len(train['images']), len(val['images']), len(test['images'])) == (16, 8, 5)
    assert cities(val) == {'abendorf'} and cities(test) == {'grauwinkel', 'regenau'}
    original = objects(read(root / 'annotations/instances_train.json'))
    assert objects(val) == {name: original[name] for name in objects(val)}


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        (dict(height=160), 'images 40 pixels high, not 160: make those with mmcast convert'),
        (dict(val_cities=['abendorf']), 'variables.test_cities is empty; give some of abendorf'),
        (
            dict(val_cities=['paris'], test_cities=['regenau']),
            'variables.val_cities is paris; give some of abendorf',
        ),
        (
            dict(val_cities=['regenau'], test_cities=['regenau']),
            'regenau is in variables.val_cities and test_cities',
        ),
    ],
    ids=str,
)
def test_what_does_not_fit_is_one_line(root, tmp_path, options, message):
    with pytest.raises(CASTError, match=message):
        prepare_cityscapes_small(root, tmp_path, **{'height': HEIGHT, 'num_workers': 0, **options})
    assert not list(tmp_path.iterdir())


def test_a_data_set_that_is_not_there_is_named_with_the_command_that_makes_it(tmp_path):
    with pytest.raises(CASTError, match='mmcast convert cityscapes FOLDER --height 160'):
        prepare_cityscapes_small(tmp_path / 'data', tmp_path / 'out')


def test_halves_of_validation_have_about_as_many_images():
    """As in Cityscapes: the largest city alone on one side."""
    counts = dict(frankfurt=267, lindau=59, munster=174)
    images = [
        dict(file_name=f'val/{city}/{i}.png')
        for city, number in counts.items()
        for i in range(number)
    ]
    assert halve_cities(images) == (['frankfurt'], ['munster', 'lindau'])
    with pytest.raises(CASTError, match='images of 1 cities, which cannot be halved'):
        halve_cities(images[:5])
