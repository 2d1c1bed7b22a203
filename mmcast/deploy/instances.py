"""Predictions of one image in numpy, whatever made them; neither torch nor mmdet is needed."""

from dataclasses import dataclass

import numpy as np


@dataclass
class Instances:
    """N instances of one image, best first.

    Attributes:
        boxes: (N, 4) of float32: x1, y1, x2, y2 in pixels, x2 and y2 exclusive.
        masks: (N, H, W) of bool.
        scores: (N,) of float32, 0 to 1.
        labels: (N,) of int64, indices into the list of class names.
    """

    boxes: np.ndarray
    masks: np.ndarray
    scores: np.ndarray
    labels: np.ndarray

    def __len__(self) -> int:
        return len(self.scores)

    def __getitem__(self, places: np.ndarray) -> 'Instances':
        return Instances(
            self.boxes[places], self.masks[places], self.scores[places], self.labels[places]
        )

    def best_first(self) -> 'Instances':
        return self[np.argsort(-self.scores, kind='stable')]
