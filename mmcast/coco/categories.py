"""Which category of a COCO file a class name means."""

import os
from collections.abc import Container, Mapping, Sequence
from typing import Any

from mmcast.errors import CASTError


def category_ids(
    categories: Sequence[Mapping[str, Any]],
    used: Container[int],
    classes: Sequence[str],
    ann_file: str | os.PathLike,
) -> list[int | None]:
    """The category id of each class, matched by name, never by position.

    Of several categories of one name (labeling tools group others under one) the one with
    annotations is meant.

    Args:
        categories: the file's, with ``id`` and ``name``.
        used: ids of the categories that have annotations.
        classes: class names.
        ann_file: the file, for the message.

    Returns:
        One id per class, None where the file has no such category.

    Raises:
        CASTError: several categories of one name have annotations.
    """
    found: dict[str, list[int]] = {}
    for category in categories:
        found.setdefault(category['name'], []).append(category['id'])
    return [_only_used(found.get(name, []), used, name, ann_file) for name in classes]


def drop_twins(
    categories: Sequence[dict], used: Container[int], ann_file: str | os.PathLike
) -> list[dict]:
    """The categories of a file, one of each name, see :func:`category_ids`."""
    names = list(dict.fromkeys(category['name'] for category in categories))
    kept = set(category_ids(categories, used, names, ann_file))
    return [category for category in categories if category['id'] in kept]


def _only_used(
    ids: list[int], used: Container[int], name: str, ann_file: str | os.PathLike
) -> int | None:
    if len(ids) < 2:
        return ids[0] if ids else None
    with_annotations = [number for number in ids if number in used]
    if len(with_annotations) > 1:
        raise CASTError(
            f'{ann_file}: the categories {", ".join(map(str, with_annotations))} are all called '
            f'{name} and have annotations: rename all but one, or give their annotations one id'
        )
    return (with_annotations or ids)[0]
