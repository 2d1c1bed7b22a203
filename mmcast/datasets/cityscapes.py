"""Cityscapes to COCO JSON, by the instance rules of the official scripts."""
from __future__ import annotations

import os
from concurrent.futures import ProcessPoolExecutor
from contextlib import nullcontext
from functools import partial
from pathlib import Path

import numpy as np
from cityscapesscripts.helpers.labels import labels as CITYSCAPES_LABELS
from PIL import Image
from pycocotools import mask as mask_api
from rich.progress import track

from ..errors import CASTError
from ..files import write_json

IMAGE_SUFFIX, INSTANCE_SUFFIX = '_leftImg8bit.png', '_gtFine_instanceIds.png'

# person, rider, car, truck, bus, train, motorcycle, bicycle: those that the instance benchmark evaluates,
# with their label ids as category ids, as in mmdet's CityscapesDataset and converter.
CATEGORIES = tuple(dict(id=label.id, name=label.name, supercategory=label.category)
                   for label in CITYSCAPES_LABELS if label.hasInstances and not label.ignoreInEval)


def convert_cityscapes(root: str | os.PathLike, split: str, out_file: str | os.PathLike, num_workers: int = 0,
                       force: bool = False, progress: bool = True) -> dict:
    """Convert `gtFine` instance id maps of one split to a COCO JSON with RLE masks.

    The rules are those of cityscapesscripts' evaluation: an id of 1000 or more is label id * 1000 + k, one
    instance; a bare label id of a class with instances is a group that the evaluation ignores, here one
    `iscrowd` annotation.

    Args:
        root: Folder that holds `leftImg8bit/` and `gtFine/`.
        split: 'train' or 'val'.
        out_file: Where to write; file names are relative to `leftImg8bit/{split}`, as in mmdet's configs.
        num_workers: Processes that read the maps; 0 reads them here.
        force: Replace an `out_file` with other content.
        progress: Show a progress bar.

    Returns:
        dict: the number of `images`, `instances` and `groups`.

    Raises:
        CASTError: if a folder or label map is missing, a file is unreadable, sizes differ, or `out_file`
            exists with other content.
    """
    image_dir, label_dir = Path(root, 'leftImg8bit', split), Path(root, 'gtFine', split)
    for folder in (image_dir, label_dir):
        if not folder.is_dir():
            raise CASTError(
                f'{folder} is not a folder: unpack leftImg8bit and gtFine of Cityscapes into {root}')
    names = sorted(path.relative_to(image_dir).as_posix() for path in image_dir.glob(f'*/*{IMAGE_SUFFIX}'))
    if not names:
        raise CASTError(f'{image_dir} has no */*{IMAGE_SUFFIX}: unpack leftImg8bit of Cityscapes into {root}')
    convert = partial(convert_image, image_dir, label_dir)
    with ProcessPoolExecutor(num_workers) if num_workers else nullcontext() as pool:
        converted = pool.map(convert, names, chunksize=8) if pool else map(convert, names)
        converted = list(track(converted, f'Converting {split}', len(names), disable=not progress))

    images, annotations = [], []
    for image_id, (image, instances) in enumerate(converted, start=1):
        images.append(dict(id=image_id, **image))
        for instance in instances:
            annotations.append(dict(id=len(annotations) + 1, image_id=image_id, **instance))
    write_json(out_file, dict(info=dict(description=f'Cityscapes {split}, instances'), images=images,
                              annotations=annotations, categories=list(CATEGORIES)), force)
    groups = sum(annotation['iscrowd'] for annotation in annotations)
    return dict(images=len(images), instances=len(annotations) - groups, groups=groups)


def convert_image(image_dir: Path, label_dir: Path, name: str) -> tuple[dict, list[dict]]:
    """The COCO entries (without ids) of the image `name` and of its instances, in the order of their ids."""
    label_path = label_dir / name.replace(IMAGE_SUFFIX, INSTANCE_SUFFIX)
    if not label_path.exists():
        raise CASTError(
            f'{label_path} is missing for image {image_dir / name}: unpack gtFine, or remove the image')
    ids = read_instance_ids(label_path)
    height, width = ids.shape
    image_size = read_image_size(image_dir / name)
    if image_size != (height, width):
        raise CASTError(
            f'{image_dir / name} is {image_size} but {label_path} is {(height, width)} (height, width): '
            'take both from the same download')
    instances = [annotation(ids == value, int(value)) for value in np.unique(ids)
                 if label_of(int(value)) in {category['id'] for category in CATEGORIES}]
    return dict(file_name=name, height=height, width=width), instances


def label_of(instance_id: int) -> int:
    """The label id behind a value of an instance id map."""
    return instance_id // 1000 if instance_id >= 1000 else instance_id


def annotation(mask: np.ndarray, instance_id: int) -> dict:
    """The COCO annotation of one region, mask (H, W) bool."""
    rle = mask_api.encode(np.asfortranarray(mask, dtype=np.uint8))
    return dict(category_id=label_of(instance_id), iscrowd=int(instance_id < 1000), instance_id=instance_id,
                area=int(mask_api.area(rle)), bbox=mask_api.toBbox(rle).tolist(),
                segmentation=dict(size=list(mask.shape), counts=rle['counts'].decode()))


def read_instance_ids(path: Path) -> np.ndarray:
    """The instance id map (H, W), 16 bit."""
    try:
        with Image.open(path) as image:
            ids = np.asarray(image)
    except OSError as error:
        raise unreadable(path) from error
    if ids.ndim != 2:
        raise CASTError(f'{path} is a colour image, not a 16 bit map of instance ids: take it from gtFine')
    return ids


def read_image_size(path: Path) -> tuple[int, int]:
    """Height and width of a PNG whose checksums are right; the pixels need not be decoded for that."""
    try:
        with Image.open(path) as image:
            width, height = image.size
            image.verify()
    except (OSError, SyntaxError) as error:  # Pillow raises SyntaxError for a broken PNG
        raise unreadable(path) from error
    return height, width


def unreadable(path: Path) -> CASTError:
    return CASTError(f'{path} is not a readable PNG: copy, unpack or generate it again')
