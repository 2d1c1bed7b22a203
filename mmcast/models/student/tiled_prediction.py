"""Prediction window by window, for images that hold many times what a training crop holds.

Learned queries divide an image's instances among themselves by position and appearance. Trained on
crops with ten nuclei, they do not divide a hundred that all look alike; in a window as large as a
crop they do.
"""

from collections.abc import Callable, Sequence

import torch
from mmdet.structures import DetDataSample, SampleList
from mmdet.structures.mask import mask2bbox
from mmengine.structures import InstanceData
from torch import Tensor
from torch.nn import functional as F

from mmcast.masks.confidence import map_size
from mmcast.masks.tiling import Views, Windows
from mmcast.models.student.postprocess import to_bytes

NOWHERE = -20.0  # logit of a pixel that no view of an instance shows


def predict_in_windows(
    predict: Callable[..., SampleList],
    images: Tensor,
    samples: SampleList,
    windows: Windows,
    rescale: bool,
    probabilities: bool = False,
) -> SampleList:
    """Predict on overlapping windows and join what they show of the same instances.

    Masks are resized as logits. As binary masks they would grow or shrink: where a border splits a
    pixel, as every second one does in an image enlarged twofold, nothing is left to say which half
    weighs more.

    ``windows.batch_size`` windows go through the network at a time. In addition, memory holds the
    instances that were kept so far, each with mask and logits on its window (3 bytes a pixel), and
    at the end the masks on the whole image that are returned.

    Args:
        predict: ``predict(images, samples, rescale=False, logits_above=score)`` of a detector.
        images: (B, 3, H, W).
        samples: With ``img_shape`` and ``ori_shape``; get ``pred_instances``.
        windows: How an image is divided.
        rescale: Masks and boxes at ``ori_shape``, else at ``img_shape``.
        probabilities: Whether instances tell those of all pixels, of ``map_size``.

    Returns:
        The samples.
    """
    for image, sample in zip(images, samples):
        size = tuple(image.shape[1:])
        found = InstanceData.cat(
            [
                instances
                for places in windows.batches(size)
                for instances in _predict_batch(predict, image, places, windows)
            ]
        )
        masks, scores, labels, corners = (
            found[name].cpu().numpy() for name in ('masks', 'scores', 'labels', 'corner')
        )
        views = Views(masks, scores, labels, corners, size)
        sample.pred_instances = _place(found, views, sample, rescale, probabilities)
    return samples


def _predict_batch(
    predict: Callable[..., SampleList],
    image: Tensor,
    places: Sequence[tuple[int, int]],
    windows: Windows,
) -> list[InstanceData]:
    """The instances of some windows of an image (3, H, W), with their ``corner``."""
    crops = torch.stack([image[:, y : y + windows.size, x : x + windows.size] for y, x in places])
    shape = tuple(crops.shape[-2:])
    meta = dict(
        img_shape=shape,
        ori_shape=shape,
        pad_shape=shape,
        batch_input_shape=shape,
        scale_factor=(1.0, 1.0),
    )
    parts = predict(
        crops,
        [DetDataSample(metainfo=meta) for _ in places],
        rescale=False,
        logits_above=windows.score_thr,
    )
    return [
        _instances_of(part.pred_instances, place, windows.score_thr)
        for part, place in zip(parts, places)
    ]


def _instances_of(found: InstanceData, place: tuple[int, int], score_thr: float) -> InstanceData:
    """One window's instances, with its ``corner``."""
    kept = found[(found.scores > score_thr) & found.masks.flatten(1).any(1)]
    kept.corner = kept.labels.new_tensor(place).expand(len(kept), 2)
    return kept


def _place(
    found: InstanceData, views: Views, sample: DetDataSample, rescale: bool, probabilities: bool
) -> InstanceData:
    """One instance a group with its mask on the whole image: without padding, and of ``ori_shape``
    if ``rescale``.
    """
    groups = views.groups()
    best = found[
        torch.tensor([group[0] for group in groups], dtype=torch.long, device=found.scores.device)
    ]
    for field in ('corner', 'logits'):
        best.pop(field)
    size = tuple((sample.ori_shape if rescale else sample.img_shape)[:2])
    best.masks = found.masks.new_zeros((len(groups), *size))
    if probabilities:
        best.probabilities = found.masks.new_zeros(
            (len(groups), *map_size(size)), dtype=torch.uint8
        )
    for i, group in enumerate(
        groups
    ):  # one by one: as numbers, all masks of a crowded image are a gigabyte
        logits = _paste(found, group, views.size)[
            None, None, : sample.img_shape[0], : sample.img_shape[1]
        ]
        logits = F.interpolate(logits, size, mode='bilinear')
        best.masks[i] = logits[0, 0] > 0
        if probabilities:
            best.probabilities[i] = to_bytes(
                F.adaptive_avg_pool2d(logits, map_size(size))[0, 0].sigmoid()
            )
    best.bboxes = mask2bbox(best.masks)
    return best[best.masks.flatten(1).any(1)]


def _paste(found: InstanceData, group: list[int], size: tuple[int, int]) -> Tensor:
    """Logits (H, W) of an instance; of several views of a pixel, that of the one that is surest
    that it belongs.
    """
    height, width = found.logits.shape[-2:]
    canvas = torch.full(size, NOWHERE, device=found.logits.device)
    for i in group:
        top, left = found.corner[i].tolist()
        there = canvas[top : top + height, left : left + width]
        torch.maximum(there, found.logits[i].float(), out=there)
    return canvas
