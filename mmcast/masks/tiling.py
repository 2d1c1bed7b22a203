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
        cut = self.cut()
        rank = self.scores * np.where(cut, CUT_FACTOR, 1.0)
        groups: list[list[int]] = []
        group_of = np.full(len(rank), -1)
        for i in np.argsort(-rank, kind='stable').tolist():
            rivals = self._rivals(i, group_of >= 0)
            by_group = rivals[np.argsort(group_of[rivals], kind='stable')].tolist()
            same = next((j for j in by_group if self._are_same(i, j)), None)
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

    def _union(self, group: Sequence[int]) -> tuple[np.ndarray, list[int]]:
        """The pixels of any view of a group, and their top row and left column."""
        near, far = self._near[group].min(0), self._far[group].max(0)
        union = np.zeros(far - near, bool)
        for i in group:
            (top, left), crop = (self._near[i] - near).tolist(), self.masks.crops[i]
            union[top : top + crop.shape[0], left : left + crop.shape[1]] |= crop
        return union, near.tolist()

    def _rivals(self, i: int, among: np.ndarray) -> np.ndarray:
        """Indices of the views that may show the same instance as view i: of its class, and with
        boxes that overlap by enough.

        Args:
            i: Of a view.
            among: (V,) of bool, the views that are asked for.
        """
        overlap = (self._near[i] < self._far) & (self._near < self._far[i])
        rivals = np.flatnonzero(overlap.all(1) & (self.labels == self.labels[i]) & among)
        near, far = self._shared(self._near, self._far, i, rivals)
        window_near, window_far = self._shared(self.corners, self._window_far, i, rivals)
        areas = np.zeros(len(rivals))
        for which in (i, rivals):  # those that both windows show whole
            whole = (self._near[which] >= window_near) & (self._far[which] <= window_far)
            areas += whole.all(1) * self._areas[which]
        return rivals[(far - near).prod(1) * (1 + SAME_INSTANCE) >= SAME_INSTANCE * areas]

    @staticmethod
    def _shared(
        near: np.ndarray, far: np.ndarray, i: int, rivals: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """First and last + 1 pixel of what part i shares with each of some others."""
        return np.maximum(near[i], near[rivals]), np.minimum(far[i], far[rivals])

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
