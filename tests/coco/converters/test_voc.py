import json
from pathlib import Path

import numpy as np
import pytest
from export_scene import SCENE, SQUARE
from exports import assert_same_objects, copy_export, objects_of
from PIL import Image

from mmcast.coco.converters.voc import convert_voc, voc_colours
from mmcast.errors import CASTError


@pytest.fixture
def root(tmp_path) -> Path:
    return copy_export('format-voc2012', tmp_path)


def convert(root: Path, **options):
    return convert_voc(root, progress=False, **options)


def pixels_of(root: Path, part: str) -> np.ndarray:
    return np.asarray(Image.open(root / part / 'a.png')).copy()


def test_lists_are_files_and_trainval_is_not_converted_twice(root):
    assert list(convert(root)) == [
        root / 'annotations/instances_train.json',
        root / 'annotations/instances_val.json',
    ]


def test_without_lists_all_masks_are_one_file(root):
    for file in (root / 'ImageSets/Segmentation').iterdir():
        file.unlink()
    (counts,) = convert(root).values()
    assert (counts.images, counts.objects) == (2, 5)
    coco = json.loads((root / 'annotations/instances.json').read_text())
    assert coco['images'][0]['file_name'] == 'JPEGImages/a.jpg'
    assert [coco['categories'][n]['name'] for n in (0, 11, 14, 19)] == [
        'aeroplane',
        'dog',
        'person',
        'tvmonitor',
    ]


def test_masks_may_have_more_pixels_than_pillow_allows(root, monkeypatch):
    """As those of satellite images have."""
    monkeypatch.setattr(Image, 'MAX_IMAGE_PIXELS', 9)
    assert len(convert(root)) == 2


def test_borders_belong_to_no_object(root):
    """255 in both files; the pixels of the objects are what the images were made of."""
    assert (pixels_of(root, 'SegmentationObject')[SQUARE] == 1).all()
    assert (pixels_of(root, 'SegmentationObject') == 255).sum() > 100
    convert(root)
    found = objects_of(root / 'annotations/instances_train.json')['a.jpg']
    assert np.array_equal(found[0][1], SQUARE)


def test_more_objects_than_the_format_can_number_are_said(root):
    objects = pixels_of(root, 'SegmentationObject')
    objects[objects == 1] = 253
    Image.fromarray(objects).save(root / 'SegmentationObject/a.png')
    assert not any('objects' in note for each in convert(root).values() for note in each.notes)
    objects[objects == 253] = 254
    Image.fromarray(objects).save(root / 'SegmentationObject/a.png')
    (note,) = (note for each in convert(root, force=True).values() for note in each.notes)
    assert note.startswith('images have 254 objects')


def test_the_first_colours_are_those_of_the_development_kit():
    assert voc_colours()[[0, 1, 2, 3, 4, 15, 20, 255]].tolist() == [
        [0, 0, 0],
        [128, 0, 0],
        [0, 128, 0],
        [128, 128, 0],
        [0, 0, 128],
        [192, 128, 128],
        [0, 64, 128],
        [224, 224, 192],
    ]


def test_grey_and_coloured_masks_say_the_same(root):
    convert(root)
    file = root / 'annotations/instances_train.json'
    expected = objects_of(file)
    for mode in ('L', 'RGB'):
        for part in ('SegmentationObject', 'SegmentationClass'):
            values = pixels_of(root, part)
            if values.ndim == 2 and mode == 'RGB':
                values = voc_colours()[values]
            Image.fromarray(values).save(root / part / 'a.png')
        assert Image.open(root / 'SegmentationObject/a.png').mode == mode
        convert(root, force=True)
        assert_same_objects(objects_of(file)['a.jpg'], expected['a.jpg'])


