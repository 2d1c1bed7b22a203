"""Plants mistakes of every kind in a copy of a COCO data set, for the tests of the check.

Works on any data set whose first twelve images have two annotations each, and the first 24 ones at
all.
"""

import json
import shutil
from pathlib import Path

import numpy as np
from PIL import Image

CASES = 12


def plant(folder: Path) -> set[tuple]:
    """Damages ``train.json``, ``images/`` and makes ``val.json`` and ``unlabeled/`` in a folder.

    Returns:
        All that a check should find: kind, file name, image id, annotation id.
    """
    ann_file, img_dir = folder / 'train.json', folder / 'images'
    coco = json.loads(ann_file.read_text())
    images = coco['images']
    names, ids = [image['file_name'] for image in images], [image['id'] for image in images]
    own = [
        [ann for ann in coco['annotations'] if ann['image_id'] == image_id][:2]
        for image_id in ids[:CASES]
    ]

    expected = _damage_masks(images, own) | _damage_references(coco, own, names, ids)
    # Files; images from 12 on keep sound annotations.
    (img_dir / names[12]).unlink()
    (img_dir / names[13]).write_bytes((img_dir / names[13]).read_bytes()[:-40])
    Image.fromarray(np.zeros((9, 7, 3), np.uint8)).save(img_dir / names[14])
    shutil.copy(img_dir / names[15], img_dir / names[16])
    images[16].update(width=images[15]['width'], height=images[15]['height'])
    _resize_masks(coco, images[16])
    expected |= {
        (kind, names[place], ids[place], None)
        for kind, place in (
            ('missing-image', 12),
            ('unreadable-image', 13),
            ('image-size-mismatch', 14),
            ('copied-image', 16),
        )
    }
    # Other sets.
    others = folder / 'unlabeled'
    others.mkdir()
    shutil.copy(img_dir / names[17], others / names[17])
    _copy_as_bmp(img_dir / names[18], others / 'elsewhere.bmp')
    _noise(others / names[19], seed=1)
    _copy_as_bmp(img_dir / names[20], img_dir / 'copy.bmp')
    val = [images[21], dict(images[20], file_name='copy.bmp')]
    (folder / 'val.json').write_text(json.dumps(dict(images=val, annotations=[], categories=[])))
    expected |= {
        (kind, names[place], ids[place], None)
        for kind, place in (
            ('in-unlabeled', 17),
            ('in-unlabeled-copy', 18),
            ('same-name-in-unlabeled', 19),
            ('in-val-copy', 20),
            ('in-val', 21),
        )
    }
    # An image without annotations, an entry without a name.
    coco['annotations'] = [ann for ann in coco['annotations'] if ann['image_id'] != ids[22]]
    images.append(dict(id='nameless', width=5, height=5))
    expected |= {
        ('image-without-annotations', names[22], ids[22], None),
        ('bad-image-entry', str(ann_file), 'nameless', None),
    }
    ann_file.write_text(json.dumps(coco))
    return expected


def _damage_masks(images: list[dict], own: list[list[dict]]) -> set[tuple]:
    """One mask, box or area of each of the first seven images."""
    width, size = images[5]['width'], [images[2]['height'], images[2]['width']]
    far = [width + 5, 1, 3 * width, 1, 3 * width, 11, width + 5, 11]
    changes = [
        ('empty-mask', dict(segmentation=[])),
        ('degenerate-polygon', dict(segmentation=[[1, 1, 5, 5]])),
        ('malformed-mask', dict(segmentation=dict(size=size, counts='5'))),
        ('mask-size-mismatch', dict(segmentation=dict(size=[3, 3], counts=[4, 5]))),
        ('bad-area', dict(area=9 * size[0] * size[1])),
        ('mask-far-outside', dict(segmentation=[far], bbox=[width + 5, 1, 10, 10], area=100)),
        ('bad-box', dict(bbox=[-9, 3, 1, 4])),
    ]
    expected = set()
    for (kind, change), image, annotations in zip(changes, images, own):
        annotations[0].update(change)
        expected.add((kind, image['file_name'], image['id'], annotations[0]['id']))
    return expected


def _damage_references(
    coco: dict, own: list[list[dict]], names: list[str], ids: list
) -> set[tuple]:
    """Ids and names that are unknown or there twice."""
    own[7][0]['category_id'] = 99
    own[8][0]['id'] = own[8][1]['id']
    stray = dict(own[9][1], id='stray', image_id='nobody')
    coco['annotations'].append(stray)
    del own[9][0]['category_id']
    coco['images'] += [
        dict(coco['images'][10], file_name='other.png'),
        dict(coco['images'][11], id='again'),
    ]
    coco['categories'].append(dict(coco['categories'][0]))
    source = 'train.json'
    return {
        ('unknown-category', names[7], ids[7], own[7][0]['id']),
        ('duplicate-annotation-id', names[8], ids[8], own[8][0]['id']),
        ('unlisted-image', source, 'nobody', 'stray'),
        ('bad-annotation-entry', names[9], ids[9], own[9][0]['id']),
        ('duplicate-image-id', 'other.png', ids[10], None),
        ('duplicate-file', names[11], 'again', None),
        ('image-without-annotations', names[11], 'again', None),
        ('id-type', names[11], 'again', None),
        ('duplicate-category', source, None, None),
    }


def _resize_masks(coco: dict, image: dict) -> None:
    """Gives the annotations of an image one mask that fits any size."""
    for ann in coco['annotations']:
        if ann['image_id'] == image['id']:
            ann.update(segmentation=[[1, 1, 5, 1, 5, 5, 1, 5]], bbox=[1, 1, 4, 4], area=16)


def _copy_as_bmp(source: Path, target: Path) -> None:
    with Image.open(source) as image:
        image.convert('RGB').save(target)


def _noise(path: Path, seed: int) -> None:
    Image.fromarray(np.random.default_rng(seed).integers(0, 255, (16, 16, 3), dtype=np.uint8)).save(
        path
    )
