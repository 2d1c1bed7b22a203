"""ADE20K's 100 instance classes to COCO JSON, from the annotations of the Places Challenge 2017."""

import os
from functools import partial
from pathlib import Path

import numpy as np

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

NUM_CLASSES = 100
FOLDERS = dict(train='training', val='validation')


def categories() -> list[dict]:
    """COCO's categories by the official class ids, 1 (bed) to 100 (flag), with mmdet's names of
    them.
    """
    from mmdet.datasets import ADE20KInstanceDataset  # seconds that --help does not have

    return [
        dict(id=number, name=name)
        for number, name in enumerate(ADE20KInstanceDataset.METAINFO['classes'], start=1)
    ]


def convert_ade20k(
    root: str | os.PathLike,
    split: str,
    out_file: str | os.PathLike,
    num_workers: int = 0,
    force: bool = False,
    progress: bool = True,
) -> dict:
    """Convert `annotations_instance` of one split to a COCO JSON with RLE masks.

    The rules are those of the challenge (CSAILVision/placeschallenge, instancesegmentation): red is
    the class, 1 to 100, green the instance, unique in its image whatever its class; green 0 is no
    instance.

    Args:
        root: Folder that holds `images/` and `annotations_instance/`.
        split: 'train' or 'val', official folders `training` and `validation`.
        out_file: Where to write; file names are relative to `images/training` or
            `images/validation`.
        num_workers: Processes that read the maps; 0 reads them here.
        force: Replace an `out_file` with other content.
        progress: Show a progress bar.

    Returns:
        dict: the number of `images`, `instances` and `groups` (ADE20K has none).

    Raises:
        CASTError: if a folder, image or map is missing, a file is unreadable, sizes differ, an
            instance has no class or several, or `out_file` exists with other content.
    """
    images = Part(
        Path(root, 'images', FOLDERS[split]),
        '*.jpg',
        f'ADEChallengeData2016.zip so that {Path(root, "images")} is its folder images',
    )
    maps = Part(
        Path(root, 'annotations_instance', FOLDERS[split]),
        '*.png',
        f'annotations_instance.tar of the Places Challenge 2017 into {root}',
    )
    return convert_maps(
        partial(convert_ade20k_image, images, maps),
        match_parts(images, maps),
        categories(),
        out_file,
        f'ADE20K {split}, instances',
        num_workers,
        force,
        progress,
    )


def prepare_ade20k(
    root: str | os.PathLike,
    out_dir: str | os.PathLike,
    percent: float = 10,
    seed: int = 0,
    num_workers: int = 8,
) -> dict:
    """The data step of a pipeline: converts what is not converted yet and selects the labeled
    images.

    Returns:
        As :func:`prepare_coco_folder`.
    """
    convert_missing(convert_ade20k, root, num_workers)
    return prepare_coco_folder(
        root, out_dir, percent, seed, train_images='images/training', val_images='images/validation'
    )


def convert_ade20k_image(images: Part, maps: Part, stem: str) -> tuple[dict, list[dict]]:
    """The COCO entries (without ids) of the image `stem` and of its instances, in the order of
    their ids.
    """
    path = maps.path(stem)
    pixels = read_map(path)
    if pixels.ndim != 3:
        raise CASTError(
            f'{path} is not a colour PNG of classes and instances: take it from '
            'annotations_instance.tar (annotations/ of ADEChallengeData2016 is something else)'
        )
    image = image_entry(images.path(stem), stem + images.suffix, path, pixels.shape[:2])
    classes, ids = pixels[..., 0], pixels[..., 1]
    return image, [
        annotation(ids == value, class_of(classes[ids == value], value, path), value)
        for value in np.unique(ids).tolist()
        if value > 0
    ]


def class_of(classes: np.ndarray, instance_id: int, path: Path) -> int:
    """The one class, 1 to 100, among the pixels `classes` of an instance."""
    found = np.unique(classes).tolist()
    if len(found) > 1 or not 1 <= found[0] <= NUM_CLASSES:
        raise CASTError(
            f'{path}: instance {instance_id} has class {", ".join(map(str, found))}, not one of 1 '
            f'to {NUM_CLASSES}: unpack annotations_instance.tar again'
        )
    return found[0]
