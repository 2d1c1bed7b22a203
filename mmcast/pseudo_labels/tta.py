"""Test-time augmentation: what a teacher predicts on several views of an image becomes one set of
instances.
"""

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from mmengine.dataset import pseudo_collate
from mmengine.structures import InstanceData
from pycocotools import mask as mask_utils
from torch import Tensor, nn

from mmcast.errors import CASTError
from mmcast.masks.rle import encode_mask, mask_areas
from mmcast.pseudo_labels.store import PREDICTED

_MEANS_OVER_ALL = (
    'scores',
    'class_scores',
)  # what is not seen counts as 0; of the rest nothing is known there
_SAME_IOU = 0.5  # masks of one class and of two views are one instance from here on


def predict_views(
    model: nn.Module, data: dict, flip: bool, scales: Sequence[float], batch_size: int = 2
) -> list[InstanceData]:
    """The instances of each view of one image, all lying on the image itself.

    Args:
        model: a detector that predicts masks at the size of the original image.
        data: ``inputs`` (3, H, W) and ``data_samples`` of one image, as its test pipeline gives
            them.
        flip: predict on the mirrored image too, at every scale.
        scales: factors of the size that the pipeline gives.
        batch_size: most views of one size, which are the image and the mirrored image, in a
            forward pass.

    Raises:
        CASTError: the model predicts no masks.
    """
    views = []
    for scale in scales:
        scaled = _scale(data, scale)
        of_size = [scaled, dict(scaled, inputs=scaled['inputs'].flip(-1))][: 1 + flip]
        for start in range(0, len(of_size), batch_size):
            views += _predict(model, of_size[start : start + batch_size])
        if flip:
            _mirror(views[-1])
    return views


def _predict(model: nn.Module, views: Sequence[dict]) -> list[InstanceData]:
    """The instances of views of one size, in one forward pass."""
    # The collated samples are the model's to write to; the next view needs them as they were.
    views = [dict(view, data_samples=view['data_samples'].clone()) for view in views]
    predictions = [
        sample.get('pred_instances', {}) for sample in model.test_step(pseudo_collate(views))
    ]
    if any('masks' not in prediction for prediction in predictions):
        raise CASTError(
            f'the teacher {type(model).__name__} predicts no masks; take one that segments '
            'instances'
        )
    return predictions


def _mirror(prediction: InstanceData) -> None:
    for field in ('masks', 'probabilities'):
        if field in prediction:
            prediction[field] = prediction[field].flip(-1)


def _scale(data: dict, scale: float) -> dict:
    if scale == 1:
        return data
    inputs, sample = data['inputs'], data['data_samples'].clone()
    size = [max(1, round(side * scale)) for side in inputs.shape[-2:]]
    resized = F.interpolate(inputs[None].float(), size, mode='bilinear', antialias=True)[0]
    if not inputs.is_floating_point():
        resized = resized.round()
    factors = [
        new / old for new, old in zip(size[::-1], inputs.shape[:-3:-1])
    ]  # of width and height
    before = sample.metainfo.get('scale_factor', (1.0, 1.0))
    sample.set_metainfo(
        dict(
            img_shape=tuple(size),
            scale_factor=tuple(old * new for old, new in zip(before, factors)),
        )
    )
    return dict(inputs=resized.to(inputs.dtype), data_samples=sample)


def above(prediction: InstanceData, score_floor: float) -> InstanceData:
    """The instances with a score above the floor; full-size masks are not copied where all are."""
    kept = prediction.scores > score_floor
    return prediction if kept.all() else prediction[kept]


def merge_views(views: Sequence[InstanceData], score_floor: float) -> InstanceData:
    """One set of instances from those of V views, like weighted boxes fusion but with masks.

    Source: Solovyev et al., "Weighted boxes fusion", Image and Vision Computing 2021. In the order
    of their scores, an instance joins the one that it overlaps most, of its class, with IoU 0.5 or
    more and not yet seen in its view, or begins a new one. A pixel is in the merged mask if those
    with more than half of the scores say so. ``scores`` and ``class_scores`` are means over all V
    views, 0 where an instance is not seen; ``mask_quality`` and ``agreement`` are means over the
    views that see it, ``probabilities`` too, weighted by their scores.

    Args:
        views: each with ``scores`` and ``labels`` (N,), ``masks`` (N, H, W) of bool and perhaps
            ``class_scores``, ``mask_quality``, ``agreement`` (N,) and ``probabilities`` (N, h, w),
            on the CPU.
        score_floor: instances below are ignored.

    Returns:
        The same fields.
    """
    views = [above(view, score_floor) for view in views]
    of_view = np.repeat(np.arange(len(views)), [len(view) for view in views])
    rles = [encode_mask(mask) for view in views for mask in view.masks.numpy()]
    boxes = mask_utils.toBbox(rles).astype(np.int64).reshape(-1, 4)
    scores, labels = (_of_all(views, name).numpy() for name in ('scores', 'labels'))
    groups = _group(scores, labels, of_view, boxes, rles)
    return _average(views, groups, boxes)


