"""Let a teacher label images: one COCO JSON with every mask above a low floor (CAST's "pseudo-label
D_u").
"""

import contextlib
import copy
import hashlib
import json
import math
import os
import shutil
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config, ConfigDict
from mmengine.device import get_device
from mmengine.dist import barrier, get_dist_info
from mmengine.registry import DefaultScope
from mmengine.structures import InstanceData
from pycocotools import mask as mask_utils
from torch import nn

from mmcast.configs import load_config
from mmcast.data.config_data import classes_of
from mmcast.errors import CASTError, is_of_machine, reason_of
from mmcast.files import sha256_of_file, sha256_of_json, write_atomically
from mmcast.locks import hold_lock
from mmcast.masks.confidence import confidence_map, encode_map
from mmcast.masks.rle import encode_mask, mask_areas
from mmcast.memory import keep_freed_memory
from mmcast.models.cpu_prediction import speed_up_on_cpu
from mmcast.models.lora import without_adapters
from mmcast.models.weights.loading import load_weights
from mmcast.pseudo_labels.images import (
    ImagesToLabel,
    LoadedImage,
    file_sizes,
    list_images,
    load_ahead,
)
from mmcast.pseudo_labels.shards import ShardIndex, ShardWriter, check_same_info, in_use
from mmcast.pseudo_labels.store import (
    PREDICTED,
    make_info,
    read_pseudo_labels,
    write_store,
)
from mmcast.pseudo_labels.tta import above, merge_views, predict_views
from mmcast.registry import MODELS
from mmcast.training.distributed import on_main

_PROGRESS_SECONDS = 10
_WAITING = 4  # images whose masks may wait to be encoded and written


def generate_pseudo_labels(
    config: Config | str | os.PathLike,
    checkpoint: str | os.PathLike,
    out_file: str | os.PathLike,
    *,
    ann_file: str | os.PathLike | None = None,
    img_dir: str | os.PathLike | None = None,
    score_floor: float = 0.05,
    device: str | None = None,
    limit: int | None = None,
    strict: bool = False,
    flip: bool = False,
    scales: Sequence[float] = (1.0,),
    confidence: bool = False,
    views_per_batch: int = 2,
    num_workers: int | None = None,
    distributed: bool = False,
    progress: bool = True,
) -> dict:
    """Predict on every image and store the masks as they are; thresholds and overlaps come when
    reading.

    Every process appends to a shard of its own in ``OUT.shards``; at the end they become ``OUT``.
    Stopped at any moment, the next call resumes, also with another number of processes, and ends in
    the same file. A finished file of the same teacher, config, images and floor is left alone.
    Images without detection stay, as empty images; images that cannot be read, are of another size
    than listed or of a shape on which a transform or the teacher fails, are recorded by name and
    the reason, and get no labels. One image is predicted at a time, so that the result does not
    depend on what else was in a batch; meanwhile the next ones are loaded and the last ones
    encoded.

    Args:
        config: with ``model`` and ``test_dataloader.dataset`` (its pipeline and classes).
        checkpoint: the teacher's weights.
        out_file: the COCO JSON to make.
        ann_file: COCO JSON that lists the images (its annotations are ignored). Default:
            all images of ``img_dir``, or those of the config's test set where neither is given.
        img_dir: folder that its file names are relative to; default the config's.
        score_floor: instances with a score above it are stored.
        device: default the accelerator if there is one.
        limit: only the first so many images.
        strict: stop at an image that cannot be read.
        flip: test-time augmentation: predict on the mirrored image too, and merge, see
            ``merge_views``.
        scales: test-time augmentation: predict on the image in these sizes, as factors of what the
            test pipeline gives.
        confidence: store with every image a map of the teacher's confidence in its pixels, see
            ``mmcast.masks.confidence``.
        views_per_batch: test-time augmentation: most views of one size, which are the image and the
            mirrored image, that go through the teacher at a time. 1: each by itself, in the network
            as it is for single predictions too, which takes less memory and more time; the labels
            differ by rounding.
        num_workers: processes that load images; default the config's
            ``test_dataloader.num_workers``, or 2.
        distributed: every process of the process group calls this, and they share the images.
        progress: print how far it is and the remaining time, every ten seconds.

    Returns:
        Counts: ``images``, ``empty_images``, ``unreadable_images``, ``instances``,
        ``instances_per_class`` (by name).

    Raises:
        CASTError: a path or a number is wrong, the checkpoint is not this model's, the disk is full
            or read-only, another run writes to ``out_file``, or it or its shards were made from
            other things.
    """
    cfg = config if isinstance(config, Config) else load_config(config)
    rank, world_size = get_dist_info() if distributed else (0, 1)
    views = dict(flip=bool(flip), scales=[float(scale) for scale in scales])
    _check_numbers(views['scales'], score_floor, limit, views_per_batch, num_workers)

    def on_first(function: Callable[[], Any]) -> Any:
        return on_main(function, share=True) if distributed else function()

    with contextlib.ExitStack() as stack:
        job = on_first(
            lambda: _prepare(
                cfg,
                checkpoint,
                Path(out_file),
                ann_file,
                img_dir,
                limit,
                score_floor,
                views,
                views_per_batch,
                confidence,
                stack,
            )
        )
        if not job.summary:
            job.places = job.places[rank::world_size]
            if job.places:
                _label(
                    cfg, checkpoint, job, rank, device, strict, num_workers, progress and rank == 0
                )
            if distributed:
                barrier()
            job.summary = on_first(lambda: _merge(job))
        elif progress and rank == 0:
            print(f'{out_file}: finished before, left alone', flush=True)
    if rank == 0:  # after the lock is closed: a network's file system does not let go of open files
        shutil.rmtree(job.folder, ignore_errors=True)
    return job.summary


