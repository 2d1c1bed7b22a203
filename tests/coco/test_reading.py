"""What the reader makes of each kind of fault: the right content, or one line."""

import copy
import json
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as mask_api

from mmcast.coco.annotations import mend, screen
from mmcast.coco.lists import Lists, read_categories, read_images
from mmcast.coco.reading import read_coco, read_image_list, read_labels
from mmcast.errors import CASTError
from mmcast.masks.rle import encode_mask, encode_segmentation

HEIGHT, WIDTH = 20, 30
SQUARE = [2, 3, 12, 3, 12, 13, 2, 13]
POINTS = [SQUARE[i : i + 2] for i in (0, 2, 4, 6)]


def bar() -> dict:
    return dict(size=[HEIGHT, WIDTH], counts=[0, 4, 16, 4, 576])


@pytest.fixture
def coco() -> dict:
    """Two images, of two classes a square, a bar and a group."""
    rows = [
        (1, 7, [SQUARE], [2, 3, 10, 10], 100, 0),
        (1, 9, bar(), [0, 0, 2, 4], 8, 0),
        (2, 9, [SQUARE], [2, 3, 10, 10], 100, 0),
        (2, 7, bar(), [0, 0, 2, 4], 8, 1),
    ]
    keys = 'image_id', 'category_id', 'segmentation', 'bbox', 'area', 'iscrowd'
    return dict(
        info=dict(year=2026),
        images=[
            dict(id=i, file_name=f'{i}.png', height=HEIGHT, width=WIDTH, licence=3) for i in (1, 2)
        ],
        annotations=[dict(zip(keys, row), id=i, by='me') for i, row in enumerate(rows, 1)],
        categories=[dict(id=7, name='disc'), dict(id=9, name='square')],
    )


@pytest.fixture
def save(tmp_path):
    def write(content: dict, **kwargs) -> Path:
        path = tmp_path / 'labels.json'
        path.write_text(json.dumps(content), **kwargs)
        return path

    return write


def described(content: dict) -> list[tuple]:
    """Annotations in order: file name, class, crowd, mask as bytes, box and area in pixels."""
    names = {image['id']: image['file_name'] for image in content['images']}
    classes = {category['id']: category['name'] for category in content['categories']}
    return [
        (
            names[ann['image_id']],
            classes[ann['category_id']],
            ann['iscrowd'],
            mask_api.decode(encode_segmentation(ann['segmentation'], HEIGHT, WIDTH)).tobytes(),
            tuple(map(round, ann['bbox'])),
            round(ann['area']),
        )
        for ann in content['annotations']
    ]


def change(coco: dict, where: str, place: int, **values) -> None:
    coco[where][place].update(values)


def drop(coco: dict, where: str, place: int, *keys: str) -> None:
    for key in keys:
        del coco[where][place][key]


def retype(coco: dict, kind: type, where: str, *keys: str) -> None:
    for entry in coco[where]:
        entry.update({key: kind(entry[key]) for key in keys})


def text_names(coco: dict) -> None:
    """Ids of images that no number can be read from."""
    for entry, key in [
        *((image, 'id') for image in coco['images']),
        *((annotation, 'image_id') for annotation in coco['annotations']),
    ]:
        entry[key] = f'image-{entry[key]}'


def far_twin(coco: dict) -> None:
    coco['categories'].insert(0, dict(id=3, name='square'))


