"""Toy Cityscapes: procedural street scenes in the folder layout and file formats of Cityscapes."""

import json
import os
from pathlib import Path

import cv2
import numpy as np
from rich.progress import track

from mmcast.coco.converters.cityscapes import (
    IMAGE_SUFFIX,
    INSTANCE_SUFFIX,
    convert_cityscapes,
)
from mmcast.coco.splits import make_split
from mmcast.errors import CASTError
from mmcast.files import write_atomically, write_json
from mmcast.toy.scenes import DOMAINS, draw_scene

VERSION = 1  # raise it when a seed gives other pixels than before
MANIFEST = 'toy_cityscapes.json'
CITIES = {  # invented, so that no one takes these for the real data
    ('source', 'train'): ('hellbruck', 'lichtau', 'sonnthal'),
    ('source', 'val'): ('klarsee', 'tagwerda'),
    ('varied', 'train'): ('allerorts', 'buntenau', 'wechselburg'),
    ('varied', 'val'): ('irgendheim', 'mancherode'),
    ('target', 'train'): ('abendorf', 'dammerburg', 'nebelsheim'),
    ('target', 'val'): ('grauwinkel', 'regenau'),
}
SPLITS = ('train', 'val')


def generate_toy_cityscapes(
    root: str | os.PathLike,
    domain: str = 'target',
    seed: int = 0,
    num_train: int = 200,
    num_val: int = 60,
    size: tuple[int, int] = (112, 224),
    progress: bool = True,
) -> dict:
    """Write a tree of street scenes that looks like a download of Cityscapes.

    Image i of a split depends on (seed, domain, split, i) and the size only. Files that are there
    are kept, so an interrupted call is completed by calling again.

    Args:
        root: Folder to fill: `leftImg8bit/`, `gtFine/` and the manifest `toy_cityscapes.json`.
        domain: 'source' (a clear day), 'target' (a rainy dusk) or 'varied' (any colours, light and
            weather).
        seed: Of all random numbers.
        num_train: Images of the training split.
        num_val: Images of the validation split.
        size: Height and width in pixels.
        progress: Show a progress bar.

    Returns:
        dict: the manifest.

    Raises:
        CASTError: if the domain or size is impossible, or `root` holds other data.
    """
    if domain not in DOMAINS:
        raise CASTError(
            f'unknown domain {domain!r} of Toy Cityscapes: choose one of {", ".join(DOMAINS)}'
        )
    if min(size) < 32 or min(num_train, num_val, seed) < 0:
        raise CASTError(
            'Toy Cityscapes needs at least 32 x 32 pixels and numbers >= 0, not '
            f'size={tuple(size)}, num_train={num_train}, num_val={num_val}, seed={seed}'
        )
    manifest = dict(
        kind='mmcast Toy Cityscapes',
        version=VERSION,
        domain=domain,
        seed=seed,
        num_train=num_train,
        num_val=num_val,
        size=list(size),
    )
    claim_folder(Path(root), manifest)
    scenes = [
        (split, i) for split, number in zip(SPLITS, (num_train, num_val)) for i in range(number)
    ]
    for split, index in track(scenes, f'Generating {domain} scenes', disable=not progress):
        write_scene(Path(root), domain, seed, split, index, size)
    return manifest


def claim_folder(root: Path, manifest: dict) -> None:
    """Make `root` the folder of `manifest`, unless it is another one's already."""
    path = root / MANIFEST
    if path.exists():
        try:
            found = json.loads(path.read_bytes())
        except ValueError as error:
            raise CASTError(
                f'{path} is not valid JSON: delete {root} to generate it again'
            ) from error
        if found != manifest:
            keys = [
                key
                for key in manifest
                if not isinstance(found, dict) or found.get(key) != manifest[key]
            ]
            raise CASTError(
                f'{root} holds Toy Cityscapes made with other parameters ({", ".join(keys)}): '
                'choose another folder, or delete it to generate it again'
            )
        return
    occupied = [name for name in ('leftImg8bit', 'gtFine') if (root / name).exists()]
    if occupied:
        raise CASTError(
            f'{root} holds {occupied[0]} but no {MANIFEST}, so it is not Toy Cityscapes: choose '
            'another folder'
        )
    write_json(path, manifest)


def write_scene(
    root: Path, domain: str, seed: int, split: str, index: int, size: tuple[int, int]
) -> None:
    """Draw one scene and write its three files, those that are missing."""
    cities = CITIES[domain, split]
    city = cities[index % len(cities)]
    # 19 is the labeled frame of the 30 in a real sequence
    stem = f'{split}/{city}/{city}_{index:06d}_000019'
    paths = [
        root / f'gtFine/{stem}{INSTANCE_SUFFIX}',
        root / f'gtFine/{stem}_gtFine_labelIds.png',
        root / f'leftImg8bit/{stem}{IMAGE_SUFFIX}',
    ]
    if all(path.exists() for path in paths):
        return
    rng = np.random.default_rng([seed, list(DOMAINS).index(domain), SPLITS.index(split), index])
    image, ids = draw_scene(domain, rng, tuple(size))
    label_ids = np.where(ids >= 1000, ids // 1000, ids).astype(np.uint8)
    for path, pixels in zip(paths, (ids, label_ids, image[:, :, ::-1])):
        if not path.exists():
            write_atomically(path, cv2.imencode('.png', pixels)[1].tobytes())


def prepare_toy_cityscapes(
    root: str | os.PathLike,
    seed: int = 0,
    percent: float = 10,
    data_seed: int = 0,
    domain: str = 'target',
    num_train: int = 200,
    num_val: int = 60,
    size: tuple[int, int] = (112, 224),
) -> dict:
    """The data step of the toy pipeline: scenes, COCO files and a split; calling it again changes
    nothing.

    Runs with different seeds share the images (`data_seed`) and differ in which of them are labeled
    (`seed`).

    Returns:
        dict: paths of the COCO files `train`, `val`, `labeled` and `unlabeled`, and of the folders
        that their file names are relative to, `train_images` and `val_images`.
    """
    root = Path(root)
    generate_toy_cityscapes(root, domain, data_seed, num_train, num_val, size)
    files = {split: root / f'annotations/instances_{split}.json' for split in SPLITS}
    for split, path in files.items():
        convert_cityscapes(root, split, path)
    for part in ('labeled', 'unlabeled'):
        files[part] = root / f'annotations/{part}_{percent:g}percent_seed{seed}.json'
    make_split(
        files['train'],
        files['labeled'],
        files['unlabeled'],
        percent=percent,
        seed=seed,
        stratify=True,
    )
    folders = {f'{split}_images': root / 'leftImg8bit' / split for split in SPLITS}
    return {name: str(path) for name, path in (files | folders).items()}
