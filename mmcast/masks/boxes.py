"""Boxes of masks."""

import numpy as np


def boxes_of_masks(masks: np.ndarray) -> np.ndarray:
    """Tight boxes (N, 4), x1, y1, x2, y2, of ``masks`` (N, H, W); zeros for an empty one."""
    boxes = np.zeros((len(masks), 4), np.float32)
    for box, mask in zip(boxes, masks):
        columns, rows = (np.flatnonzero(mask.any(axis)) for axis in (0, 1))
        if len(rows):
            box[:] = columns[0], rows[0], columns[-1] + 1, rows[-1] + 1
    return boxes
