"""Convert Cityscapes (leftImg8bit + gtFine), or Toy Cityscapes, to COCO JSON."""

import argparse
from pathlib import Path

from mmcast.cli.errors import report_errors
from mmcast.coco.converters.cityscapes import convert_cityscapes


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument('root', type=Path, help='folder with leftImg8bit/ and gtFine/')
    parser.add_argument(
        '--splits',
        nargs='+',
        default=['train', 'val'],
        choices=['train', 'val'],
        metavar='SPLIT',
        help='train, val or both; the labels of test are not public',
    )
    parser.add_argument(
        '--out-dir', type=Path, help='folder of instances_SPLIT.json; without it ROOT/annotations'
    )
    parser.add_argument('--num-workers', type=int, default=0, help='processes that read the maps')
    parser.add_argument('--force', action='store_true', help='replace existing files')
    return parser.parse_args()


@report_errors
def main() -> None:
    args = parse_args()
    out_dir = args.out_dir or args.root / 'annotations'
    for split in args.splits:
        out_file = out_dir / f'instances_{split}.json'
        counts = convert_cityscapes(
            args.root, split, out_file, num_workers=args.num_workers, force=args.force
        )
        print(f'{out_file}: ' + ', '.join(f'{number} {name}' for name, number in counts.items()))


if __name__ == '__main__':
    main()