def _check_numbers(
    scales: list[float],
    score_floor: float,
    limit: int | None,
    views_per_batch: int,
    num_workers: int | None,
) -> None:
    """Raises CASTError where a number would label nothing, or other images than it seems; NaN is
    none.
    """
    if not scales or not all(0 < scale < math.inf for scale in scales):
        raise CASTError(f'scales are {scales}; give one or more factors above 0')
    if not score_floor < 1:
        raise CASTError(f'score floor {score_floor}: give a number from 0 to below 1')
    if limit is not None and limit < 1:
        raise CASTError(f'limit {limit}: give a number of images, or none for all')
    if views_per_batch < 1:
        raise CASTError(f'{views_per_batch} views per batch: give 1 or more')
    if num_workers is not None and num_workers < 0:
        raise CASTError(f'{num_workers} processes to load images: give 0 or more')


@dataclass
class _Job:
    """What is to be done, as the first process found it out."""

    out_file: Path
    img_dir: str
    info: dict
    classes: tuple[str, ...]
    categories: list[dict]
    category_ids: list[int]  # of the classes
    num_images: int
    views_per_batch: int
    image_sizes: str  # SHA-256 of those of the files, in bytes
    places: list[int] | None = None  # of the images to label
    summary: dict | None = None  # of a finished file

    @property
    def final_info(self) -> dict:
        """The header of the finished file. Shards lack the sizes, as an image that has no labels
        yet may be repaired.
        """
        return dict(self.info, image_sizes=self.image_sizes)

    @property
    def num_views(self) -> int:
        return len(self.info['views']['scales']) * (1 + self.info['views']['flip'])

    @property
    def folder(self) -> Path:
        return Path(f'{self.out_file}.shards')

    @property
    def listing(self) -> Path:
        return self.folder / 'images.json'


def _prepare(
    cfg: Config,
    checkpoint: str | os.PathLike,
    out_file: Path,
    ann_file: str | os.PathLike | None,
    img_dir: str | os.PathLike | None,
    limit: int | None,
    score_floor: float,
    views: dict,
    views_per_batch: int,
    confidence: bool,
    stack: contextlib.ExitStack,
) -> _Job:
    """Checks everything that can be checked before the teacher is loaded, and locks the output."""
    dataset = (cfg.get('test_dataloader') or {}).get('dataset') or {}
    if 'pipeline' not in dataset:
        raise CASTError(
            f'{cfg.filename} has no test_dataloader.dataset.pipeline; the teacher needs one'
        )
    if not Path(checkpoint).is_file():
        raise CASTError(
            f"checkpoint {checkpoint} not found; give the path of the teacher's weights"
        )
    ann_file, img_dir = _resolve_paths(dataset, ann_file, img_dir)
    listing = list_images(ann_file, img_dir, limit)
    classes = _classes(cfg, dataset)
    categories, category_ids = _match_categories(listing['categories'], classes, ann_file)
    info = make_info(
        teacher_checkpoint=sha256_of_file(checkpoint),
        config=config_hash(cfg),
        prompt=' . '.join(classes) if dataset.get('return_classes') else None,
        score_floor=score_floor,
        views=views,
        images=sha256_of_json(listing),
        **(dict(confidence=True) if confidence else {}),
    )
    sizes = file_sizes(listing['images'], img_dir)
    job = _Job(
        out_file,
        img_dir,
        info,
        classes,
        categories,
        category_ids,
        len(sizes),
        views_per_batch,
        sha256_of_json(sizes),
    )
    if out_file.exists():
        job.summary = _check_finished(out_file, job.final_info)
    else:
        _begin(job, listing, sizes, stack)
    return job