MENDED = {
    'nothing': (lambda c: None, None),
    'ids from 0': (lambda c: retype(c, lambda i: i - 1, 'annotations', 'id'), 'ids that are no'),
    'ids as text': (lambda c: retype(c, str, 'annotations', 'id'), 'ids that are no'),
    'ids missing': (lambda c: [drop(c, 'annotations', i, 'id') for i in range(4)], 'ids that are'),
    'ids twice': (lambda c: change(c, 'annotations', 2, id=2), 'with the id of another'),
    'image ids as text': (
        lambda c: (retype(c, str, 'images', 'id'), retype(c, str, 'annotations', 'image_id')),
        'ids that are no whole numbers: 2, such as image .1. of 1.png',
    ),
    'image ids as text on one side': (
        lambda c: retype(c, str, 'annotations', 'image_id'),
        'ids that are no whole numbers: 4',
    ),
    'image ids as decimals': (
        lambda c: (retype(c, float, 'images', 'id'), retype(c, float, 'annotations', 'image_id')),
        'ids that are no whole numbers: 2',
    ),
    'image ids as names': (text_names, 'ids that are no whole numbers: 2'),
    'category ids as text': (
        lambda c: (
            retype(c, str, 'categories', 'id'),
            retype(c, str, 'annotations', 'category_id'),
        ),
        'ids that are no whole numbers: 2',
    ),
    'category ids as decimals on one side': (
        lambda c: retype(c, float, 'annotations', 'category_id'),
        'ids that are no whole numbers: 4',
    ),
    'iscrowd missing': (lambda c: drop(c, 'annotations', 0, 'iscrowd'), 'iscrowd null: 0'),
    'iscrowd null': (lambda c: change(c, 'annotations', 0, iscrowd=None), 'iscrowd null: 0'),
    'iscrowd as text': (lambda c: retype(c, str, 'annotations', 'iscrowd'), 'no number: 4'),
    'iscrowd true': (lambda c: retype(c, bool, 'annotations', 'iscrowd'), 'no number: 4'),
    'to be ignored': (
        lambda c: change(c, 'annotations', 3, iscrowd=0, ignore=1),
        'iscrowd 0, ignore 1: 1',
    ),
    'area missing': (lambda c: drop(c, 'annotations', 0, 'area'), 'unusable areas: 1'),
    'area null': (lambda c: change(c, 'annotations', 1, area=None), 'unusable areas: 1'),
    'area 0': (lambda c: change(c, 'annotations', 0, area=0), 'unusable areas: 1'),
    'area not finite': (
        lambda c: change(c, 'annotations', 0, area=float('nan')),
        'unusable areas: 1, such as annotation 1 of image 1',
    ),
    'area of something else': (
        lambda c: change(c, 'annotations', 0, area=9000),
        'not those of the mask: 1',
    ),
    'box missing': (lambda c: drop(c, 'annotations', 0, 'bbox'), 'unusable boxes: 1'),
    'box null': (lambda c: change(c, 'annotations', 0, bbox=None), 'unusable boxes: 1'),
    'box without a side': (
        lambda c: change(c, 'annotations', 0, bbox=[2, 3, 0, 10]),
        'unusable boxes: 1',
    ),
    'box of corners': (
        lambda c: change(c, 'annotations', 0, bbox=[2, 3, 22, 23]),
        'boxes that are not those of the mask: 1',
    ),
    'size as text': (
        lambda c: retype(c, str, 'images', 'height', 'width'),
        'no whole numbers: 2, such as image 1 of 1.png',
    ),
    'size missing, with run lengths': (
        lambda c: drop(c, 'images', 0, 'height', 'width'),
        'no whole numbers: 1',
    ),
    'size null, with run lengths': (
        lambda c: change(c, 'images', 1, height=None, width=None),
        'no whole numbers: 1',
    ),
    'a flat polygon': (
        lambda c: change(c, 'annotations', 0, segmentation=SQUARE),
        'polygons written as points or without',
    ),
    'a polygon of points': (
        lambda c: change(c, 'annotations', 0, segmentation=POINTS),
        'polygons written as points or without',
    ),
    'polygons of points': (
        lambda c: change(c, 'annotations', 2, segmentation=[POINTS]),
        'polygons written as points or without',
    ),
    'an empty part': (
        lambda c: change(c, 'annotations', 0, segmentation=[[], SQUARE]),
        'masks with an empty part',
    ),
    'a part of two points': (
        lambda c: change(c, 'annotations', 0, segmentation=[SQUARE, [1, 1, 5, 5]]),
        'polygons of under three points',
    ),
    'an annotation of two points': (
        lambda c: c['annotations'].append(
            dict(c['annotations'][0], id=5, segmentation=[[1, 1, 5, 5]])
        ),
        'annotation 5 of image 1 .no polygon has three points and an area: left out',
    ),
    'an annotation of no pixel': (
        lambda c: c['annotations'].append(
            dict(c['annotations'][1], id=5, segmentation=dict(bar(), counts=[600]))
        ),
        'without a pixel in their image: 1, such as annotation 5',
    ),
    'compressed run lengths': (
        lambda c: change(
            c,
            'annotations',
            1,
            segmentation=dict(
                bar(), counts=mask_api.frPyObjects(bar(), HEIGHT, WIDTH)['counts'].decode()
            ),
        ),
        None,
    ),
    'an unused twin category': (far_twin, 'have the name of another: 1 .category 3'),
    'a category twice': (
        lambda c: c['categories'].append(dict(c['categories'][0])),
        'have the name of another: 1',
    ),
}


