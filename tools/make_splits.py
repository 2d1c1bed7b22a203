"""Split a COCO annotation file into labeled and unlabeled images, with a manifest that says how."""

import argparse
from pathlib import Path

from mmcast.cli.errors import report_errors
from mmcast.coco.splits import make_split


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument('ann_file', type=Path, help='COCO JSON of all images')
    parser.add_argument(
        'labeled_out', type=Path, help='COCO JSON to write: the drawn images with their annotations'
    )
    parser.add_argument(
        'unlabeled_out', type=Path, help='COCO JSON to write: the other images, no annotations'
    )
    number = parser.add_mutually_exclusive_group(required=True)
    number.add_argument('--percent', type=float, help='share of the images to label')
    number.add_argument('--count', type=int, help='number of images to label')
    number.add_argument(
        '--from-list',
        type=Path,
        help='text file that names the images to label, one a line, with or without folder '
        'and extension',
    )
    parser.add_argument(
        '--seed',
        type=int,
        default=0,
        help='of the draw; the draws of one seed nest: its 5 %% are among its 10 %%',
    )
    parser.add_argument(
        '--stratify', action='store_true', help='make sure that every class is among the labels'
    )
    parser.add_argument('--force', action='store_true', help='replace existing files')
    return parser.parse_args()


@report_errors
def main() -> None:
    counts = make_split(**vars(parse_args()))
    print(
        f'{counts["labeled"]} labeled and {counts["unlabeled"]} unlabeled images; labeled '
        'instances: '
        + ', '.join(f'{number} {name}' for name, number in counts['instances'].items())
    )


if __name__ == '__main__':
    main()
