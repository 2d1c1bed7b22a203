"""Converts ADE20K (ADEChallengeData2016 with annotations_instance) to COCO JSON of its 100 instance
classes.
"""

import argparse

from mmcast.cli.options import add_coco_conversion

EXAMPLES = {
    'both splits, with their labels': '{command} data/ADEChallengeData2016 --num-workers 8',
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_coco_conversion(
        parser,
        root='folder with images/ and annotations_instance/',
        splits='train, val or both (default)',
    )


def run(args: argparse.Namespace) -> None:
    from mmcast.coco.converters.ade20k import convert_ade20k

    out_dir = args.out_dir or args.root / 'annotations'
    for split in args.splits:
        out_file = out_dir / f'instances_{split}.json'
        counts = convert_ade20k(
            args.root, split, out_file, num_workers=args.num_workers, force=args.force
        )
        print(f'{out_file}: {counts["images"]} images, {counts["instances"]} instances')
