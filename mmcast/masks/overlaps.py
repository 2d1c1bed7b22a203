"""A pixel belongs to one instance only: the one with the higher score."""

from collections.abc import Sequence

import numpy as np
from pycocotools import mask as mask_utils


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


def resolve_rle_overlaps(rles: list[dict], scores: Sequence[float]) -> list[dict]:
    """``resolve_overlaps`` on COCO RLEs, without decoding them.

    Args:
        rles: N masks of one image.
        scores: (N,).

    Returns:
        N masks, ``counts`` as text.
    """
    if len(rles) < 2:
        return rles
    touching = np.flatnonzero((mask_utils.iou(rles, rles, [0] * len(rles)) > 0).sum(axis=1) > 1)
    resolved, taken = list(rles), None
    for i in sorted(touching.tolist(), key=lambda i: -scores[i]):
        if taken is None:
            taken = rles[i]
            continue
        rest = mask_utils.merge([rles[i], complement(taken)], intersect=True)
        resolved[i] = dict(size=rles[i]['size'], counts=rest['counts'].decode())
        taken = mask_utils.merge([taken, rles[i]])
    return resolved


def areas_without_overlaps(
    rles: list[dict], areas: Sequence[int], scores: Sequence[float]
) -> list[int]:
    """Pixels that ``resolve_rle_overlaps`` leaves to each of N masks, without making these.

    Args:
        rles: N masks of one image.
        areas: (N,) pixels of each.
        scores: (N,).
    """
    left = list(areas)
    if len(rles) < 2:
        return left
    ious = mask_utils.iou(rles, rles, [0] * len(rles))
    both = np.add.outer(left, left)
    shared = np.rint(ious * both / (1 + ious)).astype(int)  # exact: of at most 2^31 pixels
    better: list[int] = []
    for i in sorted(np.flatnonzero((ious > 0).sum(axis=1) > 1).tolist(), key=lambda i: -scores[i]):
        over = [j for j in better if shared[i, j]]
        if over and np.count_nonzero(shared[np.ix_(over, over)]) > len(over):  # some overlap
            covering = mask_utils.merge([rles[j] for j in over])
            together = mask_utils.merge([covering, rles[i]])
            left[i] = int(mask_utils.area(together)) - int(mask_utils.area(covering))
        elif over:
            left[i] -= int(shared[i, over].sum())
        better.append(i)
    return left


def complement(rle: dict) -> dict:
    """The pixels outside of a COCO mask ``rle``.

    Run lengths alternate between outside and inside, beginning outside: a run of length 0 put in
    front, or taken away, exchanges the two. In COCO's text, numbers from the fourth on are stored
    as the difference to the one two places before, so that only what moves across this border
    changes.
    """
    text = rle['counts'] if isinstance(rle['counts'], bytes) else rle['counts'].encode()
    runs: list[int] = []
    position = 0
    while len(runs) < 4 and position < len(text):
        value, position = _read_number(text, position)
        runs.append(value)
        if len(runs) == 3:
            rest = position
    if runs[0]:
        head = [0, *runs[:2], *([runs[2] - runs[0]] if len(runs) > 2 else [])]
        position = rest if len(runs) > 2 else position
    else:
        head = [*runs[1:3], *([runs[3] + runs[1]] if len(runs) > 3 else [])]
    return dict(size=rle['size'], counts=b''.join(map(_number_text, head)) + text[position:])


def _read_number(text: bytes, position: int) -> tuple[int, int]:
    """A number of COCO's text, five bits a character, lowest first, and the position after it."""
    value, shift = 0, 0
    while True:
        bits = text[position] - 48
        value |= (bits & 31) << shift
        position, shift = position + 1, shift + 5
        if not bits & 32:  # the last character; its highest bit is the sign
            return value - (1 << shift if bits & 16 else 0), position


def _number_text(value: int) -> bytes:
    """The reverse of ``_read_number``."""
    characters = bytearray()
    while True:
        bits = value & 31
        value >>= 5
        if value == (-1 if bits & 16 else 0):
            characters.append(bits + 48)
            return bytes(characters)
        characters.append((bits | 32) + 48)
