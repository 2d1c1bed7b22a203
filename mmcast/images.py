"""The size of an image as training sees it, from its header alone."""

import os
from pathlib import Path

from PIL import Image

from mmcast.errors import CASTError

_EXIF_ORIENTATION = 0x0112


def upright_size(image: Image.Image) -> tuple[int, int]:
    """Height and width in pixels after the turn that EXIF asks for; OpenCV, which loads images,
    makes it.
    """
    turned = image.getexif().get(_EXIF_ORIENTATION) in (5, 6, 7, 8)
    return image.size if turned else image.size[::-1]


def read_image_size(path: str | os.PathLike) -> tuple[int, int]:
    """Height and width in pixels of an image file, upright; its pixels are not decoded.

    Raises:
        CASTError: it is missing or no image.
    """
    try:
        with Image.open(path) as image:
            return upright_size(image)
    except OSError as error:
        raise CASTError(f'{path} is not a readable image: remove or replace it') from error


IMAGE_SUFFIXES = (
    '.bmp',
    '.jpeg',
    '.jpg',
    '.png',
    '.tif',
    '.tiff',
    '.webp',
)  # what is an image in a folder


def image_files(folder: str | os.PathLike) -> list[Path]:
    """All image files of a folder, at any depth, in the order of their paths; none where there is
    no folder.
    """
    return sorted(path for path in Path(folder).rglob('*') if path.suffix.lower() in IMAGE_SUFFIXES)
