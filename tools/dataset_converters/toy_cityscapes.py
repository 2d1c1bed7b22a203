"""Generate Toy Cityscapes: small street scenes in the folder layout and formats of Cityscapes."""

import argparse
from pathlib import Path

from mmcast.cli.errors import report_errors
from mmcast.toy.cityscapes import generate_toy_cityscapes


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument(
        'root', type=Path, help='folder to fill; an interrupted call is completed by a second one'
    )
    parser.add_argument(
        '--domain', default='target', help="'source' (clear day) or 'target' (rainy dusk)"
    )
    parser.add_argument('--seed', type=int, default=0, help='of all random numbers')
    parser.add_argument('--num-train', type=int, default=200, help='training images')
    parser.add_argument('--num-val', type=int, default=60, help='validation images')
    parser.add_argument(
        '--size', type=int, nargs=2, default=[112, 224], metavar=('HEIGHT', 'WIDTH'), help='pixels'
    )
    return parser.parse_args()


@report_errors
def main() -> None:
    args = parse_args()
    generate_toy_cityscapes(
        args.root, args.domain, args.seed, args.num_train, args.num_val, tuple(args.size)
    )
    print(
        f'{args.root}: {args.num_train} training and {args.num_val} validation images; next: '
        f'tools/dataset_converters/cityscapes.py {args.root}'
    )


if __name__ == '__main__':
    main()
