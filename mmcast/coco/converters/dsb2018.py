"""Nuclei of the 2018 Data Science Bowl (BBBC038) to COCO JSON, from one binary mask file per
nucleus.
"""

from __future__ import annotations

import hashlib
import io
import os
from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image

from mmcast.coco.converters.instance_maps import (
    annotation,
    coco_of,
    convert_all,
    image_entry,
    read_map,
    unreadable,
)
from mmcast.errors import CASTError
from mmcast.files import write_atomically, write_json_files
from mmcast.images import open_image, read_image_size

TRAIN_FOLDER = 'stage1_train'
NUCLEUS = 1  # the id of the one category
CATEGORIES = (dict(id=NUCLEUS, name='nucleus'),)
# Height and width of two thirds of the images, the small ones, which configs/cast_dsb2018.py is
# for.
SIZES = ((256, 256), (256, 320))
VAL_PERCENT = 25
_NAME_LENGTH = 16  # hexadecimal digits of an id, of 64, that name its image
_MODES = ('RGB', 'RGBA', 'L', 'LA', 'P')


@dataclass(frozen=True)
class Nuclei:
    """The COCO entries, without ids, of an image and its nuclei, and what a person should know."""

    image: dict
    annotations: list[dict]
    empty_masks: int
    overlap: int  # pixels that more than one nucleus has


def convert_dsb2018(
    source: str | os.PathLike,
    out_dir: str | os.PathLike,
    val_percent: int = VAL_PERCENT,
    sizes: Collection[tuple[int, int]] | None = SIZES,
    num_workers: int = 0,
    force: bool = False,
    progress: bool = True,
) -> dict:
    """Convert `ID/images/ID.png` and `ID/masks/*.png` to `images/` and two COCO JSONs with RLE
    masks.

    An image belongs to val if the SHA-256 of its id modulo 100 is less than `val_percent`: no list
    and no seed, and an image stays where it is when others are added or left out. Masks are taken
    as they are: pixels that two nuclei share stay in both and are counted; a mask without any pixel
    is left out and counted.

    Args:
        source: Folder of the ids, or one with it as `stage1_train/`; nothing is written there.
        out_dir: Folder to write `images/` (RGB, named by the first 16 digits of their ids) and
            `annotations/instances_{train,val}.json` to.
        val_percent: Percentage of the images for validation, 1 to 99.
        sizes: Heights and widths in pixels of the images to convert; None for all.
        num_workers: Processes that read the masks; 0 reads them here.
        force: Replace files with other content.
        progress: Show a progress bar.

    Returns:
        dict: `train` and `val`, each a dict of the number of `images` and `instances`;
            `other_sizes`, the images left out; `empty_masks`; `overlapping`, the images in which
            nuclei share pixels.

    Raises:
        CASTError: if a folder, image or mask is missing or unreadable, a mask is not binary or of
            another size than its image, a split would be empty, or a file exists with other
            content.
    """
    folder = _train_folder(Path(source))
    ids = _ids(folder)
    chosen = _of_size(folder, ids, sizes)
    splits = _split(chosen, val_percent, folder)
    # All is read and checked before anything is written.
    read, write = (
        partial(convert_dsb2018_image, folder),
        partial(write_rgb, folder, Path(out_dir, 'images'), force),
    )
    nuclei = convert_all(read, chosen, 'DSB2018, masks', num_workers, progress)
    convert_all(write, chosen, 'DSB2018, images', num_workers, progress)
    by_id = dict(zip(chosen, nuclei, strict=True))
    files = {
        split: coco_of(
            [(by_id[name].image, by_id[name].annotations) for name in names],
            CATEGORIES,
            f'DSB2018 {split}, nuclei',
        )
        for split, names in splits.items()
    }
    annotations = Path(out_dir, 'annotations')
    write_json_files(
        {annotations / f'instances_{split}.json': coco for split, coco in files.items()}, force
    )
    return {
        split: dict(images=len(coco['images']), instances=len(coco['annotations']))
        for split, coco in files.items()
    } | dict(
        other_sizes=len(ids) - len(chosen),
        empty_masks=sum(image.empty_masks for image in nuclei),
        overlapping=sum(image.overlap > 0 for image in nuclei),
    )


def in_val(image_id: str, val_percent: int = VAL_PERCENT) -> bool:
    """Whether an image is for validation, by its id alone."""
    return int(hashlib.sha256(image_id.encode()).hexdigest(), 16) % 100 < val_percent


def _split(ids: list[str], val_percent: int, folder: Path) -> dict[str, list[str]]:
    if not 1 <= val_percent <= 99:
        raise CASTError(f'{val_percent} % for validation: give a whole number from 1 to 99')
    splits: dict[str, list[str]] = dict(train=[], val=[])
    for name in ids:
        splits['val' if in_val(name, val_percent) else 'train'].append(name)
    for split, names in splits.items():
        if not names:
            raise CASTError(
                f'{folder}: none of its {len(ids)} images falls into {split}: choose another '
                '--val-percent'
            )
    return splits


