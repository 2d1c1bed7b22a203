"""Training images made of several: copy-paste, mixup and mosaic of images with masks.

mmdet's transforms of these kinds (3.3.0, onedl 3.4.5) lose masks: ``Mosaic`` and ``MixUp`` leave
them where they were, ``CachedMosaic`` cuts them to the transposed size, and ``CopyPaste`` takes
images of one size alone. Those with a cache differ in a resumed run. Here the other images are read
anew, masks are resized as images are, and the scores of pseudo-labels come along.
"""

import inspect
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import cv2
import mmcv
import numpy as np
from mmcv.transforms import BaseTransform
from mmdet.datasets import CocoDataset
from mmdet.structures.mask import BitmapMasks

from mmcast.data.compressed_masks import CompressedMasks, Patch
from mmcast.data.generators import numbers_of_their_own
from mmcast.errors import CASTError
from mmcast.masks.confidence import LEVELS
from mmcast.masks.cropped import tight_slices
from mmcast.masks.resizing import nearest_centres
from mmcast.registry import TRANSFORMS
from mmcast.spelling import hint

# By the name in a data set's ``mixing``; images are mixed in this order.
MIXING = dict(mosaic='MosaicInstances', copy_paste='CopyPasteInstances', mixup='MixUpInstances')
_AFTER_MIXING = ('FilterAnnotations', 'Pack')  # beginnings of the names of transforms
_TRIES = 10  # draws of other images, where one is of no use


class MixedImages(CocoDataset):
    """A COCO data set of mmdet whose images may be mixed with others of the same data set.

    Every image, also one that is mixed into another, goes through the transforms of the pipeline up
    to the first whose name begins with ``FilterAnnotations`` or ``Pack``; then images are mixed.
    Mixing draws random numbers of its own: crops, flips and colours of the images are the same with
    it and without. In ``test_mode`` nothing is mixed.

    Args:
        mixing: Options by name, such as ``dict(mixup=dict(prob=0.5))``: ``mosaic``
            (:class:`MosaicInstances`), ``copy_paste`` (:class:`CopyPasteInstances`), ``mixup``
            (:class:`MixUpInstances`), applied in this order. Another name needs ``type``, a
            transform with the methods of :class:`MixingTransform`. None switches one off.

    Raises:
        CASTError: An option is unknown; or, when an image is loaded, it has no masks, or a
            transform leaves out labels without saying which.
    """

    def __init__(
        self, *args: Any, mixing: Mapping[str, Mapping | None] | None = None, **kwargs: Any
    ) -> None:
        self.mixers = build_mixing(mixing)
        super().__init__(*args, **kwargs)

    def prepare_data(self, index: int) -> Any:
        """The image after all transforms; None where one of them gives none."""
        if not self.mixers or self.test_mode:
            return super().prepare_data(index)
        transforms = self.pipeline.transforms
        names = [type(transform).__name__ for transform in transforms]
        split = next(
            (i for i, name in enumerate(names) if name.startswith(_AFTER_MIXING)), len(names)
        )
        results = self._load(index, transforms[:split])
        if results is None:
            return None
        with numbers_of_their_own():
            for mixer in self.mixers:
                others = self._load_others(mixer, index, transforms[:split])
                results = mixer(dict(results, mix_results=others)) if others else results
                _check_aligned(results, 'gt_scores', mixer, self.ann_file)
        results.pop('mix_results', None)
        for transform in transforms[split:]:
            if results is not None:
                results = transform(results)
        return results

    def _load_others(
        self, mixer: 'MixingTransform', index: int, transforms: Sequence[Callable]
    ) -> list[dict]:
        """The images to mix into one; none where the transform wants none, or no image with
        anything in its crop was found for a place.
        """
        others = []
        # ``prob`` is drawn here alone: drawn again for every empty crop, fewer images were mixed.
        for number in mixer.get_indexes(self, index):
            other = self._load(number, transforms)
            for _ in range(_TRIES - 1):
                if other is not None:
                    break
                replacement = mixer.get_another(self, index)
                other = None if replacement is None else self._load(replacement, transforms)
            if other is None:
                return []
            others.append(other)
        return others

    def _load(self, index: int, transforms: Sequence[Callable]) -> dict | None:
        """An image as the first transforms make it, with the scores of its labels; 1 of human
        annotations.
        """
        results = self.get_data_info(index)
        scores = [instance.get('score', 1.0) for instance in results['instances']]
        results['gt_instances_ids'] = np.arange(len(scores))
        for transform in transforms:
            results = transform(results)
            if results is None:
                return None
            _check_aligned(results, 'gt_instances_ids', transform, self.ann_file)
        if 'gt_masks' not in results:
            raise CASTError(
                f'{self.ann_file}: mixing needs masks: load annotations with_mask=True before the '
                'first of FilterAnnotations and PackDetInputs'
            )
        if results.get('source') == 'pseudo' and 'gt_seg_map' in results:
            # A confidence map; what transforms filled in is 255, which must not enter a mean.
            results['gt_seg_map'] = np.minimum(results['gt_seg_map'], LEVELS)
        left = results.pop('gt_instances_ids')
        return results | dict(gt_scores=np.array(scores, np.float32)[left])


