"""The one reader of COCO label files: parses, checks and mends.

What it returns is safe for pycocotools and mmdet: ids are whole numbers, those of annotations
unique and above 0; every annotation is of a listed image and category, has ``iscrowd`` 0 or 1, a
mask with pixels in its image (polygons of three points and more, or run lengths that fill it), a
box and an area; no two categories have one name. What cannot be read so is refused, with all
findings at once. The file itself is never changed. docs/faults.md lists what is mended and what is
refused.
"""

import json
import os
from collections.abc import Callable, Collection
from dataclasses import dataclass

import numpy as np

from mmcast.coco.annotations import Rows, examine
from mmcast.coco.findings import Finding, Tally
from mmcast.coco.lists import (
    Lists,
    fill_sizes,
    id_key,
    read_categories,
    read_images,
    short,
    twins,
    unsized,
)
from mmcast.coco.scanner import invalid_json, missing_lists, read_text
from mmcast.errors import CASTError
from mmcast.memory import no_cycle_search

# Of images, or how to find it from their entries; called only where it is needed.
Folder = str | os.PathLike | Callable[[list[dict]], str | os.PathLike] | None
_AT_ONCE = 10_000  # annotations whose findings are held


@dataclass
class Labels:
    """A COCO file as it is to be read.

    Args:
        path: of the file.
        content: of it, mended.
        mended: a line for each kind of what was mended, to be told to the user.
        rows: what is known of its annotations.
        names: class name of each category that ``rows`` counts.
    """

    path: str
    content: dict
    mended: list[str]
    rows: Rows
    names: list[str]

    @property
    def crowds(self) -> int:
        """How many annotations stand for groups (``iscrowd``)."""
        return int(self.rows.crowds.sum())

    def instances(self, classes: Collection[str] | None = None) -> np.ndarray:
        """(images,) number of single objects in each image; of these classes, or of all."""
        wanted = np.array([classes is None or name in classes for name in self.names], bool)
        chosen = ~self.rows.crowds & wanted[self.rows.categories]
        return np.bincount(self.rows.images[chosen], minlength=len(self.content['images']))

    def class_instances(self, classes: Collection[str]) -> np.ndarray:
        """(images, classes) number of single objects of each class in each image."""
        shape = len(self.content['images']), len(classes)
        columns = {name: column for column, name in enumerate(classes)}
        column_of = np.array([columns.get(name, -1) for name in self.names], int)
        found = column_of[self.rows.categories]
        chosen = ~self.rows.crowds & (found >= 0)
        places = self.rows.images[chosen] * shape[1] + found[chosen]
        return np.bincount(places, minlength=shape[0] * shape[1]).reshape(shape)


def read_coco(path: str | os.PathLike, img_dir: Folder = None) -> dict:
    """The mended content of a COCO label file, see :func:`read_labels`."""
    return read_labels(path, img_dir).content


@no_cycle_search()
def read_labels(
    path: str | os.PathLike,
    img_dir: Folder = None,
    *,
    crowd_as_instances: bool = False,
) -> Labels:
    """Reads a COCO label file.

    Args:
        path: The file.
        img_dir: Folder of its images, or a function that finds it from the file's image entries;
            their headers tell the sizes that the file does not.
        crowd_as_instances: Take groups (``iscrowd`` 1) for objects.

    Raises:
        CASTError: it is missing, no COCO file, or has what cannot be mended; one line that has all
            kinds of mistakes with their numbers.
    """
    tally = Tally(os.fspath(path))
    content = _parse(path, ('images', 'annotations', 'categories'), tally)
    lists = _read_lists(content, tally)
    annotations = content['annotations']
    if unsized(lists):
        tally.add(fill_sizes(lists, _folder(img_dir, lists), annotations))
    usable: list[dict] = []
    parts: list[Rows] = []
    for start in range(0, len(annotations), _AT_ONCE):
        examined = examine(annotations[start : start + _AT_ONCE], lists, crowd_as_instances)
        tally.add(examined.findings)
        usable += examined.annotations
        parts.append(examined.rows)
    rows = Rows.join(parts)
    dropped, found = twins(lists, np.unique(rows.categories).tolist())
    tally.add(found)
    number_annotations(usable, tally)
    _refuse(tally)
    content.update(
        images=lists.entries,
        annotations=usable,
        categories=_categories(content['categories'], lists, dropped),
    )
    names = [category.name for category in lists.categories.values()]
    return Labels(tally.source, content, tally.mended(), rows, names)


