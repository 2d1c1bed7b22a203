"""Labeled images in parts of about as many objects of each class, to hold out one after the
other.
"""

from collections import Counter
from collections.abc import Container, Set

import numpy as np

from mmcast.coco.versions import ids_by_photo


def make_folds(
    coco: dict, number: int, seed: int = 0, classes: Container[str] | None = None
) -> list[list[int]]:
    """Image ids of each fold, in the file's order.

    Versions of one photo are in one fold. The class of which fewest objects are left comes first:
    its photos go, those with most of it before others, to the fold that has fewest of its objects.
    Source: iterative stratification, Sechidis et al., ECML PKDD 2011.

    Args:
        coco: content of a COCO file as :func:`~mmcast.coco.reading.read_coco` returns it.
        number: of folds; there are fewer where fewer photos show an object.
        seed: which photos come first among equals.
        classes: names of those that count; None for all.
    """
    photos = ids_by_photo(coco['images'])
    objects = _objects_of(coco, photos, classes)
    order = [list(photos)[i] for i in np.random.default_rng(seed).permutation(len(photos))]
    number = min(number, sum(1 for photo in photos if objects[photo]))
    folds: list[list[str]] = [[] for _ in range(number)]
    held = [Counter[int]() for _ in range(number)]
    waiting = [photo for photo in order if objects[photo]]
    while waiting:
        left = sum((objects[photo] for photo in waiting), Counter[int]())
        rarest = min(left, key=lambda category: (left[category], category))
        showing = sorted(
            (photo for photo in waiting if objects[photo][rarest]),
            key=lambda photo: -objects[photo][rarest],
        )
        for photo in showing:
            place = min(
                range(number),
                key=lambda fold: (held[fold][rarest], held[fold].total(), len(folds[fold])),
            )
            folds[place].append(photo)
            held[place] += objects[photo]
        taken = set(showing)
        waiting = [photo for photo in waiting if photo not in taken]
    if number:
        for photo in order:
            if not objects[photo]:
                min(folds, key=len).append(photo)
    places = {image: at for at, fold in enumerate(folds) for name in fold for image in photos[name]}
    ids = [image['id'] for image in coco['images']]
    return [[image for image in ids if places.get(image) == at] for at in range(number)]


def _objects_of(
    coco: dict, photos: dict[str, list[int]], classes: Container[str] | None
) -> dict[str, Counter[int]]:
    """Numbers of objects by class of each photo; groups (``iscrowd``) do not count."""
    photo_of_image = {image: photo for photo, images in photos.items() for image in images}
    objects = {photo: Counter[int]() for photo in photos}
    counted = {
        each['id'] for each in coco['categories'] if classes is None or each['name'] in classes
    }
    for ann in coco['annotations']:
        if not ann.get('iscrowd') and ann['category_id'] in counted:
            objects[photo_of_image[ann['image_id']]][ann['category_id']] += 1
    return objects


def without_images(coco: dict, ids: Set[int]) -> dict:
    """The content of a file without some images and their annotations."""
    return dict(
        coco,
        images=[image for image in coco['images'] if image['id'] not in ids],
        annotations=[ann for ann in coco['annotations'] if ann['image_id'] not in ids],
    )
