"""Generates Toy Cityscapes: small street scenes in the folder layout and formats of Cityscapes."""

import argparse
from pathlib import Path

EXAMPLES = {
    'the data of cast_toy.py': '{command} data/toy_cityscapes --num-train 100',
    'larger scenes of a clear day': '{command} data/toy_day --domain source --size 224 448',
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        'root', type=Path, help='folder to fill; an interrupted call is completed by a second one'
    )
    parser.add_argument(
        '--domain',
        default='target',
        help="'source' (clear day), 'target' (rainy dusk, the default) or 'varied'",
    )
    parser.add_argument('--seed', type=int, default=0, help='of all random numbers (default 0)')
    parser.add_argument('--num-train', type=int, default=200, help='training images (default 200)')
    parser.add_argument('--num-val', type=int, default=60, help='validation images (default 60)')
    parser.add_argument(
        '--size',
        type=int,
        nargs=2,
        default=[112, 224],
        metavar=('HEIGHT', 'WIDTH'),
        help='pixels (default 112 224)',
    )


def run(args: argparse.Namespace) -> None:
    from mmcast.toy.cityscapes import generate_toy_cityscapes

    generate_toy_cityscapes(
        args.root, args.domain, args.seed, args.num_train, args.num_val, tuple(args.size)
    )
    # The other converter is called as this one is, as `mmcast convert NAME` or as a script.
    converter = args.parser.call.command.replace('toy_cityscapes', 'cityscapes')
    print(
        f'{args.root}: {args.num_train} training and {args.num_val} validation images; next: '
        f'{converter} {args.root}'
    )