def image_path(folder: Path, image_id: str) -> Path:
    return folder / image_id / 'images' / f'{image_id}.png'


def _train_folder(source: Path) -> Path:
    inner = source / TRAIN_FOLDER
    return inner if inner.is_dir() else source


def _ids(folder: Path) -> list[str]:
    """Sorted names of the folders of images, every one with its image.

    Raises:
        CASTError: there are none, an image is missing, or two would have one file name.
    """
    unpack = 'unpack stage1_train.zip of BBBC038'
    if not folder.is_dir():
        raise CASTError(f'{folder} is missing: {unpack} there')
    # Archives made on a Mac bring __MACOSX along.
    ids = sorted(
        path.name for path in folder.iterdir() if path.is_dir() and path.name[0] not in '._'
    )
    if not any((folder / name / 'masks').is_dir() for name in ids):
        raise CASTError(f'{folder} holds no ID/masks: {unpack} there (the test sets have no masks)')
    for name in ids:
        if not image_path(folder, name).is_file():
            raise CASTError(f'{image_path(folder, name)} is missing: {unpack} again')
    same = [name for name, count in Counter(map(_file_name, ids)).items() if count > 1]
    if same:
        raise CASTError(
            f'{folder}: two ids begin with {Path(same[0]).stem}, of which the file name is made: '
            'rename a folder and its image'
        )
    return ids


def _file_name(image_id: str) -> str:
    return image_id[:_NAME_LENGTH] + '.png'


def _check_mode(path: Path) -> None:
    with open_image(path) as image:
        if image.mode not in _MODES:
            raise CASTError(f'{path} is not an 8 bit image (it is {image.mode}): convert it to RGB')


def _of_size(folder: Path, ids: list[str], sizes: Collection[tuple[int, int]] | None) -> list[str]:
    if sizes is None:
        return ids
    found = {name: read_image_size(image_path(folder, name)) for name in ids}
    chosen = [name for name in ids if found[name] in sizes]
    if not chosen:
        (height, width), _ = Counter(found.values()).most_common(1)[0]
        wanted = ' or '.join(f'{height}x{width}' for height, width in sizes)
        raise CASTError(
            f'{folder}: no image is {wanted} (height x width), most are {height}x{width}: use '
            '--all-sizes'
        )
    return chosen


def convert_dsb2018_image(folder: Path, image_id: str) -> Nuclei:
    """What is in the image `image_id` and its masks, nuclei in the order of their files' names."""
    masks = sorted((folder / image_id / 'masks').glob('*.png'))
    if not masks:
        raise CASTError(
            f'{folder / image_id / "masks"} is missing or holds no *.png: unpack stage1_train.zip '
            f'of BBBC038 again, or remove {folder / image_id}'
        )
    image: dict = {}
    annotations: list[dict] = []
    covered = np.zeros((), int)
    for path in masks:
        mask = read_binary_mask(path)
        if not image or mask.shape != (image['height'], image['width']):  # which is an error
            source = image_path(folder, image_id)
            image = image_entry(source, _file_name(image_id), path, mask.shape)
        covered = covered + mask
        if mask.any():
            annotations.append(annotation(mask, NUCLEUS, len(annotations) + 1))
    _check_mode(image_path(folder, image_id))
    return Nuclei(
        image, annotations, len(masks) - len(annotations), int(np.count_nonzero(covered > 1))
    )


def read_binary_mask(path: Path) -> np.ndarray:
    """The pixels of one nucleus, (H, W) bool: those of the value other than 0, whatever it is."""
    pixels = read_map(path)
    values = np.unique(pixels)
    if pixels.ndim != 2 or len(values) > 2 or (len(values) == 2 and values[0] != 0):
        raise CASTError(
            f'{path} is not a binary mask of one nucleus (a grey PNG of 0 and one other value): '
            'take it from stage1_train.zip of BBBC038'
        )
    return pixels > 0


def write_rgb(folder: Path, out_dir: Path, force: bool, image_id: str) -> None:
    """Writes an image without its alpha channel, if it is not there yet."""
    path, out_file = image_path(folder, image_id), out_dir / _file_name(image_id)
    try:
        with open_image(path) as image:
            pixels = np.asarray(image.convert('RGB'))
    except (OSError, SyntaxError) as error:
        raise unreadable(path) from error
    if out_file.exists():
        if _same_pixels(out_file, pixels):
            return
        if not force:
            raise CASTError(
                f'{out_file} exists with different content: delete it, name another folder or use '
                '--force'
            )
    encoded = io.BytesIO()
    Image.fromarray(pixels).save(encoded, 'PNG')
    write_atomically(out_file, encoded.getvalue())


def _same_pixels(path: Path, pixels: np.ndarray) -> bool:
    try:
        return np.array_equal(read_map(path), pixels)
    except CASTError:
        return False
