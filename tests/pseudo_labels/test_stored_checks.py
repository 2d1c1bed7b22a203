"""A damaged pseudo-label file is refused with all that is wrong, before pycocotools sees a mask."""

import base64
import json
import math

import cv2
import numpy as np
import pytest
from stored_labels import CAR, HEIGHT, PERSON, WIDTH, label, rectangle, write_labels

from mmcast.errors import CASTError
from mmcast.masks.confidence import encode_map
from mmcast.pseudo_labels.store import make_info, read_pseudo_labels

LABELS = {
    1: [label(CAR, rectangle(0, 0, 4, 4), 0.9), label(PERSON, rectangle(2, 2, 9, 9), 0.5)],
    2: [label(CAR, rectangle(1, 1, 4, 4), 1.0, class_score=0.5)],
}


def read(tmp_path, change=None, data=None, info=None):
    path = write_labels(tmp_path / 'labels.json', LABELS, info=info)
    if change:
        content = json.loads(path.read_text())
        change(content)
        path.write_text(json.dumps(content))
    if data:
        path.write_bytes(data(path.read_bytes()))
    return read_pseudo_labels(path)


def test_an_intact_file_is_read_as_it_is(tmp_path):
    content = read(tmp_path)
    assert [ann['image_id'] for ann in content['annotations']] == [1, 1, 2]
    assert content['annotations'][0]['segmentation'] == LABELS[1][0]['segmentation']


def annotation(**fields):
    def change(content):
        content['annotations'][1].update(fields)

    return change


def mask(**fields):
    def change(content):
        content['annotations'][1]['segmentation'].update(fields)

    return change


def drop(*keys):
    def change(content):
        *places, last = keys
        for key in places:
            content = content[key]
        del content[last]

    return change


BAD_MASK = 'annotations have a mask whose runs do not fill their image'
BAD_SIZE = 'annotations have a mask that is not of the size of their image'
NO_MASK = 'annotations have no compressed run-length encoding (RLE) as mask'
OWN_COUNTS = LABELS[1][1]['segmentation']['counts']


@pytest.mark.parametrize(
    'change, said',
    [
        (mask(counts=OWN_COUNTS[:-1]), f'1 of 3 {BAD_MASK}'),
        (mask(counts=OWN_COUNTS + '1'), f'1 of 3 {BAD_MASK}'),
        (mask(counts=''), f'1 of 3 {BAD_MASK}'),
        (mask(counts='é'), f'1 of 3 {BAD_MASK}'),
        (mask(counts=[HEIGHT * WIDTH]), f'1 of 3 {NO_MASK}'),
        (mask(size=[WIDTH, HEIGHT]), f'1 of 3 {BAD_SIZE}'),
        (mask(size=[float(HEIGHT), WIDTH]), f'1 of 3 {BAD_SIZE}'),
        (mask(size=None), f'1 of 3 {BAD_SIZE}'),
        (annotation(segmentation=[[0, 0, 3, 0, 3, 3]]), f'1 of 3 {NO_MASK}'),
        (drop('annotations', 1, 'segmentation'), f'1 of 3 {NO_MASK}'),
        (drop('annotations', 1, 'score'), '1 of 3 annotations have no finite score'),
        (annotation(score=math.nan), '1 of 3 annotations have no finite score'),
        (annotation(class_score='1'), '1 of 3 annotations have no finite class_score'),
        (annotation(area=math.inf), '1 of 3 annotations have no finite area'),
        (annotation(area=10**400), '1 of 3 annotations have no finite area'),
        (annotation(bbox=[0, 0, 5]), '1 of 3 annotations have no bbox of four finite numbers'),
        (
            annotation(bbox=[0, 0, 5, math.nan]),
            '1 of 3 annotations have no bbox of four finite numbers',
        ),
        (annotation(image_id=7), '1 of 3 annotations are of no listed image'),
        (annotation(image_id=[1]), '1 of 3 annotations are of no listed image'),
        (annotation(category_id=7), '1 of 3 annotations are of no listed category'),
        (annotation(id=1), '1 of 3 annotations have no id of their own'),
        (annotation(iscrowd='no'), '1 of 3 annotations have an iscrowd that is not 0 or 1'),
        (annotation(ignore=1), '1 of 3 annotations are marked to be ignored'),
        (
            lambda content: content['annotations'].append(5),
            '1 of 4 annotations are no JSON objects',
        ),
        (
            lambda content: content['images'].append(dict(content['images'][0])),
            '1 of 3 images have no id of their own (the first is number 3)',
        ),
        (
            lambda content: content['images'][1].update(width=2.5),
            '1 of 2 images have no width and height in pixels',
        ),
        (
            lambda content: content['images'][1].update(width=2**31),
            '1 of 2 images have no width and height in pixels',
        ),
        (drop('images', 1, 'file_name'), '1 of 2 images have no file_name'),
        (drop('categories', 0, 'name'), '1 of 2 categories have no name'),
        (lambda content: content.update(unreadable=3), 'there is no list unreadable'),
    ],
)
def test_each_kind_of_damage_is_named(tmp_path, change, said):
    with pytest.raises(CASTError) as raised:
        read(tmp_path, change)
    message = str(raised.value)
    assert message.startswith(f'{tmp_path / "labels.json"} is damaged: ') and '\n' not in message
    assert said in message and message.endswith(': make it again with mmcast label')