def _check_aligned(results: dict, key: str, transform: Callable, ann_file: str) -> None:
    """Raises CASTError where an array is not as long as the boxes."""
    if 'gt_bboxes' in results and len(results['gt_bboxes']) != len(results[key]):
        raise CASTError(
            f'{ann_file}: {type(transform).__name__} leaves out labels without saying which, so '
            'mixing does not know their scores: put it behind FilterAnnotations, or leave out '
            'mixing'
        )


def build_mixing(mixing: Mapping[str, Mapping | None] | None) -> list['MixingTransform']:
    """The transforms that ``mixing`` of :class:`MixedImages` names.

    Raises:
        CASTError: a name or an option is unknown, or a value is out of range.
    """
    if not isinstance(mixing or {}, Mapping):
        raise CASTError(f'mixing={mixing}: give options by name, such as mixing.mixup.prob=0.5')
    given = {name: options for name, options in (mixing or {}).items() if options is not None}
    for name, options in given.items():
        if not isinstance(options, Mapping):
            raise CASTError(
                f'mixing.{name}={options}: give its options, such as mixing.{name}.prob'
            )
        if name not in MIXING and 'type' not in options:
            raise CASTError(f'mixing has no {name}; {hint(name, MIXING)}')
    # Not in the order of the dict: configs that MMEngine writes are sorted by key.
    order = [*(name for name in MIXING if name in given), *sorted(given.keys() - MIXING)]
    return [_build(name, dict(dict(type=MIXING.get(name)), **given[name])) for name in order]


def _build(name: str, options: dict) -> 'MixingTransform':
    kind = options['type']
    cls = TRANSFORMS.get(kind) if isinstance(kind, str) else kind
    if not _mixes_images(cls):
        raise CASTError(
            f'mixing.{name}: {kind} is no transform that mixes images with the methods of '
            'mmcast.data.mixing.MixingTransform'
        )
    known = [*inspect.signature(cls).parameters]
    for key in options.keys() - {'type'}:
        if key not in known:
            raise CASTError(f'mixing.{name} has no {key}; {hint(key, known)}')
    return TRANSFORMS.build(options)


def _mixes_images(cls: Any) -> bool:
    """Whether a class has the methods of :class:`MixingTransform`; those of mmdet that mix images
    have a ``get_indexes`` of the data set alone.
    """
    try:
        for method in (cls.get_indexes, cls.get_another):
            inspect.signature(method).bind('self', 'dataset', 'index')
    except (AttributeError, TypeError):
        return False
    return True


