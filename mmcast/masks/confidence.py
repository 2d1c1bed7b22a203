"""A teacher's confidence in every pixel of an image, in a few kilobytes: what may weight the mask
loss of L_semi.

A mask is right in its middle and guessed at its border. Where a teacher's mask probability p is
near 0.5, a student should not be punished for another opinion.
"""

import base64
import math
import struct
import zlib
from collections.abc import Sequence

import cv2
import numpy as np

from mmcast.errors import CASTError

LEVELS = 15  # 0 is no confidence, LEVELS is 1: more steps cost bytes and say nothing
LONGEST_SIDE = 512  # pixels of a map; those of larger images are coarser
_PNG = b'\x89PNG\r\n\x1a\n'
_GREY = [8, 0, 0, 0, 0]  # bits, colour type, compression, filter, interlacing


def map_size(size: Sequence[int]) -> tuple[int, int]:
    """Height and width of the map of an image of ``size``."""
    stride = math.ceil(max(size) / LONGEST_SIDE)
    return math.ceil(size[0] / stride), math.ceil(size[1] / stride)


def confidence_map(probabilities: np.ndarray, scores: np.ndarray) -> np.ndarray:
    """1 - max_i s_i (1 - abs(2 p_i - 1)) at every pixel, over instances i.

    An instance that the teacher believes in makes its uncertain pixels uncertain; one of a low
    score hardly does.

    Args:
        probabilities: (N, h, w) of uint8, 255 is 1: how likely a pixel is in each mask.
        scores: (N,) in [0, 1].

    Returns:
        (h, w) of uint8 from 0 to :data:`LEVELS`.
    """
    doubt = np.zeros(probabilities.shape[1:], np.float32)
    for probability, score in zip(probabilities, scores):
        doubt = np.maximum(doubt, score * (1 - np.abs(probability * np.float32(2 / 255) - 1)))
    return np.rint(LEVELS * (1 - doubt)).astype(np.uint8)


def encode_map(levels: np.ndarray) -> str:
    """A map as text: PNG in base64.

    Args:
        levels: (h, w) of uint8, see :func:`confidence_map`.
    """
    png = cv2.imencode('.png', levels, [cv2.IMWRITE_PNG_COMPRESSION, 9])[1]
    return base64.b64encode(png.tobytes()).decode()


def decode_map(text: str) -> np.ndarray:
    """The map (h, w) of uint8 that :func:`encode_map` made ``text`` of.

    Raises:
        CASTError: it is not such a text.
    """
    levels = None
    if read_shape(text) is not None:
        levels = cv2.imdecode(np.frombuffer(base64.b64decode(text), np.uint8), cv2.IMREAD_GRAYSCALE)
    if levels is None or levels.max() > LEVELS:
        raise CASTError('a confidence map in the pseudo-labels is damaged; make the file again')
    return levels


def read_shape(text: str) -> tuple[int, int] | None:
    """Height and width of a map, None if it is damaged: as its PNG says, whose checksums are
    compared.

    Args:
        text: see :func:`encode_map`.
    """
    try:
        png = base64.b64decode(text, validate=True)
        return _png_shape(png) if png.startswith(_PNG) else None
    except (ValueError, struct.error):
        return None


def _png_shape(png: bytes) -> tuple[int, int] | None:
    """The same of a PNG; raises struct.error where it is cut short."""
    start, shape = len(_PNG), None
    while True:
        length, kind = struct.unpack_from('>I4s', png, start)
        end = start + 8 + length
        if struct.unpack_from('>I', png, end)[0] != zlib.crc32(png[start + 4 : end]):
            return None
        if (kind == b'IHDR') != (shape is None):  # the first chunk, and only that
            return None
        if kind == b'IHDR':
            width, height, *form = struct.unpack('>II5B', png[start + 8 : end])
            shape = height, width
            if form != _GREY or not 0 < min(shape) <= max(shape) <= LONGEST_SIDE:
                return None
        if kind == b'IEND':
            return shape if end + 4 == len(png) else None
        start = end + 4
