"""Let a teacher label images: one COCO JSON with every mask above a low floor (CAST's "pseudo-label D_u")."""
import hashlib
import json
import os
from collections import Counter
from pathlib import Path

import cv2
import torch
from mmengine.config import Config
from mmengine.dataset import pseudo_collate
from mmengine.device import get_device
from mmengine.registry import DefaultScope
from mmengine.structures import InstanceData
from mmengine.utils import track_iter_progress
from pycocotools import mask as mask_utils

from mmcast.errors import CASTError
from mmcast.files import read_coco, sha256_of_file
from mmcast.pseudo_labels.store import (PseudoLabelWriter, check_same_info, encode_mask, make_info,
                                        read_pseudo_labels)
from mmcast.registry import DATASETS, MODELS


def generate_pseudo_labels(config: Config | str | os.PathLike, checkpoint: str | os.PathLike,
                           out_file: str | os.PathLike, *, ann_file: str | os.PathLike | None = None,
                           img_dir: str | os.PathLike | None = None, score_floor: float = 0.05,
                           device: str | None = None, limit: int | None = None,
                           progress: bool = True) -> dict:
    """Predict on every image and store the masks as they are; thresholds and overlaps come when reading.

    Stopped half-way, the next call goes on where it was. A finished file of the same teacher, config, images
    and floor is left alone. Images without detection stay, as empty images. One image is predicted at a time,
    so that the result does not depend on where a run was interrupted.

    Args:
        config: with ``model`` and ``test_dataloader.dataset`` (its pipeline and classes).
        checkpoint: the teacher's weights.
        out_file: the COCO JSON to make.
        ann_file: COCO JSON that lists the images (annotations in it are not looked at); default the config's.
        img_dir: folder that its file names are relative to; default the config's.
        score_floor: instances with a score above it are stored.
        device: default the accelerator if there is one.
        limit: only the first so many images.
        progress: show a progress bar with the remaining time.

    Returns:
        Counts: ``images``, ``empty_images``, ``instances``, ``instances_per_class`` (by name).

    Raises:
        CASTError: a path is wrong, an image cannot be read or is not what ``ann_file`` says, the checkpoint
            is not this model's, or ``out_file`` or its partial file was made from other things.
    """
    # Not above: the engine imports the models, and they this package.
    from mmcast.engine.checks import check_labels
    from mmcast.engine.runs import verify_weights
    cfg = config if isinstance(config, Config) else Config.fromfile(config)
    ann_file, img_dir = _resolve_paths(cfg, ann_file, img_dir)
    check_labels(ann_file, img_dir)
    if not Path(checkpoint).is_file():
        raise CASTError(f'checkpoint {checkpoint} not found; give the path of the teacher\'s weights')
    info = make_info(teacher_checkpoint=sha256_of_file(checkpoint), config=_config_hash(cfg),
                     score_floor=score_floor, ann_file=sha256_of_file(ann_file), limit=limit)
    if Path(out_file).exists():
        content = read_pseudo_labels(out_file)
        check_same_info(Path(out_file), content['info'], info)
        return _summarise(content)

    with DefaultScope.overwrite_default_scope(cfg.get('default_scope', 'mmcast')):
        dataset = _build_dataset(cfg, ann_file, img_dir, limit)
        model = MODELS.build(cfg.model)
    categories, category_ids = _match_categories(ann_file, dataset.metainfo['classes'])
    verify_weights(model, str(checkpoint))
    model.to(device or get_device()).eval()
    with PseudoLabelWriter(out_file, info) as writer:
        remaining = range(writer.done, len(dataset))
        for index in track_iter_progress(remaining) if progress else remaining:
            image, prediction = _predict(model, dataset, index)
            writer.write(image, _to_annotations(prediction, image, img_dir, category_ids, score_floor))
        return _summarise(writer.finish(categories))


def _resolve_paths(cfg: Config, ann_file, img_dir) -> tuple[str, str]:
    """The label file and image folder that were given, else those of the config's test set."""
    dataset = (cfg.get('test_dataloader') or {}).get('dataset') or {}
    if 'pipeline' not in dataset:
        raise CASTError(f'{cfg.filename} has no test_dataloader.dataset.pipeline; '
                        'the teacher needs one')
    root = dataset.get('data_root') or ''
    ann_file = ann_file or os.path.join(root, dataset.get('ann_file', ''))
    img_dir = img_dir or os.path.join(root, dataset.get('data_prefix', {}).get('img', ''))
    return str(ann_file), str(img_dir)


