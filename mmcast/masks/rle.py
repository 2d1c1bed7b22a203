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
    pixels = np.ascontiguousarray(mask).view(np.uint8)
    columns = np.flatnonzero(np.bitwise_or.reduce(pixels, axis=0))
    first, end = (columns[0], columns[-1] + 1) if len(columns) else (0, 1)
    return _encode_columns(pixels[:, first:end], first, mask.shape)


def encode_patch(pixels: np.ndarray, top: int, left: int, size: tuple[int, int]) -> dict:
    """:func:`encode_mask` of a mask that is empty but for a patch.

    Args:
        pixels: (h, w) of uint8, 0 or 1.
        top: row of the mask in which the patch begins; it lies within the mask.
        left: column likewise.
        size: (H, W) of the mask.
    """
    below = size[0] - top - pixels.shape[0]
    return _encode_columns(np.pad(pixels, ((top, below), (0, 0))), left, size)


def _encode_columns(pixels: np.ndarray, first: int, size: tuple[int, int]) -> dict:
    """The RLE of a mask of ``size`` (H, W), of which columns (H, w) of uint8 from ``first`` on are
    given.
    """
    height, whole = size[0], size[0] * size[1]
    padded = np.zeros(pixels.size + 2, np.uint8)  # runs also begin and end at the sides
    if pixels.size:
        cv2.transpose(pixels, dst=padded[1:-1].reshape(-1, height))
    changes = np.flatnonzero(padded[1:] != padded[:-1]) + first * height
    ends = np.append(changes[changes < whole], whole)
    ends[1:] -= ends[:-1].copy()
    rle = mask_api.frPyObjects(dict(size=list(size), counts=ends.tolist()), *size)
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
