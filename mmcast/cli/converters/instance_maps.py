"""Converts instance maps, images in which every object has a number or colour of its own."""

import argparse
from pathlib import Path

from mmcast.cli.converters.shared import add_out_file, report

EXAMPLES = {
    'Penn-Fudan': (
        '{command} PennFudanPed --images PNGImages --maps PedMasks --class-name pedestrian'
    ),
    'masks of Cellpose, beside their images': (
        '{command} cells --images . --maps . --class-name cell'
    ),
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument('root', type=Path, help='folder of images and maps, the data root')
    parser.add_argument(
        '--images', default='images', help='its folder of images (default %(default)s)'
    )
    parser.add_argument('--maps', default='masks', help='its folder of maps (default %(default)s)')
    parser.add_argument(
        '--class-name', default='object', help='the class of all objects (default %(default)s)'
    )
    parser.add_argument(
        '--ending',
        help='what the name of a map has behind that of its image, such as _inst (default: the one '
        'that all maps have of nothing, _cp_masks, _masks, _mask, _instances, _labels, _label)',
    )
    parser.add_argument(
        '--ignore', type=int, metavar='NUMBER', help='a number that is no object; 0 is background'
    )
    parser.add_argument(
        '--single',
        action='store_true',
        help='no image has more than one object; without it, maps in which that one is in several '
        'parts are taken for maps of classes and refused',
    )
    add_out_file(parser, 'ROOT', rectangles=False)


def run(args: argparse.Namespace) -> None:
    from mmcast.coco.converters.numbered_maps import convert_numbered_maps

    counts = convert_numbered_maps(
        args.root,
        args.images,
        args.maps,
        args.class_name,
        args.ending,
        args.ignore,
        args.single,
        args.out,
        args.num_workers,
        args.force,
    )
    report(counts, args.root)
