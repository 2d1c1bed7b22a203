"""The data of a run's config: which files its data sets and metrics read, and whether these belong
together.
"""

import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from mmengine.config import Config
from mmengine.logging import print_log

from mmcast.coco.consistency import check_image_list, check_labels
from mmcast.coco.instances import beyond_limit, check_instances
from mmcast.data.mixing import merge_mixing
from mmcast.errors import CASTError

_GROUP_SAMPLERS = 'GroupMultiSourceSampler', 'ResumableGroupMultiSourceSampler'
_PSEUDO_LABELED, _UNLABELED = 'PseudoLabelDataset', 'UnlabeledDataset'
# Which file a data set of training reads, if not the human annotations.
_TRAINING_FILES = {_PSEUDO_LABELED: 'pseudo_labels', _UNLABELED: 'unlabeled'}
_TEST_LOADERS = 'val_dataloader', 'test_dataloader'


def set_config_data(cfg: Config, files: Mapping[str, Any], train: bool) -> None:
    """Points the data sets and metrics of a config at files, in place; what is not given stays as
    it is.

    Args:
        cfg: a run's config.
        files: COCO files ``labeled``, ``pseudo_labels``, ``unlabeled`` and ``val``; folders of
            their images ``train_images``, ``unlabeled_images`` (default ``train_images``) and
            ``val_images``; ``test`` and ``test_images``, if tests are of other images than
            validation;
            ``val_masks``, the folder that cityscapesscripts' metric reads; ``classes``, the names
            to learn; ``transforms``, options of pipeline transforms by their type; ``mixing`` of
            pseudo-labeled images. Other keys are ignored.
        train: whether the config's training data are meant, or those of tests alone.
    """
    if train:
        for dataset in _coco_datasets((cfg.get('train_dataloader') or {}).get('dataset')):
            ann_file = _TRAINING_FILES.get(_type_of(dataset), 'labeled')
            labeled = ann_file == 'labeled'
            images = files.get('train_images') if labeled else unlabeled_images(files)
            _set_dataset(dataset, files, ann_file, images)
            if ann_file == 'pseudo_labels' and files.get('mixing'):
                dataset['mixing'] = merge_mixing(dataset.get('mixing'), files['mixing'])
    for loop in ('val', 'test'):
        ann_file = loop if files.get(loop) else 'val'
        images = files.get(f'{ann_file}_images') or files.get('val_images')
        for dataset in _coco_datasets((cfg.get(f'{loop}_dataloader') or {}).get('dataset')):
            _set_dataset(dataset, files, ann_file, images)
        metrics = cfg.get(f'{loop}_evaluator') or []
        for metric in metrics if isinstance(metrics, (list, tuple)) else [metrics]:
            for kind, key, value in (
                ('CocoMetric', 'ann_file', ann_file),
                ('CityScapesMetric', 'seg_prefix', 'val_masks'),
            ):
                if _type_of(metric) == kind and files.get(value):
                    metric[key] = files[value]


def transforms_of(cfg: Config) -> set[str]:
    """The types of the transforms in the pipelines of a config's data sets."""
    loaders = [cfg.get(name) or {} for name in ('train_dataloader', *_TEST_LOADERS)]
    return {
        _type_of(transform)
        for loader in loaders
        for dataset in _coco_datasets(loader.get('dataset'))
        for transform in dataset.get('pipeline', ())
    }


def unlabeled_images(files: Mapping[str, Any]) -> str | None:
    """The folder of the unlabeled images, see :func:`set_config_data`."""
    return files.get('unlabeled_images') or files.get('train_images')


def _set_dataset(
    dataset: dict, files: Mapping[str, Any], ann_file: str, images: str | None
) -> None:
    if files.get(ann_file):
        dataset['ann_file'] = files[ann_file]
        dataset['data_prefix'] = dict(img=images or '')
        dataset['data_root'] = ''  # all paths are whole
    if files.get('classes'):
        dataset['metainfo'] = dict(dataset.get('metainfo') or {}, classes=tuple(files['classes']))
    for transform in dataset.get('pipeline', ()):
        options = (files.get('transforms') or {}).get(_type_of(transform), {})
        # Transforms want tuples, and what a step left went through JSON.
        transform.update(
            {
                key: tuple(value) if isinstance(value, list) else value
                for key, value in options.items()
            }
        )


def labeled_data(cfg: Config) -> tuple[str, str]:
    """Path of the human annotations that a training config reads, and the folder of their images.

    Raises:
        CASTError: it reads none, or several.
    """
    found = {
        (
            os.path.join(dataset.get('data_root') or '', dataset['ann_file']),
            os.path.join(
                dataset.get('data_root') or '', (dataset.get('data_prefix') or {}).get('img', '')
            ),
        )
        for dataset in _training_datasets(cfg, 'labeled')
    }
    if len(found) != 1:
        files = ', '.join(sorted(ann_file for ann_file, _ in found)) or 'none'
        raise CASTError(
            f'{cfg.filename} trains on the labels of {files}: folds are made of those of one file'
        )
    return found.pop()


