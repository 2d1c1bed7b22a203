"""Pseudo-labels: speed and memory of making them, merging them, and reading them back.

    python benchmarks/pseudo_labels.py overlap --images 200 --rounds 3
    python benchmarks/pseudo_labels.py memory --images 10000
    python benchmarks/pseudo_labels.py reading --instances 1000000
    python benchmarks/pseudo_labels.py views --images 20 --rounds 5
    python benchmarks/pseudo_labels.py views --config CONFIG --checkpoint WEIGHTS --img-dir FOLDER

overlap: images per second of generate_pseudo_labels with a teacher that waits some milliseconds, as
the processor does for an accelerator, against loading and teacher alone (what encoding and writing
cost), and against the plain loop: load, predict, encode, append to a list, dump. The three take
turns on the same images and their masks are compared. memory: resident memory while a long list of
small images is labeled, its last tenth against its first, and the seconds of the merge at the end.
reading: PseudoLabelDataset against mmdet's CocoDataset on the same file, each in a process of its
own. views: CPU seconds of labeling with test-time augmentation, by default mirrored and in three
sizes, against one prediction for each image, and against the same views predicted one by one in the
network as it is, whose labels are compared; by default the toy's teacher on its street scenes. In
turns, each in a process of its own, with one thread, from files to the store, without starting.
"""

import argparse
import contextlib
import gc
import io
import json
import multiprocessing
import resource
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from unittest import mock

import cv2
import numpy as np
import torch
from mmengine.config import Config
from mmengine.dataset import pseudo_collate
from mmengine.model import BaseModel
from mmengine.registry import DefaultScope
from mmengine.structures import InstanceData
from pycocotools import mask as mask_utils

from mmcast.cli.errors import report_errors
from mmcast.configs import load_config
from mmcast.masks.rle import encode_mask
from mmcast.memory import PeakMemory
from mmcast.pseudo_labels import generate as generating
from mmcast.pseudo_labels.generate import generate_pseudo_labels
from mmcast.pseudo_labels.images import ImagesToLabel, load_ahead
from mmcast.pseudo_labels.store import make_info, write_store
from mmcast.registry import DATASETS, MODELS
from mmcast.toy.cityscapes import generate_toy_cityscapes

CONFIGS = Path(__file__).resolve().parent.parent / 'configs'
TOY = CONFIGS / 'toy/toy_teacher_adapt_labeled.py', CONFIGS / 'toy/weights/toy_teacher.pth'
CLASSES = tuple(f'class {number}' for number in range(8))
MASKS = 20  # that the teacher of `overlap` predicts on each image
seen: list[tuple[float, int]] = []  # when the teacher saw an image, and the memory then


@MODELS.register_module()
class EllipseTeacher(BaseModel):
    """Waits, as for an accelerator, then gives ellipses that are elsewhere on the next image."""

    def __init__(self, masks: int, size: tuple[int, int], seconds: float) -> None:
        super().__init__(data_preprocessor=dict(type='mmdet.DetDataPreprocessor'))
        self.seconds, self.scale = seconds, torch.nn.Parameter(torch.ones(()))
        drawn = np.stack([ellipse(np.random.default_rng(number), *size) for number in range(masks)])
        self.predictions = [
            torch.from_numpy(np.roll(drawn, 37 * turn, axis=2)) for turn in range(7)
        ]

    def forward(self, inputs, data_samples, mode='predict'):
        time.sleep(self.seconds)
        seen.append((time.perf_counter(), resident_memory()))
        masks = self.predictions[data_samples[0].img_id % len(self.predictions)]
        data_samples[0].pred_instances = InstanceData(
            masks=masks,
            labels=torch.arange(len(masks)) % len(CLASSES),
            scores=self.scale * torch.linspace(0.1, 0.9, len(masks)),
        )
        return data_samples


