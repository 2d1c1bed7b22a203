"""Measures masks before any compiled code sees them, however broken they are: COCO's own may crash
on those, or never come back.
"""

from dataclasses import dataclass
from math import isnan
from typing import TypeGuard

import numpy as np
from pycocotools import mask as mask_api

from mmcast.masks.rle import mask_areas
from mmcast.masks.runs import MAX_PIXELS, decode_runs

SLACK = 1  # pixels: labeling tools put the border of an image at -0.5, at 0 or at its width
LONGEST_SIDE = 2**20
_FAR = 1e9  # no coordinate; beyond it, areas would lose their digits


class MaskProblem(Exception):
    """A segmentation that is not a mask: kind of finding, and what is wrong."""


@dataclass
class Mask:
    """A valid mask.

    Args:
        segmentation: as COCO writes it.
        area: in pixels; 0 if no pixel of the image is in it.
        box: (x1, y1, x2, y2) of these pixels.
        outline: (x1, y1, x2, y2) of what is drawn, which may reach out of the image.
        changes: kinds of finding and what was mended.
    """

    segmentation: list | dict
    area: float
    box: tuple[float, float, float, float]
    outline: tuple[float, float, float, float]
    changes: list[tuple[str, str]]


def read_mask(segmentation: object, size: tuple[int, int]) -> Mask:
    """Measures polygons or run lengths of either sort, and writes polygons as COCO does.

    Polygons without a pixel in the image are left out as long as another one stays.

    Args:
        segmentation: as in a COCO annotation.
        size: (height, width) of the image in pixels.

    Raises:
        MaskProblem: it is not a mask.
    """
    if segmentation is None or segmentation == [] or segmentation == {}:
        raise MaskProblem('empty-mask', 'there is no segmentation')
    if isinstance(segmentation, list):
        return _read_polygons(segmentation, size)
    if isinstance(segmentation, dict):
        area, box = measure_runs(segmentation, size)
        changes = [] if area else [('no-pixel', 'the mask has no pixel: left out')]
        return Mask(segmentation, area, box, box, changes)
    raise MaskProblem('malformed-mask', f'segmentation is a {type(segmentation).__name__}')


def outside(box: tuple[float, float, float, float], size: tuple[int, int]) -> bool:
    """Does a box (x1, y1, x2, y2) leave an image of (height, width)?"""
    height, width = size
    return box[0] < -SLACK or box[1] < -SLACK or box[2] > width + SLACK or box[3] > height + SLACK


def reach(size: tuple[int, int]) -> int:
    """How many pixels beyond the border of an image of (height, width) a coordinate may lie: its
    longer side.
    """
    return max(size)


def _read_polygons(segmentation: list, size: tuple[int, int]) -> Mask:
    changes: list[tuple[str, str]] = []
    parts = _flat_parts(segmentation, changes)
    for part in parts:
        _check_coordinates(part, size)
    kept = [part for part in parts if len(part) >= 6]
    rles = mask_api.frPyObjects(kept, *size) if kept else []
    pixels = mask_areas(rles)
    rles = [rle for rle, area in zip(rles, pixels) if area]
    xs = [x for part in parts for x in part[::2]]
    ys = [y for part in parts for y in part[1::2]]
    outline = float(min(xs)), float(min(ys)), float(max(xs)), float(max(ys))
    if not rles:
        reason = (
            ('no-pixel', 'the mask covers no pixel of the image: left out')
            if any(map(_has_area, kept))
            else ('degenerate-polygon', 'no polygon has three points and an area: left out')
        )
        return Mask(kept, 0.0, (0.0, 0.0, 0.0, 0.0), outline, [*changes, reason])
    dropped = len(parts) - len(rles)
    if dropped:
        changes.append(
            ('degenerate-polygon', f'{dropped} of {len(parts)} polygons without a pixel')
        )
    whole = mask_api.merge(rles)
    x, y, width, height = mask_api.toBbox(whole).tolist()
    return Mask(
        [part for part, area in zip(kept, pixels) if area],
        float(mask_areas([whole])[0]),
        (x, y, x + width, y + height),
        outline,
        changes,
    )


def _flat_parts(segmentation: list, changes: list[tuple[str, str]]) -> list[list]:
    """Polygons as COCO's lists [x1, y1, x2, y2, ...], whether they were so, lacked the outer list
    or were lists of points.
    """
    if all(_is_number(value) for value in segmentation):
        if len(segmentation) == 4:
            raise MaskProblem('empty-mask', 'four numbers: a box and no mask')
        changes.append(('polygon-layout', 'the numbers stand in no list of their own'))
        return [segmentation]
    if not all(isinstance(part, list) for part in segmentation):
        raise MaskProblem('malformed-mask', 'segmentation is not a list of polygons')
    filled = [part for part in segmentation if part]
    if not filled:
        raise MaskProblem('empty-mask', 'the list of polygons is empty')
    if len(filled) < len(segmentation):
        changes.append(('empty-part', f'{len(segmentation) - len(filled)} empty parts'))
    if len(filled) > 2 and all(map(_is_point, filled)):
        changes.append(('polygon-layout', 'a list of points'))
        return [[value for point in filled for value in point]]
    if any(all(map(_is_point, part)) for part in filled):
        changes.append(('polygon-layout', 'lists of points'))
    return [
        [value for point in part for value in point] if all(map(_is_point, part)) else part
        for part in filled
    ]