def set_labeled_data(cfg: Config, ann_file: str) -> None:
    """Points what :func:`labeled_data` found at a file of some of these images, in place."""
    for dataset in _training_datasets(cfg, 'labeled'):
        root = dataset.get('data_root') or ''
        folder = os.path.join(root, (dataset.get('data_prefix') or {}).get('img', ''))
        dataset.update(ann_file=ann_file, data_root='', data_prefix=dict(img=folder))


def tested_file(cfg: Config, loop: str) -> str | None:
    """Path of the ground truth that a config's ``val`` or ``test`` loop is of, None without one."""
    loader = cfg.get(f'{loop}_dataloader') or {}
    found = [
        os.path.join(dataset.get('data_root') or '', dataset['ann_file'])
        for dataset in _coco_datasets(loader.get('dataset'))
    ]
    return found[0] if found else None


def pseudo_labeled_data(cfg: Config) -> list[dict]:
    """The data sets of a training config that read pseudo-labels."""
    return list(_training_datasets(cfg, 'pseudo_labels'))


def _training_datasets(cfg: Config, kind: str) -> Iterator[dict]:
    """Those that read ``labeled``, ``pseudo_labels`` or ``unlabeled``."""
    for dataset in _coco_datasets((cfg.get('train_dataloader') or {}).get('dataset')):
        if _TRAINING_FILES.get(_type_of(dataset), 'labeled') == kind:
            yield dataset


def check_config_data(cfg: Config, dataloaders: Sequence[str]) -> None:
    """Checks every COCO-style data set of the named data loaders.

    Args:
        cfg: a run's config.
        dataloaders: such as ``('train_dataloader', 'val_dataloader')``.

    Raises:
        CASTError: a label file or image folder is missing, they do not fit, or a file cannot be
            used or has nothing to train on; names the file and the fix.
    """
    limits = _instance_limits(cfg.get('model') or {})
    for name in dataloaders:
        loader = cfg.get(name) or {}
        images = {}
        for dataset in _coco_datasets(loader.get('dataset')):
            root = dataset.get('data_root') or ''
            ann_file = os.path.join(root, dataset['ann_file'])
            img_dir = os.path.join(root, (dataset.get('data_prefix') or {}).get('img', ''))
            if _type_of(dataset) in (_UNLABELED, _PSEUDO_LABELED):
                # PseudoLabelDataset checks its labels itself.
                images[ann_file] = check_image_list(ann_file, img_dir)
                continue
            labels = check_labels(ann_file, img_dir, classes_of(dataset))
            images[ann_file] = labels.content['images']
            counts = labels.instances(classes_of(dataset))
            if name == 'train_dataloader':
                check_instances(labels, counts)
            _say_limits(ann_file, counts, limits)
        if _type_of(loader.get('sampler') or {}) in _GROUP_SAMPLERS:
            _check_orientations(images)


def _instance_limits(part: Any, path: str = 'model') -> dict[str, int]:
    """What a model's config allows of instances in an image, by the key that says so.

    Nothing where it predicts in windows: an image may have more than a window then.
    """
    limits = {}
    if isinstance(part, Mapping) and (part.get('test_cfg') or {}).get('windows'):
        return limits
    for key, value in part.items() if isinstance(part, Mapping) else ():
        if key in ('num_queries', 'max_per_image') and isinstance(value, int):
            limits[f'{path}.{key}'] = value
        limits |= _instance_limits(value, f'{path}.{key}')
    return limits


def _say_limits(ann_file: str, counts: np.ndarray, limits: Mapping[str, int]) -> None:
    """Logs how many instances are more than the model can find."""
    for key, limit in limits.items():
        if said := beyond_limit(counts, limit):
            print_log(f'{ann_file}: {said}; raise {key}', logger='current', level=logging.WARNING)
            return


def _check_orientations(images: dict[str, list[dict]]) -> None:
    """A GroupMultiSourceSampler never returns where a source has no image of an orientation.

    Args:
        images: COCO's entries, by the label file that lists them.
    """
    found = {
        ann_file: {image['width'] < image['height'] for image in listed}
        for ann_file, listed in images.items()
    }
    for ann_file, orientations in found.items():
        if orientations != set().union(*found.values()):
            raise CASTError(
                f'{ann_file} lacks portrait or landscape images, which another source has; batches '
                'of one orientation would never be full: set train_dataloader.sampler.type to '
                'MultiSourceSampler'
            )


def _coco_datasets(dataset: dict | None) -> Iterator[dict]:
    """The data sets with a label file, also in wrappers (``dataset=``) and concatenations
    (``datasets=``).
    """
    if not dataset:
        return
    if dataset.get('ann_file'):
        yield dataset
    for inner in [dataset.get('dataset'), *dataset.get('datasets', [])]:
        yield from _coco_datasets(inner)


def _type_of(part: Mapping[str, Any]) -> str:
    """The type that a part of a config names, without its scope."""
    kind = part.get('type', '')
    return (kind if isinstance(kind, str) else kind.__name__).rpartition('.')[2]


def classes_of(dataset: dict) -> Sequence[str]:
    """Class names that a data set looks for: its config's, else its type's own."""
    metainfo = dataset.get('metainfo')
    if metainfo is None:
        from mmcast.registry import DATASETS

        metainfo = getattr(DATASETS.get(dataset['type']), 'METAINFO', {})
    return metainfo.get('classes', ())