def _begin(job: _Job, listing: dict, sizes: list[int], stack: contextlib.ExitStack) -> None:
    """Locks the folder of shards, and finds what is left to label; ``sizes`` are in bytes."""
    try:
        stack.enter_context(hold_lock(job.folder / '.lock', in_use(job.folder)))
        job.places = ShardIndex(job.folder, job.num_images, job.info).unlabelled().tolist()
        _check_labelled_images(job, listing['images'], sizes)
        write_atomically(job.listing, json.dumps(dict(listing, image_sizes=sizes)))
    except OSError as error:
        raise CASTError(
            f'cannot write to {job.folder} ({error.strerror}); give an output file in a folder '
            'where you may write and there is room'
        ) from error


def _check_labelled_images(job: _Job, images: list[dict], sizes: list[int]) -> None:
    """Raises CASTError where an image with labels is another file now than when the interrupted run
    began.
    """
    try:
        before = json.loads(job.listing.read_text(encoding='utf-8')).get('image_sizes')
    except (FileNotFoundError, ValueError):  # the file is written anew
        return
    if before is None:  # of mmcast before it compared them
        return
    due = set(job.places or ())
    changed = [
        image['file_name']
        for place, image in enumerate(images)
        if place not in due and before[place] != sizes[place]
    ]
    if changed:
        raise CASTError(
            f'{job.folder} has labels of {len(changed)} images whose files in {job.img_dir} have '
            f'another size in bytes now, such as {changed[0]}: give the folder of images that it '
            'was made from, delete it or give another output file'
        )


def _resolve_paths(
    dataset: dict, ann_file: str | os.PathLike | None, img_dir: str | os.PathLike | None
) -> tuple[str | None, str]:
    """The label file (None: all images of the folder) and the image folder, by default the test
    set's.
    """
    root = dataset.get('data_root') or ''
    if ann_file is None and img_dir is None:
        ann_file = os.path.join(root, dataset.get('ann_file', ''))
    if img_dir is None:
        img_dir = os.path.join(root, dataset.get('data_prefix', {}).get('img', ''))
    return None if ann_file is None else str(ann_file), str(img_dir)


def _classes(cfg: Config, dataset: dict) -> tuple[str, ...]:
    with DefaultScope.overwrite_default_scope(cfg.get('default_scope', 'mmcast')):
        return tuple(classes_of(dataset))


def config_hash(cfg: Config) -> str:
    """SHA-256 of what decides a prediction: model and test pipeline, not paths or schedules."""
    dataset = cfg.test_dataloader.dataset
    decisive = [cfg.model, dataset.pipeline, dataset.get('metainfo')]
    return hashlib.sha256(json.dumps(decisive, sort_keys=True, default=str).encode()).hexdigest()


def _match_categories(
    categories: list[dict], classes: tuple[str, ...], ann_file: str | None
) -> tuple[list[dict], list[int]]:
    """The file's COCO categories of these classes, or new ones if it has none, and the category id
    of each class.
    """
    categories = categories or [
        dict(id=number, name=name) for number, name in enumerate(classes, start=1)
    ]
    ids = {category['name']: category['id'] for category in categories}
    missing = [name for name in classes if name not in ids]
    if missing:
        raise CASTError(
            f'{ann_file} has no category {", ".join(missing)}, it has {", ".join(ids)}; set '
            'metainfo.classes of the config to these names or take another label file'
        )
    category_ids = [ids[name] for name in classes]
    return [each for each in categories if each['id'] in category_ids], category_ids


def _label(
    cfg: Config,
    checkpoint: str | os.PathLike,
    job: _Job,
    rank: int,
    device: str | None,
    strict: bool,
    num_workers: int | None,
    progress: bool,
) -> None:
    """Labels this process's share of the images."""
    given = cfg.test_dataloader.dataset
    options = dict(
        metainfo=dict(classes=job.classes), return_classes=given.get('return_classes', False)
    )
    pipeline = [
        step for step in given.pipeline if not str(step['type']).endswith('LoadAnnotations')
    ]
    with DefaultScope.overwrite_default_scope(cfg.get('default_scope', 'mmcast')):
        images = ImagesToLabel(str(job.listing), job.img_dir, pipeline=pipeline, **options)
        # mmdet's networks change the config that they are built from.
        model = MODELS.build(copy.deepcopy(ConfigDict(without_adapters(cfg.model))))
    load_weights(model, str(checkpoint))
    if job.info.get('confidence'):
        ask_for_probabilities(model)
    device = device or get_device()
    model.to(device).eval()
    _speed_up(model, job, on_cpu=str(device).startswith('cpu'))
    if num_workers is None:
        num_workers = cfg.test_dataloader.get('num_workers', 2)
    loader = load_ahead(images, job.places, num_workers)
    with (
        ShardWriter(job.folder / f'shard_{rank:04d}.jsonl', job.info) as writer,
        ThreadPoolExecutor(1) as thread,
    ):  # a second one would take turns with the teacher more often
        _predict_and_write(model, loader, writer, thread, job, strict, progress)


