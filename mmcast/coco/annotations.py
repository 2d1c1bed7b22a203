"""Checks annotations and mends what can be mended rightly.

Nearly all annotations of nearly all files are as COCO wants them. :func:`screen` finds these, many
at once and cheaply; each of the others is looked at by itself, in :func:`mend`.
"""

from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from operator import sub
from typing import Any, TypeGuard

import numpy as np
from pycocotools import mask as mask_api

from mmcast.coco.findings import Finding, printable
from mmcast.coco.lists import Category, ImageEntry, Lists, id_key, short, shown_id
from mmcast.coco.shapes import SLACK, Mask, MaskProblem, outside, read_mask
from mmcast.masks.rle import mask_areas
from mmcast.masks.runs import runs_fill

_CHUNK = 1000  # annotations that are screened at once
_NUMBERS = frozenset((int, float))
_FALSE = None, 0, '', '0', '0.0', 'false', 'no', 'none', 'null'
_TRUE = 1, '1', '1.0', 'true', 'yes'
_Problems = list[tuple[str, str]]


@dataclass
class Rows:
    """What is known of N annotations.

    Args:
        images: (N,) number of the image, -1 for what is not usable.
        categories: (N,) place of the category.
        areas: (N,) of the mask, in pixels.
        crowds: (N,) whether it stands for a group.
    """

    images: np.ndarray
    categories: np.ndarray
    areas: np.ndarray
    crowds: np.ndarray

    @classmethod
    def empty(cls, number: int) -> 'Rows':
        return cls(
            np.full(number, -1),
            np.zeros(number, int),
            np.zeros(number),
            np.zeros(number, bool),
        )

    def __getitem__(self, chosen: np.ndarray) -> 'Rows':
        return Rows(
            self.images[chosen], self.categories[chosen], self.areas[chosen], self.crowds[chosen]
        )

    @classmethod
    def join(cls, parts: Sequence['Rows']) -> 'Rows':
        names = 'images', 'categories', 'areas', 'crowds'
        parts = parts or [cls.empty(0)]
        return cls(*(np.concatenate([getattr(part, name) for part in parts]) for name in names))


@dataclass
class Examined:
    """What was found in some annotations.

    Args:
        annotations: the usable ones, mended where need be, but for their own ids.
        rows: what is known of these.
        findings: what is wrong, mended or not.
        seen: numbers of the images that have an annotation, usable or not.
    """

    annotations: list[dict]
    rows: Rows
    findings: list[Finding]
    seen: set[int]


def examine(annotations: list, lists: Lists, crowd_as_instances: bool = False) -> Examined:
    """Checks and mends annotations of a file.

    Args:
        annotations: parsed JSON.
        lists: what they refer to.
        crowd_as_instances: read ``iscrowd`` 1 as 0.
    """
    kept: list[dict] = []
    rows: list[Rows] = []
    findings: list[Finding] = []
    seen: set[int] = set()
    for start in range(0, len(annotations), _CHUNK):
        part = annotations[start : start + _CHUNK]
        known = screen(part, lists)
        changed = np.flatnonzero(known.images < 0).tolist()
        for place in changed:
            mended = mend(part[place], lists)
            findings += mended.findings
            if mended.image is not None:
                seen.add(mended.image.number)
            if mended.annotation is not None and mended.image and mended.category:
                part[place] = mended.annotation
                known.images[place] = mended.image.number
                known.categories[place] = mended.category.place
                known.areas[place] = mended.area
                known.crowds[place] = bool(mended.annotation['iscrowd'])
        usable = known.images >= 0
        if changed and not usable.all():
            part = [part[place] for place in np.flatnonzero(usable).tolist()]
            known = known[usable]
        if crowd_as_instances:
            for place in np.flatnonzero(known.crowds).tolist():
                part[place] = dict(part[place], iscrowd=0)
            known.crowds[:] = False
        seen.update(np.unique(known.images).tolist())
        kept += part
        rows.append(known)
    return Examined(kept, Rows.join(rows), findings, seen)


