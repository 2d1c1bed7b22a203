"""Predictions of one image in numpy, whatever made them; neither torch nor mmdet is needed."""

from functools import cached_property

import numpy as np

from mmcast.masks.cropped import CroppedMasks


class Instances:
    """N instances of one image, best first.

    Args:
        boxes: (N, 4) of float32: x1, y1, x2, y2 in pixels, x2 and y2 exclusive.
        masks: (N, H, W) of bool, or cropped.
        scores: (N,) of float32, 0 to 1.
        labels: (N,) of int64, indices into the list of class names.

    Attributes:
        boxes: As given.
        scores: As given.
        labels: As given.
    """

    def __init__(
        self,
        boxes: np.ndarray,
        masks: np.ndarray | CroppedMasks,
        scores: np.ndarray,
        labels: np.ndarray,
    ) -> None:
        self.boxes, self.scores, self.labels = boxes, scores, labels
        self._given = masks

    @cached_property
    def masks(self) -> np.ndarray:
        """(N, H, W) of bool. A student that predicts in windows has them cropped; this array, which
        a large image may have no memory for, is made when it is asked for.
        """
        return self._given.to_array() if isinstance(self._given, CroppedMasks) else self._given

    @cached_property
    def cropped(self) -> CroppedMasks:
        """The same masks, of each the part that holds its pixels."""
        if isinstance(self._given, CroppedMasks):
            return self._given
        return CroppedMasks.of(self._given, self._given.shape[1:])

    def __len__(self) -> int:
        return len(self.scores)

    def __getitem__(self, places: np.ndarray) -> 'Instances':
        return Instances(
            self.boxes[places], self._given[places], self.scores[places], self.labels[places]
        )

    def best_first(self) -> 'Instances':
        return self[np.argsort(-self.scores, kind='stable')]