def _speed_up(model: nn.Module, job: _Job, on_cpu: bool) -> None:
    """Makes the teacher faster, to the same labels; with views in batches but for rounding."""
    for part in model.modules():
        if hasattr(part, 'score_floor'):
            part.score_floor = job.info['score_floor']
    if on_cpu:
        keep_freed_memory()
    if on_cpu and job.num_views > 1 and job.views_per_batch > 1:
        speed_up_on_cpu(model)


@torch.no_grad()
def _predict_and_write(
    model: torch.nn.Module,
    loader: Iterable[LoadedImage],
    writer: ShardWriter,
    thread: ThreadPoolExecutor,
    job: _Job,
    strict: bool,
    progress: bool,
) -> None:
    """The loop over the images. An interruption loses none that was predicted.

    Masks of an image are encoded from the moment when the teacher begins to predict on the next
    one: then Python waits for the accelerator. Begun earlier, the encoding would take turns with
    the preparation of that image, and delay the teacher.
    """
    predicted: list[tuple[LoadedImage, list[InstanceData]]] = []
    waiting: deque[Future] = deque()
    report = _Progress(len(job.places)) if progress else None

    def encode_and_write(loaded: LoadedImage, views: list[InstanceData]) -> None:
        writer.write(loaded.place, _to_record(loaded, views, job))

    def begin_to_encode(*of_hook: Any) -> None:
        while predicted:
            waiting.append(thread.submit(encode_and_write, *predicted.pop()))

    def wait_for_next() -> None:
        waiting.popleft().result()
        if report:
            report.step()

    hook = model.register_forward_pre_hook(begin_to_encode)
    try:
        for loaded in loader:
            views = _predict(model, loaded, job)
            if loaded.unreadable and strict:
                raise CASTError(
                    f'image {loaded.image["file_name"]} in {job.img_dir} cannot be used '
                    f'({loaded.unreadable}); replace it, take it out, or leave out --strict'
                )
            begin_to_encode()  # what is before an unreadable image
            predicted.append((loaded, views))
            if len(waiting) > _WAITING:
                wait_for_next()
    finally:
        hook.remove()
        begin_to_encode()
        while waiting:
            wait_for_next()


def _predict(model: torch.nn.Module, loaded: LoadedImage, job: _Job) -> list[InstanceData]:
    """The views of an image; none where it cannot be used, and why not is then in ``loaded``.

    A network may fail on the shape of one image, such as 3000x2. That must not keep the others from
    getting labels.
    """
    if loaded.unreadable:
        return []
    try:
        return predict_views(
            model, loaded.data, batch_size=job.views_per_batch, **job.info['views']
        )
    except CASTError:
        raise
    except (ArithmeticError, AssertionError, IndexError, RuntimeError, ValueError) as error:
        if is_of_machine(error):
            raise
        loaded.unreadable = f'the teacher fails on it: {reason_of(error)}'
        return []


class _Progress:
    """Prints a line now and then: a bar would fill the log files of unattended runs."""

    def __init__(self, total: int) -> None:
        self.total, self.done = total, 0
        self._start = self._printed = time.monotonic()

    def step(self) -> None:
        self.done += 1
        now = time.monotonic()
        if now - self._printed > _PROGRESS_SECONDS or self.done == self.total:
            speed = self.done / (now - self._start)
            print(
                f'pseudo-labels: {self.done}/{self.total} images of this process, {speed:.1f} a '
                f'second, about {(self.total - self.done) / speed / 60:.1f} min left',
                flush=True,
            )
            self._printed = now


