"""How readers of YOLO labels draw a polygon, written down once more, and a reference that is none
of them.
"""

import cv2
import numpy as np
from PIL import Image, ImageDraw


def as_written(polygon, height, width):
    """Nine significant digits of normalised coordinates, as text."""
    return [f'{value:.9g}' for value in (polygon / (width, height)).ravel().tolist()]


def draw_even_odd(polygon, height, width):
    """A pixel is inside if a line from its centre to the right crosses the polygon an odd number of
    times; edges have their upper end and not their lower one.
    """
    mask = np.zeros((height, width), bool)
    centres = np.arange(width) + 0.5
    for start, end in zip(polygon.tolist(), np.roll(polygon, -1, axis=0).tolist()):
        (x0, y0), (x1, y1) = sorted([start, end], key=lambda point: (point[1], point[0]))
        for row in range(max(0, int(np.ceil(y0 - 0.5))), int(np.ceil(y1 - 0.5))):
            mask[row] ^= centres < x0 + (row + 0.5 - y0) * (x1 - x0) / (y1 - y0)
    return mask


def draw_ultralytics(polygon, height, width, times=1):
    """``resample_segments`` and ``polygon2mask`` in an image enlarged so many times: 32 bits, up to
    1000 points, further ones on the lines between; cut to whole pixels.
    """
    values = np.array(as_written(polygon, height, width), np.float32).reshape(-1, 2)
    closed = np.concatenate([values, values[:1]])
    numbers, most = np.arange(len(closed)), max(1000, len(closed))
    more = np.linspace(0, len(closed) - 1, most - len(closed))
    places = np.sort(np.concatenate([numbers, more]))
    values = np.stack([np.interp(places, numbers, closed[:, axis]) for axis in (0, 1)], axis=1)
    mask = np.zeros((height * times, width * times), np.uint8)
    points = values.astype(np.float32) * np.array([width * times, height * times], np.float32)
    cv2.fillPoly(mask, [points.astype(np.int32)], 1)
    return mask.astype(bool)


def draw_pillow(polygon, height, width):
    """As in rfdetr: 32 bits, cut off at the centres of the last pixels."""
    values = np.array(as_written(polygon, height, width), np.float32).reshape(-1, 2)
    points = (values * np.array([width, height], np.float32)).clip(0, (width - 1, height - 1))
    image = Image.new('L', (width, height))
    ImageDraw.Draw(image).polygon([tuple(point) for point in points.tolist()], fill=1)
    return np.array(image, bool)


def draw_lightly(polygon, height, width):
    """As in lightly-train: a polygon ends where it comes back to its first point, and the next one
    begins; fewer than three points are none.
    """
    values = np.array(as_written(polygon, height, width), float).reshape(-1, 2)
    rings, ring = [], []
    for point in map(tuple, values.tolist()):
        if ring and ring[-1] == point:
            continue
        closed = len(ring) >= 3 and ring[0] == point
        ring.append(point)
        if closed:
            rings.append(ring)
            ring = []
    image = Image.new('1', (width, height))
    for points in [*rings, ring]:
        if len(points) >= 3:
            scaled = [(x * width, y * height) for x, y in points]
            ImageDraw.Draw(image).polygon(scaled, fill=1, outline=1)
    return np.array(image, bool)