class _Columns:
    """What annotations say besides their masks, gathered one by one and judged at once."""

    def __init__(self) -> None:
        self.places: list[int] = []
        self.images: list[ImageEntry] = []
        self.categories: list[int] = []
        self.crowds: list[int] = []
        self.areas = array('d')
        self.boxes = array('d')

    def take(self, place: int, annotation: dict, lists: Lists) -> bool:
        """Takes an annotation; False, or one of many errors, if it is not as COCO wants it."""
        image = lists.images[annotation['image_id']]
        category = lists.categories[annotation['category_id']]
        crowd, area, box = annotation['iscrowd'], annotation['area'], annotation['bbox']
        if (
            image.size is None
            or type(annotation['image_id']) is not int
            or type(annotation['category_id']) is not int
            or type(crowd) is not int
            or not 0 <= crowd <= 1
            or type(area) not in _NUMBERS
            or len(box) != 4
            or annotation.get('ignore')
            or not self.take_mask(annotation['segmentation'], image.size)
        ):
            return False
        self.boxes.fromlist(box)
        self.areas.append(area)
        self.places.append(place)
        self.images.append(image)
        self.categories.append(category.place)
        self.crowds.append(crowd)
        return True

    def take_mask(self, segmentation: Any, size: tuple[int, int]) -> bool:
        """Takes a mask; False, or one of many errors, likewise."""
        raise NotImplementedError

    def cut(self) -> None:
        """Takes back what an annotation left that was taken in part."""
        del self.boxes[4 * len(self.places) :]
        del self.areas[len(self.places) :]

    def measure(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """(N,) which masks are beyond doubt, (N,) their areas and (4, N) boxes x1, y1, x2, y2."""
        raise NotImplementedError

    def fill(self, rows: Rows) -> None:
        """Enters what is known of the annotations that are beyond doubt."""
        if not self.places:
            return
        with np.errstate(all='ignore'):  # of numbers that are not finite, which are no good
            good, areas, outlines = self.measure()
            good &= self._agree(areas, outlines)
        places = np.array(self.places)[good]
        rows.images[places] = np.array([image.number for image in self.images])[good]
        rows.categories[places] = np.array(self.categories)[good]
        rows.areas[places] = areas[good]
        rows.crowds[places] = np.array(self.crowds)[good]

    def _agree(self, areas: np.ndarray, outlines: np.ndarray) -> np.ndarray:
        """(N,) whether the listed box and area are those of the mask, or nearly so."""
        height, width = np.array([image.size for image in self.images], float).T
        bx, by, bw, bh = np.frombuffer(self.boxes).reshape(-1, 4).T
        left, top, right, bottom = outlines
        w, h = right - left, bottom - top
        allowed = _box_slack(np.maximum(w, h))
        good = (bw >= 1) & (bh >= 1)
        good &= (bx < width) & (by < height) & (bx + bw > 0) & (by + bh > 0)
        for listed, measured in ((bx, left), (by, top), (bx + bw, right), (by + bh, bottom)):
            good &= np.abs(listed - measured) <= allowed
        lowest, highest = _area_limits(areas, w, h)
        area = np.frombuffer(self.areas)
        return good & (area > 0) & (area >= lowest) & (area <= highest)


class _Polygons(_Columns):
    def __init__(self) -> None:
        super().__init__()
        self.points = array('d')
        self.lengths: list[int] = []  # numbers in a polygon
        self.parts: list[int] = []  # polygons of an annotation

    def take_mask(self, segmentation: Any, size: tuple[int, int]) -> bool:
        lengths = list(map(len, segmentation))
        if not lengths or min(lengths) < 6 or any(length % 2 for length in lengths):
            return False
        for polygon in segmentation:
            self.points.fromlist(polygon)
        self.lengths += lengths
        self.parts.append(len(lengths))
        return True

    def cut(self) -> None:
        super().cut()
        del self.parts[len(self.places) :]
        del self.lengths[sum(self.parts) :]
        del self.points[sum(self.lengths) :]

    def measure(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        height, width = np.array([image.size for image in self.images], float).T
        x, y = np.frombuffer(self.points).reshape(-1, 2).T
        ends = np.cumsum(self.lengths) // 2
        starts = ends - np.array(self.lengths) // 2
        following = np.arange(1, len(x) + 1)
        following[ends - 1] = starts
        dx, dy = x[following] - x, y[following] - y
        areas = np.abs(np.add.reduceat(x * dy - y * dx, starts)) / 2
        borders = np.add.reduceat(np.hypot(dx, dy), starts)
        # Wider than a pixel on average, so there are pixels.
        sure = areas >= np.maximum(1, borders / 2)
        first = np.cumsum(self.parts) - np.array(self.parts)
        left, top = (
            np.minimum.reduceat(np.minimum.reduceat(values, starts), first) for values in (x, y)
        )
        right, bottom = (
            np.maximum.reduceat(np.maximum.reduceat(values, starts), first) for values in (x, y)
        )
        good = np.logical_and.reduceat(sure, first)
        good &= (left >= -SLACK) & (right <= width + SLACK) & (right > 1) & (left < width - 1)
        good &= (top >= -SLACK) & (bottom <= height + SLACK) & (bottom > 1) & (top < height - 1)
        return good, np.add.reduceat(areas, first), np.stack([left, top, right, bottom])


class _Runs(_Columns):
    def __init__(self) -> None:
        super().__init__()
        self.rles: list[dict] = []

    def take_mask(self, segmentation: Any, size: tuple[int, int]) -> bool:
        if segmentation['size'] != [*size] or type(segmentation['counts']) is not str:
            return False
        self.rles.append(segmentation)
        return True

    def cut(self) -> None:
        super().cut()
        del self.rles[len(self.places) :]

    def measure(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        pixels = np.array([image.size[0] * image.size[1] for image in self.images if image.size])
        good = runs_fill([rle['counts'] for rle in self.rles], pixels)
        places = np.flatnonzero(good)
        areas, outlines = np.zeros(len(good)), np.zeros((4, len(good)))
        if len(places):
            valid = [self.rles[place] for place in places.tolist()]
            areas[places] = mask_areas(valid)
            x, y, width, height = mask_api.toBbox(valid).T
            outlines[:, places] = x, y, x + width, y + height
        return good & (areas > 0), areas, outlines


def screen(annotations: list, lists: Lists) -> Rows:
    """What is known of those annotations that are beyond doubt as COCO wants them: references,
    polygons in the image that surely have pixels or compressed run lengths that fill it, box and
    area.

    The image of the others is -1.
    """
    polygons, runs = _Polygons(), _Runs()
    for place, annotation in enumerate(annotations):
        columns: _Columns = polygons
        try:
            columns = runs if type(annotation['segmentation']) is dict else polygons
            columns.take(place, annotation, lists)
        except (KeyError, TypeError, AttributeError, OverflowError):
            columns.cut()
    rows = Rows.empty(len(annotations))
    polygons.fill(rows)
    runs.fill(rows)
    return rows


def _box_slack(side: float | np.ndarray) -> float | np.ndarray:
    """Tools round boxes differently, and may or may not count the last pixel."""
    return 2 * SLACK + 0.05 * side


def _area_limits(
    area: float | np.ndarray, width: float | np.ndarray, height: float | np.ndarray
) -> tuple[float | np.ndarray, float | np.ndarray]:
    """An area has to be about that of the mask; some tools write that of its box, which is let
    pass.
    """
    border = 2 * SLACK * (width + height + 2 * SLACK)
    return area / 2 - border, width * height + border


@dataclass
class Mended:
    """An annotation by itself.

    Args:
        annotation: as it is to be read, None if it cannot be.
        image: the image that it is of, None if that is not listed.
        category: likewise.
        area: of the mask, in pixels.
        findings: what is wrong, mended or not.
    """

    annotation: dict | None
    image: ImageEntry | None
    category: Category | None
    area: float
    findings: list[Finding]


def mend(annotation: object, lists: Lists) -> Mended:
    """Checks one annotation, however broken it is, and mends what can be mended rightly."""
    entry = annotation if isinstance(annotation, dict) else {}
    problems: _Problems = []
    image, category, changes = _references(entry, lists, problems)
    mask = None
    if image is None or image.size is not None:
        mask = _mask(entry, image, problems)
    usable = image is not None and category is not None and 'iscrowd' in changes
    if mask is not None and image is not None and image.size is not None and mask.area:
        changes['segmentation'] = mask.segmentation
        _mend_box(entry, mask, image.size, problems, changes)
        _mend_area(entry, mask, problems, changes)
    else:
        usable = False
    where = printable(image.name) if image else lists.source
    findings = [
        Finding(
            kind,
            lists.source,
            where,
            detail,
            shown_id(entry, 'image_id'),
            shown_id(entry),
        )
        for kind, detail in problems
    ]
    kept = dict(entry, **changes) if usable else None
    if kept:
        kept.pop('ignore', None)
    return Mended(kept, image, category, mask.area if mask else 0.0, findings)


def _references(
    entry: dict, lists: Lists, problems: _Problems
) -> tuple[ImageEntry | None, Category | None, dict]:
    """The image and category of an annotation, and its fields as they are to be read."""
    image_key, category_key = id_key(entry.get('image_id')), id_key(entry.get('category_id'))
    crowd = _crowd(entry)
    changes = {}
    image = None if image_key is None else lists.images.get(image_key)
    category = None if category_key is None else lists.categories.get(category_key)
    if image_key is None or category_key is None or crowd is None:
        keys = 'id', 'image_id', 'category_id', 'iscrowd'
        detail = ', '.join(f'{key} {short(entry.get(key))}' for key in keys)
        problems.append(('bad-annotation-entry', detail))
    elif category is None:
        detail = f'category_id {short(entry["category_id"])} is not listed'
        problems.append(('unknown-category', detail))
    if image_key is not None and image is None:
        problems.append(('unlisted-image', f'image_id {short(entry["image_id"])} is not listed'))
    for key, found in (('image_id', image), ('category_id', category)):
        if found is not None:
            changes[key] = found.new_id
            if type(entry[key]) is not type(found.id):
                detail = f'{key} {short(entry[key])} becomes {found.new_id}'
                problems.append(('id-type', detail))
    if crowd is not None:
        changes['iscrowd'] = crowd
        if type(entry.get('iscrowd')) is not int or entry.get('ignore'):
            detail = f'iscrowd {short(entry.get("iscrowd"))}'
            if entry.get('ignore'):
                detail += f', ignore {short(entry["ignore"])}'
            problems.append(('crowd-value', f'{detail}: {crowd}'))
    return image, category, changes


def _crowd(entry: dict) -> int | None:
    """1 for a group and what is to be ignored, 0 for an object, None for what means neither."""
    values = [
        value.strip().lower() if isinstance(value, str) else value
        for value in (entry.get('iscrowd'), entry.get('ignore'))
    ]
    if any(isinstance(value, (list, dict)) or value not in _FALSE + _TRUE for value in values):
        return None
    return int(any(value in _TRUE for value in values))


def _mask(entry: dict, image: ImageEntry | None, problems: _Problems) -> Mask | None:
    """The mask, None if it is none or of no image."""
    if image is None or image.size is None:
        return None
    try:
        mask = read_mask(entry.get('segmentation'), image.size)
    except MaskProblem as problem:
        problems.append(problem.args)
        return None
    problems += mask.changes
    if mask.area and outside(mask.outline, image.size):
        left, top, right, bottom = (f'{value:.6g}' for value in mask.outline)
        height, width = image.size
        detail = (
            f'the mask reaches from ({left}, {top}) to ({right}, {bottom}) in an image of '
            f'{width}x{height}'
        )
        problems.append(('mask-outside-image', detail))
    return mask


def _mend_box(
    entry: dict, mask: Mask, size: tuple[int, int], problems: _Problems, changes: dict
) -> None:
    """A box has to fit its mask, roughly: all of it, or what is in the image."""
    bbox = entry.get('bbox')
    right = [mask.box[0], mask.box[1], mask.box[2] - mask.box[0], mask.box[3] - mask.box[1]]
    if not (isinstance(bbox, list) and len(bbox) == 4 and all(map(_is_number, bbox))):
        problems.append(('no-box', f'bbox {short(bbox)} is not four numbers'))
    elif bbox[2] <= 0 or bbox[3] <= 0:
        problems.append(('no-box', f'bbox {short(bbox)} has no width or height'))
    elif not any(_fits(bbox, box) for box in (mask.box, mask.outline)):
        problems.append(('bad-box', f'bbox {short(bbox)}, but the mask has {short(right)}'))
    elif min(bbox[2:]) >= 1 and _overlaps(bbox, size):
        return
    # Also of boxes narrower than a pixel or just outside: mmdet leaves their objects out.
    changes['bbox'] = right


def _fits(bbox: list, box: tuple[float, float, float, float]) -> bool:
    x, y, width, height = bbox
    allowed = _box_slack(max(box[2] - box[0], box[3] - box[1]))
    return max(map(abs, map(sub, (x, y, x + width, y + height), box))) <= allowed


def _overlaps(bbox: list, size: tuple[int, int]) -> bool:
    """Whether a box is not all outside of an image of (height, width)."""
    x, y, width, height = bbox
    return x < size[1] and y < size[0] and x + width > 0 and y + height > 0


def _mend_area(entry: dict, mask: Mask, problems: _Problems, changes: dict) -> None:
    area = entry.get('area')
    if not _is_number(area) or area <= 0:
        problems.append(('no-area', f'area {short(area)} is not above 0'))
    else:
        left, top, right, bottom = mask.outline
        lowest, highest = _area_limits(mask.area, right - left, bottom - top)
        if lowest <= area <= highest:
            return
        problems.append(
            ('bad-area', f'area {short(area)}, but the mask has {mask.area:.6g} pixels')
        )
    changes['area'] = mask.area


def _is_number(value: object) -> TypeGuard[int | float]:
    """A number that can be reckoned with: not infinite, nor so large that it soon would be."""
    return isinstance(value, (int, float)) and type(value) is not bool and abs(value) < 1e100
