"""Converts YOLO-seg (data.yaml, images/, labels/) to COCO JSON, one file for each split."""

import argparse
from pathlib import Path

from mmcast.cli.converters.shared import add_out_dir, report

EXAMPLES = {
    'a data set of Ultralytics': '{command} data/leaves/data.yaml',
    'an export of Roboflow, CVAT or Label Studio': '{command} data/leaves --pixel-edges',
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        'source', type=Path, help='data.yaml, or a folder with data.yaml or classes.txt'
    )
    parser.add_argument(
        '--pixel-edges',
        action='store_true',
        help='polygons run along the edges of pixels, as people draw them; by default through '
        'centres of pixels, as Ultralytics draws them',
    )
    add_out_dir(parser, 'instances_{train,val,test}.json, or instances.json without splits')


def run(args: argparse.Namespace) -> None:
    from mmcast.coco.converters.yolo import convert_yolo

    counts = convert_yolo(args.source, args.out_dir, args.pixel_edges, args.num_workers, args.force)
    report(counts, args.source if args.source.is_dir() else args.source.parent)
