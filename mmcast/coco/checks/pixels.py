"""Reads image files: are they there and whole, how large are they, and which of them are copies?"""

import hashlib
import warnings
from dataclasses import dataclass

import cv2
from PIL import Image

from mmcast.images import upright_size


@dataclass(frozen=True)
class Pixels:
    """What is known of an image file.

    Args:
        size: (height, width) in pixels as a trainer sees it, None if it cannot be read.
        digest: of size and pixels: equal for copies, whatever their file format; None likewise.
        problem: kind of finding and what is wrong, None if nothing is.
    """

    size: tuple[int, int] | None = None
    digest: bytes | None = None
    problem: tuple[str, str] | None = None


def read_pixels(path: str) -> Pixels:
    """Decodes an image to its last byte."""
    try:
        with Image.open(path) as image:
            # Without conversion colours may be numbers of a palette; with it, more than 8 bits
            # would be cut.
            pixels = image if image.mode.startswith(('I', 'F')) else image.convert('RGB')
            digest = hashlib.sha256(
                f'{pixels.mode} {image.size}'.encode() + pixels.tobytes()
            ).digest()
            size = upright_size(image)
    except FileNotFoundError:
        return Pixels(problem=('missing-image', f'there is no file {path}'))
    except Exception as error:
        return Pixels(problem=('unreadable-image', f'{path}: {str(error) or type(error).__name__}'))
    if not cv2.haveImageReader(path):
        return Pixels(
            problem=('unreadable-image', f'{path}: OpenCV, for training, knows no such format')
        )
    return Pixels(size, digest)


def read_many(paths: list[str], _: None) -> dict[str, Pixels]:
    """What is known of several files, by path."""
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')  # of large files and odd metadata, which are no problem
        return {path: read_pixels(path) for path in paths}
