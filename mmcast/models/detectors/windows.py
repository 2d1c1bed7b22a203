"""Prediction window by window, for images that hold many times what a training crop holds.

Learned queries divide an image's instances among themselves by place and look. Trained on crops with ten nuclei, they
do not divide a hundred that all look alike; in a window as large as a crop they do.
"""
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from mmdet.structures import DetDataSample, SampleList
from mmdet.structures.bbox import bbox_overlaps
from mmdet.structures.mask import mask2bbox
from mmengine.structures import InstanceData
from torch import Tensor
from torch.nn import functional as F

from mmcast.errors import CASTError

SAME_INSTANCE = 0.5  # IoU of two masks where both windows look
CUT_FACTOR = 0.5  # on the score of what a window's side cuts, in the choice between two views of an instance


@dataclass(frozen=True)
class Windows:
    """How an image is divided.

    Args:
        size: Side of a window in pixels of the network's input, a multiple of its patch or stride.
        overlap: Pixels that neighbours share, at least the size of an instance that is to be seen whole.
        score_thr: Instances with a lower score are dropped before windows are joined.
    """
    size: int
    overlap: int
    score_thr: float = 0.05

    def __post_init__(self) -> None:
        if not 0 <= self.overlap < self.size:
            raise CASTError(f'test_cfg.windows: overlap {self.overlap} must be from 0 to less than size {self.size}')

    def starts(self, length: int) -> list[int]:
        """Where windows begin along a side; the last one ends with the side."""
        last = max(length - self.size, 0)
        return [*range(0, last, self.size - self.overlap), last]


def predict_in_windows(predict: Callable[..., SampleList], images: Tensor, samples: SampleList, windows: Windows,
                       rescale: bool) -> SampleList:
    """Predict on overlapping windows and join what they show of the same instances.

    Args:
        predict: ``predict(images, samples, rescale=False)`` of a detector.
        images: (B, 3, H, W).
        samples: With ``img_shape`` and ``ori_shape``; get ``pred_instances``.
        rescale: Masks and boxes at ``ori_shape``, else at ``img_shape``.

    Returns:
        The samples.
    """
    for image, sample in zip(images, samples):
        places = [(y, x) for y in windows.starts(image.shape[1]) for x in windows.starts(image.shape[2])]
        crops = torch.stack([image[:, y:y + windows.size, x:x + windows.size] for y, x in places])
        shape = tuple(crops.shape[-2:])
        parts = predict(crops, [DetDataSample(metainfo=dict(
            img_shape=shape, ori_shape=shape, pad_shape=shape, batch_input_shape=shape, scale_factor=(1.0, 1.0)))
            for _ in places], rescale=False)
        views = [_view(part.pred_instances, place, image.shape[-2:], windows.score_thr, number)
                 for number, (part, place) in enumerate(zip(parts, places))]
        views = InstanceData.cat(views)
        sample.pred_instances = _place(views, _group(views), sample, image.shape[-2:], rescale)
    return samples


def _view(instances: InstanceData, place: tuple[int, int], size: Sequence[int], score_thr: float,
          window: int) -> InstanceData:
    """One window's instances, with its number and ``corner`` and whether a side of it within the image cuts them."""
    kept = instances[(instances.scores > score_thr) & instances.masks.flatten(1).any(1)]
    (top, left), (height, width) = place, instances.masks.shape[-2:]
    inner = (top > 0, top + height < size[0], left > 0, left + width < size[1])
    edges = (kept.masks[:, 0], kept.masks[:, -1], kept.masks[:, :, 0], kept.masks[:, :, -1])
    cut = [edge.any(1) for edge, within in zip(edges, inner) if within]
    kept.cut = torch.stack(cut).any(0) if cut else torch.zeros_like(kept.labels, dtype=torch.bool)
    kept.window = torch.full_like(kept.labels, window)
    kept.corner = kept.labels.new_tensor(place).expand(len(kept), 2)
    kept.bboxes = mask2bbox(kept.masks) + kept.bboxes.new_tensor([left, top, left, top])
    return kept


def _group(views: InstanceData) -> list[list[int]]:
    """Indices of the views of each instance, the best first: sure and not cut.

    Others are in the group only to complete an instance that no window shows whole.
    """
    rank = views.scores * torch.where(views.cut, CUT_FACTOR, 1.0)
    rivals = ((bbox_overlaps(views.bboxes, views.bboxes) > 0) & (views.labels[:, None] == views.labels)
              & (views.window[:, None] != views.window)).cpu().numpy()
    masks, corners, cut = (part.cpu().numpy() for part in (views.masks, views.corner, views.cut))
    groups: list[list[int]] = []
    for i in rank.argsort(descending=True).tolist():
        group = next((group for group in groups if any(
            rivals[i, j] and _agreement(masks[[i, j]], corners[[i, j]]) > SAME_INSTANCE for j in group)), None)
        if group is None:
            groups.append([i])
        elif cut[i] and cut[group[0]]:
            group.append(i)
    return groups


def _agreement(masks: np.ndarray, corners: np.ndarray) -> float:
    """IoU of two windows' masks (2, h, w) in the part of the image that both windows show."""
    (top, left), (bottom, right) = corners.max(0), corners.min(0) + masks.shape[1:]
    one, other = (mask[top - y:bottom - y, left - x:right - x] for mask, (y, x) in zip(masks, corners))
    return np.logical_and(one, other).sum() / max(np.logical_or(one, other).sum(), 1)


def _place(views: InstanceData, groups: list[list[int]], sample: DetDataSample, size: Sequence[int],
           rescale: bool) -> InstanceData:
    """One instance a group with its mask on the whole image: without padding, and of ``ori_shape`` if ``rescale``."""
    height, width = views.masks.shape[-2:]
    masks = views.masks.new_zeros((len(groups), *size))
    for mask, group in zip(masks, groups):
        for i in group:
            top, left = views.corner[i].tolist()
            mask[top:top + height, left:left + width] |= views.masks[i]
    masks = masks[:, :sample.img_shape[0], :sample.img_shape[1]]
    if rescale and masks.shape[-2:] != tuple(sample.ori_shape[:2]):
        masks = F.interpolate(masks[:, None].float(), size=sample.ori_shape[:2], mode='bilinear')[:, 0] >= 0.5
    best = views[torch.tensor([group[0] for group in groups], dtype=torch.long, device=masks.device)]
    for name in ('cut', 'window', 'corner'):
        best.pop(name)
    best.masks, best.bboxes = masks, mask2bbox(masks)
    return best[masks.flatten(1).any(1)]
