"""Writes a student as one ONNX file, from images to boxes, masks, scores and labels, and checks it
against torch.

    python tools/export_onnx.py work_dirs/cast_toy --out student.onnx a finished pipeline
    python tools/export_onnx.py student --out student.onnx           the folder of
    tools/export_student.py python tools/export_onnx.py CONFIG CHECKPOINT --out student.onnx
"""

import argparse

from mmcast.cli.errors import report_errors


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        'source',
        nargs='+',
        help='work directory of a pipeline, folder of an exported student, or a config and a '
        'checkpoint',
    )
    parser.add_argument(
        '--step', help='of the pipeline; default the last one that trained the student'
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
    parser.add_argument('--force', action='store_true', help='replace an existing file')
    args = parser.parse_args()
    if len(args.source) > 2:
        parser.error('give a work directory, or a config and a checkpoint')
    return args


@report_errors
def main() -> None:
    args = parse_args()
    from mmcast.deploy import (
        export_onnx,
        find_source,
    )  # here, so that --help does not wait for torch

    source = find_source(args.source, args.step)
    agreement = export_onnx(
        source, args.out, args.precision, args.score_thr, args.force, args.attention
    )
    print(f'{args.out}: {args.precision}, agrees with torch: {agreement}')
    if args.ap:
        from mmcast.deploy.accuracy import compare_ap

        for name, value in compare_ap(source, args.out).items():
            print(f'{name}: mask AP {100 * value:.1f}')


if __name__ == '__main__':
    main()
