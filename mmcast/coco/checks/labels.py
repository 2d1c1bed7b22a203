"""Checks the three lists of a COCO file: images, categories and annotations."""

import json
import os
import posixpath
from dataclasses import dataclass, field
from operator import sub
from typing import TypeGuard

from mmcast.coco.checks.findings import Finding, printable
from mmcast.coco.checks.shapes import SLACK, Mask, MaskProblem, measure_mask, outside


@dataclass(frozen=True)
class ImageEntry:
    """An image of a list.

    Args:
        number: index among the usable entries of its list, from 0.
        id: None for a file of a folder.
        name: file name as listed, or relative to the folder.
        size: (height, width) in pixels, None if it is not known.
        path: of the file, None if no image folder is given.
        source: the annotation file or folder that lists it.
    """

    number: int
    id: int | float | str | None
    name: str
    size: tuple[int, int] | None
    path: str | None
    source: str


def check_images(
    entries: list, source: str, img_dir: str | os.PathLike | None
) -> tuple[list[ImageEntry], list[Finding]]:
    """The usable entries of ``images``, and what is wrong with the others.

    Of entries with one id the first is usable. One without a proper size is too, but its masks can
    be checked less.
    """
    images: list[ImageEntry] = []
    findings: list[Finding] = []
    ids: set[int | str] = set()
    names: set[str] = set()
    for place, entry in enumerate(entries):
        entry = entry if isinstance(entry, dict) else {}
        image_id, name = entry.get('id'), entry.get('file_name')
        if not is_id(image_id) or not isinstance(name, str) or not name:
            label = name if isinstance(name, str) and name else source
            findings.append(
                Finding(
                    'bad-image-entry',
                    source,
                    printable(label),
                    f'number {place} in images has no usable id or file_name',
                    image_id if is_id(image_id) else None,
                )
            )
            continue
        clean = printable(name)
        if image_id in ids:
            findings.append(
                Finding('duplicate-image-id', source, clean, 'another image has this id', image_id)
            )
            continue
        if posixpath.normpath(name) in names:
            findings.append(
                Finding('duplicate-file', source, clean, 'the file is listed before', image_id)
            )
        ids.add(image_id)
        names.add(posixpath.normpath(name))
        height, width = entry.get('height'), entry.get('width')
        size = (height, width) if _is_side(height) and _is_side(width) else None
        if size is None:
            findings.append(
                Finding(
                    'bad-image-entry',
                    source,
                    clean,
                    f'width and height are {_short(width)} and {_short(height)}',
                    image_id,
                )
            )
        path = None if img_dir is None else os.path.abspath(os.path.join(img_dir, name))
        images.append(ImageEntry(len(images), image_id, name, size, path, source))
    return images, findings


def check_categories(entries: list, source: str) -> tuple[dict, list[Finding]]:
    """Names of the usable categories by id, and what is wrong with the others."""
    categories: dict[int | str, str] = {}
    findings: list[Finding] = []
    for place, entry in enumerate(entries):
        entry = entry if isinstance(entry, dict) else {}
        category_id, name = entry.get('id'), entry.get('name')
        if not is_id(category_id) or not isinstance(name, str) or not name:
            findings.append(
                Finding(
                    'bad-category',
                    source,
                    source,
                    f'number {place} in categories has no usable id or name',
                )
            )
        elif category_id in categories or printable(name) in categories.values():
            findings.append(
                Finding(
                    'duplicate-category',
                    source,
                    source,
                    printable(f'category {category_id}, {name!r}, is there before'),
                )
            )
        else:
            categories[category_id] = printable(name)
    return categories, findings


@dataclass
class Checked:
    """What a process found in some annotations.

    Args:
        findings: mistakes; image names as in the list.
        ids: of the annotations, in order.
        images: numbers of the images that have an annotation here.
        instances: image number, index of the category and area in pixels of each valid single
            object.
        groups: how many annotations stand for groups (``iscrowd``).
    """

    findings: list[Finding] = field(default_factory=list)
    ids: list = field(default_factory=list)
    images: set[int] = field(default_factory=set)
    instances: list[tuple[int, int, float]] = field(default_factory=list)
    groups: int = 0


@dataclass(frozen=True)
class Lists:
    """What annotations refer to: ``images`` by id, and the indices of ``categories`` by id."""

    source: str
    images: dict
    categories: dict


def check_annotations(text: str, lists: Lists) -> Checked:
    """Checks the annotations of a JSON list."""
    checked = Checked()
    for annotation in json.loads(text):
        _check_annotation(annotation, lists, checked)
    return checked


