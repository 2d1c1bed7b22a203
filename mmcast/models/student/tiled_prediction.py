"""Prediction window by window, for images that hold many times what a training crop holds.

Learned queries divide an image's instances among themselves by position and appearance. Trained on
crops with ten nuclei, they do not divide a hundred that all look alike; in a window as large as a
crop they do.
"""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from mmdet.structures import DetDataSample, SampleList
from mmengine.structures import InstanceData
from torch import Tensor
from torch.nn import functional as F

from mmcast.masks.confidence import map_size
from mmcast.masks.cropped import CroppedMasks, LinearInterpolation, resize_part
from mmcast.masks.tiling import Views, Windows
from mmcast.models.student.postprocess import MaskLogits, to_bytes

NOWHERE = -20.0  # logit of a pixel that no view of an instance shows


def predict_in_windows(
    predict: Callable[..., SampleList],
    images: Tensor,
    samples: SampleList,
    windows: Windows,
    rescale: bool,
    probabilities: bool = False,
    cropped: bool = False,
) -> SampleList:
    """Predict on overlapping windows and join what they show of the same instances.

    Masks are resized as logits. As binary masks they would grow or shrink: where a border splits a
    pixel, as every second one does in an image enlarged twofold, nothing is left to say which half
    weighs more.

    ``windows.batch_size`` windows go through the network at a time. In addition, memory holds the
    instances that were kept so far, each cropped to its pixels. Whole windows of logits (2 bytes a
    pixel) are kept with ``probabilities``, and, where masks are resized, of instances that a
    window's side cuts. At the end come the masks on the whole image, if not ``cropped``.

    Args:
        predict: ``predict(images, samples, rescale=False, logits_above=score)`` of a detector;
            ``logits`` of its predictions are N objects that are indexed with rows and columns.
        images: (B, 3, H, W).
        samples: With ``img_shape`` and ``ori_shape``; get ``pred_instances``.
        windows: How an image is divided.
        rescale: Masks and boxes at ``ori_shape``, else at ``img_shape``.
        probabilities: Whether instances tell those of all pixels, of ``map_size``.
        cropped: Whether ``masks`` are :class:`~mmcast.masks.cropped.CroppedMasks` and not a tensor
            (N, H, W).

    Returns:
        The samples.
    """
    for image, sample in zip(images, samples):
        joining = _Joining(image, sample, rescale, probabilities)
        found = InstanceData.cat(
            [
                joining.cut_out(instances, place)
                for places in windows.batches(joining.size, image.device.type == 'cpu')
                for instances, place in zip(_predict_batch(predict, image, places, windows), places)
            ]
        )
        scores, labels, corners = (
            found[name].cpu().numpy() for name in ('scores', 'labels', 'corner')
        )
        views = Views(CroppedMasks.joined(joining.masks), scores, labels, corners, windows.size)
        sample.pred_instances = joining.place(found, views, cropped)
    return samples


def _predict_batch(
    predict: Callable[..., SampleList],
    image: Tensor,
    places: Sequence[tuple[int, int]],
    windows: Windows,
) -> list[InstanceData]:
    """The instances of some windows of an image (3, H, W)."""
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
    return [_above(part.pred_instances, windows.score_thr) for part in parts]


def _above(found: InstanceData, score_thr: float) -> InstanceData:
    """The instances with a higher score and any pixel."""
    return found[(found.scores > score_thr) & found.masks.flatten(1).any(1)]


