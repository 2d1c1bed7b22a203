"""Writes the student alone: weights without teacher, projector or optimiser, and a config that
stock mmdet runs.
"""

import argparse

from mmcast.cli.options import add_force, add_source, check_source

EXAMPLES = {
    'the student of a finished pipeline': '{command} work_dirs/cast_toy --out student',
    'that of an earlier step': '{command} work_dirs/cast_toy --step transfer --out student',
    'that of any run': (
        '{command} toy/toy_student_refine.py work_dirs/cast_toy/08_refine/iter_100.pth '
        '--out student'
    ),
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_source(parser, 'work directory of a pipeline, or a config and a checkpoint')
    parser.add_argument(
        '--out', required=True, help='folder for student.py, student.pth, student.safetensors'
    )
    add_force(parser, 'these files')


def run(args: argparse.Namespace) -> None:
    check_source(args)
    from mmcast.deploy import export_student, find_source

    source = find_source(args.source, args.step)
    folder = export_student(source, args.out, args.force)
    origin = f'step {source.step}, ' if source.step else ''
    print(f'{folder}: student of {origin}{source.checkpoint}')
