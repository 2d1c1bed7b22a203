"""Converts Labelme's JSON files (versions 3 to 6) to COCO JSON with exact masks."""

import argparse
from pathlib import Path

from mmcast.cli.converters.shared import add_out_file, report

EXAMPLES = {
    'a folder of images and their JSON files': '{command} data/leaves',
    'the same with four processes, to a file elsewhere': (
        '{command} data/leaves --out leaves.json --num-workers 4'
    ),
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        'root', type=Path, help='folder with the JSON files and their images, at any depth'
    )
    add_out_file(parser, 'ROOT')


def run(args: argparse.Namespace) -> None:
    from mmcast.coco.converters.labelme import convert_labelme

    counts = convert_labelme(
        args.root, args.out, args.rectangles_are_masks, args.num_workers, args.force
    )
    report(counts, args.root)
