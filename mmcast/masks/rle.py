"""Run-length encodings (RLE) of masks: from pixels and polygons, and their areas."""

import cv2
import numpy as np
from pycocotools import mask as mask_api


def encode_segmentation(mask: list | dict, height: int, width: int) -> dict:
    """The compressed RLE of a COCO segmentation.

    Args:
        mask: Polygons, or RLE compressed or not.
        height: Of the image; used for polygons.
        width: Likewise.
    """
    if isinstance(mask, list):
        return mask_api.merge(mask_api.frPyObjects(mask, height, width))
    return mask_api.frPyObjects(mask, *mask['size']) if isinstance(mask['counts'], list) else mask


def encode_mask(mask: np.ndarray) -> dict:
    """COCO RLE of a bool ``mask`` (H, W), ``counts`` as text: JSON and mmdet's loading want it so.

    The same text as pycocotools' ``encode`` gives. That one reads every pixel of the image and lets
    no other thread of Python run meanwhile; here numpy finds the runs, in the columns that have any
    pixel, and pycocotools packs them.
    """
    pixels, height = np.ascontiguousarray(mask).view(np.uint8), mask.shape[0]
    columns = np.flatnonzero(np.bitwise_or.reduce(pixels, axis=0))
    first, end = (columns[0], columns[-1] + 1) if len(columns) else (0, 1)
    padded = np.zeros((end - first) * height + 2, np.uint8)  # runs also begin and end at the sides
    cv2.transpose(pixels[:, first:end], dst=padded[1:-1].reshape(end - first, height))
    changes = np.flatnonzero(padded[1:] != padded[:-1]) + first * height
    ends = np.append(changes[changes < mask.size], mask.size)
    ends[1:] -= ends[:-1].copy()
    rle = mask_api.frPyObjects(dict(size=list(mask.shape), counts=ends.tolist()), *mask.shape)
    return text_rle(rle)


def text_rle(rle: dict) -> dict:
    """A compressed RLE with ``counts`` as text, whatever they were.

    Args:
        rle: With ``size`` (height, width) and compressed ``counts``, bytes or text.
    """
    counts = rle['counts']
    return dict(
        size=list(rle['size']), counts=counts if isinstance(counts, str) else counts.decode()
    )


def mask_areas(rles: list[dict]) -> list[int]:
    """Pixels of each of the COCO ``rles``.

    pycocotools' ``area`` overflows above 255 masks with NumPy 2; here there may be any number.
    """
    return [
        area
        for start in range(0, len(rles), 255)
        for area in mask_api.area(rles[start : start + 255]).tolist()
    ]
