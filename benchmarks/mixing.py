r"""What mixing images costs the processes that load them: CPU milliseconds per image of the
training pipeline with each option, against the same pipeline without.

    python benchmarks/mixing.py --rounds 5
    python benchmarks/mixing.py --config configs/_base_/datasets/dsb2018.py \
        --ann-file pseudo_labels.json --img-dir data/dsb2018/images

Without files it generates toy street scenes, whose labels count as pseudo-labels. Every image is
mixed (prob=1): a smaller probability costs that fraction. The pipelines take turns, image by image,
with the same random numbers, in one process on one core; what counts is its CPU time, and the bytes
of labels that go from a loading process to the trainer.
"""

import argparse
import copy
import json
import pickle
import tempfile
import time
from pathlib import Path

import cv2
import numpy as np
import torch
from mmengine.config import Config
from mmengine.registry import init_default_scope

from mmcast.cli.errors import report_errors
from mmcast.coco.converters.cityscapes import convert_cityscapes
from mmcast.data.mixing import MIXING, MixedImages, build_mixing
from mmcast.pseudo_labels.store import make_info
from mmcast.registry import DATASETS
from mmcast.toy.cityscapes import generate_toy_cityscapes

CONFIG = Path(__file__).parents[1] / 'configs/_base_/datasets/toy_cityscapes.py'


def make_streets(root: str, number: int, size: tuple[int, int]) -> tuple[str, str]:
    """Street scenes with their ground truth as pseudo-labels: file and folder of images."""
    generate_toy_cityscapes(root, num_train=number, num_val=0, size=size)
    convert_cityscapes(root, 'train', Path(root, 'train.json'))
    content = json.loads(Path(root, 'train.json').read_text())
    labels = [dict(ann, score=0.9) for ann in content['annotations'] if not ann['iscrowd']]
    content |= dict(info=make_info(score_floor=0.05), annotations=labels)
    Path(root, 'pseudo.json').write_text(json.dumps(content))
    return f'{root}/pseudo.json', f'{root}/leftImg8bit/train'


def build_dataset(config: str, ann_file: str, img_dir: str) -> MixedImages:
    """The pseudo-labeled images of a data set config."""
    dataset = Config.fromfile(config).semi_dataloader.dataset.datasets[1]
    dataset.update(ann_file=ann_file, data_root='', data_prefix=dict(img=img_dir))
    return DATASETS.build(dataset)


def measure(datasets: dict[str, MixedImages], rounds: int) -> tuple[dict, dict]:
    """CPU milliseconds per image, (rounds, ) each, and mean kB of labels per image."""
    number = len(datasets['nothing'])
    costs = {name: np.zeros(rounds) for name in datasets}
    sizes = dict.fromkeys(datasets, 0.0)
    for turn in range(-1, rounds):  # the first warms up
        for index in range(number):
            for name, dataset in datasets.items():
                np.random.seed(number * (turn + 1) + index)
                start = time.process_time()
                item = dataset[index]
                spent = time.process_time() - start
                if turn >= 0:
                    costs[name][turn] += 1000 * spent / number
                    labels = pickle.dumps(item['data_samples'].gt_instances)
                    sizes[name] += len(labels) / 1000 / number / rounds
    return costs, sizes


@report_errors
def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('--config', default=str(CONFIG), help='with semi_dataloader')
    parser.add_argument('--ann-file', help='pseudo-labels')
    parser.add_argument('--img-dir', help='folder of their images')
    parser.add_argument('--images', type=int, default=24, help='toy street scenes to generate')
    parser.add_argument(
        '--size', type=int, nargs=2, default=[112, 224], metavar=('HEIGHT', 'WIDTH')
    )
    parser.add_argument('--rounds', type=int, default=5, help='passes over the images')
    args = parser.parse_args()
    cv2.setNumThreads(0)
    torch.set_num_threads(1)
    init_default_scope('mmcast')
    with tempfile.TemporaryDirectory() as root:
        files = args.ann_file, args.img_dir
        if not args.ann_file:
            files = make_streets(root, args.images, tuple(args.size))
        plain = build_dataset(args.config, *files)
        datasets = {'nothing': plain}
        for name in MIXING:
            datasets[name] = copy.copy(plain)
            datasets[name].mixers = build_mixing({name: dict(prob=1)})
        costs, sizes = measure(datasets, args.rounds)
    print(f'{len(plain)} images, {args.rounds} rounds; ms of CPU time per image, mean (min to max)')
    for name, spent in costs.items():
        ratio = spent / costs['nothing']
        print(
            f'{name:12s}{spent.mean():7.2f} ({spent.min():.2f} to {spent.max():.2f}), '
            f'{ratio.mean():.2f} ({ratio.min():.2f} to {ratio.max():.2f}) times nothing; '
            f'labels {sizes[name]:.1f} kB'
        )


if __name__ == '__main__':
    main()
