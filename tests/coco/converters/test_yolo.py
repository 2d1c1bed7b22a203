import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from export_scene import PARTS, RING, box
from exports import copy_export, objects_of

from mmcast.coco.converters.yolo import convert_yolo, polygon_mask, rounding_of, split_bridges
from mmcast.errors import CASTError


@pytest.fixture
def root(tmp_path) -> Path:
    return copy_export('ultralytics-8.4.190-yolo', tmp_path)


def convert(root: Path, **options):
    return convert_yolo(root, progress=False, **options)


def labels(root: Path, text: str) -> Path:
    file = root / 'labels/train/a.txt'
    file.write_text(text)
    return file


@pytest.mark.parametrize('seed', range(5))
def test_a_polygon_is_drawn_as_ultralytics_draws_it(seed):
    """Its ``polygon2mask``: coordinates cut to whole pixels, ``cv2.fillPoly``."""
    random = np.random.default_rng(seed)
    points = (random.uniform(-5, 45, (random.integers(3, 20), 2))).astype(int)
    expected = np.zeros((32, 40), np.uint8)
    cv2.fillPoly(expected, [points.astype(np.int32)], 1)
    found = polygon_mask([(x, y) for x, y in points.tolist()], 32, 40)
    assert np.array_equal(found, expected.astype(bool))


def test_lines_between_parts_and_holes_are_no_pixels():
    """Written as Ultralytics reads them best: each ring closed, a line there and back."""
    square = [(2, 2), (8, 2), (8, 8), (2, 8), (2, 2)]
    other = [(12, 15), (18, 15), (18, 20), (12, 20), (12, 15)]
    parts = polygon_mask([*square, *other], 30, 30)
    assert parts.sum() == 49 + 42 and not parts[9:15, 9:12].any()
    hole = [(4, 4), (4, 6), (6, 6), (6, 4), (4, 4)]
    holed = polygon_mask([*square, *hole], 30, 30)
    assert holed.sum() == 49 - 1 and not holed[5, 5]


def test_thin_ends_of_an_object_stay():
    """OpenCV's outline of a mask goes along a line of single pixels there and back."""
    mask = box(5, 5, 12, 12)
    mask[8, 12:20] = True
    (outline,), _ = cv2.findContours(
        mask.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE
    )
    points = [(x, y) for x, y in outline[:, 0].tolist()]
    assert np.array_equal(polygon_mask(points, *mask.shape), mask)
    rings, lines = split_bridges(points)
    assert len(rings) == 1 and lines == [((12, 8), (19, 8))]


@pytest.mark.parametrize('points', [[(3, 4)] * 3, [(3, 4), (6, 4), (3, 4)]])
def test_what_is_no_wider_than_a_pixel_stays(points):
    assert polygon_mask(points, 9, 9).sum() == len(set(points)) ** 2


def test_numbers_that_were_rounded_are_read_as_what_they_were():
    """4 of 48 pixels is 0.0833..., cut off by every writer in its way."""
    for writing in ('{:.5f}', '{:.6g}', '{:.9g}', '{}'):
        texts = [writing.format(value / 48) for value in range(48)]
        cut = np.array(rounding_of(texts))
        read = np.array(texts, float)
        assert np.array_equal(np.floor((read + cut) * 48), np.arange(48))
        assert (cut < 1e-5).all()


def test_an_exact_outline_within_its_pixels_is_exact(root):
    """Edges of pixels moved 0.01 pixels inwards: the way in which all trainers read one mask."""
    inside = [(2.01, 18.01), (9.99, 18.01), (9.99, 23.99), (2.01, 23.99)]
    line = ' '.join(f'{x / 48:.9g} {y / 32:.9g}' for x, y in inside)
    labels(root, f'1 {line}\n')
    convert(root)
    found = objects_of(root / 'annotations/instances_train.json')
    assert np.array_equal(found['a.png'][0][1], PARTS[0])


def test_edges_of_pixels_are_half_a_pixel_too_large_unless_they_are_said_to_be_such(root):
    line = '0 0.25 0.25 0.5 0.25 0.5 0.5 0.25 0.5'  # 12 x 8 pixels
    labels(root, line)
    areas = []
    for edges in (False, True):
        convert(root, pixel_edges=edges, force=True)
        found = objects_of(root / 'annotations/instances_train.json')
        areas.append(found['a.png'][0][1].sum())
    assert areas == [13 * 9, 12 * 8]


def test_images_without_a_text_file_are_not_labeled_and_empty_ones_have_no_object(root):
    labels(root, '')
    (train, val) = convert(root).values()
    assert train == val
    assert (train.images, train.objects) == (2, 1)
    (what,) = train.notes
    assert what.startswith('images without a text file left out')
    assert list(objects_of(root / 'annotations/instances_train.json')) == ['a.png', 'b.png']


def test_repeated_lines_are_one_object_and_a_byte_order_mark_is_none(root):
    line = '0 0.25 0.25 0.5 0.25 0.5 0.5'
    labels(root, f'\ufeff{line}\n{line}\n')
    counts = convert(root)[root / 'annotations/instances_train.json']
    assert counts.notes['repeated lines left out'] == 1 and counts.objects == 2