def _of_all(views: Sequence[InstanceData], field: str) -> Tensor:
    return torch.cat([view[field] for view in views])


def _group(
    scores: np.ndarray,
    labels: np.ndarray,
    of_view: np.ndarray,
    boxes: np.ndarray,
    rles: Sequence[dict],
) -> list[list[int]]:
    """Which of N instances are one, as indices; each group begins with that of the highest score.

    Args:
        scores: (N,).
        labels: (N,).
        of_view: (N,) the view of each.
        boxes: (N, 4) of their masks: x, y, width, height.
        rles: their N masks.
    """
    near = _may_be_same(labels, of_view, boxes, np.array(mask_areas(rles), np.int64))
    groups: list[list[int]] = []
    firsts: list[int] = []  # of each group
    is_seen = np.zeros((len(rles) and of_view.max() + 1, len(rles)), bool)  # views in groups
    for member in np.argsort(-scores, kind='stable').tolist():
        seen = is_seen[of_view[member]]
        others = np.flatnonzero(near[member, firsts] & ~seen[: len(groups)])
        group = len(groups)
        if len(others):
            masks = [rles[firsts[other]] for other in others]
            ious = mask_utils.iou([rles[member]], masks, [0] * len(masks))
            if ious.max() >= _SAME_IOU:
                group = others[ious.argmax()]
        if group == len(groups):
            firsts.append(member)
            groups.append([])
        groups[group].append(member)
        seen[group] = True
    return groups


def _may_be_same(
    labels: np.ndarray, of_view: np.ndarray, boxes: np.ndarray, areas: np.ndarray
) -> np.ndarray:
    """Which pairs (N, N) of instances are of one class, two views and may have an IoU of 0.5.

    Then their masks share at least a third of the sum of their ``areas`` (N,), and so do ``boxes``
    (N, 4).
    """
    shared = 1
    for side in (0, 1):
        start, end = boxes[:, side], boxes[:, side] + boxes[:, side + 2]
        overlap = np.minimum.outer(end, end) - np.maximum.outer(start, start)
        shared = shared * overlap.clip(min=0)
    is_enough = 3 * shared >= np.add.outer(areas, areas)
    return is_enough & np.equal.outer(labels, labels) & np.not_equal.outer(of_view, of_view)


def _average(
    views: Sequence[InstanceData], groups: Sequence[list[int]], boxes: np.ndarray
) -> InstanceData:
    """One instance of each group of indices of those of all views; ``boxes`` (N, 4) are of their
    masks.
    """
    scores, first = _of_all(views, 'scores'), views[0]
    merged = InstanceData(
        labels=_of_all(views, 'labels')[[group[0] for group in groups]],
        masks=first.masks.new_zeros((len(groups), *first.masks.shape[1:])),
    )
    masks = [mask for view in views for mask in view.masks.numpy()]
    weights = scores.double().tolist()
    for mask, group in zip(merged.masks.numpy(), groups):
        _write_mean([(masks[i], boxes[i], weights[i]) for i in group], mask)
    for field in PREDICTED.values():
        if field in first:
            values = _of_all(views, field).tolist()
            sums = [sum(values[i] for i in group) for group in groups]
            counts = [len(views) if field in _MEANS_OVER_ALL else len(group) for group in groups]
            merged[field] = torch.tensor([total / count for total, count in zip(sums, counts)])
    if 'probabilities' in first:
        maps = [found for view in views for found in view.probabilities]
        means = [_mean([maps[i] for i in group], scores[group]) for group in groups]
        merged.probabilities = torch.stack(means) if groups else first.probabilities[:0]
    return merged


def _write_mean(members: Sequence[tuple[np.ndarray, np.ndarray, float]], mean: np.ndarray) -> None:
    """The mask of more than half of the weights.

    Args:
        members: mask (H, W) of bool, its box (x, y, width, height), its weight.
        mean: (H, W) of zeros, in which the mask is written. In double precision sums of scores are
            exact, so that a tie is one in any order.
    """
    if len(members) == 1 and members[0][2] > 0:
        mean[:] = members[0][0]
        return
    corner = np.min([box[:2] for _, box, _ in members], axis=0)
    end = np.max([box[:2] + box[2:] for _, box, _ in members], axis=0)
    sums = np.zeros((end - corner)[::-1])
    for mask, (x, y, width, height), weight in members:
        inside = mask[y : y + height, x : x + width]
        left, top = (x, y) - corner
        sums[top : top + height, left : left + width] += weight * inside
    half = sum(weight for _, _, weight in members) / 2
    mean[corner[1] : end[1], corner[0] : end[0]] = sums > half


def _mean(maps: Sequence[Tensor], weights: Tensor) -> Tensor:
    """Mean (h, w) of maps of uint8, by weights (N,)."""
    total = (torch.stack(list(maps)) * weights[:, None, None]).sum(0)
    return (total / weights.sum()).round().byte()
