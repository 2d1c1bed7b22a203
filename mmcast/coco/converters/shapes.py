"""Shapes that people draw, as masks: checked coordinates, polygons, rectangles and ellipses."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from pycocotools import mask as mask_api

from mmcast.errors import CASTError
from mmcast.masks.rle import encode_mask


def checked_points(points: Any, height: int, width: int, where: str) -> np.ndarray:
    """Coordinates as an array; compiled code gets none that it has not been made for.

    Args:
        points: Pairs of x and y in pixels.
        height: Of the image, in pixels.
        width: Likewise.
        where: File and object, for the message.

    Returns:
        (N, 2) float64.

    Raises:
        CASTError: these are no pairs of finite numbers, or lie further beyond the image than it is
            large, which no labeling does.
    """
    try:
        array = np.asarray(points, float)
    except (TypeError, ValueError):
        array = np.zeros(0)
    if array.ndim != 2 or array.shape[1] != 2 or not np.isfinite(array).all():
        raise CASTError(f'{where}: the coordinates are no pairs of finite numbers: label it again')
    size = np.array([width, height])
    if ((array < -size) | (array > 2 * size)).any():
        raise CASTError(
            f'{where}: coordinates up to {np.abs(array).max():g} lie far outside the image of '
            f'{width}x{height}: it was labeled at another size'
        )
    return array


def reaches_beyond(points: np.ndarray, height: int, width: int) -> bool:
    """Whether any point is outside the image by more than a pixel's edge."""
    return bool(((points < -0.5) | (points > np.array([width, height]) + 0.5)).any())


def polygon_rle(points: np.ndarray, height: int, width: int) -> dict:
    """The RLE of a polygon as COCO's API draws it: pixel i reaches from i to i + 1.

    CVAT and Label Studio give coordinates so, and datumaro, which CVAT exports with, draws so.

    Args:
        points: (N, 2), at most as far outside the image as :func:`checked_points` allows.
        height: Of the image.
        width: Likewise.

    Returns:
        COCO RLE with text counts; the parts outside are cut off.
    """
    # COCO's API moves points that are outside to the border, which bends the edges that cross it.
    beyond = np.ceil(np.maximum(0, [-points.min(0), points.max(0) - (width, height)])).astype(int)
    (left, top), (right, bottom) = beyond.tolist()
    polygon = (points + (left, top)).ravel().tolist()
    (rle,) = mask_api.frPyObjects([polygon], height + top + bottom, width + left + right)
    if not beyond.any():
        return dict(size=rle['size'], counts=rle['counts'].decode())
    mask = mask_api.decode(rle)[top : top + height, left : left + width]
    return encode_mask(mask.astype(bool))


def rotated_rectangle(
    corner: tuple[float, float],
    width: float,
    height: float,
    degrees: float,
    pivot: tuple[float, float],
) -> np.ndarray:
    """The four corners of a rectangle turned clockwise (y points down) about ``pivot``, (4, 2)."""
    x, y = corner
    points = np.array([(x, y), (x + width, y), (x + width, y + height), (x, y + height)], float)
    return points if not degrees else (points - pivot) @ _turn(degrees) + pivot


def ellipse_outline(
    centre: tuple[float, float], radii: tuple[float, float], degrees: float, steps: int = 720
) -> np.ndarray:
    """Points on an ellipse turned clockwise about its centre, (steps, 2)."""
    angles = np.linspace(0, 2 * np.pi, steps, endpoint=False)
    points = np.stack([radii[0] * np.cos(angles), radii[1] * np.sin(angles)], axis=1)
    return points @ _turn(degrees) + centre


def _turn(degrees: float) -> np.ndarray:
    """What points as rows are multiplied by to turn them clockwise about 0, (2, 2)."""
    angle = np.deg2rad(degrees)
    return np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])


def numbers(values: Sequence[Any], where: str) -> list[float]:
    """The values as finite numbers.

    Raises:
        CASTError: one is none.
    """
    try:
        found = [float(value) for value in values]
    except (TypeError, ValueError, OverflowError):
        found = [float('nan')]
    if not np.isfinite(found).all():
        raise CASTError(f'{where}: a coordinate is no finite number: label it again')
    return found
