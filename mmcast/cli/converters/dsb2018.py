"""Converts nuclei of the 2018 Data Science Bowl (stage1_train of BBBC038) to COCO JSON."""

import argparse
from pathlib import Path

from mmcast.cli.options import add_force, add_num_workers

EXAMPLES = {
    'the data of cast_dsb2018.py': '{command} stage1_train --num-workers 8',
    'images of every size, elsewhere': '{command} stage1_train --all-sizes --out-dir data/nuclei',
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        'root', type=Path, help='folder with ID/images/ and ID/masks/, or one that holds it'
    )
    parser.add_argument(
        '--out-dir',
        type=Path,
        default=Path('data/dsb2018'),
        help='folder of the new data set (default data/dsb2018)',
    )
    parser.add_argument(
        '--val-percent', type=int, help='percentage of the images for validation (default 25)'
    )
    parser.add_argument(
        '--all-sizes',
        action='store_true',
        help='convert all images, not only those of 256x256 and 256x320',
    )
    add_num_workers(parser)
    add_force(parser, 'existing files')


def run(args: argparse.Namespace) -> None:
    from mmcast.coco.converters.dsb2018 import SIZES, VAL_PERCENT, convert_dsb2018

    counts = convert_dsb2018(
        args.root,
        args.out_dir,
        VAL_PERCENT if args.val_percent is None else args.val_percent,
        sizes=None if args.all_sizes else SIZES,
        num_workers=args.num_workers,
        force=args.force,
    )
    for split in ('train', 'val'):
        out_file = args.out_dir / f'annotations/instances_{split}.json'
        print(f'{out_file}: ' + ', '.join(f'{n} {name}' for name, n in counts[split].items()))
    for name, meaning in (
        ('other_sizes', 'images of other sizes left out; --all-sizes converts them too'),
        ('empty_masks', 'empty masks left out'),
        ('overlapping', 'images in which nuclei share pixels, kept as they are'),
    ):
        if counts[name]:
            print(f'{counts[name]} {meaning}')
