"""The images and categories of a COCO file: which are usable, and whole numbers for their ids."""

import json
import os
import posixpath
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from math import isfinite
from typing import TypeGuard

from mmcast.coco.categories import find_twins
from mmcast.coco.findings import Finding, printable
from mmcast.coco.shapes import is_size
from mmcast.errors import CASTError
from mmcast.images import name_problem, read_image_size

_LARGEST_ID = 2**63 - 1


@dataclass(frozen=True)
class ImageEntry:
    """An image of a list.

    Args:
        number: index among the usable entries of its list, from 0.
        id: as listed, None for a file of a folder.
        name: file name as listed, or relative to the folder.
        size: (height, width) in pixels, None if it is not known.
        path: of the file, None if no image folder is given.
        source: the annotation file or folder that lists it.
        new_id: the whole number that it goes by.
    """

    number: int
    id: int | float | str | None
    name: str
    size: tuple[int, int] | None
    path: str | None
    source: str
    new_id: int = 0


@dataclass(frozen=True)
class Category:
    """A category: its id as listed, the whole number that it goes by, its name, and its index among
    the usable.
    """

    id: int | float | str
    new_id: int
    name: str
    place: int


@dataclass
class Lists:
    """What annotations refer to.

    Args:
        source: the label file.
        images: the usable images by id, as :func:`id_key` gives it.
        categories: the usable categories, likewise.
        entries: the images of the file as they are to be written; their order is that of
            ``images``.
    """

    source: str
    images: dict[int | str, ImageEntry] = field(default_factory=dict)
    categories: dict[int | str, Category] = field(default_factory=dict)
    entries: list[dict] = field(default_factory=list)

    def set_sizes(self, sizes: dict[int | str, tuple[int, int]]) -> list[Finding]:
        """Fills in what images or their run lengths tell, by the key of the image."""
        found = []
        for key, (height, width) in sizes.items():
            image = self.images[key]
            self.images[key] = replace(image, size=(height, width))
            entry = self.entries[image.number]
            found.append(_odd_size(self.source, entry, image.id))
            self.entries[image.number] = dict(entry, height=height, width=width)
        return found


def _odd_size(source: str, entry: dict, listed: int | float | str | None) -> Finding:
    return Finding('no-size', source, printable(entry['file_name']), _listed_size(entry), listed)


def _listed_size(entry: dict) -> str:
    return f'width and height are {short(entry.get("width"))} and {short(entry.get("height"))}'


def id_key(value: object) -> int | str | None:
    """What an id means: a whole number also if it is written as text or with decimals, else the
    text; None for what is no id.
    """
    if type(value) is int:
        return value if abs(value) <= _LARGEST_ID else str(value)
    if isinstance(value, float) and isfinite(value) and value == int(value):
        return id_key(int(value))
    if isinstance(value, str) and value:
        digits = value.removeprefix('-')
        whole = len(digits) < 19 and digits.isascii() and digits.isdigit()
        return int(value) if whole and str(int(value)) == value else value
    return None


def whole_numbers(keys: Iterable[int | str]) -> dict[int | str, int]:
    """A whole number for every key: the number itself, and for a text the next that is free."""
    keys = list(keys)
    following = max([0, *(key for key in keys if isinstance(key, int))])
    numbers: dict[int | str, int] = {}
    for key in keys:
        if isinstance(key, str):
            following += 1
        numbers[key] = following if isinstance(key, str) else key
    return numbers


def read_images(
    lists: Lists, entries: list, img_dir: str | os.PathLike | None = None
) -> list[Finding]:
    """Puts the usable ``images`` of a COCO file into ``lists``; returns what is wrong with others.

    Of entries with one id the first is usable. One without a size is too, for now.
    """
    findings: list[Finding] = []
    names: set[str] = set()
    source = lists.source
    usable: dict[int | str, dict] = {}
    for place, entry in enumerate(entries):
        entry = entry if isinstance(entry, dict) else {}
        key, name = id_key(entry.get('id')), entry.get('file_name')
        if key is None or not _is_file_name(name):
            label = name if isinstance(name, str) and name else source
            detail = f'number {place} in images has no usable id or file_name'
            findings.append(
                Finding('bad-image-entry', source, printable(label), detail, shown_id(entry))
            )
            continue
        clean = printable(name)
        if key in usable:
            findings.append(
                Finding(
                    'duplicate-image-id', source, clean, 'another image has this id', entry['id']
                )
            )
            continue
        usable[key] = entry
        if problem := name_problem(name):
            findings.append(Finding('unusable-name', source, clean, problem, entry['id']))
        normal = posixpath.normpath(name)
        if normal in names:
            findings.append(
                Finding('duplicate-file', source, clean, 'the file is listed before', entry['id'])
            )
        names.add(normal)
    numbers = whole_numbers(usable)
    for key, entry in usable.items():
        findings += _add_image(lists, key, numbers[key], entry, img_dir)
    return findings


def _add_image(
    lists: Lists, key: int | str, number: int, entry: dict, img_dir: str | os.PathLike | None
) -> list[Finding]:
    findings = []
    name, listed = entry['file_name'], entry['id']
    path = None if img_dir is None else os.path.abspath(os.path.join(img_dir, name))
    sides = entry.get('height'), entry.get('width')
    meant = sides if is_size(sides) else tuple(map(id_key, sides))
    size = meant if is_size(meant) else None
    if type(listed) is not int:
        detail = f'image id {short(listed)} becomes {number}'
        findings.append(Finding('id-type', lists.source, printable(name), detail, listed))
    if size is not None and size is not sides:
        findings.append(_odd_size(lists.source, entry, listed))
    lists.images[key] = ImageEntry(
        len(lists.images), listed, name, size, path, lists.source, number
    )
    if findings:
        entry = dict(entry, id=number)
        if size:
            entry.update(height=size[0], width=size[1])
    lists.entries.append(entry)
    return findings


