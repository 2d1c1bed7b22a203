"""Convert nuclei of the 2018 Data Science Bowl (stage1_train of BBBC038) to COCO JSON."""

import argparse
from pathlib import Path

from mmcast.cli.errors import report_errors
from mmcast.coco.converters.dsb2018 import SIZES, VAL_PERCENT, convert_dsb2018


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument(
        'root', type=Path, help='folder with ID/images/ and ID/masks/, or one that holds it'
    )
    parser.add_argument(
        '--out-dir', type=Path, default=Path('data/dsb2018'), help='folder of the new data set'
    )
    parser.add_argument(
        '--val-percent', type=int, default=VAL_PERCENT, help='share of the images for validation'
    )
    parser.add_argument(
        '--all-sizes',
        action='store_true',
        help='convert all images, not only those of '
        + ' and '.join(f'{height}x{width}' for height, width in SIZES),
    )
    parser.add_argument('--num-workers', type=int, default=0, help='processes that read the masks')
    parser.add_argument('--force', action='store_true', help='replace existing files')
    return parser.parse_args()


@report_errors
def main() -> None:
    args = parse_args()
    counts = convert_dsb2018(
        args.root,
        args.out_dir,
        args.val_percent,
        sizes=None if args.all_sizes else SIZES,
        num_workers=args.num_workers,
        force=args.force,
    )
    for split in ('train', 'val'):
        out_file = args.out_dir / f'annotations/instances_{split}.json'
        print(f'{out_file}: ' + ', '.join(f'{n} {name}' for name, n in counts[split].items()))
    for name, meaning in (
        ('other_sizes', 'images of other sizes left out; --all-sizes converts them too'),
        ('empty_masks', 'empty masks left out'),
        ('overlapping', 'images in which nuclei share pixels, kept as they are'),
    ):
        if counts[name]:
            print(f'{counts[name]} {meaning}')


if __name__ == '__main__':
    main()