@pytest.mark.parametrize(
    'line, message',
    [
        ('0 0.5 0.5 0.2 0.2', '1 of 2 lines, such as line 2, are boxes of five numbers, and masks'),
        ('2 0 0 0.5 0 0.5 0.5', 'line 2: class 2 is none of the 2 names, 0 to 1: add its name'),
        ('-1 0 0 0.5 0 0.5 0.5', 'line 2: class -1 is none of the 2 names'),
        ('0.5 0 0 0.5 0 0.5 0.5', 'line 2: class 0.5 is none'),
        ('0 0 0 0.5 0 0.5 0.5 0.9', 'line 2 has 7 numbers behind the class.*confidence'),
        ('0 0 0 0.5 0 0.5 1,0', 'line 2 is not a class and numbers'),
        ('0 0 0 0.5 0 0.5 nan', 'line 2: the coordinates are no pairs of finite numbers'),
        ('0 0 0 120 0 120 80', 'line 2: coordinates .* lie far outside the image of 48x32'),
    ],
)
def test_an_unusable_line_is_named(root, line, message):
    file = labels(root, f'0 0 0 0.5 0 0.5 0.5\n{line}\n')
    with pytest.raises(CASTError, match=f'{file.name}.*{message}'):
        convert(root)
    assert not (root / 'annotations').exists()


def test_what_reaches_beyond_the_image_is_cut_off_and_counted(root):
    labels(root, '0 -0.25 0.25 0.25 0.25 0.25 0.5 -0.25 0.5\n')
    counts = convert(root, pixel_edges=True)[root / 'annotations/instances_train.json']
    assert counts.notes['objects cut off at the border of their image'] == 1
    found = objects_of(root / 'annotations/instances_train.json')
    assert np.array_equal(found['a.png'][0][1], box(8, 0, 16, 12))


@pytest.mark.parametrize(
    'text, message',
    [
        ('train: images/train\nnames: {0: cell, 2: nucleus}', 'names are not numbered 0, 1, 2'),
        ('train: images/train\nnames: [cell, cell]', 'names the class cell twice'),
        ('train: images/train\nnc: 2', 'has no list of names'),
        ('train: images/gone\nnames: [cell]', 'images/gone is not there'),
        ('train: images/gone' + 900 * 'x' + '\nnames: [cell]', 'is not there'),
        ('names: [cell]', 'no image found'),
        ('train: [', 'data.yaml is not valid YAML'),
        ('- a', 'is not a data.yaml of YOLO'),
    ],
)
def test_an_unusable_data_yaml_is_named(root, text, message):
    (root / 'data.yaml').write_text(text)
    with pytest.raises(CASTError, match=message):
        convert(root)


@pytest.mark.parametrize(
    'train',
    ['../images/train', './images/train', 'lists/train.txt', '[images/train, images\\train]'],
)
def test_images_are_found_by_every_way_to_write_their_place(root, train):
    """Roboflow's ``../``, and CVAT's text file with paths."""
    (root / 'lists').mkdir()
    (root / 'lists/train.txt').write_text('../images/train/b.png\n../images/train/a.png\n')
    (root / 'data.yaml').write_text(f'path: /gone\ntrain: {train}\nnames: [cell, nucleus]\n')
    (counts,) = convert(root).values()
    assert (counts.images, counts.objects) == (2, 3)


@pytest.mark.parametrize(
    'file, entry', [('classes.txt', None), ('train.txt', 'train: train.txt\nnames: [cell]')]
)
def test_a_list_that_is_not_text_is_named(root, file, entry):
    (root / 'data.yaml').write_text(entry) if entry else (root / 'data.yaml').unlink()
    (root / file).write_bytes(b'images/train/\xff.png')
    with pytest.raises(CASTError, match=f'{file} is not a readable text file'):
        convert(root)


def test_a_missing_test_folder_is_said_and_others_are_converted(tmp_path):
    root = copy_export('format-roboflow/yolo', tmp_path)
    written = convert(root)
    assert [path.stem for path in written] == ['instances_train', 'instances_val']
    first, second = written.values()
    assert any(what.startswith('folder of test images') for what in first.notes)
    assert not second.notes


def test_a_list_of_test_folders_is_found(root):
    (root / 'data.yaml').write_text('test: [images/train]\nnames: [cell, nucleus]\n')
    assert list(convert(root)) == [root / 'annotations/instances_test.json']


def test_names_of_all_classes_are_kept_in_their_order(root):
    names = 'names: {1: nucleus, 0: zebra, 2: never}'
    (root / 'data.yaml').write_text(f'train: images/train\n{names}\n')
    convert(root)
    coco = json.loads((root / 'annotations/instances_train.json').read_text())
    assert [(c['id'], c['name']) for c in coco['categories']] == [
        (1, 'zebra'),
        (2, 'nucleus'),
        (3, 'never'),
    ]


def test_names_are_texts_whatever_yaml_takes_them_for(root):
    (root / 'data.yaml').write_text('train: images/train\nval: ~\ntest: null\nnames: [no, 010]\n')
    (path,) = convert(root)
    assert [c['name'] for c in json.loads(path.read_text())['categories']] == ['no', '010']


def test_a_hole_that_supervision_wrote_is_a_hole(tmp_path):
    root = copy_export('supervision-0.31.2-yolo', tmp_path)
    convert(root)
    found = objects_of(root / 'annotations/instances_train.json')
    assert np.array_equal(found['a.png'][1][1], RING)
