"""The images to label: which ones, and loading them in other processes."""

import os
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
from torch.utils.data import DataLoader, Dataset

from mmcast.coco.reading import read_image_list
from mmcast.errors import CASTError, is_of_machine
from mmcast.files import size_of_file
from mmcast.images import IMAGE_SUFFIXES, check_size, list_folder, problem_of
from mmcast.processes import end_with_parent
from mmcast.registry import DATASETS

_LOOKED_AT = 5


def list_images(ann_file: str | None, img_dir: str, limit: int | None = None) -> dict:
    """The images of a COCO JSON, or all of a folder in the order of their names, as COCO lists
    them.

    Args:
        ann_file: COCO JSON, of which images and categories are taken; None: all of the folder, at
            any depth.
        img_dir: the folder that file names are relative to.
        limit: only the first so many.

    Returns:
        ``images``, ``categories`` (empty for a folder) and no ``annotations``. The size of a
        folder's image is 0 x 0: it is not known before the image is read.

    Raises:
        CASTError: no images, two of one id, or none of the first few is in the folder.
    """
    if not os.path.isdir(img_dir):
        raise CASTError(
            f'image folder {img_dir} not found; give the right path (--img-dir, data_prefix)'
        )
    if ann_file is None:
        found = list_folder(img_dir)
        for line in found.remarks():
            print(f'{img_dir}: {line}', file=sys.stderr)
        names = sorted(path.relative_to(img_dir).as_posix() for path in found.images)
        images = [
            dict(id=number, file_name=name, height=0, width=0)
            for number, name in enumerate(names, 1)
        ]
        content = dict(images=images, categories=[])
    else:
        content = read_image_list(ann_file)
    images = [
        dict(
            id=image['id'],
            file_name=image['file_name'],
            height=image.get('height') or 0,
            width=image.get('width') or 0,
        )
        for image in content['images'][:limit]
    ]
    source = ann_file or img_dir
    if not images:
        raise CASTError(f'{source} has no image ({" ".join(IMAGE_SUFFIXES)}); check the path')
    if max(Counter(image['id'] for image in images).values()) > 1:
        raise CASTError(f'{source} has two images of one id; make the annotation file again')
    if not any(
        os.path.isfile(os.path.join(img_dir, image['file_name'])) for image in images[:_LOOKED_AT]
    ):
        raise CASTError(
            f'{source} does not match the images in {img_dir}: there is no '
            f'{images[0]["file_name"]}; give the folder that its file names are relative to'
        )
    return dict(images=images, annotations=[], categories=content['categories'])


def file_sizes(images: list[dict], img_dir: str) -> list[int]:
    """Sizes in bytes of the images' files, -1 where there is none."""
    return [size_of_file(os.path.join(img_dir, image['file_name'])) for image in images]


@dataclass
class LoadedImage:
    """An image of the list: its index, COCO's entry, and either what the pipeline made of it or why
    not.
    """

    place: int
    image: dict
    data: Any = None
    unreadable: str = ''


class ImagesToLabel(Dataset):
    """Images through a test pipeline; one that cannot be read or prepared comes with the reason.

    Args:
        listing: path of what ``list_images`` returned.
        img_dir: the folder of the images.
        options: more of a data set's config: ``pipeline``, ``metainfo``.
    """

    def __init__(self, listing: str, img_dir: str, **options: Any) -> None:
        self.img_dir = img_dir
        self.dataset = DATASETS.build(
            dict(
                type='UnlabeledDataset',
                ann_file=listing,
                test_mode=True,
                data_prefix=dict(img=img_dir),
                **options,
            )
        )
        self._load, *self._transforms = self.dataset.pipeline.transforms

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, place: int) -> LoadedImage:
        data = self.dataset.get_data_info(place)
        path = data['img_path']
        image = dict(
            id=data['img_id'],
            file_name=Path(os.path.relpath(path, self.img_dir)).as_posix(),
            height=data['height'],
            width=data['width'],
        )
        try:
            data = self._load(data)
            height, width = data.get('ori_shape', (image['height'], image['width']))[:2]
            if image['height'] and image['width']:  # another loader than ours does not compare
                check_size(path, (height, width), (image['height'], image['width']))
            image.update(height=height, width=width)
            for transform in self._transforms:
                data = transform(data)
        except Exception as error:  # image libraries raise whatever they like on damaged files
            if is_of_machine(error) and not isinstance(error, CASTError):
                raise
            return LoadedImage(place, image, unreadable=problem_of(path, error))
        return LoadedImage(place, image, data)


def load_ahead(images: ImagesToLabel, places: list[int], num_workers: int) -> Iterator[LoadedImage]:
    """The images of some indices in this order, loaded ahead by other processes.

    Raises:
        CASTError: such a process was killed.
    """
    loader = DataLoader(
        images,
        batch_size=None,
        sampler=places,
        num_workers=num_workers,
        collate_fn=_as_it_is,
        worker_init_fn=_start_worker,
    )
    try:
        yield from loader
    except RuntimeError as error:
        if 'DataLoader worker (pid' not in str(error):
            raise
        raise CASTError(
            'a process that loads images was killed, probably for lack of memory; what was '
            'labeled is kept: give the same command again with fewer --num-workers'
        ) from error


def _as_it_is(item: LoadedImage) -> LoadedImage:
    return item


def _start_worker(worker: int) -> None:
    end_with_parent()
    cv2.setNumThreads(0)
