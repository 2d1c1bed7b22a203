"""Quality of pseudo-labels, where there is held-out ground truth."""

import math
import os
import posixpath
import sys
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from pycocotools import mask as mask_utils

from mmcast.coco.evaluation import MaskPrecision
from mmcast.coco.reading import read_coco
from mmcast.errors import CASTError
from mmcast.masks.rle import encode_segmentation
from mmcast.pseudo_labels.store import SCORES

MATCHING_IOU = 0.5
_BINS = 10


def read_ground_truth(path: str | os.PathLike, store: dict) -> dict[int, list[dict]]:
    """The ground truth of a store's images, by the store's image ids.

    Images are found by file name and classes by name, so that ids may differ. Masks come as RLE.

    Returns:
        For every image of the store that the file lists: dicts with ``category_id`` (the store's),
        ``segmentation``, ``iscrowd`` and ``area``.

    Raises:
        CASTError: the file cannot be read, or has none of the images, some in another size, or not
            all of the classes.
    """
    content = read_coco(path)
    images = _match_images(content['images'], store['images'], path)
    categories = _match_categories(content, store['categories'], path)
    labels: dict[int, list[dict]] = {image['id']: [] for image in images.values()}
    for ann in content['annotations']:
        image = images.get(ann['image_id'])
        if image is None or ann['category_id'] not in categories:
            continue
        rle = encode_segmentation(ann['segmentation'], image['height'], image['width'])
        labels[image['id']].append(
            dict(
                category_id=categories[ann['category_id']],
                segmentation=rle,
                iscrowd=int(ann.get('iscrowd') or 0),
                area=int(mask_utils.area(rle)),
            )
        )
    return labels


def _match_images(
    images: list[dict], stored: list[dict], path: str | os.PathLike
) -> dict[int, dict]:
    """The store's entry of each image that it has too, by the id in the ground truth."""
    by_name = {image['file_name']: image for image in stored}  # normal paths
    named = {image['id']: posixpath.normpath(image['file_name']) for image in images}
    found = {number: by_name[name] for number, name in named.items() if name in by_name}
    if not found:
        raise CASTError(
            f'{path} has none of the images of the pseudo-labels, such as '
            f'{next(iter(by_name), "(none)")}; give the labels of the same images'
        )
    other = [
        image
        for image in images
        if image['id'] in found
        and any(image[side] != found[image['id']][side] for side in ('height', 'width'))
    ]
    if other:
        image, own = other[0], found[other[0]['id']]
        raise CASTError(
            f'{path} lists {len(other)} images in another size than the pseudo-labels, such as '
            f'{image["file_name"]}, {image["width"]}x{image["height"]} and not '
            f'{own["width"]}x{own["height"]}; give the labels of the same images'
        )
    return found


def _match_categories(content: dict, stored: list[dict], path: str | os.PathLike) -> dict[int, int]:
    """The store's category id by that of the ground truth."""
    ids = {category['name']: category['id'] for category in content['categories']}
    missing = [category['name'] for category in stored if category['name'] not in ids]
    if missing:
        raise CASTError(
            f'{path} has no class {", ".join(missing)}, it has {", ".join(ids)}; give '
            'labels of the same classes'
        )
    return {ids[category['name']]: category['id'] for category in stored}


@dataclass
class Comparison:
    """Labels against ground truth, one entry per label.

    Attributes:
        scores: by field, (N,); NaN where a label has none.
        correct: (N,), whether the label has a ground truth of its class, and of IoU 0.5 or more, to
            itself; labels take in the order of their ``score``, each the best that is left, as in
            COCO's evaluation.
        iou: (N,) with the best ground truth of the class, taken or not.
        total: number of ground truths.
        image_quality: by image id, panoptic quality without regard to class sizes: sum of the
            matched IoUs over matched + (wrong + missed) / 2; images without labels on either side
            are left out.
    """

    scores: dict[str, np.ndarray]
    correct: np.ndarray
    iou: np.ndarray
    total: int
    image_quality: dict[int, float]

    def summary(self) -> dict[str, float | None]:
        """Precision, recall and mean IoU of the correct labels; None where nothing is to be divided
        by.
        """
        correct = int(self.correct.sum())
        return dict(
            precision=_ratio(correct, len(self.correct)),
            recall=_ratio(correct, self.total),
            mean_iou=_ratio(float(self.iou[self.correct].sum()), correct),
        )


class Comparer:
    """Matches the labels of one image after the other with ground truth; a label on a group
    (``iscrowd``) does not count.
    """

    def __init__(self) -> None:
        self._rows: dict[int, np.ndarray] = {}  # by image id: correct, IoU and each score
        self._quality: dict[int, float] = {}
        self._total = 0

    def add(self, image_id: int, labels: Sequence[dict], truths: Sequence[dict]) -> None:
        found, expected = _by_class(labels), _by_class(truths)
        rows: list[tuple[float, ...]] = []
        matched, count = 0.0, 0
        for category in found.keys() | expected.keys():
            ious, expected_number, found_number = _match(found[category], expected[category], rows)
            self._total += expected_number
            matched += sum(ious)
            count += expected_number + found_number
        if count:
            self._quality[image_id] = 2 * matched / count
        if rows:
            self._rows[image_id] = np.array(rows)

    def result(self, image_ids: Iterable[int]) -> Comparison:
        """Of these images, in this order, which are all."""
        image_ids = list(image_ids)
        none = np.zeros((0, 2 + len(SCORES)))
        rows = np.concatenate([none, *(self._rows[own] for own in image_ids if own in self._rows)])
        scores = dict(zip(SCORES, rows[:, 2:].T.copy()))
        scores = {name: values for name, values in scores.items() if not np.isnan(values).all()}
        quality = {own: self._quality[own] for own in image_ids if own in self._quality}
        return Comparison(scores, rows[:, 0].astype(bool), rows[:, 1].copy(), self._total, quality)


