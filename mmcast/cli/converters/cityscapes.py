"""Converts Cityscapes (leftImg8bit + gtFine), or Toy Cityscapes, to COCO JSON."""

import argparse

from mmcast.cli.options import add_coco_conversion

EXAMPLES = {
    'both splits, with their labels': '{command} data/cityscapes --num-workers 8',
    'the validation images of Toy Cityscapes': '{command} data/toy_cityscapes --splits val',
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_coco_conversion(
        parser,
        root='folder with leftImg8bit/ and gtFine/',
        splits='train, val or both (default); the labels of test are not public',
    )


def run(args: argparse.Namespace) -> None:
    from mmcast.coco.converters.cityscapes import convert_cityscapes

    out_dir = args.out_dir or args.root / 'annotations'
    for split in args.splits:
        out_file = out_dir / f'instances_{split}.json'
        counts = convert_cityscapes(
            args.root, split, out_file, num_workers=args.num_workers, force=args.force
        )
        print(f'{out_file}: ' + ', '.join(f'{number} {name}' for name, number in counts.items()))