def _config_hash(cfg: Config) -> str:
    """SHA-256 of what decides a prediction: model and test pipeline, not paths or schedules."""
    dataset = cfg.test_dataloader.dataset
    decisive = [cfg.model, dataset.pipeline, dataset.get('metainfo')]
    return hashlib.sha256(json.dumps(decisive, sort_keys=True, default=str).encode()).hexdigest()


def _build_dataset(cfg: Config, ann_file: str, img_dir: str, limit: int | None):
    """The images, through the config's test pipeline without its annotations."""
    given = cfg.test_dataloader.dataset
    pipeline = [step for step in given.pipeline if not str(step['type']).endswith('LoadAnnotations')]
    options = {key: given[key] for key in ('metainfo', 'return_classes') if key in given}
    return DATASETS.build(dict(type='UnlabeledDataset', ann_file=ann_file, data_prefix=dict(img=img_dir),
                               pipeline=pipeline, test_mode=True, indices=limit, **options))


def _match_categories(ann_file: str, classes: tuple[str, ...]) -> tuple[list[dict], list[int]]:
    """The file's COCO categories, or new ones where it has none, and the category id of each class."""
    categories = read_coco(ann_file)['categories']
    categories = categories or [dict(id=number, name=name) for number, name in enumerate(classes, start=1)]
    ids = {category['name']: category['id'] for category in categories}
    missing = [name for name in classes if name not in ids]
    if missing:
        raise CASTError(f'{ann_file} has no category {", ".join(missing)}, it has {", ".join(ids)}; '
                        'set metainfo.classes of the config to these names or take another label file')
    return categories, [ids[name] for name in classes]


@torch.no_grad()
def _predict(model: torch.nn.Module, dataset, index: int) -> tuple[dict, InstanceData]:
    """One image as COCO describes it, and the teacher's instances, masks (N, H, W) at the image's size."""
    data_info = dataset.get_data_info(index)
    path = data_info['img_path']
    image = dict(id=data_info['img_id'], file_name=os.path.relpath(path, dataset.data_prefix['img']),
                 height=data_info['height'], width=data_info['width'])
    try:
        data = dataset.pipeline(data_info)
    except (OSError, AssertionError, cv2.error) as error:  # mmcv asserts that an image could be decoded
        raise CASTError(f'image {path} cannot be read ({error}); replace it or take it out of '
                        f'{dataset.ann_file}') from error
    prediction = model.test_step(pseudo_collate([data]))[0].pred_instances
    if 'masks' not in prediction:
        raise CASTError(f'the teacher {type(model).__name__} predicts no masks; '
                        'take one that segments instances')
    return image, prediction


def _to_annotations(prediction: InstanceData, image: dict, img_dir: str, category_ids: list[int],
                    score_floor: float) -> list[dict]:
    """COCO annotations (without ids) of the instances above the floor with any pixel; boxes from masks."""
    if tuple(prediction.masks.shape[-2:]) != (image['height'], image['width']):
        height, width = prediction.masks.shape[-2:]
        raise CASTError(f'image {image["file_name"]} in {img_dir} is {width}x{height}, its label says '
                        f'{image["width"]}x{image["height"]}; give the image folder of the label file')
    prediction = prediction[prediction.scores > score_floor].cpu()
    annotations = []
    masks, scores, labels = prediction.masks.numpy(), prediction.scores.tolist(), prediction.labels.tolist()
    for mask, score, label in zip(masks, scores, labels, strict=True):
        if mask.any():
            rle = encode_mask(mask)
            annotations.append(dict(category_id=category_ids[label], segmentation=rle, score=round(score, 6),
                                    bbox=mask_utils.toBbox(rle).tolist(), area=int(mask.sum()), iscrowd=0))
    return annotations


def _summarise(content: dict) -> dict:
    counts = Counter(annotation['category_id'] for annotation in content['annotations'])
    labelled = {annotation['image_id'] for annotation in content['annotations']}
    per_class = {category['name']: counts[category['id']] for category in content['categories']}
    return dict(images=len(content['images']), empty_images=len(content['images']) - len(labelled),
                instances=len(content['annotations']), instances_per_class=per_class)