@pytest.mark.parametrize('damage, said', MENDED.values(), ids=MENDED)
def test_what_can_be_mended_is_read_rightly_and_said(damage, said, coco, save):
    right = described(coco)
    damaged = copy.deepcopy(coco)
    damage(damaged)
    path = save(damaged)
    before = path.read_bytes()
    labels = read_labels(path)
    content = json.loads(json.dumps(labels.content))  # as it is written
    assert described(content) == right
    assert [category['name'] for category in content['categories']] == ['disc', 'square']
    assert content['info'] == dict(year=2026)
    assert all(image['licence'] == 3 for image in content['images'])
    assert all(annotation['by'] == 'me' for annotation in content['annotations'])
    assert [annotation['id'] for annotation in content['annotations']] == [1, 2, 3, 4]
    for place, keys in dict(images=['id', 'height', 'width'], categories=['id']).items():
        assert all(type(entry[key]) is int for entry in content[place] for key in keys)
    for annotation in content['annotations']:
        assert all(type(annotation[key]) is int for key in ('image_id', 'category_id', 'iscrowd'))
    if said:
        assert len(labels.mended) == 1 and re.search(said, labels.mended[0]), labels.mended
        assert str(path) in labels.mended[0] and '\n' not in labels.mended[0]
    else:
        assert labels.mended == []
    assert path.read_bytes() == before
    assert read_labels(save(content)).mended == [], 'a mended file needs no mending'


@pytest.mark.parametrize('encoding', ['utf-8-sig', 'utf-16'])
def test_a_byte_order_mark_is_skipped(encoding, coco, save):
    right = described(coco)
    labels = read_labels(save(coco, encoding=encoding))
    assert described(labels.content) == right
    assert 'byte order mark' in labels.mended[0]


def test_sizes_come_from_the_images(coco, save, tmp_path):
    del coco['images'][0]['height']
    coco['annotations'] = coco['annotations'][:1]
    with pytest.raises(CASTError, match=r'file_name or size: 1, such as image 1 of 1\.png'):
        read_coco(save(coco))
    Image.new('RGB', (WIDTH, HEIGHT)).save(tmp_path / '1.png')
    labels = read_labels(save(coco), tmp_path)
    assert labels.content['images'][0]['height'] == HEIGHT and labels.content['annotations']
    assert read_labels(save(coco), lambda images: tmp_path).content == labels.content


def test_image_ids_of_text_are_numbered_in_the_order_of_the_file(coco, save):
    text_names(coco)
    coco['images'].insert(0, dict(coco['images'][0], id=5, file_name='5.png'))
    content = read_coco(save(coco))
    assert [(i['file_name'], i['id']) for i in content['images']] == [
        ('5.png', 5),
        ('1.png', 6),
        ('2.png', 7),
    ]


def two_used(coco: dict) -> None:
    far_twin(coco)
    coco['annotations'][1]['category_id'] = 3


