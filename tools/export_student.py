"""Writes the student alone: weights without teacher, projector or optimiser, and a config that
stock mmdet runs.

    python tools/export_student.py work_dirs/cast_toy --out student                a finished
    pipeline python tools/export_student.py work_dirs/cast_toy --step transfer --out student python
    tools/export_student.py CONFIG CHECKPOINT --out student                 any run
"""

import argparse

from mmcast.cli.errors import report_errors


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        'source', nargs='+', help='work directory of a pipeline, or a config and a checkpoint'
    )
    parser.add_argument(
        '--step', help='of the pipeline; default the last one that trained the student'
    )
    parser.add_argument(
        '--out', required=True, help='folder for student.py, student.pth, student.safetensors'
    )
    parser.add_argument('--force', action='store_true', help='replace these files')
    args = parser.parse_args()
    if len(args.source) > 2:
        parser.error('give a work directory, or a config and a checkpoint')
    return args


@report_errors
def main() -> None:
    args = parse_args()
    from mmcast.deploy import (
        export_student,
        find_source,
    )  # here, so that --help does not wait for torch

    source = find_source(args.source, args.step)
    folder = export_student(source, args.out, args.force)
    origin = f'step {source.step}, ' if source.step else ''
    print(f'{folder}: student of {origin}{source.checkpoint}')


if __name__ == '__main__':
    main()
