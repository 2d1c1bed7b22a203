"""Splits a COCO annotation file into labeled and unlabeled images; a manifest says how."""

import argparse
from pathlib import Path

from mmcast.cli.options import add_force

_TOY = 'data/toy_cityscapes/annotations/instances_train.json'
EXAMPLES = {
    '10 % of the images labeled': (
        '{command} ' + _TOY + ' labeled.json unlabeled.json --percent 10'
    ),
    '20 images, with every class among them': (
        '{command} ' + _TOY + ' labeled.json unlabeled.json --count 20 --stratify'
    ),
    'the images that a text file names': (
        '{command} ' + _TOY + ' labeled.json unlabeled.json --from-list names.txt'
    ),
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument('ann_file', type=Path, help='COCO JSON of all images')
    parser.add_argument(
        'labeled_out',
        type=Path,
        help='COCO JSON to write: the labeled images with their annotations',
    )
    parser.add_argument(
        'unlabeled_out', type=Path, help='COCO JSON to write: the other images, no annotations'
    )
    number = parser.add_mutually_exclusive_group(required=True)
    number.add_argument('--percent', type=float, help='percentage of the images to label')
    number.add_argument('--count', type=int, help='number of images to label')
    number.add_argument(
        '--from-list',
        type=Path,
        help='text file that names the images to label, one per line, with or without folder '
        'and extension',
    )
    parser.add_argument(
        '--seed',
        type=int,
        default=0,
        help='of the draw (default 0); the draws of one seed nest: its 5 %% are among its 10 %%',
    )
    parser.add_argument(
        '--stratify', action='store_true', help='make sure that every class is among the labels'
    )
    parser.add_argument(
        '--img-dir',
        type=Path,
        help='folder of the images; needed only where the file lacks their width and height',
    )
    add_force(parser, 'existing files')


def run(args: argparse.Namespace) -> None:
    from mmcast.coco.splits import make_split

    counts = make_split(
        args.ann_file,
        args.labeled_out,
        args.unlabeled_out,
        percent=args.percent,
        count=args.count,
        from_list=args.from_list,
        seed=args.seed,
        stratify=args.stratify,
        img_dir=args.img_dir,
        force=args.force,
    )
    print(
        f'{counts["labeled"]} labeled and {counts["unlabeled"]} unlabeled images; labeled '
        'instances: '
        + ', '.join(f'{number} {name}' for name, number in counts['instances'].items())
    )
