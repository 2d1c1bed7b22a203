"""Whether a pseudo-label file holds what its schema promises, judged in Python and NumPy.

pycocotools and OpenCV trust what they are given; what is wrong is found before they see it.
"""

import os
from collections.abc import Container, Iterable, Iterator, Sequence
from itertools import chain
from typing import Any

import numpy as np

from mmcast.errors import CASTError
from mmcast.masks.confidence import map_size, read_shape
from mmcast.masks.runs import MAX_PIXELS, runs_fill

_LARGEST = 1e100  # of what can be reckoned with
# What some of N entries are or lack, and which of them (N,).
Problem = tuple[str, np.ndarray]


def check_content(content: dict, path: str | os.PathLike, scores: Sequence[str]) -> None:
    """Checks the lists of a file, see docs/pseudo_labels.md.

    Args:
        content: the file's, with lists ``images``, ``categories`` and ``annotations``.
        path: the file, for the message.
        scores: fields of an annotation that are finite numbers where they are; the first one always
            is.

    Raises:
        CASTError: with all that is wrong, how often, and an example of each.
    """
    names = dict(images='image', categories='category', annotations='annotation')
    found = []
    for name in names:
        entries = content[name]
        found += _describe(
            entries, names[name], [(f'{name} are no objects', _not_of(entries, dict))]
        )
    if not found:
        confidence = bool(content['info'].get('confidence'))
        for name, problems in (
            ('images', _image_problems(content['images'], confidence)),
            ('categories', _category_problems(content['categories'])),
            ('annotations', _annotation_problems(content, scores)),
        ):
            found += _describe(content[name], names[name], problems)
    if found:
        raise CASTError(f'{path} is damaged: {"; ".join(found)}: make it again with mmcast label')


def _describe(entries: list, name: str, problems: Iterator[Problem] | list[Problem]) -> list[str]:
    lines = []
    for what, wrong in problems:
        places = np.flatnonzero(wrong).tolist()
        if places:
            first = entries[places[0]]
            own = first.get('id') if isinstance(first, dict) else None
            which = f'{name} {own}' if type(own) is int else f'number {places[0] + 1} of them'
            lines.append(f'{len(places)} of {len(entries)} {what}, such as {which}')
    return lines


def _image_problems(images: list[dict], confidence: bool) -> Iterator[Problem]:
    ids, names = _column(images, 'id'), _column(images, 'file_name')
    yield 'images have no id of their own', _not_own(ids)
    yield 'images have no file_name', _not_of(names, str) | _each(not name for name in names)
    yield (
        'images have no width and height in pixels',
        _each(_size(image) is None for image in images),
    )
    yield (
        'images have no intact confidence map',
        _each((confidence or 'confidence' in image) and not _has_map(image) for image in images),
    )


def _size(image: dict) -> list[int] | None:
    """Height and width, if the image has such as pycocotools can count."""
    size = [image.get('height'), image.get('width')]
    if not all(type(side) is int and side > 0 for side in size) or size[0] * size[1] > MAX_PIXELS:
        return None
    return size


def _has_map(image: dict) -> bool:
    text, size = image.get('confidence'), _size(image)
    return isinstance(text, str) and size is not None and read_shape(text) == map_size(size)


def _category_problems(categories: list[dict]) -> Iterator[Problem]:
    names = _column(categories, 'name')
    yield 'categories have no id of their own', _not_own(_column(categories, 'id'))
    yield 'categories have no name', _not_of(names, str) | _each(not name for name in names)


