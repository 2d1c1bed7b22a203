"""Segments an image, a folder of images or a video; writes overlays and a COCO JSON.

An ONNX file needs neither torch nor mmdet. Interrupted, the same command resumes; a finished output
of the same model, threshold and pictures is left alone. A picture that cannot be used is skipped
and named, here and in the JSON, and the exit status stays 0; it is 1 if no picture can be used, or
if a video ends before its header says, and 130 after Ctrl-C.
"""

import argparse
import sys

from mmcast.cli.options import add_base_weights

EXAMPLES = {
    'a folder of images, by an ONNX file': (
        '{command} student.onnx data/toy_cityscapes/leftImg8bit/val --out found'
    ),
    'one image, by an exported student': '{command} student photo.jpg --out found',
    'a video, by the checkpoint of any run': (
        '{command} toy/toy_student_refine.py drive.mp4 '
        '--checkpoint work_dirs/cast_toy/08_refine/iter_100.pth --out found'
    ),
}
_NAMED = 20  # skipped pictures


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument('model', help='ONNX file, folder of an exported student, or config')
    parser.add_argument('source', help='image, folder (with its subfolders) or video')
    parser.add_argument('--out', required=True, help='folder for predictions.json and the overlays')
    parser.add_argument('--checkpoint', help='weights, where MODEL is a config')
    parser.add_argument('--score-thr', type=float, help='default that of the ONNX file, else 0.3')
    parser.add_argument('--no-overlays', action='store_true', help='write the JSON only')
    parser.add_argument(
        '--device', help='cpu, cuda, cuda:1 ...; default the accelerator if there is one'
    )
    add_base_weights(parser)
    parser.add_argument(
        '--force',
        action='store_true',
        help='move earlier results aside, to NAME.old1 and so on; an interrupted run of the same '
        'model, threshold and pictures is resumed all the same',
    )


def run(args: argparse.Namespace) -> int:
    from mmcast.deploy import load_student, predict

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
    before = 'finished before: ' if result.finished_before else ''
    skipped = f', {len(result.skipped)} skipped' if result.skipped else ''
    print(
        f'{args.out}: {before}{result.instances} instances on {result.pictures} pictures{skipped}'
    )
    for name, reason in list(result.skipped.items())[:_NAMED]:
        print(f'skipped: {name} {reason}')
    if len(result.skipped) > _NAMED:
        print(f'all are listed in {args.out}/predictions.json under "unreadable"')
    if result.finding:
        print(f'error: {result.finding}; what could be read is in {args.out}', file=sys.stderr)
    return int(bool(result.finding))
