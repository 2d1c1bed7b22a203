import json
from pathlib import Path

import numpy as np
import pytest
from exports import assert_same_objects, copy_export, objects_of

from mmcast.coco.converters.labelme import convert_labelme
from mmcast.errors import CASTError


@pytest.fixture
def root(tmp_path) -> Path:
    return copy_export('labelme-6.3.1', tmp_path)


def change(file: Path, **values) -> None:
    file.write_text(json.dumps(json.loads(file.read_text()) | values))


def change_shape(file: Path, number: int, **values) -> None:
    shapes = json.loads(file.read_text())['shapes']
    shapes[number] |= values
    change(file, shapes=shapes)


def convert(root: Path, **options):
    (counts,) = convert_labelme(root, progress=False, **options).values()
    return counts


def test_what_has_no_area_is_counted_by_kind(root):
    assert convert(root).notes == {
        'shapes of the type point left out': 1,
        'shapes of the type linestrip left out': 1,
        'objects put together from parts of one group': 1,
        'rectangles taken as masks of all their pixels': 1,
    }


def test_file_names_are_relative_to_the_folder_and_labels_sorted(root):
    convert(root)
    coco = json.loads((root / 'annotations/instances.json').read_text())
    assert [image['file_name'] for image in coco['images']] == [
        'images/a.png',
        'images/b.png',
        'images/c.png',
    ]
    assert [category['name'] for category in coco['categories']] == ['cell', 'nucleus']


def test_links_are_followed_and_hidden_folders_are_not_read(root):
    far = root.parent / 'far'
    (root / 'labels').rename(far)
    (root / 'labels').symlink_to(far)
    (root / '.ipynb_checkpoints').mkdir()
    (root / '.ipynb_checkpoints/a-checkpoint.json').write_bytes((far / 'a.json').read_bytes())
    assert convert(root).images == 3


@pytest.mark.parametrize('path', ['..\\images\\a.png', '..\\..\\elsewhere\\a.png'])
def test_an_image_is_found_by_a_windows_path_and_beside_its_json(root, path):
    convert(root)
    expected = objects_of(root / 'annotations/instances.json')
    change(root / 'labels/a.json', imagePath=path)
    if 'elsewhere' in path:
        (root / 'images/a.png').rename(root / 'labels/a.png')
    convert(root, force=True)
    found = objects_of(root / 'annotations/instances.json')
    for image, objects in expected.items():
        assert_same_objects(found[image], objects)


def test_files_of_old_versions_have_neither_type_nor_group(root):
    convert(root)
    before = objects_of(root / 'annotations/instances.json')['b.png'][0]
    content = json.loads((root / 'labels/b.json').read_text())
    shape = {key: content['shapes'][0][key] for key in ('label', 'points')}
    change(root / 'labels/b.json', shapes=[shape], imageHeight=None)
    convert(root, force=True)
    assert_same_objects(objects_of(root / 'annotations/instances.json')['b.png'], [before])


def test_groups_of_different_labels_are_not_one_object(root):
    change_shape(root / 'labels/a.json', 3, label='cell')
    assert convert(root).objects == 7


def test_a_second_call_does_not_read_what_the_first_one_wrote(root):
    (root / 'settings.json').write_text('{"a": 1}')
    (root / 'labels/._a.json').write_bytes(b'\x00\x05\x16\x07')  # as a Mac adds
    first = convert(root)
    assert first.notes['JSON files that are not of Labelme left out'] == 1
    assert convert(root) == first


def test_what_reaches_beyond_the_image_is_cut_off_and_counted(root):
    points = [[-6, -3], [9, -3], [9, 7], [-6, 7]]
    change_shape(root / 'labels/b.json', 0, points=points)
    change_shape(root / 'labels/a.json', 1, points=[[40, 25], [51, 36]])  # a mask
    counts = convert(root)
    assert counts.notes['objects cut off at the border of their image'] == 2
    found = objects_of(root / 'annotations/instances.json')
    assert np.array_equal(np.argwhere(found['b.png'][0][1]).max(0), [7, 9])
    assert found['a.png'][1][1].sum() == 7 * 8 - 12  # 3 x 4 pixels of the hole are inside


@pytest.mark.parametrize(
    'values, message',
    [
        (dict(points=[[0, 0], [400, 0], [0, 9]]), 'lie far outside the image of 48x32'),
        (dict(points=[[0, 0], [float('nan'), 0], [0, 9]]), 'no pairs of finite numbers'),
        (dict(points=[[0, 0, 1], [4, 0, 1]]), 'no pairs of finite numbers'),
        (dict(points=None), 'no pairs of finite numbers'),
        (dict(label=None), 'has no label'),
        (dict(label=''), 'has no label'),
        (dict(shape_type='rectangle'), 'a rectangle has 2 points, this one has 4'),
        (dict(shape_type='mask', points=[[0, 0], [2, 2]], mask='AAAA'), 'no readable PNG'),
    ],
)
def test_an_unusable_shape_is_named(root, values, message):
    change_shape(root / 'labels/b.json', 0, **values)
    with pytest.raises(CASTError, match=f'b.json, shape 1.*{message}'):
        convert(root)
    assert not (root / 'annotations').exists()


def test_a_mask_of_another_size_than_its_box_is_refused(root):
    change_shape(root / 'labels/a.json', 1, points=[[20, 3], [30, 14]])
    with pytest.raises(CASTError, match='shape 2: its mask is not a grey PNG of 11x12 pixels'):
        convert(root)


@pytest.mark.parametrize(
    'values, message',
    [
        (
            dict(imageWidth=96),
            r'a.png is 48x32, .*a.json says 96x32: it was resized after it was labeled',
        ),
        (dict(imagePath='gone.png'), r'gone.png, an image of .*a.json, is missing'),
        (dict(imagePath='x' * 5000), r'x, an image of .*a.json, is missing'),
        (dict(imagePath=None), r'a.json has no imagePath'),
        (dict(imagePath='../images/b.png'), r'the image images/b.png has labels 2 times'),
        (dict(imagePath='../../a.png'), r'a.png is not below .*: convert the folder of both'),
    ],
)
def test_an_image_that_does_not_fit_is_named(root, values, message):
    (root.parent / 'a.png').write_bytes((root / 'images/a.png').read_bytes())
    change(root / 'labels/a.json', **values)
    with pytest.raises(CASTError, match=message):
        convert(root)
