"""A pixel belongs to one instance only: the one with the higher score."""
import numpy as np


def resolve_overlaps(masks: np.ndarray, scores: np.ndarray) -> np.ndarray:
    """Take every pixel from all but its best-scored mask.

    Args:
        masks: (N, H, W) of bool.
        scores: (N,); of equal scores the earlier wins.

    Returns:
        (N, H, W) of bool, disjoint; a mask that is covered altogether comes back empty.
    """
    taken = np.zeros(masks.shape[1:], dtype=bool)
    resolved = np.zeros_like(masks, dtype=bool)
    for i in np.argsort(-np.asarray(scores), kind='stable'):
        resolved[i] = masks[i] & ~taken
        taken |= masks[i]
    return resolved
