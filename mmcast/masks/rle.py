"""Run-length encodings (RLE) of masks: from pixels and polygons, and their areas."""

from collections.abc import Sequence

import cv2
import numpy as np
from pycocotools import mask as mask_api

from mmcast.masks.cropped import tight_slices


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
    no other thread of Python run meanwhile; here numpy finds the runs, in the rows and columns that
    have any pixel, and pycocotools packs them.
    """
    rows, columns = tight_slices(mask)
    return encode_crop(mask[rows, columns], (rows.start, columns.start), mask.shape)


def encode_crop(crop: np.ndarray, corner: Sequence[int], size: Sequence[int]) -> dict:
    """:func:`encode_mask` of a mask of which only a part is there.

    Args:
        crop: (h, w) of bool, outside of which the mask has no pixel.
        corner: Its top row and left column.
        size: Height and width of the mask.
    """
    (height, width), (top, left) = size, corner
    inner = crop.shape[0]
    # By column, each of which ends with a pixel outside, unless it ends where the image does.
    gap = int(inner < height)
    flat = np.zeros(crop.shape[1] * (inner + gap) + 2, np.uint8)  # runs also begin and end outside
    if crop.size:
        flat[1:-1].reshape(-1, inner + gap)[:, :inner] = cv2.transpose(crop.view(np.uint8))
    column, row = np.divmod(np.flatnonzero(flat[1:] != flat[:-1]), max(inner + gap, 1))
    changes = (left + column) * height + top + row
    ends = np.append(changes[changes < height * width], height * width)
    ends[1:] -= ends[:-1].copy()
    rle = mask_api.frPyObjects(dict(size=[height, width], counts=ends.tolist()), height, width)
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
