"""Cityscapes to COCO JSON, by the instance rules of the official scripts."""

import os
from functools import partial
from pathlib import Path

import numpy as np
from cityscapesscripts.helpers.labels import labels as CITYSCAPES_LABELS

from mmcast.coco.converters.instance_maps import (
    Part,
    annotation,
    convert_maps,
    convert_missing,
    image_entry,
    match_parts,
    read_map,
)
from mmcast.coco.folder import prepare_coco_folder
from mmcast.errors import CASTError

IMAGE_SUFFIX, INSTANCE_SUFFIX = '_leftImg8bit.png', '_gtFine_instanceIds.png'

# person, rider, car, truck, bus, train, motorcycle, bicycle: those that the instance benchmark
# evaluates, with their label ids as category ids, as in mmdet's CityscapesDataset and converter.
CATEGORIES = tuple(
    dict(id=label.id, name=label.name, supercategory=label.category)
    for label in CITYSCAPES_LABELS
    if label.hasInstances and not label.ignoreInEval
)


def convert_cityscapes(
    root: str | os.PathLike,
    split: str,
    out_file: str | os.PathLike,
    num_workers: int = 0,
    force: bool = False,
    progress: bool = True,
) -> dict:
    """Convert `gtFine` instance id maps of one split to a COCO JSON with RLE masks.

    The rules are those of cityscapesscripts' evaluation: an id of 1000 or more is label id * 1000 +
    k, one instance; a bare label id of a class with instances is a group that the evaluation
    ignores, here one `iscrowd` annotation.

    Args:
        root: Folder that holds `leftImg8bit/` and `gtFine/`.
        split: 'train' or 'val'; the labels of 'test' are not public.
        out_file: Where to write; file names are relative to `leftImg8bit/{split}`, as in mmdet's
            configs.
        num_workers: Processes that read the maps; 0 reads them here.
        force: Replace an `out_file` with other content.
        progress: Show a progress bar.

    Returns:
        dict: the number of `images`, `instances` and `groups`.

    Raises:
        CASTError: if a folder, image or label map is missing, a file is unreadable, sizes differ,
            or `out_file` exists with other content.
    """
    images, maps = parts_of(root, split)
    return convert_maps(
        partial(convert_cityscapes_image, images, maps),
        match_parts(images, maps),
        CATEGORIES,
        out_file,
        f'Cityscapes {split}, instances',
        num_workers,
        force,
        progress,
    )


def parts_of(root: str | os.PathLike, split: str) -> tuple[Part, Part]:
    """The images and the instance id maps of a split."""
    images = Part(
        Path(root, 'leftImg8bit', split),
        f'*/*{IMAGE_SUFFIX}',
        f'leftImg8bit_trainvaltest.zip of Cityscapes into {root}',
    )
    maps = Part(
        Path(root, 'gtFine', split),
        f'*/*{INSTANCE_SUFFIX}',
        f'gtFine_trainvaltest.zip of Cityscapes into {root}',
    )
    return images, maps


def prepare_cityscapes(
    root: str | os.PathLike,
    out_dir: str | os.PathLike,
    percent: float = 10,
    seed: int = 0,
    num_workers: int = 8,
) -> dict:
    """The data step of a pipeline: converts what is not converted yet and selects the labeled
    images.

    Returns:
        As :func:`prepare_coco_folder`, and ``val_masks``, the folder of what cityscapesscripts'
        metric compares with.
    """
    convert_missing(convert_cityscapes, root, num_workers)
    paths = prepare_coco_folder(
        root, out_dir, percent, seed, train_images='leftImg8bit/train', val_images='leftImg8bit/val'
    )
    return dict(paths, val_masks=str(Path(root, 'gtFine/val')))


def convert_cityscapes_image(images: Part, maps: Part, stem: str) -> tuple[dict, list[dict]]:
    """The COCO entries (without ids) of the image `stem` and of its instances, in the order of
    their ids.
    """
    path = maps.path(stem)
    ids = read_map(path)
    if ids.ndim != 2 or ids.dtype == np.uint8:  # in 8 bit there is no room for instances
        raise CASTError(
            f'{path} is not a 16 bit map of instance ids: take it from gtFine_trainvaltest.zip'
        )
    image = image_entry(images.path(stem), stem + IMAGE_SUFFIX, path, ids.shape)
    evaluated = {category['id'] for category in CATEGORIES}
    return image, [
        annotation(ids == value, label_of(value), value, iscrowd=value < 1000)
        for value in np.unique(ids).tolist()
        if label_of(value) in evaluated
    ]


def label_of(instance_id: int) -> int:
    """The label id behind a value of an instance id map."""
    return instance_id // 1000 if instance_id >= 1000 else instance_id
