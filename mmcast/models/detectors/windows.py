"""Prediction window by window, for images that hold many times what a training crop holds.

Learned queries divide an image's instances among themselves by place and look. Trained on crops with ten nuclei, they
do not divide a hundred that all look alike; in a window as large as a crop they do.
"""
from collections.abc import Callable, Sequence

import torch
from mmdet.structures import DetDataSample, SampleList
from mmdet.structures.mask import mask2bbox
from mmengine.structures import InstanceData
from torch import Tensor
from torch.nn import functional as F

from mmcast.pseudo_labels.confidence import map_size
from mmcast.window_joining import Views, Windows


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
        places, size = windows.places(image.shape[1:]), tuple(image.shape[1:])
        crops = torch.stack([image[:, y:y + windows.size, x:x + windows.size] for y, x in places])
        shape = tuple(crops.shape[-2:])
        parts = predict(crops, [DetDataSample(metainfo=dict(
            img_shape=shape, ori_shape=shape, pad_shape=shape, batch_input_shape=shape, scale_factor=(1.0, 1.0)))
            for _ in places], rescale=False)
        found = InstanceData.cat([
            _instances_of(part.pred_instances, place, windows.score_thr) for part, place in zip(parts, places)])
        views = Views(*(found[name].cpu().numpy() for name in ('masks', 'scores', 'labels', 'corner')), size)
        sample.pred_instances = _place(found, views, sample, rescale)
    return samples


def _instances_of(found: InstanceData, place: tuple[int, int], score_thr: float) -> InstanceData:
    """One window's instances, with its ``corner``."""
    kept = found[(found.scores > score_thr) & found.masks.flatten(1).any(1)]
    kept.corner = kept.labels.new_tensor(place).expand(len(kept), 2)
    return kept


def _place(found: InstanceData, views: Views, sample: DetDataSample, rescale: bool) -> InstanceData:
    """One instance a group with its mask on the whole image: without padding, and of ``ori_shape`` if ``rescale``."""
    groups = views.groups()
    masks = torch.from_numpy(views.paste(groups)).to(found.masks.device)
    masks = masks[:, :sample.img_shape[0], :sample.img_shape[1]]
    if rescale and masks.shape[-2:] != tuple(sample.ori_shape[:2]):
        masks = F.interpolate(masks[:, None].float(), size=sample.ori_shape[:2], mode='bilinear')[:, 0] >= 0.5
    best = found[torch.tensor([group[0] for group in groups], dtype=torch.long, device=masks.device)]
    best.pop('corner')
    best.masks, best.bboxes = masks, mask2bbox(masks)
    if 'probabilities' in found:
        best.probabilities = _place_probabilities(found, groups, sample, views.size, masks)
    return best[masks.flatten(1).any(1)]


def _place_probabilities(found: InstanceData, groups: list[list[int]], sample: DetDataSample, size: Sequence[int],
                         masks: Tensor) -> Tensor:
    """The groups' mask probabilities (N, h, w) of uint8, as those of an image that is predicted whole.

    Where several views show a pixel, it is as probable as in the one that is surest of it.
    """
    height, width = found.masks.shape[-2:]
    small = map_size(masks.shape[1:])
    placed = [found.probabilities.new_zeros((0, *small))]
    for group in groups:
        canvas = torch.zeros(tuple(size), device=masks.device)
        for i in group:
            top, left = found.corner[i].tolist()
            part = F.interpolate(found.probabilities[i][None, None].float(), (height, width), mode='bilinear')[0, 0]
            there = canvas[top:top + height, left:left + width]
            torch.maximum(there, part, out=there)
        canvas = canvas[None, None, :sample.img_shape[0], :sample.img_shape[1]]
        placed.append(F.adaptive_avg_pool2d(F.interpolate(canvas, masks.shape[1:], mode='bilinear', antialias=True),
                                            small)[0].round().byte())
    return torch.cat(placed)
