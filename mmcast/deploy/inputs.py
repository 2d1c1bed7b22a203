"""What a student accepts as an image and as a score threshold, in torch and in onnxruntime."""

from typing import Any

import numpy as np

from mmcast.errors import CASTError
from mmcast.images import ValueRange, to_uint8

_CHANNELS = (1, 2, 3, 4)  # grey, grey and alpha, RGB, RGBA


def prepare_image(image: Any, value_range: ValueRange = None) -> np.ndarray:
    """An image in memory as a student reads image files.

    Args:
        image: (H, W, 3), RGB. Grey, (H, W) or (H, W, 1), is repeated; an alpha channel, the second
            or fourth, is dropped. uint8, or other numbers where ``value_range`` says what they
            mean.
        value_range: the student's, see :func:`mmcast.images.parse_value_range`.

    Returns:
        (H, W, 3) of uint8, RGB, contiguous.

    Raises:
        CASTError: it is something else, or empty.
    """
    pixels = np.asarray(image)
    shape = pixels.shape
    if pixels.dtype.kind not in 'buif':
        raise CASTError(
            f'the image is {type(image).__name__} of {pixels.dtype}: give an array of numbers '
            '(height, width, 3); mmcast.images.read_image reads a file'
        )
    if pixels.ndim == 2:
        pixels = pixels[..., None]
    if pixels.ndim != 3 or pixels.shape[2] not in _CHANNELS:
        raise CASTError(f'the image has the shape {shape}, {_what_it_is(shape)}')
    if not pixels.size:
        raise CASTError(f'the image has the shape {shape}: there is no pixel in it')
    colours = 1 if pixels.shape[2] < 3 else 3
    pixels = to_uint8(pixels[..., :colours], value_range, 'the image')
    return np.ascontiguousarray(np.broadcast_to(pixels, (*pixels.shape[:2], 3)))


def check_batch(images: Any) -> np.ndarray:
    """Images (B, H, W, 3) of uint8, RGB, as a graph takes them, contiguous.

    Raises:
        CASTError: they are something else, or empty.
    """
    pixels = np.asarray(images)
    if pixels.dtype != np.uint8 or pixels.ndim != 4 or pixels.shape[3] != 3 or not pixels.size:
        raise CASTError(
            f'the images are {pixels.dtype} of the shape {pixels.shape}: give uint8, RGB, '
            '(images, height, width, 3), or call the student with one image of another kind'
        )
    return np.ascontiguousarray(pixels)


def check_score_threshold(threshold: float) -> None:
    """Raises CASTError for a score threshold that no score can reach."""
    if not threshold <= 1:  # NaN as well
        raise CASTError(f'score threshold {threshold}: give a number from 0 to 1')


def _what_it_is(shape: tuple[int, ...]) -> str:
    if len(shape) == 4:
        return 'a batch: call the student once for each image'
    if len(shape) == 3 and shape[0] in _CHANNELS:
        return 'channels first: give image.transpose(1, 2, 0)'
    return 'not (height, width, 3)'
