"""Label files as tools write them, with known objects: what is trained on and tested has their
masks and names, and perfect predictions have AP 1; or nothing begins, and one line says why.
"""

import json
import os
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import event, given, settings
from hypothesis import strategies as st
from mmengine.config import Config
from PIL import Image

from mmcast.coco.custom import prepare_custom_data
from mmcast.data.config_data import check_config_data
from mmcast.data.loading import LoadCompressedAnnotations
from mmcast.errors import CASTError
from mmcast.masks.rle import encode_mask
from mmcast.registry import DATASETS, METRICS

# By hand: MMCAST_EXAMPLES=2000 pytest tests/coco/test_reading_properties.py
EXAMPLES = int(os.environ.get('MMCAST_EXAMPLES', 100))
NAMES = ('car', 'car, red', 'ü')
FAR = 3  # sides of the image; the reader takes coordinates up to one side beyond it


@dataclass
class Thing:
    """An object: its image and class by number, its mask, and whether it is a group."""

    image: int
    name: int
    mask: np.ndarray
    crowd: bool


@dataclass
class File:
    """A label file: its bytes, its images' sizes, its objects, the classes to learn, and why it
    must be refused, if it must. ``copied``: it goes through the data step.
    """

    data: bytes
    sizes: list[tuple[int, int]]
    things: list[Thing]
    classes: list[str]
    refused: set[str]
    copied: bool


def rectangle(draw, size, beyond):
    """Corners x1, y1, x2, y2 of a rectangle that has pixels in the image."""
    height, width = size
    x1, y1 = (draw(st.integers(-beyond, side - 2)) for side in (width, height))
    x2, y2 = (
        draw(st.integers(max(start, 0) + 1, side + beyond))
        for start, side in ((x1, width), (y1, height))
    )
    return x1, y1, x2, y2


def corners(box):
    x1, y1, x2, y2 = box
    return [x1, y1, x2, y1, x2, y2, x1, y2]


def draw_polygons(draw, size, refused):
    """A mask of one or two rectangles, and polygons of it as some tool writes them."""
    mask = np.zeros(size, bool)
    beyond = draw(st.sampled_from([0, 0, 2]))
    boxes = [rectangle(draw, size, beyond) for _ in range(draw(st.integers(1, 2)))]
    for x1, y1, x2, y2 in boxes:
        mask[max(y1, 0) : y2, max(x1, 0) : x2] = True
    polygons = [corners(box) for box in boxes]
    layouts = ['coco', 'coco', 'flat', 'pairs', 'empty part', 'a line']
    layout = draw(st.sampled_from(layouts + ['far'] * (refused is not None)))
    if layout == 'flat' and len(polygons) == 1:
        return mask, polygons[0]
    if layout == 'pairs':
        return mask, [list(zip(part[::2], part[1::2])) for part in polygons]
    if layout == 'empty part':
        return mask, [*polygons, []]
    if layout == 'a line':
        return mask, [*polygons, [1, 1, 3, 1]]
    if layout == 'far':
        refused.add('far outside')
        polygons[0][0] = FAR * max(size)
    return mask, polygons


def draw_runs(draw, size, refused):
    """A mask of any pixels, and its run lengths of either sort."""
    bits = draw(st.integers(1, 2 ** (size[0] * size[1]) - 1))
    pixels = np.array([bits >> place & 1 for place in range(size[0] * size[1])], bool)
    mask = pixels.reshape(size[::-1]).T
    if draw(st.booleans()):
        counts = encode_mask(np.ascontiguousarray(mask))['counts']
    else:
        borders = np.flatnonzero(np.diff(pixels, prepend=False))
        counts = np.diff([0, *borders, len(pixels)]).tolist()
        wrong = draw(st.sampled_from([0, 0, 0, -1, 1])) if refused is not None else 0
        if wrong:
            refused.add('runs of another length')
            counts[-1] += wrong
    return mask, dict(size=list(size), counts=counts)


def put(draw, entry, key, value, others=(), chance=4):
    """Sets a key to its value, or now and then to one of some others; 'missing' leaves it out."""
    choice = draw(st.integers(0, chance)) if others else 0
    if choice == chance:
        value = draw(st.sampled_from(others))
    if value != 'missing':
        entry[key] = value
    return value


