"""Converts Label Studio's JSON (polygons and brush masks) to COCO JSON with exact masks."""

import argparse
from pathlib import Path

from mmcast.cli.converters.shared import add_images, add_out_file, report

EXAMPLES = {
    'an export as JSON, with the images in a folder': (
        '{command} data/leaves/project.json --images data/leaves/images'
    ),
    'with the images beside it, at any depth': '{command} data/leaves/project.json',
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument('source', type=Path, help='the file of an export as "JSON"')
    add_images(parser)
    add_out_file(parser, 'its folder')


def run(args: argparse.Namespace) -> None:
    from mmcast.coco.converters.label_studio import convert_label_studio

    counts = convert_label_studio(
        args.source,
        args.out,
        args.images,
        args.rectangles_are_masks,
        args.num_workers,
        args.force,
    )
    report(counts, args.images or args.source.parent)
