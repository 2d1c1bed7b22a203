"""Pixels of image files: one upright picture in 8-bit colour for training, pseudo-labels and
prediction.
"""

import io
import os

import numpy as np

from mmcast.errors import CASTError
from mmcast.images.headers import Header, open_image, read_header, readable
from mmcast.images.value_range import ValueRange, to_uint8
from mmcast.optional import require

_FIX = 'replace it, or take it out'


def read_image(path: str | os.PathLike, value_range: ValueRange = None) -> np.ndarray:
    """The picture of an image file, (H, W, 3) of uint8, RGB, contiguous.

    It is turned as EXIF says. Grey is repeated, an alpha channel dropped, CMYK and palettes become
    colours.

    Args:
        path: the file.
        value_range: which values become black and white where they have more than 8 bits, see
            :func:`~mmcast.images.value_range.parse_value_range`; None refuses such images.

    Raises:
        CASTError: the file is missing, damaged or too large, or has more than 8 bits and there is
            no ``value_range``.
    """
    return np.ascontiguousarray(decode_image(_read(path), path, value_range)[..., ::-1])


def decode_image(
    data: bytes, path: str | os.PathLike, value_range: ValueRange = None
) -> np.ndarray:
    """Like :func:`read_image`, of a file's content, and in OpenCV's order of colours, BGR."""
    pixels = to_uint8(decode_values(data, path), value_range, f'image {readable(path)}')
    if pixels.ndim == 3:
        return pixels
    cv2 = require('cv2')
    return cv2.cvtColor(pixels, cv2.COLOR_GRAY2BGR)


def decode_values(data: bytes, path: str | os.PathLike) -> np.ndarray:
    """The upright values of a file's content as they are stored, (H, W) or (H, W, 3), BGR.

    Raises:
        CASTError: it is damaged or too large, or OpenCV does not read it.
    """
    header = read_header(path, data)
    if header.deep and header.planar:
        raise CASTError(
            f'image {readable(path)} stores its colours apart (PlanarConfiguration 2) with more '
            'than 8 bits, which OpenCV mixes up; save it with interleaved colours'
        )
    pixels = turn_upright(_decode(data, path, header), header)
    if pixels.shape[:2] != header.size:
        raise CASTError(
            f'image {readable(path)} cannot be read (its header says {header.size[1]}x'
            f'{header.size[0]}, OpenCV reads {pixels.shape[1]}x{pixels.shape[0]}); {_FIX}'
        )
    return pixels


def turn_upright(pixels: np.ndarray, header: Header) -> np.ndarray:
    """The upright picture of pixels as a file stores them.

    Pillow turns a TIFF itself, and so does OpenCV one of more than 8 bits. OpenCV would turn JPEG
    and PNG, but never WebP; hence all three are turned here.
    """
    if header.orientation == 1 or header.format == 'TIFF':
        return pixels
    if header.orientation >= 5:
        pixels = pixels.swapaxes(0, 1)
    if header.orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    if header.orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    return np.ascontiguousarray(pixels)


def check_size(
    path: str | os.PathLike,
    found: tuple[int, int],
    stated: tuple[int, int],
    label_file: str | os.PathLike = 'its label file',
) -> None:
    """Compares the size of an upright picture with what its label file says.

    Args:
        path: the file.
        found: height and width in pixels.
        stated: height and width in the label file.
        label_file: which one that is, for the message.

    Raises:
        CASTError: they differ; tells whether the labels are those of a turned picture.
    """
    if tuple(found) != tuple(stated):
        raise CASTError(
            f'image {readable(path)} is {found[1]}x{found[0]}, {label_file} says '
            f'{stated[1]}x{stated[0]}: {explain_sizes(path, found, stated)}'
        )


def explain_sizes(path: str | os.PathLike, found: tuple[int, int], stated: tuple[int, int]) -> str:
    """Why the size of a picture may differ from that of its label file, and what to do."""
    if tuple(found[::-1]) != tuple(stated):
        return (
            'it was resized after it was labeled, or is another image; restore it, or label this '
            'one'
        )
    orientation = _orientation(path)
    if orientation >= 5:
        return (
            f'EXIF orientation {orientation} turns the image, and the labels are those of the '
            'unturned one; remove the orientation from the file, or label the upright image'
        )
    return (
        'the labels are those of the image turned by 90 degrees, and the file has no EXIF '
        'orientation that turns it; turn the image as it was labeled, or label this one'
    )


def _orientation(path: str | os.PathLike) -> int:
    try:
        return read_header(path).orientation
    except CASTError:  # of a remote file, which is no path here
        return 1


def _read(path: str | os.PathLike) -> bytes:
    try:
        with open(path, 'rb') as file:
            return file.read()
    except (OSError, ValueError) as error:  # ValueError: a null character in the name
        reason = getattr(error, 'strerror', None) or str(error)
        raise CASTError(f'image {readable(path)} cannot be read ({reason}); {_FIX}') from error


def _decode(data: bytes, path: str | os.PathLike, header: Header) -> np.ndarray:
    cv2 = require('cv2')
    if header.format == 'TIFF' and header.orientation != 1 and not header.deep:
        with open_image(io.BytesIO(data)) as image:  # OpenCV mirrors each tile in itself
            return np.asarray(image.convert('RGB'))[..., ::-1]
    flags = cv2.IMREAD_ANYCOLOR | cv2.IMREAD_ANYDEPTH | cv2.IMREAD_IGNORE_ORIENTATION
    reason = f'OpenCV finds it damaged, or does not know this kind of {header.format}'
    try:
        pixels = cv2.imdecode(np.frombuffer(data, np.uint8), flags)
    except cv2.error as error:
        pixels, reason = None, error.err or reason
    if pixels is None:
        raise CASTError(f'image {readable(path)} cannot be read ({reason}); {_FIX}')
    return pixels