def draw_ids(draw, number):
    """Ids as files have them: from 1, from 0, with gaps, falling, as text."""
    start, step = draw(st.sampled_from([(1, 1), (0, 1), (3, 4), (90, -7)]))
    ids = [start + step * place for place in range(number)]
    kind = draw(st.sampled_from(['number', 'number', 'digits', 'word']))
    return [dict(digits=str(own), word=f'id {own}').get(kind, own) for own in ids]


def draw_categories(draw, refused):
    """The list of categories, the ids of each name that its objects may have, and the classes."""
    ids = draw_ids(draw, len(NAMES) + 1)
    categories = [dict(id=own, name=name) for own, name in zip(ids, NAMES)]
    usable = [[own] for own in ids[: len(NAMES)]]
    twin = draw(st.sampled_from(['none', 'unused'] + ['used'] * (refused is not None)))
    if twin != 'none':
        categories.append(dict(id=ids[-1], name=NAMES[0]))
    if twin == 'used':
        usable[0].append(ids[-1])
    return draw(st.permutations(categories)), usable, draw(st.permutations(NAMES))


def draw_images(draw):
    sizes = draw(st.lists(st.tuples(*[st.integers(5, 9)] * 2), min_size=1, max_size=3))
    images = []
    for place, (own, size) in enumerate(zip(draw_ids(draw, len(sizes)), sizes)):
        image = dict(id=own, file_name=f'{place} ü.png')
        unsized = draw(st.integers(0, 5)) == 0
        for key, side in zip(('height', 'width'), size):
            put(draw, image, key, side, ('missing', None) if unsized else ())
        images.append(image)
    return images, sizes


def draw_annotation(draw, image, category, size, crowd, refused):
    draw_mask = draw(st.sampled_from([draw_polygons, draw_polygons, draw_runs]))
    mask, segmentation = draw_mask(draw, size, refused)
    y, x = (np.flatnonzero(mask.any(axis)) for axis in (1, 0))
    box = [int(x[0]), int(y[0]), int(x[-1] - x[0] + 1), int(y[-1] - y[0] + 1)]
    annotation = dict(image_id=image, category_id=category)
    others = () if refused is None else ('missing', None, [])
    if put(draw, annotation, 'segmentation', segmentation, others, 20) != segmentation:
        refused.add('no mask')
    put(draw, annotation, 'bbox', box, ('missing', None, [0, 0, 0, 0], []))
    put(draw, annotation, 'area', int(mask.sum()), ('missing', None, 0, '4'))
    put(draw, annotation, 'iscrowd', int(crowd), () if crowd else ('missing', None, '0', False))
    return annotation, mask


@st.composite
def files(draw):
    """Small label files with the properties of many tools mixed."""
    # None: a file that has nothing to be refused for.
    refused: set[str] | None = set() if draw(st.integers(0, 2)) == 0 else None
    images, sizes = draw_images(draw)
    categories, usable, classes = draw_categories(draw, refused)
    # Of so many annotations one is a group; 0: none.
    crowds = draw(st.sampled_from([0, 4] if refused is None else [0, 4, 1]))
    annotations, things, used = [], [], set()
    for place, (image, size) in enumerate(zip(images, sizes)):
        for _ in range(draw(st.integers(place == 0, 3))):
            name = draw(st.integers(0, len(NAMES) - 1))
            own = draw(st.sampled_from(usable[name]))
            first = not things and crowds != 1
            crowd = bool(crowds) and not first and draw(st.integers(1, crowds)) == 1
            annotation, mask = draw_annotation(draw, image['id'], own, size, crowd, refused)
            annotations.append(annotation)
            things.append(Thing(place, name, mask, crowd))
            used.add(own)
    for own, annotation in zip(draw_ids(draw, len(annotations)), annotations):
        put(draw, annotation, 'id', own, ('missing', 1), 20)
    if used >= {*usable[0]} and len(usable[0]) > 1:
        refused.add('two used categories of one name')
    if all(thing.crowd for thing in things):
        refused.add('no object')
    content = dict(images=images, annotations=annotations, categories=categories)
    data = json.dumps(content, ensure_ascii=draw(st.booleans())).encode()
    mark = draw(st.sampled_from([b'', b'', b'\xef\xbb\xbf']))
    return File(mark + data, sizes, things, list(classes), refused or set(), draw(st.booleans()))


