"""Cityscapes at a fraction of its size, in the layout of the download."""

import os
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import cv2
import numpy as np

from mmcast.coco.converters.cityscapes import parts_of
from mmcast.coco.converters.instance_maps import (
    Part,
    convert_all,
    match_parts,
    read_map,
)
from mmcast.errors import CASTError
from mmcast.files import move_aside, write_atomically
from mmcast.images import decode_image, read_image_size
from mmcast.masks.resizing import nearest_centres


def resize_cityscapes(
    root: str | os.PathLike,
    split: str,
    out_root: str | os.PathLike,
    height: int,
    num_workers: int = 0,
    force: bool = False,
    progress: bool = True,
) -> None:
    """Resizes images and instance maps of one split into another folder of the same layout.

    A new pixel is the mean of the area that it covers in an image, and the id under its centre in a
    map. An interrupted call is completed by a second one: the new folder of a split has its name
    when it is whole, and is ``.SPLIT_HEIGHT.partial`` until then.

    Args:
        root: folder that holds ``leftImg8bit/`` and ``gtFine/``; nothing is written there.
        split: 'train' or 'val'.
        out_root: folder of the new ``leftImg8bit/`` and ``gtFine/``.
        height: of the new images in pixels; widths keep the ratio of sides.
        num_workers: processes that resize; 0 resizes here.
        force: move other images of the split in ``out_root`` aside.
        progress: show progress bars.

    Raises:
        CASTError: a folder, image or label map is missing or unreadable, images are smaller than
            ``height``, or ``out_root`` has other images of this split.
    """
    if Path(root).resolve() == Path(out_root).resolve():
        raise CASTError(f'{out_root} is what is to be resized: choose another --out-root')
    if height < 1:
        raise CASTError(f'--height is {height}: give a number of pixels from 1')
    sources, targets = parts_of(root, split), parts_of(out_root, split)
    stems = match_parts(*sources)
    for source, target, resized in zip(sources, targets, (_resize_image, _resize_map)):
        if _is_resized(source, target, stems, height, force):
            continue
        hidden = replace(target, folder=target.folder.with_name(f'.{split}_{height}.partial'))
        resize = partial(_write_resized, source, hidden, height, resized)
        convert_all(resize, stems, str(target.folder), num_workers, progress)
        os.replace(hidden.folder, target.folder)


def _is_resized(source: Part, target: Part, stems: list[str], height: int, force: bool) -> bool:
    """Whether the new files of a part are there already; other ones are refused, or moved aside."""
    if not target.folder.exists():
        return False
    found = sorted(
        path.relative_to(target.folder).as_posix().removesuffix(target.suffix)
        for path in target.folder.glob(target.pattern)
    )
    if found == stems and all(
        read_image_size(target.path(stem)) == _new_size(source.path(stem), height) for stem in stems
    ):
        return True
    if not force:
        raise CASTError(
            f'{target.folder} exists and is not {source.folder} at a height of {height}: delete '
            'it, choose another --out-root, or move it aside with --force'
        )
    print(f'{target.folder} is kept as {move_aside(target.folder)}')
    return False


def _new_size(path: Path, height: int) -> tuple[int, int]:
    """Height and width of a file when it is resized."""
    old_height, old_width = read_image_size(path)
    if old_height < height:
        raise CASTError(f'{path} is {old_height} pixels high: give a --height up to that')
    return height, max(1, round(old_width * height / old_height))


def _write_resized(
    source: Part,
    target: Part,
    height: int,
    resized: Callable[[Path, tuple[int, int]], np.ndarray],
    stem: str,
) -> None:
    """One file, if it is not there yet."""
    path = source.path(stem)
    size = _new_size(path, height)
    if not target.path(stem).exists():
        data = cv2.imencode('.png', resized(path, size))[1].tobytes()
        write_atomically(target.path(stem), data)


def _resize_image(path: Path, size: tuple[int, int]) -> np.ndarray:
    """An image, BGR, at a height and width."""
    pixels = decode_image(path.read_bytes(), path)
    return cv2.resize(pixels, size[::-1], interpolation=cv2.INTER_AREA)


def _resize_map(path: Path, size: tuple[int, int]) -> np.ndarray:
    """A map of instance ids at a height and width."""
    ids = read_map(path).astype(np.uint16)  # older Pillow reads int32, which cv2 writes as 8 bits
    rows, columns = (nearest_centres(np.arange(old), new) for old, new in zip(ids.shape, size))
    return ids[rows][:, columns]
