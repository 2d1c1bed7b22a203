"""Cheap checks of data before a run starts: do labels, images and class names belong together?"""
import json
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from mmengine.config import Config

from mmcast.errors import CASTError
from mmcast.image_size import read_image_size

_IMAGES_LOOKED_AT = 5
_GROUP_SAMPLERS = 'GroupMultiSourceSampler', 'ResumableGroupMultiSourceSampler'


def check_config_data(cfg: Config, dataloaders: Sequence[str]) -> None:
    """Checks every COCO-style data set of the named data loaders.

    Args:
        cfg: a run's config.
        dataloaders: such as ``('train_dataloader', 'val_dataloader')``.

    Raises:
        CASTError: a label file or image folder is missing or they do not fit; names the file and the cure.
    """
    for name in dataloaders:
        loader = cfg.get(name) or {}
        images = {}
        for dataset in _coco_datasets(loader.get('dataset')):
            root = dataset.get('data_root') or ''
            ann_file = os.path.join(root, dataset['ann_file'])
            img_dir = os.path.join(root, (dataset.get('data_prefix') or {}).get('img', ''))
            images[ann_file] = check_labels(ann_file, img_dir, classes_of(dataset))
        if (loader.get('sampler') or {}).get('type') in _GROUP_SAMPLERS:
            _check_orientations(images)


def _check_orientations(images: dict[str, list[dict]]) -> None:
    """A GroupMultiSourceSampler waits for ever for an image where a source has none of an orientation.

    Args:
        images: COCO's entries, by the label file that lists them.
    """
    found = {ann_file: {image['width'] < image['height'] for image in listed}
             for ann_file, listed in images.items()}
    for ann_file, orientations in found.items():
        if orientations != set().union(*found.values()):
            raise CASTError(
                f'{ann_file} lacks portrait or landscape images, which another source has; in batches of one '
                'orientation that is a wait without end: set train_dataloader.sampler.type to MultiSourceSampler')


def check_labels(ann_file: str, img_dir: str, classes: Sequence[str] = ()) -> list[dict]:
    """Checks one COCO label file against its image folder and the class names that a config expects.

    Only the headers of the first images are read: that finds a wrong folder, not every broken image.

    Returns:
        The file's image entries.

    Raises:
        CASTError: see ``check_config_data``.
    """
    if not os.path.isfile(ann_file):
        raise CASTError(
            f'label file {ann_file} not found; give the right path (ann_file, data_root) or make it')
    if not os.path.isdir(img_dir):
        raise CASTError(
            f'image folder {img_dir} of {ann_file} not found; give the right path (data_prefix, img_dir)')
    try:
        labels = json.loads(Path(ann_file).read_text())
        images, annotations = labels['images'], labels.get('annotations', [])
    except (json.JSONDecodeError, UnicodeDecodeError, KeyError, AttributeError, TypeError) as error:
        raise CASTError(f'{ann_file} is no COCO label file ({error!r}); make it again') from error
    if not images:
        raise CASTError(f'{ann_file} lists no image; make it again')
    for image in images[:_IMAGES_LOOKED_AT]:
        _check_image(image, img_dir, ann_file)
    strays = {item['image_id'] for item in annotations} - {image['id'] for image in images}
    if strays:
        raise CASTError(
            f'{ann_file} has annotations of {len(strays)} images that it does not list, such as id '
            f'{min(strays)}; it was put together from two files, make it again')
    names = [category['name'] for category in labels.get('categories', [])]
    missing = [name for name in classes if name not in names]
    if annotations and missing:
        raise CASTError(f'{ann_file} has no category {", ".join(missing)}, it has {", ".join(names)}; '
                        'set metainfo.classes of the config to these names or take another label file')
    return images


def _check_image(image: dict, img_dir: str, ann_file: str) -> None:
    path = os.path.join(img_dir, image['file_name'])
    cure = f'{ann_file} does not match the images in {img_dir}; give the folder it was made for'
    if not os.path.isfile(path):
        raise CASTError(f'image {path} not found: {cure}')
    try:
        height, width = read_image_size(path)
    except CASTError:
        raise CASTError(f'image {path} cannot be read: replace it or take it out of {ann_file}') from None
    if (height, width) != (image['height'], image['width']):
        raise CASTError(
            f'image {path} is {width}x{height}, its label says {image["width"]}x{image["height"]}: {cure}')


def _coco_datasets(dataset: dict | None) -> Iterator[dict]:
    """The data sets with a label file, also in wrappers (``dataset=``) and concatenations (``datasets=``)."""
    if not dataset:
        return
    if dataset.get('ann_file'):
        yield dataset
    for inner in [dataset.get('dataset'), *dataset.get('datasets', [])]:
        yield from _coco_datasets(inner)


def classes_of(dataset: dict) -> Sequence[str]:
    """Class names that a data set looks for: its config's, else its type's own."""
    metainfo = dataset.get('metainfo')
    if metainfo is None:
        from mmcast.registry import DATASETS
        metainfo = getattr(DATASETS.get(dataset['type']), 'METAINFO', {})
    return metainfo.get('classes', ())