def test_colours_of_a_labelmap_as_cvat_writes_it(root):
    """Its own colours, background anywhere, and instances in VOC's colours."""
    colours = {12: (61, 245, 61), 15: (250, 50, 83), 0: (0, 0, 0), 255: (224, 224, 192)}
    classes = pixels_of(root, 'SegmentationClass')
    painted = np.zeros((*classes.shape, 3), np.uint8)
    for value, colour in colours.items():
        painted[classes == value] = colour
    Image.fromarray(painted).save(root / 'SegmentationClass/a.png')
    (root / 'labelmap.txt').write_text(
        '# label:color_rgb:parts:actions\nnucleus:250,50,83::\nbackground:0,0,0::\n'
        'cell:61,245,61::\n'
    )
    (root / 'ImageSets/Segmentation/val.txt').unlink()
    (root / 'ImageSets/Segmentation/trainval.txt').unlink()
    convert(root)
    file = root / 'annotations/instances_train.json'
    assert_same_objects(objects_of(file)['a.jpg'], SCENE['a.png'])
    names = [category['name'] for category in json.loads(file.read_text())['categories']]
    assert names == ['nucleus', 'cell']
    painted[SQUARE] = (1, 2, 3)
    Image.fromarray(painted).save(root / 'SegmentationClass/a.png')
    with pytest.raises(CASTError, match=r'a.png: the colour \(1, 2, 3\) is of no class'):
        convert(root, force=True)


def test_classes_of_labelmes_own_voc_folder(root):
    (root / 'class_names.txt').write_text(
        '__ignore__\n_background_\n' + '\n'.join(f'c{number}' for number in range(1, 16)) + '\n'
    )
    convert(root)
    found = objects_of(root / 'annotations/instances_train.json')['a.jpg']
    assert [name for name, _ in found] == ['c12', 'c12', 'c15']


def change(root: Path, part: str, where: np.ndarray, value: int) -> None:
    values = pixels_of(root, part)
    values[where] = value
    Image.fromarray(values).save(root / part / 'a.png')


def test_an_object_of_two_classes_or_none_is_refused(root):
    half = SQUARE.copy()
    half[:8] = False
    for value, message in ((15, 'object 1 has the classes 12, 15, not one'), (30, '12, 30')):
        change(root, 'SegmentationClass', half, value)
        with pytest.raises(CASTError, match=message):
            convert(root)
    change(root, 'SegmentationClass', SQUARE, 0)
    with pytest.raises(CASTError, match='object 1 has the classes none, not one'):
        convert(root)
    change(root, 'SegmentationClass', SQUARE, 30)
    with pytest.raises(CASTError, match='object 1 has class 30, and 21 names, 0 to 20, are known'):
        convert(root)


def test_a_file_that_is_missing_or_does_not_fit_is_named(root):
    Image.new('L', (20, 20)).save(root / 'SegmentationClass/a.png')
    (root / 'JPEGImages/b.jpg').unlink()
    with pytest.raises(CASTError) as error:
        convert(root)
    assert str(error.value).startswith('2 faults: ')
    assert 'SegmentationClass/a.png is 20x20, its image 48x32' in str(error.value)
    assert 'JPEGImages/b.jpg, an image of' in str(error.value)


def test_two_images_of_one_name_are_refused(root):
    Image.new('RGB', (48, 32)).save(root / 'JPEGImages/a.png')
    with pytest.raises(CASTError, match=r'a.jpg and .*a.png are both images of a'):
        convert(root)


def test_boxes_alone_are_refused(root):
    (root / 'SegmentationObject').rename(root / 'other')
    with pytest.raises(CASTError, match='SegmentationObject is missing.* has boxes only'):
        convert(root)


def test_an_image_that_is_listed_without_masks_is_kept_and_said(tmp_path):
    root = copy_export('datumaro-1.13.12-voc', tmp_path)
    counts = convert(root)[root / 'annotations/instances_val.json']
    assert (counts.images, counts.objects) == (2, 2)
    assert list(counts.notes) == [
        'images are listed and have no mask: taken as images without objects'
    ]
    (root / 'SegmentationClass/b.png').unlink()
    with pytest.raises(CASTError, match=r'SegmentationClass/b.png is not a readable image'):
        convert(root, force=True)