def ellipse(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    """A random one, bool (H, W), a hundredth of the image or so."""
    mask = np.zeros((height, width), np.uint8)
    axes = (
        int(rng.integers(width // 50, width // 10)),
        int(rng.integers(height // 25, height // 6)),
    )
    centre = (int(rng.integers(width)), int(rng.integers(height)))
    return cv2.ellipse(mask, centre, axes, int(rng.integers(180)), 0, 360, 1, -1).astype(bool)


def resident_memory() -> int:
    """Bytes of this process that are of no file: pages of libraries come and go with what else
    runs.
    """
    status = Path('/proc/self/status').read_text()
    return 1024 * int(status.split('RssAnon:')[1].split()[0])


def write_images(folder: Path, images: int, size: tuple[int, int]) -> None:
    """``images/`` with twenty files, and ``list.json``, which names each of them many times."""
    rng = np.random.default_rng(0)
    (folder / 'images').mkdir()
    for number in range(20):
        noise = rng.integers(0, 256, (size[0] // 4, size[1] // 4, 3), dtype=np.uint8)
        picture = cv2.resize(noise, size[::-1], interpolation=cv2.INTER_LINEAR)
        cv2.imwrite(str(folder / f'images/{number}.png'), picture)
    listing = [
        dict(id=number + 1, file_name=f'{number % 20}.png', height=size[0], width=size[1])
        for number in range(images)
    ]
    (folder / 'list.json').write_text(
        json.dumps(dict(images=listing, annotations=[], categories=[]))
    )


def prepare(
    folder: Path, images: int, size: tuple[int, int], masks: int, workers: int, seconds: float
) -> Config:
    """Image files, a list that names each of them many times, the teacher's weights; its config."""
    write_images(folder, images, size)
    config = Config(
        dict(
            default_scope='mmcast',
            model=dict(type='EllipseTeacher', masks=masks, size=size, seconds=seconds),
            test_dataloader=dict(
                num_workers=workers,
                dataset=dict(
                    type='CocoDataset',
                    metainfo=dict(classes=CLASSES),
                    pipeline=[
                        dict(type='LoadImage'),
                        dict(type='PackDetInputs', meta_keys=('img_id', 'ori_shape')),
                    ],
                ),
            ),
        )
    )
    torch.save(MODELS.build(config.model).state_dict(), folder / 'teacher.pth')
    return config


def generate(config: Config, folder: Path) -> dict:
    return generate_pseudo_labels(
        config,
        folder / 'teacher.pth',
        folder / 'labels.json',
        progress=False,
        ann_file=folder / 'list.json',
        img_dir=folder / 'images',
        device='cpu',
    )


def ours(config: Config, folder: Path) -> list[str]:
    generate(config, folder)
    content = json.loads((folder / 'labels.json').read_text())
    (folder / 'labels.json').unlink()
    return [ann['segmentation']['counts'] for ann in content['annotations']]


def loading_and_teacher(config: Config, folder: Path) -> None:
    images, model = open_images(config, folder), MODELS.build(config.model).eval()
    with torch.no_grad():
        for loaded in load_ahead(images, range(len(images)), config.test_dataloader.num_workers):
            model.test_step(pseudo_collate([loaded.data]))


def plain_loop(config: Config, folder: Path) -> list[str]:
    images, model = open_images(config, folder), MODELS.build(config.model).eval()
    annotations = []
    with torch.no_grad():
        for number in range(len(images)):
            found = model.test_step(pseudo_collate([images[number].data]))[0].pred_instances
            for mask, score, label in zip(
                found.masks.numpy(), found.scores.tolist(), found.labels.tolist()
            ):
                rle = mask_utils.encode(np.asfortranarray(mask, dtype=np.uint8))
                rle['counts'] = rle['counts'].decode()
                annotations.append(
                    dict(
                        id=len(annotations) + 1,
                        image_id=number + 1,
                        category_id=label + 1,
                        segmentation=rle,
                        score=score,
                        bbox=mask_utils.toBbox(rle).tolist(),
                        area=int(mask_utils.area(rle)),
                        iscrowd=0,
                    )
                )
    (folder / 'plain.json').write_text(json.dumps(dict(annotations=annotations)))
    return [ann['segmentation']['counts'] for ann in annotations]


def open_images(config: Config, folder: Path) -> ImagesToLabel:
    return ImagesToLabel(
        str(folder / 'list.json'),
        str(folder / 'images'),
        metainfo=dict(classes=CLASSES),
        pipeline=config.test_dataloader.dataset.pipeline,
    )


def timed(function: Callable, *args) -> tuple[float, list[str] | None]:
    """Seconds of the wall clock, and the result."""
    gc.collect()
    gc.freeze()  # MMEngine's data sets collect garbage: a second that is the same for all three
    start = time.perf_counter()
    with contextlib.redirect_stdout(io.StringIO()):
        result = function(*args)
    return time.perf_counter() - start, result


def benchmark_overlap(
    folder: Path, images: int, size: tuple[int, int], workers: int, rounds: int, seconds: float
) -> None:
    config = prepare(folder, images, size, MASKS, workers, seconds)
    durations = {name: [] for name in ('plain_loop', 'loading_and_teacher', 'ours')}
    for _ in range(rounds):
        masks = {}
        for name, spent in durations.items():
            duration, masks[name] = timed(globals()[name], config, folder)
            spent.append(duration)
        if masks['ours'] != masks['plain_loop']:
            raise AssertionError('masks differ from those of the plain loop')
    print(
        f'{images} images of {size[0]}x{size[1]}, {MASKS} masks each, {workers} loading processes, '
        f'a teacher of {1000 * seconds:.0f} ms, {rounds} rounds, wall clock; same masks'
    )
    for name, spent in durations.items():
        print(
            f'{name:20s}{images / np.median(spent):8.1f} images/s ({images / max(spent):.1f} to '
            f'{images / min(spent):.1f})'
        )
    for name in ('loading_and_teacher', 'plain_loop'):
        ratios = np.array(durations[name]) / durations['ours']
        print(
            f'ours against {name:20s}{np.median(ratios):6.2f} ({ratios.min():.2f} to '
            f'{ratios.max():.2f})'
        )


def benchmark_memory(folder: Path, images: int) -> None:
    config = prepare(folder, images, (64, 128), 5, 1, 0)
    start = time.perf_counter()
    with contextlib.redirect_stdout(io.StringIO()):
        counts = generate(config, folder)
    end = time.perf_counter()
    tenth = images // 10
    times, memory = np.array(seen).T
    first, last = (memory[part].mean() / 1e6 for part in (slice(tenth), slice(-tenth, None)))
    print(
        f'{images} images, {counts["instances"]} labels in {end - start:.0f} s: {first:.1f} MB in '
        f'the first tenth, {last:.1f} MB in the last; ratio {last / first:.3f}'
    )
    print(f'merge, from the last image on: {end - times[-1]:.1f} s')


class Records:
    """Records of 10 random labels per image."""

    def __init__(self, instances: int, size: tuple[int, int] = (512, 1024)) -> None:
        self.images, self.size = instances // 10, size
        rng = np.random.default_rng(0)
        rles = (encode_mask(ellipse(rng, *size)) for _ in range(500))
        self.labels = [
            dict(
                segmentation=rle,
                area=int(mask_utils.area(rle)),
                iscrowd=0,
                bbox=mask_utils.toBbox(rle).tolist(),
            )
            for rle in rles
        ]

    def __iter__(self) -> Iterator[dict]:
        rng = np.random.default_rng(1)
        for number in range(1, self.images + 1):
            image = dict(
                id=number, file_name=f'{number}.png', height=self.size[0], width=self.size[1]
            )
            annotations = [
                dict(
                    self.labels[rng.integers(500)],
                    score=round(rng.random(), 6),
                    category_id=int(rng.integers(len(CLASSES))) + 1,
                )
                for _ in range(10)
            ]
            yield dict(image=image, annotations=annotations)


def read(kind: str, path: str, pipe) -> None:
    """Sends wall clock, CPU seconds and the process' peak memory of reading a file."""
    options = dict(score_thr=0.05) if kind == 'PseudoLabelDataset' else {}
    wall, cpu = time.perf_counter(), time.process_time()
    with contextlib.redirect_stdout(io.StringIO()), DefaultScope.overwrite_default_scope('mmcast'):
        DATASETS.build(
            dict(
                type=kind,
                ann_file=path,
                data_prefix=dict(img=''),
                pipeline=[],
                metainfo=dict(classes=CLASSES),
                **options,
            )
        )
    pipe.send(
        (
            time.perf_counter() - wall,
            time.process_time() - cpu,
            resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20,
        )
    )


def benchmark_reading(folder: Path, instances: int) -> None:
    path = folder / 'labels.json'
    categories = [dict(id=number, name=name) for number, name in enumerate(CLASSES, 1)]
    write_store(path, make_info(), categories, Records(instances))
    print(
        f'{instances} labels, {path.stat().st_size / 1e6:.0f} MB; PseudoLabelDataset also drops '
        'and resolves overlaps'
    )
    costs = {}
    for kind in ('PseudoLabelDataset', 'CocoDataset'):
        receiver, sender = multiprocessing.Pipe(duplex=False)
        process = multiprocessing.get_context('fork').Process(
            target=read, args=(kind, str(path), sender)
        )
        process.start()
        costs[kind] = np.array(receiver.recv())
        process.join()
        wall, cpu, memory = costs[kind]
        print(
            f'{kind:20s}{wall:7.1f} s ({cpu:.1f} s of CPU), peak {memory:.2f} GiB with the '
            'libraries'
        )
    _, cpu, memory = costs['PseudoLabelDataset'] / costs['CocoDataset']
    print(f'ratio: CPU {cpu:.2f}, memory {memory:.2f}')


def label(kind: str, config: Config, checkpoint: Path, images: Path, options: dict, pipe) -> None:
    """Sends CPU seconds and peak memory (MiB) of labeling images, and the labels of each image."""
    options, patches = dict(options), contextlib.ExitStack()
    if kind == 'one by one':
        options['views_per_batch'] = 1
        patches.enter_context(mock.patch.object(generating, '_speed_up'))
    elif kind == 'one view':
        options.update(flip=False, scales=[1.0])
    seconds, loop = [], generating._predict_and_write

    def timed_loop(*args) -> None:
        start = time.process_time()
        loop(*args)
        seconds.append(time.process_time() - start)

    with (
        tempfile.TemporaryDirectory() as folder,
        contextlib.redirect_stdout(io.StringIO()),
        patches,
        mock.patch.object(generating, '_predict_and_write', timed_loop),
        PeakMemory() as peak,
    ):
        out = Path(folder) / 'labels.json'
        generate_pseudo_labels(
            config, checkpoint, out, img_dir=images, device='cpu', num_workers=0, **options
        )
        content = json.loads(out.read_text())
    labels = {image['id']: [] for image in content['images']}
    for ann in content['annotations']:
        labels[ann['image_id']].append(ann)
    pipe.send((seconds[0], peak.megabytes, labels))


def in_process(*args) -> tuple:
    """What :func:`label` sends."""
    receiver, sender = multiprocessing.Pipe(duplex=False)
    process = multiprocessing.get_context('fork').Process(target=label, args=(*args, sender))
    process.start()
    sender.close()
    sent = receiver.recv()
    process.join()
    return sent


def compare(found: dict, expected: dict) -> str:
    """How labels of some images differ from others, in words."""
    ious, differences, alone = [], [], 0
    for image, labels in expected.items():
        others = found[image]
        overlaps = mask_utils.iou(
            [ann['segmentation'] for ann in labels],
            [ann['segmentation'] for ann in others],
            [0] * len(others),
        )
        alone += abs(len(labels) - len(others))
        for row, ann in zip(overlaps, labels):
            same = [i for i, o in enumerate(others) if o['category_id'] == ann['category_id']]
            if same:
                # Of duplicate detections with one mask, that of the nearest score.
                best = max(same, key=lambda i: (row[i], -abs(others[i]['score'] - ann['score'])))
                ious.append(row[best])
                differences.append(abs(others[best]['score'] - ann['score']))
    return (
        f'{len(ious)} labels, {alone} more or less; lowest IoU {min(ious):.6f}, '
        f'{sum(iou < 1 for iou in ious)} masks with another pixel; scores differ by '
        f'{max(differences):.1e} at most'
    )


def benchmark_views(
    config: Path, checkpoint: Path, images: Path, count: int, rounds: int, options: dict
) -> None:
    loaded = load_config(config)
    options = dict(options, limit=count, progress=False)
    costs, labels = {kind: [] for kind in ('one view', 'views', 'one by one')}, {}
    for _ in range(rounds):
        for kind, spent in costs.items():
            *cost, labels[kind] = in_process(kind, loaded, checkpoint, images, options)
            spent.append(cost)
    costs = {kind: np.array(spent) for kind, spent in costs.items()}
    views = len(options['scales']) * (1 + options['flip'])
    print(f'{config.name}: {count} images, {views} views, {rounds} rounds, one thread')
    for kind, spent in costs.items():
        seconds, memory = 1000 * spent[:, 0] / count, np.median(spent[:, 1])
        print(
            f'{kind:12s}{np.median(seconds):8.1f} ms of CPU an image ({seconds.min():.1f} to '
            f'{seconds.max():.1f}), peak {memory:.0f} MiB, libraries included'
        )
    for kind in ('one view', 'one by one'):
        ratios = costs['views'][:, 0] / costs[kind][:, 0]
        print(
            f'views against {kind:12s}{np.median(ratios):6.2f} ({ratios.min():.2f} to '
            f'{ratios.max():.2f})'
        )
    print(f'labels of views against one by one: {compare(labels["views"], labels["one by one"])}')


@report_errors
def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('part', choices=['overlap', 'memory', 'reading', 'views'])
    parser.add_argument(
        '--images', type=int, help='default: 200 for overlap, 10,000 for memory, 20 for views'
    )
    parser.add_argument(
        '--size', type=int, nargs=2, default=[512, 1024], metavar=('HEIGHT', 'WIDTH')
    )
    parser.add_argument('--workers', type=int, default=1, help='loading processes of overlap')
    parser.add_argument(
        '--teacher-ms', type=float, default=15, help='how long the teacher of overlap waits'
    )
    parser.add_argument('--rounds', type=int, default=3)
    parser.add_argument('--instances', type=int, default=1_000_000)
    parser.add_argument('--config', type=Path, default=TOY[0], help='teacher of views')
    parser.add_argument('--checkpoint', type=Path, default=TOY[1])
    parser.add_argument('--img-dir', type=Path, help='images of views')
    parser.add_argument('--scales', type=float, nargs='+', default=[0.75, 1.0, 1.25])
    parser.add_argument('--no-flip', action='store_true', help='views without mirrored ones')
    args = parser.parse_args()
    torch.set_num_threads(1)
    cv2.setNumThreads(0)
    with tempfile.TemporaryDirectory() as folder, DefaultScope.overwrite_default_scope('mmcast'):
        folder = Path(folder)
        if args.part == 'overlap':
            benchmark_overlap(
                folder,
                args.images or 200,
                tuple(args.size),
                args.workers,
                args.rounds,
                args.teacher_ms / 1000,
            )
        elif args.part == 'memory':
            benchmark_memory(folder, args.images or 10_000)
        elif args.part == 'views':
            count = args.images or 20
            if args.img_dir is None:
                generate_toy_cityscapes(folder, num_train=0, num_val=count, progress=False)
            benchmark_views(
                args.config,
                args.checkpoint,
                args.img_dir or folder / 'leftImg8bit/val',
                count,
                args.rounds,
                dict(flip=not args.no_flip, scales=args.scales),
            )
        else:
            benchmark_reading(folder, args.instances)


if __name__ == '__main__':
    main()
