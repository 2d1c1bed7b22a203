"""Labels by image: of a file as it was written, of an edited one, and of a damaged one."""

import json

import numpy as np
import pytest

from mmcast.errors import CASTError
from mmcast.masks.rle import encode_mask
from mmcast.pseudo_labels.by_image import LinesByImage, NotAsWritten, WholeFile
from mmcast.pseudo_labels.inspection import describe_stores, load_stores
from mmcast.pseudo_labels.store import make_info, write_store

SIDE, IMAGES = 24, 900  # with five labels each, more than are read at once
OPTIONS = dict(thresholds=dict(score=0.3), min_area=2, min_visible=0.1, top_k=4)
CATEGORIES = [dict(id=3, name='a'), dict(id=1, name='b')]


def records():
    """Images of which each third has no label."""
    rng = np.random.default_rng(0)
    masks = []
    for _ in range(40):
        mask = np.zeros((SIDE, SIDE), bool)
        (top, left), (height, width) = rng.integers(0, 16, 2), rng.integers(2, 12, 2)
        mask[top : top + height, left : left + width] = True
        masks.append((encode_mask(mask), int(mask.sum())))
    for number in range(IMAGES, 0, -1):  # ids fall
        annotations = []
        for _ in range(5 if number % 3 else 0):
            rle, area = masks[rng.integers(40)]
            annotations.append(
                dict(
                    category_id=int(rng.choice([1, 3])),
                    segmentation=rle,
                    area=area,
                    bbox=[0.0, 0.0, 1.0, 1.0],
                    iscrowd=0,
                    score=round(rng.random(), 3),
                    **({} if rng.random() < 0.5 else dict(class_score=round(rng.random(), 3))),
                )
            )
        image = dict(id=number, file_name=f'{number}.png', height=SIDE, width=SIDE)
        yield dict(image=image, annotations=annotations)


@pytest.fixture(scope='module')
def path(tmp_path_factory):
    path = tmp_path_factory.mktemp('store') / 'labels.json'
    write_store(path, make_info(), CATEGORIES, list(records()))
    return path


@pytest.fixture(scope='module')
def hidden(tmp_path_factory, path):
    """Some of the labels, and some more, of every second image."""
    content = json.loads(path.read_text())
    images = [image for image in content['images'] if image['id'] % 2]
    ids = {image['id'] for image in images}
    annotations = [
        ann for ann in content['annotations'] if ann['image_id'] in ids and ann['id'] % 4
    ]
    truth = dict(content, info={}, images=images, annotations=annotations)
    path = tmp_path_factory.mktemp('truth') / 'truth.json'
    path.write_text(json.dumps(truth))
    return path


def figures(path, hidden=None):
    loaded = load_stores(dict(labels=path), OPTIONS, hidden)
    report, chosen = describe_stores(loaded, OPTIONS, None, 4)
    drawn = {own: loaded[0].used(own) for own in (*chosen['worst'], *chosen['best'])}
    figures = report['stores']['labels']
    del figures['sha256']
    return json.dumps([report, drawn]), type(loaded[0].labels)


def test_every_image_with_its_labels(path):
    lines, whole = LinesByImage(path), WholeFile(path)
    assert list(lines) == list(whole) and len(list(lines)) == IMAGES * 2 // 3
    assert lines.content == whole.content
    assert all(lines.of(own) == whole.of(own) for own in (1, 3, IMAGES - 1, IMAGES))


@pytest.mark.parametrize('compared', [False, True])
def test_layout_of_the_file_changes_no_figure(compared, path, hidden, tmp_path):
    content = json.loads(path.read_text())
    (tmp_path / 'labels.json').write_text(json.dumps(content, indent=1))
    truth = hidden if compared else None
    expected, kind = figures(path, truth)
    assert kind is LinesByImage
    assert figures(tmp_path / 'labels.json', truth) == (expected, WholeFile)


def shuffled(content):
    content['annotations'].append(content['annotations'].pop(0))


def with_twins(content):
    content['categories'].append(dict(id=9, name='a'))


@pytest.mark.parametrize('edit', [shuffled, with_twins])
def test_an_edited_file_is_read_whole(edit, path, tmp_path):
    content = json.loads(path.read_text())
    edit(content)
    records = [dict(image=image, annotations=[]) for image in content['images']]
    write_store(tmp_path / 'labels.json', content['info'], content['categories'], records)
    text = (tmp_path / 'labels.json').read_text().removesuffix(']}\n')
    lines = ',\n'.join(map(json.dumps, content['annotations']))
    (tmp_path / 'labels.json').write_text(f'{text}\n{lines}]}}\n')
    with pytest.raises(NotAsWritten):
        list(LinesByImage(tmp_path / 'labels.json'))
    expected = json.loads(figures(path)[0])
    found, kind = figures(tmp_path / 'labels.json')
    assert kind is WholeFile
    assert (
        json.loads(found)[0]['stores']['labels']['used'] == expected[0]['stores']['labels']['used']
    )


@pytest.mark.parametrize(
    'old, new, message',
    [
        ('"score": 0.', '"score": NaN, "x": 0.', 'have no finite score'),
        ('"area": ', '"area": "x", "y": ', 'have no finite area'),
        (']}\n', '', 'is no JSON, or was cut short'),
        (']}\n', ']}\n{}', 'is no JSON, or was cut short'),
        ('"image_id": ', '"image_id": 99999', 'are of no listed image'),
    ],
)
def test_damage_far_into_the_file_is_told_as_that_of_the_whole_file(
    old, new, message, path, tmp_path
):
    head, _, tail = path.read_text().rpartition(old)
    (tmp_path / 'labels.json').write_text(head + new + tail)
    with pytest.raises(CASTError, match=message):
        figures(tmp_path / 'labels.json')


def test_a_store_without_labels_is_read(tmp_path):
    empty = [dict(record, annotations=[]) for record in records()]
    write_store(tmp_path / 'labels.json', make_info(), CATEGORIES, empty)
    report, kind = figures(tmp_path / 'labels.json')
    assert json.loads(report)[0]['stores']['labels']['empty'] == IMAGES and kind is WholeFile
