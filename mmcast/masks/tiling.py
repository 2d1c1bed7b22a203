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
BATCH_SIZE = 8  # windows that an accelerator computes at a time


@dataclass(frozen=True)
class Windows:
    """How an image is divided.

    Args:
        size: Side of a window in pixels of the network's input, a multiple of its patch or stride.
        overlap: Pixels that neighbours share, at least the size of an instance that is to be seen
            whole.
        score_thr: Instances with a lower score are dropped before windows are joined.
        batch_size: So many windows go through the network at a time; None is 1 on a CPU, whose
            caches hold no more, and 8 elsewhere. With the instances that are kept of all windows,
            cropped, these bound the memory that an image needs, however large it is.

    Raises:
        CASTError: The overlap is negative or not smaller than the size, or the batch is empty.
    """

    size: int
    overlap: int
    score_thr: float = 0.05
    batch_size: int | None = None

    def __post_init__(self) -> None:
        if self.batch_size is not None and self.batch_size < 1:
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

    def batches(self, size: Sequence[int], on_cpu: bool) -> Iterator[list[tuple[int, int]]]:
        """The places of an image of ``size``, ``batch_size`` at a time.

        Args:
            size: Height and width.
            on_cpu: Whether the network runs there.
        """
        places, step = self.places(size), self.batch_size or (1 if on_cpu else BATCH_SIZE)
        for first in range(0, len(places), step):
            yield places[first : first + step]


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
        self._areas = np.array(self.masks.areas(), int)

    def groups(self) -> list[list[int]]:
        """Indices of the views of each instance, the best first: sure and not cut.

        Others are in the group only to complete an instance that no window shows whole. Of one
        window, only the best of several views of an instance counts: queries that were trained on
        few images often share one.
        """
        cut, rivals = self.cut(), self._rivals()
        rank = self.scores * np.where(cut, CUT_FACTOR, 1.0)
        groups: list[list[int]] = []
        group_of: dict[int, int] = {}
        for i in np.argsort(-rank, kind='stable').tolist():
            by_group = sorted((j for j in rivals[i] if j in group_of), key=group_of.__getitem__)
            same = next((j for j in by_group if self._are_same(i, j)), None)
            if same is None:
                group_of[i] = len(groups)
                groups.append([i])
                continue
            group = groups[group_of[same]]
            if cut[i] and cut[group[0]] and self._shown[i] not in [self._shown[j] for j in group]:
                group_of[i] = group_of[same]
                group.append(i)
        return groups

    def paste(self, groups: Sequence[Sequence[int]]) -> CroppedMasks:
        """The masks of N ``groups``, lists of indices of views."""
        alone = self.masks[[group[0] for group in groups]]
        united = [number for number, group in enumerate(groups) if len(group) > 1]
        parts = (self._union(groups[number]) for number in united)
        return alone.replaced(united, CroppedMasks.of_parts(parts, self.masks.size))

    def cut(self) -> np.ndarray:
        """Whether a side of its window, within the image, cuts each view: (V,) of bool."""
        near = (self._near == self.corners) & (self.corners > 0)
        far = (self._far == self._window_far) & (self._window_far < self.masks.size)
        return (near | far).any(1)

    def _union(self, group: Sequence[int]) -> tuple[np.ndarray, list[int]]:
        """The pixels of any view of a group, and their top row and left column."""
        near, far = self._near[group].min(0), self._far[group].max(0)
        union = np.zeros(far - near, bool)
        for i in group:
            (top, left), crop = (self._near[i] - near).tolist(), self.masks.crops[i]
            union[top : top + crop.shape[0], left : left + crop.shape[1]] |= crop
        return union, near.tolist()

    def _rivals(self) -> list[list[int]]:
        """For each view the indices, ascending, of those that may show the same instance: of its
        class, and with boxes that overlap by enough.
        """
        corners, window = np.unique(self.corners, axis=0, return_inverse=True)
        shown_in = [np.flatnonzero(window.ravel() == number) for number in range(len(corners))]
        found: list[list[int]] = [[] for _ in self._boxes]
        for corner, views in zip(corners, shown_in):
            near = np.flatnonzero((np.abs(corners - corner) < self.side).all(1)).tolist()
            others = np.sort(np.concatenate([shown_in[number] for number in near]))
            pairs = self.labels[views, None] == self.labels[others]
            for near_side, far_side in zip(self._near.T, self._far.T):  # of rows, of columns
                pairs &= near_side[views, None] < far_side[others]
                pairs &= near_side[others] < far_side[views, None]
            one, other = (side[places] for side, places in zip((views, others), pairs.nonzero()))
            enough = self._may_be_same(one, other)
            for i, j in zip(one[enough].tolist(), other[enough].tolist()):
                found[i].append(j)
        return found

    def _may_be_same(self, one: np.ndarray, other: np.ndarray) -> np.ndarray:
        """Whether so much of P pairs' boxes overlaps that an IoU above the threshold may be: (P,)
        of bool. Of the areas, those count that both windows show whole.
        """

        def shared(near: np.ndarray, far: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
            return np.maximum(near[one], near[other]), np.minimum(far[one], far[other])

        near, far = shared(self._near, self._far)
        window_near, window_far = shared(self.corners, self._window_far)
        areas = np.zeros(len(one))
        for view in (one, other):
            whole = (self._near[view] >= window_near) & (self._far[view] <= window_far)
            areas += whole.all(1) * self._areas[view]
        return (far - near).prod(1) * (1 + SAME_INSTANCE) >= SAME_INSTANCE * areas

    def _are_same(self, i: int, j: int) -> bool:
        """Whether two masks are one, by their IoU in what both windows show of the image."""
        y, x, bottom, right = self._boxes[i]
        v, u, other_bottom, other_right = self._boxes[j]
        top, left = max(y, v), max(x, u)
        bottom, right = min(bottom, other_bottom), min(right, other_right)
        one = self.masks.crops[i][top - y : bottom - y, left - x : right - x]
        other = self.masks.crops[j][top - v : bottom - v, left - u : right - u]
        shared = np.count_nonzero(one & other)
        if not shared:  # most pairs, whose boxes alone overlap
            return False
        window = _common(self._shown[i], self._shown[j])
        both = self._area(i, window) + self._area(j, window)
        return shared / (both - shared) > SAME_INSTANCE

    def _area(self, i: int, shown: list[int]) -> int:
        """Pixels of a mask in a part of the image that holds some of its box."""
        top, left, bottom, right = inside = _common(self._boxes[i], shown)
        if inside == self._boxes[i]:
            return self._areas[i]
        y, x, _, _ = self._boxes[i]
        return np.count_nonzero(self.masks.crops[i][top - y : bottom - y, left - x : right - x])


def _common(one: list[int], other: list[int]) -> list[int]:
    """Top, left, bottom and right of what two boxes share."""
    return [
        max(one[0], other[0]),
        max(one[1], other[1]),
        min(one[2], other[2]),
        min(one[3], other[3]),
    ]