REFUSED = {
    'an unlisted image': (
        lambda c: change(c, 'annotations', 0, image_id=5),
        r'images that are not listed: 1, such as annotation 1 of image 5',
    ),
    'an unlisted category': (
        lambda c: change(c, 'annotations', 0, category_id=5),
        r'categories that are not listed: 1, such as annotation 1 of image 1 \(category_id 5',
    ),
    'one id of two images': (
        lambda c: change(c, 'images', 1, id='1'),
        r'images with the id of another: 1, such as image .1. of 2\.png',
    ),
    'an image without a name': (
        lambda c: drop(c, 'images', 0, 'file_name'),
        r'usable id, file_name',
    ),
    'an image that no file can be called': (
        lambda c: change(c, 'images', 0, file_name='a\0b.png'),
        r'usable id, file_name',
    ),
    'a name of two lines': (
        lambda c: change(c, 'images', 0, file_name='a\nb.png'),
        r'names cannot be used: 1, such as image 1 of a.+nb\.png \(has control characters',
    ),
    'a file that is listed twice': (
        lambda c: c['images'].append(dict(c['images'][0], id=3, file_name='./1.png')),
        r'listed twice: 1, such as image 3 of \./1\.png',
    ),
    'an image of no size': (lambda c: change(c, 'images', 0, width=-3), r'width and height are -3'),
    'two used categories of one name': (
        two_used,
        r'categories 3, 9 are all called square',
    ),
    'two names of one category': (
        lambda c: change(c, 'categories', 1, id=7),
        r'category 7 is called disc and square',
    ),
    'an annotation without an image': (
        lambda c: drop(c, 'annotations', 0, 'image_id'),
        r'usable image_id, category_id or iscrowd: 1, such as annotation 1',
    ),
    'an odd iscrowd': (lambda c: change(c, 'annotations', 0, iscrowd=7), r'iscrowd 7'),
    'no mask': (lambda c: change(c, 'annotations', 0, segmentation=[]), r'without a mask .*: 1'),
    'a null mask': (lambda c: change(c, 'annotations', 0, segmentation=None), r'without a mask'),
    'a missing mask': (lambda c: drop(c, 'annotations', 0, 'segmentation'), r'without a mask'),
    'an empty polygon': (lambda c: change(c, 'annotations', 0, segmentation=[[]]), r'without a ma'),
    'a box as mask': (
        lambda c: change(c, 'annotations', 0, segmentation=[2, 3, 10, 10]),
        r'without a mask .*four numbers',
    ),
    'runs too short': (
        lambda c: change(c, 'annotations', 1, segmentation=dict(bar(), counts=[0, 4, 16, 4])),
        r'malformed masks: 1, such as annotation 2 of image 1 \(run lengths that do not fill 30x20',
    ),
    'runs of another size': (
        lambda c: change(c, 'annotations', 1, segmentation=dict(size=[30, 20], counts=[0, 600])),
        r'of another size than their image: 1, .*20x30 in an image of 30x20',
    ),
    'coordinates that are not finite': (
        lambda c: change(c, 'annotations', 0, segmentation=[[2, 3, float('nan'), 3, 12, 13]]),
        r'malformed masks: 1',
    ),
    'coordinates far outside': (
        lambda c: change(c, 'annotations', 0, segmentation=[[2, 3, 61, 3, 12, 13]]),
        r'lie far outside their image: 1, .*to \(61, 13\) in an image of 30x20',
    ),
    'an odd number of coordinates': (
        lambda c: change(c, 'annotations', 0, segmentation=[[*SQUARE, 2]]),
        r'malformed masks: 1, .*9 coordinates, an odd number',
    ),
    'coordinates of text': (
        lambda c: change(c, 'annotations', 0, segmentation=[['2', '3', '12', '3', '12', '13']]),
        r'malformed masks: 1',
    ),
    'an annotation that is none': (
        lambda c: c['annotations'].append('x'),
        r'usable image_id, category_id or iscrowd: 1',
    ),
}


@pytest.mark.parametrize('damage, said', REFUSED.values(), ids=REFUSED)
def test_what_cannot_be_mended_is_refused_in_one_line(damage, said, coco, save):
    damage(coco)
    path = save(coco)
    with pytest.raises(CASTError, match=said) as error:
        read_labels(path)
    message = str(error.value)
    assert str(path) in message and '\n' not in message
    assert f'mmcast check {path} --no-images' in message


def test_all_that_is_wrong_is_said_at_once(coco, save):
    change(coco, 'annotations', 0, segmentation=[])
    change(coco, 'annotations', 1, image_id=5)
    change(coco, 'annotations', 2, segmentation=[])
    with pytest.raises(CASTError, match=r'not listed: 1, .*alone\): 2, such as annotation 1 '):
        read_labels(save(coco))


@pytest.mark.parametrize(
    'text, said',
    [
        ('', 'not a valid COCO annotation file'),
        ('{"images": [', r'not a valid COCO annotation file \(.*column'),
        ('[]', r'no list images, annotations, categories'),
        ('{"images": [], "annotations": 3, "categories": []}', 'no list annotations'),
        ('{"images": ' + '[' * 100000, 'not a valid COCO annotation file'),
    ],
)
def test_what_is_no_coco_file_is_said(text, said, tmp_path):
    (tmp_path / 'x.json').write_text(text)
    with pytest.raises(CASTError, match=said) as error:
        read_coco(tmp_path / 'x.json')
    assert 'x.json' in str(error.value)


