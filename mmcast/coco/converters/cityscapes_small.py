"""The data step of the pipelines on small Cityscapes."""

import os
from collections import Counter
from collections.abc import Collection, Sequence
from pathlib import Path

from mmcast.coco.converters.cityscapes import convert_cityscapes
from mmcast.coco.converters.instance_maps import convert_missing
from mmcast.coco.instances import count_objects, rare_line
from mmcast.coco.reading import read_coco
from mmcast.coco.splits import make_split
from mmcast.errors import CASTError
from mmcast.files import write_json
from mmcast.typed_values import read_texts


def prepare_cityscapes_small(
    root: str | os.PathLike,
    out_dir: str | os.PathLike,
    percent: float = 10,
    seed: int = 0,
    height: int = 160,
    min_area: int = 0,
    val_cities: str | Sequence[str] | None = None,
    test_cities: str | Sequence[str] | None = None,
    num_workers: int = 8,
) -> dict:
    """The data step of a pipeline: a training set, one half of the validation set to choose on and
    another one to report on; calling it again changes nothing.

    A city is in one of the three alone. Without a choice, those of validation go one by one, from
    the one with most images on, to the half with fewer of them; the largest is in the half to
    choose on.

    Args:
        root: what ``mmcast convert cityscapes --height`` made, or any data set of this layout and
            height; its COCO files are made if they are not there.
        out_dir: folder of the new COCO files.
        percent: percentage of the training images that keep their labels; every class is among
            them.
        seed: which images these are.
        height: of the images in pixels, which is checked.
        min_area: training objects of fewer pixels become groups (``iscrowd``): they are background
            in training, and no quality of pseudo-labels counts them. Validation keeps all; its
            metric has an option of the same name.
        val_cities: cities to choose on instead, which leave the training set if they are there.
        test_cities: cities to report on, likewise.
        num_workers: processes that read maps where the COCO files are not there yet.

    Returns:
        Paths: the COCO files ``train``, ``labeled``, ``unlabeled``, ``val`` and ``test``, and the
        folder of the images of each, ``train_images``, ``val_images`` and ``test_images``.

    Raises:
        CASTError: a part of the data set is missing, its images are of another height, or a city is
            not there or named twice.
    """
    if not Path(root, 'leftImg8bit').is_dir():
        raise CASTError(
            f'{root} has no leftImg8bit: make it with mmcast convert cityscapes FOLDER --height '
            f'{height} --out-root {root}, or say where it is with --cfg-options '
            'variables.data_root=FOLDER'
        )
    convert_missing(convert_cityscapes, root, num_workers)
    parts = [_read_split(root, split, height) for split in ('train', 'val')]
    if val_cities is None and test_cities is None:
        val_cities, test_cities = halve_cities(parts[1]['images'])
    cities = _check_cities(
        parts, _names(val_cities, 'val_cities'), _names(test_cities, 'test_cities')
    )
    files = {name: Path(out_dir, f'{name}.json') for name in cities}
    for name, chosen in cities.items():
        content = _of_cities(parts, chosen)
        if name != 'train' and (line := _rare_line(content, min_area, name)):
            print(line)
        write_json(files[name], ignore_small(content, min_area) if name == 'train' else content)
    for part in ('labeled', 'unlabeled'):
        files[part] = Path(out_dir, f'{part}_{percent:g}percent_seed{seed}.json')
    make_split(
        files['train'], files['labeled'], files['unlabeled'],
        percent=percent, seed=seed, stratify=True,
    )  # fmt: skip
    images = str(Path(root, 'leftImg8bit'))
    folders = dict.fromkeys(('train_images', 'val_images', 'test_images'), images)
    return {name: str(path) for name, path in files.items()} | folders


def _read_split(root: str | os.PathLike, split: str, height: int) -> dict:
    """The COCO content of a split, file names relative to ``leftImg8bit``."""
    path = Path(root, f'annotations/instances_{split}.json')
    coco = read_coco(path)
    other = {image['height'] for image in coco['images']} - {height}
    if other:
        raise CASTError(
            f'{path} has images {min(other)} pixels high, not {height}: make those with mmcast '
            f'convert cityscapes FOLDER --height {height}'
        )
    images = [dict(image, file_name=f'{split}/{image["file_name"]}') for image in coco['images']]
    return dict(coco, images=images)


def _rare_line(content: dict, min_area: int, part: str) -> str:
    names = {category['id']: category['name'] for category in content['categories']}
    counts = count_objects(content['annotations'], min_area)
    which = f'the images of {part}, counting objects of {min_area} pixels and more,'
    return rare_line({name: counts[own] for own, name in names.items()}, which)


def city_of(image: dict) -> str:
    """The city that an image's file name gives, in the layout of Cityscapes."""
    return image['file_name'].split('/')[-2]


def halve_cities(images: Sequence[dict]) -> tuple[list[str], list[str]]:
    """Cities of the half to choose on and of the half to report on, with about as many images.

    Raises:
        CASTError: there are fewer than two cities.
    """
    halves: tuple[list[str], list[str]] = [], []
    counts = Counter(map(city_of, images))
    if len(counts) < 2:
        raise CASTError(
            f'validation has images of {len(counts)} cities, which cannot be halved: set '
            'variables.val_cities and variables.test_cities'
        )
    totals = [0, 0]
    for city in sorted(counts, key=lambda city: (-counts[city], city)):
        smaller = int(totals[1] < totals[0])
        halves[smaller].append(city)
        totals[smaller] += counts[city]
    return halves


def _names(cities: str | Sequence[str] | None, variable: str) -> Sequence[str]:
    """Names, which a command line gives as one text."""
    if isinstance(cities, str):
        return read_texts(cities, f'variables.{variable}')
    return cities or ()


def _check_cities(
    parts: Sequence[dict], val: Sequence[str], test: Sequence[str]
) -> dict[str, set[str]]:
    """The cities of ``train``, ``val`` and ``test``."""
    known = [set(map(city_of, part['images'])) for part in parts]
    for name, cities in (('val_cities', val), ('test_cities', test)):
        missing = set(cities) - known[0] - known[1]
        if missing or not cities:
            raise CASTError(
                f'variables.{name} is {", ".join(cities) or "empty"}; give some of '
                f'{", ".join(sorted(known[0] | known[1]))}'
            )
    if both := set(val) & set(test):
        raise CASTError(f'{min(both)} is in variables.val_cities and test_cities: choose one')
    train = known[0] - set(val) - set(test)
    if not train:
        raise CASTError('variables.val_cities and test_cities leave no city to train on')
    return dict(train=train, val=set(val), test=set(test))


def _of_cities(parts: Sequence[dict], cities: Collection[str]) -> dict:
    """One COCO content of the images of some cities, numbered from 1."""
    images: list[dict] = []
    annotations: list[dict] = []
    for part in parts:
        numbers = {}
        for image in part['images']:
            if city_of(image) in cities:
                numbers[image['id']] = len(images) + 1
                images.append(dict(image, id=len(images) + 1))
        for ann in part['annotations']:
            if ann['image_id'] in numbers:
                image_id = numbers[ann['image_id']]
                annotations.append(dict(ann, id=len(annotations) + 1, image_id=image_id))
    return dict(parts[0], images=images, annotations=annotations)


def ignore_small(coco: dict, min_area: int) -> dict:
    """A COCO content in which objects of fewer pixels than ``min_area`` are groups."""
    return dict(
        coco,
        annotations=[
            dict(ann, iscrowd=int(bool(ann['iscrowd']) or ann['area'] < min_area))
            for ann in coco['annotations']
        ],
    )
