"""Converts CVAT's XML ("CVAT for images 1.1") to COCO JSON with exact masks."""

import argparse
from pathlib import Path

from mmcast.cli.converters.shared import add_images, add_out_file, report

EXAMPLES = {
    'an unpacked export with its images': '{command} data/leaves/annotations.xml',
    'an export without them': '{command} data/leaves/annotations.xml --images data/photos',
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument('source', type=Path, help='annotations.xml, or its folder')
    add_images(parser)
    add_out_file(parser, 'its folder')


def run(args: argparse.Namespace) -> None:
    from mmcast.coco.converters.cvat import convert_cvat

    counts = convert_cvat(
        args.source,
        args.out,
        args.images,
        args.rectangles_are_masks,
        args.num_workers,
        args.force,
    )
    folder = args.source if args.source.is_dir() else args.source.parent
    report(counts, args.images or folder)
