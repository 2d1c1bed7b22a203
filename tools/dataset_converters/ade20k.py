"""Convert ADE20K (ADEChallengeData2016 with annotations_instance) to COCO JSON of its 100 instance
classes.
"""

import argparse
from pathlib import Path

from mmcast.cli.errors import report_errors
from mmcast.coco.converters.ade20k import FOLDERS, convert_ade20k


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument('root', type=Path, help='folder with images/ and annotations_instance/')
    parser.add_argument(
        '--splits',
        nargs='+',
        default=list(FOLDERS),
        choices=list(FOLDERS),
        metavar='SPLIT',
        help='train, val or both',
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
        counts = convert_ade20k(
            args.root, split, out_file, num_workers=args.num_workers, force=args.force
        )
        print(f'{out_file}: {counts["images"]} images, {counts["instances"]} instances')


if __name__ == '__main__':
    main()
