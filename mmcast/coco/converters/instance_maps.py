"""What converters of PNG masks share: matching files, reading them, numbering, writing."""

import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
from pycocotools import mask as mask_api
from rich.progress import track

from mmcast.coco.parallel import map_in_processes
from mmcast.errors import CASTError
from mmcast.files import write_json
from mmcast.images import open_image

Item = TypeVar('Item')
Converted = TypeVar('Converted')


def convert_missing(
    convert: Callable[..., dict], root: str | os.PathLike, num_workers: int
) -> None:
    """Makes `annotations/instances_{train,val}.json` under `root` where they are not there yet.

    Args:
        convert: `convert(root, split, out_file, num_workers)`.
        root: Folder of the data set.
        num_workers: Processes that convert.
    """
    for split in ('train', 'val'):
        out_file = Path(root, f'annotations/instances_{split}.json')
        if not out_file.exists():
            convert(root, split, out_file, num_workers)


@dataclass(frozen=True)
class Part:
    """One part of a download: the files `folder/pattern`, which come out of `archive`.

    What follows the last `*` of the pattern is the ending that images and maps do not share.
    """

    folder: Path
    pattern: str
    archive: str

    @property
    def suffix(self) -> str:
        return self.pattern.rpartition('*')[2]

    def path(self, stem: str) -> Path:
        return self.folder / (stem + self.suffix)

    def stems(self) -> set[str]:
        """Names relative to the folder, without the ending."""
        found = {
            path.relative_to(self.folder).as_posix().removesuffix(self.suffix)
            for path in self.folder.glob(self.pattern)
        }
        if not found:
            raise CASTError(
                f'{self.folder} is missing or holds no {self.pattern}: unpack {self.archive}'
            )
        return found


def match_parts(images: Part, maps: Part) -> list[str]:
    """Sorted stems of the images; every one has its map and every map its image.

    Raises:
        CASTError: if a folder is empty or missing, or a file has no counterpart, as in a download
            of which only a part was unpacked.
    """
    image_stems, map_stems = images.stems(), maps.stems()
    for part, missing in ((maps, image_stems - map_stems), (images, map_stems - image_stems)):
        if missing:
            more = f' and {len(missing) - 1} more' if len(missing) > 1 else ''
            raise CASTError(
                f'{part.path(min(missing))}{more} missing, while the counterpart is there: unpack '
                f'{part.archive} again, or remove the counterpart'
            )
    return sorted(image_stems)


def convert_maps(
    convert: Callable[[str], tuple[dict, list[dict]]],
    stems: list[str],
    categories: Iterable[dict],
    out_file: str | os.PathLike,
    description: str,
    num_workers: int = 0,
    force: bool = False,
    progress: bool = True,
) -> dict:
    """Run `convert` on every stem, number images and instances from 1 and write one COCO JSON.

    Args:
        convert: Gives the COCO image and annotations, without ids, of a stem; picklable.
        stems: What to convert, in the order of the file.
        categories: COCO categories.
        out_file: Where to write, atomically.
        description: For the file's `info`, and next to the progress bar.
        num_workers: Processes; 0 converts here.
        force: Replace an `out_file` with other content.
        progress: Show a progress bar.

    Returns:
        dict: the number of `images`, `instances` and `groups` (crowds).
    """
    converted = convert_all(convert, stems, description, num_workers, progress)
    coco = coco_of(converted, categories, description)
    write_json(out_file, coco, force)
    groups = sum(annotation['iscrowd'] for annotation in coco['annotations'])
    return dict(images=len(converted), instances=len(coco['annotations']) - groups, groups=groups)


def convert_all(
    convert: Callable[[Item], Converted],
    items: Sequence[Item],
    description: str,
    num_workers: int = 0,
    progress: bool = True,
) -> list[Converted]:
    """`convert` of every item, in their order, in `num_workers` processes or (0) here.

    Raises:
        CASTError: a process was killed.
    """
    converted = map_in_processes(_convert, items, convert, num_workers, '--num-workers')
    return list(track(converted, description, len(items), disable=not progress))


def _convert(item: Item, convert: Callable[[Item], Converted]) -> Converted:
    return convert(item)


def coco_of(
    converted: Iterable[tuple[dict, list[dict]]], categories: Iterable[dict], description: str
) -> dict:
    """One COCO data set of images with their annotations, both numbered from 1."""
    images: list[dict] = []
    annotations: list[dict] = []
    for image_id, (image, instances) in enumerate(converted, start=1):
        images.append(dict(id=image_id, **image))
        for instance in instances:
            annotations.append(dict(id=len(annotations) + 1, image_id=image_id, **instance))
    return dict(
        info=dict(description=description),
        images=images,
        annotations=annotations,
        categories=list(categories),
    )


def annotation(mask: np.ndarray, category_id: int, instance_id: int, iscrowd: bool = False) -> dict:
    """The COCO annotation (RLE) of one region, mask (H, W) bool."""
    rle = mask_api.encode(np.asfortranarray(mask, dtype=np.uint8))
    return dict(
        category_id=category_id,
        iscrowd=int(iscrowd),
        instance_id=instance_id,
        area=int(mask_api.area(rle)),
        bbox=mask_api.toBbox(rle).tolist(),
        segmentation=dict(size=list(mask.shape), counts=rle['counts'].decode()),
    )


def read_map(path: Path) -> np.ndarray:
    """The pixels of a PNG."""
    try:
        with open_image(path) as image:
            return np.asarray(image)
    except (OSError, SyntaxError) as error:
        raise unreadable(path) from error


def image_entry(path: Path, file_name: str, map_path: Path, map_size: tuple[int, int]) -> dict:
    """The COCO image of `path`, whose map has the height and width `map_size`; its pixels are not
    decoded.
    """
    try:
        with open_image(path) as image:
            size = image.height, image.width
            image.verify()  # the checksums of a PNG
    except (OSError, SyntaxError) as error:  # Pillow raises SyntaxError for a broken PNG
        raise unreadable(path) from error
    if size != map_size:
        raise CASTError(
            f'{path} is {size} but {map_path} is {map_size} (height, width): take both from the '
            'same download'
        )
    return dict(file_name=file_name, height=size[0], width=size[1])


def unreadable(path: Path) -> CASTError:
    return CASTError(f'{path} is not a readable image: copy, unpack or generate it again')
