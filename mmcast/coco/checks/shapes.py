"""Measures masks without drawing them, however broken they are: COCO's own C code may crash on
those.
"""

from dataclasses import dataclass
from math import isnan
from operator import mul

import numpy as np

SLACK = 1  # pixels: labeling tools put the border of an image at -0.5, at 0 or at its width
_FAR = 1e9  # no coordinate; beyond it, areas would lose their digits


class MaskProblem(Exception):
    """A segmentation that is not a mask: kind of finding, and what is wrong."""


@dataclass
class Mask:
    """Area in pixels and box (x1, y1, x2, y2) of a mask; polygons that overlap count double."""

    area: float
    box: tuple[float, float, float, float]


def measure_mask(segmentation: object, size: tuple[int, int] | None) -> Mask:
    """Measures polygons or run lengths of either sort.

    Args:
        segmentation: as in a COCO annotation.
        size: (height, width) of the image in pixels, None if that is unknown.

    Raises:
        MaskProblem: it is not a mask; a mask outside the image is allowed here.
    """
    if segmentation is None or segmentation == [] or segmentation == {}:
        raise MaskProblem('empty-mask', 'there is no segmentation')
    if isinstance(segmentation, list):
        return _measure_polygons(segmentation)
    if isinstance(segmentation, dict):
        return _measure_runs(segmentation, size)
    raise MaskProblem('malformed-mask', f'segmentation is a {type(segmentation).__name__}')


def outside(box: tuple[float, float, float, float], size: tuple[int, int]) -> bool:
    """Does a box (x1, y1, x2, y2) leave an image of (height, width)?"""
    height, width = size
    return box[0] < -SLACK or box[1] < -SLACK or box[2] > width + SLACK or box[3] > height + SLACK


def _measure_polygons(polygons: list) -> Mask:
    """In plain Python: for the few points that polygons have, that is faster than NumPy."""
    area, x, y = 0.0, [], []
    for polygon in polygons:
        _check_coordinates(polygon)
        xs, ys = polygon[::2], polygon[1::2]
        if len(xs) < 3:
            raise MaskProblem('degenerate-polygon', f'a polygon of {len(xs)} points')
        part = abs(sum(map(mul, xs, ys[1:] + ys[:1])) - sum(map(mul, ys, xs[1:] + xs[:1]))) / 2
        if part < 1e-3:
            raise MaskProblem('degenerate-polygon', f'a polygon of {len(xs)} points without area')
        area += part
        x += xs
        y += ys
    return Mask(float(area), (float(min(x)), float(min(y)), float(max(x)), float(max(y))))


def _check_coordinates(polygon: object) -> None:
    if not isinstance(polygon, list):
        raise MaskProblem('malformed-mask', 'segmentation is not a list of polygons')
    numbers = set(map(type, polygon)) <= {int, float}
    if polygon and not (
        numbers and min(polygon) > -_FAR and max(polygon) < _FAR and not isnan(sum(polygon))
    ):
        raise MaskProblem('malformed-mask', 'a polygon is not a flat list of finite coordinates')
    if len(polygon) % 2:
        raise MaskProblem(
            'malformed-mask', f'a polygon of {len(polygon)} coordinates, an odd number'
        )


def _measure_runs(encoded: dict, size: tuple[int, int] | None) -> Mask:
    own = encoded.get('size')
    if not (
        isinstance(own, list)
        and len(own) == 2
        and all(type(side) is int and side > 0 for side in own)
    ):
        raise MaskProblem('malformed-mask', f'run lengths of size {own}, not [height, width]')
    if size is not None and tuple(own) != size:
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
        raise MaskProblem('empty-mask', 'the mask has no pixel')
    # From the foot of a column to the head of the next.
    wraps = (starts // height != ends // height).any()
    top, bottom = (0, height - 1) if wraps else ((starts % height).min(), (ends % height).max())
    left, right = starts[0] // height, ends[-1] // height + 1
    box = float(left), float(top), float(right), float(bottom + 1)
    return Mask(float((ends - starts + 1).sum()), box)


def _runs(counts: object) -> np.ndarray:
    """Lengths of the runs, outside and inside the mask by turns."""
    if isinstance(counts, str) and counts:
        return _decode_runs(counts)
    if (
        isinstance(counts, list)
        and counts
        and all(type(run) is int and abs(run) < 2**40 for run in counts)
    ):
        return np.array(counts)
    raise MaskProblem('malformed-mask', 'run lengths that are neither a text nor a list of numbers')


def _decode_runs(text: str) -> np.ndarray:
    """COCO's compressed run lengths.

    A character holds six bits from '0' on: five of a number, lowest first, and a bit that says that
    more follow; the fifth of the last is the sign. From the fourth on, a number is the difference
    to the run two before.
    """
    codes = np.frombuffer(text.encode(errors='surrogatepass'), dtype=np.uint8).astype(
        np.int64
    ) - ord('0')
    if codes.min() < 0 or codes.max() > 63 or codes[-1] & 32:
        raise MaskProblem(
            'malformed-mask', 'run lengths that are cut short, or not written as COCO does'
        )
    last = np.flatnonzero(codes & 32 == 0)
    first = np.append(0, last[:-1] + 1)
    length = last - first + 1
    if length.max() > 8:
        raise MaskProblem('malformed-mask', 'run lengths of absurd size')
    place = np.arange(len(codes)) - np.repeat(first, length)
    runs = np.add.reduceat((codes & 31) << (5 * place), first)
    runs -= np.where(codes[last] & 16, 1 << (5 * length), 0)
    runs[1::2] = runs[1::2].cumsum()
    runs[2::2] = runs[2::2].cumsum()
    return runs
