import json
import struct
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as mask_api

from mmcast.coco.converters.numbered_maps import (
    IN_PARTS,
    NO_BACKGROUND,
    NO_MAP,
    convert_numbered_maps,
)
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


@pytest.mark.parametrize('maps', ['masks', 'images'])
def test_a_map_without_its_image_is_named(tmp_path, maps):
    write_image(tmp_path, 'images/a.png')
    for name in 'ab':
        write(tmp_path, f'{maps}/{name}_mask.png', TOUCHING)
    with pytest.raises(CASTError, match=r'no images for all maps .* for b_mask\.png: '):
        convert(tmp_path, maps=maps)


def test_maps_of_two_tools_beside_one_another_are_not_chosen_from(tmp_path):
    write_image(tmp_path, 'a.png')
    write(tmp_path, 'a_cp_masks.png', TOUCHING)
    write(tmp_path, 'a_mask.png', np.ones(SIZE, np.uint8))
    with pytest.raises(CASTError, match='end in _cp_masks and in _mask: .*--ending'):
        convert(tmp_path, images='.', maps='.')
    (counts,) = convert(tmp_path, images='.', maps='.', ending='_cp_masks.png').values()
    assert counts.objects == 2


@pytest.mark.parametrize(
    ('images', 'maps'), [('.', 'masks'), ('images', '.')], ids=['maps', 'images']
)
def test_one_folder_may_be_inside_the_other(tmp_path, images, maps):
    write_image(tmp_path / images, 'a.png')
    write(tmp_path / maps, 'a.png', TOUCHING)
    (counts,) = convert(tmp_path, images=images, maps=maps).values()
    assert (counts.images, counts.objects) == (1, 2) and not counts.notes


def test_what_is_transparent_is_background_and_gray_in_colours_is_its_number(tmp_path):
    write_image(tmp_path, 'images/a.png')
    opacity = np.where(TOUCHING, 255, 0)
    colours = np.where(TOUCHING == 7, 255, np.where(TOUCHING, 9, 200))
    write(tmp_path, 'masks/a.png', np.stack([*[colours] * 3, opacity], -1).astype(np.uint8))
    convert(tmp_path, ignore=255)
    (mask,) = masks_of(tmp_path)
    assert np.array_equal(mask, TOUCHING == 300)


def test_a_map_without_background_is_counted(tmp_path):
    write_image(tmp_path, 'images/a.png')
    write(tmp_path, 'masks/a.png', np.where(TOUCHING, TOUCHING, 1))
    (counts,) = convert(tmp_path).values()
    assert counts.notes == {NO_BACKGROUND: 1}


def test_maps_whose_numbers_are_not_what_was_saved_are_refused(tmp_path):
    write_image(tmp_path, 'images/a.png')

    def refused(name, *pages, **options):
        path = tmp_path / 'masks' / name
        path.parent.mkdir(exist_ok=True)
        pages[0].save(path, **options)
        with pytest.raises(CASTError) as error:
            convert(tmp_path)
        path.unlink()
        assert f'masks/{name} ' in str(error.value)
        return str(error.value)

    small = Image.fromarray(TOUCHING.astype(np.uint8))
    assert 'JPEG, which changes numbers' in refused('a.jpg', small)
    stack = dict(save_all=True, append_images=[small])
    assert 'has 2 pages' in refused('a.tif', small, **stack)
    small.putpalette([255, 255, 255, *[0] * 765])
    assert 'black is not number 0' in refused('a.png', small)
    broken = np.where(TOUCHING, 1, np.nan).astype(np.float32)
    assert 'with fractions' in refused('a.tiff', Image.fromarray(broken))


def test_a_tiff_of_64_bits_which_pillow_does_not_open_is_told_what_to_be(tmp_path):
    write_image(tmp_path, 'images/a.png')
    write(tmp_path, 'masks/a.tif', TOUCHING.astype(np.int32))
    path = tmp_path / 'masks/a.tif'
    bits = struct.pack('<HHII', 258, 3, 1, 32)  # the tag BitsPerSample
    content = path.read_bytes()
    assert content.count(bits) == 1
    path.write_bytes(content.replace(bits, struct.pack('<HHII', 258, 3, 1, 64)))
    with pytest.raises(CASTError, match=r'a\.tif cannot be read .* 64 bits, save it with 16 or 32'):
        convert(tmp_path)


def test_a_folder_of_arrays_is_no_folder_of_maps(tmp_path):
    write_image(tmp_path, 'images/a.png')
    (tmp_path / 'masks').mkdir()
    np.save(tmp_path / 'masks/a.npy', TOUCHING)
    with pytest.raises(CASTError, match=r'masks has no files .*\(\.npy\) as PNG'):
        convert(tmp_path)
