"""Writes a student as one ONNX file, from images to boxes, masks, scores and labels, and compares
it with torch.
"""

import argparse
from typing import TYPE_CHECKING

from mmcast.cli.options import add_force, add_source, check_source

if TYPE_CHECKING:
    from mmcast.deploy.export import Source
    from mmcast.deploy.quantization import CalibrationImages

EXAMPLES = {
    'the student of a finished pipeline': '{command} work_dirs/cast_toy --out student.onnx',
    'an exported student': '{command} student --out student.onnx',
    'the student of any run, in 8 bits; with the mask AP of torch and of the file': (
        '{command} toy/toy_student_refine.py work_dirs/cast_toy/08_refine/iter_100.pth '
        '--out student.onnx --precision int8 --ap'
    ),
    'the fastest in 8 bits that loses at most half a point of mask AP on the test set': (
        '{command} work_dirs/cast_toy --out student.onnx --precision int8 '
        '--calibration data/toy_cityscapes/leftImg8bit/train --max-ap-drop 0.5'
    ),
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_source(
        parser,
        'work directory of a pipeline, folder of an exported student, or a config and a checkpoint',
    )
    parser.add_argument('--out', required=True, help='ONNX file to write')
    parser.add_argument('--precision', choices=['fp32', 'fp16', 'int8'], default='fp32')
    parser.add_argument(
        '--attention',
        choices=['standard', 'onnxruntime'],
        default='standard',
        help="of the encoder: standard operators, or onnxruntime's own one, which is faster",
    )
    parser.add_argument(
        '--score-thr',
        type=float,
        default=0.3,
        help='default threshold of the file (default 0.3); callers may give another',
    )
    parser.add_argument(
        '--ap',
        action='store_true',
        help='then compute the mask AP of torch and of the file on the test set of the config',
    )
    int8 = parser.add_argument_group('static quantisation, with --precision int8')
    int8.add_argument(
        '--calibration',
        metavar='IMAGES',
        help='folder or COCO file of images like those that the student is for, without labels: '
        'convolutions in 8 bits as well, by the ranges seen on them',
    )
    int8.add_argument(
        '--calibration-images',
        type=int,
        default=32,
        metavar='N',
        help='how many of them, evenly spread (default 32)',
    )
    int8.add_argument(
        '--max-ap-drop',
        type=float,
        metavar='POINTS',
        help='try dynamic and several mixes of static quantisation and fp32, and write the fastest '
        'whose mask AP on the test set of the config is at most so far below that of fp32; fails '
        'where none is',
    )
    add_force(parser, 'an existing file')


def run(args: argparse.Namespace) -> None:
    check_source(args)
    if args.calibration and args.precision != 'int8':
        args.parser.error('--calibration is for --precision int8')
    if args.max_ap_drop is not None and not args.calibration:
        args.parser.error('--max-ap-drop needs --precision int8 and --calibration IMAGES')
    from mmcast.deploy import export_onnx, find_source

    source = find_source(args.source, args.step)
    if source.step:
        print(f'student of step {source.step}, {source.checkpoint}')
    calibration = None
    if args.calibration:
        from mmcast.deploy.quantization import CalibrationImages

        calibration = CalibrationImages(args.calibration, args.calibration_images)
    if args.max_ap_drop is not None:
        _search(args, source, calibration)
    else:
        agreement = export_onnx(
            source,
            args.out,
            args.precision,
            args.score_thr,
            args.force,
            args.attention,
            calibration,
        )
        print(f'{args.out}: {args.precision}, agrees with torch: {agreement}')
    if args.ap:
        from mmcast.deploy.accuracy import compare_ap

        for name, value in compare_ap(source, args.out).items():
            print(f'{name}: mask AP {100 * value:.1f}')


def _search(args: argparse.Namespace, source: 'Source', calibration: 'CalibrationImages') -> None:
    """The fastest file within ``--max-ap-drop``, and the table of what was tried."""
    from mmcast.deploy.onnx_export import Draft
    from mmcast.deploy.precision_search import export_fastest

    draft = Draft(source, args.out, args.score_thr, args.force, args.attention)
    found = export_fastest(draft, calibration, args.max_ap_drop, print)
    print(f'{args.out}: {found.chosen.name}; compared with torch: {found.agreement}')
