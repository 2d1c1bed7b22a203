"""Whether a pseudo-label file holds what its schema promises, judged in Python and NumPy.

pycocotools and OpenCV trust what they are given; what is wrong is found before they see it.
"""

import contextlib
import os
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from itertools import chain
from operator import eq, itemgetter
from typing import Any

import numpy as np

from mmcast.errors import CASTError
from mmcast.masks.confidence import map_size, read_shape
from mmcast.masks.runs import MAX_PIXELS, runs_fill

_LARGEST = 1e100  # of what can be reckoned with
_AT_ONCE = 2000  # entries: what is looked at several times stays in a processor's cache
Problem = tuple[str, np.ndarray]  # what some of N entries are or lack, and which of them (N,)


def check_content(content: dict, path: str | os.PathLike, scores: Sequence[str]) -> None:
    """Checks the lists of a file, see docs/pseudo_labels.md.

    Args:
        content: the file's, with ``info``.
        path: the file, for the message.
        scores: fields of an annotation that are finite numbers where they are; the first one always
            is.

    Raises:
        CASTError: with all that is wrong, how often, and an example of each.
    """
    found: list[str] = []
    for name in ('images', 'categories', 'annotations', 'unreadable'):
        if isinstance(content.get(name), list):
            found += _find(content[name], name, _object_problems)
        elif name != 'unreadable' or name in content:
            found.append(f'there is no list {name}')
    if not found:
        check = _Check(bool(content['info'].get('confidence')), scores)
        found += _find(content['images'], 'images', check.images)
        found += _find(content['categories'], 'categories', check.categories)
        found += _find(content['annotations'], 'annotations', check.annotations)
    if found:
        raise CASTError(f'{path} is damaged: {"; ".join(found)}: make it again with mmcast label')


class IncrementalCheck:
    """Whether a file is what :func:`check_content` lets pass, whose annotations come in parts.

    Args:
        content: the file's, without ``annotations``.
        scores: see :func:`check_content`.

    Attributes:
        valid: whether the content is.
    """

    def __init__(self, content: dict, scores: Sequence[str]) -> None:
        lists = dict(content, unreadable=content.get('unreadable', []))
        self._check = _Check(bool(content['info'].get('confidence')), scores)
        parts = dict(images=self._check.images, categories=self._check.categories)
        self.valid = all(
            isinstance(lists.get(name), list)
            and not _find(lists[name], name, _object_problems)
            and not (name in parts and _find(lists[name], name, parts[name]))
            for name in ('images', 'categories', 'unreadable')
        )

    def takes(self, annotations: list) -> bool:
        """Whether some more annotations are valid, and their ids unique among themselves."""
        self._check.annotation_ids.clear()
        if any(wrong.any() for _, wrong in _object_problems(annotations)):
            return False
        return not any(wrong.any() for _, wrong in self._check.annotations(annotations))


def _find(entries: list, name: str, problems: Callable[[list], Iterable[Problem]]) -> list[str]:
    """What is wrong with some entries, how often, and which is the first."""
    counts: Counter[str] = Counter()
    first: dict[str, int] = {}
    for start in range(0, len(entries), _AT_ONCE):
        for what, wrong in problems(entries[start : start + _AT_ONCE]):
            if wrong.any():
                counts[what] += int(wrong.sum())
                first.setdefault(what, start + int(wrong.argmax()))
    return [
        f'{count} of {len(entries)} {name} {what} (the first is number {first[what] + 1})'
        for what, count in counts.items()
    ]


def _object_problems(entries: list) -> list[Problem]:
    return [('are no JSON objects', _not_of(entries, dict))]


class _Check:
    """Looks at some entries of a list after the other, and keeps what later ones refer to.

    Args:
        confidence: whether each image has a confidence map.
        scores: see :func:`check_content`.
    """

    def __init__(self, confidence: bool, scores: Sequence[str]) -> None:
        self.confidence, self.scores = confidence, scores
        self.sizes: dict[int | str, list[int] | None] = {}  # by image id; None if it is no size
        self.category_ids: set[int | str] = set()
        self.annotation_ids: set[int | str] = set()

    def images(self, entries: list[dict]) -> Iterator[Problem]:
        ids, sizes = _column(entries, 'id'), list(map(_size, entries))
        again = _not_own(ids, self.sizes)
        self.sizes |= {own: size for own, size in zip(ids, sizes) if _is_id(own)}
        yield 'have no id of their own', again
        yield 'have no file_name', _not_names(_column(entries, 'file_name'))
        yield 'have no width and height in pixels', _each(size is None for size in sizes)
        yield (
            'have no intact confidence map',
            _each(
                (self.confidence or 'confidence' in image) and not _has_map(image, size)
                for image, size in zip(entries, sizes)
            ),
        )

    def categories(self, entries: list[dict]) -> Iterator[Problem]:
        ids = _column(entries, 'id')
        again = _not_own(ids, self.category_ids)
        self.category_ids.update(filter(_is_id, ids))
        yield 'have no id of their own', again
        yield 'have no name', _not_names(_column(entries, 'name'))

    def annotations(self, entries: list[dict]) -> Iterator[Problem]:
        ids, image_ids = _column(entries, 'id'), _column(entries, 'image_id')
        again = _not_own(ids, self.annotation_ids)
        self.annotation_ids.update(filter(_is_id, ids) if again.any() else ids)
        unlisted = _not_in(image_ids, self.sizes.keys())
        yield 'have no id of their own', again
        yield 'are of no listed image', unlisted
        yield (
            'are of no listed category',
            _not_in(_column(entries, 'category_id'), self.category_ids),
        )
        keys = set(chain.from_iterable(set(map(tuple, entries))))
        for place, name in enumerate(self.scores):
            if not place or name in keys:
                values = _column(entries, name, 0 if place else None)
                yield f'have no finite {name}', _not_finite(values)
        yield 'have no finite area', _not_finite(_column(entries, 'area'))
        yield 'have no bbox of four finite numbers', _not_boxes(_column(entries, 'bbox'))
        yield (
            'have an iscrowd that is not 0 or 1',
            _each(value not in (None, 0, 1) for value in _column(entries, 'iscrowd')),
        )
        if 'ignore' in keys:
            yield 'are marked to be ignored', _each(map(bool, _column(entries, 'ignore')))
        sizes = [
            None if unknown else self.sizes[image]
            for image, unknown in zip(image_ids, unlisted.tolist())
        ]
        yield from _mask_problems(_column(entries, 'segmentation'), sizes)


