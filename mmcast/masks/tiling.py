"""Overlapping windows of an image, and which of their instances are the same; in numpy, for torch
and ONNX alike.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from mmcast.errors import CASTError
from mmcast.masks.cropped import CroppedMasks

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
            kept of all windows, cropped, these bound the memory that an image needs, however large
            it is.

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
        masks: V masks of the image, none empty, each within its window.
        scores: (V,).
        labels: (V,).
        corners: (V, 2) top row and left column of each one's window.
        side: Of a window in pixels; one at the end of a shorter side of the image is cut.
    """

    masks: CroppedMasks
    scores: np.ndarray
    labels: np.ndarray
    corners: np.ndarray
    side: int

    def __post_init__(self) -> None:
        self._near = self.masks.corners
        self._far = self._near + self.masks.shapes
        self._window_far = np.minimum(self.corners + self.side, self.masks.size)
        # Top, left, bottom and right as Python's numbers, which single pairs are faster with.
        self._boxes, self._shown = (
            np.concatenate(ends, axis=1).tolist()
            for ends in ((self._near, self._far), (self.corners, self._window_far))
        )
        self._areas = self.masks.areas()

    def groups(self) -> list[list[int]]:
        """Indices of the views of each instance, the best first: sure and not cut.

        Others are in the group only to complete an instance that no window shows whole. Of one
        window, only the best of several views of an instance counts: queries that were trained on
        few images often share one.
        """
        cut = self.cut()
        rank = self.scores * np.where(cut, CUT_FACTOR, 1.0)
        groups: list[list[int]] = []
        group_of = np.full(len(rank), -1)
        for i in np.argsort(-rank, kind='stable').tolist():
            rivals = np.flatnonzero(self._rivals(i) & (group_of >= 0))
            by_group = rivals[np.argsort(group_of[rivals], kind='stable')].tolist()
            same = next((j for j in by_group if self._agreement(i, j) > SAME_INSTANCE), None)
            if same is None:
                group_of[i] = len(groups)
                groups.append([i])
                continue
            group = groups[group_of[same]]
            if (
                cut[i]
                and cut[group[0]]
                and not (self.corners[i] == self.corners[group]).all(1).any()
            ):
                group_of[i] = group_of[same]
                group.append(i)
        return groups

    def paste(self, groups: Sequence[Sequence[int]]) -> CroppedMasks:
        """The masks of N ``groups``, lists of indices of views."""
        return CroppedMasks.of_parts(map(self._union, groups), self.masks.size)

    def cut(self) -> np.ndarray:
        """Whether a side of its window, within the image, cuts each view: (V,) of bool."""
        near = (self._near == self.corners) & (self.corners > 0)
        far = (self._far == self._window_far) & (self._window_far < self.masks.size)
        return (near | far).any(1)

    def _union(self, group: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
        """The pixels of any view of a group, and their top row and left column."""
        near, far = self._near[group].min(0), self._far[group].max(0)
        union = np.zeros(far - near, bool)
        for i in group:
            (top, left), crop = (self._near[i] - near).tolist(), self.masks.crops[i]
            union[top : top + crop.shape[0], left : left + crop.shape[1]] |= crop
        return union, near

    def _rivals(self, i: int) -> np.ndarray:
        """(V,) of bool: of the same class as view i, with boxes that overlap."""
        overlap = (self._near[i] < self._far) & (self._near < self._far[i])
        return overlap.all(1) & (self.labels == self.labels[i])

    def _agreement(self, *pair: int) -> float:
        """IoU of two masks in the part of the image that both windows show."""
        (top, left, bottom, right), shown = (
            _common(*(boxes[i] for i in pair)) for boxes in (self._boxes, self._shown)
        )
        one, other = (
            self.masks.crops[i][top - y : bottom - y, left - x : right - x]
            for i, (y, x, _, _) in zip(pair, (self._boxes[i] for i in pair))
        )
        shared = np.count_nonzero(one & other)
        return shared / max(sum(self._area(i, shown) for i in pair) - shared, 1)

    def _area(self, i: int, shown: Sequence[int]) -> int:
        """Pixels of a mask in a part of the image that holds some of its box."""
        top, left, bottom, right = inside = _common(self._boxes[i], shown)
        y, x = self._boxes[i][:2]
        if inside == self._boxes[i]:
            return self._areas[i]
        return np.count_nonzero(self.masks.crops[i][top - y : bottom - y, left - x : right - x])


def _common(one: Sequence[int], other: Sequence[int]) -> list[int]:
    """Top, left, bottom and right of what two boxes share."""
    return [*map(max, one[:2], other[:2]), *map(min, one[2:], other[2:])]