def test_groups_become_objects_where_that_is_asked_for(coco, save):
    labels = read_labels(save(coco))
    assert labels.crowds == 1 and labels.instances().tolist() == [2, 1]
    assert labels.instances(['disc']).tolist() == [1, 0]
    by_class = labels.class_instances(['square', 'ring', 'disc'])
    assert by_class.tolist() == [[1, 0, 1], [1, 0, 0]]
    labels = read_labels(save(coco), crowd_as_instances=True)
    assert labels.crowds == 0 and labels.instances().tolist() == [2, 2]
    assert [annotation['iscrowd'] for annotation in labels.content['annotations']] == [0] * 4


def test_a_list_of_images_needs_no_valid_annotation(coco, save):
    change(coco, 'annotations', 0, segmentation=[])
    content = read_image_list(save(coco))
    assert [image['file_name'] for image in content['images']] == ['1.png', '2.png']
    assert content['annotations'] == []
    twice = dict(images=[*coco['images'], dict(coco['images'][0], id=3)])
    content = read_image_list(save(twice))
    assert content['categories'] == [] and len(content['images']) == 3


def test_the_screen_agrees_with_a_look_at_each(coco):
    """Random polygons and boxes: what passes the screen is what needs no mending."""
    rng, annotations = np.random.default_rng(0), []
    for _ in range(400):
        points = rng.uniform(-3, [WIDTH + 3, HEIGHT + 3], (rng.integers(3, 8), 2))
        if rng.random() < 0.5:
            points = points.mean(0) + (points - points.mean(0)) * rng.uniform(0, 0.6)
        (left, top), (right, bottom) = points.min(0), points.max(0)
        box = np.array([left, top, right - left, bottom - top]) + rng.normal(0, 0.7, 4)
        annotations.append(
            dict(
                coco['annotations'][0],
                segmentation=[points.ravel().tolist()],
                bbox=box.tolist(),
                area=float(rng.uniform(0, 200)),
            )
        )
    lists = Lists('labels.json')
    assert not read_images(lists, coco['images']) + read_categories(lists, coco['categories'])
    passed = screen(annotations, lists).images >= 0
    assert 20 < passed.sum() < 380
    for annotation in np.array(annotations)[passed]:
        mended = mend(annotation, lists)
        assert {finding.kind for finding in mended.findings} <= {'bad-area'}, mended.findings
        assert mended.annotation['segmentation'] == annotation['segmentation']
        assert mended.annotation['bbox'] == annotation['bbox']


def test_run_lengths_that_pass_the_screen_need_no_mending(coco):
    """Of random masks, every third with something wrong; more than compiled code counts at once."""
    rng, annotations = np.random.default_rng(0), []
    for number in range(900):
        mask = np.zeros((HEIGHT, WIDTH), bool)
        top, left = rng.integers(0, [HEIGHT - 1, WIDTH - 1])
        mask[top : top + rng.integers(1, 9), left : left + rng.integers(1, 9)] = True
        rle = encode_mask(mask)
        annotation = dict(
            coco['annotations'][0],
            segmentation=rle,
            bbox=mask_api.toBbox(rle).tolist(),
            area=int(mask.sum()),
        )
        wrong = [
            dict(segmentation=dict(rle, counts=rle['counts'] + '1')),
            dict(segmentation=dict(rle, size=[WIDTH, HEIGHT])),
            dict(segmentation=dict(rle, counts=None)),
            dict(bbox=[0, 0, WIDTH, HEIGHT]),
            dict(area=0),
        ][number % 5]
        annotations.append(annotation | wrong if number % 3 == 0 else annotation)
    lists = Lists('labels.json')
    assert not read_images(lists, coco['images']) + read_categories(lists, coco['categories'])
    rows = screen(annotations, lists)
    assert ((rows.images < 0) == (np.arange(900) % 3 == 0)).all()
    for annotation, area in zip(annotations, rows.areas):
        if area:
            mended = mend(annotation, lists)
            assert (mended.findings, mended.area) == ([], area)
            assert mended.annotation == annotation