def _check_annotation(annotation: object, lists: Lists, checked: Checked) -> None:
    annotation = annotation if isinstance(annotation, dict) else {}
    ann_id, image_id, category_id, crowd = (
        annotation.get(key) for key in ('id', 'image_id', 'category_id', 'iscrowd')
    )
    image = lists.images.get(image_id) if is_id(image_id) else None
    problems = []
    if not (is_id(ann_id) and is_id(image_id) and is_id(category_id)) or crowd not in (None, 0, 1):
        problems.append(
            (
                'bad-annotation-entry',
                (
                    f'id {_short(ann_id)}, image_id {_short(image_id)}, category_id '
                    f'{_short(category_id)}, iscrowd {_short(crowd)}'
                ),
            )
        )
    elif category_id not in lists.categories:
        problems.append(('unknown-category', f'category_id {_short(category_id)} is not listed'))
    if is_id(image_id) and image is None:
        problems.append(('unlisted-image', f'image_id {_short(image_id)} is not listed'))
    mask, found = _check_mask(annotation, image.size if image else None)
    problems += found

    if is_id(ann_id):
        checked.ids.append((ann_id, image.number if image else None))
    if image:
        checked.images.add(image.number)
    checked.groups += crowd == 1
    if image and mask and not problems and not crowd:
        checked.instances.append((image.number, lists.categories[category_id], mask.area))
    for kind, detail in problems:
        checked.findings.append(
            Finding(
                kind,
                lists.source,
                printable(image.name) if image else lists.source,
                detail,
                image_id if is_id(image_id) else None,
                ann_id if is_id(ann_id) else None,
            )
        )


def _check_mask(
    annotation: dict, size: tuple[int, int] | None
) -> tuple[Mask | None, list[tuple[str, str]]]:
    """The mask, None if it is none, and the problems of mask, box and area."""
    mask, problems = None, []
    try:
        mask = measure_mask(annotation.get('segmentation'), size)
    except MaskProblem as problem:
        problems.append(problem.args)
    if mask and size and outside(mask.box, size):
        left, top, right, bottom = (f'{value:.6g}' for value in mask.box)
        problems.append(
            (
                'mask-outside-image',
                (
                    f'the mask reaches from ({left}, {top}) to ({right}, {bottom}) in an image of '
                    f'{size[1]}x{size[0]}'
                ),
            )
        )
    problems += _check_box(annotation.get('bbox'), mask, size)
    problems += _check_area(annotation.get('area'), mask)
    return mask, problems


def _check_box(
    bbox: object, mask: Mask | None, size: tuple[int, int] | None
) -> list[tuple[str, str]]:
    """A box has to fit its mask, roughly; without a mask it has to be in the image."""
    if not (isinstance(bbox, list) and len(bbox) == 4 and all(_is_number(value) for value in bbox)):
        return [('bad-box', f'bbox {_short(bbox)} is not four numbers')]
    x, y, width, height = bbox
    if width <= 0 or height <= 0:
        return [('bad-box', f'bbox {_short(bbox)} has no width or height')]
    box = x, y, x + width, y + height
    if mask is None:
        return (
            [('bad-box', f'bbox {_short(bbox)} leaves the image')]
            if size and outside(box, size)
            else []
        )
    # Tools round differently, and may or may not count the last pixel.
    allowed = 2 * SLACK + 0.05 * max(mask.box[2] - mask.box[0], mask.box[3] - mask.box[1])
    if max(map(abs, map(sub, box, mask.box))) > allowed:
        right = [mask.box[0], mask.box[1], mask.box[2] - mask.box[0], mask.box[3] - mask.box[1]]
        return [
            (
                'bad-box',
                f'bbox {_short(bbox)}, but the mask has {_short([round(v, 2) for v in right])}',
            )
        ]
    return []


def _check_area(area: object, mask: Mask | None) -> list[tuple[str, str]]:
    """An area has to be about that of the mask; some tools write that of its box, which is let
    pass.
    """
    if not _is_number(area) or area <= 0:
        return [('bad-area', f'area {_short(area)} is not above 0')]
    if mask is None:
        return []
    width, height = mask.box[2] - mask.box[0], mask.box[3] - mask.box[1]
    border = 2 * SLACK * (width + height + 2 * SLACK)
    if not mask.area / 2 - border <= area <= width * height + border:
        return [('bad-area', f'area {_short(area)}, but the mask has {mask.area:.6g} pixels')]
    return []


def is_id(value: object) -> TypeGuard[int | str]:
    """Whether this can be an id; a list cannot, and true would be taken for 1."""
    return isinstance(value, (int, str)) and not isinstance(value, bool)


def _is_side(value: object) -> TypeGuard[int]:
    return type(value) is int and value > 0


def _is_number(value: object) -> TypeGuard[int | float]:
    """A number that can be reckoned with: not infinite, nor so large that it soon would be."""
    return isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) < 1e100


def _short(value: object) -> str:
    """A value from the file for a message, however long it is."""
    text = printable(json.dumps(value, ensure_ascii=False))
    return text if len(text) <= 60 else f'{text[:57]}...'