def _annotation_problems(content: dict, scores: Sequence[str]) -> Iterator[Problem]:
    annotations = content['annotations']
    image_ids = _column(annotations, 'image_id')
    sizes = {image['id']: _size(image) for image in content['images'] if _is_id(image.get('id'))}
    categories = {entry['id'] for entry in content['categories'] if _is_id(entry.get('id'))}
    yield 'annotations have no id of their own', _not_own(_column(annotations, 'id'))
    yield 'annotations are of no listed image', _not_in(image_ids, sizes)
    yield (
        'annotations are of no listed category',
        _not_in(_column(annotations, 'category_id'), categories),
    )
    for place, field in enumerate(scores):
        values = _column(annotations, field, 0 if place else None)
        yield f'annotations have no finite {field}', _not_finite(values)
    yield 'annotations have no finite area', _not_finite(_column(annotations, 'area'))
    yield (
        'annotations have no bbox of four finite numbers',
        _not_boxes(_column(annotations, 'bbox')),
    )
    yield (
        'annotations have an iscrowd that is not 0 or 1',
        _each(value not in (None, 0, 1) for value in _column(annotations, 'iscrowd')),
    )
    yield 'annotations are marked to be ignored', _each(map(bool, _column(annotations, 'ignore')))
    expected = [sizes.get(image_id) if _is_id(image_id) else None for image_id in image_ids]
    yield from _mask_problems(_column(annotations, 'segmentation'), expected)


def _mask_problems(masks: list, sizes: list[list[int] | None]) -> Iterator[Problem]:
    """What is wrong with N segmentations in images of N sizes, None where that is not known."""
    encoded = ~_not_of(masks, dict)
    counts = [mask.get('counts') if known else None for mask, known in zip(masks, encoded.tolist())]
    encoded &= ~_not_of(counts, str)
    yield 'annotations have no compressed run-length encoding (RLE)', ~encoded
    own = [mask.get('size') if known else None for mask, known in zip(masks, encoded.tolist())]
    whole = _each(
        size is not None and size == right for size, right in zip(own, sizes)
    ) & ~_not_integers(own)
    yield 'masks are not of the size of their image', encoded & ~whole
    chosen = np.flatnonzero(whole).tolist()
    pixels = np.array([own[i][0] * own[i][1] for i in chosen], np.int64)
    broken = np.zeros(len(masks), bool)
    broken[chosen] = ~runs_fill([counts[i] for i in chosen], pixels)
    yield 'masks have runs that do not fill their image', broken


def _column(entries: list[dict], key: str, default: Any = None) -> list:
    return [entry.get(key, default) for entry in entries]


def _each(wrong: Iterable) -> np.ndarray:
    return np.fromiter(wrong, bool)


def _not_of(values: list, *types: type) -> np.ndarray:
    """(N,), which of N values are of none of some types; true is no number."""
    if set(map(type, values)) <= set(types):
        return np.zeros(len(values), bool)
    return _each(type(value) not in types for value in values)


def _is_id(value: object) -> bool:
    return type(value) in (int, str)


def _not_own(ids: list) -> np.ndarray:
    """Which are no ids, or that of an entry before."""
    wrong = _not_of(ids, int, str)
    if not wrong.any() and len(set(ids)) == len(ids):
        return wrong
    seen: set = set()
    for place, own in enumerate(ids):
        if not wrong[place]:
            wrong[place] = own in seen
            seen.add(own)
    return wrong


def _not_in(ids: list, known: Container) -> np.ndarray:
    return _each(not (_is_id(own) and own in known) for own in ids)


def _not_finite(values: list) -> np.ndarray:
    """Which are no numbers that can be reckoned with."""
    wrong = _not_of(values, int, float)
    if not wrong.any() and set(map(type, values)) <= {float}:
        return ~(np.abs(np.array(values)) < _LARGEST)
    return _each(unfit or not abs(value) < _LARGEST for value, unfit in zip(values, wrong.tolist()))


def _not_boxes(boxes: list) -> np.ndarray:
    wrong = _not_of(boxes, list)
    wrong |= _each(unfit or len(box) != 4 for box, unfit in zip(boxes, wrong.tolist()))
    good = np.flatnonzero(~wrong)
    numbers = list(chain.from_iterable(boxes[i] for i in good.tolist()))
    wrong[good] = _not_finite(numbers).reshape(-1, 4).any(axis=1)
    return wrong


def _not_integers(sizes: list) -> np.ndarray:
    """Which of N values is not a list of integers: 3.0 equals 3, but is no size to pycocotools."""
    wrong = _not_of(sizes, list)
    kinds = set(map(type, chain.from_iterable(size for size in sizes if type(size) is list)))
    if kinds <= {int}:
        return wrong
    return _each(
        unfit or not set(map(type, size)) <= {int} for size, unfit in zip(sizes, wrong.tolist())
    )
