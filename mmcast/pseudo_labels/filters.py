"""Which of the stored labels are used, and how many were left out for which reason."""

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
from pycocotools import mask as mask_utils

from mmcast.errors import CASTError
from mmcast.masks.overlaps import areas_without_overlaps, resolve_rle_overlaps
from mmcast.masks.rle import mask_areas
from mmcast.pseudo_labels.store import SCORES


class LabelFilter:
    """Chooses among the annotations of one image after the other, and counts.

    In this order: thresholds, ``top_k``, overlaps, ``min_visible``, ``min_area``.

    Args:
        thresholds: by field (``score``, ``class_score``, ``mask_quality``, ``agreement``) and
            category id; a label is used if each of its scores is above. Labels of other categories
            do not exist.
        min_area: smallest number of pixels, of those that overlaps leave.
        top_k: at most so many labels per image, those of the highest ``score``.
        min_visible: smallest fraction of its pixels that better labels leave to one; duplicates
            keep less.
        resolve_overlaps: a pixel that several labels claim goes to the one of the highest
            ``score``.

    Attributes:
        found: number of labels by category id.
        kept: number of used labels by category id.
        dropped: number of labels by reason: the field whose threshold was first missed, ``top_k``,
            ``covered`` (overlaps left no pixel), ``min_visible``, ``min_area``.

    Raises:
        CASTError: an argument is out of range.
    """

    def __init__(
        self,
        thresholds: Mapping[str, Mapping[int, float]],
        min_area: int = 0,
        top_k: int | None = None,
        min_visible: float = 0,
        resolve_overlaps: bool = True,
    ) -> None:
        _check_options(min_area, top_k, min_visible)
        self._limits = defaultdict(list)
        for field, limits in thresholds.items():
            for category, limit in limits.items():
                self._limits[category].append((field, limit))
        self.min_area, self.top_k = min_area, top_k
        self.min_visible, self.resolve_overlaps = min_visible, resolve_overlaps
        self.found, self.kept, self.dropped = Counter(), Counter(), Counter()

    def __call__(self, annotations: Sequence[dict]) -> list[dict]:
        """The annotations of one image that are used, in their order, with the pixels left to them.

        Raises:
            CASTError: a field with a threshold is not in the file.
        """
        chosen = self._choose(annotations)
        if not chosen:
            return []
        masks = [ann['segmentation'] for ann in chosen]
        whole = areas = mask_areas(masks)
        if self.resolve_overlaps:
            masks, before = resolve_rle_overlaps(masks, [ann['score'] for ann in chosen]), masks
            cut = [i for i, mask in enumerate(masks) if mask is not before[i]]
            areas = list(whole)
            for i, area in zip(cut, mask_areas([masks[i] for i in cut])):
                areas[i] = area
        boxes = mask_utils.toBbox(masks).tolist()
        return [
            dict(ann, segmentation=mask, area=area, bbox=box)
            for ann, mask, before, area, box in zip(chosen, masks, whole, areas, boxes)
            if self._keeps(ann, before, area)
        ]

    def areas(self, annotations: Sequence[dict]) -> list[tuple[dict, int]]:
        """The same annotations as they are stored, each with the number of pixels left to it, in
        less time.
        """
        chosen = self._choose(annotations)
        masks = [ann['segmentation'] for ann in chosen]
        whole = areas = mask_areas(masks)
        if self.resolve_overlaps:
            areas = areas_without_overlaps(masks, whole, [ann['score'] for ann in chosen])
        return [
            (ann, area)
            for ann, before, area in zip(chosen, whole, areas)
            if self._keeps(ann, before, area)
        ]

    def _choose(self, annotations: Sequence[dict]) -> list[dict]:
        """Those that thresholds and ``top_k`` leave, in their order."""
        chosen = [ann for ann in annotations if self._is_sure(ann)]
        if self.top_k is not None and len(chosen) > self.top_k:
            self.dropped['top_k'] += len(chosen) - self.top_k
            best = sorted(range(len(chosen)), key=lambda i: -chosen[i]['score'])[: self.top_k]
            chosen = [chosen[i] for i in sorted(best)]
        return chosen

    def _keeps(self, annotation: dict, whole: int, area: int) -> bool:
        """Whether enough of its pixels are left, which is counted."""
        if not area:
            self.dropped['covered'] += 1
        elif area < self.min_visible * whole:
            self.dropped['min_visible'] += 1
        elif area < self.min_area:
            self.dropped['min_area'] += 1
        else:
            self.kept[annotation['category_id']] += 1
            return True
        return False

    def _is_sure(self, annotation: dict) -> bool:
        limits = self._limits.get(annotation['category_id'])
        if limits is None:
            return False
        self.found[annotation['category_id']] += 1
        for field, limit in limits:
            if field not in annotation:
                raise CASTError(
                    f'a threshold on {field} is set, but the labels have no {field}: their teacher '
                    'does not tell it; use score_thr'
                )
            if not annotation[field] > limit:
                self.dropped[field] += 1
                return False
        return True

    def summary(self, names: Mapping[int, str]) -> str:
        """What was kept and why the rest was not, in one line; ``names`` by category id, in their
        order.
        """
        per_class = ', '.join(
            f'{name} {self.kept[category]}/{self.found[category]}'
            for category, name in names.items()
        )
        line = f'kept {self.kept.total()} of {self.found.total()} pseudo-labels ({per_class})'
        order = (*SCORES, 'top_k', 'covered', 'min_visible', 'min_area')
        reasons = ', '.join(
            f'{reason} {self.dropped[reason]}' for reason in order if self.dropped[reason]
        )
        return line + (f', dropped by {reasons}' if reasons else '')