def fill_sizes(
    lists: Lists, img_dir: str | os.PathLike | None, annotations: Iterable = ()
) -> list[Finding]:
    """Looks for the sizes of images that are listed without: in their files, then in the run
    lengths of their annotations. Returns what was found and what not.
    """
    findings: list[Finding] = []
    if img_dir is not None and unsized(lists):
        findings += lists.set_sizes(_sizes_of_files(lists, img_dir))
    if unsized(lists):
        findings += lists.set_sizes(_sizes_of_runs(lists, annotations))
    return findings + unsized(lists)


def _sizes_of_files(lists: Lists, img_dir: str | os.PathLike) -> dict[int | str, tuple[int, int]]:
    """The sizes that the headers of images tell of those that are listed without one, by their
    key.
    """
    found = {}
    for key, image in lists.images.items():
        if _lacks_size(lists, image):
            try:
                size = read_image_size(os.path.join(img_dir, image.name))
            except CASTError:
                continue
            if is_size(size):
                found[key] = size
    return found


def _lacks_size(lists: Lists, image: ImageEntry) -> bool:
    """Whether an image is listed without a size, rather than with an impossible one."""
    entry = lists.entries[image.number]
    return image.size is None and any(not entry.get(side) for side in ('height', 'width'))


def unsized(lists: Lists) -> list[Finding]:
    """The images whose size is not known."""
    found = []
    for image in lists.images.values():
        if image.size is None:
            detail = _listed_size(lists.entries[image.number])
            found.append(
                Finding('bad-image-entry', lists.source, printable(image.name), detail, image.id)
            )
    return found


def _sizes_of_runs(lists: Lists, annotations: Iterable) -> dict[int | str, tuple[int, int]]:
    """The sizes that run lengths have of images that are listed without one, by their key."""
    found: dict[int | str, tuple[int, int]] = {}
    for annotation in annotations:
        if not isinstance(annotation, dict):
            continue
        mask, key = annotation.get('segmentation'), id_key(annotation.get('image_id'))
        if isinstance(mask, dict) and key in lists.images:
            size = mask.get('size')
            if is_size(size) and _lacks_size(lists, lists.images[key]):
                found.setdefault(key, (size[0], size[1]))
    return found


def read_categories(lists: Lists, entries: list) -> list[Finding]:
    """Puts the usable ``categories`` of a COCO file into ``lists``; returns what is wrong with
    others.

    Categories of one name are all usable here: which of them have annotations is seen later.
    """
    findings: list[Finding] = []
    source = lists.source
    names: dict[int | str, str] = {}
    listed: dict[int | str, int | float | str] = {}
    for place, entry in enumerate(entries):
        entry = entry if isinstance(entry, dict) else {}
        key, name = id_key(entry.get('id')), entry.get('name')
        if key is None or not isinstance(name, str) or not name:
            detail = f'number {place} in categories has no usable id or name'
            findings.append(Finding('bad-category', source, source, detail))
        elif names.get(key, name) != name:
            detail = printable(f'category {key} is called {names[key]} and {name}')
            findings.append(Finding('bad-category', source, source, detail))
        elif key in names:
            detail = printable(f'category {key}, {name!r}, is there before')
            findings.append(Finding('duplicate-category', source, source, detail))
        else:
            names[key], listed[key] = name, entry['id']
    for key, number in whole_numbers(names).items():
        lists.categories[key] = Category(listed[key], number, names[key], len(lists.categories))
        if type(listed[key]) is not int:
            detail = printable(f'category id {short(listed[key])} becomes {number}')
            findings.append(Finding('id-type', source, source, detail))
    return findings


def twins(lists: Lists, used: Iterable[int]) -> tuple[set[int], list[Finding]]:
    """The ids of categories that have a name of another and no annotation, and what is to be said.

    Args:
        lists: of the file.
        used: indices (``place``) of the categories that have annotations.
    """
    categories = list(lists.categories.values())
    numbers = {categories[place].new_id for place in used}
    dropped: set[int] = set()
    findings = []
    for found in find_twins(((each.new_id, each.name) for each in categories), numbers):
        kind, detail = 'twin-category', found.clash
        if not detail:
            dropped.update(found.dropped)
            others = ', '.join(map(str, found.dropped))
            kind = 'duplicate-category'
            detail = f'category {others}, {found.name!r} as {found.kept}, has no annotation'
        findings.append(Finding(kind, lists.source, lists.source, printable(detail)))
    return dropped, findings


def _is_file_name(value: object) -> TypeGuard[str]:
    """Whether this can be part of a path."""
    return isinstance(value, str) and bool(value) and '\0' not in value


def shown_id(entry: dict, key: str = 'id') -> int | float | str | None:
    """An id for a finding, None if it is no number or text."""
    value = entry.get(key)
    return value if id_key(value) is not None else None


def short(value: object) -> str:
    """A value from the file for a message, however long it is."""
    text = printable(json.dumps(value, ensure_ascii=False))
    return text if len(text) <= 60 else f'{text[:57]}...'
