"""Look for mistakes in a COCO data set; nothing in it is changed.

Exit status: 0 clean, 1 problems found, 2 could not run.
"""

import argparse
import sys
import traceback
from pathlib import Path

from mmcast.coco.checks.run import check_dataset
from mmcast.errors import CASTError
from mmcast.files import write_json
from mmcast.reports.data_set import write_sheet


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('ann_file', help='COCO JSON of the labeled images')
    images = parser.add_mutually_exclusive_group(required=True)
    images.add_argument('--img-dir', help='folder that its file names are relative to')
    images.add_argument('--no-images', action='store_true', help='check the annotations only')
    for name in ('unlabeled', 'val'):
        parser.add_argument(
            f'--{name}',
            metavar='JSON_OR_FOLDER',
            help=f'{name} images: are labeled ones among them, by name or by content?',
        )
        parser.add_argument(
            f'--{name}-img-dir',
            metavar='FOLDER',
            help=f'folder of the images of the {name} JSON (default: --img-dir)',
        )
    parser.add_argument(
        '--sheet', metavar='HTML', help='page to write: findings, overlays of some images'
    )
    parser.add_argument(
        '--sheet-images', type=int, default=40, metavar='N', help='how many overlays (default: 40)'
    )
    parser.add_argument('--json', metavar='JSON', help='file to write: all findings and statistics')
    parser.add_argument('--workers', type=int, help='processes (default: one for each processor)')
    parser.add_argument(
        '--force', action='store_true', help='replace existing files of --sheet and --json'
    )
    args = parser.parse_args()
    if args.sheet and args.no_images:
        parser.error('--sheet draws images: give --img-dir instead of --no-images')
    return args


def check_outputs(args: argparse.Namespace) -> None:
    """Before the work, not after it."""
    inputs = [Path(path).resolve() for path in (args.ann_file, args.unlabeled, args.val) if path]
    for path in filter(None, (args.sheet, args.json)):
        if Path(path).resolve() in inputs:
            raise CASTError(f'{path} is part of the data set: name another file for the result')
        if Path(path).exists() and not args.force:
            raise CASTError(f'{path} exists: delete it, name another file or use --force')


def run(args: argparse.Namespace) -> int:
    check_outputs(args)
    report = check_dataset(
        args.ann_file,
        args.img_dir,
        unlabeled=args.unlabeled,
        unlabeled_img_dir=args.unlabeled_img_dir,
        val=args.val,
        val_img_dir=args.val_img_dir,
        workers=args.workers,
    )
    print(report.summary())
    if args.sheet:
        write_sheet(report, args.sheet, args.sheet_images)
    if args.json:
        write_json(args.json, report.to_dict(), args.force)
    return 1 if report.problems else 0


def main() -> None:
    args = parse_args()
    sys.stdout.reconfigure(
        errors='backslashreplace'
    )  # a terminal may lack characters of file names
    try:
        sys.exit(run(args))
    except (CASTError, OSError) as error:
        print(f'error: {" ".join(str(error).split())}', file=sys.stderr)
        sys.exit(2)
    except Exception:  # a mistake in here is none in the data, as status 1 would say
        traceback.print_exc()
        sys.exit(2)


if __name__ == '__main__':
    main()