def merge_mixing(mixing: Mapping | None, changes: Mapping | None) -> dict[str, dict | None]:
    """Options by name with some of them changed; None switches an option off."""
    merged = dict(mixing or {})
    for name, options in (changes or {}).items():
        merged[name] = None if options is None else {**(merged.get(name) or {}), **options}
    return merged


class MixingTransform(BaseTransform):
    """A transform of an image and others of its data set.

    Args:
        prob: Fraction of the images, 0 to 1, that it changes.

    Attributes:
        number: How many other images it takes.
    """

    number = 1

    def __init__(self, prob: float = 0.5) -> None:
        self.prob = _in_range(self, 'prob', prob)

    def get_indexes(self, dataset: CocoDataset, index: int | None = None) -> list[int]:
        """Indices of the other images, none where this image stays as it is.

        Args:
            dataset: The data set.
            index: The image itself, which is not among them unless there is no other.
        """
        if np.random.rand() >= self.prob:
            return []
        drawn = [self.get_another(dataset, index) for _ in range(self.number)]
        found = [i for i in drawn if i is not None]
        return found if len(found) == self.number else []

    def get_another(self, dataset: CocoDataset, index: int | None = None) -> int | None:
        """Index of one other image, None where none is of use; called again where the crop of an
        image holds nothing. A transform that is choosy about images chooses here.

        Args:
            dataset: The data set.
            index: The image itself, which is not drawn unless there is no other.
        """
        return _another(len(dataset), index)

    def transform(self, results: dict) -> dict:
        """Mixes ``mix_results``, the other images, into ``img``, ``gt_masks``, ``gt_bboxes``,
        ``gt_bboxes_labels``, ``gt_ignore_flags`` and, where they are there, ``gt_scores`` and
        ``gt_seg_map``. The image keeps its size. Boxes are those of the masks.
        """
        others = results.pop('mix_results', [])
        return self.mix(results, others) if others else results

    def mix(self, results: dict, others: list[dict]) -> dict:
        """The image with the others in it."""
        raise NotImplementedError


@TRANSFORMS.register_module()
class CopyPasteInstances(MixingTransform):
    """Pastes instances of another image, at the place that they have there.

    Ghiasi et al., "Simple Copy-Paste is a Strong Data Augmentation Method for Instance
    Segmentation" (arXiv 2012.07177). What they cover is taken from the masks behind, ignore regions
    among them. An object of which next to nothing is left becomes an ignore region. Ignore regions
    themselves are not pasted.

    Args:
        prob: Fraction of the images, 0 to 1, that get instances.
        min_score: Instances with a score above it are pasted; that of human annotations is 1.
        min_area: Fewest pixels of a pasted instance in the training image, after resizing and
            cropping.
        max_objects: At most so many; how many of those that may be pasted is drawn, from 1 up.
        min_visible: Fraction of its pixels, 0 to 1, that must be left of an object behind for it to
            stay one.
    """

    def __init__(
        self,
        prob: float = 0.5,
        min_score: float = 0.5,
        min_area: int = 100,
        max_objects: int = 10,
        min_visible: float = 0.1,
    ) -> None:
        super().__init__(prob)
        self.min_score = _in_range(self, 'min_score', min_score)
        self.min_area = _in_range(self, 'min_area', min_area, high=None)
        self.max_objects = int(_in_range(self, 'max_objects', max_objects, 1, None))
        self.min_visible = _in_range(self, 'min_visible', min_visible)

    def get_another(self, dataset: CocoDataset, index: int | None = None) -> int | None:
        """An image with an instance to paste, of ten that are drawn."""
        for _ in range(_TRIES):
            drawn = _another(len(dataset), index)
            if any(map(self._is_sure, dataset.get_data_info(drawn)['instances'])):
                return drawn
        return None

    def _is_sure(self, instance: dict) -> bool:
        return not instance['ignore_flag'] and instance.get('score', 1.0) > self.min_score

    def mix(self, results: dict, others: list[dict]) -> dict:
        """Pastes instances of the first of the others."""
        donor, size = others[0], results['img'].shape[:2]
        patches = _patches(donor['gt_masks'], size)
        chosen = self._choose(donor, patches)
        if not len(chosen):
            return results
        cover = np.zeros(size, bool)
        for i in chosen:
            cover[_window(patches[i])] |= patches[i][2].view(bool)
        height, width = np.minimum(size, donor['img'].shape[:2])
        pasted = cover[:height, :width]
        for key in ('img', 'gt_seg_map'):
            if key in results:
                results[key] = results[key].copy()
                results[key][:height, :width][pasted] = donor[key][:height, :width][pasted]
        behind = _patches(results['gt_masks'], size)
        left = [(*patch[:2], patch[2] * ~cover[_window(patch)]) for patch in behind]
        hidden = _areas(left) < self.min_visible * _areas(behind)
        results['gt_ignore_flags'] = results['gt_ignore_flags'] | hidden
        front = [patch if i in chosen else None for i, patch in enumerate(patches)]
        return _with_labels(results, [(results, left), (donor, front)])

    def _choose(self, donor: dict, patches: Sequence[Patch]) -> np.ndarray:
        """Indices of the instances to paste."""
        possible = _areas(patches) >= max(1, self.min_area)
        possible &= ~donor['gt_ignore_flags'].astype(bool)
        if 'gt_scores' in donor:
            possible &= donor['gt_scores'] > self.min_score
        possible = np.flatnonzero(possible)
        if not len(possible):
            return possible
        number = np.random.randint(1, min(self.max_objects, len(possible)) + 1)
        return np.sort(np.random.choice(possible, number, replace=False))


