"""Segments an image, a folder of images or a video; writes overlays and a COCO JSON.

python tools/predict.py student.onnx photo.jpg --out found            needs onnxruntime, no torch,
no mmdet python tools/predict.py student_folder photos/ --out found            of
tools/export_student.py python tools/predict.py CONFIG photos/ --checkpoint CHECKPOINT --out found
"""

import argparse
import sys

from mmcast.cli.errors import report_errors
from mmcast.deploy import load_student, predict


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('model', help='ONNX file, folder of an exported student, or config')
    parser.add_argument('source', help='image, folder (with its subfolders) or video')
    parser.add_argument('--out', required=True, help='folder for predictions.json and the overlays')
    parser.add_argument('--checkpoint', help='weights, where MODEL is a config')
    parser.add_argument('--score-thr', type=float, help='default that of the ONNX file, else 0.3')
    parser.add_argument('--no-overlays', action='store_true', help='write the JSON only')
    parser.add_argument(
        '--device', help='for torch: cpu, cuda, cuda:1 ...; default the accelerator if there is one'
    )
    parser.add_argument('--force', action='store_true', help='replace earlier results')
    return parser.parse_args()


@report_errors
def main() -> None:
    args = parse_args()
    student = load_student(args.model, args.checkpoint, args.device)
    result = predict(
        student,
        args.source,
        args.out,
        args.score_thr,
        not args.no_overlays,
        args.force,
        show=lambda line: print(line, file=sys.stderr, flush=True),
    )
    skipped = f', {len(result.skipped)} skipped' if result.skipped else ''
    print(f'{args.out}: {result.instances} instances on {result.pictures} pictures{skipped}')


if __name__ == '__main__':
    main()
