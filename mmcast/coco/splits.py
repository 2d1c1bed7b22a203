"""Split a COCO annotation file into a labeled and an unlabeled part."""

import json
import os
from collections import Counter, defaultdict
from collections.abc import Mapping
from fractions import Fraction
from itertools import chain
from math import floor
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from mmcast.coco.reading import read_labels
from mmcast.coco.versions import ids_by_photo
from mmcast.errors import CASTError
from mmcast.files import sha256_of_file, write_json_files
from mmcast.memory import no_cycle_search
from mmcast.version import __version__


@no_cycle_search()
def make_split(
    ann_file: str | os.PathLike,
    labeled_out: str | os.PathLike,
    unlabeled_out: str | os.PathLike,
    *,
    percent: float | None = None,
    count: int | None = None,
    from_list: str | os.PathLike | None = None,
    seed: int = 0,
    stratify: bool = False,
    force: bool = False,
    img_dir: str | os.PathLike | None = None,
) -> dict:
    """Choose labeled images without replacement; the others go, without annotations, into the
    unlabeled file.

    Splits nest: the 5 % of a seed are among its 10 %, also if both are stratified, see
    :func:`draw_images`. How the split was made is written next to it, see :func:`manifest_path` and
    :func:`describe_split`.

    Args:
        ann_file: COCO JSON of all images.
        labeled_out: COCO JSON of the chosen images with their annotations.
        unlabeled_out: COCO JSON of the other images; its `annotations` are empty.
        percent: Percentage of the images to label, to the nearest image, halves up (10 % of 2975
            are 298).
        count: Number of images to label, instead of `percent`.
        from_list: Text file that names the images to label, instead of a random choice, see
            :func:`listed_images`.
        seed: Of this split's own generator; the global ones are not touched.
        stratify: Make sure that every class of `ann_file` is among the labels, see
            :func:`draw_images`.
        force: Replace existing files with other content.
        img_dir: Folder of the images, whose headers tell the sizes that ``ann_file`` does not.

    Returns:
        dict: number of `labeled` and `unlabeled` images and, under `instances`, of labels by class
            name.

    Raises:
        CASTError: if the file is not a COCO file or cannot be used, the number cannot be selected,
            a listed name is not that of exactly one image, or an output exists with other content.
    """
    manifest_out = manifest_path(labeled_out)
    paths = [Path(path).resolve() for path in (ann_file, labeled_out, unlabeled_out, manifest_out)]
    if len(set(paths)) < len(paths):
        raise CASTError(
            f'{ann_file}: the input, the two outputs and {manifest_out} must be different files'
        )
    labels = read_labels(ann_file, img_dir)
    for line in labels.mended:
        print(line)
    chosen, choice = choose_labeled_images(
        labels.content, ann_file, percent, count, from_list, seed, stratify
    )
    labeled, unlabeled = _divide(labels.content, chosen, choice, ann_file)
    manifest = describe_split(ann_file, labeled, len(unlabeled['images']), choice)
    write_json_files(
        {
            labeled_out: labeled,
            unlabeled_out: unlabeled,
            manifest_out: keep_version(manifest, manifest_out),
        },
        force,
    )
    return dict(
        labeled=len(chosen),
        unlabeled=len(unlabeled['images']),
        instances=manifest['instances_per_class'],
    )