def compare_labels(
    labels: Mapping[int, Sequence[dict]], hidden: Mapping[int, Sequence[dict]]
) -> Comparison:
    """Matches the labels of every image with ground truth, see :class:`Comparer`."""
    comparer = Comparer()
    for image_id, truths in hidden.items():
        comparer.add(image_id, labels.get(image_id, ()), truths)
    return comparer.result(hidden)


def _by_class(annotations: Sequence[dict]) -> dict[int, list[dict]]:
    groups = defaultdict(list)
    for annotation in annotations:
        groups[annotation['category_id']].append(annotation)
    return groups


def _match(
    found: list[dict], truths: list[dict], rows: list[tuple[float, ...]]
) -> tuple[list[float], int, int]:
    """Of one class and image: matched IoUs, number of ground truths and of labels that count, of
    which each gets a row.
    """
    single = np.array([not truth['iscrowd'] for truth in truths], bool)
    found = sorted(found, key=lambda ann: -ann['score'])
    ious = np.zeros((len(found), len(truths)))
    if found and truths:
        ious = mask_utils.iou(
            *([ann['segmentation'] for ann in part] for part in (found, truths)),
            (~single).astype(int).tolist(),
        )
    matched, counted = [], 0
    for ann, iou, own in zip(found, ious, pair(ious * single)):
        if own is not None:
            matched.append(float(iou[own]))
        elif (iou[~single] >= MATCHING_IOU).any():
            continue
        counted += 1
        best = float(np.where(single, iou, 0).max(initial=0))
        rows.append((own is not None, best, *(ann.get(name, math.nan) for name in SCORES)))
    return matched, int(single.sum()), counted


def pair(ious: np.ndarray) -> list[int | None]:
    """For each of N labels, best score first, the one of M ground truths that it alone is matched
    to, or None.

    Args:
        ious: (N, M), 0 where the two may not match.

    Returns:
        The column of the highest IoU that the labels before have left, where that is 0.5 or more.
    """
    left, own = np.array(ious, float), []
    for row in left:
        best = int(row.argmax()) if row.size else None
        own.append(best if row.size and row[best] >= MATCHING_IOU else None)
        if own[-1] is not None:
            left[:, best] = 0
    return own


def calibration(scores: np.ndarray, correct: np.ndarray, iou: np.ndarray) -> dict:
    """Precision and mean IoU of labels with about the same score, in ten bins of equal width.

    Returns:
        ``bins``: dicts with ``count``, ``score``, ``precision`` and ``iou`` (means), of bins with
        labels; ``error``: the expected calibration error, the mean of ``|score - precision|`` over
        the labels.
    """
    known = ~np.isnan(scores)
    scores, correct, iou = scores[known], correct[known], iou[known]
    number = np.minimum((scores * _BINS).astype(int), _BINS - 1)
    bins = [
        dict(
            count=int(chosen.sum()),
            score=float(scores[chosen].mean()),
            precision=float(correct[chosen].mean()),
            iou=float(iou[chosen].mean()),
        )
        for chosen in (number == value for value in range(_BINS))
        if chosen.any()
    ]
    errors = (each['count'] * abs(each['score'] - each['precision']) for each in bins)
    return dict(bins=bins, error=_ratio(sum(errors), len(scores)))


def mask_precision(image_ids: Iterable[int], store: dict) -> MaskPrecision:
    """For the mask AP of labels: to be told those of each of these images, and its ground truth."""
    return MaskPrecision(image_ids, [each['id'] for each in store['categories']], say=_note)


def describe_precision(found: MaskPrecision, store: dict) -> dict:
    """COCO's mask AP and AP50 in [0, 1].

    Returns:
        ``ap``, ``ap50`` and ``ap_of_class`` by name; None where there is no ground truth.
    """
    precision = found.precision()
    ids = sorted(category['id'] for category in store['categories'])
    of_class = {
        category['name']: _mean(precision[:, :, ids.index(category['id'])])
        for category in store['categories']
    }
    return dict(ap=_mean(precision), ap50=_mean(precision[0]), ap_of_class=of_class)


def _note(line: str) -> None:
    print(f'note: {line}', file=sys.stderr)


def _mean(precision: np.ndarray) -> float | None:
    """COCO marks with -1 what cannot be computed."""
    precision = precision[precision > -1]
    return float(precision.mean()) if len(precision) else None


def _ratio(part: float, whole: float) -> float | None:
    return part / whole if whole else None
