"""Test-time augmentation: what a teacher predicts on several views of an image becomes one set of
instances.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from mmengine.dataset import pseudo_collate
from mmengine.structures import InstanceData
from pycocotools import mask as mask_utils
from torch import Tensor, nn

from mmcast.errors import CASTError
from mmcast.masks.rle import encode_mask
from mmcast.pseudo_labels.store import PREDICTED

_MEANS_OVER_ALL = (
    'scores',
    'class_scores',
)  # what is not seen counts as 0; of the rest nothing is known there
_SAME_IOU = 0.5  # masks of one class and of two views are one instance from here on


def predict_views(
    model: nn.Module, data: dict, flip: bool, scales: Sequence[float]
) -> list[InstanceData]:
    """The instances of each view of one image, all lying on the image itself.

    Args:
        model: a detector that predicts masks at the size of the original image.
        data: ``inputs`` (3, H, W) and ``data_samples`` of one image, as its test pipeline gives
            them.
        flip: predict on the mirrored image too, at every scale.
        scales: factors of the size that the pipeline gives.

    Raises:
        CASTError: the model predicts no masks.
    """
    views = []
    for scale in scales:
        scaled = _scale(data, scale)
        for mirrored in (False, True)[: 1 + flip]:
            view = dict(scaled, inputs=scaled['inputs'].flip(-1)) if mirrored else scaled
            # The collated sample is the model's to write to; the next view needs it as it was.
            view = dict(view, data_samples=view['data_samples'].clone())
            prediction = model.test_step(pseudo_collate([view]))[0].pred_instances
            if 'masks' not in prediction:
                raise CASTError(
                    f'the teacher {type(model).__name__} predicts no masks; take one that segments '
                    'instances'
                )
            if mirrored:
                for field in ('masks', 'probabilities'):
                    if field in prediction:
                        prediction[field] = prediction[field].flip(-1)
            views.append(prediction)
    return views


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
    members = [(view, index) for view, found in enumerate(views) for index in range(len(found))]
    rles = [encode_mask(mask) for found in views for mask in found.masks.numpy()]
    members = sorted(
        zip(members, rles), key=lambda member: -float(views[member[0][0]].scores[member[0][1]])
    )
    groups: list[dict] = []
    for (view, index), rle in members:
        label = int(views[view].labels[index])
        open_groups = [
            group for group in groups if group['label'] == label and view not in group['seen']
        ]
        ious = mask_utils.iou(
            [rle], [group['rle'] for group in open_groups], [0] * len(open_groups)
        )
        if open_groups and ious.max() >= _SAME_IOU:
            open_groups[int(ious.argmax())]['seen'][view] = index
        else:
            groups.append(dict(label=label, rle=rle, seen={view: index}))
    return _average(views, groups)


def _average(views: Sequence[InstanceData], groups: Sequence[dict]) -> InstanceData:
    first = views[0]
    merged = InstanceData(
        labels=torch.tensor([group['label'] for group in groups], dtype=torch.long),
        masks=torch.stack([_mean_mask(views, group['seen']) for group in groups])
        if groups
        else first.masks.new_zeros((0, *first.masks.shape[1:])),
    )
    for field in PREDICTED.values():
        if field in first:
            sums = [
                sum(float(views[view][field][index]) for view, index in group['seen'].items())
                for group in groups
            ]
            counts = [
                len(views) if field in _MEANS_OVER_ALL else len(group['seen']) for group in groups
            ]
            merged[field] = torch.tensor([total / count for total, count in zip(sums, counts)])
    if 'probabilities' in first:
        means = [_mean_of(views, group['seen'], 'probabilities').round().byte() for group in groups]
        merged.probabilities = torch.stack(means) if groups else first.probabilities[:0]
    return merged


def _mean_mask(views: Sequence[InstanceData], seen: dict[int, int]) -> Tensor:
    return _mean_of(views, seen, 'masks') > 0.5


def _mean_of(views: Sequence[InstanceData], seen: dict[int, int], field: str) -> Tensor:
    """Mean (H, W) of an instance's maps in the views that see it, weighted by their scores."""
    maps = torch.stack([views[view][field][index] for view, index in seen.items()])
    weights = torch.stack([views[view].scores[index] for view, index in seen.items()])
    return (maps * weights[:, None, None]).sum(0) / weights.sum()
