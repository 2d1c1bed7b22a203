import json
import re
from pathlib import Path

import numpy as np
import pytest
from export_scene import CORNER, SCENE, box
from exports import assert_same_objects, copy_export, objects_of

from mmcast.coco.converters.cvat import convert_cvat
from mmcast.errors import CASTError


@pytest.fixture
def file(tmp_path) -> Path:
    return copy_export('format-cvat-1.1', tmp_path) / 'annotations.xml'


def convert(file: Path, **options):
    (counts,) = convert_cvat(file, progress=False, **options).values()
    return counts


def found(file: Path) -> dict:
    return objects_of(file.parent / 'annotations/instances.json')


def change(file: Path, pattern: str, text: str) -> None:
    changed, number = re.subn(pattern, text, file.read_text(), count=1)
    assert number
    file.write_text(changed)


def test_masks_polygons_and_groups_are_exact(file):
    convert(file)
    assert_same_objects(found(file)['a.png'], SCENE['a.png'])
    assert found(file)['c.png'] == []


def test_rotated_boxes_and_ellipses(file):
    """10 x 4 pixels about (25, 12), turned by 90 degrees, is 4 x 10."""
    convert(file)
    (_, corner), (_, turned), (_, ellipse) = found(file)['b.png']
    assert np.array_equal(corner, CORNER) and np.array_equal(turned, box(7, 23, 17, 27))
    rows, columns = np.nonzero(ellipse)
    assert (columns.min(), columns.max(), rows.min(), rows.max()) == (34, 45, 17, 22)
    assert abs(ellipse.sum() - np.pi * 6 * 3) < 2
    change(file, 'ry="3.0"', 'ry="3.0" rotation="90"')
    convert(file, force=True)
    rows, columns = np.nonzero(found(file)['b.png'][2][1])
    assert (np.ptp(columns) + 1, np.ptp(rows) + 1) == (6, 12)


def test_categories_are_the_labels_of_the_task_in_its_order(file):
    change(file, '<name>cell</name>', '<name>zebra</name>')
    convert(file)
    coco = json.loads((file.parent / 'annotations/instances.json').read_text())
    assert [category['name'] for category in coco['categories']] == ['zebra', 'nucleus', 'cell']


def test_labels_of_a_project_and_images_of_its_subsets(file):
    """Two tasks of a project may have an image of one name; ``subset`` tells them apart."""
    (file.parent / 'images/Train').mkdir()
    (file.parent / 'images/Val').mkdir()
    for name, subset in (('a', 'Train'), ('b', 'Val')):
        (file.parent / f'images/{name}.png').rename(file.parent / f'images/{subset}/x.png')
        change(file, f'name="{name}.png"', f'name="x.png" subset="{subset}" task_id="1"')
    change(file, '<job>', '<project>')
    change(file, '</job>', '</project>')
    convert(file)
    coco = json.loads((file.parent / 'annotations/instances.json').read_text())
    names = [image['file_name'] for image in coco['images']]
    assert names == ['images/Train/x.png', 'images/Val/x.png', 'images/c.png']
    assert [category['name'] for category in coco['categories']] == ['cell', 'nucleus']


def test_images_may_be_elsewhere(file, tmp_path):
    photos = (file.parent / 'images').rename(tmp_path / 'photos')
    with pytest.raises(CASTError, match=r'has no image a.png of .*name the folder .* --images'):
        convert(file)
    convert(file, images=photos)
    coco = json.loads((file.parent / 'annotations/instances.json').read_text())
    assert coco['images'][0]['file_name'] == 'a.png'


def test_two_images_of_one_name_are_refused(file):
    for folder in ('one', 'two'):
        (file.parent / folder).mkdir()
    (file.parent / 'images/a.png').rename(file.parent / 'one/a.png')
    (file.parent / 'two/a.png').write_bytes((file.parent / 'one/a.png').read_bytes())
    with pytest.raises(CASTError, match=r'one/a.png and .*two/a.png have the name of one image'):
        convert(file)


@pytest.mark.parametrize(
    'pattern, text, message',
    [
        ('rle="0, 52', 'rle="0, 53', 'shape 2 .mask.: its runs are not those of a box of 12x12'),
        ('rle="0, 52', 'rle="0, x', 'shape 2 .mask.: a coordinate is no finite number'),
        ('left="20"', 'left="40"', 'at 40, 3 within the image'),
        ('points="4.00,3.00;14.00,3.00', 'points="4.00;14.00', 'no list of three or more points'),
        ('points="4.00', 'points="4000', 'lie far outside the image of 48x32'),
        ('points="4.00', 'points="nan', 'a coordinate is no finite number'),
        ('polygon label="cell"', 'polygon label=""', 'shape 1 .polygon. has no label'),
        ('width="48"', 'width="96"', r'a.png is 48x32, .* says 96x32'),
        ('width="48"', '', 'image a.png: a coordinate is no finite number'),
        ('name="a.png"', 'name="b.png"', 'the image images/b.png has labels 2 times'),
        ('<image id="0"', '<track id="0"', 'not an export as "CVAT for images 1.1" .found <track>'),
        ('(?s)</image>.*', '', 'is not valid XML'),
        ('encoding="utf-8"', 'encoding="utf-99"', 'is not valid XML .unknown encoding'),
        ('<annotations>', '<!DOCTYPE annotations>\n<annotations>', 'declares a document type'),
    ],
)
def test_a_fault_is_named(file, pattern, text, message):
    change(file, pattern, text)
    with pytest.raises(CASTError, match=message):
        convert(file)
    assert not (file.parent / 'annotations').exists()


def test_what_reaches_beyond_the_image_is_cut_off_and_counted(file):
    change(
        file, 'points="0.00,0.00;10.00,0.00;10.00,8.00;0.00,8.00"', 'points="-5,0;10,0;10,8;-5,8"'
    )
    assert convert(file).notes['objects cut off at the border of their image'] == 1
    assert np.array_equal(found(file)['b.png'][0][1], CORNER)


def test_a_folder_with_several_files_is_refused(file):
    (file.parent / 'other.xml').write_text('<annotations/>')
    with pytest.raises(CASTError, match='has 2 XML files'):
        convert(file.parent)
