import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as mask_api

from mmcast.coco.converters.numbered_maps import IN_PARTS, NO_MAP, convert_numbered_maps
from mmcast.errors import CASTError

SIZE = (6, 8)


def numbers(**places: tuple[slice, slice]) -> np.ndarray:
    """A map with a number for each name such as `n7`, at its place."""
    found = np.zeros(SIZE, np.uint16)
    for name, place in places.items():
        found[place] = int(name.removeprefix('n'))
    return found


TOUCHING = numbers(n7=(slice(0, 3), slice(0, 4)), n300=(slice(3, 6), slice(0, 4)))


def write(root: Path, name: str, pixels: np.ndarray) -> None:
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


def write_image(root: Path, name: str) -> None:
    write(root, name, np.zeros((*SIZE, 3), np.uint8))


def convert(root: Path, **options):
    return convert_numbered_maps(root, progress=False, **options)


def masks_of(root: Path) -> list[np.ndarray]:
    coco = json.loads((root / 'annotations/instances.json').read_text())
    return [mask_api.decode(annotation['segmentation']) for annotation in coco['annotations']]


@pytest.mark.parametrize('suffix', ['.png', '.tif'])
def test_objects_are_the_pixels_of_a_number_also_above_255(tmp_path, suffix):
    write_image(tmp_path, 'images/a.jpg')
    write(tmp_path, f'masks/a{suffix}', TOUCHING)
    (counts,) = convert(tmp_path, name='cell').values()
    assert (counts.images, counts.objects) == (1, 2) and not counts.notes
    coco = json.loads((tmp_path / 'annotations/instances.json').read_text())
    assert [category['name'] for category in coco['categories']] == ['cell']
    assert coco['images'][0]['file_name'] == 'images/a.jpg'
    for mask, number in zip(masks_of(tmp_path), (7, 300), strict=True):
        assert np.array_equal(mask, np.equal(TOUCHING, number))


def test_a_colour_is_an_object_and_black_is_none(tmp_path):
    colours = np.zeros((*SIZE, 3), np.uint8)
    colours[0, :2], colours[0, 2:4] = (255, 0, 0), (254, 0, 0)
    write_image(tmp_path, 'images/a.png')
    write(tmp_path, 'masks/a.png', colours)
    convert(tmp_path)
    assert [int(mask.sum()) for mask in masks_of(tmp_path)] == [2, 2]


def test_maps_may_lie_beside_their_images(tmp_path):
    """As Cellpose writes them; a1 is not the image of a10_cp_masks, and b has no map."""
    for name in ('a1', 'a10', 'b'):
        write_image(tmp_path, f'{name}.png')
    write(tmp_path, 'a1_cp_masks.png', TOUCHING)
    write(tmp_path, 'a10_cp_masks.png', numbers(n1=(slice(1, 2), slice(1, 2))))
    (counts,) = convert(tmp_path, images='.', maps='.').values()
    coco = json.loads((tmp_path / 'annotations/instances.json').read_text())
    objects = {image['file_name']: 0 for image in coco['images']}
    names = {image['id']: image['file_name'] for image in coco['images']}
    for annotation in coco['annotations']:
        objects[names[annotation['image_id']]] += 1
    assert objects == {'a1.png': 2, 'a10.png': 1}
    assert counts.notes == {NO_MAP: 1}


def test_an_ending_of_their_own_and_a_number_that_is_no_object(tmp_path):
    write_image(tmp_path, 'images/day/a.png')
    write(tmp_path, 'maps/day/a_x.png', TOUCHING)
    with pytest.raises(CASTError, match=r'no images for all maps .* for a_x\.png: .*--ending'):
        convert(tmp_path, maps='maps')
    (counts,) = convert(tmp_path, maps='maps', ending='_x', ignore=300).values()
    assert counts.objects == 1


def test_maps_of_classes_are_refused_and_objects_in_parts_counted(tmp_path):
    apart = numbers(n1=(slice(0, 2), slice(0, 2)))
    apart[4:, 6:] = 1
    write_image(tmp_path, 'images/a.png')
    write(tmp_path, 'masks/a_mask.png', apart)
    with pytest.raises(CASTError, match=r'masks: no map has more than one object, .*--single'):
        convert(tmp_path)
    assert not (tmp_path / 'annotations').exists()
    (counts,) = convert(tmp_path, single=True).values()
    assert counts.objects == 1 and counts.notes == {IN_PARTS: 1}


def test_an_image_without_objects_stays_and_one_of_another_size_is_named(tmp_path):
    for name in 'ab':
        write_image(tmp_path, f'images/{name}.png')
    write(tmp_path, 'masks/a.png', TOUCHING)
    write(tmp_path, 'masks/b.png', np.zeros(SIZE, np.uint8))
    (counts,) = convert(tmp_path).values()
    assert (counts.images, counts.objects) == (2, 2)
    write(tmp_path, 'masks/b.png', np.zeros((5, 5), np.uint8))
    with pytest.raises(CASTError, match=r'b\.png is 5x5, its image 8x6'):
        convert(tmp_path, force=True)
