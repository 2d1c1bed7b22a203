"""Split a COCO annotation file into a labeled and an unlabeled part."""
from __future__ import annotations

import os
from collections import Counter
from fractions import Fraction
from math import floor
from pathlib import Path

import numpy as np

from ..errors import CASTError
from ..files import read_coco, write_json_files


def make_split(ann_file: str | os.PathLike,
               labeled_out: str | os.PathLike,
               unlabeled_out: str | os.PathLike,
               *,
               percent: float | None = None,
               count: int | None = None,
               seed: int = 0,
               stratify: bool = False,
               force: bool = False) -> dict:
    """Draw labeled images without replacement; the others go, without annotations, into the unlabeled file.

    Args:
        ann_file: COCO JSON of all images.
        labeled_out: COCO JSON of the drawn images with their annotations.
        unlabeled_out: COCO JSON of the other images; its `annotations` are empty.
        percent: Share of the images to label, to the nearest image, halves up (10 % of 2975 are 298).
        count: Number of images to label, instead of `percent`.
        seed: Of this split's own generator; the global ones are not touched.
        stratify: Make sure that every class of `ann_file` is among the labels, see :func:`draw_images`.
        force: Replace existing files with other content.

    Returns:
        dict: number of `labeled` and `unlabeled` images and, under `instances`, of labels by class name.

    Raises:
        CASTError: if the file is no COCO file, the number cannot be drawn, or an output exists with other
            content.
    """
    paths = [Path(path).resolve() for path in (ann_file, labeled_out, unlabeled_out)]
    if len(set(paths)) < 3:
        raise CASTError(f'{ann_file}: the input and the two outputs must be three different files')
    coco = read_coco(ann_file)
    image_ids = [image['id'] for image in coco['images']]
    if len(set(image_ids)) != len(image_ids):
        raise CASTError(f'{ann_file} has two images with one id: make the annotation file again')
    total = number_to_label(len(image_ids), percent, count, ann_file)
    classes = instance_classes(coco, ann_file)
    chosen = draw_images(image_ids, classes, total, seed, stratify, ann_file)

    info = dict(coco.get('info') or {}, split=dict(source=Path(ann_file).name, labeled=total, seed=seed,
                                                   stratify=stratify))
    labeled = dict(coco, info=info, images=[image for image in coco['images'] if image['id'] in chosen],
                   annotations=[ann for ann in coco['annotations'] if ann['image_id'] in chosen])
    unlabeled = dict(info=info, categories=coco['categories'], annotations=[],
                     images=[image for image in coco['images'] if image['id'] not in chosen])
    write_json_files({labeled_out: labeled, unlabeled_out: unlabeled}, force)
    counted = Counter(ann['category_id'] for ann in labeled['annotations'] if not ann.get('iscrowd'))
    return dict(labeled=total, unlabeled=len(image_ids) - total,
                instances={category['name']: counted[category['id']] for category in coco['categories']})


def number_to_label(available: int, percent: float | None, count: int | None, ann_file) -> int:
    """How many of the `available` images to label; exact, therefore with fractions."""
    if (percent is None) == (count is None):
        raise CASTError('give either a percentage or a number of images to label, and not both')
    number = count if count is not None else floor(available * Fraction(str(percent)) / 100 + Fraction(1, 2))
    if not 1 <= number <= available:
        asked = f'{number} images' if percent is None else f'{percent} % ({number} images)'
        raise CASTError(f'{ann_file} has {available} images: cannot label {asked}, ask for 1 to {available}')
    return number


def instance_classes(coco: dict, ann_file) -> dict[int, set[int]]:
    """The category ids of the instances of every image; groups (`iscrowd`) teach nothing and do not count."""
    classes = {image['id']: set() for image in coco['images']}
    for ann in coco['annotations']:
        if ann['image_id'] not in classes:
            raise CASTError(f'{ann_file}: annotation {ann.get("id")} is of an image that is not listed '
                            f'({ann["image_id"]}): make the annotation file again')
        if not ann.get('iscrowd'):
            classes[ann['image_id']].add(ann['category_id'])
    return classes


def draw_images(image_ids: list[int], classes: dict[int, set[int]], number: int, seed: int, stratify: bool,
                ann_file) -> set[int]:
    """The ids of the images to label: the first `number` of a random order.

    With `stratify`, the first image of every class in that order is moved to its front, the rarest class
    first and only if no image moved before shows the class. It changes a draw no more than its gaps require:
    images that were in it anyway only move.
    """
    order = [image_ids[i] for i in np.random.default_rng(seed).permutation(len(image_ids))]
    if stratify:
        images_of = Counter(category for found in classes.values() for category in found)
        needed: list[int] = []
        for category in sorted(images_of, key=lambda c: (images_of[c], c)):
            if not any(category in classes[image] for image in needed):
                needed.append(next(image for image in order if category in classes[image]))
        if len(needed) > number:
            raise CASTError(
                f'{ann_file}: {number} labeled images cannot show all {len(images_of)} classes here: '
                f'label at least {len(needed)}, or do not stratify')
        order = needed + [image for image in order if image not in set(needed)]
    return set(order[:number])
