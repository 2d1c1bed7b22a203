"""Looks for mistakes in a COCO data set; nothing in it is changed.

Exit status: 0 clean, 1 problems found, 2 could not run.
"""

import argparse

from mmcast.cli.options import add_force, check_output_files

FAILURE_STATUS = 2  # 1 says that the data have problems

_TOY = 'data/toy_cityscapes/annotations/labeled_10percent_seed0.json'
EXAMPLES = {
    'labeled images, and a page of what was found': (
        '{command} ' + _TOY + ' --img-dir data/toy_cityscapes/leftImg8bit/train '
        '--sheet findings.html'
    ),
    'and whether images of it are among the validation images, or the unlabeled ones': (
        '{command} ' + _TOY + ' --img-dir data/toy_cityscapes/leftImg8bit/train '
        '--val data/toy_cityscapes/annotations/instances_val.json '
        '--val-img-dir data/toy_cityscapes/leftImg8bit/val '
        '--unlabeled data/toy_cityscapes/annotations/unlabeled_10percent_seed0.json'
    ),
    'the annotations alone': '{command} ' + _TOY + ' --no-images',
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
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
            help=f'folder of the images of the {name} JSON (default: its own, if they are '
            'there, else --img-dir)',
        )
    parser.add_argument(
        '--value-range',
        metavar='LOW,HIGH',
        help='black and white in images of more than 8 bits, or percentile: they are findings '
        'without it',
    )
    parser.add_argument(
        '--crowd-as-instances',
        action='store_true',
        help='take annotations with iscrowd 1 for single objects, as brush masks of some tools are',
    )
    parser.add_argument(
        '--sheet', metavar='HTML', help='page to write: findings, overlays of some images'
    )
    parser.add_argument(
        '--sheet-images', type=int, default=40, metavar='N', help='how many overlays (default 40)'
    )
    parser.add_argument('--json', metavar='JSON', help='file to write: all findings and statistics')
    parser.add_argument('--workers', type=int, help='processes (default: one for each processor)')
    add_force(parser, 'existing files of --sheet and --json')


def run(args: argparse.Namespace) -> int:
    if args.sheet and args.no_images:
        args.parser.error('--sheet draws images: give --img-dir instead of --no-images')
    check_output_files(
        (args.sheet, args.json), (args.ann_file, args.unlabeled, args.val), args.force
    )
    from mmcast.coco.checks.run import check_dataset

    report = check_dataset(
        args.ann_file,
        args.img_dir,
        unlabeled=args.unlabeled,
        unlabeled_img_dir=args.unlabeled_img_dir,
        val=args.val,
        val_img_dir=args.val_img_dir,
        value_range=args.value_range,
        crowd_as_instances=args.crowd_as_instances,
        workers=args.workers,
    )
    print(report.summary())
    if args.sheet:
        from mmcast.reports.data_set import write_sheet

        write_sheet(report, args.sheet, args.sheet_images)
    if args.json:
        from mmcast.files import write_json

        write_json(args.json, report.to_dict(), args.force)
    return 1 if report.problems else 0
