"""Exports in ``tests/exports``: copies to convert, and what a converted file says."""

import json
import shutil
from pathlib import Path

import numpy as np
from pycocotools import mask as mask_api

EXPORTS = Path(__file__).parents[1] / 'exports'


def copy_export(name: str, folder: Path) -> Path:
    """A copy of an export in ``folder``."""
    return Path(shutil.copytree(EXPORTS / name, folder / Path(name).name))


def objects_of(ann_file: Path) -> dict[str, list[tuple[str, np.ndarray]]]:
    """Class names and masks by the name of their image, without its folder, in the file's order.

    The file is checked to be what every trainer reads: ids from 1, no crowds, boxes and areas of
    the pixels.
    """
    coco = json.loads(ann_file.read_text())
    names = {category['id']: category['name'] for category in coco['categories']}
    assert list(names) == list(range(1, len(names) + 1))
    images = {image['id']: image for image in coco['images']}
    assert list(images) == list(range(1, len(images) + 1))
    found = {Path(image['file_name']).name: [] for image in images.values()}
    for number, ann in enumerate(coco['annotations'], start=1):
        image = images[ann['image_id']]
        mask = mask_api.decode(ann['segmentation']).astype(bool)
        rows, columns = np.nonzero(mask)
        box = [columns.min(), rows.min(), np.ptp(columns) + 1, np.ptp(rows) + 1]
        assert mask.shape == (image['height'], image['width'])
        assert (ann['id'], ann['iscrowd'], ann['area']) == (number, 0, mask.sum())
        assert ann['bbox'] == box and isinstance(ann['segmentation']['counts'], str)
        found[Path(image['file_name']).name].append((names[ann['category_id']], mask))
    return found


def assert_same_objects(found: list, expected: list) -> None:
    """Equal names and masks, in one order."""
    assert [name for name, _ in found] == [name for name, _ in expected]
    for number, ((_, mask), (_, other)) in enumerate(zip(found, expected, strict=True), start=1):
        assert np.array_equal(mask, other), f'object {number} differs'