@pytest.fixture(scope='module')
def folder():
    with tempfile.TemporaryDirectory() as name:
        yield Path(name)


def check(file, folder):
    """What comes before training: perhaps the data step, and what every step does before it builds
    anything. Returns the label file that is read, and its data set.
    """
    for place, (height, width) in enumerate(file.sizes):
        Image.new('RGB', (width, height)).save(folder / f'{place} ü.png')
    path = folder / 'labels.json'
    path.write_bytes(file.data)
    if file.copied:
        (folder / 'more').mkdir(exist_ok=True)
        Image.new('RGB', (5, 5)).save(folder / 'more/unlabeled.png')
        shutil.rmtree(folder / 'out', ignore_errors=True)
        found = prepare_custom_data(
            folder, path.name, 'more', folder / 'out', val=path.name, classes=file.classes
        )
        path = Path(found['labeled'])
    dataset = dict(
        type='CocoDataset',
        ann_file=str(path),
        data_prefix=dict(img=str(folder)),
        metainfo=dict(classes=tuple(file.classes)),
        pipeline=[],
        serialize_data=False,
    )
    check_config_data(Config(dict(train_dataloader=dict(dataset=dataset))), ['train_dataloader'])
    return path, DATASETS.build(dataset)


def loaded_masks(dataset):
    """By image number: class name, whether it is a group, and the mask of each instance."""
    load = LoadCompressedAnnotations(with_bbox=True, with_mask=True)
    found = {}
    for index in range(len(dataset)):
        info = dataset.get_data_info(index)
        results = load(dict(info, ori_shape=(info['height'], info['width'])))
        found[int(Path(info['img_path']).name.split()[0])] = [
            (dataset.metainfo['classes'][label], bool(crowd), mask)
            for label, crowd, mask in zip(
                results['gt_bboxes_labels'].tolist(),
                results['gt_ignore_flags'].tolist(),
                results['gt_masks'].masks,
            )
        ]
    return found


def evaluate(file, dataset, path, folder):
    """The AP of predictions that are the known objects."""
    metric = METRICS.build(
        dict(
            type='CocoMetric',
            ann_file=str(path),
            img_dir=str(folder),
            metric='segm',
        )
    )
    metric.dataset_meta = dataset.metainfo
    for index in range(len(dataset)):
        info = dataset.get_data_info(index)
        place = int(Path(info['img_path']).name.split()[0])
        things = [thing for thing in file.things if thing.image == place and not thing.crowd]
        found = dict(
            labels=torch.tensor([file.classes.index(NAMES[thing.name]) for thing in things]),
            scores=torch.ones(len(things)),
            bboxes=torch.zeros(len(things), 4),
            masks=[encode_mask(np.ascontiguousarray(thing.mask)) for thing in things],
        )
        shape = (info['height'], info['width'])
        metric.process({}, [dict(img_id=info['img_id'], ori_shape=shape, pred_instances=found)])
    return metric.evaluate(len(dataset))['coco/segm_mAP']


@settings(max_examples=EXAMPLES, derandomize=True, deadline=None, database=None)
@given(file=files())
def test_known_objects_or_one_line(file, folder):
    event('refused' if file.refused else 'usable')
    try:
        path, dataset = check(file, folder)
    except CASTError as error:
        assert file.refused, str(error)
        assert '\n' not in str(error) and 'labels.json' in str(error)
        return
    assert not file.refused
    loaded = loaded_masks(dataset)
    assert sorted(loaded) == [*range(len(file.sizes))]
    for place, found in loaded.items():
        known = [thing for thing in file.things if thing.image == place]
        assert [(name, crowd) for name, crowd, _ in found] == [
            (NAMES[thing.name], thing.crowd) for thing in known
        ]
        for (_, _, mask), thing in zip(found, known):
            assert np.array_equal(mask.astype(bool), thing.mask)
    assert evaluate(file, dataset, path, folder) == 1
