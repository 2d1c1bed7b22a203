"""Converts Pascal VOC's masks (SegmentationObject and SegmentationClass) to COCO JSON."""

import argparse
from pathlib import Path

from mmcast.cli.converters.shared import add_out_dir, report

EXAMPLES = {
    'VOC 2012, with its lists train and val': '{command} VOCdevkit/VOC2012 --num-workers 8',
    'an export of CVAT as Pascal VOC 1.1, to a folder elsewhere': (
        '{command} data/leaves --out-dir data/leaves_coco'
    ),
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        'root', type=Path, help='folder with JPEGImages/, SegmentationObject/, SegmentationClass/'
    )
    add_out_dir(parser, 'instances_LIST.json, a file for each list in ImageSets/Segmentation')


def run(args: argparse.Namespace) -> None:
    from mmcast.coco.converters.voc import convert_voc

    report(convert_voc(args.root, args.out_dir, args.num_workers, args.force), args.root)