def _size(image: dict) -> list[int] | None:
    """Height and width, if pycocotools can count so many pixels."""
    height, width = image.get('height'), image.get('width')
    if type(height) is type(width) is int and min(height, width) > 0:
        return [height, width] if height * width <= MAX_PIXELS else None
    return None


def _has_map(image: dict, size: list[int] | None) -> bool:
    text = image.get('confidence')
    return isinstance(text, str) and size is not None and read_shape(text) == map_size(size)


def _mask_problems(masks: list, sizes: list[list[int] | None]) -> Iterator[Problem]:
    """What is wrong with N segmentations in images of N sizes, None where that is not known."""
    none = _not_of(masks, dict)
    if none.any():
        masks = [{} if wrong else mask for mask, wrong in zip(masks, none.tolist())]
    counts, own = _column(masks, 'counts'), _column(masks, 'size')
    none |= _not_of(counts, str)
    yield 'have no compressed run-length encoding (RLE) as mask', none
    other = _not_integers(own) | ~_each(map(eq, own, sizes))
    yield 'have a mask that is not of the size of their image', other & ~none
    chosen = np.flatnonzero(~(none | other)).tolist()
    pixels = np.array([own[i] for i in chosen], np.int64).reshape(-1, 2).prod(axis=1)
    broken = np.zeros(len(masks), bool)
    broken[chosen] = ~runs_fill([counts[i] for i in chosen], pixels)
    yield 'have a mask whose runs do not fill their image', broken


def _column(entries: list[dict], key: str, default: Any = None) -> list:
    try:
        return list(map(itemgetter(key), entries))
    except KeyError:
        return [entry.get(key, default) for entry in entries]


def _each(wrong: Iterable[bool]) -> np.ndarray:
    return np.fromiter(wrong, bool)


def _not_of(values: list, *types: type) -> np.ndarray:
    """(N,), which of N values are of none of some types; true is no number."""
    if set(map(type, values)) <= set(types):
        return np.zeros(len(values), bool)
    return _each(type(value) not in types for value in values)


def _is_id(value: object) -> bool:
    return type(value) in (int, str)


def _not_own(ids: list, known: Collection) -> np.ndarray:
    """Which are no ids, or that of an entry before, or a known one."""
    wrong = _not_of(ids, int, str)
    if not wrong.any() and len(set(ids)) == len(ids) and not any(map(known.__contains__, ids)):
        return wrong
    seen: set = set()
    for place, own in enumerate(ids):
        if not wrong[place]:
            wrong[place] = own in seen or own in known
            seen.add(own)
    return wrong


def _not_in(ids: list, known: Collection) -> np.ndarray:
    wrong = _not_of(ids, int, str)
    if not wrong.any() and all(map(known.__contains__, ids)):
        return wrong
    return _each(unfit or own not in known for own, unfit in zip(ids, wrong.tolist()))


def _not_names(names: list) -> np.ndarray:
    """Which are no names: a NUL or half a character cannot be in that of a file."""
    return _each(
        type(name) is not str or not name or '\0' in name or name != _whole(name) for name in names
    )


def _whole(text: str) -> str:
    return text.encode(errors='ignore').decode()


def _not_finite(values: list) -> np.ndarray:
    """Which are no numbers that can be reckoned with."""
    wrong = _not_of(values, int, float)
    if not wrong.any():
        with contextlib.suppress(OverflowError):  # an integer that no float holds
            return ~(np.abs(np.array(values, float)) < _LARGEST)
    return _each(unfit or not abs(value) < _LARGEST for value, unfit in zip(values, wrong.tolist()))


def _not_boxes(boxes: list) -> np.ndarray:
    wrong = _not_of(boxes, list)
    if wrong.any() or set(map(len, boxes)) != {4}:
        wrong = _each(type(box) is not list or len(box) != 4 for box in boxes)
    good = np.flatnonzero(~wrong)
    numbers = list(chain.from_iterable(boxes[i] for i in good.tolist()))
    wrong[good] = _not_finite(numbers).reshape(-1, 4).any(axis=1)
    return wrong


def _not_integers(sizes: list) -> np.ndarray:
    """Which are no lists of integers: 3.0 equals 3, but is no size to pycocotools."""
    wrong = _not_of(sizes, list)
    if not wrong.any() and set(map(type, chain.from_iterable(sizes))) <= {int}:
        return wrong
    return _each(type(size) is not list or set(map(type, size)) != {int} for size in sizes)
