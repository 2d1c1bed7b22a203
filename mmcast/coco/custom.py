"""The data step of ``configs/cast_custom.py``: a COCO JSON, some unlabeled images, and nothing else
to arrange.
"""

import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from rich.progress import track

from mmcast.coco.reading import read_coco
from mmcast.coco.splits import draw_images, instance_classes
from mmcast.errors import CASTError
from mmcast.files import write_json_files
from mmcast.images import IMAGE_SUFFIXES, image_files, read_image_size

MAX_QUERIES = 300


def prepare_custom_data(
    data_root: str | os.PathLike,
    labeled: str,
    unlabeled: str,
    out_dir: str | os.PathLike,
    classes: str | Sequence[str] | None = None,
    val: str | None = None,
    val_percent: float = 20,
    seed: int = 0,
) -> dict:
    """Find what belongs together and write the COCO files that training reads; the data set is not
    touched.

    Args:
        data_root: Folder that the other paths are relative to.
        labeled: COCO JSON of the labeled images. Their folder is found by itself, see
            :func:`find_images`.
        unlabeled: Folder of images, at any depth, or a COCO JSON, whose annotations are
            ignored. Images that are labeled or for validation are left out.
        out_dir: Folder of the new files.
        classes: Names to learn; default those that ``labeled`` has instances of, in its order.
        val: COCO JSON of validation images; default a part of the labeled ones, which is then not
            trained on.
        val_percent: Percentage of them.
        seed: Which images these are.

    Returns:
        Paths ``labeled``, ``unlabeled``, ``val``, folders ``train_images``, ``unlabeled_images``,
        ``val_images``, ``classes``, ``num_classes``, ``class_weight`` (the classes' 1.0 and no
        object's 0.1) and ``num_queries``, enough for the image with the most instances.

    Raises:
        CASTError: something is missing, does not fit or is ambiguous, naming it and the setting to
            change.
    """
    root = existing(Path(data_root), 'variables.data_root')
    labeled_file = existing(root / labeled, 'variables.labeled')
    coco = read_coco(labeled_file)
    check_masks(coco, labeled_file)
    names = choose_classes(coco, classes, labeled_file)
    train_images = find_images(coco, labeled_file, root)
    if val:
        val_file = existing(root / val, 'variables.val')
        val_coco = read_coco(val_file)
        val_images = find_images(val_coco, val_file, root)
    else:
        coco, val_coco = hold_out(coco, labeled_file, val_percent, seed)
        val_images = train_images
    known = {
        path.resolve()
        for part, folder in ((coco, train_images), (val_coco, val_images))
        for path in image_paths(part, folder)
    }
    unlabeled_images, images = list_unlabeled(
        existing(root / unlabeled, 'variables.unlabeled'), root, known
    )

    paths = {name: Path(out_dir, f'{name}.json') for name in ('labeled', 'unlabeled', 'val')}
    write_json_files(
        {
            paths['labeled']: coco,
            paths['unlabeled']: dict(images=images, annotations=[], categories=coco['categories']),
            paths['val']: val_coco,
        }
    )
    print(
        f'{len(coco["images"])} labeled, {len(images)} unlabeled and {len(val_coco["images"])} '
        'validation images'
        + ('' if val else f' ({val_percent:g} % of the labeled)')
        + f'; classes: {", ".join(names)}'
    )
    return dict(
        {name: str(path) for name, path in paths.items()},
        train_images=str(train_images),
        unlabeled_images=str(unlabeled_images),
        val_images=str(val_images),
        classes=names,
        num_classes=len(names),
        class_weight=[1.0] * len(names) + [0.1],
        num_queries=queries_for([coco, val_coco]),
    )


def existing(path: Path, setting: str) -> Path:
    """The path; raises CASTError if nothing is there."""
    if not path.exists():
        raise CASTError(
            f'{path} not found: say where it is with --cfg-options {setting}=PATH, or in the config'
        )
    return path


def check_masks(coco: dict, ann_file: Path) -> None:
    """Raises CASTError where there is nothing to learn masks from; labels of detection have boxes
    alone.
    """
    if not coco['annotations']:
        raise CASTError(f'{ann_file} has no annotation: give the file of the labeled images')
    boxes = [ann['id'] for ann in coco['annotations'] if not ann.get('segmentation')]
    if boxes:
        raise CASTError(
            f'{ann_file}: {len(boxes)} of {len(coco["annotations"])} annotations, such as id '
            f'{boxes[0]}, have no mask: label polygons or masks, or take these annotations out'
        )


