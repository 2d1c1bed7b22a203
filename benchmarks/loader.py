"""Images per second of mmcast's training pipeline against mmdet's own loading, same images and
transforms.

    python benchmarks/loader.py --images 12 --rounds 3

The transforms are those of configs/_base_/datasets/cityscapes.py, its sizes scaled to the images;
the two pipelines differ in how they load masks. They take turns, image by image, with the same
random numbers, in one process on one core; what counts is its CPU time. Their images are compared,
and a difference is an error; their masks differ by half a pixel, as mmdet samples them
corner-aligned and mmcast at half-pixel centres.
"""

import argparse
import pickle
import tempfile
import time
from pathlib import Path

import cv2
import numpy as np
import torch
from mmengine.config import Config
from mmengine.dataset import Compose
from mmengine.registry import init_default_scope
from torch.utils.data import Dataset

from mmcast.cli.errors import report_errors
from mmcast.coco.converters.cityscapes import convert_cityscapes
from mmcast.registry import DATASETS
from mmcast.toy.cityscapes import generate_toy_cityscapes

CONFIG = Path(__file__).parents[1] / 'configs/_base_/datasets/cityscapes.py'
STOCK = dict(LoadImage='LoadImageFromFile', LoadCompressedAnnotations='LoadAnnotations')


def pipelines(height: int, width: int) -> dict[str, Compose]:
    """The recipe with mmdet's loading and with ours, for images of this size."""
    config = Config.fromfile(CONFIG)
    sizes = dict(
        RandomResize=dict(scale=(width, height)),
        RandomCrop=dict(crop_size=(width // 2, height // 2)),
    )
    ours = [dict(step, **sizes.get(step['type'], {})) for step in config.train_pipeline]
    stock = [dict(step, type=STOCK.get(step['type'], step['type'])) for step in ours]
    return dict(mmdet=Compose(stock), mmcast=Compose(ours))


def load(pipeline: Compose, info: dict, seed: int) -> tuple[dict, float, bytes]:
    """A sample, the CPU seconds a worker spends on it and the bytes of labels it sends."""
    np.random.seed(seed)
    start = time.process_time()
    sample = pipeline(info)
    sent = pickle.dumps(sample['data_samples'].gt_instances.masks)
    return sample, time.process_time() - start, sent


def receive(sent: bytes, size: tuple[int, int]) -> float:
    """CPU seconds in which the trainer gets the masks as a head takes them, padded to `size`."""
    start = time.process_time()
    pickle.loads(sent).pad(size).to_tensor(torch.bool, 'cpu')
    return time.process_time() - start


def compare(dataset: Dataset, size: tuple[int, int], rounds: int) -> dict[str, np.ndarray]:
    """Seconds of worker, seconds of trainer and bytes of masks for each of `rounds` passes,
    (rounds, 3).
    """
    both = pipelines(*size)
    padded = [14 * -(-side // 28) for side in size]  # the crop, to the encoder's patches
    costs = {name: np.zeros((rounds, 3)) for name in both}
    for turn in range(-1, rounds):  # the first warms up
        for index in range(len(dataset)):
            outputs = {}
            for name, pipeline in both.items():
                seed = len(dataset) * (turn + 1) + index
                sample, worker, sent = load(pipeline, dataset.get_data_info(index), seed)
                trainer = receive(sent, padded)
                outputs[name] = sample['inputs']
                if turn >= 0:
                    costs[name][turn] += worker, trainer, len(sent)
            if not torch.equal(*outputs.values()):
                raise AssertionError(f'the two pipelines differ on image {index}')
    return costs


@report_errors
def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('--images', type=int, default=12, help='toy street scenes to generate')
    parser.add_argument('--rounds', type=int, default=3, help='passes over them')
    parser.add_argument(
        '--size', type=int, nargs=2, default=[512, 1024], metavar=('HEIGHT', 'WIDTH')
    )
    args = parser.parse_args()
    cv2.setNumThreads(0)
    torch.set_num_threads(1)
    init_default_scope('mmcast')
    with tempfile.TemporaryDirectory() as root:
        generate_toy_cityscapes(root, num_train=args.images, num_val=0, size=tuple(args.size))
        counts = convert_cityscapes(root, 'train', Path(root, 'train.json'))
        dataset = DATASETS.build(
            dict(
                type='CocoDataset',
                metainfo=dict(classes=Config.fromfile(CONFIG).classes),
                pipeline=[],
                ann_file=f'{root}/train.json',
                data_prefix=dict(img=f'{root}/leftImg8bit/train'),
            )
        )
        costs = compare(dataset, tuple(args.size), args.rounds)

    print(
        f'{args.images} images of {args.size[0]}x{args.size[1]}, {counts["instances"]} instances, '
        f'{args.rounds} rounds; same images from both'
    )
    rates = {}
    for name, rounds in costs.items():
        rates[name] = args.images / rounds[:, 0]
        _, trainer, sent = rounds.mean(axis=0) / args.images
        print(
            f'{name:7s}{rates[name].mean():7.2f} images/s of a worker ({rates[name].min():.2f} to '
            f'{rates[name].max():.2f}); masks: {sent / 1e6:.2f} MB sent, {1000 * trainer:.1f} ms '
            'of the trainer per image'
        )
    ratio = rates['mmcast'] / rates['mmdet']
    print(f'ratio  {ratio.mean():7.2f} ({ratio.min():.2f} to {ratio.max():.2f})')


if __name__ == '__main__':
    main()