@no_cycle_search()
def read_image_list(path: str | os.PathLike, img_dir: Folder = None) -> dict:
    """The images and categories of a COCO file; its annotations are not looked at, and not there.
    A file that is listed twice, which labels may not be of, is let pass.

    Raises:
        CASTError: see :func:`read_labels`; an image without a size is refused only if ``img_dir``
            is given.
    """
    tally = Tally(os.fspath(path))
    content = _parse(path, ('images',), tally)
    lists = _read_lists(content, tally)
    if img_dir is not None and unsized(lists):
        tally.add(fill_sizes(lists, _folder(img_dir, lists)))
    dropped, _ = twins(lists, ())
    tally.counts.pop('duplicate-file', None)
    _refuse(tally)
    categories = _categories(content.get('categories') or [], lists, dropped)
    return dict(content, images=lists.entries, annotations=[], categories=categories)


def number_annotations(annotations: list[dict], tally: Tally) -> None:
    """Numbers all annotations from 1 if any id is not a unique whole number above 0; nothing refers
    to them. In place.
    """
    ids = [annotation.get('id') for annotation in annotations]
    whole = {number for number in ids if type(number) is int and number > 0}
    if len(whole) == len(ids):
        return
    tally.add(finding for finding, _ in odd_ids(ids, tally.source))
    for number, annotation in enumerate(annotations, 1):
        annotation['id'] = number


def odd_ids(ids: list, source: str) -> list[tuple[Finding, int | None]]:
    """A finding for the ids of annotations that are no whole number above 0, and one for each that
    is there twice, with its index in ``ids``.
    """
    odd = [value for value in ids if type(value) is not int or value < 1]
    found: list[tuple[Finding, int | None]] = []
    if odd:
        detail = f'{len(odd)} of {len(ids)} ids, such as {short(odd[0])}'
        found.append((Finding('annotation-ids', source, source, detail), None))
    seen: set = set()
    for place, value in enumerate(ids):
        key = id_key(value)
        if key is not None and key in seen:
            detail = 'another annotation has this id'
            finding = Finding('duplicate-annotation-id', source, source, detail, None, value)
            found.append((finding, place))
        seen.add(key)
    return found


def _parse(path: str | os.PathLike, needed: tuple[str, ...], tally: Tally) -> dict:
    source = tally.source
    try:
        text, found = read_text(path)
        content = json.loads(text)
    except OSError as error:
        raise CASTError(
            f'{source}: cannot read the annotation file ({error.strerror}): check the path'
        ) from error
    except (ValueError, RecursionError) as error:
        found, content = [invalid_json(source, error)], None
    else:
        missing = [
            name
            for name in ('images', 'annotations', 'categories')
            if not isinstance(content, dict)
            or not isinstance(content.get(name, None if name in needed else []), list)
        ]
        if missing:
            found = [missing_lists(source, missing)]
    tally.add(found)
    if content is None or 'not-coco' in tally.counts:
        _refuse(tally)
    return content


def _read_lists(content: dict, tally: Tally) -> Lists:
    lists = Lists(tally.source)
    tally.add(read_images(lists, content['images']))
    tally.add(read_categories(lists, content.get('categories') or []))
    return lists


def _folder(img_dir: Folder, lists: Lists) -> str | os.PathLike | None:
    return img_dir(lists.entries) if callable(img_dir) else img_dir


def _categories(entries: list, lists: Lists, dropped: set[int]) -> list[dict]:
    """The categories as they are to be written."""
    first: dict = {}
    for entry in entries:
        first.setdefault(id_key(entry['id']), entry)
    return [
        dict(first[key], id=category.new_id)
        for key, category in lists.categories.items()
        if category.new_id not in dropped
    ]


def _refuse(tally: Tally) -> None:
    if said := tally.refusal():
        raise CASTError(said)
