"""What the header of an image file says: size, orientation, depth. Pixels are not decoded."""

import io
import os
import struct
import threading
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from mmcast.errors import CASTError, reason_of

if TYPE_CHECKING:  # whoever runs an ONNX file on arrays needs no Pillow
    from PIL.Image import Image

#: Pixels of the largest image that is read: OpenCV's limit, set by OpenCV's variable.
MAX_PIXELS_VARIABLE = 'OPENCV_IO_MAX_IMAGE_PIXELS'
_DEFAULT_MAX_PIXELS = 2**30
_ORIENTATION = 0x0112
_WIDTH, _HEIGHT, _BITS, _PLANAR, _SAMPLE_FORMAT = 256, 257, 258, 284, 339  # tags of TIFF
_PNG = b'\x89PNG\r\n\x1a\n'
# Pillow's own limit is a global of the whole process.
_PILLOW = threading.Lock()


@dataclass(frozen=True)
class Header:
    """What is known of an image before it is decoded.

    Args:
        stored: height and width in pixels, as the file stores them.
        orientation: of EXIF or TIFF, 1 (upright) to 8.
        format: Pillow's name, such as 'JPEG'.
        deep: whether values have more than 8 bits, or are floating-point numbers.
        planar: whether a TIFF stores each colour apart.
    """

    stored: tuple[int, int]
    orientation: int = 1
    format: str = ''
    deep: bool = False
    planar: bool = False

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the upright picture."""
        return self.stored[::-1] if self.orientation >= 5 else self.stored


def max_pixels() -> int:
    """The most pixels that an image may have."""
    given = os.environ.get(MAX_PIXELS_VARIABLE, '')
    return int(given) if given.isdecimal() else _DEFAULT_MAX_PIXELS


def open_image(file: str | os.PathLike | BinaryIO) -> 'Image':
    """Pillow's image, of any size: its limit of 179 megapixels is below satellite images.

    Raises:
        OSError, SyntaxError, ValueError: as Pillow does for what is no image.
    """
    from PIL import Image

    with _PILLOW:
        limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
        try:
            return Image.open(file)
        finally:
            Image.MAX_IMAGE_PIXELS = limit


def read_header(path: str | os.PathLike, data: bytes | None = None) -> Header:
    """The header of an image file.

    Args:
        path: the file, named in errors.
        data: its content, if it was read already.

    Raises:
        CASTError: it is missing, no image, or larger than :func:`max_pixels`.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter('ignore')  # of odd metadata
            with open(path, 'rb') if data is None else io.BytesIO(data) as file:
                header = _parse(file)
    except CASTError:
        raise
    except Exception as error:  # Pillow's plugins raise what they like on damaged files
        raise CASTError(
            f'image {readable(path)} cannot be read ({_reason(error)}); replace it, or take it out'
        ) from error
    height, width = header.stored
    if height * width > max_pixels():
        raise CASTError(
            f'image {readable(path)} has {width}x{height} pixels, more than the limit of '
            f'{max_pixels()}: cut it into tiles, or set {MAX_PIXELS_VARIABLE}'
        )
    return header


def read_image_size(path: str | os.PathLike) -> tuple[int, int]:
    """Height and width in pixels of an image file, upright, see :func:`read_header`."""
    return read_header(path).size


def _parse(file: BinaryIO) -> Header:
    image = open_image(file)
    kind = image.format or ''
    if kind == 'TIFF':
        tags = image.tag_v2  # type: ignore[attr-defined]
        bits, formats = (_numbers(tags.get(tag, 1)) for tag in (_BITS, _SAMPLE_FORMAT))
        return Header(
            # Some versions of Pillow turn `size`, the tags stay.
            (int(tags[_HEIGHT]), int(tags[_WIDTH])),
            _valid(tags.get(_ORIENTATION)),
            kind,
            max(bits) > 8 or set(formats) != {1},
            tags.get(_PLANAR) == 2,
        )
    if kind == 'PNG':
        exif, depth = _read_png(file)
    else:
        exif, depth = image.info.get('exif'), 8
    return Header(image.size[::-1], _orientation(exif), kind, depth > 8)


def _numbers(value: object) -> tuple[int, ...]:
    return tuple(value) if isinstance(value, tuple) else (int(value),)  # type: ignore[call-overload]


def _read_png(file: BinaryIO) -> tuple[bytes | None, int]:
    """EXIF data and bits per value; Pillow would decode all pixels to look for EXIF behind them."""
    file.seek(len(_PNG))
    exif, depth = None, 8
    while len(start := file.read(8)) == 8:
        length, name = struct.unpack('>I4s', start)
        if name == b'IHDR':
            depth = file.read(9)[8]
            length -= 9
        elif name == b'eXIf':
            exif = file.read(length)
            length = 0
        elif name == b'IEND':
            break
        file.seek(length + 4, os.SEEK_CUR)
    return exif, depth


def _orientation(exif: bytes | None) -> int:
    """EXIF's orientation. XMP may name one too, which neither OpenCV nor browsers follow."""
    if not exif:
        return 1
    from PIL.Image import Exif

    tags = Exif()
    try:
        tags.load(exif)
        return _valid(tags.get(_ORIENTATION))
    except Exception:  # damaged metadata of an intact picture
        return 1


def _valid(orientation: object) -> int:
    return orientation if isinstance(orientation, int) and 1 <= orientation <= 8 else 1


def _reason(error: Exception) -> str:
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return 'unknown or damaged format'


def readable(path: str | os.PathLike) -> str:
    """A path for a message of one line, quoted where it has unprintable characters."""
    text = os.fspath(Path(path))
    return text if text.isprintable() else ascii(text)


def problem_of(path: str | os.PathLike, error: Exception) -> str:
    """An error of an image as one line, without the name of the file, for a list that has it."""
    return reason_of(error).removeprefix(f'image {readable(path)} ')
