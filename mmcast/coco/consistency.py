"""A cheap check that a label file, its images and the class names of a config belong together."""

import os
from collections.abc import Sequence

from mmcast.coco.reading import Labels, read_image_list, read_labels
from mmcast.errors import CASTError
from mmcast.images import check_size, read_header

_IMAGES_LOOKED_AT = 5


def check_labels(ann_file: str, img_dir: str, classes: Sequence[str] = ()) -> Labels:
    """Reads a COCO label file and checks it against its image folder and the class names that a
    config expects.

    Only the headers of the first images are read: that finds a wrong folder, not every broken
    image.

    Raises:
        CASTError: the file or folder is missing, they do not fit, or the file cannot be used, see
            :func:`mmcast.coco.reading.read_labels`; names the file and the fix.
    """
    _check_paths(ann_file, img_dir)
    labels = read_labels(ann_file, img_dir)
    _check_images(labels.content['images'], img_dir, ann_file)
    names = [category['name'] for category in labels.content['categories']]
    missing = [name for name in classes if name not in names]
    if labels.content['annotations'] and missing:
        raise CASTError(
            f'{ann_file} has no category {", ".join(missing)}, it has {", ".join(names)}; set '
            'metainfo.classes of the config to these names or take another label file'
        )
    return labels


def check_image_list(ann_file: str, img_dir: str) -> list[dict]:
    """The same of a file whose annotations do not matter; returns its images."""
    _check_paths(ann_file, img_dir)
    images = read_image_list(ann_file, img_dir)['images']
    _check_images(images, img_dir, ann_file)
    return images


def _check_paths(ann_file: str, img_dir: str) -> None:
    if not os.path.isfile(ann_file):
        raise CASTError(
            f'label file {ann_file} not found; give the right path (ann_file, data_root) or make it'
        )
    if not os.path.isdir(img_dir):
        raise CASTError(
            f'image folder {img_dir} of {ann_file} not found; give the right path (data_prefix, '
            'img_dir)'
        )


def _check_images(images: list[dict], img_dir: str, ann_file: str) -> None:
    if not images:
        raise CASTError(f'{ann_file} lists no image; make it again')
    for image in images[:_IMAGES_LOOKED_AT]:
        check_image(image, img_dir, ann_file)


def check_image(
    image: dict,
    img_dir: str | os.PathLike,
    ann_file: str | os.PathLike,
    deep_is_fine: bool = True,
) -> None:
    """Checks that the image of a COCO entry is there and has the listed size.

    Args:
        image: the entry.
        img_dir: the folder that ``file_name`` is relative to.
        ann_file: the file, for errors.
        deep_is_fine: whether it may have more than 8 bits, as there is a value range.

    Raises:
        CASTError: naming image, file and folder.
    """
    path = os.path.join(img_dir, image['file_name'])
    fix = f'{ann_file} does not match the images in {img_dir}; give the folder it was made for'
    if not os.path.isfile(path):
        raise CASTError(f'image {path} not found: {fix}')
    try:
        header = read_header(path)
    except CASTError:
        raise CASTError(
            f'image {path} cannot be read: replace it or take it out of {ann_file}'
        ) from None
    (height, width), stated = header.size, (image['height'], image['width'])
    if (width, height) == stated:  # a matter of EXIF, not of another folder
        check_size(path, (height, width), stated)
    if (height, width) != stated:
        raise CASTError(
            f'image {path} is {width}x{height}, its label says {image["width"]}x{image["height"]}: '
            f'{fix}'
        )
    if header.deep and not deep_is_fine:
        raise CASTError(
            f'image {path} has more than 8 bits: say which values are black and white with '
            'variables.value_range; mmcast check tells which there are'
        )