def halve_validation(
    files: Mapping[str, Any], out_dir: str | os.PathLike, seed: int = 0
) -> dict[str, Any]:
    """Divide the validation images of a data step into two halves by chance, a step of pipelines:
    what is chosen on one half is reported on the other. Versions of one photo stay together.

    Args:
        files: What the data step left: the COCO file ``val``, ``val_images``, and others.
        out_dir: Folder of the two new files; the same content is left alone.
        seed: Which images these are.

    Returns:
        dict: ``files``, where the COCO files `val` and `test` are the halves; that of `test` has a
            photo more if their number is odd.

    Raises:
        CASTError: if there are fewer than two photos, or a half exists with other content.
    """
    content = read_labels(files['val'], files.get('val_images')).content
    photos = ids_by_photo(content['images'])
    if len(photos) < 2:
        raise CASTError(
            f'{files["val"]} has {len(content["images"])} images of {len(photos)} photos: two '
            'halves need two photos'
        )
    groups = {group[0]: group for group in photos.values()}
    drawn = draw_images([*groups], {}, len(groups) // 2, seed, False, files['val'])
    chosen = {number for first in drawn for number in groups[first]}
    paths: dict[str, str] = {}
    halves: dict[str | os.PathLike, dict] = {}
    for name, keep in (('val', chosen), ('test', {*chain(*photos.values())} - chosen)):
        paths[name] = str(Path(out_dir, f'{name}_half_seed{seed}.json'))
        halves[paths[name]] = dict(
            content,
            images=[image for image in content['images'] if image['id'] in keep],
            annotations=[ann for ann in content['annotations'] if ann['image_id'] in keep],
        )
    write_json_files(halves)
    return dict(files) | paths


def _divide(
    coco: dict, chosen: set[int], choice: dict, ann_file: str | os.PathLike
) -> tuple[dict, dict]:
    """The contents of the labeled and of the unlabeled file."""
    # What older splits say of themselves, so that calling a pipeline's data step again changes
    # nothing.
    told = {key: choice[key] for key in ('seed', 'stratify', 'from_list') if key in choice}
    info = dict(
        coco.get('info') or {}, split=dict(source=Path(ann_file).name, labeled=len(chosen), **told)
    )
    labeled = dict(
        coco,
        info=info,
        images=[image for image in coco['images'] if image['id'] in chosen],
        annotations=[ann for ann in coco['annotations'] if ann['image_id'] in chosen],
    )
    unlabeled = dict(
        info=info,
        categories=coco['categories'],
        annotations=[],
        images=[image for image in coco['images'] if image['id'] not in chosen],
    )
    return labeled, unlabeled


def choose_labeled_images(
    coco: dict,
    ann_file: str | os.PathLike,
    percent: float | None,
    count: int | None,
    from_list: str | os.PathLike | None,
    seed: int,
    stratify: bool,
) -> tuple[set[int], dict]:
    """The ids of the images to label, and how they were chosen in the words of the manifest."""
    if sum(option is not None for option in (percent, count, from_list)) != 1 or (
        from_list and stratify
    ):
        raise CASTError(
            'give a percentage, a number of images to label or a list of their names, one of the '
            'three; a list cannot be stratified'
        )
    image_ids = [image['id'] for image in coco['images']]
    classes = instance_classes(coco)
    if from_list is not None:
        return listed_images(coco['images'], from_list, ann_file), dict(
            from_list=Path(from_list).name
        )
    total = number_to_label(len(image_ids), percent, count, ann_file)
    chosen = draw_images(image_ids, classes, total, seed, stratify, ann_file)
    return chosen, dict(percent=percent, count=count, seed=seed, stratify=stratify, nested=True)


def manifest_path(labeled_out: str | os.PathLike) -> Path:
    """Where the manifest of a split is: `labeled.json` has `labeled.manifest.json` next to it."""
    path = Path(labeled_out)
    return path.with_name(f'{path.name.removesuffix(".json")}.manifest.json')


def describe_split(
    ann_file: str | os.PathLike, labeled: dict, unlabeled_images: int, choice: dict
) -> dict:
    """The manifest: version, source and its SHA-256, how images were chosen, and counts of the
    labels.

    Nothing about the unlabeled images but their number: counts per class would give their labels
    away.
    """
    names = {category['id']: category['name'] for category in labeled['categories']}
    instances = [ann for ann in labeled['annotations'] if not ann.get('iscrowd')]
    per_class = Counter(ann['category_id'] for ann in instances)
    images = Counter(
        category for _, category in {(ann['image_id'], ann['category_id']) for ann in instances}
    )
    return dict(
        mmcast=__version__,
        source=Path(ann_file).name,
        source_sha256=sha256_of_file(ann_file),
        **choice,
        labeled_images=len(labeled['images']),
        unlabeled_images=unlabeled_images,
        images_per_class={name: images[category] for category, name in names.items()},
        instances_per_class={name: per_class[category] for category, name in names.items()},
    )


def keep_version(manifest: dict, path: Path) -> dict:
    """The manifest that is on disk already if it differs in nothing but the version of mmcast.

    A split that a newer version would make just the same is no reason to refuse it.
    """
    try:
        found = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return manifest
    same = isinstance(found, dict) and dict(found, mmcast=__version__) == manifest
    return found if same else manifest


def listed_images(
    images: list[dict], from_list: str | os.PathLike, ann_file: str | os.PathLike
) -> set[int]:
    """The ids of the images that a text file names, one per line; empty lines are skipped.

    A name is a `file_name` of `images` as it stands there, or else one without its folder, with or
    without extension.

    Raises:
        CASTError: naming file, line and name, if a name is that of no image, of several, or there
            twice.
    """
    by_file, by_base = defaultdict(set), defaultdict(set)
    for image in images:
        path = PurePosixPath(image['file_name'])
        by_file[image['file_name']].add(image['id'])
        for base in (path.name, path.stem):
            by_base[base].add(image['id'])
    line_of: dict[int, int] = {}
    for line, name in read_names(from_list).items():
        found = by_file.get(name) or by_base.get(name) or set()
        place = f'{from_list}, line {line}: {name!r}'
        if not found:
            raise CASTError(f'{place} is not an image of {ann_file}: correct or remove the line')
        if len(found) > 1:
            raise CASTError(
                f'{place} fits {len(found)} images of {ann_file}: write the file name with its '
                'folder and extension, as it is there'
            )
        (image_id,) = found
        if image_id in line_of:
            raise CASTError(
                f'{place} is the image of line {line_of[image_id]} again: remove one of the two'
            )
        line_of[image_id] = line
    return set(line_of)


def read_names(path: str | os.PathLike) -> dict[int, str]:
    """The lines of a text file that are not empty, by their number from 1."""
    try:
        lines = Path(path).read_text(encoding='utf-8-sig').splitlines()
    except OSError as error:
        raise CASTError(
            f'{path}: cannot read the list of names ({error.strerror}): check the path'
        ) from error
    except UnicodeDecodeError as error:
        raise CASTError(
            f'{path} is not a text file in UTF-8: give one file name per line'
        ) from error
    names = {number: line.strip() for number, line in enumerate(lines, 1) if line.strip()}
    if not names:
        raise CASTError(f'{path} names no image: give one file name per line')
    return names


def number_to_label(
    available: int, percent: float | None, count: int | None, ann_file: str | os.PathLike
) -> int:
    """How many of the `available` images to label; exact, therefore with fractions."""
    number = (
        count
        if count is not None
        else floor(available * Fraction(str(percent)) / 100 + Fraction(1, 2))
    )
    if not 1 <= number <= available:
        asked = f'{number} images' if percent is None else f'{percent} % ({number} images)'
        raise CASTError(
            f'{ann_file} has {available} images: cannot label {asked}, ask for 1 to {available}'
        )
    return number


def instance_classes(coco: dict) -> dict[int, set[int]]:
    """The category ids of the instances of every image; groups (`iscrowd`) teach nothing and do not
    count.
    """
    classes: dict[int, set[int]] = {image['id']: set() for image in coco['images']}
    for ann in coco['annotations']:
        if not ann['iscrowd']:
            classes[ann['image_id']].add(ann['category_id'])
    return classes


def draw_images(
    image_ids: list[int],
    classes: dict[int, set[int]],
    number: int,
    seed: int,
    stratify: bool,
    ann_file: str | os.PathLike,
) -> set[int]:
    """The ids of the images to label: the first `number` of a random order.

    With `stratify`, the first image of every class in that order is moved to its front, the rarest
    class first and only if no image moved before shows the class. It changes a selection no more
    than its gaps require: images that were in it anyway only move.

    Splits of one seed nest by construction: `number` has no part in making the order, stratified
    or not, and a smaller selection is the beginning of a larger one.
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
                f'{ann_file}: {number} labeled images cannot show all {len(images_of)} classes '
                f'here: label at least {len(needed)}, or do not stratify'
            )
        order = needed + [image for image in order if image not in set(needed)]
    return set(order[:number])