def _is_number(value: object) -> TypeGuard[int | float]:
    return type(value) in (int, float)


def _is_point(value: object) -> bool:
    return isinstance(value, list) and len(value) == 2 and all(map(_is_number, value))


def _check_coordinates(polygon: list, size: tuple[int, int]) -> None:
    """Raises MaskProblem unless these are pairs of numbers not too far from the image."""
    if not all(map(_is_number, polygon)) or not (
        min(polygon) > -_FAR and max(polygon) < _FAR and not isnan(sum(polygon))
    ):
        raise MaskProblem('malformed-mask', 'a polygon is not a flat list of finite coordinates')
    if len(polygon) % 2:
        raise MaskProblem(
            'malformed-mask', f'a polygon of {len(polygon)} coordinates, an odd number'
        )
    (height, width), allowed = size, reach(size)
    left, right = min(polygon[::2]), max(polygon[::2])
    top, bottom = min(polygon[1::2]), max(polygon[1::2])
    if min(left, top) < -allowed or right > width + allowed or bottom > height + allowed:
        raise MaskProblem(
            'mask-far-outside',
            f'the mask reaches from ({left:.6g}, {top:.6g}) to ({right:.6g}, {bottom:.6g}) in an '
            f'image of {width}x{height}',
        )


def _has_area(polygon: list) -> bool:
    x, y = np.array(polygon[::2], float), np.array(polygon[1::2], float)
    return abs(np.dot(x, np.roll(y, -1)) - np.dot(y, np.roll(x, -1))) / 2 >= 1e-3


def measure_runs(
    encoded: dict, size: tuple[int, int] | None
) -> tuple[float, tuple[float, float, float, float]]:
    """Area in pixels and box (x1, y1, x2, y2) of run lengths; zeros if no pixel is inside.

    Args:
        encoded: COCO's RLE, compressed (text) or not (a list).
        size: (height, width) of the image in pixels, None if that is unknown.

    Raises:
        MaskProblem: the runs do not fill their size, which is not that of the image, or are none.
    """
    own = encoded.get('size')
    if not is_size(own):
        raise MaskProblem('malformed-mask', f'run lengths of size {own}, not [height, width]')
    if size is not None and tuple(own) != tuple(size):
        raise MaskProblem(
            'mask-size-mismatch', f'mask of {own[1]}x{own[0]} in an image of {size[1]}x{size[0]}'
        )
    runs = _runs(encoded.get('counts'))
    height, width = own
    if (runs < 0).any() or runs.sum() != height * width:
        raise MaskProblem('malformed-mask', f'run lengths that do not fill {width}x{height} pixels')
    borders = runs.cumsum()
    # Of the runs inside the mask; pixels go down the columns.
    starts, ends = borders[:-1:2], borders[1::2]
    starts, ends = starts[ends > starts], ends[ends > starts] - 1
    if not len(starts):
        return 0.0, (0.0, 0.0, 0.0, 0.0)
    # From the foot of a column to the head of the next.
    wraps = (starts // height != ends // height).any()
    top, bottom = (0, height - 1) if wraps else ((starts % height).min(), (ends % height).max())
    left, right = starts[0] // height, ends[-1] // height + 1
    box = float(left), float(top), float(right), float(bottom + 1)
    return float((ends - starts + 1).sum()), box


def is_size(value: object) -> TypeGuard[tuple[int, int]]:
    """Whether this is [height, width] of an image that a mask can be made for."""
    return (
        isinstance(value, (list, tuple))
        and len(value) == 2
        and all(type(side) is int and 0 < side <= LONGEST_SIDE for side in value)
        and value[0] * value[1] <= MAX_PIXELS
    )


def _runs(counts: object) -> np.ndarray:
    """Lengths of the runs, outside and inside the mask by turns."""
    if isinstance(counts, str) and counts:
        try:
            return decode_runs(counts)
        except ValueError as error:
            raise MaskProblem('malformed-mask', str(error)) from None
    if (
        isinstance(counts, list)
        and counts
        and all(type(run) is int and abs(run) <= MAX_PIXELS for run in counts)
    ):
        return np.array(counts)
    raise MaskProblem('malformed-mask', 'run lengths that are neither a text nor a list of numbers')
