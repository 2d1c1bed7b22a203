"""Writes a student as one ONNX file, from images to boxes, masks, scores and labels, and compares
it with torch.
"""

import argparse

from mmcast.cli.options import add_force, add_source, check_source

EXAMPLES = {
    'the student of a finished pipeline': '{command} work_dirs/cast_toy --out student.onnx',
    'an exported student': '{command} student --out student.onnx',
    'the student of any run, in 8 bits; with the mask AP of torch and of the file': (
        '{command} toy/toy_student_refine.py work_dirs/cast_toy/08_refine/iter_100.pth '
        '--out student.onnx --precision int8 --ap'
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
    add_force(parser, 'an existing file')


def run(args: argparse.Namespace) -> None:
    check_source(args)
    from mmcast.deploy import export_onnx, find_source

    source = find_source(args.source, args.step)
    agreement = export_onnx(
        source, args.out, args.precision, args.score_thr, args.force, args.attention
    )
    print(f'{args.out}: {args.precision}, agrees with torch: {agreement}')
    if args.ap:
        from mmcast.deploy.accuracy import compare_ap

        for name, value in compare_ap(source, args.out).items():
            print(f'{name}: mask AP {100 * value:.1f}')