def _to_record(loaded: LoadedImage, views: list[InstanceData], job: _Job) -> dict:
    """What is written about an image: the reason why it cannot be read, or COCO annotations without
    ids.
    """
    if loaded.unreadable:
        return dict(
            unreadable=loaded.unreadable, image=loaded.image
        )  # the shards' reader wants this order
    image, floor = loaded.image, job.info['score_floor']
    height, width = views[0].masks.shape[-2:]
    if (height, width) != (image['height'], image['width']):
        raise CASTError(
            f"the teacher's masks of {image['file_name']} are {width}x{height}, the image is "
            f"{image['width']}x{image['height']}; its predictions must be of the image's size"
        )
    views = [above(view, floor).cpu() for view in views]
    prediction = above(merge_views(views, floor), floor) if len(views) > 1 else views[0]
    if job.info.get('confidence'):
        levels = confidence_map(prediction.probabilities.numpy(), prediction.scores.numpy())
        image = dict(image, confidence=encode_map(levels))
    return dict(image=image, annotations=_to_annotations(prediction, job))


def _to_annotations(prediction: InstanceData, job: _Job) -> list[dict]:
    """COCO annotations of the instances with any pixel; boxes and areas from masks.

    What the teacher tells of class confidence, mask quality and its components' agreement
    (``class_scores``, ``mask_quality``, ``agreement`` along with ``scores``) is stored too.
    """
    columns = {field: prediction[name] for field, name in PREDICTED.items() if name in prediction}
    scores = [[round(value, 6) for value in column.tolist()] for column in columns.values()]
    rles = [encode_mask(mask) for mask in prediction.masks.numpy()]
    areas, boxes = mask_areas(rles), mask_utils.toBbox(rles).tolist()
    return [
        dict(
            category_id=job.category_ids[label],
            segmentation=rle,
            **dict(zip(columns, values)),
            bbox=box,
            area=area,
            iscrowd=0,
        )
        for rle, area, box, label, *values in zip(
            rles, areas, boxes, prediction.labels.tolist(), *scores
        )
        if area
    ]


def _merge(job: _Job) -> dict:
    """The shards of all processes become the output file, which appears whole or not at all."""
    shards = ShardIndex(job.folder, job.num_images, job.info)
    missing = shards.missing()
    if len(missing):
        raise CASTError(
            f'{job.folder} lacks the labels of {len(missing)} of {job.num_images} images; give the '
            'same command again to make them'
        )
    if len(shards.unlabelled()) == job.num_images:
        reason = next(iter(shards))['unreadable']
        raise CASTError(
            f'none of the {job.num_images} images in {job.img_dir} can be used, the first because: '
            f'{reason}; mend the images or the test pipeline and give the same command again'
        )
    temporary = job.folder / 'merged.json'
    try:
        write_store(temporary, job.final_info, job.categories, shards)
        os.replace(temporary, job.out_file)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise CASTError(
            f'cannot write {job.out_file} ({error.strerror}); all labels are in {job.folder}: make '
            'room and give the same command again'
        ) from error
    return _summarise(job.categories, (record.get('annotations') for record in shards))


def _check_finished(path: Path, info: dict) -> dict:
    """The summary of a finished file; raises CASTError if it was made from other things."""
    content = read_pseudo_labels(path)
    if 'image_sizes' not in content['info']:  # of mmcast before it compared them
        info = {key: value for key, value in info.items() if key != 'image_sizes'}
    check_same_info(path, content['info'], info)
    annotations = {image['id']: [] for image in content['images']}
    for annotation in content['annotations']:
        annotations[annotation['image_id']].append(annotation)
    unreadable = [None] * len(content.get('unreadable', []))
    return _summarise(content['categories'], [*annotations.values(), *unreadable])


def _summarise(categories: list[dict], images: Iterable[list[dict] | None]) -> dict:
    """Counts; an image is the list of its annotations, or None if it cannot be read."""
    kinds, counts = Counter(), Counter()
    for annotations in images:
        kinds['unreadable' if annotations is None else 'labelled' if annotations else 'empty'] += 1
        counts.update(annotation['category_id'] for annotation in annotations or ())
    return dict(
        images=kinds['labelled'] + kinds['empty'],
        empty_images=kinds['empty'],
        unreadable_images=kinds['unreadable'],
        instances=counts.total(),
        instances_per_class={category['name']: counts[category['id']] for category in categories},
    )


def ask_for_probabilities(model: nn.Module) -> None:
    """Let a teacher put ``probabilities`` (N, h, w) along with its masks, of uint8 and of
    :func:`map_size`.

    Raises:
        CASTError: it has no part that can: one with an attribute ``mask_probabilities``.
    """
    able = [part for part in model.modules() if hasattr(part, 'mask_probabilities')]
    if not able:
        raise CASTError(
            f'the teacher {type(model).__name__} does not tell mask probabilities, so there is no '
            'confidence to store: leave confidence out'
        )
    for part in able:
        part.mask_probabilities = True
