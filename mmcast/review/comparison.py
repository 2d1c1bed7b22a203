"""Objects that came back from people, compared with the proposals that they were given."""

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from pycocotools import mask as mask_api
from scipy.optimize import linear_sum_assignment

from mmcast.review.returned import ReturnedObject
from mmcast.review.task import Proposal

MATCHING_IOU = 0.5
UNCHANGED, CHANGED, ADDED, REMOVED = 'unchanged', 'changed', 'added', 'removed'
_SAME_CLASS = 1e-3  # decides between two proposals of equal IoU


@dataclass(frozen=True)
class ComparedObject:
    """An object that came back, or a proposal that did not.

    Args:
        outcome: :data:`UNCHANGED`, :data:`CHANGED`, :data:`ADDED` or :data:`REMOVED`.
        returned: what came back; None if removed.
        proposal: what it was; None if added.
        iou: of the two masks; 0 if there is only one.
    """

    outcome: str
    returned: ReturnedObject | None
    proposal: Proposal | None
    iou: float = 0.0

    @property
    def segmentation(self) -> dict:
        """The mask for the labeled set: of what is unchanged the proposal's, which no tool has
        converted.
        """
        if self.outcome == UNCHANGED and self.proposal:
            return self.proposal.segmentation
        assert self.returned is not None
        return self.returned.segmentation

    @property
    def relabeled(self) -> bool:
        """Whether it has another class than the proposal."""
        return bool(self.returned and self.proposal and self.returned.label != self.proposal.label)


def compare_objects(
    objects: Sequence[ReturnedObject], proposals: Sequence[Proposal], unchanged_iou: float
) -> list[ComparedObject]:
    """Which proposal each object of an image was, whatever its class: pairs of IoU 0.5 or more, so
    that the sum of the IoUs is highest.

    An object of its proposal's class is unchanged if :func:`same_outline` holds.

    Args:
        objects: what came back.
        proposals: what was handed out.
        unchanged_iou: smallest IoU of what is unchanged.

    Returns:
        The objects in their order, then the proposals that were removed.
    """
    partner: dict[int, tuple[int, float]] = {}
    if objects and proposals:
        ious = mask_api.iou(
            [each.segmentation for each in objects],
            [each.segmentation for each in proposals],
            [0] * len(proposals),
        )
        same = np.array([[a.label == b.label for b in proposals] for a in objects])
        gain = np.where(ious >= MATCHING_IOU, ious + _SAME_CLASS * same, 0)
        rows, columns = linear_sum_assignment(gain, maximize=True)
        partner = {
            row: (column, float(ious[row, column]))
            for row, column in zip(rows.tolist(), columns.tolist())
            if ious[row, column] >= MATCHING_IOU
        }
    compared = []
    for number, each in enumerate(objects):
        if number not in partner:
            compared.append(ComparedObject(ADDED, each, None))
            continue
        place, iou = partner[number]
        own = proposals[place]
        same_object = each.label == own.label and not each.iscrowd
        outcome = CHANGED
        if same_object and same_outline(each.segmentation, own.segmentation, iou, unchanged_iou):
            outcome = UNCHANGED
        compared.append(ComparedObject(outcome, each, own, iou))
    found = {place for place, _ in partner.values()}
    left = [own for place, own in enumerate(proposals) if place not in found]
    return [*compared, *(ComparedObject(REMOVED, None, own) for own in left)]


def same_outline(mask: dict, other: dict, iou: float, unchanged_iou: float) -> bool:
    """Whether two masks differ by a tool's rounding at most: their IoU is high enough, and all
    pixels that differ touch the outline of the second one.

    Args:
        mask: RLE.
        other: likewise.
        iou: of the two.
        unchanged_iou: the smallest that is high enough.
    """
    if iou < unchanged_iou:
        return False
    if iou == 1:
        return True
    one, two = (np.pad(mask_api.decode(rle), 1) for rle in (mask, other))
    kernel = np.ones((3, 3), np.uint8)
    band = cv2.dilate(two, kernel) != cv2.erode(two, kernel)
    return not ((one != two) & ~band).any()
