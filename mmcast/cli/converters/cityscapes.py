"""Converts Cityscapes (leftImg8bit + gtFine), or Toy Cityscapes, to COCO JSON."""

import argparse
import os
from pathlib import Path

from mmcast.cli.options import add_coco_conversion

EXAMPLES = {
    'both splits, with their labels': '{command} data/cityscapes --num-workers 8',
    'images 160 pixels high, in data/cityscapes_160': '{command} data/cityscapes --height 160',
    'the validation images of Toy Cityscapes': '{command} data/toy_cityscapes --splits val',
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_coco_conversion(
        parser,
        root='folder with leftImg8bit/ and gtFine/',
        splits='train, val or both (default); the labels of test are not public',
    )
    parser.add_argument(
        '--height',
        type=int,
        help='resize images and maps to this number of pixels, into --out-root; then convert these',
    )
    parser.add_argument(
        '--out-root',
        type=Path,
        help='folder of resized leftImg8bit/ and gtFine/ (default ROOT_HEIGHT)',
    )


def run(args: argparse.Namespace) -> None:
    from mmcast.coco.converters.cityscapes import convert_cityscapes
    from mmcast.coco.converters.cityscapes_resized import resize_cityscapes

    if args.out_root and args.height is None:
        args.parser.error('--out-root is for resized images: give --height')
    root = args.root
    if args.height is not None:
        beside = os.path.relpath(f'{os.path.abspath(root)}_{args.height}')
        root = args.out_root or Path(beside)
    out_dir = args.out_dir or root / 'annotations'
    for split in args.splits:
        if args.height is not None:
            resize_cityscapes(
                args.root, split, root, args.height, args.num_workers, force=args.force
            )
        out_file = out_dir / f'instances_{split}.json'
        counts = convert_cityscapes(
            root, split, out_file, num_workers=args.num_workers, force=args.force
        )
        print(f'{out_file}: ' + ', '.join(f'{number} {name}' for name, number in counts.items()))