@TRANSFORMS.register_module()
class MixUpInstances(MixingTransform):
    """The mean of two images, with the labels of both.

    As MixPL mixes pseudo-labeled images (Chen et al., "Mixed Pseudo Labels for Semi-Supervised
    Object Detection", arXiv 2312.07006): an object that a teacher missed is half as strong, so that
    calling it background costs less. Where the other image is smaller, the image stays as it is.

    Args:
        prob: Fraction of the images, 0 to 1, that are mixed.
    """

    def mix(self, results: dict, others: list[dict]) -> dict:
        """The mean with the first of the others."""
        other, size = others[0], results['img'].shape[:2]
        height, width = np.minimum(size, other['img'].shape[:2])
        for key in ('img', 'gt_seg_map'):
            if key in results:
                one, two = (
                    np.ascontiguousarray(each[key][:height, :width]) for each in (results, other)
                )
                results[key] = results[key].copy()
                results[key][:height, :width] = cv2.addWeighted(one, 0.5, two, 0.5, 0)
        return _with_labels(
            results, [(each, _patches(each['gt_masks'], size)) for each in (results, other)]
        )


@TRANSFORMS.register_module()
class MosaicInstances(MixingTransform):
    """Four images in one, each at half its size.

    As MixPL makes them of pseudo-labeled images (arXiv 2312.07006): large objects become small
    ones, which a teacher misses more often. What does not fit into its quarter is cut off.

    Args:
        prob: Fraction of the images, 0 to 1, that are mixed.
        pad_value: Of pixels on which no image lies, because one is smaller than the first.
    """

    number = 3

    def __init__(self, prob: float = 0.5, pad_value: float = 114) -> None:
        super().__init__(prob)
        self.pad_value = _in_range(self, 'pad_value', pad_value, 0, 255)

    def mix(self, results: dict, others: list[dict]) -> dict:
        """The image at the top left, the others from left to right and below."""
        size = results['img'].shape[:2]
        rows, columns = ((0, side // 2, side) for side in size)
        canvas = {
            key: np.full(results[key].shape, value, results[key].dtype)
            for key, value in (('img', self.pad_value), ('gt_seg_map', LEVELS))
            if key in results
        }
        parts = []
        for number, part in enumerate([results, *others]):
            (top, bottom), (left, right) = (
                borders[i : i + 2] for borders, i in ((rows, number // 2), (columns, number % 2))
            )
            half = [-(-side // 2) for side in part['img'].shape[:2]]
            for key, picture in canvas.items():
                kind = 'bilinear' if key == 'img' else 'nearest'
                small = mmcv.imresize(part[key], half[::-1], interpolation=kind)
                small = small[: bottom - top, : right - left]
                picture[top:, left:][: small.shape[0], : small.shape[1]] = small
            small = _patches(_resized(part['gt_masks'], half), (bottom - top, right - left))
            parts.append((part, [(top + y, left + x, pixels) for y, x, pixels in small]))
        return _with_labels(results | canvas, parts)


def _in_range(
    transform: MixingTransform, name: str, value: Any, low: float = 0, high: float | None = 1
) -> float:
    """A number, which is checked; None is no bound."""
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if not number or not low <= value <= (math.inf if high is None else high):
        end = '' if high is None else f' to {high:g}'
        raise CASTError(
            f'{type(transform).__name__}: {name}={value}: give a number from {low:g}{end}'
        )
    return value


def _another(number: int, index: int | None) -> int:
    """One of ``number`` indices, another than ``index`` if there is one."""
    if index is None or number < 2:
        return int(np.random.randint(number))
    drawn = int(np.random.randint(number - 1))
    return drawn + (drawn >= index)


def _window(patch: Patch) -> tuple[slice, slice]:
    """Where in its mask a patch lies."""
    top, left, pixels = patch
    return slice(top, top + pixels.shape[0]), slice(left, left + pixels.shape[1])


def _areas(patches: Sequence[Patch]) -> np.ndarray:
    """(N,) pixels of each mask."""
    return np.array([pixels.sum(dtype=int) for _, _, pixels in patches], int)


def _patches(masks: BitmapMasks, size: Sequence[int]) -> list[Patch]:
    """Those of masks (N, h, w), cut to ``size`` (H, W)."""
    if isinstance(masks, CompressedMasks):
        patches = masks.patches
    else:
        bitmaps = masks.to_ndarray()
        places = map(tight_slices, bitmaps)
        patches = [
            (rows.start, columns.start, mask[rows, columns])
            for mask, (rows, columns) in zip(bitmaps, places)
        ]
    return [_cut(patch, *size) for patch in patches]


def _cut(patch: Patch, height: int, width: int) -> Patch:
    top, left, pixels = patch
    pixels = pixels[: max(0, height - top), : max(0, width - left)]
    return (top, left, pixels) if pixels.size else (0, 0, pixels[:0, :0])


def _resized(masks: BitmapMasks, size: Sequence[int]) -> BitmapMasks:
    """Masks at ``size`` (height, width), sampled at the centres of pixels as images are."""
    if isinstance(masks, CompressedMasks):
        return masks.resize(tuple(size))
    rows, columns = (
        nearest_centres(np.arange(old), new) for old, new in zip((masks.height, masks.width), size)
    )
    return BitmapMasks(masks.to_ndarray()[:, rows][:, :, columns], *size)


def _with_labels(results: dict, parts: list[tuple[dict, list[Patch | None]]]) -> dict:
    """An image with the labels of several; those whose mask is None or empty are left out.

    Args:
        results: The image.
        parts: Images, with a mask for each of their labels.
    """
    left = [
        [i for i, patch in enumerate(patches) if patch is not None and patch[2].any()]
        for _, patches in parts
    ]
    masks = CompressedMasks.of_patches(
        [patches[i] for (_, patches), kept in zip(parts, left) for i in kept],
        *results['img'].shape[:2],
    )
    arrays = {
        key: np.concatenate([part[key][kept] for (part, _), kept in zip(parts, left)])
        for key in ('gt_bboxes_labels', 'gt_ignore_flags', 'gt_scores')
        if key in results
    }
    boxes = masks.get_bboxes(type(results['gt_bboxes']))
    return results | arrays | dict(gt_masks=masks, gt_bboxes=boxes)