def test_all_kinds_are_said_at_once(tmp_path):
    def change(content):
        for ann in content['annotations'][1:]:
            ann['score'] = None
        content['annotations'][2]['segmentation']['counts'] = '1'
        content['images'][0]['height'] = 0

    with pytest.raises(CASTError) as raised:
        read(tmp_path, change)
    assert str(raised.value).split(': ', 1)[1] == (
        '1 of 2 images have no width and height in pixels (the first is number 1); '
        '2 of 3 annotations have no finite score (the first is number 2); '
        f'2 of 3 {BAD_SIZE} (the first is number 1); '
        f'1 of 3 {BAD_MASK} (the first is number 3): make it again with mmcast label'
    )


def test_of_two_categories_of_one_name_the_used_one_is_kept(tmp_path):
    def twin(content):
        content['categories'].append(dict(id=12, name='car'))

    assert [category['id'] for category in read(tmp_path, twin)['categories']] == [CAR, PERSON]

    def used_twin(content):
        twin(content)
        content['annotations'][2]['category_id'] = 12

    with pytest.raises(
        CASTError, match=r'categories 5, 12 are all called car and have annotations'
    ):
        read(tmp_path, used_twin)


def with_map(text):
    def change(content):
        for image in content['images']:
            image['confidence'] = text

    return change


def png(levels):
    return base64.b64encode(cv2.imencode('.png', levels)[1].tobytes()).decode()


def test_confidence_maps_are_of_their_image_and_intact(tmp_path):
    sure = np.full((HEIGHT, WIDTH), 15, np.uint8)
    text, info = encode_map(sure), make_info(confidence=True)
    assert read(tmp_path, with_map(text), info=info)['images'][0]['confidence'] == text
    data = bytearray(base64.b64decode(text))
    data[45] ^= 1
    flipped = base64.b64encode(data).decode()
    for damaged in (
        text[:-8],
        'x' + text[1:],
        flipped,
        png(sure[:-1]),
        png(np.zeros((HEIGHT, WIDTH, 3), np.uint8)),
        'é',
        7,
        None,
    ):
        with pytest.raises(CASTError, match='2 of 2 images have no intact confidence map'):
            read(tmp_path, with_map(damaged), info=info)
    with pytest.raises(CASTError, match='2 of 2 images have no intact confidence map'):
        read(tmp_path, info=info)


def test_files_that_are_cut_or_of_another_kind_are_one_line(tmp_path):
    for data in (
        lambda whole: whole[: len(whole) // 2],
        lambda whole: b'',
        lambda whole: b'PK\x03\x04' + bytes(range(256)),
        lambda whole: b'[1, 2]',
        lambda whole: b'{"a": 1}',
        lambda whole: b'null',
    ):
        with pytest.raises(CASTError, match=r'labels\.json .*mmcast label') as raised:
            read(tmp_path, data=data)
        assert '\n' not in str(raised.value)
    assert read(tmp_path, data=lambda whole: b'\xef\xbb\xbf' + whole)['images']
