"""Overlapping windows of an image, and which of their instances are the same; in numpy, for torch
and ONNX alike.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from mmcast.errors import CASTError

SAME_INSTANCE = 0.5  # IoU of two masks where both windows overlap
CUT_FACTOR = (
    0.5  # on the score of what a window's side cuts, in the choice between two views of an instance
)


@dataclass(frozen=True)
class Windows:
    """How an image is divided.

    Args:
        size: Side of a window in pixels of the network's input, a multiple of its patch or stride.
        overlap: Pixels that neighbours share, at least the size of an instance that is to be seen
            whole.
        score_thr: Instances with a lower score are dropped before windows are joined.
        batch_size: So many windows go through the network at a time. With the instances that are
            kept of all windows, these bound the memory that an image needs, however large it is.

    Raises:
        CASTError: The overlap is negative or not smaller than the size, or the batch is empty.
    """

    size: int
    overlap: int
    score_thr: float = 0.05
    batch_size: int = 8

    def __post_init__(self) -> None:
        if self.batch_size < 1:
            raise CASTError(f'test_cfg.windows: batch_size {self.batch_size} must be at least 1')
        if not 0 <= self.overlap < self.size:
            raise CASTError(
                f'test_cfg.windows: overlap {self.overlap} must be from 0 to less than size '
                f'{self.size}'
            )

    def starts(self, length: int) -> list[int]:
        """Where windows begin along a side of ``length`` pixels; the last one ends with it."""
        last = max(length - self.size, 0)
        return [*range(0, last, self.size - self.overlap), last]

    def places(self, size: Sequence[int]) -> list[tuple[int, int]]:
        """Top row and left column of every window of an image of ``size``, height and width."""
        return [(y, x) for y in self.starts(size[0]) for x in self.starts(size[1])]

    def batches(self, size: Sequence[int]) -> Iterator[list[tuple[int, int]]]:
        """The places of an image of ``size``, ``batch_size`` at a time."""
        places = self.places(size)
        for first in range(0, len(places), self.batch_size):
            yield places[first : first + self.batch_size]


@dataclass
class Views:
    """What the windows of one image show: V instances, some of them several times.

    Attributes:
        masks: (V, h, w) of bool, each on its window, none empty.
        scores: (V,).
        labels: (V,).
        corners: (V, 2) top row and left column of each one's window.
        size: Height and width of the image.
    """

    masks: np.ndarray
    scores: np.ndarray
    labels: np.ndarray
    corners: np.ndarray
    size: tuple[int, int]

    def groups(self) -> list[list[int]]:
        """Indices of the views of each instance, the best first: sure and not cut.

        Others are in the group only to complete an instance that no window shows whole. Of one
        window, only the best of several views of an instance counts: queries that were trained on
        few images often share one.
        """
        cut, rivals = self._cut(), self._rivals()
        rank = self.scores * np.where(cut, CUT_FACTOR, 1.0)
        groups: list[list[int]] = []
        for i in np.argsort(-rank, kind='stable').tolist():
            group = next(
                (
                    group
                    for group in groups
                    if any(rivals[i, j] and self._agreement(i, j) > SAME_INSTANCE for j in group)
                ),
                None,
            )
            if group is None:
                groups.append([i])
            elif (
                cut[i]
                and cut[group[0]]
                and not (self.corners[i] == self.corners[group]).all(1).any()
            ):
                group.append(i)
        return groups

    def paste(self, groups: Sequence[Sequence[int]]) -> np.ndarray:
        """Masks (N, H, W) of N ``groups``, lists of indices of views, on the whole image."""
        height, width = self.masks.shape[1:]
        masks = np.zeros((len(groups), *self.size), bool)
        for mask, group in zip(masks, groups):
            for i in group:
                top, left = self.corners[i]
                mask[top : top + height, left : left + width] |= self.masks[i]
        return masks

    def _cut(self) -> np.ndarray:
        """Whether a side of its window, within the image, cuts each view."""
        (top, left), (height, width) = self.corners.T, self.masks.shape[1:]
        inner = (top > 0, top + height < self.size[0], left > 0, left + width < self.size[1])
        edges = (self.masks[:, 0], self.masks[:, -1], self.masks[:, :, 0], self.masks[:, :, -1])
        return np.any([edge.any(1) & within for edge, within in zip(edges, inner)], axis=0)

    def _rivals(self) -> np.ndarray:
        """(V, V): of one class, with boxes that overlap."""
        near, far = self._boxes()
        overlap = (near[:, None] < far).all(2) & (near < far[:, None]).all(2)
        return overlap & (self.labels[:, None] == self.labels)

    def _boxes(self) -> tuple[np.ndarray, np.ndarray]:
        """First and last + 1 pixel (V, 2) of each view in the image, vertical and horizontal."""
        near, far = [], []
        for touched in (np.any(self.masks, axis=2), np.any(self.masks, axis=1)):
            near.append(touched.argmax(1))
            far.append(touched.shape[1] - touched[:, ::-1].argmax(1))
        return np.stack(near, 1) + self.corners, np.stack(far, 1) + self.corners

    def _agreement(self, *pair: int) -> float:
        """IoU of two masks in the part of the image that both windows show."""
        masks, corners = self.masks[list(pair)], self.corners[list(pair)]
        (top, left), (bottom, right) = corners.max(0), corners.min(0) + masks.shape[1:]
        one, other = (
            mask[top - y : bottom - y, left - x : right - x] for mask, (y, x) in zip(masks, corners)
        )
        return np.logical_and(one, other).sum() / max(np.logical_or(one, other).sum(), 1)