class _Joining:
    """The instances of one image's windows, and what becomes of them on the image.

    Args:
        image: (3, H, W), what windows are cut out of.
        sample: With ``img_shape`` and ``ori_shape``.
        rescale: Masks at ``ori_shape``, else at ``img_shape``.
        probabilities: Whether instances tell those of all pixels.

    Attributes:
        masks: Those of each window, on the image.
        margin: Pixels around a mask on which the wanted one depends.
    """

    def __init__(
        self,
        image: Tensor,
        sample: DetDataSample,
        rescale: bool,
        probabilities: bool,
    ) -> None:
        self.size, self.probabilities = tuple(image.shape[1:]), probabilities
        self._device = image.device
        self.shown = tuple(sample.img_shape[:2])  # without padding
        self.wanted = tuple((sample.ori_shape if rescale else sample.img_shape)[:2])
        self.margin = int(self.shown != self.wanted)
        self.masks: list[CroppedMasks] = []
        self._pixels: list[_Place] = []  # of each instance of all windows
        self._logits: list[tuple[_Place, Tensor | MaskLogits]] = []  # likewise
        self._ways = [
            LinearInterpolation(*sides, np.float32) for sides in zip(self.shown, self.wanted)
        ]

    def cut_out(self, found: InstanceData, corner: tuple[int, int]) -> InstanceData:
        """Keeps masks and logits of a window's instances, cropped; returns the rest, with
        ``corner``.
        """
        masks = CroppedMasks.of(found.masks.cpu().numpy(), found.masks.shape[1:])
        self.masks.append(masks.copy_to(corner, self.size))
        self._pixels += self.masks[-1].slices()
        window = _at(corner, found.masks.shape[1:])
        if self.margin or self.probabilities:
            for logits, place in zip(found.logits, self._needed(self.masks[-1], window)):
                kept = logits if place == window else logits[_inside(place, window)]
                self._logits.append((place, kept.clone()))
        rest = InstanceData(**{k: v for k, v in found.items() if k not in ('masks', 'logits')})
        rest.corner = found.labels.new_tensor(corner).expand(len(found), 2)
        return rest

    def _needed(self, masks: CroppedMasks, window: '_Place') -> list['_Place']:
        """Where the logits of a window's instances may be needed."""
        if self.probabilities:
            return [window] * len(masks)
        own = [_common(_widened(place, self.margin), window) for place in masks.slices()]
        # What completes another window's view may be looked at wherever that one is.
        corners = np.tile([side.start for side in window], (len(own), 1))
        nothing = np.zeros(len(own))
        cut = Views(masks, nothing, nothing, corners, window[0].stop - window[0].start).cut()
        return [window if is_cut else place for is_cut, place in zip(cut.tolist(), own)]

    def place(self, found: InstanceData, views: Views, cropped: bool) -> InstanceData:
        """One instance for all views of it, with its mask; those without a pixel are left out.

        Args:
            found: What :meth:`cut_out` returned.
            views: The same instances.
            cropped: Whether masks stay cropped.
        """
        groups, device, probabilities = views.groups(), self._device, []
        if self._logits:
            parts = []
            for (
                group
            ) in groups:  # one by one: as numbers, all masks of a crowded image are gigabytes
                place = self._extent(group)
                logits = self._paste(group, place)
                parts.append(self._mask(logits, place))
                if self.probabilities:
                    probabilities.append(_pooled(logits, self.wanted))
            masks = CroppedMasks.of_parts(parts, self.wanted)
        else:
            masks = views.paste(groups).cut_to(self.wanted)
        best = found[torch.tensor([group[0] for group in groups], dtype=torch.long, device=device)]
        best.pop('corner')
        if self.probabilities:
            none = torch.zeros((0, *map_size(self.wanted)), dtype=torch.uint8, device=device)
            best.probabilities = torch.stack(probabilities) if probabilities else none
        best.bboxes = torch.from_numpy(masks.boxes()).to(device)
        kept = masks.any()
        best, masks = best[torch.from_numpy(kept).to(device)], masks[kept]
        best.masks = masks if cropped else _to_tensor(masks, device)
        return best

    def _extent(self, group: list[int]) -> '_Place':
        """The part of the image on which the mask of a group of views depends."""
        whole = slice(0, self.shown[0]), slice(0, self.shown[1])
        if self.probabilities:
            return whole
        places = [self._pixels[i] for i in group]
        union = tuple(
            slice(min(side.start for side in sides), max(side.stop for side in sides))
            for sides in zip(*places)
        )
        return _common(_widened(union, self.margin), whole)

    def _paste(self, group: list[int], place: '_Place') -> Tensor:
        """Logits (h, w) of an instance in a part of the image; of several views of a pixel, that of
        the one that is surest that it belongs.
        """
        shape = [side.stop - side.start for side in place]
        canvas = torch.full(shape, NOWHERE, device=self._device)
        for i in group:
            own, logits = self._logits[i]
            shared = _common(own, place)
            there, here = canvas[_inside(shared, place)], logits[_inside(own, own)]
            torch.maximum(there, here[_inside(shared, own)].float(), out=there)
        return canvas

    def _mask(self, logits: Tensor, place: '_Place') -> tuple[np.ndarray, tuple[int, int]]:
        """The wanted mask's pixels in a part of the image, and that part's top row and left column.

        Args:
            logits: (h, w) of a part of the image.
            place: The part.
        """
        corner = place[0].start, place[1].start
        if not self.margin or not logits.numel():  # as many pixels are wanted as there are
            return (logits > 0).cpu().numpy(), corner
        values, corner = resize_part(logits.cpu().numpy(), place, *self._ways, outside=NOWHERE)
        return values > 0, corner


def _pooled(logits: Tensor, size: tuple[int, int]) -> Tensor:
    """Probabilities of an instance, of ``map_size`` of ``size``, in bytes."""
    whole = F.interpolate(logits[None, None], size, mode='bilinear')
    return to_bytes(F.adaptive_avg_pool2d(whole, map_size(size))[0, 0].sigmoid())


def _to_tensor(masks: CroppedMasks, device: torch.device) -> Tensor:
    """(N, H, W) of bool."""
    whole = torch.zeros((len(masks), *masks.size), dtype=torch.bool, device=device)
    for mask, place, crop in zip(whole, masks.slices(), masks.crops):
        mask[place] = torch.from_numpy(crop).to(device)
    return whole


# A part of an image: rows and columns.
_Place = tuple[slice, slice]


def _at(corner: Sequence[int], shape: Sequence[int]) -> _Place:
    """That of a ``shape`` with its top left pixel at ``corner``."""
    rows, columns = (slice(start, start + size) for start, size in zip(corner, shape))
    return rows, columns


def _widened(place: _Place, margin: int) -> _Place:
    rows, columns = (slice(max(side.start - margin, 0), side.stop + margin) for side in place)
    return rows, columns


def _common(one: _Place, other: _Place) -> _Place:
    """What two parts share; of no pixel if they share none."""
    starts = [max(sides[0].start, sides[1].start) for sides in zip(one, other)]
    stops = [min(sides[0].stop, sides[1].stop) for sides in zip(one, other)]
    return _at(starts, [max(stop - start, 0) for start, stop in zip(starts, stops)])


def _inside(place: _Place, outer: _Place) -> _Place:
    """A part as seen from the top left pixel of one that holds it."""
    rows, columns = (
        slice(side.start - out.start, side.stop - out.start) for side, out in zip(place, outer)
    )
    return rows, columns
