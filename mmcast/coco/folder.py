"""The data step of a pipeline on a COCO-style data set: find its parts, select the labeled
images.
"""

import os
from pathlib import Path

from mmcast.coco.reading import read_labels
from mmcast.coco.splits import make_split
from mmcast.errors import CASTError
from mmcast.files import write_json


def prepare_coco_folder(
    root: str | os.PathLike,
    out_dir: str | os.PathLike,
    percent: float = 10,
    seed: int = 0,
    train: str = 'annotations/instances_train.json',
    val: str = 'annotations/instances_val.json',
    train_images: str = 'images',
    val_images: str = 'images',
) -> dict:
    """Split the training set into labeled and unlabeled images; calling it again changes nothing.

    Args:
        root: The data set; nothing is written there.
        out_dir: Folder of the two new COCO files.
        percent: Percentage of the training images that keep their labels.
        seed: Which images these are.
        train: COCO file of the training set, relative to ``root``.
        val: COCO file of the validation set, relative to ``root``.
        train_images: Folder of the training images, relative to ``root``.
        val_images: Folder of the validation images, relative to ``root``.

    Returns:
        Paths: the COCO files ``train``, ``val`` (a copy, if it needed mending), ``labeled`` and
        ``unlabeled``, the folders ``train_images`` and ``val_images``.

    Raises:
        CASTError: If a part of the data set is missing, naming it and the setting to change, or a
            file cannot be used.
    """
    paths = {
        name: Path(root, part)
        for name, part in dict(
            train=train, val=val, train_images=train_images, val_images=val_images
        ).items()
    }
    for path in paths.values():
        if not path.exists():
            raise CASTError(
                f'{path} not found: put the data set there, or say where it is with --cfg-options '
                'variables.data_root=FOLDER'
            )
    for part in ('labeled', 'unlabeled'):
        paths[part] = Path(out_dir, f'{part}_{percent:g}percent_seed{seed}.json')
    make_split(
        paths['train'],
        paths['labeled'],
        paths['unlabeled'],
        percent=percent,
        seed=seed,
        img_dir=paths['train_images'],
    )
    paths['val'] = _mended_copy(paths['val'], paths['val_images'], Path(out_dir, 'val.json'))
    return {name: str(path) for name, path in paths.items()}


def _mended_copy(ann_file: Path, img_dir: Path, copy: Path) -> Path:
    """The file itself, or a copy of it with what can be mended mended."""
    labels = read_labels(ann_file, img_dir)
    if not labels.mended:
        return ann_file
    for line in labels.mended:
        print(line)
    write_json(copy, labels.content, force=True)
    return copy
