"""Parts of a labeled set that are held out in turn."""

from collections import Counter
from itertools import chain

from mmcast.coco.folds import make_folds, without_images

CATEGORIES = [dict(id=1, name='car'), dict(id=2, name='tram'), dict(id=3, name='sky')]


def make_coco(images):
    """COCO content; ``images`` are file names with the categories of their objects."""
    annotations = [
        dict(image_id=number, category_id=category, iscrowd=0)
        for number, (_, categories) in enumerate(images)
        for category in categories
    ]
    listed = [dict(id=number, file_name=name) for number, (name, _) in enumerate(images)]
    return dict(images=listed, annotations=annotations, categories=CATEGORIES)


def count(coco, fold, category):
    return sum(
        ann['image_id'] in fold and ann['category_id'] == category for ann in coco['annotations']
    )


def test_objects_of_every_class_are_spread_over_the_folds():
    images = [(f'{i}.png', [1] * (1 + i % 7) + [2] * (i % 10 == 0)) for i in range(40)]
    images += [(f'empty_{i}.png', []) for i in range(6)]
    coco = make_coco(images)
    for seed in range(3):
        folds = make_folds(coco, 4, seed)
        assert sorted(chain(*folds)) == list(range(46))
        assert [count(coco, fold, 2) for fold in folds] == [1, 1, 1, 1]
        cars = [count(coco, fold, 1) for fold in folds]
        assert max(cars) - min(cars) <= 2
        assert all(9 <= len(fold) <= 14 for fold in folds)
        assert folds == make_folds(coco, 4, seed)
    assert make_folds(coco, 4, 0) != make_folds(coco, 4, 1)


def test_versions_of_a_photo_stay_together():
    names = [f'{photo}_jpg.rf.{version}bcdef12.jpg' for photo in 'abcde' for version in '123']
    coco = make_coco([(name, [1]) for name in names])
    folds = make_folds(coco, 3)
    photos = [{names[image][0] for image in fold} for fold in folds]
    assert sum(map(len, photos)) == 5 and Counter(map(len, photos)) == {2: 2, 1: 1}


def test_no_fold_is_without_objects_of_the_classes():
    coco = make_coco([('0.png', [1]), ('1.png', [3]), ('2.png', [3, 1]), ('3.png', [])])
    coco['annotations'].append(dict(image_id=3, category_id=1, iscrowd=1))  # a group is no object
    assert len(make_folds(coco, 5)) == 3
    folds = make_folds(coco, 5, classes=['car'])
    assert len(folds) == 2 and sorted(chain(*folds)) == [0, 1, 2, 3]
    assert make_folds(make_coco([('0.png', [])]), 3) == []


def test_an_image_goes_with_its_annotations():
    left = without_images(make_coco([('0.png', [1, 2]), ('1.png', [3])]), {0})
    assert [image['id'] for image in left['images']] == [1]
    assert [ann['category_id'] for ann in left['annotations']] == [3]
    assert left['categories'] == CATEGORIES