def _check_options(min_area: int, top_k: int | None, min_visible: float) -> None:
    if top_k is not None and top_k < 0:
        raise CASTError(f'top_k is {top_k}: give a number from 0, or leave it out to take all')
    if not 0 <= min_visible <= 1:
        raise CASTError(f'min_visible is {min_visible}: give a fraction from 0 to 1')
    if not min_area >= 0:
        raise CASTError(f'min_area is {min_area}: give a number of pixels from 0')


def expand_threshold(
    threshold: float | Mapping[str, float], ids: Mapping[str, int], setting: str
) -> dict[int, float]:
    """One threshold, or one for each class by name, by category id.

    Args:
        threshold: as a config has it.
        ids: category id by name, of all classes.
        setting: its name, for the message.

    Raises:
        CASTError: the names are not those of the classes, or no score is above the number.
    """
    for value in threshold.values() if isinstance(threshold, Mapping) else [threshold]:
        if not value <= 1:
            raise CASTError(f'{setting} has {value}: give numbers up to 1, as scores are')
    if not isinstance(threshold, Mapping):
        return dict.fromkeys(ids.values(), threshold)
    if set(threshold) != set(ids):
        raise CASTError(
            f'{setting} is for the classes {", ".join(threshold)}: give one number for each of '
            f'{", ".join(ids)}'
        )
    return {category: threshold[name] for name, category in ids.items()}


def thresholds_from_data(
    annotations: Iterable[dict],
    num_images: int,
    ids: Mapping[str, int],
    percentile: float | None = None,
    labeled: dict | None = None,
    held_out: Mapping[str, float] | None = None,
) -> dict[int, float]:
    """A threshold on ``score`` for each class, by category id, that suits the scores of this class.

    Args:
        annotations: all stored labels.
        num_images: number of images that they are of, with the empty ones.
        ids: category id by name, of all classes.
        percentile: this percentage of the labels of a class, those of lowest score, is left out.
        labeled: human annotations as COCO JSON; of a class, as many labels per image are taken as
            they have, before overlaps are resolved.
        held_out: thresholds by class name, chosen where there is ground truth.

    Raises:
        CASTError: not one of the last three is given, or ``labeled`` lacks a class.
    """
    if sum(source is not None for source in (percentile, labeled, held_out)) != 1:
        raise CASTError(
            'thresholds_from takes one of percentile=NUMBER, labeled=FILE and held_out=FILE'
        )
    if held_out is not None:
        return {category: held_out[name] for name, category in ids.items()}
    if percentile is not None and not 0 <= percentile <= 100:
        raise CASTError(f'thresholds_from has percentile={percentile}: give a number from 0 to 100')
    scores = {category: [] for category in ids.values()}
    for annotation in annotations:
        if annotation['category_id'] in scores:
            scores[annotation['category_id']].append(annotation['score'])
    if labeled is None:
        counts = {
            category: len(found) * (1 - percentile / 100) for category, found in scores.items()
        }
    else:
        counts = {
            ids[name]: mean * num_images for name, mean in labels_per_image(labeled, ids).items()
        }
    return {
        category: threshold_keeping(scores[category], round(counts[category]))
        for category in scores
    }


def labels_per_image(labeled: dict, names: Iterable[str]) -> dict[str, float]:
    """Mean number of instances per image, by class name, in COCO labels as
    :func:`~mmcast.coco.reading.read_coco` returns them; groups (``iscrowd``) do not count.
    """
    names = list(names)
    ids = {category['name']: category['id'] for category in labeled['categories']}
    missing = [name for name in names if name not in ids]
    if missing:
        raise CASTError(
            f'the labeled set has no class {", ".join(missing)}, it has {", ".join(ids)}; give '
            'labels of the same classes'
        )
    counts = Counter(ann['category_id'] for ann in labeled['annotations'] if not ann.get('iscrowd'))
    return {name: counts[ids[name]] / max(1, len(labeled['images'])) for name in names}


def threshold_keeping(scores: Sequence[float], count: int) -> float:
    """The number that exactly ``count`` scores are above, or fewer where scores are equal."""
    if count >= len(scores):
        return -math.inf
    return float(np.partition(scores, len(scores) - 1 - count)[len(scores) - 1 - count])