def choose_classes(coco: dict, classes: str | Sequence[str] | None, ann_file: Path) -> list[str]:
    """The class names to learn, each of which the file knows.

    Without a choice, a category without instances is left out: labeling tools export one that holds
    the others.
    """
    used = {ann['category_id'] for ann in coco['annotations']}
    known = [category['name'] for category in coco['categories']]
    if not classes:
        return [category['name'] for category in coco['categories'] if category['id'] in used]
    names = [classes] if isinstance(classes, str) else list(classes)
    missing = [name for name in names if name not in known]
    if missing or len(set(names)) < len(names):
        raise CASTError(
            f'{ann_file} has the categories {", ".join(known)}; variables.classes must be some of '
            f'them, each once, not {", ".join(map(str, names))}'
        )
    return names


def image_paths(coco: dict, folder: Path) -> list[Path]:
    """The files of a COCO file's images."""
    return [folder / image['file_name'] for image in coco['images']]


def find_images(coco: dict, ann_file: Path, root: Path) -> Path:
    """The one folder, up to two levels below ``root`` or next to the file, that has all images of a
    COCO file.

    Raises:
        CASTError: there is none, or there are several.
    """
    if not coco['images']:
        raise CASTError(f'{ann_file} lists no image: make it again')
    first = coco['images'][0]['file_name']
    places = dict.fromkeys(
        place.resolve()
        for parent in (root, ann_file.parent)
        for place in (parent, *sorted(parent.glob('*/')), *sorted(parent.glob('*/*/')))
    )
    likely = [place for place in places if (place / first).is_file()]
    if not likely:
        raise CASTError(
            f'{ann_file}: image {first} is neither in {root} nor up to two folders below it: set '
            'variables.data_root to the folder that file_name is relative to'
        )
    missing = {
        place: [path for path in image_paths(coco, place) if not path.is_file()] for place in likely
    }
    complete = [place for place in likely if not missing[place]]
    if len(complete) > 1:
        raise CASTError(
            f'the images of {ann_file} are in {complete[0]} and, by name, in {complete[1]} too: '
            'write file_name with its folder in the JSON, or move one of the two out of the data '
            'root'
        )
    if not complete:
        place = min(likely, key=lambda place: len(missing[place]))
        raise CASTError(
            f'{ann_file}: {len(missing[place])} of its {len(coco["images"])} images are not there, '
            f'such as {missing[place][0]}: put them there, or take them out of the file'
        )
    return complete[0]


def hold_out(coco: dict, ann_file: Path, percent: float, seed: int) -> tuple[dict, dict]:
    """Splits a COCO file: ``percent`` of the images, at least one, are the second, to validate."""
    ids = [image['id'] for image in coco['images']]
    if len(ids) < 2:
        raise CASTError(
            f'{ann_file} has one image: label more, or give validation images with variables.val'
        )
    number = min(max(1, round(len(ids) * percent / 100)), len(ids) - 1)
    held = draw_images(ids, instance_classes(coco, ann_file), number, seed, False, ann_file)
    kept, validation = (
        dict(
            coco,
            images=[image for image in coco['images'] if (image['id'] in held) == wanted],
            annotations=[ann for ann in coco['annotations'] if (ann['image_id'] in held) == wanted],
        )
        for wanted in (False, True)
    )
    return kept, validation


def list_unlabeled(source: Path, root: Path, known: set[Path]) -> tuple[Path, list[dict]]:
    """The folder of the unlabeled images, and these as COCO describes them, without those in
    ``known``.

    Raises:
        CASTError: there are none, or some cannot be read.
    """
    if source.is_file():
        coco = read_coco(source)
        folder = find_images(coco, source, root)
        images = [
            image
            for image in coco['images']
            if (folder / image['file_name']).resolve() not in known
        ]
    else:
        folder = source
        paths = [path for path in image_files(folder) if path.resolve() not in known]
        sizes = track(paths, f'Reading the sizes of {len(paths)} images in {folder}')
        images = [
            describe_image(number, path, folder) for number, path in enumerate(sizes, start=1)
        ]
    if not images:
        raise CASTError(
            f'{source} has no image that is not labeled already ({" ".join(IMAGE_SUFFIXES)}): give '
            'another folder or JSON as variables.unlabeled'
        )
    return folder, images


def describe_image(number: int, path: Path, folder: Path) -> dict:
    """A COCO image entry."""
    height, width = read_image_size(path)
    return dict(
        id=number, file_name=path.relative_to(folder).as_posix(), height=height, width=width
    )


def queries_for(parts: Sequence[dict]) -> int:
    """A tenth more than the largest number of instances of an image, in tens; 30 to
    ``MAX_QUERIES``.
    """
    counts = Counter(ann['image_id'] for coco in parts for ann in coco['annotations'])
    largest = max(counts.values())
    return min(max(30, -(-largest * 11 // 100) * 10), MAX_QUERIES)
