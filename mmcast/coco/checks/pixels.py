"""Reads image files: are they there and whole, how large are they, and which of them are copies?"""

import hashlib
import io
import warnings
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mmcast.errors import CASTError
from mmcast.images import (
    Header,
    decode_values,
    describe_values,
    open_image,
    read_header,
    turn_upright,
)

# What OpenCV, for training, reads as Pillow does where values have 8 bits.
_ALIKE = ('BMP', 'JPEG', 'PNG', 'WEBP')


@dataclass(frozen=True)
class Pixels:
    """What is known of an image file.

    Args:
        size: (height, width) in pixels as a trainer sees it, None if it cannot be read.
        digest: of size and pixels: equal for copies, whatever their file format; None likewise.
        problem: kind of finding and what is wrong, None if nothing is.
        deep: type and range of the values where they are not of 8 bits, else empty.
        turned: the EXIF or TIFF orientation, if it turns or mirrors the picture without changing
            its size; else 1.
    """

    size: tuple[int, int] | None = None
    digest: bytes | None = None
    problem: tuple[str, str] | None = None
    deep: str = ''
    turned: int = 1


def read_pixels(path: str) -> Pixels:
    """Decodes an image to its last byte."""
    try:
        data = Path(path).read_bytes()
        header = read_header(path, data)
        pixels = _decode_whole(data, header)
        if header.deep or header.format not in _ALIKE:
            values = decode_values(data, path)
            pixels = values if header.deep else pixels
    except FileNotFoundError:
        return Pixels(problem=('missing-image', f'there is no file {path}'))
    except CASTError as error:
        return Pixels(problem=('unreadable-image', str(error)))
    except Exception as error:  # Pillow's plugins raise what they like on damaged files
        return Pixels(problem=('unreadable-image', f'{path}: {str(error) or type(error).__name__}'))
    digest = hashlib.sha256(f'{pixels.dtype} {pixels.shape}'.encode() + pixels.tobytes()).digest()
    return Pixels(
        header.size,
        digest,
        deep=describe_values(pixels) if header.deep else '',
        turned=header.orientation if header.size == header.stored else 1,
    )


def read_many(paths: list[str], _: None) -> dict[str, Pixels]:
    """What is known of several files, by path."""
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')  # of large files and odd metadata, which are no problem
        return {path: read_pixels(path) for path in paths}


def _decode_whole(data: bytes, header: Header) -> np.ndarray:
    """The upright picture as Pillow reads it, which always complains of a file cut short."""
    with open_image(io.BytesIO(data)) as image:
        # Without conversion colours may be numbers of a palette.
        return turn_upright(np.asarray(image if header.deep else image.convert('RGB')), header)
