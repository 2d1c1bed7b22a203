"""A cheap check that a label file, its images and the class names of a config belong together."""

import json
import os
from collections.abc import Sequence
from pathlib import Path

from mmcast.coco.categories import category_ids
from mmcast.errors import CASTError
from mmcast.images import read_image_size

_IMAGES_LOOKED_AT = 5


def check_labels(ann_file: str, img_dir: str, classes: Sequence[str] = ()) -> list[dict]:
    """Checks one COCO label file against its image folder and the class names that a config
    expects.

    Only the headers of the first images are read: that finds a wrong folder, not every broken
    image.

    Returns:
        The file's image entries.

    Raises:
        CASTError: see ``check_config_data``.
    """
    if not os.path.isfile(ann_file):
        raise CASTError(
            f'label file {ann_file} not found; give the right path (ann_file, data_root) or make it'
        )
    if not os.path.isdir(img_dir):
        raise CASTError(
            f'image folder {img_dir} of {ann_file} not found; give the right path (data_prefix, '
            'img_dir)'
        )
    try:
        labels = json.loads(Path(ann_file).read_text(encoding='utf-8'))
        images, annotations = labels['images'], labels.get('annotations', [])
    except (json.JSONDecodeError, UnicodeDecodeError, KeyError, AttributeError, TypeError) as error:
        raise CASTError(
            f'{ann_file} is not a valid COCO annotation file ({error!r}); make it again'
        ) from error
    if not images:
        raise CASTError(f'{ann_file} lists no image; make it again')
    for image in images[:_IMAGES_LOOKED_AT]:
        _check_image(image, img_dir, ann_file)
    strays = {item['image_id'] for item in annotations} - {image['id'] for image in images}
    if strays:
        raise CASTError(
            f'{ann_file} has annotations of {len(strays)} images that it does not list, such as id '
            f'{min(strays)}; it was put together from two files, make it again'
        )
    categories = labels.get('categories', [])
    category_ids(categories, {item['category_id'] for item in annotations}, classes, ann_file)
    names = [category['name'] for category in categories]
    missing = [name for name in classes if name not in names]
    if annotations and missing:
        raise CASTError(
            f'{ann_file} has no category {", ".join(missing)}, it has {", ".join(names)}; set '
            'metainfo.classes of the config to these names or take another label file'
        )
    return images


def _check_image(image: dict, img_dir: str, ann_file: str) -> None:
    path = os.path.join(img_dir, image['file_name'])
    fix = f'{ann_file} does not match the images in {img_dir}; give the folder it was made for'
    if not os.path.isfile(path):
        raise CASTError(f'image {path} not found: {fix}')
    try:
        height, width = read_image_size(path)
    except CASTError:
        raise CASTError(
            f'image {path} cannot be read: replace it or take it out of {ann_file}'
        ) from None
    if (height, width) != (image['height'], image['width']):
        raise CASTError(
            f'image {path} is {width}x{height}, its label says {image["width"]}x{image["height"]}: '
            f'{fix}'
        )
