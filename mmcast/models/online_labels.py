"""Labels that a network makes while another one trains on them."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from mmdet.structures.mask import BitmapMasks
from mmengine.structures import InstanceData

from mmcast.errors import CASTError
from mmcast.masks.overlaps import resolve_overlaps

# What a prediction calls the score that a threshold is on.
_SCORES = dict(score_thr='scores', class_score_thr='class_scores', mask_quality_thr='mask_quality')


@dataclass
class OnlineLabels:
    """Chooses among a teacher's predictions what is to be learned from.

    Guided Distillation (arXiv 2308.02668) and S4M (arXiv 2504.05301) take a class probability above
    0.7; PL-DC (arXiv 2505.11075) thresholds class and mask apart, above 0.85 and 0.9.

    Attributes:
        score_thr: Predictions with a score above it are used.
        class_score_thr: The same for the probability of the class alone; to threshold the two
            apart, set ``score_thr=0``.
        mask_quality_thr: The same for the quality of the mask alone.
        min_area: Smallest number of pixels, counted after overlaps are resolved.
        min_visible: Smallest fraction of its pixels that better labels leave to one; a duplicate
            keeps only a sliver.
    """

    score_thr: float = 0.3
    class_score_thr: float | None = None
    mask_quality_thr: float | None = None
    min_area: int = 0
    min_visible: float = 0.5

    def choose(self, pred: InstanceData, size: Sequence[int]) -> InstanceData:
        """Confident predictions of one image as disjoint ground truth.

        Args:
            pred: ``scores``, ``labels`` and ``masks`` (N, h, w) of bool, at the size of the image.
            size: Height and width of the padded canvas.

        Raises:
            CASTError: A score with a threshold is not predicted.
        """
        pred = pred[self._is_sure(pred)]
        masks = pred.masks.cpu().numpy()
        left = resolve_overlaps(masks, pred.scores.cpu().numpy())
        keep = self._is_enough(masks, left)
        padded = BitmapMasks(left[keep].astype(np.uint8), *left.shape[1:]).pad(tuple(size))
        return _ground_truth(pred.labels[torch.from_numpy(keep).to(pred.labels.device)], padded)

    def add(self, labels: InstanceData, online: InstanceData) -> InstanceData:
        """``labels`` as they are, and those of ``online`` that they leave enough pixels to."""
        taken = labels.masks.to_ndarray()
        masks = online.masks.to_ndarray().astype(bool)
        left = masks & ~taken.any(0)
        keep = self._is_enough(masks, left)
        both = np.concatenate([taken, left[keep].astype(taken.dtype)])
        new = online.labels[torch.from_numpy(keep).to(online.labels.device)]
        return _ground_truth(
            torch.cat([labels.labels, new.to(labels.labels)]), BitmapMasks(both, *both.shape[1:])
        )

    def _is_sure(self, pred: InstanceData) -> torch.Tensor:
        sure = torch.ones_like(pred.labels, dtype=torch.bool)
        for option, field in _SCORES.items():
            threshold = getattr(self, option)
            if threshold is None:
                continue
            if field not in pred:
                raise CASTError(
                    f'semi_train_cfg.{option} is set, but the online teacher predicts no {field}; '
                    'use score_thr'
                )
            sure &= pred[field] > threshold
        return sure

    def _is_enough(self, masks: np.ndarray, left: np.ndarray) -> np.ndarray:
        areas, before = left.sum((1, 2)), masks.sum((1, 2))
        return (areas > 0) & (areas >= self.min_area) & (areas >= self.min_visible * before)


def _ground_truth(labels: torch.Tensor, masks: BitmapMasks) -> InstanceData:
    boxes = masks.get_bboxes('hbox').tensor.to(labels.device)
    return InstanceData(labels=labels, bboxes=boxes, masks=masks)
